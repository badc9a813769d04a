"""Classify every message of a batch: new, known, or in conflict with a stored one."""

from __future__ import annotations

import hashlib
import itertools
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from aico_lab.messages.identity import (
    ORIGINAL,
    further,
    is_marked,
    original_id,
    qualified,
    stored_as,
)
from aico_lab.messages.metadata import ATTACHMENTS, EDITED_AT, MEDIA, MISSING_SINCE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aico_lab.adapters.libsql import Connection
    from aico_lab.importing.import_log import ImportLog
    from aico_lab.messages.records import MessageRecord

ROWS = 1_000  # per read, since contents may be long
REPLIES = 10_000  # per transaction

WHERE_GIVEN = ("user_id", "response_time", "reply_to", "metadata")
"""The fields that keep their values if an edit does not give them."""

# Cast to BLOB, since the driver panics on text of other programs that is not UTF-8.
_STORED = f"""
    SELECT
        message_id, CAST(conversation_id AS BLOB),
        iif(instr(metadata, '{ORIGINAL}'), CAST(metadata AS BLOB), NULL),
        instr(coalesce(metadata, ''), '"{MISSING_SINCE}"') > 0,
        iif(instr(metadata, '"{EDITED_AT}"'), CAST(metadata AS BLOB), NULL),
        CAST(role AS BLOB), CAST(timestamp AS BLOB), CAST(content AS BLOB)
    FROM messages WHERE message_id IN (SELECT value FROM json_each(?))
"""
_ASTRAY = """
    SELECT messages.id, messages.message_id, CAST(messages.conversation_id AS BLOB),
        messages.reply_to
    FROM messages JOIN messages AS target ON target.message_id = messages.reply_to
    WHERE messages.id > ? AND target.conversation_id <> messages.conversation_id
    ORDER BY messages.id LIMIT ?
"""

_DANGLING = """
    SELECT count(*) FROM messages AS reply
    WHERE id > ? AND reply_to IS NOT NULL
        AND NOT EXISTS (SELECT 1 FROM messages WHERE message_id = reply.reply_to)
"""


class _Stored(NamedTuple):
    """A stored message: its conversation, the id given by its source, and a digest.

    Attributes:
        is_missing: Whether a later export did not have the message.
        edited: The time of its last edit, or None.
    """

    conversation_id: str
    original: str
    is_missing: bool
    edited: datetime | None
    said: bytes


Planned = dict[str, _Stored]
"""The messages that a dry run would have stored, by id; some 300 bytes for each."""


class _Ids:
    """Messages by id.

    Attributes:
        stored: Messages of the database, as far as they were looked up; in a dry run also planned
            ones.
        new: Messages to insert.
    """

    def __init__(self, connection: Connection, planned: Mapping[str, _Stored]) -> None:
        self._connection = connection
        self._planned = planned
        self.stored: dict[str, _Stored] = {}
        self.new: dict[str, MessageRecord] = {}

    def look_up(self, message_ids: list[str]) -> None:
        """Read the stored messages with these ids."""
        groups = self._connection.fetch_batches(_STORED, [json.dumps(message_ids)], size=ROWS)
        for row in itertools.chain.from_iterable(groups):
            message_id, conversation, metadata, missing, edited, *said = row
            conversation_id = conversation.decode(errors="replace")
            kept = None if metadata is None else metadata.decode(errors="replace")
            original = original_id(message_id, conversation_id, kept)
            self.stored[message_id] = _Stored(
                conversation_id, original, bool(missing), _edited_at(edited), _digest(*said)
            )
        for message_id in self._planned.keys() & message_ids:
            self.stored[message_id] = self._planned[message_id]

    def find(self, conversation_id: str, original: str, wanted: str) -> tuple[str, bool]:
        """Return the id of a message and True, or a free id for it and False.

        Args:
            conversation_id: The conversation of the message.
            original: The id given by its source.
            wanted: The preferred id if it is free.
        """
        identity = (conversation_id, original)
        free = holder = None
        for message_id in (wanted, original, qualified(conversation_id, original)):
            holder = self._holder(message_id)
            if holder == identity:
                return message_id, True
            if holder is None:
                free = free or message_id
        more = further(conversation_id, original)
        while holder is not None:  # another message has the qualified id
            message_id = next(more)
            self.look_up([message_id])
            holder = self._holder(message_id)
            if holder == identity:
                return message_id, True
            free = free or (message_id if holder is None else None)
        return free or message_id, False

    def reply_to(self, conversation_id: str, target: str) -> str:
        """Return the id of the message that a reply in its conversation refers to as `target`.

        If the conversation has no such message, the target is returned unchanged: it may be in
        another conversation, or not be imported yet.
        """
        message_id, there = self.find(conversation_id, target, target)
        return message_id if there else target

    def _holder(self, message_id: str) -> tuple[str, str] | None:
        new = self.new.get(message_id)
        if new is not None:
            return new.conversation_id, original_id(message_id, new.conversation_id, new.metadata)
        stored = self.stored.get(message_id)
        return None if stored is None else (stored.conversation_id, stored.original)


