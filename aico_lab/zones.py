"""Time zones by their IANA names, in any case."""

from __future__ import annotations

import functools
from zoneinfo import ZoneInfo, available_timezones

from aico_lab.errors import InvalidValue, did_you_mean


@functools.lru_cache(maxsize=64)
def get_zone(name: str) -> ZoneInfo:
    """Return a time zone by its IANA name; `europe/berlin` is Europe/Berlin.

    Raises:
        InvalidValue: No time zone has that name.
    """
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        known = {zone.casefold(): zone for zone in available_timezones()}
    if (folded := name.casefold().replace(" ", "_")) in known:
        return ZoneInfo(known[folded])
    example = ": give an IANA name such as 'Europe/Berlin'."
    end = did_you_mean(folded, known.values(), example)
    raise InvalidValue(f"There is no time zone {name!r}{end}")
