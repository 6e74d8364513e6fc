"""Which files of the Hugging Face hub a source takes: of a pinned commit, and only as many as a token budget asks for.

In: a source's `hub:` and a budget of tokens. Out: Remotes with the hashes that the hub states (sha256 of LFS files, blob id of
small ones). Files are taken in the order of the sha256 of their paths: a deterministic choice that is spread over the whole
listing, since the first files of a listing are often of one kind.

Cost: one request per 1000 files below the folders that the globs have in common, once: the listing of a commit never changes and is
kept in the store, so that a finished mix asks no hub. A revision that is no commit (`main`) is resolved when it is first listed
and stays that commit until the kept listing is removed.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pipeline.download import Remote
from pipeline.download.hub_file import CONNECT_S, SILENCE_S, gated, place_of, stream
from pipeline.download.transfer import GIT, fetch
from pipeline.errors import PipelineError
from pipeline.recipe import Hub, Published, Source, TokenizerSpec
from pipeline.store import Store
from pipeline.unit import Artifact, canonical

if TYPE_CHECKING:
    import httpx2

SPARE = 1.25  # take this much more than the budget: filters, duplicates and the validation set will not be trained on
COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Listing:
    """The files of a source at a commit, sorted by path: all that its globs name."""

    commit: str
    files: tuple[Remote, ...]

    @property
    def bytes(self) -> int:
        return sum(file.size for file in self.files)

    def select(self, tokens: int | None, published: Published) -> list[Remote]:
        """Files for about `tokens` training tokens, by the published tokens per listed byte; all of them for None."""
        if tokens is None:
            return list(self.files)
        per_byte = published.tokens / max(self.bytes, 1)
        chosen: list[Remote] = []
        expected = 0.0
        for file in sorted(self.files, key=lambda file: hashlib.sha256(file.path.encode()).digest()):
            if expected >= SPARE * tokens:
                break
            chosen.append(file)
            expected += file.size * per_byte
        return sorted(chosen, key=lambda file: file.path)


def select(source: Source, tokens: int | None, store: Store | None = None) -> list[Remote]:
    """The files to download for about `tokens` training tokens; all of them for None. Raises as `listing` does."""
    return listing(source, store).select(tokens, declared(source)[1])


def listing(source: Source, store: Store | None = None) -> Listing:
    """What the source's globs name, from `store` where it was listed before. Raises PipelineError when the hub refuses or the
    globs match nothing."""
    hub, _ = declared(source)
    asked = {"repo": hub.repo, "revision": hub.revision, "files": list(hub.files), "exclude": list(hub.exclude)}
    kept = f"downloads/hub/{source.name}.json"
    if store and (found := _kept(store, kept, asked)):
        return found
    with explained(source.name, hub.repo, hub.revision, hub.terms):
        if hub.gated:
            _ask(f"/api/datasets/{hub.repo}/auth-check")  # the listing is open to all, the files are not
        commit = commit_of(hub.repo, hub.revision)
        files = tuple(sorted(_listed(hub, commit), key=lambda file: file.path))
    if not files:
        raise PipelineError(f"{source.name}: no file of {hub.repo}@{hub.revision} matches {', '.join(hub.files)}")
    if store:
        store.write(kept, canonical({**asked, "commit": commit, "listing": [asdict(file) for file in files]}))
    return Listing(commit, files)


def commit_of(repository: str, revision: str) -> str:
    """The commit that a revision of a data set is now; itself if it is one."""
    if COMMIT.fullmatch(revision):
        return revision
    return str(_ask(f"/api/datasets/{repository}/revision/{quote(revision, safe='')}?expand=sha").json()["sha"])


def bound_waiting(seconds: float) -> None:
    """Let no request of the client wait longer for a byte; by itself it waits for ever."""
    import httpx2
    from huggingface_hub.utils import get_session

    get_session().timeout = httpx2.Timeout(seconds, connect=CONNECT_S)


def stated(entry: Any) -> str:
    """What the hub says of the contents of a RepoFile, as a Remote has it."""
    return str(entry.lfs.sha256) if entry.lfs else f"{GIT}{entry.blob_id}"


def declared(source: Source) -> tuple[Hub, Published]:
    if source.hub is None or source.published is None:
        raise PipelineError(f"{source.name}: its YAML names no hub repository; use DATA=<folder>")
    return source.hub, source.published


def fetch_tokenizer(spec: TokenizerSpec, folder: Path) -> Path:
    """The tokenizer.json that `spec` names, from the hub unless it is there, with the sha256 that `spec` states."""
    if spec.hub is None:
        raise PipelineError(f"tokenizer {spec.name}: its YAML names no hub repository")
    repository, revision, name = spec.hub.repo, spec.hub.revision, spec.hub.file
    path = folder / f"{spec.sha256}.json"
    if not path.exists():
        with explained(f"tokenizer {spec.name}", repository, revision):
            sizes = [entry.size for entry in _tree(repository, "model", revision, _fixed(name)) if entry.path == name]
        if not sizes:
            raise PipelineError(f"tokenizer {spec.name}: {repository}@{revision} has no {name}; correct its YAML")
        part = path.with_suffix(".part")
        fetch(place_of(repository, revision, name, dataset=False), Artifact(name, spec.sha256, sizes[0]), part, stream)
        os.replace(part, path)
    return path


def _kept(store: Store, path: str, asked: dict[str, Any]) -> Listing | None:
    """The listing that was kept, if it answers the same question. Others may have written it: where a file lies is not taken from it."""
    try:
        kept = json.loads(store.read(path))
        if any(kept.get(name) != value for name, value in asked.items()) or not COMMIT.fullmatch(kept["commit"]):
            return None
        files = [Remote(**file) for file in kept["listing"]]
        return Listing(kept["commit"], tuple(replace(file, place=place_of(asked["repo"], kept["commit"], file.path)) for file in files))
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _listed(hub: Hub, commit: str) -> Iterator[Remote]:
    for folder in _folders(hub.files):
        for entry in _tree(hub.repo, "dataset", commit, folder):
            if _matches(entry.path, hub.files) and not _matches(entry.path, hub.exclude):
                yield Remote(entry.path, entry.size, stated(entry), place_of(hub.repo, commit, entry.path))


def _tree(repository: str, kind: str, revision: str, folder: str) -> Iterator[Any]:
    """The client's RepoFiles anywhere below a folder; none where there is no such folder."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import EntryNotFoundError
    from huggingface_hub.hf_api import RepoFile

    try:
        for entry in HfApi().list_repo_tree(repository, folder or None, repo_type=kind, revision=revision, recursive=True):
            if isinstance(entry, RepoFile):
                yield entry
    except EntryNotFoundError:
        pass


