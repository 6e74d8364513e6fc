"""What the hub on loopback holds for the commands of the pages: every repository that a recipe names, with a little made-up text.

In: the recipes of a checkout. Out: `<root>/<namespace>/<name>/**`, as hub_server.py serves it, a file or two for each of a source's
patterns in the format that its suffix says, and the commits that recipes are pinned to. Cost: under a second, 3 MB. A record has every
field that some recipe reads, so that one kind does for all. Not: text that means anything, or the published numbers of documents.
"""

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
import zstandard

from tests.pipeline.corpus import text

DOCUMENTS, FILES = 150, 2
PACKED: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".zst": zstandard.compress}


def write_hub(checkout: Path, root: Path) -> set[str]:
    """Write all repositories; returns the commits at which recipes ask for them."""
    commits = set()
    for path in sorted([*(checkout / "mixes" / "sources").glob("*.yaml"), *(checkout / "mixes" / "adaptation").glob("*.yaml")]):
        recipe = yaml.safe_load(path.read_text())
        for name, declared in {path.stem: recipe, **recipe.get("sources", {})}.items():
            if "hub" in declared:
                commits.add(declared["hub"]["revision"])
                for pattern in declared["hub"]["files"]:
                    _write(root / declared["hub"]["repo"], pattern, name)
    return commits - {"main"}


def _write(repository: Path, pattern: str, name: str) -> None:
    single = "*" not in pattern
    for number in range(1 if single else FILES):
        path = repository / pattern.replace("**", f"part-{number}.json.gz").replace("*", str(number))
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = records(f"{name}-{number}")
        lines = "".join(f"{json.dumps(record)}\n" for record in rows).encode()
        if path.suffix == ".parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
        elif path.suffix == ".json":
            path.write_text(json.dumps(rows))
        else:
            path.write_bytes(PACKED[path.suffix](lines) if path.suffix in PACKED else lines)


def records(name: str) -> list[dict]:
    """A file's rows, which only `name` decides."""
    rng = random.Random(name)
    return [_record(f"{name}-{number}", rng) for number in range(DOCUMENTS)]


def _record(id: str, rng: random.Random) -> dict:
    question, answer, other = text(rng, 8), text(rng, 20), text(rng, 20)
    asked = {"role": "user", "content": question}
    return {
        "id": id, "text": text(rng, rng.randrange(100, 400)), "created": "2024-01-01T00:00:00.000Z", "added": "2024-02-01T00:00:00.000Z",
        "max_stars_count": 24,
        # of conversations
        "messages": [asked, {"role": "assistant", "content": answer}],
        "conversations": [{"from": "User", "value": question}, {"from": "Assistant", "value": answer}],
        "query": question, "answer": answer, "response": answer, "dataset": "open",
        # of preferences
        "prompt": question, "chosen": [asked, {"role": "assistant", "content": answer}],
        "rejected": [asked, {"role": "assistant", "content": other}],
    }  # fmt: skip
