"""The course of words over months, sides and channels."""

from __future__ import annotations

import unicodedata
from datetime import date
from typing import TYPE_CHECKING, Final

import ibis
import polars as pl
import polars.selectors as cs
from ibis import _

from aico_lab.errors import InvalidValue
from aico_lab.mart.text import APOSTROPHES
from aico_lab.metrics.conversation import frequent_words
from aico_lab.metrics.engine import claims, draw, guards, periods, pseudonyms
from aico_lab.metrics.engine.days import written_start
from aico_lab.metrics.engine.intervals import (
    COUNTED,
    FEWEST,
    MOST,
    PEOPLE_OF,
    UNIT,
    UNITS,
    Statistic,
    estimate,
)
from aico_lab.metrics.engine.metric import NOTE, Column, Parameter, interval, metric
from aico_lab.metrics.engine.talk import period

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from aico_lab.metrics.engine.answer import Answer
    from aico_lab.metrics.engine.metric import Chart
    from aico_lab.metrics.engine.talk import Talk

_MOST_WORDS: Final = 10
_DEFAULT_WORDS: Final = 3
_CHANNELS: Final = 15
_FEW: Final = "_few"
"""A hidden column: how many groups of words are not shown."""

_MOST_MONTHS: Final = 600
"""The most months whose line is drawn with gaps."""


def _parsed(words: str) -> tuple[str, ...]:
    """Return the distinct words of a parameter, spelled as messages have them.

    Raises:
        InvalidValue: There are too many.
    """
    for apostrophe in APOSTROPHES:
        words = words.replace(apostrophe, "'")
    found = unicodedata.normalize("NFC", words.lower()).replace(",", " ").split()
    found = list(dict.fromkeys(found))
    if len(found) > _MOST_WORDS:
        raise InvalidValue(f"words names at most {_MOST_WORDS} words, not {len(found)}.")
    return tuple(found)


def _finish(rows: pl.DataFrame, talk: Talk, *, words: str, by: str, names: bool) -> pl.DataFrame:
    del names
    per_word = Statistic(
        lambda sums: sums["uses"] / sums["all_words"], ("all_words",), "log", whole=1000.0
    )
    rows = rows.with_columns(cs.decimal().cast(pl.Int64))
    group = ["word", "place", "group"]
    used = rows.group_by(group).agg(people_used=pl.col("people_used").max())
    found = estimate(
        rows.drop("people_used", guards.WITHHELD, _FEW),
        by=group,
        unit=talk.units,
        counted="words",
        statistics={"rate": per_word},
    )
    found = found.join(used, on=group, how="left", maintain_order="left")
    ends = [name for name in found.columns if name.startswith(PEOPLE_OF)]
    named = _parsed(words)
    order = {word: at for at, word in enumerate(named)}
    total = pl.col("uses").sum().over("word")
    found = found.drop(*ends).with_columns(
        pl.col("uses").cast(pl.Int64).alias("n"),
        pl.col("all_words").cast(pl.Int64).alias("words"),
        pl.col("people_used").alias("people"),
        pl.col("word").replace_strict(order, default=0, return_dtype=pl.Int64).alias("at"),
        total.alias("total"),
        by=pl.lit(by),
        # No text has more uses of a word than words.
        rate_high=pl.min_horizontal(
            "rate_high", pl.when(pl.col("rate_high").is_not_null()).then(1000.0)
        ),
    )
    if by == "month":
        found = found.with_columns(pl.col("group").str.slice(0, 7))
    few = found.filter(pl.col(UNITS).is_between(1, FEWEST - 1)).height
    notes = [f"the sentence is about the {by}s with {FEWEST} or more"] if few else []
    for hidden, what in ((guards.WITHHELD, "words"), (_FEW, "values")):
        number = int(rows[hidden].max() or 0)  # type: ignore[arg-type]
        notes += [note] if (note := guards.note(number, what, talk)) else []
    found = found.with_columns(pl.lit(", ".join(notes) or None, pl.String).alias(NOTE))
    return found.sort("at", -pl.col("total"), "word", "place", "group")


