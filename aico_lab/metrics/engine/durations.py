"""Durations in a unit that people read easily."""

from __future__ import annotations

from typing import Final

from aico_lab.metrics.engine.claims import written

_UNITS: Final = ((86_400, "days"), (3_600, "h"), (60, "min"))


def duration(seconds: float) -> str:
    """Return a duration in the largest unit of which it has at least two.

    Examples are '17 s', '2.5 min', '9.47 h' and '12 days'.
    """
    for unit, name in _UNITS:
        if seconds >= 2 * unit:
            return f"{written(seconds / unit)} {name}"
    return f"{written(seconds)} s"
