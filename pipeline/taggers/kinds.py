"""Kinds: taggers with settings and files of their own, which a recipe configures by name.

    @kind("fasttext", settings=FastText, reads=("text",), columns=lambda name, settings: {name: pa.float64()}, files=("model",))
    def fasttext(batch: Batch, name: str, settings: FastText, files: Mapping[str, list[Path]]) -> Result: ...

and in a source or a filter, `attributes: {quality: {kind: fasttext, model: models/quality.bin}}`: `quality` is then a
column that predicates can name. `files` names the settings that say where files lie: a path or glob, relative to the
folder of recipes, a package's archive, or a list of these. Their contents, and their names there, take part in a unit's key.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import ValidationError

from pipeline.config import Document, Key, Model, explained, suggestion
from pipeline.recipe import SamplePackage
from pipeline.taggers import Batch, Result, Tagger, column_types, owner_of
from pipeline.unit import Json

Place = str | SamplePackage
Columns = Callable[[str, Any], Mapping[str, pa.DataType]]
Function = Callable[[Batch, str, Any, Mapping[str, list[Path]]], Result]


@dataclass(frozen=True)
class Kind:
    """What a configured tagger is made from. `columns`: from its name and settings to the columns that it will give."""

    name: str
    settings: type[Model]
    columns: Columns
    reads: tuple[str, ...]
    files: tuple[str, ...]
    tables: Mapping[str, pa.Schema]
    version: int
    function: Function


KINDS: dict[str, Kind] = {}


def kind(
    name: str,
    settings: type[Model],
    columns: Columns,
    reads: tuple[str, ...],
    files: tuple[str, ...] = (),
    tables: Mapping[str, pa.Schema] | None = None,
    version: int = 1,
) -> Callable[[Function], Function]:
    """Register the decorated function. Raises ValueError if the name is taken."""

    def register(function: Function) -> Function:
        if name in KINDS:
            raise ValueError(f"two kinds are called {name}")
        KINDS[name] = Kind(name, settings, columns, reads, files, dict(tables or {}), version, function)
        return function

    return register


@dataclass(frozen=True)
class Attribute:
    """A configured tagger as a recipe declares it. `folder`: where its relative paths begin."""

    name: str
    kind: Kind
    settings: Model
    folder: Path = field(compare=False)

    @property
    def columns(self) -> Mapping[str, pa.DataType]:
        return self.kind.columns(self.name, self.settings)

    @property
    def places(self) -> dict[str, tuple[Place, ...]]:
        """Where its files are, by the setting that says so."""
        found: dict[str, tuple[Place, ...]] = {}
        for role in self.kind.files:
            value = getattr(self.settings, role)
            if value is not None:
                found[role] = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
        return found

    @property
    def params(self) -> dict[str, Json]:
        """What changes its output besides its files' contents."""
        settings = self.settings.model_dump(mode="json", exclude=set(self.kind.files))
        return {"tagger": self.name, "kind": self.kind.name, "version": self.kind.version, "settings": settings}

    def tagger(self, files: Mapping[str, list[Path]]) -> Tagger:
        """The tagger, given where its files lie on this machine."""
        function = self.kind.function

        def tag(batch: Batch) -> Result:
            return function(batch, self.name, self.settings, files)

        return Tagger(self.name, self.columns, self.kind.reads, self.kind.version, tag, self.kind.tables)


def configured(name: str, declared: Mapping[str, Any], folder: Path, document: Document, key: Key) -> Attribute:
    """The attribute that a recipe in `folder` declares under `key`. Raises ConfigError at the line that is wrong."""
    values = dict(declared)
    chosen = values.pop("kind", None)
    if chosen not in KINDS:
        what = f"unknown kind `{chosen}`{suggestion(str(chosen), KINDS)}" if chosen else "this key is missing"
        raise document.error((*key, "kind"), f"{what}; there are {', '.join(sorted(KINDS))}")
    try:
        settings = KINDS[chosen].settings.model_validate(values)
    except ValidationError as error:
        raise explained(document, KINDS[chosen].settings, error, key) from None
    attribute = Attribute(name, KINDS[chosen], settings, folder)
    for column in attribute.columns:
        if column in column_types():
            raise document.error(key, f"the column {column} is {owner_of(column) or 'every document'}'s already; choose another name")
    return attribute
