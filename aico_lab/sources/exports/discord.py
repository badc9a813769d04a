"""Discord channels as DiscordChatExporter writes them in JSON.

There is a file for each channel and thread, or several parts of one. The exporter names few types
of messages and writes the others as their numbers in Discord's interface.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from aico_lab.messages.metadata import ATTACHMENTS, EDITED_AT, REACTIONS
from aico_lab.sources.exports.engine.conversation import (
    ExportedConversation,
    Said,
    Traits,
    Unreadable,
)
from aico_lab.sources.exports.engine.fields import (
    DAMAGED,
    FLAG,
    ID,
    LIST,
    TEXT,
    fits,
    objects_of,
    to_id,
    to_object,
    to_text,
    to_time,
)
from aico_lab.sources.exports.engine.json_items import shape
from aico_lab.sources.exports.engine.message_arrays import chats

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from aico_lab.sources.exports.engine.conversation import Options
    from aico_lab.sources.exports.engine.opened import Member, Opened

TRAITS: Final = Traits(leaves_roles_open=True, damage_is_near=True)

_PART: Final = re.compile(r"\[part (\d{1,9})\]", re.IGNORECASE)
_FILES: Final = re.compile(r"_Files/")
_NEEDED: Final = frozenset({"id", "timestamp", "author"})
_REPLIES: Final = frozenset({"Reply", "19"})
_SAID: Final = frozenset({"Default", "0", *_REPLIES, "20", "23"})
"""Types of messages that somebody wrote; 20 and 23 are a bot's answers to commands."""

_DIRECT: Final = frozenset({"DirectTextChat"})
_THREADS: Final = frozenset({"GuildNewsThread", "GuildPublicThread", "GuildPrivateThread"})
_KINDS: Final = {
    "image": frozenset({"png", "jpg", "jpeg", "gif", "webp", "avif", "heic", "bmp"}),
    "video": frozenset({"mp4", "mov", "webm", "mkv", "avi"}),
    "audio": frozenset({"mp3", "ogg", "wav", "m4a", "flac", "opus"}),
}


_MESSAGE: Final = {
    "id": (str, int),
    "type": (str, int),
    "author": (dict,),
    "content": (str,),
    "attachments": LIST,
    "embeds": LIST,
    "stickers": LIST,
}
_AUTHOR: Final = {"id": ID, "name": TEXT, "nickname": TEXT, "isBot": FLAG}


def recognise(export: Opened) -> str | None:
    """Return the reason why an export is DiscordChatExporter's, or None."""
    member = next((one for one in _members(export) if _is_channel(one)), None)
    if member is None:
        return None
    return f"{member.name} has the messages of a Discord channel"


def conversations(export: Opened, options: Options) -> Generator[ExportedConversation | Unreadable]:
    """Yield the channels and threads of an export, each from all of its parts."""
    channels: dict[str, list[Member]] = {}
    for member in _members(export):
        channel_id = to_id(to_object(_keys(member).get("channel")).get("id"))
        if channel_id is None:
            yield Unreadable(
                member.name,
                "the beginning of the file is damaged, or the file is no Discord channel",
            )
        else:
            channels.setdefault(channel_id, []).append(member)
    for channel_id, members in channels.items():
        faults: list[Unreadable] = []
        members.sort(key=_part)
        yield _conversation(channel_id, members, faults, options)
        yield from faults


def _members(export: Opened) -> list[Member]:
    if len(export.members) == 1:
        return list(export.members)
    return [one for one in export.with_suffix(".json") if not _FILES.search(one.name)]


def _is_channel(member: Member) -> bool:
    paths = shape(member)
    return {"guild.id", "channel.id", "dateRange", "messages"} <= paths


def _keys(member: Member) -> dict[str, Any]:
    for found in chats(member, _NEEDED):
        return {} if isinstance(found, Unreadable) else found[0]
    return {}


def _part(member: Member) -> tuple[int, str]:
    found = _PART.search(member.base)
    return (0 if found is None else int(found[1]), member.name)


def _conversation(
    channel_id: str, members: list[Member], faults: list[Unreadable], options: Options
) -> ExportedConversation:
    keys = _keys(members[0])
    channel, guild = to_object(keys.get("channel")), to_object(keys.get("guild"))
    is_direct = to_id(channel.get("type")) in _DIRECT
    name = to_text(channel.get("name")) or None
    parent = to_id(channel.get("categoryId")) if to_id(channel.get("type")) in _THREADS else None
    skipped: Counter[str] = Counter()
    return ExportedConversation(
        channel_id,
        _messages(members, channel_id, faults, skipped, _People(options, is_direct=is_direct)),
        title=name,
        channel_id=parent or channel_id,
        channel_name=(to_text(channel.get("category")) if parent else "") or name,
        is_group=not is_direct,
        metadata={"guild": guild["name"]} if to_text(guild.get("name")) else {},
        skipped=skipped,
    )


