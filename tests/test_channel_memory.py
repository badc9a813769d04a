"""The channel memory: its document's promises, and use by many threads at once."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aico_lab.adapters.libsql import LibSQLAdapter
from aico_lab.channel_memory import DatabaseManager, UserManager
from aico_lab.errors import (
    ConnectionIsClosed,
    CorruptDatabase,
    DatabaseLocked,
    DuplicateId,
    HomeNotWritable,
    InvalidEntity,
    InvalidValue,
    NotADatabase,
    TextTooLong,
    UnknownUser,
)
from aico_lab.schema.core import CORE
from aico_lab.schema.versions import prepare
from tests.conftest import plain_text_files
from tests.costs import takes_about
from tests.databases import with_core_schemas
from tests.effort import examples
from tests.messages import at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from aico_lab.adapters import libsql

KEY = "k" * 32
NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[DatabaseManager]:
    with_core_schemas(tmp_path / "memory.db", KEY)
    with DatabaseManager(tmp_path / "memory.db", KEY) as opened:
        yield opened


@pytest.fixture
def outside(memory: DatabaseManager) -> Iterator[libsql.Connection]:
    """Another connection to the same file."""
    with LibSQLAdapter(memory.path, KEY).connect() as connection:
        yield connection


def fields(number: int, **changes: object) -> dict[str, object]:
    return {
        "message_id": f"m{number}",
        "channel_id": "general",
        "user_id": "ada",
        "content": f"the time I felt homesick {number}",
        "timestamp": NOON + timedelta(seconds=number),
    } | changes


def in_thread(run: Callable[[], object]) -> object:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result()


def counts(connection: libsql.Connection) -> dict[str, tuple[int, str | None]]:
    rows = connection.fetch_all("SELECT channel_id, message_count, last_active FROM channels")
    return {channel: (count, last) for channel, count, last in rows}


def counted(connection: libsql.Connection) -> dict[str, tuple[int, str | None]]:
    """Return the expected `counts`, computed from the messages."""
    rows = connection.fetch_all(
        "SELECT channel_id, count(*), max(timestamp) FROM messages GROUP BY 1"
    )
    return {channel: (count, last) for channel, count, last in rows}


# What the document says of the manager itself.


def test_the_folder_of_the_file_is_made(tmp_path):
    """With all parent folders."""
    with DatabaseManager(str(tmp_path / "a" / "b" / "memory.db")) as memory:
        assert memory.db_path == memory.path == tmp_path / "a" / "b" / "memory.db"
        assert memory.db_path.exists()


@pytest.mark.slow
def test_a_relative_path_stays_where_it_was(tmp_path, monkeypatch):
    """A thread that starts after a change of the working folder opens the same file."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with DatabaseManager("memory.db") as memory:
        monkeypatch.chdir(tmp_path / "elsewhere")
        in_thread(lambda: memory.store_message(**fields(1)))
        assert len(memory.get_messages()) == 1
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    """The error is one sentence with the folder's name."""
    (tmp_path / "file").touch()
    with pytest.raises(HomeNotWritable, match=r"file cannot be used .*[.]$"):
        DatabaseManager(tmp_path / "file" / "memory.db")


def test_the_schema_is_that_of_every_lab(tmp_path):
    """The core schemas are applied completely, with the indexes that the queries need."""
    path = tmp_path / "memory.db"
    with DatabaseManager(path, KEY), LibSQLAdapter(path, KEY).connect() as outside:
        assert CORE.pending(outside) == {}
        names = {name for (name,) in outside.fetch_all("SELECT name FROM sqlite_master")}
        plan = outside.fetch_all(
            "EXPLAIN QUERY PLAN SELECT * FROM messages WHERE channel_id = 'c' AND timestamp >= 't' "
            "ORDER BY timestamp DESC, id DESC"
        )
    tables = {
        "channels", "messages", "embeddings", "users", "user_profiles", "conversation_segments",
        "segment_messages",
    }  # fmt: skip
    assert tables | {"messages_by_channel"} <= names
    assert [detail for *_, detail in plan] == [
        "SEARCH messages USING INDEX messages_by_channel (channel_id=? AND timestamp>?)"
    ]


def test_opening_again_keeps_what_is_stored(memory):
    """A second manager on the same file sees the messages and changes nothing."""
    memory.store_message(**fields(1))
    with DatabaseManager(memory.path, KEY) as again:
        assert again.get_messages() == memory.get_messages()


def bytes_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


def test_a_file_too_short_to_be_a_database_is_left_as_it_is(tmp_path):
    path = tmp_path / "x.db"
    path.write_bytes(b"x")
    with pytest.raises(NotADatabase):
        DatabaseManager(path)
    assert path.read_bytes() == b"x"


