"""Two mixes or two runs side by side: what is paired, what is called a difference, and that two charts have one scale."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigError
from pipeline.progress import Progress
from pipeline.store import Store
from tests.browser import opened, screenshot
from tests.tools.made_run import analysed, write_run
from tools.report import model
from tools.report.blocks import Chart, Documents, Pair, Part, Section, Table, Text
from tools.report.compare import side_by_side
from tools.report.compare.axes import alike, merged
from tools.report.model.curves import apart, several, tokens
from tools.report.page import render

HOSTILE = "</script><b onmouseover=alert(1)>"


def mix(*blocks: Any, id: str = "mix-shares", intro: str = "") -> list[Part]:
    return [Part("mix", "The mix", [Section(id, "Shares", list(blocks), intro)])]


def shares(*rows: tuple[Any, ...], title: str = "Shares") -> Table:
    return Table(title, ["source", "share", "tokens"], list(rows), shares=frozenset({"share"}))


def differences(left: list[Part], right: list[Part]) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in top(left, right)[0].rows]


def top(left: list[Part], right: list[Part]) -> list[Any]:
    return list(side_by_side("a", "b", left, right)[0].sections[0].blocks)


def bars(values: dict[str, float], **more: Any) -> Chart:
    encoding = {"y": {"field": "source", "type": "nominal", "sort": None}, "x": {"field": "share", "type": "quantitative"}}
    spec = {"mark": "bar", "encoding": encoding, "height": 20 * len(values)}
    return Chart("Bars", {"source": list(values), "share": list(values.values())}, {**spec, **more}, "")


def domain(chart: Chart | None, channel: str) -> Any:
    assert chart is not None
    return chart.spec["encoding"][channel]["scale"]["domain"]


def test_blocks_are_paired_by_title_and_what_one_lacks_is_left_open() -> None:
    left = mix(Text("one"), shares(title="First"), shares(title="Both"), Documents("Samples", []))
    right = mix(Text("two"), shares(title="Both"), shares(title="Last"), Documents("Samples", []))
    _, part = side_by_side("a", "b", left, right)
    names, *pairs = part.sections[0].blocks
    assert names == Pair(Text("a"), Text("b"))
    assert [tuple(getattr(side, "title", getattr(side, "text", None)) for side in (pair.left, pair.right)) for pair in pairs] == [
        ("one", "two"), ("First", None), ("Both", "Both"), (None, "Last"), ("Samples", "Samples"),
    ]  # fmt: skip


def test_sections_of_one_alone_stand_where_they_would_and_are_named() -> None:
    left = [Part("model", "The model", [Section("model-loss", "Loss", []), Section("model-experts", "Expert load", [shares()])])]
    right = [Part("model", "The model", [Section("model-loss", "Loss", []), Section("model-rewards", "Rewards", [shares()])])]
    _, part = side_by_side("a", "b", left, right)
    assert [section.id for section in part.sections] == ["model-loss", "model-rewards", "model-experts"]
    assert top(left, right)[-1] == Text("In one alone: Expert load (a), Rewards (b).")


def test_every_cell_that_reads_otherwise_is_a_difference_and_no_other() -> None:
    left = mix(shares(("web", 0.75, 1000), ("code", 0.25, 500), ("wiki", 0.0, 0)))
    right = mix(shares(("web", 0.5, 1500), ("code", 0.25, 500.0), ("arxiv", 0.25, 500)))
    assert differences(left, right) == [
        ("web, share", "75.000%", "50.000%", "-25.00 points", "Shares"), ("web, tokens", "1,000", "1,500", "+50.0%", "Shares"),
        ("code, tokens", "500", "500.00", "+0.0%", "Shares"), ("Shares: wiki", "there", "–", "", "Shares"),
        ("Shares: arxiv", "–", "there", "", "Shares"),
    ]  # fmt: skip


def test_rows_are_known_by_as_many_texts_as_tell_them_apart() -> None:
    def funnel(*rows: tuple[Any, ...]) -> Table:
        return Table("Funnel", ["source", "reason", "documents"], list(rows))

    left = mix(funnel(("web", "short", 10), ("web", "long", 3), ("code", "short", 1)))
    right = mix(funnel(("web", "long", 4), ("web", "short", 10), ("code", "short", 1)))
    assert differences(left, right) == [("web, long", "3", "4", "+33.3%", "Shares")]


def test_equal_ones_say_so() -> None:
    both = mix(shares(("web", 1.0, 7)))
    assert top(both, both) == [Text("No number that both show differs."), Text("Equal in both: Shares.")]


def test_of_many_differences_the_largest_are_shown_and_the_others_counted() -> None:
    left = mix(shares(*((f"s{n:02}", 0.5, 1000) for n in range(30))))
    right = mix(shares(*((f"s{n:02}", 0.5, 1000 + n) for n in range(30))))
    table = top(left, right)[0]
    assert [row[0] for row in table.rows] == [f"s{n:02}, tokens" for n in range(10, 30)]
    assert "9 of Shares" in table.caption


def test_a_mix_and_a_run_are_refused() -> None:
    with pytest.raises(ConfigError, match="A=a has the mix to show, B=b the model; only two mixes or two runs"):
        side_by_side("a", "b", mix(), [Part("model", "The model")])


def test_two_charts_span_what_either_has_with_the_same_categories_and_room_for_each() -> None:
    left, right = alike(bars({"web": 0.9, "code": 0.1}), bars({"web": 0.2, "wiki": 0.5, "code": 0.3}))
    assert domain(left, "x") == domain(right, "x") == [0.0, 0.9]  # from zero, as bars are
    assert domain(left, "y") == domain(right, "y") == ["web", "wiki", "code"]
    assert left.spec["height"] == right.spec["height"] == 60


def test_the_charts_that_were_given_stay_as_they_are() -> None:
    given = bars({"web": 0.9})
    alike(given, bars({"code": 0.5}))
    assert given == bars({"web": 0.9})


def test_a_category_keeps_its_colour_whatever_the_other_chart_has() -> None:
    def coloured(**colours: str) -> Chart:
        scale = {"domain": list(colours), "range": list(colours.values())}
        return bars({}, encoding={"color": {"field": "source", "type": "nominal", "scale": scale}})

    left, right = alike(coloured(kept="blue", out="red"), coloured(kept="blue", dropped="green", out="red"))
    for chart in (left, right):
        scale = chart.spec["encoding"]["color"]["scale"]
        assert dict(zip(scale["domain"], scale["range"], strict=True)) == {"kept": "blue", "dropped": "green", "out": "red"}


@pytest.mark.parametrize("encoding", [
    {"x": {"field": "share", "type": "quantitative", "aggregate": "sum"}},
    {"x": {"field": "elsewhere", "type": "quantitative"}},
    {"x": {"field": "share", "type": "quantitative"}, "color": {"field": "source", "type": "nominal"}},
])  # fmt: skip
def test_a_scale_that_only_drawing_can_tell_stays(encoding: Any) -> None:
    left, right = alike(bars({"web": 1.0}, encoding=encoding), bars({"web": 2.0}, encoding=encoding))
    assert "scale" not in left.spec["encoding"]["x"] and "scale" not in right.spec["encoding"]["x"]


def test_panels_are_paired_by_their_titles_and_keep_a_scale_they_share() -> None:
    def panels(**tops: float) -> Chart:
        x = {"field": "share", "type": "quantitative"}
        views = [{"title": name, "mark": "bar", "encoding": {"x": {**x, "scale": {"domain": [0, top]}}}} for name, top in tops.items()]
        return Chart("Panels", {"share": [1.0]}, {"vconcat": views, "resolve": {"scale": {"x": "shared"}}}, "")

    left, right = alike(panels(web=5, code=9), panels(code=2))
    found = [[view["encoding"]["x"]["scale"]["domain"] for view in chart.spec["vconcat"]] for chart in (left, right)]
    assert found == [[[0, 9], [0, 9]], [[0, 9]]]


def test_axes_that_end_where_they_say_end_at_the_farther_place() -> None:
    def bounded(most: float) -> Chart:
        return bars({"web": 1.0}, encoding={"x": {"field": "share", "type": "quantitative", "scale": {"domainMax": most}}})

    assert [chart.spec["encoding"]["x"]["scale"] for chart in alike(bounded(3), bounded(8))] == [{"domainMax": 8}] * 2


def test_merging_keeps_both_orders() -> None:
    assert merged("abe", "bcde") == list("abcde")
    assert merged("", "xy") == list("xy") and merged("xy", "") == list("xy")


def test_names_of_curves_never_lie_on_each_other() -> None:
    places = apart([1.0, 1.0, 1.0, 9.9, 10.0], (0.0, 10.0), 130)
    assert min(b - a for a, b in pairwise(places)) > 0.99  # 13 px of 130
    assert min(places) >= 0 and max(places) <= 10


def test_names_of_curves_are_apart_on_the_axis_that_two_charts_share() -> None:
    def curve(*ends: float) -> Chart:
        names, domain = [f"s{place}" for place in range(len(ends))], (min(ends) - 1, max(ends) + 1)
        spec = several("source", names, {name: (9, end) for name, end in zip(names, ends, strict=True)}, "loss", "", tokens(9), domain, 130)
        return Chart("Loss", {"tokens": [9] * len(ends), "source": names, "loss": list(ends)}, spec, "")

    for chart in alike(curve(1.0, 1.1, 1.2), curve(1.0, 21.0)):
        assert chart is not None
        names = next(layer for layer in chart.spec["layer"] if layer.get("name") == "names")
        places = [row["place"] for row in names["data"]["values"]]
        assert min(b - a for a, b in pairwise(places)) > 0.99 * 22 / 10  # the axis goes from 0 to 22 over 130 px, a name has 13
        assert names["layer"][1]["encoding"]["y"]["scale"]["domain"] == [0.0, 22.0]


def test_two_runs_have_their_curves_in_one_chart_and_their_settings_among_the_differences(tmp_path: Path) -> None:
    write_run(tmp_path, "a", steps=20, sources=("web", "code"))
    write_run(tmp_path, "b", steps=40, sources=("web", "wiki"), optim__lr=0.001)
    parts = [[model.part(Store(tmp_path), name)] for name in ("a", "b")]
    first, part = side_by_side("a", "b", *parts)
    rows = {row[0]: row[1:] for row in first.sections[0].blocks[0].rows}  # type: ignore[union-attr]
    assert rows["optim.lr"] == ("0.003", "0.001", "", "Settings") and rows["steps"] == ("20", "40", "+100.0%", "At a glance")
    loss, held_out, _ = first.sections[1].blocks
    assert isinstance(loss, Chart) and isinstance(held_out, Chart)
    assert loss.spec["encoding"]["x"]["scale"]["domain"] == [0, 40 * 512]
    assert set(zip(held_out.columns["run"], held_out.columns["source"], strict=True)) == {("a", "web"), ("b", "web")}
    pair = next(
        block for section in part.sections for block in section.blocks if getattr(block.left, "title", "") == "Held-out loss by source"
    )
    assert isinstance(pair.left, Chart) and isinstance(pair.right, Chart)
    for chart in (pair.left, pair.right):
        line, *_, names, _point = chart.spec["layer"]
        assert line["encoding"]["color"]["scale"]["domain"] == ["web", "wiki", "code"]
        assert names["layer"][0]["encoding"]["x"]["scale"]["domain"] == [0, 40 * 512]
        assert chart.spec["encoding"]["x"]["scale"]["domain"] == [0, 40 * 512]


@pytest.mark.slow
def test_two_runs_side_by_side_in_a_browser(tmp_path: Path, browser: Any) -> None:
    from tools.report.vega import scripts

    analysed(write_run(tmp_path, HOSTILE.replace("/", ""), steps=200, every=20, sources=("web", HOSTILE)))
    write_run(tmp_path, "dense", steps=100, every=20, model__ffn="dense")
    write_run(tmp_path, "sixteen", steps=100, every=20, model__experts=16, model__layers=4)
    for number, (a, b) in enumerate([(HOSTILE.replace("/", ""), "sixteen"), ("sixteen", "dense")]):
        parts = side_by_side(a, b, *([model.part(Store(tmp_path), name)] for name in (a, b)))
        file = tmp_path / f"{number}.html"
        file.write_bytes(render(f"{a} beside {b}", parts, scripts(Progress()), "made"))
        with opened(browser, file, viewport={"width": 1440, "height": 1000}) as page:
            page.locator("html[data-drawn=all]").wait_for(timeout=60_000)
            assert page.locator("figure.chart").count() == page.locator("figure.chart[data-drawn=done]").count() > 20
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
            screenshot(page, f"report-compare-{number}", whole=True)
