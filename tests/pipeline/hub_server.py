"""A hub on loopback: serves `<root>/<namespace>/<name>/**` as data sets, as much of the protocol as downloads use."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TREE = re.compile(r"/api/datasets/([^/]+/[^/]+)/tree/([^/]+)")
FILE = re.compile(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


class Hub(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.root = root
        self.corrupt: set[str] = set()  # paths whose bytes arrive changed
        self.gated: set[str] = set()  # repositories that answer 403
        self.served: list[str] = []  # paths whose bytes were asked for

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *arguments: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        tree, file = TREE.fullmatch(path), FILE.fullmatch(path)
        if not (match := tree or file):
            return self._answer(404, b"{}")
        repository = match[1]
        if repository in self.server.gated:
            return self._answer(403, b"{}", **{"X-Error-Code": "GatedRepo", "X-Error-Message": "gated"})
        if not (self.server.root / repository).is_dir():
            return self._answer(404, b"{}", **{"X-Error-Code": "RepoNotFound"})
        if match[2] not in ("main", COMMIT):
            return self._answer(404, b"{}", **{"X-Error-Code": "RevisionNotFound"})
        if tree:
            return self._answer(200, json.dumps([self._entry(repository, path) for path in self._paths(repository)]).encode())
        target = self.server.root / repository / match[3]
        content = target.read_bytes()
        etag = hashlib.sha256(content).hexdigest()
        if self.command == "GET":
            self.server.served.append(match[3])
        if match[3] in self.server.corrupt:
            content = bytes(byte ^ 1 for byte in content)
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT, "X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(content))}
        return self._answer(200, content, **headers)

    def _paths(self, repository: str) -> list[str]:
        root = self.server.root / repository
        return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())

    def _entry(self, repository: str, path: str) -> dict:
        content = (self.server.root / repository / path).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        lfs = {"oid": digest, "size": len(content), "pointerSize": 130}
        return {"type": "file", "path": path, "size": len(content), "oid": digest[:40], "lfs": lfs}

    def _answer(self, code: int, body: bytes, **headers: str) -> None:
        self.send_response(code)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def serve(root: Path) -> Iterator[Hub]:
    hub = Hub(root)
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
