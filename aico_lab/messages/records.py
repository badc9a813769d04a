"""The records and batches that every source yields.

The named tuples have the columns of the database's tables, so that they can be bound to INSERT
statements directly. This module does not depend on a database.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from array import array
    from collections.abc import Mapping

BATCH_MESSAGES: Final = 10_000
"""The most messages of one batch."""


class NotAMessageError(ValueError):
    """The object is not a valid message; the text is a short reason without any of its values."""


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
    """A row of `channels`."""

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


class MemoryRecord(NamedTuple):
    """A row of `memories`."""

    memory_id: str
    user_id: str
    content: str
    memory_type: str
    importance: float
    created_at: str
    metadata: str | None


class DecisionRecord(NamedTuple):
    """A row of `personality_decisions` of which nobody logged probabilities."""

    message_id: str
    user_id: str | None
    conversation_id: str
    policy: str | None
    context: str | None
    arm: str
    decided_at: str


class PolicyRecord(NamedTuple):
    """A row of `personality_policies`."""

    policy_id: str
    user_id: str
    kind: str
    parameters: str
    state: str
    rounds: int
    updated_at: str


@dataclass(frozen=True)
class Rejected:
    """A line, or a part of an export, that was rejected.

    Attributes:
        line: The number of the line, or of the message in its conversation.
        reason: Why, without a value of the file.
        where: The place in words; empty if the line says it.
    """

    line: int
    reason: str
    where: str = ""


@dataclass(frozen=True)
class Batch:
    """At most `BATCH_MESSAGES` messages of a source, with their channels and users.

    Batches may repeat a channel or a user; the importer keeps the first.

    Attributes:
        messages: Messages, in the order of the source.
        channels: Channels, at least those that `messages` name.
        users: Users, at least those that `messages` name.
        feedback: Ratings and other feedback.
        memories: Memories of the companion.
        decisions: Styles or skills that the companion chose for messages.
        policies: What the companion learned about people's liking of them.
        rejected: Invalid lines between these messages.
        lines_read: The number of lines consumed, or of messages if the source has no lines.
        progress: The amount consumed, in the unit of the source's total.
        lines: The first line of each message; empty if the source has no lines.
        assumed_me: The number of messages assigned to `me`, since their file names no user.
        skipped: The number of parts that nobody said, such as notices, by reason.
        estimated: The number of messages whose time is estimated.
        zoneless: The number of messages whose time has no zone and was read as UTC.
        local: The number of messages whose time has no zone in the file.
        whole: With the last batch of an export, the conversations that were read without damage
            from their first message in the export to the last.
        ends_known: Whether `whole` conversations have no messages before or after those in the
            export, which may otherwise be of a part of the time.
        uncompared: With the last batch of an export, the number of the other conversations.
        also_there: The ids of messages that conversations have and that cannot be read, by the
            conversation; an earlier export may have had them in a readable form.
        has_twins: Whether the messages may be stored under other ids, see `importing.twins`.
        global_ids: With the first batch of a conversation, digests of its messages' ids, if the
            product gives an id to one message only; see `importing.same_chat`.
        other_ids: With the first messages of a conversation, other ids under which it may be
            stored; see `importing.same_chat`.
        persons: With the first messages of a conversation whose id in the export other people's
            exports have too: the stored form of that id, and the spellings of its person.
        off_path: With the first batch of a conversation, the ids of its messages in branches that
            it does not take, or no longer.
        derived: The ids of messages that are derived from their texts, so that an edited message
            is stored under another one; see `importing.places`.
        settled: The ids of those of them whose text, without the mark of an edit, is no earlier or
            later text of another one: the app marks edits, and allows none any more.
        dates_differ: Whether messages may be stored at other dates, as day and month were read the
            other way round.
        read_as: With the first batch of a table, the sentence about what was recognised.
        notes: Sentences about oddities of the file, with one of its batches.
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
    skipped: Mapping[str, int] = field(default_factory=dict)
    estimated: int = 0
    zoneless: int = 0
    local: int = 0
    memories: list[MemoryRecord] = field(default_factory=list)
    decisions: list[DecisionRecord] = field(default_factory=list)
    policies: list[PolicyRecord] = field(default_factory=list)
    whole: frozenset[str] = frozenset()
    ends_known: bool = False
    uncompared: int = 0
    also_there: Mapping[str, frozenset[str]] = field(default_factory=dict)
    has_twins: bool = False
    global_ids: Mapping[str, array[int]] = field(default_factory=dict)
    other_ids: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    persons: Mapping[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)
    off_path: frozenset[str] = frozenset()
    derived: frozenset[str] = frozenset()
    settled: frozenset[str] = frozenset()
    dates_differ: bool = False
    read_as: str = ""
    notes: list[str] = field(default_factory=list)
