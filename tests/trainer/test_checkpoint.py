"""Checkpoints: whole or not there, exact to go on from, refused where they do not fit or are damaged."""

import errno
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.filesystem import FileSystemWriter

from pipeline.errors import ConfigError, PipelineError
from pipeline.files import sha256_of
from pipeline.lock import Lock
from pipeline.store import Store
from tests.trainer import tiny
from tests.trainer.tiny import CONFIG, after_step, anneal, assert_same, kept, latest, losses, pretrain, rows, tensors
from trainer import checkpoint
from trainer.checkpoint import find, load_weights, read_record, steps_of
from trainer.parallel import prepare
from trainer.run import Run


@pytest.fixture(scope="module")
def store(built: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.store_of(built, tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def whole(store: Path) -> Run:
    """An undisturbed run, with checkpoints of steps 4, 8 and 12."""
    return pretrain(store, "whole")


@pytest.fixture
def copied(whole: Run, request: pytest.FixtureRequest) -> Run:
    """The undisturbed run once more, to be changed."""
    name = "".join(letter if letter.isalnum() else "-" for letter in request.node.name)
    shutil.copytree(whole.folder, whole.store / "models" / name)
    return Run(whole.store, name)


def state_of(run: Run) -> dict[str, tuple[int, int]]:
    """Every file of a run, as it is."""
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_ino) for path in sorted(run.folder.rglob("*")) if path.is_file()}


# Written


def test_a_checkpoint_says_what_it_is_of(whole: Run) -> None:
    assert (latest(whole), kept(whole)) == ("step-12", ["latest", "step-12", "step-4", "step-8"])
    found = rows(whole, "checkpoints")
    assert [row["step"] for row in found] == [4, 8, 12]
    for row in found:
        folder = whole.checkpoints / f"step-{row['step']}"
        record = read_record(folder)
        assert (record.progress.step, record.progress.tokens, record.world) == (row["step"], 512 * row["step"], 1)
        assert record.progress.learning_rate == rows(whole)[row["step"] - 1]["learning_rate"]
        assert record.progress.spikes["loss"] == [losses(whole)[step] for step in range(1, row["step"] + 1)]
        assert record.identity == whole.plan.identity and record.config == CONFIG.model_dump(mode="json")
        assert record.code == whole.plan.code
        files = {path.name: [path.stat().st_size, sha256_of(path)] for path in folder.iterdir() if path.name != "checkpoint.json"}
        assert record.files == files
        assert row["bytes"] == sum(size for size, _ in files.values())
        assert 0 <= row["pause_seconds"] <= row["seconds"]


def test_the_newest_stay_and_those_of_an_interval(store: Path) -> None:
    words = "train.checkpoint_every=2 train.checkpoints_kept=2 train.checkpoint_kept_every=6 train.evaluate_every=100"
    run = pretrain(store, "kept", set=words)
    assert kept(run) == ["latest", "step-10", "step-12", "step-6"]
    assert [row["step"] for row in rows(run, "checkpoints")] == [2, 4, 6, 8, 10, 12]
    assert steps_of(run) == [6, 10, 12]


