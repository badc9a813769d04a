"""Read the times of a column in whichever form they are written, if all of them agree.

The order of day and month is never guessed: a number above 12 somewhere in the column decides, else
dots (no language writes the month first with dots), else the user.
"""

from __future__ import annotations

import functools
import math
import re
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any, Final, Literal, NamedTuple

from aico_lab.constants import MS_PER_DAY
from aico_lab.errors import SourceUnreadable
from aico_lab.messages.records import NotAMessageError
from aico_lab.sources.exports.engine.epochs import from_epoch

Order = Literal["day", "month", "year"]
"""The part with which a date begins whose parts have two digits."""

ORDERS: Final[tuple[Order, ...]] = ("day", "month", "year")

MISSING: Final = frozenset({"", "null", "none", "nan", "nat", "n/a", "na", "-", "\\n", "0"})
"""Texts, in lower case, that stand for a missing time; programs write 0 for an unknown one."""

_LONGEST_MISSING: Final = 8

_ZONE: Final = r"(?P<zone>Z|(?:UTC|GMT)?\s?[+\u2212-]\d{1,2}(?::?\d{2})?|\(?(?:UTC|GMT)\)?)?"
_CLOCK: Final = (
    r"(?P<hour>\d{1,2})(?:[:.]|\s?h\s?)(?P<minute>\d{2})"
    r"(?:(?:[:.]|\s?m(?:in)?\s?)(?P<second>\d{2})(?:[.,](?P<fraction>\d{1,12}))?)?"
    r"(?:\s?(?P<half>[AaPp])\.?\s?[Mm]\b\.?|\s?(?:Uhr|h|hrs|s)\b)?"
)
_NUMBERS: Final = (
    r"(?P<first>\d{1,4})(?P<separator>[./\u2010-\u2013-])\s?(?P<second_part>\d{1,2})"
    r"(?P=separator)\s?(?P<third>\d{1,4})\.?"
)
_NAMED: Final = (
    r"(?:[^\W\d_]+\.?,?\s+)?(?:"
    r"(?P<day>\d{1,2})(?:st|nd|rd|th|er|\.|º)?[\s-]+(?:(?:of|de)\s+)?(?P<month>[^\W\d_]+)\.?"
    r"[\s,-]+(?:de\s+)?(?P<year>\d{4})"
    r"|(?P<month_first>[^\W\d_]+)\.?\s+(?P<day_after>\d{1,2})(?:st|nd|rd|th)?,?\s+(?P<year_after>\d{4})"
    r")"
)
_BETWEEN: Final = r"(?:\s*[T,]\s*|\s+|\s*,?\s+(?:at|um|à|a\s+las|-)\s+)"
_WRITTEN: Final = re.compile(
    rf"(?:{_NUMBERS}|{_NAMED})(?:{_BETWEEN}{_CLOCK}\s*{_ZONE})?", re.IGNORECASE
)
_CLOCK_FIRST: Final = re.compile(
    rf"{_CLOCK},?\s+(?:{_NUMBERS}|{_NAMED})".replace("(?:[:.]|", "(?::|"), re.IGNORECASE
)
_YEAR_LAST: Final = re.compile(  # as the C function ctime writes it, and the command date
    rf"(?:[^\W\d_]+\.?,?\s+)?(?P<month_first>[^\W\d_]+)\.?\s+(?P<day_after>\d{{1,2}}),?"
    rf"\s+{_CLOCK}\s*{_ZONE}\s+(?P<year_after>\d{{4}})",
    re.IGNORECASE,
)
_PARTS: Final[dict[str, Any]] = dict.fromkeys(("first", "day", "month", "year"))
_COMPACT: Final = re.compile(
    rf"(?P<year>\d{{4}})(?P<month>\d\d)(?P<day>\d\d)"
    rf"(?:[T ]?(?P<hour>\d\d)(?P<minute>\d\d)(?P<second>\d\d)?{_ZONE})?",
    re.IGNORECASE,
)
_NUMBER: Final = re.compile(r"[+-]?\d+(?:[.,]\d+)?")
_SHORTENED: Final = re.compile(r"[+-]?\d+(?:[.,]\d+)?[eE][+-]?\d+")
_DATE_FIRST: Final = re.compile(r"(\d{1,4}[./-]\d{1,2}[./-]\d{1,4})[ T,]")
_DATES_KEPT: Final = 50_000
_USUAL: Final = re.compile(
    r"(\d{1,2})([./-])(\d{1,2})\2(\d{4}),? (\d{1,2}):(\d\d)(?::(\d\d))?", re.ASCII
)
_MIDNIGHT: Final = re.compile(r"[T ]00:00(?::00(?:\.0+)?)?$")

