"""The longest streak, the latest message and the session with the most messages."""

from __future__ import annotations

from datetime import date, datetime
from typing import TYPE_CHECKING, Final

import ibis
import polars as pl
import polars.selectors as cs
from ibis import _

from aico_lab.constants import MS_PER_DAY, MS_PER_HOUR
from aico_lab.metrics.engine import claims
from aico_lab.metrics.engine.days import written_days, written_minute
from aico_lab.metrics.engine.local_time import local_ms
from aico_lab.metrics.engine.metric import PEOPLE, Column, RoleFilter, metric
from aico_lab.metrics.engine.talk import days_of, ms_after
from aico_lab.metrics.time.extremes import alike, draw_sentences, first_of_largest, written_local

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from aico_lab.metrics.engine.answer import Answer
    from aico_lab.metrics.engine.metric import Chart
    from aico_lab.metrics.engine.talk import Talk

HIGHLIGHTS: Final = ("longest streak", "latest message", "largest session")

MORNING: Final = 5
"""The hour at which a night ends, and the next day begins."""

_UNITS: Final = ("days", "hours after 05:00", "messages")


def _finish(rows: pl.DataFrame, _talk: Talk) -> pl.DataFrame:
    rows = rows.with_columns(cs.decimal().cast(pl.Int64)).filter(pl.col("value").is_not_null())
    found = []
    for row in rows.sort("place").iter_rows(named=True):
        place = row["place"]
        ends = (written_local(row[end], day=place == 0) for end in ("begin_ms", "end_ms"))
        value = row["value"] / MS_PER_HOUR if place == 1 else float(row["value"])
        found.append(
            (HIGHLIGHTS[place], row["n"], row["people"], *ends, value, _UNITS[place], row["alike"])
        )
    schema = {
        "record": pl.String, "n": pl.Int64, "people": pl.Int64, "begins": pl.String,
        "ends": pl.String, "value": pl.Float64, "unit": pl.String, "alike": pl.Int64,
    }  # fmt: skip
    return pl.DataFrame(found, schema=schema, orient="row")


def _describe(rows: pl.DataFrame) -> str:
    said = []
    for row in rows.iter_rows(named=True):
        record, count = row["record"], int(row["value"])
        if row["begins"] is None or row["ends"] is None:  # beyond the calendar
            text = "at an unknown time"
        elif record == "longest streak":
            days = written_days(*(date.fromisoformat(row[end]) for end in ("begins", "ends")))
            text = f"{claims.counted(count, 'days')} from {days}".replace("1 day from", "1 day,")
        else:
            begins = written_minute(datetime.fromisoformat(row["begins"]))
            text = begins
            if record == "largest session":
                text = f"{claims.counted(count, 'messages')} from {begins}"
        said.append(f"{record}: {text}{alike(row)}")
    text = "; ".join(said)
    return text[:1].upper() + text[1:]


def _draw(answer: Answer) -> Chart:
    return draw_sentences(answer, _describe, HIGHLIGHTS)


@metric(
    domain="time",
    question="What were the longest streak, the latest message and the largest session?",
    source="Years in review of music and learning programs; streaks as in streaks, sessions as in "
    "sessions",
    columns=[
        Column("record", "text", "longest streak, latest message or largest session"),
        Column(
            "n", "integer", "messages of people in the streak or at that time; of a session all"
        ),
        PEOPLE,
        Column("begins", "text", "local day or time of the beginning"),
        Column("ends", "text", "local day or time of the end"),
        Column("value", "number", "length in days, hours after 05:00, or number of messages"),
        Column("unit", "text", "days, hours after 05:00 or messages"),
        Column("alike", "integer", "number of streaks, messages or sessions with this value"),
    ],
    finish=_finish,
    finding=_describe,
    far="left out",
    estimated="counted in the longest streak only",
    chart=_draw,
    role=RoleFilter.REFUSED,
)
def highlights(talk: Talk) -> ir.Table:
    """The longest streak of a person, the latest message of a night, and the largest session.

    A streak is a run of consecutive local days on which one named person wrote (role user); it is
    cut at both ends of the period. The latest message is that of people (role user) whose local
    time of day is latest, where a night ends at 05:00: 04:59 is later than 23:59. The largest
    session has the most messages of both sides; sessions and their people are as in `extremes`.
    Messages with an estimated time are no latest message, and no session that has one is the
    largest. Of records that tie, the first is shown, and `alike` counts them.
    """
    messages = talk.plausible(talk.messages, "ts_ms")
    by_people = messages.filter(messages.role == "user")
    timed = by_people.filter(~by_people.is_estimated)
    of_night = ms_after(MORNING, timed.local_ms)
    late = timed.group_by(at=timed.local_ms, after=of_night).agg(
        n=_.count(), people=_.user_id.nunique()
    )
    everything = talk.everything
    of_session = everything.group_by("conversation_id", "session_idx").agg(
        people=everything.user_id.nunique(), has_estimated=everything.is_estimated.any()
    )
    of_session = of_session.filter(~of_session.has_estimated).drop("has_estimated")
    sessions = talk.plausible(talk.sessions(), "started_ms")
    sessions = sessions.inner_join(of_session, ["conversation_id", "session_idx"])
    sessions = sessions.mutate(
        n=sessions.n_messages,
        begin_ms=sessions.local_ms,
        end_ms=local_ms(sessions.ended_ms, talk.shifts),
    )
    streaks = _streaks(by_people)
    return (
        first_of_largest(
            streaks,
            0,
            value=streaks.days,
            begin=streaks.first * MS_PER_DAY,
            end=streaks.last * MS_PER_DAY,
        )
        .union(
            first_of_largest(
                late, 1, value=late.after, begin=late["at"], end=late["at"], counts=late.n
            )
        )
        .union(
            first_of_largest(
                sessions, 2, value=sessions.n, begin=sessions.begin_ms, end=sessions.end_ms
            )
        )
    )


def _streaks(messages: ir.Table) -> ir.Table:
    """Return the runs of consecutive days of each named person."""
    days = messages.filter(messages.user_id.notnull())
    days = days.group_by("user_id", day=days_of(days.local_ms)).agg(n=_.count())
    in_order = ibis.window(group_by="user_id", order_by="day")
    days = days.mutate(place=ibis.row_number().over(in_order))
    # Days without a gap have the same difference between day and place.
    runs = days.mutate(run=days.day - days.place)
    return runs.group_by("user_id", "run").agg(
        days=_.count(), first=_.day.min(), last=_.day.max(), n=_.n.sum(), people=ibis.literal(1)
    )
