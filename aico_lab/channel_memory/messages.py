"""Messages as people of the channel memory see them, and the way to and from the table's rows.

What a message has to meet is said once, in `aico_lab.sources.rules`, for imports and for this.
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
from aico_lab.errors import CorruptDatabase, InvalidEntity, InvalidValue, TextTooLong
from aico_lab.sources.context import Context
from aico_lab.sources.records import Batch, ChannelRecord, MessageRecord, UserRecord
from aico_lab.sources.rules import (
    MAX_CONTENT,
    MAX_ID,
    NotAMessageError,
    to_metadata,
    to_record,
    to_timestamp,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from aico_lab.adapters import libsql

Id = str | int
"""An id is text; whole numbers, as chat services give them, are taken for their digits."""

REQUIRED = ("message_id", "channel_id", "content", "timestamp")
FIELDS = (frozenset(MessageRecord._fields) - {"sentiment_source"}) | {"message_type"}


@dataclass(frozen=True, slots=True)
class Message(Row):
    """A message as it is stored; as a mapping, `message_type` is another name of `role`.

    Attributes:
        message_id: Unique among all messages.
        channel_id: Where it was said.
        content: The text.
        timestamp: When, in UTC.
        user_id: Who said it; nobody, for the role `system`.
        role: `user`, `assistant` or `system`.
        conversation_id: The thread of talk within the channel; the channel's id, if it has none.
        sentiment_score: -1 to 1; VADER's, where none was given; None for a text that is blank
            or in another language than English.
        response_time: Seconds since what it answers.
        reply_to: The id of the message that it answers.
        metadata: Whatever else was stored with it.
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
"""The columns of `messages AS m` that `from_row` takes, in its order."""


def from_row(row: libsql.Row) -> Message:
    """Make a message of a row of `COLUMNS`.

    Raises:
        CorruptDatabase: Another program wrote a time or JSON in a form that is not the table's.
    """
    fields = dict(zip(_NAMES, row, strict=True))
    with foreign_forms("messages"):
        fields["timestamp"] = from_moment(fields["timestamp"])
        fields["metadata"] = from_json(fields["metadata"])
    return Message(**fields)


def from_moment(stored: object) -> datetime:
    """Read a time of the database, where `foreign_forms` waits for one that is none."""
    return datetime.fromisoformat(to_timestamp(stored))


def from_json(stored: str | None) -> dict[str, Any]:
    """Read an object of the database, where `foreign_forms` waits for one that is none."""
    read = json.loads(stored or "{}")
    if not isinstance(read, dict):
        raise TypeError("no object")
    return read


@contextlib.contextmanager
def foreign_forms(table: str) -> Iterator[None]:
    """Say whose fault it is where a time or JSON of a table cannot be read.

    Raises:
        CorruptDatabase: It cannot.
    """
    try:
        yield
    except (TypeError, ValueError) as foreign:
        raise CorruptDatabase(
            "A time or JSON is not in the form of this database: mend or remove what another "
            f"program wrote to the table {table}."
        ) from foreign


def check_message(fields: Mapping[str, Any]) -> MessageRecord:
    """Make a row of one message's fields.

    Args:
        fields: The arguments of `DatabaseManager.store_message`, by name.

    Raises:
        InvalidEntity: A field is missing, of another name, of the wrong type or out of range.
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
            f"A message holds at most {MAX_CONTENT:,} characters: shorten or part it."
        )
    context = Context(names_users=True)
    with refusals("The message"):
        return to_record({**fields, "timestamp": to_moment(fields["timestamp"])}, context)


def _with_role(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Take a message type for the role.

    Raises:
        InvalidEntity: The role is given too, and another one.
    """
    named = dict(fields)
    kind, role = named.pop("message_type", None), named.get("role")
    if kind is None:
        return named
    named["role"] = "assistant" if kind == "bot" else kind
    if role not in (None, named["role"]):
        raise InvalidEntity("The message type and the role say different things: give one of them.")
    return named


def to_batch(records: list[MessageRecord]) -> Batch:
    """Name the channels and authors too, each as old as its first message."""
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
    """Return the conditions whose time is given, with the time in the form of the database."""
    return {sql: to_moment(value) for sql, value in times.items() if value is not None}


def check_limit(limit: int | None) -> int:
    """Return a limit as SQL has it.

    Raises:
        InvalidValue: It is negative.
    """
    if limit is not None and limit < 0:
        raise InvalidValue("The limit must not be negative.")
    return -1 if limit is None else limit


def to_moment(value: datetime | str) -> str:
    """Bring a time into the form of the database: UTC, ISO 8601, microseconds, `Z`.

    Args:
        value: A datetime (a naive one is local time, as `datetime.now()` gives it), or ISO 8601
            text (without a zone it is UTC, as in a file that is imported).

    Raises:
        InvalidEntity: It is no moment of the years 1 to 9999.
    """
    with refusals("The time"):
        if not isinstance(value, datetime):
            return to_timestamp(value)
        try:
            return values.to_timestamp(value)
        except (OverflowError, OSError, ValueError):
            raise NotAMessageError("timestamp lies outside the years 1 to 9999 in UTC") from None


def to_id(value: Id) -> str:
    """Bring an id into the form of the database.

    Raises:
        InvalidEntity: It is empty, too long, or neither text nor a whole number.
    """
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if not 0 < len(text) <= MAX_ID:
        raise InvalidEntity(f"An id is text of 1 to {MAX_ID} characters, or a whole number.")
    return text


def to_json(value: dict[str, Any]) -> str:
    """Write an object as the database keeps JSON.

    Raises:
        InvalidEntity: It holds what JSON or the database cannot.
    """
    with refusals("A value"):
        return to_metadata(value)


@contextlib.contextmanager
def refusals(what: str) -> Iterator[None]:
    """Turn what the rules of messages refuse into the domain's error."""
    try:
        yield
    except NotAMessageError as refused:
        raise InvalidEntity(f"{what} cannot be stored: {refused}.") from refused
    except TypeError as refused:
        # The encoder's own words name no value, only a type; ours need not repeat them.
        raise InvalidEntity(
            f"{what} cannot be stored: JSON has text, numbers, booleans, lists and objects "
            "with text as keys."
        ) from refused
