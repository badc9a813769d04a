"""Read an export in batches."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from itertools import chain
from typing import TYPE_CHECKING, Final, Protocol

from aico_lab.messages.records import BATCH_MESSAGES, Batch, MessageRecord, Rejected
from aico_lab.sources.exports.engine.conversation import (
    ExportedConversation,
    Kept,
    Learned,
    Options,
    Unreadable,
)
from aico_lab.sources.exports.engine.fields import BROKEN_VERSIONS, DAMAGED
from aico_lab.sources.exports.engine.opened import opened
from aico_lab.sources.exports.engine.people import Roles, count_authors
from aico_lab.sources.exports.engine.recognition import is_empty, misnamed, module_of
from aico_lab.sources.exports.engine.records import RecordMaker

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from pathlib import Path

    from aico_lab.sources.exports.engine.conversation import Traits
    from aico_lab.sources.exports.engine.opened import Opened

_INCOMPLETE: Final = (
    DAMAGED, BROKEN_VERSIONS, "message repeated from another chat"
)  # fmt: skip
"""Reasons for which messages are skipped that may have been read from an earlier export."""

BATCH_CHARACTERS: Final = 8_000_000
"""Characters at which a batch ends even with few messages, to bound the memory."""


_MOST_HELD: Final = 1_000
"""The most messages of one time that wait for the next batch, to be together with later ones."""


class Format(Protocol):
    """The module of a format."""

    TRAITS: Traits

    def recognise(self, export: Opened) -> str | None:
        """Return the reason why an export has this format, or None if it has another one."""

    def conversations(
        self, export: Opened, options: Options
    ) -> Generator[ExportedConversation | Kept | Learned | Unreadable]:
        """Yield the conversations of an export in its order, and what its companion remembers."""


def read(
    name: str, module: str, path: Path, *, limit: int | None, options: Options
) -> Iterator[Batch]:
    """Yield the messages of an export in batches.

    Args:
        name: The name of the format.
        module: The full name of its module.
        path: The file, folder or archive.
        limit: The most messages to read.
        options: The answers of the user.

    Raises:
        SourceMissing: The file does not exist.
        SourceUnreadable: The export cannot be read at all, or it does not look like the format and
            has no message in it.
        WhoIsWho: The role of authors is left open by the format, and by the options.
    """
    reads = module_of(module)
    with opened(path) as export:
        recognised = reads.recognise(export) is not None or is_empty(export)
        open_roles = {}
        if reads.TRAITS.leaves_roles_open:
            open_roles = count_authors(reads.conversations(export, options))
        reader = RecordMaker(name, options, Roles(options, open_roles))
        gathering = _Gathering(reader, has_twins=reads.TRAITS.has_twins)
        complete = _Complete(reads.TRAITS)
        with closing(reads.conversations(export, options)) as conversations:
            for part in chain(conversations, (None,)):
                outcomes, skipped = _begin(part, reader, gathering, complete)
                for outcome in outcomes:
                    gathering.add(outcome)
                    if isinstance(outcome, Rejected):
                        complete.note_broken(reader.reading)
                    if gathering.is_full or gathering.total == limit:
                        complete.note_skipped(skipped)
                        gathering.skipped.update(skipped)
                        skipped.clear()
                        if gathering.total == limit:
                            complete.note_broken(reader.reading)
                            yield gathering.taken(complete, export.notes())
                            return
                        yield gathering.taken()
                complete.note_skipped(skipped)
                gathering.skipped.update(skipped)
                gathering.note_unread(part)
        found = gathering.total or reader.memories or export.faults.reasons
        if not found and not recognised:
            raise misnamed(export, name)
        for where, reason in export.faults.reasons.items():
            gathering.rejected.append(Rejected(0, reason, where))
            complete.note_damage(far=True)
        yield gathering.taken(complete, export.notes() + reader.notes(gathering.total))


def _begin(
    part: ExportedConversation | Kept | Learned | Unreadable | None,
    reader: RecordMaker,
    gathering: _Gathering,
    complete: _Complete,
) -> tuple[Iterator[MessageRecord | Rejected], Counter[str]]:
    """Return the outcomes of a part, and what it skips; of the end of the export if it is None."""
    if isinstance(part, Unreadable):
        gathering.rejected.append(Rejected(0, part.reason, part.where))
        complete.note_damage()
    elif isinstance(part, Kept | Learned):
        refused = reader.remember(part) if isinstance(part, Kept) else reader.learn(part)
        gathering.rejected += [] if refused is None else [refused]
    elif part is None:
        return reader.finish(), Counter()
    else:
        complete.begin(reader.id_of(part))
        return reader.read(part), part.skipped
    return iter(()), Counter()


class _Complete:
    """Tells which conversations were read from beginning to end without damage."""

    def __init__(self, traits: Traits) -> None:
        self._is_near = traits.damage_is_near
        self.ends_known = traits.ends_known
        self._read: set[str] = set()
        self._broken: set[str] = set()
        self._last: str | None = None
        self._damage_before = self._damage_anywhere = False
        self._damage_is_far = False

    @property
    def whole(self) -> frozenset[str]:
        """The conversations that are whole, after everything was read."""
        if self._damage_is_far or (self._damage_anywhere and not self._is_near):
            return frozenset()
        return frozenset(self._read - self._broken)

    @property
    def broken(self) -> int:
        """The number of the other conversations."""
        return len(self._read - self.whole)

    def begin(self, conversation_id: str) -> None:
        """Note the beginning of a conversation."""
        self._last = conversation_id
        self._read.add(conversation_id)
        if self._damage_before:
            self._broken.add(conversation_id)
        self._damage_before = False

    def note_broken(self, conversation_id: str | None) -> None:
        """Note that a conversation lacks a message."""
        if conversation_id is not None:
            self._broken.add(conversation_id)

    def note_damage(self, *, far: bool = False) -> None:
        """Note damage between conversations.

        Args:
            far: Whether the damage may be in any conversation, not only in a neighbour.
        """
        self._damage_is_far |= far
        self.note_broken(self._last)
        self._damage_before = self._damage_anywhere = True

    def note_skipped(self, skipped: Counter[str]) -> None:
        """Note the parts of a conversation that were skipped."""
        if any(skipped.get(reason) for reason in _INCOMPLETE):
            self.note_broken(self._last)


class _Gathering:
    """The outcomes since the last batch."""

    def __init__(self, reader: RecordMaker, *, has_twins: bool) -> None:
        self._reader = reader
        self._has_twins = has_twins
        self.total = 0
        self._begin()

    def _begin(self) -> None:
        self._messages: list[MessageRecord] = []
        self._characters = 0
        self.rejected: list[Rejected] = []
        self.skipped: Counter[str] = Counter()
        self.also_there: dict[str, frozenset[str]] = {}

    def add(self, outcome: MessageRecord | Rejected) -> None:
        """Add a message, or the reason why an item is no message."""
        if isinstance(outcome, Rejected):
            self.rejected.append(outcome)
        else:
            self._messages.append(outcome)
            self._characters += len(outcome.content)
            self.total += 1

    def note_unread(self, part: ExportedConversation | Kept | Learned | Unreadable | None) -> None:
        """Note the messages of a conversation that cannot be read, after all others were."""
        if isinstance(part, ExportedConversation) and part.also_there:
            self.also_there[self._reader.id_of(part)] = self._reader.also_there(part)

    @property
    def is_full(self) -> bool:
        """Whether the batch must end here."""
        return (
            len(self._messages) + len(self.rejected) >= BATCH_MESSAGES
            or self._characters >= BATCH_CHARACTERS
        )

    def taken(self, complete: _Complete | None = None, notes: Sequence[str] = ()) -> Batch:
        """Return the outcomes as a batch, and begin another one.

        Args:
            complete: With the last batch, the conversations that were read.
            notes: With the last batch, sentences about oddities of the export.
        """
        reader = self._reader
        messages = self._messages
        held: list[MessageRecord] = []
        if complete is None and reader.derived:
            messages, held = _without_last_moment(messages)
        later = {one.message_id for one in held}
        batch = Batch(
            messages=messages,
            channels=list(reader.channels.values()),
            users=list(reader.users.values()),
            feedback=[one for one in reader.feedback if one.message_id not in later],
            memories=reader.memories,
            decisions=[one for one in reader.decisions if one.message_id not in later],
            policies=reader.policies,
            rejected=self.rejected,
            lines_read=len(messages) + len(self.rejected),
            progress=len(messages),
            skipped=self.skipped,
            estimated=reader.estimated,
            zoneless=reader.zoneless,
            local=reader.local,
            whole=frozenset() if complete is None else complete.whole,
            ends_known=complete is not None and complete.ends_known,
            uncompared=0 if complete is None else complete.broken,
            also_there=self.also_there,
            has_twins=self._has_twins,
            global_ids=reader.global_ids,
            other_ids=reader.other_ids,
            persons=reader.persons,
            off_path=frozenset(reader.off_path),
            derived=frozenset(reader.derived - later),
            settled=frozenset(reader.settled - later),
            dates_differ=reader.dates_differ,
            notes=list(notes),
        )
        channels = {one.channel_id for one in held}
        users = {one.user_id for one in held}
        reader.channels = {name: one for name, one in reader.channels.items() if name in channels}
        reader.users = {name: one for name, one in reader.users.items() if name in users}
        reader.feedback = [one for one in reader.feedback if one.message_id in later]
        reader.decisions = [one for one in reader.decisions if one.message_id in later]
        reader.memories, reader.policies, reader.global_ids = [], [], {}
        waiting = {one.conversation_id for one in held}
        reader.other_ids = {
            name: others for name, others in reader.other_ids.items() if name in waiting
        }
        reader.persons = {
            name: shared for name, shared in reader.persons.items() if name in waiting
        }
        reader.off_path = set()
        reader.derived &= later
        reader.settled &= later
        reader.estimated = reader.zoneless = reader.local = 0
        self._begin()
        self._messages = held
        self._characters = sum(len(one.content) for one in held)
        return batch


def _without_last_moment(
    messages: list[MessageRecord],
) -> tuple[list[MessageRecord], list[MessageRecord]]:
    """Return messages without those of the last one's time, and these, unless they are many.

    Where messages have no ids, those of one time are told apart by their order.
    """
    cut = len(messages)
    while cut and messages[cut - 1].timestamp == messages[-1].timestamp:
        cut -= 1
    is_few = len(messages) - cut <= _MOST_HELD
    return (messages[:cut], messages[cut:]) if is_few else (messages, [])
