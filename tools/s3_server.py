"""An S3 server on loopback (moto) behind a proxy that can throttle, fail, cut, delay and corrupt; what it served is counted."""

import logging
import os
import random
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem

ERROR = "<?xml version='1.0'?><Error><Code>{}</Code><Message>injected</Message></Error>"
CODES = {429: "TooManyRequests", 500: "InternalError", 503: "SlowDown", 403: "AccessDenied", 400: "RequestTimeout"}


@dataclass
class Fault:
    """What befalls `times` of the requests whose method and path match: the next ones, or each with the probability `share`.

    kind: a status such as 503; "reset" (the connection breaks before an answer), "reset upload" (after a part of the body was read),
    "truncate" (half the body of an answer, then the connection breaks), "short" (half the body, as if it were whole), "corrupt" (a byte
    of the answer's body is changed) or "slow" (`seconds` before the answer).
    """

    kind: int | str
    method: str = "GET|PUT|POST|HEAD|DELETE"
    path: str = ".*"
    times: int = 1
    seconds: float = 0.0
    share: float = 1.0


@dataclass
class Served:
    """One request: method, path with its query, bytes of its body and of the answer's, and the answer's status (0: none)."""

    method: str
    path: str
    sent: int
    received: int
    status: int


@dataclass
class S3:
    """The server. `url` is its endpoint, `backend` the same without faults; `bucket()` makes a new bucket and gives its s3:// URL."""

    url: str
    backend: str
    faults: list[Fault] = field(default_factory=list)
    log: list[Served] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _buckets: int = 0
    _chance: random.Random = field(default_factory=lambda: random.Random(0))

    @cached_property
    def client(self) -> Any:
        """boto3's client, for looking at what lies there by other means than the program's; it meets no faults and is not counted."""
        keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing", "region_name": "us-east-1"}
        return boto3.client("s3", endpoint_url=self.backend, **keys)

    def bucket(self) -> str:
        with self._lock:
            self._buckets += 1
        name = f"bucket-{self._buckets}"
        self.client.create_bucket(Bucket=name)
        return f"s3://{name}"

    def keys(self, url: str) -> dict[str, int]:
        """The objects below a URL, relative to it, with their sizes, by boto3."""
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/" if prefix else "")
        found = [entry for page in pages for entry in page.get("Contents", [])]
        return {entry["Key"].removeprefix(f"{prefix}/"): entry["Size"] for entry in found}

    def content(self, url: str) -> bytes:
        bucket, _, key = url.removeprefix("s3://").partition("/")
        return self.client.get_object(Bucket=bucket, Key=key)["Body"].read()

    def replace(self, url: str, content: bytes) -> None:
        bucket, _, key = url.removeprefix("s3://").partition("/")
        self.client.put_object(Bucket=bucket, Key=key, Body=content)

    def delete(self, url: str) -> None:
        bucket, _, key = url.removeprefix("s3://").partition("/")
        self.client.delete_object(Bucket=bucket, Key=key)

    def uploads(self, url: str) -> int:
        """Multipart uploads that were begun in the URL's bucket and not ended."""
        bucket = url.removeprefix("s3://").split("/")[0]
        return len(self.client.list_multipart_uploads(Bucket=bucket).get("Uploads", []))

    def fail(self, kind: int | str, **where: object) -> Fault:
        fault = Fault(kind, **where)  # type: ignore[arg-type]
        self.faults.append(fault)
        return fault

    def requests(self, method: str = ".*", path: str = ".*") -> int:
        """How many requests were served so far whose method and path match."""
        return sum(bool(re.fullmatch(method, each.method) and re.search(path, each.path)) for each in list(self.log))

    def statuses(self) -> Counter[int]:
        return Counter(each.status for each in list(self.log))

    def take(self, method: str, path: str) -> Fault | None:
        with self._lock:
            for fault in self.faults:
                matches = fault.times > 0 and re.fullmatch(fault.method, method) and re.search(fault.path, path)
                if matches and self._chance.random() < fault.share:
                    fault.times -= 1
                    return fault
        return None


