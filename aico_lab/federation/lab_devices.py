"""`lab.devices`: the person's devices, which hold the same rows."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from aico_lab.errors import (
    DeviceRevoked,
    DeviceUnreachable,
    FolderUnusable,
    InvalidValue,
    LibraryMissing,
    UnknownName,
    did_you_mean,
)
from aico_lab.federation import trust
from aico_lab.federation.proof import BUCKETS, RowsProof
from aico_lab.federation.syncing import Federation
from aico_lab.home.folder import Home

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aico_lab.federation.compacting import Compacted
    from aico_lab.federation.erasures import ErasedForDevice
    from aico_lab.federation.pairing import Post
    from aico_lab.federation.replica import DeviceKeys
    from aico_lab.federation.results import FederatedDevice, Synced
    from aico_lab.storage import Storage

    Progress = Callable[[str, int, int], None]

_FOLDER = "folder"


class Devices:
    """The devices of a person, found by name, and the ways to reach them.

    Attributes:
        federation: The exchange with them: conflicts, status, proofs.
    """

    def __init__(
        self, storage: Storage, erase: Callable[[Progress | None], list[ErasedForDevice]]
    ) -> None:
        """Use a home.

        Args:
            storage: The opened databases.
            erase: Carries out the erasures that other devices asked for.
        """
        self.federation = Federation.of(storage)
        self.federation.erase = partial(erase, None)
        self._erase = erase

    def list(self) -> list[FederatedDevice]:
        """Return all devices, also revoked ones, by name."""
        _ = self.federation.federation_id
        return self.federation.devices()

    def find(self, device: str) -> FederatedDevice:
        """Return a device by its id, the beginning of it, or its name; a trusted one first.

        Raises:
            UnknownName: There is no such device.
            InvalidValue: There are several.
        """
        known = self.list()
        found = [one for one in known if device in (one.device_id, one.name)] or [
            one for one in known if device and one.device_id.startswith(device)
        ]
        if not found:
            names = [one.name for one in known]
            end = did_you_mean(device, names, ": see `aico-lab device list`.")
            raise UnknownName(f"There is no device {device!r}{end}")
        # A device that was added again has the name of the revoked one that it was.
        found = [one for one in found if one.trust_level] or found
        if len(found) > 1:
            raise InvalidValue(
                f"Several devices have the name or id {device!r}: write a longer beginning of the "
                "id, see `aico-lab device list`."
            )
        return found[0]

    @property
    def folder(self) -> Path | None:
        """The shared folder of the last exchange or pairing, or None."""
        stored = self.federation.replica.get(_FOLDER)
        return None if stored is None else Path(stored)

    def remember_folder(self, folder: Path) -> None:
        """Store the shared folder that later exchanges use by default."""
        if folder != self.folder:
            with self.federation.replica.connection.transaction():
                self.federation.replica.put(_FOLDER, str(folder))

    def add(
        self,
        post: Post,
        code: str,
        confirm: Callable[[str, DeviceKeys], bool],
        *,
        level: Literal[1, 2] = 2,
        policy: Mapping[str, str] | None = None,
    ) -> FederatedDevice:
        """Wait for a device that joins with a code, and trust it.

        Args:
            post: The way to it.
            code: The code, which is shown to the person and typed on the other device.
            confirm: Returns whether the person trusts a device of this name and these keys.
            level: 2 for full trust, 1 for a device that only receives.
            policy: 'full' or 'none' for classes that it is to hold or not.

        Raises:
            UnknownName: There is no such class.
            InvalidValue: The policy is none, the device is trusted already on another level, or
                this device only receives.
            NameTaken: Another trusted device has its name.
            DeviceRevoked: The device was revoked, and makes new keys; or this one was.
            PairingFailed: No device joined, its code was wrong, or the person did not trust it.
        """
        from aico_lab.federation import pairing

        trust.require_full_trust(self.federation.replica)
        trust.check_policy(self.federation.replica, policy or {})

        def confirm_new(name: str, keys: DeviceKeys) -> bool:
            trust.check_free(self.federation.replica, name, keys.device_id)
            return confirm(name, keys)

        keys = pairing.admit(
            post,
            code,
            confirm_new,
            lambda keys, name: self.federation.invite(keys, name, level=level, policy=policy),
        )
        return self.find(keys.device_id)

    def join(self, post: Post, code: str, name: str) -> FederatedDevice:
        """Join the devices of which one shows a code, and return it.

        Args:
            post: The way to that device.
            code: The code that it shows.
            name: The name of this device.

        Raises:
            PairingFailed: The code is wrong, or no device answers.
            InvalidValue: This home has a federation already.
            NameTaken: Another device has that name.
            DeviceRevoked: The other devices have revoked its keys, which it forgets.
        """
        from aico_lab.federation import pairing

        self.check_join(code, name)
        try:
            invitation = pairing.ask(post, code, self.federation.create_keys(), name)
        except DeviceRevoked:
            self.federation.forget_keys()
            raise
        self.federation.join(invitation)
        return self.find(str(invitation["from"]))

    def check_join(self, code: str, name: str) -> None:
        """Check what can be known before the other device is looked for, which takes minutes.

        Raises:
            InvalidValue: This home has a federation already, or it is no code, or no name.
        """
        from aico_lab.federation import control, pairing

        if self.federation.is_begun and not self.federation.replica.is_outside:
            raise InvalidValue(
                "This home has devices already, see `aico-lab device list`: let it add the other "
                "one by `aico-lab device add`, or join with a new home."
            )
        pairing.digits_of(code)
        control.check_name(name)

    def leave(self) -> bool:
        """End the federation, if no other device has ever been in it; all rows stay.

        Returns:
            Whether nothing of it is left in the shared folder of the last time.

        Raises:
            NotFederated: The home has no federation.
            InvalidValue: Another device is or was in it.
        """
        return self.federation.leave(self.folder)

    def sync(
        self,
        *,
        folder: Path | str | None = None,
        lan: bool = False,
        address: str | None = None,
        tell: Callable[[str], None] = lambda _: None,
        progress: Progress | None = None,
    ) -> dict[str, Synced]:
        """Exchange changes with the other devices, and return the results by way.

        The local network comes first: what came by it need not come by the folder. What another
        device has erased is erased from all stores of this one.

        Args:
            folder: The shared folder; by default that of the last time, if there was one.
            lan: Look for devices in the local network.
            address: The HOST:PORT of a device that serves.
            tell: Called with the sentence that only the folder was used, and why.
            progress: Called with a step of an erasure, the number of steps done, and their total.

        Raises:
            InvalidValue: There is no way to another device.
            DeviceUnreachable: No device answers in the network, and there is no folder.
            LibraryMissing: The library that finds devices is not installed, and there is no folder.
            FolderUnusable: The folder cannot be used.
            DeviceRevoked: The other devices no longer trust this one.
            ErasureIncomplete: An erasure could not be finished, so nothing was taken in since.
        """
        _ = self.federation.federation_id
        self.federation.erase = partial(self._erase, progress)
        shared = self.folder if folder is None else shared_folder(folder)
        done: dict[str, Synced] = {}
        why = None
        if lan or address is not None:
            from aico_lab.federation import lan as network

            try:
                done |= network.sync(self.federation, address)
            except (DeviceUnreachable, LibraryMissing) as error:
                if shared is None:
                    raise
                why = error
        if shared is not None:
            done[str(shared)] = self.federation.sync(shared)
            self.remember_folder(shared)
            if why is not None:
                tell(f"Only the folder {shared} was used. {why}")
        elif not done:
            raise InvalidValue(
                "No shared folder is known: name one with --folder, or look for devices in the "
                "local network with --lan."
            )
        return done

    def compact(self) -> Compacted:
        """Replace all bundles by new ones of the rows as they are, also in the shared folder.

        Raises:
            InvalidValue: This device only receives.
            FolderUnusable: The shared folder of the last time cannot be used.
            DeviceRevoked: The other devices no longer trust this one.
        """
        _ = self.federation.federation_id
        if self.folder is not None:
            self.federation.sync(self.folder)
        done = self.federation.compact()
        if self.folder is not None:
            self.federation.exchange(self.folder)
        return done

    def __repr__(self) -> str:
        return (
            "<Devices: .list(), .add(POST, CODE, CONFIRM), .join(POST, CODE, NAME), .leave(), "
            ".sync() and .federation with .conflicts(), .status(), .verify()>"
        )


def shared_folder(folder: Path | str) -> Path:
    """Return the whole path of a shared folder.

    Raises:
        FolderUnusable: It does not exist, or is a home.
    """
    folder = Path(folder).expanduser().absolute()
    if not folder.is_dir():
        raise FolderUnusable(f"There is no folder {folder}: create it, or check the path.")
    if Home(folder).marker.exists():
        raise FolderUnusable(f"{folder} is a home: name a folder that only the devices use.")
    return folder


def read_values(file: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        InvalidValue: The file has none.
    """
    try:
        found = json.loads(file.expanduser().read_bytes())
    except OSError as error:
        raise InvalidValue(f"{file} cannot be read ({error.strerror}).") from error
    except (ValueError, RecursionError) as error:
        raise InvalidValue(f"{file} cannot be read as JSON: {error}.") from error
    if not isinstance(found, dict):
        raise InvalidValue(f"{file} holds no JSON object.")
    return found


def read_proof(file: Path) -> RowsProof:
    """Return the proof of another device's rows from a file with the JSON of its verification.

    Raises:
        InvalidValue: The file has none.
    """
    try:
        proof = read_values(file)["verified"]["proof"]
        rows = {str(table): int(count) for table, count in proof["rows"].items()}
        sums = {str(table): [str(one) for one in found] for table, found in proof["sums"].items()}
        if any(len(found) != BUCKETS for found in sums.values()):
            raise ValueError
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidValue(
            f"{file} does not hold the output of `aico-lab federate verify --json`."
        ) from error
    return RowsProof(rows, sums)
