"""Real messages for benchmarks, and the bare driver for comparison."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING, Any

import libsql_experimental

from aico_lab.messages.records import MessageRecord
from aico_lab.sources import read

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from aico_lab.messages.records import Batch

COLUMNS = (
    "id INTEGER PRIMARY KEY, message_id TEXT, channel_id TEXT, conversation_id TEXT, user_id TEXT, "
    "role TEXT, content TEXT, timestamp TEXT, sentiment_score REAL, sentiment_source TEXT, "
    "response_time REAL, reply_to TEXT, metadata TEXT"
)
INSERT_BARE = (
    f"INSERT INTO messages ({', '.join(MessageRecord._fields)}) "
    f"VALUES ({', '.join('?' * len(MessageRecord._fields))})"
)


def batches(rows: int) -> Iterator[Batch]:
    """Yield batches of the data set, repeated under new ids until there are `rows` messages."""
    for copy in itertools.count():
        for batch in read("chitchat", None, limit=rows):
            renamed = [m._replace(message_id=f"{copy}-{m.message_id}") for m in batch.messages]
            batch.messages[:] = renamed
            yield batch
            rows -= len(renamed)
            if rows <= 0:
                return


def messages(rows: int) -> Iterator[MessageRecord]:
    """Return an iterator over `rows` messages."""
    return itertools.islice((m for batch in batches(rows) for m in batch.messages), rows)


def open_bare(file: Path) -> Any:
    """Open the bare driver on a new plain file, whose one table has no index, key or trigger."""
    file.unlink(missing_ok=True)
    bare = libsql_experimental.connect(str(file), isolation_level=None)
    bare.execute("PRAGMA journal_mode = WAL").fetchall()
    bare.execute(f"CREATE TABLE messages ({COLUMNS})")
    return bare


def bare_executemany(folder: Path, rows: int) -> float:
    """Time the bare driver's bulk insertion into one table without index, key or trigger.

    The rows are made before the clock starts.
    """
    made = list(batches(rows))
    started = time.perf_counter()
    insert_bare(folder / "bare.db", made)
    return time.perf_counter() - started


def insert_bare(file: Path, made: list[Batch]) -> None:
    """Insert rows with the bare driver's `executemany`, in one transaction for each batch."""
    bare = open_bare(file)
    for batch in made:
        bare.execute("BEGIN")
        bare.executemany(INSERT_BARE, batch.messages)
        bare.execute("COMMIT")
    bare.close()
