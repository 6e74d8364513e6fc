"""A reader's own files: `python -m tests.docs.own_corpus FOLDER SOURCE…` writes `FOLDER/SOURCE/part-0.jsonl.gz`, made-up text."""

import gzip
import json
import sys
from pathlib import Path

from tests.docs.pretend_hub import records


def write(folder: Path, source: str) -> None:
    (folder / source).mkdir(parents=True)
    lines = "".join(f"{json.dumps(record)}\n" for record in records(source))
    (folder / source / "part-0.jsonl.gz").write_bytes(gzip.compress(lines.encode()))


if __name__ == "__main__":
    for name in sys.argv[2:]:
        write(Path(sys.argv[1]), name)
