"""DCLM's Bloom filter over n-grams of words, mode `old-both`: paragraphs of which most was seen before, and documents of such.

In:   a batch of texts, and the filter that all earlier ones of the scope went through.
Out:  spans of the paragraphs to remove, and of each text how many n-grams it has and how many were in the filter.
Cost: 12 to 15 MB of text per CPU-second for `count` and `look_up` together, three quarters of it UAX #29 words (words.py), which both
      need. Memory of a batch's words.
Not:  the filter belongs to the caller, and so does what follows from the counts (paragraphs.py).

After mlfoundations/dclm, dedup/bff/src/main.rs, `process_line_oldboth`, and the values of DCLM-Baseline (arXiv:2406.11794, tables 18 and
19). A paragraph begins at the text's start or at a "\\n", which is its first character. Its words are the segments of UAX #29 that are not
white space alone; in one of fewer than n words nothing is looked up, and it stays. Each n-gram is looked up before those of its own
paragraph are inserted, so a paragraph never repeats itself; if more than `threshold` of them were there the paragraph is removed, and
otherwise they are inserted, even where the document is dropped in the end.
"""

import numba
import numpy as np
import numpy.typing as npt

from pipeline.dedupe.bloom import Bloom, contains, insert
from pipeline.dedupe.methods import Bff
from pipeline.text.utf8 import Bytes, Offsets
from pipeline.text.words import segment

_BASE = np.uint64(0x9FB21C651E98DF25)  # odd, so that an n-gram's hash keeps every bit of each word's


def count(data: Bytes, offsets: Offsets, settings: Bff) -> int:
    """How many n-grams of these texts will be looked up."""
    words = segment(data, offsets, "unicode")
    return int(_count(data, offsets, words.starts, words.offsets, settings.ngram))


def look_up(data: Bytes, offsets: Offsets, settings: Bff, bloom: Bloom) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Spans [s, 3] int64 (text, first byte, byte after the last) and counts [n, 2] int64 (n-grams, of these in the filter)."""
    words = segment(data, offsets, "unicode")
    hashes = words.hashes[words.ids]
    spans, counts, inserted = _repeated(
        data, offsets, words.starts, words.offsets, hashes, settings.ngram, settings.threshold, bloom.words, bloom.hashes
    )
    bloom.inserted += inserted
    return spans, counts


@numba.njit(cache=True, nogil=True)
def _repeated(data, offsets, starts, words, hashes, n, threshold, filter_words, filter_hashes):  # type: ignore[no-untyped-def]
    spans = np.empty((breaks(data, offsets), 3), np.int64)
    counts = np.zeros((len(offsets) - 1, 2), np.int64)
    longest = 1
    for text in range(len(counts)):
        longest = max(longest, words[text + 1] - words[text])
    keys = np.empty(longest, np.uint64)  # of the paragraph's n-grams
    leaving = np.uint64(1)  # what a word's hash has been multiplied by when it leaves the n-gram
    for _ in range(n):
        leaving *= _BASE
    found = inserted = 0
    for text in range(len(counts)):
        begin, end = offsets[text], offsets[text + 1]
        at, word = begin, words[text]
        while at < end:
            start, at, first = at, _next_break(data, at, end), word
            rolling = np.uint64(0)
            total = seen = 0
            while word < words[text + 1] and starts[word] < at:
                rolling = rolling * _BASE + hashes[word]
                if word - first >= n:
                    rolling -= hashes[word - n] * leaving
                if word - first >= n - 1:
                    keys[total] = rolling
                    seen += contains(filter_words, filter_hashes, rolling)
                    total += 1
                word += 1
            counts[text, 0] += total
            counts[text, 1] += seen
            if total and seen / total > threshold:
                spans[found, 0], spans[found, 1], spans[found, 2] = text, start - begin, at - begin
                found += 1
            else:
                for i in range(total):
                    inserted += not insert(filter_words, filter_hashes, keys[i])
    return spans[:found], counts, inserted


@numba.njit(cache=True, nogil=True)
def _count(data, offsets, starts, words, n):  # type: ignore[no-untyped-def]
    count = 0
    for text in range(len(offsets) - 1):
        at, word = offsets[text], words[text]
        while at < offsets[text + 1]:
            at, first = _next_break(data, at, offsets[text + 1]), word
            while word < words[text + 1] and starts[word] < at:
                word += 1
            count += max(0, word - first - n + 1)
    return count


@numba.njit
def _next_break(data, at, end):  # type: ignore[no-untyped-def]
    """Where the paragraph that begins at `at` ends: before the next "\\n" that is not its own first character, or at `end`."""
    at += 1
    while at < end and data[at] != 0x0A:
        at += 1
    return at


@numba.njit
def breaks(data, offsets):  # type: ignore[no-untyped-def]
    """At least as many as the texts have paragraphs."""
    count = len(offsets)
    for at in range(offsets[0], offsets[-1]):
        count += data[at] == 0x0A
    return count
