"""Patterns over texts made to be slow: time grows with the length of a text, not with its square."""

import json
import re
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.documents import SCHEMA
from pipeline.readers import READERS, RawFile
from pipeline.readers.wikitext import plain_text
from pipeline.taggers import TAGGERS, Batch, run
from pipeline.taggers.math import _PAGE_INDEX, _without
from pipeline.text.html_text import visible_characters

LENGTH = 200_000
PIECES = (
    "a", " ", "\n", "a ", ".", "a.", "a@", "a@a.", "1", "1.", "555-", "(", "+1 (555) ", "http://", "www.", "/", "// ", "/* ", "#", '"', "'",
    '"""', "`${", "<", "<a ", "<!--", "<!", "<![CDATA[", "&#", "<script>", "</", '<a b="', "{", "}", "[", "$", "$$\\PageIndex{",
    "$\\PageIndex{", "\\newcommand{", "\\def\\", " main(", "import ", "\n ", "if a:\n ", "- ", "--", "_", "é", "漢", "😀", "e\u0301", "…",
    "• a\n", "read more", "3 likes ", "1.2.3.", "javascript ", "lorem ipsum ", "\0", "İ", "can't ", "{{", "[[", "{|", "[[a|", "<ref ",
    "<!-- --", "\\section{", "\\begin{", "%", "\\%", "](", ".. _",
)  # fmt: skip
TEXTS = [(piece * LENGTH)[:LENGTH] for piece in PIECES] + ["import" + " " * LENGTH, "(" * (LENGTH // 2) + ")" * (LENGTH // 2)]
QUADRATIC_S = 1.5  # a step for each pair of characters would take twenty seconds, however fast
LANGUAGES = ["Python", "JavaScript", "Java", "C", "HTML", "Haskell", "TeX", "R", "Julia", "Matlab", "Coq"]


def spent(tagger: str, text: str, language: str) -> float:
    """CPU seconds of one tagger on one text."""
    given = {
        "id": "x",
        "text": text,
        "source": "s",
        "file": "f",
        "row": 0,
        "metadata": json.dumps({"language": language, "url": text[:2000]}),
    }
    table = pa.table({field.name: pa.array([given.get(field.name)], field.type) for field in SCHEMA})
    began = time.process_time()
    run(TAGGERS[tagger], Batch(table, (np.zeros(2, np.uint16), np.array([0, 2]))))
    return time.process_time() - began


@pytest.mark.slow
@pytest.mark.parametrize("tagger", sorted(TAGGERS))
def test_a_taggers_time_grows_with_the_text(tagger: str) -> None:
    reads = TAGGERS[tagger].reads
    languages = LANGUAGES if {"text", "metadata"} <= set(reads) else LANGUAGES[:1]
    for language in languages:
        spent(tagger, "compile", language)
        slow = {text[:20]: seconds for text in TEXTS if (seconds := spent(tagger, text, language)) > QUADRATIC_S}
        if tagger == "code_html":  # as html.parser does it, up to a bound
            assert max(slow.values(), default=0) < 10
        else:
            assert not slow, language


@pytest.mark.slow
def test_marks_of_html_that_never_end_are_given_up() -> None:
    for piece in ("<a ", "</a", "<!--", '<a b=">" '):
        data = np.frombuffer((piece * 1_000_000).encode(), np.uint8)
        began = time.process_time()
        assert visible_characters(data, np.array([0, len(data)], np.int64)) == 0
        assert time.process_time() - began < 20


@pytest.mark.slow
@pytest.mark.parametrize("reader", ["text", "code", "faq", "latex", "html", "jsonl", "qa"])
def test_a_readers_time_grows_with_the_file(reader: str, tmp_path: Path) -> None:
    path = tmp_path / "file.tex"
    for text in TEXTS:
        path.write_text(text)
        began = time.process_time()
        list(READERS[reader](RawFile("file.tex", str(path), path.stat().st_size, "")))
        assert time.process_time() - began < QUADRATIC_S, text[:20]


@pytest.mark.slow
def test_wikitexts_time_grows_with_the_page_up_to_its_bound() -> None:
    for text in TEXTS:
        began = time.process_time()
        try:
            plain_text(text)
        except Exception as error:
            assert type(error).__name__ == "ParserError"
        assert time.process_time() - began < 90, text[:20]


@pytest.mark.parametrize("text", ["$\\PageIndex{" * 50_000, "$\\PageIndex{" * 50_000 + "}", "$$\\PageIndex{" * 50_000 + "}"])
def test_formulas_that_never_end_are_looked_for_once(text: str) -> None:
    began = time.process_time()
    for opening, closing in _PAGE_INDEX:
        assert _without(text, opening, closing) == text
    assert time.process_time() - began < 1


@settings(deadline=None)
@given(st.lists(st.sampled_from(["$", "$$", "\\PageIndex{", "}", "{", "a", "\n"]), max_size=14).map("".join))
def test_page_indexes_are_those_of_the_expression(text: str) -> None:
    for opening, closing in _PAGE_INDEX:
        assert _without(text, opening, closing) == re.sub(f"{re.escape(opening)}[^}}]*{re.escape(closing)}", "", text)


@pytest.mark.parametrize("tagger", ["url", "latex"])
def test_patterns_of_quick_taggers(tagger: str) -> None:
    spent(tagger, "compile", "Python")
    for text in TEXTS[::4] + [text for text in TEXTS if "PageIndex" in text]:
        assert spent(tagger, text, "Python") < QUADRATIC_S, text[:20]
