"""The readers' registry, the decompressing stream, JSON lines and Parquet."""

import bz2
import datetime
import decimal
import gzip
import json
import random
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from backports import zstd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import PipelineError
from pipeline.readers import READERS, Failure, RawFile, Record, reader_for
from pipeline.readers import jsonl as jsonl_reader
from pipeline.readers.streams import open_stream

COMPRESS = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": zstd.compress,
    ".zstd": zstd.compress,
    ".bz2": bz2.compress,
}
PACKED = [".gz", ".zst", ".bz2"]


def raw_file(folder: Path, name: str, content: bytes, reader: str | None = None) -> RawFile:
    path = folder / "fetched"  # the name decides, not the path
    path.write_bytes(content)
    return RawFile(name=f"some/{name}", path=str(path), bytes=len(content), sha256="", reader=reader)


def read(file: RawFile) -> list[Record | Failure]:
    return list(reader_for(file)(file))


def lines_of(folder: Path, content: bytes, name: str = "a.jsonl") -> list[Record | Failure]:
    return read(raw_file(folder, name, content))


# The registry


@pytest.mark.parametrize(
    ("name", "reader"),
    [
        ("dclm-0000.json.zst", "jsonl"),
        ("shard_00000000_processed.jsonl.zstd", "jsonl"),
        ("wiki-0000.json.gz", "jsonl"),
        ("train_0000.jsonl", "jsonl"),
        ("train-00000-of-00004.parquet", "parquet"),
        ("enwiki-20231001-pages-articles-multistream.xml.bz2", "wikipedia"),
        ("enwiki-latest-pages-articles1.xml-p10p30302.bz2", "wikipedia"),
        ("george-0.4.4/paper/MS.TEX", "latex"),
        ("arXiv_src_0704_001.tar", "latex"),
        ("1703.09710.tar.gz", "latex"),
        ("page.html", "html"),
        ("sample-0000.warc.gz", "warc"),
    ],
)
def test_a_files_suffix_tells_its_reader(name: str, reader: str) -> None:
    assert reader_for(RawFile(name, "", 0, "")) is READERS[reader]


def test_a_named_reader_wins_over_the_suffix() -> None:
    assert reader_for(RawFile("a.xml", "", 0, "", reader="jats")) is READERS["jats"]


def test_an_unknown_suffix_or_reader_is_refused_with_what_is_known() -> None:
    with pytest.raises(PipelineError, match=r"^notes\.docx: .*\*\.parquet"):
        reader_for(RawFile("notes.docx", "", 0, ""))
    with pytest.raises(PipelineError, match=r"^a\.xml: there is no reader 'jast'; known are .*jats"):
        reader_for(RawFile("a.xml", "", 0, "", reader="jast"))


def test_heavy_parsers_are_loaded_only_when_a_reader_runs() -> None:
    loaded = "import sys, pipeline.readers; print([m for m in ('lxml', 'pyarrow', 'orjson') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_a_failures_detail_is_short() -> None:
    assert len(Failure(0, "broken_json", "x" * 5000).detail) == 200


# Compressed streams


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(members=st.lists(st.binary(max_size=300), min_size=1, max_size=4), size=st.integers(1, 100))
@pytest.mark.parametrize("suffix", PACKED)
def test_all_members_are_read_whatever_the_size_of_a_read(tmp_path: Path, suffix: str, members: list[bytes], size: int) -> None:
    file = raw_file(tmp_path, f"a{suffix}", b"".join(COMPRESS[suffix](member) for member in members))
    with open_stream(file) as stream:
        pieces = list(iter(lambda: stream.read(size), b""))
    assert b"".join(pieces) == b"".join(members)
    assert all(len(piece) <= size for piece in pieces)


@pytest.mark.parametrize("suffix", PACKED)
def test_a_file_cut_at_any_byte_is_refused_with_its_place_and_remedy(tmp_path: Path, suffix: str) -> None:
    whole = COMPRESS[suffix](random.Random(0).randbytes(40))
    second = COMPRESS[suffix](b"second")
    for kept in range(1, len(second)):
        with (
            pytest.raises(PipelineError, match=rf"some/a{suffix}: .*begins at byte {len(whole)}, .*fetch .*again"),
            open_stream(raw_file(tmp_path, f"a{suffix}", whole + second[:kept])) as stream,
        ):
            stream.readall()


