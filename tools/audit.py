"""`make audit`: does anyone know a vulnerability in what `requirements/*.lock` install?

In: the locks. Out: a line for each known vulnerability, exit status 1 if there is one, or if a package could not be asked about.
Asks the index's vulnerability service through pip-audit, which is put into an environment of its own; or, where no such service
is reached, `--advisories`: a checkout of github.com/pypa/advisory-database, whose date is what the answer is worth.

Cost: seconds. Not: it finds what was reported, nothing else; a version released after the last report looks clean.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml
from packaging.utils import canonicalize_name
from packaging.version import Version

from pipeline.errors import PipelineError
from tools import peers
from tools.lock import LOCKS

PIP_AUDIT = peers.Peer(
    "pip-audit",
    (
        (
            "pip-audit==2.10.1", "boolean.py==5.0", "CacheControl==0.14.4", "cyclonedx-python-lib==11.12.0", "defusedxml==0.7.1",
            "filelock==4.2.11", "license-expression==30.4.4", "msgpack==1.2.4", "packageurl-python==0.17.6", "packaging==26.3",
            "pip==26.3", "pip-api==0.0.35", "pip-requirements-parser==32.0.1", "platformdirs==4.14.7", "py-serializable==2.2.0",
            "pyparsing==3.3.3", "sortedcontainers==2.4.0", "tomli==2.5.0", "tomli-w==1.2.0", "typing_extensions==4.16.0",
            *peers.OF_RICH, *peers.OF_REQUESTS,
        ),
    ),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--advisories", type=Path, help="a checkout of github.com/pypa/advisory-database")
    options = parser.parse_args()
    versions = locked()
    found = list(reported(versions, options.advisories) if options.advisories else asked(versions))
    for line in found:
        print(line)
    print(f"{len(versions)} packages, {len(found)} known vulnerabilities")
    sys.exit(1 if found else 0)


def locked() -> dict[str, str]:
    """Canonical name → version, of all locks. A local version (`+cpu`) is the release that it was built from."""
    lines = [line for path in sorted(LOCKS.glob("*.lock")) for line in path.read_text(encoding="utf-8").splitlines() if line[0].isalnum()]
    pins = (line.split()[0].partition("==") for line in lines)
    return {canonicalize_name(name): Version(version).public for name, _, version in pins}


def asked(versions: Mapping[str, str]) -> Iterator[str]:
    """What pip-audit is told. Raises PipelineError if it is told nothing of some package: it ends with status 0 then."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
        requirements.write("".join(f"{name}=={version}\n" for name, version in versions.items()))
        requirements.flush()
        command = [str(peers.python(PIP_AUDIT)), "-m", "pip_audit", "--format=json", "--progress-spinner=off", "--no-deps", "--disable-pip"]
        done = subprocess.run([*command, "-r", requirements.name], capture_output=True, text=True)
    try:
        answers = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        raise PipelineError(f"pip-audit gave no answer: {done.stderr.strip()[-300:]}") from None
    skipped = [answer["name"] for answer in answers if "vulns" not in answer] + sorted(versions.keys() - {a["name"] for a in answers})
    if skipped:
        raise PipelineError(
            f"the index told nothing about {len(skipped)} of {len(versions)} packages ({', '.join(skipped[:3])} …): it is a mirror without "
            "vulnerability reports; run this where PyPI itself is reached, or with --advisories"
        )
    for answer in answers:
        for each in answer["vulns"]:
            yield f"{answer['name']} {answer['version']}: {each['id']}; mended in {', '.join(each['fix_versions']) or 'no release'}"


def reported(versions: Mapping[str, str], checkout: Path) -> Iterator[str]:
    """What the advisories say: one file each, in OSV's format (https://ossf.github.io/osv-schema/), versions listed or as ranges."""
    if not (checkout / "vulns").is_dir():
        raise PipelineError(f"{checkout} is no checkout of github.com/pypa/advisory-database: it has no folder vulns/")
    for name, version in versions.items():
        for path in sorted((checkout / "vulns" / name).glob("*.yaml")):
            advisory = yaml.load(path.read_bytes(), yaml.CSafeLoader)
            affected = [each for each in advisory["affected"] if canonicalize_name(each["package"]["name"]) == name]
            if "withdrawn" not in advisory and any(_affects(each, version) for each in affected):
                yield f"{name} {version}: {advisory['id']}"


def _affects(affected: Mapping, version: str) -> bool:
    return version in affected.get("versions", []) or any(
        _within(each["events"], Version(version)) for each in affected.get("ranges", []) if each["type"] == "ECOSYSTEM"
    )


def _within(events: list[dict[str, str]], version: Version) -> bool:
    """OSV's evaluation: the last event at or before the version decides."""
    inside = False
    for event in sorted(events, key=lambda event: Version(next(iter(event.values())))):
        kind, bound = next(iter(event.items()))
        if kind == "introduced" and version >= Version(bound):
            inside = True
        elif (kind == "fixed" and version >= Version(bound)) or (kind == "last_affected" and version > Version(bound)):
            inside = False
    return inside


if __name__ == "__main__":
    main()
