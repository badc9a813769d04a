"""Claude's export: `conversations.json`, whole or as an index of files `conversations/<id>.json`.

A message is a list of blocks. Its flat `text` has placeholders for blocks that are not text, and is
empty in some messages, so the blocks come first. Newer messages name their parent, and the branch
that ends in the newest message is the conversation; older ones are in order.
"""

from __future__ import annotations

import re
from collections import Counter
from itertools import islice
from types import NoneType
from typing import TYPE_CHECKING, Any, Final

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
    DAMAGED,
    ID,
    LIST,
    TEXT,
    fits,
    objects_of,
    to_id,
    to_objects,
    to_text,
    to_utc_time,
)
from aico_lab.sources.exports.engine.json_items import items, shape

if TYPE_CHECKING:
    from collections.abc import Generator
    from datetime import datetime

    from aico_lab.sources.exports.engine.conversation import Options
    from aico_lab.sources.exports.engine.opened import Member, Opened

TRAITS: Final = Traits(ends_known=True, damage_is_near=True)

_WHOLE: Final = re.compile(r"conversations([-_ ]?\(?\d+\)?)?\.json", re.IGNORECASE)
_SINGLE: Final = re.compile(r"(^|/)conversations/[^/]+\.json$", re.IGNORECASE)
_TRIED: Final = 100
"""The most files whose content is read to recognise an export if their names do not tell."""

_MESSAGE: Final = {
    "uuid": ID,
    "parent_message_uuid": ID,
    "text": TEXT,
    "content": (list, str, NoneType),
    "files": LIST,
    "attachments": LIST,
}
_BLOCK: Final = {"type": (str,), "text": TEXT}
_KEY: Final = "chat_messages"
_PARENT: Final = "parent_message_uuid"
_ROLES: Final = {"human": "user", "user": "user", "assistant": "assistant"}
_ROOT: Final = re.compile(r"0{8}-0{4}-")
_PLACEHOLDER: Final = re.compile(
    r"(```\s*)?This block is not supported on your current device yet\.(\s*```)?"
)
_BLANK_LINES: Final = re.compile(r"\n{3,}")
_TEXTS: Final = frozenset({"text", "voice_note"})
_NOT_SAID: Final = {
    "thinking": "reasoning",
    "redacted_thinking": "reasoning",
    "tool_use": "tool call",
    "server_tool_use": "tool call",
    "tool_result": "tool result",
    "token_budget": "notice",
    "flag": "notice",
}
_IMAGES: Final = frozenset({"png", "jpg", "jpeg", "gif", "webp", "heic", "bmp", "svg"})


def recognise(export: Opened) -> str | None:
    """Return the reason why an export is Claude's, or None."""
    for member in islice(_members(export), _TRIED):
        if shape(member) & {_KEY, f"item.{_KEY}"}:
            return f"{member.name} has conversations with {_KEY}"
    return None


def conversations(export: Opened, options: Options) -> Generator[ExportedConversation | Unreadable]:
    """Yield the conversations of an export."""
    del options
    members = _members(export)
    is_index = any(_SINGLE.search(member.name) for member in members)
    for member in members:
        is_one = member.head().lstrip().startswith(b"{")
        for item in items(member, "" if is_one else "item", needs={_KEY}):
            if isinstance(item, Unreadable):
                yield Unreadable(f"{item.where} of {member.name}", item.reason)
            elif _KEY in item or not (is_index or is_one):
                yield _conversation(item)
    skipped = Counter(map(_other, _others(export, members)))
    if skipped:
        yield ExportedConversation("others", [], skipped=skipped)


def _others(export: Opened, members: list[Member]) -> list[Member]:
    """Return the files with something else than conversations and the person's account."""
    names = {member.name for member in members}
    return [
        member
        for member in export.with_suffix(".json")
        if member.name not in names and member.base.casefold() != "users.json"
    ]


def _other(member: Member) -> str:
    """Return what a file has that is no conversation."""
    paths = {path.removeprefix("item.") for path in shape(member)}
    if "messages" in paths:
        return "chat of another kind"
    for word, reason in (("memor", "file of memories"), ("project", "file of projects")):
        if word in member.name.casefold():
            return reason
    return "file of another kind"


