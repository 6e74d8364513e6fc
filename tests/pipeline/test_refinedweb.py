"""RefinedWeb's edits: against regular expressions and plain Python, and against what DCLM's own modifiers made of some texts."""

import re
from collections.abc import Callable
from functools import cache, partial

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline import edits
from pipeline.recipe import MIXES
from pipeline.taggers import SPANS, TAGGERS, Tagger, run
from pipeline.taggers.refinedweb import WebAddresses, web_addresses
from tests.pipeline.pages import DEGENERATE, MIXED, PROSE, SPACES, WEB, batch_of

DOMAINS = MIXES / "filters" / "top-level-domains.txt"


def edited(tagger: Tagger, texts: list[str]) -> list[str]:
    return edits.apply(pa.array(texts, pa.large_string()), run(tagger, batch_of(texts))[1]["spans"]).to_pylist()


@cache
def addresses() -> Tagger:
    function = partial(web_addresses, name="a", settings=WebAddresses(domains="unused"), files={"domains": [DOMAINS]})
    return Tagger("a", {}, ("text",), 1, function, {"spans": SPANS})


def prepared(texts: list[str]) -> list[str]:
    for tagger in (addresses(), TAGGERS["refinedweb_ip_addresses"], TAGGERS["refinedweb_newlines"]):
        texts = edited(tagger, texts)
    return texts


@cache
def expressions() -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    """A text that begins with a domain; an address by name; one by numbers."""
    domains = "|".join(re.escape(name) for name in sorted(DOMAINS.read_text("utf-8").split(), key=len, reverse=True))
    scheme, rest = r"(?:(?:https?|ftp)://)?", r"[-a-zA-Z0-9()@:%_+.~#?&/=]*"
    name = re.compile(rf"\s{{0,10}}{scheme}[-a-zA-Z0-9@:%._+~#=]{{1,256}}\.(?:{domains})\b{rest}")
    numbers = re.compile(rf"\s{{0,10}}\b{scheme}(?:[0-2]?[0-9]{{1,2}}\.){{3}}[0-2]?[0-9]{{1,2}}{rest}")
    return re.compile(domains, re.I), name, numbers


def prepared_of(text: str) -> str:
    begins, name, numbers = expressions()
    text = name.sub("", text) if begins.match(text) else text
    return re.sub(r"\n\n\n+", "\n\n", numbers.sub("", text))


ADDRESS_PIECES = [
    "http://", "https://", "ftp://", "//", ":", ".", "..", "a", "x.", "www.foo.com", "com", ".org", ".COM", ".com_", ".comé", ".co.uk", "_",
    "-", "рф", ".рф", ".测试", ".भारतम्", ".मx", ".مصر\u200e", ".xn--p1ai", "é", "(", ")", "/", "?", "&", "~", "b" * 254, "c" * 300,
    "1.2.3.4", "255.", "300.", "99", "1", ".1", "٣", " ", "  ", "\t", "\n", "\n\n\n", "\u3000" * 6, "\u00a0",
]  # fmt: skip
address_texts = st.tuples(
    st.sampled_from(["in ", "The ", "\u212arone ", "İs", "ſe ", "рФ", "a", "", "\n", "http://"]),
    st.lists(st.sampled_from(ADDRESS_PIECES), max_size=25).map("".join),
).map("".join)


@given(st.lists(address_texts, max_size=6))
@settings(max_examples=200, deadline=None)  # the first call compiles
@example(["in " + "b" * 255 + ".com " + "b" * 256 + ".com " + "b" * 257 + ".com", "in http://" + "a" * 250 + ".org." + "com" * 9])
def test_addresses_are_those_of_the_regular_expressions(texts: list[str]) -> None:
    assert prepared(texts) == [prepared_of(text) for text in texts]


def test_degenerate_texts_are_prepared_as_by_the_regular_expressions() -> None:
    texts = [*DEGENERATE, MIXED, WEB, *(f"in a{space}{space * 11}b.com{space}" for space in SPACES)]
    assert prepared(texts) == [prepared_of(text) for text in texts]


