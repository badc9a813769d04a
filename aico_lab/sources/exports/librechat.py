"""LibreChat's export of a conversation as JSON: a tree of messages, or a flat list with parents.

The file does not say which branch was open last, so the message written last ends the conversation.
The words of a message are in `text`, or else in parts between reasoning and calls of tools.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from aico_lab.messages.metadata import ATTACHMENTS, EDITED_AT
from aico_lab.sources.exports.engine.conversation import (
    ALTERNATIVES,
    MODEL,
    ExportedConversation,
    Rating,
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
    to_objects,
    to_text,
    to_utc_time,
)
from aico_lab.sources.exports.engine.json_items import items, shape
from aico_lab.sources.exports.engine.paths import newest_leaf, path_to

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from aico_lab.sources.exports.engine.conversation import Options
    from aico_lab.sources.exports.engine.opened import Member, Opened

TRAITS: Final = Traits(ends_known=True, damage_is_near=True)

_MESSAGE: Final = {
    "messageId": ID,
    "parentMessageId": ID,
    "text": TEXT,
    "content": LIST,
    "files": LIST,
    "attachments": LIST,
    "error": FLAG,
    "createdAt": TEXT,
}
_ROOT: Final = "00000000-0000-0000-0000-000000000000"
_REASONING: Final = re.compile(r":::thinking\b.*?(?:^:::\s*$|\Z)", re.DOTALL | re.MULTILINE)
_NOT_SAID: Final = {"think": "reasoning", "tool_call": "tool call", "error": "notice of an error"}
_RATINGS: Final = {"thumbsup": ("thumbs_up", 1.0), "thumbsdown": ("thumbs_down", -1.0)}
_MEDIA: Final = {"image_file": "image", "image_url": "image", "input_audio": "audio"}


def recognise(export: Opened) -> str | None:
    """Return the reason why an export is LibreChat's, or None."""
    for member in export.with_suffix(".json"):
        if _is_ours(member):
            return f"{member.name} has a conversation of LibreChat"
    return None


def conversations(export: Opened, options: Options) -> Generator[ExportedConversation | Unreadable]:
    """Yield the conversations of an export; a folder may hold many files."""
    del options
    for member in export.with_suffix(".json"):
        if len(export.members) > 1 and not _is_ours(member):
            continue
        prefix = "item" if member.head().lstrip().startswith(b"[") else ""
        for item in items(member, prefix, needs={"conversationId", "title"}):
            if isinstance(item, Unreadable):
                yield Unreadable(f"{item.where} of {member.name}", item.reason)
            else:
                yield _conversation(item)


def _is_ours(member: Member) -> bool:
    paths = {path.removeprefix("item.") for path in shape(member)}
    return "conversationId" in paths and bool(
        paths & {"messagesTree", "messages.item.messageId", "messages.item.isCreatedByUser"}
    )


class _Node:
    """A message in the tree of a conversation.

    Attributes:
        message: The message as the file has it.
        parent: The key of the message before it, or None.
        has_parent: Whether the file tells this parent; else only the order of the file tells it.
    """

    def __init__(self, message: dict[str, Any], parent: str | None, *, has_parent: bool) -> None:
        self.message = message
        self.parent = parent
        self.has_parent = has_parent
        self.role = _role(message)
        self.time = to_utc_time(message.get("createdAt"))


def _conversation(item: dict[str, Any]) -> ExportedConversation | Unreadable:
    name = to_id(item.get("conversationId"))
    if name is None:
        return Unreadable("a conversation", "it has no id")
    nested, flat = item.get("messagesTree"), item.get("messages")
    if not isinstance(nested, list) and not isinstance(flat, list):
        return Unreadable(f"conversation {name[:64]}", "it has no list of messages")
    if not isinstance(nested or [], list) or not isinstance(flat or [], list):
        return Unreadable(f"conversation {name[:64]}", "its list of messages is damaged")
    skipped: Counter[str] = Counter()
    listed = objects_of(nested or flat, skipped)
    tree = _tree(listed, skipped, is_flat=not nested)
    damaged = sum(_is_damaged(node.message) for node in tree.values())
    if damaged:
        skipped[DAMAGED] += damaged
    parents = {key: node.parent for key, node in tree.items()}
    seconds = {
        key: 0.0 if node.time is None else node.time.timestamp() for key, node in tree.items()
    }
    siblings = Counter((node.parent, node.role) for node in tree.values())
    if to_text(to_object(item.get("options")).get("promptPrefix")).strip():
        skipped["system prompt"] += 1
    messages: list[Said] = []
    answered: str | None = None
    path = path_to(parents, newest_leaf(parents, seconds))
    for key in path:
        node = tree[key]
        answered = answered if node.has_parent else None
        said = None if _is_damaged(node.message) else _said(key, node, skipped)
        if said is None:
            continue
        others = siblings[node.parent, node.role] - 1
        if others:
            said.metadata[ALTERNATIVES] = others
        said.reply_to, answered = answered, said.message_id
        messages.append(said)
    return ExportedConversation(
        name,
        messages,
        title=to_text(item.get("title")) or None,
        channel_id="librechat",
        channel_name="LibreChat",
        off_path=frozenset(tree.keys() - set(path)),
        skipped=skipped,
    )


