"""Recipe × supply → how many instances of which source: the arithmetic of a mix, exact to the last instance.

In: a recipe and the shards that were built. Out: a Plan (requested beside obtained) and the Lock that a reader needs.
All of it is integer and fraction arithmetic; it costs milliseconds and copies nothing. What it does not do: choose the
order (permutation.py) or read tokens (reader.py).

A *pool* is one pass over the mix: `slots` places per source, in proportion to the requested shares, an instance
appearing at most `max_repeats` times. A run is `instances` long: passes over the pool, each in a new order, the last
one cut short. So a run of 1.3 epochs is one pass and the first 30 % of another (as OLMoE was trained). A run shorter
than the largest possible pool has a pool of its own length, and with it exact shares.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor, lcm

from pipeline.config import human
from pipeline.errors import ConfigError
from pipeline.lock import Lock, LockSource, LockTokenizer, ShardSummary, whole_instances
from pipeline.recipe import Mix
from pipeline.unit import Json

__all__ = ["Lock", "Plan", "PlanSource", "ShardSummary", "apportion", "largest_pool", "plan", "resolve"]


@dataclass(frozen=True, slots=True)
class PlanSource:
    """One source's row of a plan. Shares are of the pool; `instances` and `repeats` are of the run."""

    name: str
    requested: Fraction
    obtained: Fraction
    supply: int
    slots: int
    instances: int
    repeats: Fraction


@dataclass(frozen=True, slots=True)
class Plan:
    pool: int
    instances: int
    sources: tuple[PlanSource, ...]


def resolve(
    mix: Mix,
    shards: Mapping[str, Sequence[ShardSummary]],
    validation: Mapping[str, Sequence[ShardSummary]],
    tokenizer: Mapping[str, Json],
    tokens: int | None = None,
    scale: bool = False,
) -> Lock:
    """The lock-file of `mix` over these training and validation shards of each of its sources, in their order.

    tokenizer: name, sha256, eos, vocab_size, dtype. tokens: the length of the run instead of the recipe's. scale:
    where supply is short, take what there is instead of refusing. Raises ConfigError (see `plan`).
    """
    length = mix.sequence_length
    supply = {name: whole_instances(list(shards[name]), length) for name in mix.sources}
    planned = plan(mix, supply, tokens, scale)
    return Lock.sealed(
        mix=mix.name,
        recipe=mix.model_dump(mode="json"),
        tokenizer=LockTokenizer(**tokenizer),
        sequence_length=length,
        seed=mix.seed,
        pool=planned.pool,
        instances=planned.instances,
        sources=tuple(
            LockSource(
                name=row.name,
                requested_share=float(row.requested),
                obtained_share=float(row.obtained),
                supply=row.supply,
                slots=row.slots,
                instances=row.instances,
                repeats=float(row.repeats),
                tokens=sum(shard.tokens for shard in shards[row.name]),
                documents=sum(shard.documents for shard in shards[row.name]),
                shards=tuple(shards[row.name]),
                validation=tuple(validation[row.name]),
            )
            for row in planned.sources
        ),
    )


def plan(mix: Mix, supply: Mapping[str, int], tokens: int | None = None, scale: bool = False) -> Plan:
    """How `supply` (whole instances of each source) becomes a run.

    Raises ConfigError if a source has no whole instance, if the run is shorter than one instance of each source, or if
    it is longer than `epochs` passes over the largest pool and `scale` is false; it names the source and the remedies.
    """
    shares = list(mix.shares.values())
    caps = [floor(supply[name] * source.cap) for name, source in mix.sources.items()]
    for name, cap in zip(mix.sources, caps, strict=True):
        if not cap:
            others = ",".join(other for other in mix.sources if other != name)
            raise ConfigError(
                f"{mix.name}: {name} has no whole instance of {mix.sequence_length:,} tokens to train on; add data to it"
                + (f", or leave it out with SOURCES={others}" if others else "")
            )
    weights = _integers(shares)
    largest = largest_pool(weights, caps)
    limit = floor(mix.epochs * largest)
    wanted = mix.tokens if tokens is None else tokens
    instances = limit if wanted is None else wanted // mix.sequence_length
    if instances < len(caps):
        least = len(caps) * mix.sequence_length
        raise ConfigError(
            f"{mix.name}: {instances} instances of {mix.sequence_length:,} tokens for {len(caps)} sources, of which each needs "
            f"one; give TOKENS={least} or more" + (", or more data" if wanted is None else "")
        )
    if wanted is not None and instances > limit:
        if not scale:
            raise ConfigError(_shortage(mix, caps, wanted, limit))
        instances = limit
    pool = instances if instances < largest and _fits(instances, weights, caps) else largest
    slots = apportion(pool, weights)
    passes, rest = divmod(instances, pool)
    extra = _largest_remainders(rest, slots)
    return Plan(
        pool,
        instances,
        tuple(
            PlanSource(
                name=name,
                requested=share,
                obtained=Fraction(slots[i], pool),
                supply=supply[name],
                slots=slots[i],
                instances=passes * slots[i] + extra[i],
                repeats=Fraction(instances * slots[i], pool * supply[name]),
            )
            for i, (name, share) in enumerate(zip(mix.sources, shares, strict=True))
        ),
    )


