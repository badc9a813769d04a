"""Write the rows of another device's bundle into the tables, in one transaction.

What changed here is sealed first, because its context is what this device had seen before. Rows
whose parent was deleted are deleted too, as a change of this device; rows whose parent has not come
yet are parked, like rows that a constraint refuses. They are tried again after all bundles that can
be taken in, since a try for every parked row with every bundle would take hours.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from typing import TYPE_CHECKING, Any, Final

import orjson

from aico_lab.adapters.sql_text import quoted
from aico_lab.errors import ConstraintViolated
from aico_lab.federation import conflicts, control, erased_conflicts, taken_in
from aico_lab.federation.bundles import ROWS, Changes, Ctx, FileName, Header, RowChange
from aico_lab.federation.rows import (
    Version,
    device_of_stream,
    digest_of,
    from_columns,
    key_values,
    next_stamp,
    order,
    physical,
    store_twins,
    store_versions,
    stored_twins,
    stored_versions,
    text_or_none,
    to_columns,
    with_raw_text,
    with_twins,
)
from aico_lab.federation.sealing import (
    add_to_chain,
    collect,
    forget_content,
    seal,
    write_statements,
)
from aico_lab.federation.tables import select_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from collections.abc import Set as AbstractSet

    from aico_lab.federation.replica import Replica
    from aico_lab.federation.tables import FederatedTable

_NO_PARENT: Final = "it waits for the row that it refers to"

Full = list[Any]
"""The values of a row: the key's columns, then the others."""
Missing = dict[tuple[int, Any], bool]
"""Parents that do not exist, by position in a full row and key, and whether they were deleted."""
_Parked = tuple[RowChange, str, str | None, str | None]  # with the reason and the unknown parent

# The rows of this device that were not sealed are known by their own bundles, a moment later.
_DUE: Final = """SELECT parked_id, table_name, row_key, version, ctx FROM sync_parked
    WHERE parked_id > ? AND parked_id <= ? AND (parent_key IS NULL OR EXISTS (
        SELECT 1 FROM sync_rows WHERE table_name = parent_table AND row_key = parent_key))
    ORDER BY parked_id LIMIT ?"""


def apply(replica: Replica, name: FileName, header: Header, changes: Changes) -> None:
    """Write the rows of a bundle, obey its statements, and note the bundle as taken in."""
    with _changes_of(name.device, replica) as applying:
        # First, because what its author had taken in is asked for while its rows are merged.
        add_to_chain(replica, name, header)
        applying.merge(changes, header.ctx)
        if ended := conflicts.receive(replica, header.class_, header.decided):
            replica.audit("federation.resolved", name.device, f"conflicts: {ended:,}")
        _note_seen(replica, name, header)
        applying.answers = control.obey(replica, header.statements, name.device)
        if changes:
            replica.publish_event(
                "federation.applied",
                {"device_id": name.device, "rows": {t: len(rows) for t, rows in changes.items()}},
            )


def retry_parked(replica: Replica) -> None:
    """Try the parked rows again whose parent is known now, and those that a constraint refused."""
    connection = replica.connection
    if not connection.fetch_one("SELECT 1 FROM sync_parked"):
        return
    # Only a bundle, of this device or another, can have changed what they wait for.
    if replica.get("parked:tried") == _bundles(replica):
        return
    left = _count_parked(replica)
    while left:
        _retry_once(replica)
        before, left = left, _count_parked(replica)
        if left == before:
            break
    replica.put("parked:tried", _bundles(replica))


def _bundles(replica: Replica) -> str:
    return str(replica.connection.fetch_all("SELECT count(*), max(hash) FROM sync_chain"))


def _count_parked(replica: Replica) -> int:
    row = replica.connection.fetch_one("SELECT count(*) FROM sync_parked")
    return int(row[0]) if row else 0


