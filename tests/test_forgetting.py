"""Erasure: what it removes from every store, what it leaves, and how it goes on after a crash."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aico_lab.bus import outbox
from aico_lab.bus.outbox import dead_letters
from aico_lab.errors import (
    CorruptDatabase,
    ErasureBusy,
    ErasureIncomplete,
    InvalidValue,
    StorageError,
    UnknownName,
    WrongUse,
)
from aico_lab.health import _check_erasures, _check_temporary
from aico_lab.home.files import held
from aico_lab.home.receipts import KeptErasure, SealedErasures, is_authentic
from aico_lab.importing.import_log import read_imports
from aico_lab.importing.importer import import_batches
from aico_lab.lab import Lab
from aico_lab.privacy import forgetting
from aico_lab.privacy.deleting import delete
from aico_lab.privacy.patterns import Patterns
from aico_lab.privacy.scope import Scope
from aico_lab.privacy.unused_space import search_pages
from aico_lab.schema.backup import back_up
from aico_lab.sources import jsonl
from tests.costs import takes_about
from tests.databases import with_core_schemas
from tests.effort import examples
from tests.messages import add, add_memories, message

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from aico_lab.adapters.libsql import Connection
    from tests.databases import Homes

SECRET = "zebras confide in canaries"
QUOTED = "I asked person-ada about it"
CANARIES = ("zebras", "canaries", "person-ada", "Ada Byron", "told-")

TABLES = {
    "users": "user_id, name",
    "channels": "channel_id, message_count, last_active",
    "messages": "message_id, channel_id, conversation_id, user_id, role, content, timestamp, "
    "sentiment_score, reply_to, metadata",
    "memories": "memory_id, user_id, content",
    "feedback_events": "event_id, user_id, conversation_id, message_id, kind, name, value",
    "relationships": "relationship_id, user_id, other",
    "conversation_segments": "segment_id, channel_id",
}


def told(number: int, **changes: Any) -> dict[str, Any]:
    """Return a message of Ada's conversation with the companion."""
    fields = {
        "message_id": f"told-{number}", "channel_id": "direct:person-ada",
        "conversation_id": "with-person-ada", "user_id": "person-ada",
        "content": f"{SECRET} for the {number}th time", "sentiment_score": None,
    }  # fmt: skip
    return message(number, **fields | changes)


def other(number: int, **changes: Any) -> dict[str, Any]:
    """Return a message of somebody else."""
    return message(number, content=f"rain again, number {number}", sentiment_score=None, **changes)


def fill(connection: Connection) -> None:
    """Write two people's conversations, and what is known of Ada."""
    add(connection, *map(told, range(8)), *map(other, range(8)))
    add_memories(connection, SECRET, user="person-ada")
    add_memories(connection, "likes the rain", user="u")
    with connection.transaction():
        connection.execute("UPDATE users SET name = 'Ada Byron' WHERE user_id = 'person-ada'")
        connection.execute(
            "INSERT INTO preferences VALUES ('person-ada', 'topic', '\"zebras\"', '2024')"
        )
        connection.execute(
            "INSERT INTO relationships VALUES ('r', 'u', 'person-ada', 'friend', 1, NULL, '2024')"
        )
        connection.execute(
            "INSERT INTO outbox (topic, payload, created_at) VALUES ('said', ?, '2024')",
            [json.dumps({"user": "person-ada", "text": SECRET})],
        )
        connection.execute(
            "INSERT INTO dead_letters VALUES ('c', 1, 'data.preferences.insert', ?, '2024', 3, "
            "'Error', ?, '2024')",
            [json.dumps({"key": json.dumps(["person-ada", "topic"])}), SECRET],
        )


@pytest.fixture
def plain(home: Path, homes: Homes) -> Iterator[Lab]:
    """A lab without encryption, so that its files can be searched."""
    with homes.open(home, "none") as opened:
        fill(opened.primary)
        yield opened


def dump(connection: Connection) -> dict[str, list[Any]]:
    """Return the rows of the tables that people see."""
    return {
        table: sorted(connection.fetch_all(f"SELECT {columns} FROM {table}"), key=repr)
        for table, columns in TABLES.items()
    }


def files_with(home: Path, *words: str) -> set[str]:
    """Return the files of a home whose bytes have one of the words."""
    return {
        path.relative_to(home).as_posix()
        for path in home.rglob("*")
        if path.is_file() and any(word.encode() in path.read_bytes() for word in words)
    }


@pytest.mark.slow
def test_nothing_of_a_person_is_left_in_the_files_of_a_home(plain):
    """Every store is filled, and the bytes of all files are searched afterwards."""
    plain.primary.execute(
        "INSERT INTO dead_letters VALUES ('c', 2, 'said', '{}', '2024', 3, 'Error', "
        "'person-ada failed', '2024'), ('c', 3, 'said', '{}', '2024', 3, 'No person-ada', '', '')"
    )
    home = plain.home.path
    plain.sync()
    plain.embeddings.update()
    plain.primary.execute("UPDATE messages SET content = content || ' edited' WHERE user_id = 'u'")
    plain.sync()
    plain.search("zebras", mode="keyword")
    plain.metrics.overview()
    plain.cache.store.put("session:turns:person-ada", {"text": SECRET})
    plain.cache.store.flush()
    before = files_with(home, *CANARIES)
    for store in ("aico.db", "warehouse/writer", "warehouse/snapshots", "cache/"):
        assert any(name.startswith(store) for name in before)

    result = plain.privacy.forget(user="person-ada")

    plain.cache.release()
    assert files_with(home, *CANARIES) == set()
    assert result.rows["messages"] == 8
    assert set(result.found.values()) == {0}
    assert plain.privacy.is_authentic(result.receipt)
    assert not plain.privacy.is_authentic(result.receipt | {"mentioned": 7})
    assert "person-ada" not in json.dumps(result.receipt)
    assert plain.primary.fetch_all("SELECT DISTINCT user_id FROM messages") == [("u",)]
    assert plain.verify().ok
    assert plain.sync().mode == "nothing"
    assert plain.privacy.receipts() == [result.receipt]


@pytest.mark.slow
def test_nothing_is_left_in_the_decrypted_pages(home, homes):
    """Neither in used pages nor in free ones, nor former words in the full-text indexes."""
    with homes.open(home) as lab:
        fill(lab.primary)
        lab.search("zebras", mode="keyword")
        lab.primary.execute("UPDATE messages SET content = 'x' WHERE message_id = 'told-1'")

        def pages() -> bytes:
            rows = lab.primary.fetch_all("SELECT data FROM sqlite_dbpage")
            return b"\0".join(bytes(page) for (page,) in rows)

        assert b"zebras" in pages()
        lab.privacy.forget(user="person-ada")
        found = [word for word in CANARIES if word.encode() in pages()]
        assert found == []
        assert lab.primary.fetch_all("PRAGMA freelist_count") == [(0,)]


@pytest.mark.slow
def test_the_warehouse_is_as_if_the_person_had_never_been_there(plain, tmp_path, homes):
    plain.sync()
    plain.privacy.forget(user="person-ada")
    with homes.open(tmp_path / "never", "none") as never:
        add(never.primary, *map(other, range(8)))
        add_memories(never.primary, "likes the rain", user="u")
        never.sync()

        def mart(lab: Lab) -> dict[str, list[Any]]:
            tables = lab.sql(
                "SELECT table_name FROM duckdb_tables() WHERE schema_name = 'mart'"
            ).fetchall()
            return {
                name: sorted(
                    lab.sql(f'SELECT * EXCLUDE (id) FROM mart."{name}"').fetchall(), key=repr
                )
                if "id" in lab.sql(f'FROM mart."{name}"').columns
                else sorted(lab.sql(f'FROM mart."{name}"').fetchall(), key=repr)
                for (name,) in tables
            }

        assert mart(plain) == mart(never)


SCOPES = [("user", "ada"), ("channel", "one"), ("conversation", "two-b")]

people = st.sampled_from(["ada", "bob", "cyd"])
said = st.lists(st.tuples(people, st.sampled_from(["one", "two"]), st.booleans()), max_size=12)


@pytest.mark.slow
@settings(max_examples=examples(15), deadline=None)
@given(
    said=said,
    scope=st.sampled_from(SCOPES),
)
def test_the_rest_equals_a_database_that_never_had_it(said, scope, tmp_path_factory):
    """Whatever is forgotten; the messages of a person are those in conversations of their own."""
    rows = [
        other(
            number,
            message_id=f"m{number}",
            user_id=person,
            channel_id=channel,
            conversation_id=f"{channel}-{person[0]}",
            role="assistant" if answers else "user",
        )
        for number, (person, channel, answers) in enumerate(said)
    ]
    kind, value = scope
    column = f"{kind}_id"
    folder = tmp_path_factory.mktemp("never")
    with (
        with_core_schemas(folder / "a.db").connect() as erased,
        with_core_schemas(folder / "b.db").connect() as never,
    ):
        add(erased, *rows)
        add(never, *[row for row in rows if row[column] != value])
        with erased.transaction():
            delete(erased, Scope(kind, value))
        if kind != "user":  # people stay
            for person in {row["user_id"] for row in rows}:
                never.execute(
                    "INSERT OR IGNORE INTO users (user_id, created_at) VALUES (?, '')", [person]
                )
        assert dump(erased) == dump(never)


def test_a_companions_answers_in_a_group_go_with_what_they_answer(plain):
    group = {"channel_id": "g", "conversation_id": "g", "metadata": None}
    add(
        plain.primary,
        told(20, **group, role="user"),
        other(21, **group, message_id="to-ada", role="assistant", user_id=None),
        other(22, **group, message_id="of-u", role="user"),
        other(23, **group, message_id="to-u", role="assistant", user_id=None),
        told(24, **group, role="user"),
        other(25, **group, message_id="after-ada", role="assistant", user_id=None),
        other(26, **group, message_id="on", role="assistant", user_id=None),
    )
    plain.primary.execute(
        "UPDATE messages SET reply_to = 'told-20' WHERE message_id IN ('to-ada', 'of-u')"
    )
    plain.privacy.forget(user="person-ada")
    left = plain.primary.fetch_all(
        "SELECT message_id, reply_to FROM messages WHERE channel_id = 'g' ORDER BY id"
    )
    assert left == [("of-u", None), ("to-u", None)]


