"""Encode the keys of rows, so that different keys have different encodings and different names.

The encoding depends on the stored values and their storage classes alone, not on declared types.
The change feed logs it, and extraction selects it for the rows that do not fit.

A key of one text is logged as this text, and a key of several texts or whole numbers as a JSON
array, which people and subscribers can read. Any other key (a whole number, or with a blob, a
floating-point number or NULL) is logged as a blob with the storage class of each value, such as
`typed b6F6B,t6F6B,i1,r0.5,n`. No key is refused, because that would refuse the write itself.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, NamedTuple

from aico_lab.errors import CorruptDatabase

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aico_lab.adapters.libsql_values import Value

_TYPED: Final = b"typed "


class Part(NamedTuple):
    """The value of one column of a key.

    Attributes:
        value: The value; text as bytes, because it need not be UTF-8.
        is_blob: Whether bytes are a blob, not text.
    """

    value: Value
    is_blob: bool = False


def expression(row: str, columns: Sequence[str]) -> str:
    """Return SQL for the encoded key of a row.

    Args:
        row: The table, or NEW or OLD in a trigger.
        columns: The columns of the key.
    """
    return _expression(row, columns, ("text",) if len(columns) == 1 else ("text", "integer"))


def typed_expression(row: str, columns: Sequence[str]) -> str:
    """Return SQL for the key of a row with the storage class of each value, as a blob."""
    typed = " || ',' || ".join(_typed(f'{row}."{column}"') for column in columns)
    return f"CAST('{_TYPED.decode()}' || {typed} AS BLOB)"


def _expression(row: str, columns: Sequence[str], plain: Sequence[str]) -> str:
    classes = ", ".join(f"'{class_}'" for class_ in plain)
    are_plain = " AND ".join(f'typeof({row}."{column}") IN ({classes})' for column in columns)
    return (
        f"CASE WHEN {are_plain} THEN {_untyped(row, columns)} "
        f"ELSE {typed_expression(row, columns)} END"
    )


def _untyped(row: str, columns: Sequence[str]) -> str:
    values = [f'{row}."{column}"' for column in columns]
    return values[0] if len(values) == 1 else f"json_array({', '.join(values)})"


def _with_numbers_as_text(row: str, columns: Sequence[str]) -> str:
    return _expression(row, columns, ("text", "integer"))


FORMER: Final = (_untyped, _with_numbers_as_text)
"""Functions that return SQL for the key of a row as earlier versions encoded it, oldest first."""

FORMER_BLOBS: Final = (
    f"UPDATE change_log SET row_key = CAST('{_TYPED.decode()}b' || hex(row_key) AS BLOB) "
    f"WHERE typeof(row_key) = 'blob' AND substr(row_key, 1, {len(_TYPED)}) <> x'{_TYPED.hex()}'"
)
"""Encodes the blob keys that the first version logged."""

_FORMER_NUMBER: Final = (
    "typeof(row_key) = 'text' AND CAST(CAST(row_key AS INTEGER) AS TEXT) = row_key"
)

FORMER_NUMBERS: Final = (
    f"UPDATE change_log SET row_key = CAST('{_TYPED.decode()}i' || row_key AS BLOB) "
    f"WHERE {_FORMER_NUMBER}"
)
"""Encodes the whole numbers that earlier versions logged as text."""

HAS_FORMER_NUMBERS: Final = f"SELECT 1 FROM change_log WHERE {_FORMER_NUMBER}"
"""Finds keys of one column of which earlier versions did not log whether they are numbers."""


def _typed(value: str) -> str:
    return (
        f"CASE typeof({value}) WHEN 'text' THEN 't' || hex({value}) "
        f"WHEN 'blob' THEN 'b' || hex({value}) WHEN 'null' THEN 'n' "
        # quote() cuts one of some thousand numbers to 15 digits that are not exact.
        f"WHEN 'real' THEN 'r' || printf('%!.17e', {value}) ELSE 'i' || {value} END"
    )


def read(logged: bytes, *, is_blob: bool, columns: int) -> tuple[Part, ...]:
    """Return the decoded key in a row of the log.

    Args:
        logged: The bytes of `row_key`.
        is_blob: Whether `row_key` is stored as a blob.
        columns: The number of columns of the key.

    Raises:
        CorruptDatabase: The value is not an encoded key of so many columns.
    """
    try:
        if is_blob and logged.startswith(_TYPED):
            key = tuple(_read(part) for part in logged.decode().removeprefix("typed ").split(","))
        elif columns == 1:
            key = (Part(logged, is_blob),)
        else:
            # Bytes that are not UTF-8 are preserved.
            values = json.loads(logged.decode(errors="surrogateescape"))
            key = tuple(
                Part(value.encode(errors="surrogateescape") if isinstance(value, str) else value)
                for value in values
            )
        if len(key) == columns:
            return key
    except (ValueError, TypeError, KeyError):
        pass
    raise CorruptDatabase(
        f"The change feed contains {logged[:80]!r}, which is not a key of {columns} columns: "
        "restore the database from a backup."
    )


def _read(part: str) -> Part:
    kind, value = part[:1], part[1:]
    match kind:
        case "t" | "b":
            return Part(bytes.fromhex(value), kind == "b")
        case "i":
            return Part(int(value))
        case "r":
            return Part(float(value) + 0.0)  # SQLite does not tell -0.0 from 0.0
        case "n":
            return Part(None)
        case _:
            raise ValueError(part)


def shown(logged: bytes, *, is_blob: bool) -> str:
    """Return the key in a row of the log as text for people and subscribers.

    Text and JSON arrays are returned unchanged, any other key as SQL literals.
    """
    if not is_blob:
        return logged.decode(errors="replace")
    columns = logged.count(b",") + 1 if logged.startswith(_TYPED) else 1
    return ", ".join(map(literal, read(logged, is_blob=True, columns=columns)))


def literal(part: Part) -> str:
    """Return the value as an SQL literal, such as NULL, 1, 0.5, 'text' or x'00ff'."""
    value = part.value
    if value is None:
        return "NULL"
    if not isinstance(value, bytes):
        return str(value)
    if part.is_blob:
        return f"x'{value.hex()}'"
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return f"CAST(x'{value.hex()}' AS TEXT)"
    return "'" + text.replace("'", "''") + "'"
