"""Which alphabet and language a text is in, as far as counting tells; no model is asked.

Enough to drop binary waste, foreign scripts and text without sentences. It cannot tell Dutch from English.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.taggers import Batch, tagger

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")  # Gopher (arXiv:2112.11446), appendix A.1


@tagger(
    columns={
        "ascii_share": pa.float64(),
        "alphabetic_share": pa.float64(),
        "latin_share": pa.float64(),
        "english_stop_words": pa.int64(),
    },
    reads=("text",),
    version=2,
)
def language(batch: Batch) -> dict[str, npt.NDArray]:
    """Shares of characters and of letters, and a count of English function words. An empty text has 0 everywhere.

    ascii_share: ASCII characters / characters. alphabetic_share: letters (`str.isalpha()`) / characters.
    latin_share: letters whose Unicode name has the word LATIN / letters, 0.0 without letters. english_stop_words:
    how many words, split at whitespace and lower-cased, are one of STOP_WORDS; every occurrence counts, and "the,"
    with its comma is another word. (DCLM keeps pages with at least 2, counted without punctuation.)
    """
    from pipeline.text import utf8

    characters, ascii_characters, letters, latin = utf8.letter_counts(*batch.utf8, utf8.letter_table()).T
    keys = np.array([utf8.short_word_key(word) for word in STOP_WORDS], dtype=np.uint64)
    return {
        "ascii_share": ascii_characters / np.maximum(characters, 1),
        "alphabetic_share": letters / np.maximum(characters, 1),
        "latin_share": latin / np.maximum(letters, 1),
        "english_stop_words": utf8.short_word_counts(*batch.utf8, keys),
    }