def _describe(rows: pl.DataFrame) -> str:
    by = rows["by"][0]
    said, thin = [], []
    for (word,), found in rows.group_by("word", maintain_order=True):
        sure = found.filter(pl.col(UNITS) >= FEWEST)
        if sure.is_empty():
            units = int(found[UNITS].max() or 0)  # type: ignore[arg-type]
            thin.append((units, found.sort(UNITS)[UNIT][-1], word))
            continue
        ordered = sure.sort("rate", maintain_order=True)
        low, high = ordered.row(0, named=True), ordered.row(-1, named=True)
        if sure.height == 1 or high["rate"] == low["rate"]:
            every = f"in each of {claims.counted(sure.height, f'{by}s')}"
            which = _where(high) if sure.height == 1 else every
            text = f"{word}: {claims.written(high['rate'])} per 1,000 words {which}"
        else:
            apart = claims.extremes_differ(
                (low["rate_low"], low["rate_high"]),
                (high["rate_low"], high["rate_high"]),
                units=min(low[UNITS], high[UNITS]),
                groups=sure.height,
                log=True,
            )
            text = (
                f"{word}: least {_where(low)} ({claims.written(low['rate'])} per 1,000 words), "
                f"most {_where(high)} ({claims.written(high['rate'])})"
                f"{'' if apart else ', no clear difference'}"
            )
        least = min((low, high), key=lambda row: row[UNITS])
        most = max(low[MOST], high[MOST])
        said.append(text + claims.doubt(least[UNITS], least[UNIT], most, least[COUNTED]))
    if not said:
        units, unit, _word = max(thin)
        return claims.too_little(units, unit)
    few = [f"{word}: too little data ({claims.counted(units, unit)})" for units, unit, word in thin]
    return "; ".join([*said, *few])


def _where(row: claims.Row) -> str:
    """Return the month, side or channel of a row, in words."""
    if row["by"] == "side":
        return f"by {claims.SIDES[row['group']]}"
    if row["by"] == "month":
        return f"in {written_start(date.fromisoformat(row['group'] + '-01'), 'month')}"
    return f"in {row['group']}"


def _draw(answer: Answer) -> Chart:
    import altair as alt

    rows, by = answer.pl(), answer.parameters["by"]
    words = rows["word"].unique(maintain_order=True).to_list()
    if by == "month":
        rows = _with_every_month(rows)
        months = rows["month"].unique().sort().to_list()
        x = periods.axis_of(months, "month", "month", f"({answer.filters.timezone})")
    else:
        groups = rows["group"].unique(maintain_order=True).to_list()
        x = alt.X("group:N", sort=groups, title=by.capitalize())
        x = x.axis(labelAngle=0, labelExpr=draw.SIDE) if by == "side" else x.axis(labelAngle=-45)
    colour, dash = draw.dashed(alt.Color("word:N", title=None).scale(domain=words), words)
    rate = alt.Y("rate:Q", title=draw.label(answer, "rate")).scale(zero=True)
    if by == "month":
        base = alt.Chart(rows).encode(x, colour)
        layers = [base.mark_line().encode(rate, dash), base.mark_point(opacity=1).encode(rate)]
    else:
        base = alt.Chart(rows).encode(x, alt.Color("word:N", title=None, sort=words))
        base = base.encode(alt.XOffset("word:N", sort=words))
        layers = [base.mark_point(size=70, opacity=1).encode(rate)]
    if rows["rate_low"].is_not_null().any():
        ends = base.mark_rule(opacity=0.4).encode(alt.Y("rate_low:Q"), alt.Y2("rate_high:Q"))
        layers.insert(0, ends)
    return alt.layer(*layers).properties(width=draw.WIDTH, height=240)


