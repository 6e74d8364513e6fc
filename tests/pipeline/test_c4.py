"""C4's rules: every line against plain Python and spaCy itself, and against what datatrove and Dolma made of some texts."""

import re
from functools import cache
from pathlib import Path

import pyarrow as pa
import pytest
import spacy
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import edits
from pipeline.errors import PipelineError
from pipeline.taggers import SPANS, TAGGERS, run
from pipeline.taggers.listed_words import ListedWords, listed_words
from tests.pipeline.pages import DEGENERATE, MIXED, PROSE, SPACES, WEB, batch_of, reasons

PIECES = [
    "a", "the cat", "Dr.", "U.S.", "e.g.", "3.14", "end.Next", ".", "..", "...", "?", "!", '"', "'", "”", ")", "(", "。", "؟", "-",
    "[1]", "[]", "[٣]", "[edit]", "[citation needed]", "[1", "]", "{", "lorem ipsum", "Lorem  ipsum", "JavaScript", "java[1]script",
    "terms of use", "Privacy Policy", "coo\u212aie policy", "uses cookies", "use of cookies", "use cookies", "İ", "\u212a",
    "w" * 1000, "é" * 1001, "e\u0301", "漢字", "😀", "\u200b", "\x00",
]  # fmt: skip
lines_of = st.lists(st.sampled_from(PIECES), max_size=6).map(" ".join)
endings_of = st.sampled_from([".", "!", ".[1]", '"', "..", " ", ""])
breaks_of = st.sampled_from(["\n", "\r\n", "\n\n", *SPACES])
texts_of = st.lists(st.tuples(lines_of, endings_of, breaks_of).map("".join), max_size=8).map("".join)
texts_of |= st.lists(st.sampled_from([*PIECES, *SPACES]), max_size=25).map("".join)

POLICIES = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")


@cache
def sentencizer() -> spacy.language.Language:
    english = spacy.blank("en")
    english.add_pipe("sentencizer")
    return english


def c4_of(text: str) -> tuple[list[int], str]:
    """lines, kept lines, sentences, lines with lorem ipsum, lines with a bracket; and what is left of the text."""
    kept, lorem, curly = [], 0, 0
    for stripped in map(str.strip, text.splitlines()):
        line = re.sub(r"\[(\d*|edit|citation needed)\]", "", stripped)
        if any(len(word) > 1000 for word in stripped.split()) or len(stripped.split()) < 3:
            continue
        if line[-1:] not in tuple(".?!\"'") or line.endswith("..."):
            continue
        lower = line.lower()
        lorem += "lorem ipsum" in lower
        curly += "{" in lower and "javascript" not in lower
        if "javascript" not in lower and not any(policy in lower for policy in POLICIES):
            kept.append(line)
    sentences = sum(len(list(sentencizer()(line).sents)) for line in kept)
    return [len(text.splitlines()), len(kept), sentences, lorem, curly], "\n".join(kept).strip()


def tagged(name: str, texts: list[str]) -> list[tuple[list, str]]:
    """Of each text the columns' values, and the text edited."""
    values, tables = run(TAGGERS[name], batch_of(texts))
    edited = edits.apply(pa.array(texts, pa.large_string()), tables["spans"]).to_pylist()
    return [(list(row.values()), text) for row, text in zip(values.to_pylist(), edited, strict=True)]


@given(st.lists(texts_of, max_size=5))
@settings(max_examples=60, deadline=None)  # the first call compiles
def test_lines_stay_and_go_as_in_plain_python(texts: list[str]) -> None:
    assert tagged("c4", texts) == [c4_of(text) for text in texts]


def test_degenerate_texts_count_as_in_plain_python() -> None:
    texts = [*DEGENERATE, MIXED, WEB, "\n".join(PROSE), " ".join(PROSE), *(f"One two{space}three.{space}Four." for space in SPACES)]
    assert tagged("c4", texts) == [c4_of(text) for text in texts]


# Text, datatrove 0.10.1's reason, its sentences (by min_num_sentences) and its text (with the two switches off).
DATATROVE = [
    (
        'One two three. Four five six! Seven eight nine? "Ten eleven twelve" And so on.\r\nNo end here\nIt has [1] a note.'
        "[citation needed]\n[edit] Opening note here.\nIt ends [2].\nWait for it...\nToo short.\nWe use cookies on this site.\n"
        "Turn on JavaScript to go on.\nDr. Who's U.S. e.g. 3.14 end.Next one. Last.",
        None, 10,
        'One two three. Four five six! Seven eight nine? "Ten eleven twelve" And so on.\nIt has  a note.\n Opening note here.\n'
        "It ends .\nDr. Who's U.S. e.g. 3.14 end.Next one. Last.",
    ),
    (
        "[1] [2]  First line is this one.\u2028Second. Line. Is. Here. Now.\x85"
        f"{'x' * 1001} is a long word.\x1c  Indented line stays stripped!  \n",
        None, 7, "First line is this one.\nSecond. Line. Is. Here. Now.\nIndented line stays stripped!",
    ),
    ("Lorem ipsum dolor sit amet. A. B. C.\nFoo { bar baz.", "lorem_ipsum", 3, "Lorem ipsum dolor sit amet. A. B. C.\nFoo { bar baz."),
    ("Uses { javascript in here. Then a. b. c. d e f.", "too_few_sentences", 0, ""),
    ("A b c { d. E f g.\nCoo\u212aie policy applies to all.", "curly_bracket", 1, "A b c { d. E f g."),
    ("", "too_few_sentences", 0, ""),
    ("a. b. c. d. e.", "too_few_sentences", 1, "a. b. c. d. e."),
    ("He said so.  . ! And then (really). “Quoted.” 1. 2. 3. end?", None, 8, "He said so.  . ! And then (really). “Quoted.” 1. 2. 3. end?"),
]  # fmt: skip