@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
@pytest.mark.parametrize("crashed", [False, True])
def test_another_programs_database_is_refused_and_left_as_it_is(tmp_path, journal, crashed):
    """No byte of the file changes, and no file appears beside it."""
    made, path = tmp_path / "made" / "shop.db", tmp_path / "shop" / "shop.db"
    made.parent.mkdir()
    path.parent.mkdir()
    with contextlib.closing(sqlite3.connect(made)) as other:
        other.execute(f"PRAGMA journal_mode = {journal}")
        other.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, what TEXT)")
        other.execute("INSERT INTO orders VALUES (1, 'soup')")
        other.commit()
        if not crashed:
            other.close()
        for file in made.parent.iterdir():
            if not file.name.endswith("-shm"):
                shutil.copy(file, path.parent)
    before = bytes_of(path.parent)
    for key in (None, KEY):
        with pytest.raises(NotADatabase, match=r"shop.db is the database of another program.*[.]$"):
            DatabaseManager(path, key)
    assert bytes_of(path.parent) == before


def test_a_table_of_the_same_name_does_not_make_it_ours(tmp_path):
    """Another bot may have a table `messages`, too."""
    with contextlib.closing(sqlite3.connect(tmp_path / "bot.db")) as other:
        other.execute("CREATE TABLE messages (message_id TEXT, content TEXT)")
        other.execute("CREATE TABLE schema_metadata (version INTEGER)")
    with pytest.raises(NotADatabase, match="another program"):
        DatabaseManager(tmp_path / "bot.db")


@pytest.mark.parametrize("mark", ["application_id", "user_version"])
@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_an_empty_database_that_a_program_has_marked_is_not_ours(tmp_path, mark, mode):
    """The other program is about to write its tables."""
    path = tmp_path / "bot.db"
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute(f"PRAGMA journal_mode = {mode}")
        other.execute(f"PRAGMA {mark} = 4321")
    before = bytes_of(tmp_path)
    with pytest.raises(NotADatabase, match="another program"):
        DatabaseManager(path)
    assert bytes_of(tmp_path) == before


@pytest.mark.slow
@pytest.mark.parametrize("key", [None, KEY])
def test_a_file_that_is_empty_or_was_left_half_made_is_completed(tmp_path, key):
    """As left by a program that was killed while creating it, with its log."""
    (tmp_path / "empty.db").touch()
    DatabaseManager(tmp_path / "empty.db", key).close()
    with LibSQLAdapter(tmp_path / "made.db", key).connect() as connection:
        with connection.transaction():
            prepare(connection)
        for file in tmp_path.glob("made.db*"):
            if not file.name.endswith("-shm"):
                shutil.copy(file, tmp_path / file.name.replace("made", "left"))
    with DatabaseManager(tmp_path / "left.db", key) as memory:
        memory.store_message(**fields(1))
        assert len(memory.get_messages()) == 1


@pytest.mark.slow
def test_many_processes_may_open_a_file_at_once(tmp_path):
    """One creates it; the others find it incomplete or being written."""
    code = f"""if True:
        import sys
        from datetime import datetime
        from aico_lab.channel_memory import DatabaseManager
        with DatabaseManager({str(tmp_path / "memory.db")!r}) as memory:
            memory.store_message(sys.argv[1], "c", "u", "hello", datetime.now())
    """
    children = [subprocess.Popen([sys.executable, "-c", code, str(n)]) for n in range(3)]
    assert [child.wait(100) for child in children] == [0, 0, 0]
    with DatabaseManager(tmp_path / "memory.db") as memory:
        assert len(memory.get_messages()) == 3


def test_the_tables_and_indexes_can_be_asked_for_again(memory):
    """Under the document's method names."""
    memory._create_tables()
    memory._create_indexes()
    memory._initialize_database()
    assert memory.get_messages() == []


def test_the_user_manager_is_made_when_first_asked_for(memory):
    """It is the same object at every access."""
    assert not any(isinstance(value, UserManager) for value in vars(memory).values())
    assert isinstance(memory.user_manager, UserManager)
    assert memory.user_manager is memory.user_manager


def test_each_thread_has_a_connection_of_its_own(memory):
    """It is the same one at every call within a thread, and never another thread's."""
    barrier = threading.Barrier(8)

    def mine() -> libsql.Connection:
        with memory.get_connection() as first:
            pass
        barrier.wait(30)
        with memory.get_connection() as second:
            assert second is first
        return first

    with ThreadPoolExecutor(8) as pool:
        connections = [future.result() for future in [pool.submit(mine) for _ in range(8)]]
    assert len({id(connection) for connection in connections}) == 8


@pytest.mark.slow
def test_connections_of_threads_that_ended_are_closed(tmp_path, monkeypatch):
    """Also if the system reuses their thread ids."""
    opened: list[libsql.Connection] = []
    connect = LibSQLAdapter.connect

    def noting(adapter: LibSQLAdapter) -> libsql.Connection:
        opened.append(connect(adapter))
        return opened[-1]

    monkeypatch.setattr(LibSQLAdapter, "connect", noting)
    idents: list[int] = []

    def use(memory: DatabaseManager) -> None:
        idents.append(threading.get_ident())
        with memory.get_connection() as connection:
            connection.execute("SELECT 1")

    with DatabaseManager(tmp_path / "memory.db") as memory:
        for _ in range(500):
            thread = threading.Thread(target=use, args=(memory,))
            thread.start()
            thread.join()
            if len(idents) >= 30 and len(set(idents)) < len(idents):
                break
        assert len(opened) == 1 + len(idents), "a thread never takes over the connection of another"
        *left, last = opened[1:]
        for connection in left:
            with pytest.raises(ConnectionIsClosed):
                connection.execute("SELECT 1")
        assert last.fetch_one("SELECT 1") == (1,)
        with memory.get_connection() as own:
            assert own is opened[0]


