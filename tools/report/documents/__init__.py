"""The documents: of every reason samples from both sides, with what decided about them marked in their texts.

In: a mix that was built in a store. Out: the part of the page. Its samples take at most `BUDGET` bytes of the page, however many sources,
reasons and documents there are: every reason's first sample of each side goes before any second one. Equal stores give equal samples.
Cost: some 8 s of CPU per million documents to choose them (samples.py), then 8 MB of text read and 10 ms for each (texts.py, evidence/).
Not: the page's search and filters, which are documents.js.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import duckdb
import orjson

from pipeline import catalog
from pipeline.release import absent, is_released
from pipeline.sql import quoted_list
from pipeline.store import Store
from pipeline.taggers.code import files
from pipeline.unit import Json
from tools.report.blocks import Documents, Part, Section, Table, Text
from tools.report.documents import sources, texts
from tools.report.documents.evidence import Witness
from tools.report.documents.evidence.text import Text as Evident
from tools.report.documents.excerpt import excerpt, visible
from tools.report.documents.margins import first_match, patterns
from tools.report.documents.samples import Sample, Value, choose
from tools.report.documents.sources import Place, Source

BUDGET = 1_300_000  # bytes of the page
RECORD = 1_600  # bytes of a record as one expects it
MOST_SAMPLES = 8  # of a reason and a side
LEAST_TEXT, MOST_TEXT = 320, 2_000  # bytes of a sample's text
MOST_RULE, MOST_VALUE, MOST_NAME = 400, 200, 300  # characters
MOST_OTHERS = 6
MARKUP = ("html", "markdown", "restructuredtext", "tex")
MOST_FAILURES = 40

INTRO = (
    "What each rule does to real documents: some of those that it dropped, those that it dropped or passed most narrowly, and those that "
    "it edited. What decided is marked in the text. A rule that only says yes or no has no narrow side; beside what it dropped are some "
    "that passed. The samples are drawn by a hash, so that the same mix always shows the same ones."
)


def part(store: Store, connection: duckdb.DuckDBPyConnection, mix: str) -> Part:
    """connection: to the catalog. Raises ConfigError when the mix has not been built in this store, PipelineError when it is damaged."""
    manifest = catalog.read_manifest(store, mix)
    names = [name for (name,) in connection.execute("SELECT source FROM mixes WHERE mix = ?", [mix]).fetchall()]
    entries = {name: manifest["sources"][name] for name in names}
    released = {name: entry for name, entry in entries.items() if is_released(entry)}
    read = {name: sources.source(store, name, entry) for name, entry in entries.items() if name not in released}
    notes = [Text(f"{absent(released, 'no texts of documents')}.")] if released else []
    notes += [Text(_partly(source)) for source in read.values() if not source.is_whole]
    samples = _chosen(store, read)
    records = list(_within_budget(_records(store, read, samples)))
    if len(records) < len(samples):
        notes.append(Text(f"{len(samples) - len(records):,} of {len(samples):,} samples are left out, to keep the page small."))
    return Part(
        "documents", "The documents",
        [
            Section("documents-samples", "Samples from both sides of every rule", [*notes, Documents("Samples", records)], intro=INTRO),
            Section("documents-rules", "The rules", [_rules(read.values(), records)], folded=True),
            Section("documents-failures", "Records that could not be read", [_failures(store, read.values())], folded=True),
        ],
    )  # fmt: skip


def _partly(source: Source) -> str:
    return f"{source.name}: samples are from {len(source.parts):,} of its {len(source.units['tokens']):,} parts, taken from all over it."


def _chosen(store: Store, read: Mapping[str, Source]) -> list[Sample]:
    sides = sum(3 * len(source.rules) + 4 for source in read.values())
    count = max(1, min(MOST_SAMPLES, BUDGET // (RECORD * max(sides, 1))))
    samples = []
    for source in read.values():
        with sources.tables(store, source) as connection:
            samples += choose(connection, source, count)
    return samples


def _records(store: Store, read: Mapping[str, Source], samples: Sequence[Sample]) -> list[tuple[Sample, dict[str, Json]]]:
    """In the order of the samples."""
    limit = max(LEAST_TEXT, min(MOST_TEXT, BUDGET // max(len(samples), 1) - 600))
    witness = Witness(store, read, _twins(store, read, samples))
    at: dict[Place, list[int]] = defaultdict(list)
    for number, sample in enumerate(samples):
        at[sample.place].append(number)
    records = {}
    for document in texts.documents(store, read, at):
        text = Evident(document)
        for number in at[document.place]:
            records[number] = samples[number], _record(samples[number], text, witness, limit)
    return [records[number] for number in sorted(records)]


def _twins(store: Store, read: Mapping[str, Source], samples: Iterable[Sample]) -> dict[tuple[str, str], texts.Document]:
    ids: dict[str, list[str]] = defaultdict(list)
    for sample in samples:
        if sample.twin and sample.twin.source in read:
            ids[sample.twin.source].append(sample.twin.id)
    places = [place for name, wanted in ids.items() for place in texts.places(store, read[name], wanted).values()]
    return {(document.place.source, document.id): document for document in texts.documents(store, read, places)}


def _record(sample: Sample, text: Evident, witness: Witness, limit: int) -> dict[str, Json]:
    """What documents.js reads: `text` and `twin.text` are segments, `legend` their marks (excerpt.py); `values` are column, value as
    segments, and limits. Whatever is empty is left out."""
    evidence = witness.of(sample, text)
    twin = evidence.twin
    room = limit if twin is None else max(LEAST_TEXT, limit * 3 // 4)
    shown = excerpt(evidence.text, evidence.marks, room, about=sample.reason)
    record = {
        "source": sample.place.source, "reason": sample.reason, "side": sample.side, "id": _short(sample.id), "file": _short(sample.file),
        "row": sample.row, "bytes": sample.bytes, "tokens": sample.tokens, "text": shown.segments, "legend": shown.legend,
        "code": _is_code(text),
        "rule": _spelled(sample.rule),
        "values": [_value(sample.rule, value) for value in sample.values],
        "also": _others(sample),
        "first": sample.dropped_by if not sample.kept and sample.dropped_by != sample.reason else None,
        "notes": [visible(note) for note in evidence.notes],
        "twin": twin and {
            "source": twin.place.source, "id": _short(twin.id), "file": _short(twin.file), "row": twin.row, "bytes": len(twin.read),
            "text": excerpt(twin.text, evidence.twin_marks, room).segments,
        },
    }  # fmt: skip
    return {name: value for name, value in record.items() if value or name in ("row", "bytes", "tokens", "text")}


def _is_code(text: Evident) -> bool:
    """A source file: pages and papers that were read out of markup are prose."""
    language = files(text.batch)["code_language"][0].as_py()
    return bool(language) and (language not in MARKUP or text.string.lstrip().startswith("<"))


def _others(sample: Sample) -> list[str]:
    """The other rules that hold, as many as one can read."""
    others = [reason for reason in sample.reasons if reason not in (sample.reason, sample.dropped_by)]
    return others if len(others) <= MOST_OTHERS else [*others[:MOST_OTHERS], f"and {len(others) - MOST_OTHERS} more"]


def _value(rule: str, value: Value) -> list[Json]:
    """Column, its value as segments, what a pattern of the rule finds in it being marked, and what it is compared with."""
    limits = " or ".join(f"{symbol} {_number(limit)}" for symbol, limit in dict.fromkeys(value.limits))
    whole = _number(value.value)
    sought = [pattern for pattern in patterns(rule) if pattern.column == value.column] if rule else []
    match = next(filter(None, (first_match(pattern, whole) for pattern in sought)), "")
    if not match:
        return [value.column, [_cut(visible(whole), MOST_VALUE)], limits]
    before, _, after = whole.partition(match)
    segments = [visible(before[-MOST_VALUE:]), [0, visible(match[:MOST_VALUE])], visible(after[:MOST_VALUE])]
    return [value.column, [each for each in segments if each], limits]


def _number(value: Json) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _spelled(rule: str) -> str:
    return _cut(visible(" ".join(rule.split())), MOST_RULE)


def _short(name: str) -> str:
    return _cut(visible(name), MOST_NAME)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _within_budget(records: Sequence[tuple[Sample, dict[str, Json]]]) -> Iterator[dict[str, Json]]:
    """Every side's first sample before any side's second, as many as there is room for; in the order in which they come."""
    left, kept = BUDGET, set()
    for number, (_, record) in sorted(enumerate(records), key=lambda each: (each[1][0].rank, each[0])):
        left -= _size(record)
        if left >= 0:
            kept.add(number)
    return (record for number, (_, record) in enumerate(records) if number in kept)


def _size(record: Mapping[str, Json]) -> int:
    """In the page, where `<`, `>` and `&` are written as escapes."""
    text = orjson.dumps(record)
    return len(text) + 1 + 5 * sum(map(text.count, (b"<", b">", b"&")))


def _rules(read: Iterable[Source], records: Sequence[Mapping[str, Json]]) -> Table:
    shown = Counter((record["source"], record["reason"]) for record in records)
    rows = []
    for source in read:
        funnel = {(line["stage"], line["reason"]): line["documents"] for line in source.entry["funnel"]}
        whole = sum(funnel.values())
        reasons = [
            *(("filter", reason) for reason in source.rules),
            *(key for key in funnel if key[0] not in ("filter", "kept", "prepare")),
        ]
        for stage, reason in reasons:
            if reason != "removed_text":
                dropped = funnel.get((stage, reason), 0)
                rule = _cut(" ".join(source.rules.get(reason, "").split()), MOST_RULE)
                rows.append(
                    [source.name, reason, rule or f"({stage})", dropped, dropped / whole if whole else None, shown[source.name, reason]]
                )
    caption = "A document that several rules drop is counted with the first. Samples: of all sides, on this page."
    return Table("Rules", ["source", "reason", "rule", "dropped", "share", "samples"], rows, caption, shares=frozenset({"share"}))


def _failures(store: Store, read: Iterable[Source]) -> Table:
    rows: list[list[Json]] = []
    with duckdb.connect(":memory:") as connection:
        store.mount(connection)
        for source in read:
            if sum(source.entry["failed"].values()):
                folders = sorted({part.documents.path.rpartition("/")[0] for part in source.parts})
                tables = quoted_list(store.url(f"{folder}/failures.parquet") for folder in folders)
                drawn = f"read_parquet({tables}) ORDER BY md5(concat_ws(' ', file, row)) LIMIT {MOST_FAILURES}"
                found = connection.execute(f"SELECT file, row, reason, detail FROM {drawn}").fetchall()
                rows += [[source.name, _short(file), row, _short(reason), _short(detail or "")] for file, row, reason, detail in found]
    caption = "Counted against the source's failure budget, and named in `failures`." if rows else "There are none."
    return Table("Failures", ["source", "file", "row", "reason", "detail"], rows[: 5 * MOST_FAILURES], caption)
