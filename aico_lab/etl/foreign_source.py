"""A table of another program's database: its contract, its key, and which of its rows are new.

No change feed names the changes there, so a watermark tells which rows are new: the highest row id,
or the highest number or time in a column, that was read (see `aico_lab.etl.marks`). A later load
reads the rows from there on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from aico_lab.adapters.sql_text import folded
from aico_lab.errors import InvalidValue, SourceUnreadable, UnknownName, did_you_mean
from aico_lab.etl.contract import ColumnContract, Contract, read_contract
from aico_lab.etl.extract import extract, extract_by_rows, extract_keys
from aico_lab.etl.marks import of_column, of_row_id
from aico_lab.etl.settle import settle

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa

    from aico_lab.adapters.libsql import Connection
    from aico_lab.etl.extract import Extracted
    from aico_lab.etl.marks import Mark

ROWID: Final = "rowid"
NAMED: Final = 20
"""The maximum number of tables or columns that an error lists."""

Reached = int | float | None
"""The value of a watermark: the highest mark that was read, or None."""


@dataclass(frozen=True, slots=True)
class ForeignSource:
    """A table of another program's file, ready to be loaded.

    Attributes:
        connection: A connection to the file of the table, inside `snapshot()`.
        contract: The contract of the table; the first column is the row id if that is the key.
        watermark: The column of the marks, or 'rowid'.
        keyed_by_rowid: Whether only the row id identifies a row.
        mark: SQL for the mark of a row.
        warnings: Sentences about the types of the columns.
    """

    connection: Connection
    contract: Contract
    watermark: str
    keyed_by_rowid: bool
    mark: Mark
    warnings: list[str]

    @property
    def marked_by(self) -> str:
        """The watermark column and its unit; only marks with the same ones can be compared."""
        return f"{self.watermark} in milliseconds" if self.mark.in_millis else self.watermark

    def newest(self) -> Reached:
        """Return the highest mark; a time in the future counts as the present time.

        Raises:
            InvalidValue: The column holds values, but neither numbers nor times.
        """
        return _newest(self.connection, self.contract.table, self.watermark, self.mark)

    def count(self, since: Reached) -> int:
        """Return the number of rows that `rows` reads."""
        condition, parameters = self._from(since)
        row = self.connection.fetch_one(
            f'SELECT count(*) FROM "{self.contract.table}" AS t WHERE {condition}', parameters
        )
        return row[0] if row else 0

    def rows(self, since: Reached) -> Iterator[Extracted]:
        """Read the rows whose mark is NULL or at least `since`; all rows if `since` is None."""
        if since is None:
            return extract(self.connection, self.contract)
        return extract_by_rows(self.connection, self.contract, *self._from(since))

    def keys(self, since: Reached) -> Iterator[tuple[pa.Table, pa.Array]]:
        """Read the keys of the rows that `rows` reads: see `extract_keys`."""
        return extract_keys(self.connection, self.contract, *self._from(since))

    def _from(self, since: Reached) -> tuple[str, list[Reached]]:
        if since is None:
            return "1", []  # not `true`, which may be a column
        if self.watermark == ROWID:
            return f"{self.mark.sql} >= ?", [since]  # so that SQLite seeks the row id
        return f"coalesce(({self.mark.sql}) >= ?, 1)", [since]


def read_source(
    connection: Connection, table: str, *, key: Sequence[str] | None, watermark: str
) -> ForeignSource:
    """Return a table with its contract, its key and its marks.

    Args:
        connection: The file, inside `snapshot()`.
        table: The name of a table or view; the case of ASCII letters is ignored.
        key: The columns that identify a row; else the primary key, unless several rows have NULL
            in it, which SQLite allows; else the row id.
        watermark: The column of the marks, or 'rowid'.

    Raises:
        UnknownName: There is no such table or column.
        InvalidValue: The table has no key, or several rows have the same key, or the watermark is
            the row id and there is none.
        SourceUnreadable: The file's texts are not UTF-8, or a name cannot be used in the warehouse.
    """
    name, has_rowid = _find_table(connection, table)
    columns = _columns(connection, name)
    _refuse_unreadable(connection, name, columns)
    own_key = connection.fetch_all(
        "SELECT name, upper(type) FROM pragma_table_xinfo(?) WHERE pk ORDER BY pk", [name]
    )
    names = {folded(column.name): column.name for column in columns}
    by_default = folded(watermark) == ROWID and ROWID not in names
    remarks = []
    hidden = {key for key in names if own_key != [(names[key], "INTEGER")]}
    rowid = next((r for r in (ROWID, "_rowid_", "oid") if has_rowid and r not in hidden), None)
    if key:
        chosen = tuple(_column(connection, name, names, column) for column in key)
        _refuse_repeated(connection, name, chosen)
    elif own_key and not (rowid and _repeats_nulls(connection, name, own_key)):
        chosen = tuple(column for column, _ in own_key)
    elif rowid:
        if own_key:
            remarks.append(
                f"Several rows of {name} have no value in {', '.join(c for c, _ in own_key)}, its "
                f"primary key: the row id, which is loaded too, identifies its rows."
            )
        chosen, columns = (rowid,), (ColumnContract(rowid, "integer"), *columns)
    else:
        raise InvalidValue(
            f"{name} has neither a primary key nor a row id: name the columns that identify "
            "a row with --key"
            + (", and a column that grows with --watermark." if by_default else ".")
        )
    contract, warnings = settle(connection, Contract(name, columns, chosen))
    warnings = [*remarks, *warnings]
    by_rowid = chosen == (rowid,)
    if by_default and rowid:
        mark = of_row_id(f't."{rowid}"')
        return ForeignSource(connection, contract, ROWID, by_rowid, mark, warnings)
    if by_default:
        raise InvalidValue(f"{name} has no row id: name a column with --watermark.")
    column = _column(connection, name, names, watermark)
    mark = of_column(connection, name, f't."{column}"')
    return ForeignSource(connection, contract, column, by_rowid, mark, warnings)


def check_source(
    connection: Connection, table: str, *, key: Sequence[str] | None, watermark: str
) -> None:
    """Validate a table, its key and its watermark, without reading the rows.

    Raises:
        UnknownName: There is no such table or column.
        InvalidValue: Several rows have the same key, or the watermark holds neither numbers nor
            times.
    """
    name, _ = _find_table(connection, table)
    names = {
        folded(column.name): column.name for column in read_contract(connection, name, ()).columns
    }
    if key:
        chosen = tuple(_column(connection, name, names, column) for column in key)
        _refuse_repeated(connection, name, chosen)
    if folded(watermark) != ROWID:
        column = _column(connection, name, names, watermark)
        _newest(connection, name, column, of_column(connection, name, f't."{column}"'))


def _newest(connection: Connection, table: str, watermark: str, mark: Mark) -> Reached:
    """Return the highest mark of a table.

    Raises:
        InvalidValue: The column holds values, but neither numbers nor times.
    """
    rows = f'"{table}" AS t'
    row = connection.fetch_one(f"SELECT max({mark.capped}) FROM {rows}")
    newest: Reached = row[0] if row else None
    if newest is None and connection.fetch_one(
        f'SELECT 1 FROM {rows} WHERE t."{watermark}" IS NOT NULL LIMIT 1'
    ):
        raise InvalidValue(
            f"{watermark} of {table} holds neither numbers nor times: "
            "name another column with --watermark."
        )
    return newest


def _columns(connection: Connection, table: str) -> tuple[ColumnContract, ...]:
    """Return the columns of a table, with types as loose as other programs use them.

    A boolean may be a text, and a time may be a number or a text without a zone.
    """
    return tuple(
        replace(
            column,
            loose=column.loose
            or column.kind == "boolean"
            or _holds_numbers(connection, table, column),
            zoneless=True,
        )
        for column in read_contract(connection, table, ()).columns
    )


def _holds_numbers(connection: Connection, table: str, column: ColumnContract) -> bool:
    """Return whether a column is declared to hold times, and its first value is a number."""
    return column.kind == "timestamp" and bool(
        connection.fetch_one(
            f'SELECT 1 FROM (SELECT "{column.name}" AS v FROM "{table}" '
            f"WHERE \"{column.name}\" IS NOT NULL LIMIT 1) WHERE typeof(v) IN ('integer', 'real')"
        )
    )


def _find_table(connection: Connection, table: str) -> tuple[str, bool]:
    """Return the name of a table in its own spelling, and whether its rows have row ids."""
    found = connection.fetch_all(
        "SELECT name, type <> 'view' AND NOT wr FROM pragma_table_list WHERE schema = 'main' "
        "AND type IN ('table', 'view', 'virtual') AND name NOT GLOB 'sqlite_*' ORDER BY name"
    )
    for name, has_rowid in found:
        if folded(name) == folded(table):
            return name, bool(has_rowid)
    names = [name for name, _ in found]
    end = did_you_mean(table, names, f"; it has {_list(names)}.")
    raise UnknownName(f"{connection.path.name} has no table {table!r}{end}")


def _column(connection: Connection, table: str, names: dict[str, str], wanted: str) -> str:
    if folded(wanted) not in names:
        end = did_you_mean(wanted, names.values(), f"; it has {_list(list(names.values()))}.")
        raise UnknownName(f"{table} of {connection.path.name} has no column {wanted!r}{end}")
    return names[folded(wanted)]


def _list(names: list[str]) -> str:
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return f"{', '.join(names[:NAMED])}{more}" if names else "none at all"


def _refuse_unreadable(
    connection: Connection, table: str, columns: tuple[ColumnContract, ...]
) -> None:
    if connection.fetch_one("PRAGMA encoding") != ("UTF-8",):
        raise SourceUnreadable(
            f"{connection.path.name} stores its texts as UTF-16: copy its tables into a new "
            "database, which will be UTF-8, and load that."
        )
    for name in (table, *(column.name for column in columns)):
        if not name or '"' in name:
            raise SourceUnreadable(
                f"The warehouse cannot use {name!r} of {connection.path.name} as a name: "
                "load a view that gives it another one."
            )


def _repeats_nulls(connection: Connection, table: str, key: Sequence[tuple[str, str]]) -> bool:
    """Return whether several rows have the same primary key, of which a column is NULL."""
    columns = [column for column, _ in key]
    empty = " OR ".join(f'"{column}" IS NULL' for column in columns)
    return _is_repeated(connection, table, columns, f"WHERE {empty}")


def _is_repeated(
    connection: Connection, table: str, key: Sequence[str], condition: str = ""
) -> bool:
    columns = ", ".join(f'"{column}"' for column in key)
    found = connection.fetch_one(
        f'SELECT 1 FROM "{table}" {condition} GROUP BY {columns} HAVING count(*) > 1 LIMIT 1'
    )
    return found is not None


def _refuse_repeated(connection: Connection, table: str, key: tuple[str, ...]) -> None:
    if _is_repeated(connection, table, key):
        raise InvalidValue(
            f"Several rows of {table} have the same {', '.join(key)}: "
            "name the columns that identify a row with --key."
        )
