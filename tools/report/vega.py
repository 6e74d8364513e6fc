"""Vega-Lite's scripts, which draw the report's charts, as the text that the page carries.

In: npm's packages of a pinned version, each with its sha256. Out: the scripts, and the licences that go with them. They are downloaded
once, 2 MB, into `~/.cache/tokenmill/packages`; 0.8 MB of them go into every page. Nothing is run here: a browser runs them, and
under the page's policy, so expressions in charts are interpreted and never evaluated as JavaScript.
"""

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

from pipeline.download.packages import Archive, fetch_all
from pipeline.errors import PipelineError
from pipeline.progress import Progress
from pipeline.recipe import SamplePackage


def _package(name: str, version: str, sha256: str) -> SamplePackage:
    return SamplePackage(
        package=f"npm:{name}@{version}", file=f"{name}-{version}.tgz", sha256=sha256, licence="BSD-3-Clause",
        members=(f"package/build/{name}.min.js", "package/LICENSE"),
    )  # fmt: skip


# In the order in which a page runs them.
PACKAGES = (
    _package("vega", "6.4.0", "3521fb6ff68a94a40323954f0ba4484ba4014b157bfd37f89a3b063082320c42"),
    _package("vega-lite", "6.4.3", "24260f85e6f5bfe1069505f7c5c2b9863181ac413ef1030746f0a80c93991ce5"),
    _package("vega-embed", "7.3.0", "d9a958ced3240f0418df7d5e12e97dba6e63cecda15b8403e47a0db7eb6ea859"),
)


class Script(NamedTuple):
    package: str
    text: str
    licence: str


def scripts(progress: Progress) -> list[Script]:
    """Raises PipelineError when npm's registry cannot be reached and they are not there yet, or when they were changed since."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tokenmill" / "packages"
    fetch_all({package.package: [package] for package in PACKAGES}, folder, progress)
    return [_script(Archive.of(package, folder), package) for package in PACKAGES]


def _script(archive: Archive, package: SamplePackage) -> Script:
    texts = {}
    for file in archive.raw_files(package):
        content = Path(file.path).read_bytes()
        if hashlib.sha256(content).hexdigest() != file.sha256:
            raise PipelineError(f"{file.path} is not what was downloaded; delete {archive.manifest_path} and run this again")
        texts[Path(file.path).suffix] = content.decode()
    return Script(package.package.removeprefix("npm:"), texts[".js"], texts[""])
