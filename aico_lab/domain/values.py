"""Validation of the fields of entities, and the forms in which they are stored.

Every value that a store could change or refuse is refused here, so that every repository, on disk
or in memory, returns exactly what was saved. Error messages name the field and never quote the
value, which may be something that a person wrote.
"""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

from aico_lab.errors import InvalidEntity, InvalidTopic, InvalidValue, TextTooLong

if TYPE_CHECKING:
    from collections.abc import Callable

Taken = TypeVar("Taken")

MAX_TEXT: Final = 1_000_000
"""The maximum number of characters of a text."""

_TOPIC: Final = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")

compact_json: Final = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True
).encode
"""Encode a value as JSON in the form that every JSON column holds."""


def now() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)


def text(field: str, value: object) -> str:
    """Return the value if it is text that every store can hold.

    Raises:
        InvalidEntity: The value is not text, or contains a NUL or half of a surrogate pair.
        TextTooLong: The text has more than `MAX_TEXT` characters.
    """
    if not isinstance(value, str):
        raise InvalidEntity(f"{field} must be text, not {type(value).__name__}.")
    if len(value) > MAX_TEXT:
        raise TextTooLong(f"{field} has more than {MAX_TEXT:,} characters: shorten or divide it.")
    return storable(field, str(value))


def identifier(field: str, value: object) -> str:
    """Return the value if it is a non-empty text."""
    if value == "":
        raise InvalidEntity(f"{field} is empty: give an id.")
    return text(field, value)


def number(field: str, value: object, low: float, high: float = math.inf) -> float:
    """Return the value as a float if it is a finite number from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidEntity(f"{field} must be a number, not {type(value).__name__}.")
    try:
        taken = float(value)
    except OverflowError:
        taken = math.inf
    if not (math.isfinite(taken) and low <= taken <= high):
        span = f"at least {low:g}" if high == math.inf else f"between {low:g} and {high:g}"
        raise InvalidEntity(f"{field} must be a finite number, {span}.")
    return taken


def optional(
    check: Callable[..., Taken], field: str, value: object, *bounds: float
) -> Taken | None:
    """Return None for None, else the result of another check."""
    return None if value is None else check(field, value, *bounds)


def boolean(field: str, value: object) -> bool:
    """Return the value if it is True or False."""
    if not isinstance(value, bool):
        raise InvalidEntity(f"{field} must be True or False, not {type(value).__name__}.")
    return value


def moment(field: str, value: object) -> datetime:
    """Return a `datetime` in UTC; without a time zone it is taken as local time."""
    if not isinstance(value, datetime):
        raise InvalidEntity(f"{field} must be a datetime, not {type(value).__name__}.")
    try:
        if type(value) is not datetime:  # pandas' Timestamp converts itself in another way
            value = datetime.combine(value.date(), value.timetz())
        return value.astimezone(UTC)
    except (OverflowError, ValueError, OSError) as error:
        raise InvalidEntity(f"{field} lies outside the years 1 to 9999 in UTC.") from error


def json_object(field: str, value: object) -> dict[str, Any]:
    """Return a deep copy of a JSON object."""
    if not isinstance(value, dict):
        raise InvalidEntity(f"{field} must be a dictionary, not {type(value).__name__}.")
    copied: dict[str, Any] = json.loads(to_json(field, value))
    return copied


def to_json(field: str, value: object) -> str:
    """Write a value as compact JSON with sorted keys.

    Raises:
        InvalidEntity: JSON would change the value (NaN, a tuple, a key that is not text), or a
            store would (a NUL, half of a surrogate pair).
    """
    try:
        written = compact_json(value)
        unchanged = json.loads(written) == value
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidEntity(f"{field} must consist of JSON values.") from error
    if not unchanged:
        raise InvalidEntity(f"{field} must have text keys, and lists instead of tuples.")
    return storable_json(field, written)


def storable_json(field: str, written: str) -> str:
    """Return JSON text if every store can hold it.

    Raises:
        InvalidEntity: The text contains a NUL, escaped or not, or half of a surrogate pair.
    """
    if "\\u0000" in written.replace("\\\\", ""):  # after an escaped backslash it is no escape
        raise InvalidEntity(f"{field} holds a NUL character: remove it.")
    return storable(field, written)


def storable(field: str, value: str) -> str:
    """Return text of any length if every store can hold it.

    Raises:
        InvalidEntity: The text contains a NUL or half of a surrogate pair.
    """
    if "\0" in value:
        raise InvalidEntity(f"{field} holds a NUL character: remove it.")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InvalidEntity(f"{field} holds half of a surrogate pair: remove it.") from error
    return value


def to_timestamp(value: datetime) -> str:
    """Format a time in UTC with a fixed width, so that texts sort as times do."""
    return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def from_timestamp(field: str, value: str) -> datetime:
    """Parse an ISO 8601 date and time with a time zone.

    Raises:
        InvalidEntity: The text is not an ISO 8601 date and time, or has no time zone.
    """
    try:
        read = datetime.fromisoformat(value)
    except ValueError as error:
        raise InvalidEntity(
            f"{field} is not an ISO 8601 date and time such as 2024-05-01T12:30:00Z."
        ) from error
    if read.tzinfo is None:
        raise InvalidEntity(f"{field} names no time zone: end it with Z or an offset.")
    return read


def topic(value: object) -> str:
    """Return the value if it is a topic: lower-case words separated by dots.

    Raises:
        InvalidTopic: The value is not a topic.
    """
    if not isinstance(value, str) or not _TOPIC.fullmatch(value):
        raise InvalidTopic(
            "That is not a topic: use lower-case words separated by dots, such as "
            "'memory.store.request'."
        )
    return value


def whole_number(name: str, value: object, low: int) -> int:
    """Return the value if it is a whole number of at least `low`.

    Raises:
        InvalidValue: The value is not a whole number, or is too small.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise InvalidValue(f"{name} must be a whole number, {low} or more.")
    return value


def limit(value: object) -> int:
    """Return the value if it is a valid limit on the number of results.

    Raises:
        InvalidValue: The limit is not a whole number, or is negative, which SQL takes as no limit.
    """
    return whole_number("The limit", value, 0)


_RESERVED: Final = frozenset({"database_id"})
"""Keys of the system's state that this package uses: a sync compares the id of the database."""


def state_key(value: object) -> str:
    """Return the value if it is a key under which programs may store a fact.

    Raises:
        InvalidEntity: The key is not text, empty, or reserved.
    """
    key = identifier("key", value)
    if key in _RESERVED:
        raise InvalidEntity(f"The key {key!r} is reserved: use another one.")
    return key
