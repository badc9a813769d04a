"""The protection of words and other texts that may reveal who wrote them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import ibis

from aico_lab.metrics.engine import claims

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from aico_lab.metrics.engine.talk import Talk

MIN_PEOPLE: Final = 5
"""Texts of fewer people are not shown, unless `min_people` sets another number."""


def least(talk: Talk) -> int:
    """Return the fewest people of a text: the filter `min_people`, or `MIN_PEOPLE`."""
    return talk.filters.min_people or MIN_PEOPLE


WITHHELD: Final = "_withheld"
"""A hidden column: how many texts of too few people are not shown."""


def fewest(talk: Talk) -> int:
    """Return the fewest people of a text where other texts are withheld."""
    return max(least(talk), 2)


def note(withheld: int, what: str, talk: Talk) -> str | None:
    """Return the note on what is not shown for being of too few people; None if there is nothing.

    Args:
        withheld: The number of things that are not shown.
        what: Their noun, in the plural.
        talk: The source of the filters.
    """
    if not withheld:
        return None
    return f"{claims.counted(withheld, what)} of fewer than {fewest(talk):,} people left out"


def is_of_enough(
    talk: Talk, people: ir.IntegerValue, everybody: ir.IntegerValue
) -> ir.BooleanValue:
    """Return whether a text is used by enough people to be shown.

    A text of one person, or of nobody who is named, is shown only if `min_people` is 1 and either
    nobody else is in the home or the filter `user` names that one person.

    Args:
        talk: The source of the filters.
        people: The number of people who use the text.
        everybody: The number of people in the home; see `Talk.everybody`.
    """
    fewest = least(talk)
    if len(talk.filters.users) == 1 and fewest == 1:
        return people >= 0
    return ibis.ifelse(everybody <= 1, ibis.literal(fewest == 1), people >= max(fewest, 2))
