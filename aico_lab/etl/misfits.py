"""Rows that do not fit their table's contract, and the names by which quarantine knows them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aico_lab.adapters.libsql_values import Value
    from aico_lab.etl.contract import Kind

SHOWN: Final = 200
"""Characters of a value that is set aside which are kept to recognise it by."""

REASONS: Final[dict[Kind, str]] = {
    "integer": "is not an integer",
    "real": "is not a number",
    "text": "is not valid UTF-8 text",
    "any": "is not valid UTF-8 text",
    "timestamp": "is not a UTC timestamp in ISO 8601",
    "date": "is not a date in ISO 8601",
    "seconds": "is not a number of seconds since 1970",
    "milliseconds": "is not a number of milliseconds since 1970",
    "decimal": "is not a number of that many digits",
    "json": "is not valid JSON in UTF-8",
    "boolean": "is neither 0 nor 1",
    "blob": "is not a blob",
}


@dataclass(frozen=True, slots=True)
class Misfit:
    """A value that does not fit; a row with several of them is set aside once for each.

    Attributes:
        table: Its table.
        row_key: What identifies its row; see `row_key`.
        column: Its column.
        reason: Why it does not fit.
        value: Its beginning.
    """

    table: str
    row_key: str
    column: str
    reason: str
    value: str


def count_rows(misfits: Sequence[Misfit]) -> int:
    """Count the rows that have at least one value that does not fit."""
    return len({misfit.row_key for misfit in misfits})


def row_key(parts: Sequence[Value]) -> str:
    """Return the name of a row: its key as text, several columns as a JSON array of texts."""
    texts = [readable(part) for part in parts]
    return texts[0] if len(texts) == 1 else json.dumps(texts, ensure_ascii=False)


def readable(value: Value) -> str:
    """Return a value as text: bytes that are not UTF-8 as a blob literal of SQL."""
    if not isinstance(value, bytes):
        return str(value)
    try:
        return value.decode()
    except UnicodeDecodeError:
        return literal(value)


def literal(value: bytes) -> str:
    """Return bytes as a blob literal of SQL, such as x'00ff'."""
    return f"x'{value.hex()}'"
