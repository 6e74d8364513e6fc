"""The lock-file of a mix, `mix.lock.json`: everything that says which tokens are read, and in which order.

Out: canonical JSON (sorted keys), byte for byte the same for the same recipe and shards; some 250 bytes per shard,
nothing per instance. In: the same, checked on load against itself: counts add up, and `fingerprint` is the sha256 of
the canonical JSON of all that defines the order. Shards themselves are checked by whoever opens them (reader.py,
verify.py). Paths are relative to the store, and not part of the fingerprint: a store can be moved.
"""

import hashlib
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import orjson
from pydantic import Field, ValidationError

from pipeline.config import LARGEST, Model, dotted, shown
from pipeline.errors import ConfigError, PipelineError
from pipeline.permutation import ALGORITHM
from pipeline.unit import canonical

FORMAT = 1
REMEDY = "build the mix again"
Number = Annotated[int, Field(ge=0, le=LARGEST)]
Positive = Annotated[int, Field(ge=1, le=LARGEST)]


@dataclass(frozen=True, slots=True)
class ShardSummary:
    """A shard as a lock-file lists it: the path of its .bin relative to the store, counts, sha256 of the .bin."""

    path: str
    tokens: Number
    documents: Number
    sha256: str


class LockTokenizer(Model):
    name: str
    sha256: str
    eos: Number
    vocab_size: Number
    dtype: Literal["uint16", "uint32"]  # little-endian


class LockSource(Model):
    """A source's part in the mix.

    supply: whole instances in its training shards. slots: its places in the pool. instances: its expected number
    among the run's (exact where the run is whole pools). repeats: how often the run reads one of its instances, on
    average. tokens, documents: what its training shards hold.
    """

    name: str
    requested_share: float
    obtained_share: float
    supply: Number
    slots: Number
    instances: Number
    repeats: float
    tokens: Number
    documents: Number
    shards: tuple[ShardSummary, ...]
    validation: tuple[ShardSummary, ...]

    def _with(self, supply: int, factor: int, pool: int, instances: int) -> "LockSource":
        """This source where each instance has become `factor`: its part in `instances` of a run over `pool` slots."""
        slots = self.slots * factor
        repeats = float(Fraction(instances * slots, pool * supply))
        update = {"supply": supply, "slots": slots, "instances": self.instances * factor, "repeats": repeats}
        return self.model_copy(update=update)


