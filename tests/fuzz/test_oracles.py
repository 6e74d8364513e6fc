"""Readers written to be linear and bounded: the same as what they replace (upstream's expressions, tarfile, warcio), and bounded."""

import gzip
import io
import json
import re
import tarfile
import time
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from warcio.archiveiterator import ArchiveIterator

from pipeline.errors import PipelineError
from pipeline.lock import Lock
from pipeline.readers import Failure, RawFile, Record, answer, html, latex, parquet, tar, warc
from tools.fuzzing import seeds, tokens
from tools.fuzzing.targets import target

quick = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


# LaTeX: RedPajama's arxiv_cleaner.py, as it stands there but for the two deviations that latex.py names

SECTION = re.compile(r"\\(?:chapter|part|section|subsection|subsubsection)\b\*?(?:\[.*?\])?\{.*?\}", re.DOTALL)
END = re.compile(r"\\appendix|\\begin\{(?:references|REFERENCES|thebibliography)\}|\\bibliography\{[^}]*\}")
MACROS = (
    re.compile(r"\\\bnewcommand\b\*?\{(\\[a-zA-Z0-9]+?)\}\{(.*?)\}$", re.MULTILINE),
    re.compile(r"\\def\s*(\\[a-zA-Z0-9]+?)\s*\{(.*?)\}$", re.MULTILINE),
)


def upstream(source: str) -> str:
    first = SECTION.search(source)
    if first is None:
        return ""
    text = re.sub(r"[^\\]%.+$", "", re.sub(r"(?m)^%.*\n?", "", source[first.start() :]), flags=re.MULTILINE)
    text = text[: end.start()] if (end := END.search(text)) else text
    for name, value in {match[1]: match[2] for kind in MACROS for match in kind.finditer(source)}.items():
        text = re.sub(rf"{re.escape(name)}([^a-zA-Z0-9])", lambda match, value=value: value + match[1], text)
    return text if text.strip() else ""


pieces = st.sampled_from([token.decode() for token in tokens.TEX] + ["", "a", "\n", " ", "x y\n", "}", "]{", "yz", "\\a\\a "])


@quick
@given(st.lists(pieces, max_size=30).map("".join))
def test_latex_is_cleaned_as_upstreams_expressions_clean_it(source: str) -> None:
    assert latex.cleaned([source]) == upstream(source)


