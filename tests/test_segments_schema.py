"""Triggers of segments: no summary outlives the messages it quotes, whichever program writes."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aico_lab.schema import CORE, feed
from aico_lab.schema.drift import Drift
from tests.databases import with_core_schemas
from tests.effort import examples
from tests.messages import START, add, at, message

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from aico_lab.adapters.libsql import Connection

MISSING = '{"missing_since": "2024-06-01T08:00:00Z"}'
INSERT = "INTO messages (id, message_id, channel_id, conversation_id, role, content, timestamp)"


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    with with_core_schemas(tmp_path / "a.db").connect() as opened:
        yield opened


def outside(connection: Connection) -> closing[sqlite3.Connection]:
    """Another program, which has turned on neither foreign keys nor recursive triggers."""
    return closing(sqlite3.connect(connection.path, isolation_level=None))


def add_segment(connection: Connection, name: str, *members: int, **values: object) -> None:
    """Write a segment of some messages, with a summary."""
    row = {"segment_id": name, "channel_id": "c", "started_at": START, "ended_at": START} | values
    row.setdefault("summary", "quotes them")
    connection.execute(
        f"INSERT INTO conversation_segments ({', '.join(row)}) "
        f"VALUES ({', '.join('?' * len(row))})",
        [*row.values()],
    )
    connection.execute_many(
        "INSERT INTO segment_messages VALUES (?, ?, ?)",
        [(name, f"m{number}", place) for place, number in enumerate(members)],
    )


def segments(connection: Connection) -> dict[str, tuple[str | None, int]]:
    rows = connection.fetch_all("SELECT segment_id, summary, is_stale FROM conversation_segments")
    return {name: (summary, stale) for name, summary, stale in rows}


SOUND, STALE = ("quotes them", 0), (None, 1)


@pytest.fixture
def three(connection: Connection) -> Connection:
    """Six messages: two in each of the segments `a` and `b`, and the others in none."""
    add(connection, *map(message, range(6)))
    add_segment(connection, "a", 0, 1)
    add_segment(connection, "b", 2, 3)
    return connection


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM messages WHERE message_id = 'm1'",
        "UPDATE messages SET content = 'other' WHERE message_id = 'm1'",
        "UPDATE messages SET content = 'other' WHERE message_id IN ('m0', 'm1')",
        "UPDATE messages SET timestamp = '2025-01-01T00:00:00.000000Z' WHERE message_id = 'm1'",
        "UPDATE messages SET conversation_id = 'd' WHERE message_id = 'm1'",
        "UPDATE messages SET channel_id = 'd' WHERE message_id = 'm1'",
        f"UPDATE messages SET metadata = '{MISSING}' WHERE message_id = 'm1'",
        f"REPLACE {INSERT} VALUES (NULL, 'm1', 'c', 'c', 'user', 'other', '{START}')",
        f"REPLACE {INSERT} VALUES (2, 'new', 'c', 'c', 'user', 'other', '{START}')",
    ],
)
@pytest.mark.parametrize("by_another_program", [False, True])
def test_a_changed_or_deleted_message_takes_the_summary_with_it(
    three, statement, by_another_program
):
    """At once, and from its own segment alone."""
    add(three, message(9, channel_id="d"))
    if by_another_program:
        with outside(three) as other:
            other.execute(statement)
    else:
        three.execute(statement)
    assert segments(three) == {"a": STALE, "b": SOUND}


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE messages SET sentiment_score = 1, response_time = 2, role = 'system'",
        "UPDATE messages SET content = content, timestamp = timestamp, channel_id = channel_id",
        """UPDATE messages SET metadata = '{"edited": true}'""",
        "UPDATE messages SET metadata = 'no JSON'",
        f"INSERT OR IGNORE {INSERT} VALUES (NULL, 'm1', 'c', 'c', 'user', 'other', '{START}')",
        f"INSERT {INSERT} VALUES (NULL, 'new', 'c', 'c', 'user', 'other', '{START}')",
        "DELETE FROM messages WHERE message_id IN ('m4', 'm5')",
        "UPDATE segment_messages SET position = position + 1",
        "UPDATE channels SET name = 'n'",
    ],
)
def test_other_changes_leave_segments_alone(three, statement):
    with outside(three) as other:
        other.execute(statement)
    assert segments(three) == {"a": SOUND, "b": SOUND}


@pytest.mark.parametrize("foreign_keys", [False, True])
def test_a_deleted_message_is_in_no_segment(three, foreign_keys):
    """Also where another program does not turn on foreign keys."""
    with outside(three) as other:
        other.execute(f"PRAGMA foreign_keys = {foreign_keys:d}")
        other.execute("DELETE FROM messages WHERE message_id = 'm1'")
    assert three.fetch_all("SELECT segment_id, message_id FROM segment_messages ORDER BY 2") == [
        ("a", "m0"), ("b", "m2"), ("b", "m3"),
    ]  # fmt: skip


def test_messages_that_a_cascade_deletes_take_summaries_with_them(three):
    """A person's messages with the person, in segments that are left with others."""
    add(three, message(7, user_id="v"))
    add_segment(three, "d", 5, 7)
    three.execute("DELETE FROM users WHERE user_id = 'v'")
    assert segments(three) == {"a": SOUND, "b": SOUND, "d": STALE}
    three.execute("DELETE FROM channels")
    assert segments(three) == {}


