"""Find out with which answers the messages of a table without ids are stored.

The ids and the conversation of such messages depend on the companion, and on whether the day or the
month comes first. If one of these was answered wrongly and is corrected, each message is known by
the answers of its first import ever after, so that later ones update it.

They depend on the person too, but another person is never taken for a correction: participants of a
study may have answered the same questions on the same days.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import islice, tee
from typing import TYPE_CHECKING, Final, Protocol

from aico_lab.messages.context import ASSUMED_USER
from aico_lab.messages.records import Rejected
from aico_lab.messages.storable import storable
from aico_lab.sources.exports.engine.records import joined_id
from aico_lab.sources.tables.layout import Reached
from aico_lab.sources.tables.rows import RowsToRecords

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from aico_lab.messages.records import MessageRecord, NotAMessageError
    from aico_lab.sources.tables.layout import TableRow
    from aico_lab.sources.tables.survey import TableSurvey

_LOOKED_AT: Final = 200
"""Rows at the beginning of a table, of which most must be stored if not most of all are."""

_ROWS: Final = 1_000
"""Rows that are looked for at once."""

_BETWEEN_ZONES: Final = timedelta(hours=27)
"""More than any two time zones differ, and less than two days that are read from one date."""

_Key = tuple[str, str]
"""The conversation and the id of a message."""

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

    def times(self, messages: Collection[tuple[str, str]]) -> Mapping[tuple[str, str], str]:
        """Return the times of those of some messages that are stored, by conversation and id."""


class OtherAnswers:
    """The other answers by which rows of a table are stored, and which of them each row has.

    A row that is stored by the answers of this import is known by these. Any other is known by the
    companion of an earlier import. It is known with day and month exchanged if most such rows are,
    or if it is stored with the right time, as an earlier import has corrected it: otherwise it
    could be taken for the row of another day with the same text.
    """

    def __init__(self, survey: TableSurvey, stored: KnownMessages) -> None:
        """Look at rows from all over the table.

        Args:
            survey: The survey with the answers of this import.
            stored: The messages that are stored.
        """
        self._survey, self._stored = survey, stored
        self._are_turned = False
        self._found: list[TableSurvey] = []
        self._of_new: int | None = None
        others = list(_others(survey, stored))
        if not others:
            return
        own, *tried = [_sampled(one) for one in (survey, *others)]
        known = stored.times({_key(one) for some in (own, *tried) for one in some if one})
        keys = {_key(one) for one in own if one}
        rows = {at for at, one in enumerate(own) if one and _key(one) not in known}
        people = {at for at in rows if (one := own[at]) and one.role == "user"}
        begin = range(max(_LOOKED_AT, len(own) // 4))
        companions = survey.cast.companions() if survey.named_after is not None else ()
        places: defaultdict[str | None, set[int]] = defaultdict(set)
        straight: set[int] = set()
        turned: set[int] = set()
        differ: set[int] = set()
        used = []
        for other, some in zip(others, tried, strict=True):
            found = {at for at in rows if (one := some[at]) and _key(one) in known}
            if self._is_turned(other):
                # The key of a row may be that of another one, with the same text.
                found = {at for at in found if (one := some[at]) and _key(one) not in keys}
                pairs = enumerate(zip(own, some, strict=True))
                differ |= {at for at, (one, two) in pairs if one and two and _key(one) != _key(two)}
            if _is_named_after(other.named_after, companions) and not _are_most(
                found & people, people, people.intersection(begin)
            ):
                found = set()  # another person's, who was asked the same
            (turned if self._is_turned(other) else straight).update(found)
            places[other.named_after] |= found
            used += [other] if found else []
        self._are_turned = _are_most(turned, rows - straight, differ.intersection(begin))
        place = max(places, key=lambda one: len(places[one]))
        if place != survey.named_after and _are_most(places[place], rows, {*begin[: len(own)]}):
            new = next(one for one in others if one.named_after == place)
            used = [new, *(one for one in used if one is not new)]
            self._of_new = 0
        self._found = used

    def outcomes(
        self, maker: RowsToRecords, rows: Iterator[tuple[int, TableRow | NotAMessageError]]
    ) -> Iterator[tuple[int, MessageRecord | Rejected]]:
        """Yield the outcomes of rows, with the ids and conversations that they are stored under.

        Args:
            maker: Makes the records by the answers of this import.
            rows: The rows.
        """
        makers = [maker, *(RowsToRecords(one) for one in self._found)]
        if len(makers) == 1:
            yield from maker.outcomes(rows)
            return
        copies = tee(rows, len(makers))
        together = zip(
            *(one.outcomes(copy) for one, copy in zip(makers, copies, strict=True)), strict=True
        )
        asked = stored_as = ""
        while some := list(islice(together, _ROWS)):
            records = [[_message(one) for _, one in outcomes] for outcomes in some]
            known = self._stored.times({_key(one) for those in records for one in those if one})
            taken = {_key(own) for own, *_ in records if own and _key(own) in known}
            for ((number, outcome), *_), (own, *others) in zip(some, records, strict=True):
                if own is None:
                    yield number, outcome
                    continue
                chosen = self._chosen(own, others, known, taken)
                is_answer = own.reply_to is not None and own.reply_to == asked
                asked, reply_to = own.message_id, stored_as if is_answer else own.reply_to
                stored_as = chosen.message_id
                yield (
                    number,
                    own._replace(
                        message_id=chosen.message_id,
                        conversation_id=chosen.conversation_id,
                        channel_id=chosen.channel_id,
                        reply_to=reply_to,
                    ),
                )

    def _chosen(
        self,
        own: MessageRecord,
        others: Sequence[MessageRecord | None],
        known: Mapping[_Key, str],
        taken: set[_Key],
    ) -> MessageRecord:
        """Return the record of a message by the answers by which it is stored.

        Args:
            own: The record by the answers of this import.
            others: The records by the other ones.
            known: The times of the stored messages.
            taken: The messages that others of the table are; grows.
        """
        if _key(own) in known:
            return own
        for survey, one in zip(self._found, others, strict=True):
            if one is None or _key(one) not in known or _key(one) in taken:
                continue
            time = known[_key(one)]
            is_corrected = _is_near(time, own.timestamp) and not _is_near(time, one.timestamp)
            if self._are_turned or is_corrected or not self._is_turned(survey):
                taken.add(_key(one))
                return one
        new = None if self._of_new is None else others[self._of_new]
        return new or own

    def _is_turned(self, other: TableSurvey) -> bool:
        return other.form.order != self._survey.form.order


def _are_most(found: set[int], rows: set[int], beginning: set[int]) -> bool:
    """Return whether most of some rows were found, or most of those at the beginning of a table.

    A table that grew much since it was corrected begins with what is stored.
    """
    is_most = 2 * len(found) >= len(rows) or 2 * len(found & beginning) >= len(beginning) > 0
    return bool(found) and is_most


def _sampled(survey: TableSurvey) -> list[MessageRecord | None]:
    """Return the messages of the rows of a sample, None for each that cannot be read."""
    rows = survey.sample[::-1] if survey.is_newest_first else survey.sample
    return [_message(one) for _, one in RowsToRecords(survey).outcomes(iter(rows))]


def _message(outcome: MessageRecord | Rejected) -> MessageRecord | None:
    return None if isinstance(outcome, Rejected) else outcome


def _key(message: MessageRecord) -> _Key:
    return message.conversation_id, message.message_id


def _is_near(first: str, second: str) -> bool:
    """Return whether two stored times differ no more than those in two zones."""
    try:
        apart = datetime.fromisoformat(first) - datetime.fromisoformat(second)
    except (ValueError, TypeError):  # another program wrote it
        return False
    return abs(apart) <= _BETWEEN_ZONES


def _others(survey: TableSurvey, stored: KnownMessages) -> Iterator[TableSurvey]:
    """Yield surveys with other answers, as far as messages may be stored by them.

    First those with the same order of day and month.
    """
    places = [survey.named_after, *_other_places(survey, stored)]
    turned = _ORDERS.get(survey.form.order or "") if survey.is_timed else None
    for order in (survey.form.order, turned):
        for place in places if order is not None or order == survey.form.order else ():
            if (order, place) != (survey.form.order, survey.named_after):
                other = copy.copy(survey)
                other.form = copy.copy(survey.form)
                other.form.order = order  # type: ignore[assignment]
                other.named_after = place
                yield other


def _other_places(survey: TableSurvey, stored: KnownMessages) -> Iterator[str]:
    """Yield the stored conversations that are named after people of a table."""
    if survey.named_after is None or {"conversation_id", "channel_id"} & survey.columns.keys():
        return
    for conversation in stored.conversations("table:"):
        is_named = _is_named_after(conversation, survey.cast.authors())
        if is_named and conversation != survey.named_after:
            yield conversation


def _is_named_after(conversation: str | None, authors: Iterable[str]) -> bool:
    names = (joined_id("table", storable(author)) for author in authors)
    return conversation is not None and any(
        conversation == name or conversation.startswith(f"{name} with ") for name in names
    )


def stored_under_others(survey: TableSurvey, stored: KnownMessages) -> str | None:
    """Return the conversation of another person that has all first messages of a table, or None.

    Args:
        survey: The survey with the answers of this import.
        stored: The messages that are stored.
    """
    if not survey.is_named_by_me or stored.times(_first(survey)):
        return None
    for conversation in stored.conversations(_DIRECT):
        me = conversation.removeprefix(_DIRECT)
        other = copy.copy(survey)
        other.options = replace(survey.options, me=None if me == ASSUMED_USER else me)
        ids = _first(other)
        if ids and len(stored.times(ids)) == len(ids):
            return conversation
    return None


def _first(survey: TableSurvey) -> set[_Key]:
    """Return the keys of the first messages of a table."""
    rows = islice(survey.table.rows(Reached()), _LOOKED_AT)
    outcomes = RowsToRecords(survey).outcomes(rows)
    return {_key(one) for _, one in outcomes if not isinstance(one, Rejected)}