def _members(export: Opened) -> list[Member]:
    """Return the files of conversations, without those of users, projects and memories."""
    if len(export.members) == 1:
        return list(export.members)
    found = [
        member
        for member in export.members
        if _WHOLE.fullmatch(member.base) or _SINGLE.search(member.name)
    ]
    return found or export.with_suffix(".json")


def _conversation(item: dict[str, Any]) -> ExportedConversation | Unreadable:
    name = to_id(item.get("uuid"))
    listed = item.get(_KEY)
    if name is None:
        return Unreadable("a conversation", "it has no id")
    if not isinstance(listed, list):
        return Unreadable(f"conversation {name[:64]}", "it has no list of messages")
    skipped: Counter[str] = Counter()
    nodes = _nodes(objects_of(listed, skipped))
    siblings = Counter((node.parent, node.role) for node in nodes)
    messages: list[Said] = []
    answered: str | None = None
    if damaged := sum(_is_damaged(node.message) for node in nodes):
        skipped[DAMAGED] += damaged
    path = _path(nodes, item.get("current_leaf_message_uuid"))
    on_path = set(path)
    for node in path:
        if not node.names_parent:
            answered = None
        said = None if _is_damaged(node.message) else _said(node, skipped)
        if said is None:
            continue
        others = siblings[node.parent, node.role] - 1
        if others:
            said.metadata[ALTERNATIVES] = others
        if node.role == "assistant" and isinstance(item.get("model"), str):
            said.metadata[MODEL] = item["model"]
        said.reply_to, answered = answered, said.message_id
        messages.append(said)
    return ExportedConversation(
        name,
        messages,
        title=to_text(item.get("name")) or None,
        channel_id="claude",
        channel_name="Claude",
        started=to_utc_time(item.get("created_at")),
        off_path=frozenset(
            name
            for node in nodes
            if node not in on_path and (name := to_id(node.message.get("uuid"))) is not None
        )
        - {said.message_id for said in messages},  # a message may be there twice
        skipped=skipped,
    )


class _Node:
    """A message in the tree of a conversation.

    Attributes:
        message: The message as the file has it.
        role: 'user' or 'assistant'; None if the file does not say.
        parent: The index of the message before it in the conversation; None for a first message.
        names_parent: Whether the file names this parent; else only the order of the file tells it.
        time: When it was sent, or None.
        order: The time in seconds, or that of the message before it in the file.
    """

    def __init__(
        self, message: dict[str, Any], parent: int | None, order: float, *, names_parent: bool
    ) -> None:
        self.message = message
        self.role = _role(message)
        self.parent = parent
        self.names_parent = names_parent
        self.time = _time(message)
        self.order = order if self.time is None else self.time.timestamp()


def _nodes(messages: list[dict[str, Any]]) -> list[_Node]:
    """Return the messages with their parents.

    If no message names a parent, each follows the one before it in the file. Otherwise one that
    names none is a first message, unless it is of the time before messages had parents.
    """
    indexes: dict[str, int] = {}
    for index, message in enumerate(messages):
        name = to_id(message.get("uuid"))
        if name is not None:
            indexes.setdefault(name, index)
    names = [to_id(message.get(_PARENT)) for message in messages]
    oldest = next((index for index, name in enumerate(names) if name), len(names))
    if oldest < len(names):
        oldest = _older(messages[:oldest])
    parents = [indexes.get(name or "") for name in names]
    supposed: set[int] = set()
    for index, name in enumerate(names):
        if parents[index] == index or (name is not None and _ROOT.match(name)):
            parents[index] = None
        elif parents[index] is None and index and (index < oldest or name is not None):
            parents[index] = index - 1
            supposed.add(index)
    _open_cycles(parents, supposed)
    nodes: list[_Node] = []
    for index, message in enumerate(messages):
        order = nodes[-1].order if nodes else 0.0
        names_parent = index not in supposed
        nodes.append(_Node(message, parents[index], order, names_parent=names_parent))
    return nodes


def _older(messages: list[dict[str, Any]]) -> int:
    """Return the number of first messages from the time before messages had parents.

    Those have no such key, and both sides alternate; two questions in a row are versions of one.
    """
    count = 0
    for message in messages:
        if _PARENT in message or (count and _role(messages[count - 1]) == _role(message)):
            break
        count += 1
    return count


