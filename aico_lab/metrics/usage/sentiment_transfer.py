"""Transfer of sentiment: whether the mood of one side follows that of the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import ibis
import numpy as np
from ibis import _

from aico_lab.mart.sums import total
from aico_lab.metrics.engine import claims, draw
from aico_lab.metrics.engine.intervals import Statistic, estimate
from aico_lab.metrics.engine.metric import PEOPLE, Column, interval, metric

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import polars as pl
    from numpy.typing import NDArray

    from aico_lab.metrics.engine.answer import Answer
    from aico_lab.metrics.engine.intervals import Sums
    from aico_lab.metrics.engine.metric import Chart
    from aico_lab.metrics.engine.talk import Talk


_NO_SPREAD: Final = 1e-12


def _covariance(sums: Sums, count: str, one: str, other: str) -> NDArray[np.float64]:
    """Return the covariance of two variables; NaN for the variance of equal values."""
    n = sums[count]
    found: NDArray[np.float64] = sums[f"{one}_{other}"] / n - sums[one] / n * (sums[other] / n)
    if one == other:  # the variance of equal values is a rounding error of sums
        return np.where(found > _NO_SPREAD, found, np.nan)
    return found


def _slope(sums: Sums) -> NDArray[np.float64]:
    slope: NDArray[np.float64] = _covariance(sums, "pairs", "x", "y") / _covariance(
        sums, "pairs", "x", "x"
    )
    return slope


def _slope_within(sums: Sums) -> NDArray[np.float64]:
    """Return the least-squares slope of deviations from the mean of each conversation."""
    spread = sums["within_x_x"]
    varies = np.where(spread > _NO_SPREAD * sums["pairs"], spread, np.nan)
    slope: NDArray[np.float64] = sums["within_x_y"] / varies
    return slope


def _r(sums: Sums) -> NDArray[np.float64]:
    spread = _covariance(sums, "pairs", "x", "x") * _covariance(sums, "pairs", "y", "y")
    r: NDArray[np.float64] = np.clip(_covariance(sums, "pairs", "x", "y") / np.sqrt(spread), -1, 1)
    return r


def _slope_given_own(sums: Sums) -> NDArray[np.float64]:
    """Return the coefficient of x in the least-squares regression of y on x and z."""
    xx, zz = _covariance(sums, "triples", "a", "a"), _covariance(sums, "triples", "c", "c")
    xz = _covariance(sums, "triples", "a", "c")
    xy, zy = _covariance(sums, "triples", "a", "b"), _covariance(sums, "triples", "c", "b")
    independent = xx * zz - xz * xz
    with_both = np.where(independent > 1e-9 * xx * zz, independent, np.nan)
    slope: NDArray[np.float64] = (xy * zz - zy * xz) / with_both
    return slope


def _finish(rows: pl.DataFrame, talk: Talk) -> pl.DataFrame:
    found = estimate(
        rows,
        by=["role"],
        unit=talk.units,
        counted="pairs of turns",
        statistics={
            "r": Statistic(_r, ("pairs",), "atanh"),
            "slope": Statistic(_slope, ("pairs",)),
            "slope_within": Statistic(_slope_within, ("pairs",)),
            "slope_given_own": Statistic(_slope_given_own, ("triples",)),
        },
    )
    return found.rename({"pairs": "n"})


_TRANSFERS: Final = {
    "r": "Correlation",
    "slope": "Slope",
    "slope_within": "Slope within conversations",
    "slope_given_own": "Slope, given the own previous turn",
}


def _draw(answer: Answer) -> Chart:
    title = "Association with the other side's previous turn"
    return draw.side_by_side(answer, _TRANSFERS, title, reference=0)


def _transferred(rows: pl.DataFrame) -> str:
    def says(row: claims.Row) -> str | None:
        if row["r"] is None:
            return None
        text = f"{claims.side(row)} after the other side: r = {row['r']:z.2f}"
        unclear = row["r_low"] is not None and row["r_low"] <= 0 <= row["r_high"]
        return f"{text}, not clearly different from 0" if unclear else text

    return claims.each(rows, says) or "Too little data: no correlation is defined"


@metric(
    domain="usage",
    question="Does the mood of one side follow that of the other?",
    source="Butler (2011), temporal interpersonal emotion systems: association at lag 1",
    columns=[
        Column("role", "text", "the side that answers"),
        Column(
            "n",
            "integer",
            "pairs of a scored turn and the scored turn of the other side right before",
        ),
        PEOPLE,
        Column("r", "number", "Pearson's correlation of the two turns"),
        interval("r"),
        Column(
            "slope",
            "number",
            "change of the answer's score when the score of the turn before rises by 1",
        ),
        interval("slope"),
        Column("slope_within", "number", "slope within conversations"),
        interval("slope_within"),
        Column("triples", "integer", "pairs preceded by a scored turn of the side that answers"),
        Column(
            "slope_given_own",
            "number",
            "slope of the triples, given the own preceding turn of the side",
        ),
        interval("slope_given_own"),
    ],
    finish=_finish,
    finding=_transferred,
    chart=_draw,
)
def sentiment_transfer(talk: Talk) -> ir.Table:
    """The association between the mood of a turn and that of the other side's turn right before it.

    The mood of a turn is the mean score of its messages. Pairs are adjacent turns of the two sides
    in one session; both need a score. A pair belongs to the person who answers, or is answered. `r`
    is Pearson's correlation, and `slope` the least-squares slope. `slope_within` is the slope after
    the mean of each conversation is subtracted from both moods (fixed effects), so that
    conversations that are cheerful or sad throughout do not appear as moods that follow each other;
    it tends to be too low in short conversations. `slope_given_own` adds the answering side's own
    previous turn as a second predictor, which controls for the stability of that side's mood.

    The answer shows that moods are associated, and in which order; not that one causes the other.
    Both may follow the topic, or words that one side takes up from the other.
    """
    turns = talk.turns
    turns = turns.mutate(mood=turns.sentiment_sum / turns.n_scored.nullif(0))
    before = ibis.window(group_by=["conversation_id", "session_idx"], order_by="turn_idx")
    placed = turns.mutate(
        x=turns.mood.lag().over(before),
        x_role=turns.role.lag().over(before),
        x_idx=turns.turn_idx.lag().over(before),
        z=turns.mood.lag(2).over(before),
        z_role=turns.role.lag(2).over(before),
        z_idx=turns.turn_idx.lag(2).over(before),
    )
    # Filters may have removed turns in between, of other people in the same channel.
    pairs = placed.filter(
        placed.mood.notnull()
        & placed.x.notnull()
        & (placed.x_role != placed.role)
        & (placed.x_idx == placed.turn_idx - 1)
    )
    x, y = pairs.x, pairs.mood
    own = pairs.z.notnull() & (pairs.z_role == pairs.role) & (pairs.z_idx == pairs.turn_idx - 2)
    nothing = ibis.null("float64")
    a, b, c = (ibis.ifelse(own, value, nothing) for value in (x, y, pairs.z))
    of_pairs = {"x": x, "y": y, "x_x": x * x, "x_y": x * y, "y_y": y * y}
    of_triples = {"a": a, "b": b, "c": c, "a_a": a * a, "c_c": c * c}
    of_triples |= {"a_b": a * b, "c_b": c * b, "a_c": a * c}
    sums = {**of_pairs, **of_triples}
    found = pairs.group_by("role", "conversation_id", "user_id").agg(
        pairs=_.count(),
        triples=own.cast("int64").sum(),
        **{name: ibis.coalesce(total(value), 0.0) for name, value in sums.items()},
    )
    # A conversation of several people has one mean, which is subtracted from the moods of each.
    whole = ibis.window(
        group_by=["role", "conversation_id"], order_by="user_id", preceding=None, following=None
    )
    n = found.pairs.sum().over(whole)
    found = found.mutate(mean_x=found.x.sum().over(whole) / n, mean_y=found.y.sum().over(whole) / n)
    within = found.mutate(
        within_x_x=_.x_x - 2 * _.mean_x * _.x + _.pairs * _.mean_x * _.mean_x,
        within_x_y=_.x_y - _.mean_x * _.y - _.mean_y * _.x + _.pairs * _.mean_x * _.mean_y,
    )
    names = ["pairs", "triples", *sums, "within_x_x", "within_x_y"]
    return talk.by_unit(within, "role", **{name: total(within[name]) for name in names})
