"""The keys of bundles: one for every class at a time, sealed for the devices that hold it.

A key is used while all devices that have it may read the class; after a revocation the next bundle
begins a new epoch. A device that was added gets all earlier keys.
"""

from __future__ import annotations

import base64
import json
import secrets
from typing import TYPE_CHECKING, Any

from aico_lab.adapters import age
from aico_lab.errors import CorruptDatabase

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aico_lab.federation.replica import Replica


def identities(replica: Replica) -> list[str]:
    """Return the keys that open bundles, newest first, with that of this device itself."""
    rows = replica.connection.fetch_all(
        "SELECT identity FROM sync_epochs WHERE identity IS NOT NULL ORDER BY epoch DESC"
    )
    return [*(identity for (identity,) in rows), str(replica.get("identity"))]


def recipient(replica: Replica, class_: str, entitled: set[str]) -> str | None:
    """Return the newest key of a class that only entitled devices have, or None."""
    row = replica.connection.fetch_one(
        "SELECT recipient, device_ids FROM sync_epochs WHERE class = ? AND identity IS NOT NULL "
        "ORDER BY epoch DESC",
        [class_],
    )
    return str(row[0]) if row and set(json.loads(row[1])) <= entitled else None


def due(replica: Replica) -> list[dict[str, Any]]:
    """Return the statements that give every class a key that only its devices have, and they all.

    The epochs are stored already.
    """
    statements = []
    own = replica.own_classes
    for class_, entitled in replica.entitled().items():
        if class_ not in own:
            continue
        statements += [
            sealed_for(replica, epoch, class_, entitled - set(json.loads(device_ids)))
            for epoch, device_ids in replica.connection.fetch_all(
                "SELECT epoch, device_ids FROM sync_epochs "
                "WHERE class = ? AND identity IS NOT NULL",
                [class_],
            )
            if entitled - set(json.loads(device_ids))
        ]
        if recipient(replica, class_, entitled) is None:
            statements.append(_begin(replica, class_, entitled))
    return statements


def _begin(replica: Replica, class_: str, entitled: set[str]) -> dict[str, Any]:
    """Begin an epoch; it is numbered, because a clock may be wrong."""
    row = replica.connection.fetch_one("SELECT max(epoch) FROM sync_epochs")
    number = int(row[0].partition("-")[0]) + 1 if row and row[0] else 1
    epoch = f"{number:08d}-{secrets.token_hex(8)}"
    identity, key = age.new_identity()
    replica.connection.execute(
        "INSERT INTO sync_epochs VALUES (?, ?, ?, ?, '[]')", [epoch, class_, key, identity]
    )
    return sealed_for(replica, epoch, class_, entitled)


def sealed_for(
    replica: Replica, epoch: str, class_: str, device_ids: Iterable[str]
) -> dict[str, Any]:
    """Seal the key of an epoch for more devices, and return the statement with it."""
    row = replica.connection.fetch_one(
        "SELECT recipient, identity FROM sync_epochs WHERE epoch = ?", [epoch]
    )
    assert row is not None  # noqa: S101 - for the type checker
    keys: dict[str, str] = dict(
        replica.connection.fetch_all(
            "SELECT device_id, recipient FROM devices WHERE device_id IN "
            "(SELECT value FROM json_each(?))",
            [json.dumps(sorted(device_ids))],
        )
    )
    _add(replica, epoch, keys)
    return {
        "kind": "epoch",
        "epoch": epoch,
        "class": class_,
        "recipient": row[0],
        "sealed": {
            device_id: base64.b64encode(age.encrypt(row[1].encode(), [key])).decode()
            for device_id, key in keys.items()
        },
        "device_ids": sorted(holders(replica, epoch)),
    }


def receive(replica: Replica, statement: Mapping[str, Any]) -> None:
    """Store the key of an epoch, if it was sealed for this device.

    Raises:
        KeyError, TypeError, ValueError: The statement is malformed.
    """
    epoch, class_, key = (str(statement[name]) for name in ("epoch", "class", "recipient"))
    if not epoch.partition("-")[0].isdigit() or len(epoch) != len("00000001-") + 16:
        raise ValueError("is no epoch")
    age.read_recipients([key])
    replica.connection.execute(
        "INSERT INTO sync_epochs VALUES (?, ?, ?, NULL, '[]') ON CONFLICT DO NOTHING",
        [epoch, class_, key],
    )
    sealed = statement["sealed"]
    _add(replica, epoch, [*sealed, *map(str, statement["device_ids"])])
    if replica.device_id in sealed:
        content = base64.b64decode(sealed[replica.device_id])
        try:
            opened = age.open_bytes(content, [str(replica.get("identity"))])
        except CorruptDatabase as error:
            raise ValueError("is no sealed key") from error
        if opened is not None:
            replica.connection.execute(
                "UPDATE sync_epochs SET identity = ? WHERE epoch = ? AND identity IS NULL",
                [opened.decode(), epoch],
            )


def hand_out_again(replica: Replica, revoked: str) -> None:
    """Let the keys that this device has be sealed for all devices that are still trusted.

    Some may have them only from bundles of the revoked one that count no more.
    """
    entitled = replica.entitled()
    for epoch, class_, device_ids in replica.connection.fetch_all(
        "SELECT epoch, class, device_ids FROM sync_epochs"
    ):
        again = entitled.get(class_, set()) - {revoked, replica.device_id}
        replica.connection.execute(
            "UPDATE sync_epochs SET device_ids = ? WHERE epoch = ?",
            [json.dumps(sorted({*json.loads(device_ids)} - again)), epoch],
        )


def holders(replica: Replica, epoch: str) -> set[str]:
    """Return the devices that the key of an epoch was sealed for."""
    row = replica.connection.fetch_one(
        "SELECT device_ids FROM sync_epochs WHERE epoch = ?", [epoch]
    )
    return set(json.loads(row[0])) if row else set()


def _add(replica: Replica, epoch: str, device_ids: Iterable[str]) -> None:
    replica.connection.execute(
        "UPDATE sync_epochs SET device_ids = ? WHERE epoch = ?",
        [json.dumps(sorted(holders(replica, epoch).union(device_ids))), epoch],
    )
