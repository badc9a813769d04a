"""Rows that do not fit their table's contract, and their names in quarantine."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aico_lab.schema.feed_keys import Part, literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aico_lab.adapters.libsql_values import Value
    from aico_lab.etl.contract import Kind

SHOWN: Final = 200
"""The number of characters that are kept of a value that does not fit."""

NAMING: Final = "literals of SQL by storage class"
"""The form of the names of rows in quarantine; a quarantine with other names is filled again."""

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
    """A value that does not fit; a row with several such values has a misfit for each.

    Attributes:
        table: The table.
        row_key: The name of the row; see the function `row_key`.
        column: The column.
        reason: Why the value does not fit.
        value: The beginning of the value.
        is_first: Whether it is the first of its row. Names do not tell rows apart: several rows may
            have NULL as their key.
    """

    table: str
    row_key: str
    column: str
    reason: str
    value: str
    is_first: bool = True


def count_rows(misfits: Sequence[Misfit]) -> int:
    """Count the rows that have at least one value that does not fit."""
    return sum(misfit.is_first for misfit in misfits)


def row_key(parts: Sequence[Part]) -> str:
    """Return the name of a row in quarantine, which is unique in its table.

    The name depends on the stored values of the key alone, whatever types their columns have.

    Args:
        parts: The values of the row's key.

    Returns:
        Text is its own name. Other values, and text that looks like one of their names, are named
        by SQL literals. The name of a key of several columns is a JSON array of such names.
    """
    names = [_name(part) for part in parts]
    return names[0] if len(names) == 1 else json.dumps(names, ensure_ascii=False)


def _name(part: Part) -> str:
    name = literal(part)
    if isinstance(part.value, bytes) and name.startswith("'"):
        text = part.value.decode()
        if not re.fullmatch(AMBIGUOUS, text):
            return text
    return name


AMBIGUOUS: Final = r"(?s:NULL|'.*|x'.*|CAST\(x'.*|-?inf|-?[0-9][0-9.e+-]*)"
"""A pattern of texts that could be taken for the name of another value."""


def readable(value: Value) -> str:
    """Return a value as people read it: bytes that are not UTF-8 as a blob literal of SQL."""
    if not isinstance(value, bytes):
        return str(value)
    try:
        return value.decode()
    except UnicodeDecodeError:
        return literal(Part(value, is_blob=True))


def readable_key(values: Sequence[Value]) -> str:
    """Return a key as people read it, several columns as a JSON array of texts."""
    texts = [readable(value) for value in values]
    return texts[0] if len(texts) == 1 else json.dumps(texts, ensure_ascii=False)
