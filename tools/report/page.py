"""Parts as one page of HTML that opens from disk: markup, style, scripts and data in one file, and no request to anywhere.

In: parts (blocks.py), the charts' scripts (vega.py). Out: the page as bytes. What comes from data reaches the page in two ways: as text
that Jinja2 escapes, or as JSON in which `<`, `>` and `&` are written as escapes, so that no document can end the script that holds
it. The page's policy allows the scripts that it was made with, by their hashes, and no other; no image, no frame, no connection.
Not: no drawing (report.js), no samples (documents.py, documents.js).
"""

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import orjson
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from tools.report.blocks import Block, Cell, Chart, Documents, Pair, Part
from tools.report.vega import Script

HERE = Path(__file__).parent
LARGEST = 5_000_000  # bytes of a page
STYLES = ("report.css", "documents/documents.css")
OWN_SCRIPTS = ("report.js", "documents/documents.js")
T = TypeVar("T", Chart, Documents)


def render(title: str, parts: Sequence[Part], scripts: Sequence[Script], made: str) -> bytes:
    """made: by what and when, the page's last line. Equal arguments give equal bytes."""
    charts, documents = _numbered(parts, Chart), _numbered(parts, Documents)
    run = [script.text for script in scripts] + [(HERE / name).read_text() for name in OWN_SCRIPTS]
    page = _template().render(
        title=title, parts=parts, made=made,
        policy="; ".join(["default-src 'none'", "style-src 'unsafe-inline'", f"script-src {' '.join(map(_hash, run))}"]),
        style=Markup("\n".join((HERE / name).read_text() for name in STYLES)),
        scripts=[Markup(text) for text in run],
        licences=[(script.package, script.licence) for script in scripts],
        charts={id(chart): name for name, chart in charts.items()},
        samples={id(block): name for name, block in documents.items()},
        data=_json({
            "charts": {name: {"title": c.title, "columns": c.columns, "spec": c.spec, "caption": c.caption} for name, c in charts.items()},
            "documents": {name: d.records for name, d in documents.items()},
        }),
    )  # fmt: skip
    return page.encode(errors="replace")


def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"cell": cell, "identity": id, "kind": lambda block: type(block).__name__.lower(), "number": _is_number}
    return environment.get_template("page.html")


def _numbered(parts: Sequence[Part], kind: type[T]) -> dict[str, T]:
    """The blocks of a kind, by the ids of their elements."""
    blocks = [block for part in parts for section in part.sections for block in _flat(section.blocks) if isinstance(block, kind)]
    return {f"{kind.__name__.lower()}-{number}": block for number, block in enumerate(blocks)}


def _flat(blocks: Sequence[Block | None]) -> Iterator[Block]:
    for block in blocks:
        if isinstance(block, Pair):
            yield from _flat([block.left, block.right])
        elif block is not None:
            yield block


def cell(value: Cell, share: bool = False, decimals: int = 2) -> str:
    """A table's value as a person reads it."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if share:
        return f"{value:.3%}"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.{decimals}f}" if abs(value) >= 1 or value == 0 else f"{value:.{decimals + 1}g}"


def _is_number(value: Cell) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _json(data: Mapping) -> Markup:
    """JSON for a <script> element: nothing in it can end the element or open a comment. NaN and infinities become null."""
    text = orjson.dumps(data, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS).decode()
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
