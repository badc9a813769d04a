"""Choose a type that all values fit for columns that may hold anything.

SQLite takes a declared type for a hint. A column of DECIMAL, DATETIME or of no type may hold any
values, so these decide its type: integers, numbers, decimal numbers, dates, times, booleans or
blobs. If no type fits all of them, the column is text, with every digit of its numbers, and a
warning says so.

Counts of the values give the candidates; each is then tried with the conversion that loads the
rows. So no row is set aside because of a type that is chosen here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from aico_lab.etl.extract import EXACT, holds_only

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aico_lab.adapters.libsql import Connection
    from aico_lab.etl.contract import ColumnContract, Contract

_DECIMAL = re.compile(r"(?:DECIMAL|NUMERIC|NUMBER|DEC)\s*\(\s*(\d+)\s*(?:,\s*(\d+)\s*)?\)")
_PROMISES = re.compile("DEC|NUM|MONEY|CURRENCY|DATE|TIMESTAMP|BOOL|BLOB")
_LARGEST_DECIMAL: Final = 38

# Numbers are taken for times only if the largest is after March 1973, since years and numbers of
# days are smaller, and before 2040; as milliseconds, after 1990. Otherwise the digits of a date
# (2401011011, 20240101101112) would be taken for a time.
_EARLIEST: Final = 10**8
SECONDS: Final = 10**11
"""Times below it are seconds since 1970, others are milliseconds."""

_LATEST: Final = 2_208_988_800
_EARLIEST_MS: Final = 631_152_000_000

_BY_STORAGE: Final = frozenset({"integer", "real", "blob", "any"})
"""Kinds that every value of their storage class fits."""


@dataclass(frozen=True, slots=True)
class _Found:
    """Counts of the values of a column, and its lowest and highest number."""

    integers: int
    reals: int
    texts: int
    blobs: int
    low: float | None
    high: float | None
    wide: int  # integers that floating-point numbers may not represent
    between: int  # nonzero numbers below 10**11: 5138 in seconds, but 1973 in milliseconds


def settle(connection: Connection, contract: Contract) -> tuple[Contract, list[str]]:
    """Choose the kinds of the loosely typed columns of a table by their values.

    Args:
        connection: The database, inside `snapshot()`.
        contract: The table.

    Returns:
        The contract with the kinds of all columns, and a sentence for each column that became text
        although its declared type or some of its values say otherwise.
    """
    loose = [column for column in contract.columns if column.loose and column.stored]
    if not loose:
        return contract, []
    declared: dict[str, str] = dict(
        connection.fetch_all("SELECT name, upper(type) FROM pragma_table_xinfo(?)",
                             [contract.table])
    )  # fmt: skip
    settled: dict[str, ColumnContract] = {}
    warnings = []
    for column in loose:
        type_ = declared[column.name]
        digits = _digits(type_)
        found = _look(connection, contract.table, column.name)
        settled[column.name] = next(
            candidate
            for candidate in _candidates(column, type_, digits, found)
            if not _all(found)
            or candidate.kind in _BY_STORAGE
            or holds_only(connection, contract.table, candidate)
        )
        is_mixed = settled[column.name].kind == "any"
        if is_mixed or (settled[column.name].kind == "text" and _PROMISES.search(type_)):
            warnings.append(
                f"{contract.table}.{column.name} is loaded as text, since its values are not all "
                f"{'of one type' if is_mixed else f'of its declared type {type_}'}."
            )
    columns = tuple(settled.get(column.name, column) for column in contract.columns)
    return replace(contract, columns=columns), warnings


def _digits(declared: str) -> tuple[int, int] | None:
    found = _DECIMAL.fullmatch(declared.strip())
    if not found:
        return None
    whole, fraction = int(found[1]), int(found[2] or 0)
    return (whole, fraction) if 0 < whole <= _LARGEST_DECIMAL and fraction <= whole else None


def _look(connection: Connection, table: str, column: str) -> _Found:
    value = f't."{column}"'
    number = f"iif(typeof({value}) IN ('integer', 'real'), {value}, NULL)"
    counts = ", ".join(
        f"total(typeof({value}) = '{kind}')" for kind in ("integer", "real", "text", "blob")
    )
    (row,) = connection.fetch_all(
        f"SELECT {counts}, min({number}), max({number}), "
        f"total(typeof({value}) = 'integer' AND {value} NOT BETWEEN {-EXACT:.0f} AND {EXACT:.0f}), "
        f'total({number} <> 0 AND {number} < {SECONDS}) FROM "{table}" AS t'
    )
    return _Found(*row)


def _is_time(declared: str) -> bool:
    return "DATE" in declared or declared.startswith("TIMESTAMP")


def _all(found: _Found) -> float:
    return found.integers + found.reals + found.texts + found.blobs


def _candidates(
    column: ColumnContract, declared: str, digits: tuple[int, int] | None, found: _Found
) -> Iterator[ColumnContract]:
    """Yield the column with each kind that may hold all values without loss, narrowest first."""
    if not _all(found):
        yield _declared(column, declared, digits)
    elif found.integers + found.reals == _all(found):
        yield from _of_numbers(column, declared, digits, found)
    elif found.blobs == _all(found):
        yield replace(column, kind="blob")
    elif found.texts == _all(found):
        if _is_time(declared):
            yield replace(column, kind="date")
            yield replace(column, kind="timestamp", zoneless=True)
        yield replace(column, kind="text")
    yield replace(column, kind="any")


def _of_numbers(
    column: ColumnContract, declared: str, digits: tuple[int, int] | None, found: _Found
) -> Iterator[ColumnContract]:
    low, high = found.low or 0, found.high or 0
    if declared.startswith("BOOL"):
        yield replace(column, kind="boolean")
    if _is_time(declared) and high >= _EARLIEST:
        if low > -SECONDS and high < _LATEST:
            yield replace(column, kind="seconds")
        if low >= 0 and _EARLIEST_MS <= high < 1000 * _LATEST and not found.between:
            yield replace(column, kind="milliseconds")
    if digits:
        yield replace(column, kind="decimal", digits=digits)
    if not found.reals:
        yield replace(column, kind="integer")
    elif not found.wide:  # else no type holds the large integers and the fractions
        yield replace(column, kind="real")


def _declared(
    column: ColumnContract, declared: str, digits: tuple[int, int] | None
) -> ColumnContract:
    """Return an empty column with the kind of its declared type."""
    if digits:
        return replace(column, kind="decimal", digits=digits)
    if declared.startswith("BOOL"):
        return replace(column, kind="boolean")
    if declared.startswith("BLOB"):
        return replace(column, kind="blob")
    if declared == "DATE":
        return replace(column, kind="date")
    if _is_time(declared):
        return replace(column, kind="timestamp", zoneless=True)
    return replace(column, kind="text" if not declared else "real")
