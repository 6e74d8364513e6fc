"""`<store>/catalog.duckdb`: every table of the store as a view, for `make sql`, `make stats` and any DuckDB client.

    sources    one row per source: where it came from, licence, size of its raw files
    documents  one row per document read: where from, bytes, tokens, kept or dropped by what, shard and start
    funnel     documents, bytes and tokens per source by stage and reason; `read` is the sum of all others
    failures   records that could not be read, by name (within the failure budget)
    duplicates one row per document that dedupe dropped: by which step, and for which other document, where there is one
    clusters   one row per document that has near-duplicates: its cluster, the cluster's size, whether it stays
    edits      one row per span that was replaced in a kept document: bytes of the document as read, what stands there now, by which rule
    matches    one row per document and evaluation item that overlap
    attributes_<source>  one row per document, `-` in the name as `_`: all attributes that its rules used
    shards     one row per token shard
    mixes      per mix and source: requested beside obtained share, repeats, tokens, documents, instances
    runs       per stage and source: units, how many were reused in the last run, seconds, speed, peak memory

and of the models trained in the store, as trainer/metrics.py wrote them:

    steps        one row per run and step: losses, gradient norm, learning rate, speed, memory
    routers      one row per run, step and layer: expert loads, entropies, size of the logits
    evals        one row per run, evaluation and source: held-out loss, bits per byte
    checkpoints  one row per run and checkpoint: where, how large, how long it took
    instances    one row per run, step, instance and document in it: what was trained on when, and by which rank

These five read the runs' own files: a new run is in them at once. `instances` joins them with the document tables of the
store's shards, and reads all of these for any query: 20 ms on the sample; for one step of a large run take `make trace`.

The catalog holds no data that is not in the store: delete it and the next `make mix` or `make sql` writes it again.
Where several mixes share a source, its rows are those of the mix that was built last.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path

import duckdb

from pipeline import findings
from pipeline.errors import ConfigError
from pipeline.stages import decide, dedupe, edit, filter, gather, holdout, near, paragraphs, prepare, read, tag, tokenize
from pipeline.store import Store
from pipeline.training_tables import TABLES, pattern, write_columns
from pipeline.unit import Json

FILE = "catalog.duckdb"
STAGES = [
    read.STAGE, prepare.STAGE, tokenize.STAGE, tag.STAGE, filter.STAGE, holdout.STAGE, dedupe.STAGE, near.BANDS, near.CLUSTERS,
    paragraphs.STAGE, edit.STAGE, decide.STAGE, gather.STAGE,
]  # fmt: skip
STORAGE_VERSION = "v1.0.0"  # so that older clients can open it


def path(store: Store) -> Path:
    return store.path(FILE)


def is_current(store: Store) -> bool:
    """Whether there is a catalog, with this version's views."""
    if not path(store).exists():
        return False
    with duckdb.connect(path(store), read_only=True) as connection:
        views = {name for (name,) in connection.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()}
    return views >= TABLES.keys() | findings.VIEWS.keys()


def read_manifest(store: Store, mix: str) -> dict[str, Json]:
    """The build manifest of a mix. Raises ConfigError when it has not been built in this store."""
    try:
        return json.loads(store.path(f"mixes/{mix}.build.json").read_bytes())
    except FileNotFoundError:
        raise ConfigError(f"{mix} has not been built under {store.root}; run: make mix MIX={mix}") from None


def sources(store: Store, mix: str | None = None) -> dict[str, dict[str, Json]]:
    """What each source of the store rests on, as the mix says that was built last, or `mix` where it has the source."""
    manifests = sorted(
        store.path("mixes").glob("*.build.json"),
        key=lambda file: (file.name == f"{mix}.build.json", file.stat().st_mtime_ns, file.name), reverse=True,
    )  # fmt: skip
    found: dict[str, dict[str, Json]] = {}
    for file in manifests:
        for name, source in json.loads(file.read_bytes())["sources"].items():
            found.setdefault(name, source)
    return found


