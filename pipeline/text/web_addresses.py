"""Addresses of web pages and of machines in running text, and runs of newlines, as DCLM's page modifiers find them.

In:   the bytes of many texts in one flat array with their offsets, as Arrow holds a string column.
Out:  spans of the flat bytes (lines.Found), one rule each.
Cost: about 2 ns a byte each; the tree of 1,600 top-level domains takes 6 MB. Imports numba.
Not:  an address is what DCLM's regular expressions take for one (baselines/mappers/modifiers.py), which is neither RFC 3986 nor
      what a browser would open: "Hi.it is" has one.

These are the expressions, DOMAIN being one of the top-level domains, in lower case, the longest that fits:
    \\s{0,10}((https?|ftp)://)?[-a-zA-Z0-9@:%._+~#=]{1,256}\\.DOMAIN\\b[-a-zA-Z0-9()@:%_+.~#?&/=]*
    \\s{0,10}\\b((https?|ftp)://)?([0-2]?[0-9]{1,2}\\.){3}[0-2]?[0-9]{1,2}[-a-zA-Z0-9()@:%_+.~#?&/=]*
"""

from collections.abc import Iterable
from functools import cache

import numba
import numpy as np
import numpy.typing as npt

from pipeline.text.interning import native
from pipeline.text.lines import WORD, Found, character_table
from pipeline.text.utf8 import Bytes, Offsets, decode, is_space

Tree = npt.NDArray[np.int32]

_NAME, _REST = 1, 2  # characters of a host's name, and all that an address is made of
_NAME_CHARACTERS = b"-abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@:%._+~#="
_REST_CHARACTERS = _NAME_CHARACTERS + b"()?&/"
_LONGEST_NAME = 256
_MOST_SPACES = 10


def tree_of(domains: Iterable[str]) -> Tree:
    """[nodes, 257] int32: the node that a byte leads to, 0 for none, from node 0 on; in the last column 1 where a domain ends."""
    nodes = [np.zeros(257, np.int32)]
    for domain in domains:
        node = 0
        for byte in domain.encode():
            if not nodes[node][byte]:
                nodes[node][byte] = len(nodes)
                nodes.append(np.zeros(257, np.int32))
            node = int(nodes[node][byte])
        nodes[node][256] = 1
    return np.array(nodes)


def addresses(data: Bytes, offsets: Offsets, wanted: npt.NDArray[np.bool_], tree: Tree) -> Found:
    """Addresses by a name, in the texts that are `wanted` [texts]."""
    return Found(*_addresses(data, offsets, wanted, tree, _kinds(), character_table()))


@cache
def _kinds() -> npt.NDArray[np.uint8]:
    kinds = np.zeros(256, np.uint8)
    kinds[list(_REST_CHARACTERS)] = _REST
    kinds[list(_NAME_CHARACTERS)] |= _NAME
    return kinds


@numba.njit(cache=True, nogil=True)
def _addresses(data, offsets, wanted, tree, kinds, table):  # type: ignore[no-untyped-def]
    most = 0
    for at in range(offsets[0], offsets[-1]):
        most += data[at] == 0x2E
    starts, ends = np.empty(most, dtype=np.int64), np.empty(most, dtype=np.int64)
    spans = 0
    for text in np.flatnonzero(wanted):
        free, end = offsets[text], offsets[text + 1]  # what is before `free` is taken
        name = at = free
        while at < end:
            if not kinds[data[at]] & _NAME:
                name = at + 1
            elif data[at] == 0x2E and at > name and _domain(data, at + 1, end, tree, table):
                start, stop = _around(data, free, name, at, end, tree, kinds, table)
                starts[spans], ends[spans] = _with_spaces(data, free, start), stop
                spans += 1
                free = name = at = stop
                continue
            at += 1
    return starts[:spans].copy(), ends[:spans].copy(), np.ones(spans, dtype=np.uint8), np.zeros(spans, dtype=np.int32)


@native
def _domain(data, start, end, tree, table):  # type: ignore[no-untyped-def]
    """Where the longest top-level domain at `start` ends that a word boundary follows; 0 if there is none."""
    found, node, at = 0, 0, start
    while at < end:
        node = tree[node, data[at]]
        if not node:
            break
        at += 1
        if tree[node, 256] and _is_boundary(data, start, at, end, table):
            found = at
    return found


@native
def _is_boundary(data, start, at, end, table):  # type: ignore[no-untyped-def]
    """Whether just one of the characters before and behind `at` is of a word; there is one before, none behind at the end."""
    return _is_word_before(data, start, at, table) != (at < end and table[decode(data, at)[0]] & WORD > 0)


@native
def _is_word_before(data, start, at, table):  # type: ignore[no-untyped-def]
    if at == start:
        return False
    at -= 1
    while data[at] & 0xC0 == 0x80:
        at -= 1
    return table[decode(data, at)[0]] & WORD > 0


