"""Turn the conversations of an export into records of messages, channels, users and feedback.

This module has the rules that all formats share: for ids, roles, texts, and missing times.
"""

from __future__ import annotations

import hashlib
import itertools
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from aico_lab.domain.values import compact_json, to_timestamp
from aico_lab.messages.context import Context, Occurrences
from aico_lab.messages.metadata import TIMESTAMP_ESTIMATED
from aico_lab.messages.records import (
    ChannelRecord,
    DecisionRecord,
    FeedbackRecord,
    MemoryRecord,
    MessageRecord,
    NotAMessageError,
    PolicyRecord,
    Rejected,
    UserRecord,
)
from aico_lab.messages.rules import MAX_ID, to_metadata, to_record
from aico_lab.messages.storable import storable, with_texts
from aico_lab.sources.exports.engine.fields import DAMAGED
from aico_lab.sources.exports.engine.moments import FileTimes, runs
from aico_lab.sources.exports.engine.people import ASSUMED
from aico_lab.sources.exports.engine.times import NO_TIMES, START_UNUSED, Clock

if TYPE_CHECKING:
    from array import array
    from collections.abc import Iterator

    from aico_lab.sources.exports.engine.conversation import (
        ExportedConversation,
        Kept,
        Learned,
        Options,
        Said,
    )
    from aico_lab.sources.exports.engine.people import Roles

TITLE: Final = "conversation_title"
"""The metadata key of the conversation's title, kept with its first message."""

AUTHOR: Final = "author"
"""The metadata key of the author's id or name, as the export has it."""

DERIVED: Final = "x-"
"""The beginning of an id that is derived from a message, in its conversation."""

_LOOKED_AT: Final = 1_000
"""The most messages read ahead, to judge the times of a conversation and to find its person."""

_OF_AN_IMPORT: Final = (
    "have the same time, that of an import: find the original export, or take the times with "
    "--trust-times"
)


