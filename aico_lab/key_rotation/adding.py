"""Make a new credential of a home, with its slot; remove one."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from aico_lab.errors import InvalidValue
from aico_lab.home.credentials import (
    check_new_passphrase,
    check_place,
    create_key_file,
    passphrases,
    read_key_file,
    remove_key_file,
)
from aico_lab.home.keys import slots_of
from aico_lab.home.os_keyring import add_passphrase, remove_passphrase, slot_name
from aico_lab.home.slots import new_recovery_key, read_recovery_key
from aico_lab.key_rotation.slots import (
    add_slot,
    changing,
    next_number,
    remove_slot,
    slot_in_use,
)

if TYPE_CHECKING:
    from pathlib import Path

    from aico_lab.config import Settings
    from aico_lab.home.folder import Home
    from aico_lab.home.slots import Slot, SlotKind


@dataclass(frozen=True, slots=True)
class AddedCredential:
    """A credential that was added.

    Attributes:
        slot: Its slot.
        recovery_key: The recovery key, which is kept nowhere.
        keyring: The name of the keyring that has the secret.
    """

    slot: Slot
    recovery_key: str | None = field(default=None, repr=False)
    keyring: str | None = None


def add_credential(
    home: Home,
    settings: Settings,
    kind: SlotKind,
    *,
    file: Path | None = None,
    passphrase: str | None = None,
) -> AddedCredential:
    """Add a credential that opens a home.

    Args:
        home: The home.
        settings: A credential that opens it now.
        kind: The kind of the new credential.
        file: The new key file; one that exists is used for this home, too.
        passphrase: The new passphrase.

    Raises:
        InvalidValue: The passphrase is too short, the file lies in the home, a credential's file
            exists, or the home is not encrypted.
        HomeBusy: The keys are being changed, or a rotation is unfinished.
        KeyProblem: The home cannot be opened, or the file is not a key file.
    """
    if kind == "passphrase":
        secret = passphrases(replace(settings, passphrase=passphrase))[0]
        check_new_passphrase(secret)
    with changing(home, settings) as (marker, keys):
        if kind == "passphrase":
            return AddedCredential(add_slot(home, marker, keys, kind, secret))
        if kind == "recovery":
            text = new_recovery_key()
            slot = add_slot(home, marker, keys, kind, read_recovery_key(text) or b"")
            return AddedCredential(slot, recovery_key=text)
        if kind == "keyring":
            name = slot_name(str(marker["home_id"]), next_number(marker))
            text = secrets.token_hex(32)
            keyring = add_passphrase(name, text)
            slot = add_slot(home, marker, keys, kind, text.encode())
            return AddedCredential(slot, keyring=keyring)
        path = (file or home.path).expanduser().absolute()
        check_place(path, home.path)
        is_new = not path.exists()
        if kind == "credential" and not is_new:
            raise InvalidValue(f"{path} exists already: name another file.")
        secret = create_key_file(path) if is_new else read_key_file(path)
        try:
            return AddedCredential(add_slot(home, marker, keys, kind, secret))
        except BaseException:
            if is_new:
                remove_key_file(path)
            raise


@dataclass(frozen=True, slots=True)
class RemovedCredential:
    """A credential that was removed.

    Attributes:
        slot: Its slot.
        twins: The numbers of the slots that have the same secret, which therefore opens the home.
        in_use: Whether it opened the home for this removal.
    """

    slot: Slot
    twins: list[int]
    in_use: bool


def remove_credential(home: Home, settings: Settings, number: int) -> RemovedCredential:
    """Remove a slot, and the secret of it in the keyring.

    Raises:
        UnknownName: There is no such slot.
        InvalidValue: It is the last slot, or the home is not encrypted.
        HomeBusy: The keys are being changed, or a rotation is unfinished.
        KeyProblem: The home cannot be opened.
    """
    with changing(home, settings) as (marker, keys):
        in_use = slot_in_use(marker, keys)
        slot = remove_slot(home, marker, keys, number)
        public = slot.get("public", "")
        twins = [one["id"] for one in slots_of(marker) if one.get("public") == public]
        twins.remove(number)
        if slot["kind"] == "keyring":
            remove_passphrase(slot_name(str(marker["home_id"]), number))
        return RemovedCredential(slot, twins, in_use == number)