class _Proxy(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, backend: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.backend = backend
        self.begun: dict[str, str] = {}
        self.s3 = S3(f"http://127.0.0.1:{self.server_port}", f"http://127.0.0.1:{backend}")

    def dated(self, answer: bytes) -> bytes:
        """An answer about multipart uploads with the times when they were begun; moto says 2010 of all."""
        text = answer.decode()
        for upload in re.findall("<UploadId>(.+?)</UploadId>", text):
            begun = self.begun.setdefault(upload, datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z"))
            head, tail = text.split(f"<UploadId>{upload}</UploadId>")
            text = f"{head}<UploadId>{upload}</UploadId>{re.sub('<Initiated>.+?<', f'<Initiated>{begun}<', tail, count=1)}"
        return text.encode()

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a connection that broke: by a fault, or because a client was killed


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Proxy

    def log_message(self, *arguments: object) -> None:
        pass

    def _serve(self) -> None:
        fault = self.server.s3.take(self.command, self.path)
        kind = fault.kind if fault else ""
        if self.headers.get("Expect") == "100-continue":
            self.send_response_only(100)
            self.end_headers()
        if kind == "reset upload":
            self.rfile.read(min(int(self.headers.get("Content-Length", 0)) // 2, 1 << 16))
        if kind in ("reset", "reset upload"):
            return self._break(0, 0)
        body = self._body()
        if fault and kind == "slow":
            time.sleep(fault.seconds)
        if isinstance(kind, int):
            answer = ERROR.format(CODES.get(kind, "Error")).encode()
            self.send_response(kind)
            return self._finish(kind, len(body), {"Content-Type": "application/xml", "Content-Length": str(len(answer))}, answer)
        response, answer = self._forward(body)
        if "?uploads" in self.path and response.status == 200:
            answer = self.server.dated(answer)
        headers = {name: value for name, value in response.getheaders() if name.lower() not in ("transfer-encoding", "connection")}
        if self.command != "HEAD":
            headers["Content-Length"] = str(len(answer))
        if kind == "corrupt" and answer:
            middle = len(answer) // 2
            answer = answer[:middle] + bytes([answer[middle] ^ 1]) + answer[middle + 1 :]
        if kind == "short":
            answer = answer[: len(answer) // 2]
            headers["Content-Length"] = str(len(answer))
        self.send_response(response.status)
        if kind == "truncate":
            self._headers(headers)
            self.wfile.write(answer[: len(answer) // 2])
            return self._break(len(body), response.status)
        return self._finish(response.status, len(body), headers, answer)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _serve

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            chunks = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            return b"".join(chunks)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _forward(self, body: bytes) -> tuple[HTTPResponse, bytes]:
        connection = HTTPConnection("127.0.0.1", self.server.backend)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("expect", "transfer-encoding", "connection")}
        headers["Content-Length"] = str(len(body))
        connection.request(self.command, self.path, body, headers)
        response = connection.getresponse()
        answer = response.read()
        connection.close()
        return response, answer

    def _headers(self, headers: dict[str, str]) -> None:
        for name, value in headers.items():
            if name.lower() not in ("server", "date"):
                self.send_header(name, value)
        self.end_headers()

    def _finish(self, status: int, sent: int, headers: dict[str, str], answer: bytes) -> None:
        self.server.s3.log.append(Served(self.command, self.path, sent, len(answer), status))  # before whoever asked goes on and looks
        self._headers(headers)
        if self.command != "HEAD":
            self.wfile.write(answer)

    def _break(self, sent: int, status: int) -> None:
        self.wfile.flush()
        self.server.s3.log.append(Served(self.command, self.path, sent, 0, status))
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True


ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}  # fmt: skip


@contextmanager
def serve() -> Iterator[S3]:
    """A server for as long as the context lives, which the clients of this process and its children find by the environment."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    moto.start()
    _, port = moto.get_host_and_port()
    proxy = _Proxy(port)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    changed = {**ENVIRONMENT, "AWS_ENDPOINT_URL": proxy.s3.url}
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    S3FileSystem.clear_instance_cache()  # clients of an earlier server
    try:
        yield proxy.s3
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        proxy.shutdown()
        proxy.server_close()
        moto.stop()
