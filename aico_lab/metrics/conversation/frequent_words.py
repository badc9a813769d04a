"""Frequent words, without function words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import ibis
import polars as pl
import polars.selectors as cs
from ibis import _

from aico_lab.messages.function_words import FUNCTION_WORDS
from aico_lab.metrics.engine import claims, draw, guards
from aico_lab.metrics.engine.checks import at_least
from aico_lab.metrics.engine.metric import NOTE, Column, Parameter, metric

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from aico_lab.metrics.engine.answer import Answer
    from aico_lab.metrics.engine.metric import Chart
    from aico_lab.metrics.engine.talk import Talk

FUNCTION_WORDS_TOO: Final = Parameter(
    "function_words", bool, False, "Whether function words, such as 'the', are listed too."
)
"""The parameter of the metrics that list words."""

_WORDS: Final = "_words"
"""A hidden column: all words, listed or not."""

_ALIKE: Final = "_alike"
"""A hidden column: how many words, in the answer or not, have as many uses."""

_AMONG: Final = "_among"
"""A hidden column: among which words the finding is, if some may not be shown; else null."""

_NAMED: Final = 3
"""The most words that the finding names."""

NOTHING: Final = "No word is used by enough people (5, unless min_people says otherwise)"


def without_function_words(words: ir.Table) -> ir.Table:
    """Return the rows whose `word` is no English function word; see `function_words`."""
    return words.filter(~words.word.isin(FUNCTION_WORDS))


def listed(words: ir.Table, talk: Talk, *, function_words: bool) -> ir.Table:
    """Return the words that may be shown, each with `n`, `people`, `by_user` and `most`.

    `most` is the number of uses in the conversations of the person with the most. Every row has the
    number of words that may not be shown as `guards.WITHHELD`.
    """
    # Two steps are faster than counting distinct people, and so is comparing words after counting.
    each = words.group_by("word", "user_id").agg(
        n=words.count(), by_user=words.count(where=words.role == "user")
    )
    counted = each.group_by("word").agg(
        n=each.n.sum(), by_user=each.by_user.sum(), people=each.user_id.count(),
        most=each.n.max(where=each.user_id.notnull()),
    )  # fmt: skip
    rows = counted if function_words else without_function_words(counted)
    rows = rows.cross_join(talk.everybody)
    rows = rows.mutate(may=guards.is_of_enough(talk, rows.people, rows.everybody))
    withheld = (~rows.may).cast("int64").sum().over(ibis.window())
    return rows.mutate(**{guards.WITHHELD: withheld}).filter(_.may).drop("may", "everybody")


def _finish(rows: pl.DataFrame, talk: Talk, **_parameters: Any) -> pl.DataFrame:
    least, withheld = guards.fewest(talk), pl.col(guards.WITHHELD)
    rows = rows.with_columns(cs.decimal().cast(pl.Int64))
    number = 0 if rows.is_empty() else int(rows[guards.WITHHELD][0])
    return rows.sort("n", "word", descending=[True, False]).with_columns(
        by_assistant=pl.col("n") - pl.col("by_user"),
        rate=pl.col("n") * 1000 / pl.col(_WORDS),
        top_share=pl.col("most") * 100 / pl.col("n"),
        **{
            _AMONG: pl.when(withheld > 0).then(pl.lit(f" among those of {least:,} or more people")),
            NOTE: pl.lit(guards.note(number, "words", talk), pl.String),
        },
    )


def _describe(rows: pl.DataFrame) -> str:
    top = rows.head(_NAMED)
    words = [f"{row['word']} ({row['n']:,})" for row in top.iter_rows(named=True)]
    of = claims.counted(int(rows[_WORDS][0]), "words")
    last = top.row(-1, named=True)
    others = last[_ALIKE] - top.filter(n=last["n"]).height
    also = f" (like {claims.counted(others, 'other words')})" if others > 0 else ""
    among = last[_AMONG] or ""
    noun = "word" if len(words) == 1 else "words"
    said = f"The most frequent {noun}{among}: {', '.join(words)}{also}, of {of}"
    # The share says nothing of words that one person alone can use.
    shared = top.filter(pl.col("people") > 1).drop_nulls("top_share")
    if shared.is_empty():
        return said
    most = shared.row(shared["top_share"].arg_max() or 0, named=True)
    return said + claims.dominated(most["top_share"], f"uses of {most['word']}")


def _draw(answer: Answer) -> Chart:
    import altair as alt

    rows = answer.pl()
    long = rows.unpivot(
        ["by_user", "by_assistant"], index="word", variable_name="role", value_name="uses"
    ).with_columns(pl.col("role").str.strip_prefix("by_"))
    long = long.filter(pl.col("uses") > 0)  # so that the legend names the sides that are drawn
    return (
        alt.Chart(long)
        .mark_bar()
        .encode(
            alt.X("sum(uses):Q", title=draw.label(answer, "n")).axis(
                draw.whole(max(rows["n"].to_list()))
            ),
            alt.Y("word:N", title=None, sort=rows["word"].to_list()),
            draw.side("role", long),
        )
        .properties(width=draw.WIDTH, height=18 * rows.height)
    )


@metric(
    domain="conversation",
    question="Which words are used most?",
    source="Word counts without function words, of the classes of coordination",
    parameters=[Parameter("top", int, 30, "The number of words."), FUNCTION_WORDS_TOO],
    columns=[
        Column("word", "text", "the word, in lower case"),
        Column("n", "integer", "uses"),
        Column("people", "integer", "people in whose conversations the word occurs"),
        Column("top_share", "number", "largest share of uses in one person's conversations", "%"),
        Column("by_user", "integer", "uses by the user's side"),
        Column("by_assistant", "integer", "uses by the assistant's side"),
        Column("rate", "number", "uses per 1,000 words"),
    ],
    finish=_finish,
    finding=_describe,
    chart=_draw,
    min_people=guards.MIN_PEOPLE,
    nothing=NOTHING,
)
def frequent_words(talk: Talk, *, top: int, function_words: bool) -> ir.Table:
    """The words with the most uses, without English function words.

    Function words are those of the eight classes of `coordination`, such as articles, pronouns and
    auxiliary verbs; other languages have none here, so their function words are listed. The rate is
    among all words, function words included.

    A word that few people use may reveal who they are. Words that occur in the conversations of
    fewer than `min_people` people (by default 5) are left out, whatever the filters. With
    `min_people` 1, a word of one person is shown only if nobody else is in the home, or if the
    filter `user` names that one person.
    """
    at_least("top", top, 1)
    shown = listed(talk.words, talk, function_words=function_words)
    in_order = ibis.window(order_by=[ibis.desc("n"), "word"])
    ranked = shown.mutate(place=ibis.row_number().over(in_order))
    words = talk.messages.aggregate(**{_WORDS: talk.messages.n_words.sum()})
    ranked = ranked.mutate(**{_ALIKE: ranked.count().over(ibis.window(group_by="n"))})
    return ranked.filter(ranked.place < top).drop("place").cross_join(words)
