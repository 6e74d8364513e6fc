"""FineWeb's rules: every value against plain Python and spaCy, every decision against what datatrove decided."""

import unicodedata
from functools import cache

import spacy
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.taggers import TAGGERS, tag
from tests.pipeline.pages import DEGENERATE, MIXED, PROSE, SPACES, WEB, batch_of, reasons

PIECES = [
    "a", "The cat.", "Dr. No", "one line", "one line", "a line of just thirty characters", "a line of 30 characters exactly", "!", "?", ".",
    "…", "।", "؟", "。", "។", "‼", "\U00010a56", '."', "é", "e\u0301", "😀", "\x00",
]  # fmt: skip
texts_of = st.lists(st.sampled_from([*PIECES, "\n", "\n", "\n\n", " ", *SPACES]), max_size=30).map("".join)


@cache
def english() -> spacy.language.Language:
    return spacy.blank("en")


def fineweb_of(text: str) -> dict[str, float]:
    lines = [line for line in text.split("\n") if line.strip()]
    words = [token for token in english()(text) if token.text.strip()]
    later = [line for at, line in enumerate(lines) if line in lines[:at]]
    return {
        "fineweb_lines": len(lines),
        "fineweb_punctuated_line_share": sum(is_terminal(line[-1]) for line in lines) / len(lines) if lines else 0,
        "fineweb_short_line_share": sum(len(line) <= 30 for line in lines) / len(lines) if lines else 0,
        "fineweb_duplicate_character_share": len("".join(later)) / len(text.replace("\n", "")) if lines else 0,
        "fineweb_newlines_per_word": text.count("\n") / len(words) if lines else 0,
    }


def is_terminal(character: str) -> bool:
    """As far as PIECES and WEB go: punctuation but for quotes, brackets, dashes, bullets and the ellipsis."""
    return unicodedata.category(character) == "Po" and character not in "\"'…#*•"


@given(st.lists(texts_of, max_size=5))
@settings(max_examples=60, deadline=None)  # the first call compiles
def test_lines_count_as_in_plain_python(texts: list[str]) -> None:
    assert tag([TAGGERS["fineweb"]], batch_of(texts)).to_pylist() == [fineweb_of(text) for text in texts]


def test_degenerate_texts_count_as_in_plain_python() -> None:
    texts = [*DEGENERATE, MIXED, WEB, "\n".join(PROSE)]
    assert tag([TAGGERS["fineweb"]], batch_of(texts)).to_pylist() == [fineweb_of(text) for text in texts]


def test_one_line_of_20_mb_is_no_trouble() -> None:
    [row] = tag([TAGGERS["fineweb"]], batch_of(["word " * 4_000_000])).to_pylist()
    assert list(row.values()) == [1, 0, 0, 0, 0]


LONG = "A line that is longer than thirty characters by far"
# datatrove 0.10.1 with its defaults.
DATATROVE = [
    ("", "empty"),
    (" \n\t\n", "empty"),
    ("\n".join([f"{LONG} {n}" for n in range(8)] + ["End."]), "line_punct_ratio"),
    ("\n".join([f"{LONG} {n}" for n in range(7)] + [f"{LONG}."]), None),
    ("a\nb\nc\nd.", "short_line_ratio"),
    (f"{LONG}.\nshort.\nshorter.", None),
    (f"{LONG}.\n{LONG}.\n{LONG}!", "char_dup_ratio"),
    (f"{LONG}。" + "\n" * 8 + f"{LONG}॥", "list_ratio"),
    (f"{LONG}。" + "\n" * 6 + f"{LONG}॥", None),
    ("नमस्ते दुनिया।\nمرحبا؟\nx\xa0\n x\xa0\n", "short_line_ratio"),
]


def test_texts_are_dropped_as_by_datatrove() -> None:
    found = reasons("fineweb", *(text for text, _ in DATATROVE))
    assert [each[0] if each else None for each in found] == [reason for _, reason in DATATROVE]
