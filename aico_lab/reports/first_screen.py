"""The first screen of a report: whose conversations, which period, and the figures at a glance."""

from __future__ import annotations

import calendar
import time
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from aico_lab.charts.figure import in_a_sentence
from aico_lab.constants import FIRST_PLAUSIBLE_MS
from aico_lab.metrics.engine.claims import counted, isolated
from aico_lab.metrics.engine.durations import duration
from aico_lab.metrics.engine.local_time import midnight, to_local
from aico_lab.metrics.interaction.breakdown import FEWEST_REPLIES
from aico_lab.metrics.time.extremes import RECORDS, alike
from aico_lab.zones import get_zone

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aico_lab.lab import Lab
    from aico_lab.metrics.engine.answer import Answer
    from aico_lab.metrics.engine.filters import Filters

_CSS: Final = Path(__file__).with_name("first_screen.css").read_text(encoding="utf-8")
_STYLE: Final = f"<style>{_CSS}</style>"

_SIDES: Final = {"user": "people", "assistant": "the companion"}
_NAMED: Final = 3
"""The most people or channels that the header names."""

_MINUS: Final = "−"  # noqa: RUF001
_NO_VALUE: Final = "–"  # noqa: RUF001
_LONG: Final = 9  # characters
_MOST: Final = 1000
"""The largest change that is shown, in percent."""

_NOTHING_BEFORE: Final = (
    "Nothing to compare with: no period of the same length before this one has messages."
)


@dataclass(frozen=True)
class Fragment:
    """A fragment of HTML that notebooks display, and the title that it gives its page.

    Attributes:
        text: The HTML.
        title: The page's title, which `export_html` takes from the output's metadata; empty for
            none.
    """

    text: str
    title: str = ""

    def __repr__(self) -> str:
        return in_a_sentence(self.text)

    def _repr_html_(self) -> str | tuple[str, dict[str, str]]:
        return (self.text, {"title": self.title}) if self.title else self.text


