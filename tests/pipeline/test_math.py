"""Mathematical pages: OpenWebMath's figures against Python's re, its cut lines, its decisions."""

import re
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.errors import PipelineError
from pipeline.taggers import TAGGERS, run
from tests.pipeline.filters import columns, documents, dropped_by

PAGE_INDEX = [r"\$\$\\PageIndex\{[^}]*\}\$\$", r"\$\\PageIndex\{[^}]*\}\$"]
pieces = st.sampled_from(["$", "$$", "x", "\\PageIndex{", "1", "}", "\n", "é"])


@settings(deadline=None)  # the first call compiles
@given(st.lists(pieces, max_size=16).map("".join))
@example("$$\\PageIndex{1}$$ $x$ $$y$$ $\\PageIndex{$2$}$")
@example("$" * 1_000_001)
def test_formulas_are_those_of_the_regular_expression(text: str) -> None:
    cleaned = text
    for pattern in PAGE_INDEX:
        cleaned = re.sub(pattern, "", cleaned)
    assert columns("math_text", documents([text]))["math_formulas"] == [len(re.findall(r"\$\$[^$]*\$\$|\$[^$]*\$", cleaned))]


@given(st.text(st.sampled_from("aéÉàÀÿõüÜßx漢\u0301")))
def test_accents_are_counted_in_lower_case(text: str) -> None:
    found = sum(character in "üïöêäâîûôèéà" for character in text.lower())
    assert columns("math_text", documents([text]))["math_accented_share"] == [found / len(text) if text else 0.0]


@given(st.lists(st.sampled_from(["newcommand", "x", "é", "\n", "\r", ""]), max_size=14).map("".join))
@example("newcommand newcommand")
@example("a\nnewcommand newcommand\nnewcommandnewcommand")
def test_cutting_the_spans_leaves_the_other_lines_joined(text: str) -> None:
    values, tables = run(TAGGERS["math_macro_lines"], documents(["before", text]))
    edited = text.encode()
    for span in reversed(tables["spans"].to_pylist()):
        assert (span["row"], span["replacement"], span["by"]) == (1, "", "math_macro_lines")
        edited = edited[: span["start"]] + edited[span["end"] :]
    kept = [line for line in text.split("\n") if line.count("newcommand") <= 1]
    assert edited.decode() == "\n".join(kept)
    assert values["math_macro_lines"].to_pylist() == [0, text.count("\n") + 1 - len(kept)]


def test_scores_of_the_extraction_are_read_and_may_be_missing() -> None:
    metadata: list[dict[str, Any]] = [
        {"extraction_info": {"math_score": 0.5, "perplexity": 12}}, {"extraction_info": {"math_score": None}}, {},
        {"note": "extraction_info"}
    ]  # fmt: skip
    got = columns("math_extraction", documents(["x"] * 4, metadata))
    assert got == {"math_score": [0.5, -1.0, -1.0, -1.0], "math_perplexity": [12.0, -1.0, -1.0, -1.0]}


@pytest.mark.parametrize("value", ["0.5", True, [1]])
def test_a_score_that_is_no_number_stops_the_run(value: object) -> None:
    with pytest.raises(PipelineError, match="tagger math_extraction failed on code, a.jsonl.zst row 1: .*math_score"):
        columns("math_extraction", documents(["x"] * 2, [{}, {"extraction_info": {"math_score": value}}]))


LONG = "Let us prove that the sum converges. " * 4


@pytest.mark.parametrize(
    "url, info, text, reason",
    [
        ("https://math.example/a", {"math_score": 0.17, "perplexity": 15000}, LONG, None),
        ("https://math.example/a", {}, LONG, None),
        ("https://math.example/a", {"math_score": 0.9, "perplexity": 15000.1}, LONG, "perplexity"),
        ("https://math.example/a", {"math_score": 0.1699, "perplexity": 1}, LONG, "math_score"),
        ("https://x.org/search?q=a", {}, LONG, "address"),
        ("https://x.org//search?q=a", {}, LONG, None),
        ("https://mathoverflow.net/users/1", {}, LONG, "address"),
        ("https://dissnet.org/", {}, LONG, "address"),  # "issn", as upstream has it
        ("https://archive.org/details", {}, LONG, "bad_address"),
        ("https://archivexorg/details", {}, LONG, None),
        ("https://x.org/authors/y", {}, LONG, None),  # the pattern that lacks its comma
        ("https://math.example/a", {}, "x" * 99, "short"),
        ("https://bio.libretexts.org/a", {}, LONG, "libretexts"),
        ("https://bio.libretexts.org/a", {}, LONG + "$x$", None),
        ("https://bio.libretexts.org/a", {}, LONG + "$\\PageIndex{1}$", "libretexts"),
        ("https://phys.libretexts.org/a", {}, LONG, None),
        ("https://math.example/a", {}, "é" * 3 + "x" * 197, None),
        ("https://math.example/a", {}, "é" * 4 + "x" * 196, "accents"),
    ],
)
def test_open_web_math_decides_as_published(url: str, info: dict[str, float], text: str, reason: str | None) -> None:
    assert dropped_by("open-web-math", documents([text], [{"url": url, "extraction_info": info}])) == [reason]


def test_no_documents_have_no_figures() -> None:
    for name in ("math_text", "math_extraction", "math_macro_lines"):
        values, tables = run(TAGGERS[name], documents([]))
        assert values.num_rows == 0 and all(isinstance(table, pa.Table) and not table.num_rows for table in tables.values())
