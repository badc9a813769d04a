"""The writer's side of the DuckDB warehouse: its tables and its cursor, which change together."""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

import pyarrow as pa

from aico_lab.adapters import duckdb as duckdb_adapter
from aico_lab.etl import snapshots, views
from aico_lab.etl.writer_file import WriterFile
from aico_lab.home.files import os_errors
from aico_lab.mart import views as mart_views
from aico_lab.mart.statements import READ_BY_PLACES
from aico_lab.schema.feed import Cursor

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    import duckdb

    from aico_lab.etl.contract import Contract
    from aico_lab.etl.misfits import Misfit
    from aico_lab.mart.refresh import Changes

MEMORY_LIMIT = "80MB"
"""Memory that DuckDB may use while it writes; it spills more to disk, encrypted."""

LONG_ROW = 500  # bytes
MEMORY_LIMIT_OF_LONG_ROWS = "400MB"
"""DuckDB fails if it cannot hold the long texts of a transaction's last row group in memory."""

LARGEST_LOG = 2_000_000
"""Bytes of the write-ahead log, which is read at every opening of the file: in 30 ms at most."""


def make_room(connection: duckdb.DuckDBPyConnection, rows: pa.Table) -> None:
    """Let DuckDB use more memory if the rows to insert are long."""
    if rows.nbytes > LONG_ROW * rows.num_rows:
        connection.execute(f"SET memory_limit = '{MEMORY_LIMIT_OF_LONG_ROWS}'")


def _count(changed: duckdb.DuckDBPyConnection) -> int:
    row = changed.fetchone()
    return row[0] if row else 0


