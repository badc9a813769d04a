"""The languages of conversations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ibis
import polars as pl

from aico_lab.messages.language import CHARACTERS, UNKNOWN, language_of
from aico_lab.metrics.engine import claims, draw
from aico_lab.metrics.engine.checks import at_least
from aico_lab.metrics.engine.intervals import (
    COUNTED,
    MIXED,
    MOST,
    TOTAL,
    UNIT,
    UNITS,
    estimate,
    percent,
)
from aico_lab.metrics.engine.metric import PEOPLE, Column, Parameter, interval, metric

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from aico_lab.metrics.engine.answer import Answer
    from aico_lab.metrics.engine.metric import Chart
    from aico_lab.metrics.engine.talk import Talk


def _finish(rows: pl.DataFrame, talk: Talk, *, sample: int) -> pl.DataFrame:  # noqa: ARG001
    texts = (
        rows.sort("conversation_id", "role", "msg_idx")
        .group_by("role", "conversation_id", maintain_order=True)
        .agg(
            pl.col("text").str.join(" ").str.slice(0, CHARACTERS),
            pl.col("unit").first(),
            pl.col("known").any(),
            people=pl.col("unit").filter("known").unique(),
        )
    )
    if talk.by_person:
        # A side of a conversation has one language. If several people wrote it, it is not
        # an observation of one of them, but one of its own.
        several = pl.col("people").list.len() > 1
        texts = texts.with_columns(
            unit=pl.when(several).then(pl.lit("c") + pl.col("conversation_id")).otherwise("unit"),
            known=pl.col("known") & ~several,
        )
    guessed = texts.with_columns(
        code=pl.Series([language_of(text) for text in texts["text"]], dtype=pl.String)
    )
    told = guessed.filter(pl.col("code") != UNKNOWN)
    codes = told["code"].unique().sort().to_list()
    by_unit = told.group_by("role", "unit").agg(
        pl.col("known").any(),
        told=pl.len(),
        **{f"in {code}": (pl.col("code") == code).sum() for code in codes},
    )
    found = estimate(
        by_unit.drop("unit"),
        by=["role"],
        unit=talk.units,
        counted="conversations",
        statistics={code: percent(f"in {code}", "told") for code in codes},
    )
    people = guessed.group_by("role", "code").agg(
        n=pl.len(), people=pl.col("people").explode().drop_nulls().n_unique() if talk.by_person
        else pl.col("known").any().cast(pl.Int64),
    )  # fmt: skip
    found = found.with_columns(
        # Texts of several people are not unnamed, as those of the usual noun are.
        pl.when((pl.col(UNIT) == MIXED) & (pl.col("people") == 0))
        .then(pl.lit("conversations"))
        .otherwise(pl.col(UNIT).replace(MIXED, "people and conversations"))
        .alias(UNIT)
    )
    shares = [
        found.select(
            "role", UNIT, MOST, COUNTED,
            pl.col(f"{UNITS}_{code}").alias(UNITS),
            code=pl.lit(code),
            **{f"share{end}": f"{code}{end}" for end in ("", "_low", "_high")},
        )
        for code in codes
    ]  # fmt: skip
    nothing = {"role": pl.String, UNIT: pl.String, MOST: pl.Float64, COUNTED: pl.String}
    nothing |= {UNITS: pl.Int64, "code": pl.String}
    nothing |= dict.fromkeys(("share", "share_low", "share_high"), pl.Float64)
    answer = people.join(
        pl.concat([pl.DataFrame(schema=nothing), *shares]), on=["role", "code"], how="left"
    ).with_columns(pl.col(UNITS).fill_null(0), pl.col(UNIT).fill_null(talk.units))
    sides = dict(told.group_by("role").len().iter_rows())
    answer = answer.with_columns(
        pl.col("role").replace_strict(sides, default=0, return_dtype=pl.Int64).alias(TOTAL)
    )
    named = pl.Series([_name(code) for code in answer["code"]], dtype=pl.String)
    return answer.with_columns(language=named).sort(
        "role",
        pl.col("code") == UNKNOWN,
        pl.col("n"),
        "code",
        descending=[False, False, True, False],
    )


def _name(code: str) -> str:
    """Return the English name of a language."""
    from babel import Locale

    name: str = Locale("en").languages.get(code, code)
    return name


def _draw(answer: Answer) -> Chart:
    import altair as alt

    rows = answer.pl().filter(pl.col("share").is_not_null())
    order = rows.group_by("language").agg(pl.col("n").sum()).sort("n", "language", descending=True)
    shown = order["language"].head(12).to_list()
    rows = rows.filter(pl.col("language").is_in(shown))
    base = alt.Chart(rows).encode(
        alt.Y("language:N", title="Language", sort=shown),
        draw.offset("role"),
    )
    bars = base.mark_bar().encode(
        alt.X("share:Q", title=draw.label(answer, "share")).scale(domain=[0, 100]),
        draw.side("role", rows),
    )
    return alt.layer(bars, *draw.intervals(base, rows, "share", on_bars=True)).properties(
        width=draw.WIDTH, height=draw.LINE * 2 * max(len(shown), 1)
    )


def _finding(rows: pl.DataFrame) -> str:
    unknown = dict(rows.filter(pl.col("code") == UNKNOWN).select("role", "n").iter_rows())
    told = rows.filter(pl.col("share").is_not_null())
    most = told.unique("role", keep="first", maintain_order=True)

    def says(row: claims.Row) -> str:
        tied = told.filter(role=row["role"], n=row["n"])
        untold = unknown.get(row["role"], 0)
        apart = f"; {untold:,} too short to tell" if untold else ""
        return (
            f"{claims.side(row)}: {claims.leading(tied, 'n', 'language')} in {row['share']:.1f} % "
            f"of {claims.counted(row[TOTAL], 'conversations')}{apart}"
        )

    if most.is_empty():
        total = sum(unknown.values())
        return f"Too little data: {claims.counted(total, 'texts')}, all too short to tell"
    return claims.each(most, says)


@metric(
    domain="usage",
    question="In which languages do people write?",
    source="Lui and Baldwin (2012), langid.py, as py3langid",
    parameters=[
        Parameter("sample", int, 2000, "The most conversations to examine."),
    ],
    columns=[
        Column("role", "text", "the side that wrote"),
        Column("language", "text", "the language, or 'unknown' if the text is too short to tell"),
        Column("code", "text", "the language's ISO 639 code"),
        Column("n", "integer", "conversations in which the side writes the language"),
        PEOPLE,
        Column("share", "number", "share of conversations with a recognised language", "%"),
        interval("share", "%"),
    ],
    finish=_finish,
    finding=_finding,
    chart=_draw,
)
def languages(talk: Talk, *, sample: int) -> ir.Table:
    """The language of each side of a conversation, guessed from its first 1,000 characters.

    Only a sample of conversations is examined: those with the smallest MD5 of their id. So it is
    the same sample every time, and independent of what was written. Addresses, code, laughter and
    repeated letters are ignored; texts with fewer than 20 bytes of other letters, and uncertain
    guesses, are 'unknown'. Each side has one language, even if it switches. Shares are of the texts
    with a recognised language. Intervals treat people as independent, and each text that several
    people wrote.
    """
    at_least("sample", sample, 1)
    conversations = talk.texts.select("conversation_id").distinct()
    drawn = (
        conversations.mutate(digest=conversations.conversation_id.hexdigest("md5"))
        .order_by("digest", "conversation_id")
        .limit(sample)
    )
    texts = talk.texts.semi_join(drawn, "conversation_id")
    before = ibis.window(
        group_by=["conversation_id", "role"], order_by="msg_idx", preceding=None, following=0
    )
    length = texts.content.length()
    so_far = texts.mutate(length=length, read=length.sum().over(before))
    # Guessing needs Python, so texts leave the engine; only as many messages as a guess uses.
    read = so_far.filter(so_far.read - so_far.length < CHARACTERS)
    return read.select(
        "conversation_id",
        "role",
        "msg_idx",
        text=read.content.left(CHARACTERS),
        unit=talk.unit(read),
        known=read.user_id.notnull(),
    )
