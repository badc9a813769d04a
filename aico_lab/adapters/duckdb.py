"""DuckDB, encrypted in its files and in what it spills, and never reaching for the network.

Every connection is an in-memory instance to which one database file is attached as `lab`, so that
views and macros stored in the file find their tables under the same name in writers and readers.
"""

from __future__ import annotations

import contextlib
import importlib.util
from typing import TYPE_CHECKING

import duckdb

from aico_lab.errors import (
    AicoLabError,
    CorruptDatabase,
    DatabaseLocked,
    DiskFull,
    InvalidStatement,
    InvalidValue,
    NotADatabase,
    NotPermitted,
    StorageError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ALIAS = "lab"

_DAMAGED = "is damaged: delete it and run `aico-lab sync --full`"

_MESSAGES: tuple[tuple[str, type[AicoLabError], str], ...] = (
    ("wrong encryption key", NotADatabase, "is no database that this key opens"),
    ("without a key", NotADatabase, "is encrypted and no key was given"),
    ("not a valid duckdb", NotADatabase, "is no DuckDB database"),
    ("not encrypted", NotADatabase, "is not encrypted, and this home's databases are"),
    ("conflicting lock", DatabaseLocked, "is in use by another program: try again later"),
    ("no space left", DiskFull, "lies on a full disk: free some space"),
    ("max_temp_directory_size", DiskFull, "needs more temporary space than the disk has"),
    ("permission denied", NotPermitted, "may not be opened: check its permissions"),
    ("read-only", NotPermitted, "is read-only: snapshots answer questions and take no changes"),
    ("could not read enough", CorruptDatabase, _DAMAGED),
    ("corrupt", CorruptDatabase, _DAMAGED),
    ("checksum", CorruptDatabase, _DAMAGED),
    ("decrypt", CorruptDatabase, _DAMAGED),
)


def translate(error: duckdb.Error, where: str) -> AicoLabError:
    """Give our error for one of DuckDB's.

    Args:
        error: What DuckDB raised.
        where: The database, as a person knows it.
    """
    text = str(error).strip()
    lowered = text.lower()
    for words, kind, meaning in _MESSAGES:
        if words in lowered:
            return kind(f"{where} {meaning}.")
    if isinstance(error, duckdb.ProgrammingError | duckdb.DataError | duckdb.NotSupportedError):
        said = " ".join(text.partition("\nLINE ")[0].split()).partition(": ")[2]
        stop = "" if said.endswith((".", "!", "?")) else "."
        return InvalidStatement(f"The query cannot be run: {said}{stop}")
    if isinstance(error, duckdb.InternalException | duckdb.FatalException):
        return CorruptDatabase(f"{where} is damaged: delete it and run `aico-lab sync --full`.")
    return StorageError(f"{where} refused: {text.splitlines()[0]}.")


@contextlib.contextmanager
def translated(where: str) -> Iterator[None]:
    """Turn DuckDB's errors inside the block into ours."""
    try:
        yield
    except duckdb.Error as error:
        raise translate(error, where) from error


def connect(
    path: Path,
    key: str | None,
    *,
    read_only: bool,
    temporary: Path,
    timezone: str = "UTC",
    memory_limit: str | None = None,
) -> duckdb.DuckDBPyConnection:
    """Open a DuckDB file as the database `lab` of a new in-memory instance, and use it.

    Args:
        path: The file; made where it does not exist and `read_only` is False.
        key: Base64 of 32 bytes, or None for a database that is not encrypted.
        read_only: Many readers may open a file at once, and a writer only alone.
        temporary: The folder for what does not fit into memory; it is encrypted there.
        timezone: In which days and hours of TIMESTAMPTZ values are counted.
        memory_limit: Such as '400MB'; DuckDB's own default otherwise.

    Raises:
        InvalidValue: There is no such time zone.
        NotADatabase: The file is something else, or the key is not its key.
        DatabaseLocked: Another process has it open.
    """
    with translated(path.name):
        connection = duckdb.connect(
            ":memory:",
            config={
                "autoinstall_known_extensions": "false",
                "autoload_known_extensions": "false",
                "temp_directory": str(temporary),
                "temp_file_encryption": "true",  # else what is spilled is plain text
                **({"memory_limit": memory_limit} if memory_limit else {}),
            },
        )
    try:
        _set_timezone(connection, timezone)
        options = ["READ_ONLY"] if read_only else []
        if key is not None:
            _load_openssl(connection)
            options.append(f"ENCRYPTION_KEY {_literal(key)}")
        clause = f" ({', '.join(options)})" if options else ""
        try:
            connection.execute(f"ATTACH {_literal(str(path))} AS {ALIAS}{clause}")
        except duckdb.Error as error:
            # Not chained: DuckDB's own text may quote the statement, and the key is in it.
            raise translate(error, path.name) from None
        connection.execute(f"USE {ALIAS}")
    except BaseException:
        connection.close()
        raise
    return connection


def _set_timezone(connection: duckdb.DuckDBPyConnection, timezone: str) -> None:
    try:
        connection.execute(f"SET TimeZone = {_literal(timezone)}")
    except duckdb.Error as error:
        raise InvalidValue(
            f"{timezone!r} is no time zone: give an IANA name such as Europe/Berlin."
        ) from error


def _load_openssl(connection: duckdb.DuckDBPyConnection) -> None:
    """Load the httpfs extension of the package: only with its OpenSSL can DuckDB encrypt."""
    package = importlib.util.find_spec("duckdb_extension_httpfs")
    for folder in package.submodule_search_locations or () if package else ():
        file = f"{folder}/extensions/v{duckdb.__version__}/httpfs.duckdb_extension"
        with translated("The httpfs extension"):
            connection.load_extension(file)
        return
    raise StorageError(
        "DuckDB cannot encrypt without its httpfs extension: "
        f"run `pip install duckdb-extension-httpfs=={duckdb.__version__}`."
    )


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
