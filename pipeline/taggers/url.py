"""Where a page was: its URL, its host, a hash by which pages of one URL are found, and what block lists say of it.

A URL is looked for in a document's metadata under `url`, `WARC-Target-URI` and `meta.url`, in this order. Lists are the
user's files, one entry per line in UTF-8; empty lines mean nothing, and case does not matter.
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import orjson
import pyarrow as pa
from pydantic import model_validator

from pipeline.config import Model
from pipeline.errors import PipelineError
from pipeline.recipe import SamplePackage, Text
from pipeline.taggers import Batch, Values, tagger
from pipeline.taggers.kinds import kind

Files = Text | SamplePackage | tuple[Text | SamplePackage, ...]

_SCHEME = re.compile(r"https?://(www\.)?")
_TRACKING = re.compile(r"\?(utm_|ref|feed).*")
_PORT = re.compile(r":\d*$")


@tagger(columns={"url": pa.string(), "url_domain": pa.string(), "url_hash": pa.binary(16)}, reads=("metadata",))
def url(batch: Batch) -> dict[str, pa.Array]:
    """url: as it stands in the metadata, "" where there is none. url_domain: its host in lower case, without port and a
    leading `www.`. url_hash: xxh3-128 of its normal form, most significant byte first; 16 zero bytes where that is empty.

    The normal form is C4's (c4_utils.py of TensorFlow Datasets; DCLM's normalize_url): without `http://`, `https://` and a
    `www.` after them, without a query that begins with `utm_`, `ref` or `feed`, without slashes at the end.
    """
    import xxhash

    found = urls(batch)
    normal = [_TRACKING.sub("", _SCHEME.sub("", each)).rstrip("/") for each in found]
    hashes = [xxhash.xxh3_128_digest(each.encode()) if each else bytes(16) for each in normal]
    return {
        "url": pa.array(found, pa.string()),
        "url_domain": pa.array([_host(each) for each in found], pa.string()),
        "url_hash": pa.array(hashes, pa.binary(16)),
    }


class UrlLists(Model):
    """Block lists, each a file, a glob or several; at least one. What an entry means is RefinedWeb's (arXiv:2306.01116,
    appendix G.1) as DCLM has it (url_substring_filter of filters/metadata_filters.py).

    domains: hosts. strict: words sought anywhere in the URL once its `-` and `.` are taken out. hard, soft: words sought
    between word boundaries, of which one (hard) or two different ones (soft) are too many.
    """

    domains: Files | None = None
    strict: Files | None = None
    hard: Files | None = None
    soft: Files | None = None

    @model_validator(mode="after")
    def _one_list(self) -> "UrlLists":
        if not any((self.domains, self.strict, self.hard, self.soft)):
            raise ValueError("name at least one list: domains, strict, hard or soft")
        return self


def _columns(name: str, settings: UrlLists) -> dict[str, pa.DataType]:
    given = [role for role in ("domains", "strict", "hard", "soft") if getattr(settings, role)]
    return {f"{name}_{role}": pa.int64() for role in given}


@kind("url_lists", settings=UrlLists, reads=("metadata",), columns=_columns, files=("domains", "strict", "hard", "soft"))
def url_lists(batch: Batch, name: str, settings: UrlLists, files: Mapping[str, list[Path]]) -> Values:
    """A column per list that is given, 0 for a document without URL. <name>_domains: 1 if the host is listed, with its port if
    it has one and without any `www.`; no parent domain counts. <name>_strict, <name>_hard, <name>_soft: how many
    different words were found, from left to right, the longest at a place, none inside another.

    Memory: the lists, once per process; about 100 bytes per entry.
    """
    found = [each.lower() for each in urls(batch)]
    values: dict[str, Any] = {}
    for role in _columns("", settings):
        entries = tuple(files[role[1:]])
        if role == "_domains":
            listed = _entries(entries)
            values[name + role] = [bool(each) and _place(each).replace("www.", "") in listed for each in found]
        else:
            words = _pattern(entries, bounded=role != "_strict")
            sought = [each.replace("-", "").replace(".", "") for each in found] if role == "_strict" else found
            values[name + role] = [len(set(words.findall(each))) for each in sought]
    return {column: np.array(counts, np.int64) for column, counts in values.items()}


def urls(batch: Batch) -> list[str]:
    """Each document's URL, "" where its metadata has none."""
    return [_url(metadata) for metadata in batch["metadata"].to_pylist()]


def _url(metadata: str | None) -> str:
    # Most metadata without a URL need not be parsed.
    if metadata is None or ('"url"' not in metadata and '"WARC-Target-URI"' not in metadata):
        return ""
    values = orjson.loads(metadata)
    inner = values.get("meta")
    candidates = (values.get("url"), values.get("WARC-Target-URI"), inner.get("url") if isinstance(inner, dict) else None)
    return next((each for each in candidates if isinstance(each, str) and each), "")


def _place(address: str) -> str:
    """What stands between `//` and the next `/`, `?` or `#`; "" for what is no URL."""
    try:
        return urlsplit(address).netloc
    except ValueError:  # such as brackets that do not close
        return ""


def _host(address: str) -> str:
    return _PORT.sub("", _place(address).rpartition("@")[2]).lower().removeprefix("www.")


@lru_cache(maxsize=16)
def _entries(files: tuple[Path, ...]) -> frozenset[str]:
    lines = (line.strip().lower() for path in files for line in path.read_text(encoding="utf-8-sig").splitlines())
    entries = frozenset(line for line in lines if line)
    if not entries:
        raise PipelineError(f"{', '.join(map(str, files))}: a block list without entries; fill it, or leave it out of the recipe")
    return entries


@lru_cache(maxsize=16)
def _pattern(files: tuple[Path, ...], bounded: bool) -> re.Pattern[str]:
    words = _any_of(_entries(files))
    return re.compile(rf"\b(?:{words})\b" if bounded else words, re.IGNORECASE)


def _any_of(words: Iterable[str]) -> str:
    """A regular expression for the longest of the words, in which words of one beginning share it.

    A plain alternation would try every word at every place.
    """
    tree: dict[str, Any] = {}
    for word in words:
        node = tree
        for character in word:
            node = node.setdefault(character, {})
        node[""] = {}
    return _branches(tree)


def _branches(node: dict[str, Any]) -> str:
    longer = [re.escape(character) + _branches(node[character]) for character in sorted(node) if character]
    if not longer:
        return ""
    together = longer[0] if len(longer) == 1 and "" not in node else f"(?:{'|'.join(longer)})"
    return together + "?" if "" in node else together
