"""Read times that are numbers since 1970, in whichever unit their size tells."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Final

from aico_lab.constants import NO_SECONDS
from aico_lab.sources.exports.engine.fields import to_time

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_NANO: Final = 10**9


def from_epoch(value: object) -> datetime | None:
    """Return a time given in seconds, milli-, micro- or nanoseconds; None if it is no such number.

    Zero is no time: programs write it for a time that they do not know.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        seconds = float(value)
        if not seconds or not math.isfinite(seconds):
            return None
        whole = int(value) if not isinstance(value, float) and seconds.is_integer() else None
        factor = 1
        while abs(seconds) / factor >= NO_SECONDS:
            factor *= 1000
        if factor > _NANO:
            return None
        if whole is not None and factor > 1:  # exact, where a float would round
            return _EPOCH + timedelta(microseconds=whole * 1_000_000 // factor)
        return _EPOCH + timedelta(seconds=seconds / factor)
    except (ValueError, OverflowError):
        return None


def to_any_time(value: object) -> datetime | None:
    """Return a time given as a number since 1970 or in ISO 8601; None if it is neither.

    A time in ISO 8601 that names no zone is returned without one.
    """
    return from_epoch(value) or to_time(value)
