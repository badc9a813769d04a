"""The path from libSQL into DuckDB: exact, resumable, encrypted, and never half done."""

from __future__ import annotations

import contextlib
import json
import random
import re
import threading
import time
from datetime import UTC, datetime
from unittest.mock import ANY

import duckdb
import pyarrow as pa
import pytest
from filelock import FileLock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aico_lab.adapters.duckdb import DuckDBAdapter, translated
from aico_lab.errors import (
    ConnectionIsClosed,
    ConstraintViolated,
    CorruptDatabase,
    InvalidStatement,
    InvalidValue,
    NeverSynced,
    NotADatabase,
    NotPermitted,
    SyncBusy,
    UnknownName,
)
from aico_lab.etl import portions, publishing, snapshots, views, warehouse
from aico_lab.etl import reader as reader_module
from aico_lab.etl import sync as sync_module
from aico_lab.etl.sync import SyncResult
from aico_lab.integrity.guard import reseal
from aico_lab.lab import Lab
from aico_lab.schema import feed
from tests.conftest import plain_text_files
from tests.messages import add, at, message

DOCUMENT_QUERY = """
    SELECT
        date_trunc('day', timestamp) as day,
        count(*) as message_count,
        avg(sentiment_score) as avg_sentiment,
        approx_quantile(response_time, 0.95) as p95_response_time
    FROM conversations
    WHERE timestamp > date_sub(now(), interval 30 day)
    GROUP BY 1
    ORDER BY 1 DESC
"""
"""The source document's analytical query, as printed there."""


def contents(lab: Lab) -> dict[str, list[tuple[object, ...]]]:
    """Every tracked table as DuckDB holds it, with times as text."""
    return {
        table: sorted(lab.sql(f'SELECT * FROM raw."{table}"').fetchall(), key=repr)
        for table in feed.tracked_tables(lab.primary)
    }


def assert_equal_stores(lab: Lab) -> None:
    """Compare every value of every tracked table, read by each database's own means."""
    for table in feed.tracked_tables(lab.primary):
        columns = [
            name for (name,) in lab.primary.fetch_all("SELECT name FROM pragma_table_info(?)",
                                                      [table])
            if name not in feed.computed_columns(lab.primary, table)
        ]  # fmt: skip
        there = lab.sql(f'SELECT * FROM raw."{table}"')
        assert there.columns == columns
        texts = ", ".join(
            f"strftime(\"{name}\", '%Y-%m-%dT%H:%M:%S.%fZ')"
            if str(kind) == "TIMESTAMP WITH TIME ZONE"
            else f'"{name}"::INTEGER'
            if str(kind) == "BOOLEAN"
            else f'"{name}"'
            for name, kind in zip(there.columns, there.types, strict=True)
        )
        listed = ", ".join(f'"{name}"' for name in columns)
        here = lab.primary.fetch_all(f'SELECT {listed} FROM "{table}"')
        rows = lab.sql(f'SELECT {texts} FROM raw."{table}"').fetchall()
        assert sorted(rows, key=repr) == sorted(here, key=repr), table


@pytest.mark.slow
def test_a_first_sync_moves_everything_and_an_increment_what_changed(lab):
    """Inserts, updates, deletes, changed keys, several tables."""
    add(lab.primary, *map(message, range(500)))
    first = lab.sync()
    assert (first.mode, first.rows["messages"]) == ("full", 500)
    assert_equal_stores(lab)
    add(lab.primary, message(500, timestamp=at(3)), message(501, content=""))
    lab.primary.execute("UPDATE messages SET content = 'changed' WHERE id <= 3")
    lab.primary.execute("DELETE FROM messages WHERE id BETWEEN 10 AND 19")
    lab.primary.execute("UPDATE messages SET message_id = 'moved' WHERE message_id = 'm30'")
    lab.primary.execute("INSERT INTO preferences VALUES ('u', 'tone', '\"warm\"', ?)", [at(0)])
    second = lab.sync()
    assert second.mode == "increment"
    assert second.rows == {"messages": 6, "preferences": 1, "preference_changes": 1}
    assert_equal_stores(lab)
    third = lab.sync()
    assert (third.mode, third.generation) == ("nothing", second.generation)
    assert lab.sync(full=True).mode == "full"
    assert_equal_stores(lab)


