"""What differs between two mixes or two runs, as one table: every cell of a table that the other's has otherwise.

In: the parts of both. Out: blocks for the top of the page. Tables are paired by their section's id and their title, rows by their
leading texts. Two cells that read the same are the same. Of a table with more than MOST differences the largest are shown, as shares of
the left one's number.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from tools.report.blocks import Block, Cell, Part, Section, Table, Text
from tools.report.page import cell

MOST = 20  # of a table
LEFT_OUT = frozenset({"model-words"})  # lists of words, which always differ

Key = tuple[str, ...]


class Difference(NamedTuple):
    """size: by which share of the left one's they differ; infinite for texts, and where one has none."""

    what: str
    left: str
    right: str
    change: str
    section: str
    size: float


def differences(a: str, b: str, left: Sequence[Part], right: Sequence[Part]) -> list[Block]:
    others = {section.id: section for part in right for section in part.sections}
    rows: list[Difference] = []
    same, cut, lonely = [], [], []
    for section in (section for part in left for section in part.sections if section.id not in LEFT_OUT):
        other = others.pop(section.id, None)
        if other is None:
            lonely.append(f"{section.title} ({a})")
            continue
        tables = {block.title: block for block in other.blocks if isinstance(block, Table)}
        for table in (block for block in section.blocks if isinstance(block, Table) and block.title in tables):
            found = list(_between(section, table, tables[table.title]))
            largest = sorted(found, key=lambda difference: -difference.size)[:MOST]
            rows += [difference for difference in found if difference in largest]
            same += [table.title] * (not found)
            cut += [f"{len(found) - MOST} of {table.title}"] if len(found) > MOST else []
    lonely += [f"{section.title} ({b})" for section in others.values() if section.id not in LEFT_OUT]
    return [*_table(a, b, rows, cut), *_told("Equal in both", same), *_told("In one alone", lonely)]


def _table(a: str, b: str, rows: Sequence[Difference], cut: Sequence[str]) -> Iterator[Block]:
    if not rows:
        yield Text("No number that both show differs.")
        return
    caption = "Every number and name that the two show otherwise; the change is against the left one."
    caption += f" Left out are the smallest differences: {', '.join(cut)}." if cut else ""
    yield Table("Differences", ["what", a, b, "change", "shown in"], [row[:5] for row in rows], caption)


def _told(what: str, names: Sequence[str]) -> Iterator[Block]:
    if names:
        yield Text(f"{what}: {', '.join(dict.fromkeys(names))}.")


def _between(section: Section, left: Table, right: Table) -> Iterator[Difference]:
    """A row that only one of them has is one difference, however many cells it has."""
    keys = _width(left, right)
    before, after = _by_key(left, keys), _by_key(right, keys)
    shared = [(place, right.headings.index(heading)) for place, heading in enumerate(left.headings) if heading in right.headings]
    many = len(left.headings) > keys + 1
    for key in dict.fromkeys([*before, *after]):
        if many and not (key in before and key in after):
            one, two = ("there" if key in rows else "–" for rows in (before, after))
            yield Difference(_named(key, left.title), one, two, "", section.title, math.inf)
            continue
        for place, other in shared[keys:]:
            heading, mine, its = left.headings[place], _at(before, key, place), _at(after, key, other)
            texts = [cell(value, heading in left.shares, left.decimals) for value in (mine, its)]
            if texts[0] != texts[1]:
                change, size = _change(mine, its, heading in left.shares)
                yield Difference(_named((*key, heading) if many else key), texts[0], texts[1], change, section.title, size)


def _at(rows: Mapping[Key, Sequence[Cell]], key: Key, place: int) -> Cell:
    return rows[key][place] if key in rows else None


def _named(key: Key, table: str = "") -> str:
    return (f"{table}: " if table else "") + ", ".join(part for part in key if part)


def _width(left: Table, right: Table) -> int:
    """How many leading columns name a row: all that are texts, until each row of both has a name of its own; at least one."""
    for width in range(1, len(left.headings)):
        names = [[row[:width] for row in table.rows] for table in (left, right)]
        apart = all(len(set(map(tuple, rows))) == len(rows) for rows in names)
        texts = all(isinstance(value, str) for table in (left, right) for row in table.rows for value in row[: width + 1])
        if apart or not texts:
            return width
    return 1


def _by_key(table: Table, width: int) -> dict[Key, Sequence[Cell]]:
    """Rows that still have one name are told apart by their order."""
    rows: dict[Key, Sequence[Cell]] = {}
    for row in table.rows:
        name = tuple(cell(value) for value in row[:width])
        key, number = name, 1
        while key in rows:
            number += 1
            key = (*name, str(number))
        rows[key] = row
    return rows


def _change(left: Cell, right: Cell, share: bool) -> tuple[str, float]:
    if not isinstance(left, int | float) or not isinstance(right, int | float) or isinstance(left, bool) or isinstance(right, bool):
        return "", math.inf
    size = abs(right - left) / abs(left) if left else math.inf
    if share:
        return f"{100 * (right - left):+.2f} points", size
    if not left:
        return "", size
    return f"{(right - left) / abs(left):+.1%}" if size < 10 else f"{right / left:,.3g} times", size
