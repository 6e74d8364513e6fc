"""Which words a document is made of: its most frequent ones, and how many there are by Unicode's rules."""

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
    from pipeline.text import utf8

    total, first, second = utf8.word_counts(*batch.utf8).T
    total = np.maximum(total, 1)
    return {"top_word_share": first / total, "top_two_words_share": (first + second) / total}


@tagger(columns={"unicode_words": pa.int64()}, reads=("text",))
def unicode_words(batch: Batch) -> dict[str, npt.NDArray]:
    """unicode_words: segments between the word boundaries of UAX #29 that are not whitespace alone.

    So "can't" is one word and every punctuation mark is one. It is the count of Dolma's tagger
    `uniseg_length_paragraphs_with_doc_length_v1`, by which its Wikipedia lost documents of fewer than 25 words; the
    classes of characters are those of the same library, `uniseg` (Unicode 16).
    """
    return {"unicode_words": np.diff(batch.words("unicode").offsets)}