@pytest.mark.parametrize("suffix", PACKED)
def test_a_zero_byte_compressed_file_is_refused(tmp_path: Path, suffix: str) -> None:
    with (
        pytest.raises(PipelineError, match=r"holds zero bytes where a .* should begin, at byte 0; fetch"),
        open_stream(raw_file(tmp_path, f"a{suffix}", b"")) as stream,
    ):
        stream.read()


@pytest.mark.parametrize("suffix", PACKED)
@pytest.mark.parametrize("content", [b"<html>404</html>", b"\0" * 40])
def test_a_wrong_magic_number_is_refused(tmp_path: Path, suffix: str, content: bytes) -> None:
    with (
        pytest.raises(PipelineError, match="begins at byte 0 "),
        open_stream(raw_file(tmp_path, f"a{suffix}", content)) as stream,
    ):
        stream.readall()


@pytest.mark.parametrize("suffix", PACKED)
def test_garbage_after_the_last_member_is_refused(tmp_path: Path, suffix: str) -> None:
    whole = COMPRESS[suffix](b'{"text": "a"}\n')
    with (
        pytest.raises(PipelineError, match=f"begins at byte {len(whole)} "),
        open_stream(raw_file(tmp_path, f"a{suffix}", whole + b"garbage at the end")) as stream,
    ):
        stream.readall()


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_flipped_bit_fails_the_checksum(tmp_path: Path, suffix: str) -> None:
    text = random.Random(1).randbytes(1000)
    options = {zstd.CompressionParameter.checksum_flag: 1}
    packed = bytearray(gzip.compress(text) if suffix == ".gz" else zstd.compress(text, options=options))
    packed[500] ^= 1
    with pytest.raises(PipelineError), open_stream(raw_file(tmp_path, f"a{suffix}", bytes(packed))) as stream:
        stream.readall()


def test_zstd_skippable_frames_are_skipped(tmp_path: Path) -> None:
    skippable = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"pzst"
    content = skippable + zstd.compress(b'{"a": 1}\n') + skippable + zstd.compress(b'{"a": 2}\n')
    assert lines_of(tmp_path, content, "a.jsonl.zst") == [Record(0, {"a": 1}), Record(1, {"a": 2})]


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".bz2"])
def test_a_decompression_bomb_takes_no_memory(tmp_path: Path, suffix: str) -> None:
    bomb = COMPRESS[suffix](bytes(40 << 20))
    assert len(bomb) < 100_000
    tracemalloc.start()
    with open_stream(raw_file(tmp_path, f"a{suffix}", bomb)) as stream:
        total = sum(len(piece) for piece in iter(lambda: stream.read(1 << 20), b""))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 40 << 20
    assert peak < 8 << 20


def test_a_compressed_file_under_a_plain_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"begins like a gzip file.*give it the suffix \.gz"):
        lines_of(tmp_path, gzip.compress(b'{"text": "a"}\n'))


# JSON lines

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.dictionaries(st.text(), JSON_VALUES, max_size=3), min_size=1, max_size=6), data=st.data())
@pytest.mark.parametrize("suffix", ["", ".gz", ".zst", ".zstd"])
def test_objects_survive_the_round_trip_in_any_packing(
    tmp_path: Path,
    suffix: str,
    rows: list[dict[str, object]],
    data: st.DataObject,
) -> None:
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()
    text += data.draw(st.sampled_from([b"", b"\n"]))
    cut = data.draw(st.integers(0, len(text)))
    block = data.draw(st.integers(1, 40))
    pack = COMPRESS[suffix]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonl_reader, "BLOCK_BYTES", block)  # lines begin and end anywhere in a block
        read_back = lines_of(tmp_path, pack(text[:cut]) + pack(text[cut:]), f"a.jsonl{suffix}")
    assert read_back == [Record(row, fields) for row, fields in enumerate(rows)]


