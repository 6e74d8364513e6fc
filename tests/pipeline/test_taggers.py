"""Taggers: their values against plain Python, and what happens to one that breaks its promise."""

import itertools
import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from uniseg.wordbreak import words as uniseg_words

from pipeline import taggers
from pipeline.errors import PipelineError
from pipeline.taggers import TAGGERS, Batch, Tagger, needed, tag, tagger
from pipeline.taggers.predicates import columns_of
from pipeline.text import utf8

SPACES = [chr(code) for code in range(0x110000) if chr(code).isspace()]
texts_of = st.lists(
    st.lists(st.sampled_from(["a", "The", "WITH", "é", "漢字", "😀", "ß", "0", ",", "\n", " ", *SPACES]), max_size=30).map("".join)
    | st.text(max_size=20),
    max_size=6,
)


def batch_of(*texts: str, metadata: list[str | None] | None = None) -> Batch:
    columns = {
        "text": pa.array(texts, pa.large_string()),
        "source": ["wiki"] * len(texts),
        "file": ["a.jsonl"] * len(texts),
        "row": pa.array(range(10, 10 + len(texts)), pa.int64()),
    }
    return Batch(pa.table(columns if metadata is None else {**columns, "metadata": pa.array(metadata, pa.string())}))


def run(name: str, batch: Batch) -> dict[str, list]:
    return tag([TAGGERS[name]], batch).to_pydict()


def share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


@settings(deadline=None)  # the first call compiles
@given(texts_of)
def test_length_counts_as_python_strings_do(texts: list[str]) -> None:
    got = run("length", batch_of(*texts))
    lines = [text.split("\n") for text in texts]
    assert got["characters"] == [len(text) for text in texts]
    assert got["words"] == [len(text.split()) for text in texts]
    assert got["mean_word_length"] == [share(len("".join(text.split())), len(text.split())) for text in texts]
    assert got["lines"] == [len(pieces) - (pieces[-1] == "") for pieces in lines]
    assert got["longest_line"] == [max(map(len, pieces)) for pieces in lines]


@settings(deadline=None)  # the first call compiles
@given(texts_of)
def test_top_words_are_those_of_a_counter(texts: list[str]) -> None:
    got = run("words", batch_of(*texts))
    tops = [[count for _, count in Counter(text.split()).most_common(2)] for text in texts]
    assert got["top_word_share"] == [share(sum(top[:1]), len(text.split())) for top, text in zip(tops, texts, strict=True)]
    assert got["top_two_words_share"] == [share(sum(top), len(text.split())) for top, text in zip(tops, texts, strict=True)]


@settings(deadline=None)  # the first call compiles
@given(texts_of)
def test_language_counts_as_python_strings_do(texts: list[str]) -> None:
    got = run("language", batch_of(*texts))
    stop = {"the", "be", "to", "of", "and", "that", "have", "with"}
    assert got["ascii_share"] == [share(sum(map(str.isascii, text)), len(text)) for text in texts]
    assert got["alphabetic_share"] == [share(sum(map(str.isalpha, text)), len(text)) for text in texts]
    assert got["english_stop_words"] == [sum(word.lower() in stop for word in text.split()) for text in texts]


def test_latin_letters_are_told_from_others() -> None:
    got = run("language", batch_of("Ünïcode ĳ ﬁ Ｗ", "слово", "ab βγ", "123 !", ""))
    assert got["latin_share"] == [1.0, 0.0, 0.5, 0.0, 0.0]


def test_words_of_many_sizes_are_told_apart_in_one_long_text_and_forgotten_after_it() -> None:
    many = [f"w{n}" for n in range(30_000)] + ["w29999"] * 3 + ["w0"] * 2
    got = utf8.word_counts(*batch_of(" ".join(many), "w0 w1", "").utf8)
    assert got.tolist() == [[30_005, 4, 3], [2, 1, 1], [0, 0, 0]]


def test_words_of_one_hash_are_two_words() -> None:
    pair = "8yn0iYCKYHlIj4-BwPqk GReLUrM4wMqfg9yzV3KQ"  # these two collide in 64-bit FNV-1a
    assert utf8.word_counts(*batch_of(f"{pair} {pair} x").utf8).tolist() == [[5, 2, 2]]


def test_starcoder_rules_see_the_shares_they_are_about() -> None:
    got = run("words", batch_of("x x x y y z z z z z"))
    assert got == {"top_word_share": [0.5], "top_two_words_share": [0.8]}


def unicode_words(text: str) -> int:
    return sum(1 for word in uniseg_words(text) if word.strip())


