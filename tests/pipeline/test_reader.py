"""Reading a mix: every instance as often as the lock says, the same from everywhere, traced back and forth."""

import hashlib
import json
import os
import pickle
import resource
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import PipelineError
from pipeline.mix import ShardSummary, resolve
from pipeline.permutation import FEW
from pipeline.reader import DocumentSpan, MixReader
from pipeline.recipe import Mix

LENGTH, EOS = 8, 9
TOKENIZER = {"name": "words", "sha256": "0" * 64, "eos": EOS, "vocab_size": 60_000, "dtype": "uint16"}


def write_shard(store: Path, path: str, documents: list[int], first: int = 1000, dtype: str = "uint16", row_group: int = 3) -> ShardSummary:
    """A shard of documents of these lengths (with their EOS). Token t of the shard is `first` + t, but for the ends."""
    tokens = np.arange(first, first + sum(documents)).astype(f"<{np.dtype(dtype).str[1:]}")
    ends = np.cumsum(documents)
    tokens[ends - 1] = EOS
    file = store / path
    file.parent.mkdir(parents=True, exist_ok=True)
    tokens.tofile(file)
    summary = ShardSummary(path, len(tokens), len(documents), hashlib.sha256(tokens.tobytes()).hexdigest())
    header = {"format": 1, "dtype": dtype, "tokenizer": {**TOKENIZER, "dtype": dtype}, "eos": EOS, "source": file.parts[-3],
              "split": "train", "tokens": summary.tokens, "documents": summary.documents, "sha256": summary.sha256}  # fmt: skip
    file.with_suffix(".json").write_text(json.dumps(header))
    names = [f"{path}#{i}" for i in range(len(documents))]
    table = pa.table({
        "id": names, "file": [path] * len(names), "row": range(len(names)), "start": ends - documents, "length": documents,
        "offset": [0] * len(names),
    })  # fmt: skip
    pq.write_table(table, file.with_suffix(".parquet"), row_group_size=row_group)
    return summary


def write_mix(store: Path, dtype: str = "uint16") -> Path:
    """wiki: 7 + 0 + 5 instances, each up to twice; code: 20; 1.5 epochs; a validation shard of 3 instances."""
    wiki = [
        write_shard(store, "shards/wiki/k/train-00000.bin", [5, 20, 3, 1, 16, 14], 1000, dtype),
        write_shard(store, "shards/wiki/k/train-00001.bin", [6], 2000, dtype),
        write_shard(store, "shards/wiki/l/train-00000.bin", [47], 3000, dtype),
    ]
    code = [write_shard(store, "shards/code/k/train-00000.bin", [40] * 4, 4000, dtype)]
    held = [write_shard(store, "shards/wiki/k/validation-00000.bin", [10, 10, 10], 5000, dtype)]
    mix = Mix(
        name="small", description="x", tokenizer="words", sequence_length=LENGTH, seed=3, epochs=1.5,
        sources={"wiki": {"weight": 12, "repeats": 2}, "code": {"weight": 20}},
    )  # fmt: skip
    lock = resolve(mix, {"wiki": wiki, "code": code}, {"wiki": held, "code": []}, {**TOKENIZER, "dtype": dtype})
    path = store / "mixes/small.lock.json"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(lock.to_json())
    return path


@pytest.fixture
def mix(tmp_path: Path) -> MixReader:
    return MixReader(write_mix(tmp_path))


def instances_on_disk(store: Path, name: str) -> list[tuple[int, ...]]:
    """A source's training instances, cut from its files without the reader."""
    found = []
    for file in sorted((store / "shards" / name).rglob("train-*.bin")):
        tokens = np.fromfile(file, "<u2")
        found += [tuple(tokens[i : i + LENGTH].tolist()) for i in range(0, len(tokens) - LENGTH + 1, LENGTH)]
    return found


def test_an_epoch_holds_each_instance_as_often_as_its_source_repeats(mix: MixReader) -> None:
    wiki, code = instances_on_disk(mix.store.root, "wiki"), instances_on_disk(mix.store.root, "code")
    assert (len(wiki), len(code), mix.lock.pool, len(mix)) == (12, 20, 44, 66)
    epoch = Counter(tuple(row.tolist()) for row in mix.batch(range(44)))
    assert epoch == Counter({**dict.fromkeys(wiki, 2), **dict.fromkeys(code, 1)})


