"""Recognise messages whose source has no ids by their place, although their text was edited.

The id of such a message is derived from its author, time and text, so an edited one has another
id. Its place in the conversation stays: the messages that one author wrote at one time are compared
with those that are stored, in order, as a diff compares lines. A text that takes the place of a
stored one is an edit of it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict
from dataclasses import replace
from datetime import datetime, timedelta
from difflib import SequenceMatcher
from functools import cached_property
from typing import TYPE_CHECKING, Final, NamedTuple

from aico_lab.messages.metadata import EDITED_AT
from aico_lab.sources.exports.engine.conversation import EDITED
from aico_lab.sources.exports.engine.records import AUTHOR, DERIVED, joined_id

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from aico_lab.adapters.libsql import Connection
    from aico_lab.importing.known_places import KnownIds
    from aico_lab.messages.records import Batch, MessageRecord

_ROWS: Final = 10_000
BETWEEN_ZONES: Final = timedelta(hours=27)
"""More than any two time zones differ: an earlier import may have read times in another zone."""

_BETWEEN_OFFSETS: Final = timedelta(minutes=15)
"""The least time between two zones, of which all others are multiples."""

_YEAR: Final = timedelta(days=366)
_CLOCKS: Final = (timedelta(), timedelta(hours=1), timedelta(hours=-1))
"""The distances by which two zones may differ more or less after a change of clocks."""

_MOST: Final = 1_000_000
"""The maximum number of pairs of messages at one time that are compared; among more pairs, the
equal ones at the beginning and the end are left out."""

_FEW: Final = 10_000
"""The maximum number of pairs of messages whose texts are compared for similarity."""

_AT_END, _BETWEEN, _GONE, _MARKED, _UNMARKED, _UNLIKE = 0.25, 2.0, 2.0, 1.0, 1.5, 0.5 - 2**-10
"""The costs, in an alignment, of a message that is new at the end, new between others, gone, edited
with a mark, edited without one, and, in addition, quite unlike its earlier text. So a text that
takes the place of another is an edit of it, and new messages are the last ones if possible."""

_EARLIER: Final = 0.125
"""The cost of taking a message for the earlier text, by whose id the stored one is known."""

_SIMILAR: Final = 0.6
"""The minimum similarity of two texts of which the one without a mark of an edit is the earlier."""

_COMPARED: Final = 500
"""The number of characters of a text that are compared."""

# Cast to BLOB, since the driver panics on text of other programs that is not UTF-8.
_STORED: Final = f"""
    SELECT CAST(message_id AS BLOB), CAST(conversation_id AS BLOB), CAST(timestamp AS BLOB),
        CAST(role AS BLOB), CAST(content AS BLOB), CAST(metadata AS BLOB)
    FROM messages
    WHERE channel_id IN (SELECT value FROM json_each(?1)) AND timestamp BETWEEN ?2 AND ?3
        AND conversation_id IN (SELECT value FROM json_each(?4))
        AND instr(message_id, ':{DERIVED}')
    ORDER BY timestamp, id"""


_NAMED: Final = f"""
    SELECT CAST(message_id AS BLOB), CAST(conversation_id AS BLOB), CAST(timestamp AS BLOB),
        CAST(role AS BLOB), CAST(content AS BLOB), CAST(metadata AS BLOB)
    FROM messages
    WHERE channel_id IN (SELECT value FROM json_each(?1))
        AND timestamp IN (SELECT value FROM json_each(?2)) AND NOT instr(message_id, ':{DERIVED}')
    ORDER BY timestamp, id"""


class _Stored(NamedTuple):
    """A stored message with a derived id; its number counts the stored ones in their order."""

    message_id: str
    time: str
    writer: tuple[str, str]
    content: str
    is_edited: bool
    number: int

    @property
    def said(self) -> tuple[object, ...]:
        """The text with its writer, and its minute in an hour."""
        return _said(self.writer, self.time, self.content)


_Slot = tuple[str, tuple[str, str], str]
"""A conversation, the writer of messages in it, and their time."""


class Places:
    """The messages of an import whose ids are derived, and the stored ones in their places."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @cached_property
    def _taken(self) -> KnownIds:
        """The ids that messages of this import have by now."""
        from aico_lab.importing.known_places import KnownIds  # only these formats need NumPy

        return KnownIds()

    def as_stored(self, batch: Batch) -> Batch:
        """Return a batch in which messages that are stored, also as edited, have their stored ids.

        A message without the mark of an edit does not replace one with it: it is of an older
        export, and gets the stored text.
        """
        batch = self._with_lost_ids(batch)
        slots: dict[_Slot, list[int]] = defaultdict(list)
        for at, message in enumerate(batch.messages):
            if message.message_id in batch.derived:
                place = (message.conversation_id, writer_of(message.role, message.metadata))
                slots[*place, message.timestamp].append(at)
        if not slots:
            return batch
        messages = list(batch.messages)
        around = _YEAR if batch.dates_differ else BETWEEN_ZONES
        stored = self._stored(messages, slots, around)
        ids = {one.message_id for there in stored.values() for one in there}
        own = {messages[at].message_id for places in slots.values() for at in places}
        taken = self._taken.among(ids | own)
        pairs: dict[tuple[str, str], dict[int, _Stored | None]] = defaultdict(dict)
        for slot, places in slots.items():
            there = [one for one in stored.get(slot, ()) if one.message_id not in taken]
            given = [messages[at] for at in places]
            pairs[slot[0], slot[2]].update(
                zip(places, _paired(there, given, batch.settled), strict=True)
            )
        for found in pairs.values():
            for at, one in _in_order(messages, found):
                message = messages[at]
                if one is not None:
                    messages[at] = _version(message, one)
                elif message.message_id in ids or message.message_id in taken:
                    messages[at] = message._replace(message_id=self._free(message, ids | taken))
                taken.add(messages[at].message_id)
        self._taken.add(messages[at].message_id for places in slots.values() for at in places)
        names = {
            old.message_id: new.message_id
            for old, new in zip(batch.messages, messages, strict=True)
            if old.message_id != new.message_id
        }
        feedback = [
            event
            if event.message_id not in names
            else event._replace(
                message_id=names[event.message_id],
                event_id=f"{names[event.message_id]}{event.event_id[len(event.message_id) :]}",
            )
            for event in batch.feedback
        ]
        return replace(batch, messages=messages, feedback=feedback)

    def _with_lost_ids(self, batch: Batch) -> Batch:
        """Return a batch in which messages that lost their ids by damage have the stored ones.

        They are in conversations whose other messages have ids, and known by author, time and text.
        """
        have = {
            one.conversation_id for one in batch.messages if one.message_id not in batch.derived
        }
        lost: dict[tuple[object, ...], int] = {}
        for at, one in enumerate(batch.messages):
            if one.conversation_id in have and one.message_id in batch.derived:
                who = writer_of(one.role, one.metadata)
                lost.setdefault((one.conversation_id, who, one.timestamp, one.content), at)
        if not lost:
            return batch
        messages = list(batch.messages)
        own = {one.message_id for one in messages}
        channels = {messages[at].channel_id for at in lost.values()}
        times = {messages[at].timestamp for at in lost.values()}
        rows = self._connection.fetch_all(
            _NAMED, [json.dumps(sorted(channels)), json.dumps(sorted(times))]
        )
        for row in rows:
            message_id, name, time, role, content, metadata = (
                "" if one is None else one.decode(errors="replace") for one in row
            )
            found = lost.get((name, writer_of(role, metadata), time, content))
            if found is not None and message_id not in own:
                messages[found] = messages[found]._replace(message_id=message_id)
                own.add(message_id)
        return replace(batch, messages=messages)

    def _stored(
        self, messages: list[MessageRecord], slots: dict[_Slot, list[int]], around: timedelta
    ) -> dict[_Slot, list[_Stored]]:
        """Return the stored messages by slot, with their times as this import reads them.

        Args:
            messages: The messages of the batch.
            slots: Their places by slot.
            around: The time before the first and after the last message to look at.
        """
        times: dict[str, dict[object, str]] = defaultdict(dict)
        channels = set()
        for (conversation, writer, time), places in slots.items():
            known = times[conversation]
            for message in map(messages.__getitem__, places):
                known[message.message_id] = time
                known[writer, time, message.content] = time
                said = _said(writer, time, message.content)
                known[said] = time if known.get(said, time) == time else ""  # it is not clear
                channels.add(message.channel_id)
        rows = self._connection.fetch_batches(
            _STORED,
            [
                json.dumps(sorted(channels)),
                later(min(time for *_, time in slots), -around),
                later(max(time for *_, time in slots), around),
                json.dumps(sorted(times)),
            ],
            size=_ROWS,
        )
        found: dict[str, list[_Stored]] = defaultdict(list)
        for number, row in enumerate(row for some in rows for row in some):
            message_id, name, time, role, content, metadata = (
                "" if one is None else one.decode(errors="replace") for one in row
            )
            writer = writer_of(role, metadata)
            found[name].append(
                _Stored(message_id, time, writer, content, _is_edited(metadata), number)
            )
        ids = {one.message_id for those in found.values() for one in those}
        new: dict[str, set[tuple[tuple[str, str], str]]] = defaultdict(set)
        for (name, writer, time), places in slots.items():
            if any(messages[at].message_id not in ids for at in places):
                new[name].add((writer, time))
        by_slot: dict[_Slot, list[_Stored]] = defaultdict(list)
        for name, those in found.items():
            for one, time in zip(those, _as_read(those, times[name], new[name]), strict=True):
                by_slot[name, one.writer, time].append(one)
        return by_slot

    def _free(self, message: MessageRecord, ids: set[str]) -> str:
        """Return an id for a new message whose own id a message with another text has by now."""
        name = message.message_id
        while name in ids or self._taken.among([name]):
            own = hashlib.sha256(name.encode()).hexdigest()[:32]
            name = joined_id(message.conversation_id, f"{DERIVED}{own}")
        return name


