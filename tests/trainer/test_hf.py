"""Equality with transformers' OlmoeForCausalLM, both ways, and the layout of the real model."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from pipeline.errors import PipelineError
from trainer.config import ModelConfig, load_config
from trainer.hf import check_folder, config_from_hub, export_folder, from_hub, hub_config, import_folder, layout, to_hub
from trainer.losses import shift_labels
from trainer.model import Output, Transformer
from trainer.parallel import initialise

TINY = ModelConfig(d_model=32, layers=3, heads=4, vocab_size=96, padded_vocab=104, experts=8, top_k=3, expert_width=16, init_std=0.2)
RELATIVE = 1e-5


def ours(config: ModelConfig = TINY, seed: int = 1) -> Transformer:
    model = Transformer(config)
    initialise(model, seed)
    with torch.no_grad():  # norms that are all 1 would hide a swap
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))))
    return model


def theirs(config: ModelConfig = TINY, **more: Any) -> Any:
    torch.manual_seed(3)
    values = hub_config(config, 64, 95, 1, torch.float32) | more
    return transformers.OlmoeForCausalLM(transformers.OlmoeConfig(**values)).float()


def hub_state(model: Any, gradients: bool = False) -> dict[str, Tensor]:
    """The state of transformers' module, whose experts are stacked in memory, under the hub's names."""
    state = {}
    for name, parameter in model.named_parameters():
        value = parameter.grad if gradients else parameter.detach()
        prefix = name.rpartition(".")[0]
        if name.endswith("experts.gate_up_proj"):
            for expert, both in enumerate(value):
                state[f"{prefix}.{expert}.gate_proj.weight"], state[f"{prefix}.{expert}.up_proj.weight"] = both.chunk(2)
        elif name.endswith("experts.down_proj"):
            state |= {f"{prefix}.{expert}.down_proj.weight": matrix for expert, matrix in enumerate(value)}
        else:
            state[name] = value
    return state


def tokens(batch: int = 2, length: int = 24) -> Tensor:
    return torch.randint(0, 96, (batch, length), generator=torch.Generator().manual_seed(5))


def close(left: Tensor, right: Tensor) -> None:
    """Equal within 1e-5 of the largest entry."""
    assert (left - right).abs().max() <= RELATIVE * right.abs().max()


def gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def compare(mine: Transformer, other: Any) -> None:
    batch = tokens()
    output: Output = mine(batch, labels_BS=shift_labels(batch))
    assert output.cross_entropy is not None
    answer = other(batch, labels=batch, use_cache=False)
    close(mine.head(output.hidden_BSD), answer.logits)
    # They divide by the labelled positions, we by all.
    length = batch.shape[1]
    close(output.cross_entropy.mean * length / (length - 1), answer.loss)
    output.cross_entropy.mean.backward()
    (answer.loss * (length - 1) / length).backward()
    wanted = hub_state(other, gradients=True)
    gradients = {part: value for name, p in mine.named_parameters() for part, value in to_hub(name, gradient(p))}
    assert gradients.keys() == wanted.keys()
    for name, value in gradients.items():
        close(value, wanted[name])


def greedy(model: Transformer, prompt: Tensor, count: int) -> Tensor:
    with torch.no_grad():
        for _ in range(count):
            logits = model.head(model(prompt).hidden_BSD[:, -1])
            prompt = torch.cat((prompt, logits.argmax(-1, keepdim=True)), dim=1)
    return prompt


def test_our_weights_in_transformers_give_the_same_logits_loss_and_gradients(tmp_path: Path) -> None:
    mine = ours()
    export_folder(tmp_path / "export", TINY, mine.state_dict(), sequence_length=64, eos=95, pad=1)
    other, report = transformers.OlmoeForCausalLM.from_pretrained(tmp_path / "export", dtype=torch.float32, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    compare(mine, other)


def test_their_weights_in_our_model_give_the_same_logits_loss_and_gradients(tmp_path: Path) -> None:
    other = theirs()
    other.save_pretrained(tmp_path / "theirs")
    config, state = import_folder(tmp_path / "theirs", vocab_size=96)
    assert config == TINY
    mine = Transformer(config)
    mine.load_state_dict(state)
    compare(mine, other)


def test_greedy_generation_is_identical(tmp_path: Path) -> None:
    mine = ours()
    export_folder(tmp_path / "export", TINY, mine.state_dict(), sequence_length=64, eos=95, pad=1)
    other = transformers.OlmoeForCausalLM.from_pretrained(tmp_path / "export", dtype=torch.float32)
    prompt = tokens(2, 6)
    generated = other.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=24, do_sample=False, eos_token_id=None)
    assert torch.equal(greedy(mine, prompt, 24), generated)


def test_an_export_comes_back_bit_by_bit_in_one_file_and_in_many(tmp_path: Path) -> None:
    mine = ours()
    for name, size in (("one", 10**9), ("many", 20_000)):
        export_folder(tmp_path / name, TINY, mine.state_dict(), sequence_length=64, eos=95, shard_bytes=size)
        config, state = import_folder(tmp_path / name, vocab_size=96)
        assert config == TINY and state.keys() == mine.state_dict().keys()
        assert all(torch.equal(value, mine.state_dict()[key]) for key, value in state.items())
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 3
    close(transformers.OlmoeForCausalLM.from_pretrained(tmp_path / "many").lm_head.weight, mine.head.weight)


def test_the_layout_of_the_published_model_is_that_of_transformers() -> None:
    config = load_config("olmoe-1b-7b").model
    published = transformers.OlmoeConfig(**hub_config(config, 4096, 50_279, 1, torch.bfloat16))
    with torch.device("meta"):
        other = transformers.OlmoeForCausalLM(published)
    assert layout(config) == {name: tuple(value.shape) for name, value in hub_state(other).items()}
    assert layout(config)["model.layers.15.mlp.experts.63.down_proj.weight"] == (2048, 1024)
    assert len(layout(config)) == 16 * (3 * 64 + 9) + 3


def test_our_config_is_what_the_defaults_of_transformers_and_the_published_file_say() -> None:
    published = {"model_type": "olmoe", "hidden_size": 2048, "intermediate_size": 1024, "num_hidden_layers": 16, "rope_theta": 10000.0}
    published |= {"num_attention_heads": 16, "num_key_value_heads": 16, "num_experts": 64, "num_experts_per_tok": 8, "rms_norm_eps": 1e-5}
    published |= {"vocab_size": 50_304, "norm_topk_prob": False, "clip_qkv": None, "tie_word_embeddings": False, "rope_scaling": None}
    assert config_from_hub(published, "config.json", 50_280) == load_config("olmoe-1b-7b").model


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "mixtral"}, "model_type is 'mixtral', not 'olmoe'"),
        ({"norm_topk_prob": True}, "not computed here: norm_topk_prob: True"),
        ({"num_key_value_heads": 2}, "not computed here: num_key_value_heads: 2"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "not computed here: rope_type: yarn"),
    ],
)
def test_a_variant_that_is_not_computed_here_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        config_from_hub(hub_config(TINY, 64, 95, 1, torch.float32) | change, "config.json")


@pytest.mark.parametrize(
    "change", [{"norm": "layer_norm_nonparametric"}, {"qk_norm": False}, {"shared_expert": True}, {"routing": "expert_choice"}]
)
def test_a_model_without_a_name_in_transformers_is_not_exported(change: dict[str, Any], tmp_path: Path) -> None:
    config = TINY.model_copy(update=change)
    with pytest.raises(PipelineError, match=f"no such model: {next(iter(change))}"):
        export_folder(tmp_path / "export", config, {}, sequence_length=64, eos=95)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_this_model_is_refused_by_names_and_shapes(tmp_path: Path) -> None:
    folder = tmp_path / "export"
    export_folder(folder, TINY, ours().state_dict(), sequence_length=64, eos=95)
    assert len(check_folder(folder)) == len(layout(TINY))
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | {"num_experts": 7}))
    with pytest.raises(PipelineError, match=r"experts\.7\.down_proj\.weight is not part of the model"):
        import_folder(folder)
    (folder / "config.json").write_text(json.dumps(values | {"vocab_size": 96}))
    with pytest.raises(PipelineError, match=r"embed_tokens\.weight is \(104, 32\), not \(96, 32\)"):
        import_folder(folder)
    (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(PipelineError, match=r"model.safetensors cannot be read"):
        check_folder(folder, TINY)


def test_a_missing_weight_is_named() -> None:
    state = {part: value for name, whole in ours().state_dict().items() for part, value in to_hub(name, whole)}
    del state["model.layers.1.mlp.gate.weight"]
    with pytest.raises(PipelineError, match=r"model\.layers\.1\.mlp\.gate\.weight is missing"):
        from_hub(state, TINY)


def test_an_export_never_replaces_a_folder(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="is there already"):
        export_folder(tmp_path, TINY, ours().state_dict(), sequence_length=64, eos=95)


def test_an_export_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        export_folder(tmp_path / "export", TINY, ours().state_dict(), sequence_length=64, eos=95, tokenizer=tmp_path / "none.json")
    assert not list(tmp_path.iterdir())