def _retry_once(replica: Replica) -> None:
    """Try the parked rows that are due, each once; the rows of a bundle have one transaction."""
    connection = replica.connection
    row = connection.fetch_one("SELECT max(parked_id) FROM sync_parked")
    tried, last = 0, row[0] if row else 0  # a row that is parked again has a greater number
    while due := connection.fetch_all(_DUE, [tried, last, ROWS]):
        tried = due[-1][0]
        parked = [
            (number, name, ctx, RowChange(key, Version(*head), from_columns(known, stored)))
            for number, name, key, version, ctx in due
            for head, stored in [orjson.loads(version)]
            if (known := replica.tables.get(name))  # none of a plugin that was deactivated
        ]
        for (device, ctx), found in itertools.groupby(
            parked, lambda one: (one[3].version.device_id, one[2])
        ):
            group = list(found)
            changes: Changes = {}
            for _, table, _, change in group:
                changes.setdefault(table, []).append(change)
            with _changes_of(device, replica) as applying:
                connection.execute(
                    "DELETE FROM sync_parked WHERE parked_id IN (SELECT value FROM json_each(?))",
                    [json.dumps([number for number, *_ in group])],
                )
                applying.merge(changes, Ctx(json.loads(ctx)))


@contextlib.contextmanager
def _changes_of(device_id: str, replica: Replica) -> Iterator[_Applying]:
    """Run a block in one transaction, whose changes are those of another device."""
    connection = replica.connection
    with connection.transaction():
        seal(replica)
        before, known = _last_change(replica), conflicts.newest(replica)
        connection.execute("INSERT INTO sync_applying VALUES (1)")
        applying = _Applying(replica)
        yield applying
        connection.execute("DELETE FROM sync_applying")
        connection.execute("UPDATE change_log SET device_id = ? WHERE seq > ?", [device_id, before])
        collect(replica, without=applying.written)
        # Cascades, and rows without a parent, are changes of this device.
        write_statements(replica, applying.answers)
        seal(replica)
        for table, lost, is_parent in applying.lost:
            conflicts.queue(replica, table, lost, kind="deleted", is_parent=is_parent)
        conflicts.log_new(replica, device_id, known)


def _last_change(replica: Replica) -> int:
    row = replica.connection.fetch_one("SELECT coalesce(max(seq), 0) FROM change_log")
    return int(row[0]) if row else 0


