"""Micro-batches: the same for any world, workers and restart; masked, with documents and sources; OLMo's order."""

import hashlib
import json
import os
import pickle
import signal
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from pipeline.errors import PipelineError
from pipeline.mix import ShardSummary, resolve
from pipeline.reader import MixReader
from pipeline.recipe import Mix
from trainer.data import MicroBatch, MicroBatches, Order, loader, source_names, validation
from trainer.flat_shards import FlatShards
from trainer.losses import IGNORED

LENGTH, EOS = 64, 9
TOKENIZER = {"name": "words", "sha256": "0" * 64, "eos": EOS, "vocab_size": 60_000, "dtype": "uint16"}
NAMES = ["wiki", "code"]


def draw_tokens(documents: list[int], seed: int) -> npt.NDArray[np.uint16]:
    """Random text in documents of these lengths, each with its EOS."""
    tokens = np.random.default_rng(seed).integers(10, 60_000, sum(documents)).astype("<u2")
    tokens[np.cumsum(documents) - 1] = EOS
    return tokens


def write_shard(store: Path, path: str, documents: list[int], tokens: npt.NDArray[np.uint16]) -> ShardSummary:
    file = store / path
    file.parent.mkdir(parents=True, exist_ok=True)
    tokens.tofile(file)
    summary = ShardSummary(path, len(tokens), len(documents), hashlib.sha256(tokens.tobytes()).hexdigest())
    header = {"format": 1, "dtype": "uint16", "tokenizer": TOKENIZER, "eos": EOS, "source": file.parts[-3], "split": "train",
              "tokens": summary.tokens, "documents": summary.documents, "sha256": summary.sha256}  # fmt: skip
    file.with_suffix(".json").write_text(json.dumps(header))
    ends, count = np.cumsum(documents), len(documents)
    table = pa.table({
        "id": [f"{path}#{i}" for i in range(count)], "file": [path] * count, "row": range(count), "start": ends - documents,
        "length": documents, "offset": [0] * count,
    })  # fmt: skip
    pq.write_table(table, file.with_suffix(".parquet"))
    return summary


DOCUMENTS = {
    "wiki": [13, 200, 1, 1, 64, 70, *[37] * 90],
    "code": [900, 128, *[11] * 300],
    "held": [100, 100, 100, 30],
}


@pytest.fixture
def mix(tmp_path: Path) -> MixReader:
    """wiki: 57 instances, of which two repeat themselves; code: 67; a validation shard of wiki with 5. 1.5 epochs."""
    wiki, code, held = (draw_tokens(lengths, seed) for seed, lengths in enumerate(DOCUMENTS.values()))
    wiki[640 : 640 + 32] = 77  # 32 repeats of one token: masked
    wiki[1280 : 1280 + 31] = 78  # 31 are not
    wiki[1920 : 1920 + 64] = [5, 6] * 32  # 32 repeats of two
    shards = [
        write_shard(tmp_path, f"shards/{name}/k/{kind}-00000.bin", DOCUMENTS[key], tokens)
        for name, kind, key, tokens in (
            ("wiki", "train", "wiki", wiki),
            ("code", "train", "code", code),
            ("wiki", "validation", "held", held),
        )
    ]
    recipe = Mix(
        name="small", description="x", tokenizer="words", sequence_length=LENGTH, seed=3, epochs=1.5,
        sources={"wiki": {"weight": 57}, "code": {"weight": 67}},
    )  # fmt: skip
    lock = resolve(recipe, {"wiki": shards[:1], "code": shards[1:2]}, {"wiki": shards[2:], "code": []}, TOKENIZER)
    path = tmp_path / "mixes/small.lock.json"
    path.parent.mkdir()
    path.write_bytes(lock.to_json())
    return MixReader(path)


def equal(some: list[MicroBatch], others: list[MicroBatch]) -> bool:
    def same(one: object, other: object) -> bool:
        return torch.equal(one, other) if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor) else one == other

    return len(some) == len(others) and all(
        same(*pair) for one, other in zip(some, others, strict=True) for pair in zip(one, other, strict=True)
    )


def test_micro_batches_are_consecutive_instances_of_the_run(mix: MixReader) -> None:
    batches = list(loader(MicroBatches(mix, NAMES), global_batch=16))
    assert source_names(mix) == NAMES
    assert len(mix) // 16 * 4 == len(batches) > 40
    for number, batch in enumerate(batches):
        assert batch.first == 4 * number
        assert batch.input_ids.dtype == batch.labels.dtype == batch.sources.dtype == torch.int64
        assert np.array_equal(batch.input_ids, mix.batch(range(4 * number, 4 * number + 4)))
        assert [NAMES[source] for source in batch.sources] == [mix.locate(4 * number + i).source for i in range(4)]
        assert batch.document_ids is None


