"""Rows that two devices changed without knowing of each other: the losing version is kept.

A row that another device deleted, or one that it refers to, without knowing of this version of it,
is kept as well. A person decides by `Federation.resolve`, which writes a new version, and names the
losing one in the header of its bundle. A decision ends the conflict on every device, also where the
losing version comes later, and so does an erasure whose device had taken in the losing version; see
`end_erased`. A later change of the row does not, since who changes a row need not have looked at
what it lost; only two versions of a personality are no conflict any more when one of them is
changed, which nobody has decided: `decided_at` stays NULL, and the version may be lost later.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from aico_lab.adapters.libsql import NOW
from aico_lab.adapters.sql_text import quoted
from aico_lab.errors import InvalidValue, UnknownName
from aico_lab.federation.bundles import Changes, Ctx, Decision, RowChange
from aico_lab.federation.chosen import checked
from aico_lab.federation.replaced import UNKNOWN_CTX
from aico_lab.federation.rows import (
    Version,
    device_of_stream,
    from_json,
    key_values,
    physical,
    stored_versions,
    to_columns,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from aico_lab.federation.replica import Replica
    from aico_lab.federation.tables import FederatedTable


_PROFILES: Final = "personality_profiles"


@dataclass(frozen=True, slots=True)
class RowConflict:
    """A row that two devices changed without knowing of each other.

    Attributes:
        number: The number of the conflict on this device.
        table: The table of the row.
        key: The key of the row.
        device_id: The device whose change lost.
        lost: The row in the losing version, by columns.
        kept: The row as it is now; empty if it was deleted.
        found_at: When the conflict was found, UTC.
        kind: 'row'; or 'personality' for a version of a companion's personality, where `kept` is
            another one, which has the same number or is also active, and counts as the active one;
            or 'deleted' for a row that was deleted, or went with one that it refers to, by a device
            that did not know it in this version.
        is_unsent: Whether `lost` is a change of this device that was in no bundle, as the device
            does not send such rows, or not this one; no other one knows of the conflict.
        is_for_others: Whether only another device can decide it, since this one does not send such
            rows.
    """

    number: int
    table: str
    key: str
    device_id: str
    lost: dict[str, Any]
    kept: dict[str, Any]
    found_at: str
    kind: str = "row"
    is_unsent: bool = False
    is_for_others: bool = False


def knew(replica: Replica, version: Version, other: Version) -> bool:
    """Return whether the author of a version had taken in another one of the same row."""
    if version.stream == other.stream:
        # Two bundles of one number are of a copied home, whose copies do not know of each other.
        return version.n > other.n and len(_hashes(replica, other.stream, other.n)) == 1
    row = replica.connection.fetch_one(
        "SELECT ctx FROM sync_chain WHERE stream = ? AND n = ?", [version.stream, version.n]
    )
    if row is not None and row[0] == UNKNOWN_CTX:  # the author of the state knew all that it has
        return True
    return row is not None and had(replica, Ctx(json.loads(row[0])), other.stream, other.n)


def had(replica: Replica, ctx: Ctx, stream: str, n: int) -> bool:
    """Return whether all bundles `n` of a stream had been taken in; copied homes write several."""
    if not ctx.has(stream, n):
        return False
    hashes = _hashes(replica, stream, n)
    if len(hashes) <= 1:
        return True
    before = replica.connection.fetch_all(
        "WITH RECURSIVE before(n, hash) AS (SELECT n, hash FROM sync_chain WHERE stream = ?1 "
        "AND hash IN (SELECT value FROM json_each(?2)) UNION SELECT c.n - 1, c.prev "
        "FROM before JOIN sync_chain AS c ON c.stream = ?1 AND c.n = before.n "
        "AND c.hash = before.hash WHERE c.n > ?3) SELECT hash FROM before WHERE n = ?3",
        [stream, json.dumps(ctx[stream][1]), n],
    )
    return hashes <= {hash_ for (hash_,) in before}


def _hashes(replica: Replica, stream: str, n: int) -> set[str]:
    rows = replica.connection.fetch_all(
        "SELECT hash FROM sync_chain WHERE stream = ? AND n = ?", [stream, n]
    )
    return {hash_ for (hash_,) in rows}


def keep_losers(replica: Replica, table: str, keys: Sequence[str], ctx: Ctx) -> None:
    """Keep the losers of rows that are to be deleted, if the deleting device did not know them."""
    for number, loser in replica.connection.fetch_all(
        "SELECT conflict_id, loser FROM sync_conflicts WHERE state = 'open' AND kind = 'row' "
        "AND table_name = ? AND row_key IN (SELECT value FROM json_each(?))",
        [table, json.dumps(list(keys))],
    ):
        stream, n, *_ = json.loads(loser)
        if not had(replica, ctx, stream, n):
            replica.connection.execute(
                "UPDATE sync_conflicts SET kind = 'deleted' WHERE conflict_id = ?", [number]
            )


def end_erased(replica: Replica, changes: Changes, ctx: Ctx) -> None:
    """End the conflicts of erased rows whose losing versions the erasing device knew.

    This device may have erased before it got such a version. Versions of a device that the
    statement does not name stay, as in `erasures.concerns`, unless that device itself erased the
    row. A version without which other kept rows could not be brought back ends with the last of
    them.

    Args:
        replica: The device.
        changes: The rows of a bundle.
        ctx: What its author had taken in.
    """
    for name, some in changes.items():
        erased = {one.key: one.version for one in some if one.version.is_erased}
        for number, key, loser in replica.connection.fetch_all(
            "SELECT conflict_id, row_key, loser FROM sync_conflicts WHERE state = 'open' "
            "AND table_name = ? AND row_key IN (SELECT value FROM json_each(?))",
            [name, json.dumps(list(erased))],
        ):
            stream, n, *_ = json.loads(loser)
            if _is_concerned(replica, erased[key], stream) and had(
                replica, _ctx_of(replica, erased[key]) or ctx, stream, n
            ):
                replica.connection.execute(
                    "UPDATE sync_conflicts SET is_parent = 1 WHERE conflict_id = ?", [number]
                )
    end_needless(replica)


def _ctx_of(replica: Replica, version: Version) -> Ctx | None:
    """Return what the author of a version had taken in, or None if its bundle has not come.

    It need not be the author of the bundle that it came with, since a state has all versions.
    """
    row = replica.connection.fetch_one(
        "SELECT ctx FROM sync_chain WHERE stream = ? AND n = ? AND ctx <> ?",
        [version.stream, version.n, UNKNOWN_CTX],
    )
    return Ctx(json.loads(row[0])) if row else None


def _is_concerned(replica: Replica, erased: Version, stream: str) -> bool:
    """Return whether an erasure, by which a row was erased, concerns the versions of a stream."""
    row = replica.connection.fetch_one(
        "SELECT statement ->> 'devices' FROM sync_erasures WHERE erasure_id = ?",
        [erased.erasure_id],
    )
    device_id = device_of_stream(stream)
    return row is None or device_id in json.loads(row[0]) or erased.device_id == device_id


def end_needless(replica: Replica) -> None:
    """End the conflicts of erased rows that are kept only for others which refer to them."""
    found: dict[str, list[tuple[int, str]]] = {}
    for name, number, key in replica.connection.fetch_all(
        "SELECT table_name, conflict_id, row_key FROM sync_conflicts "
        "WHERE state = 'open' AND is_parent"
    ):
        found.setdefault(name, []).append((number, key))
    for table in reversed(replica.tables.values()):  # children before parents
        for number, key in found.get(table.name, ()):
            if not _is_needed(replica, table, key):
                replica.connection.execute(
                    "DELETE FROM sync_conflicts WHERE conflict_id = ?", [number]
                )


def _is_needed(replica: Replica, table: FederatedTable, key: str) -> bool:
    """Return whether a deleted row that is kept refers to a row."""
    return any(
        replica.connection.fetch_one(
            "SELECT 1 FROM sync_conflicts WHERE state = 'open' AND kind = 'deleted' "
            f"AND table_name = ? AND {_stored_value(child, position)} = ? LIMIT 1",
            [child.name, key],
        )
        for child, position in _children(replica, table)
    )


def _children(replica: Replica, table: FederatedTable) -> list[tuple[FederatedTable, int]]:
    """Return the tables whose rows are kept and go with those of a table, and the reference."""
    return [
        (child, parent.position)
        for child in replica.tables.values()
        for parent in child.parents
        if parent.table == table.name and not parent.is_cleared and child.queues_conflicts
    ]


def _stored_value(table: FederatedTable, position: int) -> str:
    """Return SQL for a value of a kept row, by its position in a full row."""
    if position >= len(table.keys):
        name = table.columns[position - len(table.keys)].replace("'", "''")
        return f"(SELECT value FROM json_each(content) WHERE key = '{name}')"
    return "row_key" if len(table.keys) == 1 else f"row_key ->> {position}"


def queue(
    replica: Replica,
    table: FederatedTable,
    loser: RowChange,
    *,
    kind: str = "row",
    is_parent: bool = False,
) -> None:
    """Keep a losing version for a person, if its table's conflicts are queued.

    Args:
        replica: The device.
        table: The table of the row.
        loser: The version.
        kind: The kind of the conflict; see `RowConflict`.
        is_parent: Whether an erased row is kept only for others which refer to it.
    """
    if not table.queues_conflicts:
        return
    # That the version was beside another one of a personality is less than that it is lost.
    inserted = replica.connection.fetch_one(
        "INSERT INTO sync_conflicts (table_name, row_key, loser, content, kind, is_parent, state, "
        f"found_at) VALUES (?, ?, ?, ?, ?, ?, 'open', {NOW}) "
        "ON CONFLICT (table_name, row_key, loser) "
        "DO UPDATE SET content = excluded.content, kind = excluded.kind, state = 'open' "
        "WHERE kind = 'personality' AND decided_at IS NULL RETURNING conflict_id",
        [
            table.name, loser.key, _stored_loser(loser.version),
            json.dumps(to_columns(table, loser.content or ())), kind, is_parent,
        ],
    )  # fmt: skip
    if inserted:
        replica.publish_event("federation.conflict", {"number": inserted[0], "table": table.name})


def _stored_loser(version: Version) -> str:
    """Return a losing version in the form of `Decision.loser`."""
    return json.dumps([version.stream, version.n, version.stamp, version.cl])


_RIVALS: Final = """
    SELECT l.profile_id, w.profile_id FROM personality_profiles AS l
    JOIN personality_profiles AS w ON w.user_id IS l.user_id AND w.context IS l.context
        AND (w.active_from, w.profile_id) > (l.active_from, l.profile_id)
        AND (w.version = l.version OR (w.active_until IS NULL AND l.active_until IS NULL))
    ORDER BY l.profile_id, w.active_from DESC, w.profile_id DESC
