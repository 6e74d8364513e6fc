"""croissant.json: the mix in the vocabulary of MLCommons' Croissant 1.1, made and validated by its own library.

In: Facts. Out: JSON whose distribution is every file that the mix needs, each with its real sha256 and its path relative to the folder
that croissant.json lies in (a release's, or a store's where it is copied there), and three record sets over document tables:
`documents` (every document read, kept or not), `train` and `validation` (those in the shards, in their order). Cost: 1.5 ms per file.
Not: token ids have no record set, for the vocabulary knows no raw arrays; the shards' `.json` say how to read them.
"""

import fnmatch
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import mlcroissant as croissant

from pipeline.errors import PipelineError
from pipeline.unit import Artifact
from tools.card.markdown import visible
from tools.card.mix_facts import Facts

VERSION = "http://mlcommons.org/croissant/1.1"
KINDS = {"bin": "application/octet-stream", "json": "application/json", "parquet": "application/x-parquet"}
TEXT, COUNT, FLAG = croissant.DataType.TEXT, croissant.DataType.INTEGER, croissant.DataType.BOOL

LEDGER = {
    "id": (TEXT, "the document's id, as its source has it"),
    "file": (TEXT, "the raw file it was read from"),
    "row": (COUNT, "its line, row, page or member in that file, from 0"),
    "bytes": (COUNT, "of its text as read"),
    "tokens": (COUNT, "its token ids, the closing one included"),
    "kept": (FLAG, "whether it is in a shard"),
    "split": (TEXT, "train or validation, if it is"),
    "stage": (TEXT, "what dropped it: the stage"),
    "dropped_by": (TEXT, "what dropped it: the rule, or the step of deduplication"),
    "reasons": (TEXT, "all rules that hold for it"),
    "shard": (TEXT, "the file with its token ids, beside this table"),
    "start": (COUNT, "where its token ids begin there"),
}
PLACED = {
    "id": LEDGER["id"],
    "file": LEDGER["file"],
    "row": LEDGER["row"],
    "start": (COUNT, "where its token ids begin in the shard"),
    "length": (COUNT, "how many of them the shard holds"),
    "offset": (COUNT, "how many of them earlier shards hold"),
}
RECORD_SETS = {
    "documents": ("ledger.parquet", "Every document that was read, kept or dropped, and by what", LEDGER),
    "train": ("train-*.parquet", "The documents in the training shards, in their order", PLACED),
    "validation": ("validation-*.parquet", "The documents in the shards held out, in their order", PLACED),
}
SHARD = r"^(.*)\.parquet$"
SOURCE = r"^shards/([^/]+)/.*$"


def write(facts: Facts, url: str | None = None) -> bytes:
    """url: where the release can be had. Raises PipelineError for what the library finds wrong with it, warnings too."""
    context = croissant.Context(conforms_to=VERSION)
    present = [name for name, (pattern, _, _) in RECORD_SETS.items() if fnmatch.filter((file.path for file in facts.files), f"*/{pattern}")]
    try:
        metadata = croissant.Metadata(
            ctx=context,
            name=facts.name,
            description=visible(facts.lock.recipe["description"]),
            url=url,
            license=sorted({visible(licence) for source in facts.sources for licence in source.built["licence"]}),
            version=f"1.0.0+{facts.lock.fingerprint[:12]}",
            cite_as=citation(facts),
            date_published=datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None),
            keywords=["language modeling", "pretraining", "token ids", *(source.name for source in facts.sources)],
            distribution=[*(_file(context, file) for file in facts.files), *(_tables(context, facts, name) for name in present)],
            record_sets=[_records(context, name) for name in present],
        )
        found = metadata.to_json()
    except croissant.ValidationError as error:
        raise PipelineError(f"the Croissant metadata of {facts.name} is not valid: {error}") from error
    check(facts.name, found)
    return (json.dumps(found, indent=1, ensure_ascii=False) + "\n").encode()


def check(mix: str, found: Mapping[str, Any]) -> None:
    """Read it as others will. Raises PipelineError for errors and warnings."""
    try:
        issues = croissant.Dataset(jsonld=dict(found)).metadata.ctx.issues
    except croissant.ValidationError as error:
        raise PipelineError(f"the Croissant metadata of {mix} is not valid: {error}") from error
    if issues.errors or issues.warnings:
        raise PipelineError(f"the Croissant metadata of {mix} is not valid: {issues.report()}")


def citation(facts: Facts) -> str:
    """In BibTeX, with what tells this mix from every other."""
    return f"@misc{{{facts.name}, title = {{{facts.name}, a mix of training tokens}}, note = {{fingerprint {facts.lock.fingerprint}}}}}"


def _file(context: croissant.Context, file: Artifact) -> croissant.FileObject:
    return croissant.FileObject(
        ctx=context,
        id=file.path,
        name=file.path.rpartition("/")[2],
        content_url=file.path,
        content_size=f"{file.bytes} B",
        encoding_formats=[KINDS[file.path.rpartition(".")[2]]],
        sha256=file.sha256,
    )


def _tables(context: croissant.Context, facts: Facts, name: str) -> croissant.FileSet:
    """The tables of a record set, by the folders of their units: a store may hold units of other mixes beside them."""
    folders = dict.fromkeys(file.path.rpartition("/")[0] for file in facts.files if file.path.startswith("shards/"))
    return croissant.FileSet(
        ctx=context,
        id=f"{name}-tables",
        name=f"{name}-tables",
        encoding_formats=[KINDS["parquet"]],
        includes=[f"{folder}/{RECORD_SETS[name][0]}" for folder in folders],
    )


def _records(context: croissant.Context, name: str) -> croissant.RecordSet:
    _, description, columns = RECORD_SETS[name]

    def source(extract: dict[str, str], regex: str = "") -> croissant.Source:
        transforms = [croissant.Transform(ctx=context, regex=regex)] if regex else []
        return croissant.Source(
            ctx=context, file_set=f"{name}-tables", extract=croissant.Extract(ctx=context, **extract), transforms=transforms
        )

    def field(column: str, kind: Any, text: str, taken: croissant.Source) -> croissant.Field:
        lists = {"is_array": True, "array_shape": "-1"} if column == "reasons" else {}
        return croissant.Field(ctx=context, id=f"{name}/{column}", name=column, description=text, data_types=[kind], source=taken, **lists)

    fields = [field("source", TEXT, "which source of the mix it is of", source({"file_property": "fullpath"}, SOURCE))]
    if columns is PLACED:
        fields.append(field("shard", TEXT, "the shard, without its .bin", source({"file_property": "fullpath"}, SHARD)))
    fields += [field(column, kind, text, source({"column": column})) for column, (kind, text) in columns.items()]
    return croissant.RecordSet(ctx=context, id=name, name=name, description=description, fields=fields)
