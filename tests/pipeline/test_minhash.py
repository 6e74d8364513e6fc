"""MinHash band hashes against sets of shingles made in plain Python, and the probabilities that the theory promises."""

import random
import unicodedata
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.config import Document
from pipeline.dedupe.methods import Near
from pipeline.dedupe.minhash import band_hashes
from pipeline.taggers import Batch, tag
from pipeline.taggers.kinds import configured

UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "HALFWIDTH KATAKANA")


def hashes(texts: list[str], near: Near | None = None) -> npt.NDArray[np.uint64]:
    batch = Batch(pa.table({"text": pa.array(texts, pa.string())}))
    return band_hashes(*batch.utf8, near or Near())


def words(text: str) -> list[str]:
    """The words of a text as the documentation of band_hashes has it."""
    simple = ""
    for character in text:
        category = unicodedata.category(character)
        if category[0] in "PSZ" or category == "Cc":
            simple += " "
        elif category not in ("Mn", "Me", "Cf"):
            lower = character.lower()
            base = [each for each in unicodedata.normalize("NFD", lower) if unicodedata.category(each) != "Mn"]
            letter = base[0] if len(base) == 1 else lower[0]
            alone = category[0] in "LM" and unicodedata.name(character, "").startswith(UNSPACED)
            simple += f" {letter} " if alone else letter
    return simple.split()


def shingles(text: str, ngram: int) -> frozenset[tuple[str, ...]]:
    found = words(text)
    if len(found) < ngram:
        return frozenset([tuple(found)] if found else [])
    return frozenset(tuple(found[start : start + ngram]) for start in range(len(found) - ngram + 1))


PIECES = [
    "a",
    "b",
    "A",
    "é",
    "e\u0301",
    "E",
    "ÿ",
    "Σ",
    "ς",
    "İ",
    "i",
    "ß",
    "漢",
    "字",
    "か",
    "が",
    "ｶ",
    "ก",
    "กำ",
    "ກ",
    "각",
    "각",
    "9",
    "٣",
    " ",
    "  ",
]
PIECES += [
    "\n",
    "\r\n",
    "\x00",
    "\x1c",
    "\x85",
    "\u2028",
    "\xa0",
    "\u200b",
    "\u200f",
    "\u00ad",
    ".",
    ",",
    "'",
    "_",
    "+",
    "€",
    "😀",
    "👩‍👩‍👧",
    "א",
    "ع",
]
PIECES += ["\u0903", "\u0915", "\ue000", "\U0010ffff", "\U00020000", "\U000e0041", "\U0002f800", "²", "Ⅷ", "ﬁ", "\u20dd"]
texts = st.one_of(st.lists(st.sampled_from(PIECES), max_size=12).map("".join), st.text(max_size=8))


@given(st.lists(texts, min_size=2, max_size=2), st.integers(1, 3))
@settings(max_examples=300, deadline=None)
def test_equal_exactly_where_the_sets_of_shingles_are(pair: list[str], ngram: int) -> None:
    # Sets of 13 that share 12 have 256 equal minima once in 10⁹ times.
    first, second = hashes(pair, Near(ngram=ngram, bands=2, rows=128))
    sets = [shingles(text, ngram) for text in pair]
    assert (list(first) == list(second)) == (sets[0] == sets[1])
    assert [bool(each.any()) for each in (first, second)] == [bool(each) for each in sets]
    assert [bool(each.all()) for each in (first, second)] == [bool(each) for each in sets]


def test_every_code_point_is_simplified_as_documented() -> None:
    # Between two letters, so that what separates is told from what vanishes and from what stays.
    points = [chr(code) for code in [*range(0xD800), *range(0xE000, 0x20000), *range(0x2F7F0, 0x2FA20), *range(0xDFFF0, 0xE0210)]]
    found = hashes([f"x{point}x" for point in points], Near(ngram=2, bands=1, rows=1))[:, 0]
    expected = hashes([" ".join(words(f"x{point}x")) for point in points], Near(ngram=2, bands=1, rows=1))[:, 0]
    assert (found == expected).all()
    by_words: dict[tuple[str, ...], int] = {}
    assert all(by_words.setdefault(tuple(words(f"x{point}x")), value) == value for point, value in zip(points, found.tolist(), strict=True))
    assert len(set(by_words.values())) == len(by_words)


@pytest.mark.parametrize(("first", "second"), [
    ("The quick, brown Fox -- jumps!", "the quick brown\n\nfox jumps"),
    ("naïve café Ångström", "nai\u0308ve cafe\u0301 ANGSTRÖM"),
    ("co\u00adoperate now\ufeff", "cooperate now"),
    ("don't stop_here", "DON T stop here"),
    ("one two three four five one two three four five", "one two three four five " * 9),
])  # fmt: skip
def test_spelling_and_spacing_do_not_matter(first: str, second: str) -> None:
    assert (hashes([first]) == hashes([second])).all()


