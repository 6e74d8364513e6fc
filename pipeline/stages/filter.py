"""Attributes → reasons.

In: a part's rows.parquet and the attributes that the source's predicates name. Out: `filtered.parquet`, row-aligned
with the part (reasons: every predicate that holds; dropped_by: the first), and `survivors.parquet`, the documents that
no predicate dropped, as dedupe needs them: id, row (its index in the part) and the columns that are its keys. No text is read.
"""

from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.documents import write_table
from pipeline.engine import Stage, Work
from pipeline.taggers.predicates import decide
from pipeline.unit import Json, Record, Unit

STAGE = Stage("filter", "filtered", 2, "pipeline.stages.filter:filter_part")


def unit(source: str, drop: Mapping[str, str], keys: Sequence[str], rows: Record, attributes: Sequence[Record]) -> Unit:
    """`keys`: the columns that dedupe compares."""
    inputs = [rows.output("rows.parquet"), *(record.output("attributes.parquet") for record in attributes)]
    # A list of pairs: the order of the predicates decides which is blamed first, and keys of objects get sorted.
    params = {"source": source, "drop": [list(pair) for pair in drop.items()], "keys": list(keys)}
    return STAGE.unit(source, inputs=tuple(inputs), params=params)


def filter_part(work: Sequence[Work]) -> Iterator[dict[str, Json]]:
    for item in work:
        rows, *attributes = (pq.read_table(item.store.local(artifact)) for artifact in item.unit.inputs)
        table = rows.append_column("source", pa.array([item.unit.params["source"]] * rows.num_rows, pa.string()))
        for attribute in attributes:
            for name in attribute.column_names:
                table = table.append_column(name, attribute[name])
        decisions = decide(table, dict(item.unit.params["drop"]))
        write_table(decisions, item.folder / "filtered.parquet")
        survives = pc.and_(pc.is_null(decisions["dropped_by"]), pc.greater(rows["tokens"], 0))
        columns = {"id": rows["id"], "row": pa.array(range(rows.num_rows), pa.int64())}
        columns |= {key: table[key] for key in item.unit.params["keys"]}
        write_table(pa.table(columns).filter(survives), item.folder / "survivors.parquet")
        yield {"documents": rows.num_rows, "bytes": pc.sum(rows["bytes"]).as_py() or 0}