class Lock(Model):
    """A resolved mix. `pool` slots are permuted anew each epoch; `instances` is the length of the run."""

    format: int
    mix: str
    recipe: dict[str, Any]
    tokenizer: LockTokenizer
    sequence_length: Positive
    seed: Number
    permutation: str
    pool: Positive
    instances: Number
    sources: tuple[LockSource, ...]
    fingerprint: str

    def to_json(self) -> bytes:
        """Canonical JSON: equal locks give equal bytes."""
        return canonical(self.model_dump(mode="json"), indent=1)

    @classmethod
    def sealed(cls, **fields: Any) -> "Lock":
        """A lock of these fields with its format, permutation and fingerprint filled in."""
        lock = cls(format=FORMAT, permutation=ALGORITHM, fingerprint="", **fields)
        return lock.model_copy(update={"fingerprint": lock.order_hash()})

    def with_sequence_length(self, length: int) -> "Lock":
        """The same mix, read as instances of `length` tokens: for a model with a shorter context.

        Pool, slots and instances grow by the factor, so every share stays what it is to the last digit, and the run has
        the tokens it had. The supply is counted anew, as tails of shards that held no longer instance may hold a shorter one,
        and repeats with it. The order is another one, and so is the fingerprint; the recipe stays as it was declared.
        Raises ConfigError unless `length` divides the lock's.
        """
        if length == self.sequence_length:
            return self
        if length < 1 or self.sequence_length % length:
            raise ConfigError(
                f"sequence_length {length}: {self.mix} was resolved to instances of {self.sequence_length} tokens, which are no whole "
                f"number of such; take a divisor of {self.sequence_length}, or say sequence_length: {length} in the mix's recipe "
                "and build it again (only its index is made anew)"
            )
        factor = self.sequence_length // length
        pool, instances = self.pool * factor, self.instances * factor
        sources = tuple(source._with(whole_instances(source.shards, length), factor, pool, instances) for source in self.sources)
        update = {"sequence_length": length, "pool": pool, "instances": instances, "sources": sources}
        lock = self.model_copy(update=update)
        return lock.model_copy(update={"fingerprint": lock.order_hash()})

    @classmethod
    def read(cls, path: Path) -> "Lock":
        """Read a lock-file. Raises PipelineError naming what does not hold."""
        try:
            content = path.read_bytes()
        except OSError as error:
            raise PipelineError(f"{shown(path)}: cannot be read: {error.strerror}; {REMEDY}") from error
        return cls.from_json(content, shown(path))

    @classmethod
    def from_json(cls, content: bytes, where: str) -> "Lock":
        """A lock-file's contents. where: what errors call it. Raises PipelineError naming what does not hold."""
        try:
            value = orjson.loads(content)  # which takes no NaN, no lone surrogates and no bottomless nesting
        except ValueError as error:
            raise PipelineError(f"{where}: is not JSON ({error}); {REMEDY}") from error
        found = value.get("format") if isinstance(value, dict) else None
        if found != FORMAT:
            raise PipelineError(f"{where}: format {found!r}, this program reads {FORMAT}; {REMEDY}")
        try:
            lock = cls.model_validate(value)
        except ValidationError as error:
            first = error.errors()[0]
            raise PipelineError(f"{where}: {dotted(first['loc'])}: {first['msg']}; {REMEDY}") from None
        if problem := lock.problem():
            raise PipelineError(f"{where}: {problem}; {REMEDY}")
        return lock

    def problem(self) -> str | None:
        """What contradicts itself in this lock, or None."""
        if self.permutation != ALGORITHM:
            return f"permutation {self.permutation!r}, this program has {ALGORITHM}"
        if self.order_hash() != self.fingerprint:
            return f"its contents have the fingerprint {self.order_hash()}, it says {self.fingerprint or 'none'}"
        if sum(source.slots for source in self.sources) != self.pool:
            return f"the slots of its sources do not add up to its pool of {self.pool}"
        for source in self.sources:
            if outside := [shard.path for shard in (*source.shards, *source.validation) if not _is_inside(shard.path)]:
                return f"{source.name}: the shard {outside[0]!r} lies outside the store"
            if source.slots and not source.supply:
                return f"{source.name}: it has slots and no instances"
            if source.supply != whole_instances(source.shards, self.sequence_length):
                return f"{source.name}: its shards do not hold {source.supply} instances"
        return None

    def order_hash(self) -> str:
        """The fingerprint: sha256 over all that defines which tokens instance i has, for every i."""
        order = {
            "format": self.format,
            "permutation": self.permutation,
            "seed": self.seed,
            "sequence_length": self.sequence_length,
            "pool": self.pool,
            "instances": self.instances,
            "tokenizer": self.tokenizer.model_dump(),
            "sources": [
                [source.name, source.supply, source.slots, [[shard.tokens, shard.sha256] for shard in source.shards]]
                for source in self.sources
            ],
        }
        return hashlib.sha256(canonical(order)).hexdigest()


def _is_inside(path: str) -> bool:
    """Whether a path relative to the store stays in it."""
    parts = PurePosixPath(path)
    return bool(path) and not parts.is_absolute() and ".." not in parts.parts and "\\" not in path and "\0" not in path


def whole_instances(shards: tuple[ShardSummary, ...] | list[ShardSummary], sequence_length: int) -> int:
    """Instances do not cross shards: the tail of each, shorter than an instance, is left out (as OLMo does)."""
    return sum(shard.tokens // sequence_length for shard in shards)
