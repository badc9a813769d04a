"""Find messages that are stored under another id, since a product keeps them in two places.

AICO has a message in two memories, under two ids and at two times shortly after each other, and
either memory may be missing. So a message that is new by its id may be stored already.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from aico_lab.adapters.libsql import Connection
    from aico_lab.messages.records import Batch, FeedbackRecord, MessageRecord

APART: Final = timedelta(minutes=5)
"""The most time between the two copies of a message."""

# Cast to BLOB, since the driver panics on text of other programs that is not UTF-8.
_STORED: Final = """
    SELECT message_id, CAST(role AS BLOB), CAST(content AS BLOB), CAST(timestamp AS BLOB)
    FROM messages WHERE conversation_id = ?
"""


class Twins:
    """The messages stored before an import, one of which each new message may be a copy of."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._taken: set[str] = set()

    def as_stored(self, batch: Batch) -> Batch:
        """Return a batch whose messages have the ids and times of their stored copies.

        A copy has the same conversation, role and text, and is at most `APART` away.
        """
        stored = {
            name: self._stored(name) for name in {one.conversation_id for one in batch.messages}
        }
        known = {message_id for rows in stored.values() for message_id, *_ in rows}
        self._taken |= {one.message_id for one in batch.messages if one.message_id in known}
        copies: dict[tuple[str, bytes, bytes], list[tuple[str, str]]] = {}
        for name, rows in stored.items():
            for message_id, role, content, timestamp in rows:
                if message_id not in self._taken:
                    copy = (message_id, timestamp.decode(errors="replace"))
                    copies.setdefault((name, role, content), []).append(copy)
        names: dict[str, str] = {}
        messages = []
        for message in batch.messages:
            found = None if message.message_id in known else _nearest(message, copies)
            if found is not None:
                names[message.message_id] = found.message_id
            messages.append(found or message)
        self._taken |= {one.message_id for one in messages}
        feedback = [_renamed(event, names) for event in batch.feedback]
        return replace(batch, messages=messages, feedback=feedback) if names else batch

    def _stored(self, conversation_id: str) -> list[tuple[str, bytes, bytes, bytes]]:
        rows = self._connection.fetch_all(_STORED, [conversation_id])
        return [(row[0], row[1], row[2], row[3]) for row in rows]


def _nearest(
    message: MessageRecord, copies: dict[tuple[str, bytes, bytes], list[tuple[str, str]]]
) -> MessageRecord | None:
    """Return a message as its nearest copy is stored, and remove the copy; None if it has none."""
    key = (message.conversation_id, message.role.encode(), message.content.encode())
    near = []
    for message_id, timestamp in copies.get(key, []):
        try:
            gap = datetime.fromisoformat(timestamp) - datetime.fromisoformat(message.timestamp)
        except (ValueError, TypeError):  # another program wrote it
            continue
        if abs(gap) <= APART:
            near.append((abs(gap), message_id, timestamp))
    if not near:
        return None
    _, message_id, timestamp = min(near)
    copies[key].remove((message_id, timestamp))
    return message._replace(message_id=message_id, timestamp=timestamp)


def _renamed(event: FeedbackRecord, names: dict[str, str]) -> FeedbackRecord:
    """Return feedback on a message under the id of its stored copy."""
    own = event.message_id
    if own is None or own not in names:
        return event
    name = names[own]
    return event._replace(message_id=name, event_id=f"{name}{event.event_id.removeprefix(own)}")