@pytest.mark.slow
def test_a_key_of_several_columns_is_followed(lab):
    """Logged as JSON, joined by its parts."""
    add(lab.primary, message(0))
    rows = [["u", key, "1", at(0)] for key in ("a", 'quo"te', "slash/", "ünï", "\U0001f600", "[1]")]
    lab.primary.execute_many("INSERT INTO preferences VALUES (?, ?, ?, ?)", rows)
    lab.sync()
    lab.primary.execute("UPDATE preferences SET value = '2'")
    lab.primary.execute("DELETE FROM preferences WHERE preference_key = 'a'")
    assert lab.sync().mode == "increment"
    assert_equal_stores(lab)


INT64 = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@given(
    rows=st.lists(
        st.tuples(
            TEXT,
            # SQLite itself stores no negative zero: adding 0.0 makes it positive.
            st.none() | st.floats(allow_nan=False).map(lambda real: real + 0.0),
            st.none() | st.dictionaries(TEXT, INT64 | TEXT | st.booleans()),
            INT64,
            st.none() | st.datetimes(),
            st.binary(max_size=1024).map(lambda b: (b * 1024)[:1024] or bytes(1024)),
        ),
        min_size=1,
        max_size=20,
    )
)
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.slow
def test_every_value_arrives_bit_for_bit(lab, rows):
    """int64, REAL, BLOB, JSON, NULL, empty and astral text, times with microseconds."""
    for table in ("personality_profiles", "embeddings", "messages", "channels", "users"):
        lab.primary.execute(f"DELETE FROM {table}")
    messages = [
        message(i, content=text, sentiment_score=real,
                metadata=None if data is None else json.dumps(data, ensure_ascii=False),
                timestamp=(moment or EARLIEST).strftime("%Y-%m-%dT%H:%M:%S.%fZ").zfill(27))
        for i, (text, real, data, _, moment, _) in enumerate(rows)
    ]  # fmt: skip
    add(lab.primary, *messages)
    lab.primary.execute_many(
        "INSERT INTO personality_profiles (profile_id, version, traits, active_from) "
        "VALUES (?, ?, '{}', ?)",
        [[str(i), row[3], at(0)] for i, row in enumerate(rows)],
    )
    lab.primary.execute_many(
        "INSERT INTO embeddings VALUES (?, NULL, NULL, 'm', ?, ?)",
        [[str(i), row[5], at(0)] for i, row in enumerate(rows)],
    )
    lab.sync()
    assert_equal_stores(lab)
    bits = lab.sql("SELECT sentiment_score FROM raw.messages ORDER BY id").fetchall()
    assert [b.hex() if b is not None else b for (b,) in bits] == [
        row[1].hex() if row[1] is not None else None for row in rows
    ]


EARLIEST = datetime(1, 1, 1)  # noqa: DTZ001 - the strategy's times are naive too


MISFITS = [
    ("content", "CAST(x'ff41' AS TEXT)", "is not valid UTF-8 text"),
    ("content", "x'00ff'", "is not valid UTF-8 text"),
    ("sentiment_score", "'good'", "is not a number"),
    ("sentiment_score", "x'01'", "is not a number"),
    ("timestamp", "'yesterday'", "is not a UTC timestamp in ISO 8601"),
    ("timestamp", "'2024-02-30T00:00:00.000000Z'", "is not a UTC timestamp in ISO 8601"),
    ("timestamp", "''", "is not a UTC timestamp in ISO 8601"),
    ("metadata", "'{'", "is not valid JSON in UTF-8"),
    ("metadata", "'{\"a\":' || CAST(x'22ff22' AS TEXT) || '}'", "is not valid JSON in UTF-8"),
]


@pytest.mark.slow
@pytest.mark.parametrize("full", [True, False], ids=["full", "increment"])
def test_rows_that_do_not_fit_are_set_aside_and_the_rest_goes_in(lab, full):
    """Counted, each named with its own reason, and taken in one by one as they are mended."""
    add(lab.primary, *map(message, range(len(MISFITS) + 3)))
    if not full:
        lab.sync()
    for number, (column, value, _) in enumerate(MISFITS):
        lab.primary.execute(
            f"UPDATE messages SET {column} = {value} WHERE message_id = 'm{number}'"
        )
    result = lab.sync()
    assert (result.mode, result.quarantined) == (
        "full" if full else "increment",
        {"messages": len(MISFITS)},
    )
    assert lab.sql("SELECT count(*) FROM raw.messages").fetchone() == (3,)
    query = "SELECT table_name, row_key, column_name, reason FROM quarantine.misfits ORDER BY ALL"
    expected = [
        ("messages", f"m{number}", column, reason)
        for number, (column, _, reason) in enumerate(MISFITS)
    ]
    assert lab.sql(query).fetchall() == expected
    for which, left in (("= 'm0'", expected[1:]), ("<> 'm0'", [])):
        lab.primary.execute(
            "UPDATE messages SET content = 'x', sentiment_score = NULL, timestamp = ?, "
            f"metadata = NULL WHERE message_id {which}",
            [at(4)],
        )
        assert lab.sync().quarantined == {}
        assert lab.sql(query).fetchall() == left
    assert_equal_stores(lab)


