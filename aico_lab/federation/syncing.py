"""`Federation`: the exchange of changes between a home and a person's other devices."""

from __future__ import annotations

import contextlib
import secrets
from typing import TYPE_CHECKING, Any, Final, Literal

from aico_lab.errors import (
    DeviceRevoked,
    ErasureIncomplete,
    FederationBusy,
    InvalidValue,
    NotFederated,
)
from aico_lab.federation import (
    compacting,
    conflicts,
    control,
    erasures,
    leaving,
    overview,
    proof,
    replaced,
    resolving,
    trust,
    undone,
)
from aico_lab.federation.bundles import Refused, parse_name
from aico_lab.federation.receiving import Receiver, TakenIn
from aico_lab.federation.replica import DeviceKeys, Replica
from aico_lab.federation.results import (
    AuditEntry,
    FederatedDevice,
    FederationProof,
    FederationStatus,
    Sealed,
    Synced,
)
from aico_lab.federation.sealing import collect, seal, write_statements
from aico_lab.federation.spool import Exchanged, Spool, withdraw
from aico_lab.home.files import held, os_errors, private_files, remove_whole

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from aico_lab.adapters.libsql import Connection
    from aico_lab.federation.bundles import Decision
    from aico_lab.federation.erasures import ErasedForDevice
    from aico_lab.storage import Storage

_PATIENCE: Final = 30.0  # seconds that one process waits for another
_RECEIVES_ONLY: Final = "This device only receives"


