"""Several processes: the same run on any number of ranks, gone on with at any other, and killed at any moment."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from pipeline.store import Store
from tests.trainer import tiny
from tests.trainer.tiny import ENVIRONMENT, STEPS, assert_same, changed, kept, latest, losses, pretrain, rows, tensors, weights
from trainer.checkpoint import find, read_record
from trainer.parallel import prepare
from trainer.run import Run

ROUNDING = 1e-6  # relative, of losses


def start(store: Path, run: str, ranks: int, *arguments: str) -> subprocess.Popen[str]:
    """`make pretrain NPROC=<ranks> RUN=… RESUME=1 …`, which begins a run or goes on with it, in a session of its own."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)] if ranks > 1 else []
    command = [sys.executable, *launcher, "-m", *(["--"] if launcher else []), "trainer", "pretrain", "--model", str(store / "tiny.yaml"),
               "--mix", "small", "--run", run, "--store", str(store), "--resume", "1", *arguments]  # fmt: skip
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(command, env=os.environ | ENVIRONMENT, text=True, start_new_session=True, **pipes)


def finish(process: subprocess.Popen[str], seconds: float = 120) -> str:
    """Its output; a process that hangs is an error, and none is left behind."""
    try:
        return process.communicate(timeout=seconds)[0]
    except subprocess.TimeoutExpired:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.kill()
        pytest.fail(f"still running after {seconds} s; it said:\n{process.communicate()[0][-4000:]}")


def train(store: Path, run: str, ranks: int, *arguments: str) -> Run:
    process = start(store, run, ranks, *arguments)
    said = finish(process)
    assert process.returncode == 0, said[-4000:]
    return Run(store, run)


def assert_close(found: Run, expected: Run) -> None:
    """Equal within rounding: losses of all steps, held-out losses, weights in the end; and the same instances in each step."""
    assert losses(found) == pytest.approx(losses(expected), rel=ROUNDING)
    places = [[(row["step"], row["position"], row["shard"], row["start"]) for row in rows(run, "instances")] for run in (found, expected)]
    assert places[0] == places[1]
    evals = [{(row["step"], row["source"]): row["loss"] for row in rows(run, "evals")} for run in (found, expected)]
    assert evals[0] == pytest.approx(evals[1], rel=ROUNDING)
    theirs = weights(find(expected))
    for name, value in weights(find(found)).items():
        assert (value - theirs[name]).abs().max() <= 2e-5 * theirs[name].abs().max(), name


