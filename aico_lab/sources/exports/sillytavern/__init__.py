"""SillyTavern chats: a JSONL file for each, with a header and a line for each message.

A checkpoint or branch is a file of its own that repeats the beginning of the chat it was made from.
Messages have no ids, and most of their times no zone.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING, Any, Final

from aico_lab.messages.metadata import ATTACHMENTS
from aico_lab.sources.exports.engine.conversation import (
    ALTERNATIVES,
    MODEL,
    ExportedConversation,
    Said,
    Traits,
    Unreadable,
)
from aico_lab.sources.exports.engine.fields import (
    BROKEN_VERSIONS,
    DAMAGED,
    FLAG,
    ID,
    LIST,
    OBJECT,
    TEXT,
    fits,
    to_id,
    to_object,
    to_objects,
    to_text,
    to_utc_time,
)
from aico_lab.sources.exports.engine.json_items import shape
from aico_lab.sources.exports.engine.names import with_person, without_counter
from aico_lab.sources.exports.engine.replaced import TolerantDecoder
from aico_lab.sources.exports.sillytavern.times import to_time

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from datetime import datetime

    from aico_lab.sources.exports.engine.conversation import Options
    from aico_lab.sources.exports.engine.opened import Member, Opened
    from aico_lab.sources.exports.engine.replaced import Replaced

TRAITS: Final = Traits(ends_known=True, damage_is_near=True)

_LONGEST: Final = 64 << 20
"""Bytes of the longest line."""

_LOOKED_AT: Final = 200
"""Lines read to find the character's name and the first message."""

_BACKUPS: Final = re.compile(r"(^|/)backups/")
_UNNAMED: Final = frozenset({"", "unused", "You"})
_LINE: Final = {"name": TEXT, "send_date": ID, "is_user": FLAG, "is_system": FLAG, "extra": OBJECT}
_SWIPES: Final = {"swipes": LIST, "swipe_info": LIST}
_SWIPE: Final = {"send_date": ID}
_GAP: Final = re.compile(r"\s*")
_NOTICES: Final = frozenset(
    {
        "help",
        "welcome",
        "welcome_prompt",
        "assistant_note",
        "group",
        "empty",
        "generic",
        "slash_commands",
        "formatting",
        "hotkeys",
        "macros",
    }
)
_NOTICE_WRITER: Final = "SillyTavern System"
_MEDIA_KINDS: Final = {"image": "image", "video": "video", "audio": "audio", "file": "file"}

Line = tuple[int, dict[str, Any] | Unreadable]


def recognise(export: Opened) -> str | None:
    """Return the reason why an export has chats of SillyTavern, or None."""
    for member in _members(export):
        if _is_chat(member):
            return f"{member.name} begins as a chat of SillyTavern"
    return None


def conversations(export: Opened, options: Options) -> Generator[ExportedConversation | Unreadable]:
    """Yield the chats of an export, each checkpoint after the chats that it may repeat."""
    del options
    members = _members(export)
    if len(export.members) > 1:
        members = [member for member in members if _is_chat(member)]
    chats = sorted(map(_begin, members), key=lambda chat: (chat.main is not None, chat.member.name))
    known: set[int] = set()
    for chat in chats:
        faults: list[Unreadable] = []
        skipped: Counter[str] = Counter()
        yield ExportedConversation(
            chat.conversation_id,
            _messages(chat, faults, skipped, None if len(chats) == 1 else _Beginning(known)),
            title=chat.title,
            channel_id=chat.character,
            channel_name=chat.character,
            shared_id=chat.shared_id,
            person=chat.person,
            metadata={} if chat.main is None else {"branch_of": chat.main},
            skipped=skipped,
        )
        yield from faults


def _members(export: Opened) -> list[Member]:
    """Return the files that may be chats, without SillyTavern's own backups of them."""
    if len(export.members) == 1:
        return list(export.members)
    found = export.with_suffix(".jsonl")
    return [member for member in found if not _BACKUPS.search(member.name)] or found


def _is_chat(member: Member) -> bool:
    paths = shape(member)
    return (
        "chat_metadata" in paths
        or {"user_name", "character_name"} <= paths
        or {"mes", "is_user"} <= paths
    )


@dataclass(slots=True)
class _Chat:
    """The facts about a chat at the beginning of its file.

    Attributes:
        member: The file.
        conversation_id: The id of the conversation.
        title: The name of the file.
        character: The name of the character; None in a group.
        shared_id: The name of the file, after that of the character, if nothing else identifies a
            chat with one character.
        person: The first person in such a chat.
        main: The name of the chat from which this checkpoint was made, or None.
    """

    member: Member
    conversation_id: str
    title: str
    character: str | None
    shared_id: str | None
    person: tuple[str, ...]
    main: str | None


