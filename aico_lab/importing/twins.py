"""Recognise messages that are stored under another id because a product keeps them in two places.

AICO has a message in two memories, under two ids and at two times shortly after each other, and
either memory may be missing. So a message that is new by its id may be stored already.
"""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Final

from aico_lab.messages.identity import COPIES_APART

if TYPE_CHECKING:
    from aico_lab.adapters.libsql import Connection
    from aico_lab.messages.records import Batch, FeedbackRecord, MessageRecord

_ROWS: Final = 1_000  # per read, since contents may be long

# Cast to BLOB, since the driver panics on text of other programs that is not UTF-8. There is no
# index on conversations: one query reads those of the format, whose name all their ids begin with.
_STORED: Final = """
    SELECT message_id, CAST(conversation_id AS BLOB), CAST(role AS BLOB), CAST(content AS BLOB),
        CAST(timestamp AS BLOB)
    FROM messages WHERE substr(conversation_id, 1, ?) = ?
"""


class Twins:
    """The messages stored before an import, one of which each new message may be a copy of.

    They are read once, and only their ids, their times and a digest of the rest are kept.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._formats: set[str] = set()
        self._stored: dict[str, bytes] = {}  # digests by id
        self._copies: dict[bytes, dict[str, str]] = {}  # times by id, by digest; of those not taken
        self._names: dict[str, tuple[str, str]] = {}  # id and time of the copy, by the own id
        self._new: set[str] = set()

    def as_stored(self, batch: Batch) -> Batch:
        """Return a batch whose messages have the ids and times of their stored copies.

        A copy has the same conversation, role and text, and is at most `COPIES_APART` away.
        """
        for name in {_format(one.conversation_id) for one in batch.messages} - self._formats:
            self._read(name)
        for message in batch.messages:
            if message.message_id in self._stored:
                digest = self._stored[message.message_id]
                self._copies[digest].pop(message.message_id, None)
        messages = [self._named(message) for message in batch.messages]
        feedback = [self._renamed(event) for event in batch.feedback]
        decisions = [
            one._replace(message_id=self._names[one.message_id][0])
            if one.message_id in self._names
            else one
            for one in batch.decisions
        ]
        return replace(batch, messages=messages, feedback=feedback, decisions=decisions)

    def _read(self, format_name: str) -> None:
        """Read the stored messages of a format."""
        self._formats.add(format_name)
        rows = self._connection.fetch_batches(_STORED, [len(format_name), format_name], size=_ROWS)
        for message_id, conversation, role, content, timestamp in itertools.chain.from_iterable(
            rows
        ):
            digest = self._stored[message_id] = _digest(conversation, role, content)
            times = self._copies.setdefault(digest, {})
            times[message_id] = timestamp.decode(errors="replace")

    def _named(self, message: MessageRecord) -> MessageRecord:
        """Return a message with the id and time of its copy, which no other message then has."""
        own = message.message_id
        if own in self._stored or own in self._new:
            return message
        if own not in self._names:
            found = self._nearest(message)
            if found is None:
                self._new.add(own)
                return message
            self._names[own] = found
        message_id, timestamp = self._names[own]
        return message._replace(message_id=message_id, timestamp=timestamp)

    def _nearest(self, message: MessageRecord) -> tuple[str, str] | None:
        """Remove the nearest copy of a message; return its id and time, or None without one."""
        said = (message.conversation_id, message.role, message.content)
        copies = self._copies.get(_digest(*(one.encode() for one in said)), {})
        near = []
        for message_id, timestamp in copies.items():
            try:
                gap = datetime.fromisoformat(timestamp) - datetime.fromisoformat(message.timestamp)
            except (ValueError, TypeError):  # another program wrote it
                continue
            if abs(gap) <= COPIES_APART:
                near.append((abs(gap), message_id, timestamp))
        if not near:
            return None
        _, message_id, timestamp = min(near)
        del copies[message_id]
        return message_id, timestamp

    def _renamed(self, event: FeedbackRecord) -> FeedbackRecord:
        """Return feedback on a message under the id of its stored copy."""
        own = event.message_id
        if own is None or own not in self._names:
            return event
        name, _ = self._names[own]
        return event._replace(message_id=name, event_id=f"{name}{event.event_id.removeprefix(own)}")


def _format(conversation_id: str) -> str:
    """Return the beginning of a conversation's id that names its format."""
    return "".join(conversation_id.partition(":")[:2])


def _digest(conversation: bytes, role: bytes, content: bytes) -> bytes:
    said = b"\0".join((conversation, role, content))
    return hashlib.blake2b(said, digest_size=16).digest()
