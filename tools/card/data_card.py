"""README.md of a mix: the hub's data card, front matter and all.

In: Facts, Rebuild. Out: Markdown whose front matter is huggingface_hub's DatasetCardData; in its body only what lock-file, manifest,
records and recipes say. Cost: nothing beside them.
"""

from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec

from pipeline import catalog
from pipeline.config import human
from pipeline.published import UNITS
from pipeline.store import Store
from tools.card import front_matter
from tools.card.gaps import gaps, stated
from tools.card.markdown import bullets, code, fenced, megabytes, number, percent, table, text
from tools.card.mix_facts import Facts, SourceFacts, total
from tools.card.rebuild import Rebuild, place
from trainer.run import code_version

LISTED = 100  # shards whose hashes stand in the card; the lock-file and croissant.json have all of them
LIBRARIES = ("gigatoken", "tokenizers", "duckdb", "pyarrow", "numpy", "numba")  # that decide ids, predicates and tables
PINNED = ("pypi:", "npm:", "hf:")
ORDER = ["read", "prepare", "tokenize", "filter", "dedupe", "edit", "kept"]


def write(facts: Facts, again: Rebuild, store: Store, repo: str | None = None) -> bytes:
    """repo: the hub repository that the card is for, if that is known."""
    parts = [
        f"---\n{front_matter.of_mix(facts)}\n---", f"# {text(facts.name)}", *_summary(facts),
        "## Sources and licences", *_sources(facts), "## Reading it", *_reading(facts, repo),
        "## What was read, dropped and kept", *_funnel(facts), "### Rules", *_rules(facts), *_edits(facts),
        "### Deduplication", *_duplicates(facts), *_decontamination(facts), "### Validation set", *_validation(facts),
        "## Building it again", *_again(facts, again), "## Hashes", *_hashes(facts), *_published(facts, store),
        "## Known gaps", bullets(gaps(facts, again.doubts)),
    ]  # fmt: skip
    return ("\n\n".join(parts) + "\n").encode()


def licence_file(facts: Facts) -> bytes:
    """LICENSE.md, for cards whose licence is none that the hub has a name for: which source is under which terms."""
    lines = [f"# Licences of {text(facts.name)}", "The mix is a selection of documents of these sources, each under its own terms."]
    for source in facts.sources:
        lines.append(f"## {text(source.built['title'])} ({text(source.name)})")
        lines.append(bullets(text(licence) for licence in source.built["licence"]))
        hub = source.declared.source.hub if source.declared else None
        if hub and hub.terms:
            lines.append(f"Terms of the published source: {text(hub.terms)}")
    return ("\n\n".join(lines) + "\n").encode()


def _summary(facts: Facts) -> Iterator[str]:
    lock = facts.lock
    known = {"sample": "an offline sample", "hub": "the files that its sources publish on the hub"}
    built_from = known.get(facts.manifest["data"], f"files under {code(place(facts.manifest['data']))}")
    if release := facts.manifest.get("release"):
        built_from = f"what its release {code(release['repository'])} says, and read back from there"
    yield f"{text(lock.recipe['description'])}."
    yield (
        f"{number(facts.tokens)} tokens of training, as {number(lock.instances)} instances of {number(lock.sequence_length)}, drawn from "
        f"{number(sum(source.lock.tokens for source in facts.sources))} in the shards of {len(facts.sources)} sources; tokenized with "
        f"{code(lock.tokenizer.name)}, {number(lock.tokenizer.vocab_size)} ids. Made by tokenmill from {built_from}."
    )
    rows = [
        [
            code(s.name), percent(s.lock.requested_share), percent(s.lock.obtained_share), number(s.lock.instances),
            f"{s.lock.repeats:.2f}", number(s.lock.documents), number(s.lock.tokens), *map(number, s.held_out),
        ]
        for s in facts.sources
    ]  # fmt: skip
    header = ["source", "requested", "obtained", "instances", "repeats", "documents", "tokens", "held out: documents", "tokens"]
    yield table(header, rows)
    yield "Shares and instances are the run's; documents and tokens those of the shards; repeats, how often the run reads an instance."


