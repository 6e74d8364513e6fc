"""Duplicates: how many documents say the same, by method, and how large the groups are.

In: what deduplication found: for `exact` and `url` which document each loser is a duplicate of, for `near` the clusters themselves. A
group is what stays and all that were dropped for it. Out: the number of groups by their size, and the largest ones.
Not: `paragraphs` and `bff`, which compare lines of documents; what they took is in the funnel.
"""

from collections import Counter, defaultdict
from itertools import pairwise
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.scopes import KEYS
from pipeline.stages.dedupe import STAGE as DEDUPE
from pipeline.stages.near import CLUSTERS
from tools.report.blocks import Block, Cell, Chart, Section, Table, Text
from tools.report.mix.marks import BLUE, GREEN, NUMBER, ORANGE, Spec, coloured, columns, each, named, quantity
from tools.report.mix.sources import BuiltMix

METHODS = {"url": ORANGE, "exact": BLUE, "near": GREEN}
SIZES = (2, 3, 4, 5, 10, 20, 50, 100, 1_000, 10_000, 100_000, 2**63)  # a bar each: from one up to the next
WIDTH, BAR, GAP = 640, 50, 40  # px at most: of the chart, of a bar, between sizes
LARGEST = 10
ID = 100  # characters of an id in the table


class Groups(NamedTuple):
    """sizes: documents in a group → groups. largest: (size, source, id of the document that stays)."""

    sizes: Counter[int]
    largest: list[tuple[int, str, str]]


def section(mix: BuiltMix) -> Section:
    every = _groups(mix)
    found = {method: every[method] for method in METHODS if method in every and every[method].sizes}
    missing = mix.missing("duplicates")
    none = [] if found or missing else [Text("No document was dropped as the duplicate of another one.")]
    blocks: list[Block] = [_chart(found), _counts(found), _largest(found)] if found else []
    return Section("mix-duplicates", "Duplicates", [*blocks, *missing, *none])


def _groups(mix: BuiltMix) -> dict[str, Groups]:
    """By method. What several sources were compared in together counts once."""
    method_of = {column: method for method, column in KEYS.items()}
    by_key: dict[str, list[str]] = defaultdict(list)
    for folder in dict.fromkeys(folder for source in mix.sources for folder in source.units(DEDUPE.output)):
        by_key[method_of[mix.store.record(folder).unit.params["column"]]].append(folder)
    found = {method: _by_loser(mix, folders) for method, folders in by_key.items()}
    if near := list(dict.fromkeys(folder for source in mix.sources for folder in source.units(CLUSTERS.output))):
        found["near"] = _by_cluster(mix, near)
    return found


def _by_loser(mix: BuiltMix, folders: list[str]) -> Groups:
    losers = mix.table("duplicate_of_source AS source, duplicate_of AS id", [f"{folder}/duplicates.parquet" for folder in folders])
    groups = losers.group_by(["source", "id"], use_threads=False).aggregate([([], "count_all")])
    return _of(groups.append_column("size", pc.add(groups["count_all"], 1)))


def _by_cluster(mix: BuiltMix, folders: list[str]) -> Groups:
    members = mix.table("source, id, size, keeps", [f"{folder}/clusters.parquet" for folder in folders])
    return _of(members.filter(members["keeps"]))


def _of(groups: pa.Table) -> Groups:
    """groups: a row for each, of source, id and size."""
    counted = pc.value_counts(groups["size"].combine_chunks())
    sizes = Counter(dict(zip(counted.field(0).to_pylist(), counted.field(1).to_pylist(), strict=True)))
    order = groups.sort_by([("size", "descending"), ("source", "ascending"), ("id", "ascending")]).slice(0, LARGEST)
    return Groups(sizes, [(row["size"], row["source"], row["id"]) for row in order.to_pylist()])


def _chart(found: dict[str, Groups]) -> Chart:
    rows: list[list[Cell]] = []
    for low, beyond in pairwise(SIZES):
        counts = {method: sum(count for size, count in sizes.items() if low <= size < beyond) for method, (sizes, _) in found.items()}
        if any(counts.values()):
            name = f"{low:,}" if beyond == low + 1 else f"{low:,}–{beyond - 1:,}" if beyond != SIZES[-1] else f"{low:,} and more"
            rows += [[name, method, count] for method, count in counts.items()]
    size = "documents in a group"
    spec: Spec = {
        "height": 180,
        "width": min(WIDTH, len(rows) // len(found) * (GAP + BAR * len(found))),
        "encoding": {
            "x": each(size, title=size, axis={"labelAngle": 0}, scale={"paddingInner": 0.3}),
            "xOffset": {"field": "method", "sort": list(METHODS)},
            "y": quantity(
                "groups", scale={"type": "symlog"}, axis={"values": [0, *(10**power for power in range(13))], "labelExpr": NUMBER}
            ),
            "tooltip": [{"field": "method"}, {"field": size}, quantity("groups", ",d")],
        },
        "layer": [
            {"mark": "bar", "encoding": {"color": coloured("method", METHODS, found)}},
            {"mark": {"type": "text", "dy": -7, "fontSize": 10}, "encoding": {"text": quantity("groups", ",d")}},
        ],
    }
    caption = (
        "How many groups of equal or nearly equal documents there are, by the number of documents in a group. Heights are logarithmic."
    )
    return Chart("Groups by size", columns([size, "method", "groups"], rows), spec, caption)


def _counts(found: dict[str, Groups]) -> Table:
    rows: list[list[Cell]] = []
    for method, (sizes, _) in found.items():
        groups, documents = sizes.total(), sum(size * count for size, count in sizes.items())
        rows.append([method, groups, documents, documents - groups, max(sizes)])
    caption = "A group is the document that stays and those dropped for it. Methods work one after the other, each on what is left."
    return Table("Groups of duplicates", ["method", "groups", "documents in them", "dropped", "largest"], rows, caption)


def _largest(found: dict[str, Groups]) -> Table:
    every = [(-size, method, source, identity) for method, groups in found.items() for size, source, identity in groups.largest]
    rows: list[list[Cell]] = [[named(identity, ID), source, method, -size] for size, method, source, identity in sorted(every)[:LARGEST]]
    return Table("The largest groups", ["id of the document that stays", "source", "method", "documents"], rows)
