"""What a report shows of what it is asked for: of a mix its two parts, of a run its mix's too."""

import duckdb

from pipeline import catalog
from pipeline.errors import ConfigError
from pipeline.store import Store
from tools.report import documents, mix, model
from tools.report.blocks import Part
from trainer.run import Run

Connection = duckdb.DuckDBPyConnection


def of_mix(store: Store, connection: Connection, name: str) -> list[Part]:
    """Raises ConfigError when the mix has not been built in the store."""
    catalog.read_manifest(store, name)
    return [mix.part(store, connection, name), documents.part(store, connection, name)]


def of_run(store: Store, connection: Connection, name: str, its_mix: str = "") -> list[Part]:
    """its_mix: instead of the one that it was trained on. Without either in this store (of token files, or of adaptation), the model alone.
    Raises ConfigError for an unknown run, or for a mix that was given and is not there."""
    trained = Run(store.place, name)
    shown = its_mix or (trained.plan.mix if trained.is_planned else "")
    before = of_mix(store, connection, shown) if its_mix or shown in _mixes(connection) else []
    return [*before, model.part(store, name)]


def of_name(store: Store, connection: Connection, name: str) -> list[Part]:
    """Of a mix of that name, or else of a run's model."""
    if name in _mixes(connection):
        return of_mix(store, connection, name)
    if not Run(store.place, name).folder.exists():
        there = ", ".join(_mixes(connection)) or "none"
        raise ConfigError(f"{name} is neither a mix nor a run in {store.place}; its mixes: {there}; its runs are in {store.place}/models")
    return [model.part(store, name)]


def _mixes(connection: Connection) -> list[str]:
    return [name for (name,) in connection.execute("SELECT DISTINCT mix FROM mixes ORDER BY mix").fetchall()]
