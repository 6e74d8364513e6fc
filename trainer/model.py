"""The transformer of OLMoE, as equations.

    h⁰ = Emb[tokens]
    u  = h  + Attention(Norm(h))          Attention: causal, rotary, with queries and keys normalised over the full width
    h' = u  + FFN(Norm(u))                FFN: mixture of experts (routing.py) or one dense SwiGLU
    logits = W_head · Norm(h^L)           no biases, no dropout, embedding and head are two matrices

The type of the parameters is the type of the residual stream; norms, rotary angles, router and losses are float32 inside.
Nothing here knows a mesh, a foreign name or a file. The logits of a batch are never held whole when labels are given
(losses.py). The CUDA branch of `attention` has not been run on a GPU yet.

Axes: B instances, S positions, T = B·S tokens, D model width, H heads, C width of a head, F hidden width, V padded vocabulary,
E experts, k experts of a token.
"""

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.config import ModelConfig
from trainer.losses import CrossEntropy, chunked_cross_entropy
from trainer.routing import Experts, Router, Routing


class Output(NamedTuple):
    hidden_BSD: Tensor  # after the last norm; model.head makes logits of it
    routings: list[Routing]  # one per layer; empty for a dense model
    cross_entropy: CrossEntropy | None  # None unless labels were given


class Transformer(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.padded_vocab, config.d_model)
        self.shared_experts = Experts(config) if config.share_experts else None
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = make_norm(config)
        self.head = nn.Linear(config.d_model, config.padded_vocab, bias=False)

    def forward(self, tokens_BS: Tensor, documents_BS: Tensor | None = None, labels_BS: Tensor | None = None, chunk: int = 1024) -> Output:
        """`documents_BS` numbers each position's document (used when the config masks documents), `labels_BS` is what each
        position should predict, already shifted, −100 where nothing is asked; `chunk` is the tokens whose logits are held."""
        if self.config.document_masking and documents_BS is None:
            raise ValueError("document_masking is on, so the model needs each position's document")
        documents_BS = documents_BS if self.config.document_masking else None
        mask = AttentionMask.of(documents_BS) if documents_BS is not None else None
        rotation = rotary_angles(tokens_BS.shape[1], self.config, tokens_BS.device)
        x_BSD, routings = self.embedding(tokens_BS), []
        for block in self.blocks:
            x_BSD, routing = block(x_BSD, rotation, mask, self.shared_experts)
            if routing is not None:
                routings.append(routing)
        x_BSD = self.norm(x_BSD)
        if labels_BS is None:
            return Output(x_BSD, routings, None)
        return Output(x_BSD, routings, chunked_cross_entropy(x_BSD, self.head.weight, labels_BS, chunk))


