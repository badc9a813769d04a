"""Find the stored conversation to which a file under another name, or in another form, belongs.

Where a product gives ids that no other message of it has, or times that are as good, they identify
a chat whatever its file is called, and wherever it begins. So an import whose messages are stored
in another conversation of the same format goes into that one. Where there are no ids, and a chat is
known by who takes part, it is the same one if most of its messages are stored. Where other people's
exports have the same id of a chat, as that of a bot, the person belongs to the stored id; what was
stored without one stays where it is.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from aico_lab.importing.places import BETWEEN_ZONES, later, writer_of
from aico_lab.messages.identity import digest
from aico_lab.sources.exports.engine.records import DERIVED, joined_id

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

_AROUND: Final = """
    SELECT CAST(conversation_id AS BLOB), CAST(message_id AS BLOB), CAST(timestamp AS BLOB),
        CAST(role AS BLOB), CAST(content AS BLOB), CAST(metadata AS BLOB)
    FROM messages
    WHERE channel_id IN (SELECT value FROM json_each(?1)) AND timestamp BETWEEN ?2 AND ?3
        AND conversation_id IN (SELECT value FROM json_each(?4))
"""

_FIRST: Final = """
    SELECT role <> 'user' OR coalesce(messages.user_id IN (?3, 'user' || ?3), 0),
        CAST(messages.user_id AS BLOB), CAST(messages.metadata AS BLOB), CAST(users.name AS BLOB)
    FROM messages LEFT JOIN users USING (user_id)
    WHERE channel_id = ?1 AND conversation_id = ?2
    ORDER BY 1, messages.id LIMIT 1
"""
_WITH: Final = """
    SELECT DISTINCT CAST(conversation_id AS BLOB) FROM messages
    WHERE channel_id IN (
        SELECT channel_id FROM channels
        WHERE channel_id = ?1
            OR channel_id >= ?2 AND channel_id < ?3 AND substr(channel_id, -length(?4)) = ?4
    ) AND conversation_id >= ?2 AND conversation_id < ?3
        AND substr(conversation_id, -length(?4)) = ?4
