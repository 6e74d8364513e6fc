"""Our filters beside those of the packages that published them, document by document.

The packages' values lie in tests/golden (made by tools/golden.py), the texts in this installation (tools/curation/texts.py):
made ones, on either side of every limit, and files of packages. What is compared with what: tools/curation/agreement.py.
"""

import hashlib
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.taggers import TAGGERS, run
from tools.curation import ours, texts
from tools.curation.agreement import COLUMNS, EDITED, PREPARED, REASONS
from tools.curation.our_dedupe import batch
from tools.golden import GOLDEN

WITHOUT = ("refinedweb_language", "c4_dolma_listed_words")  # whose files are not in the repository


@cache
def known() -> tuple[list[str], pa.Array, np.ndarray]:
    """Names and texts of the documents that are installed here as they were, and their rows in the golden tables."""
    table = pq.read_table(GOLDEN / "documents.parquet").to_pydict()
    found = texts.find(table["name"])
    rows = [row for row, (name, key) in enumerate(zip(*table.values(), strict=True)) if name in found and texts.key(found[name]) == key]
    names = [table["name"][row] for row in rows]
    return names, pa.array([found[name] for name in names], pa.large_string()), np.array(rows)


@cache
def golden(peer: str) -> pa.Table:
    table = pq.read_table(GOLDEN / f"{peer}.parquet")
    assert table["key"].equals(pq.read_table(GOLDEN / "documents.parquet")["key"]), "run python -m tools.golden"
    return table.take(known()[2])


@cache
def judged(name: str) -> ours.Judged:
    return ours.Filters(name, without=WITHOUT).judge([known()[1]])


@cache
def column(name: str) -> np.ndarray:
    [owner] = [tagger for tagger in TAGGERS.values() if name in tagger.columns]
    return attributes(owner.name)[name].to_numpy()


@cache
def attributes(tagger: str) -> pa.Table:
    return run(TAGGERS[tagger], batch(known()[1]))[0]


def first_reasons(name: str, table: pa.Table) -> list[str | None]:
    columns = [table[column].to_pylist() for column in REASONS[name].columns]
    return [next(filter(None, row), None) for row in zip(*columns, strict=True)]


def test_enough_of_the_documents_are_found() -> None:
    total = pq.read_metadata(GOLDEN / "documents.parquet").num_rows
    assert len(known()[2]) >= 0.8 * total, "packages have changed; make the tables anew with python -m tools.golden"


def test_peers_give_reasons_that_are_known_and_keep_documents() -> None:
    for name, reasons in REASONS.items():
        found = set(first_reasons(name, pq.read_table(GOLDEN / f"{reasons.peer}.parquet")))
        assert None in found and found - {None} <= reasons.predicates.keys(), name


@pytest.mark.parametrize(("peer", "mine", "theirs"), [(peer, *pair) for peer, pairs in COLUMNS.items() for pair in pairs.items()])
def test_value_is_the_peers(peer: str, mine: str, theirs: str) -> None:
    values = golden(peer)[theirs].to_numpy()
    there = ~np.isnan(values)
    assert there.sum() > 100
    # Dolma's attribute files have five decimals, and so have our columns of it.
    expected = np.array([round(value, 5) for value in values.tolist()]) if peer == "dolma" else values
    differs = np.flatnonzero(there & ~np.isclose(column(mine), expected, rtol=1e-12, atol=1e-12))
    assert not len(differs), {known()[0][row]: (column(mine)[row], expected[row]) for row in differs[:5]}


@pytest.mark.parametrize("name", REASONS)
def test_decision_and_first_reason_are_the_peers(name: str) -> None:
    reasons = REASONS[name]
    pairs = zip(first_reasons(name, golden(reasons.peer)), judged(name).dropped_by, strict=True)
    differs = {
        known()[0][row]: (theirs, mine)
        for row, (theirs, mine) in enumerate(pairs)
        if mine not in (reasons.predicates[theirs] if theirs else (None,))
    }
    assert not differs, (len(differs), dict(list(differs.items())[:5]))


@pytest.mark.parametrize("name", EDITED)
def test_text_that_is_left_is_the_peers(name: str) -> None:
    peer, column = EDITED[name]
    assert_hashes(judged(name).edited, golden(peer)[column])


@pytest.mark.parametrize("name", PREPARED)
def test_text_that_the_rules_see_is_the_peers(name: str) -> None:
    peer, column = PREPARED[name]
    assert_hashes(judged(name).prepared, golden(peer)[column])


def assert_hashes(mine: pa.ChunkedArray, theirs: pa.ChunkedArray) -> None:
    """Of the texts that the peer gives back, all are equal."""
    there = [(name, text, want) for name, text, want in zip(known()[0], mine.to_pylist(), theirs.to_pylist(), strict=True) if want]
    differs = [name for name, text, want in there if hashlib.sha256(text.encode()).hexdigest()[:16] != want]
    assert len(there) > 100
    assert not differs, (len(differs), differs[:5])