class Federation:
    """The federation of a home with a person's other devices.

    Attributes:
        replica: The database, keys and bundles of this device.
        erase: Carries out the erasures that other devices asked for; without it, these wait, and
            so do all bundles.
        erased: The erasures that were carried out for other devices, also if an exchange failed
            afterwards; whoever tells the person of one removes it.
    """

    def __init__(self, connection: Connection, folder: Path) -> None:
        """Make the federation of a database, which `create` or `join` has begun.

        Args:
            connection: The primary database.
            folder: The folder `federation` of the home.
        """
        self.folder = folder
        self.replica = Replica(connection, Spool(folder / "spool"))
        self.erase: Callable[[], list[ErasedForDevice]] | None = None
        self.erased: list[ErasedForDevice] = []

    @classmethod
    def of(cls, storage: Storage) -> Federation:
        """Return the federation object of an opened home, begun or not.

        Raises:
            NotFederated: The home is not encrypted.
        """
        if storage.keys.libsql() is None:
            raise NotFederated(
                "This home is not encrypted, so its keys could not be kept safe: create one with "
                "a key file or a passphrase, and import into it."
            )
        return cls(storage.primary, storage.home.path / "federation")

    @classmethod
    def existing(cls, storage: Storage) -> Federation | None:
        """Return the federation of an opened home, or None if it is on one device only."""
        if storage.keys.libsql() is None:
            return None
        found = cls.of(storage)
        return found if found.is_begun else None

    @classmethod
    def create(cls, storage: Storage, name: str) -> Federation:
        """Begin a federation with this device as its first one.

        Raises:
            NotFederated: The home is not encrypted.
            InvalidValue: It has a federation already.
        """
        made = cls.of(storage)
        made.begin(name)
        return made

    @property
    def is_begun(self) -> bool:
        """Whether this device belongs to a federation."""
        return self.replica.get("federation") is not None

    @property
    def federation_id(self) -> str:
        """The id of the federation, by which shared folders are marked.

        Raises:
            NotFederated: The home has no federation.
        """
        return trust.federation_id(self.replica)

    def begin(self, name: str) -> None:
        """Begin a federation with this device as its first one.

        Raises:
            InvalidValue: The home has a federation already, or it is no name.
        """
        self._refuse_begun()
        control.check_name(name)
        with self._held(), self.replica.connection.transaction():
            keys = self.replica.create_keys()
            self.replica.put("federation", secrets.token_hex(16))
            statement = control.approval(keys, name)
            control.obey(self.replica, [statement], keys.device_id)
            write_statements(self.replica, [statement])
        self._publish()

    def create_keys(self) -> DeviceKeys:
        """Return the public keys of this device, which `invite` needs; create them if needed."""
        with self.replica.connection.transaction():
            return self.replica.create_keys()

    def forget_keys(self) -> None:
        """Delete the keys of a device that has not joined, so that it gets new ones."""
        if not self.is_begun:
            with self.replica.connection.transaction():
                self.replica.connection.execute("DELETE FROM sync_state WHERE key = 'signing_key'")

    def invite(
        self,
        device: DeviceKeys,
        name: str,
        *,
        level: Literal[1, 2] = 2,
        policy: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Trust another device, and return the invitation that it joins with.

        The invitation must reach the device by an authenticated way.

        Args:
            device: Its public keys.
            name: Its name.
            level: 2 for full trust, 1 for a device that only receives.
            policy: 'full' or 'none' for classes, as for `set_policy`; it never gets the keys of
                those that it does not hold.

        Raises:
            UnknownName: There is no such class.
            InvalidValue: The policy is none, the device is trusted already on another level, or
                this device only receives.
            NameTaken: Another trusted device has the name.
            DeviceRevoked: The device was revoked under these keys, or this one was.
        """
        trust.require_full_trust(self.replica)
        trust.check_free(self.replica, name, device.device_id)
        trusted = self.replica.level(device.device_id)
        if trusted not in (0, level):
            former = next(one for one in self.devices() if one.device_id == device.device_id)
            raise InvalidValue(
                f"{former.name} is trusted already, {('to receive only', 'fully')[trusted - 1]}, "
                f"which cannot be changed: run `aico-lab device revoke {device.device_id}`, and "
                "add it again."
            )
        statements = [control.approval(device, name, level=level)]
        if policy:
            trust.check_policy(self.replica, policy)
            statements.append(trust.policy_of(self.replica, device.device_id, policy))
        self._state(*statements)
        if self.replica.level(device.device_id) == 0:
            raise DeviceRevoked(
                "This device was revoked under the keys that it has: begin again on both, as it "
                "makes new ones now."
            )
        with self.replica.connection.transaction():
            statements = control.everything(self.replica)
        return {
            "federation": self.federation_id,
            "from": self.replica.device_id,
            "statements": statements,
        }

    def join(self, invitation: Mapping[str, Any]) -> None:
        """Join the federation of the device that invited this one.

        A device that was revoked joins again under its new keys; what it changed meanwhile, and
        what the others had refused, comes to them.

        Raises:
            InvalidValue: It has a federation already, or the invitation is not for it.
        """
        if self.is_begun and not self.replica.is_outside:
            self._refuse_begun()
        id_ = str(invitation["federation"])
        if self.is_begun and id_ != self.federation_id:
            raise InvalidValue(
                "This home had other devices before, whose changes it has: join these with a new "
                "home, and import the conversations into it."
            )
        with self._held(), self.replica.connection.transaction():
            former = self.is_begun
            keys = self.replica.create_keys()
            control.obey(self.replica, invitation["statements"], str(invitation["from"]))
            if self.replica.is_outside:
                raise InvalidValue("The invitation is for another device.")
            self.replica.put("federation", id_)
            self.replica.audit("device.joined", keys.device_id, f"invited by {invitation['from']}")
            if not former:  # its own rows are not those that were erased
                erasures.end_all(self.replica)
            if former and (own := self.replica.own_classes):
                for class_ in own:
                    self.replica.put(f"scan:{class_}", "1")
                # By this the others learn that a trusted device has the bundles that they refused,
                # and take them in.
                self._write(*map(control.acknowledgement, self.replica.former_ids))
        self._publish()

    def leave(self, folder: Path | None = None) -> bool:
        """End the federation, if no other device has ever been in it; all rows stay.

        Args:
            folder: The shared folder of the last time.

        Returns:
            Whether nothing of the federation is left in that folder.

        Raises:
            NotFederated: The home has no federation.
            InvalidValue: Another device is or was in it.
        """
        federation_id = self.federation_id
        with self._held():
            leaving.check_alone(self.replica)
            # Files first: after a crash before the commit, their rows are sent again.
            is_clear = folder is None or withdraw(folder, federation_id, self.replica.device_id)
            with os_errors(self.folder):
                remove_whole(self.replica.spool.folder)
            with self.replica.connection.transaction():
                leaving.forget(self.replica)
            self.replica = Replica(self.replica.connection, self.replica.spool)
            return is_clear

    def seal(self) -> Sealed:
        """Write what changed on this device into bundles."""
        with self._exclusive():
            return Sealed(seal(self.replica))

    def take_in(self) -> TakenIn:
        """Apply the bundles that were received, and send again what others lack.

        Erasures that they ask for are carried out in between, and nothing is taken in while one,
        also of this device, is not finished.

        Raises:
            ErasureIncomplete: An erasure could not be finished.
            FederationBusy: Another process is exchanging changes.
            DatabaseLocked: Another program writes, or reads an older state.
        """
        done = self._take_in()
        while self.erase is not None and erasures.waits(self.replica):
            erased = self.erase()
            self.erased += erased
            done.erased += erased
            done = done.followed_by(self._take_in())
        return done

    def _take_in(self) -> TakenIn:
        with self._exclusive():
            # Its changes are sent when it joins again, and must not claim to know later bundles.
            if self.replica.is_outside:
                return TakenIn()
            compacting.begin_streams_after_loss(self.replica)
            taken_in = Receiver(self.replica).take_in()
            self._publish()  # else what was sealed meanwhile would seem lost
            compacting.send_again(self.replica)
            self._publish()
            self._remove_replaced()
            with self.replica.connection.transaction():
                for device_id, rows in sorted(taken_in.rows_of.items()):
                    if rows:
                        self.replica.audit("federation.applied", device_id, f"rows: {rows:,}")
            return taken_in

    def exchange(self, folder: Path) -> Exchanged:
        """Copy missing bundles from a shared folder, and to it.

        Raises:
            FolderUnusable: The folder is missing, cannot be read or written, or is that of another
                federation.
        """
        with self._exclusive():
            done = self.replica.spool.exchange(
                folder,
                self.federation_id,
                device_id=self.replica.device_id,
                devices=self._known_devices(),
                junk=self.replica.junk(),
                gone=replaced.names(self.replica),
            )
            self.replica.keep("refused", done.refused)
            self.replica.keep("foreign", done.foreign)
            return done

    def _known_devices(self) -> set[str]:
        rows = self.replica.connection.fetch_all(
            "SELECT device_id FROM devices WHERE recipient IS NOT NULL"
        )
        return {id_ for (id_,) in rows}

    def sync(self, folder: Path) -> Synced:
        """Exchange changes with the other devices by way of a shared folder.

        Raises:
            FolderUnusable: As for `exchange`.
            DeviceRevoked: The other devices no longer trust this one.
        """
        return self.sync_by(lambda: self.exchange(folder))

    def sync_by(self, exchange: Callable[[], Exchanged]) -> Synced:
        """Exchange changes with the other devices.

        Args:
            exchange: Copies missing bundles both ways.

        Raises:
            DeviceRevoked: The other devices no longer trust this one.
            ErasureIncomplete: An erasure could not be finished; what was sealed is sent.
            FederationBusy: As for `take_in`.
            DatabaseLocked: Likewise.
        """
        first = exchange()
        try:
            taken_in, sealed = self.bring_up_to_date()
        except ErasureIncomplete:
            exchange()
            raise
        exchanged = first.followed_by(exchange())
        if exchanged.received > first.received:  # of devices that it has only now come to know
            more, later = self.bring_up_to_date()
            taken_in, sealed = taken_in.followed_by(more), Sealed(sealed.rows + later.rows)
            exchanged = exchanged.followed_by(exchange())
        return Synced(exchanged, taken_in, sealed)

    def bring_up_to_date(self) -> tuple[TakenIn, Sealed]:
        """Apply the bundles that were received, and seal what changed here.

        Raises:
            DeviceRevoked: The other devices no longer trust this one.
            ErasureIncomplete: An erasure could not be finished.
            FederationBusy: As for `take_in`.
            DatabaseLocked: Likewise.
        """
        taken_in = self.take_in()
        if self.replica.is_outside:
            raise DeviceRevoked(
                "The other devices no longer trust this one, so nothing was sent: ask one of them "
                "to add it again."
            )
        return taken_in, self.seal()

    def compact(self) -> compacting.Compacted:
        """Write the rows as they are into new bundles, which replace all that were taken in.

        Changed and erased texts are then in no file of this device; the others, and a shared
        folder, lose the replaced files when they exchange changes next.

        Raises:
            InvalidValue: This device only receives.
        """
        if not self.replica.own_classes:
            raise InvalidValue(f"{_RECEIVES_ONLY}: compact on another one.")
        self.bring_up_to_date()
        with self._exclusive():
            before = self.replica.spool.size()
            with self.replica.connection.transaction():
                seal(self.replica)
                rows, bundles, replaced_ = compacting.compact(self.replica)
            self._publish()
            self._remove_replaced()
            return compacting.Compacted(rows, bundles, replaced_, before, self.replica.spool.size())

    def note_changes(self) -> None:
        """Note which rows changed, in the open transaction, before the change feed loses them."""
        collect(self.replica)

    def note_undone(self, import_id: str, since: int) -> None:
        """Note the rows that undoing an import has deleted, in the open transaction.

        Args:
            import_id: The import.
            since: The last change of the feed before.
        """
        undone.note(self.replica, import_id, since)

    def seal_undone(self, import_id: str) -> None:
        """Seal the deletion of an import's rows, and tell the other devices of which it is."""
        with self._exclusive(), self.replica.connection.transaction():
            seal(self.replica)
            if said := undone.statement(self.replica, import_id):
                self._write(said)

    def bundles_with(self, pattern: re.Pattern[bytes]) -> int:
        """Return the number of bundles with rows that a pattern is found in, or without a key."""
        found = 0
        for name in map(parse_name, sorted(self.replica.spool.names())):
            try:
                rows = Receiver(self.replica).open(name).rows()
            except Refused:
                found += 1
                continue
            found += any(pattern.search(row) for row in rows)
        return found

    def revoke(self, device_id: str) -> None:
        """End the trust in a device, and go on under keys that it does not have.

        Raises:
            UnknownName: There is no such trusted device.
            InvalidValue: It is this device, or this one only receives.
            DeviceRevoked: The other devices no longer trust this one.
        """
        trust.require_full_trust(self.replica)
        trust.require_trusted(self.replica, device_id)
        if device_id == self.replica.device_id:
            raise InvalidValue("A device cannot revoke itself: do it on another one.")
        with self._exclusive(), self.replica.connection.transaction():
            seal(self.replica)
            self._write(control.revocation(self.replica, device_id))

    def rename(self, device_id: str, name: str) -> None:
        """Change the name of a device, on all devices.

        Raises:
            UnknownName: There is no such trusted device.
            InvalidValue: It is no name, or this device only receives.
            NameTaken: Another trusted device has it.
            DeviceRevoked: The other devices no longer trust this one.
        """
        trust.require_full_trust(self.replica)
        trust.require_trusted(self.replica, device_id)
        control.check_name(name)
        trust.check_free(self.replica, name, device_id)
        self._state(trust.name_of(self.replica, device_id, name))

    def set_policy(self, device_id: str, **classes: Literal["full", "none"]) -> None:
        """Choose the classes of rows that a device holds; it keeps what it already has.

        Args:
            device_id: The device.
            classes: 'full' or 'none' for each class to change.

        Raises:
            UnknownName: There is no such trusted device, or no such class.
            InvalidValue: A value is neither 'full' nor 'none', the class is the base, or this
                device only receives.
            DeviceRevoked: The other devices no longer trust this one.
        """
        trust.require_full_trust(self.replica)
        trust.require_trusted(self.replica, device_id)
        trust.check_policy(self.replica, classes)
        self._state(trust.policy_of(self.replica, device_id, classes))

    def devices(self) -> list[FederatedDevice]:
        """Return all devices of the federation, also revoked ones, by name."""
        return overview.devices(self.replica)

    def conflicts(self) -> list[conflicts.RowConflict]:
        """Return the conflicts that nobody has decided, oldest first."""
        return conflicts.open_conflicts(self.replica)

    def resolve(self, numbers: int | Iterable[int], keep: str | Mapping[str, Any]) -> None:
        """Decide one conflict, or several or none of them, on all devices.

        Args:
            numbers: The numbers of the conflicts on this device.
            keep: 'mine', 'theirs', or values of columns.

        Raises:
            UnknownName: There is no such open conflict.
            InvalidValue: The row has no such column, `keep` is none of these, this device does
                not send such rows, or does not have a deleted row that they refer to.
            ConstraintViolated: The row may not have these values.
        """
        chosen = [numbers] if isinstance(numbers, int) else list(numbers)
        with self._resolving():
            ended = resolving.resolve(self.replica, chosen, keep)
            self._send_decided(ended)

    def resolve_all(self, keep: Literal["mine", "theirs"]) -> dict[int, str]:
        """Decide all conflicts of rows that this device sends, on all devices.

        Args:
            keep: The versions to keep.

        Returns:
            The numbers of those that this device cannot decide, each with the reason.
        """
        with self._resolving():
            ended, left = resolving.resolve_all(self.replica, keep)
            self._send_decided(ended)
            return left

    @contextlib.contextmanager
    def _resolving(self) -> Iterator[None]:
        with self._exclusive():
            seal(self.replica)  # a change may end a conflict, also if nothing is decided now
            with self.replica.connection.transaction():
                yield

    def _send_decided(self, ended: list[Decision]) -> None:
        seal(self.replica, ended)
        self.replica.audit(
            "federation.resolved", self.replica.device_id, f"conflicts: {len(ended):,}"
        )

    def status(self) -> FederationStatus:
        """Return what was sent and received, what is missing, and what waits."""
        return overview.status(self.replica)

    def verify(
        self,
        *,
        with_: proof.RowsProof | None = None,
        repair: bool = False,
        folder: Path | None = None,
    ) -> FederationProof:
        """Compare all rows with their versions, and with the rows of another device.

        Bundles that are damaged are repaired from another copy, or removed to be sent again.

        Args:
            with_: The proof of the other device, which it reads from its own tables.
            repair: Send the rows that differ with the next sync, as they are here.
            folder: A shared folder, whose files are compared with their names, too.

        Raises:
            DeviceRevoked: They are to be sent, and the other devices no longer trust this one.
            InvalidValue: They are to be sent, and this device only receives.
            FolderUnusable: The folder cannot be read.
        """
        if repair:
            trust.require_full_trust(self.replica)
        with self._exclusive(), self.replica.connection.transaction():
            damaged = tuple(
                self.replica.spool.check(folder, self.replica.device_id, self._known_devices())
            )
            verified = proof.verify(self.replica, repair=repair)
            if with_ is None:
                return FederationProof(verified, {}, damaged=damaged)
            alone = verified.proof.not_compared(with_)
            tables = self.replica.tables
            compared = {tables[table].class_ for table in with_.rows if table in tables}
            compared -= {tables[table].class_ for table in alone if table in tables}
            return FederationProof(
                verified, verified.proof.differing(with_), tuple(sorted(compared)), alone, damaged
            )

    def log(self) -> list[AuditEntry]:
        """Return the events of the federation on this device, oldest first."""
        return overview.log(self.replica)

    def _state(self, *statements: control.Statement) -> None:
        """Apply statements of this device, and send them."""
        with self._exclusive(), self.replica.connection.transaction():
            seal(self.replica)
            self._write(*statements)

    def _write(self, *statements: control.Statement) -> None:
        control.obey(self.replica, statements, self.replica.device_id)
        write_statements(self.replica, statements)

    def _refuse_begun(self) -> None:
        if self.is_begun:
            raise InvalidValue("This home has a federation already: see `aico-lab device list`.")

    def __repr__(self) -> str:
        return (
            "<Federation: .devices(), .status(), .log(), .conflicts(), .resolve(NUMBER, KEEP), "
            ".verify(), .compact()>"
        )

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Keep other processes from writing bundles, and make those of the block visible."""
        _ = self.federation_id
        with self._held():
            self._publish()
            yield
            self._publish()

    def _held(self) -> AbstractContextManager[None]:
        with private_files():
            self.folder.mkdir(exist_ok=True)
        return held(self.folder / "writer.lock", _PATIENCE, _busy)

    def _remove_replaced(self) -> None:
        spool = self.replica.spool
        for name in spool.names() & replaced.names(self.replica):
            spool.remove(name)

    def _publish(self) -> None:
        """Make the bundles visible whose transactions committed."""
        self.replica.spool.publish(
            lambda name: (
                self.replica.connection.fetch_one(
                    "SELECT 1 FROM sync_chain WHERE stream = ? AND n = ? AND hash = ?", [*name]
                )
                is not None
            )
        )


def _busy(holder: str) -> FederationBusy:
    return FederationBusy(
        f"{holder.capitalize()} is exchanging changes of this home: try again when it is done."
    )
