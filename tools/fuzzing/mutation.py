"""An input → a slightly different one.

Bytes are flipped, cut, doubled, repeated, spliced with another input's, replaced by the format's tokens or by numbers that break
programs. Where a part is JSON, its values and keys are changed as JSON. Where a part has layers (compression, checksums), one is often
opened, what it holds mutated, and the layer closed again, so that mutations get behind it.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from tools.fuzzing.target import Layer, Parts, Target

NUMBERS = [
    0, 1, -1, 2, 7, 8, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**31 - 1, 2**31, -(2**31), 2**32 - 1, 2**32, 2**53, 2**62,
    2**63 - 1, 2**63, -(2**63), 2**64 - 1, 2**64, 10**30,
]  # fmt: skip
TEXTS = [
    "", " ", "\x00", "a", "..", "../../../etc/passwd", "/etc/passwd", "\\\\x\\y", "é", "e\u0301", "\u2028", "\ud800", "\ufeff",
    "\U0010ffff", "%s%n", "{0}", "$(x)", "'", '"', "NaN", "1e999", "0x7f", "-0", "9" * 5000, "uint16", "float64", "object", "x" * 300,
]  # fmt: skip
VALUES: list[Any] = [None, True, False, [], {}, 0.5, -0.0, 1e308, float("nan"), float("inf"), *NUMBERS, *TEXTS]
CHUNKS = [
    b"\x00", b"\xff", b"\n", b"\r\n", b"\t", b"\xef\xbb\xbf", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x80\xa8", b"0",
    b"-1", b"1e999", b"9" * 400, b"%00", b"../", b"/", b"\\",
]  # fmt: skip
REPEATS = [2, 2, 2, 3, 3, 10, 10, 100, 1000, 10_000]


def mutated(parts: Parts, target: Target, others: Sequence[Parts], random: Random) -> Parts:
    """One part of an input changed by a few steps. `others`: inputs to take pieces of."""
    if target.invent and random.random() < 0.1:
        return target.invent(random)
    index = random.randrange(len(parts))
    part = parts[index]
    other = random.choice(others)[index]
    layers = target.layers[index] if target.layers else ()
    part = _through(part, other, layers, target, random)
    return (*parts[:index], part[: target.limit], *parts[index + 1 :])


def _through(part: bytes, other: bytes, layers: Sequence[Layer], target: Target, random: Random) -> bytes:
    if layers and random.random() < 0.8:
        layer = random.choice(layers)
        try:
            inner = layer.open(part)
            try:
                other = layer.open(other)
            except Exception:  # pieces may come from anything
                other = inner
            return layer.close(_changed(inner, other, target, random))
        except Exception:  # an earlier mutation broke the layer: what is left are its bytes
            pass
    return _changed(part, other, target, random)


def _changed(content: bytes, other: bytes, target: Target, random: Random) -> bytes:
    limit = target.limit
    for _ in range(random.choice((1, 1, 1, 2, 3, 5))):
        if random.random() < 0.3 and (as_json := _json_changed(content, random)) is not None:
            content = as_json
        elif target.tokens and random.random() < 0.4:
            content = _with_token(content, target.tokens, random, limit)
        elif random.random() < 0.1:
            content = _spliced(content, other, random)
        else:
            content = random.choice(STEPS)(content, random, limit)
    return content


def _span(content: bytes, random: Random) -> tuple[int, int]:
    """A piece of the content, short more often than long."""
    begin = random.randrange(len(content) + 1)
    return begin, min(len(content), begin + int(2 ** random.uniform(0, 12)))


def _flip(content: bytes, random: Random, limit: int) -> bytes:
    if not content:
        return b"\x00"
    changed = bytearray(content)
    changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _overwrite(content: bytes, random: Random, limit: int) -> bytes:
    begin, _ = _span(content, random)
    kind = random.choice("bhiq")
    size = struct.calcsize(kind)
    number = random.choice(NUMBERS) % (1 << 8 * size)
    return content[:begin] + number.to_bytes(size, random.choice(("little", "big"))) + content[begin + size :]


def _insert(content: bytes, random: Random, limit: int) -> bytes:
    begin, _ = _span(content, random)
    piece = random.choice(CHUNKS) if random.random() < 0.7 else random.randbytes(random.randrange(1, 9))
    return content[:begin] + piece + content[begin:]


def _delete(content: bytes, random: Random, limit: int) -> bytes:
    begin, end = _span(content, random)
    return content[:begin] + content[end:]


def _truncate(content: bytes, random: Random, limit: int) -> bytes:
    return content[: random.randrange(len(content) + 1)]


def _repeat(content: bytes, random: Random, limit: int) -> bytes:
    begin, end = _span(content, random)
    times = min(random.choice(REPEATS), limit // max(1, end - begin))
    return content[:begin] + content[begin:end] * times + content[end:]


def _swap_lines(content: bytes, random: Random, limit: int) -> bytes:
    lines = content.split(b"\n")
    first, second = random.randrange(len(lines)), random.randrange(len(lines))
    lines[first], lines[second] = lines[second], lines[first]
    return b"\n".join(lines)


def _copy_line(content: bytes, random: Random, limit: int) -> bytes:
    lines = content.split(b"\n")
    lines.insert(random.randrange(len(lines) + 1), random.choice(lines))
    return b"\n".join(lines)


def _drop_line(content: bytes, random: Random, limit: int) -> bytes:
    lines = content.split(b"\n")
    del lines[random.randrange(len(lines))]
    return b"\n".join(lines)


def _number(content: bytes, random: Random, limit: int) -> bytes:
    """Another number where digits stand."""
    found = list(re.finditer(rb"-?\d+", content[:limit]))
    if not found:
        return _flip(content, random, limit)
    match = random.choice(found)
    return content[: match.start()] + str(random.choice(NUMBERS)).encode() + content[match.end() :]


STEPS: tuple[Callable[[bytes, Random, int], bytes], ...] = (
    _flip, _overwrite, _insert, _delete, _truncate, _repeat, _swap_lines, _copy_line, _drop_line, _number,
)  # fmt: skip


def _with_token(content: bytes, tokens: Sequence[bytes], random: Random, limit: int) -> bytes:
    begin, end = _span(content, random)
    token = random.choice(tokens)
    if random.random() < 0.15:
        token *= min(random.choice(REPEATS), limit // max(1, len(token)))
    if random.random() < 0.3 and token in content:  # one of the format's own words for another
        return content.replace(token, random.choice(tokens), random.randrange(1, 4))
    return content[:begin] + token + content[(end if random.random() < 0.3 else begin) :]


def _spliced(content: bytes, other: bytes, random: Random) -> bytes:
    begin, end = _span(other, random)
    place, until = _span(content, random)
    return content[:place] + other[begin:end] + content[until:]


def _json_changed(content: bytes, random: Random) -> bytes | None:
    """The content, or one of its lines, changed as JSON; None where it is no object and no array."""
    lines = content.split(b"\n") if content[:1] == b"{" and b"\n{" in content else [content]
    index = random.randrange(len(lines))
    try:
        value = json.loads(lines[index])
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict | list) or not value:
        return None
    _change_json(value, random)
    try:
        lines[index] = json.dumps(value, ensure_ascii=random.random() < 0.5).encode("utf-8", "surrogatepass")
    except RecursionError:
        return None
    return b"\n".join(lines)


def _change_json(value: Any, random: Random) -> None:
    """Change something at a random depth, in place."""
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = random.choice(keys)
        inner = value[key]
        if not (isinstance(inner, dict | list) and inner and random.random() < 0.7):
            break
        value = inner
    choice = random.randrange(7)
    if choice == 0:
        del value[key]
    elif choice == 1:  # a value for another
        other = random.choice(keys)
        value[key], value[other] = value[other], value[key]
    elif choice == 2:
        for _ in range(random.choice((1, 2, 1100))):
            inner = {"a": inner} if random.random() < 0.5 else [inner]
        value[key] = inner if random.random() < 0.9 else [inner, inner]
    elif choice == 3 and isinstance(value, dict):
        value[random.choice(TEXTS)] = value.pop(key)
    elif choice == 4 and isinstance(inner, int | float) and not isinstance(inner, bool):
        value[key] = random.choice((inner + 1, -inner, str(inner), inner + 0.0 if abs(inner) < 1e300 else 0, inner * 2, [inner]))
    elif choice == 5 and isinstance(inner, str):
        value[key] = random.choice((inner.upper(), inner + "\x00", inner[::-1], inner * 2, inner + "\ud800", "../" + inner, repr(inner)))
    else:
        value[key] = random.choice(VALUES)
