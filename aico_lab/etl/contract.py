"""The types of a table's columns on their way from libSQL through Arrow into DuckDB.

The contract is read from the declared types of the live table, so that only the schema states them.
Where a declared type leaves a choice, the values decide: see `aico_lab.etl.settle`.
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
    # Only of columns whose values decide their type; see `aico_lab.etl.settle`.
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

MERGING_KINDS: frozenset[Kind] = frozenset({"any", "json", "timestamp", "seconds", "milliseconds"})
"""Kinds of which different stored values can be equal in the warehouse."""

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
class ColumnContract:
    """A column of a table, and the kind of its values.

    Attributes:
        name: The name of the column.
        kind: The kind of the values.
        stored: False if the primary database no longer has the column; all its values are NULL.
        zoneless: Whether times may lack a zone; they are UTC then.
        loose: Whether the declared type allows any values, so that the values decide the kind.
        digits: For decimal numbers, the number of digits, and of digits after the point.
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
    """The columns and the key of a table, on which the ETL relies.

    Attributes:
        table: The name of the table.
        columns: The columns, in order.
        key: The names of the columns that identify a row.
        rowid: The column that is SQLite's row id; None if there is none or it is not known.
        computed: Further columns of the primary database's table, which follow from other tables
            and are left out of the warehouse.
    """

    table: str
    columns: tuple[ColumnContract, ...]
    key: tuple[str, ...]
    rowid: str | None = None
    computed: tuple[str, ...] = ()

    @property
    def key_kinds(self) -> tuple[Kind, ...]:
        """The kinds of the columns that identify a row."""
        kinds = {column.name: column.kind for column in self.columns}
        return tuple(kinds[name] for name in self.key)

    @property
    def tells_keys_apart(self) -> bool:
        """Whether different keys are different in the warehouse, too.

        Values of several types become text, in which 1 and '1' are the same. Times that are spelled
        differently, or less than a microsecond apart, are one moment.
        """
        return MERGING_KINDS.isdisjoint(self.key_kinds)

    @property
    def arrow_schema(self) -> pa.Schema:
        """The schema of the table in Arrow."""
        return pa.schema([(column.name, column.arrow_type) for column in self.columns])

    @property
    def duckdb_types(self) -> list[tuple[str, str]]:
        """The names of the columns and their types in DuckDB."""
        return [(column.name, column.duckdb_type) for column in self.columns]


def read_contract(
    connection: Connection, table: str, key: tuple[str, ...], computed: tuple[str, ...] = ()
) -> Contract:
    """Read the contract of a table from its declared column types.

    Args:
        connection: The primary database.
        table: The name of the table.
        key: The columns that identify a row.
        computed: Columns to leave out.

    Raises:
        SchemaTampered: The table, or a column of its key, does not exist.
    """
    columns = tuple(
        _column(name, declared)
        for name, declared in connection.fetch_all(
            "SELECT name, type FROM pragma_table_xinfo(?) WHERE hidden <> 1 ORDER BY cid", [table]
        )
        if name not in computed
    )
    gone = set(key).difference(column.name for column in columns)
    if gone:
        raise SchemaTampered(
            f"{connection.path.name} no longer has {table}.{min(gone)}, by which the change feed "
            "names rows: restore the database from a backup."
        )
    return Contract(table, columns, key, rowid_column(connection, table), computed)


def rowid_column(connection: Connection, table: str) -> str | None:
    """Return the column that is an alias of the row id: a primary key without an index."""
    found = connection.fetch_one(
        "SELECT name FROM pragma_table_xinfo(?1) WHERE pk "
        "AND NOT EXISTS (SELECT 1 FROM pragma_index_list(?1) WHERE origin = 'pk')",
        [table],
    )
    return found[0] if found else None


def _column(name: str, declared: str) -> ColumnContract:
    """Return a column with the kind of its declared type.

    Types that SQLite takes for NUMERIC, or for no type, allow any values: the values of such a
    column decide its kind later. BOOLEAN INTEGER, a type of the core schemas, is for integers.
    """
    upper = declared.upper()
    for prefix, kind in _PREFIXES:
        if upper.startswith(prefix):
            is_hint = upper.startswith("BLOB") or (kind == "boolean" and "INT" not in upper)
            return ColumnContract(name, kind, loose=is_hint)
    if _INTEGER.fullmatch(upper):
        return ColumnContract(name, "integer")
    if _TEXT.search(upper):
        return ColumnContract(name, "text")
    return ColumnContract(name, "any", loose=True)
