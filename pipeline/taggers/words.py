"""Which words a document is made of: its most frequent ones, and how many there are by Unicode's rules."""

import re
from functools import cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.taggers import Batch, tagger


@tagger(columns={"top_word_share": pa.float64(), "top_two_words_share": pa.float64()}, reads=("text",))
def words(batch: Batch) -> dict[str, npt.NDArray]:
    """Share of a document's words that are its most frequent word, or one of its two most frequent.

    OLMoE-mix drops StarCoder documents at `top_word_share > 0.30` and `top_two_words_share > 0.50` (dataset card).
    The card does not say what a word is; here it is a piece of `str.split()`, case and punctuation kept. A text
    without words has 0.0; one with a single distinct word has 1.0 in both.
    """
    from pipeline import utf8

    total, first, second = utf8.word_counts(*batch.utf8).T
    total = np.maximum(total, 1)
    return {"top_word_share": first / total, "top_two_words_share": (first + second) / total}


@tagger(columns={"unicode_words": pa.int64()}, reads=("text",))
def unicode_words(batch: Batch) -> dict[str, npt.NDArray]:
    """unicode_words: segments between the word boundaries of UAX #29 that are not whitespace alone.

    So "can't" is one word and every punctuation mark is one. It is the count of Dolma's tagger
    `uniseg_length_paragraphs_with_doc_length_v1`, by which its Wikipedia lost documents of fewer than 25 words; the
    same library, `uniseg`, decides (Unicode 16). Every chunk between blanks is counted once and remembered.
    """
    count = _chunk_counts().__getitem__
    return {"unicode_words": np.array([sum(map(count, _chunks(text))) for text in batch.texts], dtype=np.int64)}


def _chunks(text: str) -> list[str]:
    # Of all whitespace only U+202F binds ("10\u202f000" is one word); the rest ends a segment, or takes a combining
    # mark that follows into one, which is one word either way.
    return re.split(r"[^\S\u202f]+", text) if "\u202f" in text else text.split()


# UAX #29, rules 5 to 13, over strings in which each character is replaced by its class (_CLASSES), and the same for ASCII
# as it stands: the marks that bind letters are ' . : and those that bind digits ' . , ;
_WORD = re.compile(r"[ANE]+(?:(?:(?<=A)[LBQ](?=A)|(?<=N)[DBQ](?=N))[ANE]+)*|[^ANE]")
_ASCII_WORD = re.compile(r"[A-Za-z0-9_]+(?:(?:(?<=[A-Za-z])['.:](?=[A-Za-z])|(?<=[0-9])['.,;](?=[0-9]))[A-Za-z0-9_]+)*|[^A-Za-z0-9_]")
# Word_Break property values that need no other rule; a character of another one (marks, joiners, Hebrew, Katakana, flags)
# is "X", and its chunk is left to uniseg.
_CLASSES = {
    "ALETTER": "A", "NUMERIC": "N", "EXTENDNUMLET": "E", "MIDLETTER": "L", "MIDNUMLET": "B", "SINGLE_QUOTE": "Q",
    "MIDNUM": "D", "DOUBLE_QUOTE": "O", "OTHER": "O",
}  # fmt: skip

_REMEMBERED_CHUNKS = 1 << 17  # of at most _REMEMBERED_LENGTH characters: about 25 MB
_REMEMBERED_LENGTH = 64


class _ChunkCounts(dict[str, int]):
    """Chunk → number of words; forgets everything when full, so memory is bounded."""

    def __missing__(self, chunk: str) -> int:
        count = _count(chunk)
        if len(chunk) <= _REMEMBERED_LENGTH:
            if len(self) >= _REMEMBERED_CHUNKS:
                self.clear()
            self[chunk] = count
        return count


def _count(chunk: str) -> int:
    if chunk.isascii() and chunk.isprintable():
        return len(_ASCII_WORD.findall(chunk))
    classes = chunk.translate(_class_of_character())
    if "X" not in classes:
        return len(_WORD.findall(classes))
    from uniseg.wordbreak import words as segments

    return sum(1 for segment in segments(chunk) if not segment.isspace())


class _ClassOfCharacter(dict[int, str]):
    """Code point → class, as uniseg's tables have it. There are at most 1,114,112."""

    def __missing__(self, code: int) -> str:
        from uniseg.wordbreak import word_break

        # U+202F may be a segment by itself that is whitespace alone.
        self[code] = "X" if code == 0x202F else _CLASSES.get(word_break(chr(code)).name.upper(), "X")
        return self[code]


@cache
def _class_of_character() -> _ClassOfCharacter:
    return _ClassOfCharacter()


@cache
def _chunk_counts() -> _ChunkCounts:
    return _ChunkCounts()
