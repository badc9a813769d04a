"""The times of a pipeline's schedule, and the one that is due.

A *period* of a schedule is the time at which a run was to start; a run is recorded with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from cronsim import CronSim, CronSimError

from aico_lab.errors import InvalidValue
from aico_lab.pipeline.kinds import check_type, read_span
from aico_lab.zones import get_zone

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from aico_lab.pipeline.records import PipelineRun

_FIELDS: Final = 5
_CATCH_UP: Final = 12 * 3600.0
_LEAST: Final = 600.0  # system timers look every five minutes
_MOST: Final = 366 * 86400.0

_MOST_STARTS: Final = 3
"""How often a period is begun whose runs are interrupted, as by a loss of power."""

WRONG_CLOCK: Final = timedelta(hours=2)
"""A run that started later than now by more than this was recorded by a wrong clock."""

_LONGEST_CHANGE: Final = timedelta(hours=3)
"""More than clocks are ever set back; CronSim looks at local times without their offset."""

_COUNTED: Final = 1000


@dataclass(frozen=True, slots=True)
class Schedule:
    """The times at which a pipeline runs.

    Attributes:
        cron: Minute, hour, day of the month, month and day of the week.
        timezone: The IANA name of the zone of these, or None for that of the lab.
        catch_up: Seconds after its time within which a run may still start.
    """

    cron: str
    timezone: str | None = None
    catch_up: float = _CATCH_UP

    def within(self, zone: str) -> Schedule:
        """Return the schedule with a time zone if it has none of its own."""
        return Schedule(self.cron, self.timezone or zone, self.catch_up)


@dataclass(frozen=True, slots=True)
class MissedPeriods:
    """Periods for which no run started in time.

    Attributes:
        first: The first of them.
        last: The last of them.
        count: Their number, at most 1,000.
    """

    first: datetime
    last: datetime
    count: int


def read_schedule(content: Mapping[str, Any], path: object) -> Schedule | None:
    """Return the schedule of a pipeline's file, or None if it has none.

    Raises:
        InvalidValue: The cron line, the zone or the bound is not valid, or there is no line.
    """
    if "schedule" not in content:
        for name in ("timezone", "catch_up"):
            if name in content:
                raise InvalidValue(f"{name!r} of {path} needs a schedule: add one, or remove it.")
        return None
    for name in ("schedule", "timezone"):
        if name in content:
            check_type(f"{name!r} of {path}", content[name], str)
    cron = " ".join(content["schedule"].split())
    _check_cron(cron, path)
    zone = get_zone(content["timezone"]).key if "timezone" in content else None
    given = read_span(f"'catch_up' of {path}", content.get("catch_up"))
    catch_up = _CATCH_UP if given is None else given
    if not (math.isfinite(catch_up) and _LEAST <= catch_up <= _MOST):
        raise InvalidValue(f"'catch_up' of {path} must be from 10 minutes to 366 days.")
    return Schedule(cron, zone, catch_up)


def _check_cron(cron: str, path: object) -> None:
    example = "such as '30 6 * * *' for every day at 06:30"
    if len(cron.split()) != _FIELDS:
        raise InvalidValue(
            f"The schedule {cron!r} of {path} needs five fields, minute, hour, day, month and day "
            f"of the week, {example}."
        )
    try:
        times = CronSim(cron, datetime(2000, 1, 1, tzinfo=UTC))
    except CronSimError as wrong:
        field = str(wrong).removeprefix("Bad ")
        raise InvalidValue(
            f"The schedule {cron!r} of {path} has a wrong {field}: write five fields {example}."
        ) from wrong
    if next(times, None) is None:
        raise InvalidValue(f"The schedule {cron!r} of {path} has no time in 50 years.")


def times_after(schedule: Schedule, moment: datetime) -> Iterator[datetime]:
    """Yield the times of a schedule after a moment, in UTC.

    As in Debian's cron, a time that clocks skip is the first moment after, and a time that occurs
    twice is the first of the two. A line whose minute or hour begins with `*` has the times that
    clocks show, each as often as they show it.
    """
    zone = get_zone(schedule.timezone or "UTC")
    start = (moment - _LONGEST_CHANGE).astimezone(zone)
    for time in CronSim(schedule.cron, start):
        found = time.astimezone(UTC)
        if found > moment:
            yield found


def last_time(schedule: Schedule, moment: datetime) -> datetime | None:
    """Return the last time of a schedule up to a moment, in UTC; None if there is none."""
    zone = get_zone(schedule.timezone or "UTC")
    start = (moment + _LONGEST_CHANGE).astimezone(zone)
    for time in CronSim(schedule.cron, start, reverse=True):
        found = time.astimezone(UTC)
        if found <= moment:
            return found
    return None


def due(
    schedule: Schedule, now: datetime, runs: Iterable[PipelineRun], *, since: datetime
) -> datetime | None:
    """Return the period to run now, or None.

    It is the last time of the schedule, unless that is too long ago or has a run.

    Args:
        schedule: The schedule, with a time zone.
        now: The time.
        runs: The recorded runs of the pipeline.
        since: The time from which on the schedule exists.
    """
    period = last_time(schedule, now)
    if period is None or period <= since or now - period > timedelta(seconds=schedule.catch_up):
        return None
    return None if is_taken(period, now, runs) else period


def is_taken(period: datetime, now: datetime, runs: Iterable[PipelineRun]) -> bool:
    """Return whether a period has a run that ended or goes on, or was begun often enough."""
    statuses = [
        run.status
        for run in runs
        if run.period is not None
        and datetime.fromisoformat(run.period) == period
        and _is_credible(run, now)
    ]
    done = any(status in ("ok", "failed", "running") for status in statuses)
    return done or statuses.count("interrupted") >= _MOST_STARTS


def missed(
    schedule: Schedule, now: datetime, runs: Iterable[PipelineRun], *, since: datetime
) -> MissedPeriods | None:
    """Return the periods without a record that are too long ago to run, or None.

    Args:
        schedule: See `due`.
        now: See `due`.
        runs: See `due`; a record of missed periods counts for all before its own.
        since: See `due`.
    """
    periods = [
        datetime.fromisoformat(run.period)
        for run in runs
        if run.period is not None and _is_credible(run, now)
    ]
    handled = max([since, *(period for period in periods if period <= now)])
    until = now - timedelta(seconds=schedule.catch_up)
    if (last := last_time(schedule, until)) is None or last <= handled:
        return None
    count, first = 0, last
    for time in times_after(schedule, handled):
        if time > last or count == _COUNTED:
            break
        first = min(first, time)
        count += 1
    return MissedPeriods(first, last, count)


def _is_credible(run: PipelineRun, now: datetime) -> bool:
    return datetime.fromisoformat(run.started_at) <= now + WRONG_CLOCK