def test_a_segment_that_became_stale_is_in_the_feed_once(three):
    """Consumers remove what they made from it; later changes of it are no news."""
    before = feed.head(three).seq
    three.execute("UPDATE messages SET content = 'other' WHERE message_id IN ('m0', 'm1')")
    three.execute("UPDATE messages SET content = 'another' WHERE message_id = 'm0'")
    log = "SELECT op, row_key FROM change_log WHERE seq > ? AND table_name = ?"
    assert three.fetch_all(log, [before, "conversation_segments"]) == [("update", "a")]


def test_changes_of_messages_that_were_read_are_noted(three):
    """New messages are not: their ids are higher. Nor are changes that make no difference."""
    three.execute("UPDATE messages SET content = 'before' WHERE message_id = 'm4'")
    three.execute("UPDATE segmenting_state SET segmented_through = 6")
    with outside(three) as other:
        other.execute(f"INSERT {INSERT} VALUES (NULL, 'x', 'c', 'c', 'user', 'x', '{at(1)}')")
        other.execute("UPDATE messages SET content = 'y' WHERE message_id = 'x'")
        other.execute("UPDATE messages SET role = 'system' WHERE message_id = 'm4'")
        assert three.fetch_all("SELECT id FROM segmenting_changes") == []
        for _ in range(2):
            other.execute("UPDATE messages SET content = content || '!' WHERE message_id = 'm4'")
        other.execute("UPDATE messages SET metadata = ? WHERE message_id = 'm0'", [MISSING])
        other.execute("DELETE FROM messages WHERE message_id = 'm5'")
        other.execute(f"INSERT {INSERT} VALUES (6, 'm5', 'c', 'c', 'user', 'x', '{at(1)}')")
    assert three.fetch_all("SELECT id FROM segmenting_changes ORDER BY id") == [(1,), (5,), (6,)]


VERBS = st.sampled_from(["INSERT", "INSERT OR IGNORE", "INSERT OR FAIL", "REPLACE", "UPSERT"])
NUMBERS = st.integers(0, 4)
STEPS = st.one_of(
    st.tuples(VERBS, NUMBERS, st.none() | st.integers(1, 5)),
    st.tuples(st.sampled_from(["UPDATE", "UPDATE OR IGNORE", "UPDATE OR REPLACE"]), NUMBERS,
              st.none() | NUMBERS),
    st.tuples(st.just("DELETE"), NUMBERS, st.none()),
)  # fmt: skip