def _sources(facts: Facts) -> Iterator[str]:
    rows = [
        [
            code(source.name), text(source.built["title"]), "; ".join(map(text, source.built["licence"])),
            "; ".join(_origin(source)) or "a file of one's own", number(source.built["files"]), megabytes(source.built["raw_bytes"]),
        ]
        for source in facts.sources
    ]  # fmt: skip
    yield table(["source", "what it is", "licence", "from, at which revision", "files", "as they came"], rows, left=4)


def _origin(source: SourceFacts) -> list[str]:
    """Packages with their versions, repositories with their commits, other places without what is secret."""
    return [code(origin if origin.startswith(PINNED) else place(origin)) for origin in source.built["origin"] if origin]


def _reading(facts: Facts, repo: str | None) -> Iterator[str]:
    dtype, eos = facts.lock.tokenizer.dtype, facts.lock.tokenizer.eos
    first = next(shard.path for source in facts.sources for shard in source.lock.shards)
    yield table(
        ["file", "what it holds"],
        [
            [code(f"mixes/{facts.name}.lock.json"), "every shard with its hash, and the seeded order of the instances"],
            [code("shards/<source>/<key>/train-*.bin"), f"token ids, {dtype}, little-endian, no header; documents end with {eos}"],
            [code("shards/<source>/<key>/train-*.parquet"), "a row per document in the shard: id, raw file and row, first token, length"],
            [code("shards/<source>/<key>/ledger.parquet"), "a row per document read, with what dropped it"],
            [code(f"tokenizers/{facts.lock.tokenizer.sha256}.json"), "the tokenizer, as Hugging Face tokenizers reads it"],
        ],
        left=2,
    )  # fmt: skip
    yield fenced("python", f'import numpy as np\n\ntokens = np.memmap("{first}", dtype="<{"u2" if dtype == "uint16" else "u4"}", mode="r")')
    yield "In the order of training, with tokenmill:"
    opened = f'from pipeline.reader import MixReader\n\nmix = MixReader("mixes/{facts.name}.lock.json")'
    yield fenced("python", f"{opened}\nmix[0].tokens, mix[0].source, mix.documents(0)")
    if repo:
        yield "The mix as it was built, every file checked against its hash:"
        yield fenced("sh", f"make mix MIX={facts.name} DATA={repo}")


def _funnel(facts: Facts) -> Iterator[str]:
    rows = []
    for source in facts.sources:
        lines = [source.read, *sorted(source.funnel, key=lambda line: (ORDER.index(line.stage) if line.stage in ORDER else 0, line.reason))]
        rows += [[code(source.name), text(line.stage), text(line.reason), *map(number, line[2:])] for line in lines]
    yield table(["source", "stage", "reason", "documents", "bytes", "tokens"], rows, left=3)
    yield "Bytes of text as read. A document counts at the first thing that drops it: the order is that of the stages, then of the rules."


def _rules(facts: Facts) -> Iterator[str]:
    rows = []
    for source in facts.sources:
        for reason, sql in source.rules.items():
            line = source.dropped_by(reason)
            rows.append([code(source.name), code(reason), code(sql), text(source.origin(reason)) or "–", *map(number, line[2:])])
    if not rows:
        yield "None."
        return
    yield "A document is dropped if the predicate holds for its attributes."
    yield table(["source", "rule", "drops where", "comes from", "documents", "bytes", "tokens"], rows, left=4)


def _edits(facts: Facts) -> Iterator[str]:
    rows = [[code(s.name), code(e.by), number(e.documents), number(e.spans), number(e.bytes)] for s in facts.sources for e in s.edits]
    if rows:
        yield "### Edits"
        yield "Spans that were replaced in documents that no rule dropped."
        yield table(["source", "rule", "documents", "spans", "bytes fewer"], rows, left=2)


def _duplicates(facts: Facts) -> Iterator[str]:
    scope = "over all sources together" if facts.lock.recipe["dedupe_across"] else "within each source"
    yield f"In this order, {scope}; of equals one stays."
    rows = []
    for source in facts.sources:
        steps = source.declared.source.dedupe if source.declared else ()
        named = ", then ".join(_step(step.model_dump()) for step in steps) or "none"
        lines = [line for line in source.funnel if line.stage == "dedupe"]
        found = "; ".join(f"{text(line.reason)} {number(line.documents)}" for line in lines) or "nothing"
        rows.append([code(source.name), text(named), found, *map(number, total("dedupe", "", lines)[2:])])
    yield table(["source", "steps", "documents dropped", "in all", "bytes", "tokens"], rows, left=3)


