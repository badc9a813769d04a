"""Where processes note that they have a home open, and that the key of the home is being changed.

A process that opens a home first makes its own note, then looks whether the key is being changed. A
rotation of the key first makes known that it has begun, then looks for notes of other processes. So
at least one of the two always sees the other.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Final

from filelock import FileLock, Timeout

from aico_lab.errors import HomeBusy

if TYPE_CHECKING:
    from pathlib import Path

    from aico_lab.home.folder import Home

_LOOKS: Final = 5
_PAUSE: Final = 0.05  # seconds


def folder_of(home: Home) -> Path:
    """Return the folder in which each process that has a home open holds a lock."""
    return home.temporary / "open"


def rotation_lock(home: Home) -> Path:
    """Return the lock of a rotation of the key; a file beside it describes the holder."""
    return home.temporary / "rotation.lock"


def refuse_during_rotation(home: Home) -> None:
    """Raise HomeBusy if the key of a home is being changed now."""
    lock = rotation_lock(home)
    holder = lock.with_suffix("")
    who = ""
    for _ in range(_LOOKS):
        try:
            who = holder.read_text(encoding="ascii", errors="replace")
        except OSError:  # as nearly always: nobody holds the lock
            return
        with contextlib.suppress(Timeout, OSError), FileLock(lock, mode=0o600, timeout=0):
            holder.unlink(missing_ok=True)  # of a process that was killed
            return
        time.sleep(_PAUSE)  # another process may just be looking, too
    raise HomeBusy(f"The key of the home is being changed by {who}: wait until it is done.")
