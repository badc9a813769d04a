"""The libSQL adapter: every defect of the driver, provoked, and its workaround."""

from __future__ import annotations

import enum
import math
import os
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING

import libsql_experimental
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aico_lab.adapters import libsql
from aico_lab.adapters.libsql import LibSQLAdapter
from aico_lab.adapters.libsql_errors import translate
from aico_lab.errors import (
    ConnectionIsClosed,
    ConstraintViolated,
    CorruptDatabase,
    DatabaseLocked,
    DiskFull,
    HomeMissing,
    InvalidStatement,
    NotADatabase,
    NotPermitted,
    StorageError,
    UnstorableValue,
)
from tests.conftest import plain_text_files
from tests.effort import examples

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY = "k" * 32


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[libsql.Connection]:
    with LibSQLAdapter(tmp_path / "a.db", KEY).connect() as opened:
        opened.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, i INTEGER, a, s TEXT UNIQUE)")
        yield opened


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[libsql.Connection]:
    with LibSQLAdapter(tmp_path_factory.mktemp("m") / "a.db", KEY).connect() as opened:
        opened.execute("CREATE TABLE v (i INTEGER, a, r REAL, s TEXT, b BLOB)")
        yield opened


INT64 = st.integers(-(2**63), 2**63 - 1) | st.sampled_from(
    [2**31 - 1, 2**31, -(2**31), -(2**31) - 1, 2**53, 2**53 + 1, 2**63 - 1, -(2**63)]
)
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@pytest.mark.slow
@given(INT64, TEXT, st.floats(allow_nan=False), st.binary())
@settings(max_examples=examples(300))
def test_every_value_comes_back_as_it_went_in(memory, integer, text, real, blob):
    """int64, text, REAL and BLOB survive a column with affinity, one without, and none at all."""
    memory.execute("DELETE FROM v")
    memory.execute("INSERT INTO v VALUES (?, ?, ?, ?, ?)", [integer, integer, real, text, blob])
    row = memory.fetch_one("SELECT i, typeof(i), a, typeof(a), r, s, b FROM v")
    assert row == (integer, "integer", integer, "integer", real, text, blob)
    assert memory.fetch_one("SELECT ?, typeof(?)", [integer, integer]) == (integer, "integer")
    assert memory.fetch_one("SELECT count(*) FROM v WHERE i = ? AND a = ?", [integer, integer]) == (
        1,
    )


@given(st.lists(st.tuples(INT64, st.none() | INT64 | TEXT | st.floats(allow_nan=False))))
@settings(max_examples=examples(100))
def test_many_rows_of_mixed_types_come_back_in_order(memory, rows):
    """A wide integer in one row does not change text in the same column of the next row."""
    memory.execute("DELETE FROM v")
    memory.execute_many("INSERT INTO v (i, a) VALUES (?, ?)", rows)
    stored = memory.fetch_all("SELECT i, a FROM v ORDER BY rowid")
    assert stored == rows
    assert [type(a) for _, a in stored] == [type(a) for _, a in rows]


def test_the_driver_still_changes_wide_integers_silently(tmp_path):
    """When this fails, the driver was fixed, and the casts can be removed."""
    raw = libsql_experimental.connect(str(tmp_path / "raw.db"))
    assert raw.execute("SELECT ?", (1234567890123456789,)).fetchone() == (1234567890123456768.0,)
    raw.close()


def test_placeholders_in_strings_names_and_comments_are_not_counted(connection):
    """Only real placeholders are cast."""
    wide = 2**62 + 1
    row = connection.fetch_one(
        """SELECT '?', "i?" /* ? */, ? -- ?
           , [j?], `k?`, 'it''s ?' FROM (SELECT 1 AS "i?", 2 AS [j?], 3 AS `k?`)""",
        [wide],
    )
    assert row == ("?", 1, wide, 2, 3, "it's ?")


TOO_LATE = datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-2)))


