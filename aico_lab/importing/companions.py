"""Find the conversation of a table that has people but no conversations.

The conversation is named after the companion. A study may have one file for each participant, all
with the same companion: files of other people are other conversations.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from typing import TYPE_CHECKING, Final

from aico_lab.sources.exports.engine.records import joined_id

if TYPE_CHECKING:
    from collections.abc import Collection

    from aico_lab.adapters.libsql import Connection

_SHOWN: Final = 8
"""The maximum number of people in the name of a conversation."""

# Cast to BLOB, since the driver panics on text of other programs that is not UTF-8.
_PEOPLE: Final = """
    SELECT CAST(conversation_id AS BLOB), CAST(user_id AS BLOB) FROM messages
    WHERE (conversation_id = ?1 OR conversation_id >= ?2 AND conversation_id < ?3)
        AND role = 'user' AND user_id IS NOT NULL
    GROUP BY conversation_id, user_id ORDER BY min(id)
"""

_USERS: Final = """
    SELECT DISTINCT CAST(user_id AS BLOB) FROM messages
    WHERE conversation_id = ? AND role = 'user' AND user_id IS NOT NULL
"""

_BEGINNING: Final = """
    SELECT DISTINCT CAST(conversation_id AS BLOB) FROM messages
    WHERE channel_id IN (SELECT channel_id FROM channels WHERE channel_id >= ?1 AND channel_id < ?2)
        AND conversation_id = channel_id
    LIMIT 100
"""
_TIMES: Final = """
    SELECT pair.value ->> 0, pair.value ->> 1, CAST(timestamp AS BLOB)
    FROM json_each(?) AS pair JOIN messages
        ON message_id = pair.value ->> 1 AND conversation_id = pair.value ->> 0
"""


class StoredMessages:
    """The stored messages, as those of a file are compared with them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def place(self, name: str, people: Collection[str]) -> str:
        """Return the conversation of a companion with some people; see `conversation_of`."""
        return conversation_of(self._connection, name, people)

    def conversations(self, begin: str) -> list[str]:
        """Return the conversations whose ids begin with a text, which ends with a colon."""
        rows = self._connection.fetch_all(_BEGINNING, [begin, f"{begin[:-1]};"])
        return [name.decode(errors="replace") for (name,) in rows]

    def people(self, conversation: str) -> set[str]:
        """Return the ids of the users who wrote in a conversation."""
        rows = self._connection.fetch_all(_USERS, [conversation])
        return {one.decode(errors="replace") for (one,) in rows}

    def times(self, messages: Collection[tuple[str, str]]) -> dict[tuple[str, str], str]:
        """Return the times of those of some messages that are stored, by conversation and id."""
        rows = self._connection.fetch_all(_TIMES, [json.dumps(sorted(messages))])
        return {
            (conversation, message_id): time.decode(errors="replace")
            for conversation, message_id, time in rows
        }


def conversation_of(connection: Connection, name: str, people: Collection[str]) -> str:
    """Return the id of the conversation of a companion with some people.

    The result is the stored conversation in which most of these people and the fewest others
    wrote. Without one, it is a new conversation, named after the companion alone if that name is
    free.

    Args:
        connection: The primary database.
        name: The id that the companion alone gives it.
        people: The ids of the people; empty if only the companion wrote.
    """
    own = frozenset(people)
    there: defaultdict[str, set[str]] = defaultdict(set)
    for row in connection.fetch_all(_PEOPLE, [name, f"{name} with ", f"{name} with!"]):
        conversation, person = (one.decode(errors="replace") for one in row)
        there[conversation].add(person)
    shared = [one for one, stored in there.items() if stored & own]
    if shared:  # the first of several is the one that is stored longest
        return max(shared, key=lambda one: (len(there[one] & own), -len(there[one] - own)))
    if not own or name not in there:
        return name
    named = ", ".join(sorted(own)[:_SHOWN])
    if len(own) > _SHOWN:
        digest = hashlib.sha256("\0".join(sorted(own)).encode()).hexdigest()[:8]
        named += f" and {len(own) - _SHOWN:,} more ({digest})"
    begin, _, rest = name.partition(":")
    return joined_id(begin, f"{rest} with {named}")
