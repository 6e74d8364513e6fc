"""A hub on loopback, with faults: as much of the protocol as our downloads and the `huggingface_hub` and `datasets` clients use.

It serves `<root>/<namespace>/<name>/**` as data sets (and as models) at the commit COMMIT, which `main` points to. Files of LFS_BYTES and
more are LFS files, with a sha256; smaller ones have a git blob's id, as on the hub. `cdn` moves LFS files to a second origin,
to which the first redirects with a signed address. `log` has every request; `inject` breaks the next ones. What is pushed to it
(hub_uploads.py) makes new commits of a data set, each with a folder of its own.
"""

import hashlib
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

from tests.pipeline.hub_uploads import LFS_SUFFIXES, OBJECT, WRITES, Uploads, next_commit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LFS_BYTES = 1 << 10
API = re.compile(r"/api/(datasets|models)/([^/]+/[^/]+)(?:/(tree|revision|auth-check|paths-info)(?:/([^/]+))?(?:/(.+))?)?")
FILE = re.compile(r"/(?:(datasets)/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
SIGNED = "/signed/"


@dataclass
class Fault:
    """What becomes of the next `times` requests of that method whose path holds `match`.

    kind: status (an answer `code` with `headers`), truncate and reset (after so many bytes of the body), slow (`delay` seconds between
    blocks of 16 KiB), corrupt (the bytes in reverse), long (a byte too many), ranges (a Range is ignored).
    """

    kind: str
    match: str = "/resolve/"
    times: int = 1
    code: int = 503
    headers: dict[str, str] = field(default_factory=dict)
    after: int = 0
    delay: float = 0.0
    method: str = "GET"


@dataclass(frozen=True)
class Seen:
    """A request: when it came (seconds), and the headers that matter."""

    method: str
    path: str
    range: str | None
    authorization: str | None
    time: float


class Hub(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.commits = {COMMIT: root}  # the files of each commit
        self.main = COMMIT
        self.gated: set[str] = set()  # repositories whose files need a token
        self.token = "hf_good"
        self.page = 1000
        self.cdn = False
        self.faults: list[Fault] = []
        self.log: list[Seen] = []
        self.root = root
        self.heads: dict[str, str] = {}  # the newest commits of data sets that were pushed to
        self.messages: list[str] = []  # of their commits
        self.writable = {"some", "us"}  # who may be pushed to, with `token`
        self.private: set[str] = set()  # what nobody finds without `token`
        self.objects: dict[str, bytes] = {}
        self.parts: dict[tuple[str, int], bytes] = {}
        self._guard = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def served(self) -> list[str]:
        """The paths of the files whose bytes were asked for, in order."""
        return [seen.path.split(f"/resolve/{COMMIT}/")[-1] for seen in self.log if seen.method == "GET" and "/resolve/" in seen.path]

    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing: connections that end early are what this server is for."""

    def inject(self, kind: str, **fields: object) -> None:
        self.faults.append(Fault(kind, **fields))  # type: ignore[arg-type]

    def add_commit(self, repository: str, added: dict[str, bytes], removed: Sequence[str]) -> str:
        """A commit on the newest one of a data set."""
        before = self.commits[self.heads[repository]] if repository in self.heads else None
        commit = next_commit(self.root, before, repository, added, removed)
        self.commits[commit] = self.root / ".commits" / commit
        self.heads[repository] = commit
        return commit

    def fault(self, path: str, method: str = "GET") -> Fault | None:
        with self._guard:
            for fault in self.faults:
                if fault.times and fault.method == method and fault.match in path:
                    fault.times -= 1
                    return fault
        return None


class Handler(Uploads):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *arguments: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_PUT(self) -> None:
        self._write()

    def do_POST(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if path in ("/api/validate-yaml", "/api/repos/create") or path.startswith(OBJECT) or WRITES.fullmatch(path):
            return self._write()
        asked = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        self._route(parse_qs(asked).get("paths", []) if "json" not in str(self.headers.get("Content-Type")) else json.loads(asked)["paths"])

    def do_GET(self) -> None:
        self._route([])

    def _write(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.log.append(Seen(self.command, path, None, self.headers["Authorization"], time.monotonic()))
        fault = self.server.fault(path, self.command)
        try:
            self.write(path, self.body(fault), fault)
        except ConnectionError:
            self.close_connection = True

    def _route(self, paths: list[str]) -> None:
        path = unquote(urlsplit(self.path).path)
        hub = self.server
        if path == "/api/agent-harnesses":  # the client's statistics
            return self._answer(404, b"{}")
        hub.log.append(Seen(self.command, path, self.headers["Range"], self.headers["Authorization"], time.monotonic()))
        fault = hub.fault(path) if self.command == "GET" else None
        if fault and fault.kind == "status":
            return self._answer(fault.code, b"no", **fault.headers)
        if path.startswith(SIGNED):
            _, repository, revision, name = FILE.fullmatch(path.removeprefix(SIGNED[:-1])).groups()  # type: ignore[union-attr]
            return self._send(hub.commits[revision] / repository / name, fault, {"ETag": '"of the storage host"'})
        file, api = FILE.fullmatch(path), API.fullmatch(path)
        if not (match := file or api):
            return self._answer(404, b"{}")
        repository = match[2]
        main = hub.heads.get(repository, hub.main)
        revision = (match[3] if file else match[4]) or main
        commit = main if revision == "main" else revision
        allowed = repository not in hub.gated or self.headers["Authorization"] == f"Bearer {hub.token}"
        if not allowed and (file or match[3] == "auth-check"):
            return self._answer(403, b"{}", **{"X-Error-Code": "GatedRepo", "X-Error-Message": "gated"})
        hidden = repository in hub.private and self.headers["Authorization"] != f"Bearer {hub.token}"
        if hidden or not any((root / repository).is_dir() for root in hub.commits.values()):
            return self._answer(404, b"{}", **{"X-Error-Code": "RepoNotFound"})
        if commit not in hub.commits:
            return self._answer(404, b"{}", **{"X-Error-Code": "RevisionNotFound"})
        folder = hub.commits[commit] / repository
        if file:
            return self._resolve(folder, commit, match[4], fault)
        if match[3] == "tree":
            return self._tree(folder, match[5] or "")
        if match[3] == "paths-info":
            return self._answer(200, json.dumps([entry_of(folder, name) for name in paths if (folder / name).is_file()]).encode())
        siblings = [{"rfilename": name} for name in _names(folder) if (folder / name).is_file()]
        told = {"id": repository, "sha": commit, "siblings": siblings, "tags": [], "private": repository in hub.private}
        return self._answer(200, json.dumps(told).encode())

    def _tree(self, folder: Path, below: str) -> None:
        found = [entry_of(folder, name) for name in _names(folder) if not below or name.startswith(f"{below}/")]
        if not found:
            return self._answer(404, b"{}", **{"X-Error-Code": "EntryNotFound"})
        address = urlsplit(self.path)
        start = int(parse_qs(address.query).get("cursor", ["0"])[0])
        end = start + self.server.page
        following = f"{self.server.url}{address.path}?recursive=True&expand=False&cursor={end}"
        link = {"Link": f'<{following}>; rel="next"'} if end < len(found) else {}
        return self._answer(200, json.dumps(found[start:end]).encode(), **link)

    def _resolve(self, folder: Path, commit: str, name: str, fault: Fault | None) -> None:
        if not (folder / name).is_file():
            return self._answer(404, b"", **{"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        entry = entry_of(folder, name)
        etag = f'"{entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]}"'
        headers = {"ETag": etag, "X-Repo-Commit": commit}
        if "lfs" in entry:
            headers |= {"X-Linked-Etag": etag, "X-Linked-Size": str(entry["size"])}
        if "lfs" in entry and self.server.cdn:
            place = f"{SIGNED}{folder.parent.name}/{folder.name}/resolve/{commit}/{quote(name)}?Signature=secret"
            # Another name of the same machine is another origin.
            return self._answer(302, b"", Location=f"http://localhost:{self.server.server_port}{place}", **headers)
        return self._send(folder / name, fault, headers)

    def _send(self, path: Path, fault: Fault | None, headers: dict[str, str]) -> None:
        content = path.read_bytes()
        kind = fault.kind if fault else ""
        start = 0
        if (asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers["Range"] or "")) and kind != "ranges":
            start = int(asked[1])
            stop = int(asked[2]) + 1 if asked[2] else len(content)
            headers = {**headers, "Content-Range": f"bytes {start}-{min(stop, len(content)) - 1}/{len(content)}"}
            content = content[start:stop]
        if kind == "corrupt":
            content = content[::-1]
        if kind == "long":
            content += b"x"
        if kind not in ("truncate", "reset", "slow"):
            return self._answer(206 if "Content-Range" in headers else 200, content, **headers)
        assert fault
        self._head(206 if "Content-Range" in headers else 200, len(content), headers)
        whole = len(content) if kind == "slow" else fault.after
        for begin in range(0, whole, 1 << 14):
            self.wfile.write(content[begin : min(begin + (1 << 14), whole)])
            self.wfile.flush()
            time.sleep(fault.delay)
        if kind == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        self.close_connection = kind != "slow"

    def answer(self, code: int, body: bytes, **headers: str) -> None:
        self._answer(code, body, **headers)

    def _answer(self, code: int, body: bytes, **headers: str) -> None:
        self._head(code, len(body), headers)
        if self.command != "HEAD":
            self.wfile.write(body)

    def _head(self, code: int, size: int, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(size), **headers}.items():
            self.send_header(name, value)
        self.end_headers()


def _names(folder: Path) -> list[str]:
    """Files and folders."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def entry_of(folder: Path, name: str) -> dict:
    if (folder / name).is_dir():
        return {"type": "directory", "path": name, "size": 0, "oid": hashlib.sha1(name.encode()).hexdigest()}
    content = (folder / name).read_bytes()
    entry = {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()}
    if len(content) >= LFS_BYTES or (content and ".commits" in folder.parts and name.endswith(LFS_SUFFIXES)):
        entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
    return entry


@contextmanager
def serve(root: Path) -> Iterator[Hub]:
    hub = Hub(root)
    threading.Thread(target=hub.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
