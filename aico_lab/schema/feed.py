"""The change feed: every change of a tracked table, in commit order, in the same transaction.

A row of `change_log` names the changed row (see `aico_lab.schema.feed_keys`) and not its values; a
consumer reads the present state of the named row, so replaying the log is harmless. Sequence
numbers have no gaps, which lets a consumer tell a pruned log from a quiet one. `device_id` is NULL
for a change made on this device.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from aico_lab.adapters.sql_text import normalised
from aico_lab.errors import DatabaseLocked
from aico_lab.schema import feed_keys

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence

    from aico_lab.adapters.libsql import Connection

PATIENCE = 1.0
"""Seconds that pruning waits for a writer: what is held up by it is only that."""

TABLES = (
    """CREATE TABLE IF NOT EXISTS change_log (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        table_name TEXT NOT NULL,
        row_key TEXT NOT NULL,
        op TEXT NOT NULL,
        at INTEGER NOT NULL,
        device_id TEXT
    )""",
    """CREATE TABLE IF NOT EXISTS feed_tables (
        table_name TEXT PRIMARY KEY NOT NULL,
        key_columns JSON TEXT NOT NULL
    )""",
    """CREATE TABLE IF NOT EXISTS feed_consumers (
        consumer TEXT PRIMARY KEY NOT NULL,
        acknowledged INTEGER NOT NULL
    )""",
)

CLOCK = "CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER)"
"""Milliseconds since 1970: a tenth of the cost of formatting the time for every row.

