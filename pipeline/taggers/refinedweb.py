"""RefinedWeb's edits of pages (Penedo et al., arXiv:2306.01116, appendix G) as DCLM's page modifiers make them.

Three prepare a page before anything is counted; one takes lines out of it at the end and says what that costs in words
(DCLM @361714b, baselines/mappers/modifiers.py; limits: baselines_configs/dclm_baseline_refinedweb.yaml).
mixes/filters/refinedweb.yaml puts them in DCLM's order.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import Model
from pipeline.recipe import SamplePackage, Text
from pipeline.taggers import SPANS, Batch, Result, tagger
from pipeline.taggers.kinds import kind

if TYPE_CHECKING:
    from pipeline.text.web_addresses import Tree

MOST_NEWLINES = 2  # newline_removal_modifier's max_consecutive


class WebAddresses(Model):
    """domains: a file of top-level domains, in lower case, one a line."""

    domains: Text | SamplePackage


@kind(
    "web_addresses",
    settings=WebAddresses,
    reads=("text",),
    columns=lambda name, settings: {},
    files=("domains",),
    tables={"spans": SPANS},
)
def web_addresses(batch: Batch, name: str, settings: WebAddresses, files: Mapping[str, list[Path]]) -> Result:
    """No columns; as `spans` addresses of web pages, such as "https://a.org/b" and "a.org", and whitespace before them.

    DCLM's url_removal_modifier looks for them only in pages that begin with a top-level domain, in any case; "In short" and
    "This" do. So does this. The expression is in web_addresses.py.
    """
    from pipeline.text import lines
    from pipeline.text import web_addresses as native

    domains = _domains(tuple(files["domains"]))
    openings = pc.utf8_slice_codeunits(batch["text"], 0, domains.longest).to_pylist()
    wanted = np.fromiter((domains.begins(opening) is not None for opening in openings), np.bool_, len(openings))
    data, offsets = batch.utf8
    found = native.addresses(data, offsets, wanted, domains.tree)
    return {}, {"spans": lines.span_table(offsets, found, ["web_address"])}


class _Domains:
    def __init__(self, names: list[str]) -> None:
        from pipeline.text.web_addresses import tree_of

        self.tree: Tree = tree_of(names)
        self.longest = max(map(len, names), default=0)
        by_letter: dict[str, list[str]] = {}
        for name in names:
            by_letter.setdefault(name[0], []).append(re.escape(name[1:]))
        groups = (f"{re.escape(letter)}(?:{'|'.join(rests)})" for letter, rests in by_letter.items())
        self.begins = re.compile("|".join(groups) or r"(?!)", re.I).match


@lru_cache(maxsize=4)
def _domains(paths: tuple[Path, ...]) -> _Domains:
    return _Domains([name for path in paths for name in path.read_text("utf-8").split()])


@tagger(columns={}, reads=("text",), tables={"spans": SPANS})
def refinedweb_ip_addresses(batch: Batch) -> Result:
    """No columns; as `spans` addresses such as "http://192.168.0.1:80/x" and "1.2.3.4", and whitespace before them."""
    from pipeline.text import lines, web_addresses

    found = web_addresses.ip_addresses(*batch.utf8)
    return {}, {"spans": lines.span_table(batch.utf8[1], found, ["ip_address"])}


@tagger(columns={}, reads=("text",), tables={"spans": SPANS})
def refinedweb_newlines(batch: Batch) -> Result:
    """No columns; as `spans` all but the first two of a run of "\\n"."""
    from pipeline.text import lines, web_addresses

    found = web_addresses.excess_newlines(*batch.utf8, MOST_NEWLINES)
    return {}, {"spans": lines.span_table(batch.utf8[1], found, ["newlines"])}


@tagger(columns={"refinedweb_removed_word_share": pa.float64()}, reads=("text",), tables={"spans": SPANS})
def refinedweb_lines(batch: Batch) -> Result:
    """As `spans` the lines that go, and in lines of at most 10 words three phrases; the share of words in them.

    A line, between "\\n", goes by the first of these rules: more than half of its characters are upper case; all are digits
    (a share over 0.999999); it is a counter such as "3 likes"; it has fewer than 2 words of `str.split()`, though an empty
    line stays; nothing is left of it without "items in cart", "Read more" and three characters at its end, or "Sign-in" at
    its beginning. Whitespace at the page's ends goes too.
    refinedweb_removed_word_share: of the words that gopher_dclm_words counts; 1 for a page without words, or without
    lines in the end, such as an empty one. Less than 0 if a no-break space before a word is gone.
    """
    from pipeline.text import lines, refinedweb_lines

    data, offsets = batch.utf8
    found = lines.split(data, offsets)
    judged = refinedweb_lines.judge(batch["text"], data, found)
    spans = lines.merged(lines.joined(data, found, judged.kept), judged.cut)
    before, after = judged.words.T
    share = np.where(before > 0, (before - after) / np.maximum(before, 1), 1.0)
    return {"refinedweb_removed_word_share": share}, {
        "spans": lines.span_table(offsets, spans, refinedweb_lines.RULES, judged.replacements)
    }
