"""What documents share with lists from outside: the items of evaluations, and listed words.

In: a configured attribute as its unit was told, and the files that it was computed from, where the store, or this machine, still has
them as they were. Out: marks, and a sentence about the item. Cost: the files are read and indexed once per process, seconds for 60,000
items. Without the files nothing is marked, and the tagger's table `matches` still says which items there are.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq

from pipeline import damage
from pipeline.errors import PipelineError
from pipeline.evaluations import EvaluationSet, Item, items
from pipeline.files import sha256_of
from pipeline.store import Store
from pipeline.text.overlap import NgramIndex, ParagraphIndex
from pipeline.unit import Json, unsealed
from tools.report.documents.evidence import twins
from tools.report.documents.evidence.text import Mark, Text
from tools.report.documents.evidence.words import quotation
from tools.report.documents.sources import Place, Source

QUOTED = 300  # characters of an item
LISTED = "listed words"


def listed_words(store: Store, params: Mapping[str, Json], text: Text) -> list[Mark]:
    """The words and phrases of a list, in any case (pipeline/taggers/listed_words.py)."""
    paths = files(store, params, "words")
    entries = {entry for path in paths for entry in path.read_text("utf-8").splitlines() if entry.strip()}
    phrases = {entry for entry in entries if " " in entry}
    words, in_lower_case = entries - phrases, text.string.lower()
    marks = [Mark(word.start, word.end, LISTED) for word in text.words("whitespace") if word.text.lower() in words]
    return marks + [mark for phrase in phrases if phrase in in_lower_case for mark in text.find(f"(?i){re.escape(phrase)}", LISTED)]


def evaluation_item(store: Store, source: Source, place: Place, params: Mapping[str, Json], text: Text) -> tuple[list[Mark], list[str]]:
    """Of all items the one that the document has most of: the places of what they share, and what it is."""
    index = _index(store, params)
    if index is None:
        return [], _named(store, source, place, params["tagger"])
    found = index.grams.overlap(*text.batch.utf8)
    if not len(found.items):
        return [], []
    totals = index.grams.totals[found.items]
    best = int(np.argmax(found.matched / totals))
    item, matched, total = index.items[int(found.items[best])], int(found.matched[best]), int(totals[best])
    label = f"what item {item.id} of {item.evaluation} has too"
    if index.ngram:
        length = min(index.ngram, len(twins.words(item.text.encode())[0]))
        shared = set(twins.runs(twins.words(item.text.encode())[0], length))
        marks = twins.covered(twins.words(text.data), shared, label, length)
    else:
        lines = [line for line in item.text.split("\n") if line.strip()]
        marks = [mark for line in lines for mark in text.find(rf"(?m)^{re.escape(line)}$", label)]
    grams = f"{index.ngram}-grams" if index.ngram else "paragraphs"
    return marks, [f"{matched} of {total} {grams} of {item.evaluation} {item.id}: {quotation(item.text, QUOTED)}"]


class _Items(NamedTuple):
    """ngram: words of a gram, 0 where whole paragraphs are compared."""

    items: Sequence[Item]
    grams: NgramIndex | ParagraphIndex
    ngram: int


def _index(store: Store, params: Mapping[str, Json]) -> _Items | None:
    paths = files(store, params, "against")
    try:
        return _indexed(tuple(paths), Settings(params)) if paths else None
    except PipelineError:  # they lie elsewhere than they did, where their paths do not tell which set they are of
        return None


class Settings:
    """A unit's `params`, hashable: those of one folder are the same."""

    def __init__(self, params: Mapping[str, Json]) -> None:
        self.params = params

    def __hash__(self) -> int:
        return hash(self.params["folder"])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Settings) and other.params["folder"] == self.params["folder"]


@lru_cache(maxsize=4)
def _indexed(paths: tuple[Path, ...], settings: Settings) -> _Items:
    told = settings.params["settings"]
    found = list(items(paths, {name: EvaluationSet.model_validate(each) for name, each in told["sets"].items()}))
    texts = [item.text for item in found]
    if told["method"] == "paragraph":
        return _Items(found, ParagraphIndex(texts), 0)
    return _Items(found, NgramIndex(texts, told["n"], told["minimum"]), told["n"])


def _named(store: Store, source: Source, place: Place, tagger: str) -> list[str]:
    """The items that a document matches, by the table that the tagger left."""
    taggers = source.entry["taggers"]
    folder = source.units["attributes"][place.part * len(taggers) + taggers.index(tagger)]
    path = f"{folder}/matches.parquet"
    with damage.named(store, path), store.open(path) as stream:
        found = pq.read_table(stream, filters=[("row", "=", place.row)]).to_pylist()
    return [f"{each['matched']} of {each['total']} n-grams or paragraphs of {each['evaluation']} {each['item']}" for each in found]


def files(store: Store, params: Mapping[str, Json], role: str) -> list[Path]:
    """An attribute's files, with the bytes that its units were computed from; [] unless all are still there."""
    names = params["files"][role]
    hashes = {file.path: file.sha256 for file in store.record(params["folder"]).unit.inputs}
    found = [_file(store, params["tagger"], role, name, hashes[name]) for name in names]
    return [path for path in found if path] if all(found) else []


@lru_cache(maxsize=1024)
def _file(store: Store, tagger: str, role: str, name: str, sha256: str) -> Path | None:
    """In the store, among what packages held or what was shared there, or where this machine found it when the attribute was computed."""
    inner = name.partition("/")[2]
    candidates = [store.local(path) for path in store.files(f"downloads/shared/{sha256}")]
    candidates += [store.local(path) for path in store.files("downloads/packages") if inner and path.endswith(f"/{inner}")]
    try:
        known = unsealed(store.read(f"downloads/attributes/{tagger}-{role}.json"))
        candidates += [Path(path) for path, entry in known.items() if entry["sha256"] == sha256]
    except (FileNotFoundError, ValueError):
        pass
    return next((path for path in candidates if path.is_file() and sha256_of(path) == sha256), None)
