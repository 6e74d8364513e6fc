"""How `make docs` turns these pages into a site: Sphinx, MyST and Furo.

In: docs/*.md and what they show. Out: build/docs/, HTML that opens from disk. Cost: half a minute of one core, no network. Not: pages
of its own; all text is Markdown that reads as well where the repository is hosted. Warnings are errors, so a page that no table of
contents names, a link to nowhere or a block that is not in its language stops the build.
"""

from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx

project = "tokenmill"
copyright = ""
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}

myst_heading_anchors = 4  # as repository hosts name headings, so that one link works in both places
highlight_language = "text"

html_theme = "furo"
html_title = "tokenmill"
html_show_copyright = False
html_copy_source = False
html_show_search_summary = False  # which asks a server for the pages that were found, and from disk there is none
html_use_index = False
html_theme_options = {"top_of_page_buttons": [], "navigation_with_keys": True}


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("doctree-resolved", inline_drawings)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def inline_drawings(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Put each SVG into the page itself: inside an <img> it could not follow the page's switch between light and dark."""
    for image in list(doctree.findall(nodes.image)):
        if image["uri"].endswith(".svg"):
            image.replace_self(nodes.raw("", (Path(app.srcdir) / image["uri"]).read_text(encoding="utf-8"), format="html"))
