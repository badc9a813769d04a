"""Change the master key of a home, and encrypt every store with the new keys.

1. `lab.json` gets the new master key, wrapped for every slot, beside the old one.
2. Each store is written anew beside the old one, and read whole; see `stores`.
3. `lab.json` says that files are renamed; then the copy of the primary database is renamed, which
   decides: before it the home has its old key, afterwards the new one. The other stores follow.
   Snapshots, kept answers and a damaged cache that was set aside, which can be made again, go.
4. A snapshot of the warehouse is published, and `lab.json` loses the old master key.

An error in the first two steps undoes them. A process that is killed leaves a home that opens (see
`aico_lab.home.staged`), and the next rotation continues: before the decision from the beginning,
with all copies made again, since the home may have been written meanwhile.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final

from aico_lab.adapters.duckdb import ALIAS, DuckDBAdapter, translated
from aico_lab.adapters.temporary_folders import is_in_use
from aico_lab.errors import AicoLabError, HomeBusy
from aico_lab.etl import snapshots
from aico_lab.etl.soundness import read_whole
from aico_lab.home.files import held, os_errors, remove_whole
from aico_lab.home.in_use import folder_of, rotation_lock
from aico_lab.home.keys import SWITCHING, Keys, carry, new_master, signed, slots_of
from aico_lab.home.known import note_encrypted
from aico_lab.home.slots import wrap
from aico_lab.home.staged import put_seal_in_place, staged
from aico_lab.key_rotation import stores
from aico_lab.key_rotation.slots import changing
from aico_lab.schema.backup import backups_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from aico_lab.config import Settings
    from aico_lab.home.folder import Home
    from aico_lab.home.keys import Marker

_PREPARING: Final = "preparing"
_OTHERS: Final = ("duckdb", "chroma", "rocksdb")
_RENEWED: Final = ("duckdb", "chroma")
"""The stores of which an older copy does not do; an older cache is as good as any."""

PARTS: Final = 3 + len(_OTHERS)
"""The number of parts of a rotation, for its progress."""


@dataclass(frozen=True, slots=True)
class RotationResult:
    """The result of a rotation.

    Attributes:
        slots: The number of slots, all of which open the home as before.
        rotations: How often the key of the home was changed.
        resumed: Whether a rotation that had been interrupted was finished.
        backups: The number of backups from before migrations that have the new key, too.
        snapshot: The generation of the only snapshot that is left; 0 for none.
    """

    slots: int
    rotations: int
    resumed: bool
    backups: int
    snapshot: int


def rotate(
    home: Home, settings: Settings, *, progress: Callable[[str], None] = lambda _: None
) -> RotationResult:
    """Change the master key of a home, or finish an interrupted change.

    Args:
        home: The home.
        settings: A credential that opens it.
        progress: Called with the name of each part when it begins.

    Raises:
        HomeBusy: Another process has the home open, or changes its keys.
        InvalidValue: The home is not encrypted.
        KeyProblem: The home cannot be opened.
        StorageError: A store cannot be read or written; the home has its old key.
        DiskFull: The disk is full; the home has its old key.
    """
    with changing(home, settings) as (marker, keys), held(rotation_lock(home), 0, _busy):
        if is_in_use(folder_of(home)):
            raise HomeBusy(
                f"Another process has {home.path} open: close notebooks, schedulers and other "
                "commands, and run the command again."
            )
        rotation = _Rotation(home, marker, keys, progress)
        rotation.run()
        return rotation.result()


def _busy(who: str) -> HomeBusy:
    return HomeBusy(f"The key of the home is being changed by {who}: wait until it is done.")


class _Rotation:
    """One rotation of a home that no other process has open."""

    def __init__(
        self, home: Home, marker: Marker, keys: Keys, progress: Callable[[str], None]
    ) -> None:
        self._home, self._marker, self._progress = home, marker, progress
        self._resumed = keys.former is not None
        self._old = keys.old() if self._resumed else Keys(keys.master)
        self._new = keys.new() if self._resumed else Keys(new_master())
        self._receipts = keys.receipts() or b""
        self._snapshot = 0

    def run(self) -> None:
        """Do everything that is left to do."""
        decided = self._phase() == SWITCHING and not staged(self._home.path, "libsql").exists()
        if decided:
            put_seal_in_place(self._home.path)
        else:
            self._prepare_and_decide()
        for store in _OTHERS:
            if decided and store in _RENEWED and staged(self._home.path, store).exists():
                self._stage(store)  # the home may have been written since it was made
            stores.put_in_place(self._home, store)
        self._follow_backups()
        self._progress("snapshot")
        self._publish()
        self._finish()

    def result(self) -> RotationResult:
        """Return the result."""
        return RotationResult(
            slots=len(slots_of(self._marker)),
            rotations=self._marker["rotations"],
            resumed=self._resumed,
            backups=len(backups_of(self._home.primary)),
            snapshot=self._snapshot,
        )

    def _phase(self) -> str | None:
        return (self._marker.get("rotation") or {}).get("phase")

    def _prepare_and_decide(self) -> None:
        home = self._home
        before = {name: one for name, one in self._marker.items() if name != "rotation"}
        try:
            self._write(_PREPARING)
            stores.remove_staged(home)
            with stores.alone(home, self._old.libsql()) as primary:
                self._progress("aico.db")
                stores.stage_primary(home, primary, self._new)
                self._progress("backups")
                stores.stage_backups(home, primary, self._new)
                for store in _OTHERS:
                    self._stage(store)
                self._write(SWITCHING)
                self._rename_primary()
        except BaseException:
            if self._phase() == _PREPARING:
                with contextlib.suppress(AicoLabError):  # on a full disk; the next rotation goes on
                    stores.remove_staged(home)
                    self._home.rewrite_marker(signed(before, self._old.master or b""))
            raise

    def _stage(self, store: str) -> None:
        self._progress(store)
        stage = {
            "duckdb": stores.stage_warehouse,
            "chroma": stores.stage_vectors,
            "rocksdb": stores.stage_cache,
        }[store]
        stage(self._home, self._old, self._new)

    def _rename_primary(self) -> None:
        """Put the primary database in place, and make the old file unreadable.

        A program that waits for the lock of the old file would otherwise go on to use it, though
        it has no name any more.
        """
        with os_errors(self._home.primary):
            descriptor = os.open(self._home.primary, os.O_RDWR)
            try:
                stores.put_in_place(self._home, "libsql")
                os.pwrite(descriptor, bytes(4096), 0)
            finally:
                os.close(descriptor)

    def _follow_backups(self) -> None:
        with os_errors(self._home.path):
            for backup in backups_of(self._home.primary):
                copy = stores.staged_backup(backup)
                if copy.exists():
                    copy.replace(backup)

    def _publish(self) -> None:
        """Publish the warehouse, and remove a damaged cache, which has the old key."""
        home, key = self._home, self._new.duckdb()
        with os_errors(home.path):
            for path in home.path.glob("cache.damaged-*"):
                remove_whole(path)
        if not home.writer.exists():
            return
        adapter = DuckDBAdapter(home.writer, key, read_only=True, temporary=home.temporary)
        with contextlib.closing(adapter.connect()) as connection, translated(home.writer.name):
            row = connection.execute(f"SELECT generation FROM {ALIAS}.meta.state").fetchone()
        if row is None or not row[0]:
            return
        self._snapshot = row[0]
        if snapshots.is_sound(home.snapshots, self._snapshot):
            return  # a sync published it since the rotation was interrupted
        read = partial(read_whole, key=key, temporary=home.temporary, where=home.writer.name)
        snapshots.publish(home.writer, home.snapshots, self._snapshot, read=read, link=False)

    def _write(self, phase: str) -> None:
        """Write the journal of the rotation into the marker."""
        home_id, master = str(self._marker["home_id"]), self._new.master or b""
        before = self._marker.get("rotation")
        rotation = before or {
            "begun_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "wrapped": {
                str(slot["id"]): wrap(slot, home_id, master) for slot in slots_of(self._marker)
            },
        }
        marker = {**self._marker, "rotation": {**rotation, "phase": phase}}
        self._marker = signed(marker, self._old.master or b"")
        self._home.rewrite_marker(self._marker)

    def _finish(self) -> None:
        """Replace the old master key in the marker."""
        wrapped = self._marker["rotation"]["wrapped"]
        marker = {name: one for name, one in self._marker.items() if name != "rotation"}
        marker["slots"] = [
            {**slot, "wrapped": wrapped[str(slot["id"])]} for slot in slots_of(self._marker)
        ]
        marker["carried"] = carry(self._receipts, self._new.master or b"")
        marker["rotations"] = 1 + int(marker.get("rotations", 0))
        stores.remove_staged(self._home)  # what earlier attempts left half
        marker["rotated_at"] = datetime.now(UTC).isoformat(timespec="seconds")
        self._marker = signed(marker, self._new.master or b"")
        self._home.rewrite_marker(self._marker)
        note_encrypted(self._marker)
