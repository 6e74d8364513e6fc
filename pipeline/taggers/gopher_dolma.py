"""Gopher's rules as Dolma counts them: its taggers gopher_v1 and gopher_v2 (dolma 1.2.1, taggers/gopher.py).

The two differ in what a line is, so three columns come twice; those of gopher_v1, by which Dolma's published mixes were
filtered, end in `_v1`. Values are rounded to 5 decimals because Dolma's attributes are, before limits see them.
Limits: mixes/filters/gopher-dolma.yaml.
"""

from functools import cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.taggers import Batch, tagger
from pipeline.taggers.language import STOP_WORDS

DECIMALS = 5
_SYMBOL = 4  # beside utf8.LETTER and utf8.LATIN


@tagger(
    columns={
        "gopher_dolma_words": pa.int64(),
        "gopher_dolma_median_word_length": pa.float64(),
        "gopher_dolma_symbol_word_share": pa.float64(),
        "gopher_dolma_alphabetic_word_share": pa.float64(),
        "gopher_dolma_required_words": pa.int64(),
        "gopher_dolma_bullet_line_share": pa.float64(),
        "gopher_dolma_bullet_line_share_v1": pa.float64(),
        "gopher_dolma_ellipsis_line_share": pa.float64(),
        "gopher_dolma_ellipsis_line_share_v1": pa.float64(),
        "gopher_dolma_duplicate_line_share": pa.float64(),
        "gopher_dolma_duplicate_line_share_v1": pa.float64(),
        "gopher_dolma_duplicate_line_character_share": pa.float64(),
        **{f"gopher_dolma_top_{n}gram_share": pa.float64() for n in (2, 3, 4)},
        **{f"gopher_dolma_duplicate_{n}gram_share": pa.float64() for n in (5, 6, 7, 8, 9, 10)},
    },
    reads=("text",),
)
def gopher_dolma(batch: Batch) -> dict[str, npt.NDArray]:
    """Words are pieces of `str.split()`, and characters are those of words. An empty text has 0 in every column.

    median_word_length: in characters. symbol_word_share: words with "#" or "…" in them / words. alphabetic_word_share:
    words with a letter / words. required_words: occurrences of STOP_WORDS, in lower case as they stand.
    Lines lie between runs of "\\n", or in gopher_v1 between single ones, so that blank lines are lines there; neither
    strips them. bullet_line_share: begin with "*" or "-"; ellipsis_line_share: end with "…"; duplicate_line_share: those
    that the text has more than once, every copy; each / lines. duplicate_line_character_share: characters of such lines,
    blanks included, / characters; it can be more than 1.
    top_…: occurrences × characters of the most frequent n-gram, the first of several, / characters; a text in which none
    repeats has a value as well. duplicate_…: characters of the n-grams that occur more than once, every time they do,
    / characters of all n-grams, so that a word counts up to n times in both. 0 where there are fewer than n words: Dolma
    writes no such attribute then, and its mixer's rules pass a missing one.
    """
    from pipeline.text import ngrams, utf8

    words = batch.words("whitespace")
    count = np.diff(words.offsets)
    some = np.maximum(count, 1)
    found = words.flags(_character_table())
    characters = np.maximum(words.totals(words.lengths), 1)
    columns = {
        "gopher_dolma_words": count,
        "gopher_dolma_median_word_length": _medians(words.lengths[words.ids], words.offsets),
        "gopher_dolma_symbol_word_share": words.totals(found & _SYMBOL != 0) / some,
        "gopher_dolma_alphabetic_word_share": words.totals(found & utf8.LETTER) / some,
        "gopher_dolma_required_words": words.totals(np.isin(words.hashes, _required())),
        **_lines(*batch.utf8, characters),
    }
    counts = ngrams.ngram_counts(words.ids, words.offsets, words.lengths)
    for n in range(2, 11):
        row = counts[:, n - 2]
        if n < 5:
            columns[f"gopher_dolma_top_{n}gram_share"] = row[:, ngrams.TIMES] * row[:, ngrams.FIRST] / characters
        else:
            columns[f"gopher_dolma_duplicate_{n}gram_share"] = row[:, ngrams.COPIES] / np.maximum(row[:, ngrams.ALL], 1)
    return {name: at_five_decimals(values) if values.dtype == np.float64 else values for name, values in columns.items()}


