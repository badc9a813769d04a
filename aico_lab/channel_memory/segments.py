"""Segments: groups of a channel's messages that belong together."""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aico_lab.channel_memory.messages import (
    COLUMNS,
    check_limit,
    foreign_forms,
    from_json,
    from_moment,
    from_row,
    time_conditions,
    to_id,
    to_json,
    to_moment,
)
from aico_lab.channel_memory.rows import Row
from aico_lab.domain import values
from aico_lab.errors import ConstraintViolated, DuplicateId, InvalidEntity

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager
    from datetime import datetime

    from aico_lab.adapters import libsql
    from aico_lab.channel_memory.messages import Id, Message


@dataclass(frozen=True, slots=True)
class Segment(Row):
    """A group of a channel's messages that belong together.

    Attributes:
        segment_id: Unique among all segments.
        channel_id: The channel.
        started_at: The time of the first message, in UTC.
        ended_at: The time of the last message, in UTC.
        summary: A summary of the messages, if one was given.
        metadata: A JSON object.
    """

    segment_id: str
    channel_id: str
    started_at: datetime
    ended_at: datetime
    summary: str | None
    metadata: dict[str, Any]


class Segments(ABC):
    """The operations of a channel memory on segments."""

    @abstractmethod
    def get_connection(self) -> AbstractContextManager[libsql.Connection]:
        """Return a context manager that yields this thread's connection in a transaction."""

    @abstractmethod
    def read(self, query: str, parameters: Sequence[Any] = ()) -> list[libsql.Row]:
        """Run one query."""

    def create_conversation_segment(
        self,
        channel_id: Id,
        started_at: datetime | str,
        ended_at: datetime | str,
        *,
        segment_id: str | None = None,
        summary: str | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> str:
        """Create an empty segment of a channel.

        Args:
            channel_id: The channel.
            started_at: The time of the first message.
            ended_at: The time of the last message.
            segment_id: Unique among all segments; a new id, if None.
            summary: A summary of the messages.
            metadata: A JSON object.

        Returns:
            The segment's id.

        Raises:
            InvalidEntity: There is no such channel, or a field is out of range.
            DuplicateId: A segment with this id exists already.
        """
        start, end = to_moment(started_at), to_moment(ended_at)
        if end < start:
            raise InvalidEntity("A segment cannot end before it starts.")
        segment_id = segment_id or uuid.uuid4().hex
        details = to_json("metadata", metadata) if metadata else None
        with self.get_connection() as connection:
            if not connection.fetch_one(
                "SELECT 1 FROM channels WHERE channel_id = ?", [to_id(channel_id)]
            ):
                raise InvalidEntity("There is no such channel: store its messages first.")
            try:
                connection.execute(
                    "INSERT INTO conversation_segments "
                    "(segment_id, channel_id, started_at, ended_at, summary, metadata) "
                    "VALUES (?, ?, ?, ?, ?, ?)",
                    [segment_id, to_id(channel_id), start, end, summary, details],
                )
            except ConstraintViolated as taken:
                raise DuplicateId("A segment with this id exists already: use another.") from taken
        return segment_id

    def add_message_to_segment(
        self, segment_id: str, message_id: Id, position: int | None = None
    ) -> None:
        """Add a message to a segment.

        Args:
            segment_id: The segment.
            message_id: The message.
            position: The message's position in the segment, 0 or more; a message that is in the
                segment already moves there. If None, the message is appended, unless it is in the
                segment already.

        Raises:
            InvalidEntity: There is no such segment or message, or their channels differ.
            InvalidValue: The position is not a whole number, or negative.
        """
        if position is not None:
            values.whole_number("The position in a segment", position, 0)
        ids = [segment_id, to_id(message_id)]
        with self.get_connection() as connection:
            same_channel = connection.fetch_one(
                "SELECT s.channel_id = m.channel_id FROM conversation_segments AS s "
                "CROSS JOIN messages AS m WHERE s.segment_id = ? AND m.message_id = ?",
                ids,
            )
            if same_channel is None:
                raise InvalidEntity("There is no such segment or message: store it first.")
            if same_channel == (0,):
                raise InvalidEntity("A segment can only contain messages of its own channel.")
            if position is None:
                connection.execute(
                    "INSERT INTO segment_messages SELECT ?1, ?2, coalesce(max(position) + 1, 0) "
                    "FROM segment_messages WHERE segment_id = ?1 ON CONFLICT DO NOTHING",
                    ids,
                )
                return
            connection.execute(
                "INSERT INTO segment_messages VALUES (?, ?, ?) "
                "ON CONFLICT (segment_id, message_id) DO UPDATE SET position = excluded.position",
                [*ids, position],
            )

    def get_segment_messages(self, segment_id: str) -> list[Message]:
        """Return the messages of a segment, ordered by position, then by time."""
        rows = self.read(
            f"SELECT {COLUMNS} FROM segment_messages JOIN messages AS m USING (message_id) "
            "WHERE segment_id = ? ORDER BY position, m.timestamp, m.id",
            [segment_id],
        )
        return [from_row(row) for row in rows]

    def get_conversation_segments(
        self,
        channel_id: Id,
        limit: int | None = None,
        before: datetime | str | None = None,
        after: datetime | str | None = None,
    ) -> list[Segment]:
        """Return the segments of a channel, the latest first.

        Args:
            channel_id: The channel.
            limit: The maximum number of segments.
            before: Only segments that ended before this time.
            after: Only segments that started after this time.

        Raises:
            InvalidEntity: A time is malformed.
            InvalidValue: The limit is not a whole number, or is negative.
        """
        conditions = {"channel_id = ?": to_id(channel_id)} | time_conditions(
            {"ended_at < ?": before, "started_at > ?": after}
        )
        rows = self.read(
            "SELECT segment_id, channel_id, started_at, ended_at, summary, metadata "
            f"FROM conversation_segments WHERE {' AND '.join(conditions)} "
            "ORDER BY started_at DESC, segment_id DESC LIMIT ?",
            [*conditions.values(), check_limit(limit)],
        )
        with foreign_forms("conversation_segments"):
            return [
                Segment(id_, channel, from_moment(start), from_moment(end), said, from_json(more))
                for id_, channel, start, end, said, more in rows
            ]