class Block(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = make_norm(config)
        self.attention = Attention(config)
        self.ffn_norm = make_norm(config)
        self.ffn: MixtureOfExperts | SwiGLU = MixtureOfExperts(config) if config.ffn == "moe" else SwiGLU(config.d_model, config.ffn_width)

    def forward(
        self, x_BSD: Tensor, rotation: tuple[Tensor, Tensor], mask: "AttentionMask | None", shared_experts: Experts | None = None
    ) -> tuple[Tensor, Routing | None]:
        x_BSD = x_BSD + self.attention(self.attention_norm(x_BSD), rotation, mask)
        if isinstance(self.ffn, SwiGLU):
            return x_BSD + self.ffn(self.ffn_norm(x_BSD)), None
        y_BSD, routing = self.ffn(self.ffn_norm(x_BSD), shared_experts)
        return x_BSD + y_BSD, routing


class MixtureOfExperts(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.router = Router(config)
        self.experts = None if config.share_experts else Experts(config)
        self.shared_expert = SwiGLU(config.d_model, config.expert_width) if config.shared_expert else None

    def forward(self, x_BSD: Tensor, shared_experts: Experts | None = None) -> tuple[Tensor, Routing]:
        experts = self.experts or shared_experts
        assert experts is not None
        routing, rows = self.router(x_BSD)
        y_BSD = experts(x_BSD.flatten(0, 1), rows).view_as(x_BSD)
        if self.shared_expert is not None:
            y_BSD = y_BSD + self.shared_expert(x_BSD)
        return y_BSD, routing


class SwiGLU(nn.Module):
    """W2 (silu(W1 x) ⊙ W3 x); `gate_up` holds W1 above W3. (Dense OLMo checkpoints hold them the other way round.)"""

    def __init__(self, d_model: int, width: int) -> None:
        super().__init__()
        self.gate_up = nn.Linear(d_model, 2 * width, bias=False)
        self.down = nn.Linear(width, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        out: Tensor = self.down(F.silu(gate) * up)
        return out


class Attention(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(config.d_model, 3 * config.d_model, bias=False)
        self.output = nn.Linear(config.d_model, config.d_model, bias=False)
        self.q_norm = make_norm(config) if config.qk_norm else nn.Identity()
        self.k_norm = make_norm(config) if config.qk_norm else nn.Identity()

    def forward(self, x_BSD: Tensor, rotation: tuple[Tensor, Tensor], mask: "AttentionMask | None") -> Tensor:
        q_BSD, k_BSD, v_BSD = self.qkv(x_BSD).chunk(3, dim=-1)
        q_BHSC = rotate(self._split(self.q_norm(q_BSD)), rotation)
        k_BHSC = rotate(self._split(self.k_norm(k_BSD)), rotation)
        y_BHSC = attention(q_BHSC, k_BHSC, self._split(v_BSD), mask)
        out: Tensor = self.output(y_BHSC.transpose(1, 2).flatten(2))
        return out

    def _split(self, x_BSD: Tensor) -> Tensor:
        return x_BSD.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class AttentionMask(NamedTuple):
    """Causal attention within documents. One of two forms, by device."""

    allowed_B1SS: Tensor | None  # bool; S² bytes per instance
    starts_N: Tensor | None  # int32: where each run of one document starts in the flattened batch, and T at the end
    longest: int

    @classmethod
    def of(cls, documents_BS: Tensor) -> "AttentionMask":
        if documents_BS.device.type == "cuda" and torch.cuda.get_device_capability(documents_BS.device) >= (8, 0):
            return cls(None, document_starts(documents_BS), documents_BS.shape[1])
        same_BSS = documents_BS[:, :, None] == documents_BS[:, None, :]
        return cls(same_BSS.tril()[:, None], None, documents_BS.shape[1])


def document_starts(documents_BS: Tensor) -> Tensor:
    """Where runs of equal document start in the flattened batch, then T: (N + 1,), int32. An instance starts a run."""
    first_BS = torch.ones_like(documents_BS, dtype=torch.bool)
    first_BS[:, 1:] = documents_BS[:, 1:] != documents_BS[:, :-1]
    return F.pad(first_BS.flatten().nonzero().flatten(), (0, 1), value=documents_BS.numel()).int()


def attention(q_BHSC: Tensor, k_BHSC: Tensor, v_BHSC: Tensor, mask: AttentionMask | None) -> Tensor:
    """softmax(q kᵀ / √C + causal) v, within documents if a mask is given."""
    if mask is None:
        return F.scaled_dot_product_attention(q_BHSC, k_BHSC, v_BHSC, is_causal=True)
    if mask.starts_N is None or q_BHSC.dtype not in (torch.bfloat16, torch.float16):
        allowed = mask.allowed_B1SS if mask.allowed_B1SS is not None else _allowed(mask, q_BHSC)
        return F.scaled_dot_product_attention(q_BHSC, k_BHSC, v_BHSC, attn_mask=allowed)
    from torch.nn.attention.varlen import varlen_attn  # flash attention over ragged documents; not run on a GPU yet

    q_THC, k_THC, v_THC = (x.transpose(1, 2).flatten(0, 1) for x in (q_BHSC, k_BHSC, v_BHSC))
    starts, longest = mask.starts_N, mask.longest
    y_THC = varlen_attn(q_THC, k_THC, v_THC, starts, starts, longest, longest, window_size=(-1, 0))
    assert isinstance(y_THC, Tensor)
    return y_THC.unflatten(0, (q_BHSC.shape[0], -1)).transpose(1, 2)


def _allowed(mask: AttentionMask, q_BHSC: Tensor) -> Tensor:
    assert mask.starts_N is not None
    B, _, S, _ = q_BHSC.shape
    run_BS = torch.searchsorted(mask.starts_N, torch.arange(B * S, device=q_BHSC.device), right=True).view(B, S)
    return (run_BS[:, :, None] == run_BS[:, None, :]).tril()[:, None]


def rotary_angles(length: int, config: ModelConfig, device: torch.device) -> tuple[Tensor, Tensor]:
    """cos and sin of position · θ^(−2i/C): (S, C/2) each, float32."""
    i = torch.arange(0, config.head_width, 2, device=device, dtype=torch.float32)
    angle = torch.arange(length, device=device, dtype=torch.float32)[:, None] / config.rope_theta ** (i / config.head_width)
    return angle.cos(), angle.sin()


def rotate(x_BHSC: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Element i of the first half and element i of the second are a point, turned by position · θ^(−2i/C) (GPT-NeoX's pairing)."""
    cos, sin = rotation
    a, b = x_BHSC.float().chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1).to(x_BHSC.dtype)


class RMSNorm(nn.Module):
    """x / √(mean x² + ε) in float32, back to the type of x, then times the weight."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), (x.shape[-1],), None, self.eps).to(x.dtype) * self.weight


class NonParametricLayerNorm(nn.Module):
    """(x − mean) / √(var + ε) in float32; nothing to learn."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x.float(), (x.shape[-1],), None, None, self.eps).to(x.dtype)


def make_norm(config: ModelConfig) -> nn.Module:
    return RMSNorm(config.d_model, config.norm_eps) if config.norm == "rms" else NonParametricLayerNorm(config.norm_eps)


def initial_value(name: str, shape: torch.Size, config: ModelConfig, seed: int) -> Tensor:
    """A parameter's initial value, whole, float32, on the CPU: a function of name, shape, config and seed, whoever asks for it.

    Norms are 1; everything else is normal with deviation `init_std`, cut at ±`init_cutoff` deviations, at any depth.
    """
    if name.rsplit(".", 2)[-2].endswith("norm"):
        return torch.ones(shape)
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    value, std = torch.empty(shape), config.init_std
    if config.init_cutoff is None:
        return nn.init.normal_(value, 0.0, std, generator=generator)
    return nn.init.trunc_normal_(value, 0.0, std, -config.init_cutoff * std, config.init_cutoff * std, generator=generator)


@dataclass(frozen=True)
class Size:
    total: int  # parameters, router and both vocabulary matrices included
    active: int  # those that one token uses (on average, under expert choice)


def size(config: ModelConfig) -> Size:
    """Counted on the meta device: no memory is used. OLMoE-1B-7B: 6,919,161,856 and 1,282,017,280."""
    with torch.device("meta"):
        model = Transformer(config)
    total = sum(parameter.numel() for parameter in model.parameters())
    if config.ffn == "dense":
        return Size(total, total)
    expert = 3 * config.d_model * config.expert_width
    pools = 1 if config.share_experts else config.layers
    used = min(config.layers // pools * config.top_k, config.experts)
    return Size(total, total - pools * (config.experts - used) * expert)


def flops_per_token(config: ModelConfig, length: int) -> int:
    """Floating-point operations of one training step per token: 6 per weight that multiplies it, and attention.

    Attention counts 12·L·D·S/2: causal, so half of the full square (the usual 12·L·D·S gives 8.68 G instead of 7.88 G for
    OLMoE-1B-7B at 4096). The embedding is a look-up and counts nothing.
    """
    d, k = config.d_model, config.top_k
    ffn = (
        3 * d * config.ffn_width if config.ffn == "dense" else 3 * d * config.expert_width * (k + config.shared_expert) + d * config.experts
    )
    weights = config.layers * (4 * d * d + ffn) + config.padded_vocab * d
    return 6 * weights + 6 * config.layers * d * length
