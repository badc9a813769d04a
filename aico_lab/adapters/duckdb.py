"""DuckDB with encrypted database and temporary files, and without network access.

Every connection is an in-memory instance with one database file attached as `lab`, so that views
and macros stored in the file find their tables under the same name in writers and readers.
"""

from __future__ import annotations

import contextlib
import importlib.util
import re
import weakref
from typing import TYPE_CHECKING

import duckdb

from aico_lab.adapters.base import DatabaseAdapter, by_words
from aico_lab.adapters.duckdb_confined import CONFINED, OPENLY, confine, private_link
from aico_lab.adapters.temporary_folders import give_back, own_folder
from aico_lab.errors import (
    AicoLabError,
    ConnectionIsClosed,
    CorruptDatabase,
    DatabaseLocked,
    DiskFull,
    InvalidStatement,
    InvalidValue,
    NotADatabase,
    NotPermitted,
    StorageError,
)
from aico_lab.home.files import private_files

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import pyarrow as pa

    from aico_lab.adapters.base import Meanings

ALIAS = "lab"

# The DuckDB files are derived from the primary database, so they can always be rebuilt.
_REMEDY = "run `aico-lab sync --full`"
_DAMAGED = f"is damaged: {_REMEDY}"

_MESSAGES: Meanings = (
    ("wrong encryption key", NotADatabase, f"is damaged, or has another key: {_REMEDY}"),
    ("without a key", NotADatabase, f"is encrypted and no key was given: {_REMEDY}"),
    ("not a valid duckdb", NotADatabase, f"is not a DuckDB database: {_REMEDY}"),
    (
        "not encrypted",
        NotADatabase,
        f"is not encrypted, and this home's databases are: {_REMEDY}",
    ),
    ("already been closed", ConnectionIsClosed, "was closed before: open it again"),
    ("already closed", ConnectionIsClosed, "was closed before: open it again"),
    ("conflicting lock", DatabaseLocked, "is in use by another program: try again later"),
    ("no space left", DiskFull, "lies on a full disk: free some space"),
    ("max_temp_directory_size", DiskFull, "needs more temporary space than the disk has"),
    ("permission denied", NotPermitted, "may not be opened: check its permissions"),
    ("read-only", NotPermitted, "is read-only: snapshots can be queried, but not changed"),
    (
        "configuration has been locked",
        NotPermitted,
        "has settings that queries cannot change: " + OPENLY,
    ),
    ("out of memory", StorageError, "needs more memory than it may use: ask for less data"),
    ("could not read enough", CorruptDatabase, _DAMAGED),
    ("corrupt", CorruptDatabase, _DAMAGED),
    ("checksum", CorruptDatabase, _DAMAGED),
    ("decrypt", CorruptDatabase, _DAMAGED),
    ("aes tag", CorruptDatabase, _DAMAGED),
    ("replaying wal", CorruptDatabase, _DAMAGED),
    ("wal file", CorruptDatabase, _DAMAGED),
)
_ABOUT_THE_QUERY = (
    duckdb.ParserException,
    duckdb.SyntaxException,
    duckdb.BinderException,
    duckdb.CatalogException,
    duckdb.DataError,
    duckdb.NotSupportedError,
)
# From the first quotation mark to the last one, except apostrophes: a value may contain any of
# them. If a format does not match, the message repeats the value in later lines.
_QUOTED = re.compile(
    r"""(?<!\w)(?:(?<=parse\ string\ )".*|(["'])(?:.*\1(?!\w)|.*))""", re.DOTALL | re.VERBOSE
)


def translate(error: duckdb.Error, where: str) -> AicoLabError:
    """Return this package's error for an error of DuckDB.

    Args:
        error: The exception.
        where: The name of the database for people.
    """
    text = str(error).strip()
    if isinstance(error, duckdb.PermissionException):
        return NotPermitted(CONFINED)
    if isinstance(error, duckdb.DataError | duckdb.InvalidInputException):
        # The text may quote a value, such as somebody's message.
        text = _QUOTED.sub("…", text.partition("\nLINE ")[0])
    # Errors about the query quote it, and its names may contain the words of `_MESSAGES`.
    of_the_file = None if isinstance(error, _ABOUT_THE_QUERY) else by_words(text, where, _MESSAGES)
    if of_the_file:
        return of_the_file
    if isinstance(error, duckdb.ProgrammingError | duckdb.DataError | duckdb.NotSupportedError):
        if "Unexpected prepared parameter" in text:
            return InvalidStatement("The query has a parameter without a value: give it one.")
        said = " ".join(text.partition("\nLINE ")[0].split()).partition(": ")[2]
        stop = "" if said.endswith((".", "!", "?")) else "."
        return InvalidStatement(f"The query cannot be run: {said}{stop}")
    if isinstance(error, duckdb.InternalException | duckdb.FatalException):
        return CorruptDatabase(f"{where} {_DAMAGED}.")
    return StorageError(f"{where} refused: {text.splitlines()[0]}.")


