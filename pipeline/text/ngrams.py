"""How much of a text its n-grams of words repeat: the counts behind Gopher's repetition rules (arXiv:2112.11446, table A1).

In:   the words of many texts as numbers (equal number: equal word), as pipeline.text.words gives them.
Out:  integer counts per text and n. What published filters divide by what differs, and is in their taggers.
Cost: `ngram_counts`: for each n one pass over the places where the n-gram one shorter comes again. Most n-grams occur
      once, so this is some 10 ns a word in all. `skipping_repeats`: about 100 ns a word. Memory: 40 bytes per word
      and byte of the longest text, 4 per word of the vocabulary.
Not:  no n-gram is told from another by its hash alone; all counts are exact.
"""

import numba
import numpy as np
import numpy.typing as npt

TIMES, FIRST, LONGEST, COPIES, COVERED, ALL = range(6)

_MOST = 10
_FREE = -1
_GOLDEN = 0x9E3779B97F4A7C15
# An odd number with no pattern in its bits, and its inverse modulo 2^64.
_BASE = 0xD6E8FEB86659FD93
_INVERSE = pow(_BASE, -1, 1 << 64)

Bytes = npt.NDArray[np.uint8]
Counts = npt.NDArray[np.int64]
Ids = npt.NDArray[np.int32]
Offsets = npt.NDArray[np.int64]


@numba.njit(cache=True, nogil=True)
def ngram_counts(ids: Ids, offsets: Offsets, lengths: Ids) -> Counts:
    """[texts, 9, 6] int64: of each text and n = 2 … 10 six counts, all 0 where the text has fewer than n words.

    ids [w], offsets [texts + 1]; lengths [vocabulary], characters of each word. An n-gram's characters are those of
    its words. The counts, in the order of their names here:
    TIMES    how often the most frequent n-gram occurs; and of all n-grams that occur so often,
    FIRST    characters of the one that comes first in the text,
    LONGEST  characters of the one that has the most; 0 if no n-gram occurs twice.
    COPIES   characters of the n-grams that occur more than once, every time they do;
    COVERED  characters of the words that are in such an n-gram, each counted once;
    ALL      characters of all n-grams, every time they occur: most words count n times.
    """
    counts = np.zeros((len(offsets) - 1, _MOST - 1, 6), dtype=np.int64)
    longest = _longest(offsets)
    number = np.full(len(lengths), _FREE, dtype=np.int32)  # vocabulary → this text's words
    ends = np.zeros(longest + 1, dtype=np.int64)  # characters of the first k words
    # The n-grams that occur more than once: where they begin, ascending, and which they are.
    at, gram = np.empty(longest, dtype=np.int32), np.empty(longest, dtype=np.int32)
    # Of each such n-gram, in order of first occurrence: how often, where first, and the two shorter ones it is made of.
    times, begin = np.empty(longest, dtype=np.int32), np.empty(longest, dtype=np.int32)
    keys = np.empty(longest, dtype=np.uint64)
    slots = np.empty(_slots_for(longest), dtype=np.int32)
    for text in range(len(counts)):
        words = offsets[text + 1] - offsets[text]
        found = _repeated_words(ids[offsets[text] : offsets[text + 1]], lengths, number, ends, at, gram, times)
        first = last = np.int64(0)  # sums of the first and of the last n of `ends`
        for n in range(2, min(words, _MOST) + 1):
            first, last = first + ends[n - 1], last + ends[words - n + 2]
            row = counts[text, n - 2]
            row[TIMES], row[FIRST], row[ALL] = 1, ends[n], last + ends[words - n + 1] - first
            found, distinct = _extended(at, gram, found, times, begin, keys, slots)
            for each in range(distinct):
                if times[each] > 1 and times[each] >= row[TIMES]:
                    characters = ends[begin[each] + n] - ends[begin[each]]
                    if times[each] > row[TIMES]:
                        row[TIMES], row[FIRST], row[LONGEST] = times[each], characters, 0
                    row[LONGEST] = max(row[LONGEST], characters)
            found = _without_single(at, gram, found, times)
            covered = 0
            for i in range(found):
                stop = at[i] + n
                row[COPIES] += ends[stop] - ends[at[i]]
                row[COVERED] += ends[stop] - ends[max(at[i], covered)]
                covered = stop
    return counts


@numba.njit
def _longest(offsets):  # type: ignore[no-untyped-def]
    longest = 0
    for text in range(len(offsets) - 1):
        longest = max(longest, offsets[text + 1] - offsets[text])
    return longest


@numba.njit
def _slots_for(entries):  # type: ignore[no-untyped-def]
    """A power of two, at least twice as many."""
    size = 4
    while size < 2 * entries:
        size *= 2
    return size


@numba.njit
def _repeated_words(ids, lengths, number, ends, at, gram, times):  # type: ignore[no-untyped-def]
    """Fill `ends`, and `at` and `gram` with the words that occur more than once; returns how many places these are."""
    distinct = 0
    for i in range(len(ids)):
        if number[ids[i]] == _FREE:
            number[ids[i]] = distinct
            times[distinct] = 0
            distinct += 1
        at[i], gram[i] = i, number[ids[i]]
        times[gram[i]] += 1
        ends[i + 1] = ends[i] + lengths[ids[i]]
    for i in range(len(ids)):
        number[ids[i]] = _FREE
    return _without_single(at, gram, len(ids), times)


