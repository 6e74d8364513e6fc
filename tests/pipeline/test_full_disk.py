"""A disk that is full, wherever it is written to, is one clear error; with room again the same command ends well.

A full disk is a tmpfs of one page, mounted in a mount namespace of its own: over one folder of a store, or over the whole, with
room for all but the catalog.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import catalog
from pipeline.stages import download
from pipeline.store import Store

STAGES = sorted({stage.output for stage in catalog.STAGES} - {download.STAGE.output})  # of a build from a folder
OTHERS = ["downloads", "mixes", "tokenizers"]

INSIDE = """
import json, shutil, subprocess, sys
from pathlib import Path

from pipeline.build import Request, build
from pipeline.errors import PipelineError
from pipeline.progress import Progress

built, home, store = (Path(argument) for argument in sys.argv[1:4])


def mount(folder, options):
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", folder], check=True)


def make():
    build(Request("curated", store, str(home / "data"), workers=1, recipes=home / "recipes", scale=True), Progress())


said = {}
for place in sys.argv[4:]:
    if place == "catalog":
        store.mkdir()
        mount(folder := store, "size=32m")
        shutil.copytree(built, store, dirs_exist_ok=True)
        (store / "ballast").write_bytes(bytes(shutil.disk_usage(store).free - 400_000))
    else:
        shutil.copytree(built, store)
        folder = store / place.split(":")[0]
        shutil.rmtree(folder)
        if place.startswith("runs:"):
            shutil.rmtree(store / "shards")  # a journal is written when something is computed
        folder.mkdir()
        mount(folder, place.split(":")[1])
    try:
        make()
        said[place] = "it was built"
    except PipelineError as error:
        said[place] = str(error)
    except Exception as error:
        said[place] = f"{type(error).__name__}: {error}"
    if place == "catalog":
        (store / "ballast").unlink()
    else:
        subprocess.run(["umount", folder], check=True)
    make()
    said[place] += "".join(f" (left: {path})" for path in store.rglob(".tmp-*"))
    subprocess.run(["umount", store], check=False, stderr=subprocess.DEVNULL)
    shutil.rmtree(store)
print(json.dumps(said))
"""


def full(store: Path, built: Store, home: Path, places: list[str]) -> dict[str, str]:
    """What a build said whose store had these places full, by place; afterwards, with room, each was built."""
    command = [sys.executable, "-c", INSIDE, built.root, home, store, *places]
    result = subprocess.run(["unshare", "-rm", *map(str, command)], capture_output=True, text=True, check=False)
    if result.returncode and "unshare" in result.stderr:
        pytest.skip("this machine lets nobody mount in a namespace of its own")
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout)


@pytest.mark.slow
def test_a_disk_that_is_full_anywhere_is_one_clear_error(tmp_path: Path, curated: Store, curated_home: Path) -> None:
    places = [f"{place}:size=4k" for place in STAGES + OTHERS]
    places += ["tokens:nr_inodes=2", "runs:nr_inodes=1", "catalog"]  # so many files, the folder among them
    said = full(tmp_path / "store", curated, curated_home, places)
    wrong = {
        place: text for place, text in said.items() if not text.startswith("no space left under") or "choose another STORE" not in text
    }
    assert not wrong
    assert not [text for text in said.values() if "(left:" in text]
