"""The date and time at the beginning of a message of WhatsApp, in the phone's own form.

A file has one form throughout, but does not state it. So all dates of a file decide together
whether the day or the month comes first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Final, Literal, NamedTuple

from aico_lab.sources.exports.whatsapp.words import AM, FILLERS, PM

MARKS: Final = "\u200e\u200f\u202a-\u202e\u2066-\u2069"
"""Marks of the direction of writing, as a part of a class of characters."""

_B: Final = rf"[ \u00a0\u202f{MARKS}]*+"
_DATE: Final = rf"(\d{{1,4}}){_B}([./-]){_B}(\d{{1,2}}){_B}[./-]{_B}(\d{{1,4}})"
_TIME: Final = r"(\d{1,2})(?:[:.]| ?h ?)(\d{2})(?:[:.](\d{2}))?"
_BRACKETED: Final = re.compile(
    rf"{_B}\[{_B}{_DATE}([^\d\[\]]{{1,20}}?){_TIME}([^\d\[\]]{{0,20}})\] ?"
)
_PLAIN: Final = re.compile(
    rf"{_B}{_DATE}([^\d\[\]-]{{1,20}}?){_TIME}([^\d\[\]-]{{0,20}}?){_B}[-\u2013] ?"
)
_KOREAN: Final = re.compile(
    rf"{_B}{_DATE}(\.{_B}(?:오전|오후){_B}){_TIME}()(?:, (?=[^\n]{{1,150}}? : )|: )"
)
"""Android's form in Korean, in which the author stands between a comma and a colon with blanks."""

_NO_WORD: Final = re.compile(rf"[\s.,،:{MARKS}]+")

_FIRST_YEAR: Final = 2009
"""The year in which WhatsApp began."""

_LAST_YEAR: Final = 2099
_MONTHS: Final = 12
_DAYS: Final = 31
_NOON: Final = 12
_HOURS: Final = 24
_BUDDHIST: Final = 543
"""Years by which the calendar of Thailand is ahead."""

_FULL_YEAR: Final = 4
_HALVES: Final = 2

Order = Literal["day", "month", "year"]
"""The part that comes first in a date whose first number has two digits."""


class Head(NamedTuple):
    """The beginning of a message.

    Attributes:
        date: The three numbers of the date, as they are written.
        separator: The character between the numbers.
        time: Hour, minute and second.
        words: The words before and after the time.
        rest: The text after the beginning.
    """

    date: tuple[str, str, str]
    separator: str
    time: tuple[int, int, int]
    words: tuple[str, str]
    rest: str


def head(line: str, *, bracketed: bool) -> Head | None:
    """Return the beginning of a message, or None if a line is not the first one of a message.

    Args:
        line: The line.
        bracketed: Whether the date and time stand in brackets, as WhatsApp for iPhone writes them.
    """
    found = (_BRACKETED if bracketed else _PLAIN).match(line)
    if found is None and not bracketed:
        found = _KOREAN.match(line)
    if found is None:
        return None
    rest = (
        line[found.end() :]
        if found.re is not _KOREAN
        else line[found.end() :].replace(" : ", ": ", 1)
    )
    first, separator, second, third, before, hour, minute, second_of, after = found.groups()
    return Head(
        (first, second, third),
        separator,
        (int(hour), int(minute), int(second_of or 0)),
        (_word(before), _word(after)),
        rest,
    )


@lru_cache(maxsize=1_024)
def _word(text: str) -> str:
    return _NO_WORD.sub("", text).casefold()


