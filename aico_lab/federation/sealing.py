"""From the change feed to bundles: a row that differs from its stored version was changed here.

So changes that came from other devices are not sent again, and what triggers and cascades did is.
"""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any, Final

from aico_lab.adapters.libsql import NOW
from aico_lab.federation import conflicts, epochs, erasures, replaced
from aico_lab.federation.bundles import (
    ROWS,
    SIZE,
    START,
    Changes,
    FileName,
    Header,
    RowChange,
    hash_of,
    pack,
)
from aico_lab.federation.rows import (
    MAX_STAMP,
    Version,
    digest_of_text,
    next_stamp,
    physical,
    store_versions,
    stored_versions,
    text_of,
    text_or_none,
)
from aico_lab.federation.tables import BASE, closed, select_key
from aico_lab.schema import feed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from collections.abc import Set as AbstractSet

    from aico_lab.federation.bundles import Decision
    from aico_lab.federation.replica import Replica
    from aico_lab.federation.tables import FederatedTable

CONSUMER: Final = "federation"
_FIRST, _AT_ONCE = 32, 250
"""Rows that are read at once: the first ones of a bundle, and then at most."""
_KEY_REFUSED: Final = "its key is not text that every device can store"
_LARGEST: Final = 32 << 20
"""The largest row that is sent, in bytes: no device takes in a bundle of twice the size."""


def seal(replica: Replica, decided: Iterable[Decision] = ()) -> int:
    """Write bundles of everything that changed here, and return the number of changed rows.

    Each bundle has its own transaction, unless one is open.

    Args:
        replica: The device.
        decided: Conflicts that a person decided, of rows that changed by this.
    """
    with replica.connection.transaction():
        collect(replica)
        # Before the deletions, which other devices apply only after they have erased the same.
        asked, ended = erasures.unsent(replica)
        write_statements(replica, asked)
    decided = [*decided, *ended]
    sealed = 0
    own = replica.own_classes
    # Rows come after those that they refer to, or they would be parked on the other devices.
    for class_ in dict.fromkeys(table.class_ for table in replica.tables.values()):
        if class_ not in own:
            continue
        due = [one for one in decided if replica.tables[one.table].class_ == class_]
        while True:
            with replica.connection.transaction():
                changes = _changes(replica, class_)
                if changes or due:
                    write(replica, class_, changes, decided=due[:ROWS])
            due = due[ROWS:]
            count = sum(map(len, changes.values()))
            if not (count or due):
                break
            sealed += count
    _clear_others(replica, own)
    # A device that only receives never sends them.
    if asked and (own or replica.receives_only):
        erasures.note_sent(replica, asked)
    return sealed


def write_statements(replica: Replica, statements: Sequence[dict[str, Any]]) -> None:
    """Write a bundle of statements of this device, and of those on keys that are due."""
    if replica.own_classes and (said := [*statements, *epochs.due(replica)]):
        write(replica, BASE, {}, said)


def collect(replica: Replica, *, without: AbstractSet[tuple[str, str]] = frozenset()) -> None:
    """Move the names of changed rows from the change feed to `sync_dirty`.

    Args:
        replica: Inside a transaction.
        without: Rows of which the feed's only change is known.
    """
    connection = replica.connection
    _follow_plugins(replica)
    stored = replica.get("cursor")
    cursor = feed.Cursor(**json.loads(stored)) if stored else None
    _scan(replica, everything=cursor is None or not feed.continues(connection, cursor))
    head = feed.head(connection)
    if cursor is not None and head.seq > cursor.seq:
        connection.execute(
            """INSERT INTO sync_dirty (table_name, row_key, at, is_deleted, place)
            WITH known AS MATERIALIZED (
                SELECT value ->> 0 AS name, value ->> 1 AS key FROM json_each(?3))
            SELECT
                table_name, row_key, max(at), max(op = 'delete'),
                coalesce(max(CASE WHEN op = 'insert' THEN seq END), min(seq))
            FROM change_log
            WHERE seq > ?1 AND table_name IN (SELECT value FROM json_each(?2))
            GROUP BY table_name, row_key
            HAVING count(*) > 1 OR max(op = 'delete')
                OR (table_name, row_key) NOT IN (SELECT name, key FROM known)
            ON CONFLICT (table_name, row_key) DO UPDATE SET
                at = max(at, excluded.at), is_deleted = max(is_deleted, excluded.is_deleted)""",
            [cursor.seq, json.dumps(list(replica.tables)), json.dumps(sorted(without))],
        )
    connection.execute(
        "DELETE FROM sync_unsendable WHERE (table_name, row_key) IN "
        "(SELECT table_name, row_key FROM sync_dirty)"
    )
    if cursor is None or head != cursor:
        replica.put("cursor", json.dumps({
            "database_id": head.database_id, "seq": head.seq, "anchor": head.anchor,
        }))  # fmt: skip
        feed.acknowledge(connection, CONSUMER, head.seq)


