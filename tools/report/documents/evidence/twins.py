"""What two documents have in common: runs of words that stand in both, as MinHash sees words.

In: two texts. Out: per text the places of the runs of five words that the other has too, and how alike the two are: the Jaccard index
of their sets of runs. Cost: some 0.5 s per MB of text. Words: lower case, without accents, punctuation and symbols between them
(dedupe/minhash.py), so what exact deduplication takes for equal is equal here.
"""

from collections.abc import Sequence

import numpy as np

from pipeline.dedupe.minhash import letter_classes
from tools.report.documents.evidence.text import Mark

RUN = 5  # words, as the step `near` has it by default
_SEPARATOR, _NOTHING, _ALONE = 0, 1, 1 << 31
Words = tuple[list[str], list[int], list[int]]  # and where each begins and ends


def words(text: bytes) -> Words:
    """The words of a text, and the bytes at which each begins and ends."""
    codes = np.frombuffer(text.decode().encode("utf-32-le"), np.uint32)
    data = np.frombuffer(text, np.uint8)
    begins = np.append(np.flatnonzero(data & 0xC0 != 0x80), len(data))
    classes = letter_classes()[codes]
    seen = np.flatnonzero(classes != _NOTHING)
    letters = classes[seen]
    inside, alone = letters != _SEPARATOR, letters >= _ALONE
    after_gap = np.concatenate([[True], ~inside[:-1] | alone[:-1]]) if len(seen) else np.empty(0, np.bool_)
    first = np.flatnonzero(inside & (alone | after_gap))
    before_gap = np.concatenate([~inside[1:] | alone[1:], [True]]) if len(seen) else np.empty(0, np.bool_)
    last = np.flatnonzero(inside & (alone | before_gap))
    folded = (letters & (_ALONE - 1)).astype(np.uint32)
    strings = [folded[a : b + 1].tobytes().decode("utf-32-le", "replace") for a, b in zip(first, last, strict=True)]
    return strings, begins[seen[first]].tolist(), begins[seen[last] + 1].tolist()


def runs(words: Sequence[str], length: int) -> list[tuple[str, ...]]:
    """All runs of so many words; of fewer words the one that they are."""
    return [tuple(words[at : at + length]) for at in range(max(len(words) - length, 0) + 1)] if words else []


def common(one: bytes, other: bytes, label: str, length: int = RUN) -> tuple[list[Mark], list[Mark], float]:
    """What each has of the other, and the Jaccard index; 1 of two without words."""
    found = [words(one), words(other)]
    sets = [set(runs(each[0], length)) for each in found]
    shared = sets[0] & sets[1]
    alike = len(shared) / len(sets[0] | sets[1]) if sets[0] | sets[1] else 1.0
    first, second = (covered(each, shared, label, length) for each in found)
    return first, second, alike


def covered(words: Words, shared: set[tuple[str, ...]], label: str, length: int) -> list[Mark]:
    """Stretches of words that lie in one of these runs."""
    strings, begins, ends = words
    marks: list[Mark] = []
    reached = -1  # the last word that the last mark covers
    for at, run in enumerate(runs(strings, length)):
        if run in shared:
            last = at + len(run) - 1
            if marks and at <= reached + 1:
                marks[-1] = marks[-1]._replace(end=ends[last])
            else:
                marks.append(Mark(begins[at], ends[last], label))
            reached = last
    return marks
