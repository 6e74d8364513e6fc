"""The tables that training runs leave in a store: their schemas, and where they are.

A run adds rows to `<store>/models/<run>/metrics/<table>/<first step>.parquet` (trainer/metrics.py). Declared here, so that
the catalog can show the tables of all runs without importing the trainer. The catalog's views are globs over the runs'
folders, so a new run is in them at once. A glob without any match would be an error: `write_columns` leaves one file without
rows for each table under `models/.columns`, which a glob's `*` matches too and which sorts before every run.
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.files import write_atomically

MODELS = "models"
METRICS = "metrics"
COLUMNS = ".columns"


def _schema(**columns: pa.DataType) -> pa.Schema:
    return pa.schema([("run", pa.string()), ("step", pa.int64()), *columns.items()])


_COUNT, _REAL, _TEXT = pa.int64(), pa.float64(), pa.string()

TABLES: dict[str, pa.Schema] = {
    "steps": _schema(
        tokens=_COUNT, loss=_REAL, cross_entropy=_REAL, load_balancing=_REAL, z=_REAL, gradient_norm=_REAL, learning_rate=_REAL,
        seconds=_REAL, data_seconds=_REAL, tokens_per_second=_REAL, mfu=_REAL, memory_mb=_REAL, masked=_COUNT, spike=_TEXT,
        skipped=pa.bool_(), time=_REAL,
    ),
    "routers": _schema(
        layer=_COUNT, loads=pa.list_(_COUNT), load_entropy=_REAL, router_entropy=_REAL, most_loaded=_REAL, least_loaded=_REAL,
        logit_rms=_REAL, logit_max=_REAL,
    ),
    "evals": _schema(source=_TEXT, instances=_COUNT, tokens=_COUNT, bytes=_COUNT, loss=_REAL, bits_per_byte=_REAL),
    "checkpoints": _schema(path=_TEXT, bytes=_COUNT, pause_seconds=_REAL, seconds=_REAL),
    "instances": _schema(rank=_COUNT, position=_COUNT, source=_TEXT, shard=_TEXT, start=_COUNT, length=_COUNT),
}  # fmt: skip


def run_folder(store: Path, run: str) -> Path:
    return store / MODELS / run


def table_folder(run_folder: Path, table: str) -> Path:
    return run_folder / METRICS / table


def pattern(store: Path, table: str) -> str:
    """The glob that matches the files of a table of all runs, and the file without rows."""
    return f"{store}/{MODELS}/*/{METRICS}/{table}/*.parquet"


def write_columns(store: Path) -> None:
    """Write the files without rows, where they are missing or of another version's columns."""
    for table, schema in TABLES.items():
        path = table_folder(run_folder(store, COLUMNS), table) / f"{0:09d}.parquet"
        content = parquet_bytes(schema.empty_table())
        if not path.exists() or path.read_bytes() != content:
            write_atomically(path, content)


def parquet_bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue().to_pybytes()
