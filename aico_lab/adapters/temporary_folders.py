"""Name temporary folders by their owner, and remove those of processes that were killed.

A process holds one lock file in a home's folder for temporary files for as long as it needs folders
there. Their names begin with the name of the lock: if the lock is free, nobody needs them.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import threading
import time
import weakref
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

from filelock import FileLock, Timeout

if TYPE_CHECKING:
    from collections.abc import Iterator

_OWNED: Final = re.compile(r"([0-9a-f]{16})(?:\.lock|-[0-9a-f]{16})")
_UNOWNED: Final = re.compile(r"[0-9a-f]{16}")
"""The names that earlier versions gave, without a lock."""

_DAY: Final = 86_400  # seconds

# Reentrant, since the garbage collector may call `give_back` at any moment.
_guard = threading.RLock()
_locks: dict[tuple[int, Path], FileLock] = {}  # by process, as a fork needs its own
_needed: Counter[tuple[int, Path]] = Counter()
"""The number of folders that a lock is held for."""


def own_folder(parent: Path) -> Path:
    """Return the path of a new folder of this process in `parent`; the folder is not made.

    The caller gives the path to `give_back` when it needs the folder no longer. Where no lock can
    be made, as in a read-only home, the path has no owner: no folder can be made there either.
    """
    name = secrets.token_hex(8)
    if parent.is_dir():  # else the lock would make it
        with contextlib.suppress(OSError):
            return parent / f"{_token(parent.absolute())}-{name}"
    return parent / name


def give_back(folder: Path) -> None:
    """Note that a folder of `own_folder` is gone or was never made; the last one ends the lock."""
    key = os.getpid(), folder.parent.absolute()
    with _guard:
        lock = _locks.get(key)
        if lock is None or not folder.name.startswith(f"{Path(lock.lock_file).stem}-"):
            return  # it has no owner
        _needed[key] -= 1
        if not _needed[key]:
            del _needed[key], _locks[key]
            _release(lock.lock_file, os.getpid())
            lock.release()


def left_over(parent: Path) -> list[Path]:
    """Return the folders in `parent` of processes that have ended, without changing anything."""
    return [path for path, _ in _left_over(parent) if path.is_dir()]


def is_in_use(parent: Path) -> bool:
    """Return whether a process needs a folder in `parent`; this process counts as well."""
    remove_left_over(parent)
    return any(_is_held(path) for path in parent.glob("*.lock"))


def remove_left_over(parent: Path) -> None:
    """Remove the folders and locks of processes that have ended, as far as they can be removed."""
    for path, lock in _left_over(parent):
        with contextlib.suppress(OSError, Timeout):
            if lock is None:
                shutil.rmtree(path)
                continue
            with FileLock(lock, timeout=0):  # else its owner has just begun
                if path.is_dir():
                    shutil.rmtree(path)
                lock.unlink(missing_ok=True)


def _left_over(parent: Path) -> Iterator[tuple[Path, Path | None]]:
    """Yield files and folders whose owner has ended, each with its lock if it has one."""
    try:
        found = sorted(parent.iterdir())
    except OSError:
        return
    for path in found:
        if owned := _OWNED.fullmatch(path.name):
            lock = parent / f"{owned[1]}.lock"
            if not _is_held(lock):
                yield path, lock
        elif _UNOWNED.fullmatch(path.name):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _DAY:
                    yield path, None


def _is_held(path: Path) -> bool:
    if not path.exists():
        return False
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        return True
    except OSError:  # another user's, or in a read-only home
        return True
    lock.release()
    return False


def _token(parent: Path) -> str:
    key = os.getpid(), parent
    with _guard:
        _needed[key] += 1  # first, so that no other folder's end releases the lock meanwhile
        try:
            held = _locks.get(key)
            while held is None or not Path(held.lock_file).exists():
                held = None
                lock = FileLock(
                    parent / f"{secrets.token_hex(8)}.lock",
                    mode=0o600, timeout=0, thread_local=False,
                )  # fmt: skip
                with contextlib.suppress(Timeout):  # a process that looked at it: another name
                    lock.acquire()
                    held = _locks[key] = lock
                    weakref.finalize(lock, _release, lock.lock_file, os.getpid())
        except BaseException:
            _needed[key] -= 1
            raise
    return Path(held.lock_file).stem


def _release(lock: str, owner: int) -> None:
    """Remove the lock file at the end of its process; a fork that ends leaves its parent's."""
    if os.getpid() == owner:
        with contextlib.suppress(OSError):
            Path(lock).unlink(missing_ok=True)