def test_unicode_words_of_ascii_are_those_of_uniseg() -> None:
    # One of each class that UAX #29 tells apart in ASCII, in all orders.
    texts = ["".join(text) for size in range(1, 5) for text in itertools.product("a1_'.:,(", repeat=size)]
    texts += [f"a{chr(mark)}b 1{chr(mark)}2" for mark in range(128)]
    assert run("unicode_words", batch_of(*texts))["unicode_words"] == [unicode_words(text) for text in texts]


@given(st.lists(st.sampled_from([*"a1_'.:,", "\u0308", "\u200d", "\u00ad", "😀", "🇫", "א", '"', "ァ", "漢", "\r", *SPACES]), max_size=9))
@example(["10", "\u202f", "000"])
@example(["a", "\u2003", "\u0308", "b"])
def test_unicode_words_of_pieces_are_those_of_the_whole(pieces: list[str]) -> None:
    text = "".join(pieces)
    assert run("unicode_words", batch_of(text))["unicode_words"] == [unicode_words(text)]


def test_unicode_words_count_as_the_25_word_rule_does() -> None:
    text = 'Ada Lovelace\n\nShe didn\'t "compute" 3.14 in 1843; Babbage\u2019s engine would have.'
    # 2 + She didn't " compute " 3.14 in 1843 ; Babbage's engine would have .
    assert run("unicode_words", batch_of(text, " \n\t"))["unicode_words"] == [16, 0]


@pytest.mark.parametrize(
    "value, stars",
    [(24, 24), (24.0, 24), ("24", 24), ("24.0", 24), (0, 0), (None, 0), ("None", 0), ("", 0), ("null", 0), ("nan", 0)],
)
def test_stars_of_every_spelling_are_a_number(value: object, stars: int) -> None:
    assert run("stars", batch_of("x", metadata=[json.dumps({"max_stars_count": value})])) == {"stars": [stars]}


def test_missing_stars_are_zero() -> None:
    metadata = ["{}", None, '{"stars": 5}', '{"note": "max_stars_count"}']
    assert run("stars", batch_of(*"abcd", metadata=metadata)) == {"stars": [0, 0, 0, 0]}


@pytest.mark.parametrize("value", ["many", -1, 2.5, True, [3], {"n": 3}, "-4"])
def test_stars_that_are_no_number_stop_the_run_and_name_the_document(value: object) -> None:
    metadata = ['{"max_stars_count": 1}'] * 5 + [json.dumps({"max_stars_count": value})]
    with pytest.raises(PipelineError, match=r"tagger stars failed on wiki, a\.jsonl row 15: "):
        run("stars", batch_of(*"abcdef", metadata=metadata))


def test_repetition_reads_the_tokens_given() -> None:
    tokens = np.array([5] * 33 + [1, 2, 3], dtype=np.uint16)
    batch = Batch(batch_of("a", "b", "").table, tokens=(tokens, np.array([0, 33, 36, 36])))
    assert run("repetition", batch) == {"token_repeats": [33, 1, 0]}
    assert tag([TAGGERS["repetition"]], batch.slice(1, 3)).to_pydict() == {"token_repeats": [1, 0]}


def test_repetition_without_tokens_says_so() -> None:
    with pytest.raises(PipelineError, match="token ids were not given"):
        run("repetition", batch_of("a"))


def test_tokens_of_another_batch_are_refused() -> None:
    with pytest.raises(PipelineError, match="2 documents, but token offsets for 1"):
        Batch(batch_of("a", "b").table, tokens=(np.zeros(3, np.uint16), np.array([0, 3])))


@settings(deadline=None)  # the first call compiles
@given(texts_of, st.data())
def test_a_part_of_a_batch_has_the_values_of_the_whole(texts: list[str], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(texts)))
    stop = data.draw(st.integers(start, len(texts)))
    each = [TAGGERS[name] for name in ("length", "words", "language", "unicode_words")]
    batch = batch_of(*texts)
    assert tag(each, batch.slice(start, stop)).equals(tag(each, batch).slice(start, stop - start))


def test_columns_in_pieces_and_short_strings_are_read_alike() -> None:
    pieces = pa.table({"text": pa.chunked_array([["a b", "c"], [], ["d e f"]], pa.string())})
    assert run("length", Batch(pieces))["words"] == [2, 1, 3]


def test_a_record_batch_that_begins_inside_its_buffers_is_read_from_there() -> None:
    rows = pa.record_batch({"text": pa.array(["a b", "c", "d e f"], pa.large_string())}).slice(1)
    assert run("length", Batch(rows))["words"] == [1, 3]
    assert run("length", Batch(rows).slice(1, 2))["words"] == [3]


