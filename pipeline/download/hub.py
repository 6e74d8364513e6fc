"""A source's files from the Hugging Face hub, at a pinned revision, only as many as a token budget asks for.

The repository is listed, never guessed at. Files are taken in the order of the sha256 of their paths: a deterministic
selection that is spread over the whole listing. Each file is compared with the hash the hub states (sha256 of LFS
files, git blob id of small ones), because the client itself checks lengths only.
"""

import hashlib
import json
import shutil
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.files import BLOCK, sha256_of, write_atomically
from pipeline.readers import RawFile
from pipeline.recipe import Hub, Published, Source, TokenizerSpec
from pipeline.unit import canonical

MANIFEST = "hub.json"
SPARE = 1.25  # take this much more than the budget: filters, duplicates and the validation set will not be trained on


def select(source: Source, tokens: int | None) -> list:
    """The hub's entries (path, size, lfs) to download for about `tokens` training tokens; all of them for None.

    The estimate is the source's published tokens per listed byte. Raises PipelineError when the hub refuses or the
    globs match nothing.
    """
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
    from huggingface_hub.hf_api import RepoFile

    hub, published = _declared(source)
    try:
        tree = list(HfApi().list_repo_tree(hub.repo, repo_type="dataset", revision=hub.revision, recursive=True))
    except GatedRepoError as error:
        raise PipelineError(f"{source.name}: {hub.repo} is gated; accept its terms at {hub.terms} and set HF_TOKEN") from error
    except RevisionNotFoundError as error:
        raise PipelineError(f"{source.name}: {hub.repo} has no revision {hub.revision}; pin another in its YAML") from error
    except RepositoryNotFoundError as error:
        raise PipelineError(f"{source.name}: no data set {hub.repo} on the hub, or it needs HF_TOKEN") from error
    except (HfHubHTTPError, httpx2.HTTPError, OSError) as error:
        raise PipelineError(f"{source.name}: the hub did not list {hub.repo}: {error}; try the same command again") from error
    entries = [
        entry for entry in tree
        if isinstance(entry, RepoFile)
        and any(fnmatch(entry.path, glob) for glob in hub.files)
        and not any(fnmatch(entry.path, glob) for glob in hub.exclude)
    ]  # fmt: skip
    if not entries:
        raise PipelineError(f"{source.name}: no file of {hub.repo}@{hub.revision} matches {', '.join(hub.files)}")
    if tokens is None:
        return sorted(entries, key=lambda entry: entry.path)
    per_byte = published.tokens / sum(entry.size for entry in entries)
    chosen, expected = [], 0.0
    for entry in sorted(entries, key=lambda entry: hashlib.sha256(entry.path.encode()).digest()):
        if expected >= SPARE * tokens:
            break
        chosen.append(entry)
        expected += entry.size * per_byte
    return sorted(chosen, key=lambda entry: entry.path)


def fetch(source: Source, entries: list, folder: Path, on_bytes: Callable[[int], None]) -> list[RawFile]:
    """Download what is not there yet into `folder`, verify it, and return the raw files in order of path."""
    import httpx2
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    hub, _ = _declared(source)
    manifest_path = folder / MANIFEST
    known = json.loads(manifest_path.read_bytes()) if manifest_path.exists() else {}
    missing = sum(entry.size for entry in entries if entry.path not in known)
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if missing > free:
        raise PipelineError(
            f"{source.name}: {missing / 1e9:.1f} GB to download and {free / 1e9:.1f} GB free under {folder}; "
            "free some, choose another STORE, or lower TOKENS"
        )
    result = []
    for entry in entries:
        path = folder / entry.path
        stated = {"bytes": entry.size, "hub": entry.lfs.sha256 if entry.lfs else entry.blob_id}
        at_hand = known.get(entry.path)
        if not (at_hand and at_hand["hub"] == stated["hub"] and path.exists() and path.stat().st_size == entry.size):
            try:
                hf_hub_download(hub.repo, entry.path, repo_type="dataset", revision=hub.revision, local_dir=folder)
            except (HfHubHTTPError, httpx2.HTTPError, OSError) as error:
                raise PipelineError(
                    f"{source.name}: downloading {entry.path} of {hub.repo} failed: {error}; the same command goes on from here"
                ) from error
            found = sha256_of(path)
            if (found if entry.lfs else _git_blob_id(path)) != stated["hub"]:
                path.unlink()
                raise PipelineError(
                    f"{source.name}: {entry.path} arrived damaged (its hash is not the hub's {stated['hub']}); it was "
                    "removed, run the same command again"
                )
            known[entry.path] = {**stated, "sha256": found}
            write_atomically(manifest_path, canonical(known, indent=1))
        on_bytes(entry.size)
        origin = f"hf:{hub.repo}@{hub.revision}"
        result.append(RawFile(entry.path, str(path), entry.size, known[entry.path]["sha256"], None, source.licence, origin))
    return result


def _declared(source: Source) -> tuple[Hub, Published]:
    if source.hub is None or source.published is None:
        raise PipelineError(f"{source.name}: its YAML names no hub repository; use DATA=<folder>")
    return source.hub, source.published


def _git_blob_id(path: Path) -> str:
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size)
    with open(path, "rb") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def fetch_tokenizer(spec: TokenizerSpec, folder: Path) -> Path:
    """The tokenizer.json that `spec` names, from the hub; its sha256 is checked by whoever loads it."""
    import httpx2
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    if spec.hub is None:
        raise PipelineError(f"tokenizer {spec.name}: its YAML names no hub repository")
    path = folder / spec.hub.file
    if path.exists() and sha256_of(path) == spec.sha256:
        return path
    try:
        hf_hub_download(spec.hub.repo, spec.hub.file, revision=spec.hub.revision, local_dir=folder)
    except (HfHubHTTPError, httpx2.HTTPError, OSError) as error:
        raise PipelineError(f"tokenizer {spec.name}: downloading it from {spec.hub.repo} failed: {error}") from error
    return path
