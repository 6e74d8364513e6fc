"""`make lock`: what is installed, to the byte, on every Python and system that this project is for.

In: `constraints.txt`, the exact versions, chosen by people; `pyproject.toml`, what needs them; the package index that pip is
configured with. Out, in `requirements/`: a lock for what every install has (`pipeline`); one for each extra, of what it adds
(`s3`, `trainer`, `share`, `docs`; `adapt`, to `trainer`; `dev`, to all but `s3`); one for torch as the index has it, with
the CUDA libraries that it needs on Linux (`torch`); one for the installer itself (`install`). `torch-cpu.lock` is kept by
hand: PyPI has no CPU builds.

Each lists packages with the sha256 of their wheels for SYSTEMS, so that `pip install --require-hashes --no-deps` takes no other
byte and resolves nothing. A source archive, whose build would run its code, is listed only where there is no wheel.

Cost: two minutes: pip reads the metadata of wheels, not the wheels. Not: it chooses no versions, and it trusts the index for what
a version's files are.
"""

import json
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.tags import Tag, compatible_tags, cpython_tags, mac_platforms
from packaging.utils import canonicalize_name, parse_wheel_filename
from pypi_simple import PyPISimple

from pipeline.download.registries import package_index
from pipeline.errors import ConfigError
from pipeline.files import write_atomically

ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS = ROOT / "constraints.txt"
LOCKS = ROOT / "requirements"

PYTHONS = ((3, 11), (3, 12), (3, 13))
MANYLINUX = [*(f"manylinux_2_{minor}" for minor in range(39, 4, -1)), "manylinux2014", "manylinux2010", "manylinux1"]
INSTALLERS = ("pip", "setuptools")
# Extras, and what is installed before them.
BELOW = {"trainer": ("torch",), "adapt": ("torch", "trainer"), "dev": ("torch", "trainer", "adapt", "share", "docs")}


@dataclass(frozen=True)
class System:
    """Where the locks must hold, as markers see it."""

    platform: str
    machine: str

    @property
    def wheels(self) -> list[str]:
        """Platform tags of wheels that run here."""
        if self.platform == "darwin":
            return list(mac_platforms((15, 0), self.machine))
        return [f"{name}_{self.machine}" for name in MANYLINUX] + [f"linux_{self.machine}"]

    def environment(self, python: tuple[int, int]) -> dict[str, str]:
        version = ".".join(map(str, python))
        system = {"linux": "Linux", "darwin": "Darwin"}[self.platform]
        return {
            **{name: str(value) for name, value in default_environment().items()}, "python_version": version,
            "python_full_version": f"{version}.9", "sys_platform": self.platform, "platform_machine": self.machine,
            "platform_system": system, "os_name": "posix", "implementation_name": "cpython", "platform_python_implementation": "CPython",
        }  # fmt: skip


SYSTEMS = (System("linux", "x86_64"), System("linux", "aarch64"), System("darwin", "arm64"))
Place = tuple[tuple[int, int], System]
PLACES: tuple[Place, ...] = tuple(product(PYTHONS, SYSTEMS))
Needs = Mapping[str, frozenset[Place]]  # package → where it is needed


def main() -> None:
    for name, text in locks().items():
        write_atomically(LOCKS / f"{name}.lock", text.encode())
        print(f"requirements/{name}.lock: {sum(line[0].isalnum() for line in text.splitlines())} packages, {text.count('--hash')} files")


def locks() -> dict[str, str]:
    """Name of lock → its content. Raises ConfigError naming packages that `constraints.txt` lacks, or has for nothing."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    everything = [*project["dependencies"], *(each for extra in extras.values() for each in extra), *INSTALLERS]
    metadata = _metadata(everything)

    def needs(requirements: Iterable[str], places: Sequence[Place] = PLACES) -> Needs:
        found: dict[str, set[Place]] = {}
        for place in places:
            for package in _closure(requirements, metadata, place):
                found.setdefault(package, set()).add(place)
        return {package: frozenset(where) for package, where in found.items()}

    installers = needs(INSTALLERS)
    base = _less(needs(project["dependencies"]), installers)
    anywhere, on_mac = needs(["torch"]), needs(["torch"], [place for place in PLACES if place[1].platform == "darwin"])
    torch = {package: where for package, where in anywhere.items() if package == "torch" or package not in on_mac}
    groups: dict[str, Needs] = {"install": installers, "pipeline": base, "torch": torch}
    for extra, requirements in extras.items():
        below = [installers, base, *(groups[lower] for lower in BELOW.get(extra, ()))]
        groups[extra] = _less(needs(requirements), *below)
    versions = pinned()
    packages = sorted({package for group in groups.values() for package in group})
    if unused := sorted(versions.keys() - set(packages)):
        raise ConfigError(f"constraints.txt has {', '.join(unused)}, which nothing needs; remove them")
    with package_index() as client, ThreadPoolExecutor(8) as pool:
        hashes = dict(zip(packages, pool.map(lambda package: _hashes(client, package, versions[package]), packages), strict=True))
    return {name: _lock(name, group, versions, hashes) for name, group in groups.items()}


def pinned() -> dict[str, str]:
    """Canonical name → version, of `constraints.txt`."""
    lines = (line.partition("#")[0].strip() for line in CONSTRAINTS.read_text(encoding="utf-8").splitlines())
    return {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines if line)}


def _metadata(requirements: Sequence[str]) -> dict[str, list[Requirement]]:
    """What each package requires, of all that these need anywhere."""
    metadata: dict[str, list[Requirement]] = {}
    wanted = list(requirements)
    while wanted:  # again for what is needed on other Pythons or systems than this one
        metadata |= _resolved(wanted)
        versions = pinned()
        anywhere = {package for place in PLACES for package in _closure(requirements, metadata, place)}
        if unknown := sorted((anywhere | metadata.keys()) - versions.keys()):
            raise ConfigError(f"constraints.txt has no version of {', '.join(unknown)}; add them: name==version")
        wanted = [f"{package}=={versions[package]}" for package in sorted(anywhere - metadata.keys())]
    return metadata


def _resolved(requirements: Sequence[str]) -> dict[str, list[Requirement]]:
    """What pip would install here, from the index alone."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--use-feature=fast-deps"]
        settings = {**os.environ, "PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": ""}
        subprocess.run([*command, "--report", str(report), "-c", str(CONSTRAINTS), *requirements], check=True, env=settings)
        found = [item["metadata"] for item in json.loads(report.read_bytes())["install"]]
    return {canonicalize_name(each["name"]): [Requirement(text) for text in each.get("requires_dist", [])] for each in found}


