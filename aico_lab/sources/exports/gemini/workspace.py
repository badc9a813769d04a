"""Gemini's conversations in a Takeout of Google Workspace: files `conversation_<number>.txt`.

Each is one JSON object with `conversation_turns`; a `system_turn` is Gemini's answer.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from aico_lab.messages.metadata import ATTACHMENTS
from aico_lab.sources.exports.engine.conversation import ExportedConversation, Said, Unreadable
from aico_lab.sources.exports.engine.fields import (
    DAMAGED,
    OBJECT,
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
from aico_lab.sources.exports.engine.names import without_counter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aico_lab.sources.exports.engine.opened import Member

_KEY: Final = "conversation_turns"

_TURN: Final = {"user_turn": OBJECT, "system_turn": OBJECT}
_ASKED: Final = {"prompt": TEXT}


def is_workspace(member: Member) -> bool:
    """Return whether a file is a conversation of Gemini in Google Workspace."""
    return _KEY in shape(member)


def workspace(member: Member) -> Iterator[ExportedConversation | Unreadable]:
    """Yield the conversation of a file."""
    for item in items(member, "", needs={_KEY}):
        if isinstance(item, Unreadable):
            yield Unreadable(f"{item.where} of {member.name}", item.reason)
        elif not isinstance(item.get(_KEY), list):
            yield Unreadable(member.name, "the conversation has no list of turns")
        else:
            yield _conversation(item, member)


def _conversation(item: dict[str, Any], member: Member) -> ExportedConversation:
    skipped: Counter[str] = Counter()
    messages: list[Said] = []
    for number, turn in enumerate(objects_of(item[_KEY], skipped)):
        said = _said(turn, number, skipped)
        if said is not None:
            messages.append(said)
    created = to_utc_time(item.get("creation_time"))
    name = to_text(item.get("creation_time")).strip() if created else without_counter(member.base)
    return ExportedConversation(
        name,
        messages,
        title=to_text(item.get("title")) or None,
        channel_id="gemini",
        channel_name="Gemini",
        started=created,
        skipped=skipped,
    )


def _said(turn: dict[str, Any], number: int, skipped: Counter[str]) -> Said | None:
    """Return the message, or None if a turn has no content; count turns that are left out."""
    asked, answered = turn.get("user_turn"), turn.get("system_turn")
    fields = to_object(asked if isinstance(asked, dict) else answered)
    media: list[dict[str, str]] = []
    if not fits(turn, _TURN) or not fits(to_object(asked), _ASKED):
        skipped[DAMAGED] += 1
        return None
    if isinstance(asked, dict):
        role, text = "user", to_text(asked.get("prompt"))
    elif isinstance(answered, dict):
        role = "assistant"
        if answered.get("model_thoughts"):
            skipped["reasoning"] += 1
        parts = answered.get("text")
        texts = [parts] if isinstance(parts, str) else []
        for part in to_objects(parts):
            texts += [to_text(part.get("preamble")), to_text(part.get("data"))]
            media += [{"kind": "card"} for _ in to_objects(part.get("cards"))]
        text = "\n".join(filter(None, texts))
        if not (text or media):
            skipped["empty answer"] += 1
            return None
    else:
        skipped["turn of another kind"] += 1
        return None
    return Said(
        text,
        to_utc_time(fields.get("turn_last_modified")),
        role=role,
        message_id=f"{to_id(fields.get('turn_index')) or number}-{role}",
        metadata={ATTACHMENTS: media} if media else {},
    )
