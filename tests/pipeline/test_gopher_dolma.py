"""Gopher's rules as Dolma counts: every value against plain Python, and against what Dolma's own package gave."""

import re
from collections import Counter
from collections.abc import Sequence
from statistics import median

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.taggers import TAGGERS, tag
from pipeline.taggers.gopher_dolma import at_five_decimals
from tests.pipeline.pages import DEGENERATE, MIXED, PROSE, SPACES, WEB, batch_of, reasons

PIECES = ["a", "the", "The", "be", "of", "#", "#a", "…", "a…", "-", "*", "é", "e\u0301", "漢字", "😀", "1", "\x00", "\u200d", "אב", "word"]
texts_of = st.lists(
    st.lists(st.sampled_from([*PIECES, " ", " ", "\n", "\n\n", "\r\n", *SPACES]), max_size=40).map("".join)
    | st.lists(st.sampled_from(["a b c d", "to be", "x", "# …", "\n"]), max_size=25).map(" ".join),
    max_size=5,
)


def rows(texts: Sequence[str]) -> list[dict[str, float]]:
    return tag([TAGGERS["gopher_dolma"]], batch_of(texts)).to_pylist()


def characters(strings: Sequence[str]) -> int:
    return len("".join(strings))


def lines_of(text: str, separator: str) -> dict[str, float]:
    lines = re.split(separator, text)
    times = Counter(lines)
    return {
        "bullet_line_share": sum(line[:1] in ("*", "-") for line in lines if line) / len(lines),
        "ellipsis_line_share": sum(line[-1:] == "…" for line in lines) / len(lines),
        "duplicate_line_share": sum(times[line] > 1 for line in lines) / len(lines),
    }


def brute_force(text: str) -> dict[str, float]:
    words = text.split()
    count, total = max(len(words), 1), max(characters(words), 1)
    lines = text.split("\n")
    row: dict[str, float] = {
        "words": len(words),
        "median_word_length": median(map(len, words)) if words else 0,
        "symbol_word_share": sum(bool(set("#…") & set(word)) for word in words) / count,
        "alphabetic_word_share": sum(any(map(str.isalpha, word)) for word in words) / count,
        "required_words": sum(words.count(word) for word in ("the", "be", "to", "of", "and", "that", "have", "with")),
        **lines_of(text, "\n+"),
        **{f"{name}_v1": value for name, value in lines_of(text, "\n").items()},
        "duplicate_line_character_share": sum(len(line) for line in lines if lines.count(line) > 1) / total,
    }
    for n in range(2, 11):
        grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
        if n < 5:
            top, times = Counter(grams).most_common(1)[0] if grams else ((), 0)
            row[f"top_{n}gram_share"] = times * characters(top) / total
        else:
            again = Counter(grams)
            row[f"duplicate_{n}gram_share"] = sum(characters(g) for g in grams if again[g] > 1) / max(sum(map(characters, grams)), 1)
    return {f"gopher_dolma_{name}": round(value, 5) for name, value in row.items()}


@settings(deadline=None, max_examples=60)  # the first call compiles
@given(texts_of)
@example([WEB, MIXED, *DEGENERATE])
def test_every_value_is_that_of_plain_python(texts: list[str]) -> None:
    assert rows(texts) == [brute_force(text) for text in texts]


# dolma 1.2.1, gopher_v2 and, for the three columns of lines, gopher_v1; None: Dolma gives no attribute.
NAMES = """words median_word_length symbol_word_share alphabetic_word_share required_words bullet_line_share bullet_line_share_v1
    ellipsis_line_share ellipsis_line_share_v1 duplicate_line_share duplicate_line_share_v1 duplicate_line_character_share
    top_2gram_share top_3gram_share top_4gram_share duplicate_5gram_share duplicate_6gram_share""".split()
