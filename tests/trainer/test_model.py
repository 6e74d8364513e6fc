"""The model: its published size, its parts against their equations, and each switch of the config."""

import math

import pytest
import torch
from torch import Tensor

from trainer.config import ModelConfig, load_config
from trainer.losses import shift_labels
from trainer.model import (
    AttentionMask,
    Output,
    RMSNorm,
    Transformer,
    attention,
    document_starts,
    flops_per_token,
    initial_value,
    rotary_angles,
    rotate,
    size,
)
from trainer.parallel import initialise
from trainer.routing import Experts, Router

TINY = ModelConfig(d_model=32, layers=2, heads=4, vocab_size=96, padded_vocab=104, experts=8, top_k=2, expert_width=16, init_std=0.2)


def build(**change: object) -> Transformer:
    config = TINY.model_copy(update=change)
    model = Transformer(config)
    initialise(model, 1)
    return model


def tokens(batch: int = 2, length: int = 24, seed: int = 5) -> Tensor:
    return torch.randint(0, 96, (batch, length), generator=torch.Generator().manual_seed(seed))


def trained_step(model: Transformer, documents: Tensor | None = None) -> Output:
    batch = tokens()
    output: Output = model(batch, documents, shift_labels(batch))
    assert output.cross_entropy is not None
    output.cross_entropy.mean.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all() and parameter.grad.abs().max() > 0, name
    return output


def test_the_published_model_has_the_published_size() -> None:
    published = size(load_config("olmoe-1b-7b").model)
    assert (published.total, published.active) == (6_919_161_856, 1_282_017_280)


@pytest.mark.parametrize(("dense", "sparse"), [("dense-1b", "olmoe-1b-7b"), ("dense-small", "olmoe-small")])
def test_the_dense_models_equal_the_active_parameters_but_for_the_routers(dense: str, sparse: str) -> None:
    model = load_config(sparse).model
    routers = model.layers * model.d_model * model.experts
    assert size(load_config(dense).model).total == size(model).active - routers


def test_the_middle_model_has_about_a_hundred_million_active_parameters() -> None:
    assert 95e6 < size(load_config("olmoe-mid").model).active < 110e6


def test_operations_per_token_are_six_per_active_weight_and_attention() -> None:
    config = load_config("olmoe-1b-7b").model
    embedding, norms = 50_304 * 2048, 2048 * (4 * 16 + 1)
    weights = 1_282_017_280 - embedding - norms
    assert flops_per_token(config, 4096) == 6 * weights + 6 * 16 * 2048 * 4096
    assert flops_per_token(config, 4096) == pytest.approx(7.88e9, rel=1e-3)


@pytest.mark.parametrize("change", [{}, {"ffn": "dense"}, {"shared_expert": True}, {"share_experts": True}, {"qk_norm": False}], ids=str)
def test_operations_are_those_of_the_maps_that_a_token_passes(change: dict[str, object]) -> None:
    model, batch = build(**change), tokens()
    assert counted_operations(model, batch) == flops_per_token(model.config, 24) * batch.numel()


