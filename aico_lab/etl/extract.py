"""Read rows of libSQL as Arrow batches; set aside those that do not fit their table's contract.

SQLite lets any column hold any type. Whole columns of a batch are converted at once; their values
are examined one by one only if that fails. Text is read as bytes and decoded by Arrow, since the
driver truncates text at a NUL and panics on invalid UTF-8.

A large table that is read whole is read by pages; everything else is read by rows.
"""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from aico_lab.etl.contract import ColumnContract, Contract
from aico_lab.etl.misfits import AMBIGUOUS, REASONS, SHOWN, Misfit, readable, row_key
from aico_lab.etl.pages import Layout, read_columns, read_layout
from aico_lab.runtime.garbage_collector import without_garbage_collector
from aico_lab.runtime.machine_code import is_available
from aico_lab.schema import feed_keys
from aico_lab.schema.feed_keys import Part, literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from aico_lab.adapters.libsql import Connection
    from aico_lab.adapters.libsql_values import Value
    from aico_lab.etl.contract import Kind

FETCH_ROWS = 2_000
"""Rows fetched at a time: few enough to stay in the processor's cache."""

PAGEWISE = 8_192
"""Leaf pages (32 MB) from which a table is read by pages: with fewer, loading Numba costs more time
than it saves."""

Extracted: TypeAlias = tuple[pa.RecordBatch, list[Misfit]]
Values: TypeAlias = "Sequence[Value] | pa.Array"

_ZONELESS = r"^(\d{4}-\d\d-\d\d[ T]\d\d:\d\d(?::\d\d(?:\.\d+)?)?)$"
"""A time without a zone, such as SQLite's own CURRENT_TIMESTAMP."""

_NO_BLOBS = frozenset({"text", "timestamp", "date"})
_SHOWN_CLASSES: dict[Kind, str] = {
    **dict.fromkeys(("text", "timestamp", "date", "json", "any"), "text"), "blob": "blob",
}  # fmt: skip
"""The storage class of which `_expression` selects the exact values; 'integer' for other kinds."""

EXACT = 2.0**53
"""Floating-point numbers represent every integer below this one exactly."""

_MARKS = 60
"""The number of columns that have their marks in one integer."""

DOES_NOT_FIT = (pa.ArrowException, TypeError, ValueError, OverflowError)


