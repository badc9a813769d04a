"""DuckDB, encrypted in its files and in what it spills, and never reaching for the network.

Every connection is an in-memory instance to which one database file is attached as `lab`, so that
views and macros stored in the file find their tables under the same name in writers and readers.
"""

from __future__ import annotations

import contextlib
import importlib.util
import re
import secrets
from typing import TYPE_CHECKING

import duckdb

from aico_lab.adapters.base import DatabaseAdapter, by_words
from aico_lab.adapters.duckdb_confined import CONFINED, OPENLY, confine, private_link
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

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import pyarrow as pa

    from aico_lab.adapters.base import Meanings

ALIAS = "lab"

# What DuckDB holds here is made of the primary database, so it can always be made anew.
_REMEDY = "run `aico-lab sync --full`"
_DAMAGED = f"is damaged: {_REMEDY}"

_MESSAGES: Meanings = (
    ("wrong encryption key", NotADatabase, f"is damaged, or has another key: {_REMEDY}"),
    ("without a key", NotADatabase, f"is encrypted and no key was given: {_REMEDY}"),
    ("not a valid duckdb", NotADatabase, f"is no DuckDB database: {_REMEDY}"),
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
    ("read-only", NotPermitted, "is read-only: snapshots answer questions and take no changes"),
    (
        "configuration has been locked",
        NotPermitted,
        "has settings that no query changes: " + OPENLY,
    ),
    ("out of memory", StorageError, "cannot answer this in the memory it may use: ask for less"),
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
# From the first quotation mark to the last one, apostrophes apart: a value may hold any. Where a
# format does not fit, the value stands in the lines below once more.
_QUOTED = re.compile(
    r"""(?<!\w)(?:(?<=parse\ string\ )".*|(["'])(?:.*\1(?!\w)|.*))""", re.DOTALL | re.VERBOSE
)


def translate(error: duckdb.Error, where: str) -> AicoLabError:
    """Give our error for one of DuckDB's.

    Args:
        error: What DuckDB raised.
        where: The database, as a person knows it.
    """
    text = str(error).strip()
    if isinstance(error, duckdb.PermissionException):
        return NotPermitted(CONFINED)
    if isinstance(error, duckdb.DataError | duckdb.InvalidInputException):
        # It is somebody's message that does not fit.
        text = _QUOTED.sub("…", text.partition("\nLINE ")[0])
    # Such an error repeats the query, whose names may be any words.
    of_the_file = None if isinstance(error, _ABOUT_THE_QUERY) else by_words(text, where, _MESSAGES)
    if of_the_file:
        return of_the_file
    if isinstance(error, duckdb.ProgrammingError | duckdb.DataError | duckdb.NotSupportedError):
        if "Unexpected prepared parameter" in text:
            return InvalidStatement("The query has a parameter that is given no value.")
        said = " ".join(text.partition("\nLINE ")[0].split()).partition(": ")[2]
        stop = "" if said.endswith((".", "!", "?")) else "."
        return InvalidStatement(f"The query cannot be run: {said}{stop}")
    if isinstance(error, duckdb.InternalException | duckdb.FatalException):
        return CorruptDatabase(f"{where} {_DAMAGED}.")
    return StorageError(f"{where} refused: {text.splitlines()[0]}.")


def is_damage(error: StorageError) -> bool:
    """Say whether it is DuckDB that cannot go on, for no reason that lies outside its file."""
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
    """Turn DuckDB's errors inside the block into ours."""
    try:
        yield
    except duckdb.Error as error:
        raise translate(error, where) from error


class DuckDBAdapter(DatabaseAdapter[duckdb.DuckDBPyConnection]):
    """Opens connections to one DuckDB file, each the database `lab` of an instance of its own."""

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
        """Remember what to open.

        Args:
            path: The file; made where it does not exist and `read_only` is False.
            key: Base64 of 32 bytes, or None for a database that is not encrypted.
            read_only: Many readers may open a file at once, and a writer only alone.
            temporary: The folder for what does not fit into memory; it is encrypted there.
            timezone: In which days and hours of TIMESTAMPTZ values are counted.
            memory_limit: Such as '400MB'; DuckDB's own default otherwise.
            confined: Let queries use no file, no network and no setting; see `duckdb_confined`.
            where: The file, as a person knows it; its name where it is None.
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
            NotADatabase: The file is something else, or the key is not its key.
            DatabaseLocked: Another process has it open.
        """
        limit = {"memory_limit": self._memory_limit} if self._memory_limit else {}
        with translated(self._where):
            connection = duckdb.connect(
                ":memory:",
                config={
                    "autoinstall_known_extensions": "false",
                    "autoload_known_extensions": "false",
                    # The one extension comes with a package, as this code does. To check its
                    # signature takes longer than all the rest of opening a database: 45 ms.
                    "allow_unsigned_extensions": "true",
                    # Of its own: instances that share one overwrite each other's files. DuckDB
                    # makes it when something is spilled, and removes it.
                    "temp_directory": str(self._temporary / secrets.token_hex(8)),
                    # Else what is spilled is plain text; without a key DuckDB could not encrypt.
                    "temp_file_encryption": "false" if self._key is None else "true",
                    # They would lie in the person's own folder, for every DuckDB to use.
                    "allow_persistent_secrets": "false",
                    **limit,
                },
            )
        try:
            # DuckDB's own progress bar goes to stdout, where answers go. In Jupyter without
            # ipywidgets there is none, and it cannot be turned off.
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
        """Ask for the tables of the file.

        Raises:
            StorageError: The connection is closed or broken.
        """
        with translated(self._where):
            connection.execute(
                f"SELECT count(*) FROM duckdb_tables() WHERE database_name = '{ALIAS}'"
            )

    def _attach(self, connection: duckdb.DuckDBPyConnection, path: Path) -> None:
        options = ["READ_ONLY"] if self._read_only else []
        if self._key is not None:
            _load_openssl(connection)
            options.append(f"ENCRYPTION_KEY {_literal(self._key)}")
        clause = f" ({', '.join(options)})" if options else ""
        try:
            connection.execute(f"ATTACH {_literal(str(path))} AS {ALIAS}{clause}")
        except duckdb.Error as error:
            # Not chained: DuckDB's own text may quote the statement, and the key is in it.
            where = self._where
            raise by_words(str(error), where, _MESSAGES) or translate(error, where) from None
        connection.execute(f"USE {ALIAS}")


def is_plain_name(name: str) -> bool:
    """Return whether queries take the name of a schema without quotation marks."""
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


def write_rows(
    rows: pa.RecordBatchReader,
    file: Path,
    *,
    timezone: str = "UTC",
) -> None:
    """Write rows as CSV or Parquet, whichever the file's ending says.

    Args:
        rows: They are read once, and held in memory a batch at a time.
        file: A file that is replaced.
        timezone: In which CSV has the times that are points in time.
    """
    kind = "(FORMAT parquet)" if file.suffix == ".parquet" else "(FORMAT csv, HEADER)"
    # An instance of its own, as the one that has the rows may write nothing; it spills nothing.
    with translated(file.name), duckdb.connect(":memory:", config={"temp_directory": ""}) as own:
        _set_timezone(own, timezone)
        execute_with(own, f"COPY (FROM rows) TO {_literal(str(file))} {kind}", rows=rows)


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
