"""Deduplication: which documents say what another one says already, by one method per file.

Every method reads narrow tables, never text a second time, and writes the same table of losers, so that a source
names the method it wants (`dedupe: exact`) and nothing after it needs to know which one it was.
"""

import pyarrow as pa

LOSERS = pa.schema(
    [
        pa.field("part", pa.int64(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("duplicate_of", pa.string(), nullable=False),  # id of the document that stays
        pa.field("duplicate_of_source", pa.string(), nullable=False),
    ]
)
