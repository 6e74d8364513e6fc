"""Wikipedia's and Wikibooks' `pages-articles` dumps: MediaWiki's XML export, plain, gzip or bzip2
(multistream too).

Goes in: the dump. Comes out: one record for each article, `{"id", "text", "created", "metadata"}`, with `text
= f"{title}\\n\\n{body}"` as in Dolma (scripts/make_wikipedia.py) and the body cleaned by `wikitext`. Pages of
other namespaces and redirects are no documents and yield nothing; `row` numbers all pages of the dump from 0,
so gaps in it are those. An article whose title or body is empty (Dolma skips it) has an empty `text`, which
the read stage counts. `created` is the revision's timestamp (Dolma has the date of the dump, which the dump
itself does not tell).

Failures: `broken_wikitext` (the parser gives up), `incomplete_page` (no id, or no namespace as in dumps before 2011).
Cost: one pass, one page in memory at a time; 3 MB of wikitext per CPU-second, nearly all of it in `wikitext`.

Safety: entities are not expanded, nothing is fetched, libxml2's limits on depth and size stay on, and a file
with a DOCTYPE (no dump has one, entity bombs need one) is refused, as is one with more than `PAGE_BYTES` between the ends
of two pages: all of that is one tree. A damaged or cut-off dump raises `PipelineError`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from lxml import etree
from mwparserfromhell.parser import ParserError

from pipeline.errors import PipelineError
from pipeline.readers import Failure, RawFile, Record
from pipeline.readers.streams import Stream, open_stream
from pipeline.readers.wikitext import plain_text

CHUNK_BYTES = 64 << 10
PAGE_BYTES = 16 << 20  # MediaWiki takes 2 MB of text; nothing but tags is 30 times as large in memory
REDIRECT = re.compile(r"\s*#redirect\b", re.IGNORECASE)
FILES, CATEGORIES = "6", "14"  # keys of namespaces, the same in every wiki


def read(file: RawFile) -> Iterator[Record | Failure]:
    """Yield the articles of `file`; row = 0-based page. Raises `PipelineError` for a damaged dump."""
    site_url, unshown = "", {"file", "image", "category"}
    row = 0
    for element in _elements(file):
        if _local(element) == "siteinfo":
            base = element.findtext("{*}base") or ""
            site_url = base.rsplit("/", 1)[0]
            unshown |= {
                (namespace.text or "").lower()
                for namespace in element.iterfind("{*}namespaces/{*}namespace")
                if namespace.get("key") in (FILES, CATEGORIES)
            }
            continue
        if _is_article(element):
            yield _article(row, element, site_url, unshown)
        row += 1


def _elements(file: RawFile) -> Iterator[etree._Element]:
    """The dump's `siteinfo` and `page` elements, each emptied once it was used."""
    with open_stream(file) as stream:
        parser = etree.XMLPullParser(
            events=("end",),
            tag=("{*}siteinfo", "{*}page"),
            resolve_entities=False,
            no_network=True,
            load_dtd=False,
            huge_tree=False,
        )
        root, begun = None, 0  # begun: bytes since a page ended
        try:
            while chunk := stream.read(CHUNK_BYTES):
                parser.feed(chunk)
                begun += len(chunk)
                for _, element in parser.read_events():
                    begun = 0
                    if root is None:
                        root = element.getroottree().getroot()
                        _check_root(file, root)
                    yield element
                    element.clear()
                    while (before := element.getprevious()) is not None:
                        element.getparent().remove(before)
                if begun > PAGE_BYTES:
                    raise PipelineError(
                        f"{file.name}: no page ends within {PAGE_BYTES:,} bytes, at byte {stream.position:,}; this is no dump of articles: "
                        "name its `reader:` in the source, or leave it out"
                    )
            parser.close()
        except etree.XMLSyntaxError as error:
            raise _damaged(file, stream, error) from error
    if root is None:
        raise PipelineError(f"{file.name}: is XML, but holds no MediaWiki page; name its `reader:` in the source")


def _check_root(file: RawFile, root: etree._Element) -> None:
    if root.getroottree().docinfo.internalDTD is not None:
        raise PipelineError(f"{file.name}: has a DOCTYPE, which no MediaWiki dump has; fetch the file from its source")
    if _local(root) != "mediawiki":
        raise PipelineError(f"{file.name}: its root is <{_local(root)}>, not <mediawiki>; name its `reader:` in the source")


def _damaged(file: RawFile, stream: Stream, error: Exception) -> PipelineError:
    return PipelineError(
        f"{file.name}: is no whole XML ({error}), found by byte {stream.position:,} of {file.bytes:,}; "
        "fetch the file again and compare its sha256"
    )


def _local(element: etree._Element) -> str:
    return str(element.tag).rpartition("}")[2]


def _is_article(page: etree._Element) -> bool:
    if page.findtext("{*}ns", "0") != "0" or page.find("{*}redirect") is not None:
        return False
    # Dumps before 2009 mark redirects in the text alone.
    return not REDIRECT.match(page.findtext("{*}revision/{*}text") or "")


def _article(row: int, page: etree._Element, site_url: str, unshown: set[str]) -> Record | Failure:
    id_, title = page.findtext("{*}id"), (page.findtext("{*}title") or "").strip()
    if not id_ or page.find("{*}ns") is None:
        return Failure(row, "incomplete_page", f"the page {title!r} has no <{'ns' if id_ else 'id'}>")
    try:
        body = plain_text(page.findtext("{*}revision/{*}text") or "", unshown)
    except (ParserError, RecursionError) as error:
        return Failure(row, "broken_wikitext", f"page {id_} {title!r}: {error}")
    timestamp = page.findtext("{*}revision/{*}timestamp")
    fields = {
        "id": id_,
        "text": f"{title}\n\n{body}" if title and body else "",
        "created": timestamp,
        "metadata": {
            "url": f"{site_url}?curid={id_}" if site_url else None,
            "revid": page.findtext("{*}revision/{*}id"),
            "timestamp": timestamp,
            "title": title,
            "ns": 0,
        },
    }
    return Record(row, fields)
