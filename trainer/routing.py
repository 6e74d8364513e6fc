"""The mixture-of-experts layer: a router picks experts for every token, and only these compute.

    y = Σ_{i ∈ top-k(p)} p_i · E_i(x),   p = softmax(W x) over all E experts, not renormalised,   E_i(x) = W2_i (silu(W1_i x) ⊙ W3_i x)

Dropless: token choice gives each token exactly k experts, however uneven the loads. Rows of tokens are sorted by expert, so
that all experts are two grouped matrix multiplications; on a device or for a type without these, a loop over experts that
does the same. Sorting costs T·k comparisons and a copy of T·k rows; nothing is padded. `reference_experts` is the
equation as it stands, for tests. No sum depends on the order of threads under token choice: a step repeats bit by bit.

Axes: B instances, S positions, T = B·S tokens, k experts of a token, R = T·k rows, E experts, D model width, F expert width.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn import functional as F

from trainer.config import ModelConfig


class Routing(NamedTuple):
    """What a layer's router decided; losses and metrics read it. A tuple, so that sharding finds the tensors in it."""

    logits_TE: Tensor  # float32
    probabilities_TE: Tensor  # float32, softmax over E
    loads_E: Tensor  # int64: rows per expert; sums to T·k
    experts_Tk: Tensor | None  # int64, most probable first; None under expert choice


class Rows(NamedTuple):
    """One row for each pair of a token and an expert of its, sorted by expert."""

    token_R: Tensor  # which token
    weight_R: Tensor  # float32: p of this expert for this token
    ends_E: Tensor  # int32: where each expert's rows end
    back_Tk: Tensor | None  # where each token's rows are; None under expert choice, whose tokens have unequal numbers


