"""The view `conversations` as a way in: what it takes, and what it counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from aico_lab.errors import ConstraintViolated
from tests.databases import with_core_schemas
from tests.messages import START, at

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aico_lab.adapters.libsql import Connection


@pytest.fixture
def connection(tmp_path) -> Iterator[Connection]:
    with with_core_schemas(tmp_path / "a.db").connect() as opened:
        opened.execute("INSERT INTO users (user_id, created_at) VALUES ('u', ?)", [START])
        yield opened


def insert(connection: Connection, kind: str = "INSERT", **changes: object) -> None:
    fields = {"message_id": "m", "user_id": "u", "message": "hello", "timestamp": at(1)} | changes
    marks = ", ".join("?" * len(fields))
    connection.execute(
        f"{kind} INTO conversations ({', '.join(fields)}) VALUES ({marks})", [*fields.values()]
    )


def channels(connection: Connection) -> list[tuple[str, int, str]]:
    return connection.fetch_all("SELECT channel_id, message_count, last_active FROM channels")


def test_a_message_that_is_there_already_is_not_counted_again(connection):
    """Whatever the statement says should happen then."""
    insert(connection)
    insert(connection, "INSERT OR IGNORE", message="another", timestamp=at(9))
    assert channels(connection) == [("direct:u", 1, at(1))]
    assert connection.fetch_all("SELECT content FROM messages") == [("hello",)]
    with pytest.raises(ConstraintViolated):
        insert(connection, message="another")
    assert channels(connection) == [("direct:u", 1, at(1))]
    insert(connection, "INSERT OR REPLACE", message="another", timestamp=at(5))
    assert channels(connection) == [("direct:u", 1, at(5))]
    assert connection.fetch_all("SELECT content FROM messages") == [("another",)]


def test_a_message_that_moves_is_counted_where_it_is(connection):
    """One without an id is always a new one."""
    insert(connection)
    insert(connection, message_id=None, timestamp=at(2))
    insert(connection, "REPLACE", channel_id="c", timestamp=at(3))
    assert channels(connection) == [("direct:u", 1, at(2)), ("c", 1, at(3))]
    insert(connection, "INSERT OR IGNORE", channel_id="d", timestamp=at(4))
    assert channels(connection) == [("direct:u", 1, at(2)), ("c", 1, at(3)), ("d", 0, None)]


WRONG = {
    "timestamp": [
        None, "", "yesterday", "2024-05-01", "2024-05-01T12:30:00", "2024-05-01 12:30:00Z",
        "2024-05-01T12:30:00.000000+02:00", "2024-02-30T12:30:00.000000Z",
        "2024-05-01T24:00:00.000000Z", "2024-13-01T00:00:00.000000Z",
        "0000-05-01T12:30:00.000000Z", 1714566600, at(1).encode(),
    ],
    "message": [None, b"bytes", "x" * 1_000_001],
    "message_id": [""],
    "conversation_id": [""],
    "channel_id": [""],
    "user_id": [""],
    "role": ["robot", ""],
    "sentiment_score": [1.01, -2, "0.5"],
    "sentiment": [7],
    "response_time": [-1, "soon", float("inf")],
}  # fmt: skip


@pytest.mark.parametrize("kind", ["INSERT", "INSERT OR IGNORE", "REPLACE"])
@pytest.mark.parametrize("field", WRONG)
def test_what_no_reader_could_read_is_refused(connection, field, kind):
    """One such row would keep every message from being read; and nothing is counted."""
    for value in WRONG[field]:
        with pytest.raises(ConstraintViolated, match="constraint failed: "):
            insert(connection, kind, **{field: value})
    assert connection.fetch_all("SELECT 1 FROM messages UNION ALL SELECT 1 FROM channels") == []


def test_what_is_left_out_is_what_a_turn_of_a_direct_conversation_has(connection):
    """Down to the last microsecond that there is."""
    insert(connection, message_id=None, timestamp="9999-12-31T23:59:59.999999Z", sentiment=0.7)
    insert(connection, timestamp="0001-01-01T00:00:00.000000Z", is_ai_response=1, sentiment="sad")
    assert connection.fetch_all(
        "SELECT channel_id, conversation_id, role, sentiment_score FROM messages ORDER BY id"
    ) == [("direct:u", "direct:u", "user", 0.7), ("direct:u", "direct:u", "assistant", None)]
