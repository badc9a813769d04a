"""Folders stored on disk as one encrypted file, and opened in a folder private to their owner.

ChromaDB writes plain files and has no encryption of its own. At rest its folder is one age file
(X25519 and ChaCha20-Poly1305, so a damaged or replaced file is refused). It is opened in a private
folder in RAM if the platform has a RAM disk, as Linux does. Elsewhere it is a private folder among
the temporary files, whose plain text may reach the disk; the README documents this limit.
"""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import io
import os
import secrets
import shutil
import stat
import tarfile
import tempfile
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

import pyrage
from filelock import FileLock, Timeout

from aico_lab.adapters.age import HEADER, LONGEST_HEAD, has_head
from aico_lab.errors import CorruptDatabase, InvalidValue, NotADatabase, NotPermitted
from aico_lab.home.files import RAM, open_atomically, os_errors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed import ReadableBuffer

CHUNK = 1 << 16  # bytes that age decrypts and authenticates at a time


class PrivateFolder:
    """A temporary folder of this process, removed by `remove()` or at the end of the process.

    The process holds a lock file beside the folder. Opening another folder also removes the folders
    of killed processes, whose locks are free.
    """

    def __init__(self, size: int = 0) -> None:
        """Make the folder: in RAM, unless what it is for would take half of what is free there.

        Args:
            size: The bytes of what it is for, if they are known.

        Raises:
            NotPermitted: Another user can write where it would be.
        """
        root = _private_root(size)
        remove_left_open()
        name = secrets.token_hex(8)
        # Any thread may release it, because the garbage collector may run in any.
        lock = FileLock(root / f"{name}.lock", timeout=0, thread_local=False)
        with os_errors(root):
            lock.acquire()  # before the folder exists, so that it never seems to have no owner
            self.path = root / name
            self.path.mkdir(mode=0o700)
        self._finalizer = weakref.finalize(self, _remove, self.path, lock, os.getpid())

    def remove(self) -> None:
        """Remove the folder; a second call does nothing."""
        self._finalizer()


def _remove(folder: Path, lock: FileLock, owner: int) -> None:
    if os.getpid() != owner:  # a forked process ends while its parent continues
        return
    shutil.rmtree(folder, ignore_errors=True)
    Path(lock.lock_file).unlink(missing_ok=True)
    lock.release()


def _private_root(size: int) -> Path:
    ram, temporary = _roots()
    has_room = os.access(RAM, os.W_OK) and 2 * size <= shutil.disk_usage(RAM).free
    root = ram if has_room else temporary
    with os_errors(root):
        root.mkdir(mode=0o700, exist_ok=True)
        found = root.lstat()
    if os.name == "posix" and (
        not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077
    ):
        raise NotPermitted(f"{root} is not private to you: remove it and try again.")
    return root


def _roots() -> tuple[Path, Path]:
    """Return where this user's private folders are: in RAM, and among the temporary files."""
    user = str(os.getuid()) if os.name == "posix" else getpass.getuser()
    return RAM / f"aico-lab-{user}", Path(tempfile.gettempdir()) / f"aico-lab-{user}"


def left_open() -> list[Path]:
    """Return the private folders of processes that were killed."""
    found = []
    for folder, lock in _left_open():
        lock.release()
        found.append(folder)
    return found


def remove_left_open() -> None:
    """Remove the private folders of processes that were killed."""
    for folder, lock in _left_open():
        _remove(folder, lock, os.getpid())


def _left_open() -> Iterator[tuple[Path, FileLock]]:
    """Yield private folders without an owner, each with its lock, which is held."""
    for root in dict.fromkeys(_roots()):
        try:
            folders = [one for one in root.iterdir() if one.suffix != ".lock"]
        except OSError:
            continue
        for folder in folders:
            lock = FileLock(root / f"{folder.name}.lock", timeout=0)
            try:
                lock.acquire()
            except (Timeout, OSError):
                continue
            yield folder, lock


def seal(folder: Path, target: Path, identity: str, *, first: str) -> None:
    """Write a folder as one encrypted file, atomically and durably.

    Args:
        folder: A folder inside a private folder; nothing may be writing to it.
        target: The encrypted file.
        identity: The age identity that opens the file.
        first: The name of the file in the folder that `peek` returns.

    Raises:
        DiskFull: The disk or the memory is full; the encrypted file is unchanged.
    """
    recipient = _identity(identity).to_public()
    archive = folder.with_name("archive.tar")  # beside the folder, in the private folder
    try:
        with os_errors(folder), tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
            for path in sorted(folder.iterdir(), key=lambda path: path.name != first):
                tar.add(path, arcname=path.name)
        with os_errors(target), archive.open("rb") as plain, open_atomically(target) as file:
            pyrage.encrypt_io(plain, file, [recipient])
    finally:
        archive.unlink(missing_ok=True)


