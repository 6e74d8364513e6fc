"""The report's part about a mix, held to its documents' own rows, counted in another way; and a page about a million documents."""

import json
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import catalog, journal
from pipeline.build import Request, build
from pipeline.errors import ConfigError, PipelineError
from pipeline.progress import Progress
from pipeline.release import SourceBooks
from pipeline.stats import open_catalog
from pipeline.store import Store
from pipeline.taggers.predicates import columns_of
from tests.browser import opened, screenshot
from tests.tools import million
from tools.report import mix
from tools.report.blocks import Chart, Part, Section, Table, Text
from tools.report.mix import attributes, duplicates, funnel, languages, lengths, shares, sources, times, validation  # fmt: skip
from tools.report.mix.histograms import bins
from tools.report.mix.limits import Limit, limits
from tools.report.mix.marks import named
from tools.report.mix.sources import BuiltMix
from tools.report.mix.values import values_chart
from tools.report.page import LARGEST, render
from tools.report.vega import scripts

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tools.s3_server import S3

Row = dict[str, Any]
HOLDS: dict[str, Callable[[Any, float], Any]] = {"<": np.less, ">": np.greater, "≤": np.less_equal, "≥": np.greater_equal}


def of(store: Store) -> BuiltMix:
    """The store's mix, by a connection that knows nothing of the store's catalog: that may be about another mix."""
    [path] = [path for path in store.files("mixes") if path.endswith(".lock.json")]
    return BuiltMix.of(store, duckdb.connect(), path.removeprefix("mixes/").removesuffix(".lock.json"))


def ledger(mix: BuiltMix, source: str) -> list[Row]:
    """Every document that was read of a source, and what became of it."""
    folders = mix.manifest["sources"][source]["units"]["shards"]
    return [row for folder in folders for row in pq.read_table(mix.store.path(f"{folder}/ledger.parquet")).to_pylist()]


def charts(section: Section) -> dict[str, Chart]:
    return {block.title: block for block in section.blocks if isinstance(block, Chart)}


def tables(section: Section) -> dict[str, Table]:
    return {block.title: block for block in section.blocks if isinstance(block, Table)}


def rows(chart: Chart) -> list[Row]:
    return [dict(zip(chart.columns, values, strict=True)) for values in zip(*chart.columns.values(), strict=True)]


@pytest.fixture(params=["built", "curated"])
def found(request: pytest.FixtureRequest) -> BuiltMix:
    return of(request.getfixturevalue(request.param))


def test_shares_are_the_lock_files(built: Store) -> None:
    mix = of(built)
    section = shares.section(mix)
    drawn = {(row["source"], row["of the instances"]): row["share"] for row in rows(charts(section)["Requested beside obtained"])}
    for source in mix.lock.sources:
        assert (drawn[source.name, "requested"], drawn[source.name, "obtained"]) == (source.requested_share, source.obtained_share)
    total = tables(section)["Shares"].rows[-1]
    assert total[0] == "total" and total[1] == pytest.approx(1) and total[-1] == sum(source.instances for source in mix.lock.sources)


def test_the_bars_of_a_source_descend_from_what_was_read_to_what_is_trained_on(found: BuiltMix) -> None:
    drawn = charts(funnel.section(found))
    for source in found.sources:
        steps = rows(drawn[f"{source.name}: from raw files to tokens"])
        documents = ledger(found, source.name)
        assert steps[0]["to MB"] * 1e6 == pytest.approx(source.entry["raw_bytes"])
        assert steps[1]["documents"] == len(documents) and steps[1]["to MB"] * 1e6 == pytest.approx(sum(row["bytes"] for row in documents))
        left = steps[1]["to MB"]
        for step in steps[2:]:
            assert step["to MB"] == pytest.approx(left)
            left = step["from MB"]
        assert left == pytest.approx(0, abs=1e-9)
        fates = {"validation": "held out", "train": "kept for training"}
        expected = Counter(fates[row["split"]] if row["kept"] else row["dropped_by"] for row in documents)
        assert {step["step"]: step["documents"] for step in steps[2:] if step["documents"]} == expected
        trained = next(step for step in steps if step["what"] == "kept for training")
        assert trained["tokens"] == sum(row["tokens"] for row in documents if row["split"] == "train")


