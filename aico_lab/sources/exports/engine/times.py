"""Complete the times of messages that are missing or have no zone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from aico_lab.sources.exports.engine.conversation import Options

STEP: Final = timedelta(seconds=60)
"""The time between two messages of a file without times, unless `Options.step` says another."""

START_UNUSED: Final = "The file has times of its own, so the start that was given is not used."

NO_TIMES: Final = (
    "no message has a time: give the time of the first one with --start TIME, and the seconds "
    "between two with --step SECONDS"
)


def to_utc(
    time: datetime, zone: ZoneInfo | None, previous: datetime | None
) -> tuple[datetime, bool]:
    """Return a time in UTC, and whether it is a guess.

    When clocks are set back, an hour comes twice. The first one is taken, unless that would be
    before the previous message and the second one would not. When clocks are set forward, an hour
    is missing; a time in it becomes the moment of the change, which lies between the times before
    and those after it.

    Args:
        time: The time, with a zone, or without one as a local time.
        zone: The zone of times without one; None is UTC.
        previous: The time of the previous message in UTC, or None.

    Raises:
        OverflowError: The time lies outside the years 1 to 9999 in UTC.
    """
    if time.tzinfo is not None:
        return time.astimezone(UTC), False
    if zone is None:
        return time.replace(tzinfo=UTC), False
    early = time.replace(tzinfo=zone, fold=0).astimezone(UTC)
    late = time.replace(tzinfo=zone, fold=1).astimezone(UTC)
    if late < early:  # the clocks skipped this time
        change = _change(zone, late, early)
        is_near = previous is not None and change < previous <= early
        return (previous if previous is not None and is_near else change), True
    if previous is not None and early < previous <= late:
        return late, True
    return early, False


def _change(zone: ZoneInfo, before: datetime, after: datetime) -> datetime:
    """Return the moment between two times in UTC at which the offset of a zone changes."""
    offset = before.astimezone(zone).utcoffset()
    seconds = int((after - before).total_seconds())
    unchanged, changed = 0, seconds
    begin = before.replace(microsecond=0)
    while changed - unchanged > 1:
        middle = (unchanged + changed) // 2
        if (begin + timedelta(seconds=middle)).astimezone(zone).utcoffset() == offset:
            unchanged = middle
        else:
            changed = middle
    return begin + timedelta(seconds=changed)


class Clock:
    """The times of the messages of one conversation, in order.

    A message without a time has that of the message before it, which further messages in a later
    export do not change. Before the first message with a time it is the time at which the
    conversation began, or else that of the first message with one.

    Attributes:
        last: The time of the last message in UTC, or None.
    """

    def __init__(self, options: Options, first: datetime | None, *, paced: bool) -> None:
        """Begin a conversation.

        Args:
            options: Has the zone of times without one, and the step of paced conversations.
            first: The time of messages before the first one with a time.
            paced: Whether no message has a time, so that each is a step after the one before.
        """
        self._zone = options.zone
        self._step = (options.step or STEP) if paced else timedelta()
        self._first = first
        self.last: datetime | None = None

    @property
    def next(self) -> datetime | None:
        """The time at which another paced conversation begins."""
        return self._first if self.last is None else self.last + self._step

    def time(self, given: datetime | None) -> tuple[datetime, bool]:
        """Return the time of the next message in UTC, and whether it is estimated.

        Raises:
            OverflowError: The time lies outside the years 1 to 9999 in UTC.
            ValueError: There is no time from which the missing one could be estimated.
        """
        if given is not None:
            time, guessed = to_utc(given, self._zone, self.last)
        elif self.last is not None:
            time, guessed = self.last + self._step, True
        elif self._first is not None:
            time, guessed = to_utc(self._first, self._zone, None)[0], True
        else:
            raise ValueError("the message has no time, and no message near it has one")
        self.last = time
        return time, guessed
