"""PigPig's memory of Discord channels: a SQLite database, as it was written in 2025.

Times are those of Discord, in UTC where they name no zone. Rows may be stored again, so
messages are ordered by their ids, which Discord counts up, and not by the rows.
"""

from __future__ import annotations

import json
import re
from array import array
from collections import Counter
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from aico_lab.errors import DatabaseLocked, StorageError
from aico_lab.messages.metadata import ATTACHMENTS
from aico_lab.sources.exports.engine.conversation import (
    ExportedConversation,
    Said,
    Traits,
    Unreadable,
)
from aico_lab.sources.exports.engine.databases import columns, database, databases
from aico_lab.sources.exports.engine.epochs import from_epoch
from aico_lab.sources.exports.engine.fields import to_id, to_object, to_text, to_utc_time

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

    from aico_lab.adapters.libsql import Connection
    from aico_lab.sources.exports.engine.conversation import Options
    from aico_lab.sources.exports.engine.opened import Opened

TRAITS: Final = Traits()

_COLUMNS: Final = frozenset(
    {"message_id", "channel_id", "user_id", "content", "timestamp", "message_type", "metadata"}
)
_SNOWFLAKE: Final = re.compile(r"[0-9]{1,19}", re.ASCII)
_ROLES: Final = {"user": "user", "bot": "assistant", "": "user"}
_AT_ONCE: Final = 500
"""Rows that one query reads."""


def recognise(export: Opened) -> str | None:
    """Return the reason why an export is PigPig's, or None."""
    for member in databases(export):
        if columns(export, member, "messages") >= _COLUMNS:
            return f"{member.name} has the table messages with message_type"
    return None


def conversations(export: Opened, options: Options) -> Generator[ExportedConversation | Unreadable]:
    """Yield the channels of an export."""
    del options
    for member in databases(export):
        if columns(export, member, "messages") < _COLUMNS:
            continue
        with database(export, member) as connection:
            damaged: list[int] = []
            try:
                channels = _channels(connection, damaged)
            except DatabaseLocked:
                raise
            except StorageError:
                yield Unreadable(member.name, "the database is damaged")
                continue
            names = _names(connection)
            for channel in channels.values():
                yield _conversation(connection, channel, names, damaged)
            if damaged:
                lost = f"{len(set(damaged)):,} of its messages cannot be read"
                yield Unreadable(member.name, f"the database is damaged: {lost}")


@dataclass(slots=True)
class _Channel:
    """The rows of a channel, in little memory.

    Attributes:
        name: The id of the channel.
        ids: The ids of its messages; 0 for an id that is no number of Discord.
        rows: The row ids of its messages.
        person: The id of the first person who wrote in the channel.
        is_group: Whether several people write in the channel.
    """

    name: str
    ids: array[int] = field(default_factory=lambda: array("Q"))
    rows: array[int] = field(default_factory=lambda: array("q"))
    person: str | None = None
    is_group: bool = False

    def ordered(self) -> Iterator[int]:
        """Yield the row ids in the order of the messages."""
        return map(int, np.asarray(self.rows)[np.lexsort((self.rows, self.ids))])


def _channels(connection: Connection, damaged: list[int]) -> dict[str, _Channel]:
    """Return the channels by id; rows that cannot be read are added to `damaged`.

    If a page of the table is damaged, the index of the ids still knows all rows.

    Raises:
        StorageError: Neither the table nor the index can be read.
    """
    try:
        batches = connection.fetch_batches(
            "SELECT rowid, channel_id, message_id, user_id, message_type FROM messages", size=5_000
        )
        return _grouped(row for batch in batches for row in batch)
    except StorageError:
        rows = connection.fetch_all("SELECT rowid FROM messages ORDER BY message_id")
        columns = "channel_id, message_id, user_id, message_type"
        return _grouped(_rows(connection, columns, (row_id for (row_id,) in rows), damaged))


