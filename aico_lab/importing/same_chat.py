"""Find the stored conversation to which a file under another name, or in another form, belongs.

Where a product gives ids that no other message of it has, or times that are as good, they identify
a chat whatever its file is called, and wherever it begins. So an import whose messages are stored
in another conversation of the same format goes into that one. Where there are no ids, and a chat is
known by who takes part, it is the same one if most of its messages are stored.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from aico_lab.importing.places import BETWEEN_ZONES, later, writer_of
from aico_lab.messages.identity import digest
from aico_lab.sources.exports.engine.records import joined_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from aico_lab.adapters.libsql import Connection
    from aico_lab.importing.known_places import KnownPlaces
    from aico_lab.messages.records import Batch, FeedbackRecord, MessageRecord

_ROWS: Final = 10_000
_MINUTES: Final = len("2025-05-13T21:")
"""The position of the minutes in a stored time, which are the same in nearly all zones."""

# Cast to BLOB, since the driver panics on text of other programs that is not UTF-8.
_STORED: Final = """
    SELECT CAST(message_id AS BLOB), CAST(conversation_id AS BLOB), CAST(channel_id AS BLOB)
    FROM messages WHERE conversation_id >= ? AND conversation_id < ?
"""


_UNDER = """
    SELECT CAST(conversation_id AS BLOB), CAST(timestamp AS BLOB), CAST(role AS BLOB),
        CAST(content AS BLOB), CAST(metadata AS BLOB)
    FROM messages
    WHERE channel_id IN (SELECT value FROM json_each(?1)) AND timestamp BETWEEN ?2 AND ?3
        AND conversation_id = channel_id
