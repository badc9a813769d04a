"""In which languages people and their companion write."""

from __future__ import annotations

from typing import TYPE_CHECKING

import altair as alt
import ibis
import polars as pl
from ibis import _

from aico_lab.metrics import draw
from aico_lab.metrics.checks import at_least
from aico_lab.metrics.intervals import bootstrap
from aico_lab.metrics.registry import CATALOGUE, Column, interval
from aico_lab.sources.language import CHARACTERS, language_of

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from aico_lab.metrics.answer import Answer
    from aico_lab.metrics.intervals import Statistic
    from aico_lab.metrics.registry import Chart
    from aico_lab.metrics.talk import Talk


def _finish(rows: pl.DataFrame, _talk: Talk, *, sample: int) -> pl.DataFrame:  # noqa: ARG001
    texts = rows.sort("conversation_id", "role", "msg_idx").group_by(
        "role", "conversation_id", maintain_order=True
    ).agg(pl.col("text").str.join(" ").str.slice(0, CHARACTERS))  # fmt: skip
    guessed = texts.select(
        "role",
        "conversation_id",
        language=pl.Series([language_of(text) for text in texts["text"]], dtype=pl.String),
    )
    names = guessed["language"].unique().sort().to_list()
    one_hot = guessed.select(
        "role",
        "conversation_id",
        *(pl.col("language").eq(name).cast(pl.Int64).alias(name) for name in names),
    )
    found = bootstrap(
        one_hot,
        by=["role"],
        unit="conversation_id",
        statistics={f"share of {name}": _share(name, names) for name in names},
    )
    made = [
        found.select(
            "role",
            language=pl.lit(name),
            n=pl.col(name).cast(pl.Int64),
            **{f"share{end}": f"share of {name}{end}" for end in ("", "_low", "_high")},
        )
        for name in names
    ]
    empty = {"role": pl.String, "language": pl.String, "n": pl.Int64}
    empty |= dict.fromkeys(("share", "share_low", "share_high"), pl.Float64)
    answer = pl.concat([pl.DataFrame(schema=empty), *made]).filter(pl.col("n") > 0)
    return answer.sort("role", "n", "language", descending=[False, True, False])


def _share(name: str, names: list[str]) -> Statistic:
    return lambda sums: 100 * sums[name] / sum(sums[other] for other in names)


def _draw(answer: Answer) -> Chart:
    rows = answer.pl()
    order = rows.group_by("language").agg(pl.col("n").sum()).sort("n", "language", descending=True)
    shown = order["language"].head(12).to_list()
    base = alt.Chart(rows.filter(pl.col("language").is_in(shown))).encode(
        alt.Y("language:N", title="Language (ISO 639)", sort=shown),
        yOffset="role:N",
    )
    bars = base.mark_bar().encode(
        alt.X("share:Q", title=draw.label(answer, "share")).scale(domain=[0, 100]),
        draw.side("role"),
    )
    ends = base.mark_rule(strokeWidth=2).encode(alt.X("share_low:Q"), alt.X2("share_high:Q"))
    return (bars + ends).properties(width=draw.WIDTH, height=draw.LINE * 2 * len(shown))


def _finding(rows: pl.DataFrame) -> str:
    most = rows.unique("role", keep="first", maintain_order=True)
    return "; ".join(
        f"{row['role']}: {row['language']} in {row['share']:.1f} % of {row['conversations']:,} "
        "conversations"
        for row in most.join(
            rows.group_by("role").agg(conversations=pl.col("n").sum()),
            "role",
            maintain_order="left",
        ).iter_rows(named=True)
    )


@CATALOGUE.metric(
    domain="usage",
    question="In which languages do people write?",
    source="Lui and Baldwin (2012), langid.py, as py3langid",
    columns=[
        Column("role", "text", "the side that wrote"),
        Column("language", "text", "language, as an ISO 639 code"),
        Column("n", "integer", "conversations whose side is in the language"),
        Column("share", "number", "share of conversations", "%"),
        interval("share", "%"),
    ],
    finish=_finish,
    finding=_finding,
    chart=_draw,
)
def languages(talk: Talk, *, sample: int = 2000) -> ir.Table:
    """One guess for each side of a conversation, from its first 1,000 characters.

    Of all conversations only a sample is looked at: those with the smallest MD5 of their id, so the
    same ones every time, whose choice has nothing to do with what was written. Addresses, code,
    laughter and repeated letters are no language; texts with fewer than 20 bytes of other letters,
    and unsure guesses, are 'unknown'. A side that changes its language has one. Intervals resample
    the conversations of the sample.

    Args:
        sample: How many conversations at most.
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
    # Messages leave the engine, as only Python can guess; as few as make up the text.
    return so_far.filter(_.read - _.length < CHARACTERS).select(
        "conversation_id", "role", "msg_idx", text=_.content.left(CHARACTERS)
    )
