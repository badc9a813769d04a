"""Invented messages, and a function that writes them into a database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aico_lab.adapters.libsql import Connection

START = "2024-03-01T12:00:00.000000Z"
COLUMNS = (
    "message_id", "channel_id", "conversation_id", "user_id", "role", "content", "timestamp",
    "sentiment_score", "response_time", "metadata",
)  # fmt: skip


def at(second: int) -> str:
    """Return a time as databases store it: some seconds after noon of 1 March 2024 (UTC)."""
    moment = datetime(2024, 3, 1, 12, tzinfo=UTC) + timedelta(seconds=second)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def message(number: int, **changes: Any) -> dict[str, Any]:
    """Return the row of a message; user and companion take turns, one message a second.

    Args:
        number: Its number in the conversation, from 0.
        changes: Values of columns that differ from the usual ones.
    """
    return {
        "message_id": f"m{number}",
        "channel_id": "c",
        "conversation_id": "c",
        "user_id": "u",
        "role": "assistant" if number % 2 else "user",
        "content": f"the time I felt homesick {number}",
        "timestamp": at(number),
        "sentiment_score": (number % 20) / 10 - 1,
        "response_time": None,
        "metadata": None,
    } | changes


def add(connection: Connection, *messages: dict[str, Any]) -> None:
    """Insert messages, with their channels and users, in one transaction."""
    with connection.transaction():
        connection.execute_many(
            "INSERT OR IGNORE INTO users (user_id, created_at) VALUES (?, ?)",
            {(m["user_id"], START) for m in messages if m["user_id"]},
        )
        connection.execute_many(
            "INSERT OR IGNORE INTO channels (channel_id, created_at) VALUES (?, ?)",
            {(m["channel_id"], START) for m in messages},
        )
        connection.execute_many(
            f"INSERT INTO messages ({', '.join(COLUMNS)}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [[m[column] for column in COLUMNS] for m in messages],
        )


def add_memories(connection: Connection, *contents: str, user: str = "u") -> None:
    """Insert memories of a person in one transaction."""
    with connection.transaction():
        connection.execute(
            "INSERT OR IGNORE INTO users (user_id, created_at) VALUES (?, ?)", [user, START]
        )
        connection.execute_many(
            "INSERT INTO memories VALUES (?, ?, ?, 'episodic', 0.5, ?, NULL)",
            [(f"{user}:{content}", user, content, START) for content in contents],
        )