def test_get_connection_commits_on_success(memory, outside):
    """As seen by another connection, and not before the end."""
    with memory.get_connection() as connection:
        connection.execute("INSERT INTO users (user_id, created_at) VALUES ('u', ?)", [at(0)])
        assert outside.fetch_all("SELECT user_id FROM users") == []
    assert outside.fetch_all("SELECT user_id FROM users") == [("u",)]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_get_connection_rolls_back_on_error(memory, outside, error):
    """For any error; afterwards the connection works."""
    with pytest.raises(error), memory.get_connection() as connection:
        connection.execute("INSERT INTO users (user_id, created_at) VALUES ('u', ?)", [at(0)])
        memory.store_message(**fields(1))
        raise error
    assert outside.fetch_all("SELECT user_id FROM users") == []
    assert counts(outside) == {}
    memory.store_message(**fields(1))
    assert counts(outside) == counted(outside) == {"general": (1, at(1))}


def test_get_connection_nests(memory, outside):
    """An inner block rolls back only its own part; the manager's methods take part."""
    with memory.get_connection():
        memory.store_message(**fields(1))
        with pytest.raises(DuplicateId):
            memory.add_messages([fields(2), fields(1)])
        with pytest.raises(RuntimeError), memory.get_connection():
            memory.store_message(**fields(3))
            raise RuntimeError
        memory.store_message(**fields(4))
        assert [m.message_id for m in memory.get_messages()] == ["m1", "m4"]
        assert outside.fetch_one("SELECT count(*) FROM messages") == (0,)
    assert outside.fetch_all("SELECT message_id FROM messages") == [("m1",), ("m4",)]
    assert counts(outside) == counted(outside)


def test_reading_does_not_wait_for_who_writes(memory):
    """Another thread's open transaction neither blocks a reader nor is visible to it."""
    memory.store_message(**fields(1))
    with memory.get_connection():
        memory.store_message(**fields(2))
        assert in_thread(lambda: len(memory.get_messages())) == 1
        assert in_thread(lambda: len(memory.get_messages_by_ids(["m1", "m2"]))) == 1


def test_a_thread_that_never_ends_its_transaction_is_not_waited_for_forever(memory, monkeypatch):
    """Other threads get DatabaseLocked."""
    monkeypatch.setattr("aico_lab.channel_memory.connections.BUSY_TIMEOUT", 0.05)
    with memory.get_connection(), pytest.raises(DatabaseLocked, match=r"Another thread.*[.]$"):
        in_thread(lambda: memory.store_message(**fields(1)))
    memory.store_message(**fields(1))


def test_nothing_works_after_close(memory):
    """In any thread; closing twice is allowed."""
    memory.store_message(**fields(1))
    memory.close()
    memory.close()
    memory.path.unlink()
    for use in (
        memory.get_messages,
        lambda: memory.store_message(**fields(2)),
        lambda: memory.user_manager.get_profile("ada"),
        lambda: in_thread(memory.get_messages),
    ):
        with pytest.raises(ConnectionIsClosed, match=r"closed: open another[.]$"):
            use()
    assert not memory.path.exists()


def test_closing_undoes_what_a_thread_has_not_committed(memory, outside):
    """The thread gets ConnectionIsClosed."""
    begun, closed = threading.Event(), threading.Event()

    def write() -> None:
        with memory.get_connection() as connection:
            memory.store_message(**fields(1))
            begun.set()
            assert closed.wait(30)
            connection.execute("SELECT 1")

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        assert begun.wait(30)
        memory.close()
        closed.set()
        with pytest.raises(ConnectionIsClosed):
            writing.result()
    assert outside.fetch_one("SELECT count(*) FROM messages") == (0,)


@pytest.mark.slow
def test_an_encrypted_file_holds_no_plain_text(tmp_path):
    """Neither the file nor its log does, and another key does not open it."""
    path = tmp_path / "memory.db"
    with DatabaseManager(path, KEY) as memory:
        memory.store_message(**fields(1, metadata={"place": "a harbour town"}))
        memory.user_manager.update_profile("ada", {"likes": "cardamom buns"})
        for text in ("homesick", "harbour town", "cardamom", "SQLite format 3", "general"):
            assert plain_text_files(tmp_path, text) == []
        assert (path.stat().st_mode & 0o077) == 0
        with pytest.raises(NotADatabase):
            DatabaseManager(path, "x" * 32)
    with DatabaseManager(tmp_path / "open.db") as plain:
        plain.store_message(**fields(1))
    assert plain_text_files(tmp_path, "homesick"), "the search finds what is there"


# Messages.


def test_a_message_comes_back_as_it_was_stored(memory):
    """For every field."""
    given = fields(
        1,
        role="assistant",
        conversation_id="thread 7",
        sentiment_score=-0.25,
        response_time=1.5,
        reply_to="m0",
        metadata={"edited": True, "tags": ["é", "\U0001f600"]},
    )
    memory.store_message(**given)
    [stored] = memory.get_messages()
    assert asdict(stored) == given


