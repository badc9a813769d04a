"""Gemini's activity in Google Takeout: `MyActivity.json`, newest first.

A record holds a prompt and its answer as HTML, with one time, but names no conversation: a pause of
more than half an hour begins another one. The verb before the prompt is in the user's language.
Accounts of Google Workspace have files `conversation_<number>.txt` instead, see `workspace`.
"""

from __future__ import annotations

import hashlib
import re
from array import array
from collections import Counter
from datetime import UTC, timedelta
from itertools import chain, groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from aico_lab.messages.identity import digest
from aico_lab.messages.metadata import ATTACHMENTS
from aico_lab.messages.storable import storable
from aico_lab.sources.exports.engine.conversation import (
    ExportedConversation,
    Said,
    Traits,
    Unreadable,
)
from aico_lab.sources.exports.engine.fields import (
    LIST,
    TEXT,
    fits,
    objects_of,
    to_objects,
    to_text,
    to_utc_time,
)
from aico_lab.sources.exports.engine.html_text import to_plain
from aico_lab.sources.exports.engine.json_items import items, shape
from aico_lab.sources.exports.engine.stored import Shelf
from aico_lab.sources.exports.gemini.workspace import is_workspace, workspace

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator
    from datetime import datetime

    from aico_lab.sources.exports.engine.conversation import Options
    from aico_lab.sources.exports.engine.opened import Member, Opened
    from aico_lab.sources.exports.engine.stored import Stored, StoredRow

TRAITS: Final = Traits()

_PAUSE: Final = timedelta(minutes=30)
"""A longer time without a prompt ends a conversation."""

_SHAPE: Final = frozenset({"item.header", "item.title", "item.time"})
_PRODUCT: Final = re.compile(r"(?<![a-z])(gemini|bard)(?![a-z])", re.IGNORECASE)
_PROMPT: Final = re.compile(r"(Prompted|Said|Asked(?: Bard| Gemini)?:?)(\s+|$)")
_NO_PROMPT: Final = {
    "Gave feedback": "feedback",
    "Used": "activity",
    "Created": "activity",
    "Selected": "activity",
    "Shared": "activity",
    "Viewed": "activity",
    "Opened": "activity",
    "Deleted": "activity",
    "Turned": "activity",
    "Edited": "activity",
}
_RECORD: Final = {
    "header": TEXT,
    "title": (str,),
    "products": LIST,
    "subtitles": LIST,
    "safeHtmlItem": LIST,
}
_NOTE: Final = re.compile(r"\s*Attached (\d+|an?|one) files?\.?$")
_IMAGE: Final = re.compile(r"\.(png|jpe?g|gif|webp|heic|bmp|svg)$", re.IGNORECASE)


def recognise(export: Opened) -> str | None:
    """Return the reason why an export is Gemini's, or None."""
    for member in export.with_suffix(".json"):
        if _is_activity(member):
            return f"{member.name} has the activity of Gemini"
    for member in export.with_suffix(".txt", ".json"):
        if is_workspace(member):
            return f"{member.name} has turns of a conversation with Gemini"
    return None


def conversations(export: Opened, options: Options) -> Generator[ExportedConversation | Unreadable]:
    """Yield the conversations of an export, oldest first."""
    del options
    for member in export.with_suffix(".json"):
        if (len(export.members) == 1 or _is_activity(member)) and not is_workspace(member):
            yield from _activity(member)
    for member in export.with_suffix(".txt", ".json"):
        if is_workspace(member):
            yield from workspace(member)


def _is_activity(member: Member) -> bool:
    """Return whether a file has records of activity, and one of the first is Gemini's."""
    if not shape(member) >= _SHAPE:
        return False
    head = member.head().decode(errors="replace")
    products = re.findall(r'"header"\s*:\s*"([^"]*)"|"products"\s*:\s*\[\s*"([^"]*)"', head)
    return any(map(_PRODUCT.search, (name for pair in products for name in pair)))


def _activity(member: Member) -> Iterator[ExportedConversation | Unreadable]:
    skipped: Counter[str] = Counter()
    with Shelf() as shelf:
        stored = shelf.begin(newest_first=True)
        for number, item in enumerate(
            items(member, "item", needs={"header", "title"}, what="record"), 1
        ):
            if isinstance(item, Unreadable):
                yield Unreadable(f"{item.where} of {member.name}", item.reason)
                continue
            if not (fits(item, _RECORD) and _is_sound(item)):
                yield Unreadable(f"record {number:,} of {member.name}", "it is damaged")
                continue
            reason = _reason(item)
            if reason is not None:
                skipped[reason] += 1
                continue
            prompt, media = _prompt(item, skipped)
            answer, images = _answer(item)
            if not isinstance(item.get("time"), str):
                yield Unreadable(f"record {number:,} of {member.name}", "its time is damaged")
            given, title = to_text(item.get("time")), to_text(item.get("title"))
            stored.append([given, title, prompt, media, answer, images], to_utc_time(given))
        ids = [_ids(row for _, row in rows) for rows in _apart(stored)]
        for global_ids, rows in zip(ids, _apart(stored), strict=True):
            yield _conversation((row for _, row in rows), global_ids, skipped)
            skipped = Counter()
    if skipped:
        yield ExportedConversation("activity", [], skipped=skipped)


