"""Raw files made to do harm: what a reader fetches, expands or holds in memory is bounded, and nothing in a file is followed."""

import bz2
import gzip
import resource
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from backports import zstd

from pipeline.config import read_yaml
from pipeline.errors import ConfigError, PipelineError
from pipeline.readers import READERS, Failure, RawFile, Record, jats, jsonl, wikipedia
from pipeline.readers.answer import Answer

SECRET = "the contents of another file"
LAUGHS = "".join(f'<!ENTITY l{i + 1} "{f"&l{i};" * 10}">' for i in range(9))
WIKI = '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/">{}</mediawiki>'
PAGE = "<page><title>{}</title><ns>0</ns><id>1</id><revision><id>2</id><text>some words</text></revision></page>"
ARTICLE = "<article><front><article-meta><title-group><article-title>{}</article-title></title-group></article-meta></front></article>"


def read(folder: Path, reader: str, content: bytes, name: str = "file") -> list[Record | Failure]:
    path = folder / "file"
    path.write_bytes(content)
    return list(READERS[reader](RawFile(name, str(path), len(content), "")))


@contextmanager
def within(seconds: float, megabytes: int) -> Iterator[None]:
    """In so much CPU time, and with so much more memory than now."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + (megabytes << 20), limits[1]))
    began = time.process_time()
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert time.process_time() - began < seconds


def doctypes(folder: Path, root: str) -> dict[str, str]:
    """Document types that reach for this machine, or for more memory than it has; each defines &e;."""
    secret = folder / "secret"
    secret.write_text(SECRET)
    long = "x" * 100_000
    return {
        "laughs": f'<!DOCTYPE {root} [<!ENTITY l0 "lol">{LAUGHS}<!ENTITY e "&l9;">]>',
        "quadratic": f'<!DOCTYPE {root} [<!ENTITY e "{long}">]>',
        "file": f'<!DOCTYPE {root} [<!ENTITY e SYSTEM "file://{secret}">]>',
        "parameter": f'<!DOCTYPE {root} [<!ENTITY % p SYSTEM "file://{secret}"> %p; <!ENTITY e "e">]>',
        "network": f'<!DOCTYPE {root} SYSTEM "http://127.0.0.1:9/x.dtd" [<!ENTITY e SYSTEM "http://127.0.0.1:9/x">]>',
    }


@pytest.mark.parametrize("kind", ["laughs", "quadratic", "file", "parameter", "network"])
def test_a_dump_with_a_document_type_is_refused(kind: str, tmp_path: Path) -> None:
    uses = "&e;" * (1000 if kind == "quadratic" else 1)
    with within(2, 200), pytest.raises(PipelineError, match="DOCTYPE|no whole XML"):
        read(tmp_path, "wikipedia", (doctypes(tmp_path, "mediawiki")[kind] + WIKI.format(PAGE.format(uses))).encode())


@pytest.mark.parametrize("kind", ["laughs", "quadratic", "file", "parameter", "network"])
@pytest.mark.parametrize("place", ["text", "attribute"])
def test_an_articles_entities_are_not_expanded(kind: str, place: str, tmp_path: Path) -> None:
    uses = "&e;" * (1000 if kind == "quadratic" else 1)
    article = ARTICLE.format(uses) if place == "text" else ARTICLE.format(f'<x y="{uses}"/>')
    with within(2, 200):
        (found,) = read(tmp_path, "jats", (doctypes(tmp_path, "article")[kind] + article).encode())
    assert SECRET not in str(found) and len(str(found)) < 10_000


def test_what_an_xml_file_includes_or_styles_itself_by_is_not_fetched(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET)
    include = f'<xi:include xmlns:xi="http://www.w3.org/2001/XInclude" href="file://{tmp_path}/secret" parse="text"/>'
    style = f'<?xml-stylesheet href="file://{tmp_path}/secret"?>'
    (found,) = read(tmp_path, "jats", (style + ARTICLE.format(f"a{include}b")).encode())
    assert isinstance(found, Record) and found.fields["text"] == "ab"


@pytest.mark.parametrize("begin", ["<x/>", "<page>", "<page><x/>", "<!--", "<!DOCTYPE mediawiki ["])
def test_a_dump_without_the_end_of_a_page_is_given_up(begin: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wikipedia, "PAGE_BYTES", 1 << 19)
    filling = {"<!--": " " * 9, "<!DOCTYPE mediawiki [": "<!--     -->"}.get(begin, "<x/>")
    head = begin if begin.startswith("<!D") else f"<mediawiki>{begin}"
    path = tmp_path / "file"
    with gzip.open(path, "wb", 1) as sink:
        sink.write(head.encode())
        for _ in range(32):
            sink.write(filling.encode() * ((1 << 20) // len(filling)))
    with within(3, 150), pytest.raises(PipelineError, match="no page ends within|no whole XML"):
        list(wikipedia.read(RawFile("dump.xml.gz", str(path), path.stat().st_size, "")))


@pytest.mark.parametrize("deep", ["<a>" * 100_000, "<a>" * 300 + "</a>" * 300, "<" + "a" * (12 << 20) + ">"])
@pytest.mark.parametrize("reader", ["jats", "wikipedia"])
def test_depth_and_length_of_elements_are_bounded(deep: str, reader: str, tmp_path: Path) -> None:
    whole = {"jats": f"<article><body>{deep}</body></article>", "wikipedia": WIKI.format(f"<page>{deep}</page>")}[reader]
    with within(2, 300), suppress(PipelineError):
        assert isinstance(read(tmp_path, reader, whole.encode())[0], Failure)


def test_an_article_is_bounded_and_not_unpacked(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="is no article"):
        list(jats.read(RawFile("a.xml", "/nowhere", jats.ARTICLE_BYTES + 1, "")))
    (found,) = read(tmp_path, "jats", gzip.compress(ARTICLE.format("A title").encode()))
    assert isinstance(found, Failure) and found.reason == "broken_xml"


@pytest.mark.parametrize(("pack", "suffix"), [(gzip.compress, ".gz"), (zstd.compress, ".zst"), (bz2.compress, ".bz2")])
def test_a_line_without_end_is_given_up_in_bounded_memory(
    pack: Callable[[bytes], bytes], suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jsonl, "LINE_LIMIT", 4 << 20)
    content = pack(bytes(4 << 20)) * 24  # members that unpack to a hundred megabytes
    with within(3, 80), pytest.raises(PipelineError, match="line is longer"):
        read(tmp_path, "jsonl", content, f"x.jsonl{suffix}")


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd", "gzip, gzip, gzip"])
def test_a_page_unpacks_to_its_limit_and_no_further(encoding: str) -> None:
    body = bytes(16 << 20)
    packers: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress, "zstd": zstd.compress}
    for name in encoding.split(", "):
        body = packers[name](body)
    answer = Answer("200", {"content-encoding": encoding}, body)
    with within(2, 100):
        assert answer.content(1 << 20) is None


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['true']",
        "a: !!python/name:os.system",
        "a: !!python/object:object {}",
        "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]",
        "a: &a [*a]",
        "[" * 600,
        "a: " * 5_000,
        "- " * 5_000 + "a",
        "a: !!binary aGk=",
        "<<: {a: b}\n? [x]\n: y",
    ],
)
def test_yaml_is_words_lists_and_keys_and_nothing_else(text: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    began = time.process_time()
    with pytest.raises(ConfigError):
        read_yaml(path)
    assert time.process_time() - began < 3
