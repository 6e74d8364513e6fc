"""The documents of the golden tables: found again on any machine with this project's pinned packages, and never stored.

Two kinds, each with a name and, as its key, the first bytes of the sha256 of its UTF-8:

    made/<what>#<n>                made.py's: degenerate texts, and texts on either side of every published threshold
    <package>/<path>[#<n>]         a file of an installed package, or its n-th string between triple quotes

A file that another version of its package changed has another key and is not found.
"""

import hashlib
import importlib.metadata
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from tools.curation import made

KEY_BYTES = 8
# Pinned in constraints.txt, installed for `make test`, the same files on every system, much prose and mathematics.
DESCRIBED = tuple(
    "anyio attrs beautifulsoup4 charset-normalizer click docopt fonttools fsspec hypothesis idna Jinja2 lxml mailbits matplotlib "
    "mwparserfromhell networkx numpy pathspec psutil pydantic python-dateutil regex requests rich sympy tabulate tqdm typer uniseg urllib3 "
    "warcio".split()
)
QUOTED = ("networkx", "hypothesis", "mpmath", "sympy")
WHOLE = ("mpmath", "networkx", "pyparsing")
QUOTES_CHOSEN, WHOLE_CHOSEN = 150, 20
QUOTE_CHARACTERS, FILE_CHARACTERS = (700, 15_000), (500, 30_000)

_QUOTE = re.compile(r'"""(.*?)"""', re.DOTALL)


def key(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()[:KEY_BYTES]


def chosen() -> dict[str, str]:
    """What a table is made of, by name: all made texts, and some of the installed ones, in the order of their keys."""
    described = {f"{package}/METADATA": _read(package, "METADATA") for package in DESCRIBED}
    quoted = (quote for package in QUOTED for path in _sources(package) for quote in _quotes(package, path))
    whole = ((f"{package}/{path}", _read(package, path)) for package in WHOLE for path in _sources(package))
    fitting = ((name, text) for name, text in whole if FILE_CHARACTERS[0] <= len(text) <= FILE_CHARACTERS[1])
    return {
        **made.documents(),
        **{name: text for name, text in described.items() if text},
        **dict(islice(sorted(quoted, key=_by_key), QUOTES_CHOSEN)),
        **dict(islice(sorted(fitting, key=_by_key), WHOLE_CHOSEN)),
    }


def find(names: list[str]) -> dict[str, str]:
    """The texts of those names, as far as they are installed, changed ones included: compare keys."""
    found = made.documents()
    for name in names:
        if not name.startswith("made/"):
            package, _, place = name.partition("/")
            path, _, number = place.partition("#")
            text = dict(_quotes(package, path)).get(name, "") if number else _read(package, path)
            found[name] = text
    return {name: found[name] for name in names if name in found}


def _by_key(entry: tuple[str, str]) -> bytes:
    return key(entry[1])


def _quotes(package: str, path: str) -> Iterator[tuple[str, str]]:
    for number, match in enumerate(_QUOTE.finditer(_read(package, path))):
        if QUOTE_CHARACTERS[0] <= len(match[1]) <= QUOTE_CHARACTERS[1]:
            yield f"{package}/{path}#{number}", match[1]


def _sources(package: str) -> list[str]:
    return [str(file) for file in importlib.metadata.files(package) or [] if file.suffix == ".py"]


def _read(package: str, path: str) -> str:
    """The text of a package's file; "" if there is no such file or package, or it is not UTF-8."""
    try:
        distribution = importlib.metadata.distribution(package)
        if path == "METADATA":
            return distribution.read_text(path) or ""
        # As bytes: read as text, "\r\n" could become "\n".
        return Path(str(distribution.locate_file(path))).read_bytes().decode()
    except (importlib.metadata.PackageNotFoundError, OSError, UnicodeDecodeError):
        return ""
