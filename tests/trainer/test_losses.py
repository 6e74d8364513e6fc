"""The losses against direct transcriptions of their equations."""

import math
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as processes
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from trainer.config import LossConfig
from trainer.losses import IGNORED, auxiliary_losses, chunked_cross_entropy, load_balancing_loss, shift_labels, z_loss
from trainer.routing import Routing, choose_experts


def routing_of(logits: Tensor, k: int) -> Routing:
    p = logits.softmax(-1)
    experts, rows = choose_experts(p, k)
    return Routing(logits, p, rows.ends_E.diff(prepend=rows.ends_E.new_zeros(1)).long(), experts)


def random_logits(seed: int, tokens: int = 30, experts: int = 6) -> Tensor:
    return 2 * torch.randn(tokens, experts, generator=torch.Generator().manual_seed(seed))


def load_balancing_transcribed(logits: list[list[float]], k: int) -> float:
    T, E = len(logits), len(logits[0])
    counts, means = [0] * E, [0.0] * E
    for row in logits:
        total = sum(math.exp(x) for x in row)
        p = [math.exp(x) / total for x in row]
        for expert in sorted(range(E), key=lambda e: -p[e])[:k]:
            counts[expert] += 1
        means = [mean + x / T for mean, x in zip(means, p, strict=True)]
    return E / (T * k) * sum(n * mean for n, mean in zip(counts, means, strict=True))


def test_the_load_balancing_loss_is_its_equation_layer_by_layer() -> None:
    layers = [random_logits(seed) for seed in range(3)]
    wanted = sum(load_balancing_transcribed(logits.tolist(), 2) for logits in layers) / 3
    got = auxiliary_losses([routing_of(logits, 2) for logits in layers], LossConfig(z=0), 2)
    assert got.load_balancing.item() == pytest.approx(wanted, rel=1e-6)
    assert got.total.item() == pytest.approx(0.01 * wanted, rel=1e-6)


@pytest.mark.parametrize("k", [1, 2, 4])
def test_balanced_routing_costs_exactly_the_weight(k: int) -> None:
    E = 8
    logits = torch.stack([torch.linspace(3, -3, E).roll(shift) for shift in range(E)]).repeat(4, 1)
    auxiliary = auxiliary_losses([routing_of(logits, k)] * 5, LossConfig(z=0), k)
    assert auxiliary.load_balancing.item() == pytest.approx(1, rel=1e-6)
    assert auxiliary.total.item() == pytest.approx(0.01, rel=1e-6)


def test_collapsed_routing_costs_E_over_k() -> None:
    logits = torch.zeros(16, 8)
    logits[:, :2] = 40
    assert load_balancing_loss(routing_of(logits, 2)).item() == pytest.approx(8 / 2, rel=1e-6)


def test_layers_that_err_in_opposite_ways_do_not_cancel() -> None:
    logits = torch.zeros(16, 2)
    logits[:, 0] = 5
    layers = [routing_of(logits, 1), routing_of(logits.flip(1), 1)]
    assert auxiliary_losses(layers, LossConfig(), 1).load_balancing > 1.9  # pooled over layers it would be 1


def test_transformers_function_is_k_times_ours_on_one_layer() -> None:
    from transformers.models.olmoe.modeling_olmoe import load_balancing_loss_func

    logits = random_logits(4)
    theirs = load_balancing_loss_func((logits,), num_experts=6, top_k=2)
    torch.testing.assert_close(theirs, 2 * load_balancing_loss(routing_of(logits, 2)))


def test_the_gradient_of_the_load_balancing_loss_flows_through_probabilities_alone() -> None:
    logits = random_logits(5).requires_grad_()
    load_balancing_loss(routing_of(logits, 2)).backward()
    counts = routing_of(logits.detach(), 2).loads_E.float()
    again = logits.detach().clone().requires_grad_()
    (6 / (30 * 2) * (counts * again.softmax(-1).mean(0)).sum()).backward()
    assert logits.grad is not None and again.grad is not None
    torch.testing.assert_close(logits.grad, again.grad)


