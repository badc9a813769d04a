"""The federated rows of one device: its database, its keys and its folder of bundles."""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
import time
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from aico_lab.adapters import age
from aico_lab.adapters.libsql import NOW
from aico_lab.errors import SchemaError
from aico_lab.federation.bundles import Ctx, FileName, NoKey
from aico_lab.federation.tables import BASE, CLASSES, closed, read_tables
from aico_lab.schema.discovery import discover
from aico_lab.schema.registry import SchemaRegistry
from aico_lab.schema.versions import current_versions

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from aico_lab.adapters.libsql import Connection
    from aico_lab.federation.spool import Spool
    from aico_lab.federation.tables import FederatedTable

_UNSENT: Final = "0" * 8


@dataclass(frozen=True, slots=True)
class DeviceKeys:
    """The public keys of a device.

    Attributes:
        public_key: The key of its signatures (Ed25519), in hexadecimal digits.
        recipient: The age recipient that is encrypted for.
    """

    public_key: str
    recipient: str

    @property
    def device_id(self) -> str:
        """The id of the device, which is computed from its keys, so that no other can take it."""
        return hashlib.sha256(f"{self.public_key} {self.recipient}".encode()).hexdigest()[:16]

    @property
    def fingerprint(self) -> str:
        """The id in groups of four digits, for people to compare."""
        return " ".join(self.device_id[at : at + 4] for at in range(0, 16, 4))