def test_integers_and_truth_values_that_are_none_are_set_aside(lab):
    """A fraction, a text, a 2."""
    for profile, version in (("a", 1.5), ("b", "x"), ("c", 3)):
        lab.primary.execute(
            "INSERT INTO personality_profiles (profile_id, version, traits, active_from) "
            "VALUES (?, ?, '{}', ?)",
            [profile, version, at(0)],
        )
    for device, trusted in (("a", 0), ("b", 1), ("c", 2)):
        lab.primary.execute(
            "INSERT INTO devices (device_id, name, public_key, trusted, added_at) "
            "VALUES (?, 'n', 'k', ?, ?)",
            [device, trusted, at(0)],
        )
    assert lab.sync().quarantined == {"personality_profiles": 2, "devices": 1}
    assert lab.sql("SELECT device_id, trusted FROM raw.devices ORDER BY 1").fetchall() == [
        ("a", False),
        ("b", True),
    ]


@pytest.mark.slow
def test_text_with_a_nul_that_another_program_wrote_arrives_whole(lab):
    """The driver alone would cut it."""
    add(lab.primary, message(0))
    lab.primary.execute("UPDATE messages SET content = 'a' || char(0) || 'b'")
    lab.sync()
    assert lab.sql("SELECT content FROM raw.messages").fetchone() == ("a\0b",)


@pytest.mark.slow
def test_a_foreign_program_that_replaces_rows_leaves_no_doubles(lab):
    """Without recursive triggers its REPLACE logs nothing but an insertion."""
    add(lab.primary, message(0), message(1))
    lab.sync()
    lab.primary.execute("PRAGMA recursive_triggers = OFF")
    lab.primary.execute(
        "REPLACE INTO messages (id, message_id, channel_id, conversation_id, role, content, "
        "timestamp) VALUES (1, 'm0', 'c', 'c', 'user', 'new', ?)",
        [at(9)],
    )
    lab.sync()
    assert_equal_stores(lab)


@pytest.mark.slow
def test_the_documents_query_runs_as_printed_and_equals_an_independent_computation(lab):
    """On messages of the last days; the answer's p95 is approximate by its own definition."""
    days = 40
    add(lab.primary, *map(message, range(2000)))
    lab.primary.execute(
        "UPDATE messages SET timestamp = strftime('%Y-%m-%dT%H:%M:%f', 'now', "
        "'-' || (id % ?) || ' days', '-' || id || ' seconds') || '000Z', response_time = id % 97",
        [days],
    )
    lab.sync()
    answer = lab.sql(DOCUMENT_QUERY).fetchall()
    expected = lab.primary.fetch_all(
        "SELECT substr(timestamp, 1, 10), count(*), avg(sentiment_score) FROM messages "
        "WHERE timestamp > strftime('%Y-%m-%dT%H:%M:%f', 'now', '-30 days') || '000Z' "
        "GROUP BY 1 ORDER BY 1 DESC"
    )
    assert [(str(row[0])[:10], row[1]) for row in answer] == [row[:2] for row in expected]
    assert [row[2] for row in answer] == pytest.approx([row[2] for row in expected])
    full_days = [row for row in answer if row[1] >= 40]  # the first and last may be parts of days
    assert len(full_days) >= 28
    assert all(85 <= row[3] <= 96 for row in full_days)
    assert len(answer) >= 30


@pytest.mark.slow
def test_response_times_are_those_recorded_else_since_the_other_sides_last_message(lab):
    """Own messages in a row, system messages, ties and another conversation between."""
    add(
        lab.primary,
        message(0, role="user", timestamp=at(0)),
        message(1, role="user", timestamp=at(5)),
        message(2, role="system", timestamp=at(6)),
        message(3, role="assistant", timestamp=at(8)),
        message(4, role="assistant", timestamp=at(9)),
        message(5, role="user", timestamp=at(9)),
        message(6, role="assistant", timestamp=at(10), response_time=0.25),
        message(7, role="user", timestamp=at(11), conversation_id="d"),
    )
    lab.sync()
    found = lab.sql("SELECT message_id, response_time FROM conversations ORDER BY 1").fetchall()
    assert [time for _, time in found] == [None, None, None, 3.0, None, 0.0, 0.25, None]