class Warehouse:
    """The writer's database; open it only while holding the sync lock.

    Attributes:
        connection: For statements on other tables than those of `raw`, inside `transaction()`.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, path: Path) -> None:
        self.connection = connection
        self._file = WriterFile(path)
        if not self.is_of_this_version:  # the log would grow each time
            for definition in views.DEFINITIONS:
                connection.execute(definition)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit the changes of the block, or roll them back if it raises an exception."""
        self.connection.execute("BEGIN")
        try:
            yield
        except BaseException:
            self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")

    @contextmanager
    def memory(self, limit: str) -> Iterator[None]:
        """Let DuckDB use at most `limit` of memory, such as '1GB', inside the block."""
        row = self.connection.execute("SELECT current_setting('memory_limit')").fetchone()
        self.connection.execute(f"SET memory_limit = '{limit}'")
        yield
        self.connection.execute("SET memory_limit = ?", row)

    @property
    def generation(self) -> int:
        """The number of the latest change of the content; 0 before the first."""
        row = self.connection.execute("SELECT max(generation) FROM meta.state").fetchone()
        return (row[0] or 0) if row else 0

    @property
    def cursor(self) -> Cursor | None:
        """The position up to which the change feed was read, or None before the first load."""
        row = self.connection.execute("SELECT database_id, seq, anchor FROM meta.state").fetchone()
        return Cursor(*row) if row else None

    @property
    def synced_at(self) -> str:
        """The time of the last load, as the primary database writes times."""
        row = self.connection.execute(
            "SELECT strftime(make_timestamp(epoch_us(synced_at)), '%Y-%m-%dT%H:%M:%S.%fZ') "
            "FROM meta.state"
        ).fetchone()
        return str(row[0]) if row else ""

    @property
    def is_of_this_version(self) -> bool:
        """Whether the views are as this version of the package defines them."""
        return views.are_of_this_version(self.connection)

    @property
    def names_rows_alike(self) -> bool:
        """Whether the rows in quarantine have the names that this version gives them."""
        return views.names_rows_alike(self.connection)

    def tables(self) -> dict[str, list[tuple[str, str]]]:
        """Return the tables of `raw`, each with the names and types of its columns, in order."""
        found: dict[str, list[tuple[str, str]]] = {}
        for table, column, kind in self.connection.execute(
            "SELECT table_name, column_name, data_type FROM duckdb_columns() "
            "WHERE schema_name = 'raw' AND database_name = current_database() "
            "ORDER BY column_index"
        ).fetchall():
            found.setdefault(table, []).append((column, kind))
        return found

    @property
    def frozen(self) -> set[str]:
        """The names of tables that are older than the cursor, because their columns had changed."""
        return {
            table
            for (table,) in self.connection.execute("SELECT table_name FROM meta.frozen").fetchall()
        }

    def freeze(self, tables: Iterable[str]) -> None:
        """Replace the names of the frozen tables."""
        self.connection.execute("DELETE FROM meta.frozen")
        for table in tables:
            self.connection.execute("INSERT INTO meta.frozen VALUES (?)", [table])

    def drop_tables(self, tables: Iterable[str]) -> None:
        """Remove tables of `raw`, and their rows in quarantine."""
        for table in tables:
            self.connection.execute(f'DROP TABLE IF EXISTS raw."{table}"')
            self.connection.execute("DELETE FROM quarantine.misfits WHERE table_name = ?", [table])

    def create_table(self, contract: Contract) -> None:
        """Create a table of `raw`, empty, in place of an older one."""
        self.drop_tables([contract.table])
        columns = ", ".join(f'"{name}" {kind}' for name, kind in contract.duckdb_types)
        self.connection.execute(f'CREATE TABLE raw."{contract.table}" ({columns})')

    def create_views(self) -> None:
        """Define the views over the tables of `raw`, and record the version of the definitions.

        The form of the rows' names in quarantine is recorded, too.
        """
        tables = {table: dict(columns) for table, columns in self.tables().items()}
        for view in (*views.VIEWS, *mart_views.views_of(tables)):
            self.connection.execute(view)
        for comment in views.comments():
            self.connection.execute(comment)

    def insert(self, contract: Contract, rows: pa.Table) -> None:
        """Append rows that fit the contract."""
        make_room(self.connection, rows)
        duckdb_adapter.execute_with(
            self.connection, f'INSERT INTO raw."{contract.table}" SELECT * FROM rows', rows=rows
        )

    def delete(
        self,
        contract: Contract,
        gone_keys: pa.Table,
        present: pa.Table,
        messages: Changes | None = None,
    ) -> int:
        """Remove rows by their keys, from the table and from quarantine.

        Args:
            contract: The contract of their table.
            gone_keys: The keys, as `changed_keys` returns them.
            present: Some of the current rows of the primary database with these keys.
            messages: Notes the rows before they are removed, if they are messages.

        Returns:
            The number of rows that were removed from both.
        """
        table = f'raw."{contract.table}"'
        deleted = 0
        # Comparing row ids, which are numbers, reads a twentieth of what comparing keys reads.
        by_rowid = [(present, f't."{contract.rowid}" = k."{contract.rowid}"')]
        by_key = " AND ".join(
            ["k.fits"]
            + [f't."{name}" IS NOT DISTINCT FROM k.k{i}' for i, name in enumerate(contract.key)]
        )
        for keys, same in (*(by_rowid if contract.rowid else ()), (gone_keys, by_key)):
            if deleted >= gone_keys.num_rows:
                break
            if messages is not None:  # RETURNING would read every column of the rows
                old_rows = duckdb_adapter.execute_with(
                    self.connection,
                    f"SELECT {READ_BY_PLACES} FROM {table} t SEMI JOIN rows k ON {same}",
                    rows=keys,
                )
                messages.note_removed(old_rows.to_arrow_table())
            deleted += _count(
                duckdb_adapter.execute_with(
                    self.connection, f"DELETE FROM {table} t USING rows k WHERE {same}", rows=keys
                )
            )
        return deleted + self.delete_misfits(
            contract.table, "IN (SELECT row_key FROM rows)", gone_keys
        )

    def delete_misfits(self, table: str, condition: str, rows: pa.Table | None = None) -> int:
        """Remove a table's rows from quarantine by a condition on `row_key`; return the number."""
        found = duckdb_adapter.execute_with(
            self.connection,
            f"DELETE FROM quarantine.misfits WHERE table_name = ? AND row_key {condition} "
            "RETURNING row_key",
            [table],
            rows=rows,
        ).fetchall()
        return len(set(found))

    def quarantine(self, misfits: Sequence[Misfit]) -> None:
        """Add misfits to the quarantine."""
        duckdb_adapter.execute_with(
            self.connection,
            'INSERT INTO quarantine.misfits SELECT "table", row_key, "column", reason, value '
            "FROM rows",
            rows=pa.Table.from_pylist([asdict(misfit) for misfit in misfits]),
        )

    def misfits(self) -> dict[str, set[str]]:
        """Return the names of the rows in quarantine, by table."""
        found: dict[str, set[str]] = {}
        for table, key in self.connection.execute(
            "SELECT table_name, row_key FROM quarantine.misfits"
        ).fetchall():
            found.setdefault(table, set()).add(key)
        return found

    def unexplained(self) -> dict[str, int]:
        """Return by table how many rows ceased to fit although the feed recorded no change."""
        return dict(
            self.connection.execute(
                "SELECT table_name, count(*) FROM quarantine.unexplained GROUP BY 1 ORDER BY 1"
            ).fetchall()
        )

    def note_unexplained(self, table: str, keys: Iterable[str]) -> None:
        """Record unexplained rows, until they fit again or a person has acknowledged them."""
        duckdb_adapter.execute_with(
            self.connection,
            "INSERT INTO quarantine.unexplained SELECT ?, row_key, ? FROM rows",
            [table, self.generation + 1],
            rows=pa.table({"row_key": pa.array(list(keys), pa.string())}),
        )

    def forget_unexplained(self, *, everything: bool) -> None:
        """Remove the records of unexplained rows that fit again, or all of these records."""
        self.connection.execute(
            "DELETE FROM quarantine.unexplained WHERE ? OR (table_name, row_key) NOT IN "
            "(SELECT (table_name, row_key) FROM quarantine.misfits)",
            [everything],
        )

    def is_empty(self, table: str, column: str) -> bool:
        """Return whether a column of `raw` holds nothing but NULL."""
        row = self.connection.execute(f'SELECT count("{column}") FROM raw."{table}"').fetchone()
        return row == (0,)

    def advance(
        self, cursor: Cursor, generation: int, *, mode: str, seconds: float, changes: object
    ) -> None:
        """Record a run with its duration and changes, and the cursor that the feed was read to."""
        self.connection.execute("DELETE FROM meta.state")
        self.connection.execute(
            "INSERT INTO meta.state (generation, database_id, seq, anchor, synced_at) "
            "VALUES (?, ?, ?, ?, now())",
            [generation, cursor.database_id, cursor.seq, cursor.anchor],
        )
        self.connection.execute(
            "INSERT INTO meta.runs VALUES (?, ?, now(), ?, ?)",
            [generation, mode, seconds, json.dumps(changes)],
        )

    def close(self) -> None:
        """Release the file, so that it can be copied.

        Small changes stay in the write-ahead log; see `aico_lab.etl.snapshots`.
        """
        log = snapshots.log(self._file.path)
        if self._file.is_written or (log.exists() and log.stat().st_size > LARGEST_LOG):
            self.connection.execute("CHECKPOINT")
        self.connection.close()


@contextmanager
def open_warehouse(path: Path, key: str | None, *, temporary: Path) -> Iterator[Warehouse]:
    """Open the writer's database, and release its file at the end.

    Raises:
        StorageError: DuckDB cannot open the file, or a statement inside the block failed.
    """
    with os_errors(temporary):  # a writer that was killed left its spilled data
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(mode=0o700, parents=True)
    adapter = duckdb_adapter.DuckDBAdapter(
        path, key, read_only=False, temporary=temporary, memory_limit=MEMORY_LIMIT
    )
    connection = adapter.connect()
    path.chmod(0o600)
    try:
        with duckdb_adapter.translated(path.name):
            # `Warehouse.close` decides when the log is written into the file.
            connection.execute("PRAGMA disable_checkpoint_on_shutdown")
            connection.execute("SET wal_autocheckpoint = '1TB'")
            yield Warehouse(connection, path)
    finally:
        connection.close()
