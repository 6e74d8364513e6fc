"""Text to token ids, exactly as Hugging Face `tokenizers` gives them, at 30 to 60 times its speed.

The engine is gigatoken (byte-level BPE in Rust, loads `tokenizer.json` as it is). Its word cache only grows, so a
process makes itself a new encoder, at 0.12 s, whenever the last one has seen `ENCODER_BYTES` of text. It knows the letters of
Unicode 17, `tokenizers` does not yet: texts with one of these 4,657 are left to `tokenizers`. Where its wheel is missing,
`tokenizers` itself does all the work and the run says so. Whatever the engine, `spot_check` compares a sample of each
unit's documents with `tokenizers`, and one differing id stops the run.
"""

import hashlib
import re
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pipeline.errors import PipelineError

ENCODER_BYTES = 128_000_000  # its cache takes 200 MB by then, measured on text in which no word comes twice
SPOT_CHECK_EVERY = 1024  # documents: about 0.1 % of the text, and at 1 MB/s a twentieth of the time
SPOT_CHECK_CHARACTERS = 50_000  # longer documents are left to the tests

# Code points that are letters or digits to gigatoken 0.10 and unassigned to tokenizers 0.23: those that Unicode 17 added. Found by
# encoding every code point, as the slow test does again.
_NEWER_BMP = "\u088f\u0c5c\u0cdc\ua7ce\ua7cf\ua7d2\ua7d4\ua7f1"
_NEWER = re.compile(
    "[\U00010940-\U00010959\U00010ec5-\U00010ec7\U00011db0-\U00011ddb\U00011de0-\U00011de9\U00016ea0-\U00016eb8"
    "\U00016ebb-\U00016ed3\U00016ff2-\U00016ff6\U000187f8-\U000187ff\U00018d09-\U00018d1e\U00018d80-\U00018df2"
    "\U0001e6c0-\U0001e6de\U0001e6e0-\U0001e6e2\U0001e6e4\U0001e6e5\U0001e6e7-\U0001e6ed\U0001e6f0-\U0001e6f4"
    "\U0001e6fe\U0001e6ff\U0002b73a-\U0002b73f\U0002cea2-\U0002cead\U000323b0-\U00033479]"
)


class Encoder(Protocol):
    """`encode(texts)` returns the ids of all texts one after another (uint32) and where each text's ids begin
    (int64, one more than there are texts). No special tokens are added."""

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]: ...


class Gigatoken:
    """One call per text: its batches come as awkward arrays, whose import alone costs as much as 10 MB of text."""

    def __init__(self, tokenizer_json: bytes) -> None:
        self._json = tokenizer_json
        self._seen = ENCODER_BYTES

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        if self._seen >= ENCODER_BYTES:
            from gigatoken import Tokenizer

            self._tokenizer, self._seen = Tokenizer.from_json(self._json), 0
        self._seen += sum(map(len, texts))
        return _joined([self._tokenizer.encode(text) if not has_newer_letter(text) else self._by_reference(text) for text in texts])

    def _by_reference(self, text: str) -> np.ndarray:
        return np.array(_reference(self._json).encode(text, add_special_tokens=False).ids, dtype=np.uint32)


def has_newer_letter(text: str) -> bool:
    """Whether a text has a letter that the two engines do not agree on. Costs 4 % of encoding it."""
    if text.isascii():
        return False
    if any(letter in text for letter in _NEWER_BMP):
        return True
    # A string with a character beyond U+FFFF takes 4 bytes for each of its characters; few have one, and only these are searched.
    return sys.getsizeof(text) >= 4 * len(text) and _NEWER.search(text) is not None


class HuggingFace:
    """The reference. It holds about 90 bytes per token while a batch is in flight, hence the small batches."""

    BATCH = 64

    def __init__(self, tokenizer_json: bytes) -> None:
        self._tokenizer = _reference(tokenizer_json)

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        pieces = []
        for start in range(0, len(texts), self.BATCH):
            batch = self._tokenizer.encode_batch_fast(list(texts[start : start + self.BATCH]), add_special_tokens=False)
            pieces += [np.array(encoding.ids, dtype=np.uint32) for encoding in batch]
        return _joined(pieces)


def _joined(pieces: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.zeros(len(pieces) + 1, np.int64)
    np.cumsum([len(piece) for piece in pieces], out=offsets[1:])
    return np.concatenate(pieces) if pieces else np.empty(0, np.uint32), offsets


@lru_cache(maxsize=1)
def encoder(tokenizer_json: bytes) -> Encoder:
    """This process's encoder: the fast engine where it is installed, else `tokenizers`."""
    return Gigatoken(tokenizer_json) if engine_name() == "gigatoken" else HuggingFace(tokenizer_json)


@lru_cache
def engine_name() -> str:
    try:
        import gigatoken  # noqa: F401
    except ImportError:
        return "tokenizers"
    return "gigatoken"


@lru_cache(maxsize=2)
def _reference(tokenizer_json: bytes) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_str(tokenizer_json.decode())


def spot_check(tokenizer_json: bytes, texts: Sequence[str], ids: Sequence[np.ndarray], names: Sequence[str]) -> int:
    """Compare ids with those of `tokenizers`; returns how many documents were compared.

    Raises PipelineError naming the first document whose ids differ.
    """
    reference = _reference(tokenizer_json)
    for text, ours, name in zip(texts, ids, names, strict=True):
        theirs = np.array(reference.encode(text, add_special_tokens=False).ids, dtype=np.uint32)
        if not np.array_equal(ours, theirs):
            shorter = min(len(ours), len(theirs))
            unlike = np.flatnonzero(ours[:shorter] != theirs[:shorter])
            place = int(unlike[0]) if len(unlike) else shorter
            raise PipelineError(
                f"{name}: {engine_name()} and tokenizers disagree from token {place} on "
                f"({ours[place : place + 4].tolist()} against {theirs[place : place + 4].tolist()}); uninstall "
                f"{engine_name()} to tokenize with the reference, and please report the document"
            )
    return len(texts)


@lru_cache(maxsize=2)
def kept(sha256: str) -> str:
    """Where a store keeps the tokenizer.json of that sha256."""
    return f"tokenizers/{sha256}.json"


def load(path: str, sha256: str) -> bytes:
    """The contents of a tokenizer.json, checked against its sha256."""
    content = Path(path).read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise PipelineError(f"{path}: sha256 is {found}, expected {sha256}; delete the file and fetch it again")
    return content


def dtype_for(vocab_size: int) -> np.dtype:
    """The smallest of uint16 and uint32 that holds every id, little-endian; the same choice as Dolma's."""
    return np.dtype("<u2") if vocab_size <= 1 << 16 else np.dtype("<u4")
