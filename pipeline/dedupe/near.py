"""Near-duplicates: documents that share a MinHash band form clusters, and one of each cluster stays.

In:   the parts of a scope as tables of id, row and band hashes (taggers/minhash.py); `band_pairs` takes one band of them
      and can run for all bands at once, `clusters` takes what they found.
Out:  `clusters`: every document that has a near-duplicate, its cluster and whether it stays, and the losers as exact
      dedupe writes them.
Cost: 0.3 µs of CPU per document and band to sort its hashes, 5 µs per document in a cluster. Memory is the sort's limit
      and 300 MB; on disk, in a temporary folder beside the output, 16 bytes per document and the clusters' rows uncompressed.
      Which cluster a document is in is a file mapped into memory, 16 bytes per document: fast while the machine can cache it.
Not:  texts are not compared: what shares a band is near, and near is transitive, so the ends of a chain may differ much.
      Two bands whose 64-bit hashes collide join by mistake: of 3 billion documents and 14 bands, 3 pairs.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.dedupe import LOSERS, removed_before
from pipeline.dedupe.sorting import MEMORY_LIMIT_MB, read, scratch, sort, write
from pipeline.errors import PipelineError

EDGES = pa.schema([pa.field("document", pa.int64(), nullable=False), pa.field("other", pa.int64(), nullable=False)])
CLUSTERS = pa.schema(
    [
        pa.field("part", pa.int64(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("cluster", pa.int64(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),  # documents in the cluster
        pa.field("keeps", pa.bool_(), nullable=False),
    ]
)
_HASHES = pa.schema([pa.field("hash", pa.uint64()), pa.field("document", pa.int64())])
_RANK = [("source_order", pa.int32()), ("id", pa.string()), ("part", pa.int64()), ("row", pa.int64())]
_MEMBERS = pa.schema([*_RANK, ("root", pa.int64()), ("size", pa.int64())])
_RANKED = pa.schema([*_MEMBERS, *((f"best_{name}", kind) for name, kind in _RANK)])

Parts = Sequence[tuple[Path, int]]


def band_pairs(
    parts: Parts, column: str, band: int, out: Path, memory_limit_mb: int = MEMORY_LIMIT_MB, without: Sequence[Path] = ()
) -> int:
    """Write to `out` the pairs of documents that share a hash in `band` (from 0); returns how many.

    parts: Parquet files with the columns row (the document's index within its part) and `column` of band hashes, each with
    the order of its source; a part's number is its place in this list. A document is known by its place among the rows of
    all these files. without: tables with part and row of documents that are out already and count for nothing. Of those
    with one hash, each is paired with the first. `out` is Parquet with the schema EDGES, by hash and then by document, the
    same bytes whatever the memory limit (MB, at least 128). Raises PipelineError if a part lacks the column or the band, or
    if memory or disk is too small.
    """
    with scratch(f"band {band} of {column} in {len(parts)} parts", out, memory_limit_mb) as folder:
        hashes = sort(_hashes(parts, column, band, without), _HASHES, ["hash", "document"], memory_limit_mb, folder)
        return write(_pairs(hashes), EDGES, out)


def _hashes(parts: Parts, column: str, band: int, without: Sequence[Path]) -> Iterator[pa.Table]:
    first = 0
    for number, (path, _) in enumerate(parts):
        gone = removed_before(without, number)
        for table in read(path, ["row", column]):
            stored = table[column].combine_chunks()
            width = stored.type.byte_width if pa.types.is_fixed_size_binary(stored.type) else 0
            if width % 8 or width < 8 * (band + 1):
                raise PipelineError(f"{path}: column {column} is {stored.type}, which has no band {band} of 8 bytes")
            flat = np.frombuffer(stored.buffers()[1], dtype="<u8", count=(stored.offset + len(stored)) * width // 8)
            hashes = flat.reshape(-1, width // 8)[stored.offset :, band]
            counts = hashes != 0  # 0: a text without words
            if len(gone):
                counts &= ~np.isin(table["row"].to_numpy(), gone)
            yield pa.table([hashes[counts], first + np.flatnonzero(counts)], schema=_HASHES)
            first += len(table)


def _pairs(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Of rows sorted by hash and document, each beside the first of its hash, and the first ones left out."""
    hashed, document = np.uint64(0), np.int64(-1)  # of the last row seen, and the first document with its hash
    for table in tables:
        hashes, documents = table["hash"].to_numpy(), table["document"].to_numpy()
        starts = hashes != np.concatenate([[hashed], hashes[:-1]])
        group = np.cumsum(starts)  # 0: goes on with the last table's
        firsts = np.concatenate([[document], documents[starts]])[group]
        hashed, document = hashes[-1], firsts[-1]
        yield pa.table([firsts[~starts], documents[~starts]], schema=EDGES)


def clusters(
    edges: Sequence[Path], parts: Parts, sources: Sequence[str], out: Path, losers: Path, memory_limit_mb: int = MEMORY_LIMIT_MB
) -> dict[str, int]:
    """Join documents by `edges`, write the clusters to `out` and all but the best of each to `losers`; returns counts.

    edges: files of `band_pairs` over these same parts, in any order. parts: Parquet files with the columns id and row
    (the document's index within its part), each with the order of its source; a part's number is its place in this
    list. sources: names by source order. Of a cluster the first by (source order, id, part, row) stays, strings in the
    order of their code points. Clusters are numbered from 0 by their best documents in that order. `out` has the schema
    CLUSTERS, by cluster and then in that order, so the best first; documents alike to none are not in it. `losers`
    has the schema LOSERS, sorted by (part, row). Both are the same bytes whatever the memory limit (MB, at least 128) and
    the order of `edges`.

    Counts: clusters, members (documents in them), duplicates (those that do not stay), largest (the most members).
    Raises PipelineError if a file is not as above, or if memory or disk is too small.
    """
    with scratch(f"near-duplicates of {len(parts)} parts", out, memory_limit_mb) as folder:
        roots, sizes = _joined(edges, sum(pq.read_metadata(path).num_rows for path, _ in parts), folder)
        members, ranked = folder / "members.parquet", folder / "ranked.parquet"
        write(_members(parts, roots, sizes), _MEMBERS, members)
        rank = [name for name, _ in _RANK]
        by_root = sort(read(members), _MEMBERS, ["root", *rank], memory_limit_mb, folder)
        count = write(_ranked(by_root), _RANKED, ranked)
        by_best = sort(read(ranked), _RANKED, [*(f"best_{name}" for name in rank), *rank], memory_limit_mb, folder)
        write(_numbered(by_best, sources), CLUSTERS, out)
        by_place = sort(_losers(read(ranked), sources), LOSERS, ["part", "row"], memory_limit_mb, folder)
        lost = write(by_place, LOSERS, losers)
        return {"clusters": count - lost, "members": count, "duplicates": lost, "largest": int(sizes.max(initial=0))}


def _joined(edges: Sequence[Path], documents: int, folder: Path) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """[documents] int64 each: the first document of each one's cluster and 1, or 0 where it has none; and at that first
    document the size of the cluster. Both are sparse files."""
    roots, sizes = (
        np.memmap(folder / name, dtype=np.int64, mode="w+", shape=max(documents, 1)).view(np.ndarray) for name in ("roots", "sizes")
    )
    for path in edges:
        for table in read(path, EDGES.names):
            first, other = (table[name].to_numpy() for name in EDGES.names)
            if len(table) and max(first.max(), other.max()) >= documents:
                raise PipelineError(f"{path} names a document beyond the {documents} of these parts; find its pairs anew")
            _join(roots, first, other)
    _settle(roots, sizes)
    return roots, sizes


@numba.njit(cache=True, nogil=True)
def _join(roots, first, other):  # type: ignore[no-untyped-def]
    """Union by the lower number, so that a cluster's root is its first document in whatever order edges come."""
    for edge in range(len(first)):
        a, b = _root(roots, first[edge]), _root(roots, other[edge])
        roots[a] = roots[b] = min(a, b) + 1


@numba.njit
def _root(roots, document):  # type: ignore[no-untyped-def]
    if not roots[document]:
        return document
    while roots[document] != document + 1:
        roots[document] = roots[roots[document] - 1]  # halves the path for those who come after
        document = roots[document] - 1
    return document


@numba.njit(cache=True, nogil=True)
def _settle(roots, sizes):  # type: ignore[no-untyped-def]
    """Let everyone name its root directly, and count."""
    for document in range(len(roots)):
        if roots[document]:
            roots[document] = roots[roots[document] - 1]  # what it names is lower and so has been settled
            sizes[roots[document] - 1] += 1


def _members(parts: Parts, roots: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64]) -> Iterator[pa.Table]:
    first = 0
    for number, (path, source_order) in enumerate(parts):
        for table in read(path, ["id", "row"]):
            root = roots[first : first + len(table)]
            chosen = np.flatnonzero(root)
            first += len(table)
            if len(chosen):
                taken = table.take(pa.array(chosen))
                root = root[chosen] - 1
                order, part = np.full(len(root), source_order), np.full(len(root), number)
                columns = [order, taken["id"], part, taken["row"], root, sizes[root]]
                yield pa.table(columns, names=_MEMBERS.names).cast(_MEMBERS)


