"""The file of a fastText model, .bin or .ftz, as arrays.

In:   a file that `fasttext supervised` or `quantize` wrote, version 11 or 12 of the format.
Out:  its dictionary, its matrices, its labels. A matrix that is not quantized is a view of the mapped file: processes share it,
      and only rows that are asked for are read. A quantized one is written out: 3 MB for lid.176.ftz.
Cost: 1 µs per word of the dictionary.
Not:  models without labels; the settings that only training needs.

A model may be anyone's, and kernels find rows by its numbers without looking: whatever they go by is checked here, and nothing
is larger in memory than 150 times the file, or 300 MB.

The layout and the decoding are those of fastText 0.9 (args.cc, dictionary.cc, densematrix.cc, quantmatrix.cc, productquantizer.cc).
"""

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

import numba
import numpy as np
import numpy.typing as npt

from pipeline.errors import PipelineError
from pipeline.text import interning

LABEL = "__label__"
HIERARCHICAL, NEGATIVE, SOFTMAX, ONE_VS_ALL = 1, 2, 3, 4
_MAGIC, _SUPERVISED = 793712314, 3
_MOST_NGRAM, _MOST_BUCKETS, _MOST_STEP = 100, 1 << 26, 32  # far more than any published model has: 6, 2 million, 2
_MOST_SEEN = 10**15  # of all labels: what fastText puts for a node that is not built yet


@dataclass(frozen=True)
class ModelFile:
    """words: the dictionary's words by number. counts: how often each label was seen in training.

    rows [words + n-grams, dimension]: the words' first. kept: an n-gram's bucket → its row after the words', -1 if it was pruned;
    empty if none was. output: a row per label, or with HIERARCHICAL loss per inner node; what a row gives is multiplied by its
    entry of scales. shortest, longest: the n-grams of characters, in characters. loss: one of the four above.
    """

    words: interning.Table
    labels: tuple[str, ...]
    counts: tuple[int, ...]
    rows: npt.NDArray[np.float32]
    kept: npt.NDArray[np.int32]
    output: npt.NDArray[np.float32]
    scales: npt.NDArray[np.float32]
    shortest: int
    longest: int
    buckets: int
    word_ngrams: int
    loss: int


def read(path: Path) -> ModelFile:
    """Raises PipelineError if the file is no supervised fastText model, or not all of one."""
    try:
        with open(path, "rb") as stream:
            data = np.frombuffer(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ), dtype=np.uint8)
        found = _parsed(_Reader(data))
        _check(found)
        return found
    except (OSError, ValueError, UnicodeDecodeError) as error:
        raise PipelineError(f"{path} is no supervised fastText model, or damaged: {error}; train or download it again") from error


class _Reader:
    """Takes values off the file, one after another."""

    def __init__(self, data: npt.NDArray[np.uint8]) -> None:
        self.data, self.at = data, 0

    def values(self, kinds: str) -> tuple:
        return struct.unpack("<" + kinds, self.array(np.uint8, struct.calcsize("<" + kinds)).tobytes())

    def array(self, dtype: type, *shape: int) -> npt.NDArray:
        end = self.at + int(np.prod(shape, dtype=object)) * np.dtype(dtype).itemsize
        if min(shape) < 0 or end > len(self.data):
            raise ValueError(f"what begins at byte {self.at} should end at byte {end}, and the file has {len(self.data)}")
        found: npt.NDArray = self.data[self.at : end].view(dtype).reshape(shape)
        self.at = end
        return found


def _parsed(file: _Reader) -> ModelFile:
    magic, version = file.values("ii")
    if magic != _MAGIC or version not in (11, 12):
        raise ValueError(f"it begins with {magic:#x} and version {version}")
    _, _, _, _, _, word_ngrams, loss, model, buckets, shortest, longest, _, _ = file.values("12id")
    if model != _SUPERVISED:
        raise ValueError("it has word vectors and no labels")
    entries, words, _, _, pruned = file.values("iiiqq")
    if not 0 <= words <= entries <= len(file.data) // 10 or not 0 <= buckets <= _MOST_BUCKETS:  # an entry has 10 bytes or more
        raise ValueError(f"{words} words of {entries} entries, {buckets} buckets")
    bounds, counts, file.at = _dictionary(file.data, file.at, entries)
    if file.at < 0:
        raise ValueError(f"the file ends inside a dictionary of {entries} words")
    table = interning.with_room(interning.new_table(), words, int((bounds[:words, 1] - bounds[:words, 0]).sum()))
    _intern(table, file.data, bounds[:words])
    labels = [file.data[start:stop].tobytes().decode().removeprefix(LABEL) for start, stop in bounds[words:].tolist()]
    kept = np.full(buckets if pruned >= 0 else 0, -1, dtype=np.int32)
    if pruned > 0:
        pairs = file.array(np.int32, pruned, 2)
        if pairs.min() < 0 or pairs[:, 0].max() >= buckets or pairs[:, 1].max() >= pruned:
            raise ValueError("n-grams without a bucket or a row")
        kept[pairs[:, 0]] = pairs[:, 1]
    (quantized,) = file.values("?")
    rows, lengths = _quantized(file) if quantized else (_dense(file), None)
    if lengths is not None:
        rows *= lengths
    rows.flags.writeable = False  # as a view of the file is: one type for the kernels
    (output_quantized,) = file.values("?")
    output, scales = _quantized(file) if quantized and output_quantized else (_dense(file), None)
    if not rows.size or not output.size:  # of no columns there may be any number of rows
        raise ValueError(f"matrices of {rows.shape} and {output.shape}")
    if version == 11:  # loadModel of fasttext.cc: such models had no character n-grams
        longest = 0
    scales = np.ones(len(output), np.float32) if scales is None else scales[:, 0]
    return ModelFile(
        table, tuple(labels), tuple(counts[words:].tolist()), rows, kept, np.array(output), np.ascontiguousarray(scales),
        shortest, longest, buckets, word_ngrams, loss,
    )  # fmt: skip