def test_the_second_epoch_has_a_new_order_and_stops_where_the_run_does(mix: MixReader) -> None:
    whole, rest = mix.batch(range(44)), mix.batch(range(44, 66))
    assert not np.array_equal(whole[:22], rest)
    assert not Counter(map(bytes, rest)) - Counter(map(bytes, whole))


def test_the_order_never_changes(mix: MixReader) -> None:
    # Worked out from the text of reader.py and permutation.py by a program that shares nothing with them.
    wiki, code = "shards/wiki/l/train-00000.bin", "shards/code/k/train-00000.bin"
    assert [(place.shard, place.start) for place in map(mix.locate, (0, 1, 2, 65))] == [(wiki, 24), (code, 24), (wiki, 16), (code, 88)]


def test_one_by_one_and_in_batches_are_the_same(mix: MixReader) -> None:
    single = np.stack([mix[i].tokens for i in range(len(mix))])
    assert len(mix) > FEW
    assert np.array_equal(mix.batch(range(len(mix))), single)
    assert np.array_equal(mix.batch([65, 0, 0, 17]), single[[65, 0, 0, 17]])
    assert np.array_equal(np.concatenate([mix.batch([i]) for i in range(66)]), single)
    assert mix.batch([]).shape == (0, LENGTH)
    assert single.dtype == np.uint16


def test_an_instance_says_where_it_is_from(mix: MixReader) -> None:
    for index in range(len(mix)):
        place, instance = mix.locate(index), mix[index]
        tokens = np.fromfile(mix.store.path(place.shard), "<u2")
        assert np.array_equal(tokens[place.start : place.start + LENGTH], instance.tokens)
        assert (instance.source, instance.shard, instance.start) == (place.source, place.shard, place.start)
        assert place.epoch == index // 44
        assert place.copy in ((0, 1) if place.source == "wiki" else (0,))


def test_numpy_integers_are_indices_too(mix: MixReader) -> None:
    assert np.array_equal(mix[np.int64(7)].tokens, mix[7].tokens)
    with pytest.raises(TypeError):
        mix[1.5]  # type: ignore[index]


@pytest.mark.parametrize("index", [-1, 66, 10**30])
def test_an_index_outside_the_run_is_refused(mix: MixReader, index: int) -> None:
    for use in (mix.__getitem__, mix.locate):
        with pytest.raises(IndexError, match="of a run of 66"):
            use(index)
    if index < 2**63:
        for batch in ([index], [index] * (FEW + 1)):
            with pytest.raises(IndexError, match="of a run of 66"):
                mix.batch(batch)


def test_boundaries_come_from_the_document_table(mix: MixReader) -> None:
    # Documents of 5, 20, 3, 1, 16 and 14 tokens begin at 0, 5, 25, 28, 29 and 45; the shard has 7 instances of 8.
    begins = {0: [0, 5], 8: [0], 16: [0], 24: [0, 1, 4, 5], 32: [0], 40: [0, 5], 48: [0]}
    seen = set()
    for index in range(len(mix)):
        instance = mix[index]
        if instance.shard == "shards/wiki/k/train-00000.bin":
            assert instance.boundaries.tolist() == begins[instance.start]
            seen.add(instance.start)
    assert seen == set(begins)


def test_documents_of_an_instance_are_their_rows(mix: MixReader) -> None:
    shard = "shards/wiki/k/train-00000.bin"
    index = mix.occurrences("wiki", shard, 24)[0]
    assert mix.documents(index) == [
        DocumentSpan(f"{shard}#1", shard, 1, 0, 1, 19),
        DocumentSpan(f"{shard}#2", shard, 2, 1, 3, 0),
        DocumentSpan(f"{shard}#3", shard, 3, 4, 1, 0),
        DocumentSpan(f"{shard}#4", shard, 4, 5, 3, 0),
    ]
    for index in range(len(mix)):
        spans = mix.documents(index)
        assert sum(span.length for span in spans) == LENGTH
        assert [span.start for span in spans] == mix[index].boundaries.tolist()


