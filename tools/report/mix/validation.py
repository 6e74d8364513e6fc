"""The validation set: which share of each source's documents is held out, and how many tokens these have.

Who is held out follows from a hash of the id. The share of all hashes that lie below the source's threshold is the one to expect.
"""

import orjson

from pipeline.stages.holdout import STAGE as HOLDOUT
from tools.report.blocks import Cell, Chart, Section, Table
from tools.report.mix.marks import GREEN, columns, each, quantity
from tools.report.mix.sources import BuiltMix, BuiltSource


def section(mix: BuiltMix) -> Section:
    rows: list[list[Cell]] = []
    for source in mix.sources:
        lines = [line for line in source.funnel if (line["stage"], line["reason"]) == ("kept", "validation")]
        held, kept = sum(line["documents"] for line in lines), source.total("documents", "kept")
        tokens = sum(shard.tokens for shard in source.lock.validation)
        rows.append([source.name, held, held / kept if kept else None, _expected(mix, source), tokens])
    headings = ["source", "documents", "share of the kept", "expected share", "tokens"]
    caption = (
        "A document is held out when a hash of its id is below the source's threshold. The expected share is that of all hashes below it: "
        "the more documents a source has, the closer it is."
    )
    table = Table("Held-out documents", headings, rows, caption, shares=frozenset(headings[2:4]))
    return Section("mix-validation", "Validation set", [_chart(rows), table])


def _expected(mix: BuiltMix, source: BuiltSource) -> float | None:
    folders = source.units(HOLDOUT.output)
    return orjson.loads(mix.store.read(f"{folders[0]}/holdout.json"))["below"] / 2**64 if folders else None


def _chart(rows: list[list[Cell]]) -> Chart:
    tokens = "held-out tokens"
    spec = {
        "height": {"step": 20},
        "encoding": {
            "y": each("source"),
            "x": quantity(tokens, axis={"format": "~s", "tickCount": 6}),
            "tooltip": [{"field": "source"}, quantity(tokens, ",d")],
        },
        "layer": [
            {"mark": {"type": "bar", "color": GREEN}},
            {"mark": {"type": "text", "align": "left", "dx": 4, "fontSize": 10}, "encoding": {"text": quantity(tokens, ",d")}},
        ],
    }
    caption = "On how many tokens of each source the held-out loss is measured. None of them is trained on."
    return Chart("Held-out tokens", columns(["source", tokens], [(row[0], row[-1]) for row in rows]), spec, caption)
