"""A foreign table in the warehouse, whose rows are merged by their keys inside a transaction."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import pyarrow as pa

from aico_lab.adapters.duckdb import execute_with
from aico_lab.etl.warehouse import make_room

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from aico_lab.etl.contract import Contract
    from aico_lab.etl.foreign_source import Reached
    from aico_lab.etl.misfits import Misfit
    from aico_lab.etl.warehouse import Warehouse


@dataclass(frozen=True, slots=True)
class Watermark:
    """The position up to which a table was read.

    Attributes:
        column: The watermark column, with its unit.
        value: The highest value of the column so far; None if it had no value.
        key: The columns by which rows were merged.
        file: The file that was read.
    """

    column: str
    value: Reached
    key: tuple[str, ...]
    file: str


class ForeignTable:
    """One table of a schema that is named after its source."""

    def __init__(self, warehouse: Warehouse, source: str, contract: Contract) -> None:
        self._warehouse = warehouse
        self._connection = warehouse.connection
        self._source = source
        self._contract = contract
        self.label = f"{source}.{contract.table}"
        self._name = f'"{source}"."{contract.table}"'
        self._columns = ", ".join(f'"{name}" {kind}' for name, kind in contract.duckdb_types)

    @property
    def key(self) -> tuple[str, ...]:
        """The columns by which rows are merged, marked if they hold values of several types."""
        kinds = zip(self._contract.key, self._contract.key_kinds, strict=True)
        return tuple(f"{name} of any type" if kind == "any" else name for name, kind in kinds)

    def watermark(self) -> Watermark | None:
        """Return the watermark; None if the table was not loaded yet, or with other columns."""
        columns = self._connection.execute(
            "SELECT column_name, data_type FROM duckdb_columns() WHERE schema_name = ? "
            "AND table_name = ? AND database_name = current_database() ORDER BY column_index",
            [self._source, self._contract.table],
        ).fetchall()
        row = self._connection.execute(
            'SELECT "column", value, key_columns, file FROM meta.watermarks '
            'WHERE source = ? AND "table" = ?',
            [self._source, self._contract.table],
        ).fetchone()
        if row is None or columns != self._contract.duckdb_types:
            return None
        column, value, key, file = row
        return Watermark(column, json.loads(value), tuple(json.loads(key)), file)

    def advance(self, column: str, value: Reached, file: Path) -> None:
        """Replace the watermark."""
        identity = [self._source, self._contract.table]
        self._connection.execute(
            'DELETE FROM meta.watermarks WHERE source = ? AND "table" = ?', identity
        )
        self._connection.execute(
            "INSERT INTO meta.watermarks VALUES (?, ?, ?, ?, ?, ?, now())",
            [*identity, column, json.dumps(value), json.dumps(self.key), str(file)],
        )

    def create(self) -> None:
        """Create the table, empty, in place of an older one."""
        self._connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{self._source}"')
        self._connection.execute(f"CREATE OR REPLACE TABLE {self._name} ({self._columns})")
        self._connection.execute(
            "DELETE FROM quarantine.misfits WHERE table_name = ?", [self.label]
        )

    def create_staging(self) -> None:
        """Create a temporary table for the rows to merge."""
        self._connection.execute(f"CREATE TEMP TABLE incoming ({self._columns})")

    def insert(self, rows: pa.Table, *, into: Literal["table", "staging"]) -> None:
        """Append rows."""
        make_room(self._connection, rows)
        target = self._name if into == "table" else "temp.incoming"
        execute_with(self._connection, f"INSERT INTO {target} SELECT * FROM rows", rows=rows)

    def merge(self) -> tuple[int, int]:
        """Write the staged rows that are new or differ from the table's.

        Returns:
            The number of rows written, and the number of rows of the table that they replaced.
        """
        same = " AND ".join(
            f'i."{column.name}" IS NOT DISTINCT FROM t."{column.name}"'
            for column in self._contract.columns
        )
        self._connection.execute(
            "CREATE TEMP TABLE changed_rows AS SELECT i.* FROM temp.incoming AS i "
            f"ANTI JOIN {self._name} AS t ON {same}"
        )
        replaced = self._count(
            f"DELETE FROM {self._name} AS t USING temp.changed_rows AS c WHERE {self._match('c')}"
        )
        written = self._count(f"INSERT INTO {self._name} SELECT * FROM temp.changed_rows")
        return written, replaced

    def stage_keys(self, name: str, portions: Iterable[tuple[pa.Table, pa.Array]]) -> None:
        """Create the temporary tables `{name}_keys`, of keys, and `{name}_texts`, of their names.

        Args:
            name: The prefix of the tables' names.
            portions: Keys that fit, and the names in quarantine of all keys.
        """
        kinds = dict(self._contract.duckdb_types)
        columns = ", ".join(f'"{key}" {kinds[key]}' for key in self._contract.key)
        self._connection.execute(f"CREATE TEMP TABLE {name}_keys ({columns})")
        self._connection.execute(f"CREATE TEMP TABLE {name}_texts (row_key VARCHAR)")
        for keys, texts in portions:
            for staged, rows in (("keys", keys), ("texts", pa.table({"row_key": texts}))):
                execute_with(
                    self._connection, f"INSERT INTO temp.{name}_{staged} FROM rows", rows=rows
                )

    def has_misfits(self) -> bool:
        """Return whether rows of this table are in quarantine."""
        return bool(
            self._connection.execute(
                "SELECT 1 FROM quarantine.misfits WHERE table_name = ? LIMIT 1", [self.label]
            ).fetchone()
        )

    def quarantine(self, misfits: Sequence[Misfit]) -> None:
        """Add misfits to the quarantine."""
        self._warehouse.quarantine([replace(misfit, table=self.label) for misfit in misfits])

    def exchange_misfits(self, misfits: Sequence[Misfit]) -> tuple[bool, int]:
        """Replace the misfits in quarantine of all keys staged as `window`.

        Returns:
            Whether the quarantine changed, and the number of rows that were removed from the table
            because they do not fit any more.
        """
        of_window = "table_name = ? AND row_key IN (SELECT row_key FROM temp.window_texts)"
        known = self._connection.execute(
            f"SELECT row_key, column_name, reason, value FROM quarantine.misfits WHERE {of_window}",
            [self.label],
        ).fetchall()
        changed = sorted(known) != sorted((m.row_key, m.column, m.reason, m.value) for m in misfits)
        if changed:
            self._connection.execute(f"DELETE FROM quarantine.misfits WHERE {of_window}",
                                     [self.label])  # fmt: skip
            if misfits:
                self.quarantine(misfits)
        removed = self._count(
            f"DELETE FROM {self._name} AS t "
            f"WHERE EXISTS (SELECT 1 FROM temp.window_keys AS k WHERE {self._match('k')}) "
            f"AND NOT EXISTS (SELECT 1 FROM temp.incoming AS i WHERE {self._match('i')})"
        )
        return changed, removed

    def delete_others(self) -> int:
        """Remove all rows, also in quarantine, whose keys are not staged as `present`.

        Returns:
            The number of removed rows.
        """
        return self._count(
            f"DELETE FROM {self._name} AS t "
            f"WHERE NOT EXISTS (SELECT 1 FROM temp.present_keys AS k WHERE {self._match('k')})"
        ) + self._warehouse.delete_misfits(
            self.label, "NOT IN (SELECT row_key FROM temp.present_texts)"
        )

    def _match(self, other: str) -> str:
        return " AND ".join(
            f't."{key}" IS NOT DISTINCT FROM {other}."{key}"' for key in self._contract.key
        )

    def _count(self, statement: str, parameters: Sequence[str] = ()) -> int:
        row = self._connection.execute(statement, list(parameters)).fetchone()
        return row[0] if row else 0
