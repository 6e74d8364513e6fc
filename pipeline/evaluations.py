"""Evaluation sets on disk → their items, to be looked for in documents.

In:   files (.json, .jsonl plain or packed; .parquet; .arrow as the `datasets` library saves it; .txt) and, per set, which of them it is
      made of and which fields of a record are its text. Out: items: the set's name, an id, the text.
Cost: one read of the files; their texts in memory.
Not:  no record is passed over: one that cannot be read, or lacks a field, raises PipelineError with file, row and what there is.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import pyarrow as pa
from pydantic import AfterValidator, Field

from pipeline.config import Model
from pipeline.errors import PipelineError
from pipeline.readers import Failure, RawFile, Record, reader_for
from pipeline.recipe import Text


class Item(NamedTuple):
    evaluation: str
    id: str
    text: str


def _is_pattern(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"'{pattern}' is no regular expression: {error}") from None
    return pattern


class EvaluationSet(Model):
    """What a set of items is made of.

    files: a glob that its files' paths end with, such as `arc_easy/*/requests.jsonl.gz`. fields: the parts of a record that are its
    text, a dot leading into an inner record; strings or lists of strings, one under the other. id: the field that tells items apart;
    without one, file and row do. remove: a regular expression of what is the evaluation's frame and not its text, such as
    `^Question: |\\nAnswer:$`; in it `^` and `$` are the beginning and end of the text.
    """

    files: Text = "*"
    fields: Annotated[tuple[Text, ...], Field(min_length=1)] = ("text",)
    id: Text | None = None
    remove: Annotated[Text, AfterValidator(_is_pattern)] | None = None


def items(paths: Sequence[Path], sets: Mapping[str, EvaluationSet]) -> Iterator[Item]:
    """The items of all sets, in the order of `sets` and of the paths; equal id and text count once in a set.

    Raises PipelineError also when a set has no file, and a file no set or two.
    """
    files: dict[str, list[Path]] = {name: [] for name in sets}
    for path in sorted(paths):
        owners = [name for name, each in sets.items() if path.match(each.files)]
        if len(owners) != 1:
            found = f"the sets {' and '.join(owners)}" if owners else f"no set ({', '.join(each.files for each in sets.values())})"
            raise PipelineError(f"{path}: `files` puts it in {found}; it must be in exactly one")
        files[owners[0]].append(path)
    for name, each in sets.items():
        if not files[name]:
            raise PipelineError(f"evaluation set {name}: no file matches `files: {each.files}`")
        seen: set[tuple[str, str]] = set()
        for key, text in _of_set(files[name], each):
            if (key, text) not in seen:
                seen.add((key, text))
                yield Item(name, key, text)


def _of_set(paths: Sequence[Path], settings: EvaluationSet) -> Iterator[tuple[str, str]]:
    top = Path(os.path.commonpath([path.parent for path in paths]))
    for path in paths:
        for row, fields in _records(path):
            place = f"{path.relative_to(top).as_posix()}:{row}"
            text = "\n".join(string for field in settings.fields for string in _strings(fields, field, place))
            key = place if settings.id is None else "\n".join(_strings(fields, settings.id, place))
            yield key, re.sub(settings.remove, "", text) if settings.remove else text


def _records(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    if path.suffix == ".arrow":
        try:
            with pa.ipc.open_stream(path) as stream:
                yield from enumerate(row for batch in stream for row in batch.to_pylist())
        except pa.ArrowException as error:
            raise PipelineError(f"{path}: is no whole Arrow stream ({error}); fetch it again") from error
        return
    file = RawFile(path.name, str(path), path.stat().st_size, "", "text" if path.suffix == ".txt" else None)
    for record in reader_for(file)(file):
        if isinstance(record, Failure):
            raise PipelineError(f"{path} row {record.row}: {record.reason}: {record.detail}; mend the file or leave it out")
        assert isinstance(record, Record)
        yield record.row, record.fields


def _strings(fields: Mapping[str, Any], field: str, place: str) -> list[str]:
    value: Any = fields
    for part in field.split("."):
        if not isinstance(value, Mapping) or part not in value:
            there = ", ".join(value) if isinstance(value, Mapping) else f"a value: {value!r:.60}"
            raise PipelineError(f"{place}: no field `{field}`; where `{part}` should be there is {there}")
        value = value[part]
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(each, str | int) for each in values):
        raise PipelineError(f"{place}: `{field}` is {value!r:.60}; text, a number or a list of these is needed")
    return [str(each) for each in values]
