"""The optimizer's pieces: published schedules, who decays, clipping across shards, spikes."""

import json
import math
import os
import random
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from trainer.optim import SpikeDetector, adamw, clip_gradients, cosine, linear, parameter_groups, set_learning_rate

BATCH = 1024 * 4096
WARMUP, END = 10_485_760_000, 5_000_000_000_000


def olmoe(tokens: int) -> float:
    return cosine(tokens, 4e-4, WARMUP, END)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 4)
        self.norm = nn.RMSNorm(4)
        self.experts = nn.Parameter(torch.randn(3, 4, 4))
        self.frozen = nn.Parameter(torch.randn(4, 4), requires_grad=False)
        self.head = nn.Linear(4, 11, bias=False)


def test_olmoe_warms_up_for_2500_steps_from_a_tenth_of_the_peak() -> None:
    assert olmoe(0) == pytest.approx(4e-5)
    assert olmoe(1250 * BATCH) == pytest.approx(2.2e-4)
    assert olmoe(2499 * BATCH) < 4e-4
    assert olmoe(2500 * BATCH) == 4e-4
    assert olmoe(2501 * BATCH) < 4e-4


def test_olmoe_decays_to_a_tenth_at_five_trillion_tokens_and_stays_there() -> None:
    middle = (WARMUP + END) // 2
    assert olmoe(middle) == pytest.approx(2.2e-4)
    assert olmoe(5 * 10**12 - BATCH) == pytest.approx(4e-5, rel=1e-6)
    assert olmoe(5 * 10**12) == olmoe(5_133_000_000_000) == pytest.approx(4e-5, rel=1e-15)


def test_the_cosine_is_the_paper_s_for_every_step() -> None:
    for step in range(0, 1_200_000, 9973):
        tokens = step * BATCH
        if tokens < 10_485_760_000:
            expected = 4e-5 + (4e-4 - 4e-5) * tokens / 10_485_760_000
        else:
            share = min(1.0, (tokens - 10_485_760_000) / (5e12 - 10_485_760_000))
            expected = 4e-5 + (4e-4 - 4e-5) * (1 + math.cos(math.pi * share)) / 2
        assert olmoe(tokens) == pytest.approx(expected, rel=1e-12)


def test_the_annealing_s_23842_steps_end_at_zero() -> None:
    rates = [linear(step * BATCH, 4e-5, 100 * 10**9) for step in (0, 11_921, 23_841, 23_842, 30_000)]
    assert rates[0] == 4e-5
    assert rates[1] == pytest.approx(2e-5, rel=1e-4)
    assert 0 < rates[2] < 4e-5 / 23_841
    assert rates[3:] == [0.0, 0.0]


def test_a_line_may_warm_up_and_end_above_zero() -> None:
    rates = [linear(tokens, 2.0, 110, warmup=10, end_at=0.5, warmup_from=0.0) for tokens in (0, 5, 10, 60, 110, 200)]
    assert rates == pytest.approx([0.0, 1.0, 2.0, 1.5, 1.0, 1.0])


def test_a_schedule_that_cannot_be_is_refused() -> None:
    for tokens, warmup, end in ((-1, 0, 10), (0, 10, 10), (0, -1, 10), (0, 0, 0)):
        with pytest.raises(ValueError, match="warmup below end"):
            cosine(tokens, 1.0, warmup, end)
        with pytest.raises(ValueError, match="warmup below end"):
            linear(tokens, 1.0, end, warmup)


@pytest.mark.parametrize(
    ("norms", "embeddings", "spared"),
    [(True, True, []), (False, True, ["norm.weight"]), (True, False, ["embed.weight"]), (False, False, ["embed.weight", "norm.weight"])],
)
def test_decay_spares_norms_and_embeddings_if_told_to(norms: bool, embeddings: bool, spared: list[str]) -> None:
    model = Small()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, 0.1, decay_norms=norms, decay_embeddings=embeddings)
    found = {group["weight_decay"]: [names[id(parameter)] for parameter in group["params"]] for group in groups}
    everything = ["experts", "embed.weight", "norm.weight", "head.weight"]
    assert found == {0.1: [name for name in everything if name not in spared], **({0.0: spared} if spared else {})}