def test_the_fates_of_a_source_are_all_of_its_text(found: BuiltMix) -> None:
    shares: dict[str, float] = defaultdict(float)
    for row in rows(charts(funnel.section(found))["What became of the text"]):
        shares[row["source"]] += row["share of the text"]
    assert shares == {source.name: pytest.approx(1) for source in found.sources}


def test_reasons_come_in_the_order_in_which_they_are_blamed(built: Store, curated: Store) -> None:
    mix = of(built)
    assert mix.blame(mix.sources[2]) == ["too_short", "repetition", "exact_duplicate"]  # not by name, as the manifest has them
    steps = [row["step"] for row in rows(charts(funnel.section(of(curated)))["web: from raw files to tokens"])]
    order = ["own/short", "own/contaminated", "url_duplicate", "exact_duplicate", "near_duplicate"]
    assert [step for step in steps if step in order] == order


def test_a_rule_that_is_called_as_a_split_is_a_rule(built: Store) -> None:
    mix = of(built)
    manifest = json.loads(json.dumps(dict(mix.manifest)))
    line = {"stage": "filter", "reason": "validation", "documents": 3, "bytes": 300, "tokens": 30}
    manifest["sources"]["web"]["funnel"].append(line)
    changed = replace(mix, manifest=manifest)
    before, after = (tables(validation.section(each))["Held-out documents"].rows[0][1] for each in (mix, changed))
    assert before == after
    step = next(row for row in rows(charts(funnel.section(changed))["web: from raw files to tokens"]) if row["step"] == "validation")
    assert (step["what"], step["documents"]) == ("taken away", 3)


def test_an_attributes_bars_are_all_documents_and_those_its_rules_drop(found: BuiltMix) -> None:
    asked: dict[tuple[str, str], set[str]] = defaultdict(set)
    for source in found.sources:
        for reason, sql in source.drop.items():
            for column in columns_of(sql):
                asked[column, source.name].add(reason)
    drawn: Counter[tuple[str, str]] = Counter()
    dropped: Counter[tuple[str, str]] = Counter()
    for title, chart in charts(attributes.section(found)).items():
        for row in rows(chart):
            drawn[title, row["source"]] += row["documents"]
            dropped[title, row["source"]] += row["dropped"]
    assert drawn.keys() == asked.keys()
    for (column, name), reasons in asked.items():
        documents = ledger(found, name)
        assert drawn[column, name] == len(documents)
        assert dropped[column, name] == sum(bool(reasons & set(row["reasons"])) for row in documents)


def test_no_bar_is_on_both_sides_of_a_line(built: Store) -> None:
    drawn = charts(attributes.section(of(built)))
    assert drawn.keys() == {"stars", "token_repeats", "unicode_words"} and next(iter(drawn)) == "stars"  # which drops most
    for column, dropped in {"stars": "< 2", "token_repeats": ">= 32", "unicode_words": "< 25"}.items():
        fates = {"none" if not row["dropped"] else "all" if row["dropped"] == row["documents"] else "some" for row in rows(drawn[column])}
        assert fates == {"none", "all"}, column
        [limit] = limits(f"{column} {dropped}")
        assert f"{limit} " in json.dumps(drawn[column].spec, ensure_ascii=False)


