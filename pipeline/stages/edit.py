"""Spans → the tokens of the documents that they change.

In: a part, its survivors, the spans that prepared its texts, if any, and those of all its editors: taggers, and the removal of
paragraphs seen before. Out: `spans.parquet` (taggers.SPANS), the union of all of them for the survivors, prepared ones included;
`tokens.bin` and `edited.parquet` (row in the part, bytes of text left, start, tokens, inner_eos), the new ids of the
survivors that an editor changes, written as tokenize.py does. Documents that no editor touches keep the ids they have.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import edits
from pipeline.documents import write_table
from pipeline.engine import Stage, Work
from pipeline.stages.tokenize import Encode
from pipeline.taggers import SPANS
from pipeline.unit import Artifact, Json, Record, Unit

STAGE = Stage("edit", "edited", 1, "pipeline.stages.edit:edit")


def unit(
    source: str, part: Artifact, survivors: Artifact, prepared: Artifact | None, editors: Sequence[Artifact], tokens: Record
) -> Unit:  # fmt: skip
    """`editors`: the spans of each in this part."""
    inputs = [part, survivors, *([prepared] if prepared else []), *editors]
    params = {name: tokens.unit.params[name] for name in ("tokenizer", "eos", "vocab_size")} | {"prepared": prepared is not None}
    return STAGE.unit(source, inputs=tuple(inputs), params=params)


def edit(work: Sequence[Work]) -> Iterator[dict[str, Json]]:
    for item in work:
        yield _edit_part(item)


def _edit_part(item: Work) -> dict[str, Json]:
    part, survivors, *tables = (item.store.local(artifact) for artifact in item.unit.inputs)
    survives = pa.array(pq.read_table(survivors, columns=["row"])["row"].to_numpy())
    prepared = _of(pq.read_table(tables.pop(0)), survives) if item.unit.params["prepared"] else SPANS.empty_table()
    editors = edits.union([_of(pq.read_table(path), survives) for path in tables])
    spans = edits.union([prepared, editors])
    write_table(spans, item.folder / "spans.parquet")
    changed = np.unique(editors["row"].to_numpy())
    encode, rows = Encode(item), [_EMPTY]
    with open(item.folder / "tokens.bin", "wb") as out:
        for group in edits.groups(part, ["text", "file", "row"], item.folder / "spans.parquet"):
            mine = changed[np.searchsorted(changed, group.first) : np.searchsorted(changed, group.first + len(group.bytes))]
            if len(mine):
                documents, _ = edits.picked(group, mine - group.first)
                sizes = pc.binary_length(documents["text"]).cast(pa.int64())
                rows.append(pa.table({"row": mine, "bytes": sizes, **encode(documents, out)}, schema=_EMPTY.schema))
    edited = pa.concat_tables(rows)
    write_table(edited, item.folder / "edited.parquet")
    return {"documents": edited.num_rows, "bytes": pc.sum(edited["bytes"]).as_py() or 0, "tokens": encode.tokens, "spans": spans.num_rows}


def _of(spans: pa.Table, rows: pa.Array) -> pa.Table:
    return spans.filter(pc.is_in(spans["row"], rows))


_EMPTY = pa.schema(
    [("row", pa.int64()), ("bytes", pa.int64()), ("start", pa.int64()), ("tokens", pa.int64()), ("inner_eos", pa.int64())]
).empty_table()