def test_what_is_left_out_is_filled_in(memory, outside):
    """The conversation is the channel, and the sentiment is VADER's, as in imports."""
    memory.store_message("m", "general", "ada", "I love this wonderful day!", NOON)
    [stored] = memory.get_messages()
    assert (stored.conversation_id, stored.role, stored.metadata) == ("general", "user", {})
    assert stored.sentiment_score > 0.8
    assert "vader" in outside.fetch_one("SELECT sentiment_source FROM messages")[0]
    assert outside.fetch_one("SELECT user_id, created_at FROM users") == ("ada", at(0))
    assert outside.fetch_one("SELECT created_at FROM channels") == (at(0),)


def test_rows_are_mappings_too(memory):
    """Like SQLite's own rows."""
    memory.store_message(**fields(1, metadata={"a": 1}))
    [row] = memory.get_messages()
    assert row["content"] == row.content
    assert dict(row) == asdict(row) | {"message_type": "user"}
    assert "content" in row
    assert "colour" not in row
    assert row.get("colour", 7) == 7
    with pytest.raises(KeyError):
        row["_names"]
    user = memory.user_manager.get_or_create_user("ada", "Ada")
    assert (user["name"], user["user_id"]) == ("Ada", "ada")


@pytest.mark.parametrize(
    ("given", "role"),
    [("user", "user"), ("bot", "assistant"), ("assistant", "assistant"), ("system", "system")],
)
def test_a_message_type_is_the_role(memory, given, role):
    """By name or as the sixth argument, alone or with the same role."""
    memory.store_message("a", "c", "ada", "hello", NOON, given)
    memory.add_messages([fields(1, channel_id="c", message_type=given, role=role)])
    assert [row["message_type"] for row in memory.get_messages("c")] == [role, role]
    with pytest.raises(InvalidEntity, match="give only one of them"):
        memory.store_message(**fields(2, message_type=given, role="robot"))
    with pytest.raises(InvalidEntity, match="role must be"):
        memory.store_message(**fields(2, message_type="reply"))


def test_a_message_can_be_replaced(memory, outside):
    """It keeps its position, its segment, and the fields that are not given."""
    memory.add_messages([fields(1, metadata={"a": 1}, reply_to="m0"), fields(2)])
    segment = memory.create_conversation_segment("general", NOON, NOON)
    memory.add_message_to_segment(segment, "m1")
    edit = fields(1, content="soup", timestamp=NOON + timedelta(seconds=9))
    with pytest.raises(DuplicateId):
        memory.store_message(**edit)
    memory.store_message(**edit, replace=True)
    memory.store_message(**edit, replace=True)
    memory.add_messages([fields(3), fields(1, content="stew")], replace=True)
    stored = {m.message_id: m for m in memory.get_messages()}
    assert {id_: m.content for id_, m in stored.items()} == {
        "m1": "stew", "m2": fields(2)["content"], "m3": fields(3)["content"],
    }  # fmt: skip
    assert (stored["m1"].metadata, stored["m1"].reply_to) == ({"a": 1}, "m0")
    assert memory.get_segment_messages(segment) == [stored["m1"]]
    assert counts(outside) == counted(outside)
    with pytest.raises(DuplicateId):
        memory.add_messages([fields(4), fields(1, channel_id="other")], replace=True)
    assert len(memory.get_messages()) == 3


def test_messages_before_and_after_a_time(memory):
    """`before` and `after` exclude the time; `start` includes it."""
    memory.add_messages([fields(number) for number in range(6)])
    moment = NOON + timedelta(seconds=3)

    def found(**asked: object) -> list[str]:
        return [m.message_id for m in memory.get_messages("general", **asked)]

    assert found(before=moment) == ["m0", "m1", "m2"] == found(end=moment)
    assert found(after=moment) == ["m4", "m5"]
    assert found(start=moment, before=moment + timedelta(seconds=2)) == ["m3", "m4"]
    assert found(before=moment, end=NOON + timedelta(seconds=1)) == ["m0"]
    assert [m.message_id for m in memory.get_messages("general", 2, moment)] == ["m1", "m2"]


def test_messages_are_found_by_keywords(memory):
    """All keywords must match, regardless of case and script; there are no operators."""
    texts = ("Onion SOUP", "a soup of ONIONS", "100% soup", "ÄRGER über Суп", "rain")
    memory.add_messages([fields(n, content=text) for n, text in enumerate(texts)])
    memory.store_message(**fields(9, content="onion soup", channel_id="other"))

    def found(*keywords: str, **asked: object) -> list[str]:
        rows = memory.search_messages_by_keywords("general", list(keywords), **asked)
        return [row["message_id"] for row in rows]

    assert found("soup", "onion") == ["m1", "m0"]
    assert found("soup", limit=2) == ["m2", "m1"]
    assert found("soup", after=NOON, before=NOON + timedelta(seconds=2)) == ["m1"]
    assert found("ärger") == found("суп") == ["m3"]
    assert found("%") == ["m2"]
    assert found() == found("nothing") == found("soup", limit=0) == []
    with pytest.raises(InvalidValue, match="list"):
        memory.search_messages_by_keywords("general", "soup")