@pytest.mark.parametrize(
    "value",
    ["a\0b", "\ud800", math.nan, 2**63, -(2**63) - 1, object(), {"a": 1}, TOO_LATE, pd.NaT],
    ids=["NUL", "surrogate", "NaN", "2^63", "-2^63-1", "object", "dict", "year 10000", "NaT"],
)
def test_a_value_that_the_driver_would_lose_is_refused(connection, value):
    """Nothing is stored, and the error says why."""
    with pytest.raises(UnstorableValue, match=r"cannot be stored.*[.]$"):
        connection.execute("INSERT INTO t (a) VALUES (?)", [value])
    with pytest.raises(UnstorableValue), connection.transaction():
        connection.execute_many("INSERT INTO t (a) VALUES (?)", [[1], [value]])
    assert connection.fetch_one("SELECT count(*) FROM t") == (0,)


def test_a_datetime_is_stored_as_utc_of_fixed_width(connection):
    """So text order is time order; a naive datetime is local time."""
    berlin = datetime(2024, 3, 31, 3, 30, 0, 5, tzinfo=timezone(timedelta(hours=2)))
    local = datetime(2024, 1, 1, 12)  # noqa: DTZ001 - the case
    early = datetime(33, 4, 3, 15, tzinfo=UTC)
    stored = [connection.fetch_one("SELECT ?", [value])[0] for value in (berlin, local, early)]
    assert stored == [
        "2024-03-31T01:30:00.000005Z",
        local.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "0033-04-03T15:00:00.000000Z",
    ]


def test_a_timestamp_of_pandas_is_a_datetime(connection):
    """Nanoseconds are cut off; a naive timestamp is local time."""
    values = [pd.Timestamp("2024-03-31T03:30:00.000005009", tz="Europe/Berlin")]
    values.append(pd.Timestamp("2024-01-01T12:00:00"))
    stored = [connection.fetch_one("SELECT ?", [value])[0] for value in values]
    local = datetime(2024, 1, 1, 12).astimezone(UTC)
    assert stored == ["2024-03-31T01:30:00.000005Z", local.strftime("%Y-%m-%dT%H:%M:%S.%fZ")]


def test_enumerations_booleans_and_buffers_are_stored_for_what_they_are(connection):
    """A StrEnum is text, an IntEnum an integer, a bytearray a blob."""

    class Word(enum.StrEnum):
        YES = "yes"

    values = [Word.YES, enum.IntEnum("N", "A B").B, True, bytearray(b"x"), memoryview(b"y")]
    stored = [connection.fetch_one("SELECT ?", [value])[0] for value in values]
    assert stored == ["yes", 2, 1, b"x", b"y"]


ERRORS = [
    ("INSERT INTO t (id) VALUES (1)", ConstraintViolated),
    ("INSERT INTO t (s) VALUES ('x')", ConstraintViolated),
    ("SELEC 1", InvalidStatement),
    ("SELECT * FROM nowhere", InvalidStatement),
    ("SELECT nothing FROM t", InvalidStatement),
    ("SELECT nofunction(1)", InvalidStatement),
    ("INSERT INTO t (nothing) VALUES (1)", InvalidStatement),
    ("INSERT INTO t VALUES (1, 2)", InvalidStatement),
    ("CREATE TABLE t (id)", InvalidStatement),
    ("SELECT (1", InvalidStatement),
    ("SELECT fullname FROM t", InvalidStatement),
    ("SELECT * FROM nofull", InvalidStatement),
    ("SELECT malformed FROM t", InvalidStatement),
    ('SELEC "database is locked"', InvalidStatement),
    ("SELECT json('{')", InvalidStatement),
    ("SELECT 'open", InvalidStatement),
]


@pytest.mark.parametrize(("sql", "kind"), ERRORS, ids=[sql for sql, _ in ERRORS])
def test_each_error_of_the_driver_has_a_class(connection, sql, kind):
    """The driver raises a bare ValueError for all of these."""
    connection.execute("INSERT INTO t (id, s) VALUES (1, 'x')")
    with pytest.raises(kind) as caught:
        connection.fetch_all(sql)
    assert isinstance(caught.value.__cause__, ValueError)
    assert str(caught.value).startswith("a.db ")


@pytest.mark.parametrize("values", [[], [1], [1, 2, 3]])
def test_a_wrong_number_of_parameters_is_refused(connection, values):
    """The driver would bind NULL for a missing value, and ignore excess values."""
    with pytest.raises(InvalidStatement, match="for a statement with 2 parameters"):
        connection.fetch_all("SELECT ?, ?", values)
    with pytest.raises(InvalidStatement), connection.transaction():
        connection.execute_many("INSERT INTO t (i, a) VALUES (?, ?)", [[1, 2], values])
    assert connection.fetch_one("SELECT count(*) FROM t") == (0,)


