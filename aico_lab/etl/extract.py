"""Read rows of libSQL as Arrow batches; set aside those that do not fit their table's contract.

SQLite lets any column hold any type. Whole columns of a batch are converted at once; only where
that fails are its values looked at one by one. Text is read as bytes and decoded by Arrow, since
the driver truncates text at a NUL and panics on invalid UTF-8.

A large table is read by pages when all of it is read, and else by rows.
"""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from aico_lab.collector import without_garbage_collector
from aico_lab.etl.contract import Column, Contract
from aico_lab.etl.misfits import REASONS, SHOWN, Misfit, literal, readable, row_key
from aico_lab.etl.pages import Layout, read_columns, read_layout
from aico_lab.machine_code import is_available

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from aico_lab.adapters.libsql import Connection
    from aico_lab.adapters.libsql_values import Value

FETCH_ROWS = 2_000
"""Rows fetched at a time: few enough to stay in the processor's cache."""

PAGEWISE = 8_192
"""Leaf pages (32 MB) from which on a table is read by pages: before, Numba would only cost time."""

Extracted: TypeAlias = tuple[pa.RecordBatch, list[Misfit]]
Values: TypeAlias = "Sequence[Value] | pa.Array"

_ZONELESS = r"^(\d{4}-\d\d-\d\d[ T]\d\d:\d\d(?::\d\d(?:\.\d+)?)?)$"
"""A time without a zone, such as SQLite's own CURRENT_TIMESTAMP."""

_NUMBERS = frozenset({"integer", "real", "boolean", "seconds", "milliseconds", "decimal"})
_NO_BLOBS = frozenset({"text", "timestamp", "date", "any"})

EXACT = 2.0**53
"""Below it a floating-point number is every integer exactly."""

_MARKS = 60
"""Columns whose marks share one integer."""

_DOES_NOT_FIT = (pa.ArrowException, TypeError, ValueError, OverflowError)


def extract(
    connection: Connection, contract: Contract, *, since: int | None = None, until: int = 0
) -> Iterator[Extracted]:
    """Read a table, or those of its rows that changed.

    Args:
        connection: The primary database, inside `snapshot()`.
        contract: The table.
        since: Only rows that the change feed names after this sequence number; None for all.
        until: The last sequence number to look at, with `since`.

    Yields:
        Rows that fit, and those that do not.
    """
    if since is not None:
        keys = ", ".join(f"{expression} AS k{i}" for i, expression in enumerate(_log_key(contract)))
        match = " AND ".join(f't."{name}" = k.k{i}' for i, name in enumerate(contract.key))
        changed = (
            f"(SELECT DISTINCT {keys} FROM change_log "
            f"WHERE seq > ? AND seq <= ? AND table_name = ?) AS k CROSS JOIN"
        )
        yield from extract_by_rows(
            connection, contract, match, [since, until, contract.table], chosen=changed
        )
        return
    layout = read_layout(connection, contract)
    if layout is None or len(layout.leaves) < PAGEWISE or not is_available():
        yield from extract_by_rows(connection, contract)
    else:
        yield from _by_pages(connection, contract, layout)


def extract_by_rows(
    connection: Connection,
    contract: Contract,
    condition: str = "1",
    parameters: Sequence[Any] = (),
    *,
    chosen: str = "",
) -> Iterator[Extracted]:
    """Read a table, or a part of it, by SQL alone.

    Args:
        connection: The primary database, inside `snapshot()`.
        contract: The table, which the query names `t`.
        condition: SQL that holds for the rows to read.
        parameters: The values of the placeholders.
        chosen: What the table is joined with, and how, to choose some of its rows.

    Yields:
        Rows that fit, and those that do not.
    """
    for columns, marks in _fetch(connection, contract, condition, parameters, chosen):
        yield _fit(contract, columns, marks)


