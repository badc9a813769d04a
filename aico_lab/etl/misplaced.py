"""Find and remove folders in the place of the warehouse's files, and files in place of folders.

This package never makes them, but a restored backup or another program may put such files and
folders there. They may be removed, since the warehouse can be made again from the primary database.
An ordinary sync removes only those in the place of notes; a full sync removes all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aico_lab.errors import CorruptDatabase
from aico_lab.etl import snapshots
from aico_lab.home.files import os_errors, remove_whole

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from aico_lab.home.folder import Home

_NOTES: Final = (snapshots.CHECKSUMS, snapshots.NOTE)
_SNAPSHOTS: Final = (".duckdb", ".wal", ".partial")


def check_places(home: Home) -> None:
    """Raise CorruptDatabase if a file of the warehouse is a folder, or a folder is a file."""
    for path in _misplaced(home):
        raise _misplaced_error(path)


def clear_misplaced(home: Home, *, full: bool) -> None:
    """Remove folders with the name of a file of the warehouse, and files with that of a folder.

    Args:
        home: The lab's folder.
        full: Remove all of them, not only those in the place of notes.

    Raises:
        CorruptDatabase: A misplaced file or folder is not in the place of a note, and `full` is
            False.
        HomeNotWritable: A misplaced file or folder cannot be removed.
    """
    for path in _misplaced(home):
        if not full and path.name not in _NOTES:
            raise _misplaced_error(path)
        with os_errors(path):
            remove_whole(path)


def _misplaced_error(path: Path) -> CorruptDatabase:
    found, wanted = ("folder", "file") if path.is_dir() else ("file", "folder")
    return CorruptDatabase(
        f"{path} is a {found} and not a {wanted}: run `aico-lab sync --full`, which makes it again."
    )


def _misplaced(home: Home) -> Iterator[Path]:
    # Outer folders first, because a path below a file cannot be examined.
    for folder in (home.warehouse, home.snapshots, home.warehouse / "readers", home.temporary):
        if folder.exists() and not folder.is_dir():
            yield folder
    files = [home.writer, snapshots.log(home.writer), *(home.warehouse / name for name in _NOTES)]
    if home.snapshots.is_dir():
        files += [path for path in home.snapshots.iterdir() if path.suffix in _SNAPSHOTS]
    yield from (file for file in files if file.is_dir())
