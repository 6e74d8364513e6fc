"""Web archives (.warc, .warc.gz) in DCLM's upstream schema, their pages as main text (html.py).

Goes in: WARC 1.x, plain or gzip. Comes out: a record for each HTTP response, `{"text", "url", "metadata"}` with the WARC
header fields under `metadata` as DCLM has them (`WARC-Record-ID`, `WARC-Date`, `WARC-Target-URI` …), and
`Content-Type` and `status` of the HTTP answer. `row` is the record's number in the archive, of all types. A response
that is no HTML has an empty `text`, which the read stage counts; requests and other records are not documents.

Damage raises `PipelineError`: a broken gzip (streams.py), something else than WARC, a file that ends inside a record.
Cost: that of html.py; memory of one response, at most `PAGE_BYTES` of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from warcio.archiveiterator import ArchiveIterator
from warcio.exceptions import ArchiveLoadFailed
from warcio.recordloader import ArcWarcRecord

from pipeline.errors import PipelineError
from pipeline.readers import Failure, RawFile, Record
from pipeline.readers.html import PAGE_BYTES, main_text
from pipeline.readers.streams import open_stream

HTML_TYPES = ("text/html", "application/xhtml+xml")


def read(file: RawFile) -> Iterator[Record | Failure]:
    """Yield the archive's HTTP responses. Raises `PipelineError` for a damaged archive."""
    whole = 0
    with open_stream(file) as stream:
        try:
            for row, record in enumerate(ArchiveIterator(stream)):
                if record.rec_type == "response":
                    yield _response(row, record)
                while record.raw_stream.read(1 << 20):
                    pass  # to its end, to see that it has one
                if record.raw_stream.limit:
                    raise ArchiveLoadFailed(f"the next one ends {record.raw_stream.limit} bytes early")
                whole = row + 1
        except ArchiveLoadFailed as error:
            raise PipelineError(f"{file.name}: damaged after {whole} whole WARC records ({error}); download it again") from error
    if not whole:
        raise PipelineError(f"{file.name}: no WARC record in it; download it again, or leave it out")


def _response(row: int, record: ArcWarcRecord) -> Record | Failure:
    headers = dict(record.rec_headers.headers)
    fields: dict[str, Any] = {"text": "", "url": None, "metadata": {}}
    http = record.http_headers
    kind, _, parameters = (http.get_header("Content-Type") or "").partition(";") if http else ("", "", "")
    if kind.strip().lower() in HTML_TYPES:
        page = record.content_stream().read(PAGE_BYTES + 1)
        if len(page) > PAGE_BYTES:
            return Failure(row, "page_too_large", f"{headers.get('WARC-Target-URI')} has more than {PAGE_BYTES} bytes")
        fields = main_text(page, _charset(parameters))
    answer = {"Content-Type": kind.strip() or None, "status": http.get_statuscode() if http else None}
    fields["url"] = headers.get("WARC-Target-URI") or fields["url"]
    fields["metadata"] = {**headers, **answer, **fields["metadata"]}
    return Record(row, fields)


def _charset(parameters: str) -> str | None:
    """The encoding in `; charset="utf-8"; …`, if there is one."""
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            return value.strip().strip("\"'") or None
    return None
