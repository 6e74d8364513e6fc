"""What a report knows of a mix: its lock-file, and what each of its sources rests on, by the mix's own build manifest.

The catalog's tables of documents are about the mix that was built last; a report is about one mix, whichever was built after it. So
everything here comes from the units that `mixes/<mix>.build.json` lists. Counts are of all documents. What is drawn from rows of documents
is drawn from all of them too, up to AT_MOST per source; beyond that from whole tables evenly spread over the source, and the page says so.

Cost: one column of a table at a time, 8 bytes per document.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from typing import TypeVar

import duckdb
import pyarrow as pa

from pipeline import catalog
from pipeline.errors import PipelineError
from pipeline.lock import Lock, LockSource
from pipeline.release import absent, is_released
from pipeline.sql import quoted_list
from pipeline.store import Store
from pipeline.unit import Json
from tools.report.blocks import Text

AT_MOST = 2_000_000  # documents per source whose rows are read
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class BuiltSource:
    """A source's part of the lock-file, and its entry in the build manifest."""

    lock: LockSource
    entry: Mapping[str, Json]

    @property
    def name(self) -> str:
        return self.lock.name

    @property
    def drop(self) -> dict[str, str]:
        """Reason → SQL, by name."""
        return dict(self.entry.get("drop", {}))

    @property
    def taggers(self) -> list[str]:
        return list(self.entry.get("taggers", []))

    @property
    def funnel(self) -> list[Mapping[str, Json]]:
        """Lines of stage, reason, documents, bytes and tokens, whose documents and bytes add up to what was read."""
        return list(self.entry.get("funnel", []))

    def total(self, unit: str, *stages: str) -> int:
        """The sum of `documents`, `bytes` or `tokens` over the funnel's lines, or over those of some stages."""
        return sum(line[unit] for line in self.funnel if not stages or line["stage"] in stages)

    def units(self, stage: str) -> list[str]:
        """The folders of a stage's units: per part, per part and tagger, per group of parts, or per scope of deduplication."""
        return list(self.entry.get("units", {}).get(stage, []))

    def spread(self, found: Sequence[T]) -> list[T]:
        """Of tables that hold all the documents read, so many, from all over, that they hold about AT_MOST."""
        return list(found[:: max(1, ceil(self.total("documents") / AT_MOST))])


@dataclass(frozen=True, eq=False)
class BuiltMix:
    store: Store
    connection: duckdb.DuckDBPyConnection
    lock: Lock
    manifest: Mapping[str, Json]

    @classmethod
    def of(cls, store: Store, connection: duckdb.DuckDBPyConnection, mix: str) -> "BuiltMix":
        """Raises ConfigError when the mix has not been built in the store, PipelineError when what it left there is damaged."""
        manifest = catalog.read_manifest(store, mix)
        return cls(store, connection, Lock.read(store.local(f"mixes/{mix}.lock.json")), manifest)

    @cached_property
    def sources(self) -> tuple[BuiltSource, ...]:
        """In the recipe's order."""
        return tuple(BuiltSource(source, self.manifest["sources"].get(source.name, {})) for source in self.lock.sources)

    def blame(self, source: BuiltSource) -> list[str]:
        """The reasons for which documents are dropped, in the order in which they are asked: the first that holds drops a document. The
        manifest has the rules by name; of a source that came in a release no other order is known."""
        filtered, decided = source.units("filtered"), source.units("decisions")
        rules = [reason for reason, _ in self.store.record(filtered[0]).unit.params["drop"]] if filtered else list(source.drop)
        return rules + (list(self.store.record(decided[0]).unit.params["steps"]) if decided else [])

    def table(self, select: str, paths: Sequence[str]) -> pa.Table:
        """Of the rows of these Parquet files of the store, in their order, what `select` says. Raises PipelineError for damaged ones."""
        return self._queried(f"SELECT {select} FROM read_parquet({quoted_list(map(self.store.url, paths))})")

    def columns(self, path: str) -> list[str]:
        """Those of a Parquet file of the store. Raises as `table` does."""
        return self._queried(f"DESCRIBE SELECT * FROM read_parquet({quoted_list([self.store.url(path)])})")["column_name"].to_pylist()

    def _queried(self, query: str) -> pa.Table:
        try:
            return self.connection.sql(query).to_arrow_table()
        except duckdb.Error as error:
            first = str(error).splitlines()[0]
            raise PipelineError(
                f"{self.lock.mix}: what it rests on cannot be read ({first}); run make verify, then make mix again"
            ) from error

    def missing(self, what: str) -> list[Text]:
        """Of sources that came in a release, which holds no `what`, the sentence that says so."""
        released = {source.name: source.entry for source in self.sources if is_released(source.entry)}
        return [Text(f"{absent(released, f'no {what}')}.")] if released else []

    def sampled(self) -> list[BuiltSource]:
        """The sources so large that rows are read of a part of their documents."""
        return [source for source in self.sources if source.total("documents") > AT_MOST]
