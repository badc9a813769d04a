"""libSQL, with the traps of its Python driver closed.

The driver (libsql-experimental 0.0.55) changes some values silently, raises bare `ValueError` for
everything, panics with a `BaseException` where it meets bad text or a closed connection, and opens
its implicit transactions by the first word of a statement. Here values arrive as they were given or
are refused, errors have classes, and transactions are explicit.

Text must be read as `CAST(column AS BLOB)` where a foreign program may have written it
(see `aico_lab.etl.extract`): the driver truncates text at a NUL and panics on invalid UTF-8.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import re
import shutil
from typing import TYPE_CHECKING, Any, Self

import libsql_experimental

from aico_lab.errors import (
    AicoLabError,
    ConnectionIsClosed,
    ConstraintViolated,
    CorruptDatabase,
    DatabaseLocked,
    DiskFull,
    HomeMissing,
    InvalidStatement,
    NotADatabase,
    NotPermitted,
    StorageError,
    UnstorableValue,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

Value = int | float | str | bytes | None
Row = tuple[Any, ...]

BUSY_TIMEOUT_MS = 10_000
ROOM = 1 << 20  # bytes; with less, a disk counts as full
INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1

# The driver's only word on what went wrong is its message; SQLite's wording is stable.
_MESSAGES: tuple[tuple[str, type[AicoLabError], str], ...] = (
    ("file is not a database", NotADatabase, "is no database, or not one that this key opens"),
    ("malformed", CorruptDatabase, "is damaged: restore it from a backup"),
    ("file is encrypted", NotADatabase, "is no database, or not one that this key opens"),
    ("is locked", DatabaseLocked, "is in use by another program: try again when it is done"),
    ("database is busy", DatabaseLocked, "is in use by another program: try again when it is done"),
    ("constraint failed", ConstraintViolated, "refused a row"),
    ("full", DiskFull, "lies on a full disk: free some space"),
    ("disk i/o error", CorruptDatabase, "cannot be read or written: check the disk"),
    ("readonly database", NotPermitted, "may not be written: check its permissions"),
    ("unable to open", NotPermitted, "cannot be opened: check its permissions and its folder's"),
    ("unable to resolve", InvalidStatement, "was given a statement that it cannot run"),
    ("syntax error", InvalidStatement, "was given a statement that it cannot run"),
    ("no such", InvalidStatement, "was given a statement that it cannot run"),
    ("already exists", InvalidStatement, "was given a statement that it cannot run"),
    ("incomplete input", InvalidStatement, "was given a statement that it cannot run"),
    ("unrecognized token", InvalidStatement, "was given a statement that it cannot run"),
    ("values were supplied", InvalidStatement, "was given a statement that it cannot run"),
    ("values for", InvalidStatement, "was given a statement that it cannot run"),
    ("has no column", InvalidStatement, "was given a statement that it cannot run"),
    ("parameter", InvalidStatement, "was given a statement with other parameters than it needs"),
)


def translate(error: BaseException, path: Path) -> AicoLabError:
    """Give our error for one of the driver's, by its message.

    Args:
        error: What the driver raised, panics included.
        path: The database's file.
    """
    text, where = str(error), path.name
    lowered = text.lower()
    if "disk i/o error" in lowered and _is_full(path.parent):
        lowered = "full"  # what SQLite says where there is no room even for its shared memory
    for words, kind, meaning in _MESSAGES:
        if words in lowered:
            detail = "" if kind in (NotADatabase, DatabaseLocked, DiskFull) else f" ({text})"
            return kind(f"{where} {meaning}{detail}.")
    if _is_panic(error):
        return CorruptDatabase(f"{where} holds something that its driver cannot read.")
    return StorageError(f"{where} refused: {text}.")


def _is_full(folder: Path) -> bool:
    try:
        return shutil.disk_usage(folder).free < ROOM
    except OSError:
        return False


def _is_panic(error: BaseException) -> bool:
    return type(error).__name__ == "PanicException"


class Connection:
    """One connection; not to be shared between threads at the same time.

    Every statement commits by itself, except inside `transaction()`.
    """

    def __init__(self, path: Path, key: str | None, *, busy_timeout_ms: int) -> None:
        self.path = path
        self._depth = 0
        self._raw: Any = None
        with self._translated():
            self._raw = (
                libsql_experimental.connect(str(path), encryption_key=key, isolation_level=None)
                if key is not None
                else libsql_experimental.connect(str(path), isolation_level=None)
            )
        try:
            # First of all: without it, a writer elsewhere makes even these pragmas fail.
            self.execute(f"PRAGMA busy_timeout = {busy_timeout_ms:d}")
            self.execute("PRAGMA foreign_keys = ON")
            # Else rows that INSERT OR REPLACE removes never reach the change feed's triggers.
            self.execute("PRAGMA recursive_triggers = ON")
            # SQLite's own temporary files are not encrypted: keep them in memory.
            self.execute("PRAGMA temp_store = MEMORY")
        except BaseException:
            self.close()
            raise

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> None:
        """Run one statement."""
        self._cursor(sql, parameters)

    def fetch_all(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """Run one query and give all its rows."""
        cursor = self._cursor(sql, parameters)
        with self._translated():
            rows: list[Row] = cursor.fetchall()
        return rows

    def fetch_one(self, sql: str, parameters: Sequence[Any] = ()) -> Row | None:
        """Run one query and give its first row, or None."""
        rows = self.fetch_all(sql, parameters)
        return rows[0] if rows else None

    def fetch_batches(
        self, sql: str, parameters: Sequence[Any] = (), *, size: int
    ) -> Iterator[list[Row]]:
        """Run one query and give its rows in lists of at most `size`."""
        cursor = self._cursor(sql, parameters)
        while True:
            with self._translated():
                rows: list[Row] = cursor.fetchmany(size)
            if not rows:
                return
            yield rows

    def execute_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run one statement for each row, in order; all in the transaction that is open."""
        raw = self._open_driver()
        needed = _parameters(sql)
        encoded = (_encode_exactly(row, needed, self.path.name) for row in rows)
        for wide, group in itertools.groupby(encoded, key=lambda item: item[1]):
            batch = [values for values, _ in group]
            with self._translated():
                raw.executemany(_cast_wide(sql, wide), batch)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what happens inside, or undo it when an exception leaves; nests as savepoints.

        The outermost level takes the write lock at once (`BEGIN IMMEDIATE`), so that a transaction
        which has begun can not fail for another writer.
        """
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
            # SQLite itself rolls back on some errors (a full disk); there is nothing left to undo.
            with contextlib.suppress(StorageError):
                for statement in undo:
                    self.execute(statement)
            raise
        finally:
            self._depth = level

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let every query inside see the same state of the database, without blocking writers."""
        self.execute("BEGIN")
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            with contextlib.suppress(StorageError):
                self.execute("ROLLBACK")

    def close(self) -> None:
        """Release the file; a second call does nothing."""
        raw, self._raw = self._raw, None
        if raw is not None:
            with self._translated():
                raw.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _cursor(self, sql: str, parameters: Sequence[Any]) -> Any:
        raw = self._open_driver()
        values, wide = _encode_exactly(parameters, _parameters(sql), self.path.name)
        with self._translated():
            return raw.execute(_cast_wide(sql, wide), values)

    def _open_driver(self) -> Any:
        if self._raw is None:
            raise ConnectionIsClosed(f"The connection to {self.path.name} was closed before.")
        return self._raw

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            raise translate(error, self.path) from error
        except BaseException as error:
            if _is_panic(error):  # a BaseException that `except Exception` would let through
                raise translate(error, self.path) from None
            raise