def _note_seen(replica: Replica, name: FileName, header: Header) -> None:
    """Store which bundles of others a trusted device had taken in."""
    seen = [
        head
        for stream, (_, heads) in header.ctx.items()
        if device_of_stream(stream) != name.device
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
        answers: Statements of this device on those of the bundle.
        lost: Rows that were deleted, or went with a row that they refer to, by a device that did
            not know of them in this version. Beside each is whether it is not one of these, but
            an erased row that one of them refers to.
    """

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._connection = replica.connection
        self._sent_classes = replica.own_classes  # before the statements of the bundle
        self.written: set[tuple[str, str]] = set()
        self.answers: list[control.Statement] = []
        self.lost: list[tuple[FederatedTable, RowChange, bool]] = []
        self._has_unsendable = bool(
            replica.connection.fetch_one("SELECT 1 FROM sync_unsendable LIMIT 1")
        )
        self._gone: set[tuple[str, str]] = set()
        self._before: dict[tuple[str, str], Version] = {}
        self._known: dict[tuple[str, int, str, int], bool] = {}
        self._had_of: dict[tuple[str, int], bool] = {}

    def merge(self, changes: Changes, ctx: Ctx) -> None:
        """Write those versions that are greater than the stored ones; then delete rows."""
        gone: dict[str, list[str]] = {}
        for table in self._replica.tables.values():
            if table.name in changes:
                gone[table.name] = self._upsert(table, changes[table.name], ctx)
        below_first = [one for one in reversed(self._replica.tables.values()) if gone.get(one.name)]
        for table in below_first:
            erased = {one.key for one in changes.get(table.name, ()) if one.version.is_erased}
            self._keep_unknown(table, gone[table.name], ctx, erased)
        for table in below_first:
            self._delete(table, gone[table.name], ctx)
        erased_conflicts.end_erased(self._replica, changes, ctx)
        if "personality_profiles" in changes:
            conflicts.queue_profiles(self._replica)

    def _upsert(self, table: FederatedTable, changes: Sequence[RowChange], ctx: Ctx) -> list[str]:
        """Write the existing rows among changes, and return the keys of those to delete."""
        newer, unsent = self._newer(table, changes, ctx)
        gone = [change.key for change in newer if change.content is None]
        versions = {change.key: change.version for change in newer if change.content is None}
        alive = [change for change in newer if change.content is not None]
        fulls = [_full(table, change) for change in alive]
        missing = self._missing_parents(table, fulls)
        rows: dict[str, Full] = {}
        by_key = {change.key: change for change in alive}
        parked: list[_Parked] = []
        for change, full in zip(alive, fulls, strict=True):
            if parent := _unknown_parent(table, full, missing):
                parked.append((change, _NO_PARENT, *parent))
                continue
            fate = _without_parents(table, full, missing)
            versions[change.key] = change.version
            if fate == "delete":
                gone.append(change.key)
                if not self._deleters_knew(table, full, missing, change.version):
                    self.lost.append((table, change, False))
                self._connection.execute(
                    "INSERT INTO sync_dirty (table_name, row_key, at, is_deleted) "
                    "VALUES (?, ?, ?, 1) ON CONFLICT DO NOTHING",
                    [table.name, change.key, self._replica.now()],
                )
            else:
                rows[change.key] = full
                if fate == "write":
                    self.written.add((table.name, change.key))
        refused = self._write(table, rows)
        if self._has_unsendable:
            self._connection.execute(
                "DELETE FROM sync_unsendable WHERE table_name = ? "
                "AND row_key IN (SELECT value FROM json_each(?))",
                [table.name, json.dumps(list(rows.keys() - refused.keys()))],
            )
        for key in (unsent.keys() & rows.keys()) - refused.keys():
            if unsent[key].version.digest != by_key[key].version.digest:
                conflicts.queue(self._replica, table, unsent[key], by_key[key].version)
        self.lost += [(table, unsent[key], False) for key in gone if key in unsent]
        for key, reason in refused.items():
            del versions[key]
            self.written.discard((table.name, key))
            parked.append((by_key[key], reason, None, None))
        self._park(table, parked, ctx)
        store_versions(self._connection, table.name, versions)
        self._gone |= {(table.name, key) for key in gone}
        return gone

    def _newer(
        self, table: FederatedTable, changes: Sequence[RowChange], ctx: Ctx
    ) -> tuple[list[RowChange], dict[str, RowChange]]:
        """Return the changes that win over the stored versions, and keep the losers.

        Changes of this device that no other one can have seen are returned, too, by their keys.
        """
        known = stored_versions(self._connection, table.name, [one.key for one in changes])
        chosen: dict[str, RowChange] = {}
        beaten: dict[str, Version] = {}
        twins: list[tuple[str, Version]] = []
        for change in changes:
            new, old = change.version, known.get(change.key)
            greater = old is None or order(new) > order(old)
            if old and (new.cl, new.digest) == (old.cl, old.digest):
                if self._is_twin(old, new, ctx if greater else None):
                    twins.append((change.key, old if greater else new))
            elif old and greater and old.is_alive and new.digest != old.digest:
                beaten[change.key] = old
            if greater:
                if old:
                    self._before.setdefault((table.name, change.key), old)
                known[change.key] = new
                chosen[change.key] = change
        store_twins(self._connection, table.name, twins)
        unsent = self._unsent(table, list(chosen))
        if table.queues_conflicts:
            beaten = {key: old for key, old in beaten.items() if key not in unsent}
            self._keep_beaten(table, beaten, chosen, ctx)
            self._keep_refused(table, [one for one in changes if one.key not in chosen], known)
            conflicts.close_seen(self._replica, table.name, chosen, ctx)
            conflicts.end_replaced(
                self._replica, table.name, {one.key: one.version for one in changes}
            )
        return list(chosen.values()), unsent

    def _unsent(self, table: FederatedTable, keys: Sequence[str]) -> dict[str, RowChange]:
        """Return rows that were changed here and are in no bundle, as they are not sent."""
        is_sent = table.class_ in self._sent_classes
        if not table.queues_conflicts or (is_sent and not self._has_unsendable):
            return {}
        # Until they are deleted, those of this bundle are there without being changed.
        chosen = [key for key in keys if (table.name, key) not in self._gone]
        if is_sent:
            chosen = [
                key
                for (key,) in self._connection.fetch_all(
                    "SELECT row_key FROM sync_unsendable WHERE table_name = ? "
                    "AND typeof(row_key) = 'text' "
                    "AND row_key IN (SELECT value FROM json_each(?))",
                    [table.name, json.dumps(chosen)],
                )
            ]
        there = with_raw_text(self._connection, table, chosen)
        known = stored_versions(self._connection, table.name, there)
        digests = {key: digest_of(table, key, content) for key, content in there.items()}
        return {
            key: RowChange(key, self._unsent_version(table, key, digests[key]), content)
            for key, content in there.items()
            if key not in known or digests[key] != known[key].digest
        }

    def _unsent_version(self, table: FederatedTable, key: str, digest: str) -> Version:
        """Return a version of this device for a row in no bundle, unlike those it had before."""
        row = self._connection.fetch_one(
            "SELECT max(loser ->> 2) FROM sync_conflicts "
            "WHERE table_name = ? AND row_key = ? AND loser ->> 0 = ?",
            [table.name, key, self._replica.unsent_stream],
        )
        stamp = next_stamp(self._replica.now(), (row and row[0]) or 0)
        return Version(1, stamp, digest, self._replica.unsent_stream, 1)

    def _is_twin(self, old: Version, new: Version, ctx: Ctx | None) -> bool:
        """Return whether the author of the greater one of equal rows did not know of the other.

        Args:
            old: The stored version.
            new: The one of the bundle.
            ctx: The context of the bundle if its version is the greater one.
        """
        if not new.is_alive or (new.stream, new.n) == (old.stream, old.n):
            return False
        return not (self._knew(old, new) if ctx is None else self._had(ctx, old))

    def _keep_beaten(
        self,
        table: FederatedTable,
        beaten: dict[str, Version],
        chosen: dict[str, RowChange],
        ctx: Ctx,
    ) -> None:
        """Keep the stored rows that greater versions replace or delete without knowing of them."""
        deleted = [key for key in beaten if chosen[key].content is None]
        twins = stored_twins(self._connection, table.name, deleted) if deleted else {}
        unknown = {
            key: some
            for key, version in beaten.items()
            if (some := self._unknown(with_twins(version, twins.get(key)), ctx))
        }
        there, _ = physical(self._connection, table, list(unknown))
        for key in unknown.keys() & there.keys():
            for version in unknown[key]:
                loser = RowChange(key, version, there[key])
                if chosen[key].content is None:
                    self.lost.append((table, loser, False))
                else:
                    conflicts.queue(self._replica, table, loser, chosen[key].version)

    def _keep_refused(
        self, table: FederatedTable, changes: Sequence[RowChange], known: dict[str, Version]
    ) -> None:
        """Keep changes that lost to stored versions, or deletions, that did not know of them."""
        dead = []
        for change in changes:
            new, old = change.version, known[change.key]
            if not new.is_alive or new.digest == old.digest or self._knew(old, new):
                continue
            if old.is_alive:
                conflicts.queue(self._replica, table, change, old)
            else:
                dead.append(change)
        fulls = [_full(table, change) for change in dead]
        missing = self._missing_parents(table, fulls)
        self.lost += [
            (table, change, False)
            for change, full in zip(dead, fulls, strict=True)
            if not self._deleters_knew(table, full, missing, change.version)
        ]

    def _knew(self, version: Version, other: Version) -> bool:
        """Return whether the author of a stored version had taken in another one of the row."""
        asked = (version.stream, version.n, other.stream, other.n)
        if asked not in self._known:
            self._known[asked] = taken_in.knew(self._replica, version, other)
        return self._known[asked]

    def _had(self, ctx: Ctx, version: Version) -> bool:
        """Return whether the author of the bundle had taken in a version."""
        asked = (version.stream, version.n)
        if asked not in self._had_of:
            self._had_of[asked] = taken_in.had(self._replica, ctx, *asked)
        return self._had_of[asked]

    def _unknown(self, versions: Sequence[Version], ctx: Ctx) -> list[Version]:
        return [version for version in versions if not self._had(ctx, version)]

    def _missing_parents(self, table: FederatedTable, fulls: Sequence[Full]) -> Missing:
        """Return the references to rows that do not exist, and whether those were deleted."""
        missing: Missing = {}
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

    def _deleters_knew(
        self, table: FederatedTable, full: Full, missing: Missing, version: Version
    ) -> bool:
        """Return whether a device that deleted a parent of a row had the row."""
        return any(
            self._knew(deleted, version)
            for parent in table.parents
            if (parent.position, key := full[parent.position]) in missing and not parent.is_cleared
            for deleted in stored_versions(self._connection, parent.table, [key]).values()
        )

    def _keep_unknown(
        self, table: FederatedTable, keys: Sequence[str], ctx: Ctx, erased: AbstractSet[str]
    ) -> None:
        """Note the rows that go with deleted ones without their author's knowing of them.

        The deleted ones are noted, too: without them those rows cannot come back. An erased row is
        noted only if a row goes with it that would be kept as a conflict.
        """
        noted = {change.key for other, change, _ in self.lost if other is table}
        lost = {}
        below = self._unknown_below(table, [key for key in keys if key not in erased], ctx)
        below |= self._unknown_below(
            table, [key for key in keys if key in erased], ctx, only_kept=True
        )
        for key, is_shared in below.items():
            before = self._before.get((table.name, key)) if is_shared else None
            if key not in noted:
                lost[key] = [before or self._unsent_version(table, key, "")]
        self._note_lost(table, lost, erased)

    def _unknown_below(
        self, table: FederatedTable, keys: Sequence[str], ctx: Ctx, *, only_kept: bool = False
    ) -> dict[str, bool]:
        """Note the rows below some rows.

        Args:
            table: The table of the rows.
            keys: Their keys.
            ctx: What the author of the bundle had taken in.
            only_kept: Whether to leave out the rows of tables whose conflicts are not queued.

        Returns:
            The keys of those that have any, and whether other devices note them as well.
        """
        above: dict[str, bool] = {}
        for child in self._replica.tables.values():
            full = (*child.keys, *child.columns)
            for parent in child.parents:
                if parent.table != table.name or parent.is_cleared or child.name == table.name:
                    continue
                if not keys or (only_kept and not child.queues_conflicts):
                    continue
                column = f"t.{quoted(full[parent.position])}"
                found = self._connection.fetch_all(
                    f"SELECT CAST({select_key(child, 't')} AS BLOB), {column}, cl, stamp, digest, "
                    f"stream, n, twins FROM {child.name} AS t "
                    f"LEFT JOIN sync_rows AS r ON r.table_name = ? "
                    f"AND r.row_key = {select_key(child, 't')} LEFT JOIN sync_streams "
                    f"USING (stream_id) WHERE {column} IN (SELECT value FROM json_each(?))",
                    [child.name, json.dumps(list(keys))],
                )
                # Of one whose key no bundle can have, nobody could name the conflict.
                rows = [
                    (key, *row) for raw, *row in found if (key := text_or_none(raw)) is not None
                ]
                if rows:
                    conflicts.keep_losers(self._replica, child.name, [row[0] for row in rows], ctx)
                deeper = self._unknown_below(
                    child, [row[0] for row in rows], ctx, only_kept=only_kept
                )
                unsent = self._unsent(child, [row[0] for row in rows])
                noted = {
                    change.key: not self._replica.is_unsent(change.version.stream)
                    for other, change, _ in self.lost
                    if other is child
                }
                lost, parents = {}, set()
                for key, parent_key, *version, twins in rows:
                    if (child.name, key) in self._gone:  # noted with its own deletion
                        if key in deeper or key in noted:
                            is_shared = deeper.get(key, False) or noted.get(key, False)
                            above[parent_key] = is_shared or above.get(parent_key, False)
                        continue
                    known = with_twins(Version(*version), twins) if version[0] else []
                    is_unsent = key in unsent or not known
                    unknown = [] if is_unsent else self._unknown(known, ctx)
                    is_shared = bool(unknown) or deeper.get(key, False)
                    if is_unsent or unknown or key in deeper:
                        kept = unknown or (known[:1] if is_shared and not is_unsent else [])
                        lost[key] = kept or [self._unsent_version(child, key, "")]
                        parents |= {key} if only_kept and not (is_unsent or unknown) else set()
                        above[parent_key] = is_shared or above.get(parent_key, False)
                self._note_lost(child, lost, parents)
        return above

    def _note_lost(
        self, table: FederatedTable, lost: dict[str, list[Version]], parents: AbstractSet[str]
    ) -> None:
        if not table.queues_conflicts:
            return
        there = with_raw_text(self._connection, table, list(lost))
        self.lost += [
            (table, RowChange(key, version, content), key in parents)
            for key, content in there.items()
            for version in lost[key]
        ]

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

    def _delete(self, table: FederatedTable, keys: Sequence[str], ctx: Ctx) -> None:
        where = " AND ".join(f"{quoted(column)} = ?" for column in table.keys)
        self._connection.execute_many(
            f"DELETE FROM {table.name} WHERE {where}", [key_values(table, key) for key in keys]
        )
        conflicts.keep_losers(self._replica, table.name, keys, ctx)
        forget_content(self._replica, table.name, keys)

    def _park(self, table: FederatedTable, parked: Sequence[_Parked], ctx: Ctx) -> None:
        if not parked:
            return
        rows = [
            [
                change.key,
                orjson.dumps([[*change.version], to_columns(table, change.content or ())]).decode(),
                reason, parent_table, parent_key,
            ]
            for change, reason, parent_table, parent_key in parked
        ]  # fmt: skip
        self._connection.execute(
            "INSERT INTO sync_parked (table_name, row_key, version, ctx, reason, parent_table, "
            "parent_key) SELECT ?, value ->> 0, value ->> 1, ?, value ->> 2, value ->> 3, "
            "value ->> 4 FROM json_each(?)",
            [table.name, json.dumps(ctx), orjson.dumps(rows).decode()],
        )


def _full(table: FederatedTable, change: RowChange) -> Full:
    return [*key_values(table, change.key), *(change.content or ())]


def _unknown_parent(table: FederatedTable, full: Full, missing: Missing) -> tuple[str, str] | None:
    """Return the table and key of a row's first parent that has not come, or None."""
    for parent in table.parents if missing else ():
        key = full[parent.position]
        if missing.get((parent.position, key)) is False:
            return parent.table, key
    return None


def _without_parents(table: FederatedTable, full: Full, missing: Missing) -> str:
    """Return whether to write, alter or delete a row, and clear its references to deleted rows."""
    fate = "write"
    for parent in table.parents if missing else ():
        if (parent.position, full[parent.position]) not in missing:
            continue
        if parent.is_cleared and fate != "delete":
            full[parent.position] = None
            fate = "alter"
        else:
            fate = "delete"
    return fate
