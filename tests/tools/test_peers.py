import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tools import peers
from tools.peers import InstallFailed, Peer, PeerUnavailable

THIS = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "tokenmill" / "venvs"


def test_environment_is_made_once_and_works_where_it_lies(cache: Path) -> None:
    peer = Peer("empty", (), (THIS,))
    python = peers.python(peer)
    assert python.is_relative_to(cache)
    prefix = subprocess.run([python, "-c", "import sys; print(sys.prefix)"], capture_output=True, text=True, check=True).stdout.strip()
    assert Path(prefix) == python.parents[1]
    (python.parents[1] / "mark").touch()
    assert peers.python(peer) == python and (python.parents[1] / "mark").exists()


def test_failed_installation_leaves_nothing(cache: Path) -> None:
    with pytest.raises(InstallFailed, match="no-such-file.whl"):
        peers.python(Peer("broken", (("./no-such-file.whl",),), (THIS,)))
    assert list(cache.iterdir()) == []


def test_other_requirements_are_another_environment(cache: Path) -> None:
    wheel = cache.parent / "nothing-1-py3-none-any.whl"
    wheel.parent.mkdir(parents=True)
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("nothing-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: nothing\nVersion: 1\n")
        file.writestr("nothing-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr("nothing-1.dist-info/RECORD", "")
    bare, other = (peers.python(Peer("a", installs, (THIS,))) for installs in ((), ((str(wheel),),)))
    assert bare != other
    assert [path.name for path in peers.site_packages(other).iterdir()] == ["nothing-1.dist-info"]


def test_python_that_is_not_there_is_named(cache: Path) -> None:
    with pytest.raises(PeerUnavailable, match=r"needs Python 3\.1"):
        peers.python(Peer("old", (), ("3.1",)))