def test_lines_end_at_newline_alone(tmp_path: Path) -> None:
    text = "one\u2028two\u2029three\x85four\x0cfive"
    content = json.dumps({"text": text}, ensure_ascii=False).encode()
    assert lines_of(tmp_path, content + b"\r\n" + content) == [
        Record(0, {"text": text}),
        Record(1, {"text": text}),
    ]


def test_blank_lines_are_skipped_and_keep_their_row(tmp_path: Path) -> None:
    assert lines_of(tmp_path, b'{"a": 1}\n\n \t\r\n{"a": 2}\n\n') == [
        Record(0, {"a": 1}),
        Record(3, {"a": 2}),
    ]


def test_broken_lines_are_named_and_the_others_are_read(tmp_path: Path) -> None:
    content = b'{"a": 1}\n{"text": "caf\xe9"}\n{"a": \n[1]\n"x"\n{"a": NaN}\n{"a": 2}'
    records = lines_of(tmp_path, content)
    assert [(r.row, r.reason if isinstance(r, Failure) else r.fields) for r in records] == [
        (0, {"a": 1}),
        (1, "invalid_utf8"),
        (2, "broken_json"),
        (3, "not_an_object"),
        (4, "not_an_object"),
        (5, "broken_json"),
        (6, {"a": 2}),
    ]
    details = [record.detail for record in records if isinstance(record, Failure)]
    assert details[0].startswith("byte 13 of the line is 0xe9")
    assert "at character" in details[1]
    assert details[2:4] == ["the line is an array, not an object", "the line is a string, not an object"]


def test_an_empty_file_is_refused_but_a_whole_empty_archive_is_not(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"some/a\.jsonl: holds zero bytes.*remove it, or fetch it again"):
        lines_of(tmp_path, b"")
    assert lines_of(tmp_path, gzip.compress(b""), "a.jsonl.gz") == []


