"""`make mix`: strings the stages together, from a recipe to a lock-file.

Every stage hands the next one the records of its units; nothing else passes between them. What is already in the
store is found, not recomputed, so running a finished build again only looks. Besides the lock-file (the mix as others
read it) a build leaves `mixes/<mix>.build.json`: which units of which stage the mix rests on, for the catalog, for
`verify` and for whoever wants to delete what no mix needs; and `tokenizers/<sha256>.json`, the tokenizer that the lock names.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path

from pipeline import catalog, disk, published, scopes
from pipeline.config import human
from pipeline.dedupe.methods import Near
from pipeline.download import release
from pipeline.engine import Engine, Stage
from pipeline.errors import ConfigError, PipelineError
from pipeline.fetch import attribute_files, raw_files
from pipeline.mix import Lock, ShardSummary, resolve
from pipeline.progress import Progress
from pipeline.readers import RawFile
from pipeline.recipe import MIXES, Mix, Source, TokenizerSpec, load_mix, load_tokenizer
from pipeline.rules import Rules, load_rules
from pipeline.scopes import KEYS, Removed, keys
from pipeline.stages import decide, download, edit, filter, gather, holdout, prepare, read, tag, tokenize
from pipeline.store import Store
from pipeline.taggers import TAGGERS, owner_of
from pipeline.taggers.kinds import KINDS, Attribute
from pipeline.taggers.ready import Ready
from pipeline.tokenizer import dtype_for, engine_name
from pipeline.tokenizer import kept as kept_tokenizer
from pipeline.tokenizer import load as tokenizer_bytes
from pipeline.unfinished import Unfinished
from pipeline.unit import Artifact, Json, Record, Unit, sealed


@dataclass(frozen=True)
class Request:
    """What a person asked for. `store`: a folder or a URL. `data`: "sample", "hub", a folder or URL that holds `<source>/**`, or a
    release of the mix on the hub (download/release.py), which is read as it is. `tokens`: a budget for the whole training run, or
    None for the recipe's. `sources` narrows the mix; `scale` allows a smaller mix than the recipe asks for (always allowed for the
    sample, which holds a ten-millionth of the real thing); `stream` keeps no raw files of the hub."""

    mix: str
    store: Path | str
    data: str = "sample"
    tokens: int | None = None
    workers: int = os.cpu_count() or 1
    sources: tuple[str, ...] = ()
    scale: bool = False
    stream: bool = False
    recipes: Path = MIXES
    shard_tokens: int = gather.SHARD_TOKENS


@dataclass
class Built:
    """A source on its way: its declaration, rules, raw files, and each stage's records, in the order of its parts."""

    source: Source
    rules: Rules
    files: list[RawFile]
    ready: dict[str, Ready]  # its taggers and attributes, by name
    records: dict[str, list[Record]] = field(default_factory=dict)
    scope: tuple[int, Removed] = (0, Removed())  # the number of its first part in its dedupe scope, and what was removed there

    @property
    def name(self) -> str:
        return self.source.name

    def of(self, stage: Stage) -> list[Record]:
        return self.records.get(stage.output, [])

    @property
    def parts(self) -> list[Artifact]:
        return [part for record in self.of(read.STAGE) for part in record.named("part-", ".parquet")]

    @property
    def prepared(self) -> list[Artifact | None]:
        """The spans to replace in each part before anything else, if the source prepares its texts."""
        return [record.output("spans.parquet") for record in self.of(prepare.STAGE)] or [None for _ in self.parts]

    @property
    def tagged(self) -> list[dict[str, Record]]:
        """Of each part, the attributes by tagger."""
        names = [ready.tagger.name for ready in self.taggers]
        records = iter(self.of(tag.STAGE))
        return [dict(zip(names, islice(records, len(names)), strict=True)) for _ in self.parts]

    @cached_property
    def taggers(self) -> list[Ready]:
        """What its predicates, its edits and the keys of its dedupe need, by name."""
        names = {tagger.name for tagger in self.rules.taggers} | {attribute.name for attribute in self.rules.used_attributes}
        owners = {key: owner_of(key) or key for key in keys(self.source.dedupe)}
        return [self.ready[name] for name in sorted(names | set(owners.values()))]

    @property
    def editors(self) -> list[list[Artifact]]:
        """Of each part the spans that edit it, besides those that prepare it."""
        number, removed = self.scope
        return [
            [tagged[name].output("spans.parquet") for name in self.rules.edit] + removed.of_part(part)[1]
            for part, tagged in enumerate(self.tagged, number)
        ]

    @property
    def edits(self) -> bool:
        return bool(self.rules.edit or self.scope[1].spans)


