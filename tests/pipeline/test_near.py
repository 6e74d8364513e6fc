"""Near-duplicates against plain Python: the pairs of a band, the clusters they make, who stays, whatever the memory and the order."""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.dedupe import LOSERS, sorting
from pipeline.dedupe.methods import Near
from pipeline.dedupe.near import CLUSTERS, EDGES, band_pairs, clusters
from pipeline.errors import PipelineError
from pipeline.taggers import Batch, tag
from pipeline.taggers.kinds import KINDS, Attribute

SOURCES = ["dclm", "wiki", "arxiv"]
BANDS = 3

Parts = list[tuple[Path, int]]
Document = tuple[str, tuple[int, ...]]  # id, and a hash for each band


def write(documents: Sequence[Sequence[Document]], folder: Path, orders: Sequence[int] | None = None) -> Parts:
    """A file for each part, its rows being every other document of it; sources in turn, unless their orders are given."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for number, part in enumerate(documents):
        stored = [b"".join(hashed.to_bytes(8, "little") for hashed in hashes) for _, hashes in part]
        columns = {
            "id": pa.array([name for name, _ in part], pa.string()),
            "row": pa.array(range(0, 2 * len(part), 2), pa.int64()),
            "near": pa.array(stored, pa.binary(8 * BANDS)),
        }
        pq.write_table(pa.table(columns), folder / f"{number}.parquet", row_group_size=7)
        parts.append((folder / f"{number}.parquet", orders[number] if orders else number % len(SOURCES)))
    return parts


def random_documents(seed: int, count: int, size: int = 50) -> list[list[Document]]:
    draw = random.Random(seed)

    def hashed() -> int:
        return draw.choices([0, 1, draw.randrange(count), draw.getrandbits(64)], [1, 1, 3, 15])[0]

    documents = [(f"{draw.choice('éaZ')}{draw.randrange(count)}", tuple(hashed() for _ in range(BANDS))) for _ in range(count)]
    return [documents[start : start + size] for start in range(0, count, size)]


def pairs_in_python(documents: Sequence[Sequence[Document]], band: int, gone: set[tuple[int, int]]) -> list[tuple[int, int]]:
    places = [(part, 2 * index) for part, found in enumerate(documents) for index in range(len(found))]
    hashes = [hashed[band] for part in documents for _, hashed in part]
    first: dict[int, int] = {}
    pairs = []
    for document, hashed in enumerate(hashes):
        if hashed and places[document] not in gone:
            pairs.append((hashed, first.setdefault(hashed, document), document))
    return [(document, other) for _, document, other in sorted(pairs, key=lambda pair: (pair[0], pair[2])) if document != other]


def clusters_in_python(
    documents: Sequence[Sequence[Document]], orders: Sequence[int], edges: Sequence[tuple[int, int]]
) -> list[list[dict]]:
    """The members of each cluster, the best first, clusters by their best."""
    rows = [
        {"source_order": orders[part], "id": name, "part": part, "row": 2 * index}
        for part, found in enumerate(documents)
        for index, (name, _) in enumerate(found)
    ]
    of = list(range(len(rows)))
    for first, second in edges:
        of = [of[first] if cluster == of[second] else cluster for cluster in of]
    members: dict[int, list[dict]] = {}
    for row, cluster in zip(rows, of, strict=True):
        members.setdefault(cluster, []).append(row)

    def rank(row: dict) -> tuple:
        return row["source_order"], row["id"].encode(), row["part"], row["row"]

    return sorted((sorted(found, key=rank) for found in members.values() if len(found) > 1), key=lambda found: rank(found[0]))


def check(found: Sequence[list[dict]], out: Path, losers: Path, counts: dict[str, int]) -> None:
    assert pq.read_table(out).to_pylist() == [
        {"part": row["part"], "row": row["row"], "id": row["id"], "source": SOURCES[row["source_order"]]}
        | {"cluster": number, "size": len(members), "keeps": row is members[0]}
        for number, members in enumerate(found)
        for row in members
    ]
    lost = [
        {"part": row["part"], "row": row["row"], "duplicate_of": best["id"], "duplicate_of_source": SOURCES[best["source_order"]]}
        for best, *others in found
        for row in others
    ]
    assert pq.read_table(losers).to_pylist() == sorted(lost, key=lambda row: (row["part"], row["row"]))
    assert pq.read_schema(out).equals(CLUSTERS) and pq.read_schema(losers).equals(LOSERS)
    sizes = [len(members) for members in found]
    assert counts == {"clusters": len(sizes), "members": sum(sizes), "duplicates": len(lost), "largest": max(sizes, default=0)}


@pytest.fixture(params=["in memory", "by DuckDB", "by DuckDB, 7 rows a table"])
def sorts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param != "in memory":
        monkeypatch.setattr(sorting, "_FEW_BYTES", -1)
    if "7 rows" in request.param:
        monkeypatch.setattr(sorting, "ROWS", 7)


@pytest.mark.usefixtures("sorts")
def test_pairs_and_clusters_are_those_of_plain_python(tmp_path: Path) -> None:
    documents = random_documents(1, 600)
    parts = write(documents, tmp_path)
    edges = []
    for band in range(BANDS):
        expected = pairs_in_python(documents, band, set())
        assert band_pairs(parts, "near", band, tmp_path / f"{band}.edges") == len(expected) > 20
        table = pq.read_table(tmp_path / f"{band}.edges")
        assert [tuple(row.values()) for row in table.to_pylist()] == expected and table.schema.equals(EDGES)
        edges += expected
    counts = clusters([tmp_path / f"{band}.edges" for band in range(BANDS)], parts, SOURCES, tmp_path / "out", tmp_path / "losers")
    found = clusters_in_python(documents, [order for _, order in parts], edges)
    assert len(found) > 10 and max(map(len, found)) > 30
    check(found, tmp_path / "out", tmp_path / "losers", counts)


def test_what_earlier_steps_removed_counts_for_nothing(tmp_path: Path) -> None:
    documents = random_documents(2, 300)
    parts = write(documents, tmp_path)
    draw = random.Random(3)
    gone = sorted((part, 2 * row) for part in range(6) for row in draw.sample(range(50), 20))
    tables = [tmp_path / "first.gone", tmp_path / "second.gone"]
    for table, rows in zip(tables, (gone[::2], gone[1::2]), strict=True):
        columns = [[part for part, _ in rows], [row for _, row in rows], [""] * len(rows), [""] * len(rows)]
        pq.write_table(pa.table(columns, schema=LOSERS), table)
    band_pairs(parts, "near", 0, tmp_path / "edges", without=tables)
    expected = pairs_in_python(documents, 0, set(gone))
    assert [tuple(row.values()) for row in pq.read_table(tmp_path / "edges").to_pylist()] == expected
    assert 0 < len(expected) < len(pairs_in_python(documents, 0, set()))


def test_memory_and_the_order_of_edges_do_not_change_a_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = write(random_documents(4, 500), tmp_path)
    contents = set()
    for number, (memory, few) in enumerate([(512, 1 << 24), (128, -1), (1_000, -1)]):
        monkeypatch.setattr(sorting, "_FEW_BYTES", few)
        edges = [tmp_path / f"{number}-{band}" for band in range(BANDS)]
        for band, path in enumerate(edges):
            band_pairs(parts, "near", band, path, memory)
        random.Random(number).shuffle(edges)
        clusters(edges, parts, SOURCES, tmp_path / "out", tmp_path / "losers", memory)
        pairs = b"".join(path.read_bytes() for path in sorted(edges))
        contents.add((pairs, (tmp_path / "out").read_bytes(), (tmp_path / "losers").read_bytes()))
    assert len(contents) == 1


@given(
    edges=st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=30),
    orders=st.lists(st.integers(0, 2), min_size=4, max_size=4),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_edges_make_the_clusters_of_plain_python(edges: list[tuple[int, int]], orders: list[int], tmp_path: Path) -> None:
    documents = [[(f"{(part * 7 + row * 3) % 11}", (0,) * BANDS) for row in range(5)] for part in range(4)]
    parts = write(documents, tmp_path, orders)
    edges = [(first, second) for first, second in edges if first != second]
    columns = [[first for first, _ in edges], [second for _, second in edges]]
    pq.write_table(pa.table(columns, schema=EDGES), tmp_path / "edges")
    counts = clusters([tmp_path / "edges"], parts, SOURCES, tmp_path / "out", tmp_path / "losers")
    check(clusters_in_python(documents, orders, edges), tmp_path / "out", tmp_path / "losers", counts)


def test_a_long_chain_is_one_cluster(tmp_path: Path) -> None:
    count = 20_000
    links = list(range(count - 1))
    random.Random(1).shuffle(links)
    parts = write([[("x", (0,) * BANDS)] * count], tmp_path)
    pq.write_table(pa.table([links, [link + 1 for link in links]], schema=EDGES), tmp_path / "edges")
    assert clusters([tmp_path / "edges"], parts, SOURCES, tmp_path / "out", tmp_path / "losers") == {
        "clusters": 1, "members": count, "duplicates": count - 1, "largest": count,
    }  # fmt: skip


@pytest.mark.parametrize("documents", [[], [[]], [[("a", (1, 2, 3))], [("b", (4, 5, 6))]], [[("a", (0, 0, 0)), ("b", (0, 0, 0))]]])
def test_nothing_to_drop_is_an_empty_table(documents: list[list[Document]], tmp_path: Path) -> None:
    parts = write(documents, tmp_path)
    assert [band_pairs(parts, "near", band, tmp_path / f"{band}.edges") for band in range(BANDS)] == [0] * BANDS
    counts = clusters([tmp_path / "0.edges"], parts, SOURCES, tmp_path / "out", tmp_path / "losers")
    check([], tmp_path / "out", tmp_path / "losers", counts)


# What follows starts at texts.

WORDS = [f"{first}{second}{third}" for first in "bdfgklmn" for second in "aeiou" for third in "rstxz"]


def planted(seed: int, originals: int, copies: int) -> list[tuple[str, str]]:
    """Ids and texts: `originals` of 300 words, and of each `copies` in which some 9 words in a row are others."""
    draw = random.Random(seed)
    documents = []
    for original in range(originals):
        words = draw.choices(WORDS, k=300)
        for copy in range(copies + 1):
            start = draw.randrange(290)
            edited = words[:start] + draw.choices(WORDS, k=9) + words[start + 9 :] if copy else words
            documents.append((f"{original:03d}-{draw.getrandbits(32)}", " ".join(edited)))
    return documents


def dedupe(documents: Sequence[tuple[str, str]], folder: Path, size: int = 40) -> tuple[list[dict], set[str]]:
    """The rows of the clusters and the ids of those that stay."""
    folder.mkdir()
    tagger = Attribute("near", KINDS["minhash"], Near(), Path()).tagger({})
    parts = []
    for start in range(0, len(documents), size):
        ids, texts = zip(*documents[start : start + size], strict=True)
        near = tag([tagger], Batch(pa.table({"text": texts})))["near"]
        pq.write_table(pa.table({"id": ids, "row": range(len(ids)), "near": near}), folder / f"{start}.parquet")
        parts.append((folder / f"{start}.parquet", 0))
    edges = [folder / f"{band}.edges" for band in range(14)]
    for band, path in enumerate(edges):
        band_pairs(parts, "near", band, path)
    clusters(edges, parts, SOURCES, folder / "out", folder / "losers")
    found = pq.read_table(folder / "out").to_pylist()
    return found, {name for name, _ in documents} - {row["id"] for row in found if not row["keeps"]}


def test_planted_clusters_are_found_and_nothing_else(tmp_path: Path) -> None:
    documents = planted(1, originals=40, copies=3)
    found, kept = dedupe(documents, tmp_path / "run")
    assert len(found) == len(documents) and {row["size"] for row in found} == {4}
    assert all(row["id"].startswith(f"{row['cluster']:03d}-") for row in found)
    assert kept == {min(name for name, _ in documents if name.startswith(f"{number:03d}-")) for number in range(40)}


def test_deduping_twice_removes_nothing_more(tmp_path: Path) -> None:
    documents = planted(2, originals=30, copies=4)
    found, kept = dedupe(documents, tmp_path / "once")
    again, kept_again = dedupe([document for document in documents if document[0] in kept], tmp_path / "twice")
    assert found and not again and kept == kept_again


def test_order_and_parts_do_not_decide_who_stays(tmp_path: Path) -> None:
    documents = planted(3, originals=30, copies=2)
    kept = []
    for number, size in enumerate([40, 7, 1_000]):
        random.Random(number).shuffle(documents)
        kept.append(dedupe(documents, tmp_path / str(number), size)[1])
    assert kept[0] == kept[1] == kept[2] and len(kept[0]) == 30


def test_a_part_without_the_column_or_the_band_is_refused(tmp_path: Path) -> None:
    parts = write(random_documents(5, 60), tmp_path)
    with pytest.raises(PipelineError, match=r"0\.parquet has no column minhash; it has id, row, near"):
        band_pairs(parts, "minhash", 0, tmp_path / "edges")
    with pytest.raises(PipelineError, match=r"0\.parquet: column near is .*24.*no band 3"):
        band_pairs(parts, "near", BANDS, tmp_path / "edges")
    with pytest.raises(PipelineError, match=r"0\.parquet: column id is string, which has no band 0"):
        band_pairs(parts, "id", 0, tmp_path / "edges")


def test_pairs_of_other_parts_are_refused(tmp_path: Path) -> None:
    parts = write(random_documents(6, 60), tmp_path)
    pq.write_table(pa.table([[3], [60]], schema=EDGES), tmp_path / "edges")
    with pytest.raises(PipelineError, match="edges names a document beyond the 60 of these parts"):
        clusters([tmp_path / "edges"], parts, SOURCES, tmp_path / "out", tmp_path / "losers")


def test_too_little_memory_is_said_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="memory_limit_mb is 64"):
        band_pairs([(Path("missing.parquet"), 0)], "near", 0, tmp_path / "edges", memory_limit_mb=64)


ID = pa.schema([pa.field("id", pa.string(), nullable=False)])


@pytest.mark.slow
def test_sorting_spills_to_disk_and_leaves_nothing_behind(tmp_path: Path) -> None:
    # 180,000 rows of some 800 bytes do not fit in 128 MB.
    count = 180_000
    ids = pa.array([f"{index * 7919 % count:0800d}" for index in range(count)])
    rows = [pa.table([ids.slice(start, 10_000)], schema=ID) for start in range(0, count, 10_000)]
    contents, spilled = set(), []
    for memory in (128, 1_000):
        with sorting.scratch("a test", tmp_path / "out", memory) as folder:
            tables = sorting.sort(rows, ID, ["id"], memory, folder)
            first = next(tables)
            spilled.append(sum(path.stat().st_size for path in folder.iterdir()) > 0)
            assert sorting.write([first, *tables], ID, tmp_path / "out") == count
        contents.add((tmp_path / "out").read_bytes())
    assert spilled == [True, False] and len(contents) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert pq.read_table(tmp_path / "out")["id"].combine_chunks().equals(ids.sort())


@pytest.mark.parametrize("few", [-1, 1 << 24])
def test_an_error_on_the_way_to_sorting_is_told_as_it_is(few: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sorting, "_FEW_BYTES", few)

    def tables() -> Iterator[pa.Table]:
        yield pa.table({"id": ["a"]}, schema=ID)
        raise PipelineError("part 7 is torn")

    with pytest.raises(PipelineError, match="^part 7 is torn$"), sorting.scratch("a test", tmp_path / "out", 128) as folder:
        list(sorting.sort(tables(), ID, ["id"], 128, folder))
    assert not list(tmp_path.iterdir())