def test_both_databases_show_the_same_view(lab):
    """Under the source document's names."""
    add(lab.primary, *(message(i, response_time=float(i)) for i in range(40)))
    lab.sync()
    columns = "user_id, message, content, is_ai_response, sentiment, sentiment_score, response_time"
    here = lab.primary.fetch_all(f"SELECT {columns} FROM conversations ORDER BY message_id")
    there = lab.sql(f"SELECT {columns} FROM conversations ORDER BY message_id").fetchall()
    assert there == here


def test_date_sub_keeps_the_meaning_of_duckdbs_own(lab):
    """The macro has both forms."""
    lab.sync()
    row = lab.sql(
        "SELECT date_sub('month', DATE '2024-01-31', DATE '2024-03-30'), "
        "date_sub(TIMESTAMP '2024-03-30', INTERVAL 1 DAY)::VARCHAR"
    ).fetchone()
    assert row == (1, "2024-03-29 00:00:00")


@pytest.mark.slow
def test_a_reader_keeps_its_generation_and_a_new_question_sees_the_next(lab):
    """An open notebook blocks no sync and is not changed under its reader's eyes."""
    add(lab.primary, message(0))
    generation = lab.sync().generation
    before = lab.sql("SELECT count(*) FROM raw.messages")
    pinned = Lab.open(lab.home.path, generation=generation)
    for i in range(1, 3):
        add(lab.primary, message(i))
        lab.sync()
    assert before.fetchone() == (1,)
    assert lab.sql("SELECT count(*) FROM raw.messages").fetchone() == (3,)
    assert pinned.sql("SELECT count(*) FROM raw.messages").fetchone() == (1,)
    assert pinned.generation == generation
    add(lab.primary, message(3))
    lab.sync()
    kept = [generation, generation + 1, generation + 2, generation + 3]
    assert list(snapshots.published(lab.home.snapshots)) == kept
    assert pinned.sql("SELECT count(*) FROM raw.messages").fetchone() == (1,)
    assert pinned.generation == generation
    pinned.close()
    add(lab.primary, message(4))
    lab.sync()
    assert list(snapshots.published(lab.home.snapshots)) == [kept[2], kept[3], kept[3] + 1]
    late = Lab.open(lab.home.path, generation=generation)
    with pytest.raises(UnknownName, match="is not kept"):
        late.sql("SELECT 1")


@pytest.mark.slow
def test_an_answer_is_what_each_library_wants(lab):
    """Arrow, polars, pandas, tuples; times keep their zone."""
    add(lab.primary, message(0))
    lab.sync()
    relation = lab.sql("SELECT timestamp, sentiment_score, user_id FROM conversations")
    moment = datetime(2024, 3, 1, 12, tzinfo=UTC)
    assert relation.fetchall() == [(moment, -1.0, "u")]
    assert relation.pl().row(0) == (moment, -1.0, "u")
    assert relation.df()["timestamp"][0].to_pydatetime() == moment
    assert relation.arrow().read_all().to_pylist() == [
        {"timestamp": moment, "sentiment_score": -1.0, "user_id": "u"}
    ]


def test_a_snapshot_takes_no_changes(lab):
    """Nor does the query's mistake end in a traceback of DuckDB's."""
    with pytest.raises(NeverSynced, match="aico-lab sync"):
        lab.sql("SELECT 1")
    lab.sync()
    with pytest.raises(NotPermitted, match="read-only"):
        lab.sql("DELETE FROM raw.messages")
    for query in ("SELEC", "SELECT * FROM nowhere", "SELECT nothing FROM conversations"):
        with pytest.raises(InvalidStatement):
            lab.sql(query)
    lab.close()
    with pytest.raises(ConnectionIsClosed):
        lab.sql("SELECT 1")


def test_days_are_counted_in_the_zone_that_was_asked_for(lab):
    """Across a change to summer time."""
    add(lab.primary, message(0, timestamp="2024-03-30T23:30:00.000000Z"))
    lab.sync()
    query = "SELECT date_trunc('day', timestamp)::DATE::VARCHAR, hour(timestamp) FROM conversations"
    assert lab.sql(query).fetchone() == ("2024-03-30", 23)
    with Lab.open(lab.home.path, timezone="Europe/Berlin") as berlin:
        assert berlin.sql(query).fetchone() == ("2024-03-31", 0)
    with pytest.raises(InvalidValue, match="IANA"):
        Lab.open(lab.home.path, timezone="Mars/Olympus")


