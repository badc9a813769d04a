"""End the federation of a home that no other device has ever been in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aico_lab.errors import InvalidValue
from aico_lab.federation import overview
from aico_lab.federation.sealing import CONSUMER

if TYPE_CHECKING:
    from aico_lab.federation.replica import Replica


def check_alone(replica: Replica) -> None:
    """Check that no other device has ever been in the federation.

    Raises:
        InvalidValue: One has, so that this device can only be revoked.
    """
    others = [one for one in overview.devices(replica) if not one.is_this]
    if not others:
        return
    trusted = [one.name for one in others if one.trust_level > 1]
    if replica.is_outside:
        raise InvalidValue("The other devices trust this one no longer, so it has left already.")
    if trusted:
        raise InvalidValue(
            f"This home has other devices: run `device revoke {replica.device_id}` on one of them "
            f"({', '.join(trusted)})."
        )
    raise InvalidValue(
        "Other devices are or were in this federation, and none of them can revoke this one: join "
        "others with a new home, and import the conversations into it."
    )


def forget(replica: Replica) -> None:
    """Delete all that the federation has stored beside the rows, but not its log.

    Args:
        replica: Inside a transaction.
    """
    connection, device_id = replica.connection, replica.device_id
    (this,) = overview.devices(replica)
    for (table,) in connection.fetch_all(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name GLOB 'sync_*' "
        "AND name NOT IN ('sync_audit', 'sync_applying')"
    ):
        connection.execute(f"DELETE FROM {table}")
    connection.execute("DELETE FROM devices WHERE recipient IS NOT NULL")
    connection.execute("DELETE FROM feed_consumers WHERE consumer = ?", [CONSUMER])
    replica.audit("device.left", device_id, this.name)
