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
    """What a step's micro-batches came to. `add` one after the other, then `reduce`, then read.

    mean: total loss, cross-entropy, load balancing and z, over all micro-batches of all ranks; masked: instances without any
    label. Of the routers, per layer (L; none for a dense model), over all tokens: loads_LE, rows routed to each expert (int64);
    entropy_L, the summed entropy of the probabilities in nats; squares_L, the summed squares of the logits; maximum_L, the
    largest logit by magnitude (float64).
    """

    losses: list[Tensor] = field(default_factory=list)  # of each micro-batch of this rank, as in `mean`
    routers: list[tuple[Tensor, Tensor]] = field(default_factory=list)  # of each: sums [L, E + 2] and maximum_L
    masked: int = 0

    def add(self, losses: Sequence[Tensor], routings: Sequence[Routing]) -> None:
        # Of a model without routers the auxiliary losses are zeros on the CPU.
        self.losses.append(torch.stack([loss.detach().to(losses[0].device, torch.float64) for loss in losses]))
        self.routers.append(_router_sums(routings, losses[0].device))

    def reduce(self, *flags: int) -> list[int]:
        """Make these the statistics of all ranks; → the sums of `flags` over the ranks. Two collective calls at most."""
        losses = torch.stack(self.losses).sum(dim=0)
        counts = losses.new_tensor([len(self.losses), self.masked, *flags])
        sums_LX = torch.stack([sums for sums, _ in self.routers]).sum(dim=0)
        self.maximum_L = torch.stack([maximum for _, maximum in self.routers]).amax(dim=0)
        everything = torch.cat([losses, counts, sums_LX.flatten()])
        if dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(everything)  # loads are whole numbers below 2⁵³: exact
            if len(self.maximum_L):
                dist.all_reduce(self.maximum_L, dist.ReduceOp.MAX)
        head, rest = everything.split([len(losses) + len(counts), sums_LX.numel()])
        *means, micro_batches, masked = head[: len(losses) + 2].tolist()
        self.mean, self.masked = [loss / micro_batches for loss in means], int(masked)
        loads, entropy, squares = rest.view_as(sums_LX).split([sums_LX.shape[1] - 2, 1, 1], dim=1)
        self.loads_LE, self.entropy_L, self.squares_L = loads.long(), entropy[:, 0], squares[:, 0]
        return [int(flag) for flag in head[len(losses) + 2 :].tolist()]


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
def _router_sums(routings: Sequence[Routing], device: torch.device) -> tuple[Tensor, Tensor]:
    """All layers → sums [L, E + 2] of loads, entropy and squared logits; and the largest logits by magnitude [L]. float64."""
    sums, maxima = [], []
    for routing in routings:
        entropy = -torch.special.xlogy(routing.probabilities_TE, routing.probabilities_TE).sum().double()
        squares = routing.logits_TE.square().sum().double()
        sums.append(torch.cat([routing.loads_E.double(), torch.stack([entropy, squares])]))
        maxima.append(routing.logits_TE.abs().max().double())
    if not routings:
        return torch.zeros(0, 2, dtype=torch.float64, device=device), torch.zeros(0, dtype=torch.float64, device=device)
    return torch.stack(sums), torch.stack(maxima)
