"""The Bloom filter: it forgets nothing, errs as often as it says, and is the same everywhere."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.dedupe.bloom import PROBES, Bloom

keys_of = st.lists(st.integers(0, 2**64 - 1), max_size=50).map(lambda keys: np.array(keys, np.uint64))


def some_keys(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 2**64, count, dtype=np.uint64)


@settings(deadline=None)  # the first call compiles
@given(keys_of, keys_of)
@pytest.mark.slow
def test_what_was_inserted_is_found_and_with_so_few_keys_nothing_else(first: np.ndarray, second: np.ndarray) -> None:
    bloom = Bloom.sized(100, 1e-9)
    seen: set[int] = set()
    for keys in (first, second):
        expected = []
        for key in keys.tolist():
            expected.append(key in seen)
            seen.add(key)
        assert bloom.add(keys).tolist() == expected
    assert bloom.inserted == len(seen)


@pytest.mark.parametrize(("keys", "rate"), [(50_000, 0.3), (50_000, 0.01), (20_000, 0.001), (300, 0.05)])
def test_the_false_positive_rate_is_the_one_asked_for(keys: int, rate: float) -> None:
    bloom = Bloom.sized(keys, rate)
    bloom.add(some_keys(keys))
    report = bloom.report()
    assert bloom.add(some_keys(keys)).all()
    noise = 4 * (rate / PROBES) ** 0.5  # four standard deviations of the measurement
    assert rate * 0.7 < report["measured_false_positive_rate"] < rate * 1.1 + noise
    assert report["measured_false_positive_rate"] == pytest.approx(report["expected_false_positive_rate"], rel=0.1, abs=noise)
    assert 0.4 < report["occupancy"] < 0.6


def test_a_small_rate_costs_more_bits_and_errs_less() -> None:
    bloom = Bloom.sized(10_000, 1e-9)
    bloom.add(some_keys(10_000))
    report = bloom.report()
    assert (report["keys"], report["inserted"], report["hashes"], report["wanted_false_positive_rate"]) == (10_000, 10_000, 30, 1e-9)
    assert report["bits"] / 10_000 == pytest.approx(1.44 * 29.9, rel=0.01)  # 1.44 log2(1/rate)
    assert report["measured_false_positive_rate"] == 0
    assert 0.3e-9 < report["expected_false_positive_rate"] < 1.1e-9


def test_an_empty_filter_has_room_for_nothing_and_finds_nothing() -> None:
    bloom = Bloom.sized(0, 0.01)
    report = bloom.report()
    assert (report["keys"], report["inserted"], report["bits"], report["occupancy"]) == (0, 0, 64, 0)
    assert report["measured_false_positive_rate"] == 0


def mixed(key: int) -> int:
    for multiplier in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        key = (key ^ key >> 33) * multiplier % 2**64
    return key ^ key >> 33


@pytest.mark.parametrize("size", [4, 1000, 12345])
def test_bits_are_where_enhanced_double_hashing_has_them(size: int) -> None:
    """In Python's unbounded integers. Filters of other machines and other days decide alike only while this holds."""
    bloom = Bloom.sized(size, 0.001)
    keys = [0, 1, 2**63, 2**64 - 1, *some_keys(4).tolist()]
    bloom.add(np.array(keys, np.uint64))
    bits = 64 * len(bloom.words)
    expected = 0
    for key in keys:
        at, step = (mixed(key ^ seed) * bits >> 64 for seed in (0x9E3779B97F4A7C15, 0xD1B54A32D192ED03))
        for i in range(10):
            expected |= 1 << at
            at, step = (at + step) % bits, (step + i + 1) % bits
    assert int.from_bytes(bloom.words.astype("<u8").tobytes(), "little") == expected


@pytest.mark.parametrize(("keys", "rate"), [(-1, 0.1), (1, 0.0), (1, 1.0)])
def test_impossible_filters_are_refused(keys: int, rate: float) -> None:
    with pytest.raises(ValueError, match=f"{keys} keys at a false-positive rate of {rate}"):
        Bloom.sized(keys, rate)