def connect(
    path: Path,
    key: str | None,
    *,
    create: bool = False,
    busy_timeout_ms: int = BUSY_TIMEOUT_MS,
) -> Connection:
    """Open a libSQL database.

    Args:
        path: The file.
        key: 32 characters, or None for a database that is not encrypted.
        create: Make the file where there is none.
        busy_timeout_ms: How long a statement waits for another connection, in milliseconds.

    Raises:
        HomeMissing: There is no such file, and it was not to be made.
        NotADatabase: The file is something else, or the key is not its key.
        CorruptDatabase: The file is damaged.
    """
    if not create and not path.exists():
        raise HomeMissing(
            f"The database {path} does not exist: restore it from a backup or create a new home."
        )
    connection = Connection(path, key, busy_timeout_ms=busy_timeout_ms)
    try:
        connection.fetch_all("SELECT count(*) FROM sqlite_master")  # opening is lazy: read a page
        if create:
            path.chmod(0o600)  # the write-ahead log beside it takes the same mode
            connection.execute("PRAGMA journal_mode = WAL")
    except BaseException:
        connection.close()
        raise
    return connection


# --- values


def encode(row: Sequence[Any]) -> tuple[tuple[Any, ...], tuple[int, ...]]:
    """Make values ready for the driver.

    Returns:
        The values, and the positions of integers beyond 32 bits, which the driver would bind as
        floating point: they become text and the statement casts them back, exactly.

    Raises:
        UnstorableValue: The driver would change or lose a value.
    """
    values = tuple(
        value if value is None else _ENCODERS.get(type(value), _encode_other)(value)
        for value in row
    )
    wide = tuple(position for position, value in enumerate(values) if type(value) is _WideInteger)
    if wide:
        values = tuple(str(v.value) if type(v) is _WideInteger else v for v in values)
    return values, wide


