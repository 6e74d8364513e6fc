"""Text files of any kind, one a document: source code, proofs, reStructuredText.

Goes in: a UTF-8 file, with or without a byte-order mark. Comes out: one record, `{"text", "metadata": {"path",
"extension"}}`, `text` as it stands; the path is that of the file inside its package. Failure: `invalid_utf8`.
Cost: one read; memory of the file, at most `TEXT_BYTES`, beyond which it raises `PipelineError`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from pipeline.errors import PipelineError
from pipeline.readers import Failure, RawFile, Record

TEXT_BYTES = 256 << 20


def read(file: RawFile) -> Iterator[Record | Failure]:
    """Yield the file's one record, row 0."""
    text = text_of(file)
    path = path_in_package(file)
    yield text if isinstance(text, Failure) else Record(0, {"text": text, "metadata": {"path": path, "extension": extension(path)}})


def text_of(file: RawFile) -> str | Failure:
    """The file's text, or why it has none."""
    if file.bytes > TEXT_BYTES:
        raise PipelineError(f"{file.name}: {file.bytes} bytes is too large for one text (at most {TEXT_BYTES}); leave the file out")
    content = Path(file.path).read_bytes()
    try:
        return content.removeprefix(b"\xef\xbb\xbf").decode()
    except UnicodeDecodeError as error:
        return Failure(0, "invalid_utf8", f"{content[error.start : error.start + 8]!r} at byte {error.start}: {error.reason}")


def path_in_package(file: RawFile) -> str:
    """`file.name` without its first folder, which names the package and its version."""
    return file.name.partition("/")[2] or file.name


def extension(path: str) -> str:
    return PurePosixPath(path).suffix.removeprefix(".")
