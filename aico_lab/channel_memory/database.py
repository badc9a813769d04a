"""Keep what is said in channels, safely from any number of threads.

Each thread has a connection of its own to one libSQL file, in the core schemas of the lab.
"""

from __future__ import annotations

import json
import uuid
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from aico_lab.adapters.libsql import LibSQLAdapter
from aico_lab.channel_memory.connections import ThreadConnections
from aico_lab.channel_memory.messages import (
    COLUMNS,
    check_message,
    from_row,
    to_batch,
    to_id,
    to_json,
    to_moment,
)
from aico_lab.channel_memory.users import UserManager
from aico_lab.errors import (
    ConstraintViolated,
    DuplicateId,
    InvalidEntity,
    InvalidValue,
)
from aico_lab.home import os_errors, private_files
from aico_lab.importer import import_batches
from aico_lab.schema.core import CORE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from datetime import datetime

    from aico_lab.adapters.libsql import Connection, Row
    from aico_lab.channel_memory.messages import Id, Message


class DatabaseManager:
    """A channel memory in one libSQL file; any thread may use it.

    ::

        with DatabaseManager("memory/channels.db", key) as memory:
            memory.store_message("m1", "general", "ada", "Good morning!", datetime.now())
            latest = memory.get_messages("general", limit=50)

    It is for threads; a process that was forked from this one opens its own.
    """

    def __init__(self, db_path: str | Path, encryption_key: str | None = None) -> None:
        """Open the file, or make it together with the folders above it.

        Args:
            db_path: The database's file; that of a lab will do.
            encryption_key: 32 characters, or None for a database that is not encrypted.

        Raises:
            HomeNotWritable: Its folder cannot be made.
            NotADatabase: The file is something else, or the key is not its key.
            SchemaTooNew: A later version of this program made it.
        """
        # Absolute, since connections are opened later too, and a program may change its folder.
        self.path = Path(db_path).expanduser().absolute()
        self._connections = ThreadConnections(LibSQLAdapter(self.path, encryption_key))
        with os_errors(self.path.parent), private_files():
            self.path.parent.mkdir(parents=True, exist_ok=True)
        self._initialize_database()

    def _initialize_database(self) -> None:
        try:
            CORE.apply_core_schemas(self._connections.mine())
        except BaseException:
            self.close()
            raise

    @cached_property
    def user_manager(self) -> UserManager:
        """The people of the channels; made when first asked for."""
        return UserManager(self._connections)

    def get_connection(self) -> AbstractContextManager[Connection]:
        """Give this thread's connection, within a transaction.

        What happens inside is committed at its end, or undone when an exception leaves. It nests:
        an inner one, or a method of this object called inside, is part of the outer one. It holds
        the database's write lock, so keep it short, and do not await inside it.

        Raises:
            ConnectionIsClosed: The manager was closed.
            DatabaseLocked: Another thread, or another process, kept writing for longer than 30
                seconds; who has waited for a thread waits anew for a process.
        """
        return self._connections.transaction()

    def read(self, query: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """Run one query on this thread's connection, without waiting for those who write.

        Raises:
            ConnectionIsClosed: The manager was closed.
        """
        return self._connections.read(query, parameters)

    def store_message(
        self,
        message_id: Id,
        channel_id: Id,
        user_id: Id | None,
        content: str,
        timestamp: datetime | str,
        *,
        role: str = "user",
        conversation_id: Id | None = None,
        sentiment_score: float | None = None,
        response_time: float | None = None,
        reply_to: Id | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Add one message; its channel and its author are made where they are new.

        Args:
            message_id: Unique among all messages.
            channel_id: Where it was said.
            user_id: Who said it; None only for the role `system`.
            content: The text.
            timestamp: When; a naive datetime is local time, text without a zone UTC.
            role: `user`, `assistant` or `system`.
            conversation_id: The thread of talk within the channel; if None, the channel's id.
            sentiment_score: -1 to 1; VADER's, if None, of an English text.
            response_time: Seconds since what it answers.
            reply_to: The id of the message that it answers.
            metadata: Anything that JSON can hold.

        Raises:
            InvalidEntity: A field has the wrong type or is out of range.
            TextTooLong: The content has more than 1,000,000 characters.
            DuplicateId: A message with this id is stored already.
        """
        fields = {name: value for name, value in locals().items() if name != "self"}
        self.add_messages([fields])

    def add_messages(self, messages: Iterable[Mapping[str, Any]]) -> None:
        """Add all of these messages, or none.

        Args:
            messages: Each with the arguments of `store_message`, by name.

        Raises:
            InvalidEntity: A field is missing or unknown, has the wrong type or is out of range.
            TextTooLong: A content has more than 1,000,000 characters.
            DuplicateId: A message with one of these ids is stored already, or two have the same.
        """
        records = [check_message(fields) for fields in messages]
        if not records:
            return
        with self.get_connection() as connection:
            result = import_batches(connection, [to_batch(records)])
            if taken := result.known + result.conflicts + result.qualified:
                raise DuplicateId(
                    f"{taken} of {result.read} messages have an id that is taken, so none "
                    "was stored: leave them out."
                )

    def get_messages(
        self,
        channel_id: Id | None = None,
        *,
        start: datetime | str | None = None,
        end: datetime | str | None = None,
        user_id: Id | None = None,
        limit: int | None = None,
    ) -> list[Message]:
        """Give messages by their time; those of one time in the order of their arrival.

        Args:
            channel_id: Only of this channel.
            start: Not before this time.
            end: Before this time.
            user_id: Only of this person.
            limit: Only the latest so many of them.

        Raises:
            InvalidEntity: A time is none.
            InvalidValue: The limit is negative.
        """
        if limit is not None and limit < 0:
            raise InvalidValue("The limit of messages must not be negative.")
        given = {
            "channel_id = ?": None if channel_id is None else to_id(channel_id),
            "user_id = ?": None if user_id is None else to_id(user_id),
            "timestamp >= ?": None if start is None else to_moment(start),
            "timestamp < ?": None if end is None else to_moment(end),
        }
        conditions = {sql: value for sql, value in given.items() if value is not None}
        rows = self.read(
            f"SELECT {COLUMNS} FROM messages AS m "
            f"WHERE {' AND '.join(['TRUE', *conditions])} ORDER BY timestamp DESC, id DESC LIMIT ?",
            [*conditions.values(), -1 if limit is None else limit],
        )
        return [from_row(row) for row in reversed(rows)]

    def get_messages_by_ids(self, message_ids: Iterable[Id]) -> list[Message]:
        """Give these messages in the order of the ids; ids of no message are passed over."""
        rows = self.read(
            f"SELECT {COLUMNS} FROM json_each(?) AS wanted "
            "CROSS JOIN messages AS m ON m.message_id = wanted.value ORDER BY wanted.key",
            [json.dumps([to_id(message_id) for message_id in message_ids])],
        )
        return [from_row(row) for row in rows]

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
        """Note that a stretch of a channel's messages belongs together.

        Args:
            channel_id: The channel.
            started_at: The time of its first message.
            ended_at: The time of its last message.
            segment_id: Unique among all segments; a new one, if None.
            summary: What it is about.
            metadata: Anything that JSON can hold.

        Returns:
            The segment's id.

        Raises:
            InvalidEntity: There is no such channel, or a field is out of range.
            DuplicateId: A segment with this id is there already.
        """
        start, end = to_moment(started_at), to_moment(ended_at)
        if end < start:
            raise InvalidEntity("A segment cannot end before it starts.")
        segment_id = segment_id or uuid.uuid4().hex
        details = to_json(metadata) if metadata else None
        with self.get_connection() as connection:
            if not connection.fetch_one(
                "SELECT 1 FROM channels WHERE channel_id = ?", [to_id(channel_id)]
            ):
                raise InvalidEntity("There is no such channel: store its messages first.")
            try:
                connection.execute(
                    "INSERT INTO conversation_segments VALUES (?, ?, ?, ?, ?, ?)",
                    [segment_id, to_id(channel_id), start, end, summary, details],
                )
            except ConstraintViolated as taken:
                raise DuplicateId("A segment with this id is there already.") from taken
        return segment_id

    def add_message_to_segment(self, segment_id: str, message_id: Id) -> None:
        """Put a message at the end of a segment; one that is in it already stays where it is.

        Raises:
            InvalidEntity: There is no such segment or message, or they are of two channels.
        """
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
                raise InvalidEntity("A segment holds messages of its own channel only.")
            connection.execute(
                "INSERT INTO segment_messages SELECT ?1, ?2, coalesce(max(position) + 1, 0) "
                "FROM segment_messages WHERE segment_id = ?1 ON CONFLICT DO NOTHING",
                ids,
            )

    def get_segment_messages(self, segment_id: str) -> list[Message]:
        """Give the messages of a segment, in the order in which they were put into it."""
        rows = self.read(
            f"SELECT {COLUMNS} FROM segment_messages JOIN messages AS m USING (message_id) "
            "WHERE segment_id = ? ORDER BY position",
            [segment_id],
        )
        return [from_row(row) for row in rows]

    def close(self) -> None:
        """Close the connections of all threads, undoing what they have not committed."""
        self._connections.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
