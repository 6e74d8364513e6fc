"""What a mix is, gathered for its card: from its lock-file, its build manifest, its units' records, and the recipes.

In: a built mix in a store, in a folder or at a URL. Out: Facts. Everything is of this mix's own units, also where a later mix has the same
sources by other rules. What is read: lock-file, manifest, the records of its shards' units, a listing of `shards/`, and of edits and
matches the tables of spans. Cost: 1 ms per thousand documents, for the edits; else milliseconds per source, however large it is.
Not: shards are not read again (`make verify` does that): a file must be there with its recorded size, and the record must be whole.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import duckdb

from pipeline import catalog, findings
from pipeline.errors import ConfigError, PipelineError
from pipeline.lock import Lock, LockSource
from pipeline.recipe import MIXES
from pipeline.release import is_released
from pipeline.sql import quoted_list
from pipeline.store import Store
from pipeline.tokenizer import kept as kept_tokenizer
from pipeline.unit import Artifact, Json
from tools.card.rules import Declared, declared

COUNTS = ("documents", "bytes", "tokens")


class Line(NamedTuple):
    """What became of some documents: `train` and `validation` of stage `kept`, or what dropped them. bytes: of their text as read."""

    stage: str
    reason: str
    documents: int
    bytes: int
    tokens: int


class Edit(NamedTuple):
    """Spans that a rule replaced in kept documents, and the bytes that went with them (new ones counted against them)."""

    by: str
    documents: int
    spans: int
    bytes: int


class Match(NamedTuple):
    """Documents that share text with items of an evaluation, dropped or not."""

    evaluation: str
    documents: int
    items: int


@dataclass(frozen=True)
class SourceFacts:
    """lock: its part in the mix. built: what the manifest says of it. declared: its YAML as it is now, None where there is none."""

    lock: LockSource
    built: Mapping[str, Json]
    declared: Declared | None
    edits: tuple[Edit, ...]
    matches: tuple[Match, ...]

    @property
    def name(self) -> str:
        return self.lock.name

    @property
    def funnel(self) -> list[Line]:
        return [Line(line["stage"], line["reason"], *(line[name] for name in COUNTS)) for line in self.built["funnel"]]

    @property
    def read(self) -> Line:
        return total("read", "read", self.funnel)

    @property
    def kept(self) -> Line:
        return total("kept", "kept", [line for line in self.funnel if line.stage == "kept"])

    @property
    def rules(self) -> dict[str, str]:
        """Reason → predicate, by which the mix was built; in the order of blame, as far as the recipes still have them."""
        now = list(self.declared.rules.drop) if self.declared else []
        place = {reason: number for number, reason in enumerate(now)}
        return dict(sorted(self.built["drop"].items(), key=lambda rule: (place.get(rule[0], len(now)), rule[0])))

    def dropped_by(self, reason: str) -> Line:
        """What a rule dropped: documents that no rule before it did."""
        return total("filter", reason, [line for line in self.funnel if (line.stage, line.reason) == ("filter", reason)])

    @property
    def dropped_otherwise(self) -> list[Line]:
        return [line for line in self.funnel if line.stage not in ("kept", "filter")]

    def origin(self, reason: str) -> str:
        """Where a rule comes from, as far as the recipes say; "" where they do not, or have another rule of that name now."""
        if self.declared is None or self.declared.rules.drop.get(reason) != self.rules[reason]:
            return ""
        return self.declared.origins.get(reason, "")

    @property
    def held_out(self) -> tuple[int, int]:
        """Documents and tokens of its validation shards."""
        return sum(shard.documents for shard in self.lock.validation), sum(shard.tokens for shard in self.lock.validation)


@dataclass(frozen=True)
class Facts:
    """A mix. files: what others need to read it, with their sha256: lock-file, tokenizer, and all of its shards' units. stages: the
    versions of the stages that wrote its units, in the pipeline's order, as far as their records are there."""

    lock: Lock
    lock_file: Artifact
    manifest: Mapping[str, Json]
    sources: tuple[SourceFacts, ...]
    files: tuple[Artifact, ...]
    stages: Mapping[str, int]
    recipes: Path

    @property
    def name(self) -> str:
        return self.lock.mix

    @property
    def tokens(self) -> int:
        """The length of the run."""
        return self.lock.instances * self.lock.sequence_length

    @property
    def documents(self) -> int:
        """In the shards, for training and held out."""
        return sum(source.lock.documents + source.held_out[0] for source in self.sources)


