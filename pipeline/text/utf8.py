"""Counting in UTF-8 bytes: characters, lines, whitespace words and letters of many texts at native speed.

In:   the bytes of many texts in one flat array with their offsets, as Arrow holds a string column.
Out:  integer counts per text; the taggers make shares of them.
Cost: one pass over the bytes for each kernel, no Python object per text or word. `word_counts` also keeps the distinct
      words of the one text it is in (about 50 bytes each).
Not:  the bytes are taken to be valid UTF-8, which Arrow's string types promise.

A word is what `str.split()` gives: a longest stretch without Unicode whitespace. Importing this module imports numba
(half a second): import it where texts are worked on, not where recipes are read.
"""

import functools
import unicodedata

import numba
import numpy as np
import numpy.typing as npt

LETTER, LATIN = 1, 2
SLOTS = 4096

Bytes = npt.NDArray[np.uint8]
Offsets = npt.NDArray[np.int64]
Counts = npt.NDArray[np.int64]


@functools.cache
def letter_table() -> npt.NDArray[np.uint8]:
    """[0x110000] uint8: bit LETTER where `str.isalpha()`, bit LATIN where a letter's Unicode name has the word LATIN.

    As this Python's Unicode version sees it. Takes a fifth of a second, once per process.
    """
    table = np.zeros(0x110000, dtype=np.uint8)
    for code in range(len(table)):
        if chr(code).isalpha():
            latin = "LATIN" in unicodedata.name(chr(code), "").split()
            table[code] = LETTER | LATIN if latin else LETTER
    return table


@numba.njit
def decode(data, at):  # type: ignore[no-untyped-def]
    """The code point that starts at byte `at`, and its width in bytes."""
    first = np.int64(data[at])
    if first < 0x80:
        return first, 1
    if first < 0xE0:
        return (first & 0x1F) << 6 | np.int64(data[at + 1]) & 0x3F, 2
    middle = np.int64(data[at + 1]) & 0x3F
    if first < 0xF0:
        return (first & 0x0F) << 12 | middle << 6 | np.int64(data[at + 2]) & 0x3F, 3
    last = (np.int64(data[at + 2]) & 0x3F) << 6 | np.int64(data[at + 3]) & 0x3F
    return (first & 0x07) << 18 | middle << 12 | last, 4


@numba.njit
def is_space(code):  # type: ignore[no-untyped-def]
    """`str.isspace()`, a property that no Unicode version has changed since 6.3."""
    if code <= 0x20:
        return code == 0x20 or 0x09 <= code <= 0x0D or 0x1C <= code <= 0x1F
    if code < 0x1680:
        return code == 0x85 or code == 0xA0
    if code == 0x1680 or 0x2000 <= code <= 0x200A or code == 0x2028 or code == 0x2029:
        return True
    return code == 0x202F or code == 0x205F or code == 0x3000


@numba.njit(cache=True, nogil=True)
def length_counts(data: Bytes, offsets: Offsets) -> Counts:
    """[n, 5] int64: characters, characters that are not whitespace, words, lines, characters of the longest line.

    Lines are ended by "\\n" alone; a last line without it counts too, so the empty text has 0 lines.
    """
    counts = np.zeros((len(offsets) - 1, 5), dtype=np.int64)
    for text in range(len(counts)):
        at, end = offsets[text], offsets[text + 1]
        characters = visible = words = lines = longest = line = 0
        inside = False
        while at < end:
            if 0x20 < data[at] < 0x80:
                words += not inside
                inside = True
                first = at
                while at < end and 0x20 < data[at] < 0x80:
                    at += 1
                characters += at - first
                visible += at - first
                line += at - first
                continue
            code, width = decode(data, at)
            at += width
            characters += 1
            line += 1
            if code == 0x0A:
                lines += 1
                longest = max(longest, line - 1)
                line = 0
            space = is_space(code)
            visible += not space
            words += not space and not inside
            inside = not space
        counts[text, 0], counts[text, 1], counts[text, 2] = characters, visible, words
        counts[text, 3], counts[text, 4] = lines + (line > 0), max(longest, line)
    return counts


@numba.njit(cache=True, nogil=True)
def occurrences(data: Bytes, offsets: Offsets, string: Bytes, rare: int) -> Counts:
    """[n] int64: how often a string that cannot overlap itself is in each text; byte `rare` of it is the one to look for."""
    counts = np.zeros(len(offsets) - 1, dtype=np.int64)
    wanted, size = string[rare], len(string)
    for text in range(len(counts)):
        found = 0
        for at in range(offsets[text] + rare, offsets[text + 1] - size + rare + 1):
            if data[at] == wanted:
                i = 0
                while i < size and data[at - rare + i] == string[i]:
                    i += 1
                found += i == size
        counts[text] = found
    return counts


@numba.njit(cache=True, nogil=True)
def letter_counts(data: Bytes, offsets: Offsets, table: npt.NDArray[np.uint8]) -> Counts:
    """[n, 4] int64: characters, ASCII characters, letters, Latin letters; `table` is `letter_table()`."""
    counts = np.zeros((len(offsets) - 1, 4), dtype=np.int64)
    for text in range(len(counts)):
        at, end = offsets[text], offsets[text + 1]
        characters = ascii_characters = letters = latin = 0
        while at < end:
            code, width = decode(data, at)
            at += width
            characters += 1
            ascii_characters += code < 0x80
            letters += table[code] & LETTER
            latin += table[code] >> 1
        counts[text, 0], counts[text, 1], counts[text, 2], counts[text, 3] = characters, ascii_characters, letters, latin
    return counts