def test_segments_are_listed_and_their_messages_have_places(memory):
    """Latest first; adding a message again with a position moves it."""
    memory.add_messages([fields(number) for number in range(4)])
    at_ = [NOON + timedelta(minutes=number) for number in range(6)]
    for number, name in enumerate(("first", "second", "third")):
        memory.create_conversation_segment(
            "general", at_[2 * number], at_[2 * number + 1], segment_id=name, metadata={"n": number}
        )
    assert [s["segment_id"] for s in memory.get_conversation_segments("general")] == [
        "third", "second", "first",
    ]  # fmt: skip
    assert [s.metadata for s in memory.get_conversation_segments("general", 1)] == [{"n": 2}]
    [second] = memory.get_conversation_segments("general", after=at_[0], before=at_[4])
    assert (second.started_at, second.ended_at, second.summary) == (at_[2], at_[3], None)
    assert memory.get_conversation_segments("elsewhere") == []
    for place, number in enumerate((2, 0, 1)):
        memory.add_message_to_segment("first", f"m{number}", place)
    memory.add_message_to_segment("first", "m3")
    memory.add_message_to_segment("first", "m2", position=7)

    def there() -> list[str]:
        return [m.message_id for m in memory.get_segment_messages("first")]

    assert there() == ["m0", "m1", "m3", "m2"]
    for wrong in (-1, 1.5, True):
        with pytest.raises(InvalidValue):
            memory.add_message_to_segment("first", "m1", wrong)
    assert there() == ["m0", "m1", "m3", "m2"]


def test_ids_that_are_numbers_are_taken_for_their_digits(memory):
    """As chat services use them, beyond the precision of a float."""
    big = 1234567890123456789
    memory.store_message(big, big + 1, big + 2, "hello", NOON)
    [stored] = memory.get_messages(big + 1, user_id=big + 2)
    assert (stored.message_id, stored.channel_id, stored.user_id) == (
        str(big), str(big + 1), str(big + 2),
    )  # fmt: skip
    assert memory.get_messages_by_ids([big]) == [stored]
    assert memory.get_messages(big) == []


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="Windows cannot change its zone for a test")
@pytest.mark.parametrize(
    ("given", "stored"),
    [
        (datetime(2024, 7, 1, 12, 0, 0, 5), "2024-07-01T10:00:00.000005Z"),  # noqa: DTZ001
        (datetime(2024, 1, 1, 12), "2024-01-01T11:00:00.000000Z"),  # noqa: DTZ001
        # The hour that is repeated when summer time ends.
        (datetime(2024, 10, 27, 2, 30), "2024-10-27T00:30:00.000000Z"),  # noqa: DTZ001
        (datetime(2024, 10, 27, 2, 30, fold=1), "2024-10-27T01:30:00.000000Z"),  # noqa: DTZ001
        (datetime(900, 1, 1, tzinfo=UTC), "0900-01-01T00:00:00.000000Z"),
        (
            datetime(2024, 1, 1, 12, tzinfo=timezone(timedelta(hours=-5))),
            "2024-01-01T17:00:00.000000Z",
        ),
        ("2024-07-01 12:00", "2024-07-01T12:00:00.000000Z"),
        ("2024-07-01T12:00:00+02:00", "2024-07-01T10:00:00.000000Z"),
    ],
)
def test_times_are_stored_in_utc_at_a_fixed_width(memory, outside, monkeypatch, given, stored):
    """A naive datetime is local time, here Berlin; text without a time zone is UTC."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        memory.store_message(**fields(1, timestamp=given))
        [message] = memory.get_messages(start=given)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert outside.fetch_one("SELECT timestamp FROM messages") == (stored,)
    assert message.timestamp == datetime.fromisoformat(stored)
    assert message.timestamp.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    "changes",
    [
        {"message_id": None},
        {"message_id": ""},
        {"message_id": "i" * 513},
        {"message_id": True},
        {"channel_id": None},
        {"user_id": None},
        {"user_id": None, "role": "assistant"},
        {"content": None},
        {"content": b"secret"},
        {"content": "secret \0"},
        {"content": "secret \ud800"},
        {"timestamp": None},
        {"timestamp": 1_700_000_000},
        {"timestamp": "yesterday"},
        {"timestamp": datetime.max.replace(tzinfo=timezone(timedelta(hours=-1)))},
        {"role": "secret"},
        {"sentiment_score": 1.5},
        {"sentiment_score": float("nan")},
        {"response_time": -1.0},
        {"metadata": "secret"},
        {"metadata": {"secret": float("inf")}},
        {"metadata": {"secret": NOON}},
        {"metadata": {1: "secret", "1": "secret"}},
        {"colour": "secret"},
    ],
    ids=repr,
)
def test_a_message_that_breaks_a_rule_is_refused_and_so_are_those_beside_it(
    memory, outside, changes
):
    """Nothing is written, and the error quotes no value."""
    with pytest.raises(InvalidEntity, match=r"[.]$") as refused:
        memory.add_messages([fields(1), fields(2, **changes)])
    assert "secret" not in str(refused.value)
    assert outside.fetch_one("SELECT count(*) FROM messages") == (0,)
    assert counts(outside) == {}


def test_a_message_is_as_long_as_a_million_characters_at_most(memory):
    """One character more is refused."""
    memory.store_message(**fields(1, content=" " * 1_000_000))
    with pytest.raises(TextTooLong, match=r"1,000,000 characters.*[.]$"):
        memory.store_message(**fields(2, content=" " * 1_000_001))


def test_a_system_message_needs_no_author(memory):
    """No user is created for it."""
    memory.store_message("m", "general", None, "ada joined", NOON, role="system")
    assert memory.get_messages()[0].user_id is None


def test_an_id_that_is_taken_is_refused(memory, outside):
    """The stored message and its channel's count do not change."""
    memory.store_message(**fields(1))
    with pytest.raises(DuplicateId, match=r"1 of 1 messages have an id that is taken.*[.]$"):
        memory.store_message(**fields(1, content="other", channel_id="random"))
    assert counts(outside) == {"general": (1, at(1))}
    assert memory.get_messages()[0].content == "the time I felt homesick 1"


