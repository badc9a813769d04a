"""Write files safely: readable by their owner only, whole or not at all, under a lock."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from filelock import FileLock, Timeout

from aico_lab.errors import DiskFull, HomeNotWritable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aico_lab.errors import AicoLabError

RAM = Path("/dev/shm")  # noqa: S108 - private folders are made in it
"""Memory in the form of a file system, on Linux."""

FULL_RAM = (
    "is full: it is memory of a fixed size. Enlarge it: a container by `--shm-size=1g`, a machine "
    "by `mount -o remount,size=1g /dev/shm`"
)
"""The end of a sentence about `RAM`."""

_umask_lock = threading.Lock()
_umask_users = 0
_umask_before = 0


@contextlib.contextmanager
def private_files() -> Iterator[None]:
    """Restrict files created in the block, also by libraries, to their owner.

    The umask applies to the whole process, so files that other threads create meanwhile are
    private too.
    """
    global _umask_users, _umask_before  # noqa: PLW0603 - as the umask itself
    with _umask_lock:
        _umask_users += 1
        if _umask_users == 1:
            _umask_before = os.umask(0o077)
    try:
        yield
    finally:
        with _umask_lock:
            _umask_users -= 1
            if _umask_users == 0:
                os.umask(_umask_before)


def make_private(folder: Path) -> None:
    """Restrict the files of a folder to their owner."""
    for file in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # removed meanwhile
            if file.stat().st_mode & 0o777 != 0o600:  # noqa: PLR2004
                file.chmod(0o600)


def remove_whole(path: Path) -> None:
    """Remove a file, or a folder with its contents; do nothing if the path does not exist."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        with contextlib.suppress(NotADirectoryError):  # a parent of the path is a file
            path.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, atomically and durably."""
    with open_atomically(path) as file:
        file.write(content)


@contextlib.contextmanager
def open_atomically(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that replaces `path`, durably, if the block ends without an error."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power failure, if the platform supports it."""
    with contextlib.suppress(OSError):  # Windows cannot open folders
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def held(lock: Path, seconds: float, busy: Callable[[str], AicoLabError]) -> Iterator[None]:
    """Hold a lock between processes; a file beside it describes the holder.

    Args:
        lock: The lock file, with a suffix; the holder's file has the same name without it.
        seconds: How long to wait for the lock.
        busy: Returns the error to raise after that time, given a description of the holder.
    """
    waiting, holder = FileLock(lock, mode=0o600, timeout=seconds), lock.with_suffix("")
    with os_errors(lock.parent):
        for file in (lock, holder):
            if file.is_dir():  # created by another program
                remove_whole(file)
        try:
            waiting.acquire()
        except Timeout as timeout:
            who = ""
            with contextlib.suppress(FileNotFoundError):  # the holder has just finished
                who = holder.read_text(encoding="ascii", errors="replace")
            raise busy(who or "another program") from timeout
    try:
        with os_errors(lock.parent):
            now = datetime.now(UTC)
            holder.touch(mode=0o600)
            holder.write_text(
                f"process {os.getpid()} since {now:%Y-%m-%d %H:%M:%S} UTC", encoding="ascii"
            )
        yield
    finally:
        holder.unlink(missing_ok=True)
        waiting.release()


@contextlib.contextmanager
def os_errors(
    path: Path, remedy: str = "check its permissions or name another folder with --home"
) -> Iterator[None]:
    """Convert an OSError in the block, about `path` or a file below, to this package's errors.

    Args:
        path: The file or folder.
        remedy: What a person can do if the file cannot be used.

    Raises:
        DiskFull: The disk is full.
        HomeNotWritable: The file cannot be used for another reason.
    """
    try:
        yield
    except OSError as refused:
        if refused.errno in (errno.ENOSPC, errno.EDQUOT):
            if path.is_relative_to(RAM):
                raise DiskFull(f"{RAM} {FULL_RAM}.") from refused
            raise DiskFull(f"The disk that holds {path} is full: free some space.") from refused
        if refused.errno == errno.EROFS:
            remedy = "make its file system writable"
        raise HomeNotWritable(
            f"{refused.filename or path} cannot be used ({refused.strerror}): {remedy}."
        ) from refused