def write(store: Store, mix: str, computed: Iterable[str]) -> None:
    """Write the catalog anew, `mix` being the one built last; `computed`: the folders of the units it computed."""
    found = sources(store, mix)
    locks = [json.loads(file.read_bytes()) for file in sorted(store.path("mixes").glob("*.lock.json"))]
    aside = store.path(f".tmp-{os.getpid()}-{FILE}")
    aside.unlink(missing_ok=True)
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH '{_quoted(aside)}' AS catalog (STORAGE_VERSION '{STORAGE_VERSION}'); USE catalog")
        _tables(connection, store, found, locks, set(computed))
        _documents(connection, store, found)
        _failures(connection, store, found)
        findings.write(connection, store, found)
        _training(connection, store)
        connection.execute("USE memory; DETACH catalog")
    os.replace(aside, path(store))


def _tables(
    connection: duckdb.DuckDBPyConnection,
    store: Store,
    sources: dict[str, dict[str, Json]],
    locks: list[dict[str, Json]],
    computed: set[str],
) -> None:
    _table(
        connection, "sources",
        "source VARCHAR, title VARCHAR, origin VARCHAR, licence VARCHAR, revision VARCHAR, files BIGINT, raw_bytes BIGINT",
        [
            (name, s["title"], "; ".join(s["origin"]), "; ".join(s["licence"]), s["revision"], s["files"], s["raw_bytes"])
            for name, s in sources.items()
        ],
    )  # fmt: skip
    funnel = []
    for name, source in sources.items():
        lines = [(line["stage"], line["reason"], line["documents"], line["bytes"], line["tokens"]) for line in source["funnel"]]
        totals = [sum(line[i] for line in lines) for i in (2, 3, 4)]
        funnel += [(name, "read", "read", *totals)]
        funnel += [(name, "read", f"failed: {reason}", count, None, None) for reason, count in source["failed"].items()]
        funnel += [(name, *line) for line in lines]
    _table(connection, "funnel", "source VARCHAR, stage VARCHAR, reason VARCHAR, documents BIGINT, bytes BIGINT, tokens BIGINT", funnel)
    shards, rows = [], []
    for name, source in sources.items():
        for folder in source["units"]["shards"]:
            for header_path in sorted(store.path(folder).glob("*-*.json")):
                header = json.loads(header_path.read_bytes())
                shards.append((name, f"{folder}/{header_path.stem}.bin", header["dtype"], header["tokens"], header["documents"],
                               header["sha256"], header["split"]))  # fmt: skip
    _table(
        connection, "shards",
        "source VARCHAR, path VARCHAR, dtype VARCHAR, tokens BIGINT, documents BIGINT, sha256 VARCHAR, split VARCHAR", shards,
    )  # fmt: skip
    for lock in locks:
        rows += [
            (
                lock["mix"],
                s["name"],
                s["requested_share"],
                s["obtained_share"],
                s["repeats"],
                s["instances"] * lock["sequence_length"],
                s["documents"],
                s["instances"],
            )
            for s in lock["sources"]
        ]
    _table(
        connection, "mixes",
        "mix VARCHAR, source VARCHAR, requested_share DOUBLE, obtained_share DOUBLE, repeats DOUBLE, tokens BIGINT, "
        "documents BIGINT, instances BIGINT", rows,
    )  # fmt: skip
    _table(
        connection, "runs",
        "stage VARCHAR, source VARCHAR, units BIGINT, reused BIGINT, seconds DOUBLE, cpu_seconds DOUBLE, bytes BIGINT, "
        "mb_per_second DOUBLE, peak_rss_mb DOUBLE", _runs(store, sources, computed),
    )  # fmt: skip


