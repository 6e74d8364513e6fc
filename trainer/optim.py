"""From gradients to an update: who decays, AdamW, clipping, the learning rate, and when an update looks wrong.

In: a model's parameters with gradients, the tokens seen so far. Out: the pieces the loop calls, in this order:
`clip_gradients`, `SpikeDetector.observe`, `cosine` or `linear` into `set_learning_rate`, the optimizer's step.
Cost: AdamW keeps two numbers per parameter beside it; fused, a step reads and writes each once.
Not: no gradient scaler (BF16 needs none), no decision about what a spike or a norm that is not finite leads to.

The learning rate depends on tokens alone, so a run may change its batch and go on. OLMo counts a step's own batch
before it sets the rate: with `tokens` counted so, step 2,500 of OLMoE is the first at the peak, and the last of the
annealing's 23,842 steps has rate zero.
"""

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import AdamW, Optimizer

FUSED_ON = {"cpu", "cuda", "mps", "xpu"}


def parameter_groups(
    model: nn.Module, weight_decay: float, decay_norms: bool = True, decay_embeddings: bool = True
) -> list[dict[str, Any]]:
    """The trainable parameters as those that decay and those that do not, each once and in the model's order.

    Where parameters are sharded over several meshes, each mesh has its own groups: one kernel cannot update both.
    OLMoE decays everything (both True). Without `decay_norms`, vectors and scalars (norms' weights, biases) do not
    decay; without `decay_embeddings`, the weights of nn.Embedding do not. The output layer is no embedding unless tied.
    Raises ValueError if nothing is trainable.
    """
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    groups: dict[tuple[bool, DeviceMesh | None], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            spared = (parameter.ndim < 2 and not decay_norms) or (id(parameter) in embeddings and not decay_embeddings)
            groups.setdefault((spared, _mesh(parameter)), []).append(parameter)
    if not groups:
        raise ValueError("the model has no parameter that requires a gradient; there is nothing to train")
    in_order = sorted(groups.items(), key=lambda group: group[0][0])
    return [{"params": parameters, "weight_decay": 0.0 if spared else weight_decay} for (spared, _), parameters in in_order]


def adamw(groups: Sequence[dict[str, Any]], lr: float, betas: tuple[float, float], eps: float, fused: bool | None = None) -> AdamW:
    """AdamW over `parameter_groups`; decay is decoupled: each step takes lr · weight_decay of a parameter away.

    OLMoE: lr 4e-4, betas (0.9, 0.95), eps 1e-8, weight_decay 0.1. fused: one kernel per step; None uses it where every
    parameter's device has it.
    """
    if fused is None:
        fused = all(parameter.device.type in FUSED_ON for group in groups for parameter in group["params"])
    return AdamW([dict(group) for group in groups], lr=lr, betas=betas, eps=eps, fused=fused)


def set_learning_rate(optimizer: Optimizer, lr: float) -> None:
    """The rate of the next step, for every group."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def clip_gradients(parameters: Iterable[Tensor], max_norm: float | None) -> Tensor:
    """Scale all gradients by max_norm / norm if their global L2 norm exceeds `max_norm`; None only measures.

    Returns the norm before clipping, a plain scalar tensor, the same on every rank. If it is not finite, gradients are
    left as they are: look at it before stepping. Sharded gradients (DTensor) may lie on several meshes, and
    beside plain ones; each is counted whole and once. A collective call where gradients are sharded.
    """
    by_mesh: dict[DeviceMesh | None, list[Tensor]] = {}
    for parameter in parameters:
        if parameter.grad is not None:
            by_mesh.setdefault(_mesh(parameter.grad), []).append(parameter)
    if not by_mesh:
        raise ValueError("no parameter has a gradient; call backward first")
    norms = []
    for group in by_mesh.values():
        norm = get_total_norm([parameter.grad for parameter in group if parameter.grad is not None])
        norms.append(norm.full_tensor() if isinstance(norm, DTensor) else norm)
    total = norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))
    if max_norm is not None and torch.isfinite(total):
        for group in by_mesh.values():
            clip_grads_with_norm_(group, max_norm, total)
    return total


def cosine(tokens: int, peak: float, warmup: int, end: int, end_at: float = 0.1, warmup_from: float = 0.1) -> float:
    """The learning rate at `tokens` tokens: from warmup_from·peak linearly to `peak` at `warmup`, by half a cosine to
    end_at·peak at `end`, constant after. OLMoE: peak 4e-4, warmup 10,485,760,000, end 5e12.

    Raises ValueError unless 0 ≤ tokens and 0 ≤ warmup < end.
    """
    done = _part_of_decay(tokens, warmup, end)
    if done < 0:
        return peak * (1 + (1 - warmup_from) * done)
    return peak * (end_at + (1 - end_at) * (1 + math.cos(math.pi * done)) / 2)


def linear(tokens: int, peak: float, end: int, warmup: int = 0, end_at: float = 0.0, warmup_from: float = 0.1) -> float:
    """The learning rate at `tokens` tokens: warm-up as in `cosine`, then linearly to end_at·peak at `end`, constant after.

    OLMoE's annealing: from 4e-5, where its cosine ended, to zero at 100e9 tokens, without warm-up.
    Raises ValueError unless 0 ≤ tokens and 0 ≤ warmup < end.
    """
    done = _part_of_decay(tokens, warmup, end)
    if done < 0:
        return peak * (1 + (1 - warmup_from) * done)
    return peak * (1 - (1 - end_at) * done)


def _part_of_decay(tokens: int, warmup: int, end: int) -> float:
    """How much of the decay is done, 0 to 1; below 0, from -1, how much of the warm-up is left."""
    if tokens < 0 or not 0 <= warmup < end:
        raise ValueError(f"tokens {tokens}, warmup {warmup}, end {end}: need tokens of 0 or more, and warmup below end")
    if tokens < warmup:
        return tokens / warmup - 1
    return min(1.0, (tokens - warmup) / (end - warmup))


@dataclass(frozen=True, slots=True)
class Spike:
    """A value beyond its bound: quantity is "loss" or "gradient_norm"; mean and deviation are those of the window."""

    quantity: str
    value: float
    mean: float
    deviation: float

    def __str__(self) -> str:
        return f"{self.quantity.replace('_', ' ')} {self.value:.4g}, where {self.mean:.4g} ± {self.deviation:.2g} is usual"


class SpikeDetector:
    """Says which of loss and gradient norm exceeds the mean of the last `window` steps by more than `deviations` standard
    deviations (n − 1 in the denominator). The rule and its numbers are OLMo-core's SkipStep: 6 over 128, none before
    half a window, and values that spiked join the window, so a lasting change is soon the usual.

    A value that is not finite is always a spike and never remembered. The state is the window itself, and every verdict
    is computed from it alone, exactly rounded: saved and loaded, or given the same values on another rank, a detector
    says the same.
    """

    def __init__(self, window: int = 128, deviations: float = 6.0) -> None:
        if window < 2 or deviations <= 0:
            raise ValueError(f"window {window}, deviations {deviations}: need a window of 2 or more, and deviations above 0")
        self.window, self.deviations = window, deviations
        self._seen = {quantity: deque[float](maxlen=window) for quantity in ("loss", "gradient_norm")}

    def observe(self, loss: float, gradient_norm: float) -> list[Spike]:
        """Judge a step by the steps before it, then remember it. Empty when nothing is unusual."""
        spikes = []
        for quantity, value in (("loss", loss), ("gradient_norm", gradient_norm)):
            seen = self._seen[quantity]
            mean, deviation = _mean_and_deviation(seen)
            known = len(seen) >= max(2, self.window // 2 - 1)
            if not math.isfinite(value) or (known and value - mean > self.deviations * deviation):
                spikes.append(Spike(quantity, value, mean, deviation))
            if math.isfinite(value):
                seen.append(value)
        return spikes

    def state_dict(self) -> dict[str, list[float]]:
        """The windows, oldest value first; plain JSON."""
        return {quantity: list(seen) for quantity, seen in self._seen.items()}

    def load_state_dict(self, state: dict[str, list[float]]) -> None:
        """Go on from `state_dict()`; a smaller window keeps the last values."""
        for quantity, seen in self._seen.items():
            seen.clear()
            seen.extend(state[quantity])


def _mesh(tensor: Tensor) -> DeviceMesh | None:
    return tensor.device_mesh if isinstance(tensor, DTensor) else None


def _mean_and_deviation(values: Iterable[float]) -> tuple[float, float]:
    """Mean and sample standard deviation; NaN where there are too few values. fsum, so order and machine do not matter."""
    values = list(values)
    if not values:
        return math.nan, math.nan
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return mean, math.nan
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
