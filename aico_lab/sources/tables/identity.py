"""Find out with which answers the messages of a table without ids are stored.

The ids and the conversation of such messages depend on the companion, and on whether the day or the
month comes first. If one of these was answered wrongly and is corrected, each message is known by
the answers of its first import ever after, so that later ones update it.

They depend on the person too, but another person is never taken for a correction: participants of a
study may have answered the same questions on the same days.
"""

from __future__ import annotations

import copy
from collections import Counter, defaultdict
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import islice, tee
from typing import TYPE_CHECKING, Final, Protocol

from aico_lab.messages.context import ASSUMED_USER
from aico_lab.messages.metadata import TIMESTAMP_ESTIMATED
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

    def people(self, conversation: str) -> set[str]:
        """Return the ids of the users who wrote in a conversation."""

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
        sample = _Sample(survey, others, stored)
        places = sample.places()
        found = {
            one: there for one, there in sample.found.items() if there & places[one.named_after]
        }
        turned, straight = set[int](), sample.known
        for one, there in found.items():
            if self._is_turned(one):
                turned = turned | there
            else:
                straight = straight | there
        self._are_turned = sample.are_turned(turned, straight)
        order: str | None = survey.form.order
        if self._are_turned and len(turned) > len(sample.differ & straight):
            order = _ORDERS[order or ""]
        place = max(places, key=lambda one: len(places[one]))
        if not _are_most(places[place], sample.rows, sample.beginning):
            place = survey.named_after
        self._found = sorted(
            found, key=lambda one: (self._is_turned(one), one.named_after != place)
        )
        for one in others:
            if (one.form.order, one.named_after) == (order, place):
                self._found += [] if one in found else [one]
                self._of_new = self._found.index(one)

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
        return own if new is None or _key(new) in taken else new

    def _is_turned(self, other: TableSurvey) -> bool:
        return other.form.order != self._survey.form.order


class _Sample:
    """Rows from all over a table, and which of them are stored by which answers.

    Attributes:
        found: The rows that are stored by other answers and not by those of this import, by survey.
        known: The rows that are stored by the answers of this import.
        rows: The others.
        beginning: The rows at the beginning of the table.
        differ: The rows that are known by another day if day and month are exchanged.
    """

    def __init__(
        self, survey: TableSurvey, others: Sequence[TableSurvey], stored: KnownMessages
    ) -> None:
        """Read the rows.

        Args:
            survey: The survey with the answers of this import.
            others: The surveys with other ones.
            stored: The messages that are stored.
        """
        self._survey = survey
        own, *tried = [_sampled(one) for one in (survey, *others)]
        times = stored.times({_key(one) for some in (own, *tried) for one in some if one})
        keys = {_key(one) for one in own if one}
        self.known = {at for at, one in enumerate(own) if one and _key(one) in times}
        self.rows = {at for at, one in enumerate(own) if one} - self.known
        people = {at for at in self.rows if (one := own[at]) and one.role == "user"}
        self._people, self._sides = people, (people, self.rows - people)
        self._telling = _telling(own)
        self.beginning = set(range(max(_LOOKED_AT, len(own) // 4))[: len(own)])
        self.found: dict[TableSurvey, set[int]] = {}
        self.differ: set[int] = set()
        for other, some in zip(others, tried, strict=True):
            there = {at for at in self.rows if (one := some[at]) and _key(one) in times}
            if other.form.order != survey.form.order:
                # The key of a row may be that of another one, with the same text.
                alone = {at for at, one in enumerate(some) if one and _key(one) not in keys}
                there &= alone
                if other.named_after == survey.named_after:
                    self.differ = alone & (self.known | self.rows)
            self.found[other] = there

    def places(self) -> dict[str | None, set[int]]:
        """Return the conversations in which rows are stored by other answers, with these rows.

        Those of other people, who were asked the same, have none.
        """
        survey = self._survey
        places: defaultdict[str | None, set[int]] = defaultdict(set)
        for other, there in self.found.items():
            places[other.named_after] |= there
        companions = survey.cast.companions() if survey.named_after is not None else ()
        others = places.keys() - {survey.named_after, None}
        of_all = {one for one in others if _is_named_after(one, companions)}
        left = self._people - places[survey.named_after]
        for place in others - of_all:
            if not _are_together(places[place], self._sides):
                places[place] = set()
            left -= places[place]
        for place in of_all:
            if not _are_most(places[place] & left, left, left & self.beginning):
                places[place] = set()
        return places

    def are_turned(self, turned: set[int], straight: set[int]) -> bool:
        """Return whether rows that are found with day and month exchanged are stored so.

        Args:
            turned: These rows.
            straight: The rows that are stored in the order of this import.
        """
        differ = self.differ - straight
        sides = [side & differ for side in self._sides if side & differ]
        if _are_most(turned, differ, self.differ & self.beginning) and all(
            _are_most(turned & side, side, side & self.beginning) for side in sides
        ):
            return True
        telling = [side & self._telling for side in sides if side & self._telling]
        found = turned & self._telling & differ
        return _are_together(found, telling) and all(side & found for side in telling)


def _are_most(found: set[int], rows: set[int], beginning: set[int]) -> bool:
    """Return whether most of some rows were found, or most of those at the beginning of a table.

    A table that grew much since it was corrected begins with what is stored.
    """
    is_most = 2 * len(found) >= len(rows) or 2 * len(found & beginning) >= len(beginning) > 0
    return bool(found) and is_most


def _are_together(found: set[int], sides: Iterable[set[int]]) -> bool:
    """Return whether most rows of each side, from the first to the last one found, were found.

    What is stored of a table are rows one after the other; rows with equal texts lie anywhere.
    """
    if not found:
        return False
    stretch = range(min(found), max(found) + 1)
    return all(2 * len(side & found) >= len(side.intersection(stretch)) for side in sides)


def _telling(messages: Sequence[MessageRecord | None]) -> set[int]:
    """Return the places of messages that no other day is likely to have.

    These have a time of day, at which the same text is said on no other day of the sample.
    """
    said = [
        None if one is None else (one.role, one.user_id, one.content, one.timestamp[11:])
        for one in messages
    ]
    counts = Counter(said)
    return {
        at
        for at, one in enumerate(messages)
        if one and counts[said[at]] == 1 and f'"{TIMESTAMP_ESTIMATED}"' not in (one.metadata or "")
    }


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
    """Yield the stored conversations that are named after people of a table, and have some."""
    if survey.named_after is None or {"conversation_id", "channel_id"} & survey.columns.keys():
        return
    authors = survey.cast.authors()
    people = {survey.cast.spelled(one) for one in authors}
    for conversation in stored.conversations("table:"):
        if conversation == survey.named_after or not _is_named_after(conversation, authors):
            continue
        there = stored.people(conversation)
        if not there or "user_id" in survey.columns or there & people:
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
