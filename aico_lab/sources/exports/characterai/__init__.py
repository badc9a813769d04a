"""Character.AI chats: turns as the site sends them, or the histories of the old site.

Turns come newest first. A turn has candidates; the primary one, original or edited, is the one with
which the conversation continued.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from aico_lab.messages.metadata import ATTACHMENTS, EDITED_AT
from aico_lab.sources.exports.characterai.histories import histories, is_of_histories
from aico_lab.sources.exports.engine.conversation import (
    ALTERNATIVES,
    ExportedConversation,
    Said,
    Traits,
    Unreadable,
)
from aico_lab.sources.exports.engine.fields import (
    DAMAGED,
    FLAG,
    ID,
    TEXT,
    fits,
    to_id,
    to_object,
    to_objects,
    to_text,
    to_utc_time,
)
from aico_lab.sources.exports.engine.json_items import items, shape
from aico_lab.sources.exports.engine.stored import Seen, Shelf

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator
    from datetime import datetime

    from aico_lab.sources.exports.engine.conversation import Options
    from aico_lab.sources.exports.engine.opened import Member, Opened
    from aico_lab.sources.exports.engine.stored import StoredRow

TRAITS: Final = Traits()

_TURN: Final = re.compile(rb'"(turns|turn_key|candidates|primary_candidate_id)"\s*:')
_NEEDED: Final = frozenset({"turn_key", "candidates"})


_TURN_TYPES: Final = {
    "turn_key": (dict,),
    "candidates": (list,),
    "primary_candidate_id": ID,
    "state": TEXT,
}
_AUTHOR: Final = {"is_human": FLAG, "author_id": ID, "name": TEXT}
_CANDIDATE: Final = {"candidate_id": ID, "raw_content": (str,)}


def recognise(export: Opened) -> str | None:
    """Return the reason why an export has chats of Character.AI, or None."""
    for member in _members(export):
        paths = shape(member)
        if any(path.endswith("item.turn_key") for path in paths):
            return f"{member.name} has turns with candidates"
        if is_of_histories(paths):
            return f"{member.name} has messages whose source is human or not"
    return None


def conversations(export: Opened, options: Options) -> Generator[ExportedConversation | Unreadable]:
    """Yield the chats of an export."""
    del options
    for member in _members(export):
        if _TURN.search(member.head()):
            parts: Iterable[ExportedConversation | Unreadable] = _chats(member)
        else:
            parts = histories(member, is_alone=len(export.members) == 1)
        for part in parts:
            if isinstance(part, Unreadable):
                yield Unreadable(f"{part.where} of {member.name}", part.reason)
            else:
                yield part


def _members(export: Opened) -> list[Member]:
    return list(export.members) if len(export.members) == 1 else export.with_suffix(".json")


def _chats(member: Member) -> Iterator[ExportedConversation | Unreadable]:
    """Yield the chats of a file of turns, mostly one."""
    chats: dict[str, _Chat] = {}
    seen = Seen()
    number = 0
    turns = items(member, _prefix(member), needs=_NEEDED, what="turn")
    with Shelf() as shelf:
        for number, turn in enumerate(turns, 1):
            if isinstance(turn, Unreadable):
                yield turn
                continue
            chat_id = to_id(to_object(turn.get("turn_key")).get("chat_id"))
            if chat_id is None:
                reason: str | None = "the turn does not say to which chat it belongs"
            else:
                if chat_id not in chats:
                    chats[chat_id] = _Chat(chat_id, shelf, seen)
                reason = chats[chat_id].add(turn)
            if reason is not None:
                yield Unreadable(f"turn {number}", reason)
        if not number:
            yield Unreadable("the list", "it has no turns")
        for chat in chats.values():
            yield chat.conversation()


def _prefix(member: Member) -> str:
    if not member.head().lstrip().startswith(b"["):
        return "turns.item"
    pages = any(path.startswith("item.turns") for path in shape(member))
    return "item.turns.item" if pages else "item"


class _Chat:
    """The turns of one chat."""

    def __init__(self, chat_id: str, shelf: Shelf, seen: Seen) -> None:
        self._id = chat_id
        self._rows = shelf.begin(newest_first=True)
        self._seen = seen
        self._people: set[str] = set()
        self._characters: dict[str, str | None] = {}
        self.skipped: Counter[str] = Counter()

    def add(self, turn: dict[str, Any]) -> str | None:
        """Add a turn; return the reason if that is not possible."""
        author = turn.get("author")
        if not isinstance(author, dict):
            return "the turn does not say who wrote it"
        turn_id = to_id(to_object(turn.get("turn_key")).get("turn_id"))
        candidates = to_objects(turn.get("candidates"))
        if _is_damaged(turn):
            self.skipped[DAMAGED] += 1
            return None
        chosen = _chosen(candidates, turn.get("primary_candidate_id"))
        if chosen is None:
            self.skipped["turn without a text"] += 1
            return None
        if "DELETED" in to_text(turn.get("state")).upper():
            self.skipped["deleted message"] += 1
            return None
        if not self._seen.add(self._id, turn_id):
            self.skipped["repeated message"] += 1
            return None
        is_human = author.get("is_human") is True
        name = to_text(author.get("name")) or None
        author_id = to_id(author.get("author_id")) or name
        if author_id is not None and is_human:
            self._people.add(author_id)
        elif author_id is not None:
            self._characters.setdefault(author_id, name)
        time = to_utc_time(turn.get("create_time")) or _first_time(candidates)
        self._rows.append(
            [
                turn_id,
                None if time is None else time.isoformat(),
                is_human,
                author_id,
                name,
                to_text(chosen.get("raw_content")),
                _metadata(chosen, candidates),
            ],
            time,
        )
        return None

    def conversation(self) -> ExportedConversation:
        """Return the conversation; in a room with several characters the channel is the room."""
        is_room = len(self._characters) > 1
        return ExportedConversation(
            self._id,
            map(_said, self._rows.oldest_first()),
            channel_id=None if is_room else next(iter(self._characters), None),
            channel_name=", ".join(sorted(filter(None, self._characters.values()))) or None,
            is_group=len(self._people) > 1,
            skipped=self.skipped,
        )


def _is_damaged(turn: dict[str, Any]) -> bool:
    """Return whether a field that decides what a turn says has a value of a wrong type."""
    if not (fits(turn, _TURN_TYPES) and fits(turn["author"], _AUTHOR)):
        return True
    sound = (isinstance(one, dict) and fits(one, _CANDIDATE) for one in turn["candidates"])
    return to_id(turn["turn_key"].get("turn_id")) is None or not all(sound)


def _chosen(candidates: list[dict[str, Any]], primary: object) -> dict[str, Any] | None:
    """Return the primary candidate, or else the newest one (of several, the first in the file)."""
    for candidate in candidates:
        if primary is not None and candidate.get("candidate_id") == primary:
            return candidate
    return max(candidates, key=_seconds, default=None)


def _seconds(candidate: dict[str, Any]) -> float:
    time = to_utc_time(candidate.get("create_time"))
    return float("-inf") if time is None else time.timestamp()


def _first_time(candidates: list[dict[str, Any]]) -> datetime | None:
    times = [to_utc_time(candidate.get("create_time")) for candidate in candidates]
    return min((time for time in times if time), key=lambda time: time.timestamp(), default=None)


def _metadata(chosen: dict[str, Any], candidates: list[dict[str, Any]]) -> dict[str, object]:
    kept: dict[str, object] = {}
    if len(candidates) > 1:
        kept[ALTERNATIVES] = len(candidates) - 1
    if to_text(chosen.get("tti_image_rel_path")):
        kept[ATTACHMENTS] = [{"kind": "image"}]
    edited = to_utc_time(chosen.get("create_time"))
    if edited is not None and (chosen.get("base_candidate_id") or chosen.get("editor")):
        kept[EDITED_AT] = edited.isoformat()
    return kept


def _said(row: StoredRow) -> Said:
    turn_id, time, is_human, author_id, name, text, metadata = row
    return Said(
        to_text(text),
        to_utc_time(time),
        role="user" if is_human else "assistant",
        author=to_id(author_id),
        author_name=to_text(name) or None,
        message_id=to_id(turn_id),
        metadata=to_object(metadata),
    )
