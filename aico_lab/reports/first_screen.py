"""The first screen of a report: whose conversations, which period, and the figures at a glance."""

from __future__ import annotations

import calendar
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from aico_lab.charts.figure import in_a_sentence
from aico_lab.metrics.engine.claims import MINUS, counted, isolated
from aico_lab.metrics.engine.days import (
    written_day,
    written_days,
    written_minute,
    written_moment,
)
from aico_lab.metrics.engine.durations import duration
from aico_lab.metrics.interaction.breakdown import FEWEST_REPLIES
from aico_lab.metrics.time.extremes import RECORDS, alike
from aico_lab.reports import document
from aico_lab.reports.written import in_a_tile, written_mood, written_time

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aico_lab.metrics.engine.answer import Answer
    from aico_lab.metrics.engine.filters import Filters
    from aico_lab.reports.period_before import Times

_CSS: Final = Path(__file__).with_name("first_screen.css").read_text(encoding="utf-8")
_STYLE: Final = f"<style>{_CSS}</style>"

_SIDES: Final = {"user": "people", "assistant": "the companion"}
_NAMED: Final = 3
"""The most people or channels that the header names."""

DAYS: Final = "days with messages"
"""The key of the figure that periods of hours have in common with the days around them."""

_NO_VALUE: Final = "–"  # noqa: RUF001
_LONG: Final = 9  # characters
_MOST: Final = 1000
"""The largest change that is shown, in percent."""


@dataclass(frozen=True)
class Fragment:
    """A fragment of HTML that notebooks display, and the title that it gives its page.

    Attributes:
        text: The HTML.
        title: The page's title, which `export_html` takes from the output's metadata; empty for
            none.
        data: The same as data, for the output's metadata; see `document.marked`.
    """

    text: str
    title: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return in_a_sentence(self.text)

    def _repr_html_(self) -> str | tuple[str, dict[str, Any]]:
        metadata = {**({"title": self.title} if self.title else {}), **self.data}
        return (self.text, metadata) if metadata else self.text


@dataclass(frozen=True)
class Tile:
    """A figure of the first screen.

    Attributes:
        label: The name of the figure.
        value: The figure as text; None if there is none.
        more: A second line about the figure; empty for none.
        also: How many others have the same figure, in parentheses; empty for none.
        number: The figure as a number; None for days and hours.
        unit: The unit of the number; empty for counts and scores.
        interval: The ends of the number's 95 % interval; None for none.
        n: The number of observations that the figure rests on; None for counts of all.
        is_count: Whether the figure is a count, so that its change in percent makes sense.
        key: The name by which the same figure of another period is found; by default the label.
    """

    label: str
    value: str | None
    more: str = ""
    also: str = ""
    number: float | None = None
    unit: str = ""
    interval: tuple[float, float] | None = None
    n: int | None = None
    is_count: bool = False
    key: str = ""


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
    data = {
        "name": name,
        "about": whose,
        "facts": facts,
        "note": note,
        **_selection(overview, times),
    }
    return Fragment(html, f"{name} · {whose} · {said}", document.marked("data", data))


def _selection(overview: Answer, times: Times) -> dict[str, Any]:
    """Return the selection of messages as data; times are in UTC."""
    filters = overview.filters
    since_ms = until_ms = None
    if times.recent_ms is not None:
        since_ms, until_ms = filters.bounds(times.recent_ms)
    days = overview.pl().row(0, named=True) if len(overview) else {}
    return {
        "period": {
            "since": document.utc(since_ms),
            "until": document.utc(until_ms),
            "first_day": days.get("first_day"),
            "last_day": days.get("last_day"),
        },
        "filters": {
            "since": filters.since,
            "until": filters.until,
            "users": overview.users,
            "channels": overview.channels,
            "role": filters.role,
            "min_cell": filters.min_cell,
            "min_people": filters.min_people,
        },
        "timezone": filters.timezone,
        "people": days.get("people"),
        "snapshot": overview.generation,
        "last_message_at": None if overview.users else document.utc(times.recent_ms),
        "synced_at": document.utc(times.synced_ms),
    }


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
        filters.until and f"until {written_moment(filters.until, zone)}",
        overview.users and _listed(overview.users, "people"),
        overview.channels and f"in {_listed(overview.channels, 'channels')}",
        filters.role and f"messages by {_SIDES[filters.role]}",
        fewer and f"nothing about {fewer}",
    )
    facts = {
        "Filters": isolated(", ".join(str(one) for one in chosen if one))
        or ("none, these are all messages" if len(overview) else "none"),
        "Time zone": zone,
    }
    # A page about some people does not tell when others wrote.
    if times.recent_ms is not None and not overview.users:
        narrowed = filters.until or filters.channels or filters.role
        facts["Last message of all" if narrowed else "Last message"] = written_time(
            times.recent_ms, zone
        )
    if times.synced_ms is not None:
        facts["Last sync"] = written_time(times.synced_ms, zone)
    facts["Snapshot"] = str(overview.generation)
    return facts


