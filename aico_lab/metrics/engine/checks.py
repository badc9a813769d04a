"""Parameters of several metrics that must make sense, besides having their type."""

from __future__ import annotations

from typing import Final

from aico_lab.constants import MS_PER_MINUTE
from aico_lab.errors import InvalidValue

_MINUTES_OF_A_YEAR: Final = 525_600


def to_gap_ms(gap_minutes: float) -> int:
    """Return the silence that ends a session in milliseconds.

    Raises:
        InvalidValue: It is no silence, or one of more than a year.
    """
    gap_ms = round(gap_minutes * MS_PER_MINUTE)
    if not 0 < gap_minutes <= _MINUTES_OF_A_YEAR or not gap_ms:
        raise InvalidValue(
            f"gap_minutes is the silence that ends a session: more than 0 and at most "
            f"{_MINUTES_OF_A_YEAR:,} minutes, not {gap_minutes:g}."
        )
    return gap_ms


def at_least(name: str, value: float, least: float) -> None:
    """Refuse a parameter that is too small.

    Raises:
        InvalidValue: It is.
    """
    if value < least:
        raise InvalidValue(f"{name} is {least:g} or more, not {value:g}.")


def more_than_nothing(name: str, value: float, *, most: float) -> None:
    """Refuse a parameter that is zero or negative, or too large to be meant.

    Raises:
        InvalidValue: It is.
    """
    if not 0 < value <= most:
        raise InvalidValue(f"{name} is more than 0 and at most {most:,g}, not {value:g}.")
