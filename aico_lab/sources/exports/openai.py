"""Training files with OpenAI's messages: `{"messages": [{"role": ..., "content": ...}]}`.

One conversation per line, or a list of them.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from aico_lab.messages.metadata import ATTACHMENTS
from aico_lab.sources.exports.engine.conversation import (
    ExportedConversation,
    Said,
    Traits,
    Unreadable,
)
from aico_lab.sources.exports.engine.fields import DAMAGED, objects_of, to_id, to_object, to_text
from aico_lab.sources.exports.engine.json_items import shape
from aico_lab.sources.exports.engine.training import (
    SUFFIXES,
    Names,
    conversation,
    documents,
    has,
    is_damaged,
    parts_of,
    time_of,
)

if TYPE_CHECKING:
    from collections.abc import Generator

    from aico_lab.sources.exports.engine.conversation import Options
    from aico_lab.sources.exports.engine.opened import Opened

TRAITS: Final = Traits()

_ROLES: Final = {
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "system": "system",
    "developer": "system",
}
_OTHERS: Final = frozenset({"mapping", "chat_messages", "messages.item.versions"})
"""Paths of exports that have messages with roles too."""


def recognise(export: Opened) -> str | None:
    """Return the reason why an export has OpenAI's messages, or None."""
    for member in export.with_suffix(*SUFFIXES):
        paths = {path.removeprefix("item.") for path in shape(member)}
        if not paths & _OTHERS and has(member, "messages", "role"):
            return f"{member.name} has conversations with messages of a role"
    return None


def conversations(export: Opened, options: Options) -> Generator[ExportedConversation | Unreadable]:
    """Yield the conversations of an export."""
    read = (
        (item, item["messages"], _messages(item["messages"], Counter()))
        for found in documents(export, "messages")
        if not isinstance(found, Unreadable)
        for item in found[1:]
        if isinstance(item.get("messages"), list)
    )
    names = Names("openai", options.known_conversations, read)
    for found in documents(export, "messages"):
        if isinstance(found, Unreadable):
            yield found
            continue
        where, item = found
        if not isinstance(item.get("messages"), list):
            yield Unreadable(where, "it has no list of messages")
        else:
            skipped: Counter[str] = Counter()
            messages = _messages(item["messages"], skipped)
            yield conversation(names.of(item, item["messages"]), item, messages, skipped)


def _messages(listed: list[Any], skipped: Counter[str]) -> list[Said]:
    said = (_said(message, skipped) for message in objects_of(listed, skipped))
    return [message for message in said if message is not None]


def _said(message: dict[str, Any], skipped: Counter[str]) -> Said | None:
    """Return the message, or None if it has no content; count messages that are left out."""
    if is_damaged(message, "role", "content"):
        skipped[DAMAGED] += 1
        return None
    role = to_text(message.get("role")).casefold()
    if role not in _ROLES:
        known = role in ("tool", "function")
        skipped["tool result" if known else "message of another role"] += 1
        return None
    calls = bool(message.get("tool_calls") or message.get("function_call"))
    text, media = parts_of(message.get("content"))
    if not text:
        transcript = to_object(message.get("audio")).get("transcript")
        text = to_text(message.get("refusal")) or to_text(transcript)
    skipped.update(["tool call"] * calls)
    if not (text or media) and (calls or not isinstance(message.get("content"), str | list)):
        skipped.update(["message without content"] * (not calls))
        return None
    return Said(
        text,
        time_of(message),
        role=_ROLES[role],
        author=to_text(message.get("name")).strip() or None,
        message_id=to_id(message.get("id")),
        metadata={ATTACHMENTS: media} if media else {},
    )
