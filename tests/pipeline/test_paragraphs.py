"""Repeated paragraphs against plain Python with sets: Dolma's meaning, and DCLM's with n-grams of UAX #29 words."""

from collections.abc import Sequence
from itertools import pairwise

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from uniseg.wordbreak import words as uniseg_words

from pipeline import edits
from pipeline.dedupe.bloom import Bloom
from pipeline.dedupe.methods import Bff, Paragraphs
from pipeline.dedupe.paragraphs import DECISIONS, REMOVED, Texts, bloom_for, remove
from pipeline.taggers import SPANS

Spans = list[tuple[int, int]]
Decision = tuple[Spans, int, int, str]  # spans in bytes, looked up, seen before, why it is dropped

SURE = 1e-12  # no false positive in a test
WHITE_SPACE = "".join(chr(code) for code in range(0x110000) if chr(code).isspace() and not 0x1C <= code <= 0x1F)
DEGENERATE = [
    "", "x", "\n", "\n\n\n", " \t\n\u3000\n", "\x00\n\x1c\n\x85\u2028\n\x1c", "a\r\na\r\nb", "e\u0301\n\u00e9\ne\u0301", "...!?\n...!?\n",
    "😀😀👍🏽\n👨‍👩‍👧\n😀😀👍🏽", "漢字かな交じり文\n漢字かな交じり文", "שלום עולם\nשלום עולם",
    "no newline at the end\nno newline at the end",
]  # fmt: skip
texts_of = st.lists(
    st.lists(st.sampled_from(["a", "b b", "a b c", "é.", "漢字", "", " ", "\t", "\r", "\x1c", "c\n"]), max_size=9).map("\n".join),
    max_size=5,
)
ngram_texts = st.lists(st.text(st.sampled_from("aab  \n\n.é漢"), max_size=40), max_size=5)


def batch(texts: Sequence[str], part: int = 0, first: int = 0) -> Texts:
    return part, first, *edits.flat(pa.array(texts, pa.large_string()))


def decided(batches: Sequence[Texts], method: Paragraphs | Bff) -> list[Decision]:
    bloom = bloom_for(batches, method)
    tables = list(remove(batches, method, bloom))
    assert all(spans.schema == REMOVED and documents.schema == DECISIONS for spans, documents in tables)
    spans, documents = (pa.concat_tables(each) for each in zip(*tables, strict=True))
    assert bloom.inserted <= bloom.keys == sum(documents["keys"].to_pylist())
    of_row: dict[tuple[int, int], Spans] = {(d["part"], d["row"]): [] for d in documents.to_pylist()}
    for span in spans.to_pylist():
        of_row[span["part"], span["row"]].append((span["start"], span["end"]))
    return [(of_row[d["part"], d["row"]], d["keys"], d["seen"], d["drop"]) for d in documents.to_pylist()]


def left(texts: Sequence[str], method: Paragraphs | Bff) -> list[str]:
    """What deduplication leaves: texts without their spans, dropped ones left out."""
    data = batch(texts)
    [(spans, documents)] = list(remove([data], method, bloom_for([data], method)))
    assert set(spans["replacement"].to_pylist()) <= {""} and set(spans["by"].to_pylist()) <= {method.method}
    kept = edits.apply(pa.array(texts, pa.large_string()), spans.select(SPANS.names)).to_pylist()
    return [text for text, drop in zip(kept, documents["drop"].to_pylist(), strict=True) if not drop]


def without(text: str, spans: Spans) -> str:
    content = text.encode()
    for start, end in reversed(spans):
        content = content[:start] + content[end:]
    return content.decode()


def repeated_paragraphs(texts: Sequence[str]) -> list[Decision]:
    seen: set[str] = set()
    found = []
    for text in texts:
        spans, keys, at = [], 0, 0
        for paragraph in text.split("\n"):
            start, at = at, at + len(paragraph.encode()) + 1
            if paragraph.strip(WHITE_SPACE):
                keys += 1
                if paragraph in seen:
                    spans.append((start, min(at, len(text.encode()))))
                seen.add(paragraph)
        drop = "" if without(text, spans).strip(WHITE_SPACE) else "nothing_left"
        found.append((spans, keys, len(spans), drop))
    return found


def repeated_ngrams(texts: Sequence[str], n: int, threshold: float) -> list[Decision]:
    seen: set[tuple[str, ...]] = set()
    found = []
    for text in texts:
        spans, keys, hits, at = [], 0, 0, 0
        breaks = [0, *(i for i, character in enumerate(text) if character == "\n"), len(text)]
        for start, end in pairwise(breaks):
            paragraph = text[start:end]
            words = [word for word in uniseg_words(paragraph) if not word.isspace()]
            ngrams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
            known = sum(ngram in seen for ngram in ngrams)
            keys, hits = keys + len(ngrams), hits + known
            begin, at = at, at + len(paragraph.encode())
            if ngrams and known / len(ngrams) > threshold:
                spans.append((begin, at))
            else:
                seen.update(ngrams)
        drop = "" if without(text, spans).strip(WHITE_SPACE) else "nothing_left"
        found.append((spans, keys, hits, "repeated" if keys and hits / keys > threshold else drop))
    return found