@pytest.mark.parametrize("again", [2, 1], ids=["twice in the batch", "stored before"])
def test_many_messages_are_stored_all_or_none(memory, outside, again):
    """With one taken id among them, no message, channel or person is added."""
    memory.store_message(**fields(1))
    batch = [fields(2), fields(3, channel_id="random", user_id="bob"), fields(again, content="x")]
    with pytest.raises(DuplicateId, match="1 of 3"):
        memory.add_messages(batch)
    assert counts(outside) == {"general": (1, at(1))}
    assert outside.fetch_all("SELECT user_id FROM users") == [("ada",)]
    memory.add_messages(iter(batch[:2]))
    memory.add_messages([])
    assert counts(outside) == counted(outside) == {"general": (2, at(2)), "random": (1, at(3))}


def test_a_channel_and_a_person_are_as_old_as_the_first_message_that_made_them(memory, outside):
    """Whatever the order of messages in the batch."""
    memory.add_messages([fields(5), fields(3), fields(4)])
    for table in ("channels", "users"):
        assert outside.fetch_all(f"SELECT created_at FROM {table}") == [(at(3),)]


def test_an_older_message_does_not_turn_the_last_activity_back(memory, outside):
    """The message is counted nevertheless."""
    memory.add_messages([fields(9), fields(3)])
    memory.store_message(**fields(5))
    assert counts(outside) == {"general": (3, at(9))}


SECONDS = st.integers(0, 6)  # few, so that many messages are of one second
PLACES = st.sampled_from(["a", "b", "c"])


