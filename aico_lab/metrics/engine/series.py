"""Time series of a measure, in periods long enough to keep their number below a limit."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import polars as pl
import polars.selectors as cs
from ibis import _

from aico_lab.mart.sums import total
from aico_lab.metrics.engine import claims, periods
from aico_lab.metrics.engine.intervals import MOST as MOST_OF_ONE
from aico_lab.metrics.engine.metric import NOTE, Column, Parameter

if TYPE_CHECKING:
    import altair as alt
    import ibis.expr.types as ir

    from aico_lab.metrics.engine.answer import Answer
    from aico_lab.metrics.engine.metric import Chart
    from aico_lab.metrics.engine.talk import Talk, Unit

Measure: TypeAlias = Literal["messages", "users", "sentiment"]
Length: TypeAlias = Literal["day", "week", "month", "year", "decade"]

TITLES: Final[dict[str, str]] = {
    "messages": "Messages",
    "users": "People",
    "sentiment": "Sentiment",
}

MOST: Final = 2_000
"""The most periods of a series: comparing all pairs of more takes seconds."""

FEWEST: Final = 12
"""The fewest periods: with fewer, trends and changes are found too often where there are none."""

MEASURE: Final = Column("measure", "text", "the measure, in every row")

CHOSEN_MEASURE: Final = Parameter(
    "measure",
    str,
    "messages",
    "Messages, distinct named people who wrote (role user), or the mean sentiment.",
    choices=("messages", "users", "sentiment"),
)

SAID: Final[dict[str, tuple[str, str]]] = {
    "messages": ("Messages go", "messages"),
    "users": ("People who write go", "people who write"),
    "sentiment": ("Sentiment goes", "sentiment"),
}
"""For each measure, the beginning of a sentence about its trend, and its noun."""

COUNTED: Final = {"messages": ("n", "messages"), "sentiment": ("scored", "scored messages")}
"""Measures that one person may dominate: the column of `by_day`, and the noun. Not "users", of
which each person counts once in a period."""

UNIT: Final = Column(
    "unit", "text", f"length of a period, longer than requested if there were over {MOST:,} periods"
)

_DAYS: Final[dict[Length, float]] = {
    "day": 1,
    "week": 7,
    "month": 30.4375,
    "year": 365.25,
    "decade": 3652.5,
}
_SHORT: Final[dict[Length, Unit]] = {"day": "day", "week": "week", "month": "month"}
_LONG: Final[dict[str, str]] = {"year": "1y", "decade": "10y"}
"""The polars duration of periods that are built from months."""


def dominated(measure: str, most: float | None) -> str:
    """Return the caveat of a claim about a measure that rests mainly on one person; else ""."""
    return claims.dominated(most, COUNTED[measure][1]) if measure in COUNTED else ""


def by_day(talk: Talk) -> ir.Table:
    """Return sums for each local day and person, from which periods of any length are built."""
    return talk.daily.group_by(day=_.date, person=_.user_id).agg(
        n=_.n_messages.sum(),
        wrote=(_.role == "user").any(),
        total=total(_.sentiment_sum),
        scored=_.n_scored.sum(),
    )


def in_periods(rows: pl.DataFrame, talk: Talk, measure: Measure, period: Unit) -> pl.DataFrame:
    """Return the measure of every period, in the shortest unit with at most `MOST` periods.

    Args:
        rows: The rows of `by_day`.
        talk: The source of the rows.
        measure: The measure.
        period: The shortest unit allowed.

    Returns:
        `start`, `end` (the day after the period), `n` (messages; for sentiment, scored ones),
        `people` (of these messages), `value`, `complete`, `measure`, `unit`, and `_most`, the
        largest share of one person in the complete periods, in percent, and a note if the unit is
        not the requested one. The sentiment of a period without scored messages is null.
    """
    unit = _fitting(talk, period)
    rows = rows.with_columns(pl.col("day").cast(pl.Date), cs.decimal().cast(pl.Int64))
    shortest = _SHORT.get(unit, "month")
    step = periods.STEP[shortest]
    found = periods.on_calendar(_grouped(rows, measure, step), talk, shortest)
    if unit in _LONG:
        found = _joined(found, _LONG[unit]).join(
            _grouped(rows, measure, _LONG[unit]), on="start", how="left", maintain_order="left"
        )
        found = found.with_columns(pl.col(pl.Int64).fill_null(0))
    most = _most_of_one(rows, found, measure, _LONG.get(unit, step)) if talk.by_person else None
    longer = None if unit == period else f"by {unit}, since there are over {MOST:,} {period}s"
    return found.select(
        # The first decade begins with the year 0, but the first date is in the year 1.
        pl.max_horizontal("start", pl.lit(date.min)),
        "end",
        "n",
        "people",
        pl.col("value").cast(pl.Float64),
        "complete",
        measure=pl.lit(measure),
        unit=pl.lit(unit),
        **{MOST_OF_ONE: pl.lit(most, pl.Float64), NOTE: pl.lit(longer, pl.String)},
    )


def _most_of_one(
    rows: pl.DataFrame, found: pl.DataFrame, measure: Measure, step: str
) -> float | None:
    """Return the largest share of one person in the complete periods, in percent."""
    if measure not in COUNTED:
        return None
    column, _noun = COUNTED[measure]
    counted = rows.join(
        found.filter("complete").select("start"),
        left_on=pl.col("day").dt.truncate(step),
        right_on="start",
        how="semi",
    )
    each = counted.drop_nulls("person").group_by("person").agg(pl.col(column).sum())
    total, most = int(counted[column].sum()), each[column].max()
    return 100 * most / total if isinstance(most, int) and total else None


def _fitting(talk: Talk, period: Unit) -> Length:
    days = (talk.last_day - talk.first_day).days + 1
    units = list(_DAYS)
    longer = units[units.index(period) :]
    return next((unit for unit in longer if days <= MOST * _DAYS[unit]), units[-1])


def _grouped(rows: pl.DataFrame, measure: Measure, step: str) -> pl.DataFrame:
    person = pl.col("person")
    value = {
        "messages": pl.col("n").sum(),
        "users": person.filter("wrote").drop_nulls().n_unique().cast(pl.Int64),
        "sentiment": pl.when(pl.col("scored").sum() > 0).then(
            pl.col("total").sum() / pl.col("scored").sum()
        ),
    }[measure]
    # The mean sentiment rests on scored messages only.
    counts = pl.col("scored") > 0 if measure == "sentiment" else pl.lit(value=True)
    people = person.filter(counts).drop_nulls().n_unique().cast(pl.Int64)
    n = pl.col("scored" if measure == "sentiment" else "n").sum().alias("n")
    start = pl.col("day").dt.truncate(step)
    return rows.group_by(start=start).agg(n, people=people, value=value)


def _joined(months: pl.DataFrame, step: str) -> pl.DataFrame:
    """Merge months into longer periods, which are complete if all their months are."""
    long = months.group_by(long=pl.col("start").dt.truncate(step), maintain_order=True).agg(
        pl.col("start").first(), pl.col("end").last(), pl.col("complete").all()
    )
    begins, ends = pl.col("long"), pl.col("long").dt.offset_by(step)
    return long.select(
        start=begins,
        end=ends,
        complete=pl.col("complete") & (pl.col("start") == begins) & (pl.col("end") == ends),
    )


def recent(answer: Answer) -> pl.DataFrame:
    """Return the last `periods.DRAWN` rows of an answer with a column `unit`."""
    unit = _unit(answer)
    if unit not in _LONG:
        return periods.recent(answer, unit)
    rows = periods.recent(answer, "month")
    return rows.with_columns(end=pl.col("start").dt.offset_by(_LONG[unit]))


def bars(answer: Answer, *, title: str) -> Chart:
    """Draw the value of every period as a bar as wide as the period."""
    unit, whole = _unit(answer), answer.parameters["measure"] != "sentiment"
    if unit not in _LONG:
        return periods.bars(answer, unit, "value", title=title, height=220, whole=whole)
    chart = periods.bars(answer, "month", "value", title=title, height=220, whole=whole)
    chart.data = recent(answer)
    return chart.encode(axis(answer))


def axis(answer: Answer) -> alt.X:
    """Return the axis of the first days of an answer's periods."""
    unit = _unit(answer)
    if unit not in _LONG:
        return periods.axis(answer, unit)
    title = f"{unit.capitalize()} ({answer.filters.timezone})"
    return periods.axis(answer, "month").title(title).axis(format="%Y", labelAngle=0)


def _unit(answer: Answer) -> Any:
    return answer.pl()["unit"][0]
