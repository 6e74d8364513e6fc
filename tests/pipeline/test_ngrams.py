"""Counts of repeated n-grams and lines, against Python's Counter, sets and regular expressions."""

import itertools
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.text import duplicates
from pipeline.text.ngrams import ALL, COPIES, COVERED, FIRST, LONGEST, TIMES, ngram_counts, skipping_repeats

SPACES = [chr(code) for code in range(0x110000) if chr(code).isspace()]

# Few words, so that n-grams come again; and texts made of stretches of other texts, so that long ones do.
words_of = st.lists(st.sampled_from(["a", "ab", "b", "c", "é", "漢字", "ba", "abc"]), max_size=30)
texts_of_words = st.lists(
    st.lists(words_of, max_size=4)
    .flatmap(lambda parts: st.lists(st.sampled_from(parts or [[]]), max_size=6))
    .map(lambda parts: list(itertools.chain.from_iterable(parts))),
    max_size=5,
)


class Numbered:
    """The words of some texts as numbers, after a vocabulary of other words."""

    def __init__(self, texts: Sequence[Sequence[str]]) -> None:
        vocabulary = ["unused", "also unused", *dict.fromkeys(word for text in texts for word in text)]
        number = {word: i for i, word in enumerate(vocabulary)}
        self.ids = np.array([number[word] for text in texts for word in text], dtype=np.int32)
        self.offsets = np.cumsum([0, *map(len, texts)], dtype=np.int64)
        self.lengths = np.array([len(word) for word in vocabulary], dtype=np.int32)
        self.byte_lengths = np.array([len(word.encode()) for word in vocabulary], dtype=np.int32)
        self.data = np.frombuffer(" ".join(["", *(word for text in texts for word in text)]).encode(), dtype=np.uint8)
        ends = np.cumsum(self.byte_lengths[self.ids] + 1, dtype=np.int64)
        self.starts = ends - self.byte_lengths[self.ids]
        if not len(self.data):
            self.data = np.zeros(1, dtype=np.uint8)

    def counts(self) -> np.ndarray:
        return ngram_counts(self.ids, self.offsets, self.lengths)

    def skipping(self) -> np.ndarray:
        return skipping_repeats(self.data, self.ids, self.offsets, self.starts, self.lengths, self.byte_lengths)


def characters(words: Sequence[str]) -> int:
    return len("".join(words))


def counts_of(words: Sequence[str], n: int) -> list[int]:
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    if not grams:
        return [0] * 6
    counter = Counter(grams)
    first, times = counter.most_common(1)[0]
    covered = {i + k for i, gram in enumerate(grams) for k in range(n) if counter[gram] > 1}
    return [
        times,
        characters(first),
        max(characters(gram) for gram in grams if counter[gram] == times) if times > 1 else 0,
        sum(characters(gram) for gram in grams if counter[gram] > 1),
        sum(len(words[i]) for i in covered),
        sum(map(characters, grams)),
    ]


def skipping_of(words: Sequence[str], n: int) -> int:
    seen, total, at = set(), 0, 0
    while at + n <= len(words):
        gram = "".join(words[at : at + n])
        total += len(gram) * (gram in seen)
        at += n if gram in seen else 1
        seen.add(gram)
    return total


@settings(deadline=None)  # the first call compiles
@given(texts_of_words)
@example([[], ["a"], ["a", "a"], ["a"] * 12, []])
def test_ngrams_are_counted_as_a_counter_does(texts: list[list[str]]) -> None:
    assert Numbered(texts).counts().tolist() == [[counts_of(text, n) for n in range(2, 11)] for text in texts]


@settings(deadline=None)
@given(texts_of_words)
def test_repeats_are_skipped_as_a_reader_does(texts: list[list[str]]) -> None:
    assert Numbered(texts).skipping().tolist() == [[skipping_of(text, n) for n in range(5, 11)] for text in texts]


def test_of_equally_frequent_ngrams_the_first_and_the_longest_are_told_apart() -> None:
    row = Numbered([["x", "y", "long", "word", "x", "y", "long", "word"]]).counts()[0, 0]
    assert (row[TIMES], row[FIRST], row[LONGEST]) == (2, 2, 8)  # "x y", "y long", "long word" come twice each
    # Seven 2-grams, of which "word x" occurs once.
    assert (row[COPIES], row[COVERED], row[ALL]) == (2 * (2 + 5 + 8), 20, 2 * (2 + 5 + 8) + 5)


def test_words_written_together_repeat_what_other_words_made() -> None:
    row = Numbered([["ab", "c", "d", "e", "f", "a", "bc", "d", "e", "f"]])
    assert row.skipping()[0, 0] == 6 and row.counts()[0, 3, COPIES] == 0


