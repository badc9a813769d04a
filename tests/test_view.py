"""The view `conversations` as a way in: what it takes, and what it counts."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aico_lab.errors import ConstraintViolated
from aico_lab.messages.timestamps import to_timestamp
from aico_lab.schema import CORE
from aico_lab.schema.drift import Drift
from tests.databases import with_core_schemas
from tests.effort import examples
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
    return connection.fetch_all(
        "SELECT channel_id, message_count, last_active FROM channels ORDER BY channel_id DESC"
    )


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
    assert channels(connection) == [("direct:u", 1, at(2)), ("d", 0, None), ("c", 1, at(3))]


def test_counts_are_stored_rightly_for_an_earlier_version(connection):
    """And corrected when that version has left wrong ones."""
    insert(connection, timestamp=at(3))
    connection.execute("UPDATE channels SET name = 'n', metadata = '{}'")
    query = "SELECT * FROM channels"
    before = connection.fetch_all(query)
    CORE.rollback("conversations", 2, connection)
    assert CORE.drift(connection) == Drift()
    assert connection.fetch_all(query) == before
    insert(connection, message_id="next", timestamp=at(4))
    connection.execute("DELETE FROM messages WHERE message_id = 'm'")
    assert channels(connection) == [("direct:u", 2, at(4))], "as that version counted"
    CORE.apply_core_schemas(connection)
    assert CORE.drift(connection) == Drift()
    assert channels(connection) == [("direct:u", 1, at(4))]
    assert not (connection.path.parent / "backups").exists(), "nothing is lost"


WRONG = {
    "timestamp": [
        None, "", "yesterday", "now", "12:30", "2460432.5", "2024-05-01", "2024-05-01T12",
        "2024-05-01T12:30:00 CEST", "2024-05-01T12:30:00.", "2024-05-01T12:30:00.Z",
        "2024-05-01T12:30.5Z", "2024-05-01T12:30:00.5.5Z", "2024-05-01T12:30:60Z",
        "2024-05-01T12:30:00ZZ", "2024-05-01T12:30:00.1x", "0001-01-01T00:30:00+02:00",
        "9999-12-31T23:30:00-02:00", "2024-02-30T12:30:00.000000Z",
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


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("2025-07-30T20:30:45Z", "2025-07-30T20:30:45.000000Z"),
        ("2025-07-30 20:30:45", "2025-07-30T20:30:45.000000Z"),
        ("2025-07-30T20:30", "2025-07-30T20:30:00.000000Z"),
        ("2025-07-30T20:30:45.9999999Z", "2025-07-30T20:30:45.999999Z"),
        ("2025-12-31T23:30:45.5-01:30", "2026-01-01T01:00:45.500000Z"),
    ],
)
def test_every_iso_time_is_stored_in_the_one_form(connection, given, stored):
    """As the document has it; without a zone it is UTC, as in imported files."""
    insert(connection, timestamp=given)
    assert connection.fetch_all("SELECT timestamp FROM messages") == [(stored,)]
    assert channels(connection) == [("direct:u", 1, stored)]
    assert connection.fetch_all("SELECT created_at FROM channels") == [(stored,)]


@settings(
    max_examples=examples(40),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)),  # noqa: DTZ001 - the zone is written
    st.integers(-14 * 60, 14 * 60),
    st.sampled_from(["T", " "]),
    st.sampled_from(["minutes", "seconds", "milliseconds", "microseconds"]),
)
def test_times_mean_in_sql_what_they_mean_in_python(connection, moment, offset, between, precision):
    """Of any year, zone and number of digits."""
    zone = f"{'-' if offset < 0 else '+'}{abs(offset) // 60:02}:{abs(offset) % 60:02}"
    for ending in (zone, "Z", ""):
        text = moment.isoformat(sep=between, timespec=precision) + ending
        insert(connection, "REPLACE", timestamp=text)
        assert connection.fetch_all("SELECT timestamp FROM messages") == [(to_timestamp(text),)]


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
