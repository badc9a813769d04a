"""Character.AI chats of the old site: a dump of all histories with a character, or pages of one.

The times of messages are meaningless; a history has the time of its creation.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from aico_lab.sources.exports.engine.conversation import ExportedConversation, Said, Unreadable
from aico_lab.sources.exports.engine.fields import (
    DAMAGED,
    TEXT,
    fits,
    objects_of,
    to_id,
    to_object,
    to_text,
    to_utc_time,
)
from aico_lab.sources.exports.engine.json_items import items, shape
from aico_lab.sources.exports.engine.names import without_date
from aico_lab.sources.exports.engine.stored import Shelf

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from aico_lab.sources.exports.engine.opened import Member

_HISTORIES: Final = "histories.histories.item"
_HISTORY_PREFIXES: Final = (_HISTORIES, "histories.item", "item")
_PAGE_PREFIXES: Final = ("messages.item", "item.messages.item", "item")
_IS_HUMAN: Final = "src__is_human"


def is_of_histories(paths: Collection[str]) -> bool:
    """Return whether a document with some paths of keys has histories or pages of messages."""
    return _prefix(paths) is not None


def histories(member: Member, *, is_alone: bool) -> Iterator[ExportedConversation | Unreadable]:
    """Yield the conversations of a file.

    Args:
        member: The file.
        is_alone: Whether the export has no other file, so that the file must have histories.
    """
    found = _prefix(shape(member))
    if found is None and not is_alone and b'"msgs"' not in member.head():
        return
    prefix, key = found or (_HISTORIES, "msgs")
    if key == _IS_HUMAN:
        yield from _pages(member, prefix)
        return
    number = 0
    for number, item in enumerate(items(member, prefix, needs={"msgs"}, what="history"), 1):
        yield item if isinstance(item, Unreadable) else _history(item, number)
    if not number:
        yield Unreadable("the list", "it has no histories")


def _prefix(paths: Collection[str]) -> tuple[str, str] | None:
    """Return the path of the items, and a key that each of them has."""
    for prefix in _HISTORY_PREFIXES:
        if {f"{prefix}.msgs", f"{prefix}.external_id"} <= set(paths):
            return prefix, "msgs"
    for prefix in _PAGE_PREFIXES:
        if f"{prefix}.{_IS_HUMAN}" in paths:
            return prefix, _IS_HUMAN
    return None


def _history(item: dict[str, Any], number: int) -> ExportedConversation | Unreadable:
    name = to_id(item.get("external_id")) or to_id(item.get("created"))
    if name is None:
        return Unreadable(f"history {number}", "it has no id")
    if not isinstance(item.get("msgs"), list):
        return Unreadable(f"history {number}", "it has no list of messages")
    skipped: Counter[str] = Counter()
    messages = []
    for message in objects_of(item["msgs"], skipped):
        source = to_object(message.get("src"))
        writer = to_text(source.get("name")) or to_text(message.get("display_name"))
        said = _said(message, writer, skipped, is_human=source.get("is_human"))
        if said is not None:
            messages.append(said)
    characters = (said.author for said in messages if said.role == "assistant" and said.author)
    character = next(characters, None)
    return _conversation(name, messages, character, skipped, started=item.get("created"))


def _pages(member: Member, prefix: str) -> Iterator[ExportedConversation | Unreadable]:
    """Yield the one conversation of a file of pages, named after the file."""
    skipped: Counter[str] = Counter()
    character = None
    with Shelf() as shelf:
        stored = shelf.begin(newest_first=False)
        for item in items(member, prefix, needs={_IS_HUMAN}, what="message"):
            if isinstance(item, Unreadable):
                yield item
                continue
            writer = to_text(item.get("src__name"))
            said = _said(item, writer, skipped, is_human=item.get(_IS_HUMAN))
            if said is not None:
                character = character or (said.author if said.role == "assistant" else None)
                name = to_id(item.get("uuid")) or to_id(item.get("id"))
                stored.append([said.content, said.role, said.author, name], None)
        messages = (
            Said(
                to_text(text),
                None,
                role=to_text(role),
                author=to_id(author),
                message_id=to_id(name),
            )
            for text, role, author, name in stored.oldest_first()
        )
        yield _conversation(without_date(member.base), messages, character, skipped, started=None)


def _said(
    message: dict[str, Any], writer: str, skipped: Counter[str], *, is_human: object
) -> Said | None:
    if message.get("is_alternative") is True:
        skipped["alternative answer"] += 1
        return None
    if not isinstance(is_human, bool):
        skipped[DAMAGED] += 1
        return None
    source = to_object(message.get("src"))
    if not (writer and fits(message, {"text": (str,)}) and fits(source, {"name": TEXT})):
        skipped[DAMAGED] += 1
        return None
    return Said(
        to_text(message.get("text")),
        None,
        role="user" if is_human else "assistant",
        author=writer or None,
    )


def _conversation(
    name: str,
    messages: Iterable[Said],
    character: str | None,
    skipped: Counter[str],
    *,
    started: object,
) -> ExportedConversation:
    return ExportedConversation(
        name,
        messages,
        channel_id=character,
        channel_name=character,
        started=to_utc_time(started),
        skipped=skipped,
    )
