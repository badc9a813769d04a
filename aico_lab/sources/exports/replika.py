"""Replika chats, as replika_backup writes them in CSV, or replika-chat-export in JSON.

Replika itself has no export. In the CSV a line break within a text is written as backslash and n,
so that a line is a message; older backups have real line breaks, also without quotation marks.
"""

from __future__ import annotations

import csv
import re
from array import array
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from aico_lab.messages.identity import digest
from aico_lab.messages.metadata import ATTACHMENTS, REACTIONS
from aico_lab.messages.storable import storable
from aico_lab.sources.exports.engine.conversation import (
    ExportedConversation,
    Rating,
    Said,
    Traits,
    Unreadable,
)
from aico_lab.sources.exports.engine.fields import (
    DAMAGED,
    TEXT,
    fits,
    to_id,
    to_object,
    to_text,
    to_time,
)
from aico_lab.sources.exports.engine.json_items import items, shape
from aico_lab.sources.exports.engine.names import without_date
from aico_lab.sources.exports.engine.stored import Seen, Shelf

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from aico_lab.sources.exports.engine.conversation import Options
    from aico_lab.sources.exports.engine.opened import Member, Opened
    from aico_lab.sources.exports.engine.stored import Stored, StoredRow

TRAITS: Final = Traits()

_COLUMNS: Final = ("timestamp", "from", "text", "reaction", "id")
_ROLES: Final = {"me": "user", "rep": "assistant"}
_BEGIN: Final = re.compile(
    r'"?\d{4}-\d\d-\d\d[T ]\d\d:\d\d|[^,]{0,64},(Me|Rep),.*,[^,]*,[0-9A-Fa-f]{16,64}$'
)
"""Start of a message: its time, or, if that is damaged, another complete row."""

_NEXT: Final = re.compile(r"(?<=.)(?=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z,(?:Me|Rep),)")
"""Where another message begins within a line."""

_ID: Final = re.compile(r"[0-9A-Fa-f]{16,64}")
_LONGEST: Final = 1 << 20
"""Bytes of the longest line."""

_LINES: Final = 1_000
"""The most lines of one message."""

_VALUES: Final = {
    "upvote": 1.0,
    "like": 1.0,
    "love": 1.0,
    "downvote": -1.0,
    "dislike": -1.0,
    "offensive": -1.0,
    "meaningless": -1.0,
}
"""The value of a reaction; others, such as Funny, are neither good nor bad."""

_COMPANION: Final = "Robot"
_NEEDED: Final = frozenset({"content", "meta"})
_ITEM: Final = {"id": (str, int), "content": (dict,)}
_CONTENT: Final = {"type": TEXT, "text": TEXT}
_KINDS: Final = {"voice_message": "audio", "images": "image"}


def recognise(export: Opened) -> str | None:
    """Return the reason why an export has a chat of Replika, or None."""
    for member in export.members:
        if _is_backup(member):
            return f"{member.name} has the columns of replika_backup"
        if {"item.content", "item.meta.nature"} <= shape(member):
            return f"{member.name} has messages with the nature of their writer"
    return None


def conversations(export: Opened, options: Options) -> Generator[ExportedConversation | Unreadable]:
    """Yield the chats of an export."""
    del options
    is_alone = len(export.members) == 1
    seen = Seen()
    for member in export.members:
        is_json = b'"nature"' in member.head()
        if not (is_alone or is_json or _is_backup(member)):
            continue
        with Shelf() as shelf:
            chats = _Chats(shelf, seen)
            parts = _messages(member, chats) if is_json else _rows(member, chats)
            for part in parts:
                yield Unreadable(f"{part.where} of {member.name}", part.reason)
            for chat in chats.values():
                yield chat.conversation()


def _is_backup(member: Member) -> bool:
    line = member.head().decode("utf-8", "replace").partition("\n")[0]
    return [cell.strip(' "\r').casefold() for cell in line.split(",")] == list(_COLUMNS)


class _Chats(dict[str, "_Chat"]):
    """The chats of a file by id; other files of the export may have the same messages."""

    def __init__(self, shelf: Shelf, seen: Seen) -> None:
        super().__init__()
        self._shelf = shelf
        self._seen = seen

    def of(self, chat_id: str, *, newest_first: bool) -> _Chat:
        """Return a chat, begun if it is new."""
        if chat_id not in self:
            rows = self._shelf.begin(newest_first=newest_first)
            self[chat_id] = _Chat(chat_id, rows, self._seen)
        return self[chat_id]


class _Chat:
    """The messages of one chat in a file."""

    def __init__(self, chat_id: str, rows: Stored, seen: Seen) -> None:
        self._id = chat_id
        self._rows = rows
        self._seen = seen
        self._ids = array("Q")
        self.skipped: Counter[str] = Counter()

    def add(self, message_id: str | None, time: str, author: str, role: str, *rest: object) -> None:
        """Add a message, unless it is repeated: an updated backup may overlap an older one."""
        if self._seen.add(self._id, message_id):
            if message_id is not None:
                self._ids.append(digest(storable(message_id)))
            self._rows.append([message_id, time, author, role, *rest], to_time(time))
        else:
            self.skipped["repeated message"] += 1

    def conversation(self) -> ExportedConversation:
        """Return the conversation."""
        return ExportedConversation(
            self._id,
            map(_said, self._rows.oldest_first()),
            channel_name="Replika",
            names_person=False,
            global_ids=self._ids,
            skipped=self.skipped,
        )