"""


class ChatPlace(NamedTuple):
    """A conversation and its channel."""

    conversation_id: str
    channel_id: str


class SameChats:
    """The conversations of an import, each with the place where its messages are stored.

    A message that is stored in a third conversation stays there: where conversations are what lies
    between pauses, they differ once a message was deleted.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._places: dict[str, ChatPlace] = {}
        self._known: KnownPlaces | None = None
        self._formats: set[str] = set()
        self._elsewhere: dict[str, dict[int, ChatPlace]] = {}

    def as_stored(self, batch: Batch) -> Batch:
        """Return a batch whose messages are in the conversations that have them already.

        Args:
            batch: The batch; it has the `global_ids` of the conversations that begin in it.
        """
        channels = {one.conversation_id: one.channel_id for one in batch.messages}
        for name, ids in batch.global_ids.items():
            own = ChatPlace(name, channels.get(name, name))
            self._places[name] = self._place(own, ids)
        for name, others in batch.other_ids.items():
            messages = [one for one in batch.messages if one.conversation_id == name]
            if messages and name not in self._places:
                self._places[name] = self._place_under(name, others, messages)
        moved = {
            name: place
            for name, place in self._places.items()
            if name != place.conversation_id or name in self._elsewhere
        }
        if not moved:
            return batch
        unsound = {
            place.conversation_id for name, place in self._places.items() if name not in batch.whole
        }
        whole = {
            self._places[name].conversation_id if name in moved else name for name in batch.whole
        }
        messages = [_moved(one, self._place_of(one)) for one in batch.messages]
        return replace(
            batch,
            messages=messages,
            feedback=[_moved_feedback(one, self._place_of(one)) for one in batch.feedback],
            whole=frozenset(whole - unsound),
            derived=frozenset(
                moved_one.message_id
                for one, moved_one in zip(batch.messages, messages, strict=True)
                if one.message_id in batch.derived
            ),
        )

    def _place(self, own: ChatPlace, ids: Sequence[int]) -> ChatPlace:
        """Return the place that has most of some ids; the own one if none has any."""
        stored = self._read_stored(own.conversation_id.partition(":")[0])
        known = stored.of(ids)
        found = Counter(place for place in known if place is not None)
        most = max(found.values(), default=0)
        places = [place for place, count in found.items() if count == most]
        mine = [place for place in places if place.conversation_id == own.conversation_id]
        chosen = (mine or places)[0] if most else own
        if len(found) > 1:
            self._elsewhere[own.conversation_id] = {
                one: place
                for one, place in zip(ids, known, strict=True)
                if place is not None and place != chosen
            }
        new = (one for one, place in zip(ids, known, strict=True) if place is None)
        stored.add(new, chosen)  # they may be written with this batch
        return chosen

    def _read_stored(self, format_name: str) -> KnownPlaces:
        """Return the places of all stored messages, with those of a format."""
        if self._known is None:
            from aico_lab.importing.known_places import KnownPlaces  # only these formats need NumPy

            self._known = KnownPlaces()
        if format_name in self._formats:
            return self._known
        self._formats.add(format_name)
        rows = self._connection.fetch_batches(
            _STORED, [f"{format_name}:", f"{format_name};"], size=_ROWS
        )
        for message_id, *place in (row for some in rows for row in some):
            name, channel = (one.decode(errors="replace") for one in place)
            given = message_id.decode(errors="replace").removeprefix(f"{name}:")
            self._known.add([digest(given)], ChatPlace(name, channel))
        return self._known

    def _place_of(self, one: MessageRecord | FeedbackRecord) -> ChatPlace | None:
        """Return the place of a message or of feedback on one; None if it stays where it is."""
        name = one.conversation_id or ""
        elsewhere = self._elsewhere.get(name)
        if elsewhere and one.message_id is not None:
            place = elsewhere.get(digest(one.message_id.removeprefix(f"{name}:")))
            if place is not None:
                return place
        place = self._places.get(name)
        return None if place is None or place.conversation_id == name else place

    def _place_under(
        self, own: str, others: Iterable[str], messages: list[MessageRecord]
    ) -> ChatPlace:
        """Return the place, of the conversation's own and others, that has most of its messages.

        Of the stored ones of that time, or of those given, half must be the same; only the hour and
        the day may differ, as in another zone.
        """
        times = [one.timestamp for one in messages]
        rows = self._connection.fetch_batches(
            _UNDER,
            [
                json.dumps([own, *others]),
                later(min(times), -BETWEEN_ZONES),
                later(max(times), BETWEEN_ZONES),
            ],
            size=_ROWS,
        )
        stored: dict[str, Counter[tuple[object, ...]]] = {}
        for row in (row for some in rows for row in some):
            name, time, role, content, metadata = (
                "" if one is None else one.decode(errors="replace") for one in row
            )
            said = (time[_MINUTES:], writer_of(role, metadata), content)
            stored.setdefault(name, Counter())[said] += 1
        given: Counter[tuple[object, ...]] = Counter(
            (one.timestamp[_MINUTES:], writer_of(one.role, one.metadata), one.content)
            for one in messages
        )
        shared = {name: (there & given).total() for name, there in stored.items()}
        shared = {
            name: count
            for name, count in shared.items()
            if 2 * count >= min(stored[name].total(), len(messages))
        }
        found = max(shared, key=lambda name: (shared[name], name == own), default=own)
        return ChatPlace(found, found)


def _moved(message: MessageRecord, place: ChatPlace | None) -> MessageRecord:
    if place is None:
        return message
    old, reply = message.conversation_id, message.reply_to
    return message._replace(
        message_id=_id(message.message_id, old, place),
        conversation_id=place.conversation_id,
        channel_id=place.channel_id,
        reply_to=None if reply is None else _id(reply, old, place),
    )


def _moved_feedback(event: FeedbackRecord, place: ChatPlace | None) -> FeedbackRecord:
    if place is None or event.conversation_id is None or event.message_id is None:
        return event
    old = event.conversation_id
    return event._replace(
        event_id=_id(event.event_id, old, place),
        message_id=_id(event.message_id, old, place),
        conversation_id=place.conversation_id,
    )


def _id(name: str, old: str, place: ChatPlace) -> str:
    """Return the id that a message of the old conversation has in its place."""
    begin = f"{old}:"
    if not name.startswith(begin):
        return name
    return joined_id(place.conversation_id, name.removeprefix(begin))