def test_a_tied_head_is_an_embedding_and_is_there_once() -> None:
    model = Small()
    model.head.weight = model.embed.weight
    decaying, spared = parameter_groups(model, 0.1, decay_embeddings=False)
    assert len(decaying["params"]) == 2
    assert spared["params"] == [model.embed.weight]


def test_a_frozen_model_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to train"):
        parameter_groups(Small().requires_grad_(False), 0.1)


def test_adamw_is_the_published_update() -> None:
    model = Small()
    optimizer = adamw(parameter_groups(model, 0.1, decay_norms=False), 4e-4, (0.9, 0.95), 1e-8)
    assert optimizer.defaults["fused"] is True
    expected = {name: parameter.detach().double() for name, parameter in model.named_parameters()}
    first = {name: torch.zeros_like(value) for name, value in expected.items()}
    second = {name: torch.zeros_like(value) for name, value in expected.items()}
    for step in range(1, 4):
        lr = 4e-4 / step
        set_learning_rate(optimizer, lr)
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.grad = torch.randn_like(parameter)
                gradient = parameter.grad.double()
                first[name] = 0.9 * first[name] + 0.1 * gradient
                second[name] = 0.95 * second[name] + 0.05 * gradient**2
                decay = 0.0 if name == "norm.weight" else 0.1
                update = first[name] / (1 - 0.9**step) / ((second[name] / (1 - 0.95**step)).sqrt() + 1e-8)
                expected[name] = expected[name] * (1 - lr * decay) - lr * update
        optimizer.step()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.double(), expected[name], rtol=1e-6, atol=1e-7)


def test_clipping_scales_to_the_norm_and_reports_the_one_before() -> None:
    model = Small()
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter) if parameter.requires_grad else None
    before = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    norm = torch.cat([gradient.flatten() for gradient in before]).norm()
    torch.testing.assert_close(clip_gradients(model.parameters(), None), norm)
    torch.testing.assert_close(clip_gradients(model.parameters(), 1000.0), norm)
    torch.testing.assert_close(clip_gradients(model.parameters(), 1.0), norm)
    after = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    for gradient, clipped in zip(before, after, strict=True):
        torch.testing.assert_close(clipped, gradient / norm, rtol=1e-5, atol=1e-7)
    model.norm.weight.grad = torch.full((4,), math.inf)
    assert not clip_gradients(model.parameters(), 1.0).isfinite()


def test_clipping_before_backward_is_refused() -> None:
    with pytest.raises(ValueError, match="call backward first"):
        clip_gradients(Small().parameters(), 1.0)


SHARDED = """
import sys, torch, torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, Replicate, distribute_tensor
from trainer.optim import adamw, clip_gradients, parameter_groups
rank, world, address = int(sys.argv[1]), 2, sys.argv[2]
dist.init_process_group("gloo", rank=rank, world_size=world, init_method=address)
flat, grid = init_device_mesh("cpu", (2,)), init_device_mesh("cpu", (2, 1), mesh_dim_names=("a", "b"))
torch.manual_seed(0)
values = [torch.randn(7, 3), torch.randn(4), torch.randn(2, 3)]
gradients = [torch.randn_like(value) for value in values]
places = [(flat, [Shard(0)]), (grid, [Shard(0), Replicate()]), None]
model = nn.Module()
for number, (value, gradient, place) in enumerate(zip(values, gradients, places)):
    put = lambda tensor: distribute_tensor(tensor.clone(), *place) if place else tensor.clone()
    parameter = nn.Parameter(put(value)); parameter.grad = put(gradient)
    model.register_parameter(f"p{number}", parameter)
norm = clip_gradients(model.parameters(), 1.0)
truth = torch.cat([gradient.flatten() for gradient in gradients]).norm()
assert not isinstance(norm, DTensor) and torch.allclose(norm, truth), (norm, truth)
whole = lambda tensor: tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
for parameter, gradient in zip(model.parameters(), gradients):
    assert torch.allclose(whole(parameter.grad), gradient / truth, rtol=1e-5)
plain = nn.ParameterList(value.clone() for value in values)
for parameter, gradient in zip(plain, gradients): parameter.grad = gradient / truth
for which in (model, plain):
    adamw(parameter_groups(which, 0.1, decay_norms=False), 1e-2, (0.9, 0.95), 1e-8).step()
for sharded, parameter in zip(model.parameters(), plain.parameters()):
    assert torch.allclose(whole(sharded), parameter, rtol=1e-5, atol=1e-6)
dist.destroy_process_group()
print("equal")
"""


