r"""Telegram Desktop's export in JSON: `result.json` of one chat, or of a whole account.

Telegram Desktop writes this JSON by hand, and not always well: `\x01` for control characters, and
paths without quotation marks. Both are mended while the file is read.
"""

from __future__ import annotations

import re
import zlib
from array import array
from bisect import bisect_left
from collections import Counter
from datetime import UTC, datetime
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Final

from aico_lab.messages.metadata import ATTACHMENTS, EDITED_AT, REACTIONS
from aico_lab.sources.exports.engine.conversation import (
    ExportedConversation,
    Said,
    Traits,
    Unreadable,
)
from aico_lab.sources.exports.engine.fields import DAMAGED, to_id, to_text, to_time
from aico_lab.sources.exports.engine.json_items import shape
from aico_lab.sources.exports.engine.message_arrays import chats
from aico_lab.sources.exports.engine.names import with_person

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from aico_lab.sources.exports.engine.conversation import Options
    from aico_lab.sources.exports.engine.opened import Member, Opened

TRAITS: Final = Traits(leaves_roles_open=True, damage_is_near=True)

_NEEDED: Final = frozenset({"id", "type", "date"})
_DATES: Final = frozenset({"date", "date_unixtime"})
_NOT_GROUPS: Final = frozenset({"personal_chat", "bot_chat", "saved_messages"})

_ESCAPE: Final = re.compile(rb"\\(?:x([0-9A-Fa-f]{2})|.)", re.DOTALL)
_BARE_PATH: Final = re.compile(
    rb'("document_id":[ \t]*)(?!\d++[ \t]*(?:[,}\r\n]|$))([^"\s\[{][^\r\n]*?)'
    rb'(?=[ \t]*(?:,?[ \t]*\r?$|,[ \t]*"|\}[ \t]*(?:[\]},]|\r?$)))',
    re.MULTILINE,
)
"""A path without quotation marks, to the end of its line or object, or to the next key."""

_HAS_BARE_KEY: Final = re.compile(rb"[{,]\s*+document_id[ \t]*+:")
_BARE_KEY: Final = re.compile(rb'"(?:[^"\\\r\n]|\\.)*+"|(?<=[{,\s])document_id(?=[ \t]*+:)')

_NUMBER: Final = re.compile(r"-?\d{1,18}")
_ACCOUNT: Final = re.compile(r"(?:user)?(\d+)")
_OWN_ACCOUNT: Final = re.compile(
    rb'"personal_information"\s*+:\s*+\{[^{}]*?"user_id"\s*+:\s*+(\d{1,18})\b'
)
_LOOKED_AT: Final = 1_000
"""Messages of a chat of two that are read ahead, to find out who they are."""

_NEVER: Final = 1970
"""The year of the time of editing that old exports give messages that were never edited."""

_MEDIA_TYPES: Final = {
    "animation": "animation",
    "audio_file": "audio",
    "sticker": "sticker",
    "video_file": "video",
    "video_message": "video",
    "voice_message": "audio",
}
_MEDIA_KEYS: Final = {
    "photo": "image",
    "file": "file",
    "poll": "poll",
    "contact_information": "contact",
    "location_information": "location",
    "game_title": "game",
    "invoice_information": "invoice",
    "giveaway_information": "giveaway",
    "todo_list": "list",
    "dice": "dice",
}
"""Keys of messages with attachments, with the kind; the first key that a message has counts."""


def recognise(export: Opened) -> str | None:
    """Return the reason why an export is Telegram Desktop's, or None."""
    member = next((one for one in _members(export) if _is_telegram(one)), None)
    return None if member is None else f"{member.name} has chats as Telegram Desktop writes them"


def conversations(export: Opened, options: Options) -> Generator[ExportedConversation | Unreadable]:
    """Yield the chats of an export."""
    for member in _members(export):
        is_named_so = member.base.casefold() == "result.json" or len(export.members) == 1
        if not is_named_so and not _is_telegram(member):
            continue
        number = 0
        own = _OWN_ACCOUNT.search(member.head())
        account = None if own is None else own[1].decode()
        for chat in chats(member, _NEEDED, _mended):
            number += 1
            if isinstance(chat, Unreadable):
                yield Unreadable(f"{chat.where} of {member.name}", chat.reason)
                continue
            keys, items = chat
            chat_id = to_id(keys.get("id"))
            if chat_id is None:
                yield Unreadable(f"chat {number:,} of {member.name}", "it has no id")
                continue
            faults: list[Unreadable] = []
            yield _conversation(chat_id, keys, items, faults, (account, options))
            where = f"chat {number:,} of {member.name}"
            yield from (Unreadable(f"{one.where} of {where}", one.reason) for one in faults)
        if not number:
            yield Unreadable(member.name, "no chat was found in the file")


def _members(export: Opened) -> list[Member]:
    if len(export.members) == 1:
        return list(export.members)
    return export.with_suffix(".json")