def test_the_z_loss_is_its_equation_and_divides_by_k_on_request() -> None:
    layers = [random_logits(seed) for seed in range(3)]
    rows = [row for logits in layers for row in logits.tolist()]
    wanted = sum(math.log(sum(math.exp(x) for x in row)) ** 2 for row in rows) / len(rows)
    routings = [routing_of(logits, 2) for logits in layers]
    assert auxiliary_losses(routings, LossConfig(load_balancing=0), 2).total.item() == pytest.approx(0.001 * wanted, rel=1e-6)
    released = LossConfig(load_balancing=0, z_divided_by_top_k=True)
    assert auxiliary_losses(routings, released, 8).total.item() == pytest.approx(0.001 / 8 * wanted, rel=1e-6)


def test_the_z_loss_survives_logits_that_overflow_exp() -> None:
    assert z_loss(routing_of(torch.full((2, 4), 200.0), 1)).item() == pytest.approx((200 + math.log(4)) ** 2, rel=1e-6)


def test_a_loss_that_is_off_leaves_no_gradient() -> None:
    logits = random_logits(6).requires_grad_()
    off = auxiliary_losses([routing_of(logits, 2)], LossConfig(load_balancing=0, z=0), 2)
    assert off.total.item() == 0 and not off.total.requires_grad
    assert off.load_balancing > 0 and off.z > 0  # still measured


def test_a_dense_model_has_no_auxiliary_losses() -> None:
    assert auxiliary_losses([], LossConfig(), 8).total.item() == 0


