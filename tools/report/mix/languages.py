"""Languages: which ones the kept documents are in.

In: of a source with an attribute of kind `language`, or with `code_language`, what it says of every kept document. Of any other source
nobody asked, so a sample of its texts is asked here: SAMPLE documents out of row groups from all over the source, the first CHARACTERS of
each, by the same model (lid.176, 1 MB, downloaded once into `~/.cache/tokenmill/packages`); of source code the programming language, by
name and metadata. Out: shares of the kept documents, and on how many of them each rests.

Cost: at most GROUPS row groups of 8 MB read per source without the attribute, and 20 ms per MB of the sample.
"""

import os
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import damage
from pipeline.download.packages import fetch_all
from pipeline.errors import PipelineError
from pipeline.holdout import id_hash
from pipeline.progress import Progress
from pipeline.stages.decide import STAGE as DECIDE
from pipeline.stages.read import STAGE as READ
from pipeline.stages.tag import STAGE as TAG
from pipeline.taggers import Batch, run
from pipeline.taggers.code import files as code_files
from pipeline.taggers.fasttext import LID_176, Language
from pipeline.taggers.kinds import KINDS, Attribute
from tools.report.blocks import Block, Cell, Chart, Section, Table, Text
from tools.report.mix.marks import BLUE, Spec, columns, each, quantity
from tools.report.mix.sources import BuiltMix, BuiltSource
from tools.report.mix.values import occurrences, top

SAMPLE, GROUPS, CHARACTERS = 400, 4, 4_000
COLUMNS = ["id", "text", "metadata", "file"]
NARROW = 0.13  # of a bar: a part with a smaller share has no room for a name
OPACITIES = [0.6, 0.32, 0.48, 0.22, 0.4, 0.28]  # of neighbouring parts
LISTED = 5  # languages of a source in the table
MARKUP = {"html", "xml", "tex", "markdown", "restructuredtext", "rmarkdown", "json", "yaml", "css"}  # prose is written down in these, too
NAMES = {
    "ar": "Arabic", "bg": "Bulgarian", "ca": "Catalan", "cs": "Czech", "da": "Danish", "de": "German", "el": "Greek", "en": "English",
    "es": "Spanish", "fa": "Persian", "fi": "Finnish", "fr": "French", "he": "Hebrew", "hi": "Hindi", "hu": "Hungarian",
    "id": "Indonesian", "it": "Italian", "ja": "Japanese", "ko": "Korean", "la": "Latin", "nl": "Dutch", "no": "Norwegian",
    "pl": "Polish", "pt": "Portuguese", "ro": "Romanian", "ru": "Russian", "sv": "Swedish", "th": "Thai", "tr": "Turkish",
    "uk": "Ukrainian", "vi": "Vietnamese", "zh": "Chinese",
}  # fmt: skip


class Found(NamedTuple):
    """counts: language → documents, the most frequent first. how: what these were counted on."""

    counts: dict[str, int]
    how: str


def section(mix: BuiltMix) -> Section:
    found: dict[str, Found] = {}
    problems: list[Text] = []
    for source in mix.sources:
        try:
            one = _by_attribute(mix, source) or _by_sample(mix, source)
        except (PipelineError, OSError) as error:
            problems.append(Text(f"{source.name}: its languages are not known: {str(error).splitlines()[0]}", warning=True))
        else:
            if one and one.counts:
                found[source.name] = one
    blocks: list[Block] = [_chart(found), _table(found)] if found else []
    return Section("mix-languages", "Languages", [*blocks, *mix.missing("texts"), *problems])


def _by_attribute(mix: BuiltMix, source: BuiltSource) -> Found | None:
    """None where no tagger of the source tells languages."""
    taggers, folders = source.taggers, source.units(TAG.output)
    kinds = [mix.store.record(folder).unit.params.get("kind") for folder in folders[: len(taggers)]]
    place = next((place for place, kind in enumerate(kinds) if kind == "language"), None)
    column = taggers[place] if place is not None else "code_language"
    if place is None and folders and "code_file" in taggers:
        place = taggers.index("code_file")
    if place is None:
        return None
    tables = source.spread([f"{folder}/attributes.parquet" for folder in folders[place :: len(taggers)]])
    decided = source.spread([f"{folder}/decisions.parquet" for folder in source.units(DECIDE.output)])
    values = mix.table(f'"{column}" AS value', tables)["value"].filter(mix.table("kept", decided)["kept"])
    return Found(_spoken(values), f"{len(values):,} documents, by the attribute {column}")


