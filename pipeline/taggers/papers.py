"""Scientific papers: the figures by which peS2o was filtered (allenai/peS2o, README.md), and LaTeX's sections.

peS2o's text is title, blank line, abstract, and of full papers (S2ORC) blank line and body. Its thresholds are in
mixes/filters/pes2o.yaml, arXiv's in mixes/filters/arxiv.yaml.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.taggers import Batch, tagger

if TYPE_CHECKING:
    from pipeline.text.words import Words

# The sectioning commands that RedPajama's cleaning begins a paper with (readers/latex.py), as RE2.
_SECTION = r"(?s)\\(?:chapter|part|section|subsection|subsubsection)\*?(?:\[.*?\])?\{.*?\}"


@tagger(columns={"paper_collection": pa.string(), "paper_year": pa.int64()}, reads=("metadata", "created"))
def paper_origin(batch: Batch) -> dict[str, pa.Array]:
    """paper_collection: "s2orc" (full papers) or "s2ag" (titles and abstracts), by the `source` of the metadata, "" if it
    says neither. paper_year: when it was published, by the metadata's `year` or else the first four digits of `created`;
    0 if neither tells, as where peS2o's own conversion did not know and wrote year 1.
    """
    rows = zip(batch["metadata"].to_pylist(), batch["created"].to_pylist(), strict=True)
    known = [(orjson.loads(metadata) if metadata else {}, created or "") for metadata, created in rows]
    return {
        "paper_collection": pa.array([_collection(metadata) for metadata, _ in known], pa.string()),
        "paper_year": pa.array([_year(metadata, created) for metadata, created in known], pa.int64()),
    }


def _collection(metadata: dict[str, Any]) -> str:
    source = metadata.get("source")
    return next((name for name in ("s2orc", "s2ag") if isinstance(source, str) and name in source), "")


def _year(metadata: dict[str, Any], created: str) -> int:
    year = str(metadata.get("year") or created[:4])
    return int(year) if len(year) == 4 and year.isascii() and year.isdigit() and int(year) > 1 else 0


@tagger(
    columns={
        "paper_paragraphs": pa.int64(),
        "paper_body_words": pa.int64(),
        "paper_top_word": pa.string(),
        "paper_second_word": pa.string(),
        "paper_spaced_letters": pa.int64(),
    },
    reads=("text",),
)
def papers(batch: Batch) -> dict[str, pa.Array | npt.NDArray]:
    """A paper's parts, its most frequent words and the traces of scanning. An empty text has 0 and "" everywhere.

    paper_paragraphs: pieces between "\\n\\n" that are not white space alone, the title and the abstract among them.
    paper_body_words: words of `str.split()` after the first "\\n\\n", so without the title. paper_top_word,
    paper_second_word: the two most frequent words of `str.split()`, of equals the first to occur, as `Counter` has it;
    their share is `top_word_share`. paper_spaced_letters: matches of `\\b([A-Za-z]\\s)([a-z]\\s)*[A-Za-z]\\b` in Python's
    meaning, such as the two in "A b stra c t".
    """
    from pipeline.text.paper_text import parts, spaced_letters, top_words

    flat, offsets = batch.utf8
    words = batch.words("whitespace")
    paragraphs, body_words = parts(flat, offsets, words).T
    first, second = (_strings(flat, words, places) for places in top_words(words).T)
    return {
        "paper_paragraphs": paragraphs,
        "paper_body_words": body_words,
        "paper_top_word": first,
        "paper_second_word": second,
        "paper_spaced_letters": spaced_letters(flat, offsets),
    }


def _strings(flat: npt.NDArray[np.uint8], words: "Words", places: npt.NDArray[np.int64]) -> pa.Array:
    """The words at some places of `words.ids`, "" for -1."""
    starts = words.starts[places[places >= 0]]
    ends = starts + words.byte_lengths[words.ids[places[places >= 0]]]
    found = iter([flat[start:end].tobytes().decode() for start, end in zip(starts.tolist(), ends.tolist(), strict=True)])
    return pa.array([next(found) if place >= 0 else "" for place in places.tolist()], pa.string())


@tagger(columns={"paper_sections": pa.int64()}, reads=("text",))
def latex(batch: Batch) -> dict[str, pa.Array]:
    """paper_sections: \\chapter, \\part, \\section, \\subsection and \\subsubsection commands, starred or not, with their
    titles, as RedPajama's arxiv_cleaner.py finds them. An empty text has none."""
    return {"paper_sections": pc.count_substring_regex(batch["text"].cast(pa.large_string()), _SECTION)}
