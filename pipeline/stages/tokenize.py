"""Documents → token ids.

In: one part of documents. Out: `tokens.bin`, the ids of all its documents one after another, each closed by one
end-of-document token (raw little-endian, the tokenizer's dtype), and `rows.parquet`, one row per document in the
part's order: id, file, row, bytes (of text as read), start and tokens (where its ids lie in tokens.bin and how many, the
closing token included), inner_eos (end-of-document tokens inside it, from a literal in the text). Of a source that prepares its
texts, the spans are replaced first, and `prepared` says how many bytes of text were left.

As Dolma does: the text is stripped first, a document without any token is skipped (tokens = 0), the closing token is
not doubled where the ids already end with it, nothing is put in front. One pass over the text, memory of a row group.
"""

from collections.abc import Iterator, Sequence
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import edits, tokenizer
from pipeline.documents import write_table
from pipeline.engine import Stage, Work
from pipeline.errors import PipelineError
from pipeline.unit import Artifact, Json, Unit

STAGE = Stage("tokenize", "tokens", 2, "pipeline.stages.tokenize:tokenize")


def unit(source: str, part: Artifact, prepared: Artifact | None, spec: dict[str, Json]) -> Unit:
    """`prepared`: the spans to replace first. `spec`: the tokenizer's name, sha256, eos and vocab_size."""
    return STAGE.unit(
        source,
        inputs=(part, prepared) if prepared else (part,),
        params={"tokenizer": spec["sha256"], "eos": spec["eos"], "vocab_size": spec["vocab_size"]},
    )


def tokenize(work: Sequence[Work]) -> Iterator[dict[str, Json]]:
    for item in work:
        yield _tokenize_part(item)


def _tokenize_part(item: Work) -> dict[str, Json]:
    part, *prepared = (item.store.local(artifact) for artifact in item.unit.inputs)
    encode = Encode(item)
    tables = []
    with open(item.folder / "tokens.bin", "wb") as out:
        for group in edits.groups(part, ["id", "text", "file", "row"], *prepared):
            documents = group.documents
            columns = {name: documents[name] for name in ("id", "file", "row")} | {"bytes": pa.array(group.bytes)}
            if prepared:
                columns["prepared"] = pc.binary_length(documents["text"]).cast(pa.int64())
            tables.append(pa.table(columns | encode(documents, out)))
    rows = pa.concat_tables(tables) if tables else _EMPTY
    write_table(rows, item.folder / "rows.parquet")
    return {
        "documents": rows.num_rows,
        "bytes": pc.sum(rows["bytes"]).as_py() or 0,
        "tokens": encode.tokens,
        "empty": int(pc.sum(pc.equal(rows["tokens"], 0)).as_py() or 0),
        "inner_eos": int(pc.sum(pc.greater(rows["inner_eos"], 0)).as_py() or 0),
        "spot_checked": encode.checked,
    }


class Encode:
    """Writes documents' ids one after another. `params` of the unit: tokenizer (sha256), eos, vocab_size.

    tokens: written so far. checked: documents compared with the reference.
    """

    def __init__(self, item: Work) -> None:
        unit = item.unit
        self._content = tokenizer.load(str(item.store.local(tokenizer.kept(unit.params["tokenizer"]))), unit.params["tokenizer"])
        self._eos, self._vocab_size = unit.params["eos"], unit.params["vocab_size"]
        self._dtype = tokenizer.dtype_for(self._vocab_size)
        self.tokens = self.checked = 0

    def __call__(self, documents: pa.RecordBatch | pa.Table, out: BinaryIO) -> dict[str, npt.NDArray[np.int64]]:
        """Append the ids of `documents` (text, file, row); returns where they begin, how many they are, and the inner_eos."""
        texts = [text.strip() for text in documents["text"].to_pylist()]
        ids, offsets = tokenizer.encoder(self._content).encode(texts)
        if len(ids) and int(ids.max()) >= self._vocab_size:
            raise PipelineError(f"the tokenizer gave id {ids.max()}, beyond its vocabulary of {self._vocab_size}")
        every = range(0, len(texts), tokenizer.SPOT_CHECK_EVERY)
        sample = [index for index in every if len(texts[index]) <= tokenizer.SPOT_CHECK_CHARACTERS]
        self.checked += tokenizer.spot_check(
            self._content,
            [texts[index] for index in sample],
            [ids[offsets[index] : offsets[index + 1]] for index in sample],
            [f"{documents['file'][index]} row {documents['row'][index]}" for index in sample],
        )
        closed, starts, lengths, inner = _close(ids, offsets, self._eos, self._dtype)
        out.write(closed.data.cast("B"))  # tofile() would not say why it wrote less
        starts += self.tokens
        self.tokens += len(closed)
        return {"start": starts, "tokens": lengths, "inner_eos": inner}


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
