"""The course of a measure before and after a version of the personality replaced another."""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, Final

import ibis
import numpy as np
import polars as pl
from ibis import _

from aico_lab import charts
from aico_lab.errors import InvalidValue
from aico_lab.metrics.engine import claims, draw, periods, series
from aico_lab.metrics.engine.days import written_day
from aico_lab.metrics.engine.intervals import MOST
from aico_lab.metrics.engine.local_time import local_ms
from aico_lab.metrics.engine.metric import PEOPLE, Column, Parameter, interval, metric
from aico_lab.metrics.engine.talk import days_of
from aico_lab.metrics.personality import version_change_fit as segmented

if TYPE_CHECKING:
    from collections.abc import Mapping

    import ibis.expr.types as ir
    from numpy.typing import NDArray

    from aico_lab.metrics.engine.answer import Answer
    from aico_lab.metrics.engine.metric import Chart
    from aico_lab.metrics.engine.series import Measure
    from aico_lab.metrics.engine.talk import Talk, Unit

_PHASES: Final = ("before", "of the change", "after")

_TWO_YEARS: Final = 2 * 365

_CHANGE: Final = ("changed_day", "from_day", "until_day", "version")

_LINES: Final = {"fitted": "fitted", "expected": "course before, continued"}


def _finish(
    rows: pl.DataFrame,
    talk: Talk,
    measure: Measure,
    period: Unit,
    version: str,  # noqa: ARG001
) -> pl.DataFrame:
    made = series.in_periods(rows.drop(_CHANGE), talk, measure, period)
    changed = rows["changed_day"].drop_nulls()
    if changed.is_empty():
        return _with_fit(made.clear(), None, measure, None, None)
    day, first, last = (
        None if value is None else date(1970, 1, 1) + timedelta(days=int(value))
        for value in rows.select("changed_day", "from_day", "until_day").row(0)
    )
    begins, ends = pl.col("start"), pl.col("end")
    between = made.filter(
        "complete",
        pl.lit(value=True) if first is None else begins >= first,
        pl.lit(value=True) if last is None else ends <= last,
    )
    placed = between.with_columns(
        phase=pl.when(ends <= day).then(pl.lit(_PHASES[0]))
        .when(begins >= day).then(pl.lit(_PHASES[2])).otherwise(pl.lit(_PHASES[1])),
    ).with_row_index("place")  # fmt: skip
    return _with_fit(placed, _fitted(placed, measure), measure, day, int(rows["version"][0]))


def _fitted(rows: pl.DataFrame, measure: Measure) -> segmented.SegmentedFit | None:
    """Return the regression on the periods with a value; None if they are few or equal."""
    used = _used(rows)
    after = used.filter(phase=_PHASES[2])
    values = used["value"].to_numpy()
    few = min(after.height, used.height - after.height) < segmented.FEWEST
    if few or not np.ptp(values):
        return None
    return segmented.fit(
        values if measure == "sentiment" else np.log1p(values),
        used["place"].cast(pl.Float64).to_numpy(),
        float(after["place"][0]),
    )


