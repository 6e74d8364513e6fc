"""Raw files → documents.

In: one large raw file, or several small ones up to `UNIT_BYTES`; where one lies is no part of a unit's key, so that a file kept in the
store, one in a folder and one that is downloaded to be read and forgotten give the same unit. Out: `part-*.parquet` (documents.SCHEMA) and
`failures.parquet` (file, row, reason, detail). Files are streamed: memory is bounded by a row group and the largest
document. Every record becomes a document or a named failure; the failure budget is checked over the whole source by
the caller. A damaged archive is not a record: it stops the run (readers raise PipelineError).
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import readers
from pipeline.documents import PartWriter, write_table
from pipeline.engine import Stage, Work
from pipeline.readers import Failure, RawFile, reader_for
from pipeline.stages.download import at_hand
from pipeline.store import Store
from pipeline.unit import Artifact, Json, Record, Unit

STAGE = Stage("read", "documents", 2, "pipeline.stages.read:read")
UNIT_BYTES = 16_000_000
METADATA = ("metadata", "meta")
FAILURES = pa.schema([("file", pa.string()), ("row", pa.int64()), ("reason", pa.string()), ("detail", pa.string())])


def units(source: str, files: Sequence[RawFile], fields: Mapping[Any, Sequence[str]]) -> list[Unit]:
    """One unit per large file; neighbouring small files share one."""
    groups: list[list[RawFile]] = []
    size = UNIT_BYTES + 1  # the first file begins a group, even an empty one
    for file in files:
        if size + file.bytes > UNIT_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(file)
        size += file.bytes
    return [
        STAGE.unit(
            source,
            inputs=tuple(Artifact(file.name, file.sha256, file.bytes) for file in group),
            params={
                "source": source,
                "fields": {field: list(paths) for field, paths in fields.items()},
                "files": [[file.name, file.reader] for file in group],
            },
            where={file.name: file.path for file in group},
        )
        for group in groups
    ]


def read(work: Sequence[Work]) -> Iterator[dict[str, Json]]:
    for item in work:
        yield _read_unit(item)


def _read_unit(item: Work) -> dict[str, Json]:
    source, fields = item.unit.params["source"], item.unit.params["fields"]
    writer = PartWriter(item.folder)
    failures: list[tuple[str, Failure]] = []
    for artifact, (name, reader) in zip(item.unit.inputs, item.unit.params["files"], strict=True):
        with at_hand(item, artifact, item.unit.where[name]) as path:
            file = RawFile(name, path, artifact.bytes, artifact.sha256, reader)
            for record in reader_for(file)(file):
                document = record if isinstance(record, Failure) else _document(record, file.name, source, fields)
                if isinstance(document, Failure):
                    failures.append((file.name, document))
                else:
                    writer.add(*document)
    writer.close()
    lines = [{"file": name, "row": f.row, "reason": f.reason, "detail": f.detail} for name, f in failures]
    write_table(pa.Table.from_pylist(lines, schema=FAILURES), item.folder / "failures.parquet")
    return {
        "documents": sum(part["documents"] for part in writer.parts),
        "bytes": sum(part["bytes"] for part in writer.parts),
        "failed": dict(sorted(Counter(failure.reason for _, failure in failures).items())),
        "parts": writer.parts,
    }


def first_failures(store: Store, records: Sequence[Record], count: int = 5) -> list[str]:
    """The first failed records of a source, each as "file row 7: broken_json: …"."""
    lines: list[str] = []
    for record in records:
        table = pq.read_table(store.local(record.output("failures.parquet")))
        lines += [f"  {f['file']} row {f['row']}: {f['reason']}: {f['detail']}" for f in table.slice(0, count).to_pylist()]
        if len(lines) >= count:
            break
    return lines[:count]


def _document(
    record: readers.Record, file: str, source: str, fields: Mapping[str, Sequence[str]]
) -> tuple[tuple[str | int | None, ...], int] | Failure:
    """A record as a row of documents.SCHEMA and its text's UTF-8 bytes, or why it is none."""
    upstream = record.fields
    text = _first(upstream, fields["text"])
    if text is None:
        tried = ", ".join(fields["text"])
        return Failure(record.row, "missing_text", f"none of {tried} in a record with {', '.join(upstream) or 'no field'}")
    if not isinstance(text, str):
        return Failure(record.row, "wrong_type", f"the text is a {type(text).__name__}, not a string")
    values: dict[str, str | None] = {}
    for name in ("id", "added", "created"):
        value = _first(upstream, fields.get(name, ()))
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if value is not None and not isinstance(value, str):
            return Failure(record.row, "wrong_type", f"{name} is a {type(value).__name__}, not a string")
        values[name] = value or None
    metadata = _metadata(upstream, fields)
    if metadata is None:
        return Failure(record.row, "wrong_type", "the metadata is neither an object nor an object in a JSON string")
    try:
        size = len(text.encode())
        packed = orjson.dumps(metadata, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS).decode()
    except (UnicodeEncodeError, TypeError) as error:
        return Failure(record.row, "invalid_utf8" if isinstance(error, UnicodeEncodeError) else "wrong_type", str(error))
    identity = values["id"] or f"{file}#{record.row}"
    return (identity, text, source, values["added"], values["created"], packed, file, record.row), size


def _first(upstream: Mapping[str, Any], paths: Sequence[str]) -> Any:
    """The first of these paths that is present and not null; a dot descends into an object."""
    for path in paths:
        value: Any = upstream.get(path)
        if value is None and "." in path:
            outer, inner = path.split(".", 1)
            value = upstream.get(outer)
            if isinstance(value, str) and outer in METADATA:
                value = _parsed(value)
            value = value.get(inner) if isinstance(value, Mapping) else None
        if value is not None:
            return value
    return None


def _metadata(upstream: Mapping[str, Any], fields: Mapping[str, Sequence[str]]) -> dict[str, Any] | None:
    """The record's metadata object over all top-level fields that went nowhere else."""
    mapped = {path for paths in fields.values() for path in paths}
    merged = {name: value for name, value in upstream.items() if name not in mapped and name not in METADATA}
    for name in METADATA:
        value = upstream.get(name)
        if isinstance(value, str):
            value = _parsed(value)
            if value is None:
                return None
        if value is not None:
            if not isinstance(value, Mapping):
                return None
            merged.update(value)
    return merged


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        value = orjson.loads(text or "{}")
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None
