"""The unit of work: some inputs, the parameters that matter, one output folder named by their hash.

A unit is pure: the same inputs, parameters and stage version give the same bytes, on any machine, at any number of
workers. Its key is therefore its address, and a unit whose folder holds a matching record is done.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

Json = Any
SEAL = re.compile(rb'^ "seal": "([0-9a-f]{64})",?\n', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file that a unit read or wrote. `path` is relative to the store; for a raw input it is the file's stable name."""

    path: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Unit:
    """One piece of one stage's work.

    `params` is everything besides the inputs' contents that changes the output. `where` tells where raw inputs lie on
    this machine; it changes nothing in the output and so takes no part in the key.
    """

    stage: str
    version: int
    source: str
    inputs: tuple[Artifact, ...]
    params: Mapping[str, Json] = field(default_factory=dict)
    where: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def key(self) -> str:
        """32 hex digits: sha256 over stage, version, parameters and the inputs' sha256, in order."""
        address = [self.stage, self.version, dict(self.params), [artifact.sha256 for artifact in self.inputs]]
        return hashlib.sha256(canonical(address)).hexdigest()[:32]

    @property
    def folder(self) -> str:
        """Where the output goes, relative to the store."""
        return f"{self.stage}/{self.source}/{self.key}"

    @property
    def input_bytes(self) -> int:
        return sum(artifact.bytes for artifact in self.inputs)


@dataclass(frozen=True)
class Record:
    """What a finished unit left behind: `record.json`, written last, in its folder. It holds no times and no host
    names, so that equal work leaves equal records."""

    unit: Unit
    outputs: tuple[Artifact, ...]
    counts: Mapping[str, Json]

    def output(self, name: str) -> Artifact:
        """The output file of that name; KeyError if the stage did not write it."""
        for artifact in self.outputs:
            if artifact.path.rsplit("/", 1)[1] == name:
                return artifact
        raise KeyError(f"{self.unit.folder} has no {name}")

    def named(self, prefix: str, suffix: str) -> list[Artifact]:
        """The output files whose names begin and end so, in order of name."""
        chosen = [a for a in self.outputs if a.path.rsplit("/", 1)[1].startswith(prefix) and a.path.endswith(suffix)]
        return sorted(chosen, key=lambda artifact: artifact.path)

    def to_json(self) -> bytes:
        return sealed(
            {
                "stage": self.unit.stage,
                "version": self.unit.version,
                "source": self.unit.source,
                "key": self.unit.key,
                "params": dict(self.unit.params),
                "inputs": [asdict(artifact) for artifact in self.unit.inputs],
                "outputs": [asdict(artifact) for artifact in self.outputs],
                "counts": dict(self.counts),
            }
        )

    @classmethod
    def from_json(cls, unit: Unit, text: bytes) -> "Record":
        """Read a record back for `unit`. Raises ValueError when it is damaged or belongs to another unit."""
        fields = unsealed(text)
        if (fields.get("key"), fields.get("source")) != (unit.key, unit.source):
            raise ValueError("the record belongs to another unit")
        return cls._read(unit, fields)

    @classmethod
    def with_unit(cls, text: bytes) -> "Record":
        """Read a record back, and the unit that it describes. Raises ValueError when it is damaged."""
        fields = unsealed(text)
        try:
            inputs = tuple(Artifact(**artifact) for artifact in fields["inputs"])
            unit = Unit(fields["stage"], fields["version"], fields["source"], inputs, {**fields["params"]})
        except (KeyError, TypeError) as error:
            raise ValueError(f"the record lacks a field: {error}") from error
        return cls._read(unit, fields)

    @classmethod
    def _read(cls, unit: Unit, fields: dict[str, Json]) -> "Record":
        try:
            outputs = tuple(Artifact(**artifact) for artifact in fields["outputs"])
            if strangers := [file.path for file in outputs if file.path.rpartition("/")[0] != unit.folder or "\0" in file.path]:
                raise ValueError(f"the record names {strangers[0]!r}, which is none of the unit's files")
            return cls(unit, outputs, {**fields["counts"]})
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"the record lacks a field: {error}") from error


def canonical(value: Json, indent: int | None = None) -> bytes:
    """JSON with sorted keys and fixed separators: equal values give equal bytes."""
    separators = (",", ":") if indent is None else (",", ": ")
    return json.dumps(value, sort_keys=True, separators=separators, indent=indent, ensure_ascii=False).encode()


def sealed(fields: Mapping[str, Json]) -> bytes:
    """Canonical JSON, a field to a line, with one more field: `seal`, the sha256 of all other lines."""
    text = canonical({**fields, "seal": "0" * 64}, indent=1)
    (seal,) = SEAL.finditer(text)
    return text[: seal.start(1)] + _digest_without(seal, text) + text[seal.end(1) :]


def unsealed(text: bytes) -> dict[str, Json]:
    """The fields that `sealed` was given. Raises ValueError when anything of the text has changed; it is not parsed then."""
    seal = SEAL.search(text)
    if not seal or seal[1] != _digest_without(seal, text):
        raise ValueError("it has changed since it was written")
    try:
        fields = json.loads(text)
        del fields["seal"]
    except (RecursionError, TypeError) as error:
        raise ValueError("it is no sealed object") from error
    return fields


def _digest_without(seal: re.Match[bytes], text: bytes) -> bytes:
    return hashlib.sha256(text[: seal.start()] + text[seal.end() :]).hexdigest().encode()
