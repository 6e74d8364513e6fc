"""From a step to its documents and their text, whoever trained on them."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from tokenizers import Tokenizer

from pipeline.errors import ConfigError, PipelineError
from pipeline.reader import MixReader
from pipeline.store import Store
from trainer.config import Config
from trainer.metrics import InstanceRow, Recorder, StepRow
from trainer.run import Plan, Run
from trainer.trace import show, trace

LENGTH, BATCH = 64, 8  # tokens of an instance of the small mix, instances of a step


@pytest.fixture
def store(tmp_path: Path, built: Store, recipes: Path) -> Path:
    """The small mix's store with a run `demo` of 10 steps, that has recorded nothing yet."""
    root = tmp_path / "store"
    shutil.copytree(built.root, root)
    train = {"sequence_length": LENGTH, "batch_tokens": BATCH * LENGTH, "tokens": 10 * BATCH * LENGTH}
    config = Config.model_validate({"name": "tiny", "model": {}, "train": train})
    run = Run(root, "demo")
    sha256 = MixReader(root / "mixes/small.lock.json").lock.tokenizer.sha256
    run.create(Plan("demo", "pretrain", "small", config, {"tokenizer_sha256": sha256}, None, "0"))
    shutil.copy(root / "mixes/small.lock.json", run.lock)
    (root / "tokenizers").mkdir(exist_ok=True)
    shutil.copy(recipes / "tiny.json", root / f"tokenizers/{sha256}.json")
    return root


def record(store: Path, last: int, ranks: int = 2) -> None:
    """What a run on two ranks leaves of its steps up to `last`."""
    run = Run(store, "demo")
    reader = MixReader(run.lock, store)
    recorder = Recorder(run.folder, "demo")
    for step in range(1, last + 1):
        places = [reader.locate(index) for index in range((step - 1) * BATCH, step * BATCH)]
        rows = [InstanceRow(step, n * ranks // BATCH, n, place.source, place.shard, place.start, LENGTH) for n, place in enumerate(places)]
        recorder.step(StepRow(step, step * BATCH * LENGTH, *[1.0] * 9, None, 1.0, 0, None, False, 1.0), [], rows)
    recorder.close()


def test_the_parts_of_a_step_are_the_documents_of_its_instances_and_cover_them(store: Path) -> None:
    record(store, 5)
    found = trace(store, "demo", 3)
    reader = MixReader(store / "mixes/small.lock.json", store)
    for position in range(BATCH):
        index = 2 * BATCH + position
        mine = [part for part in found if part.position == position]
        assert [(p.id, p.file, p.row, p.start, p.length, p.offset) for p in mine] == [
            (d.id, d.file, d.row, d.start, d.length, d.offset) for d in reader.documents(index)
        ]
        assert {part.source for part in mine} == {reader.locate(index).source}
        assert {part.rank for part in mine} == {position // 4}
        assert sum(part.length for part in mine) == LENGTH


def test_the_text_is_that_of_the_tokens_the_step_trained_on(store: Path, recipes: Path) -> None:
    tokenizer = Tokenizer.from_file(str(recipes / "tiny.json"))
    reader = MixReader(store / "mixes/small.lock.json", store)
    checked = 0
    for part in trace(store, "demo", 2):
        place = reader.locate(BATCH + part.position)
        shard = np.fromfile(store / place.shard, "<u2")
        ids = shard[place.start + part.start : place.start + part.start + part.length]
        assert part.text == tokenizer.decode(ids.tolist(), skip_special_tokens=False)[:60]
        checked += len(part.text) == 60
    assert checked >= BATCH // 2


def test_without_a_record_the_lock_alone_says_what_a_step_holds(store: Path) -> None:
    computed = trace(store, "demo", 3)
    assert {part.rank for part in computed} == {0}
    record(store, 5)
    assert [part._replace(rank=0) for part in trace(store, "demo", 3)] == computed


@pytest.mark.parametrize(("recorded", "step", "last"), [(5, 0, 5), (5, 6, 5), (0, 11, 10)])
def test_a_step_that_the_run_did_not_take_is_refused(store: Path, recorded: int, step: int, last: int) -> None:
    if recorded:
        record(store, recorded)
    with pytest.raises(ConfigError, match=rf"STEP={step}.*demo has steps 1 to {last}"):
        trace(store, "demo", step)


def test_an_unknown_run_names_the_nearest(store: Path) -> None:
    with pytest.raises(ConfigError, match="demo"):
        trace(store, "dmo", 1)


def test_a_lock_that_is_not_the_one_trained_on_is_noticed(store: Path) -> None:
    record(store, 2)
    lock = Run(store, "demo").lock
    reader = MixReader(lock, store)
    other = reader.lock.model_copy(update={"seed": 8})
    lock.write_bytes(other.model_copy(update={"fingerprint": other.order_hash()}).to_json())
    with pytest.raises(PipelineError, match=r"step 2 of demo trained on shards/.*mix\.lock\.json has shards/"):
        trace(store, "demo", 2)


def test_a_run_on_shards_without_document_tables_says_where_to_look(store: Path) -> None:
    Run(store, "demo").lock.unlink()
    with pytest.raises(ConfigError, match=r"no document tables.*make sql"):
        trace(store, "demo", 1)


def test_a_missing_tokenizer_is_named(store: Path) -> None:
    shutil.rmtree(store / "tokenizers")
    with pytest.raises(PipelineError, match=r"tokenizers/.*make mix MIX=small"):
        trace(store, "demo", 1)


def test_the_table_has_a_line_for_every_document(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = trace(store, "demo", 1)
    show(found, Console(width=250))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(found)
    assert [
        line.split()[:4] == ["0", str(part.position), str(part.instance), part.source] for line, part in zip(lines[1:], found, strict=True)
    ] == [part.start == 0 for part in found]
    for line, part in zip(lines[1:], found, strict=True):
        assert part.id in line and f"{part.file}#{part.row}" in line and " ".join(part.text.split()) in line