@dataclass(frozen=True)
class Tile:
    """A figure of the first screen.

    Attributes:
        label: The name of the figure.
        value: The figure as text; None if there is none.
        more: A second line about the figure; empty for none.
        also: How many others have the same figure, in parentheses; empty for none.
        count: The figure as a number if its change in percent makes sense; else None.
        key: The name by which the same figure of another period is found; by default the label.
    """

    label: str
    value: str | None
    more: str = ""
    also: str = ""
    count: int | None = None
    key: str = ""


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
        return (
            f"Nothing to compare with: the first message of this selection, of "
            f"{written_day(begun.date())}, lies within the period before."
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


def header(
    name: str, overview: Answer, times: Times, note: str = "", *, usual: Answer | None = None
) -> Fragment:
    """Return the header of a report, and the title of its page.

    Args:
        name: The name of the report.
        overview: The answer to `overview` under the report's filters.
        times: The times of the messages and of the snapshot.
        note: A sentence about the data; empty for none.
        usual: The same answer without the messages dated before 1990 or in the future, of which the
            header names only the number; None if they are not left out.
    """
    whose, facts = _whose(overview, usual), _facts(overview, times)
    rows = "".join(
        f"<div><dt>{escape(fact)}</dt><dd><bdi>{escape(text)}</bdi></dd></div>"
        for fact, text in facts.items()
    )
    below = f'<p class="aico-lab-note">{escape(note)}</p>' if note else ""
    html = (
        f'{_STYLE}<div class="aico-lab-selection mathjax_ignore">'
        f'<p class="whose"><bdi>{escape(whose)}</bdi></p><dl>{rows}</dl>{below}</div>'
    )
    said = "; ".join(f"{fact.lower()}: {text}" for fact, text in facts.items())
    return Fragment(html, f"{name} · {whose} · {said}")


def _whose(overview: Answer, usual: Answer | None) -> str:
    """Return whose conversations these are, and on which days, in one line."""
    if not len(overview):
        return overview.finding.replace("`", "")
    found, filters = (usual or overview).pl().row(0, named=True), overview.filters
    people = "People without a name"
    if 0 < len(overview.users) <= _NAMED:
        people = ", ".join(overview.users)
    elif found["people"]:
        people = "One person" if found["people"] == 1 else f"{found['people']:,} people"
    if found["by_assistant"] or filters.role:
        people += " and the companion"
    if overview.channels:
        people += f" in {_listed(overview.channels, 'channels')}"
    far = "" if usual is None else f", and {far_messages(overview)}"
    return isolated(f"{people}: {written_days(found['first_day'], found['last_day'])}{far}")


def far_messages(overview: Answer) -> str:
    """Return the number of messages with most likely wrong times, in words."""
    return f"{counted(overview.far, 'messages')} from before 1990 or in the future"


def _facts(overview: Answer, times: Times) -> dict[str, str]:
    """Return the filters and the freshness of the snapshot, by name."""
    filters, zone = overview.filters, overview.filters.timezone
    fewer = _fewer(filters)
    chosen = (
        filters.since and f"from {_begins(overview)} on",
        filters.until and f"until {filters.until}",
        overview.users and _listed(overview.users, "people"),
        overview.channels and f"in {_listed(overview.channels, 'channels')}",
        filters.role and f"messages by {_SIDES[filters.role]}",
        fewer and f"nothing about {fewer}",
    )
    facts = {
        "Filters": isolated(", ".join(str(one) for one in chosen if one))
        or "none, these are all messages",
        "Time zone": zone,
    }
    if times.recent_ms is not None:
        facts["Last message"] = written_time(times.recent_ms, zone)
    if times.synced_ms is not None:
        facts["Last sync"] = written_time(times.synced_ms, zone)
    facts["Snapshot"] = str(overview.generation)
    return facts


def _fewer(filters: Filters) -> str:
    """Return of how few people or observations nothing is shown; empty without such limits."""
    least = {"people": filters.min_people or 1, "observations": filters.min_cell}
    limits = [counted(number, noun) for noun, number in least.items() if number > 1]
    return f"fewer than {' or '.join(limits)}" if limits else ""


def _begins(overview: Answer) -> str:
    """Return since when messages are selected; of a number of hours, the local minute."""
    begins = overview.begins or str(overview.filters.since)
    return written_moment(begins, overview.filters.timezone)


def _listed(names: Sequence[str], noun: str) -> str:
    return ", ".join(names) if len(names) <= _NAMED else counted(len(names), noun)


def figures(overview: Answer, latency: Answer, extremes: Answer | None) -> list[Tile]:
    """Return the figures at a glance; empty without messages.

    Args:
        overview: The answer to `overview`.
        latency: The answer to `reply_latency` under the same filters.
        extremes: The answer to `extremes` under the same filters; None if they choose a side.
    """
    if not len(overview):
        return []
    found, role = overview.pl().row(0, named=True), overview.filters.role
    by_companion = f"{100 * found['by_assistant'] / found['n']:.0f} % by the companion"
    made = [_count("message", found["n"], "" if role else by_companion)]
    if role != "assistant":
        made.append(_count("person who wrote", found["users"], several="people who wrote"))
    made += [
        _count("conversation", found["conversations"]),
        _count("day with messages", found["days"], several="days with messages"),
    ]
    replies = {row["role"]: row for row in latency.pl().iter_rows(named=True)}
    made += [
        _median(f"median time until {_SIDES[side]} {reply}", replies.get(side))
        for side, reply in (("user", "reply"), ("assistant", "replies"))
        if role in (None, side)
    ]
    mood = found["sentiment"]
    text = None if mood is None else written_mood(mood)
    made.append(Tile("mean sentiment", text, f"from {_MINUS}1 to 1"))
    if extremes is None:
        return made
    records = {row["record"]: row for row in extremes.pl().iter_rows(named=True)}
    return made + [_record(name, records.get(name), overview.filters.timezone) for name in RECORDS]


def _median(label: str, row: Mapping[str, Any] | None) -> Tile:
    """Return the tile of a row of `reply_latency`, without a median of few replies."""
    if row is None:
        return Tile(label, None)
    n, median = row["n"], row["p50"]
    few = n < FEWEST_REPLIES
    shown = None if few or median is None else duration(median)
    return Tile(label, shown, f"of {'only ' if few else ''}{counted(n, 'replies')}")


def written_mood(score: float) -> str:
    """Return a sentiment score with its sign: '+0.25'; without one if it rounds to zero."""
    text = f"{score:+z.2f}".replace("-", _MINUS)
    return "0.00" if text == "+0.00" else text


def _count(one: str, number: int, more: str = "", *, several: str = "") -> Tile:
    plural = several or f"{one}s"
    label = one if number == 1 else plural
    return Tile(label, f"{number:,}", more, count=number, key=plural)


def figures_before(now: Sequence[Tile], found: Sequence[Tile], overview: Answer) -> Sequence[Tile]:
    """Return the figures of the period before, which may have no messages that may be shown.

    Args:
        now: The figures of the period.
        found: The figures of the period before; empty without messages.
        overview: The answer to `overview` for the period before.
    """
    if found:
        return found
    if overview.left_out:  # there are messages, of too few people
        return [replace(tile, value=None, count=None) for tile in now]
    return [
        _count("message", 0),
        _count("person who wrote", 0, several="people who wrote"),
        _count("conversation", 0),
        _count("day with messages", 0, several="days with messages"),
    ]


def _record(name: str, row: Mapping[str, Any] | None, zone: str) -> Tile:
    """Return the tile of a row of `extremes`."""
    if row is None:
        return Tile(name, None)
    also = alike(row)
    if name == "busiest day":
        day = date.fromisoformat(row["begins"])
        weekday = calendar.day_name[day.weekday()]
        return Tile(name, written_day(day), f"{weekday}, {counted(row['n'], 'messages')}", also)
    if name == "busiest hour":
        hours = f"{row['begins']}{_NO_VALUE}{row['ends']}"
        return Tile(name, hours, f"of {zone}, {counted(row['n'], 'messages')}", also)
    value = duration(60 * row["value"])
    begins = datetime.fromisoformat(row["begins"])
    return Tile(name, value, f"from {written_day(begins.date())}, {begins:%H:%M}", also)


def tiles(now: Sequence[Tile], before: Sequence[Tile] = (), note: str = "") -> Fragment:
    """Return figures side by side, all of the same size.

    Args:
        now: The figures, in order.
        before: The same figures of the period before; empty for none.
        note: A sentence below the figures; empty for none.
    """
    earlier = {tile.key or tile.label: tile for tile in before}
    cells = ""
    for tile in now:
        lines = [tile.more + tile.also]
        if same := earlier.get(tile.key or tile.label):
            lines.append(f"before: {_compared(tile, same)}")
        value = tile.value or _NO_VALUE
        size = "figure long" if len(value) > _LONG else "figure"
        cells += f'<div><dt>{escape(tile.label)}</dt><dd class="{size}">{escape(value)}</dd>'
        cells += "".join(f'<dd class="more">{escape(line)}</dd>' for line in lines if line)
        cells += "</div>"
    below = f'<p class="aico-lab-note">{escape(note)}</p>' if note else ""
    return Fragment(f'{_STYLE}<dl class="aico-lab-tiles mathjax_ignore">{cells}</dl>{below}')


def _compared(now: Tile, before: Tile) -> str:
    """Return the figure of the period before, and the change since in percent if it is a count."""
    was = f"{before.value or _NO_VALUE}{before.also}"
    if now.count is None or not before.count:
        return was
    change = 100 * (now.count - before.count) / before.count
    if change > _MOST:
        return was
    return f"{was} ({change:+z.0f} %)".replace("-", _MINUS)


def dashes(shown: Sequence[Tile], answers: Sequence[Answer | None]) -> str:
    """Return a sentence that tells what dashes stand for, if some figure is withheld; else ''.

    Args:
        shown: All figures, of the period and of the one before.
        answers: The answers that they are from; None for questions that were not asked.
    """
    short = [one for one in answers if one is not None and (one.left_out or one.values_left_out)]
    if not short or all(tile.value for tile in shown):
        return ""
    return f"{_NO_VALUE} also stands for what is of {_fewer(short[0].filters)}."


def nothing_to_show(left_out: Mapping[str, str]) -> Fragment:
    """Return the list of questions that a report leaves out, grouped by the reason.

    Args:
        left_out: The reason for each question.
    """
    questions: dict[str, list[str]] = {}
    for question, reason in left_out.items():
        questions.setdefault(reason.rstrip("."), []).append(question)
    listed = "".join(
        f"<li>{escape(reason)}: {escape(' '.join(asked))}</li>"
        for reason, asked in questions.items()
    )
    return Fragment(
        f"{_STYLE}<p>Some questions have no answer in these data:</p>"
        f'<ul class="aico-lab-note mathjax_ignore">{listed}</ul>'
    )


def written_day(day: date) -> str:
    """Return a day in words: '5 April 2018'."""
    return f"{day.day} {calendar.month_name[day.month]} {day.year}"


def written_days(first: date, last: date) -> str:
    """Return a period in words: '5 to 9 April 2018'."""
    if first == last:
        return written_day(first)
    if (first.year, first.month) == (last.year, last.month):
        return f"{first.day} to {written_day(last)}"
    if first.year == last.year:
        return f"{first.day} {calendar.month_name[first.month]} to {written_day(last)}"
    return f"{written_day(first)} to {written_day(last)}"


def written_moment(text: str, zone: str) -> str:
    """Return a moment in ISO's format as local time to the minute; a day as it is."""
    if "T" not in text:
        return text
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is not None:
        # To the second first: a period ends a millisecond after a message.
        moment = to_local(1000 * round(moment.timestamp()), get_zone(zone))
    return f"{moment:%Y-%m-%d %H:%M}"


def written_time(ms: int, zone: str) -> str:
    """Return a moment in words, to the minute: '5 April 2018, 14:03'."""
    moment = to_local(ms, get_zone(zone))
    return f"{written_day(moment.date())}, {moment:%H:%M}"
