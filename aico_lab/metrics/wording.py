"""Conversation patterns in words: who adapts to whom, and which words tell the sides apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import altair as alt
import ibis
import numpy as np
import polars as pl
from ibis import _

from aico_lab.metrics import draw
from aico_lab.metrics.checks import at_least, more_than_nothing
from aico_lab.metrics.intervals import bootstrap, ratio
from aico_lab.metrics.markers import MARKERS
from aico_lab.metrics.registry import CATALOGUE, Column, interval

if TYPE_CHECKING:
    import ibis.expr.types as ir
    from numpy.typing import NDArray

    from aico_lab.metrics.answer import Answer
    from aico_lab.metrics.registry import Chart
    from aico_lab.metrics.talk import Talk

_ALL: Final = "all classes"
_CLASSES: Final = tuple(enumerate(MARKERS))
_PRIOR_MAX: Final = 1e12


def _finish_coordination(rows: pl.DataFrame, _talk: Talk, *, min_exchanges: int) -> pl.DataFrame:
    enough = rows.filter(pl.col("exchanges") >= min_exchanges).with_columns(
        pl.exclude("role", "user_id").cast(pl.Int64)
    )
    of_classes = pl.concat(
        enough.select(
            "role",
            "user_id",
            seen=f"first{at}",
            marker=pl.lit(name),
            value=pl.col(f"both{at}") / pl.col(f"first{at}")
            - pl.col(f"second{at}") / pl.col("exchanges"),
        ).filter(pl.col("seen") > 0)
        for at, name in _CLASSES
    )
    of_people = of_classes.group_by("role", "user_id").agg(pl.col("value").mean())
    overall = of_people.join(enough, on=["role", "user_id"], nulls_equal=True).select(
        "role", "user_id", seen="exchanges", marker=pl.lit(_ALL), value="value"
    )
    found = bootstrap(
        pl.concat([overall, of_classes]).with_columns(people=pl.lit(1)),
        by=["role", "marker"],
        unit="user_id",
        statistics={"coordination": ratio("value", "people")},
    )
    places = {_ALL: 0, **{name: at + 1 for at, name in _CLASSES}}
    return (
        found.drop("n")
        .rename({"seen": "n"})
        .sort("role", pl.col("marker").replace_strict(places, return_dtype=pl.Int64))
    )


def _describe_coordination(rows: pl.DataFrame) -> str:
    said = (
        f"{row['role']}: {100 * row['coordination']:+.1f} percentage points"
        f" ({row['people']:,} people)"
        for row in rows.filter(pl.col("marker") == _ALL).iter_rows(named=True)
        if row["coordination"] is not None
    )
    return f"Coordination of the replies: {'; '.join(said) or 'unknown'}"


def _draw_coordination(answer: Answer) -> Chart:
    return draw.dots(answer, "coordination", "marker", reference=0)


@CATALOGUE.metric(
    domain="conversation",
    question="Do replies take up the function words of what they reply to?",
    source="Danescu-Niculescu-Mizil, Lee, Pang and Kleinberg, Echoes of Power (WWW 2012)",
    columns=[
        Column("role", "text", "the side that replies"),
        Column("marker", "text", "the class of function words"),
        Column("n", "integer", "exchanges whose first turn has such words; all, of all classes"),
        Column("people", "integer", "people with enough exchanges, of whom this is the mean"),
        Column(
            "coordination",
            "number",
            "P(reply has such words | first turn has them) - P(reply has them)",
        ),
        interval("coordination"),
    ],
    finish=_finish_coordination,
    finding=_describe_coordination,
    chart=_draw_coordination,
)
def coordination(talk: Talk, *, min_exchanges: int = 5) -> ir.Table:
    """Linguistic coordination: P(reply has m | what it replies to has m) - P(reply has m).

    m is one of eight classes of English function words (`aico_lab.metrics.markers`), which people
    do not choose by what they talk about. An exchange is a turn and the turn of the other side that
    directly follows it in the same session. Each person makes two pairs with the companion, one for
    each direction: `role` is the side that replies, and so coordinates. Both probabilities are
    shares of the exchanges of the pair, over all its conversations; where no first turn has such
    words there is no value. The answer is the mean over people, all of whom weigh the same;
    that of all classes is the mean over people of the mean of the classes for which the person has
    a value (the paper's third aggregate). Messages that nobody is named for count as one person.

    Above 0 replies accommodate, below 0 they diverge. It is no cause: turns that are long for a
    reason of both sides have more words of every class. Only for English. Intervals resample
    people.

    Args:
        min_exchanges: A person with fewer exchanges in a direction does not count in it.
    """
    at_least("min_exchanges", min_exchanges, 1)
    classes = _classes()
    marked = talk.words.join(classes, talk.words.word == classes.marker)
    # The classes of a turn are the bits of one number, which has one place in a window.
    found = marked.group_by("conversation_id", "turn_idx").agg(
        has=sum((marked.bits & 2**at).max() for at, _name in _CLASSES)
    )
    turns = talk.turns
    joined = turns.left_join(found, ["conversation_id", "turn_idx"]).select(
        turns.conversation_id,
        turns.turn_idx,
        turns.session_idx,
        turns.user_id,
        turns.role,
        has=ibis.coalesce(found.has, 0),
    )
    order = ibis.window(group_by="conversation_id", order_by="turn_idx")
    replies = joined.mutate(
        replies=(joined.turn_idx.lag().over(order) == joined.turn_idx - 1)
        & (joined.session_idx.lag().over(order) == joined.session_idx)
        & (joined.role.lag().over(order) != joined.role),
        had=joined.has.lag().over(order),
    ).filter(_.replies)
    counts: dict[str, ir.Value] = {}
    for at, _name in _CLASSES:
        counts |= {
            name: (bits & 2**at > 0).cast("int64").sum()
            for name, bits in (
                (f"first{at}", replies.had),
                (f"second{at}", replies.has),
                (f"both{at}", replies.had & replies.has),
            )
        }
    return replies.group_by("role", "user_id").agg(exchanges=_.count(), **counts)


def _classes() -> ir.Table:
    """Give every marker once, with the classes that it is in as bits."""
    bits = {
        word: sum(2**at for at, name in _CLASSES if word in MARKERS[name])
        for words in MARKERS.values()
        for word in words
    }
    listed = ibis.array(
        [
            ibis.struct({"marker": word, "bits": ibis.literal(number, "int64")})
            for word, number in sorted(bits.items())
        ]
    )
    table = listed.unnest().name("listed").as_table()
    return table.select(marker=table.listed["marker"], bits=table.listed["bits"])


def _finish_words(
    rows: pl.DataFrame, _talk: Talk, *, top: int, prior: float, min_people: int
) -> pl.DataFrame:
    if rows.is_empty():
        return rows.select("word", role=pl.lit(None, pl.String)).with_columns(
            pl.lit(None).alias(name)
            for name in ("n", "by_user", "by_assistant", "people", "log_odds", "z")
        )
    del min_people  # the expression's
    rows = rows.with_columns(pl.exclude("word").cast(pl.Int64)).sort("word")
    all_user, all_assistant = rows["all_user"][0], rows["all_assistant"][0]
    user, assistant = (rows[name].to_numpy().astype(float) for name in ("by_user", "by_assistant"))
    pseudo = prior * (user + assistant) / (all_user + all_assistant)

    def log_odds(times: NDArray[np.float64], of_all: int) -> NDArray[np.float64]:
        odds = (times + pseudo) / (of_all + prior - times - pseudo)
        return np.asarray(np.log(odds))

    with np.errstate(divide="ignore", invalid="ignore"):  # where a side has but one word
        difference = log_odds(user, all_user) - log_odds(assistant, all_assistant)
    z = difference / np.sqrt(1 / (user + pseudo) + 1 / (assistant + pseudo))
    scored = rows.with_columns(
        n=pl.col("by_user") + pl.col("by_assistant"), log_odds=difference, z=z
    ).filter(pl.col("z").is_finite() & (pl.col("z") != 0))
    return (
        scored.with_columns(
            role=pl.when(pl.col("z") > 0).then(pl.lit("user")).otherwise(pl.lit("assistant"))
        )
        .sort("role", pl.col("z").abs(), "word", descending=[False, True, False])
        .group_by("role", maintain_order=True)
        .head(top)
    )


def _describe_words(rows: pl.DataFrame) -> str:
    said = []
    for role in ("user", "assistant"):
        words = rows.filter(pl.col("role") == role)["word"].head(3).to_list()
        if words:
            said.append(f"{role}: {', '.join(words)}")
    return f"Words that tell the sides apart: {'; '.join(said)}"


def _draw_words(answer: Answer) -> Chart:
    rows = answer.pl().sort("z", descending=True)
    return (
        alt.Chart(rows)
        .mark_bar()
        .encode(
            alt.X(
                "z:Q", title="z-score of the log-odds (right: the user's, left: the assistant's)"
            ),
            alt.Y("word:N", title=None, sort=rows["word"].to_list()),
            draw.side("role"),
        )
        .properties(width=draw.WIDTH, height=15 * rows.height)
    )


@CATALOGUE.metric(
    domain="conversation",
    question="Which words does one side use more than the other?",
    source="Monroe, Colaresi and Quinn, Fightin' Words, Political Analysis 16 (2008)",
    columns=[
        Column("role", "text", "the side that uses it more"),
        Column("word", "text", "the word, in small letters"),
        Column("n", "integer", "how often both sides used it"),
        Column("by_user", "integer", "how often the user's side did"),
        Column("by_assistant", "integer", "how often the assistant's side did"),
        Column("people", "integer", "people in whose conversations it occurs"),
        Column("log_odds", "number", "log-odds ratio, above 0 for the user's words"),
        Column("z", "number", "log-odds ratio divided by its standard error"),
    ],
    finish=_finish_words,
    finding=_describe_words,
    chart=_draw_words,
)
def distinguishing_words(
    talk: Talk, *, top: int = 20, prior: float = 500.0, min_people: int = 5
) -> ir.Table:
    """The log-odds ratio of each word with an informative Dirichlet prior, and its z-score.

    With y the times a side used the word, n all its words, and a the word's share in the words of
    both sides times `prior` (A): log((y + a) / (n + A - y - a)) of the user less that of the
    assistant, divided by the square root of 1 / (y + a) of the user plus that of the assistant.
    The prior draws rare words towards no difference, so that they do not lead the list. Words count
    as often as they occur; the z-scores take them for independent, which those of one message or
    person are not: they rank words, and are no test. Without words of both sides there is no
    answer.

    A word that few people use may say who they are: those that occur in the conversations of fewer
    than `min_people` different people are left out, though they are in the totals. Where fewer
    people are in question at all, as in the home of one person, nothing is left out.

    Args:
        top: So many words for each side.
        prior: How many words the prior is worth.
        min_people: Words of fewer different people are left out, where there are as many.
    """
    at_least("top", top, 1)
    at_least("min_people", min_people, 1)
    more_than_nothing("prior", prior, most=_PRIOR_MAX)
    words = talk.words.mutate(person=ibis.coalesce(talk.words.user_id, ""))
    by_user = (words.role == "user").cast("int64")
    counted = words.group_by("word").agg(
        by_user=by_user.sum(), by_assistant=(1 - by_user).sum(), people=words.person.nunique()
    )
    everything = ibis.window()
    totals = counted.mutate(
        all_user=counted.by_user.sum().over(everything),
        all_assistant=counted.by_assistant.sum().over(everything),
    )
    messages = talk.messages
    everybody = messages.aggregate(everybody=ibis.coalesce(messages.user_id, "").nunique())
    shown = totals.cross_join(everybody)
    return shown.filter(
        (shown.people >= min_people) | (shown.everybody < min_people),
        shown.all_user > 0,
        shown.all_assistant > 0,
    ).drop("everybody")
