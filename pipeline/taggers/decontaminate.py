"""Which documents say what an evaluation asks: overlap with the items of evaluation sets, and a table of what met what."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from pipeline.config import Amount, Integer, Model
from pipeline.evaluations import EvaluationSet, items
from pipeline.recipe import Name, SamplePackage, Text
from pipeline.taggers import Batch, Result
from pipeline.taggers.kinds import kind

if TYPE_CHECKING:
    from pipeline.text.overlap import NgramIndex, ParagraphIndex

MATCHES = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("evaluation", pa.string(), nullable=False),
        pa.field("item", pa.string(), nullable=False),
        pa.field("matched", pa.int64(), nullable=False),  # n-grams or paragraphs of the item that the document has
        pa.field("total", pa.int64(), nullable=False),  # that the item has
        pa.field("share", pa.float64(), nullable=False),
    ]
)


class Decontaminate(Model):
    """What documents are compared with, and how.

    against: the files of evaluation sets: a path or glob, an archive of a package, or a list of these. sets: by name, which files are
    whose (evaluations.py). method `ngram`: runs of `n` words; an item of fewer, but at least `minimum`, is looked for as a whole, a
    shorter one not at all. method `paragraph`: Dolma's, whole paragraphs. (overlap.py says what words and paragraphs are.)
    threshold: the share of an item's n-grams or paragraphs from which a document is a match. It is ½ for n-grams unless given, which
    is more than a common phrase and less than a copy with another ending (Tülu 3, arXiv:2411.15124, section 3.2, has more than half of
    an item's tokens in common 8-grams); of paragraphs one is enough, as with Dolma.
    """

    against: Text | SamplePackage | tuple[Text | SamplePackage, ...]
    sets: dict[Name, EvaluationSet] = Field(min_length=1)
    method: Literal["ngram", "paragraph"] = "ngram"
    n: Annotated[Integer, Field(ge=1)] = 13
    minimum: Annotated[Integer, Field(ge=1)] = 8
    threshold: Annotated[Amount, Field(le=1)] | None = None

    @model_validator(mode="after")
    def _minimum_is_less(self) -> "Decontaminate":
        if self.minimum > self.n:
            raise ValueError(f"minimum {self.minimum} is more than n {self.n}")
        return self

    @property
    def least(self) -> float:
        return float(self.threshold) if self.threshold is not None else 0.5 if self.method == "ngram" else 0.0


@kind(
    "decontaminate",
    settings=Decontaminate,
    reads=("text",),
    columns=lambda name, settings: {f"{name}_overlap": pa.float64(), f"{name}_items": pa.int64()},
    files=("against",),
    tables={"matches": MATCHES},
)
def decontaminate(batch: Batch, name: str, settings: Decontaminate, files: Mapping[str, list[Path]]) -> Result:
    """<name>_overlap: of all items the highest share of n-grams or paragraphs that the document has, 0.0 to 1.0, whatever the threshold.

    <name>_items: how many items it matches; table `matches`: which. An empty text has 0.0 and 0. An item that is too short to be
    looked for has no share.
    """
    evaluations, ids, index = _index(tuple(files["against"]), tuple(settings.sets.items()), settings.method, settings.n, settings.minimum)
    found = index.overlap(*batch.utf8)
    totals = index.totals[found.items]
    shares = found.matched / totals
    highest = np.zeros(len(batch), np.float64)
    np.maximum.at(highest, found.texts, shares)
    is_match = shares >= settings.least
    texts, matching = found.texts[is_match], found.items[is_match]
    matches = [texts, evaluations.take(matching), ids.take(matching), found.matched[is_match], totals[is_match], shares[is_match]]
    columns = {f"{name}_overlap": highest, f"{name}_items": np.bincount(texts, minlength=len(batch)).astype(np.int64)}
    return columns, {"matches": pa.table(matches, schema=MATCHES)}


@lru_cache(maxsize=8)
def _index(
    paths: tuple[Path, ...], sets: tuple[tuple[str, EvaluationSet], ...], method: str, n: int, minimum: int
) -> "tuple[pa.StringArray, pa.StringArray, NgramIndex | ParagraphIndex]":
    """The items' evaluations and ids, and their index: made once per process."""
    from pipeline.text.overlap import NgramIndex, ParagraphIndex

    found = list(items(paths, dict(sets)))
    texts = [item.text for item in found]
    index = ParagraphIndex(texts) if method == "paragraph" else NgramIndex(texts, n, minimum)
    return pa.array([item.evaluation for item in found], pa.string()), pa.array([item.id for item in found], pa.string()), index
