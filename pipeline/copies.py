"""What DuckDB opens when a view names a table of a store on object storage: this machine's copy of it.

`Copies` makes `store.url(…)` readable for a connection, without extensions of DuckDB and with the store's own credentials, retries and
cache. A table is fetched whole, once per machine, and a unit's table is checked against its record: the tables that views name are
narrow (some 30 bytes per document), and another query on them costs no request.
"""

from datetime import datetime
from fnmatch import fnmatchcase
from itertools import takewhile
from pathlib import Path
from typing import Any

import fsspec

from pipeline.store import Store

WILD = set("*?[")


class Copies(fsspec.AbstractFileSystem):
    """As much of a file system as DuckDB asks for, over the URLs below `store.place`. For `connection.register_filesystem`."""

    cachable = False

    def __init__(self, store: Store) -> None:
        super().__init__()
        self.store = store
        self.protocol = store.place.split("://")[0]
        self._copies: dict[str, Path] = {}  # opened before: a query sees one version of a file

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        return path

    def _open(self, path: str, mode: str = "rb", **_: Any) -> Any:
        if mode != "rb":
            raise PermissionError(f"{path}: a catalog only reads")
        return open(self._copy(path), "rb")

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        return {"name": path, "size": self._copy(path).stat().st_size, "type": "file"}

    def modified(self, path: str) -> datetime:
        return datetime.fromtimestamp(self._copy(path).stat().st_mtime)

    def glob(self, path: str, **_: Any) -> list[str]:
        if not WILD & set(path):
            return [path]  # DuckDB asks of every file that a view lists; one that is not there is missed when it is opened
        pattern = self._relative(path).split("/")
        folder = "/".join(takewhile(lambda part: not WILD & set(part), pattern[:-1]))
        return [self.store.url(name) for name in self.store.files(folder) if _matches(name.split("/"), pattern)]

    def _copy(self, url: str) -> Path:
        if url not in self._copies:
            self._copies[url] = self.store.local(self._relative(url))
        return self._copies[url]

    def _relative(self, url: str) -> str:
        return url.removeprefix(f"{self.store.place}/")


def _matches(parts: list[str], pattern: list[str]) -> bool:
    return len(parts) == len(pattern) and all(map(fnmatchcase, parts, pattern))
