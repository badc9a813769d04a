"""Who comes back in later weeks or months."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import polars as pl
from ibis import _

from aico_lab.metrics.engine import claims, draw, periods
from aico_lab.metrics.engine.intervals import FEWEST, UNIT, UNITS, wilson
from aico_lab.metrics.engine.metric import Column, Parameter, RoleFilter, interval, metric
from aico_lab.metrics.engine.talk import period as period_of

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from aico_lab.metrics.engine.answer import Answer
    from aico_lab.metrics.engine.metric import Chart
    from aico_lab.metrics.engine.talk import Talk


_Z: Final = 1.959963984540054  # of 95 %


_TRIANGLE: Final = 26
"""How many cohorts, and how many periods of each, fit into a chart."""


_PERIOD: Final = "_period"


_LONGEST: Final = 520
"""For how many periods a cohort is followed: the last message may be of another millennium."""


def with_wilson(rows: pl.DataFrame, part: str, whole: str, name: str) -> pl.DataFrame:
    """Add the share of people, in percent, with the interval of Wilson (1927).

    A person is in or out, so a share of people is a proportion of independent observations. As
    with other intervals there is none below `FEWEST` people.

    Args:
        rows: To add it to.
        part: The column that counts those who are in.
        whole: The column that counts all.
        name: What the share is called.
    """
    n = rows[whole].cast(pl.Float64).to_numpy()
    share = rows.select(pl.col(part) / pl.col(whole)).to_series().to_numpy()
    low, high = wilson(share, n, np.full(len(n), _Z))
    enough = pl.when(pl.col(whole) >= FEWEST)
    return rows.with_columns(
        pl.Series(name, share * 100),
        enough.then(pl.Series(low * 100)).alias(f"{name}_low"),
        enough.then(pl.Series(high * 100)).alias(f"{name}_high"),
        pl.col(whole).cast(pl.Int64).alias(UNITS),
        pl.lit("people").alias(UNIT),
    )


def _number(column: str, period: Literal["week", "month"]) -> pl.Expr:
    """Count periods, from whenever on."""
    day = pl.col(column)
    if period == "week":
        return day.cast(pl.Int64) // 7
    return day.dt.year().cast(pl.Int64) * 12 + day.dt.month()


def _finish(rows: pl.DataFrame, talk: Talk, period: Literal["week", "month"]) -> pl.DataFrame:
    rows = rows.with_columns(pl.col("cohort", "start").cast(pl.Date))
    times = periods.calendar(talk, period).select("start", "complete", at=_number("start", period))
    begin = talk.first_ms if talk.begin_ms is None else talk.begin_ms
    # Of the first cohort of all some may have written before the data begin.
    known = periods.is_complete(
        talk, period, known_since=begin, known_until=talk.last_ms, start="cohort"
    )
    cells = (
        rows.select("cohort", "n", known=known)
        .unique()
        .join(pl.select(since=pl.int_range(_LONGEST + 1, dtype=pl.Int64)), how="cross")
        .with_columns(at=_number("cohort", period) + pl.col("since"))
        .join(times, on="at")
        .join(rows.select("cohort", "start", "active"), on=["cohort", "start"], how="left")
        .with_columns(pl.col("active").fill_null(0), complete=pl.col("complete") & pl.col("known"))
    )
    cells = cells.with_columns(pl.lit(period).alias(_PERIOD))
    return with_wilson(cells.sort("cohort", "start"), "active", "n", "share")


def _describe(rows: pl.DataFrame) -> str:
    later = rows.filter(pl.col("complete") & (pl.col("since") > 0) & (pl.col("n") > 0))
    if later.is_empty():
        return "Too little data: no complete period follows another one in which people began"
    first = later.filter(pl.col("since") == pl.col("since").min())
    active, people = int(first["active"].sum()), int(first["n"].sum())
    since = first["since"][0]
    period = first[_PERIOD][0]
    when = f"in the next {period}" if since == 1 else f"{since} {period}s later"
    if people < FEWEST:
        return claims.too_little(people, "people")
    return (
        f"Of {claims.counted(people, 'people')} {active:,} ({active * 100 / people:.0f} %) wrote "
        f"again {when}{claims.doubt(people, 'people')}"
    )


def _draw(answer: Answer) -> Chart:
    import altair as alt

    unit = answer.parameters["period"]
    cohorts = answer.pl()["cohort"].unique().sort().tail(_TRIANGLE)
    cut = f", of the last {_TRIANGLE}" if answer.pl()["cohort"].n_unique() > _TRIANGLE else ""
    name = pl.col("cohort").dt.strftime("%Y-%m" if unit == "month" else "%Y-%m-%d")
    rows = answer.pl().filter(
        pl.col("cohort").is_in(cohorts.implode()), pl.col("since") < _TRIANGLE
    )
    rows = rows.with_columns(
        row=name + pl.format(" ({})", pl.col("n")),
        text=pl.format("{}{}", pl.col("share").round().cast(pl.Int64), periods.MARK),
    )
    base = alt.Chart(rows).encode(
        alt.X("since:O", title=f"{unit.capitalize()}s since the first one (*: unfinished)").axis(
            labelAngle=0
        ),
        alt.Y("row:N", title=f"First {unit} (people){cut}", sort="ascending"),
    )
    # All are there in the first period; colours are for the others.
    later = rows.filter(pl.col("since") > 0)
    most = max([1.0, *later["share"].to_list()])
    filled = base.mark_rect(stroke="white").encode(
        alt.Color("share:Q", title="Active (%)")
        .scale(scheme="blues", domain=[0, most], clamp=True)
        .legend(orient="right")
    )
    dark = alt.datum.share > most * 0.55
    text = base.mark_text(fontSize=10).encode(
        alt.Text("text:N"), color=alt.condition(dark, alt.value("white"), alt.value("black"))
    )
    return alt.layer(filled, text).properties(width=draw.WIDTH - 60, height=alt.Step(19))


@metric(
    domain="interaction",
    question="How many people come back, so long after their first message?",
    source="Cohort analysis; intervals: Wilson (1927)",
    parameters=[
        Parameter(
            "period",
            str,
            "week",
            "A week from Monday, or a calendar month.",
            choices=("week", "month"),
        ),
    ],
    columns=[
        Column("cohort", "date", "first day of the period of the first message"),
        Column("since", "integer", "periods since then"),
        Column("start", "date", "first day of the period in question"),
        Column("n", "integer", "people of the cohort"),
        Column("active", "integer", "of these, people who wrote in the period in question"),
        Column("share", "number", "active people of the cohort", "%"),
        interval("share", "%"),
        Column(
            "complete",
            "truth",
            "whether neither the period nor that of the cohort is cut by the data or the filters",
        ),
    ],
    people="n",
    far="left out",
    finish=_finish,
    finding=_describe,
    chart=_draw,
    role=RoleFilter.REFUSED,
)
def retention(talk: Talk, *, period: Literal["week", "month"] = "week") -> ir.Table:
    """Of the people whose first message fell into a period, the share that wrote in a later one.

    A person is one who wrote (role user) and is known, and belongs to the period of the first
    message of all that is not of before 1990: filters other than `user` restrict in which messages
    people count as active, and which periods there are, not who belongs to which cohort. Periods in
    which nobody began have no rows, and neither have those after the last message, nor those more
    than 520 periods after the first one. Of the cohort in whose period the data begin some may have
    written before, so none of its rows is complete; the finding is of complete rows. Intervals are
    Wilson's: each person is one observation.
    """
    firsts = talk.beginnings
    firsts = firsts.select("user_id", cohort=period_of(firsts.local_ts, period))
    days = talk.daily.filter(_.role == "user", _.user_id.notnull())
    active = days.select("user_id", start=periods.start_of(days, period)).distinct()
    together = firsts.join(active, "user_id")
    counted = together.group_by("cohort", "start").agg(active=_.count())
    cohorts = firsts.group_by("cohort").agg(n=_.count())
    found = cohorts.left_join(counted, "cohort")
    return found.select("cohort", "n", "start", "active")