@numba.njit
def _without_single(at, gram, found, times):  # type: ignore[no-untyped-def]
    kept = 0
    for i in range(found):
        at[kept], gram[kept] = at[i], gram[i]
        kept += times[gram[i]] > 1
    return kept


@numba.njit
def _extended(at, gram, found, times, begin, keys, slots):  # type: ignore[no-untyped-def]
    """From the repeated n-grams to the (n + 1)-grams of which both n-grams are: (their places, how many differ).

    An (n + 1)-gram is the same as another if and only if both of its n-grams are, so two numbers of 32 bits name it.
    """
    mask = _slots_for(found) - 1
    slots[: mask + 1] = _FREE
    kept = distinct = 0
    for i in range(found - 1):
        if at[i + 1] != at[i] + 1:
            continue
        key = np.uint64(gram[i]) << np.uint64(32) | np.uint64(gram[i + 1])
        slot = _mixed(key) & mask
        while slots[slot] != _FREE and keys[slots[slot]] != key:
            slot = (slot + 1) & mask
        if slots[slot] == _FREE:
            slots[slot], keys[distinct], times[distinct], begin[distinct] = distinct, key, 0, at[i]
            distinct += 1
        at[kept], gram[kept] = at[i], slots[slot]
        times[gram[kept]] += 1
        kept += 1
    return kept, distinct


@numba.njit
def _mixed(key):  # type: ignore[no-untyped-def]
    key *= np.uint64(_GOLDEN)
    return np.int64(key >> np.uint64(33))


@numba.njit(cache=True, nogil=True)
def skipping_repeats(data: Bytes, ids: Ids, offsets: Offsets, starts: Offsets, lengths: Ids, byte_lengths: Ids) -> Counts:
    """[texts, 6] int64: characters of repeated n-grams, n = 5 … 10, as a reader meets them who skips what he has read.

    The reader goes from word to word. If the n words ahead, written together without spaces, are what n words written
    together have been before, their characters count and he goes on behind them; else he remembers them and goes on
    by one word. ("ab c" and "a bc" are the same here. This is how datatrove counts.)

    data: the UTF-8 bytes that starts [w] points into; byte_lengths [vocabulary]; the rest as in `ngram_counts`.
    """
    counts = np.zeros((len(offsets) - 1, _MOST - 4), dtype=np.int64)
    longest = _longest(offsets)
    ends, stops = np.zeros(longest + 1, dtype=np.int64), np.zeros(longest + 1, dtype=np.int64)  # characters, bytes
    sums, scales = np.zeros(longest + 1, dtype=np.uint64), np.ones(longest + 1, dtype=np.uint64)
    hashes, slots = np.empty(longest, dtype=np.uint64), np.empty(_slots_for(longest), dtype=np.int32)
    joined = np.empty(0, dtype=np.uint8)
    for text in range(len(counts)):
        words = ids[offsets[text] : offsets[text + 1]]
        for i in range(len(words)):
            ends[i + 1], stops[i + 1] = ends[i] + lengths[words[i]], stops[i] + byte_lengths[words[i]]
        if stops[len(words)] > len(joined):
            joined = np.empty(2 * stops[len(words)], dtype=np.uint8)
        _join(data, starts[offsets[text] :], stops, len(words), joined, sums, scales)
        for n in range(5, min(len(words), _MOST) + 1):
            counts[text, n - 5] = _skipping(n, len(words), ends, stops, joined, sums, scales, hashes, slots)
    return counts


@numba.njit
def _join(data, starts, stops, words, joined, sums, scales):  # type: ignore[no-untyped-def]
    """Write the words without spaces, and what makes the hash of any stretch of them out of two numbers at each end.

    sums[i]: of the bytes before word i, the k-th times base^-k; scales[i]: base^(bytes before word i).
    """
    total, scale, inverse = np.uint64(0), np.uint64(1), np.uint64(1)
    for i in range(words):
        from_start = starts[i] - stops[i]
        for k in range(stops[i], stops[i + 1]):
            joined[k] = data[from_start + k]
            total += np.uint64(joined[k]) * inverse
            scale *= np.uint64(_BASE)
            inverse *= np.uint64(_INVERSE)
        sums[i + 1], scales[i + 1] = total, scale


@numba.njit
def _skipping(n, words, ends, stops, joined, sums, scales, hashes, slots):  # type: ignore[no-untyped-def]
    mask = _slots_for(words) - 1
    slots[: mask + 1] = _FREE
    characters = i = 0
    while i + n <= words:
        hashes[i] = (sums[i + n] - sums[i]) * scales[i]
        slot = _mixed(hashes[i]) & mask
        while slots[slot] != _FREE:
            before = slots[slot]
            same_size = stops[before + n] - stops[before] == stops[i + n] - stops[i]
            if hashes[before] == hashes[i] and same_size and _equal(joined, stops[before], stops[i], stops[i + n]):
                break
            slot = (slot + 1) & mask
        if slots[slot] == _FREE:
            slots[slot] = i
            i += 1
        else:
            characters += ends[i + n] - ends[i]
            i += n
    return characters


@numba.njit
def _equal(joined, before, at, end):  # type: ignore[no-untyped-def]
    while at < end and joined[before] == joined[at]:
        before, at = before + 1, at + 1
    return at == end