def _used(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.filter(pl.col("value").is_not_null(), pl.col("phase") != _PHASES[1])


def _with_fit(
    rows: pl.DataFrame,
    found: segmented.SegmentedFit | None,
    measure: Measure,
    day: date | None,
    version: int | None,
) -> pl.DataFrame:
    if "phase" not in rows.columns:
        rows = rows.with_columns(phase=pl.lit(""), place=pl.lit(0, pl.UInt32))
    used = _used(rows)
    scale = 1 if measure == "sentiment" else 100
    lines = used.select("place").with_columns(
        pl.Series(
            name,
            [None] * used.height if found is None else _original(getattr(found, name), measure),
            dtype=pl.Float64,
        )
        for name in _LINES
    )
    terms = {
        f"{name}{end}": None
        if found is None
        else scale * float(_original(np.asarray(getattr(found, name)), measure)[at])
        for name in ("level", "slope")
        for at, end in enumerate(("", "_low", "_high"))
    }
    counted = {
        name: used.filter(phase=phase).height
        for name, phase in (("before", _PHASES[0]), ("after", _PHASES[2]))
    }
    return rows.join(lines, "place", how="left", maintain_order="left").with_columns(
        changed=pl.lit(day, pl.Date),
        version=pl.lit(version, pl.Int64),
        autocorrelation=pl.lit(None if found is None else found.autocorrelation, pl.Float64),
        **{name: pl.lit(value, pl.Float64) for name, value in terms.items()},
        **{name: pl.lit(value, pl.Int64) for name, value in counted.items()},
    )


def _original(values: NDArray[np.float64], measure: Measure) -> NDArray[np.float64]:
    """Return values on the scale of the measure: counts were fitted as log(1 + count)."""
    return values if measure == "sentiment" else np.expm1(values)


def _describe(rows: pl.DataFrame) -> str:
    row = rows.row(0, named=True)
    unit, fewest = row["unit"], min(row["before"], row["after"])
    since = f"version {row['version']} of {written_day(row['changed'])}"
    if fewest < segmented.FEWEST:
        side = "before" if row["before"] <= row["after"] else "after"
        return f"{claims.too_little(fewest, f'complete {unit}s', segmented.FEWEST)} {side} {since}"
    _goes, name = series.SAID[row["measure"]]
    if row["level"] is None:
        return f"Too little data: {name} never varied before and after {since}"
    percent = "" if row["measure"] == "sentiment" else " %"
    level, low, high = (
        claims.written(row[f"level{end}"], signed=True) for end in ("", "_low", "_high")
    )
    amount = f"{level}{percent} (95 % interval {low} to {high}{percent})"
    doubt = claims.doubt(fewest, f"{unit}s") + series.dominated(row["measure"], row[MOST])
    if row["level_low"] <= 0 <= row["level_high"]:
        return f"No clear change of {name} with {since}: {amount}{doubt}"
    return (
        f"The level of {name} changed with {since}: {amount} against the course before, an "
        f"association in time, not an effect{_season(row)}{doubt}"
    )


def _season(row: Mapping[str, Any]) -> str:
    """Return a remark on series that are too short to tell a change from a season."""
    days = (row["before"] + row["after"]) * (7 if row["unit"] == "week" else 1)
    return "; a season looks the same, in less than two years" if days < _TWO_YEARS else ""


def _draw(answer: Answer) -> Chart:
    import altair as alt

    unit = answer.pl()["unit"][0]
    rows = answer.pl().tail(periods.DRAWN)
    measured = alt.Chart(rows.drop_nulls("value")).encode(series.axis(answer))
    y = alt.Y("value:Q", title=f"{series.TITLES[answer.parameters['measure']]} of a {unit}")
    y = y.scale(zero=answer.parameters["measure"] != "sentiment")
    points = measured.mark_point(size=40, opacity=0.8, color=charts.GREY).encode(y)
    rule = alt.Chart(rows.head(1)).mark_rule(color=charts.INK, strokeDash=[4, 4])
    layers = [points, rule.encode(alt.X("changed:T"))]
    lines = pl.concat(
        rows.filter(pl.col("phase").is_in([*phases])).select(
            "start", "phase", value=column, line=pl.lit(name)
        )
        for column, name, phases in (
            ("fitted", _LINES["fitted"], (_PHASES[0], _PHASES[2])),
            ("expected", _LINES["expected"], (_PHASES[2],)),
        )
    ).drop_nulls("value")
    if not lines.is_empty():
        names = list(_LINES.values())
        colour = alt.Color("line:N", title=None).scale(
            domain=names, range=[charts.BLUE, charts.VERMILION]
        )
        colour, dash = draw.dashed(colour, names)
        layers.append(
            alt.Chart(lines)
            .mark_line(strokeWidth=2)
            .encode(series.axis(answer), alt.Y("value:Q"), colour, dash, detail="phase:N")
        )
    return alt.layer(*layers).properties(width=draw.WIDTH, height=220)


@metric(
    domain="personality",
    question="Did a measure change when a version of the personality replaced another?",
    source="Interrupted time series: Wagner, Soumerai, Zhang and Ross-Degnan (2002), Turner et al. "
    "(2021); autocorrelated errors: Zellner and Tiao (1964)",
    parameters=[
        series.CHOSEN_MEASURE,
        Parameter(
            "period", str, "week", "A local day, or a week (Monday to Sunday).",
            choices=("day", "week"),
        ),
        Parameter("version", str, "", "The version whose beginning is the change; else the last."),
    ],
    columns=[
        Column("start", "date", "first day of the period"),
        Column("n", "integer", "messages; for sentiment, messages with a score"),
        PEOPLE,
        Column("value", "number", "messages, people or mean sentiment of the period"),
        Column("phase", "text", "before, after, or of the change, which is not used"),
        Column("fitted", "number", "value of the fitted line"),
        Column("expected", "number", "value of the line before the change, continued"),
        Column("changed", "date", "day of the change, in every row"),
        Column("version", "integer", "the version that began, in every row"),
        Column(
            "level", "number",
            "change of the level in the first period afterwards, in every row; of counts in %",
        ),
        interval("level"),
        Column(
            "slope", "number", "change of the slope per period, in every row; of counts in %"
        ),
        interval("slope"),
        Column("autocorrelation", "number", "of neighbouring periods' errors, in every row"),
        Column("before", "integer", "periods before the change, in every row"),
        Column("after", "integer", "periods after the change, in every row"),
        series.MEASURE,
        series.UNIT,
    ],
    finish=_finish,
    finding=_describe,
    nothing="No version of the personality replaced another while messages were written.",
    of_all=True,
    far="left out",
    estimated="among them",
    chart=_draw,
)  # fmt: skip
def version_change(
    talk: Talk,
    *,
    measure: Measure,  # noqa: ARG001
    period: Unit,  # noqa: ARG001
    version: str,
) -> ir.Table:
    """A segmented regression of messages, people or sentiment around the change of a version.

    The line before the change is continued; `level` is the difference from it in the first whole
    period after the change, and `slope` that of the slopes. Counts enter as log(1 + count), so that
    their differences are about percents. Errors of neighbouring periods are correlated; their
    autocorrelation is integrated out. With fewer than 12 whole periods on either
    side there is no estimate. The series begins with the version before the change and ends with
    the one after it, so that no other change lies within. The period in which the change lies is
    left out. Versions are those for every context, and for everybody or for the people of the
    filter `user`. If that is one person, versions for everybody that began while an own one was
    active are left out, because they did not reach this person.

    The change is one point in time: whatever else happened then, such as a holiday or an update of
    the model, looks the same. So does a season: with a yearly wave of twice the noise and half a
    year on each side, the interval of the level held the truth in 62 % of simulated series without
    a change, and that of the slope in 29 %. People are not held constant: those who came or left at
    that time move the level too. So the answer is an association in time, not an effect.
    """
    if version and not (version.isascii() and version.isdigit()):
        raise InvalidValue(f"version must be the number of a version, not {version!r}.")
    return series.by_day(talk).cross_join(_change(talk, version))


def _change(talk: Talk, version: str) -> ir.Table:
    """Return one row with the local days of a change and of the changes before and after it."""
    profiles = talk.profiles.filter(_.context.isnull())
    theirs = profiles.profile_user_id.isnull()
    if talk.filters.users:
        theirs |= profiles.profile_user_id.isin(talk.filters.users)
    reached = profiles.filter(theirs)
    if len(talk.filters.users) == 1:
        own = reached.filter(_.profile_user_id.notnull()).view()
        hidden = (
            reached.profile_user_id.isnull()
            & (own.active_from_ms <= reached.active_from_ms)
            & (own.active_until_ms.isnull() | (own.active_until_ms > reached.active_from_ms))
        )
        reached = reached.anti_join(own, hidden)
    begun = reached.group_by("active_from_ms").agg(version=_.version.max())
    in_order = ibis.window(order_by="active_from_ms")
    span = talk.messages.aggregate(first_ms=_.ts_ms.min(), last_ms=_.ts_ms.max())
    changes = begun.mutate(
        before_ms=begun.active_from_ms.lag().over(in_order),
        after_ms=begun.active_from_ms.lead().over(in_order),
    ).cross_join(span)
    changes = changes.filter(
        changes.before_ms.notnull(),
        changes.active_from_ms > changes.first_ms,
        changes.active_from_ms <= changes.last_ms,
    )
    if version:
        changes = changes.filter(changes.version == int(version))
    last = changes.mutate(
        place=ibis.row_number().over(ibis.window(order_by=ibis.desc("active_from_ms")))
    ).filter(_.place == 0)

    def day(ms: ir.IntegerValue) -> ir.IntegerScalar:
        found: ir.IntegerScalar = days_of(local_ms(ms, talk.shifts)).max()
        return found

    return last.aggregate(
        changed_day=day(last.active_from_ms),
        from_day=day(last.before_ms),
        until_day=day(last.after_ms),
        version=last.version.max(),
    )
