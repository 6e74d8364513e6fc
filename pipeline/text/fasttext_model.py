"""fastText's supervised models, asked about many texts at native speed.

In:   a model's file, and the UTF-8 bytes of many texts with their offsets.
Out:  the probability of every label for every text: the 32-bit numbers that fastText's own library gives.
Cost: one pass over the bytes; a hash for every run of characters in a word, except in short words that were met lately; an
      addition of one row of the matrix for each that the model has. Memory: 4 MB beside the model.
Not:  training. A text is one line here: its newlines are spaces.

The rules and the order of operations are those of fastText 0.9 (dictionary.cc, model.cc, loss.cc). Words stand between ASCII
whitespace or NULs; one that begins with `__label__` is left out; `</s>` ends the text, and one is read at its end. A word is
its own row, if the model knows it, and those of its character n-grams; after all words come the rows of word n-grams.
"""

from functools import lru_cache
from pathlib import Path

import numba
import numpy as np
import numpy.typing as npt

from pipeline.text import fasttext_file, interning
from pipeline.text.fasttext_file import HIERARCHICAL, SOFTMAX, ModelFile
from pipeline.text.interning import native
from pipeline.text.utf8 import Bytes, Offsets

Floats = npt.NDArray[np.float32]
_LABEL = np.frombuffer(fasttext_file.LABEL.encode(), dtype=np.uint8)
_END = np.frombuffer(b"</s>", dtype=np.uint8)
# Words of up to 16 bytes and 10 rows are remembered, each in the one place, of 64 bytes, that its spelling gives it.
_PLACE_BITS, _MOST = 16, 10
_STEP = 1 << 10  # bytes of a long word whose rows are noted before they are added up


@lru_cache(maxsize=4)
def load(path: Path) -> "FastText":
    """Raises PipelineError if the file is no supervised fastText model."""
    return FastText(fasttext_file.read(path))


class FastText:
    def __init__(self, file: ModelFile) -> None:
        self.labels = file.labels
        self._file = file
        self._tree = _huffman(file.counts) if file.loss == HIERARCHICAL else np.zeros((0, 2), np.int32)
        # Which n-grams' buckets were kept, a bit each: most were not, and the bits stay in the processor's cache.
        self._bits = np.packbits(file.kept >= 0, bitorder="little")
        # By place: the word's bytes (128 bits), its hash (32), how many rows it has, -1 if the place is empty (32), the rows.
        self._words = np.full((1 << _PLACE_BITS, 16), -1, np.int32)

    def probabilities(self, data: Bytes, offsets: Offsets) -> Floats:
        """[texts, labels] float32. 0 for labels that fastText leaves out, which are less likely than 0.00001, and for all
        labels of a text of which the model knows nothing. Not quite a distribution: fastText adds 0.00001 to each."""
        file = self._file
        grams = (file.shortest, file.longest, file.buckets, file.word_ngrams)
        rows = (file.words, file.rows.view(np.uint8), file.kept, self._bits)
        hidden, counts = _averages(data, offsets, *rows, self._words, self._words.view(np.uint64), *grams)
        if file.loss == HIERARCHICAL:
            return _hierarchical(hidden, counts, file.output, file.scales, self._tree)
        return _flat(hidden, counts, file.output, file.scales, file.loss == SOFTMAX)


def _huffman(counts: tuple[int, ...]) -> npt.NDArray[np.int32]:
    """[2 labels - 1, 2]: the two nodes below each node, -1 below a label's own. buildTree of loss.cc; counts descend."""
    size = len(counts)
    tree = np.full((2 * size - 1, 2), -1, dtype=np.int32)
    weights = [*counts, *[10**15] * (size - 1)]
    leaf, inner = size - 1, size
    for node in range(size, 2 * size - 1):
        for side in (0, 1):
            if leaf >= 0 and weights[leaf] < weights[inner]:
                tree[node, side], leaf = leaf, leaf - 1
            else:
                tree[node, side], inner = inner, inner + 1
        weights[node] = weights[tree[node, 0]] + weights[tree[node, 1]]
    return tree


