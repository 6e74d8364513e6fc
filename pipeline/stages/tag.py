"""Documents and tokens → attributes.

In: a part of documents and, for taggers that read them, its tokens. Out: `attributes.parquet`, one row per document in
the part's order, one typed column per attribute. A unit is one tagger on one part, so that adding a tagger computes
just that one; units of the same part run together and read the text once. Memory of a row group.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.documents import SCHEMA, row_groups, write_table
from pipeline.engine import Stage, Work
from pipeline.taggers import TAGGERS, Batch, Tagger
from pipeline.taggers import tag as attributes_of
from pipeline.tokenizer import dtype_for
from pipeline.unit import Artifact, Json, Record, Unit

STAGE = Stage("tag", "attributes", 1, "pipeline.stages.tag:tag", together=True)


def unit(source: str, part: Artifact, tokens: Record, tagger: Tagger) -> Unit:
    params: dict[str, Json] = {"tagger": tagger.name, "version": tagger.version}
    inputs = [part]
    if "tokens" in tagger.reads:
        inputs += [tokens.output("tokens.bin"), tokens.output("rows.parquet")]
        params["dtype"] = dtype_for(tokens.unit.params["vocab_size"]).name
    return STAGE.unit(source, inputs=tuple(inputs), params=params)


def tag(work: Sequence[Work]) -> Iterator[dict[str, Json]]:
    """All of `work` is about the same part; its first input is the part."""
    taggers = [TAGGERS[item.unit.params["tagger"]] for item in work]
    columns = sorted({name for tagger in taggers for name in tagger.reads} & set(SCHEMA.names) | {"source", "file", "row"})
    store, part = work[0].store, work[0].unit.inputs[0]
    tokens: Any = None
    rows: pa.Table | None = None
    for item in work:
        if len(item.unit.inputs) == 3:
            tokens_path, rows_path = (store.path(artifact.path) for artifact in item.unit.inputs[1:])
            dtype = np.dtype(item.unit.params["dtype"]).newbyteorder("<")
            tokens = np.memmap(tokens_path, dtype, "r") if tokens_path.stat().st_size else np.empty(0, dtype)
            rows = pq.read_table(rows_path, columns=["start", "tokens"])
    tables: list[list[pa.Table]] = [[] for _ in work]
    done = size = 0
    for group in row_groups(store.path(part.path), columns):
        ids = None
        if rows is not None:
            placed = rows.slice(done, group.num_rows)
            ids = _without_eos(tokens, placed["start"].to_numpy(), placed["tokens"].to_numpy())
        batch = Batch(group, ids)
        for tagger, pieces in zip(taggers, tables, strict=True):
            pieces.append(attributes_of([tagger], batch))
        done += group.num_rows
        size += pc.sum(pc.binary_length(group["text"])).as_py() if "text" in columns else 0
    for item, tagger, pieces in zip(work, taggers, tables, strict=True):
        table = pa.concat_tables(pieces) if pieces else pa.schema(list(tagger.columns.items())).empty_table()
        write_table(table, item.folder / "attributes.parquet")
        yield {"documents": table.num_rows, "bytes": size}


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
