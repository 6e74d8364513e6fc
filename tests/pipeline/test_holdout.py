"""The validation set: its size, and that nothing but a document's id decides."""

import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.holdout import SEED, Threshold, held_out, id_hash

ids_of = st.lists(st.text(max_size=8), max_size=60)


def threshold_of(ids: list[str], share: float, documents: int, portion: int = 7) -> int:
    threshold = Threshold(share, documents)
    for start in range(0, len(ids), portion):
        threshold.add(id_hash(ids[start : start + portion]))
    return threshold.value()


def members(ids: list[str], share: float, documents: int) -> list[str]:
    kept = held_out(id_hash(ids), threshold_of(ids, share, documents))
    return [id_ for id_, held in zip(ids, kept, strict=True) if held]


def xxh64_of_up_to_three_bytes(data: bytes, seed: int) -> int:
    """XXH64 as its specification has it, for inputs short enough to need only the last steps."""
    p1, p2, p3, p5, mask = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x27D4EB2F165667C5, 2**64 - 1
    value = (seed + p5 + len(data)) & mask
    for byte in data:
        value ^= byte * p5 & mask
        value = ((value << 11 | value >> 53) & mask) * p1 & mask
    value = (value ^ value >> 33) * p2 & mask
    value = (value ^ value >> 29) * p3 & mask
    return value ^ value >> 32


def test_the_hash_is_xxh64_with_the_documented_seed() -> None:
    assert int.from_bytes(b"validate", "big") == SEED
    ids = ["", "a", "doc", "é"]
    assert id_hash(ids).tolist() == [xxh64_of_up_to_three_bytes(id_.encode(), SEED) for id_ in ids]
    assert id_hash(pa.array(ids)).tolist() == id_hash(pa.chunked_array([ids])).tolist() == id_hash(ids).tolist()
    assert id_hash([]).dtype == np.uint64


@pytest.mark.parametrize("share", [0.005, 0.02, 0.5])
def test_a_large_source_has_its_share_within_chance(share: float) -> None:
    count = 100_000
    held = len(members([f"document-{i}" for i in range(count)], share, 8))
    assert abs(held - count * share) < 4 * (count * share * (1 - share)) ** 0.5


def test_in_a_large_source_membership_follows_from_id_and_share_alone() -> None:
    small, large = ([f"document-{i}" for i in range(count)] for count in (20_000, 60_000))
    assert threshold_of(small, 0.005, 8) == threshold_of(large, 0.005, 8) == int(0.005 * 2**64)
    assert set(members(small, 0.005, 8)) <= set(members(large, 0.005, 8))


@given(ids_of, st.integers(0, 12), st.integers(0, 100))
def test_order_and_portions_do_not_matter(ids: list[str], documents: int, seed: int) -> None:
    shuffled = random.Random(seed).sample(ids, len(ids))
    assert threshold_of(ids, 0.01, documents, portion=3) == threshold_of(shuffled, 0.01, documents, portion=20)


@given(st.sets(st.text(max_size=8), max_size=60), st.integers(0, 12))
def test_a_small_source_holds_out_exactly_the_wanted_number_or_all(ids: set[str], documents: int) -> None:
    assert len(members(sorted(ids), 0.0, documents)) == min(documents, len(ids))


@given(ids_of, st.floats(0, 1), st.integers(0, 12))
def test_the_threshold_is_the_share_or_just_enough(ids: list[str], share: float, documents: int) -> None:
    hashes = sorted(id_hash(ids).tolist())
    enough = hashes[:documents][-1] + 1 if hashes and documents else 0
    assert threshold_of(ids, share, documents) == min(max(int(share * 2**64), enough), 2**64 - 1)


def test_documents_of_one_id_stay_together() -> None:
    assert members(["same"] * 3 + ["b", "c"], 0.0, 1) in (["same"] * 3, ["b"], ["c"])


def test_everything_can_be_held_out_and_nothing() -> None:
    ids = [f"{i}" for i in range(1_000)]
    assert members(ids, 1.0, 0) == ids
    assert members(ids, 0.0, 0) == []


@pytest.mark.parametrize("share, documents", [(-0.1, 8), (1.1, 8), (0.5, -1)])
def test_impossible_sizes_are_refused(share: float, documents: int) -> None:
    with pytest.raises(ValueError, match="validation set of share"):
        Threshold(share, documents)
