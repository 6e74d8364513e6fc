"""MinHash signatures with locality-sensitive hashing: per text a few 64-bit numbers, of which similar texts share some.

In:   the bytes of many texts in one flat array with their offsets, as Arrow holds a string column.
Out:  per text and band, a hash of that band's minima; two texts with one equal band hash are taken for near-duplicates.
Cost: one pass over the bytes at about 100 MB of text per CPU second at the default settings, most of it the 112
      permutations of every shingle; 5 MB of tables, made once per process in a quarter of a second.
Not:  it compares no two texts; dedupe/near.py finds those that share a band. It estimates the overlap of *sets* of
      shingles, so neither their order nor how often one occurs counts.

With bands of r rows, b bands and Jaccard similarity J of the shingle sets, two texts share a band with probability
1 - (1 - J^r)^b (Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, 3.4.2): at 14 bands of 8 rows 0.92 where
J = 0.8, 0.56 where J = 0.7, 0.05 where J = 0.5. These are the settings of FineWeb, which aimed at 0.75 and more.

Importing this module imports numba (half a second): import it where texts are worked on, not where recipes are read.
"""

import functools
import re
import unicodedata

import numba
import numpy as np
import numpy.typing as npt

from pipeline.dedupe.methods import Near
from pipeline.text.utf8 import Bytes, Offsets, decode

Hashes = npt.NDArray[np.uint64]

_SEPARATOR, _NOTHING = 0, 1
_ALONE = 1 << 31
_BLOCK = 512  # shingles whose minima are taken together: 4 KiB, which stay in the first cache
_ODD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, odd: the multiplier of all hashing here
# Scripts that put no blanks between words.
_UNSPACED = re.compile(r"(?:HALFWIDTH )?(?:CJK|HIRAGANA|KATAKANA|THAI|LAO|KHMER|MYANMAR)\b")


def band_hashes(data: Bytes, offsets: Offsets, settings: Near) -> Hashes:
    """[n, bands] uint64: the hash of each band's minima; a text without words has zeros, and no other one has a zero.

    data: [bytes] uint8, UTF-8. offsets: [n + 1] int64, text i is data[offsets[i]:offsets[i + 1]].

    Text is simplified character by character: lower case; canonically decomposed, and what is a mark without width
    (category Mn or Me) or invisible (Cf) left out, so that composed, decomposed and unaccented spellings are one;
    punctuation, symbols, whitespace and controls (P*, S*, Z*, Cc) are blanks. Digits stay. Words are what stands
    between blanks; of scripts written without blanks (Han, kana, Thai, Lao, Khmer, Burmese) each letter is a word.

    A shingle is a run of `ngram` words as a 64-bit hash; a text of fewer words is one shingle. With x a shingle and i
    one of bands · rows permutations, the minimum of a_i · x + b_i modulo 2^64 is kept, a_i odd: multiplication by an
    odd number is the universal family of Dietzfelbinger et al. (1997) before its shift, which a minimum needs no more.
    a and b come from `seed` by splitmix64. Categories and lower case are those of this Python's Unicode version.
    """
    multipliers, addends = _permutations(settings.bands * settings.rows, settings.seed)
    return _band_hashes(data, offsets, letter_classes(), settings.ngram, settings.rows, multipliers, addends)


@functools.cache
def letter_classes() -> npt.NDArray[np.uint32]:
    """[0x110000] uint32: the code point that stands for each one, _ALONE if it is a word by itself; or _SEPARATOR, _NOTHING."""
    table = np.arange(0x110000, dtype=np.uint32)
    table[0x20000:0x40000] |= _ALONE  # the two planes of rarer Han characters
    # Beside these there are only Han that stand for themselves, and private use.
    for code in (*range(0x20000), *range(0x2F800, 0x2FA20), *range(0xE0000, 0xE0200)):
        table[code] = _letter(chr(code))
    return table


def _letter(character: str) -> int:
    category = unicodedata.category(character)
    if category[0] in "PSZ" or category == "Cc":
        return _SEPARATOR
    if category in ("Mn", "Me", "Cf"):
        return _NOTHING
    lower = character.lower()
    base = [each for each in unicodedata.normalize("NFD", lower) if unicodedata.category(each) != "Mn"]
    code = ord(base[0] if len(base) == 1 else lower[0])  # a Korean syllable falls into several letters, and stays whole
    return code | _ALONE if category[0] in "LM" and _UNSPACED.match(unicodedata.name(character, "")) else code


