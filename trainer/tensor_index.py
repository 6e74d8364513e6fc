"""The tensors of a checkpoint, listed in JSON; what is loaded is tensors and nothing else.

torch.distributed.checkpoint lists what it wrote in `.metadata`, a pickle, and loads other values than tensors by pickle too:
both run whatever code a file says. So `Writer` lists the same in `tensors.json`, and `Reader` reads that alone.

In and out: {name: {"dtype", "shape", "parts": [{"offset", "shape", "file", "start", "bytes"}]}}; a part is a rectangle of the
tensor, in `bytes` bytes of `file` beside this one. Those bytes are torch's own format, of which torch.load takes only what
makes up a tensor (weights_only). Cost: 200 bytes per part. Not: `.metadata` is still written, for torch's own tools.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.default_planner import _validate_global_plan
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter, _StorageInfo
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, Metadata, MetadataIndex, TensorProperties, TensorStorageMetadata
from torch.distributed.checkpoint.planner import SavePlan
from torch.distributed.checkpoint.storage import WriteResult

from trainer.run import write_json

INDEX = "tensors.json"


class Writer(FileSystemWriter):
    """One file per rank; when all are written, the list of their tensors."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, single_file_per_rank=True, sync_files=True)
        self._folder = folder

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Called on one rank, with what all wrote."""
        super().finish(metadata, results)
        write_json(self._folder / INDEX, {name: _listed(name, entry, metadata) for name, entry in metadata.state_dict_metadata.items()})


class Reader(FileSystemReader):
    """Reads by the list, without any pickle but that of a tensor."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._folder = folder

    def read_metadata(self, *_: Any, **__: Any) -> Metadata:
        """Raises OSError or ValueError if the list cannot be read, or names what cannot be there."""
        try:
            listed = json.loads((self._folder / INDEX).read_bytes())
            found = Metadata({}, storage_data={})
            for name, entry in listed.items():
                parts = [ChunkStorageMetadata(_size(part["offset"]), _size(part["shape"])) for part in entry["parts"]]
                found.state_dict_metadata[name] = TensorStorageMetadata(_properties(entry["dtype"]), _size(entry["shape"]), parts)
                for chunk, part in zip(parts, entry["parts"], strict=True):
                    (start, length), file = _size([part["start"], part["bytes"]]), _plain(part["file"])
                    found.storage_data[MetadataIndex(name, chunk.offsets)] = _StorageInfo(file, start, length)
        except (KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise ValueError(f"{INDEX} is no list of tensors: {type(error).__name__}: {error}") from error
        # As torch checks what it is about to write, for two ranks: of one it would not compare the sizes.
        problems = _validate_global_plan([SavePlan([]), SavePlan([])], found)
        if problems or not all(entry["parts"] for entry in listed.values()):
            raise ValueError(f"{INDEX} has parts that do not make up their tensor, which would stay as it was: {problems[:1]}")
        return found


def _listed(name: str, entry: Any, metadata: Metadata) -> dict[str, Any]:
    if not isinstance(entry, TensorStorageMetadata):
        raise TypeError(f"{name} is no tensor: checkpoints hold nothing else")
    stored = [(chunk, metadata.storage_data[MetadataIndex(name, chunk.offsets)]) for chunk in entry.chunks]
    return {
        "dtype": str(entry.properties.dtype).removeprefix("torch."),
        "shape": list(entry.size),
        "parts": [
            {"offset": list(chunk.offsets), "shape": list(chunk.sizes), "file": at.relative_path, "start": at.offset, "bytes": at.length}
            for chunk, at in stored
        ],
    }


def _size(numbers: Any) -> torch.Size:
    if not all(type(number) is int and 0 <= number < 1 << 63 for number in numbers):
        raise ValueError(f"{INDEX} has {str(numbers)[:80]} where sizes should be")
    return torch.Size(numbers)


def _properties(dtype: str) -> TensorProperties:
    found = getattr(torch, dtype, None)
    if not isinstance(found, torch.dtype):
        raise ValueError(f"{INDEX} has the type {dtype[:80]!r}, which tensors do not have")
    return TensorProperties(found)


def _plain(file: str) -> str:
    """The name of a file in the same folder: no list leads out of it."""
    if Path(file).name != file:
        raise ValueError(f"{INDEX} leads to {file[:80]!r}, out of the checkpoint")
    return file
