"""Personal data: the matches are those of Dolma's patterns, run by Python's `re`, and no text takes more than linear time."""

import re
import time

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline import edits
from pipeline.taggers import TAGGERS, Batch

# What the three patterns mean, as the oracle: one line at a time, its newline included.
EMAIL = re.compile(r"[.\s@,?!;:)(]*([^\s@]+@[^\s@,?!;:)(]+?)[.\s@,?!;:)(]?\s")
PHONE = re.compile(r"\s+(\(?\d{3}\)?[-. ]*\d{3}[-. ]?\d{4})")
OCTET = r"(?:25[0-5]|2[0-4][0-9]|[01]?[0-9][0-9]?)"
IP = re.compile(rf"({OCTET}\.{OCTET}\.{OCTET}\.{OCTET})")

LONGER = ["25", "6.", "1.2.3.4", "255.", "123", " 456-7890", "a@b.c "]
pieces = st.sampled_from([*"aé漢1237890@@@....,?!;:()- \n\t\u00a0\u3000\x1c\x85\x00٣۷", *LONGER])
texts = st.lists(pieces, max_size=25).map("".join)


def batch_of(*texts: str) -> Batch:
    return Batch(pa.table({"text": pa.array(texts, pa.large_string())}))


def matches(text: str) -> list[tuple[int, int, int, int, int]]:
    """(start, kind, end, start and end of the thing itself), in characters."""
    found, begin = [], 0
    for line in re.findall(r"[^\n]*\n|[^\n]+", text):
        for kind, pattern in enumerate((EMAIL, PHONE, IP)):
            for match in pattern.finditer(line):
                name, _, domain = match[1].partition("@")
                if kind or ("." in domain and name != "("):
                    found.append((begin + match.start(), kind, begin + match.end(), begin + match.start(1), begin + match.end(1)))
        begin += len(line)
    return sorted(found)


def run(name: str, *texts: str) -> tuple[dict[str, list], list[dict]]:
    batch = batch_of(*texts)
    values, tables = TAGGERS[name].function(batch)  # type: ignore[misc]
    return {column: list(value) for column, value in values.items()}, tables["spans"].to_pylist()


def masked(name: str, text: str) -> str:
    batch = batch_of(text)
    _, tables = TAGGERS[name].function(batch)  # type: ignore[misc]
    return edits.apply(batch["text"], tables["spans"])[0].as_py()


def first_of_overlapping(spans: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    kept: list[tuple[int, int, int]] = []
    for start, end, kind in spans:
        if not kept or start >= kept[-1][1]:
            kept.append((start, end, kind))
    return kept


@settings(deadline=None, max_examples=400)  # the first call compiles
@given(st.lists(texts, max_size=4))
@example([".@foo.com ", "(@a.b ", "a@b.c. ", "a@b.c\n d@e.f", "x@y.z", "@@a@b.c@ "])
@example(["\n 123 456 7890", " (123)456-7890", "\u0663\u0663\u0663 123-456-7890", " 123 456 7890 456 7890"])
@example(["1.2.3.4.5.6.7.8", "256.1.1.256", "999.0.0.300", "1234.5.6.7", "1.2.3.", "25.25.25.250000"])
def test_spans_are_the_matches_of_dolmas_patterns(texts: list[str]) -> None:
    expected = [matches(text) for text in texts]
    counts, tight = run("pii", *texts)
    names = ("pii_emails", "pii_phones", "pii_ips")
    assert [list(row) for row in zip(*(counts[name] for name in names), strict=True)] == [
        [sum(kind == which for _, kind, *_ in found) for which in range(3)] for found in expected
    ]
    all_counts, whole = run("pii_dolma", *texts)
    assert all_counts["pii_dolma_count"] == [len(found) for found in expected]
    rules = ("email", "phone", "ip")
    for row, (text, found) in enumerate(zip(texts, expected, strict=True)):
        for spans, wanted in (
            (whole, [(start, end, kind) for start, kind, end, _, _ in found]),
            (tight, [(start, end, kind) for start, kind, end in sorted((start, kind, end) for _, kind, _, start, end in found)]),
        ):
            own = [(span["start"], span["end"], span["by"]) for span in spans if span["row"] == row]
            assert own == [
                (len(text[:start].encode()), len(text[:end].encode()), rules[kind]) for start, end, kind in first_of_overlapping(wanted)
            ]


def test_masks_leave_what_stands_around() -> None:
    text = "Write to (joe@example.org)\nCall (555) 123-4567 or ask 10.0.0.1!\n"
    assert masked("pii", text) == "Write to (|||EMAIL_ADDRESS|||)\nCall |||PHONE_NUMBER||| or ask |||IP_ADDRESS|||!\n"


def test_dolmas_masks_take_what_its_mixer_takes() -> None:
    # By dolma 1.2.1: tag with pii_regex_with_counts_fast_v2, then the mixer with the replacements of dolma-v1_6/mixing/cc-head.yaml.
    text = "Write to joe@example.org.\nCall (555) 123-4567 or ask 10.0.0.1!\n"
    assert masked("pii_dolma", text) == "Write to |||EMAIL_ADDRESS||| Call |||PHONE_NUMBER|||  or ask  |||IP_ADDRESS||| !\n"


def test_an_address_at_the_end_of_the_text_is_missed_as_it_is_by_dolma() -> None:
    counts, spans = run("pii", "joe@example.org", "joe@example.org ", "")
    assert counts["pii_emails"] == [0, 1, 0] and len(spans) == 1


def test_dolma_looks_at_no_text_with_more_than_ten_thousand_question_marks() -> None:
    texts = ["a@b.c " + "?" * 10_000, "a@b.c " + "?" * 10_001]
    assert run("pii_dolma", *texts)[0] == {"pii_dolma_count": [1, 0]}
    assert run("pii", *texts)[0]["pii_emails"] == [1, 1]


@pytest.mark.parametrize("piece", ["@", " ", "a@", ".@. ", "?", "1.", " 123-", "( ", "x", "a@b.c ", "漢\u3000"])
def test_a_long_line_takes_linear_time(piece: str) -> None:
    run("pii", "warm up a@b.c ")
    began = time.process_time()
    run("pii", piece * (2_000_000 // len(piece)))
    assert time.process_time() - began < 2  # two megabytes in quadratic time: hours
