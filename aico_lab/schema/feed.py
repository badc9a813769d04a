"""The change feed: every change of a tracked table, in commit order, in the same transaction.

A row of `change_log` names the changed row (see `aico_lab.schema.feed_keys`), but not its values; a
consumer reads the current state of the named row, so replaying the log is harmless. Sequence
numbers have no gaps, so a consumer can tell a pruned log from one without changes. `device_id` is
NULL for a change made on this device.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from aico_lab.adapters.sql_text import folded, normalised, quoted, updated_columns
from aico_lab.constants import MS_PER_DAY
from aico_lab.errors import DatabaseLocked
from aico_lab.schema import feed_keys

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence

    from aico_lab.adapters.libsql import Connection

PATIENCE = 1.0
"""Seconds that pruning waits for a writer; it can also be done later."""

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

CLOCK = f"CAST(round((julianday('now') - 2440587.5) * {MS_PER_DAY}) AS INTEGER)"
"""SQL for milliseconds since 1970, at a tenth of the cost of formatting the time for every row.

Other programs run it in triggers, with their own SQLite; a shorter way needs 3.42.
"""

FORMER_CLOCK = "CAST(unixepoch('subsec') * 1000 AS INTEGER)"

_MARK = f"""INSERT INTO change_log (table_name, row_key, op, at)
    VALUES ('feed_tables', '', 'update', {CLOCK})"""
"""Logs a change of the feed itself instead of a row, so that consumers see a new change."""

PRUNE = "DELETE FROM change_log WHERE seq < (SELECT min(acknowledged) FROM feed_consumers)"
"""Deletes changes that all consumers acknowledged, except the last one, which is the anchor."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """The position of a consumer in the feed.

    Attributes:
        database_id: The id of the database.
        seq: The sequence number of the last change that the consumer has processed.
        anchor: The content of that change; a restored database has another change at `seq`.
    """

    database_id: str
    seq: int
    anchor: str


def track(
    connection: Connection, table: str, key_columns: Sequence[str], computed: Sequence[str] = ()
) -> None:
    """Create the triggers that log every change of a table, unless they exist.

    Existing rows of the table are logged as inserted. A table that was in the feed but has lost its
    triggers was rebuilt: its changed rows are unknown, so every consumer has to start again.

    Args:
        connection: Inside the transaction that created the table.
        table: The name of the table.
        key_columns: The columns that identify a row.
        computed: Columns that triggers compute from other tables; an update of these alone is not
            logged.
    """
    known = tracked_tables(connection).get(table)
    if known == tuple(key_columns) and _has_triggers(connection, table):
        if _update_of(connection, table) != {*map(folded, _logged(connection, table, computed))}:
            _write_triggers(connection, table, key_columns, computed)
        return
    _write_triggers(connection, table, key_columns, computed)
    connection.execute(
        "INSERT INTO feed_tables VALUES (?, ?) ON CONFLICT (table_name) "
        "DO UPDATE SET key_columns = excluded.key_columns",
        [table, json.dumps(list(key_columns))],
    )
    if known:
        if not _is_fresh(connection, table):
            _break_off(connection)
    else:
        key = feed_keys.expression(table, key_columns)
        connection.execute(_log(table, key, "insert", f"FROM {table}"))


def renew(connection: Connection) -> None:
    """Replace the triggers that an earlier version of this program created.

    Args:
        connection: Inside a transaction.
    """
    former = former_triggers(connection)
    written = connection.fetch_all(
        # Cast to BLOB, since the driver panics on a damaged definition that is not UTF-8.
        "SELECT DISTINCT CAST(sql AS BLOB) FROM sqlite_master "
        "WHERE type = 'trigger' AND name GLOB 'feed_*'"
    )
    known = {normalised(sql.decode(errors="replace")) for (sql,) in written}
    found = [former[sql] for sql in known if sql in former]
    tables = {renewed.table for renewed in found}
    tracked = tracked_tables(connection) if tables else {}
    for table in sorted(tables):
        _write_triggers(connection, table, tracked[table], computed_columns(connection, table))
        if len(tracked[table]) == 1:
            _encode_former_keys(connection, table, *tracked[table])


def _encode_former_keys(connection: Connection, table: str, column: str) -> None:
    """Encode the keys that earlier versions of this program logged of a table with one key column.

    If the column could hold both a number and the text of its digits, the log does not tell which
    of them it names, so that every consumer has to start again.
    """
    connection.execute(f"{feed_keys.FORMER_BLOBS} AND table_name = ?", [table])
    declared = connection.fetch_one(
        "SELECT upper(type) FROM pragma_table_xinfo(?) WHERE name = ?", [table, column]
    )
    type_ = declared[0] if declared else ""
    if "INT" in type_:
        connection.execute(f"{feed_keys.FORMER_NUMBERS} AND table_name = ?", [table])
    elif not any(text in type_ for text in ("CHAR", "CLOB", "TEXT")) and connection.fetch_one(
        f"{feed_keys.HAS_FORMER_NUMBERS} AND table_name = ? LIMIT 1", [table]
    ):
        _break_off(connection)


class Renewed(NamedTuple):
    """The current form of a trigger that an earlier version of this program defined differently.

    Attributes:
        table: The table whose changes the trigger logs.
        sql: The trigger's current definition, normalised.
    """

    table: str
    sql: str


def former_triggers(connection: Connection) -> dict[str, Renewed]:
    """Return the feed's current triggers by the normalised definitions of earlier versions."""
    found: dict[str, Renewed] = {}
    if connection.fetch_one("SELECT 1 FROM sqlite_master WHERE name = 'feed_tables'"):
        for table, key_columns in tracked_tables(connection).items():
            logged = _logged(connection, table, computed_columns(connection, table))
            current = triggers(table, key_columns, logged=logged)
            for expression in feed_keys.FORMER:
                for name, sql in triggers(table, key_columns, expression, logged=logged).items():
                    for clock in (CLOCK, FORMER_CLOCK):
                        former = normalised(sql.replace(CLOCK, clock))
                        renewed = Renewed(table, normalised(current[name]))
                        if former != renewed.sql:
                            found[former] = renewed
    return found


