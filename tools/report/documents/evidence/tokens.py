"""The n-gram of tokens that a document repeats most often in a row, found in its text (pipeline/repetition.py)."""

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from pipeline.repetition import MAX_PERIOD
from tools.report.documents.evidence.text import Mark
from tools.report.documents.evidence.words import quotation

Ids = npt.NDArray[np.unsignedinteger]


def longest_repeat(ids: Ids) -> tuple[int, int, int]:
    """Where the tokens that repeat most often in a row begin and end, and how many make one n-gram. (0, 0, 1) of none.

    ids: [t]. As `max_repeats`: tokens i that equal i - p in a stretch of `run` stand there floor((run + p) / p) times.
    """
    best, start, end, period = 1, 0, 0, 1
    for p in range(1, min(MAX_PERIOD, len(ids) - 1) + 1):
        bounds = np.flatnonzero(np.diff(np.concatenate([[False], ids[p:] == ids[:-p], [False]]).astype(np.int8)))
        runs = bounds[1::2] - bounds[::2]
        if len(runs) and (runs.max() + p) // p > best:
            first = int(bounds[::2][runs.argmax()])
            best, start, end, period = int((runs.max() + p) // p), first, first + int(runs.max()) + p, p
    return start, end, period


def repeated_tokens(tokenizer: Tokenizer, ids: Ids, text: bytes) -> list[Mark]:
    """The place in the text of a document's longest repeat. ids: with the closing token. None where the text cannot be found again, as
    where the tokenizer changes it."""
    start, end, period = longest_repeat(ids[:-1])
    if end == start:
        return []
    before, repeated = (tokenizer.decode(ids[a:b].tolist(), skip_special_tokens=False) for a, b in ((0, start), (start, end)))
    string = text.decode()
    stripped = len(string) - len(string.lstrip())
    place = string.find(repeated, max(stripped + len(before) - 64, 0)) if repeated else -1
    if place < 0:
        return []
    times = (end - start) // period
    one = tokenizer.decode(ids[start : start + period].tolist(), skip_special_tokens=False)
    label = f"the same {f'{period} tokens' if period > 1 else 'token'} {times:,} times in a row: {quotation(one)}"
    first = len(string[:place].encode())
    return [Mark(first, first + len(repeated.encode()), label)]
