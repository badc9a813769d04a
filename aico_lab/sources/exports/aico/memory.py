"""The two memories of AICO: messages are in LMDB for a month, and in Chroma for good.

Both hold the same message, under two ids and at two times shortly after each other.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from aico_lab.adapters.lmdb_readonly import read_lmdb
from aico_lab.adapters.sealed import PrivateFolder
from aico_lab.messages.identity import COPIES_APART
from aico_lab.sources.exports.engine.fields import to_id, to_object, to_text, to_utc_time

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aico_lab.adapters.libsql import Connection
    from aico_lab.sources.exports.engine.opened import Member

WORKING: Final = "session_memory"
"""The database of working memory in the LMDB file."""

SEGMENTS: Final = "conversation_segments"
"""The collection of long-term memory in Chroma."""

_ROLES: Final = {
    "user": "user",
    "user_input": "user",
    "assistant": "assistant",
    "assistant_response": "assistant",
    "system": "system",
}
_KEY: Final = re.compile(r"(.*):(\d{4}-\d\d-\d\dT[\d:.]+)Z", re.DOTALL)
_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)
_OF_SEGMENTS: Final = (
    "FROM collections c JOIN segments s ON s.collection = c.id"
    " JOIN embeddings e ON e.segment_id = s.id JOIN embedding_metadata m ON m.id = e.id"
)


@dataclass(slots=True)
class Remembered:
    """A message of one of the memories.

    Attributes:
        message_id: The id of the message in working memory, or else in long-term memory.
        user: The id of the person, on both sides of the conversation.
        role: 'user', 'assistant' or 'system'; None if the memory does not say.
        content: The text.
        time: The time of the message in the same memory, or None.
        other_id: The id of the message in long-term memory, if both memories have it.
    """

    message_id: str | None
    user: str | None
    role: str | None
    content: str
    time: datetime | None
    other_id: str | None = None


def read_working(member: Member) -> Iterator[tuple[str, Remembered]]:
    """Yield the messages of working memory, each with the id of its conversation.

    Raises:
        StorageError: The file is damaged, or lmdb is not installed.
    """
    folder = PrivateFolder(member.size)
    try:
        copy = folder.path / "data.mdb"
        with member.open() as source, copy.open("wb") as target:
            shutil.copyfileobj(source, target)
        for key, value in read_lmdb(copy, WORKING):
            try:
                fields = to_object(json.loads(value))
            except (ValueError, RecursionError):
                fields = {}
            named = _KEY.fullmatch(key.decode(errors="replace"))
            by_key = (named[1], to_utc_time(named[2])) if named else ("unknown", None)
            conversation = to_id(fields.get("conversation_id")) or by_key[0]
            role = to_text(fields.get("role")) or to_text(fields.get("message_type"))
            yield (
                conversation,
                Remembered(
                    to_id(fields.get("message_id")),
                    to_id(fields.get("user_id")),
                    _ROLES.get(role.casefold()),
                    to_text(fields.get("content")),
                    to_utc_time(fields.get("timestamp")) or by_key[1],
                ),
            )
    finally:
        folder.remove()


def conversations_in(connection: Connection) -> list[str]:
    """Return the ids of the conversations in long-term memory, the oldest one first.

    Raises:
        StorageError: The database is damaged, or has other tables.
    """
    rows = connection.fetch_all(
        f"SELECT m.string_value {_OF_SEGMENTS} WHERE c.name = ? AND m.key = 'conversation_id'"
        " AND m.string_value IS NOT NULL GROUP BY m.string_value ORDER BY min(e.id)",
        [SEGMENTS],
    )
    return [name for name in map(to_id, (value for (value,) in rows)) if name is not None]


def read_segments(connection: Connection, conversation: str) -> list[Remembered]:
    """Return the messages of a conversation in long-term memory.

    Raises:
        StorageError: The database is damaged.
    """
    rows = connection.fetch_all(
        f"SELECT e.id, e.embedding_id, d.key, d.string_value {_OF_SEGMENTS}"
        " JOIN embedding_metadata d ON d.id = e.id"
        " WHERE c.name = ? AND m.key = 'conversation_id' AND m.string_value = ? ORDER BY e.id",
        [SEGMENTS, conversation],
    )
    found: dict[object, dict[str, object]] = {}
    for number, name, key, value in rows:
        found.setdefault(number, {"id": name})[to_text(key)] = value
    return [
        Remembered(
            to_id(fields["id"]),
            to_id(fields.get("user_id")),
            _ROLES.get(to_text(fields.get("role")).casefold()),
            to_text(fields.get("chroma:document")),
            to_utc_time(fields.get("timestamp")),
        )
        for fields in found.values()
    ]


def united(segments: list[Remembered], working: list[Remembered]) -> list[Remembered]:
    """Return the messages of both memories in order of time, without duplicates.

    A message in both memories has the id and time of working memory, which are the message's own.
    Working memory forgets: `aico_lab.importing.twins` finds the stored message all the same.
    """
    left: dict[tuple[str | None, str], list[Remembered]] = {}
    for one in working:
        left.setdefault((one.role, one.content.strip()), []).append(one)
    for segment in segments:
        copies = left.get((segment.role, segment.content.strip()), [])
        near = [one for one in copies if _gap(one, segment) <= COPIES_APART]
        if near:
            nearest = min(near, key=lambda one: _gap(one, segment))
            if nearest.message_id is not None:
                segment.message_id, segment.other_id = nearest.message_id, segment.message_id
            segment.time = nearest.time or segment.time
            copies.remove(nearest)
    alone = {id(one) for copies in left.values() for one in copies}
    every = [*segments, *(one for one in working if id(one) in alone)]
    last = _LONG_AGO
    order: dict[int, datetime] = {}
    for one in every:  # a message without a time stays behind its predecessor
        last = order[id(one)] = one.time or last
    return sorted(every, key=lambda one: order[id(one)])


def _gap(one: Remembered, other: Remembered) -> timedelta:
    if one.time is None or other.time is None:
        return timedelta()
    return abs(one.time - other.time)