# What DCLM's url_removal_modifier and newline_removal_modifier made of them.
PREPARED = [
    (
        "In short: see https://example.org/a?b=c#d, or  example.com.\nMail me@host.co.uk (or ftp://x.net/y).",
        "In short: see, or\nMail (or",
    ),
    ("See https://example.org/ now", "See now"),
    ("5 https://example.org/ now", "5 https://example.org/ now"),
    ("the end.it is a.com.notadomain x.comé x.com_ .com a..com", "the is x.comé x.com_ .com"),
    ("Com: \t  \n            spaced.org tail", "Com: \t  \n   tail"),
    ("in пример.рф/путь, http://пример.рф/x and a.рф/y(z)", "in пример.рф/путь, http://пример.рф/x and"),
    ("to xhttp://b.org http://b.org sftp://b.org https//b.org", "to x s https//"),
    ("ſe x.org", "ſe"),
    ("no 1.2.3.4:80/x 999.1.1.1 x1.2.3.4 256.300.1.2", "no 999.1.1.1 x1.2.3.4 256.300.1.2"),
    ("in http://1.2.3.4/x \t http://300.1.2.3 ftp://10.0.0.1", "in \t http://300.1.2.3"),
    ("am\n\n\n\nx\n \n\n\ny\n\n", "am\n\nx\n \n\ny\n\n"),
]


@pytest.mark.parametrize("text, expected", PREPARED)
def test_texts_are_prepared_as_by_dclm(text: str, expected: str) -> None:
    assert prepared([text]) == [expected]


def lines_of(text: str) -> tuple[float, str]:
    """The share of words that go, and what is left: DCLM's seven modifiers one after the other."""
    counter = r"\W*\d[,.\d]*[kmb]?\s+(likes|shares|comments|retweets|reposts|quotes|bookmarks|(up|down)votes|downloads|views|followers)\W*"
    before, left = words_of(text), text
    for rule in (
        lambda line: None if sum(map(str.isupper, line)) > 0.5 * len(line) else line,
        lambda line: None if line and sum(map(str.isdigit, line)) / len(line) > 0.999999 else line,
        lambda line: None if re.fullmatch(counter, line.lower()) else line,
    ):
        left = each_line(left, rule).strip()
    left = each_line(left, lambda line: None if line and len(line.split()) < 2 else line)
    for phrase in (r"\s?items in cart", r"\s?read more...$", r"^sign-in\s?"):
        left = each_line(left, partial(without, re.compile(phrase, re.I))).strip()
    return (before - words_of(left)) / before if before else 1.0, left


def each_line(text: str, rule: Callable[[str], str | None]) -> str:
    return "\n".join(line for line in map(rule, text.split("\n")) if line is not None)


def without(phrase: re.Pattern[str], line: str) -> str | None:
    left = phrase.sub("", line) if len(line.split()) <= 10 else line
    return left if left.strip() or not line else None


def words_of(text: str) -> int:
    return sum(word[0].isalnum() for word in re.split("[ \n\r\t\v\f\0]+", text) if word)


def lines_edited(texts: list[str]) -> list[tuple[float, str]]:
    values, tables = run(TAGGERS["refinedweb_lines"], batch_of(texts))
    left = edits.apply(pa.array(texts, pa.large_string()), tables["spans"]).to_pylist()
    return list(zip(values["refinedweb_removed_word_share"].to_pylist(), left, strict=True))


LINE_PIECES = [
    "a", "two words", "UP", "ÜBER Ⅷ", "12", "²³", "٣", "3 likes", "- 1,2.3K Followers!", "7\u212a Upvotes", "9 li\u212aes",
    "5\u00a0views", "4 İ views", "Read more...", "read moreéßx", "Read more", "read more ...", "items in cart", "xItems In Carty",
    "ıtemſ İn cart", "Sign-in", "ſıgn-İn", "sign-in x", "Read items in cart more...", "Sign- items in cartin",
    "one two three four five six seven eight nine", "_x", "(y", "é", "😀", "\x00", "\x1c",
]  # fmt: skip
line_texts = st.lists(st.sampled_from([*LINE_PIECES, " ", "  ", "\n", "\n", "\n", "\n\n", "\r\n", *SPACES]), max_size=25).map("".join)


