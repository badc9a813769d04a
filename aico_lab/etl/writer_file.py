"""Decides whether a snapshot may share the writer's file, rather than be a copy of it.

DuckDB writes into its file only at a checkpoint, and all else into its write-ahead log. `copy`
keeps the modification time. So a snapshot's file with the size and the time of the writer's file
has the same content, and the next snapshot may be a hard link to it.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class WriterFile:
    """The writer's file, without its log."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened = _state(path)

    @property
    def is_written(self) -> bool:
        """Whether the file was written since this object was made, so that no copy is the same."""
        return _state(self.path) != self._opened

    def is_same_as(self, snapshot: Path) -> bool:
        """Return whether a snapshot is a copy of the present content of the file."""
        return _state(self.path) == _state(snapshot)

    def copy(self, target: Path, *, same_as: Path | None) -> None:
        """Copy the file, or link to a snapshot of the same content if the file system has links."""
        if same_as is None or not _link(same_as, target):
            copy(self.path, target)


def copy(source: Path, target: Path) -> None:
    """Copy a file with its modification time, and flush the copy to the disk."""
    shutil.copyfile(source, target)
    shutil.copystat(source, target)
    target.chmod(0o600)
    descriptor = os.open(target, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _state(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns


def _link(existing: Path, new: Path) -> bool:
    try:
        os.link(existing, new)
    except OSError:  # some file systems have no links
        return False
    return True
