"""The other half of the hub on loopback: data sets are made, files uploaded by Git LFS's requests, commits made; with faults.

A new commit is a new folder below the hub's root, `.commits/<id>/<owner>/<name>/**`: older ones stay as they were. Objects of LFS are
kept by the sha256 that they were announced with, whether or not their bytes have it, and are asked for again where they have not:
`commit` takes what is there, as a storage would that was damaged later.

A Fault's `method` says which requests it is for: PUT are the bytes of large files, POST all other requests that write. Kinds besides
those of downloads: `reset` (after `after` bytes of the body), `corrupt` (what is kept has one bit more), `lost` (it is done, the answer
does not come), `refuse` (LFS objects get an error of their own), status, slow (it is done `delay` seconds later), none.
"""

import base64
import hashlib
import json
import re
import shutil
import socket
import struct
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import parse_qs, urlsplit

import yaml

if TYPE_CHECKING:
    from tests.pipeline.hub_server import Fault, Hub

WRITES = re.compile(r"/api/datasets/([^/]+/[^/]+)/(preupload|commit)/([^/]+)|/datasets/([^/]+/[^/]+)\.git/info/lfs/objects/batch")
OBJECT = "/lfs/"
LFS_SUFFIXES = (".bin", ".parquet")  # as the hub's .gitattributes of a new data set has them
PART_BYTES = 1 << 16  # larger files come in parts
ATTRIBUTES = b"*.bin filter=lfs\n*.parquet filter=lfs\n"


