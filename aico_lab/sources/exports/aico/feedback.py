"""Feedback, memories and skills in AICO's libSQL database, by the columns: its versions differ."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from aico_lab.config import SOURCE_KEY_VARIABLE, source_key
from aico_lab.errors import NotADatabase, StorageError
from aico_lab.sources.exports.aico.skills import read_choices, read_learned
from aico_lab.sources.exports.engine.conversation import Kept, Learned, Rating, Unreadable
from aico_lab.sources.exports.engine.databases import database, databases
from aico_lab.sources.exports.engine.epochs import to_any_time
from aico_lab.sources.exports.engine.fields import to_id, to_object, to_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aico_lab.adapters.libsql import Connection
    from aico_lab.sources.exports.engine.conversation import Chosen
    from aico_lab.sources.exports.engine.opened import Opened

_TABLES: Final = ("feedback_events", "ams_behavioral_feedback", "trajectories")
_MEMORIES: Final = ("user_memories", "facts_metadata")
"""The table of memories, under its present and its first name."""

_KINDS: Final = {"relationship": "relationship", "temporal": "episodic"}
"""The kind of a memory by its type in AICO; any other type is a fact."""

_KEPT: Final = (
    "fact_type", "category", "memory_type", "confidence", "emotional_tone", "user_note",
    "source_conversation_id", "source_message_id", "valid_from", "valid_until",
)  # fmt: skip
_OURS: Final = "aico.db"
"""The name of AICO's database, which is mostly encrypted."""

_VALUES: Final = ("reward", "feedback_reward", "rating", "value", "score")
_IMPORTANCE: Final = 0.5
"""The importance of a memory that is no favourite."""

_NAMES: Final = ("event_category", "feedback_type", "event_type")
_PEOPLE: Final = ("user_uuid", "user_id")
_THUMBS: Final = {1.0: "thumbs_up", -1.0: "thumbs_down", 0.0: "neutral"}


def read_feedback(
    export: Opened,
) -> Iterator[tuple[str, Rating | Chosen] | Kept | Learned | Unreadable]:
    """Yield ratings and chosen skills, each with the id of its message in working memory.

    The memories and what was learned about skills are yielded, too.
    """
    plain = {member.name for member in databases(export)}
    for member in export.members:
        if member.name not in plain and member.base.casefold() != _OURS:
            continue
        try:
            with database(export, member, source_key()) as connection:
                for table in _TABLES:
                    yield from _ratings(connection, table)
                for table in _MEMORIES:
                    yield from _memories(connection, table)
                yield from read_choices(connection)
                yield from read_learned(connection)
        except NotADatabase:
            yield Unreadable(
                f"feedback in {member.name}",
                f"it is encrypted: set {SOURCE_KEY_VARIABLE} to its key",
            )
        except StorageError:
            yield Unreadable(f"feedback in {member.name}", "the database is damaged")


def _ratings(connection: Connection, table: str) -> Iterator[tuple[str, Rating]]:
    rows = connection.fetch_all("SELECT name FROM pragma_table_info(?)", [table])
    if "message_id" not in {name for (name,) in rows}:
        return
    for fields in connection.fetch_dicts(f"SELECT * FROM {table} WHERE message_id IS NOT NULL"):
        message_id = to_id(fields["message_id"])
        rating = _rating(fields)
        if message_id is not None and rating is not None:
            yield message_id, rating


def _memories(connection: Connection, table: str) -> Iterator[Kept]:
    """Yield the memories in a table, if the database has such a table."""
    rows = connection.fetch_all("SELECT name FROM pragma_table_info(?)", [table])
    if not {"fact_id", "user_id", "content"} <= {name for (name,) in rows}:
        return
    for fields in connection.fetch_dicts(f"SELECT * FROM {table}"):
        memory_id = to_id(fields["fact_id"])
        if memory_id is None:
            continue
        times = (to_any_time(fields.get(key)) for key in ("created_at", "valid_from"))
        yield Kept(
            memory_id,
            to_id(fields["user_id"]) or "",
            to_text(fields["content"]),
            _KINDS.get(to_text(fields.get("fact_type")).casefold(), "semantic"),
            1.0 if fields.get("is_favorite") == 1 else _IMPORTANCE,
            next((time for time in times if time is not None), None),
            {key: fields[key] for key in _KEPT if fields.get(key) is not None},
        )


def _rating(fields: dict[str, Any]) -> Rating | None:
    """Return the rating in a row, or None if it has neither a value nor a name."""
    payload = _payload(fields.get("payload"))
    numbers = [source.get(key) for source in (fields, payload) for key in _VALUES]
    value = next(
        (float(one) for one in numbers if isinstance(one, int | float) and -1 <= one <= 1), None
    )
    names = [to_text(fields.get(key)).strip() for key in _NAMES]
    name = next(filter(None, names), None) or (None if value is None else _THUMBS.get(value))
    if name is None and value is None:
        return None
    people = (to_id(fields.get(key)) for key in _PEOPLE)
    return Rating(
        name or "rating",
        value,
        to_any_time(fields.get("timestamp")),
        next(filter(None, people), None),
    )


def _payload(value: object) -> dict[str, Any]:
    try:
        return to_object(json.loads(value)) if isinstance(value, str) else {}
    except (ValueError, RecursionError):
        return {}