@pytest.fixture(scope="module")
def store(built: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.store_of(built, tmp_path_factory.mktemp("parallel"))


@pytest.fixture(scope="module")
def whole(store: Path) -> Run:
    """A run in one process."""
    return pretrain(store, "whole")


@pytest.fixture(scope="module")
def on_two(store: Path) -> Run:
    """The same on two ranks."""
    return train(store, "on-two", 2)


def test_two_processes_train_as_one(on_two: Run, whole: Run) -> None:
    assert_close(on_two, whole)
    assert [row["rank"] for row in rows(on_two, "instances")] == [0, 0, 0, 0, 1, 1, 1, 1] * STEPS
    for mine, theirs in zip(rows(on_two, "routers"), rows(whole, "routers"), strict=True):
        assert sum(mine["loads"]) == 1024 and mine["router_entropy"] == pytest.approx(theirs["router_entropy"], rel=1e-5)
    for mine, theirs in zip(rows(on_two), rows(whole), strict=True):
        assert [mine[key] for key in ("gradient_norm", "load_balancing", "z")] == pytest.approx(
            [theirs[key] for key in ("gradient_norm", "load_balancing", "z")], rel=1e-5
        )


def test_two_processes_leave_one_checkpoint(on_two: Run, whole: Run) -> None:
    assert (latest(on_two), kept(on_two)) == (latest(whole), kept(whole))
    record = read_record(find(on_two))
    assert record.world == 2 and {"__0_0.distcp", "__1_0.distcp", ".metadata", "tensors.json"} == record.files.keys()
    mine, theirs = tensors(find(on_two)), tensors(find(whole))
    assert mine.keys() - theirs.keys() == {"random.1.cpu"} and theirs.keys() <= mine.keys()


def test_what_two_processes_began_one_goes_on_with(on_two: Run, whole: Run) -> None:
    copy = Run(on_two.store, "on-one-after-two")
    shutil.copytree(on_two.folder, copy.folder)
    pretrain(copy.store, copy.name, resume="step-4")
    assert_close(copy, whole)
    assert [row["rank"] for row in rows(copy, "instances")] == [0, 0, 0, 0, 1, 1, 1, 1] * 4 + [0] * 8 * 8


def test_bfloat16_trains_on_masters_in_float32(store: Path, whole: Run) -> None:
    run = pretrain(store, "bfloat16", set="train.precision=bfloat16")
    assert losses(run) == pytest.approx(losses(whole), rel=0.01)
    assert losses(run) != losses(whole)
    assert {value.dtype for value in weights(find(run)).values()} == {torch.float32}


def test_with_more_ranks_than_experts_each_still_holds_a_part() -> None:
    """Stacked experts are cut along their first dimension, as long as that gives every rank some of them."""
    from trainer.parallel import _placement

    model = prepare_on_meta()
    experts = [parameter for parameter in model.parameters() if parameter.ndim == 3]
    assert len(experts) == 4
    assert {_placement(8)(parameter) for parameter in experts} == {None}
    assert {_placement(16)(parameter).dim for parameter in experts} == {1}
    assert {_placement(16)(parameter) for parameter in model.parameters() if parameter.ndim != 3} == {None}


def prepare_on_meta() -> torch.nn.Module:
    with tiny.alone_in_the_world() as world:
        return prepare(changed(), world)


# Slow: more ranks, signals, kills


@pytest.mark.slow
def test_two_then_one_then_four_processes_train_as_one(store: Path, whole: Run) -> None:
    for ranks, steps in ((2, 4), (1, 7), (4, 12)):
        run = train(store, "matrix", ranks, "--steps", str(steps))
        assert max(losses(run)) == steps and read_record(find(run)).world == ranks
    assert losses(run) == pytest.approx(losses(whole), rel=ROUNDING)
    assert [len({row["rank"] for row in rows(run, "instances") if row["step"] == step}) for step in (4, 7, 12)] == [2, 1, 4]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ranks", "words"),
    [
        (4, "model.experts=2 model.top_k=1"),  # more ranks than experts
        (2, "train.activation_checkpointing=true"),
        (2, "train.data_workers=1"),
        (2, "model.share_experts=true model.shared_expert=true model.document_masking=true"),
        (2, "optim.decay_norms=false optim.decay_embeddings=false"),
        (2, "model.ffn=dense loss.load_balancing=0 loss.z=0"),
        (2, "train.skip_spikes=true train.spike_deviations=0.5"),
    ],
)
def test_every_variant_trains_as_one(store: Path, ranks: int, words: str) -> None:
    name = words.partition("=")[0].replace(".", "-")
    alone = pretrain(store, f"{name}-1", set=words)
    assert_close(train(store, f"{name}-{ranks}", ranks, "--set", words), alone)


@pytest.mark.slow
def test_bfloat16_trains_on_two_processes(store: Path, whole: Run) -> None:
    run = train(store, "bfloat16-2", 2, "--set", "train.precision=bfloat16")
    assert losses(run) == pytest.approx(losses(whole), rel=0.01)