def extract(connection: Connection, contract: Contract) -> Iterator[Extracted]:
    """Read a whole table.

    Args:
        connection: The primary database, inside `snapshot()`.
        contract: The table.

    Yields:
        Rows that fit, and those that do not.
    """
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
        condition: SQL that is true for the rows to read.
        parameters: The values of the placeholders.
        chosen: SQL before the table in FROM, such as a join that selects some of its rows.

    Yields:
        Rows that fit, and those that do not.
    """
    for rows in _fetch(connection, contract, condition, parameters, chosen):
        yield _fit(contract, rows)


def extract_keys(
    connection: Connection, contract: Contract, condition: str, parameters: Sequence[Any]
) -> Iterator[tuple[pa.Table, pa.Array]]:
    """Read the keys of a table, or of a part of it.

    Yields:
        The keys that fit, and the names of all of them in quarantine.
    """
    kinds = {column.name: column for column in contract.columns}
    keys = Contract(contract.table, tuple(kinds[name] for name in contract.key), contract.key)
    for rows in _fetch(connection, keys, condition, parameters, ""):
        batch, _ = _fit(keys, rows)
        yield pa.Table.from_batches([batch]), _names(keys, rows)


class _Rows(NamedTuple):
    """Selected rows.

    Attributes:
        columns: The values of each column, as `_expression` selects them.
        marks: Integers whose bits are the marks of the values; see `_mark`.
        keys: The encoded key of each row; None if `columns` shows its storage classes.
    """

    columns: Sequence[Sequence[Value]]
    marks: Sequence[Sequence[int]]
    keys: Sequence[bytes | None]


def _names(keys: Contract, rows: _Rows) -> pa.Array:
    """Return the names of rows in quarantine, of a whole column at once if possible."""
    if len(rows.columns) == 1 and not any(rows.keys) and keys.key_kinds[0] != "blob":
        plain = plain_names(rows.columns[0])
        if plain is not None:
            return plain
    return pa.array([row_key(key) for key in _parts(keys, rows)], pa.string())


def plain_names(values: Sequence[Value]) -> pa.Array | None:
    """Return the names of rows, or None if a name differs from the text of its key.

    Args:
        values: The keys: integers, or texts as bytes.
    """
    with contextlib.suppress(pa.ArrowException, TypeError):
        kinds = {*map(type, values)}
        if kinds == {int}:
            return pa.array(values, pa.int64()).cast(pa.string())
        if kinds == {bytes}:
            texts = pa.array(values, pa.binary()).cast(pa.string())
            if not pc.any(pc.match_substring_regex(texts, f"^{AMBIGUOUS}$")).as_py():
                return texts
    return None


def _parts(contract: Contract, rows: _Rows) -> Iterator[tuple[Part, ...]]:
    """Yield the key of every row of a batch."""
    names = [column.name for column in contract.columns]
    blobs = [kind == "blob" for kind in contract.key_kinds]
    plain = zip(*(rows.columns[names.index(name)] for name in contract.key), strict=True)
    for encoded, values in zip(rows.keys, plain, strict=True):
        if encoded is None:
            yield tuple(map(Part, values, blobs))
        else:
            yield feed_keys.read(encoded, is_blob=True, columns=len(blobs))


def _fetch(
    connection: Connection,
    contract: Contract,
    condition: str,
    parameters: Sequence[Any],
    chosen: str,
) -> Iterator[_Rows]:
    """Select rows of a table."""
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
    selected.append(_encoded_key(contract))
    query = f'SELECT {", ".join(selected)} FROM {chosen} "{contract.table}" AS t WHERE {condition}'
    with without_garbage_collector():
        for rows in connection.fetch_batches(query, parameters, size=FETCH_ROWS):
            *values, keys = zip(*rows, strict=True)
            yield _Rows(values[:count], values[count:], keys)


def _encoded_key(contract: Contract) -> str:
    """Return SQL for the key of a row; NULL if the selected columns show its storage classes."""
    if not contract.key:
        return "NULL"
    shown = " AND ".join(
        f"typeof(t.\"{name}\") = '{_SHOWN_CLASSES.get(kind, 'integer')}'"
        for name, kind in zip(contract.key, contract.key_kinds, strict=True)
    )
    return f"CASE WHEN {shown} THEN NULL ELSE {feed_keys.typed_expression('t', contract.key)} END"


def holds_only(connection: Connection, table: str, column: ColumnContract) -> bool:
    """Return whether every value of a column fits."""
    for rows in _fetch(connection, Contract(table, (column,), ()), "1", (), ""):
        if any(map(any, rows.marks)) or _convert_or_none(column, rows.columns[0]) is None:
            return False
    return True


def _convert_or_none(column: ColumnContract, values: Sequence[Value]) -> pa.Array | None:
    try:
        return convert(column, values)
    except DOES_NOT_FIT:
        return None


def _by_pages(connection: Connection, contract: Contract, layout: Layout) -> Iterator[Extracted]:
    """Decode pages; select rows by SQL if they cannot be decoded or a value does not fit."""
    for arrays, rowids, left in read_columns(connection, contract, layout):
        unread = left
        try:
            _refuse_invalid_json(connection, contract, arrays, rowids)
            yield _to_batch(contract, arrays), []
        except DOES_NOT_FIT:
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
    """Raise ValueError if SQLite finds a value that is not JSON, as when rows are selected."""
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


def _expression(column: ColumnContract) -> str:
    """Return SQL that selects a column: texts as bytes, and numbers as they are, not rounded."""
    name = _name(column)
    if column.kind in ("text", "timestamp", "date"):
        return f"CAST({name} AS BLOB)"
    if column.kind == "any":
        return (
            f"CASE typeof({name}) WHEN 'text' THEN CAST({name} AS BLOB) "
            f"WHEN 'blob' THEN CAST('x''' || lower(hex({name})) || '''' AS BLOB) "
            f"ELSE {name} END"
        )
    if column.kind == "json":
        return f"iif(typeof({name}) = 'real', {name}, CAST({name} AS BLOB))"
    return f"iif(typeof({name}) = 'text', CAST({name} AS BLOB), {name})"


def _mark(column: ColumnContract) -> str:
    """Return SQL that is 1 for values whose type is lost in the selection by `_expression`."""
    match column.kind:
        case "text" | "timestamp" | "date":
            return f"typeof({_name(column)}) = 'blob'"
        case "json":
            return f"NOT coalesce(json_valid({_name(column)}), 1)"
        case "blob":
            return f"typeof({_name(column)}) NOT IN ('blob', 'null')"
        case _:
            return ""


def _name(column: ColumnContract) -> str:
    return f't."{column.name}"' if column.stored else "NULL"


def _to_batch(contract: Contract, columns: Sequence[Values]) -> pa.RecordBatch:
    arrays = [
        convert(column, values) for column, values in zip(contract.columns, columns, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=contract.arrow_schema)


def _fit(contract: Contract, rows: _Rows) -> Extracted:
    if not any(map(any, rows.marks)):
        with contextlib.suppress(*DOES_NOT_FIT):
            return _to_batch(contract, rows.columns), []
    return _sort_out(contract, rows)


def _sort_out(contract: Contract, rows: _Rows) -> Extracted:
    """Find all values of a batch that do not fit, and convert the rows without such values."""
    columns = rows.columns
    unfit: list[tuple[int, int, bool]] = []
    for position, column in enumerate(contract.columns):
        bits = rows.marks[position // _MARKS]
        marked = {row for row, bit in enumerate(bits) if bit >> position % _MARKS & 1}
        unfit += [
            (row, position, row in marked) for row in _unfit(column, columns[position], marked)
        ]
    keys = list(_parts(contract, rows))
    unfit.sort()
    misfits = [
        Misfit(
            table=contract.table,
            row_key=row_key(keys[row]),
            column=contract.columns[position].name,
            reason=REASONS[contract.columns[position].kind],
            value=_shown(contract.columns[position], columns[position][row], is_marked),
            is_first=number == 0 or unfit[number - 1][0] != row,
        )
        for number, (row, position, is_marked) in enumerate(unfit)
    ]
    aside = {row for row, *_ in unfit}
    fitting = columns
    if aside:
        fitting = [
            [value for row, value in enumerate(values) if row not in aside] for values in columns
        ]
    return _to_batch(contract, fitting), misfits


def _unfit(column: ColumnContract, values: Sequence[Value], marked: set[int]) -> set[int]:
    """Return the rows whose value does not fit; test one by one only if the whole column fails."""
    try:
        convert(column, [value for row, value in enumerate(values) if row not in marked])
    except DOES_NOT_FIT:
        return marked | {row for row, value in enumerate(values) if not fits(column, value)}
    return marked


def _shown(column: ColumnContract, value: Value, is_marked: bool) -> str:  # noqa: FBT001
    """Return the beginning of a value that does not fit; a blob in a text column as a literal."""
    if is_marked and isinstance(value, bytes) and column.kind in _NO_BLOBS:
        return literal(Part(value[:SHOWN], is_blob=True))[:SHOWN]
    return readable(value)[:SHOWN]


def convert(column: ColumnContract, values: Values) -> pa.Array:
    """Convert the values of a column to its Arrow type.

    Raises:
        ArrowException, TypeError, ValueError, OverflowError: A value does not fit.
    """
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


def _decimals(numbers: pa.Array, column: ColumnContract) -> pa.Array:
    """Convert floats that are nearest to a decimal number with at most the column's digits."""
    digits, unit = column.digits[0], 10.0 ** column.digits[1]
    scaled = pc.round(pc.multiply(numbers, unit))
    fits = pc.and_(
        pc.equal(pc.divide(scaled, unit), numbers),
        pc.less(pc.abs(scaled), min(10.0**digits, EXACT)),
    )
    if not pc.all(fits, min_count=0).as_py():
        raise ValueError("has more digits")
    return numbers.cast(column.arrow_type)


