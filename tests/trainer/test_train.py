"""The loop: what a step leaves behind, that runs repeat bit by bit, and what stops one."""

import json
import math
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.reader import MixReader
from pipeline.store import Store
from tests.trainer import tiny
from tests.trainer.tiny import CONFIG, STEPS, after_step, anneal, assert_same, changed, go_on, latest, losses, pretrain, rows, tensors
from trainer import train
from trainer.checkpoint import Progress, find, read_record
from trainer.config import annealing, load_config
from trainer.run import Run
from trainer.train import Diverged, Trainer, learning_rate


@pytest.fixture(scope="module")
def store(built: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.store_of(built, tmp_path_factory.mktemp("train"))


@pytest.fixture(scope="module")
def whole(store: Path) -> Run:
    """An undisturbed run."""
    return pretrain(store, "whole")


# What a run leaves behind


def test_every_step_is_recorded_with_its_rate_and_its_losses(whole: Run) -> None:
    found = rows(whole)
    assert [row["step"] for row in found] == list(range(1, STEPS + 1))
    assert [row["tokens"] for row in found] == [512 * step for step in range(1, STEPS + 1)]
    for row in found:
        seen = row["tokens"]  # up to 3e-3 over 2,048 tokens, down by half a cosine to a tenth at 6,144
        up = 3e-4 + 2.7e-3 * seen / 2048
        down = 3e-4 + 2.7e-3 * np.cos(np.pi / 2 * (seen - 2048) / 4096) ** 2
        assert row["learning_rate"] == pytest.approx(up if seen < 2048 else down, rel=1e-12)
        assert row["loss"] == pytest.approx(row["cross_entropy"] + 0.01 * row["load_balancing"] + 0.001 * row["z"], rel=1e-6)
        assert row["load_balancing"] >= 0.99 and row["z"] > 0 and row["gradient_norm"] > 0
        assert 0 <= row["data_seconds"] <= row["seconds"] and row["tokens_per_second"] == pytest.approx(512 / row["seconds"])
        assert row["mfu"] is None and row["memory_mb"] > 50
        assert (row["masked"], row["spike"], row["skipped"]) == (0, None, False)
    assert found[0]["cross_entropy"] == pytest.approx(math.log(512) * 63 / 64, rel=0.01)  # nothing is known; the last position is unasked
    assert found[-1]["loss"] < found[0]["loss"] - 0.3


def test_every_token_reaches_two_experts_of_each_layer(whole: Run) -> None:
    found = rows(whole, "routers")
    assert [(row["step"], row["layer"]) for row in found] == [(step, layer) for step in range(1, STEPS + 1) for layer in (0, 1)]
    for row in found:
        assert len(row["loads"]) == 8 and sum(row["loads"]) == 512 * 2
        assert row["most_loaded"] == max(row["loads"]) / 1024 and row["least_loaded"] == min(row["loads"]) / 1024
        assert 0 < row["router_entropy"] <= math.log(8) + 1e-6 and 0 < row["logit_rms"] <= row["logit_max"]


def test_the_instances_of_a_step_are_those_of_the_mix(whole: Run) -> None:
    reader = MixReader(whole.store / "mixes" / "small.lock.json")
    places = [reader.locate(index) for index in range(8 * STEPS)]
    expected = [
        {"run": "whole", "step": place.index // 8 + 1, "rank": 0, "position": place.index % 8, "source": place.source,
         "shard": place.shard, "start": place.start, "length": 64} for place in places
    ]  # fmt: skip
    assert rows(whole, "instances") == expected


def test_held_out_text_is_evaluated_at_the_beginning_the_intervals_and_the_end(whole: Run) -> None:
    found = rows(whole, "evals")
    assert [(row["step"], row["source"]) for row in found] == [(step, name) for step in (0, 6, 12) for name in ("web", "code", "wiki")]
    assert all(row["tokens"] == row["instances"] * 63 and row["bits_per_byte"] > 0 for row in found)
    for source in ("web", "code", "wiki"):
        before, after = ([row["loss"] for row in found if row["source"] == source and row["step"] == step] for step in (0, 12))
        assert after < before


def test_a_run_says_what_it_is(whole: Run) -> None:
    plan = whole.plan
    assert (plan.name, plan.kind, plan.mix, plan.config, plan.parent) == ("whole", "pretrain", "small", CONFIG, None)
    lock = MixReader(whole.lock, whole.store).lock
    assert plan.identity["fingerprint"] == lock.fingerprint and plan.identity["tokenizer_sha256"] == lock.tokenizer.sha256
    assert plan.code.startswith("0.1")


def test_equal_runs_are_equal_to_the_bit(store: Path, whole: Run) -> None:
    again = pretrain(store, "again")
    assert losses(again) == losses(whole)
    assert_same(tensors(find(again)), tensors(find(whole)))
    other = pretrain(store, "other", steps=1, set="train.seed=1")
    assert losses(other)[1] != losses(whole)[1]


def test_activation_checkpointing_changes_nothing(store: Path, whole: Run) -> None:
    run = pretrain(store, "recomputed", set="train.activation_checkpointing=true")
    assert losses(run) == losses(whole)
    assert_same(tensors(find(run)), tensors(find(whole)))  # names too: such a checkpoint fits either way


@pytest.mark.slow
def test_compilation_changes_no_loss(store: Path, whole: Run) -> None:
    run = pretrain(store, "compiled", steps=6, set="train.compile=true")
    found, expected = losses(run), losses(whole)
    assert [found[step] for step in range(1, 7)] == pytest.approx([expected[step] for step in range(1, 7)], rel=1e-6)


def test_64_instances_in_dolmas_layout_are_learnt_by_heart(store: Path, tmp_path: Path) -> None:
    tokens = MixReader(store / "mixes" / "small.lock.json", sequence_length=16).batch(range(64)).astype("<u2")
    (tmp_path / "tokens").mkdir()
    tokens[:40].tofile(tmp_path / "tokens" / "part-0-00000.npy")  # as Dolma's toolkit writes: no header, whatever the name says
    tokens[40:].tofile(tmp_path / "tokens" / "part-1-00000.npy")
    values = {
        "model.d_model": 64, "model.expert_width": 32, "loss.micro_batch": 16, "loss.chunk": 256, "train.sequence_length": 16,
        "train.batch_tokens": 512, "train.tokens": 512 * 2 * 45, "optim.lr": 1e-2, "optim.weight_decay": 0,
        "optim.schedule.warmup_tokens": 5120, "train.checkpoint_every": 1000, "train.evaluate_every": 1000,
    }  # fmt: skip
    run = pretrain(store, "overfit", mix=f"{tmp_path}/tokens", set=" ".join(f"{key}={value}" for key, value in values.items()))
    found = rows(run)
    assert len(found) == 90
    assert max(row["cross_entropy"] for row in found[-2:]) < 0.05  # an epoch: each instance once
    assert rows(run, "evals") == [] and not run.lock.exists()
    assert {row["shard"] for row in rows(run, "instances")} == {str(file) for file in (tmp_path / "tokens").iterdir()}


def test_the_length_of_annealing_can_be_set_either_way(store: Path, whole: Run) -> None:
    shutil.copytree(whole.folder, store / "models/to-anneal", dirs_exist_ok=True)
    assert len(rows(anneal(store, "to-anneal", set="anneal.tokens=1024"))) == 2
    shutil.rmtree(store / "models/to-anneal-small")
    assert len(rows(anneal(store, "to-anneal", tokens="1536"))) == 3


# What stops a run


def test_a_run_is_trained_by_one_process_at_a_time(store: Path) -> None:
    with Run(store, "busy").held(), pytest.raises(ConfigError, match="run busy is being trained by another process"):
        pretrain(store, "busy")
    assert not Run(store, "busy").folder.exists()
    assert pretrain(store, "busy", steps=1).has_checkpoints


def test_an_evaluation_that_a_kill_left_out_is_made_up_for(store: Path, whole: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoint of step 12 is written before its evaluation."""
    evaluate = Trainer._evaluate

    def killed(trainer: Trainer, step: int) -> None:
        if step == 12:
            trainer.checkpoints.wait()
            raise MemoryError
        evaluate(trainer, step)

    with monkeypatch.context() as patched, pytest.raises(MemoryError):
        patched.setattr(Trainer, "_evaluate", killed)
        pretrain(store, "unevaluated", steps=12, tokens="8192")
    run = pretrain(store, "unevaluated", resume="1")
    assert [row["step"] for row in rows(run, "evals") if row["source"] == "web"] == [0, 6, 12, 16]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_after_its_step_with_a_checkpoint(
    store: Path, whole: Run, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    name, before = f"stopped-{number}", signal.getsignal(number)
    with monkeypatch.context() as patched:
        # Sent when step 5 is done; the loop looks at signals once a step, when all ranks talk.
        after_step(patched, 5, lambda: os.kill(os.getpid(), number))
        run = pretrain(store, name)
    assert (latest(run), max(losses(run))) == ("step-6", 6)
    assert signal.getsignal(number) is before
    assert losses(pretrain(store, name, resume="1")) == losses(whole)
    assert_same(tensors(find(run)), tensors(find(whole)))


def test_a_second_interrupt_does_not_wait(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    after_step(monkeypatch, 3, twice)
    with pytest.raises(KeyboardInterrupt):
        pretrain(store, "interrupted")
    assert max(losses(Run(store, "interrupted"))) == 3  # what was measured is kept


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_step_that_is_not_finite_is_not_taken(store: Path, monkeypatch: pytest.MonkeyPatch, whole: Run, what: str) -> None:
    """At step 6 the loss, or one gradient, becomes infinite."""
    made, seen = tiny.trainers(monkeypatch), []
    forward_backward = train.forward_backward

    def spoilt(*arguments: Any) -> Any:
        statistics = forward_backward(*arguments)
        seen.append(statistics)
        if len(seen) == 6 and what == "loss":
            statistics.losses[2][0] = math.inf
        elif len(seen) == 6:
            made[0].model.blocks[1].ffn.experts.down.grad[3, 2, 1] = math.nan
        return statistics

    snapshot: dict[str, torch.Tensor] = {}
    with monkeypatch.context() as patched:
        patched.setattr(train, "forward_backward", spoilt)
        after_step(patched, 5, lambda: snapshot.update({name: value.clone() for name, value in made[0].model.state_dict().items()}))
        with pytest.raises(Diverged, match=r"step 6 of run .* nothing was updated with it.*failure-step-6\.json.*RESUME=step-"):
            pretrain(store, f"spoilt-{what}")
    assert_same(snapshot, made[0].model.state_dict())
    run = Run(store, f"spoilt-{what}")
    failure = json.loads((run.folder / "failure-step-6.json").read_text())
    assert failure["step"] == 6
    assert failure["loss" if what == "loss" else "gradient_norm"] == {"loss": "inf", "gradient": "nan"}[what]
    assert [(part["rank"], part["positions"]) for part in failure["micro_batches"]] == [(0, [0, 1]), (0, [2, 3]), (0, [4, 5]), (0, [6, 7])]
    assert [math.isfinite(float(part["loss"])) for part in failure["micro_batches"]] == [True, True, what != "loss", True]
    expected = [row for row in rows(whole, "instances") if row["step"] == 6]
    assert [(row["shard"], row["start"]) for row in failure["instances"]] == [(row["shard"], row["start"]) for row in expected]
    assert failure["gradient_norms"].keys() == dict(made[0].model.named_parameters()).keys()
    if what == "gradient":
        assert next(iter(failure["gradient_norms"].items())) == ("blocks.1.ffn.experts.down", "nan")
    assert (latest(run), max(losses(run))) == ("step-4", 5)
    read_record(find(run))
    assert losses(pretrain(store, run.name, resume="1")) == losses(whole)


def test_an_absurd_learning_rate_stops_the_run(store: Path) -> None:
    with pytest.raises(Diverged):
        pretrain(store, "absurd", set="optim.lr=1e38")
    assert rows(Run(store, "absurd"))[0]["step"] == 1


@pytest.mark.parametrize("skip", [True, False])
def test_a_spike_is_reported_and_its_update_skipped_if_asked(
    store: Path, whole: Run, skip: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """The detector remembers 64 losses of 1, so the usual 6 is beyond all bounds."""
    name = f"spike-{skip}"
    run = pretrain(store, name, steps=4)
    spikes = {"loss": [0.9, 1.1] * 32, "gradient_norm": []}
    begin = Progress(4, 4 * 512, 3e-3, spikes)
    go_on(run, changed(train__skip_spikes=str(skip).lower(), train__checkpoint_every=1), begin, 5)
    row = rows(run)[-1]
    assert (row["step"], row["skipped"]) == (5, skip)
    assert row["spike"] == "loss 6.061, where 1 ± 0.1 is usual"
    assert row["loss"] == losses(whole)[5]
    told = [line for line in capsys.readouterr().err.splitlines() if "is usual" in line]
    assert told == [f"step 5: {row['spike']}{'; its update was skipped' if skip else ''}"]
    before, after = (tensors(run.checkpoints / f"step-{step}") for step in (4, 5))
    same = {name for name, value in before.items() if isinstance(value, torch.Tensor) and torch.equal(value, after[name])}
    tensors_there = {name for name, value in before.items() if isinstance(value, torch.Tensor)}
    assert same == tensors_there if skip else same == {"random.0.cpu"}
    assert read_record(find(run)).progress.spikes["loss"] == [*spikes["loss"], row["loss"]]  # a lasting change becomes the usual


# Annealing


def test_annealing_goes_on_from_the_last_checkpoint_and_ends_at_zero(store: Path, whole: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    made, began = tiny.trainers(monkeypatch), {}
    steps = train.Trainer._steps

    def noted(self: train.Trainer, *arguments: Any) -> Any:
        began.update({f"model.{name}": value.clone() for name, value in self.model.state_dict().items()})
        for name, parameter in self.model.named_parameters():
            began.update({f"optimizer.state.{name}.{key}": value.clone() for key, value in self.optimizer.state[parameter].items()})
        return steps(self, *arguments)

    monkeypatch.setattr(train.Trainer, "_steps", noted)
    run = anneal(store, "whole", set="train.checkpoint_every=1")
    assert run.name == "whole-small" and len(made) == 1
    final = tensors(find(whole))
    assert_same(began, {name: value for name, value in final.items() if name in began})
    assert len(began) == 21 * 4  # each weight, its two moments and its count of steps

    rates = [row["learning_rate"] for row in rows(run)]
    last = rows(whole)[-1]["learning_rate"]
    assert rates == pytest.approx([last * (1 - step / 5) for step in range(1, 6)], rel=1e-12) and rates[-1] == 0.0
    assert_same(tiny.weights(run.checkpoints / "step-4"), tiny.weights(run.checkpoints / "step-5"))  # a rate of zero changes nothing
    plan = run.plan
    assert plan.kind == "anneal" and plan.parent is not None
    assert (plan.parent.run, plan.parent.step, plan.parent.tokens, plan.parent.learning_rate) == ("whole", 12, 6144, last)
    before = {row["source"]: row["loss"] for row in rows(whole, "evals") if row["step"] == 12}
    assert {row["source"]: row["loss"] for row in rows(run, "evals") if row["step"] == 0} == before


def test_annealing_stops_and_goes_on_as_pretraining_does(store: Path, whole: Run) -> None:
    pretrain(store, "parent", steps=4)
    straight = anneal(store, "parent")
    expected, final = losses(straight), tensors(find(straight))
    straight.folder.rename(store / "models" / "away")
    assert losses(anneal(store, "parent", steps=2)).keys() == {1, 2}
    again = anneal(store, "parent", resume="1")
    assert losses(again) == expected
    assert_same(tensors(find(again)), final)


def test_the_published_schedule() -> None:
    config = load_config("olmoe-1b-7b")
    batch = 1024 * 4096
    assert config.train.batch_tokens == batch
    rates = [learning_rate(config, step * batch) for step in (0, 1250, 2499, 2500, 2501)]
    assert rates[0] == pytest.approx(4e-5) and rates[1] == pytest.approx((4e-5 + 4e-4) / 2)
    assert rates[2] < rates[3] == 4e-4 and rates[4] == pytest.approx(4e-4, rel=1e-6)
    assert learning_rate(config, 5 * 10**12) == pytest.approx(4e-5) == learning_rate(config, 5033 * 10**9)
    final = annealing(config, learning_rate(config, config.steps * batch))
    assert final.steps == 23_842
    assert learning_rate(final, 0) == pytest.approx(4e-5)
    assert learning_rate(final, 23_842 * batch) == 0.0 < learning_rate(final, 23_841 * batch)
    assert learning_rate(final, 11_921 * batch) == pytest.approx(2e-5, rel=1e-3)
