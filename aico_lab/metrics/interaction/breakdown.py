"""Messages, sessions and reply times by person and by channel, under pseudonyms."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

import polars as pl
import polars.selectors as cs
from ibis import _

from aico_lab.constants import MS_PER_HOUR
from aico_lab.mart.definitions import starts_session_after
from aico_lab.mart.places import SESSION_GAP_MS
from aico_lab.metrics.engine import claims, draw, pseudonyms
from aico_lab.metrics.engine.intervals import PEOPLE_OF, TOTAL
from aico_lab.metrics.engine.metric import Column, Parameter, RoleFilter, metric
from aico_lab.metrics.engine.quantiles import quantiles

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from aico_lab.metrics.engine.answer import Answer
    from aico_lab.metrics.engine.metric import Chart
    from aico_lab.metrics.engine.pseudonyms import Key
    from aico_lab.metrics.engine.talk import Talk

CUTOFF_HOURS: Final = 12
"""Later replies are new beginnings, as in `reply_latency` by default."""

FEWEST_REPLIES: Final = 5
"""The fewest replies of a median."""

_MEMBERS: Final = "_members"
"""A hidden column: how many people or channels share the row."""

_EVERY: Final = "_every"
"""A hidden column: how many people or channels there are in all rows."""

_MERGED: Final = "_merged"
"""A hidden column: whether some have no row of their own for being about too few people."""

_FIRST: Final = "_first"
"""A hidden column: how many people or channels of all rows have the largest `n`."""


def _measured(talk: Talk, key: Key, placed: ir.Table) -> ir.Table:
    """Return the amounts of each place, and the median reply time of each side in it."""
    messages = pseudonyms.joined(talk.messages, placed, key)
    by_user = messages.role == "user"
    starts = starts_session_after(messages.gap_ms, SESSION_GAP_MS)
    amounts = messages.group_by("place").agg(
        by_user=by_user.cast("int64").sum(),
        by_assistant=(~by_user).cast("int64").sum(),
        sessions_of_users=(by_user & starts).cast("int64").sum(),
        sessions=starts.cast("int64").sum(),
        people=messages.user_id.nunique(),
    )
    found = placed.group_by("place").agg(
        label=placed.label.max(),
        **{
            _MEMBERS: placed[key].count(),
            _MERGED: (~placed.shown & placed[key].notnull()).any(),
            _FIRST: placed.first.cast("int64").sum(),
        },
    )
    found = found.join(amounts, "place")
    turns = pseudonyms.joined(talk.turns, placed, key)
    in_time = turns.filter(turns.reply_ms <= CUTOFF_HOURS * MS_PER_HOUR)
    for role in ("user", "assistant"):
        replies = in_time.filter(in_time.role == role)
        medians = quantiles(replies, "reply_ms", by=["place"], per_mille={"median": 500})
        people = replies.group_by("place").agg(people=replies.user_id.nunique())
        made = medians.join(people, "place")
        made = made.select(
            "place",
            **{
                f"{role}_replies": made.n,
                f"{role}_p50": made.median / 1000,
                f"{PEOPLE_OF}{role}_p50": made.people,
            },
        )
        found = found.left_join(made, "place").drop("place_right")
    return found


def _finish(
    rows: pl.DataFrame, _talk: Talk, *, what: str, counts: dict[str, str], **_parameters: Any
) -> pl.DataFrame:
    """Name the rows, and leave out medians of few replies.

    Args:
        rows: The rows of `_measured`.
        what: The column of names.
        counts: The columns `n` and `sessions` of the answer, by the columns of `_measured`.
    """
    rows = rows.with_columns(cs.decimal().cast(pl.Int64)).sort("place")
    members = pl.col(_MEMBERS)
    name = (
        pl.when(members == 0)
        .then(pl.lit(pseudonyms.NOBODY))
        .when(members == 1)
        .then("label")
        .otherwise(pl.format("{} others", members) if rows.height > 1 else pl.lit("all"))
    )
    enough = {
        f"{role}_p50": pl.when(pl.col(f"{role}_replies") >= FEWEST_REPLIES).then(f"{role}_p50")
        for role in ("user", "assistant")
    }
    rows = rows.with_columns(
        pl.col("user_replies", "assistant_replies").fill_null(0), name.alias(what), **enough
    )
    rows = rows.select(
        pl.exclude(*counts, *counts.values()),
        *(pl.col(name).alias(to) for name, to in counts.items()),
    )
    return rows.with_columns(
        pl.col(_MERGED).any(),
        share=pl.col("n") * 100 / pl.col("n").sum(),
        **{TOTAL: pl.col("n").sum(), _EVERY: members.sum(), _FIRST: pl.col(_FIRST).sum()},
    )


def _describe(rows: pl.DataFrame, *, what: str, plural: str, preposition: str) -> str:
    single = rows.filter(pl.col(_MEMBERS) == 1)
    if single.is_empty():
        messages = claims.counted(int(rows["n"].sum()), "messages")
        members = int(rows[_MEMBERS].sum())
        whose = f" {preposition} {claims.counted(members, plural)}"
        return messages + (whose if members else " of nobody who is named")
    top = single.row(single["n"].arg_max() or 0, named=True)
    if top["n"] == top[TOTAL]:
        whole = "all " if top["n"] > 1 else ""
        return f"{claims.counted(top['n'], 'messages')}, {whole}{preposition} {top[what]}"
    who = claims.leading(single, "n", what, alike=top[_FIRST])
    each = " each" if top[_FIRST] > 1 else ""
    among = f"the {plural} with a row of their own"
    if not top[_MERGED]:
        among = claims.counted(top[_EVERY], plural)
    return (
        f"The most messages are {preposition} {who}: {top['n']:,} of {top[TOTAL]:,}{each} "
        f"({claims.written(top['share'])} %), among {among}"
    )


def _draw(answer: Answer, *, what: str) -> Chart:
    import altair as alt

    rows = answer._rows  # noqa: SLF001 - whether a row is about one of them is a hidden column
    single = rows.filter(pl.col(_MEMBERS) == 1)
    rows = (rows if single.is_empty() else single).select(
        what, "n", "share", "sessions", "user_p50", "assistant_p50"
    )
    return (
        alt.Chart(rows)
        .mark_bar()
        .encode(
            alt.X("n:Q", title=draw.label(answer, "n"), axis=draw.whole(max(rows["n"].to_list()))),
            alt.Y(f"{what}:N", title=None, sort=rows[what].to_list()),
            tooltip=list(rows.columns),
        )
        .properties(width=draw.WIDTH, height=draw.LINE * max(rows.height, 1))
    )


_MEDIANS: Final = (
    Column("user_replies", "integer", f"replies of people within {CUTOFF_HOURS} hours"),
    Column("user_p50", "number", f"median time of {FEWEST_REPLIES} or more replies of people", "s"),
    Column("assistant_replies", "integer", f"replies of the companion within {CUTOFF_HOURS} hours"),
    Column(
        "assistant_p50",
        "number",
        f"median time of {FEWEST_REPLIES} or more replies of the companion",
        "s",
    ),
)


def _top(noun: str) -> Parameter:
    return Parameter("top", int, 20, f"The most {noun} with a row of their own.")


@metric(
    domain="interaction",
    question="Who writes how much, begins sessions, and replies how fast?",
    source="The most active authors of chat-analytics; medians as in reply_latency",
    parameters=[_top("people"), pseudonyms.NAMES],
    columns=[
        Column("person", "text", "pseudonym, or name if requested"),
        Column("n", "integer", "messages that the person wrote"),
        Column("people", "integer", "people in the row"),
        Column("share", "number", "share of all messages that people wrote", "%"),
        Column("received", "integer", "messages by the companion to the person"),
        Column("sessions", "integer", "sessions that the person began"),
        *_MEDIANS,
    ],
    finish=functools.partial(
        _finish,
        what="person",
        counts={"by_user": "n", "by_assistant": "received", "sessions_of_users": "sessions"},
    ),
    finding=functools.partial(_describe, what="person", plural="people", preposition="by"),
    estimated="in no reply time",
    chart=functools.partial(_draw, what="person"),
    role=RoleFilter.REFUSED,
)
def people(talk: Talk, *, top: int, names: bool) -> ir.Table:
    """Messages, sessions and median reply times of each person who wrote (role user).

    People are called by pseudonyms, "Person 1" for the person whose message was stored first in the
    home, or is the earliest if the home is one of several devices. A person keeps the pseudonym
    when later messages of others are imported, when the warehouse is rebuilt, and under all
    filters. With `names` they are called by their names, or by their ids if they have none.

    The `top` people with the most messages have a row each, in that order; all others share a row,
    and so do messages without a named person. A row of one person is about one person: if
    `min_people` is above 1, all people share one row. A session is begun by the person who wrote
    its first message. Replies are those of `reply_latency`, within 12 hours; a median of fewer
    than 5 replies is left out, since it would be nearly a single event.
    """
    written = talk.messages.filter(_.role == "user")
    counted = written.group_by("user_id").agg(n=written.count())
    alone = pseudonyms.least_people(talk) == 1
    placed = pseudonyms.places(
        talk, counted, "user_id", top=top, names=names, shown=(counted.n > 0) & alone
    )
    return _measured(talk, "user_id", placed)


@metric(
    domain="interaction",
    question="In which channels is how much written, and how fast are replies?",
    source="The most active channels of chat-analytics; medians as in reply_latency",
    parameters=[_top("channels"), pseudonyms.NAMES],
    columns=[
        Column("channel", "text", "pseudonym, or name if requested"),
        Column("n", "integer", "messages"),
        Column("people", "integer", "people who wrote or were answered"),
        Column("share", "number", "share of all messages", "%"),
        Column("by_assistant", "integer", "messages by the companion"),
        Column("sessions", "integer", "sessions that began"),
        *_MEDIANS,
    ],
    finish=functools.partial(_finish, what="channel", counts={"messages": "n"}),
    finding=functools.partial(_describe, what="channel", plural="channels", preposition="in"),
    estimated="in no reply time",
    chart=functools.partial(_draw, what="channel"),
)
def channels(talk: Talk, *, top: int, names: bool) -> ir.Table:
    """Messages, people, sessions and median reply times of each channel.

    Channels are called by pseudonyms, "Channel 1" for the one whose message was stored first in the
    home; they stay the same as those of `people` do. With `names` they are called by their names,
    or by their ids if they have none.

    The `top` channels with the most messages have a row each, in that order; all others share a
    row. Channels of fewer people than `min_people` are always among the others. A session counts
    by its first message. Replies are those of `reply_latency`, within 12 hours; a median of fewer
    than 5 replies is left out, since it would be nearly a single event. Where a conversation spans
    several channels, the message that is answered may be in another one; a turn that spans several
    counts in the one whose id comes first.
    """
    messages = talk.messages
    counted = messages.group_by("channel_id").agg(
        n=messages.count(), people=messages.user_id.nunique()
    )
    enough = counted.people >= pseudonyms.least_people(talk)
    if pseudonyms.least_people(talk) == 1:  # also channels in which nobody is named
        enough = counted.n > 0
    placed = pseudonyms.places(talk, counted, "channel_id", top=top, names=names, shown=enough)
    found = _measured(talk, "channel_id", placed)
    return found.mutate(messages=found.by_user + found.by_assistant)