"""


_APART: Final = (
    "A chat is stored as {place}: its beginning does not show whose it is, and what is stored of "
    "chats with that id are other messages. Name the person with --me."
)


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
        self._notes: list[str] = []

    def as_stored(self, batch: Batch) -> Batch:
        """Return a batch whose messages are in the conversations that have them already.

        Args:
            batch: The batch; it has the `global_ids` of the conversations that begin in it.
        """
        channels = {one.conversation_id: one.channel_id for one in batch.messages}
        for name in dict.fromkeys((*batch.persons, *batch.global_ids)):
            if name in self._places:
                continue
            own = ChatPlace(name, channels.get(name, name))
            ids = batch.global_ids.get(name)
            if name in batch.persons:
                if name not in channels and ids is None:
                    continue  # its messages come with the next batch
                own = self._place_of_person(own, batch, has_ids=ids is not None)
            self._places[name] = own if ids is None else self._place(name, own, ids)
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
        names = {
            one.message_id: moved_one.message_id
            for one, moved_one in zip(batch.messages, messages, strict=True)
        }
        notes, self._notes = self._notes, []
        return replace(
            batch,
            messages=messages,
            notes=[*batch.notes, *notes],
            channels=[
                one._replace(channel_id=moved[one.channel_id].channel_id)
                if one.channel_id in moved
                else one
                for one in batch.channels
            ],
            feedback=[_moved_feedback(one, self._place_of(one)) for one in batch.feedback],
            whole=frozenset(whole - unsound),
            also_there={
                place.conversation_id: frozenset(_id(one, name, place) for one in ids)
                for name, ids in batch.also_there.items()
                for place in [self._places.get(name, ChatPlace(name, name))]
            },
            derived=frozenset(names[one] for one in batch.derived if one in names),
            settled=frozenset(names[one] for one in batch.settled if one in names),
        )

    def _place_of_person(self, own: ChatPlace, batch: Batch, *, has_ids: bool) -> ChatPlace:
        """Return the place of a conversation of one person, whose id others may have, too.

        It is where this person wrote the first message of a user. Where nobody but the other side
        wrote, or the export does not show its person, only the same messages make it the same
        conversation: else people would overwrite each other's messages.

        Args:
            own: The place by the export alone.
            batch: The batch with its first messages.
            has_ids: Whether its messages have ids that no other message of the product has.
        """
        shared_id, person = batch.persons[own.conversation_id]
        name, _, rest = shared_id.partition(":")
        is_channel = own.channel_id == own.conversation_id
        if person and self._first_user(own, rest) is not None:
            return own
        names = {shared_id: None}
        shared = ChatPlace(shared_id, own.channel_id)
        # A channel of many chats is not searched for each of them.
        if is_channel or not person or self._first_user(shared, rest) is not None:
            bounds = [f"{name}:", f"{name};", f" with {rest}"]
            rows = self._connection.fetch_all(_WITH, [own.channel_id, *bounds])
            names |= dict.fromkeys(found.decode(errors="replace") for (found,) in rows)
        by_me = {joined_id(name, f"{one} with {rest}") for one in person}
        messages = [one for one in batch.messages if one.conversation_id == own.conversation_id]
        # The name of `--me` alone excludes no account, as their names need not be stored.
        is_told = len(person) == 1 and not has_ids and messages[0].message_id not in batch.derived
        stored, may_be = 0, []
        for found in names:
            place = ChatPlace(found, found if is_channel else own.channel_id)
            first = self._first_user(place, rest, by_name=len(person) == 1)
            if first is not None and not first.isdisjoint(person):
                return place
            stored += first is not None
            if first is not None and (is_told or not (person and first) or found in by_me):
                may_be.append(place)
        if has_ids and not person and stored == 1:  # `_place` knows others by their ids
            return may_be[0]
        same = self._same(may_be, messages, batch.derived)
        if same is not None or person or not may_be:
            return same or own
        free, number = shared_id, 1
        while free in {one.conversation_id for one in may_be}:
            number += 1
            free = joined_id(name, f"person {number} with {rest}")
        self._notes.append(_APART.format(place=free))
        return ChatPlace(free, free if is_channel else own.channel_id)

    def _first_user(
        self, place: ChatPlace, other_side: str, *, by_name: bool = False
    ) -> frozenset[str] | None:
        """Return the spellings of the user who wrote the first message that is stored there.

        They are empty if no user but the other side did; None means that there is no message.

        Args:
            place: The conversation.
            other_side: The id of the other side of the chat.
            by_name: Whether to return the name, too, which several people may have.
        """
        row = self._connection.fetch_one(
            _FIRST, [place.channel_id, place.conversation_id, other_side]
        )
        if row is None:
            return None
        is_other, *texts = row
        if is_other:
            return frozenset()
        user, metadata, name = (
            "" if one is None else one.decode(errors="replace") for one in texts
        )
        kind, author = writer_of("", metadata)
        spellings = (user, author if kind == "author" else "", name if by_name else "")
        return frozenset(filter(None, spellings))

    def _place(self, name: str, own: ChatPlace, ids: Sequence[int]) -> ChatPlace:
        """Return the place that has most of some ids; the own one if none has any."""
        stored = self._read_stored(own.conversation_id.partition(":")[0])
        known = stored.of(ids)
        found = Counter(place for place in known if place is not None)
        most = max(found.values(), default=0)
        places = [place for place, count in found.items() if count == most]
        mine = [place for place in places if place.conversation_id == own.conversation_id]
        chosen = (mine or places)[0] if most else own
        if len(found) > 1:
            self._elsewhere[name] = {
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
        """Return the place, of the conversation's own and others, that has most of its messages."""
        places = [ChatPlace(name, name) for name in (own, *others)]
        return (
            self._same(places, messages, frozenset(one.message_id for one in messages))
            or (places[0])
        )

    def _same(
        self, places: Sequence[ChatPlace], messages: list[MessageRecord], derived: frozenset[str]
    ) -> ChatPlace | None:
        """Return the place that has most of some messages, the first one of several; or None.

        Half of them must be the same: of the stored ones of that time, or of those given; if they
        have ids, of those with an id that both have. Only the hour and the day may differ, as in
        another zone.
        """
        if not places or not messages:
            return None
        times = [one.timestamp for one in messages]
        rows = self._connection.fetch_batches(
            _AROUND,
            [
                json.dumps([one.channel_id for one in places]),
                later(min(times), -BETWEEN_ZONES),
                later(max(times), BETWEEN_ZONES),
                json.dumps([one.conversation_id for one in places]),
            ],
            size=_ROWS,
        )
        stored: dict[str, Counter[tuple[object, ...]]] = {}
        for row in (row for some in rows for row in some):
            name, message_id, time, role, content, metadata = (
                "" if one is None else one.decode(errors="replace") for one in row
            )
            own = None if f":{DERIVED}" in message_id else message_id.removeprefix(f"{name}:")
            said = (own, time[_MINUTES:], writer_of(role, metadata), content)
            stored.setdefault(name, Counter())[said] += 1
        given: Counter[tuple[object, ...]] = Counter(
            (
                None
                if one.message_id in derived
                else one.message_id.removeprefix(f"{one.conversation_id}:"),
                one.timestamp[_MINUTES:],
                writer_of(one.role, one.metadata),
                one.content,
            )
            for one in messages
        )
        given_ids = {said[0] for said in given} - {None}
        most, best = 0, None
        for place in places:
            there = stored.get(place.conversation_id, Counter())
            count = (there & given).total()
            of = min(there.total(), len(messages))
            if given_ids:
                of = len(given_ids.intersection(said[0] for said in there))
            if count > most and 2 * count >= of:
                most, best = count, place
        return best


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
