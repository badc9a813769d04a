"""Open WebUI's export: a list of chats, or the program's database `webui.db`.

A chat is a tree of messages. Its course is the path from the root to `history.currentId`; other
children are regenerated answers, edited questions, and answers of other models. Reasoning and calls
of tools stand in an answer's text, as HTML elements `<details>` of certain types.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from types import NoneType
from typing import TYPE_CHECKING, Any, Final

from aico_lab.errors import CorruptDatabase
from aico_lab.messages.metadata import ATTACHMENTS
from aico_lab.sources.exports.engine.conversation import (
    ALTERNATIVES,
    MODEL,
    ExportedConversation,
    Rating,
    Said,
    Traits,
    Unreadable,
)
from aico_lab.sources.exports.engine.databases import columns, database, databases
from aico_lab.sources.exports.engine.epochs import from_epoch
from aico_lab.sources.exports.engine.fields import (
    DAMAGED,
    ID,
    LIST,
    OBJECT,
    TEXT,
    fits,
    objects_of,
    to_id,
    to_object,
    to_objects,
    to_text,
)
from aico_lab.sources.exports.engine.json_items import items, shape
from aico_lab.sources.exports.engine.paths import newest_leaf, path_to

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from aico_lab.adapters.libsql import Connection
    from aico_lab.sources.exports.engine.conversation import Options
    from aico_lab.sources.exports.engine.opened import Opened

TRAITS: Final = Traits(ends_known=True, damage_is_near=True)

_DETAILS: Final = re.compile(
    r"""<details\b[^>]*\btype=["']?(?P<type>reasoning|tool_calls|code_interpreter)\b[^>]*>""",
    re.IGNORECASE,
)
_TAG: Final = re.compile(r"<(?P<end>/?)details\b[^>]*>", re.IGNORECASE)
_REASONS: Final = {"reasoning": "reasoning", "tool_calls": "tool call"}
_COLUMNS: Final = frozenset({"id", "user_id", "title", "created_at", "chat"})
_RATINGS: Final = {1: "thumbs_up", -1: "thumbs_down"}


_CHAT: Final = {"history": OBJECT, "messages": LIST}
_HISTORY: Final = {"messages": OBJECT}
_MESSAGE: Final = {
    "id": ID,
    "parentId": ID,
    "role": (str,),
    "content": (str, list, NoneType),
    "output": LIST,
    "files": LIST,
}
_PART: Final = {"type": (str,), "text": TEXT}


def recognise(export: Opened) -> str | None:
    """Return the reason why an export is Open WebUI's, or None."""
    for member in export.with_suffix(".json"):
        if shape(member) & {"item.chat.history", "item.chat.messages"}:
            return f"{member.name} has chats with their history"
    for member in databases(export):
        if columns(export, member, "chat") >= _COLUMNS:
            return f"{member.name} has the table chat"
    return None


def conversations(export: Opened, options: Options) -> Generator[ExportedConversation | Unreadable]:
    """Yield the conversations of an export."""
    del options
    for member in export.with_suffix(".json"):
        if len(export.members) > 1 and not any(
            path.startswith("item.chat") for path in shape(member)
        ):
            continue
        for item in items(member, "item", needs={"chat"}, what="chat"):
            if isinstance(item, Unreadable):
                yield Unreadable(f"{item.where} of {member.name}", item.reason)
            else:
                yield _conversation(item)
    for member in databases(export):
        if columns(export, member, "chat") >= _COLUMNS:
            with database(export, member) as connection:
                yield from _of_database(connection, member.name)


def _of_database(connection: Connection, name: str) -> Iterator[ExportedConversation | Unreadable]:
    """Yield the chats of a database, oldest first; each is read alone, as it may be large."""
    try:
        rows = connection.fetch_all("SELECT rowid FROM chat ORDER BY created_at, rowid")
    except CorruptDatabase:  # the index of the ids may be sound
        rows = connection.fetch_all("SELECT rowid FROM chat ORDER BY id")
    for number, (row_id,) in enumerate(rows, 1):
        try:
            row = connection.fetch_one(
                "SELECT id, user_id, title, created_at, chat FROM chat WHERE rowid = ?", [row_id]
            )
        except (CorruptDatabase, UnicodeDecodeError):
            yield Unreadable(f"chat {number:,} of {name}", "the database is damaged here")
            continue
        if row is not None:
            yield _of_row(*row)


