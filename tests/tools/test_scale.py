"""docs/scale.md is what tools/scale.py says, and what tools/scale.py says is what was measured."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.recipe import load_source
from pipeline.rules import load_rules
from tools import large, pretend, rates, scale_page
from tools.estimate import Load
from tools.scale import PAGE, Scale, scale


@pytest.fixture(scope="module")
def found() -> Scale:
    return scale()


def test_the_page_is_what_the_script_writes(found: Scale) -> None:
    assert PAGE.read_text(encoding="utf-8") == scale_page.render(found), "run: python -m tools.scale --write"


def test_the_whole_mix_is_as_large_as_published(found: Scale) -> None:
    assert (round(found.bytes / 1e12, 1), round(found.tokens / 1e12, 2)) == (17.5, 4.07)  # the card's rows; it says 17.4 TB
    assert found.works["dclm"].load.documents == load_source("dclm").published.documents  # type: ignore[union-attr]


def test_a_stage_that_takes_twice_as_long_doubles_its_hours_and_nothing_else(found: Scale) -> None:
    bench = found.bench
    slower = {
        name: replace(kind, stages={**kind.stages, "tag": replace(kind.stages["tag"], cpu_seconds=2 * kind.stages["tag"].cpu_seconds)})
        for name, kind in bench.kinds.items()
    }
    after = scale(rates.Bench(slower, bench.large, bench.machine, bench.path))
    cpu, other = found.total("cpu_seconds"), after.total("cpu_seconds")
    assert other.pop("tag") == pytest.approx(2 * cpu.pop("tag"))
    assert other == cpu and after.units == found.units and after.disk == found.disk


def test_more_cores_help_until_one_unit_is_left(found: Scale) -> None:
    few, many, most = (sum(found.hours(cores).values()) for cores in (16, 64, 1_000_000_000))
    assert few / 4 <= many < few and most < many
    assert most > found.longest_hours == pytest.approx(found.hours(1_000_000_000)["dedupe"])
    assert found.longest_hours == max(found.hours(1_000_000_000).values())


def test_what_gives_way_first_comes_first(found: Scale) -> None:
    times = [limit.times for limit in found.limits()]
    assert times == sorted(times) and times[0] > 1


def test_units_on_paper_are_the_units_of_a_build(tmp_path: Path) -> None:
    """The arithmetic that plan and scale share, against a real build of the same sizes with its computing left out."""
    shape = pretend.Shape(files=5, documents=1_000)
    request, lock = pretend.make(tmp_path, shape)
    manifest = json.loads((tmp_path / "store" / "mixes" / f"{lock.mix}.build.json").read_bytes())
    for name, files in (("pages", 4), ("letters", 1)):
        built = {stage: len(folders) for stage, folders in manifest["sources"][name]["units"].items() if folders}
        parts, source_rules = files * shape.parts, load_rules(name, request.recipes)
        load = Load(*source_rules, [pretend.RAW_BYTES] * files, parts * 64e6 * 0.999, parts * 1e3, parts * 1e3 * shape.tokens)
        names = {"read": "documents", "tokenize": "tokens", "tag": "attributes", "filter": "filtered", "hold out": "holdout",
                 "dedupe": "duplicates", "edit": "edited", "decide": "decisions", "gather": "shards"}  # fmt: skip
        assert {names[stage]: count for stage, count in load.units().items() if count} == built


@pytest.mark.slow
def test_large_measures_what_it_claims(tmp_path: Path) -> None:
    found = large.everything(tmp_path, units=700, documents=1_000_000, files=300, deduped=100_000)
    catalog = found["catalog"]
    assert 600 < catalog["units"] < 900 and catalog["documents"] == pytest.approx(1_000_000, rel=0.05)
    assert found["dedupe"]["duplicates"] == 2_000
    for name in ("mix", "stats", *large.QUERIES):
        assert catalog[name]["seconds"] > 0 and catalog[name]["largest_mb"] > 50
    assert set(found["recipe"]["steps"]) >= {"list the folders", "make the units of reading", "resolve the mix", "read the lock-file"}


def test_the_page_shows_every_source_of_the_recipe() -> None:
    rows = re.findall(r"^\| ([a-z0-9-]+) \| [\d,]+ \|", PAGE.read_text(encoding="utf-8"), re.M)
    assert rows[:7] == ["dclm", "starcoder", "pes2o", "arxiv", "open-web-math", "algebraic-stack", "wiki"]