class RecordMaker:
    """Turns conversations into records.

    Attributes:
        context: The state of `to_record`, which derives nothing here, as all ids are given.
        channels: The channels of the messages read so far, by id; the caller may clear them.
        users: The users of the messages read so far, by id; the caller may clear them.
        feedback: The ratings of the messages read so far; the caller may clear them.
        memories: The memories read so far; the caller may clear them.
        decisions: The decisions on the messages read so far; the caller may clear them.
        policies: The policies read so far; the caller may clear them.
        global_ids: The `global_ids` of the conversations begun so far, by id; the caller may clear
            them.
        other_ids: Other ids of the conversations begun so far, by id; the caller may clear them.
        persons: The shared ids and the persons of the conversations begun so far, by id; the caller
            may clear them.
        off_path: The ids of messages that are in other branches of the conversations begun so far;
            the caller may clear them.
        derived: The ids of the messages read so far that are derived from the messages themselves;
            the caller may clear them.
        settled: See `Batch`; the caller may clear them.
        dates_differ: See `Batch`.
        zoneless: The number of messages whose time has no zone and was read as UTC.
        local: The number of messages whose time has no zone in the export.
        estimated: The number of messages whose time is estimated.
        reading: The id of the conversation whose records are being yielded, or None.
    """

    def __init__(self, format_name: str, options: Options, roles: Roles) -> None:
        """Make records of a format.

        Args:
            format_name: The name of the format, with which every id begins.
            options: The answers of the user.
            roles: The roles of authors, where the format leaves them open.
        """
        self._format = format_name
        self._options = options
        self._roles = roles
        self.context = Context(names_users=True)
        self._start = options.start
        self._is_start_used = False
        self._file_times = FileTimes()
        self._held: list[tuple[ExportedConversation, list[Said]]] = []
        self.dates_differ = options.known_day_first is not None
        self.reading: str | None = None
        self.channels: dict[str, ChannelRecord] = {}
        self.users: dict[str, UserRecord] = {}
        self.feedback: list[FeedbackRecord] = []
        self.memories: list[MemoryRecord] = []
        self.decisions: list[DecisionRecord] = []
        self.policies: list[PolicyRecord] = []
        self.global_ids: dict[str, array[int]] = {}
        self.other_ids: dict[str, tuple[str, ...]] = {}
        self.persons: dict[str, tuple[str, tuple[str, ...]]] = {}
        self.off_path: set[str] = set()
        self.derived: set[str] = set()
        self.settled: set[str] = set()
        self.zoneless = 0
        self.local = 0
        self.estimated = 0

    def id_of(self, conversation: ExportedConversation) -> str:
        """Return the id under which a conversation is stored."""
        return joined_id(self._format, clean(conversation.conversation_id))

    def also_there(self, conversation: ExportedConversation) -> frozenset[str]:
        """Return the ids under which messages are stored that cannot be read here."""
        name = self.id_of(conversation)
        return frozenset(joined_id(name, clean(one)) for one in conversation.also_there)

    def notes(self, messages: int) -> list[str]:
        """Return sentences about answers of the user that no message needed.

        Args:
            messages: The number of messages of the export.
        """
        is_idle = self._options.start is not None and not self._is_start_used
        return [START_UNUSED] if messages and is_idle else []

    def read(self, conversation: ExportedConversation) -> Iterator[MessageRecord | Rejected]:
        """Yield a record of each message, or the reason why the message cannot be stored.

        Small conversations are held back as long as all messages of the file have one time: see
        `finish`.
        """
        messages = iter(conversation.messages)
        ahead = list(itertools.islice(messages, _LOOKED_AT))
        if not ahead:
            return
        is_small = len(ahead) < _LOOKED_AT and any(said.time is not None for said in ahead)
        if self._options.trust_times or self._file_times.are_real or not is_small:
            yield from self._read(conversation, ahead, messages)
            return
        self._file_times.note(ahead)
        self._held.append((conversation, ahead))
        if self._file_times.are_real:
            yield from self._released()

    def finish(self) -> Iterator[MessageRecord | Rejected]:
        """Yield the records of the conversations that `read` held back.

        They are refused if all conversations of the file have the time of one import.
        """
        if self._file_times.are_of_an_import:
            for conversation, _ in self._held:
                yield Rejected(0, f"all conversations {_OF_AN_IMPORT}", _place_of(conversation))
            self._held = []
        yield from self._released()

    def _released(self) -> Iterator[MessageRecord | Rejected]:
        held, self._held = self._held, []
        for conversation, ahead in held:
            yield from self._read(conversation, ahead, iter(()))

    def _read(
        self, conversation: ExportedConversation, ahead: list[Said], messages: Iterator[Said]
    ) -> Iterator[MessageRecord | Rejected]:
        """Yield the records of a conversation.

        Args:
            conversation: The conversation.
            ahead: Its first messages.
            messages: The messages after them.
        """
        self._note_ids(conversation)
        where = _place_of(conversation)
        times = [said.time for said in ahead if said.time is not None]
        first = conversation.started or (times[0] if times else None)
        paced = not times and first is None
        if paced and self._start is None:
            yield Rejected(0, NO_TIMES, where)
            return
        self._is_start_used |= paced
        clock = Clock(self._options, self._start if paced else first, paced=paced)
        writer = _Writer(self, self._format, conversation, self._person(conversation, ahead))
        for number, (said, is_import) in enumerate(self._timed(conversation, ahead, messages), 1):
            if isinstance(said, Rejected):
                yield said
                return
            try:
                time, guessed = clock.time(said.time)
                estimated = guessed or is_import
                self.estimated += estimated
                is_local = said.time is not None and said.time.tzinfo is None
                self.local += is_local
                self.zoneless += is_local and self._options.zone is None
                role = said.role or self._roles.of(conversation.conversation_id, said)
                yield writer.record(said, role, time, estimated=estimated)
            except NotAMessageError as refused:
                yield Rejected(number, str(refused), f"{where}, message {number:,}")
            except OverflowError:
                reason = "the time lies outside the years 1 to 9999 in UTC"
                yield Rejected(number, reason, f"{where}, message {number:,}")
            except ValueError as missing:
                yield Rejected(number, str(missing), f"{where}, message {number:,}")
        if paced:
            self._start = clock.next

    def _note_ids(self, conversation: ExportedConversation) -> None:
        """Note the ids of a conversation that begins."""
        self.reading = name = self.id_of(conversation)
        if conversation.global_ids is not None:
            self.global_ids[name] = conversation.global_ids
        if conversation.other_ids:
            others = (joined_id(self._format, clean(one)) for one in conversation.other_ids)
            self.other_ids[name] = tuple(others)
        if conversation.shared_id is not None:
            shared = joined_id(self._format, clean(conversation.shared_id))
            self.persons[name] = shared, tuple(map(clean, conversation.person))
        if not conversation.skipped[DAMAGED]:  # else the branch may be another one
            self.off_path |= {joined_id(name, clean(one)) for one in conversation.off_path}

    def _timed(
        self, conversation: ExportedConversation, ahead: list[Said], messages: Iterator[Said]
    ) -> Iterator[tuple[Said | Rejected, bool]]:
        """Yield messages, each with whether its time is that of an import.

        If all messages have such a time, one `Rejected` takes their place.
        """
        every = itertools.chain(ahead, messages)
        if self._options.trust_times:
            yield from ((said, False) for said in every)
            return
        in_runs = runs(every, has_seconds=conversation.has_seconds)
        first, second = next(in_runs, None), next(in_runs, None)
        if first is None:
            return
        if second is None and first.is_of_an_import(whole=True):
            reason = f"all {len(first):,} messages {_OF_AN_IMPORT}"
            yield Rejected(0, reason, _place_of(conversation)), False
            return
        for run in itertools.chain([first], () if second is None else [second], in_runs):
            is_import = run.is_of_an_import(whole=False)
            yield from ((said, is_import) for said in run)

    def remember(self, kept: Kept) -> Rejected | None:
        """Note a memory and its person, or return the reason why it cannot be stored."""
        person, content = clean(kept.person), clean(kept.content)
        if kept.time is None or not content or not 0 < len(person) <= MAX_ID:
            return Rejected(0, "it has no text, no time or no person", "a memory")
        stamp = to_timestamp(kept.time if kept.time.tzinfo else kept.time.replace(tzinfo=UTC))
        self.memories.append(
            MemoryRecord(
                joined_id(self._format, clean(kept.memory_id)),
                person,
                content,
                kept.kind,
                kept.importance,
                stamp,
                to_metadata(_cleaned_object(kept.metadata)) if kept.metadata else None,
            )
        )
        self.users.setdefault(person, UserRecord(person, None, stamp, None))
        return None

    def learn(self, learned: Learned) -> Rejected | None:
        """Note a policy and its person, or return the reason why it cannot be stored."""
        person = clean(learned.person)
        if learned.changed is None or not 0 < len(person) <= MAX_ID:
            return Rejected(0, "it has no time or no person", "learned skills")
        stamp = to_timestamp(learned.changed)
        pairs = [pair for arms in learned.contexts.values() for pair in arms.values()]
        self.policies.append(
            PolicyRecord(
                clean(learned.policy),
                person,
                "thompson",
                compact_json({"arms": learned.arms}),
                compact_json({"contexts": learned.contexts, "preferences": learned.preferences}),
                round(sum(max(alpha + beta - 2, 0) for alpha, beta in pairs)),
                stamp,
            )
        )
        self.users.setdefault(person, UserRecord(person, None, stamp, None))
        return None

    def _person(self, conversation: ExportedConversation, ahead: list[Said]) -> str | None:
        """Return the id of the person who talks with the companion; None in a group."""
        if conversation.is_group:
            return None
        if not conversation.names_person:
            return self._options.me or ASSUMED
        for said in ahead:
            role = said.role or self._roles.of(conversation.conversation_id, said)
            if role == "user" and said.author is not None:
                return clean(said.author)
        return self._options.me or ASSUMED