_YEARS: Final = range(1990, 2101)
_SERIAL_DAY: Final = datetime(1899, 12, 30)  # noqa: DTZ001 a local time
_SERIALS: Final = (32_874.0, 73_416.0)
"""The numbers of the days 1990-01-01 and 2101-01-01 in a spreadsheet."""

_CENTURY: Final = 70
_FULL_YEAR: Final = 4
_NOON: Final = 12
_LEAP_SECOND: Final = 60


class TimeOfDay(NamedTuple):
    """A time of day, with the offset of its zone if it has one."""

    hour: int
    minute: int
    second: int
    microsecond: int
    offset: timedelta | None


class Written(NamedTuple):
    """A date and time as it is written.

    Attributes:
        parts: The three numbers of a date whose order is open.
        separator: What stands between them.
        day: The date, if its order is clear.
        clock: The time of day, or None if there is only a date.
    """

    parts: tuple[str, str, str] | None
    separator: str
    day: date | None
    clock: TimeOfDay | None

    def orders(self) -> dict[Order, date]:
        """Return the dates that the numbers may be, by order."""
        return {} if self.parts is None else _orders(self.parts, self.separator)


class Moment(NamedTuple):
    """A time that was read.

    Attributes:
        time: With a zone, or without one as a local time.
        has_clock: Whether it has a time of day.
    """

    time: datetime
    has_clock: bool


@dataclass(slots=True)
class FormOfTimes:
    """The form of the times of a column, as all of its values show it.

    Attributes:
        day_first: The user's answer, or None.
        unit: The noun of a place in the file, 'line' or 'row'.
        read: The number of values that have a known form.
        unread: The number of values that have none.
        serial: Whether numbers are those of a spreadsheet.
        order: The part that comes first in dates of numbers; None until it is decided.
    """

    day_first: bool | None = None
    unit: str = "line"
    read: int = 0
    unread: int = 0
    serial: bool = False
    order: Order | None = None
    _excluded: dict[Order, int] = field(default_factory=dict)
    _open: int | None = None
    _dates: int = 0
    _dotted: int = 0
    _epochs: int = 0
    _serials: int = 0
    _fractions: int = 0
    _no_times: int = 0
    _seen: set[str] = field(default_factory=set)

    def add(self, number: int, value: object) -> None:
        """Note what a value shows about the form.

        Args:
            number: The number of its line or row.
            value: The value, not a missing one.
        """
        begin = _DATE_FIRST.match(value) if isinstance(value, str) else None
        if begin is not None and begin[1] in self._seen:  # whose order is known to be possible
            self.read += 1
            return
        if is_number(value):
            self._add_number(value)
            return
        written = parts_of(str(value).strip())
        if written is None or (written.parts is not None and not written.orders()):
            self.unread += 1
            return
        self.read += 1
        if begin is not None and len(self._seen) < _DATES_KEPT:
            self._seen.add(begin[1])
        if written.parts is not None:
            self._add_date(number, written)

    def _add_date(self, number: int, written: Written) -> None:
        possible = written.orders()
        self._dates += 1
        self._dotted += written.separator == "."
        if len(possible) > 1 and len(set(possible.values())) == 1:
            return  # 5/5
        for order in ORDERS:
            if order not in possible:
                self._excluded.setdefault(order, number)
        if len(possible) > 1 and self._open is None:
            self._open = number

    def _add_number(self, value: object) -> None:
        if _of_number(value) is not None:
            self._epochs += 1
            self.read += 1
            return
        number = float(str(value).replace(",", "."))
        if _SERIALS[0] <= number < _SERIALS[1]:
            self._serials += 1
            self._fractions += not number.is_integer()
        else:
            self._no_times += 1

    def decide(self, column: str) -> None:
        """Decide the form, after all values were added.

        Args:
            column: The name of the column for errors.

        Raises:
            SourceUnreadable: The values contradict each other, leave the form open, or are no
                times.
        """
        self.serial = bool(self._serials and self._fractions and not self._epochs)
        numbers = self._serials + self._no_times
        if self.serial:
            self.read += self._serials
        if not self.read and (numbers or self.unread):
            what = "numbers that are no times since 1970" if numbers else "no date and time"
            raise SourceUnreadable(
                f"The column {column} has {what} in all {numbers + self.unread:,} rows: name the "
                "column of the times with --map timestamp=COLUMN."
            )
        if self._dates:
            self.order = self._decided(column)

    def _decided(self, column: str) -> Order:
        possible = [order for order in ORDERS if order not in self._excluded]
        if not possible:
            raise SourceUnreadable(
                f"The column {column} has the month before the day in {self.unit} "
                f"{self._excluded['day']:,}, and the day before the month in {self.unit} "
                f"{self._excluded['month']:,}: this file was joined from several: import each "
                "of them separately."
            )
        if len(possible) == 1 or self._open is None:
            return possible[0]
        if self.day_first is not None:
            wanted: Order = "day" if self.day_first else "month"
            if wanted in possible:
                return wanted
            possible = [order for order in possible if order != "year"] or possible
            if len(possible) == 1:
                return possible[0]
        if self._dotted == self._dates and "day" in possible:
            return "day"
        years = " or the year" if "year" in possible else ""
        raise SourceUnreadable(
            f"The dates of the column {column} may begin with the day or the month{years}, as in "
            f"{self.unit} {self._open:,}, and no number decides it: say which with --day-first or "
            "--month-first."
        )

    def time_of(self, value: object) -> Moment:
        """Return the time that a value is.

        Raises:
            NotAMessageError: The value is no time of this form.
        """
        if isinstance(value, str) and (iso := _iso(value)) is not None:
            return iso
        usual = _USUAL.fullmatch(value) if isinstance(value, str) else None
        if usual is not None and self.order in ("day", "month"):
            return _of_usual(usual, self.order)
        if is_number(value):
            known = _of_number(value)
            if known is not None:
                return known
            number = float(str(value).replace(",", "."))
            if self.serial and _SERIALS[0] <= number < _SERIALS[1]:
                time = _SERIAL_DAY + timedelta(milliseconds=round(number * MS_PER_DAY))
                return Moment(time, has_clock=True)
            raise NotAMessageError("timestamp is a number that is no time since 1970")
        text = str(value).strip()
        if _SHORTENED.fullmatch(text):
            raise NotAMessageError(
                "timestamp is a number that a spreadsheet has shortened, such as 1.7E+12"
            )
        written = parts_of(text)
        if written is None:
            raise NotAMessageError("timestamp is in no form of date and time that is known")
        day = written.day
        if day is None:
            day = written.orders().get(self.order or "day")
        if day is None:
            raise NotAMessageError("timestamp is a date that does not exist")
        return _moment(day, written.clock)


