"""The objects below one URL: the only module that speaks fsspec, and so to S3 and its like.

In and out: names relative to the URL, bytes, files of this machine. Every call is repeated while its error may pass (throttling, 5xx,
resets, timeouts, bodies cut short): at once within the client, request by request and from the byte reached, then the whole call with
waits that double and differ from process to process. An error that stays is a PipelineError that says what to do; it quotes the
server's error code and never a header or a key.

Cost: one request per call, except one per 1000 names of a list, and one per 16 MiB of a large upload, whose object appears with the
last of them. Transfers take a buffer of 16 MiB at most. Not: caches (cache.py) and units (object_store.py).
"""

import errno
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache, partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast
from urllib.parse import urlsplit

import fsspec

from pipeline.errors import ConfigError, PipelineError

T = TypeVar("T")
PART = 16 << 20  # bytes of a multipart upload's part: 10,000 of them are 168 GB
REQUEST_ATTEMPTS = 6  # within s3fs: waits of 0.1, 0.17, 0.29 … s, 3 s in all
CALL_ATTEMPTS = 8
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 30.0  # before a whole call is repeated; doubles each time: two minutes in all
READ_AHEAD = 4 << 20
READ_TOGETHER = 1000
PASSING = {errno.EBUSY, errno.EAGAIN, errno.EREMOTEIO, errno.ECONNRESET, errno.ECONNREFUSED, errno.EPIPE, errno.ETIMEDOUT}
S3 = {"s3", "s3a"}
CLIENTS = {"botocore", "aiobotocore", "aiohttp", "urllib3"}  # whose exceptions are no OSErrors


@dataclass(frozen=True, slots=True)
class Entry:
    """An object as a list shows it: its size, and a tag (ETag, or a time) that another content would not have."""

    bytes: int
    tag: str