def _check(model: ModelFile) -> None:
    """Raises ValueError unless every row that a kernel may ask for is there."""
    ngrams = model.longest > 0 or model.word_ngrams > 1
    most = model.kept.max(initial=-1) + 1 if len(model.kept) else model.buckets
    if ngrams and not (model.buckets > 0 and int(model.words.count[0]) + most <= len(model.rows)):
        raise ValueError(f"{len(model.rows)} rows for {model.words.count[0]} words and {most} n-grams")
    if int(model.words.count[0]) > len(model.rows):
        raise ValueError(f"{len(model.rows)} rows for {model.words.count[0]} words")
    if not (0 < len(model.labels) == len(model.output) and 0 < model.rows.shape[1] == model.output.shape[1]):
        raise ValueError(f"{len(model.labels)} labels, rows {model.rows.shape}, output {model.output.shape}")
    if model.longest > _MOST_NGRAM or not 0 < model.word_ngrams <= _MOST_NGRAM:
        raise ValueError(f"n-grams of {model.longest} characters, {model.word_ngrams} words")
    if model.loss not in (HIERARCHICAL, NEGATIVE, SOFTMAX, ONE_VS_ALL) or min(model.counts) < 0 or sum(model.counts) >= _MOST_SEEN:
        raise ValueError(f"loss {model.loss}, labels seen {model.counts[:5]} times")


def _dense(file: _Reader) -> npt.NDArray[np.float32]:
    return file.array(np.float32, *file.values("qq"))


def _quantized(file: _Reader) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None]:
    """The rows and, where they were stored as directions, the length [rows, 1] of each."""
    directions, height, _, size = file.values("?qqi")
    rows = _decoded(file, file.array(np.uint8, height, size // max(height, 1)))
    return rows, _decoded(file, file.array(np.uint8, height, 1)) if directions else None


def _decoded(file: _Reader, codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Each code is one of 256 centroids of its part; the last part may be narrower than the others."""
    width, parts, step, last = file.values("4i")
    if parts != codes.shape[1] or not 0 < last <= step <= _MOST_STEP or width != step * (parts - 1) + last:
        raise ValueError(f"rows of {width} in {parts} parts of {step}, the last of {last}")
    centroids = file.array(np.float32, width * 256)
    rows = np.empty((len(codes), width), dtype=np.float32)
    for part in range(parts):
        begin, wide = part * step, last if part == parts - 1 else step
        rows[:, begin : begin + wide] = centroids[256 * begin : 256 * (begin + wide)].reshape(256, wide)[codes[:, part]]
    return rows


@numba.njit(cache=True)
def _dictionary(data, at, count):  # type: ignore[no-untyped-def]
    """Of the entries from byte `at`: where each word begins and ends, how often it was seen, and the byte after them or -1."""
    bounds, counts = np.zeros((count, 2), np.int64), np.zeros(count, np.int64)
    for entry in range(count):
        bounds[entry, 0] = at
        while at < len(data) and data[at] != 0:
            at += 1
        bounds[entry, 1] = at
        if at + 10 > len(data):
            return bounds, counts, np.int64(-1)
        for byte in range(8):
            counts[entry] |= np.int64(data[at + 1 + byte]) << (8 * byte)
        at += 10  # the zero that ends the word, its count, a byte that says whether it is a label
    return bounds, counts, at


@numba.njit(cache=True)
def _intern(table, data, bounds):  # type: ignore[no-untyped-def]
    for start, stop in bounds:
        interning.intern(table, data, start, stop)
