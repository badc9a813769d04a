"""Interaction metrics: how unequally people write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import altair as alt
import numpy as np
import polars as pl
from ibis import _

from aico_lab.metrics import draw
from aico_lab.metrics.intervals import LEVEL, REPLICATES, SEED
from aico_lab.metrics.registry import CATALOGUE, Column, interval
from aico_lab.reports import charts

if TYPE_CHECKING:
    import ibis.expr.types as ir
    from numpy.typing import NDArray

    from aico_lab.metrics.answer import Answer
    from aico_lab.metrics.registry import Chart
    from aico_lab.metrics.talk import Talk

_TOPS: Final = (1, 5, 10, 20, 50, 100)  # percent of the people
_AT_ONCE: Final = 50  # replicates; how many numbers of messages there are is not bounded


def _gini(messages: NDArray[np.int64], people: NDArray[np.int64]) -> NDArray[np.float64]:
    """Give the Gini coefficient of each row of `people`.

    It is the sum of (2 i - N - 1) x_i over the people in ascending order, by N times the sum of
    x_i; of people who wrote the same number, i is summed at once.

    Args:
        messages: How many messages a person wrote, ascending.
        people: How many people wrote so many, of several draws.
    """
    up_to = people.cumsum(axis=1)
    n = up_to[:, -1:]
    wrote = (people * messages).astype(np.float64)
    ranks = (2 * up_to - people - n).astype(np.float64)
    found: NDArray[np.float64] = (ranks * wrote).sum(axis=1) / (n[:, 0] * wrote.sum(axis=1))
    return found


def _shares(messages: NDArray[np.int64], people: NDArray[np.int64]) -> NDArray[np.float64]:
    """Give the share of all messages, in percent, that the top people of each row wrote."""
    from_top = people[:, ::-1].cumsum(axis=1)
    wrote = (people * messages)[:, ::-1].cumsum(axis=1)
    found = np.empty((len(people), len(_TOPS)))
    for draw_, (reached, sums) in enumerate(zip(from_top, wrote, strict=True)):
        tops = _sizes(int(reached[-1]))
        # Between two counts people wrote the same number: a straight line is exact.
        found[draw_] = np.interp(tops, [0, *reached], [0, *sums]) * 100 / sums[-1]
    return found


def _sizes(people: int) -> list[int]:
    """Give how many people the top percents are: rounded up."""
    return [-(-people * top // 100) for top in _TOPS]


def _finish_concentration(rows: pl.DataFrame, _talk: Talk) -> pl.DataFrame:
    tops = pl.DataFrame({"top": _TOPS})
    numbers = [f"{name}{end}" for name in ("share", "gini") for end in ("", "_low", "_high")]
    if rows.is_empty():
        nothing = [pl.lit(None).alias(name) for name in ("n", "messages", *numbers)]
        return tops.clear().with_columns(nothing)
    rows = rows.cast(pl.Int64).sort("messages")
    messages, people = rows["messages"].to_numpy(), rows["people"].to_numpy()
    share, gini = _shares(messages, people[None])[0], _gini(messages, people[None])[0]
    shares, ginis = _draw_people(messages, people)
    low, high = np.percentile(shares, LEVEL, axis=0)
    gini_low, gini_high = np.percentile(ginis, LEVEL)
    made = tops.with_columns(
        n=pl.Series(_sizes(int(people.sum()))),
        messages=pl.Series(np.rint(share * (messages * people).sum() / 100)),
        share=pl.Series(share),
        share_low=pl.Series(low),
        share_high=pl.Series(high),
        gini=pl.lit(gini),
        gini_low=pl.lit(gini_low),
        gini_high=pl.lit(gini_high),
    )
    ends = [name for name in numbers if "_" in name]
    return made if people.sum() > 1 else made.with_columns(pl.lit(None).alias(n) for n in ends)


def _draw_people(
    messages: NDArray[np.int64], people: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give the shares and the Gini coefficient of each replicate of the bootstrap."""
    rng = np.random.default_rng(SEED)
    n = int(people.sum())
    shares, ginis = [], []
    for _at in range(0, REPLICATES, _AT_ONCE):
        # To draw people is to draw how many there are of each number of messages.
        drawn = rng.multinomial(n, people / n, size=_AT_ONCE)
        shares.append(_shares(messages, drawn))
        ginis.append(_gini(messages, drawn))
    return np.concatenate(shares), np.concatenate(ginis)


def _describe_concentration(rows: pl.DataFrame) -> str:
    tenth = rows.filter(pl.col("top") <= 10).tail(1)  # noqa: PLR2004
    row = (rows.head(1) if tenth.is_empty() else tenth).row(0, named=True)
    between = ""
    if row["gini_low"] is not None:
        between = f" ({row['gini_low']:.2f} to {row['gini_high']:.2f})"
    return (
        f"The most active {row['top']} % of the people wrote {row['share']:.0f} % of the messages; "
        f"the Gini coefficient is {row['gini']:.2f}{between}"
    )


def _draw_concentration(answer: Answer) -> Chart:
    nobody = pl.DataFrame({"top": [0], "share": [0.0], "share_low": [0.0], "share_high": [0.0]})
    rows = pl.concat([nobody, answer.pl()], how="diagonal_relaxed")
    base = alt.Chart(rows).encode(alt.X("top:Q", title="Most active people (%)"))
    ends = alt.Y("share_low:Q", title=draw.label(answer, "share")).scale(domain=[0, 100])
    equal = alt.Chart(pl.DataFrame({"x": [0, 100]})).mark_line(
        color=charts.GREY, strokeDash=[4, 4], strokeWidth=1
    )
    return alt.layer(
        equal.encode(alt.X("x:Q"), alt.Y("x:Q")),
        base.mark_area(opacity=0.25).encode(ends, alt.Y2("share_high:Q")),
        base.mark_line(point={"size": 60, "opacity": 1}).encode(alt.Y("share:Q")),
    ).properties(width=draw.WIDTH // 2, height=draw.WIDTH // 2)


@CATALOGUE.metric(
    domain="interaction",
    question="How much of all messages do the most active people write?",
    source="Lorenz (1905); Gini (1914), in the form of Sen (1973)",
    columns=[
        Column("top", "integer", "the most active people", "%"),
        Column("n", "integer", "so many people, rounded up"),
        Column("messages", "integer", "messages that they wrote"),
        Column("share", "number", "messages that they wrote", "%"),
        interval("share", "%"),
        Column("gini", "number", "Gini coefficient of messages, the same in every row"),
        interval("gini"),
    ],
    finish=_finish_concentration,
    finding=_describe_concentration,
    chart=_draw_concentration,
    role="none",
)
def concentration(talk: Talk) -> ir.Table:
    """The share of messages that the top 1, 5, 10, 20, 50 and 100 % of the people wrote.

    Messages that people wrote themselves (role user), by people who are known and wrote at least
    one. This is the Lorenz curve from its upper end. The Gini coefficient is the sum of
    (2 i - N - 1) x_i over the N people in ascending order of their messages x_i, by N times all
    messages: 0 where all wrote the same number, and (N - 1) / N where nearly all is one person's.
    Intervals resample people.
    """
    people = talk.daily.filter(_.role == "user", _.user_id.notnull())
    each = people.group_by("user_id").agg(messages=_.n_messages.sum())
    return each.group_by("messages").agg(people=_.count())
