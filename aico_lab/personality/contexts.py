"""Context buckets: the situation of a message in a few words, such as 'evening/opening'."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from aico_lab.domain import values
from aico_lab.errors import InvalidValue, UnknownName
from aico_lab.mart.places import SESSION_GAP_MS
from aico_lab.zones import get_zone

if TYPE_CHECKING:
    from aico_lab.adapters.libsql import Connection

PARTS: Final = ("night", "morning", "afternoon", "evening")
"""The parts of a day, each of six hours, from midnight on."""

_SILENCE: Final = timedelta(milliseconds=SESSION_GAP_MS)


def part_of_day(moment: datetime, timezone: str) -> str:
    """Return the part of the day of a moment in a zone."""
    return PARTS[moment.astimezone(get_zone(timezone)).hour * len(PARTS) // 24]


def bucket(
    moment: datetime, timezone: str, *, opening: bool | None = None, theme: int | None = None
) -> str:
    """Return the context bucket of a message.

    Args:
        moment: The time of the message.
        timezone: The IANA name of the person's zone.
        opening: Whether the message begins a session; None if unknown.
        theme: The number of the theme that is talked about; None if unknown.
    """
    parts = [part_of_day(moment, timezone)]
    if opening is not None:
        parts.append("opening" if opening else "ongoing")
    if theme is not None:
        parts.append(f"theme {theme}")
    return "/".join(parts)


def bucket_of_message(primary: Connection, message_id: str, timezone: str) -> str:
    """Return the context bucket of a stored message.

    The zone is the person's preference `timezone`, or else the given one. A message begins a
    session if the message before it in its conversation is more than 30 minutes older. The theme is
    that of its segment in the current exploration, if there is one.

    Args:
        primary: The primary database.
        message_id: The id of the message.
        timezone: The IANA name of the zone of people who have no preference.

    Raises:
        UnknownName: No message has that id.
    """
    row = primary.fetch_one(
        "SELECT m.timestamp, (SELECT max(b.timestamp) FROM messages b "
        "WHERE b.conversation_id = m.conversation_id AND b.role <> 'system' "
        "AND (b.timestamp, b.id) < (m.timestamp, m.id)), "
        "(SELECT p.value FROM preferences p WHERE p.user_id = m.user_id "
        "AND p.preference_key = 'timezone') FROM messages m WHERE m.message_id = ?",
        [message_id],
    )
    if row is None:
        raise UnknownName(f"No message has the id {message_id!r}: store the message first.")
    stamp, before, preferred = row
    moment = values.from_timestamp("timestamp", stamp)
    opening = before is None or moment - values.from_timestamp("timestamp", before) > _SILENCE
    theme = primary.fetch_one(
        "SELECT t.theme FROM segment_messages s JOIN passage_themes t "
        "ON t.segment_id = s.segment_id WHERE s.message_id = ? AND t.exploration_id = "
        "(SELECT exploration_id FROM explorations "
        "ORDER BY coalesce(chosen_at, created_at) DESC, exploration_id LIMIT 1)",
        [message_id],
    )
    return bucket(
        moment.astimezone(UTC),
        _zone(preferred) or timezone,
        opening=opening,
        theme=None if theme is None else theme[0],
    )


def _zone(preferred: str | None) -> str | None:
    """Return the zone that a preference, which is JSON, names; None if it names none."""
    name = (preferred or "").strip('"')
    try:
        return get_zone(name).key if name else None
    except InvalidValue:
        return None
