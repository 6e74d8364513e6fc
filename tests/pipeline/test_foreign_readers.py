"""Other people's programs read our token files as they are: OLMo, OLMo-core; and `dolma tokens` writes the same ids.

Each runs in an environment of its own (tools/peers.py), made once: minutes and up to 1.3 GB for the ones with torch.
"""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline.lock import Lock
from pipeline.reader import MixReader
from pipeline.store import Store
from tests.pipeline.corpus import EOS
from tools import peers, versus_dolma

pytestmark = pytest.mark.slow

# Both packages import clients of clouds and hubs before they look at a path; a local file needs none of them.
WITHOUT_CLOUDS = """
import json, sys
from unittest.mock import MagicMock
for name in ("boto3", "botocore", "botocore.config", "botocore.exceptions", "cached_path", "cached_path.schemes", "datasets", "google",
             "google.api_core", "google.api_core.retry", "google.auth", "google.cloud"):
    sys.modules[name] = MagicMock()
import numpy as np
out, length, eos, vocabulary, *paths = sys.argv[1:]
"""
READ_ALL = """
instances = [np.asarray(dataset[i]["input_ids"]) for i in range(len(dataset))]
np.save(out, np.stack(instances))
"""
OLMO = """
from olmo.data.memmap_dataset import MemMapDataset
dataset = MemMapDataset(*paths, chunk_size=int(length), memmap_dtype=np.uint16)
"""
OLMO_CORE = """
from olmo_core.data.numpy_dataset import NumpyFSLDataset
dataset = NumpyFSLDataset(*paths, sequence_length=int(length), pad_token_id=1, eos_token_id=int(eos), vocab_size=int(vocabulary),
                          dtype=np.uint16)
"""


def run(peer: peers.Peer, *arguments: object) -> None:
    try:
        interpreter = peers.python(peer)
    except peers.PeerUnavailable as error:
        pytest.skip(str(error))
    done = subprocess.run([interpreter, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize(("peer", "program"), [(peers.OLMO, OLMO), (peers.OLMO_CORE, OLMO_CORE)], ids=["olmo", "olmo-core"])
def test_olmo_reads_the_same_instances_as_the_mix_reader(peer: peers.Peer, program: str, built: Store, tmp_path: Path) -> None:
    lock_path = built.path("mixes/small.lock.json")
    lock, mix = Lock.read(lock_path), MixReader(lock_path)
    shards = [shard for source in lock.sources for shard in source.shards]
    assert len(shards) > len(lock.sources) and lock.tokenizer.dtype == "uint16"
    length, out = lock.sequence_length, tmp_path / "instances.npy"
    paths = [built.path(shard.path) for shard in shards]
    run(peer, "-c", WITHOUT_CLOUDS + program + READ_ALL, out, length, lock.tokenizer.eos, lock.tokenizer.vocab_size, *paths)
    theirs = np.load(out)

    whole = [np.fromfile(path, "<u2") for path in paths]
    np.testing.assert_array_equal(theirs, np.concatenate([ids[: len(ids) // length * length] for ids in whole]).reshape(-1, length))

    first = dict(zip((shard.path for shard in shards), np.cumsum([0, *(len(ids) // length for ids in whole)]), strict=False))
    seen = set()
    for index in range(len(mix)):
        place = mix.locate(index)
        number = first[place.shard] + place.start // length
        np.testing.assert_array_equal(mix[index].tokens, theirs[number])
        seen.add(number)
    assert len(seen) == lock.pool  # no instance twice in a pool without repeats


def test_dolma_writes_the_same_ids_for_the_same_documents(built: Store, recipes: Path, tmp_path: Path) -> None:
    """Dropped documents too: what is compared is the tokenize stage's output, before anything is left out."""
    eos = Lock.read(built.path("mixes/small.lock.json")).tokenizer.eos
    texts = dict(documents(built))
    assert any(EOS in text for text in texts.values()) and any(text != text.strip() for text in texts.values())
    tokenizer = json.loads((recipes / "tiny.json").read_bytes())
    tokenizer["model"]["merges"] = [" ".join(pair) for pair in tokenizer["model"]["merges"]]  # dolma's `tokenizers` is of 2024
    (tmp_path / "old.json").write_text(json.dumps(tokenizer))
    (tmp_path / "in").mkdir()
    lines = [json.dumps({"id": name, "text": text, "source": "all"}) for name, text in texts.items()]
    (tmp_path / "in" / "all.jsonl").write_text("\n".join(lines) + "\n")
    run(
        peers.DOLMA, "-m", "dolma.cli", "tokens", "--documents", tmp_path / "in" / "*.jsonl", "--destination", tmp_path / "out",
        "--tokenizer.name_or_path", tmp_path / "old.json", "--tokenizer.eos_token_id", eos, "--tokenizer.pad_token_id", 1,
        "--dtype", "uint16", "--processes", 1,
    )  # fmt: skip
    theirs = dict(versus_dolma.their_documents(tmp_path / "out"))
    ours = dict(token_ids(built))
    assert ours.keys() - theirs.keys() == {name for name, ids in ours.items() if not len(ids)}  # nothing left of the text
    for name, ids in theirs.items():
        np.testing.assert_array_equal(ours[name], ids, err_msg=name)


def documents(store: Store) -> Iterator[tuple[str, str]]:
    import pyarrow.parquet as pq

    for part in sorted(store.root.glob("documents/*/*/part-*.parquet")):
        yield from (
            (f"{row['source']}/{row['id']}", row["text"]) for row in pq.read_table(part, columns=["source", "id", "text"]).to_pylist()
        )


def token_ids(store: Store) -> Iterator[tuple[str, np.ndarray]]:
    import pyarrow.parquet as pq

    for path in sorted(store.root.glob("tokens/*/*/rows.parquet")):
        ids = np.fromfile(path.with_name("tokens.bin"), "<u2")
        for row in pq.read_table(path).to_pylist():
            yield f"{path.parents[1].name}/{row['id']}", ids[row["start"] : row["start"] + row["tokens"]]