@pytest.mark.slow
def test_nothing_below_the_home_is_readable(lab):
    """Neither the databases, their logs, nor the snapshots."""
    secret = "the time I felt homesick"
    add(lab.primary, *map(message, range(3000)))
    lab.sync()
    add(lab.primary, *map(message, range(3000, 3100)))
    lab.sync()
    lab.primary.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert lab.sql(f"SELECT count(*) FROM conversations WHERE content LIKE '{secret}%'").fetchone()
    assert plain_text_files(lab.home.path, secret) == []


@pytest.mark.slow
def test_what_is_spilled_is_not_readable(lab):
    """DuckDB writes plain text into its temporary files unless told otherwise."""
    add(lab.primary, message(0))
    lab.sync()
    roomy = Lab.open(lab.home.path, external_access=True)  # else its settings are locked
    connection = roomy.storage.reader.connection()
    connection.execute("SET memory_limit = '60MB'; SET threads = 1")
    seen: list[bytes] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            for file in lab.home.temporary.rglob("*"):
                try:
                    seen.append(file.read_bytes()[: 1 << 22])
                except OSError:
                    continue
            time.sleep(0.01)

    watcher = threading.Thread(target=watch)
    watcher.start()
    connection.execute(
        "SELECT count(*) FROM (SELECT 'the time I felt homesick ' || range AS s FROM "
        "range(3_000_000) ORDER BY hash(range)) WHERE s <> ''"
    ).fetchall()
    connection.execute(
        "CREATE TEMP TABLE big AS SELECT 'the time I felt homesick ' || hash(range) AS s "
        "FROM range(2_000_000) ORDER BY hash(range)"
    )
    done.set()
    watcher.join()
    roomy.close()
    assert sum(map(len, seen)) > 1 << 20, "nothing was spilled: the test shows nothing"
    assert not any(b"homesick" in content for content in seen)


def test_a_snapshot_is_encrypted_for_everybody_else(lab):
    """DuckDB without the key cannot open it."""
    lab.sync()
    _, path = snapshots.find(lab.home.snapshots)
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(duckdb.Error):
        duckdb.connect(str(path), read_only=True)


@pytest.mark.slow
def test_an_unencrypted_home_works_the_same(homes, home):
    """For those who said so."""
    with homes.open(home, "none") as lab:
        add(lab.primary, *map(message, range(10)))
        lab.sync()
        assert_equal_stores(lab)


