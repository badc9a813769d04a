"""What the processes of the ETL benchmark do: `python -m aico_lab.bench.jobs JOB FOLDER ROWS`."""

from __future__ import annotations

import importlib.util
import itertools
import json
import resource
import shutil
import sqlite3
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from aico_lab.bench.etl import CHANGED
from aico_lab.lab import Lab
from aico_lab.sources import read
from aico_lab.sources.records import MessageRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DATA_SET = 250_000
COLUMNS = (
    "id INTEGER PRIMARY KEY, message_id TEXT, channel_id TEXT, conversation_id TEXT, user_id TEXT, "
    "role TEXT, content TEXT, timestamp TEXT, sentiment_score REAL, sentiment_source TEXT, "
    "response_time REAL, reply_to TEXT, metadata TEXT"
)


def write_input(folder: Path, rows: int) -> float:
    """Write real messages as JSONL, under new ids as often as it takes."""
    with (folder / "input.jsonl").open("w", encoding="utf-8") as file:
        for message in itertools.islice(_repeated(), rows):
            fields = ("message_id", "conversation_id", "user_id", "role", "content", "timestamp")
            file.write(json.dumps({name: getattr(message, name) for name in fields}) + "\n")
    return 0.0


def plain_copy(folder: Path, rows: int) -> float:
    """Write the same table into a plain SQLite file for the peers."""
    import_(folder, rows)
    with Lab.open() as lab, sqlite3.connect(folder / "plain.db") as plain:
        plain.execute(f"CREATE TABLE messages ({COLUMNS})")
        places = ", ".join("?" * (len(MessageRecord._fields) + 1))
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
    _expect(result.added, rows)
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
    _expect(result.rows["messages"], rows)
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
    _expect(row[0] if row else 0, rows)
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
    _expect(table.height, rows)
    return seconds


def bare_executemany(folder: Path, rows: int) -> float:
    """The driver alone: the same rows, made before the clock starts, into a bare plain table."""
    import libsql_experimental

    (folder / "bare.db").unlink(missing_ok=True)
    with sqlite3.connect(folder / "plain.db") as plain:
        made = plain.execute("SELECT * FROM messages").fetchall()
    bare = libsql_experimental.connect(str(folder / "bare.db"), isolation_level=None)
    bare.execute("PRAGMA journal_mode = WAL").fetchall()
    bare.execute(f"CREATE TABLE messages ({COLUMNS})")
    insert = f"INSERT INTO messages VALUES ({', '.join('?' * (len(MessageRecord._fields) + 1))})"
    started = time.perf_counter()
    bare.execute("BEGIN")
    bare.executemany(insert, made)
    bare.execute("COMMIT")
    seconds = time.perf_counter() - started
    bare.close()
    _expect(len(made), rows)
    return seconds


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


def _repeated() -> Iterator[MessageRecord]:
    for copy in itertools.count():
        for batch in read("chitchat", None):
            for message in batch.messages:
                yield message._replace(message_id=f"{copy}-{message.message_id}")


def _extension(name: str) -> str:
    import duckdb

    package = importlib.util.find_spec(f"duckdb_extension_{name}")
    if package is None or not package.submodule_search_locations:
        raise RuntimeError("the peers are missing: run `pip install 'aico-lab[bench]'`")
    folder = package.submodule_search_locations[0]
    return f"{folder}/extensions/v{duckdb.__version__}/{name}.duckdb_extension"


def _expect(found: int, expected: int) -> None:
    if found != expected:
        raise RuntimeError(f"{found} rows came through, and {expected} were meant to")


def _peak_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


if __name__ == "__main__":
    job, folder, rows = sys.argv[1:]
    elapsed = JOBS[job](Path(folder), int(rows))
    sys.stdout.write(json.dumps({"seconds": elapsed, "peak_mb": _peak_mb()}))
