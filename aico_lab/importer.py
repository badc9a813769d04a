"""Write batches of records into the primary database, each in one transaction, without doubles."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aico_lab.rescoring import score_with_stored
from aico_lab.sources.records import (
    ChannelRecord,
    FeedbackRecord,
    MessageRecord,
    Rejected,
    UserRecord,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from aico_lab.adapters.libsql import Connection
    from aico_lab.sources.records import Batch

REJECTED_SHOWN = 1_000
"""Rejected lines that are kept with their reason; all are counted."""


@dataclass(slots=True)
class ImportResult:
    """What an import did.

    Attributes:
        read: Messages that were well formed.
        added: Messages that were new.
        known: Messages that were there already.
        rejected: Lines that could not be taken.
        examples: The first of them, with line number and reason.
    """

    read: int = 0
    added: int = 0
    known: int = 0
    rejected: int = 0
    examples: list[Rejected] = field(default_factory=list)


def import_batches(
    connection: Connection,
    batches: Iterable[Batch],
    *,
    progress: Callable[[Batch], None] | None = None,
) -> ImportResult:
    """Add what is new in the batches.

    A message, channel or user that is there already stays as it is. What was added before an
    interruption stays, so running the same import again completes it.

    Args:
        connection: The primary database.
        batches: What a source yields.
        progress: Told of every batch that was committed.
    """
    result = ImportResult()
    for batch in batches:
        result.read += len(batch.messages)
        result.rejected += len(batch.rejected)
        result.examples += batch.rejected[: REJECTED_SHOWN - len(result.examples)]
        with connection.transaction():
            result.added += _write(connection, batch)
        result.known = result.read - result.added
        if progress:
            progress(batch)
    return result


def _write(connection: Connection, batch: Batch) -> int:
    """Add what is new of one batch; say how many messages that was."""
    known = {
        message_id
        for (message_id,) in connection.fetch_all(
            "SELECT message_id FROM messages WHERE message_id IN (SELECT value FROM json_each(?))",
            [json.dumps([message.message_id for message in batch.messages])],
        )
    }
    new = {
        message.message_id: message
        for message in reversed(batch.messages)  # of equal ids the first one wins
        if message.message_id not in known
    }
    messages = score_with_stored(connection, list(reversed(new.values())))
    write_batch(connection, batch, messages)
    return len(messages)


def write_batch(connection: Connection, batch: Batch, messages: list[MessageRecord]) -> None:
    """Add messages that are new, with whatever else of their batch is new.

    Args:
        connection: Inside a transaction.
        batch: The channels, people and feedback.
        messages: Those of its messages that are not there yet.
    """
    known_stay = "ON CONFLICT DO NOTHING"
    connection.insert_many("users", UserRecord._fields, batch.users, on_conflict=known_stay)
    connection.insert_many(
        "channels", ChannelRecord._fields, batch.channels, on_conflict=known_stay
    )
    connection.insert_many("messages", MessageRecord._fields, messages)
    connection.insert_many(
        "feedback_events", FeedbackRecord._fields, batch.feedback, on_conflict=known_stay
    )
    _count(connection, messages)


def _count(connection: Connection, messages: list[MessageRecord]) -> None:
    """Keep each channel's count of messages and its last activity right."""
    counts = Counter(message.channel_id for message in messages)
    last: dict[str, str] = {}
    for message in messages:
        last[message.channel_id] = max(message.timestamp, last.get(message.channel_id, ""))
    # All in one statement: see ROWS_A_STATEMENT of the adapter.
    connection.execute(
        "UPDATE channels SET message_count = message_count + (new.value ->> 1), "
        "last_active = max(coalesce(last_active, ''), new.value ->> 2) "
        "FROM json_each(?) AS new WHERE channel_id = new.value ->> 0",
        [json.dumps([(channel, count, last[channel]) for channel, count in counts.items()])],
    )
