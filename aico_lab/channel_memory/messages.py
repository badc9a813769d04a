"""Messages of the channel memory, and their conversion to and from rows of the table `messages`.

The rules for valid messages are those of imports, in `aico_lab.messages.rules`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

from aico_lab.channel_memory.rows import Row
from aico_lab.domain import values
from aico_lab.errors import CorruptDatabase, InvalidEntity, TextTooLong
from aico_lab.messages.context import Context
from aico_lab.messages.records import (
    Batch,
    ChannelRecord,
    MessageRecord,
    NotAMessageError,
    UserRecord,
)
from aico_lab.messages.rules import MAX_CONTENT, MAX_ID, to_metadata, to_record
from aico_lab.messages.timestamps import to_timestamp

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from aico_lab.adapters import libsql

Id = str | int
"""An id: text, or a whole number as chat services use, which is stored as its digits."""

REQUIRED = ("message_id", "channel_id", "content", "timestamp")
FIELDS = (frozenset(MessageRecord._fields) - {"sentiment_source"}) | {"message_type"}


@dataclass(frozen=True, slots=True)
class Message(Row):
    """A stored message; as a mapping, it has `message_type` as another key for `role`.

    Attributes:
        message_id: Unique among all messages.
        channel_id: The channel.
        content: The text.
        timestamp: When it was said, in UTC.
        user_id: The author; None for the role `system`.
        role: `user`, `assistant` or `system`.
        conversation_id: The conversation within the channel; by default the channel's id.
        sentiment_score: -1 to 1; VADER's score, if none was given; None for a text that is blank
            or not English.
        response_time: Seconds since the message that it answers.
        reply_to: The id of the message that it answers.
        metadata: A JSON object.
    """

    message_id: str
    channel_id: str
    content: str
    timestamp: datetime
    user_id: str | None
    role: str
    conversation_id: str
    sentiment_score: float | None
    response_time: float | None
    reply_to: str | None
    metadata: dict[str, Any]

    _aliases: ClassVar[tuple[str, ...]] = ("message_type",)

    @property
    def message_type(self) -> str:
        """The role."""
        return self.role


_NAMES = tuple(field.name for field in dataclasses.fields(Message))
COLUMNS = ", ".join(f"m.{name}" for name in _NAMES)
"""The columns of `messages AS m` that `from_row` expects, in order."""


def from_row(row: libsql.Row) -> Message:
    """Return the message in a row of `COLUMNS`.

    Raises:
        CorruptDatabase: Another program wrote a malformed time or JSON value.
    """
    fields = dict(zip(_NAMES, row, strict=True))
    with foreign_forms("messages"):
        fields["timestamp"] = from_moment(fields["timestamp"])
        fields["metadata"] = from_json(fields["metadata"])
    return Message(**fields)


def from_moment(stored: object) -> datetime:
    """Parse a time of the database; call it inside `foreign_forms`."""
    return datetime.fromisoformat(to_timestamp(stored))


def from_json(stored: str | None) -> dict[str, Any]:
    """Parse a JSON object of the database; call it inside `foreign_forms`."""
    read = json.loads(stored or "{}")
    if not isinstance(read, dict):
        raise TypeError("not an object")
    return read


@contextlib.contextmanager
def foreign_forms(table: str) -> Iterator[None]:
    """Convert parse errors inside the block to CorruptDatabase.

    Raises:
        CorruptDatabase: A time or JSON value of the table cannot be parsed.
    """
    try:
        yield
    except (TypeError, ValueError) as foreign:
        raise CorruptDatabase(
            f"Another program wrote a malformed time or JSON value to the table {table}: correct "
            "or delete it."
        ) from foreign


def check_message(fields: Mapping[str, Any]) -> MessageRecord:
    """Return the record of one message's fields, validated.

    Args:
        fields: The arguments of `DatabaseManager.store_message`, by name.

    Raises:
        InvalidEntity: A field is missing, unknown, of the wrong type or out of range.
        TextTooLong: The content has more than 1,000,000 characters.
    """
    if unknown := fields.keys() - FIELDS:
        raise InvalidEntity(f"A message has no field {min(unknown)!r}: put it into metadata.")
    fields = _with_role(fields)
    required = REQUIRED if fields.get("role") == "system" else (*REQUIRED, "user_id")
    if missing := [name for name in required if fields.get(name) is None]:
        raise InvalidEntity(f"A message needs {', '.join(missing)}.")
    content = fields["content"]
    if isinstance(content, str) and len(content) > MAX_CONTENT:
        raise TextTooLong(
            f"A message may have at most {MAX_CONTENT:,} characters: shorten or split it."
        )
    context = Context(names_users=True)
    with refusals("The message"):
        return to_record({**fields, "timestamp": to_moment(fields["timestamp"])}, context)


def _with_role(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields with the message type, if given, as the role.

    Raises:
        InvalidEntity: The message type and the role are both given and differ.
    """
    named = dict(fields)
    kind, role = named.pop("message_type", None), named.get("role")
    if kind is None:
        return named
    named["role"] = "assistant" if kind == "bot" else kind
    if role not in (None, named["role"]):
        raise InvalidEntity("The message type and the role differ: give only one of them.")
    return named