def _as_read(
    stored: Sequence[_Stored],
    times: dict[object, str],
    new: Collection[tuple[tuple[str, str], str]],
) -> Iterator[str]:
    """Yield the times of stored messages as an import in another zone reads them.

    Each message that is not known by its id is as far from its stored time as the one before it
    that is known. If none is, as in a chat that is stored under another id, they are known by what
    was said, and when or at which minute. In another zone the clocks may have changed between the
    two messages, and where day and month are read the other way round, every distance differs; so
    there a message is looked for in the places of new ones, first by what was said.

    Args:
        stored: The stored messages of a conversation, in the order of their times.
        times: The times of the given messages by id, and by `_Stored.said`.
        new: The writers and times of given messages that are not known by their ids.
    """
    found = [times.get(one.message_id) for one in stored]
    if not any(found):
        found = [
            times.get((one.writer, one.time, one.content)) or times.get(one.said) for one in stored
        ]
    shifts = [_between(one.time, known) for one, known in zip(stored, found, strict=True) if known]
    shift = next((one for one in shifts if not one % _BETWEEN_OFFSETS), timedelta())
    for one, known in zip(stored, found, strict=True):
        if known:
            apart = _between(one.time, known)
            shift = shift if apart % _BETWEEN_OFFSETS else apart  # not that of another swipe
            yield known
        elif not any(shifts):
            yield one.time
        else:
            moved = later(one.time, shift)
            near = (later(time, by) for time in (moved, _turned(one.time)) for by in _CLOCKS)
            likely = (times.get(one.said) or moved, *near)
            yield next((time for time in likely if (one.writer, time) in new), moved)