def _of_row(
    name: object, user: object, title: object, created: object, chat: object
) -> ExportedConversation | Unreadable:
    try:
        parsed = json.loads(chat) if isinstance(chat, str) else None
    except (ValueError, RecursionError):
        parsed = None
    return _conversation(
        {"id": name, "user_id": user, "title": title, "created_at": created, "chat": parsed}
    )


def _conversation(item: dict[str, Any]) -> ExportedConversation | Unreadable:
    chat = item.get("chat")
    name = to_id(item.get("id")) or to_id(to_object(chat).get("id"))
    if name is None:
        return Unreadable("a chat", "it has no id")
    if not isinstance(chat, dict):
        return Unreadable(f"chat {name[:64]}", "its content is damaged")
    skipped: Counter[str] = Counter()
    if not _has_messages(chat, skipped):
        return Unreadable(f"chat {name[:64]}", "it has no list of messages")
    tree, current, is_tree = _tree(chat, skipped)
    parents = {key: node.parent for key, node in tree.items()}
    skipped[DAMAGED] += _damaged(tree, parents, current)
    skipped += Counter()  # drops a count of zero
    siblings = Counter((node.parent, _role(node.message)) for node in tree.values())
    if current not in tree:
        current = newest_leaf(parents, _seconds(tree))
    messages: list[Said] = []
    path = path_to(parents, current)
    for key in path:
        node = tree[key]
        if _is_damaged(node.message):
            continue
        said = _said(key, node.message, to_id(item.get("user_id")), skipped)
        if said is None:
            continue
        others = siblings[node.parent, _role(node.message)] - 1
        if others:
            said.metadata[ALTERNATIVES] = others
        if is_tree:
            said.reply_to = messages[-1].message_id if messages else None
        messages.append(said)
    return ExportedConversation(
        name,
        messages,
        title=to_text(item.get("title")) or to_text(chat.get("title")) or None,
        channel_id="openwebui",
        channel_name="Open WebUI",
        started=from_epoch(item.get("created_at")) or from_epoch(chat.get("timestamp")),
        off_path=frozenset(
            to_id(tree[key].message.get("id")) or key for key in tree.keys() - set(path)
        )
        - {said.message_id for said in messages},
        skipped=skipped,
    )


class _Node:
    """A message in the tree of a chat.

    Attributes:
        message: The message as the file has it.
        parent: The key of the message before it, or None.
    """

    def __init__(self, message: dict[str, Any], parent: str | None) -> None:
        self.message = message
        self.parent = parent


def _tree(chat: dict[str, Any], skipped: Counter[str]) -> tuple[dict[str, _Node], str | None, bool]:
    """Return the messages of a chat by key, the key of the current one, and whether it is a tree.

    Old chats have no tree but a list, in which each message follows the one before it.
    """
    history = to_object(chat.get("history"))
    nodes = {
        key: _Node(message, to_id(message.get("parentId")))
        for key, message in to_object(history.get("messages")).items()
        if isinstance(message, dict)
    }
    if broken := len(to_object(history.get("messages"))) - len(nodes):
        skipped[DAMAGED] += broken
    if nodes:
        return nodes, to_id(history.get("currentId")), True
    last: str | None = None
    for number, message in enumerate(objects_of(chat.get("messages"), skipped)):
        key = to_id(message.get("id")) or f"{number}"
        if key not in nodes:
            nodes[key] = _Node(message, last)
            last = key
    return nodes, last, False


def _damaged(tree: dict[str, _Node], parents: dict[str, str | None], current: str | None) -> int:
    """Return the number of messages, and of their places in the tree, that are damaged."""
    damaged = sum(_is_damaged(node.message) for node in tree.values())
    damaged += sum(parent is not None and parent not in tree for parent in parents.values())
    roots = [key for key, parent in parents.items() if parent is None]
    children = {
        child
        for node in tree.values()
        if isinstance(listed := node.message.get("childrenIds"), list)
        for child in listed
        if isinstance(child, str)
    }  # several roots are versions of the first question, unless they are children
    damaged += len(children.intersection(roots)) if children else max(len(roots) - 1, 0)
    if current not in tree:  # which of several branches is not known
        damaged += len(tree.keys() - set(parents.values())) > 1
    return damaged


