"""Training files in ShareGPT's form: `{"conversations": [{"from": "human", "value": ...}]}`.

A list of conversations, or one per line. Long ones were cut into pieces with ids of their own.
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
from aico_lab.sources.exports.engine.fields import DAMAGED, objects_of, to_text
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

_KEY: Final = "conversations"
_ROLES: Final = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "system": "system",
}
_TOOLS: Final = {
    "function_call": "tool call",
    "tool_call": "tool call",
    "function_response": "tool result",
    "tool_response": "tool result",
    "observation": "tool result",
    "function": "tool result",
    "tool": "tool result",
}


def recognise(export: Opened) -> str | None:
    """Return the reason why an export has ShareGPT's form, or None."""
    for member in export.with_suffix(*SUFFIXES):
        if has(member, _KEY, "from", "value"):
            return f"{member.name} has conversations of messages with from and value"
    return None


def conversations(export: Opened, options: Options) -> Generator[ExportedConversation | Unreadable]:
    """Yield the conversations of an export."""
    read = (
        (item, item[_KEY], _messages(item[_KEY], Counter()))
        for found in documents(export, _KEY)
        if not isinstance(found, Unreadable)
        for item in found[1:]
        if isinstance(item.get(_KEY), list)
    )
    names = Names("sharegpt", options.known_conversations, read)
    for found in documents(export, _KEY):
        if isinstance(found, Unreadable):
            yield found
            continue
        where, item = found
        if not isinstance(item.get(_KEY), list):
            yield Unreadable(where, "it has no list of messages")
        else:
            skipped: Counter[str] = Counter()
            messages = _messages(item[_KEY], skipped)
            yield conversation(names.of(item, item[_KEY]), item, messages, skipped)


def _messages(listed: list[Any], skipped: Counter[str]) -> list[Said]:
    said = (_said(message, skipped) for message in objects_of(listed, skipped))
    return [message for message in said if message is not None]


def _said(message: dict[str, Any], skipped: Counter[str]) -> Said | None:
    """Return the message, or None if it has no content; count messages that are left out."""
    if is_damaged(message, "from", "value") or is_damaged(message, "role", "content"):
        skipped[DAMAGED] += 1
        return None
    sender = (to_text(message.get("from")) or to_text(message.get("role"))).casefold()
    if sender not in _ROLES:
        skipped[_TOOLS.get(sender, "message of another role")] += 1
        return None
    value = message.get("value", message.get("content"))
    if not isinstance(value, str | list):
        skipped["message without content"] += 1
        return None
    text, media = parts_of(value)
    return Said(
        text, time_of(message), role=_ROLES[sender], metadata={ATTACHMENTS: media} if media else {}
    )