def extract_keys(
    connection: Connection, contract: Contract, condition: str, parameters: Sequence[Any]
) -> Iterator[tuple[pa.Table, pa.Array]]:
    """Read the keys of a table, or of a part of it.

    Yields:
        The keys that fit, and the names of all of them in quarantine.
    """
    kinds = {column.name: column for column in contract.columns}
    keys = Contract(contract.table, tuple(kinds[name] for name in contract.key), contract.key)
    for columns, marks in _fetch(connection, keys, condition, parameters, ""):
        batch, _ = _fit(keys, columns, marks)
        yield pa.Table.from_batches([batch]), _names(columns)


def _names(keys: Sequence[Sequence[Value]]) -> pa.Array:
    """Return what quarantine calls rows, whole columns at once where that is possible."""
    if len(keys) == 1:
        with contextlib.suppress(pa.ArrowException, TypeError):
            kinds = {*map(type, keys[0])}
            if kinds == {int}:
                return pa.array(keys[0], pa.int64()).cast(pa.string())
            if kinds == {bytes}:
                return pa.array(keys[0], pa.binary()).cast(pa.string())
    return pa.array([row_key(parts) for parts in zip(*keys, strict=True)], pa.string())


def _fetch(
    connection: Connection,
    contract: Contract,
    condition: str,
    parameters: Sequence[Any],
    chosen: str,
) -> Iterator[tuple[list[tuple[Value, ...]], list[tuple[int, ...]]]]:
    """Select rows: their columns, and bits that mark the values of another storage class."""
    count = len(contract.columns)
    selected = [_expression(column) for column in contract.columns]
    selected += [
        " | ".join(
            f"(({mark}) << {bit})"
            for bit, column in enumerate(contract.columns[at : at + _MARKS])
            if (mark := _mark(column))
        )
        or "0"
        for at in range(0, count, _MARKS)
    ]
    query = f'SELECT {", ".join(selected)} FROM {chosen} "{contract.table}" AS t WHERE {condition}'
    with without_garbage_collector():
        for rows in connection.fetch_batches(query, parameters, size=FETCH_ROWS):
            values = list(zip(*rows, strict=True))
            yield values[:count], values[count:]


def _by_pages(connection: Connection, contract: Contract, layout: Layout) -> Iterator[Extracted]:
    """Decode pages; what they do not give, and where something does not fit, select it."""
    for arrays, rowids, left in read_columns(connection, contract, layout):
        unread = left
        try:
            _refuse_invalid_json(connection, contract, arrays, rowids)
            yield _to_batch(contract, arrays), []
        except _DOES_NOT_FIT:
            unread = np.concatenate([rowids, left])
        if len(unread):
            yield from extract_by_rows(
                connection,
                contract,
                "t.rowid = unread.value",
                [json.dumps(unread.tolist())],
                chosen="json_each(?) AS unread CROSS JOIN",
            )


def _refuse_invalid_json(
    connection: Connection,
    contract: Contract,
    arrays: Sequence[pa.Array],
    rowids: NDArray[np.int64],
) -> None:
    """Leave it to SQLite to say what is JSON, as where rows are selected."""
    documents = [
        f'NOT coalesce(json_valid("{column.name}"), 1)'
        for column, array in zip(contract.columns, arrays, strict=True)
        if column.kind == "json" and array.null_count < len(array)
    ]
    if documents and connection.fetch_one(
        f'SELECT 1 FROM "{contract.table}" WHERE rowid BETWEEN ? AND ? '
        f"AND ({' OR '.join(documents)}) LIMIT 1",
        [int(rowids[0]), int(rowids[-1])],
    ):
        raise ValueError("not JSON")


