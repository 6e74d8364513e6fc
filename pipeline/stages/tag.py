"""Documents and tokens → attributes.

In: a part of documents, the spans to replace in them if its source prepares its texts, for taggers that read them its tokens, for
configured ones their files. Out: `attributes.parquet`, one row per document in the part's order, one typed column per attribute,
and the tagger's tables, such as `spans.parquet`, rows counted in the part and spans in bytes of the documents as read. A unit is
one tagger on one part, so that adding a tagger computes just that one; units of the same part run together and read the text once
and cut it into words once. Memory of a row group.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import edits
from pipeline.documents import SCHEMA, write_table
from pipeline.engine import Stage, Work
from pipeline.taggers import SPANS, Batch, run
from pipeline.taggers.ready import Ready, restored
from pipeline.tokenizer import dtype_for
from pipeline.unit import Artifact, Json, Record, Unit

STAGE = Stage("tag", "attributes", 1, "pipeline.stages.tag:tag", together=True)


def unit(source: str, part: Artifact, prepared: Artifact | None, tokens: Record, ready: Ready) -> Unit:
    params: dict[str, Json] = dict(ready.params)
    inputs = [part]
    if prepared:
        inputs.append(prepared)
        params["prepared"] = True
    if "tokens" in ready.tagger.reads:
        inputs += [tokens.output("tokens.bin"), tokens.output("rows.parquet")]
        params["dtype"] = dtype_for(tokens.unit.params["vocab_size"]).name
    where = {ready.tagger.name: ready.where} if ready.where else {}
    return STAGE.unit(source, inputs=(*inputs, *ready.files), params=params, where=where)


def tag(work: Sequence[Work]) -> Iterator[dict[str, Json]]:
    """All of `work` is about the same part, its first input, with the same spans."""
    store, params = work[0].store, work[0].unit.params
    taggers = [restored(item.unit.params, item.unit, item.store) for item in work]
    columns = sorted({name for tagger in taggers for name in tagger.reads} & set(SCHEMA.names) | {"source", "file", "row"})
    part, *spans = (store.local(artifact) for artifact in work[0].unit.inputs[: 2 if params.get("prepared") else 1])
    tokens: Any = None
    rows: pa.Table | None = None
    for item in work:
        if dtype_name := item.unit.params.get("dtype"):
            tokens_path, rows_path = (store.local(artifact) for artifact in item.unit.inputs[1 + len(spans) :][:2])
            dtype = np.dtype(dtype_name).newbyteorder("<")
            tokens = np.memmap(tokens_path, dtype, "r") if tokens_path.stat().st_size else np.empty(0, dtype)
            rows = pq.read_table(rows_path, columns=["start", "tokens"])
    attributes: list[list[pa.Table]] = [[pa.schema(list(tagger.columns.items())).empty_table()] for tagger in taggers]
    tables = [{name: [schema.empty_table()] for name, schema in tagger.tables.items()} for tagger in taggers]
    size = 0
    for group in edits.groups(part, columns, *spans):
        ids = None
        if rows is not None:
            placed = rows.slice(group.first, len(group.bytes))
            ids = _without_eos(tokens, placed["start"].to_numpy(), placed["tokens"].to_numpy())
        batch = Batch(group.documents, ids)
        for tagger, pieces, more in zip(taggers, attributes, tables, strict=True):
            values, found = run(tagger, batch)
            pieces.append(values)
            for name, table in found.items():
                if table.schema == SPANS:
                    table = edits.original(table, group.spans)
                more[name].append(table.set_column(0, table.schema.field("row"), pc.add(table["row"], group.first)))
        size += int(group.bytes.sum())
    for item, tagger, pieces, more in zip(work, taggers, attributes, tables, strict=True):
        table = pa.concat_tables(pieces)
        write_table(table, item.folder / "attributes.parquet")
        for name, rows_of in more.items():
            write_table(pa.concat_tables(rows_of), item.folder / f"{name}.parquet")
        counts = {name: sum(map(len, rows_of)) for name, rows_of in more.items()}
        # Not what the others of `work` read: a unit's record is the same with whomever it ran.
        read = size if "text" in tagger.reads else 0
        yield {"documents": table.num_rows, "bytes": read, **({"tables": counts} if counts else {})}


def _without_eos(tokens: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The documents' ids without the closing token: one flat array and its offsets (int64, one more than documents).

    The documents lie one after another in `tokens`, so only the closing tokens have to be taken out.
    """
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(np.maximum(lengths - 1, 0), out=offsets[1:])
    if not len(lengths):
        return tokens[:0], offsets
    begin, end = int(starts[0]), int(starts[-1] + lengths[-1])
    closing = (starts + lengths - 1)[lengths > 0] - begin
    return np.delete(np.asarray(tokens[begin:end]), closing), offsets
