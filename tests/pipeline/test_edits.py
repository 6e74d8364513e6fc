"""Edits against plain Python on characters that remember where they came from."""

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import edits
from pipeline.errors import PipelineError
from pipeline.taggers import SPANS

Origin = list[tuple[str, int, int]]  # each character with the bytes of the document that it stands for


def table(spans: list[tuple[int, int, int, str]], by: str = "rule") -> pa.Table:
    return pa.Table.from_pylist([dict(zip(SPANS.names, (*span, by), strict=True)) for span in spans], schema=SPANS)


def spelled(text: str) -> Origin:
    places, at = [], 0
    for character in text:
        size = len(character.encode())
        places.append((character, at, at + size))
        at += size
    return places


def edited(text: str, spans: list[tuple[int, int, str]]) -> Origin:
    """The text after its spans: kept characters where they were, those of a replacement over all that they replace."""
    result: Origin = []
    rest = spelled(text)
    for start, end, replacement in spans:
        result += [c for c in rest if c[2] <= start]
        result += [(character, start, end) for character in replacement]
        rest = [c for c in rest if c[1] >= end]
    return result + rest


texts = st.text(st.sampled_from("ab \n.é漢😀"), max_size=12)


@st.composite
def texts_and_spans(draw: st.DrawFn, text: st.SearchStrategy[str] = texts) -> tuple[str, list[tuple[int, int, str]]]:
    found = draw(text)
    bounds = [0, *(end for _, _, end in spelled(found))]
    cuts = sorted(set(draw(st.lists(st.sampled_from(bounds), max_size=6))))
    pairs = zip(cuts[::2], cuts[1::2], strict=False)
    return found, [(start, end, draw(st.sampled_from(["", "X", "|é|"]))) for start, end in pairs]


def rows_of(batch: list[tuple[str, list[tuple[int, int, str]]]]) -> pa.Table:
    return table([(row, *span) for row, (_, spans) in enumerate(batch) for span in spans])


@given(st.lists(texts_and_spans(), max_size=4))
@settings(max_examples=150, deadline=None)
def test_spans_are_replaced_and_nothing_else(batch: list[tuple[str, list[tuple[int, int, str]]]]) -> None:
    result = edits.apply(pa.array([text for text, _ in batch], pa.string()), rows_of(batch))
    assert result.to_pylist() == ["".join(c for c, _, _ in edited(*each)) for each in batch]


@given(st.lists(texts_and_spans(), min_size=1, max_size=3), st.data())
@settings(max_examples=150, deadline=None)
def test_places_in_edited_text_lead_back_to_the_document(batch: list[tuple[str, list[tuple[int, int, str]]]], data: st.DataObject) -> None:
    origins = [edited(*each) for each in batch]
    spans, expected = [], []
    for row, origin in enumerate(origins):
        text = "".join(character for character, _, _ in origin)
        bounds = [0, *(end for _, _, end in spelled(text))]
        cuts = sorted(set(data.draw(st.lists(st.sampled_from(bounds), max_size=6))))
        for start, end in zip(cuts[::2], cuts[1::2], strict=False):
            first, last = bounds.index(start), bounds.index(end) - 1
            spans.append((row, start, end, ""))
            expected.append((origin[first][1], origin[last][2]))
    found = edits.original(table(spans), rows_of(batch))
    assert list(zip(found["start"].to_pylist(), found["end"].to_pylist(), strict=True)) == expected


@given(texts_and_spans(), st.data())
@settings(max_examples=100, deadline=None)
def test_removing_from_edited_text_is_one_edit_of_the_document(first: tuple[str, list[tuple[int, int, str]]], data: st.DataObject) -> None:
    text, spans = first
    middle = "".join(character for character, _, _ in edited(text, spans))
    _, removed = data.draw(texts_and_spans(st.just(middle)))
    removed = [(start, end, "") for start, end, _ in removed]
    twice = edits.apply(edits.apply(pa.array([text]), rows_of([first])), rows_of([(middle, removed)]))
    mapped = edits.original(rows_of([(middle, removed)]), rows_of([first]))
    once = edits.apply(pa.array([text]), edits.union([rows_of([first]), mapped]))
    inside = "|" in "".join(replacement for _, _, replacement in spans)
    # A cut through a replacement takes all of it, so only then may the one pass remove more.
    assert once[0].as_py() == twice[0].as_py() or (inside and len(once[0].as_py()) < len(twice[0].as_py()))


def test_overlapping_editors_are_united() -> None:
    lines = table([(0, 10, 20, ""), (1, 0, 4, "")], "lines")
    mail = table([(0, 2, 6, "@"), (0, 12, 15, "@"), (0, 18, 25, "@"), (1, 0, 4, "@")], "mail")
    assert edits.union([lines, mail]).to_pylist() == [
        {"row": 0, "start": 2, "end": 6, "replacement": "@", "by": "mail"},
        {"row": 0, "start": 10, "end": 25, "replacement": "@", "by": "lines"},
        {"row": 1, "start": 0, "end": 4, "replacement": "@", "by": "mail"},
    ]


@pytest.mark.parametrize(
    "spans",
    [[(0, 1, 2, "")], [(0, 0, 9, "")], [(0, 2, 1, "")], [(0, 1, 1, "X")], [(0, 0, 3, ""), (0, 2, 4, "")], [(0, 3, 4, ""), (0, 0, 1, "")]],
)
def test_an_edit_that_would_break_a_text_is_refused(spans: list[tuple[int, int, int, str]]) -> None:
    with pytest.raises(PipelineError, match="the edit of bytes"):
        edits.apply(pa.array(["aéb ."]), table(spans))
