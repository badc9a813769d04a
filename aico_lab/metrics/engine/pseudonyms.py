"""Names of people and channels in answers: pseudonyms such as "Person 3", or names on request.

The numbers are those of the views `mart.people` and `mart.channels`, which everything that shows a
person or channel uses, so that "Person 3" is the same person in every answer of a home.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import ibis
from ibis import _

from aico_lab.metrics.engine.checks import at_least
from aico_lab.metrics.engine.claims import DIRECTION_MARKS
from aico_lab.metrics.engine.metric import Parameter

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from aico_lab.metrics.engine.talk import Talk

Key: TypeAlias = Literal["user_id", "channel_id"]

NAMES: Final = Parameter(
    "names", bool, False, "Whether names are shown, or ids where there are none."
)
"""The parameter of every metric that shows people or channels."""

NOBODY: Final = "nobody named"
"""The label of messages without a person."""


def least_people(talk: Talk) -> int:
    """Return the filter `min_people`, or 1 if it is not set."""
    return talk.filters.min_people or 1


def labels(talk: Talk, key: Key, *, names: bool) -> ir.Table:
    """Return all people or channels of the home: the key, `number`, and `label`.

    Args:
        talk: The tables.
        key: `user_id` for people, `channel_id` for channels.
        names: Whether the labels are names rather than pseudonyms.
    """
    known = talk.people if key == "user_id" else talk.channels
    if not names:
        return known.select(key, "number", label=known.pseudonym)
    plain = known.name.re_replace(DIRECTION_MARKS, "").re_replace(r"[\p{Cc}\s]+", " ")
    alike = plain.count().over(group_by=plain) > 1
    numbered = plain + " (" + known.number.cast("string") + ")"
    return known.select(key, "number", label=ibis.ifelse(alike, numbered, plain))


def places(
    talk: Talk, counted: ir.Table, key: Key, *, top: int, names: bool, shown: ir.BooleanValue
) -> ir.Table:
    """Choose the people or channels that have a row of their own; the others share one.

    Args:
        talk: The tables.
        counted: One row for each key, which may be NULL, with its `n`.
        key: `user_id` for people, `channel_id` for channels.
        top: The most rows of their own.
        names: Whether the labels are names rather than pseudonyms.
        shown: Whether a row of `counted` may have a row of its own.

    Returns:
        One row for each key: the key, `label`, `shown`, `first` (whether no shown `n` is larger),
        and `place`: from 1 for the largest `n`; `top` + 1 for all others; `top` + 2 for the key
        NULL.

    Raises:
        InvalidValue: `top` is below 1.
    """
    at_least("top", top, 1)
    known = labels(talk, key, names=names)
    each = counted.mutate(shown=shown & counted[key].notnull())
    each = each.left_join(known, key).drop(f"{key}_right")
    in_order = ibis.window(order_by=[ibis.desc("shown"), ibis.desc("n"), "number"])
    ranked = each.mutate(rank=ibis.row_number().over(in_order) + 1)
    largest = ranked.n.max(where=ranked.shown).over(ibis.window())
    return ranked.select(
        key,
        "label",
        "shown",
        first=ranked.shown & (ranked.n == largest),
        place=ibis.cases(
            (ranked[key].isnull(), top + 2),
            (ranked.shown & (ranked["rank"] <= top), ranked["rank"]),
            else_=top + 1,
        ),
    )


def joined(rows: ir.Table, placed: ir.Table, key: Key) -> ir.Table:
    """Return the rows whose key has a place, with `place`; the key NULL equals NULL."""
    chosen = placed.select("place", placed_key=_[key])
    return rows.join(chosen, rows[key].identical_to(chosen.placed_key)).drop("placed_key")