def _folders(globs: Iterable[str]) -> list[str]:
    """The folders to list: what globs have before their first wildcard, without those inside another one."""
    fixed = {_fixed(glob) for glob in globs}
    return sorted(folder for folder in fixed if not any(folder.startswith(f"{other}/") or (folder and not other) for other in fixed))


def _fixed(glob: str) -> str:
    parents = glob.split("/")[:-1]
    return "/".join(takewhile(lambda part: not set(part) & set("*?["), parents))


def _matches(path: str, globs: Iterable[str]) -> bool:
    return any(fnmatchcase(path, glob) for glob in globs)


def _ask(path: str) -> "httpx2.Response":
    """The answer of the hub's API; a busy hub is asked again by the client."""
    from huggingface_hub import constants
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_backoff

    answer = http_backoff("GET", constants.ENDPOINT + path, headers=build_hf_headers())
    hf_raise_for_status(answer)
    return answer


@contextmanager
def explained(
    name: str, repository: str, revision: str, terms: str | None = None, remedy: str = "pin another in its YAML"
) -> Iterator[None]:
    """What the client raises, as what a person can do about it, in one line. remedy: for a revision that is not there."""
    import httpx2
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError, RevisionNotFoundError

    bound_waiting(SILENCE_S)
    try:
        yield
    except OfflineModeIsEnabled:
        raise PipelineError(f"{name}: {repository} was not listed yet and HF_HUB_OFFLINE is set; unset it to list it once") from None
    except GatedRepoError:
        raise PipelineError(f"{name}: {gated(repository, terms)}") from None
    except RevisionNotFoundError:
        raise PipelineError(f"{name}: {repository} has no revision {revision}; {remedy}") from None
    except RepositoryNotFoundError:
        raise PipelineError(f"{name}: no {repository} on the hub, or it needs HF_TOKEN") from None
    except HfHubHTTPError as error:
        code = error.response.status_code
        then = "your token may not read it, set another HF_TOKEN" if code in (401, 403) else "run the same command again"
        raise PipelineError(f"{name}: the hub did not list {repository}: it answered {code}; {then}") from None
    except (httpx2.HTTPError, OSError) as error:
        reason = " ".join(f"{type(error).__name__} {error}".split())[:200]
        raise PipelineError(
            f"{name}: the hub did not list {repository}: {reason}; check the network and the proxy (HTTPS_PROXY), then run the same "
            "command again"
        ) from None
