"""The period before that of a report, with which its figures are compared."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from aico_lab.constants import FIRST_PLAUSIBLE_MS
from aico_lab.metrics.engine.claims import SIDES
from aico_lab.metrics.engine.days import written_day
from aico_lab.zones import get_zone, midnight, to_local

if TYPE_CHECKING:
    from aico_lab.lab import Lab
    from aico_lab.metrics.engine.filters import Filters

_NOTHING_BEFORE: Final = (
    "Nothing to compare with: no period of the same length before this one has messages."
)


@dataclass(frozen=True)
class Times:
    """The times of messages and of the snapshot, in UTC milliseconds.

    Attributes:
        first_ms: The first message of the selected people, channels and side that is not from
            before 1990; None without messages.
        recent_ms: The last message that is not in the future; None without messages.
        synced_ms: The sync that made the snapshot.
    """

    first_ms: int | None
    recent_ms: int | None
    synced_ms: int | None


def read_times(lab: Lab, filters: Filters) -> Times:
    """Return the times of the messages and of the snapshot that a lab reads.

    Args:
        lab: The lab.
        filters: The filters of the report, whose people, channels and side restrict `first_ms`.
    """
    now_ms = time.time_ns() // 1_000_000
    chosen = {"user_id": filters.users, "channel_id": filters.channels}
    conditions = [
        f"{column} IN ({', '.join(map(_quoted, values))})"
        for column, values in chosen.items() if values
    ]  # fmt: skip
    if filters.role:
        conditions.append(f"role = {_quoted(filters.role)}")
    selected = " AND ".join(conditions) or "true"
    usual, likely = f"ts_ms >= {FIRST_PLAUSIBLE_MS}", f"ts_ms <= {now_ms}"
    relation = lab.sql(f"""
        SELECT
            coalesce(
                min(ts_ms) FILTER ({selected} AND {usual}), min(ts_ms) FILTER ({selected})
            ),
            coalesce(max(ts_ms) FILTER ({likely}), max(ts_ms)),
            (SELECT epoch_ms(max(synced_at)) FROM meta.state)
        FROM mart.messages""")
    assert relation is not None  # noqa: S101 - a SELECT has a result
    return Times(*(relation.fetchone() or (None, None, None)))


def _quoted(text: str) -> str:
    """Return a text as a literal of SQL."""
    return "'" + text.replace("'", "''") + "'"


def period_before(filters: Filters, times: Times) -> tuple[str, str] | str:
    """Return `since` and `until` of the period of the same length right before that of the filters.

    A period of whole days has a period of as many whole days before it. A period that has not ended
    ends, for the comparison, with the last message: if it has begun at midnight, the period before
    has as many days, the last one up to the same local time of day.

    Args:
        filters: The filters of the report.
        times: The times of the messages.

    Returns:
        `since` and `until`; or a sentence why there is no such period: the filters have no `since`,
        their period begins after the last message, or the first message is not from before the
        period, or lies within the period before.
    """
    first_ms, recent_ms = times.first_ms, times.recent_ms
    if first_ms is None or recent_ms is None:
        return _NOTHING_BEFORE
    since_ms, until_ms = filters.bounds(recent_ms)
    if since_ms is None or since_ms > recent_ms or since_ms <= first_ms:
        return _NOTHING_BEFORE
    zone = get_zone(filters.timezone)
    ended = until_ms is not None and until_ms <= recent_ms
    end_ms = until_ms if until_ms is not None and ended else recent_ms + 1
    try:
        since, until = _right_before(to_local(since_ms, zone), to_local(end_ms, zone), ended=ended)
    except (OverflowError, ValueError):  # before the calendar begins
        return _NOTHING_BEFORE
    begun = to_local(first_ms, zone)
    known_ms = first_ms if "T" in since else midnight(begun.date(), zone.key)
    begin_before, end_before = replace(filters, since=since, until=until).bounds(recent_ms)
    if (begin_before or 0) < known_ms or (end_before or 0) <= first_ms:
        # `first_ms` is of any time, so it may be from before the selected period.
        chosen = (
            filters.users and "of the chosen people",
            filters.channels and "in the chosen channels",
            filters.role and f"by {SIDES[filters.role]}",
        )
        of = " ".join(part for part in chosen if part) or "of all"
        return (
            f"Nothing to compare with: the first message {of}, of {written_day(begun.date())}, "
            "lies within the period before."
        )
    return since, until


def _right_before(begin: datetime, end: datetime, *, ended: bool) -> tuple[str, str]:
    """Return `since` and `until` of the period as long as one, right before it.

    Args:
        begin: The local begin of the period.
        end: Its local end, which does not belong to it.
        ended: Whether it ends there by its filters, rather than with the data.
    """
    if not _begins_day(begin) or (ended and not _begins_day(end)):
        start = begin.astimezone(UTC) - (end.astimezone(UTC) - begin.astimezone(UTC))
        return start.isoformat(), begin.astimezone(UTC).isoformat()
    yesterday = begin.date() - timedelta(days=1)
    if _begins_day(end):
        first = begin.date() - (end.date() - begin.date())
        return first.isoformat(), yesterday.isoformat()
    first = yesterday - (end.date() - begin.date())
    until = datetime.combine(yesterday, end.time(), end.tzinfo)
    return first.isoformat(), until.isoformat()


def _begins_day(moment: datetime) -> bool:
    """Return whether a local time is the first of its day, which may be 01:00 if clocks skip it."""
    return moment == datetime.combine(moment.date(), datetime.min.time(), moment.tzinfo).astimezone(
        UTC
    )
