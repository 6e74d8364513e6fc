"""Journal articles in JATS XML, as text like S2ORC's: title, abstract, sections with their paragraphs.

Goes in: one article a file (`<article>` of JATS or of the older NLM DTD). Comes out: one record, `{"id": DOI, "text",
"created", "metadata": {"title", "journal", "license"}}`. Text: title, abstract, then each section's title and
paragraphs, parted by blank lines; references in the text stay as they are printed ("[12]"), while tables, figures, displayed
formulas, notes and the list of references are left out. An article without a body has title and abstract alone.

Failures: `broken_xml`, `not_an_article`. DTDs and entities beyond XML's own are neither fetched nor expanded, and libxml2's limits on
depth and size stay on. Cost: about 15 MB of XML a second; memory of a few times the article, thirty times for one of nothing but
tags. A file beyond `ARTICLE_BYTES` raises `PipelineError`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lxml import etree

from pipeline.errors import PipelineError
from pipeline.readers import Failure, RawFile, Record

# What is no running text. Their tails are, and stay.
ASIDE = ("table-wrap", "fig", "fig-group", "disp-formula", "disp-formula-group", "fn", "fn-group", "ref-list", "supplementary-material",
         "graphic", "inline-graphic", "media", "boxed-text", "object-id")  # fmt: skip
ARTICLE_BYTES = 32 << 20
LICENSE_LINK = "{http://www.w3.org/1999/xlink}href"


def read(file: RawFile) -> Iterator[Record | Failure]:
    """Yield the article's one record, row 0."""
    if file.bytes > ARTICLE_BYTES:
        raise PipelineError(f"{file.name}: {file.bytes} bytes is no article (at most {ARTICLE_BYTES}); leave the file out")
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False, remove_comments=True, remove_pis=True
    )
    try:
        root = etree.fromstring(Path(file.path).read_bytes(), parser)  # parse() would unpack gzip
    except etree.XMLSyntaxError as error:
        yield Failure(0, "broken_xml", str(error))
        return
    if root.tag != "article":
        yield Failure(0, "not_an_article", f"the root element is <{root.tag}>, not <article>")
        return
    etree.strip_elements(root, *ASIDE, with_tail=False)
    yield Record(0, _article(root))


def _article(root: etree._Element) -> dict:
    meta = root.find("front/article-meta")
    title = _flat(meta.find("title-group/article-title")) if meta is not None else ""
    parts = [title]
    if meta is not None and (abstract := meta.find("abstract")) is not None:
        parts += _blocks(abstract)
    if (body := root.find("body")) is not None:
        parts += _blocks(body)
    license_ = meta.find("permissions/license") if meta is not None else None
    return {
        "id": _flat(meta.find("article-id[@pub-id-type='doi']")) or None if meta is not None else None,
        "text": "\n\n".join(part for part in parts if part),
        "created": _date(meta),
        "metadata": {
            "title": title,
            "journal": _flat(root.find("front/journal-meta//journal-title")),
            "license": license_.get(LICENSE_LINK) if license_ is not None else None,
        },
    }


def _blocks(element: etree._Element) -> list[str]:
    """Titles and paragraphs below `element`, in order; lists count as paragraphs of their own."""
    blocks = []
    for child in element:
        if child.tag in ("title", "p"):
            blocks.append(_flat(child))
        elif child.tag in ("sec", "list", "list-item", "disp-quote", "ack", "statement"):
            blocks += _blocks(child)
    return blocks


def _flat(element: etree._Element | None) -> str:
    """The element's text in one line."""
    return " ".join("".join(element.itertext()).split()) if element is not None else ""


def _date(meta: etree._Element | None) -> str | None:
    """The first date of publication, as precise as it is given: 2014, 2014-07 or 2014-07-30."""
    dates = []
    for date in meta.iterfind("pub-date") if meta is not None else ():
        numbers = [_flat(date.find(part)) for part in ("year", "month", "day")]
        given = numbers[: numbers.index("")] if "" in numbers else numbers
        if given and all(number.isdigit() for number in given):
            dates.append("-".join(number.zfill(2) for number in given))
    return min(dates, default=None)