def test_sharded_gradients_on_several_meshes_are_clipped_and_stepped_as_whole_ones(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SHARDED]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    ranks = [
        subprocess.Popen([*command, str(rank), f"file://{tmp_path}/meet"], stdout=subprocess.PIPE, text=True, env=environment)
        for rank in range(2)
    ]
    assert [rank.communicate(timeout=120)[0] for rank in ranks] == ["equal\n", "equal\n"]


def series(count: int, seed: int = 0) -> list[tuple[float, float]]:
    """Losses and norms with a spike here and there."""
    draw = random.Random(seed)
    return [
        (draw.gauss(3, 0.1) + (5 if draw.random() < 0.01 else 0), draw.gauss(1, 0.2) + (9 if draw.random() < 0.01 else 0))
        for _ in range(count)
    ]


@pytest.mark.parametrize(("window", "deviations"), [(128, 6.0), (10, 2.0), (2, 1.0)])
def test_spikes_are_those_of_a_plain_recomputation(window: int, deviations: float) -> None:
    detector, values, found = SpikeDetector(window, deviations), series(600), 0
    for step, (loss, norm) in enumerate(values):
        expected = []
        for quantity, value, column in (("loss", loss, 0), ("gradient_norm", norm, 1)):
            before = [pair[column] for pair in values[max(0, step - window) : step]]
            if len(before) >= max(2, window // 2 - 1) and value > statistics.mean(before) + deviations * statistics.stdev(before):
                expected.append(quantity)
        assert [spike.quantity for spike in detector.observe(loss, norm)] == expected
        found += len(expected)
    assert found


def test_a_detector_saved_and_loaded_says_the_same() -> None:
    values = series(500, seed=1)
    whole, halves = SpikeDetector(), SpikeDetector()
    expected = [whole.observe(*pair) for pair in values]
    for cut in (0, 1, 63, 200, 499):
        halves = SpikeDetector()
        for pair in values[:cut]:
            halves.observe(*pair)
        state = json.loads(json.dumps(halves.state_dict()))
        resumed = SpikeDetector()
        resumed.observe(1e9, 1e9)  # whatever it held is forgotten
        resumed.load_state_dict(state)
        assert [str(resumed.observe(*pair)) for pair in values[cut:]] == [str(spikes) for spikes in expected[cut:]]
        assert resumed.state_dict() == whole.state_dict()


def test_what_is_not_finite_is_a_spike_and_is_not_remembered() -> None:
    detector = SpikeDetector(4)
    (spike,) = detector.observe(math.nan, 1.0)
    assert (spike.quantity, detector.state_dict()) == ("loss", {"loss": [], "gradient_norm": [1.0]})
    assert [spike.quantity for spike in detector.observe(2.0, math.inf)] == ["gradient_norm"]


def test_a_spike_says_what_is_usual() -> None:
    detector = SpikeDetector(4)
    for loss in (3.0, 3.1, 2.9):
        detector.observe(loss, 1.0)
    (spike,) = detector.observe(9.0, 1.0)
    assert str(spike) == "loss 9, where 3 ± 0.1 is usual"
