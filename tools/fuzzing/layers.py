"""What hides content from mutation, opened and closed again: compression, checksums, well-formedness, fingerprints."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
from collections.abc import Callable
from typing import Any

from backports import zstd
from lxml import etree

from pipeline import unit
from tools.fuzzing import seeds
from tools.fuzzing.target import Layer

UNPACKED = 8 << 20  # of what a layer holds, so that mutation stays quick


def _bounded(unpack: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    return lambda content: unpack(content)[:UNPACKED]


def _checksummed(content: bytes) -> bytes:
    """A tar whose headers' checksums are right, whatever else they say."""
    fixed, place = bytearray(content), 0
    while place + 512 <= len(fixed) and any(fixed[place : place + 512]):
        fixed[place + 148 : place + 156] = b" " * 8
        fixed[place + 148 : place + 156] = b"%06o\x00 " % sum(fixed[place : place + 512])
        digits = bytes(fixed[place + 124 : place + 136]).strip(b"\x00 ")
        size = int(digits, 8) if digits and not digits.strip(b"01234567") else 0
        place += 512 + -(-size // 512) * 512
    return bytes(fixed)


def _well_formed(content: bytes) -> bytes:
    """XML again, of what can be made of these bytes."""
    root = etree.fromstring(content, etree.XMLParser(recover=True, huge_tree=False, resolve_entities=False, no_network=True))
    return bytes(etree.tostring(root))


GZIP = Layer(_bounded(gzip.decompress), seeds.gzipped)
ZSTD = Layer(_bounded(zstd.decompress), seeds.zstandard)
BZIP2 = Layer(_bounded(bz2.decompress), seeds.bzipped)
TAR = Layer(bytes, _checksummed)
PAPER = Layer(GZIP.open, lambda tar: seeds.gzipped(_checksummed(tar)))
XML = Layer(bytes, _well_formed)


def sealed(seal: Callable[[Any], Any]) -> Layer:
    """JSON that states a checksum of itself: `seal` puts it right."""
    return Layer(bytes, lambda content: json.dumps(seal(json.loads(content)), ensure_ascii=False).encode("utf-8", "surrogatepass"))


JSON = sealed(lambda value: value)  # what is changed stays JSON
RECORD = Layer(bytes, lambda content: unit.sealed({name: value for name, value in json.loads(content).items() if name != "seal"}))


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
