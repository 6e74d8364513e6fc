"""Words: each of the three ways to split against the package that defines it, whatever the text."""

import random
from collections.abc import Callable
from functools import cache
from typing import get_args

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from spacy.tokenizer import Tokenizer
from uniseg.wordbreak import words as uniseg_words

from pipeline.errors import PipelineError
from pipeline.text import spacy_rules, words
from pipeline.text.words import Kind, Words, segment
from tests.pipeline.pages import DEGENERATE, MIXED, PROSE, SPACES, WEB, batch_of

KINDS: tuple[Kind, ...] = get_args(Kind)


@cache
def tokenizer() -> Tokenizer:
    import spacy

    return spacy.blank("en").tokenizer


def spacy_words(text: str) -> list[str]:
    return [token.text for token in tokenizer()(text) if not token.text.isspace()]


EXPECTED: dict[Kind, Callable[[str], list[str]]] = {
    "whitespace": str.split,
    "spacy": spacy_words,
    "unicode": lambda text: [word for word in uniseg_words(text) if not word.isspace()],
}


def split(texts: list[str], kind: Kind) -> list[list[str]]:
    """The words of each text, after a look at everything else that is said about them."""
    data, offsets = batch_of(texts).utf8
    found = segment(data, offsets, kind)
    strings = found.strings()
    pieces = [strings[number] for number in found.ids]
    places = zip(found.starts, found.starts + found.byte_lengths[found.ids], strict=True)
    assert [data[start:stop].tobytes().decode() for start, stop in places] == pieces
    assert found.lengths.tolist() == [len(string) for string in strings]
    assert len(set(strings)) == len(strings) == len(set(found.hashes.tolist()))
    return [pieces[start:stop] for start, stop in zip(found.offsets, found.offsets[1:], strict=False)]


def check(texts: list[str], kinds: tuple[Kind, ...] = KINDS) -> None:
    for kind in kinds:
        assert split(texts, kind) == [EXPECTED[kind](text) for text in texts]


# Characters that one of the rules is about, by the rules that they share.
POOLS = [
    "abXY09_'.:,;\"-—–“’…ü()[]{}<>/\\|+=*^~#$%&@!?",
    "абв’·.:1г/с",
    "漢字かなカー々。、",
    "a\u0301\u200d\u00ad👩👧🇩🇪🏽",
    "אבג\"'",
    "مرحبا١٢كم",
    "\u202fa1",
    "ǅʼ\u2060ºª²ⅷ°FCk.",
    "0123456789.kmg/h%$€US+-",
    "www.a.bc@d:80/x?#1_",
    "'s’S",
]
WHOLE = [
    "http://",
    "ftp://x:y@",
    "www.ex-am_ple.co.uk",
    ":8080",
    "/a-b?c=d",
    "U.S.A.",
    "e.g.",
    "can't",
    "'em",
    ":-)",
    "(:",
    "w/o",
    "5km/h",
    "US$",
]


def random_word(rng: random.Random) -> str:
    chance = rng.random()
    if chance < 0.3:
        return rng.choice(list(spacy_rules.exceptions()))
    if chance < 0.4:
        return rng.choice(WHOLE)
    if chance < 0.45:
        return chr(rng.choice([rng.randrange(0x3000), rng.randrange(0xD800), rng.randrange(0xE000, 0x110000)]))
    if chance < 0.55:
        return rng.choice(SPACES)
    pool = "".join(rng.choices(POOLS, k=rng.randrange(1, 4)))
    return "".join(rng.choices(pool, k=rng.randrange(1, 12)))


def test_words_of_made_up_texts_are_those_of_spacy_and_uniseg() -> None:
    rng = random.Random(8)
    check([rng.choice(["", "", " ", "\n", "  "]).join(random_word(rng) for _ in range(rng.randrange(1, 12))) for _ in range(1_500)])


def test_words_of_ordinary_and_degenerate_texts() -> None:
    check([WEB, MIXED, "\n".join(PROSE), *DEGENERATE])


@settings(deadline=None)  # the first call compiles
@given(st.lists(st.lists(st.sampled_from([*"".join(POOLS), *SPACES, *WHOLE]), max_size=20).map("".join) | st.text(max_size=20), max_size=5))
@example(["a\u2003 \u0308b", "a\n\u0308b", "a\t\t\u0308b", "\u0308", " \u202f \u202f\u0308"])
def test_words_of_any_text(texts: list[str]) -> None:
    check(texts)


def test_spacy_finds_torn_exceptions_along_the_text_but_not_across_blanks() -> None:
    # ")" and ":" are what affixes make of ":)" in front of "i.e."; the same two with a blank between them come first in the
    # first text, and no word is looked for twice.
    texts = [") :)i.e.", ":)i.e.", ")  :)i.e.", ")\n:)i.e.", "( (:", "1/w/o x", ":D:o )", "° c.Mr.", ": ) : ) :)x"]
    assert split(texts[:2], "spacy") == [[")", ":", ")", "i.e."], [":)", "i.e."]]
    check(texts, ("spacy",))


def test_addresses_are_one_word_where_spacy_takes_them_for_one() -> None:
    digits = "0 1 9 10 16 31 32 99 100 127 168 169 172 192 199 200 223 224 249 254 255 256 1٢ ٢ 1000".split()
    rng = random.Random(3)
    numbers = [".".join(rng.choices(digits, k=4)) for _ in range(2_000)] + [f"{a}.{b}.1.2" for a in digits for b in digits]
    hosts = "a.bc a_b.cd -a.bc a-.bc a..bc a.b a.bC a.b1.cd 日本.语言 x@a.bc @a.bc x:y@a.bc@d.ef h://a.bc ht://a.bc h_t.p+-://a.bc".split()
    hosts += ["x" * 64 + ".de", "x" * 65 + ".de", "a.b" + "c" * 62, "a.b" + "c" * 63, *numbers[:30]]
    tails = ["", ":8", ":80", ":80808", ":808080", ":٨٠", "/", "?-x", "#a-b", "/a-b", ":80/a-b", ":/a", "!"]
    # What is no address is cut at "=", if not before.
    check([f"{host}{tail}a=x" for host in hosts for tail in tails] + [f"{number}/a=x" for number in numbers], ("spacy",))