def _open_cycles(parents: list[int | None], supposed: set[int]) -> None:
    """Make a message a first one where a parent that the file does not name closes a cycle."""
    walks: dict[int, int] = {}
    for start in range(len(parents)):
        at: int | None = start
        while at is not None and at not in walks:
            walks[at] = start
            at = parents[at]
        if at is None or walks[at] != start:
            continue
        end = at
        while at is not None and at not in supposed:
            at = parents[at]
            if at == end:
                break
        if at in supposed:
            parents[at] = None


def _role(message: dict[str, Any]) -> str | None:
    sender = message.get("sender") or message.get("role")
    return _ROLES.get(to_text(sender).casefold())


def _path(nodes: list[_Node], current: object) -> list[_Node]:
    """Return the messages from the first one to the current one, or else to the newest leaf."""
    parents = {node.parent for node in nodes}
    leaves = [index for index in range(len(nodes)) if index not in parents]
    named = [index for index in leaves if nodes[index].message.get("uuid") == current]
    at = max(
        named or leaves or range(len(nodes)),
        key=lambda index: (nodes[index].order, index),
        default=None,
    )
    path: list[_Node] = []
    seen: set[int] = set()
    while at is not None and at not in seen:
        seen.add(at)
        path.append(nodes[at])
        at = nodes[at].parent
    return path[::-1]


def _is_damaged(message: dict[str, Any]) -> bool:
    """Return whether a field that decides what a message says has a value of a wrong type."""
    sender = message.get("sender") or message.get("role")
    if not (fits(message, _MESSAGE) and isinstance(sender, str)):
        return True
    content = message.get("content")
    if content is None and message.get("text") is None:
        return True
    blocks = content if isinstance(content, list) else []
    return not all(isinstance(block, dict) and fits(block, _BLOCK) for block in blocks)


def _time(message: dict[str, Any]) -> datetime | None:
    begins = [block.get("start_timestamp") for block in to_objects(message.get("content"))]
    times = map(to_utc_time, (message.get("created_at"), *begins))
    return next((time for time in times if time is not None), None)


def _said(node: _Node, skipped: Counter[str]) -> Said | None:
    """Return the message, or None if it has no content; count messages that are left out."""
    message = node.message
    for block in to_objects(message.get("content")):
        kind = _kind_of(block)
        if kind not in _TEXTS and kind != "image":
            skipped[_NOT_SAID.get(kind, "block of another kind")] += 1
    if node.role is None:
        skipped["message of an unknown sender"] += 1
        return None
    text, media = _text(message), _media(message, skipped)
    if node.role == "assistant" and not (text.strip() or media):
        skipped["empty answer"] += 1
        return None
    return Said(
        text,
        node.time,
        role=node.role,
        message_id=to_id(message.get("uuid")),
        metadata={ATTACHMENTS: media} if media else {},
    )


def _kind_of(block: dict[str, Any]) -> str:
    return to_text(block.get("type"))


def _text(message: dict[str, Any]) -> str:
    """Return the text of the blocks, or else the flat text without its placeholders."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    blocks = to_objects(content)
    texts = [to_text(block.get("text")) for block in blocks if _kind_of(block) in _TEXTS]
    if any(text.strip() for text in texts):
        return "\n".join(text for text in texts if text)
    flat = to_text(message.get("text"))
    if "This block is not supported" in flat:
        flat = _BLANK_LINES.sub("\n\n", _PLACEHOLDER.sub("", flat))
    return flat


def _media(message: dict[str, Any], skipped: Counter[str]) -> list[dict[str, str]]:
    lists = [objects_of(message.get(key), skipped) for key in ("attachments", "files")]
    files = [file for one in lists for file in one]
    found = [{"kind": _kind(to_text(file.get("file_name")))} for file in files]
    blocks = to_objects(message.get("content"))
    return found + [{"kind": "image"} for block in blocks if block.get("type") == "image"]


def _kind(file_name: str) -> str:
    return "image" if file_name.rpartition(".")[2].lower() in _IMAGES else "file"