@native
def is_space(byte):  # type: ignore[no-untyped-def]
    return byte <= 32 and (byte == 32 or 9 <= byte <= 13 or byte == 0)


@numba.njit(cache=True)  # with the interpreter's lock, for it writes down the words it meets
def _averages(data, offsets, words, raw, kept, bits, known, spelled, shortest, longest, buckets, word_ngrams):  # type: ignore[no-untyped-def]
    """[texts, dimension] float32, the mean of each text's rows, added up in their order, and how many rows there are."""
    matrix = raw.view(np.float32)  # in the file it need not begin at a multiple of 4, which would make another type of it
    hidden = np.zeros((len(offsets) - 1, matrix.shape[1]), np.float32)
    counts = np.zeros(len(hidden), np.int64)
    rows = np.empty(1 << 13 | 2 * _STEP * (longest + 1), np.int64)  # not added up yet
    line = np.empty(1 << 10, np.int64)  # the hashes of a text's words
    padded = np.empty(1 << 8, np.uint8)
    end_row, end_hash = np.int64(interning.find(words, _END, 0, 4)), _hash(_END, 0, 4)
    for text in range(len(hidden)):
        waiting = length = 0
        at, end = offsets[text], offsets[text + 1]
        while True:
            while at < end and is_space(data[at]):
                at += 1
            start = at
            low, high = np.uint64(0), np.uint64(0)
            while at < end and not is_space(data[at]):
                if at - start < 8:
                    low = low << np.uint64(8) | np.uint64(data[at])
                else:
                    high = high << np.uint64(8) | np.uint64(data[at])
                at += 1
            size = at - start
            if size == 0 or (size == 4 and _begins(data, start, at, _END)):
                break
            if waiting + _MOST + (18 * longest + 1) > len(rows):
                counts[text] += _add(hidden[text], matrix, rows, waiting)
                waiting = 0
            place = np.int64(((low ^ high * np.uint64(0x9E3779B97F4A7C15)) * np.uint64(0xFF51AFD7ED558CCD)) >> np.uint64(64 - _PLACE_BITS))
            if spelled[place, 0] == low and spelled[place, 1] == high and known[place, 5] >= 0 and size <= 16:
                hashed = np.int64(known[place, 4]) & 0xFFFFFFFF
                for i in range(_MOST):  # all places, however many are filled: a loop of one length is faster
                    rows[waiting + i] = known[place, 6 + i]
                waiting += known[place, 5]
            elif _begins(data, start, at, _LABEL):
                hashed = np.int64(-1)
            else:
                hashed, before = _hash(data, start, at), waiting
                row = np.int64(interning.find(words, data, start, at))
                if row >= 0:
                    rows[waiting] = row
                    waiting += 1
                if longest > 0:
                    if size + 2 > len(padded):
                        padded = np.empty(2 * size, np.uint8)
                    padded[0], padded[size + 1] = 0x3C, 0x3E
                    for i in range(size):
                        padded[i + 1] = data[start + i]
                    for begin in range(0, size + 2, _STEP):
                        stop = min(begin + _STEP, size + 2)
                        if waiting + (stop - begin) * longest > len(rows):  # never so for a word to be remembered
                            counts[text] += _add(hidden[text], matrix, rows, waiting)
                            waiting = 0
                        first_ngram = words.count[0]
                        waiting = _spell(padded, begin, stop, size + 2, rows, waiting, kept, bits, first_ngram, shortest, longest, buckets)
                if size <= 16 and waiting - before <= _MOST:
                    spelled[place, 0], spelled[place, 1], known[place, 4], known[place, 5] = low, high, np.int32(hashed), waiting - before
                    for i in range(before, waiting):
                        known[place, 6 + i - before] = rows[i]
            if word_ngrams > 1 and hashed >= 0:
                if length + 1 == len(line):
                    line = np.concatenate((line, line))
                line[length] = hashed
                length += 1
        counts[text] += _add(hidden[text], matrix, rows, waiting)
        if end_row >= 0:
            rows[0] = end_row
            counts[text] += _add(hidden[text], matrix, rows, 1)
        if word_ngrams > 1:
            line[length] = end_hash
            counts[text] += _add_word_ngrams(hidden[text], matrix, line[: length + 1], kept, words.count[0], buckets, word_ngrams)
        if counts[text]:
            hidden[text] *= np.float32(1.0 / counts[text])
    return hidden, counts


