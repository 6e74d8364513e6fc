"""Exact duplicates against plain Python, whatever the memory, the order and the number of tables."""

import hashlib
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from pipeline.dedupe import LOSERS
from pipeline.dedupe.exact import INPUT, find_duplicates, hash_texts
from pipeline.errors import PipelineError

SOURCES = ["dclm", "wiki", "arxiv"]


def row(text: str, source_order: int, id_: str, part: int, row_: int) -> dict:
    return {"hash": hashlib.md5(text.encode()).digest(), "source_order": source_order, "id": id_, "part": part, "row": row_}


def random_rows(seed: int, count: int) -> list[dict]:
    draw = random.Random(seed)
    rows = []
    for index in range(count):
        text = "one very common text" if draw.random() < 0.2 else str(draw.randrange(count))
        part = index // 50
        rows.append(row(text, part % 3, f"{draw.choice('éaZ')}{draw.randrange(count)}", part, index % 50))
    return rows


def expected_losers(rows: list[dict]) -> list[dict]:
    winners: dict[bytes, dict] = {}

    def rank(r: dict) -> tuple:
        return r["source_order"], r["id"].encode(), r["part"], r["row"]

    for each in sorted(rows, key=rank):
        winners.setdefault(each["hash"], each)
    losers = [(each, winners[each["hash"]]) for each in rows if winners[each["hash"]] is not each]
    losers.sort(key=lambda pair: (pair[0]["part"], pair[0]["row"]))
    return [
        {"part": lost["part"], "row": lost["row"], "duplicate_of": kept["id"], "duplicate_of_source": SOURCES[kept["source_order"]]}
        for lost, kept in losers
    ]


def write(rows: list[dict], folder: Path) -> list[tuple[Path, int]]:
    """One Parquet file per part, and the order of its source beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for part in range(max((row["part"] for row in rows), default=-1) + 1):
        mine = [row for row in rows if row["part"] == part]
        path = folder / f"{part}.parquet"
        table = pa.Table.from_pylist([{name: row[name] for name in INPUT.names} for row in mine], schema=INPUT)
        pq.write_table(table, path)
        parts.append((path, mine[0]["source_order"] if mine else 0))
    return parts


def test_finds_what_plain_python_finds(tmp_path: Path) -> None:
    rows = random_rows(1, 3_000)
    count = find_duplicates(write(rows, tmp_path), SOURCES, tmp_path / "out.parquet")
    found = pq.read_table(tmp_path / "out.parquet")
    assert found.to_pylist() == expected_losers(rows) and count == len(found) > 500
    assert found.schema.equals(LOSERS)


def test_order_of_rows_and_memory_do_not_change_a_byte(tmp_path: Path) -> None:
    rows = random_rows(2, 2_000)
    contents = set()
    for seed, memory in enumerate([512, 128, 1_000]):
        random.Random(seed).shuffle(rows)
        find_duplicates(write(rows, tmp_path / str(seed)), SOURCES, tmp_path / "out.parquet", memory)
        contents.add((tmp_path / "out.parquet").read_bytes())
    assert len(contents) == 1


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_a_group_of_copies_may_span_many_batches(batch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = random_rows(3, 300)
    monkeypatch.setattr("pipeline.dedupe.sorting.ROWS", batch)
    find_duplicates(write(rows, tmp_path), SOURCES, tmp_path / "out.parquet")
    assert pq.read_table(tmp_path / "out.parquet").to_pylist() == expected_losers(rows)


def test_spills_to_disk_and_still_gives_the_same_bytes(tmp_path: Path) -> None:
    # 240,000 rows of some 650 bytes do not fit in 128 MB; half of them are one and the same text.
    count, contents = 240_000, []
    hashes = pa.array([b"x" * 16 if i % 2 else (i // 6 + 1).to_bytes(16, "little") for i in range(count)], pa.binary(16))
    ids = pa.array([f"{i * 7919 % count:0600d}" for i in range(count)])
    columns = [hashes, ids, pa.array(range(count))]
    pq.write_table(pa.table(columns, schema=INPUT), tmp_path / "in.parquet", use_dictionary=False)
    for memory in (128, 1_000):
        assert find_duplicates([(tmp_path / "in.parquet", 0)], SOURCES, tmp_path / "out.parquet", memory) == 199_999
        contents.append((tmp_path / "out.parquet").read_bytes())
    assert contents[0] == contents[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.parquet", "out.parquet"]


def test_lowest_source_wins_then_lowest_id_then_place(tmp_path: Path) -> None:
    rows = [
        row("t", 1, "a", 0, 0), row("t", 0, "z", 1, 0), row("t", 0, "y", 2, 0),
        row("u", 2, "same", 3, 5), row("u", 2, "same", 3, 4), row("alone", 0, "b", 4, 0),
    ]  # fmt: skip
    find_duplicates(write(rows, tmp_path), SOURCES, tmp_path / "out.parquet")
    assert pq.read_table(tmp_path / "out.parquet").to_pylist() == [
        {"part": 0, "row": 0, "duplicate_of": "y", "duplicate_of_source": "dclm"},
        {"part": 1, "row": 0, "duplicate_of": "y", "duplicate_of_source": "dclm"},
        {"part": 3, "row": 5, "duplicate_of": "same", "duplicate_of_source": "arxiv"},
    ]


@pytest.mark.parametrize("rows", [None, [], [row("t", 0, "a", 0, 0), row("u", 0, "a", 0, 1)]])
def test_nothing_to_drop_is_an_empty_table(rows: list[dict] | None, tmp_path: Path) -> None:
    assert find_duplicates([] if rows is None else write(rows, tmp_path), SOURCES, tmp_path / "out.parquet") == 0
    assert pq.read_table(tmp_path / "out.parquet").schema.equals(LOSERS)


def test_a_table_without_the_columns_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"hash": [b"x"]}), tmp_path / "in.parquet")
    with pytest.raises(PipelineError, match=r"in\.parquet has no column id, row; it has hash"):
        find_duplicates([(tmp_path / "in.parquet", 0)], SOURCES, tmp_path / "out.parquet")


def test_too_little_memory_is_said_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="memory_limit_mb is 64"):
        find_duplicates([(Path("missing.parquet"), 0)], SOURCES, tmp_path / "out.parquet", memory_limit_mb=64)


def test_the_hash_is_that_of_the_normal_form() -> None:
    expected = [xxhash.xxh3_128(text.encode()).digest() for text in ("caf\u00e9 au lait", "")]
    assert hash_texts(["  Cafe\u0301\n\tAU\u00a0 lait ", " \n"]).to_pylist() == expected
    assert hash_texts([]).type == pa.binary(16)


spaces = st.sampled_from([" ", "\n", "\t ", "\u3000", "\r\n\r\n"])


@given(st.lists(st.sampled_from(["Ünder", "STRASSE", "word", "漢字", "e\u0301tat"]), min_size=1, max_size=6), st.data())
def test_case_spacing_and_composition_do_not_matter_and_words_do(words: list[str], data: st.DataObject) -> None:
    other = "".join(data.draw(st.sampled_from([word, word.lower()])) + data.draw(spaces) for word in words)
    first, second, third = hash_texts([" ".join(words), other, " ".join([*words, "more"])]).to_pylist()
    assert first == second != third
