"""Peers of the ETL benchmark: each copies a table of a plain SQLite file into a plain DuckDB file.

Each is used as its own documentation recommends for speed, and imported before the clock starts.
They have their own module, so that a peer's process does not load this package's libraries.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import sqlite3
import time
from typing import TYPE_CHECKING, Any

from aico_lab.bench.harness import expect, run_job
from aico_lab.errors import LibraryMissing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import duckdb

SCANNER = "duckdb_extension_sqlite_scanner"
LIBRARIES = (SCANNER, "adbc_driver_sqlite", "connectorx", "dlt", "sqlalchemy")

# Peers that guess types by the values give columns without values as integers or objects.
TYPES = {
    "id": "BIGINT",
    "message_id": "VARCHAR",
    "channel_id": "VARCHAR",
    "conversation_id": "VARCHAR",
    "user_id": "VARCHAR",
    "role": "VARCHAR",
    "content": "VARCHAR",
    "timestamp": "TIMESTAMPTZ",
    "sentiment_score": "DOUBLE",
    "sentiment_source": "VARCHAR",
    "response_time": "DOUBLE",
    "reply_to": "VARCHAR",
    "metadata": "VARCHAR",
}
TYPED = ", ".join(f"{name}::{type_} AS {name}" for name, type_ in TYPES.items())
QUERY = "SELECT * FROM messages"
BATCH_ROWS = 65_536  # ADBC guesses types by the first batch; its recipes advise large batches
# ConnectorX's guide advises as many partitions as there are cores.
CONNECTORX: dict[str, Any] = {
    "return_type": "arrow_stream",
    "partition_on": "id",
    "partition_num": os.cpu_count(),
}


def require_peers() -> None:
    """Raise LibraryMissing if a peer is not installed."""
    missing = [name for name in LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        names = ", ".join(name.replace("_", "-") for name in missing)
        raise LibraryMissing(
            f"The benchmark needs {names} to compare with: run `pip install 'aico-lab[bench]'`."
        )


def sqlite_scanner(folder: Path, rows: int) -> float:
    """Time DuckDB's own SQLite scanner."""

    def load(connection: duckdb.DuckDBPyConnection) -> None:
        connection.execute(f"CREATE TABLE messages AS SELECT {TYPED} FROM source.messages")

    with _new_file(folder) as connection:
        connection.load_extension(_extension())
        connection.execute(f"ATTACH '{folder / 'plain.db'}' AS source (TYPE sqlite, READ_ONLY)")
        return _time(connection, load, rows)


def adbc(folder: Path, rows: int) -> float:
    """Time ADBC's SQLite driver, which reads one Arrow batch at a time."""
    from adbc_driver_sqlite import StatementOptions, dbapi

    options = {StatementOptions.BATCH_ROWS.value: BATCH_ROWS}

    def load(connection: duckdb.DuckDBPyConnection) -> None:
        with (
            dbapi.connect(_uri(folder)) as source,
            source.cursor(adbc_stmt_kwargs=options) as cursor,
        ):
            cursor.execute(QUERY)
            _create(connection, cursor.fetch_record_batch())

    with _new_file(folder) as connection:
        return _time(connection, load, rows)


def connectorx(folder: Path, rows: int) -> float:
    """Time ConnectorX, which reads Arrow batches in a thread for each core."""
    import connectorx
    import pyarrow as pa  # noqa: F401 - else connectorx imports it on the clock

    def load(connection: duckdb.DuckDBPyConnection) -> None:
        incoming = connectorx.read_sql(f"sqlite://{folder / 'plain.db'}", QUERY, **CONNECTORX)
        _create(connection, incoming)

    with _new_file(folder) as connection:
        return _time(connection, load, rows)


def pandas(folder: Path, rows: int) -> float:
    """Time pandas with an ADBC driver and Arrow columns, as its guide advises for speed."""
    import pandas as pd
    from adbc_driver_sqlite import dbapi

    def load(connection: duckdb.DuckDBPyConnection) -> None:
        with dbapi.connect(_uri(folder)) as source:
            _create(connection, pd.read_sql(QUERY, source, dtype_backend="pyarrow"))

    with _new_file(folder) as connection:
        return _time(connection, load, rows)