def _ranked(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Of rows sorted by cluster and rank, each with the best of its cluster beside it."""
    best: pa.Table | None = None  # of the cluster that the last table ended in
    for table in tables:
        rows = pa.concat_tables([best, table]).combine_chunks() if best else table
        root = rows["root"].to_numpy()
        at = np.maximum.accumulate(np.where(np.concatenate([[True], root[1:] != root[:-1]]), np.arange(len(root)), 0))
        winners = rows.take(pa.array(at)).select([name for name, _ in _RANK])
        ranked = pa.table([*rows.columns, *winners.columns], schema=_RANKED)
        yield ranked.slice(1 if best else 0)
        best = rows.slice(int(at[-1]), 1)


def _keeps(table: pa.Table) -> pa.ChunkedArray:
    """Whether a row is the best of its cluster, which its place alone tells."""
    return pc.and_(pc.equal(table["part"], table["best_part"]), pc.equal(table["row"], table["best_row"]))


def _numbered(tables: Iterable[pa.Table], sources: Sequence[str]) -> Iterator[pa.Table]:
    names = pa.array(list(sources), pa.string())
    before = 0
    for table in tables:
        keeps = _keeps(table)  # the best row comes first, so each begins a cluster
        cluster = np.cumsum(keeps.to_numpy()) + (before - 1)
        before = int(cluster[-1]) + 1
        source = names.take(table["source_order"].combine_chunks())
        columns = [table["part"], table["row"], table["id"], source, cluster, table["size"], keeps]
        yield pa.table(columns, schema=CLUSTERS)


def _losers(tables: Iterable[pa.Table], sources: Sequence[str]) -> Iterator[pa.Table]:
    names = pa.array(list(sources), pa.string())
    for table in tables:
        lost = table.filter(pc.invert(_keeps(table))).combine_chunks()
        best_source = names.take(lost["best_source_order"].combine_chunks())
        yield pa.table([lost["part"], lost["row"], lost["best_id"], best_source], schema=LOSERS)
