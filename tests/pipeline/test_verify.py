"""What is damaged in a store is named, removed with all that may have read it, and made again with the bytes it had."""

import hashlib
import os
import re
import shutil
from pathlib import Path

import pytest

from pipeline import catalog
from pipeline.errors import PipelineError
from pipeline.progress import Progress
from pipeline.store import Store
from pipeline.unfinished import Unfinished
from pipeline.unit import Record
from pipeline.verify import remove_damaged, verify
from tests.pipeline.curated import made
from tests.pipeline.test_build import contents


@pytest.fixture
def store(tmp_path: Path, curated: Store) -> Store:
    """A copy of the mix `curated` to be damaged, without the attributes that only a preview wanted."""
    shutil.copytree(curated.root, tmp_path / "store")
    store = Store(tmp_path / "store")
    listed = catalog.read_manifest(store, "curated")["sources"]
    for folder in store.root.glob("attributes/*/*"):
        if str(folder.relative_to(store.root)) not in listed[folder.parent.name]["units"]["attributes"]:
            shutil.rmtree(folder)
    return store


@pytest.fixture
def unharmed(store: Store) -> dict[str, str]:
    return contents(store.root)


def rebuilt(store: Store, home: Path) -> dict[str, str]:
    return contents(made(home, str(store.root)).root)


