"""Signed statements on devices: they approve, revoke, name and limit them, and hand out keys.

The statements are a set that only grows, and `devices` is computed from it, so that their order
does not matter: a revocation holds for ever, and of two names or policies the newer one holds.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from aico_lab.adapters.libsql import NOW
from aico_lab.errors import InvalidValue
from aico_lab.federation import epochs, erasures, replaced, undone
from aico_lab.federation.bundles import FileName, Refused
from aico_lab.federation.replica import DeviceKeys
from aico_lab.federation.tables import BASE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aico_lab.federation.replica import Replica

Statement = dict[str, Any]

_LONGEST_NAME: Final = 64


def check_name(name: str) -> str:
    """Return the name of a device if a terminal can show it.

    Raises:
        InvalidValue: It cannot.
    """
    if not name.isprintable() or not 0 < len(name) <= _LONGEST_NAME:
        raise InvalidValue(f"A name has 1 to {_LONGEST_NAME} letters and other visible characters.")
    return name


def approval(keys: DeviceKeys, name: str, *, level: int = 2, kind: str = "") -> Statement:
    """Return the statement that a device is trusted."""
    return {
        "kind": "approve",
        "public_key": keys.public_key,
        "recipient": keys.recipient,
        "name": name,
        "level": level,
        "device_kind": kind,
    }


def revocation(replica: Replica, device_id: str) -> Statement:
    """Return the statement that a device is no longer trusted, from what was taken in of it."""
    heads = {
        stream: hashes
        for stream, (_, hashes) in replica.ctx().items()
        if stream.startswith(f"{device_id}.")
    }
    return {"kind": "revoke", "device_id": device_id, "heads": heads}


def setting(device_id: str, field: str, value: str, stamp: int) -> Statement:
    """Return the statement that a device has a name or a policy."""
    return {
        "kind": "set", "device_id": device_id, "field": field, "value": value, "stamp": stamp
    }  # fmt: skip


def acknowledgement(device_id: str) -> Statement:
    """Return the statement that this device knows of a revocation.

    The bundle that it is in says what this device had taken in of the revoked one.
    """
    return {"kind": "acknowledge", "device_id": device_id}


def obey(replica: Replica, statements: Iterable[Statement], author: str) -> list[Statement]:
    """Apply statements of a trusted device, and return the answers to them.

    Raises:
        Refused: A statement is malformed.
    """
    answers: list[Statement] = []
    for statement in statements:
        try:
            _obey_one(replica, statement, author, answers)
        except (KeyError, TypeError, ValueError, AttributeError, InvalidValue) as error:
            raise Refused("its statements are malformed") from error
    _project(replica)
    return answers


def _obey_one(
    replica: Replica, statement: Statement, author: str, answers: list[Statement]
) -> None:
    match statement["kind"]:
        case "approve":
            _approve(replica, statement, author)
        case "revoke":
            if _revoke(replica, statement["device_id"], statement["heads"]):
                answers.append(acknowledgement(statement["device_id"]))
        case "set":
            _set(replica, statement, author)
        case "epoch":
            epochs.receive(replica, statement)
        case "replace":
            replaced.receive(replica, statement)
        case "undone":
            undone.receive(replica, statement)
        case "erase":
            erasures.receive(replica, statement)
        case "seen":
            replica.connection.execute(
                "INSERT INTO sync_seen SELECT value FROM json_each(?) WHERE true "
                "ON CONFLICT DO NOTHING",
                [json.dumps([str(head) for head in statement["heads"]])],
            )
        case _:
            pass  # an acknowledgement, or a statement of a later version of this program


def _approve(replica: Replica, statement: Mapping[str, Any], author: str) -> None:
    keys = DeviceKeys(statement["public_key"], statement["recipient"])
    bytes.fromhex(keys.public_key)
    level = {1: 1, 2: 2}[statement["level"]]
    inserted = replica.connection.fetch_one(
        "INSERT INTO devices (device_id, name, public_key, trusted, added_at, recipient, kind, "
        f"trust_level, approved_by) VALUES (?, ?, ?, 1, {NOW}, ?, ?, ?, ?) "
        "ON CONFLICT (device_id) DO NOTHING RETURNING device_id",
        [
            keys.device_id, str(statement["name"]), keys.public_key, keys.recipient,
            str(statement["device_kind"]), level, author,
        ],
    )  # fmt: skip
    if inserted:
        by = "" if author == keys.device_id else f"by {author}"
        replica.audit("device.paired", keys.device_id, by)
        replica.publish_event("device.paired", {"device_id": keys.device_id})


def _revoke(replica: Replica, device_id: str, heads: Mapping[str, list[str]]) -> bool:
    """Store a revocation; return whether the device was trusted until now."""
    replica.connection.execute(
        "INSERT INTO sync_revocations VALUES (?, ?) ON CONFLICT DO NOTHING",
        [str(device_id), json.dumps(heads, sort_keys=True)],
    )
    trusted = replica.level(device_id) > 0
    if trusted:
        replica.audit("device.revoked", device_id, "")
        replica.publish_event("device.revoked", {"device_id": device_id})
        epochs.hand_out_again(replica, device_id)
    return trusted


def _set(replica: Replica, statement: Mapping[str, Any], author: str) -> None:
    field = {"name": "name", "policy": "policy"}[statement["field"]]
    stamp, value = int(statement["stamp"]), str(statement["value"])
    shown = f"to {value}"
    if field == "policy":
        shown = ", ".join(f"{class_}={held}" for class_, held in json.loads(value).items())
    is_newer = replica.connection.fetch_one(
        "INSERT INTO sync_settings VALUES (?, ?, ?, ?) ON CONFLICT (device_id, field) "
        "DO UPDATE SET stamp = excluded.stamp, value = excluded.value "
        "WHERE (excluded.stamp, excluded.value) > (stamp, value) RETURNING stamp",
        [str(statement["device_id"]), field, stamp, value],
    )
    event, column = {
        "name": ("device.renamed", "name"), "policy": ("device.policy", "sync_policy")
    }[field]  # fmt: skip
    if is_newer and replica.connection.fetch_one(
        f"SELECT 1 FROM devices WHERE device_id = ? AND {column} IS NOT ?",
        [str(statement["device_id"]), value],
    ):
        replica.audit(event, str(statement["device_id"]), f"{shown} by {author}")


def _project(replica: Replica) -> None:
    """Compute `devices` from the statements."""
    before = replica.own_classes
    revoked = "SELECT device_id FROM sync_revocations"
    replica.connection.execute(
        f"UPDATE devices SET trusted = 0, trust_level = 0, revoked_at = {NOW} "
        f"WHERE trust_level > 0 AND device_id IN ({revoked})"
    )
    for field, column in (("name", "name"), ("policy", "sync_policy")):
        replica.connection.execute(
            f"UPDATE devices SET {column} = s.value FROM sync_settings AS s "
            f"WHERE s.device_id = devices.device_id AND s.field = '{field}' "
            f"AND devices.{column} IS NOT s.value"
        )
    # What was not sent while this device did not hold the class is sent now.
    for class_ in replica.own_classes - before:
        replica.put(f"scan:{class_}", "1")


def device_of(name: FileName, replica: Replica) -> tuple[bytes, bool] | None:
    """Return the key of the signatures of a bundle's device, and whether it is revoked."""
    row = replica.connection.fetch_one(
        "SELECT public_key, revoked_at FROM devices WHERE device_id = ? AND recipient IS NOT NULL",
        [name.device],
    )
    return (bytes.fromhex(row[0]), row[1] is not None) if row else None