def counted_operations(model: Transformer, batch: Tensor) -> int:
    """Six per weight of every linear map that a token passes, by hooks; experts by their rows; plus attention's formula."""
    total = 0

    def count(module: torch.nn.Module, inputs: tuple[Tensor, ...], _: object) -> None:
        nonlocal total
        if isinstance(module, torch.nn.Linear):
            total += 6 * module.weight.numel() * (inputs[0].numel() // module.in_features)
        elif isinstance(module, Router):
            total += 6 * module.weight.numel() * batch.numel()
        elif isinstance(module, Experts):
            total += 6 * (module.gate_up[0].numel() + module.down[0].numel()) * len(inputs[1].token_R)  # type: ignore[attr-defined]

    for module in model.modules():
        module.register_forward_hook(count)
    model.head(model(batch).hidden_BSD)
    return total + 6 * model.config.layers * model.config.d_model * batch.shape[1] * batch.numel()


def test_a_parameter_starts_from_seed_and_name_alone() -> None:
    shape = torch.Size((64, 64))
    value = initial_value("blocks.0.attention.qkv.weight", shape, TINY, 1)
    assert torch.equal(value, initial_value("blocks.0.attention.qkv.weight", shape, TINY, 1))
    assert not torch.equal(value, initial_value("blocks.1.attention.qkv.weight", shape, TINY, 1))
    assert not torch.equal(value, initial_value("blocks.0.attention.qkv.weight", shape, TINY, 2))


@pytest.mark.parametrize(("cutoff", "largest", "deviation"), [(3.0, 0.06, 0.01973), (None, 0.12, 0.02)])
def test_weights_start_normal_truncated_at_three_deviations_or_plain(cutoff: float | None, largest: float, deviation: float) -> None:
    config = ModelConfig(init_cutoff=cutoff)
    value = initial_value("head.weight", torch.Size((1000, 200)), config, 6198)
    assert value.std().item() == pytest.approx(deviation, rel=0.01) and abs(value.mean().item()) < 2e-4
    assert value.abs().max() <= largest and (cutoff is not None or value.abs().max() > 0.06)


def test_norms_start_at_one_at_any_depth() -> None:
    model = build()
    norms = {name: value for name, value in model.named_parameters() if "norm" in name}
    assert len(norms) == 4 * 2 + 1 and all((value == 1).all() for value in norms.values())


def test_rms_norm_is_its_equation_and_casts_before_the_weight() -> None:
    norm = RMSNorm(8, 1e-5)
    norm.weight.data = torch.linspace(0.5, 1.5, 8)
    x = torch.randn(3, 8)
    torch.testing.assert_close(norm(x), x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * norm.weight)
    half = x.bfloat16()
    wanted = (half.float() / (half.float().square().mean(-1, keepdim=True) + 1e-5).sqrt()).bfloat16() * norm.weight.bfloat16()
    torch.testing.assert_close(norm.bfloat16()(half), wanted)


def test_rotation_keeps_lengths_and_makes_scores_depend_on_distance_alone() -> None:
    rotation = rotary_angles(20, TINY, torch.device("cpu"))
    q, k = torch.randn(2, 1, 1, 1, 8).expand(2, 1, 1, 20, 8)
    q, k = rotate(q, rotation), rotate(k, rotation)
    torch.testing.assert_close(q.norm(dim=-1), q.norm(dim=-1)[..., :1].expand(1, 1, 20))
    scores = (q @ k.transpose(-1, -2))[0, 0]
    for distance in (-3, 0, 7):
        diagonal = scores.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=1e-4, atol=1e-5)


def test_rotation_is_its_equation() -> None:
    x = torch.randn(1, 1, 6, 8)
    turned = rotate(x, rotary_angles(6, TINY, torch.device("cpu")))
    for position in range(6):
        for i in range(4):
            angle = position * 10_000 ** (-2 * i / 8)
            a, b = x[0, 0, position, i].item(), x[0, 0, position, i + 4].item()
            assert turned[0, 0, position, i].item() == pytest.approx(a * math.cos(angle) - b * math.sin(angle), abs=1e-5)
            assert turned[0, 0, position, i + 4].item() == pytest.approx(b * math.cos(angle) + a * math.sin(angle), abs=1e-5)


def test_queries_and_keys_are_normalised_over_the_full_width_before_the_heads() -> None:
    model = build()
    seen: list[torch.Size] = []
    model.blocks[0].attention.q_norm.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape))  # type: ignore[union-attr]
    model(tokens())
    assert seen == [torch.Size((2, 24, 32))]


def test_no_position_sees_what_follows() -> None:
    model, batch = build(), tokens()
    other = batch.clone()
    other[:, 12:] = tokens(seed=9)[:, 12:]
    first, second = model(batch).hidden_BSD, model(other).hidden_BSD
    torch.testing.assert_close(first[:, :12], second[:, :12])
    assert not torch.allclose(first[:, 12:], second[:, 12:])


def test_the_loss_of_the_model_is_that_of_its_logits() -> None:
    model, batch = build(), tokens()
    output: Output = model(batch, labels_BS=shift_labels(batch), chunk=7)
    logits = model.head(output.hidden_BSD)
    wanted = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), batch[:, 1:].flatten(), reduction="sum") / batch.numel()
    assert output.cross_entropy is not None
    torch.testing.assert_close(output.cross_entropy.mean, wanted)


def test_every_layer_reports_its_routing() -> None:
    output = trained_step(build())
    assert [routing.loads_E.sum().item() for routing in output.routings] == [48 * 2] * 2


