"""A fault's input → a smaller one with the same fault: pieces are cut out while it stays (delta debugging, Zeller 2002)."""

from __future__ import annotations

from collections.abc import Callable

from tools.fuzzing.target import Parts


def shrunk(parts: Parts, fails: Callable[[Parts], bool], tries: int = 400) -> Parts:
    """The smallest input found within so many calls of `fails`; it fails as `parts` does."""
    left = tries
    for index in range(len(parts)):
        part = parts[index]
        size = max(1, len(part) // 2)
        while size and left > 0:
            begin = 0
            while begin < len(part) and left > 0:
                shorter = part[:begin] + part[begin + size :]
                left -= 1
                if fails((*parts[:index], shorter, *parts[index + 1 :])):
                    part = shorter
                    parts = (*parts[:index], part, *parts[index + 1 :])
                else:
                    begin += size
            size //= 2
    return parts
