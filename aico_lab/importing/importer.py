"""Write batches of records into the primary database, one transaction each, without duplicates."""

from __future__ import annotations

import gc
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

from aico_lab.errors import InvalidValue
from aico_lab.importing.classifying import (
    WHERE_GIVEN,
    Classified,
    Planned,
    count_dangling,
    mend_replies,
)
from aico_lab.importing.disappearing import Present, mark_off_path, unmark
from aico_lab.importing.import_log import ImportLog
from aico_lab.importing.places import Places
from aico_lab.importing.rescoring import score_with_stored
from aico_lab.importing.same_chat import SameChats
from aico_lab.importing.twins import Twins
from aico_lab.messages.records import (
    ChannelRecord,
    DecisionRecord,
    FeedbackRecord,
    MemoryRecord,
    MessageRecord,
    PolicyRecord,
    Rejected,
    UserRecord,
)
from aico_lab.messages.timestamps import plausible_times
from aico_lab.runtime.garbage_collector import without_garbage_collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from aico_lab.adapters.libsql import Connection
    from aico_lab.messages.records import Batch

OnConflict = Literal["keep", "replace"]

LINES_KEPT = 1_000
"""The most lines of each kind that a result lists; all are counted."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """A message that differs from another one with the same conversation and id.

    Attributes:
        line: The line where the message begins; None if the source has no lines.
        message_id: The message's id, if the source has no lines; else None.
    """

    line: int | None
    message_id: str | None


@dataclass(slots=True)
class ImportResult:
    """The counts of an import.

    Attributes:
        read: Valid messages.
        added: Messages that were new.
        known: Messages that were stored already.
        conflicts: Messages with the conversation and id of another one, but another content, role
            or timestamp.
        conflict_examples: The first `LINES_KEPT` conflicts.
        dangling: New replies to messages that are not stored: these were refused, or deleted before
            the export, or are in another file. Not known in a dry run.
        qualified: New messages whose id another conversation uses too, stored under the id
            `<conversation_id>:<message_id>`.
        assumed_me: Messages of the user `me`, which is assumed for files that name no user.
        far_times: Messages from before 1990 or after tomorrow.
        far_lines: The first lines of those messages, if the source has lines.
        rejected: Invalid lines, or parts of an export that could not be read.
        examples: The first `LINES_KEPT` of those, with place and reason.
        skipped: What an export has beside messages, such as notices, counted by reason.
        feedback: Ratings and other feedback that the source has.
        memories: Memories of the companion that the source has.
        decisions: Messages for which the source says which style or skill the companion chose.
        estimated: Messages whose time is estimated.
        zoneless: Messages whose time has no zone and was read as UTC.
        updated: Stored messages that were updated.
        missing: Stored messages that were marked, since the export no longer has them, or has them
            in a branch that their conversation left.
        uncompared: With deletions, conversations that were not compared with the stored ones, since
            they are damaged or were read in part.
        returned: Stored messages whose mark was removed, since the source has them again.
        local: Messages whose time has no zone in the file, whatever zone it was read in.
        people: Different people who wrote as users.
        conversations: Different conversations of the messages.
        channels: The ids of the first `LINES_KEPT` channels of the messages.
        first: The first time of a message in UTC, or None.
        last: The last one.
        read_as: For a table, the sentence about what was recognised.
        notes: Sentences about oddities of the file.
        on_conflict: The treatment of messages in conflict.
        import_id: The id by which `aico-lab forget --import` undoes the import; None if it wrote
            nothing.
    """

    read: int = 0
    added: int = 0
    known: int = 0
    conflicts: int = 0
    conflict_examples: list[Conflict] = field(default_factory=list)
    dangling: int = 0
    qualified: int = 0
    assumed_me: int = 0
    far_times: int = 0
    far_lines: list[int] = field(default_factory=list)
    rejected: int = 0
    examples: list[Rejected] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)
    feedback: int = 0
    memories: int = 0
    decisions: int = 0
    estimated: int = 0
    zoneless: int = 0
    updated: int = 0
    missing: int = 0
    uncompared: int = 0
    returned: int = 0
    local: int = 0
    people: int = 0
    conversations: int = 0
    channels: list[str] = field(default_factory=list)
    first: str | None = None
    last: str | None = None
    read_as: str = ""
    notes: list[str] = field(default_factory=list)
    on_conflict: OnConflict = "keep"
    import_id: str | None = field(default=None, compare=False)

    def look_at(self, batch: Batch) -> None:
        """Add the counts of a batch that are known before it is written."""
        self.read += len(batch.messages)
        self.assumed_me += batch.assumed_me
        self.rejected += len(batch.rejected)
        self.examples += batch.rejected[: LINES_KEPT - len(self.examples)]
        for reason, count in batch.skipped.items():
            self.skipped[reason] = self.skipped.get(reason, 0) + count
        self.feedback += len(batch.feedback)
        self.memories += len(batch.memories)
        self.decisions += len(batch.decisions)
        self.estimated += batch.estimated
        self.zoneless += batch.zoneless
        self.local += batch.local
        self.read_as = self.read_as or batch.read_as
        self.notes += batch.notes
        times = [message.timestamp for message in batch.messages]
        self.first = min([*times, *filter(None, [self.first])], default=None)
        self.last = max([*times, *filter(None, [self.last])], default=None)
        first, end = plausible_times()
        far = [
            place
            for place, message in enumerate(batch.messages)
            if not first <= message.timestamp < end
        ]
        self.far_times += len(far)
        if batch.lines:
            self.far_lines += [batch.lines[at] for at in far[: LINES_KEPT - len(self.far_lines)]]

    def add(self, batch: Batch, classified: Classified) -> None:
        """Add the counts of a batch that was written."""
        self.added += len(classified.new)
        self.qualified += classified.qualified
        self.conflicts += len(classified.conflicts)
        self.updated += len(classified.edits)
        self.returned += len(classified.returned)
        self.known = self.read - self.added - self.conflicts
        for place in classified.conflicts[: LINES_KEPT - len(self.conflict_examples)]:
            self.conflict_examples.append(
                Conflict(batch.lines[place], None)
                if batch.lines
                else Conflict(None, batch.messages[place].message_id)
            )


def check_on_conflict(value: str) -> None:
    """Raise InvalidValue unless the value is 'keep' or 'replace'."""
    if value not in get_args(OnConflict):
        raise InvalidValue(f"on_conflict is {' or '.join(get_args(OnConflict))}, not {value!r}.")


def import_batches(
    connection: Connection,
    batches: Iterable[Batch],
    *,
    source: str | None = None,
    on_conflict: OnConflict = "keep",
    dry_run: bool = False,
    deletions: bool = False,
    progress: Callable[[Batch], None] | None = None,
) -> ImportResult:
    """Import batches: add new messages, channels, users and feedback.

    Channels and users that are stored already stay unchanged. Batches committed before an
    interruption stay, so running the same import again completes it.

    Args:
        connection: The primary database.
        batches: The batches of a source.
        source: The name of the source, under which the import is recorded; None records nothing.
        on_conflict: If a stored message with the same conversation and id differs in content, role
            or timestamp, 'keep' leaves it unchanged, 'replace' updates it.
        dry_run: Count what would be done, and write nothing.
        deletions: Mark stored messages of conversations that the batches hold whole, if the batches
            do not have them.
        progress: Called with every batch when it is done.

    Raises:
        InvalidValue: `on_conflict` is another value.
    """
    check_on_conflict(on_conflict)
    result = ImportResult(on_conflict=on_conflict)
    people: set[str] = set()
    conversations: set[str] = set()
    channels: dict[str, None] = {}
    elsewhere = False
    present = Present()
    twins, chats, places = Twins(connection), SameChats(connection), Places(connection)
    planned: Planned = {}
    [(last,)] = connection.fetch_all("SELECT coalesce(max(id), 0) FROM messages")
    log = ImportLog(connection, None if dry_run else source, after=last)
    with without_garbage_collector(), connection.bulk():
        for read in batches:
            batch = twins.as_stored(read) if read.has_twins else chats.as_stored(read)
            batch = places.as_stored(batch)
            result.look_at(batch)
            with connection.transaction():
                classified = Classified(
                    connection, batch.messages, replace=on_conflict == "replace", planned=planned
                )
                if dry_run:
                    classified.plan(planned)
                else:
                    _write(connection, batch, classified, log)
            result.add(batch, classified)
            people.update(
                one.user_id
                for one in batch.messages
                if one.role == "user" and one.user_id is not None
            )
            conversations.update(one.conversation_id for one in batch.messages)
            channels.update((one.channel_id, None) for one in batch.messages)
            elsewhere |= classified.elsewhere
            if batch.off_path and not (deletions and dry_run):  # which counts them below
                result.missing += mark_off_path(
                    connection, batch.off_path, log=log, dry_run=dry_run
                )
            if deletions:
                present.note(batch.messages, classified.stored_ids)
                for name, unread in batch.also_there.items():
                    present.note_unread(name, unread)
                result.uncompared += batch.uncompared
                if batch.whole:
                    result.missing += present.mark_others(
                        connection,
                        batch.whole,
                        ends_known=batch.ends_known,
                        log=log,
                        dry_run=dry_run,
                    )
            if progress:
                progress(batch)
            gc.collect(0)
    result.people = len(people)
    result.conversations = len(conversations)
    result.channels = list(channels)[:LINES_KEPT]
    if elsewhere and not dry_run:
        mend_replies(connection, log)
    if result.added and not dry_run:
        result.dangling = count_dangling(connection, last)
    log.finish(read=result.read, added=result.added, updated=result.updated)
    result.import_id = log.import_id
    return result


def _write(connection: Connection, batch: Batch, classified: Classified, log: ImportLog) -> None:
    """Score and write the new messages and the edits of one batch."""
    messages = score_with_stored(connection, [*classified.new, *classified.edits])
    new, edits = messages[: len(classified.new)], messages[len(classified.new) :]
    if batch.assumed_me:  # an edit must not overwrite the author with an assumed one
        edits = [edit._replace(user_id=None) for edit in edits]
    log.changing([*(edit.message_id for edit in edits), *classified.returned])
    with log.adding():
        write_batch(connection, batch, new, edits)
    if edits:
        _replace(connection, edits)
    if classified.returned:
        unmark(connection, classified.returned)


def write_batch(
    connection: Connection,
    batch: Batch,
    messages: list[MessageRecord],
    edits: Sequence[MessageRecord] = (),
) -> None:
    """Insert new messages of a batch, with its new channels, users, feedback and the like.

    Args:
        connection: The primary database, inside a transaction.
        batch: The batch.
        messages: The messages of the batch that are not stored yet.
        edits: The messages of the batch that replace stored ones; only their users are written.
    """
    known_stay = "ON CONFLICT DO NOTHING"
    named = {message.user_id for message in (*messages, *edits)}
    named |= {event.user_id for event in batch.feedback}
    named |= {memory.user_id for memory in batch.memories}
    named |= {policy.user_id for policy in batch.policies}
    users = [user for user in batch.users if user.user_id in named]
    connection.insert_many("users", UserRecord._fields, users, on_conflict=known_stay)
    used = {message.channel_id for message in messages}
    channels = [channel for channel in batch.channels if channel.channel_id in used]
    connection.insert_many("channels", ChannelRecord._fields, channels, on_conflict=known_stay)
    connection.insert_many("messages", MessageRecord._fields, messages)
    connection.insert_many(
        "feedback_events", FeedbackRecord._fields, batch.feedback, on_conflict=known_stay
    )
    connection.insert_many("memories", MemoryRecord._fields, batch.memories, on_conflict=known_stay)
    connection.insert_many(
        "personality_decisions", DecisionRecord._fields, batch.decisions, on_conflict=known_stay
    )
    connection.insert_many(
        "personality_policies",
        PolicyRecord._fields,
        batch.policies,
        on_conflict="ON CONFLICT (policy_id) DO UPDATE SET parameters = excluded.parameters, "
        "state = excluded.state, rounds = excluded.rounds, updated_at = excluded.updated_at "
        "WHERE excluded.rounds > personality_policies.rounds",
    )


def _replace(connection: Connection, edits: list[MessageRecord]) -> None:
    """Update messages in place; fields that the edit does not give keep their values.

    The user of a message that turns out to be the companion's is none of these. The score is one,
    as long as the content stays the same. If a batch reverts its own edit of a stored message,
    nothing is written and no change is logged.
    """
    said = ("role", "content", "timestamp", *WHERE_GIVEN)
    score = ("sentiment_score", "sentiment_source")
    place = {name: f"?{number}" for number, name in enumerate(("message_id", *said, *score), 1)}
    new = {name: place[name] for name in said}
    new |= {name: f"coalesce({place[name]}, {name})" for name in WHERE_GIVEN}
    is_users = f"(role <> 'user' OR {place['role']} = 'user')"
    new["user_id"] = f"coalesce({place['user_id']}, iif({is_users}, user_id, NULL))"
    same = f"content IS {place['content']} AND {place['sentiment_source']} IS NOT 'given'"
    scores = {name: f"iif({same}, {name}, {place[name]})" for name in score}
    connection.execute_many(
        # A score alone is not an edit: it depends on the batch in which it is computed.
        f"UPDATE messages SET ({', '.join(new | scores)}) = ({', '.join((new | scores).values())}) "
        f"WHERE message_id = ?1 AND ({', '.join(new)}) IS NOT ({', '.join(new.values())})",
        [tuple(getattr(edit, name) for name in place) for edit in edits],
    )
