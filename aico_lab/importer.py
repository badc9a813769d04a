"""Write batches of records into the primary database, each in one transaction, without doubles."""

from __future__ import annotations

import gc
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

from aico_lab.collector import without_garbage_collector
from aico_lab.errors import InvalidValue
from aico_lab.placing import Placing, mend_replies
from aico_lab.rescoring import score_with_stored
from aico_lab.sources.records import (
    ChannelRecord,
    FeedbackRecord,
    MessageRecord,
    Rejected,
    UserRecord,
    plausible_times,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from aico_lab.adapters.libsql import Connection
    from aico_lab.sources.records import Batch

OnConflict = Literal["keep", "replace"]

LINES_KEPT = 1_000
"""Lines of each kind that a result names; all are counted."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """A message that differs from another one of the same conversation and id.

    Attributes:
        line: Where it begins; None where the source has no lines.
        message_id: Its id, where the source has no lines.
    """

    line: int | None
    message_id: str | None


@dataclass(slots=True)
class ImportResult:
    """What an import did.

    Attributes:
        read: Messages that were well formed.
        added: Messages that were new.
        known: Messages that were there already.
        conflicts: Messages that have the conversation and the id of another one, with another
            content, role or timestamp.
        conflict_examples: The first of them.
        qualified: How many of the new ones have an id that another conversation has too, and are
            stored as `<conversation_id>:<message_id>`.
        assumed_me: Messages of a file that names nobody, whose user is therefore `me`.
        far_times: Messages from before 1990 or after tomorrow.
        far_lines: The first lines of them, where the source has lines.
        rejected: Lines that could not be taken.
        examples: The first of them, with line number and reason.
    """

    read: int = 0
    added: int = 0
    known: int = 0
    conflicts: int = 0
    conflict_examples: list[Conflict] = field(default_factory=list)
    qualified: int = 0
    assumed_me: int = 0
    far_times: int = 0
    far_lines: list[int] = field(default_factory=list)
    rejected: int = 0
    examples: list[Rejected] = field(default_factory=list)

    def look_at(self, batch: Batch) -> None:
        """Count what can be said of a batch before it is written."""
        self.read += len(batch.messages)
        self.assumed_me += batch.assumed_me
        self.rejected += len(batch.rejected)
        self.examples += batch.rejected[: LINES_KEPT - len(self.examples)]
        first, end = plausible_times()
        far = [
            place
            for place, message in enumerate(batch.messages)
            if not first <= message.timestamp < end
        ]
        self.far_times += len(far)
        if batch.lines:
            self.far_lines += [batch.lines[at] for at in far[: LINES_KEPT - len(self.far_lines)]]

    def add(self, batch: Batch, placing: Placing) -> None:
        """Count what became of a batch."""
        self.added += len(placing.new)
        self.qualified += placing.qualified
        self.conflicts += len(placing.conflicts)
        self.known = self.read - self.added - self.conflicts
        for place in placing.conflicts[: LINES_KEPT - len(self.conflict_examples)]:
            self.conflict_examples.append(
                Conflict(batch.lines[place], None)
                if batch.lines
                else Conflict(None, batch.messages[place].message_id)
            )


def check_on_conflict(value: str) -> None:
    """Do nothing if this says what becomes of conflicts.

    Raises:
        InvalidValue: It is neither 'keep' nor 'replace'.
    """
    if value not in get_args(OnConflict):
        raise InvalidValue(f"on_conflict is {' or '.join(get_args(OnConflict))}, not {value!r}.")


def import_batches(
    connection: Connection,
    batches: Iterable[Batch],
    *,
    on_conflict: OnConflict = "keep",
    progress: Callable[[Batch], None] | None = None,
) -> ImportResult:
    """Add what is new in the batches.

    A message, channel or user that is there already stays as it is. What was added before an
    interruption stays, so running the same import again completes it.

    Args:
        connection: The primary database.
        batches: What a source yields.
        on_conflict: What becomes of a message that is there with another content, role or
            timestamp: 'keep' leaves it as it is, 'replace' takes the new one for an edit of it.
        progress: Told of every batch that was committed.

    Raises:
        InvalidValue: `on_conflict` is something else.
    """
    check_on_conflict(on_conflict)
    result = ImportResult()
    elsewhere = False
    with without_garbage_collector(), connection.bulk():
        for batch in batches:
            result.look_at(batch)
            with connection.transaction():
                placing = Placing(connection, batch.messages, replace=on_conflict == "replace")
                _write(connection, batch, placing)
            result.add(batch, placing)
            elsewhere |= placing.elsewhere
            if progress:
                progress(batch)
            gc.collect(0)
    if elsewhere:
        mend_replies(connection)
    return result


def _write(connection: Connection, batch: Batch, placing: Placing) -> None:
    """Add what is new of one batch, and write what replaces something."""
    messages = score_with_stored(connection, [*placing.new, *placing.edits])
    new, edits = messages[: len(placing.new)], messages[len(placing.new) :]
    if batch.assumed_me:  # who wrote an edit is not given, but assumed
        edits = [edit._replace(user_id=None) for edit in edits]
    write_batch(connection, batch, new, edits)
    if edits:
        _replace(connection, edits)


def write_batch(
    connection: Connection,
    batch: Batch,
    messages: list[MessageRecord],
    edits: Sequence[MessageRecord] = (),
) -> None:
    """Add messages that are new, with whatever else of their batch is new.

    Args:
        connection: Inside a transaction.
        batch: The channels, people and feedback.
        messages: Those of its messages that are not there yet.
        edits: Those of its messages that replace others.
    """
    known_stay = "ON CONFLICT DO NOTHING"
    named = {message.user_id for message in (*messages, *edits)}
    named |= {event.user_id for event in batch.feedback}
    users = [user for user in batch.users if user.user_id in named]
    connection.insert_many("users", UserRecord._fields, users, on_conflict=known_stay)
    used = {message.channel_id for message in messages}
    channels = [channel for channel in batch.channels if channel.channel_id in used]
    connection.insert_many("channels", ChannelRecord._fields, channels, on_conflict=known_stay)
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


def _replace(connection: Connection, edits: list[MessageRecord]) -> None:
    """Edit messages; each keeps its row and its place, and what the edit does not give.

    Where a file takes its own edit back, nothing is written, and no change is logged.
    """
    always = ("role", "content", "timestamp", "sentiment_score", "sentiment_source")
    scores = {"sentiment_score", "sentiment_source"}
    where_given = ("user_id", "response_time", "reply_to", "metadata")
    names = [*always, *where_given]
    columns = f"({', '.join(names)})"
    new = [f"?{place}" for place in range(2, len(always) + 2)]
    new += [
        f"coalesce(?{place}, {name})" for place, name in enumerate(where_given, len(always) + 2)
    ]
    values = f"({', '.join(new)})"
    pairs = zip(names, new, strict=True)
    said, says = zip(*((name, value) for name, value in pairs if name not in scores), strict=True)
    connection.execute_many(
        # A score that comes out otherwise, in another batch, is no edit.
        f"UPDATE messages SET {columns} = {values} WHERE message_id = ?1 "
        f"AND ({', '.join(said)}) IS NOT ({', '.join(says)})",
        [(edit.message_id, *(getattr(edit, name) for name in names)) for edit in edits],
    )
    # A time may have moved back, and with it the last activity of the channel.
    last = "(SELECT max(timestamp) FROM messages WHERE channel_id = channels.channel_id)"
    connection.execute(
        f"UPDATE channels SET last_active = {last} WHERE last_active IS NOT {last} "
        "AND channel_id IN (SELECT channel_id FROM messages JOIN json_each(?) AS edit "
        "ON message_id = edit.value)",
        [json.dumps([edit.message_id for edit in edits])],
    )
