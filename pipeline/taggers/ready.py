"""A tagger on its way into a unit of work: what names it in the unit's key, and how a worker gets it back.

A tagger without settings is its name and version. An attribute is its kind, settings, and its files' names and contents; where
these lie travels in the unit's `where`, outside the key.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.readers import RawFile
from pipeline.store import Store
from pipeline.taggers import TAGGERS, Tagger
from pipeline.taggers.kinds import KINDS, Attribute
from pipeline.unit import Artifact, Json, Unit


@dataclass(frozen=True)
class Ready:
    """A tagger with its files at hand."""

    tagger: Tagger
    params: Mapping[str, Json]
    files: tuple[Artifact, ...] = ()
    where: str = ""

    @classmethod
    def plain(cls, tagger: Tagger) -> "Ready":
        return cls(tagger, {"tagger": tagger.name, "version": tagger.version})

    @classmethod
    def configured(cls, attribute: Attribute, files: Mapping[str, Sequence[RawFile]], store: Store) -> "Ready":
        """`files`: of each role, found on this machine and hashed."""
        paths = {role: [Path(file.path) for file in found] for role, found in files.items()}
        artifacts = tuple(Artifact(file.name, file.sha256, file.bytes) for role in sorted(files) for file in files[role])
        params = {**attribute.params, "files": {role: [file.name for file in found] for role, found in sorted(files.items())}}
        places = {role: [store.share(Path(file.path), file.sha256, file.name) for file in found] for role, found in files.items()}
        where = {"settings": attribute.settings.model_dump(mode="json"), "files": places}
        return cls(attribute.tagger(paths), params, artifacts, json.dumps(where, sort_keys=True))


def restored(params: Mapping[str, Json], unit: Unit, store: Store) -> Tagger:
    """The tagger that these params of a unit name."""
    if "kind" not in params:
        return TAGGERS[params["tagger"]]
    where = json.loads(unit.where[params["tagger"]])
    kind = KINDS[params["kind"]]
    attribute = Attribute(params["tagger"], kind, kind.settings.model_validate(where["settings"]), Path())
    return attribute.tagger({role: [_on_this_machine(place, store) for place in places] for role, places in where["files"].items()})


def _on_this_machine(place: str, store: Store) -> Path:
    return Path(place) if Path(place).is_absolute() else store.local(place)
