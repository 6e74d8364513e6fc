"""Generation: greedy equals a hand-written loop, draws are seeded, padding ids never come, text never breaks a character."""

from pathlib import Path

import pytest
import torch

from trainer.config import ModelConfig
from trainer.generate import generate, stream_text
from trainer.model import Transformer, initialise

CONFIG = ModelConfig(d_model=16, layers=1, heads=2, vocab_size=50, padded_vocab=64, experts=4, top_k=2, expert_width=8, init_std=0.5)
EOS = 49


@pytest.fixture(scope="module")
def model() -> Transformer:
    made = Transformer(CONFIG)
    initialise(made, 3)
    return made


def test_at_temperature_0_each_token_is_the_most_probable_one(model: Transformer) -> None:
    found = list(generate(model, [1, 2, 3], 12, EOS, 50, 0.0, seed=0))
    seen = [1, 2, 3]
    for new in found:
        logits = model.head(model(torch.tensor([seen])).hidden_BSD)[0, -1, :50]
        assert new == int(logits.argmax())
        seen.append(new)
    assert len(found) == 12


def test_draws_repeat_with_their_seed_and_follow_the_probabilities(model: Transformer) -> None:
    assert list(generate(model, [5], 20, EOS, 50, 1.0, seed=7)) == list(generate(model, [5], 20, EOS, 50, 1.0, seed=7))
    first = [next(generate(model, [5], 1, 64, 50, 1.0, seed=seed)) for seed in range(600)]
    probabilities = model.head(model(torch.tensor([[5]])).hidden_BSD)[0, -1, :50].softmax(0)
    likely = int(probabilities.argmax())
    assert first.count(likely) / 600 == pytest.approx(float(probabilities[likely]), abs=0.08)
    assert max(first) < 50


def test_it_stops_before_the_end_of_document(model: Transformer) -> None:
    greedy = list(generate(model, [1, 2, 3], 12, EOS, 50, 0.0, seed=0))
    assert list(generate(model, [1, 2, 3], 12, greedy[4], 50, 0.0, seed=0)) == greedy[: greedy.index(greedy[4])]


def test_an_empty_prompt_is_refused(model: Transformer) -> None:
    with pytest.raises(ValueError, match="at least one token"):
        next(generate(model, [], 1, EOS, 50, 0.0, seed=0))


def test_streamed_text_is_the_text_and_no_piece_breaks_a_character(recipes: Path) -> None:
    from tokenizers import Tokenizer

    text = "Häuser, 漢字 and 🙂 – ok"
    ids = Tokenizer.from_file(str(recipes / "tiny.json")).encode(text).ids
    pieces = list(stream_text(recipes / "tiny.json", ids))
    assert "".join(pieces) == text
    assert len(pieces) > 5 and not any("\ufffd" in piece for piece in pieces)
