"""The rules that a message has to meet, whatever file it comes from.

A refusal never quotes a value: where the columns of a file are mixed up, any field may hold what
somebody wrote.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Final

from aico_lab.domain import values
from aico_lab.errors import DomainError
from aico_lab.sources.records import MessageRecord

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aico_lab.sources.context import Context, Occurrences

MAX_CONTENT: Final = values.MAX_TEXT
MAX_ID: Final = 512

ROLES: Final = ("user", "assistant", "system")

_KNOWN: Final = frozenset(
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

_TIMESTAMP: Final = re.compile(
    r"(?P<day>\d{4}-\d\d-\d\d)[T ](?P<minute>\d\d:\d\d)"
    r"(?::(?P<second>\d\d)(?:[.,](?P<fraction>\d+))?)?"
    r"(?P<zone>Z|[+-](?:[01]\d|2[0-3])(?::?[0-5]\d)?)?",
    re.ASCII | re.IGNORECASE,
)
_AS_STORED: Final = re.compile(
    r"\d{4}-\d\d-\d\dT(?:[01]\d|2[0-3])(?::[0-5]\d){2}\.\d{6}Z", re.ASCII
)
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_LEAP_SECOND: Final = "60"


class NotAMessageError(ValueError):
    """The object is refused; the text is a short reason without any of its values."""


def to_record(fields: Mapping[str, object], context: Context) -> MessageRecord:
    """Make a message of one loose object.

    `content` and `timestamp` are required. A missing conversation is the channel, a missing
    channel the conversation; `context` knows both where neither is given, and the user where none
    is named. A missing role is 'user'. `None` counts as missing. Fields of other names are kept in
    `metadata` under their names.

    A missing `message_id` is derived from what identifies the message, so that reading a file
    again gives the same ids, and equal messages of one moment are told apart by their order.

    Args:
        fields: The object; values are text, numbers, and whatever JSON allows within `metadata`.
        context: The messages before it in the same file.

    Raises:
        NotAMessageError: If a rule is broken.
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
    # First of all: what follows a message that is refused is said to the same person.
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
        message_id = _derive_id(
            (conversation_id, channel_id, user_id or "", role, timestamp, content),
            context.occurrences,
        )
    seconds = get("response_time")
    if seconds is not None:
        seconds = values.number("response_time", seconds, 0)
    reply_to = get("reply_to")
    metadata = get("metadata")
    is_known = _KNOWN.issuperset(fields)
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
        else _metadata(metadata, {k: fields[k] for k in fields.keys() - _KNOWN}),
    )


def to_timestamp(value: object) -> str:
    """Bring an ISO 8601 date and time to UTC and to the fixed width of the database.

    Without a zone it is UTC. Fractions beyond the microsecond are cut off.

    Raises:
        NotAMessageError: If it is missing, no text, no date with a time, or out of range.
    """
    if value is None:
        raise NotAMessageError("timestamp is missing")
    if type(value) is str and _AS_STORED.fullmatch(value) and _is_day(value[:10]):
        return value
    match = _TIMESTAMP.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        if isinstance(value, str) and _DATE.fullmatch(value):
            raise NotAMessageError("timestamp is a date without a time")
        raise NotAMessageError(
            "timestamp is not an ISO 8601 date and time such as 2024-05-01T12:30:00Z"
        )
    day, minute, second, fraction, zone = match.groups()
    if second == _LEAP_SECOND:
        raise NotAMessageError("timestamp is a leap second (:60), which cannot be stored")
    moment = f"{day}T{minute}:{second or '00'}"
    micros = fraction[:6].ljust(6, "0") if fraction else "000000"
    try:
        parsed = datetime.fromisoformat(moment if zone in {None, "Z", "z"} else moment + zone)
        if parsed.tzinfo is not None:
            moment = parsed.astimezone(UTC).replace(tzinfo=None).isoformat()
    except OverflowError:
        raise NotAMessageError("timestamp lies outside the years 1 to 9999 in UTC") from None
    except ValueError:
        raise NotAMessageError(
            "timestamp holds a date or a time that does not exist (years are 1 to 9999)"
        ) from None
    return f"{moment}.{micros}Z"


@functools.lru_cache(maxsize=4096)
def _is_day(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def parse_object(name: str, text: str) -> dict[str, object]:
    """Read a JSON object.

    Args:
        name: What to call the text in a refusal.
        text: The JSON.

    Raises:
        NotAMessageError: If it is no JSON, or not an object.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise NotAMessageError(f"{name} is nested too deeply") from None
    except json.JSONDecodeError as error:
        where = f"{error.msg}, character {error.pos + 1}"
        raise NotAMessageError(f"{name} is not valid JSON ({where})") from None
    except ValueError:  # of more digits than Python converts
        raise NotAMessageError(f"{name} holds a number that is too long") from None
    if not isinstance(value, dict):
        raise NotAMessageError(f"{name} is not a JSON object")
    return value


def to_metadata(value: Mapping[str, object]) -> str:
    """Write an object as compact JSON with sorted keys.

    Raises:
        NotAMessageError: If it holds text or numbers that the database cannot hold.
    """
    try:
        text = values.compact_json(value)
    except RecursionError:
        raise NotAMessageError("metadata is nested too deeply") from None
    except ValueError:
        raise NotAMessageError("metadata holds NaN or an infinite number") from None
    try:
        return values.storable_json("metadata", text)
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
        return value  # as nearly all are
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
    merged = value | extra
    return to_metadata(merged) if merged else None


def _derive_id(parts: tuple[str, ...], occurrences: Occurrences) -> str:
    # No part can hold a NUL, so that different parts never join to the same text.
    digest = hashlib.sha256("\0".join(parts).encode())
    digest.update(b"\0%d" % occurrences.next(digest.digest()))
    return "x-" + digest.hexdigest()[:32]