def computed_columns(connection: Connection, table: str) -> tuple[str, ...]:
    """Return the columns of a tracked table that its trigger for updates leaves out."""
    logged = _update_of(connection, table)
    columns = _columns(connection, table) if logged else ()
    return tuple(name for name in columns if folded(name) not in logged)


def _update_of(connection: Connection, table: str) -> frozenset[str]:
    """Return the folded columns that the trigger for updates names."""
    found = connection.fetch_one(
        "SELECT CAST(sql AS BLOB) FROM sqlite_master WHERE type = 'trigger' AND name = ?",
        [f"feed_{table}_update"],
    )
    return updated_columns(found[0].decode(errors="replace")) if found else frozenset()


def _logged(connection: Connection, table: str, computed: Container[str]) -> list[str]:
    """Return the columns to be named by the trigger for updates; none if it logs every update."""
    columns = _columns(connection, table) if computed else ()
    return [name for name in columns if name not in computed]


def _columns(connection: Connection, table: str) -> list[str]:
    rows = connection.fetch_all("SELECT name FROM pragma_table_info(?) ORDER BY cid", [table])
    return [name for (name,) in rows]


def _write_triggers(
    connection: Connection, table: str, key_columns: Sequence[str], computed: Sequence[str]
) -> None:
    logged = _logged(connection, table, computed)
    for name, sql in triggers(table, key_columns, logged=logged).items():
        connection.execute(f"DROP TRIGGER IF EXISTS {name}")
        connection.execute(sql)