@dataclass(slots=True)
class Form:
    """The form of dates and times in a file, as the beginnings of its messages show it.

    Attributes:
        day_line: The first line that can only have the day before the month.
        month_line: The first line that can only have the month before the day.
    """

    day_line: int | None = None
    month_line: int | None = None
    _last: tuple[str, str, str] | None = None
    _first_changes: int = 0
    _second_changes: int = 0
    _first_falls: int = 0
    _second_falls: int = 0
    _third_is_no_year: int = 0
    _first_is_no_year: int = 0
    _dotted: bool = False
    _unknown: set[str] = field(default_factory=set)
    _has_halves: bool = False
    _latest_hour: int = 0

    def add(self, number: int, one: Head) -> None:
        """Count what the date of a message shows about the order of day and month.

        Args:
            number: The number of its line.
            one: The beginning.
        """
        self._add_time(one)
        if one.date == self._last or len(one.date[0]) == _FULL_YEAR:
            return
        first, second, third = map(int, one.date)
        if not (0 < first <= _DAYS and 0 < second <= _DAYS):
            return
        if min(first, second) > _MONTHS:
            return
        if first > _MONTHS:
            self.day_line = self.day_line or number
        elif second > _MONTHS:
            self.month_line = self.month_line or number
        self._dotted |= one.separator == "."
        if len(one.date[2]) < _FULL_YEAR:
            self._third_is_no_year += third < _FIRST_YEAR % 100
            self._first_is_no_year += first < _FIRST_YEAR % 100
        if self._last is not None:
            first_before, second_before, third_before = map(int, self._last)
            self._first_changes += first != first_before
            self._second_changes += second != second_before
            if third == third_before:
                self._first_falls += first < first_before
                self._second_falls += second < second_before
        self._last = one.date

    def _add_time(self, one: Head) -> None:
        self._latest_hour = max(self._latest_hour, one.time[0])
        for word in one.words:
            if word in AM or word in PM:
                self._has_halves = True
            elif word and word not in FILLERS and len(self._unknown) < _HALVES:
                self._unknown.add(word)

    def contradiction(self) -> str | None:
        """Return a sentence about two lines that cannot have the same form, or None."""
        if not (self.day_line and self.month_line) or self._is_year_first():
            return None
        return (
            f"line {self.day_line:,} has the day before the month, and line {self.month_line:,} "
            "the month before the day: this file was joined from several: import each of them "
            "separately"
        )

    def order(self, *, day_first: bool | None) -> Order | None:
        """Return the part that comes first in the dates of the file, or None if it is not known.

        A number above 12 decides. Without one, the user's answer counts. Without an answer,
        the month is the number that decreases less often within a year, or else changes less
        often.

        Args:
            day_first: The user's answer, or None.
        """
        if (known := self._certain(day_first=day_first)) is not None:
            return known
        for first, second in (
            (self._first_falls, self._second_falls),
            (self._first_changes, self._second_changes),
        ):
            if first != second:
                return "day" if first > second else "month"
        is_clear = self._last is None or self._last[0] == self._last[1]
        return "day" if is_clear else None

    def is_guess(self, *, day_first: bool | None) -> bool:
        """Return whether only the way in which the numbers change shows the order."""
        first = self._first_falls, self._first_changes
        is_shown = first != (self._second_falls, self._second_changes)
        return is_shown and self._certain(day_first=day_first) is None

    def _certain(self, *, day_first: bool | None) -> Order | None:
        if self._is_year_first():
            return "year"
        if self.day_line or self.month_line:
            return "day" if self.day_line else "month"
        if day_first is not None:
            return "day" if day_first else "month"
        return "day" if self._dotted else None  # no language has dots and the month first

    def _is_year_first(self) -> bool:
        return self._third_is_no_year > self._first_is_no_year

    def unknown_halves(self) -> bool:
        """Return whether times have 12 hours, with words for the halves of the day not known."""
        return not self._has_halves and self._latest_hour <= _NOON and len(self._unknown) >= _HALVES


def time_of(one: Head, order: Order) -> datetime | None:
    """Return the local time of a message, or None if there is no such time.

    Args:
        one: The beginning of the message.
        order: The part that comes first in the dates of the file.
    """
    first, second, third = one.date
    if len(first) == _FULL_YEAR or order == "year":
        year, month, day = first, second, third
    elif order == "day":
        day, month, year = first, second, third
    else:
        month, day, year = first, second, third
    number = int(year) if len(year) == _FULL_YEAR else 2000 + int(year)
    if number > _LAST_YEAR:
        number -= _BUDDHIST
    if not _FIRST_YEAR <= number <= _LAST_YEAR:
        return None
    hour, minute, seconds = one.time
    hour %= _HOURS  # some phones count the hours of a day from 1 to 24, which is its first one
    if hour <= _NOON:
        if any(word in PM for word in one.words):
            hour = hour % _NOON + _NOON
        elif any(word in AM for word in one.words):
            hour %= _NOON
    try:
        return datetime(number, int(month), int(day), hour, minute, seconds)  # noqa: DTZ001 local
    except ValueError:
        return None