@pytest.mark.parametrize("piece", ["\\section[", "\\section{", "\\section[]{", "\\newcommand{\\a}{", "\\def\\a{", "\\bibliography{", "%"])
def test_latex_that_never_ends_is_cleaned_in_linear_time(piece: str) -> None:
    began = time.process_time()
    latex.cleaned(["\\section{x}" * (piece == "\\bibliography{") + piece * (400_000 // len(piece))])
    assert time.process_time() - began < 1.5


def test_macros_that_double_each_other_are_refused(tmp_path: Path) -> None:
    names = "abcdefghijklmnopqrstuvwxyz"
    macros = "\n".join(rf"\def\{one}{{\{two} \{two} }}" for one, two in pairwise(names))
    (tmp_path / "a.tex").write_text(macros + "\n\\section{A}\n\\a ")
    (failure,) = latex.read(RawFile("a.tex", str(tmp_path / "a.tex"), 1, ""))
    assert isinstance(failure, Failure) and failure.reason == "paper_too_large"
    assert latex.cleaned([macros.replace("\\e \\e", "x") + "\n\\section{A}\n\\a "]).count("x") == 8


# Tar


@quick
@given(
    st.lists(
        st.tuples(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=200).filter(lambda name: name.strip("/.")),
                  st.binary(max_size=1500), st.integers(0, 2**33)), max_size=5,
    ),
    st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)  # fmt: skip
def test_tars_are_read_as_pythons_own_module_reads_them(files: list[tuple[str, bytes, int]], kind: int) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=kind) as archive:
        for number, (name, content, mtime) in enumerate(files):
            member = tarfile.TarInfo(name)
            member.size, member.mtime, member.type = len(content), mtime, tarfile.REGTYPE if number % 3 else tarfile.AREGTYPE
            archive.addfile(member, io.BytesIO(content))
            link = tarfile.TarInfo("link")
            link.type, link.linkname = tarfile.SYMTYPE, "x" * 150
            archive.addfile(link)
    with tarfile.open(fileobj=io.BytesIO(packed.getvalue())) as archive:
        expected = [(m.name, archive.extractfile(m).read(), m.mtime) for m in archive if m.isfile()]  # type: ignore[union-attr]
    found = [(m.name, m.content.read(1 << 20), m.modified) for m in tar.members(io.BytesIO(packed.getvalue()))]
    assert found == expected


# Web archives


def response(body: bytes, *headers: bytes) -> bytes:
    return b"\r\n".join([b"HTTP/1.1 200 OK", b"Content-Type: text/html; charset=utf-8", *headers, b"", body])


def record(kind: bytes, content: bytes, version: bytes = b"1.0") -> bytes:
    head = [b"WARC/" + version, b"WARC-Type: " + kind, b"WARC-Target-URI: http://a.example/x", b"Content-Length: %d" % len(content)]
    return b"\r\n".join([*head, b"", content, b"", b""])


def chunked(body: bytes, size: int) -> bytes:
    parts = [body[place : place + size] for place in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


bodies = st.binary(max_size=300) | st.just(seeds.PAGE)
responses = st.one_of(
    st.builds(response, bodies),
    st.builds(lambda body, size: response(chunked(body, size), b"Transfer-Encoding: chunked"), bodies, st.integers(1, 100)),
    st.builds(lambda body: response(gzip.compress(body), b"Content-Encoding: gzip"), bodies),
    st.builds(lambda body: response(chunked(gzip.compress(body), 40), b"Content-Encoding: gzip", b"Transfer-Encoding: chunked"), bodies),
    st.builds(lambda body: response(body, b"Transfer-Encoding: chunked"), bodies.filter(lambda body: not body[:1].isalnum())),
)


@quick
@given(st.lists(st.tuples(st.sampled_from([b"response", b"request", b"metadata"]), responses), min_size=1, max_size=4))
def test_pages_of_an_archive_are_those_that_warcio_finds(records: list[tuple[bytes, bytes]]) -> None:
    content = b"".join(record(kind, body) for kind, body in records)
    expected = [found.content_stream().read() for found in ArchiveIterator(io.BytesIO(content)) if found.rec_type == "response"]
    ours = [answer.answer_of(body).content(1 << 20) for kind, body in records if kind == b"response"]
    assert ours == expected


def test_an_archive_of_many_small_records_is_read_in_linear_time(tmp_path: Path) -> None:
    (tmp_path / "a.warc").write_bytes(record(b"request", b"GET / HTTP/1.1\r\n\r\n") * 20_000 + record(b"response", response(seeds.PAGE)))
    began = time.process_time()
    (found,) = warc.read(RawFile("a.warc", str(tmp_path / "a.warc"), 1, ""))
    assert isinstance(found, Record) and found.row == 20_000 and "keeper" in found.fields["text"]
    assert time.process_time() - began < 3


@pytest.mark.parametrize(("encoding", "reason"), [("br", "unknown_encoding"), ("gzip", "broken_encoding"), ("zstd", "broken_encoding")])
def test_a_page_that_cannot_be_decoded_is_named(tmp_path: Path, encoding: str, reason: str) -> None:
    body = response(b"\x1f\x8b damaged", b"Content-Encoding: " + encoding.encode())
    (tmp_path / "a.warc").write_bytes(record(b"response", body))
    (failure,) = warc.read(RawFile("a.warc", str(tmp_path / "a.warc"), 1, ""))
    assert isinstance(failure, Failure) and failure.reason == reason


def test_a_page_that_unpacks_to_more_than_a_page_may_have_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warc, "PAGE_BYTES", 1 << 20)
    bomb = response(gzip.compress(gzip.compress(b"\0" * (2 << 20))), b"Content-Encoding: gzip, gzip")
    (tmp_path / "a.warc").write_bytes(record(b"response", bomb))
    (failure,) = warc.read(RawFile("a.warc", str(tmp_path / "a.warc"), 1, ""))
    assert isinstance(failure, Failure) and failure.reason == "page_too_large"


# Pages


@pytest.mark.parametrize("piece", ["<div>", "<ul><li><p>x", "<span><i>", "<blockquote>"])
def test_pages_nested_without_end_are_named_in_linear_time(tmp_path: Path, piece: str) -> None:
    (tmp_path / "a.html").write_text(piece * 50_000)
    began = time.process_time()
    (failure,) = html.read(RawFile("a.html", str(tmp_path / "a.html"), 1, ""))
    assert isinstance(failure, Failure) and failure.reason == "nested_too_deeply"
    assert time.process_time() - began < 1.5


@pytest.mark.parametrize("piece", ["<p>word ", "<li>word", "<br>word", "<tr><td>word", "<div>word</div>", "<img src=x>word"])
def test_pages_that_are_long_and_flat_are_pages(tmp_path: Path, piece: str) -> None:
    (tmp_path / "a.html").write_text("<table>" * ("<td" in piece) + piece * 5_000)
    (found,) = html.read(RawFile("a.html", str(tmp_path / "a.html"), 1, ""))
    assert isinstance(found, Record) and found.fields["text"].count("word") == 5_000


# Tables


def test_times_are_the_same_on_every_machine(tmp_path: Path) -> None:
    """Nanoseconds would need pandas, zones a list of them: both differ between machines."""
    moment = 1_700_000_000_123_456_789
    columns = {
        "nanoseconds": pa.array([moment], pa.timestamp("ns")),
        "zoned": pa.array([moment // 1000], pa.timestamp("us", "Mars/Olympus")),
        "nested": pa.array([{"at": [moment]}], pa.struct([("at", pa.list_(pa.timestamp("ns", "Europe/Berlin")))])),
        "lasting": pa.array([1_500_000_001], pa.duration("ns")),
        "time": pa.array([1_000_000_001], pa.time64("ns")),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    (found,) = parquet.read(RawFile("a.parquet", str(tmp_path / "a.parquet"), 1, ""))
    assert found == Record(0, {
        "nanoseconds": "2023-11-14T22:13:20.123456", "zoned": "2023-11-14T22:13:20.123456+00:00",
        "nested": {"at": ["2023-11-14T22:13:20.123456+00:00"]}, "lasting": "0:00:01.500000", "time": "00:00:01",
    })  # fmt: skip


def test_a_time_that_python_has_not_costs_its_row(tmp_path: Path) -> None:
    times = pa.array([0, 2**62, 1], pa.timestamp("us"))
    pq.write_table(pa.table({"text": ["a", "b", "c"], "created": times}), tmp_path / "a.parquet")
    first, second, third = parquet.read(RawFile("a.parquet", str(tmp_path / "a.parquet"), 1, ""))
    assert isinstance(second, Failure) and (second.row, second.reason) == (1, "unreadable_value")
    assert [first.fields["text"], third.fields["text"]] == ["a", "c"]  # type: ignore[union-attr]


# Locks


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (["sequence_length"], 0, "sequence_length: Input should be greater than or equal to 1"),
        (["pool"], 0, "pool: Input should be greater than or equal to 1"),
        (["tokenizer", "dtype"], "object", "tokenizer.dtype: Input should be 'uint16' or 'uint32'"),
        (["sources", 0, "shards", 0, "tokens"], -8, "sources[0].shards[0].tokens: Input should be greater than or equal to 0"),
        (["sources", 0, "shards", 0, "path"], "../../secret.bin", "the shard '../../secret.bin' lies outside the store"),
        (["sources", 0, "shards", 0, "path"], "/etc/passwd", "the shard '/etc/passwd' lies outside the store"),
        (["mix"], "\ud800", "is not JSON"),
        (["sources", 0, "repeats"], float("nan"), "is not JSON"),
    ],
)
def test_a_lock_that_could_mislead_is_refused(tmp_path: Path, path: list[str | int], value: object, said: str) -> None:
    content = json.loads(target("lock").seeds[0][0])
    place = content
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    (tmp_path / "m.lock.json").write_text(json.dumps(content))
    with pytest.raises(PipelineError, match=re.escape(said)):
        Lock.read(tmp_path / "m.lock.json")


def test_a_lock_nested_without_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.lock.json").write_text('{"recipe":' + "[" * 100_000)
    with pytest.raises(PipelineError, match="is not JSON"):
        Lock.read(tmp_path / "m.lock.json")