def test_bins_hold_every_value_once_and_part_where_a_limit_does() -> None:
    rng, choose = np.random.default_rng(0), random.Random(0)
    kinds: list[Callable[[int], Any]] = [
        lambda n: rng.integers(0, choose.choice([3, 50, 1_000, 10**7]), n),
        lambda n: rng.integers(-(10**6), 10**9, n),
        lambda n: np.round(rng.random(n), choose.choice([1, 2, 9])),
        lambda n: rng.normal(-20, 5, n),
        lambda n: np.exp(rng.normal(0, choose.choice([0.5, 3]), n)) * (rng.random(n) > 0.3),
        lambda n: np.full(n, choose.choice([0.0, 1e12])),
    ]
    logarithmic = 0
    for _ in range(200):
        values = choose.choice(kinds)(choose.choice([1, 5, 300]))
        numbers = [0, 0.01, 0.5, 1, 2.5, 50, 100_000, -20, float(choose.choice(list(values)))]
        drawn = [Limit("x", choose.choice(list(HOLDS)), float(choose.choice(numbers))) for _ in range(choose.randrange(4))]
        scale = bins([values], drawn)
        logarithmic += scale.logarithmic
        assert (np.diff(scale.edges) > 0).all() and len(scale.edges) < 120
        assert scale.counts(values).sum() == len(values)
        places = np.clip(np.searchsorted(scale.edges, values, side="right") - 1, 0, len(scale.edges) - 2)
        for limit in drawn:
            for place in set(places.tolist()):
                held = HOLDS[limit.symbol](values[places == place], limit.value)
                assert held.all() or not held.any(), (limit, scale.edges, values[places == place])
    assert 25 < logarithmic < 175


def test_values_that_are_not_finite_stand_in_the_outermost_bins() -> None:
    finite = np.arange(10.0)
    scale = bins([np.append(finite, [np.inf, -np.inf])], [])
    more = scale.counts(np.append(finite, [np.inf, np.inf, -np.inf])) - scale.counts(finite)
    assert (more[0], more[-1], more.sum()) == (1, 2, 3)


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("words < 50 OR words > 100000", ["words < 50", "words > 100,000"]),
        ("30 >= words AND NOT (mean_word_length <= 0.65)", ["words ≤ 30", "mean_word_length ≤ 0.65"]),
        ("token_repeats BETWEEN 2 AND 5", ["token_repeats ≥ 2", "token_repeats ≤ 5"]),
        ("code_visible_text <= 0.2 * characters", []),
        ("code_language = 'html' AND url < 'b'", []),
        ("words + characters > 3", []),
    ],
)
def test_limits_are_the_numbers_that_columns_are_compared_with(sql: str, expected: list[str]) -> None:
    assert [f"{limit.column} {limit}" for limit in limits(sql)] == expected


def test_values_that_are_no_numbers_are_counted_with_those_dropped() -> None:
    values = ["en"] * 5 + ["de"] * 3 + [f"x{number}" for number in range(20)] + [""]
    dropped = np.array([value != "en" for value in values])
    drawn = rows(values_chart("lid", "", [("web", pa.chunked_array([values]), dropped)]))
    assert [(row["value"], row["documents"], row["dropped"]) for row in drawn[:3]] == [("en", 5, 0), ("de", 3, 3), ("(none)", 1, 1)]
    assert sum(row["documents"] for row in drawn) == len(values) and sum(row["dropped"] for row in drawn) == dropped.sum()
    assert drawn[-1]["value"] == "11 others" and len(drawn) == 13


@pytest.mark.parametrize(
    ("value", "shown"),
    [("a\x1b[31m\x00b\nc", "a\ufffd[31m\ufffdb\ufffdc"), ("\u202eevil", "\ufffdevil"), ("<script>", "<script>"),
     ("x" * 5_000_000, "x" * 39 + "…"), (None, "(none)"), (True, "true")],
)  # fmt: skip
def test_what_documents_hold_is_shown_as_one_short_line(value: object, shown: str) -> None:
    assert named(value) == shown


def test_lengths_are_those_of_the_documents_that_are_kept(found: BuiltMix) -> None:
    section = lengths.section(found)
    numbers = {row[0]: row for row in tables(section)["Tokens per document, in numbers"].rows}
    bars, ratios = (charts(section)[title] for title in ("Tokens per document", "Bytes per token"))
    for source in found.sources:
        kept = [row for row in ledger(found, source.name) if row["kept"]]
        tokens = np.array([row["tokens"] for row in kept])
        quantiles = [int(np.quantile(tokens, share)) for share in (0.05, 0.25, 0.5, 0.75, 0.95)]
        assert numbers[source.name] == [source.name, len(kept), pytest.approx(tokens.mean()), *quantiles, tokens.max()]
        for row in (row for row in rows(bars) if row["source"] == source.name):
            assert row["documents"] == sum(row["from"] <= length < row["to"] for length in tokens.tolist())
        assert sum(row["documents"] for row in rows(ratios) if row["source"] == source.name) == len(kept)