def _apart(stored: Stored) -> Iterator[Iterator[tuple[int, StoredRow]]]:
    """Yield the rows of each conversation, with its number."""
    return (rows for _, rows in groupby(_numbered(stored.oldest_first()), key=itemgetter(0)))


def _numbered(rows: Iterable[StoredRow]) -> Iterator[tuple[int, StoredRow]]:
    """Yield the rows with the number of their conversation."""
    number = 0
    last: datetime | None = None
    for row in rows:
        time = to_utc_time(row[0])
        number += time is not None and last is not None and time - last > _PAUSE
        last = time or last
        yield number, row


def _ids(rows: Iterable[StoredRow]) -> array[int]:
    """Return digests of the ids of messages whose time tells them apart from all others."""
    found = array("Q")
    for row in rows:
        if to_text(row[0]):
            found.extend(digest(storable(one.message_id)) for one in _said(row) if one.message_id)
    return found


def _conversation(
    rows: Iterator[StoredRow], global_ids: array[int], skipped: Counter[str]
) -> ExportedConversation:
    """Return a conversation; it is named after its first time, or else its first message.

    If that is deleted, or an export begins later, the ids of the others tell which one it is.
    """
    first = []
    began = None
    for row in rows:
        first.append(row)
        began = to_utc_time(row[0])
        if began is not None:
            break
    if began is None:
        name = next(_said(first[0])).message_id
    else:
        name = began.astimezone(UTC).isoformat(timespec="milliseconds")
    return ExportedConversation(
        name or "activity",
        chain.from_iterable(map(_said, chain(first, rows))),
        channel_id="gemini",
        channel_name="Gemini",
        started=began,
        global_ids=global_ids,
        skipped=skipped,
    )


def _reason(item: dict[str, Any]) -> str | None:
    """Return the reason why a record has no prompt, or None if it has one.

    A verb in another language cannot be told from a prompt, but only a prompt has an answer.
    """
    products = item.get("products")
    named = [item.get("header"), *(products if isinstance(products, list) else [])]
    if not any(_PRODUCT.search(to_text(name)) for name in named):
        return "activity of another product"
    title = to_text(item.get("title"))
    if _PROMPT.match(title):
        return None
    for verb, reason in _NO_PROMPT.items():
        if title.startswith((f"{verb} ", f"{verb}:")):
            return reason
    if not to_objects(item.get("safeHtmlItem")):
        return "activity without an answer"
    return None


def _is_sound(item: dict[str, Any]) -> bool:
    """Return whether the answers are objects with a text."""
    answers = item.get("safeHtmlItem") or []
    return all(isinstance(one, dict) and fits(one, {"html": (str,)}) for one in answers)


def _prompt(item: dict[str, Any], skipped: Counter[str]) -> tuple[str, list[dict[str, str]]]:
    """Return the typed text of a prompt, and its attachments."""
    text = to_text(item.get("title"))
    subtitles = objects_of(item.get("subtitles"), skipped)
    attached = item.get("attachedFiles")
    files = [to_text(one.get("url")) or to_text(one.get("name")) for one in subtitles]
    media = [name for name, one in zip(files, subtitles, strict=True) if one.get("url")]
    if isinstance(attached, list) and not media:
        media = [one if isinstance(one, str) else "" for one in attached]
    for note in (to_text(one.get("name")).strip() for one in subtitles):
        if note and text.rstrip().endswith(note):
            text = text.rstrip().removesuffix(note)
    if media:
        text = _NOTE.sub("", text)
    text = _PROMPT.sub("", text, count=1) if _PROMPT.match(text) else text
    return text.strip(), [{"kind": "image" if _IMAGE.search(name) else "file"} for name in media]


def _answer(item: dict[str, Any]) -> tuple[str | None, int]:
    """Return the answer and the number of its pictures; None if the record has none."""
    found = to_objects(item.get("safeHtmlItem"))
    plain = [to_plain(to_text(one.get("html"))) for one in found]
    if not found:
        return None, 0
    return "\n".join(filter(None, (text for text, _ in plain))), sum(count for _, count in plain)


def _said(row: list[Any]) -> Iterator[Said]:
    """Yield the prompt of a record, and its answer, whose time is not known."""
    given, title, prompt, media, answer, images = row
    time = to_utc_time(given)
    words = hashlib.sha256(to_text(title).encode("utf-8", "replace")).hexdigest()[:12]
    name = f"{to_text(given) or 'no-time'}-{words}"
    metadata: dict[str, object] = {ATTACHMENTS: media} if media else {}
    yield Said(prompt, time, role="user", message_id=name, metadata=metadata)
    if answer is not None:
        pictures = [{"kind": "image"} for _ in range(images)]
        yield Said(
            answer,
            None,
            role="assistant",
            message_id=f"{name}-answer",
            metadata={ATTACHMENTS: pictures} if pictures else {},
        )