"""
"""Versions of personalities beside another one that counts as the active one."""


def queue_profiles(replica: Replica) -> None:
    """Keep for a person which of two versions of a personality is to be the active one.

    Both stay, because nobody chose what is between them, and metrics refer to them.
    """
    table = replica.tables[_PROFILES]
    rivals: dict[str, str] = dict(reversed(replica.connection.fetch_all(_RIVALS)))
    versions = stored_versions(replica.connection, _PROFILES, rivals)
    there, _ = physical(replica.connection, table, list(versions))
    for key in versions.keys() & there.keys():
        inserted = replica.connection.fetch_one(
            "INSERT INTO sync_conflicts (table_name, row_key, loser, content, kind, state, "
            f"found_at) SELECT ?1, ?2, ?3, ?4, 'personality', 'open', {NOW} WHERE NOT EXISTS "
            "(SELECT 1 FROM sync_conflicts WHERE table_name = ?1 AND row_key = ?2 "
            "AND kind = 'personality') ON CONFLICT DO NOTHING RETURNING conflict_id",
            [
                _PROFILES, key, _stored_loser(versions[key]),
                json.dumps(to_columns(table, there[key])),
            ],
        )  # fmt: skip
        if inserted:
            replica.publish_event(
                "federation.conflict", {"number": inserted[0], "table": _PROFILES}
            )


def _rival_of(replica: Replica, key: str) -> str | None:
    """Return the version of a personality that counts as the active one instead of another."""
    rows = replica.connection.fetch_all(_RIVALS)
    return next((winner for loser, winner in rows if loser == key), None)


def _choose_profile(replica: Replica, loser: str, *, keeps_lost: bool) -> None:
    """End the activity of the one of two versions of a personality that is not chosen."""
    winner = _rival_of(replica, loser)
    ended, chosen = (winner, loser) if keeps_lost else (loser, winner)
    replica.connection.execute(
        "UPDATE personality_profiles SET active_until = max(active_from, "
        "(SELECT active_from FROM personality_profiles WHERE profile_id = ?)) "
        "WHERE profile_id = ? AND active_until IS NULL",
        [chosen, ended],
    )


def close_seen(replica: Replica, table: str, keys: Iterable[str], ctx: Ctx) -> None:
    """End the conflicts of personalities that the author of new versions had seen."""
    new = set(keys)
    for number, key, loser in replica.connection.fetch_all(
        "SELECT conflict_id, row_key, loser FROM sync_conflicts WHERE state = 'open' "
        "AND kind = 'personality' AND table_name = ?",
        [table],
    ):
        stream, n, *_ = json.loads(loser)
        if key in new and had(replica, ctx, stream, n):
            replica.connection.execute(
                "UPDATE sync_conflicts SET state = 'decided', content = '{}' WHERE conflict_id = ?",
                [number],
            )


def receive(replica: Replica, class_: str, decided: Sequence[Decision]) -> int:
    """End the conflicts of a class that a person or an erasure decided.

    One that is not known yet is stored, so that its losing version is not queued later.

    Returns:
        The number of those that were open.
    """
    if not decided:
        return 0
    before = _count_open(replica)
    replica.connection.execute_many(
        "INSERT INTO sync_conflicts (table_name, row_key, loser, content, state, found_at, "
        f"decided_at) VALUES (?, ?, ?, '{{}}', 'decided', {NOW}, {NOW}) "
        "ON CONFLICT (table_name, row_key, loser) DO UPDATE SET state = 'decided', "
        "content = '{}', decided_at = coalesce(decided_at, excluded.decided_at)",
        [
            [one.table, one.key, one.loser]
            for one in decided
            if one.table in replica.tables and replica.tables[one.table].class_ == class_
        ],
    )
    ended = before - _count_open(replica)
    if ended:
        end_needless(replica)
    return ended


def _count_open(replica: Replica) -> int:
    row = replica.connection.fetch_one("SELECT count(*) FROM sync_conflicts WHERE state = 'open'")
    return int(row[0]) if row else 0


def newest(replica: Replica) -> int:
    """Return the number of the newest conflict, or 0."""
    row = replica.connection.fetch_one("SELECT max(conflict_id) FROM sync_conflicts")
    return (row and row[0]) or 0


def log_new(replica: Replica, device_id: str, since: int) -> None:
    """Write down how many conflicts with the rows of a device there are since an older one."""
    found = replica.connection.fetch_all(
        "SELECT table_name, count(*) FROM sync_conflicts WHERE conflict_id > ? "
        "AND state = 'open' GROUP BY table_name ORDER BY table_name",
        [since],
    )
    if found:
        counts = ", ".join(f"{count:,} of {table}" for table, count in found)
        replica.audit("federation.conflict", device_id, f"rows: {counts}")


def decided(replica: Replica, class_: str) -> list[Decision]:
    """Return the conflicts of a class that a person or an erasure decided."""
    names = [table.name for table in replica.tables.values() if table.class_ == class_]
    return [
        Decision.of(name, key, loser)
        for name, key, loser in replica.connection.fetch_all(
            "SELECT table_name, row_key, loser FROM sync_conflicts WHERE decided_at IS NOT NULL "
            "AND table_name IN (SELECT value FROM json_each(?)) ORDER BY conflict_id",
            [json.dumps(names)],
        )
    ]


def open_conflicts(replica: Replica) -> list[RowConflict]:
    """Return the conflicts that nobody has decided, oldest first."""
    found, own = [], replica.own_classes
    for number, name, key, loser, content, found_at, kind in replica.connection.fetch_all(
        "SELECT conflict_id, table_name, row_key, loser, content, found_at, kind "
        "FROM sync_conflicts WHERE state = 'open' ORDER BY conflict_id"
    ):
        table = replica.tables.get(name)
        if table is None:  # of a plugin that was deactivated
            continue
        shown = _rival_of(replica, key) or key if kind == "personality" else key
        there, _ = physical(replica.connection, table, [shown])
        kept = dict(zip(table.columns, there[shown], strict=True)) if shown in there else {}
        lost = {column: from_json(value) for column, value in json.loads(content).items()}
        stream = json.loads(loser)[0]
        is_unsent = stream == replica.unsent_stream
        device = device_of_stream(stream)
        found.append(
            RowConflict(
                number, name, key, device, lost, kept, found_at, kind, is_unsent,
                is_for_others=not is_unsent and table.class_ not in own,
            )
        )  # fmt: skip
    return found


def _bring_back(
    replica: Replica, table: FederatedTable, key: str, values: Mapping[str, Any]
) -> list[Decision]:
    """Write a row that went with one that it refers to, and that one before it.

    Returns:
        The conflicts of those that it refers to, which this decides.

    Raises:
        InvalidValue: This device does not have the row that it refers to.
    """
    columns = (*table.keys, *table.columns)
    full = [*key_values(table, key), *(values.get(column) for column in table.columns)]
    ended: list[Decision] = []
    for parent in table.parents:
        above, parent_key = replica.tables[parent.table], full[parent.position]
        if parent_key is None or physical(replica.connection, above, [parent_key])[0]:
            continue
        if parent.is_cleared:
            full[parent.position] = None
            continue
        row = replica.connection.fetch_one(
            "SELECT conflict_id, content FROM sync_conflicts WHERE state = 'open' "
            "AND kind = 'deleted' AND table_name = ? AND row_key = ?",
            [parent.table, parent_key],
        )
        if row is None:
            raise InvalidValue(
                f"It refers to {parent_key!r} of {parent.table}, which was deleted: decide on the "
                "device whose row it is."
            )
        stored = json.loads(row[1])
        ended += _bring_back(
            replica, above, parent_key,
            {column: from_json(value) for column, value in stored.items()},
        )  # fmt: skip
        ended += _decide(replica, row[0])
    sets = ", ".join(f"{quoted(c)} = excluded.{quoted(c)}" for c in table.columns)
    replica.connection.execute(
        f"INSERT INTO {table.name} ({', '.join(map(quoted, columns))}) "
        f"VALUES ({', '.join('?' * len(columns))}) "
        f"ON CONFLICT ({', '.join(map(quoted, table.keys))}) DO UPDATE SET {sets}",
        full,
    )
    return ended


def _decide(replica: Replica, number: int) -> list[Decision]:
    """End a conflict, and those of the row with equal content; keep nothing of the content."""
    ended = replica.connection.fetch_all(
        f"UPDATE sync_conflicts SET state = 'decided', content = '{{}}', decided_at = {NOW} "
        "WHERE state = 'open' AND (table_name, row_key, content) = (SELECT table_name, row_key, "
        "content FROM sync_conflicts WHERE conflict_id = ?) RETURNING table_name, row_key, loser",
        [number],
    )
    return [Decision.of(*one) for one in ended]


def resolve(
    replica: Replica, numbers: Iterable[int], keep: str | Mapping[str, Any]
) -> list[Decision]:
    """Decide conflicts, by new versions of the rows; also those of rows that they refer to.

    Args:
        replica: Inside a transaction.
        numbers: The numbers of the conflicts.
        keep: 'mine' for the version of this device, 'theirs' for the other one, or values of
            columns, of which the others stay as they are now.

    Returns:
        What is to be sent with the new versions.

    Raises:
        UnknownName: There is no such open conflict.
        InvalidValue: The row has no such column, `keep` is none of these, or this device does not
            send such rows.
        ConstraintViolated: The row may not have these values.
    """
    found = {conflict.number: conflict for conflict in open_conflicts(replica)}
    for number in numbers:
        if number not in found:
            raise UnknownName(
                f"There is no open conflict {number}: see `aico-lab federate conflicts`."
            )
        if found[number].is_for_others:
            raise InvalidValue(
                f"This device sends no {found[number].table}: decide conflict {number} on another."
            )
    # A row brings back what it refers to, which is then decided.
    places = {name: place for place, name in enumerate(reversed(replica.tables))}
    chosen = [found[number] for number in dict.fromkeys(numbers)]
    ended: list[Decision] = []
    for conflict in sorted(chosen, key=lambda one: (places[one.table], one.number)):
        if replica.connection.fetch_one(
            "SELECT 1 FROM sync_conflicts WHERE conflict_id = ? AND state = 'open'",
            [conflict.number],
        ):
            ended += _resolve(replica, conflict, keep)
            ended += _decide(replica, conflict.number)
    end_needless(replica)
    return ended


def _resolve(
    replica: Replica, conflict: RowConflict, keep: str | Mapping[str, Any]
) -> list[Decision]:
    table = replica.tables[conflict.table]
    ended: list[Decision] = []
    if isinstance(keep, str):
        if keep not in ("mine", "theirs"):
            raise InvalidValue("Keep 'mine', 'theirs', or values of columns.")
        keeps_lost = (conflict.device_id == replica.device_id) == (keep == "mine")
        chosen: Mapping[str, Any] = conflict.lost if keeps_lost else {}
        if conflict.kind == "personality":
            _choose_profile(replica, conflict.key, keeps_lost=keeps_lost)
            chosen = {}
    else:
        chosen = keep
    if unknown := set(chosen) - set(table.columns):
        raise InvalidValue(
            f"Rows of {table.name} have no column {min(unknown)!r} that can be changed: "
            f"choose among {', '.join(table.columns)}."
        )
    if not isinstance(keep, str):
        chosen = checked(replica.connection, table.name, chosen)
    if conflict.kind == "deleted":
        if chosen:
            before = conflict.kept or conflict.lost
            ended = _bring_back(replica, table, conflict.key, {**before, **chosen})
    elif chosen:
        sets = ", ".join(f"{quoted(column)} = ?" for column in chosen)
        where = " AND ".join(f"{quoted(column)} = ?" for column in table.keys)
        replica.connection.execute(
            f"UPDATE {table.name} SET {sets} WHERE {where}",
            [*chosen.values(), *key_values(table, conflict.key)],
        )
    replica.connection.execute(
        "INSERT INTO sync_dirty (table_name, row_key, at, is_deleted, is_forced) "
        "VALUES (?, ?, ?, 0, 1) ON CONFLICT (table_name, row_key) "
        "DO UPDATE SET is_forced = 1",
        [table.name, conflict.key, replica.now()],
    )
    return ended
