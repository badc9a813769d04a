"""Folders in the place of the warehouse's files, and files in the place of its folders.

Nothing of ours makes them, but a restored backup or another program may. What the warehouse holds
is made of the primary database, so they may go; only a full sync removes what might stand for more
than a note.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aico_lab.errors import CorruptDatabase
from aico_lab.etl import snapshots
from aico_lab.home import os_errors, remove_whole

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from aico_lab.home import Home

NOTE: Final = "published"
"""The file that says what the newest snapshot holds, for a sync with nothing to do."""

_NOTES: Final = (snapshots.CHECKSUMS, NOTE)
_SNAPSHOTS: Final = (".duckdb", ".wal", ".partial")


def check_places(home: Home) -> None:
    """Do nothing where every part of the warehouse is the file or the folder that it should be.

    Raises:
        CorruptDatabase: One is not.
    """
    for path in _misplaced(home):
        raise _misplaced_error(path)


def clear_misplaced(home: Home, *, full: bool) -> None:
    """Remove folders that have the name of a file of the warehouse, and the reverse.

    Args:
        home: The lab's folder.
        full: Remove all of them, rather than those in the place of notes.

    Raises:
        CorruptDatabase: There is another one, and `full` is False.
        HomeNotWritable: It cannot be removed.
    """
    for path in _misplaced(home):
        if not full and path.name not in _NOTES:
            raise _misplaced_error(path)
        with os_errors(path):
            remove_whole(path)


def _misplaced_error(path: Path) -> CorruptDatabase:
    found, wanted = ("folder", "file") if path.is_dir() else ("file", "folder")
    return CorruptDatabase(
        f"{path} is a {found} and no {wanted}: run `aico-lab sync --full`, which makes it anew."
    )


def _misplaced(home: Home) -> Iterator[Path]:
    # From the top: what lies in a file is not looked for.
    for folder in (home.warehouse, home.snapshots, home.warehouse / "readers", home.temporary):
        if folder.exists() and not folder.is_dir():
            yield folder
    files = [home.writer, snapshots.log(home.writer), *(home.warehouse / name for name in _NOTES)]
    if home.snapshots.is_dir():
        files += [path for path in home.snapshots.iterdir() if path.suffix in _SNAPSHOTS]
    yield from (file for file in files if file.is_dir())
