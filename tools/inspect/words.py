"""Token ids → text in which one sees where tokens end.

In: ids, the tokenizer.json that they were made with. Out: pieces of text, each of one token or, where a character is spread over
several, of these together; and how they are shown: on a terminal every other piece is underlined and `↵` stands at a line's end,
elsewhere `│` stands between pieces. Cost: 3 µs per token, 60 on a terminal, a line's memory. Not: ids are not checked against the
vocabulary; what the tokenizer does not know is nothing to it.
"""

from collections.abc import Iterable, Iterator

from rich.text import Text
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from pipeline.terminal import visible

HELD = 8  # tokens that may wait for the rest of a character, which has four bytes at most; more is noise, and shown as such
LINE = 4_000  # characters after which a line without an end is given out
SEPARATOR = "│"
RETURN = "↵"


def pieces(tokenizer: Tokenizer, ids: Iterable[int]) -> Iterator[str]:
    """The text of the ids; together it is what the tokenizer decodes them to, special tokens included. Bytes that make no character
    are U+FFFD."""
    stream, held = DecodeStream(skip_special_tokens=False), list[int]()
    for number in ids:
        held.append(number)
        piece = stream.step(tokenizer, number)
        if piece is None and len(held) == HELD:
            piece = tokenizer.decode(held, skip_special_tokens=False)
            stream = DecodeStream(skip_special_tokens=False)
        if piece is not None:
            held.clear()
            yield piece
    if held:
        yield tokenizer.decode(held, skip_special_tokens=False)


def plain(found: Iterable[str]) -> Iterator[str]:
    """Pieces with `│` between them, for a file or a pipe: lines and tabs are the text's own."""
    between = ""
    for piece in found:
        yield between + visible(piece, lines=True)
        between = SEPARATOR


def styled(found: Iterable[str]) -> Iterator[Text]:
    """Pieces as lines for a terminal, without line ends, every other piece underlined."""
    line = Text()
    for number, piece in enumerate(found):
        style = "underline" if number % 2 else ""
        first, *others = piece.split("\n")
        _append(line, first, style)
        for other in others:
            yield line.append(RETURN, "dim")
            line = Text()
            _append(line, other, style)
        if len(line) > LINE:
            yield line
            line = Text()
    yield line


def _append(line: Text, text: str, style: str) -> None:
    line.append(visible(text).replace("␉", "→   "), style)
