"""How rich the words of people and their companion are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import ibis
import numpy as np
import polars as pl
from ibis import _

from aico_lab.machine_code import compiled
from aico_lab.metrics import claims, draw
from aico_lab.metrics.checks import at_least
from aico_lab.metrics.intervals import estimate, mean
from aico_lab.metrics.registry import CATALOGUE, Column, interval

if TYPE_CHECKING:
    import ibis.expr.types as ir
    from numpy.typing import NDArray

    from aico_lab.metrics.answer import Answer
    from aico_lab.metrics.registry import Chart
    from aico_lab.metrics.talk import Talk

FACTOR: Final = 0.72
"""The share of different words at which McCarthy and Jarvis end a factor."""


@compiled
def _factors(  # noqa: PLR0917 - Numba has no keywords
    words: NDArray[np.int32], start: int, stop: int, step: int, marks: NDArray[np.int64], mark: int
) -> tuple[float, int]:
    """Count the factors of a text, in one direction.

    Args:
        words: A number for each word; equal words have equal ones.
        start: Where the text begins.
        stop: Where it is over.
        step: 1 forward, -1 backward.
        marks: For each different word the last factor that it was in.
        mark: The number of the first factor; greater than all in `marks`.

    Returns:
        The factors, and the number that the next one may have.
    """
    factors = 0.0
    tokens = types = 0
    for place in range(start, stop, step):
        tokens += 1
        if marks[words[place]] != mark:
            marks[words[place]] = mark
            types += 1
        if types / tokens <= FACTOR:
            factors += 1
            tokens = types = 0
            mark += 1
    if tokens:
        factors += (1 - types / tokens) / (1 - FACTOR)
    return factors, mark + 1


@compiled
def _mtld(
    words: NDArray[np.int32], starts: NDArray[np.int64], different: int
) -> NDArray[np.float64]:
    """Return the measure of each text, NaN where no word is repeated.

    Args:
        words: The words of all texts, one text behind the other.
        starts: Where each text begins, and where the last one ends.
        different: Above every number of a word.
    """
    marks = np.zeros(different, np.int64)
    mark = 1
    found = np.full(len(starts) - 1, np.nan)
    for text in range(len(found)):
        first, last = starts[text], starts[text + 1]
        forward, mark = _factors(words, first, last, 1, marks, mark)
        backward, mark = _factors(words, last - 1, first - 1, -1, marks, mark)
        if forward > 0 and backward > 0:
            found[text] = (last - first) * (1 / forward + 1 / backward) / 2
    return found


def mtld(rows: pl.DataFrame) -> pl.DataFrame:
    """Return MTLD for each side of each person.

    Args:
        rows: A row for each word, in any order: `side`, a number for each person's side, `message`,
            numbered from 0 in order, `position`, from 0 in each message, and `word`, any number.

    Returns:
        `side`, `words` and `mtld`, which is null where no word is repeated.
    """
    message = rows["message"].to_numpy()
    lengths = np.bincount(message)
    # Words are put in order by where they belong, which is quicker than to sort millions.
    place = (np.cumsum(lengths) - lengths)[message] + rows["position"].to_numpy()
    numbers = rows["word"].to_arrow().dictionary_encode()
    words, sides = np.empty(len(message), np.int32), np.empty(len(message), np.int64)
    words[place], sides[place] = numbers.indices.to_numpy(), rows["side"].to_numpy()
    starts = np.append(np.flatnonzero(np.diff(sides, prepend=-1)), len(sides))
    return pl.DataFrame(
        {
            "side": sides[starts[:-1]],
            "words": np.diff(starts),
            "mtld": _mtld(words, starts, len(numbers.dictionary)),
        }
    ).with_columns(pl.col("mtld").fill_nan(None))


def _finish(rows: pl.DataFrame, _talk: Talk, *, min_words: int) -> pl.DataFrame:  # noqa: ARG001
    people = (
        mtld(rows)
        .select(
            role=pl.when(pl.col("side") % 2 == 1)
            .then(pl.lit("user"))
            .otherwise(pl.lit("assistant")),
            person=pl.col("side") // 2,
            words="words",
            mtld="mtld",
            texts=1,
        )
        .drop_nulls("mtld")
    )
    found = estimate(
        people.drop("person").with_columns(known=True),
        by=["role"],
        unit="people",
        statistics={"mean": mean("mtld", "texts", scale="log")},
    )
    return found.rename({"texts": "n"})


def _draw(answer: Answer) -> Chart:
    return draw.dots(answer, "mean", "role")


@CATALOGUE.metric(
    domain="usage",
    question="How rich is the vocabulary of each side?",
    source="McCarthy and Jarvis (2010), MTLD, with the threshold 0.72",
    columns=[
        Column("role", "text", "the side that wrote"),
        Column("n", "integer", "people with enough words of the side"),
        Column("words", "integer", "words of the side with those people"),
        Column("mean", "number", "mean MTLD of people", "words"),
        interval("mean", "words"),
    ],
    finish=_finish,
    finding=lambda rows: claims.each(
        rows,
        lambda row: (
            f"{row['role']}: MTLD {row['mean']:.0f}, over {claims.counted(row['n'], 'people')}"
        ),
    ),
    people="n",
    chart=_draw,
)
def lexical_diversity(talk: Talk, *, min_words: int = 100) -> ir.Table:
    """MTLD: after how many words, in the mean, only 72 % of them are different ones.

    All words of a side with one person, in the order in which they were written, are one text. It
    is read until the share of different words has come down to 0.72: that is a factor, and the next
    one begins. What is left at the end is a part of a factor, (1 - share) / (1 - 0.72). MTLD is the
    words by the factors, the mean of reading forward and backward. Unlike a plain share of
    different words it hardly depends on the length of a text, if that has 100 words or more.

    Words are forms as written, in small letters, not lemmas. Texts without any repeated word have
    no value. The answer is the mean over people, who weigh the same. What languages differ in, and
    what people copy, differs here too.

    Args:
        min_words: Texts of fewer words are left out.
    """
    at_least("min_words", min_words, 1)
    known = talk.messages.filter(_.user_id.notnull())
    by_side = known.group_by("user_id", "role").agg(n=_.n_words.sum())
    long = by_side.filter(by_side.n >= min_words)
    messages = known.join(long, ["user_id", "role"])
    numbered = messages.select(
        "id",
        # Numbers, since there is a row for every word; two sides a person.
        side=2 * ibis.dense_rank().over(order_by=messages.user_id)
        + (messages.role == "user").cast("int64"),
        message=ibis.row_number().over(
            order_by=["user_id", "role", "ts_ms", "conversation_id", "msg_idx"]
        ),
    )
    words = talk.words.select("id", "position", word=talk.words.word.hash())
    # MTLD is made by going through the words one by one, which no engine's aggregate does.
    return words.join(numbered, "id").select("side", "message", "position", "word")
