"""Strings as numbers: a hash table over UTF-8 bytes that numba code reads and fills.

In:   pieces of a flat byte array. Out: for every distinct string a number, counted from 0 in the order of first sight, and
      its bytes, characters and 64-bit hash by that number.
Cost: one read of the bytes and, as a rule, one cache line of the table per string; 50 to 100 bytes of memory per
      distinct string beside its own bytes.
Not:  nothing is ever forgotten; who keeps a table decides when to begin a new one (words.py).

Equal number means equal bytes: strings of at most 7 bytes are their own hash, mixed by a bijection; longer ones have other
hashes than those and are compared byte by byte.
"""

import sys
from collections.abc import Sequence
from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from pipeline.text.utf8 import decode

Bytes = npt.NDArray[np.uint8]

# For functions that allocate no array. Without this option numba counts references to every array (and to each one in a
# tuple) at every call, atomically, which costs more than most of these functions do (300 against 3 ns for a look-up).
native = numba.njit(_nrt=False)  # type: ignore[call-overload]
# For those of them that Python calls.
kernel = numba.njit(_nrt=False, nogil=True, cache=True)  # type: ignore[call-overload]


class Table(NamedTuple):
    """The arrays of a table; only the first `count[0]` entries of the last four are filled."""

    slots: npt.NDArray[np.uint64]  # [2 ** k, 2] hash of the string in this slot, and its number + 1; 0 in an empty slot
    count: npt.NDArray[np.int64]  # type: ignore[assignment]  # [1]; hides tuple.count
    hashes: npt.NDArray[np.uint64]  # [2 ** (k - 1)] by number
    characters: npt.NDArray[np.int32]  # [2 ** (k - 1)]
    starts: npt.NDArray[np.int64]  # [2 ** (k - 1) + 1] string i is arena[starts[i] : starts[i + 1]]
    arena: Bytes


def new_table(strings: int = 1 << 14, size: int = 1 << 18) -> Table:
    """An empty table with room for some strings of some bytes in all; `strings` is a power of two."""
    return Table(
        np.zeros((2 * strings, 2), np.uint64),
        np.zeros(1, np.int64),
        np.zeros(strings, np.uint64),
        np.zeros(strings, np.int32),
        np.zeros(strings + 1, np.int64),
        np.zeros(size, np.uint8),
    )


def with_room(table: Table, strings: int, size: int) -> Table:
    """The table itself, or a copy that is at least twice as large, with room for more strings and bytes."""
    count = int(table.count[0])
    used = int(table.starts[count])
    capacity, room = len(table.hashes), len(table.arena)
    if count + strings <= capacity and used + size <= room:
        return table
    while count + strings > capacity:
        capacity *= 2
    if used + size > room:
        room = max(2 * room, used + size)
    grown = new_table(capacity, room)
    grown.count[0] = count
    grown.hashes[:count] = table.hashes[:count]
    grown.characters[:count] = table.characters[:count]
    grown.starts[: count + 1] = table.starts[: count + 1]
    grown.arena[:used] = table.arena[:used]
    _place(grown.slots, grown.hashes, count)
    return grown


def table_of(strings: Sequence[str]) -> Table:
    """A table of these strings, numbered in their order; a repeated one has its first number."""
    pieces = [string.encode() for string in strings]
    ends = np.cumsum([0, *map(len, pieces)])
    data = np.frombuffer(b"".join(pieces), np.uint8)
    table = with_room(new_table(), len(pieces), len(data))
    _intern_all(table, data, ends)
    return table


def hashes_of(strings: Sequence[str]) -> npt.NDArray[np.uint64]:
    """[n] the hashes of these strings, which are all different."""
    return table_of(strings).hashes[: len(strings)]