def test_latest_only_ever_names_a_whole_checkpoint(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = []
    name_latest = checkpoint.name_latest

    def checked(run: Run, step: int) -> None:
        read_record(run.checkpoints / f"step-{step}")
        assert [row["step"] for row in rows(run)][:step] == list(range(1, step + 1))  # its metrics are on the disk by then
        named.append(step)
        name_latest(run, step)

    monkeypatch.setattr(checkpoint, "name_latest", checked)
    pretrain(store, "named", steps=6, set="train.checkpoint_every=1")
    assert named == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("where", ["data", "record"])
def test_a_disk_that_is_full_stops_the_run_and_leaves_the_checkpoint_before(
    store: Path, whole: Run, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    write_data, write_json = FileSystemWriter.write_data, checkpoint.write_json

    def data(self: Any, *arguments: Any) -> Any:
        if where == "data" and "step-8" in str(self.path):
            raise full
        return write_data(self, *arguments)

    def record(path: Path, values: Any) -> None:
        if where == "record" and "step-8" in str(path):
            raise full
        write_json(path, values)

    with monkeypatch.context() as patched:
        patched.setattr(FileSystemWriter, "write_data", data)
        patched.setattr(checkpoint, "write_json", record)
        with pytest.raises(PipelineError, match=r"step-8 could not be written: .*No space left on device.*RESUME=1"):
            pretrain(store, f"full-{where}")
    run = Run(store, f"full-{where}")
    assert (latest(run), steps_of(run)) == ("step-4", [4])
    assert losses(pretrain(store, run.name, resume="1")) == losses(whole)
    assert kept(run) == ["latest", "step-12", "step-4", "step-8"]  # nothing half-written stays


# Gone on from


@pytest.mark.parametrize("resume", ["step-4", "step-8"])
def test_going_on_is_exact(copied: Run, whole: Run, resume: str) -> None:
    again = pretrain(copied.store, copied.name, resume=resume)
    for table in ("steps", "routers", "evals", "instances"):
        volatile = {"run", "seconds", "data_seconds", "tokens_per_second", "memory_mb", "time"}
        found, expected = ([{key: row[key] for key in row.keys() - volatile} for row in rows(run, table)] for run in (again, whole))
        assert found == expected
    assert [row["step"] for row in rows(again, "checkpoints")] == [4, 8, 12]
    assert read_record(find(again)).progress == read_record(find(whole)).progress
    assert_same(tensors(find(again)), tensors(find(whole)))


def test_an_earlier_checkpoint_leaves_the_later_ones_behind(copied: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that goes on from step 4 and is lost at once must not be found at step 12."""

    def lost() -> None:
        assert latest(copied) == "step-4"
        raise MemoryError

    for step in (4, 12):
        (copied.folder / f"hf/step-{step}").mkdir(parents=True)
    after_step(monkeypatch, 5, lost)
    with pytest.raises(MemoryError):
        pretrain(copied.store, copied.name, resume="step-4")
    assert [path.name for path in (copied.folder / "hf").iterdir()] == ["step-4"]  # the other would be of other weights
    assert latest(copied) == "step-4" and max(losses(copied)) == 5
    assert steps_of(copied) == [4]


def test_the_random_state_goes_on_too(copied: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing draws from it today; what will must not repeat itself after a restart."""
    drawn: list[float] = []
    after_step(monkeypatch, 5, lambda: drawn.append(float(torch.rand(()))))
    pretrain(copied.store, copied.name, steps=5, resume="step-4")
    torch.manual_seed(99)
    pretrain(copied.store, copied.name, steps=5, resume="step-4")
    assert drawn[0] == drawn[1]


def test_a_finished_run_has_nothing_left_to_do(copied: Run, whole: Run) -> None:
    before = state_of(copied)
    pretrain(copied.store, copied.name, resume="1")
    assert state_of(copied) == before


def test_what_is_changed_on_the_way_holds_and_is_said(
    copied: Run, whole: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """AdamW's own values too: those in the checkpoint must not come back unseen."""
    words, made = "optim.weight_decay=0.5 optim.beta1=0.5 optim.eps=1e-6 optim.decay_norms=false", tiny.trainers(monkeypatch)
    run = pretrain(copied.store, copied.name, resume="step-4", set=words)
    said = capsys.readouterr().err
    assert all(line in said for line in ("optim.weight_decay: 0.1 → 0.5", "optim.beta1: 0.9 → 0.5", "optim.eps: 1e-08 → 1e-06"))
    groups = made[0].optimizer.param_groups
    assert [(group["weight_decay"], group["betas"], group["eps"]) for group in groups] == [
        (0.5, (0.5, 0.95), 1e-6),
        (0.0, (0.5, 0.95), 1e-6),
    ]
    assert losses(run)[5] == losses(whole)[5] and losses(run)[6] != losses(whole)[6]


def test_a_longer_run_goes_on_where_a_shorter_one_ended(copied: Run) -> None:
    run = pretrain(copied.store, copied.name, tokens="8192", resume="1")
    assert list(losses(run)) == list(range(1, 17)) and latest(run) == "step-16"


def test_a_run_stopped_before_its_first_checkpoint_is_begun_again_as_it_was(
    store: Path, whole: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost() -> None:
        raise MemoryError

    with monkeypatch.context() as patched:
        after_step(patched, 3, lost)
        with pytest.raises(MemoryError):
            pretrain(store, "early")
    run = pretrain(store, "early", mix="", resume="1")  # its own model and mix, not the defaults
    assert losses(run) == losses(whole)
    assert [(row["step"], row["loss"]) for row in rows(run, "evals")] == [(row["step"], row["loss"]) for row in rows(whole, "evals")]


def test_a_checkpoint_of_another_model_does_not_fit(whole: Run) -> None:
    with tiny.alone_in_the_world() as world:
        model = prepare(tiny.changed(model__layers=3), world)
        with pytest.raises(PipelineError, match=r"step-12 does not fit this model, or cannot be read: .*blocks\.2\."):
            load_weights(find(whole), model)


# Refused


def other_mix(run: Run, name: str, **changes: Any) -> None:
    """A lock beside, or instead of, the one that the run was trained on."""
    path = run.store / "mixes" / "small.lock.json"
    values = {key: value for key, value in Lock.read(path).model_dump().items() if key not in ("format", "permutation", "fingerprint")}
    (path.parent / f"{name}.lock.json").write_bytes(Lock.sealed(**(values | {"mix": name} | changes)).to_json())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("model.expert_width=24", ["model.expert_width: 16 → 24"]),
        ("model.experts=16 model.qk_norm=false", ["model.experts: 8 → 16", "model.qk_norm: True → False"]),
        ("train.batch_tokens=1024", ["train.batch_tokens: 512 → 1024"]),
        ("loss.micro_batch=4", ["loss.micro_batch: 2 → 4"]),
        ("train.sequence_length=32", ["train.sequence_length: 64 → 32", "fingerprint: ", "sequence_length: 64 → 32"]),
    ],
)
def test_another_model_or_batch_is_refused_by_name(whole: Run, words: str, expected: list[str]) -> None:
    before = state_of(whole)
    with pytest.raises(ConfigError) as caught:
        pretrain(whole.store, "whole", resume="1", set=words)
    assert all(part in str(caught.value) for part in [*expected, "step-12", "another RUN"])
    assert state_of(whole) == before


def test_another_mix_is_refused_by_name(whole: Run) -> None:
    before = state_of(whole)
    other_mix(whole, "other", seed=8)
    with pytest.raises(ConfigError, match=r"fingerprint: \w+ → \w+; mix: small → other"):
        pretrain(whole.store, "whole", mix="other", resume="step-4")
    assert state_of(whole) == before


def test_a_mix_built_anew_and_another_tokenizer_are_refused_by_name(built: Store, tmp_path: Path) -> None:
    run = pretrain(tiny.store_of(built, tmp_path), "run", steps=1)
    lock = Lock.read(tmp_path / "mixes" / "small.lock.json")
    other_mix(run, "small", seed=8)
    with pytest.raises(ConfigError, match=r"fingerprint: \w+ → \w+\. ") as caught:
        pretrain(tmp_path, "run", mix="", resume="1")
    assert "mix:" not in str(caught.value)
    content = (tmp_path / "tokenizers" / f"{lock.tokenizer.sha256}.json").read_bytes() + b"\n"
    (tmp_path / "other.json").write_bytes(content)
    sha256 = sha256_of(tmp_path / "other.json")
    (tmp_path / "tokenizers" / f"{sha256}.json").write_bytes(content)
    other_mix(run, "small", tokenizer=lock.tokenizer.model_dump() | {"sha256": sha256})
    with pytest.raises(ConfigError, match=f"tokenizer_sha256: {lock.tokenizer.sha256} → {sha256}"):
        pretrain(tmp_path, "run", resume="1")


def test_a_run_that_is_there_is_not_begun_again(whole: Run) -> None:
    before = state_of(whole)
    with pytest.raises(ConfigError, match=r"run whole is there already.*12.*RESUME=1"):
        pretrain(whole.store, "whole")
    assert state_of(whole) == before


def test_a_checkpoint_that_is_not_there_is_refused_with_those_that_are(whole: Run) -> None:
    with pytest.raises(ConfigError, match=r"no checkpoint `step-7`; there are: step-4, step-8, step-12"):
        pretrain(whole.store, "whole", resume="step-7")
    with pytest.raises(ConfigError, match="no run `nobody`"):
        pretrain(whole.store, "nobody", resume="step-7")
    assert not (whole.store / "models" / "nobody").exists()


def test_a_run_is_resumed_as_what_it_is(whole: Run) -> None:
    annealed = anneal(whole.store, "whole", steps=1)
    with pytest.raises(ConfigError, match=f"{annealed.name} is of the kind anneal.*make anneal"):
        pretrain(whole.store, annealed.name, resume="1")
    with pytest.raises(ConfigError, match=r"no run `whale` under .*; did you mean `whole`"):
        anneal(whole.store, "whale")


# Damaged


def flip(path: Path, at: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(at * len(content))] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


DAMAGES: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "a bit of the weights": ("__0_0.distcp", lambda path: flip(path, 0.3), r"__0_0\.distcp has the sha256 \w+…, \w+… was written"),
    "the last bit": ("__0_0.distcp", lambda path: flip(path, 0.999999), r"__0_0\.distcp has the sha256"),
    "a bit of the list of tensors": (".metadata", lambda path: flip(path, 0.5), r"\.metadata has the sha256"),
    "cut": ("__0_0.distcp", truncate, r"__0_0\.distcp has \d+ bytes, \d+ were written"),
    "empty": (".metadata", lambda path: path.write_bytes(b""), r"\.metadata has 0 bytes"),
    "gone": ("__0_0.distcp", Path.unlink, r"__0_0\.distcp is missing"),
    "a cut record": ("checkpoint.json", lambda path: path.write_bytes(path.read_bytes()[:-20]), r"checkpoint\.json"),
    "a record of something else": ("checkpoint.json", lambda path: path.write_text("[1]\n"), r"checkpoint\.json"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_refused_and_the_one_before_it_offered(copied: Run, whole: Run, damage: str) -> None:
    file, spoil, expected = DAMAGES[damage]
    spoil(copied.checkpoints / "step-8" / file)
    before = state_of(copied)
    with pytest.raises(PipelineError, match=rf"step-8 .*damaged: .*{expected}.*RESUME=step-4") as caught:
        pretrain(copied.store, copied.name, resume="step-8")
    assert "\n" not in str(caught.value) and state_of(copied) == before


def test_what_is_offered_works(copied: Run, whole: Run) -> None:
    flip(copied.checkpoints / "step-12" / "__0_0.distcp", 0.5)
    with pytest.raises(PipelineError, match="RESUME=step-8"):
        pretrain(copied.store, copied.name, resume="1")
    with pytest.raises(PipelineError, match="step-12"):
        anneal(copied.store, copied.name)
    run = pretrain(copied.store, copied.name, resume="step-8")
    assert losses(run) == losses(whole)
    assert_same(tensors(find(run)), tensors(find(whole)))  # a sound one is in the place of the damaged one


def test_the_record_cannot_be_damaged_unseen(copied: Run) -> None:
    """A bit anywhere in checkpoint.json: an error, or the same record; never another step, rate or identity."""
    folder = copied.checkpoints / "step-4"
    expected, path = read_record(folder), folder / "checkpoint.json"
    content = path.read_bytes()
    rng = random.Random(1)
    for _ in range(150):
        spoilt = bytearray(content)
        spoilt[rng.randrange(len(content))] ^= 1 << rng.randrange(7)
        path.write_bytes(spoilt)
        try:
            assert read_record(folder) == expected
        except PipelineError as error:
            assert "RESUME=" in str(error) or "anew" in str(error)


def test_a_checkpoint_without_its_record_is_none(copied: Run) -> None:
    (copied.checkpoints / "step-12" / "checkpoint.json").unlink()
    with pytest.raises(PipelineError, match=r"step-12.*step-8"):
        pretrain(copied.store, copied.name, resume="1")
    assert steps_of(copied) == [4, 8]


def test_the_first_checkpoint_has_none_before_it(copied: Run) -> None:
    flip(copied.checkpoints / "step-4" / ".metadata", 0.5)
    with pytest.raises(PipelineError, match="none before it"):
        pretrain(copied.store, copied.name, resume="step-4")


def test_what_a_kill_left_is_cleared_away(copied: Run) -> None:
    """Folders that were being written or removed, and a whole one that was not yet named."""
    for name in (".tmp-step-10", ".tmp-step-12", ".tmp-old-step-12", ".tmp-old-step-8"):
        shutil.copytree(copied.checkpoints / "step-8", copied.checkpoints / name)
    (copied.checkpoints / "latest").write_text("step-8\n")  # killed between the two renames of step 12
    run = pretrain(copied.store, copied.name, resume="1")
    assert (latest(run), kept(run)) == ("step-12", ["latest", "step-12", "step-4", "step-8"])


def test_a_broken_record_of_a_run_is_said(copied: Run) -> None:
    (copied.folder / "run.json").write_text(json.dumps({"name": "x"}))
    with pytest.raises(PipelineError, match=r"run\.json"):
        pretrain(copied.store, copied.name, resume="1")