def _texts(column: ColumnContract, values: Values) -> pa.Array:
    """Decode texts.

    In columns of any values, numbers become texts with all their digits, and texts that are not
    UTF-8 become literals of SQL, as blobs do.
    """
    try:
        return _array(values, pa.binary()).cast(pa.string())
    except (TypeError, pa.ArrowException):
        if column.kind not in ("any", "json") or isinstance(values, pa.Array):
            raise
    written = [
        repr(value).encode() if isinstance(value, int | float) else value for value in values
    ]
    if column.kind == "any":
        written = [_utf8(value) if isinstance(value, bytes) else value for value in written]
    return pa.array(written, pa.binary()).cast(pa.string())


def _utf8(text: bytes) -> bytes:
    try:
        text.decode()
    except UnicodeDecodeError:
        return literal(Part(text)).encode()
    return text


def _integers(values: Values) -> pa.Array:
    if not isinstance(values, pa.Array) and not {*map(type, values)} <= {int, type(None)}:
        raise TypeError("not an integer")  # Arrow would cut off the fraction of a float
    return _array(values, pa.int64())


def _array(values: Values, type_: pa.DataType) -> pa.Array:
    return values if isinstance(values, pa.Array) else pa.array(values, type_)


def fits(column: ColumnContract, value: Value) -> bool:
    """Return whether a value can be converted to the type of its column."""
    try:
        convert(column, [value])
    except DOES_NOT_FIT:
        return False
    return True