def head(vocabulary: int = 40, width: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(3, 10, width, generator=generator).requires_grad_()
    w = torch.randn(vocabulary, width, generator=generator).requires_grad_()
    labels = torch.randint(0, vocabulary, (3, 10), generator=generator)
    labels[:, -1] = IGNORED
    labels[1, 3:6] = IGNORED
    return x, w, labels


@pytest.mark.parametrize("chunk", [1, 7, 30, 1000])
def test_chunked_cross_entropy_equals_the_whole_one_with_its_gradients(chunk: int) -> None:
    x, w, labels = head()
    whole = F.cross_entropy((x @ w.T).flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum") / 30
    wanted = torch.autograd.grad(3 * whole, (x, w))
    chunked = chunked_cross_entropy(x, w, labels, chunk)
    torch.testing.assert_close(chunked.mean, whole)
    for got, want in zip(torch.autograd.grad(3 * chunked.mean, (x, w)), wanted, strict=True):
        torch.testing.assert_close(got, want)


def test_the_denominator_counts_every_position_masked_or_not() -> None:
    x, w, labels = head()
    losses = F.cross_entropy((x @ w.T).flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none").view(3, 10)
    result = chunked_cross_entropy(x, w, labels)
    torch.testing.assert_close(result.losses_BS, losses.detach())
    assert not result.losses_BS.requires_grad
    torch.testing.assert_close(result.mean, losses.sum() / 30)


def test_masked_positions_carry_no_gradient() -> None:
    x, w, labels = head()
    chunked_cross_entropy(x, w, labels).mean.backward()
    assert x.grad is not None
    assert x.grad[labels == IGNORED].abs().max() == 0 and (x.grad[labels != IGNORED].abs().amax(-1) > 0).all()


def test_an_instance_that_is_masked_whole_costs_nothing_and_is_no_nan() -> None:
    x, w, labels = head()
    result = chunked_cross_entropy(x, w, torch.full_like(labels, IGNORED))
    result.mean.backward()
    assert result.mean.item() == 0 and w.grad is not None and w.grad.abs().max() == 0


@pytest.mark.parametrize("chunk", [4, 1000])
@pytest.mark.parametrize("scale", [20, 1000])  # some probabilities underflow float32; almost all
def test_losses_beyond_the_least_probability_are_exact_and_their_gradients_too(scale: float, chunk: int) -> None:
    x, w, labels = head()
    x = (scale * x.detach()).requires_grad_()
    result = chunked_cross_entropy(x, w, labels, chunk)
    result.mean.backward()
    exact_x, exact_w = (value.detach().double().requires_grad_() for value in (x, w))
    losses = F.cross_entropy((exact_x @ exact_w.T).flatten(0, 1), labels.flatten(), reduction="none", ignore_index=IGNORED)
    (losses.sum() / labels.numel()).backward()
    assert losses.max() > 87.4  # −ln of float32's least normal number
    torch.testing.assert_close(result.losses_BS.flatten(), losses.float().detach(), rtol=1e-5, atol=1e-4)
    for found, exact in ((x.grad, exact_x.grad), (w.grad, exact_w.grad)):
        assert found is not None and exact is not None
        torch.testing.assert_close(found, exact.float(), rtol=1e-4, atol=1e-5 * float(exact.abs().max()))


def test_bfloat16_weights_are_summed_in_float32() -> None:
    x, w, labels = head()
    exact = chunked_cross_entropy(x.detach().bfloat16().float(), w.detach().bfloat16().float(), labels).mean
    rough = chunked_cross_entropy(x.detach().bfloat16(), w.detach().bfloat16(), labels).mean
    assert rough.dtype == torch.float32
    assert rough.item() == pytest.approx(exact.item(), rel=5e-3)


def test_cross_entropy_without_gradients_gives_the_same_value() -> None:
    x, w, labels = head()
    with torch.no_grad():
        quiet = chunked_cross_entropy(x, w, labels).mean
    assert torch.equal(quiet, chunked_cross_entropy(x, w, labels).mean.detach())


def test_without_gradients_only_the_logits_are_multiplied_out() -> None:
    x, w, labels = head(vocabulary=400, width=32)
    logits = 2 * x[..., 0].numel() * w.numel()
    with FlopCounterMode(display=False) as with_gradients:
        chunked_cross_entropy(x, w, labels, 7)
    with torch.no_grad(), FlopCounterMode(display=False) as without:
        chunked_cross_entropy(x, w, labels, 7)
    assert with_gradients.get_total_flops() > without.get_total_flops() == logits


def test_gradients_scale_with_what_follows_and_add_up_over_micro_batches() -> None:
    x, w, labels = head()
    for weight in (0.5, 0.25):
        (weight * chunked_cross_entropy(x, w, labels).mean).backward()
    once, v = (value.detach().clone().requires_grad_() for value in (x, w))
    chunked_cross_entropy(once, v, labels).mean.backward()
    assert x.grad is not None and once.grad is not None and w.grad is not None and v.grad is not None
    torch.testing.assert_close(x.grad, 0.75 * once.grad)
    torch.testing.assert_close(w.grad, 0.75 * v.grad)


def test_a_second_backward_is_refused() -> None:
    x, w, labels = head()
    mean = chunked_cross_entropy(x, w, labels).mean
    mean.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="used up"):
        mean.backward()


def test_labels_are_the_next_tokens_and_the_last_has_none() -> None:
    tokens = torch.tensor([[1, 2, 3], [4, 5, 6]])
    assert shift_labels(tokens).tolist() == [[2, 3, IGNORED], [5, 6, IGNORED]]
    keep = torch.tensor([[True, False, True], [False, False, False]])
    assert shift_labels(tokens, keep).tolist() == [[IGNORED, 3, IGNORED], [IGNORED] * 3]


def _global_gradient(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    logits = random_logits(8, tokens=60).chunk(2)[rank].clone().requires_grad_()
    auxiliary_losses([routing_of(logits, 2)], LossConfig(z=0, scope="global"), 2).total.backward()
    torch.save(logits.grad, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_the_global_scope_counts_the_tokens_of_all_ranks(tmp_path: Path) -> None:
    processes.spawn(_global_gradient, (str(tmp_path),), nprocs=2)
    together = random_logits(8, tokens=60).requires_grad_()
    auxiliary_losses([routing_of(together, 2)], LossConfig(z=0), 2).total.backward()
    parts = torch.cat([torch.load(tmp_path / f"{rank}.pt") for rank in range(2)])
    assert together.grad is not None
    torch.testing.assert_close(parts / 2, together.grad)  # data parallelism averages over ranks