@given(
    stored=st.lists(st.tuples(PLACES, PLACES, SECONDS), max_size=20),
    channel=st.none() | PLACES,
    user=st.none() | PLACES,
    between=st.tuples(st.none() | SECONDS, st.none() | SECONDS),
    limit=st.none() | st.integers(0, 8),
)
@settings(
    max_examples=examples(60),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_messages_are_found_by_channel_person_and_time(
    memory, *, stored, channel, user, between, limit
):
    """The latest ones, by time and then arrival, as computed with a Python list."""
    with memory.get_connection() as connection:
        connection.execute("DELETE FROM messages")
    memory.add_messages(
        fields(number, channel_id=c, user_id=u, timestamp=at(second), sentiment_score=0.0)
        for number, (c, u, second) in enumerate(stored)
    )
    start, end = between
    expected = [
        f"m{number}"
        for number, (c, u, second) in sorted(enumerate(stored), key=lambda item: item[1][2])
        if channel in (None, c)
        and user in (None, u)
        and (start is None or second >= start)
        and (end is None or second < end)
    ]
    if limit is not None:
        expected = expected[max(0, len(expected) - limit) :]
    found = memory.get_messages(
        channel,
        user_id=user,
        start=None if start is None else NOON + timedelta(seconds=start),
        end=None if end is None else at(end),
        limit=limit,
    )
    assert [m.message_id for m in found] == expected


def test_a_negative_limit_is_refused(memory):
    """SQL would return all messages."""
    with pytest.raises(InvalidValue):
        memory.get_messages(limit=-1)


@pytest.mark.parametrize("limit", [1.5, "3", True])
def test_a_limit_that_is_no_whole_number_is_refused(memory, limit):
    """Also that of a search and of segments."""
    for use in (
        memory.get_messages,
        lambda **options: memory.search_messages_by_keywords("c", ["x"], **options),
        lambda **options: memory.get_conversation_segments("c", **options),
    ):
        with pytest.raises(InvalidValue, match=r"^The limit must be a whole number, 0 or more\.$"):
            use(limit=limit)


@pytest.mark.slow
def test_thousands_of_messages_are_given_in_the_order_of_their_ids(memory):
    """More ids than a statement can have parameters; unknown ids are ignored."""
    memory.add_messages([fields(number, sentiment_score=0.0) for number in range(3_000)])
    ids = [f"m{number}" for number in range(4_000)] * 10
    random.Random(1).shuffle(ids)
    with takes_about(1):
        found = memory.get_messages_by_ids(ids)
    assert [m.message_id for m in found] == [i for i in ids if int(i[1:]) < 3_000]
    assert memory.get_messages_by_ids([]) == []
    assert memory.get_messages_by_ids(['") OR 1=1 --', "m\0", "\ud800"]) == []


def test_what_another_program_removes_is_gone(memory, outside):
    """Deleting a message also deletes its segment entries and vectors."""
    memory.add_messages([fields(1), fields(2)])
    segment = memory.create_conversation_segment("general", at(1), at(2))
    memory.add_message_to_segment(segment, "m1")
    memory.add_message_to_segment(segment, "m2")
    outside.execute("DELETE FROM messages WHERE message_id = 'm1'")
    assert [m.message_id for m in memory.get_messages()] == ["m2"]
    assert [m.message_id for m in memory.get_segment_messages(segment)] == ["m2"]


@pytest.mark.parametrize("change", ["timestamp = 'noon'", "timestamp = 7", "metadata = '{'"])
def test_what_another_program_wrote_wrongly_is_named(memory, outside, change):
    """A malformed value raises an error instead of being misread."""
    memory.store_message(**fields(1))
    outside.execute(f"UPDATE messages SET {change}")
    with pytest.raises(CorruptDatabase, match=r"correct or delete it[.]$"):
        memory.get_messages()


def test_a_time_that_another_program_wrote_without_a_zone_is_utc(memory, outside):
    """As in an imported file."""
    memory.store_message(**fields(1))
    outside.execute("UPDATE messages SET timestamp = '2024-03-01 12:00'")
    assert [m.timestamp for m in memory.get_messages()] == [NOON]


@pytest.mark.slow
def test_what_is_stored_in_a_labs_database_reaches_its_warehouse(lab):
    """The tables are the same, so the change feed and reports include the messages."""
    with DatabaseManager(lab.home.primary, lab.storage.keys.libsql()) as memory:
        memory.store_message(**fields(1))
    lab.sync()
    assert lab.sql("SELECT user_id, message, channel_id FROM conversations").fetchall() == [
        ("ada", "the time I felt homesick 1", "general")
    ]


# Segments.


def test_a_segment_holds_messages_in_the_order_in_which_they_were_put_in(memory, outside):
    """Adding a message again does not move it."""
    memory.add_messages([fields(number) for number in range(4)])
    segment = memory.create_conversation_segment(
        "general", NOON, at(3), summary="homesick", metadata={"topic": "home"}
    )
    for number in (2, 0, 3, 2):
        memory.add_message_to_segment(segment, f"m{number}")
    assert [m.message_id for m in memory.get_segment_messages(segment)] == ["m2", "m0", "m3"]
    columns = "segment_id, channel_id, started_at, ended_at, summary, metadata"
    assert outside.fetch_all(f"SELECT {columns} FROM conversation_segments") == [
        (segment, "general", at(0), at(3), "homesick", '{"topic":"home"}')
    ]
    assert memory.get_segment_messages("no such segment") == []


def test_a_segment_that_breaks_a_rule_is_refused(memory):
    """Each error has its own message."""
    memory.add_messages([fields(1), fields(2, channel_id="random")])
    segment = memory.create_conversation_segment("general", at(1), at(1), segment_id="s")
    assert segment == "s"
    with pytest.raises(DuplicateId, match="segment with this id"):
        memory.create_conversation_segment("general", at(1), at(2), segment_id="s")
    with pytest.raises(InvalidEntity, match="before it starts"):
        memory.create_conversation_segment("general", at(2), at(1))
    with pytest.raises(InvalidEntity, match="no such channel"):
        memory.create_conversation_segment("nowhere", at(1), at(2))
    for missing in (("s", "m9"), ("s9", "m1")):
        with pytest.raises(InvalidEntity, match="no such segment or message"):
            memory.add_message_to_segment(*missing)
    with pytest.raises(InvalidEntity, match="own channel"):
        memory.add_message_to_segment("s", "m2")


# People.


def test_a_user_is_made_once(memory, outside):
    """A name that becomes known later is stored; a known name is not replaced."""
    memory.store_message(**fields(1))
    assert memory.user_manager.get_or_create_user("ada").name is None
    ada = memory.user_manager.get_or_create_user("ada", "Ada")
    assert ada == memory.user_manager.get_or_create_user("ada", "Eve")
    assert (ada.user_id, ada.name, ada.created_at) == ("ada", "Ada", NOON + timedelta(seconds=1))
    seven = memory.user_manager.get_or_create_user(7)
    assert abs(datetime.now(UTC) - seven.created_at) < timedelta(minutes=1)
    assert outside.fetch_all("SELECT user_id, name FROM users") == [("ada", "Ada"), ("7", None)]
    for nobody in ("", None, True):
        with pytest.raises(InvalidEntity, match="An id is text"):
            memory.user_manager.get_or_create_user(nobody)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE users SET created_at = 'once upon a time'",
        "UPDATE users SET created_at = x'ff'",
        "INSERT INTO user_profiles VALUES ('ada', 'warm', '2024-03-01T12:00:00.000000Z')",
        "INSERT INTO user_profiles VALUES ('ada', '[1]', '2024-03-01T12:00:00.000000Z')",
    ],
)
def test_what_a_foreign_program_wrote_of_a_user_is_named(memory, outside, change):
    """The error names the table."""
    memory.user_manager.get_or_create_user("ada")
    outside.execute(change)
    with pytest.raises(CorruptDatabase, match=r"user\w+: correct or delete it[.]$"):
        memory.user_manager.get_or_create_user("ada")
        memory.user_manager.get_profile("ada")


