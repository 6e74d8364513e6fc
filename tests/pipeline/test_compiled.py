"""Compiled code is kept by the contents of what it was compiled from."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pipeline

PROGRAM = "import os, pipeline; print(os.environ['NUMBA_CACHE_DIR'])"


def folder_of(root: Path, cache: Path, **environment: str) -> str:
    clean = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    variables = {**clean, "PYTHONPATH": str(root), "XDG_CACHE_HOME": str(cache), **environment}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM], env=variables, cwd=root, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_a_changed_kernel_is_compiled_again_and_other_code_is_not(tmp_path: Path) -> None:
    root, cache = tmp_path / "code", tmp_path / "cache"
    shutil.copytree(Path(pipeline.__file__).parent, root / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    first = folder_of(root, cache)
    assert Path(first).is_dir() and Path(first).is_relative_to(cache) and Path(first).stat().st_mode & 0o777 == 0o700
    with open(root / "pipeline" / "stats.py", "a") as other:
        other.write("# changed\n")
    assert folder_of(root, cache) == first
    found = {first}
    for change in range(5):
        with open(root / "pipeline" / "text" / "utf8.py", "a") as kernels:
            kernels.write(f"# change {change}\n")
        found.add(folder_of(root, cache))
    assert len(found) == 6
    assert len(list((cache / "tokenmill" / "compiled").iterdir())) <= 4, "old ones are not kept for ever"
    assert folder_of(root, cache, NUMBA_CACHE_DIR="/elsewhere") == "/elsewhere"


def test_a_home_that_cannot_be_written_to_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    folder = folder_of(Path(pipeline.__file__).parents[1], tmp_path / "file", TMPDIR=str(tmp_path))
    assert Path(folder).is_dir() and Path(folder).is_relative_to(tmp_path)
    assert Path(folder).stat().st_mode & 0o777 == 0o700, "others could put code there"
    Path(folder).rmdir()
    (tmp_path / "others").mkdir()
    Path(folder).symlink_to(tmp_path / "others")  # made by another, before us
    taken = folder_of(Path(pipeline.__file__).parents[1], tmp_path / "file", TMPDIR=str(tmp_path))
    assert taken != folder and Path(taken).resolve() != tmp_path / "others" and Path(taken).stat().st_mode & 0o777 == 0o700