def test_duplicates_are_grouped_with_the_document_that_stays(built: Store, curated: Store) -> None:
    """`built` has web[3] three times, once beyond upper case, and web[30] in the code; every group of `curated` is a pair."""
    sizes = {row["documents in a group"]: row["groups"] for row in rows(charts(duplicates.section(of(built)))["Groups by size"])}
    assert sizes == {"2": 1, "3": 1}
    mix = of(curated)
    section = duplicates.section(mix)
    dropped = Counter(row["dropped_by"] for source in ("web", "forum") for row in ledger(mix, source))
    for method, groups, documents, gone, largest in tables(section)["Groups of duplicates"].rows:
        assert gone == dropped[f"{method}_duplicate"] == groups and (documents, largest) == (gone + groups, 2)
    assert {row[0] for row in tables(section)["The largest groups"].rows} <= {row["id"] for row in ledger(mix, "web") if row["kept"]}


def test_the_validation_set_is_what_the_ledger_holds_out(built: Store) -> None:
    mix = of(built)
    for name, documents, share, expected, tokens in tables(validation.section(mix))["Held-out documents"].rows:
        held = [row for row in ledger(mix, str(name)) if row["split"] == "validation"]
        kept = [row for row in ledger(mix, str(name)) if row["kept"]]
        assert (documents, tokens) == (len(held), sum(row["tokens"] for row in held)) and share == len(held) / len(kept)
        [folder] = mix.manifest["sources"][name]["units"]["holdout"]
        assert expected == json.loads(mix.store.read(f"{folder}/holdout.json"))["below"] / 2**64


