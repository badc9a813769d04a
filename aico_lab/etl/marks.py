"""The mark of a row: how far a watermark has come with it.

A mark is a number as it stands in the column, or the seconds of a time since 1970, whether the time
is written as text, as seconds or as milliseconds. A time that lies in the future counts as the
present one; else a single wrong date would hide every row that comes until then.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from aico_lab.adapters.libsql import Connection

NOW: Final = "unixepoch('now', 'subsec')"

# Numbers are taken for times if one of them lies between these and now. A counter may be taken for
# one, too: then more rows are read again than need be, and none is missed.
_EARLIEST: Final = 10**8  # March 1973
_EARLIEST_MS: Final = 631_152_000_000  # 1990
_NO_SECONDS: Final = 10**11

_MILLIS: Final = 1000


@dataclass(frozen=True, slots=True)
class Mark:
    """SQL for the marks of rows.

    Attributes:
        sql: Of a row: a number, or NULL.
        capped: The same, but at most the present time where it is a time.
        in_millis: Whether numbers of the column are milliseconds since 1970.
    """

    sql: str
    capped: str
    in_millis: bool = False


def of_row_id(column: str) -> Mark:
    """Return the marks of a column that is the row id, so that SQLite can seek it."""
    return Mark(column, column)


def of_column(connection: Connection, table: str, column: str) -> Mark:
    """Return the marks of a column by its values.

    Args:
        connection: The file, inside `snapshot()`.
        table: The table.
        column: The column, as SQL names it in a query of `t`.
    """
    unit = _unit(connection, table, column)
    number = column if unit in (None, 1) else f"{column} / {unit}.0"
    # SQLite takes a text of digits for the number of a day, and 'now' for a time.
    text = f"iif({column} GLOB '[0-9][0-9][0-9][0-9]-*', unixepoch({column}, 'subsec'), NULL)"
    sql = (
        f"CASE typeof({column}) WHEN 'integer' THEN {number} "
        f"WHEN 'real' THEN iif(abs({column}) < 9e999, {number}, NULL) WHEN 'text' THEN {text} END"
    )
    are_times = "1" if unit else f"typeof({column}) = 'text'"
    return Mark(sql, f"iif({are_times}, min({sql}, {NOW}), {sql})", unit == _MILLIS)


def _unit(connection: Connection, table: str, column: str) -> int | None:
    """Return how many of the numbers of a column make a second, or None where they are no times."""
    number = f"iif(typeof({column}) IN ('integer', 'real'), {column}, NULL)"
    (row,) = connection.fetch_all(
        f"SELECT max(iif({number} <= {NOW}, {number}, NULL)), max({number}), "
        f"max(iif({number} <= {NOW} * 1000, {number}, NULL)), "
        f"min(iif({number} = 0, NULL, {number})) "
        f'FROM "{table}" AS t'
    )
    seconds, highest, millis, lowest = row
    if millis is not None and millis >= _EARLIEST_MS and lowest >= _NO_SECONDS:
        return _MILLIS
    if seconds is not None and seconds >= _EARLIEST and highest < _NO_SECONDS:
        return 1
    return None
