"""Temporal behaviour: the rhythm of days and weeks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import altair as alt
import polars as pl
from ibis import _

from aico_lab.metrics import draw, periods
from aico_lab.metrics.intervals import bootstrap
from aico_lab.metrics.registry import CATALOGUE, Column, interval
from aico_lab.metrics.talk import as_date, hour_of_day, hours_of, weekday
from aico_lab.metrics.zones import odd_days
from aico_lab.reports import charts

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from aico_lab.metrics.answer import Answer
    from aico_lab.metrics.registry import Chart
    from aico_lab.metrics.talk import Talk

WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def _finish_heatmap(rows: pl.DataFrame, _talk: Talk) -> pl.DataFrame:
    if rows.is_empty():
        return rows.with_columns(
            pl.lit(None, pl.String).alias("weekday"), pl.lit(None, pl.Float64).alias("share")
        )
    slots = pl.DataFrame({"day": [d for d in range(7) for _ in range(24)],
                          "hour": list(range(24)) * 7})  # fmt: skip
    rows = rows.with_columns(pl.col("day", "hour", "n").cast(pl.Int64))
    filled = slots.join(rows, on=["day", "hour"], how="left", maintain_order="left")
    return filled.with_columns(
        pl.col("day").replace_strict(dict(enumerate(WEEKDAYS))).alias("weekday"),
        pl.col("n").fill_null(0),
        share=pl.col("n").fill_null(0) * 100 / pl.col("n").sum(),
    )


def _draw_heatmap(answer: Answer) -> Chart:
    zone = answer.filters.timezone
    return (
        alt.Chart(answer.pl())
        .mark_rect(stroke="white")
        .encode(
            alt.X("hour:O", title=f"Hour of the day ({zone})").axis(labelAngle=0),
            alt.Y("weekday:O", title="Day of the week", sort=list(WEEKDAYS)),
            alt.Color("n:Q", title="Messages").scale(scheme="blues").legend(orient="right"),
        )
        .properties(width=draw.WIDTH - 40, height=190)
    )


def _busiest(rows: pl.DataFrame) -> str:
    top = rows.row(rows["n"].arg_max() or 0, named=True)  # the first of the week, where several are
    if top["n"] == 0:
        return "In no hour of the week enough is written"
    first, last = f"{top['hour']:02d}:00", f"{top['hour'] + 1:02d}:00"
    return (
        f"Most is written on {top['weekday']} from {first} to {last} "
        f"({top['n']:,} messages, {top['share']:.1f} %)"
    )


@CATALOGUE.metric(
    domain="time",
    question="At which hours of the week do people write?",
    source="chat-analytics' weekday by hour heatmap, in the zone of the question",
    columns=[
        Column("weekday", "text", "day of the week"),
        Column("hour", "integer", "hour of the day, from 0 to 23"),
        Column("n", "integer", "messages"),
        Column("share", "number", "share of all messages", "%"),
    ],
    finish=_finish_heatmap,
    finding=_busiest,
    chart=_draw_heatmap,
)
def week_heatmap(talk: Talk) -> ir.Table:
    """Messages by local weekday and hour; hours in which nobody wrote are 0.

    All messages of the period of the filters count, also those of a first and a last week that are
    not whole. Where summer time ends, one hour of a night occurs twice, and where it begins, one is
    missing.
    """
    slots = _by_hour(talk).group_by(day=weekday(_.hours // 24), hour=hour_of_day(_.hours))
    return slots.agg(n=_.n_messages.sum())


def _by_hour(talk: Talk) -> ir.Table:
    """Give the messages of each hour: `hours` since 1970, and `n_messages`."""
    return talk.messages.group_by(hours=hours_of(_.local_ms)).agg(n_messages=_.count())


_SLOTS: Final = {"week": WEEKDAYS, "day": tuple(f"{hour:02d}:00" for hour in range(24))}


def _finish_seasonality(
    rows: pl.DataFrame, talk: Talk, cycle: Literal["week", "day"]
) -> pl.DataFrame:
    names = pl.DataFrame({"slot": _SLOTS[cycle]}).with_row_index("place")
    cycles = periods.calendar(talk, cycle).filter("complete").select("start")
    if cycle == "day":
        odd = odd_days(talk.filters.timezone, talk.first_day, talk.last_day)
        cycles = cycles.filter(~pl.col("start").is_in(pl.Series(odd, dtype=pl.Date).implode()))
    cycles = cycles.clear() if rows.is_empty() else cycles
    wrote = rows.with_columns(pl.col("start").cast(pl.Date), pl.col("place").cast(pl.UInt32))
    # Cycles in which nobody wrote change no index, and there may be millions of them.
    busy = cycles.join(wrote, on="start", how="semi")
    cells = (
        (cycles.head(1) if busy.is_empty() else busy)
        .join(names.select("place"), how="cross")
        .join(wrote, on=["start", "place"], how="left")
        .select("place", "start", n_messages=pl.col("n_messages").cast(pl.Int64).fill_null(0))
    )
    found = bootstrap(
        cells,
        by=["place"],
        unit="start",
        statistics={"index": lambda x: x["n_messages"] / x["n_messages"].mean(-1, keepdims=True)},
    )
    return (
        found.drop("n")
        .rename({"n_messages": "n"})
        .join(names, on="place", maintain_order="left")
        .with_columns(
            cycles=pl.lit(cycles.height),
            strength=pl.lit(_strength(cells, cycles.height), pl.Float64),
        )
    )


def _strength(cells: pl.DataFrame, cycles: int) -> float | None:
    """Give the share of the variance within cycles that is between the slots, in percent.

    Args:
        cells: Those of cycles in which somebody wrote.
        cycles: How many cycles there are with the others.
    """
    within = pl.col("n_messages") - pl.col("n_messages").mean().over("start")
    apart = cells.select("place", within=within)
    of_slot = apart.group_by("place").agg(pl.col("within").sum())["within"] / (cycles or 1)
    total = float((apart["within"] ** 2).sum())
    return float((of_slot**2).sum()) * cycles / total * 100 if total else None


def _describe_seasonality(rows: pl.DataFrame) -> str:
    known = rows.filter(pl.col("index").is_not_null())
    if known.is_empty():
        return "Nothing was written in whole cycles"
    top = known.row(known["index"].arg_max() or 0, named=True)
    between = ""
    if top["index_low"] is not None:
        between = f" ({top['index_low']:.2f} to {top['index_high']:.2f})"
    explained = "" if top["strength"] is None else f"; the cycle explains {top['strength']:.0f} %"
    return f"{top['slot']} has the most: {top['index']:.2f} times the mean{between}{explained}"


def _draw_seasonality(answer: Answer) -> Chart:
    names = list(_SLOTS[answer.parameters["cycle"]])
    title = {"week": "Day of the week", "day": "Hour of the day"}[answer.parameters["cycle"]]
    base = alt.Chart(answer.pl()).encode(
        alt.X("slot:N", title=f"{title} ({answer.filters.timezone})", sort=names).axis(
            labelAngle=0, labelExpr="split(datum.label, ':')[0]"
        )
    )
    ends = alt.Y("index_low:Q", title="Messages, by the mean of all").scale(zero=True)
    mean = alt.Chart(answer.pl().head(1)).mark_rule(color=charts.GREY, strokeDash=[4, 4])
    return alt.layer(
        mean.encode(y=alt.YDatum(1)),
        base.mark_rule(strokeWidth=3, opacity=0.45, color=charts.BLUE).encode(
            ends, alt.Y2("index_high:Q")
        ),
        base.mark_point(size=70, opacity=1).encode(alt.Y("index:Q")),
    ).properties(width=draw.WIDTH, height=220)


@CATALOGUE.metric(
    domain="time",
    question="How much more is written on some days of the week, or at some hours of the day?",
    source="Seasonal indices: ratios to the mean; strength: the share of variance (eta squared)",
    columns=[
        Column("slot", "text", "day of the week, or hour of the day"),
        Column("n", "integer", "messages in it"),
        Column("cycles", "integer", "whole weeks or days that count"),
        Column("index", "number", "mean messages in it, by the mean of all days or hours"),
        interval("index"),
        Column("strength", "number", "variance within cycles that it explains, in every row", "%"),
    ],
    finish=_finish_seasonality,
    finding=_describe_seasonality,
    chart=_draw_seasonality,
)
def seasonality(talk: Talk, *, cycle: Literal["week", "day"] = "week") -> ir.Table:
    """The mean of messages on each local weekday, or in each hour, by the mean of all of them.

    Only whole cycles count: not the week or day in which the data or the filters begin or end, and
    for hours no day of 23 or 25 hours. Those in which nobody wrote are 0. The index is 1 where a
    weekday or hour is like the others; its interval resamples the whole weeks or days in which
    somebody wrote, since the others say nothing of it. The strength is the share of the variance,
    of counts less the mean of their own week or day, that is between the weekdays or hours; by
    chance alone it is 1 by the number of cycles.

    Args:
        cycle: A week of weekdays, or a day of hours.
    """
    if cycle == "week":
        days = talk.daily
        slots = days.mutate(start=periods.start_of(days, "week"), place=weekday(days.day))
        return slots.group_by("start", "place").agg(n_messages=_.n_messages.sum())
    made = _by_hour(talk)
    return made.select("n_messages", start=as_date(made.hours // 24), place=hour_of_day(made.hours))
