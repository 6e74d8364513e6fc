"""Small whole inputs that searches begin with, made here, one of each kind that a format has."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import tarfile
from decimal import Decimal
from xml.sax.saxutils import escape

import pyarrow as pa
import pyarrow.parquet as pq
from backports import zstd

LINES = b"".join(
    json.dumps(record).encode() + b"\n"
    for record in (
        {"id": "a-1", "text": "The cat sat on the mat.", "source": "web", "added": "2024-01-01T00:00:00.000Z", "metadata": {"stars": 3}},
        {
            "id": 7,
            "text": "e\u0301 \u2028 \U0001f600",
            "created": None,
            "metadata": '{"url": "https://example.org/7"}',
            "more": [1.5, True, None],
        },
        {"content": "print(1)", "max_stars_count": 24, "metadata": {"nested": {"deep": [[["x"]]]}}},
    )
)
QUESTIONS = b"".join(
    json.dumps(
        {
            "task_name": "arc_easy", "native_id": 12, "idx": index,
            "request": {"context": "Question: Which is hot?\nAnswer:", "continuation": choice},
            "doc": {"query": "Question: Which is hot?\nAnswer:", "choices": ["ice", "fire"], "gold": 1},
        }
    ).encode() + b"\n"
    for index, choice in enumerate(("ice", "fire"))
)  # fmt: skip
FAQ = b"=====\nLamps\n=====\n\n.. _a:\n\nHow bright is it?\n-----------------\n\nBright::\n\n    lamp.light()\n\nWhy?\n~~~~\nBecause.\n"
PAGE = (
    b'<html lang="en"><head><meta charset="utf-8"><title> The lamp </title>'
    b'<link rel="canonical" href="https://example.org/lamp"></head><body><nav><a href="/">Home</a></nav><article><h1>'
    b"The lamp</h1><p>The keeper climbed the stairs, &amp; lit <b>the</b> lamp.</p><table><tr><td>1</td><td>2</td>"
    b"</tr></table><pre>x = 1</pre><script>var x;</script><img alt='a'></article></body></html>"
)
FORMULAS = (
    b"<html><head><title>Roots</title></head><body><h1>Roots</h1><p>We know $x^2$ and \\(y\\) and \\[z\\].</p>"
    b'<script type="math/tex">\\frac{1}{2}</script><math><mi>x</mi><mo>=</mo><mn>2</mn></math><span class="katex">'
    b'<annotation encoding="application/x-tex">a_b</annotation></span>'
    b'<img class="latex" alt="$q$" src="/latex.php?x=1"><p>And so on, and on, and on.</p><table><tr><th>a</th><th>'
    b"b</th><th>c</th></tr><tr><td>1</td><td>2</td><td>3</td></tr></table></body></html>"
)
ARTICLE = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE article PUBLIC "-//NLM//DTD JATS" "x.dtd">'
    b'\n<article xmlns:xlink="http://www.w3.org/1999/xlink"><front><journal-meta><journal-title>J</journal-title>'
    b'</journal-meta><article-meta><article-id pub-id-type="doi">10.1/x</article-id><title-group><article-title>On <i>'
    b"salt</i></article-title></title-group><pub-date><day>3</day><month>7</month><year>2014</year></pub-date>"
    b'<permissions><license xlink:href="https://cc.org/by"/></permissions><abstract><p>Short.</p></abstract>'
    b"</article-meta></front><body><sec><title>One</title><p>Salt [<xref>12</xref>] is &lt;dear&gt;.<fig/>tail</p>"
    b"<list><list-item><p>a</p></list-item></list></sec></body></article>"
)
WIKITEXT = (
    "'''Salt''' is a [[mineral|stone]].<ref name=x>Book</ref> {{Infobox|a={{b|c}}|d={{{1}}}}}\n== Uses ==\n* [[Food]]\n"
    "# one\n<math>x^2</math> <nowiki>[[x]]</nowiki> &nbsp; &#x41; [https://example.org shown] https://example.org\n{| "
    "class=x\n! a\n|-\n| b || c\n|}\n[[File:a.jpg|thumb|with [[link]]]] [[Category:Salts]] [[fr:Sel]] __NOTOC__ <!-- "
    "hidden --> <gallery>a</gallery> <b>bold</b> (, ;)\n=== Empty ===\n== End ==\n-{zh:x}- <poem>a\nb</poem> "
    ";term:definition\n----\n"
)
TEX = (
    b"\\documentclass{article}\n\\newcommand{\\R}{\\mathbb{R}}\n\\def\\eps {\\varepsilon}\n% comment\n\\begin{document}\n\\title{T}\n"
    b"\\section[short]{One}\nLet $x \\in \\R$, \\eps > 0. % aside\n100\\% sure\n%\\section{no}\n\\subsection*{Two} text\n"
    b"\\bibliography{refs}\n\\appendix more\n\\end{document}\n"
)


def warc(chunked: bool = False) -> bytes:
    """An archive of a warcinfo record, a response and a request."""
    body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(PAGE), PAGE) if chunked else PAGE
    encoding = b"Transfer-Encoding: chunked\r\n" if chunked else b""
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n" + encoding + b"\r\n" + body
    ask = b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n"
    return (
        _warc_record(b"warcinfo", b"application/warc-fields", b"software: x\r\n")
        + _warc_record(b"response", b"application/http; msgtype=response", answer)
        + _warc_record(b"request", b"application/http; msgtype=request", ask)
    )


def _warc_record(kind: bytes, content_type: bytes, content: bytes) -> bytes:
    head = (
        b"WARC/1.0\r\nWARC-Type: %s\r\nWARC-Record-ID: <urn:uuid:92283950-ef2f-4d72-b224-f54c6ec90bb0>\r\n"
        b"WARC-Target-URI: https://example.org/\r\nWARC-Date: 2024-01-01T00:00:00Z\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n"
    )
    return head % (kind, content_type, len(content)) + content + b"\r\n\r\n"


def dump(*texts: str) -> bytes:
    """A MediaWiki dump with an article of each text, a redirect and a talk page."""
    pages = "".join(
        f"<page><title>T{number}</title><ns>0</ns><id>{number}</id><revision><id>9</id><timestamp>2016-04-22T10:19:33Z</timestamp>"
        f'<text xml:space="preserve">{escape(text)}</text></revision></page>'
        for number, text in enumerate(texts)
    )
    others = (
        '<page><title>R</title><ns>0</ns><id>98</id><redirect title="T"/><revision><text>#REDIRECT [[T]]</text></revision></page>'
        "<page><title>Talk:T</title><ns>1</ns><id>99</id><revision><text>talk</text></revision></page>"
    )
    site = (
        "<siteinfo><base>https://en.wikipedia.org/wiki/Main_Page</base><namespaces>"
        '<namespace key="0"/><namespace key="6">File</namespace><namespace key="14">Category</namespace></namespaces></siteinfo>'
    )
    return f'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/">{site}{pages}{others}</mediawiki>'.encode()


def tar(members: dict[str, bytes], pax: dict[str, str] | None = None, mtime: float = 1.2e9) -> bytes:
    """A tar of these files, with these extended headers."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT if pax else tarfile.GNU_FORMAT) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime, member.pax_headers = len(content), mtime, pax or {}
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def tables() -> list[bytes]:
    """Parquet files: plain columns; nested ones; several row groups without a dictionary."""
    plain = pa.table({"id": ["a", None], "text": ["The cat.", "é"], "stars": [3, None], "share": [0.5, float("nan")], "is": [True, None]})
    nested = pa.table(
        {
            "content": ["x", "y"],
            "metadata": [{"url": "u", "tags": ["a", None], "at": 1}, None],
            "created": pa.array([0, 10**15], pa.timestamp("us", "UTC")),
            "day": pa.array([0, 20000], pa.date32()),
            "price": pa.array([Decimal("1.50"), None], pa.decimal128(9, 2)),
            "raw": pa.array([b"abc", b""], pa.binary()),
            "map": pa.array([[("k", 1)], []], pa.map_(pa.string(), pa.int64())),
            "kind": pa.array(["u", "v"]).dictionary_encode(),
        }
    )
    return [_parquet(plain), _parquet(nested), _parquet(plain, use_dictionary=False, row_group_size=1, compression="zstd")]


def _parquet(table: pa.Table, **options: object) -> bytes:
    packed = io.BytesIO()
    pq.write_table(table, packed, **options)
    return packed.getvalue()


def gzipped(content: bytes) -> bytes:
    return gzip.compress(content, 1, mtime=0)


def zstandard(content: bytes) -> bytes:
    return bytes(zstd.compress(content, 1))


def bzipped(content: bytes) -> bytes:
    return bz2.compress(content, 1)
