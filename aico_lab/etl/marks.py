"""The mark of a row: the value that is compared with a watermark.

A mark is the number in the watermark's column, or a time in seconds since 1970, whether the column
holds it as text, in seconds or in milliseconds. A time in the future counts as the present time;
otherwise one wrong date would hide every row that comes until then.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aico_lab.constants import FIRST_PLAUSIBLE_MS, NO_SECONDS

if TYPE_CHECKING:
    from aico_lab.adapters.libsql import Connection

NOW: Final = "unixepoch('now', 'subsec')"

EARLIEST_SECONDS: Final = 10**8
"""March 1973 in seconds since 1970: smaller numbers may be years or numbers of days."""

_MILLIS: Final = 1000


@dataclass(frozen=True, slots=True)
class Mark:
    """SQL for the marks of rows.

    Attributes:
        sql: The mark of a row: a number, or NULL.
        capped: The mark of a row; if it is a time, at most the present time.
        in_millis: Whether numbers of the column are milliseconds since 1970.
    """

    sql: str
    capped: str
    in_millis: bool = False


def of_row_id(column: str) -> Mark:
    """Return marks that are the row id itself, so that SQLite can seek it."""
    return Mark(column, column)


def of_column(connection: Connection, table: str, column: str) -> Mark:
    """Return the marks of a column; its values decide whether these are numbers or times.

    Args:
        connection: The file, inside `snapshot()`.
        table: The table.
        column: The column, as SQL names it in a query of `t`.
    """
    unit = _unit(connection, table, column)
    number = column if unit in (None, 1) else f"{column} / {unit}.0"
    # unixepoch() would take a text of digits for the number of a day, and 'now' for a time.
    text = f"iif({column} GLOB '[0-9][0-9][0-9][0-9]-*', unixepoch({column}, 'subsec'), NULL)"
    sql = (
        f"CASE typeof({column}) WHEN 'integer' THEN {number} "
        f"WHEN 'real' THEN iif(abs({column}) < 9e999, {number}, NULL) WHEN 'text' THEN {text} END"
    )
    are_times = "1" if unit else f"typeof({column}) = 'text'"
    return Mark(sql, f"iif({are_times}, min({sql}, {NOW}), {sql})", unit == _MILLIS)


def _unit(connection: Connection, table: str, column: str) -> int | None:
    """Return units per second if the numbers of a column are times: 1 or 1,000; else None."""
    number = f"iif(typeof({column}) IN ('integer', 'real'), {column}, NULL)"
    (row,) = connection.fetch_all(
        f"SELECT max(iif({number} <= {NOW}, {number}, NULL)), max({number}), "
        f"max(iif({number} <= {NOW} * 1000, {number}, NULL)), "
        f"min(iif({number} = 0, NULL, {number})) "
        f'FROM "{table}" AS t'
    )
    seconds, highest, millis, lowest = row
    # If a counter is taken for a time, more rows than necessary are read again, but none is missed.
    if millis is not None and millis >= FIRST_PLAUSIBLE_MS and lowest >= NO_SECONDS:
        return _MILLIS
    if seconds is not None and seconds >= EARLIEST_SECONDS and highest < NO_SECONDS:
        return 1
    return None
