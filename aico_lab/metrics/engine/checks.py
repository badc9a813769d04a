"""Parameters that several metrics share, and checks of their ranges."""

from __future__ import annotations

from typing import Final

from aico_lab.constants import MS_PER_MINUTE
from aico_lab.errors import InvalidValue
from aico_lab.metrics.engine.metric import Parameter

GAP_MINUTES: Final = Parameter(
    "gap_minutes", float, 30.0, "A longer silence, in minutes, begins a new session."
)

SCOPE: Final = Parameter(
    "scope",
    str,
    "conversation",
    "Sessions within each conversation, or across all conversations of a person.",
    choices=("conversation", "person"),
)

_MINUTES_OF_A_YEAR: Final = 525_600


def to_gap_ms(gap_minutes: float) -> int:
    """Return the silence that ends a session, in milliseconds.

    Raises:
        InvalidValue: The silence is not above 0, or is longer than a year.
    """
    gap_ms = round(gap_minutes * MS_PER_MINUTE)
    if not 0 < gap_minutes <= _MINUTES_OF_A_YEAR or not gap_ms:
        raise InvalidValue(
            f"gap_minutes must be more than 0 and at most {_MINUTES_OF_A_YEAR:,} minutes, not "
            f"{gap_minutes:g}."
        )
    return gap_ms


def at_least(name: str, value: float, least: float) -> None:
    """Raise InvalidValue if a parameter is below its least value."""
    if value < least:
        raise InvalidValue(f"{name} must be at least {least:g}, not {value:g}.")


def more_than_nothing(name: str, value: float, *, most: float) -> None:
    """Raise InvalidValue if a parameter is 0, negative, or above its greatest value."""
    if not 0 < value <= most:
        raise InvalidValue(f"{name} must be more than 0 and at most {most:,g}, not {value:g}.")
