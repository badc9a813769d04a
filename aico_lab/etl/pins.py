"""Keep a snapshot for as long as a process reads it by its number.

A pin is a file with the generation in its name, locked for as long as its owner lives. The removal
of old snapshots spares pinned ones, and removes pins whose lock is free: their owner was killed.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

if TYPE_CHECKING:
    from aico_lab.home.folder import Home


class Pin:
    """Keeps one generation until `close()`, or until the process ends."""

    def __init__(self, home: Home, generation: int) -> None:
        """Pin a generation; in a read-only home do nothing, since no snapshot can be removed."""
        self._finalizer: weakref.finalize[..., Pin] | None = None
        folder = _folder(home.snapshots)
        # Any thread may release the lock, such as the one that collects garbage.
        lock = FileLock(
            folder / f"{generation}-{secrets.token_hex(8)}.lock",
            mode=0o600,
            timeout=0,
            thread_local=False,
        )
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, exist_ok=True)
            lock.acquire()
            self._finalizer = weakref.finalize(self, _release, lock, os.getpid())

    def close(self) -> None:
        """Release the generation, so that it may be removed; a second call does nothing."""
        if self._finalizer is not None:
            self._finalizer()


def pinned(snapshots: Path) -> set[int]:
    """Return the pinned generations, and remove the pins of processes that were killed."""
    found = set()
    folder = _folder(snapshots)
    for path in folder.iterdir() if folder.is_dir() else ():
        lock = FileLock(path, timeout=0)
        try:
            lock.acquire()
        except (Timeout, OSError):
            number = path.name.partition("-")[0]
            found |= {int(number)} if number.isdecimal() else set()
        else:
            path.unlink(missing_ok=True)
            lock.release()
    return found


def _folder(snapshots: Path) -> Path:
    return snapshots.with_name("readers")


def _release(lock: FileLock, owner: int) -> None:
    if os.getpid() == owner:  # a fork that ends must not release what its parent reads
        with contextlib.suppress(OSError):
            Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()