GOLDEN = {
    WEB: (36, 3, 0.08333, 0.86111, 8, 0.33333, 0.25, 0.11111, 0.08333, 0.22222, 0.5, 0.09174, 0.11009, 0.16514, 0.20183, 0.05809, 0),
    MIXED: (32, 2, 0.03125, 0.65625, 0, 0, 0, 0, 0, 0, 0.42857, 0, 0.09877, 0.11111, 0.09877, 0, 0),
    "# the be…\n" * 3: (9, 3, 0.66667, 0.66667, 3, 0, 0, 0.75, 0.75, 0.75, 0.75, 1.28571, 0.57143, 1.0, 0.7619, 0.81356, 0.5),
    "a b": (2, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1.0, None, None, None, None),
    "\n\n": (0, 0, 0, 0, 0, 0, 0, 0, 0, 1.0, 1.0, 0, None, None, None, None, None),
    "": (0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, None, None, None, None, None),
}


def test_values_are_those_that_dolma_gave() -> None:
    got = rows(list(GOLDEN))
    for row, expected in zip(got, GOLDEN.values(), strict=True):
        assert [row[f"gopher_dolma_{name}"] for name in NAMES] == [value or 0 for value in expected]


def test_a_batch_cut_in_two_has_the_same_values() -> None:
    texts = [WEB, "", MIXED, "\n", WEB * 3]
    batch = batch_of(texts)
    assert rows(texts) == [row for a, b in ((0, 2), (2, 5)) for row in tag([TAGGERS["gopher_dolma"]], batch.slice(a, b)).to_pylist()]


def test_a_line_of_20_megabytes() -> None:
    (row,) = rows(["w" * 15_000_000 + " word" * 1_000_000])
    assert row["gopher_dolma_words"] == 1_000_001 and row["gopher_dolma_median_word_length"] == 4
    assert row["gopher_dolma_top_2gram_share"] == round(999_999 * 8 / 19_000_000, 5)
    assert row["gopher_dolma_duplicate_10gram_share"] == round(999_991 * 40 / (999_991 * 40 + 15_000_036), 5)


def test_values_are_rounded_as_python_rounds() -> None:
    halves = [(2 * k + 1) / 200_000 for k in range(100_000)] + [(2 * k + 1) / 2**power for power in range(1, 21) for k in range(100)]
    values = np.array([*halves, *np.random.default_rng(5).random(100_000) * 9, 1e7 + 0.5])
    assert at_five_decimals(values).tolist() == [round(value, 5) for value in values.tolist()]


@pytest.mark.parametrize("name", ["gopher-dolma", "gopher-dolma-v1"])
def test_the_filter_keeps_prose_and_names_what_is_wrong_with_other_texts(name: str) -> None:
    prose = "\n".join(PROSE)
    bullets = "\n".join(f"- {line}" for line in PROSE)
    kept, short, empty, hashes, bulleted, trailing, twice = reasons(
        name, prose, prose[:200], "", prose + " #" * 40, bullets, "…\n".join(PROSE), "\n".join(PROSE + PROSE)
    )
    assert kept == [] and short == ["few_words"] and bulleted == ["bullets"]
    assert empty == ["few_words", "short_words", "few_alphabetic_words", "few_required_words"]
    assert hashes[:2] == ["symbols", "few_alphabetic_words"] and trailing == ["ellipses"]
    assert {"duplicate_lines", "duplicate_line_characters", "duplicate_10grams"} <= set(twice)


def test_blank_lines_repeat_each_other_in_the_first_version_only() -> None:
    page = "\n\n".join(PROSE)
    assert reasons("gopher-dolma", page) == [[]]
    assert reasons("gopher-dolma-v1", page) == [["duplicate_lines"]]


def test_the_published_config_does_not_reach_the_most_frequent_ngrams() -> None:
    page = "\n".join(PROSE) + "".join(f" supercalifragilistic expialidocious {k}" for k in range(20))
    assert reasons("gopher-dolma", page) == [["top_2gram"]]
    assert reasons("gopher-dolma-v1", page) == [[]]


def test_a_share_at_its_limit_stays() -> None:
    page = "\n".join(line + "…" if k < 3 else line for k, line in enumerate(PROSE))
    assert rows([page])[0]["gopher_dolma_ellipsis_line_share"] == 0.3 and reasons("gopher-dolma", page) == [[]]
