"""This package's jobs of the ETL benchmark, and the jobs that prepare its data.

`full` does the same as the peers: it loads tables into DuckDB. `full-with-mart` and the increments
also make the tables of the schema `mart`, as every sync of a user does.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
from typing import TYPE_CHECKING
from unittest import mock

from aico_lab.bench.harness import expect, run_job
from aico_lab.bench.real import COLUMNS, bare_executemany, messages
from aico_lab.lab import Lab
from aico_lab.mart.refresh import Changes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CHANGED = 1_000
WARM_UPS = 3


def write_input(folder: Path, rows: int) -> float:
    """Write real messages as JSONL, repeated under new ids until there are enough."""
    with (folder / "input.jsonl").open("w", encoding="utf-8") as file:
        for message in messages(rows):
            fields = ("message_id", "conversation_id", "user_id", "role", "content", "timestamp")
            file.write(json.dumps({name: getattr(message, name) for name in fields}) + "\n")
    return 0.0


def plain_copy(folder: Path, rows: int) -> float:
    """Write the same messages into a plain SQLite file for the peers."""
    import_(folder, rows)
    with Lab.open() as lab, sqlite3.connect(folder / "plain.db") as plain:
        plain.execute(f"CREATE TABLE messages ({COLUMNS})")
        places = ", ".join("?" * (COLUMNS.count(",") + 1))
        for batch in lab.primary.fetch_batches("SELECT * FROM messages", size=10_000):
            plain.executemany(f"INSERT INTO messages VALUES ({places})", batch)
    return 0.0


def import_(folder: Path, rows: int) -> float:
    """Time the import of the JSONL into a new encrypted home, with sentiment and change feed."""
    shutil.rmtree(folder / "home", ignore_errors=True)
    with Lab.create() as lab:
        started = time.perf_counter()
        result = lab.import_from("jsonl", folder / "input.jsonl")
        seconds = time.perf_counter() - started
    expect(result.added, rows)
    return seconds


def full(folder: Path, rows: int) -> float:
    """Time the load of an encrypted home into an encrypted warehouse, without `mart`."""
    # Not Mock objects, which would keep all rows that they are called with in memory.
    with mock.patch.multiple(Changes, note_added=lambda *_: None, apply=lambda _: None):
        return full_with_mart(folder, rows)


def full_with_mart(folder: Path, rows: int) -> float:
    """Time the load of an encrypted home into an encrypted warehouse, and its publication."""
    shutil.rmtree(folder / "home" / "warehouse")
    (folder / "home" / "warehouse").mkdir()
    with Lab.open() as lab:
        lab.primary  # noqa: B018 - opened before the clock starts, as the peers' files are
        started = time.perf_counter()
        result = lab.sync(full=True)
        seconds = time.perf_counter() - started
    expect(result.rows["messages"], rows)
    return seconds


def first_increment(_folder: Path, rows: int) -> float:
    """Time the load of 1,000 changed rows, as the first work of a process."""
    with Lab.open() as lab:
        return _time_increment(lab, rows, 0)


def increment(_folder: Path, rows: int) -> float:
    """Time the load of 1,000 changed rows, after a few such loads in the same process."""
    with Lab.open() as lab:
        times = [_time_increment(lab, rows, nth) for nth in range(1, 2 + WARM_UPS)]
    return times[-1]


def nothing(_folder: Path, _rows: int) -> float:
    """Time a sync with nothing to load, in a process that has synced before."""
    with Lab.open() as lab:
        lab.sync()
        started = time.perf_counter()
        result = lab.sync()
        seconds = time.perf_counter() - started
    if result.mode != "nothing":
        raise RuntimeError("there was something to load")
    return seconds


SETUP: dict[str, Callable[[Path, int], float]] = {
    "write-input": write_input,
    "plain-copy": plain_copy,
}
JOBS: dict[str, Callable[[Path, int], float]] = {
    "import": import_,
    "full": full,
    "full-with-mart": full_with_mart,  # the increments start from its warehouse
    "first-increment": first_increment,
    "increment": increment,
    "nothing": nothing,
    "bare-executemany": bare_executemany,
}


def _time_increment(lab: Lab, rows: int, nth: int) -> float:
    """Change 1,000 scattered rows, different ones for each `nth`, and time their load."""
    lab.primary.execute(
        "UPDATE messages SET content = content || '.' "
        "WHERE (id - 1) % ?1 = ?2 AND (id - 1) / ?1 < ?3",
        [rows // CHANGED, nth % (rows // CHANGED), CHANGED],
    )
    started = time.perf_counter()
    result = lab.sync()
    seconds = time.perf_counter() - started
    expect(result.rows["messages"], CHANGED)
    return seconds


if __name__ == "__main__":
    run_job(SETUP | JOBS)
