"""A source's files in the user's own folder: `<folder>/<source>/**`.

Each file's sha256 is computed once and remembered in the store under its path, size and modification time.
"""

from collections.abc import Mapping
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.files import sha256_of, write_atomically
from pipeline.readers import RawFile
from pipeline.unit import Json, sealed, unsealed


def files(folder: Path, source: str, inventory_path: Path) -> list[RawFile]:
    """The source's raw files, sorted by name; [] when there is no such folder or nothing in it.

    Hidden files are left out. `inventory_path` is where the remembered hashes are kept.
    """
    root = folder / source
    if not folder.is_dir():
        raise ConfigError(f"DATA={folder}: no such folder; give one that holds <source>/ folders, or sample, or hub")
    found = sorted(
        path for path in root.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(root).parts)
    )  # fmt: skip
    return hashed({path.relative_to(root).as_posix(): path for path in found}, inventory_path, str(folder))


def hashed(paths: Mapping[str, Path], inventory_path: Path, origin: str | None = None) -> list[RawFile]:
    """Files by their stable names, as raw files; the hashes that `inventory_path` remembers are not computed again."""
    known = _known(inventory_path)
    inventory: dict[str, dict[str, object]] = {}
    result = []
    for name, path in paths.items():
        path = path.absolute()  # in a store's tables a relative path is one in the store
        status = path.stat()
        stamp = [status.st_size, status.st_mtime_ns]
        entry = known.get(str(path))
        if not entry or entry["stamp"] != stamp:
            entry = {"stamp": stamp, "sha256": sha256_of(path)}
        inventory[str(path)] = entry
        result.append(RawFile(name, str(path), status.st_size, str(entry["sha256"]), origin=origin))
    if inventory != known:
        inventory_path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(inventory_path, sealed(inventory))
    return result


def _known(inventory_path: Path) -> dict[str, Json]:
    """What was remembered; nothing if it has changed since, for a wrong hash would give every unit another key."""
    try:
        return unsealed(inventory_path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