def changed_keys(connection: Connection, contract: Contract, *, since: int, until: int) -> pa.Table:
    """Give the keys of all rows that the change feed names.

    Keys that were only inserted are among them: a foreign program's INSERT OR REPLACE logs nothing
    but the insertion.

    Returns:
        A column `k0`, `k1` and so on for each column of the key, NULL where a key does not fit, and
        `row_key`, by which quarantine knows the row.
    """
    keys = ", ".join(f"CAST({key} AS BLOB)" for key in _log_key(contract))
    rows = connection.fetch_all(
        f"SELECT DISTINCT {keys} FROM change_log WHERE seq > ? AND seq <= ? AND table_name = ?",
        [since, until, contract.table],
    )
    columns = list(zip(*rows, strict=True)) if rows else [() for _ in contract.key]
    kinds = {column.name: column for column in contract.columns}
    stored: list[Sequence[Value]] = [
        [*map(_number, keys)] if kinds[name].kind in _NUMBERS else keys
        for name, keys in zip(contract.key, columns, strict=True)
    ]
    arrays = [
        _convert_or_null(kinds[name], keys) for name, keys in zip(contract.key, stored, strict=True)
    ]
    names = [f"k{i}" for i in range(len(arrays))]
    return pa.Table.from_arrays([*arrays, _names(stored)], [*names, "row_key"])


def _convert_or_null(column: Column, values: Sequence[Value]) -> pa.Array:
    try:
        return _convert(column, values)
    except _DOES_NOT_FIT:
        return _convert(column, [value if _fits(column, value) else None for value in values])


def _number(logged: bytes | None) -> Value:
    """Return a number that the change feed logged as text."""
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return logged and kind(logged)
    return logged


def _log_key(contract: Contract) -> list[str]:
    if len(contract.key) == 1:
        return ["row_key"]
    return [f"json_extract(row_key, '$[{i}]')" for i in range(len(contract.key))]


def _expression(column: Column) -> str:
    """Select a column: texts as bytes, numbers as they are, so that none is rounded."""
    name = _name(column)
    if column.kind in ("text", "timestamp", "date", "blob"):
        return f"CAST({name} AS BLOB)"
    if column.kind == "json":
        return f"iif(typeof({name}) = 'real', {name}, CAST({name} AS BLOB))"
    return f"iif(typeof({name}) = 'text', CAST({name} AS BLOB), {name})"


def _mark(column: Column) -> str:
    """Give SQL that is 1 for a value whose type does not show in what is selected."""
    match column.kind:
        case "text" | "timestamp" | "date" | "any":
            return f"typeof({_name(column)}) = 'blob'"
        case "json":
            return f"NOT coalesce(json_valid({_name(column)}), 1)"
        case "blob":
            return f"typeof({_name(column)}) NOT IN ('blob', 'null')"
        case _:
            return ""


def _name(column: Column) -> str:
    return f't."{column.name}"' if column.stored else "NULL"


