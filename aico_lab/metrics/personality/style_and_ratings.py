"""The companion's measured style and people's ratings, within and between people."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import ibis
import numpy as np
import polars as pl
from ibis import _

from aico_lab import charts
from aico_lab.mart.sums import average, total
from aico_lab.metrics.engine import claims, draw
from aico_lab.metrics.engine.checks import at_least
from aico_lab.metrics.engine.exchanges import coordination_in, exchanges_by
from aico_lab.metrics.engine.filters import Filters
from aico_lab.metrics.engine.intervals import FEWEST, NORMAL_95, UNITS, Statistic, estimate
from aico_lab.metrics.engine.metric import PEOPLE, Column, Parameter, RoleFilter, interval, metric
from aico_lab.metrics.engine.people_of_conversations import people_of_conversations

if TYPE_CHECKING:
    import ibis.expr.types as ir
    from numpy.typing import NDArray

    from aico_lab.metrics.engine.answer import Answer
    from aico_lab.metrics.engine.intervals import Sums
    from aico_lab.metrics.engine.metric import Chart
    from aico_lab.metrics.engine.talk import Talk


STYLES: Final = ("verbosity", "questions", "positivity", "coordination")

_NO_SPREAD: Final = 1e-12
"""Smaller variances are rounding errors of sums."""

_KINDS: Final = (
    ("within", "people_within", "within people"),
    ("between", "people", "between people"),
)
"""Each association: its column, the column that counts its people, and its name."""


def _r_within(sums: Sums) -> NDArray[np.float64]:
    return _ratio(sums["within_xy"], sums["within_xx"], sums["within_yy"], sums["repeated"])


def _r_between(sums: Sums) -> NDArray[np.float64]:
    n = sums["one"]
    x, y = sums["x"] / n, sums["y"] / n
    return _ratio(sums["xy"] - n * x * y, sums["xx"] - n * x * x, sums["yy"] - n * y * y, n)


def _ratio(
    xy: NDArray[np.float64],
    xx: NDArray[np.float64],
    yy: NDArray[np.float64],
    n: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the correlation from sums of products of deviations; NaN if a variable is constant."""
    varies = (xx > _NO_SPREAD * n) & (yy > _NO_SPREAD * n)
    spread = np.sqrt(np.where(varies, xx * yy, np.nan))
    found: NDArray[np.float64] = np.clip(xy / spread, -1, 1)
    return found


def _finish(rows: pl.DataFrame, _talk: Talk, *, min_messages: int) -> pl.DataFrame:  # noqa: ARG001
    found = estimate(
        rows.with_columns(
            one=1.0, known=True, xx=pl.col("x") ** 2, xy=pl.col("x") * pl.col("y"),
            yy=pl.col("y") ** 2, repeated=pl.when(pl.col("n") > 1).then("n").otherwise(0),
        ).drop("user_id"),
        by=["style", "rating"],
        unit="people",
        counted="people",
        statistics={
            "between": Statistic(_r_between, ("one",), "atanh"),
            "within": Statistic(_r_within, ("repeated",), "atanh"),
        },
    )  # fmt: skip
    return found.with_columns(
        pl.col("n").cast(pl.Int64), people_within=pl.col(f"{UNITS}_within")
    ).sort("rating", pl.col("style").cast(pl.Enum(STYLES)))


def _long(rows: pl.DataFrame) -> pl.DataFrame:
    """Return a row for each association: within and between people."""
    return pl.concat(
        rows.select(
            "style", "rating", "n", kind=pl.lit(name), people=people,
            value=kind, value_low=f"{kind}_low", value_high=f"{kind}_high",
        )
        for kind, people, name in _KINDS
    )  # fmt: skip


def _differs(row: claims.Row, associations: int) -> bool:
    """Return whether a correlation differs from 0 beyond chance, as one of several (Bonferroni)."""
    from scipy import special

    ends = (row["value_low"], row["value_high"])
    if None in ends or abs(row["value"]) >= 1:
        return False
    low, high = np.arctanh(np.clip(ends, -1 + _NO_SPREAD, 1 - _NO_SPREAD))
    error = (high - low) / 2 / NORMAL_95
    quantile = special.stdtrit(max(row["people"] - 1, 1), 1 - 0.025 / associations)
    return bool(abs(np.arctanh(row["value"])) > quantile * error)


def _describe(rows: pl.DataFrame) -> str:
    made = _long(rows).drop_nulls("value")
    people = int(rows["people"].max() or 0)  # type: ignore[arg-type]
    enough = made.filter(pl.col("people") >= FEWEST).drop_nulls("value_low")
    if enough.is_empty():
        return claims.too_little(people, "people")
    several = claims.counted(enough.height, "associations")
    found = [row for row in enough.iter_rows(named=True) if _differs(row, enough.height)]
    if not found:
        return (
            f"None of {several} of style and ratings is clearly different from 0"
            f"{claims.doubt(int(enough['people'].min()), 'people')}"  # type: ignore[arg-type]
        )
    row = max(found, key=lambda one: abs(one["value"]))
    return (
        f"{len(found)} of {several} of style and ratings differ from 0 beyond chance; the "
        f"strongest: {row['style']} with {row['rating']}, r = {row['value']:z.2f} {row['kind']}; "
        f"an association, not an effect{claims.doubt(row['people'], 'people')}"
    )