class Replica:
    """The database, keys and bundles of one device.

    Attributes:
        connection: The primary database.
        spool: The folder of bundles.
        without_key: The bundles there that this device could not decrypt when it tried last.
    """

    def __init__(self, connection: Connection, spool: Spool) -> None:
        self.connection = connection
        self.spool = spool
        self.without_key: set[FileName] = set()

    def now(self) -> int:
        """Return the time in milliseconds since 1970."""
        return time.time_ns() // 1_000_000

    def get(self, key: str) -> str | None:
        """Return a value of the device's own state."""
        row = self.connection.fetch_one("SELECT value FROM sync_state WHERE key = ?", [key])
        return row[0] if row else None

    def put(self, key: str, value: str) -> None:
        """Store a value of the device's own state."""
        self.connection.execute(
            "INSERT INTO sync_state VALUES (?, ?) ON CONFLICT (key) "
            "DO UPDATE SET value = excluded.value",
            [key, value],
        )

    def keep(self, key: str, files: Sequence[tuple[str, str]]) -> None:
        """Store names of files with reasons, for `files`."""
        text = json.dumps(files)
        if text != (self.get(key) or "[]"):
            self.put(key, text)

    def files(self, key: str) -> dict[str, str]:
        """Return the names of files that were kept, with reasons."""
        return dict(json.loads(self.get(key) or "[]"))

    # Files that are none of its bundles

    def junk(self) -> set[str]:
        """Return the files that are neither fetched nor passed on."""
        refused = self.connection.fetch_all("SELECT file FROM sync_refused")
        return {name for (name,) in refused} | self.unreadable().keys()

    def unreadable(self) -> dict[str, str]:
        """Return the files that were left where they are, as it should have the key for them.

        They are tried again as soon as there is another key.
        """
        is_current = self.get("unreadable:keys") == self._keys_known()
        return self.files("unreadable") if is_current else {}

    def waits(self, reason: str) -> bool:
        """Return whether a file with this reason is waited for, and not only passed on."""
        return self.holds_everything or reason != str(NoKey())

    def refuse_unreadable(self) -> list[tuple[str, str]]:
        """Remove the files that this device should be able to decrypt, and cannot.

        It has the keys of all bundles that it wrote, and of all classes if it holds every class.
        Anybody who has the folder can write a file under the name of a device.

        Returns:
            The files, each with the reason.
        """
        refused = [
            (str(name), str(NoKey()))
            for name in sorted(self.without_key)
            if self.holds_everything or name.device == self.device_id
        ]
        if refused:
            self.keep("unreadable", [*(self.unreadable() | dict(refused)).items()])
            self.put("unreadable:keys", self._keys_known())
            for name, _ in refused:
                self.spool.remove(name)
        return refused

    def _keys_known(self) -> str:
        return str(
            self.connection.fetch_one("SELECT count(*) FROM sync_epochs WHERE identity IS NOT NULL")
        )

    def create_keys(self) -> DeviceKeys:
        """Create and store the device's keys, unless it has some; return the public ones.

        A device that was revoked gets new ones, and so another id.
        """
        if self.get("signing_key") is None or self.is_revoked:
            if self.is_revoked:
                self.put("former_ids", json.dumps(sorted(self.own_ids)))
            for cached in ("keys", "device_id", "signing_key"):
                self.__dict__.pop(cached, None)
            self.connection.execute("DELETE FROM sync_state WHERE key GLOB 'stream:*'")
            identity, recipient = age.new_identity()
            signer = Ed25519PrivateKey.generate()
            self.put("identity", identity)
            self.put("recipient", recipient)
            self.put("public_key", signer.public_key().public_bytes_raw().hex())
            self.put("signing_key", signer.private_bytes_raw().hex())
        return self.keys

    @property
    def is_revoked(self) -> bool:
        """Whether this device knows that the others no longer trust it."""
        return (
            self.get("signing_key") is not None
            and self.connection.fetch_one(
                "SELECT 1 FROM devices WHERE device_id = ? AND revoked_at IS NOT NULL",
                [self.keys.device_id],
            )
            is not None
        )

    @cached_property
    def keys(self) -> DeviceKeys:
        """The public keys of this device."""
        return DeviceKeys(str(self.get("public_key")), str(self.get("recipient")))

    @cached_property
    def device_id(self) -> str:
        """The id of this device."""
        return self.keys.device_id

    @property
    def own_ids(self) -> set[str]:
        """The ids of this device, also those that were revoked."""
        return {self.device_id, *self.former_ids}

    @property
    def former_ids(self) -> list[str]:
        """The ids of this device that were revoked."""
        return list(json.loads(self.get("former_ids") or "[]"))

    @cached_property
    def signing_key(self) -> bytes:
        """The secret key of this device's signatures."""
        return bytes.fromhex(str(self.get("signing_key")))

    @cached_property
    def tables(self) -> dict[str, FederatedTable]:
        """The federated tables, parents before children."""
        return read_tables(self.connection, self.plugins)

    @cached_property
    def plugins(self) -> dict[str, int]:
        """The versions of active plugins whose tables are federated."""
        active = {
            name: version
            for name, (kind, version) in current_versions(self.connection).items()
            if kind == "plugin"
        }
        # One whose package is not there now is not deactivated.
        known = set(json.loads(self.get("plugins") or "[]"))
        if active.keys() - known:
            with contextlib.suppress(SchemaError):
                discover()
            known |= {one.name for one in SchemaRegistry.default if one.is_federated}
        return {name: version for name, version in active.items() if name in known}

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of this device's tables, parents before children."""
        return (*CLASSES, *self.plugins)

    def schema_of(self, class_: str) -> int:
        """Return the version of the tables of a class; 0 if this device does not know it."""
        return self.schema if class_ in CLASSES else self.plugins.get(class_, 0)

    @cached_property
    def schema(self) -> int:
        """The sum of the versions of the core schemas, which grows with every new version."""
        row = self.connection.fetch_one(
            "SELECT sum(version) FROM schema_metadata WHERE kind = 'core'"
        )
        return int(row[0]) if row else 0

    def level(self, device_id: str) -> int:
        """Return the trust in a device: 0 none, 1 it receives only, 2 full."""
        row = self.connection.fetch_one(
            "SELECT trust_level FROM devices WHERE device_id = ?", [device_id]
        )
        return row[0] if row else 0

    def classes_of(self, policy: str | None) -> set[str]:
        """Return the classes that a device with a policy holds."""
        left_out = {class_ for class_, held in json.loads(policy or "{}").items() if held == "none"}
        return {
            class_
            for class_ in self.classes
            if class_ == BASE or not closed(self.tables, class_) & left_out
        }

    @property
    def own_classes(self) -> set[str]:
        """The classes that this device holds and sends."""
        return self.held_classes if self.level(self.device_id) > 1 else set()

    @property
    def held_classes(self) -> set[str]:
        """The classes that this device holds, also if it only receives."""
        row = self.connection.fetch_one(
            "SELECT sync_policy FROM devices WHERE device_id = ? AND trust_level > 0",
            [self.device_id],
        )
        return self.classes_of(row[0]) if row else set()

    @property
    def holds_everything(self) -> bool:
        """Whether this device holds every class, so that it has the keys of all bundles."""
        return self.held_classes == {*self.classes}

    def entitled(self) -> dict[str, set[str]]:
        """Return the trusted devices that hold each class."""
        holders: dict[str, set[str]] = {class_: set() for class_ in self.classes}
        for device_id, policy in self.connection.fetch_all(
            "SELECT device_id, sync_policy FROM devices WHERE trust_level > 0"
        ):
            for class_ in self.classes_of(policy):
                holders[class_].add(device_id)
        return holders

    @property
    def is_outside(self) -> bool:
        """Whether this device was revoked, and has not joined again."""
        return self.level(self.device_id) == 0

    @property
    def receives_only(self) -> bool:
        """Whether the other devices take in no changes of this one."""
        return self.level(self.device_id) == 1

    def send_again(self, rows: Iterable[tuple[str, str]]) -> None:
        """Mark rows, by table and key, so that they are sent although they may be as stored."""
        self.connection.execute_many(
            "INSERT INTO sync_dirty (table_name, row_key, at, is_deleted, is_forced) "
            "VALUES (?, ?, CAST(? AS INTEGER), 0, 1) "
            "ON CONFLICT (table_name, row_key) DO UPDATE SET is_forced = 1",
            [[table, key, str(self.now())] for table, key in rows],
        )

    def audit(self, event: str, device_id: str | None, detail: str) -> None:
        """Write down what happened to the federation."""
        self.connection.execute(
            f"INSERT INTO sync_audit (at, event, device_id, detail) VALUES ({NOW}, ?, ?, ?)",
            [event, device_id, detail],
        )

    def publish_event(self, topic: str, payload: dict[str, Any]) -> None:
        """Put an event into the outbox, in the open transaction."""
        self.connection.execute(
            f"INSERT INTO outbox (topic, payload, created_at) VALUES (?, ?, {NOW})",
            [topic, json.dumps(payload)],
        )

    # Streams

    def has_forgotten(self) -> bool:
        """Return whether it got bundles of this device that it does not know.

        It was restored from a backup then, or copied, and has not taken them in yet.
        """
        own = f"{self.device_id}."
        unknown = {name for name in self.spool.names() if name.startswith(own)}
        for stream, n, hash_ in self.connection.fetch_all(
            "SELECT stream, n, hash FROM sync_chain WHERE stream GLOB ?", [f"{own}*"]
        ):
            unknown.discard(str(FileName(stream, n, hash_)))
        for (left,) in self.connection.fetch_all(  # when a plugin was deactivated
            "SELECT value FROM sync_state WHERE key GLOB 'left:*'"
        ):
            unknown.difference_update(json.loads(left))
        return bool(unknown - {str(name) for name in self.without_key})

    def stream(self, class_: str) -> str:
        """Return the stream of this device's bundles of a class, which begins on first use."""
        return self.get(f"stream:{class_}") or self.begin_stream(class_)

    def begin_stream(self, class_: str) -> str:
        """Begin a new stream of this device for a class, and return it."""
        stream = f"{self.device_id}.{secrets.token_hex(4)}"
        self.put(f"stream:{class_}", stream)
        return stream

    @property
    def unsent_stream(self) -> str:
        """The stream that stands for changes of this device that are in no bundle."""
        return f"{self.device_id}.{_UNSENT}"

    def is_unsent(self, stream: str) -> bool:
        """Return whether a stream stands for changes of this device that are in no bundle."""
        return stream in {f"{own}.{_UNSENT}" for own in self.own_ids}

    def own_streams(self) -> dict[str, str]:
        """Return the classes of this device's current streams."""
        return {
            stream: key.removeprefix("stream:")
            for key, stream in self.connection.fetch_all(
                "SELECT key, value FROM sync_state WHERE key GLOB 'stream:*'"
            )
        }

    def ctx(self) -> Ctx:
        """Return what was taken in: the length and the last hashes of every stream."""
        found = Ctx()
        for stream, n, hash_ in self.connection.fetch_all(
            "SELECT stream, n, hash FROM sync_chain AS c WHERE NOT EXISTS (SELECT 1 "
            "FROM sync_chain AS d WHERE d.stream = c.stream AND d.n = c.n + 1 "
            "AND d.prev = c.hash) ORDER BY 1, 2, 3"
        ):
            length, heads = found.get(stream, (0, []))
            found[stream] = (max(n, length), [*heads, hash_])
        return found
