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
_PART: Final = {"preamble": TEXT, "data": TEXT}


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
        messages += _said(turn, number, skipped)
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


def _said(turn: dict[str, Any], number: int, skipped: Counter[str]) -> Iterator[Said]:
    """Yield the prompt and the answer of a turn, which mostly has one of them.

    What is left out is counted.
    """
    asked, answered = turn.get("user_turn"), turn.get("system_turn")
    if not fits(turn, _TURN) or not fits(to_object(asked), _ASKED):
        skipped[DAMAGED] += 1
    elif asked is None and answered is None:
        skipped["turn of another kind"] += 1
    else:
        if isinstance(asked, dict):
            yield _message(asked, number, "user", to_text(asked.get("prompt")), [])
        if isinstance(answered, dict):
            if answered.get("model_thoughts"):
                skipped["reasoning"] += 1
            text, media = _answer(answered.get("text"), skipped)
            if text or media:
                yield _message(answered, number, "assistant", text, media)
            else:
                skipped["empty answer"] += 1


def _answer(parts: object, skipped: Counter[str]) -> tuple[str, list[dict[str, str]]]:
    """Return the text and the attachments of an answer, which is a text or a list of parts."""
    if isinstance(parts, str):
        return parts, []
    texts: list[str] = []
    media: list[dict[str, str]] = []
    for part in objects_of(parts, skipped):
        skipped[DAMAGED] += not fits(part, _PART)
        texts += [to_text(part.get("preamble")), to_text(part.get("data"))]
        media += [{"kind": "card"} for _ in objects_of(part.get("cards"), skipped)]
    skipped += Counter()  # drops a count of zero
    return "\n".join(filter(None, texts)), media


def _message(
    fields: dict[str, Any], number: int, role: str, text: str, media: list[dict[str, str]]
) -> Said:
    return Said(
        text,
        to_utc_time(fields.get("turn_last_modified")),
        role=role,
        message_id=f"{to_id(fields.get('turn_index')) or number}-{role}",
        metadata={ATTACHMENTS: media} if media else {},
    )
