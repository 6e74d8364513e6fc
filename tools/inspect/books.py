"""Which documents: the ledgers of a mix, searched by id, by what dropped a document, by place in a shard.

In: a mix's build manifest, the ledgers of its shards. Out: Entries, in the order in which the documents were read, one ledger at a time.
Cost: of each ledger the columns that are searched, some 40 bytes per document, and whole rows where something was found: a second per
million documents. An instance's documents are looked up in the one ledger of its shard. Not: no text (parts.py).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import catalog, damage
from pipeline.config import suggestion
from pipeline.errors import ConfigError
from pipeline.reader import DocumentSpan
from pipeline.store import Store
from pipeline.unit import Json

LEDGER = "ledger.parquet"
FAILED = "failed: "
NO_DOCUMENTS = ("removed_text",)  # lines of the funnel that count bytes alone


@dataclass(frozen=True)
class Entry:
    """A document's line in the ledger of a unit of shards. index: its place among the ledger's rows. shard: its first one, relative to
    the unit's folder; None, as is start, of a document that was dropped."""

    source: str
    unit: str
    index: int
    id: str
    file: str
    row: int
    bytes: int
    tokens: int
    kept: bool
    split: str | None
    stage: str | None
    dropped_by: str | None
    reasons: list[str]
    shard: str | None
    start: int | None


@dataclass(frozen=True)
class Failure:
    """A record that could not be read."""

    source: str
    file: str
    row: int
    reason: str
    detail: str


class Books:
    """The books of one mix in a store. Raises ConfigError when it has not been built there."""

    def __init__(self, store: Store, mix: str) -> None:
        self.store, self.mix = store, mix
        self.sources: Mapping[str, Mapping[str, Json]] = catalog.read_manifest(store, mix)["sources"]

    def chosen(self, source: str) -> list[str]:
        """The source of that name, or all of them. Raises ConfigError."""
        if source and source not in self.sources:
            raise ConfigError(f"SOURCE={source}: {self.mix} has no such source{suggestion(source, self.sources)}; {_there(self.sources)}")
        return [source] if source else list(self.sources)

    def reasons(self, source: str = "") -> dict[str, int]:
        """By what documents of the sources were dropped, and how many; and records that could not be read, as `failed: <reason>`."""
        found: dict[str, int] = {}
        for name in self.chosen(source):
            for line in self.sources[name]["funnel"]:
                if line["stage"] != "kept" and line["reason"] not in NO_DOCUMENTS:
                    found[line["reason"]] = found.get(line["reason"], 0) + line["documents"]
            for reason, count in self.sources[name]["failed"].items():
                found[FAILED + reason] = found.get(FAILED + reason, 0) + count
        return found

    def documents(self, source: str = "") -> Iterator[Entry]:
        """All documents that were read."""
        for name in self.chosen(source):
            for unit in self._units(name):
                yield from self._entries(name, unit, None)

    def reason(self, name: str, source: str = "") -> str:
        """`name` as `reasons` has it. Raises ConfigError for one that dropped no document."""
        known = self.reasons(source)
        found = next((each for each in (name, FAILED + name) if known.get(each)), None)
        if found is None:
            listed = ", ".join(f"{each} ({count:,})" for each, count in known.items()) or "nothing"
            raise ConfigError(
                f"DROPPED={name}: it dropped no document of {source or self.mix}{suggestion(name, known)}; there are {listed}"
            )
        return found

    def dropped(self, reason: str, source: str = "") -> Iterator[Entry | Failure]:
        """What `reason`, one of `reasons`, dropped."""
        for name in self.chosen(source):
            if reason.startswith(FAILED):
                yield from self._failures(name, reason.removeprefix(FAILED))
            else:
                yield from self._dropped(name, reason)

    def named(self, document: str, source: str = "") -> list[Entry]:
        """The documents of that id, or of that place, `<file>#<row>`. Raises ConfigError if there is none."""
        file, mark, row = document.rpartition("#")
        found: list[Entry] = []
        for name in self.chosen(source):
            for unit in self._units(name):
                table = self._ledger(unit, "id", "file", "row")
                matches = pc.equal(table["id"], document)
                if mark and row.isascii() and row.isdigit():
                    matches = pc.or_(matches, pc.and_(pc.equal(table["file"], file), pc.equal(table["row"], int(row))))
                if pc.any(matches).as_py():
                    found += self._entries(name, unit, matches)
        if not found:
            where = f"{source} of {self.mix}" if source else self.mix
            query = "SELECT source, id FROM documents WHERE contains(id, '…')"
            raise ConfigError(f'DOC={document}: no document of {where} has that id; to look for it: make sql Q="{query}"')
        return found

    def of_instance(self, source: str, shard: str, spans: Sequence[DocumentSpan]) -> list[Entry]:
        """The documents of which an instance in `shard` holds parts."""
        unit = shard.rpartition("/")[0]
        table = self._ledger(unit, "id", "file", "row")
        within = pc.is_in(table["file"], pa.array({span.file for span in spans}))
        near = pc.and_(within, pc.is_in(table["row"], pa.array({span.row for span in spans})))
        entries = {(entry.id, entry.file, entry.row): entry for entry in self._entries(source, unit, near)}
        return [entries[span.id, span.file, span.row] for span in spans]

    def _units(self, source: str) -> list[str]:
        return self.sources[source]["units"]["shards"]

    def _dropped(self, source: str, reason: str) -> Iterator[Entry]:
        for unit in self._units(source):
            yield from self._entries(source, unit, pc.equal(self._ledger(unit, "dropped_by")["dropped_by"], reason))

    def _failures(self, source: str, reason: str) -> Iterator[Failure]:
        for unit in self.sources[source]["units"].get("documents", []):
            table = _read(self.store, f"{unit}/failures.parquet", None)
            for line in table.filter(pc.equal(table["reason"], reason)).to_pylist():
                yield Failure(source, **line)

    def _entries(self, source: str, unit: str, matches: pa.ChunkedArray | None) -> Iterator[Entry]:
        """The unit's documents, those for which `matches` is true if it is given."""
        if matches is not None and not pc.any(matches).as_py():
            return
        table = _numbered(self._ledger(unit))
        for batch in (table if matches is None else table.filter(matches)).to_batches(1024):
            for line in batch.to_pylist():
                yield Entry(source, unit, **line)

    def _ledger(self, unit: str, *columns: str) -> pa.Table:
        return _read(self.store, f"{unit}/{LEDGER}", columns or None)


def _numbered(table: pa.Table) -> pa.Table:
    return table.add_column(0, "index", pa.array(range(table.num_rows), pa.int64()))


@lru_cache(maxsize=2)
def _read(store: Store, path: str, columns: tuple[str, ...] | None) -> Any:
    with damage.named(store, path):
        return pq.read_table(store.local(path), columns=list(columns) if columns else None)


def _there(names: Mapping[str, Any]) -> str:
    return f"there are {', '.join(names)}"