def _to_batch(contract: Contract, columns: Sequence[Values]) -> pa.RecordBatch:
    arrays = [
        _convert(column, values) for column, values in zip(contract.columns, columns, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=contract.arrow_schema)


def _fit(
    contract: Contract, columns: Sequence[Sequence[Value]], marks: Sequence[Sequence[int]]
) -> Extracted:
    if not any(map(any, marks)):
        with contextlib.suppress(*_DOES_NOT_FIT):
            return _to_batch(contract, columns), []
    return _sort_out(contract, columns, marks)


def _sort_out(
    contract: Contract, columns: Sequence[Sequence[Value]], marks: Sequence[Sequence[int]]
) -> Extracted:
    """Find all values of a batch that do not fit, and convert the rows that have none."""
    unfit: list[tuple[int, int, bool]] = []
    for position, column in enumerate(contract.columns):
        bits = marks[position // _MARKS]
        marked = {row for row, bit in enumerate(bits) if bit >> position % _MARKS & 1}
        unfit += [
            (row, position, row in marked) for row in _unfit(column, columns[position], marked)
        ]
    names = [column.name for column in contract.columns]
    keys = [columns[names.index(name)] for name in contract.key]
    misfits = [
        Misfit(
            table=contract.table,
            row_key=row_key([key[row] for key in keys]),
            column=names[position],
            reason=REASONS[contract.columns[position].kind],
            value=_shown(contract.columns[position], columns[position][row], is_marked),
        )
        for row, position, is_marked in sorted(unfit)
    ]
    rows = {row for row, *_ in unfit}
    fitting = columns
    if rows:
        fitting = [
            [value for row, value in enumerate(values) if row not in rows] for values in columns
        ]
    return _to_batch(contract, fitting), misfits


def _unfit(column: Column, values: Sequence[Value], marked: set[int]) -> set[int]:
    """Find the values that do not fit, one by one only where the whole column does not."""
    try:
        _convert(column, [value for row, value in enumerate(values) if row not in marked])
    except _DOES_NOT_FIT:
        return marked | {row for row, value in enumerate(values) if not _fits(column, value)}
    return marked


def _shown(column: Column, value: Value, is_marked: bool) -> str:  # noqa: FBT001
    """Return the beginning of a value that does not fit; a blob among texts as a literal."""
    if is_marked and isinstance(value, bytes) and column.kind in _NO_BLOBS:
        return literal(value[:SHOWN])[:SHOWN]
    return readable(value)[:SHOWN]


def _convert(column: Column, values: Values) -> pa.Array:
    match column.kind:
        case "text" | "json" | "timestamp" | "date" | "any":
            texts = _texts(column, values)
            if column.zoneless and column.kind == "timestamp":
                texts = pc.replace_substring_regex(texts, _ZONELESS, r"\1Z")
            return texts.cast(column.arrow_type)
        case "integer":
            return _integers(values)
        case "boolean":
            integers = _integers(values)
            known = pc.is_in(integers, value_set=pa.array([0, 1, None], pa.int64()))
            if not pc.all(known, min_count=0).as_py():
                raise ValueError("neither 0 nor 1")
            return integers.cast(pa.bool_())
        case "seconds" | "milliseconds":
            unit = 1e6 if column.kind == "seconds" else 1e3
            micros = pc.round(pc.multiply(_array(values, pa.float64()), unit))
            return micros.cast(pa.int64()).cast(column.arrow_type)
        case "decimal":
            return _decimals(_array(values, pa.float64()), column)
        case _:
            return _array(values, column.arrow_type)


def _decimals(numbers: pa.Array, column: Column) -> pa.Array:
    """Convert numbers that are the nearest ones to decimal numbers of so many digits."""
    digits, unit = column.digits[0], 10.0 ** column.digits[1]
    scaled = pc.round(pc.multiply(numbers, unit))
    fits = pc.and_(
        pc.equal(pc.divide(scaled, unit), numbers),
        pc.less(pc.abs(scaled), min(10.0**digits, EXACT)),
    )
    if not pc.all(fits, min_count=0).as_py():
        raise ValueError("has more digits")
    return numbers.cast(column.arrow_type)


def _texts(column: Column, values: Values) -> pa.Array:
    """Decode texts; where a column may hold numbers too, write them with all their digits."""
    try:
        return _array(values, pa.binary()).cast(pa.string())
    except (TypeError, pa.ArrowException):
        if column.kind not in ("any", "json"):
            raise
    written = [
        repr(value).encode() if isinstance(value, int | float) else value for value in values
    ]
    return pa.array(written, pa.binary()).cast(pa.string())


def _integers(values: Values) -> pa.Array:
    if not isinstance(values, pa.Array) and not {*map(type, values)} <= {int, type(None)}:
        raise TypeError("not an integer")  # Arrow would cut off the fraction of a float
    return _array(values, pa.int64())


def _array(values: Values, type_: pa.DataType) -> pa.Array:
    return values if isinstance(values, pa.Array) else pa.array(values, type_)


def _fits(column: Column, value: Value) -> bool:
    try:
        _convert(column, [value])
    except _DOES_NOT_FIT:
        return False
    return True
