"""Keep a snapshot for as long as somebody reads it by its number, in this process or another one.

A pin is a file that names the generation, locked for as long as its owner lives. Whoever removes
old snapshots leaves the pinned ones, and removes pins whose owner was killed: their locks are free.
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
    from aico_lab.home import Home


class Pin:
    """Keeps one generation until `close()`, or until the process ends."""

    def __init__(self, home: Home, generation: int) -> None:
        """Pin a generation; where the home cannot be written, nothing removes snapshots either."""
        self._finalizer: weakref.finalize[..., Pin] | None = None
        folder = _folder(home.snapshots)
        # Any thread may let go of it, the garbage collector's among them.
        lock = FileLock(
            folder / f"{generation}-{secrets.token_hex(8)}.lock", timeout=0, thread_local=False
        )
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, exist_ok=True)
            lock.acquire()
            self._finalizer = weakref.finalize(self, _release, lock, os.getpid())

    def close(self) -> None:
        """Let the generation be removed; a second call does nothing."""
        if self._finalizer is not None:
            self._finalizer()


def pinned(snapshots: Path) -> set[int]:
    """Return the generations that somebody reads, and remove the pins of those who were killed."""
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
    if os.getpid() == owner:  # else a fork that ends, and its parent reads on
        with contextlib.suppress(OSError):
            Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()
