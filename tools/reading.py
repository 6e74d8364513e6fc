"""How fast a mix is read: opening one of a billion instances, and random instances of a real one.

The mix of a billion is real in size and empty in content: 80 shards, sparse files of 102 GB each that take no room on
disk, with headers and a lock-file as the pipeline writes them. It is opened in a process of its own, and the first batch
is read from it. Random reads are of the benchmark's own mix, whose shards are in the page cache after `verify`: what is
measured is the reader, not the disk.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pipeline.lock import Lock, LockSource, LockTokenizer, ShardSummary
from pipeline.reader import MixReader
from pipeline.unit import Json

BILLION = 10**9
LENGTH = 4096
SHARDS = 80
BATCH = 256
ENOUGH_S = 2.0  # CPU seconds of random reads


def first_batch(folder: Path) -> dict[str, float]:
    """Seconds until a process of its own has opened the mix of a billion instances and read a batch from it."""
    lock = _billion(folder / "stores" / "billion")
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "tools.reading", lock], capture_output=True, text=True, check=True)
    return {"process_seconds": time.perf_counter() - began, **json.loads(done.stdout)}


def random_reads(lock: Path) -> dict[str, float]:
    """Tokens per CPU second of random instances, as batches and one by one."""
    mix = MixReader(lock)
    rng = np.random.default_rng(0)
    return {
        "instances": len(mix),
        "batch_tokens_per_cpu_second": _speed(mix, lambda: mix.batch(rng.integers(len(mix), size=BATCH)).size),
        "single_tokens_per_cpu_second": _speed(mix, lambda: mix[int(rng.integers(len(mix)))].tokens.size),
    }


def _speed(mix: MixReader, read: Callable[[], int]) -> float:
    mix.batch(range(len(mix)))  # every shard is open and in the page cache
    tokens, began = 0, time.process_time()
    while (spent := time.process_time() - began) < ENOUGH_S:
        tokens += read()
    return tokens / spent


def _open_and_read(lock: str) -> dict[str, float]:
    began = time.perf_counter()
    mix = MixReader(lock)
    opened = time.perf_counter()
    batch = mix.batch(range(BATCH))
    assert batch.shape == (BATCH, LENGTH) and len(mix) == BILLION
    return {"open_seconds": opened - began, "batch_seconds": time.perf_counter() - opened}


def _billion(store: Path) -> Path:
    """The store and the lock-file of the mix of a billion instances."""
    folder = store / "shards" / "empty" / "0"
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = LockTokenizer(name="none", sha256="0" * 64, eos=50279, vocab_size=50280, dtype="uint16")
    tokens = BILLION // SHARDS * LENGTH
    shards = []
    for number in range(SHARDS):
        path = folder / f"train-{number:05d}.bin"
        with open(path, "wb") as file:
            os.truncate(file.fileno(), 2 * tokens)
        header = {
            "format": 1, "dtype": "uint16", "eos": tokenizer.eos, "tokens": tokens, "documents": 1, "source": "empty", "split": "train",
            "tokenizer": {"name": tokenizer.name, "sha256": tokenizer.sha256, "vocab_size": tokenizer.vocab_size}, "sha256": "0" * 64,
        }  # fmt: skip
        path.with_suffix(".json").write_text(json.dumps(header))
        shards.append(ShardSummary(path.relative_to(store).as_posix(), tokens, 1, "0" * 64))
    fields: dict[str, Json] = {"requested_share": 1.0, "obtained_share": 1.0, "repeats": 1.0}
    source = LockSource(
        name="empty", supply=BILLION, slots=BILLION, instances=BILLION, tokens=BILLION * LENGTH, documents=SHARDS, shards=tuple(shards),
        validation=(), **fields,
    )  # fmt: skip
    lock = Lock.sealed(
        mix="billion", recipe={}, tokenizer=tokenizer, sequence_length=LENGTH, seed=1, pool=BILLION, instances=BILLION, sources=(source,)
    )
    path = store / "mixes" / "billion.lock.json"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(lock.to_json())
    return path


if __name__ == "__main__":
    print(json.dumps(_open_and_read(sys.argv[1])))