def _follow_plugins(replica: Replica) -> None:
    """Mark the rows of new plugins, and forget the versions of those that were deactivated.

    Their tables are gone without a deletion of rows, and get the rows again if they come back.
    """
    connection = replica.connection
    known, now = set(json.loads(replica.get("plugins") or "[]")), set(replica.plugins)
    if known == now:
        return
    for plugin in known - now:
        own = connection.fetch_all(
            "SELECT stream, n, hash FROM sync_chain WHERE class = ? AND stream GLOB ?",
            [plugin, f"{replica.device_id}.*"],
        )
        replica.put(f"left:{plugin}", json.dumps([str(FileName(*row)) for row in own]))
        for table in ("rows", "dirty", "parked", "conflicts", "unsendable"):
            connection.execute(f"DELETE FROM sync_{table} WHERE table_name GLOB ?", [f"{plugin}_*"])
        connection.execute("DELETE FROM sync_chain WHERE class = ?", [plugin])
        connection.execute("DELETE FROM sync_state WHERE key = ?", [f"stream:{plugin}"])
        connection.execute("UPDATE sync_states SET is_complete = 0 WHERE class = ?", [plugin])
    for plugin in now - known:
        replica.put(f"scan:{plugin}", "1")
        connection.execute("DELETE FROM sync_state WHERE key = ?", [f"left:{plugin}"])
    replica.put("plugins", json.dumps(sorted(now)))


def _scan(replica: Replica, *, everything: bool) -> None:
    """Mark all rows, if the feed cannot be continued, or those of a class that was not sent.

    A row without a version is as old as its last update that is known: that it was imported here is
    no change, and must not win over what other devices changed in the same row.
    """
    connection = replica.connection
    classes = {
        key.removeprefix("scan:")
        for (key,) in connection.fetch_all("SELECT key FROM sync_state WHERE key GLOB 'scan:*'")
    }
    for table in replica.tables.values():
        if not (everything or table.class_ in classes):
            continue
        key = select_key(table, "t")
        connection.execute(
            f"""INSERT INTO sync_dirty (table_name, row_key, at, is_deleted, place)
            WITH updated AS MATERIALIZED (
                SELECT row_key, max(at) AS at FROM change_log
                WHERE table_name = '{table.name}' AND op = 'update' GROUP BY row_key)
            SELECT
                '{table.name}', {key},
                CASE WHEN r.row_key IS NULL THEN coalesce(u.at, 0) ELSE ? END,
                0, {f"t.{table.place}" if table.place else 0}
            FROM {table.name} AS t
            LEFT JOIN sync_rows AS r ON r.table_name = '{table.name}' AND r.row_key = {key}
            LEFT JOIN updated AS u ON u.row_key = {key}
            WHERE true ON CONFLICT DO NOTHING""",
            [replica.now()],
        )
        connection.execute(
            """INSERT INTO sync_dirty (table_name, row_key, at, is_deleted)
            SELECT table_name, row_key, ?, 1 FROM sync_rows
            WHERE table_name = ? AND cl % 2 = 1 ON CONFLICT DO NOTHING""",
            [replica.now(), table.name],
        )
    connection.execute("DELETE FROM sync_state WHERE key GLOB 'scan:*'")


