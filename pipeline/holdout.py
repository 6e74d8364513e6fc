"""The validation set: documents held out of every mix, chosen by a hash of their id alone.

In:   the ids of a source's documents that its filters leave, part by part, in any order.
Out:  one number per source, its threshold; a document is held out if the hash of its id is below it.
Cost: 0.3 µs per id and a few numbers of memory.
Not:  it does not look at text or at other sources; an id that two sources share has the same fate in both, as far as
      their shares agree.

Where a source is large its threshold is its share of all hashes, so that membership follows from the id and the share
alone: a document added later moves no other one. Only where the share gives too few documents does the threshold rise,
just so far that the wanted number is below it.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

SEED = 0x76616C6964617465  # "validate" in ASCII; changing it changes every validation set
_LARGEST = 2**64 - 1


def id_hash(ids: Iterable[str] | pa.Array | pa.ChunkedArray) -> npt.NDArray[np.uint64]:
    """[n] uint64: xxh64 with SEED of each id's UTF-8 bytes."""
    strings: Iterable[str] = ids.to_pylist() if isinstance(ids, (pa.Array, pa.ChunkedArray)) else ids
    return np.array([xxhash.xxh64_intdigest(string.encode(), SEED) for string in strings], dtype=np.uint64)


class Threshold:
    """Finds a source's threshold from the hashes of its documents, seen in any order and any portions.

    share: of documents to hold out, 0 … 1. documents: hold out at least so many, or all if there are fewer; a share of
    0 with documents = 0 holds out none. Documents of one id have one hash and stay together.
    """

    def __init__(self, share: float, documents: int) -> None:
        if not 0 <= share <= 1 or documents < 0:
            raise ValueError(f"a validation set of share {share} and {documents} documents: 0 … 1 and 0 or more are possible")
        # 2**64 does not fit a uint64; the one id in 2**64 that this leaves out is no loss.
        self._by_share = min(int(share * 2**64), _LARGEST)
        self._documents = documents
        self._smallest = np.empty(0, dtype=np.uint64)

    def add(self, hashes: npt.NDArray[np.uint64]) -> None:
        """Take in more documents; only the `documents` smallest hashes so far are remembered."""
        if self._documents:
            self._smallest = np.sort(np.concatenate([self._smallest, hashes]))[: self._documents]

    def value(self) -> int:
        """max(floor(share · 2⁶⁴), the documents-th smallest hash + 1), at most 2⁶⁴ - 1."""
        enough = int(self._smallest[-1]) + 1 if len(self._smallest) else 0
        return min(max(self._by_share, enough), _LARGEST)


def held_out(hashes: npt.NDArray[np.uint64], threshold: int) -> npt.NDArray[np.bool_]:
    """[n] bool: which documents, given by `id_hash`, are in the validation set."""
    return hashes < np.uint64(threshold)