@native
def _add(total, matrix, rows, count):  # type: ignore[no-untyped-def]
    if len(total) == 16:
        _add16(total, matrix, rows, count)
        return count
    blocks = len(total) >> 4
    for i in range(count):
        row = rows[i]
        for block in range(blocks):  # of a size that the compiler knows
            for j in range(16):
                total[16 * block + j] += matrix[row, 16 * block + j]
        for j in range(16 * blocks, len(total)):
            total[j] += matrix[row, j]
    return count


@native
def _add16(total, matrix, rows, count):  # type: ignore[no-untyped-def]
    """The same for rows of 16, as lid.176 has them: the sums stay in registers."""
    a, b, c, d, e, f, g, h = total[0], total[1], total[2], total[3], total[4], total[5], total[6], total[7]
    k, s, m, n, o, p, q, r = total[8], total[9], total[10], total[11], total[12], total[13], total[14], total[15]
    for i in range(count):
        row = matrix[rows[i]]
        a, b, c, d = a + row[0], b + row[1], c + row[2], d + row[3]
        e, f, g, h = e + row[4], f + row[5], g + row[6], h + row[7]
        k, s, m, n = k + row[8], s + row[9], m + row[10], n + row[11]
        o, p, q, r = o + row[12], p + row[13], q + row[14], r + row[15]
    total[0], total[1], total[2], total[3], total[4], total[5], total[6], total[7] = a, b, c, d, e, f, g, h
    total[8], total[9], total[10], total[11], total[12], total[13], total[14], total[15] = k, s, m, n, o, p, q, r


@native
def _begins(data, start, end, beginning):  # type: ignore[no-untyped-def]
    if end - start < len(beginning):
        return False
    for i in range(len(beginning)):  # noqa: SIM110
        if data[start + i] != beginning[i]:
            return False
    return True


@native
def _step(state, byte):  # type: ignore[no-untyped-def]
    """32-bit FNV-1a, except that bytes of 128 and more are negative numbers, as in the models that are published."""
    wide = np.uint64(byte) | (np.uint64(0xFFFFFF00) if byte >= 0x80 else np.uint64(0))
    return ((state ^ wide) * np.uint64(16777619)) & np.uint64(0xFFFFFFFF)


@native
def _hash(data, start, end):  # type: ignore[no-untyped-def]
    state = np.uint64(2166136261)
    for i in range(start, end):
        state = _step(state, data[i])
    return np.int64(state)


@native
def _spell(padded, begin, stop, size, rows, waiting, kept, bits, first_ngram, shortest, longest, buckets):  # type: ignore[no-untyped-def]
    """Note the rows of the character n-grams that begin at bytes begin … stop - 1 of a word between < and >."""
    # state % buckets by multiplication: the quotient so found is the right one or one too small.
    divisor, shift, noted = np.uint64(buckets), np.uint64(32), waiting
    while divisor >> (shift - np.uint64(31)):
        shift += np.uint64(1)
    inverse = (np.uint64(1) << shift) // divisor
    for first in range(begin, stop):
        if padded[first] & 0xC0 == 0x80:
            continue
        state, at, length = np.uint64(2166136261), first, 0
        while at < size and length < longest:
            state = _step(state, padded[at])
            at += 1
            while at < size and padded[at] & 0xC0 == 0x80:
                state = _step(state, padded[at])
                at += 1
            length += 1
            if length < shortest or (length == 1 and (first == 0 or at == size)):
                continue
            bucket = state - (state * inverse >> shift) * divisor
            if bucket >= divisor:
                bucket -= divisor
            # Noted in any case, and written over by the next one if it was pruned: a branch would be guessed wrong too often.
            rows[waiting] = np.int64(bucket)
            waiting += np.int64(bits[bucket >> np.uint64(3)] >> (bucket & np.uint64(7)) & np.uint64(1)) if len(kept) else 1
    for i in range(noted, waiting):
        rows[i] = first_ngram + (np.int64(kept[rows[i]]) if len(kept) else rows[i])
    return waiting


