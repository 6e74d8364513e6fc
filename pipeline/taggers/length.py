"""How long a document is: characters, words and lines."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.taggers import Batch, tagger


@tagger(
    columns={
        "characters": pa.int64(),
        "words": pa.int64(),
        "mean_word_length": pa.float64(),
        "lines": pa.int64(),
        "longest_line": pa.int64(),
    },
    reads=("text",),
)
def length(batch: Batch) -> dict[str, npt.NDArray]:
    """Lengths of the text as it stands, not stripped. An empty text has 0 in every column.

    characters: Unicode code points. words: pieces of `str.split()`, so between any Unicode whitespace.
    mean_word_length: characters that are not whitespace / words, 0.0 without words. lines: pieces between "\\n", of
    which a last empty one does not count. longest_line: characters of the longest line, without its "\\n".
    (The bytes of text and the model's tokens are columns of every document: `bytes`, `tokens`.)
    """
    from pipeline.text import utf8

    characters, visible, words, lines, longest = utf8.length_counts(*batch.utf8).T
    return {
        "characters": characters,
        "words": words,
        "mean_word_length": visible / np.maximum(words, 1),
        "lines": lines,
        "longest_line": longest,
    }
