"""Archives made to do harm: nothing of them gets out of its folder, and none takes memory or disk without end."""

import gzip
import io
import resource
import stat
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.download import archives
from pipeline.download.archives import ArchiveError, clash, files, plain_name

KINDS = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE)
OUTSIDE = [
    "../up",
    "a/../../up",
    "/etc/passwd",
    "..",
    "a\\..\\up",
    "C:up",
    "c:\\up",
    "\\\\host\\up",
    "a\0b",
    "a\nb",
    "",
    ".",
    "x" * 256,
    "a/" * 600 + "b",
]


def tarred(members: list[tuple[str, bytes]], kind: bytes = tarfile.REGTYPE) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=tarfile.PAX_FORMAT) as bundle:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.type, member.size = kind, len(content) if kind == tarfile.REGTYPE else 0
            member.linkname = "/etc/passwd" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            bundle.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def zipped(members: list[tuple[str, bytes]], mode: int = 0, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as bundle:
        for name, content in members:
            entry = zipfile.ZipInfo("x")
            entry.filename, entry.compress_type, entry.external_attr = name, method, mode << 16
            bundle.writestr(entry, content)
    return buffer.getvalue()


def unpacked(folder: Path, name: str, content: bytes) -> dict[str, bytes]:
    path = folder / "archive"
    path.write_bytes(content)
    return {entry: b"".join(blocks) for entry, blocks in files(path, name)}


@pytest.fixture
def little_memory() -> Iterator[None]:
    """400 MB more than this process has now."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + (400 << 20), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_that_leads_elsewhere_or_cannot_be_written_is_left_out(name: str, tmp_path: Path) -> None:
    assert plain_name(name) is None
    members = [(name, b"evil"), ("a/good", b"good")]
    cut = {"a"} if "\0" in name else set()  # both formats end a name at a zero
    assert unpacked(tmp_path, "x.tar.gz", tarred(members)).keys() - cut == {"a/good"}
    assert unpacked(tmp_path, "x.zip", zipped(members)).keys() - cut == {"a/good"}


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="ab./\\: \0\u0301é\ud800", max_size=12))
@example("./a//b/.")
def test_a_name_that_is_given_stays_below_any_folder(name: str) -> None:
    plain = plain_name(name)
    if plain is not None:
        assert Path("/store", plain).resolve().is_relative_to("/store/") and Path("/store", plain) != Path("/store")
        assert plain_name(plain) == plain


@pytest.mark.parametrize("kind", KINDS)
def test_links_devices_and_folders_are_no_files(kind: bytes, tmp_path: Path) -> None:
    assert unpacked(tmp_path, "x.tgz", tarred([("a/x", b"")], kind)) == {}


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFDIR])
def test_a_zip_has_no_special_files_either(mode: int, tmp_path: Path) -> None:
    assert unpacked(tmp_path, "x.whl", zipped([("a/x", b"/etc/passwd")], mode | 0o777)) == {}
    assert unpacked(tmp_path, "x.whl", zipped([("a/x", b"text")], stat.S_IFREG | 0o777)) == {"a/x": b"text"}


@pytest.mark.parametrize(
    ("names", "two"),
    [
        (["a/README", "a/b", "A/readme"], {"a/README", "A/readme"}),
        (["é", "e\u0301"], {"é", "e\u0301"}),
        (["straße", "STRASSE"], {"straße", "STRASSE"}),
        (["a", "a/b/c"], {"a", "a/b/c"}),
        (["A/b", "a"], {"A/b", "a"}),
    ],
)
def test_names_that_are_one_file_on_some_disks_are_found(names: list[str], two: set[str]) -> None:
    assert set(clash(names) or ()) == two
    assert clash([*names[:1], "another"]) is None


def test_more_entries_than_any_package_has_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "ENTRIES", 100)
    members = [(f"a/{number}", b"") for number in range(101)]
    assert len(unpacked(tmp_path, "x.zip", zipped(members[:100]))) == 100
    for name, content in (("x.zip", zipped(members)), ("x.tar.gz", tarred(members))):
        with pytest.raises(ArchiveError, match="more than 100 entries"):
            unpacked(tmp_path, name, content)


def test_a_zip_with_a_huge_directory_is_refused_before_it_is_read(tmp_path: Path, little_memory: None) -> None:
    size = 1 << 30
    path = tmp_path / "archive"
    with open(path, "wb") as sink:  # a hole
        sink.truncate(size)
        sink.seek(size)
        sink.write(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 65535, 65535, size, 0, 0))
    with pytest.raises(ArchiveError, match="directory has 1,073,741,824 bytes"):
        list(files(path, "x.zip"))


def test_a_tar_that_unpacks_without_end_is_given_up_although_nothing_of_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "TAR_BYTES", 8 << 20)
    path = tmp_path / "archive"
    path.write_bytes(tarred([("a/bomb", bytes(9 << 20))]))
    with pytest.raises(ArchiveError, match="more than 8,388,608 bytes"):
        list(files(path, "x.tar.gz"))


def header(size: int, kind: bytes) -> bytes:
    member = tarfile.TarInfo("x")
    member.type, member.size = kind, size
    return member.tobuf(tarfile.USTAR_FORMAT)


@pytest.mark.parametrize("kind", [b"x", b"g", b"L"])
def test_a_tars_own_headers_take_no_memory_to_speak_of(kind: bytes, tmp_path: Path, little_memory: None) -> None:
    path = tmp_path / "archive"
    with gzip.open(path, "wb", 1) as sink:  # one of 2 GB in 9 MB
        sink.write(header((1 << 31) - 512, kind))
        for _ in range(64):
            sink.write(bytes(1 << 20))
    with pytest.raises(ArchiveError, match="a member's header of"):
        list(files(path, "x.tar.gz"))


def test_common_fields_of_a_tar_are_not_gathered(tmp_path: Path) -> None:
    path = tmp_path / "archive"
    with gzip.open(path, "wb", 1) as sink:
        for number in range(30):
            field = f"1000000 {number}=".encode().ljust(999_999, b"x") + b"\n"
            sink.write(header(len(field), b"g") + field + bytes(-len(field) % 512))
        sink.write(bytes(1024))
    tracemalloc.start()
    assert list(files(path, "x.tar.gz")) == []
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("harm", ["encrypted", "method", "crc", "cut", "name"])
def test_a_zip_that_cannot_be_unpacked_says_so(harm: str, tmp_path: Path) -> None:
    content = bytearray(zipped([("a/x", b"text" * 100)], method=zipfile.ZIP_LZMA if harm == "method" else zipfile.ZIP_STORED))
    directory = content.index(b"PK\1\2")
    if harm == "encrypted":
        content[6] |= 1
        content[directory + 8] |= 1
    elif harm == "crc":
        content[content.index(b"text")] ^= 1
    elif harm == "cut":
        del content[20:60]
    elif harm == "name":
        content[directory + 46] = 0xFF
        content[directory + 9] |= 8  # the name is said to be UTF-8
    with pytest.raises(ArchiveError):
        unpacked(tmp_path, "x.zip", bytes(content))


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_damaged_archives_raise_nothing_else(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp()
    name, content = data.draw(st.sampled_from([("x.zip", zipped([("a/x", b"text" * 9)])), ("x.tar.gz", tarred([("a/x", b"text" * 9)]))]))
    damaged = bytearray(gzip.decompress(content)[:2048] if name != "x.zip" else content)
    for place, byte in data.draw(st.lists(st.tuples(st.integers(0, len(damaged) - 1), st.integers(0, 255)), max_size=6)):
        damaged[place] = byte
    try:
        for entry in unpacked(folder, name, bytes(damaged) if name == "x.zip" else gzip.compress(bytes(damaged), 1)):
            assert plain_name(entry) == entry
    except ArchiveError:
        pass