class _People:
    """Tells the role of an author: bots are companions, unless the user names the companion."""

    def __init__(self, options: Options, *, is_direct: bool) -> None:
        self._is_open = bool(options.companion) or (is_direct and options.me is not None)
        self._named = {name.casefold() for name in (*options.companion, options.me or "") if name}

    def role(self, author: dict[str, Any]) -> str | None:
        if self._is_open:
            return None
        return "assistant" if author.get("isBot") is True else "user"

    def name(self, author: dict[str, Any]) -> str | None:
        """Return the account's name if an option of the user has that name, else the nickname."""
        name, nickname = to_text(author.get("name")), to_text(author.get("nickname"))
        return (name if name.casefold() in self._named else nickname or name) or None


def _messages(
    members: list[Member],
    channel_id: str,
    faults: list[Unreadable],
    skipped: Counter[str],
    people: _People,
) -> Iterator[Said]:
    for member in members:
        for chat in chats(member, _NEEDED):
            if isinstance(chat, Unreadable):
                faults.append(Unreadable(f"{chat.where} of {member.name}", chat.reason))
                continue
            for item in chat[1]:
                if isinstance(item, Unreadable):
                    faults.append(Unreadable(f"{item.where} of {member.name}", item.reason))
                elif _is_damaged(item):
                    skipped[DAMAGED] += 1
                elif to_id(item.get("type")) in _SAID:
                    yield _said(item, channel_id, people, skipped)
                else:
                    skipped["notice"] += 1


def _is_damaged(item: dict[str, Any]) -> bool:
    """Return whether a field that decides what a message says has a value of a wrong type."""
    return not (fits(item, _MESSAGE) and fits(item["author"], _AUTHOR))


def _said(item: dict[str, Any], channel_id: str, people: _People, skipped: Counter[str]) -> Said:
    author = to_object(item.get("author"))
    content = to_text(item.get("content"))
    every = objects_of(item.get("embeds"), skipped)
    embeds = [embed for embed in every if not _is_preview(embed, content)]
    if author.get("isBot") is True or not content.strip():
        texts = [_embedded(embed, skipped) for embed in embeds]
        content = "\n".join(filter(None, (content, *texts)))
    forwarded = item.get("forwardedMessage")
    kept: dict[str, object] = {}
    if media := [*_media(item, skipped), *_media(to_object(forwarded), skipped)]:
        kept[ATTACHMENTS] = media
    if reactions := _reactions(item.get("reactions"), skipped):
        kept[REACTIONS] = reactions
    if edited := to_time(item.get("timestampEdited")):
        kept[EDITED_AT] = edited.isoformat()
    if isinstance(forwarded, dict):
        kept["forwarded"] = True
    if command := to_text(to_object(item.get("interaction")).get("name")):
        kept["command"] = command
    return Said(
        content,
        to_time(item.get("timestamp")),
        role=people.role(author),
        author=to_id(author.get("id")) or people.name(author),
        author_name=people.name(author),
        message_id=to_id(item.get("id")),
        reply_to=_reply_to(item, channel_id),
        metadata=kept,
    )


def _reply_to(item: dict[str, Any], channel_id: str) -> str | None:
    """Return the message that is answered; pins and forwards have a reference as well."""
    reference = to_object(item.get("reference"))
    is_here = to_id(reference.get("channelId")) in (None, channel_id)
    is_reply = is_here and to_id(item.get("type")) in _REPLIES
    return to_id(reference.get("messageId")) if is_reply else None


def _is_preview(embed: dict[str, Any], content: str) -> bool:
    """Return whether an embed is only Discord's preview of a link in the text."""
    url = to_text(embed.get("url"))
    return bool(url) and url in content


def _embedded(embed: dict[str, Any], skipped: Counter[str]) -> str:
    texts = [embed.get("title"), embed.get("description")]
    for field in objects_of(embed.get("fields"), skipped):
        texts += [field.get("name"), field.get("value")]
    return "\n".join(filter(None, map(to_text, texts)))


def _media(item: dict[str, Any], skipped: Counter[str]) -> list[dict[str, str]]:
    files = objects_of(item.get("attachments"), skipped)
    found = [{"kind": _kind(to_text(one.get("fileName")))} for one in files]
    return found + [{"kind": "sticker"} for _ in objects_of(item.get("stickers"), skipped)]


def _kind(file_name: str) -> str:
    suffix = file_name.rpartition(".")[2].lower()
    return next((kind for kind, suffixes in _KINDS.items() if suffix in suffixes), "file")


def _reactions(value: object, skipped: Counter[str]) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for one in objects_of(value, skipped):
        emoji, count = to_text(to_object(one.get("emoji")).get("name")), one.get("count")
        if emoji and isinstance(count, int):
            found.append({"emoji": emoji, "count": count})
    return found