def to_batch(records: list[MessageRecord]) -> Batch:
    """Return a batch of the records with their channels and authors, dated by first message."""
    latest_first = sorted(records, key=lambda record: record.timestamp, reverse=True)
    channels = {record.channel_id: record.timestamp for record in latest_first}
    users = {record.user_id: record.timestamp for record in latest_first if record.user_id}
    return Batch(
        messages=records,
        channels=[ChannelRecord(key, None, "direct", at, None) for key, at in channels.items()],
        users=[UserRecord(key, None, at, None) for key, at in users.items()],
        feedback=[],
        rejected=[],
        lines_read=0,
        progress=0,
    )


def time_conditions(times: Mapping[str, datetime | str | None]) -> dict[str, str]:
    """Return the conditions whose time is not None, with the time in the database's format."""
    return {sql: to_moment(value) for sql, value in times.items() if value is not None}


def check_limit(limit: int | None) -> int:
    """Return a limit for SQL, in which -1 means no limit.

    Raises:
        InvalidValue: The limit is not a whole number, or is negative.
    """
    return -1 if limit is None else values.limit(limit)


def to_moment(value: datetime | str) -> str:
    """Return a time in the database's format: UTC, ISO 8601, microseconds, `Z`.

    Args:
        value: A datetime (a naive one is local time, as `datetime.now()` returns it), or ISO 8601
            text (without a zone it is UTC, as in an imported file).

    Raises:
        InvalidEntity: The value is not a time within the years 1 to 9999.
    """
    with refusals("The time"):
        if not isinstance(value, datetime):
            return to_timestamp(value)
        try:
            return values.to_timestamp(value)
        except (OverflowError, OSError, ValueError):
            raise NotAMessageError("timestamp lies outside the years 1 to 9999 in UTC") from None


def to_id(value: Id) -> str:
    """Return an id as text.

    Raises:
        InvalidEntity: The id is empty, too long, or neither text nor a whole number.
    """
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if not 0 < len(text) <= MAX_ID:
        raise InvalidEntity(f"An id is text of 1 to {MAX_ID} characters, or a whole number.")
    return text


def to_json(name: str, value: Mapping[str, Any]) -> str:
    """Return a JSON object in the database's format.

    Args:
        name: The name of the value in errors.
        value: The object.

    Raises:
        InvalidEntity: The object contains a value that JSON or the database cannot represent.
    """
    with refusals(f"The {name}"):
        return to_metadata(value, name)


@contextlib.contextmanager
def refusals(what: str) -> Iterator[None]:
    """Convert errors of the rules for messages inside the block to InvalidEntity."""
    try:
        yield
    except NotAMessageError as refused:
        raise InvalidEntity(f"{what} cannot be stored: {refused}.") from refused
    except TypeError as refused:
        # The encoder's message only names a type, which ours makes redundant.
        raise InvalidEntity(
            f"{what} cannot be stored: JSON has text, numbers, booleans, lists and objects "
            "with text as keys."
        ) from refused
