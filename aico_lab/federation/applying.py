"""Take in a bundle of another device, in one transaction.

What changed here is sealed first, because its context is what this device had seen before. Rows
whose parent was deleted are deleted too, as a change of this device; rows whose parent has not come
yet are parked, like rows that a constraint refuses, and tried again with every bundle.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from aico_lab.adapters.sql_text import quoted
from aico_lab.errors import ConstraintViolated
from aico_lab.federation import conflicts, control
from aico_lab.federation.bundles import Changes, Ctx, FileName, Header, RowChange
from aico_lab.federation.rows import (
    Version,
    from_json,
    key_values,
    order,
    physical,
    store_versions,
    stored_versions,
    to_json,
)
from aico_lab.federation.sealing import (
    add_to_chain,
    collect,
    forget_content,
    seal,
    write_statements,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from aico_lab.federation.replica import Replica
    from aico_lab.federation.tables import FederatedTable

_NO_PARENT: Final = "it waits for the row that it refers to"

Full = list[Any]
"""The values of a row: the key's columns, then the others."""


def apply(replica: Replica, name: FileName, header: Header, changes: Changes) -> None:
    """Take in a bundle that may be taken in now."""
    connection = replica.connection
    with connection.transaction():
        seal(replica)
        before = _last_change(replica)
        connection.execute("INSERT INTO sync_applying VALUES (1)")
        applying = _Applying(replica)
        applying.merge(changes, header.ctx)
        add_to_chain(replica, name, header)
        _note_seen(replica, name, header)
        applying.retry_parked()
        if "personality_profiles" in changes:
            conflicts.queue_profiles(replica)
        connection.execute("DELETE FROM sync_applying")
        answers = control.obey(replica, header.statements, name.device)
        connection.execute(
            "UPDATE change_log SET device_id = ? WHERE seq > ?", [name.device, before]
        )
        collect(replica, without=applying.written)
        # Cascades, and rows without a parent, are changes of this device.
        write_statements(replica, answers)
        seal(replica)
        if changes:
            replica.publish_event(
                "federation.applied",
                {"device_id": name.device, "rows": {t: len(rows) for t, rows in changes.items()}},
            )


def _last_change(replica: Replica) -> int:
    row = replica.connection.fetch_one("SELECT coalesce(max(seq), 0) FROM change_log")
    return int(row[0]) if row else 0


def _note_seen(replica: Replica, name: FileName, header: Header) -> None:
    """Store which bundles of others a trusted device had taken in."""
    seen = [
        head
        for stream, (_, heads) in header.ctx.items()
        if not stream.startswith(f"{name.device}.")
        for head in heads
    ]
    replica.connection.execute(
        "INSERT INTO sync_seen SELECT value FROM json_each(?) WHERE true ON CONFLICT DO NOTHING",
        [json.dumps(seen)],
    )


