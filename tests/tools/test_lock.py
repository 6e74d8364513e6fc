"""The locks list what pyproject.toml asks for, in the versions that constraints.txt states, each file by its hash."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pipeline.errors import PipelineError
from tools import audit
from tools.lock import BELOW, LOCKS, ROOT, pinned


def entries(name: str) -> dict[str, tuple[str, list[str]]]:
    """Package → version and hashes, as pip reads them."""
    text = (LOCKS / f"{name}.lock").read_text(encoding="utf-8").replace("\\\n", "")
    found = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)(?: ; [^#\n]*?)?((?:\s+--hash=\S+)*)$", text, re.MULTILINE)
    assert len(found) == sum(not line.startswith("#") for line in text.splitlines())
    return {package: (version, hashes.split()) for package, version, hashes in found}


@pytest.mark.parametrize("extra", [None, "s3", "trainer", "adapt", "share", "docs", "dev"])
def test_every_requirement_of_the_project_is_locked_within_its_bounds(extra: str | None) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = project["optional-dependencies"][extra] if extra else project["dependencies"]
    names = ["install", "pipeline", *BELOW.get(extra or "", ()), *([extra] if extra else [])]
    locked = {package: version for name in names for package, (version, _) in entries(name).items()}
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)]), requirement


def test_the_locks_hold_the_versions_that_people_chose_and_a_sha256_of_each_file() -> None:
    versions, seen = pinned(), set()
    for path in sorted(LOCKS.glob("*.lock")):
        for package, (version, hashes) in entries(path.stem).items():
            assert version.removesuffix("+cpu") == versions[package]
            assert hashes and all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", each) for each in hashes)
            seen.add(package)
    assert seen == versions.keys()


ADVISORY = {
    "id": "PYSEC-0-1",
    "affected": [
        {
            "package": {"name": "Some.Name", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "1.2"}, {"fixed": "1.10"}]}],
            "versions": ["0.9"],
        }
    ],
}


@pytest.mark.parametrize(
    ("version", "known"), [("0.9", True), ("1.1", False), ("1.2", True), ("1.9", True), ("1.10", False), ("2.0", False)]
)
def test_a_version_within_an_advisory_is_reported(tmp_path: Path, version: str, known: bool) -> None:
    folder = tmp_path / "vulns" / "some-name"
    folder.mkdir(parents=True)
    (folder / "PYSEC-0-1.yaml").write_text(yaml.safe_dump(ADVISORY))
    found = list(audit.reported({"some-name": version, "other": "1.2"}, tmp_path))
    assert found == ([f"some-name {version}: PYSEC-0-1"] if known else [])


def test_a_folder_without_advisories_is_no_clean_bill(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="vulns/"):
        list(audit.reported({"some-name": "1.0"}, tmp_path))