def _fewer(filters: Filters) -> str:
    """Return the sizes of groups that are hidden; empty without limits."""
    least = {"people": filters.min_people or 1, "observations": filters.min_cell}
    limits = [counted(number, noun) for noun, number in least.items() if number > 1]
    return f"fewer than {' or '.join(limits)}" if limits else ""


def _begins(overview: Answer) -> str:
    """Return the start of the period; to the minute if it is a number of hours."""
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
    made = [_count(found["n"], "messages", "" if role else by_companion)]
    if role != "assistant":
        made.append(_count(found["users"], "people who wrote"))
    made += [
        _count(found["conversations"], "conversations"),
        _count(found["days"], DAYS),
    ]
    replies = {row["role"]: row for row in latency.pl().iter_rows(named=True)}
    made += [
        _median(f"median time until {_SIDES[side]} {reply}", replies.get(side), latency)
        for side, reply in (("user", "reply"), ("assistant", "replies"))
        if role in (None, side)
    ]
    mood = found["sentiment"]
    text = None if mood is None else written_mood(mood)
    made.append(Tile("mean sentiment", text, f"from {MINUS}1 to 1", number=mood))
    if extremes is None:
        return made
    records = {row["record"]: row for row in extremes.pl().iter_rows(named=True)}
    return made + [_record(name, records.get(name), overview.filters.timezone) for name in RECORDS]


def _median(label: str, row: Mapping[str, Any] | None, latency: Answer) -> Tile:
    """Return the tile of a row of `reply_latency`, without a median of few replies."""
    if row is None or not row["n"]:
        return Tile(label, None, "" if latency.left_out else "no replies")
    n, median = row["n"], row["p50"]
    few = n < FEWEST_REPLIES
    shown = None if few or median is None else duration(median)
    low, high = row["p50_low"], row["p50_high"]
    return Tile(
        label,
        shown,
        f"of {'only ' if few else ''}{counted(n, 'replies')}",
        number=median,
        unit="s",
        interval=None if low is None or high is None else (low, high),
        n=n,
    )


def _count(number: int, plural: str, more: str = "") -> Tile:
    value, label = counted(number, plural).split(" ", 1)
    return Tile(label, value, more, number=number, is_count=True, key=plural)


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
        return [replace(tile, value=None, number=None, interval=None, n=None) for tile in now]
    return [_count(0, what) for what in ("messages", "people who wrote", "conversations", DAYS)]


def _record(name: str, row: Mapping[str, Any] | None, zone: str) -> Tile:
    """Return the tile of a row of `extremes`."""
    if row is None:
        return Tile(name, None)
    also = alike(row)
    if name == "busiest day":
        day = date.fromisoformat(row["begins"])
        weekday = calendar.day_name[day.weekday()]
        more = f"{weekday}, {counted(row['n'], 'messages')}"
        return Tile(name, written_day(day), more, also, n=row["n"])
    if name == "busiest hour":
        hours = f"{row['begins']}{_NO_VALUE}{row['ends']}"
        return Tile(name, hours, f"of {zone}, {counted(row['n'], 'messages')}", also, n=row["n"])
    seconds = 60 * row["value"]
    more = f"from {written_minute(datetime.fromisoformat(row['begins']))}"
    return Tile(name, duration(seconds), more, also, number=seconds, unit="s")


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
        cells += "".join(f'<dd class="more">{in_a_tile(line)}</dd>' for line in lines if line)
        cells += "</div>"
    below = f'<p class="aico-lab-note">{escape(note)}</p>' if note else ""
    both = [document.of_tile(tile, earlier.get(tile.key or tile.label)) for tile in now]
    return Fragment(
        f'{_STYLE}<dl class="aico-lab-tiles mathjax_ignore">{cells}</dl>{below}',
        data=document.marked("figures", {"tiles": both, "note": note}),
    )


def _compared(now: Tile, before: Tile) -> str:
    """Return the figure of the period before, and the change since in percent if it is a count."""
    was = f"{before.value or _NO_VALUE}{before.also}"
    if not now.is_count or now.number is None or not before.number:
        return was
    change = 100 * (now.number - before.number) / before.number
    if change > _MOST:
        return was
    return f"{was} ({change:+z.0f} %)".replace("-", MINUS)


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
        f"<li>{escape(reason[:1].upper() + reason[1:])}: {escape(' '.join(asked))}</li>"
        for reason, asked in questions.items()
    )
    return Fragment(
        f"{_STYLE}<p>Some questions have no answer in these data:</p>"
        f'<ul class="aico-lab-note mathjax_ignore">{listed}</ul>',
        data=document.marked(
            "left_out", [{"question": asked, "reason": why} for asked, why in left_out.items()]
        ),
    )
