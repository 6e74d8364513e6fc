"""Scientific papers: figures against plain Python, and the decisions of peS2o and arXiv."""

import re
from collections import Counter
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.pipeline.filters import columns, documents, dropped_by

SECTION = re.compile(r"\\(?:chapter|part|section|subsection|subsubsection)\*?(?:\[.*?\])?\{.*?\}", re.DOTALL)

pieces = st.sampled_from(["a", "b ", "B", " c ", "Z", "é", "_", "1", "ab", "\n", "\n\n", "\u2003", "\x85", " ", "漢字", "."])


@settings(deadline=None)  # the first call compiles
@given(st.lists(st.lists(pieces, max_size=25).map("".join), max_size=4))
@example(["", "\n\n", "x\n\n", "\n\nx", "A b stra c t", "b a b a", " " * 999 + "a", " ".join(f"w{n % 5_000}" for n in range(12_000))])
def test_figures_of_papers_are_those_of_python(texts: list[str]) -> None:
    got = columns("papers", documents(texts))
    for index, text in enumerate(texts):
        top = [word for word, _ in Counter(text.split()).most_common(2)] + ["", ""]
        assert got["paper_paragraphs"][index] == sum(bool(piece.strip()) for piece in text.split("\n\n"))
        assert got["paper_body_words"][index] == len("".join(text.split("\n\n", 1)[1:]).split())
        assert [got["paper_top_word"][index], got["paper_second_word"][index]] == top[:2]
        assert got["paper_spaced_letters"][index] == len(re.findall(r"\b([A-Za-z]\s)([a-z]\s)*[A-Za-z]\b", text))


@given(st.lists(st.sampled_from(["\\section", "\\part*", "\\chapter", "{", "}", "[", "]", "x", "\n", "é"]), max_size=14).map("".join))
@example(r"\subsection*[short]{long \section{x}}")
def test_sections_are_those_that_a_regular_expression_finds(text: str) -> None:
    assert columns("latex", documents([text]))["paper_sections"] == [len(SECTION.findall(text))]


@pytest.mark.parametrize(
    "metadata, created, collection, year",
    [
        ({"source": "s2ag/train", "year": 2003}, "2001-05-06", "s2ag", 2003),
        ({"source": "s2orc/train"}, "2001-05-06", "s2orc", 2001),
        ({"source": "pes2o/s2orc", "year": "1999"}, "", "s2orc", 1999),
        ({"source": "plos"}, "0001-01-01T00:00:00.000Z", "", 0),
        ({"year": -1}, "", "", 0),
        ({"source": None, "year": None}, "May 2001", "", 0),
    ],
)
def test_origin_of_a_paper(metadata: dict[str, Any], created: str, collection: str, year: int) -> None:
    got = columns("paper_origin", documents(["x"], [metadata], created=created))
    assert got == {"paper_collection": [collection], "paper_year": [year]}


BODY = " ".join(f"the{' ' if n % 20 else ' cell '}w{n}" for n in range(50))
PAPER = "\n\n".join(["Title", "Abstract."] + [" ".join(f"{n}w{part}" for n in range(100)) + " of" * 8 for part in range(5)])
ABSTRACT = "Title of it\n\n" + BODY


@pytest.mark.parametrize(
    "source, year, text, reason",
    [
        ("s2orc", 1970, PAPER, None),
        ("", 1970, PAPER, None),
        ("s2orc", 1969, PAPER, "before_1970"),
        ("s2ag", 0, ABSTRACT, "before_1970"),
        ("s2orc", 2000, PAPER[:2_000], "short_paper"),
        ("s2orc", 2000, PAPER.replace("\n\n", "\n"), "few_paragraphs"),
        ("s2orc", 2000, PAPER.replace(" of", " of,"), "odd_top_word"),
        ("s2orc", 2000, PAPER.replace(" of", " of of"), "top_word"),
        ("s2ag", 2000, ABSTRACT, None),
        ("s2ag", 2000, "Title\n\n" + "word " * 49, "abstract_length"),
        ("s2ag", 2000, "Title\n\n" + "word " * 1001, "abstract_length"),
        ("s2ag", 2000, "Title\n\n" + "a word " * 50, None),
        ("s2ag", 2000, "Title\n\n" + "a 1. " * 50, "odd_top_word_of_abstract"),
        ("s2ag", 2000, "Title\n\n" + "x. " * 50, "odd_top_word_of_abstract"),
        ("s2ag", 2000, ABSTRACT + " A b stra c t." * 2, None),
        ("s2ag", 2000, ABSTRACT + " A b stra c t." * 3, "scanned"),
    ],
)
def test_pes2o_decides_by_collection(source: str, year: int, text: str, reason: str | None) -> None:
    assert dropped_by("pes2o", documents([text], [{"source": source, "year": year}])) == [reason]


def test_arxiv_drops_what_has_no_section() -> None:
    assert dropped_by("arxiv", documents([r"\section{One} text", "text", ""])) == [None, "no_section", "no_section"]
