"""Each attribute that a rule asks for: how it is distributed, where the rules draw their lines, and what they drop.

In: the attributes' tables, and the reasons that hold for each document (filtered.parquet), both row-aligned with the source's parts. Out:
a chart per attribute, a row in it for each source with a rule on it; the attributes that rules drop most by come first. "Dropped by these
rules" are the documents for which a rule that names the attribute holds, whatever else it names, and whether or not another rule is blamed.

Cost: one column of all sources at a time, 10 bytes per document, and 0.05 s per column and million documents.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.taggers.predicates import columns_of
from tools.report.blocks import Block, Chart, Section, Text
from tools.report.mix.histograms import Row, bins, chart
from tools.report.mix.limits import Limit, limits
from tools.report.mix.sources import BuiltMix, BuiltSource
from tools.report.mix.values import values_chart

FOLDED = 8  # with more charts than this the section is folded
NAMES = {"id", "source", "file"}  # columns that tell documents apart; nothing to be distributed
LISTED, LONGEST = 4, 160  # rules in a caption, and characters of each


class Reasons(NamedTuple):
    """Of so many documents the reasons that hold: which document, and which of `names` it is, for each reason of each."""

    documents: int
    rows: npt.NDArray[np.int64]
    codes: npt.NDArray[np.int32]
    names: list[str]

    @classmethod
    def of(cls, reasons: pa.ChunkedArray) -> "Reasons":
        listed = reasons.combine_chunks()
        coded = pc.list_flatten(listed).dictionary_encode()
        return cls(len(listed), pc.list_parent_indices(listed).to_numpy(), coded.indices.to_numpy(), coded.dictionary.to_pylist())

    def held(self, wanted: Iterable[str]) -> npt.NDArray[np.bool_]:
        """[documents]: whether one of these holds."""
        held = np.zeros(self.documents, np.bool_)
        held[self.rows[np.isin(self.codes, [self.names.index(reason) for reason in wanted if reason in self.names])]] = True
        return held


class Asked(NamedTuple):
    """An attribute that rules of a source ask for: where its values are, and the rules, reason → SQL, in the order of blame."""

    source: BuiltSource
    files: list[str]
    reasons: Reasons
    rules: Mapping[str, str]


def section(mix: BuiltMix) -> Section:
    asked: dict[str, list[Asked]] = defaultdict(list)
    for source in mix.sources:
        for column, one in _of_source(mix, source).items():
            asked[column].append(one)
    drawn = sorted((_chart(mix, column, each) for column, each in asked.items()), key=lambda pair: (-pair[0], pair[1].title))
    missing = mix.missing("attributes")
    none = [] if drawn or missing else [Text("No rule of this mix's sources asks for an attribute.")]
    intro = (
        "Every attribute that a rule asks for, of all documents that were read, and where the rules draw their lines. Heights are "
        "logarithmic, so that single documents near a line can be seen beside millions; the outermost bars hold all that lies beyond. The "
        "attributes that drop most come first."
    )
    blocks: list[Block] = [*(drawing for _, drawing in drawn), *missing, *none]
    return Section("mix-attributes", "What the rules look at", blocks, intro if drawn else "", folded=len(drawn) > FOLDED)


def _of_source(mix: BuiltMix, source: BuiltSource) -> dict[str, Asked]:
    """By column."""
    filtered = source.spread([f"{folder}/filtered.parquet" for folder in source.units("filtered")])
    if not filtered or not source.drop:
        return {}
    rules: dict[str, dict[str, str]] = defaultdict(dict)
    for reason, sql in sorted(source.drop.items(), key=lambda rule: mix.blame(source).index(rule[0])):
        for column in columns_of(sql) - NAMES:
            rules[column][reason] = sql
    reasons, files = Reasons.of(mix.table("reasons", filtered)["reasons"]), _files(mix, source)
    return {column: Asked(source, files[column], reasons, of_column) for column, of_column in sorted(rules.items()) if column in files}


def _files(mix: BuiltMix, source: BuiltSource) -> dict[str, list[str]]:
    """Column → the files that hold it, of the parts whose rows are read."""
    taggers, folders = source.taggers, source.units("attributes")
    tables = [[f"{folder}/attributes.parquet" for folder in folders[place :: len(taggers)]] for place in range(len(taggers))]
    tables.append([f"{folder}/rows.parquet" for folder in source.units("tokens")])
    return {column: source.spread(files) for files in tables if files for column in mix.columns(files[0])}


def _chart(mix: BuiltMix, column: str, asked: list[Asked]) -> tuple[int, Chart]:
    """How many documents its rules drop, and its chart."""
    values = [mix.table(f'"{column}" AS value', one.files)["value"] for one in asked]
    dropped = [one.reasons.held(one.rules) for one in asked]
    total, caption = sum(int(held.sum()) for held in dropped), f"Rules: {_listed(asked)}."
    if not all(pa.types.is_integer(each.type) or pa.types.is_floating(each.type) for each in values):
        return total, values_chart(column, caption, list(zip([one.source.name for one in asked], values, dropped, strict=True)))
    numbers, lines = [each.to_numpy() for each in values], [_lines(column, one) for one in asked]
    scale = bins(numbers, [limit for own in lines for limit in own])
    rows = [
        Row(
            one.source.name, scale.counts(found), scale.counts(found[held]),
            [(scale.place(limit), f"{limit} {', '.join(reasons)}") for limit, reasons in own.items()],
        )
        for one, found, held, own in zip(asked, numbers, dropped, lines, strict=True)
    ]  # fmt: skip
    return total, chart(column, caption, "", scale, rows, "symlog")


def _lines(column: str, asked: Asked) -> dict[Limit, list[str]]:
    """Where the source's rules draw lines on this attribute, and which of them do."""
    lines: dict[Limit, list[str]] = defaultdict(list)
    for reason, sql in asked.rules.items():
        for limit in limits(sql):
            if limit.column == column:
                lines[limit].append(reason)
    return lines


def _listed(asked: list[Asked]) -> str:
    """Rules, each once, and of which sources they are."""
    sources: dict[tuple[str, str], list[str]] = defaultdict(list)
    for one in asked:
        for reason, sql in one.rules.items():
            sources[reason, " ".join(sql.split())].append(one.source.name)
    rules = [
        f"{reason} drops where {sql if len(sql) <= LONGEST else sql[:LONGEST] + ' …'} ({', '.join(names)})"
        for (reason, sql), names in list(sources.items())[:LISTED]
    ]
    return "; ".join([*rules, *([f"and {len(sources) - LISTED} more"] if len(sources) > LISTED else [])])
