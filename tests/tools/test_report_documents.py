"""The documents' part of a report: which samples a mix gives, and what the page does with them."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from pipeline import catalog
from pipeline.errors import PipelineError
from pipeline.stats import open_catalog
from pipeline.store import Store
from tests.browser import opened, screenshot
from tests.pipeline.curated import EVALUATION, FOOTER, MAIL, made, write_all
from tests.tools.test_report_evidence import marked, plain
from tools.report import documents
from tools.report.blocks import Documents, Part, Table
from tools.report.documents import sources
from tools.report.documents.evidence.text import Mark
from tools.report.documents.excerpt import excerpt, visible
from tools.report.documents.samples import DROPPED, JUST_DROPPED, JUST_PASSED

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

Json = Any
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>&amp;\x1b[31m\x00\x07\u202eevil\u2066\u200b\u2028"


def samples(part: Part) -> list[dict[str, Json]]:
    [block] = [block for section in part.sections for block in section.blocks if isinstance(block, Documents)]
    return [dict(record) for record in block.records]


def of(store: Store, mix: str) -> Part:
    with open_catalog(store) as connection:
        return documents.part(store, connection, mix)


@pytest.fixture(scope="module")
def part(curated: Store) -> Part:
    return of(curated, "curated")


@pytest.fixture(scope="module")
def records(part: Part) -> list[dict[str, Json]]:
    return samples(part)


def test_every_reason_that_dropped_something_has_samples(curated: Store, records: list[dict[str, Json]]) -> None:
    manifest = catalog.read_manifest(curated, "curated")
    lines = [(name, line) for name, source in manifest["sources"].items() for line in source["funnel"]]
    dropped = {(name, line["reason"]) for name, line in lines if line["stage"] != "kept" and line["documents"]}
    assert len(dropped) >= 5
    assert dropped <= {(record["source"], record["reason"]) for record in records if record["side"] in (DROPPED, JUST_DROPPED)}


def by_id(records: list[dict[str, Json]], identity: str, reason: str) -> dict[str, Json]:
    [record] = [record for record in records if record["id"] == identity and record["reason"] == reason]
    return record


def test_an_item_of_an_evaluation_is_marked_where_it_stands(records: list[dict[str, Json]]) -> None:
    record = by_id(records, "web-060", "own/contaminated")
    assert marked(record["text"]) == [EVALUATION.removesuffix("?")]
    assert "planets" in record["notes"][0] and EVALUATION in record["notes"][0]


def test_a_masked_address_is_shown_with_what_stands_there_now(records: list[dict[str, Json]]) -> None:
    record = by_id(records, "web-040", "email")
    assert [each for each in record["text"] if isinstance(each, list)] == [[0, MAIL, "|||EMAIL_ADDRESS|||"]]


def test_a_duplicate_stands_beside_its_twin(records: list[dict[str, Json]]) -> None:
    near = by_id(records, "web-031", "near_duplicate")
    assert near["twin"]["id"] == "web-030" and "inserted" not in "".join(marked(near["text"]))
    assert len("".join(marked(near["text"]))) > 0.8 * len(plain(near["text"]))
    address = by_id(records, "web-011", "url_duplicate")
    assert address["twin"]["id"] == "web-010" and "https://example.org/11" in address["notes"][0]
    assert not marked(address["text"]) and not marked(address["twin"]["text"])
    exact = by_id(records, "web-021", "exact_duplicate")
    assert exact["twin"]["id"] == "web-020" and plain(exact["twin"]["text"]) == plain(exact["text"]).upper()


def test_paragraphs_that_came_before_are_marked(records: list[dict[str, Json]]) -> None:
    assert FOOTER in "".join(marked(by_id(records, "web-050", "paragraphs")["text"]))


def test_an_edit_is_shown_in_the_text_as_it_was_read(records: list[dict[str, Json]]) -> None:
    edits = [each for each in by_id(records, "web-045", "ip_address")["text"] if isinstance(each, list)]
    assert edits == [[0, " http://192.168.0.1:80/x", ""], [1, "\n\n\n", ""]]


def test_those_that_narrowly_passed_are_the_nearest(curated: Store, records: list[dict[str, Json]]) -> None:
    with open_catalog(curated) as connection:
        query = """
            SELECT words FROM attributes_web JOIN documents USING (id) WHERE source = 'web' AND documents.kept ORDER BY words
        """
        nearest = [words for (words,) in connection.execute(query).fetchall()]
    chosen = [r for r in records if r["source"] == "web" and r["reason"] == "own/short" and r["side"] == JUST_PASSED]
    assert [int(record["values"][0][1][0]) for record in chosen] == nearest[: len(chosen)] and len(chosen) > 1
    assert chosen[0]["values"][0][2] == "< 10"


@pytest.mark.slow
def test_equal_stores_give_equal_parts(curated: Store, part: Part) -> None:
    assert of(curated, "curated") == part


def test_a_reason_that_never_dropped_is_in_the_table_of_rules(part: Part) -> None:
    [table] = [b for s in part.sections if s.id == "documents-rules" for b in s.blocks if isinstance(b, Table)]
    rows = {(row[0], row[1]): row for row in table.rows}
    assert rows["forum", "own/contaminated"][3] == 0 and rows["web", "own/short"][2] == "words < 10"


def test_a_release_without_documents_says_so(curated: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = catalog.read_manifest(curated, "curated")
    released = {name: {**entry, "release": "hf:a/b@c", "units": {"shards": []}} for name, entry in manifest["sources"].items()}
    monkeypatch.setattr(catalog, "read_manifest", lambda store, mix: {**manifest, "sources": released})
    found = of(curated, "curated")
    assert samples(found) == [] and "no texts of documents" in found.sections[0].blocks[0].text  # type: ignore[union-attr]


@pytest.mark.slow
def test_records_that_could_not_be_read_are_named(tmp_path: Path) -> None:
    home = write_all(tmp_path)
    recipe, lines = home / "recipes" / "sources" / "web.yaml", home / "data" / "web" / "0.jsonl"
    recipe.write_text(recipe.read_text() + "failure_budget: 3\n")
    lines.write_text('{"id": "<b>\x1b", "text": \n' + lines.read_text())
    [table] = [block for section in of(made(home), "curated").sections for block in section.blocks if section.id == "documents-failures"]
    assert isinstance(table, Table) and [row[:3] for row in table.rows] == [["web", "0.jsonl", 0]]


@pytest.mark.slow
def test_a_damaged_table_is_named(curated: Store, tmp_path: Path) -> None:
    store = Store(shutil.copytree(curated.root, tmp_path / "store"))
    damaged = min(store.root.glob("documents/web/*/part-*.parquet"))
    damaged.write_bytes(damaged.read_bytes()[:-100])
    with pytest.raises(PipelineError, match=rf"{damaged}: cannot be read .*make verify"):
        of(store, "curated")


@pytest.mark.slow
def test_room_is_shared_among_all_reasons(curated: Store, records: list[dict[str, Json]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "BUDGET", 40_000)
    small = of(curated, "curated")
    assert sum(documents._size(record) for record in samples(small)) <= 40_000
    assert {(r["source"], r["reason"]) for r in samples(small)} == {(r["source"], r["reason"]) for r in records}
    monkeypatch.setattr(documents, "BUDGET", 5_000)
    smaller = of(curated, "curated")
    assert sum(documents._size(record) for record in samples(smaller)) <= 5_000
    assert any("left out" in getattr(block, "text", "") for block in smaller.sections[0].blocks)


@pytest.mark.parametrize(("parts", "each", "looked"), [(1, 10**9, 1), (7, 100, 7), (1_000, 100, 125), (64, 40_000, 16), (3, 600_000, 1)])
def test_of_a_large_source_parts_from_all_over_it_are_looked_at(parts: int, each: int, looked: int) -> None:
    class Records:
        def record(self, folder: str) -> SimpleNamespace:
            return SimpleNamespace(counts={"documents": each}, unit=SimpleNamespace(inputs=[folder]))

    found = sources._looked(Records(), [str(number) for number in range(parts)])  # type: ignore[arg-type]
    assert len(found) == looked and (len(found) == 1 or len(found) * each <= sources.LOOKED)
    numbers = [part.number for part in found]
    assert len(set(np.diff(numbers))) <= 1 and (looked == 1 or numbers[-1] >= parts * 3 // 4)


# The page.


def hostile() -> Part:
    """Samples whose every string means harm, in every shape that documents.py gives them."""
    texts = [
        HOSTILE, "x" * 5_000_000, "שלום עולם " * 30, "def f():\n\treturn 1\n" * 20, "z̶̢̧̨̡" + "̴̵̶̷̸" * 400, "",
        *(f"needle {number} " + "word " * 30 for number in range(40)),
    ]  # fmt: skip
    records: list[dict[str, Json]] = []
    for number, text in enumerate(texts):
        size = min(len(text.encode()), 30) // 2 * 2
        found = excerpt(text.encode(), [Mark(0, size, HOSTILE)] if size else [], 500)
        records.append({
            "source": "web" if number % 2 else visible(HOSTILE), "reason": "own/short" if number < 6 else "email", "side": DROPPED,
            "id": visible(HOSTILE), "file": visible(HOSTILE), "row": number, "bytes": len(text), "tokens": 3, "rule": HOSTILE,
            "values": [["words", ["1 ", [0, "<b>"]], "< 3"]], "text": found.segments, "legend": found.legend, "notes": [HOSTILE],
            "also": ["a"], "first": "b", "code": number == 3,
        })  # fmt: skip
    records[1] |= {"twin": {"source": "web", "id": "<i>", "file": "f", "row": 1, "bytes": 3, "text": ["a ", [0, "b"], 9]}}
    records[7] |= {"side": "edited", "text": ["Write to ", [0, "me", "<masked>"]], "legend": [["email", 1]]}
    blocks = [Documents("Samples", records), Documents("None", [])]
    return Part("documents", "The documents", [documents.Section("documents-samples", "Samples", blocks)])


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from pipeline.progress import Progress
    from tools.report.page import render
    from tools.report.vega import scripts

    path = tmp_path_factory.mktemp("documents") / "page.html"
    path.write_bytes(render("samples", [hostile()], scripts(Progress()), "made"))
    return path


def results(page: "Page") -> "Locator":
    return page.locator(".results").first.locator("> li")


@pytest.mark.slow
def test_hostile_documents_do_no_harm_and_are_read(browser: "Browser", file: Path) -> None:
    with opened(browser, file) as page:
        assert page.locator("main img, main script, main i, main b").count() == 0
        assert page.evaluate("document.querySelectorAll('.results')[0].textContent").count("alert(1)") > 3
        first = results(page).nth(0)
        assert "⟨ESC⟩[31m⟨NUL⟩⟨BEL⟩⟨U+202E⟩evil⟨U+2066⟩⟨U+200B⟩⟨U+2028⟩" in first.locator(".text").inner_text()
        assert results(page).nth(2).locator(".text").evaluate("node => getComputedStyle(node).direction") == "rtl"
        assert results(page).nth(3).locator(".text").get_attribute("dir") == "ltr"
        assert all((item.bounding_box() or {"height": 0})["height"] < 1_200 for item in results(page).all())
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert "4,999," in results(page).nth(1).inner_text()
        assert page.get_by_text("There are no samples.").count() == 1
        screenshot(page, "documents-hostile")


@pytest.mark.slow
def test_search_and_filters_show_what_they_say(browser: "Browser", file: Path) -> None:
    with opened(browser, file) as page:
        status = page.get_by_role("status")
        assert status.inner_text() == "46 of 46 samples" and results(page).count() == 20
        page.get_by_role("button", name="Show 20 more of 26").click()
        assert results(page).count() == 40
        assert page.evaluate("document.activeElement === document.querySelector('.results').children[20]")
        page.get_by_role("button", name="Show 6 more of 6").click()
        assert results(page).count() == 46 and not page.locator("button.more").is_visible()
        page.get_by_label("Search", exact=True).fill("NEEDLE 17")
        assert status.inner_text() == "1 of 46 samples" and "needle 17" in results(page).inner_text()
        assert page.evaluate("CSS.highlights.get('sought').size") >= 2
        page.get_by_role("button", name="Clear").click()
        assert status.inner_text() == "46 of 46 samples"
        page.get_by_label("Reason", exact=True).select_option("email")
        assert status.inner_text() == "40 of 46 samples"
        page.get_by_label("Side", exact=True).select_option("edited")
        assert status.inner_text() == "1 of 46 samples"
        assert results(page).locator("del").inner_text() == "me" and results(page).locator("ins").inner_text() == "<masked>"
        assert page.get_by_label("Source", exact=True).locator("option").all_inner_texts() == ["all", "web (1)"]
        page.get_by_label("Side", exact=True).focus()  # what follows is reached by keys, and so is a text, which may scroll
        for name in ("Clear", "text"):
            page.keyboard.press("Tab")
            assert page.evaluate("document.activeElement.className || document.activeElement.textContent") == name
        page.get_by_label("Search", exact=True).fill("nowhere at all")
        assert status.inner_text() == "0 of 46 samples" and results(page).count() == 0