@given(
    steps=st.lists(STEPS, min_size=1, max_size=6), recursive=st.booleans(), foreign=st.booleans()
)
@settings(
    max_examples=examples(60), suppress_health_check=[HealthCheck.function_scoped_fixture]
)  # fmt: skip
@pytest.mark.slow
def test_no_summary_outlives_its_messages_whatever_another_program_does(
    connection, steps, recursive, foreign
):
    """With each way of resolving a conflict, by the id of a message and by its number."""
    for table in ("conversation_segments", "segment_messages", "messages"):
        connection.execute(f"DELETE FROM {table}")
    connection.execute("DELETE FROM sqlite_sequence WHERE name = 'messages'")
    add(connection, *(message(number, user_id=None) for number in range(4)))
    for number in range(4):
        add_segment(connection, f"of m{number}", number, summary=f"m{number}")
    originals = connection.fetch_all("SELECT message_id, content FROM messages")
    with outside(connection) as other:
        other.execute(f"PRAGMA recursive_triggers = {recursive:d}")
        other.execute(f"PRAGMA foreign_keys = {foreign:d}")
        for verb, number, second in steps:
            try:
                write(other, verb, number, second)
            except sqlite3.IntegrityError:
                continue
    now = set(connection.fetch_all("SELECT message_id, content FROM messages"))
    for message_id, content in originals:
        summary, stale = segments(connection)[f"of {message_id}"]
        if (message_id, content) not in now:
            assert (summary, stale) == STALE
    orphans = connection.fetch_all(
        "SELECT s.segment_id FROM conversation_segments AS s JOIN segment_messages AS sm "
        "USING (segment_id) LEFT JOIN messages AS m USING (message_id) "
        "WHERE m.message_id IS NULL AND s.summary IS NOT NULL"
    )
    assert orphans == []


def write(other: sqlite3.Connection, verb: str, number: int, second: int | None) -> None:
    """Run one statement of the other program; each text that it writes is new."""
    if verb == "DELETE":
        other.execute("DELETE FROM messages WHERE message_id = ?", [f"m{number}"])
    elif verb.startswith("UPDATE"):
        new = f"m{number if second is None else second}"
        other.execute(
            f"{verb} messages SET message_id = ?, content = 'changed' WHERE message_id = ?",
            [new, f"m{number}"],
        )
    else:
        upsert = " ON CONFLICT (message_id) DO UPDATE SET content = excluded.content"
        other.execute(
            f"{verb.replace('UPSERT', 'INSERT')} {INSERT} "
            f"VALUES (?, ?, 'c', 'c', 'user', 'written', ?){upsert if verb == 'UPSERT' else ''}",
            [second, f"m{number}", START],
        )


@pytest.mark.slow
def test_segments_of_an_older_home_stay_as_they_are(connection):
    """The versions are rolled back and applied again, with rows there."""
    CORE.rollback("item_words", 0, connection)
    CORE.rollback("embeddings", 0, connection)
    CORE.rollback("conversations", 3, connection)
    assert connection.fetch_all("SELECT name FROM pragma_table_info('conversation_segments')") == [
        ("segment_id",), ("channel_id",), ("started_at",), ("ended_at",), ("summary",),
        ("metadata",),
    ]  # fmt: skip
    add(connection, *map(message, range(3)))
    add_segment(connection, "a", 0, 1)
    connection.execute("UPDATE messages SET content = 'x' WHERE message_id = 'm2'")
    applied = CORE.apply_core_schemas(connection)
    assert applied == {"conversations": 4, "embeddings": 4, "item_words": 2}
    assert CORE.drift(connection) == Drift()
    assert segments(connection) == {"a": SOUND}
    assert connection.fetch_all("SELECT segmenter FROM conversation_segments") == [(None,)]
    connection.execute("DELETE FROM messages WHERE message_id = 'm0'")
    assert segments(connection) == {"a": STALE}