def clean(text: str) -> str:
    """Return text as it is stored: without NUL, half surrogates, CR LF and blanks at its ends."""
    return storable(text.replace("\r\n", "\n")).strip()


def _cleaned_object(metadata: dict[str, object]) -> dict[str, object]:
    """Return metadata with clean texts, without those that are None."""
    return {name: with_texts(value, clean) for name, value in metadata.items() if value is not None}


class _Writer:
    """Makes the records of one conversation."""

    def __init__(
        self,
        reader: RecordMaker,
        format_name: str,
        conversation: ExportedConversation,
        person: str | None,
    ) -> None:
        self._reader = reader
        self._conversation = conversation
        self._person = person
        self._occurrences = Occurrences()
        self._id = reader.id_of(conversation)
        self._channel = (
            self._id
            if conversation.channel_id is None
            else joined_id(format_name, clean(conversation.channel_id))
        )
        self._is_first = True

    def record(self, said: Said, role: str, time: datetime, *, estimated: bool) -> MessageRecord:
        """Return the record of a message, and note its channel, user and feedback.

        Args:
            said: The message.
            role: Its role.
            time: Its time in UTC.
            estimated: Whether the time is not the message's own.

        Raises:
            NotAMessageError: The message cannot be stored.
        """
        metadata = _cleaned_object(said.metadata)
        if estimated:
            metadata[TIMESTAMP_ESTIMATED] = True
        if said.author is not None:
            metadata[AUTHOR] = clean(said.author)
        if self._is_first and self._conversation.title:
            metadata[TITLE] = clean(self._conversation.title)
        self._is_first = False
        content = clean(said.content)
        record = to_record(
            {
                "message_id": self._message_id(said, role, content),
                "conversation_id": self._id,
                "channel_id": self._channel,
                "user_id": self._user(said, role),
                "role": role,
                "content": content,
                "timestamp": to_timestamp(time),
                "reply_to": None
                if said.reply_to is None
                else joined_id(self._id, clean(said.reply_to)),
                "metadata": metadata or None,
            },
            self._reader.context,
        )
        self._note(said, record)
        return record

    def _user(self, said: Said, role: str) -> str | None:
        if role == "user":
            is_named = said.author is not None and self._conversation.names_person
            return clean(said.author or "") if is_named else self._person or ASSUMED
        return self._person if role == "assistant" else None

    def _message_id(self, said: Said, role: str, content: str) -> str:
        """Return the id of a message, which the answers about zone and companion do not change."""
        if said.message_id is not None:
            return joined_id(self._id, clean(said.message_id))
        begun = said.time
        if said.first is not None:
            begun, content = said.first[0], clean(said.first[1])
        time = "" if begun is None else begun.isoformat()
        who = ("", role) if said.author is None else (clean(said.author), "")
        parts = "\0".join((self._id, time, *who, content))
        digest = hashlib.sha256(parts.encode())
        digest.update(b"\0%d" % self._occurrences.next(digest.digest()))
        name = joined_id(self._id, f"{DERIVED}{digest.hexdigest()[:32]}")
        self._reader.derived.add(name)
        if said.is_settled:
            self._reader.settled.add(name)
        return name

    def _note(self, said: Said, record: MessageRecord) -> None:
        reader, conversation = self._reader, self._conversation
        known = reader.channels.get(self._channel)
        if known is None or record.timestamp < known.created_at:
            name = conversation.channel_name or conversation.title
            reader.channels[self._channel] = ChannelRecord(
                self._channel,
                clean(name) if name else None,
                "group" if conversation.is_group else "direct",
                record.timestamp,
                to_metadata(_cleaned_object(conversation.metadata))
                if conversation.metadata
                else None,
            )
        if record.user_id is not None:
            user = reader.users.get(record.user_id)
            own = said.author_name if record.role == "user" else None
            is_earlier = user is None or record.timestamp < user.created_at
            if user is None or is_earlier or (own and user.name is None):
                reader.users[record.user_id] = UserRecord(
                    record.user_id,
                    (clean(own) if own else None) or (user.name if user else None),
                    record.timestamp if user is None or is_earlier else user.created_at,
                    None,
                )
        if said.chosen is not None:
            reader.decisions.append(
                DecisionRecord(
                    record.message_id,
                    self._person,
                    record.conversation_id,
                    said.chosen.policy,
                    said.chosen.context,
                    clean(said.chosen.arm),
                    record.timestamp,
                )
            )
        for rating in said.ratings:
            time = rating.time
            if time is not None and time.tzinfo is None:
                time = time.replace(tzinfo=UTC)
            stamp = record.timestamp if time is None else to_timestamp(time)
            name = clean(rating.name)
            reader.feedback.append(
                FeedbackRecord(
                    joined_id(record.message_id, name),
                    clean(rating.author) if rating.author else self._person,
                    record.conversation_id,
                    record.message_id,
                    "rating",
                    name,
                    rating.value,
                    stamp,
                    None,
                )
            )


def _place_of(conversation: ExportedConversation) -> str:
    return f"conversation {clean(conversation.title or conversation.conversation_id)[:60]!r}"


def joined_id(begin: str, end: str) -> str:
    """Return an id made of two parts, shortened by a hash if it is too long."""
    joined = f"{begin}:{end}"
    if len(joined) <= MAX_ID:
        return joined
    digest = hashlib.sha256(joined.encode()).hexdigest()[:32]
    return f"{joined[: MAX_ID - 33]}-{digest}"