def test_answers_in_a_group_belong_to_whom_they_name_or_follow(plain):
    group = {"channel_id": "g", "conversation_id": "g", "metadata": None}

    def answer(number: int, name: str, **changes: Any) -> dict[str, Any]:
        fields = {"message_id": name, "role": "assistant", "user_id": None}
        return other(number, **group | fields | changes)

    rows = [
        told(20, **group, role="user"),
        answer(21, "names-u", user_id="u"),
        answer(22, "to-ada"),
        answer(23, "goes-on", reply_to="to-ada"),
        answer(24, "names-u-again", user_id="u", reply_to="goes-on"),
        answer(25, "to-nothing-stored", reply_to="lost"),
        other(26, **group, message_id="of-u", role="user"),
        answer(27, "to-u", reply_to="lost"),
        answer(28, "still-on", reply_to="goes-on"),
    ]
    add(plain.primary, *rows)
    plain.primary.execute_many(
        "UPDATE messages SET reply_to = ? WHERE message_id = ?",
        [(row.get("reply_to"), row["message_id"]) for row in rows],
    )
    plain.privacy.forget(user="person-ada")
    left = plain.primary.fetch_all("SELECT message_id FROM messages WHERE channel_id = 'g'")
    assert {one for (one,) in left} == {"names-u", "names-u-again", "of-u", "to-u"}


def test_an_answer_in_a_thread_goes_with_what_it_answers(plain):
    """Also if others write there; nothing else leads from it to the person."""
    group = {"channel_id": "g", "conversation_id": "g", "metadata": None}
    thread = group | {"conversation_id": "thread"}
    answer = thread | {"role": "assistant", "user_id": None}
    replies = {"to-ada": "told-20", "on": "to-ada", "to-u": "of-u"}
    add(
        plain.primary,
        told(20, **group, role="user"),
        *(other(21 + at, **answer, message_id=name) for at, name in enumerate(replies)),
        other(30, **thread, message_id="of-u", role="user"),
    )
    plain.primary.execute_many(
        "UPDATE messages SET reply_to = ? WHERE message_id = ?",
        [(to, name) for name, to in replies.items()],
    )
    plain.privacy.forget(user="person-ada")
    left = plain.primary.fetch_all("SELECT message_id FROM messages WHERE channel_id = 'g'")
    assert {one for (one,) in left} == {"to-u", "of-u"}


def test_a_channel_in_which_nobody_else_wrote_goes_as_a_whole(plain, monkeypatch):
    """With the companion's greetings that nobody answered, also one written meanwhile."""
    greeting = {"role": "assistant", "user_id": None, "message_id": "greeting"}
    group = {"channel_id": "g", "conversation_id": "g"}
    add(
        plain.primary,
        told(20, channel_id="own"),
        other(21, **greeting, channel_id="own", conversation_id="day 2"),
        told(22, **group),
        other(23, **group),
        other(24, **greeting | {"message_id": "to-all"}, channel_id="g", conversation_id="day 2"),
    )
    real = forgetting.erase_reports

    def writes(connection: Any, *arguments: Any) -> Any:
        late = greeting | {"message_id": "late", "channel_id": "own", "conversation_id": "day 3"}
        add(connection, other(30, **late))
        return real(connection, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(forgetting, "erase_reports", writes)
        with pytest.raises(ErasureIncomplete):
            plain.privacy.forget(user="person-ada")
    assert len(plain.privacy.resume()) == 1
    ids = plain.primary.fetch_all("SELECT DISTINCT channel_id, conversation_id FROM messages")
    assert set(ids) == {("c", "c"), ("g", "g"), ("g", "day 2")}
    assert plain.primary.fetch_all("SELECT channel_id FROM channels") == [("c",), ("g",)]


FEEDBACK = """INSERT INTO feedback_events (event_id, user_id, {0}, kind, name, timestamp)
    VALUES ('f', 'u', '{1}', 'reaction', 'up', '2024')"""

PROMPT = """INSERT INTO messages
    (message_id, channel_id, conversation_id, role, content, timestamp)
    VALUES ('prompt', 'own', 'day 1', 'system', 'You talk with Ada.', '2024-05-01')"""


UNUSED = (
    PROMPT.partition("VALUES")[0]
    + """SELECT
    c || '-prompt', 'own', c, 'system', 'You talk with Ada.', '2024-05-01'
    FROM (SELECT 'unused' AS c UNION SELECT 'with-person-ada')"""
)
"""The same prompt in the person's conversation, and in one that was only opened."""

RULES = UNUSED.replace("'own', c,", "iif(c = 'unused', 'own', 'direct:person-ada'), c,")
"""The same, but the person's conversation is in another channel."""


@pytest.mark.parametrize(
    ("channel", "mine", "also", "left"),
    [
        ("own", {}, "", 0),
        ("own", {"role": "assistant"}, "", 2),
        ("own", {}, FEEDBACK.format("message_id", "all-0"), 2),
        ("own", {}, FEEDBACK.format("conversation_id", "day 1"), 2),
        ("own", {}, "UPDATE messages SET role = 'system' WHERE message_id = 'all-1'", 2),
        ("own", {}, PROMPT, 0),
        ("own", {}, UNUSED, 0),
        ("own", {}, RULES, 3),
        ("person-ada", {"channel_id": "elsewhere"}, "", 2),
        ("person-ada", {}, FEEDBACK.format("message_id", "all-0"), 0),
        ("direct:person-ada", {}, FEEDBACK.format("message_id", "all-0"), 0),
    ],
)
def test_what_the_companion_tells_all_readers_of_a_channel_stays(plain, channel, mine, also, left):
    """The person is not the only reader if others react, or never wrote there."""
    to_all = {"role": "assistant", "user_id": None, "channel_id": channel}
    add(
        plain.primary,
        *(
            other(20 + day, **to_all, message_id=f"all-{day}", conversation_id=f"day {day}")
            for day in range(2)
        ),
        told(22, **{"channel_id": channel, "role": "user"} | mine),
    )
    if also:
        plain.primary.execute(also)
    with plain.primary.transaction():
        delete(plain.primary, Scope("user", "person-ada"))
    assert plain.primary.fetch_all(
        "SELECT count(*) FROM messages WHERE channel_id = ?", [channel]
    ) == [(left,)]


def test_everything_before_a_day_is_forgotten(plain):
    add(plain.primary, other(900, message_id="later", timestamp="2024-05-02T00:00:00.000000Z"))
    plain.privacy.forget(before="2024-05-02")
    assert plain.primary.fetch_all("SELECT message_id FROM messages") == [("later",)]
    assert plain.primary.fetch_all("SELECT count(*) FROM memories") == [(0,)]
    assert plain.primary.fetch_all("SELECT count(*) FROM outbox") == [(0,)]
    assert plain.privacy.receipts()[0]["scope"]["value"] == "2024-05-02T00:00:00.000000Z"


def test_a_dry_run_counts_and_changes_nothing(plain):
    before = dump(plain.primary)
    notebook = plain.home.path / "notebooks" / "mine.ipynb"
    notebook.parent.mkdir()
    notebook.write_text(json.dumps({"cells": [{"cell_type": "markdown", "source": SECRET}]}))
    (plain.home.path / "aico.db.old").touch()
    result = plain.privacy.forget(user="person-ada", dry_run=True)
    assert (result.rows["messages"], result.receipt) == (8, None)
    assert result.left == [
        "notebooks/mine.ipynb names what was erased, or shows it.",
        "aico.db.old, a copy of aico.db, may still have what was erased: delete it.",
    ]
    assert dump(plain.primary) == before
    assert not plain.home.erasures.exists()


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"user": "nobody"}, UnknownName),
        ({"import_id": "none"}, UnknownName),
        ({"user": "u", "channel": "c"}, WrongUse),
        ({}, WrongUse),
        ({"user": ""}, WrongUse),
        ({"before": "yesterday"}, WrongUse),
    ],
)
def test_what_cannot_be_forgotten_is_said_in_one_sentence(plain, given, error):
    before = dump(plain.primary)
    with pytest.raises(error, match=r"^[^\n]*\.$"):
        plain.privacy.forget(**given)
    assert dump(plain.primary) == before


def test_two_erasures_at_once_are_refused(plain):
    with (
        held(plain.home.temporary / "forget.lock", 0, AssertionError),
        pytest.raises(ErasureBusy, match="being carried out by process"),
    ):
        plain.privacy.forget(user="person-ada")
    plain.privacy.forget(user="person-ada")


class _KilledError(BaseException):
    """Stands for the end of a process."""


def dies_in_test(*_arguments: object, **_options: object) -> None:
    """Take the place of a step."""
    raise _KilledError


