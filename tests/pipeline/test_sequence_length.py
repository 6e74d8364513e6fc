"""A mix read as shorter instances: the same shares and tokens, every token once, in an order of its own."""

import hashlib
import json
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.lock import Lock
from pipeline.reader import MixReader
from tests.pipeline.test_reader import LENGTH, write_mix


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Instances of 8 tokens: 12 of wiki (59 + 6 + 47 tokens), twice each; 20 of code (160 tokens); 1.5 epochs; 66 in all."""
    return write_mix(tmp_path)


def test_shares_run_and_tokens_stay_and_the_supply_is_counted_anew(path: Path) -> None:
    lock = Lock.read(path)
    half = lock.with_sequence_length(4)
    assert (half.sequence_length, half.pool, half.instances) == (4, 88, 132)
    assert [(source.slots, source.instances) for source in half.sources] == [(48, 72), (40, 60)]
    assert [source.supply for source in half.sources] == [14 + 1 + 11, 40]  # 6 tokens hold one instance of 4, and none of 8
    assert [source.repeats for source in half.sources] == [pytest.approx(1.5 * 48 / 26), 1.5]
    for old, new in zip(lock.sources, half.sources, strict=True):
        assert (new.requested_share, new.obtained_share, new.tokens) == (old.requested_share, old.obtained_share, old.tokens)
        assert new.slots / half.pool == old.slots / lock.pool
        assert (new.shards, new.validation) == (old.shards, old.validation)
    assert half.problem() is None


def test_the_fingerprint_is_that_of_the_new_order(path: Path) -> None:
    lock = Lock.read(path)
    fingerprints = [lock.with_sequence_length(length).fingerprint for length in (8, 4, 2, 1)]
    assert fingerprints[0] == lock.fingerprint
    assert len(set(fingerprints)) == 4
    value = json.loads(lock.with_sequence_length(4).to_json())
    order = {key: value[key] for key in ("format", "permutation", "seed", "sequence_length", "pool", "instances", "tokenizer")}
    order["sources"] = [
        [s["name"], s["supply"], s["slots"], [[shard["tokens"], shard["sha256"]] for shard in s["shards"]]] for s in value["sources"]
    ]
    assert hashlib.sha256(json.dumps(order, sort_keys=True, separators=(",", ":")).encode()).hexdigest() == fingerprints[1]


def test_shortening_at_once_or_by_turns_gives_the_same_bytes(path: Path) -> None:
    at_once = Lock.read(path).with_sequence_length(2).to_json()
    assert Lock.read(path).with_sequence_length(4).with_sequence_length(2).to_json() == at_once
    assert Lock.read(path).with_sequence_length(2).to_json() == at_once


@pytest.mark.parametrize("length", [4, 2, 1])
def test_an_epoch_covers_every_token_once_where_it_did(path: Path, length: int) -> None:
    mix = MixReader(path, sequence_length=length)
    file = np.fromfile(mix.store.path("shards/code/k/train-00000.bin"), "<u2")
    seen = Counter(start for source, _, start in mix.places(0, mix.lock.pool) if source == "code")
    assert seen == Counter(dict.fromkeys(range(0, 160, length), 1))
    tokens = np.concatenate([mix[i].tokens for i in range(mix.lock.pool) if mix.locate(i).source == "code"])
    assert Counter(tokens.tolist()) == Counter(file.tolist())


def test_the_order_of_shorter_instances_never_changes(path: Path) -> None:
    # Worked out from docs/formats.md by a program that shares nothing with the reader.
    places = [MixReader(path, sequence_length=4).locate(index) for index in (0, 1, 2, 131)]
    assert [(place.shard, place.start) for place in places] == [
        ("shards/wiki/k/train-00000.bin", 44),
        ("shards/code/k/train-00000.bin", 64),
        ("shards/wiki/l/train-00000.bin", 36),
        ("shards/code/k/train-00000.bin", 136),
    ]


def test_a_shorter_mix_reads_as_one_that_was_written_so(path: Path) -> None:
    short = MixReader(path, sequence_length=4)
    written = path.parent / "run.lock.json"
    written.write_bytes(short.lock.to_json())
    alone = MixReader(written)
    sent = pickle.loads(pickle.dumps(short))
    whole = short.batch(range(len(short)))
    assert whole.shape == (132, 4)
    for other in (alone, sent):
        assert other.lock == short.lock
        assert np.array_equal(other.batch(range(132)), whole)


def test_documents_boundaries_and_held_out_text_follow_the_length(path: Path) -> None:
    mix = MixReader(path, sequence_length=4)
    for index in range(len(mix)):
        place, instance, spans = mix.locate(index), mix[index], mix.documents(index)
        assert np.array_equal(np.fromfile(mix.store.path(place.shard), "<u2")[place.start :][:4], instance.tokens)
        assert sum(span.length for span in spans) == 4
        assert instance.boundaries.tolist() == [span.start for span in spans]
        assert index in mix.occurrences(place.source, place.shard, place.start, 4)
    held = np.fromfile(mix.store.path("shards/wiki/k/validation-00000.bin"), "<u2")
    assert np.array_equal(np.concatenate([instance.tokens for instance in mix.validation("wiki")]), held[:28])


@pytest.mark.parametrize("length", [None, 4])
def test_places_are_those_of_each_instance(path: Path, length: int | None) -> None:
    mix = MixReader(path, sequence_length=length)
    one_by_one = [(place.source, place.shard, place.start) for place in map(mix.locate, range(len(mix)))]
    assert mix.places(0, len(mix)) == one_by_one
    assert mix.places(30, 33) == one_by_one[30:33]
    assert mix.places(5, 5) == []
    for first, stop in ((-1, 3), (60, len(mix) + 1)):
        with pytest.raises(IndexError, match="of a run of"):
            mix.places(first, stop)


@pytest.mark.parametrize("length", [0, -4, 3, 16])
def test_a_length_that_does_not_divide_is_refused_with_the_remedy(path: Path, length: int) -> None:
    with pytest.raises(
        ConfigError, match=rf"sequence_length {length}: small was resolved to instances of 8 tokens.*divisor of 8.*build it again"
    ):
        MixReader(path, sequence_length=length)


def test_the_old_length_changes_nothing(path: Path) -> None:
    assert Lock.read(path).with_sequence_length(LENGTH).to_json() == path.read_bytes()
