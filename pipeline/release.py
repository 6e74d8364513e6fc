"""A release: a mix as others get it from the hub, a slice of the store that it was built in.

    release.json                 what belongs to it, each file with its sha256; it comes last, so a release that has one is whole
    mixes/<mix>.lock.json        the lock-file, byte for byte
    mixes/<mix>.build.json       the books: sources, licences, funnel, what each stage cost; of units the shards alone
    tokenizers/<sha256>.json     the tokenizer that the lock names
    shards/<source>/<key>/       token ids, headers, document tables, the ledger of all documents read, the unit's record
    README.md, LICENSE.md, croissant.json, recipes/    its papers (tools/card); not in the list, for people may go on writing them

In: the bytes of a `release.json` and of its books, which anyone may have written. Out: a Release whose every path is a plain name of one
of these kinds, and Books of the types that the catalog takes. Cost: nothing but these files. Not: uploading (tools/push.py) and
downloading (download/release.py).

What a release does not hold: text, and what only its documents have (attributes, spans, duplicates, matches). `absent` says so.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from pipeline.config import Model, dotted
from pipeline.errors import PipelineError
from pipeline.unit import Artifact, Json, sealed, unsealed

MANIFEST = "release.json"
FORMAT = 1
SHARDS = "shards"
NAME = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}"  # one part of a path, whatever the system
FILE = re.compile(
    rf"mixes/{NAME}\.(lock|build)\.json|tokenizers/[0-9a-f]{{64}}\.json|{SHARDS}/{NAME}/[0-9a-f]{{32}}/{NAME}\.(bin|parquet|json)"
)
PAPERS = re.compile(r"(README|LICENSE)\.md|croissant\.json|recipes/.+")
Count = Annotated[int, Field(ge=0, strict=True)]


class FunnelLine(Model):
    stage: str
    reason: str
    documents: Count
    bytes: Count
    tokens: Count


class Cost(Model):
    """What the units of a stage cost where they were computed: seconds of the workers, bytes of text, peak in MiB."""

    stage: str
    output: str
    units: Count
    seconds: float
    cpu_seconds: float
    bytes: Count
    peak_rss_mb: float | None


class SourceBooks(Model):
    """What a build manifest says of a source (build.py), with two more: `release` and `costs`. raw: name, sha256 and bytes of each raw
    file. units: of shards only."""

    title: str
    origin: tuple[str, ...]
    licence: tuple[str, ...]
    revision: str | None
    files: Count
    raw_bytes: Count
    raw: tuple[tuple[str, str, Count], ...]
    units: dict[Literal["shards"], tuple[str, ...]]
    taggers: tuple[str, ...]
    first_part: Count
    drop: dict[str, str]
    failed: dict[str, Count]
    funnel: tuple[FunnelLine, ...]
    inner_eos: Count
    release: str
    costs: tuple[Cost, ...]


class Books(Model):
    """The build manifest of a released mix. data: what it was built from. order: as in any build manifest."""

    mix: str
    order: int
    data: str
    sources: dict[str, SourceBooks]

    def to_json(self) -> bytes:
        return sealed(self.model_dump(mode="json"))

    @classmethod
    def from_json(cls, content: bytes) -> "Books":
        """Raises PipelineError, which says what does not hold."""
        try:
            return cls.model_validate(unsealed(content))
        except ValidationError as error:
            first = error.errors()[0]
            raise PipelineError(f"its books: {dotted(first['loc'])}: {first['msg']}") from None
        except ValueError as error:
            raise PipelineError(f"its books: {error}") from error


@dataclass(frozen=True)
class Release:
    """mix: its name. fingerprint: the lock's. files: all that belongs to it but its papers, sorted by path."""

    mix: str
    fingerprint: str
    files: tuple[Artifact, ...]

    @property
    def lock(self) -> Artifact:
        return self.file(f"mixes/{self.mix}.lock.json")

    @property
    def build(self) -> Artifact:
        return self.file(f"mixes/{self.mix}.build.json")

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.bytes for file in self.files)

    def file(self, path: str) -> Artifact:
        """Raises PipelineError where the release does not hold it."""
        for file in self.files:
            if file.path == path:
                return file
        raise PipelineError(f"{MANIFEST} lists no {path}; push the mix again")

    def units(self) -> dict[str, dict[str, Artifact]]:
        """The files of each unit, by name, by the unit's folder."""
        found: dict[str, dict[str, Artifact]] = {}
        for file in self.files:
            folder, _, name = file.path.rpartition("/")
            if folder.startswith(f"{SHARDS}/"):
                found.setdefault(folder, {})[name] = file
        return found

    def to_json(self) -> bytes:
        """Sealed JSON: equal releases give equal bytes."""
        files = [[file.path, file.sha256, file.bytes] for file in self.files]
        return sealed({"format": FORMAT, "mix": self.mix, "fingerprint": self.fingerprint, "files": files})

    @classmethod
    def from_json(cls, content: bytes) -> "Release":
        """Raises PipelineError, which says what does not hold, but not where it came from."""
        try:
            fields = unsealed(content)
            found = fields["format"]
            if found == FORMAT:
                files = tuple(Artifact(str(path), str(sha256), int(size)) for path, sha256, size in fields["files"])
                return cls(_plain(fields["mix"]), str(fields["fingerprint"]), _checked(files))
        except (ValueError, KeyError, TypeError) as error:
            raise PipelineError(f"{MANIFEST} is damaged ({error})") from error
        raise PipelineError(f"{MANIFEST} has format {found!r}, this program reads {FORMAT}")


def _plain(name: Json) -> str:
    if not isinstance(name, str) or not re.fullmatch(NAME, name):
        raise ValueError(f"{name!r} is no name of a mix")
    return name


def _checked(files: tuple[Artifact, ...]) -> tuple[Artifact, ...]:
    """No path that leads elsewhere, none twice."""
    for file in files:
        if not FILE.fullmatch(file.path) or not re.fullmatch("[0-9a-f]{64}", file.sha256) or file.bytes < 0:
            raise ValueError(f"{file.path!r} is no file of a release")
    if len({file.path for file in files}) != len(files):
        raise ValueError("it lists a file twice")
    return files


def is_released(source: Mapping[str, Json]) -> bool:
    """Whether a source of a build manifest came in a release, without its documents."""
    return "release" in source


def absent(sources: Mapping[str, Mapping[str, Json]], what: str) -> str:
    """The sentence for what cannot be had of these sources, by name, because they came in a release. what: such as "no attributes"."""
    origins = sorted({str(source["release"]) for source in sources.values()})
    return (
        f"{_listed(sources)} came in the release {_listed(origins)}, which holds shards, document tables and the books, but {what}; "
        "build the mix from its raw files for that (its card says how)"
    )


def _listed(names: Iterable[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last
