"""Gopher's quality and repetition rules as datatrove counts them (datatrove 0.10.1, gopher_{quality,repetition}_filter.py).

Its filters return the first reason only, and stop there. Here are all the numbers that they compare with their limits;
mixes/filters/gopher-datatrove.yaml has the limits. Words are those of spaCy's English tokenizer (words.py).
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.taggers import Batch, tagger
from pipeline.taggers.language import STOP_WORDS

BULLETS = ("•", "-")
ELLIPSES = ("...", "…")


@tagger(
    columns={
        "gopher_datatrove_words": pa.int64(),
        "gopher_datatrove_mean_word_length": pa.float64(),
        "gopher_datatrove_hashes_per_word": pa.float64(),
        "gopher_datatrove_ellipses_per_word": pa.float64(),
        "gopher_datatrove_bullet_line_share": pa.float64(),
        "gopher_datatrove_ellipsis_line_share": pa.float64(),
        "gopher_datatrove_alphabetic_word_share": pa.float64(),
        "gopher_datatrove_stop_words": pa.int64(),
    },
    reads=("text",),
)
def gopher_datatrove_quality(batch: Batch) -> dict[str, npt.NDArray]:
    """Words, symbols and lines of a text. A text without words, such as an empty one, has 0 in every column.

    words: those with a character that is not in datatrove's list of punctuation (symbol_counts.py). mean_word_length:
    characters of these words / these words. hashes_per_word: "#" / all words; ellipses_per_word: "…" and "..." / all words.
    bullet_line_share, ellipsis_line_share: lines that begin with one of BULLETS, that end with one of ELLIPSES, whitespace
    aside, / lines of `str.splitlines()`, blank ones too. alphabetic_word_share: words with a letter / all words. stop_words:
    how many different STOP_WORDS are among the words, in lower case as they stand.
    """
    from pipeline.text import symbol_counts as symbols
    from pipeline.text.duplicates import Pieces, edge_counts, stripped
    from pipeline.text.interning import hashes_of
    from pipeline.text.lines import splitlines
    from pipeline.text.utf8 import LETTER

    data, offsets = batch.utf8
    words = batch.words("spacy")
    counts = symbols.symbol_counts(data, offsets)
    flags = words.flags(symbols.character_table())
    plain = flags & symbols.NO_SYMBOL != 0
    count, plain_count = np.diff(words.offsets), words.totals(plain)
    lines = splitlines(data, offsets)
    bullets, ellipses = edge_counts(data, stripped(data, Pieces(lines.starts, lines.ends, lines.offsets)), BULLETS, ELLIPSES).T
    line_count = np.maximum(np.diff(lines.offsets), 1)
    stop_words = [words.totals(words.hashes == hashed) > 0 for hashed in hashes_of(STOP_WORDS)]
    return {
        "gopher_datatrove_words": plain_count,
        "gopher_datatrove_mean_word_length": words.totals(words.lengths * plain) / np.maximum(plain_count, 1),
        "gopher_datatrove_hashes_per_word": counts[:, symbols.HASHES] / np.maximum(count, 1),
        "gopher_datatrove_ellipses_per_word": counts[:, symbols.ELLIPSES] / np.maximum(count, 1),
        "gopher_datatrove_bullet_line_share": bullets / line_count,
        "gopher_datatrove_ellipsis_line_share": ellipses / line_count,
        "gopher_datatrove_alphabetic_word_share": words.totals(flags & LETTER) / np.maximum(count, 1),
        "gopher_datatrove_stop_words": np.sum(stop_words, axis=0, dtype=np.int64),
    }


@tagger(
    columns={
        "gopher_datatrove_duplicate_line_share": pa.float64(),
        "gopher_datatrove_duplicate_line_character_share": pa.float64(),
        "gopher_datatrove_duplicate_paragraph_share": pa.float64(),
        "gopher_datatrove_duplicate_paragraph_character_share": pa.float64(),
        **{f"gopher_datatrove_top_{n}gram_share": pa.float64() for n in (2, 3, 4)},
        **{f"gopher_datatrove_repeated_{n}gram_share": pa.float64() for n in (5, 6, 7, 8, 9, 10)},
    },
    reads=("text",),
)
def gopher_datatrove_repetition(batch: Batch) -> dict[str, npt.NDArray]:
    """How much of a text its own lines, paragraphs and n-grams repeat. An empty text has 0 in every column.

    duplicate_…: lines (paragraphs) that an equal one comes before / all of them, and their characters / characters of the
    text. Lines lie between runs of "\\n" in the text as it stands, so an empty one may come first and last; paragraphs
    between runs of two or more in the stripped text. None is stripped.
    top_…: occurrences × characters of the most frequent n-gram, the first of several, a blank between words, / characters
    of the text; one in which none repeats has a value as well. repeated_…: characters of the n-grams met again by a reader
    who skips what he has read (ngrams.py), written together without blanks, / characters of the text. 0 where there are
    fewer than n words.
    """
    from pipeline.text import duplicates, ngrams
    from pipeline.text.symbol_counts import CHARACTERS, symbol_counts

    data, offsets = batch.utf8
    characters = np.maximum(symbol_counts(data, offsets)[:, CHARACTERS], 1)
    line_counts = duplicates.duplicate_counts(data, duplicates.split(data, offsets, 1))
    columns: dict[str, npt.NDArray] = {}
    for name, counts in (("line", line_counts), ("paragraph", _paragraph_counts(data, offsets))):
        columns[f"gopher_datatrove_duplicate_{name}_share"] = counts[:, duplicates.LATER] / counts[:, duplicates.PIECES]
        columns[f"gopher_datatrove_duplicate_{name}_character_share"] = counts[:, duplicates.LATER_CHARACTERS] / characters
    words = batch.words("spacy")
    most = ngrams.ngram_counts(words.ids, words.offsets, words.lengths)
    repeated = ngrams.skipping_repeats(data, words.ids, words.offsets, words.starts, words.lengths, words.byte_lengths)
    for n in range(2, 5):
        times, first = most[:, n - 2, ngrams.TIMES], most[:, n - 2, ngrams.FIRST]
        columns[f"gopher_datatrove_top_{n}gram_share"] = times * (first + n - 1) / characters
    for n in range(5, 11):
        columns[f"gopher_datatrove_repeated_{n}gram_share"] = repeated[:, n - 5] / characters
    return columns


def _paragraph_counts(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """What `duplicate_counts` gives for `re.split("\\n{2,}", text.strip())`."""
    from pipeline.text.duplicates import Pieces, duplicate_counts, split, stripped

    inner = stripped(data, Pieces(offsets[:-1], offsets[1:], np.arange(len(offsets))))
    # Where each stripped text begins and ends, so that every second stretch is one; of whitespace, nothing is left.
    bounds = np.append(np.repeat(offsets[:-1], 2), offsets[-1])
    some = 2 * np.flatnonzero(np.diff(inner.offsets))
    bounds[some], bounds[some + 1] = inner.starts, inner.ends
    return duplicate_counts(data, split(data, bounds, 2))[::2]
