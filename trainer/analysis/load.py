"""Expert load over training: the share of its layer's rows that each expert was given, from what the run recorded of every step.

In: the run's `routers` table (metrics.py). Out: counts in at most BINS equal parts of the training. Cost: DuckDB reads the table once
and holds nothing but the sums, so a run of a million steps is no problem. A model that was not trained here has none.
"""

from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt

from pipeline.config import shown
from pipeline.errors import PipelineError
from pipeline.sql import quoted
from pipeline.training_tables import table_folder

BINS = 100


@dataclass(frozen=True, eq=False)
class Load:
    """first_N, last_N: the steps of each part that the run recorded. routed_NLE: rows that each expert was given in them."""

    first_N: npt.NDArray[np.int64]
    last_N: npt.NDArray[np.int64]
    routed_NLE: npt.NDArray[np.int64]

    @property
    def shares_NLE(self) -> npt.NDArray[np.float64]:
        """1/E each would be an even load."""
        return self.routed_NLE / self.routed_NLE.sum(axis=-1, keepdims=True)


def load(run_folder: Path, until: int) -> Load | None:
    """Of the steps up to `until`; None if the run recorded none. Raises PipelineError for a table that cannot be read."""
    folder = table_folder(run_folder, "routers")
    if not any(folder.glob("*.parquet")):
        return None
    part = f"(step - 1) * {min(BINS, until)} // {until}"
    rows = f"FROM read_parquet({quoted(str(folder / '*.parquet'))}) WHERE step BETWEEN 1 AND {until}"
    try:
        with duckdb.connect() as connection:
            parts = connection.execute(f"SELECT {part}, min(step), max(step) {rows} GROUP BY 1 ORDER BY 1").fetchnumpy()
            counts = connection.execute(f"""
                SELECT part, layer, expert, sum(load)::BIGINT AS routed
                FROM (SELECT {part} AS part, layer, unnest(loads) AS load, generate_subscripts(loads, 1) - 1 AS expert {rows})
                GROUP BY ALL ORDER BY ALL
            """).fetchnumpy()
    except duckdb.Error as error:
        raise PipelineError(f"{shown(folder)}: cannot be read ({str(error).splitlines()[0]})") from error
    if not len(counts["routed"]):
        return None
    numbers, first_N, last_N = (np.array(values) for values in parts.values())
    layers, experts = (int(np.array(counts[name]).max()) + 1 for name in ("layer", "expert"))
    routed_NLE = np.array(counts["routed"]).reshape(len(numbers), layers, experts)
    return Load(first_N, last_N, routed_NLE)