@native
def _around(data, free, name, dot, end, tree, kinds, table):  # type: ignore[no-untyped-def]
    """From where to where the address reaches whose name begins at `name` and has its first dot before a domain at `dot`."""
    start = name
    if dot - name > _LONGEST_NAME:
        start = name = dot - _LONGEST_NAME
    else:
        start -= _scheme(data, free, name)
    # As many of the name's characters as may be; only the last dot can have a domain that reaches beyond ASCII.
    at, last = name, dot
    while at < end and kinds[data[at]] & _NAME:
        if at > dot and at <= name + _LONGEST_NAME and data[at] == 0x2E and _domain(data, at + 1, end, tree, table):
            last = at
        at += 1
    at = _domain(data, last + 1, end, tree, table)
    while at < end and kinds[data[at]] & _REST:
        at += 1
    return start, at


@native
def _scheme(data, free, at):  # type: ignore[no-untyped-def]
    """Bytes of the scheme before `at`: "http://", "https://" or "ftp://"; 0 if there is none."""
    if at - 6 < free or data[at - 1] != 0x2F or data[at - 2] != 0x2F or data[at - 3] != 0x3A:
        return 0
    at -= 4
    if data[at] == 0x70 and data[at - 1] == 0x74 and data[at - 2] == 0x66:
        return 6
    secure = data[at] == 0x73
    at -= secure
    if at - 3 >= free and data[at] == 0x70 and data[at - 1] == 0x74 and data[at - 2] == 0x74 and data[at - 3] == 0x68:
        return 7 + secure
    return 0


@native
def _with_spaces(data, free, start):  # type: ignore[no-untyped-def]
    """`start`, or where the last ten whitespace characters before it begin."""
    for _ in range(_MOST_SPACES):
        at = start - 1
        while at >= free and data[at] & 0xC0 == 0x80:
            at -= 1
        if at < free or not is_space(decode(data, at)[0]):
            break
        start = at
    return start


def ip_addresses(data: Bytes, offsets: Offsets) -> Found:
    """Addresses by four numbers."""
    return Found(*_ip_addresses(data, offsets, _kinds(), character_table()))


@numba.njit(cache=True, nogil=True)
def _ip_addresses(data, offsets, kinds, table):  # type: ignore[no-untyped-def]
    most = 0
    for at in range(offsets[0], offsets[-1]):
        most += data[at] == 0x2E
    starts, ends = np.empty(most, dtype=np.int64), np.empty(most, dtype=np.int64)
    spans = 0
    for text in range(len(offsets) - 1):
        free, end = offsets[text], offsets[text + 1]
        first = at = free
        while at < end:
            if not 0x30 <= data[at] <= 0x39:
                at += 1
                continue
            stop = _four_numbers(data, at, end)
            if not stop or _is_word_before(data, first, at, table):
                while at < end and 0x30 <= data[at] <= 0x39:
                    at += 1
                continue
            scheme = _scheme(data, free, at)
            if scheme and not _is_word_before(data, first, at - scheme, table):
                at -= scheme
            while stop < end and kinds[data[stop]] & _REST:
                stop += 1
            starts[spans], ends[spans] = _with_spaces(data, free, at), stop
            spans += 1
            free = at = stop
    return starts[:spans].copy(), ends[:spans].copy(), np.ones(spans, dtype=np.uint8), np.zeros(spans, dtype=np.int32)


@native
def _four_numbers(data, at, end):  # type: ignore[no-untyped-def]
    """Where the first digit of the fourth number ends, 0 if there are no four numbers with dots between them."""
    for _ in range(3):
        first = at
        while at < end and 0x30 <= data[at] <= 0x39:
            at += 1
        digits = at - first
        if not 1 <= digits <= 3 or (digits == 3 and data[first] > 0x32) or at == end or data[at] != 0x2E:
            return 0
        at += 1
    return at + 1 if at < end and 0x30 <= data[at] <= 0x39 else 0


def excess_newlines(data: Bytes, offsets: Offsets, most: int) -> Found:
    """The newlines of each run beyond its first `most`."""
    return Found(*_excess_newlines(data, offsets, most))


@numba.njit(cache=True, nogil=True)
def _excess_newlines(data, offsets, allowed):  # type: ignore[no-untyped-def]
    most = 0
    for at in range(offsets[0] + 1, offsets[-1]):
        most += (data[at] == 0x0A) & (data[at - 1] == 0x0A)
    starts, ends = np.empty(most, dtype=np.int64), np.empty(most, dtype=np.int64)
    spans = 0
    for text in range(len(offsets) - 1):
        at, end = offsets[text], offsets[text + 1]
        while at < end:
            if data[at] != 0x0A:
                at += 1
                continue
            run = at
            while at < end and data[at] == 0x0A:
                at += 1
            if at - run > allowed:
                starts[spans], ends[spans] = run + allowed, at
                spans += 1
            at += 1
    return starts[:spans].copy(), ends[:spans].copy(), np.ones(spans, dtype=np.uint8), np.zeros(spans, dtype=np.int32)