class Classified:
    """The messages of a batch, divided into new ones, edits and conflicts.

    Attributes:
        new: Messages to insert.
        edits: Messages that replace the stored ones with the same `message_id`.
        conflicts: Indices, in the batch, of messages that differ from another one with the same
            conversation and id.
        qualified: The number of new messages whose id differs from that given by their source.
        elsewhere: Whether any message of the batch, new or not, has such an id.
        stored_ids: The `message_id` under which each message of the batch is stored.
        returned: The ids of stored messages that were missing from a later export, and are in this
            batch.
    """

    def __init__(
        self,
        connection: Connection,
        messages: list[MessageRecord],
        *,
        replace: bool,
        planned: Planned | None = None,
    ) -> None:
        """Classify the messages of a batch.

        Args:
            connection: The primary database.
            messages: The messages of the batch.
            replace: Whether a message replaces a stored one from which it differs.
            planned: In a dry run, the messages of the batches before.
        """
        self.conflicts: list[int] = []
        self.qualified = 0
        self.elsewhere = False
        self.stored_ids: list[str] = []
        self.returned: set[str] = set()
        self._replace = replace
        self._edits: dict[str, MessageRecord] = {}
        self._ids = _Ids(connection, {} if planned is None else planned)
        elsewhere = [qualified(one.conversation_id, one.message_id) for one in messages]
        self._look_up(messages, elsewhere)
        new, stored = self._ids.new, self._ids.stored
        for at, (message, other) in enumerate(zip(messages, elsewhere, strict=True)):
            message_id = message.message_id
            if (
                message_id in new
                or message_id in stored
                or other in new
                or other in stored
                or is_marked(message.metadata)
            ):
                message_id = self._classify(at, message)
            else:  # almost always
                new[message_id] = message
            self.stored_ids.append(message_id)
        self.new = [self._with_reply(message) for message in new.values()]
        self.edits = [self._with_reply(message) for message in self._edits.values()]

    def plan(self, planned: Planned) -> None:
        """Add the messages that would be stored if this were no dry run.

        Args:
            planned: The messages of the batches before; the messages of this one are added to it.
        """
        stored = self._ids.stored
        for message_id in self.returned:
            planned[message_id] = stored[message_id]._replace(is_missing=False)
        for message in (*self.new, *self.edits):
            message_id, kept = message.message_id, stored.get(message.message_id)
            planned[message_id] = _Stored(
                message.conversation_id,
                _original(message) if kept is None else kept.original,
                is_missing=False,
                edited=_edited_at(message.metadata)
                if kept is None or message.metadata is not None
                else kept.edited,
                said=_said(message),
            )

    def _look_up(self, messages: list[MessageRecord], elsewhere: list[str]) -> None:
        """Read the stored messages with ids that the batch's messages may get or reply to."""
        message_ids = [message.message_id for message in messages] + elsewhere
        for message in messages:
            named = [] if message.reply_to is None else [message.reply_to]
            if is_marked(message.metadata):
                named.append(_original(message))
            for name in named:
                message_ids += [name, qualified(message.conversation_id, name)]
        self._ids.look_up(message_ids)

    def _classify(self, at: int, message: MessageRecord) -> str:
        """Classify a message; return the id under which it is stored."""
        original = _original(message)
        message_id, there = self._ids.find(message.conversation_id, original, message.message_id)
        self.elsewhere |= message_id != original
        placed = stored_as(message, message_id, original)
        if not there:
            self._ids.new[message_id] = placed
            self.qualified += message_id != original
            return message_id
        new = self._ids.new.get(message_id)
        if new is None and self._ids.stored[message_id].is_missing:
            self.returned.add(message_id)
        other = new or self._edits.get(message_id)
        said = _said(other) if other else self._ids.stored[message_id].said
        if said == _said(message):
            return message_id
        if self._replace and _is_empty(message):
            return message_id
        edited = _edited_at(other.metadata) if other else self._ids.stored[message_id].edited
        if self._replace and _is_before(_edited_at(message.metadata), edited):
            return message_id  # an older export, from before the edit
        self.conflicts.append(at)
        if not self._replace:
            return message_id
        if message.metadata is None:  # the id in its conversation alone replaces no metadata
            placed = placed._replace(metadata=None)
        changed = _edited(other, placed) if other else placed
        (self._ids.new if new else self._edits)[message_id] = changed
        return message_id

    def _with_reply(self, message: MessageRecord) -> MessageRecord:
        if message.reply_to is None:
            return message
        target = self._ids.reply_to(message.conversation_id, message.reply_to)
        return message if target == message.reply_to else message._replace(reply_to=target)


