"""Skills in AICO's libSQL database: which one was chosen for a message, and what was learned.

AICO chooses a skill by Thompson sampling and does not record with which probability, so decisions
have no propensity. `docs/concepts/memory/procedural.md` in its repository describes the tables.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Final

from aico_lab.sources.exports.engine.conversation import Chosen, Learned
from aico_lab.sources.exports.engine.epochs import to_any_time
from aico_lab.sources.exports.engine.fields import to_id, to_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aico_lab.adapters.libsql import Connection

_CHOICES: Final = {"trajectories": "selected_skill_id", "ams_behavioral_feedback": "skill_id"}
"""The tables that say which skill answered a message, with the column of the skill."""

_DIMENSIONS: Final = (
    "verbosity", "formality", "technical_depth", "proactivity", "emotional_expression", "structure",
    "explanation_depth", "example_usage", "question_asking", "reassurance_level", "directness",
    "enthusiasm", "patience", "creativity",
)  # fmt: skip
"""The names of the first 14 numbers in `dimensions`; the last two are reserved."""

_TRAITS: Final = ("verbosity", "formality")
"""The dimensions that are traits of a profile under the same name."""

_NEUTRAL: Final = 0.5


def spoken(conversation: str, content: str) -> str:
    """Return the name of an answer by its text, for choices that name no message."""
    return f"{conversation}\0{content.strip()}"


def read_choices(connection: Connection) -> Iterator[tuple[str, Chosen]]:
    """Yield the skills that were chosen, each with the id of its message, or else `spoken`."""
    for table, column in _CHOICES.items():
        for row in _rows(connection, table, column):
            skill, message = to_id(row[column]), to_id(row.get("message_id"))
            if message is None and row.get("ai_response"):
                message = spoken(to_text(row.get("conversation_id")), to_text(row["ai_response"]))
            person = to_id(row.get("user_id"))
            if skill is not None and message is not None:
                policy = None if person is None else _policy(person)
                yield message, Chosen(skill, _context(row.get("context_bucket")), policy)


def read_learned(connection: Connection) -> Iterator[Learned]:
    """Yield what was learned about each person: the skills' success, and preferences."""
    arms = dict(_skills(connection))
    people: dict[str, Learned] = {}

    def of(row: dict[str, Any]) -> Learned:
        person = to_text(row["user_id"])
        learned = people.setdefault(person, Learned(_policy(person), person, dict(arms)))
        changed = to_any_time(row.get("last_updated_at"))
        if changed is not None:
            learned.note(changed)
        return learned

    for row in _rows(connection, "context_skill_stats", "context_bucket", "skill_id", "user_id"):
        context, pair = _context(row["context_bucket"]), (row.get("alpha"), row.get("beta"))
        skill = to_text(row["skill_id"])
        if context and skill and all(map(_is_count, pair)):
            learned = of(row)
            learned.arms.setdefault(skill, {})
            learned.contexts.setdefault(context, {})[skill] = [float(one or 0) for one in pair]
    for row in _rows(
        connection, "context_preference_vectors", "context_bucket", "dimensions", "user_id"
    ):
        context, values = _context(row["context_bucket"]), _dimensions(row["dimensions"])
        if context and values:
            of(row).preferences[context] = values
    yield from (one for one in people.values() if one.arms and one.person)


def _skills(connection: Connection) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield the skills with the steps, from a neutral profile, that they stand for."""
    for row in _rows(connection, "skills", "skill_id", "dimensions"):
        values = _dimensions(row["dimensions"])
        moves = {name: round(values[name] - _NEUTRAL, 6) for name in _TRAITS if name in values}
        yield to_text(row["skill_id"]), {name: by for name, by in moves.items() if by}


def _policy(person: str) -> str:
    return f"aico:{person}"


def _context(bucket: object) -> str | None:
    """Return a context bucket of AICO, a hash of intent, sentiment and time of day, as a name."""
    return f"aico-{bucket}" if isinstance(bucket, int) else None


def _rows(connection: Connection, table: str, *needed: str) -> list[dict[str, Any]]:
    """Return the rows of a table, none if it does not exist or lacks a column."""
    rows = connection.fetch_all("SELECT name FROM pragma_table_info(?)", [table])
    if not {name for (name,) in rows}.issuperset(needed):
        return []
    return connection.fetch_dicts(f"SELECT * FROM {table}")


def _dimensions(text: object) -> dict[str, float]:
    """Return the numbers from 0 to 1 of a list of dimensions, by name."""
    try:
        numbers = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        numbers = None
    if not isinstance(numbers, list):
        return {}
    return {
        name: float(value)
        for name, value in zip(_DIMENSIONS, numbers, strict=False)
        if isinstance(value, int | float) and 0 <= value <= 1
    }


def _is_count(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value >= 0
