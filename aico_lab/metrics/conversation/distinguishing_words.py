"""Distinguishing words: those that one side uses more than the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import ibis
import numpy as np
import polars as pl

from aico_lab.messages.log_odds import Odds, difference
from aico_lab.metrics.conversation.frequent_words import (
    FUNCTION_WORDS_TOO,
    without_function_words,
)
from aico_lab.metrics.engine import claims, draw, guards
from aico_lab.metrics.engine.checks import at_least, more_than_nothing
from aico_lab.metrics.engine.intervals import FEWEST, UNIT, UNITS, unit_of
from aico_lab.metrics.engine.metric import NOTE, Column, Parameter, metric

if TYPE_CHECKING:
    from collections.abc import Mapping

    import ibis.expr.types as ir
    from numpy.typing import NDArray

    from aico_lab.metrics.engine.answer import Answer
    from aico_lab.metrics.engine.metric import Chart
    from aico_lab.metrics.engine.talk import Talk


_PRIOR_MAX: Final = 1e12
_SIDES: Final = ("user", "assistant")


def _finish(
    rows: pl.DataFrame, talk: Talk, *, top: int, prior: float, **_expression: Any
) -> pl.DataFrame:
    from scipy import special

    if rows.is_empty():
        names = ("role", "n", "by_user", "by_assistant", "people", "top_share", "log_odds", "z")
        return rows.select("word").with_columns(
            *(pl.lit(None).alias(name) for name in names), pl.lit(None).alias("clear")
        )
    sums = rows.select(pl.exclude("word").cast(pl.Float64))
    c: dict[str, NDArray[np.float64]] = {name: sums[name].to_numpy() for name in sums.columns}
    share = (c["user"] + c["assistant"]) / (c["all_user"] + c["all_assistant"])
    odds = {side: Odds.of(c[side], c[f"all_{side}"], share, prior) for side in _SIDES}
    found, independent = difference(odds["user"], odds["assistant"])
    with np.errstate(divide="ignore", invalid="ignore"):  # if a side has only one distinct word
        # Derivatives of the log-odds: by the uses of the word, and by all words of the side.
        slopes = {
            side: (1 / each.uses + 1 / each.others, -1 / each.others) for side, each in odds.items()
        }
        variance = np.maximum(independent, _variance_between(c, slopes))
        z = found / np.sqrt(variance)
    # Among many words some differ by chance, hence Bonferroni's correction. The variance between
    # few people is itself uncertain, hence Student's quantile.
    limit = special.stdtrit(np.maximum(c["people"] - 1, 1), 1 - 0.025 / len(z))
    scored = (
        rows.select("word", pl.col("named", "units").cast(pl.Int64))
        .rename({"units": UNITS})
        .with_columns(
            unit_of("named", talk.units),
            n=pl.Series(c["user"] + c["assistant"]),
            by_user=pl.Series(c["user"]),
            by_assistant=pl.Series(c["assistant"]),
            people=pl.Series(c["people"]),
            top_share=pl.Series(100 * c["most_of_one"] / (c["user"] + c["assistant"])),
            log_odds=pl.Series(found),
            z=pl.Series(z),
            clear=pl.Series(np.abs(z) > limit),
            **{NOTE: pl.lit(guards.note(int(c[guards.WITHHELD][0]), "words", talk), pl.String)},
        )
        .filter(pl.col("z").is_finite() & (pl.col("z") != 0))
    )
    return (
        scored.with_columns(
            role=pl.when(pl.col("z") > 0).then(pl.lit("user")).otherwise(pl.lit("assistant"))
        )
        .sort("role", pl.col("z").abs(), "word", descending=[False, True, False])
        .group_by("role", maintain_order=True)
        .head(top)
    )


def _variance_between(
    c: Mapping[str, NDArray[np.float64]],
    slopes: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]],
) -> NDArray[np.float64]:
    """Return the variance of the difference of log-odds, estimated between people.

    The difference is linearised: each person contributes the slopes times their uses of the word
    and their number of words. The sum of squared contributions follows from sums of squares and
    products that the engine computes.
    """
    (use, word), (use_2, word_2) = slopes["user"], slopes["assistant"]
    terms = {"u": use, "a": -use_2, "nu": word, "na": -word_2}
    names = list(terms)
    squares = sum(
        terms[one] * terms[other] * c["_".join(sorted((one, other)))]
        for one in names
        for other in names
    )
    totals = {"u": "user", "a": "assistant", "nu": "all_user", "na": "all_assistant"}
    mean = sum(terms[name] * c[total] for name, total in totals.items()) / c["units"]
    spread = squares - c["units"] * mean * mean
    found: NDArray[np.float64] = np.maximum(spread, 0) * c["units"] / np.maximum(c["units"] - 1, 1)
    return found


def _describe_words(rows: pl.DataFrame) -> str:
    units, unit = rows[UNITS][0], rows[UNIT][0]
    if units < FEWEST:
        return claims.too_little(units, unit)
    said = []
    for role in ("user", "assistant"):
        words = rows.filter(pl.col("role") == role, "clear")["word"].head(3).to_list()
        if words:
            said.append(f"{claims.SIDES[role]}: {', '.join(words)}")
    if not said:
        return f"No word clearly tells the sides apart{claims.doubt(units, unit)}"
    return f"Words that tell the sides apart: {'; '.join(said)}{claims.doubt(units, unit)}"


def _describe_none(rows: pl.DataFrame, talk: Talk) -> str:
    """Return the finding without rows: no word qualifies, or both sides use all words alike."""
    least = guards.least(talk)
    others = least > 1 or (not rows.is_empty() and rows["everybody"][0] > 1)
    if not rows.is_empty():
        which = f" of {max(least, 2):,} people or more" if others else ""
        role = talk.filters.role
        tells = f"is used more by {claims.SIDES[role]}" if role else "tells the sides apart"
        return f"No word{which} {tells}"
    enough = f"{least:,}, unless min_people says otherwise"
    if talk.filters.min_people:
        enough = (
            f"{max(least, 2):,}, or 1 where nobody else is named" if least == 1 else f"{least:,}"
        )
    return f"No word of both sides occurs in the conversations of enough people ({enough})"


def _draw(answer: Answer) -> Chart:
    import altair as alt

    rows = answer.pl().sort("z", descending=True)
    return (
        alt.Chart(rows)
        .mark_bar()
        .encode(
            alt.X("z:Q", title="z-score of the log-odds (right: people's, left: the companion's)"),
            alt.Y("word:N", title=None, sort=rows["word"].to_list()),
            draw.side("role", rows),
        )
        .properties(width=draw.WIDTH, height=15 * rows.height)
    )


@metric(
    domain="conversation",
    question="Which words does one side use more than the other?",
    source="Monroe, Colaresi and Quinn, Fightin' Words, Political Analysis 16 (2008)",
    parameters=[
        Parameter("top", int, 20, "The number of words for each side."),
        Parameter("prior", float, 500.0, "The weight of the prior, in words."),
        FUNCTION_WORDS_TOO,
    ],
    columns=[
        Column("role", "text", "the side that uses the word more"),
        Column("word", "text", "the word, in lower case"),
        Column("n", "integer", "uses by both sides"),
        Column("by_user", "integer", "uses by the user's side"),
        Column("by_assistant", "integer", "uses by the assistant's side"),
        Column("people", "integer", "people in whose conversations the word occurs"),
        Column("top_share", "number", "largest share of uses in one person's conversations", "%"),
        Column("log_odds", "number", "log-odds ratio, above 0 for the user's words"),
        Column("z", "number", "log-odds ratio divided by the standard error"),
        Column("clear", "truth", "whether z is beyond chance, given the number of words compared"),
    ],
    finish=_finish,
    finding=_describe_words,
    chart=_draw,
    min_people=guards.MIN_PEOPLE,
    nothing=_describe_none,
)
def distinguishing_words(talk: Talk, *, top: int, prior: float, function_words: bool) -> ir.Table:
    """The log-odds ratio of each word with an informative Dirichlet prior, and its z-score.

    Let y be a side's uses of the word, n the number of all its words, A the weight of the prior
    (`prior`), and a the word's share in the words of both sides times A. The log-odds ratio is
    log((y + a) / (n + A - y - a)) of the user minus that of the assistant. The prior pulls rare
    words towards no difference, so that they do not lead the list.

    The z-score is the ratio divided by its standard error. Of two standard errors the larger is
    taken: the paper's, which treats words as independent, and the one between people (linearised,
    with each person's words together), so that one person's habit is not mistaken for a difference
    between the sides. Words are `clear` if chance would produce any such word in only one of twenty
    lists. Without words of both sides there is no answer. English function words, those of
    `coordination`, are not listed unless `function_words` asks for them; the totals include them.

    A word that few people use may reveal who they are. Words that occur in the conversations of
    fewer than `min_people` people (by default 5) are left out, though the totals include them;
    other filters do not change that. A word of a single person is shown only if the home has no
    other person and `min_people` is 1.
    """
    at_least("top", top, 1)
    more_than_nothing("prior", prior, most=_PRIOR_MAX)
    words = talk.words
    # Rows for each person, so that nothing below reads every word again; without a named person,
    # or if conversations are the units, for each conversation.
    own = words.conversation_id
    if talk.by_person:
        own = ibis.ifelse(words.user_id.isnull(), own, ibis.null("string"))
    counted = words.group_by("word", "user_id", conversation_id=own).agg(
        u=words.count(where=words.role == "user"), a=words.count(where=words.role != "user")
    )
    counted = counted.mutate(unit=talk.unit(counted))
    units = counted.group_by("unit").agg(
        nu=_whole(counted.u.sum()),
        na=_whole(counted.a.sum()),
        known=counted.user_id.notnull().max(),
    )
    totals = units.aggregate(
        units=units.count(),
        named=units.known.cast("int64").sum(),
        all_user=units.nu.sum(),
        all_assistant=units.na.sum(),
        nu_nu=(units.nu * units.nu).sum(),
        na_na=(units.na * units.na).sum(),
        na_nu=(units.na * units.nu).sum(),
    )
    by_unit = counted.group_by("word", "unit").agg(
        u=_whole(counted.u.sum()), a=_whole(counted.a.sum())
    )
    each = by_unit.join(units, "unit")
    products = {
        f"{one}_{other}": (each[one] * each[other]).sum()
        for one, other in (
            ("u", "u"), ("a", "a"), ("a", "u"), ("nu", "u"), ("na", "u"), ("a", "nu"), ("a", "na"),
        )
    }  # fmt: skip
    sums = each.group_by("word").agg(
        user=each.u.sum(), assistant=each.a.sum(), most_of_one=(each.u + each.a).max(), **products
    )
    people = counted.group_by("word").agg(people=counted.user_id.nunique())
    shown = sums.join(people, "word").cross_join(totals).cross_join(talk.everybody)
    if not function_words:
        shown = without_function_words(shown)
    least = guards.least(talk)
    # A word of one person, or without a named person, is shown only if nobody else is named.
    may = ibis.ifelse(shown.everybody <= 1, ibis.literal(least == 1), shown.people >= max(least, 2))
    shown = shown.mutate(may=may)
    withheld = (~shown.may).cast("int64").sum().over(ibis.window())
    shown = shown.mutate(**{guards.WITHHELD: withheld})
    return shown.filter(shown.may, shown.all_user > 0, shown.all_assistant > 0).drop("may")


def _whole(total: ir.NumericValue) -> ir.IntegerValue:
    """Return a sum as a number that DuckDB multiplies quickly; its sums have 128 bits."""
    return total.cast("int64")