@functools.cache
def _permutations(count: int, seed: int) -> tuple[Hashes, Hashes]:
    """`count` multipliers, all odd, and as many addends: splitmix64 (Steele, Lea and Flood 2014) started at `seed`."""
    with np.errstate(over="ignore"):
        state = np.uint64(seed) + _ODD * np.arange(1, 2 * count + 1, dtype=np.uint64)
        state = (state ^ state >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ state >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    state ^= state >> np.uint64(31)
    return state[:count] | np.uint64(1), state[count:].copy()


@numba.njit(cache=True, nogil=True)
def _band_hashes(data, offsets, letters, ngram, rows, multipliers, addends):  # type: ignore[no-untyped-def]
    bands = len(multipliers) // rows
    hashes = np.zeros((len(offsets) - 1, bands), dtype=np.uint64)
    minima = np.empty(len(multipliers), dtype=np.uint64)
    block = np.empty(_BLOCK, dtype=np.uint64)
    ring = np.empty(ngram, dtype=np.uint64)  # the last words' hashes
    leaving = np.uint64(1)  # _ODD to the power of ngram: what a word's hash has been multiplied by when it leaves
    for _ in range(ngram):
        leaving *= _ODD
    for text in range(len(hashes)):
        minima[:] = np.uint64(0xFFFFFFFFFFFFFFFF)
        ring[:] = 0
        words = filled = slot = 0
        rolling = np.uint64(0)
        word, at = next_word(data, offsets[text], offsets[text + 1], letters)
        while word:
            rolling = rolling * _ODD + word - ring[slot] * leaving
            ring[slot] = word
            slot = slot + 1 if slot + 1 < ngram else 0
            words += 1
            if words >= ngram:
                block[filled] = _mixed(rolling)
                filled += 1
                if filled == _BLOCK:
                    _lower(minima, block, filled, multipliers, addends)
                    filled = 0
            word, at = next_word(data, at, offsets[text + 1], letters)
        if not words:
            continue
        if words < ngram:
            block[0], filled = _mixed(rolling), 1
        _lower(minima, block, filled, multipliers, addends)
        for band in range(bands):
            hashed = np.uint64(0)
            for row in range(band * rows, (band + 1) * rows):
                hashed = _mixed(hashed * _ODD ^ minima[row])
            hashes[text, band] = max(hashed, np.uint64(1))
    return hashes


@numba.njit
def next_word(data, at, end, letters):  # type: ignore[no-untyped-def]
    """The hash, never 0, of the first word in data[at:end], or 0 if there is none; and where to go on."""
    hashed = _ODD
    inside = False
    while at < end:
        code, width = decode(data, at)
        letter = letters[code]
        if letter & _ALONE:
            if inside:
                break
            return _mixed(np.uint64(letter)) | np.uint64(1), at + width
        at += width
        if letter > _NOTHING:
            hashed = (hashed ^ np.uint64(letter)) * _ODD
            inside = True
        elif letter == _SEPARATOR and inside:
            break
    return (_mixed(hashed) | np.uint64(1) if inside else np.uint64(0)), at


@numba.njit
def _mixed(value):  # type: ignore[no-untyped-def]
    """Every bit of `value` moves every other: the finalizer of MurmurHash3 (Appleby), a bijection."""
    value = (value ^ value >> np.uint64(33)) * np.uint64(0xFF51AFD7ED558CCD)
    value = (value ^ value >> np.uint64(33)) * np.uint64(0xC4CEB9FE1A85EC53)
    return value ^ value >> np.uint64(33)


@numba.njit
def _lower(minima, block, filled, multipliers, addends):  # type: ignore[no-untyped-def]
    """Lower the minima to those of block[:filled]; the inner loop is one that compilers vectorise."""
    for i in range(len(minima)):
        lowest, multiplier, addend = minima[i], multipliers[i], addends[i]
        for j in range(filled):
            lowest = min(lowest, multiplier * block[j] + addend)
        minima[i] = lowest