def triggers(
    table: str,
    key_columns: Sequence[str],
    key: Callable[[str, Sequence[str]], str] = feed_keys.expression,
    *,
    logged: Sequence[str] = (),
) -> dict[str, str]:
    """Return the definitions of a table's triggers by name.

    Args:
        table: The name of the table.
        key_columns: The columns that identify a row.
        key: Returns SQL for the key of a row.
        logged: The columns whose updates are logged; if there are none, every update is.
    """
    events = {
        "insert": "INSERT",
        "update": f"UPDATE OF {', '.join(map(quoted, logged))}" if logged else "UPDATE",
        "delete": "DELETE",
    }
    old, new = key("OLD", key_columns), key("NEW", key_columns)
    bodies = {
        "insert": _log(table, new, "insert"),
        "update": _log(table, old, "delete", f"WHERE {old} IS NOT {new}")
        + _log(table, new, "update"),
        "delete": _log(table, old, "delete"),
    }
    return {
        f"feed_{table}_{event}": f"CREATE TRIGGER feed_{table}_{event} "
        f"AFTER {events[event]} ON {table} BEGIN {body} END"
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
    """Return whether a table of exactly this name exists and has these columns."""
    columns = connection.fetch_all(
        "SELECT c.name FROM sqlite_master AS t, pragma_table_xinfo(t.name) AS c "
        "WHERE t.type = 'table' AND t.name = ?",
        [table],
    )
    return bool(key_columns) and {name for (name,) in columns}.issuperset(key_columns)


def is_over(connection: Connection, table: str, tracked: Container[str]) -> bool:
    """Return whether a table was dropped, or renamed to one of the tables to be tracked."""
    found = connection.fetch_all(
        "SELECT tbl_name FROM sqlite_master WHERE (type = 'table' AND lower(name) = lower(?)) "
        "OR (type = 'trigger' AND name = ?)",
        [table, f"feed_{table}_insert"],
    )
    return all(name in tracked for (name,) in found)


def untrack(connection: Connection, table: str) -> None:
    """Remove a table from the feed, whether or not it still exists.

    The keys of its rows are removed from the log; their sequence numbers stay, so that the log has
    no gap.

    Args:
        connection: Inside the transaction that removes the table.
        table: The name of the table.
    """
    for event in ("insert", "update", "delete"):
        connection.execute(f"DROP TRIGGER IF EXISTS feed_{table}_{event}")
    if table in tracked_tables(connection):
        connection.execute("DELETE FROM feed_tables WHERE table_name = ?", [table])
        connection.execute("UPDATE change_log SET row_key = '' WHERE table_name = ?", [table])
        connection.execute(_MARK)


def mark(connection: Connection) -> None:
    """Log a change of the feed itself, so that the last change names no row."""
    connection.execute(_MARK)


def _is_fresh(connection: Connection, table: str) -> bool:
    """Return whether nothing was ever logged and a table is empty, as in a home that is created."""
    return not connection.fetch_all(
        "SELECT 1 FROM sqlite_sequence WHERE name = 'change_log' AND seq > 0 "
        f"UNION ALL SELECT 1 FROM {table} LIMIT 1"
    )


def _break_off(connection: Connection) -> None:
    """Delete every change and leave a gap in the numbers, so that every cursor is invalid."""
    connection.execute(_MARK)
    connection.execute("DELETE FROM change_log")
    connection.execute(_MARK)


def tracked_tables(connection: Connection) -> dict[str, tuple[str, ...]]:
    """Return the tables of the feed, each with its key columns."""
    return {
        table: tuple(json.loads(keys))
        for table, keys in connection.fetch_all(
            "SELECT table_name, key_columns FROM feed_tables ORDER BY table_name"
        )
    }


def head(connection: Connection) -> Cursor:
    """Return the cursor at the end of the feed."""
    rows = connection.fetch_all("SELECT value FROM system_state WHERE key = 'database_id'")
    last = connection.fetch_all("SELECT coalesce(max(seq), 0) FROM change_log")
    seq = last[0][0]
    return Cursor(rows[0][0], seq, _anchor(connection, seq))


def continues(connection: Connection, cursor: Cursor) -> bool:
    """Return whether the feed can be continued at a cursor; if not, the consumer must start again.

    It cannot if the log was pruned past the cursor, the database was replaced, or it was restored
    from a backup. The change at a consumer's cursor is never pruned, so comparing it is enough.
    """
    if head(connection).database_id != cursor.database_id:
        return False
    if cursor.seq == 0:  # nothing was read yet: the log must still have its first change
        return connection.fetch_one("SELECT min(seq) FROM change_log") in ((None,), (1,))
    return cursor.anchor == _anchor(connection, cursor.seq)


def has_change_of(connection: Connection, cursor: Cursor) -> bool:
    """Return whether the change at a cursor is the one that was there, or none is there any more.

    Its key does not count: an erasure and the end of a table's feed remove keys.
    """
    now = _anchor(connection, cursor.seq)
    if "" in (now, cursor.anchor) or "pruned" in (now, cursor.anchor):
        return True
    (table, _, *rest), (former, _, *others) = json.loads(now), json.loads(cursor.anchor)
    return [table, *rest] == [former, *others]


def acknowledge(connection: Connection, consumer: str, seq: int) -> None:
    """Store that a consumer has processed the changes up to `seq`, and prune the log."""
    with connection.transaction():
        connection.execute(
            "INSERT INTO feed_consumers VALUES (?, ?) ON CONFLICT (consumer) "
            "DO UPDATE SET acknowledged = max(acknowledged, excluded.acknowledged)",
            [consumer, seq],
        )
        _prune(connection)


def try_to_acknowledge(connection: Connection, consumer: str, seq: int) -> None:
    """Acknowledge changes, unless another connection writes for longer than `PATIENCE`."""
    patience, connection.busy_timeout = connection.busy_timeout, PATIENCE
    try:
        with contextlib.suppress(DatabaseLocked):
            acknowledge(connection, consumer, seq)
    finally:
        connection.busy_timeout = patience


def _prune(connection: Connection) -> None:
    """Delete the changes that all consumers acknowledged; if those are all, empty the table.

    SQLite empties a table without reading its rows; after the first load of a large home the log
    has as many rows as the home.
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
    # The key in hexadecimal digits: another program may have written bytes that are not text.
    row = connection.fetch_one(
        "SELECT json_array(table_name, hex(row_key), op, at) FROM change_log WHERE seq = ?", [seq]
    )
    return "pruned" if row is None else str(row[0])
