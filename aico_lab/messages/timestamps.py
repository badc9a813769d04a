"""Convert the times of messages to UTC, in the fixed width of the database."""

from __future__ import annotations

import functools
import re
from datetime import UTC, date, datetime, timedelta
from typing import Final

from aico_lab.constants import FIRST_PLAUSIBLE_MS
from aico_lab.domain import values
from aico_lab.messages.records import NotAMessageError

FIRST_PLAUSIBLE: Final = values.to_timestamp(datetime.fromtimestamp(FIRST_PLAUSIBLE_MS / 1000, UTC))

_TIMESTAMP: Final = re.compile(
    r"(?P<day>\d{4}-\d\d-\d\d)[T ](?P<minute>\d\d:\d\d)"
    r"(?::(?P<second>\d\d)(?:[.,](?P<fraction>\d+))?)?"
    r"(?P<zone>Z|[+-](?:[01]\d|2[0-3])(?::?[0-5]\d)?)?",
    re.ASCII | re.IGNORECASE,
)
_AS_STORED: Final = re.compile(
    r"\d{4}-\d\d-\d\dT(?:[01]\d|2[0-3])(?::[0-5]\d){2}\.\d{6}Z", re.ASCII
)
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_LEAP_SECOND: Final = "60"


def to_timestamp(value: object) -> str:
    """Convert an ISO 8601 date and time to UTC, in the fixed width of the database.

    A time without a zone is UTC. Fractions are truncated to microseconds.

    Raises:
        NotAMessageError: The value is missing, not text, not a date with a time, or out of range.
    """
    if value is None:
        raise NotAMessageError("timestamp is missing")
    if type(value) is str and _AS_STORED.fullmatch(value) and _is_day(value[:10]):
        return value
    match = _TIMESTAMP.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        if isinstance(value, str) and _DATE.fullmatch(value):
            raise NotAMessageError(
                "timestamp is a date without a time: add one, such as 2024-05-01T00:00:00Z"
            )
        raise NotAMessageError(
            "timestamp is not an ISO 8601 date and time such as 2024-05-01T12:30:00Z"
        )
    day, minute, second, fraction, zone = match.groups()
    if second == _LEAP_SECOND:
        raise NotAMessageError("timestamp is a leap second (:60), which cannot be stored")
    moment = f"{day}T{minute}:{second or '00'}"
    micros = fraction[:6].ljust(6, "0") if fraction else "000000"
    try:
        parsed = datetime.fromisoformat(moment if zone in {None, "Z", "z"} else moment + zone)
        if parsed.tzinfo is not None:
            moment = parsed.astimezone(UTC).replace(tzinfo=None).isoformat()
    except OverflowError:
        raise NotAMessageError("timestamp lies outside the years 1 to 9999 in UTC") from None
    except ValueError:
        raise NotAMessageError(
            "timestamp is a date or a time that does not exist (years are 1 to 9999)"
        ) from None
    return f"{moment}.{micros}Z"


@functools.lru_cache(maxsize=4096)
def _is_day(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def plausible_times() -> tuple[str, str]:
    """Return the first plausible timestamp, 1990-01-01, and the end of tomorrow (excluded)."""
    day_after = datetime.now(UTC).date() + timedelta(days=2)
    return FIRST_PLAUSIBLE, f"{day_after.isoformat()}T00:00:00.000000Z"
