"""The identity of messages: an id is unique within its conversation only.

Many exports number the messages of each chat from the start, but `messages.message_id` is unique in
the whole database. So the first conversation with an id keeps it unchanged. In another conversation
the message is stored as `<conversation_id>:<message_id>`, and its metadata contain the original id:
otherwise the message `b` of the conversation `a` could be confused with its message `a:b`.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from aico_lab.messages.rules import MAX_ID, to_metadata

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aico_lab.messages.records import MessageRecord

COPIES_APART: Final = timedelta(minutes=5)
"""The most time between the two copies of a message that its product keeps in two places."""

ORIGINAL: Final = "id_in_conversation"
"""The metadata key for the original id of a message that is stored under a qualified id."""


def digest(message_id: str) -> int:
    """Return 64 bits that stand for an id, where many are compared."""
    return int.from_bytes(hashlib.blake2b(message_id.encode(), digest_size=8).digest())


def qualified(conversation_id: str, message_id: str) -> str:
    """Return the qualified id of a message whose own id another conversation uses."""
    name = f"{conversation_id}:{message_id}"
    return name if len(name) <= MAX_ID else _hashed(conversation_id, message_id)


def further(conversation_id: str, message_id: str) -> Iterator[str]:
    """Yield further ids for a message whose own and qualified ids are both in use."""
    name = _hashed(conversation_id, message_id)
    return (f"{name}-{number}" for number in itertools.count(1))


def is_marked(metadata: str | None) -> bool:
    """Return whether metadata may contain the original id of a message."""
    return metadata is not None and ORIGINAL in metadata


def original_id(message_id: str, conversation_id: str, metadata: str | None) -> str:
    """Return the id that the source gave a message.

    It differs from `message_id` if the message was stored under a qualified id, or exported with
    one.
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
    """Return a message with its stored id; its metadata keep the original id if that differs."""
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
    # Ids do not contain NUL, so different pairs never give the same text.
    digest = hashlib.sha256(f"{conversation_id}\0{message_id}".encode())
    return f"q-{digest.hexdigest()[:32]}"
