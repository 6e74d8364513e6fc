"""What the mix is, and its sources' shares as the recipe asks for them beside what it obtained."""

from pipeline.config import human
from tools.report.blocks import Block, Cell, Chart, Section, Table, Text
from tools.report.mix.marks import BLUE, GREY, Spec, coloured, columns, each, quantity
from tools.report.mix.sources import BuiltMix

WIDTHS = 320, 180  # px of the chart's two halves
ROW_HEIGHT = 30
COLOURS = {"requested": GREY, "obtained": BLUE}
BANDS = {"paddingInner": 0.25, "paddingOuter": 0.12}


def facts(mix: BuiltMix) -> Section:
    lock = mix.lock
    tokens = lock.instances * lock.sequence_length
    asked = int(lock.recipe["tokens"]) if lock.recipe.get("tokens") else None
    kept, read = (sum(source.total("documents", *stages) for source in mix.sources) for stages in (["kept"], []))
    shards = [shard for source in lock.sources for shard in (*source.shards, *source.validation)]
    rows: list[list[Cell]] = [
        ["description", str(lock.recipe.get("description", ""))],
        ["the run", f"{lock.instances:,} instances of {lock.sequence_length:,} tokens: {tokens:,} tokens"],
        ["passes over the mix", f"{lock.instances / lock.pool:.4g}, of {lock.pool:,} instances each"],
        ["asked for", f"{human(asked)} tokens" if asked else "all there is"],
        ["raw data", f"DATA={mix.manifest.get('data')}"],
        ["documents", f"{kept:,} kept of {read:,}"],
        ["shards", f"{len(shards):,}, of {sum(shard.tokens for shard in shards):,} tokens ({lock.tokenizer.dtype})"],
        ["tokenizer", f"{lock.tokenizer.name}, {lock.tokenizer.vocab_size:,} ids, sha256 {lock.tokenizer.sha256}"],
        ["seed of the order", str(lock.seed)],
        ["fingerprint of the order", lock.fingerprint],
    ]
    blocks: list[Block] = [Table("The mix in short", ["", "value"], rows)]
    if asked and tokens <= asked - lock.sequence_length:
        given = f"The run has {human(tokens)} of the {human(asked)} tokens that the recipe asks for"
        blocks.append(Text(f"{given}: it was scaled to the supply, or TOKENS= was given."))
    return Section("mix-facts", "In short", blocks)


def section(mix: BuiltMix) -> Section:
    return Section("mix-shares", "Requested beside obtained", [_chart(mix), _table(mix)])


def _chart(mix: BuiltMix) -> Chart:
    rows: list[list[Cell]] = []
    for source in mix.lock.sources:
        requested, obtained = source.requested_share, source.obtained_share
        off = round(obtained / requested - 1, 3) + 0.0 if requested else None  # + 0.0: no negative zero
        rows += [[source.name, "requested", requested, off], [source.name, "obtained", obtained, off]]
    caption = (
        "Left: each source's share of the training instances, as the recipe asks for it and as the mix has it. Right: how far the "
        "obtained one is off, relative to the requested one. Instances are whole, so small sources of small mixes are off by some per cent."
    )
    spec = _spec(ROW_HEIGHT * len(mix.lock.sources))
    return Chart("Requested beside obtained", columns(["source", "of the instances", "share", "off by"], rows), spec, caption)


def _spec(height: int) -> Spec:
    kinds = list(COLOURS)
    tooltip = [{"field": "source"}, {"field": "of the instances"}, quantity("share", ".4%"), quantity("off by", "+.1%")]
    left = {
        "width": WIDTHS[0],
        "height": height,
        "encoding": {
            "y": each("source", scale=BANDS),
            "yOffset": {"field": "of the instances", "sort": kinds},
            "x": quantity("share", title="share of the instances", axis={"format": "%"}),
            "tooltip": tooltip,
        },
        "layer": [
            {"mark": "bar", "encoding": {"color": coloured("of the instances", COLOURS, kinds)}},
            {"mark": {"type": "text", "align": "left", "dx": 3, "fontSize": 9}, "encoding": {"text": quantity("share", ".2%")}},
        ],
    }
    beyond = {
        name: {"expr": f"datum['off by'] < 0 ? {below} : {above}"} for name, below, above in (("align", "'right'", "'left'"), ("dx", -3, 3))
    }
    right = {
        "width": WIDTHS[1],
        "height": height,
        "transform": [{"filter": {"field": "of the instances", "equal": "obtained"}}],
        "encoding": {
            "y": each("source", scale=BANDS, axis={"labels": False, "ticks": False}),
            # padding: room for the numbers beside the bars
            "x": quantity("off by", title="obtained, off by", axis={"format": "+%", "tickCount": 4}, scale={"padding": 40, "nice": False}),
            "tooltip": tooltip,
        },
        "layer": [
            {"mark": {"type": "bar", "color": COLOURS["obtained"], "height": {"band": 0.55}}},
            {"mark": {"type": "text", "fontSize": 9, **beyond}, "encoding": {"text": quantity("off by", "+.1%")}},
        ],
    }
    return {"hconcat": [left, right], "spacing": 12, "resolve": {"scale": {"y": "independent"}}}


def _table(mix: BuiltMix) -> Table:
    length, sources = mix.lock.sequence_length, mix.lock.sources
    rows: list[list[Cell]] = [
        [s.name, s.requested_share, s.obtained_share, s.repeats, s.instances * length, s.documents, s.instances] for s in sources
    ]
    shares = [sum(s.requested_share for s in sources), sum(s.obtained_share for s in sources)]
    instances = sum(s.instances for s in sources)
    rows.append(["total", *shares, None, instances * length, sum(s.documents for s in sources), instances])
    caption = (
        "requested, obtained: shares of the instances. repeats: how often the run reads each instance of the source. tokens, instances: of "
        "the whole run. documents: in the source's training shards."
    )
    headings = ["source", *COLOURS, "repeats", "tokens", "documents", "instances"]
    return Table("Shares", headings, rows, caption, shares=frozenset(COLOURS))
