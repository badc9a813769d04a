"""ChatGPT's export: `conversations.json`, or its parts `conversations-000.json` and so on.

A conversation is a tree of nodes. Its course is the path from the root to `current_node`; other
children are regenerated answers and edited questions. The path also has nodes of the system, of
tools and of hidden instructions, which are no messages.
"""

from __future__ import annotations

import re
from collections import Counter
from types import NoneType
from typing import TYPE_CHECKING, Any, Final

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
from aico_lab.sources.exports.engine.epochs import from_epoch
from aico_lab.sources.exports.engine.fields import (
    DAMAGED,
    FLAG,
    LIST,
    OBJECT,
    TEXT,
    fits,
    to_id,
    to_object,
    to_text,
    to_utc_time,
)
from aico_lab.sources.exports.engine.json_items import items, shape
from aico_lab.sources.exports.engine.paths import newest_leaf, path_to

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable
    from datetime import datetime

    from aico_lab.sources.exports.engine.conversation import Options
    from aico_lab.sources.exports.engine.opened import Member, Opened

TRAITS: Final = Traits(ends_known=True, damage_is_near=True)

_PARTS: Final = re.compile(r"conversations([-_ ]?\(?\d+\)?)?\.json", re.IGNORECASE)
_GAPS: Final = 100
"""Nodes that are lost from a path, over which the path goes on."""

_CITATION: Final = re.compile("\ue200.*?\ue201|[\ue200-\ue206]", re.DOTALL)
_HIDDEN: Final = ("is_visually_hidden_from_conversation", "is_user_system_message")
_MESSAGE: Final = {
    "id": TEXT,
    "author": (dict,),
    "content": (dict,),
    "metadata": OBJECT,
    "recipient": TEXT,
    "channel": TEXT,
    "weight": (int, float, NoneType),
}
_CONTENT: Final = {"content_type": TEXT, "parts": LIST}
_METADATA: Final = dict.fromkeys(_HIDDEN, FLAG)

_SAID: Final = frozenset({None, "text", "multimodal_text"})
_MEDIA_KINDS: Final = {
    "image_asset_pointer": "image",
    "audio_asset_pointer": "audio",
    "real_time_user_audio_video_asset_pointer": "video",
}


def recognise(export: Opened) -> str | None:
    """Return the reason why an export is ChatGPT's, or None."""
    for member in _members(export):
        paths = shape(member)
        nodes = any(path.startswith("item.mapping.") for path in paths)
        if nodes and not any(path.endswith(".message.fragments") for path in paths):
            return f"{member.name} has conversations with a mapping of messages"
    return None


def conversations(export: Opened, options: Options) -> Generator[ExportedConversation | Unreadable]:
    """Yield the conversations of an export."""
    del options
    ratings = _ratings(export)
    given: set[str | None] = set()
    there: set[str] = set()
    for member in _members(export):
        for item in items(member, "item", needs={"mapping"}):
            if isinstance(item, Unreadable):
                yield Unreadable(f"{item.where} of {member.name}", item.reason)
            else:
                conversation = _conversation(item, ratings)
                if ratings and isinstance(conversation, ExportedConversation):
                    given |= {said.message_id for said in conversation.messages}
                    there |= _message_ids(to_object(item.get("mapping")).values())
                yield conversation
    skipped: Counter[str] = Counter()
    for name in ratings.keys() - given:
        reason = "that was left out" if name in there else "that is not in the export"
        skipped[f"rating of a message {reason}"] += len(ratings[name])
    if skipped:
        yield ExportedConversation("ratings", [], skipped=skipped)


def _message_ids(nodes: Iterable[object]) -> set[str]:
    """Return the ids of the messages of nodes, also of those on no path."""
    messages = ((to_object(node.get("message")), node) for node in map(to_object, nodes))
    names = (message.get("id") or node.get("id") for message, node in messages)
    return {name for name in names if isinstance(name, str)}


def _members(export: Opened) -> list[Member]:
    found = [member for member in export.members if _PARTS.fullmatch(member.base)]
    return found or (export.with_suffix(".json") if len(export.members) == 1 else [])


def _ratings(export: Opened) -> dict[str, list[Rating]]:
    """Return the ratings in `message_feedback.json`, by the message's id."""
    found: dict[str, list[Rating]] = {}
    for member in export.named("message_feedback.json"):
        for item in items(member, "item", needs={"id", "rating"}, what="rating"):
            if isinstance(item, Unreadable):
                continue
            name = item.get("rating")
            if not isinstance(name, str) or not isinstance(item.get("id"), str):
                continue
            value = {"thumbs_up": 1.0, "thumbs_down": -1.0}.get(name.casefold())
            rating = Rating(name, value, _time(item.get("create_time")))
            found.setdefault(item["id"], []).append(rating)
    return found


