"""Read rows of libSQL as Arrow batches; set aside those that do not fit their table's contract.

SQLite lets any column hold any type. Whole columns of a batch are converted at once; only where
that fails are its values looked at one by one. Text is read as bytes and decoded by Arrow, since
the driver truncates text at a NUL and panics on invalid UTF-8.

A large table is read by pages when all of it is read, and else by rows.
"""

from __future__ import annotations

import gc
import json
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from aico_lab.etl.contract import ARROW_TYPES, Column, Contract
from aico_lab.etl.pages import Layout, can_decode, read_columns, read_layout

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from aico_lab.adapters.libsql import Connection
    from aico_lab.adapters.libsql_values import Value

FETCH_ROWS = 2_000
"""Rows fetched at a time: few enough to stay in the processor's cache."""

PAGEWISE = 8_192
"""Leaf pages (32 MB) from which on a table is read by pages: before, Numba would only cost time."""

SHOWN = 200
"""Characters of a value that is set aside which are kept to recognise it by."""

_REASONS = {
    "integer": "is not an integer",
    "real": "is not a number",
    "text": "is not valid UTF-8 text",
    "timestamp": "is not a UTC timestamp in ISO 8601",
    "json": "is not valid JSON in UTF-8",
    "boolean": "is neither 0 nor 1",
    "blob": "is not a blob",
}


@dataclass(frozen=True, slots=True)
class Misfit:
    """A row that does not fit.

    Attributes:
        table: Its table.
        row_key: What identifies it, several columns as text joined by a slash.
        column: The first column that does not fit.
        reason: Why.
        value: The beginning of the value.
    """

    table: str
    row_key: str
    column: str
    reason: str
    value: str


Extracted: TypeAlias = tuple[pa.RecordBatch, list[Misfit]]
Values: TypeAlias = "Sequence[Value] | pa.Array"

_ZONELESS = r"^(\d{4}-\d\d-\d\d[ T]\d\d:\d\d(?::\d\d(?:\.\d+)?)?)$"
"""A time without a zone, such as SQLite's own CURRENT_TIMESTAMP."""

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
    if layout is None or len(layout.leaves) < PAGEWISE or not can_decode():
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
    columns = ", ".join(_expression(column) for column in contract.columns)
    query = f'SELECT {columns} FROM {chosen} "{contract.table}" AS t WHERE {condition}'
    with _without_garbage_collector():
        for rows in connection.fetch_batches(query, parameters, size=FETCH_ROWS):
            values = list(zip(*rows, strict=True))
            try:
                yield _to_batch(contract, values), []
            except _DOES_NOT_FIT:
                yield _sort_out(contract, values)


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
    """Give the keys of all rows that the change feed names, one text column per key column.

    Keys that were only inserted are among them: a foreign program's INSERT OR REPLACE logs nothing
    but the insertion.
    """
    keys = ", ".join(f"CAST({key} AS TEXT)" for key in _log_key(contract))
    rows = connection.fetch_all(
        f"SELECT DISTINCT {keys} FROM change_log WHERE seq > ? AND seq <= ? AND table_name = ?",
        [since, until, contract.table],
    )
    columns = list(zip(*rows, strict=True)) if rows else [() for _ in contract.key]
    return pa.table(
        {name: pa.array(list(values), pa.string())
         for name, values in zip(contract.key, columns, strict=True)}
    )  # fmt: skip


def _log_key(contract: Contract) -> list[str]:
    if len(contract.key) == 1:
        return ["row_key"]
    return [f"json_extract(row_key, '$[{i}]')" for i in range(len(contract.key))]


def _expression(column: Column) -> str:
    """Select a column so that a value of the wrong storage class shows; 0 stands for a misfit."""
    name = f't."{column.name}"' if column.stored else "NULL"
    match column.kind:
        case "text" | "timestamp":
            return f"iif(typeof({name}) = 'blob', 0, CAST({name} AS BLOB))"
        case "json":
            return f"iif({name} IS NULL OR json_valid({name}), CAST({name} AS BLOB), 0)"
        case "blob":
            return f"iif(typeof({name}) IN ('blob', 'null'), {name}, 0)"
        case _:
            return name


def _to_batch(contract: Contract, columns: Sequence[Values]) -> pa.RecordBatch:
    arrays = [
        _convert(column, values) for column, values in zip(contract.columns, columns, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=contract.arrow_schema)


def _sort_out(contract: Contract, values: Sequence[Sequence[Value]]) -> Extracted:
    """Find the rows of a batch that do not fit, and convert the others."""
    first_misfit: dict[int, int] = {}
    for position, column in enumerate(contract.columns):
        for row, value in enumerate(values[position]):
            if row not in first_misfit and not _fits(column, value):
                first_misfit[row] = position
    names = [column.name for column in contract.columns]
    key_positions = [names.index(name) for name in contract.key]
    misfits = [
        Misfit(
            table=contract.table,
            row_key="/".join(readable(values[key][row]) for key in key_positions),
            column=names[position],
            reason=_REASONS[contract.columns[position].kind],
            value=readable(values[position][row])[:SHOWN],
        )
        for row, position in sorted(first_misfit.items())
    ]
    fitting = [
        [value for row, value in enumerate(column_values) if row not in first_misfit]
        for column_values in values
    ]
    return _to_batch(contract, fitting), misfits


def _convert(column: Column, values: Values) -> pa.Array:
    match column.kind:
        case "text" | "json" | "timestamp":
            texts = _array(values, pa.binary()).cast(pa.string())
            if column.zoneless:
                texts = pc.replace_substring_regex(texts, _ZONELESS, r"\1Z")
            return texts.cast(ARROW_TYPES[column.kind])
        case "integer":
            return _integers(values)
        case "boolean":
            integers = _integers(values)
            known = pc.is_in(integers, value_set=pa.array([0, 1, None], pa.int64()))
            if not pc.all(known, min_count=0).as_py():
                raise ValueError("neither 0 nor 1")
            return integers.cast(pa.bool_())
        case _:
            return _array(values, ARROW_TYPES[column.kind])


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


def readable(value: Value) -> str:
    """Write a value as the keys of rows in quarantine are written."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


@contextmanager
def _without_garbage_collector() -> Iterator[None]:
    """Spare the collector the search through millions of values that hold no references."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
