"""URLs of pages: found, normalised, hashed; and block lists that decide as DCLM's url_substring_filter does."""

import json
import re
from pathlib import Path

import pyarrow as pa
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import PipelineError
from pipeline.taggers import TAGGERS, Batch
from pipeline.taggers.url import UrlLists, url_lists

LISTS = {
    "domains": ["evil.com", "sub.good.org", "shop.example:8080", "bücher.de"],
    "strict": ["freespins", "casino", "cas", "bigwin"],
    "hard": ["poker", "pokerface", "bet", "a-b"],
    "soft": ["bet", "bets", "jackpot", "slot", "slots"],
}
# (URL, domains, strict, hard, soft) by url_substring_filter of DCLM at 361714b: exact_domain_match with ignore_chars ["www."];
# ignore_chars ["-", "."]; match_substrings False; the same with num_banned_substrs 1, 2, 3 (how many of them drop the page).
DCLM = [
    ("https://www.evil.com/x", 1, 0, 0, 0),
    ("http://EVIL.com", 1, 0, 0, 0),
    ("https://my.evil.com/", 0, 0, 0, 0),
    ("https://user@evil.com/", 0, 0, 0, 0),
    ("https://evil.com:80/", 0, 0, 0, 0),
    ("https://sub.good.org", 1, 0, 0, 0),
    ("https://good.org/evil.com", 0, 0, 0, 0),
    ("http://shop.example:8080/a", 1, 0, 0, 0),
    ("https://bücher.de/poker", 1, 0, 1, 0),
    ("https://free-spins.net/", 0, 1, 0, 0),
    ("https://x.org/free.spins/ca-si.no", 0, 1, 0, 0),
    ("https://x.org/CASINO-cas", 0, 1, 0, 0),
    ("https://x.org/poker-face", 0, 0, 1, 0),
    ("https://x.org/pokerface", 0, 0, 1, 0),
    ("https://x.org/poker_face", 0, 0, 0, 0),
    ("https://x.org/poker%20bet", 0, 0, 1, 0),
    ("https://x.org/a-b/bets", 0, 0, 1, 1),
    ("https://x.org/bet/bet/bet", 0, 0, 1, 1),
    ("https://x.org/bet/bets", 0, 0, 1, 2),
    ("https://x.org/slots.slot?jackpot=1", 0, 0, 0, 3),
    ("https://x.org/éslot", 0, 0, 0, 0),
    ("https://x.org/slotſ", 0, 0, 0, 1),  # the long s is an s to a pattern that ignores case
    ("evil.com", 0, 0, 0, 0),
    ("https://x.org/big-win/big.win/bigwin", 0, 1, 0, 0),
]


def batch_of(*metadata: object) -> Batch:
    return Batch(pa.table({"metadata": pa.array([None if each is None else json.dumps(each) for each in metadata], pa.string())}))


def url_of(*metadata: object) -> dict[str, pa.Array]:
    return dict(TAGGERS["url"].function(batch_of(*metadata)))  # type: ignore[arg-type]


def looked_up(folder: Path, lists: dict[str, list[str]], *urls: str) -> dict[str, list[int]]:
    files = {role: [folder / f"{role}.txt"] for role in lists}
    for role, words in lists.items():
        files[role][0].write_text("\n".join(words) + "\n", encoding="utf-8")
    values = url_lists(batch_of(*({"url": each} for each in urls)), "blocked", UrlLists(**dict.fromkeys(lists, "x")), files)
    return {column: list(value) for column, value in values.items()}


@pytest.mark.parametrize(
    "metadata, found",
    [
        ({"url": "https://a.org/x"}, "https://a.org/x"),
        ({"WARC-Target-URI": "http://b.org"}, "http://b.org"),
        ({"url": "", "WARC-Target-URI": "http://b.org"}, "http://b.org"),
        ({"meta": {"url": "http://c.org", "timestamp": None}}, "http://c.org"),
        ({"url": None}, ""),
        ({"url": ["http://a.org"]}, ""),
        ({"title": '"url"'}, ""),
        ({}, ""),
        (None, ""),
    ],
)
def test_a_url_is_found_where_sources_keep_it(metadata: object, found: str) -> None:
    assert url_of(metadata)["url"].to_pylist() == [found]