def rows_through_python(folder: Path, rows: int) -> float:
    """Time a script as people write it: all rows as Python objects, a data frame, DuckDB."""
    import polars as pl

    def load(connection: duckdb.DuckDBPyConnection) -> None:
        with sqlite3.connect(folder / "plain.db") as source:
            cursor = source.execute(QUERY)
            table = pl.DataFrame(
                cursor.fetchall(), schema=list(TYPES), orient="row", infer_schema_length=None
            )
        _create(connection, table)

    with _new_file(folder) as connection:
        return _time(connection, load, rows)


def dlt(folder: Path, rows: int) -> float:
    """Time dlt's SQL source, with its fastest backend, into its DuckDB destination."""
    own = folder / "dlt"
    shutil.rmtree(own, ignore_errors=True)
    os.environ |= {
        "RUNTIME__DLTHUB_TELEMETRY": "false",
        "DLT_DATA_DIR": str(own),
        "DLT_PROJECT_DIR": str(own),
    }
    import connectorx  # noqa: F401 - this and the next, else dlt imports them on the clock
    import pyarrow.parquet  # noqa: F401
    from dlt import destinations, pipeline
    from dlt.sources.sql_database import sql_table

    with _new_file(folder):
        pass
    to = destinations.duckdb(str(folder / "peer.duckdb"))
    loading = pipeline("bench", pipelines_dir=str(own), destination=to, dataset_name="main")
    started = time.perf_counter()
    table = sql_table(
        f"sqlite:///{folder / 'plain.db'}",
        table="messages",
        backend="connectorx",
        backend_kwargs={"conn": f"sqlite://{folder / 'plain.db'}", **CONNECTORX},
    )
    table.apply_hints(columns={"timestamp": {"data_type": "timestamp"}})
    loading.run(table, write_disposition="replace")
    loaded = time.perf_counter() - started
    with _open_file(folder) as connection:
        return loaded + _time(connection, lambda _: None, rows)


PEERS: dict[str, Callable[[Path, int], float]] = {
    "sqlite-scanner": sqlite_scanner,
    "adbc": adbc,
    "connectorx": connectorx,
    "pandas": pandas,
    "rows": rows_through_python,
    "dlt": dlt,
}


def _uri(folder: Path) -> str:
    return f"{(folder / 'plain.db').as_uri()}?mode=ro"


def _new_file(folder: Path) -> duckdb.DuckDBPyConnection:
    (folder / "peer.duckdb").unlink(missing_ok=True)
    return _open_file(folder)


def _open_file(folder: Path) -> duckdb.DuckDBPyConnection:
    import duckdb

    return duckdb.connect(str(folder / "peer.duckdb"))


def _create(connection: duckdb.DuckDBPyConnection, incoming: Any) -> None:
    """Create the table from an Arrow reader or a data frame."""
    connection.register("incoming", incoming)
    connection.execute(f"CREATE TABLE messages AS SELECT {TYPED} FROM incoming")
    connection.unregister("incoming")


def _time(
    connection: duckdb.DuckDBPyConnection,
    load: Callable[[duckdb.DuckDBPyConnection], None],
    rows: int,
) -> float:
    """Time a load until all rows are in the file; raise RuntimeError if rows are missing."""
    started = time.perf_counter()
    load(connection)
    connection.execute("CHECKPOINT")
    seconds = time.perf_counter() - started
    counted = connection.execute("SELECT count(timestamp) FROM messages").fetchone()
    expect(counted[0] if counted else 0, rows)
    return seconds


def _extension() -> str:
    import duckdb

    folder = importlib.import_module(SCANNER).__path__[0]
    return f"{folder}/extensions/v{duckdb.__version__}/sqlite_scanner.duckdb_extension"


if __name__ == "__main__":
    run_job(PEERS)