def _step(values: dict[str, object]) -> str:
    settings = ", ".join(f"{key} {value}" for key, value in values.items() if key != "method")
    return f"{values['method']} ({settings})" if settings else str(values["method"])


def _decontamination(facts: Facts) -> Iterator[str]:
    rows = [[code(s.name), text(m.evaluation), number(m.documents), number(m.items)] for s in facts.sources for m in s.matches]
    if rows:
        yield "### Decontamination"
        yield "Documents that share text with an evaluation's items, as far as a rule asks; which of them were dropped is said under Rules."
        yield table(["source", "evaluation", "documents", "items"], rows, left=2)


def _validation(facts: Facts) -> Iterator[str]:
    yield "Held out by the hash of a document's id; none of these documents is in a training shard."
    rows = []
    for source in facts.sources:
        declared = source.declared.source.validation if source.declared else None
        share = f"{percent(declared.share)} of the documents, at least {declared.documents}" if declared else "–"
        rows.append([code(source.name), share, *map(number, source.held_out)])
    yield table(["source", "asked for", "documents", "tokens"], rows, left=2)


def _again(facts: Facts, again: Rebuild) -> Iterator[str]:
    release, data = facts.manifest.get("release"), facts.manifest["data"]
    if release:
        yield "As it was released, every file compared with its hash; how it was made from raw files, the card of the release says:"
    elif "--recipes" in again.command:
        yield "With the folder `recipes` beside this card:"
    else:
        yield "With the recipes that come with tokenmill; they are those in `recipes`, beside this card:"
    yield fenced("sh", f"{again.command}\nsha256sum data/mixes/{facts.name}.lock.json   # {facts.lock_file.sha256}")
    yield "The same hash means the same tokens in the same order, at any number of workers: the lock-file lists the sha256 of every shard."
    if release:
        return
    if data not in ("sample", "hub"):
        yield f"`mixes/{facts.name}.build.json` lists the files that {code(place(data))} must hold, each with its sha256."
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES if find_spec(name))
    yield f"This card was written by tokenmill {code_version()}, with {libraries}; `constraints.txt` has the others."
    now = {stage.output: stage.version for stage in catalog.STAGES}
    versions = ", ".join(f"{name} {version}" for name, version in facts.stages.items())
    other = [name for name, version in facts.stages.items() if now.get(name) != version]
    yield (
        f"Stages that made it, with the version of each: {versions}. The tokenmill that wrote this card has "
        + (f"other versions of {', '.join(other)}, and would make other bytes." if other else "the same.")
    )


def _hashes(facts: Facts) -> Iterator[str]:
    lock = facts.lock
    rows = [
        ["lock-file", code(facts.lock_file.path), code(facts.lock_file.sha256)],
        ["fingerprint of tokens and order", "–", code(lock.fingerprint)],
        ["tokenizer", code(f"tokenizers/{lock.tokenizer.sha256}.json"), code(lock.tokenizer.sha256)],
    ]
    shards = [shard for source in lock.sources for shard in (*source.shards, *source.validation)]
    rows += [[f"shard, {human(shard.tokens)} tokens", code(shard.path), code(shard.sha256)] for shard in shards[:LISTED]]
    yield table(["what", "file", "sha256"], rows, left=3)
    rest = len(shards) - LISTED
    more = f"and of {number(rest)} shards more " if rest > 0 else ""
    yield f"Those of all tables {more}are in `croissant.json`."


def _published(facts: Facts, store: Store) -> Iterator[str]:
    rows = []
    for source in stated(facts, store):
        outcome, cells = source.outcome, []
        for unit in UNITS:
            share = outcome.share if outcome else 1.0
            off = f" ({outcome.off(unit):+.1%})" if outcome else ""
            cells += [human(round(getattr(source.published, unit) * share)), human(source.found[unit]) + off]
        rows.append([code(source.source), f"{outcome.share:.1%}" if outcome else "none of it", *cells])
    if rows:
        yield "## What publishers state"
        yield "For the share of the published files that was taken, beside what the source's rules left here. Tokenizers count differently."
        yield table(["source", "taken", *(column for unit in UNITS for column in (unit, "found"))], rows)
