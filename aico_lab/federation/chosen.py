"""Check the values that a person chose for a row, as the repositories check those that they save.

Repositories refuse what other programs could not read; a value that a person wrote into a file is
sent to all devices, so nobody else would refuse it.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Final

from aico_lab.domain import MemoryType, values
from aico_lab.domain.personality import check_traits
from aico_lab.errors import DomainError, InvalidValue
from aico_lab.federation.tables import affinity

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aico_lab.adapters.libsql import Connection

_BOUNDS: Final = {
    ("messages", "sentiment_score"): (-1, 1),
    ("messages", "response_time"): (0, math.inf),
    ("memories", "importance"): (0, 1),
    ("relationships", "strength"): (0, 1),
    ("personality_profiles", "stability"): (0, 1),
    ("personality_profiles", "version"): (1, math.inf),
}
_CHOICES: Final[dict[tuple[str, str], tuple[str, ...]]] = {
    ("messages", "role"): ("user", "assistant", "system"),
    ("memories", "memory_type"): tuple(MemoryType),
}
_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "TEXT": (str,), "REAL": (float, int), "INTEGER": (int,), "BLOB": (str, float, int, bytes),
}  # fmt: skip


def checked(connection: Connection, table: str, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of columns in the form in which they are stored.

    Raises:
        InvalidValue: A value is of another type, or none that the column may have.
    """
    declared: dict[str, str] = dict(
        connection.fetch_all("SELECT name, upper(type) FROM pragma_table_info(?)", [table])
    )
    try:
        return {
            column: None if value is None else _checked(table, column, declared[column], value)
            for column, value in chosen.items()
        }
    except DomainError as error:
        raise InvalidValue(str(error)) from error


def _checked(table: str, column: str, declared: str, value: object) -> object:
    if declared.startswith("JSON"):
        return _document(column, value)
    if declared.startswith("BOOLEAN") and isinstance(value, bool):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, _TYPES[affinity(declared)]):
        raise InvalidValue(f"{column} of {table} is {declared}, and {value!r} is no such value.")
    if bounds := _BOUNDS.get((table, column)):
        values.number(column, value, *bounds)
    if (choices := _CHOICES.get((table, column))) and value not in choices:
        raise InvalidValue(f"{column} of {table} must be one of {', '.join(choices)}.")
    if not isinstance(value, str):
        values.to_json(column, value)  # refuses NaN and infinite numbers
        return value
    if declared.startswith("TIMESTAMP"):
        moment = values.moment(column, values.from_timestamp(column, value))
        return values.to_timestamp(moment)
    check = values.identifier if column.endswith("_id") else values.text
    return check(column, value)


def _document(column: str, value: object) -> str:
    """Return a JSON document, which is given as itself or as its text, in the stored form."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise InvalidValue(f"{column} is not JSON.") from error
    if column == "metadata":
        value = values.json_object(column, value)
    if column == "traits":
        value = check_traits(column, value, 0, 1)
    return values.to_json(column, value)
