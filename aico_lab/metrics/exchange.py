"""Conversation patterns: who has how much of the talk, who asks, and what follows a bad moment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import ibis
import polars as pl
from ibis import _

from aico_lab.metrics import claims, draw
from aico_lab.metrics.intervals import MOST, UNIT, UNITS, Statistic, estimate, mean, percent
from aico_lab.metrics.quantiles import quantiles
from aico_lab.metrics.registry import CATALOGUE, PEOPLE, Column, interval

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from aico_lab.metrics.answer import Answer
    from aico_lab.metrics.registry import Chart
    from aico_lab.metrics.talk import Talk

_MEASURES: Final = ("turns", "messages", "words")

_NEGATIVE: Final = -0.05
_ROUNDING: Final = 1e-9
"""Engines add numbers in any order; a mean that is -0.05 must be negative in each."""


def _finish_balance(rows: pl.DataFrame, talk: Talk) -> pl.DataFrame:
    two_sided, one_sided = (int(rows[name].sum()) for name in ("two_sided", "one_sided"))
    measured = [
        rows.select(
            "known",
            measure=pl.lit(place),
            of_all=pl.col(name).cast(pl.Int64),
            of_users=pl.col(f"users_{name}").cast(pl.Int64),
        )
        for place, name in enumerate(_MEASURES)
    ]
    found = estimate(
        pl.concat(measured),
        by=["measure"],
        unit=talk.units,
        statistics={"share": percent("of_users", "of_all")},
    )
    return found.rename({"of_all": "n"}).with_columns(
        pl.col("measure").replace_strict(dict(enumerate(_MEASURES)), return_dtype=pl.String),
        conversations=pl.lit(two_sided),
        one_sided=pl.lit(one_sided),
    )


def _describe_balance(rows: pl.DataFrame) -> str:
    row = rows.row(0, named=True)
    if not row["conversations"]:
        return (
            f"Too little data: {claims.counted(row['one_sided'], 'conversations')}, all one-sided"
        )
    units, unit = row[UNITS], row[UNIT]
    shares = [
        f"{share:.1f} % of the {what}"
        for what, share in rows["measure", "share"].iter_rows()
        if share is not None
    ]
    two_sided = claims.counted(row["conversations"], "conversations")
    said = (
        f"the user's side has {', '.join(shares)} in {two_sided} of two sides; "
        f"{row['one_sided']:,} one-sided"
    )
    return claims.described(said, units, unit, row[MOST])


def _draw_balance(answer: Answer) -> Chart:
    return draw.dots(answer, "share", "measure", colour=None, reference=50)


@CATALOGUE.metric(
    domain="conversation",
    question="How is the talk divided between the two sides?",
    source="Shares of turns, messages and words, as in conversation analysis",
    columns=[
        Column("measure", "text", "what is divided: turns, messages or words"),
        Column("n", "integer", "how many of them there are, of both sides"),
        PEOPLE,
        Column("share", "number", "share of the user's side", "%"),
        interval("share", "%"),
        Column("conversations", "integer", "conversations with both sides, which count here"),
        Column("one_sided", "integer", "conversations in which only one side wrote, left out"),
    ],
    finish=_finish_balance,
    finding=_describe_balance,
    chart=_draw_balance,
    role="none",
)
def balance(talk: Talk) -> ir.Table:
    """The user's part of all turns, messages and words; half of each would be an even talk.

    Only of conversations in which both sides wrote in the period; the others are counted as
    one-sided. The share is that of all of them together, so that long conversations weigh more;
    that of words leaves out conversations in which words are not counted (see `message_length`).
    """
    by_user = (talk.turns.role == "user").cast("int64")
    sides = talk.turns.group_by("conversation_id").agg(
        users=by_user.sum(), turns=_.count(), unsegmented=_.n_unsegmented.sum()
    )
    one_sided = sides.mutate(
        one_sided=(sides.users == 0) | (sides.users == sides.turns),
        uncounted=sides.unsegmented > 0,
    )
    turns = talk.turns.join(one_sided.drop("users", "turns", "unsegmented"), "conversation_id")
    counts, users = (~turns.one_sided).cast("int64"), (turns.role == "user").cast("int64")
    amounts = {
        "turns": counts,
        "messages": counts * turns.n_messages,
        "words": counts * (~turns.uncounted).cast("int64") * turns.n_words,
    }
    first = turns.turn_idx == turns.turn_idx.min().over(ibis.window(group_by="conversation_id"))
    turns = turns.mutate(
        **amounts,
        **{f"users_{name}": users * amount for name, amount in amounts.items()},
        two_sided=(first & ~turns.one_sided).cast("int64"),
        alone=(first & turns.one_sided).cast("int64"),
    )
    sums = [*amounts, *(f"users_{name}" for name in amounts), "two_sided"]
    return talk.by_unit(
        turns, **{name: turns[name].sum() for name in sums}, one_sided=turns.alone.sum()
    )


def _finish_questions(rows: pl.DataFrame, talk: Talk) -> pl.DataFrame:
    found = estimate(
        rows,
        by=["role"],
        unit=talk.units,
        statistics={"share": percent("questions", "messages")},
    )
    return found.rename({"messages": "n"})


def _draw_questions(answer: Answer) -> Chart:
    return draw.dots(answer, "share", "role", zero=True)


@CATALOGUE.metric(
    domain="conversation",
    question="How often does each side ask something?",
    source="Messages with a question mark at the end of a sentence",
    columns=[
        Column("role", "text", "the side that wrote"),
        Column("n", "integer", "messages"),
        PEOPLE,
        Column("questions", "integer", "messages that ask something"),
        Column("share", "number", "share of messages that ask something", "%"),
        interval("share", "%"),
    ],
    finish=_finish_questions,
    finding=lambda rows: claims.each(
        rows, lambda row: f"{row['role']}: {row['share']:.1f} % of the messages ask something"
    ),
    chart=_draw_questions,
)
def questions(talk: Talk) -> ir.Table:
    """A message asks something if a question mark ends one of its sentences.

    That is one that a space, punctuation, an emoji or the end of the message follows, so that the
    one in an address does not count; the Chinese and the Arabic question mark always do. Questions
    without a mark are missed, and rhetorical ones count.
    """
    return talk.by_unit(
        talk.messages, "role", messages=_.count(), questions=_.is_question.cast("int64").sum()
    )


def _finish_message_length(rows: pl.DataFrame, talk: Talk) -> pl.DataFrame:
    exact = rows.group_by("role").agg(pl.col("p50", "p95").first())
    found = estimate(
        rows.drop("p50", "p95"),
        by=["role"],
        unit=talk.units,
        statistics={"words": mean("n_words", "counted", scale="log")},
    )
    return found.rename({"counted": "n"}).join(exact, on="role", maintain_order="left")


def _draw_message_length(answer: Answer) -> Chart:
    import altair as alt

    rows = answer.pl()
    percentiles = rows.unpivot(["p50", "p95"], index="role", value_name="length")
    y, colour = alt.Y("role:N", title=None), draw.side("role").legend(None)
    means = alt.Chart(rows).encode(alt.X("words:Q", title="Words of a message"), y, colour)
    base = alt.Chart(percentiles).encode(alt.X("length:Q"), y, colour)
    names = "{p50: 'median', p95: '95 %'}"
    return alt.layer(
        means.mark_rule(strokeWidth=3, opacity=0.45).encode(
            alt.X("words_low:Q"), alt.X2("words_high:Q")
        ),
        means.mark_point(size=70, opacity=1),
        means.transform_calculate(label="'mean: ' + format(datum.words, '.1f')")
        .mark_text(dy=18, fontSize=12)
        .encode(text="label:N"),
        base.mark_tick(thickness=2, size=16, opacity=1),
        base.transform_calculate(label=f"{names}[datum.variable] + ': ' + datum.length")
        .mark_text(dy=-16, fontSize=12)
        .encode(text="label:N"),
    ).properties(width=draw.WIDTH, height=60 * len(answer))


@CATALOGUE.metric(
    domain="conversation",
    question="How long are messages?",
    source="Percentiles: Hyndman and Fan (1996), type 1",
    columns=[
        Column("role", "text", "the side that wrote"),
        Column("n", "integer", "messages"),
        PEOPLE,
        Column("unsegmented", "integer", "messages in scripts without spaces, which do not count"),
        Column("words", "number", "mean words of a message"),
        interval("words"),
        Column("p50", "number", "words of the median message"),
        Column("p95", "number", "95th percentile of the words"),
    ],
    finish=_finish_message_length,
    finding=lambda rows: claims.each(
        rows,
        lambda row: (
            f"{row['role']}: {row['words']:.1f} words a message in the mean, {row['p50']:.0f} in "
            "the median"
            if row["n"]
            else f"{row['role']}: words of no message are counted"
        ),
    ),
    chart=_draw_message_length,
)
def message_length(talk: Talk) -> ir.Table:
    """Words of a message: stretches of letters and digits of any script, with their marks.

    An apostrophe inside a word belongs to it, and points and commas inside a number; web and e-mail
    addresses are no words. Messages without any word count, with 0. Messages in a script that has
    no spaces between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese) do not count: they are
    `unsegmented`. Percentiles are exact and are lengths that occurred.
    """
    exact = quantiles(talk.messages, "n_words", by=["role"], per_mille={"p50": 500, "p95": 950})
    amounts = talk.by_unit(
        talk.messages,
        "role",
        counted=_.n_words.count(),
        unsegmented=_.n_words.isnull().cast("int64").sum(),
        n_words=ibis.coalesce(_.n_words.sum(), 0),
    )
    return amounts.left_join(exact.drop("n"), "role").drop("role_right")


def _finish_recovery(rows: pl.DataFrame, talk: Talk) -> pl.DataFrame:
    after_negative = percent("n_recovered", "n_negative")
    usual = percent("n_stayed", "n_not_negative")
    found = estimate(
        rows,
        by=["role"],
        unit=talk.units,
        statistics={
            "recovered": after_negative,
            "baseline": usual,
            "lift": Statistic(
                lambda sums: after_negative.function(sums) / usual.function(sums),
                ("n_negative", "n_not_negative"),
                "log",
            ),
        },
    )
    return found.rename({"n_negative": "n"})


def _describe_recovery(rows: pl.DataFrame) -> str:
    def says(row: claims.Row) -> str | None:
        if row["recovered"] is None:
            return None
        text = f"{row['role']}: {row['recovered']:.1f} % of the turns after a negative one are not"
        if row["baseline"] is None:
            return text
        low, high = row["lift_low"], row["lift_high"]
        unclear = low is None or low <= 1 <= high
        compared = f"{text}, after others {row['baseline']:.1f} %"
        return f"{compared} (no clear difference)" if unclear else compared

    # What compares two shares is as sure as the one of fewer people.
    fewer = pl.min_horizontal(UNITS, f"{UNITS}_baseline")
    compared = pl.when(pl.col("baseline").is_null()).then(UNITS).otherwise(fewer).alias(UNITS)
    said = claims.each(rows.with_columns(compared), says)
    return said or "Too little data: no negative turn has a next one"


def _draw_recovery(answer: Answer) -> Chart:
    names = {"recovered": "after a negative turn", "baseline": "after another turn"}
    return draw.side_by_side(answer, names, "The side's next turn is not negative (% of turns)")


@CATALOGUE.metric(
    domain="conversation",
    question="After a negative turn, does the mood of that side recover with its next one?",
    source="Threshold of VADER's compound score: Hutto and Gilbert (2014)",
    columns=[
        Column("role", "text", "the side whose turns these are"),
        Column("n", "integer", "negative turns with a next one"),
        PEOPLE,
        Column("recovered", "number", "share of them whose next turn is not negative", "%"),
        interval("recovered", "%"),
        Column("baseline", "number", "the same share of turns that are not negative", "%"),
        interval("baseline", "%"),
        Column("lift", "number", "the first share divided by the second"),
        interval("lift"),
    ],
    finish=_finish_recovery,
    finding=_describe_recovery,
    chart=_draw_recovery,
)
def mood_recovery(talk: Talk) -> ir.Table:
    """The share of negative turns after which the same side's next turn is not negative.

    A turn is negative if the mean score of its scored messages is -0.05 or less. Its next one is
    that of the same side in the same session, with exactly one turn of the other side between them;
    both must have a score. The baseline is the share of turns that are not negative among the next
    turns of the side's turns that are not negative themselves.

    Regression to the mean alone makes most turns after a negative one less negative, whatever was
    said in between: so the share by itself shows no recovery. It is to be compared with the
    baseline, and a lift of 1 says that a negative turn tells nothing of the next one; below 1,
    moods last. Nothing here shows that the turn in between was the cause.
    """
    order = ibis.window(group_by="conversation_id", order_by="turn_idx")
    scored = talk.turns.mutate(
        # Without division, which rounds.
        negative=_.sentiment_sum <= _.n_scored * _NEGATIVE + _ROUNDING,
    )
    pairs = scored.select(
        "role",
        "user_id",
        "conversation_id",
        "negative",
        counts=(scored.n_scored > 0)
        & (scored.n_scored.lead(2).over(order) > 0)
        # Filters may have left out turns of other people.
        & (scored.turn_idx.lead(2).over(order) == scored.turn_idx + 2)
        & (scored.session_idx.lead(2).over(order) == scored.session_idx)
        & (scored.role.lead(1).over(order) != scored.role)
        & (scored.role.lead(2).over(order) == scored.role),
        next_negative=scored.negative.lead(2).over(order),
    )
    pairs = pairs.filter(pairs.counts)
    return talk.by_unit(
        pairs,
        "role",
        n_negative=_.negative.cast("int64").sum(),
        n_recovered=(_.negative & ~_.next_negative).cast("int64").sum(),
        n_not_negative=(~_.negative).cast("int64").sum(),
        n_stayed=(~_.negative & ~_.next_negative).cast("int64").sum(),
    )
