"""Web pages, one a file, as their main text: how DCLM extracts it, with resiliparse.

Goes in: an HTML file in any encoding; as browsers do, the encoding is taken from a byte-order mark, else guessed, and
bytes that do not fit become U+FFFD. Comes out: one record, `{"text", "url", "metadata": {"title", "extraction"}}`, with
`url` null where the page names no canonical one. A page without main text has an empty `text`, which the read stage
counts. Failure: `nested_too_deeply`, for parser and extractor are quadratic in depth; any other sequence of bytes is some page.

Cost: about 8 MB of HTML a second on one core; memory of a few times the page, which is held whole. A page beyond
`PAGE_BYTES` raises `PipelineError`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.encoding import bytes_to_str, detect_encoding
from resiliparse.parse.html import HTMLTree

from pipeline.errors import PipelineError
from pipeline.readers import Failure, RawFile, Record

PAGE_BYTES = 64 << 20
DEPTH = 2000  # of elements in one another; browsers show 512
TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9-]*)")
# Elements without content, and those that end by themselves where the next one begins.
SHALLOW = frozenset(
    "area base br col embed hr img input link meta param source track wbr "
    "p li dt dd option optgroup tr td th tbody thead tfoot colgroup rp rt html head body".split()
)
EXTRACTION = f"resiliparse {version('resiliparse')} main_content"


def read(file: RawFile) -> Iterator[Record | Failure]:
    """Yield the page's one record, row 0."""
    page = decoded(page_of(file))
    yield too_deep(page, DEPTH) or Record(0, main_text(page))


def page_of(file: RawFile) -> bytes:
    """The page's bytes; PipelineError for what is too large to be one."""
    if file.bytes > PAGE_BYTES:
        raise PipelineError(f"{file.name}: {file.bytes} bytes is no web page (at most {PAGE_BYTES}); leave the file out")
    return Path(file.path).read_bytes()


def decoded(page: bytes, charset: str | None = None) -> str:
    """The page's characters; `charset` is what the server said, if it did, and counts only if such an encoding exists."""
    try:
        return bytes_to_str(page, charset or detect_encoding(page))
    except LookupError:
        return bytes_to_str(page, detect_encoding(page))


def too_deep(page: str, depth: int, row: int = 0) -> Failure | None:
    """A failure if more than `depth` elements are begun in one another; ends are taken for those of whatever is open."""
    if page.count("<") <= depth:
        return None
    open_elements = 0
    for tag in TAG.finditer(page):
        if tag[2].lower() not in SHALLOW:
            open_elements = max(0, open_elements - 1) if tag[1] else open_elements + 1
            if open_elements > depth:
                return Failure(row, "nested_too_deeply", f"more than {depth} elements in one another at character {tag.start():,}")
    return None


def main_text(page: str) -> dict[str, Any]:
    """A page as an upstream record: main content as plain text, without the texts that stand for images.

    DCLM uses resiliparse with `main_content=True` (arXiv:2406.11794, section 4.2).
    """
    tree = HTMLTree.parse(page)
    return {
        "text": extract_plain_text(tree, main_content=True, alt_texts=False),
        "url": canonical_url(tree),
        "metadata": {"title": (tree.title or "").strip(), "extraction": EXTRACTION},
    }


def canonical_url(tree: HTMLTree) -> str | None:
    """What the page itself calls its address (`<link rel="canonical">`), where it is a whole one."""
    link = tree.head.query_selector('link[rel="canonical"]') if tree.head else None
    address = (link.getattr("href") or "") if link else ""
    return address if address.startswith(("http://", "https://")) else None
