"""SQL that reads its database and nothing else: no other file, no network, no setting.

DuckDB's own switches do most of it: without external access no file is opened and no extension
loaded, and a locked configuration stays so. They leave two gaps. The files that are attached, and
the folder for what is spilled, stay open to every statement: `COPY ... TO` would overwrite the very
snapshot that is read. So a snapshot is attached by a second name, which is gone before the first
query comes, and statements that write files are refused before DuckDB runs them.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from typing import TYPE_CHECKING, Final

import duckdb

from aico_lab.errors import InvalidValue, NotPermitted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OPENLY: Final = "use Lab.open(external_access=True)"

CONFINED: Final = (
    "Queries read the snapshot only, no other file, address or extension: write results with "
    "`aico-lab sql --output FILE` or with Python, or, to let queries reach further, " + OPENLY + "."
)

# SET is among them for `USE` and `SET VARIABLE`; a setting is refused by the locked configuration.
_ALLOWED: Final = {
    duckdb.StatementType.SELECT,
    duckdb.StatementType.EXPLAIN,
    duckdb.StatementType.SET,
    duckdb.StatementType.VARIABLE_SET,
    duckdb.StatementType.TRANSACTION,
    duckdb.StatementType.CREATE,  # temporary tables, views and macros
    duckdb.StatementType.DROP,
    duckdb.StatementType.ALTER,
    duckdb.StatementType.INSERT,
    duckdb.StatementType.UPDATE,
    duckdb.StatementType.DELETE,
    duckdb.StatementType.MERGE_INTO,
    duckdb.StatementType.VACUUM,  # ANALYZE
}
# With its log in a file that it may not open, DuckDB refuses every query, and ends the process.
_LOGGING: Final = re.compile("enable_logging", re.IGNORECASE)
_EXPLAIN: Final = re.compile(r"\s*EXPLAIN\s+(ANALYZE\s+)?(\([^()]*\)\s*)?", re.IGNORECASE)


@contextlib.contextmanager
def private_link(path: Path, temporary: Path) -> Iterator[Path]:
    """Give a database and its write-ahead log a second name for as long as the block lasts.

    Args:
        path: The database.
        temporary: A folder on the same disk. Where it cannot be written, or the file system knows
            no links, the path itself is given.
    """
    folder = temporary / secrets.token_hex(8)
    link = folder / path.name
    try:
        try:
            folder.mkdir(mode=0o700)
            os.link(path, link)
            with contextlib.suppress(FileNotFoundError):
                os.link(f"{path}.wal", f"{link}.wal")
        except OSError:
            link = path
        yield link
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def confine(connection: duckdb.DuckDBPyConnection, temporary: Path) -> None:
    """Leave a connection its database alone, and half of the memory and of the free disk."""
    row = connection.execute("SELECT current_setting('memory_limit')").fetchone()
    # By default four fifths of the machine's memory, or of the container's.
    number, unit = row[0].split() if row else ("1", "GiB")
    connection.execute(f"SET memory_limit = '{float(number) * 5 / 8:.2f} {unit}'")
    with contextlib.suppress(OSError):
        spilled = shutil.disk_usage(temporary).free // 2
        connection.execute(f"SET max_temp_directory_size = '{spilled >> 10} KiB'")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def refuse_lost_results(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    """Do nothing if at most the last statement of a query has rows to give.

    Raises:
        InvalidValue: Another one has, and nobody would see them.
    """
    for statement in connection.extract_statements(query)[:-1]:
        if statement.expected_result_type == [duckdb.ExpectedResultType.QUERY_RESULT]:
            raise InvalidValue(
                "Only the last of several statements is answered: ask one question at a time."
            )


def check_statements(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    """Refuse what is more than a question, or than work on temporary tables.

    Raises:
        NotPermitted: It might write a file.
    """
    if _LOGGING.search(query):
        raise NotPermitted(CONFINED)
    for statement in connection.extract_statements(query):
        if statement.type not in _ALLOWED:
            raise NotPermitted(CONFINED)
        if statement.type == duckdb.StatementType.EXPLAIN:  # with ANALYZE it also does it
            explain = _EXPLAIN.match(statement.query)
            if explain is None:
                raise NotPermitted("The query cannot be run: write EXPLAIN without a comment.")
            check_statements(connection, statement.query[explain.end() :])
