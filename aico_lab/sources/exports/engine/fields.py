"""Read the fields of JSON objects, whose values may be of any type in a damaged export."""

from __future__ import annotations

from datetime import UTC, datetime
from types import NoneType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Mapping

DAMAGED: Final = "damaged message"
"""The reason for which items and messages of a wrong type are skipped."""

BROKEN_VERSIONS: Final = "damaged versions of a message"
"""The reason for which other versions of a message are skipped, by which it may be known."""

ID: Final = (str, int, NoneType)
TEXT: Final = (str, NoneType)
OBJECT: Final = (dict, NoneType)
LIST: Final = (list, NoneType)
FLAG: Final = (bool, NoneType)


def to_object(value: object) -> dict[str, Any]:
    """Return a value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def to_objects(value: object) -> list[dict[str, Any]]:
    """Return the objects of a list; none if the value is no list."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def objects_of(value: object, skipped: Counter[str]) -> list[dict[str, Any]]:
    """Return the objects of a list; what else it holds is counted as damaged messages.

    Args:
        value: The list; null has no objects, and another value is one damaged message.
        skipped: Counts by reason.
    """
    if value is None:
        return []
    found = to_objects(value)
    if broken := len(value) - len(found) if isinstance(value, list) else 1:
        skipped[DAMAGED] += broken
    return found


def fits(item: Mapping[str, Any], types: Mapping[str, tuple[type, ...]]) -> bool:
    """Return whether the fields of an object have the types that their format gives them.

    Args:
        item: The object.
        types: The types of fields; with `NoneType`, a field may be null or absent.
    """
    get = item.get
    for name, allowed in types.items():  # noqa: SIM110 - a loop takes half the time of all()
        if type(get(name)) not in allowed:
            return False
    return True


def to_text(value: object) -> str:
    """Return a value if it is text, else an empty text."""
    return value if isinstance(value, str) else ""


def to_id(value: object) -> str | None:
    """Return an id, which may be a number; None if there is none."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value.strip() or None if isinstance(value, str) else None


def to_time(value: object) -> datetime | None:
    """Return a time in ISO 8601, without a zone if it names none; None if it is no time."""
    try:
        return datetime.fromisoformat(to_text(value).strip())
    except ValueError:
        return None


def to_utc_time(value: object) -> datetime | None:
    """Return a time in ISO 8601, in UTC if it names no zone; None if it is no time."""
    time = to_time(value)
    return time if time is None or time.tzinfo else time.replace(tzinfo=UTC)
