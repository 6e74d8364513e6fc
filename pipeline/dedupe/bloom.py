"""A Bloom filter: has this key been seen before? In bounded memory, with a stated chance to say yes wrongly and none to say no.

In:   64-bit keys, one at a time from compiled code (`contains`, `insert`) or as arrays; interning.hash_bytes makes them of bytes.
Out:  whether a key may have been inserted; how full the filter is and how often it errs, measured.
Cost: 1.44 log2(1/rate) bits for each key it is made for (29 at 10⁻⁶, 10 at 0.01), allocated at once. A key costs 50 to 300 ns,
      the more the less of the filter the processor's caches hold.
Not:  keys cannot be taken out, and there is one writer: kernels that insert run in one thread. Two things whose 64-bit keys are
      equal count as equal, so the rate has a floor of keys/2⁶⁴: 3 × 10⁻⁹ with 60 billion keys.

Seeds are fixed: the same keys in the same order give the same answers, anywhere.
"""

import math
from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt

from pipeline.text.interning import mix

Words = npt.NDArray[np.uint64]

PROBES = 1_000_000
_FIRST, _SECOND, _PROBE = (np.uint64(seed) for seed in (0x9E3779B97F4A7C15, 0xD1B54A32D192ED03, 0x8CB92BA72F3D8DD7))
_ONE, _LOW = np.uint64(1), np.uint64(0xFFFFFFFF)


@dataclass
class Bloom:
    """words: the filter's bits, uint64. hashes: bits per key. keys, rate: what it was made for. inserted: new keys so far."""

    words: Words
    hashes: int
    keys: int
    rate: float
    inserted: int = 0

    @classmethod
    def sized(cls, keys: int, rate: float) -> "Bloom":
        """An empty filter that will err on a share `rate` of the keys not inserted, once `keys` different ones are.

        Each key sets k = log2(1/rate) bits, rounded, of keys · k / -ln(1 - rate^(1/k)) (Broder and Mitzenmacher, "Network
        Applications of Bloom Filters", 2004, section 2.1). Raises ValueError unless keys ≥ 0 and 0 < rate < 1.
        """
        if keys < 0 or not 0 < rate < 1:
            raise ValueError(f"a Bloom filter for {keys} keys at a false-positive rate of {rate}: needed are keys ≥ 0 and 0 < rate < 1")
        hashes = max(1, round(math.log2(1 / rate)))
        bits = max(keys, 1) * hashes / -math.log1p(-(rate ** (1 / hashes)))
        return cls(np.zeros(math.ceil(bits / 64), np.uint64), hashes, keys, rate)

    def add(self, keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
        """Insert `keys` [n] in their order; for each [n] whether it seemed to be there already."""
        seen = _add(self.words, self.hashes, keys)
        self.inserted += int(np.count_nonzero(~seen))
        return seen

    def report(self) -> dict[str, int | float]:
        """What the filter was made for and what became of it.

        occupancy: share of its bits that are set. expected_false_positive_rate: occupancy to the power of `hashes`.
        measured_false_positive_rate: over `PROBES` keys that were never inserted, so a rate far below 1/PROBES shows as 0.
        """
        bits = 64 * len(self.words)
        occupancy = int(np.bitwise_count(self.words).sum(dtype=np.int64)) / bits
        return {
            "keys": self.keys,
            "inserted": self.inserted,
            "bits": bits,
            "hashes": self.hashes,
            "occupancy": occupancy,
            "wanted_false_positive_rate": self.rate,
            "expected_false_positive_rate": occupancy**self.hashes,
            "measured_false_positive_rate": _false_positives(self.words, self.hashes, PROBES) / PROBES,
        }


# Where a key's bits are: double hashing, its step growing by i at the i-th one, so that two keys whose paths meet part again
# (Dillinger and Manolios, "Bloom Filters in Probabilistic Verification", 2004, "enhanced double hashing").


@numba.njit
def contains(words, hashes, key):  # type: ignore[no-untyped-def]
    """Whether all bits of the key, uint64, are set."""
    bits, at, step = _begin(words, key)
    for i in range(hashes):
        if not words[at >> np.uint64(6)] >> (at & np.uint64(63)) & _ONE:
            return False
        at, step = _wrapped(at + step, bits), _wrapped(step + np.uint64(i + 1), bits)
    return True


@numba.njit
def insert(words, hashes, key):  # type: ignore[no-untyped-def]
    """Set all bits of the key, uint64; whether they were set before."""
    bits, at, step = _begin(words, key)
    seen = _ONE
    for i in range(hashes):
        word = words[at >> np.uint64(6)]
        seen &= word >> (at & np.uint64(63))
        words[at >> np.uint64(6)] = word | _ONE << (at & np.uint64(63))
        at, step = _wrapped(at + step, bits), _wrapped(step + np.uint64(i + 1), bits)
    return seen == _ONE


@numba.njit
def _begin(words, key):  # type: ignore[no-untyped-def]
    bits = np.uint64(len(words)) << np.uint64(6)
    return bits, _scaled(mix(key ^ _FIRST), bits), _scaled(mix(key ^ _SECOND), bits)


@numba.njit
def _wrapped(at, bits):  # type: ignore[no-untyped-def]
    return at - bits if at >= bits else at


@numba.njit
def _scaled(key, bits):  # type: ignore[no-untyped-def]
    """key · bits / 2⁶⁴, so 0 … bits - 1 and as even as the keys: the upper half of a product that is put together from four."""
    upper, lower = key >> np.uint64(32), key & _LOW
    above, below = bits >> np.uint64(32), bits & _LOW
    middle = upper * below + (lower * below >> np.uint64(32))
    other = lower * above + (middle & _LOW)
    return upper * above + (middle >> np.uint64(32)) + (other >> np.uint64(32))


@numba.njit(cache=True, nogil=True)
def _add(words, hashes, keys):  # type: ignore[no-untyped-def]
    seen = np.empty(len(keys), np.bool_)
    for i in range(len(keys)):
        seen[i] = insert(words, hashes, keys[i])
    return seen


@numba.njit(cache=True, nogil=True)
def _false_positives(words, hashes, probes):  # type: ignore[no-untyped-def]
    found = 0
    for i in range(probes):
        found += contains(words, hashes, mix(np.uint64(i) * _PROBE ^ _SECOND))
    return found
