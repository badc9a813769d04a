"""Rows that two devices changed without knowing of each other: the losing version is kept.

A row that another device deleted, or one that it refers to, without knowing of this version of it,
is kept as well. A person decides by `resolving`, which writes a new version, and names the losing
one in the header of its bundle. A decision ends the conflict on every device, also where the losing
version comes later, and so does an erasure whose device had taken in the losing version; see
`erased_conflicts`. A later change of the row does not, since who changes a row need not have looked
at what it lost. But a version that a device had replaced before it heard of the winner is not lost:
its conflict ends where the later version comes; see `end_replaced`. And two versions of a
personality are no conflict any more when the losing one is changed, which nobody has decided:
`decided_at` stays NULL, and the version may be lost later.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from aico_lab.adapters.libsql import NOW
from aico_lab.federation.bundles import Ctx, Decision, RowChange
from aico_lab.federation.erased_conflicts import end_needless
from aico_lab.federation.rows import (
    RawText,
    Version,
    from_json,
    physical,
    stored_versions,
    to_columns,
    with_raw_text,
)
from aico_lab.federation.taken_in import ctx_of, had, knew

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


def queue(
    replica: Replica,
    table: FederatedTable,
    loser: RowChange,
    winner: Version | None = None,
    *,
    kind: str = "row",
    is_parent: bool = False,
) -> None:
    """Keep a losing version for a person, if its table's conflicts are queued.

    Args:
        replica: The device.
        table: The table of the row.
        loser: The version.
        winner: The one that it lost to; None for a deletion.
        kind: The kind of the conflict; see `RowConflict`.
        is_parent: Whether an erased row is kept only for others which refer to it.
    """
    if not table.queues_conflicts or _was_replaced(replica, table.name, loser, winner):
        return
    end_replaced(replica, table.name, {loser.key: loser.version})
    # That the version was beside another one of a personality is less than that it is lost.
    inserted = replica.connection.fetch_one(
        "INSERT INTO sync_conflicts (table_name, row_key, loser, winner, content, kind, is_parent, "
        f"state, found_at) VALUES (?, ?, ?, ?, ?, ?, ?, 'open', {NOW}) "
        "ON CONFLICT (table_name, row_key, loser) "
        "DO UPDATE SET content = excluded.content, kind = excluded.kind, state = 'open' "
        "WHERE kind = 'personality' AND decided_at IS NULL RETURNING conflict_id",
        [
            table.name, loser.key, _stored(loser.version), winner and _stored(winner),
            json.dumps(to_columns(table, loser.content or ())), kind, is_parent,
        ],
    )  # fmt: skip
    if inserted:
        replica.publish_event("federation.conflict", {"number": inserted[0], "table": table.name})


def end_replaced(replica: Replica, table: str, new: Mapping[str, Version]) -> None:
    """End conflicts whose losing version was replaced by a new one, before it lost.

    The new one's author knew the losing version, and not the winner. Whoever knows both and changes
    the row has decided nothing.

    Args:
        replica: The device.
        table: The table of the rows.
        new: The new versions by key.
    """
    for number, key, loser, winner in replica.connection.fetch_all(
        "SELECT conflict_id, row_key, loser, winner FROM sync_conflicts WHERE state = 'open' "
        "AND (kind = 'deleted' OR winner IS NOT NULL) AND table_name = ? "
        "AND row_key IN (SELECT value FROM json_each(?))",
        [table, json.dumps(list(new))],
    ):
        if _replaced_first(replica, new[key], _version(loser), winner and _version(winner)):
            replica.connection.execute("DELETE FROM sync_conflicts WHERE conflict_id = ?", [number])


def _was_replaced(replica: Replica, table: str, loser: RowChange, winner: Version | None) -> bool:
    """Return whether the author of a version that is or was a conflict had replaced another one."""
    return any(
        _replaced_first(replica, _version(later), loser.version, winner)
        for (later,) in replica.connection.fetch_all(
            "SELECT loser FROM sync_conflicts WHERE kind <> 'personality' AND table_name = ? "
            "AND row_key = ?",
            [table, loser.key],
        )
    )


def _replaced_first(
    replica: Replica, later: Version, loser: Version, winner: Version | None
) -> bool:
    # Whoever knew of a deletion wrote a version with another causal length. What the author of a
    # version knew that came with a state cannot be told.
    return (
        later.cl == loser.cl
        and ctx_of(replica, later) is not None
        and knew(replica, later, loser)
        and not (winner and knew(replica, later, winner))
    )


def _stored(version: Version) -> str:
    """Return a version in the form of `Decision.loser`."""
    return json.dumps([version.stream, version.n, version.stamp, version.cl])


def _version(stored: str) -> Version:
    """Return a version of which `_stored` returned the form, without its digest."""
    stream, n, stamp, cl = json.loads(stored)
    return Version(cl, stamp, "", stream, n)


def kept_values(content: str) -> dict[str, Any]:
    """Return the values by column of a losing version, given as it is stored."""
    return {column: _kept_value(value) for column, value in json.loads(content).items()}


def _kept_value(value: object) -> object:
    match value:
        case {"t": str(text)}:
            return RawText(base64.b64decode(text))
        case _:
            return from_json(value)


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
                _PROFILES, key, _stored(versions[key]),
                json.dumps(to_columns(table, there[key])),
            ],
        )  # fmt: skip
        if inserted:
            replica.publish_event(
                "federation.conflict", {"number": inserted[0], "table": _PROFILES}
            )


def rival_of(replica: Replica, key: str) -> str | None:
    """Return the version of a personality that counts as the active one instead of another."""
    rows = replica.connection.fetch_all(_RIVALS)
    return next((winner for loser, winner in rows if loser == key), None)


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
        shown = rival_of(replica, key) or key if kind == "personality" else key
        there = with_raw_text(replica.connection, table, [shown])
        kept = dict(zip(table.columns, there[shown], strict=True)) if shown in there else {}
        version = _version(loser)
        is_unsent = replica.is_unsent(version.stream)
        found.append(
            RowConflict(
                number, name, key, version.device_id, kept_values(content), kept, found_at, kind,
                is_unsent,
                is_for_others=not is_unsent and table.class_ not in own,
            )
        )  # fmt: skip
    return found
