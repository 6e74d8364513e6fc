"""What is known to be missing from a mix, or wrong with it: the lines that its card must not leave out.

In: Facts, and the doubts about building it again. Out: lines of Markdown, each true by what the build recorded or by what its sources
declare; nothing is guessed. What publishers state is set beside what was found (pipeline/published.py has the tolerances).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.config import human
from pipeline.download import hub
from pipeline.published import BY_RULES, UNITS, Outcome
from pipeline.recipe import Published
from pipeline.release import is_released
from pipeline.store import Store
from tools.card.markdown import number, percent, text
from tools.card.mix_facts import Facts, SourceFacts

FAR = 0.05  # an obtained share this far from the requested one, as a share of it, is named


@dataclass(frozen=True)
class Stated:
    """What a publisher says of a source, beside what its rules left here. outcome: None where it is no part of the published files."""

    source: str
    published: Published
    found: dict[str, int]
    outcome: Outcome | None


def gaps(facts: Facts, doubts: Sequence[str]) -> list[str]:
    """Lines of Markdown."""
    return [*_length(facts), *_origin(facts), *_shares(facts), *_reading(facts), *_not_done(facts), *_known(facts), *map(_again, doubts)]


def stated(facts: Facts, store: Store) -> list[Stated]:
    """Of the sources whose publishers state sizes."""
    listings = store.files("downloads/hub")
    found = []
    for source in facts.sources:
        published = source.declared.source.published if source.declared else None
        if published is None:
            continue
        left = {unit: sum(getattr(line, unit) for line in source.funnel if line.stage not in BY_RULES) for unit in UNITS}
        outcome = None
        if source.declared and facts.manifest["data"] == "hub" and f"downloads/hub/{source.name}.json" in listings:
            share = source.built["raw_bytes"] / max(hub.listing(source.declared.source, store).bytes, 1)
            outcome = Outcome(source.name, published, share, left)
        found.append(Stated(source.name, published, left, outcome))
    return found


def _length(facts: Facts) -> Iterator[str]:
    asked = facts.lock.recipe["tokens"]
    if asked and facts.tokens <= asked - facts.lock.sequence_length:
        yield f"The recipe's run is {human(asked)} tokens long; this one has {number(facts.tokens)}, {facts.tokens / asked:.3g} of it."
    unused = sum(source.lock.tokens - source.lock.supply * facts.lock.sequence_length for source in facts.sources)
    if unused:
        yield (
            f"Instances do not cross shards: {number(unused)} tokens, the tails of the training shards, are too few for an instance of "
            f"{number(facts.lock.sequence_length)} and are not read."
        )


def _origin(facts: Facts) -> Iterator[str]:
    if facts.manifest["data"] == "sample":
        yield (
            "It was built from the offline sample: real text of each source's kind, out of packages, and no file of the published sources. "
            "What their publishers did to theirs was not done to it."
        )
    released = [source for source in facts.sources if is_released(source.built)]
    if released:
        names = ", ".join(text(source.name) for source in released)
        yield f"The text of {names} is not in this store, which has it from a release: edits and matches cannot be counted here."


def _shares(facts: Facts) -> Iterator[str]:
    for source in facts.sources:
        off = source.lock.obtained_share / source.lock.requested_share - 1
        if abs(off) > FAR:
            wanted, got = percent(source.lock.requested_share), percent(source.lock.obtained_share)
            yield f"{text(source.name)} has {got} of the instances, and was to have {wanted}."
    repeated = [f"{text(source.name)} {source.lock.repeats:.2f}" for source in facts.sources if source.lock.repeats > 1]
    if repeated:
        yield f"The run reads some instances more than once; times on average: {', '.join(repeated)}."


def _reading(facts: Facts) -> Iterator[str]:
    for source in facts.sources:
        failed = source.built["failed"]
        if failed:
            reasons = ", ".join(f"{text(reason)} {number(count)}" for reason, count in sorted(failed.items()))
            yield f"{text(source.name)}: {number(sum(failed.values()))} records could not be read ({reasons})."
        if source.built["inner_eos"]:
            yield (
                f"{text(source.name)}: the text of {number(source.built['inner_eos'])} documents spells the end-of-document token, and "
                "became it; document tables hold the true boundaries."
            )


def _not_done(facts: Facts) -> Iterator[str]:
    """Of what a reader may take for granted, what no rule does."""
    known = [source for source in facts.sources if source.declared]
    masked = {source.name for source in known if source.declared and any("pii" in name for name in source.declared.rules.edit)}
    tested = {source.name for source in known if _kinds(source) & {"decontaminate"}}
    near = {source.name for source in known if source.declared and any(step.method == "near" for step in source.declared.source.dedupe)}
    spoken = {source.name for source in known if _kinds(source) & {"language"}}
    for done, sentence in (
        (masked, "Personal data (e-mail, telephone and IP addresses) is not masked in"),
        (tested, "No evaluation's items were looked for in"),
        (near, "Near-duplicates were not looked for in"),
        (spoken, "The language of documents was not identified in"),
    ):
        rest = [text(source.name) for source in known if source.name not in done]
        if rest:
            yield f"{sentence} {'any source' if len(rest) == len(facts.sources) else ', '.join(rest)}."
    if len(facts.sources) > 1 and not facts.lock.recipe["dedupe_across"]:
        yield "Each source was deduplicated by itself: a document that two of them hold is in both."


def _kinds(source: SourceFacts) -> set[str]:
    """The kinds of the configured attributes that its rules read."""
    return {attribute.kind.name for attribute in source.declared.rules.used_attributes} if source.declared else set()


def _known(facts: Facts) -> Iterator[str]:
    """What the sources' YAML says of their releases."""
    for source in facts.sources:
        hub = source.declared.source.hub if source.declared else None
        for note in hub.notes if hub else ():
            yield f"Known of the release of {text(source.name)}: {text(note)}."


def _again(doubt: str) -> str:
    return f"Building it again may not give the same bytes: {text(doubt)}."
