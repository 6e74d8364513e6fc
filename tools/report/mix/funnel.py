"""From raw bytes to tokens: what became of all that was read, source by source and reason by reason.

In: the funnel of each source as its build counted it, in which documents and bytes add up to what was read. Out: one chart of all sources
by stage, one chart per source whose bars descend from the raw files to the training text, a reason at a time, and all of it as a table.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from pipeline.unit import Json
from tools.report.blocks import Block, Cell, Chart, Section, Table
from tools.report.mix import marks
from tools.report.mix.sources import BuiltMix, BuiltSource

STAGES = ("prepare", "tokenize", "filter", "dedupe", "edit")  # in the order in which they take text away
RAW, READ, TAKEN, HELD_OUT, KEPT = "raw files", "text read", "taken away", "held out", "kept for training"
KINDS = {RAW: marks.GREY, READ: marks.TEAL, TAKEN: marks.RED, HELD_OUT: marks.GREEN, KEPT: marks.BLUE}
FATES = {
    KEPT: marks.BLUE, HELD_OUT: marks.GREEN, "duplicates": marks.PURPLE, "dropped by rules": marks.RED, "cut by edits": marks.ORANGE,
    "prepared away": marks.YELLOW, "empty": marks.GREY,
}  # fmt: skip
FATE_OF = {"prepare": "prepared away", "tokenize": "empty", "filter": "dropped by rules", "dedupe": "duplicates", "edit": "cut by edits"}
SPLITS = {"validation": HELD_OUT, "train": KEPT}
WIDTH, ROW_HEIGHT = 310, 19  # px of the bars; what they say in words stands to their right
RAW_LENGTH = 1.25  # times the text read: as long as the bar of the raw files is drawn at most


class Step(NamedTuple):
    """A bar, `first` to `last` bytes, and what it stands for."""

    name: str
    kind: str
    first: int
    last: int
    documents: int | None
    tokens: int | None
    words: str


def section(mix: BuiltMix) -> Section:
    sources = [source for source in mix.sources if source.funnel]
    blocks: list[Block] = [_fates(sources), *(_waterfall(mix, source) for source in sources), _table(mix, sources)]
    intro = "Every document that was read is either in a shard or dropped by a named reason; the books of each source balance to the byte."
    return Section("mix-funnel", "From raw bytes to tokens", blocks, intro)


def _fates(sources: list[BuiltSource]) -> Chart:
    rows: list[list[Cell]] = []
    for source in sources:
        for place, fate in enumerate(FATES):
            lines = [line for line in source.funnel if _fate(line["stage"], line["reason"]) == fate]
            if lines:
                size = sum(line["bytes"] for line in lines)
                rows.append(
                    [source.name, place, fate, size / max(source.total("bytes"), 1), size / 1e6, sum(line["documents"] for line in lines)]
                )
    share = "share of the text"
    spec: marks.Spec = {
        "height": {"step": 26},
        "mark": "bar",
        "encoding": {
            "y": marks.each("source"),
            "x": marks.quantity(
                share, title="share of the bytes of text read", stack="zero", axis={"format": "%"}, scale={"domain": [0, 1]}
            ),
            "color": marks.coloured("fate", FATES, [row[2] for row in rows], columns=5),
            "order": marks.quantity("order"),
            "tooltip": [
                {"field": "source"},
                {"field": "fate"},
                marks.quantity(share, ".3%"),
                marks.quantity("MB", ",.3f"),
                marks.quantity("documents", ",d"),
            ],
        },
    }
    caption = "What became of the text of each source that was read, in bytes. The charts below tell it reason by reason."
    return Chart("What became of the text", marks.columns(["source", "order", "fate", share, "MB", "documents"], rows), spec, caption)


def _fate(stage: str, reason: str) -> str:
    return SPLITS[reason] if stage == "kept" else FATE_OF.get(stage, "dropped by rules")  # a release may be of another version


def _waterfall(mix: BuiltMix, source: BuiltSource) -> Chart:
    steps = list(_steps(mix, source))
    longest = RAW_LENGTH * source.total("bytes") / 1e6
    cut = 0 < longest < max(step.last for step in steps) / 1e6
    rows = [[marks.named(s.name), s.kind, s.first / 1e6, s.last / 1e6, s.documents, s.tokens, s.words] for s in steps]
    scale = {"domain": [0, longest], "nice": False} if cut else {}
    spec: marks.Spec = {
        "width": WIDTH,
        "height": {"step": ROW_HEIGHT},
        "encoding": {"y": marks.each("step", axis={"labelLimit": 230}), "tooltip": [{"field": "step"}, {"field": "in words"}]},
        "layer": [
            {
                "mark": {"type": "bar", "clip": True, "height": {"band": 0.72}},
                "encoding": {
                    "x": marks.quantity("from MB", title="MB", axis={"tickCount": 5}, scale=scale),
                    "x2": {"field": "to MB"},
                    "color": marks.coloured("what", KINDS, [step.kind for step in steps]),
                },
            },
            marks.at_right("in words"),
        ],
    }
    caption = "From the raw files, which may be packed, to the text that is trained on: each bar begins where the last one ended."
    return Chart(
        f"{source.name}: from raw files to tokens",
        marks.columns(["step", "what", "from MB", "to MB", "documents", "tokens", "in words"], rows),
        spec,
        caption + (" The raw files' bar is cut at the right." if cut else ""),
    )


def _steps(mix: BuiltMix, source: BuiltSource) -> Iterator[Step]:
    raw, read, left = source.entry.get("raw_bytes", 0), source.total("documents"), source.total("bytes")
    whole = max(left, 1)
    yield Step(RAW, RAW, 0, raw, None, None, f"{_size(raw)} in {_count(source.entry.get('files', 0), 'file')}")
    yield Step(READ, READ, 0, left, read, None, f"{_size(left)}, {_count(read, 'document')}")
    for reason, count in source.entry.get("failed", {}).items():
        yield Step(f"failed: {reason}", TAKEN, left, left, count, None, f"{_count(count, 'record')} that could not be read")
    for line in _taken(mix, source):
        size, count = line["bytes"], line["documents"]
        words = [f"−{_size(size)} ({size / whole:.2%})"] * (size > 0) + [_count(count, "document")] * (count > 0)
        yield Step(line["reason"], TAKEN, left - size, left, count, line["tokens"], ", ".join(words))
        left -= size
    for reason, kind in SPLITS.items():
        for line in source.funnel:
            if (line["stage"], line["reason"]) == ("kept", reason):
                size, documents, tokens = line["bytes"], line["documents"], line["tokens"]
                words = [_size(size), _count(documents, "document"), _count(tokens, "token")]
                yield Step(kind, kind, left - size, left, documents, tokens, ", ".join(words))
                left -= size


def _taken(mix: BuiltMix, source: BuiltSource) -> list[Mapping[str, Json]]:
    """The funnel's lines that take something away, in the order in which that happens."""
    blame = {reason: place for place, reason in enumerate(mix.blame(source))}
    taken = [line for line in source.funnel if line["stage"] != "kept"]
    stages = {stage: place for place, stage in enumerate(STAGES)}
    return sorted(taken, key=lambda line: (stages.get(line["stage"], len(stages)), blame.get(line["reason"], len(blame)), line["reason"]))


def _table(mix: BuiltMix, sources: list[BuiltSource]) -> Table:
    rows: list[list[Cell]] = []
    for source in sources:
        read, size = source.total("documents"), source.total("bytes")
        rows.append([source.name, "read", "read", read, size, source.total("tokens"), 1.0, 1.0])
        failed = source.entry.get("failed", {}).items()
        rows += [[source.name, "read", f"failed: {reason}", count, None, None, None, None] for reason, count in failed]
        for line in [*_taken(mix, source), *(line for line in source.funnel if line["stage"] == "kept")]:
            shares = line["documents"] / max(read, 1), line["bytes"] / max(size, 1)
            rows.append([source.name, line["stage"], line["reason"], line["documents"], line["bytes"], line["tokens"], *shares])
    headings = ["source", "stage", "reason", "documents", "bytes", "tokens", "of the documents", "of the bytes"]
    caption = (
        "Every reason, in order. Lines of removed_text take text out of documents that stay, so they count no documents; a failed record "
        "never became a document."
    )
    return Table("Every reason", headings, rows, caption, shares=frozenset(headings[-2:]))


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"


def _size(size: int) -> str:
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.3g} {unit}"
    return _count(size, "byte")