@pytest.mark.parametrize(("first", "second"), [
    ("a b c d e", "a b c e d"), ("a b c d", "a b c d e"), ("page 2 of 3", "page 2 of 4"), ("ab", "a b"), ("漢字", "字漢"),
])  # fmt: skip
def test_words_and_their_order_matter(first: str, second: str) -> None:
    assert not (hashes([first]) == hashes([second])).any()


@pytest.mark.parametrize("text", ["", " ", "\n\r\n\t", "?!... --", "😀👍🏽", "\x00\x1c\x85\u2028", "\u200b\u00ad\u0301", "+-=$€"])
def test_a_text_without_words_has_no_signature(text: str) -> None:
    assert not hashes([text]).any()


@pytest.mark.parametrize(
    "text", ["x" * 20_000_000, "ab c " * 2_000_000, "漢" * 2_000_000, "שלום עולם " * 100_000], ids=lambda text: text[:5]
)
def test_a_long_text_of_one_line(text: str) -> None:
    unit = {"x": text, "a": "ab c " * 5, "漢": "漢" * 5}.get(text[0], "שלום עולם " * 5)
    assert (hashes([text]) == hashes([unit])).all() and hashes([text]).all()


def test_neighbours_do_not_matter() -> None:
    draw = random.Random(5)
    many = [" ".join(draw.choices(PIECES, k=draw.choice([0, 1, 3, 20, 1_500]))) for _ in range(40)]
    assert (hashes(many) == np.concatenate([hashes([text]) for text in many])).all()
    sliced = Batch(pa.table({"text": pa.array(many, pa.string())})).slice(7, 20)
    assert (band_hashes(*sliced.utf8, Near()) == hashes(many)[7:20]).all()
    assert hashes([]).shape == (0, 14)


def pair_of_similarity(shared: int, alone: int, draw: random.Random) -> list[str]:
    """Two texts of numbers, one word a shingle, of which `shared` are common and `alone` are only in one of them."""
    numbers = [str(draw.getrandbits(60)) for _ in range(shared + 2 * alone)]
    return [" ".join(numbers[: shared + alone]), " ".join(numbers[:shared] + numbers[shared + alone :])]


@pytest.mark.parametrize(("shared", "alone"), [(10, 45), (50, 25), (90, 5), (180, 10), (900, 50)])
def test_minima_agree_as_often_as_the_sets_overlap(shared: int, alone: int) -> None:
    draw, pairs, permutations = random.Random(shared), 200, 256
    similarity = shared / (shared + 2 * alone)
    texts = [text for _ in range(pairs) for text in pair_of_similarity(shared, alone, draw)]
    found = hashes(texts, Near(ngram=1, bands=permutations, rows=1))
    agree = (found[::2] == found[1::2]).mean(axis=1)
    variance = similarity * (1 - similarity) / permutations
    assert abs(agree.mean() - similarity) < 4 * (variance / pairs) ** 0.5  # no bias
    assert 0.7 < agree.var() / variance < 1.4  # the permutations are as good as independent


@pytest.mark.parametrize(("shared", "alone"), [(50, 25), (70, 15), (80, 10), (90, 5)])
def test_a_band_is_shared_as_often_as_the_formula_says(shared: int, alone: int) -> None:
    draw, pairs = random.Random(shared), 1_000
    similarity = shared / (shared + 2 * alone)
    found = hashes([text for _ in range(pairs) for text in pair_of_similarity(shared, alone, draw)], Near(ngram=1))
    expected = 1 - (1 - similarity**8) ** 14
    near = (found[::2] == found[1::2]).any(axis=1).mean()
    assert abs(near - expected) < 4 * (expected * (1 - expected) / pairs) ** 0.5


GOLDEN = [15691387106261326889, 178621669498838952, 14182981102543705927]


def test_seed_and_settings_change_the_hashes_and_nothing_else_does() -> None:
    text = ["It was the best of times, it was the worst of times."]
    base = hashes(text, Near(bands=3))
    assert base.tolist() == [GOLDEN]  # stored: finished work would not be done again if they changed unawares
    assert not (hashes(text, Near(bands=3, seed=2)) == base).any()
    assert not (hashes(text, Near(bands=3, rows=4)) == base).any()
    assert not (hashes(text, Near(bands=3, ngram=4)) == base).any()


@pytest.mark.parametrize("wrong", [{"bands": 0}, {"rows": 0}, {"ngram": 0}, {"bands": 1_000}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        Near(**wrong)


def test_a_recipe_names_the_column() -> None:
    document = Document(Path("x.yaml"), {}, {})
    attribute = configured("near", {"kind": "minhash", "bands": "4"}, Path(), document, ())
    texts = ["one two three four five six", "", "漢字"]
    found = tag([attribute.tagger({})], Batch(pa.table({"text": texts})))
    assert found.schema.field("near").type == pa.binary(32)
    expected = [row.astype("<u8").tobytes() for row in hashes(texts, Near(bands=4))]
    assert found["near"].to_pylist() == expected and expected[1] == bytes(32)
    assert tag([attribute.tagger({})], Batch(pa.table({"text": pa.array([], pa.string())}))).num_rows == 0
