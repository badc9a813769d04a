"""Retention: the share of people who write again in later weeks or months."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import polars as pl
from ibis import _

from aico_lab import charts
from aico_lab.metrics.engine import claims, draw, periods
from aico_lab.metrics.engine.days import written_days
from aico_lab.metrics.engine.intervals import FEWEST
from aico_lab.metrics.engine.metric import Column, RoleFilter, interval, metric
from aico_lab.metrics.engine.shares import with_share
from aico_lab.metrics.engine.talk import period as period_of

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from aico_lab.metrics.engine.answer import Answer
    from aico_lab.metrics.engine.metric import Chart
    from aico_lab.metrics.engine.talk import Talk


_TRIANGLE: Final = 26
"""The most cohorts, and the most periods of each, in a chart."""


_PERIOD: Final = "_period"
_CUT: Final = "_cut"
"""Hidden columns: the length of periods, and whether the filters have a `since`."""


_LONGEST: Final = 520
"""The most periods for which a cohort is followed; a wrong time may lie in another millennium."""


def _number(column: str, period: Literal["week", "month"]) -> pl.Expr:
    """Return consecutive numbers of periods, with an arbitrary origin."""
    day = pl.col(column)
    if period == "week":
        return day.cast(pl.Int64) // 7
    return day.dt.year().cast(pl.Int64) * 12 + day.dt.month()


def _finish(rows: pl.DataFrame, talk: Talk, period: Literal["week", "month"]) -> pl.DataFrame:
    rows = rows.with_columns(pl.col("cohort", "start").cast(pl.Date))
    times = periods.calendar(talk, period).select("start", "complete", at=_number("start", period))
    begin = talk.first_ms if talk.begin_ms is None else talk.begin_ms
    # Some people of the first cohort may have written before the data begin.
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
    cells = cells.with_columns(
        pl.lit(period).alias(_PERIOD),
        pl.lit(talk.filters.since is not None).alias(_CUT),
    )
    return with_share(cells.sort("cohort", "start"), "active", "n", "share")


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
    of = f"Of {claims.counted(people, 'people')}"
    if first[_CUT][0]:  # some may have begun before the selection
        cohort = pl.col("cohort")
        end = cohort.max().dt.offset_by(periods.STEP[period]).dt.offset_by("-1d")
        began = written_days(*first.select(cohort.min(), end=end).row(0))
        of += f" whose first message is of {began},"
    return (
        f"{of} {active:,} ({active * 100 / people:.0f} %) wrote again {when}"
        f"{claims.doubt(people, 'people')}"
    )


def _draw(answer: Answer) -> Chart:
    import altair as alt

    unit = answer.parameters["period"]
    cohorts = answer.pl()["cohort"].unique().sort().tail(_TRIANGLE)
    cut = f", of the last {_TRIANGLE}" if answer.pl()["cohort"].n_unique() > _TRIANGLE else ""
    name = pl.col("cohort").dt.strftime("%b %Y" if unit == "month" else "%-d %b %Y")
    rows = answer.pl().filter(
        pl.col("cohort").is_in(cohorts.implode()), pl.col("since") < _TRIANGLE
    )
    rows = rows.with_columns(
        row=name + pl.format(" ({})", pl.col("n")),
        text=pl.format("{}{}", pl.col("share").round().cast(pl.Int64), periods.MARK),
    )
    in_order = rows.sort("cohort")["row"].unique(maintain_order=True).to_list()
    # `since` does not change when people began.
    of_all = " of all data" if answer.filters.since is not None else ""
    base = alt.Chart(rows).encode(
        alt.X("since:O", title=f"{unit.capitalize()}s since the first one (*: unfinished)").axis(
            labelAngle=0
        ),
        alt.Y("row:N", title=f"First {unit}{of_all} (people){cut}", sort=in_order),
    )
    # The share of the first period is always 100 %, so colours are only for later ones.
    later = rows.filter(pl.col("since") > 0)
    most = max([5.0, *later["share"].to_list()])
    shades = draw.shades("share", "Active (%)", most)
    filled = base.mark_rect(stroke="white", color=charts.BLUE).encode(
        shades.legend(None) if later.is_empty() else shades
    )
    dark = alt.datum.share > most * 0.5
    text = base.mark_text(fontSize=10).encode(
        alt.Text("text:N"), color=alt.condition(dark, alt.value("white"), alt.value("black"))
    )
    return alt.layer(filled, text).properties(width=draw.WIDTH, height=19 * cohorts.len())


@metric(
    domain="interaction",
    question="What share of people still write weeks or months after their first message?",
    source="Cohort analysis; intervals: Wilson (1927)",
    parameters=[periods.WEEK_OR_MONTH],
    columns=[
        Column("cohort", "date", "first day of the period of people's first message"),
        Column("since", "integer", "periods since that of the first message"),
        Column("start", "date", "first day of the period in which people wrote again"),
        Column("n", "integer", "people of the cohort"),
        Column("active", "integer", "people of the cohort who wrote in the period"),
        Column("share", "number", "share of the cohort that wrote in the period", "%"),
        interval("share", "%"),
        Column(
            "complete",
            "truth",
            "whether data and filters cover the whole period, and data the cohort's first period",
        ),
    ],
    people="n",
    far="left out",
    estimated="among them",
    finish=_finish,
    finding=_describe,
    chart=_draw,
    role=RoleFilter.REFUSED,
)
def retention(talk: Talk, *, period: Literal["week", "month"]) -> ir.Table:
    """The share of people whose first message fell into one period that wrote in a later period.

    The people are named people who wrote (role user). A person's cohort is the period of their
    first message (ignoring those dated before 1990), with the filter `channel` of that in the
    selected channels. `since` and `until` do not change cohorts; they restrict the messages that
    make people active, and the periods shown. Cohorts without people have no rows; neither have
    periods after the last message, nor periods more than 520 after the first one. People of the
    cohort in whose period the data begin may have written before, so none of its rows is complete.
    The finding uses complete rows only. Intervals are Wilson's: each person is one observation.
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
