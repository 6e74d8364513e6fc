"""The saboteur: a short game loses nothing, and what is lost is told."""

import json
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tools.chaos import table, tally
from tools.s3_server import S3
from tools.saboteur import corpus
from tools.saboteur.faults import DAMAGES, Injected, damage
from tools.saboteur.places import Folder
from tools.saboteur.rounds import SETTINGS, Round, Undisturbed, undisturbed

NOTHING = Undisturbed({}, 0, 0, {})


def test_each_damage_is_what_it_is_called(tmp_path: Path) -> None:
    place, whole = Folder(tmp_path), bytes(range(200))
    (tmp_path / "mixes").mkdir()
    (tmp_path / "runs").mkdir()
    seen = set()
    for seed in range(30):
        for name in ("mixes/a", "runs/b"):
            (tmp_path / name).write_bytes(whole)
        fault = damage(random.Random(seed), place, {"mixes/a": ""})
        assert fault and fault.file == "mixes/a" and (tmp_path / "runs/b").read_bytes() == whole
        now = place.read("mixes/a")
        if fault.kind == "bit flipped":
            assert now and sum((a ^ b).bit_count() for a, b in zip(now, whole, strict=True)) == 1
        elif fault.kind == "file truncated":
            assert now is not None and whole.startswith(now) and len(now) < len(whole)
        else:
            assert now is None
        seen.add(fault.kind)
    assert seen == set(DAMAGES)


def test_all_faults_of_a_lost_round_are_counted_as_lost(tmp_path: Path) -> None:
    kept = Round("folder", "0", tmp_path, tmp_path, NOTHING, S3("", ""), [Injected("bit flipped", file="x", found_by="verify")])
    lost = replace(kept, injected=[Injected("bit flipped", file="y"), Injected("storage refuses", 7)], wrong="other bytes")
    counts = tally([kept, lost])
    assert counts["bit flipped"] == {"injected": 2, "survived": 1, "lost": 1, "verify": 1, "": 1}
    assert counts["all"]["injected"] == 9 and counts["all"]["lost"] == 8
    assert [column.header for column in table([kept, lost], 1.0).columns][-1] == "lost"


@pytest.mark.slow
def test_a_short_game_on_every_kind_of_place_loses_nothing(tmp_path: Path) -> None:
    out = tmp_path / "chaos.json"
    done = subprocess.run(
        [sys.executable, "-m", "tools.chaos", "--minutes", "0", "--seed", "1", "--out", str(out)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(out.read_bytes())
    assert {each["setting"] for each in report["rounds"]} == set(SETTINGS)
    assert report["kinds"]["all"]["injected"] > 10 and "lost" not in report["kinds"]["all"]
    damaged = [fault for each in report["rounds"] for fault in each["injected"] if fault["file"]]
    assert damaged and all(fault["found_by"] for fault in damaged)


@pytest.mark.slow
def test_a_store_that_does_not_come_back_is_a_lost_round(tmp_path: Path) -> None:
    peace = undisturbed(tmp_path / "home", corpus.write(tmp_path / "home"), tmp_path / "undisturbed")
    name = next(name for name in peace.contents if name.startswith("shards/"))
    other = replace(peace, contents={**peace.contents, name: "another"})
    played = Round("folder", "1", tmp_path / "home", tmp_path / "round", other, S3("", ""))
    played.play()
    assert name in played.wrong