def _has_messages(chat: dict[str, Any], skipped: Counter[str]) -> bool:
    """Return whether a chat has a list of messages; count its system prompt."""
    if to_text(chat.get("system")).strip():
        skipped["system prompt"] += 1
    history = to_object(chat.get("history"))
    has_list = chat.get("history") is not None or chat.get("messages") is not None
    if history and history.get("messages") is None:  # an empty chat has an empty object there
        has_list = bool(chat.get("messages"))
    return has_list and fits(chat, _CHAT) and fits(history, _HISTORY)


def _is_damaged(message: dict[str, Any]) -> bool:
    """Return whether a field that decides what a message says has a value of a wrong type."""
    if not fits(message, _MESSAGE):
        return True
    content = message.get("content")
    if content is None:
        return not to_objects(message.get("output"))
    parts = content if isinstance(content, list) else []
    return any(not (isinstance(part, dict) and fits(part, _PART)) for part in parts)


def _seconds(tree: dict[str, _Node]) -> dict[str, float]:
    times = {key: from_epoch(node.message.get("timestamp")) for key, node in tree.items()}
    return {key: 0.0 if time is None else time.timestamp() for key, time in times.items()}


def _role(message: dict[str, Any]) -> str:
    return to_text(message.get("role"))


def _said(
    key: str, message: dict[str, Any], user: str | None, skipped: Counter[str]
) -> Said | None:
    """Return the message, or None if it has no content; count messages that are left out."""
    role = _role(message)
    if role not in ("user", "assistant"):
        skipped["system prompt" if role == "system" else "message of another role"] += 1
        return None
    text = _text(message.get("content"), skipped)
    if role == "assistant":
        text = _without_details(text, skipped)
        text = text if text.strip() else _output(message, skipped)
    media = _media(message, skipped)
    if role == "assistant" and not (text.strip() or media):
        skipped["empty answer"] += 1
        return None
    metadata: dict[str, object] = {}
    if media:
        metadata[ATTACHMENTS] = media
    if role == "assistant" and isinstance(message.get("model"), str):
        metadata[MODEL] = message["model"]
    return Said(
        text,
        from_epoch(message.get("timestamp")),
        role=role,
        author=user if role == "user" else None,
        message_id=to_id(message.get("id")) or key,
        metadata=metadata,
        ratings=list(_ratings(message)),
    )


def _text(content: object, skipped: Counter[str]) -> str:
    """Return the text of a message, which may be a list of parts."""
    if isinstance(content, list):
        parts = objects_of(content, skipped)
        return "\n".join(to_text(part.get("text")) for part in parts).strip("\n")
    return to_text(content)


def _without_details(text: str, skipped: Counter[str]) -> str:
    """Return an answer without its reasoning and calls of tools; an open block lasts to its end."""
    kept: list[str] = []
    at = 0
    while (found := _DETAILS.search(text, at)) is not None:
        kept.append(text[at : found.start()])
        skipped[_REASONS.get(found["type"].lower(), "code run by the program")] += 1
        depth, at = 1, len(text)
        for tag in _TAG.finditer(text, found.end()):
            depth += -1 if tag["end"] else 1
            if not depth:
                at = tag.end()
                break
    return "".join([*kept, text[at:]])


def _output(message: dict[str, Any], skipped: Counter[str]) -> str:
    """Return the text of the message parts of `output`."""
    parts = objects_of(message.get("output"), skipped)
    said = [part for part in parts if part.get("type") == "message"]
    return "\n".join(filter(None, (_text(part.get("content"), skipped) for part in said)))


def _media(message: dict[str, Any], skipped: Counter[str]) -> list[dict[str, str]]:
    kinds = [
        "image" if "image" in f"{to_text(file.get('type'))} {to_text(file.get('content_type'))}"
        else "file"
        for file in objects_of(message.get("files"), skipped)
    ]  # fmt: skip
    parts = to_objects(message.get("content"))
    kinds += ["image" for part in parts if part.get("type") == "image_url"]
    return [{"kind": kind} for kind in kinds]


def _ratings(message: dict[str, Any]) -> Iterator[Rating]:
    """Yield the rating of an answer by thumb, if there is one."""
    value = to_object(message.get("annotation")).get("rating")
    if isinstance(value, int | float) and value in _RATINGS:
        yield Rating(_RATINGS[int(value)], float(value))
