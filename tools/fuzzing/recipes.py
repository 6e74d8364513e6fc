"""Targets: the declarations under `mixes/`, and what stands in them.

What must hold beside the common promises (target.py): an error about a YAML file begins with the file and a line of it; what loads
can be used: shares add up to 1, failures allowed are a number of records, every predicate decides a batch.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pyarrow as pa

from pipeline.errors import ConfigError
from pipeline.recipe import LocalTokenizer, load_mix, load_source, load_tokenizer
from pipeline.rules import load_filter
from pipeline.taggers import column_types
from pipeline.taggers.predicates import check_predicates, decide
from tools.fuzzing import tokens
from tools.fuzzing.layers import sha256
from tools.fuzzing.target import Parts, Target, must

WATCHED = (
    "pipeline.config", "pipeline.recipe", "pipeline.rules", "pipeline.dedupe.methods", "pipeline.taggers.kinds",
    "pipeline.taggers.predicates", "pipeline.sql",
)  # fmt: skip
YAML_BYTES = 4096  # PyYAML reads some 100 KB a second
SOURCE = b"""# A source with everything that a source may have.
name: fuzz
title: "Pages, of the web"
licence: ODC-BY
hub: {repo: a/b, revision: 9fc30b57, files: ["data/*/x-*.parquet"], exclude: ["old/*"], gated: true, terms: "https://x", notes: [known]}
published: {documents: 78.7M, bytes: 325GB, tokens: 101B}
fields: {id: [id, metadata.record], text: [text, content], created: [created], added: [added]}
failure_budget: 0.1%
filters: [english, gopher-dolma]
attributes:
  listed: {kind: listed_words, files: [words.txt]}
drop:
  few_stars: stars < 2
  repetition: token_repeats >= 32 OR top_word_share > 0.30
edit: [c4_lines]
dedupe: exact
validation: {share: 0.5%, documents: 8}
sample:
  - package: "pypi:lxml==6.1.3"
    file: lxml-6.1.3.tar.gz
    sha256: 45222d94ddd511536f3b2f7d9deae3b2339b4ce0f075f1ca25703b07cad9dd21
    licence: BSD-3-Clause
    members: ["*/src/*.py"]
    reader: code
"""
PLAIN_SOURCE = b"""name: fuzz
title: t
licence: CC0
drop: {short: unicode_words < 25}
dedupe: [exact, {near: {similarity: 0.8}}]
failure_budget: 3
"""
FILTER = b"""name: fuzz
title: t
origin: o
prepare: []
drop:
  few: gopher_dolma_words < 50
  other: >-
    language = 'en' AND NOT (words > 3)
"""
MIX = b"""name: fuzz
description: for tests
tokenizer: {file: tiny.json, eos_token: '<|endoftext|>'}
sequence_length: 4_096
seed: 7
tokens: 5.133T
epochs: 1.3
dedupe_across: true
sources:
  one: {weight: 3.86T, repeats: 2, max_repeats: 3}
  two: {weight: 15}
"""
SPEC = b"""name: fuzz
hub: {repo: a/b, file: tokenizer.json, revision: main}
sha256: 9ad33b4b39a9f83973c3f8c42a01948dd5b877a28ac9a5356956c4ff4ed0b714
vocab_size: 50280
eos: 50279
eos_token: "<|endoftext|>"
pad: 1
"""
TOKENIZER = b"""{"version": "1.0", "added_tokens": [{"id": 2, "content": "<|endoftext|>", "special": true}], "normalizer": {"type": "NFC"},
"model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}}"""
PREDICATES = [
    b"stars < 2",
    b"language = 'en' AND NOT (words > 3 OR top_word_share BETWEEN 0.1 AND 0.2)",
    b"CASE WHEN words IN (1, 2) THEN true ELSE coalesce(stars, 0) > 1 END",
    b"regexp_full_match(language, '[a-z]+') IS NULL",
]


def targets() -> list[Target]:
    return [
        _yaml("recipe.source", "sources/fuzz.yaml", [SOURCE, PLAIN_SOURCE], _source),
        _yaml("recipe.filter", "filters/fuzz.yaml", [FILTER], lambda folder: load_filter("fuzz", folder)),
        _yaml("recipe.mix", "fuzz.yaml", [MIX], _mix),
        _yaml("recipe.tokenizer", "tokenizers/fuzz.yaml", [SPEC], lambda folder: load_tokenizer("fuzz", folder)),
        Target("recipe.tokenizer_json", [(TOKENIZER,)], _tokenizer, WATCHED),
        Target("predicate", [(sql,) for sql in PREDICATES], _predicate, WATCHED, tokens.SQL),
    ]


def _yaml(name: str, file: str, seeds: list[bytes], load: Callable[[Path], object]) -> Target:
    """What one YAML file among whole ones declares."""

    def run(parts: Parts, folder: Path) -> list[str]:
        for source in ("one", "two"):
            _write(folder / "sources" / f"{source}.yaml", PLAIN_SOURCE.replace(b"fuzz", source.encode()))
        _write(folder / "sources" / "words.txt", b"word\n")
        _write(folder / file, parts[0])
        try:
            found = load(folder)
        except ConfigError as error:
            for line in str(error).splitlines()[:1]:
                must(re.match(r".*fuzz\.yaml:\d+: ", line) is not None, "an error without file and line")
            raise
        return [type(found).__name__, sha256(repr(found).replace(str(folder), "").encode("utf-8", "surrogatepass"))]

    return Target(name, [(seed,) for seed in seeds], run, WATCHED, tokens.YAML, limit=YAML_BYTES)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)


def _source(folder: Path) -> object:
    source = load_source("fuzz", folder)
    must(source.failures_allowed(10**9) >= 0, "a number of failures below 0")
    return source


def _mix(folder: Path) -> object:
    mix = load_mix("fuzz", folder)
    must(sum(mix.shares.values(), Fraction(0)) == 1, "shares that do not add up to 1")
    must(all(source.cap > 0 for source in mix.sources.values()), "a source that is never read")
    return mix


def _tokenizer(parts: Parts, folder: Path) -> list[str]:
    (folder / "fuzz.json").write_bytes(parts[0])
    spec = load_tokenizer(LocalTokenizer(file="fuzz.json", eos_token="<|endoftext|>"), folder)
    must(0 <= spec.eos < spec.vocab_size, "an end-of-text token outside the vocabulary")
    return [repr(spec).replace(str(folder), "")]


def _predicate(parts: Parts, folder: Path) -> list[str]:
    sql = parts[0].decode("utf-8", "replace")
    check_predicates({"rule": sql})
    types = column_types()
    table = pa.table({name: pa.array([None] * 3, type_) for name, type_ in types.items()})
    return [str(decide(table, {"rule": sql})["dropped_by"].to_pylist())]