def _lines(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], characters: npt.NDArray) -> dict[str, npt.NDArray]:
    from pipeline.text import duplicates

    lines = duplicates.split(data, offsets, 1)
    bullets, ellipses = duplicates.edge_counts(data, lines, ("*", "-"), ("…",)).T
    count, _, copies, copy_characters, _, _ = duplicates.duplicate_counts(data, lines).T
    # gopher_v1 has the same lines and more empty ones: of gopher_v2's, only the first and the last can be empty.
    newlines = np.flatnonzero(data[offsets[0] : offsets[-1]] == 0x0A) + offsets[0]
    count_v1 = np.diff(np.searchsorted(newlines, offsets)) + 1
    empty = _sums(lines.starts == lines.ends, lines.offsets)
    empty_v1 = count_v1 - count + empty
    copies_v1 = copies - np.where(empty > 1, empty, 0) + np.where(empty_v1 > 1, empty_v1, 0)
    return {
        "gopher_dolma_bullet_line_share": bullets / count,
        "gopher_dolma_bullet_line_share_v1": bullets / count_v1,
        "gopher_dolma_ellipsis_line_share": ellipses / count,
        "gopher_dolma_ellipsis_line_share_v1": ellipses / count_v1,
        "gopher_dolma_duplicate_line_share": copies / count,
        "gopher_dolma_duplicate_line_share_v1": copies_v1 / count_v1,
        "gopher_dolma_duplicate_line_character_share": copy_characters / characters,
    }


def _sums(values: npt.NDArray, offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """[texts] the sum of values[offsets[t]:offsets[t + 1]]."""
    return np.diff(np.concatenate([[0], np.cumsum(values, dtype=np.int64)])[offsets])


def _medians(values: npt.NDArray, offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """[texts] the median of values[offsets[t]:offsets[t + 1]], that of an even number the mean of the middle two; 0 of none."""
    count = np.diff(offsets)
    # Sorted all at once, by text and then value; both fit into 32 bits.
    ordered = np.sort(np.repeat(np.arange(len(count)) << 32, count) | values) & 0xFFFFFFFF
    ordered = np.append(ordered, 0)
    middle = (ordered[offsets[:-1] + (count - 1) // 2] + ordered[offsets[:-1] + count // 2]) / 2
    return np.where(count > 0, middle, 0.0)


def at_five_decimals(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Python's `round(value, DECIMALS)`, which rounds the exact value of the binary fraction, and halves to even."""
    scaled = values * 10**DECIMALS
    rounded = np.rint(scaled) / 10**DECIMALS
    # Scaling errs by 1e-16 of the value, so it can only decide wrongly next to a half.
    for at in np.flatnonzero(np.abs(scaled - np.floor(scaled) - 0.5) < 1e-15 * np.maximum(scaled, 1)):
        rounded[at] = round(float(values[at]), DECIMALS)
    return rounded


@cache
def _character_table() -> npt.NDArray[np.uint8]:
    from pipeline.text import utf8

    table = utf8.letter_table().copy()
    table[[ord("#"), ord("…")]] |= _SYMBOL
    return table


@cache
def _required() -> npt.NDArray[np.uint64]:
    """What pipeline.text.words gives as the words' hashes; words this short have one of their own each."""
    from pipeline.text.interning import hash_bytes

    encoded = [np.frombuffer(word.encode(), dtype=np.uint8) for word in STOP_WORDS]
    return np.array([hash_bytes(word, 0, len(word)) for word in encoded], dtype=np.uint64)