def _conversation(
    item: dict[str, Any], ratings: dict[str, list[Rating]]
) -> ExportedConversation | Unreadable:
    name = to_id(item.get("conversation_id")) or to_id(item.get("id"))
    title = item.get("title")
    mapping = item.get("mapping")
    if not isinstance(mapping, dict):
        return Unreadable(f"conversation {name}", "it has no mapping of messages")
    nodes = {key: node for key, node in mapping.items() if isinstance(node, dict)}
    reasons = {key: _reason(node) for key, node in nodes.items()}
    if name is None:  # its first message has an id
        name = next((key for key, reason in reasons.items() if reason is None), "no-id")
    skipped: Counter[str] = Counter()
    parents, damaged = _parents(mapping, nodes)
    damaged += sum(reason == DAMAGED for reason in reasons.values())
    if _name(item.get("current_node")) not in nodes:
        damaged += len(nodes.keys() - set(parents.values())) > 1  # which branch is not known
    if damaged:
        skipped[DAMAGED] = damaged
    roles = {
        key: nodes[key]["message"]["author"]["role"]
        for key, reason in reasons.items()
        if reason is None
    }
    siblings = Counter((parents[key], role) for key, role in roles.items())
    messages: list[Said] = []
    path = _path(nodes, parents, item.get("current_node"))
    answered: str | None = None
    gpt = item.get("gizmo_id")
    for key in path:
        node = nodes[key]
        if parents[key] not in nodes:
            answered = None
        reason = reasons[key]
        if reason is not None:
            if reason and reason != DAMAGED:
                skipped[reason] += 1
            continue
        message = node["message"]
        said = _said(message, node, item)
        others = siblings[parents[key], roles[key]] - 1
        if others:
            said.metadata[ALTERNATIVES] = others
        said.ratings = ratings.get(said.message_id or "", [])
        said.reply_to, answered = answered, said.message_id
        messages.append(said)
    return ExportedConversation(
        name,
        messages,
        title=title if isinstance(title, str) else None,
        channel_id=gpt if isinstance(gpt, str) else "chatgpt",
        channel_name="a custom GPT" if isinstance(gpt, str) else "ChatGPT",
        started=_time(item.get("create_time")),
        off_path=frozenset(
            _message_ids(nodes[key] for key in roles.keys() - set(path))
            - {said.message_id for said in messages}
        ),
        skipped=skipped,
    )


def _parents(
    mapping: dict[str, object], nodes: dict[str, dict[str, Any]]
) -> tuple[dict[str, str | None], int]:
    """Return the parent of each node, and the number of nodes and parents that are damaged.

    Where the parent is damaged, the node that has the other one among its children is the parent.
    """
    above: dict[str, str] = {}
    for key, node in nodes.items():
        children = node.get("children")
        for child in children if isinstance(children, list) else ():
            if isinstance(child, str):
                above.setdefault(child, key)
    parents: dict[str, str | None] = {}
    damaged = len(mapping) - len(nodes)
    for key, node in nodes.items():
        parent = node.get("parent")
        parents[key] = parent if isinstance(parent, str) else above.get(key)
        is_sound = type(parent) in TEXT and (parents[key] == parent)
        damaged += not is_sound or (parent is not None and parent not in mapping)
    lost = {parent for parent in parents.values() if parent is not None and parent not in nodes}
    for key, parent in parents.items():
        if parent in lost and parent in above and above[parent] != key:
            parents[key] = above[parent]
    return parents, damaged


def _path(
    nodes: dict[str, dict[str, Any]], parents: dict[str, str | None], current: object
) -> list[str]:
    """Return the nodes from the root to the current one, or else to the newest leaf.

    Over a node that is lost, the path goes on only if there is no choice between branches.
    """
    last = _name(current)
    if last not in nodes:
        last = newest_leaf(parents, {key: _seconds(node) for key, node in nodes.items()})
    path = path_to(parents, last)
    for _ in range(_GAPS):
        lost = parents[path[0]] if path else None
        if lost is None or lost in parents:
            break
        rest = _not_below(parents, lost)  # the other branches below it are alternatives
        leaves = rest.keys() - set(rest.values())
        if len(leaves) != 1:
            break
        path, parents = path_to(rest, leaves.pop()) + path, rest
    return path


