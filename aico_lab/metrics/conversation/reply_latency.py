"""The time until a reply, and the number of turns without one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import ibis
import polars as pl
from ibis import _

from aico_lab.constants import MS_PER_HOUR
from aico_lab.metrics.engine import claims, draw
from aico_lab.metrics.engine.checks import more_than_nothing
from aico_lab.metrics.engine.durations import duration
from aico_lab.metrics.engine.filters import Filters
from aico_lab.metrics.engine.intervals import COUNTED, MOST, PEOPLE_OF, UNITS, unit_of
from aico_lab.metrics.engine.metric import PEOPLE, Column, Parameter, interval, metric
from aico_lab.metrics.engine.quantiles import median_interval, quantiles

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from aico_lab.metrics.engine.answer import Answer
    from aico_lab.metrics.engine.metric import Chart
    from aico_lab.metrics.engine.talk import Talk


_HOURS_OF_A_YEAR: Final = 8_760


_OPEN: Final = ("unanswered", "farewells", "one_sided")
"""The kinds of turns without a reply."""


def _finish(rows: pl.DataFrame, talk: Talk, *, cutoff_hours: float) -> pl.DataFrame:
    until = talk.bounds[1]
    known_until = talk.last_ms if until is None else min(until, talk.last_ms)
    waiting, replies = (
        rows.filter(pl.col("ended_ms").is_null() == known) for known in (False, True)
    )
    decided = pl.col("ended_ms") + round(cutoff_hours * MS_PER_HOUR) <= known_until
    without = waiting.group_by("role").agg(pl.col(_OPEN).filter(decided).sum())
    return (
        replies.drop(_OPEN)
        .join(without, on="role", how="full", coalesce=True)
        .with_columns(
            pl.col("n", "late", "untimed", "recorded", "people", UNITS, *_OPEN).fill_null(0)
        )
        .with_columns(unit_of("people", talk.units), pl.lit("replies").alias(COUNTED))
        .sort("role")
    )


def _time(seconds: float | None) -> str:
    return "no time" if seconds is None else duration(seconds)


_TICKS: Final = (0, 1, 3, 10, 30, 60, 180, 600, 1_800, 3_600, 10_800, 36_000, 86_400, 604_800)


_TICK: Final = (
    "datum.value < 60 ? datum.value + ' s' : datum.value < 3600 ? datum.value / 60 + ' min'"
    " : datum.value / 3600 + ' h'"
)


def _draw(answer: Answer) -> Chart:
    import altair as alt

    # A reply after 0 s can be drawn on this axis, but not on a logarithmic one.
    scale = alt.Scale(type="symlog", constant=1, nice=False, domainMin=0)
    axis = alt.Axis(values=_TICKS, labelExpr=_TICK, labelOverlap="greedy", grid=True)
    return draw.side_by_side(
        answer,
        {"p50": "median", "p95": "95 % are at most", "p99": "99 % are at most"},
        "Time until the reply (logarithmic)",
        x=alt.X("value:Q", scale=scale, axis=axis),
        written=_time,
    )


@metric(
    domain="conversation",
    question="How long does each side take to reply?",
    source="Percentiles: Hyndman and Fan (1996), type 1; interval of the median: Woodruff (1952)",
    parameters=[
        Parameter("cutoff_hours", float, 12.0, "Replies after more hours are left out as late."),
    ],
    columns=[
        Column("role", "text", "the side that replied"),
        Column("n", "integer", "replies within the cutoff"),
        PEOPLE,
        Column("p50", "number", "median time until the reply", "s"),
        interval("p50", "s"),
        Column("p95", "number", "95th percentile of the time until the reply", "s"),
        Column("p99", "number", "99th percentile of the time until the reply", "s"),
        Column("recorded", "integer", "replies within the cutoff with a recorded response time"),
        Column("recorded_p50", "number", "median of the recorded response times", "s"),
        Column("recorded_p95", "number", "95th percentile of the recorded response times", "s"),
        Column("late", "integer", "replies after the cutoff, left out"),
        Column("untimed", "integer", "replies whose time is estimated at an end, left out"),
        Column(
            "unanswered",
            "integer",
            "turns of the other side without a reply in time, neither farewells nor one_sided",
        ),
        Column(
            "farewells", "integer", "last turns of conversations without a reply, which ask nothing"
        ),
        Column(
            "one_sided",
            "integer",
            "turns in conversations in which the side that replies never wrote",
        ),
    ],
    finish=_finish,
    finding=lambda rows: claims.each(
        rows,
        lambda row: (
            f"{claims.side(row)}: median {_time(row['p50'])}, 95th percentile {_time(row['p95'])}"
            if row["n"]
            else f"{claims.side(row)}: no reply with known times"
            if row["untimed"]
            else f"{claims.side(row)}: no reply in time"
        ),
    ),
    estimated="left out",
    chart=_draw,
)
def reply_latency(talk: Talk, *, cutoff_hours: float) -> ir.Table:
    """The time from the last message of a turn to the first message of the turn that answers it.

    If a conversation has several people, each is treated as talking with the companion separately:
    the time of a reply that names a person counts from that person's last message. A turn that
    follows one of its own side, such as a second message after a long silence, is not a reply.

    `p50`, `p95` and `p99` are times between messages. `recorded_p50` and `recorded_p95` describe
    the same replies, but the time it took to generate them, where it was recorded. Percentiles are
    exact: times that occurred.

    A reply is `untimed`, and has no time, if it or the message that it answers has an estimated
    time. A turn that ends at an estimated time is answered if any later turn answers it.

    Censoring: a reply after the cutoff counts as a new beginning; it is left out of the percentiles
    and counted as late. A turn of the other side has no reply if the cutoff has passed since its
    end, within the data and the selected period, and no turn of this side that answers it began in
    that time. One reply answers both of two turns before it. Turns without a reply are `one_sided`
    if this side never wrote in the conversation; else `farewells` if they are the last turn of the
    conversation and ask nothing; else `unanswered`. Whether a side wrote, and which turn is the
    last, is judged by the whole conversation, whatever the filters.
    """
    more_than_nothing("cutoff_hours", cutoff_hours, most=_HOURS_OF_A_YEAR)
    cutoff_ms = round(cutoff_hours * MS_PER_HOUR)
    replies = talk.turns.filter(_.reply_ms.notnull() | _.reply_is_estimated)
    in_time = replies.filter(_.reply_ms <= cutoff_ms)
    percentiles = quantiles(
        in_time, "reply_ms", by=["role"], per_mille={"p50": 500, "p95": 950, "p99": 990}
    )
    in_time = in_time.mutate(unit=talk.unit(in_time))
    ends = median_interval(in_time, "reply_ms", by=["role"]).rename(_units="units", _most="most")
    made = quantiles(
        in_time, "recorded_ms", by=["role"], per_mille={"recorded_p50": 500, "recorded_p95": 950}
    ).rename(recorded="n")
    whose = in_time.group_by("role").agg(
        people_recorded=in_time.user_id.nunique(where=in_time.recorded_ms.notnull())
    )
    late = replies.group_by("role").agg(
        late=(_.reply_ms > cutoff_ms).cast("int64").sum(),
        untimed=_.reply_is_estimated.cast("int64").sum(),
    )
    found = late
    for table in (percentiles, ends, made, whose):
        found = found.left_join(table, "role").drop("role_right")
    seconds = ("p50", "p95", "p99", "recorded_p50", "recorded_p95")
    of_replies = found.select(
        "role",
        "late",
        "untimed",
        "n",
        "recorded",
        **{name: found[name] / 1000 for name in seconds},
        p50_low=found.low / 1000,
        p50_high=found.high / 1000,
        people=found.people,
        **{name: found[name] for name in (UNITS, MOST)},
        **{
            f"{PEOPLE_OF}{name}": found.people_recorded for name in ("recorded_p50", "recorded_p95")
        },
        ended_ms=ibis.null("int64"),
        **{name: ibis.null("int64") for name in _OPEN},
    )
    everything = replace(talk, filters=Filters(timezone=talk.filters.timezone))
    conversations = everything.turns.group_by("conversation_id").agg(
        last_idx=_.turn_idx.max(), n_sides=_.role.nunique()
    )
    waiting = _without_reply(talk.turns.join(conversations, "conversation_id"), cutoff_ms)
    nothing = {
        name: ibis.null(type_)
        for name, type_ in of_replies.schema().items()
        if name not in waiting.columns
    }
    return of_replies.union(waiting.mutate(**nothing).select(of_replies.columns))


def _without_reply(turns: ir.Table, cutoff_ms: int) -> ir.Table:
    """Count turns without a reply within the cutoff, by their end.

    `_finish` uses the end, since only it knows the end of the data: about one row per conversation.
    Every side that could have replied has at least one row.

    Args:
        turns: Turns, with `last_idx` and `n_sides` of their whole conversations.
        cutoff_ms: The longest time until a reply, in milliseconds.
    """
    by_user = turns.role == "user"
    in_order = ibis.window(group_by="conversation_id", order_by="turn_idx")
    users_so_far = by_user.cast("int64").cumsum(group_by="conversation_id", order_by="turn_idx")
    # Anybody may answer the companion's opening, which is no opening if filters removed turns
    # before it.
    opening = (users_so_far == 0) & (turns.turn_idx == ibis.row_number().over(in_order))
    by_person = _next_start(turns, "user", ["conversation_id", "user_id"])
    by_companion = _next_start(turns, "assistant", ["conversation_id", "user_id"])
    by_anybody = _next_start(turns, "user", ["conversation_id"])
    reply_at = ibis.cases((by_user, by_companion), (opening, by_anybody), else_=by_person)
    seen = turns.select(
        role=ibis.ifelse(by_user, "assistant", "user"),
        ended_ms=turns.ended_ms,
        # The true end may be hours after an estimated one, so any reply may be in time.
        in_time=ibis.coalesce(
            (reply_at <= turns.ended_ms + cutoff_ms) | turns.end_is_estimated & reply_at.notnull(),
            False,
        ),
        alone=turns.n_sides == 1,
        says_farewell=(turns.turn_idx == turns.last_idx) & (turns.n_questions == 0),
    )
    is_open = {
        "unanswered": ~seen.in_time & ~seen.alone & ~seen.says_farewell,
        "farewells": ~seen.in_time & ~seen.alone & seen.says_farewell,
        "one_sided": ~seen.in_time & seen.alone,
    }
    return seen.group_by("role", ended_ms=ibis.ifelse(seen.in_time, 0, seen.ended_ms)).agg(
        **{name: value.cast("int64").sum() for name, value in is_open.items()}
    )


def _next_start(turns: ir.Table, role: str, group: list[str]) -> ir.IntegerValue:
    """Return the start of the next turn of a side within a group, from the current turn on."""
    onwards = ibis.window(
        group_by=group, order_by=ibis.desc("turn_idx"), preceding=None, following=0
    )
    started = ibis.ifelse(turns.role == role, turns.started_ms, ibis.null("int64"))
    return started.min().over(onwards)
