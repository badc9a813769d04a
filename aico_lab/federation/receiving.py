"""Choose which received bundles may be taken in, and in which order.

A bundle is taken in after the one before it in its stream. Of a revoked device only those count
that some trusted device had taken in before it knew. A file of this device's own stream that it
did not write shows that the home was restored from a backup, or copied: it takes in what it has
forgotten, and goes on in a new stream.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from aico_lab.federation import control, epochs, erasures, replaced
from aico_lab.federation.applying import apply, retry_parked
from aico_lab.federation.bundles import (
    START,
    FileName,
    Header,
    NoKey,
    OpenedBundle,
    Refused,
    parse_name,
    read_changes,
    unpack,
)
from aico_lab.federation.sealing import seal

if TYPE_CHECKING:
    from aico_lab.federation.erasures import ErasedForDevice
    from aico_lab.federation.replica import Replica

BEFORE_IT: Final = "the bundle before it is missing"
NEEDED: Final = "a bundle that it refers to is missing"
_ERASURE: Final = "an erasure that is not finished comes first"
_KEPT: Final = 32 << 20
"""Bytes of opened bundles that are kept until their turn; others are opened again."""


@dataclass
class TakenIn:
    """The result of taking in received bundles.

    Attributes:
        bundles: The number of bundles.
        rows: The number of rows in them, also of those that were known.
        refused: Files that were not taken in, each with the reason.
        waiting: Files that may be taken in later, each with the reason.
        rows_of: The numbers of rows by the device that sent them.
        erased: Erasures that other devices had asked for.
    """

    bundles: int = 0
    rows: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)
    waiting: list[tuple[str, str]] = field(default_factory=list)
    rows_of: Counter[str] = field(default_factory=Counter)
    erased: list[ErasedForDevice] = field(default_factory=list)

    def followed_by(self, later: TakenIn) -> TakenIn:
        """Return the result of both."""
        return TakenIn(
            self.bundles + later.bundles,
            self.rows + later.rows,
            self.refused + later.refused,
            later.waiting,
            self.rows_of + later.rows_of,
            self.erased + later.erased,
        )


class Receiver:
    """Checks, decrypts and applies the bundles in the spool."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._connection = replica.connection
        self._headers: dict[FileName, Header] = {}
        self._kept: dict[FileName, OpenedBundle] = {}
        self._kept_size = 0
        self._reasons: dict[FileName, str] = {}
        self._refused: set[FileName] = set()
        self._done = TakenIn()

    def take_in(self) -> TakenIn:
        """Apply every bundle whose predecessors were applied, and note why the others wait.

        All wait for an erasure that one of them asks for.
        """
        replaced.take_effect(self._replica)
        self._replica.without_key.clear()
        pending = self._pending()
        self._leave_forgotten_streams(pending)
        progress = True
        while pending and progress:
            progress = False
            for name in sorted(pending - self._headers.keys() - self._refused):
                # Its keys may open other bundles, even while all of them wait for an erasure.
                progress |= self._read_header(name)
            order = sorted(self._headers.items(), key=lambda item: (item[1].age, item[0]))
            for name, header in order:
                reason = self._obstacle(name, header)
                if reason:
                    self._reasons[name] = reason
                    continue
                if self._take(name):
                    progress = True
                    pending.discard(name)
                    # New keys may open others; their order comes before that of the rest.
                    if header.statements:
                        break
            if gone := replaced.take_effect(self._replica):
                progress = True
                for name in {one for one in pending if str(one) in gone}:
                    pending.discard(name)
                    self._headers.pop(name, None)
                    self._kept.pop(name, None)
                    self._reasons.pop(name, None)
        retry_parked(self._replica)
        # A bundle that waits for an erasure may have the keys.
        if not erasures.waits(self._replica):
            self._obey_own_revocation()
            self._refuse_unreadable()
        waiting = sorted((str(name), why) for name, why in self._reasons.items())
        self._replica.keep("waiting", waiting)
        self._done.waiting = [one for one in waiting if self._replica.waits(one[1])]
        return self._done

    def _refuse_unreadable(self) -> None:
        for file, why in self._replica.refuse_unreadable():
            self._reasons.pop(parse_name(file), None)
            self._done.refused.append((file, why))

    def _pending(self) -> set[FileName]:
        known = {
            str(FileName(*row))
            for row in self._connection.fetch_all("SELECT stream, n, hash FROM sync_chain")
        }
        known |= {name for (name,) in self._connection.fetch_all("SELECT file FROM sync_refused")}
        return {parse_name(name) for name in self._replica.spool.names() - known}

    def _leave_forgotten_streams(self, pending: set[FileName]) -> None:
        own = self._replica.own_streams()
        forgotten = {own[name.stream] for name in pending if name.stream in own}
        with self._connection.transaction():
            for class_ in forgotten:
                self._replica.begin_stream(class_)

    def open(self, name: FileName) -> OpenedBundle:
        """Return a bundle of the spool.

        Raises:
            Refused: It is none of a known device, or cannot be opened.
        """
        device = control.device_of(name, self._replica)
        if device is None:
            raise Refused("its device is unknown", is_final=False)
        return unpack(
            name,
            self._replica.spool.read(str(name)),
            epochs.identities(self._replica),
            device[0],
        )

    def _read_header(self, name: FileName) -> bool:
        """Read the header of a bundle; return whether statements in it were obeyed."""
        try:
            opened = self.open(name)
        except Refused as refused:
            self._refuse(name, refused)
            return False
        self._headers[name] = opened.header
        self._reasons.pop(name, None)
        self._replica.without_key.discard(name)
        if self._kept_size < _KEPT:
            self._kept[name] = opened
            self._kept_size += len(opened.body)
        return self._obey_early(name, opened.header)

    def _obey_early(self, name: FileName, header: Header) -> bool:
        """Obey statements on devices and keys before the bundle's turn; return whether any were.

        The bundles before it may be gone, replaced by those of a device that it makes known.
        """
        # With its policy, or a new device would get the keys of classes that it does not hold.
        kinds = ("approve", "set", "epoch")
        early = [one for one in header.statements if one.get("kind") in kinds]
        if early and name.n > 1 and self._replica.level(name.device) > 1:
            with contextlib.suppress(Refused), self._connection.transaction():
                if any(one["kind"] == "set" for one in early):
                    seal(self._replica)  # what changed before a policy that leaves out its class
                control.obey(self._replica, early, name.device)
                return True
        return False

    def _obey_own_revocation(self) -> None:
        """Obey a revocation of this device whose turn does not come.

        The bundles before it may be replaced by those under a key that this device does not get.
        """
        for name, header in self._headers.items():
            own = [
                one
                for one in header.statements
                if (one.get("kind"), one.get("device_id")) == ("revoke", self._replica.device_id)
            ]
            if own and self._replica.level(name.device) > 1:
                with contextlib.suppress(Refused), self._connection.transaction():
                    seal(self._replica)  # as before every bundle that is taken in
                    control.obey(self._replica, own, name.device)

    def _take(self, name: FileName) -> bool:
        try:
            if self._erasure_comes_first(self._headers[name]):
                self._reasons[name] = _ERASURE
                return False
        except Refused as refused:
            self._refuse(name, refused)
            return False
        opened = self._kept.pop(name, None)
        self._kept_size -= len(opened.body) if opened else 0
        try:
            opened = opened or self.open(name)
            changes = read_changes(
                opened, self._replica.tables, self._replica.schema_of(opened.header.class_)
            )
            apply(self._replica, name, opened.header, changes)
        except Refused as refused:
            self._refuse(name, refused)
            return False
        del self._headers[name]
        self._reasons.pop(name, None)
        self._done.bundles += 1
        rows = sum(map(len, changes.values()))
        self._done.rows += rows
        self._done.rows_of[name.device] += rows
        return True

    def _erasure_comes_first(self, header: Header) -> bool:
        """Return whether an erasure waits, also one that a bundle asks for whose turn it is."""
        if erasures.waits(self._replica):
            return True
        asked = [one for one in header.statements if one.get("kind") == "erase"]
        if not asked:
            return False
        with self._connection.transaction():
            for one in asked:
                erasures.receive(self._replica, one)
        return erasures.waits(self._replica)

    def _refuse(self, name: FileName, refused: Refused) -> None:
        if isinstance(refused, NoKey):
            self._replica.without_key.add(name)
        if not refused.is_final:
            self._reasons[name] = str(refused)
            return
        self._headers.pop(name, None)
        self._reasons.pop(name, None)
        self._refused.add(name)
        self._done.refused.append((str(name), str(refused)))
        with self._connection.transaction():
            self._connection.execute(
                "INSERT INTO sync_refused VALUES (?, ?) ON CONFLICT DO NOTHING",
                [str(name), str(refused)],
            )
            self._replica.audit("federation.refused", name.device, f"{refused}: {name}")
            self._replica.publish_event("federation.refused", {"file": str(name)})
        self._replica.spool.remove(str(name))

    def _obstacle(self, name: FileName, header: Header) -> str | None:
        """Return the reason why a bundle cannot be taken in now, or None."""
        if header.prev != START and not self._connection.fetch_one(
            "SELECT 1 FROM sync_chain WHERE stream = ? AND n = ? AND hash = ?",
            [name.stream, name.n - 1, header.prev],
        ):
            return BEFORE_IT
        for needed in map(parse_name, header.needs):
            if not self._connection.fetch_one(
                "SELECT 1 FROM sync_chain WHERE stream = ? AND n = ? AND hash = ?", [*needed]
            ):
                return NEEDED
        device = control.device_of(name, self._replica)
        if device is None:
            return "its device is unknown"
        if device[1]:
            return None if self._was_seen(name) else "its device is revoked"
        if self._replica.level(name.device) == 1:
            return "its device may only receive"
        return None

    def _was_seen(self, name: FileName) -> bool:
        """Return whether a trusted device had taken in a bundle before it knew of a revocation."""
        heads = {
            head
            for (stored,) in self._connection.fetch_all(
                "SELECT heads FROM sync_revocations WHERE device_id = ?", [name.device]
            )
            for head in json.loads(stored).get(name.stream, [])
        }
        heads |= {head for (head,) in self._connection.fetch_all("SELECT hash FROM sync_seen")}
        # Also by bundles that wait, because they may wait for what this one has replaced.
        trusted = {
            device_id
            for (device_id,) in self._connection.fetch_all(
                "SELECT device_id FROM devices WHERE trust_level > 1"
            )
        }
        heads |= {
            head
            for other, waiting in self._headers.items()
            if other.device in trusted
            for head in waiting.ctx.get(name.stream, (0, []))[1]
        }
        before: dict[str, str] = dict(
            self._connection.fetch_all(
                "SELECT hash, prev FROM sync_chain WHERE stream = ?", [name.stream]
            )
        )
        before |= {
            other.hash: header.prev
            for other, header in self._headers.items()
            if other.stream == name.stream
        }
        for head in heads & before.keys():
            at, steps = head, 0
            while at in before and steps <= len(before):
                if at == name.hash:
                    return True
                at, steps = before[at], steps + 1
        return False