def _not_below(parents: dict[str, str | None], top: str) -> dict[str, str | None]:
    """Return the parents of all nodes that are not in the branches below a node."""
    children: dict[str | None, list[str]] = {}
    for key, parent in parents.items():
        children.setdefault(parent, []).append(key)
    below: set[str] = set()
    waiting = [top]
    while waiting:
        found = [key for key in children.get(waiting.pop(), []) if key not in below]
        below.update(found)
        waiting += found
    return {key: parent for key, parent in parents.items() if key not in below}


def _seconds(node: dict[str, Any]) -> float:
    time = _time(to_object(node.get("message")).get("create_time"))
    return 0.0 if time is None else time.timestamp()


def _name(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _reason(node: dict[str, Any]) -> str | None:
    """Return the reason why a node is no message; '' for an empty node, None for a message."""
    message = node.get("message")
    if message is None and node.get("parent") is None:
        return ""
    if not isinstance(message, dict) or _is_damaged(message):
        return DAMAGED
    metadata, content, role = message.get("metadata"), message["content"], message["author"]["role"]
    kind = content.get("content_type")
    is_answer = role == "assistant"
    reason = None
    if role == "tool":
        reason = "tool result"
    elif (metadata and any(map(metadata.get, _HIDDEN))) or message.get("weight") == 0:
        reason = "hidden instruction"
    elif role not in ("user", "assistant"):
        reason = "system prompt"
    elif kind == "user_editable_context":
        reason = "custom instructions"
    elif is_answer and message.get("recipient") not in (None, "all"):
        reason = "tool call"
    elif kind not in _SAID or (is_answer and message.get("channel") in ("commentary", "analysis")):
        reason = "reasoning or code"
    elif is_answer and not (_text(content) or _media(content)):
        reason = "empty answer"
    return reason


def _is_damaged(message: dict[str, Any]) -> bool:
    """Return whether a field that decides what a message says has a value of a wrong type."""
    if not fits(message, _MESSAGE):
        return True
    content, metadata = message["content"], message.get("metadata")
    if not fits(content, _CONTENT) or not isinstance(message["author"].get("role"), str):
        return True
    if metadata is not None and not fits(metadata, _METADATA):
        return True
    text, parts = content.get("text"), content.get("parts")
    strange = any(
        not isinstance(part, str) and not _name(to_object(part).get("content_type"))
        for part in parts or ()
    )
    if content.get("content_type") in _SAID:
        strange |= type(text) not in TEXT or (parts is None and text is None)
    return strange and not (_text(content) or _media(content))


def _said(message: dict[str, Any], node: dict[str, Any], item: dict[str, Any]) -> Said:
    metadata, content = to_object(message.get("metadata")), message["content"]
    role = message["author"]["role"]
    model = metadata.get("model_slug") or item.get("default_model_slug")
    kept: dict[str, object] = {}
    if role == "assistant" and isinstance(model, str):
        kept[MODEL] = model
    if media := _media(content):
        kept[ATTACHMENTS] = media
    seconds = metadata.get("finished_duration_sec")
    if role == "assistant" and isinstance(seconds, int | float) and seconds >= 0:
        kept["generation_seconds"] = seconds
    message_id = message.get("id") or node.get("id")
    return Said(
        _text(content),
        _time(message.get("create_time")),
        role=role,
        message_id=message_id if isinstance(message_id, str) else None,
        metadata=kept,
    )


def _parts(content: dict[str, Any]) -> list[object]:
    parts = content.get("parts")
    return parts if isinstance(parts, list) else []


def _text(content: dict[str, Any]) -> str:
    """Return the text of a message: parts that are text, and the words of speech."""
    texts = []
    for part in _parts(content):
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict) and part.get("content_type") == "audio_transcription":
            texts.append(to_text(part.get("text")))
    if not texts and isinstance(content.get("text"), str):
        texts.append(content["text"])
    return _CITATION.sub("", "\n".join(filter(None, texts))).strip()


def _media(content: dict[str, Any]) -> list[dict[str, str]]:
    kinds = [_name(part.get("content_type")) for part in _parts(content) if isinstance(part, dict)]
    return [{"kind": _MEDIA_KINDS[kind]} for kind in kinds if kind in _MEDIA_KINDS]


def _time(value: object) -> datetime | None:
    """Return a time given in seconds since 1970, as a number or a text, or in ISO 8601."""
    return from_epoch(value) or to_utc_time(value)
