"""The real conversations of the `chitchat-dataset` package: BYU's Chit-Chat Challenge of 2018.

The data set has 7,168 conversations with 258,145 messages by 1,315 people, a prompt for most
conversations, and ratings (witty, interesting, upbeat; 1 to 10) for 5,988 of them. Both sides are
people: the one who wrote first gets the role `user`, the other one the companion's, `assistant`.
Every message keeps its own author; replies and response times are not made up.

In conversations with a prompt, `start` is six hours (in winter seven) after the first message: the
data set's authors apparently converted Utah's local time to UTC twice. The timestamps of the
messages fit people in Utah who sleep at night. So a channel begins with its first message, and
`start` is only kept in the channel's metadata, unchanged.
"""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from aico_lab.errors import SourceMissing, SourceUnreadable
from aico_lab.messages.records import (
    BATCH_MESSAGES,
    Batch,
    ChannelRecord,
    FeedbackRecord,
    MessageRecord,
    UserRecord,
)
from aico_lab.messages.rules import to_metadata
from aico_lab.messages.timestamps import to_timestamp

if TYPE_CHECKING:
    from collections.abc import Iterator

MESSAGES: Final = 258_145
"""The number of messages in the data set; counting them would load all of it."""


def total(_path: Path | None, limit: int | None) -> int:
    """Return the number of messages that will be read."""
    return MESSAGES if limit is None else min(limit, MESSAGES)


def read(_path: Path | None = None, *, limit: int | None = None) -> Iterator[Batch]:
    """Yield batches of whole conversations.

    Args:
        limit: The most messages to read. The last conversation may be cut; its ratings, which
            refer to the whole conversation, are then left out.

    Raises:
        SourceMissing: The package is not installed.
        SourceUnreadable: The data file is damaged.
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
    # Only the path of the data is needed, so the package is not imported.
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
    """Return the time of each person's first message in the whole data set."""
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