@pytest.mark.parametrize(
    "url, domain",
    [
        ("https://www.Example.ORG:443/a?b#c", "example.org"),
        ("http://user:secret@www2.example.org", "www2.example.org"),
        ("http://[2001:db8::1]:80/x", "[2001:db8::1]"),
        ("http://[2001:db8::1/x", ""),
        ("example.org/x", ""),
        ("https://münchen.de/", "münchen.de"),
    ],
)
def test_a_host_is_named_without_port_user_and_www(url: str, domain: str) -> None:
    assert url_of({"url": url})["url_domain"].to_pylist() == [domain]


@pytest.mark.parametrize(
    "url, normal",
    [
        # By DCLM's normalize_url, whose rule is C4's.
        ("https://www.google.com", "google.com"),
        ("http://google.com//", "google.com"),
        ("google.com", "google.com"),
        ("https://jobs.example.ca/job/?feedId=4&utm_source=Indeed", "jobs.example.ca/job"),
        ("https://a.org/job/?ref=123", "a.org/job"),
        ("https://a.org/job?id=1&ref=2", "a.org/job?id=1&ref=2"),
        ("https://web.archive.org/web/2010/http://www.a.org/", "web.archive.org/web/2010/a.org"),
        ("HTTPS://a.org", "HTTPS://a.org"),
    ],
)
def test_urls_of_one_normal_form_have_one_hash(url: str, normal: str) -> None:
    hashes = url_of({"url": url})["url_hash"].to_pylist()
    assert hashes == [xxhash.xxh3_128_digest(normal.encode())]


def test_nothing_has_the_hash_of_zeros() -> None:
    hashes = url_of({}, {"url": "https://"}, {"url": "https://a"})["url_hash"].to_pylist()
    assert hashes[0] == hashes[1] == bytes(16) != hashes[2]


def test_lists_decide_as_dclm_does(tmp_path: Path) -> None:
    got = looked_up(tmp_path, LISTS, *(row[0] for row in DCLM))
    assert got["blocked_domains"] == [row[1] for row in DCLM]
    assert [int(count >= 1) for count in got["blocked_strict"]] == [row[2] for row in DCLM]
    assert [int(count >= 1) for count in got["blocked_hard"]] == [row[3] for row in DCLM]
    assert got["blocked_soft"] == [row[4] for row in DCLM]


def test_a_list_has_a_column_and_a_missing_one_has_none(tmp_path: Path) -> None:
    assert looked_up(tmp_path, {"soft": ["bet"]}, "https://a.org/bet", "") == {"blocked_soft": [1, 0]}


words_of = st.lists(st.sampled_from(["a", "b", "ab", "abc", "bc", "b.c", "a-b", "é", "+", "aa"]), min_size=1, max_size=6, unique=True)


@settings(deadline=None)
@given(words_of, st.text(alphabet="abcé+.-/A", max_size=20))
def test_words_are_counted_as_by_the_longest_alternative(tmp_path_factory: pytest.TempPathFactory, words: list[str], url: str) -> None:
    folder = tmp_path_factory.mktemp("lists")
    any_of = "|".join(map(re.escape, sorted(words, key=len, reverse=True)))
    got = looked_up(folder, {"strict": words, "hard": words}, url)
    assert got["blocked_hard"] == [len(set(re.findall(rf"\b(?:{any_of})\b", url.lower())))]
    assert got["blocked_strict"] == [len(set(re.findall(any_of, re.sub(r"[-.]", "", url.lower()))))]


def test_an_empty_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"hard\.txt: a block list without entries"):
        looked_up(tmp_path, {"hard": ["", " "]}, "https://a.org")


def test_at_least_one_list_is_named() -> None:
    with pytest.raises(ValueError, match="name at least one list: domains, strict, hard or soft"):
        UrlLists()
