"""ChromaDB, sealed as one encrypted file if a key is given, without network access.

Callers provide the vectors: Chroma's own embedding function, which downloads a model, is never
used. Two processes must not write to Chroma at once (chroma #5925, #7090), so a writer holds a
lock, and readers open a private copy of the last sealed state.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from aico_lab.adapters import sealed
from aico_lab.adapters.base import DatabaseAdapter
from aico_lab.adapters.chroma_store import (
    DATABASE,
    REMEDY,
    STATE,
    ChromaConnection,
    parse_state,
    read_state,
)
from aico_lab.errors import CorruptDatabase, DatabaseLocked, NotADatabase
from aico_lab.home.files import os_errors, remove_whole, sync_folder, write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BUSY_TIMEOUT = 60.0  # seconds


class ChromaDBAdapter(DatabaseAdapter[ChromaConnection]):
    """Opens connections to one vector store.

    With a key, the folder is on disk only as the file `<folder>.age`.
    """

    def __init__(
        self,
        persist_directory: Path | str | None = None,
        encryption_key: str | None = None,
        *,
        read_only: bool = False,
        busy_timeout: float = BUSY_TIMEOUT,
    ) -> None:
        """Make an adapter; `connect` opens the store.

        Args:
            persist_directory: The folder; None for a new store in memory per connection.
            encryption_key: An age identity, or None for a folder that is not encrypted.
            read_only: Open a private copy; writes to it are discarded.
            busy_timeout: Seconds to wait for another writer.
        """
        self.path = None if persist_directory is None else Path(persist_directory)
        self._key = encryption_key
        self._read_only = read_only
        self._busy_timeout = busy_timeout

    def connect(self) -> ChromaConnection:
        """Open a connection. ChromaDB itself is imported on first use, which takes seconds.

        Raises:
            NotADatabase: The path is not a ChromaDB store, or the store has another key.
            CorruptDatabase: The store is damaged.
            DatabaseLocked: Another connection writes for longer than the timeout.
        """
        with contextlib.ExitStack() as stack:
            if self.path is None:
                return ChromaConnection("The vectors in memory", None, None, stack.pop_all())
            self._check_kind(self.path)
            if self._read_only:
                folder = self._copy(self.path, stack)
                return ChromaConnection(self.path.name, folder, None, stack.pop_all())
            stack.enter_context(self._lock(self.path))
            if self._key is None:
                folder = self.path
                with os_errors(folder):
                    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            else:
                for leftover in self.path.parent.glob(f".{self._file(self.path).name}.*"):
                    leftover.unlink(missing_ok=True)  # of a writer that was killed
                folder = self._copy(self.path, stack)
            return ChromaConnection(self.path.name, folder, self._keeper(folder), stack.pop_all())

    def health(self, connection: ChromaConnection) -> None:
        """Raise StorageError if Chroma cannot answer a small query."""
        connection.check()

    def remove(self) -> None:
        """Delete the store, whatever its state.

        Raises:
            DatabaseLocked: Another connection writes for longer than the timeout.
        """
        if self.path is None:
            return
        with self._lock(self.path), os_errors(self.path):
            for path in (self.path, self._file(self.path)):
                remove_whole(path)

    def exists(self) -> bool:
        """Return whether the folder or the sealed file exists, sound or damaged."""
        return self.path is not None and (self.path.exists() or self._file(self.path).exists())

    def size(self) -> int:
        """Return the size of the folder or the sealed file in bytes; 0 if there is none."""
        if self.path is None:
            return 0
        files = [self._file(self.path), *self.path.rglob("*")]
        return sum(path.stat().st_size for path in files if path.is_file())

    def peek_state(self) -> dict[str, Any] | None:
        """Return the last stored state without opening the store, or None if there is none.

        Raises:
            NotADatabase: The path is not a ChromaDB store, or the store has another key.
            CorruptDatabase: The store is damaged.
        """
        if self.path is None or self.version() is None:
            return None
        self._check_kind(self.path)
        if self._key is None:
            return read_state(self.path / STATE)
        return parse_state(sealed.peek(self._file(self.path), self._key) or b"")

    def version(self) -> tuple[int, int, int] | None:
        """Return a value that changes with every stored change; None if there is no store."""
        if self.path is None:
            return None
        file = self.path / STATE if self._key is None else self._file(self.path)
        try:
            found = file.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def _file(self, path: Path) -> Path:
        return path.with_name(f"{path.name}.age")

    def _check_kind(self, path: Path) -> None:
        if self._key is None and self._file(path).exists():
            raise NotADatabase(f"{path.name} is encrypted and no key was given: {REMEDY}.")
        if self._key is not None and path.exists():
            raise NotADatabase(
                f"{path.name} is not encrypted, and this home's databases are: {REMEDY}."
            )
        if self._file(path).is_dir():
            raise NotADatabase(f"{self._file(path).name} is a folder, not a file: {REMEDY}.")
        if (path / STATE).is_file() and not (path / DATABASE).is_file():
            raise CorruptDatabase(f"{path.name} has lost {DATABASE}: {REMEDY}.")
        if path.exists() and not path.is_dir():
            raise NotADatabase(f"{path.name} is not a ChromaDB folder: {REMEDY}.")

    @contextlib.contextmanager
    def _lock(self, path: Path) -> Iterator[None]:
        lock = FileLock(
            path.with_name(f"{path.name}.lock"),
            timeout=self._busy_timeout,
            thread_local=False,  # any thread may close the connection
        )
        with os_errors(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            if Path(lock.lock_file).is_dir():
                remove_whole(Path(lock.lock_file))
            try:
                lock.acquire()
            except Timeout as busy:
                raise DatabaseLocked(
                    f"{path.name} is in use by another program: try again when it is done."
                ) from busy
        try:
            yield
        finally:
            lock.release()

    def _copy(self, path: Path, stack: contextlib.ExitStack) -> Path:
        """Copy or decrypt the store into a private folder, which the stack removes on exit."""
        private = sealed.PrivateFolder()
        stack.callback(private.remove)
        folder = private.path / path.name
        if self._key is None and path.exists():
            with self._lock(path), os_errors(folder):
                shutil.copytree(path, folder)
        else:
            folder.mkdir()
            if self._key is not None and self._file(path).exists():
                sealed.unseal(self._file(path), folder, self._key)
        return folder

    def _keeper(self, folder: Path) -> Callable[[bytes], None]:
        key, file = self._key, self._file(folder if self.path is None else self.path)

        def keep(state: bytes) -> None:
            if key is None:
                _sync_files(folder)
                write_atomically(folder / STATE, state)  # last: it declares the rest complete
            else:
                (folder / STATE).write_bytes(state)
                sealed.seal(folder, file, key, first=STATE)

        return keep


def _sync_files(folder: Path) -> None:
    """Flush every file of a folder to disk, so that it survives a power cut."""
    with os_errors(folder):
        for path in folder.rglob("*"):
            if path.is_file():
                descriptor = os.open(path, os.O_RDWR)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
            else:
                sync_folder(path)
        sync_folder(folder)
