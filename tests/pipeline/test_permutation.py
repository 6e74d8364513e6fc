"""The permutation is one, is even-handed, and never changes."""

import hashlib
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.permutation import BLOCK, FEW, LARGEST, Permutation

SIZES = st.integers(1, LARGEST)


def by_the_specification(seed: int, label: str, n: int, x: int) -> int:
    """The module's docstring, written out once more: no state, no masks, no vectors."""
    a = math.isqrt(n)
    a += a * a < n
    b = (n + a - 1) // a
    keys = [int.from_bytes(hashlib.sha256(f"tokenmill-feistel-1/{seed}/{label}/{r}".encode()).digest()[:8], "little") for r in range(20)]

    def mix(z: int) -> int:
        z ^= z >> 30
        z = z * 0xBF58476D1CE4E5B9 % 2**64
        z ^= z >> 27
        z = z * 0x94D049BB133111EB % 2**64
        return z ^ (z >> 31)

    while True:
        left, right = x % a, x // a
        for r, key in enumerate(keys):
            if r % 2 == 0:
                left = (left + mix(right ^ key) // 2) % a
            else:
                right = (right + mix(left ^ key) // 2) % b
        x = left + a * right
        if x < n:
            return x


def chi_square(counts: np.ndarray, expected: float) -> float:
    """How far counts lie from what is expected, in standard deviations of the chi-square distribution."""
    freedom = counts.size - 1
    return float((((counts - expected) ** 2 / expected).sum() - freedom) / math.sqrt(2 * freedom))


def test_golden_values_that_no_release_may_change() -> None:
    assert [Permutation(6198, "epoch/0", 10)(i) for i in range(10)] == [4, 6, 7, 3, 8, 2, 1, 5, 9, 0]
    billion = Permutation(6198, "epoch/0", 1_253_000_000)
    assert billion.array([0, 1, 2, 10**9, 1_252_999_999]).tolist() == [917938321, 392858653, 581634269, 55617731, 990403901]
    largest = Permutation(42, "source/wiki/copy/1", 2**62)
    assert [largest(i) for i in (0, 2**61, 2**62 - 1)] == [2738282593250780132, 341860590587008369, 3626618762873718732]


@given(st.integers(0, 2**64), SIZES, st.data())
def test_values_are_those_of_the_specification(seed: int, n: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, n - 1))
    assert Permutation(seed, "epoch/3", n)(index) == by_the_specification(seed, "epoch/3", n, index)


def test_every_small_permutation_is_one() -> None:
    for n in [*range(1, 130), 1000, 1023, 1024, 1025, 4099]:
        values = Permutation(5, "x", n).array(np.arange(n))
        assert np.array_equal(np.sort(values), np.arange(n)), n


@given(SIZES, st.data())
def test_the_inverse_leads_back(n: int, data: st.DataObject) -> None:
    permutation = Permutation(1, "x", n)
    index = data.draw(st.integers(0, n - 1))
    assert permutation.inverse(permutation(index)) == index
    assert permutation(permutation.inverse(index)) == index


@given(SIZES, st.data())
def test_arrays_hold_what_single_indices_give(n: int, data: st.DataObject) -> None:
    permutation = Permutation(2, "x", n)
    indices = data.draw(st.lists(st.integers(0, n - 1), min_size=0, max_size=3 * FEW))
    found = permutation.array(np.array(indices, dtype=np.int64))
    assert found.dtype == np.int64
    assert found.tolist() == [permutation(index) for index in indices]


def test_an_array_may_have_any_shape_and_cross_blocks() -> None:
    n = 3 * BLOCK + 7
    permutation = Permutation(3, "x", n)
    flat = permutation.array(np.arange(n, dtype=np.uint32))
    assert flat[:: BLOCK - 1].tolist() == [permutation(i) for i in range(0, n, BLOCK - 1)]
    assert np.array_equal(permutation.array(np.arange(12).reshape(3, 4)), flat[:12].reshape(3, 4))


def test_the_callers_indices_are_left_alone() -> None:
    indices = np.arange(100, dtype=np.uint64)
    Permutation(1, "x", 1000).array(indices)
    assert np.array_equal(indices, np.arange(100))


@pytest.mark.parametrize("index", [-1, 10, 2**63])
def test_an_index_outside_is_refused(index: int) -> None:
    permutation = Permutation(1, "x", 10)
    for use in (permutation, permutation.inverse, lambda i: permutation.array([i] * 50), lambda i: permutation.array([0, i])):
        with pytest.raises(IndexError, match="of a permutation of 10 items"):
            use(index)


@pytest.mark.parametrize("n", [0, -3, LARGEST + 1])
def test_a_size_outside_is_refused(n: int) -> None:
    with pytest.raises(ValueError, match=r"there must be 1 to 2\^62"):
        Permutation(1, "x", n)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_all_orders_of_few_items_are_equally_likely_over_seeds(n: int) -> None:
    seeds = 2400
    seen = Counter(tuple(Permutation(seed, "x", n)(i) for i in range(n)) for seed in range(seeds))
    assert len(seen) == math.factorial(n)
    assert abs(chi_square(np.array(list(seen.values())), seeds / math.factorial(n))) < 4


def test_every_index_goes_everywhere_over_seeds() -> None:
    n, seeds = 40, 1600
    values = np.stack([Permutation(seed, "x", n).array(np.arange(n)) for seed in range(seeds)])
    counts = np.stack([np.bincount(values[:, index], minlength=n) for index in range(n)])
    # Rows and columns both sum to `seeds`: (n - 1)^2 degrees of freedom instead of n^2 - 1.
    freedom = (n - 1) ** 2
    assert abs(((counts - seeds / n) ** 2 / (seeds / n)).sum() - freedom) / math.sqrt(2 * freedom) < 4


@pytest.mark.parametrize("n", [1_000_003, 1 << 40, LARGEST])
def test_a_stretch_of_indices_is_spread_evenly(n: int) -> None:
    values = Permutation(9, "x", n).array(np.arange(100_000))
    cells = (values.astype(object) * 500 // n).astype(np.int64) if n > 1 << 50 else values * 500 // n
    assert chi_square(np.bincount(cells, minlength=500), 200) < 4


@pytest.mark.parametrize("n", [1_000_003, 1 << 40])
def test_what_follows_a_value_does_not_depend_on_it(n: int) -> None:
    values = Permutation(11, "x", n).array(np.arange(200_001)) * 20 // n
    pairs = np.bincount(values[:-1] * 20 + values[1:], minlength=400)
    assert abs(chi_square(pairs, 500)) < 4


def test_neighbours_do_not_stay_neighbours() -> None:
    n = 100_000
    values = Permutation(4, "x", n).array(np.arange(n))
    kept = int((np.abs(np.diff(values)) == 1).sum())
    assert kept < 15  # 2 are expected, Poisson


@pytest.mark.parametrize(("first", "second"), [((1, "epoch/0"), (1, "epoch/1")), ((1, "epoch/0"), (2, "epoch/0"))])
def test_epochs_and_seeds_are_unrelated(first: tuple[int, str], second: tuple[int, str]) -> None:
    n = 200_000
    a, b = (Permutation(*key, n).array(np.arange(n)) for key in (first, second))
    assert int((a == b).sum()) < 12  # 1 is expected, Poisson
    joint = np.bincount((a * 20 // n) * 20 + b * 20 // n, minlength=400)
    assert abs(chi_square(joint, n / 400)) < 4
    assert abs(np.corrcoef(a, b)[0, 1]) < 4 / math.sqrt(n)
