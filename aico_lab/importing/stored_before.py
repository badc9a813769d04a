"""Find out how earlier imports read a file whose conversations or messages have no ids.

WhatsApp writes dates without saying whether the day or the month comes first. A few days may
mislead, or the user may have answered wrongly. As the ids of such messages derive from their times,
messages that were read in the wrong order are known by that order ever after.

A conversation of a training file is known by its content, so one that grew is known by what is
stored of it.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, tzinfo
from itertools import islice
from typing import TYPE_CHECKING, Final

from aico_lab.errors import AicoLabError
from aico_lab.importing.companions import StoredMessages
from aico_lab.importing.same_chat import SameChats
from aico_lab.sources.exports.engine.training import CHANNEL, said_so_far

if TYPE_CHECKING:
    from pathlib import Path

    from aico_lab.adapters.libsql import Connection
    from aico_lab.sources import Source
    from aico_lab.sources.exports.engine.conversation import Options

_TRAINING: Final = frozenset({"openai", "sharegpt"})

# Cast to BLOB, since the driver panics on text of other programs that is not UTF-8.
_SAID: Final = """
    SELECT CAST(conversation_id AS BLOB), CAST(role AS BLOB), CAST(content AS BLOB) FROM messages
    WHERE channel_id = ? ORDER BY timestamp, id
"""
_ROWS: Final = 1_000
_FORMAT: Final = "whatsapp"
_LOOKED_AT: Final = 200
"""Messages of a chat, on days that can be read otherwise, of which most must be stored."""

_READ: Final = 20_000
"""The most messages that are read to find them."""

_MONTHS: Final = 12


def with_stored(
    connection: Connection, source: Source, path: Path | None, options: Options
) -> Options:
    """Return options with what the format needs to know about stored messages.

    Args:
        connection: The primary database.
        source: The source.
        path: The file.
        options: The answers of the user.
    """
    if source.name in _TRAINING:
        return replace(options, known_conversations=_said(connection, source.name))
    return _with_known_order(connection, source, path, options)


def _said(connection: Connection, name: str) -> dict[str, tuple[int, bytes]]:
    """Return the number and the digest of the messages of each training conversation."""
    found: dict[str, tuple[int, bytes]] = {}
    for rows in connection.fetch_batches(_SAID, [f"{name}:{CHANNEL}"], size=_ROWS):
        for row in rows:
            conversation, role, text = (one.decode(errors="replace") for one in row)
            count, digest = found.get(conversation, (0, b""))
            for last in said_so_far([(role, text)], digest):
                found[conversation] = (count + 1, last)
    return found


def _with_known_order(
    connection: Connection, source: Source, path: Path | None, options: Options
) -> Options:
    """Return options with the order of day and month in which the messages are stored."""
    stored = StoredMessages(connection)
    if source.name != _FORMAT or not stored.conversations(f"{_FORMAT}:"):
        return options

    def missing(tried: Options) -> int:
        chats = SameChats(connection)
        messages = (
            one
            for batch in source.read(path, limit=_READ, options=tried)
            for one in chats.as_stored(batch).messages
            if _may_be_turned(one.timestamp, options.zone or UTC)
        )
        found = {(one.conversation_id, one.message_id) for one in islice(messages, _LOOKED_AT)}
        return len(found) - len(stored.times(found))

    try:
        least, best = missing(options), options
        for day_first in (True, False) if least else ():
            tried = replace(options, known_day_first=day_first)
            if (left := missing(tried)) < least:
                least, best = left, tried
    except AicoLabError:  # the import itself says what is wrong
        return options
    return best


def _may_be_turned(timestamp: str, zone: tzinfo) -> bool:
    """Return whether the day and the month of a time may be exchanged, and are not the same."""
    local = datetime.fromisoformat(timestamp).astimezone(zone)
    return local.day != local.month and local.day <= _MONTHS