def _is_telegram(member: Member) -> bool:
    paths = shape(member, _mended)
    if {"name", "id", "type", "messages"} <= paths:
        keys = {path.removeprefix("messages.item.") for path in paths if path.startswith("mess")}
        return keys == {"messages"} or ("type" in keys and not keys.isdisjoint(_DATES))
    return {"chats.list", "chats.about"} <= paths or {"about", "personal_information"} <= paths


def _mended(piece: bytes) -> bytes:
    """Return JSON without Telegram Desktop's mistakes, from a piece that ends with a line."""
    if b"\\x" in piece:
        piece = _ESCAPE.sub(lambda found: b"\\u00" + found[1] if found[1] else found[0], piece)
    if b"document_id" in piece and _HAS_BARE_KEY.search(piece):
        piece = _BARE_KEY.sub(
            lambda found: found[0] if found[0].startswith(b'"') else b'"document_id"', piece
        )
    if b'"document_id"' in piece:
        piece = _BARE_PATH.sub(rb'\1"\2"', piece)
    return piece


def _conversation(
    chat_id: str,
    keys: dict[str, Any],
    items: Iterator[dict[str, Any] | Unreadable],
    faults: list[Unreadable],
    answers: tuple[str | None, Options],
) -> ExportedConversation:
    account, options = answers
    kind, name = to_text(keys.get("type")), to_text(keys.get("name")) or None
    is_group = kind not in _NOT_GROUPS
    ahead = list(islice(items, 0 if is_group else _LOOKED_AT))
    bots = _bots(chat_id, name, ahead) if kind == "bot_chat" else frozenset()
    person = () if is_group else _person(chat_id, name, bots, ahead)
    if not (person or is_group) and account not in (None, chat_id):
        person = (f"user{account}", str(account))
    elif not (person or is_group) and options.me is not None:
        person = (options.me,)
    skipped: Counter[str] = Counter()
    also_there: set[str] = set()
    of_chat = _Chat(chat_id, bots, options)
    return ExportedConversation(
        with_person(chat_id, person),
        _messages(chain(ahead, items), faults, (skipped, also_there), of_chat),
        title=name,
        is_group=is_group,
        has_seconds=True,
        shared_id=None if is_group else chat_id,
        person=person,
        also_there=also_there,
        skipped=skipped,
    )


def _bots(
    chat_id: str, name: str | None, ahead: list[dict[str, Any] | Unreadable]
) -> frozenset[str]:
    """Return the ids of a chat's bot: that of the chat, or of the author with the chat's name.

    If neither wrote, while several others with names did, there is none, and the roles stay open.
    """
    said = [one for one in ahead if isinstance(one, dict) and one.get("type") == "message"]
    authors = {author: own for author, own in map(_author, said) if author and own}
    ids = frozenset({chat_id, f"user{chat_id}"})
    named = frozenset(author for author, own in authors.items() if own == name)
    is_open = len(set(authors.values())) > 1 and ids.isdisjoint(map(_author_id, said))
    return named if is_open else ids


def _person(
    chat_id: str,
    title: str | None,
    bots: frozenset[str],
    ahead: list[dict[str, Any] | Unreadable],
) -> tuple[str, ...]:
    """Return the id and the name of a chat's first author who is not its other side.

    A chat of two has the id and the name of the other side, as everybody's chat with the same bot.
    In an old one, the id of the other side may be another than that of the chat. Notices have
    authors, too.
    """
    others = {chat_id, f"user{chat_id}"}
    authors = [_author(one) for one in ahead if isinstance(one, dict)]
    is_clear = any(author in others for author, _ in authors)
    for author, name in authors:
        account = _ACCOUNT.fullmatch(author or "")
        is_other = author in others | bots or (name == title and not is_clear)
        if account is not None and not is_other:
            spellings = (f"user{account[1]}", account[1], name)
            return tuple(spelling for spelling in spellings if spelling)
    return ()


def _folded(name: str | None) -> str:
    return " ".join((name or "").split()).casefold()


def _author(item: dict[str, Any]) -> tuple[str | None, str | None]:
    """Return the id and the name of a message's author; the name is the id if there is none."""
    name = to_text(item.get("from")) or to_text(item.get("actor")) or None
    return _author_id(item) or name, name


def _author_id(item: dict[str, Any]) -> str | None:
    return to_id(item.get("from_id")) or to_id(item.get("actor_id"))


def _messages(
    items: Iterator[dict[str, Any] | Unreadable],
    faults: list[Unreadable],
    others: tuple[Counter[str], set[str]],
    chat: _Chat,
) -> Iterator[Said]:
    skipped, also_there = others
    for item in items:
        if isinstance(item, Unreadable):
            faults.append(item)
        elif item.get("type") == "message":
            yield chat.said(item)
        elif item.get("type") != "unsupported":
            skipped["notice"] += 1
        elif (message_id := to_id(item.get("id"))) is not None:
            skipped["unsupported message"] += 1
            also_there.add(message_id)
        else:
            skipped[DAMAGED] += 1