def is_damage(error: StorageError) -> bool:
    """Return whether a DuckDB error is due to its file, not to locks, disk, memory or rights."""
    causes: list[BaseException] = [error]
    while cause := causes[-1].__cause__ or causes[-1].__context__:
        causes.append(cause)
    return (
        any(isinstance(cause, duckdb.Error) for cause in causes)
        and not any(isinstance(cause, duckdb.OutOfMemoryException) for cause in causes)
        and not isinstance(error, DatabaseLocked | DiskFull | NotPermitted)
    )


@contextlib.contextmanager
def translated(where: str) -> Iterator[None]:
    """Convert DuckDB's errors inside the block to this package's errors.

    Files that DuckDB writes in the block, such as spilled data, are private to their owner.
    """
    try:
        with private_files():
            yield
    except duckdb.Error as error:
        raise translate(error, where) from error


class DuckDBAdapter(DatabaseAdapter[duckdb.DuckDBPyConnection]):
    """Opens connections to one DuckDB file, attached as `lab` to an instance per connection."""

    def __init__(
        self,
        path: Path,
        key: str | None = None,
        *,
        read_only: bool,
        temporary: Path,
        timezone: str = "UTC",
        memory_limit: str | None = None,
        confined: bool = False,
        where: str | None = None,
    ) -> None:
        """Make an adapter; `connect` opens the file.

        Args:
            path: The file; created if it does not exist and `read_only` is False.
            key: Base64 of 32 bytes, or None for a database that is not encrypted.
            read_only: Open for reading; a file has either many readers or one writer.
            temporary: The folder for DuckDB's temporary files, which are encrypted with a key.
            timezone: The time zone of the days and hours of TIMESTAMPTZ values.
            memory_limit: The most memory to use, such as '400MB'; None for DuckDB's default.
            confined: Deny queries other files, the network and settings; see `duckdb_confined`.
            where: The name of the file for people; None for the file's own name.
        """
        self.path = path
        self._key = key
        self._read_only = read_only
        self._temporary = temporary
        self._timezone = timezone
        self._memory_limit = memory_limit
        self._confined = confined
        self._where = where or path.name

    def connect(self) -> duckdb.DuckDBPyConnection:
        """Open the file as the database `lab` of a new in-memory instance, and use it.

        Raises:
            InvalidValue: There is no such time zone.
            NotADatabase: The file is not a DuckDB database, or has another key.
            DatabaseLocked: Another process has the file open.
        """
        limit = {"memory_limit": self._memory_limit} if self._memory_limit else {}
        spilled = own_folder(self._temporary)
        with translated(self._where):
            connection = duckdb.connect(
                ":memory:",
                config={
                    "autoinstall_known_extensions": "false",
                    "autoload_known_extensions": "false",
                    # The only extension is installed as a package, like this code. Checking its
                    # signature takes longer than the rest of opening a database: 45 ms.
                    "allow_unsigned_extensions": "true",
                    # One per instance: instances that share a folder overwrite each other's files.
                    # DuckDB makes it when it spills data, and removes it.
                    "temp_directory": str(spilled),
                    # By default, spilled data is plain text; without a key it cannot be encrypted.
                    "temp_file_encryption": "false" if self._key is None else "true",
                    # They would be in the person's home folder, for every DuckDB to use.
                    "allow_persistent_secrets": "false",
                    **limit,
                },
            )
        weakref.finalize(connection, give_back, spilled)
        try:
            # DuckDB's progress bar would mix with results on stdout. In Jupyter without
            # ipywidgets there is none, and turning it off fails.
            with contextlib.suppress(duckdb.InvalidInputException):
                connection.execute("SET enable_progress_bar = false")
            _set_timezone(connection, self._timezone)
            if self._confined:
                with private_link(self.path, self._temporary) as link:
                    self._attach(connection, link)
                confine(connection, self._temporary)
            else:
                self._attach(connection, self.path)
        except BaseException:
            connection.close()
            raise
        return connection

    def health(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Raise StorageError if the tables of the file cannot be listed."""
        with translated(self._where):
            connection.execute(
                f"SELECT count(*) FROM duckdb_tables() WHERE database_name = '{ALIAS}'"
            )

    def _attach(self, connection: duckdb.DuckDBPyConnection, path: Path) -> None:
        options = ["READ_ONLY"] if self._read_only else []
        if self._key is not None:
            _load_openssl(connection)
            options.append(f"ENCRYPTION_KEY {_literal(self._key)}")
        _attach_file(connection, path, ALIAS, options, self._where)
        connection.execute(f"USE {ALIAS}")


def copy_with_key(source: DuckDBAdapter, target: Path, key: str) -> None:
    """Copy a database into a new file that is encrypted with another key.

    The write-ahead log of the database becomes part of its file first.

    Args:
        source: The database, which nothing else has open.
        target: The new file.
        key: The key of the new file, as base64.

    Raises:
        StorageError: The database cannot be read, or the file cannot be written.
    """
    with translated(source.path.name):
        connection = source.connect()
        try:
            connection.execute("SET preserve_insertion_order = true")
            connection.execute(f"FORCE CHECKPOINT {ALIAS}")
            _attach_file(
                connection, target, "renewed", [f"ENCRYPTION_KEY {_literal(key)}"], target.name
            )
            connection.execute(f"COPY FROM DATABASE {ALIAS} TO renewed")
            connection.execute("CHECKPOINT renewed")
            connection.execute("DETACH renewed")
        finally:
            connection.close()
    target.chmod(0o600)


def _attach_file(
    connection: duckdb.DuckDBPyConnection,
    path: Path,
    alias: str,
    options: Sequence[str],
    where: str,
) -> None:
    clause = f" ({', '.join(options)})" if options else ""
    try:
        connection.execute(f"ATTACH {_literal(str(path))} AS {alias}{clause}")
    except duckdb.Error as error:
        # Not chained: DuckDB's message may quote the statement, which contains the key.
        raise by_words(str(error), where, _MESSAGES) or translate(error, where) from None


def is_plain_name(name: str) -> bool:
    """Return whether a query can use the name as a schema without quoting it."""
    with duckdb.connect(":memory:") as connection:
        try:
            return len(connection.extract_statements(f"SELECT * FROM {name}.t")) == 1
        except duckdb.ParserException:
            return False


def execute_with(
    connection: duckdb.DuckDBPyConnection,
    statement: str,
    values: Sequence[object] = (),
    *,
    rows: pa.Table | pa.RecordBatchReader | None,  # noqa: ARG001 - DuckDB finds it by its name
) -> duckdb.DuckDBPyConnection:
    """Execute a statement in which the Arrow table `rows` can be queried by that name.

    DuckDB looks names up among the local variables of its caller. A view that is registered instead
    keeps its rows in memory until the transaction ends, even after it was unregistered.

    Args:
        connection: Where to execute the statement.
        statement: DuckDB's SQL.
        values: The values of its `?`.
        rows: The Arrow table; a reader can be queried once, and None not at all.

    Returns:
        The connection, with the statement's result.
    """
    return connection.execute(statement, values)


def copy_database(connection: duckdb.DuckDBPyConnection, target: Path, key: str | None) -> None:
    """Copy the rows, views and macros of the opened database into a new file.

    Unlike the file, the copy has nothing of rows that were removed.

    Args:
        connection: A connection of `DuckDBAdapter`, outside a transaction.
        target: The new file.
        key: The key of both files.
    """
    clause = "" if key is None else f" (ENCRYPTION_KEY {_literal(key)})"
    try:
        with private_files():
            connection.execute(f"ATTACH {_literal(str(target))} AS copied{clause}")
            connection.execute(f"COPY FROM DATABASE {ALIAS} TO copied")
            connection.execute("CHECKPOINT copied")
            connection.execute("DETACH copied")
    except duckdb.Error as error:
        # Not chained: see `DuckDBAdapter`.
        raise by_words(str(error), target.name, _MESSAGES) or translate(
            error, target.name
        ) from None


def write_rows(
    rows: pa.RecordBatchReader,
    file: Path,
    *,
    timezone: str = "UTC",
) -> None:
    """Write rows as Parquet if the file ends in `.parquet`, else as CSV.

    Args:
        rows: The rows; they are read once, a batch at a time.
        file: The file to write or replace.
        timezone: The time zone of TIMESTAMPTZ values in CSV.
    """
    kind = "(FORMAT parquet)" if file.suffix == ".parquet" else "(FORMAT csv, HEADER)"
    # A separate instance, because that of the rows may not write files; this one never spills.
    with translated(file.name), duckdb.connect(":memory:", config={"temp_directory": ""}) as own:
        _set_timezone(own, timezone)
        execute_with(own, f"COPY (FROM rows) TO {_literal(str(file))} {kind}", rows=rows)


def _set_timezone(connection: duckdb.DuckDBPyConnection, timezone: str) -> None:
    try:
        connection.execute(f"SET TimeZone = {_literal(timezone)}")
    except duckdb.Error as error:
        raise InvalidValue(
            f"{timezone!r} is not a time zone: use an IANA name such as Europe/Berlin."
        ) from error


def _load_openssl(connection: duckdb.DuckDBPyConnection) -> None:
    """Load the packaged httpfs extension, because DuckDB needs its OpenSSL to encrypt."""
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
