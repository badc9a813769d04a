"""The shape that every source brings its messages into.

The named tuples have the columns of the database's tables, in their order, so that a batch is
bound to an INSERT as it is. Nothing here knows a database.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

BATCH_MESSAGES: Final = 10_000
"""The most messages of one batch."""

FIRST_PLAUSIBLE: Final = "1990-01-01T00:00:00.000000Z"


def plausible_times() -> tuple[str, str]:
    """Return the first plausible time of a message, 1990, and the end of tomorrow."""
    day_after = datetime.now(UTC).date() + timedelta(days=2)
    return FIRST_PLAUSIBLE, f"{day_after.isoformat()}T00:00:00.000000Z"


class MessageRecord(NamedTuple):
    """A row of `messages`; `timestamp` is UTC with microseconds and `Z`, `metadata` is JSON."""

    message_id: str
    channel_id: str
    conversation_id: str
    user_id: str | None
    role: str
    content: str
    timestamp: str
    sentiment_score: float | None
    sentiment_source: str | None
    response_time: float | None
    reply_to: str | None
    metadata: str | None


class ChannelRecord(NamedTuple):
    """A row of `channels`; what follows from the messages is filled in by the importer."""

    channel_id: str
    name: str | None
    kind: str
    created_at: str
    metadata: str | None


class UserRecord(NamedTuple):
    """A row of `users`."""

    user_id: str
    name: str | None
    created_at: str
    metadata: str | None


class FeedbackRecord(NamedTuple):
    """A row of `feedback_events`."""

    event_id: str
    user_id: str | None
    conversation_id: str | None
    message_id: str | None
    kind: str
    name: str
    value: float | None
    timestamp: str
    metadata: str | None


@dataclass(frozen=True)
class Rejected:
    """A line that is no message, and why; the import goes on without it."""

    line: int
    reason: str


@dataclass(frozen=True)
class Batch:
    """At most `BATCH_MESSAGES` messages, with the channels and users that they name.

    Batches may repeat a channel or a user: whoever stores them keeps the first.

    Attributes:
        messages: In the order of the source.
        channels: At least those that `messages` name.
        users: At least those that `messages` name.
        feedback: Ratings and the like.
        rejected: The lines between these messages that are none.
        lines_read: How many lines of the file this batch used up; messages, where there is no file.
        progress: How much of the source this batch used up, in the unit of the source's total.
        lines: The line of each message; empty where the source has no lines.
        assumed_me: How many messages are those of `me` since their file names nobody.
    """

    messages: list[MessageRecord]
    channels: list[ChannelRecord]
    users: list[UserRecord]
    feedback: list[FeedbackRecord]
    rejected: list[Rejected]
    lines_read: int
    progress: int
    lines: list[int] = field(default_factory=list)
    assumed_me: int = 0