class Router(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.top_k, self.experts, self.choice = config.top_k, config.experts, config.routing
        self.weight = nn.Parameter(torch.empty(config.experts, config.d_model))

    def forward(self, x_BSD: Tensor) -> tuple[Routing, Rows]:
        """Logits, softmax and choice are float32 whatever the type of x (the published run: bfloat16 logits, float32 softmax)."""
        logits_TE = F.linear(x_BSD.flatten(0, 1).float(), self.weight.float())
        p_TE = logits_TE.softmax(dim=-1)
        if self.choice == "expert_choice":
            experts_Tk, rows = None, choose_tokens(p_TE.unflatten(0, x_BSD.shape[:2]), self.top_k)
        else:
            experts_Tk, rows = choose_experts(p_TE, self.top_k)
        loads_E = rows.ends_E.diff(prepend=rows.ends_E.new_zeros(1)).long()
        return Routing(logits_TE, p_TE, loads_E, experts_Tk), rows


def choose_experts(p_TE: Tensor, k: int) -> tuple[Tensor, Rows]:
    """Token choice: each token takes its k most probable experts. → the choice, (T, k), and its rows."""
    weight_Tk, experts_Tk = p_TE.topk(k, dim=-1)
    sorted_R, order_R = experts_Tk.flatten().sort(stable=True)
    back_R = torch.empty_like(order_R).scatter_(0, order_R, torch.arange(len(order_R), device=order_R.device))
    experts_E = torch.arange(p_TE.shape[1], device=p_TE.device)
    ends_E = torch.searchsorted(sorted_R, experts_E, right=True, out_int32=True)
    weight_R = weight_Tk.flatten()[order_R]
    return experts_Tk, Rows(order_R // k, weight_R, ends_E, back_R.view_as(experts_Tk))


def choose_tokens(p_BSE: Tensor, k: int) -> Rows:
    """Expert choice (Zhou et al. 2022): in each instance, each expert takes its k·S/E most probable tokens.

    Loads are equal by construction, a token has any number of experts, and the choice looks at later tokens: fine for an
    experiment on training, not for a model that generates. Raises ValueError when k·S/E is not whole.
    """
    B, S, E = p_BSE.shape
    if k * S % E:
        raise ValueError(f"expert choice: top_k × sequence length = {k * S} is not a multiple of {E} experts")
    weight_BEC, position_BEC = p_BSE.transpose(1, 2).topk(k * S // E, dim=-1)
    token_BEC = position_BEC + S * torch.arange(B, device=p_BSE.device)[:, None, None]
    each = B * k * S // E
    ends_E = torch.arange(each, each * E + 1, each, device=p_BSE.device, dtype=torch.int32)
    return Rows(token_BEC.transpose(0, 1).flatten(), weight_BEC.transpose(0, 1).flatten(), ends_E, None)


class Experts(nn.Module):
    """E SwiGLU blocks, stacked: `gate_up` holds W1 above W3, `down` W2."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_up = nn.Parameter(torch.empty(config.experts, 2 * config.expert_width, config.d_model))
        self.down = nn.Parameter(torch.empty(config.experts, config.d_model, config.expert_width))

    def forward(self, x_TD: Tensor, rows: Rows) -> Tensor:
        x_RD = dispatch(x_TD, rows)
        # W2 is linear, so the router's weight may multiply its input, which is the narrower side.
        h_RF = weighted_swiglu(grouped_matmul(x_RD, self.gate_up, rows.ends_E), rows.weight_R)
        return combine(grouped_matmul(h_RF, self.down, rows.ends_E), rows, len(x_TD))


def reference_experts(experts: Experts, x_TD: Tensor, rows: Rows) -> Tensor:
    """Σ p_i · E_i(x), expert by expert: slow, short, and what Experts must equal."""
    y_TD = torch.zeros_like(x_TD)
    start = 0
    for expert, end in enumerate(rows.ends_E.tolist()):
        token_r = rows.token_R[start:end]
        gate_rF, up_rF = F.linear(x_TD[token_r], experts.gate_up[expert]).chunk(2, dim=-1)
        y_rD = F.linear(F.silu(gate_rF) * up_rF, experts.down[expert])
        y_TD = y_TD.index_add(0, token_r, (y_rD * rows.weight_R[start:end, None]).to(y_TD.dtype))
        start = end
    return y_TD


def dispatch(x_TD: Tensor, rows: Rows) -> Tensor:
    """Each row's token: (T, D) → (R, D)."""
    if rows.back_Tk is None:
        return x_TD.index_select(0, rows.token_R)
    out: Tensor = _Dispatch.apply(x_TD, rows.token_R, rows.back_Tk)
    return out


def combine(y_RD: Tensor, rows: Rows, tokens: int) -> Tensor:
    """The sum of each token's rows: (R, D) → (T, D)."""
    if rows.back_Tk is None:
        return y_RD.new_zeros(tokens, y_RD.shape[1]).index_add(0, rows.token_R, y_RD)
    out: Tensor = _Combine.apply(y_RD, rows.token_R, rows.back_Tk)
    return out


class _Dispatch(torch.autograd.Function):
    """Copying a token to its k rows, and summing these, are each other's transpose: neither direction scatters."""

    @staticmethod
    def forward(ctx: FunctionCtx, x_TD: Tensor, token_R: Tensor, back_Tk: Tensor) -> Tensor:
        ctx.save_for_backward(back_Tk)
        return x_TD.index_select(0, token_R)

    @staticmethod
    def backward(ctx: FunctionCtx, grad_RD: Tensor) -> tuple[Tensor, None, None]:
        (back_Tk,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return _sum_rows(grad_RD, back_Tk), None, None


class _Combine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, y_RD: Tensor, token_R: Tensor, back_Tk: Tensor) -> Tensor:
        ctx.save_for_backward(token_R)
        return _sum_rows(y_RD, back_Tk)

    @staticmethod
    def backward(ctx: FunctionCtx, grad_TD: Tensor) -> tuple[Tensor, None, None]:
        (token_R,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return grad_TD.index_select(0, token_R), None, None


def _sum_rows(y_RD: Tensor, back_Tk: Tensor) -> Tensor:
    return F.embedding_bag(back_Tk, y_RD, mode="sum")  # gathers and adds in one pass; the rows stand in the token's own order


def weighted_swiglu(gate_up: Tensor, weight_R: Tensor) -> Tensor:
    """silu(gate) ⊙ up · weight, of gate and up side by side: (R, 2F), (R,) float32 → (R, F)."""
    if torch.compiler.is_compiling():  # which fuses this, and decides by itself what to compute again
        gate_RF, up_RF = gate_up.chunk(2, dim=-1)
        return (F.silu(gate_RF) * up_RF * weight_R[:, None]).to(gate_up.dtype)
    out: Tensor = _WeightedSwiGLU.apply(gate_up, weight_R)
    return out


class _WeightedSwiGLU(torch.autograd.Function):
    """Keeps its inputs alone and computes silu again on the way back, where autograd would keep two more (R, F) and write
    two gradients to be concatenated."""

    @staticmethod
    def forward(ctx: FunctionCtx, gate_up: Tensor, weight_R: Tensor) -> Tensor:
        ctx.save_for_backward(gate_up, weight_R)
        gate_RF, up_RF = gate_up.chunk(2, dim=-1)
        return F.silu(gate_RF).mul_(up_RF).mul_(weight_R[:, None])

    @staticmethod
    def backward(ctx: FunctionCtx, grad_RF: Tensor) -> tuple[Tensor, Tensor]:
        gate_up, weight_R = ctx.saved_tensors  # type: ignore[attr-defined]
        gate_RF, up_RF = gate_up.chunk(2, dim=-1)
        silu_RF = F.silu(gate_RF)
        grad_gate_up = torch.empty_like(gate_up)
        grad_gate_RF, grad_up_RF = grad_gate_up.chunk(2, dim=-1)
        torch.mul(grad_RF, silu_RF, out=grad_up_RF)
        grad_weight_R = torch.mul(grad_up_RF, up_RF).sum(dim=-1, dtype=weight_R.dtype)
        grad_up_RF.mul_(weight_R[:, None])
        torch.mul(grad_RF, up_RF, out=silu_RF).mul_(weight_R[:, None])
        torch.ops.aten.silu_backward.grad_input(silu_RF, gate_RF, grad_input=grad_gate_RF)
        return grad_gate_up, grad_weight_R


def grouped_matmul(x_RK: Tensor, w_ENK: Tensor, ends_E: Tensor) -> Tensor:
    """Rows up to ends[0] times w[0]ᵀ, up to ends[1] times w[1]ᵀ, and so on: (R, K), (E, N, K) → (R, N)."""
    if not has_grouped_mm(x_RK):
        return _loop_matmul(x_RK, w_ENK, ends_E)
    if x_RK.dtype == torch.bfloat16:
        return F.grouped_mm(x_RK, w_ENK.transpose(1, 2), offs=ends_E)
    return _uncompiled_grouped_mm(x_RK, w_ENK, ends_E)


def has_grouped_mm(x: Tensor) -> bool:
    """torch 2.13: on CPU every type but float64; on CUDA bfloat16 from compute capability 8.0 on (read, not yet run)."""
    if x.device.type == "cuda":
        return x.dtype == torch.bfloat16 and torch.cuda.get_device_capability(x.device) >= (8, 0)
    return x.dtype in (torch.float32, torch.bfloat16, torch.float16)


@torch.compiler.disable
def _uncompiled_grouped_mm(x_RK: Tensor, w_ENK: Tensor, ends_E: Tensor) -> Tensor:
    """torch 2.13's compiler takes grouped_mm in bfloat16 alone; the kernel itself is not so particular."""
    return F.grouped_mm(x_RK, w_ENK.transpose(1, 2), offs=ends_E)


@torch.compiler.disable
def _loop_matmul(x_RK: Tensor, w_ENK: Tensor, ends_E: Tensor) -> Tensor:
    ends = ends_E.tolist()
    parts = [F.linear(x_RK[start:end], w_ENK[e]) for e, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True))]
    return torch.cat(parts)