@settings(deadline=None)  # the first call compiles
@given(texts_of)
@example(DEGENERATE)
def test_paragraphs_seen_before_are_removed_as_with_a_set(texts: list[str]) -> None:
    assert decided([batch(texts)], Paragraphs(false_positive_rate=SURE)) == repeated_paragraphs(texts)


@settings(deadline=None)  # the first call compiles
@given(ngram_texts, st.integers(1, 3), st.sampled_from([0.0, 0.5, 0.8]))
@example(DEGENERATE, 2, 0.5)
def test_paragraphs_of_known_ngrams_are_removed_as_with_a_set(texts: list[str], n: int, threshold: float) -> None:
    bff = Bff(ngram=n, threshold=threshold, false_positive_rate=SURE)
    assert decided([batch(texts)], bff) == repeated_ngrams(texts, n, threshold)


@pytest.mark.parametrize("method", [Paragraphs(false_positive_rate=SURE), Bff(ngram=2, threshold=0.5, false_positive_rate=SURE)])
@settings(deadline=None)
@given(texts=ngram_texts)
def test_a_second_run_removes_nothing_more(method: Paragraphs | Bff, texts: list[str]) -> None:
    once = left(texts, method)
    assert left(once, method) == once


@pytest.mark.parametrize("method", [Paragraphs(), Bff(ngram=2, threshold=0.5)])
@settings(deadline=None)
@given(texts=ngram_texts, cut=st.integers(0, 5))
def test_batches_and_parts_change_no_decision(method: Paragraphs | Bff, texts: list[str], cut: int) -> None:
    whole = decided([batch(texts)], method)
    assert decided([batch(texts[:cut]), batch(texts[cut:], first=len(texts[:cut]))], method) == whole
    assert decided([batch(texts[:cut], part=3), batch(texts[cut:], part=8, first=7)], method) == whole


def test_the_first_copy_stays_in_the_order_of_the_scope() -> None:
    first, second = batch(["keep\nonce"], part=0), batch(["once\nmore", "more"], part=1)
    assert decided([first, second], Paragraphs()) == [([], 2, 0, ""), ([(0, 5)], 2, 1, ""), ([(0, 4)], 1, 1, "nothing_left")]
    assert decided([second, first], Paragraphs())[0][0] == []


def test_bff_needs_more_than_the_threshold_and_leaves_short_paragraphs() -> None:
    known = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
    four_of_five = known.replace("seventeen", "18")  # 5 n-grams of 13 words, the last of them new
    short = "one two three four five six seven eight nine ten eleven twelve"
    longer = f"{known} eighteen"  # the same 5 n-grams and a new one: 5 of 6 are more than 0.8
    texts = [f"{known}\n{short}", four_of_five, short, longer]
    assert decided([batch(texts)], Bff(false_positive_rate=SURE)) == [
        ([], 5, 0, ""),
        ([], 5, 4, ""),
        ([], 0, 0, ""),
        ([(0, len(longer))], 6, 5, "repeated"),
    ]


def test_a_window_of_bff_begins_with_its_newline() -> None:
    text = "a b c\nd e f\na b c\nx"
    [(spans, keys, seen, drop)] = decided([batch([text])], Bff(ngram=3, threshold=0.5, false_positive_rate=SURE))
    assert (without(text, spans), keys, seen, drop) == ("a b c\nd e f\nx", 3, 1, "")


def test_a_filter_too_small_takes_away_too_much_and_says_so() -> None:
    data = batch(["\n".join(f"paragraph {i}" for i in range(2_000))])
    bloom = Bloom.sized(20, 0.01)
    [(spans, _)] = list(remove([data], Paragraphs(), bloom))
    report = bloom.report()
    assert spans.num_rows > 1_000 and report["measured_false_positive_rate"] > 0.5
    exact = bloom_for([data], Paragraphs())
    [(spans, _)] = list(remove([data], Paragraphs(), exact))
    assert spans.num_rows == 0 and exact.report()["measured_false_positive_rate"] <= 1e-5


def test_lines_of_twenty_megabytes() -> None:
    line = "extraordinarily long lines, " * 750_000
    assert decided([batch([line, f"{line}\nanother"])], Paragraphs()) == [([], 1, 0, ""), ([(0, len(line) + 1)], 2, 1, "")]
    [(spans, ngrams, seen, drop)] = decided([batch([line])], Bff())
    assert (spans, ngrams, seen, drop) == ([], 4 * 750_000 - 12, 0, "")


def test_offsets_into_a_larger_array_are_respected() -> None:
    part, first, data, offsets = batch(["known", "new", "new\nnewer"])
    sliced = [(part, first, data, offsets[1:])]
    for method in (Paragraphs(), Bff(ngram=1, threshold=0.5)):
        kept, repeated = decided(sliced, method)
        assert (kept[1:3], repeated[1:3]) == ((1, 0), (2, 1)) and len(repeated[0]) == 1
