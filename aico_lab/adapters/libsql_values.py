"""Encode values for libSQL exactly, or refuse them.

The driver binds integers beyond 32 bits as floating point, stores NaN as NULL, truncates text at a
NUL when reading, and accepts a wrong number of parameters. This module uses no connection.
"""

from __future__ import annotations

import contextlib
import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from aico_lab.errors import InvalidStatement, UnstorableValue

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Value = int | float | str | bytes | None

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1


def encode(row: Sequence[Any]) -> tuple[tuple[Any, ...], tuple[int, ...]]:
    """Encode a row of values for the driver.

    Returns:
        The values, and the positions of integers beyond 32 bits, which the driver would bind as
        floating point: they are passed as text, and the statement casts them back exactly.

    Raises:
        UnstorableValue: The driver would change or lose a value.
    """
    # Nearly every row needs no encoding, and this check takes a third of the time.
    if set(map(type, row)) <= _PLAIN and _all_storable(row):
        return tuple(row), ()
    values = tuple(
        value if value is None else _ENCODERS.get(type(value), _encode_other)(value)
        for value in row
    )
    if _WideInteger not in set(map(type, values)):
        return values, ()
    wide = tuple(position for position, value in enumerate(values) if type(value) is _WideInteger)
    return tuple(str(v.value) if type(v) is _WideInteger else v for v in values), wide


def encode_exactly(
    row: Sequence[Any], needed: int, where: str
) -> tuple[tuple[Any, ...], tuple[int, ...]]:
    """Return the encoded values of a row; raise InvalidStatement unless there are `needed` ones."""
    if len(row) != needed:
        raise InvalidStatement(
            f"{where} was given {len(row)} values for a statement with {needed} parameters."
        )
    return encode(row)


_PLAIN = {type(None), str, int, float}


def _all_storable(row: Sequence[Any]) -> bool:
    """Return whether these texts and numbers need no encoding."""
    texts = "".join([value for value in row if type(value) is str])
    if "\0" in texts or not (texts.isascii() or _is_unicode(texts)):
        return False
    numbers = [value for value in row if value is not None and type(value) is not str]
    return all(INT32_MIN <= number <= INT32_MAX for number in numbers)  # NaN is not


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True


class _WideInteger:
    __slots__ = ("value",)

    def __init__(self, value: int) -> None:
        self.value = value


def _encode_int(value: int) -> int | _WideInteger:
    if INT32_MIN <= value <= INT32_MAX:
        return value
    if INT64_MIN <= value <= INT64_MAX:
        return _WideInteger(value)
    raise UnstorableValue("An integer beyond 64 bits cannot be stored: store it as text.")


def _encode_float(value: float) -> float:
    if math.isnan(value):
        raise UnstorableValue("NaN cannot be stored, the database would make it NULL: use None.")
    return value


def _encode_str(value: str) -> str:
    if "\0" in value:
        raise UnstorableValue("Text with a NUL character cannot be stored: remove it.")
    if not _is_unicode(value):
        raise UnstorableValue(
            "Text with half of a surrogate pair cannot be stored: it is not valid Unicode."
        )
    return value


def _encode_datetime(value: datetime) -> str:
    """Format a time as every timestamp of the database; without a zone it is local time."""
    try:
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ").zfill(27)
    except (OverflowError, ValueError, OSError) as error:
        raise UnstorableValue(
            "A datetime outside the years 1 to 9999 in UTC cannot be stored: store it as text."
        ) from error


def _encode_other(value: Any) -> Any:
    """Encode a member of an enumeration, or of another subclass, as its base type."""
    for kind in (int, float, str):
        if isinstance(value, kind):
            return _ENCODERS[kind](kind(value))
    if isinstance(value, datetime):  # pandas' Timestamp, or its NaT, which has no parts
        with contextlib.suppress(ValueError):
            return _encode_datetime(datetime.combine(value.date(), value.timetz()))
    raise UnstorableValue(
        f"A {type(value).__name__} cannot be stored: use int, float, str, bytes, datetime or None."
    )


_ENCODERS: dict[type, Callable[[Any], Any]] = {
    int: _encode_int,
    bool: int,
    float: _encode_float,
    str: _encode_str,
    bytes: bytes,
    bytearray: bytes,
    memoryview: bytes,
    datetime: _encode_datetime,
}