class Uploads(BaseHTTPRequestHandler):
    """What Handler answers to requests that write."""

    server: "Hub"

    def write(self, path: str, body: bytes, fault: "Fault | None") -> None:
        """Answer a POST or PUT of the upload protocol."""
        kind = fault.kind if fault else ""
        if kind == "status":
            assert fault
            return self.answer(fault.code, b'{"error": "no"}', **fault.headers)
        if path.startswith(OBJECT):
            return self._object(path, body, kind)
        if self.headers["Authorization"] != f"Bearer {self.server.token}":
            return self.answer(401, b'{"error": "Invalid credentials in Authorization header"}')
        if path == "/api/validate-yaml":
            return self._validate(json.loads(body)["content"])
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        found = WRITES.fullmatch(path)
        assert found, path
        repository = found[1] or found[4]
        if repository not in self.server.heads:
            return self.answer(404, b"{}", **{"X-Error-Code": "RepoNotFound"})
        if found[2] == "preupload":
            return self._preupload(repository, json.loads(body)["files"])
        if found[2] == "commit":
            return self._commit(repository, [json.loads(line) for line in body.splitlines()], kind)
        self._batch(json.loads(body)["objects"], kind)

    def body(self, fault: "Fault | None") -> bytes:
        """What was sent. Raises ConnectionError where a fault cuts it."""
        size = int(self.headers.get("Content-Length") or 0)
        if fault and fault.kind == "reset":
            self.rfile.read(min(fault.after, size))
            self._break_off()
        if fault and fault.kind == "slow":
            threading.Event().wait(fault.delay)  # time.sleep is taken from clients whose patience is not what is tested
        if "chunked" not in (self.headers.get("Transfer-Encoding") or ""):
            return self.rfile.read(size)
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _break_off(self) -> NoReturn:
        """End the connection with a reset."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        raise ConnectionError

    def answer(self, code: int, body: bytes, **headers: str) -> None:
        raise NotImplementedError

    def _validate(self, content: str) -> None:
        errors = []
        try:
            front = content.split("---\n")[1] if content.startswith("---\n") else "{}"
            if not isinstance(yaml.safe_load(front), dict):
                errors.append({"message": "the front matter is no mapping"})
        except yaml.YAMLError as error:
            errors.append({"message": str(error)})
        self.answer(400 if errors else 200, json.dumps({"errors": errors, "warnings": []}).encode())

    def _create(self, asked: dict[str, Any]) -> None:
        repository = f"{asked['organization']}/{asked['name']}"
        if asked["organization"] not in self.server.writable:
            return self.answer(403, b'{"error": "You don\'t have the rights to create a dataset under this namespace"}')
        if repository in self.server.heads:
            return self.answer(409, b'{"error": "You already created this dataset repo"}')
        if asked.get("visibility") == "private":
            self.server.private.add(repository)
        self.server.add_commit(repository, {".gitattributes": ATTRIBUTES}, ())
        self.answer(200, json.dumps({"url": f"{self.server.url}/datasets/{repository}"}).encode())

    def _preupload(self, repository: str, files: list[dict[str, Any]]) -> None:
        from tests.pipeline.hub_server import LFS_BYTES, entry_of

        folder = self.server.commits[self.server.heads[repository]] / repository
        answers = []
        for file in files:
            path = file["path"]
            large = path.endswith(LFS_SUFFIXES) or file["size"] >= LFS_BYTES
            there = entry_of(folder, path) if (folder / path).is_file() else {}
            oid = there.get("lfs", there).get("oid")
            answers.append({"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": oid})
        self.answer(200, json.dumps({"files": answers}).encode())

    def _batch(self, objects: list[dict[str, Any]], kind: str) -> None:
        answers = []
        for asked in objects:
            oid, size = asked["oid"], asked["size"]
            told: dict[str, Any] = {"oid": oid, "size": size}
            if kind == "refuse":
                told["error"] = {"code": 403, "message": "Storage limit reached"}
            elif hashlib.sha256(self.server.objects.get(oid, b"")).hexdigest() != oid:
                place = f"{self.server.url}{OBJECT}{oid}"
                header = {}
                if size > PART_BYTES:
                    header = {"chunk_size": str(PART_BYTES)} | {
                        str(number + 1): f"{place}?part={number}&Signature=secret" for number in range(-(-size // PART_BYTES))
                    }
                told["actions"] = {"upload": {"href": f"{place}?Signature=secret", "header": header}, "verify": {"href": f"{place}/verify"}}
            answers.append(told)
        self.answer(200, json.dumps({"transfer": "multipart", "objects": answers}).encode())

    def _object(self, path: str, body: bytes, kind: str) -> None:
        hub, oid = self.server, path.removeprefix(OBJECT).removesuffix("/verify")
        if kind == "corrupt" and body:
            body = bytes([body[0] ^ 1]) + body[1:]
        if self.command == "PUT":
            part = parse_qs(urlsplit(self.path).query).get("part")
            if part:
                hub.parts[oid, int(part[0])] = body
            else:
                hub.objects[oid] = body
            return self.answer(200, b"", ETag=f'"{hashlib.md5(body).hexdigest()}"')
        if path.endswith("/verify"):
            return self.answer(200 if oid in hub.objects else 404, b"{}")
        hub.objects[oid] = b"".join(hub.parts[oid, part["partNumber"] - 1] for part in json.loads(body)["parts"])
        self.answer(200, b"{}")

    def _commit(self, repository: str, lines: list[dict[str, Any]], kind: str) -> None:
        hub = self.server
        header, *operations = ((line["key"], line["value"]) for line in lines)
        if header[1].get("parentCommit") not in (None, hub.heads[repository]):
            return self.answer(412, b'{"error": "A commit has happened since"}')
        added: dict[str, bytes] = {}
        removed = []
        for key, value in operations:
            if key == "file":
                added[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                if value["oid"] not in hub.objects:
                    return self.answer(400, b'{"error": "LFS pointer pointed to a file that does not exist"}')
                added[value["path"]] = hub.objects[value["oid"]]
            else:
                removed.append(value["path"])
        commit = hub.add_commit(repository, added, removed)
        hub.messages.append(header[1]["summary"])
        if kind == "lost":
            self._break_off()
        self.answer(200, json.dumps({"commitUrl": f"{hub.url}/datasets/{repository}/commit/{commit}", "commitOid": commit}).encode())


def next_commit(root: Path, before: Path | None, repository: str, added: dict[str, bytes], removed: "list[str] | tuple[()]") -> str:
    """Write the folder of a commit that follows the one at `before`; its id."""
    named = [(path, hashlib.sha256(content).hexdigest()) for path, content in sorted(added.items())]
    commit = hashlib.sha1(json.dumps([str(before), named, list(removed)]).encode()).hexdigest()
    folder = root / ".commits" / commit / repository
    if before:
        shutil.copytree(before / repository, folder, copy_function=lambda source, target: Path(target).hardlink_to(source))
    for path in removed:
        (folder / path).unlink()
    for path, content in added.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)  # not through the link into the commit before
        place.write_bytes(content)
    return commit