def is_missing(value: object) -> bool:
    """Return whether a value stands for no time."""
    if isinstance(value, str):
        return len(value) < _LONGEST_MISSING and value.strip().casefold() in MISSING
    return value is None or value == 0


def is_time(value: object) -> bool:
    """Return whether a value is a time by itself, whatever others its column has."""
    if is_number(value):
        return _of_number(value) is not None
    return isinstance(value, str) and parts_of(value.strip()) is not None


def joined(day: object, clock: object) -> object:
    """Return date and time of two columns as one value."""
    if is_missing(day) or is_missing(clock):
        return None if is_missing(day) else day
    begin = str(day).strip()
    if len(begin) > len("2024-05-01"):
        begin = _MIDNIGHT.sub("", begin)
    return f"{begin} {str(clock).strip()}"


def is_number(value: object) -> bool:
    """Return whether a value is a number, or a text that consists of one."""
    if isinstance(value, str):
        return _NUMBER.fullmatch(value.strip()) is not None
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@functools.lru_cache(maxsize=8_192)
def parts_of(text: str) -> Written | None:
    """Return the parts of a text if it is a date, with or without a time of day."""
    found = _WRITTEN.fullmatch(text) or _CLOCK_FIRST.fullmatch(text) or _YEAR_LAST.fullmatch(text)
    if found is None:
        return _compact(text)
    parts = _PARTS | found.groupdict()
    clock = _clock(parts)
    if clock is None and parts["hour"] is not None:
        return None
    if parts["first"] is None:
        month = _months().get((parts["month"] or parts["month_first"]).casefold().rstrip("."))
        day = parts["day"] or parts["day_after"]
        known = _date(parts["year"] or parts["year_after"], month, day)
        return None if known is None else Written(None, "", known, clock)
    numbers = (parts["first"], parts["second_part"], parts["third"])
    if len(numbers[0]) == _FULL_YEAR and len(numbers[2]) <= 2:  # noqa: PLR2004
        known = _date(*numbers)
        return None if known is None else Written(None, "", known, clock)
    if len(numbers[0]) > 2 or len(numbers[2]) not in (2, _FULL_YEAR):  # noqa: PLR2004
        return None
    return Written(numbers, parts["separator"], None, clock)


def _iso(text: str) -> Moment | None:
    """Return the time of the usual form of ISO 8601, quickly; None if it has another form."""
    if len(text) < len("2024-05-01T12:30") or text[4] != "-" or text[10] not in "T ":
        return None
    try:
        return Moment(datetime.fromisoformat(text), has_clock=True)
    except ValueError:
        return None