@pytest.mark.slow
def test_damaged_snapshots_and_warehouses_are_named_and_can_be_made_anew(lab):
    """A projection is never the last copy."""
    add(lab.primary, *map(message, range(3000)))
    lab.sync()
    _, path = snapshots.find(lab.home.snapshots)
    content = bytearray(path.read_bytes())
    path.write_bytes(content[: len(content) // 3])
    with (
        Lab.open(lab.home.path) as reader,
        pytest.raises(CorruptDatabase),
        translated("The snapshot"),
    ):
        reader.sql("SELECT sum(length(content)) FROM raw.messages").fetchone()
    path.write_bytes(b"no database at all " * 1000)
    with Lab.open(lab.home.path) as reader, pytest.raises((NotADatabase, CorruptDatabase)):
        reader.sql("SELECT 1")
    writer = lab.home.writer
    writer.write_bytes(b"no database at all " * 1000)
    add(lab.primary, message(3000))
    with pytest.raises((NotADatabase, CorruptDatabase)):
        lab.sync()
    writer.unlink()
    assert lab.sync().mode == "full"
    assert_equal_stores(lab)


@pytest.mark.slow
def test_a_source_that_was_exchanged_is_read_anew(lab, home):
    """A copy that was put back has other changes behind the same numbers, and is noticed."""
    add(lab.primary, *map(message, range(10)))
    lab.primary.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    backup = (home / "aico.db").read_bytes()
    add(lab.primary, message(10))
    lab.sync()
    lab.close()
    for suffix in ("-wal", "-shm"):
        (home / f"aico.db{suffix}").unlink(missing_ok=True)
    (home / "aico.db").write_bytes(backup)
    with Lab.open(home) as restored:
        with pytest.raises(CorruptDatabase, match=r"older than its seal \(the last change"):
            restored.sync()
        reseal(restored.storage, "the copy is wanted")
        add(restored.primary, message(11))
        assert restored.sync().mode == "full"
        assert_equal_stores(restored)


@pytest.mark.slow
def test_two_syncs_at_once_wait_for_each_other(lab, monkeypatch):
    """And one that waits too long says who is in the way."""
    add(lab.primary, message(0))
    monkeypatch.setattr(publishing, "LOCK_SECONDS", 0.1)
    lock = FileLock(lab.home.warehouse / "sync.lock")
    with lock, pytest.raises(SyncBusy, match="by another program: try again") as caught:
        lab.sync()
    assert caught.value.transient
    assert lab.sync().mode == "full"


@pytest.mark.slow
def test_a_new_column_reaches_the_warehouse_with_the_next_sync(lab):
    """Even where no row changed since."""
    add(lab.primary, message(0))
    lab.sync()
    lab.primary.execute("ALTER TABLE users ADD COLUMN nickname TEXT")
    assert lab.sync().mode == "increment"
    assert_equal_stores(lab)
    assert lab.sync().mode == "nothing"


@pytest.mark.slow
def test_an_error_in_the_middle_leaves_the_warehouse_as_it_was(lab, monkeypatch):
    """And the snapshot readable."""
    add(lab.primary, *map(message, range(10)))
    lab.sync()
    before = contents(lab)
    add(lab.primary, *map(message, range(10, 20)))
    with monkeypatch.context() as patch:
        patch.setattr(sync_module, "extract_changed", lambda *_a: iter([1 / 0]))
        with pytest.raises(ZeroDivisionError):
            lab.sync()
    assert contents(lab) == before
    assert lab.sync().mode == "increment"
    assert_equal_stores(lab)


@pytest.mark.slow
def test_a_crash_between_commit_and_publication_is_made_up_for(lab, monkeypatch):
    """The next sync has nothing to load, and publishes."""
    add(lab.primary, message(0))
    with monkeypatch.context() as patch:
        patch.setattr(snapshots, "publish", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            lab.sync()
    with pytest.raises(NeverSynced):
        lab.sql("SELECT 1")
    assert lab.sync().mode == "nothing"
    assert_equal_stores(lab)


@pytest.mark.slow
def test_the_log_is_pruned_after_a_sync(lab):
    """It does not grow without bound."""
    add(lab.primary, *map(message, range(1000)))
    lab.sync()
    assert lab.primary.fetch_one("SELECT count(*) FROM change_log") == (1,)


@pytest.mark.slow
def test_progress_is_told_in_rows(lab):
    """Up to the number of rows that there are."""
    add(lab.primary, *map(message, range(300)))
    told: list[tuple[str, int, int]] = []
    lab.sync(progress=lambda *what: told.append(what))
    assert ("messages", 300, 300) in told


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_rows(lab, monkeypatch):
    """What was inserted is let go at once, not with the transaction's end."""
    monkeypatch.setattr(portions, "ROW_GROUP", 5_000)
    monkeypatch.setattr(portions, "ROW_GROUPS", 1)
    add(lab.primary, *map(message, range(40_000)))
    held = []
    lab.sync(progress=lambda *_: held.append(pa.total_allocated_bytes()))
    assert len(held) >= 8
    assert max(held) < 2.5 * held[1]


@pytest.mark.slow
def test_long_texts_need_more_memory_and_get_it(lab):
    """DuckDB would fail with what it may use for short ones."""
    add(lab.primary, *[message(i, content=random.Random(i).randbytes(75_000).hex())
                       for i in range(400)])  # fmt: skip
    assert lab.sync().rows["messages"] == 400
    assert lab.verify().ok


def test_the_writers_folder_is_free_of_partial_files(lab):
    """A leftover of a killed publication goes with the next one."""
    folder = lab.home.snapshots
    folder.mkdir()
    (folder / ".00000009.duckdb.partial").write_bytes(b"half")
    (folder / "00000009.duckdb.wal").write_bytes(b"alone")
    lab.sync()
    assert {path.name.removesuffix(".wal") for path in folder.iterdir()} == {"00000001.duckdb"}


@pytest.mark.slow
def test_a_small_change_is_published_without_copying_the_warehouse(lab):
    """The file is linked, and its log copied, until the log is large; each reader sees its own."""
    add(lab.primary, *map(message, range(2_000)))
    lab.sync(full=True)
    readers, seen = [], []
    for number in range(12):
        new = range(2_000 + 80 * number, 2_080 + 80 * number)
        add(lab.primary, *[message(i, content="x" * 2_700) for i in new])
        lab.primary.execute("DELETE FROM messages WHERE id = ?", [number + 1])
        generation = lab.sync().generation
        readers.append(Lab.open(lab.home.path, generation=generation))
        seen.append(readers[-1].sql("SELECT count(*), max(id) FROM raw.messages").fetchone())
        newest = max(snapshots.published(lab.home.snapshots).values())
        log = snapshots.log(newest)
        assert not log.exists() or log.stat().st_size < 1.2 * warehouse.LARGEST_LOG
    assert seen == [(2_000 + 79 * n, 2_000 + 80 * n) for n in range(1, 13)]
    for reader, then in zip(readers, seen, strict=True):
        with reader:
            now = reader.sql("SELECT count(*), max(id) FROM raw.messages").fetchone()
        assert now == then
    assert_equal_stores(lab)
    files = [path.stat() for path in snapshots.published(lab.home.snapshots).values()]
    assert len({file.st_ino for file in files}) < len(files)


@pytest.mark.slow
def test_a_snapshot_that_is_removed_while_it_is_opened_is_not_read_without_its_log(
    lab, monkeypatch
):
    """The reader looks again, and finds the newest."""
    add(lab.primary, message(0))
    lab.sync()
    add(lab.primary, message(1))
    lab.sync()
    removed = []

    class Slow(DuckDBAdapter):
        def connect(self):
            if not removed:
                for generation in range(2):
                    add(lab.primary, message(2 + generation))
                    lab.sync()
                monkeypatch.setattr(snapshots, "KEPT", 1)
                add(lab.primary, message(9))
                lab.sync()
                removed.append(self.path)
                assert not self.path.exists()
            return super().connect()

    with Lab.open(lab.home.path) as reader:
        monkeypatch.setattr(reader_module, "DuckDBAdapter", Slow)
        assert reader.sql("SELECT count(*) FROM raw.messages").fetchone() == (5,)
    assert removed


@pytest.mark.slow
def test_a_closed_lab_holds_no_snapshot_open_not_even_one_that_was_superseded(lab):
    """An answer that lives on keeps its snapshot; the lab's end is the end of all of them."""
    add(lab.primary, message(0))
    lab.sync()
    older = lab.sql("SELECT count(*) FROM raw.messages")
    add(lab.primary, message(1))
    lab.sync()
    newer = lab.sql("SELECT count(*) FROM raw.messages")
    assert (older.fetchone(), newer.fetchone()) == ((1,), (2,))
    lab.close()
    for answer in (older, newer):
        with pytest.raises(ConnectionIsClosed):
            answer.execute()
    with pytest.raises(ConnectionIsClosed):
        lab.sql("SELECT 1")


def test_a_sync_with_nothing_to_do_opens_no_warehouse(lab, monkeypatch):
    """The note beside the snapshots says what the newest holds, and names no key of a row."""
    add(lab.primary, message(0))
    done = lab.sync()
    monkeypatch.setattr(publishing, "open_warehouse", lambda *_, **__: 1 / 0)
    assert lab.sync() == SyncResult("nothing", done.generation, seconds=ANY)
    note = (lab.home.warehouse / sync_module.NOTE).read_text()
    assert re.fullmatch(r"1 [0-9a-f]{64}", note)
    with pytest.raises(ZeroDivisionError):
        lab.sync(full=True)
    lab.primary.execute("UPDATE messages SET content = 'new'")
    with pytest.raises(ZeroDivisionError):
        lab.sync()


@pytest.mark.slow
def test_without_the_note_the_warehouse_is_asked(lab):
    """It is only a note: it can be lost, or be that of another snapshot."""
    add(lab.primary, message(0))
    lab.sync()
    note = lab.home.warehouse / sync_module.NOTE
    right = note.read_text()
    for content in ("", "7 " + right[2:], "1 " + "0" * 64):
        note.write_text(content)
        assert lab.sync().mode == "nothing"
        assert note.read_text() == right
    note.unlink()
    assert lab.sync().mode == "nothing"
    assert note.read_text() == right


@pytest.mark.slow
def test_views_of_another_version_of_the_package_are_made_anew(lab, monkeypatch):
    """Though no row has changed."""
    add(lab.primary, message(0))
    first = lab.sync()
    changed = views.CONVERSATIONS.replace("message_id, conv", "1 AS one, message_id, conv")
    monkeypatch.setattr(views, "VIEWS", (changed,))
    second = lab.sync()
    assert (second.mode, second.generation) == ("increment", first.generation + 1)
    assert lab.sql("SELECT one FROM conversations").fetchone() == (1,)
    assert lab.sync().mode == "nothing"


def test_what_else_another_version_of_the_package_defines_is_published(lab, monkeypatch):
    """Though the views are the same, and no row has changed."""
    lab.sync()
    fresh = "CREATE OR REPLACE MACRO seven() AS 7"
    monkeypatch.setattr(views, "DEFINITIONS", (*views.DEFINITIONS, fresh))
    assert lab.sync().mode == "increment"
    assert lab.sql("SELECT seven()").fetchone() == (7,)
    assert lab.sync().mode == "nothing"


@pytest.mark.slow
def test_to_open_the_warehouse_writes_nothing_into_its_log(lab):
    """Else a sync that only looks would make it longer each time."""
    add(lab.primary, message(0))
    lab.sync()
    add(lab.primary, message(1))
    lab.sync()
    log = snapshots.log(lab.home.writer)
    before = log.read_bytes()
    (lab.home.warehouse / sync_module.NOTE).unlink()
    assert lab.sync().mode == "nothing"
    assert log.read_bytes() == before


@pytest.mark.slow
def test_any_changes_between_two_syncs_are_followed(lab):
    """New rows, other values, keys that change places, row ids given again, replaced rows."""
    chance = random.Random(5)
    add(lab.primary, *map(message, range(200)))
    lab.sync()
    statements = (
        "UPDATE messages SET content = ?1 WHERE id % 7 = ?2 % 7",
        "DELETE FROM messages WHERE id % 31 = ?2 % 31 AND ?1 <> ''",
        "UPDATE messages SET message_id = message_id || ?1 WHERE id % 29 = ?2 % 29",
        "UPDATE messages SET id = id + 10000 WHERE id % 23 = ?2 % 23 AND ?1 <> ''",
        "UPDATE messages SET id = id - 10000 WHERE id > 10000 AND id % 3 = ?2 % 3 AND ?1 <> ''",
        """INSERT OR REPLACE INTO messages (id, message_id, channel_id, conversation_id, user_id,
            role, content, timestamp) SELECT id + 1, message_id, channel_id, conversation_id,
            user_id, role, ?1, timestamp FROM messages WHERE id % 37 = ?2 % 37""",
        "UPDATE messages SET sentiment_score = iif(id % 2, 'x' || ?1, 0.5) WHERE id % 41 = ?2 % 41",
    )
    done = set()
    for round_ in range(12):
        for _ in range(chance.randrange(1, 5)):
            statement = chance.choice(statements)
            with contextlib.suppress(ConstraintViolated):  # two rows with one id
                lab.primary.execute(statement, [f"-{round_}", chance.randrange(1_000)])
                done.add(statement)
        add(lab.primary, *[message(1_000 + 10 * round_ + i) for i in range(chance.randrange(4))])
        lab.sync()
        proof = lab.verify()
        assert proof.ok, proof
    assert done == set(statements)


@pytest.mark.slow
def test_the_log_that_everybody_has_read_is_emptied_but_for_its_last_change(lab):
    """As it stood, though its key be no text; and the numbers go on."""
    add(lab.primary, *map(message, range(50)))
    lab.primary.execute("UPDATE messages SET message_id = CAST(x'ff' AS TEXT) WHERE id = 7")
    last = "SELECT seq, table_name, hex(row_key), typeof(row_key), op, at FROM change_log"
    before = lab.primary.fetch_all(f"{last} ORDER BY seq")[-1]
    lab.sync()
    assert lab.primary.fetch_all(last) == [before]
    assert lab.sync().mode == "nothing"
    lab.primary.execute("UPDATE messages SET content = 'new' WHERE id = 1")
    assert lab.primary.fetch_all(f"{last} ORDER BY seq")[-1][0] == before[0] + 1
    assert lab.sync().mode == "increment"


def test_a_consumer_of_the_feed_never_goes_back(lab):
    """A late acknowledgement of earlier changes, as of a slower process, takes nothing back."""
    add(lab.primary, message(0))
    for seq in (3, 1):
        feed.acknowledge(lab.primary, "slow", seq)
    acknowledged = "SELECT acknowledged FROM feed_consumers WHERE consumer = 'slow'"
    assert lab.primary.fetch_all(acknowledged) == [(3,)]