def _begin(member: Member) -> _Chat:
    first = [line for _, line in islice(_lines(member), _LOOKED_AT) if isinstance(line, dict)]
    header = next((line for line in first if _is_header(line)), {})
    metadata = to_object(header.get("chat_metadata"))
    said = [line for line in first if not _is_header(line) and _reason(line) is None]
    title = without_counter(member.base)
    character = _character(member, header, said)
    main = to_text(metadata.get("main_chat")) or None
    created = to_id(header.get("create_date"))
    identity = to_id(metadata.get("integrity"))
    if created is not None and to_text(header.get("character_name")) not in _UNNAMED:
        identity = f"{to_text(header['character_name'])}:{created}"
    shared = title if title.startswith(character or "") else f"{character}:{title}"
    if main is not None:
        begin = identity or (character or "" if shared == title else shared)
        shared = f"{begin}:{title}"
        identity = None if identity is None else shared
    if identity is not None or character is None:
        return _Chat(member, identity or shared, title, character, None, (), main)
    names = (to_text(line.get("name")) for line in said if _role(line) == "user")
    person = tuple(islice((name for name in names if name not in _UNNAMED), 1))
    return _Chat(member, with_person(shared, person), title, character, shared, person, main)


def _character(member: Member, header: dict[str, Any], said: list[dict[str, Any]]) -> str | None:
    """Return the name of the character from the header, the only other writer, or the folder."""
    names = {to_text(line.get("name")) for line in said if _role(line) == "assistant"} - {""}
    if len(names) > 1:
        return None
    named = to_text(header.get("character_name"))
    if named not in _UNNAMED:
        return named
    folder = PurePosixPath(member.name).parent.name
    return next(iter(names), None) or (folder if folder not in ("", "group chats") else None)


def _lines(member: Member) -> Iterator[Line]:
    """Yield the objects of a file with the numbers of their lines."""
    with member.replacing() as replaced, member.open() as stream:
        for number, line in enumerate(_raw_lines(stream), 1):
            if line is None:
                yield number, Unreadable(f"line {number:,}", "it is too long")
                continue
            text = replaced.decoded(line).removeprefix("\ufeff")
            yield from ((number, one) for one in _objects(text, number, replaced))


def _raw_lines(stream: IO[bytes]) -> Iterator[bytes | None]:
    """Yield lines, and None for one that is too long."""
    while line := stream.readline(_LONGEST):
        is_whole = len(line) < _LONGEST or line.endswith(b"\n")
        while len(line) == _LONGEST and not line.endswith(b"\n"):
            line = stream.readline(_LONGEST)
        yield line if is_whole else None


def _objects(text: str, number: int, replaced: Replaced) -> Iterator[dict[str, Any] | Unreadable]:
    """Yield the object of a line, or all of them if line breaks between them were lost."""
    decoder = TolerantDecoder()
    at = _end_of_gap(text, 0)
    while at < len(text):
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            yield Unreadable(f"line {number:,}", "the line is damaged, or torn off at its end")
            return
        if isinstance(value, dict):
            replaced.numbers += decoder.replaced
            yield value
        else:
            yield Unreadable(f"line {number:,}", "it is not an object")
        at = _end_of_gap(text, end)


def _end_of_gap(text: str, at: int) -> int:
    gap = _GAP.match(text, at)
    return at if gap is None else gap.end()


class _Beginning:
    """The beginning of a chat, which grows by each message.

    Attributes:
        is_repeated: Whether an earlier chat has the same beginning.
    """

    def __init__(self, known: set[int]) -> None:
        """Begin.

        Args:
            known: A digest of each beginning of all chats so far; grows.
        """
        self._known = known
        self._digest = hashlib.blake2b(digest_size=8)
        self.is_repeated = True

    def add(self, line: dict[str, Any]) -> None:
        """Add a message."""
        parts = [to_text(line.get("name")), to_id(line.get("send_date")), _text(line)]
        self._digest.update(json.dumps(parts).encode())
        digest = int.from_bytes(self._digest.digest(), "big")
        self.is_repeated &= digest in self._known
        self._known.add(digest)


