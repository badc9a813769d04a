"""Verified copies of the database, made before a migration that may lose data."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from aico_lab.adapters.sql_text import folded, named, quoted, tokens
from aico_lab.config import without_secrets
from aico_lab.errors import CorruptDatabase, DiskFull, NotPermitted
from aico_lab.home.files import os_errors, sync_folder

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

    from aico_lab.adapters.libsql import Connection

KEPT = 3
"""The number of backups that are kept: a trade-off between steps to go back and disk space."""

PARTIAL = ".partial"

REPLACED = "replaced"
"""The reason in the names of databases that a backup replaced."""

_WITHOUT_ROWS = ("-shm", "-journal", ".seal", ".tail", ".lock", ".migration")
"""The ends of the names of files beside a database that have none of its rows."""

_COPY = """
import os, shutil, sys
os.umask(0o077)
for source, target in zip(sys.argv[1::2], sys.argv[2::2]):
    if os.path.exists(source):
        shutil.copyfile(source, target)
        with open(target, "rb+") as file:
            os.fsync(file.fileno())
"""


def loses_data(connection: Connection, statements: Iterable[str]) -> bool:
    """Return whether statements may lose rows, or values in rows.

    Only SQLite knows how a statement changes rows. So every statement that names a view, or a table
    with rows, counts as one that may, unless it only creates an object, adds a column, or drops a
    view, index or trigger.
    """
    found = {
        folded(name): (kind, name)
        for kind, name in connection.fetch_all(
            "SELECT type, name FROM sqlite_master WHERE type IN ('table', 'view')"
        )
    }
    mentioned = {named(token) for token in _risky(statements)}
    return any(
        kind == "view" or connection.fetch_one(f"SELECT 1 FROM {quoted(name)} LIMIT 1")
        for key, (kind, name) in found.items()
        if key in mentioned
    )


def _risky(statements: Iterable[str]) -> list[str]:
    """Return the tokens of statements that may change rows, and of triggers they may fire."""
    risky: list[str] = []
    triggers: list[str] = []
    for statement in statements:
        words = list(tokens(statement))
        match words:
            case ["create", "trigger", *_]:
                triggers += words
            case ["create", *_] | ["drop", "view" | "index" | "trigger", *_]:
                pass
            case ["alter", "table", _, "add", *_] | ["alter", "table", _, ".", _, "add", *_]:
                pass
            case _:
                risky += words
    return risky + triggers if risky else []


def back_up(connection: Connection, reason: str, *, spare: Collection[Path] = ()) -> Path:
    """Copy the database into the folder `backups` beside it, and verify the copy.

    `VACUUM INTO` cannot be used: libSQL's copy of an encrypted database would be plain text.

    Args:
        connection: In a transaction that holds the write lock and has written nothing yet.
        reason: A part of the copy's file name.
        spare: Older backups to keep; of the others only the newest `KEPT` are kept.

    Returns:
        The path of the copy, which has the key of the database.

    Raises:
        StorageError: The copy could not be made, or differs from the database.
    """
    source = connection.path
    target = backup_path(source, reason)
    folder = target.parent
    partial = target.with_name(f"{target.name}{PARTIAL}")
    with os_errors(folder):
        folder.mkdir(mode=0o700, exist_ok=True)
        _sweep(folder)  # no other copy is in progress: the transaction excludes it
    try:
        copy_files(source, partial)
        _verify(connection, partial)
        with os_errors(folder):
            partial.replace(target)
            sync_folder(folder)
            _prune(source, spare)
    except BaseException:
        _sweep(folder)
        raise
    return target


def backup_path(database: Path, reason: str) -> Path:
    """Return the path of a new backup of a database in the folder `backups` beside it."""
    name = f"{database.stem}-{datetime.now(UTC):%Y%m%dT%H%M%S%f}Z-{reason}.db"
    return database.parent / "backups" / name


def backups_of(database: Path) -> list[Path]:
    """Return the verified backups of a database, oldest first."""
    folder = database.parent / "backups"
    name = re.compile(rf"{re.escape(database.stem)}-\d{{8}}T\d{{12}}Z-.+\.db")
    return sorted(
        path for path in (folder.iterdir() if folder.is_dir() else ()) if name.fullmatch(path.name)
    )


def other_copies(database: Path) -> list[Path]:
    """Return the files that a database of this name may be in besides its own and its backups.

    These are what restorations and rotations put aside or left, and copies made by people.
    """
    folder, own = database.parent, (database.name, f"{database.name}-wal")
    found = [
        *folder.glob(f"{database.name}*"),
        *folder.glob(f".{database.name}*"),
        *folder.glob(f"backups/{database.stem}-*{PARTIAL}"),
        *folder.glob(f"backups/.{database.stem}-*"),
    ]
    return sorted(
        path
        for path in found
        # The second name is of a file that is being written.
        if path.name not in own and not any(map(_has_no_rows, (path.name, path.stem)))
    )


def _has_no_rows(name: str) -> bool:
    return name.endswith(_WITHOUT_ROWS)


def _prune(database: Path, spare: Collection[Path]) -> None:
    for old in backups_of(database)[:-KEPT]:
        if old not in spare:
            old.unlink(missing_ok=True)


def _sweep(folder: Path) -> None:
    """Remove unfinished copies and the logs beside them."""
    for file in folder.glob(f"*{PARTIAL}*"):
        # A restoration that was killed may have left the former database only under this name.
        if not (REPLACED in file.name and file.stat().st_nlink == 1):
            file.unlink(missing_ok=True)


def copy_files(source: Path, target: Path) -> None:
    """Copy the file of a database with its write-ahead log, in another process.

    Another process is needed because closing a file releases all locks that this process has on it,
    even those of the open database. A checkpoint meanwhile is harmless: only a writer could
    overwrite the log.
    """
    files = [source, source.with_name(f"{source.name}-wal")]
    size = sum(file.stat().st_size for file in files if file.exists())
    if shutil.disk_usage(target.parent).free < size:
        raise DiskFull(f"There is no room for a copy in {target.parent}: free {size >> 20} MB.")
    pairs = []
    for file in files:
        pairs += [str(file), str(target.with_name(file.name.replace(source.name, target.name)))]
    copied = subprocess.run(  # noqa: S603 - this interpreter, and our own paths
        [sys.executable, "-I", "-S", "-c", _COPY, *pairs],
        check=False,
        capture_output=True,
        env=without_secrets(),
    )
    if copied.returncode:
        raise NotPermitted(f"No copy could be written to {target.parent}: check that folder.")


def check_backup(connection: Connection, backup: Path) -> None:
    """Check the integrity of a whole backup.

    Args:
        connection: A connection to the database that was copied.
        backup: The copy.

    Raises:
        StorageError: The backup is damaged, or has another key.
    """
    with connection.open_beside(backup) as copy:
        if copy.fetch_all("PRAGMA quick_check") != [("ok",)]:
            raise CorruptDatabase(f"The backup {backup} is damaged: delete it.")


def _verify(connection: Connection, target: Path) -> None:
    with connection.open_beside(target) as copy:
        sound = copy.fetch_all("PRAGMA quick_check") == [("ok",)]
        if not sound or _counts(copy) != _counts(connection):
            raise CorruptDatabase("The backup differs from the database: try again.")
        copy.fetch_all("PRAGMA wal_checkpoint(TRUNCATE)")


def _counts(connection: Connection) -> dict[str, int]:
    tables = connection.fetch_all("SELECT name FROM sqlite_master WHERE type = 'table'")
    return {
        name: connection.fetch_all(f"SELECT count(*) FROM {quoted(name)}")[0][0]
        for (name,) in tables
    }