@native
def _add_word_ngrams(total, matrix, line, kept, first_ngram, buckets, word_ngrams):  # type: ignore[no-untyped-def]
    count = 0
    for i in range(len(line)):
        state = _signed(line[i])
        for j in range(i + 1, min(i + word_ngrams, len(line))):
            state = state * np.uint64(116049371) + _signed(line[j])
            row = np.int64(state % np.uint64(buckets))
            if len(kept):
                row = np.int64(kept[row])
            if row >= 0:
                for k in range(len(total)):
                    total[k] += matrix[first_ngram + row, k]
                count += 1
    return count


@native
def _signed(hashed):  # type: ignore[no-untyped-def]
    """A 32-bit hash as addWordNgrams has it: a signed number, widened to 64 bits."""
    return np.uint64(hashed) | (np.uint64(0xFFFFFFFF00000000) if hashed >= 0x80000000 else np.uint64(0))


@native
def _dot(hidden, text, output, scales, row):  # type: ignore[no-untyped-def]
    total = np.float32(0)
    for i in range(hidden.shape[1]):
        total += output[row, i] * hidden[text, i]
    return total * scales[row]


@native
def _log(share):  # type: ignore[no-untyped-def]
    return np.float32(np.log(np.float64(share) + 1e-5))


@numba.njit(cache=True, nogil=True)
def _hierarchical(hidden, counts, output, scales, tree):  # type: ignore[no-untyped-def]
    """A label's probability is the product of the turns on the way to it; what falls below 0.00001 is not followed."""
    labels = (len(tree) + 1) // 2
    result = np.zeros((len(hidden), labels), np.float32)
    scores = np.empty(len(tree), np.float32)
    least = _log(np.float32(0))
    for text in range(len(hidden)):
        if not counts[text]:
            continue
        scores[len(tree) - 1] = 0
        for node in range(len(tree) - 1, -1, -1):
            if scores[node] < least:
                scores[node] = -np.inf
            if node < labels:
                if scores[node] > -np.inf:
                    result[text, node] = np.exp(scores[node])
            elif scores[node] == -np.inf:  # as most are: what is below is not likelier
                scores[tree[node, 0]] = scores[tree[node, 1]] = -np.inf
            else:
                odds = np.float32(1) + np.exp(-_dot(hidden, text, output, scales, node - labels))
                right = np.float32(1.0 / np.float64(odds))
                scores[tree[node, 0]] = scores[node] + _log(np.float32(1.0 - np.float64(right)))
                scores[tree[node, 1]] = scores[node] + _log(right)
    return result


@numba.njit(cache=True, nogil=True)
def _flat(hidden, counts, output, scales, softmax):  # type: ignore[no-untyped-def]
    """Softmax over the labels, or a sigmoid of each, which fastText looks up in a table of 512 steps from -8 to 8."""
    result = np.zeros((len(hidden), len(output)), np.float32)
    for text in range(len(hidden)):
        if not counts[text]:
            continue
        scores = result[text]
        for label in range(len(output)):
            scores[label] = _dot(hidden, text, output, scales, label)
        if softmax:
            most, total = scores.max(), np.float32(0)
            for label in range(len(output)):
                scores[label] = np.float32(np.exp(np.float64(scores[label] - most)))
                total += scores[label]
        for label in range(len(output)):
            share = scores[label] / total if softmax else _sigmoid(scores[label])
            scores[label] = np.exp(_log(share))
    return result


@numba.njit
def _sigmoid(value):  # type: ignore[no-untyped-def]
    if value < -8:
        return np.float32(0)
    if value > 8:
        return np.float32(1)
    step = np.int64((value + np.float32(8)) * np.float32(512) / np.float32(8) / np.float32(2))
    rounded = np.float32(step * 16) / np.float32(512) - np.float32(8)
    return np.float32(1.0 / (1.0 + np.float64(np.exp(-rounded))))
