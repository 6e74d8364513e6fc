"""The rules by which spaCy 3.8 splits English, read from it: exceptions, units, classes of characters.

In:   the installed spaCy. Out: arrays for compiled code.
Cost: once per process, a second for importing spaCy and half a second for the rest; 100 MB.
Not:  the patterns themselves: spacy_patterns.py has them as code. That spaCy's are still those is checked by their hash, and a
      spaCy with others is refused. Exceptions and classes may change, they are data.
"""

import hashlib
import importlib
import re
import sys
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.errors import PipelineError
from pipeline.text import interning
from pipeline.text.interning import Table

PREFIX, SUFFIX, ICON, ALPHA, LOWER, UPPER, QUOTE, BEFORE_STOP, HOST, WORD, DIGIT = (1 << bit for bit in range(11))
_PATTERNS = "a3e122ab640fb8a0d648588960de1fffc2875a90cbd233e42a7df2333ca3ef92"

Ints = npt.NDArray[np.int32]


class Rules(NamedTuple):
    """What compiled code reads. An exception's number is that of its string in `exceptions`."""

    flags: npt.NDArray[np.uint16]  # [0x110000] by code point
    exceptions: Table
    ends: Ints  # exception e is cut after the bytes ends[offsets[e] : offsets[e + 1]]
    offsets: Ints
    hints: npt.NDArray[np.uint32]  # [256, 256] by first and last byte of exceptions: a bit for each length that they have
    units: Table  # what is cut off a number: units and currencies
    unit_hints: npt.NDArray[np.bool_]  # [256] by last byte


@cache
def rules() -> Rules:
    lists = _spacy("spacy.lang.char_classes")
    units = [_plain(entry) for entry in lists.LIST_UNITS + lists.LIST_CURRENCY]
    hints = np.zeros((256, 256), np.uint32)
    ends, offsets = [], [0]
    for string, tokens in exceptions().items():
        data = string.encode()
        hints[data[0], data[-1]] |= 1 << len(data)
        ends += np.cumsum([len(token.encode()) for token in tokens]).tolist()
        offsets.append(len(ends))
    unit_hints = np.zeros(256, np.bool_)
    unit_hints[[unit.encode()[-1] for unit in units]] = True
    return Rules(
        _flags(),
        interning.table_of(list(exceptions())),
        np.array(ends, np.int32),
        np.array(offsets, np.int32),
        hints,
        interning.table_of(units),
        unit_hints,
    )


@cache
def exceptions() -> dict[str, list[str]]:
    """spaCy's exceptions and their words. Those that are whitespace are left out: nothing asks for them."""
    orth = _spacy("spacy.symbols").ORTH
    return {string: [token[orth] for token in tokens] for string, tokens in _tokenizer().rules.items() if not string.isspace()}


def is_torn(string: str) -> bool:
    """Whether spaCy also looks for this exception in pieces, which is when one of its patterns meets it."""
    tokenizer = _tokenizer()
    return bool(tokenizer.find_prefix(string) or tokenizer.find_infix(string) or tokenizer.find_suffix(string))


def _plain(entry: str) -> str:
    """An entry of spaCy's lists as the string that it matches: they escape what is special in a regular expression."""
    return entry.replace("\\", "")


@cache
def _tokenizer() -> Any:
    spacy = _spacy("spacy")
    tokenizer = spacy.blank("en").tokenizer
    patterns = [search.__self__.pattern for search in (tokenizer.prefix_search, tokenizer.suffix_search)]
    patterns += [tokenizer.infix_finditer.__self__.pattern, tokenizer.url_match.__self__.pattern, str(tokenizer.token_match)]
    found = hashlib.sha256("\0".join(patterns).encode()).hexdigest()
    if found != _PATTERNS:
        raise PipelineError(
            f"spaCy {spacy.__version__} splits English words by other patterns ({found[:12]}) than the ones written out in "
            f"pipeline/spacy_patterns.py ({_PATTERNS[:12]}, spaCy 3.8): install the version that constraints.txt names"
        )
    return tokenizer


def _spacy(module: str) -> Any:
    """A module of spaCy, imported without torch where that is installed: it costs a second and 200 MB, and none of it is used."""
    if "torch" in sys.modules:
        return importlib.import_module(module)
    sys.modules["torch"] = None  # type: ignore[assignment]  # makes its import fail, which spaCy expects
    try:
        return importlib.import_module(module)
    finally:
        del sys.modules["torch"]


@cache
def _flags() -> npt.NDArray[np.uint16]:
    c = _spacy("spacy.lang.char_classes")
    single = [entry for entry in c.LIST_PUNCT + c.LIST_QUOTES if len(_plain(entry)) == 1]
    currency = [entry for entry in c.LIST_CURRENCY if len(_plain(entry)) == 1]
    icons = c.LIST_ICONS[0][1:-1]
    classes = {
        PREFIX: "".join(["§%=—–…", *single, *currency]) + icons,
        SUFFIX: "".join(["—–…", *single]) + icons,
        ICON: "…" + icons,
        ALPHA: c.ALPHA,
        LOWER: c.ALPHA_LOWER,
        UPPER: c.ALPHA_UPPER,
        QUOTE: c.CONCAT_QUOTES,
        BEFORE_STOP: rf"0-9{c.ALPHA_LOWER}%²\-\+{c.PUNCT}(?:{c.CONCAT_QUOTES})",
        HOST: "A-Za-z0-9\u00a1-\uffff",
        WORD: r"\w\+\-\.",
        DIGIT: r"\d",
    }
    flags = np.zeros(0x110000, np.uint16)  # nothing beyond plane 3 is in any of these classes
    everything = "".join(map(chr, range(0x40000)))
    for bit, characters in classes.items():
        for match in re.finditer(f"[{characters}]+", everything):
            flags[match.start() : match.end()] |= bit
    return flags
