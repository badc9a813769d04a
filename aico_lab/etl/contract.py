"""What type each column of a table has on its way from libSQL through Arrow into DuckDB.

The contract is read from the declared types of the live table, so the schema says it once. What
those leave open, the values decide: see `aico_lab.etl.settle`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import pyarrow as pa

from aico_lab.errors import SchemaTampered

if TYPE_CHECKING:
    from aico_lab.adapters.libsql import Connection

Kind = Literal[
    "integer", "real", "text", "timestamp", "json", "boolean", "blob",
    # Only of columns whose type is settled by their values; see `aico_lab.etl.settle`.
    "any", "date", "seconds", "milliseconds", "decimal",
]  # fmt: skip

ARROW_TYPES: dict[Kind, pa.DataType] = {
    "integer": pa.int64(),
    "real": pa.float64(),
    "text": pa.string(),
    "timestamp": pa.timestamp("us", tz="UTC"),
    "json": pa.string(),
    "boolean": pa.bool_(),
    "blob": pa.binary(),
    "any": pa.string(),
    "date": pa.date32(),
    "seconds": pa.timestamp("us", tz="UTC"),
    "milliseconds": pa.timestamp("us", tz="UTC"),
}

DUCKDB_TYPES: dict[Kind, str] = {
    "integer": "BIGINT",
    "real": "DOUBLE",
    "text": "VARCHAR",
    "timestamp": "TIMESTAMP WITH TIME ZONE",
    "json": "VARCHAR",
    "boolean": "BOOLEAN",
    "blob": "BLOB",
    "any": "VARCHAR",
    "date": "DATE",
    "seconds": "TIMESTAMP WITH TIME ZONE",
    "milliseconds": "TIMESTAMP WITH TIME ZONE",
}

_PREFIXES: tuple[tuple[str, Kind], ...] = (
    ("TIMESTAMP", "timestamp"),
    ("JSON", "json"),
    ("BOOLEAN", "boolean"),
    ("REAL", "real"),
    ("DOUBLE", "real"),
    ("FLOAT", "real"),
    ("F32_BLOB", "blob"),
    ("BLOB", "blob"),
)
_INTEGER = re.compile(
    r"(UNSIGNED )?(BIG|SMALL|TINY|MEDIUM|LONG)? ?INT(EGER)?\d*( UNSIGNED)?( ?\(.*)?"
)
_TEXT = re.compile("CHAR|CLOB|TEXT")


@dataclass(frozen=True, slots=True)
class Column:
    """A column and its kind.

    Attributes:
        name: Its name.
        kind: What its values are.
        stored: False for one that is not stored any more, and is NULL.
        zoneless: Whether times of it may lack a zone, and are UTC then.
        loose: Whether its declared type lets it hold anything, so that its values say its kind.
        digits: Of a decimal number, all of them and those behind the point.
    """

    name: str
    kind: Kind
    stored: bool = True
    zoneless: bool = False
    loose: bool = False
    digits: tuple[int, int] = (18, 3)

    @property
    def arrow_type(self) -> pa.DataType:
        """The type of its values in Arrow."""
        return pa.decimal128(*self.digits) if self.kind == "decimal" else ARROW_TYPES[self.kind]

    @property
    def duckdb_type(self) -> str:
        """The type of its values in DuckDB."""
        if self.kind == "decimal":
            return f"DECIMAL({self.digits[0]},{self.digits[1]})"
        return DUCKDB_TYPES[self.kind]


@dataclass(frozen=True, slots=True)
class Contract:
    """A table.

    Attributes:
        table: Its name.
        columns: Its columns, in order.
        key: Those of them that identify a row.
        rowid: The one that is SQLite's row id, if there is one and it is known.
    """

    table: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    rowid: str | None = None

    @property
    def key_kinds(self) -> tuple[Kind, ...]:
        """The kinds of the columns that identify a row."""
        kinds = {column.name: column.kind for column in self.columns}
        return tuple(kinds[name] for name in self.key)

    @property
    def tells_keys_apart(self) -> bool:
        """Whether different keys are different in the warehouse, too.

        Where values of several types become text, 1 and '1' are the same.
        """
        return not {"any", "json"}.intersection(self.key_kinds)

    @property
    def arrow_schema(self) -> pa.Schema:
        """The table as Arrow carries it."""
        return pa.schema([(column.name, column.arrow_type) for column in self.columns])

    @property
    def duckdb_types(self) -> list[tuple[str, str]]:
        """The columns of the table in DuckDB, with their types."""
        return [(column.name, column.duckdb_type) for column in self.columns]


def read_contract(connection: Connection, table: str, key: tuple[str, ...]) -> Contract:
    """Read the contract of a table from its declared column types.

    Args:
        connection: The primary database.
        table: The name of the table.
        key: The columns that identify a row.

    Raises:
        SchemaTampered: The table is not there, or a column of its key.
    """
    columns = tuple(
        _column(name, declared)
        for name, declared in connection.fetch_all(
            "SELECT name, type FROM pragma_table_xinfo(?) WHERE hidden <> 1 ORDER BY cid", [table]
        )
    )
    gone = set(key).difference(column.name for column in columns)
    if gone:
        raise SchemaTampered(
            f"{connection.path.name} has no longer {table}.{min(gone)}, by which the change feed "
            "names rows: restore the database from a backup."
        )
    return Contract(table, columns, key, rowid_column(connection, table))


def rowid_column(connection: Connection, table: str) -> str | None:
    """Give the column that is another name of the row id; such a primary key needs no index."""
    found = connection.fetch_one(
        "SELECT name FROM pragma_table_xinfo(?1) WHERE pk "
        "AND NOT EXISTS (SELECT 1 FROM pragma_index_list(?1) WHERE origin = 'pk')",
        [table],
    )
    return found[0] if found else None


def _column(name: str, declared: str) -> Column:
    """Return a column; its kind is that of its declared type, where that is a strict one.

    Other types SQLite takes for NUMERIC, or for none: such a column holds whatever was given, and
    is read as text until its values have been looked at.
    """
    upper = declared.upper()
    for prefix, kind in _PREFIXES:
        if upper.startswith(prefix):
            return Column(name, kind, loose=upper.startswith("BLOB"))
    if _INTEGER.fullmatch(upper):
        return Column(name, "integer")
    if _TEXT.search(upper):
        return Column(name, "text")
    return Column(name, "any", loose=True)
