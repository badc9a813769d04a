"""libSQL, with the defects of its Python driver worked around.

The driver (libsql-experimental 0.0.55) changes some values silently, raises a bare `ValueError` for
every error, panics with a `BaseException` on bad text or a closed connection, and opens implicit
transactions by the first word of a statement. Here values are stored exactly or refused, errors
have classes, and transactions are explicit.

Read text that another program may have written as `CAST(column AS BLOB)` (see
`aico_lab.etl.extract`): the driver truncates text at a NUL and panics on invalid UTF-8.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import random
import re
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import libsql_experimental

from aico_lab.adapters.base import DatabaseAdapter
from aico_lab.adapters.libsql_errors import is_panic, translate
from aico_lab.adapters.libsql_seal import LAST_CHANGE, PageSeal
from aico_lab.adapters.libsql_statements import cast_wide, kind_of, parameters_of
from aico_lab.adapters.libsql_values import encode_exactly
from aico_lab.errors import (
    AicoLabError,
    ConnectionIsClosed,
    DatabaseLocked,
    HomeMissing,
    InvalidStatement,
    StorageError,
)
from aico_lab.home.files import private_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

Row = tuple[Any, ...]
Result = TypeVar("Result")

NOW = "strftime('%Y-%m-%dT%H:%M:%f', 'now') || '000Z'"
"""SQL for the current time in the format of every timestamp of the database."""

FROM_NOW = NOW.replace("'now'", "'now', ?")
"""SQL for such a time, as far from now as its parameter says, such as '2.5 seconds'."""

BUSY_TIMEOUT = 30.0  # seconds
# SQLite's own busy handler holds the interpreter lock, so it is off: see Connection._patiently.
# Measured with 16 writing threads: 690 transactions a second without it, 4 with only 5 ms of it.
SQLITE_BUSY_MS = 0
# For a table with triggers, SQLite journals every page that a *statement* touches, to be able to
# undo that statement alone: with one row per statement, this takes twice as long as the insertion.
ROWS_A_STATEMENT = 100
CACHE_KIB = 16_384
CHECKPOINT_PAGES = 4_000  # the write-ahead log grows to about 16 MB
FRAME = 4_120  # bytes of a page in the log
# Bulk insertion touches pages all over the indexes repeatedly. Measured with a million messages in
# an encrypted file: a tenth less processor time, for 48 MB of memory.
BULK_CACHE_KIB = 65_536
BULK_CHECKPOINT_PAGES = 16_000
CLOSING = 0.5  # seconds that a connection waits for a writer, to seal what was written
_COMMIT = re.compile(r"\s*(COMMIT|END)\b", re.IGNORECASE)
PAUSE = 0.015  # maximum seconds between two tries


class Connection:
    """One connection; not to be used by several threads at the same time.

    Outside `transaction()`, every statement commits by itself.

    Attributes:
        seal: The seal of the file, which this connection renews before pages reach the file.
    """

    def __init__(
        self,
        path: Path,
        key: str | bytes | None,
        *,
        busy_timeout: float,
        uri: str | None = None,
        seal: PageSeal | None = None,
    ) -> None:
        self.path = path
        self.seal = seal
        self._checkpoint_bytes = CHECKPOINT_PAGES * FRAME
        self._log_bytes = 0  # size of the log when it was sealed last
        self.busy_timeout = busy_timeout  # seconds; another thread may shorten it during a wait
        self._key = key
        self._depth = 0
        self._reading = False  # inside a snapshot
        self._forked = False
        self._raw: Any = None
        encryption = {"encryption_key": key} if isinstance(key, str) else {}
        self._raw = self._call(
            libsql_experimental.connect, uri or str(path), isolation_level=None, **encryption
        )
        _opened.add(self)
        try:
            if isinstance(key, bytes):  # the driver's own argument takes text only
                self.fetch_all(f"PRAGMA hexkey = '{key.hex()}'")
            self.execute(f"PRAGMA busy_timeout = {SQLITE_BUSY_MS}")
            self.execute("PRAGMA foreign_keys = ON")
            # Otherwise INSERT OR REPLACE removes rows without firing the change feed's triggers.
            self.execute("PRAGMA recursive_triggers = ON")
            # SQLite's own temporary files are not encrypted: keep them in memory.
            self.execute("PRAGMA temp_store = MEMORY")
            self._hold(CACHE_KIB, CHECKPOINT_PAGES)
        except BaseException:
            self.close()
            raise

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> None:
        """Run one statement."""
        self._patiently(lambda: self._start(sql, parameters))
        self._note_statement(sql)

    def fetch_all(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """Run one query and return all its rows."""

        def run() -> list[Row]:
            rows: list[Row] | None = self._call(self._start(sql, parameters).fetchall)
            return rows or []  # None for a statement that is not a query

        rows = self._patiently(run)
        self._note_statement(sql)
        return rows

    def fetch_dicts(self, sql: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """Run one query and return its rows as dictionaries by column name."""

        def run() -> list[dict[str, Any]]:
            cursor = self._start(sql, parameters)
            names = [column[0] for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in self._call(cursor.fetchall) or ()]

        rows = self._patiently(run)
        self._note_statement(sql)
        return rows

    def fetch_one(self, sql: str, parameters: Sequence[Any] = ()) -> Row | None:
        """Run one query and return its first row, or None."""
        rows = self.fetch_all(sql, parameters)
        return rows[0] if rows else None

    def fetch_batches(
        self, sql: str, parameters: Sequence[Any] = (), *, size: int
    ) -> Iterator[list[Row]]:
        """Run one query and yield its rows in lists of at most `size`."""
        cursor = self._start(sql, parameters)
        while True:
            rows: list[Row] = self._call(cursor.fetchmany, size)
            if not rows:
                return
            yield rows

    def execute_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run one statement for each row, in order, in one transaction."""
        with self.transaction() if self._depth == 0 else contextlib.nullcontext():
            raw = self._ready(sql)
            needed = parameters_of(sql)
            encoded = (encode_exactly(row, needed, self.path.name) for row in rows)
            for wide, group in itertools.groupby(encoded, key=lambda item: item[1]):
                batch = [values for values, _ in group]
                self._call(raw.executemany, cast_wide(sql, wide), batch)

    def insert_many(
        self,
        table: str,
        columns: Sequence[str],
        rows: Iterable[Sequence[Any]],
        *,
        on_conflict: str = "",
    ) -> None:
        """Insert rows, in order, in one transaction, faster than `execute_many`.

        Args:
            table: The table.
            columns: The columns of the values in each row.
            rows: The values.
            on_conflict: An upsert clause, such as 'ON CONFLICT (user_id) DO NOTHING'.

        Raises:
            InvalidStatement: A row does not have one value for each column; nothing is inserted.
        """
        places = f"({', '.join('?' * len(columns))})"
        insert = f"INSERT INTO {table} ({', '.join(columns)}) VALUES "
        checked = list(rows)
        if any(len(row) != len(columns) for row in checked):
            raise InvalidStatement(f"Each row for {table} must have {len(columns)} values.")
        whole = len(checked) - len(checked) % ROWS_A_STATEMENT
        with self.transaction() if self._depth == 0 else contextlib.nullcontext():
            self.execute_many(
                f"{insert}{', '.join([places] * ROWS_A_STATEMENT)} {on_conflict}",
                (
                    list(itertools.chain.from_iterable(checked[at : at + ROWS_A_STATEMENT]))
                    for at in range(0, whole, ROWS_A_STATEMENT)
                ),
            )
            self.execute_many(f"{insert}{places} {on_conflict}", checked[whole:])

    @contextlib.contextmanager
    def bulk(self) -> Iterator[None]:
        """Use a larger page cache for a block that writes many rows."""
        self._hold(BULK_CACHE_KIB, BULK_CHECKPOINT_PAGES)
        try:
            yield
        finally:
            with contextlib.suppress(StorageError):  # such as a connection closed in the block
                self._hold(CACHE_KIB, CHECKPOINT_PAGES)

    def _hold(self, cache_kib: int, checkpoint_pages: int) -> None:
        # A page that leaves the cache is encrypted, and decrypted when it is read again.
        self.execute(f"PRAGMA cache_size = -{cache_kib}")
        # Fewer checkpoints speed up bulk insertion; a longer log slows down every single commit.
        self._checkpoint_bytes = checkpoint_pages * FRAME
        by_sqlite = 0 if self.seal is not None else checkpoint_pages
        self.fetch_all(f"PRAGMA wal_autocheckpoint = {by_sqlite}")

    def keep_sealed(self, seal: PageSeal) -> None:
        """Renew a seal from now on before pages reach the file."""
        self.seal = seal
        self._hold(CACHE_KIB, CHECKPOINT_PAGES)
        self._cut_log()

    def _cut_log(self) -> None:
        # A log that begins anew keeps its size otherwise, which would not tell when to seal it.
        self.fetch_all("PRAGMA journal_size_limit = 0")

    def _note_statement(self, sql: str) -> None:
        """Note what a statement outside a transaction has committed."""
        if self.seal is None or self._depth:
            return
        kind = kind_of(sql)
        if kind in ("write", "other") or (kind == "control" and _COMMIT.match(sql)):
            self._note_commit()

    def _note_commit(self) -> None:
        """Note that something was committed, and seal the pages of a long write-ahead log."""
        if self.seal is None or self._raw is None or self._raw.in_transaction:
            return
        with contextlib.suppress(StorageError):  # a file without a change feed
            last = self._call(self._raw.execute, LAST_CHANGE, ()).fetchall()
            self.seal.note(last[0][0] if last else 0)
        size = self.seal.log.size()
        if size < self._log_bytes:  # it began anew
            self._log_bytes = 0
        if size - self._log_bytes >= self._checkpoint_bytes:
            with contextlib.suppress(AicoLabError):  # the transaction is committed all the same
                self.seal.renew(self)
            self._log_bytes = size

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit the block, or roll it back when an exception leaves; nests as savepoints.

        The outermost level takes the write lock at once (`BEGIN IMMEDIATE`), so that no other
        writer can make a transaction fail after it has begun.

        Raises:
            InvalidStatement: A snapshot is open, in which nothing can be written.
        """
        if self._reading:
            raise _only_reading()
        level = self._depth
        begin, commit, undo = (
            (f"SAVEPOINT level_{level}", f"RELEASE level_{level}",
             (f"ROLLBACK TO level_{level}", f"RELEASE level_{level}"))
            if level
            else ("BEGIN IMMEDIATE", "COMMIT", ("ROLLBACK",))
        )  # fmt: skip
        self.execute(begin)
        self._depth += 1
        try:
            yield
            self.execute(commit)
        except BaseException:
            # SQLite itself rolls back on some errors (a full disk); then this fails harmlessly.
            with contextlib.suppress(StorageError):
                for statement in undo:
                    self.execute(statement)
            raise
        finally:
            self._depth = level
        if level == 0:
            self._note_commit()

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let all queries in the block read the same state, without blocking writers.

        Raises:
            InvalidStatement: A statement inside the block would write.
        """
        self.execute("BEGIN")
        try:
            # Fixes the state that is read, and waits if another program locks out even readers.
            self.fetch_all("SELECT count(*) FROM sqlite_master")
            self._depth += 1
            self._reading = True
            try:
                yield
            finally:
                self._reading = False
                self._depth -= 1
        finally:
            with contextlib.suppress(StorageError):
                self.execute("ROLLBACK")

    @property
    def is_open(self) -> bool:
        """Whether the connection has not been closed."""
        return self._raw is not None

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction or a snapshot is open, even by a plain `BEGIN`."""
        return self._depth > 0 or (self._raw is not None and self._raw.in_transaction)

    def open_beside(self, path: Path) -> Connection:
        """Open another file with the same key, such as a copy of this one."""
        return Connection(path, self._key, busy_timeout=self.busy_timeout)

    def close(self) -> None:
        """Release the file, and seal what was written; a second call does nothing."""
        try:
            if self._raw is not None and self.seal is not None:
                with contextlib.suppress(AicoLabError):  # damage is reported by the next sync
                    if self._raw.in_transaction:
                        self._call(self._raw.execute, "ROLLBACK")
                    self.seal.renew(self, patience=CLOSING)
        finally:
            raw, self._raw = self._raw, None
            if self.seal is not None:
                self.seal.log.close()
            if raw is not None:
                self._call(raw.close)

    def __del__(self) -> None:
        # SQLite itself would move the log into the file, unsealed.
        if getattr(self, "_raw", None) is not None and self.seal is not None:
            with contextlib.suppress(Exception):
                self.close()

    def leave_behind(self) -> None:
        """Abandon the file without closing it, because it is open in the parent process."""
        _left_behind.append(self._raw)  # keeps it alive: its destructor would close the file
        self._raw, self._forked = None, True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _patiently(self, run: Callable[[], Result]) -> Result:
        """Retry, with pauses, while another connection holds the lock.

        SQLite's own busy handler waits with Python's interpreter lock held, so that another thread
        of this process could never release the database's lock. Inside a transaction there is
        nothing to wait for: it already holds the lock.
        """
        start = time.monotonic()
        while True:
            try:
                return run()
            except DatabaseLocked:
                if self._depth or time.monotonic() - start >= self.busy_timeout:
                    raise
            time.sleep(random.uniform(0.001, PAUSE))  # noqa: S311 - no secret, only a pause

    def _start(self, sql: str, parameters: Sequence[Any]) -> Any:
        raw = self._ready(sql)
        values, wide = encode_exactly(parameters, parameters_of(sql), self.path.name)
        return self._call(raw.execute, cast_wide(sql, wide), values)

    def _ready(self, sql: str) -> Any:
        """Return the driver's connection, or raise if the statement may not run on it now."""
        raw = self._raw
        if raw is None and self._forked:
            raise ConnectionIsClosed(
                f"The connection to {self.path.name} was opened before this process was forked: "
                "open another one."
            )
        if raw is None:
            raise ConnectionIsClosed(f"The connection to {self.path.name} was closed before.")
        # A full disk, or RAISE(ROLLBACK), ends all levels; later statements would autocommit.
        if self._depth and not raw.in_transaction:
            raise StorageError(
                f"The database rolled back the transaction on {self.path.name}: start it again."
            )
        if self._reading and kind_of(sql) == "write":
            raise _only_reading()
        return raw

    def _call(self, driver: Callable[..., Any], *args: Any, **options: Any) -> Any:
        try:
            return driver(*args, **options)
        except ValueError as error:
            raise translate(error, self.path) from error
        except BaseException as error:
            if is_panic(error):  # a BaseException that `except Exception` would let through
                raise translate(error, self.path) from None
            raise


