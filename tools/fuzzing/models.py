"""Targets: models: fastText's files, and checkpoints.

What must hold beside the common promises (target.py): a fastText model that loads gives every text a probability for each of its
labels, and compiled code looks nowhere but in the model; a checkpoint that loads fills the whole of every tensor asked for.
"""

from __future__ import annotations

import json
import struct
import tempfile
from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any, cast, overload

import numpy as np
import pyarrow as pa

from pipeline.taggers import Batch
from pipeline.text import fasttext_file
from pipeline.text.fasttext_model import FastText
from pipeline.unit import canonical
from tools.fuzzing.layers import JSON, sealed, sha256
from tools.fuzzing.target import Parts, Target, must

INDEX, TENSORS = "tensors.json", "__0_0.distcp"
WORDS, LABELS, BUCKETS, WIDTH = ("the", "house", "</s>"), ("__label__en", "__label__fr", "__label__de"), 7, 4
TEXTS = pa.array(["the house", "", "</s> x", "la maison é 😀 " + "x" * 40, "__label__en the", "\x00 the\nthe"], pa.large_string())


def targets() -> list[Target]:
    watched = ("trainer.checkpoint", "trainer.tensor_index")
    return [
        Target("fasttext", [(_dense(),), (_quantized(),)], _read_fasttext, ("pipeline.text.fasttext",)),
        Target("checkpoint.record", _Checkpoint(slice(1)), _read_record, watched, layers=((sealed(_resealed),),)),
        Target("checkpoint.tensors", _Checkpoint(slice(1, 3)), _read_tensors, watched, layers=((JSON,), ())),
    ]


def _header(loss: int, pruned: int) -> bytes:
    numbers = (WIDTH, 5, 5, 1, 5, 2, loss, 3, BUCKETS, 1, 3, 100, 1e-4)
    entries = [(word, 9 - number, number // len(WORDS)) for number, word in enumerate((*WORDS, *LABELS))]
    dictionary = b"".join(word.encode() + b"\0" + struct.pack("<qb", count, kind) for word, count, kind in entries)
    sizes = struct.pack("<iiiqq", len(entries), len(WORDS), len(LABELS), 99, pruned)
    return struct.pack("<ii12id", fasttext_file._MAGIC, 12, *numbers) + sizes + dictionary


def _matrix(rows: int) -> bytes:
    return struct.pack("<qq", rows, WIDTH) + np.linspace(-1, 1, rows * WIDTH, dtype=np.float32).tobytes()


def _dense() -> bytes:
    """With n-grams of characters and of words."""
    return _header(fasttext_file.SOFTMAX, -1) + b"\0" + _matrix(len(WORDS) + BUCKETS) + b"\0" + _matrix(len(LABELS))


def _quantized() -> bytes:
    """As lid.176.ftz is: pruned, and its rows are directions and lengths."""
    rows, parts = len(WORDS) + 2, 2
    product = struct.pack("<4i", WIDTH, parts, 2, 2) + np.linspace(-1, 1, 256 * WIDTH, dtype=np.float32).tobytes()
    lengths = bytes(range(rows)) + struct.pack("<4i", 1, 1, 1, 1) + np.linspace(0, 2, 256, dtype=np.float32).tobytes()
    kept = struct.pack("<4i", 5, 0, 2, 1)
    codes = struct.pack("<?qqi", True, rows, WIDTH, rows * parts) + bytes(range(rows * parts))
    return _header(fasttext_file.HIERARCHICAL, 2) + kept + b"\1" + codes + product + lengths + b"\0" + _matrix(len(LABELS))


def _read_fasttext(parts: Parts, folder: Path) -> list[str]:
    (folder / "model.bin").write_bytes(parts[0])
    model = FastText(fasttext_file.read(folder / "model.bin"))
    found = model.probabilities(*Batch(pa.table({"text": TEXTS})).utf8)
    must(found.shape == (len(TEXTS), len(model.labels)), "other labels than the model's")
    must(bool((found >= 0).all() and (found < 1.001).all()), "what is no probability")
    return [f"{len(model.labels)} labels", sha256(found.tobytes())]


class _Checkpoint(Sequence[Parts]):
    """One seed, made when it is asked for: other targets need not import torch."""

    def __init__(self, chosen: slice) -> None:
        self._chosen = chosen

    @cached_property
    def _seeds(self) -> list[Parts]:
        return [_checkpoint()[self._chosen]]

    @overload
    def __getitem__(self, index: int) -> Parts: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Parts]: ...
    def __getitem__(self, index: int | slice) -> Parts | Sequence[Parts]:
        return self._seeds[index]

    def __len__(self) -> int:
        return 1


@cache
def _checkpoint() -> Parts:
    """A checkpoint's record, list of tensors and tensors, as training writes them."""
    import torch
    import torch.distributed.checkpoint as dcp

    from trainer.tensor_index import Writer

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        values = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.ones(2)}
        dcp.save({"model": values}, storage_writer=Writer(folder), no_dist=True)
        index, tensors = (folder / INDEX).read_bytes(), (folder / TENSORS).read_bytes()
    record = {
        "progress": {"step": 1, "tokens": 8, "learning_rate": 0.1, "spikes": {}}, "identity": {"mix": "m"}, "config": {}, "code": "c",
        "world": 1, "files": {INDEX: [len(index), sha256(index)], TENSORS: [len(tensors), sha256(tensors)]},
    }  # fmt: skip
    return json.dumps(_resealed(record)).encode(), index, tensors


def _resealed(record: dict[str, Any]) -> dict[str, Any]:
    rest = {name: value for name, value in record.items() if name != "sha256"}
    return {**rest, "sha256": sha256(canonical(rest))}


def _read_record(parts: Parts, folder: Path) -> list[str]:
    from trainer.checkpoint import RECORD, read_record

    path = _placed(folder, {RECORD: parts[0], **dict(zip((INDEX, TENSORS), _checkpoint()[1:], strict=True))})
    record = read_record(path)
    return [f"step {record.progress.step}, {len(record.files)} files"]


def _read_tensors(parts: Parts, folder: Path) -> list[str]:
    import torch

    from trainer.checkpoint import load_weights
    from trainer.model import Transformer

    path = _placed(folder, dict(zip((INDEX, TENSORS), parts, strict=True)))
    filled = []
    for before in (0.0, 1.0):
        model = torch.nn.Linear(3, 2)
        for value in model.parameters():
            torch.nn.init.constant_(value, before)
        load_weights(path, cast(Transformer, model))
        filled.append({name: value.numpy().tobytes() for name, value in model.state_dict().items()})
    must(filled[0] == filled[1], "a tensor is not filled, or not all of it")
    return [f"{name} {sha256(value)}" for name, value in filled[0].items()]


def _placed(folder: Path, files: dict[str, bytes]) -> Path:
    path = folder / "run" / "checkpoints" / "step-1"
    path.mkdir(parents=True)
    for name, content in files.items():
        (path / name).write_bytes(content)
    return path
