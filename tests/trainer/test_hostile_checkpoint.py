"""Checkpoints that someone made to run code or to read other files: their hashes are right, and nothing of theirs runs."""

import io
import json
import os
import pickle
import random
import shutil
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.errors import PipelineError
from pipeline.files import sha256_of
from pipeline.store import Store
from pipeline.unit import canonical
from tests.trainer import tiny
from tests.trainer.tiny import pretrain, weights
from trainer.checkpoint import find, load_weights, read_record
from trainer.hf import check_folder
from trainer.model import Transformer
from trainer.parallel import prepare

NAME = "model.norm.weight"


class Payload:
    """What runs a command as soon as it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


@pytest.fixture(scope="module")
def sound(built: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return find(pretrain(tiny.store_of(built, tmp_path_factory.mktemp("hostile")), "whole", steps=1))


@pytest.fixture(scope="module")
def model() -> Iterator[Transformer]:
    with tiny.alone_in_the_world() as world:
        yield prepare(tiny.CONFIG, world)


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    """The checkpoint once more, to be changed."""
    return shutil.copytree(sound, tmp_path / "models" / "run" / "checkpoints" / sound.name)


@pytest.fixture
def payload(tmp_path: Path) -> Iterator[Payload]:
    """Must not have run in the end; it would, if anything unpickled it."""
    armed = Payload(tmp_path / "it-ran")
    pickle.loads(pickle.dumps(armed))
    armed.mark.unlink()
    yield armed
    assert not armed.mark.exists()


def listed(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "tensors.json").read_bytes())


def relist(folder: Path, tensors: Any) -> None:
    (folder / "tensors.json").write_text(json.dumps(tensors))
    seal(folder)


def seal(folder: Path) -> None:
    """Make checkpoint.json agree with the files beside it, as whoever changed them would."""
    record = json.loads((folder / "checkpoint.json").read_bytes())
    record.pop("sha256")
    record["files"] = {name: [(folder / name).stat().st_size, sha256_of(folder / name)] for name in record["files"]}
    (folder / "checkpoint.json").write_text(json.dumps(record | {"sha256": sha256(canonical(record)).hexdigest()}))
    read_record(folder)


def test_a_list_of_tensors_that_is_a_pickle_is_not_read(sound: Path, folder: Path, model: Transformer, payload: Payload) -> None:
    (folder / ".metadata").write_bytes(pickle.dumps(payload))
    with pytest.raises(PipelineError, match=r"\.metadata has"):
        read_record(folder)
    seal(folder)
    load_weights(folder, model)  # by the other list
    expected = weights(sound)
    assert all(torch.equal(value, expected[f"model.{name}"]) for name, value in model.state_dict().items())
    shutil.copy(folder / ".metadata", folder / "tensors.json")
    seal(folder)
    with pytest.raises(PipelineError, match="cannot be read"):
        load_weights(folder, model)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_tensor_that_is_code_is_refused_before_it_runs(folder: Path, model: Transformer, payload: Payload, zipped: bool) -> None:
    stream = io.BytesIO()
    torch.save({"weight": payload}, stream, _use_new_zipfile_serialization=zipped)
    tensors = listed(folder)
    part = tensors[NAME]["parts"][0]
    part["start"], part["bytes"] = (folder / part["file"]).stat().st_size, len(stream.getvalue())
    with open(folder / part["file"], "ab") as file:
        file.write(stream.getvalue())
    relist(folder, tensors)
    with pytest.raises(PipelineError, match="cannot be read"):
        load_weights(folder, model)


@pytest.mark.parametrize("file", ["../other", "{folder}/../other", "..", "", "../step-1/__0_0.distcp"])
def test_a_list_that_leads_out_of_the_checkpoint_is_refused(sound: Path, folder: Path, model: Transformer, file: str) -> None:
    shutil.copy(sound / "__0_0.distcp", folder.parent / "other")  # what it leads to could be read
    tensors = listed(folder)
    tensors[NAME]["parts"][0]["file"] = file.format(folder=folder)
    relist(folder, tensors)
    with pytest.raises(PipelineError, match="out of the checkpoint|cannot be read"):
        load_weights(folder, model)


def test_a_list_of_anything_else_is_an_error_and_nothing_more(folder: Path, model: Transformer) -> None:
    """Any value anywhere in it replaced by another one: the model is filled, or PipelineError is raised."""
    rng, refused = random.Random(1), 0
    others: list[Any] = [None, True, -1, 2**63, 2**200, 1.5, "float32", "load", "__class__", [], {}, [-1], [2**62, 2**62], {"dtype": []}]
    for _ in range(60):
        tensors = listed(folder)
        holder: Any = tensors
        key = rng.choice([NAME, "model.embedding.weight"])
        while isinstance(holder[key], dict | list) and holder[key] and rng.random() < 0.8:
            holder = holder[key]
            key = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        holder[key] = rng.choice(others)
        (folder / "tensors.json").write_text(json.dumps(tensors))
        try:
            load_weights(folder, model)
        except PipelineError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 40
    for content in (b"", b"[]", b"{", b'{"a": 1}', b"[" * 100_000, b"\x80\x04}."):
        (folder / "tensors.json").write_bytes(content)
        with pytest.raises(PipelineError, match="cannot be read"):
            load_weights(folder, model)


@pytest.mark.parametrize("file", ["../model.safetensors", "/etc/hostname", "weights/../../model.safetensors", 7, []])
def test_an_export_whose_index_leads_elsewhere_is_refused(tmp_path: Path, file: Any) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"lm_head.weight": file}}))
    with pytest.raises(PipelineError, match=r"index\.json (names .* no file of this folder|does not say)"):
        check_folder(tmp_path, tiny.CONFIG.model)