def _paired(
    stored: Sequence[_Stored], given: Sequence[MessageRecord], settled: Collection[str]
) -> list[_Stored | None]:
    """Return for each message of a slot the stored message that it is, or None if it is new.

    Args:
        stored: The stored messages.
        given: The messages.
        settled: The ids of messages that can no longer be edited: without the mark of an edit, they
            are no earlier version of an edited one.
    """
    if len(stored) == len(given) == 1 and not (
        stored[0].is_edited and given[0].message_id in settled
    ):
        return list(stored)  # however unlike, as an older export has the earlier text
    known = {one.message_id: one for one in stored}
    same = [known.get(message.message_id) for message in given]
    if all(
        one is not None and one.content == message.content
        for one, message in zip(same, given, strict=True)
    ):
        return same
    found: list[_Stored | None] = [None] * len(given)
    left = dict(enumerate(stored))
    for at, place in _aligned(stored, given):
        found[place] = left.pop(at)
    moved: dict[str, list[_Stored]] = defaultdict(list)
    for one in reversed(left.values()):
        moved[one.content].append(one)
    for place, message in enumerate(given):
        if found[place] is None and moved.get(message.content):
            found[place] = moved[message.content].pop()
    return found


def _in_order(
    messages: Sequence[MessageRecord], found: dict[int, _Stored | None]
) -> list[tuple[int, _Stored | None]]:
    """Return the messages of one time with the stored ones that they are, in their order.

    A text without the mark of an edit that comes after a message which is stored behind its place
    is a new one: what was there is deleted.
    """
    last = -1
    pairs = []
    for at, one in sorted(found.items()):
        message, known = messages[at], one
        if known is not None and _is_same(known, message):
            last = known.number
        elif known is not None and known.number < last and not _is_edited(message.metadata):
            known = known if known.message_id == message.message_id else None
        pairs.append((at, known))
    return pairs