@pytest.mark.parametrize(
    "step",
    [
        "erase_warehouse", "erase_vectors", "erase_cache", "erase_reports", "forget_keys",
        "_truncate_log", "scan", "count_keys",
    ],
)  # fmt: skip
def test_an_erasure_that_was_killed_is_finished_by_the_next_sync(plain, step, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(forgetting, step, dies_in_test)
        with pytest.raises(_KilledError):
            plain.privacy.forget(user="person-ada")
    assert len(plain.privacy.unfinished()) == 1
    [done] = plain.privacy.resume()
    assert done.receipt["erased"]["aico.db"]["messages"] == 8
    assert plain.privacy.unfinished() == []
    assert files_with(plain.home.path, *CANARIES) == set()


KILLED = """
import sys
from aico_lab.adapters.libsql import Connection
from aico_lab.lab import Lab
from aico_lab.privacy import forgetting
from aico_lab.home.receipts import SealedErasures
from tests.faults import dies

{patch}()
with Lab.open(sys.argv[1]) as lab:
    lab.privacy.forget(user="person-ada")
"""


def test_rows_count_only_once_their_deletion_is_committed(plain, monkeypatch):
    counted = plain.privacy.forget(user="person-ada", dry_run=True).rows
    keep = SealedErasures.keep

    def full(*arguments):
        keep(*arguments)
        raise StorageError("The disk is full.")

    with monkeypatch.context() as patched:
        patched.setattr(SealedErasures, "keep", full)
        for _ in range(2):
            with pytest.raises(StorageError):
                plain.privacy.forget(user="person-ada")
    assert plain.privacy.forget(user="person-ada").rows == counted


@pytest.mark.slow
@pytest.mark.parametrize(
    "patch",
    [
        'dies(SealedErasures, "keep", after=True)',  # before the first commit
        'dies(Connection, "execute", only=lambda _, sql, *__: sql == "VACUUM")',
        'dies(SealedErasures, "keep", number=2)',  # after the last commit
    ],
)
def test_an_erasure_of_a_killed_process_is_finished(plain, patch):
    home = plain.home.path
    plain.close()
    killed = subprocess.run(
        [sys.executable, "-c", KILLED.format(patch=patch), str(home)],
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -9, killed.stderr
    with Lab.open(home) as lab:
        lab.sync(only="warehouse")
        assert len(lab.privacy.receipts()) == 1
        assert lab.privacy.unfinished() == []
        assert files_with(home, *CANARIES) == set()


@pytest.mark.slow
def test_an_erasure_that_failed_is_finished_by_the_next_one(plain, monkeypatch):
    """As on a full disk; then the other one is carried out as well."""

    def full(*_arguments: object) -> None:
        raise StorageError("The disk is full: free some space.")

    with monkeypatch.context() as patched:
        patched.setattr(forgetting, "_truncate_log", full)
        with pytest.raises(StorageError):
            plain.privacy.forget(user="person-ada")
        assert plain.sync(only="warehouse").problems == (
            "An erasure is not finished: The disk is full: free some space.",
        )
    with pytest.raises(ErasureIncomplete, match="1 erasures are not finished"):
        _check_erasures(plain)
    plain.privacy.forget(channel="c")
    assert _check_erasures(plain) == "2 finished, all with an authentic receipt"
    assert [one["scope"]["kind"] for one in plain.privacy.receipts()] == ["user", "channel"]
    assert plain.primary.fetch_all("SELECT count(*) FROM messages") == [(0,)]


@pytest.mark.slow
def test_what_a_restored_database_has_is_erased_again(plain):
    """At opening from the database, and by the next sync from all other stores."""
    home, old = plain.home, copied(plain, "old.db")
    receipt = plain.privacy.forget(user="person-ada").receipt
    plain.close()
    for suffix in ("-wal", "-shm"):
        home.primary.with_name(f"aico.db{suffix}").unlink(missing_ok=True)
    shutil.copy(old, home.primary)
    with Lab.open(home.path) as again:
        assert again.primary.fetch_all("SELECT DISTINCT user_id FROM messages") == [("u",)]
        assert len(again.privacy.unfinished()) == 1
        assert "carried out again" in again.sync().warnings[0]
        first, second = again.privacy.receipts()
        assert (first, second["scope"]) == (receipt, receipt["scope"])
        assert again.privacy.unfinished() == []
        assert files_with(home.path, *CANARIES) == set()


def copied(lab: Lab, name: str) -> Path:
    """Return a copy of the database of an open home."""
    lab.primary.fetch_all("PRAGMA wal_checkpoint(TRUNCATE)")
    copy = lab.home.path.with_name(name)
    shutil.copy(lab.home.primary, copy)
    return copy


def put_in_place(home: Path, former: Path) -> None:
    """Exchange the database of a closed home for a copy of itself."""
    for suffix in ("-wal", "-shm"):
        (home / f"aico.db{suffix}").unlink(missing_ok=True)
    shutil.copy(former, home / "aico.db")


def test_each_erasure_of_a_restored_database_has_its_own_receipt(plain):
    """The first one stays as it is, also between the restoration and the sync."""
    home = plain.home.path
    plain.primary.execute("DELETE FROM messages WHERE message_id IN ('told-0', 'told-1')")
    old = copied(plain, "old.db")
    add(plain.primary, told(0))
    receipts = [plain.privacy.forget(user="person-ada").receipt]
    plain.close()
    for erased in (6, 6):
        put_in_place(home, old)
        with Lab.open(home) as again:
            assert again.privacy.receipts() == receipts
            [done] = again.privacy.resume()
            assert done.receipt["erased"]["aico.db"]["messages"] == erased
            assert again.privacy.resume() == []
            receipts.append(done.receipt)
            assert again.privacy.receipts() == receipts
    assert len({one["erasure_id"] for one in receipts}) == 3


@pytest.mark.parametrize("is_finished", [True, False])
def test_a_repeated_erasure_takes_nothing_that_was_written_after_the_first(plain, is_finished):
    """An older database was put in place by mistake, and erased again; then the newer one."""
    home = plain.home.path
    copies = [copied(plain, "old.db")]
    receipts = [plain.privacy.forget(channel="direct:person-ada").receipt]
    add(plain.primary, told(0))
    copies.append(copied(plain, "new.db"))
    plain.close()
    put_in_place(home, copies[0])
    with Lab.open(home) as again:
        assert again.primary.fetch_all("SELECT count(*) FROM messages") == [(8,)]
        if is_finished:
            receipts += [one.receipt for one in again.privacy.resume()]
            assert receipts[1]["repeats"] == receipts[0]["erasure_id"]
    put_in_place(home, copies[1])
    with Lab.open(home) as new:
        new.privacy.resume()
        assert new.primary.fetch_all("SELECT count(*) FROM messages") == [(9,)]
        assert new.privacy.receipts()[: len(receipts)] == receipts
        assert (len(new.privacy.receipts()), new.privacy.unfinished()) == (2, [])


@pytest.mark.slow
def test_who_reads_a_pinned_snapshot_finishes(plain):
    plain.sync(only="warehouse")
    old = plain.generation
    with Lab.open(plain.home.path, generation=old) as reader:
        assert reader.sql("SELECT count(*) FROM raw.messages").fetchall() == [(16,)]
        result = plain.privacy.forget(user="person-ada")
        assert result.stores["warehouse"]["read"] == 1
        assert reader.sql("SELECT count(*) FROM raw.messages").fetchall() == [(16,)]
    with (
        Lab.open(plain.home.path, generation=old) as late,
        pytest.raises(UnknownName, match="is not kept"),
    ):
        late.sql("SELECT 1")


def test_reports_that_name_a_person_go_and_others_stay(plain):
    for run_id, parameters, page in (
        ("by-parameter", {"user": "person-ada"}, "a page"),
        ("by-page", {}, f"<p>{SECRET} for the 0th time</p>"),
        ("of-others", {"user": "u"}, "Canada"),
    ):
        folder = plain.home.reports / "quality" / run_id
        folder.mkdir(parents=True)
        (folder / "quality.html").write_text(page)
        plain.primary.execute(
            "INSERT INTO report_runs (run_id, report, parameters, generation, notebook_sha256, "
            "status, started_at) VALUES (?, 'quality', ?, 1, '', 'succeeded', '2024')",
            [run_id, json.dumps(parameters)],
        )
    result = plain.privacy.forget(user="person-ada")
    assert result.stores["reports"] == {"runs": 2}
    assert plain.primary.fetch_all("SELECT run_id FROM report_runs") == [("of-others",)]
    assert [path.name for path in (plain.home.reports / "quality").iterdir()] == ["of-others"]


def test_copies_of_the_database_in_the_home_are_removed_or_listed(plain):
    """A restoration that was killed leaves one; nobody needs it."""
    home = plain.home.path
    plain.primary.fetch_all("PRAGMA wal_checkpoint(TRUNCATE)")
    copies = ["aico.db.restored", "aico.db.old"]
    for name in copies:
        shutil.copy(plain.home.primary, home / name)
    assert "aico.db.restored" in _check_temporary(plain)
    result = plain.privacy.forget(user="person-ada")
    assert result.receipt["left"] == {"backups": 1}
    assert [name in " ".join(result.left) for name in copies] == [False, True]
    assert files_with(home, *CANARIES) == {"aico.db.old"}


def test_nothing_is_erased_while_a_change_of_the_key_is_unfinished(plain, monkeypatch):
    """Its copies of stores would bring back what was erased."""
    marker = plain.home.read_marker()
    with monkeypatch.context() as patched:
        patched.setattr(forgetting, "erase_cache", dies_in_test)
        with pytest.raises(_KilledError):
            plain.privacy.forget(channel="c")
    plain.home.rewrite_marker({**marker, "rotation": {"phase": "switching"}})
    for dry_run in (True, False):
        with pytest.raises(InvalidValue, match="run `aico-lab keys rotate` first"):
            plain.privacy.forget(user="person-ada", dry_run=dry_run)
    [problem] = plain.sync(only="warehouse").problems
    assert problem.endswith("is unfinished: run `aico-lab keys rotate` first.")
    plain.home.rewrite_marker(marker)
    assert len(plain.privacy.resume()) == 1
    assert plain.privacy.forget(user="person-ada").rows["messages"] == 8


def test_a_killed_restoration_leaves_nothing_of_a_person_who_was_erased_before(plain):
    """Neither a sync nor an erasure of the person, whom the home does not know any more."""
    plain.privacy.forget(user="person-ada")
    prepared = plain.home.path / "aico.db.restored"
    prepared.write_text(SECRET)
    plain.privacy.resume()
    assert not prepared.exists()
    prepared.write_text(SECRET)
    with pytest.raises(UnknownName):
        plain.privacy.forget(user="person-ada")
    assert not prepared.exists()


def test_files_are_listed_by_what_they_have_and_not_by_their_names(plain):
    (plain.home.path / "notebooks").mkdir()
    (plain.home.path / "notebooks" / "lab.json-mine.ipynb").write_text(SECRET)
    (plain.home.path / ".aico.db.restored.seal.c78bd64d").touch()
    (plain.home.path / "aico.db.damaged-\n\x1b[31mFAIL").touch()
    left = plain.privacy.forget(user="person-ada").left
    copy = "aico.db.damaged-\\n\\x1b[31mFAIL, a copy of aico.db"
    assert left == [
        "notebooks/lab.json-mine.ipynb names what was erased, or shows it.",
        f"{copy}, may still have what was erased: delete it.",
    ]


def test_a_copy_before_a_migration_leaves_what_a_killed_restoration_put_aside(plain):
    folder = plain.home.path / "backups"
    folder.mkdir()
    former, linked, copy = (
        folder / f"aico-2024010{day}T000000000000Z-{why}.db.partial"
        for day, why in enumerate(["replaced", "replaced", "upgrade"])
    )
    former.touch()
    copy.touch()
    linked.hardlink_to(plain.home.primary)  # killed before the exchange
    with plain.primary.transaction():
        back_up(plain.primary, "upgrade")
    assert [path for path in (former, linked, copy) if path.exists()] == [former]


@pytest.mark.slow
def test_notebooks_and_backups_are_listed_and_outputs_removed_when_asked(plain):
    notebook = plain.home.path / "notebooks" / "mine.ipynb"
    notebook.parent.mkdir()
    cell = {
        "cell_type": "code",
        "source": "lab",
        "outputs": [{"text": SECRET + " for the 0th time"}],
    }
    notebook.write_text(json.dumps({"cells": [cell | {"execution_count": 1}]}))
    with plain.primary.transaction():
        backup = back_up(plain.primary, "before-test-1")
    result = plain.privacy.forget(user="person-ada")
    assert result.receipt["left"] == {"notebooks": 1, "backups": 1}
    assert backup.name in result.left[1]
    add(plain.primary, *map(told, range(8)))
    plain.privacy.forget(user="person-ada", reports=True)
    assert json.loads(notebook.read_text())["cells"][0]["outputs"] == []


def lines(path: Path, *messages: dict[str, Any]) -> Path:
    """Write messages as JSONL."""
    path.write_text("\n".join(map(json.dumps, messages)))
    return path


@pytest.mark.slow
def test_an_import_is_undone_exactly(plain, tmp_path):
    """What it added goes, and what it replaced comes back, to the last digit of a score."""
    first = lines(
        tmp_path / "a.jsonl",
        {"message_id": "x", "conversation_id": "k", "user_id": "eve", "role": "user",
         "content": "the first text", "timestamp": "2024-05-01T12:00:00Z",
         "sentiment_score": 0.1234567890123456789, "metadata": {"media": "photo"}},
    )  # fmt: skip
    plain.import_from(first)
    before = dump(plain.primary)
    second = lines(
        tmp_path / "b.jsonl",
        {"message_id": "x", "conversation_id": "k", "user_id": "eve", "role": "user",
         "content": "the edited text", "timestamp": "2024-05-01T12:00:00Z"},
        {"message_id": "y", "conversation_id": "k2", "user_id": "fay", "role": "user",
         "content": "somebody new", "timestamp": "2024-05-01T12:00:01Z"},
    )  # fmt: skip
    result = plain.import_from(second, on_conflict="replace")
    assert (result.updated, result.added) == (1, 1)
    assert plain.import_from(second).import_id is None  # it wrote nothing
    assert read_imports(plain.primary)[0].import_id == result.import_id
    undone = plain.privacy.forget(import_id=result.import_id)
    assert undone.rows["messages restored"] == 1
    assert dump(plain.primary) == before
    assert len(read_imports(plain.primary)) == 1


def test_what_a_later_import_changed_stays_when_the_first_is_undone(plain, tmp_path):
    def edit(text: str) -> Any:
        return plain.import_from(
            lines(
                tmp_path / "a.jsonl",
                {"message_id": "x", "conversation_id": "k", "user_id": "eve", "role": "user",
                 "content": text, "timestamp": "2024-05-01T12:00:00Z"},
            ),
            on_conflict="replace",
        ).import_id  # fmt: skip

    before = dump(plain.primary)
    one, two, three = edit("one"), edit("two"), edit("three")
    text = "SELECT content FROM messages WHERE message_id = 'x'"
    plain.privacy.forget(import_id=two)
    assert plain.primary.fetch_all(text) == [("three",)]
    plain.privacy.forget(import_id=one)
    assert plain.primary.fetch_all(text) == [("three",)]
    plain.privacy.forget(import_id=three)
    assert plain.primary.fetch_all(text) == []
    assert dump(plain.primary) == before


def import_edits(
    connection: Connection, folder: Path, *edits: tuple[str, str | None], place: str = "k"
) -> list[Any]:
    """Import messages with their authors, one by one; return the ids of the imports."""
    ids = []
    for number, (name, user) in enumerate(edits):
        row = {
            "message_id": name, "conversation_id": place, "role": "user", "user_id": user,
            "content": f"text {number}", "timestamp": f"202{number}-05-01T12:00:00Z",
        }  # fmt: skip
        messages = jsonl.read(lines(folder / "a.jsonl", row))
        ids.append(import_batches(connection, messages, source="", on_conflict="replace").import_id)
    return ids


def undo(connection: Connection, import_id: str) -> None:
    """Undo an import in the primary database only."""
    with connection.transaction():
        delete(connection, Scope("import", import_id))


@pytest.mark.parametrize(
    ("edits", "undone", "left"),
    [
        # The second import would have added the person, had the first one not been.
        ([("x", "fay"), ("x", "fay"), ("x", "eve")], [0], {"eve", "fay"}),
        ([("x", "eve"), ("y", "eve"), ("y", "gus")], [0], {"eve", "gus"}),
        ([("x", "eve"), ("y", "eve"), ("y", "gus")], [0, 1], {"gus"}),
        ([("y", "eve"), ("x", "gus"), ("x", "eve")], [0, 2], {"gus"}),
        ([("x", "eve"), ("y", "wrong"), ("x", "wrong")], [1, 2], {"eve"}),
        # An edit without an author left the one of before, who comes back.
        ([("x", "eve"), ("x", None), ("x", "gus")], [0, 2], {"eve"}),
        ([("x", "eve"), ("x", None), ("x", "gus")], [0, 1], {"gus"}),
    ],
)
def test_people_stay_whom_an_import_names_that_is_left(tmp_path, edits, undone, left):
    """Also by what it wrote and a later one replaced; nobody else of undone imports stays."""
    with with_core_schemas(tmp_path / "a.db").connect() as primary:
        ids = import_edits(primary, tmp_path, *edits)
        for number in undone:
            undo(primary, ids[number])
        assert {one for (one,) in primary.fetch_all("SELECT user_id FROM users")} == left
        for number in range(len(edits)):
            undo(primary, ids[number])
        assert primary.fetch_all("SELECT row_key FROM import_rows") == []
        assert primary.fetch_all("SELECT user_id FROM users") == []


def test_a_person_goes_with_the_last_import_that_has_a_memory_of_them(tmp_path):
    """Although another one had added the person."""
    with with_core_schemas(tmp_path / "a.db").connect() as primary:
        first, second = import_edits(primary, tmp_path, ("x", "eve"), ("y", "fay"))
        add_memories(primary, "rain", user="eve")
        primary.execute("INSERT INTO import_rows VALUES (2, 'memories', 'eve:rain', NULL)")
        undo(primary, first)
        assert primary.fetch_all("SELECT 1 FROM users WHERE user_id = 'eve'") == [(1,)]
        undo(primary, second)
        assert primary.fetch_all("SELECT user_id FROM users") == []


@pytest.mark.parametrize("given", [{"before": "2020-06-01"}, {"user": "eve-1"}])
def test_an_erased_former_value_does_not_come_back_with_an_undone_import(plain, tmp_path, given):
    """Nor does the text stay by which that import replaced it."""
    before = dump(plain.primary)
    *_, second = import_edits(plain.primary, tmp_path, ("x", "eve-1"), ("x", "fay"))
    plain.privacy.forget(**given)
    assert b"text 0" not in (plain.home.path / "aico.db").read_bytes()
    assert plain.primary.fetch_all("SELECT content FROM messages WHERE user_id = 'fay'")
    plain.privacy.forget(import_id=second)
    if "user" in given:
        for table in ("messages", "channels"):
            assert dump(plain.primary)[table] == before[table]
    assert plain.primary.fetch_all("SELECT 1 FROM users WHERE user_id = 'fay'") == []


@pytest.mark.parametrize("name", ["k", "direct:visitors"])
def test_a_channel_from_before_the_imports_stays_when_they_are_undone(tmp_path, name):
    with with_core_schemas(tmp_path / "a.db").connect() as primary:
        primary.execute("INSERT INTO channels (channel_id, created_at) VALUES (?, '')", [name])
        for one in import_edits(primary, tmp_path, ("x", "eve"), ("x", "fay"), place=name):
            undo(primary, one)
        assert primary.fetch_all("SELECT channel_id FROM channels") == [(name,)]
        assert primary.fetch_all("SELECT 1 FROM messages") == []


def test_the_own_channel_of_a_person_who_is_gone_goes_with_an_undone_import(plain, tmp_path):
    """Also one that no import has added."""
    place = {"channel_id": "direct:eve-1", "conversation_id": "direct:eve-1"}
    add(plain.primary, message(60, user_id="eve-1", **place))
    row = {
        "message_id": "m60", "conversation_id": "direct:eve-1", "role": "user", "user_id": "fay",
        "content": "other words", "timestamp": "2025-01-01T00:00:00Z",
    }  # fmt: skip
    messages = jsonl.read(lines(tmp_path / "a.jsonl", row))
    done = import_batches(plain.primary, messages, source="", on_conflict="replace")
    plain.privacy.forget(user="eve-1")
    assert plain.primary.fetch_all("SELECT user_id FROM messages WHERE message_id = 'm60'") == [
        ("fay",)
    ]
    plain.privacy.forget(import_id=done.import_id)
    assert plain.primary.fetch_all("SELECT 1 FROM channels WHERE channel_id GLOB '*eve-1'") == []


@pytest.mark.parametrize("is_empty", [True, False])
def test_a_channel_with_the_id_of_a_person_who_is_gone_can_be_forgotten(tmp_path, is_empty):
    with with_core_schemas(tmp_path / "a.db").connect() as primary:
        primary.execute("INSERT INTO channels (channel_id, created_at) VALUES ('direct:eve', '')")
        if not is_empty:
            place = {"channel_id": "direct:eve", "user_id": None, "role": "assistant"}
            add(primary, message(1, **place))
        scope = Scope("user", "eve")
        scope.check(primary)
        with primary.transaction():
            delete(primary, scope)
        assert primary.fetch_all("SELECT channel_id FROM channels") == []
        assert primary.fetch_all("SELECT 1 FROM messages") == []
        with pytest.raises(UnknownName):
            scope.check(primary)


COUNT = 16_000
NUMBERS = f"WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {COUNT})"
MESSAGES = f"""INSERT INTO messages
    (message_id, channel_id, conversation_id, user_id, role, content, timestamp) {NUMBERS} """


def test_forgetting_a_person_in_a_channel_with_many_conversations_is_fast(tmp_path):
    """Each conversation read the whole channel: 20 s more, and 2 minutes for 40,000."""
    scope = Scope("user", "ada")
    with with_core_schemas(tmp_path / "a.db").connect() as primary:
        add(primary, *(message(i, user_id=user) for i, user in enumerate(["ada", "u"])))
        add(primary, message(2, user_id="ada", channel_id="own"))
        for channel in ("c", "own"):
            primary.execute(
                f"""{MESSAGES} SELECT '{channel}-prompt-' || i, '{channel}', i, NULL, 'system',
                    'You are number ' || i, '2024-05-01' FROM n
                UNION ALL SELECT '{channel}-hi-' || i, '{channel}', i, iif(i % 2, 'ada', NULL),
                    iif(i % 2, 'user', 'assistant'), 'hi', '2024-05-01' FROM n"""
            )
        with takes_about(1.5), primary.transaction():
            former = Patterns.of(delete(primary, scope).wanted())
        assert primary.fetch_all("SELECT count(*) FROM messages") == [(COUNT + 1,)]
        primary.execute(
            f"""{MESSAGES} SELECT 'late-' || i, 'c', i, NULL, 'assistant', 'hi', '2025-05-01'
            FROM n WHERE i % 2"""
        )
        with takes_about(0.6), primary.transaction():
            delete(primary, scope, former)
        assert primary.fetch_all("SELECT count(*) FROM messages") == [(COUNT + 1,)]


def test_undoing_an_import_that_added_many_people_is_fast(tmp_path):
    """Each person was compared with each deleted memory, and each event with each person."""
    with with_core_schemas(tmp_path / "a.db").connect() as primary:
        for statement in (
            "INSERT INTO users (user_id, created_at) SELECT 'person-' || i, '' FROM n",
            """INSERT INTO memories
                (memory_id, user_id, content, memory_type, importance, created_at)
                SELECT i, 'person-' || i, 'rain', 'fact', 1, '' FROM n""",
            """INSERT INTO outbox (topic, payload, created_at)
                SELECT 'said', json_object('key', json_array('other-' || i, 'x')), '' FROM n""",
        ):
            primary.execute(f"{NUMBERS} {statement}")
        primary.execute("INSERT INTO imports (import_id, source, started_at) VALUES ('i', '', '')")
        primary.execute(
            "INSERT INTO import_rows SELECT 1, 'users', user_id, NULL FROM users "
            "UNION ALL SELECT 1, 'memories', memory_id, NULL FROM memories WHERE memory_id % 2"
        )
        with takes_about(0.6):
            undo(primary, "i")
        for table in ("users", "memories"):
            assert primary.fetch_all(f"SELECT count(*) FROM {table}") == [(COUNT // 2,)]
        assert primary.fetch_all("SELECT count(*) FROM outbox") == [(COUNT,)]


def test_undoing_an_import_whose_messages_were_edited_later_is_fast(plain):
    """Each message was compared with each edit: 2 s for these, and hours for 200,000."""
    plain.primary.execute_many(
        "INSERT INTO imports (number, import_id, source, started_at) VALUES (?, ?, '', '')",
        [(number, f"import-{number}") for number in range(3)],
    )
    count = 2000
    add(plain.primary, *(told(1000 + number) for number in range(count)))
    plain.primary.execute(
        "INSERT INTO import_ranges SELECT 0, max(id) - ? + 1, max(id) FROM messages", [count]
    )
    plain.primary.execute(
        "INSERT INTO import_rows "
        "SELECT e.value, 'messages', m.id, json_object('user_id', m.user_id) "
        "FROM json_each('[1, 2]') AS e, messages AS m "
        "WHERE m.id >= (SELECT first_id FROM import_ranges)"
    )
    plain.primary.execute(
        "INSERT INTO import_rows VALUES (0, 'users', 'person-ada', NULL), "
        "(0, 'channels', 'direct:person-ada', NULL)"
    )
    with takes_about(0.05):
        undo(plain.primary, "import-0")
    assert plain.primary.fetch_all(
        "SELECT number, former IS NULL, count(*) FROM import_rows WHERE table_name = 'messages' "
        "GROUP BY 1"
    ) == [(1, 1, count), (2, 0, count)]


@pytest.mark.slow
@settings(max_examples=examples(10), deadline=None)
@given(
    imports=st.lists(
        st.dictionaries(st.integers(0, 5), st.sampled_from(["eve", "fay"]), min_size=1),
        min_size=1, max_size=4,
    ),
    data=st.data(),
)  # fmt: skip
def test_an_undone_import_never_happened(imports, data, tmp_path_factory):
    """Whatever the imports before and after it added or edited."""
    undone = data.draw(st.integers(0, len(imports) - 1))
    folder = tmp_path_factory.mktemp("undone")

    def texts(connection: Connection) -> list[Any]:
        return [
            sorted(connection.fetch_all(query))
            for query in (
                "SELECT message_id, user_id, content FROM messages",
                "SELECT user_id FROM users",
                "SELECT channel_id, message_count FROM channels",
            )
        ]

    with (
        with_core_schemas(folder / "a.db").connect() as erased,
        with_core_schemas(folder / "b.db").connect() as never,
    ):
        ids = []
        for number, messages in enumerate(imports):
            path = lines(
                folder / f"{number}.jsonl",
                *(
                    {"message_id": f"m{key}", "conversation_id": f"k-{key}", "role": "user",
                     "user_id": user, "content": f"text {key} of import {number}",
                     "timestamp": "2024-05-01T12:00:00Z"}
                    for key, user in messages.items()
                ),
            )  # fmt: skip
            for connection in (erased, never)[: 1 + (number != undone)]:
                result = import_batches(
                    connection, jsonl.read(path), source="jsonl", on_conflict="replace"
                )
                ids += [result.import_id] if connection is erased else []
        with erased.transaction():
            delete(erased, Scope("import", ids[undone]))
        assert texts(erased) == texts(never)


def test_a_person_with_the_name_of_a_role_takes_nothing_of_others_along(plain):
    add(plain.primary, told(30, user_id="user", channel_id="d", conversation_id="d"))
    plain.primary.execute(
        "INSERT INTO outbox (topic, payload, created_at) VALUES ('said', ?, '2024')",
        [json.dumps({"role": "user", "by": "u"})],
    )
    folder = plain.home.reports / "quality" / "one"
    folder.mkdir(parents=True)
    (folder / "quality.html").write_text("what a user says")
    plain.primary.execute(
        "INSERT INTO report_runs (run_id, report, parameters, generation, notebook_sha256, "
        "status, started_at) VALUES ('one', 'quality', '{\"role\": \"user\"}', 1, '', "
        "'succeeded', '2024')"
    )
    result = plain.privacy.forget(user="user")
    assert result.rows == {"messages": 1, "users": 1, "channels": 1}
    assert result.stores == {}


def test_rows_of_plugins_with_the_id_go(plain):
    """Although nobody declared a reference to the table of people."""
    plain.primary.execute("CREATE TABLE diary_notes (user_id TEXT, note TEXT)")
    plain.primary.execute_many(
        "INSERT INTO diary_notes VALUES (?, ?)", [("person-ada", SECRET), ("u", "rain")]
    )
    result = plain.privacy.forget(user="person-ada")
    assert result.rows["diary_notes"] == 1
    assert plain.primary.fetch_all("SELECT user_id FROM diary_notes") == [("u",)]


def test_what_others_wrote_of_a_person_stays_and_is_counted(plain):
    add(plain.primary, other(50, message_id="of-ada") | {"content": QUOTED})
    assert plain.privacy.forget(user="person-ada").mentioned == 1
    [(text,)] = plain.primary.fetch_all("SELECT content FROM messages WHERE message_id = 'of-ada'")
    assert text == QUOTED


def test_an_erasure_whose_file_was_lost_is_finished_as_far_as_it_is_known(plain, monkeypatch):
    """Its rows are gone; nobody knows any more what else to search for, but the feed has the id."""

    def full(*_arguments: object) -> None:
        raise StorageError("The disk is full: free some space.")

    with monkeypatch.context() as patched:
        patched.setattr(forgetting, "erase_warehouse", full)
        with pytest.raises(StorageError):
            plain.privacy.forget(user="person-ada")
    plain.home.erasures.unlink()
    plain.primary.execute(EVENT, [json.dumps({"user_id": "person-ada"})])
    [done] = plain.privacy.resume()
    assert (done.receipt["searched"]["ids"], done.receipt["lost"]) == (1, True)
    assert "of 1, nobody knew all that was to be searched for" in _check_erasures(plain)
    assert plain.privacy.resume() == []
    assert files_with(plain.home.path, *CANARIES) == set()
    plain.primary.execute("DELETE FROM erasures")
    assert plain.privacy.resume() == []


def test_a_restored_database_with_nothing_of_it_gets_the_receipt(plain):
    """Else a lost `erasures.sealed` could not be written again."""
    receipt = plain.privacy.forget(user="person-ada").receipt
    sealed = SealedErasures(plain.home, plain.storage.keys)
    plain.primary.execute("DELETE FROM erasures")  # as in a backup from before the person
    with Lab.open(plain.home.path) as again:
        assert again.privacy.receipts() == [receipt]
        assert again.privacy.unfinished() == []
    sealed.keep(KeptErasure(receipt["erasure_id"], receipt["scope"]))  # by an earlier version
    plain.primary.execute("DELETE FROM erasures")
    with Lab.open(plain.home.path) as again:
        [second] = again.privacy.receipts()
        assert (again.privacy.is_authentic(second), second["erased"]) == (True, {"aico.db": {}})


def test_an_unfinished_erasure_is_finished_beside_a_database_with_nothing_of_it(plain, monkeypatch):
    """The other stores may still have it."""
    plain.cache.store.put("session:turns:person-ada", {"text": SECRET})
    plain.cache.release()
    with monkeypatch.context() as patched:
        patched.setattr(forgetting, "erase_cache", dies_in_test)
        with pytest.raises(_KilledError):
            plain.privacy.forget(user="person-ada")
    plain.primary.execute("DELETE FROM erasures")
    plain.primary.execute("UPDATE change_log SET row_key = ''")
    [done] = plain.privacy.resume()
    assert done.stores["cache"] == {"folders": 1}
    assert done.rows == {}
    assert plain.privacy.receipts() == [done.receipt]


def test_an_unfinished_erasure_keeps_its_ids_and_texts_beside_a_database_with_some(
    plain, monkeypatch
):
    """An older one was restored meanwhile; another program goes on quoting the others."""
    old = copied(plain, "old.db")
    add(plain.primary, told(60, content=LONG))
    with monkeypatch.context() as patched:
        patched.setattr(forgetting, "erase_cache", dies_in_test)
        with pytest.raises(_KilledError):
            plain.privacy.forget(user="person-ada")
    plain.close()
    put_in_place(plain.home.path, old)
    with Lab.open(plain.home.path) as again:
        for late in ({"text": LONG}, {"message_id": "told-60"}):
            again.primary.execute(EVENT, [json.dumps(late)])
        [done] = again.privacy.resume()
        assert done.rows["messages"] == 8  # of this database, which alone has the receipt
        assert again.primary.fetch_all("SELECT 1 FROM outbox") == []


def test_a_newer_database_put_in_place_of_an_unfinished_erasure_is_erased(plain, monkeypatch):
    """Its messages have higher numbers than all of the database that was erased."""
    home = plain.home.path
    copies = [copied(plain, "old.db")]
    add(plain.primary, *(told(number) for number in range(20, 30)))
    copies.append(copied(plain, "new.db"))
    plain.close()
    put_in_place(home, copies[0])
    with Lab.open(home) as old, monkeypatch.context() as patched:
        patched.setattr(forgetting, "erase_cache", dies_in_test)
        with pytest.raises(_KilledError):
            old.privacy.forget(channel="direct:person-ada")
    put_in_place(home, copies[1])
    with Lab.open(home) as new:
        assert len(new.privacy.resume()) == 1
        assert new.primary.fetch_all("SELECT DISTINCT channel_id FROM messages") == [("c",)]


@pytest.mark.parametrize("given", [{"channel": "c"}, {"conversation": "c"}])
def test_a_repeated_call_erases_what_was_written_since_an_unfinished_one(plain, given, monkeypatch):
    """Whoever asks again means what is there now, as a dry run counts it."""
    with monkeypatch.context() as patched:
        patched.setattr(forgetting, "erase_cache", dies_in_test)
        with pytest.raises(_KilledError):
            plain.privacy.forget(**given)
    add(plain.primary, *map(other, range(40, 45)))
    done = plain.privacy.forget(**given)
    assert done.rows["messages"] == 5
    assert plain.primary.fetch_all("SELECT 1 FROM messages WHERE user_id = 'u'") == []
    first, second = plain.privacy.receipts()
    assert first["erased"]["aico.db"]["messages"] == 8
    assert second == done.receipt


def test_whatever_is_from_before_the_date_and_written_meanwhile_goes(plain, monkeypatch):
    """Nothing of it has an erased id or text."""
    given = {"before": "2024-06-01"}
    with monkeypatch.context() as patched:
        patched.setattr(forgetting, "erase_cache", dies_in_test)
        with pytest.raises(_KilledError):
            plain.privacy.forget(**given)
    add(plain.primary, other(40, channel_id="x", conversation_id="x", user_id="new"))
    add_memories(plain.primary, "old words", user="new")
    plain.primary.execute("UPDATE memories SET created_at = '2023' WHERE user_id = 'new'")
    plain.primary.execute(FEEDBACK.format("conversation_id", "x").replace("'u'", "'new'"))
    [done] = plain.privacy.resume()
    assert done.rows["messages"] == 17
    for table in ("messages", "feedback_events", "memories WHERE user_id = 'new'"):
        assert plain.primary.fetch_all(f"SELECT * FROM {table}") == []


def test_a_repeated_call_finishes_an_unfinished_erasure_or_says_why_not(plain, monkeypatch):
    """Although the home has no such person any more."""
    real = SealedErasures.keep

    def dies_at_the_end(self: SealedErasures, erasure: KeptErasure) -> None:
        if erasure.receipt:
            raise _KilledError
        real(self, erasure)

    def finds(storage: Any, primary: Any, patterns: Any) -> Any:
        result = scan(storage, primary, patterns)
        result.found["cache"] = 1
        return result

    scan = forgetting.scan
    monkeypatch.setattr(forgetting, "scan", finds)
    for _ in range(2):
        with pytest.raises(ErasureIncomplete):
            plain.privacy.forget(user="person-ada")
    monkeypatch.setattr(forgetting, "scan", scan)
    with monkeypatch.context() as patched:
        patched.setattr(SealedErasures, "keep", dies_at_the_end)
        with pytest.raises(_KilledError):
            plain.privacy.forget(user="person-ada")
    done = plain.privacy.forget(user="person-ada")
    assert ([done.receipt], done.rows["messages"]) == (plain.privacy.receipts(), 8)
    with pytest.raises(UnknownName):
        plain.privacy.forget(user="person-ada")


def test_a_damaged_file_of_erasures_is_said(plain):
    plain.privacy.forget(user="person-ada")
    plain.home.erasures.write_bytes(b"{")
    with Lab.open(plain.home.path) as again:
        assert again.primary.fetch_all("SELECT count(*) FROM messages") == [(8,)]
        with pytest.raises(CorruptDatabase, match="is damaged or of another home"):
            again.privacy.unfinished()


async def test_dead_letters_can_be_discarded(plain):
    dal = plain.data_access()
    try:
        [letter] = await dead_letters(dal)
        await outbox.discard(dal, letter.consumer, letter.seq)
        assert await dead_letters(dal) == []
    finally:
        await dal.close()


@pytest.mark.slow
def test_the_command_asks_before_it_erases(plain, in_process):
    """Without a terminal it needs --yes."""
    plain.close()
    where = ("--home", str(plain.home.path))
    refused = in_process("forget", "--user", "person-ada", *where)
    assert (refused.returncode, "--yes" in refused.stderr) == (2, True)
    tried = in_process("forget", "--user", "person-ada", "--dry-run", "--json", *where)
    assert json.loads(tried.stdout)["rows"]["messages"] == 8
    done = in_process("forget", "--user", "person-ada", "--yes", *where)
    assert (done.returncode, "nothing of it is left" in done.stdout) == (0, True)
    unknown = in_process("forget", "--user", "person-ada", "--yes", *where)
    assert (unknown.returncode, unknown.stderr.count("\n")) == (2, 1)


def test_an_erasure_is_finished_beside_people_whose_ids_are_alike(plain):
    """Columns have no separators: `person-1` before a time looks like `person-12` in a page."""
    for number in (1, 12):
        person = f"person-{number}"
        add(
            plain.primary,
            told(
                600 + number,
                user_id=person,
                channel_id=f"direct:{person}",
                conversation_id=f"with-{person}",
                content=f"hello from the person number {number}",
                message_id=f"hello-{number}",
            ),
        )
    result = plain.privacy.forget(user="person-12")
    assert (set(result.found.values()), result.mentioned) == ({0}, 0)
    assert plain.privacy.unfinished() == []


def test_rows_that_were_deleted_are_found_in_unused_space(plain):
    add(plain.primary, *map(told, range(100, 400)))
    wanted = {"one": SECRET.encode()}
    plain.primary.fetch_all("PRAGMA secure_delete = ON")
    plain.primary.execute("VACUUM")
    assert search_pages(plain.primary, wanted).unused == set()
    plain.primary.fetch_all("PRAGMA secure_delete = OFF")
    plain.primary.execute("DELETE FROM messages WHERE message_id = 'told-150'")
    assert search_pages(plain.primary, wanted).unused == {"one"}
    plain.primary.execute("DELETE FROM messages")
    hits = search_pages(plain.primary, wanted | {"no": b"nobody wrote this"})
    assert hits.unused == {"one"}


def test_an_erasure_that_cannot_be_finished_does_not_stop_another(plain, monkeypatch):
    real = forgetting.scan

    def finds(storage: Any, primary: Any, patterns: Any) -> Any:
        result = real(storage, primary, patterns)
        result.found["cache"] = int("person-ada" in patterns.some_ids)
        return result

    monkeypatch.setattr(forgetting, "scan", finds)
    with pytest.raises(ErasureIncomplete):
        plain.privacy.forget(user="person-ada")
    result = plain.privacy.forget(user="u")
    assert result.receipt is not None
    assert "An earlier erasure is not finished" in result.left[-1]
    assert len(plain.privacy.unfinished()) == 1


def test_what_another_program_writes_meanwhile_is_found_and_erased_by_the_next_sync(
    plain, monkeypatch
):
    """Nobody can name the person any more, whose row is gone."""
    real = forgetting.erase_reports

    def writes(connection: Any, *arguments: Any) -> Any:
        with connection.transaction():
            connection.execute(
                "INSERT INTO outbox (topic, payload, created_at) VALUES ('said', ?, '2024')",
                [json.dumps({"user_id": "person-ada", "text": SECRET})],
            )
            connection.execute(
                "INSERT INTO system_state VALUES ('current_user', 'person-ada', '2024')"
            )
        add(connection, told(70, channel_id="g", conversation_id="g"))
        return real(connection, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(forgetting, "erase_reports", writes)
        with pytest.raises(ErasureIncomplete, match=r"is still in aico\.db"):
            plain.privacy.forget(user="person-ada")
    [done] = plain.privacy.resume()
    assert done.rows["messages"] == 9
    assert dict(plain.primary.fetch_all("SELECT topic, payload FROM outbox")) == {}
    assert files_with(plain.home.path, *CANARIES) == set()


LONG = f"{SECRET}, and nobody else has ever heard of it, as I keep it to myself, said the keeper"
EVENT = "INSERT INTO outbox (topic, payload, created_at) VALUES ('late', ?, '2024')"
ANSWER = """INSERT INTO messages (message_id, channel_id, role, timestamp, conversation_id,
    sentiment_source, content, reply_to)
    SELECT 'late', 'g', 'assistant', '2025', c.* FROM (SELECT {0}) AS c WHERE ? = ''"""
LATE = {
    "event of the conversation": (EVENT, {"conversation_id": "with-person-ada"}),
    "event of a message": (EVENT, {"message_id": "told-3"}),
    "event with a long text": (EVENT, {"text": LONG}),
    "feedback": (
        "INSERT INTO feedback_events VALUES ('late', NULL, ?, NULL, 'rating', 'x', 1, '24', NULL)",
        "with-person-ada",
    ),
    "answer": (
        """INSERT INTO messages SELECT 900, 'late', channel_id, ?, NULL, 'assistant', 'zebras?',
        '2024', NULL, NULL, NULL, 'told-3', NULL FROM messages LIMIT 1""",
        "with-person-ada",
    ),
    "event of the 60th message": (EVENT, {"message_id": "many-0"}),
    "events with the texts of 60": (
        """INSERT INTO outbox (topic, payload, created_at)
        SELECT 'late', json_object('text', value), '2024' FROM json_each(?)""",
        [f"the {number}th of many things about zebras" for number in range(60)],
    ),
    "answer in a thread to the 60th message": (ANSWER.format("'thread', NULL, 'x', 'many-0'"), ""),
    "answer in a group to nobody": (ANSWER.format("'g', NULL, 'zebras', NULL"), ""),
}


@pytest.mark.parametrize("what", [*LATE, "event of an import"])
def test_what_is_written_meanwhile_without_the_person_goes_with_the_next_call(
    plain, what, monkeypatch, tmp_path
):
    """It is found by ids, whose rows are gone already."""
    given, statement, value = {"user": "person-ada"}, *LATE.get(what, (EVENT, {"user_id": "eve"}))
    if what == "event of an import":
        line = {"message_id": "e", "user_id": "eve", "role": "user", "content": "one of eve",
                "timestamp": "2024-05-01T12:00:00Z"}  # fmt: skip
        given = {"import_id": plain.import_from(lines(tmp_path / "a.jsonl", line)).import_id}
    group = {"channel_id": "g", "conversation_id": "g", "role": "user"}
    add(
        plain.primary,
        told(60, content=LONG),
        other(99, **group, message_id="of-u"),
        *(
            told(
                100 + at,
                **group,
                message_id=f"many-{at}",
                content=f"the {at}th of many things about zebras",
            )
            for at in range(60)
        ),
    )
    real = forgetting.erase_reports

    def writes(connection: Any, *arguments: Any) -> Any:
        value_ = value if isinstance(value, str) else json.dumps(value)
        connection.execute(statement, [value_])
        return real(connection, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(forgetting, "erase_reports", writes)
        with pytest.raises(ErasureIncomplete, match=r"is still in aico\.db"):
            plain.privacy.forget(**given)
    [done] = plain.privacy.resume()
    assert done.receipt["mentioned"] == 0
    assert plain.privacy.unfinished() == []
    for table in (
        "outbox WHERE topic = 'late'",
        "feedback_events",
        "messages WHERE message_id = 'late'",
    ):
        assert plain.primary.fetch_all(f"SELECT * FROM {table}") == []
    assert plain.primary.fetch_all("SELECT 1 FROM messages WHERE message_id = 'of-u'")


def test_a_late_answer_to_somebody_else_in_the_group_stays(plain, monkeypatch):
    """Whoever wrote between the person and the companion, also after the erasure began."""
    group = {"channel_id": "g", "conversation_id": "g"}
    add(plain.primary, other(20, **group, message_id="of-u", role="user"), told(30, **group))
    real = forgetting.erase_reports

    def writes(connection: Any, *arguments: Any) -> Any:
        answer = group | {"role": "assistant", "user_id": None}
        add(
            connection,
            other(21, **answer, message_id="to-u"),
            other(40, **group, message_id="of-u-again", role="user"),
            other(41, **answer, message_id="to-u-again"),
        )
        return real(connection, *arguments)

    monkeypatch.setattr(forgetting, "erase_reports", writes)
    assert plain.privacy.forget(user="person-ada").found["aico.db"] == 0
    kept = plain.primary.fetch_all("SELECT message_id FROM messages WHERE channel_id = 'g'")
    assert {one for (one,) in kept} == {"of-u", "to-u", "of-u-again", "to-u-again"}


def test_the_key_of_a_person_who_came_back_and_was_deleted_leaves_the_feed(plain, monkeypatch):
    real = forgetting.erase_reports

    def writes(connection: Any, *arguments: Any) -> Any:
        connection.execute("INSERT INTO users (user_id, created_at) VALUES ('person-ada', '2024')")
        connection.execute("DELETE FROM users WHERE user_id = 'person-ada'")
        return real(connection, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(forgetting, "erase_reports", writes)
        with pytest.raises(ErasureIncomplete, match=r"is still in aico\.db"):
            plain.privacy.forget(user="person-ada")
    [done] = plain.privacy.resume()
    assert done.receipt["found"]["aico.db"] == 0
    assert files_with(plain.home.path, *CANARIES) == set()


@pytest.mark.parametrize(
    "given",
    [{"user": "person-ada"}, {"channel": "direct:person-ada"}, {"conversation": "with-person-ada"}],
)
def test_what_others_write_meanwhile_in_an_erased_conversation_stays(plain, given, monkeypatch):
    """With the companion's answers to them, but not with those to nobody before."""
    real = forgetting.erase_reports
    place = {"channel_id": "direct:person-ada", "conversation_id": "with-person-ada"}
    answer = place | {"role": "assistant", "user_id": None}

    def writes(connection: Any, *arguments: Any) -> Any:
        add(
            connection,
            other(79, **answer | {"conversation_id": "new"}, message_id="to-nobody"),
            other(80, **place, message_id="late", role="user"),
            other(81, **answer, message_id="to-u"),
        )
        return real(connection, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(forgetting, "erase_reports", writes)
        with pytest.raises(ErasureIncomplete):
            plain.privacy.forget(**given)
    assert len(plain.privacy.resume()) == 1
    left = plain.primary.fetch_all("SELECT message_id FROM messages WHERE id > 16")
    stays = [] if "channel" in given else [("to-nobody",)]
    assert left == [*stays, ("late",), ("to-u",)]


@pytest.mark.parametrize(
    "given", [{"channel": "direct:person-ada"}, {"conversation": "with-person-ada"}]
)
def test_what_was_erased_and_is_written_again_meanwhile_goes(plain, given, monkeypatch):
    """By its id or its text, with late answers to it; what somebody else began stays."""
    place = {"channel_id": "direct:person-ada", "conversation_id": "with-person-ada"}
    answer = place | {"role": "assistant", "user_id": None}
    with monkeypatch.context() as patched:
        patched.setattr(forgetting, "erase_cache", dies_in_test)
        with pytest.raises(_KilledError):
            plain.privacy.forget(**given)
    add(
        plain.primary,
        *(told(number, content="short") for number in (0, 2)),
        told(82, message_id="copy", content=f"{SECRET} for the 4th time"),
        told(83, message_id="on-copy", role="user", content=f"{SECRET} for the 5th time"),
        told(83, **answer, message_id="to-copy", content=f"{SECRET} for the 7th time"),
        other(84, **place, message_id="late", role="user"),
        other(85, **answer, message_id="to-u"),
        told(85, **answer, message_id="stock", content=f"{SECRET} for the 4th time"),
        other(86, **answer, message_id="to-told"),
        other(87, **answer, message_id="on"),
        told(6, content="after"),
    )
    answers = {
        "to-told": "told-4", "on": "to-told", "to-u": "late", "stock": "late", "on-copy": "copy",
        "to-copy": "on-copy",
    }  # fmt: skip
    for name, to in answers.items():
        plain.primary.execute("UPDATE messages SET reply_to = ? WHERE message_id = ?", [to, name])
    assert len(plain.privacy.resume()) == 1
    left = plain.primary.fetch_all("SELECT message_id FROM messages WHERE id > 16")
    assert left == [("late",), ("to-u",), ("stock",)]


def test_a_greeting_in_a_conversation_of_the_same_name_elsewhere_stays(plain, monkeypatch):
    """Conversations of two channels may have the same id; only one was the person's."""
    real = forgetting.erase_reports

    def writes(connection: Any, *arguments: Any) -> Any:
        late = {"role": "assistant", "user_id": None, "conversation_id": "with-person-ada"}
        add(connection, other(80, **late, message_id="greeting"))
        return real(connection, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(forgetting, "erase_reports", writes)
        with pytest.raises(ErasureIncomplete):
            plain.privacy.forget(user="person-ada")
    assert len(plain.privacy.resume()) == 1
    assert plain.primary.fetch_all("SELECT 1 FROM messages WHERE message_id = 'greeting'")


def test_a_late_greeting_goes_although_an_earlier_version_began_the_erasure(plain, monkeypatch):
    """It kept the ids of conversations without their channels."""
    place = {"channel_id": "c", "conversation_id": "mine"}
    add(plain.primary, told(20, **place))
    with monkeypatch.context() as patched:
        patched.setattr(forgetting, "erase_cache", dies_in_test)
        with pytest.raises(_KilledError):
            plain.privacy.forget(user="person-ada")
    kept = SealedErasures(plain.home, plain.storage.keys)
    [begun] = kept.read()
    del begun.wanted["alone"]
    kept.keep(begun)
    late = {"role": "assistant", "user_id": None, "message_id": "late"}
    add(plain.primary, other(80, **place, **late))
    assert len(plain.privacy.resume()) == 1
    left = plain.primary.fetch_all("SELECT DISTINCT conversation_id FROM messages")
    assert left == [("c",)]


def test_words_of_themes_go_although_the_texts_were_deleted_before(plain):
    plain.primary.execute("DELETE FROM messages WHERE user_id = 'person-ada'")
    plain.primary.execute(
        "INSERT INTO explorations (exploration_id, created_at, model, parameters, seed, passages) "
        "VALUES ('e', '2024', 'm', '{}', 1, 8)"
    )
    plain.primary.execute("INSERT INTO themes VALUES ('e', 0, 'zebras', '[\"zebras\"]', 8, x'00')")
    plain.privacy.forget(user="person-ada")
    assert plain.primary.fetch_all("SELECT * FROM themes") == []
    assert files_with(plain.home.path, "zebras") == set()


def test_keys_that_stay_in_the_feed_are_found(plain, monkeypatch):
    monkeypatch.setattr(forgetting, "forget_keys", lambda *_: None)
    with pytest.raises(ErasureIncomplete, match=r"is still in aico\.db"):
        plain.privacy.forget(user="person-ada")


def test_people_without_an_id_are_others(plain):
    group = {"channel_id": "g", "conversation_id": "g", "metadata": None}
    add(
        plain.primary,
        told(30, **group, role="user"),
        other(31, **group, message_id="nobody", role="user", user_id=None),
    )
    plain.primary.execute("UPDATE messages SET user_id = NULL WHERE message_id = 'nobody'")
    plain.privacy.forget(user="person-ada")
    assert plain.primary.fetch_all("SELECT message_id FROM messages WHERE channel_id = 'g'") == [
        ("nobody",)
    ]


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"body { font-weight: 400 }", False),
        (b'<td>400</td> {"data": [1], "user": "u"} <p class="data">general sync data</p>', False),
        (b'{"user": "data"}', True),
        (rb"{\"channel\": \"general\"}", True),
        (b"<td>sync</td>", True),
        (b"a talk of Ada's", True),
        (b"<p>p-0012, and others</p>", True),
        (b"p-00123", False),
    ],
)
def test_files_name_a_person_by_names_and_long_ids_only(content, named, tmp_path):
    """Short ids and words only as a whole value; ids of messages that are numbers not at all."""
    patterns = Patterns(
        {
            "user_id": ("data", "sync", "P-0", "p-0012"),
            "channel_id": ("general",),
            "conversation_id": ("42",),
            "message_id": ("400", "401"),
        },
        ("Ada",),
        (),
    )
    (tmp_path / "page.html").write_bytes(content)
    assert patterns.named_by(tmp_path / "page.html") == named


def test_records_of_pipelines_keep_names_of_steps():
    patterns = Patterns({"user_id": ("u1",)}, ("sync", "Ada Byron"), ())
    text = b'{"step": "sync-2", "run": "sync", "error": "Ada Byron is unknown"}'
    masked = patterns.word(values=False).sub(b"-", text)
    assert masked == b'{"step": "sync-2", "run": "sync", "error": "- is unknown"}'


def test_values_that_equal_a_short_id_stay(plain):
    add(plain.primary, told(40, user_id="1", channel_id="d", conversation_id="d"))
    events = {
        "theirs": {"user": 1},
        "quoted": {"said": f"{SECRET} for the 40th time"},
        "key": {"key": json.dumps(["1", "topic"])},
        "stays": {"user": "2", "repeat": "1", "text": 'say \\"1\\"'},
    }
    plain.primary.execute_many(
        "INSERT INTO outbox (topic, payload, created_at) VALUES (?, ?, '2024')",
        [(topic, json.dumps(payload)) for topic, payload in events.items()],
    )
    plain.primary.execute_many(
        "INSERT INTO system_state VALUES (?, ?, '2024')",
        [("done", "1"), ("greeting", 'Say "1" to begin'), ("last_user", "1")],
    )
    plain.privacy.forget(user="1")
    topics = plain.primary.fetch_all("SELECT topic FROM outbox WHERE topic <> 'said'")
    assert topics == [("stays",)]
    kept = plain.primary.fetch_all(
        "SELECT key FROM system_state WHERE key IN ('done', 'greeting', 'last_user') ORDER BY key"
    )
    assert kept == [("done",), ("greeting",)]


def test_a_dead_letter_goes_if_it_names_the_person_and_not_somebody_with_a_longer_id(plain):
    add(plain.primary, *(told(100 + one, user_id=f"user-{one}") for one in (1, 12)))
    texts = [
        ("no", "user-12 failed"),
        ("to user-123", "no"),
        ("no", "user-1 failed"),
        ("'user-1'", "no"),
        ("no: -user-1-", "no"),
        ("no", "user-1-admin failed"),
        ("no", "admin-user-1 failed"),
    ]
    plain.primary.execute_many(
        "INSERT INTO dead_letters VALUES ('near', ?, 'said', '{}', '2024', 3, ?, ?, '2024')",
        [(number, *both) for number, both in enumerate(texts)],
    )
    plain.privacy.forget(user="user-1")
    left = plain.primary.fetch_all("SELECT seq FROM dead_letters WHERE consumer = 'near'")
    assert left == [(0,), (1,), (5,), (6,)]


def test_a_person_whose_row_was_deleted_can_be_forgotten(plain):
    plain.primary.execute("DELETE FROM users WHERE user_id = 'person-ada'")
    assert plain.privacy.forget(user="person-ada").mentioned == 0, "keys in the feed are no texts"
    keys = plain.primary.fetch_all("SELECT row_key FROM change_log WHERE table_name <> 'memories'")
    assert "person-ada" not in str(keys)
    with pytest.raises(UnknownName):
        plain.privacy.forget(user="person-ada")


def test_former_databases_of_restorations_are_listed(plain):
    (plain.home.path / "backups").mkdir()
    (plain.home.path / "backups" / "aico-20240101T000000000000Z-replaced.db.partial").touch()
    (plain.home.path / "aico.db.damaged-20240101T000000Z").touch()
    result = plain.privacy.forget(user="person-ada")
    assert result.receipt["left"] == {"backups": 2}


def test_a_sync_refuses_a_damaged_file_of_erasures_before_it_publishes(plain):
    plain.privacy.forget(user="person-ada")
    plain.home.erasures.write_bytes(b"{")
    with Lab.open(plain.home.path) as again:
        with pytest.raises(CorruptDatabase, match="is damaged or of another home"):
            again.sync(only="warehouse")
        assert not again.home.snapshots.exists() or not [*again.home.snapshots.iterdir()]


def test_a_lost_file_of_erasures_is_written_again_from_the_receipts(plain):
    plain.privacy.forget(user="person-ada")
    before = SealedErasures(plain.home, plain.storage.keys).read()
    plain.home.erasures.unlink()
    with Lab.open(plain.home.path) as again:
        assert again.privacy.unfinished() == []
        assert SealedErasures(again.home, again.storage.keys).read() == before


@pytest.mark.parametrize("receipt", [None, "text", [], {}, {"signature": "é"}, {"signature": b"x"}])
def test_what_is_no_receipt_is_not_authentic(receipt):
    assert not is_authentic(receipt, b"key")


def test_undoing_an_import_keeps_replies_and_removes_the_person_of_an_edit(plain, tmp_path):
    def line(name: str, **changes: Any) -> dict[str, Any]:
        return {
            "message_id": name, "conversation_id": "k", "user_id": "eve", "role": "user",
            "content": f"text of {name}", "timestamp": "2024-05-01T12:00:00Z",
        } | changes  # fmt: skip

    plain.import_from(lines(tmp_path / "a.jsonl", line("x"), line("y", reply_to="message-z")))
    before = dump(plain.primary)
    second = lines(
        tmp_path / "b.jsonl", line("x", user_id="wrong", content="edited"), line("message-z")
    )
    undone = plain.import_from(second, on_conflict="replace").import_id
    result = plain.privacy.forget(import_id=undone)
    assert (dump(plain.primary), set(result.found.values())) == (before, {0})
