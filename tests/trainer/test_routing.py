"""Conservation: what the router sends out is what comes back. The fast experts equal the equation."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from trainer.config import ModelConfig
from trainer.losses import load_balancing_loss
from trainer.model import MixtureOfExperts, initial_value
from trainer.routing import Experts, Router, choose_experts, choose_tokens, combine, dispatch, grouped_matmul, reference_experts

CONFIG = ModelConfig(d_model=32, layers=2, heads=4, vocab_size=96, padded_vocab=96, experts=8, top_k=3, expert_width=16, init_std=0.3)


def layer(config: ModelConfig = CONFIG) -> MixtureOfExperts:
    module = MixtureOfExperts(config)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(initial_value(f"blocks.0.ffn.{name}", parameter.shape, config, 7))
    return module


def inputs(batch: int = 2, length: int = 40, seed: int = 1) -> Tensor:
    return torch.randn(batch, length, CONFIG.d_model, generator=torch.Generator().manual_seed(seed))


def skewed(tokens: int = 50, experts: int = 8) -> Tensor:
    """Probabilities under which two experts are never chosen and one always."""
    logits = torch.randn(tokens, experts, generator=torch.Generator().manual_seed(2))
    logits[:, 0] += 50
    logits[:, 3] -= 50
    logits[:, 7] -= 50
    return logits.softmax(-1)


@pytest.mark.parametrize("k", [1, 3, 8])
def test_each_token_reaches_exactly_k_experts_and_the_loads_sum_to_tokens_times_k(k: int) -> None:
    p = skewed() if k < 8 else skewed().roll(1, 1)
    experts, rows = choose_experts(p, k)
    assert torch.equal(rows.token_R.bincount(minlength=50), torch.full((50,), k))
    assert all(len(set(row)) == k for row in experts.tolist())
    loads = rows.ends_E.diff(prepend=torch.zeros(1, dtype=torch.int32))
    assert torch.equal(loads.long(), experts.flatten().bincount(minlength=8))
    assert loads.sum() == 50 * k and rows.ends_E[-1] == 50 * k


def test_each_row_belongs_to_the_expert_that_the_token_chose_with_its_probability() -> None:
    p = skewed()
    experts, rows = choose_experts(p, 3)
    expert_R = torch.searchsorted(rows.ends_E, torch.arange(150), right=True)
    assert torch.equal(rows.weight_R, p[rows.token_R, expert_R])
    assert rows.back_Tk is not None
    assert torch.equal(expert_R[rows.back_Tk], experts)
    assert torch.equal(rows.token_R[rows.back_Tk], torch.arange(50)[:, None].expand(50, 3))


def test_the_weights_are_those_of_the_softmax_over_all_experts_not_renormalised() -> None:
    module, x = layer(), inputs()
    routing, rows = module.router(x)
    p = F.linear(x, module.router.weight).flatten(0, 1).softmax(-1)
    assert torch.equal(routing.probabilities_TE, p)
    assert torch.allclose(rows.weight_R.sum(), p.topk(3).values.sum())
    assert rows.weight_R[rows.back_Tk].sum(1).max() < 1


def test_the_router_computes_in_float32_when_the_model_is_bfloat16() -> None:
    module = Router(CONFIG).to(torch.bfloat16)
    torch.nn.init.normal_(module.weight)
    routing, rows = module(inputs().bfloat16())
    assert routing.logits_TE.dtype == routing.probabilities_TE.dtype == rows.weight_R.dtype == torch.float32


def test_dispatch_then_combine_multiplies_each_token_by_k() -> None:
    x = inputs().flatten(0, 1)
    _, rows = choose_experts(skewed(80), 3)
    assert torch.allclose(combine(dispatch(x, rows), rows, 80), 3 * x)


def test_gradients_of_dispatch_and_combine_agree_with_finite_differences() -> None:
    _, rows = choose_experts(skewed(6), 3)
    x = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    y = torch.randn(18, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: dispatch(x, rows), x)
    assert torch.autograd.gradcheck(lambda y: combine(y, rows, 6), y)


@pytest.mark.parametrize("routing", ["token_choice", "expert_choice"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])  # float64 has no grouped multiplication: the loop
def test_the_fast_experts_equal_the_equation_with_all_gradients(routing: str, dtype: torch.dtype) -> None:
    experts, x = Experts(CONFIG).to(dtype), inputs().to(dtype)
    for parameter in experts.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(3))
    p = skewed(80).to(dtype).requires_grad_()
    results = []
    for run in (lambda x, rows: experts(x, rows), lambda x, rows: reference_experts(experts, x, rows)):
        leaf = x.flatten(0, 1).clone().requires_grad_()
        rows = choose_experts(p, 3)[1] if routing == "token_choice" else choose_tokens(p.view(2, 40, 8), 3)
        y = run(leaf, rows)
        upstream = torch.randn(y.shape, dtype=dtype, generator=torch.Generator().manual_seed(4))
        results.append((y, *torch.autograd.grad(y, (leaf, p, experts.gate_up, experts.down), upstream)))
    for fast, reference in zip(*results, strict=True):
        torch.testing.assert_close(fast, reference, rtol=1e-5, atol=1e-5 * float(reference.detach().abs().max()))


def test_experts_keep_their_inputs_alone_for_the_way_back() -> None:
    experts, x = Experts(CONFIG), inputs().flatten(0, 1).requires_grad_()
    _, rows = choose_experts(skewed(80), 3)
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        y = experts(x, rows)
    # of each row: its token, gate and up, what goes into W2
    activations = 4 * 80 * 3 * (CONFIG.d_model + 2 * CONFIG.expert_width + CONFIG.expert_width)
    weights = experts.gate_up.nbytes + experts.down.nbytes
    indices = sum(tensor.nbytes for tensor in (rows.token_R, rows.weight_R, rows.ends_E, rows.back_Tk) if tensor is not None)
    assert y.requires_grad and sum(kept.values()) <= activations + weights + indices


def test_experts_without_tokens_get_a_gradient_of_zero() -> None:
    experts = Experts(CONFIG)
    for parameter in experts.parameters():
        torch.nn.init.normal_(parameter)
    _, rows = choose_experts(skewed(80), 3)
    experts(inputs().flatten(0, 1), rows).square().sum().backward()
    assert experts.down.grad is not None
    assert experts.down.grad[3].abs().max() == 0 and experts.down.grad[0].abs().max() > 0


def test_the_layer_repeats_bit_by_bit() -> None:
    module = layer()
    first, second = (module(inputs())[0] for _ in range(2))
    assert torch.equal(first, second)


def test_the_loop_for_devices_without_grouped_multiplication_equals_it() -> None:
    x, w = torch.randn(30, 16), torch.randn(4, 24, 16)
    ends = torch.tensor([10, 10, 29, 30], dtype=torch.int32)
    torch.testing.assert_close(grouped_matmul(x, w, ends), grouped_matmul(x.double(), w.double(), ends).float(), rtol=1e-5, atol=1e-5)


def test_bfloat16_stays_near_float32() -> None:
    module, x = layer(), inputs()
    exact, _ = module(x)
    rough, routing = module.to(torch.bfloat16)(x.bfloat16())
    assert rough.dtype == torch.bfloat16 and routing.loads_E.sum() == 80 * 3
    assert (rough.float() - exact).norm() < 0.1 * exact.norm()


def test_expert_choice_gives_every_expert_the_same_number_of_tokens_of_every_instance() -> None:
    module = layer(CONFIG.model_copy(update={"routing": "expert_choice"}))
    x = inputs()
    y, routing = module(x)
    assert torch.equal(routing.loads_E, torch.full((8,), 2 * 3 * 40 // 8)) and routing.experts_Tk is None
    alone, _ = module(x[:1])
    torch.testing.assert_close(alone, y[:1])
    torch.testing.assert_close(load_balancing_loss(routing), torch.tensor(1.0))


def test_expert_choice_takes_the_most_probable_tokens() -> None:
    p = skewed(40).view(1, 40, 8)
    rows = choose_tokens(p, 2)
    for expert in range(8):
        chosen = rows.token_R[expert * 10 : expert * 10 + 10]
        assert set(chosen.tolist()) == set(p[0, :, expert].topk(10).indices.tolist())
    with pytest.raises(ValueError, match="not a multiple of 8 experts"):
        choose_tokens(p[:, :39], 2)


def test_the_shared_expert_adds_itself_to_every_token_unweighted() -> None:
    module, x = layer(CONFIG.model_copy(update={"shared_expert": True})), inputs()
    both, _ = module(x)
    shared = module.shared_expert
    assert shared is not None
    module.shared_expert = None
    torch.testing.assert_close(both, module(x)[0] + shared(x))
