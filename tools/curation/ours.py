"""Our filters (mixes/filters) on texts in memory, as the stages would run them one after the other: see side.py."""

import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import edits
from pipeline.fetch import attribute_files
from pipeline.progress import Progress
from pipeline.rules import load_filter
from pipeline.store import Store
from pipeline.taggers import SPANS, TAGGERS, Batch, Tagger, run
from pipeline.taggers.predicates import columns_of, decide
from tools.curation import side
from tools.curation.our_dedupe import batch, groups


@dataclass(frozen=True)
class Judged:
    """Row-aligned with the texts. prepared, edited: the texts before taggers see them and after all edits. dropped_by: the first
    predicate that holds, of a single filter without the filter's name; or None."""

    prepared: pa.ChunkedArray
    dropped_by: Sequence[str | None]
    edited: pa.ChunkedArray


class Filters:
    """Some filters together, each in the order of its predicates. `without`: attributes that are left out, with the predicates and
    edits that name them. `store`: where the files of the others are fetched to, if any is not in this repository. `seconds`: CPU time
    of each tagger so far; of several that need the same words the first one's."""

    def __init__(self, *names: str, without: Collection[str] = (), store: Path | None = None) -> None:
        rules = [load_filter(name) for name in names]
        attributes = [a for rule in rules for name, a in rule.attributes.items() if name not in without]
        with tempfile.TemporaryDirectory() as scratch:
            files = attribute_files(attributes, Store(store or Path(scratch)), Progress())
        configured = {
            a.name: a.tagger({role: [Path(file.path) for file in found] for role, found in files[a.name].items()}) for a in attributes
        }
        taggers = TAGGERS | configured
        self.prepare = [taggers[name] for rule in rules for name in rule.prepare if name in taggers]
        self.edit = [taggers[name] for rule in rules for name in rule.edit if name in taggers]
        known = {column for tagger in taggers.values() for column in tagger.columns} | {"bytes"}
        predicates = {name: sql for rule in rules for name, sql in rule.drop.items() if columns_of(sql) <= known}
        self.drop = predicates if len(names) > 1 else {name.partition("/")[2]: sql for name, sql in predicates.items()}
        named = {column for sql in self.drop.values() for column in columns_of(sql)}
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.taggers = [tagger for tagger in taggers.values() if named & tagger.columns.keys() or tagger in self.edit]

    def judge(self, batches: Sequence[pa.Array]) -> Judged:
        """Texts in batches, as row groups of one part are: tagged one after the other, and decided together."""
        prepared, edited, tables = [], [], []
        for texts in batches:
            for tagger in self.prepare:
                texts = edits.apply(texts, self._run(tagger, batch(texts))[1]["spans"])
            documents = batch(texts)
            found = {tagger.name: self._run(tagger, documents) for tagger in self.taggers}
            columns = {name: values[name] for values, _ in found.values() for name in values.column_names}
            tables.append(pa.table({"bytes": pc.binary_length(texts).cast(pa.int64()), **columns}))
            spans = edits.union([found[tagger.name][1]["spans"] for tagger in self.edit] or [SPANS.empty_table()])
            prepared.append(texts)
            edited.append(edits.apply(texts, spans))
        decisions = decide(pa.concat_tables(tables), self.drop)
        return Judged(pa.chunked_array(prepared), decisions["dropped_by"].to_pylist(), pa.chunked_array(edited))

    def _run(self, tagger: Tagger, documents: Batch) -> tuple[pa.Table, dict[str, pa.Table]]:
        began = time.process_time()
        try:
            return run(tagger, documents)
        finally:
            self.seconds[tagger.name] += time.process_time() - began


def main() -> None:
    """`python -m tools.curation.ours filters <documents.jsonl> <filter>[+<filter>…] <store> <attribute>,… <out.json>`, as side.py
    does it, without these attributes. Documents are judged in groups of the size that parts have."""
    _, source, chosen, store, without, target = sys.argv[1:]
    batches = list(groups(side.texts(source)))
    filters = Filters(*chosen.split("+"), without=without.split(","), store=Path(store))
    filters.judge([batches[0].slice(0, side.WARM)])
    filters.seconds.clear()
    began = time.process_time()
    decisions = filters.judge(batches).dropped_by
    seconds = time.process_time() - began
    Path(target).write_text(json.dumps({"cpu_seconds": seconds, "by_tagger": filters.seconds, "decisions": decisions}))


if __name__ == "__main__":
    main()
