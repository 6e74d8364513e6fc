"""A source's files at a URL that fsspec reads (`<url>/<source>/**`): mirrored into the store, then read as a folder.

A file is copied again only if the filesystem's key for it (etag, or time and size) has changed; it appears by a rename.
What such a URL needs beside fsspec (s3fs for s3://, gcsfs for gs://) is the user's to install.
"""

import json
import os
import shutil
from pathlib import Path, PurePosixPath

from pipeline.errors import ConfigError, PipelineError
from pipeline.files import BLOCK, fsync, write_atomically
from pipeline.unit import canonical


def mirror(url: str, source: str, folder: Path) -> None:
    """Make `<folder>/<source>/` hold what `<url>/<source>/` holds. Raises ConfigError for a URL that cannot be opened,
    PipelineError when a copy fails; the same command goes on from there."""
    import fsspec

    try:
        filesystem, root = fsspec.core.url_to_fs(f"{url.rstrip('/')}/{source}")
        listing = filesystem.find(root, detail=True) if filesystem.exists(root) else {}
    except (ImportError, ValueError) as error:
        raise ConfigError(f"DATA={url}: {error}; install what this kind of URL needs into .venv, or give a folder") from error
    except OSError as error:
        raise PipelineError(f"DATA={url}: {source} cannot be listed: {error}; check the URL and your credentials") from error
    stamps_path = folder / f".{source}.json"
    known = json.loads(stamps_path.read_bytes()) if stamps_path.exists() else {}
    stamps: dict[str, list[object]] = {}
    for path, entry in sorted(listing.items()):
        name = PurePosixPath(path).relative_to(PurePosixPath(root))
        if ".." in name.parts or any(part.startswith(".") for part in name.parts):
            continue
        target = folder / source / name
        stamp = [entry["size"], filesystem.ukey(path)]
        if known.get(str(name)) != stamp or not target.exists() or target.stat().st_size != entry["size"]:
            _copy(filesystem, path, target, entry["size"], f"{url}: {source}/{name}")
        stamps[str(name)] = stamp
        write_atomically(stamps_path, canonical(known | stamps))
    for gone in known.keys() - stamps.keys():
        (folder / source / gone).unlink(missing_ok=True)
    if stamps or known:
        write_atomically(stamps_path, canonical(stamps))


def _copy(filesystem: object, path: str, target: Path, size: int, name: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".tmp-{target.name}")
    try:
        with filesystem.open(path, "rb") as source, open(aside, "wb") as sink:  # type: ignore[attr-defined]
            shutil.copyfileobj(source, sink, BLOCK)
    except OSError as error:
        raise PipelineError(f"{name} could not be copied: {error}; the same command goes on from here") from error
    if aside.stat().st_size != size:
        raise PipelineError(f"{name}: {aside.stat().st_size} bytes arrived, {size} were listed; run the same command again")
    fsync(aside)
    os.replace(aside, target)