@pytest.mark.slow
def test_global_counts_are_those_of_all_ranks(store: Path) -> None:
    """With two micro-batches counted together the load-balancing loss is another, and not that of one rank."""
    words = "loss.scope=global"
    runs = [pretrain(store, "global-1", set=words), train(store, "global-2", 2, "--set", words)]
    first = [rows(run)[0] for run in runs]
    assert first[0]["cross_entropy"] == pytest.approx(first[1]["cross_entropy"], rel=ROUNDING)
    assert first[0]["load_balancing"] != pytest.approx(first[1]["load_balancing"], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_sigterm_to_a_process_finishes_its_step(store: Path, whole: Run, on_two: Run, ranks: int) -> None:
    """One rank is told; all stop after the same step. Alone, or told by its launcher, the run can be gone on with exactly."""
    process = start(store, f"told-{ranks}", ranks)
    run = Run(store, f"told-{ranks}")
    wait_for(lambda: len(list((run.folder / "metrics" / "steps").glob("*.parquet"))) > 0, process)
    told = psutil.Process(process.pid) if ranks == 1 else psutil.Process(process.pid).children()[-1]
    told.send_signal(signal.SIGTERM)
    said = finish(process)
    assert process.returncode == 0, said[-4000:]
    assert latest(run) == f"step-{max(losses(run))}"
    assert "Traceback" not in said
    train(store, run.name, ranks)
    assert losses(run) == losses({1: whole, 2: on_two}[ranks])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "ranks", "expected"),
    [
        (("--set", "model.qk_norm=false"), 2, "model.qk_norm: True → False"),
        (("--set", "train.tokens=10T"), 2, "the run asks for"),
        ((), 3, "3 ranks cannot share the 4 micro-batches of a step"),
    ],
)
def test_what_is_wrong_is_said_on_several_ranks_too(on_two: Run, arguments: tuple[str, ...], ranks: int, expected: str) -> None:
    process = start(on_two.store, "on-two", ranks, *arguments)
    said = finish(process, 60)
    assert process.returncode != 0 and expected in said
    assert "[rank" not in said  # no rank's traceback


@pytest.mark.slow
def test_damage_is_said_on_several_ranks_too(on_two: Run) -> None:
    copy = Run(on_two.store, "damaged")
    shutil.copytree(on_two.folder, copy.folder)
    path = copy.checkpoints / "step-12" / "__1_0.distcp"
    path.write_bytes(path.read_bytes()[:-1])
    said = finish(process := start(copy.store, copy.name, 2), 60)
    assert process.returncode != 0 and "__1_0.distcp has" in said and "RESUME=step-8" in said
    assert "[rank" not in said


KILLED = "train.checkpoint_every=2 train.evaluate_every=20"
TOKENS = "20480"  # 40 steps


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "victim"), [(1, "process"), (2, "rank"), (2, "launcher")])
def test_killed_at_random_moments_and_gone_on_with_gives_the_same_losses(store: Path, ranks: int, victim: str) -> None:
    """Kills fall into steps, evaluations and, as a checkpoint is written most of the time, into its writing."""
    straight = train(store, f"straight-{ranks}-{victim}", ranks, "--tokens", TOKENS, "--set", KILLED)
    rng, run, killed = random.Random(f"{ranks} {victim}"), Run(store, f"killed-{ranks}-{victim}"), 0
    for _ in range(6):
        process = start(store, run.name, ranks, "--tokens", TOKENS, "--set", KILLED)
        before = stamp(run)
        wait_for(lambda: stamp(run) != before, process)  # noqa: B023 - until it has begun to write
        time.sleep(rng.uniform(0, 0.6))
        killed += kill(process, victim)
        finish(process)
        if run.has_checkpoints:
            read_record(find(run))  # raises if what is named is not whole
    assert killed >= 3, "the runs were over too soon to test anything"
    train(store, run.name, ranks, "--tokens", TOKENS, "--set", KILLED)
    assert losses(run) == losses(straight)
    assert_same(tensors(find(run)), tensors(find(straight)))
    assert kept(run) == kept(straight)
    assert [row["step"] for row in rows(run, "checkpoints")] == list(range(2, 41, 2))


def stamp(run: Run) -> list[tuple[str, int]]:
    """Changes when anything is begun in the folder of checkpoints."""
    folder = run.checkpoints
    return sorted((path.name, path.stat().st_ino) for path in folder.iterdir()) if folder.exists() else []


def wait_for(what: object, process: subprocess.Popen[str], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if what():  # type: ignore[operator]
                return
        except FileNotFoundError:  # it is being renamed
            return
        time.sleep(0.005)


def kill(process: subprocess.Popen[str], victim: str) -> int:
    """SIGKILL; how many were killed. Ranks whose launcher is gone lose each other, or end by themselves."""
    if process.poll() is not None:
        return 0
    ranks = psutil.Process(process.pid).children()
    target = psutil.Process(process.pid) if victim != "rank" else ranks[-1]
    target.kill()
    if victim == "launcher":
        process.wait()
        for rank in ranks:  # they would go on by themselves: as if the node were gone
            rank.kill()
    return 1
