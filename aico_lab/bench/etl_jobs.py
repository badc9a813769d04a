"""What the processes of the ETL benchmark do."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sqlite3
import time
from typing import TYPE_CHECKING

from aico_lab.bench.harness import expect, run_job
from aico_lab.bench.real import COLUMNS, batches, insert_bare, messages
from aico_lab.lab import Lab

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CHANGED = 1_000


def write_input(folder: Path, rows: int) -> float:
    """Write real messages as JSONL, under new ids as often as it takes."""
    with (folder / "input.jsonl").open("w", encoding="utf-8") as file:
        for message in messages(rows):
            fields = ("message_id", "conversation_id", "user_id", "role", "content", "timestamp")
            file.write(json.dumps({name: getattr(message, name) for name in fields}) + "\n")
    return 0.0


def plain_copy(folder: Path, rows: int) -> float:
    """Write the same table into a plain SQLite file for the peers."""
    import_(folder, rows)
    with Lab.open() as lab, sqlite3.connect(folder / "plain.db") as plain:
        plain.execute(f"CREATE TABLE messages ({COLUMNS})")
        places = ", ".join("?" * (COLUMNS.count(",") + 1))
        for batch in lab.primary.fetch_batches("SELECT * FROM messages", size=10_000):
            plain.executemany(f"INSERT INTO messages VALUES ({places})", batch)
    return 0.0


def import_(folder: Path, rows: int) -> float:
    """Import the JSONL into a new encrypted home: parsing, sentiment, rows, change feed."""
    shutil.rmtree(folder / "home", ignore_errors=True)
    with Lab.create() as lab:
        started = time.perf_counter()
        result = lab.import_from("jsonl", folder / "input.jsonl")
        seconds = time.perf_counter() - started
    expect(result.added, rows)
    return seconds


def full(folder: Path, rows: int) -> float:
    """Load the whole encrypted home into an encrypted warehouse and publish it."""
    shutil.rmtree(folder / "home" / "warehouse")
    (folder / "home" / "warehouse").mkdir()
    with Lab.open() as lab:
        lab.primary  # noqa: B018 - opened before the clock starts, as the peers' files are
        started = time.perf_counter()
        result = lab.sync(full=True)
        seconds = time.perf_counter() - started
    expect(result.rows["messages"], rows)
    return seconds


def increment(_folder: Path, rows: int) -> float:
    """Load what changed of the same home."""
    with Lab.open() as lab:
        lab.primary.execute(
            "UPDATE messages SET content = content || '.' WHERE id % ? = 0 AND id / ?1 <= ?2",
            [max(1, rows // CHANGED), CHANGED],
        )
        started = time.perf_counter()
        lab.sync()
        return time.perf_counter() - started


def nothing(_folder: Path, _rows: int) -> float:
    """Find out that there is nothing to load."""
    with Lab.open() as lab:
        lab.primary  # noqa: B018 - see `full`
        started = time.perf_counter()
        result = lab.sync()
        seconds = time.perf_counter() - started
    if result.mode != "nothing":
        raise RuntimeError("there was something to load")
    return seconds


def sqlite_scanner(folder: Path, rows: int) -> float:
    """DuckDB's own scanner, from a plain SQLite file into a plain DuckDB file."""
    import duckdb

    connection = duckdb.connect()
    connection.load_extension(_extension("sqlite_scanner"))
    (folder / "peer.duckdb").unlink(missing_ok=True)
    connection.execute(f"ATTACH '{folder / 'peer.duckdb'}' AS peer")
    connection.execute(f"ATTACH '{folder / 'plain.db'}' AS source (TYPE sqlite)")
    started = time.perf_counter()
    connection.execute(
        "CREATE TABLE peer.messages AS SELECT * REPLACE (timestamp::TIMESTAMPTZ AS timestamp) "
        "FROM source.messages"
    )
    connection.execute("CHECKPOINT peer")
    seconds = time.perf_counter() - started
    row = connection.execute("SELECT count(*) FROM peer.messages").fetchone()
    expect(row[0] if row else 0, rows)
    return seconds


def rows_through_python(folder: Path, rows: int) -> float:
    """What people write by hand: all rows as Python objects, then a table, then DuckDB."""
    import duckdb
    import polars as pl

    (folder / "peer.duckdb").unlink(missing_ok=True)
    connection = duckdb.connect(str(folder / "peer.duckdb"))
    with sqlite3.connect(folder / "plain.db") as plain:
        started = time.perf_counter()
        cursor = plain.execute("SELECT * FROM messages")
        names = [column[0] for column in cursor.description]
        table = pl.DataFrame(
            cursor.fetchall(), schema=names, orient="row", infer_schema_length=None
        )
        connection.register("incoming", table)
        connection.execute(
            "CREATE TABLE messages AS SELECT * REPLACE (timestamp::TIMESTAMPTZ AS timestamp) "
            "FROM incoming"
        )
        connection.execute("CHECKPOINT")
        seconds = time.perf_counter() - started
    expect(table.height, rows)
    return seconds


def bare_executemany(folder: Path, rows: int) -> float:
    """The driver alone: the same rows, made before the clock starts, into a bare plain table."""
    made = list(batches(rows))
    started = time.perf_counter()
    insert_bare(folder / "bare.db", made)
    return time.perf_counter() - started


JOBS: dict[str, Callable[[Path, int], float]] = {
    "write-input": write_input,
    "plain-copy": plain_copy,
    "import": import_,
    "full": full,
    "increment": increment,
    "nothing": nothing,
    "sqlite-scanner": sqlite_scanner,
    "rows": rows_through_python,
    "bare-executemany": bare_executemany,
}


def _extension(name: str) -> str:
    import duckdb

    package = importlib.util.find_spec(f"duckdb_extension_{name}")
    if package is None or not package.submodule_search_locations:
        raise RuntimeError("the peers are missing: run `pip install 'aico-lab[bench]'`")
    folder = package.submodule_search_locations[0]
    return f"{folder}/extensions/v{duckdb.__version__}/{name}.duckdb_extension"


if __name__ == "__main__":
    run_job(JOBS)
