"""Targets: every reader, by itself and through the read stage, on one file.

What must hold beside the common promises (target.py): rows ascend; a failure has a reason in snake_case and at most 200
characters of detail; every record becomes a document or a named failure, and the stage's counts say so; documents can be read back, with as
many bytes of text as were counted.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.engine import Work
from pipeline.files import sha256_of
from pipeline.readers import Failure, RawFile, Record, reader_for
from pipeline.stages import read as stage
from pipeline.store import Store
from tools.fuzzing import seeds, tokens
from tools.fuzzing.columns import random_table
from tools.fuzzing.layers import BZIP2, GZIP, PAPER, TAR, XML, ZSTD
from tools.fuzzing.target import Layer, Parts, Target, must

REASON = re.compile(r"[a-z][a-z0-9_]*")
NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
FIELDS = {"id": ("id",), "text": ("text", "content"), "created": ("created",), "added": ("added",)}
WATCHED = ("pipeline.readers", "pipeline.stages.read")
Wrap = Callable[[bytes], bytes]


def targets() -> list[Target]:
    """All readers, compressed files as targets of their own."""
    web = [seeds.PAGE, seeds.PAGE.decode().encode("utf-16")]
    papers = [seeds.gzipped(seeds.tar({"main.tex": seeds.TEX, "x.eps": b"%!PS"})), seeds.gzipped(seeds.TEX)]
    bulk = seeds.tar({"1801/1801.00001.gz": papers[0], "1801/1801.00002.gz": papers[1], "1801/x.pdf": b"%PDF"})
    archives = [seeds.warc(), seeds.warc(chunked=True)]
    return [
        _target("jsonl", "p/a.jsonl", [seeds.LINES], tokens.JSON),
        _target("jsonl.gz", "p/a.json.gz", [seeds.gzipped(seeds.LINES) * 2], tokens.JSON, (GZIP,)),
        _target("jsonl.zst", "p/a.jsonl.zst", [seeds.zstandard(seeds.LINES) * 2], tokens.JSON, (ZSTD,)),
        _target("parquet", "p/a.parquet", seeds.tables(), invent=_table),
        _target("wikipedia", "a.xml", [seeds.dump("text", seeds.WIKITEXT)], tokens.XML + tokens.WIKI, (XML,)),
        _target("wikipedia.bz2", "a.xml.bz2", [seeds.bzipped(seeds.dump("a")) * 2], tokens.XML, (BZIP2,)),
        _target("wikitext", "a.xml", [seeds.WIKITEXT.encode()], tokens.WIKI, wrap=_dumped),
        _target("latex.tex", "1801.00001.tex", [seeds.TEX], tokens.TEX),
        _target("latex.paper", "hep-th9901001.tar.gz", papers, tokens.TEX, (GZIP, PAPER), invent=_paper),
        _target("latex.bulk", "arXiv_src_1801_001.tar", [bulk], layers=(TAR,), invent=_bulk),
        _target("html", "a.html", web, tokens.HTML),
        _target("math_html", "a.html", [seeds.FORMULAS, *web], tokens.HTML, reader="math_html"),
        _target("warc", "a.warc", archives, tokens.WARC),
        _target("warc.gz", "a.warc.gz", [b"".join(seeds.gzipped(archive) for archive in archives)], tokens.WARC, (GZIP,)),
        _target("jats", "a.xml", [seeds.ARTICLE], tokens.XML + tokens.JATS, (XML,), reader="jats"),
        _target("text", "p-1/a.txt", [seeds.FAQ], reader="text"),
        _target("code", "p-1/a.py", [b"import os\nprint(os)\n"], reader="code"),
        _target("faq", "p-1/faq.rst", [seeds.FAQ], tokens.RST, reader="faq"),
        _target("qa", "p/requests.jsonl.gz", [seeds.gzipped(seeds.QUESTIONS)], tokens.JSON, (GZIP,), reader="qa"),
    ]


def _target(
    name: str,
    file: str,
    contents: Sequence[bytes],
    words: tuple[bytes, ...] = (),
    layers: tuple[Layer, ...] = (),
    invent: Callable[[Random], Parts] | None = None,
    reader: str | None = None,
    wrap: Wrap = bytes,
) -> Target:
    """A reader on files called `file`; what is mutated lies in them as `wrap` makes it."""

    def run(parts: Parts, folder: Path) -> list[str]:
        content = wrap(parts[0])
        (folder / "raw").write_bytes(content)
        return observed(RawFile(file, str(folder / "raw"), len(content), "0" * 64, reader), folder)

    return Target(name, [(content,) for content in contents], run, WATCHED, words, (layers,), invent)


def observed(file: RawFile, folder: Path) -> list[str]:
    """Read a file by its reader and by the read stage; a line for each record and failure, and for what is written."""
    lines: list[str] = []
    row = -1
    for item in reader_for(file)(file):
        must(type(item.row) is int and item.row > row, "a row that does not ascend")
        row = item.row
        if isinstance(item, Failure):
            must(REASON.fullmatch(item.reason) is not None, f"the reason {item.reason!r}")
            must(len(item.detail) <= 200, "a detail of more than 200 characters")
            lines.append(f"{item.reason}: {item.detail}")
        else:
            must(isinstance(item, Record) and all(type(key) is str for key in item.fields), "fields without names")
            text = str(item.fields.get("text") or "")
            sizes = [len(item.fields), len(text), text.count("\n"), len(set(text))]
            lines.append(f"record {row}: " + " ".join("I" * size.bit_length() for size in sizes))  # numbers are no coverage
    return lines + _staged(file, folder, len(lines))


def _staged(file: RawFile, folder: Path, items: int) -> list[str]:
    """The read stage's counts, and the sha256 of what it writes."""
    (unit,) = stage.units("fuzz", [file], FIELDS)
    out = folder / "out"
    out.mkdir()
    (counts,) = stage.read([Work(unit, out, Store(folder))])
    failed = sum(counts["failed"].values())
    must(counts["documents"] + failed == items, "records that are neither documents nor failures")
    texts = [text for part in sorted(out.glob("part-*.parquet")) for text in pq.read_table(part)["text"].to_pylist()]
    must(len(texts) == counts["documents"], "other documents written than counted")
    must(sum(len(text.encode()) for text in texts) == counts["bytes"], "other bytes of text written than counted")
    must(pq.read_table(out / "failures.parquet").num_rows == failed, "other failures written than counted")
    hashes = [f"{path.name} {sha256_of(path)}" for path in sorted(out.iterdir())]
    return [f"{reason}: {count}" for reason, count in counts["failed"].items()] + hashes


