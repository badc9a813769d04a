"""Check what this device may decide about the others, and make the statements on it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from aico_lab.errors import DeviceRevoked, InvalidValue, NameTaken, NotFederated, UnknownName
from aico_lab.federation import control, overview
from aico_lab.federation.tables import BASE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aico_lab.federation.replica import Replica


def federation_id(replica: Replica) -> str:
    """Return the id of the federation of a home.

    Raises:
        NotFederated: The home has no federation.
    """
    found = replica.get("federation")
    if found is None:
        raise NotFederated(
            "This home has no federation: begin one with `aico-lab device init`, or join one "
            "with `aico-lab device join`."
        )
    return found


def require_full_trust(replica: Replica) -> None:
    """Check that the other devices obey this one, as to whom they trust.

    Raises:
        NotFederated: The home has no federation.
        DeviceRevoked: The other devices no longer trust this one.
        InvalidValue: This device only receives.
    """
    _ = federation_id(replica)
    if replica.is_outside:
        raise DeviceRevoked(
            "The other devices no longer trust this one, so it cannot decide about them: let "
            "one of them add it again."
        )
    if replica.receives_only:
        raise InvalidValue(
            "This device only receives, so the others would not learn of it: do it on another one."
        )


def require_trusted(replica: Replica, device_id: str) -> None:
    """Check that a device is trusted.

    Raises:
        UnknownName: There is no such device, or it was revoked.
    """
    for one in overview.devices(replica):
        if one.device_id == device_id and one.trust_level:
            return
        if one.device_id == device_id:
            raise UnknownName(
                f"{one.name} is revoked already: see the trusted devices in `aico-lab device list`."
            )
    raise UnknownName(f"No device has the id {device_id!r}: see `aico-lab device list`.")


def check_free(replica: Replica, name: str, device_id: str) -> None:
    """Check that no other trusted device has the name that a device is to have.

    Raises:
        NameTaken: One has it.
    """
    for one in overview.devices(replica):
        if one.name == name and one.trust_level and one.device_id != device_id:
            raise NameTaken(
                f"{name} is taken: the trusted device {one.device_id} has that name, so choose "
                "another one."
            )


def check_policy(replica: Replica, classes: Mapping[str, str]) -> set[str]:
    """Check the choice of classes of a device, and return those that a new one would hold.

    Raises:
        UnknownName: There is no such class.
        InvalidValue: A value is neither 'full' nor 'none', or the class is the base.
    """
    for class_, value in classes.items():
        if class_ not in replica.classes:
            raise UnknownName(
                f"There is no class {class_!r}: choose among {', '.join(replica.classes)}."
            )
        if value not in ("full", "none") or (class_ == BASE and value == "none"):
            raise InvalidValue(
                f"{class_}={value} is no policy: write full or none, and full for {BASE}."
            )
    return replica.classes_of(json.dumps({**classes}))


def policy_of(replica: Replica, device_id: str, classes: Mapping[str, str]) -> control.Statement:
    """Return the statement of a device's policy in which some classes are changed."""
    row = replica.connection.fetch_one(
        "SELECT sync_policy FROM devices WHERE device_id = ?", [device_id]
    )
    policy = {**json.loads((row and row[0]) or "{}"), **classes}
    stamp = _next_stamp(replica, device_id, "policy")
    text = json.dumps(policy, sort_keys=True)
    return control.setting(device_id, "policy", text, stamp)


def name_of(replica: Replica, device_id: str, name: str) -> control.Statement:
    """Return the statement that a device has a name."""
    return control.setting(device_id, "name", name, _next_stamp(replica, device_id, "name"))


def _next_stamp(replica: Replica, device_id: str, field: str) -> int:
    row = replica.connection.fetch_one(
        "SELECT stamp FROM sync_settings WHERE device_id = ? AND field = ?", [device_id, field]
    )
    return max(replica.now() * 1000, row[0] + 1 if row else 0)