def everything(replica: Replica) -> list[Statement]:
    """Return all statements that this device knows of, with the keys for all entitled devices.

    A device that had been given a key gets it even if it no longer holds the class: the bundle with
    it may be replaced, and nobody seals a key again for a device that seems to have it.
    """
    connection, entitled = replica.connection, replica.entitled()
    statements: list[Statement] = [
        {
            "kind": "approve", "public_key": public_key, "recipient": recipient, "name": name,
            "level": max(level, 1), "device_kind": kind or "",
        }
        for public_key, recipient, name, level, kind in connection.fetch_all(
            "SELECT public_key, recipient, name, trust_level, kind FROM devices "
            "WHERE recipient IS NOT NULL ORDER BY device_id"
        )
    ]  # fmt: skip
    statements += [
        {"kind": "revoke", "device_id": revoked, "heads": json.loads(heads)}
        for revoked, heads in connection.fetch_all("SELECT * FROM sync_revocations")
    ]
    statements += [
        setting(owner, field, value, stamp)
        for owner, field, stamp, value in connection.fetch_all("SELECT * FROM sync_settings")
    ]
    statements += [
        epochs.sealed_for(
            replica, epoch, class_,
            entitled[class_] | (epochs.holders(replica, epoch) & entitled[BASE]),
        )
        for epoch, class_ in connection.fetch_all(
            "SELECT epoch, class FROM sync_epochs WHERE identity IS NOT NULL ORDER BY epoch"
        )
        if class_ in entitled
    ]  # fmt: skip
    return [*statements, *erasures.known(replica)]
