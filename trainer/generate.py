"""A model continues a text: token by token, and the ids as text while they come.

In: a whole model in this process and the ids of a prompt. Out: an iterator of new ids, and one of text. Each new token costs a
forward pass over all tokens before it: there are no cached keys and values, which keeps model.py the equations alone
and is quick enough for a few hundred tokens of a small model; to serve a large one, export it (hf.py) to a server.
Only the last position's logits are computed. Not: no batches, no nucleus sampling, no chat.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from pipeline.config import shown
from pipeline.errors import ConfigError, PipelineError
from trainer.model import Transformer


def generate(model: Transformer, tokens: list[int], count: int, eos: int, vocab_size: int, temperature: float, seed: int) -> Iterator[int]:
    """At most `count` ids that follow `tokens`, each yielded as soon as it is chosen; `eos` ends them and is not yielded.

    temperature 0 takes the most probable id (the lowest of equal ones), t > 0 draws from softmax(logits / t) with `seed`. The rows
    from `vocab_size` on that pad the vocabulary are never chosen. Positions beyond the length that the model was trained on
    are computed, but it has never seen any such. Raises ConfigError for an empty prompt, an id without a meaning, a
    negative temperature and a model whose experts choose tokens: these look at later tokens.
    """
    if model.config.routing == "expert_choice":
        raise ConfigError("a model with routing: expert_choice cannot generate: its experts choose among later tokens too")
    if not tokens:
        raise ConfigError(f"nothing to continue: give at least one token, such as {eos}, which stands before every document")
    if not 0 <= min(tokens) <= max(tokens) < vocab_size:
        raise ConfigError(f"the prompt has ids from {min(tokens)} to {max(tokens)}; the model knows 0 to {vocab_size - 1}")
    if temperature < 0:
        raise ConfigError(f"temperature {temperature} is negative; 0 takes the most probable token, 1 draws as the model says")
    return _new_ids(model, list(tokens), count, eos, vocab_size, temperature, torch.Generator().manual_seed(seed))


def _new_ids(
    model: Transformer, tokens: list[int], count: int, eos: int, vocab_size: int, temperature: float, generator: torch.Generator
) -> Iterator[int]:
    for _ in range(count):
        logits_V = _next_logits(model, tokens, eos)[:vocab_size]
        if temperature == 0:
            chosen = int(logits_V.argmax())
        else:
            chosen = int(torch.multinomial((logits_V / temperature).softmax(dim=0), 1, generator=generator))
        if chosen == eos:
            return
        tokens.append(chosen)
        yield chosen


@torch.no_grad()
def _next_logits(model: Transformer, tokens: list[int], eos: int) -> Tensor:
    """The logits after the last token: (V,), float32, on the CPU, where draws are the same for all devices."""
    tokens_1S = torch.tensor([tokens], device=model.head.weight.device)
    # A document ends with its eos, so the number of those before a token tells documents apart.
    ends_1S = (tokens_1S == eos).int()
    hidden_1SD = model(tokens_1S, ends_1S.cumsum(dim=1) - ends_1S).hidden_BSD
    logits_V: Tensor = model.head(hidden_1SD[0, -1])
    return logits_V.float().cpu()


def stream_text(tokenizer_json: Path, ids: Iterable[int]) -> Iterator[str]:
    """The ids as text, in pieces that never end within a character; special tokens are left out.

    Bytes at the very end that make no whole character become U+FFFD. Raises PipelineError if the file is no tokenizer.
    """
    from tokenizers import Tokenizer
    from tokenizers.decoders import DecodeStream

    try:
        tokenizer = Tokenizer.from_file(str(tokenizer_json))
    except Exception as error:  # the library raises Exception itself
        raise PipelineError(f"{shown(tokenizer_json)} cannot be read as a tokenizer.json: {error}") from error
    stream, seen, given = DecodeStream(skip_special_tokens=True), [], 0
    for number in ids:
        seen.append(number)
        if piece := stream.step(tokenizer, number):
            given += len(piece)
            yield piece
    if rest := tokenizer.decode(seen)[given:]:
        yield rest
