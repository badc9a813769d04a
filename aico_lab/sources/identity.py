"""Which message is which: an id belongs to its conversation.

Many exports number the messages of each chat anew, but `messages.message_id` is unique in the
whole database. So the first conversation that brings an id has it as it is; in another one the
message is stored as `<conversation_id>:<message_id>`, and its metadata keep the id of its source:
without that, the message `b` of the conversation `a` could be taken for its message `a:b`.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from typing import TYPE_CHECKING, Final

from aico_lab.sources.rules import MAX_ID, to_metadata

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aico_lab.sources.records import MessageRecord

ORIGINAL: Final = "id_in_conversation"
"""The key, in the metadata of a message with a qualified id, of the id that its source gave it."""


def qualified(conversation_id: str, message_id: str) -> str:
    """Return the id of a message whose own id another conversation has."""
    name = f"{conversation_id}:{message_id}"
    return name if len(name) <= MAX_ID else _hashed(conversation_id, message_id)


def further(conversation_id: str, message_id: str) -> Iterator[str]:
    """Yield ids of a message where other messages have both its own and the qualified one."""
    name = _hashed(conversation_id, message_id)
    return (f"{name}-{number}" for number in itertools.count(1))


def is_marked(metadata: str | None) -> bool:
    """Return whether metadata may hold the id that the source of a message gave it."""
    return metadata is not None and ORIGINAL in metadata


def original_id(message_id: str, conversation_id: str, metadata: str | None) -> str:
    """Return the id that the source of a message gave it.

    It is another one than `message_id` for a message that was stored under a qualified id, and for
    one that was exported from there.
    """
    if metadata is None or not is_marked(metadata):
        return message_id
    try:
        kept = json.loads(metadata)
    except ValueError:  # another program wrote it
        return message_id
    given = kept.get(ORIGINAL) if isinstance(kept, dict) else None
    if not isinstance(given, str):
        return message_id
    known = message_id == qualified(conversation_id, given)
    return given if known or message_id.startswith(_hashed(conversation_id, given)) else message_id


def stored_as(message: MessageRecord, message_id: str, original: str) -> MessageRecord:
    """Return a message with the id under which it is stored."""
    if message_id == original == message.message_id:
        return message
    metadata = json.loads(message.metadata or "{}")
    metadata.pop(ORIGINAL, None)
    if message_id != original:
        metadata[ORIGINAL] = original
    return message._replace(
        message_id=message_id, metadata=to_metadata(metadata) if metadata else None
    )


def _hashed(conversation_id: str, message_id: str) -> str:
    # Ids hold no NUL, so that different pairs never join to the same text.
    digest = hashlib.sha256(f"{conversation_id}\0{message_id}".encode())
    return f"q-{digest.hexdigest()[:32]}"
