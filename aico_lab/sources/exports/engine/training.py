"""The documents of training files, and the ids of their conversations.

A file has one conversation per line, or is one list of them. Most have no times and many no ids.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from aico_lab.messages.context import Occurrences
from aico_lab.messages.storable import storable
from aico_lab.sources.exports.engine.conversation import ExportedConversation, Said, Unreadable
from aico_lab.sources.exports.engine.epochs import to_any_time
from aico_lab.sources.exports.engine.fields import TEXT, to_id, to_object, to_objects, to_text
from aico_lab.sources.exports.engine.json_items import items, shape
from aico_lab.sources.exports.engine.replaced import TolerantDecoder
from aico_lab.sources.files import Lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from aico_lab.sources.exports.engine.opened import Member, Opened

CHANNEL: Final = "training"
SUFFIXES: Final = (".jsonl", ".json", ".ndjson", ".txt")

_LOOKED_AT: Final = 20
"""Lines at the beginning of a file that are looked at to recognise it."""

_TIMES: Final = ("created_at", "timestamp", "create_time", "time", "date")
_IDS: Final = ("id", "conversation_id", "uuid")
_MEDIA: Final = {
    "image": "image",
    "image_url": "image",
    "input_image": "image",
    "audio": "audio",
    "input_audio": "audio",
    "video": "video",
    "video_url": "video",
    "file": "file",
    "input_file": "file",
}


def has(member: Member, key: str, *fields: str) -> bool:
    """Return whether the objects in the lists under a key have one of some fields.

    Args:
        member: The file.
        key: The key of a conversation's list of messages.
        fields: The keys of a message, at least one of which a message must have.
    """
    paths = {path.removeprefix("item.") for path in shape(member)}
    if any(f"{key}.item.{field}" in paths for field in fields):
        return True
    for line in member.head().split(b"\n")[:_LOOKED_AT]:
        try:
            found = to_objects(to_object(json.loads(line)).get(key))
        except (ValueError, RecursionError):
            continue
        if any(field in one for one in found for field in fields):
            return True
    return False


def documents(export: Opened, key: str) -> Iterator[tuple[str, dict[str, Any]] | Unreadable]:
    """Yield the objects of all files of an export with their places, and each damaged part.

    Args:
        export: The export.
        key: The key of a conversation's list of messages.
    """
    quoted = f'"{key}"'.encode()
    for member in export.members if len(export.members) == 1 else export.with_suffix(*SUFFIXES):
        head = member.head().lstrip()
        if len(export.members) > 1 and quoted not in head:
            continue
        first, _, rest = head.partition(b"\n")
        if first.startswith(b"["):
            found = items(member, "item", needs={key})
        elif quoted in first or rest.startswith(b"{") or b"\n{" in rest or not shape(member):
            found = _lines(member)
        else:  # one object over several lines
            found = items(member, "", needs={key})
        for number, item in enumerate(found, 1):
            if isinstance(item, Unreadable):
                yield Unreadable(f"{item.where} of {member.name}", item.reason)
            else:
                yield f"conversation {number:,} of {member.name}", item


def _lines(member: Member) -> Iterator[dict[str, Any] | Unreadable]:
    decoder = TolerantDecoder()
    with member.replacing() as replaced, member.open() as stream:
        lines = Lines(stream)  # type: ignore[arg-type]  # it only reads lines
        for line in lines:
            where = f"line {lines.number:,}"
            if line is None:
                yield Unreadable(where, "it is too long")
            elif line.strip():
                text = replaced.decoded(line).removeprefix("\ufeff").strip()
                try:
                    value, end = decoder.raw_decode(text, 0)
                except (ValueError, RecursionError):
                    yield Unreadable(where, "it is not valid JSON")
                    continue
                if end < len(text):
                    yield Unreadable(where, "it is not valid JSON")
                elif isinstance(value, dict):
                    replaced.numbers += decoder.replaced
                    yield value
                else:
                    yield Unreadable(where, "it is not an object")


class Names:
    """Names conversations by their id, or else by their content.

    A conversation without an id that grew has the name under which it is stored. Nothing else has:
    each conversation of a file is one of its own.
    """

    def __init__(
        self,
        format_name: str,
        stored: Mapping[str, tuple[int, bytes]],
        conversations: Iterable[tuple[dict[str, Any], object, Sequence[Said]]],
    ) -> None:
        """Find out which stored conversations are those of a file.

        Args:
            format_name: The name of the format.
            stored: The number and the digest of the messages of the stored conversations.
            conversations: The conversations of the file; their messages as the file has them, and
                as they are read.
        """
        self._known: dict[str, set[bytes]] = {}
        self._equal = Occurrences()
        self._stored_as: dict[str, str] = {}
        known = {name.removeprefix(f"{format_name}:"): said for name, said in stored.items()}
        if not known:
            return
        equal = Occurrences()
        taken: set[str] = set()
        found: dict[str, list[tuple[str, bool]]] = {}  # the longest first, and whether it is all
        for item, messages, said in conversations:
            if _given(item) is None and isinstance(messages, list):
                name = _named(_digest(messages), equal)
                if name in known:
                    taken.add(name)
                elif begins := _begun(messages, said, known):
                    found[name] = begins
        for must_be_equal in (True, False):
            for name, begins in found.items():
                free = (
                    begin
                    for begin, is_equal in begins
                    if begin not in taken and (is_equal or not must_be_equal)
                )
                if name not in self._stored_as and (begin := next(free, None)) is not None:
                    self._stored_as[name] = begin
                    taken.add(begin)

    def of(self, item: dict[str, Any], messages: object) -> str | None:
        """Return the id of a conversation; None if another one of the file has all of it.

        An id that is repeated with other messages belongs to another conversation.

        Args:
            item: The conversation.
            messages: Its messages as the file has them.
        """
        digest = _digest(messages)
        given = _given(item)
        if given is None:
            name = _named(digest, self._equal)
            return self._stored_as.get(name, name)
        known = self._known.setdefault(given, set())
        if digest in known:
            return None
        known.add(digest)
        return given if len(known) == 1 else f"{given}-{digest.hex()[:8]}"


def said_so_far(messages: Iterable[tuple[str, str]], digest: bytes = b"") -> Iterator[bytes]:
    """Yield, after each message with a text, the digest of all up to it.

    Args:
        messages: The roles and texts.
        digest: The digest of what was said before.
    """
    for role, text in messages:
        if words := " ".join(storable(text).split()):
            digest = hashlib.sha256(b"\0".join((digest, role.encode(), words.encode()))).digest()[
                :16
            ]
            yield digest


def _given(item: dict[str, Any]) -> str | None:
    return next(filter(None, (to_id(item.get(key)) for key in _IDS)), None)


def _named(digest: bytes, equal: Occurrences) -> str:
    count = equal.next(digest)
    return f"x-{digest.hex()}" + (f"-{count + 1}" if count else "")


def _digest(messages: object) -> bytes:
    try:
        text = json.dumps(messages, sort_keys=True, separators=(",", ":"))
    except RecursionError:  # a value is nested too deeply
        text = json.dumps([[*map(to_text, one.values())] for one in to_objects(messages)])
    return hashlib.sha256(text.encode()).digest()[:16]


def _begun(
    messages: list[Any], said: Sequence[Said], known: Mapping[str, tuple[int, bytes]]
) -> list[tuple[str, bool]]:
    """Return the stored conversations that a conversation begins with, the longest first.

    Each is named after its own first state, and may have grown since; the result has its name, and
    whether the conversation is all of it.
    """
    digest = hashlib.sha256(b"[")
    names = []
    try:
        for place, message in enumerate(messages):
            text = json.dumps(message, sort_keys=True, separators=(",", ":"))
            digest.update(f"{',' if place else ''}{text}".encode())
            whole = digest.copy()
            whole.update(b"]")
            names.append(f"x-{whole.digest()[:16].hex()}")
    except RecursionError:
        return []
    stored = [name for name in names[1:-1] if name in known]  # one message may begin any other
    if not stored:
        return []
    states = list(said_so_far((one.role or "", one.content) for one in said))
    return [
        (name, count == len(states))
        for name in reversed(stored)
        for count, last in (known[name],)
        if 0 < count <= len(states) and states[count - 1] == last
    ]


def conversation(
    name: str | None, item: dict[str, Any], messages: list[Said], skipped: Counter[str]
) -> ExportedConversation:
    """Return a conversation of a training file, without messages if it has no name of its own."""
    if name is None:
        return ExportedConversation("repeated", [], skipped=Counter({"repeated conversation": 1}))
    title = to_text(item.get("title")) or None
    return ExportedConversation(
        name,
        messages,
        title=title,
        channel_id=CHANNEL,
        channel_name="Training conversations",
        started=time_of(item),
        skipped=skipped,
    )


def time_of(fields: dict[str, Any]) -> datetime | None:
    """Return the time that some programs add to a message or a conversation."""
    times = (to_any_time(fields.get(key)) for key in _TIMES)
    return next((time for time in times if time is not None), None)


def is_damaged(message: dict[str, Any], role: str, content: str) -> bool:
    """Return whether the role or the content of a message has a value of a wrong type.

    Args:
        message: The message.
        role: The key of its role.
        content: The key of its content: a text, a part, or a list of texts and parts.
    """
    said = message.get(content)
    parts = said if isinstance(said, list) else [said] if said is not None else []
    return type(message.get(role)) not in TEXT or any(
        not isinstance(part, str | dict) for part in parts
    )


def parts_of(content: object) -> tuple[str, list[dict[str, str]]]:
    """Return the text and the media of a content, which is a text or a list of parts."""
    if isinstance(content, dict):
        content = [content]
    if not isinstance(content, list):
        return to_text(content), []
    texts, media = [], []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict):
            kind = to_text(part.get("type"))
            if kind in _MEDIA:
                media.append({"kind": _MEDIA[kind]})
            texts.append(to_text(part.get("text")) or to_text(part.get("refusal")))
    return "\n".join(filter(None, texts)), media
