"""Texts that rules on pages are tried on, and which of a filter's rules drop them."""

from collections.abc import Sequence
from functools import cache

import pyarrow as pa

from pipeline.rules import Rules, load_filter
from pipeline.taggers import Batch, tag
from pipeline.taggers.predicates import decide

SPACES = [chr(code) for code in range(0x110000) if chr(code).isspace()]
WEB = (
    "Home\n\nThe cat sat on the mat. The cat sat on the mat, to be with us…\n* one\n- two\n- two\n\n\n"
    "Read more...\n  Read more...  \nThat is #1 of 3… and have \u2028 it all\n"
)
MIXED = (
    "Çà et là 漢字漢字 漢字漢字 שלום עולם שלום עולם 😀😀 e\u0301te\u0301 e\u0301te\u0301 "
    "can't can\u2019t 3.14 3.14 a\u00a0b a\u00a0b x\x1cy\x85z"
    "\r\n\r\n\ufeffend . . . . . .\x00#\n\n\n● •\n"
)
DEGENERATE = [
    "", "a", " ", "\n", "\n\n", "\n\n\n", "\na\n", "…", "#", "!? " * 60, "😀" * 50, "😀 " * 50, "a" * 5000, "word " * 60, "漢" * 100,
    "שלום עולם " * 20, "\x00", "\x1c", "\x85", "\u2028", "a\u2028b\u2028a", "a\r\na\r\n", "e\u0301 é e\u0301", "-\n-\n*", "…\n…\n \n",
    ".......", ". . . . . . .", "...\n. . .", "(a (b )c", "a\x00b\x00c", "a\n\n\n\na\n\nb", " ² ½ _ _a",
]  # fmt: skip
# No two lines have much in common, and every rule of Gopher's keeps it.
PROSE = [
    "Salt was once so dear that soldiers were paid with it.",
    "A harbour town lived from drying sea water in wide clay pans, and every family had a share of the dyke.",
    "When the wind turned north, children ran out to close wooden gates before rain could spoil a week of work.",
    "Merchants came in autumn, weighed grey crystals on iron scales, and argued about moisture until evening.",
    "Their carts left for markets beyond those hills, where butchers and tanners waited.",
    "Nobody knew how old the trade was; charters older than any church mention it.",
    "Then a railway brought cheaper rock salt from inland mines.",
    "Within ten years most pans had silted up, and herons walked where rakes used to go.",
    "Today three workers keep one basin open, mainly to show visitors what patience looks like.",
    "Chefs pay well for what they gather, which may be why it has survived at all.",
]


def batch_of(texts: Sequence[str]) -> Batch:
    return Batch(pa.table({"text": pa.array(texts, pa.large_string())}))


def reasons(name: str, *texts: str) -> list[list[str]]:
    """Of each text the predicates of filter `name` that hold."""
    batch = batch_of(texts)
    attributes = tag([tagger for tagger in _filter(name).taggers if "tokens" not in tagger.reads], batch)
    return [[reason.split("/")[1] for reason in each] for each in decide(attributes, _filter(name).drop)["reasons"].to_pylist()]


@cache
def _filter(name: str) -> Rules:
    return load_filter(name)