def _said(row: StoredRow) -> Said:
    message_id, time, author, role, text, reaction, media = row
    said = Said(
        to_text(text),
        to_time(time),
        role=to_text(role),
        author=to_text(author),
        message_id=to_id(message_id),
        metadata={ATTACHMENTS: [{"kind": media}]} if media else {},
    )
    name = to_text(reaction)
    if name and role == "assistant":
        said.ratings.append(Rating(name, _VALUES.get(name.casefold())))
    elif name:
        said.metadata[REACTIONS] = [{"emoji": name, "count": 1}]
    return said


# The CSV of replika_backup


def _rows(member: Member, chats: _Chats) -> Iterator[Unreadable]:
    """Read a CSV file into `chats`; yield the lines that are no messages."""
    is_newest_first = not member.name.lower().endswith((".on.csv", ".rf.csv"))
    chat = chats.of(without_date(member.base), newest_first=is_newest_first)
    for number, lines in _records(member):
        fields, left_over = _fields(lines)
        if fields is None or left_over:
            yield Unreadable(
                f"line {number + (fields is not None):,}", "the line is no row of five cells"
            )
        if fields is None:
            continue
        time, sender, text, reaction, message_id = fields
        role = _ROLES.get(sender.strip().casefold())
        if role is None:
            yield Unreadable(f"line {number:,}", "the sender is neither Me nor Rep")
            continue
        named = "" if reaction.strip().casefold() in ("none", "") else reaction.strip()
        words = text.replace("\\n", "\n")
        chat.add(to_id(message_id), time.strip(), sender.strip(), role, words, named, None)


def _records(member: Member) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of each message's first line, and its lines."""
    begun = number = 0
    lines: list[str] = []
    with member.replacing() as replaced, member.open() as stream:
        while line := stream.readline(_LONGEST):
            number += 1
            for text in _apart(replaced.decoded(line).removeprefix("\ufeff")):
                if _BEGIN.match(text) or len(lines) >= _LINES:
                    if lines:
                        yield begun, lines
                    begun, lines = number, [text]
                elif lines:
                    lines.append(text)
                elif text.strip() and number > 1:
                    yield number, [text]
    while lines and not lines[-1].strip():
        lines.pop()
    if lines:
        yield begun, lines


def _apart(line: str) -> list[str]:
    """Return the line, or several messages if the line breaks between them were lost."""
    text = line.rstrip("\r\n")
    if _NEXT.search(text) is None:
        return [text]
    try:
        cells = next(csv.reader([text]), [])
    except csv.Error:
        cells = []
    return [text] if len(cells) == len(_COLUMNS) else _NEXT.split(text)


def _fields(lines: list[str]) -> tuple[list[str] | None, bool]:
    """Return the five cells of a message, and whether the lines after them belong to no message."""
    if len(lines) > 1:
        first = _cells(lines[:1])
        if first is not None and (_ID.fullmatch(first[4]) or not any(lines[1:])):
            return first, any(line.strip() for line in lines[1:])
    return _cells(lines), False


def _cells(lines: list[str]) -> list[str] | None:
    """Return the five cells of a row; line breaks and commas without quotes belong to its text."""
    try:
        rows = list(csv.reader([f"{line}\n" for line in lines]))
    except csv.Error:
        return None
    cells: list[str] = []
    for row in rows:
        if cells and row:
            cells[-1] += "\n" + row[0]
            cells += row[1:]
        elif cells:
            cells[-1] += "\n"
        else:
            cells = row
    if len(cells) < len(_COLUMNS):
        return None
    return [*cells[:2], ",".join(cells[2:-2]), *cells[-2:]]


# The JSON of replika-chat-export


def _messages(member: Member, chats: _Chats) -> Iterator[Unreadable]:
    """Read a JSON file into `chats`; yield the items that are no messages."""
    number = 0
    for number, item in enumerate(items(member, "item", needs=_NEEDED, what="message"), 1):
        if isinstance(item, Unreadable):
            yield item
            continue
        meta = to_object(item.get("meta"))
        chat_id, nature = to_id(meta.get("chat_id")), to_text(meta.get("nature"))
        if chat_id is None or not nature:
            yield Unreadable(
                f"message {number:,}", "the item does not say who wrote it, or in which chat"
            )
            continue
        chat = chats.of(chat_id, newest_first=False)
        if not (fits(item, _ITEM) and fits(item["content"], _CONTENT)):
            chat.skipped[DAMAGED] += 1
            continue
        kind = to_text(to_object(item.get("content")).get("type")) or "text"
        if "service" in kind:
            chat.skipped["notice"] += 1
            continue
        chat.add(
            to_id(item.get("id")),
            to_text(meta.get("timestamp")),
            nature,
            "assistant" if nature == _COMPANION else "user",
            *_content(item, kind),
        )
    if not number:
        yield Unreadable("the list", "it has no messages")


def _content(item: dict[str, Any], kind: str) -> list[object]:
    """Return the text, the reaction, and the kind of attachment of a message."""
    text = to_text(to_object(item.get("content")).get("text"))
    return [text, None, None if kind == "text" else _KINDS.get(kind, "file")]
