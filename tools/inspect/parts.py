"""What is known of a document beyond its line in the ledger: its tokens, scores, duplicates, edits, and what stood beside its text.

In: the records that lead from a unit of shards back to the documents it was made of, part by part. Out: for one document the values of
all attributes, the rules that hold with the values they look at, the document it duplicates, what of its text was replaced, its ids.
Cost: a part's narrow tables, kept while its documents are asked for in order; of texts and metadata one row group, of ids just its own.
Not: nothing is computed; what a release left out, or `make gc` removed, is not there and comes back as None.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import damage
from pipeline.errors import PipelineError
from pipeline.store import Store
from pipeline.taggers.predicates import columns_of
from pipeline.unit import Artifact, Record
from tools.inspect.books import Entry

Ids = npt.NDArray[np.unsignedinteger]


@dataclass(frozen=True)
class Rule:
    """A predicate that holds for a document, and the values of the columns it names."""

    reason: str
    sql: str
    values: dict[str, Any]


@dataclass(frozen=True)
class Edit:
    """Bytes [start, end) of a document as read, what they were, what stands there now, and by which rule."""

    start: int
    end: int
    by: str
    before: str
    after: str


@dataclass(frozen=True)
class Match:
    """An item of an evaluation that the document overlaps: `matched` of `total` n-grams."""

    evaluation: str
    item: str
    matched: int
    total: int


class Part:
    """A part of a source's documents, by the record of its decisions. Raises PipelineError where a record is gone."""

    def __init__(self, store: Store, decisions: Artifact) -> None:
        self.store = store
        self.decisions = store.record(_folder(decisions))
        rows, filtered, _, *rest = self.decisions.unit.inputs
        self.number: int | None = self.decisions.unit.params["part"]
        self.tokens = store.record(_folder(rows))
        self.filtered = store.record(_folder(filtered))
        self.attributes = [store.record(_folder(artifact)) for artifact in self.filtered.unit.inputs[1:]]
        self.steps = rest[: len(self.decisions.unit.params["steps"])]
        self.edited = store.record(_folder(rest[-1])) if self.decisions.unit.params["edited"] else None

    @cached_property
    def looked_at(self) -> frozenset[str]:
        """The columns that the source's predicates name."""
        return frozenset(column for sql in dict(self.filtered.unit.params["drop"]).values() for column in columns_of(sql))

    def values(self, row: int) -> dict[str, Any]:
        """Every attribute of a document."""
        return {
            name: column[row].as_py() for table in self._tables() for name, column in zip(table.column_names, table.columns, strict=True)
        }

    def rules(self, entry: Entry, row: int) -> list[Rule]:
        """The predicates among the document's reasons."""
        predicates = dict(self.filtered.unit.params["drop"])
        known = self._own(row) | self.values(row) | {"source": entry.source}
        return [
            Rule(reason, predicates[reason], {name: known[name] for name in sorted(columns_of(predicates[reason])) if name in known})
            for reason in entry.reasons
            if reason in predicates
        ]

    def duplicate_of(self, row: int) -> tuple[str, str] | None:
        """Source and id of the document that stays instead, where a step of dedupe names one."""
        for artifact in self.steps:
            table = self._of_part(artifact)
            if "duplicate_of" in table.column_names:
                for line in table.filter(pc.equal(table["row"], row)).to_pylist():
                    if line["duplicate_of"] is not None:
                        return line["duplicate_of_source"], line["duplicate_of"]
        return None

    def edits(self, row: int) -> list[Edit]:
        """What was replaced in the text of a document that no filter dropped, or that was prepared."""
        record = self.edited or self._prepared()
        if record is None:
            return []
        spans = self._table(record.output("spans.parquet"))
        own = spans.filter(pc.equal(spans["row"], row)).to_pylist()
        if not own or (beside := self.beside(row)) is None:
            return []
        text = beside["text"].encode()
        return [Edit(s["start"], s["end"], s["by"], text[s["start"] : s["end"]].decode(errors="replace"), s["replacement"]) for s in own]

    def matches(self, row: int) -> list[Match]:
        """The items of evaluations that the document overlaps."""
        found = []
        for record in self.attributes:
            for artifact in record.named("matches", ".parquet"):
                table = self._table(artifact)
                for line in table.filter(pc.equal(table["row"], row)).to_pylist():
                    found.append(Match(line["evaluation"], line["item"], line["matched"], line["total"]))
        return found

    def beside(self, row: int) -> dict[str, Any] | None:
        """The document as it was read: text, created, added, metadata; None where the store no longer holds it."""
        part = self.tokens.unit.inputs[0]
        try:
            return _document(self.store, part.path, row)
        except FileNotFoundError:
            return None

    def ids(self, entry: Entry, row: int, dtype: np.dtype) -> Ids:
        """The document's tokens, as edited if it is kept, else as read."""
        if entry.kept and self.edited:
            table = self._table(self.edited.output("edited.parquet"))
            if own := table.filter(pc.equal(table["row"], row)).to_pylist():
                return self._slice(self.edited.output("tokens.bin"), own[0]["start"], own[0]["tokens"], dtype)
        own_row = self._own(row)
        return self._slice(self.tokens.output("tokens.bin"), own_row["start"], own_row["tokens"], dtype)

    def _own(self, row: int) -> dict[str, Any]:
        return self._table(self.tokens.output("rows.parquet")).slice(row, 1).to_pylist()[0]

    def _prepared(self) -> Record | None:
        """The spans that prepared the part, if its source does so: the second thing that its tokens were made of."""
        return self.store.record(_folder(self.tokens.unit.inputs[1])) if len(self.tokens.unit.inputs) > 1 else None

    def _tables(self) -> list[pa.Table]:
        return [self._table(record.output("attributes.parquet")) for record in self.attributes]

    def _table(self, artifact: Artifact) -> pa.Table:
        return _table(self.store, artifact.path)

    def _of_part(self, artifact: Artifact) -> pa.Table:
        table = self._table(artifact)
        return table.filter(pc.equal(table["part"], self.number))

    def _slice(self, artifact: Artifact, start: int, length: int, dtype: np.dtype) -> Ids:
        with open(self.store.local(artifact), "rb") as stream:
            stream.seek(start * dtype.itemsize)
            return np.frombuffer(stream.read(length * dtype.itemsize), dtype)


