"""Continuing a text: the ids against a model that is written down here, the text against the tokenizer itself."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

from pipeline.errors import ConfigError, PipelineError
from trainer.config import ModelConfig
from trainer.generate import generate, stream_text
from trainer.model import Transformer
from trainer.parallel import initialise

CONFIG = ModelConfig(d_model=32, layers=2, heads=4, vocab_size=60, padded_vocab=64, experts=4, top_k=2, expert_width=16, init_std=0.3)
EOS = 59
PROMPT = [3, 1, 4, 1, 5]


@pytest.fixture(scope="module")
def model() -> Transformer:
    model = Transformer(CONFIG)
    initialise(model, seed=2)
    return model


def with_head(model: Transformer, favourite: int) -> Transformer:
    """A model of the same body that always finds `favourite` the most probable."""
    other = Transformer(CONFIG)
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        direction = torch.ones(CONFIG.d_model)
        other.head.weight.zero_()
        other.norm.weight.zero_()  # hidden states are 0 …
    other.norm.register_forward_hook(lambda *_: direction.expand(*_[-1].shape))  # … and then 1
    with torch.no_grad():
        other.head.weight[favourite] = 1.0
    return other


def logits(model: Transformer, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model.head(model(torch.tensor([ids])).hidden_BSD)[0, -1]


def test_temperature_0_takes_the_most_probable_id_of_the_vocabulary_at_each_place(model: Transformer) -> None:
    new = list(generate(model, PROMPT, 20, eos=-1, vocab_size=60, temperature=0.0, seed=0))
    assert len(new) == 20 and len(set(new)) > 1
    for place, chosen in enumerate(new):
        assert chosen == int(logits(model, PROMPT + new[:place])[:60].argmax())


def test_ids_that_pad_the_vocabulary_are_never_chosen(model: Transformer) -> None:
    padding = with_head(model, 62)
    assert int(logits(padding, PROMPT).argmax()) == 62
    assert list(generate(padding, PROMPT, 3, EOS, 60, 0.0, 0)) == [0, 0, 0]  # all others are equal
    assert max(generate(padding, PROMPT, 50, EOS, 60, 5.0, 0)) < 60


def test_eos_ends_the_text_and_is_not_given(model: Transformer) -> None:
    assert list(generate(with_head(model, EOS), PROMPT, 9, EOS, 60, 0.0, 0)) == []
    assert list(generate(with_head(model, 7), PROMPT, 9, EOS, 60, 0.0, 0)) == [7] * 9


def test_the_seed_alone_decides_what_is_drawn(model: Transformer) -> None:
    draws = [list(generate(model, PROMPT, 12, -1, 60, 1.0, seed)) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


def test_draws_have_the_frequencies_of_the_softmax_at_that_temperature(model: Transformer) -> None:
    """300 draws against softmax(logits / 2): total variation under 0.25, where another temperature is further off."""
    ids = [next(generate(model, PROMPT, 1, -1, 60, 2.0, seed)) for seed in range(300)]
    seen = torch.bincount(torch.tensor(ids), minlength=60) / 300
    distance = {t: float((seen - (logits(model, PROMPT)[:60] / t).softmax(0)).abs().sum()) / 2 for t in (0.5, 2.0, 8.0)}
    assert distance[2.0] < 0.25
    assert min(distance, key=lambda t: distance[t]) == 2.0


def test_ids_come_while_they_are_chosen_and_the_prompt_is_left_alone(model: Transformer) -> None:
    calls = []
    handle = model.norm.register_forward_hook(lambda *_: calls.append(1))
    prompt = list(PROMPT)
    new = generate(model, prompt, 5, -1, 60, 0.0, 0)
    next(new)
    assert len(calls) == 1
    next(new)
    assert len(calls) == 2
    handle.remove()
    assert prompt == PROMPT
    assert torch.is_grad_enabled()


def test_with_document_masking_what_lies_before_an_eos_is_not_seen() -> None:
    masked = Transformer(CONFIG.model_copy(update={"document_masking": True}))
    initialise(masked, seed=2)
    continued = [list(generate(masked, [*before, EOS, 5, 6], 8, EOS, 60, 0.0, 0)) for before in ([1, 2, 3], [50, 40, 30])]
    assert len(continued[0]) > 0 and continued[0] == continued[1]
    within = [list(generate(masked, [*before, 5, 6], 8, EOS, 60, 0.0, 0)) for before in ([1, 2, 3], [50, 40, 30])]
    assert within[0] != within[1]


def test_a_dense_model_generates(model: Transformer) -> None:
    dense = Transformer(CONFIG.model_copy(update={"ffn": "dense"}))
    initialise(dense, seed=1)
    assert len(list(generate(dense, PROMPT, 4, -1, 60, 0.0, 0))) == 4


def test_a_prompt_of_one_token_is_enough(model: Transformer) -> None:
    assert len(list(generate(model, [EOS], 2, -1, 60, 0.0, 0))) == 2


@pytest.mark.parametrize(
    ("tokens", "temperature", "said"),
    [([], 0.0, "nothing to continue"), ([1, 60], 0.0, "from 1 to 60"), ([-1], 0.0, "from -1"), ([1], -0.5, "temperature -0.5")],
)
def test_a_wrong_request_is_refused_before_anything_is_computed(
    model: Transformer, tokens: list[int], temperature: float, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        generate(model, tokens, 5, EOS, 60, temperature, 0)


def test_a_model_whose_experts_choose_tokens_is_refused() -> None:
    with pytest.raises(ConfigError, match="expert_choice"):
        generate(Transformer(CONFIG.model_copy(update={"routing": "expert_choice"})), PROMPT, 5, EOS, 60, 0.0, 0)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Byte-level, one id for each byte, so that every character beyond ASCII takes several; 256 is special."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = Tokenizer(BPE({character: number for number, character in enumerate(alphabet)}, []))
    words.pre_tokenizer, words.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False), decoders.ByteLevel()
    words.add_special_tokens([AddedToken("<end>", special=True)])
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    words.save(str(path))
    return path


def ids_of(tokenizer: Path, text: str) -> list[int]:
    return Tokenizer.from_file(str(tokenizer)).encode(text).ids


@pytest.mark.parametrize("text", ["plain words", "naïve Ωmega 漢字 🦙🏽 نص", " leading and\n\ttrailing \n", "a\u0301 �x", ""])
def test_streamed_pieces_are_whole_characters_and_make_the_text(tokenizer: Path, text: str) -> None:
    ids = ids_of(tokenizer, text)
    pieces = list(stream_text(tokenizer, ids))
    assert "".join(pieces) == text
    if "�" not in text:
        assert len(pieces) == len(text)  # each as soon as its last byte is there


def test_text_comes_before_the_next_id_is_asked_for(tokenizer: Path) -> None:
    asked = []

    def source() -> Iterator[int]:
        for number in ids_of(tokenizer, "añb"):
            asked.append(number)
            yield number

    pieces = stream_text(tokenizer, source())
    assert [(next(pieces), len(asked)) for _ in range(3)] == [("a", 1), ("ñ", 3), ("b", 4)]


def test_special_tokens_are_left_out_and_broken_bytes_at_the_end_are_marked(tokenizer: Path) -> None:
    llama = ids_of(tokenizer, "🦙")
    assert "".join(stream_text(tokenizer, [*ids_of(tokenizer, "so"), 256, *llama[:3]])) == "so�"


def test_any_sequence_of_ids_gives_what_the_tokenizer_decodes(tokenizer: Path) -> None:
    generator = torch.Generator().manual_seed(3)
    whole = Tokenizer.from_file(str(tokenizer))
    for _ in range(50):
        ids = torch.randint(0, 257, (60,), generator=generator).tolist()
        assert "".join(stream_text(tokenizer, ids)) == whole.decode(ids)


def test_a_long_text_streams_in_linear_time(tokenizer: Path) -> None:
    ids = ids_of(tokenizer, "word ñ " * 4000)
    began = time.perf_counter()
    assert len("".join(stream_text(tokenizer, ids))) == 28_000
    assert time.perf_counter() - began < 5


def test_a_file_that_is_no_tokenizer_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(PipelineError, match=r"tokenizer\.json cannot be read"):
        list(stream_text(tmp_path / "tokenizer.json", [1]))