Other programs run it too, with the SQLite that they have; only 3.42 knows a shorter way.
"""

FORMER_CLOCK = "CAST(unixepoch('subsec') * 1000 AS INTEGER)"

_MARK = f"""INSERT INTO change_log (table_name, row_key, op, at)
    VALUES ('feed_tables', '', 'update', {CLOCK})"""
"""Logs that the feed itself changed, and not a row: consumers see that there is something to do."""

PRUNE = "DELETE FROM change_log WHERE seq < (SELECT min(acknowledged) FROM feed_consumers)"
"""Removes what every consumer holds; the last change that all of them have stays as an anchor."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a consumer has read.

    Attributes:
        database_id: Which database it read.
        seq: The last change that it holds.
        anchor: What that change was; a database restored from a backup has another one there.
    """

    database_id: str
    seq: int
    anchor: str


def track(connection: Connection, table: str, key_columns: Sequence[str]) -> None:
    """Write the triggers that log every change of a table, where they are not there yet.

    Rows that are in the table already are logged as new ones. A table that was in the feed and has
    lost its triggers was rebuilt: nobody knows which of its rows changed, so every consumer has to
    start anew.

    Args:
        connection: Inside the transaction that made the table.
        table: Its name.
        key_columns: What identifies a row.
    """
    known = tracked_tables(connection).get(table)
    if known == tuple(key_columns) and _has_triggers(connection, table):
        return
    _write_triggers(connection, table, key_columns)
    connection.execute(
        "INSERT INTO feed_tables VALUES (?, ?) ON CONFLICT (table_name) "
        "DO UPDATE SET key_columns = excluded.key_columns",
        [table, json.dumps(list(key_columns))],
    )
    if known:
        _break_off(connection)
    else:
        key = feed_keys.expression(table, key_columns)
        connection.execute(_log(table, key, "insert", f"FROM {table}"))


def renew(connection: Connection) -> None:
    """Write the triggers anew that an earlier version of this program wrote.

    Args:
        connection: Inside a transaction.
    """
    former = former_triggers(connection)
    written = connection.fetch_all(
        "SELECT DISTINCT sql FROM sqlite_master WHERE type = 'trigger' AND name GLOB 'feed_*'"
    )
    found = [former[sql] for sql in {normalised(sql) for (sql,) in written} if sql in former]
    tables = {renewed.table for renewed in found}
    tracked = tracked_tables(connection) if tables else {}
    for table in sorted(tables):
        _write_triggers(connection, table, tracked[table])
        if len(tracked[table]) == 1:
            connection.execute(f"{feed_keys.FORMER_BLOBS} AND table_name = ?", [table])


class Renewed(NamedTuple):
    """A trigger that an earlier version of this program wrote in another way.

    Attributes:
        table: The table that it follows.
        sql: Its definition as of this version, in one form.
    """

    table: str
    sql: str


def former_triggers(connection: Connection) -> dict[str, Renewed]:
    """Return the triggers of earlier versions for the tables of the feed, by their definition."""
    found: dict[str, Renewed] = {}
    if connection.fetch_one("SELECT 1 FROM sqlite_master WHERE name = 'feed_tables'"):
        for table, key_columns in tracked_tables(connection).items():
            before = triggers(table, key_columns, feed_keys.former_expression)
            for name, sql in triggers(table, key_columns).items():
                renewed = Renewed(table, normalised(sql))
                for clock in (CLOCK, FORMER_CLOCK):
                    found[normalised(before[name].replace(CLOCK, clock))] = renewed
    return found


def _write_triggers(connection: Connection, table: str, key_columns: Sequence[str]) -> None:
    for name, sql in triggers(table, key_columns).items():
        connection.execute(f"DROP TRIGGER IF EXISTS {name}")
        connection.execute(sql)


def triggers(
    table: str,
    key_columns: Sequence[str],
    key: Callable[[str, Sequence[str]], str] = feed_keys.expression,
) -> dict[str, str]:
    """Return the triggers of a table by their names.

    Args:
        table: Its name.
        key_columns: What identifies a row.
        key: Gives SQL that names a row.
    """
    old, new = key("OLD", key_columns), key("NEW", key_columns)
    bodies = {
        "insert": _log(table, new, "insert"),
        "update": _log(table, old, "delete", f"WHERE {old} IS NOT {new}")
        + _log(table, new, "update"),
        "delete": _log(table, old, "delete"),
    }
    return {
        f"feed_{table}_{event}": f"CREATE TRIGGER feed_{table}_{event} "
        f"AFTER {event.upper()} ON {table} BEGIN {body} END"
        for event, body in bodies.items()
    }


def _log(table: str, key: str, op: str, condition: str = "") -> str:
    return (
        "INSERT INTO change_log (table_name, row_key, op, at) "
        f"SELECT '{table}', {key}, '{op}', {CLOCK} {condition};"
    )


def _has_triggers(connection: Connection, table: str) -> bool:
    found = connection.fetch_all(
        "SELECT 1 FROM sqlite_master WHERE type = 'trigger' AND name = ? AND tbl_name = ?",
        [f"feed_{table}_insert", table],
    )
    return bool(found)


def can_follow(connection: Connection, table: str, key_columns: Sequence[str]) -> bool:
    """Say whether a table is there under exactly this name, with these columns."""
    columns = connection.fetch_all(
        "SELECT c.name FROM sqlite_master AS t, pragma_table_xinfo(t.name) AS c "
        "WHERE t.type = 'table' AND t.name = ?",
        [table],
    )
    return bool(key_columns) and {name for (name,) in columns}.issuperset(key_columns)


def is_over(connection: Connection, table: str, tracked: Container[str]) -> bool:
    """Say whether a table was dropped, or has a new name that is among those to be tracked."""
    found = connection.fetch_all(
        "SELECT tbl_name FROM sqlite_master WHERE (type = 'table' AND lower(name) = lower(?)) "
        "OR (type = 'trigger' AND name = ?)",
        [table, f"feed_{table}_insert"],
    )
    return all(name in tracked for (name,) in found)


def untrack(connection: Connection, table: str) -> None:
    """Take a table out of the feed, whether or not it still exists.

    Its rows' keys leave the log too; their numbers stay, so that the log has no gap.

    Args:
        connection: Inside the transaction that removes the table.
        table: Its name.
    """
    for event in ("insert", "update", "delete"):
        connection.execute(f"DROP TRIGGER IF EXISTS feed_{table}_{event}")
    if table in tracked_tables(connection):
        connection.execute("DELETE FROM feed_tables WHERE table_name = ?", [table])
        connection.execute("UPDATE change_log SET row_key = '' WHERE table_name = ?", [table])
        connection.execute(_MARK)


def _break_off(connection: Connection) -> None:
    """Forget every change and leave a gap in the numbers, so that no cursor can be continued."""
    connection.execute(_MARK)
    connection.execute("DELETE FROM change_log")
    connection.execute(_MARK)


def tracked_tables(connection: Connection) -> dict[str, tuple[str, ...]]:
    """Give the tables of the feed, each with the columns of its row key."""
    return {
        table: tuple(json.loads(keys))
        for table, keys in connection.fetch_all(
            "SELECT table_name, key_columns FROM feed_tables ORDER BY table_name"
        )
    }


def head(connection: Connection) -> Cursor:
    """Give the cursor of a consumer that has read everything up to now."""
    rows = connection.fetch_all("SELECT value FROM system_state WHERE key = 'database_id'")
    last = connection.fetch_all("SELECT coalesce(max(seq), 0) FROM change_log")
    seq = last[0][0]
    return Cursor(rows[0][0], seq, _anchor(connection, seq))


def continues(connection: Connection, cursor: Cursor) -> bool:
    """Say whether the feed goes on from a cursor, or its consumer must start anew.

    It does not where the log was pruned past the cursor, or where the database is another one or
    was restored from a backup. The change at the cursor itself is never pruned, so comparing it is
    enough.
    """
    if head(connection).database_id != cursor.database_id:
        return False
    if cursor.seq == 0:  # nothing was read yet: the log must reach back to its beginning
        return connection.fetch_one("SELECT min(seq) FROM change_log") in ((None,), (1,))
    return cursor.anchor == _anchor(connection, cursor.seq)


def acknowledge(connection: Connection, consumer: str, seq: int) -> None:
    """Note that a consumer holds everything up to `seq`, and prune behind the slowest one."""
    with connection.transaction():
        connection.execute(
            "INSERT INTO feed_consumers VALUES (?, ?) ON CONFLICT (consumer) "
            "DO UPDATE SET acknowledged = max(acknowledged, excluded.acknowledged)",
            [consumer, seq],
        )
        _prune(connection)


def try_to_acknowledge(connection: Connection, consumer: str, seq: int) -> None:
    """Do the same, unless another connection writes for long: then the next time will do it."""
    patience, connection.busy_timeout = connection.busy_timeout, PATIENCE
    try:
        with contextlib.suppress(DatabaseLocked):
            acknowledge(connection, consumer, seq)
    finally:
        connection.busy_timeout = patience


def _prune(connection: Connection) -> None:
    """Remove what every consumer holds; where that is all, at once and not row by row.

    SQLite empties a table without looking at its rows; after the first load of a large home the
    log has as many of them as the home has.
    """
    all_held = (
        "FROM change_log WHERE seq = (SELECT max(seq) FROM change_log) "
        "AND seq <= (SELECT min(acknowledged) FROM feed_consumers)"
    )
    if connection.fetch_one(f"SELECT 1 {all_held}") is None:
        connection.execute(PRUNE)
        return
    connection.execute("DROP TABLE IF EXISTS temp.last_change")
    connection.execute(f"CREATE TEMP TABLE last_change AS SELECT * {all_held}")
    connection.execute("DELETE FROM change_log")
    connection.execute("INSERT INTO change_log SELECT * FROM temp.last_change")
    connection.execute("DROP TABLE temp.last_change")


def _anchor(connection: Connection, seq: int) -> str:
    if seq == 0:
        return ""
    # The key in hexadecimal digits: another program may have given it bytes that are no text.
    row = connection.fetch_one(
        "SELECT json_array(table_name, hex(row_key), op, at) FROM change_log WHERE seq = ?", [seq]
    )
    return "pruned" if row is None else str(row[0])
