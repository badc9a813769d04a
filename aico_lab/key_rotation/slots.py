"""Add and remove the slots of a home, which all wrap the same master key."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from aico_lab.errors import (
    AicoLabError,
    HomeBusy,
    HomeMissing,
    InvalidValue,
    KeyMissing,
    MarkerAltered,
    UnknownName,
)
from aico_lab.home.files import held
from aico_lab.home.keys import (
    UNFINISHED,
    is_of_former_version,
    open_keys,
    signed,
    slots_of,
)
from aico_lab.home.os_keyring import with_keyring
from aico_lab.home.slots import MOST_SLOTS, fingerprint, is_of, new_slot

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aico_lab.config import Settings
    from aico_lab.home.folder import Home
    from aico_lab.home.keys import Keys, Marker
    from aico_lab.home.slots import Slot, SlotKind

_SECONDS = 10


@contextlib.contextmanager
def changing(home: Home, settings: Settings) -> Iterator[tuple[Marker, Keys]]:
    """Open the home for a change of its keys, while no other process changes them.

    Yields:
        The marker, in the form with several slots, and the opened keys.

    Raises:
        HomeBusy: Another process changes the keys.
        InvalidValue: The home is not encrypted.
        KeyProblem: The home cannot be opened.
    """
    with held(home.temporary / "keys.lock", _SECONDS, _busy):
        marker = home.read_marker()
        keys = open_keys(marker, with_keyring(settings, marker))
        if keys.master is None:
            raise InvalidValue(
                f"{home.path} is not encrypted, so it has no key: create an encrypted home with "
                "`aico-lab init`, and import your data there."
            )
        yield _upgraded(marker, keys), keys


def next_number(marker: Marker) -> int:
    """Return the number of the next slot of a home.

    Raises:
        InvalidValue: The home has as many slots as it can have.
    """
    slots = slots_of(marker)
    if len(slots) >= MOST_SLOTS:
        raise InvalidValue(f"The home has {MOST_SLOTS} slots: remove one first.")
    return 1 + max(int(slot["id"]) for slot in slots)


def add_slot(home: Home, marker: Marker, keys: Keys, kind: SlotKind, secret: bytes) -> Slot:
    """Add a slot to a home opened by `changing`, and return it.

    Raises:
        HomeBusy: A rotation is unfinished.
        InvalidValue: The home has as many slots as it can have, or one of the same secret.
    """
    _refuse_unfinished(marker)
    master, home_id = keys.master or b"", str(marker["home_id"])
    for slot in slots_of(marker):
        if (slot["kind"] == "passphrase") == (kind == "passphrase") and is_of(
            slot, secret, home_id
        ):
            raise InvalidValue(f"Slot {slot['id']} is of the same secret: name another one.")
    slot = new_slot(next_number(marker), kind, secret, home_id, master)
    home.rewrite_marker(signed({**marker, "slots": [*slots_of(marker), slot]}, master))
    return slot


def slot_in_use(marker: Marker, keys: Keys) -> int | None:
    """Return the number of the slot that opened a home; None if another process did."""
    for slot in slots_of(marker):
        if keys.credential is not None and is_of(slot, keys.credential, str(marker["home_id"])):
            return int(slot["id"])
    return None


def remove_slot(home: Home, marker: Marker, keys: Keys, number: int) -> Slot:
    """Remove a slot of a home opened by `changing`, and return it.

    Raises:
        HomeBusy: A rotation is unfinished.
        UnknownName: There is no such slot.
        InvalidValue: It is the last slot, without which nothing opens the home.
    """
    _refuse_unfinished(marker)
    slots = slots_of(marker)
    found = [slot for slot in slots if slot["id"] == number]
    if not found:
        raise UnknownName(f"There is no slot {number}: see `aico-lab keys status`.")
    if len(slots) == 1:
        raise InvalidValue(
            f"Slot {number} is the last one, and without it nothing opens the home: add another "
            "one first, by `aico-lab keys add`."
        )
    left = [slot for slot in slots if slot["id"] != number]
    home.rewrite_marker(signed({**marker, "slots": left}, keys.master or b""))
    return found[0]


def status_of(home: Home, settings: Settings) -> dict[str, Any]:
    """Return what opens a home, and whether its marker is as it was written.

    No key is needed: without one that opens the home, `intact` is None.

    Raises:
        HomeMissing: There is no home, or its marker is damaged.
        MarkerAltered: The slots were altered.
    """
    marker = home.read_marker()
    intact: bool | None = None
    in_use: int | None = None
    try:
        keys = open_keys(marker, with_keyring(settings, marker))
        intact = None if is_of_former_version(marker) else True
        in_use = slot_in_use(marker, keys)
    except (MarkerAltered, HomeMissing):
        raise
    except AicoLabError:  # such as a lost key, for which the list is wanted
        pass
    rotation = marker.get("rotation")
    return {
        "home": str(home.path),
        "slots": [
            {
                "id": slot["id"],
                "kind": slot["kind"],
                "created_at": slot.get("created_at"),
                "fingerprint": fingerprint(slot),
            }
            for slot in slots_of(marker)
        ],
        "in_use": in_use,
        "rotations": marker.get("rotations", 0),
        "rotated_at": marker.get("rotated_at"),
        "unfinished_since": rotation["begun_at"] if isinstance(rotation, dict) else None,
        "intact": intact,
    }


def _upgraded(marker: Marker, keys: Keys) -> Marker:
    """Return a marker in the form with several slots."""
    if not is_of_former_version(marker):
        return marker
    if keys.credential is None or keys.master is None:
        raise KeyMissing("The home is of an earlier version: run the command outside JupyterLab.")
    (former,) = slots_of(marker)
    slot = new_slot(1, former["kind"], keys.credential, str(marker["home_id"]), keys.master)
    others = {name: value for name, value in marker.items() if name != "key"}
    return {**others, "slots": [slot]}


def _refuse_unfinished(marker: Marker) -> None:
    if marker.get("rotation"):
        raise HomeBusy(UNFINISHED)


def _busy(who: str) -> HomeBusy:
    return HomeBusy(f"The keys of the home are being changed by {who}: try again.")
