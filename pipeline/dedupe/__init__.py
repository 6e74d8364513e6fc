"""Deduplication: which documents say what another one says already, by one method per file.

Methods that compare documents read narrow tables, never text a second time, and write the same table of losers; those that look
into texts (paragraphs.py) write what they drop likewise. So a source names the steps it wants (`dedupe: [url, exact, near]`,
methods.py), each sees what the earlier ones left, and nothing after them needs to know which they were.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

LOSERS = pa.schema(
    [
        pa.field("part", pa.int64(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("duplicate_of", pa.string(), nullable=False),  # id of the document that stays
        pa.field("duplicate_of_source", pa.string(), nullable=False),
    ]
)


def removed_before(tables: Sequence[Path], part: int) -> npt.NDArray[np.int64]:
    """The rows of a part that earlier steps dropped; `tables`: theirs, with part and row."""
    rows = [pq.read_table(path, columns=["row"], filters=[("part", "=", part)])["row"].to_numpy() for path in tables]
    return np.unique(np.concatenate(rows)) if rows else np.empty(0, np.int64)
