"""A stage whose output changes must get a new version, or finished work would be taken for up to date.

When one of these digests differs, either the change was not meant, or `version` in the stage's STAGE (or in the tagger's
decorator) has to be raised together with the digest here. They are of contents, not of Parquet's bytes.
"""

import hashlib
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.catalog import STAGES
from pipeline.store import RECORD, Store
from pipeline.taggers import TAGGERS
from pipeline.taggers.kinds import KINDS

EXPECTED = {
    "documents": (2, "c26608c976ddd667"),
    "tokens": (2, "f09bfe06b78555b0"),
    "filtered": (2, "faf44cc09551bc25"),
    "holdout": (1, "7f94f9d0db834d46"),
    "duplicates": (1, "a4b87ecea817ae11"),
    "decisions": (1, "d311940a7375f46e"),
    "shards": (1, "fa7e194973e98886"),
    "attributes length": (1, "abec855bbb99f674"),
    "attributes repetition": (1, "055ef1fc41014ff6"),
    "attributes stars": (1, "bc050b6e63e6362f"),
    "attributes text_hash": (1, "fd80ca6714d4a447"),
    "attributes unicode_words": (1, "fc66d8bfeab67eb6"),
}


# The same of the stages and taggers that only the curated mix needs.
CURATED = {
    "prepared": (1, "693e25cce4c5d4cc"),
    "edited": (1, "64122f8909d537b3"),
    "bands": (1, "a600b67efe246307"),
    "clusters": (1, "59fc5f7e74f3fa65"),
    "paragraphs": (1, "6859e1fb88d516fc"),
    "attributes contamination": (1, "0410a823a39b79f2"),
    "attributes minhash": (1, "0dcdbd058b2e1fee"),
    "attributes pii": (1, "a9c7dd1faba0fcd9"),
    "attributes url": (1, "f543418f3523980a"),
}


def digest(files: list[Path]) -> str:
    """sha256 over the names and contents of files; of Parquet files, the rows."""
    total = hashlib.sha256()
    for file in files:
        content = file.read_bytes()
        if file.suffix == ".parquet":
            content = repr(pq.read_table(file).to_pylist()).encode()
        total.update(file.name.encode() + b"\n" + content)
    return total.hexdigest()[:16]


def versions() -> dict[str, int]:
    stages = {stage.output: stage.version for stage in STAGES if stage.output != "attributes"}
    configured = {"contamination": KINDS["decontaminate"].version, "minhash": KINDS["minhash"].version}
    taggers = {tagger.name: tagger.version for tagger in TAGGERS.values()} | configured
    return stages | {f"attributes {name}": version for name, version in taggers.items()}


def outputs(store: Store, name: str) -> list[Path]:
    folder, _, tagger = name.partition(" ")
    found = []
    for record in sorted(store.path(folder).glob(f"*/*/{RECORD}"), key=lambda path: path.parent.parent.name):
        if not tagger or f'"tagger": "{tagger}"' in record.read_text():
            found.append(sorted(path for path in record.parent.iterdir() if path.name != RECORD))
    # Units of one source have no order in their keys; their contents give one.
    return [path for _, paths in sorted((digest(paths), paths) for paths in found) for path in paths]


@pytest.mark.parametrize("name", [*EXPECTED, *CURATED])
def test_the_output_of_a_stage_changes_only_with_its_version(built: Store, curated: Store, name: str) -> None:
    files = outputs(built if name in EXPECTED else curated, name)
    assert files
    assert (versions()[name], digest(files)) == (EXPECTED | CURATED)[name]
