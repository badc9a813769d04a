"""The filters of a search, and the items that pass them.

A passage of a conversation passes if one of its messages passes every filter. A memory has only a
person and a time, so it passes no filter by channel, role or sentiment. A document passes no filter
at all.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Literal

from aico_lab import period
from aico_lab.constants import POSITIVE
from aico_lab.embeddings import texts
from aico_lab.errors import InvalidValue, did_you_mean
from aico_lab.messages.named import find_ids
from aico_lab.zones import get_zone, to_local, to_ms

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from aico_lab.adapters.libsql import Connection
    from aico_lab.period import Moment

Role = Literal["user", "assistant", "system"]
Sentiment = Literal["positive", "neutral", "negative"]

ROLES: Final = ("user", "assistant", "system")
_SENTIMENTS: Final = {
    "positive": f"m.sentiment_score >= {POSITIVE}",
    "negative": f"m.sentiment_score <= -{POSITIVE}",
    "neutral": f"m.sentiment_score > -{POSITIVE} AND m.sentiment_score < {POSITIVE}",
}
LITTLE: Final = 5_000
"""The number of messages of people below which all their segments are looked up, which takes up to
11 ms; those who wrote more are in so many segments that the best ones are examined instead."""


@dataclass(frozen=True, slots=True)
class SearchFilters:
    """The filters of a search, with ids and stored times; an empty or None one filters nothing.

    Attributes:
        users: Ids of people.
        channels: Ids of channels.
        role: The side that wrote.
        since: The first moment, as the database stores it.
        until: The moment before which a message was written, as the database stores it.
        sentiment: The sentiment of the message.
    """

    users: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    role: Role | None = None
    since: str | None = None
    until: str | None = None
    sentiment: Sentiment | None = None

    def __bool__(self) -> bool:
        return self != SearchFilters()

    def messages(self) -> tuple[str, list[str]]:
        """Return the SQL condition that a message `m` must meet, and its parameters."""
        conditions: dict[str, list[str]] = {}
        if self.users:
            conditions["m.user_id IN (SELECT value FROM json_each(?))"] = [json.dumps(self.users)]
        if self.channels:
            conditions["m.channel_id IN (SELECT value FROM json_each(?))"] = [
                json.dumps(self.channels)
            ]
        if self.role:
            conditions["m.role = ?"] = [self.role]
        if self.since:
            conditions["m.timestamp >= ?"] = [self.since]
        if self.until:
            conditions["m.timestamp < ?"] = [self.until]
        if self.sentiment:
            conditions[_SENTIMENTS[self.sentiment]] = []
        return " AND ".join(conditions) or "1", [
            value for values in conditions.values() for value in values
        ]


def resolve(
    primary: Connection,
    *,
    user: str | Sequence[str] | None,
    channel: str | Sequence[str] | None,
    role: str | None,
    since: Moment | None,
    until: Moment | None,
    sentiment: str | None,
    timezone: str,
) -> SearchFilters:
    """Return filters with the ids and stored times of names, days and spans.

    Args:
        primary: The primary database.
        user: Ids or names of people.
        channel: Ids or names of channels.
        role: 'user', 'assistant' or 'system'.
        since: A day or moment, or a span back from the last message: '30d', '4w', '12h'.
        until: A day, which is included, or a moment.
        sentiment: 'positive', 'neutral' or 'negative'.
        timezone: The zone of days, and of moments without one.

    Raises:
        UnknownName: There is no such person or channel.
        InvalidValue: Another value is invalid, or the period ends before it begins.
    """
    if not isinstance(timezone, str):
        raise InvalidValue(f"timezone must be an IANA name such as 'UTC', not {timezone!r}.")
    get_zone(timezone)  # also where it is not needed
    check_choice("role", role, ROLES)
    check_choice("sentiment", sentiment, tuple(_SENTIMENTS))
    begins, ends = period.bounds(since, until, timezone, _recent_ms(primary) if since else 0)
    return SearchFilters(
        () if user is None else find_ids(primary, "user", user),
        () if channel is None else find_ids(primary, "channel", channel),
        role,  # type: ignore[arg-type]
        None if begins is None else _stored(begins),
        None if ends is None else _stored(ends),
        sentiment,  # type: ignore[arg-type]
    )


def candidates(primary: Connection, collection: str, filters: SearchFilters) -> set[str] | None:
    """Return the items of a collection that may pass, or None for all.

    For segments these are candidates, which `passing` examines: filters that many segments pass are
    left to it, as it looks only at the best ones.
    """
    if not filters:
        return None
    if collection == texts.KNOWLEDGE or (
        collection == texts.MEMORIES and (filters.channels or filters.role or filters.sentiment)
    ):
        return set()
    where, parameters = filters.messages()
    if collection == texts.MEMORIES:
        where = where.replace("m.timestamp", "m.created_at")
        query = f"SELECT CAST(m.memory_id AS BLOB) FROM memories AS m WHERE {where}"
    elif filters.users and _wrote_little(primary, filters.users):
        query = (
            "SELECT DISTINCT CAST(sm.segment_id AS BLOB) FROM messages AS m "
            f"CROSS JOIN segment_messages AS sm ON sm.message_id = m.message_id WHERE {where}"
        )
    elif filters.channels or filters.since or filters.until:
        spans = SearchFilters(channels=filters.channels, since=filters.since, until=filters.until)
        where, parameters = spans.messages()
        where = (
            where.replace("m.channel_id", "s.channel_id")
            .replace("m.timestamp >=", "s.ended_at >=")
            .replace("m.timestamp <", "s.started_at <")
        )
        query = f"SELECT CAST(s.segment_id AS BLOB) FROM conversation_segments AS s WHERE {where}"
    else:
        return None
    return {key.decode(errors="replace") for (key,) in primary.fetch_all(query, parameters) if key}


def _wrote_little(primary: Connection, users: Sequence[str]) -> bool:
    """Return whether finding the segments of all messages of some people takes little time."""
    found = primary.fetch_all(
        "SELECT count(*) FROM (SELECT 1 FROM messages WHERE user_id IN "
        "(SELECT value FROM json_each(?)) LIMIT ?)",
        [json.dumps(users), LITTLE],
    )
    return bool(found[0][0] < LITTLE)


def passing(
    primary: Connection, collection: str, filters: SearchFilters, items: Collection[str]
) -> set[str]:
    """Return those of the given items that pass the filters."""
    if collection != texts.SEGMENTS or not filters:
        return set(items)
    where, parameters = filters.messages()
    rows = primary.fetch_all(
        "SELECT CAST(hit.value AS BLOB) FROM json_each(?) AS hit WHERE EXISTS (SELECT 1 "
        "FROM segment_messages AS sm CROSS JOIN messages AS m ON m.message_id = sm.message_id "
        f"WHERE sm.segment_id = hit.value AND {where})",
        [json.dumps(sorted(items)), *parameters],
    )
    return {key.decode(errors="replace") for (key,) in rows}


def passing_messages(
    primary: Connection, filters: SearchFilters, segments: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """Yield the messages of some segments that pass the filters, as ids of segments and texts."""
    where, parameters = filters.messages()
    rows = primary.fetch_all(
        "SELECT CAST(sm.segment_id AS BLOB), CAST(m.content AS BLOB) FROM json_each(?) AS hit "
        "CROSS JOIN segment_messages AS sm ON sm.segment_id = hit.value "
        f"CROSS JOIN messages AS m ON m.message_id = sm.message_id WHERE {where}",
        [json.dumps(segments), *parameters],
    )
    for key, content in rows:
        yield key.decode(errors="replace"), (content or b"").decode(errors="replace")


def check_choice(name: str, value: str | None, known: Sequence[str]) -> None:
    """Raise InvalidValue unless a value is None or one of the known ones."""
    if value is not None and value not in known:
        end = did_you_mean(str(value), known, f": use {', '.join(known)}.")
        raise InvalidValue(f"There is no {name} {value!r}{end}")


def _recent_ms(primary: Connection) -> int:
    """Return the time of the last message that is not in the future, or else now, in UTC ms."""
    now = datetime.now(UTC)
    last = primary.fetch_one(
        "SELECT max(timestamp) FROM messages WHERE timestamp <= ?", [_stored(to_ms(now))]
    )
    return to_ms(datetime.fromisoformat(last[0]) if last and last[0] else now)


def _stored(ms: int) -> str:
    """Return a time in UTC milliseconds as the database stores it."""
    moment = to_local(ms, get_zone("UTC")).replace(tzinfo=None)
    return f"{moment.isoformat(timespec='microseconds')}Z"
