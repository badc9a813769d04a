"""Counts of answers between people, and between people and the companion."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Final

import ibis
import polars as pl
import polars.selectors as cs
from ibis import _

from aico_lab import charts
from aico_lab.mart.definitions import starts_session_after
from aico_lab.mart.places import SESSION_GAP_MS
from aico_lab.metrics.engine import claims, draw, pseudonyms
from aico_lab.metrics.engine.metric import Column, Parameter, RoleFilter, metric

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from aico_lab.metrics.engine.answer import Answer
    from aico_lab.metrics.engine.metric import Chart
    from aico_lab.metrics.engine.talk import Talk

COMPANION: Final = "companion"

_TOTAL: Final = "_answers"
"""A hidden column: all answers, also those of rows that are left out."""

_MERGED: Final = "_merged"
"""A hidden column: whether an end of the row is several people."""

_BY_NAME: Final = "_by_name"
"""A hidden column: how many answers name the message that they answer."""


def _finish(rows: pl.DataFrame, _talk: Talk, *, top: int, names: bool) -> pl.DataFrame:
    del names
    rows = rows.with_columns(cs.decimal().cast(pl.Int64)).sort("from_place", "to_place")
    singles = rows.filter(pl.col("from_place").is_between(1, top)).height
    others = "others" if singles else "people"

    def called(side: str) -> pl.Expr:
        place = pl.col(f"{side}_place")
        return (
            pl.when(place == 0)
            .then(pl.lit(COMPANION))
            .when(place == top + 1)
            .then(pl.lit(others))
            .when(place == top + 2)
            .then(pl.lit(pseudonyms.NOBODY))
            .otherwise(f"{side}_label")
        )

    return rows.with_columns(
        called("from").alias("author"),
        called("to").alias("answered"),
        share=pl.col("n") * 100 / pl.col("n").sum(),
        **{
            _MERGED: (pl.col("from_place") == top + 1) | (pl.col("to_place") == top + 1),
            _TOTAL: pl.col("n").sum(),
            _BY_NAME: pl.col("by_name").sum(),
        },
    )


def _describe(rows: pl.DataFrame) -> str:
    names = (
        pl.when(pl.col(end) == COMPANION).then(pl.lit("the companion")).otherwise(end)
        for end in ("author", "answered")
    )
    pairs = rows.with_columns(pair=pl.format("{} answers {}", *names))
    merged = bool(pairs[_MERGED].any())
    if not pairs[_MERGED].all():
        pairs = pairs.filter(~pl.col(_MERGED))
    total, by_name = int(rows[_TOTAL][0]), int(rows[_BY_NAME][0])
    top = pairs.row(pairs["n"].arg_max() or 0, named=True)
    who, each = claims.leading(pairs, "n", "pair"), ""
    if (pairs["n"] == top["n"]).sum() > 1:
        each = " each"
        if merged:  # pairs without a row of their own may tie as well
            who = f"{top['pair']} and others alike"
    named = ""
    if by_name:
        which = "all" if by_name == total else f"{by_name:,}"
        named = f"; {which} by naming the message"
    if pairs.height == 1 and top["n"] == total:
        return f"{claims.counted(total, 'answers')}: {top['pair']}{named}"
    return f"Most often {who}: {top['n']:,} of {claims.counted(total, 'answers')}{each}{named}"


def _draw(answer: Answer) -> Chart:
    import altair as alt

    rows = answer.pl()
    authors = rows["author"].unique(maintain_order=True).to_list()
    counts = rows["n"].to_list()
    answered = rows.sort("n", descending=True)["answered"].unique(maintain_order=True).to_list()
    order = [*authors, *(name for name in answered if name not in authors)]
    return (
        alt.Chart(rows)
        .mark_rect(stroke=charts.PAPER, color=charts.BLUE)
        .encode(
            alt.X("answered:N", title="Whom", sort=order).axis(labelAngle=-90, labelOverlap=False),
            alt.Y("author:N", title="Who answers", sort=order),
            draw.shades("n", "Answers", max(counts), median(counts), least=1),
            tooltip=["author", "answered", "n", "share"],
        )
        .properties(width=draw.WIDTH - 160, height=draw.LINE * max(len(authors), 1))
    )


@metric(
    domain="conversation",
    question="Who answers whom?",
    source="Reply networks, as in ConvoKit's conversational graphs; adjacent messages otherwise",
    parameters=[
        Parameter("top", int, 15, "The most people with a row and column of their own."),
        pseudonyms.NAMES,
    ],
    columns=[
        Column("author", "text", "the one who answers: a pseudonym, or a name if requested"),
        Column("answered", "text", "the one who is answered: a pseudonym, or a name if requested"),
        Column("n", "integer", "answers"),
        Column("people", "integer", "people who answer or are answered"),
        Column("share", "number", "share of all answers", "%"),
        Column(
            "by_name",
            "integer",
            "answers with a recorded reference to the answered message",
        ),
    ],
    finish=_finish,
    finding=_describe,
    chart=_draw,
    role=RoleFilter.REFUSED,
    nothing="Nobody answers anybody.",
)
def who_answers_whom(talk: Talk, *, top: int, names: bool) -> ir.Table:
    """Messages that answer somebody else's, counted by who wrote and who is answered.

    A message answers the message that it names (`reply_to`), or else the message before it in the
    same session, where half an hour of silence ends a session. Messages that answer one's own are
    not counted. The companion is one author, whomever it writes to; a person is the author of the
    messages with the role user.

    People are called by the pseudonyms of `people`, or with `names` by their names. The `top`
    people who answer most have a row and a column each; all others share one. A cell of two people
    is about two people: if `min_people` is above 2, all people share one row and one column.
    """
    messages = talk.messages
    in_order = ibis.window(group_by="conversation_id", order_by="msg_idx")
    follows = ~starts_session_after(messages.gap_ms, SESSION_GAP_MS)
    before = messages.mutate(
        follows=follows,
        role_before=messages.role.lag().over(in_order),
        user_before=messages.user_id.lag().over(in_order),
        idx_before=messages.msg_idx.lag().over(in_order),
    )
    authors = talk.everything.select(answered_id=_.id, named_role=_.role, named_user=_.user_id)
    named = talk.replies.join(authors, "answered_id").drop("answered_id")
    both = before.left_join(named, "id").drop("id_right")
    by_name = both.named_role.notnull()
    # The filters may have removed the message before.
    adjacent = both.follows & (both.idx_before == both.msg_idx - 1)
    pairs = both.select(
        from_user=ibis.ifelse(both.role == "user", both.user_id, ibis.null("string")),
        from_person=both.role == "user",
        to_user=ibis.cases(
            (by_name & (both.named_role == "user"), both.named_user),
            (~by_name & (both.role_before == "user"), both.user_before),
            else_=ibis.null("string"),
        ),
        to_person=ibis.coalesce(both.named_role, both.role_before) == "user",
        by_name=by_name,
        counts=by_name | ibis.coalesce(adjacent, False),
    ).filter(_.counts)
    same = (pairs.from_person == pairs.to_person) & pairs.from_user.identical_to(pairs.to_user)
    pairs = pairs.filter(~same)
    counted = pairs.group_by("from_person", "from_user", "to_person", "to_user").agg(
        n=_.count(), by_name=_.by_name.cast("int64").sum()
    )
    given = counted.filter(_.from_person).group_by(user_id=_.from_user).agg(n=_.n.sum())
    taken = counted.filter(_.to_person).group_by(user_id=_.to_user).agg(n=0 * _.n.sum())
    every = given.union(taken).group_by("user_id").agg(n=_.n.sum())
    may = (every.n >= 0) & (pseudonyms.least_people(talk) <= 2)  # noqa: PLR2004
    placed = pseudonyms.places(talk, every, "user_id", top=top, names=names, shown=may)
    rows = counted
    for side in ("from", "to"):
        chosen = placed.select(
            **{f"{side}_key": _.user_id, f"{side}_label": _.label, f"{side}_placed": _.place}
        )
        rows = rows.left_join(
            chosen,
            [
                rows[f"{side}_person"],
                rows[f"{side}_user"].identical_to(chosen[f"{side}_key"]),
            ],
        )
        rows = rows.mutate(
            **{f"{side}_place": ibis.ifelse(rows[f"{side}_person"], rows[f"{side}_placed"], 0)}
        )
    cells = ["from_place", "to_place"]
    ends = rows.select(*cells, user=rows.from_user).union(rows.select(*cells, user=rows.to_user))
    people = ends.group_by(*cells).agg(people=_.user.nunique())
    found = rows.group_by(*cells).agg(
        n=rows.n.sum(),
        by_name=rows.by_name.sum(),
        from_label=rows.from_label.max(),
        to_label=rows.to_label.max(),
    )
    return found.join(people, cells)
