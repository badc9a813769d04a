"""AICO's folder of data: conversations in LMDB (working memory) and Chroma (long-term memory).

The libSQL database has no messages, only feedback on them, skills chosen for them, and memories.
Any of the three may be missing.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, TypeAlias

from aico_lab.adapters.lmdb_readonly import MAGIC, MAGIC_AT
from aico_lab.errors import DatabaseLocked, LibraryMissing, StorageError
from aico_lab.sources.exports.aico.feedback import read_feedback
from aico_lab.sources.exports.aico.memory import (
    SEGMENTS,
    WORKING,
    Remembered,
    conversations_in,
    read_segments,
    read_working,
    united,
)
from aico_lab.sources.exports.aico.skills import spoken
from aico_lab.sources.exports.engine.conversation import (
    Chosen,
    ExportedConversation,
    Kept,
    Learned,
    Rating,
    Said,
    Traits,
    Unreadable,
)
from aico_lab.sources.exports.engine.databases import columns, database, databases

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from aico_lab.adapters.libsql import Connection
    from aico_lab.sources.exports.engine.conversation import Options
    from aico_lab.sources.exports.engine.opened import Member, Opened

Notes: TypeAlias = "dict[str, list[Rating | Chosen]]"
"""Ratings and chosen skills, by the id or `spoken` name of their message."""

TRAITS: Final = Traits(has_twins=True)


def recognise(export: Opened) -> str | None:
    """Return the reason why an export is AICO's, or None."""
    for member in _stores(export):
        try:
            with database(export, member) as connection:
                found = connection.fetch_one("SELECT 1 FROM collections WHERE name = ?", [SEGMENTS])
        except StorageError:
            continue
        if found:
            return f"{member.name} has the collection {SEGMENTS}"
    for member in _working(export):
        return f"{member.name} has the database {WORKING}"
    return None


def conversations(
    export: Opened, options: Options
) -> Generator[ExportedConversation | Kept | Learned | Unreadable]:
    """Yield the conversations of an export, after the memories of its database."""
    del options
    working: dict[str, list[Remembered]] = {}
    feedback: Notes = {}
    yield from _gather_working(export, working)
    yield from _gather_feedback(export, feedback)
    for member in _stores(export):
        try:
            with database(export, member) as connection:
                yield from _of_store(connection, working, feedback)
        except DatabaseLocked:
            raise
        except StorageError:
            yield Unreadable(f"long-term memory in {member.name}", "the database is damaged")
    for name, messages in working.items():
        yield _conversation(name, united([], messages), feedback)
    if feedback:
        left = Counter(type(one) for notes in feedback.values() for one in notes)
        skipped = Counter(
            {
                f"{what} a forgotten message": left[kind]
                for kind, what in ((Rating, "feedback on"), (Chosen, "skill for"))
                if left[kind]
            }
        )
        yield ExportedConversation("feedback", [], skipped=skipped)


def _gather_working(export: Opened, working: dict[str, list[Remembered]]) -> Iterator[Unreadable]:
    """Add the messages of working memory by conversation, and yield what cannot be read."""
    for member in _working(export):
        where = f"working memory in {member.name}"
        try:
            for name, message in read_working(member):
                working.setdefault(name, []).append(message)
        except LibraryMissing:
            yield Unreadable(where, "it needs `pip install 'aico-lab[aico]'`")
        except StorageError:
            yield Unreadable(where, "the file is damaged")


def _gather_feedback(export: Opened, feedback: Notes) -> Iterator[Kept | Learned | Unreadable]:
    """Add ratings and chosen skills by message, and yield the rest and what cannot be read."""
    for part in read_feedback(export):
        if isinstance(part, Kept | Learned | Unreadable):
            yield part
        else:
            feedback.setdefault(part[0], []).append(part[1])


def _of_store(
    connection: Connection,
    working: dict[str, list[Remembered]],
    feedback: Notes,
) -> Iterator[ExportedConversation | Unreadable]:
    """Yield the conversations of long-term memory, with messages that only working memory has."""
    for name in conversations_in(connection):
        try:
            segments = read_segments(connection, name)
        except StorageError:
            yield Unreadable(f"conversation {name[:64]}", "the database is damaged here")
            segments = []
        yield _conversation(name, united(segments, working.pop(name, [])), feedback)


def _stores(export: Opened) -> Iterator[Member]:
    """Yield the databases of Chroma."""
    for member in databases(export):
        if columns(export, member, "embedding_metadata"):
            yield member


def _working(export: Opened) -> Iterator[Member]:
    """Yield the LMDB files with working memory; AICO has other LMDB files too."""
    for member in export.members:
        if member.suffix == ".mdb" and member.head()[MAGIC_AT:].startswith(MAGIC):
            with member.open() as stream:
                last = b""
                while piece := stream.read(1 << 20):
                    if WORKING.encode() in last + piece:
                        yield member
                        break
                    last = piece[-len(WORKING) :]


def _conversation(name: str, messages: list[Remembered], feedback: Notes) -> ExportedConversation:
    skipped: Counter[str] = Counter()
    said = []
    for message in messages:
        if message.role is None:
            skipped["message of another role"] += 1
            continue
        ratings: dict[str, Rating] = {}
        chosen: Chosen | None = None
        by_text = spoken(name, message.content) if message.role == "assistant" else None
        for key in (message.message_id, message.other_id, by_text):
            for note in feedback.pop(key, []) if key else []:
                if isinstance(note, Rating):
                    ratings[note.name] = note
                else:
                    chosen = chosen or note
        said.append(
            Said(
                message.content,
                message.time,
                role=message.role,
                author=message.user if message.role == "user" else None,
                message_id=message.message_id,
                ratings=list(ratings.values()),
                chosen=chosen,
            )
        )
    person = next((message.user for message in messages if message.user), None)
    return ExportedConversation(
        name,
        said,
        channel_id=person or "aico",
        channel_name="AICO",
        skipped=skipped,
    )