def build(request: Request, progress: Progress) -> Lock:
    """Build the mix, or read its release, and return its lock. Raises PipelineError or ConfigError with place and remedy."""
    if asked := release.address(request.data, progress):
        return _released(request, asked, progress)
    mix = _narrowed(load_mix(request.mix, request.recipes), request.sources)
    spec = load_tokenizer(mix.tokenizer, request.recipes)
    loaded = {name: load_rules(name, request.recipes) for name in mix.sources}
    store = Store(request.store)
    claims = Unfinished(store, mix.name, {"data": request.data, "sources": request.sources, "tokens": request.tokens})
    with store.lock(progress.say), disk.explained(store.place, mix.name), Engine(store, request.workers, progress, claims) as engine:
        tokenizer: dict[str, Json] = {"name": spec.name, "sha256": spec.sha256, "eos": spec.eos, "vocab_size": spec.vocab_size}
        if engine_name() == "tokenizers":
            progress.say("gigatoken is not installed here: tokenizing with Hugging Face tokenizers, 30 to 60 times slower")
        sources = {name: source for name, (source, _) in loaded.items()}
        raw, tokenizer_path = raw_files(mix, sources, spec, request.data, request.tokens, engine, request.stream)
        _keep_tokenizer(store, spec, tokenizer_path)
        built = [Built(sources[name], loaded[name][1], files, {}) for name, files in raw.items()]
        for b in built:
            b.ready = _ready(b, store, progress)

        _run(engine, read.STAGE, built, lambda b: read.units(b.name, b.files, b.source.fields))
        _check_failures(built, store)
        tag_documents(engine, built, tokenizer)
        _run(engine, filter.STAGE, built, _filter_units)
        _run(engine, holdout.STAGE, built, lambda b: [holdout.unit(b.name, b.source.validation, b.of(filter.STAGE))])
        _remove_duplicates(engine, built, across=mix.dedupe_across)
        _run(engine, edit.STAGE, built, _edit_units)
        _run(engine, decide.STAGE, built, _decide_units)
        _run(
            engine, gather.STAGE, built,
            lambda b: gather.units(b.name, b.of(tokenize.STAGE), b.of(decide.STAGE), b.of(edit.STAGE), tokenizer, request.shard_tokens),
        )  # fmt: skip

        lock = resolve(
            mix,
            {b.name: _shards(b, "train") for b in built},
            {b.name: _shards(b, "validation") for b in built},
            {**tokenizer, "dtype": dtype_for(spec.vocab_size).name},
            tokens=request.tokens,
            scale=request.scale or request.data == "sample",
        )
        store.write(f"mixes/{mix.name}.lock.json", lock.to_json())
        manifest = _manifest(mix, built, request, catalog.next_order(store, mix.name))
        store.write(f"mixes/{mix.name}.build.json", sealed(manifest))
        claims.end()
        catalog.write(store, mix.name, engine.computed)
    _announce(lock, mix, built, request, progress)
    if request.data == "hub":
        _compare_with_published(built, store, progress)
    return lock


def _released(request: Request, asked: release.Address, progress: Progress) -> Lock:
    given = {"SOURCES": request.sources, "SCALE": request.scale, "STREAM": request.stream}
    if unfit := [name for name, value in given.items() if value]:
        raise ConfigError(f"DATA={asked} is a release, which is read as it is: leave out {' and '.join(unfit)}")
    return release.read(Store(request.store), request.mix, asked, request.tokens, progress)


def _keep_tokenizer(store: Store, spec: TokenizerSpec, fetched: Path) -> None:
    """A copy at tokenizers/<sha256>.json, so that whoever has a lock-file finds the tokenizer it names in the store."""
    kept = kept_tokenizer(spec.sha256)
    try:
        whole = hashlib.sha256(store.read(kept)).hexdigest() == spec.sha256
    except FileNotFoundError:
        whole = False
    if not whole:
        store.write(kept, tokenizer_bytes(str(fetched), spec.sha256))


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


def _compare_with_published(built: list[Built], store: Store, progress: Progress) -> None:
    outcomes = [published.outcome(b.source, b.files, _funnel(b), store) for b in built]
    progress.console.print(published.table(outcomes))
    for line in published.warnings(outcomes):
        progress.say(line)


def tag_documents(engine: Engine, built: list[Built], tokenizer: dict[str, Json]) -> None:
    """From documents to attributes, with what comes between."""
    _run(engine, prepare.STAGE, built, _prepare_units)
    _run(
        engine,
        tokenize.STAGE,
        built,
        lambda b: [tokenize.unit(b.name, *texts, tokenizer) for texts in zip(b.parts, b.prepared, strict=True)],
    )
    _run(engine, tag.STAGE, built, _tag_units)


