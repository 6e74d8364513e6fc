"""DCLM's mappers (mlfoundations/dclm, baselines/mappers) on each document: see side.py.

Runs in a checkout's folder with its libraries (golden.py). The steps and their parameters are those of
baselines_configs/dclm_baseline_refinedweb.yaml, read from the checkout, in their order and without those on URLs and
language, which need lists and a model: `refinedweb:reason` is the first step that does not give the document back. All rules
are also asked of every document as it is, and the line modifiers of what the modifiers before the rules leave of it.
"""

import hashlib
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tools.curation import side
from tools.curation.witness import Witnesses

Page = dict[str, Any]
Step = Callable[[Page], "list[Page]"]

checkout = Path(os.environ["DCLM"])
os.chdir(checkout)  # a mapper opens baselines/mappers/iana_tlds.txt
sys.path[:0] = [str(checkout), str(checkout / "baselines")]


class Absent(types.ModuleType):
    """A library that the mappers' modules import and that nothing here calls: of other steps, or of DCLM's own readers."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


for library in (
    "boto3", "bs4", "cloudpathlib", "jsonlines", "justext", "kenlm", "langdetect", "lxml", "lxml.etree", "sentencepiece", "transformers",
    "unidecode", "zstandard",
):  # fmt: skip
    sys.modules[library] = Absent(library)

from baselines.core.factories import get_mapper  # noqa: E402
from baselines.mappers.filters import content_filters  # noqa: E402

LEFT_OUT = {"move_url_modifier", "url_substring_filter", "detect_lang_whole_page_enricher", "language_filter"}
PREPARE = ("url_removal_modifier", "newline_removal_modifier")
COUNTER = "word_counter_enricher"
# A limit of each rule, and the value that is compared with it.
LIMITS = {
    "page_length_filter": ("min_length", "words"),
    "word_length_filter": ("min_length", "mean_word_length"),
    "symbol_ratio_filter": ("max_symbol_to_word_ratio", "symbols"),
    "bullet_count_filter": ("max_bullet_start_ratio", "bullet_lines"),
    "ellipsis_count_filter": ("max_ellipsis_end_ratio", "ellipsis_lines"),
    "alphabetic_word_ratio_filter": ("max_ratio", "non_alphabetic_words"),
    "stop_word_filter": ("min_stop_word", "stop_words"),
}
REPETITION: dict[tuple[str | int, bool], str] = {("line", False): "duplicate_lines", ("paragraph", False): "duplicate_paragraphs"}
REPETITION |= {("line", True): "duplicate_line_characters", ("paragraph", True): "duplicate_paragraph_characters"}
REPETITION |= {(n, True): f"top_{n}_gram" if n < 5 else f"duplicate_{n}_grams" for n in range(2, 11)}

[pipeline] = yaml.safe_load((checkout / "baselines/baselines_configs/dclm_baseline_refinedweb.yaml").read_text())
declared = [step for step in pipeline["steps"] if step["func"] not in LEFT_OUT]
steps: list[tuple[str, Step]] = [(step["func"], get_mapper(**step)) for step in declared]
names = [name for name, _ in steps]
rules = steps[len(PREPARE) : names.index(COUNTER)]
edits = steps[names.index(COUNTER) : -1]
witness = Witnesses()


def prepared(text: str) -> str:
    page: Page = {"text": text}
    for name, step in steps:
        if name in PREPARE and not step(page):
            return ""
    return str(page["text"])


def reason(text: str) -> str | None:
    """The first step that does not give the page back."""
    page: Page = {"text": text}
    return next((name for name, step in steps if not step(page)), None)


def first_rule(text: str) -> str | None:
    return next((name for name, step in rules if not step({"text": text})), None)


def values(text: str) -> dict[str, Any]:
    found: dict[str, Any] = {"rules:reason": first_rule(text), "refinedweb:reason": reason(text)}
    found |= {f"drops:{name}": float(not step({"text": text})) for name, step in rules}
    for name, (limit, value) in LIMITS.items():
        [parameters] = [step for step in declared if step["func"] == name]
        others = {key: parameters[key] for key in parameters if key not in (limit, "max_length")}
        mapper = get_mapper(**others, **{limit: witness(value)})
        found |= witness.listen(lambda mapper=mapper: mapper({"text": text}))  # type: ignore[misc]
    cache: dict[str, Any] = {}
    for (granularity, characters), value in REPETITION.items():
        found |= witness.listen(
            lambda granularity=granularity, characters=characters, value=value: content_filters.repetition_filter(  # type: ignore[misc]
                {"text": text}, granularity, witness(value), count_characters=characters, cache=cache
            )
        )
    text = prepared(text)
    return found | {"refinedweb:prepared": _hash(text)} | _edited(text)


def _edited(text: str) -> dict[str, Any]:
    """The text's hash after the line modifiers, and the share of words that they took; nothing where a modifier gives up."""
    page: Page = {"text": text}
    if not all(step(page) for _, step in edits):
        return {}
    mapper = get_mapper(**{**declared[-1], "max_removed_ratio": witness("refinedweb:removed_words")})
    return {"refinedweb:edited": _hash(page["text"])} | witness.listen(lambda: mapper(page))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def every_rule(text: str) -> None:
    for _, step in rules:
        step({"text": text})


def every_step(text: str) -> None:
    """All rules and all line modifiers, of the prepared text."""
    text = prepared(text)
    every_rule(text)
    page: Page = {"text": text}
    all(step(page) for _, step in steps[names.index(COUNTER) :])


FILTERS = {"gopher-dclm": side.FilterSet(first_rule, every_rule), "refinedweb": side.FilterSet(reason, every_step)}

if __name__ == "__main__":
    side.main(values, FILTERS)