class _Applying:
    """The application of one bundle.

    Attributes:
        written: The rows that have exactly the content of their stored version.
    """

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._connection = replica.connection
        self.written: set[tuple[str, str]] = set()

    def merge(self, changes: Changes, ctx: Ctx) -> None:
        """Write those versions that are greater than the stored ones; then delete rows."""
        gone: dict[str, list[str]] = {}
        for table in self._replica.tables.values():
            if table.name in changes:
                gone[table.name] = self._upsert(table, changes[table.name], ctx)
        for table in reversed(self._replica.tables.values()):
            if gone.get(table.name):
                self._delete(table, gone[table.name])

    def retry_parked(self) -> None:
        """Try the parked rows again."""
        parked = self._connection.fetch_all(
            "SELECT table_name, row_key, version, ctx FROM sync_parked ORDER BY parked_id"
        )
        if not parked:
            return
        self._connection.execute("DELETE FROM sync_parked")
        for name, key, version, ctx in parked:
            head, content = json.loads(version)
            row = RowChange(key, Version(*head), tuple(from_json(value) for value in content))
            self.merge({name: [row]}, Ctx(json.loads(ctx)))

    def _upsert(self, table: FederatedTable, changes: Sequence[RowChange], ctx: Ctx) -> list[str]:
        """Write the existing rows among changes, and return the keys of those to delete."""
        newer = self._newer(table, changes, ctx)
        gone = [change.key for change in newer if change.content is None]
        versions = {change.key: change.version for change in newer if change.content is None}
        alive = [change for change in newer if change.content is not None]
        missing = self._missing_parents(table, alive)
        rows: dict[str, Full] = {}
        by_key = {change.key: change for change in alive}
        for change in alive:
            full = _full(table, change)
            fate = self._without_parents(table, full, missing)
            if fate == "park":
                self._park(table, change, ctx, _NO_PARENT)
                continue
            versions[change.key] = change.version
            if fate == "delete":
                gone.append(change.key)
                self._connection.execute(
                    "INSERT INTO sync_dirty VALUES (?, ?, ?, 1, 0) ON CONFLICT DO NOTHING",
                    [table.name, change.key, self._replica.now()],
                )
            else:
                rows[change.key] = full
                if fate == "write":
                    self.written.add((table.name, change.key))
        for key, reason in self._write(table, rows).items():
            del versions[key]
            self.written.discard((table.name, key))
            self._park(table, by_key[key], ctx, reason)
        store_versions(self._connection, table.name, versions)
        return gone

    def _newer(
        self, table: FederatedTable, changes: Sequence[RowChange], ctx: Ctx
    ) -> list[RowChange]:
        """Return the changes that win over the stored versions, and queue the losers."""
        known = stored_versions(self._connection, table.name, [one.key for one in changes])
        chosen: dict[str, RowChange] = {}
        there: dict[str, tuple[Any, ...]] | None = None
        for change in changes:
            new, old = change.version, known.get(change.key)
            if old and order(new) <= order(old):
                if (
                    old.is_alive
                    and (new.cl, new.digest) != (old.cl, old.digest)
                    and new.cl == old.cl
                    and change.content is not None
                    and not conflicts.knew(self._replica, old, new)
                ):
                    conflicts.queue(self._replica, table, change)
                continue
            if (
                old
                and old.is_alive
                and old.cl == new.cl
                and old.digest != new.digest
                and not ctx.has(old.stream, old.n)
            ):
                if there is None:
                    there, _ = physical(self._connection, table, [one.key for one in changes])
                if change.key in there:
                    conflicts.queue(
                        self._replica, table, RowChange(change.key, old, there[change.key])
                    )
            known[change.key] = new
            chosen[change.key] = change
        if table.queues_conflicts:
            conflicts.close_seen(self._replica, table.name, list(chosen), ctx)
        return list(chosen.values())

    def _missing_parents(
        self, table: FederatedTable, alive: Iterable[RowChange]
    ) -> dict[tuple[int, Any], bool]:
        """Return the references to rows that do not exist, and whether those were deleted."""
        missing = {}
        fulls = [_full(table, change) for change in alive]
        for parent in table.parents:
            wanted = {full[parent.position] for full in fulls} - {None}
            if not wanted:
                continue
            parent_table = self._replica.tables[parent.table]
            keys = json.dumps(sorted(wanted))
            column = quoted(parent_table.keys[0])
            existing = self._connection.fetch_all(
                f"SELECT {column} FROM {parent.table} WHERE {column} IN "
                "(SELECT value FROM json_each(?))",
                [keys],
            )
            absent = sorted(wanted - {key for (key,) in existing})
            known = stored_versions(self._connection, parent.table, absent)
            for key in absent:
                missing[parent.position, key] = key in known and not known[key].is_alive
        return missing

    def _without_parents(
        self, table: FederatedTable, full: Full, missing: dict[tuple[int, Any], bool]
    ) -> str:
        """Return whether to write, alter, delete or park a row, and clear references to nothing."""
        fate = "write"
        for parent in table.parents:
            was_deleted = missing.get((parent.position, full[parent.position]))
            if was_deleted is None:
                continue
            if not was_deleted:
                return "park"
            if parent.is_cleared and fate != "delete":
                full[parent.position] = None
                fate = "alter"
            else:
                fate = "delete"
        return fate

    def _write(self, table: FederatedTable, rows: dict[str, Full]) -> dict[str, str]:
        """Insert or update rows; return the refused ones, with reasons."""
        if not rows:
            return {}
        sets = ", ".join(f"{quoted(c)} = excluded.{quoted(c)}" for c in table.columns)
        keys = ", ".join(map(quoted, table.keys))
        on_conflict = f"ON CONFLICT ({keys}) DO " + (f"UPDATE SET {sets}" if sets else "NOTHING")
        columns = [quoted(column) for column in (*table.keys, *table.columns)]

        def insert(some: Iterable[Full]) -> None:
            with self._connection.transaction():
                self._connection.insert_many(table.name, columns, some, on_conflict=on_conflict)

        try:
            insert(rows.values())
        except ConstraintViolated:
            refused = {}
            for key, full in rows.items():
                try:
                    insert([full])
                except ConstraintViolated as error:
                    refused[key] = f"it was refused: {error}"
            return refused
        return {}

    def _delete(self, table: FederatedTable, keys: Sequence[str]) -> None:
        where = " AND ".join(f"{quoted(column)} = ?" for column in table.keys)
        self._connection.execute_many(
            f"DELETE FROM {table.name} WHERE {where}", [key_values(table, key) for key in keys]
        )
        forget_content(self._replica, table.name, keys)

    def _park(self, table: FederatedTable, change: RowChange, ctx: Ctx, reason: str) -> None:
        content = [to_json(value) for value in change.content or ()]
        self._connection.execute(
            "INSERT INTO sync_parked (table_name, row_key, version, ctx, reason) "
            "VALUES (?, ?, ?, ?, ?)",
            [table.name, change.key, json.dumps([change.version, content]), json.dumps(ctx),
             reason],
        )  # fmt: skip


def _full(table: FederatedTable, change: RowChange) -> Full:
    return [*key_values(table, change.key), *(change.content or ())]