def _run(engine: Engine, stage: Stage, built: list[Built], units_of: Callable[[Built], list[Unit]]) -> None:
    """One stage of all sources at once, so that workers are never idle while a source has work."""
    units = [units_of(b) for b in built]
    records = iter(engine.run(stage, [unit for group in units for unit in group]))
    for b, group in zip(built, units, strict=True):
        b.records[stage.output] = list(islice(records, len(group)))


def _ready(b: Built, store: Store, progress: Progress) -> dict[str, Ready]:
    """The taggers that a source uses, with their files at hand."""
    names = {*b.rules.prepare, *(tagger.name for tagger in b.rules.taggers), *(owner_of(key) or "" for key in keys(b.source.dedupe))}
    attributes = [*b.rules.used_attributes, *(b.rules.attributes[name] for name in b.rules.prepare if name in b.rules.attributes)]
    files = attribute_files(attributes, store, progress)
    near = [Attribute(KEYS["near"], KINDS["minhash"], step, Path()) for step in b.source.dedupe if isinstance(step, Near)]
    configured = {a.name: Ready.configured(a, files.get(a.name, {}), store) for a in [*attributes, *near]}
    return {name: Ready.plain(TAGGERS[name]) for name in names & TAGGERS.keys()} | configured


def _prepare_units(b: Built) -> list[Unit]:
    editors = [b.ready[name] for name in b.rules.prepare]
    return [prepare.unit(b.name, part, editors) for part in b.parts] if editors else []


def _tag_units(b: Built) -> list[Unit]:
    each = zip(b.parts, b.prepared, b.of(tokenize.STAGE), strict=True)
    return [tag.unit(b.name, part, prepared, tokens, ready) for part, prepared, tokens in each for ready in b.taggers]


def _filter_units(b: Built) -> list[Unit]:
    each = zip(b.of(tokenize.STAGE), b.tagged, strict=True)
    return [filter.unit(b.name, b.rules.drop, keys(b.source.dedupe), rows, list(tagged.values())) for rows, tagged in each]


def _remove_duplicates(engine: Engine, built: list[Built], across: bool) -> None:
    sources = []
    for b in built:
        each = zip(b.parts, b.prepared, b.editors, strict=True)
        texts = [(part, tuple(spans for spans in (prepared, *editors) if spans)) for part, prepared, editors in each]
        sources.append(scopes.Source(b.name, b.source.dedupe, b.of(filter.STAGE), texts))
    found = scopes.remove_duplicates(engine, sources, across)
    for b in built:
        if b.name in found:
            b.scope = found[b.name]
            b.records |= b.scope[1].records


def _edit_units(b: Built) -> list[Unit]:
    if not b.edits:
        return []
    each = zip(b.parts, b.of(filter.STAGE), b.prepared, b.editors, b.of(tokenize.STAGE), strict=True)
    return [
        edit.unit(b.name, part, filtered.output("survivors.parquet"), prepared, editors, tokens)
        for part, filtered, prepared, editors, tokens in each
    ]


def _decide_units(b: Built) -> list[Unit]:
    held = b.of(holdout.STAGE)[0]
    number, removed = b.scope
    edited: Sequence[Record | None] = b.of(edit.STAGE) or [None for _ in b.parts]
    each = enumerate(zip(b.of(tokenize.STAGE), b.of(filter.STAGE), edited, strict=True), number)
    return [decide.unit(b.name, rows, filtered, held, part, removed.of_part(part)[0], edits) for part, (rows, filtered, edits) in each]


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


def _downloads(b: Built) -> dict[str, list[str]]:
    """The folders of the raw files that this store downloaded; they may be removed, since nothing reads them again."""
    within = f"{download.STAGE.output}/{b.name}/"
    folders = sorted({file.path.rpartition("/")[0] for file in b.files if file.path.startswith(within)})
    return {download.STAGE.output: folders} if folders else {}


def _manifest(mix: Mix, built: list[Built], request: Request, order: int) -> dict[str, Json]:
    """What the mix rests on, for the catalog and for `verify`. `order`: mixes with a higher one were built later."""
    return {
        "mix": mix.name,
        "order": order,
        "data": request.data,
        "sources": {
            b.name: {
                "title": b.source.title,
                "origin": sorted({file.origin or "" for file in b.files}),
                "licence": sorted({file.licence or b.source.licence for file in b.files}),
                "revision": (b.files[0].origin or "").rpartition("@")[2] if request.data == "hub" else None,
                "files": len(b.files),
                "raw_bytes": sum(file.bytes for file in b.files),
                "raw": [[file.path, file.sha256, file.bytes] for file in b.files],
                "units": _downloads(b) | {stage: [record.unit.folder for record in records] for stage, records in b.records.items()},
                "taggers": [ready.tagger.name for ready in b.taggers],
                "first_part": b.scope[0],
                "drop": dict(b.rules.drop),
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
