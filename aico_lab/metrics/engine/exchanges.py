"""Exchanges: a turn and the reply to it, and the function words that both use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import ibis
from ibis import _

from aico_lab.messages.function_words import MARKERS

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from aico_lab.metrics.engine.talk import Talk

CLASSES: Final = tuple(enumerate(MARKERS))
"""The classes of function words by number."""


def exchanges_by(talk: Talk, by: str) -> ir.Table:
    """Return the exchanges by the side that replies and by a column of `Talk.turns`.

    Returns:
        `role`, `by`, `exchanges`, and for each class the exchanges whose first turn (`first0`),
        reply (`second0`) or both turns (`both0`) have words of it.
    """
    classes = _classes()
    marked = talk.words.join(classes, talk.words.word == classes.marker)
    # The classes of a turn are the bits of one number, so one window function covers all of them.
    found = marked.group_by("conversation_id", "turn_idx").agg(
        has=sum((marked.bits & 2**at).max() for at, _name in CLASSES)
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
    for at, _name in CLASSES:
        counts |= {
            name: (bits & 2**at > 0).cast("int64").sum()
            for name, bits in (
                (f"first{at}", replies.had),
                (f"second{at}", replies.has),
                (f"both{at}", replies.had & replies.has),
            )
        }
    return replies.group_by("role", by).agg(exchanges=_.count(), **counts)


def coordination_in(exchanges: ir.Table) -> ir.FloatingValue:
    """Return the mean coordination over the classes with a value in rows of `exchanges_by`."""
    known = [(exchanges[f"first{at}"] > 0).cast("int64") for at, _name in CLASSES]
    values = [
        ibis.coalesce(
            exchanges[f"both{at}"] / exchanges[f"first{at}"].nullif(0)
            - exchanges[f"second{at}"] / exchanges.exchanges,
            0.0,
        )
        for at, _name in CLASSES
    ]
    mean: ir.FloatingValue = sum(values[1:], values[0]) / sum(known[1:], known[0]).nullif(0)
    return mean


def _classes() -> ir.Table:
    """Return each function word once, with its classes as the bits of a number."""
    bits = {
        word: sum(2**at for at, name in CLASSES if word in MARKERS[name])
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
