"""Store and read messages of channels, safely from any number of threads.

Each thread has its own connection to one libSQL file with the lab's core schemas.
"""

from __future__ import annotations

import itertools
import json
import time
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from aico_lab.adapters.libsql import LibSQLAdapter
from aico_lab.adapters.libsql_readonly import names_in
from aico_lab.channel_memory.connections import ThreadConnections
from aico_lab.channel_memory.messages import (
    COLUMNS,
    check_limit,
    check_message,
    from_row,
    time_conditions,
    to_batch,
    to_id,
    to_moment,
)
from aico_lab.channel_memory.segments import Segments
from aico_lab.channel_memory.users import UserManager
from aico_lab.errors import CorruptDatabase, DatabaseLocked, DuplicateId, InvalidValue, NotADatabase
from aico_lab.home.files import os_errors, private_files
from aico_lab.importing.importer import import_batches
from aico_lab.schema.core import CORE
from aico_lab.schema.versions import MARKS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from datetime import datetime

    from aico_lab.adapters.libsql import Connection, Row
    from aico_lab.channel_memory.messages import Id, Message


class DatabaseManager(Segments):
    """A channel memory in one libSQL file; any thread may use it.

    ::

        with DatabaseManager("memory/channels.db", key) as memory:
            memory.store_message("m1", "general", "ada", "Good morning!", datetime.now())
            for row in memory.get_messages("general", limit=50):
                print(row["user_id"], row["content"])  # or row.user_id, row.content

    Threads share one manager; a forked process must open its own.
    """

    def __init__(self, db_path: str | Path, encryption_key: str | None = None) -> None:
        """Open the database file, or create it and its parent folders.

        Args:
            db_path: The database file; it may be the primary database of a lab.
            encryption_key: 32 characters, or None for a database that is not encrypted.

        Raises:
            InvalidValue: The path is empty, or ':memory:'.
            HomeNotWritable: The file's folder cannot be created.
            NotADatabase: The file is not a database, has another key, or is another program's
                database, which is left unchanged.
            SchemaTooNew: A later version of this program made the database.
        """
        if str(db_path) in ("", ":memory:"):
            raise InvalidValue(
                f"{str(db_path)!r} is no file, and the connections of several threads share one: "
                "name a file, in a temporary folder if it need not last."
            )
        # Absolute, because connections are also opened later, and the working folder may change.
        self.db_path = Path(db_path).expanduser().absolute()
        self._connections = ThreadConnections(LibSQLAdapter(self.db_path, encryption_key))
        with os_errors(self.db_path.parent), private_files():
            self.db_path.parent.mkdir(parents=True, exist_ok=True)
        _refuse_foreign(self.db_path, encryption_key)
        self._initialize_database()

    @property
    def path(self) -> Path:
        """The database file, `db_path`."""
        return self.db_path

    def _initialize_database(self) -> None:
        try:
            self._create_tables()
        except BaseException:
            self.close()
            raise

    def _create_tables(self) -> None:
        """Bring the core schemas, with their tables and indexes, to their newest versions."""
        CORE.apply_core_schemas(self._connections.mine())

    # Bots know both names; a version of a schema creates its tables and indexes together.
    _create_indexes = _create_tables

    @cached_property
    def user_manager(self) -> UserManager:
        """The people of the channels."""
        return UserManager(self._connections)

    def get_connection(self) -> AbstractContextManager[Connection]:
        """Return a context manager that yields this thread's connection within a transaction.

        The block is committed at its end, or rolled back when an exception leaves. It nests: an
        inner block, or a method of this object called inside, is part of the outer one. It holds
        the database's write lock, so keep it short, and do not await inside it. The connection's
        `fetch_dicts` returns rows by column name.

        Raises:
            ConnectionIsClosed: The manager was closed.
            DatabaseLocked: Another thread, or another process, wrote for longer than 30 seconds;
                the wait for a process begins after the wait for a thread.
        """
        return self._connections.transaction()

    def read(self, query: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """Run one query on this thread's connection, without waiting for writers.

        Raises:
            ConnectionIsClosed: The manager was closed.
        """
        return self._connections.read(query, parameters)

    def store_message(  # noqa: PLR0917 - the usual order of columns in the tables of bots
        self,
        message_id: Id,
        channel_id: Id,
        user_id: Id | None,
        content: str,
        timestamp: datetime | str,
        message_type: str | None = None,
        *,
        role: str | None = None,
        conversation_id: Id | None = None,
        sentiment_score: float | None = None,
        response_time: float | None = None,
        reply_to: Id | None = None,
        metadata: dict[str, Any] | None = None,
        replace: bool = False,
    ) -> None:
        """Add one message, and its channel and author if they are new.

        Args:
            message_id: Unique among all messages.
            channel_id: The channel.
            user_id: The author; None only for the role `system`.
            content: The text.
            timestamp: When it was said; a naive datetime is local time, text without a zone UTC.
            message_type: Another name of the role; `bot` is `assistant`.
            role: `user`, `assistant` or `system`; `user` if None.
            conversation_id: The conversation within the channel; if None, the channel's id.
            sentiment_score: -1 to 1; if None, VADER's score for an English text.
            response_time: Seconds since the message that it answers.
            reply_to: The id of the message that it answers.
            metadata: A JSON object.
            replace: Treat the message as an edit of a message with the same id in the same
                conversation, if there is one; fields that are not given, even the author, stay.

        Raises:
            InvalidEntity: A field has the wrong type or is out of range.
            TextTooLong: The content has more than 1,000,000 characters.
            DuplicateId: A message with this id exists already, and `replace` is False or that
                message is in another conversation.
        """
        fields = {name: value for name, value in locals().items() if name not in _NO_FIELDS}
        self.add_messages([fields], replace=replace)

    def add_messages(self, messages: Iterable[Mapping[str, Any]], *, replace: bool = False) -> None:
        """Add messages atomically.

        Args:
            messages: Each a mapping of the arguments of `store_message`, by name.
            replace: As in `store_message`; of two messages with the same id, the later one counts.

        Raises:
            InvalidEntity: A field is missing or unknown, has the wrong type or is out of range.
            TextTooLong: A content has more than 1,000,000 characters.
            DuplicateId: A message with one of these ids exists already, or an id is repeated.
        """
        records = [check_message(fields) for fields in messages]
        if not records:
            return
        with self.get_connection() as connection:
            result = import_batches(
                connection, [to_batch(records)], on_conflict="replace" if replace else "keep"
            )
            taken = result.qualified + (0 if replace else result.known + result.conflicts)
            if taken:
                raise DuplicateId(
                    f"{taken} of {result.read} messages have an id that is taken, so none "
                    "was stored: remove those from the batch."
                )

    def get_messages(
        self,
        channel_id: Id | None = None,
        limit: int | None = None,
        before: datetime | str | None = None,
        after: datetime | str | None = None,
        *,
        start: datetime | str | None = None,
        end: datetime | str | None = None,
        user_id: Id | None = None,
    ) -> list[Message]:
        """Return messages ordered by time, equal times by order of arrival.

        Args:
            channel_id: Only messages of this channel.
            limit: The maximum number of messages, of which the latest are returned.
            before: Only messages before this time.
            after: Only messages after this time.
            start: Only messages at or after this time.
            end: Only messages before this time, like `before`.
            user_id: Only messages of this person.

        Raises:
            InvalidEntity: A time is malformed.
            InvalidValue: The limit is not a whole number, or is negative.
        """
        given = {"channel_id = ?": channel_id, "user_id = ?": user_id}
        ids = {sql: to_id(value) for sql, value in given.items() if value is not None}
        ends = [to_moment(moment) for moment in (before, end) if moment is not None]
        conditions = ids | time_conditions(
            {"timestamp < ?": min(ends, default=None), "timestamp > ?": after,
             "timestamp >= ?": start}
        )  # fmt: skip
        rows = self.read(
            f"SELECT {COLUMNS} FROM messages AS m "
            f"WHERE {' AND '.join(['TRUE', *conditions])} ORDER BY timestamp DESC, id DESC LIMIT ?",
            [*conditions.values(), check_limit(limit)],
        )
        return [from_row(row) for row in reversed(rows)]

    def search_messages_by_keywords(
        self,
        channel_id: Id,
        keywords: Iterable[str],
        limit: int | None = 10,
        before: datetime | str | None = None,
        after: datetime | str | None = None,
    ) -> list[Message]:
        """Return the messages of a channel that contain every keyword, the latest first.

        A keyword matches any part of a message, regardless of case; without keywords nothing is
        found.

        Args:
            channel_id: The channel.
            keywords: The texts to search for.
            limit: The maximum number of messages.
            before: Only messages before this time.
            after: Only messages after this time.

        Raises:
            InvalidEntity: A time is malformed.
            InvalidValue: The limit is not a whole number, or is negative; or `keywords` is a single
                text.
        """
        if isinstance(keywords, str):
            raise InvalidValue("Pass the keywords as a list of texts.")
        wanted = [keyword.casefold() for keyword in keywords]
        check_limit(limit)
        conditions = {"channel_id = ?": to_id(channel_id)} | time_conditions(
            {"timestamp < ?": before, "timestamp > ?": after}
        )
        rows = self.read(
            "SELECT message_id, content FROM messages "
            f"WHERE {' AND '.join(conditions)} ORDER BY timestamp DESC, id DESC",
            [*conditions.values()],
        )
        found = (
            message_id
            for message_id, content in rows
            if wanted and all(word in content.casefold() for word in wanted)
        )
        return self.get_messages_by_ids(itertools.islice(found, limit))

    def get_messages_by_ids(self, message_ids: Iterable[Id]) -> list[Message]:
        """Return the messages with these ids, in the order of the ids; unknown ids are ignored."""
        rows = self.read(
            f"SELECT {COLUMNS} FROM json_each(?) AS wanted "
            "CROSS JOIN messages AS m ON m.message_id = wanted.value ORDER BY wanted.key",
            [json.dumps([to_id(message_id) for message_id in message_ids])],
        )
        return [from_row(row) for row in rows]

    def close(self) -> None:
        """Close the connections of all threads, and roll back their transactions."""
        self._connections.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


_NO_FIELDS = frozenset({"self", "replace"})

HEADER = 100  # bytes
LOOKS = 5
"""The maximum number of attempts to read a file that another program is writing."""


def _refuse_foreign(path: Path, key: str | None) -> None:
    """Refuse another program's database, without writing to the file; it may be missing or empty.

    Raises:
        NotADatabase: The file is another program's database.
        DatabaseLocked: Another program was writing the file during all attempts.
    """
    if not path.is_file() or not path.stat().st_size:
        return
    for look in range(LOOKS):
        try:
            names, is_marked = names_in(path, key)
            break
        except NotADatabase:
            return  # opening the file raises the same error, with a message about this key
        except (CorruptDatabase, DatabaseLocked):
            if look == LOOKS - 1:
                raise
            time.sleep(0.1 * (look + 1))
    # SQLite treats a file that is shorter than its header as an empty database.
    foreign = not names.issuperset(MARKS) if names else is_marked
    if foreign or path.stat().st_size < HEADER:
        raise NotADatabase(
            f"{path.name} is the database of another program, and was left unchanged: "
            "choose another path."
        )