_opened: weakref.WeakSet[Connection] = weakref.WeakSet()
_left_behind: list[Any] = []


def _after_fork() -> None:
    """Abandon all connections in a forked process, since the locks belong to its parent."""
    for connection in list(_opened):
        if connection.is_open:
            connection.leave_behind()


if hasattr(os, "register_at_fork"):  # comparing process ids would cost a system call each time
    os.register_at_fork(after_in_child=_after_fork)


def _close_sealed() -> None:
    """Close connections that a program left open at its end, so that what they wrote is sealed."""
    for connection in list(_opened):
        if connection.is_open and connection.seal is not None:
            with contextlib.suppress(AicoLabError):
                connection.close()


atexit.register(_close_sealed)


def _only_reading() -> InvalidStatement:
    return InvalidStatement("A snapshot is read-only: write before or after it.")


class LibSQLAdapter(DatabaseAdapter[Connection]):
    """Opens connections to one libSQL file."""

    def __init__(
        self,
        database_path: Path | str,
        encryption_key: str | None = None,
        *,
        create: bool = True,
        busy_timeout: float = BUSY_TIMEOUT,
    ) -> None:
        """Make an adapter; `connect` opens the file.

        Args:
            database_path: The file.
            encryption_key: 32 characters, or None for a database that is not encrypted.
            create: Create the file if it does not exist.
            busy_timeout: Seconds that a statement waits for the lock of another connection.
        """
        self.path = Path(database_path)
        self._key = encryption_key
        self._create = create
        self.busy_timeout = busy_timeout

    def connect(self) -> Connection:
        """Open a connection.

        Raises:
            HomeMissing: The file does not exist, and `create` is False.
            NotADatabase: The file is not a database, or has another key.
            CorruptDatabase: The file is damaged.
        """
        new = not self.path.exists()
        if new and not self._create:
            raise HomeMissing(
                f"The database {self.path} does not exist: restore it from a backup or create a "
                "new home."
            )
        with private_files() if new else contextlib.nullcontext():
            return self._connect()  # the write-ahead log gets the permissions of the file

    def _connect(self) -> Connection:
        seal = PageSeal(self.path, self._key) if self._key else None
        if seal is not None and not seal.exists:
            seal = None
        connection = Connection(self.path, self._key, busy_timeout=self.busy_timeout, seal=seal)
        try:
            # Opening is lazy: only reading a page shows whether the key is right.
            connection.fetch_all("SELECT count(*) FROM sqlite_master")
            # Otherwise readers would block writers. A file that is already in this mode is not
            # written, and needs no lock; a file that another process is creating may not be yet.
            connection.fetch_all("PRAGMA journal_mode = WAL")
            if seal is not None:
                # Before a commit of this connection covers it; who syncs reports it.
                with contextlib.suppress(AicoLabError):
                    seal.settle(connection, patience=CLOSING)
                connection.keep_sealed(seal)
        except BaseException:
            connection.close()
            raise
        return connection

    def health(self, connection: Connection) -> None:
        """Raise StorageError if the connection is closed, broken, or inside a transaction."""
        if connection.in_transaction:
            raise StorageError(f"A connection to {self.path.name} was left inside a transaction.")
        connection.fetch_all("SELECT 1 FROM sqlite_master LIMIT 1")
