"""How much of evaluation items stands in documents: n-grams of words, or whole paragraphs, that both have.

In:   items' texts, of which `Index` is made once; then documents, a batch at a time.
Out:  for every document the items of which it has something, how much of each, and of how much.
Cost: about 40 bytes per gram of the items; documents at some 80 MB per CPU-second by n-grams, 280 by paragraphs. Memory beside them:
      4 bytes per byte of the longest document.
Not:  a gram is known by its 64-bit hash alone. With a million of them, one in 10¹³ is met by chance; an item is not, unless it has
      one gram only.

Words are those of MinHash (dedupe/minhash.py): lower case, without accents; punctuation and symbols are blanks, and a letter of a
script written without blanks is a word. An item's grams are its different runs of n words; one of fewer than n but at least `minimum`
words is one gram, all of it; a shorter one has none and is never found. GPT-3 (arXiv:2005.14165, appendix C) took for n a number of
words from 8 to 13, by the length of each evaluation's examples, without punctuation and case.

Paragraphs are Dolma's (configs/dolma-v1_6/decontamination): pieces between "\\n" whose bytes are the same, of the items only those
of at least 13 words by UAX #29, punctuation included, and not of punctuation, symbols and whitespace alone.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.dedupe.minhash import letter_classes, next_word
from pipeline.dedupe.paragraphs import line_piece
from pipeline.edits import flat
from pipeline.text.interning import hash_bytes, mix
from pipeline.text.utf8 import Bytes, Offsets
from pipeline.text.words import segment

Keys = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]

PARAGRAPH_WORDS = 13
_BASE = np.uint64(0x9FB21C651E98DF25)


@dataclass(frozen=True)
class Overlap:
    """Each pair of a text and an item that have grams in common, ascending: text, item, how many different ones. All int64 [p]."""

    texts: Ints
    items: Ints
    matched: Ints


class Index:
    """The grams of many items, and which item has which. totals [items] int64: how many different grams each has."""

    def __init__(self, keys: Keys, owners: Ints, count: int) -> None:
        """keys [g]: hashes of grams. owners [g]: the item of each. count: of items."""
        order = np.lexsort((owners, keys))
        keys, owners = keys[order], owners[order]
        new = np.ones(len(keys), np.bool_)
        new[1:] = (keys[1:] != keys[:-1]) | (owners[1:] != owners[:-1])
        keys, self._owners = keys[new], owners[new]
        self.totals = np.bincount(self._owners, minlength=count).astype(np.int64)
        self._keys, first = np.unique(keys, return_index=True)
        self._bounds = np.append(first, len(keys))  # gram g is of items _owners[_bounds[g]:_bounds[g + 1]]
        self._slots = _slots(self._keys)

    def _shared(self, found: Ints) -> Overlap:
        """found: (text, gram) pairs as text · number of grams + gram, repeats included."""
        texts, grams = np.divmod(np.unique(found), max(1, len(self._keys)))
        begin, size = self._bounds[grams], np.diff(self._bounds)[grams]
        within = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
        owners = self._owners[np.repeat(begin, size) + within]
        pairs, matched = np.unique(np.repeat(texts, size) * len(self.totals) + owners, return_counts=True)
        return Overlap(*np.divmod(pairs, max(1, len(self.totals))), matched)


class NgramIndex(Index):
    """Of items by their runs of `n` words, or all their words where these are fewer but at least `minimum`."""

    def __init__(self, texts: Sequence[str], n: int, minimum: int) -> None:
        data, offsets = flat(pa.array(texts, pa.large_string()))
        keys, owners, prefixes, lengths = _ngrams(data, offsets, letter_classes(), n, minimum)
        super().__init__(keys, owners, len(texts))
        self._minimum, self._lengths = minimum, np.unique(lengths)
        self._prefixes = _bitmap(prefixes)

    def overlap(self, data: Bytes, offsets: Offsets) -> Overlap:
        return self._shared(
            _find_ngrams(data, offsets, letter_classes(), self._minimum, self._lengths, self._prefixes, self._slots, self._keys)
        )


class ParagraphIndex(Index):
    """Of items by their paragraphs."""

    def __init__(self, texts: Sequence[str]) -> None:
        pieces = [(piece, item) for item, text in enumerate(texts) for piece in text.split("\n") if _says_something(piece)]
        data, offsets = flat(pa.array([piece for piece, _ in pieces], pa.large_string()))
        long = np.diff(segment(data, offsets, "unicode").offsets) >= PARAGRAPH_WORDS
        owners = np.array([item for _, item in pieces], np.int64)
        super().__init__(_hashes(data, offsets)[long], owners[long], len(texts))

    def overlap(self, data: Bytes, offsets: Offsets) -> Overlap:
        return self._shared(_find_paragraphs(data, offsets, self._slots, self._keys))


def _says_something(piece: str) -> bool:
    """Not so: Dolma's not_alphanum_paragraph_v1 (python/dolma/taggers/punctuation.py), whose dingbats are U+2600 to U+27BF."""
    return any(
        unicodedata.category(character)[0] not in "PSZ" and not character.isspace() and not "\u2600" <= character <= "\u27bf"
        for character in piece
    )