def _is_empty(message: MessageRecord) -> bool:
    """Return whether a message has neither a text nor media: then it replaces no stored one.

    Nothing tells a text that was emptied from one that was lost.
    """
    if message.content:
        return False
    metadata = json.loads(message.metadata or "{}")
    return not (metadata.get(ATTACHMENTS) or metadata.get(MEDIA))


def _edited(older: MessageRecord, edit: MessageRecord) -> MessageRecord:
    """Return a message of the batch as a later one of the same batch edits it.

    `aico_lab.importing.importer` applies the same rules to stored messages.
    """
    kept = {name: getattr(older, name) for name in WHERE_GIVEN if getattr(edit, name) is None}
    if older.role == "user" != edit.role:  # the user of a message is not its companion's
        kept.pop("user_id", None)
    if edit.sentiment_score is None and edit.content == older.content:
        kept["sentiment_score"] = older.sentiment_score
        kept["sentiment_source"] = older.sentiment_source
    return edit._replace(channel_id=older.channel_id, **kept)


def count_dangling(connection: Connection, after: int = 0) -> int:
    """Return the number of replies to messages that are not stored.

    Args:
        connection: The primary database.
        after: The row id after which messages are counted.
    """
    [(count,)] = connection.fetch_all(_DANGLING, [after])
    return int(count)


def mend_replies(connection: Connection, log: ImportLog) -> None:
    """Correct replies that were imported before their target, to the id of the stored target.

    The target's id was free at that time, and another conversation may have used it since. A reply
    whose conversation has no such message stays unchanged.

    Args:
        connection: The primary database.
        log: The record of the import.
    """
    last: int | None = 0
    while last is not None:
        with connection.transaction():
            last = _mend_some(connection, last, log)


def _mend_some(connection: Connection, after: int, log: ImportLog) -> int | None:
    """Correct some replies; return the row id of the last one examined, or None if none is left."""
    astray = [
        (row_id, message_id, conversation_id.decode(errors="replace"), target)
        for row_id, message_id, conversation_id, target in connection.fetch_all(
            _ASTRAY, [after, REPLIES]
        )
    ]
    ids = _Ids(connection, {})
    ids.look_up([target for *_, target in astray])
    ids.look_up([qualified(conversation_id, target) for _, _, conversation_id, target in astray])
    found = [
        (ids.reply_to(conversation_id, target), message_id, target)
        for _, message_id, conversation_id, target in astray
    ]
    mended = [(own, message_id) for own, message_id, target in found if own != target]
    log.changing(message_id for _, message_id in mended)
    connection.execute_many("UPDATE messages SET reply_to = ? WHERE message_id = ?", mended)
    return astray[-1][0] if astray else None


def _edited_at(metadata: bytes | str | None) -> datetime | None:
    """Return the time of the last edit of a message by its metadata, or None."""
    try:
        time = datetime.fromisoformat(json.loads(metadata or "{}")[EDITED_AT])
    except (ValueError, TypeError, KeyError, RecursionError):  # other programs write there, too
        return None
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time


def _is_before(time: datetime | None, edited: datetime | None) -> bool:
    """Return whether a message was edited, and after the last edit of another version of it."""
    return edited is not None and (time is None or time < edited)


def _original(message: MessageRecord) -> str:
    return original_id(message.message_id, message.conversation_id, message.metadata)


def _said(message: MessageRecord) -> bytes:
    return _digest(message.role.encode(), message.timestamp.encode(), message.content.encode())


def _digest(role: bytes, timestamp: bytes, content: bytes) -> bytes:
    return hashlib.sha256(b"\0".join((role, timestamp, content))).digest()