def _closure(requirements: Iterable[str], metadata: Mapping[str, Sequence[Requirement]], place: Place) -> set[str]:
    """The packages that these need in one place, themselves included; those that `metadata` lacks are taken to need nothing."""
    python, system = place
    environment = system.environment(python)
    pending = [(Requirement(text), "") for text in requirements]  # and the extra that asks for it
    seen: set[tuple[str, str]] = set()
    while pending:
        requirement, asking = pending.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({**environment, "extra": asking}):
            continue
        package = canonicalize_name(requirement.name)
        new = {(package, extra) for extra in {"", *requirement.extras}} - seen
        pending += [(each, extra) for _, extra in new for each in metadata.get(package, [])]
        seen |= new
    return {package for package, _ in seen}


def _less(needs: Needs, *others: Needs) -> Needs:
    """What is left to be installed where the others are."""
    left = {package: where.difference(*(other.get(package, frozenset()) for other in others)) for package, where in needs.items()}
    return {package: where for package, where in left.items() if where}


def _hashes(client: PyPISimple, package: str, version: str) -> list[str]:
    """`sha256:…` of each file of a version that some place needs, sorted."""
    files = [file for file in client.get_project_page(package).packages if file.version == version and not file.is_yanked]
    wheels = {file.digests["sha256"]: parse_wheel_filename(file.filename)[3] for file in files if file.package_type == "wheel"}
    supported = {place: _tags(place) for place in PLACES}
    chosen = {digest for digest, tags in wheels.items() if any(tags & known for known in supported.values())}
    if not chosen:
        chosen = {file.digests["sha256"] for file in files if file.package_type == "sdist"}
    if not chosen:
        raise ConfigError(f"the index has no file of {package}=={version}; choose another version in constraints.txt")
    return sorted(f"sha256:{digest}" for digest in chosen)


def _tags(place: Place) -> set[Tag]:
    python, system = place
    interpreter = "cp" + "".join(map(str, python))
    return {*cpython_tags(python, platforms=system.wheels), *compatible_tags(python, interpreter, system.wheels)}


def _lock(name: str, group: Needs, versions: Mapping[str, str], hashes: Mapping[str, Sequence[str]]) -> str:
    lines = [f"# {name}: made by `make lock` from constraints.txt and pyproject.toml; change those."]
    for package in sorted(group):
        marker = _marker(group[package])
        head = f"{package}=={versions[package]}" + (f" ; {marker}" if marker else "")
        lines.append(" \\\n    ".join([head, *(f"--hash={each}" for each in hashes[package])]))
    return "\n".join(lines) + "\n"


def _marker(where: frozenset[Place]) -> str:
    """The PEP 508 marker of these places; empty where it is all of them."""
    pythons = [python for python in PYTHONS if any(place[0] == python for place in where)]
    systems = [system for system in SYSTEMS if any(place[1] == system for place in where)]
    assert where == frozenset(product(pythons, systems)), "a package is needed by Python and system together; spell such a marker out"
    parts = []
    if len(pythons) < len(PYTHONS):
        parts.append(" or ".join(f'python_version == "{major}.{minor}"' for major, minor in pythons))
    if len(systems) < len(SYSTEMS):
        linux = [system for system in SYSTEMS if system.platform == "linux"]
        parts.append(
            'sys_platform == "linux"' if systems == linux
            else " or ".join(f'(sys_platform == "{s.platform}" and platform_machine == "{s.machine}")' for s in systems)
        )  # fmt: skip
    return " and ".join(f"({part})" if " or " in part and len(parts) > 1 else part for part in parts)


if __name__ == "__main__":
    main()
