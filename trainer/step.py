"""One step's gradients: a rank's micro-batches forward and backward, and what the routers did meanwhile.

In: a model (plain, or sharded by parallel.py), a rank's micro-batches of the step. Out: gradients in the model, which are
those of the mean over all micro-batches of all ranks, and Statistics, which `reduce` makes those of all ranks. Cost: with
several micro-batches, a sharded model's gradients are kept whole (float32) on every rank until the last one, so that ranks talk
once per step. Not: no clipping, no update (optim.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from trainer.config import Config
from trainer.data import MicroBatch
from trainer.losses import IGNORED, auxiliary_losses, shift_labels
from trainer.model import Transformer
from trainer.routing import Routing


@dataclass
class Statistics:
    """Sums over micro-batches, then over ranks. Per layer (L) and expert (E); empty for a dense model."""

    micro_batches: int = 0
    masked: int = 0  # instances without any label
    losses: list[Tensor] = field(default_factory=list)  # of each micro-batch of this rank: total, cross-entropy, load balancing, z
    loads_LE: Tensor | None = None  # int64: rows routed
    entropy_L: Tensor | None = None  # float64: the tokens' summed entropy of the router's probabilities, nats
    squares_L: Tensor | None = None  # float64: the summed squares of the router's logits
    maximum_L: Tensor | None = None  # float64: the largest logit by magnitude
    mean: list[float] = field(default_factory=list)  # after reduce: `losses`, over all micro-batches of all ranks

    def add(self, losses: Sequence[Tensor], routings: Sequence[Routing]) -> None:
        self.micro_batches += 1
        # Of a model without routers the auxiliary losses are zeros on the CPU.
        self.losses.append(torch.stack([loss.detach().to(losses[0].device, torch.float64) for loss in losses]))
        if not routings:
            return
        found = [_router(routing) for routing in routings]
        loads, entropy, squares, maximum = (torch.stack(values) for values in zip(*found, strict=True))
        if self.loads_LE is None or self.entropy_L is None or self.squares_L is None or self.maximum_L is None:
            self.loads_LE, self.entropy_L, self.squares_L, self.maximum_L = loads, entropy, squares, maximum
        else:
            self.loads_LE += loads
            self.entropy_L += entropy
            self.squares_L += squares
            self.maximum_L = torch.maximum(self.maximum_L, maximum)

    def reduce(self, *flags: int) -> list[int]:
        """Make these the statistics of all ranks; → the sums of `flags` over the ranks. Two collective calls."""
        total = torch.stack(self.losses).sum(dim=0)
        counts = total.new_tensor([self.micro_batches, self.masked, *flags])
        routers = [tensor.flatten().double() for tensor in (self.loads_LE, self.entropy_L, self.squares_L) if tensor is not None]
        sums = torch.cat([total, counts, *routers])
        if dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(sums)  # loads are whole numbers below 2⁵³: exact
            if self.maximum_L is not None:
                dist.all_reduce(self.maximum_L, dist.ReduceOp.MAX)
        head, rest = sums[: len(total) + len(counts)].tolist(), sums[len(total) + len(counts) :]
        *losses, micro_batches, masked = head[: len(total) + 2]
        self.micro_batches, self.masked = int(micro_batches), int(masked)
        self.mean = [loss / micro_batches for loss in losses]
        if self.loads_LE is not None and self.entropy_L is not None and self.squares_L is not None:
            loads, entropy, squares = rest.split([self.loads_LE.numel(), len(self.entropy_L), len(self.squares_L)])
            self.loads_LE, self.entropy_L, self.squares_L = loads.view_as(self.loads_LE).long(), entropy, squares
        return [int(value) for value in head[len(total) + 2 :]]


def forward_backward(model: Transformer, batches: Sequence[MicroBatch], config: Config, device: torch.device) -> Statistics:
    """Add to the model's gradients those of the step's mean loss; `batches` are this rank's, as many on every rank."""
    statistics = Statistics()
    for number, batch in enumerate(batches):
        statistics.masked += int((batch.labels == IGNORED).all(dim=1).sum())  # before it is on a device that would be waited for
        batch = batch.to(device)
        if isinstance(model, FSDPModule):
            model.set_requires_gradient_sync(number == len(batches) - 1)
        labels = shift_labels(batch.input_ids, batch.labels != IGNORED)
        output = model(batch.input_ids, batch.document_ids, labels, config.loss.chunk)
        auxiliary = auxiliary_losses(output.routings, config.loss, config.model.top_k)
        loss = output.cross_entropy.mean + auxiliary.total
        (loss / len(batches)).backward()  # ranks are averaged where gradients are reduced
        statistics.add((loss, output.cross_entropy.mean, auxiliary.load_balancing, auxiliary.z), output.routings)
    return statistics


@torch.no_grad()
def _router(routing: Routing) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    logits_TE, p_TE = routing.logits_TE, routing.probabilities_TE
    entropy = -torch.special.xlogy(p_TE, p_TE).sum().double()
    return routing.loads_E, entropy, logits_TE.square().sum().double(), logits_TE.abs().max().double()
