"""The counts of channels, which triggers keep right, whichever program writes messages."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aico_lab.schema import feed
from tests.databases import with_core_schemas
from tests.effort import examples
from tests.messages import START, add, at, message

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from aico_lab.adapters.libsql import Connection


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    with with_core_schemas(tmp_path / "a.db").connect() as opened:
        yield opened


def outside(connection: Connection) -> closing[sqlite3.Connection]:
    """Another program, which has turned on neither foreign keys nor recursive triggers."""
    return closing(sqlite3.connect(connection.path, isolation_level=None))


def counts(connection: Connection) -> list[tuple[str, int, str | None]]:
    return connection.fetch_all(
        "SELECT channel_id, message_count, last_active FROM channels ORDER BY channel_id"
    )


def expected(connection: Connection) -> list[tuple[str, int, str | None]]:
    return connection.fetch_all(
        "SELECT channel_id, count(message_id), max(timestamp) FROM channels "
        "LEFT JOIN messages USING (channel_id) GROUP BY channel_id ORDER BY channel_id"
    )


INSERT = "INTO messages (id, message_id, channel_id, conversation_id, role, content, timestamp)"


def test_messages_are_counted_whoever_writes_and_deletes_them(connection):
    """REPLACE removes two messages here, and fires no trigger for either."""
    add(connection, *(message(number) for number in range(4)), message(9, channel_id="d"))
    with outside(connection) as other:
        other.execute("DELETE FROM messages WHERE message_id = 'm3'")
        assert counts(connection) == [("c", 3, at(2)), ("d", 1, at(9))]
        other.execute(
            f"REPLACE {INSERT} SELECT id, 'm0', 'd', 'd', 'user', 'moved', ? FROM messages "
            "WHERE message_id = 'm1'",
            [at(5)],
        )
    assert counts(connection) == [("c", 1, at(2)), ("d", 2, at(9))]
    connection.execute("DELETE FROM users")  # and by cascade their messages
    assert counts(connection) == [("c", 0, None), ("d", 1, at(5))]


def test_a_channel_that_another_program_replaces_keeps_its_counts(connection):
    """Also one that it writes after its messages, or with counts of its own."""
    add(connection, message(1))
    with outside(connection) as other:
        other.execute("REPLACE INTO channels (channel_id, created_at) VALUES ('c', ?)", [START])
        other.execute(f"INSERT {INSERT} VALUES (NULL, 'x', 'd', 'd', 'user', 'x', ?)", [at(2)])
        for channel in "de":
            other.execute(
                "INSERT INTO channels (channel_id, created_at, message_count, last_active) "
                "VALUES (?, ?, 1, ?)",
                [channel, START, at(7)],
            )
    assert counts(connection) == [("c", 1, at(1)), ("d", 1, at(2)), ("e", 0, None)]


def test_a_message_that_was_not_replaced_is_not_subtracted_later(connection):
    """OR IGNORE leaves it, so it is subtracted once only: when it is deleted or renamed."""
    for end in ("DELETE FROM messages", "UPDATE messages SET message_id = 'other'"):
        add(connection, message(1))
        with outside(connection) as other:
            row = "VALUES (NULL, 'm1', 'c', 'c', 'user', 'x', ?)"
            other.execute(f"INSERT OR IGNORE {INSERT} {row}", [at(3)])
            other.execute(end)
            other.execute(f"INSERT {INSERT} {row}", [at(3)])
        assert counts(connection) == expected(connection), end
        connection.execute("DELETE FROM messages")


def test_counting_alone_makes_no_change_of_a_channel(connection):
    """Any other change of the channel does, also in the statement that sets its counts."""
    add(connection, message(1))
    end = feed.head(connection).seq
    add(connection, message(2))
    connection.execute("UPDATE messages SET timestamp = ?", [at(8)])
    connection.execute("DELETE FROM messages WHERE message_id = 'm2'")
    assert counts(connection) == [("c", 1, at(8))]
    log = "SELECT table_name, op FROM change_log WHERE seq > ? AND table_name = 'channels'"
    assert connection.fetch_all(log, [end]) == []
    connection.execute("UPDATE channels SET message_count = 1, name = 'n'")
    assert connection.fetch_all(log, [end]) == [("channels", "update")]


MESSAGE = st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"), st.integers(0, 5).map(at))
WRITING = st.tuples(
    st.sampled_from(["INSERT", "INSERT OR IGNORE", "INSERT OR FAIL", "REPLACE", "UPSERT"]),
    st.lists(MESSAGE, min_size=1, max_size=4),
)
CHANGE = st.tuples(st.sampled_from(["UPDATE", "UPDATE OR IGNORE"]), st.sampled_from("abc"), MESSAGE)
REMOVAL = st.tuples(st.just("DELETE"), st.sampled_from("abc"))


@given(steps=st.lists(WRITING | CHANGE | REMOVAL, max_size=8), recursive=st.booleans())
@settings(
    max_examples=examples(60),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@pytest.mark.slow
def test_counts_are_right_after_whatever_another_program_does(connection, steps, recursive):
    """With each way of resolving a conflict, also of several rows in one statement."""
    for table in ("messages", "channels"):
        connection.execute(f"DELETE FROM {table}")
    connection.execute_many(
        "INSERT INTO channels (channel_id, created_at) VALUES (?, ?)", [[c, START] for c in "xyz"]
    )
    with outside(connection) as other:
        other.execute(f"PRAGMA recursive_triggers = {recursive:d}")
        for verb, *arguments in steps:
            try:
                write(other, verb, *arguments)
            except sqlite3.IntegrityError:
                continue
            finally:
                assert counts(connection) == expected(connection)


def write(other: sqlite3.Connection, verb: str, *arguments: object) -> None:
    """Run one statement of the other program."""
    match arguments:
        case [[*messages]]:
            rows = ", ".join(["(NULL, ?, ?, ?, 'user', 'x', ?)"] * len(messages))
            upsert = " ON CONFLICT (message_id) DO UPDATE SET channel_id = excluded.channel_id"
            other.execute(
                f"{verb.replace('UPSERT', 'INSERT')} {INSERT} VALUES {rows}"
                f"{upsert if verb == 'UPSERT' else ''}",
                [
                    value
                    for own, channel, time in messages
                    for value in (own, channel, channel, time)
                ],
            )
        case [own, (new, channel, time)]:
            other.execute(
                f"{verb} messages SET message_id = ?, channel_id = ?, timestamp = ? "
                "WHERE message_id = ?",
                [new, channel, time, own],
            )
        case [own]:
            other.execute("DELETE FROM messages WHERE message_id = ?", [own])
