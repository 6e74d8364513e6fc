"""A seeded pseudo-random permutation of [0, n), computed where it is asked for.

In: a seed, a label and n up to 2^62. Out: the value at any index, or the index of any value. Nothing is stored, so
instance 3,000,000,000 of a shuffled epoch costs what instance 3 does: about 0.2 µs in a large array, 11 µs for a single
Python int. It shuffles; it does not encrypt.

The construction is a Feistel network over pairs of residues ("FE2": Black and Rogaway, Ciphers with arbitrary finite
domains, CT-RSA 2002) with cycle-walking. In full, all in integers, for a reader in another language:

    a = ceil(sqrt(n)), b = ceil(n / a)            so n <= a * b < n + a
    key[r] = the first 8 bytes, little-endian, of sha256("tokenmill-feistel-1/<seed>/<label>/<r>"), in UTF-8 with
             seed and r in decimal, r = 0 … 19
    mix(z) = z ^= z >> 30; z *= 0xBF58476D1CE4E5B9; z ^= z >> 27; z *= 0x94D049BB133111EB; z ^= z >> 31
             on unsigned 64-bit numbers that wrap around (the finalizer of SplitMix64)
    round(x): x = left + a * right with 0 <= left < a and 0 <= right < b
             for even r: left  = (left  + (mix(right ^ key[r]) >> 1)) mod a
             for odd r:  right = (right + (mix(left  ^ key[r]) >> 1)) mod b
    P(x) = round(x), repeated on its own result for as long as that is not below n

The shift leaves 63 bits, so that the sum cannot wrap. At most a - 1 of a * b values lie outside [0, n): for large n
the walk is almost never longer than one step. Twenty rounds: four make a pseudo-random permutation of a large domain
(Luby and Rackoff 1988) and FF1, the standard for arbitrary domains, takes ten; the rest is for tiny ones, in which all
n! orders should come up equally often. Over 300,000 seeds a chi-square test still tells n = 5 and n = 6 from uniform
after sixteen rounds (3.8 and 5.3 standard deviations) and not after twenty (-0.9 and 0.0).
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from math import isqrt

import numpy as np
import numpy.typing as npt

ALGORITHM = "tokenmill-feistel-1"
ROUNDS = 20
LARGEST = 1 << 62
BLOCK = 8192  # indices worked on at a time: their few temporaries stay in the processor's cache
FEW = 12  # as many are quicker one by one: NumPy's overhead is 130 µs, however few there are

_MASK = (1 << 64) - 1
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


@dataclass(frozen=True)
class Permutation:
    """The permutation of [0, n) that belongs to `seed` and `label`; equal arguments give equal permutations, for ever.

    `label` says what is permuted (`epoch/3`): different labels under one seed give unrelated permutations.
    Raises ValueError unless 1 <= n <= 2^62.
    """

    seed: int
    label: str
    n: int

    def __post_init__(self) -> None:
        if not 1 <= self.n <= LARGEST:
            raise ValueError(f"a permutation of {self.n} items: there must be 1 to 2^62")

    def __call__(self, index: int) -> int:
        """The value at `index`. Raises IndexError outside [0, n)."""
        self._check(index)
        a, b = self._sides
        while True:
            right, left = divmod(index, a)
            for even, odd in self._key_pairs:
                left = (left + _round(right ^ even)) % a
                right = (right + _round(left ^ odd)) % b
            index = left + a * right
            if index < self.n:
                return index

    def inverse(self, value: int) -> int:
        """The index at which `value` stands. Raises IndexError outside [0, n)."""
        self._check(value)
        a, b = self._sides
        while True:
            right, left = divmod(value, a)
            for even, odd in reversed(self._key_pairs):
                right = (right - _round(left ^ odd)) % b
                left = (left - _round(right ^ even)) % a
            value = left + a * right
            if value < self.n:
                return value

    def array(self, indices: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """The values at `indices` (integers, any shape), as int64 of the same shape. Raises IndexError outside [0, n)."""
        asked = np.asarray(indices)
        if asked.size and not (int(asked.min()) >= 0 and int(asked.max()) < self.n):
            raise IndexError(f"indices {asked.min()} to {asked.max()} of a permutation of {self.n} items")
        if asked.size < FEW:
            return np.array([self(index) for index in asked.reshape(-1).tolist()], dtype=np.int64).reshape(asked.shape)
        flat = asked.astype(np.uint64).reshape(-1)
        for start in range(0, len(flat), BLOCK):
            block = self._walk_once(flat[start : start + BLOCK])
            while len(outside := np.flatnonzero(block >= self.n)):
                block[outside] = self._walk_once(block[outside])
            flat[start : start + BLOCK] = block
        return flat.astype(np.int64).reshape(asked.shape)

    def _walk_once(self, x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        a, b = (np.uint64(side) for side in self._sides)
        right = x // a
        left = x - right * a
        for even, odd in self._key_pairs:
            left = (left + _rounds(right ^ np.uint64(even))) % a
            right = (right + _rounds(left ^ np.uint64(odd))) % b
        return left + a * right

    @cached_property
    def _sides(self) -> tuple[int, int]:
        a = isqrt(self.n - 1) + 1
        return a, -(-self.n // a)

    @cached_property
    def _key_pairs(self) -> tuple[tuple[int, int], ...]:
        """The keys of rounds 0 and 1, of 2 and 3, …"""
        texts = (f"{ALGORITHM}/{self.seed}/{self.label}/{number}".encode() for number in range(ROUNDS))
        keys = [int.from_bytes(hashlib.sha256(text).digest()[:8], "little") for text in texts]
        return tuple(zip(keys[::2], keys[1::2], strict=True))

    def _check(self, index: int) -> None:
        if not 0 <= index < self.n:
            raise IndexError(f"index {index} of a permutation of {self.n} items")


def _round(z: int) -> int:
    z = (z ^ (z >> 30)) * _FIRST & _MASK
    z = (z ^ (z >> 27)) * _SECOND & _MASK
    return (z ^ (z >> 31)) >> 1


def _rounds(z: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    z ^= z >> np.uint64(30)
    z *= np.uint64(_FIRST)
    z ^= z >> np.uint64(27)
    z *= np.uint64(_SECOND)
    z ^= z >> np.uint64(31)
    z >>= np.uint64(1)
    return z
