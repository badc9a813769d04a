"""Range checks of parameters that several metrics share."""

from __future__ import annotations

from typing import Final

from aico_lab.constants import MS_PER_MINUTE
from aico_lab.errors import InvalidValue

_MINUTES_OF_A_YEAR: Final = 525_600


def to_gap_ms(gap_minutes: float) -> int:
    """Return the silence that ends a session, in milliseconds.

    Raises:
        InvalidValue: The silence is not above 0, or is longer than a year.
    """
    gap_ms = round(gap_minutes * MS_PER_MINUTE)
    if not 0 < gap_minutes <= _MINUTES_OF_A_YEAR or not gap_ms:
        raise InvalidValue(
            f"gap_minutes is the silence that ends a session: more than 0 and at most "
            f"{_MINUTES_OF_A_YEAR:,} minutes, not {gap_minutes:g}."
        )
    return gap_ms


def at_least(name: str, value: float, least: float) -> None:
    """Raise InvalidValue if a parameter is below its least value."""
    if value < least:
        raise InvalidValue(f"{name} is at least {least:g}, not {value:g}.")


def more_than_nothing(name: str, value: float, *, most: float) -> None:
    """Raise InvalidValue if a parameter is 0, negative, or above its greatest value."""
    if not 0 < value <= most:
        raise InvalidValue(f"{name} is more than 0 and at most {most:,g}, not {value:g}.")