def unseal(source: Path, folder: Path, identity: str) -> None:
    """Decrypt a sealed file into an empty folder inside a private one.

    Raises:
        NotADatabase: The file is not a sealed folder, or this identity does not open it.
        CorruptDatabase: The file is damaged.
    """
    archive = folder.with_name("archive.tar")
    try:
        with os_errors(source), source.open("rb") as file, os_errors(folder):
            with archive.open("xb") as plain:
                _decrypt(source, file, plain, identity)
            with tarfile.open(archive) as tar:
                # Python 3.11 has the filter from 3.11.4 on; the archive is our own in any case.
                safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
                tar.extractall(folder, **safely)  # type: ignore[arg-type]  # noqa: S202
    finally:
        archive.unlink(missing_ok=True)


def reseal(source: Path, target: Path, identity: str, new_identity: str) -> None:
    """Write a sealed file anew for another identity, and read the new file whole.

    Args:
        source: The sealed file.
        target: The new file.
        identity: The age identity that opens the file.
        new_identity: The one that opens the new file.

    Raises:
        NotADatabase: The file is not a sealed folder, or this identity does not open it.
        CorruptDatabase: The file is damaged.
        DiskFull: The disk or the memory is full.
    """
    private = PrivateFolder(source.stat().st_size)
    archive = private.path / "archive.tar"
    try:
        with os_errors(source), source.open("rb") as file, archive.open("xb") as plain:
            _decrypt(source, file, plain, identity)
        recipient = _identity(new_identity).to_public()
        with os_errors(target), archive.open("rb") as plain, open_atomically(target) as file:
            pyrage.encrypt_io(plain, file, [recipient])
        with os_errors(archive), archive.open("rb") as plain:
            content = hashlib.file_digest(plain, "sha256").digest()
        read = _Hashing()
        with os_errors(target), target.open("rb") as file:
            _decrypt(target, file, read, new_identity)
    finally:
        private.remove()
    if read.found.digest() != content:
        raise CorruptDatabase(f"{target.name} differs from {source.name}: try again.")


class _Hashing(io.BytesIO):
    """Computes the digest of what is written, and keeps nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.found = hashlib.sha256()

    def write(self, content: ReadableBuffer, /) -> int:
        self.found.update(content)
        return len(memoryview(content))


def peek(source: Path, identity: str) -> bytes | None:
    """Read the first file of a sealed folder without opening the rest.

    Returns:
        The file's content, or None if it is not within the first 64 KiB.

    Raises:
        NotADatabase: The file is not a sealed folder, or this identity does not open it.
        CorruptDatabase: The file is damaged.
    """
    beginning = _Beginning()
    with os_errors(source), source.open("rb") as file, contextlib.suppress(_Enough):
        _decrypt(source, file, beginning, identity)
    beginning.seek(0)
    try:
        with tarfile.open(fileobj=beginning) as tar:
            member = tar.next()
            content = tar.extractfile(member) if member else None
            return content.read() if content else None
    except tarfile.TarError:
        return None


class _Enough(Exception):
    """Raised after the first chunk was decrypted."""


class _Beginning(io.BytesIO):
    """Collects decrypted bytes until it has a chunk of them, then raises `_Enough`."""

    def write(self, content: ReadableBuffer, /) -> int:
        if self.tell() >= CHUNK:
            raise _Enough
        return super().write(content)


def _decrypt(source: Path, file: io.BufferedReader, into: io.IOBase, identity: str) -> None:
    opener = _identity(identity)
    begin = file.read(LONGEST_HEAD)
    file.seek(0)
    begins_as_age = begin.startswith(HEADER)
    try:
        if not has_head(begin):
            raise pyrage.DecryptError("no head of age")
        pyrage.decrypt_io(file, into, [opener])
    except (pyrage.DecryptError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # from the operating system; without errno it is the cipher's, for a later chunk
        if begins_as_age and "No matching keys" not in str(error):
            raise CorruptDatabase(
                f"{source.name} is damaged: run `aico-lab sync --only vectors --full`."
            ) from error
        raise NotADatabase(
            f"{source.name} is damaged, or has another key: run "
            "`aico-lab sync --only vectors --full`."
        ) from error


def _identity(identity: str) -> pyrage.x25519.Identity:
    try:
        return pyrage.x25519.Identity.from_str(identity)
    except pyrage.IdentityError:
        # Not chained: the driver's message may contain the key.
        raise InvalidValue("The key for ChromaDB must be an age identity (X25519).") from None
