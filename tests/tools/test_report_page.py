"""The report's page in a real browser: its controls, its policy, and what data that means harm can do to it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline.progress import Progress
from tests.browser import opened, screenshot
from tools.report.blocks import Chart, Pair, Part, Section, Table, Text
from tools.report.page import cell, render
from tools.report.vega import Script, scripts

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\u202e\x00\x1b[31m&amp;\u2028"
SPEC = {
    "height": 120, "mark": {"type": "bar", "tooltip": True},
    "encoding": {"x": {"field": "bin", "type": "ordinal"}, "y": {"field": "documents", "type": "quantitative"}},
}  # fmt: skip


def bars(title: str = "Lengths") -> Chart:
    return Chart(title, {"bin": [HOSTILE, "b", "c"], "documents": [1, 20, 1_234_567]}, SPEC, "How many documents are so long.")


@pytest.fixture(scope="module")
def drawing() -> list[Script]:
    return scripts(Progress())


@pytest.fixture(scope="module")
def file(drawing: list[Script], tmp_path_factory: pytest.TempPathFactory) -> Path:
    table = Table("Shares", ["source", "share", "documents"], [[HOSTILE, 0.25, 1_234_567], ["web", None, 3]], shares=frozenset({"share"}))
    parts = [
        Part("one", "One", [Section("one-first", "First", [bars(), table, Text(HOSTILE, warning=True)], intro=HOSTILE)]),
        Part("two", HOSTILE, [Section("two-folded", "Folded", [bars("Again"), Pair(bars("Left"), None)], folded=True)]),
    ]
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_bytes(render(HOSTILE, parts, drawing, "made"))
    return path


@pytest.fixture(scope="module")
def page(browser: "Browser", file: Path) -> "Iterator[Page]":
    with opened(browser, file) as page:
        page.locator("html[data-drawn=all]").wait_for()
        yield page


def test_the_keyboard_reaches_the_report_first(page: "Page") -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the report"


def test_every_chart_is_drawn_and_told_to_screen_readers(page: "Page") -> None:
    assert page.locator("figure.chart[data-drawn=done]").count() == 3
    labels = page.locator(".drawing svg [aria-label], .drawing svg[aria-label]").evaluate_all(
        "all => all.map(e => e.getAttribute('aria-label'))"
    )
    assert any("1234567" in label for label in labels)
    assert page.get_by_label("Lengths. How many documents are so long.").count() == 1


def test_text_from_data_stays_text(page: "Page") -> None:
    assert page.locator("main img, main script").count() == 0
    assert page.locator("h1").inner_text().startswith("</script><script>alert(1)</script><img src=x onerror=alert(2)>")
    assert page.locator("main .warning").last.inner_text().startswith("</script>")


def test_a_charts_data_is_there_as_a_table(page: "Page") -> None:
    page.locator("#chart-0 summary").click()
    rows = page.locator("#chart-0 .data tbody tr")
    rows.last.wait_for()
    assert rows.count() == 3 and rows.nth(2).inner_text().split() == ["c", "1,234,570"]


def test_the_theme_changes_with_its_button_and_by_keyboard(page: "Page") -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    button = page.get_by_role("button", name="Theme")
    seen = [page.evaluate(paper)]
    for name in ("light", "dark", "as the system"):
        button.focus()
        page.keyboard.press("Enter")
        assert button.inner_text() == f"Theme: {name}"
        seen.append(page.evaluate(paper))
    assert seen[0] == seen[1] == seen[3] != seen[2]


def test_printing_shows_what_is_folded_and_no_controls(page: "Page") -> None:
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.locator("#chart-1").is_visible() and not page.locator("nav").is_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    page.emulate_media(media="screen", color_scheme="light")


def test_a_link_to_a_folded_section_opens_it(page: "Page") -> None:
    assert not page.locator("#chart-1").is_visible()
    page.get_by_role("link", name="Folded").click()
    page.locator("#chart-1").wait_for(state="visible")
    assert page.locator(".absent").inner_text() == "not there"


def test_a_script_that_was_not_there_when_the_page_was_made_does_not_run(browser: "Browser", file: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed.html"
    changed.write_bytes(file.read_bytes().replace(b"</main>", b"<script>document.title = 'taken'</script></main>"))
    with pytest.raises(AssertionError, match="Content Security Policy"), opened(browser, changed) as page:
        assert page.title() != "taken"


def test_the_page_is_the_same_bytes_again_and_its_data_valid_json(file: Path, drawing: list[Script]) -> None:
    parts = [Part("one", "One", [Section("one-first", "First", [bars()])])]
    assert render("t", parts, drawing, "made") == render("t", parts, drawing, "made")
    [data] = re.findall(rb'<script type="application/json" id="data">(.*?)</script>', file.read_bytes(), re.DOTALL)
    assert json.loads(data)["charts"]["chart-0"]["columns"]["bin"][0] == HOSTILE


@pytest.mark.parametrize(
    ("value", "share", "shown"),
    [(None, False, "–"), (True, False, "yes"), (1234567, False, "1,234,567"), (0.25, True, "25.000%"), (0.00012345, False, "0.000123"),
     (1234.5, False, "1,234.50"), ("<b>", False, "<b>")],
)  # fmt: skip
def test_a_value_as_people_read_it(value: object, share: bool, shown: str) -> None:
    assert cell(value, share) == shown  # type: ignore[arg-type]


def test_how_it_looks(browser: "Browser", file: Path) -> None:
    for scheme in ("light", "dark"):
        with opened(browser, file, color_scheme=scheme) as page:
            page.locator("html[data-drawn=all]").wait_for()
            screenshot(page, f"page-{scheme}", whole=True)
            page.set_viewport_size({"width": 400, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth") <= 400
