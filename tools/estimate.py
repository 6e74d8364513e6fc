"""How much work a mix is: units, processor time, hours and disk, from the sizes of its sources and measured rates.

In: per source a Load (files, bytes, documents, tokens: listed by the hub, or published), its stages' Rates, and machines. Out: Work.
Milliseconds of arithmetic, and every factor is measured or has a name here. Time grows with bytes of text, for the stages that see
the documents of a whole source at once with documents; disk with bytes (text), tokens (ids) and documents (tables).

Not in it: what waits (a slow disk, a throttled network), and stages of which the rates know nothing; `Work.unmeasured` names these.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil

from pipeline import catalog
from pipeline.documents import PART_BYTES
from pipeline.recipe import Source
from pipeline.rules import Rules
from pipeline.scopes import keys
from pipeline.stages import decide, dedupe, edit, filter, gather, holdout, near, paragraphs, prepare, read, tag, tokenize
from pipeline.taggers import owner_of
from tools.rates import Rates

PER_SOURCE = {holdout.STAGE.name, dedupe.STAGE.name}  # one unit sees all of a source
OF_STEPS = {"near": (near.BANDS.name, near.CLUSTERS.name), "paragraphs": (paragraphs.STAGE.name,), "bff": (paragraphs.STAGE.name,)}


@dataclass(frozen=True)
class Load:
    """What of a source goes in. files: bytes of each raw file. bytes: of text in them; tokens: in it, before anything is dropped."""

    source: Source
    rules: Rules
    files: Sequence[int]
    bytes: float
    documents: float
    tokens: float

    @cached_property
    def parts(self) -> int:
        """Tables of documents: a large file's text comes in pieces of `PART_BYTES`."""
        per_raw_byte = self.bytes / max(sum(self.files), 1)
        return sum(ceil(group * per_raw_byte / PART_BYTES) for group in self.groups)

    @cached_property
    def groups(self) -> list[int]:
        """Raw bytes of each unit of reading: small files share one."""
        groups: list[int] = []
        for size in self.files:
            if groups and groups[-1] + size <= read.UNIT_BYTES:
                groups[-1] += size
            else:
                groups.append(size)
        return groups

    @property
    def taggers(self) -> int:
        names = {tagger.name for tagger in self.rules.taggers} | {attribute.name for attribute in self.rules.used_attributes}
        return len(names | {owner_of(key) or key for key in keys(self.source.dedupe)})

    def units(self, shard_tokens: int = gather.SHARD_TOKENS) -> dict[str, int]:
        """Units of each stage."""
        parts, steps = self.parts, {step.method for step in self.source.dedupe}
        found = {
            read.STAGE.name: len(self.groups),
            prepare.STAGE.name: parts if self.rules.prepare else 0,
            tokenize.STAGE.name: parts,
            tag.STAGE.name: parts * self.taggers,
            filter.STAGE.name: parts,
            holdout.STAGE.name: 1,
            dedupe.STAGE.name: len(steps & {"exact", "url"}),
            edit.STAGE.name: parts if self.rules.edit or steps & {"paragraphs", "bff"} else 0,
            decide.STAGE.name: parts,
            gather.STAGE.name: max(1, ceil(self.tokens / max(shard_tokens - self.tokens / max(parts, 1) / 2, 1))),
        }
        return {**found, **{stage: 1 for step in steps for stage in OF_STEPS.get(step, ())}}


@dataclass(frozen=True)
class Work:
    """What a source asks for. units, cpu_seconds, disk (bytes), inputs and outputs (files of the store): by stage. tasks: what is
    scheduled, as units of one part are tagged together. longest: by stage the CPU seconds of its largest unit. unmeasured: stages that
    the rates do not have."""

    load: Load
    units: Mapping[str, int]
    cpu_seconds: Mapping[str, float]
    longest: Mapping[str, float]
    disk: Mapping[str, float]
    inputs: Mapping[str, float]
    outputs: Mapping[str, float]
    unmeasured: frozenset[str]

    @property
    def tasks(self) -> int:
        return sum(self.units.values()) - self.units[tag.STAGE.name] + self.load.parts


def work(load: Load, rates: Rates, per_document: Mapping[str, float]) -> Work:
    """`per_document`: CPU seconds of a stage that sees a whole source, where that was measured on many documents."""
    units = {stage: count for stage, count in load.units().items() if count}
    parts = rates.stages[tokenize.STAGE.name].units
    cpu, longest, disk, inputs, outputs = {}, {}, {}, {}, {}
    for stage, count in units.items():
        if not (rate := rates.stages.get(stage)):
            continue
        if stage in PER_SOURCE:
            cpu[stage] = load.documents * per_document.get(stage, rate.cpu_seconds / rates.documents)
            longest[stage] = cpu[stage] / count
        else:
            cpu[stage] = load.bytes * rate.cpu_seconds / rates.bytes
            largest = max(load.files) / sum(load.files) if stage == read.STAGE.name else 1 / max(count, 1)
            longest[stage] = cpu[stage] * largest
        scale = load.bytes / rates.bytes if stage == read.STAGE.name else load.documents / rates.documents
        disk[stage] = rate.table_bytes * scale + rate.token_bytes * load.tokens / rates.tokens
        inputs[stage] = load.parts * rate.inputs / parts
        outputs[stage] = load.parts + count if stage == read.STAGE.name else count * rate.outputs / rate.units
    return Work(load, units, cpu, longest, disk, inputs, outputs, frozenset(units.keys() - cpu.keys()))


def hours(works: Sequence[Work], cores: int, wall_per_cpu: float) -> dict[str, float]:
    """By stage the hours that so many cores need. All sources take a stage at once, and no stage ends before its longest unit."""
    found = {}
    for stage in (stage.name for stage in catalog.STAGES):
        if mine := [one for one in works if stage in one.cpu_seconds]:
            seconds = max(sum(one.cpu_seconds[stage] for one in mine) / cores, max(one.longest[stage] for one in mine))
            found[stage] = seconds * wall_per_cpu / 3600
    return found