def _grouped(rows: Iterable[tuple[Any, ...]]) -> dict[str, _Channel]:
    channels: dict[str, _Channel] = {}
    for row_id, channel_id, message_id, user, kind in rows:
        name = to_id(channel_id) or "unknown"
        channel = channels.get(name)
        if channel is None:
            channel = channels[name] = _Channel(name)
        number = to_id(message_id) or ""
        channel.ids.append(int(number) if _SNOWFLAKE.fullmatch(number) else 0)
        channel.rows.append(row_id)
        if kind != "bot" and not channel.is_group:
            channel.person = to_id(user) if channel.person is None else channel.person
            channel.is_group = to_id(user) != channel.person
    return channels


def _names(connection: Connection) -> dict[str, str]:
    """Return the names of people by id, as far as the database has them."""
    try:
        rows = connection.fetch_all("SELECT user_id, display_name FROM users")
    except StorageError:
        return {}
    found = ((to_id(user), to_text(name).strip()) for user, name in rows)
    return {user: name for user, name in found if user and name}


def _conversation(
    connection: Connection, channel: _Channel, names: dict[str, str], damaged: list[int]
) -> ExportedConversation:
    skipped: Counter[str] = Counter()
    columns = "message_id, user_id, content, timestamp, message_type, metadata"
    rows = _rows(connection, columns, channel.ordered(), damaged)
    said = (_said(row[1:], names, skipped) for row in rows)
    return ExportedConversation(
        channel.name,
        (message for message in said if message is not None),
        channel_id=channel.name,
        channel_name=f"Discord channel {channel.name}",
        is_group=channel.is_group,
        has_seconds=True,
        skipped=skipped,
    )


def _rows(
    connection: Connection, columns: str, row_ids: Iterator[int], damaged: list[int]
) -> Iterator[tuple[Any, ...]]:
    """Yield the row id and some columns of rows, in the given order.

    Rows that cannot be read together are read one by one; those that cannot be read at all are
    added to `damaged`.
    """
    while some := list(islice(row_ids, _AT_ONCE)):
        yield from _read(connection, columns, some, damaged)


def _read(
    connection: Connection, columns: str, row_ids: list[int], damaged: list[int]
) -> list[tuple[Any, ...]]:
    wanted = ",".join(map(str, row_ids))
    try:
        found = connection.fetch_all(
            f"SELECT rowid, {columns} FROM messages WHERE rowid IN ({wanted})"
        )
    except StorageError:
        if len(row_ids) == 1:
            damaged += row_ids
            return []
        return [row for one in row_ids for row in _read(connection, columns, [one], damaged)]
    by_id = {row[0]: row for row in found}
    damaged += [row_id for row_id in row_ids if row_id not in by_id]
    return [by_id[row_id] for row_id in row_ids if row_id in by_id]


def _said(row: tuple[Any, ...], names: dict[str, str], skipped: Counter[str]) -> Said | None:
    """Return the message, or None if a row is no message; count rows that are left out."""
    message_id, user, content, timestamp, kind, stored = row
    role = _ROLES.get(to_text(kind).casefold())
    if role is None:
        skipped["notice"] += 1
        return None
    details = _details(stored)
    media = [
        {"kind": kind}
        for key, kind in (("has_attachments", "file"), ("has_embeds", "embed"))
        if details.get(key) is True
    ]
    author = to_id(user)
    return Said(
        to_text(content),
        from_epoch(timestamp) or to_utc_time(timestamp),
        role=role,
        author=author,
        author_name=names.get(author or "") or to_text(details.get("author_name")) or None,
        message_id=to_id(message_id),
        reply_to=to_id(details.get("reply_to")),
        metadata={ATTACHMENTS: media} if media else {},
    )


def _details(stored: object) -> dict[str, Any]:
    try:
        return to_object(json.loads(to_text(stored) or "{}"))
    except (ValueError, RecursionError):
        return {}
