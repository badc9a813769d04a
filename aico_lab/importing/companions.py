"""Find the conversation of a table that has people but no conversations.

The conversation is named after the companion. A study may have one file for each participant, all
with the same companion: files of other people are other conversations.
"""

from __future__ import annotations

import hashlib
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