def test_numbered_parameters_are_bound_by_their_number(connection):
    """Also for wide integers."""
    wide = 2**62 + 1
    assert connection.fetch_one("SELECT ?2, ?1, ?2, ?", [1, wide, 3]) == (wide, 1, wide, 3)


TWO = [
    "INSERT INTO t (a) VALUES (1); DELETE FROM t",
    "INSERT INTO t (a) VALUES (1); -- and\n DELETE FROM t",
    "; INSERT INTO t (a) VALUES (1)",
    "CREATE TRIGGER x AFTER DELETE ON t BEGIN DELETE FROM t; END; DELETE FROM t",
    "/* first */ CREATE TEMP TRIGGER x AFTER DELETE ON t BEGIN SELECT 1; END; SELECT 2",
]


@pytest.mark.parametrize("sql", TWO)
def test_a_text_of_two_statements_is_refused(connection, sql):
    """The driver would run the first statement and ignore the second."""
    for use in (connection.execute, connection.fetch_all):
        with pytest.raises(InvalidStatement, match="run one at a time"):
            use(sql)
    with pytest.raises(InvalidStatement, match="run one at a time"):
        connection.execute_many(sql, [()])
    assert connection.fetch_one("SELECT count(*) FROM t") == (0,)


ONE = [
    "INSERT INTO t (a) VALUES ('a;b') ; ",
    "INSERT INTO t (a) VALUES (1); -- done; really\n;",
    'INSERT INTO t (a) SELECT 1 AS "a;b" /* ; */ ;/* no end ;',
    "INSERT INTO t (a) SELECT 1 AS [;] UNION ALL SELECT 2 AS `;`",
]


@pytest.mark.parametrize("sql", ONE)
def test_a_semicolon_that_ends_nothing_may_stand_in_a_statement(connection, sql):
    """In a string, a name or a comment, and at the end of the text."""
    connection.execute(sql)
    assert connection.fetch_one("SELECT count(*) > 0 FROM t") == (1,)


def test_the_body_of_a_trigger_has_semicolons_and_ends(connection):
    """The statement ends at the END after the last semicolon."""
    connection.execute(
        """CREATE TRIGGER x AFTER INSERT ON t WHEN NEW.a = 1 BEGIN
            UPDATE t SET a = CASE WHEN a = 1 THEN 2 END /* ; END; */ WHERE id = NEW.id;
            INSERT INTO t (a) VALUES ('; END;');
        END;"""
    )
    connection.execute("INSERT INTO t (a) VALUES (1)")
    assert connection.fetch_all("SELECT a FROM t") == [(2,), ("; END;",)]


@pytest.mark.parametrize("name", [":v", "@v", "$v"])
def test_a_parameter_with_a_name_is_refused(connection, name):
    """The driver would bind NULL."""
    with pytest.raises(InvalidStatement, match=r"use [?] for each value"):
        connection.execute(f"INSERT INTO t (a) VALUES ({name})")
    assert connection.fetch_one("SELECT count(*) FROM t") == (0,)
    row = connection.fetch_one(f"SELECT '{name}', i$v -- {name}\n FROM (SELECT 1 AS i$v)")
    assert row == (name, 1)


def test_a_closed_connection_says_so(connection):
    """The driver panics with a BaseException and prints a backtrace."""
    connection.close()
    connection.close()
    for use in (connection.execute, connection.fetch_all, connection.fetch_one):
        with pytest.raises(ConnectionIsClosed):
            use("SELECT 1")
    with pytest.raises(ConnectionIsClosed):
        connection.execute_many("INSERT INTO t (a) VALUES (?)", [[1]])


def test_text_that_is_not_utf_8_is_an_error_and_the_connection_lives_on(connection, capfd):
    """The driver panics on the text; as a blob it can be read."""
    connection.execute("INSERT INTO t (s) VALUES (CAST(x'ff41' AS TEXT))")
    with pytest.raises(CorruptDatabase):
        connection.fetch_all("SELECT s FROM t")
    assert "panicked" in capfd.readouterr().err
    assert connection.fetch_all("SELECT CAST(s AS BLOB) FROM t") == [(b"\xffA",)]


