"""Read the blocks of messages in which something changed; a block has no pause inside.

A change can alter only the segments of its own block, and of blocks that it joined or parted. So
no other messages are read again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from aico_lab.embeddings.segmenting.boundaries import starts_of_blocks
from aico_lab.messages.metadata import MISSING_SINCE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from aico_lab.adapters.libsql import Connection

APART: Final = timedelta(days=1)
"""Changes of a conversation that are further apart are read separately."""

STEP: Final = 200
"""Messages that are read at a time, beyond the changes, until a pause is found."""

_BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST: Final = datetime.min.replace(tzinfo=UTC)
_LAST: Final = datetime.max.replace(tzinfo=UTC)

# As bytes: the driver truncates text at a NUL, and panics on bad UTF-8 of another program.
_READ: Final = f"""
    SELECT id, CAST(message_id AS BLOB), CAST(content AS BLOB), CAST(timestamp AS BLOB)
    FROM messages
    WHERE channel_id = ? AND conversation_id = ? AND typeof(message_id) = 'text'
        AND instr(coalesce(metadata, ''), '"{MISSING_SINCE}"') = 0"""


class Place(NamedTuple):
    """A conversation in a channel."""

    channel_id: str
    conversation_id: str


class SegmentedMessage(NamedTuple):
    """A message that belongs to a segment.

    Attributes:
        row_id: The order of arrival.
        message_id: The id.
        content: The text, which is not blank.
        timestamp: The time, as the database stores it.
        time: The same time, in UTC.
    """

    row_id: int
    message_id: str
    content: str
    timestamp: str
    time: datetime

    @property
    def seconds(self) -> float:
        """The time in seconds since 1970."""
        return (self.time - _BEGINNING).total_seconds()


@dataclass(slots=True)
class MessageChanges:
    """The times of the messages of a conversation that changed, as ranges of stored times."""

    ranges: list[tuple[str, str]] = field(default_factory=list)

    def clusters(self) -> Iterator[tuple[datetime, datetime]]:
        """Yield the ranges in order, those that are at most `APART` from each other merged."""
        times = sorted(
            (begin, end)
            for one, other in self.ranges
            if (begin := to_datetime(one)) and (end := to_datetime(other))
        )
        merged: list[tuple[datetime, datetime]] = []
        for begin, end in times:
            if merged and begin - merged[-1][1] <= APART:
                merged[-1] = merged[-1][0], max(end, merged[-1][1])
            else:
                merged.append((begin, end))
        yield from merged


def to_datetime(timestamp: str) -> datetime | None:
    """Return a stored time; None if another program stored it in a form that cannot be sorted."""
    if len(timestamp) != len("2024-05-01T12:30:00.000000Z") or not timestamp.endswith("Z"):
        return None
    try:
        return datetime.fromisoformat(timestamp)
    except ValueError:
        return None


def read_blocks(
    connection: Connection, place: Place, changes: MessageChanges, pause: float
) -> Iterator[list[SegmentedMessage]]:
    """Yield every block of a conversation that its changes can have altered.

    Each block is yielded once, in order of time; messages of equal times are in order of arrival.

    Args:
        connection: The primary database, inside a transaction.
        place: The conversation.
        changes: The times of the messages that were added, edited or deleted.
        pause: The longest silence inside a block, in seconds.
    """
    done: datetime | None = None
    for begin, end in changes.clusters():
        if done is not None and end <= done:
            continue
        found = _read_around(connection, place, begin, end, pause)
        if done is not None:  # blocks that the change before reached, too
            found = [one for one in found if one.time > done]
        starts = starts_of_blocks([one.seconds for one in found], pause)
        for start, stop in pairwise([*starts, len(found)]):
            yield found[start:stop]
        done = max(end, found[-1].time if found else end, done or end)


def _read_around(
    connection: Connection, place: Place, begin: datetime, end: datetime, pause: float
) -> list[SegmentedMessage]:
    """Return the messages of a range, and those before and after it up to a pause."""
    inside = _messages(
        connection.fetch_all(
            f"{_READ} AND timestamp BETWEEN ? AND ? ORDER BY timestamp, id",
            [*place, _stored(begin, -pause), _stored(end, pause)],
        )
    )
    if inside and inside[0].time < begin:  # usually a pause is on either side
        inside = [*reversed(_reach(connection, place, inside[0], pause, later=False)), *inside]
    if inside and inside[-1].time > end:
        inside += _reach(connection, place, inside[-1], pause, later=True)
    return inside


def _reach(
    connection: Connection, place: Place, edge: SegmentedMessage, pause: float, *, later: bool
) -> list[SegmentedMessage]:
    """Return the messages before or after another one up to a pause, the nearest first."""
    comparison, order = (">", "") if later else ("<", "DESC")
    reached = [edge]
    bound: list[Any] = [edge.timestamp, edge.row_id]
    while True:
        rows = connection.fetch_all(
            f"{_READ} AND (timestamp, id) {comparison} (?, ?) "
            f"ORDER BY timestamp {order}, id {order} LIMIT {STEP}",
            [*place, *bound],
        )
        for one in _messages(rows):
            if abs(one.seconds - reached[-1].seconds) > pause:
                return reached[1:]
            reached.append(one)
        if len(rows) < STEP:
            return reached[1:]
        bound = [rows[-1][3].decode(errors="replace"), rows[-1][0]]


def _messages(rows: Iterable[Sequence[Any]]) -> list[SegmentedMessage]:
    """Return the messages that can be in a segment: with text, and a time that can be sorted."""
    found: list[SegmentedMessage] = []
    for row_id, message_id, content, timestamp in rows:
        text = content.decode(errors="replace")
        stored = timestamp.decode(errors="replace")
        time = to_datetime(stored) if text.strip() else None
        if time is not None:
            found.append(
                SegmentedMessage(row_id, message_id.decode(errors="replace"), text, stored, time)
            )
    return found


def _stored(time: datetime, seconds: float = 0) -> str:
    """Return a time, moved by seconds, as the database stores it, within the years 1 to 9999."""
    try:
        moved = time + timedelta(seconds=seconds)
    except OverflowError:
        moved = _FIRST if seconds < 0 else _LAST
    return f"{moved.year:04d}{moved.strftime('-%m-%dT%H:%M:%S.%f')}Z"