PEAK_OF_READING = """
import sys
from pipeline.readers import RawFile, reader_for
file = RawFile("a.jsonl.zst", sys.argv[1], 0, "")
print([len(record.fields["text"]) for record in reader_for(file)(file)])
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak of memory from Linux's /proc")
def test_a_line_of_50_mb_takes_a_few_copies_of_itself(tmp_path: Path) -> None:
    content = b'{"text": "' + b"x" * (50 << 20) + b'"}\n{"text": "y"}'
    file = raw_file(tmp_path, "a.jsonl.zst", zstd.compress(content))
    # A process of its own: orjson reserves far more than it touches, so that only resident memory tells.
    result = subprocess.run([sys.executable, "-c", PEAK_OF_READING, file.path], capture_output=True, text=True, check=True)
    lengths, peak_kib = result.stdout.split("\n")[:2]
    assert lengths == f"[{50 << 20}, 1]"
    assert int(peak_kib) << 10 < 5 * len(content)


def test_a_line_beyond_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl_reader, "LINE_LIMIT", 10 << 20)
    bomb = zstd.compress(b'{"text": "' + bytes(60 << 20))
    with pytest.raises(PipelineError, match=r"a line is longer than 10,485,760 bytes, at byte .*not a file of JSON"):
        lines_of(tmp_path, bomb, "a.jsonl.zst")


def test_a_line_of_more_values_than_memory_should_hold_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl_reader, "VALUES_LIMIT", 1000)
    rows = [b'{"a": [%s0]}' % (b"{}," * 600), b'{"a": [%s0]}' % (b"{}," * 400), b'{"text": "%s"}' % (b"x" * 5000)]
    found = lines_of(tmp_path, b"\n".join(rows), "a.jsonl")
    assert [(one.row, getattr(one, "reason", "")) for one in found] == [(0, "too_many_values"), (1, ""), (2, "")]


# Parquet


def parquet_file(folder: Path, table: pa.Table, **options: object) -> RawFile:
    pq.write_table(table, folder / "fetched", **options)
    return RawFile("some/a.parquet", str(folder / "fetched"), (folder / "fetched").stat().st_size, "")


ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "text": st.none() | st.text(),
            "stars": st.none() | st.integers(-(2**63), 2**63 - 1),
            "meta": st.none() | st.fixed_dictionaries({"url": st.none() | st.text(), "scores": st.lists(st.floats(allow_nan=False))}),
        }
    ),
    max_size=8,
)
SCHEMA = pa.schema(
    [
        ("text", pa.string()),
        ("stars", pa.int64()),
        ("meta", pa.struct([("url", pa.large_string()), ("scores", pa.list_(pa.float64()))])),
    ]
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS, group=st.integers(1, 4))
def test_rows_survive_the_round_trip_over_row_groups(tmp_path: Path, rows: list[dict[str, object]], group: int) -> None:
    file = parquet_file(tmp_path, pa.Table.from_pylist(rows, SCHEMA), row_group_size=group)
    assert read(file) == [Record(row, fields) for row, fields in enumerate(rows)]


def test_values_become_what_json_can_say(tmp_path: Path) -> None:
    moment = datetime.datetime(2023, 5, 1, 12, 30, tzinfo=datetime.UTC)
    table = pa.table(
        {
            "when": pa.array([moment], pa.timestamp("ns", "UTC")),
            "day": pa.array([moment.date()]),
            "price": pa.array([decimal.Decimal("1.50")]),
            "content": pa.array(["café".encode()], pa.binary()),
            "nested": pa.array([{"at": [moment.replace(tzinfo=None)]}]),
            "pairs": pa.array([[("a", 1), ("a", 2)]], pa.map_(pa.string(), pa.int64())),
        }
    )
    [record] = read(parquet_file(tmp_path, table))
    assert isinstance(record, Record)
    assert record.fields == {
        "when": "2023-05-01T12:30:00+00:00",
        "day": "2023-05-01",
        "price": "1.50",
        "content": "café",
        "nested": {"at": ["2023-05-01T12:30:00"]},
        "pairs": [["a", 1], ["a", 2]],
    }
    json.dumps(record.fields)


@pytest.mark.parametrize("type_", [pa.binary(), pa.string()])
def test_a_row_that_is_no_utf8_is_named_and_the_others_are_read(tmp_path: Path, type_: pa.DataType) -> None:
    array = pa.Array.from_buffers(type_, 3, pa.array([b"one", b"caf\xe9", b"three"], pa.binary()).buffers())
    records = read(parquet_file(tmp_path, pa.table({"text": array})))
    assert records == [
        Record(0, {"text": "one"}),
        Failure(1, "invalid_utf8", "a value's byte 3 is 0xe9"),
        Record(2, {"text": "three"}),
    ]


def test_damaged_parquet_is_refused(tmp_path: Path) -> None:
    table = pa.table({"text": [str(number) * 50 for number in range(3000)]})
    file = parquet_file(tmp_path, table, compression="zstd", use_dictionary=False, row_group_size=1000)
    whole = Path(file.path).read_bytes()
    middle = len(whole) // 2
    for content, found in (
        (b"", "is no whole Parquet file"),
        (whole[:-100], "is no whole Parquet file"),
        (whole[4:], "row group|no whole"),
        (whole[: middle - 600] + bytes(1200) + whole[middle + 600 :], "has a damaged row group 1 of 3"),
    ):
        with pytest.raises(PipelineError, match=rf"some/a\.parquet: .*({found}).*fetch the file again"):
            read(raw_file(tmp_path, "a.parquet", content))


def test_a_large_row_group_is_read_in_small_batches(tmp_path: Path) -> None:
    texts = [chr(97 + number % 26) * 100_000 for number in range(1000)]  # 100 MB in one row group
    file = parquet_file(tmp_path, pa.table({"text": texts}), compression="zstd", write_batch_size=10)
    del texts
    before = pa.default_memory_pool().bytes_allocated()
    largest = max(pa.default_memory_pool().bytes_allocated() - before for _ in reader_for(file)(file))
    assert largest < 60 << 20