def _by_sample(mix: BuiltMix, source: BuiltSource) -> Found | None:
    """None where the store has no texts of the source."""
    sampled = list(_sampled(mix, source))
    if not sampled:
        return None
    documents = pa.concat_tables(sampled)
    code = code_files(Batch(documents))["code_language"]
    if 2 * sum(bool(language) and language not in MARKUP for language in code.to_pylist()) > len(documents):
        return Found(_spoken(pa.chunked_array([code])), f"a sample of {len(documents):,} documents, by name and metadata")
    texts = Batch(pa.table({"text": pc.utf8_slice_codeunits(documents["text"], 0, CHARACTERS)}))
    table, _ = run(Attribute("language", KINDS["language"], Language(), Path()).tagger({"model": [_model()]}), texts)
    return Found(_spoken(table["language"]), f"a sample of {len(documents):,} documents, by lid.176")


def _sampled(mix: BuiltMix, source: BuiltSource) -> Iterator[pa.Table]:
    """Kept documents as they were read: of some row groups those with the smallest hashes of their ids."""
    decided, folders = source.units(DECIDE.output), source.units(READ.output)
    parts = [part.path for folder in folders for part in mix.store.record(folder).named("part-", ".parquet")] if decided else []
    chosen = _spaced(len(parts), GROUPS)
    for number in chosen:
        kept = mix.table("kept", [f"{decided[number]}/decisions.parquet"])["kept"]
        with damage.named(mix.store, parts[number]), mix.store.open(parts[number]) as stream, pq.ParquetFile(stream) as file:
            sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
            groups = _spaced(len(sizes), -(-GROUPS // len(chosen)))
            for group in groups:
                table = file.read_row_group(group, columns=COLUMNS).filter(kept.slice(sum(sizes[:group]), sizes[group]))
                order = np.argsort(id_hash(table["id"]), kind="stable")
                yield table.take(np.sort(order[: -(-SAMPLE // (len(chosen) * len(groups)))]))


def _spaced(count: int, most: int) -> list[int]:
    """At most so many of 0 … count - 1, evenly spaced."""
    return sorted(set(np.linspace(0, count - 1, min(most, count)).round().astype(int).tolist()))


@cache
def _model() -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tokenmill" / "packages"
    return Path(fetch_all({"lid.176": [LID_176]}, folder, Progress())["lid.176"][0].path)


def _spoken(values: pa.ChunkedArray) -> dict[str, int]:
    return {NAMES.get(language, language): count for language, count in occurrences(values).items()}


def _chart(found: Mapping[str, Found]) -> Chart:
    rows: list[list[Cell]] = []
    for source, (counts, _) in found.items():
        total = sum(counts.values())
        rows += [[source, language, rank, count, count / total] for rank, (language, count) in enumerate(top(counts).items(), 1)]
    axis = quantity("first", title="share of the kept documents", axis={"format": "%", "grid": False}, scale={"domain": [0, 1]})
    opacity = {"field": "rank", "type": "ordinal", "scale": {"range": OPACITIES}, "legend": None}
    spec: Spec = {
        "height": {"step": 28},
        "transform": [
            {"stack": "share", "groupby": ["source"], "sort": [{"field": "rank"}], "as": ["first", "last"]},
            {"calculate": "(datum.first + datum.last) / 2", "as": "middle"},
            {"calculate": "datum.last - min(0.002, datum.share / 4)", "as": "end"},  # a gap between the parts
            {"calculate": f"datum.share < {NARROW} ? '' : datum.language + ' ' + format(datum.share, '.0%')", "as": "label"},
        ],
        "encoding": {
            "y": each("source"),
            "tooltip": [{"field": "source"}, {"field": "language"}, quantity("documents", ",d"), quantity("share", ".1%")],
        },
        "layer": [
            {"mark": {"type": "bar", "color": BLUE}, "encoding": {"x": axis, "x2": {"field": "end"}, "opacity": opacity}},
            {"mark": {"type": "text", "fontSize": 11}, "encoding": {"x": quantity("middle"), "text": {"field": "label"}}},
        ],
    }
    caption = "A bar for each source, divided by language, the most frequent first. Of source code it is the programming language."
    return Chart("Languages of the kept documents", columns(["source", "language", "rank", "documents", "share"], rows), spec, caption)


def _table(found: Mapping[str, Found]) -> Table:
    rows: list[list[Cell]] = []
    for source, (counts, how) in found.items():
        listed = [f"{language} {count / sum(counts.values()):.1%}" for language, count in list(counts.items())[:LISTED]]
        rows.append([source, ", ".join(listed) + (" …" if len(counts) > LISTED else ""), how])
    return Table("Languages, and how they are known", ["source", "languages", "counted on"], rows)