def flip(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    content[place % len(content)] ^= 0x10
    file.write_bytes(content)


def test_a_flipped_bit_in_any_stage_is_named_removed_and_made_again(store: Store, unharmed: dict[str, str], curated_home: Path) -> None:
    damaged = []
    for stage in sorted({path.parent.parent.parent for path in store.root.glob("*/*/*/record.json")}):
        file = max(sorted(stage.glob("*/*/*")), key=lambda path: (path.suffix in (".bin", ".parquet"), path.stat().st_size))
        flip(file, file.stat().st_size // 3)
        damaged.append(str(file.relative_to(store.root)))
    assert len(damaged) == 13
    problems = verify(store, "curated", 1, Progress())
    assert [name for name in damaged if not any(str(problem).startswith(name) for problem in problems)] == []
    assert len(problems) == len(damaged), "what is whole was named too"
    assert any("make verify REMOVE=1" in str(problem) for problem in problems)
    removed = remove_damaged(store, problems, Progress())
    assert {str(Path(name).parent) for name in damaged} <= set(removed)
    assert rebuilt(store, curated_home) == unharmed
    assert verify(store, "curated", 1, Progress()) == []


@pytest.mark.parametrize("damage", ["missing", "cut", "longer"])
def test_a_file_of_another_size_is_named_and_the_next_build_makes_it_again(
    store: Store, unharmed: dict[str, str], curated_home: Path, damage: str
) -> None:
    file = next(store.path("tokens/web").glob("*/tokens.bin"))
    content = file.read_bytes()
    file.unlink() if damage == "missing" else file.write_bytes(content[:-2] if damage == "cut" else content + b"xx")
    (problem,) = verify(store, "curated", 1, Progress())
    assert str(file.relative_to(store.root)) in str(problem)
    assert rebuilt(store, curated_home) == unharmed


def test_what_was_made_from_damaged_bytes_goes_with_them(store: Store, unharmed: dict[str, str], curated_home: Path) -> None:
    """Tokens change after they were written and before shards are made of them: the shards' own hashes are right."""
    file = max(store.path("tokens/web").glob("*/tokens.bin"), key=lambda path: path.stat().st_size)
    flip(file, 101)
    shutil.rmtree(store.path("shards"))
    assert rebuilt(store, curated_home) != unharmed
    problems = verify(store, "curated", 1, Progress())
    assert any(str(problem).startswith(str(file.relative_to(store.root))) for problem in problems)
    assert any(place.startswith("shards/web/") for place in remove_damaged(store, problems, Progress()))
    assert rebuilt(store, curated_home) == unharmed


def test_a_build_that_stumbles_over_a_damaged_input_names_it_and_verify_removes_it_although_nothing_was_built(
    store: Store, curated: Store, unharmed: dict[str, str], curated_home: Path
) -> None:
    unit = curated.record(next(place for place in curated.files("decisions/web") if place.endswith("record.json")).rsplit("/", 1)[0]).unit
    Unfinished(store, "curated", {}).claim("filtered", [unit], missing=True)  # a build began and did not end
    for gone in ("decisions", "mixes/curated.build.json"):
        store.remove(gone)
    file = max(store.path("filtered/web").glob("*/filtered.parquet"), key=lambda path: path.stat().st_size)
    flip(file, file.stat().st_size - 7)  # the length of its footer
    with pytest.raises(PipelineError, match=f"{file.relative_to(store.root)}: its bytes have changed.*make verify REMOVE=1"):
        rebuilt(store, curated_home)
    problems = verify(store, "curated", 1, Progress())
    assert [str(problem).split(":")[0] for problem in problems] == [str(file.relative_to(store.root))]
    remove_damaged(store, problems, Progress())
    made(curated_home, str(store.root))
    shutil.rmtree(next(store.root.glob("mixes/*.unfinished")))
    assert contents(store.root) == unharmed


@pytest.mark.parametrize("file", ["mixes/curated.lock.json", "mixes/curated.build.json", "tokenizers/*.json"])
def test_a_damaged_index_is_named_and_written_anew(store: Store, unharmed: dict[str, str], curated_home: Path, file: str) -> None:
    (path,) = store.root.glob(file)
    flip(path, path.read_bytes().index(b'"') + 1 if "build" not in file else 0)
    (problem,) = verify(store, "curated", 1, Progress())
    remedy = "again, or delete it" if "build" in file else "again"
    assert str(path.relative_to(store.root)) in str(problem) and str(problem).endswith(remedy)
    assert remove_damaged(store, [problem], Progress()) == []
    assert rebuilt(store, curated_home) == unharmed


def test_a_record_of_another_unit_is_named(store: Store, unharmed: dict[str, str], curated_home: Path) -> None:
    (first,), (second,) = (list(store.path(f"tokens/{source}").glob("*/record.json")) for source in ("web", "forum"))
    shutil.copy(second, first)
    problems = verify(store, "curated", 1, Progress())
    assert any(str(problem).startswith(f"{first.relative_to(store.root)} is not that of this unit") for problem in problems)
    remove_damaged(store, problems, Progress())
    assert rebuilt(store, curated_home) == unharmed


def test_a_digit_that_changed_in_a_record_is_named_and_the_next_build_makes_the_unit_again(
    store: Store, curated: Store, unharmed: dict[str, str], curated_home: Path
) -> None:
    file = next(store.path("decisions/web").glob("*/record.json"))
    whole = file.read_text()
    number = re.search(r'"documents": (\d)', whole)
    assert number
    file.write_text(f"{whole[: number.start(1)]}{9 - int(number[1])}{whole[number.end(1) :]}")
    (problem,) = verify(store, "curated", 1, Progress())
    assert str(problem).startswith(f"{file.relative_to(store.root)}: it has changed since it was written")
    assert store.find_all([curated.record(str(file.parent.relative_to(store.root))).unit]) == [None]
    assert rebuilt(store, curated_home) == unharmed


def test_no_bit_of_a_record_changes_unseen(curated: Store) -> None:
    text = next(curated.path("holdout/web").glob("*/record.json")).read_bytes()
    for place in range(8 * len(text)):
        flipped = bytearray(text)
        flipped[place // 8] ^= 1 << place % 8
        with pytest.raises(ValueError, match="changed"):
            Record.with_unit(bytes(flipped))
    lines = text.splitlines(keepends=True)
    (seal,) = (line for line in lines if b'"seal"' in line)
    assert hashlib.sha256(b"".join(line for line in lines if line != seal)).hexdigest() in seal.decode()


def test_a_raw_file_that_changed_is_named_and_left_to_its_owner(store: Store, curated_home: Path, tmp_path: Path) -> None:
    file = curated_home / "data" / "web" / "0.jsonl"
    whole, times = file.read_bytes(), file.stat()
    try:
        flip(file, 33)
        (problem,) = verify(store, "curated", 1, Progress())
    finally:
        file.write_bytes(whole)
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # other tests compare what stores remember of it
    assert str(file) in str(problem) and remove_damaged(store, [problem], Progress()) == [] and file.exists()