def apportion(total: int, weights: Sequence[int]) -> list[int]:
    """Divide `total` instances in proportion to `weights`: each its quota rounded down or up, and never less than one.

    A source whose quota is below one gets one; the others divide the rest by largest remainder (ties: the first).
    Needs total >= len(weights).
    """
    slots = [1] * len(weights)
    large = list(range(len(weights)))
    room = total
    while True:
        whole = sum(weights[i] for i in large)
        small = [i for i in large if weights[i] * room < whole]
        if not small:
            break
        large = [i for i in large if i not in small]
        room -= len(small)
    for i, count in zip(large, _largest_remainders(room, [weights[i] for i in large]), strict=True):
        slots[i] = count
    return slots


def largest_pool(weights: Sequence[int], caps: Sequence[int]) -> int:
    """The largest total whose `apportion` stays within `caps`, all of them at least 1.

    Rounding makes "within" hold and fail by turns near the end, so totals are tried downwards from one that is
    certainly too large: about 1 / share of the scarcest source of them, a few microseconds each.
    """
    whole, count = sum(weights), len(weights)
    # A quota is at least (total - count) * weight / whole, and it is rounded down at worst.
    bound = min((cap + 1) * whole // weight + count for weight, cap in zip(weights, caps, strict=True))
    return next(total for total in range(bound, 0, -1) if _fits(total, weights, caps))


def _fits(total: int, weights: Sequence[int], caps: Sequence[int]) -> bool:
    return total >= len(caps) and all(slots <= cap for slots, cap in zip(apportion(total, weights), caps, strict=True))


def _largest_remainders(total: int, weights: Sequence[int]) -> list[int]:
    whole = sum(weights)
    parts = [divmod(weight * total, whole) for weight in weights]
    counts = [quotient for quotient, _ in parts]
    by_remainder = sorted(range(len(parts)), key=lambda i: -parts[i][1])
    for i in by_remainder[: total - sum(counts)]:
        counts[i] += 1
    return counts


def _integers(shares: Sequence[Fraction]) -> list[int]:
    common = lcm(*(share.denominator for share in shares))
    return [int(share * common) for share in shares]


def _shortage(mix: Mix, caps: Sequence[int], asked: int, limit: int) -> str:
    """Why `asked` tokens cannot be had where `limit` instances can."""
    length = mix.sequence_length
    pool = ceil(asked // length / mix.epochs)
    needs = [ceil(share * pool) for share in mix.shares.values()]
    short = sorted((Fraction(cap, need), name, need, cap) for name, need, cap in zip(mix.sources, needs, caps, strict=True) if need > cap)
    lines = [
        f"  {name} is short by {human((need - cap) * length)} tokens: one epoch needs {human(need * length)}, "
        f"its shards give {human(cap * length)} at {float(mix.sources[name].cap):g} repeats\n"
        for _, name, need, cap in short
    ]
    possible = limit * length
    largest = human(possible) if possible >= 10**6 else str(possible)
    return (
        f"{mix.name}: {human(asked)} tokens are asked for, its sources give {largest} (epochs: {float(mix.epochs):g})\n"
        + "".join(lines)
        + f"TOKENS={largest} fits; SCALE=1 takes what there is; or add data to the sources named, or raise their max_repeats "
        f"or the epochs in mixes/{mix.name}.yaml"
    )
