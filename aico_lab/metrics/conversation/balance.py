"""The balance of a conversation: the user's share of turns, messages and words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import ibis
import polars as pl
from ibis import _

from aico_lab.metrics.engine import claims, draw
from aico_lab.metrics.engine.intervals import COUNTED, MOST, UNIT, UNITS, estimate, percent
from aico_lab.metrics.engine.metric import PEOPLE, Column, RoleFilter, interval, metric

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from aico_lab.metrics.engine.answer import Answer
    from aico_lab.metrics.engine.metric import Chart
    from aico_lab.metrics.engine.talk import Talk


_MEASURES: Final = ("turns", "messages", "words")


def _finish(rows: pl.DataFrame, talk: Talk) -> pl.DataFrame:
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
    measure = pl.col("measure").replace_strict(dict(enumerate(_MEASURES)), return_dtype=pl.String)
    return found.rename({"of_all": "n"}).with_columns(
        measure,
        measure.alias(COUNTED),
        conversations=pl.lit(two_sided),
        one_sided=pl.lit(one_sided),
    )


def _describe(rows: pl.DataFrame) -> str:
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
        f"people have {', '.join(shares)} in {two_sided} with both sides; "
        f"{row['one_sided']:,} one-sided"
    )
    return claims.described(said, units, unit, row[MOST], row[COUNTED])


def _draw(answer: Answer) -> Chart:
    return draw.dots(answer, "share", "measure", colour=None, reference=50)


@metric(
    domain="conversation",
    question="How are turns, messages and words divided between the two sides?",
    source="Shares of turns, messages and words, as in conversation analysis",
    columns=[
        Column("measure", "text", "the unit: turns, messages or words"),
        Column("n", "integer", "turns, messages or words of both sides"),
        PEOPLE,
        Column("share", "number", "share of the user's side", "%"),
        interval("share", "%"),
        Column("conversations", "integer", "conversations with both sides, which are counted"),
        Column("one_sided", "integer", "conversations in which only one side wrote, left out"),
    ],
    finish=_finish,
    finding=_describe,
    chart=_draw,
    role=RoleFilter.REFUSED,
)
def balance(talk: Talk) -> ir.Table:
    """The user's share of all turns, messages and words; 50 % is an even balance.

    Only conversations in which both sides wrote in the period count; the others are reported as
    one-sided. Shares are pooled over conversations, so long conversations weigh more. The share of
    words leaves out conversations in which words cannot be counted (see `message_length`).
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
