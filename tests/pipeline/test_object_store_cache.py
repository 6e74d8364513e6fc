"""The bounded cache that the processes of a machine share."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pipeline import cache
from pipeline.cache import Cache
from pipeline.errors import ConfigError


def put(one: Cache, name: str, size: int = 100) -> Path:
    with one.aside("x") as aside:
        aside.parent.mkdir(parents=True, exist_ok=True)
        aside.write_bytes(b"x" * size)
        return one.add(aside, name)


def copies(root: Path) -> set[str]:
    return {path.name for path in root.glob("a/*")}


def aged(root: Path, *names: str) -> None:
    """Last used long ago, the first one longest."""
    for age, name in enumerate(names):
        os.utime(root / name, ns=(age, 0))


def test_the_least_recently_used_copies_go_when_the_bound_is_reached(tmp_path: Path) -> None:
    for number in range(10):
        put(Cache(tmp_path, 1000), f"a/{number}")
    assert copies(tmp_path) == set("0123456789")
    aged(tmp_path, *(f"a/{number}" for number in range(10)))
    assert Cache(tmp_path, 1000).held("a/0", 100) == tmp_path / "a/0"
    put(Cache(tmp_path, 1000), "a/new")
    assert copies(tmp_path) == {"0", "3", "4", "5", "6", "7", "8", "9", "new"}, "nine tenths stay, the used one among them"


def test_what_somebody_holds_stays_and_only_that_exceeds_the_bound(tmp_path: Path) -> None:
    mine = Cache(tmp_path, 1000)
    for number in range(5):
        put(mine, f"a/{number}")
    program = """
import sys
from pathlib import Path
from pipeline.cache import Cache
Cache.held(held := Cache(Path(sys.argv[1]), 1000), "a/b")
print(held.held("a/b"), flush=True)
sys.stdin.read()
"""
    put(Cache(tmp_path, 1000), "a/b")
    other = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdin and other.stdout and other.stdout.readline().strip() == str(tmp_path / "a/b")
    aged(tmp_path, "a/b", *(f"a/{number}" for number in range(5)))
    for number in range(20):
        put(Cache(tmp_path, 1000), f"a/later-{number}")
    assert {"b", *"01234"} <= copies(tmp_path) and len(copies(tmp_path)) <= 10
    other.kill()
    other.wait()
    del mine
    aged(tmp_path, "a/b", *(f"a/{number}" for number in range(5)))
    for number in range(20):
        put(Cache(tmp_path, 1000), f"a/again-{number}")
    assert not {"b", *"01234"} & copies(tmp_path), "what nobody holds any longer is evicted"
    assert not list((tmp_path / cache.HELD).iterdir()), "processes that ended left their lists behind"


def test_what_is_not_a_copy_is_never_evicted(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/mine").write_bytes(b"being written" * 1000)
    os.utime(tmp_path / "a/mine", ns=(0, 0))
    for number in range(30):
        put(Cache(tmp_path, 1000), f"a/{number}")
    assert "mine" in copies(tmp_path)


def test_a_copy_of_another_size_is_none(tmp_path: Path) -> None:
    one = Cache(tmp_path, 1000)
    put(one, "a/b", 10)
    assert one.held("a/b", 11) is None and one.held("a/c") is None and one.held("a/b") is not None


def test_what_a_killed_process_left_half_made_is_swept_and_what_a_live_one_makes_is_not(tmp_path: Path) -> None:
    program = """
import os, sys
from pathlib import Path
from pipeline.cache import Cache
with Cache(Path(sys.argv[1]), 1000).aside("half") as path:
    path.mkdir(parents=True)
    (path / "file").write_bytes(b"x")
    os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False).returncode == 9
    live = Cache(tmp_path, 1000)
    with live.aside("live") as path:
        path.write_bytes(b"x")
        assert len(list(tmp_path.glob(".tmp-*"))) == 2
        Cache(tmp_path, 1000).sweep()
        assert list(tmp_path.glob(".tmp-*")) == [path]
    assert not list(tmp_path.glob(".tmp-*"))


def test_a_file_that_was_handed_out_can_be_opened_while_others_fill_the_cache(tmp_path: Path) -> None:
    """Two threads add and two read, all through Caches of their own, as processes do."""
    missed: list[str] = []

    def add(thread: int) -> None:
        for number in range(60):
            put(Cache(tmp_path, 2000), f"a/{thread}-{number}")

    def read(thread: int) -> None:
        for number in range(400):
            one = Cache(tmp_path, 2000)
            path = one.held(f"a/{thread}-{number % 60}")
            if path:
                try:
                    assert path.read_bytes() == b"x" * 100
                except FileNotFoundError:
                    missed.append(path.name)

    threads = [threading.Thread(target=target, args=(number,)) for number in range(2) for target in (add, read)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not missed
    assert 2 <= len(copies(tmp_path)) <= 20


def test_the_bound_is_a_number_of_gigabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENMILL_CACHE_GB", "0.5")
    assert cache.bound() == 500_000_000
    monkeypatch.setenv("TOKENMILL_CACHE_GB", "much")
    with pytest.raises(ConfigError, match="TOKENMILL_CACHE_GB=much"):
        cache.bound()