def test_steps_hold_the_same_micro_batches_at_any_world_size(mix: MixReader) -> None:
    batches = MicroBatches(mix, NAMES, document_ids=True)
    alone = list(loader(batches, global_batch=16))
    steps = dict(mix.steps(16, rank=1, world=2))
    for world in (1, 2, 4):
        ranks = [list(loader(batches, global_batch=16, rank=rank, world=world)) for rank in range(world)]
        each = 4 // world
        together = [batch for step in range(len(mix) // 16) for rank in ranks for batch in rank[step * each : (step + 1) * each]]
        assert equal(together, alone)
        if world == 2:  # dealt as the mix reader deals instances
            assert np.array_equal(torch.cat([batch.input_ids for batch in ranks[1][6:8]]), steps[3])


def test_workers_and_restarts_change_nothing(mix: MixReader) -> None:
    batches = MicroBatches(mix, NAMES, document_ids=True)
    alone = list(loader(batches, global_batch=8))
    assert equal(list(loader(batches, global_batch=8, workers=2)), alone)
    for workers in (0, 2):
        for step in (1, 7):
            resumed = list(loader(batches, global_batch=8, start_step=step, stop_step=12, workers=workers))
            assert equal(resumed, alone[step * 2 : 24])
    half = [list(loader(batches, global_batch=8, start_step=7, rank=rank, world=2, workers=2)) for rank in range(2)]
    assert equal([batch for pair in zip(*half, strict=True) for batch in pair], alone[14:])


def test_the_global_random_state_is_left_alone(mix: MixReader) -> None:
    before = torch.get_rng_state()
    for workers in (0, 2):
        next(iter(loader(MicroBatches(mix, NAMES), global_batch=8, workers=workers)))
    assert torch.equal(torch.get_rng_state(), before)


def test_repetitive_instances_are_masked_and_stay(mix: MixReader) -> None:
    batches = list(loader(MicroBatches(mix, NAMES), global_batch=4))
    masked = {}
    for batch in batches:
        for row, index in enumerate(range(batch.first, batch.first + 4)):
            place = mix.locate(index)
            if (batch.labels[row] == IGNORED).any():
                assert (batch.labels[row] == IGNORED).all()
                assert np.array_equal(batch.input_ids[row], mix[index].tokens)
                masked[place.source, place.start] = True
            else:
                assert torch.equal(batch.labels[row], batch.input_ids[row])
    assert set(masked) == {("wiki", 640), ("wiki", 1920)}
    for batch in loader(MicroBatches(mix, NAMES, instance_filter=False), global_batch=4):
        assert torch.equal(batch.labels, batch.input_ids)


def test_document_ids_are_those_of_a_recount(mix: MixReader) -> None:
    owner = {name: np.repeat(np.arange(len(lengths)), lengths) for name, lengths in DOCUMENTS.items()}
    for batch in loader(MicroBatches(mix, NAMES, document_ids=True), global_batch=4):
        assert batch.document_ids is not None and batch.document_ids.dtype == torch.int32
        for row, index in enumerate(range(batch.first, batch.first + 4)):
            place = mix.locate(index)
            documents = owner[place.source][place.start : place.start + LENGTH].tolist()
            assert batch.document_ids[row].tolist() == [sorted(set(documents)).index(document) for document in documents]


def test_validation_gives_every_held_out_instance_once_and_ranks_equally_many(mix: MixReader) -> None:
    held = np.stack([instance.tokens for instance in mix.validation("wiki")])
    assert held.shape == (5, LENGTH)
    for world, size in ((1, 4), (1, 2), (2, 2), (4, 4), (2, 1)):
        ranks = [list(validation(mix, "wiki", size, rank, world, document_ids=True)) for rank in range(world)]
        assert len({len(batches) for batches in ranks}) == 1
        counted = {}
        for batch in (batch for batches in ranks for batch in batches):
            assert batch.input_ids.shape == (size, LENGTH)
            for row in range(size):
                if (batch.labels[row] != IGNORED).all():
                    counted[batch.first + row] = batch.labels[row].numpy()
                else:
                    assert (batch.labels[row] == IGNORED).all()
        assert np.array_equal(np.stack([counted[index] for index in range(5)]), held)
    assert list(validation(mix, "code")) == []
    (batch,) = validation(mix, "wiki", most=3)
    assert (batch.labels != IGNORED).all(dim=1).tolist() == [True, True, True, False]


def test_a_batch_that_cannot_be_dealt_whole_is_refused() -> None:
    for arguments in ((100, 10), (100, 8, 4, 0, None, 0, 4), (100, 8, 4, 0, None, 2, 2), (100, 0)):
        with pytest.raises(ValueError, match="whole micro-batches of 4; make the batch a multiple of"):
            Order(*arguments)


@pytest.mark.parametrize(("start", "stop"), [(0, 13), (13, None), (-1, 3), (4, 3)])
def test_steps_that_a_run_does_not_have_are_refused(start: int, stop: int | None) -> None:
    with pytest.raises(ValueError, match="the run has 12 .100 instances in batches of 8."):
        Order(100, 8, start_step=start, stop_step=stop)


def test_resuming_late_in_a_long_run_costs_nothing() -> None:
    began = time.perf_counter()
    order = Order(1_220_703_125 * 4, 1024, start_step=1_200_000, rank=200, world=256)
    assert next(iter(order)) == 1_200_000 * 256 + 200
    assert time.perf_counter() - began < 0.1


def test_a_worker_outlives_a_signal_to_the_job(mix: MixReader) -> None:
    got: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: got.append(number))
    try:
        batches = iter(loader(MicroBatches(mix, NAMES), global_batch=8, workers=1))
        count = len([next(batches)])
        workers = [worker.pid for worker in batches._workers]  # type: ignore[attr-defined]
        assert [os.getpgid(pid) for pid in workers] == workers != [os.getpgrp()]
        os.kill(os.getpid(), signal.SIGTERM)
        assert count + len(list(batches)) == len(mix) // 8 * 2
    finally:
        signal.signal(signal.SIGTERM, before)
    assert got == [signal.SIGTERM]


def write_flat(folder: Path, dtype: str = "uint16") -> list[Path]:
    """19, 0 and 7 whole instances, with tails."""
    paths = []
    for number, tokens in enumerate((19 * LENGTH + 5, LENGTH - 1, 7 * LENGTH)):
        paths.append(folder / f"part-{number}-00000.npy")
        draw_tokens([10] * (tokens // 10) + [tokens % 10], number).astype(np.dtype(dtype).newbyteorder("<")).tofile(paths[-1])
    return paths


@pytest.mark.parametrize("dtype", ["uint16", "uint32"])
def test_flat_shards_are_read_in_olmo_s_order(tmp_path: Path, dtype: str) -> None:
    paths = write_flat(tmp_path, dtype)
    chunks = []
    for path in paths:
        tokens = np.fromfile(path, np.dtype(dtype))
        chunks += [tokens[i : i + LENGTH] for i in range(0, len(tokens) - LENGTH + 1, LENGTH)]
    shards = FlatShards(paths, dtype, LENGTH, seed=6198, eos=EOS, epochs=2, global_batch=8)
    assert (shards.instances, len(shards)) == (26, 48)
    for epoch in range(2):
        order = np.arange(26, dtype=np.uint32)
        np.random.Generator(np.random.PCG64(6198 + epoch)).shuffle(order)
        for place in range(24):
            assert np.array_equal(shards[epoch * 24 + place].tokens, chunks[order[place]])
    with pytest.raises(IndexError, match="instance 48 of a run of 48"):
        shards[48]


def test_flat_shards_train_as_a_mix_does(tmp_path: Path) -> None:
    paths = write_flat(tmp_path)
    shards = FlatShards(paths, "uint16", LENGTH, 1, EOS, global_batch=8, names=["web", "none", "books"], vocab_size=60_000)
    names = ["web", "books", "none"]
    batches = list(loader(MicroBatches(shards, names, document_ids=True), global_batch=8))
    assert equal(list(loader(MicroBatches(shards, names, document_ids=True), global_batch=8, workers=2)), batches)
    assert len(batches) == 6
    for batch in batches:
        assert batch.document_ids is not None
        for row in range(4):
            instance = shards[batch.first + row]
            assert names[batch.sources[row]] == ("web" if instance.path == paths[0] else "books")
            document, expected = 0, []
            for token in instance.tokens.tolist():
                expected.append(document)
                document += token == EOS
            assert batch.document_ids[row].tolist() == expected


def test_flat_shards_are_sent_to_processes_without_their_order(tmp_path: Path) -> None:
    shards = FlatShards(write_flat(tmp_path), "uint16", LENGTH, 1, EOS)
    whole = [shards[index].tokens for index in range(26)]
    sent = pickle.loads(pickle.dumps(shards))
    assert sent._order is None
    assert np.array_equal([sent[index].tokens for index in range(26)], whole)


def test_flat_shards_that_are_something_else_are_refused(tmp_path: Path) -> None:
    paths = write_flat(tmp_path)
    np.save(tmp_path / "array.npy", np.zeros(100, np.uint16))
    (tmp_path / "odd.npy").write_bytes(b"abc")
    for name, problem in (("array", "has NumPy's header"), ("odd", "3 bytes are no whole number of uint16"), ("none", "No such file")):
        with pytest.raises(PipelineError, match=rf"{name}\.npy: {problem}"):
            FlatShards([*paths, tmp_path / f"{name}.npy"], "uint16", LENGTH, 1, EOS)
    with pytest.raises(PipelineError, match=r"of a vocabulary of 60000; is its dtype uint32"):
        FlatShards(paths[2:], "uint32", LENGTH, 1, EOS, vocab_size=60_000)[0]
    shards = FlatShards(paths, "uint16", LENGTH, 1, EOS)
    os.truncate(paths[0], 10)
    with pytest.raises(PipelineError, match=r"part-0-00000\.npy: ends within its instance at token"):
        [shards[index] for index in range(26)]
    with pytest.raises(ValueError, match="hold 7 instances of 64 tokens, a step needs 8"):
        FlatShards(paths[1:], "uint16", LENGTH, 1, EOS, global_batch=8)
    with pytest.raises(ValueError, match="uint16 or uint32"):
        FlatShards(paths, "int32", LENGTH, 1, EOS)
    with pytest.raises(ValueError, match="2 names for 3 paths"):
        FlatShards(paths, "uint16", LENGTH, 1, EOS, names=["a", "b"])
