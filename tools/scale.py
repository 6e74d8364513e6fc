"""The whole of a large mix on paper: what `make mix MIX=olmoe-mix DATA=hub` asks of machines, and what gives way first beyond it.

In: the published sizes of the recipe's sources, and the committed rates (tools/rates.json). Out: the numbers of docs/scale.md, and that
page: `python -m tools.scale --write` writes it, a test compares the two. No number of the page is written by hand, and every factor is
either measured (rates.py), published (mixes/sources/), a constant of the code, or one of the assumptions named here.
"""

import argparse
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from pipeline.recipe import load_mix
from pipeline.rules import load_rules
from pipeline.stages import dedupe, gather, read, tokenize
from pipeline.unit import Artifact
from tools import rates
from tools.estimate import Load, Work, hours, work

PAGE = rates.ROOT / "docs" / "scale.md"
MIX = "olmoe-mix"

# Files per source where nobody publishes their number: counted from the releases' listings as others quote them. A source's files are
# taken to be of one size, and compressed text to be a third smaller than half: DCLM's 16.7 TB are 6 TB of .zst.
FILES = {
    "dclm": 27_900, "starcoder": 735, "pes2o": 20, "arxiv": 100, "open-web-math": 13, "algebraic-stack": 16, "wiki": 2,
}  # fmt: skip
COMPRESSION = 2.8
# Object storage as Amazon lists S3 Standard in us-east-1: dollars per 1,000 requests, per GB and month; and what one prefix bears.
PUT_DOLLARS, GET_DOLLARS, GB_MONTH_DOLLARS = 0.005, 0.0004, 0.023
PUTS_PER_SECOND, LISTED = 3_500, 1_000
MULTIPART_BYTES = 16 << 20  # pipeline/objects.py: PART
OBJECT_STORE_MB = 105  # pipeline/workers.py starts Ray with 100 MiB
CORES = (2, 16, 64, 256, 1_024, 4_096)
SORTED_BYTES = 80  # of a document while DuckDB sorts: its hash, id, row, source and part


@dataclass(frozen=True)
class Limit:
    """Something that grows with the mix: how much of it there is, in some unit, how much there can be, and why; and what then."""

    what: str
    unit: str
    value: float
    bears: float
    why: str
    then: str

    @property
    def times(self) -> float:
        """So many times the mix is borne."""
        return self.bears / self.value