class Objects:
    """`url`: such as s3://bucket/prefix. Raises ConfigError for one that no client here can open, PipelineError where nobody answers."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        parts = urlsplit(url)
        if "@" in parts.netloc:
            raise ConfigError(
                f"{parts.scheme}://…@{parts.netloc.rsplit('@', 1)[1]}: no passwords in a URL; set AWS_PROFILE, or AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or what your object store's client reads"
            )
        if parts.scheme in S3 and not parts.netloc:
            raise ConfigError(f"{url}: names no bucket; write {parts.scheme}://<bucket>/<prefix>")
        try:
            self.filesystem, self.base = fsspec.url_to_fs(self.url, **_options(parts.scheme))
        except (ImportError, ValueError) as error:
            remedy = "; run: pip install 's3fs'" if parts.scheme in S3 else ""
            raise ConfigError(f"{url}: {error}{remedy}") from error
        except OSError as error:
            raise PipelineError(f"{self.url}: cannot be reached ({error}); check the address and the network") from error
        self._reached = False
        self._s3 = parts.scheme in S3
        if self._s3:
            _configure(self.filesystem)

    def path(self, name: str) -> str:
        """What fsspec calls the object. Raises PipelineError for a name that leads out of the store."""
        if name.startswith("/") or ".." in name.split("/"):
            raise PipelineError(f"{name!r} is no name in {self.url}")
        return f"{self.base}/{name}" if name else self.base

    def listing(self, folder: str) -> dict[str, Entry]:
        """All objects anywhere below a folder; {} when there are none."""
        start, what = len(self.base) + 1, f"list {folder}"
        if self._s3:
            return {name[start:]: entry for page in self._pages(f"{folder}/" if folder else "", what) for name, entry in page}
        found = self._call(what, lambda: self._found(folder))
        return {name[start:]: _entry(fields) for name, fields in found.items()}

    def _found(self, folder: str) -> dict[str, Any]:
        try:
            return self.filesystem.find(self.path(folder), detail=True)
        except FileNotFoundError:
            return {}

    def _pages(self, prefix: str, what: str) -> Iterator[list[tuple[str, Entry]]]:
        """What s3fs's `find` does, in time that is proportional to the list's length."""
        bucket, key, _ = self.filesystem.split_path(f"{self.base}/{prefix}")
        request = {"Bucket": bucket, "Prefix": key}
        while True:
            page = self._call(what, partial(self.filesystem.call_s3, "list_objects_v2", **request))
            yield [(f"{bucket}/{fields['Key']}", Entry(fields["Size"], fields["ETag"])) for fields in page.get("Contents", [])]
            if not page.get("IsTruncated"):
                return
            request["ContinuationToken"] = page["NextContinuationToken"]

    def entry(self, name: str) -> Entry:
        """Raises FileNotFoundError."""
        return _entry(self._call(f"look at {name}", lambda: self.filesystem.info(self.path(name))))

    def read(self, name: str) -> bytes:
        """A whole object. Raises FileNotFoundError."""
        return self._call(f"read {name}", lambda: self.filesystem.cat_file(self.path(name)))

    def read_all(self, names: Iterable[str]) -> dict[str, bytes]:
        """Whole small objects, many requests at a time; those that are not there are left out."""
        found: dict[str, bytes] = {}
        waiting = list(names)
        for start in range(0, len(waiting), READ_TOGETHER):
            paths = {self.path(name): name for name in waiting[start : start + READ_TOGETHER]}
            contents = self._call(f"read {len(paths)} objects", partial(self._read_all, list(paths)))
            found |= {paths[path]: content for path, content in contents.items()}
        return found

    def _read_all(self, paths: list[str]) -> dict[str, bytes]:
        found = self.filesystem.cat(paths, on_error="return")
        for content in found.values():
            if isinstance(content, Exception) and not isinstance(content, FileNotFoundError):
                raise content
        return {path: content for path, content in found.items() if isinstance(content, bytes)}

    def open(self, name: str) -> BinaryIO:
        """A stream over the object, fetched as it is read. Raises FileNotFoundError; a read that fails is repeated by the client only."""
        stream = self._call(f"open {name}", lambda: self.filesystem.open(self.path(name), "rb", block_size=READ_AHEAD))
        return cast(BinaryIO, stream)

    def write(self, name: str, content: bytes, create: bool = False) -> None:
        """Replace an object in one step. With `create`, raises FileExistsError when there is one, where the store can tell."""
        mode = "create" if create else "overwrite"
        self._call(f"write {name}", lambda: self.filesystem.pipe_file(self.path(name), content, mode=mode))

    def upload(self, file: Path, name: str) -> None:
        """A file of this machine becomes an object, or replaces it, in one step at its end."""
        self._call(f"write {name}", lambda: self.filesystem.put_file(str(file), self.path(name), chunksize=PART))

    def download(self, name: str, file: Path) -> None:
        """An object becomes a file of this machine. Raises FileNotFoundError."""
        self._call(f"read {name}", lambda: self.filesystem.get_file(self.path(name), str(file)))

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects; one that is not there is no error."""
        paths = [self.path(name) for name in names]
        for start in range(0, len(paths), 1000):
            self._call("remove objects", partial(self._remove, paths[start : start + 1000]))

    def _remove(self, paths: list[str]) -> None:
        try:
            self.filesystem.rm(paths)
        except FileNotFoundError as error:
            if _code(error) == "NoSuchBucket":
                raise

    def abort_uploads(self, reference: str, seconds: float) -> int:
        """Abort the multipart uploads below the URL that were begun `seconds` before the object `reference` was written; how many.

        Only S3 has such: parts that a killed process sent, which no list shows and which are paid for.
        """
        if not self._s3:
            return 0
        before = self._call(f"look at {reference}", lambda: self.filesystem.modified(self.path(reference))) - timedelta(seconds=seconds)
        bucket, key, _ = self.filesystem.split_path(self.base)
        request = {"Bucket": bucket, "Prefix": f"{key}/" if key else ""}
        aborted = 0
        while True:
            page = self._call("list uploads", partial(self.filesystem.call_s3, "list_multipart_uploads", **request))
            for upload in page.get("Uploads", []):
                if upload["Initiated"] < before:
                    self._call("abort an upload", partial(self._abort, bucket, upload["Key"], upload["UploadId"]))
                    aborted += 1
            if not page.get("IsTruncated"):
                return aborted
            request |= {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}

    def _abort(self, bucket: str, key: str, upload: str) -> None:
        with suppress(FileNotFoundError):  # it ended meanwhile
            self.filesystem.call_s3("abort_multipart_upload", Bucket=bucket, Key=key, UploadId=upload)

    def _call(self, what: str, action: Callable[[], T]) -> T:
        waits = _waits()
        while True:
            try:
                result = action()
            except Exception as error:
                if not _may_pass(error):
                    raise self._explained(what, error) from error
                wait = next(waits, None)
                if wait is None or (not self._reached and _no_answer(error)):  # an address that never answered is wrong
                    raise PipelineError(
                        f"{self.url}: cannot {what}: {_shown(error)}; check the network and the address of the object store "
                        "(AWS_ENDPOINT_URL), then run the same command again, finished work is kept"
                    ) from error
                time.sleep(wait)
            else:
                self._reached = True
                return result

    def _explained(self, what: str, error: Exception) -> Exception:
        """What a person can do, or the error itself where that is for the caller to judge."""
        code = _code(error)
        if code == "NoSuchBucket":
            return PipelineError(f"{self.url}: there is no such bucket; create it, or correct STORE")
        if "Credentials" in type(error).__name__ or (isinstance(error, PermissionError) and code):
            return PipelineError(
                f"{self.url}: cannot {what}: {_shown(error)}; give this machine credentials that may list, read, write and delete there "
                "(AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)"
            )
        if code and not isinstance(error, FileNotFoundError | FileExistsError):
            return PipelineError(
                f"{self.url}: cannot {what}: {_shown(error)}; check the store's region and address (AWS_REGION, AWS_ENDPOINT_URL)"
            )
        return error


