"""Read an export in batches, and recognise its format by its content."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from importlib import import_module
from typing import TYPE_CHECKING, Final, Protocol, cast

from aico_lab.messages.records import BATCH_MESSAGES, Batch, MessageRecord, Rejected
from aico_lab.sources.exports.engine.conversation import Options, Unreadable
from aico_lab.sources.exports.engine.opened import opened
from aico_lab.sources.exports.engine.people import Roles, count_authors
from aico_lab.sources.exports.engine.records import RecordMaker

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from aico_lab.sources.exports.engine.conversation import ExportedConversation
    from aico_lab.sources.exports.engine.opened import Opened

BATCH_CHARACTERS: Final = 8_000_000
"""Characters at which a batch ends even with few messages, to bound the memory."""


class Format(Protocol):
    """The module of a format."""

    LEAVES_ROLES_OPEN: bool
    """Whether the format may leave open which author is the companion."""

    def recognise(self, export: Opened) -> str | None:
        """Return the reason why an export has this format, or None if it has another one."""

    def conversations(
        self, export: Opened, options: Options
    ) -> Generator[ExportedConversation | Unreadable]:
        """Yield the conversations of an export, in its order."""


def module_of(name: str) -> Format:
    """Return the module of a format by its full name."""
    return cast("Format", import_module(name))


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
        SourceUnreadable: The export cannot be read at all.
        WhoIsWho: The role of authors is left open by the format, and by the options.
    """
    reads = module_of(module)
    with opened(path) as export:
        open_roles = {}
        if reads.LEAVES_ROLES_OPEN:
            open_roles = count_authors(reads.conversations(export, options))
        reader = RecordMaker(name, options, Roles(options, open_roles))
        gathering = _Gathering(reader)
        with closing(reads.conversations(export, options)) as conversations:
            for part in conversations:
                if isinstance(part, Unreadable):
                    gathering.rejected.append(Rejected(0, part.reason, part.where))
                    continue
                for outcome in reader.read(part):
                    gathering.add(outcome)
                    if gathering.is_full or gathering.total == limit:
                        gathering.skipped.update(part.skipped)
                        part.skipped.clear()
                        yield gathering.taken()
                    if gathering.total == limit:
                        return
                gathering.skipped.update(part.skipped)
        for where, reason in export.faults.reasons.items():
            gathering.rejected.append(Rejected(0, reason, where))
        yield gathering.taken()


class _Gathering:
    """The outcomes since the last batch."""

    def __init__(self, reader: RecordMaker) -> None:
        self._reader = reader
        self.total = 0
        self._begin()

    def _begin(self) -> None:
        self._messages: list[MessageRecord] = []
        self._characters = 0
        self.rejected: list[Rejected] = []
        self.skipped: Counter[str] = Counter()

    def add(self, outcome: MessageRecord | Rejected) -> None:
        """Add a message, or the reason why an item is no message."""
        if isinstance(outcome, Rejected):
            self.rejected.append(outcome)
        else:
            self._messages.append(outcome)
            self._characters += len(outcome.content)
            self.total += 1

    @property
    def is_full(self) -> bool:
        """Whether the batch must end here."""
        return (
            len(self._messages) + len(self.rejected) >= BATCH_MESSAGES
            or self._characters >= BATCH_CHARACTERS
        )

    def taken(self) -> Batch:
        """Return the outcomes as a batch, and begin another one."""
        reader = self._reader
        batch = Batch(
            messages=self._messages,
            channels=list(reader.channels.values()),
            users=list(reader.users.values()),
            feedback=reader.feedback,
            rejected=self.rejected,
            lines_read=len(self._messages) + len(self.rejected),
            progress=len(self._messages),
            skipped=self.skipped,
            estimated=reader.estimated,
            zoneless=reader.zoneless,
        )
        reader.channels, reader.users, reader.feedback = {}, {}, []
        reader.estimated = reader.zoneless = 0
        self._begin()
        return batch
