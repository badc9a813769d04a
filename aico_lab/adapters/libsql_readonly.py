"""Open another program's SQLite or libSQL file without writing to it or beside it.

In WAL mode even a reader writes a file beside the database: the shared memory that coordinates
readers and writers. So a file that no program has open is read as immutable, and checked afterwards
for changes; a file whose writer crashed, so that its log must be applied, is read from a copy. If a
program has the file open, the existing shared memory is used.
"""

from __future__ import annotations

import re
import shutil
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Final

from aico_lab.adapters.libsql import BUSY_TIMEOUT, Connection
from aico_lab.config import SOURCE_KEY_VARIABLE
from aico_lab.errors import (
    CorruptDatabase,
    DatabaseLocked,
    NotADatabase,
    NotPermitted,
    SourceMissing,
)
from aico_lab.home.files import os_errors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LOGS: Final = ("-wal", "-journal")
_HEX: Final = re.compile(r"(?:0x|[xX]')?((?:[0-9a-fA-F]{2})+)'?")
_IMMUTABLE: Final = "?mode=ro&immutable=1"


@contextmanager
def open_readonly(path: Path, key: str | None) -> Iterator[Connection]:
    """Open a file for the block, in which all queries read the same state.

    Args:
        path: The file.
        key: The file's key; not used if the file is not encrypted.

    Raises:
        SourceMissing: There is no such file.
        NotPermitted: The file may not be read.
        NotADatabase: The file is not a SQLite database, or has another key.
        CorruptDatabase: The file is damaged or truncated.
        DatabaseLocked: A program locks the file for too long, or wrote it while it was read.
    """
    if not path.is_file():
        raise SourceMissing(f"There is no file {path}: name one that exists.")
    with open_unwritable(path, key) as connection, connection.snapshot():
        yield connection


@contextmanager
def open_unwritable(path: Path, key: str | None) -> Iterator[Connection]:
    """Open a file for the block without a snapshot; see `open_readonly`."""
    before = _state(path)
    if not _is_closed_wal(path, key):
        with _follow(path, key) as connection:
            yield connection
    elif _size(path, "-wal"):
        with _copied(path) as copy, _connect(path, key, "?mode=rw", file=copy) as connection:
            yield connection
    else:
        with _connect(path, key, _IMMUTABLE) as connection:
            yield connection
        if _state(path) != before:
            raise _changed(path)


def names_in(path: Path, key: str | None) -> tuple[set[str], bool]:
    """Return the names of all tables, views, indexes and triggers, and whether the file is marked.

    A program may mark an empty file as its own, by `PRAGMA application_id` or `user_version`. The
    write-ahead log is read only if the file itself is empty, as in a new database.

    Args:
        path: The file.
        key: The file's key; not used if the file is not encrypted.

    Raises:
        StorageError: As for `open_readonly`.
    """
    with suppress(CorruptDatabase), _connect(path, key, _IMMUTABLE) as connection:
        names, is_marked = _look(connection)  # may look damaged while another program writes
        if names or is_marked:
            return names, is_marked
    with open_readonly(path, key) as connection:
        return _look(connection)


def _look(connection: Connection) -> tuple[set[str], bool]:
    names = {name for (name,) in connection.fetch_all("SELECT name FROM sqlite_master")}
    marks = [connection.fetch_one(f"PRAGMA {mark}") for mark in ("application_id", "user_version")]
    return names, any(mark != (0,) for mark in marks)


def _is_closed_wal(path: Path, key: str | None) -> bool:
    """Return whether a file is in WAL mode and no program has it open.

    The header is read through SQLite: if this process opened and closed the file itself, the
    locks of its other connections to that file would be released.
    """
    if any(path.with_name(f"{path.name}{suffix}").exists() for suffix in ("-shm", "-journal")):
        return False
    with _connect(path, key, _IMMUTABLE) as connection:
        header = connection.fetch_one("SELECT data FROM sqlite_dbpage WHERE pgno = 1")
    return header is not None and header[0][18:19] == b"\2"


@contextmanager
def _follow(path: Path, key: str | None) -> Iterator[Connection]:
    """Open a file that a program may be writing, or a copy if a log must be applied first."""
    with ExitStack() as opened:
        try:
            connection = _connect(path, key, "?mode=ro")
        except NotPermitted:
            if not any(_size(path, log) for log in _LOGS):
                raise
            copy = opened.enter_context(_copied(path))
            connection = _connect(path, key, "?mode=rw", file=copy)
        yield opened.enter_context(connection)


def _connect(path: Path, key: str | None, how: str, *, file: Path | None = None) -> Connection:
    uri = f"{(file or path).absolute().as_uri()}{how}"
    for candidate in (None, *_forms(key)):
        with suppress(NotADatabase):
            connection = Connection(path, candidate, busy_timeout=BUSY_TIMEOUT, uri=uri)
            try:
                # Opening is lazy: only reading a page shows whether the key is right.
                connection.fetch_all("SELECT count(*) FROM sqlite_master")
            except BaseException:
                connection.close()
                raise
            return connection
    if key:
        raise NotADatabase(
            f"{path.name} is not a SQLite database, or the key in {SOURCE_KEY_VARIABLE} does not "
            "open it, neither as text nor as hexadecimal digits: correct that key, or name "
            "another file."
        )
    raise NotADatabase(
        f"{path.name} is not a SQLite database, or is encrypted: name another file, or set "
        f"{SOURCE_KEY_VARIABLE} to its key, as text or in hexadecimal digits."
    )


def _forms(key: str | None) -> Iterator[str | bytes]:
    """Yield the possible forms of a key: its text, and the bytes if it is hexadecimal digits."""
    if key:
        yield key
        if digits := _HEX.fullmatch(key.strip()):
            yield bytes.fromhex(digits[1])


@contextmanager
def _copied(path: Path) -> Iterator[Path]:
    """Copy a file and its logs for the block into a private folder, which no kill leaves behind."""
    from aico_lab.adapters.sealed import PrivateFolder  # few files are copied

    folder = PrivateFolder(path.stat().st_size + sum(_size(path, log) for log in _LOGS))
    try:
        yield _copy(path, folder.path)
    finally:
        folder.remove()


def _copy(path: Path, folder: Path) -> Path:
    before = _state(path), *(_size(path, log) for log in _LOGS)
    for suffix in ("", *_LOGS):
        if not suffix or _size(path, suffix):
            name = f"{path.name}{suffix}"
            with os_errors(folder):
                shutil.copyfile(path.with_name(name), folder / name)
    if before != (_state(path), *(_size(path, log) for log in _LOGS)):
        raise _changed(path)
    return folder / path.name


def _size(path: Path, suffix: str) -> int:
    beside = path.with_name(f"{path.name}{suffix}")
    return beside.stat().st_size if beside.exists() else 0


def _state(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _changed(path: Path) -> DatabaseLocked:
    return DatabaseLocked(
        f"{path.name} was written by another program while it was read: try again."
    )
