"""Wikitext in, plain text out: what a reader of the rendered page sees of its prose, without running
MediaWiki.

Removed: templates (not expanded), references, tables, galleries and the like, comments, links to files and
images, categories, links to other languages, `__NOTOC__`-like switches.
Kept: the shown text of links, headings as lines of their own, list items (as lines that begin with "- "),
formulas as their TeX, code and `<nowiki>` as they stand. What removal leaves behind is tidied: empty
brackets, gaps before commas, empty list items, headings of sections in which nothing is left.

Three passes: as in MediaWiki itself, contents of extension tags are taken out first and put back last
(nothing in `<math>` or `<nowiki>` is wikitext); templates and tables that close properly are cut by plain
scans; the rest (links, tags, lists, entities, and whatever the scans left) goes through
mwparserfromhell. The scans are there for speed: the parser alone takes 1.0 MB of wikitext per CPU-second,
behind them three to four times as much.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

import mwparserfromhell
from mwparserfromhell.nodes import ExternalLink, Heading, HTMLEntity, Node, Tag, Text, Wikilink
from mwparserfromhell.parser import ParserError

# Extension tags whose contents are no prose, and those whose contents are shown as they stand.
DROPPED = {
    "ref", "references", "gallery", "timeline", "score", "hiero", "imagemap", "graph", "templatedata", "mapframe",
    "maplink", "templatestyles", "inputbox", "categorytree", "indicator", "includeonly", "section", "listing",
}  # fmt: skip
VERBATIM = {"math", "chem", "ce", "nowiki", "pre", "syntaxhighlight", "source"}
BLOCKS = {"p", "div", "blockquote", "center", "li", "ul", "ol", "poem"}
OPENING = re.compile(rf"<(?:(!--)|({'|'.join(sorted(DROPPED | VERBATIM))})(?:\s[^<>]*?)?(/?)>)", re.IGNORECASE)
CLOSING = {name: re.compile(rf"</{name}\s*>", re.IGNORECASE) for name in DROPPED | VERBATIM}

# Neither can be in a dump: XML has no such characters, and entities that name them are dropped (`_entity`).
MARK, HEADING = "\x02", "\x03"
WORDS = re.compile(r"\w")  # a mark has digits, so a line of nothing but code or a formula counts
# The parser looks for the end of everything that it sees begin, to the page's end if there is none: quadratic in what never ends.
# 100 ns per unended beginning and character: 3 s for 64 KB, then in proportion, and half a minute for the longest.
UNENDED, SHORT, TANGLE = 460, 64 << 10, 300_000_000
NESTING = 100  # of the innermost, among which an end finds its beginning
ENDS = {"]]": "[[", "}}": "{{", "|}": "{|", "]": "["}
BRACKET = re.compile(r"\[\[(?!\[)|\]\]|\{\{(?!\{)|\}\}|\{\||\|\}|\[(?!\[)|\]|<(/?)([a-zA-Z]+)")
WHOLE = re.compile(r"<(?:br|hr|wbr|li|dt|dd|td|th|tr) ?/?>", re.IGNORECASE)  # what HTML does not end
MARKED = re.compile(f"{MARK}(\\d+){MARK}")

INNERMOST_TEMPLATE = re.compile(r"\{\{\{[^{}]*\}\}\}|\{\{[^{}]*\}\}")
TEMPLATE_DEPTH = 40  # MediaWiki's own limit
QUOTES = re.compile(r"'{2,5}")
SWITCH = re.compile(r"__([^\W\d_]{3,})__")
# Links to the same article in other languages: [[fr:Anarchisme]]; [[doi:10…]] and [[mw:Help]] are shown.
LANGUAGE = re.compile(r"(?!(?:doi|mw|rfc|wmf):)(?:[a-z]{2,3}(?:-[a-z-]+)?|simple):\S")

TIDYING = (
    (re.compile(r"[ \t\xa0]+"), " "),
    (re.compile(r"(?<!\w)(?:\( ?(?:[,;:/–-] ?)*\)|\[ ?\])"), ""),  # not the brackets of main() and int[]
    (re.compile(r"\( ?(?:[,;] ?)*"), "("),
    (re.compile(r"(?<![,;])(?<![,;] ) ?(?:[,;] ?)+\)"), ")"),  # from a run's beginning on: linear
    (re.compile(r" +(?=[,)]|\.(?:\s|$))"), ""),
    (re.compile(r"(,)(?: ?,)+"), r"\1"),
    (re.compile(r"^ ?[,;] ?", re.MULTILINE), ""),
    (re.compile(r"  +"), " "),
)


def plain_text(wikitext: str, unshown: Iterable[str] = ("file", "image", "category")) -> str:
    """The prose of `wikitext`. `unshown`: lower-case namespaces whose links show nothing where they stand.

    Raises `mwparserfromhell.parser.ParserError` for text that the parser gives up on, or would need many minutes for.
    """
    text, verbatim = _take_out(wikitext)
    text = _without_tables(_without_templates(text))
    most = min(TANGLE, UNENDED * max(SHORT, len(text)))
    if (text.count("<") + text.count("[") + text.count("{")) * len(text) > most and (count := _unended(text)) * len(text) > most:
        raise ParserError(f"{count:,} links, templates or tags that never end, in {len(text):,} characters")
    # Quotes are cut from the shown text below: as tags they cost the parser a third of its time.
    code = mwparserfromhell.parse(text, skip_style_tags=True)
    out: list[str] = []
    _render(code.nodes, out, frozenset(unshown))
    tidied = _tidied("".join(out))
    return MARKED.sub(lambda match: verbatim[int(match[1])], tidied).strip()


def _unended(text: str) -> int:
    """How many brackets and tags begin and have no end, or one that stands outside of what they began in."""
    begun: list[str] = []
    count = 0
    for found in BRACKET.finditer(text):
        closes, name = found[1], found[2]
        opener = f"<{name.lower()}" if name else ENDS.get(found[0])
        if WHOLE.match(text, found.start()):
            continue
        if (name and not closes) or opener is None:
            begun.append(opener or found[0])
        elif opener in begun[-NESTING:]:
            while begun.pop() != opener:
                count += 1
    return count + len(begun)


def _take_out(text: str) -> tuple[str, list[str]]:
    """Cut comments and extension tags, leaving a numbered mark for each content that is to be put back."""
    pieces: list[str] = []
    verbatim: list[str] = []
    unclosed: set[str] = set()  # looked for once and not found: keeps the scan linear
    place = 0
    while opening := OPENING.search(text, place):
        pieces.append(text[place : opening.start()])
        place = opening.end()
        if opening[1]:
            end = text.find("-->", place)
            place = len(text) if end < 0 else end + 3  # as MediaWiki: an unclosed comment hides the rest
            continue
        name = opening[2].lower()
        if opening[3] or name in unclosed:
            continue
        closing = CLOSING[name].search(text, place)
        if closing is None:
            unclosed.add(name)
            continue
        if name in VERBATIM:
            pieces.append(f"{MARK}{len(verbatim)}{MARK}")
            content = text[place : closing.start()].strip()
            verbatim.append(html.unescape(content) if name in ("nowiki", "pre") else content)
        place = closing.end()
    pieces.append(text[place:])
    return "".join(pieces), verbatim


def _without_templates(text: str) -> str:
    """Cut templates from the innermost out; those that hold single braces are left to the parser."""
    for _ in range(TEMPLATE_DEPTH):
        text, cut = INNERMOST_TEMPLATE.subn("", text)
        if not cut:
            break
    return text


def _without_tables(text: str) -> str:
    """Cut `{| … |}`, nested or not. A heading ends a table that is not closed (a template did it)."""
    if "{|" not in text:
        return text
    kept: list[str] = []
    depth = 0
    for line in text.split("\n"):
        bare = line.lstrip(" \t:*#;")
        if bare.startswith("{|"):
            depth += 1
        elif depth and bare.startswith("=="):
            depth = 0
        elif depth and bare.startswith("|}"):
            depth -= 1
            line = bare[2:]
        if not depth:
            kept.append(line)
    return "\n".join(kept)


def _render(nodes: Iterable[Node], out: list[str], unshown: frozenset[str]) -> None:
    """Append the shown text of `nodes` to `out`; node kinds that are not named show nothing."""
    for node in nodes:
        if isinstance(node, Text):
            out.append(_shown(node.value))
        elif isinstance(node, Wikilink):
            _render_link(node, out, unshown)
        elif isinstance(node, Heading):
            title: list[str] = []
            _render(node.title.nodes, title, unshown)
            out.append(f"\n{HEADING}{node.level}{' '.join(''.join(title).split())}\n")
        elif isinstance(node, HTMLEntity):
            out.append(_entity(node))
        elif isinstance(node, ExternalLink):
            if node.title is not None:
                _render(node.title.nodes, out, unshown)
            elif not node.brackets:
                out.append(str(node.url))
        elif isinstance(node, Tag):
            _render_tag(node, out, unshown)


def _render_link(link: Wikilink, out: list[str], unshown: frozenset[str]) -> None:
    title = str(link.title).strip()
    namespace, colon, _ = title.partition(":")
    if colon and namespace.strip().replace("_", " ").lower() in unshown:
        return
    if link.text is not None:
        _render(link.text.nodes, out, unshown)
    elif not LANGUAGE.match(title):
        target: list[str] = []
        _render(link.title.nodes, target, unshown)
        out.append("".join(target).strip().lstrip(":"))


def _render_tag(tag: Tag, out: list[str], unshown: frozenset[str]) -> None:
    name = str(tag.tag).strip().lower()
    if name in DROPPED or name == "table":
        return
    if tag.wiki_markup in ("*", "#"):
        if not (out and out[-1] == "- "):  # nested items carry one marker for each level
            out.append("- ")
        return
    around = "\n" if name in BLOCKS else ""
    out.append("\n" if name in ("br", "hr") else around)
    if tag.contents is not None:
        _render(tag.contents.nodes, out, unshown)
    out.append(around)


def _entity(entity: HTMLEntity) -> str:
    try:
        character = entity.normalize()
    except (ValueError, OverflowError):  # a number that is no character
        return str(entity)
    return character if character >= " " and not "\ud800" <= character <= "\udfff" else " "


def _shown(text: str) -> str:
    if "__" in text:
        text = SWITCH.sub(lambda match: "" if match[1].isupper() else match[0], text)
    return QUOTES.sub("", text) if "''" in text else text


def _tidied(text: str) -> str:
    """One space between words, one blank line between paragraphs; see the module's docstring for the rest."""
    for pattern, replacement in TIDYING:
        text = pattern.sub(replacement, text)
    lines: list[str] = []
    filled = [False] * 8  # by level: whether anything stands between here and the next heading of that level
    for line in reversed(text.split("\n")):
        line = line.strip()
        if line.startswith(HEADING):
            level, title = int(line[1]), line[2:].strip()
            if filled[level] and title:
                lines += ["", title, ""]
            filled[level:] = [False] * len(filled[level:])
        elif WORDS.search(line):
            lines.append(line)
            filled = [True] * 8
        elif lines and lines[-1] and not line:
            lines.append("")
    return re.sub(r"\n{3,}", "\n\n", "\n".join(reversed(lines)))
