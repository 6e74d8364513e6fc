"""How long documents are, and how many bytes a token stands for: of the documents that are kept, by source.

In: the ledgers of the mix's shards. A document's tokens are those that lie in the shards, its closing one included; its bytes those of its
text as it was read, so that a source that edits texts shows some bytes per token too many for the edited ones. The means are of the shards.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tools.report.blocks import Block, Cell, Section, Table, Text
from tools.report.mix.histograms import Bins, Row, chart, decades
from tools.report.mix.sources import BuiltMix, BuiltSource

SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)
QUANTILES = ["5%", "25%", "median", "75%", "95%"]
HIGHEST = 12.0  # bytes per token; the last bin has what is above, too


class Kept(NamedTuple):
    """[documents] each: of the kept documents of a source whose rows are read."""

    tokens: npt.NDArray[np.int64]
    bytes: npt.NDArray[np.int64]


def section(mix: BuiltMix) -> Section:
    kept = {source: _kept(mix, source) for source in mix.sources}
    kept = {source: found for source, found in kept.items() if len(found.tokens)}
    blocks = [*_lengths(mix, kept), *_bytes_per_token(kept)] if kept else [Text("No document is kept.")]
    return Section("mix-lengths", "Document lengths and bytes per token", blocks, _sampled(mix))


def _sampled(mix: BuiltMix) -> str:
    names = ", ".join(source.name for source in mix.sampled())
    return f"Drawn from a part of the documents, evenly spread, of the largest sources: {names}." if names else ""


def _kept(mix: BuiltMix, source: BuiltSource) -> Kept:
    ledgers = source.spread([f"{folder}/ledger.parquet" for folder in source.units("shards")])
    if not ledgers:
        return Kept(np.empty(0, np.int64), np.empty(0, np.int64))
    table = mix.table("kept, tokens, bytes", ledgers)
    kept = table["kept"].to_numpy()
    return Kept(table["tokens"].to_numpy()[kept], table["bytes"].to_numpy()[kept])


def _lengths(mix: BuiltMix, kept: dict[BuiltSource, Kept]) -> list[Block]:
    most = max(int(found.tokens.max()) for found in kept.values())
    scale = Bins(np.array(decades(1, most, whole=True)), 1, most, whole=True, logarithmic=True)
    length = float(mix.lock.sequence_length)
    labels = [f"an instance: {mix.lock.sequence_length:,}"] + [""] * (len(kept) - 1)  # once is enough
    rows = [
        Row(source.name, scale.counts(found.tokens), lines=[(length, label)] if length < scale.edges[-1] else ())
        for (source, found), label in zip(kept.items(), labels, strict=True)
    ]
    drawn = chart(
        "Tokens per document",
        "A row for each source: how many of its kept documents have so many tokens. The axis is logarithmic; the dashed line "
        "is the length of a training instance, into which short documents are packed and at whose end long ones are cut.",
        "tokens per document", scale, rows, "linear",
    )  # fmt: skip
    lines: list[list[Cell]] = [
        [source.name, len(found.tokens), float(found.tokens.mean()), *map(int, np.quantile(found.tokens, SHARES)), int(found.tokens.max())]
        for source, found in kept.items()
    ]
    headings = ["source", "documents", "mean", *QUANTILES, "longest"]
    return [
        drawn,
        Table("Tokens per document, in numbers", headings, lines, "Kept documents; 5% of them have at most so many tokens, and so on."),
    ]


def _bytes_per_token(kept: dict[BuiltSource, Kept]) -> list[Block]:
    ratios = {source: found.bytes / found.tokens for source, found in kept.items()}
    most = max(float(values.max()) for values in ratios.values())
    scale = Bins(np.arange(0, HIGHEST + 0.25, 0.25), 0.0, most, whole=False)
    drawn = chart(
        "Bytes per token",
        "A row for each source: how many bytes of text a token stands for, on average in a document. Much below the others: text that the "
        "tokenizer does not know well, such as numbers, formulas or another script. The last bar has all above it.",
        "bytes per token", scale, [Row(source.name, scale.counts(values)) for source, values in ratios.items()], "linear",
    )  # fmt: skip
    lines: list[list[Cell]] = [
        [source.name, _mean(source), *(round(float(value), 2) for value in np.quantile(values, SHARES))]
        for source, values in ratios.items()
    ]
    caption = "mean: all bytes of the kept text over all its tokens; the others are of documents."
    return [drawn, Table("Bytes per token, in numbers", ["source", "mean", *QUANTILES], lines, caption)]


def _mean(source: BuiltSource) -> float | None:
    tokens = source.total("tokens", "kept")
    return source.total("bytes", "kept") / tokens if tokens else None
