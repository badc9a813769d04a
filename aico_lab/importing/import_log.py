"""The record of what an import wrote, so that it can be undone exactly.

Messages get successive ids within a transaction, so that a range of ids stands for all that a batch
added. The former values of messages that an import changes are kept beside it.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from aico_lab.adapters.libsql import NOW

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from aico_lab.adapters.libsql import Connection

FIELDS: Final = (
    "user_id", "role", "content", "timestamp", "sentiment_source", "response_time", "reply_to",
    "metadata",
)  # fmt: skip
"""The columns of a message that an import may change, besides its score."""

ADDED: Final = {
    "users": "user_id",
    "channels": "channel_id",
    "feedback_events": "event_id",
    "memories": "memory_id",
    "personality_policies": "policy_id",
}
"""The tables, besides that of messages, to which imports add rows, with their keys."""

_NUMBERS: Final = ("response_time", "sentiment_score")

# JSON written by SQLite has too few digits for some numbers.
_FORMER: Final = "json_object({})".format(
    ", ".join(
        [
            *(f"'{name}', {name}" for name in FIELDS if name not in _NUMBERS),
            *(
                f"'{name}', iif({name} IS NULL, NULL, printf('%!.17e', {name}))"
                for name in _NUMBERS
            ),
        ]
    )
)


@dataclass(frozen=True, slots=True)
class StoredImport:
    """An import of which there is a record.

    Attributes:
        import_id: Its id.
        source: The name of its source or format.
        started_at: When it began, in UTC, ISO 8601.
        finished_at: When it ended; None if it was interrupted.
        read: The number of valid messages.
        added: The number of messages that were new.
        updated: The number of stored messages that it changed.
    """

    import_id: str
    source: str
    started_at: str
    finished_at: str | None
    read: int
    added: int
    updated: int


def read_imports(connection: Connection) -> list[StoredImport]:
    """Return the imports of which there is a record, newest first."""
    rows = connection.fetch_all(
        "SELECT import_id, source, started_at, finished_at, read, added, updated FROM imports "
        "ORDER BY number DESC"
    )
    return [StoredImport(*row) for row in rows]


class ImportLog:
    """Records one import; its row is made as soon as something is written.

    Attributes:
        import_id: The id of the import, or None as long as it has written nothing.
    """

    def __init__(self, connection: Connection, source: str | None, *, after: int = 0) -> None:
        """Make the record of an import that begins now.

        Args:
            connection: The primary database.
            source: The name of the source or format; None records nothing.
            after: The highest `id` of a message before.
        """
        self.import_id: str | None = None
        self._connection = connection
        self._source = source
        self._number = 0
        self._before = after

    @contextlib.contextmanager
    def adding(self) -> Iterator[None]:
        """Record the rows that the block adds; it is inside a transaction."""
        if self._source is None:
            yield
            return
        before = self._last()
        yield
        for table, last in self._last().items():
            if last <= before[table]:
                continue
            self._begin()
            if table == "messages":
                self._note_range(before[table] + 1, last)
            else:
                self._connection.execute(
                    f"INSERT OR IGNORE INTO import_rows SELECT ?, '{table}', {ADDED[table]}, NULL "
                    f"FROM {table} WHERE rowid > ?",
                    [self._number, before[table]],
                )

    def _last(self) -> dict[str, int]:
        """Return the highest row id of each table to which imports add rows."""
        tables = ("messages", *ADDED)
        highest = (f"(SELECT coalesce(max(rowid), 0) FROM {table})" for table in tables)
        [row] = self._connection.fetch_all(f"SELECT {', '.join(highest)}")
        return dict(zip(tables, row, strict=True))

    def _note_range(self, first: int, last: int) -> None:
        joined = self._connection.fetch_one(
            "UPDATE import_ranges SET last_id = ?1 WHERE number = ?2 AND last_id = ?3 - 1 "
            "RETURNING 1",
            [last, self._number, first],
        )
        if joined is None:
            self._connection.execute(
                "INSERT INTO import_ranges VALUES (?, ?, ?)", [self._number, first, last]
            )

    def changing(self, keys: Iterable[str | int], *, column: str = "message_id") -> None:
        """Record the values of stored messages that are about to be changed.

        Args:
            keys: The keys of the messages, inside the transaction that changes them.
            column: The column of these keys: 'message_id' or 'id'.
        """
        named = json.dumps(list(keys))
        if named == "[]" or self._source is None:
            return
        self._begin()
        self._connection.execute(
            f"INSERT OR IGNORE INTO import_rows SELECT ?, 'messages', id, {_FORMER} FROM messages "
            f"WHERE {column} IN (SELECT value FROM json_each(?)) AND id <= ?",
            [self._number, named, self._before],
        )

    def finish(self, *, read: int, added: int, updated: int) -> None:
        """Record the counts of the import, and discard former values that did not change."""
        if self.import_id is None:
            return
        with self._connection.transaction():
            self._connection.execute(
                "DELETE FROM import_rows WHERE number = ? AND table_name = 'messages' AND former "
                f"IS (SELECT {_FORMER} FROM messages WHERE id = CAST(row_key AS INTEGER))",
                [self._number],
            )
            if not self._connection.fetch_one(
                "SELECT 1 FROM import_ranges WHERE number = ?1 UNION ALL "
                "SELECT 1 FROM import_rows WHERE number = ?1",
                [self._number],
            ):
                self._connection.execute("DELETE FROM imports WHERE number = ?", [self._number])
                self.import_id = None
                return
            self._connection.execute(
                f"UPDATE imports SET finished_at = {NOW}, read = ?, added = ?, updated = ? "
                "WHERE number = ?",
                [read, added, updated, self._number],
            )

    def _begin(self) -> None:
        if self.import_id is None:
            now = datetime.now(UTC)
            self.import_id = f"{now:%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"
            (row,) = self._connection.fetch_all(
                "INSERT INTO imports (import_id, source, started_at) VALUES (?, ?, "
                f"{NOW}) RETURNING number",
                [self.import_id, self._source],
            )
            self._number = row[0]


def restore(connection: Connection, rows: str, parameters: Iterable[object] = ()) -> int:
    """Restore messages to the values that rows of `import_rows` keep; return their number.

    Args:
        connection: The primary database, inside a transaction.
        rows: SQL for these rows, with the columns `row_key` and `former`.
        parameters: The values of its parameters.
    """
    values = {name: f"json_extract(f.former, '$.{name}')" for name in (*FIELDS, *_NUMBERS)}
    values |= {name: f"CAST({values[name]} AS REAL)" for name in _NUMBERS}
    connection.execute(
        f"UPDATE messages SET {', '.join(f'{name} = {value}' for name, value in values.items())} "
        f"FROM ({rows}) AS f WHERE messages.id = CAST(f.row_key AS INTEGER)",
        list(parameters),
    )
    return int(connection.fetch_all("SELECT changes()")[0][0])
