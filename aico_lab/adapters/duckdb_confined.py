"""Confine SQL to its own database: no other file, no network, no settings.

DuckDB's own settings do most of it: without external access it opens no file and loads no
extension, and a locked configuration cannot be unlocked. They leave two gaps: every statement may
still write the attached files and the folder for temporary files, so `COPY ... TO` could overwrite
the attached snapshot. Therefore a snapshot is attached by a second name, which is removed before
the first query, and statements that write files are refused before DuckDB runs them.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from typing import TYPE_CHECKING, Final

import duckdb

from aico_lab.adapters.temporary_folders import give_back, own_folder
from aico_lab.errors import InvalidValue, NotPermitted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OPENLY: Final = "use Lab.open(external_access=True)"

CONFINED: Final = (
    "Queries read the snapshot only, no other file, address or extension: write results with "
    "`aico-lab sql --output FILE` or with Python, or, to allow external access, " + OPENLY + "."
)

# SET is allowed for `USE` and `SET VARIABLE`; the locked configuration refuses all settings.
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
DENIED: Final = frozenset({
    # If they cannot open their file, DuckDB refuses every later query, or ends the process.
    "enable_logging", "enable_profiling",
    "disable_logging", "disable_profiling", "truncate_duckdb_logs", "write_log",
    "checkpoint", "force_checkpoint",
    # They run SQL from a text, which may be put together so that no check sees the functions in it.
    "query", "json_execute_serialized_sql",
    # They read memory at addresses that the query passes.
    "arrow_scan", "arrow_scan_dumb", "pandas_scan", "python_map_function", "seq_scan",
})  # fmt: skip
"""Functions that do more than read the snapshot, though a query calls them in a SELECT."""

_BEFORE_SECRET: Final = {"create", "or", "replace", "temp", "temporary", "persistent"}
_TEXT: Final = duckdb.token_type.string_const
_COMMENT: Final = duckdb.token_type.comment
_EXPLAIN: Final = re.compile(r"\s*EXPLAIN\s+(ANALYZE\s+)?(\([^()]*\)\s*)?", re.IGNORECASE)


@contextlib.contextmanager
def private_link(path: Path, temporary: Path) -> Iterator[Path]:
    """Link a database and its write-ahead log under a second name during the block; yield it.

    Args:
        path: The database.
        temporary: A folder on the same disk. If it is not writable, or the file system has no
            hard links, the path itself is yielded.
    """
    folder = own_folder(temporary)
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
        give_back(folder)


def confine(connection: duckdb.DuckDBPyConnection, temporary: Path) -> None:
    """Restrict a connection to its database, to half of the memory and of the free disk."""
    row = connection.execute("SELECT current_setting('memory_limit')").fetchone()
    # The default is four fifths of the memory of the machine or the container.
    number, unit = row[0].split() if row else ("1", "GiB")
    connection.execute(f"SET memory_limit = '{float(number) * 5 / 8:.2f} {unit}'")
    with contextlib.suppress(OSError):
        spilled = shutil.disk_usage(temporary).free // 2
        connection.execute(f"SET max_temp_directory_size = '{spilled >> 10} KiB'")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def refuse_lost_results(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    """Refuse a query in which another than the last statement returns rows.

    Raises:
        InvalidValue: An earlier statement returns rows, which would be lost.
    """
    for statement in connection.extract_statements(query)[:-1]:
        if statement.expected_result_type == [duckdb.ExpectedResultType.QUERY_RESULT]:
            raise InvalidValue(
                "Only the last of several statements can return rows: run one query at a time."
            )


def check_statements(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    """Refuse statements other than queries and work on temporary tables.

    Raises:
        NotPermitted: A statement might write a file, creates a secret, or calls one of the `DENIED`
            functions.
    """
    for name in _calls(query):
        if name in DENIED:
            raise NotPermitted(
                f"Queries may not call {name}(), which does more than read the snapshot: to allow "
                f"it, {OPENLY}."
            )
    for statement in connection.extract_statements(query):
        if statement.type not in _ALLOWED or _creates_secret(statement):
            raise NotPermitted(CONFINED)
        if statement.type == duckdb.StatementType.EXPLAIN:  # EXPLAIN ANALYZE runs the statement
            explain = _EXPLAIN.match(statement.query)
            if explain is None:
                raise NotPermitted("The query cannot be run: write EXPLAIN without a comment.")
            check_statements(connection, statement.query[explain.end() :])


def _creates_secret(statement: duckdb.Statement) -> bool:
    if statement.type != duckdb.StatementType.CREATE:
        return False
    words = (word for part in _tokens(statement.query) for word in re.findall(r"\w+", part))
    return next((word for word in words if word not in _BEFORE_SECRET), "") == "secret"


def _tokens(query: str) -> Iterator[str]:
    """Yield the tokens of a query without its comments, in lower case."""
    text, tokens = query.encode(), duckdb.tokenize(query)
    ends = [*(at for at, _ in tokens[1:]), len(text)]
    for (start, kind), end in zip(tokens, ends, strict=False):  # a part of a PIVOT has no text
        if kind != _COMMENT:
            yield text[start:end].decode().lower()


def _calls(query: str) -> Iterator[str]:
    """Yield, in lower case, the words that stand before an opening parenthesis."""
    text = query.encode()
    tokens = [(at, kind) for at, kind in duckdb.tokenize(query) if kind != _COMMENT]
    ends = [at for at, _ in tokens[1:]]
    for (start, kind), end in zip(tokens, ends, strict=False):
        if kind != _TEXT and text[end:].startswith(b"("):
            # All words of the token: DuckDB's parser treats a no-break space as a space, its
            # tokenizer as part of a name.
            yield from re.findall(r"\w+", text[start:end].decode().lower())
