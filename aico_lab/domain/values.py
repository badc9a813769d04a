"""The rules that the fields of entities have to meet, and the forms in which they are kept.

Everything that a store could change or refuse is refused here, so that every implementation of a
repository, on disk or in memory, gives back exactly what it was given. A refusal names the field
and never quotes the value, which may be something that a person wrote.
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
"""The most characters of a message or a memory."""

_TOPIC: Final = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")

compact_json: Final = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True
).encode
"""Writes a value as every column of JSON holds it."""


def now() -> datetime:
    """Give the present time in UTC."""
    return datetime.now(UTC)


def text(field: str, value: object) -> str:
    """Take text that every store can hold.

    Raises:
        InvalidEntity: It is no text, or holds a NUL or half of a surrogate pair.
        TextTooLong: It has more than `MAX_TEXT` characters.
    """
    if not isinstance(value, str):
        raise InvalidEntity(f"{field} must be text, not {type(value).__name__}.")
    if len(value) > MAX_TEXT:
        raise TextTooLong(f"{field} has more than {MAX_TEXT:,} characters: shorten or divide it.")
    return storable(field, str(value))


def identifier(field: str, value: object) -> str:
    """Take text that names something: it may not be empty."""
    if value == "":
        raise InvalidEntity(f"{field} is empty: give an id.")
    return text(field, value)


def number(field: str, value: object, low: float, high: float = math.inf) -> float:
    """Take a finite number from `low` to `high`."""
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
    """Take None, or what another check takes."""
    return None if value is None else check(field, value, *bounds)


def boolean(field: str, value: object) -> bool:
    """Take True or False."""
    if not isinstance(value, bool):
        raise InvalidEntity(f"{field} must be True or False, not {type(value).__name__}.")
    return value


def moment(field: str, value: object) -> datetime:
    """Take a moment, and give it in UTC.

    A `datetime` without a zone is local time, as `datetime.now()` makes it.
    """
    if not isinstance(value, datetime):
        raise InvalidEntity(f"{field} must be a datetime, not {type(value).__name__}.")
    try:
        if type(value) is not datetime:  # pandas' Timestamp converts itself in another way
            value = datetime.combine(value.date(), value.timetz())
        return value.astimezone(UTC)
    except (OverflowError, ValueError, OSError) as error:
        raise InvalidEntity(f"{field} lies outside the years 1 to 9999 in UTC.") from error


def json_object(field: str, value: object) -> dict[str, Any]:
    """Take a JSON object, and give a copy that nobody else holds."""
    if not isinstance(value, dict):
        raise InvalidEntity(f"{field} must be a dictionary, not {type(value).__name__}.")
    copied: dict[str, Any] = json.loads(to_json(field, value))
    return copied


def to_json(field: str, value: object) -> str:
    """Write a value as compact JSON with sorted keys.

    Raises:
        InvalidEntity: JSON would change it (NaN, a tuple, a key that is no text), or a store would
            (a NUL, half of a surrogate pair).
    """
    try:
        written = compact_json(value)
        unchanged = json.loads(written) == value
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidEntity(f"{field} must be made of what JSON knows.") from error
    if not unchanged:
        raise InvalidEntity(f"{field} must have text for keys, and lists instead of tuples.")
    return storable_json(field, written)


def storable_json(field: str, written: str) -> str:
    """Take JSON text that every store can hold.

    Raises:
        InvalidEntity: It holds a NUL, be it as an escape, or half of a surrogate pair.
    """
    if "\\u0000" in written.replace("\\\\", ""):  # behind a whole backslash it is none
        raise InvalidEntity(f"{field} holds a NUL character: remove it.")
    return storable(field, written)


def storable(field: str, value: str) -> str:
    """Take text, however long, that every store can hold.

    Raises:
        InvalidEntity: It holds a NUL, or half of a surrogate pair.
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
    """Write a moment in UTC with a fixed width, so that the order of texts is that of times."""
    return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def from_timestamp(field: str, value: str) -> datetime:
    """Read an ISO 8601 date and time.

    Raises:
        InvalidEntity: It is none, or names no zone: whose local time a text means, nobody knows.
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
    """Take the name of an event: lower-case words with dots between them.

    Raises:
        InvalidTopic: It is something else.
    """
    if not isinstance(value, str) or not _TOPIC.fullmatch(value):
        raise InvalidTopic(
            "That is no topic: use lower-case words with dots between them, such as "
            "'memory.store.request'."
        )
    return value


def limit(value: object) -> int:
    """Take the most results that somebody wants.

    Raises:
        InvalidValue: It is no whole number, or negative; a database would take that as no limit.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidValue("The limit must be a whole number, 0 or more.")
    return value