@given(st.lists(line_texts, max_size=6))
@settings(max_examples=300, deadline=None)
@example([" UP\n  77\nfoo bar\n\n", " items in cart Sign-in\na b", "a b\nitems in cart\n \n", "\u00a0x y"])
def test_lines_go_as_in_plain_python(texts: list[str]) -> None:
    assert lines_edited(texts) == [lines_of(text) for text in texts]


def test_degenerate_texts_are_edited_as_in_plain_python() -> None:
    texts = [*DEGENERATE, MIXED, WEB, "9" * 1_000_001 + "x", "9" * 999_999 + "x", "\n".join(PROSE)]
    assert lines_edited(texts) == [lines_of(text) for text in texts]


def test_one_line_of_20_mb_is_no_trouble() -> None:
    text = "in words " * 2_222_222 + "end."
    assert prepared([text]) == [text]
    assert lines_edited([text]) == [(0.0, text)]


PAGE = "Welcome to the garden of words that we tend all through the year with patience and care for our many visitors.\n" * 6
# Text, what DCLM's line modifiers made of it, the words before and after, and whether word_removal_ratio_filter kept it.
EDITED = [
    (f"{PAGE}ABC DEF\n", PAGE[:-1], 128, 126, True),
    (f"{PAGE}12345\n  ٣٤\nok ok\n", f"{PAGE}ok ok", 130, 128, True),
    (f"{PAGE}3 likes\n12,345K Followers!\n1.5m views here\n", f"{PAGE}1.5m views here", 133, 129, True),
    (f"{PAGE}alone\n\n  two words \n", f"{PAGE}\n  two words", 129, 128, True),
    (f"{PAGE}0 items in cart\nitems in cart\n2 ITEMS IN CART now\n", f"{PAGE}0", 138, 127, False),
    (f"{PAGE}More about it Read more...\nRead moreABC\nthis line has far too many words to be looked at at all Read more...\n",
     f"{PAGE}More about it\nthis line has far too many words to be looked at at all Read more...", 148, 144, True),
    (f"{PAGE}Sign-in\nSign-in here\nplease Sign-in\n", f"{PAGE}here\nplease Sign-in", 131, 129, True),
    (f"{PAGE}one\ntwo\nthree\nfour\nfive\nsix\nseven\n", PAGE[:-1], 133, 126, False),
    (f"  \n\n 77 \n{PAGE}", PAGE[:-1], 127, 126, True),
    (f"\xa0Word {PAGE}", f"Word {PAGE[:-1]}", 126, 127, True),
    (f"UPPER CASE\n  12 likes\n{PAGE}\n\n  \n", PAGE[:-1], 130, 126, True),
    (f"SIGN-İN ıtems in cart today\n{PAGE}", f"today\n{PAGE[:-1]}", 131, 127, True),
    ("A\nB\n", "", 2, 0, False),
]  # fmt: skip


def test_texts_lose_the_lines_that_dclm_takes_out() -> None:
    texts = [text for text, *_ in EDITED]
    expected = [((before - after) / before, left) for _, left, before, after, _ in EDITED]
    assert lines_edited(texts) == expected
    assert [share <= 0.05 for share, _ in expected] == [kept for *_, kept in EDITED]


def test_rules_of_removed_lines_are_named() -> None:
    text = " UPPER\n12\n3 likes\nalone\n\nit is Sign-in day\nSign-in to read\nsign-in \nno more \n"
    spans = run(TAGGERS["refinedweb_lines"], batch_of([text]))[1]["spans"]
    assert spans["by"].to_pylist() == ["uppercase", "numeric", "counter", "short", "whitespace", "phrase", "short", "whitespace"]


def test_a_text_without_words_loses_all_of_them() -> None:
    assert [share for share, _ in lines_edited(["", " \n", "...", "😀 !"])] == [1.0] * 4