@numba.njit(cache=True, nogil=True)
def short_word_counts(data: Bytes, offsets: Offsets, keys: npt.NDArray[np.uint64]) -> Counts:
    """[n] int64: how many words are, lower-cased, among `keys`, which are `short_word_key`s of words of ≤ 8 bytes."""
    counts = np.zeros(len(offsets) - 1, dtype=np.int64)
    for text in range(len(counts)):
        at, end = offsets[text], offsets[text + 1]
        while at < end:
            start = at
            while at < end:
                if 0x20 < data[at] < 0x80:
                    at += 1
                    continue
                code, width = decode(data, at)
                if is_space(code):
                    break
                at += width
            if 0 < at - start <= 8 and data[start]:  # a leading NUL would vanish in the key
                key = np.uint64(0)
                for i in range(start, at):
                    byte = data[i]
                    key = key << np.uint64(8) | np.uint64(byte + 32 if 65 <= byte <= 90 else byte)
                for wanted in keys:
                    counts[text] += key == wanted
            if at < end:
                at += decode(data, at)[1]
    return counts


def short_word_key(word: str) -> np.uint64:
    """A lower-case ASCII word of 1 to 8 letters as the number that `short_word_counts` compares."""
    return np.uint64(int.from_bytes(word.encode("ascii"), "big"))


@numba.njit(cache=True, nogil=True)
def word_counts(data: Bytes, offsets: Offsets) -> Counts:
    """[n, 3] int64: words, occurrences of the most frequent word, occurrences of the second most frequent.

    Exact: words are found by hash in an open-addressing table and compared byte by byte.
    """
    counts = np.zeros((len(offsets) - 1, 3), dtype=np.int64)
    slots = np.empty(SLOTS, dtype=np.int32)  # hash → row of `seen`; a text uses slots[:size], size a power of two
    seen = np.empty((SLOTS // 2, 4), dtype=np.int64)  # a row per distinct word: start, stop, hash, occurrences
    for text in range(len(counts)):
        size, distinct, at = SLOTS, 0, offsets[text]
        place_words(slots, size, seen, 0)
        at, distinct = count_words(data, at, offsets[text + 1], slots, size, seen, distinct)
        while at < offsets[text + 1]:  # half of the slots are taken: twice as many, and go on
            size *= 2
            if size > len(slots):
                slots, seen = np.empty(size, dtype=np.int32), doubled(seen)
            place_words(slots, size, seen, distinct)
            at, distinct = count_words(data, at, offsets[text + 1], slots, size, seen, distinct)
        for row in range(distinct):
            times = seen[row, 3]
            counts[text, 0] += times
            if times > counts[text, 1]:
                counts[text, 1], counts[text, 2] = times, counts[text, 1]
            else:
                counts[text, 2] = max(counts[text, 2], times)
    return counts


@numba.njit
def doubled(seen):  # type: ignore[no-untyped-def]
    grown = np.empty((2 * len(seen), 4), dtype=np.int64)
    for row in range(len(seen)):
        for column in range(4):
            grown[row, column] = seen[row, column]
    return grown


@numba.njit
def place_words(slots, size, seen, distinct):  # type: ignore[no-untyped-def]
    """Empty slots[:size] and give each of the words seen so far a slot."""
    for slot in range(size):
        slots[slot] = -1
    for row in range(distinct):
        slot = seen[row, 2] & (size - 1)
        while slots[slot] >= 0:
            slot = (slot + 1) & (size - 1)
        slots[slot] = row


@numba.njit
def count_words(data, at, end, slots, size, seen, distinct):  # type: ignore[no-untyped-def]
    """Count the words of data[at:end] until half of the slots are taken; returns where it stopped and `distinct`."""
    mask = size - 1
    while True:
        start = at
        hashed = np.uint64(0xCBF29CE484222325)  # FNV-1a
        while at < end:
            byte = data[at]
            if byte < 0x80:
                if not is_space(byte):
                    hashed = (hashed ^ np.uint64(byte)) * np.uint64(0x100000001B3)
                elif start == at:
                    start += 1
                else:
                    break
                at += 1
                continue
            code, width = decode(data, at)
            if is_space(code):
                if start < at:
                    break
                start += width
            else:
                for i in range(at, at + width):
                    hashed = (hashed ^ np.uint64(data[i])) * np.uint64(0x100000001B3)
            at += width
        if start == at:
            return end, distinct
        fold = np.int64(hashed ^ hashed >> np.uint64(32))  # the low bits choose the slot, so the high ones come down
        slot = fold & mask
        while True:
            row = slots[slot]
            if row < 0:
                if 2 * distinct > mask:
                    return start, distinct
                slots[slot] = distinct
                seen[distinct, 0], seen[distinct, 1], seen[distinct, 2], seen[distinct, 3] = start, at, fold, 1
                distinct += 1
                break
            if seen[row, 2] == fold and seen[row, 1] - seen[row, 0] == at - start:
                i = 0
                while i < at - start and data[start + i] == data[seen[row, 0] + i]:
                    i += 1
                if i == at - start:
                    seen[row, 3] += 1
                    break
            slot = (slot + 1) & mask
