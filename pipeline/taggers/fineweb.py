"""FineWeb's own quality rules (Penedo et al., arXiv:2406.17557, section 3.6), as datatrove's FineWebQualityFilter counts."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.taggers import Batch, tagger


@tagger(
    columns={
        "fineweb_lines": pa.int64(),
        "fineweb_punctuated_line_share": pa.float64(),
        "fineweb_short_line_share": pa.float64(),
        "fineweb_duplicate_character_share": pa.float64(),
        "fineweb_newlines_per_word": pa.float64(),
    },
    reads=("text",),
)
def fineweb(batch: Batch) -> dict[str, npt.NDArray]:
    """Lines end at "\\n"; those of whitespace alone do not count; none is stripped. A text without lines has 0 in every column.

    lines: how many count. punctuated_line_share: last character is terminal punctuation of any script (line_ends.py) / lines.
    short_line_share: of at most 30 characters / lines. duplicate_character_share: characters of lines that an equal one comes
    before / characters of the text that are not "\\n". newlines_per_word: "\\n" / words as spaCy's English tokenizer sees them.
    """
    from pipeline.text import duplicates, line_ends

    data, offsets = batch.utf8
    counts, lines = line_ends.count(data, offsets, duplicates.split(data, offsets, 1))
    characters, newlines, punctuated, short = counts.T
    line_count = np.diff(lines.offsets)
    repeated = duplicates.duplicate_counts(data, lines)[:, duplicates.LATER_CHARACTERS]
    return {
        "fineweb_lines": line_count,
        "fineweb_punctuated_line_share": punctuated / np.maximum(line_count, 1),
        "fineweb_short_line_share": short / np.maximum(line_count, 1),
        "fineweb_duplicate_character_share": repeated / np.maximum(characters - newlines, 1),
        "fineweb_newlines_per_word": np.where(line_count > 0, newlines, 0) / np.maximum(np.diff(batch.words("spacy").offsets), 1),
    }