def _of_usual(found: re.Match[str], order: Order) -> Moment:
    """Return the time of the usual form of numbers, quickly."""
    first, _, second, year, hour, minute, seconds = found.groups()
    day, month = (first, second) if order == "day" else (second, first)
    try:
        time = datetime(  # noqa: DTZ001 a local time
            int(year), int(month), int(day), int(hour), int(minute), int(seconds or 0)
        )
    except ValueError:
        raise NotAMessageError("timestamp is a date or a time that does not exist") from None
    return Moment(time, has_clock=True)


def _compact(text: str) -> Written | None:
    found = _COMPACT.fullmatch(text)
    if found is None:
        return None
    parts = found.groupdict() | {"half": None, "fraction": None}
    known = _date(parts["year"], parts["month"], parts["day"])
    clock = _clock(parts)
    if known is None or known.year not in _YEARS or (clock is None and parts["hour"]):
        return None
    return Written(None, "", known, clock)


def _clock(parts: dict[str, str | None]) -> TimeOfDay | None:
    """Return the time of day; None if there is none, or none that exists."""
    if parts["hour"] is None or parts["minute"] is None:
        return None
    hour, minute, second = int(parts["hour"]), int(parts["minute"]), int(parts["second"] or 0)
    if parts["half"] is not None:
        if not 1 <= hour <= _NOON:
            return None
        hour = hour % _NOON + (_NOON if parts["half"] in "pP" else 0)
    if hour >= 24 or minute >= 60 or second >= _LEAP_SECOND:  # noqa: PLR2004
        return None
    fraction = (parts["fraction"] or "")[:6].ljust(6, "0")
    try:
        offset = _offset(parts.get("zone"))
    except ValueError:
        return None
    return TimeOfDay(hour, minute, second, int(fraction), offset)


def _offset(zone: str | None) -> timedelta | None:
    if zone is None or not zone.strip():
        return None
    found = re.search(r"([+\u2212-])(\d{1,2}):?(\d{2})?$", zone)
    if found is None:
        return timedelta()
    hours, minutes = int(found[2]), int(found[3] or 0)
    if hours >= 24 or minutes >= 60:  # noqa: PLR2004
        raise ValueError
    size = timedelta(hours=hours, minutes=minutes)
    return size if found[1] == "+" else -size


def _of_number(value: object) -> Moment | None:
    """Return the time of a number since 1970 or of a compact date; None if it is no such time."""
    text = str(value).strip()
    compact = _compact(text) if text.isdecimal() else None
    if compact is not None and compact.day is not None:
        return _moment(compact.day, compact.clock)
    number = value
    if isinstance(value, str):
        text = text.replace(",", ".")
        number = float(text) if "." in text else text
    time = from_epoch(number)
    return None if time is None or time.year not in _YEARS else Moment(time, has_clock=True)


def _moment(day: date, clock: TimeOfDay | None) -> Moment:
    if clock is None:
        return Moment(datetime(day.year, day.month, day.day), has_clock=False)  # noqa: DTZ001
    zone = None
    if clock.offset is not None:
        zone = timezone(clock.offset) if clock.offset else UTC
    time = datetime(
        day.year, day.month, day.day, clock.hour, clock.minute, clock.second, clock.microsecond,
        tzinfo=zone,
    )  # fmt: skip
    return Moment(time, has_clock=True)


@functools.lru_cache(maxsize=4_096)
def _orders(parts: tuple[str, str, str], separator: str) -> dict[Order, date]:
    first, second, third = parts
    has_year = len(third) == _FULL_YEAR
    found = {"day": _date(third, second, first), "month": _date(third, first, second)}
    padded = len(first) == len(second) == len(third) == 2  # noqa: PLR2004
    if not has_year and padded and separator != ".":
        year = _date(first, second, third)
        if year is not None and year <= datetime.now(UTC).date() + timedelta(days=1):
            found["year"] = year
    return {order: found[order] for order in ORDERS if found.get(order) is not None}  # type: ignore[misc]


def _date(year: str, month: str | int | None, day: str) -> date | None:
    number = int(year)
    if len(year) < _FULL_YEAR:
        number += 2000 if number < _CENTURY else 1900
    try:
        return None if month is None else date(number, int(month), int(day))
    except ValueError:
        return None


@functools.lru_cache(maxsize=1)
def _months() -> dict[str, int]:
    """Return the numbers of months by their names, long and short, in several languages."""
    from babel.dates import get_month_names

    found: dict[str, int] = {"sept": 9}
    for language in ("en", "de", "fr", "es", "it", "pt", "nl"):
        for width in ("wide", "abbreviated"):
            for context in ("format", "stand-alone"):
                names = get_month_names(width, context, language)
                for number, name in names.items():
                    found.setdefault(str(name).casefold().rstrip("."), int(number))
    return found