def test_a_document_is_found_at_every_step_that_used_it(mix: MixReader) -> None:
    used: dict[tuple[str, int], list[int]] = {}
    for index in range(len(mix)):
        place = mix.locate(index)
        used.setdefault((place.shard, place.start // LENGTH), []).append(index)
    for source in mix.lock.sources:
        for shard in source.shards:
            for number in range(shard.tokens // LENGTH):
                assert mix.occurrences(source.name, shard.path, number * LENGTH + 3) == used.get((shard.path, number), [])
    both = mix.occurrences("wiki", "shards/wiki/k/train-00000.bin", 5, 20)  # a document across instances 0 to 3
    assert both == sorted(index for number in range(4) for index in used.get(("shards/wiki/k/train-00000.bin", number), []))
    assert mix.occurrences("wiki", "shards/wiki/k/train-00000.bin", 57) == []  # in the tail that is left out
    with pytest.raises(KeyError, match="code"):
        mix.occurrences("cod", "x", 0)


def test_ranks_share_a_batch_and_resume_at_a_step(mix: MixReader) -> None:
    alone = dict(mix.steps(8))
    assert list(alone) == list(range(8))  # 66 instances: the last 2 fill no batch
    assert np.array_equal(alone[3], mix.batch(range(24, 32)))
    for world in (1, 2, 4):
        ranks = [dict(mix.steps(8, start_step=5, rank=rank, world=world)) for rank in range(world)]
        assert all(list(rank) == [5, 6, 7] for rank in ranks)
        for step in (5, 6, 7):
            assert np.array_equal(np.concatenate([rank[step] for rank in ranks]), alone[step])
    assert list(mix.steps(8, start_step=8)) == []


@pytest.mark.parametrize("arguments", [(8, 0, 0, 3), (8, 0, 2, 2), (8, 0, -1, 2), (0, 0, 0, 1), (8, -1, 0, 1)])
def test_ranks_that_cannot_share_a_batch_are_refused(mix: MixReader, arguments: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="each must have an equal part"):
        next(mix.steps(*arguments))


def test_validation_is_read_in_order_and_is_in_no_instance_of_the_run(mix: MixReader) -> None:
    held = list(mix.validation("wiki"))
    assert [instance.start for instance in held] == [0, 8, 16]
    assert held[1].boundaries.tolist() == [0, 2]
    assert list(mix.validation("code")) == []
    trained = set(map(bytes, mix.batch(range(len(mix)))))
    assert not trained & {instance.tokens.tobytes() for instance in held}


def test_large_vocabularies_are_read_as_uint32(tmp_path: Path) -> None:
    wide, narrow = MixReader(write_mix(tmp_path / "a", "uint32")), MixReader(write_mix(tmp_path / "b"))
    assert wide.batch(range(66)).dtype == np.uint32
    assert wide.batch(range(66)).shape == narrow.batch(range(66)).shape
    assert {tuple(row) for row in wide.batch(range(66)).tolist()} == {tuple(row) for row in narrow.batch(range(66)).tolist()}


def test_nothing_is_opened_before_it_is_read(tmp_path: Path) -> None:
    path = write_mix(tmp_path)
    for file in (tmp_path / "shards/code").rglob("*"):
        if file.is_file():
            file.unlink()
    mix = MixReader(path)
    wiki = [index for index in range(len(mix)) if mix.locate(index).source == "wiki"]
    assert mix.batch(wiki).shape == (len(wiki), LENGTH)
    with pytest.raises(PipelineError, match=r"shards/code/k/train-00000\.bin: No such file or directory; the mix needs this shard"):
        mix.batch(range(len(mix)))


def test_a_moved_store_is_read_from_where_it_is(tmp_path: Path) -> None:
    path = write_mix(tmp_path / "a")
    before = MixReader(path).batch(range(66))
    shutil.move(tmp_path / "a/shards", tmp_path / "elsewhere/shards")
    assert np.array_equal(MixReader(path, tmp_path / "elsewhere").batch(range(66)), before)


def test_a_worker_process_gets_the_reader_and_not_its_files(mix: MixReader) -> None:
    mix.batch(range(66))
    packed = pickle.dumps(mix)
    assert len(packed) < 500
    assert np.array_equal(pickle.loads(packed).batch(range(66)), mix.batch(range(66)))


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("format", 2, "format is 2, the mix was made of 1"),
        ("dtype", "uint32", "dtype is uint32, the mix was made of uint16"),
        ("eos", 0, "eos is 0, the mix was made of 9"),
        ("tokenizer", {"sha256": "1" * 64}, "the tokenizer's sha256 is 1111"),
        ("tokenizer", {}, "the tokenizer's sha256 is None"),
        ("tokens", 161, "tokens is 161, the mix was made of 160"),
        ("sha256", "f" * 64, "sha256 is ffff"),
    ],
)
def test_a_shard_that_is_not_what_the_lock_says_is_refused(mix: MixReader, key: str, value: object, expected: str) -> None:
    path = mix.store.path("shards/code/k/train-00000.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(PipelineError) as error:
        mix.batch(range(66))
    assert str(error.value).startswith(f"{path}: {expected}")


def test_a_cut_shard_is_refused_when_opened_and_when_cut_later(mix: MixReader) -> None:
    path = mix.store.path("shards/code/k/train-00000.bin")
    os.truncate(path, 318)
    with pytest.raises(PipelineError, match=r"train-00000\.bin: 318 bytes, and 160 uint16 tokens are 320"):
        mix.batch(range(66))
    path.write_bytes(path.read_bytes() + b"\0\0")
    mix.batch(range(66))
    os.truncate(path, 100)
    with pytest.raises(PipelineError, match=r"train-00000\.bin: ends within its instance"):
        mix.batch(range(66))


@pytest.mark.parametrize("content", ["{", "7", "[]", '{"tokenizer": 1}'])
def test_a_header_that_is_none_is_named(mix: MixReader, content: str) -> None:
    mix.store.path("shards/code/k/train-00000.json").write_text(content)
    with pytest.raises(PipelineError, match=r"train-00000\.json: no header of a shard"):
        mix.batch(range(66))


MANY = 3900
MANY_TOKENS = 1 << 30


@pytest.fixture(scope="module")
def billion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mix over 1.02 billion instances: 3,900 sparse shards, 8 TB that take no room."""
    store = tmp_path_factory.mktemp("billion")
    folder = store / "shards/web/k"
    folder.mkdir(parents=True)
    header = {"format": 1, "dtype": "uint16", "eos": EOS, "tokenizer": TOKENIZER, "tokens": MANY_TOKENS}
    shards = []
    for number in range(MANY):
        digest = hashlib.sha256(b"%d" % number).hexdigest()
        path = folder / f"train-{number:05d}.bin"
        with open(path, "wb") as stream:
            stream.truncate(2 * MANY_TOKENS)
        path.with_suffix(".json").write_text(json.dumps({**header, "sha256": digest}))
        shards.append(ShardSummary(f"shards/web/k/{path.name}", MANY_TOKENS, 1, digest))
    mix = Mix(name="big", description="x", tokenizer="words", sequence_length=4096, seed=1, sources={"web": {"weight": 1}})
    (store / "mixes").mkdir()
    lock = store / "mixes/big.lock.json"
    lock.write_bytes(resolve(mix, {"web": shards}, {"web": []}, TOKENIZER).to_json())
    return lock


def test_a_billion_instances_open_and_give_a_batch_within_a_second(billion: Path) -> None:
    program = (
        "import sys, time; start = time.perf_counter()\n"
        "from pipeline.reader import MixReader\n"
        "mix = MixReader(sys.argv[1]); mix.batch(range(1024))\n"
        "print(len(mix), time.perf_counter() - start)"
    )
    runs = [subprocess.run([sys.executable, "-c", program, billion], capture_output=True, text=True, check=True) for _ in range(2)]
    results = [run.stdout.split() for run in runs]
    assert int(results[0][0]) == MANY * MANY_TOKENS // 4096 > 10**9
    assert min(float(seconds) for _, seconds in results) < 1.0


def test_random_instances_are_read_at_a_hundred_million_tokens_per_cpu_second(billion: Path) -> None:
    mix = MixReader(billion)
    rng = np.random.default_rng(0)
    rates = []
    for _ in range(5):  # the machine may be busy: the best of five
        indices = rng.integers(0, len(mix), 1024)
        mix.batch(indices)  # sparse files must be given pages in the cache first
        start = time.process_time()
        mix.batch(indices)
        rates.append(1024 * 4096 / (time.process_time() - start))
    assert max(rates) > 100e6


def test_a_mix_may_have_more_shards_than_a_process_may_have_files(billion: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    in_use = max(int(entry.name) for entry in Path("/dev/fd").iterdir())  # earlier tests may have left sockets open
    allowed = 2 * in_use + 100
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    try:
        mix = MixReader(billion)
        shards = {mix.locate(index).shard for index in range(2000)}
        assert len(shards) > allowed
        assert mix.batch(range(2000)).shape == (2000, 4096)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