@dataclass(frozen=True)
class Scale:
    """The mix and what it costs."""

    works: Mapping[str, Work]
    bench: rates.Bench

    def total(self, field: str) -> dict[str, float]:
        """A Work's field, by stage, over all sources."""
        found: dict[str, float] = {}
        for one in self.works.values():
            for stage, value in getattr(one, field).items():
                found[stage] = found.get(stage, 0.0) + value
        return found

    @cached_property
    def files(self) -> int:
        return sum(len(one.load.files) for one in self.works.values())

    @cached_property
    def raw_bytes(self) -> float:
        return sum(sum(one.load.files) for one in self.works.values())

    @cached_property
    def bytes(self) -> float:
        return sum(one.load.bytes for one in self.works.values())

    @cached_property
    def documents(self) -> float:
        return sum(one.load.documents for one in self.works.values())

    @cached_property
    def tokens(self) -> float:
        return sum(one.load.tokens for one in self.works.values())

    @cached_property
    def parts(self) -> int:
        return sum(one.load.parts for one in self.works.values())

    @cached_property
    def units(self) -> int:
        return sum(sum(one.units.values()) for one in self.works.values())

    @cached_property
    def tasks(self) -> int:
        return sum(one.tasks for one in self.works.values())

    @cached_property
    def shards(self) -> int:
        return sum(one.units[gather.STAGE.name] for one in self.works.values())

    @cached_property
    def cpu_hours(self) -> float:
        return sum(self.total("cpu_seconds").values()) / 3600

    @cached_property
    def wall_per_cpu(self) -> float:
        return max(kind.wall_per_cpu for kind in self.bench.kinds.values())

    def hours(self, cores: int) -> dict[str, float]:
        """By stage."""
        return hours(list(self.works.values()), cores, self.wall_per_cpu)

    @cached_property
    def dedupe_seconds(self) -> float:
        """CPU seconds of exact dedupe, per document."""
        return self.bench.large["dedupe"]["cpu_seconds"] / self.bench.large["dedupe"]["documents"]

    @cached_property
    def longest_hours(self) -> float:
        """Of the one unit that no number of cores makes shorter."""
        return max(one.longest[dedupe.STAGE.name] for one in self.works.values()) * self.wall_per_cpu / 3600

    def growth(self, program: str, field: str) -> float:
        """What a unit adds to the cost of a program on a finished mix: the line through two sizes of it (large.py)."""
        large, small = self.bench.large["catalog"], self.bench.large["tenth"]
        return (large[program][field] - small[program][field]) / (large["units"] - small["units"])

    def per_unit(self, field: str) -> float:
        return self.bench.large["catalog"][field] / self.bench.large["catalog"]["units"]

    @cached_property
    def driver_gib(self) -> float:
        """Memory of the driver: its own, and what it knows of units."""
        large = self.bench.large["catalog"]
        return (large["mix"]["largest_mb"] + self.growth("mix", "largest_mb") * (self.units - large["units"])) / 1024

    @cached_property
    def look_seconds(self) -> float:
        """CPU seconds in which the finished mix is found finished."""
        return self.growth("mix", "cpu_seconds") * self.units

    @cached_property
    def lock_bytes(self) -> float:
        return self.bench.large["catalog"]["lock_bytes"] / self.bench.large["catalog"]["shards"] * self.shards

    @cached_property
    def objects(self) -> float:
        """Outputs and records."""
        return sum(self.total("outputs").values()) + self.units

    @cached_property
    def puts(self) -> float:
        """One per object; a large one, such as raw files, texts and token ids are, one per piece."""
        disk = self.total("disk")
        large = sum(disk[stage.name] for stage in (read.STAGE, tokenize.STAGE, gather.STAGE))
        return self.objects + (large + self.raw_bytes) / MULTIPART_BYTES

    @cached_property
    def gets(self) -> float:
        """One per file that a unit reads, if it is in no cache."""
        return sum(self.total("inputs").values()) + self.files

    @cached_property
    def disk(self) -> float:
        return sum(self.total("disk").values()) + self.raw_bytes

    @cached_property
    def request_dollars(self) -> float:
        return ((self.puts + self.objects / LISTED) * PUT_DOLLARS + self.gets * GET_DOLLARS) / 1000

    @cached_property
    def month_dollars(self) -> float:
        return self.disk / 1e9 * GB_MONTH_DOLLARS

    def limits(self) -> list[Limit]:
        """What gives way, the first one first."""
        largest = max((one.load for one in self.works.values()), key=lambda load: load.documents)
        described, scratch = described_bytes() * largest.parts / 1e6, SORTED_BYTES * largest.documents / 1e9
        manifest, catalog = (self.per_unit(field) * self.units / 1e9 for field in ("manifest_bytes", "catalog_bytes"))
        by_hash = "as many units as the first bits of the hash have values: they are independent"
        fewer = "PART_BYTES of 256 MB make a quarter of the units; or one source at a time (`SOURCES=`)"
        one = f"exact dedupe of `{largest.source.name}`, one unit"
        limits = [
            Limit(f"{one}: its time", "hours", self.longest_hours, 24, "a day of one core", by_hash),
            Limit(f"{one}: its scratch disk", "GB", scratch, 2_000, "the disk of a node", by_hash),
            Limit(f"{one}: its description", "MB", described, OBJECT_STORE_MB, "Ray's object store as we start it", fewer),
            Limit("the driver's memory", "GiB", self.driver_gib, 64, "an ordinary node", fewer),
            Limit("finding a finished mix", "minutes", self.look_seconds / 60, 60, "patience", fewer),
            Limit("the build manifest", "GB", manifest, 2, "JSON in one piece", fewer),
            Limit("the catalog", "GB", catalog, 10, "its views list every file", fewer),
            Limit("the lock-file", "MB", self.lock_bytes / 1e6, 500, "every rank reads it once", "shards of 2³¹ tokens, as OLMo's"),
        ]
        return sorted(limits, key=lambda limit: limit.times)


def scale(bench: rates.Bench | None = None) -> Scale:
    """The recipe `olmoe-mix` at the sizes that its sources publish."""
    bench = bench or rates.load()
    found = Scale({}, bench)
    works = {}
    for name in load_mix(MIX).sources:
        source, rules = load_rules(name)
        assert source.published
        size = round(source.published.bytes / COMPRESSION / FILES[name])
        load = Load(source, rules, [size] * FILES[name], source.published.bytes, source.published.documents, source.published.tokens)
        works[name] = work(load, bench.of(name), {dedupe.STAGE.name: found.dedupe_seconds})
    return Scale(works, bench)


def described_bytes() -> float:
    """Of an input in the description of a unit, as it goes to a worker."""
    inputs = [Artifact(f"filtered/dclm/{number:032x}/survivors.parquet", f"{number:064x}", 123_456 + number) for number in range(1000)]
    return len(pickle.dumps(dedupe.STAGE.unit("dclm", inputs=tuple(inputs)))) / 1000


def main() -> None:
    from tools import scale_page

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(rates.ROOT)}")
    text = scale_page.render(scale())
    if parser.parse_args().write:
        PAGE.write_text(text, encoding="utf-8")
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
