"""What is minimised: cross-entropy, the router's load-balancing loss and its z-loss.

    loss = CE + 0.01 · (1/L) Σ_l LB_l + 0.001 · (1/L) Σ_l Z_l

Everything is computed in float32. Cross-entropy goes through the vocabulary in chunks of tokens and takes its gradients on the
way forward, so at most `chunk` × V logits exist: it costs one matrix the size of the head for its gradient, and no logits
are computed twice. Axes as in model.py; N = T tokens, c of a chunk.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import FunctionCtx

from trainer.config import LossConfig
from trainer.routing import Routing

IGNORED = -100  # the label of a position that nothing is asked of


class CrossEntropy(NamedTuple):
    mean: Tensor  # scalar with gradient: sum over labelled positions / all positions, as trained
    losses_BS: Tensor  # each position's loss in nats, 0 where ignored; without gradient


def shift_labels(tokens_BS: Tensor, keep_BS: Tensor | None = None) -> Tensor:
    """Each position's label is the next token; the last position has none, nor has one whose next token is not kept."""
    labels_BS = torch.full_like(tokens_BS, IGNORED, dtype=torch.int64)
    labels_BS[:, :-1] = tokens_BS[:, 1:]
    if keep_BS is not None:
        labels_BS[:, :-1][~keep_BS[:, 1:]] = IGNORED
    return labels_BS


def chunked_cross_entropy(x_BSD: Tensor, head_VD: Tensor, labels_BS: Tensor, chunk: int = 1024) -> CrossEntropy:
    """Cross-entropy of `labels_BS` under logits x · headᵀ.

    The mean is over all B·S positions, as in the published run: the last position of an instance and masked instances add
    nothing to the sum but count in the denominator. (`transformers` divides by the number of labelled positions.)
    """
    mean, losses_N = _CrossEntropy.apply(x_BSD.flatten(0, -2), head_VD, labels_BS.flatten(), chunk)
    return CrossEntropy(mean, losses_N.view(labels_BS.shape))


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x_ND: Tensor, head_VD: Tensor, labels_N: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
        needs_x, needs_head = ctx.needs_input_grad[:2]  # type: ignore[attr-defined]
        grad_x = torch.zeros_like(x_ND) if needs_x else None
        grad_head = torch.zeros_like(head_VD, dtype=torch.float32) if needs_head else None
        losses_N = torch.zeros(len(x_ND), dtype=torch.float32, device=x_ND.device)
        buffer_cV = torch.empty(min(chunk, len(x_ND)), len(head_VD), dtype=torch.float32, device=x_ND.device)  # reused: no page faults
        for start in range(0, len(x_ND), chunk):
            x_cD, labels_c = x_ND[start : start + chunk], labels_N[start : start + chunk]
            kept_c1 = (labels_c != IGNORED)[:, None]
            target_c1 = labels_c.clamp(min=0)[:, None]
            logits_cV = buffer_cV[: len(x_cD)]
            if x_cD.dtype == torch.float32:
                torch.mm(x_cD, head_VD.T, out=logits_cV)
            else:
                logits_cV.copy_(x_cD @ head_VD.T)
            logits_cV -= logits_cV.amax(dim=1, keepdim=True)
            wanted_c1 = logits_cV.gather(1, target_c1)
            sum_c1 = logits_cV.exp_().sum(dim=1, keepdim=True)
            losses_N[start : start + chunk] = ((sum_c1.log() - wanted_c1) * kept_c1)[:, 0]
            if grad_x is None and grad_head is None:
                continue
            # d loss / d logits = softmax − one-hot, over N; written where the logits were
            scale_c1 = kept_c1 / float(len(x_ND))
            grad_cV = logits_cV.mul_(scale_c1 / sum_c1).scatter_add_(1, target_c1, -scale_c1).to(x_ND.dtype)
            if grad_x is not None:
                grad_x[start : start + chunk] = grad_cV @ head_VD
            if grad_head is not None and grad_cV.dtype == torch.float32:
                grad_head.addmm_(grad_cV.T, x_cD)
            elif grad_head is not None:
                grad_head += grad_cV.T @ x_cD
        ctx.save_for_backward(grad_x, grad_head)  # type: ignore[arg-type]
        ctx.head_type = head_VD.dtype  # type: ignore[attr-defined]
        ctx.mark_non_differentiable(losses_N)
        return losses_N.sum() / len(x_ND), losses_N

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor, _: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        grad_x, grad_head = ctx.saved_tensors  # type: ignore[attr-defined]
        return (
            None if grad_x is None else grad_x * grad.to(grad_x.dtype),
            None if grad_head is None else (grad_head * grad).to(ctx.head_type),  # type: ignore[attr-defined]
            None,
            None,
        )


class Auxiliary(NamedTuple):
    """The router's losses: means over layers, before their weights, and their weighted sum, which is added to cross-entropy."""

    load_balancing: Tensor
    z: Tensor
    total: Tensor


def auxiliary_losses(routings: Sequence[Routing], config: LossConfig, top_k: int) -> Auxiliary:
    """All layers' routers → (load balancing, z, weighted total). Zero without routers; a weight of 0 leaves no gradient.

    With scope `global` every rank must call this equally often: the counts of all ranks are summed.
    """
    if not routings:
        zero = torch.zeros(())
        return Auxiliary(zero, zero, zero)
    reduce = config.scope == "global" and dist.is_initialized()
    balance = torch.stack([load_balancing_loss(routing, reduce) for routing in routings]).mean()
    z = torch.stack([z_loss(routing) for routing in routings]).mean()
    if config.z_divided_by_top_k:
        z = z / top_k
    # A weight of 0 must not turn an infinity into nan: the term is left out.
    total = sum((weight * term for weight, term in ((config.load_balancing, balance), (config.z, z)) if weight), torch.zeros_like(z))
    return Auxiliary(balance.detach(), z.detach(), total)


def load_balancing_loss(routing: Routing, all_ranks: bool = False) -> Tensor:
    """One layer's E/(T·k) · Σ_i n_i · p̄_i: n_i rows routed to expert i, p̄_i its mean probability. 1 when balanced.

    The counts are those of the micro-batch, or of all ranks' micro-batches of this moment (`all_ranks`); they carry no
    gradient. As n·p̄ is not linear, the value depends on how many tokens are counted together. Under expert choice it is
    always 1, and its gradient 0.

    `transformers` pools the tokens of all layers before multiplying, which hides layers that err in opposite ways, and
    does not divide by k: it is k when balanced, so its coefficient of 0.01 weighs k times ours.
    """
    E = routing.probabilities_TE.shape[1]
    loads_E = routing.loads_E.float()
    if all_ranks:
        loads_E = loads_E.clone()
        dist.all_reduce(loads_E)
    return E * torch.dot(loads_E / loads_E.sum(), routing.probabilities_TE.mean(dim=0))


def z_loss(routing: Routing) -> Tensor:
    """One layer's mean over tokens of (log Σ_i exp logit_i)², which keeps the router's logits small (ST-MoE, eq. 5).

    The released code divides it by k besides (`z_divided_by_top_k`) and exponentiates without subtracting the maximum.
    `transformers` has none.
    """
    return routing.logits_TE.logsumexp(dim=-1).square().mean()
