"""Documents → token ids.

In: one part of documents. Out: `tokens.bin`, the ids of all its documents one after another, each closed by one
end-of-document token (raw little-endian, the tokenizer's dtype), and `rows.parquet`, one row per document in the
part's order: id, file, row, bytes (of text), start and tokens (where its ids lie in tokens.bin and how many, the
closing token included), inner_eos (end-of-document tokens inside it, from a literal in the text).

As Dolma does: the text is stripped first, a document without any token is skipped (tokens = 0), the closing token is
not doubled where the ids already end with it, nothing is put in front. One pass over the text, memory of a row group.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import tokenizer
from pipeline.documents import row_groups, write_table
from pipeline.engine import Stage, Work
from pipeline.errors import PipelineError
from pipeline.unit import Artifact, Json, Unit

STAGE = Stage("tokenize", "tokens", 2, "pipeline.stages.tokenize:tokenize")


def unit(source: str, part: Artifact, spec: dict[str, Json], tokenizer_path: str) -> Unit:
    """`spec`: the tokenizer's name, sha256, eos and vocab_size."""
    return STAGE.unit(
        source,
        inputs=(part,),
        params={"tokenizer": spec["sha256"], "eos": spec["eos"], "vocab_size": spec["vocab_size"]},
        where={"tokenizer": tokenizer_path},
    )


def tokenize(work: Sequence[Work]) -> Iterator[dict[str, Json]]:
    for item in work:
        yield _tokenize_part(item)


def _tokenize_part(item: Work) -> dict[str, Json]:
    params = item.unit.params
    content = tokenizer.load(item.unit.where["tokenizer"], params["tokenizer"])
    encoder = tokenizer.encoder(content)
    dtype, eos = tokenizer.dtype_for(params["vocab_size"]), params["eos"]
    tables, position, checked = [], 0, 0
    with open(item.folder / "tokens.bin", "wb") as out:
        for batch in row_groups(item.store.path(item.unit.inputs[0].path), ["id", "text", "file", "row"]):
            texts = [text.strip() for text in batch["text"].to_pylist()]
            ids, offsets = encoder.encode(texts)
            if len(ids) and int(ids.max()) >= params["vocab_size"]:
                raise PipelineError(f"the tokenizer gave id {ids.max()}, beyond its vocabulary of {params['vocab_size']}")
            every = range(0, len(texts), tokenizer.SPOT_CHECK_EVERY)
            sample = [index for index in every if len(texts[index]) <= tokenizer.SPOT_CHECK_CHARACTERS]
            checked += tokenizer.spot_check(
                content,
                [texts[index] for index in sample],
                [ids[offsets[index] : offsets[index + 1]] for index in sample],
                [f"{batch['file'][index]} row {batch['row'][index]}" for index in sample],
            )
            closed, starts, lengths, inner = _close(ids, offsets, eos, dtype)
            out.write(closed.data.cast("B"))  # tofile() would not say why it wrote less
            tables.append(
                pa.table(
                    {
                        "id": batch["id"],
                        "file": batch["file"],
                        "row": batch["row"],
                        "bytes": pc.binary_length(batch["text"]).cast(pa.int64()),
                        "start": starts + position,
                        "tokens": lengths,
                        "inner_eos": inner,
                    }
                )
            )
            position += len(closed)
    rows = pa.concat_tables(tables) if tables else _EMPTY
    write_table(rows, item.folder / "rows.parquet")
    return {
        "documents": rows.num_rows,
        "bytes": pc.sum(rows["bytes"]).as_py() or 0,
        "tokens": position,
        "empty": int(pc.sum(pc.equal(rows["tokens"], 0)).as_py() or 0),
        "inner_eos": int(pc.sum(pc.greater(rows["inner_eos"], 0)).as_py() or 0),
        "spot_checked": checked,
    }


_EMPTY = pa.schema(
    [("id", pa.string()), ("file", pa.string()), ("row", pa.int64()), ("bytes", pa.int64()), ("start", pa.int64()),
     ("tokens", pa.int64()), ("inner_eos", pa.int64())]
).empty_table()  # fmt: skip


def _close(ids: np.ndarray, offsets: np.ndarray, eos: int, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Put one eos behind each non-empty document that does not end with one.

    Returns the closed ids, and per document (int64): start, length with its eos, eos ids before the last.
    """
    lengths = np.diff(offsets)
    full = lengths > 0
    last = np.zeros(len(lengths), dtype=np.int64)
    last[full] = ids[offsets[1:][full] - 1]
    adds = full & (last != eos)
    closed_lengths = lengths + adds
    ends = np.cumsum(closed_lengths)
    starts = ends - closed_lengths
    closed = np.empty(int(ends[-1]) if len(ends) else 0, dtype=dtype)
    keep = np.ones(len(closed), dtype=bool)
    keep[ends[adds] - 1] = False
    closed[keep] = ids
    closed[ends[adds] - 1] = eos
    inner = np.diff(np.searchsorted(np.flatnonzero(ids == eos), offsets)) - (full & ~adds)
    return closed, starts, closed_lengths, inner
