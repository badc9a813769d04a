"""LM Studio's conversations: a file `<milliseconds>.conversation.json` for each.

A message has versions, of which one is selected. The program keeps no time of a message, only that
of the conversation's beginning, which is also the name of the file.
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
    Said,
    Traits,
    Unreadable,
)
from aico_lab.sources.exports.engine.epochs import from_epoch
from aico_lab.sources.exports.engine.fields import (
    DAMAGED,
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
from aico_lab.sources.exports.engine.names import without_counter

if TYPE_CHECKING:
    from collections.abc import Generator

    from aico_lab.sources.exports.engine.conversation import Options
    from aico_lab.sources.exports.engine.opened import Member, Opened

TRAITS: Final = Traits(ends_known=True, damage_is_near=True)

_NAME: Final = re.compile(r"(\d{10,})\.conversation\b.*\.json", re.IGNORECASE)
_EMPTY: Final = frozenset({"createdAt", "systemPrompt", "messages", "tokenCount"})


_VERSION: Final = {"role": (str,), "content": LIST, "steps": LIST, "senderInfo": OBJECT}
_STEP: Final = {"type": (str,), "content": LIST, "style": OBJECT}
_PART: Final = {"type": (str,), "text": TEXT}


def recognise(export: Opened) -> str | None:
    """Return the reason why an export is LM Studio's, or None."""
    for member in export.with_suffix(".json"):
        if _is_ours(member):
            return f"{member.name} has messages in versions"
    return None


def conversations(export: Opened, options: Options) -> Generator[ExportedConversation | Unreadable]:
    """Yield the conversations of an export; a folder may hold many files."""
    del options
    for member in export.with_suffix(".json"):
        if len(export.members) > 1 and not (_NAME.fullmatch(member.base) or _is_ours(member)):
            continue
        for item in items(member, "", needs={"messages"}):
            if isinstance(item, Unreadable):
                yield Unreadable(f"{item.where} of {member.name}", item.reason)
            else:
                yield _conversation(item, member)


def _is_ours(member: Member) -> bool:
    paths = shape(member)
    return "messages.item.versions" in paths or paths >= _EMPTY


def _conversation(item: dict[str, Any], member: Member) -> ExportedConversation | Unreadable:
    if not isinstance(item.get("messages"), list):
        return Unreadable(member.name, "it has no list of messages")
    skipped: Counter[str] = Counter()
    if to_text(item.get("systemPrompt")).strip():
        skipped["system prompt"] += 1
    messages = []
    for message in objects_of(item["messages"], skipped):
        if _is_damaged(message):
            skipped[DAMAGED] += 1
            continue
        said = _said(message, skipped)
        if said is not None:
            messages.append(said)
    named = _NAME.fullmatch(member.base)
    name = named[1] if named else to_id(item.get("createdAt")) or without_counter(member.base)
    return ExportedConversation(
        name,
        messages,
        title=to_text(item.get("name")) or None,
        channel_id="lmstudio",
        channel_name="LM Studio",
        started=from_epoch(item.get("createdAt")) or from_epoch(name),
        skipped=skipped,
    )


def _is_damaged(message: dict[str, Any]) -> bool:
    """Return whether a field that decides what a message says has a value of a wrong type."""
    versions = message.get("versions")
    if not isinstance(versions, list) or type(message.get("currentlySelected")) not in (
        int,
        NoneType,
    ):
        return True
    return not all(isinstance(version, dict) and _is_sound(version) for version in versions)


def _is_sound(version: dict[str, Any]) -> bool:
    """Return whether a version has one of the two forms, with objects in its lists."""
    steps, content = version.get("steps"), version.get("content")
    if not fits(version, _VERSION) or (steps is None and content is None):
        return False
    if not fits(to_object(version.get("senderInfo")), {"senderName": TEXT}):
        return False
    for step in steps or []:
        if not (isinstance(step, dict) and fits(step, _STEP)):
            return False
        if not fits(to_object(step.get("style")), {"type": TEXT}):
            return False
    contents = [content or [], *(step.get("content") or [] for step in steps or [])]
    parts = [part for one in contents for part in one]
    return all(
        isinstance(part, dict)
        and fits(part, _PART)
        and (part["type"] != "text" or isinstance(part.get("text"), str))
        for part in parts
    )


def _said(message: dict[str, Any], skipped: Counter[str]) -> Said | None:
    """Return the message, or None if it has no content; count messages that are left out."""
    versions = to_objects(message.get("versions"))
    if not versions:
        skipped["message without a version"] += 1
        return None
    selected = message.get("currentlySelected")
    at = selected if isinstance(selected, int) and 0 <= selected < len(versions) else -1
    version = versions[at]
    role = to_text(version.get("role"))
    if role not in ("user", "assistant"):
        skipped["system prompt" if role == "system" else "message of another role"] += 1
        return None
    parts = _parts(version, skipped)
    text = "\n".join(filter(None, (to_text(part.get("text")) for part in parts)))
    media = [{"kind": _kind(part)} for part in parts if part.get("type") == "file"]
    if role == "assistant" and not (text.strip() or media):
        skipped["empty answer"] += 1
        return None
    sender = to_text(to_object(version.get("senderInfo")).get("senderName")).strip() or None
    metadata: dict[str, object] = {}
    if media:
        metadata[ATTACHMENTS] = media
    if len(versions) > 1:
        metadata[ALTERNATIVES] = len(versions) - 1
    if role == "assistant" and (model := _model(version) or sender):
        metadata[MODEL] = model
    return Said(
        text,
        None,
        role=role,
        author=sender if role == "assistant" else None,
        metadata=metadata,
    )


def _parts(version: dict[str, Any], skipped: Counter[str]) -> list[dict[str, Any]]:
    """Return the texts and files of a version."""
    contents = [version.get("content")]
    for step in to_objects(version.get("steps")):
        if step.get("type") != "contentBlock":
            skipped["notice" if step.get("type") == "debugInfoBlock" else "tool call"] += 1
        elif to_object(step.get("style")).get("type") == "thinking":
            skipped["reasoning"] += 1
        elif step.get("role") == "tool":
            skipped["tool result"] += 1
        else:
            contents.append(step.get("content"))
    said = []
    for part in (part for content in contents for part in to_objects(content)):
        if part.get("type") in ("text", "file"):
            said.append(part)
        else:
            skipped["tool call"] += 1
    return said


def _kind(part: dict[str, Any]) -> str:
    kind = to_text(part.get("fileType")).partition("/")[0]
    return kind if kind in ("image", "audio", "video") else "file"


def _model(version: dict[str, Any]) -> str | None:
    """Return the model that wrote a version, as its last step names it."""
    infos = [to_object(step.get("genInfo")) for step in to_objects(version.get("steps"))]
    infos.insert(0, to_object(version.get("genInfo")))
    names = [to_text(info.get("identifier")) for info in infos]
    return next((name for name in reversed(names) if name), None)