def test_languages_of_a_sample_are_those_of_kept_documents(built: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    mix = of(built)
    monkeypatch.setattr(languages, "SAMPLE", 30)
    for source in mix.sources:
        kept = {row["id"] for row in ledger(mix, source.name) if row["kept"]}
        sampled = [name for table in languages._sampled(mix, source) for name in table["id"].to_pylist()]
        assert sampled == [name for table in languages._sampled(mix, source) for name in table["id"].to_pylist()]
        assert set(sampled) <= kept and min(20, len(kept)) <= len(sampled) <= 40


def test_without_the_model_all_but_the_languages_is_there(built: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Path:
        raise PipelineError("pypi cannot be reached")

    monkeypatch.setattr(languages, "_model", missing)
    with open_catalog(built) as connection:
        part = mix.part(built, connection, "small")
    sections = {section.id: section for section in part.sections}
    assert list(sections) == [
        "mix-facts", "mix-shares", "mix-funnel", "mix-lengths", "mix-attributes", "mix-duplicates", "mix-languages", "mix-validation",
        "mix-licences", "mix-times",
    ]  # fmt: skip
    problems = [block for block in sections["mix-languages"].blocks if isinstance(block, Text)]
    assert [problem.warning for problem in problems] == [True] * 3 and "pypi cannot be reached" in problems[0].text
    assert all(section.blocks for section in part.sections)
    for chart in (block for section in part.sections for block in section.blocks if isinstance(block, Chart)):
        assert len(json.dumps(dict(chart.columns))) < 10_000, chart.title


def test_an_unknown_mix_is_refused(built: Store) -> None:
    with open_catalog(built) as connection, pytest.raises(ConfigError, match="nothing has not been built"):
        mix.part(built, connection, "nothing")


def test_of_a_large_source_tables_from_all_over_are_read(built: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    source = of(built).sources[0]
    assert source.spread(["a", "b", "c", "d"]) == ["a", "b", "c", "d"]
    monkeypatch.setattr(sources, "AT_MOST", source.total("documents") // 2 + 1)
    assert source.spread(["a", "b", "c", "d"]) == ["a", "c"] and [each.name for each in of(built).sampled()] == ["web"]
    assert "web" in lengths.section(of(built)).intro


def test_a_damaged_table_is_an_error_that_says_what_to_do(built: Store, tmp_path: Path) -> None:
    mix = of(built)
    manifest = json.loads(json.dumps(dict(mix.manifest)))
    manifest["sources"]["web"]["units"]["shards"] = ["shards/web/" + "0" * 32]
    with pytest.raises(PipelineError, match="make verify"):
        lengths.section(replace(mix, manifest=manifest))


@pytest.mark.slow
def test_of_a_release_what_it_holds_is_shown_and_the_rest_is_said_to_be_missing(built: Store) -> None:
    mix = of(built)
    manifest = json.loads(json.dumps(dict(mix.manifest)))
    for source in manifest["sources"].values():
        source["units"] = {"shards": source["units"]["shards"]}
        source["release"] = "someone/small@0123456789"
        cost = {"stage": "read", "output": "documents", "units": 2, "seconds": 4.0, "cpu_seconds": 3.0, "bytes": 10**6, "peak_rss_mb": 9.0}
        source["costs"] = [cost, {**cost, "stage": "edit", "output": "edited", "units": 0}]
        SourceBooks.model_validate(source)
    released = replace(mix, manifest=manifest)
    assert charts(lengths.section(released)) == charts(lengths.section(mix))
    steps = {chart: len(rows(drawn)) for chart, drawn in charts(funnel.section(released)).items()}
    assert steps == {chart: len(rows(drawn)) for chart, drawn in charts(funnel.section(mix)).items()}
    for section in (attributes.section(released), duplicates.section(released), languages.section(released)):
        [text] = section.blocks
        assert isinstance(text, Text) and "someone/small" in text.text
    [stage] = tables(times.section(released))["Stages"].rows
    assert stage == ["read", 3.0, None, None, None, 12.0, 9.0, 1 / 3, 9.0]


def test_the_last_line_of_the_journals_that_names_a_unit_counts(tmp_path: Path) -> None:
    def line(units: list[str], seconds: float, **more: float) -> str:
        cost = {"seconds": seconds, "cpu_seconds": 1.0, "peak_rss_mb": 5.0, "bytes": 7, **more}
        return json.dumps({"stage": "tokens", "source": "web", "units": units, **cost}) + "\n"

    store = Store(tmp_path)
    store.write("runs/1-9.jsonl", (line(["a"], 1) + line(["b"], 2) + "{torn").encode())
    store.write("runs/2-9.jsonl", ("[]\n" + line(["b", "c"], 3, ended=50.5) + '{"stage": "tokens"}\n' + line(["x"], 9)).encode())
    found = list(journal.tasks(store, [f"tokens/web/{key}" for key in "abc"]))
    assert [(task.seconds, task.ended) for task in found] == [(3.0, 50.5), (1.0, None)]


def test_a_stages_time_is_that_in_which_any_of_its_tasks_ran() -> None:
    rng = random.Random(5)
    for _ in range(50):
        spans = [(begin, begin + rng.randrange(1, 30)) for begin in (rng.randrange(100) for _ in range(rng.randrange(1, 12)))]
        done = [journal.Task("tokens", "web", float(end - begin), 0.5, 1.0, 1, 1_000.0 + end) for begin, end in spans]
        running = [sum(begin <= second < end for begin, end in spans) for second in range(130)]
        found = times.span(done)
        assert found is not None and found.seconds == pytest.approx(sum(count > 0 for count in running))
        assert found.most == max(running) and found.cores == pytest.approx(sum(running) / found.seconds)
    assert times.span([*done, replace(done[0], ended=None)]) is None


def test_the_time_of_every_stage_is_there(built: Store) -> None:
    section = times.section(of(built))
    rows_of_stages = tables(section)["Stages"].rows
    assert all(row[2] is not None and row[4] == 1 for row in rows_of_stages)  # built on one core, in this process
    assert [row[0] for row in rows_of_stages] == ["read", "tokenize", "tag", "filter", "hold out", "dedupe", "decide", "gather"]
    cells = rows(charts(section)["CPU seconds per stage and source"])
    assert {row["source"] for row in cells} == {"web", "code", "wiki", "across"}


@pytest.mark.slow
def test_every_chart_is_drawn(built: Store, curated: Store, browser: "Browser", tmp_path: Path) -> None:
    drawing = scripts(Progress())
    for name, store in {"small": built, "curated": curated}.items():
        with open_catalog(store) as connection:
            part = mix.part(store, connection, name)
        path = tmp_path / f"{name}.html"
        path.write_bytes(render(name, [part], drawing, "made"))
        for scheme in ("light", "dark"):
            with opened(browser, path, color_scheme=scheme) as page:
                page.locator("html[data-drawn=all]").wait_for(timeout=60_000)
                assert page.locator("figure.chart[data-drawn=done]").count() == page.locator("figure.chart").count() > 10
                screenshot(page, f"mix-{name}-{scheme}", whole=True)


@pytest.mark.slow
def test_english_is_told_from_german(tmp_path: Path) -> None:
    million.write_pool(tmp_path)
    store = Store(tmp_path / "store")
    build(Request(million.MIX, store.root, str(tmp_path / "pool"), workers=1, recipes=tmp_path / "recipes", scale=True), Progress())
    shares = {row[0]: (row[1], row[2]) for row in tables(languages.section(of(store)))["Languages, and how they are known"].rows}
    assert "by the attribute lid" in str(shares["web"][1]) and "a sample of" in str(shares["notes"][1])
    assert "German" in str(shares["notes"][0]) and "German" not in str(shares["web"][0])  # which has a rule against it


@pytest.mark.slow
def test_a_mix_in_a_bucket_has_the_same_part(built: Store, corpus: Path, recipes: Path, s3: "S3", machine: object) -> None:
    store = Store(f"{s3.bucket()}/here")
    build(Request("small", store.place, str(corpus), workers=1, recipes=recipes, shard_tokens=20_000, scale=True), Progress())
    parts = []
    for each in (built, store):
        with open_catalog(each) as connection:
            parts.append(mix.part(each, connection, "small"))
    mine, other = ({section.id: section for section in part.sections if section.id != "mix-times"} for part in parts)
    assert mine == other


@pytest.mark.slow
def test_a_million_documents_make_a_page_that_opens_at_once(browser: "Browser", tmp_path: Path) -> None:
    from tools.report.contents import of_mix

    store = million.make(tmp_path)
    began = time.process_time()
    with open_catalog(store) as connection:
        parts: list[Part] = of_mix(store, connection, million.MIX)
    spent = time.process_time() - began
    assert sum(source.total("documents") for source in BuiltMix.of(store, duckdb.connect(), million.MIX).sources) == 1_000_000
    path = tmp_path / "page.html"
    path.write_bytes(render(million.MIX, parts, scripts(Progress()), "made"))
    began = time.monotonic()
    with opened(browser, path) as page:
        page.locator("figure.chart[data-drawn=done]").first.wait_for()
        shown = time.monotonic() - began
        page.locator("html[data-drawn=all]").wait_for(timeout=60_000)
        drawn = time.monotonic() - began
        screenshot(page, "mix-million")
    print(f"{spent:.1f} CPU s to make, {path.stat().st_size / 1e6:.2f} MB, shown after {shown:.2f} s, all drawn after {drawn:.2f} s")
    assert path.stat().st_size < LARGEST and shown < 2


def test_the_catalog_counts_what_the_journals_say(built: Store) -> None:
    """Two ways to the same sums: the catalog's view of runs, and the tasks that the report is about."""
    mix = of(built)
    folders = {folder for source in mix.sources for units in source.entry["units"].values() for folder in units}
    by_stage: dict[str, float] = defaultdict(float)
    for task in journal.tasks(built, folders):
        by_stage[task.stage] += task.cpu_seconds
    outputs = {stage.name: stage.output for stage in catalog.STAGES}
    with open_catalog(built) as connection:
        told = connection.execute(
            "SELECT stage, sum(cpu_seconds) FROM runs WHERE stage <> 'dedupe' GROUP BY ALL HAVING sum(units) > 0"
        ).fetchall()
    assert {stage: pytest.approx(seconds) for stage, seconds in told} == {stage: by_stage[outputs[stage]] for stage, _ in told}