def test_a_source_gets_the_default_taggers_and_those_its_predicates_name() -> None:
    names = [each.name for each in needed(columns_of("stars < 2 OR TOP_WORD_SHARE > 0.3 or tokens > 9"))]
    assert names == ["length", "repetition", "stars", "words"]
    assert [each.name for each in needed(set())] == ["length", "repetition"]


def test_reading_the_registry_does_not_import_numba() -> None:
    code = "import sys, pipeline.taggers as t; t.needed({'stars'}); sys.exit('numba' in sys.modules or 'uniseg' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture
def registry() -> Iterator[None]:
    before = dict(TAGGERS)
    yield
    TAGGERS.clear()
    TAGGERS.update(before)


def tagger_that_gives(values: object) -> Tagger:
    return Tagger("odd", {"odd": pa.int64()}, ("text",), 1, lambda batch: {"odd": values})


@pytest.mark.parametrize(
    "values, complaint",
    [
        (np.zeros(2, dtype=np.int32), "column odd is int32 and should be int64"),
        (np.zeros(2), "column odd is double and should be int64"),
        (np.zeros(3, dtype=np.int64), "column odd has 3 values for 2 documents"),
        (pa.array([1, None], pa.int64()), "column odd has a null or NaN"),
    ],
)
def test_a_tagger_that_gives_other_than_promised_is_named_with_its_column(values: object, complaint: str) -> None:
    with pytest.raises(PipelineError, match=f"tagger odd failed on wiki, a.jsonl rows? 10( to 11)?: {complaint}"):
        tag([tagger_that_gives(values)], batch_of("a", "b"))


def test_a_tagger_that_gives_nan_or_other_columns_is_named() -> None:
    nan = Tagger("odd", {"odd": pa.float64()}, ("text",), 1, lambda batch: {"odd": np.full(len(batch), np.nan)})
    with pytest.raises(PipelineError, match="null or NaN"):
        tag([nan], batch_of("a"))
    with pytest.raises(PipelineError, match=r"returned the columns \['odd'\] and had promised \['even'\]"):
        tag([Tagger("odd", {"even": pa.int64()}, (), 1, lambda batch: {"odd": [1]})], batch_of("a"))


def test_an_error_inside_a_tagger_names_tagger_and_the_single_document() -> None:
    def fails(batch: Batch) -> dict[str, np.ndarray]:
        return {"odd": np.array([1 // (text != "bad") for text in batch.texts])}

    odd = Tagger("odd", {"odd": pa.int64()}, ("text",), 1, fails)
    with pytest.raises(PipelineError, match=r"tagger odd failed on wiki, a\.jsonl row 13: ZeroDivisionError"):
        tag([odd], batch_of("a", "b", "c", "bad", "d"))


def test_names_and_columns_cannot_be_taken_twice(registry: None) -> None:
    def length(batch: Batch) -> dict[str, np.ndarray]:
        return {}

    def other(batch: Batch) -> dict[str, np.ndarray]:
        return {}

    with pytest.raises(ValueError, match="two taggers are called length"):
        tagger(columns={"fresh": pa.int64()}, reads=("text",))(length)
    with pytest.raises(ValueError, match="column words is length's already"):
        tagger(columns={"words": pa.int64()}, reads=("text",))(other)
    with pytest.raises(ValueError, match="column tokens is every document's already"):
        tagger(columns={"tokens": pa.int64()}, reads=("text",))(other)
    with pytest.raises(ValueError, match="Fresh"):
        tagger(columns={"Fresh": pa.int64()}, reads=("text",))(other)
    with pytest.raises(ValueError, match="reads \\['txt'\\]"):
        tagger(columns={"fresh": pa.int64()}, reads=("txt",))(other)
    tagger(columns={"fresh": pa.int64()}, reads=("text",), version=3)(other)
    assert TAGGERS["other"].version == 3 and taggers.owner_of("fresh") == "other"


POOLS = [
    "abcXYZ019_'.:,;\"-—–“”’‘·é…ü",
    "абв’·.:1",
    "漢字かなカー々",
    "\u0301\u200d\u00ad👩👧🇩🇪🏽",
    "אבג\"'",
    "مرحبا١٢",
    "\u202fa1",
    "ǅʼ\u2060ºª²ⅷ",
]


def test_words_of_mixed_scripts_are_those_of_uniseg() -> None:
    rng = random.Random(5)
    texts = []
    for _ in range(4_000):
        pool = "".join(rng.choice(POOLS) for _ in range(rng.randrange(1, 4))) + " "
        texts.append("".join(rng.choice(pool) for _ in range(rng.randrange(1, 30))))
    expected = [sum(not word.isspace() for word in uniseg_words(text)) for text in texts]
    assert run("unicode_words", batch_of(*texts))["unicode_words"] == expected