def gather(store: Store, mix: str, recipes: Path = MIXES) -> Facts:
    """Raises ConfigError when the mix has not been built, PipelineError when something it rests on is missing or damaged."""
    manifest = catalog.read_manifest(store, mix)
    name = f"mixes/{mix}.lock.json"
    try:
        lock = Lock.read(store.local(name))
        content = store.read(name)
    except FileNotFoundError:
        raise ConfigError(f"{mix} has not been built in {store.place}; run: make mix MIX={mix}") from None
    if strangers := [source.name for source in lock.sources if source.name not in manifest["sources"]]:
        raise PipelineError(f"{name} under {store.place} has the source {strangers[0]}, its manifest has not; run make mix MIX={mix} again")
    built = {source.name: manifest["sources"][source.name] for source in lock.sources}
    edits, matches = _found(store, built)
    sources = tuple(
        SourceFacts(source, built[source.name], declared(source.name, recipes), edits[source.name], matches[source.name])
        for source in lock.sources
    )
    lock_file = Artifact(name, hashlib.sha256(content).hexdigest(), len(content))
    files = (lock_file, _tokenizer(store, lock), *_units(store, mix, lock))
    return Facts(lock, lock_file, manifest, sources, files, _stages(store, built), recipes)


def total(stage: str, reason: str, lines: Sequence[Line]) -> Line:
    counts = (sum(getattr(line, name) for line in lines) for name in COUNTS)
    return Line(stage, reason, *counts)


def _tokenizer(store: Store, lock: Lock) -> Artifact:
    name, stated = kept_tokenizer(lock.tokenizer.sha256), lock.tokenizer.sha256
    try:
        content = store.read(name)
    except FileNotFoundError:
        raise PipelineError(f"{name} under {store.place} is missing; run make mix MIX={lock.mix} again") from None
    if (found := hashlib.sha256(content).hexdigest()) != stated:
        raise PipelineError(f"{name} under {store.place} has the sha256 {found}; run make mix MIX={lock.mix} again")
    return Artifact(name, found, len(content))


def _units(store: Store, mix: str, lock: Lock) -> Iterator[Artifact]:
    """The files of the units that the lock's shards lie in, by folder."""
    remedy = f"run make verify MIX={mix} REMOVE=1, then make mix MIX={mix} again"
    there = store.files("shards")
    listed = {shard.path: shard for source in lock.sources for shard in (*source.shards, *source.validation)}
    for folder in dict.fromkeys(path.rpartition("/")[0] for path in listed):
        outputs = {file.path: file for file in store.record(folder).outputs}
        for path in (path for path in listed if path.rpartition("/")[0] == folder):
            if path not in outputs or outputs[path].sha256 != listed[path].sha256:
                raise PipelineError(f"{path}: the lock-file of {mix} and the record beside it do not agree; {remedy}")
        for file in outputs.values():
            if there.get(file.path) != file.bytes:
                found = f"has {there[file.path]:,} bytes" if file.path in there else "is missing"
                raise PipelineError(f"{file.path} under {store.place} {found}, {file.bytes:,} bytes were written; {remedy}")
            yield file


def _found(store: Store, built: Mapping[str, Mapping[str, Json]]) -> tuple[dict[str, tuple[Edit, ...]], dict[str, tuple[Match, ...]]]:
    """Of each source its edits by rule and its matches by evaluation."""
    edits: dict[str, tuple[Edit, ...]] = dict.fromkeys(built, ())
    matches: dict[str, tuple[Match, ...]] = dict.fromkeys(built, ())
    whole = {name: source for name, source in built.items() if not is_released(source)}
    if not whole:
        return edits, matches
    with duckdb.connect() as connection:
        store.mount(connection)
        findings.write(connection, store, whole)
        for source, *edit in connection.execute(
            'SELECT source, "by", count(DISTINCT (file, row)), count(*), sum("end" - start - octet_length(encode(replacement)))::BIGINT '
            f"FROM edits WHERE list_contains({quoted_list(whole)}, source) GROUP BY ALL ORDER BY ALL"
        ).fetchall():
            edits[source] += (Edit(*edit),)
        for source, *match in connection.execute(
            "SELECT source, evaluation, count(DISTINCT (file, row)), count(DISTINCT item) "
            f"FROM matches WHERE list_contains({quoted_list(whole)}, source) GROUP BY ALL ORDER BY ALL"
        ).fetchall():
            matches[source] += (Match(*match),)
    return edits, matches


def _stages(store: Store, built: Mapping[str, Mapping[str, Json]]) -> dict[str, int]:
    versions: dict[str, int] = {}
    for stage in catalog.STAGES:
        folders = [folder for source in built.values() for folder in source["units"].get(stage.output, [])[:1]]
        for folder in folders[:1]:
            versions[stage.output] = store.record(folder).unit.version
    return versions
