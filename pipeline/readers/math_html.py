"""Mathematical web pages, one a file, by OpenWebMath's own extractor, which keeps formulas as LaTeX.

Goes in: an HTML file (decoded as html.py does). Comes out: one record, `{"text", "url", "metadata"}`: MathJax, KaTeX,
MathML and image formulas between dollar signs, headings as Markdown, boilerplate lines removed; `metadata` says whether
mathematics was found, as OpenWebMath's `extraction_info` does. The extractor's quirk stays, as its texts have it: of
MathJax's delimiters `\\(…\\)` becomes `$$…$$` and `\\[…\\]` becomes `$…$`. Not done: OpenWebMath's filters (language,
MathScore, perplexity), whose models are not at hand here.

Failures: `extraction_failed`, where the extractor gives up on a page; `nested_too_deeply`.
Cost: about 1 MB of HTML a second on one core. resiliparse must be older than 2: with it the extractor fails on every
page ("DOM document modified during traversal").
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version

from resiliparse.parse.html import HTMLTree
from text_extract.extract import extract_text

from pipeline.readers import Failure, RawFile, Record
from pipeline.readers.html import canonical_url, decoded, page_of, too_deep

# OpenWebMath drew some of these at random for each page; here each has the value it drew most often
# (text_extract/configs/randomized_all.yaml), so that a page always gives the same text.
CONFIG = {
    "markdown_headings": True,
    "markdown_code": True,
    "boilerplate_config": {"enable": True, "ratio_threshold": 0.18, "absolute_threshold": 10, "end_threshold": 15},
    "remove_buttons": True,
    "remove_image_figures": True,
    "remove_link_clusters": True,
    "table_config": {"min_rows": 2, "min_cols": 3, "format": "plain"},
    "remove_chinese": True,
    "remove_edit_buttons": True,
    "extract_latex": True,
}
DEPTH = 500  # the extractor is cubic in the depth of some lists
EXTRACTION = f"openwebmath-text-extract {version('openwebmath-text-extract')}"


def read(file: RawFile) -> Iterator[Record | Failure]:
    """Yield the page's one record, row 0."""
    page = decoded(page_of(file))
    if failure := too_deep(page, DEPTH):
        yield failure
        return
    tree = HTMLTree.parse(page)
    try:
        extracted = extract_text(page, CONFIG)
    except Exception as error:  # the extractor documents none; any of them costs one page, by name
        yield Failure(0, "extraction_failed", f"{type(error).__name__}: {error}")
        return
    text, info = extracted if extracted else ("", {})
    metadata = {"title": (tree.title or "").strip(), "extraction": EXTRACTION, "found_math": bool(info.get("found_math"))}
    yield Record(0, {"text": text, "url": canonical_url(tree), "metadata": metadata})
