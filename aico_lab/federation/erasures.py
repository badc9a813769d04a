"""Erasures that devices ask each other for, by signed statements that name nobody.

The deletions alone would take away the rows by which another device finds what it has made of them,
such as its snapshots and the companion's answers. So a device takes in the statement before the
deletions, and nothing more until it has carried the erasure out itself, which a caller does. It
then passes the statement on, in case its own deletions reach a device before those of the first.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from aico_lab.federation import conflicts, erased_conflicts
from aico_lab.federation.bundles import Ctx, Decision, Refused, read_ctx
from aico_lab.federation.rows import stored_versions
from aico_lab.federation.tables import select_key
from aico_lab.home.receipts import ERASURE_ID

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from aico_lab.federation.replica import Replica

ROW_OF: Final[dict[str, tuple[str, str] | None]] = {
    "user": ("users", "user_id"), "channel": ("channels", "channel_id"), "conversation": None,
}  # fmt: skip
"""The table and key of the row by which one can tell who came back, by kind of scope."""

_FORMS: Final = {
    "erasure_id": ERASURE_ID,
    "device_id": re.compile("[0-9a-f]{16}"),
    "key": re.compile("[0-9a-f]{64}"),
}
_HASH: Final = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class AskedErasure:
    """An erasure that another device asked for, and that is not finished here.

    Attributes:
        erasure_id: Its id, on all devices.
        device_id: The device.
        key: The key of the hash in the scope.
        scope: What it erases, with a keyed hash instead of an id.
        cl: The causal length of its row after the deletion there; None if it has no row.
        devices: The devices that the one which asked knew, also revoked ones.
        after: The ids of the earlier erasures of the same scope that it knew.
        ctx: What it had taken in; empty for people and channels, or if it is not known.
        is_begun: Whether its rows were deleted here.
    """

    erasure_id: str
    device_id: str
    key: bytes
    scope: dict[str, str]
    cl: int | None
    devices: tuple[str, ...]
    after: tuple[str, ...]
    ctx: Ctx
    is_begun: bool


@dataclass(frozen=True, slots=True)
class ErasedForDevice:
    """The result of an erasure that another device asked for.

    Attributes:
        device_id: The device.
        name: Its name.
        rows: The number of rows that were deleted from the primary database.
        left: A sentence for each place outside of what an erasure reaches.
    """

    device_id: str
    name: str
    rows: int
    left: list[str]


def ask(
    replica: Replica,
    erasure_id: str,
    key: bytes,
    scope: Mapping[str, str],
    value: str,
    *,
    after: Sequence[str] = (),
) -> None:
    """Note that the other devices are to erase the same, in the transaction that deletes the rows.

    Args:
        replica: The device.
        erasure_id: The id of the erasure.
        key: The key of the hash in the scope.
        scope: What it erases, with a keyed hash instead of an id.
        value: The id.
        after: The ids of the earlier erasures of the same scope that this device knows.
    """
    kind = scope["kind"]
    named = replica.connection.fetch_all(
        "SELECT device_id FROM devices WHERE recipient IS NOT NULL ORDER BY device_id"
    )
    # Whoever never had the row may have one that another device has added, too.
    cl = None if ROW_OF[kind] is None else max(2, length(replica, kind, value))
    statement = {
        "kind": "erase", "erasure_id": erasure_id, "device_id": replica.device_id,
        "key": key.hex(), "scope": dict(scope), "cl": cl,
        "devices": [device_id for (device_id,) in named], "after": list(after),
        "ctx": replica.ctx() if cl is None else {},
    }  # fmt: skip
    note(replica, [statement])


def statements(replica: Replica, erasure_ids: Sequence[str]) -> list[dict[str, Any]]:
    """Return the statements on erasures, in the order of their ids."""
    return [
        json.loads(text)
        for (text,) in replica.connection.fetch_all(
            "SELECT statement FROM sync_erasures "
            "WHERE erasure_id IN (SELECT value FROM json_each(?)) ORDER BY erasure_id",
            [json.dumps(list(erasure_ids))],
        )
    ]


def note(replica: Replica, said: Iterable[Mapping[str, Any]]) -> None:
    """Store statements on erasures, to be sent with the next bundles.

    One that is stored stays as it is.
    """
    replica.connection.execute_many(
        "INSERT INTO sync_erasures (erasure_id, statement, state, unsent) "
        "VALUES (?, ?, 'done', '[]') ON CONFLICT DO NOTHING",
        [[one["erasure_id"], json.dumps(one)] for one in said],
    )


def length(replica: Replica, kind: str, value: str) -> int:
    """Return the causal length of a person's or channel's row as it is now; 0 if it never was."""
    row_of = ROW_OF[kind]
    if row_of is None:
        return 0
    table, column = row_of
    there = bool(replica.connection.fetch_one(f"SELECT 1 FROM {table} WHERE {column} = ?", [value]))
    known = stored_versions(replica.connection, table, [value]).get(value)
    return int(there) if known is None else known.cl + (there != known.is_alive)


def receive(replica: Replica, said: Mapping[str, Any]) -> None:
    """Note an erasure that a device asks for.

    A second statement on the same erasure adds its devices to those of the first. This device
    carries it out now if only the second one names it, unless it has a record of the erasure.

    Args:
        replica: The device.
        said: The statement.

    Raises:
        Refused: The statement is malformed.
    """
    scope, cl = said.get("scope"), said.get("cl")
    devices, after = said.get("devices"), said.get("after", [])
    if (
        not all(
            isinstance(said.get(name), str) and form.fullmatch(said[name])
            for name, form in _FORMS.items()
        )
        or not isinstance(scope, dict)
        or scope.get("kind") not in ROW_OF
        or not isinstance(scope.get("id_hmac"), str)
        or not _HASH.fullmatch(scope["id_hmac"])
        or (type(cl) is not int if ROW_OF[scope["kind"]] else cl is not None)
        or not (isinstance(devices, list) and isinstance(after, list))
        or not all(isinstance(one, str) for one in (*devices, *after))
    ):
        raise Refused("its statements are malformed")
    try:
        ctx = read_ctx(said.get("ctx", {}))
    except (ValueError, TypeError, AttributeError) as error:
        raise Refused("its statements are malformed") from error
    statement = {
        "kind": "erase", **{name: said[name] for name in _FORMS},
        "scope": {"kind": scope["kind"], "id_hmac": scope["id_hmac"]}, "cl": cl, "devices": devices,
        "after": after, "ctx": ctx,
    }  # fmt: skip
    for before in statements(replica, [said["erasure_id"]]):
        named = {*before["devices"], *devices}
        is_new = replica.own_ids.isdisjoint(before["devices"]) and replica.own_ids & named
        replica.connection.execute(
            "UPDATE sync_erasures SET statement = ?2, state = iif(?3 AND NOT EXISTS "
            "(SELECT 1 FROM erasures WHERE erasure_id = ?1), 'waiting', state) "
            "WHERE erasure_id = ?1",
            [said["erasure_id"], json.dumps(before | {"devices": sorted(named)}), bool(is_new)],
        )
    replica.connection.execute(
        "INSERT INTO sync_erasures (erasure_id, statement, state) "
        "VALUES (?, ?, 'waiting') ON CONFLICT DO NOTHING",
        [said["erasure_id"], json.dumps(statement)],
    )


def concerns(replica: Replica, erasure: AskedErasure, kind: str, value: str) -> bool:
    """Return whether this device is to carry an erasure out.

    A device that the asking one did not know may have rows that the asking one never had, such as
    its own from before it joined. So it erases only if all rows with the id came from devices that
    the asking one knew.

    Args:
        replica: The device.
        erasure: The erasure.
        kind: The kind of its scope.
        value: The id.
    """
    if not replica.own_ids.isdisjoint(erasure.devices):
        return True
    column = f"{kind}_id"
    return not any(
        replica.connection.fetch_one(
            f"SELECT 1 FROM {table.name} AS t LEFT JOIN sync_rows AS r ON r.table_name = ? "
            f"AND r.row_key = {select_key(table, 't')} LEFT JOIN sync_streams USING (stream_id) "
            f"WHERE t.{column} = ? AND coalesce(substr(stream, 1, 16), '') NOT IN "
            "(SELECT value FROM json_each(?)) LIMIT 1",
            [table.name, value, json.dumps(erasure.devices)],
        )
        for table in replica.tables.values()
        if column in (*table.keys, *table.columns)
    )


def waits(replica: Replica) -> bool:
    """Return whether an erasure is to be finished before anything more is taken in.

    Also one of this device: else it would delete, as written meanwhile, the rows of a person who
    has come back on another one.
    """
    return bool(
        replica.connection.fetch_one(
            "SELECT 1 FROM sync_erasures WHERE state <> 'done' "
            "UNION ALL SELECT 1 FROM erasures WHERE finished_at IS NULL LIMIT 1"
        )
    )


def name_of(replica: Replica, erasure: AskedErasure) -> str:
    """Return the name of the device that asked for an erasure."""
    row = replica.connection.fetch_one(
        "SELECT name FROM devices WHERE device_id = ?", [erasure.device_id]
    )
    return row[0] if row and row[0] else erasure.device_id


def asked(replica: Replica) -> list[AskedErasure]:
    """Return the erasures that other devices asked for and that are not finished here."""
    found = []
    for text, state in replica.connection.fetch_all(
        "SELECT statement, state FROM sync_erasures WHERE state <> 'done' ORDER BY erasure_id"
    ):
        one = json.loads(text)
        found.append(
            AskedErasure(
                one["erasure_id"], one["device_id"], bytes.fromhex(one["key"]), one["scope"],
                one["cl"], tuple(one["devices"]), tuple(one.get("after", [])),
                read_ctx(one.get("ctx", {})), state == "erasing",
            )
        )  # fmt: skip
    return found


def begin(replica: Replica, erasures: Iterable[AskedErasure]) -> None:
    """Note that erasures are being carried out, in the transaction that deletes the rows."""
    for one in erasures:
        replica.connection.execute(
            "UPDATE sync_erasures SET state = 'erasing', unsent = coalesce(unsent, '[]') "
            "WHERE erasure_id = ?",
            [one.erasure_id],
        )


def mark_deleted(replica: Replica, erasure_id: str, since: int) -> None:
    """Mark the rows that an erasure deleted, so that their deletions are sent with its id.

    Args:
        replica: The device, in the transaction that deletes the rows.
        erasure_id: The id of the erasure, on all devices.
        since: The number of the feed's last change before the erasure; the feed has all later ones.
    """
    replica.connection.execute(
        "INSERT INTO sync_dirty (table_name, row_key, at, is_deleted, erased_by, place) "
        "SELECT table_name, row_key, max(at), 1, ?, min(seq) FROM change_log WHERE seq > ? "
        "AND op = 'delete' AND table_name IN (SELECT value FROM json_each(?)) "
        "GROUP BY table_name, row_key "
        "ON CONFLICT (table_name, row_key) DO UPDATE SET erased_by = excluded.erased_by",
        [erasure_id, since, json.dumps([*replica.tables])],
    )


def decide(replica: Replica, erasure_id: str, decided: Sequence[Decision]) -> None:
    """End conflicts by an erasure, here and on the other devices, in the open transaction."""
    if not decided:
        return
    for class_ in replica.classes:
        conflicts.receive(replica, class_, decided)
    erased_conflicts.end_needless(replica)
    replica.connection.execute(
        "UPDATE sync_erasures SET unsent = (SELECT json_group_array(json(value)) FROM "
        "(SELECT value FROM json_each(coalesce(unsent, '[]')) "
        "UNION ALL SELECT value FROM json_each(?))) WHERE erasure_id = ?",
        [json.dumps(decided), erasure_id],
    )


def end(replica: Replica, erasure: AskedErasure, rows: int, left: Sequence[str]) -> ErasedForDevice:
    """Note that an erasure was carried out, and return the result.

    Args:
        replica: The device.
        erasure: The erasure.
        rows: The number of rows that were deleted.
        left: A sentence for each place outside of what an erasure reaches.
    """
    with replica.connection.transaction():
        replica.connection.execute(
            "UPDATE sync_erasures SET state = 'done' WHERE erasure_id = ?", [erasure.erasure_id]
        )
        replica.audit("federation.erased", erasure.device_id, f"rows: {rows:,}")
    return ErasedForDevice(erasure.device_id, name_of(replica, erasure), rows, list(left))


def end_all(replica: Replica) -> None:
    """Note that no erasure so far concerns this device, which has only now joined the others.

    An erasure may name it, if its first attempt to join was interrupted.
    """
    replica.connection.execute("UPDATE sync_erasures SET state = 'done'")


def known(replica: Replica) -> list[dict[str, Any]]:
    """Return the statements on all erasures, for devices that have missed them."""
    return [
        json.loads(text) | {"again": True}
        for (text,) in replica.connection.fetch_all(
            "SELECT statement FROM sync_erasures ORDER BY erasure_id"
        )
    ]


def unsent(replica: Replica) -> tuple[list[dict[str, Any]], list[Decision]]:
    """Return the statements that are to be sent, and the conflicts that these erasures decide."""
    statements, decided = [], []
    for text, decisions in replica.connection.fetch_all(
        "SELECT statement, unsent FROM sync_erasures WHERE unsent IS NOT NULL ORDER BY erasure_id"
    ):
        statement = json.loads(text)
        again = {} if statement["device_id"] == replica.device_id else {"again": True}
        statements.append(statement | again)
        decided += [Decision(*one) for one in json.loads(decisions)]
    return statements, [one for one in decided if one.table in replica.tables]


def note_sent(replica: Replica, sent: Iterable[Mapping[str, Any]]) -> None:
    """Note that statements were sent, with the conflicts that their erasures decide."""
    replica.connection.execute(
        "UPDATE sync_erasures SET unsent = NULL "
        "WHERE erasure_id IN (SELECT value FROM json_each(?))",
        [json.dumps([one["erasure_id"] for one in sent])],
    )
