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
Where several mixes share a source, its rows are those of the mix that was built last. `failures`, `duplicates`, `clusters`, `edits`,
`matches` and `attributes_<source>` are about sources that were built here: of one that came in a release (release.py) there are none.

Cost: what is asked of every mix (sources, funnel, shards, mixes, runs) is computed when the catalog is written, from manifests,
lock-files and journals; so `make stats` reads some hundred rows, however large the mix. A view of documents reads the units' own tables
when it is queried. Writing takes some 40 µs per unit and 1 kB of memory; no file of a unit is opened for it but the first of each list.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb
import orjson

from pipeline import findings, journal
from pipeline.errors import ConfigError, PipelineError
from pipeline.release import is_released
from pipeline.sql import create_table, quoted, quoted_list
from pipeline.stages import decide, dedupe, download, edit, filter, gather, holdout, near, paragraphs, prepare, read, tag, tokenize
from pipeline.store import Store
from pipeline.training_tables import ALL, pattern, write_columns
from pipeline.unit import Json, unsealed

FILE = "catalog.duckdb"
STAGES = [
    download.STAGE, read.STAGE, prepare.STAGE, tokenize.STAGE, tag.STAGE, filter.STAGE, holdout.STAGE, dedupe.STAGE, near.BANDS,
    near.CLUSTERS, paragraphs.STAGE, edit.STAGE, decide.STAGE, gather.STAGE,
]  # fmt: skip
STORAGE_VERSION = "v1.0.0"  # so that older clients can open it


def path(store: Store) -> Path:
    return store.path(FILE)


def is_current(store: Store) -> bool:
    """Whether there is a catalog, with this version's views."""
    try:
        file = store.local(FILE)
    except FileNotFoundError:
        return False
    if not file.exists():
        return False
    with duckdb.connect(file, read_only=True) as connection:
        views = {name for (name,) in connection.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()}
    return views >= ALL.keys() | findings.VIEWS.keys()


def read_manifest(store: Store, mix: str) -> dict[str, Json]:
    """The build manifest of a mix. Raises ConfigError when it has not been built in this store, PipelineError when it is damaged."""
    try:
        return _json(store, f"mixes/{mix}.build.json")
    except FileNotFoundError:
        raise ConfigError(f"{mix} has not been built in {store.place}; run: make mix MIX={mix}") from None


def sources(store: Store, mix: str | None = None) -> dict[str, dict[str, Json]]:
    """What each source of the store rests on, as the mix says that was built last, or `mix` where it has the source; and that mix."""
    manifests = sorted(_manifests(store), key=lambda manifest: (manifest["mix"] == mix, manifest.get("order", 0), manifest["mix"]))
    return {name: {**source, "mix": manifest["mix"]} for manifest in manifests for name, source in manifest["sources"].items()}


def next_order(store: Store, mix: str) -> int:
    """The `order` in the manifest of a mix that is built now: one more than all others have. (Files in object storage keep no dates.)"""
    return 1 + max((manifest.get("order", 0) for manifest in _manifests(store, besides=mix)), default=0)


def _manifests(store: Store, besides: str = "") -> Iterator[dict[str, Json]]:
    for path in store.files("mixes"):
        if path.endswith(".build.json") and path != f"mixes/{besides}.build.json":
            yield _json(store, path)


def _json(store: Store, path: str) -> dict[str, Json]:
    try:
        content = store.read(path)
        return unsealed(content) if path.endswith(".build.json") else orjson.loads(content)
    except ValueError as error:
        mix = path.removeprefix("mixes/").split(".")[0]
        raise PipelineError(f"{path} under {store.place} is damaged ({error}); run make mix MIX={mix} again, or delete it") from error


def write(store: Store, mix: str, computed: Iterable[str]) -> None:
    """Write the catalog anew, `mix` being the one built last; `computed`: the folders of the units it computed."""
    found = sources(store, mix)
    locks = {path: _json(store, path) for path in store.files("mixes") if path.endswith(".lock.json")}
    aside = store.path(f".tmp-{os.getpid()}-{FILE}")
    aside.parent.mkdir(parents=True, exist_ok=True)
    aside.unlink(missing_ok=True)
    with duckdb.connect() as connection:
        store.mount(connection)
        connection.execute(f"ATTACH {quoted(aside)} AS catalog (STORAGE_VERSION '{STORAGE_VERSION}'); USE catalog")
        _sources(connection, found)
        _mixes(connection, found, {lock["mix"]: lock for lock in locks.values()})
        _runs(connection, store, found, frozenset(computed))
        _documents(connection, store, found)
        _failures(connection, store, found)
        findings.write(connection, store, found)
        _training(connection, store)
        connection.execute("USE memory; DETACH catalog")
    os.replace(aside, path(store))
    store.put(FILE)


