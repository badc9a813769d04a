"""The results of operations of the federation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aico_lab.federation import proof
    from aico_lab.federation.receiving import TakenIn
    from aico_lab.federation.spool import DamagedFile, Exchanged


@dataclass(frozen=True, slots=True)
class FederatedDevice:
    """A device of the federation.

    Attributes:
        device_id: The id, which is also its fingerprint.
        name: The name.
        is_this: Whether it is this device.
        trust_level: 0 none or revoked, 1 it receives only, 2 full.
        classes: The classes of rows that it holds.
        approved_by: The id of the device that approved it.
        revoked_at: When this device learned of its revocation, UTC, or None.
        bundles: The number of its bundles that this device has taken in, or written itself.
        last_bundle_at: When it took in or wrote the last one, UTC, or None.
    """

    device_id: str
    name: str
    is_this: bool
    trust_level: int
    classes: tuple[str, ...]
    approved_by: str | None
    revoked_at: str | None
    bundles: int
    last_bundle_at: str | None


@dataclass(frozen=True, slots=True)
class MissingBundles:
    """Successive bundles of a device that have not come yet, though others name them.

    Attributes:
        device_id: The device.
        stream: The stream of its bundles.
        first: The number of the first one.
        last: The number of the last one.
    """

    device_id: str
    stream: str
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Sealed:
    """The result of sealing.

    Attributes:
        rows: The number of changed rows in new bundles.
    """

    rows: int


@dataclass(frozen=True, slots=True)
class Synced:
    """The result of a sync with a folder.

    Attributes:
        exchanged: The files that were copied.
        taken_in: The bundles of others that were taken in.
        sealed: The changes of this device in new bundles.
    """

    exchanged: Exchanged
    taken_in: TakenIn
    sealed: Sealed


@dataclass(frozen=True, slots=True)
class FederationStatus:
    """The state of a device's federation.

    Attributes:
        devices: All devices, also revoked ones.
        missing: The gaps in the bundles of the devices.
        is_revoked: Whether the other devices trust this one no longer.
        receives_only: Whether they take in no changes of this one.
        waiting: Files that cannot be taken in yet, each with the reason.
        refused: Files that never will be, and those in the shared folder that are incomplete, each
            with the reason.
        foreign: What is in the shared folder and no bundle of a known device, each with the reason.
        parked: Rows that wait, as table, key and reason.
        unsendable: Rows that cannot be sent, as table, key and reason.
        conflicts: The number of open conflicts.
        unsent: Whether rows have changed since the last sealing.
    """

    devices: tuple[FederatedDevice, ...]
    missing: tuple[MissingBundles, ...]
    is_revoked: bool
    receives_only: bool
    waiting: tuple[tuple[str, str], ...]
    refused: tuple[tuple[str, str], ...]
    foreign: tuple[tuple[str, str], ...]
    parked: tuple[tuple[str, str, str], ...]
    unsendable: tuple[tuple[str, str, str], ...]
    conflicts: int
    unsent: bool


@dataclass(frozen=True, slots=True)
class FederationProof:
    """The result of a verification.

    Attributes:
        verified: The comparison of the rows with their versions.
        buckets: The buckets of every table in which another device has other rows.
        compared: The classes of rows of which all tables were compared with the other device's.
        not_compared: The tables that only one of both devices holds, with their numbers of rows.
        damaged: The bundles of this device and of the shared folder that were damaged.
    """

    verified: proof.Verified
    buckets: dict[str, list[int]]
    compared: tuple[str, ...] = ()
    not_compared: dict[str, int] = field(default_factory=dict)
    damaged: tuple[DamagedFile, ...] = ()


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """An event of the federation.

    Attributes:
        at: When this device learned of it, UTC.
        event: Its name, such as 'device.paired'.
        device_id: The device that it is about, or by whose bundle it came.
        detail: More about it, with the ids of devices.
    """

    at: str
    event: str
    device_id: str | None
    detail: str