def _encode_exactly(
    row: Sequence[Any], needed: int, where: str
) -> tuple[tuple[Any, ...], tuple[int, ...]]:
    """Encode as many values as the statement has parameters: the driver takes any number."""
    if len(row) != needed:
        raise InvalidStatement(
            f"{where} was given {len(row)} values for a statement with {needed} parameters."
        )
    return encode(row)


class _WideInteger:
    __slots__ = ("value",)

    def __init__(self, value: int) -> None:
        self.value = value


def _encode_int(value: int) -> int | _WideInteger:
    if INT32_MIN <= value <= INT32_MAX:
        return value
    if INT64_MIN <= value <= INT64_MAX:
        return _WideInteger(value)
    raise UnstorableValue("An integer beyond 64 bits cannot be stored: store it as text.")


def _encode_float(value: float) -> float:
    if math.isnan(value):
        raise UnstorableValue("NaN cannot be stored: the database would make it NULL; use None.")
    return value


def _encode_str(value: str) -> str:
    if "\0" in value:
        raise UnstorableValue("Text with a NUL character cannot be stored: remove it.")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as lone:
            raise UnstorableValue(
                "Text with half of a surrogate pair cannot be stored: it is not valid Unicode."
            ) from lone
    return value


def _encode_other(value: Any) -> Any:
    """Take an enumeration's member, or another subclass, for what it is at heart."""
    for kind in (int, float, str):
        if isinstance(value, kind):
            return _ENCODERS[kind](kind(value))
    raise UnstorableValue(
        f"A {type(value).__name__} cannot be stored: give int, float, str, bytes or None."
    )


_ENCODERS: dict[type, Callable[[Any], Any]] = {
    int: _encode_int,
    bool: int,
    float: _encode_float,
    str: _encode_str,
    bytes: bytes,
    bytearray: bytes,
    memoryview: bytes,
}

_TOKEN = re.compile(
    r"""'(?:[^']|'')*' | "(?:[^"]|"")*" | `[^`]*` | \[[^\]]*\] | --[^\n]* | /\*.*?\*/ | \?\d*""",
    re.VERBOSE | re.DOTALL,
)


def _cast_wide(sql: str, positions: tuple[int, ...]) -> str:
    """Wrap the placeholders at these positions in CAST(? AS INTEGER)."""
    if not positions:
        return sql
    parts, copied = [], 0
    for start, end, position in _placeholders(sql):
        if position in positions:
            parts += [sql[copied:start], f"CAST({sql[start:end]} AS INTEGER)"]
            copied = end
    return "".join([*parts, sql[copied:]])


def _parameters(sql: str) -> int:
    """Say how many values a statement needs."""
    return max((position + 1 for _, _, position in _placeholders(sql)), default=0)


@functools.lru_cache(maxsize=512)
def _placeholders(sql: str) -> tuple[tuple[int, int, int], ...]:
    """Find `?` and `?7` outside of strings, names and comments: start, end, and which value."""
    found: list[tuple[int, int, int]] = []
    largest = 0
    for match in _TOKEN.finditer(sql):
        text = match.group()
        if text.startswith("?"):
            number = int(text[1:]) if len(text) > 1 else largest + 1
            largest = max(largest, number)
            found.append((match.start(), match.end(), number - 1))
    return tuple(found)