Sources = Mapping[str, Mapping[str, Json]]


def _sources(connection: duckdb.DuckDBPyConnection, sources: Sources) -> None:
    create_table(
        connection, "sources",
        "source VARCHAR, title VARCHAR, origin VARCHAR, licence VARCHAR, revision VARCHAR, files BIGINT, raw_bytes BIGINT",
        [
            (name, s["title"], "; ".join(s["origin"]), "; ".join(s["licence"]), s["revision"], s["files"], s["raw_bytes"])
            for name, s in sources.items()
        ],
    )  # fmt: skip
    funnel: list[tuple] = []
    for name, source in sources.items():
        lines = [(line["stage"], line["reason"], line["documents"], line["bytes"], line["tokens"]) for line in source["funnel"]]
        totals = [sum(line[i] for line in lines) for i in (2, 3, 4)]
        funnel += [(name, "read", "read", *totals)]
        funnel += [(name, "read", f"failed: {reason}", count, None, None) for reason, count in source["failed"].items()]
        funnel += [(name, *line) for line in lines]
    create_table(
        connection, "funnel", "source VARCHAR, stage VARCHAR, reason VARCHAR, documents BIGINT, bytes BIGINT, tokens BIGINT", funnel
    )


def _mixes(connection: duckdb.DuckDBPyConnection, sources: Sources, locks: Mapping[str, dict[str, Json]]) -> None:
    """The shards are those that lock-files list: no shard's own header is opened."""
    shards = []
    for name, source in sources.items():
        lock = locks[source["mix"]]
        for listed in lock["sources"]:
            if listed["name"] == name:
                for split, key in (("train", "shards"), ("validation", "validation")):
                    for s in listed[key]:
                        shards.append((name, s["path"], lock["tokenizer"]["dtype"], s["tokens"], s["documents"], s["sha256"], split))
    create_table(
        connection, "shards",
        "source VARCHAR, path VARCHAR, dtype VARCHAR, tokens BIGINT, documents BIGINT, sha256 VARCHAR, split VARCHAR", shards,
    )  # fmt: skip
    create_table(
        connection, "mixes",
        "mix VARCHAR, source VARCHAR, requested_share DOUBLE, obtained_share DOUBLE, repeats DOUBLE, tokens BIGINT, "
        "documents BIGINT, instances BIGINT",
        [
            (
                lock["mix"], s["name"], s["requested_share"], s["obtained_share"], s["repeats"], s["instances"] * lock["sequence_length"],
                s["documents"], s["instances"],
            )
            for lock in locks.values()
            for s in lock["sources"]
        ],
    )  # fmt: skip