def test_a_profile_is_changed_key_by_key(memory):
    """Keys that are not given stay."""
    users = memory.user_manager
    users.get_or_create_user("ada")
    assert users.get_profile("ada") == {}
    users.update_profile("ada", {"tone": "warm", "topics": ["home"]})
    whole = users.update_profile("ada", {"tone": "dry", "age": 36})
    assert whole == users.get_profile("ada") == {"tone": "dry", "topics": ["home"], "age": 36}
    with pytest.raises(InvalidEntity, match=r"cannot be stored.*[.]$"):
        users.update_profile("ada", {"met": NOON})
    with pytest.raises(InvalidEntity, match="field 'b' contains NaN or an infinite number"):
        users.update_profile("ada", {"a": 1, "b": float("nan")})
    assert users.get_profile("ada") == whole
    for use in (users.get_profile, lambda user_id: users.update_profile(user_id, {"a": 1})):
        with pytest.raises(UnknownUser, match=r"[.]$"):
            use("nobody")


def test_no_update_of_a_profile_is_lost(memory):
    """Eight threads set one key each at the same time."""
    memory.user_manager.get_or_create_user("ada")
    barrier = threading.Barrier(8)

    def update(number: int) -> None:
        barrier.wait(30)
        for turn in range(5):
            memory.user_manager.update_profile("ada", {f"{number}.{turn}": number})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(update, range(8)))
    assert len(memory.user_manager.get_profile("ada")) == 40


# Many at once.


def work(memory: DatabaseManager, number: int, turns: int) -> None:
    """Store messages one by one and in batches, provoke refusals, and read in between."""
    chance = random.Random(number)
    for turn in range(turns):
        base = (number * turns + turn) * 4
        channels = [f"c{chance.randrange(3)}" for _ in range(4)]
        times = [at(chance.randrange(100_000)) for _ in range(4)]
        one, *others = [
            fields(base + i, channel_id=channels[i], timestamp=times[i], user_id=f"u{number}")
            for i in range(4)
        ]
        memory.store_message(**one)
        memory.add_messages(others)
        with pytest.raises(DuplicateId):
            memory.add_messages([fields(-base - 1, channel_id=channels[0]), one])
        ids = [f"m{base + i}" for i in range(4)]
        assert [m.message_id for m in memory.get_messages_by_ids(ids)] == ids
        latest = memory.get_messages(channels[0], limit=20)
        assert [m.timestamp for m in latest] == sorted(m.timestamp for m in latest)


def check_nothing_was_lost(outside: libsql.Connection, messages: int) -> None:
    expected = {f"m{number}" for number in range(messages)}
    found = [message_id for (message_id,) in outside.fetch_all("SELECT message_id FROM messages")]
    assert len(found) == messages
    assert set(found) == expected
    assert counts(outside) == counted(outside)
    assert outside.fetch_one("PRAGMA integrity_check") == ("ok",)


@pytest.mark.slow
@pytest.mark.parametrize("turns", [4, pytest.param(100, marks=pytest.mark.slow)])
def test_sixteen_threads_store_and_read_at_once(memory, outside, turns):
    """No message is lost or doubled; counts and last activities are exact."""
    with ThreadPoolExecutor(16) as pool:
        for done in [pool.submit(work, memory, number, turns) for number in range(16)]:
            done.result()
    check_nothing_was_lost(outside, 16 * turns * 4)


WORKER = """
import sys, threading
from pathlib import Path
from aico_lab.channel_memory import DatabaseManager
from tests.test_channel_memory import KEY, work

path, first = sys.argv[1], int(sys.argv[2])
with DatabaseManager(path, KEY) as memory:
    threads = [threading.Thread(target=work, args=(memory, first + i, 10)) for i in range(3)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
"""


@pytest.mark.slow
def test_two_processes_store_and_read_at_once(tmp_path):
    """Both also create the file at the same time."""
    path = tmp_path / "memory.db"
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, path, str(first)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for first in (0, 3)
    ]
    for worker in workers:
        _, trouble = worker.communicate(timeout=120)
        assert (worker.returncode, trouble) == (0, "")
    with LibSQLAdapter(path, KEY).connect() as outside:
        check_nothing_was_lost(outside, 6 * 10 * 4)


@pytest.mark.parametrize("path", ["", ":memory:"])
def test_a_path_that_is_no_file_is_refused(path, tmp_path, monkeypatch):
    """And no file of that name is made."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidValue, match=f"^{path!r} is no file, .* name a file"):
        DatabaseManager(path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="needs file modes")
def test_only_the_owner_can_read_any_of_the_files(tmp_path):
    """The lock of migrations too."""
    before = os.umask(0o022)
    try:
        with DatabaseManager(tmp_path / "new" / "x.db") as memory:
            memory.store_message("1", "c", "u", "hello", at(0))
            found = {
                file.name: file.stat().st_mode & 0o777 for file in (tmp_path / "new").iterdir()
            }
    finally:
        os.umask(before)
    assert set(found.values()) == {0o600}
    assert {"x.db", "x.db.migration.lock"} <= found.keys()