class _Chat:
    """Makes the messages of one chat."""

    def __init__(self, chat_id: str, bots: frozenset[str], options: Options) -> None:
        self._id = chat_id
        self._bots = bots
        self._options = options
        self._named = {_folded(one) for one in (*options.companion, options.me or "") if one}
        self._ids = _Ids()

    def said(self, item: dict[str, Any]) -> Said:
        """Return a message."""
        author, name = _author(item)
        message_id = self._ids.of(item)
        role = None
        if self._bots and not self._named.intersection({_folded(author), _folded(name)}):
            role = "assistant" if author in self._bots else "user"
        return Said(
            _content(item),
            _time(item, "date"),
            role=role,
            author=author,
            author_name=name,
            message_id=message_id,
            reply_to=self._reply_to(item),
            metadata=self._metadata(item),
        )

    def _reply_to(self, item: dict[str, Any]) -> str | None:
        """Return the id of the message that is answered, if it is in the same chat."""
        peer = to_id(item.get("reply_to_peer_id"))
        is_here = peer is None or peer.lstrip("abcdefghijklmnopqrstuvwxyz") == self._id
        return self._ids.answered(to_id(item.get("reply_to_message_id"))) if is_here else None

    def _metadata(self, item: dict[str, Any]) -> dict[str, object]:
        kept: dict[str, object] = {}
        if media := _media(item):
            kept[ATTACHMENTS] = [media]
        if reactions := _reactions(item.get("reactions")):
            kept[REACTIONS] = reactions
        edited = _time(item, "edited")
        if edited is not None and edited.year > _NEVER:
            zone = self._options.zone or UTC
            edited = edited if edited.tzinfo else edited.replace(tzinfo=zone)
            kept[EDITED_AT] = edited.isoformat()
        if "forwarded_from" in item:
            kept["forwarded_from"] = to_text(item["forwarded_from"]) or "unknown"
        if bot := to_text(item.get("via_bot")):
            kept["via_bot"] = bot
        return kept


class _Ids:
    """The ids of the messages of a chat so far, 16 bytes for each.

    Ids begin again after a group became another one. A repeated id at another time gets that time.
    """

    def __init__(self) -> None:
        self._numbers = array("q")
        self._times = array("q")
        self._out_of_order: dict[int, int] = {}
        self._again: dict[str, str] = {}

    def of(self, item: dict[str, Any]) -> str | None:
        """Return the id of the next message."""
        name = to_id(item.get("id"))
        if name is None or not _NUMBER.fullmatch(name):
            return name
        number, date = int(name), to_id(item.get("date_unixtime")) or to_text(item.get("date"))
        time = zlib.crc32(date.encode())
        if not self._numbers or number > self._numbers[-1]:
            self._numbers.append(number)
            self._times.append(time)
            return name
        at = bisect_left(self._numbers, number)
        is_there = self._numbers[at] == number
        known = self._times[at] if is_there else self._out_of_order.setdefault(number, time)
        if known == time:
            return name
        self._again[name] = f"{name}@{date}"
        return self._again[name]

    def answered(self, name: str | None) -> str | None:
        """Return the id of the last message with an id that a reply names."""
        return None if name is None else self._again.get(name, name)


def _content(item: dict[str, Any]) -> str:
    """Return the content of a message; the text is in `text`, and again in `text_entities`."""
    said = _joined(item.get("text")) or _joined(item.get("text_entities"))
    poll = item.get("poll")
    question = _joined(poll.get("question")) if isinstance(poll, dict) else ""
    return "\n".join(filter(None, (said, question)))


def _joined(value: object) -> str:
    """Return a text that is stored as a string, or as pieces of which some have a type."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return to_text(value.get("text"))
    if not isinstance(value, list):
        return ""
    pieces = (one.get("text") if isinstance(one, dict) else one for one in value)
    return "".join(piece for piece in pieces if isinstance(piece, str))


def _media(item: dict[str, Any]) -> dict[str, str] | None:
    kind = _MEDIA_TYPES.get(to_text(item.get("media_type")))
    kind = kind or next((kind for key, kind in _MEDIA_KEYS.items() if key in item), None)
    if kind is None:
        return None
    emoji = to_text(item.get("sticker_emoji"))
    return {"kind": kind, "emoji": emoji} if emoji else {"kind": kind}


def _reactions(value: object) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for one in value if isinstance(value, list) else []:
        if isinstance(one, dict) and isinstance(one.get("count"), int):
            emoji = to_text(one.get("emoji")) or to_text(one.get("type")) or "unknown"
            found.append({"emoji": emoji, "count": one["count"]})
    return found


def _time(item: dict[str, Any], name: str) -> datetime | None:
    """Return a time: exact since 2022, before that the local time of the exporting computer."""
    try:
        seconds = item.get(f"{name}_unixtime")
        if isinstance(seconds, str | int) and not isinstance(seconds, bool):
            return datetime.fromtimestamp(int(seconds), UTC)
    except (ValueError, OverflowError, OSError):
        pass  # the local time may be sound
    return to_time(item.get(name))
