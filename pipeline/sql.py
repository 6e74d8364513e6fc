"""Words and rows on their way into DuckDB: quoting, lists of files, many rows at once."""

from collections.abc import Iterable, Sequence

import duckdb
import pyarrow as pa


def quoted(value: object) -> str:
    """A text as it stands in SQL, with its quotes."""
    return "'" + str(value).replace("'", "''") + "'"


def quoted_list(values: Iterable[object]) -> str:
    """Texts, such as paths, as a list in SQL."""
    return "[" + ", ".join(map(quoted, values)) + "]"


def create_table(connection: duckdb.DuckDBPyConnection, name: str, columns: str, rows: Sequence[tuple]) -> None:
    """A table of these rows, `columns` being "name TYPE, …". As one Arrow table: row by row, each costs a tenth of a millisecond."""
    connection.execute(f"CREATE TABLE {name} ({columns})")
    if rows:
        connection.register("_rows", pa.table({str(place): list(values) for place, values in enumerate(zip(*rows, strict=True))}))
        connection.execute(f"INSERT INTO {name} SELECT * FROM _rows")
        connection.unregister("_rows")
