"""Seasonality: the indices of weekdays or hours, and the strength of the cycle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import polars as pl
from ibis import _

from aico_lab import charts
from aico_lab.metrics.engine import claims, draw, periods
from aico_lab.metrics.engine.intervals import FEWEST, TOTAL, UNIT, UNITS, Statistic, estimate
from aico_lab.metrics.engine.local_time import WEEKDAYS, odd_days
from aico_lab.metrics.engine.metric import Column, Parameter, interval, metric
from aico_lab.metrics.engine.talk import as_date, hour_of_day, hours_of, weekday

if TYPE_CHECKING:
    from collections.abc import Callable

    import ibis.expr.types as ir
    import numpy as np
    from numpy.typing import NDArray

    from aico_lab.metrics.engine.answer import Answer
    from aico_lab.metrics.engine.intervals import Sums
    from aico_lab.metrics.engine.metric import Chart
    from aico_lab.metrics.engine.talk import Talk


_MOST_OF_ONE: Final = "_most_of_one"
"""The largest share of one person, in percent; `_most` is that of one week or day."""


_NEARLY: Final = 1 - 1e-9


_CYCLES: Final = {"week": "weeks", "day": "days"}


_SLOTS: Final = {"week": WEEKDAYS, "day": tuple(f"{hour:02d}:00" for hour in range(24))}


def _finish(rows: pl.DataFrame, talk: Talk, cycle: Literal["week", "day"]) -> pl.DataFrame:
    slots = _SLOTS[cycle]
    whole = periods.calendar(talk, cycle).filter("complete")
    if cycle == "day":
        odd = odd_days(talk.filters.timezone, talk.first_day, talk.last_day)
        whole = whole.filter(~pl.col("start").is_in(pl.Series(odd, dtype=pl.Date).implode()))
    wrote = rows.with_columns(
        pl.col("start").cast(pl.Date), pl.col("place", "n_messages").cast(pl.Int64)
    ).join(whole.select("start"), on="start", how="semi")
    # People of the same cycles as the index, or a row could claim more people than it rests on.
    named = wrote.drop_nulls("user_id")
    people = dict(named.group_by("place").agg(pl.col("user_id").n_unique()).iter_rows())
    of_one = named.group_by("user_id").agg(pl.col("n_messages").sum())["n_messages"].max()
    # Only cycles with messages: there may be thousands of years without any.
    cycles = (
        wrote.group_by("start")
        .agg(
            pl.when(pl.col("place") == place)
            .then("n_messages")
            .otherwise(0)
            .sum()
            .alias(f"n{place}")
            for place in range(len(slots))
        )
        .sort("start")
    )  # sorted, since the last digits of sums depend on the order
    whole = whole.clear() if rows.is_empty() else whole
    silent = whole.height - cycles.height
    counts = cycles.drop("start")
    found = estimate(
        counts.with_columns(total=pl.sum_horizontal(counts.columns), known=False),
        by=[],
        unit=_CYCLES[cycle],
        statistics={
            # The index is the slot's share of all messages, times the number of slots.
            f"index{place}": Statistic(_share_of(place), ("total",), "logit", whole=len(slots))
            for place in range(len(slots))
        },
        silent=silent,
    )
    strength = _strength(counts.to_numpy(), silent)
    ends = ("", "_low", "_high")
    of_all = found.row(0, named=True) if found.height else {}
    most = None
    if talk.by_person and isinstance(of_one, int):
        most = 100 * of_one / int(wrote["n_messages"].sum())
    indices = {of_all.get(f"index{place}") for place in range(len(slots))}
    return pl.DataFrame(
        [
            (
                name,
                of_all.get(f"n{place}", 0),
                people.get(place, 0),
                whole.height,
                strength,
                of_all.get(UNITS, 0),
                _CYCLES[cycle],
                most,
                len(indices),
                *(of_all.get(f"index{place}{end}") for end in ends),
            )
            for place, name in enumerate(slots if whole.height else ())
        ],
        schema=["slot", "n", "people", "cycles", "strength", UNITS, UNIT, _MOST_OF_ONE, TOTAL]
        + [f"index{end}" for end in ends],
        orient="row",
        infer_schema_length=None,
    )


def _share_of(place: int) -> Callable[[Sums], NDArray[np.float64]]:
    return lambda sums: sums[f"n{place}"] / sums["total"]


def _strength(counts: NDArray[np.int64], silent: int) -> float | None:
    """Return the share of the variance within cycles that lies between slots, in percent.

    Args:
        counts: Messages by cycle (rows, only those with messages) and slot (columns).
        silent: The number of cycles without messages.
    """
    if not counts.size:
        return None
    within = counts - counts.mean(axis=1, keepdims=True)
    total = float((within**2).sum())
    of_slots = within.sum(axis=0) / (len(counts) + silent)
    return float((of_slots**2).sum()) * (len(counts) + silent) / total * 100 if total else None


def _describe(rows: pl.DataFrame) -> str:
    from scipy import special

    known = rows.filter(pl.col("index").is_not_null())
    slot = "weekday" if known.is_empty() or known[UNIT][0] == "weeks" else "hour"
    if known.is_empty():
        return "Too little data: nothing was written in whole weeks or days"
    top = known.row(known["index"].arg_max() or 0, named=True)
    if top[UNITS] < FEWEST:
        wrote = claims.counted(top[UNITS], top[UNIT])
        return f"Too little data: messages in {wrote}, where {FEWEST} are needed"
    mainly = claims.dominated(top[_MOST_OF_ONE], "messages")
    doubt = f"{claims.doubt(top[UNITS], top[UNIT])}{mainly}"
    if top[TOTAL] == 1:  # of all rows, also of those that are left out
        return f"No {slot} stands out: all have as many messages{mainly}"
    tied = known.filter(pl.col("index") == top["index"])
    name = claims.leading(tied, "index", "slot")
    if tied["index_low"].null_count() == tied.height:
        return f"{name}: {top['index']:.2f} times the mean, the same in all {top[UNIT]}{doubt}"
    # The largest of many is above 1 by chance: widen the interval by Bonferroni's correction.
    slots = len(_SLOTS["week" if top[UNIT] == "weeks" else "day"])
    wider = float(special.ndtri(1 - 0.025 / slots) / special.ndtri(0.975))
    least: float = min(tied["index_low"].drop_nulls().to_list())
    middle, end = (special.logit(min(at / slots, _NEARLY)) for at in (top["index"], least))
    low = slots * float(special.expit(middle - (middle - end) * wider))
    if low <= 1:
        return f"No {slot} clearly stands out in {claims.counted(top['cycles'], top[UNIT])}{doubt}"
    ends = f" ({least:.2f} to {top['index_high']:.2f})" if tied.height == 1 else ""
    return (
        f"{name}: {top['index']:.2f} times the mean{ends}; the {slot} explains "
        f"{top['strength']:.0f} % of the variance{doubt}"
    )


def _draw(answer: Answer) -> Chart:
    import altair as alt

    names = list(_SLOTS[answer.parameters["cycle"]])
    title = {"week": "Day of the week", "day": "Hour of the day"}[answer.parameters["cycle"]]
    rows = answer.pl()
    base = alt.Chart(rows).encode(
        alt.X("slot:N", title=f"{title} ({answer.filters.timezone})", sort=names).axis(
            labelAngle=0, labelExpr="split(datum.label, ':')[0]"
        )
    )
    y = alt.Y("index:Q", title="Messages divided by the mean of all").scale(zero=True)
    mean = alt.Chart(rows.head(1)).mark_rule(color=charts.GREY, strokeDash=[4, 4])
    return alt.layer(
        mean.encode(y=alt.YDatum(1)),
        *draw.intervals(base, rows, "index", along="y"),
        base.mark_point(size=70, opacity=1).encode(y),
    ).properties(width=draw.WIDTH, height=220)


@metric(
    domain="time",
    question="How much more is written on some days of the week, or at some hours of the day?",
    source="Seasonal indices: ratios to the mean; strength: share of variance (eta squared)",
    parameters=[
        Parameter(
            "cycle",
            str,
            "week",
            "Compare the weekdays of a week, or the hours of a day.",
            choices=("week", "day"),
        ),
    ],
    columns=[
        Column("slot", "text", "day of the week, or hour of the day"),
        Column("n", "integer", "messages on that weekday or in that hour"),
        Column("people", "integer", "named people who wrote or were answered"),
        Column("cycles", "integer", "whole weeks or days that are counted"),
        Column(
            "index", "number", "mean messages of the weekday or hour, divided by the mean of all"
        ),
        interval("index"),
        Column(
            "strength",
            "number",
            "share of variance that weekdays or hours explain, in every row",
            "%",
        ),
    ],
    far="left out",
    estimated="among them",
    finish=_finish,
    finding=_describe,
    chart=_draw,
)
def seasonality(talk: Talk, *, cycle: Literal["week", "day"]) -> ir.Table:
    """Mean messages on each local weekday, or in each hour, divided by the mean of all.

    Only whole cycles (weeks or days) count: not those in which the data or the filters begin or
    end, and for hours no day of 23 or 25 hours. Cycles without messages count as 0. An index of 1
    means that a weekday or hour (slot) is like the average; the units of its interval are whole
    cycles. For the strength, the mean of each cycle is subtracted from its counts; the strength is
    the share of the remaining variance that lies between slots. By chance alone it is 1 divided by
    the number of cycles.
    """
    if cycle == "week":
        days = talk.daily
        slots = days.mutate(start=periods.start_of(days, "week"), place=weekday(days.day))
    else:
        hours = hours_of(talk.messages.local_ms)
        slots = talk.messages.mutate(
            start=as_date(hours // 24), place=hour_of_day(hours), n_messages=1
        )
    return slots.group_by("start", "place", "user_id").agg(n_messages=_.n_messages.sum())
