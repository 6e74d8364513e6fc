"""One step's gradients: those of the mean over its micro-batches, nothing from masked instances; and what is counted."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.trainer.tiny import CONFIG, changed
from trainer.config import Config
from trainer.data import MicroBatch
from trainer.losses import IGNORED
from trainer.model import Transformer
from trainer.parallel import initialise
from trainer.step import Statistics, forward_backward

CPU = torch.device("cpu")
PLAIN = changed(loss__load_balancing=0, loss__z=0)


def drawn(masked: Sequence[int] = (), instances: int = 8, size: int = 2) -> list[MicroBatch]:
    """Micro-batches of random tokens; instances `masked` have no label."""
    tokens = torch.randint(0, 500, (instances, 64), generator=torch.Generator().manual_seed(3))
    labels = tokens.clone()
    labels[list(masked)] = IGNORED
    nowhere = torch.zeros(size, dtype=torch.int64)
    return [
        MicroBatch(first, tokens[first : first + size], labels[first : first + size], None, nowhere) for first in range(0, instances, size)
    ]


def gradients(config: Config, batches: Sequence[MicroBatch]) -> tuple[dict[str, Tensor], Statistics]:
    model = Transformer(config.model)
    initialise(model, 1)
    statistics = forward_backward(model, batches, config, CPU)
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}, statistics


def close(left: dict[str, Tensor], right: dict[str, Tensor], relative: float = 1e-5) -> None:
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert (value - right[name]).abs().max() <= relative * right[name].abs().max() + 1e-9, name


def by_hand(config: Config, batches: Sequence[MicroBatch]) -> tuple[dict[str, Tensor], float]:
    """Gradients and value of the step's loss, written out: all logits at once, the published mean over all positions."""
    model = Transformer(config.model)
    initialise(model, 1)
    losses = []
    for batch in batches:
        output = model(batch.input_ids)
        logits = model.head(output.hidden_BSD)[:, :-1]
        asked = batch.labels[:, 1:] != IGNORED
        summed = F.cross_entropy(logits[asked], batch.input_ids[:, 1:][asked], reduction="sum")
        loss = summed / batch.input_ids.numel()
        for routing in output.routings:
            shares = torch.bincount(routing.experts_Tk.flatten(), minlength=8) / routing.experts_Tk.numel()
            balance = 8 * (shares * routing.logits_TE.softmax(-1).mean(0)).sum()
            z = routing.logits_TE.exp().sum(-1).log().square().mean()
            loss = loss + (config.loss.load_balancing * balance + config.loss.z * z) / len(output.routings)
        losses.append(loss)
    mean = torch.stack(losses).mean()
    mean.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}, mean.item()


@pytest.mark.parametrize("masked", [(), (1, 4, 5)])
def test_a_steps_gradients_are_those_of_one_mean(masked: tuple[int, ...]) -> None:
    found, statistics = gradients(CONFIG, drawn(masked))
    expected, loss = by_hand(CONFIG, drawn(masked))
    close(found, expected)
    statistics.reduce()
    assert statistics.mean[0] == pytest.approx(loss, rel=1e-6)
    assert (statistics.masked, len(statistics.losses)) == (len(masked), 4)


def test_masked_instances_carry_no_gradient() -> None:
    """What stands in a masked instance does not matter; that it stands there does: the mean is over all positions."""
    batches = drawn(masked=(1, 6))
    others = drawn(masked=(1, 6))
    others[0].input_ids[1] = others[0].input_ids[1].roll(7)
    others[3].input_ids[0] = 17
    found, _ = gradients(PLAIN, batches)
    close(found, gradients(PLAIN, others)[0], relative=1e-6)
    whole, _ = gradients(PLAIN, drawn())
    assert (whole["head.weight"] - found["head.weight"]).abs().max() > 1e-3 * whole["head.weight"].abs().max()


def test_only_masked_instances_give_no_gradient_at_all() -> None:
    found, statistics = gradients(PLAIN, drawn(masked=range(8)))
    assert len(found) == 21 and not any(value.any() for value in found.values())
    statistics.reduce()
    assert statistics.mean[:2] == [0.0, 0.0] and statistics.masked == 8


def test_the_routers_are_counted_over_all_micro_batches() -> None:
    batches = drawn()
    _, statistics = gradients(CONFIG, batches)
    statistics.reduce()
    assert statistics.loads_LE.sum(dim=1).tolist() == [8 * 64 * 2] * 2
    model = Transformer(CONFIG.model)
    initialise(model, 1)
    routings = [model(batch.input_ids).routings for batch in batches]
    for layer in range(2):
        logits = torch.cat([routing[layer].logits_TE for routing in routings]).detach().double()
        chosen = logits.topk(2).indices
        assert statistics.loads_LE[layer].tolist() == torch.bincount(chosen.flatten(), minlength=8).tolist()
        entropy = torch.distributions.Categorical(logits=logits).entropy().sum()
        assert float(statistics.entropy_L[layer]) == pytest.approx(float(entropy), rel=1e-5)
        assert float(statistics.squares_L[layer]) == pytest.approx(float(logits.square().sum()), rel=1e-5)
        assert float(statistics.maximum_L[layer]) == pytest.approx(float(logits.abs().max()))


def test_a_dense_model_has_no_routers_to_count() -> None:
    dense = changed(model__ffn="dense", loss__load_balancing=0, loss__z=0)
    found, statistics = gradients(dense, drawn())
    assert statistics.reduce(3, 0) == [3, 0]
    assert statistics.loads_LE.numel() == 0 and statistics.mean[2:] == [0.0, 0.0] and len(found) == 2 * 8 + 3