class Parts:
    """The parts that the documents of a store's ledgers lie in."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def of(self, entry: Entry) -> tuple[Part, int] | None:
        """An entry's part and its row there; None where the store does not hold what the shards were made of. Raises PipelineError where
        it does, and that is damaged."""
        parts = _parts(self.store, entry.unit)
        if parts is None:
            return None
        ends, decisions = parts
        number = next(number for number, end in enumerate(ends) if entry.index < end)
        part = _part(self.store, decisions[number])
        return (part, entry.index - (ends[number - 1] if number else 0)) if part else None

    def ids(self, entry: Entry, dtype: np.dtype) -> Ids | None:
        """The document's tokens; None of a dropped one whose text is not here."""
        found = self.of(entry)
        if found:
            try:
                return found[0].ids(entry, found[1], dtype)
            except FileNotFoundError:
                pass  # the tables are here, and the ids were left out
        return self._from_shards(entry, dtype) if entry.shard is not None else None

    def _from_shards(self, entry: Entry, dtype: np.dtype) -> Ids:
        """A kept document's ids; one longer than a shard goes on at the beginning of the next ones."""
        assert entry.shard is not None and entry.start is not None
        split, number = entry.shard.removesuffix(".bin").rsplit("-", 1)
        found, place, start = [], int(number), entry.start
        left = entry.tokens
        while left > 0:
            path = self.store.local(f"{entry.unit}/{split}-{place:05d}.bin")
            with open(path, "rb") as stream:
                stream.seek(start * dtype.itemsize)
                found.append(np.frombuffer(stream.read(left * dtype.itemsize), dtype))
            if not len(found[-1]):
                raise PipelineError(f"{path}: {entry.id} goes on beyond its end; run make verify")
            left, place, start = left - len(found[-1]), place + 1, 0
        return np.concatenate(found) if found else np.empty(0, dtype)


def _folder(artifact: Artifact) -> str:
    return artifact.path.rpartition("/")[0]


@lru_cache(maxsize=4)
def _parts(store: Store, unit: str) -> tuple[list[int], list[Artifact]] | None:
    """Of a unit of shards: where the rows of each of its parts end in its ledger, and their decisions; None where these are not held."""
    inputs = store.record(unit).unit.inputs
    decisions = [artifact for artifact in inputs if artifact.path.endswith("/decisions.parquet")]
    if not decisions:
        raise PipelineError(f"{unit}: its record names no parts")
    if not _holds(store, decisions[0]):
        return None
    counts = [store.record(_folder(artifact)).counts["documents"] for artifact in decisions]
    return list(accumulate(counts)), decisions


@lru_cache(maxsize=2)
def _part(store: Store, decisions: Artifact) -> Part | None:
    tokens = store.record(_folder(decisions)).unit.inputs[0]
    return Part(store, decisions) if _holds(store, tokens) else None


def _holds(store: Store, artifact: Artifact) -> bool:
    """Whether there is anything of the unit that made it."""
    return bool(store.files(_folder(artifact)))


@lru_cache(maxsize=48)
def _table(store: Store, path: str) -> Any:
    with damage.named(store, path):
        return pq.read_table(store.local(path))


@lru_cache(maxsize=2)
def _group(store: Store, path: str, group: int) -> Any:
    with damage.named(store, path), pq.ParquetFile(store.local(path)) as file:
        return file.read_row_group(group, columns=["text", "created", "added", "metadata"])


@lru_cache(maxsize=2)
def _groups(store: Store, path: str) -> list[int]:
    """Where each row group of a part ends."""
    with damage.named(store, path), pq.ParquetFile(store.local(path)) as file:
        return list(accumulate(file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)))


def _document(store: Store, path: str, row: int) -> dict[str, Any]:
    ends = _groups(store, path)
    group = next(group for group, end in enumerate(ends) if row < end)
    return _group(store, path, group).slice(row - (ends[group - 1] if group else 0), 1).to_pylist()[0]
