"""Where a store lies, seen from outside the program: a folder or a bucket, whose files a saboteur reads, changes and deletes.

Not looked at, as they hold nothing that a mix rests on: the journals, the catalog, the lock, models, and this machine's cache.
"""

import hashlib
import os
from abc import ABC, abstractmethod
from pathlib import Path

from botocore.exceptions import ClientError

from tools.s3_server import S3

APART = ("runs", "models", "catalog.duckdb", ".lock")


class Place(ABC):
    store: str  # as the command line takes it

    @abstractmethod
    def names(self) -> list[str]:
        """Everything that lies there, sorted."""

    @abstractmethod
    def read(self, name: str) -> bytes | None:
        """None where there is no such file."""

    @abstractmethod
    def replace(self, name: str, content: bytes) -> None:
        """Change a file as a failing disk would: where it is."""

    @abstractmethod
    def delete(self, name: str) -> None: ...

    def contents(self) -> dict[str, str]:
        """Of all that a mix rests on, the sha256."""
        names = [name for name in self.names() if name.split("/")[0] not in APART]
        return {name: hashlib.sha256(self.read(name) or b"").hexdigest() for name in names}

    def part_of(self, contents: dict[str, str]) -> dict[str, str]:
        """Of the contents of a folder, what lies in a place of this kind."""
        return contents

    def finished(self) -> int:
        """How many units are done."""
        return sum(name.endswith("/record.json") and ".tmp-" not in name for name in self.names())

    def orphans(self) -> list[str]:
        """What nobody will finish."""
        return [name for name in self.names() if ".tmp-" in name or name.endswith(".part")]


class Folder(Place):
    def __init__(self, root: Path) -> None:
        self.root, self.store = root, str(root)

    def names(self) -> list[str]:
        walked = os.walk(self.root)  # which goes on where a folder vanishes meanwhile
        return sorted(Path(folder, file).relative_to(self.root).as_posix() for folder, _, files in walked for file in files)

    def read(self, name: str) -> bytes | None:
        try:
            return (self.root / name).read_bytes()
        except FileNotFoundError:
            return None

    def replace(self, name: str, content: bytes) -> None:
        with open(self.root / name, "r+b") as stream:
            stream.write(content)
            stream.truncate()

    def delete(self, name: str) -> None:
        (self.root / name).unlink(missing_ok=True)


class Bucket(Place):
    """A prefix in a bucket of its own."""

    def __init__(self, s3: S3) -> None:
        self.s3, self.store = s3, f"{s3.bucket()}/prefix"

    def names(self) -> list[str]:
        return sorted(self.s3.keys(self.store))

    def read(self, name: str) -> bytes | None:
        try:
            return self.s3.content(f"{self.store}/{name}")
        except ClientError:
            return None

    def replace(self, name: str, content: bytes) -> None:
        self.s3.replace(f"{self.store}/{name}", content)

    def delete(self, name: str) -> None:
        self.s3.delete(f"{self.store}/{name}")

    def part_of(self, contents: dict[str, str]) -> dict[str, str]:
        """The hashes of raw files that this machine remembers lie in its cache."""
        return {name: digest for name, digest in contents.items() if not name.startswith("downloads/")}

    def orphans(self) -> list[str]:
        return super().orphans() + ["an upload that was begun"] * self.s3.uploads(self.store)
