"""Read the changes of a tracked table: the keys that the change feed names, and their rows."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from aico_lab.etl.contract import MERGING_KINDS
from aico_lab.etl.extract import DOES_NOT_FIT, convert, extract_by_rows, fits, plain_names
from aico_lab.etl.misfits import row_key
from aico_lab.schema import feed_keys

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from aico_lab.adapters.libsql import Connection
    from aico_lab.adapters.libsql_values import Value
    from aico_lab.etl.contract import ColumnContract, Contract
    from aico_lab.etl.extract import Extracted
    from aico_lab.schema.feed_keys import Part

_NAMED: Final = "seq > ? AND seq <= ? AND table_name = ?"
_KEYS_AT_ONCE: Final = 200


def extract_changed(
    connection: Connection, contract: Contract, since: int, until: int
) -> Iterator[Extracted]:
    """Read the rows that the change feed names, each row once.

    Args:
        connection: The primary database, inside `snapshot()`.
        contract: The table.
        since: The change feed is read after this sequence number.
        until: The change feed is read up to and including this sequence number.

    Yields:
        Rows that fit, and those that do not.
    """
    span = [since, until, contract.table]
    if connection.fetch_one(
        f"SELECT 1 FROM change_log WHERE {_NAMED} AND typeof(row_key) = 'blob' LIMIT 1", span
    ):
        # 1 and 1.0 are two keys in the log, but SQLite finds the same row by both.
        keys = [*dict.fromkeys(_logged(connection, contract, since, until))]
        yield from _extract_keys(connection, contract, keys)
        return
    values = ["row_key"]
    if len(contract.key) > 1:
        values = [f"json_extract(row_key, '$[{i}]')" for i in range(len(contract.key))]
    named = ", ".join(f"{value} AS k{i}" for i, value in enumerate(values))
    chosen = f"(SELECT DISTINCT {named} FROM change_log WHERE {_NAMED}) AS k CROSS JOIN"
    match = " AND ".join(
        # The first comparison can use an index, but its collation may take 'a' for 'A'.
        f't."{name}" = k.k{i} AND t."{name}" = k.k{i} COLLATE BINARY'
        for i, name in enumerate(contract.key)
    )
    yield from extract_by_rows(connection, contract, match, span, chosen=chosen)


def _extract_keys(
    connection: Connection, contract: Contract, keys: Sequence[tuple[Part, ...]]
) -> Iterator[Extracted]:
    """Read the rows that have these keys."""
    match = " AND ".join(
        f't."{name}" IS +k.column{i} AND t."{name}" IS +k.column{i} COLLATE BINARY'
        for i, name in enumerate(contract.key, 1)
    )
    integers = [[part.value for part in key] for key in keys if _are_integers(key)]
    columns = ", ".join(f"value ->> {i} AS column{i + 1}" for i, _ in enumerate(contract.key))
    chosen = f"(SELECT {columns} FROM json_each(?)) AS k CROSS JOIN"
    yield from extract_by_rows(connection, contract, match, [json.dumps(integers)], chosen=chosen)
    keys = [key for key in keys if not _are_integers(key)]
    for at in range(0, len(keys), _KEYS_AT_ONCE):
        some = keys[at : at + _KEYS_AT_ONCE]
        rows = ", ".join(f"({', '.join(map(_placeholder, key))})" for key in some)
        values = [part.value for key in some for part in key]
        chosen = f"(VALUES {rows}) AS k CROSS JOIN"
        yield from extract_by_rows(connection, contract, match, values, chosen=chosen)


def _are_integers(key: tuple[Part, ...]) -> bool:
    """Return whether all values of a key are integers: one statement then finds any number."""
    return all(isinstance(part.value, int) for part in key)


def _placeholder(part: Part) -> str:
    return "CAST(? AS TEXT)" if isinstance(part.value, bytes) and not part.is_blob else "?"


def changed_keys(connection: Connection, contract: Contract, *, since: int, until: int) -> pa.Table:
    """Return the keys of all rows that the change feed names.

    Inserted keys are among them, since an INSERT OR REPLACE by another program logs nothing but the
    insertion.

    Returns:
        `row_key`, the row's name in quarantine; `k0`, `k1` and so on, the columns of the key; and
        `fits`, which is false if a value of the key does not fit and is therefore NULL.
    """
    if (texts := _changed_texts(connection, contract, since, until)) is not None:
        return texts
    keys = _logged(connection, contract, since, until)
    columns: list[Sequence[Part]] = list(zip(*keys, strict=True)) or [() for _ in contract.key]
    kinds = {column.name: column for column in contract.columns}
    table = pa.table({"row_key": [row_key(key) for key in keys]},
                     pa.schema([("row_key", pa.string())]))  # fmt: skip
    known = [True] * len(keys)
    for i, (name, parts) in enumerate(zip(contract.key, columns, strict=True)):
        array = _convert_or_null(kinds[name], [_stored(part, kinds[name]) for part in parts])
        table = table.append_column(f"k{i}", array)
        is_there = array.is_valid().to_pylist()
        known = [
            fit and (there or part.value is None)
            for fit, there, part in zip(known, is_there, parts, strict=True)
        ]
    return table.append_column("fits", pa.array(known, pa.bool_()))


def _changed_texts(
    connection: Connection, contract: Contract, since: int, until: int
) -> pa.Table | None:
    """Return the keys if each is a text that is its own name, as nearly always; else None."""
    column = next(column for column in contract.columns if column.name == contract.key[0])
    if len(contract.key) > 1 or column.kind != "text":
        return None
    rows = _rows(connection, contract, since, until)
    values = [logged for logged, _ in rows]
    names = None if any(is_blob for _, is_blob in rows) else plain_names(values)
    if names is None:
        return None
    array = convert(column, values)
    return pa.table({"row_key": names, "k0": array, "fits": array.is_valid()})


def _rows(
    connection: Connection, contract: Contract, since: int, until: int
) -> list[tuple[bytes, int]]:
    """Return each logged key once, as bytes, and whether it is a blob."""
    return connection.fetch_all(
        "SELECT DISTINCT CAST(row_key AS BLOB), typeof(row_key) = 'blob' FROM change_log "
        f"WHERE {_NAMED}",
        [since, until, contract.table],
    )


def mistakes_keys(connection: Connection, contract: Contract, *, since: int, until: int) -> bool:
    """Return whether the warehouse could confuse a row that the change feed names with another.

    A key column that has or had values of several types is text in the warehouse, where 1 and '1'
    are the same. The whole table must then be read.
    """
    kinds = {column.name: column for column in contract.columns}
    loose = [
        i
        for i, name in enumerate(contract.key)
        if kinds[name].kind in MERGING_KINDS or kinds[name].loose
    ]
    return bool(loose) and any(
        not contract.tells_keys_apart or not _is_text(part) or _is_number(part.value)
        for key in _logged(connection, contract, since, until)
        for part in (key[i] for i in loose)
        if part.value is not None
    )


def _logged(
    connection: Connection, contract: Contract, since: int, until: int
) -> list[tuple[Part, ...]]:
    """Return the keys that the change feed names, each key once."""
    return [
        feed_keys.read(logged, is_blob=bool(is_blob), columns=len(contract.key))
        for logged, is_blob in _rows(connection, contract, since, until)
    ]


def _stored(part: Part, column: ColumnContract) -> Value:
    """Return a value of a key as SELECT returns it; None if it does not fit the column."""
    if column.kind == "any" or (column.kind == "text" and column.loose):
        is_text = part.value is None or _is_text(part)
        return part.value if is_text else feed_keys.literal(part).encode()
    is_misfit = isinstance(part.value, bytes) and part.is_blob != (column.kind == "blob")
    return None if is_misfit else part.value


def _is_text(part: Part) -> bool:
    if not isinstance(part.value, bytes) or part.is_blob:
        return False
    try:
        part.value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _convert_or_null(column: ColumnContract, values: Sequence[Value]) -> pa.Array:
    try:
        return convert(column, values)
    except DOES_NOT_FIT:
        return convert(column, [value if fits(column, value) else None for value in values])


def _is_number(text: Value) -> bool:
    """Return whether a value is a number, or a text that could be the number's digits."""
    if isinstance(text, bytes):
        with contextlib.suppress(ValueError):
            float(text)
            return True
    return isinstance(text, int | float)
