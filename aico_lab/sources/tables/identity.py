"""Find out with which answers the messages of a table without ids are stored.

The ids and the conversation of such messages depend on the companion, and on whether the day or the
month comes first. If one of these was answered wrongly and is corrected, the messages are known by
the answers of the first import, so that the next one updates them.

They depend on the person too, but another person is never taken for a correction: participants of a
study may have answered the same questions on the same days.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Final, Protocol

from aico_lab.messages.context import ASSUMED_USER
from aico_lab.messages.records import Rejected
from aico_lab.messages.storable import storable
from aico_lab.sources.exports.engine.records import joined_id
from aico_lab.sources.tables.layout import Reached
from aico_lab.sources.tables.rows import RowsToRecords

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from aico_lab.sources.tables.survey import TableSurvey

_LOOKED_AT: Final = 200
"""Rows at the beginning of a table of which most must be stored."""

_DIRECT: Final = "direct:"
_ORDERS: Final = {"day": "month", "month": "day"}


class KnownMessages(Protocol):
    """The messages that are stored."""

    def place(self, name: str, people: Collection[str]) -> str:
        """Return the conversation of a companion with some people.

        Args:
            name: The id that the companion alone gives it.
            people: The ids of the people.
        """

    def conversations(self, begin: str) -> list[str]:
        """Return the conversations of tables whose ids begin with a text."""

    def count(self, messages: Collection[tuple[str, str]]) -> int:
        """Return how many of some messages are stored, by their conversations and ids."""


def known_as(survey: TableSurvey, stored: KnownMessages) -> TableSurvey | None:
    """Return a survey by whose answers most messages of a table are stored; None if by its own.

    Args:
        survey: The survey with the answers of this import.
        stored: The messages that are stored.
    """
    own = stored.count(_first(survey))
    most, found = own, None
    for other in _others(survey, stored):
        ids = _first(survey, other)
        count = stored.count(ids)
        if count > most and 2 * count >= len(ids):
            most, found = count, other
    return found


def _others(survey: TableSurvey, stored: KnownMessages) -> Iterator[TableSurvey]:
    """Yield surveys with other answers, as far as messages may be stored by them."""
    order = _ORDERS.get(survey.form.order or "")
    if order is not None and survey.is_timed:
        other = copy.copy(survey)
        other.form = copy.copy(survey.form)
        other.form.order = order  # type: ignore[assignment]
        yield other
    if {"conversation_id", "channel_id"} & survey.columns.keys():
        return
    if survey.named_after is not None:
        others = survey.cast.authors().difference(survey.cast.companions())
        names = {joined_id("table", storable(author)) for author in others}
        for conversation in stored.conversations("table:"):
            is_named = any(
                conversation == name or conversation.startswith(f"{name} with ") for name in names
            )
            if is_named and conversation != survey.named_after:
                other = copy.copy(survey)
                other.named_after = conversation
                yield other


def stored_under_others(survey: TableSurvey, stored: KnownMessages) -> str | None:
    """Return the conversation of another person that has all first messages of a table, or None.

    Args:
        survey: The survey with the answers of this import.
        stored: The messages that are stored.
    """
    if not survey.is_named_by_me or stored.count(_first(survey)):
        return None
    for conversation in stored.conversations(_DIRECT):
        me = conversation.removeprefix(_DIRECT)
        other = copy.copy(survey)
        other.options = replace(survey.options, me=None if me == ASSUMED_USER else me)
        ids = _first(other)
        if ids and stored.count(ids) == len(ids):
            return conversation
    return None


def _first(survey: TableSurvey, known: TableSurvey | None = None) -> set[tuple[str, str]]:
    """Return the conversations and ids of the first messages of a table."""
    rows = islice(survey.table.rows(Reached()), _LOOKED_AT)
    return {
        (one.conversation_id, one.message_id)
        for _, one in RowsToRecords(survey, known).outcomes(rows)
        if not isinstance(one, Rejected)
    }