def _aligned(
    stored: Sequence[_Stored], given: Sequence[MessageRecord]
) -> Iterator[tuple[int, int]]:
    """Yield the pairs of places at which both sequences have the same message, perhaps edited.

    Of all ways to make the given messages from the stored ones, it is the one that costs least.
    """
    begin = 0
    while begin < min(len(stored), len(given)) and _is_same(stored[begin], given[begin]):
        yield begin, begin
        begin += 1
    end = 0
    if (len(stored) - begin) * (len(given) - begin) > _MOST:  # else the costs decide
        while end < min(len(stored), len(given)) - begin and _is_same(stored[~end], given[~end]):
            end += 1
            yield len(stored) - end, len(given) - end
    old, new = stored[begin : len(stored) - end], given[begin : len(given) - end]
    if not old or len(old) * len(new) > _MOST:
        return
    is_few = len(old) * len(new) <= _FEW
    costs = [[place * _BETWEEN for place in range(len(new) + 1)]]
    pairs: list[list[float]] = []
    for number, one in enumerate(old, 1):
        added = _AT_END if number == len(old) else _BETWEEN
        above, row = costs[-1], [number * _GONE]
        pairs.append([_cost(one, message, is_few=is_few) for message in new])
        for place, cost in enumerate(pairs[-1]):
            row.append(min(above[place] + cost, above[place + 1] + _GONE, row[place] + added))
        costs.append(row)
    at, place = len(old), len(new)
    while at and place:
        added = _AT_END if at == len(old) else _BETWEEN
        cost = costs[at][place]
        if cost == costs[at - 1][place - 1] + pairs[at - 1][place - 1]:
            at, place = at - 1, place - 1
            yield begin + at, begin + place
        elif cost == costs[at][place - 1] + added:
            place -= 1
        else:
            at -= 1


def _is_same(stored: _Stored, message: MessageRecord) -> bool:
    return stored.content == message.content


def _cost(stored: _Stored, message: MessageRecord, *, is_few: bool) -> float:
    """Return the cost of taking a message for a stored one: 0 for the same text.

    Args:
        stored: The stored message.
        message: The message.
        is_few: Whether texts may be compared, which takes long.
    """
    if _is_same(stored, message):
        return 0.0
    if stored.message_id == message.message_id:
        return _EARLIER
    is_edited = _is_edited(message.metadata)
    likeness = _likeness(stored, message) if is_few else 0.0
    if stored.is_edited and not is_edited and likeness < _SIMILAR:
        return math.inf
    return (_MARKED if is_edited else _UNMARKED) + (1 - likeness) * _UNLIKE


def _likeness(stored: _Stored, message: MessageRecord) -> float:
    texts = stored.content[:_COMPARED], message.content[:_COMPARED]
    return SequenceMatcher(None, *texts, autojunk=False).ratio()


def _version(message: MessageRecord, stored: _Stored) -> MessageRecord:
    """Return a message under its stored id, and with the stored text if that is the later one."""
    if stored.is_edited and message.content != stored.content and not _is_edited(message.metadata):
        return message._replace(message_id=stored.message_id, content=stored.content, metadata=None)
    return message._replace(message_id=stored.message_id)


def writer_of(role: str, metadata: str | None) -> tuple[str, str]:
    """Return a key that tells the writers of a conversation apart, whoever the companion is.

    Args:
        role: The role of the message, the key if its metadata have no author.
        metadata: The metadata of the message, as JSON.
    """
    author = _kept(metadata).get(AUTHOR)
    return ("author", author) if isinstance(author, str) else ("role", role)


def _said(writer: tuple[str, str], time: str, content: str) -> tuple[object, ...]:
    return writer, time[14:], content


def _is_edited(metadata: str | None) -> bool:
    kept = _kept(metadata)
    return bool(kept.get(EDITED) or kept.get(EDITED_AT))


def _kept(metadata: str | None) -> dict[str, object]:
    try:
        kept = json.loads(metadata or "{}")
    except (ValueError, RecursionError):  # other programs write there, too
        return {}
    return kept if isinstance(kept, dict) else {}


def _between(first: str, second: str) -> timedelta:
    try:
        return datetime.fromisoformat(second) - datetime.fromisoformat(first)
    except (ValueError, TypeError):  # another program wrote it
        return timedelta()


def _turned(time: str) -> str:
    """Return a stored time with the numbers of day and month exchanged."""
    return f"{time[:5]}{time[8:10]}-{time[5:7]}{time[10:]}"


def later(time: str, by: timedelta) -> str:
    """Return a stored time, moved by a span, as the database stores it."""
    try:
        moved = datetime.fromisoformat(time) + by
    except (ValueError, OverflowError):
        return time
    return f"{moved.replace(tzinfo=None).isoformat(timespec='microseconds')}Z"