@dataclass
class _Cost:
    """What the tasks that computed some units cost."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    bytes: int = 0
    peak_rss_mb: float | None = None

    def add(self, task: journal.Task) -> None:
        self.seconds += task.seconds
        self.cpu_seconds += task.cpu_seconds
        self.bytes += task.bytes
        self.peak_rss_mb = max(self.peak_rss_mb or 0.0, task.peak_rss_mb)


def costs(store: Store, sources: Sources) -> dict[str, list[dict[str, Json]]]:
    """What computing the current units of each source cost, per stage, whenever and, of a source that came in a release, wherever that was.

    A stage of several sources together is all of these sources'.
    """
    waiting = {folder for source in sources.values() for folders in source["units"].values() for folder in folders}
    found: dict[tuple[str, str], _Cost] = {}
    for task in journal.tasks(store, waiting):
        found.setdefault((task.stage, task.source), _Cost()).add(task)
    told: dict[str, list[dict[str, Json]]] = {}
    for name, source in sources.items():
        told[name] = list(source["costs"]) if is_released(source) else []
        for stage in STAGES if not is_released(source) else ():
            folders = source["units"].get(stage.output, [])
            cost = found.get((stage.output, folders[0].split("/")[1] if folders else name), _Cost())
            told[name].append(
                {
                    "stage": stage.name, "output": stage.output, "units": len(folders), "seconds": cost.seconds,
                    "cpu_seconds": cost.cpu_seconds, "bytes": cost.bytes, "peak_rss_mb": cost.peak_rss_mb,
                }
            )  # fmt: skip
    return told


def _runs(connection: duckdb.DuckDBPyConnection, store: Store, sources: Sources, computed: frozenset[str]) -> None:
    rows = []
    for name, costs_of_stages in costs(store, sources).items():
        for cost in costs_of_stages:
            units, seconds = cost["units"], cost["seconds"]
            reused = units - sum(folder in computed for folder in sources[name]["units"].get(cost["output"], []))
            speed = cost["bytes"] / 1e6 / seconds if seconds else None
            rows.append((cost["stage"], name, units, reused, seconds, cost["cpu_seconds"], cost["bytes"], speed, cost["peak_rss_mb"]))
    create_table(
        connection, "runs",
        "stage VARCHAR, source VARCHAR, units BIGINT, reused BIGINT, seconds DOUBLE, cpu_seconds DOUBLE, bytes BIGINT, "
        "mb_per_second DOUBLE, peak_rss_mb DOUBLE", rows,
    )  # fmt: skip


def _documents(connection: duckdb.DuckDBPyConnection, store: Store, sources: Sources) -> None:
    skip = len(store.url("x"))  # of what comes before a path in the store
    selects = [
        f"SELECT {quoted(name)} AS source, id, file, row, bytes, tokens, kept, split, stage, dropped_by, reasons, "
        f"substr(parse_dirpath(filename), {skip}) || '/' || shard AS shard, start "
        f"FROM read_parquet({_outputs(store, source, 'shards', 'ledger.parquet')}, filename = true)"
        for name, source in sources.items()
    ]
    connection.execute(f"CREATE VIEW documents AS {' UNION ALL '.join(selects)}")


def _failures(connection: duckdb.DuckDBPyConnection, store: Store, sources: Sources) -> None:
    selects = [
        f"SELECT {quoted(name)} AS source, file, row, reason, detail "
        f"FROM read_parquet({_outputs(store, source, 'documents', 'failures.parquet')})"
        for name, source in sources.items()
        if not is_released(source)
    ]
    columns = "source VARCHAR, file VARCHAR, row BIGINT, reason VARCHAR, detail VARCHAR"
    connection.execute(f"CREATE VIEW failures AS {' UNION ALL '.join(selects) or findings.refused('failures', columns, sources)}")


def _outputs(store: Store, source: Mapping[str, Json], stage: str, name: str) -> str:
    return quoted_list(store.url(f"{folder}/{name}") for folder in source["units"][stage])


def _training(connection: duckdb.DuckDBPyConnection, store: Store) -> None:
    write_columns(store.root)
    for name in ALL:
        if name != "instances":
            connection.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet({quoted(pattern(store.root, name))})")
    skip = len(store.url("x"))  # of what comes before a path in the store
    # A document that goes on in further shards has a row in each one's table, so no join crosses shards. Runs on shards without
    # tables (trainer/flat_shards.py) keep their rows, without documents.
    connection.execute(f"""
        CREATE VIEW instances AS
        WITH placed AS (
            SELECT replace(substr(filename, {skip}), '.parquet', '.bin') AS shard, id, file, row, start, length, "offset"
            FROM read_parquet({quoted(store.url("shards/*/*/train-*.parquet"))}, filename = true)
        )
        SELECT run, step, rank, "position", source, id AS document, file, row, greatest(placed.start - taken.start, 0) AS start,
            least(placed.start + placed.length, taken.start + taken.length) - greatest(placed.start, taken.start) AS length,
            "offset" + greatest(taken.start - placed.start, 0) AS "offset", taken.shard, taken.start AS shard_start
        FROM read_parquet({quoted(pattern(store.root, "instances"))}) AS taken LEFT JOIN placed
        ON placed.shard = taken.shard AND placed.start < taken.start + taken.length AND placed.start + placed.length > taken.start
    """)