def _dumped(wikitext: bytes) -> bytes:
    """A dump with one article of this text, as far as XML can hold it."""
    return seeds.dump(NO_XML.sub("", wikitext.decode("utf-8", "replace")))


def _table(random: Random) -> Parts:
    """A Parquet file of columns of random types."""
    packed = io.BytesIO()
    try:
        pq.write_table(random_table(random), packed, compression=random.choice(("zstd", "none")), store_schema=random.random() < 0.8)
    except (pa.ArrowException, ValueError, OSError):  # not every type can be written
        return (seeds.tables()[0],)
    return (packed.getvalue(),)


def _paper(random: Random) -> Parts:
    """A paper's archive with unusual headers."""
    numbers = ["-1", "0", "-512", "99999999999999999999", "1e308", "nan", "1.5", "", "x", "é"]
    keys = ["size", "mtime", "path", "linkpath", "uid", "GNU.sparse.size", "GNU.sparse.map", "GNU.sparse.major", "hdrcharset"]
    pax = {random.choice(keys): random.choice(numbers) for _ in range(random.randrange(3))}
    mtime = random.choice((0, 1.5, -1.0, 2.0**33, 2.0**62))
    return (seeds.gzipped(seeds.tar({"main.tex": seeds.TEX, "a/b.tex": b"\\section{B} more"}, pax, mtime)),)


def _bulk(random: Random) -> Parts:
    (paper,) = _paper(random)
    return (seeds.tar({"0001/hep-th9901001.gz": paper}, {"mtime": random.choice(("1", "nan", "1e30"))}),)