def _changes(replica: Replica, class_: str) -> Changes:
    """Return the next changes of a class, at most one bundle of them, as its own versions."""
    connection = replica.connection
    changes: Changes = {}
    count = size = 0
    stream = replica.stream(class_)
    length = connection.fetch_one(
        "SELECT coalesce(max(n), 0) FROM sync_chain WHERE stream = ?", [stream]
    )
    n = 1 + (length[0] if length else 0)
    for table in replica.tables.values():
        while table.class_ == class_ and count < ROWS and size < SIZE:
            dirty = connection.fetch_all(
                "SELECT CAST(row_key AS BLOB), typeof(row_key) = 'text', at, is_deleted, "
                "is_forced, erased_by FROM sync_dirty WHERE table_name = ? "
                "ORDER BY place, row_key LIMIT ?",
                [table.name, ROWS - count],
            )
            if not dirty:
                break
            done, at_once = 0, _FIRST
            while done < len(dirty) and size < SIZE:
                some = dirty[done : done + at_once]
                before = size
                for change, bytes_ in _compared(replica, table, some, stream, n):
                    done += 1
                    if change is not None:
                        changes.setdefault(table.name, []).append(change)
                        count += 1
                        size += bytes_
                    if size >= SIZE:
                        break
                # A row may have a million characters.
                at_once = max(1, min(_AT_ONCE, len(some) * SIZE // max(size - before, 1)))
            connection.execute(
                "DELETE FROM sync_dirty WHERE table_name = ? AND (place, row_key) <= (SELECT "
                "place, row_key FROM sync_dirty WHERE table_name = ? ORDER BY place, row_key "
                "LIMIT 1 OFFSET ?)",
                [table.name, table.name, done - 1],
            )
    return {name: rows for name, rows in changes.items() if rows}


def _compared(
    replica: Replica, table: FederatedTable, dirty: Sequence[Sequence[Any]], stream: str, n: int
) -> Iterator[tuple[RowChange | None, int]]:
    """Yield the new version of each row that differs from its stored one, and its size in bytes.

    Args:
        replica: The device.
        table: The table of the rows.
        dirty: The rows, as read from `sync_dirty`.
        stream: The stream of the next bundle.
        n: Its number.

    Yields:
        None instead of a version for a row that does not differ, or cannot be sent.
    """
    keys = [text_or_none(raw) if is_text else None for raw, is_text, *_ in dirty]
    named = [key for key in keys if key is not None]
    there, unreadable = physical(replica.connection, table, named)
    known = stored_versions(replica.connection, table.name, named)
    has_forgotten = functools.cache(replica.has_forgotten)
    for key, (raw, _, at, is_deleted, is_forced, erased_by) in zip(keys, dirty, strict=True):
        if key is None or key in unreadable:
            reason = _KEY_REFUSED if key is None else "its text has a NUL, or is not UTF-8"
            _leave_out(replica, table.name, raw if key is None else key, reason)
            yield None, 0
            continue
        content, old = there.get(key), known.get(key)
        text = b"" if content is None else text_of(table, key, content)
        digest = digest_of_text(text) if text else ""
        cl = _next_length(
            old,
            digest,
            # If it came and went between two bundles, nobody has it, unless that is forgotten.
            is_deleted=bool(is_deleted) and (bool(old or digest) or has_forgotten()),
            is_forced=bool(is_forced),
            is_erased=erased_by is not None,
        )
        if len(text) > _LARGEST:
            _leave_out(replica, table.name, key, "it is larger than 32 MiB")
            cl = None
        if cl is None:
            yield None, 0
        else:
            version = Version(*_stamped(old, cl, at), digest or erased_by or "", stream, n)
            yield RowChange(key, version, content), len(text)


def _stamped(old: Version | None, cl: int, at: int) -> tuple[int, int]:
    """Return the causal length and the stamp of a new version, greater than those before."""
    if old and cl == old.cl and old.stamp >= MAX_STAMP:
        # A clock was far in the future: no stamp is greater, so the row comes again.
        return cl + 2, next_stamp(at, 0)
    return cl, next_stamp(at, old.stamp if old else 0)


def _next_length(
    old: Version | None, digest: str, *, is_deleted: bool, is_forced: bool, is_erased: bool
) -> int | None:
    """Return the causal length of a row's new version, or None if it has no new version.

    Args:
        old: Its stored version.
        digest: The digest of its content now, or nothing if it does not exist.
        is_deleted: Whether it existed, and this device may have published it.
        is_forced: Whether it is sent although it is as stored.
        is_erased: Whether an erasure deleted it since its stored version.
    """
    if old is None:
        # A row that came and went between two bundles leaves nothing, since its tombstone would
        # delete a row of another device with this key. But before this home was restored from a
        # backup, it may have been published.
        return 1 if digest else 2 if is_deleted else None
    if bool(digest) != old.is_alive:
        return old.cl + 1
    if is_erased and digest:  # it is back, and other devices may have the deletion already
        return old.cl + 2
    if is_forced and not digest:  # greater than what a device wrote because a parent was deleted
        return old.cl + 2
    return old.cl if digest and (digest != old.digest or is_forced) else None


def _leave_out(replica: Replica, table: str, key: str | bytes, reason: str) -> None:
    replica.connection.execute(
        "INSERT INTO sync_unsendable VALUES (?, ?, ?) ON CONFLICT DO NOTHING", [table, key, reason]
    )


def _clear_others(replica: Replica, own: AbstractSet[str]) -> None:
    """Delete the marks of changed rows in classes that this device does not send; see `_scan`.

    A device that is revoked keeps those of erased rows, in case it joins again.
    """
    others = [table.name for table in replica.tables.values() if table.class_ not in own]
    if others:
        replica.connection.execute(
            "DELETE FROM sync_dirty WHERE table_name IN (SELECT value FROM json_each(?)) "
            "AND (erased_by IS NULL OR ?)",
            [json.dumps(others), not replica.is_outside],
        )


def write(
    replica: Replica,
    class_: str,
    changes: Changes,
    statements: Iterable[dict[str, Any]] = (),
    *,
    decided: Iterable[Decision] = (),
    is_state: bool = False,
) -> FileName:
    """Write a bundle of this device, which becomes visible after the transaction.

    Args:
        replica: Inside a transaction.
        class_: The class of the rows.
        changes: New versions of rows, of this bundle unless it is one of a state.
        statements: Signed statements, which all trusted devices can read.
        decided: Conflicts of the class that a person decided.
        is_state: Whether the rows have the versions that are stored; see `replaced`.
    """
    connection, said = replica.connection, list(statements)
    stream, ctx = replica.stream(class_), replica.ctx()
    length, heads = ctx.get(stream, (0, []))
    header = Header(
        class_, stream, length + 1, heads[-1] if heads else START, ctx,
        replica.schema_of(class_), said, _needs(replica, class_), list(decided),
    )  # fmt: skip
    entitled = replica.entitled()[class_]
    key = epochs.recipient(replica, class_, entitled)
    recipients = [key] if key else []
    if said:  # they must also reach devices that do not have the newest key, or lose their trust
        revoked = [one["device_id"] for one in said if one["kind"] == "revoke"]
        recipients += [
            recipient
            for (recipient,) in connection.fetch_all(
                "SELECT recipient FROM devices WHERE trust_level > 0 "
                "OR (recipient IS NOT NULL AND device_id IN (SELECT value FROM json_each(?)))",
                [json.dumps(revoked)],
            )
        ]
    content = pack(
        header, replica.tables, changes, signing_key=replica.signing_key, recipients=recipients
    )
    name = FileName(stream, header.n, hash_of(content))
    replica.spool.prepare(name, content)
    for table, rows in changes.items():
        if not is_state:
            store_versions(connection, table, {one.key: one.version for one in rows})
            conflicts.close_seen(replica, table, [one.key for one in rows], ctx)
            forget_content(replica, table, [one.key for one in rows if one.content is None])
    add_to_chain(replica, name, header)
    return name


def _needs(replica: Replica, class_: str) -> list[str]:
    """Return this device's last bundles of the classes that rows of a class may refer to."""
    others = closed(replica.tables, class_) - {class_}
    gone = replaced.names(replica)
    return [
        str(FileName(*row))
        for row in replica.connection.fetch_all(
            "SELECT stream, max(n), hash FROM sync_chain WHERE stream GLOB ? AND class IN "
            "(SELECT value FROM json_each(?)) GROUP BY stream",
            [f"{replica.device_id}.*", json.dumps(sorted(others))],
        )
        if str(FileName(*row)) not in gone
    ]


def forget_content(replica: Replica, table: str, keys: Sequence[str]) -> None:
    """Remove what is stored of deleted rows beside the tables, but not what a person decides."""
    for stored, but in (
        ("sync_conflicts", "AND kind != 'deleted' AND state = 'open'"),
        ("sync_parked", ""),
        ("sync_unsendable", ""),
    ):
        replica.connection.execute(
            f"DELETE FROM {stored} WHERE table_name = ? "
            f"AND row_key IN (SELECT value FROM json_each(?)) {but}",
            [table, json.dumps(list(keys))],
        )


def add_to_chain(replica: Replica, name: FileName, header: Header) -> None:
    """Store that a bundle was written or taken in, and when that was done last for its device."""
    replica.connection.execute(
        "INSERT INTO sync_chain VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        [name.stream, name.n, name.hash, header.prev, header.class_, json.dumps(header.ctx)],
    )
    replica.connection.execute(
        f"INSERT INTO sync_state VALUES (?, {NOW}) ON CONFLICT (key) "
        "DO UPDATE SET value = excluded.value",
        [f"last:{name.device}"],
    )