@numba.njit(cache=True, nogil=True)
def _ngrams(data, offsets, letters, n, minimum):  # type: ignore[no-untyped-def]
    """Of all texts' grams: keys, owners, hashes of the first `minimum` words, lengths in words."""
    keys, owners = [np.uint64(0) for _ in range(0)], [np.int64(0) for _ in range(0)]
    prefixes, lengths = [np.uint64(0) for _ in range(0)], [np.int64(0) for _ in range(0)]
    buffer = np.empty(_most_words(offsets), np.uint64)
    for text in range(len(offsets) - 1):
        words = _words(data, offsets[text], offsets[text + 1], letters, buffer)
        length = min(n, words)
        if length < minimum:
            continue
        for first in range(words - length + 1):
            keys.append(_gram(buffer, first, length))
            owners.append(text)
            prefixes.append(_gram(buffer, first, minimum))
            lengths.append(length)
    return np.array(keys), np.array(owners), np.array(prefixes), np.array(lengths)


@numba.njit(cache=True, nogil=True)
def _find_ngrams(data, offsets, letters, minimum, lengths, prefixes, slots, keys):  # type: ignore[no-untyped-def]
    """The (text, gram) pairs, as _shared reads them. Only where `minimum` words begin a known gram is anything looked up."""
    found = [np.int64(0) for _ in range(0)]
    buffer = np.empty(_most_words(offsets), np.uint64)
    leaving = np.uint64(1)
    for _ in range(minimum):
        leaving *= _BASE
    mask = np.uint64(64 * len(prefixes) - 1)
    for text in range(len(offsets) - 1):
        words = _words(data, offsets[text], offsets[text + 1], letters, buffer)
        rolling = np.uint64(0)
        for last in range(words):
            rolling = rolling * _BASE + buffer[last]
            first = last - minimum + 1
            if first < 0:
                continue
            if first > 0:
                rolling -= buffer[first - 1] * leaving
            bit = mix(rolling ^ np.uint64(minimum)) & mask
            if prefixes[bit >> np.uint64(6)] >> (bit & np.uint64(63)) & np.uint64(1):
                for length in lengths:
                    if first + length <= words:
                        gram = _look_up(slots, keys, _gram(buffer, first, length))
                        if gram >= 0:
                            found.append(text * len(keys) + gram)
    return np.array(found)


@numba.njit(cache=True, nogil=True)
def _find_paragraphs(data, offsets, slots, keys):  # type: ignore[no-untyped-def]
    found = [np.int64(0) for _ in range(0)]
    for text in range(len(offsets) - 1):
        at, end = offsets[text], offsets[text + 1]
        while at < end:
            stop, visible = line_piece(data, at, end)
            if visible:
                gram = _look_up(slots, keys, hash_bytes(data, at, stop))
                if gram >= 0:
                    found.append(text * len(keys) + gram)
            at = stop + 1
    return np.array(found)


@numba.njit
def _most_words(offsets):  # type: ignore[no-untyped-def]
    """At least as many as the text with most of them has: a word takes two bytes with its blank, or three."""
    most = 1
    for text in range(len(offsets) - 1):
        most = max(most, (offsets[text + 1] - offsets[text]) // 2 + 1)
    return most


@numba.njit
def _words(data, at, end, letters, buffer):  # type: ignore[no-untyped-def]
    count = 0
    word, at = next_word(data, at, end, letters)
    while word:
        buffer[count] = word
        count += 1
        word, at = next_word(data, at, end, letters)
    return count


@numba.njit
def _gram(words, first, length):  # type: ignore[no-untyped-def]
    hashed = np.uint64(0)
    for i in range(first, first + length):
        hashed = hashed * _BASE + words[i]
    return mix(hashed ^ np.uint64(length))


@numba.njit
def _look_up(slots, keys, key):  # type: ignore[no-untyped-def]
    """The key's place in `keys`, or -1."""
    mask = np.uint64(len(slots) - 1)
    slot = key & mask
    while slots[slot] >= 0:
        if keys[slots[slot]] == key:
            return np.int64(slots[slot])
        slot = (slot + np.uint64(1)) & mask
    return np.int64(-1)


@numba.njit(cache=True)
def _slots(keys):  # type: ignore[no-untyped-def]
    """An open-addressing table, at most half full: slot → place in `keys`, -1 where it is empty."""
    size = 2
    while size < 2 * len(keys):
        size *= 2
    slots = np.full(size, -1, np.int32)
    mask = np.uint64(size - 1)
    for place in range(len(keys)):
        slot = keys[place] & mask
        while slots[slot] >= 0:
            slot = (slot + np.uint64(1)) & mask
        slots[slot] = place
    return slots


@numba.njit(cache=True)
def _bitmap(keys):  # type: ignore[no-untyped-def]
    """A power of two of bits, at least 16 per key, in which one is set for each."""
    size = 1
    while 64 * size < 16 * len(keys):
        size *= 2
    words = np.zeros(size, np.uint64)
    mask = np.uint64(64 * size - 1)
    for key in keys:
        words[(key & mask) >> np.uint64(6)] |= np.uint64(1) << (key & np.uint64(63))
    return words


@numba.njit(cache=True)
def _hashes(data, offsets):  # type: ignore[no-untyped-def]
    hashes = np.empty(len(offsets) - 1, np.uint64)
    for text in range(len(hashes)):
        hashes[text] = hash_bytes(data, offsets[text], offsets[text + 1])
    return hashes