def test_stretches_of_one_hash_are_not_taken_for_repeats() -> None:
    # Thue and Morse's sequence and its complement have the same polynomial hash modulo 2^64, whatever the base.
    marks = ["ab"[k.bit_count() % 2] for k in range(1 << 12)]
    other = ["ba"[k.bit_count() % 2] for k in range(1 << 12)]
    words = ["".join(half[k : k + 1024]) for half in (marks, other) for k in range(0, 4096, 1024)]
    text = [*words[:4], "z", "y", *words[4:], "z"]
    assert Numbered([text]).skipping()[0, 0] == 0
    assert Numbered([[*text, "y", *words[:4], "z"]]).skipping()[0, 0] == 4097


def test_a_text_of_one_word_over_and_over() -> None:
    row = Numbered([["word"] * 100_000]).counts()[0]
    for n in range(2, 11):
        times = 100_001 - n
        assert row[n - 2].tolist() == [times, 4 * n, 4 * n, 4 * n * times, 400_000, 4 * n * times]


lines_of = st.lists(
    st.sampled_from(["\n", "\n", "\n\n", "a", "b", "é", "- ", "…", "...", ". . .", "●", "\r", "\u0301", *SPACES]), max_size=40
)
texts_of_lines = st.lists(lines_of.map("".join) | st.text(max_size=20), max_size=6)


def flat(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The texts' bytes as a slice of a batch has them: others lie before and behind."""
    encoded = [text.encode() for text in texts]
    data = np.frombuffer(b"\nbefore" + b"".join(encoded) + b"\nbehind", dtype=np.uint8)
    return data, np.cumsum([7, *map(len, encoded)], dtype=np.int64)


def pieces_of(data: np.ndarray, pieces: duplicates.Pieces) -> list[list[str]]:
    strings = [bytes(data[start:end]).decode() for start, end in zip(pieces.starts, pieces.ends, strict=True)]
    return [strings[a:b] for a, b in zip(pieces.offsets[:-1], pieces.offsets[1:], strict=True)]


def duplicates_of(pieces: list[str]) -> list[int]:
    counter = Counter(pieces)
    later = [piece for i, piece in enumerate(pieces) if piece in pieces[:i]]
    copies = [piece for piece in pieces if counter[piece] > 1]
    return [len(pieces), characters(pieces), len(copies), characters(copies), len(later), characters(later)]


@settings(deadline=None)
@given(texts_of_lines, st.integers(1, 3))
@example(["", "\n", "\n\n\n", "a\n\n\nb"], 2)
def test_pieces_lie_between_newlines_and_are_stripped_as_strings_are(texts: list[str], newlines: int) -> None:
    data, offsets = flat(texts)
    pieces = duplicates.split(data, offsets, newlines)
    expected = [re.split(rf"\n{{{newlines},}}", text) for text in texts]
    assert pieces_of(data, pieces) == expected
    assert pieces_of(data, duplicates.stripped(data, pieces)) == [[s for line in lines if (s := line.strip())] for lines in expected]


@settings(deadline=None)
@given(texts_of_lines)
def test_equal_lines_are_counted_as_a_counter_does(texts: list[str]) -> None:
    data, offsets = flat(texts)
    pieces = duplicates.split(data, offsets, 1)
    lines = [re.split("\n+", text) for text in texts]
    assert duplicates.duplicate_counts(data, pieces).tolist() == [duplicates_of(each) for each in lines]
    starts, ends = ("-", "●", "..."), ("...", ". . .", "…")
    assert duplicates.edge_counts(data, pieces, starts, ends).tolist() == [
        [sum(line.startswith(starts) for line in each), sum(line.endswith(ends) for line in each)] for each in lines
    ]


def test_lines_of_one_hash_are_two_lines() -> None:
    pair = "8yn0iYCKYHlIj4-BwPqk", "GReLUrM4wMqfg9yzV3KQ"  # these two collide in 64-bit FNV-1a
    data, offsets = flat(["\n".join([*pair, "x", *pair, pair[0]])])
    assert duplicates.duplicate_counts(data, duplicates.split(data, offsets, 1)).tolist() == [[6, 101, 5, 100, 3, 60]]


@pytest.mark.parametrize("count", [10, 100_000])
def test_many_lines_are_told_apart(count: int) -> None:
    data, offsets = flat(["\n".join(map(str, [*range(count), *range(10)])), "0"])
    counts = duplicates.duplicate_counts(data, duplicates.split(data, offsets, 1))
    assert counts[:, [0, 2, 4]].tolist() == [[count + 10, 20, 10], [1, 0, 0]]
