"""`lab.backups`: write and check backups of an opened home."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from aico_lab.backup import records
from aico_lab.backup.writing import back_up_home, check_backup_file

if TYPE_CHECKING:
    from aico_lab.backup.records import BackupRecord
    from aico_lab.storage import Storage


class Backups:
    """The backups of a home; `aico_lab.backup.restoring.restore` restores one."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def write(self, target: Path | str) -> BackupRecord:
        """Write a backup, which is checked before the file gets its name.

        Args:
            target: The file, which is replaced; or a folder, where later backups hold only what
                changed.

        Raises:
            InvalidValue: The target is inside the home, or nobody could open the backup.
            StorageError: The database is damaged, or the disk is full.
        """
        return back_up_home(self._storage, Path(target))

    def check(self, backup: Path | str, *, identity: Path | str | None = None) -> BackupRecord:
        """Decrypt a backup, open its database, compare it, and record the outcome.

        Args:
            backup: The file, or a folder for the newest one in it.
            identity: The identity file of a recipient; by default the home's own key is used.

        Raises:
            StorageError: The backup is damaged.
            WrongKey: The identity does not open it.
        """
        file = None if identity is None else Path(identity)
        return check_backup_file(self._storage, Path(backup), file)

    def add_recipient(self, recipient: str = "new") -> str | None:
        """Encrypt further backups for a recipient of age, too.

        Returns:
            The identity of a new recipient, which is stored nowhere; None for a given one.

        Raises:
            InvalidValue: The text is no recipient.
        """
        return records.add_recipient(self._storage.primary, recipient)

    def list(self) -> list[BackupRecord]:
        """Return the backups that were made or checked, the oldest first."""
        return records.known_backups(self._storage.primary)

    def __repr__(self) -> str:
        return "<Backups: .write(path) writes one, .check(path) checks one, .list() returns all>"