def test_texts_are_dropped_and_edited_as_by_datatrove() -> None:
    texts = [text for text, *_ in DATATROVE]
    assert [found[:1] for found in reasons("c4", *texts)] == [[reason] if reason else [] for _, reason, _, _ in DATATROVE]
    assert [(values[2], text) for values, text in tagged("c4", texts)] == [(count, text) for _, _, count, text in DATATROVE]


def test_rules_of_removed_lines_are_named() -> None:
    text = "[1] A note here.\nno end\nToo few.\nWe use cookies here.\nSome JavaScript in here.\n" + "w" * 1001 + "\nThe end is here. \n"
    spans = run(TAGGERS["c4"], batch_of([text]))[1]["spans"]
    assert spans.schema == SPANS
    assert spans["by"].to_pylist() == [
        "citation", "whitespace", "no_terminal_punctuation", "few_words", "policy", "javascript", "long_word", "whitespace",
    ]  # fmt: skip


def dolma_of(text: str) -> tuple[list, str]:
    lower = text.lower()
    lines = text.split("\n")
    unpunctuated = [line.strip()[-1:] not in tuple('.?!"') for line in lines]
    short = [len(line.split()) < 3 for line in lines]
    flags = ["{" in text, "lorem ipsum" in lower, "javascript" in lower]
    broken = [line + "\n" for line in lines[:-1]] + lines[-1:]
    left = "".join(line for line, *gone in zip(broken, unpunctuated, short, strict=True) if not any(gone))
    return [*flags, len(lines), sum(unpunctuated), sum(short)], left


@given(st.lists(texts_of, max_size=5))
@settings(deadline=None)
def test_dolmas_flags_and_lines_are_those_of_plain_python(texts: list[str]) -> None:
    assert tagged("c4_dolma", texts) == [dolma_of(text) for text in texts]


def test_dolmas_spans_of_a_text_are_these() -> None:
    text = (
        'A line with an end.\nno end\nShort.\n\n{ Lorem IPSUM JavaScripted\n  padded, and it ends!  \n"Quoted words here"\nWait for it...'
    )
    values, tables = run(TAGGERS["c4_dolma"], batch_of([text, *DEGENERATE]))
    assert list(values.slice(0, 1).to_pylist()[0].values()) == [True, True, True, 8, 3, 3]
    spans = [span for span in tables["spans"].to_pylist() if span["row"] == 0]
    assert [(span["start"], span["end"]) for span in spans] == [(20, 27), (27, 34), (34, 35), (35, 62)]
    assert tagged("c4_dolma", DEGENERATE) == [dolma_of(each) for each in DEGENERATE]


@pytest.mark.parametrize("name", ["c4", "c4_dolma"])
def test_one_line_of_20_mb_is_no_trouble(name: str) -> None:
    text = "word " * 4_000_000 + "end."
    assert tagged(name, [text])[0][1] == text


WORDS = ["bad", "кот", "kilo", "so so", "up-to i", "a.b", "[x]"]


def has_listed_word(text: str) -> bool:
    text = text.lower()
    return any(word in text.split() for word in WORDS if " " not in word) or any(phrase in text for phrase in WORDS if " " in phrase)


@pytest.fixture(scope="module")
def word_list(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("list") / "words.txt"
    path.write_text("\n".join(WORDS) + "\n\n", encoding="utf-8")
    return path


@given(st.lists(st.lists(st.sampled_from([*WORDS, "BAD", "Кот", "\u212ailo", "xso sox", "UP-TO İ", ".", *SPACES]), max_size=6), max_size=6))
@settings(deadline=None)
def test_listed_words_are_found_as_in_plain_python(word_list: Path, pieces: list[list[str]]) -> None:
    texts = ["".join(each) for each in pieces]
    assert listed(word_list, texts) == [has_listed_word(text) for text in texts]


def listed(path: Path, texts: list[str]) -> list[bool]:
    values = listed_words(batch_of(texts), "bad", ListedWords(words="unused"), {"words": [path]})
    return values["bad"].to_pylist()


def test_a_list_without_words_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n \n")
    with pytest.raises(PipelineError, match="no words; put one on each line"):
        listed(tmp_path / "empty.txt", ["a"])
