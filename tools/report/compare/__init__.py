"""Two mixes, or two runs, side by side: what differs first, then every section of one beside the same section of the other.

In: the parts of both. Out: parts whose sections hold Pairs. Sections are paired by their ids, blocks by their titles; the axes of two
charts are made the same (axes.py). Not: nothing is read again: all differences are between what the two pages would have shown.
"""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import replace

from pipeline.errors import ConfigError
from tools.report.blocks import Block, Chart, Pair, Part, Section, Text
from tools.report.compare.axes import Item, alike, merged, narrow
from tools.report.compare.differences import differences
from tools.report.compare.overlay import overlays

Names = tuple[str, str]
Couple = tuple[Item | None, Item | None]


def side_by_side(a: str, b: str, left: Sequence[Part], right: Sequence[Part]) -> list[Part]:
    """Raises ConfigError where the two are not of a kind."""
    if not {part.id for part in left} & {part.id for part in right}:
        kinds = [" and ".join(part.title.lower() for part in parts) for parts in (left, right)]
        raise ConfigError(f"A={a} has {kinds[0]} to show, B={b} {kinds[1]}; only two mixes or two runs can stand side by side")
    pairs = _paired(left, right, [part.id for part in left], [part.id for part in right])
    parts = [_part((a, b), *pair) for pair in pairs]
    return [_at_the_top(a, b, left, right), *parts]


def _at_the_top(a: str, b: str, left: Sequence[Part], right: Sequence[Part]) -> Part:
    sections = [Section("differences-table", "What differs", differences(a, b, left, right))]
    if a != b and (curves := overlays(a, b, left, right)):
        sections.append(Section("differences-curves", "Both in one", curves))
    return Part("differences", f"{a} beside {b}", sections)


def _part(names: Names, left: Part | None, right: Part | None) -> Part:
    there = left or right
    assert there is not None
    before, after = (part.sections if part else [] for part in (left, right))
    pairs = _paired(before, after, [section.id for section in before], [section.id for section in after])
    intro = " ".join(part.intro for part in (left, right) if part and part.intro)
    return Part(there.id, there.title, [_section(names, *pair) for pair in pairs], intro)


def _section(names: Names, left: Section | None, right: Section | None) -> Section:
    there = left or right
    assert there is not None
    before, after = (section.blocks if section else [] for section in (left, right))
    blocks: list[Block] = [Pair(Text(names[0]), Text(names[1]))]
    intros = [section.intro if section else "" for section in (left, right)]
    if intros[0] != intros[1]:
        blocks.append(Pair(*(Text(intro) if intro else None for intro in intros)))
    blocks += [_pair(*pair) for pair in _paired(before, after, _keys(before), _keys(after))]
    return replace(there, blocks=blocks, intro=intros[0] if intros[0] == intros[1] else "")


def _pair(left: Block | None, right: Block | None) -> Pair:
    if isinstance(left, Chart) and isinstance(right, Chart):
        return Pair(*alike(left, right))
    return Pair(*(narrow(block) if isinstance(block, Chart) else block for block in (left, right)))


def _keys(blocks: Sequence[Block]) -> list[Hashable]:
    """What tells a section's blocks apart: kind and title; of those without one, or with the same, how many came before."""
    names = [(type(block).__name__, getattr(block, "title", "")) for block in blocks]
    seen: Counter[tuple[str, str]] = Counter()
    keys: list[Hashable] = []
    for name in names:
        keys.append((*name, seen[name]))
        seen[name] += 1
    return keys


def _paired(left: Sequence[Item], right: Sequence[Item], of_left: Sequence[Hashable], of_right: Sequence[Hashable]) -> list[Couple[Item]]:
    """Those of equal keys together."""
    mine, its = dict(zip(of_left, left, strict=True)), dict(zip(of_right, right, strict=True))
    return [(mine.get(key), its.get(key)) for key in merged(of_left, of_right)]