def _options(scheme: str) -> dict[str, Any]:
    options: dict[str, Any] = {"use_listings_cache": False}
    if scheme in S3:
        # One request per read and a stream per file: parallelism comes from the workers, and a broken stream goes on where it was.
        # The waits are s3fs's and ours, not botocore's besides.
        config = {"retries": {"total_max_attempts": 1}, "max_pool_connections": 32}
        options |= {"max_concurrency": 1, "config_kwargs": config, "session": _session()}
    return options


@cache
def _session() -> Any:
    """One session per process, which reads the times of a list by a parser that does not take three quarters of the list's cost."""
    from aiobotocore.session import AioSession
    from botocore.utils import parse_timestamp

    def moment(text: str) -> datetime:
        try:
            return datetime.fromisoformat(text)
        except ValueError:
            return parse_timestamp(text)

    session = AioSession()
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=moment)
    return session


def _configure(filesystem: Any) -> None:
    from s3fs.core import set_custom_error_handler

    filesystem.retries = REQUEST_ATTEMPTS
    set_custom_error_handler(_may_pass)


def _waits() -> Iterator[float]:
    """Seconds before each further attempt: doubling, half of each by chance, so that workers refused together do not return together."""
    for attempt in range(CALL_ATTEMPTS - 1):
        yield min(FIRST_WAIT_S * 2**attempt, LONGEST_WAIT_S) * (0.5 + random.random() / 2)


def _may_pass(error: Exception) -> bool:
    """Whether the same call may succeed later."""
    status = _status(error)
    if status:
        return status >= 500 or status in (408, 429)
    if isinstance(error, OSError):
        return error.errno in PASSING or isinstance(error, TimeoutError | ConnectionError)
    return type(error).__module__.split(".")[0] in CLIENTS and "Credentials" not in type(error).__name__


def _no_answer(error: Exception) -> bool:
    return isinstance(error, ConnectionRefusedError) or type(error).__name__ in ("EndpointConnectionError", "ConnectTimeoutError")


def _response(error: BaseException | None) -> Mapping[str, Any]:
    """The server's answer that the error, or what caused it, carries."""
    while error is not None and not isinstance(getattr(error, "response", None), dict):
        error = error.__cause__
    return cast(Any, error).response if error is not None else {}


def _status(error: BaseException) -> int:
    return int(_response(error).get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _code(error: BaseException) -> str:
    """The server's own word for what is wrong, such as NoSuchBucket; "" where it is not the server that objects."""
    return str(_response(error).get("Error", {}).get("Code", ""))


def _shown(error: BaseException) -> str:
    return f"the server answers {_code(error)}" if _code(error) else type(error).__name__


def _entry(fields: Mapping[str, Any]) -> Entry:
    tag = next((fields[name] for name in ("ETag", "etag", "md5Hash", "LastModified", "mtime", "created") if fields.get(name)), "")
    return Entry(int(fields["size"] or 0), str(tag))
