"""Conversation patterns: how turns and sessions go, who begins, how long replies take."""

from __future__ import annotations

from typing import TYPE_CHECKING

import altair as alt
import ibis
from ibis import _

from aico_lab.metrics import draw
from aico_lab.metrics.intervals import bootstrap, ratio
from aico_lab.metrics.quantiles import quantiles
from aico_lab.metrics.registry import CATALOGUE, Column, interval

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import polars as pl

    from aico_lab.metrics.answer import Answer
    from aico_lab.metrics.registry import Chart
    from aico_lab.metrics.talk import Talk


def _finish_turns(rows: pl.DataFrame, _talk: Talk) -> pl.DataFrame:
    found = bootstrap(
        rows,
        by=["role"],
        unit="conversation_id",
        statistics={
            "messages": ratio("n_messages", "n_turns"),
            "words": ratio("n_words", "n_turns"),
        },
    )
    return found.rename({"n": "conversations", "n_turns": "n"})


def _draw_turns(answer: Answer) -> Chart:
    return draw.dots(answer, "words", "role", zero=True)


@CATALOGUE.metric(
    domain="conversation",
    question="How much does each side write in a turn?",
    source="Sacks, Schegloff and Jefferson (1974), with silence as a second end of a turn",
    columns=[
        Column("role", "text", "the side that wrote"),
        Column("n", "integer", "turns"),
        Column("conversations", "integer", "conversations they are from"),
        Column("messages", "number", "mean messages of a turn"),
        interval("messages"),
        Column("words", "number", "mean words of a turn"),
        interval("words"),
    ],
    finish=_finish_turns,
    finding=lambda rows: "; ".join(
        f"{row['role']}: {row['words']:.1f} words in {row['messages']:.2f} messages a turn"
        for row in rows.iter_rows(named=True)
    ),
    chart=_draw_turns,
)
def turns(talk: Talk) -> ir.Table:
    """A turn is what one side writes until the other one does, or until 30 minutes of silence.

    Means of all turns of the side; intervals resample conversations.
    """
    return talk.turns.group_by("role", "conversation_id").agg(
        n_turns=_.count(), n_messages=_.n_messages.sum(), n_words=_.n_words.sum()
    )


def _draw_latency(answer: Answer) -> Chart:
    long = answer.pl().unpivot(
        ["p50", "p95", "p99"], index="role", variable_name="percentile", value_name="seconds"
    )
    x = alt.X("seconds:Q", title="Time until the reply (s, logarithmic)").scale(type="log")
    return (
        alt.Chart(long.filter(long["seconds"] > 0))
        .mark_point(size=80)
        .encode(x, alt.Y("percentile:N", title=None), color=draw.side("role"))
        .properties(width=draw.WIDTH, height=100)
    )


@CATALOGUE.metric(
    domain="conversation",
    question="How long does each side take to reply?",
    source="Percentiles: Hyndman and Fan (1996), type 1",
    columns=[
        Column("role", "text", "the side that replied"),
        Column("n", "integer", "replies in time"),
        Column("p50", "number", "median time until the reply", "s"),
        Column("p95", "number", "95th percentile", "s"),
        Column("p99", "number", "99th percentile", "s"),
        Column("late", "integer", "replies that took longer than the cutoff, left out"),
    ],
    finding=lambda rows: "; ".join(
        f"{row['role']}: {row['p50']:,.0f} s in the median, {row['p95']:,.0f} s at the 95th "
        "percentile"
        for row in rows.iter_rows(named=True)
    ),
    chart=_draw_latency,
)
def reply_latency(talk: Talk, *, cutoff_hours: float = 12.0) -> ir.Table:
    """The time from the other side's last message to the first one of the turn that answers it.

    Censoring: a reply after the cutoff counts as a new beginning, not as a reply; it is left out of
    the percentiles and counted as late. Percentiles are exact and are times that occurred.

    Args:
        cutoff_hours: A longer time is no reply time.
    """
    replies = talk.turns.filter(_.reply_ms.notnull())
    in_time = replies.reply_ms <= int(cutoff_hours * 3_600_000)
    percentiles = quantiles(
        replies.filter(in_time), "reply_ms", by=["role"],
        per_mille={"p50": 500, "p95": 950, "p99": 990},
    )  # fmt: skip
    late = replies.group_by("role").agg(late=(~in_time).cast("int64").sum())
    found = late.left_join(percentiles, "role")
    return found.select(
        "role",
        "late",
        n=ibis.coalesce(found.n, 0),
        **{name: found[name] / 1000 for name in ("p50", "p95", "p99")},
    ).order_by("role")
