"""Mathematical web pages: the figures of OpenWebMath's last filter (keirp/OpenWebMath, filtering/filter_dataset.py).

Its thresholds and its list of addresses are in mixes/filters/open-web-math.yaml.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from pipeline.taggers import SPANS, Batch, tagger

_PAGE_INDEX = (("$$\\PageIndex{", "}$$"), ("$\\PageIndex{", "}$"))


@tagger(columns={"math_score": pa.float64(), "math_perplexity": pa.float64()}, reads=("metadata",))
def math_extraction(batch: Batch) -> dict[str, pa.Array]:
    """What OpenWebMath's extraction found out about a page and wrote into its metadata, `extraction_info`.

    math_score: probability, by its fastText model, that the text is mathematics. math_perplexity: perplexity of the text
    to its KenLM model of Proof-Pile. Neither model is published; -1.0 stands for a value that the metadata does not have.
    Raises ValueError if one is there and is not a number.
    """
    found = [_extraction(metadata) for metadata in batch["metadata"].to_pylist()]
    return {
        name: pa.array([_number(info, key) for info in found], pa.float64())
        for name, key in (("math_score", "math_score"), ("math_perplexity", "perplexity"))
    }


def _extraction(metadata: str | None) -> dict[str, Any]:
    # Most metadata says nothing of it and need not be parsed.
    if metadata is None or "extraction_info" not in metadata:
        return {}
    info = orjson.loads(metadata).get("extraction_info")
    return info if isinstance(info, dict) else {}


def _number(info: dict[str, Any], key: str) -> float:
    value = info.get(key)
    if value is None:
        return -1.0
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"extraction_info.{key} is {value!r}, not a number")
    return float(value)


@tagger(columns={"math_formulas": pa.int64(), "math_accented_share": pa.float64()}, reads=("text",))
def math_text(batch: Batch) -> dict[str, npt.NDArray]:
    """How much of a page is formulas, and how much is accented as in French or German. An empty text has 0 in both.

    math_formulas: stretches between $ and $, or $$ and $$, without LibreTexts' `$\\PageIndex{…}$` (count_latex_formulas).
    math_accented_share: characters that are, in lower case, one of à â ä è é ê ï î ô ö û ü / characters (has_accented_char).
    """
    from pipeline.text.math_text import accent_counts, formula_counts
    from pipeline.text.utf8 import occurrences

    formulas = formula_counts(*batch.utf8)
    texts = batch["text"]
    indexed = np.flatnonzero(occurrences(*batch.utf8, np.frombuffer(b"\\PageIndex{", np.uint8), 0))
    if len(indexed):
        cleaned = texts.take(pa.array(indexed)).to_pylist()
        for opening, closing in _PAGE_INDEX:
            cleaned = [_without(text, opening, closing) for text in cleaned]
        formulas[indexed] = formula_counts(*Batch(pa.table({"text": pa.array(cleaned, pa.large_string())})).utf8)
    characters, accented = accent_counts(*batch.utf8).T
    return {"math_formulas": formulas, "math_accented_share": accented / np.maximum(characters, 1)}


def _without(text: str, opening: str, closing: str) -> str:
    """The text without what is between them and has no other brace: `re.sub(opening + "[^}]*" + closing, "", text)`, in linear time."""
    pieces: list[str] = []
    kept, brace = 0, -1
    start = text.find(opening)
    while start >= 0:
        if brace < start:
            brace = text.find("}", start)
        if brace < 0:
            break
        following = start + 1
        if text.startswith(closing, brace):
            pieces.append(text[kept:start])
            kept = following = brace + len(closing)
        start = text.find(opening, following)
    return "".join([*pieces, text[kept:]])


@tagger(columns={"math_macro_lines": pa.int64()}, reads=("text",), tables={"spans": SPANS})
def math_macro_lines(batch: Batch) -> tuple[dict[str, npt.NDArray], dict[str, pa.Table]]:
    """Lines that define LaTeX macros, as spans to be removed: "newcommand" stands in them more than once.

    math_macro_lines: their number. A line, between "\\n", goes with the "\\n" after it, a last one with that before it, so
    that what is left is the other lines joined. An empty text has none.
    """
    from pipeline.text.utf8 import occurrences

    counts = np.zeros(len(batch), dtype=np.int64)
    spans: list[tuple[int, int, int]] = []
    texts = batch["text"]
    several = occurrences(*batch.utf8, np.frombuffer(b"newcommand", np.uint8), 2) > 1
    for row in np.flatnonzero(several).tolist():
        cut = _macro_lines(texts[row].as_py().encode())
        counts[row] = len(cut)
        spans += [(row, start, end) for start, end in cut]
    columns = [*(zip(*spans, strict=True) if spans else [()] * 3), [""] * len(spans), ["math_macro_lines"] * len(spans)]
    table = pa.Table.from_arrays([pa.array(values, field.type) for values, field in zip(columns, SPANS, strict=True)], schema=SPANS)
    return {"math_macro_lines": counts}, {"spans": table}


def _macro_lines(text: bytes) -> list[tuple[int, int]]:
    cut: list[tuple[int, int]] = []
    kept = start = 0
    for line in text.split(b"\n"):
        end = start + len(line)
        if line.count(b"newcommand") > 1:
            cut.append((start, min(end + 1, len(text))))
        else:
            kept += 1
        start = end + 1
    if cut and kept and cut[-1][1] == len(text) and not text.endswith(b"\n"):
        # The text's end goes: the "\n" that parted it from the last line kept goes with it.
        first = len(cut) - 1
        while first and cut[first - 1][1] == cut[first][0]:
            first -= 1
        cut[first] = (cut[first][0] - 1, cut[first][1])
    return cut
