"""How much of an HTML file a browser would show: the characters that Beautiful Soup finds, at native speed.

In:   the bytes of many HTML texts in one flat array with their offsets, as Arrow holds a string column.
Out:  the visible characters of each.
Cost: one pass, some hundred MB per second; a stack of open tags and a table of 2,125 entities. Imports numba. Marks that never end
      are looked through to the text's end, as the parser does, until that comes to WORK bytes.
Not:  no tree, no text. The rules are those of html.parser in Python 3.11.7 (the security releases of 2025 are nearer to HTML5
      in odd comments, declarations and tags) as Beautiful Soup 4 uses it, with its leniency: what a tag is, which tags are
      void, that white space alone between two tags is one character unless it is in <pre> or <textarea>, that unknown
      entities stand for themselves, that a document with an unknown marked section (`<![what[`) is rejected as a whole, and
      here one beyond WORK too, which the parser would spend hours on.
      Scripts, styles, templates, ruby annotations, comments and declarations are not shown; CDATA sections are.
"""

import functools
from html.entities import html5

import numba
import numpy as np
import numpy.typing as npt

from pipeline.text.html_marks import (
    CONDITIONAL,
    ENTITY_SLOTS,
    SHOWN,
    TEMPORARY,
    bracket,
    declaration,
    end_tag,
    find,
    fnv,
    index_of,
    is_letter,
    raw_end,
    reference,
    start_tag,
)
from pipeline.text.utf8 import Bytes, Offsets

VOID = (
    "area", "base", "basefont", "bgsound", "br", "col", "command", "embed", "frame", "hr", "image", "img", "input", "isindex",
    "keygen", "link", "menuitem", "meta", "nextid", "param", "source", "spacer", "track", "wbr",
)  # fmt: skip
RAW = ("script", "style")  # no tags inside, up to their own end tag
HIDDEN = ("rp", "rt", "template", *RAW)  # Beautiful Soup's string containers, which its get_text passes over
PRESERVING = ("pre", "textarea")

WORK = 1 << 27  # bytes looked through in vain, in one text: three seconds at most
_ANY = 2  # with SHOWN, of a stretch of text: has a character other than ASCII white space; is there at all
_VOID, _RAW, _HIDDEN, _PRESERVING = 1, 2, 4, 8


def visible_characters(data: Bytes, offsets: Offsets) -> npt.NDArray[np.int64]:
    """[n] int64: characters of `BeautifulSoup(text, "html.parser").get_text()` without scripts and styles; 0 for a text that
    the parser rejects, or that has far too many marks without an end."""
    return _visible_characters(data, offsets, *_names(), *_entities())


@functools.cache
def _names() -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint8], npt.NDArray[np.uint64]]:
    """The hashes of tags that are treated specially, their kinds, and the hashes of marked sections."""
    names = sorted({*VOID, *HIDDEN, *PRESERVING})
    groups = ((VOID, _VOID), (RAW, _RAW), (HIDDEN, _HIDDEN), (PRESERVING, _PRESERVING))
    kinds = [sum(kind for group, kind in groups if name in group) for name in names]
    sections = [fnv(name) for name in TEMPORARY + CONDITIONAL]
    return np.array([fnv(name) for name in names], np.uint64), np.array(kinds, np.uint8), np.array(sections, np.uint64)


@functools.cache
def _entities() -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """An open-addressing table of entity names: hash, 0 where empty; characters << 1 | SHOWN."""
    hashes, values = np.zeros(ENTITY_SLOTS, np.uint64), np.zeros(ENTITY_SLOTS, np.int64)
    for name, text in {name.rstrip(";"): text for name, text in html5.items()}.items():
        hashed = fnv(name)
        slot = hashed % ENTITY_SLOTS
        while hashes[slot]:
            slot = (slot + 1) % ENTITY_SLOTS
        kind = SHOWN * bool(text.strip(" \n\t\f\r"))
        hashes[slot], values[slot] = hashed, len(text) << 1 | kind
    return hashes, values


