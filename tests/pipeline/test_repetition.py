"""The repetition rule against a search that only counts copies, and against decisions of Dolma's own detector."""

import random

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.repetition import instance_mask, max_repeats

# Bit s: does find_periodic_sequences of dolma 1.2.1 (max_period 13) find 32 repeats or more in planted_case(s)?
DOLMA_DROPS = 0x5B37F79EE5A0ABA77BC70CAE77AF33C5D7CBEFFA7C08A8E926DBAC462E593DC24DEF18138EDBB21FBCD6924F7BCCC9A37B39


def planted_case(seed: int) -> list[int]:
    """An n-gram of 1 to 13 tokens, 28 to 36 times, a part of it once more, in noise."""
    draw = random.Random(seed)
    period, repeats = draw.randrange(1, 14), draw.randrange(28, 37)
    unit = [draw.randrange(50_000) for _ in range(period)]

    def noise() -> list[int]:
        return [draw.randrange(50_000) for _ in range(draw.randrange(0, 60))]

    tail = unit[: draw.randrange(period)]
    return noise() + unit * repeats + tail + noise()


def repeats_by_search(tokens: list[int], max_period: int = 13) -> int:
    """From every start, for every period, count copies of the n-gram one after another."""
    best = min(len(tokens), 1)
    for start in range(len(tokens)):
        for period in range(1, max_period + 1):
            unit, times = tokens[start : start + period], 1
            if len(unit) < period:
                break
            while tokens[start + times * period : start + (times + 1) * period] == unit:
                times += 1
            best = max(best, times)
    return best


def count(tokens: list[int], dtype: type = np.uint16) -> int:
    return int(max_repeats(np.array(tokens, dtype=dtype), np.array([0, len(tokens)]))[0])


def test_decides_as_dolma_does_on_planted_repeats() -> None:
    for seed in range(400):
        assert (count(planted_case(seed)) >= 32) == bool(DOLMA_DROPS >> seed & 1), seed


def test_counts_as_the_search_does_on_planted_repeats() -> None:
    for seed in range(1_000, 1_040):
        assert count(planted_case(seed)) == repeats_by_search(planted_case(seed)), seed


@settings(deadline=None)  # the first call compiles
@given(st.lists(st.integers(0, 2), max_size=150), st.integers(1, 13))
@example([], 13)
@example([5], 13)
@example([5, 5], 13)
@example([5, 5, 6, 6, 6], 13)
@example([1, 2, 1, 2, 1], 13)
def test_counts_as_the_search_does_on_few_distinct_tokens(tokens: list[int], max_period: int) -> None:
    counted = max_repeats(np.array(tokens, dtype=np.uint16), np.array([0, len(tokens)]), max_period)
    assert counted[0] == repeats_by_search(tokens, max_period)


@pytest.mark.parametrize("period", range(1, 14))
@pytest.mark.parametrize("before, after", [(0, 0), (0, 7), (7, 0), (7, 7)])
def test_finds_repeats_at_the_start_at_the_end_and_inside(period: int, before: int, after: int) -> None:
    unit = list(range(1, period + 1))
    for times in (31, 32):
        assert count([900 + i for i in range(before)] + unit * times + [950 + i for i in range(after)]) == times


def test_fourteen_tokens_are_no_period() -> None:
    assert count(list(range(14)) * 40) == 1


def test_repeats_do_not_count_across_the_border_of_two_documents() -> None:
    tokens = np.array([7] * 60, dtype=np.uint16)
    assert max_repeats(tokens, np.array([0, 31, 60])).tolist() == [31, 29]
    assert max_repeats(tokens, np.array([5, 5, 36, 60])).tolist() == [0, 31, 24]


@settings(deadline=None)  # the first call compiles
@given(st.lists(st.lists(st.integers(0, 1), max_size=60), max_size=8))
def test_documents_together_count_as_each_alone(documents: list[list[int]]) -> None:
    tokens = np.array([token for document in documents for token in document], dtype=np.uint32)
    offsets = np.cumsum([0] + [len(document) for document in documents])
    assert max_repeats(tokens, offsets).tolist() == [count(document, np.uint32) for document in documents]


def test_an_instance_is_masked_from_32_repeats_on() -> None:
    noise = list(range(1_000, 1_400))
    instances = np.array([(noise[:100] + [1, 2, 3] * times + noise)[:400] for times in (31, 32, 33)], dtype=np.uint16)
    assert instance_mask(instances).tolist() == [True, False, False]
    assert instance_mask(instances, max_count=33).tolist() == [True, True, False]


@settings(deadline=None)  # the first call compiles
@given(st.integers(0, 10_000), st.integers(2, 40))
def test_the_mask_is_the_count_below_the_limit(seed: int, max_count: int) -> None:
    generator = np.random.default_rng(seed)
    instances = generator.integers(0, 2, (4, 64), dtype=np.uint16)
    instances[0, :50] = 1
    counts = max_repeats(instances.reshape(-1), np.arange(5) * 64)
    assert instance_mask(instances, max_count).tolist() == (counts < max_count).tolist()


def test_tokens_of_a_read_only_memory_map_are_taken(tmp_path) -> None:
    np.array([3] * 40, dtype=np.uint16).tofile(tmp_path / "tokens.bin")
    mapped = np.memmap(tmp_path / "tokens.bin", dtype=np.uint16, mode="r")
    assert max_repeats(mapped, np.array([0, 40])).tolist() == [40]


@pytest.mark.parametrize(
    "tokens, offsets, max_period",
    [
        (np.zeros(4, dtype=np.int64), [0, 4], 13),
        (np.zeros((2, 2), dtype=np.uint16), [0, 4], 13),
        (np.zeros(4, dtype=np.uint16), [0, 5], 13),
        (np.zeros(4, dtype=np.uint16), [0, 3, 2], 13),
        (np.zeros(4, dtype=np.uint16), [-1, 4], 13),
        (np.zeros(4, dtype=np.uint16), [], 13),
        (np.zeros(4, dtype=np.uint16), [0, 4], 0),
    ],
)
def test_arrays_that_make_no_sense_are_refused(tokens: np.ndarray, offsets: list[int], max_period: int) -> None:
    with pytest.raises(ValueError):
        max_repeats(tokens, np.array(offsets, dtype=np.int64), max_period)


def test_a_single_occurrence_cannot_be_the_limit() -> None:
    with pytest.raises(ValueError, match="max_count is 1"):
        instance_mask(np.zeros((1, 8), dtype=np.uint16), max_count=1)