def _messages(
    chat: _Chat, faults: list[Unreadable], skipped: Counter[str], beginning: _Beginning | None
) -> Iterator[Said]:
    for number, line in _lines(chat.member):
        if isinstance(line, Unreadable):
            faults.append(Unreadable(f"{line.where} of {chat.member.name}", line.reason))
            continue
        if _is_header(line):
            continue
        if "mes" not in line:
            where = f"line {number:,} of {chat.member.name}"
            faults.append(Unreadable(where, "the line has no text of a message"))
            continue
        if _is_damaged(line):
            skipped[DAMAGED] += 1
            continue
        if beginning is not None:
            beginning.add(line)
            if beginning.is_repeated:
                skipped["message repeated from another chat"] += 1
                continue
        extra = to_object(line.get("extra"))
        if to_text(extra.get("reasoning")).strip():
            skipped["reasoning"] += 1
        reason = _reason(line)
        if reason is not None:
            skipped[reason] += 1
            continue
        yield _said(line, extra, skipped)


def _is_damaged(line: dict[str, Any]) -> bool:
    """Return whether a field that decides what a message says has a value of a wrong type."""
    is_sound = fits(line, _LINE) and fits(to_object(line.get("extra")), {"type": TEXT})
    return not (is_sound and isinstance(_raw_text(line), str))


def _is_header(line: dict[str, Any]) -> bool:
    return "mes" not in line and bool(line.keys() & {"chat_metadata", "user_name", "create_date"})


def _reason(line: dict[str, Any]) -> str | None:
    """Return the reason why a line is no message, or None.

    `is_system` alone is no such reason, since it only hides a message from the prompt.
    """
    kind = to_text(to_object(line.get("extra")).get("type"))
    if kind == "comment":
        return "note"
    is_notice = line.get("is_system") is True and line.get("name") == _NOTICE_WRITER
    return "notice" if kind in _NOTICES or (is_notice and kind != "narrator") else None


def _role(line: dict[str, Any]) -> str:
    if to_object(line.get("extra")).get("type") == "narrator":
        return "system"
    return "user" if line.get("is_user") is True else "assistant"


def _said(line: dict[str, Any], extra: dict[str, Any], skipped: Counter[str]) -> Said:
    kept: dict[str, object] = {}
    swipes = line.get("swipes")
    if isinstance(swipes, list) and len(swipes) > 1:
        kept[ALTERNATIVES] = len(swipes) - 1
    if to_text(extra.get("model")):
        kept[MODEL] = extra["model"]
    if media := _media(extra):
        kept[ATTACHMENTS] = media
    begun, ended = to_utc_time(line.get("gen_started")), to_utc_time(line.get("gen_finished"))
    if begun is not None and ended is not None and ended >= begun:
        kept["generation_seconds"] = (ended - begun).total_seconds()
    return Said(
        _text(line),
        to_time(line.get("send_date")),
        role=_role(line),
        author=to_text(line.get("name")) or None,
        metadata=kept,
        first=_first_swipe(line, skipped),
    )


def _first_swipe(line: dict[str, Any], skipped: Counter[str]) -> tuple[datetime, str] | None:
    """Return the time and the text of the first swipe if another one, with another time, is shown.

    A swipe gives the message its own time and text, so these do not tell which message it is.
    """
    if not fits(line, _SWIPES):
        skipped[BROKEN_VERSIONS] += 1
        return None
    swipes, infos = line.get("swipes") or [], line.get("swipe_info") or []
    if len(swipes) <= 1 or not infos:
        return None
    first = infos[0]
    if not (isinstance(swipes[0], str) and isinstance(first, dict) and fits(first, _SWIPE)):
        skipped[BROKEN_VERSIONS] += 1
        return None
    time = to_time(first.get("send_date"))
    if time is None or time == to_time(line.get("send_date")):
        return None
    return time, swipes[0]


def _text(line: dict[str, Any]) -> str:
    """Return the text; in chats from Chub it is in an object."""
    return to_text(_raw_text(line))


def _raw_text(line: dict[str, Any]) -> object:
    mes = line.get("mes")
    return mes.get("message") if isinstance(mes, dict) else mes


def _media(extra: dict[str, Any]) -> list[dict[str, str]]:
    found = [{"kind": kind} for key, kind in _MEDIA_KINDS.items() if extra.get(key)]
    found += [{"kind": "file"} for _ in to_objects(extra.get("files"))]
    kinds = [to_text(one.get("type")) for one in to_objects(extra.get("media"))]
    return found + [{"kind": _MEDIA_KINDS.get(kind, "file")} for kind in kinds]
