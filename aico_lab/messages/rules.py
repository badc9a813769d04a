"""Validate messages and convert them to records, for all sources.

The reason of a rejection never quotes a value: if the columns of a file are mixed up, any field may
contain the text of a message.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Final

from aico_lab.domain import values
from aico_lab.errors import DomainError
from aico_lab.messages.records import MessageRecord, NotAMessageError
from aico_lab.messages.timestamps import to_timestamp

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aico_lab.messages.context import Context, Occurrences

MAX_CONTENT: Final = values.MAX_TEXT
MAX_ID: Final = 512

ROLES: Final = ("user", "assistant", "system")

KNOWN: Final = frozenset(
    {
        "message_id",
        "channel_id",
        "conversation_id",
        "user_id",
        "role",
        "content",
        "timestamp",
        "sentiment_score",
        "response_time",
        "reply_to",
        "metadata",
    }
)


def to_record(fields: Mapping[str, object], context: Context) -> MessageRecord:
    """Convert an object to a message record.

    `content` and `timestamp` are required. A missing conversation id is that of the channel, and
    vice versa; `context` provides both if neither is given, and the user if none is named. A
    missing role is 'user'. `None` counts as missing. Fields with other names are kept in
    `metadata`.

    A missing `message_id` is derived from the fields that identify the message, so that reading a
    file again gives the same ids. Equal messages with the same timestamp are numbered in order.

    Args:
        fields: The object; values are text, numbers, and any JSON within `metadata`.
        context: The context of the file.

    Raises:
        NotAMessageError: A field is missing or invalid.
    """
    try:
        return _record(fields, context)
    except DomainError as refused:
        raise _refusal(refused) from None


def _record(fields: Mapping[str, object], context: Context) -> MessageRecord:
    get = fields.get
    role = get("role")
    if role is None:
        role = "user"
    elif not isinstance(role, str) or role not in ROLES:
        raise NotAMessageError("role must be one of user, assistant, system")
    # First, since later messages depend on the context even if this one is rejected.
    user_id = context.author(role, _identifier("user_id", get("user_id")))
    conversation_id, channel_id = context.place(
        role,
        user_id,
        _identifier("conversation_id", get("conversation_id")),
        _identifier("channel_id", get("channel_id")),
    )
    content = _content(get("content"))
    timestamp = to_timestamp(get("timestamp"))
    score = get("sentiment_score")
    if score is not None:
        score = values.number("sentiment_score", score, -1, 1)
    message_id = _identifier("message_id", get("message_id"))
    if message_id is None:
        message_id = derive_id(
            (conversation_id, channel_id, user_id or "", role, timestamp, content),
            context.occurrences,
        )
    seconds = get("response_time")
    if seconds is not None:
        seconds = values.number("response_time", seconds, 0)
    reply_to = get("reply_to")
    metadata = get("metadata")
    is_known = KNOWN.issuperset(fields)
    return MessageRecord(
        message_id,
        channel_id,
        conversation_id,
        user_id,
        role,
        content,
        timestamp,
        score,
        None if score is None else "given",
        seconds,
        None if reply_to is None else _identifier("reply_to", reply_to),
        None
        if is_known and metadata is None
        else _metadata(metadata, {} if is_known else {k: fields[k] for k in fields.keys() - KNOWN}),
    )


def parse_object(name: str, text: str) -> dict[str, object]:
    """Parse a JSON object.

    Args:
        name: The name of the text in errors.
        text: The JSON text.

    Raises:
        NotAMessageError: The text is not valid JSON, or not an object.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise NotAMessageError(f"{name} is nested too deeply") from None
    except json.JSONDecodeError as error:
        where = f"{error.msg}, character {error.pos + 1}"
        raise NotAMessageError(f"{name} is not valid JSON ({where})") from None
    except ValueError:  # more digits than Python converts
        raise NotAMessageError(f"{name} contains a number that is too long") from None
    if not isinstance(value, dict):
        raise NotAMessageError(f"{name} is not a JSON object")
    return value


def to_metadata(value: Mapping[str, object], name: str = "metadata") -> str:
    """Return an object as compact JSON with sorted keys.

    Args:
        value: The object.
        name: The name of the object in errors.

    Raises:
        NotAMessageError: The object contains text or numbers that the database cannot store.
    """
    try:
        text = values.compact_json(value)
    except RecursionError:
        raise NotAMessageError(f"{name} is nested too deeply") from None
    except ValueError:
        raise NotAMessageError(f"{name} contains NaN or an infinite number") from None
    try:
        return values.storable_json(name, text)
    except DomainError as refused:
        raise _refusal(refused) from None


def _refusal(refused: DomainError) -> NotAMessageError:
    return NotAMessageError(str(refused).removesuffix("."))


def _content(value: object) -> str:
    if value is None:
        raise NotAMessageError("content is missing")
    return values.text("content", value)


def _identifier(name: str, value: object) -> str | None:
    if value is None:
        return None
    if (
        isinstance(value, str)
        and 0 < len(value) <= MAX_ID
        and value.isascii()
        and "\0" not in value
    ):
        return value  # the usual case, checked quickly
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise NotAMessageError(f"{name} must be text or a whole number")
    if not value:
        raise NotAMessageError(f"{name} is empty")
    if len(value) > MAX_ID:
        raise NotAMessageError(f"{name} is longer than {MAX_ID} characters")
    return values.storable(name, value)


def _metadata(value: object, extra: dict[str, object]) -> str | None:
    if value is None and not extra:
        return None
    if value is None:
        value = {}
    elif not isinstance(value, dict):
        raise NotAMessageError("metadata must be an object")
    for key in value.keys() & extra.keys():
        if value[key] != extra[key]:
            raise NotAMessageError("metadata and a field of the same name differ")
    merged = value | extra if extra else value
    return to_metadata(merged) if merged else None


def derive_id(parts: tuple[str, ...], occurrences: Occurrences) -> str:
    """Return the id of a message that has none.

    Args:
        parts: The fields that identify the message, none of which contains NUL.
        occurrences: Counts equal messages.
    """
    # Parts do not contain NUL, so different parts never give the same text.
    digest = hashlib.sha256("\0".join(parts).encode())
    digest.update(b"\0%d" % occurrences.next(digest.digest()))
    return "x-" + digest.hexdigest()[:32]