def strings_of(table: Table, start: int, stop: int) -> list[str]:
    """The strings of numbers start … stop - 1."""
    text = table.arena[table.starts[start] : table.starts[stop]].tobytes().decode()
    ends = np.cumsum(table.characters[start:stop]).tolist()
    return [text[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]


@kernel
def _place(slots, hashes, count):  # type: ignore[no-untyped-def]
    mask = np.uint64(len(slots) - 1)
    for number in range(count):
        slot = hashes[number] & mask
        while slots[slot, 1] > 0:
            slot = (slot + np.uint64(1)) & mask
        slots[slot, 0], slots[slot, 1] = hashes[number], number + 1


@native
def mix(x):  # type: ignore[no-untyped-def]
    """A bijection of 64-bit numbers in which every bit depends on every bit (MurmurHash3's finaliser, public domain)."""
    x = (x ^ x >> np.uint64(33)) * np.uint64(0xFF51AFD7ED558CCD)
    x = (x ^ x >> np.uint64(33)) * np.uint64(0xC4CEB9FE1A85EC53)
    return x ^ x >> np.uint64(33)


@intrinsic
def eight(typing, data, at):  # type: ignore[no-untyped-def]
    """uint64 of the 8 bytes from `at` on, the first the highest; the caller sees to it that the array has them."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        place = builder.gep(array.data, [context.cast(builder, arguments[1], signature.args[1], types.int64)])
        number = builder.load(builder.bitcast(place, ir.IntType(64).as_pointer()), align=1)
        return builder.bswap(number) if sys.byteorder == "little" else number

    return types.uint64(data, at), generate


@intrinsic
def leading_zeros(typing, number):  # type: ignore[no-untyped-def]
    """Of a uint64 that is not 0: how many zero bits come before its highest one."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.ctlz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), generate


@native
def skip_plain(data, at, stop):  # type: ignore[no-untyped-def]
    """The first byte from `at` on that is neither a visible ASCII character nor DEL: ≤ 0x20 or ≥ 0x80; or `stop`."""
    high = np.uint64(0x8080808080808080)
    while at + 8 <= stop:
        word = eight(data, at)
        # Of bytes below 0x80, adding 0x5F sets the highest bit where they are above 0x20, and carries nothing over.
        special = (word | ~((word & ~high) + np.uint64(0x5F5F5F5F5F5F5F5F))) & high
        if special:
            return at + (np.int64(leading_zeros(special)) >> 3)
        at += 8
    while at < stop and 0x20 < data[at] < 0x80:
        at += 1
    return at


@native
def _few(data, start, stop):  # type: ignore[no-untyped-def]
    """At most 7 bytes as a number, the first the highest."""
    if start < stop and start + 8 <= len(data):
        return eight(data, start) >> np.uint64(64 - 8 * (stop - start))
    word = np.uint64(0)
    for at in range(start, stop):
        word = word << np.uint64(8) | np.uint64(data[at])
    return word


@native
def hash_bytes(data, start, stop):  # type: ignore[no-untyped-def]
    """uint64 of data[start:stop], the same everywhere and always; different for different strings of ≤ 7 bytes."""
    if stop - start <= 7:
        return mix(_few(data, start, stop) | np.uint64(stop - start) << np.uint64(56))
    hashed = np.uint64(stop - start)
    at = start
    while at + 8 <= stop:
        hashed = (hashed ^ eight(data, at)) * np.uint64(0x9E3779B97F4A7C15)
        hashed ^= hashed >> np.uint64(32)
        at += 8
    hashed = mix((hashed ^ _few(data, at, stop)) * np.uint64(0x9E3779B97F4A7C15))
    # The top byte of what goes into the last mix is the length of short strings; long ones have 8 to 255 there.
    top = np.uint64(8) + (hashed >> np.uint64(56)) % np.uint64(248)
    return mix(hashed & np.uint64(0x00FFFFFFFFFFFFFF) | top << np.uint64(56))


@native
def find(table, data, start, stop):  # type: ignore[no-untyped-def]
    """The number of data[start:stop], -1 if the table does not have it."""
    return _look_up(table, hash_bytes(data, start, stop), data, start, stop)[0]


@native
def intern(table, data, start, stop):  # type: ignore[no-untyped-def]
    """The number of data[start:stop], a new one if the table does not have it; -1 if there is no room for a new one."""
    hashed = hash_bytes(data, start, stop)
    number, slot = _look_up(table, hashed, data, start, stop)
    return number if number >= 0 else _insert(table, hashed, slot, data, start, stop)


@native
def _insert(table, hashed, slot, data, start, stop):  # type: ignore[no-untyped-def]
    number = np.int32(table.count[0])
    begin = table.starts[number]
    if number == len(table.hashes) or begin + stop - start > len(table.arena):
        return np.int32(-1)
    table.slots[slot, 0], table.slots[slot, 1] = hashed, number + 1
    characters = 0
    for at in range(start, stop):
        table.arena[begin + at - start] = data[at]
        characters += data[at] & 0xC0 != 0x80
    table.hashes[number], table.characters[number] = hashed, characters
    table.starts[number + 1] = begin + stop - start
    table.count[0] = number + 1
    return number


@native
def _look_up(table, hashed, data, start, stop):  # type: ignore[no-untyped-def]
    """The string's number and its slot; -1 and the slot where it would go."""
    mask = np.uint64(len(table.slots) - 1)
    slot = hashed & mask
    while table.slots[slot, 1] > 0:
        if table.slots[slot, 0] == hashed:
            number = np.int32(table.slots[slot, 1] - np.uint64(1))
            if stop - start <= 7 or _same(table, number, data, start, stop):
                return number, slot
        slot = (slot + np.uint64(1)) & mask
    return np.int32(-1), slot


@native
def _same(table, number, data, start, stop):  # type: ignore[no-untyped-def]
    begin = table.starts[number]
    if table.starts[number + 1] - begin != stop - start:
        return False
    at, size = 0, stop - start
    while at + 8 <= size:
        if eight(table.arena, begin + at) != eight(data, start + at):
            return False
        at += 8
    while at < size and table.arena[begin + at] == data[start + at]:
        at += 1
    return at == size


@kernel
def _intern_all(table: Table, data: Bytes, ends: npt.NDArray[np.int64]) -> None:
    for i in range(len(ends) - 1):
        intern(table, data, ends[i], ends[i + 1])


@kernel
def or_of_characters(table: Table, start: int, found: Bytes, flags: Bytes) -> None:
    """Into found[i] go the bits that any character of string start + i has in `flags` [0x110000]."""
    for i in range(len(found)):
        found[i] = 0
        at = table.starts[start + i]
        while at < table.starts[start + i + 1]:
            code, width = decode(table.arena, at)
            found[i] |= flags[code]
            at += width