def _with_every_month(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows with `month`, and a row of nulls where a month is missing.

    So that lines break there. Months far apart, such as those of wrong times, stay as they are.
    """
    rows = rows.with_columns(month=pl.format("{}-01", "group").str.to_date())
    first, last = rows["month"].min(), rows["month"].max()
    months = pl.select(month=pl.date_range(pl.lit(first), pl.lit(last), "1mo"))
    if months.height > _MOST_MONTHS:
        return rows
    every = rows.select(pl.col("word").unique(maintain_order=True)).join(months, how="cross")
    return every.join(rows, on=["word", "month"], how="left")


@metric(
    domain="conversation",
    question="How often is a word used in each month, by each side, or in each channel?",
    source="Uses per 1,000 words, with intervals over people",
    parameters=[
        Parameter(
            "words",
            str,
            "",
            f"Up to {_MOST_WORDS} words, separated by commas; by default the {_DEFAULT_WORDS} most "
            "frequent ones of frequent_words.",
        ),
        Parameter(
            "by",
            str,
            "month",
            "Local calendar months, the sides, or the channels with the most words.",
            choices=("month", "side", "channel"),
        ),
        pseudonyms.NAMES,
    ],
    columns=[
        Column("word", "text", "the word, in lower case"),
        Column("by", "text", "month, side or channel, in every row"),
        Column("group", "text", "the month, the side, or the channel"),
        Column("n", "integer", "uses of the word in the group"),
        Column("people", "integer", "people in whose conversations the word occurs in the group"),
        Column("words", "integer", "all words in the group"),
        Column("rate", "number", "uses per 1,000 words"),
        interval("rate"),
    ],
    finish=_finish,
    finding=_describe,
    chart=_draw,
    min_people=guards.MIN_PEOPLE,
    nothing=frequent_words.NOTHING,
)
def word_course(talk: Talk, *, words: str, by: str, names: bool) -> ir.Table:
    """The uses of a word per 1,000 words, in each month, by each side, or in each channel.

    Months without any words have no row; groups without the word have 0 uses. Of channels, the 15
    with the most words have a row each, called by their pseudonyms or with `names` by their names;
    all others share a row.

    Words and groups in which fewer than `min_people` people (by default 5) use the word are left
    out, as in `frequent_words`, whose rule for the words of one person holds here for each group.
    Groups in which nobody uses the word are shown for words that are shown in other groups.

    The finding names the groups with the least and the greatest rate, among those of at least 10
    people (or conversations). Whether these two differ beyond chance is judged with Bonferroni's
    correction for all pairs of such groups.
    """
    chosen, words_of = _parsed(words), talk.words
    if chosen:
        words_of = words_of.filter(words_of.word.isin(chosen))
    listed = frequent_words.listed(words_of, talk, function_words=bool(chosen))
    if not chosen:
        in_order = ibis.window(order_by=[ibis.desc("n"), "word"])
        ranked = listed.mutate(at=ibis.row_number().over(in_order))
        listed = ranked.filter(ranked["at"] < _DEFAULT_WORDS)
    listed = listed.select("word", guards.WITHHELD).cross_join(talk.everybody)
    counted = talk.messages.filter(talk.messages.n_words > 0)
    placed = _places(talk, counted, by, names=names)
    messages = _grouped(talk, counted, by, placed)
    totals = messages.group_by("place", "group", "unit").agg(
        all_words=messages.n_words.sum(), known=messages.user_id.notnull().max()
    )
    used = _grouped(talk, words_of.join(listed.select("word"), "word"), by, placed)
    uses = used.group_by("word", "place", "group", "unit").agg(uses=_.count())
    people = used.group_by("word", "place", "group").agg(people_used=used.user_id.nunique())
    each = people.cross_join(talk.everybody)
    few = (~guards.is_of_enough(talk, each.people_used, each.everybody)).cast("int64").sum()
    listed = listed.cross_join(each.aggregate(**{_FEW: few}))
    every = totals.cross_join(listed)
    rows = every.left_join(uses, ["word", "place", "group", "unit"]).select(
        "word", "place", "group", "known", "all_words", "everybody", guards.WITHHELD, _FEW,
        uses=ibis.coalesce(uses.uses, 0),
    )  # fmt: skip
    rows = rows.left_join(people, ["word", "place", "group"]).select(
        "word", "place", "group", "known", "all_words", "everybody", guards.WITHHELD, _FEW, "uses",
        people_used=ibis.coalesce(people.people_used, 0),
        is_used=people.people_used.notnull(),
    )  # fmt: skip
    enough = guards.is_of_enough(talk, rows.people_used, rows.everybody)
    return rows.filter(~rows.is_used | enough).drop("everybody", "is_used")


def _places(talk: Talk, messages: ir.Table, by: str, *, names: bool) -> ir.Table | None:
    """Return the place of each channel, or None if the groups are no channels."""
    if by != "channel":
        return None
    counted = messages.group_by("channel_id").agg(n=messages.n_words.sum())
    placed = pseudonyms.places(
        talk, counted, "channel_id", top=_CHANNELS, names=names, shown=counted.n > 0
    )
    return placed.select(
        "channel_id",
        "place",
        group=ibis.ifelse(placed.place <= _CHANNELS, placed.label, "other channels"),
    )


def _grouped(talk: Talk, rows: ir.Table, by: str, placed: ir.Table | None) -> ir.Table:
    """Return messages or words with `unit`, and with `place` and `group`."""
    rows = rows.mutate(unit=talk.unit(rows))
    if placed is not None:
        return rows.join(placed, "channel_id")
    if by == "side":
        return rows.mutate(place=ibis.ifelse(rows.role == "user", 1, 2), group=rows.role)
    month = period(rows.local_ts, "month").cast("string")
    return rows.mutate(place=ibis.literal(0), group=month)
