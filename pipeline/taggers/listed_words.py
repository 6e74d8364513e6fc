"""Whether a text has a word or phrase of a list, as Dolma's C4 taggers look for those that C4 calls bad."""

import sys
from collections.abc import Mapping
from functools import cache, lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import Model
from pipeline.errors import PipelineError
from pipeline.recipe import SamplePackage, Text
from pipeline.taggers import Batch, Values
from pipeline.taggers.kinds import kind


class ListedWords(Model):
    """words: a file with a word or phrase on each line, in lower case; a phrase is one with a space in it."""

    words: Text | SamplePackage


@kind("listed_words", settings=ListedWords, reads=("text",), columns=lambda name, settings: {name: pa.bool_()}, files=("words",))
def listed_words(batch: Batch, name: str, settings: ListedWords, files: Mapping[str, list[Path]]) -> Values:
    """<name>: whether a word of `str.split()` is on the list, or a phrase of it is anywhere in the text, even within words.

    The text is taken in lower case. (Greek's final sigma is no other letter than σ here.) False for an empty text.
    Dolma 1.2.1, taggers/c4.py; it splits nothing off a word, so "word." with its full stop is another one.
    """
    return {name: pc.match_substring_regex(batch["text"], _pattern(tuple(files["words"])))}


@lru_cache(maxsize=4)
def _pattern(paths: tuple[Path, ...]) -> str:
    """The list as one regular expression."""
    entries = sorted({entry for path in paths for entry in path.read_text("utf-8").splitlines() if entry.strip()})
    if not entries:
        raise PipelineError(f"{', '.join(map(str, paths))}: no words; put one on each line")
    space = _one_of([chr(code) for code in range(sys.maxunicode) if chr(code).isspace()])
    words = "|".join(_in_any_case(entry) for entry in entries if " " not in entry)
    phrases = "|".join(_in_any_case(entry) for entry in entries if " " in entry)
    return "|".join(filter(None, [words and rf"(?:\A|{space})(?:{words})(?:\z|{space})", phrases]))


def _in_any_case(entry: str) -> str:
    """What is `entry` in lower case. "İ" becomes an i and a dot above it, which a phrase may end between."""
    *head, last = ([character, *_capitals().get(character, [])] for character in entry)
    if " " in entry and entry.endswith("i"):
        last.append("İ")
    return "".join(map(_one_of, [*head, last]))


@cache
def _capitals() -> dict[str, list[str]]:
    """Character → the others that are that one in lower case."""
    capitals: dict[str, list[str]] = {"ς": ["Σ"]}
    for character in map(chr, range(sys.maxunicode + 1)):
        if character.lower() != character:
            capitals.setdefault(character.lower(), []).append(character)
    return capitals


def _one_of(characters: list[str]) -> str:
    return "[" + "".join(rf"\x{{{ord(character):x}}}" for character in characters) + "]"