def _tree(
    listed: list[dict[str, Any]], skipped: Counter[str], *, is_flat: bool
) -> dict[str, _Node]:
    """Return the messages by id, in the order of the file.

    Trees may be deeper than Python's recursion. A message that names no parent, or one that is not
    there, follows the one it is nested in, or in a flat list the one before it.
    """
    found: list[tuple[str, dict[str, Any], str | None]] = []
    waiting: list[tuple[dict[str, Any], str | None]] = []
    last: str | None = None
    for message in listed:
        waiting.append((message, last if is_flat else None))
        while waiting:
            nested, above = waiting.pop()
            key = to_id(nested.get("messageId")) or f"message-{len(found) + 1}"
            found.append((key, nested, above))
            children = objects_of(nested.get("children"), skipped)
            waiting += [(child, key) for child in reversed(children)]
        last = to_id(message.get("messageId")) or last
    keys = {key for key, _, _ in found}
    tree: dict[str, _Node] = {}
    for key, message, above in found:
        named = to_id(message.get("parentMessageId"))
        parent = None if named == _ROOT else named if named in keys else above
        parent = None if parent == key else parent
        has_parent = parent is not None and (named in keys or not is_flat)
        tree.setdefault(key, _Node(message, parent, has_parent=has_parent))
    return tree


def _is_damaged(message: dict[str, Any]) -> bool:
    """Return whether a field that decides what a message says has a value of a wrong type."""
    if not fits(message, _MESSAGE) or (message.get("text") is None and not message.get("content")):
        return True
    parts = message.get("content") or []
    return any(not (isinstance(part, dict) and fits(part, {"type": (str,)})) for part in parts)


def _role(message: dict[str, Any]) -> str:
    by_user = message.get("isCreatedByUser")
    if not isinstance(by_user, bool):
        by_user = to_text(message.get("sender")).casefold() == "user"
    return "user" if by_user else "assistant"


def _said(key: str, node: _Node, skipped: Counter[str]) -> Said | None:
    """Return the message, or None if it has no content; count messages that are left out."""
    message = node.message
    for part in to_objects(message.get("content")):
        kind = to_text(part.get("type"))
        if kind in _NOT_SAID:
            skipped[_NOT_SAID[kind]] += 1
    if message.get("error") is True:
        skipped["notice of an error"] += 1
        return None
    text, media = _text(message), _media(message, skipped)
    if node.role == "assistant":
        text, blocks = _REASONING.subn("", text)
        skipped["reasoning"] += blocks
        skipped += Counter()  # drops a count of zero
        if not (text.strip() or media):
            skipped["empty answer"] += 1
            return None
    metadata: dict[str, object] = {}
    if media:
        metadata[ATTACHMENTS] = media
    if node.role == "assistant" and isinstance(message.get("model"), str):
        metadata[MODEL] = message["model"]
    edited = to_utc_time(message.get("updatedAt"))
    if message.get("isEdited") is True and edited is not None:
        metadata[EDITED_AT] = edited.isoformat()
    return Said(
        text,
        node.time,
        role=node.role,
        author=to_id(message.get("user")) if node.role == "user" else None,
        message_id=key,
        metadata=metadata,
        ratings=list(_ratings(message)),
    )


def _text(message: dict[str, Any]) -> str:
    """Return the text of the parts, or else the flat text."""
    texts = []
    for part in to_objects(message.get("content")):
        if part.get("type") == "text":
            text = part.get("text")
            texts.append(to_text(text) or to_text(to_object(text).get("value")))
    if any(text.strip() for text in texts):
        return "\n".join(text for text in texts if text)
    return to_text(message.get("text"))


def _media(message: dict[str, Any], skipped: Counter[str]) -> list[dict[str, str]]:
    lists = [objects_of(message.get(key), skipped) for key in ("files", "attachments")]
    kinds = [to_text(file.get("type")).partition("/")[0] for one in lists for file in one]
    found = [kind if kind in ("image", "audio", "video") else "file" for kind in kinds]
    parts = [to_text(part.get("type")) for part in to_objects(message.get("content"))]
    return [{"kind": kind} for kind in found + [_MEDIA[kind] for kind in parts if kind in _MEDIA]]


def _ratings(message: dict[str, Any]) -> Iterator[Rating]:
    """Yield the rating of an answer by thumb, if there is one."""
    rating = _RATINGS.get(to_text(to_object(message.get("feedback")).get("rating")).casefold())
    if rating is not None:
        yield Rating(*rating)