def test_text_with_a_nul_is_cut_by_the_driver_and_whole_as_a_blob(connection):
    """Therefore the extraction reads text as blobs."""
    connection.execute("INSERT INTO t (s) VALUES ('a' || char(0) || 'b')")
    assert connection.fetch_one("SELECT s, CAST(s AS BLOB) FROM t") == ("a", b"a\0b")


@pytest.mark.usefixtures("connection")
def test_wrong_keys_and_other_files_are_no_database(tmp_path):
    """A wrong key, no key, a text file, an empty key's file, a folder, no file."""
    for key in ("j" * 32, None):
        with pytest.raises(NotADatabase, match="is not a database, or has another key"):
            LibSQLAdapter(tmp_path / "a.db", key, create=False).connect()
    (tmp_path / "text.db").write_text("hello " * 1000)
    with pytest.raises(NotADatabase):
        LibSQLAdapter(tmp_path / "text.db", KEY, create=False).connect()
    with pytest.raises(HomeMissing):
        LibSQLAdapter(tmp_path / "none.db", KEY, create=False).connect()
    assert not (tmp_path / "none.db").exists()
    with pytest.raises(StorageError):
        LibSQLAdapter(tmp_path, KEY, create=False).connect()


def test_a_truncated_file_is_an_error(tmp_path, connection):
    """Part of a database is not opened as a smaller one."""
    rows = [[f"{i:>500}"] for i in range(2000)]
    connection.execute_many("INSERT INTO t (s) VALUES (?)", rows)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    file = tmp_path / "a.db"
    os.truncate(file, file.stat().st_size // 2)
    with pytest.raises((CorruptDatabase, NotADatabase)):
        LibSQLAdapter(file, KEY, create=False).connect().fetch_all("SELECT sum(length(s)) FROM t")


def test_only_the_first_32_bytes_of_a_key_count(tmp_path):
    """When this fails, the driver was fixed, and longer keys can be derived."""
    LibSQLAdapter(tmp_path / "k.db", KEY).connect().close()
    with LibSQLAdapter(tmp_path / "k.db", KEY + "x", create=False).connect() as opened:
        assert opened.fetch_one("SELECT count(*) FROM sqlite_master") == (0,)


def test_neither_file_nor_log_holds_plain_text(tmp_path, connection):
    """SQLite's temporary storage does not create a file either."""
    secret = "the time I felt homesick"
    connection.execute_many("INSERT INTO t (s) VALUES (?)", [[f"{secret} {i}"] for i in range(999)])
    connection.fetch_all("SELECT s FROM t ORDER BY substr(s, 5), s DESC")
    assert (tmp_path / "a.db-wal").stat().st_size
    assert plain_text_files(tmp_path, secret) == []
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert plain_text_files(tmp_path, secret) == []
    assert not (tmp_path / "a.db").read_bytes().startswith(b"SQLite format 3\0")
    assert (tmp_path / "a.db").stat().st_mode & 0o777 == 0o600


def test_connections_are_set_up(connection):
    """WAL, foreign keys, a busy timeout, and temporary tables in memory."""
    asked = ("journal_mode", "foreign_keys", "busy_timeout", "temp_store", "recursive_triggers")
    found = {name: connection.fetch_one(f"PRAGMA {name}")[0] for name in asked}
    assert found == {
        "journal_mode": "wal",
        "foreign_keys": 1,
        "busy_timeout": libsql.SQLITE_BUSY_MS,
        "temp_store": 2,
        "recursive_triggers": 1,
    }


def test_a_transaction_commits_whole_or_not_at_all(tmp_path, connection):
    """As seen by a second connection."""
    with LibSQLAdapter(tmp_path / "a.db", KEY, create=False).connect() as other:
        count = lambda: other.fetch_one("SELECT count(*) FROM t")[0]  # noqa: E731
        with connection.transaction():
            connection.execute("INSERT INTO t (a) VALUES (1)")
            assert count() == 0
        assert count() == 1
        with pytest.raises(ZeroDivisionError), connection.transaction():
            connection.execute("REPLACE INTO t (id, a) VALUES (1, 2)")
            connection.execute("/* c */ INSERT INTO t (a) VALUES (3)")
            connection.execute("WITH w AS (SELECT 4) INSERT INTO t (a) SELECT * FROM w")
            1 / 0  # noqa: B018
        assert other.fetch_all("SELECT a FROM t") == [(1,)]


def test_transactions_nest_as_savepoints(connection):
    """A failure of the inner level undoes only that level."""
    with connection.transaction():
        connection.execute("INSERT INTO t (a) VALUES (1)")
        with pytest.raises(ConstraintViolated), connection.transaction():
            connection.execute("INSERT INTO t (a) VALUES (2)")
            connection.execute("INSERT INTO t (id) VALUES (1)")
        with connection.transaction():
            connection.execute("INSERT INTO t (a) VALUES (3)")
    assert connection.fetch_all("SELECT a FROM t") == [(1,), (3,)]


UNDOING = {
    "a full disk": ("INSERT INTO t (a) VALUES (zeroblob(9000000))", DiskFull),
    "OR ROLLBACK": ("INSERT OR ROLLBACK INTO t (id) VALUES (1)", ConstraintViolated),
    "RAISE": ("DELETE FROM t", StorageError),
}


@pytest.mark.parametrize(("sql", "kind"), UNDOING.values(), ids=UNDOING)
def test_nothing_is_kept_of_a_transaction_that_the_database_itself_undid(
    tmp_path, connection, sql, kind
):
    """Otherwise each later statement would commit by itself."""
    connection.execute(
        "CREATE TRIGGER x BEFORE DELETE ON t BEGIN SELECT RAISE(ROLLBACK, 'never'); END"
    )
    connection.fetch_all("PRAGMA max_page_count = 50")

    def everything() -> None:
        with connection.transaction():
            connection.execute("INSERT INTO t (id) VALUES (1)")
            with pytest.raises(kind), connection.transaction():
                connection.execute(sql)
            for use in (
                lambda: connection.execute("INSERT INTO t (id) VALUES (2)"),
                lambda: connection.execute_many("INSERT INTO t (id) VALUES (?)", [[3]]),
                lambda: connection.fetch_all("INSERT INTO t (id) VALUES (4) RETURNING id"),
            ):
                with pytest.raises(StorageError, match="rolled back the transaction"):
                    use()

    with pytest.raises(StorageError, match="rolled back the transaction"):
        everything()
    with LibSQLAdapter(tmp_path / "a.db", KEY).connect() as other:
        assert other.fetch_all("SELECT id FROM t") == []
        connection.execute("INSERT INTO t (id) VALUES (5)")
        assert other.fetch_all("SELECT id FROM t") == [(5,)]


def test_a_snapshot_refuses_to_write(connection):
    """Otherwise the write would be lost silently."""
    insert = "WITH w AS (SELECT 4) INSERT INTO t (a) SELECT * FROM w"
    with connection.snapshot():
        for use in (
            lambda: connection.execute(insert),
            lambda: connection.fetch_all(f"{insert} RETURNING a"),
            lambda: connection.execute_many("INSERT INTO t (a) VALUES (?)", [[1]]),
            lambda: connection.transaction().__enter__(),
        ):
            with pytest.raises(InvalidStatement, match="A snapshot is read-only"):
                use()
        delete = "WITH w AS (SELECT 'delete' AS op) SELECT replace(op, 'e', '') FROM w"
        assert connection.fetch_one(delete) == ("dlt",)
    connection.execute(insert)
    assert connection.fetch_all("SELECT a FROM t") == [(4,)]


def test_a_database_that_was_not_finished_when_it_was_made_is_finished(tmp_path):
    """Without WAL, a snapshot would block every writer."""
    raw = libsql_experimental.connect(str(tmp_path / "b.db"), encryption_key=KEY)
    raw.execute("CREATE TABLE t (a)")
    raw.close()
    adapter = LibSQLAdapter(tmp_path / "b.db", KEY, busy_timeout=0.2)
    with adapter.connect() as reader, adapter.connect() as writer:
        with reader.snapshot():
            writer.execute("INSERT INTO t VALUES (1)")
            assert reader.fetch_all("SELECT a FROM t") == []
        assert reader.fetch_all("SELECT a FROM t") == [(1,)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_is_told_to_open_a_connection_of_its_own(tmp_path, connection):
    """SQLite's locks belong to the process that took them."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with pytest.raises(ConnectionIsClosed, match="open another one"):
                connection.execute("INSERT INTO t (a) VALUES (1)")
            connection.close()
            with LibSQLAdapter(tmp_path / "a.db", KEY).connect() as own:
                own.execute("INSERT INTO t (a) VALUES (2)")
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert connection.fetch_all("SELECT a FROM t") == [(2,)]


def test_a_snapshot_sees_one_state_and_blocks_no_writer(tmp_path, connection):
    """A write of another connection is visible only after the snapshot."""
    with (
        LibSQLAdapter(tmp_path / "a.db", KEY, create=False).connect() as other,
        connection.snapshot(),
    ):
        assert connection.fetch_one("SELECT count(*) FROM t") == (0,)
        other.execute("INSERT INTO t (a) VALUES (1)")
        assert connection.fetch_one("SELECT count(*) FROM t") == (0,)
    assert connection.fetch_one("SELECT count(*) FROM t") == (1,)


def test_a_locked_database_is_waited_for_and_then_named(tmp_path, connection):
    """A short lock is waited out; a long one raises a transient error."""
    other = LibSQLAdapter(tmp_path / "a.db", KEY, busy_timeout=0.05, create=False).connect()
    with connection.transaction():
        connection.execute("INSERT INTO t (a) VALUES (1)")
        with pytest.raises(DatabaseLocked, match="try again") as caught:
            other.execute("INSERT INTO t (a) VALUES (2)")
        assert caught.value.transient
    other.close()


HOLD = """
import sys, time
from pathlib import Path
from aico_lab.adapters.libsql import LibSQLAdapter
adapter = LibSQLAdapter(Path(sys.argv[1]), "k" * 32)
with adapter.connect() as connection, connection.transaction():
    connection.execute("INSERT INTO t (a) VALUES (1)")
    print("held", flush=True)
    time.sleep(0.5)
"""


def test_threads_of_one_process_wait_for_each_other(tmp_path, connection):
    """SQLite's own waiting holds the interpreter lock, so the holder could not release it."""
    held = threading.Event()

    def hold() -> None:
        with LibSQLAdapter(tmp_path / "a.db", KEY).connect() as other, other.transaction():
            other.execute("INSERT INTO t (a) VALUES (1)")
            held.set()
            time.sleep(0.3)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    started = time.perf_counter()
    connection.execute("INSERT INTO t (a) VALUES (2)")
    assert 0.1 < time.perf_counter() - started < 20  # SQLite would wait for 30 s
    thread.join()
    assert connection.fetch_one("SELECT count(*) FROM t") == (2,)


@pytest.mark.slow
def test_a_short_lock_of_another_process_is_waited_out(tmp_path, connection):
    """By the busy timeout, which the driver leaves at 0."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "a.db")], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        connection.execute("INSERT INTO t (a) VALUES (2)")
    assert connection.fetch_one("SELECT count(*) FROM t") == (2,)


def test_a_connection_may_move_between_threads(connection):
    """One thread at a time."""
    thread = threading.Thread(target=connection.execute, args=("INSERT INTO t (a) VALUES (1)",))
    thread.start()
    thread.join()
    assert connection.fetch_one("SELECT count(*) FROM t") == (1,)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everything")
def test_a_file_that_may_not_be_written_says_so(tmp_path, connection):
    """NotPermitted is raised."""
    connection.close()
    (tmp_path / "a.db").chmod(0o400)
    with pytest.raises(NotPermitted):
        LibSQLAdapter(tmp_path / "a.db", KEY, create=False).connect().execute(
            "INSERT INTO t (a) VALUES (1)"
        )


def test_foreign_keys_are_enforced_and_replaced_rows_fire_their_triggers(connection):
    """Both are off in SQLite by default."""
    connection.execute("CREATE TABLE child (t INTEGER REFERENCES t)")
    with pytest.raises(ConstraintViolated):
        connection.execute("INSERT INTO child VALUES (99)")
    connection.execute("CREATE TABLE gone (id)")
    connection.execute(
        "CREATE TRIGGER log AFTER DELETE ON t BEGIN INSERT INTO gone VALUES (OLD.id); END"
    )
    connection.execute("INSERT INTO t (id, s) VALUES (1, 'x')")
    connection.execute("INSERT OR REPLACE INTO t (id, s) VALUES (2, 'x')")
    assert connection.fetch_all("SELECT id FROM gone") == [(1,)]


@given(st.lists(st.tuples(INT64, st.none() | INT64 | TEXT), max_size=220))
@settings(max_examples=examples(50))
def test_many_rows_in_few_statements_are_the_same_rows(memory, rows):
    """In order, with wide integers in any column, and atomically."""
    memory.execute("DELETE FROM v")
    memory.insert_many("v", ["i", "a"], rows)
    assert memory.fetch_all("SELECT i, a FROM v ORDER BY rowid") == rows
    with pytest.raises(UnstorableValue):
        memory.insert_many("v", ["i", "a"], [*rows, (1, "a\0b")])
    with pytest.raises(InvalidStatement):
        memory.insert_many("v", ["i", "a"], [*rows, (1,)])
    assert memory.fetch_one("SELECT count(*) FROM v") == (len(rows),)


def test_a_block_of_many_rows_gives_its_memory_back(connection):
    """Also if the block fails, or the connection is closed in it."""
    settings = [f"PRAGMA {name}" for name in ("cache_size", "wal_autocheckpoint")]
    before = [connection.fetch_one(setting) for setting in settings]
    with pytest.raises(KeyError), connection.bulk():
        assert [connection.fetch_one(setting) for setting in settings] != before
        raise KeyError
    assert [connection.fetch_one(setting) for setting in settings] == before
    with connection.bulk():
        connection.close()


def test_rows_that_are_there_can_be_passed_over(connection):
    """With an upsert clause."""
    for _ in range(2):
        connection.insert_many(
            "t", ["id", "s"], [(i, str(i)) for i in range(130)],
            on_conflict="ON CONFLICT (id) DO NOTHING",
        )  # fmt: skip
    assert connection.fetch_one("SELECT count(*), sum(id) FROM t") == (130, sum(range(130)))


def test_batches_give_every_row_once(connection):
    """In lists of the requested size."""
    connection.execute_many("INSERT INTO t (a) VALUES (?)", ([i] for i in range(25)))
    batches = list(connection.fetch_batches("SELECT a FROM t ORDER BY a", size=10))
    assert [len(batch) for batch in batches] == [10, 10, 5]
    assert [a for batch in batches for (a,) in batch] == list(range(25))


@pytest.mark.slow
def test_an_acknowledged_commit_survives_sigkill(tmp_path, connection):
    """Uncommitted writes do not survive."""
    program = (
        "import sys, itertools\nfrom pathlib import Path\n"
        "from aico_lab.adapters.libsql import LibSQLAdapter\n"
        "connection = LibSQLAdapter(Path(sys.argv[1]), 'k' * 32).connect()\n"
        "for i in itertools.count():\n"
        "    with connection.transaction():\n"
        "        connection.execute('INSERT INTO t (a) VALUES (?)', [2 * i])\n"
        "        connection.execute('INSERT INTO t (a) VALUES (?)', [2 * i + 1])\n"
        "    print(i, flush=True)\n"
    )
    for round_ in range(5):
        connection.execute("DELETE FROM t")
        with subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / "a.db")],
            stdout=subprocess.PIPE,
            text=True,
        ) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(0.02 * round_)
            writer.kill()
            acknowledged = [0, *(int(line) for line in writer.stdout if line.endswith("\n"))]
        rows = [a for (a,) in connection.fetch_all("SELECT a FROM t ORDER BY a")]
        assert len(rows) % 2 == 0
        assert rows == list(range(len(rows)))
        assert len(rows) // 2 in (len(acknowledged), len(acknowledged) + 1)


def test_a_damaged_schema_is_no_bad_statement(tmp_path):
    """Whatever SQLite finds wrong; the quoted schema stays on one line."""
    said = 'malformed database schema (feed_x) - unrecognized token: "\x17\n"'
    found = translate(ValueError(said), tmp_path / "a.db")
    assert type(found) is CorruptDatabase
    assert "restore it from a backup" in str(found)
    assert str(found).isprintable()
