"""The real conversations of the `chitchat-dataset` package: BYU's Chit-Chat Challenge of 2018.

7,168 conversations with 258,145 messages by 1,315 people, with a prompt for most conversations and
ratings (witty, interesting, upbeat; 1 to 10) for 5,988 of them. Both sides are people: the one who
wrote first gets the role `user`, the other one stands in for the companion as `assistant`. Nothing
is invented: every message keeps its own author, and no reply or response time is filled in.

A conversation's `start` lies six hours (in winter seven) after its first message wherever there is
a prompt: the clock of Utah was taken for UTC twice. The messages' own times fit a day of people
who sleep at night there, so a channel begins with its first message, and `start` is only kept in
its metadata, as it was given.
"""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from aico_lab.errors import SourceMissing, SourceUnreadable
from aico_lab.sources.records import (
    BATCH_MESSAGES,
    Batch,
    ChannelRecord,
    FeedbackRecord,
    MessageRecord,
    UserRecord,
)
from aico_lab.sources.rules import to_metadata, to_timestamp

if TYPE_CHECKING:
    from collections.abc import Iterator

MESSAGES: Final = 258_145
"""How many messages the data set has; counting them anew means loading all of it."""


def total(_path: Path | None, limit: int | None) -> int:
    """Return how many messages will be read."""
    return MESSAGES if limit is None else min(limit, MESSAGES)


def read(_path: Path | None = None, *, limit: int | None = None) -> Iterator[Batch]:
    """Read the conversations; a batch holds whole ones.

    Args:
        limit: At most so many messages. The last conversation may be cut; its ratings, which
            speak of the whole of it, are then left out.

    Raises:
        SourceMissing: If the package is not installed.
        SourceUnreadable: If its file is damaged.
    """
    conversations = _load()
    joined = _first_messages(conversations)
    left = sys.maxsize if limit is None else limit
    messages: list[MessageRecord] = []
    channels: list[ChannelRecord] = []
    feedback: list[FeedbackRecord] = []
    for conversation_id, conversation in conversations.items():
        if not left:
            break
        whole = _messages(conversation_id, conversation)
        if messages and len(messages) + len(whole) > BATCH_MESSAGES:
            yield _batch(messages, channels, feedback, joined)
            messages, channels, feedback = [], [], []
        channels.append(_channel(conversation_id, conversation, whole[0].timestamp))
        messages += whole[:left]
        if len(whole) <= left:
            feedback += _ratings(conversation_id, conversation, whole[-1].timestamp)
        left -= min(left, len(whole))
    if messages:
        yield _batch(messages, channels, feedback, joined)


def _load() -> dict[str, Any]:
    # The package itself is not imported: only the place of its data is wanted.
    spec = find_spec("chitchat_dataset")
    if spec is None or spec.origin is None:
        raise SourceMissing("The conversations are not installed: pip install chitchat-dataset.")
    try:
        loaded: dict[str, Any] = json.loads(
            Path(spec.origin).with_name("dataset.json").read_bytes()
        )
    except (OSError, ValueError) as error:
        raise SourceUnreadable(
            "The conversations are damaged: pip install --force-reinstall chitchat-dataset."
        ) from error
    return loaded


def _first_messages(conversations: dict[str, Any]) -> dict[str, str]:
    """Return when each person first wrote: the same whatever part of the data is imported."""
    joined: dict[str, str] = {}
    for conversation in conversations.values():
        for turn in conversation["messages"]:
            sender, timestamp = turn[0]["sender"], turn[0]["timestamp"]
            joined[sender] = min(timestamp, joined.get(sender, timestamp))
    return joined


def _messages(conversation_id: str, conversation: dict[str, Any]) -> list[MessageRecord]:
    written = [message for turn in conversation["messages"] for message in turn]
    first = written[0]["sender"]
    return [
        MessageRecord(
            # The longest conversation has 2,895 messages.
            message_id=f"{conversation_id}:{index:04d}",
            channel_id=conversation_id,
            conversation_id=conversation_id,
            user_id=message["sender"],
            role="user" if message["sender"] == first else "assistant",
            content=message["text"],
            timestamp=to_timestamp(message["timestamp"]),
            sentiment_score=None,
            sentiment_source=None,
            response_time=None,
            reply_to=None,
            metadata=None,
        )
        for index, message in enumerate(written)
    ]


def _channel(conversation_id: str, conversation: dict[str, Any], created_at: str) -> ChannelRecord:
    about = {key: value for key, value in conversation.items() if key != "messages"}
    return ChannelRecord(
        channel_id=conversation_id,
        name=conversation.get("prompt"),
        kind="chitchat",
        created_at=created_at,
        metadata=to_metadata(about),
    )


def _ratings(
    conversation_id: str, conversation: dict[str, Any], timestamp: str
) -> list[FeedbackRecord]:
    return [
        FeedbackRecord(
            event_id=f"{conversation_id}:rating:{name}",
            user_id=None,  # the data set does not say whose rating it is
            conversation_id=conversation_id,
            message_id=None,
            kind="rating",
            name=name,
            value=float(value),
            timestamp=timestamp,
            metadata=None,
        )
        for name, value in sorted(conversation.get("ratings", {}).items())
    ]


def _batch(
    messages: list[MessageRecord],
    channels: list[ChannelRecord],
    feedback: list[FeedbackRecord],
    joined: dict[str, str],
) -> Batch:
    senders = dict.fromkeys(message.user_id for message in messages)
    return Batch(
        messages=messages,
        channels=channels,
        users=[
            UserRecord(sender, None, to_timestamp(joined[sender]), None)
            for sender in senders
            if sender is not None
        ],
        feedback=feedback,
        rejected=[],
        lines_read=len(messages),
        progress=len(messages),
    )
