"""Configurations: the published values, what is refused and how the refusal reads."""

from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from trainer.config import CONFIGS, Config, ModelConfig, apply, config_names, load_config, parse_overrides


@pytest.mark.parametrize("name", config_names())
def test_every_file_loads_and_names_its_own_values(name: str) -> None:
    config = load_config(name)
    assert config.name == name and config.description


def test_the_defaults_are_the_published_model() -> None:
    published, default = load_config("olmoe-1b-7b"), Config(name="olmoe-1b-7b", model=ModelConfig())
    assert published.model == default.model
    assert published.loss == default.loss
    assert published.optim == default.optim


def test_the_published_values() -> None:
    config = load_config("olmoe-1b-7b")
    model, optim = config.model, config.optim
    assert (model.layers, model.d_model, model.heads, model.head_width) == (16, 2048, 16, 128)
    assert (model.experts, model.top_k, model.expert_width) == (64, 8, 1024)
    assert (model.vocab_size, model.padded_vocab) == (50_280, 50_304)
    assert (optim.lr, optim.beta1, optim.beta2, optim.eps, optim.weight_decay, optim.clip) == (4e-4, 0.9, 0.95, 1e-8, 0.1, 1.0)
    assert optim.schedule.warmup_tokens == 2500 * config.train.batch_tokens
    assert config.train.batch_tokens == 1024 * 4096
    assert (config.loss.load_balancing, config.loss.z) == (0.01, 0.001)


@pytest.mark.parametrize(("dense", "sparse"), [("dense-small", "olmoe-small"), ("dense-1b", "olmoe-1b-7b")])
def test_the_dense_models_differ_from_their_sparse_ones_in_the_feed_forward_block_alone(dense: str, sparse: str) -> None:
    other, config = load_config(dense), load_config(sparse)
    assert other.model.ffn == "dense"
    assert other.model.ffn_width == config.model.top_k * config.model.expert_width
    same = {"ffn": "moe", "dense_width": None, "experts": config.model.experts, "top_k": config.model.top_k}
    assert other.model.model_copy(update=same | {"expert_width": config.model.expert_width}) == config.model
    assert other.optim == config.optim and other.train == config.train


def test_overrides_reach_nested_values_and_leave_the_rest() -> None:
    config = load_config("olmoe-small")
    changed = apply(config, {"model.experts": "8", "optim.schedule.kind": "linear", "model.init_cutoff": "none", "train.tokens": "50M"})
    assert changed.model.experts == 8 and changed.model.init_cutoff is None
    assert changed.optim.schedule.kind == "linear" and changed.train.tokens == 50_000_000
    assert changed.loss == config.loss and changed.optim.lr == config.optim.lr
    assert config.model.experts == 32
    assert apply(config, {}) == config


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model.expert", "8", "model.expert: unknown key `expert`; did you mean `experts`?"),
        ("modle.experts", "8", "modle.experts: unknown key `modle`; did you mean `model`?"),
        ("model.experts", "many", "model.experts: 'many' is not a number"),
        ("model.experts", "0", "model.experts: Input should be greater than or equal to 1"),
        ("model.experts.count", "8", "model.experts.count: `experts` is a value and has no keys of its own"),
        ("optim.schedule", "linear", "optim.schedule: holds kind, warmup_tokens"),
        ("model.routing", "expert", "model.routing: 'expert' is not one of 'token_choice' or 'expert_choice'"),
        ("model.top_k", "100", "model: top_k 100 is more than experts 32"),
        ("model.d_model", "100", "model: d_model 100 is not an even multiple of heads 4"),
        ("optim.lr", "fast", "optim.lr: "),
        ("optim.lr", "nan", "optim.lr: "),
        ("loss.z", "-1", "loss.z: "),
        ("train.batch_tokens", "5000", "train.batch_tokens 5000 is not a whole number of micro-batches"),
    ],
)
def test_a_wrong_override_is_refused_with_its_key_and_what_is_allowed(key: str, value: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        apply(load_config("olmoe-small"), {key: value})
    assert message in str(error.value)


def test_a_misspelt_key_in_a_file_is_quoted_with_its_line(tmp_path: Path) -> None:
    text = (CONFIGS / "olmoe-small.yaml").read_text()
    (tmp_path / "olmoe-small.yaml").write_text(text.replace("  top_k:", "  topk:"))
    with pytest.raises(ConfigError, match=r"olmoe-small.yaml:\d+: model.topk: unknown key; did you mean `top_k`"):
        load_config("olmoe-small", tmp_path)


def test_an_unknown_model_is_answered_with_the_nearest_and_all() -> None:
    with pytest.raises(ConfigError, match=r"unknown model `olmoe-smal`; did you mean `olmoe-small`.*dense-1b"):
        load_config("olmoe-smal")


def test_overrides_on_the_command_line_are_key_equals_value() -> None:
    assert parse_overrides(["model.experts=8", "optim.eps = 1e-5"]) == {"model.experts": "8", "optim.eps": "1e-5"}
    with pytest.raises(ConfigError, match="'model.experts' is not key=value"):
        parse_overrides(["model.experts"])
