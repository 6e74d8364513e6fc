"""Make tests/golden/*.parquet anew: what datatrove, Dolma and DCLM say of a fixed set of documents.

    python -m tools.golden --dclm <checkout of mlfoundations/dclm at 361714b>

In: the texts of curation/texts.py, and each peer in an environment of its own (peers.py). Out: documents.parquet, the
texts' names and keys, and a table per peer: the keys again, and the peer's values, reasons and hashes of edited texts
(curation/*_side.py says which). A value that the peer does not come to is null.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.unit import Json
from tools import peers
from tools.curation import texts

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "golden"
DCLM_COMMIT = "361714b"

# What the mappers of its RefinedWeb set import, at versions of this project's choice: DCLM states none.
DCLM = peers.Peer(
    "dclm",
    (
        (
            "click==8.5.1", "defusedxml==0.7.1", "fasttext-wheel==0.9.2", "joblib==1.6.0", "nltk==3.10.4", "numpy==1.26.4",
            "pybind11==3.1.0", "PyYAML==6.0.3", "regex==2026.11.15", "retrie==0.3.1", "tqdm==4.70.1", "uniseg==0.10.1",
        ),
    ),
    pythons=("3.11",),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dclm", type=Path, help=f"a checkout of mlfoundations/dclm at {DCLM_COMMIT}; without it its table stays")
    options = parser.parse_args()
    documents = texts.chosen()
    keys = pa.array(map(texts.key, documents.values()), pa.binary(texts.KEY_BYTES))
    write("documents", pa.table({"name": list(documents), "key": keys}))
    for name, peer in {"datatrove": peers.DATATROVE, "dolma": peers.DOLMA, "dclm": DCLM}.items():
        if name == "dclm" and options.dclm is None:
            continue
        environment = {"DCLM": str(options.dclm.resolve())} if name == "dclm" else {}
        found = columns(ask(name, peers.python(peer), list(documents.values()), environment))
        write(name, pa.table({"key": keys, **{column: found[column] for column in sorted(found)}}))


def ask(name: str, interpreter: Path, documents: Sequence[str], environment: Mapping[str, str]) -> list[dict[str, Json]]:
    """A peer's values of each document, in the documents' order."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "documents.jsonl", Path(folder) / "values.jsonl"
        with source.open("w", encoding="utf-8") as lines:
            lines.writelines(json.dumps({"text": text}) + "\n" for text in documents)
        command = [str(interpreter), "-m", f"tools.curation.{name}_side", "values", str(source), str(target)]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(ROOT), **environment})
        with target.open(encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]


def columns(rows: Sequence[Mapping[str, Json]]) -> dict[str, pa.Array]:
    """Numbers as float64, the rest as strings, row by row; NaN, a mean of nothing, is null too."""
    found = {}
    for name in {name for row in rows for name in row}:
        values = [None if (value := row.get(name)) != value else value for row in rows]
        numbers = any(isinstance(value, int | float) for value in values)
        found[name] = pa.array(values, pa.float64() if numbers else pa.string())
    return found


def write(name: str, table: pa.Table) -> None:
    path = GOLDEN / f"{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="zstd", compression_level=19, write_statistics=False, store_schema=False)
    print(f"{path.relative_to(ROOT)}: {table.num_rows} documents, {table.num_columns} columns, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    try:
        main()
    except (peers.PeerUnavailable, peers.InstallFailed) as error:
        sys.exit(f"error: {error}")