def _runs(store: Store, sources: dict[str, dict[str, Json]], computed: set[str]) -> list[tuple]:
    """What computing the current units cost, whenever that was; from the journals' lines."""
    lines: dict[tuple[str, str, str], dict[str, Json]] = {}
    for journal in sorted(store.path("runs").glob("*.jsonl")):
        for text in journal.read_text(encoding="utf-8").splitlines():
            try:
                line = json.loads(text)
            except json.JSONDecodeError:
                continue  # the driver was killed while it wrote this line; the unit's record stands all the same
            for key in line["units"]:
                lines[line["stage"], line["source"], key] = line
    rows = []
    for name, source in sources.items():
        for stage in STAGES:
            folders = source["units"].get(stage.output, [])
            known = {id(line): line for folder in folders if (line := lines.get(tuple(folder.split("/"))))}.values()
            seconds = sum(line["seconds"] for line in known)
            size = sum(line["bytes"] for line in known)
            rows.append((
                stage.name, name, len(folders), sum(folder not in computed for folder in folders), seconds,
                sum(line["cpu_seconds"] for line in known), size, size / 1e6 / seconds if seconds else None,
                max((line["peak_rss_mb"] for line in known), default=None),
            ))  # fmt: skip
    return rows


def _documents(connection: duckdb.DuckDBPyConnection, store: Store, sources: dict[str, dict[str, Json]]) -> None:
    skip = len(str(store.root)) + 2
    selects = []
    for name, source in sources.items():
        ledgers = ", ".join(f"'{_quoted(store.path(folder))}/ledger.parquet'" for folder in source["units"]["shards"])
        selects.append(
            f"SELECT '{_quoted(name)}' AS source, id, file, row, bytes, tokens, kept, split, stage, dropped_by, reasons, "
            f"substr(parse_dirpath(filename), {skip}) || '/' || shard AS shard, start "
            f"FROM read_parquet([{ledgers}], filename = true)"
        )
    connection.execute(f"CREATE VIEW documents AS {' UNION ALL '.join(selects)}")


def _failures(connection: duckdb.DuckDBPyConnection, store: Store, sources: dict[str, dict[str, Json]]) -> None:
    selects = []
    for name, source in sources.items():
        files = ", ".join(f"'{_quoted(store.path(folder))}/failures.parquet'" for folder in source["units"]["documents"])
        selects.append(f"SELECT '{_quoted(name)}' AS source, file, row, reason, detail FROM read_parquet([{files}])")
    connection.execute(f"CREATE VIEW failures AS {' UNION ALL '.join(selects)}")


def _training(connection: duckdb.DuckDBPyConnection, store: Store) -> None:
    write_columns(store.root)
    for name in TABLES:
        if name != "instances":
            connection.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet('{_quoted(pattern(store.root, name))}')")
    skip = len(str(store.root)) + 2
    # A document that goes on in further shards has a row in each one's table, so no join crosses shards. Runs on shards without
    # tables (trainer/flat_shards.py) keep their rows, without documents.
    connection.execute(f"""
        CREATE VIEW instances AS
        WITH placed AS (
            SELECT replace(substr(filename, {skip}), '.parquet', '.bin') AS shard, id, file, row, start, length, "offset"
            FROM read_parquet('{_quoted(store.path("shards"))}/*/*/train-*.parquet', filename = true)
        )
        SELECT run, step, rank, "position", source, id AS document, file, row, greatest(placed.start - taken.start, 0) AS start,
            least(placed.start + placed.length, taken.start + taken.length) - greatest(placed.start, taken.start) AS length,
            "offset" + greatest(taken.start - placed.start, 0) AS "offset", taken.shard, taken.start AS shard_start
        FROM read_parquet('{_quoted(pattern(store.root, "instances"))}') AS taken LEFT JOIN placed
        ON placed.shard = taken.shard AND placed.start < taken.start + taken.length AND placed.start + placed.length > taken.start
    """)


def _table(connection: duckdb.DuckDBPyConnection, name: str, columns: str, rows: list[tuple]) -> None:
    connection.execute(f"CREATE TABLE {name} ({columns})")
    if rows:
        connection.executemany(f"INSERT INTO {name} VALUES ({', '.join('?' * len(rows[0]))})", rows)


def _quoted(value: object) -> str:
    return str(value).replace("'", "''")