def long_texts(size: int) -> list[str]:
    return ["x" * 20 * size, "(" * 3 * size + "a" + ")." * size, "a.b:c@" * size]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.slow
def test_texts_of_20_megabytes_without_a_blank(kind: Kind) -> None:
    check(long_texts(5), (kind,))
    found = segment(*batch_of(long_texts(1_000_000)).utf8, kind)
    expected = {"whitespace": [1, 1, 1], "spacy": [1, 5_000_001, 2_000_001], "unicode": [1, 5_000_001, 2_000_000]}
    assert np.diff(found.offsets).tolist() == expected[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_tables_are_begun_anew_when_they_are_large(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.text.words._REMEMBERED", 50)
    sizes = []
    for batch in range(20):
        texts = [f"w{batch}x{n}, it's" for n in range(40)]
        assert split(texts, kind) == [EXPECTED[kind](text) for text in texts]
        sizes.append(int(words._memories()[0].chunks.count[0]))
    assert max(sizes) <= 50 + 41


@pytest.mark.parametrize("kind", KINDS)
def test_words_stay_what_they_are_when_later_batches_are_split(kind: Kind) -> None:
    first = segment(*batch_of(["a b, c"]).utf8, kind)
    before = [first.strings()[number] for number in first.ids], first.lengths.tolist(), first.hashes.tolist()
    segment(*batch_of([" ".join(f"new{n}" for n in range(20_000))]).utf8, kind)
    assert ([first.strings()[number] for number in first.ids], first.lengths.tolist(), first.hashes.tolist()) == before
    assert len(first.table(len)) == len(first.lengths)


def numbers_of(found: Words, values: np.ndarray) -> list[int]:
    return values[found.ids].tolist()


def test_functions_of_words_are_asked_once_for_each() -> None:
    asked: list[str] = []

    def initial(word: str) -> int:
        asked.append(word)
        return ord(word[0])

    words._memories().clear()
    found = segment(*batch_of(["b a b", "é b"]).utf8, "whitespace")
    assert numbers_of(found, found.table(initial)) == [98, 97, 98, 233, 98]
    later = segment(*batch_of(["b c"]).utf8, "whitespace")
    assert numbers_of(later, later.table(initial)) == [98, 99] and asked == ["b", "a", "é", "c"]


def test_flags_and_totals_of_words() -> None:
    characters = np.zeros(0x110000, np.uint8)
    characters[[ord("a"), 0x10FFFF]], characters[ord("é")] = 1, 2
    found = segment(*batch_of(["ba bé bb aé \U0010ffff", "", "é"]).utf8, "whitespace")
    assert numbers_of(found, found.flags(characters)) == [1, 2, 0, 3, 1, 2]
    assert found.totals(found.flags(characters)).tolist() == [7, 0, 2]
    assert found.totals(found.lengths > 1).tolist() == [4, 0, 0]


def test_texts_that_begin_inside_their_buffer() -> None:
    rows = pa.array(["skipped, it's", "a b.", "c"], pa.large_string()).slice(1)
    _, offsets, data = rows.buffers()
    found = segment(np.frombuffer(data, np.uint8), np.frombuffer(offsets, np.int64)[1:4], "spacy")
    assert [found.strings()[number] for number in found.ids] == ["a", "b.", "c"]
    assert found.starts.tolist() == [13, 15, 17] and found.offsets.tolist() == [0, 2, 3]


def hash_of(word: bytes) -> int:
    """As pipeline/interning.py says, in Python's integers."""

    def mixed(x: int) -> int:
        x = (x ^ x >> 33) * 0xFF51AFD7ED558CCD % 2**64
        x = (x ^ x >> 33) * 0xC4CEB9FE1A85EC53 % 2**64
        return x ^ x >> 33

    if len(word) < 8:
        return mixed(int.from_bytes(word, "big") + (len(word) << 56))
    hashed, tail = len(word), len(word) % 8
    for at in range(0, len(word) - tail, 8):
        hashed = (hashed ^ int.from_bytes(word[at : at + 8], "big")) * 0x9E3779B97F4A7C15 % 2**64
        hashed ^= hashed >> 32
    hashed = mixed((hashed ^ int.from_bytes(word[len(word) - tail :], "big")) * 0x9E3779B97F4A7C15 % 2**64)
    return mixed(hashed % 2**56 + (8 + (hashed >> 56) % 248 << 56))


def test_hashes_of_words_are_the_same_everywhere() -> None:
    rng = random.Random(4)
    found = segment(*batch_of(["the", *("".join(rng.choices("ab漢\x00", k=size)) for size in range(1, 40))]).utf8, "whitespace")
    strings = found.strings()
    assert [found.hashes[number] for number in found.ids] == [hash_of(strings[number].encode()) for number in found.ids]
    assert found.hashes[found.ids[0]] == 0x9A03283A3D29C535


def test_a_spacy_with_other_patterns_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spacy_rules, "_PATTERNS", "0" * 64)
    spacy_rules._tokenizer.cache_clear()
    with pytest.raises(PipelineError, match=r"spaCy 3\.\d+\.\d+ splits English words by other patterns .* install the version"):
        spacy_rules.exceptions.__wrapped__()
