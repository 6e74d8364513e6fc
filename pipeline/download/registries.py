"""Files of package registries: where PyPI or npm has them, and their bytes, verified.

In: registry, package, version, file name, sha256. Out: a URL, or the file at a path. Cost: two short requests to locate
it and one for its bytes. Broken connections and busy servers are tried again; a file whose sha256 differs is refused.

Indexes that pip is configured with (`PIP_INDEX_URL`, `pip config`, `PIP_CERT`) and npm's `npm_config_registry` are used,
and so are HTTPS_PROXY and .netrc, as `requests` has them; pip's extra indexes and npm's access tokens are not.
"""

import functools
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote, urlsplit

import requests

from pipeline.errors import PipelineError
from pipeline.files import BLOCK

if TYPE_CHECKING:
    from pypi_simple import PyPISimple

ATTEMPTS = 4
FIRST_PAUSE_S = 1.0  # doubled after each attempt
LARGEST = 4 << 30  # bytes of a file, far above any package
TIMEOUT_S = (15, 60)  # to connect, between two pieces of an answer
T = TypeVar("T")


@dataclass(frozen=True)
class PackageFile:
    """One file that a registry keeps of one version of a package."""

    registry: str  # pypi or npm
    name: str
    version: str
    file: str
    sha256: str

    @classmethod
    def of(cls, package: str, file: str, sha256: str) -> "PackageFile":
        """From `pypi:NAME==VERSION` or `npm:NAME@VERSION`."""
        registry, _, rest = package.partition(":")
        if registry not in ("pypi", "npm"):
            raise PipelineError(f"{package}: samples come from pypi: and npm: packages")
        name, version = rest.split("==", 1) if registry == "pypi" else rest.rsplit("@", 1)
        return cls(registry, name, version, file, sha256)

    def __str__(self) -> str:
        return f"{self.file} of {self.registry}:{self.name}"

    @property
    def setting(self) -> str:
        """What a person checks when the registry does not answer as it should."""
        return "PIP_INDEX_URL" if self.registry == "pypi" else "npm_config_registry"


def locate(file: PackageFile) -> tuple[str, int]:
    """The file's URL, as its registry tells, and its size in bytes (0 where the server keeps it to itself).

    Raises PipelineError when the registry cannot be reached or has no such file.
    """

    def ask() -> tuple[str, int]:
        with _session() as session:
            url = _npm_url(file, session) if file.registry == "npm" else _pypi_url(file, session)
            answer = session.head(url, timeout=TIMEOUT_S, allow_redirects=True)
            return url, int(answer.headers.get("Content-Length", 0)) if answer.ok else 0

    return _persistently(file, ask)


def download(file: PackageFile, url: str, path: Path, on_bytes: Callable[[int], None]) -> None:
    """Write the file to `path` and verify it. `on_bytes` hears of bytes as they come, and of negative ones when an
    attempt is given up. Raises PipelineError when it cannot be had, or is another file than expected.
    """
    free = shutil.disk_usage(path.parent).free

    def get() -> str:
        digest, received = hashlib.sha256(), 0
        try:
            with _session() as session, session.get(url, stream=True, timeout=TIMEOUT_S) as answer, open(path, "wb") as sink:
                answer.raise_for_status()
                size = int(answer.headers.get("Content-Length", 0))
                if size > free:
                    raise PipelineError(f"{file}: {size} bytes to download and {free} free at {path.parent}; free some")
                for block in answer.iter_content(BLOCK):
                    sink.write(block)
                    digest.update(block)
                    received += len(block)
                    on_bytes(len(block))
                    if received > LARGEST:
                        raise PipelineError(f"{file} does not end after {LARGEST:,} bytes; check {file.setting}")
        except requests.RequestException:
            on_bytes(-received)
            raise
        return digest.hexdigest()

    found = _persistently(file, get)
    if found != file.sha256:
        raise PipelineError(
            f"{file}: its sha256 should be {file.sha256} and is {found}; a proxy or mirror may have given another "
            f"file (check {file.setting}), or the sha256 in the YAML is wrong"
        )


def _persistently(file: PackageFile, action: Callable[[], T]) -> T:
    """`action`, tried again after broken connections and busy servers, but not after a plain refusal."""
    for attempt in range(ATTEMPTS):
        try:
            return action()
        except requests.RequestException as error:
            refused = error.response is not None and error.response.status_code < 500 and error.response.status_code != 429
            if refused or attempt == ATTEMPTS - 1:
                raise PipelineError(
                    f"{file} could not be downloaded ({_reason(error)}); check the network, the proxy (HTTPS_PROXY) and "
                    f"{file.setting}; the same command goes on from here"
                ) from error
            time.sleep(FIRST_PAUSE_S * 2**attempt)
    raise AssertionError("the last attempt returns or raises")


def _reason(error: requests.RequestException) -> str:
    if error.response is not None:
        return f"{urlsplit(error.response.url).hostname} answered {error.response.status_code} {error.response.reason}"
    return f"{type(error).__name__}: {error}"[:300]


def _session() -> requests.Session:
    session = requests.Session()
    session.headers["Accept-Encoding"] = "identity"  # archives as they are, not as a server may repack them
    if certificates := os.environ.get("PIP_CERT"):
        session.verify = certificates
    return session


def _npm_url(file: PackageFile, session: requests.Session) -> str:
    registry = os.environ.get("npm_config_registry", "https://registry.npmjs.org").rstrip("/")  # noqa: SIM112 (npm's own)
    answer = session.get(f"{registry}/{quote(file.name, safe='@')}/{file.version}", timeout=TIMEOUT_S)
    if answer.status_code == 404:
        raise _absent(file, registry)
    answer.raise_for_status()
    return str(answer.json()["dist"]["tarball"])


def _pypi_url(file: PackageFile, session: requests.Session) -> str:
    from pypi_simple.errors import NoSuchProjectError, UnsupportedContentTypeError, UnsupportedRepoVersionError

    client = package_index(session)
    index = client.endpoint
    try:
        page = client.get_project_page(file.name, timeout=TIMEOUT_S)
    except NoSuchProjectError as error:
        raise _absent(file, index) from error
    except (UnsupportedContentTypeError, UnsupportedRepoVersionError) as error:
        raise PipelineError(f"{file}: {urlsplit(index).hostname} is no package index ({error}); check PIP_INDEX_URL") from error
    for package in page.packages:
        if package.filename == file.file:
            return package.url
    raise _absent(file, index)


def package_index(session: requests.Session | None = None) -> "PyPISimple":
    """A client of the index that pip is configured with."""
    # Imported here: it takes 0.2 s, and a finished mix asks no index.
    from pypi_simple import PyPISimple

    return PyPISimple(os.environ.get("PIP_INDEX_URL") or _configured_index(), session=session or _session())


@functools.cache
def _configured_index() -> str:
    """The index that pip is configured with, else PyPI. Asking pip takes half a second."""
    # `pip config list` merges all of pip's files; `pip config get` looks into one.
    told = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False)
    for line in told.stdout.splitlines():
        key, _, value = line.partition("=")
        if key == "global.index-url":
            return value.strip("'\"")
    return "https://pypi.org/simple/"


def _absent(file: PackageFile, registry: str) -> PipelineError:
    return PipelineError(
        f"{file} is not at {urlsplit(registry).hostname} in version {file.version}; check {file.setting}, or the source's YAML"
    )
