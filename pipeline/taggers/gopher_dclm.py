"""Gopher's quality and repetition rules as DCLM counts them (baselines/mappers/filters/content_filters.py, 361714b).

DCLM's functions return only whether a page stays. Here are the numbers that they compare with their limits;
mixes/filters/gopher-dclm.yaml has the limits. The mean length of words and the count of stop words that DCLM looks at
are columns of other taggers already: `mean_word_length` and `english_stop_words`.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.taggers import Batch, tagger

BULLETS: Final = ("●", "•", "*", "-")
ELLIPSES: Final = ("...", ". . .", "…")


@tagger(
    columns={
        "gopher_dclm_words": pa.int64(),
        "gopher_dclm_symbols_per_word": pa.float64(),
        "gopher_dclm_unalphabetic_word_share": pa.float64(),
        "gopher_dclm_bullet_line_share": pa.float64(),
        "gopher_dclm_ellipsis_line_share": pa.float64(),
    },
    reads=("text",),
)
def gopher_dclm_quality(batch: Batch) -> dict[str, npt.NDArray]:
    """Words, symbols and lines of a page. A text without words, such as an empty one, has 0 in every column.

    words: words of fastText (they end at ASCII whitespace and NUL) whose first character is alphanumeric, which is what
    `page_length_filter` counts. symbols_per_word: "#", "…", "..." and ". . ." / words of `str.split()`.
    unalphabetic_word_share: words of `str.split()` without a letter / all of them. bullet_line_share,
    ellipsis_line_share: lines that begin with one of BULLETS, that end with one of ELLIPSES / lines; lines end at "\\n",
    are stripped, and do not count when they are then empty.
    """
    from pipeline.text import duplicates, page_counts

    words, without_letter, symbols, fasttext_words = page_counts.page_counts(*batch.utf8).T
    data, offsets = batch.utf8
    lines = duplicates.stripped(data, duplicates.split(data, offsets, 1))
    bullets, ellipses = duplicates.edge_counts(data, lines, BULLETS, ELLIPSES).T
    count = np.maximum(np.diff(lines.offsets), 1)
    return {
        "gopher_dclm_words": fasttext_words.copy(),
        "gopher_dclm_symbols_per_word": symbols / np.maximum(words, 1),
        "gopher_dclm_unalphabetic_word_share": without_letter / np.maximum(words, 1),
        "gopher_dclm_bullet_line_share": bullets / count,
        "gopher_dclm_ellipsis_line_share": ellipses / count,
    }


@tagger(
    columns={
        "gopher_dclm_duplicate_line_share": pa.float64(),
        "gopher_dclm_duplicate_paragraph_share": pa.float64(),
        "gopher_dclm_duplicate_line_character_share": pa.float64(),
        "gopher_dclm_duplicate_paragraph_character_share": pa.float64(),
        **{f"gopher_dclm_top_{n}gram_share": pa.float64() for n in (2, 3, 4)},
        **{f"gopher_dclm_repeated_{n}gram_share": pa.float64() for n in (5, 6, 7, 8, 9, 10)},
    },
    reads=("text",),
)
def gopher_dclm_repetition(batch: Batch) -> dict[str, npt.NDArray]:
    """How much of a page its own lines, paragraphs and n-grams repeat. 0 where nothing repeats, as in an empty text.

    duplicate_…: lines (paragraphs) that the text has more than once, every copy / all lines (paragraphs), and their
    characters / characters of all of them. Lines end at "\\n", paragraphs at "\\n\\n"; both are stripped, and left out
    when they are then empty.
    Words are the segments between UAX #29's word boundaries whose first character is alphanumeric; characters are those
    of words. top_…: occurrences × length of the most frequent n-gram / characters; of those equally frequent the longest.
    repeated_…: characters of words that are in an n-gram that comes more than once, each word counted once / characters.
    """
    from pipeline.text import duplicates, ngrams

    data, offsets = batch.utf8
    columns: dict[str, npt.NDArray] = {}
    for name, newlines in (("line", 1), ("paragraph", 2)):
        pieces = duplicates.stripped(data, duplicates.split(data, offsets, newlines))
        count, characters, copies, copy_characters, _, _ = duplicates.duplicate_counts(data, pieces).T
        columns[f"gopher_dclm_duplicate_{name}_share"] = copies / np.maximum(count, 1)
        columns[f"gopher_dclm_duplicate_{name}_character_share"] = copy_characters / np.maximum(characters, 1)
    words = batch.words("unicode")
    wanted = words.table(_begins_alphanumeric) > 0
    word_offsets = np.concatenate([[0], np.cumsum(words.totals(wanted))])
    counts = ngrams.ngram_counts(words.ids[wanted[words.ids]], word_offsets, words.lengths)
    characters = np.maximum(words.totals(words.lengths * wanted), 1)
    for n in range(2, 11):
        count = counts[:, n - 2]
        if n < 5:
            columns[f"gopher_dclm_top_{n}gram_share"] = count[:, ngrams.TIMES] * count[:, ngrams.LONGEST] / characters
        else:
            columns[f"gopher_dclm_repeated_{n}gram_share"] = count[:, ngrams.COVERED] / characters
    return columns


def _begins_alphanumeric(word: str) -> int:
    return word[0].isalnum()