@pytest.mark.parametrize(
    "change",
    [
        {"ffn": "dense"},
        {"ffn": "dense", "dense_width": 40},
        {"experts": 4, "top_k": 4},
        {"experts": 16, "expert_width": 8},
        {"shared_expert": True},
        {"routing": "expert_choice"},
        {"share_experts": True},
        {"norm": "layer_norm_nonparametric"},
        {"qk_norm": False},
        {"init_cutoff": None},
    ],
    ids=str,
)
def test_each_switch_trains_every_parameter_and_has_the_size_that_it_says(change: dict[str, object]) -> None:
    model = build(**change)
    output = trained_step(model)
    assert len(output.routings) == (0 if change.get("ffn") == "dense" else 2)
    assert size(model.config).total == sum(parameter.numel() for parameter in model.parameters())
    assert not torch.equal(output.hidden_BSD, build()(tokens()).hidden_BSD)


def test_a_non_parametric_norm_has_no_parameters_and_centres() -> None:
    model = build(norm="layer_norm_nonparametric")
    assert not [name for name, _ in model.named_parameters() if "norm" in name]
    hidden = model(tokens()).hidden_BSD
    torch.testing.assert_close(hidden.mean(-1), torch.zeros(2, 24), atol=1e-5, rtol=0)
    torch.testing.assert_close(hidden.var(-1, unbiased=False), torch.ones(2, 24), atol=1e-2, rtol=0)


def test_without_qk_norm_the_parameters_are_gone() -> None:
    assert size(TINY).total - size(build(qk_norm=False).config).total == 2 * 2 * 32


def test_shared_experts_are_one_set_with_a_router_for_each_layer() -> None:
    model = build(share_experts=True)
    names = [name for name, _ in model.named_parameters()]
    assert [name for name in names if "experts" in name] == ["shared_experts.gate_up", "shared_experts.down"]
    assert sum("router" in name for name in names) == 2
    counted = size(model.config)
    assert counted.total == size(TINY).total - 8 * 3 * 32 * 16
    assert counted.total - counted.active == (8 - 2 * 2) * 3 * 32 * 16


def test_the_dense_block_is_as_wide_as_a_tokens_experts_unless_told() -> None:
    assert build(ffn="dense").config.ffn_width == 2 * 16
    assert build(ffn="dense", dense_width=40).config.ffn_width == 40


def test_document_masking_equals_separate_documents() -> None:
    model, batch = build(document_masking=True), tokens(1, 24)
    documents = torch.tensor([[3] * 7 + [4] * 12 + [9] * 5])
    together = model(batch, documents).hidden_BSD
    for start, end in ((0, 7), (7, 19), (19, 24)):
        alone = model(batch[:, start:end], documents[:, start:end]).hidden_BSD
        torch.testing.assert_close(together[:, start:end], alone, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(build()(batch).hidden_BSD, together)
    trained_step(build(document_masking=True), (tokens() > 40).cumsum(1))


def test_documents_are_ignored_when_they_are_not_masked_and_asked_for_when_they_are() -> None:
    documents = torch.arange(24).expand(2, 24)
    assert torch.equal(build()(tokens(), documents).hidden_BSD, build()(tokens()).hidden_BSD)
    with pytest.raises(ValueError, match="needs each position's document"):
        build(document_masking=True)(tokens())


def test_runs_of_documents_start_where_the_document_or_the_instance_changes() -> None:
    documents = torch.tensor([[1, 1, 2, 2], [2, 2, 2, 5]])
    assert document_starts(documents).tolist() == [0, 2, 4, 7, 8]


def test_both_forms_of_the_mask_give_the_same_attention() -> None:
    documents = torch.tensor([[1, 1, 2, 2, 2, 3], [3, 3, 3, 3, 4, 4]])
    q, k, v = torch.randn(3, 2, 2, 6, 8)
    ragged = AttentionMask(None, document_starts(documents), 6)
    torch.testing.assert_close(attention(q, k, v, ragged), attention(q, k, v, AttentionMask.of(documents)))


def test_bfloat16_runs_and_stays_near_float32() -> None:
    model = build()
    exact = model(tokens()).hidden_BSD
    rough = model.bfloat16()(tokens()).hidden_BSD
    assert rough.dtype == torch.bfloat16
    assert (rough.float() - exact).norm() < 0.2 * exact.norm()
