"""Gopher's rules as datatrove counts: every value against plain Python, and against what datatrove's filters compared."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.taggers import TAGGERS, tag
from pipeline.text.symbol_counts import NO_SYMBOL, character_table
from tests.pipeline.pages import DEGENERATE, MIXED, PROSE, SPACES, WEB, batch_of, reasons
from tests.pipeline.test_words import spacy_words

BOTH = [TAGGERS["gopher_datatrove_quality"], TAGGERS["gopher_datatrove_repetition"]]
PIECES = [
    "a",
    "the",
    "The",
    "have",
    "#",
    "…",
    "...",
    ".",
    "....",
    "-",
    "•",
    "é",
    "漢字",
    "😀",
    "1",
    "3.14",
    "can't",
    "_",
    "\x00",
    "ab",
    "b",
]
texts_of = st.lists(
    st.lists(st.sampled_from([*PIECES, " ", " ", "\n", "\n\n", "\r\n", *SPACES]), max_size=40).map("".join)
    | st.lists(st.sampled_from(["a b c d", "ab cd", "to be", "x", "# …", "\n", "\n\n"]), max_size=25).map(" ".join),
    max_size=5,
)


def rows(texts: Sequence[str]) -> list[dict[str, float]]:
    return tag(BOTH, batch_of(texts)).to_pylist()


def later(pieces: list[str]) -> list[str]:
    return [piece for at, piece in enumerate(pieces) if piece in pieces[:at]]


def read_again(words: list[str], n: int) -> int:
    met, characters, at = set(), 0, 0
    while at + n <= len(words):
        gram = "".join(words[at : at + n])
        characters += len(gram) if gram in met else 0
        at += n if gram in met else 1
        met.add(gram)
    return characters


def brute_force(text: str) -> dict[str, float]:
    words, lines = spacy_words(text), text.splitlines()
    plain = [word for word in words if any(character_table()[ord(c)] & NO_SYMBOL for c in word)]
    row: dict[str, float] = {
        "words": len(plain),
        "mean_word_length": sum(map(len, plain)) / max(len(plain), 1),
        "hashes_per_word": text.count("#") / max(len(words), 1),
        "ellipses_per_word": (text.count("...") + text.count("…")) / max(len(words), 1),
        "bullet_line_share": sum(line.lstrip().startswith(("•", "-")) for line in lines) / max(len(lines), 1),
        "ellipsis_line_share": sum(line.rstrip().endswith(("...", "…")) for line in lines) / max(len(lines), 1),
        "alphabetic_word_share": sum(any(map(str.isalpha, word)) for word in words) / max(len(words), 1),
        "stop_words": len({"the", "be", "to", "of", "and", "that", "have", "with"} & set(words)),
    }
    for name, pieces in (("line", re.split("\n+", text)), ("paragraph", re.split("\n{2,}", text.strip()))):
        row[f"duplicate_{name}_share"] = len(later(pieces)) / len(pieces)
        row[f"duplicate_{name}_character_share"] = len("".join(later(pieces))) / max(len(text), 1)
    for n in range(2, 5):
        times = Counter(" ".join(words[i : i + n]) for i in range(len(words) - n + 1))
        row[f"top_{n}gram_share"] = sum(len(gram) * count for gram, count in times.most_common(1)) / max(len(text), 1)
    for n in range(5, 11):
        row[f"repeated_{n}gram_share"] = read_again(words, n) / max(len(text), 1)
    return {f"gopher_datatrove_{name}": value for name, value in row.items()}


@settings(deadline=None, max_examples=60)  # the first call compiles
@given(texts_of)
@example([WEB, MIXED, *DEGENERATE])
def test_every_value_is_that_of_plain_python(texts: list[str]) -> None:
    assert rows(texts) == [brute_force(text) for text in texts]


# What datatrove's filters compared with their limits (datatrove 0.10.1, spaCy 3.8.18).
NAMES = """words mean_word_length hashes_per_word ellipses_per_word bullet_line_share ellipsis_line_share alphabetic_word_share
    stop_words duplicate_line_share duplicate_line_character_share duplicate_paragraph_share duplicate_paragraph_character_share
    top_2gram_share top_3gram_share top_4gram_share repeated_5gram_share repeated_6gram_share repeated_10gram_share""".split()
GOLDEN = {
    WEB: (33, 95 / 33, 1 / 43, 4 / 43, 1 / 6, 1 / 4, 31 / 43, 7, 1 / 9, 5 / 154, 0, 0, 14 / 154, 22 / 154, 28 / 154, 14 / 154, 17 / 154, 0),
    MIXED: (29, 73 / 29, 1 / 36, 0, 0, 0, 23 / 36, 0, 0, 0, 0, 0, 12 / 118, 15 / 118, 14 / 118, 0, 0, 0),
    "\n\n".join(PROSE * 2): (
        304, 1350 / 304, 0, 0, 0, 0, 304 / 342, 7, 1 / 2, 836 / 1710, 1 / 2, 836 / 1710,
        30 / 1710, 26 / 1710, 32 / 1710, 693 / 1710, 688 / 1710, 693 / 1710,
    ),
    "# the be…\n" * 12: (
        24, 60 / 24, 1 / 4, 1 / 4, 0, 1, 1 / 2, 2, 11 / 13, 99 / 120, 0, 0,
        60 / 120, 96 / 120, 120 / 120, 70 / 120, 74 / 120, 70 / 120,
    ),
}  # fmt: skip


def test_values_are_those_that_datatrove_compared() -> None:
    for row, expected in zip(rows(list(GOLDEN)), GOLDEN.values(), strict=True):
        assert [row[f"gopher_datatrove_{name}"] for name in NAMES] == list(expected)


def test_symbols_are_what_datatrove_lists() -> None:
    symbols = np.flatnonzero(character_table() & NO_SYMBOL == 0)
    kinds = Counter(unicodedata.category(chr(code)) for code in symbols)
    assert len(symbols) == 281 and kinds["Cc"] == 63 and "\t" not in map(chr, symbols)
    assert all(chr(code) in map(chr, symbols) for code in map(ord, "!—”％１〈&━【#「」、…။។?"))
    assert not any(character_table()[ord(c)] & NO_SYMBOL == 0 for c in "a1é漢😀\t€·")


def test_a_batch_cut_in_two_has_the_same_values() -> None:
    texts = [WEB, "", MIXED, "\n", WEB * 3]
    batch = batch_of(texts)
    assert rows(texts) == [row for a, b in ((0, 2), (2, 5)) for row in tag(BOTH, batch.slice(a, b)).to_pylist()]


def test_a_line_of_20_megabytes() -> None:
    (row,) = rows(["w" * 15_000_000 + " word" * 1_000_000])
    assert row["gopher_datatrove_words"] == 1_000_001
    assert row["gopher_datatrove_top_2gram_share"] == 999_999 * 9 / 20_000_000
    assert row["gopher_datatrove_repeated_10gram_share"] == 3_999_960 / 20_000_000


def test_the_filter_keeps_prose_and_names_what_is_wrong_with_other_texts() -> None:
    prose = "\n".join(PROSE)
    bullets = "\n".join(f"• {line}" for line in PROSE)
    kept, short, hashes, bulleted, trailing, numbers = reasons(
        "gopher-datatrove", prose, prose[:200], prose + " #" * 40, bullets, "...\n".join(PROSE), prose + " 12" * 70
    )
    assert (kept, short, bulleted, trailing) == ([], ["gopher_short_doc"], ["gopher_too_many_bullets"], ["gopher_too_many_end_ellipsis"])
    assert "gopher_too_many_hashes" in hashes and "gopher_below_alpha_threshold" in numbers


def test_the_filter_names_what_repeats() -> None:
    lines, paragraphs, name = reasons(
        "gopher-datatrove",
        "\n".join(PROSE + PROSE[:3]),
        "\n\n".join(["\n".join(PROSE[:4])] * 2 + ["\n".join(PROSE[4:])]),
        "\n".join(PROSE) + " Hippopotamus Rhinoceros, a" * 14,
    )
    assert lines[0] == "dup_line_char_frac" and "dup_para_frac" not in lines
    assert paragraphs[:2] == ["dup_para_frac", "dup_para_char_frac"]
    assert "top_2_gram" in name and "dup_line_frac" not in name