def _draw(answer: Answer) -> Chart:
    import altair as alt

    rows = _long(answer.pl()).drop_nulls("value")
    kinds = [name for *_columns, name in _KINDS]
    colour = alt.Color("kind:N", title=None).scale(
        domain=kinds, range=[charts.BLUE, charts.VERMILION]
    )
    offset = alt.YOffset("kind:N", sort=kinds)
    base = alt.Chart(rows).encode(alt.Y("style:N", title=None, sort=list(STYLES)), colour, offset)
    x = alt.X("value:Q", title="Correlation with the rating")
    zero = alt.Chart(rows).mark_rule(color=charts.GREY, strokeDash=[4, 4])
    layers = alt.layer(
        zero.encode(x=alt.XDatum(0)),
        *draw.intervals(base, rows, "value"),
        base.mark_point(size=70, opacity=1).encode(x),
    )
    panels = layers.properties(
        width=draw.WIDTH // 2 - 70, height=2 * draw.LINE * rows["style"].n_unique()
    )
    return panels.facet(alt.Facet("rating:N", title=None), columns=2)


@metric(
    domain="personality",
    question="Do people rate conversations otherwise when the companion's style is another?",
    source="Within- and between-person associations: Curran and Bauer (2011); "
    "coordination: Danescu-Niculescu-Mizil et al. (2012)",
    parameters=[
        Parameter(
            "min_messages",
            int,
            5,
            "Conversations with fewer messages by the companion are left out.",
        ),
    ],
    columns=[
        Column("style", "text", f"the measured style of the companion: {', '.join(STYLES)}"),
        Column("rating", "text", "the rated quality"),
        Column("n", "integer", "rated conversations whose style is measured"),
        PEOPLE,
        Column("people_within", "integer", "people with several such conversations"),
        Column("within", "number", "correlation of deviations from each person's means"),
        interval("within"),
        Column("between", "number", "correlation of people's means"),
        interval("between"),
    ],
    role=RoleFilter.REFUSED,
    far=None,
    finish=_finish,
    finding=_describe,
    chart=_draw,
)
def style_and_ratings(talk: Talk, *, min_messages: int) -> ir.Table:
    """The correlation of the companion's measured style with ratings, within and between people.

    Verbosity is the mean number of words of the companion's messages in the conversation; questions
    is the share of them that ask one; positivity is their mean sentiment score; coordination is
    that of the companion's replies, as in `coordination`, for classes and exchanges of this
    conversation, with at least as many exchanges as `min_messages`. Several ratings of a quality in
    one conversation, such as feedback on its messages, enter as their mean.

    People are the units. `within` asks whether a person rates those conversations higher in which
    the companion has more of the style than it has with this person on average: the person's means
    are subtracted from both, so that lasting differences between people do not count. It rests on
    people with several rated conversations. `between` is the correlation of people's means, all
    people with the same weight: whether people with whom the companion has more of the style give
    higher ratings. The two may differ, even in sign. The person of a rating is the one it names,
    or else that of its conversation; ratings of a conversation of several people that name nobody
    are left out. The period is that of the ratings; a conversation counts as a whole.

    These are associations, not effects: the companion also adapts its style to the person, the
    topic and the mood of the conversation. Means of few conversations are noisy, which makes
    `between` too weak. If both sides are people, as in the demo, the same partner may be in
    conversations of several people, which the intervals do not know; errors clustered by partner
    too are 9 % smaller to 13 % larger there. The finding tests all associations together
    (Bonferroni).
    """
    at_least("min_messages", min_messages, 1)
    chosen = talk.filters
    # The style of a whole conversation, and ratings that may name nobody.
    whole = replace(
        talk,
        filters=replace(chosen, since=None, until=None),
        words_are_cut=talk.words_are_cut and talk.bounds == (None, None),
    )
    rated = replace(
        talk, filters=Filters(since=chosen.since, until=chosen.until, timezone=chosen.timezone)
    ).feedback
    rated = rated.filter(rated.value.notnull(), rated.conversation_id.notnull())
    rated = rated.left_join(people_of_conversations(talk), "conversation_id")
    ratings = (
        rated.mutate(user_id=ibis.coalesce(rated.user_id, rated.person))
        .filter(_.user_id.notnull())
        .group_by("conversation_id", "user_id", rating=_.name)
        .agg(y=average(_.value))
    )
    measured = _styles(whole, min_messages)
    if chosen.users:
        ratings = ratings.filter(_.user_id.isin(chosen.users))
    both = ratings.join(measured, "conversation_id")
    long = ibis.union(
        *(
            both.select("rating", "user_id", "y", x=both[name], style=ibis.literal(name))
            for name in STYLES
        )
    ).filter(_.x.notnull())
    by = ["style", "rating", "user_id"]
    # In a given order, since a sum of fractions depends on it.
    own_x, own_y = (
        ibis.window(group_by=by, order_by=order, preceding=None, following=None)
        for order in ("x", "y")
    )
    apart = long.mutate(
        dx=long.x - long.x.mean().over(own_x), dy=long.y - long.y.mean().over(own_y)
    )
    return apart.group_by(*by).agg(
        n=_.count(),
        x=average(_.x),
        y=average(_.y),
        within_xx=total(_.dx * _.dx),
        within_xy=total(_.dx * _.dy),
        within_yy=total(_.dy * _.dy),
    )


def _styles(talk: Talk, least: int) -> ir.Table:
    """Return the styles of the companion in each conversation; NULL where one is not measured."""
    by_companion = talk.messages.filter(_.role == "assistant")
    plain = (
        by_companion.group_by("conversation_id")
        .agg(
            n=_.count(),
            verbosity=_.n_words.mean(),
            questions=_.is_question.cast("float64").mean(),
            positivity=average(_.sentiment_score),
        )
        .filter(_.n >= least)
    )
    replies = exchanges_by(talk, "conversation_id").filter(
        _.role == "assistant", _.exchanges >= least
    )
    taken_up = replies.select("conversation_id", coordination=coordination_in(replies))
    return plain.left_join(taken_up, "conversation_id").select(
        plain.conversation_id, "verbosity", "questions", "positivity", "coordination"
    )
