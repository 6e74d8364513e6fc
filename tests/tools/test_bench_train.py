"""The bench of training steps: everyone computes the same, time is booked where it is spent, the verdicts compare the right ones."""

import time
from typing import Any

import pytest
import torch
from torch import Tensor

from tools import where_time_goes
from tools.bench_train import STEP, ContenderFailed, Running, reached
from tools.train_contenders import Contender, Step, build, parts_of

pytestmark = pytest.mark.slow  # of what measures, and measured with a second each

TINY = {
    "model.d_model": "32", "model.layers": "2", "model.heads": "2", "model.experts": "8", "model.top_k": "2", "model.expert_width": "16",
    "model.vocab_size": "500", "model.padded_vocab": "512", "train.sequence_length": "32", "train.batch_tokens": "256",
}  # fmt: skip
NO_ROUTER_LOSS = {"loss.load_balancing": "0", "loss.z": "0"}  # where transformers' definition is another


def contender(experts: str | None = None, **more: str) -> Contender:
    return Contender("someone", "olmoe-small", TINY | {key.replace("__", "."): value for key, value in more.items()}, 1, experts)


@pytest.mark.parametrize("experts", ["eager", "grouped_mm"])
def test_steps_of_transformers_are_the_same_computation(experts: str) -> None:
    ours = build(Contender("ours", "olmoe-small", TINY | NO_ROUTER_LOSS, 1))
    theirs = build(Contender("theirs", "olmoe-small", TINY | NO_ROUTER_LOSS, 1, experts))
    losses = [(ours.run(), theirs.run()) for _ in range(4)]
    assert losses[-1][0] < losses[0][0] - 0.01  # they do learn
    for mine, other in losses:
        assert mine == pytest.approx(other, rel=1e-5)


def test_parts_of_a_step_sum_to_it_and_the_dense_model_has_no_router() -> None:
    sparse, dense = (parts_of(build(contender(model__ffn=ffn))) for ffn in ("moe", "dense"))
    assert set(sparse) == set(where_time_goes.PARTS) - {where_time_goes.DENSE}
    assert where_time_goes.DENSE in dense
    assert not {where_time_goes.EXPERTS, where_time_goes.DISPATCH} & set(dense)
    assert all(seconds > 0 for seconds in sparse.values())


class Slow(torch.autograd.Function):
    """Takes 20 ms, and 60 ms on the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        time.sleep(0.02)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        time.sleep(0.06)
        return grad.clone()


@pytest.mark.parametrize("part", [where_time_goes.ATTENTION, where_time_goes.ROUTER, where_time_goes.EXPERTS])
def test_time_of_both_passes_is_booked_on_the_part_that_spends_it(part: str) -> None:
    step = build(contender(model__layers="1"))
    block: Any = step.model.blocks[0]  # type: ignore[index, union-attr]
    module = {
        where_time_goes.ATTENTION: block.attention, where_time_goes.ROUTER: block.ffn.router, where_time_goes.EXPERTS: block.ffn.experts,
    }[part]  # fmt: skip
    module.forward = slowed(module.forward)
    micro_batches = 2
    assert parts_of(step)[part] >= micro_batches * (0.02 + 0.06)


def slowed(forward: Any) -> Any:
    return lambda x, *rest: forward(Slow.apply(x), *rest)


@pytest.mark.slow
def test_a_contender_that_ends_is_named() -> None:
    with Running(Contender("a misspelt one", "olmo-small", {}, 1), {}) as running, pytest.raises(ContenderFailed, match="a misspelt one"):
        running.ask(STEP)


def measured(speed: float, peak: float, loss: float = 10.0) -> dict[str, float]:
    return {"tokens_per_second": speed, "peak_mb": peak, "first_loss": loss}


def test_verdicts_compare_with_the_fastest_transformers() -> None:
    found = {
        "ours": measured(1400, 900), "ours, compiled": measured(1500, 1000), "ours, dense": measured(2500, 800, 10.2),
        "transformers, eager": measured(700, 1000), "transformers, grouped_mm": measured(1000, 2000, 10.0001),
        "transformers, grouped_mm, memory kept": measured(1900, 2000),
    }  # fmt: skip
    lines = {line["what"]: (pytest.approx(line["found"], rel=1e-3), line["enough"]) for line in reached(found)}
    assert list(lines.values()) == [(1.4, True), (1.5, False), (0.45, True), (0.56, True), (1e-5, True)]


def test_a_step_is_built_with_the_optimizer_of_its_configuration() -> None:
    step: Step = build(contender(optim__lr="0.5", optim__weight_decay="0.25"))
    assert all(group["lr"] == 0.5 and group["weight_decay"] == 0.25 and group["fused"] for group in step.optimizer.param_groups)