@numba.njit(cache=True, nogil=True)
def _visible_characters(data, offsets, tags, kinds, sections, entities, entity_values):  # type: ignore[no-untyped-def]
    totals = np.zeros(len(offsets) - 1, dtype=np.int64)
    stack = np.empty(256, dtype=np.uint64)
    open_tags = np.zeros(1024, dtype=np.int64)  # how many open tags there are, by the hash's low bits
    closed = np.zeros(len(tags), dtype=np.int64)  # void tags whose end tag may still come, and is then passed over
    for text in range(len(totals)):
        at, end = offsets[text], offsets[text + 1]
        depth = hidden = preserving = total = work = 0
        length = state = 0  # of the stretch of text since the last tag: characters, and SHOWN | _ANY
        raw = np.uint64(0)  # the script or style that is open
        last = False  # html.parser's second pass, in which nothing more is to come
        open_tags[:] = 0
        closed[:] = 0
        while at < end:
            if work > WORK:
                length = state = total = 0
                break
            if raw:
                stop, after = raw_end(data, at, end, raw)
                if stop < 0:
                    break  # what an open script holds is dropped
                depth, hidden, preserving = _pop(stack, depth, open_tags, raw, tags, kinds, hidden, preserving)
                raw, at, length, state = np.uint64(0), after, 0, 0
                continue
            length, state, at = _plain(data, at, end, length, state)
            if at == end:
                break
            stop = np.int64(-1)  # where what begins here ends; -1: it does not
            if data[at] == 0x26:
                size, kind, stop = reference(data, at, end, entities, entity_values)
                if stop >= 0:
                    length, state, at = length + size, state | kind | _ANY, stop
                    continue
                if at + 1 < end and data[at + 1] == 0x23:
                    if find(data, at, end, 0x3B) >= 0:
                        length, state, at = length + 2, state | SHOWN | _ANY, at + 2
                elif at + 1 < end and not is_letter(data[at + 1]):
                    length, state, at = length + 1, state | SHOWN | _ANY, at + 1
                    continue
                elif last and at + 2 == end:
                    at += 1
                if last:
                    length, state = _take(data, at, end, length, state)
                    break
                last = True
                continue
            following = data[at + 1] if at + 1 < end else np.uint8(0)
            if is_letter(following):
                stop, closing, tag = start_tag(data, at, end)
                if stop >= 0 and data[stop - 1] == 0x3E:
                    total += _flushed(length, state, hidden, preserving)
                    length = state = 0
                    kind = _kind(tag, tags, kinds)
                    at = stop
                    if closing:
                        continue
                    if kind & _VOID:
                        closed[index_of(tag, tags)] += 1
                        continue
                    if depth == len(stack):
                        grown = np.empty(2 * depth, dtype=np.uint64)
                        grown[:depth] = stack
                        stack = grown
                    stack[depth] = tag
                    depth += 1
                    open_tags[tag & np.uint64(1023)] += 1
                    hidden += kind & _HIDDEN > 0
                    preserving += kind & _PRESERVING > 0
                    if kind & _RAW:
                        raw = tag
                    continue
                if stop >= 0:  # a tag that breaks off is text
                    length, state = _take(data, at, stop, length, state)
                    at = stop
                    continue
            elif following == 0x2F:
                stop, named, tag = end_tag(data, at, end)
                if stop >= 0:
                    at = stop
                    if named == 0:  # </>
                        continue
                    index = index_of(tag, tags) if named == 1 else -1
                    if index >= 0 and closed[index] > 0:
                        closed[index] -= 1
                        continue
                    total += _flushed(length, state, hidden, preserving)
                    length = state = 0
                    if named == 1:
                        before = depth
                        depth, hidden, preserving = _pop(stack, depth, open_tags, tag, tags, kinds, hidden, preserving)
                        work += depth if depth == before else 0
                    continue
            elif following == 0x21 or following == 0x3F:
                stop, shown = declaration(data, at, end, sections)
                if stop == -2:
                    length = state = total = 0
                    break
                if stop >= 0:
                    total += _flushed(length, state, hidden, preserving)
                    length = state = 0
                    if shown >= 0:  # a CDATA section, from `shown` to its brackets
                        length, state = _take(data, shown, bracket(data, shown, end, True)[0], 0, _ANY)
                        total += _flushed(length, state, 0, preserving)
                        length = state = 0
                    at = stop
                    continue
            elif at + 1 < end:
                length, state, at = length + 1, state | SHOWN | _ANY, at + 1
                continue
            work += end - at
            if not last:
                last = True
                continue
            if at + 1 == end:
                length, state = _take(data, at, end, length, state)
                break
            stop = find(data, at + 1, end, 0x3E) + 1
            if stop == 0:
                stop = find(data, at + 1, end, 0x3C)
            if stop < 0:
                stop = at + 1
            length, state = _take(data, at, stop, length, state)
            at = stop
        totals[text] = total + _flushed(length, state, hidden, preserving)
    return totals


@numba.njit
def _flushed(length, state, hidden, preserving):  # type: ignore[no-untyped-def]
    """The visible characters of a finished stretch: white space alone is one, outside of <pre>."""
    if hidden or not state & _ANY:
        return 0
    return length if state & SHOWN or preserving else 1


@numba.njit
def _kind(tag, tags, kinds):  # type: ignore[no-untyped-def]
    index = index_of(tag, tags)
    return kinds[index] if index >= 0 else np.uint8(0)


@numba.njit
def _pop(stack, depth, open_tags, tag, tags, kinds, hidden, preserving):  # type: ignore[no-untyped-def]
    """Close the innermost open `tag` and all that is open in it; nothing if there is none."""
    if open_tags[tag & np.uint64(1023)] == 0:
        return depth, hidden, preserving
    found = depth - 1
    while found >= 0 and stack[found] != tag:
        found -= 1
    if found < 0:
        return depth, hidden, preserving
    for index in range(found, depth):
        kind = _kind(stack[index], tags, kinds)
        hidden -= kind & _HIDDEN > 0
        preserving -= kind & _PRESERVING > 0
        open_tags[stack[index] & np.uint64(1023)] -= 1
    return found, hidden, preserving


@numba.njit
def _plain(data, at, end, length, state):  # type: ignore[no-untyped-def]
    """Take text up to the next "&" or "<"."""
    while at < end and data[at] != 0x26 and data[at] != 0x3C:
        byte = data[at]
        length += byte & 0xC0 != 0x80
        if byte != 0x20 and byte != 0x0A and byte != 0x09 and byte != 0x0D and byte != 0x0C:
            state |= SHOWN
        state |= _ANY
        at += 1
    return length, state, at


@numba.njit
def _take(data, at, end, length, state):  # type: ignore[no-untyped-def]
    """Take text up to `end`, whatever it is."""
    while at < end:
        length, state, at = _plain(data, at, end, length, state)
        if at < end:
            length, state, at = length + 1, state | SHOWN | _ANY, at + 1
    return length, state
