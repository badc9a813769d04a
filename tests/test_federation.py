"""Two devices of a person, and the folder between them."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import random
import re
import secrets
import shutil
import zlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from aico_lab.adapters import age
from aico_lab.adapters.libsql import LibSQLAdapter
from aico_lab.errors import (
    DeviceRevoked,
    DiskFull,
    FolderUnusable,
    InvalidValue,
    MigrationFailed,
    NotFederated,
    UnknownName,
)
from aico_lab.federation import applying, bundles, conflicts, epochs, overview, sealing, spool
from aico_lab.federation.bundles import Ctx, FileName, Header, RowChange, hash_of, parse_name
from aico_lab.federation.replica import Replica
from aico_lab.federation.rows import Version, digest_of, stored_versions
from aico_lab.federation.spool import Spool
from aico_lab.federation.syncing import Federation
from aico_lab.federation.tables import CLASSES
from aico_lab.schema import (
    CORE,
    SchemaRegistry,
    SchemaVersion,
    federated,
    feed,
    register_schema,
)
from tests.databases import with_core_schemas

USER = "INSERT INTO users VALUES (?, ?, '2024', NULL)"
MEMORY = "INSERT INTO memories VALUES (?, 'eve', 'x', 'fact', 1, '2024', NULL)"
MESSAGE = (
    "INSERT INTO messages (message_id, channel_id, conversation_id, user_id, role, content, "
    "timestamp) VALUES (?, 'c', 'c', 'eve', 'user', 'x', '2024-05-01T12:30:00.000000Z')"
)
PROFILE = (
    "INSERT INTO personality_profiles (profile_id, user_id, version, traits, active_from) "
    "VALUES (?, 'ada', 1, '{}', '2024-05-01')"
)
RENAME = "UPDATE users SET name = ? WHERE user_id = 'ada'"


class Device(Federation):
    """A device whose clock a test sets."""

    def run(self, sql, *parameters, at=1_700_000_000_000):
        connection = self.replica.connection
        self.replica.now = lambda: at
        with connection.transaction():
            before = self.one("SELECT coalesce(max(seq), 0) FROM change_log")
            connection.execute(sql, parameters)
            connection.execute(
                "UPDATE change_log SET at = CAST(? AS INTEGER) WHERE seq > ?", [str(at), before]
            )

    def one(self, sql, *parameters):
        row = self.replica.connection.fetch_one(sql, parameters)
        return row[0] if row else None

    @property
    def name(self):
        return self.one("SELECT name FROM users WHERE user_id = 'ada'")


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "shared"
    made.mkdir()
    return made


@pytest.fixture
def make(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)

    def made(name):
        (tmp_path / name).mkdir()
        connection = with_core_schemas(tmp_path / name / "lab.db").connect()
        return Device(connection, tmp_path / name / "federation")

    return made


@pytest.fixture
def two(make, folder):
    a, b = make("a"), make("b")
    a.begin("laptop")
    b.join(json.loads(json.dumps(a.invite(b.create_keys(), "phone"))))
    a.run(USER, "ada", "Ada")
    meet(folder, a, b)
    return a, b


def meet(folder, *devices):
    for device in (*devices, *devices, *devices):
        device.sync(folder)


def test_rows_come_to_the_other_device_and_nothing_is_sent_back(two, folder):
    a, b = two
    assert b.name == "Ada"
    assert a.verify(with_=b.verify().verified.proof).buckets == {}
    files = list(folder.glob("*/*"))
    meet(folder, a, b)
    assert list(folder.glob("*/*")) == files


def test_the_tables_of_the_classes_are_those_of_the_schema(two):
    """A table of people's rows that is in the change feed, but in no class, would stay behind."""
    tables = two[0].replica.tables
    tracked = set(feed.tracked_tables(two[0].replica.connection))
    assert tracked - set(tables) == {
        "devices", "embeddings", "explorations", "knowledge_chunks", "knowledge_documents",
        "passage_themes", "themes",
    }  # fmt: skip
    assert "message_count" not in tables["channels"].columns
    assert "id" not in tables["messages"].columns


def test_of_equal_stamps_both_devices_choose_the_same_row(two, folder):
    a, b = two
    a.run(RENAME, "Ada L.", at=1_800_000_000_000)
    b.run(RENAME, "Ada K.", at=1_800_000_000_000)
    meet(folder, a, b)
    assert a.name == b.name


def test_a_row_from_a_clock_in_the_far_future_can_still_be_changed(two, folder):
    a, b = two
    a.run(RENAME, "of 2256", at=2**53)
    for at, one in enumerate([a, b, a, b]):
        one.run(RENAME, f"later {at}", at=1_800_000_000_000 + at)
        meet(folder, a, b)
        assert (a.name, b.name) == (f"later {at}", f"later {at}")


def test_without_a_tie_break_devices_differ(two, folder, monkeypatch):
    monkeypatch.setattr(applying, "order", lambda version: (version.cl, version.stamp))
    with pytest.raises(AssertionError):
        test_of_equal_stamps_both_devices_choose_the_same_row(two, folder)


def test_a_deletion_wins_over_a_later_change_that_did_not_know_of_it(two, folder):
    a, b = two
    b.run(RENAME, "later", at=1_900_000_000_000)
    b.sync(folder)
    a.run("DELETE FROM users", at=1_800_000_000_000)
    meet(folder, a, b)
    assert (a.name, b.name) == (None, None)


def test_a_change_that_lost_to_a_deletion_is_kept_on_all_devices(two, make, folder):
    a, b = two
    c = with_third(two, make, folder)
    a.run("DELETE FROM users", at=1_800_000_000_000)
    b.run(RENAME, "later", at=1_900_000_000_000)
    meet(folder, a, b, c)
    for one in (a, b, c):
        ((kind, lost, kept),) = [(x.kind, x.lost["name"], x.kept) for x in one.conflicts()]
        assert (kind, lost, kept) == ("deleted", "later", {})
    c.resolve(c.conflicts()[0].number, "theirs")
    meet(folder, a, b, c)
    assert {(one.name, len(one.conflicts())) for one in (a, b, c)} == {("later", 0)}


def test_a_change_that_lost_to_a_row_of_the_same_key_is_kept(two, make, folder):
    """Such as of an import that was undone and repeated."""
    a, b = two
    c = with_third(two, make, folder)
    a.run("DELETE FROM users")
    a.seal()
    a.run(USER, "ada", "Ada again")
    b.run(RENAME, "of b")
    meet(folder, a, b, c)
    for one in (a, b, c):
        assert one.name == "Ada again"
        assert [found.lost["name"] for found in one.conflicts()] == ["of b"]


@pytest.mark.parametrize("later", [0, 1])
def test_equal_rows_of_two_devices_are_kept_if_one_of_them_deletes_its_own(
    two, make, folder, later
):
    """Such as by an import of the same file that is undone on one of them."""
    c = with_third(two, make, folder)
    for at, one in enumerate(two):
        one.run(USER, "eve", "Eve", at=1_800_000_000_000 + abs(at - later))
        one.run(CHANNEL)
        one.run(MESSAGE, "m", at=1_800_000_000_000 + abs(at - later))
        one.seal()
    a, b = two
    b.run("DELETE FROM users WHERE user_id = 'eve'")
    meet(folder, b, c, a)
    for one in (a, b, c):
        assert one.one("SELECT count(*) FROM messages") == 0
        found = {x.key: (x.kind, x.device_id) for x in one.conflicts()}
        assert found == dict.fromkeys(["eve", "m"], ("deleted", a.replica.device_id))
    a.resolve(next(x.number for x in a.conflicts() if x.key == "m"), "mine")
    meet(folder, a, b, c)
    for one in (a, b, c):
        assert one.one("SELECT count(*) FROM messages") == 1


def test_unsealed_changes_must_be_sealed_before_others_are_applied(two, folder, monkeypatch):
    sealed = []
    monkeypatch.setattr(applying, "seal", lambda r: sealing.seal(r) if sealed else sealed.append(1))
    with pytest.raises(AssertionError):
        test_a_deletion_wins_over_a_later_change_that_did_not_know_of_it(two, folder)


def restored(device, tmp_path):
    """Return a device as it was saved, without the bundles of its own folder."""
    device.replica.connection.close()
    path = device.replica.connection.path
    for end in ("-wal", "-shm"):
        path.with_name(path.name + end).unlink(missing_ok=True)
    shutil.copyfile(tmp_path / "saved.db", path)
    shutil.rmtree(device.folder)
    return Device(LibSQLAdapter(path).connect(), device.folder)


def came_and_went_after_a_restored_backup(two, folder, tmp_path):
    """Return whether each device still has a row that was deleted last."""
    a, b = two
    a.replica.connection.fetch_all("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copyfile(a.replica.connection.path, tmp_path / "saved.db")
    a.run(USER, "eve", "Eve")
    meet(folder, a, b)
    a = restored(a, tmp_path)
    a.run(USER, "eve", "Eve")
    a.run("DELETE FROM users WHERE user_id = 'eve'")
    meet(folder, a, b)
    return [device.one("SELECT count(*) FROM users WHERE user_id = 'eve'") for device in (a, b)]


def test_a_row_that_came_and_went_is_deleted_also_where_it_was_published(two, folder, tmp_path):
    """The restored home has forgotten that it published the row."""
    assert came_and_went_after_a_restored_backup(two, folder, tmp_path) == [0, 0]


def test_without_its_tombstone_the_row_is_back(two, folder, tmp_path, monkeypatch):
    found = sealing._next_length
    monkeypatch.setattr(
        sealing,
        "_next_length",
        lambda old, digest, *, is_deleted, **others: found(
            old, digest, is_deleted=is_deleted and old is not None, **others
        ),
    )
    assert came_and_went_after_a_restored_backup(two, folder, tmp_path) == [1, 1]


CHANNEL = "INSERT INTO channels (channel_id, created_at) VALUES ('c', '2024')"


def keeps_what_came_and_went_elsewhere(folder, a, b):
    a.run(USER, "eve", "Eve")
    a.run(CHANNEL)
    a.run(MESSAGE, "m")
    for sql in (CHANNEL, MESSAGE.replace("?", "'m'")):
        b.run("INSERT INTO users VALUES ('eve', 'Eve', '2024', NULL) ON CONFLICT DO NOTHING")
        b.run(sql)
    b.run("DELETE FROM users WHERE user_id = 'eve'")
    b.run("DELETE FROM channels")
    meet(folder, b, a)
    for one in (a, b):
        assert one.one("SELECT count(*) FROM messages") == 1
        assert one.conflicts() == []


def test_a_row_that_came_and_went_deletes_none_of_another_device(two, folder):
    """Such as by an import that was undone before the devices met."""
    keeps_what_came_and_went_elsewhere(folder, *two)


def test_a_plugin_that_is_deactivated_does_not_make_a_home_seem_restored(two, folder, stamps):
    a, b = two
    stamps.apply_plugin_schema("stamps", b.replica.connection)
    (b,) = with_plugins(b)
    b.run("INSERT INTO stamps_owned VALUES ('s', 'a blue one')")
    meet(folder, a, b)
    stamps.remove_plugin_schema("stamps", b.replica.connection)
    (b,) = with_plugins(b)
    keeps_what_came_and_went_elsewhere(folder, a, b)


@pytest.fixture
def orphaned(two, make, folder):
    """Three devices; one deleted a user, and so the rows of another one, which it did not know."""
    a, b = two
    c = with_third(two, make, folder)
    a.run(USER, "eve", "Eve")
    a.run(CHANNEL)
    a.run(MESSAGE, "known")
    meet(folder, a, b, c)
    b.run(MESSAGE, "unknown")
    b.run("UPDATE messages SET content = 'of b' WHERE message_id = 'unknown'")
    a.run("DELETE FROM users WHERE user_id = 'eve'")
    a.run("DELETE FROM channels")
    meet(folder, a, b, c)
    return a, b, c


def test_rows_that_another_device_deleted_without_knowing_are_kept_for_a_person(orphaned, folder):
    a, b, _ = orphaned
    for one in orphaned:
        assert one.one("SELECT count(*) FROM messages") == 0
    found = {one.key: one for one in b.conflicts()}
    assert found.keys() == {"eve", "c", "unknown"}
    assert (found["unknown"].kind, found["unknown"].lost["content"]) == ("deleted", "of b")
    with pytest.raises(InvalidValue, match="'eve' of users, which was deleted"):
        a.resolve(a.conflicts()[0].number, "theirs")
    b.resolve(found["unknown"].number, "mine")
    meet(folder, *orphaned)
    for one in orphaned:
        assert one.one("SELECT group_concat(message_id) FROM messages") == "unknown"
        assert one.conflicts() == []
    assert a.verify(with_=b.verify().verified.proof).buckets == {}


def test_that_rows_stay_deleted_is_decided_for_all_devices(orphaned, folder):
    a, b, c = orphaned
    for one in b.conflicts():
        b.resolve(one.number, "theirs" if one.key == "unknown" else "mine")
    meet(folder, a, b, c)
    for one in orphaned:
        assert one.one("SELECT count(*) FROM messages") == 0
        assert one.conflicts() == []
    assert b.one("SELECT count(*) FROM users WHERE user_id = 'eve'") == 0


def test_many_conflicts_are_decided_at_once_or_none(orphaned, folder):
    a, b, c = orphaned
    with pytest.raises(UnknownName):
        b.resolve([b.conflicts()[0].number, 99], "mine")
    with pytest.raises(InvalidValue, match="which was deleted"):
        a.resolve([one.number for one in a.conflicts()], "theirs")
    b.resolve_all("mine")
    meet(folder, a, b, c)
    for one in orphaned:
        assert one.one("SELECT group_concat(message_id) FROM messages") == "unknown"
        assert one.conflicts() == []


@pytest.mark.parametrize("is_edited", [False, True])
def test_rows_of_a_device_that_joins_are_as_old_as_their_last_change(two, make, folder, is_edited):
    """Such as messages of the same file: its import later on is no change."""
    a, b = two
    a.run(RENAME, "corrected", at=1_800_000_000_000)
    meet(folder, a, b)
    c = make("c")
    c.run(USER, "ada", "Ada", at=1_900_000_000_000)
    if is_edited:
        c.run(RENAME, "from c", at=1_850_000_000_000)
    c.replica.now = lambda: 1_950_000_000_000
    c.join(a.invite(c.create_keys(), "desktop"))
    meet(folder, a, b, c)
    assert {one.name for one in (a, b, c)} == {"from c" if is_edited else "corrected"}


def test_what_a_restored_home_sent_in_lost_bundles_is_sent_again(two, folder, tmp_path):
    a, b = two
    a.run(USER, "eve", "Eve")
    a.seal()
    a.replica.connection.fetch_all("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copyfile(a.replica.connection.path, tmp_path / "saved.db")
    a = restored(a, tmp_path)
    meet(folder, a, b)
    assert b.one("SELECT count(*) FROM users WHERE user_id = 'eve'") == 1


@pytest.fixture
def merged(monkeypatch):
    """Numbers of rows that were compared with their versions, for every call."""
    numbers = []
    merge = applying._Applying.merge

    def noting(self, changes, ctx):
        numbers.append(sum(map(len, changes.values())))
        merge(self, changes, ctx)

    monkeypatch.setattr(applying._Applying, "merge", noting)
    return numbers


def test_rows_are_sent_after_those_that_they_refer_to(two, folder, monkeypatch, merged):
    """In whatever order a set has its classes, which is another one in every process."""
    monkeypatch.setattr(
        Replica, "own_classes", property(lambda _: dict.fromkeys(reversed(CLASSES)).keys())
    )
    a, b = two
    a.run(USER, "eve", "Eve")
    a.run("INSERT INTO channels (channel_id, created_at) VALUES ('c', '2024')")
    for number in range(3):
        a.run(MESSAGE, f"m{number}")
        a.run(MEMORY, f"e{number}")
    a.sync(folder)
    merged.clear()
    b.sync(folder)
    assert merged == [2, 3, 3]  # none was parked and tried again


def test_messages_keep_their_order_on_other_devices(two, make, folder):
    """Those of the same time are in the order in which they were stored."""
    a, b = two
    a.run(USER, "eve", "Eve")
    a.run("INSERT INTO channels (channel_id, created_at) VALUES ('c', '2024')")
    keys = ["m5", "m9", "m1", "m3"]
    for key in ("m5", "m1", "m9"):
        a.run(MESSAGE, key)
    a.run("DELETE FROM messages WHERE message_id = 'm1'")
    a.run(MESSAGE, "m1")
    a.run("UPDATE messages SET content = 'edited' WHERE message_id = 'm5'")
    meet(folder, a, b)
    a.run(MESSAGE, keys[3])
    a.compact()
    meet(folder, a, b)
    c = make("c")
    c.join(a.invite(c.create_keys(), "desktop"))
    meet(folder, a, c)
    for one in (a, b, c):
        rows = one.replica.connection.fetch_all("SELECT message_id FROM messages ORDER BY id")
        assert [key for (key,) in rows] == keys


def with_third(two, make, folder):
    a, b = two
    c = make("c")
    c.join(a.invite(c.create_keys(), "desktop"))
    meet(folder, a, b, c)
    return c


def test_parked_rows_are_tried_again_when_their_parent_has_come(two, make, folder, merged):
    a, b = two
    c = with_third(two, make, folder)
    a.run(USER, "eve", "Eve")
    meet(folder, a, b)
    for number in range(30):
        b.run(MEMORY, f"e{number}")
    b.seal()
    for number in range(5):
        b.run(USER, f"u{number}", "U")
        b.seal()
    spool = b.replica.spool
    merged.clear()
    for device in (b, a):
        for name in spool.names() - c.replica.spool.names():
            if name.startswith(device.replica.device_id):
                c.replica.spool.take(name, spool.read(name))
        c.take_in()
        c.take_in()
        c.seal()
    # Bundles of b, the first with 30 rows; the user; the 30 rows, all at once.
    assert sorted(merged) == [1] * 6 + [30, 30]
    assert c.one("SELECT count(*) FROM memories") == 30
    assert c.one("SELECT count(*) FROM sync_parked") == 0


def test_a_refused_row_is_tried_again_after_other_bundles_only(two, folder, merged):
    a, b = two
    b.run(
        "CREATE TRIGGER never BEFORE INSERT ON memories "
        "BEGIN SELECT RAISE(ABORT, 'CHECK constraint failed: no'); END"
    )
    a.run("INSERT INTO memories VALUES ('m', 'ada', 'x', 'fact', 1, '2024', NULL)")
    meet(folder, a, b)
    assert "no" in b.status().parked[0][2]
    b.run("DROP TRIGGER never")
    merged.clear()
    meet(folder, a, b)
    assert merged == []
    a.run(USER, "eve", "Eve")
    meet(folder, a, b)
    assert b.one("SELECT count(*) FROM memories") == 1
    assert b.status().parked == ()


def child_before_parent(two, make, folder):
    """Return whether a third device has a row whose parent, of another device, came later."""
    a, b = two
    c = with_third(two, make, folder)
    a.run(USER, "eve", "Eve")
    meet(folder, a, b)
    b.run(MEMORY, "m")
    meet(folder, b)
    spool = b.replica.spool
    names = sorted(spool.names(), key=lambda name: name.startswith(a.replica.device_id))
    for name in names:
        c.replica.spool.take(name, spool.read(name))
        c.take_in()
    c.seal()
    return c.one("SELECT count(*) FROM memories") == 1


def test_a_row_waits_for_its_parent(two, make, folder):
    assert child_before_parent(two, make, folder)


def test_a_row_whose_unknown_parent_counts_as_deleted_is_lost(two, make, folder, monkeypatch):
    found = applying._Applying._missing_parents
    monkeypatch.setattr(
        applying._Applying,
        "_missing_parents",
        lambda self, table, alive: dict.fromkeys(found(self, table, alive), True),
    )
    assert not child_before_parent(two, make, folder)


def test_a_waiting_row_arrives_after_the_tables_have_changed(two, make, folder):
    """Its columns are those of the older schema. The device has compacted meanwhile, too."""
    a, b = two
    c = with_third(two, make, folder)
    a.run(USER, "eve", "Eve")
    meet(folder, a, b)
    b.run(MEMORY, "m")
    meet(folder, b)
    spool = b.replica.spool
    late = {name for name in spool.names() - c.replica.spool.names() if a.replica.device_id in name}
    for name in spool.names() - c.replica.spool.names() - late:
        c.replica.spool.take(name, spool.read(name))
    c.take_in()
    assert c.one("SELECT count(*) FROM sync_parked") == 1
    c.replica.connection.execute("ALTER TABLE memories ADD COLUMN age TEXT NOT NULL DEFAULT 'new'")
    (c,) = with_plugins(c)
    c.compact()
    for name in late:
        c.replica.spool.take(name, spool.read(name))
    c.take_in()
    c.seal()
    assert c.one("SELECT content || age FROM memories") == "xnew"
    assert c.status().parked == ()


def test_the_loser_is_kept_until_a_person_decides_on_any_device(two, folder):
    a, b = two
    a.run(RENAME, "from a", at=1_800_000_000_000)
    b.run(RENAME, "from b", at=1_800_000_000_001)
    meet(folder, a, b)
    assert (a.name, b.name) == ("from b", "from b")
    (found,) = a.conflicts()
    assert (found.lost["name"], found.kept["name"]) == ("from a", "from b")
    with pytest.raises(UnknownName):
        a.resolve(99, "mine")
    for bad in ({"nme": "x"}, {"name": ["x"]}):
        with pytest.raises(InvalidValue):
            a.resolve(found.number, bad)
    a.resolve(found.number, "mine")
    meet(folder, a, b)
    assert (a.name, b.name, a.conflicts(), b.conflicts()) == ("from a", "from a", [], [])


@pytest.fixture
def disputed(two, folder):
    """Return a device with a conflict on a message, and the number of the conflict."""
    a, b = two
    a.run("INSERT INTO channels (channel_id, created_at) VALUES ('c', '2024')")
    a.run(USER, "eve", "Eve")
    a.run(MESSAGE, "m")
    meet(folder, a, b)
    for device, text in ((a, "from a"), (b, "from b")):
        device.run("UPDATE messages SET content = ?", text)
    meet(folder, a, b)
    return a, a.conflicts()[0].number


UNFIT_VALUES = [
    ({"sentiment_score": 7}, "sentiment_score must be a finite number, between -1 and 1"),
    ({"sentiment_score": True}, "sentiment_score of messages is REAL, and True is no such"),
    ({"response_time": float("inf")}, "response_time must be a finite number, at least 0"),
    ({"timestamp": "yesterday"}, "timestamp is not an ISO 8601 date and time"),
    ({"timestamp": "2024-05-01T12:30:00"}, "timestamp names no time zone"),
    ({"role": "robot"}, "role of messages must be one of user, assistant, system"),
    ({"metadata": "{no"}, "metadata is not JSON"),
    ({"metadata": [1]}, "metadata must be a dictionary"),
    ({"content": "a\0b"}, "content holds a NUL"),
    ({"conversation_id": ""}, "conversation_id is empty"),
]


def test_values_that_a_repository_would_refuse_decide_nothing(disputed):
    a, number = disputed
    for values, reason in UNFIT_VALUES:
        with pytest.raises(InvalidValue, match=re.escape(reason)):
            a.resolve(number, values)
    assert len(a.conflicts()) == 1


def test_chosen_values_are_stored_as_a_repository_stores_them(disputed):
    a, number = disputed
    chosen = {"metadata": {"b": 1, "a": [2]}, "sentiment_score": -1, "reply_to": None}
    a.resolve(number, {**chosen, "timestamp": "2024-05-01T14:30:00+02:00"})
    assert a.replica.connection.fetch_one(
        "SELECT timestamp, metadata, sentiment_score, reply_to FROM messages"
    ) == ("2024-05-01T12:30:00.000000Z", '{"a":[2],"b":1}', -1.0, None)


def test_to_keep_the_winner_ends_the_conflict_everywhere(two, folder):
    a, b = two
    a.run(RENAME, "from a", at=1_800_000_000_000)
    b.run(RENAME, "from b", at=1_800_000_000_001)
    meet(folder, a, b)
    a.resolve(a.conflicts()[0].number, "theirs")
    meet(folder, a, b)
    assert (a.name, b.name, a.conflicts(), b.conflicts()) == ("from b", "from b", [], [])


@pytest.mark.parametrize("is_compacted", [False, True])
def test_only_a_decision_ends_a_conflict_and_nothing_is_kept_of_it(two, make, folder, is_compacted):
    a, b = two
    c = with_third(two, make, folder)
    a.run(RENAME, "from a", at=1_800_000_000_000)
    b.run(RENAME, "from b", at=1_800_000_000_001)
    meet(folder, a, b, c)
    c.run("UPDATE users SET created_at = '2025'", at=1_800_000_000_002)
    a.verify(repair=True)
    meet(folder, a, b, c)
    for one in (a, b, c):
        assert [found.lost["name"] for found in one.conflicts()] == ["from a"]
    b.resolve(b.conflicts()[0].number, "mine")
    if is_compacted:
        b.compact()
    for one in (b, a, c):
        one.sync(folder)
        assert (
            one.one("SELECT json_group_array(json_array(state, content)) FROM sync_conflicts")
            == '[["decided","{}"]]'
        )
    assert {one.name for one in (a, b, c)} == {"from b"}


def test_a_decision_holds_for_a_losing_version_that_comes_later(two, make, folder):
    a, b = two
    c = with_third(two, make, folder)
    a.run(RENAME, "from a", at=1_800_000_000_000)
    b.run(RENAME, "from b", at=1_800_000_000_001)
    meet(folder, a, b)
    b.resolve(b.conflicts()[0].number, "mine")
    b.sync(folder)
    spool = b.replica.spool
    names = spool.names() - c.replica.spool.names()
    for name in sorted(names, key=lambda name: name.startswith(a.replica.device_id)):
        c.replica.spool.take(name, spool.read(name))
        c.take_in()
    assert (c.name, c.conflicts()) == ("from b", [])


def test_copies_of_a_home_keep_what_they_lose_to_each_other(two, folder, tmp_path):
    """They have written different bundles of one number; each device keeps the loser of a row."""
    a, b = two
    a.replica.connection.fetch_all("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copytree(tmp_path / "a", tmp_path / "copy")
    copy = Device(
        LibSQLAdapter(tmp_path / "copy" / "lab.db").connect(), tmp_path / "copy" / "federation"
    )
    for one, name, at in ((a, "from a", 1), (copy, "from the copy", 2)):
        one.run(RENAME, name, at=1_800_000_000_000 + at)
        one.seal()
    meet(folder, a, copy, b)
    for one in (a, copy, b):
        assert one.name == "from the copy"
        assert [found.lost["name"] for found in one.conflicts()] == ["from a"]


def meet_with_two_personalities(folder, a, b):
    for one, name in ((a, "a"), (b, "b")):
        one.run(PROFILE, name)
    meet(folder, a, b)


def test_of_two_active_personalities_a_person_chooses_one(two, folder):
    a, b = two
    meet_with_two_personalities(folder, a, b)
    active = (
        "SELECT json_group_array(profile_id) FROM personality_profiles WHERE active_until IS NULL"
    )
    assert {*json.loads(a.one(active))} == {*json.loads(b.one(active))} == {"a", "b"}
    for one in (a, b):
        (found,) = one.conflicts()
        assert (found.kind, found.key, found.device_id) == ("personality", "a", a.replica.device_id)
    a.resolve(a.conflicts()[0].number, "mine")
    meet(folder, a, b)
    assert a.one(active) == b.one(active) == '["a"]'
    assert (a.conflicts(), b.conflicts()) == ([], [])


def test_a_file_of_values_changes_no_other_values_of_a_personality(two, folder):
    a, b = two
    meet_with_two_personalities(folder, a, b)
    a.run("UPDATE personality_profiles SET traits = '{\"calm\": 0.9}' WHERE profile_id = 'b'")
    a.resolve(a.conflicts()[0].number, {"stability": 0.5})
    rows = "SELECT profile_id, traits, stability FROM personality_profiles ORDER BY 1"
    (lost, other) = a.replica.connection.fetch_all(rows)
    assert lost == ("a", "{}", 0.5)
    assert other[:2] == ("b", '{"calm": 0.9}')


def test_of_two_personalities_one_that_is_changed_was_not_decided_on(two, folder):
    """Else a device that compacts would end the conflict of one that lost the same version."""
    a, b = two
    meet_with_two_personalities(folder, a, b)
    b.run("UPDATE personality_profiles SET traits = '{\"wit\": 1}' WHERE profile_id = 'a'")
    meet(folder, a, b)
    for one in (a, b):
        assert (one.conflicts(), conflicts.decided(one.replica, "personality")) == ([], [])


def test_of_two_personalities_one_on_which_a_person_decided_before_is_not_asked_about(two, folder):
    a, b = two
    a.run(PROFILE, "a")
    a.seal()
    (version,) = stored_versions(a.replica.connection, "personality_profiles", ["a"]).values()
    loser = (version.stream, version.n, version.stamp, version.cl)
    decision = bundles.Decision("personality_profiles", "a", *loser)
    conflicts.receive(a.replica, "personality", [decision])
    b.run(PROFILE, "b")
    meet(folder, a, b)
    assert (a.conflicts(), len(b.conflicts())) == ([], 1)


def test_of_two_personalities_one_that_was_deleted_unseen_is_a_conflict_of_its_own(
    two, make, folder
):
    a, b = two
    c = with_third(two, make, folder)
    c.run("DELETE FROM users WHERE user_id = 'ada'")
    meet_with_two_personalities(folder, a, b)
    meet(folder, c, a, b)
    for one in (a, b):
        found = {(it.table, it.key): it.kind for it in one.conflicts()}
        wanted = [("users", "ada"), *(("personality_profiles", name) for name in "ab")]
        assert found == dict.fromkeys(wanted, "deleted")


def test_a_class_comes_when_a_device_is_to_hold_it(two, folder):
    a, b = two
    a.set_policy(b.replica.device_id, memories="none")
    meet(folder, a, b)
    a.run("INSERT INTO memories VALUES ('m', 'ada', 'secret', 'fact', 1, '2024', NULL)")
    meet(folder, a, b)
    assert b.one("SELECT count(*) FROM memories") == 0
    assert list(b.replica.files("waiting").values()) == ["this device has no key for it"]
    assert (b.take_in().waiting, b.status().waiting) == ([], ())  # it passes such a file on
    a.set_policy(b.replica.device_id, memories="full")
    meet(folder, a, b)
    assert b.one("SELECT content FROM memories") == "secret"
    with pytest.raises(InvalidValue):
        a.set_policy(b.replica.device_id, people="none")


def test_a_key_reaches_a_device_that_did_not_hold_the_class_when_others_compacted(
    two, make, folder
):
    a, b = two
    c = with_third(two, make, folder)
    for held in ("none", "full"):  # the second key of the class is sealed for it, too
        a.set_policy(b.replica.device_id, memories=held)
    meet(folder, a, c)
    sealed(c, "INSERT INTO memories VALUES ('m', 'ada', 'secret', 'fact', 1, '2024', NULL)")
    a.set_policy(b.replica.device_id, memories="none")
    a.compact()
    for one in (a, b):
        one.sync(folder)
    a.set_policy(b.replica.device_id, memories="full")
    meet(folder, a, b, c)
    assert b.one("SELECT content FROM memories") == "secret"


def test_a_device_that_is_added_without_a_class_cannot_read_it(two, make, folder):
    a, b = two
    a.run("INSERT INTO memories VALUES ('m', 'ada', 'secret', 'fact', 1, '2024', NULL)")
    meet(folder, a, b)
    c = make("c")
    keys = c.create_keys()
    c.join(json.loads(json.dumps(a.invite(keys, "desktop", policy={"memories": "none"}))))
    meet(folder, a, b, c)
    assert (c.name, c.one("SELECT count(*) FROM memories")) == ("Ada", 0)
    a.set_policy(keys.device_id, memories="full")
    meet(folder, a, b, c)
    assert c.one("SELECT content FROM memories") == "secret"
    with pytest.raises(UnknownName):
        a.invite(keys, "desktop", policy={"poems": "none"})


def test_a_device_that_is_added_again_gets_its_new_policy_and_no_other_level(two, make):
    """A join that was killed leaves a trusted device that is invited a second time."""
    a, c = two[0], make("c")
    keys = c.create_keys()
    a.invite(keys, "tablet")
    with pytest.raises(InvalidValue, match=r"tablet is trusted already, fully, .*device revoke"):
        a.invite(keys, "tablet", level=1)
    c.join(a.invite(keys, "tablet", policy={"memories": "none"}))
    (tablet,) = [one for one in a.devices() if one.name == "tablet"]
    assert "memories" not in tablet.classes
    assert "memories" not in c.replica.own_classes


def test_a_device_that_never_joined_makes_new_keys_after_its_revocation(two, make):
    a, c = two[0], make("c")
    keys = c.create_keys()
    a.invite(keys, "tablet")
    a.revoke(keys.device_id)
    with pytest.raises(DeviceRevoked, match="makes new ones"):
        a.invite(keys, "tablet")
    c.forget_keys()
    assert c.create_keys() != keys
    c.join(a.invite(c.create_keys(), "tablet", level=1))


def test_a_revoked_device_is_told_and_not_heard(two, folder):
    a, b = two
    a.revoke(b.replica.device_id)
    a.sync(folder)
    b.run(USER, "eve", "Eve")
    with pytest.raises(DeviceRevoked):
        b.sync(folder)
    b.seal()
    b.exchange(folder)
    meet(folder, a)
    assert a.one("SELECT count(*) FROM users") == 1
    assert [device.trust_level for device in a.devices()] == [2, 0]
    assert (a.status().is_revoked, b.status().is_revoked) == (False, True)


def test_what_a_device_compacted_before_it_was_revoked_is_no_gap(two, make, folder):
    """For the device that revoked it, which had not taken that in, unlike the others."""
    a, b = two
    c = with_third(two, make, folder)
    b.run(RENAME, "replaced", at=1_700_000_001_000)
    meet(folder, b, c)
    c.compact()
    meet(folder, c, b)
    b.run(USER, "eve", "after it")
    b.sync(folder)
    a.revoke(c.replica.device_id)
    c.run(USER, "bad", "not heard")
    c.sync(folder)
    meet(folder, a, b)
    assert (a.name, a.one("SELECT count(*) FROM users")) == ("replaced", 2)
    assert a.verify(with_=b.verify().verified.proof).buckets == {}


def test_a_key_of_a_revoked_device_that_others_use_is_handed_out_again(two, make, folder):
    """They had it from a bundle that waits for another one, and counts no more."""
    a, b = two
    c = with_third(two, make, folder)
    a.run(USER, "eve", "Eve")
    meet(folder, a, b, c)
    c.run(RENAME, "never seen")
    c.seal()
    with c.replica.connection.transaction():
        key = epochs._begin(c.replica, "memories", c.replica.entitled()["memories"])
        sealing.write_statements(c.replica, [key])
    c._publish()
    newest = max(name for name in c.replica.spool.names() - b.replica.spool.names())
    b.replica.spool.take(newest, c.replica.spool.read(newest))
    b.take_in()
    b.run(MEMORY, "under the key of c")
    b.seal()
    a.revoke(c.replica.device_id)
    meet(folder, a, b)
    assert a.one("SELECT count(*) FROM memories") == 1
    assert [why for name, why in a.take_in().waiting if name != newest] == []
    files = list(folder.glob("*/*"))
    meet(folder, a, b)
    assert list(folder.glob("*/*")) == files


def test_a_revoked_device_joins_again_under_new_keys(two, folder):
    """With what the others had refused, and what it changed since."""
    a, b = two
    former = b.replica.device_id
    b.run(USER, "eve", "refused")
    b.seal()
    a.revoke(former)
    a.run(USER, "new", "secret for the revoked one")
    meet(folder, a)
    with pytest.raises(DeviceRevoked):
        b.sync(folder)
    b.run(USER, "zoe", "written meanwhile")
    b.run(RENAME, "older", at=1_600_000_000_000)
    with pytest.raises(DeviceRevoked):
        b.sync(folder)
    assert b.one("SELECT count(*) FROM users WHERE user_id = 'new'") == 0
    keys = b.create_keys()
    assert keys.device_id != former
    assert b.create_keys() == keys
    b.join(json.loads(json.dumps(a.invite(keys, "phone"))))
    meet(folder, a, b)
    people = ["ada", "eve", "new", "zoe"]
    for one in (a, b):
        found = one.replica.connection.fetch_all("SELECT user_id FROM users ORDER BY 1")
        assert [user for (user,) in found] == people
    assert a.verify(with_=b.verify().verified.proof).buckets == {}
    assert {one.device_id: one.trust_level for one in a.devices()}[former] == 0
    with pytest.raises(InvalidValue):
        b.join(a.invite(keys, "phone"))


@pytest.mark.parametrize("by", ["phone", "watch"])
def test_a_revoked_device_that_was_away_during_a_compaction_joins_again(two, make, folder, by):
    """It does not know the watch, which was added after the revocation."""
    a, b = two
    c = with_third(two, make, folder)
    a.revoke(c.replica.device_id)
    d = make("d")
    d.join(a.invite(d.create_keys(), "watch"))
    meet(folder, a, b, d)
    (b if by == "phone" else d).compact()
    for device in (b, d, a, b, d):
        assert device.sync(folder).taken_in.refused == []
        assert device.status().missing == ()
    c.run(USER, "eve", "of the revoked one")
    for _ in range(2):
        with pytest.raises(DeviceRevoked):
            c.sync(folder)
    c.join(json.loads(json.dumps(a.invite(c.create_keys(), "desktop"))))
    meet(folder, a, b, c, d)
    for device in (b, c, d):
        assert device.one("SELECT count(*) FROM users") == 2
        assert a.verify(with_=device.verify().verified.proof).buckets == {}


CHANNEL = "INSERT INTO channels (channel_id, name, kind, created_at) VALUES ('c', 'c', 'group', '')"


@pytest.mark.parametrize("knows_it", [False, True])
def test_what_a_revoked_device_deleted_without_knowing_it_is_kept(two, make, folder, knows_it):
    """Also by the device whose row it is; the revoked one gets its file late, and joins again."""
    a, b = two
    c = with_third(two, make, folder)
    a.run(USER, "eve", "Eve")
    a.run(CHANNEL)
    meet(folder, a, b, c)
    known = set(folder.glob("*/*"))
    b.run(MESSAGE, "m")
    meet(folder, b, a)
    late = {path: path.read_bytes() for path in {*folder.glob("*/*")} - known}
    a.revoke(c.replica.device_id)
    meet(folder, a, b)
    for path in late:
        path.unlink()
    if knows_it:
        with pytest.raises(DeviceRevoked):
            c.sync(folder)
    c.run("DELETE FROM channels")
    if not knows_it:
        c.seal()
    for path, content in late.items():
        path.write_bytes(content)
    with pytest.raises(DeviceRevoked):
        c.sync(folder)
    c.join(json.loads(json.dumps(a.invite(c.create_keys(), "desktop"))))
    meet(folder, a, c, b)
    for device in (a, b, c):
        assert device.one("SELECT count(*) FROM messages") == 0
        assert [one.key for one in device.conflicts() if one.table == "messages"] == ["m"]
        assert device.status().waiting == ()
        assert a.verify(with_=device.verify().verified.proof).buckets == {}


def test_a_device_that_the_others_do_not_obey_decides_about_nobody(two, make, folder):
    """Else it alone would believe the decision, and be cut off from the other device for good."""
    a, b = two
    c = make("c")
    c.join(a.invite(c.create_keys(), "tablet", level=1))
    first = a.replica.device_id
    decisions = (
        lambda device: device.revoke(first),
        lambda device: device.rename(first, "mine"),
        lambda device: device.set_policy(first, memories="none"),
        lambda device: device.invite(make("d").create_keys(), "desktop"),
    )
    a.revoke(b.replica.device_id)
    a.sync(folder)
    with pytest.raises(DeviceRevoked):
        b.sync(folder)
    for decide in decisions[:3]:
        with pytest.raises(DeviceRevoked, match="cannot decide"):
            decide(b)
    with pytest.raises(UnknownName, match="phone is revoked already"):
        a.revoke(b.replica.device_id)
    for decide in decisions:
        with pytest.raises(InvalidValue, match="only receives"):
            decide(c)


STAMPS = {
    1: SchemaVersion(
        version=1,
        name="Stamps",
        description="The stamps that people collect.",
        sql_statements=[
            "CREATE TABLE stamps_owned (stamp_id TEXT PRIMARY KEY NOT NULL, motif TEXT)",
            "CREATE TABLE stamps_local (id INTEGER PRIMARY KEY)",
        ],
        rollback_statements=["DROP TABLE stamps_owned", "DROP TABLE stamps_local"],
        tracked={"stamps_owned": ("stamp_id",)},
    )
}


@pytest.fixture
def stamps(monkeypatch):
    """A registry with a federated plugin, as the default one."""
    registry = SchemaRegistry()
    registry._schemas |= CORE._schemas
    register_schema("stamps", "plugin", federated=True, registry=registry)(STAMPS)
    monkeypatch.setattr(SchemaRegistry, "default", registry)
    return registry


def with_plugins(*devices):
    """Return devices as they are after their program has started again."""
    return [Device(one.replica.connection, one.folder) for one in devices]


def test_tables_of_a_federated_plugin_are_a_class(two, folder, stamps):
    a, b = two
    stamps.apply_plugin_schema("stamps", a.replica.connection)
    (a,) = with_plugins(a)
    a.run("INSERT INTO stamps_owned VALUES ('s', 'a blue one')")
    meet(folder, a, b)
    (reason,) = {why for _, why in b.take_in().waiting}
    assert reason.endswith("or activate the plugin")
    stamps.apply_plugin_schema("stamps", b.replica.connection)
    a, b = with_plugins(a, b)
    meet(folder, a, b)
    assert b.one("SELECT motif FROM stamps_owned") == "a blue one"
    assert a.verify(with_=b.verify().verified.proof).buckets == {}
    a.set_policy(b.replica.device_id, stamps="none")
    meet(folder, a, b)
    a.run("UPDATE stamps_owned SET motif = 'a red one'")
    meet(folder, a, b)
    assert b.one("SELECT motif FROM stamps_owned") == "a blue one"


def test_a_plugin_that_is_deactivated_deletes_nothing_elsewhere(two, folder, stamps):
    for one in two:
        stamps.apply_plugin_schema("stamps", one.replica.connection)
    a, b = with_plugins(*two)
    a.run("INSERT INTO stamps_owned VALUES ('s', 'a blue one')")
    b.run("INSERT INTO stamps_owned VALUES ('t', 'of b')")
    meet(folder, a, b)
    stamps.remove_plugin_schema("stamps", b.replica.connection)
    (b,) = with_plugins(b)
    meet(folder, a, b)
    stamps.apply_plugin_schema("stamps", b.replica.connection)
    (b,) = with_plugins(b)
    meet(folder, a, b)
    for one in (a, b):
        assert one.one("SELECT group_concat(stamp_id) FROM stamps_owned") == "s,t"


def test_the_name_of_a_class_names_no_federated_plugin():
    with pytest.raises(InvalidValue, match="another name"):
        SchemaRegistry().register("people", "plugin", STAMPS, federated=True)


UNFIT = {
    "zoo_a refers to itself": "k TEXT PRIMARY KEY, p TEXT REFERENCES zoo_a ON DELETE CASCADE",
    "without ON DELETE CASCADE or SET NULL": "k TEXT PRIMARY KEY, p TEXT REFERENCES zoo_b",
    "zoo_a has a UNIQUE constraint or index besides": "k TEXT PRIMARY KEY, name TEXT UNIQUE",
    "has a collation": "k TEXT PRIMARY KEY COLLATE NOCASE",
    "is not unique": "k TEXT",
    None: "id INTEGER PRIMARY KEY, k TEXT UNIQUE, p TEXT REFERENCES zoo_b ON DELETE SET NULL",
}


@pytest.mark.parametrize(("why", "columns"), UNFIT.items(), ids=UNFIT.values())
def test_tables_whose_rows_devices_cannot_agree_on_are_not_federated(tmp_path, why, columns):
    connection = LibSQLAdapter(tmp_path / "lab.db").connect()
    connection.execute("CREATE TABLE zoo_b (k TEXT PRIMARY KEY)")
    connection.execute(f"CREATE TABLE zoo_a ({columns})")
    found = federated.obstacle(connection, {"zoo_a": ("k",), "zoo_b": ("k",)})
    assert found == why or why in found


def test_a_plugin_whose_rows_devices_cannot_agree_on_is_refused(two, stamps):
    unfit = dataclasses.replace(
        STAMPS[1],
        sql_statements=[
            "CREATE TABLE stamps_owned (stamp_id TEXT PRIMARY KEY, motif TEXT UNIQUE)",
            STAMPS[1].sql_statements[1],
        ],
    )
    stamps._schemas["stamps"] = dataclasses.replace(stamps["stamps"], versions={1: unfit})
    with pytest.raises(MigrationFailed, match="besides its key, so devices could not agree"):
        stamps.apply_plugin_schema("stamps", two[0].replica.connection)


def texts_in(folder, *devices):
    """Return the decrypted content of all bundles in a folder."""
    found = []
    for path in folder.glob("**/*.age"):
        name = parse_name(f"{path.parent.name}/{path.name}")
        keys = {one.replica.device_id: one.replica.keys.public_key for one in devices}
        identities = [key for one in devices for key in epochs.identities(one.replica)]
        public = bytes.fromhex(keys[name.device])
        found.append(bundles.unpack(name, path.read_bytes(), identities, public).body)
    return b"".join(found)


def test_compacted_bundles_hold_nothing_that_was_erased(two, make, folder):
    """They hold all else: a device that joins later gets it from them."""
    a, b = two
    for word in ("first", "second"):
        b.run(RENAME, f"{word} canary")
        meet(folder, a, b)
    b.run(USER, "eve", "canary, too")
    meet(folder, a, b)
    a.run("DELETE FROM users WHERE user_id = 'eve'")
    a.run(RENAME, "Ada again")
    meet(folder, a, b)
    assert b"canary" in texts_in(folder, a, b)
    done = a.compact()
    assert done.replaced > done.bundles > 0
    assert done.after < done.before
    meet(folder, a, b)
    for place in (folder, a.folder / "spool", b.folder / "spool"):
        assert b"canary" not in texts_in(place, a, b)
        assert b"Ada again" in texts_in(place, a, b)
    c = make("c")
    c.join(a.invite(c.create_keys(), "desktop"))
    meet(folder, a, b, c)
    assert c.verify(with_=a.verify().verified.proof).buckets == {}
    assert (c.name, c.take_in().waiting) == ("Ada again", [])
    assert a.compact().replaced > 0  # the device was added
    files = a.replica.spool.names()
    assert a.compact().replaced == 0
    assert a.replica.spool.names() == files
    c.run(RENAME, "from c", at=1_800_000_000_000)
    a.run(RENAME, "from a", at=1_800_000_000_001)
    meet(folder, a, b, c)
    assert {one.name for one in (a, b, c)} == {"from a"}
    assert [len(one.conflicts()) for one in (a, c)] == [1, 1]


def test_a_device_without_a_class_removes_its_replaced_bundles(two, folder):
    a, b = two
    a.set_policy(b.replica.device_id, memories="none")
    a.run("INSERT INTO memories VALUES ('m', 'ada', 'secret', 'fact', 1, '2024', NULL)")
    meet(folder, a, b)
    a.compact()
    meet(folder, a, b)
    assert b.replica.spool.names() == a.replica.spool.names()
    a.set_policy(b.replica.device_id, memories="full")
    meet(folder, a, b)
    assert b.one("SELECT content FROM memories") == "secret"


def test_what_a_class_replaced_is_known_after_another_one_was_compacted(two, make, folder):
    """Also to a device that joins later."""
    a, b = two
    b.run("INSERT INTO channels (channel_id, name, created_at) VALUES ('c', 'C', '2024')")
    b.run(
        "INSERT INTO messages (message_id, channel_id, conversation_id, role, content, timestamp) "
        "VALUES ('m', 'c', 'c', 'user', 'x', '2024')"
    )
    meet(folder, a, b)
    b.run(
        "INSERT INTO feedback_events (event_id, user_id, message_id, kind, name, value, timestamp) "
        "VALUES ('f', 'ada', 'm', 'rating', 'witty', 1.0, '2024')"
    )
    b.seal()  # refers to the bundle with the message, which is replaced meanwhile
    a.compact()
    a.exchange(folder)
    b.sync(folder)
    a.run(RENAME, "only people are compacted again")
    a.compact()
    meet(folder, a, b)
    c = make("c")
    c.join(a.invite(c.create_keys(), "desktop"))
    meet(folder, a, b, c)
    assert (c.one("SELECT count(*) FROM feedback_events"), c.take_in().waiting) == (1, [])


def test_a_device_that_was_added_later_may_compact(two, make, folder):
    """Although another one does not know of it yet."""
    a, b = two
    c = make("c")
    c.join(a.invite(c.create_keys(), "desktop"))
    meet(folder, a, c)
    a.run(RENAME, "known to c")
    meet(folder, a, c)
    c.compact()
    meet(folder, c, a, b)
    assert (b.name, b.take_in().waiting) == ("known to c", [])


def test_a_device_that_lacks_a_class_compacts_no_keys_away(two, make, folder):
    """Of the class, which another device has not got yet."""
    a, b = two
    c = with_third(two, make, folder)
    a.set_policy(c.replica.device_id, memories="none")
    a.run(USER, "eve", "Eve")
    a.run(MEMORY, "under a new key")
    meet(folder, a, c)
    c.compact()
    meet(folder, c, a, b)
    assert (b.one("SELECT count(*) FROM memories"), b.take_in().waiting) == (1, [])


@pytest.mark.parametrize("had_it", [False, True])
def test_a_device_without_a_plugin_compacts_no_keys_away(two, make, folder, stamps, had_it):
    a, b = two
    c = with_third(two, make, folder)
    for one in two:
        stamps.apply_plugin_schema("stamps", one.replica.connection)
    a, b = with_plugins(a, b)
    a.run("INSERT INTO stamps_owned VALUES ('s', 'a blue one')")
    meet(folder, a, c)
    if had_it:
        stamps.remove_plugin_schema("stamps", a.replica.connection)
        (a,) = with_plugins(a)
    (a if had_it else c).compact()
    meet(folder, c, a, b)
    assert (b.one("SELECT motif FROM stamps_owned"), b.take_in().waiting) == ("a blue one", [])


def test_a_backup_from_before_compacting_takes_nothing_back(two, folder, tmp_path):
    a, b = two
    a.replica.connection.fetch_all("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copyfile(a.replica.connection.path, tmp_path / "saved.db")
    b.run(RENAME, "newer", at=1_700_000_001_000)
    meet(folder, a, b)
    b.compact()
    meet(folder, b, a)
    a = restored(a, tmp_path)
    assert a.name == "Ada"
    meet(folder, a, b)
    assert (a.name, b.name) == ("newer", "newer")
    assert (a.conflicts(), b.conflicts()) == ([], [])


def test_the_folder_of_other_devices_is_refused(two, make, folder):
    stranger = make("c")
    stranger.begin("stranger")
    with pytest.raises(FolderUnusable):
        stranger.sync(folder)
    with pytest.raises(FolderUnusable):
        two[0].sync(folder / "missing")


def test_an_emptied_folder_deletes_nothing(two, folder):
    a, b = two
    for path in folder.glob("*/*"):
        path.unlink()
    meet(folder, a, b)
    assert (a.name, b.name) == ("Ada", "Ada")


@pytest.mark.parametrize("damage", [b"", b"half", None], ids=["empty", "cut off", "changed"])
def test_a_damaged_file_of_the_folder_is_repaired_by_its_author(two, folder, damage):
    a, b = two
    a.run(RENAME, "newer")
    before = set(folder.glob("*/*"))
    a.sync(folder)
    (path,) = set(folder.glob("*/*")) - before
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]) if damage is None else damage)
    os.utime(path, (1, 1))
    b.sync(folder)
    name = f"{path.parent.name}/{path.name}"
    assert b.status().refused == ((name, "it is incomplete, or was changed"),)
    assert a.sync(folder).exchanged.sent == 1
    assert path.read_bytes() == whole
    b.sync(folder)
    assert (b.name, b.status().refused) == ("newer", ())
    assert a.sync(folder).exchanged.sent == b.sync(folder).exchanged.sent == 0


def test_a_file_that_is_damaged_on_a_device_is_fetched_again(two, folder):
    a, _ = two
    name = min(a.replica.spool.names())
    whole = (folder / name).read_bytes()
    (a.replica.spool.folder / name).write_bytes(b"damaged")
    done = a.sync(folder).exchanged
    assert (done.damaged, done.received, done.refused) == ([name], 1, [])
    assert (folder / name).read_bytes() == a.replica.spool.read(name) == whole


def test_rows_of_a_file_that_is_whole_nowhere_are_sent_again(two, make, folder):
    a, c = two[0], make("c")
    other = folder.with_name("other")
    other.mkdir()
    for path in (a.folder / "spool").glob("*/*.age"):
        path.write_bytes(b"damaged")
    c.join(a.invite(c.create_keys(), "desktop"))
    meet(other, a, c)
    assert c.name == "Ada"


def test_bytes_that_changed_under_the_same_size_and_time_are_found_and_repaired(two, folder):
    a, b = two
    first, second, *_ = sorted(a.replica.spool.names())

    def spoil(path):
        status = path.stat()
        path.write_bytes(bytes(status.st_size))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    spoil(a.folder / "spool" / first)
    spoil(folder / second)
    assert a.sync(folder).exchanged.refused == []
    found = a.verify(folder=folder).damaged
    assert {one.path for one in found} == {str(a.folder / "spool" / first), str(folder / second)}
    assert all(one.is_repaired for one in found)
    assert a.verify(folder=folder).damaged == b.verify(folder=folder).damaged == ()
    for name in (first, second):
        assert hash_of((folder / name).read_bytes()) == parse_name(name).hash
        spoil(folder / name)
        spoil(a.folder / "spool" / name)
    a.replica.spool.remove(first)
    assert {one.is_repaired for one in a.verify(folder=folder).damaged} == {True, False}


def test_what_is_in_the_place_of_a_bundle_or_a_stream_stops_nobody(two, make, folder):
    a, b = two
    before = {name.partition("/")[0] for name in a.replica.spool.names()}
    a.run(USER, "eve", "Eve")
    a.run(MEMORY, "m")
    a.sync(folder)
    stream = min({name.partition("/")[0] for name in a.replica.spool.names()} - before)
    bundle = min(name for name in a.replica.spool.names() if not name.startswith(stream))
    for place in (folder, a.folder / "spool"):
        shutil.rmtree(place / stream)
        (place / stream).write_text("x")
        (place / bundle).unlink()
        (place / bundle).mkdir()
        (place / bundle / "x").write_text("x")
    a.run(RENAME, "newer")
    meet(folder, a, b)
    assert b.name == "newer"
    assert {name for name, _ in a.status().foreign} == {stream, bundle}
    (folder / stream).unlink()
    shutil.rmtree(folder / bundle)
    c = make("c")
    c.join(a.invite(c.create_keys(), "desktop"))
    meet(folder, a, b, c)
    assert (c.name, c.one("SELECT count(*) FROM memories")) == ("newer", 1)
    assert not a.status().foreign
    shutil.rmtree(a.folder / "spool")
    (a.folder / "spool").write_text("x")
    meet(folder, a, b)
    assert a.replica.spool.names() == b.replica.spool.names()


def test_what_killed_processes_were_writing_is_removed(two, folder):
    a, _ = two
    name = min(a.replica.spool.names())
    here, there = (place / name for place in (a.folder / "spool", folder))
    left = [
        here.with_name(f"..pending-{here.name}.2261706d"),
        here.with_name(".pending-junk"),
        here.with_name(f".pending-{here.name}"),
        here.with_name(f".{here.name}.2261706d"),
        there.with_name(".copy-0123456789abcdef-0123456789abcdef"),
        there.with_name(f".copy-{a.replica.device_id}-0123456789abcdef"),
    ]
    for path in left:
        path.write_bytes(here.read_bytes())
    here.with_name(".pending-folder").mkdir()
    a.sync(folder)
    others = left[3:5]  # somebody may be writing these
    assert [path for path in left if path.exists()] == others
    for path in others:
        os.utime(path, (1, 1))
    a.sync(folder)
    assert not any(path.exists() for path in left)
    assert not here.with_name(".pending-folder").exists()
    assert here.exists()


def test_a_disk_of_the_home_that_is_full_is_named_as_the_home_s(two, folder, monkeypatch):
    a, b = two
    b.run(RENAME, "newer")
    b.sync(folder)

    def full(path, *_):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as disk, pytest.raises(DiskFull, match="spool"):
        disk.setattr(spool, "write_atomically", full)
        a.sync(folder)
    with monkeypatch.context() as disk, pytest.raises(FolderUnusable, match="shared"):
        disk.setattr(spool, "_copy", full)
        a.run(USER, "eve", "Eve")
        a.sync(folder)
    meet(folder, a, b)
    assert (a.name, b.one("SELECT count(*) FROM users")) == ("newer", 2)


def test_junk_under_the_name_of_a_device_goes_into_no_home(two, make, folder):
    a, b = two
    c = make("c")
    c.join(a.invite(c.create_keys(), "tablet", policy={"memories": "none"}))
    meet(folder, a, b, c)
    names = set()
    for number, stream in enumerate(sorted({n.partition("/")[0] for n in b.replica.spool.names()})):
        junk = age.encrypt(os.urandom(8), [age.new_identity()[1]])
        names.add(f"{stream}/{50 + number:08d}-{hash_of(junk)}.age")
        (folder / max(names, key=lambda name: name.startswith(stream))).write_bytes(junk)
    meet(folder, a, b, c)
    for device in (a, b):
        assert not device.replica.spool.names() & names
        assert not device.replica.has_forgotten()
        assert device.status().waiting == device.status().refused == ()
        assert {name for name, _ in device.status().foreign} == names
        assert device.sync(folder).exchanged.received == 0
    a.revoke(c.replica.device_id)  # a new key, with which they are tried again
    assert not a.status().foreign
    meet(folder, a, b)
    assert {name for name, _ in a.status().foreign} == names


def test_names_of_files_that_anybody_chose_mislead_nobody(two, folder):
    a, _ = two
    stream = next(folder.glob("*/")) / "\x1b[31mred\nfake.age"
    stream.write_bytes(b"")
    ((name, _),) = a.sync(folder).exchanged.foreign
    assert name.endswith("/\\x1b[31mred\\nfake.age")
    for other in ("federation-notes.txt", "federation-conflicted copy"):
        (folder / other).touch()
    a.sync(folder)  # such a name is no mark of other devices


def test_files_of_unknown_devices_stay_where_they_are(two, folder):
    a, _ = two
    before = a.replica.spool.names()
    junk = b"random"
    stream = folder / "0123456789abcdef.01234567"
    stream.mkdir()
    (stream / f"00000001-{hash_of(junk)}.age").write_bytes(junk)
    assert [why for _, why in a.sync(folder).exchanged.foreign] == ["its device is unknown"]
    assert a.replica.spool.names() == before
    assert (len(a.status().foreign), a.status().refused) == (1, ())


def test_bundles_of_a_device_come_with_the_bundle_that_makes_it_known(two, make, folder):
    a, b = two
    c = make("c")
    c.join(a.invite(c.create_keys(), "desktop"))
    meet(folder, a, c)
    c.run(RENAME, "from c")
    c.sync(folder)
    b.sync(folder)
    assert b.name == "from c"


def pass_on(giving, taking, *, but=()):
    """Take in the bundles that another device has, except some."""
    spool = giving.replica.spool
    for name in spool.names() - taking.replica.spool.names() - {*but}:
        taking.replica.spool.take(name, spool.read(name))
    taking.take_in()


def sealed(device, sql, *parameters):
    """Change a row, and return the name of the bundle with it."""
    known = device.replica.spool.names()
    device.run(sql, *parameters)
    device.seal()
    (name,) = device.replica.spool.names() - known
    return name


def test_bundles_that_others_name_are_missing_until_they_come(two, make, folder):
    a, b = two
    c = with_third(two, make, folder)

    def missing():
        found = c.status().missing
        assert {one.device_id for one in found} <= {a.replica.device_id}
        return [(one.first, one.last) for one in found]

    first = sealed(a, USER, "eve", "Eve")
    second = sealed(a, "INSERT INTO channels (channel_id, created_at) VALUES ('c', '2024')")
    n = parse_name(first).n
    pass_on(a, c, but=[first])  # a later one of the stream waits
    assert missing() == [(n, n)]
    third, more = sealed(a, RENAME, "A."), sealed(a, USER, "u", "U")
    sealed(a, MESSAGE, "m")
    pass_on(a, c, but=[third, more])  # a bundle of another class refers to them
    assert missing() == [(n + 2, n + 3)]
    pass_on(a, c)
    assert (missing(), parse_name(second).n) == ([], n + 1)
    later = sealed(a, RENAME, "from a")
    pass_on(a, b)
    sealed(b, RENAME, "from b")
    pass_on(b, c, but=[later])  # the other device has taken it in
    assert missing() == [(n + 4, n + 4)]
    pass_on(b, c)
    assert (missing(), c.name) == ([], "from b")


def test_a_file_that_anybody_wrote_makes_nothing_seem_missing(two, make, folder):
    a, c = two[0], make("c")
    c.join(a.invite(c.create_keys(), "tablet", policy={"memories": "none"}))
    meet(folder, a, c)
    junk = age.encrypt(b"junk", [age.new_identity()[1]])
    stream = a.replica.stream("people")
    (folder / stream / f"00000050-{hash_of(junk)}.age").write_bytes(junk)
    c.sync(folder)
    assert list(c.replica.files("waiting").values()) == ["this device has no key for it"]
    assert c.status().missing == ()


def test_what_a_revoked_device_wrote_for_nobody_is_not_missing(two):
    a, b = two
    sealed(b, USER, "eve", "Eve")
    unheard = sealed(b, MEMORY, "m")
    sealed(b, RENAME, "from b")
    pass_on(b, a, but=[unheard])
    assert len(a.status().missing) == 1
    a.revoke(b.replica.device_id)
    assert (a.status().missing, a.name) == ((), "from b")


def test_the_time_of_the_last_bundle_of_a_device_is_known(two, folder):
    a, b = two
    a.replica.connection.execute("UPDATE sync_state SET value = 'x' WHERE key GLOB 'last:*'")
    b.run(RENAME, "from b")
    meet(folder, b, a)
    last = {one.name: one.last_bundle_at for one in a.devices()}
    assert last["laptop"] == "x"
    assert last["phone"] > "2026"


def test_the_log_has_what_happened_between_the_devices_in_order(two, folder):
    a, b = two
    a.rename(b.replica.device_id, "telephone")
    a.set_policy(b.replica.device_id, memories="none", summaries="full")
    a.rename(b.replica.device_id, "telephone")  # changes nothing
    for device in (b, a):
        device.run(RENAME, f"from {device is a}")
        device.seal()
    meet(folder, b, a)
    a.resolve(a.conflicts()[0].number, "mine")
    a.compact()
    meet(folder, a, b)
    a.revoke(b.replica.device_id)
    mine, other = a.replica.device_id, b.replica.device_id
    assert [(one.event, one.device_id, one.detail) for one in a.log()] == [
        ("device.paired", mine, ""),
        ("device.paired", other, f"by {mine}"),
        ("device.renamed", other, f"to telephone by {mine}"),
        ("device.policy", other, f"memories=none, summaries=full by {mine}"),
        ("federation.conflict", other, "rows: 1 of users"),
        ("federation.applied", other, "rows: 1"),
        ("federation.resolved", mine, "conflicts: 1"),
        ("federation.compacted", mine, "bundles of people: 9"),
        ("device.revoked", other, ""),
    ]
    events = [(one.event, one.device_id) for one in b.log()]
    assert {*events[:2]} == {("device.paired", mine), ("device.paired", other)}
    assert events[2] == ("device.joined", other)
    for event in ("renamed", "policy"):
        assert (f"device.{event}", other) in events
    for event in ("applied", "conflict", "resolved", "compacted"):
        assert (f"federation.{event}", mine) in events


def test_trusted_devices_have_different_names(two, make):
    a, b = two
    c = make("c")
    with pytest.raises(InvalidValue, match=r"phone is taken: the trusted device \w{16} has"):
        a.invite(c.create_keys(), "phone")
    with pytest.raises(InvalidValue, match="laptop is taken"):
        a.rename(b.replica.device_id, "laptop")
    a.rename(b.replica.device_id, "phone")
    a.revoke(b.replica.device_id)
    c.join(a.invite(c.create_keys(), "phone"))
    named = overview.labels(c.devices())
    assert {*named.values()} == {
        "laptop", *(f"phone ({one.replica.device_id[:8]})" for one in (b, c))
    }  # fmt: skip


class Crash(BaseException):
    """The process ends before a statement."""


def test_a_home_that_is_alone_leaves_as_a_whole_or_not(make, folder, monkeypatch):
    a, left, statements = make("a"), 0, 1
    a.run(USER, "ada", "Ada")
    connection = a.replica.connection
    ready = connection._ready
    fuse = [0]

    def counted(sql):
        fuse[0] -= 1
        if fuse[0] == 0:
            raise Crash
        return ready(sql)

    monkeypatch.setattr(connection, "_ready", counted)
    while not left:
        if not a.is_begun:
            a.begin("laptop")
        a.sync(folder)
        assert len(list(folder.iterdir())) > 1
        fuse[0] = statements
        with contextlib.suppress(Crash):
            assert a.leave(folder)
            left += 1
        fuse[0] = 0
        if a.is_begun:  # what was lost is sent again
            a.replica = Replica(connection, a.replica.spool)
            a.sync(folder)
            assert a.verify().verified.differing == []
        statements += 3
    assert statements > 20
    assert list(folder.iterdir()) == []
    assert not a.replica.spool.names()
    assert a.one("SELECT count(*) FROM feed_consumers") == 0
    assert (a.one("SELECT count(*) FROM devices"), a.name) == (0, "Ada")
    assert a.log()[-1].event == "device.left"
    with pytest.raises(NotFederated):
        a.leave()


def test_a_home_that_left_joins_another_federation(two, make, folder):
    a, c = two[0], make("c")
    c.begin("laptop")
    c.run(USER, "carl", "Carl")
    c.seal()
    c.leave()
    c.join(a.invite(c.create_keys(), "desktop"))
    meet(folder, a, c)
    assert (c.name, a.one("SELECT count(*) FROM users")) == ("Ada", 2)


def test_a_home_with_other_devices_can_only_be_revoked(two, folder):
    a, b = two
    with pytest.raises(InvalidValue, match=f"run `device revoke {b.replica.device_id}` on one of"):
        b.leave()
    a.revoke(b.replica.device_id)
    with pytest.raises(InvalidValue, match="none of them can revoke"):
        a.leave()
    meet(folder, a)
    with pytest.raises(DeviceRevoked):
        b.sync(folder)
    with pytest.raises(InvalidValue, match="has left already"):
        b.leave()
    assert b.is_begun


def test_a_home_that_leaves_keeps_bundles_of_others_in_the_folder(make, folder):
    a = make("a")
    a.begin("laptop")
    a.sync(folder)
    (folder / "0123456789abcdef.01234567").mkdir()
    before = sorted(folder.rglob("*"))
    assert not a.leave(folder)
    assert sorted(folder.rglob("*")) == before


def test_a_row_with_a_nul_is_named_and_stays(two, folder):
    a, b = two
    a.run(
        "INSERT INTO memories VALUES ('m', 'ada', 'x' || char(0) || 'y', 'fact', 1, '2024', NULL)"
    )
    meet(folder, a, b)
    assert b.one("SELECT count(*) FROM memories") == 0
    assert [row[:2] for row in a.status().unsendable] == [("memories", "m")]
    a.run("UPDATE memories SET content = 'xy'")
    meet(folder, a, b)
    assert (b.one("SELECT content FROM memories"), a.status().unsendable) == ("xy", ())


def test_a_row_written_without_the_feed_is_found_and_sent(two, folder):
    a, b = two
    connection = a.replica.connection
    connection.execute("DROP TRIGGER feed_users_update")
    connection.execute(RENAME, ["unseen"])
    meet(folder, a, b)
    assert b.name == "Ada"
    assert a.verify(with_=b.verify().verified.proof).buckets.keys() == {"users"}
    assert a.verify(repair=True).verified.differing == [("users", "ada")]
    meet(folder, a, b)
    assert b.name == "unseen"


def test_a_proof_claims_nothing_of_rows_that_one_device_does_not_hold(two, make, folder):
    a, c = two[0], make("c")
    c.join(a.invite(c.create_keys(), "tablet", policy={"memories": "none"}))
    a.run(USER, "eve", "Eve")
    a.run(MEMORY, "m")
    meet(folder, a, c)
    for device, other in ((a, c), (c, a)):
        found = device.verify(with_=other.verify().verified.proof)
        assert found.buckets == {}
        assert found.not_compared == {"memories": 1}
        assert "memories" not in found.compared
        assert {"people", "conversations"} <= {*found.compared}


def test_rows_that_a_device_deletes_with_another_are_no_conflict(two, folder):
    """The version of the deletion itself counted as one that its author had not known."""
    a, b = two
    a.run("INSERT INTO user_profiles VALUES ('ada', '{}', '2025')")
    meet(folder, a, b)
    a.run("DELETE FROM users WHERE user_id = 'ada'")
    meet(folder, a, b)
    assert b.conflicts() == []


@pytest.mark.parametrize("level", [1, 2])
def test_a_changed_row_that_is_deleted_with_another_can_be_brought_back(two, make, folder, level):
    a, c = two[0], make("c")
    c.join(json.loads(json.dumps(a.invite(c.create_keys(), "tablet", level=level))))
    a.run("INSERT INTO user_profiles VALUES ('ada', '{}', '2025')")
    meet(folder, a, c)
    a.run("DELETE FROM users WHERE user_id = 'ada'")
    c.run("UPDATE user_profiles SET profile = '[1]'")
    meet(folder, a, c, a, c)
    found = {one.table: one.number for one in c.conflicts()}
    assert found.keys() == {"users", "user_profiles"}
    c.resolve(found["user_profiles"], "mine")
    assert (c.name, c.one("SELECT profile FROM user_profiles")) == ("Ada", "[1]")
    assert c.conflicts() == []


@pytest.mark.slow
def test_long_rows_are_sent_in_several_bundles(two, folder):
    """All of them were in one, which other devices refused for its size, with all later ones."""
    a, b = two
    for number in range(80):
        a.run("INSERT INTO memories VALUES (?, 'ada', ?, 'fact', 1, '2024', NULL)",
              str(number), secrets.token_hex(490_000))  # fmt: skip
    meet(folder, a, b)
    assert b.one("SELECT count(*) FROM memories") == 80
    assert max(path.stat().st_size for path in folder.rglob("*.age")) < 4 << 20
    assert b.status().refused == ()


def test_a_row_that_no_bundle_can_have_is_named(two, folder):
    a, b = two
    a.run(
        "INSERT INTO memories VALUES ('long', 'ada', ?, 'fact', 1, '2024', NULL)", "x" * (33 << 20)
    )
    a.run("INSERT INTO memories VALUES ('short', 'ada', 'x', 'fact', 1, '2024', NULL)")
    meet(folder, a, b)
    assert b.one("SELECT memory_id FROM memories") == "short"
    ((table, key, reason),) = a.status().unsendable
    assert (table, key, reason) == ("memories", "long", "it is larger than 32 MiB")


def test_a_row_that_cannot_be_sent_is_kept_when_another_device_changes_it(two, folder):
    a, b = two
    a.run("INSERT INTO memories VALUES ('m', 'ada', 'x', 'fact', 1, '2024', NULL)")
    meet(folder, a, b)
    a.run("UPDATE memories SET content = ?", "y" * (33 << 20))
    b.run("UPDATE memories SET content = 'theirs'")
    meet(folder, a, b, a)
    assert a.one("SELECT content FROM memories") == "theirs"
    (conflict,) = a.conflicts()
    assert conflict.is_unsent
    assert len(conflict.lost["content"]) == 33 << 20
    assert a.status().unsendable == ()


def test_own_changes_of_a_device_that_only_receives_are_seen_and_stay(two, make, folder):
    a, c = two[0], make("c")
    c.join(a.invite(c.create_keys(), "tablet", level=1))
    a.run(USER, "eve", "Eve")
    meet(folder, a, c)
    theirs = a.verify().verified.proof
    assert c.status().receives_only
    assert not a.status().receives_only
    assert c.verify(with_=theirs).buckets == {}
    c.run(RENAME, "Ada L.")
    c.run("DELETE FROM users WHERE user_id = 'eve'")
    meet(folder, c, a)
    found = c.verify(with_=theirs)
    assert found.verified.differing == [("users", "ada"), ("users", "eve")]
    assert len(found.buckets["users"]) == 2
    assert a.verify(with_=found.verified.proof).buckets == found.buckets
    with pytest.raises(InvalidValue, match="only receives"):
        c.verify(repair=True)


@pytest.fixture
def listening(two, make, folder):
    """Return two devices, of which the second one only receives, with a memory of a person."""
    a, _ = two
    a.run(USER, "eve", "Eve")
    a.run(MEMORY, "m")
    c = make("c")
    c.join(a.invite(c.create_keys(), "tablet", level=1))
    meet(folder, a, c)
    return a, c


@pytest.mark.parametrize(
    "theirs",
    [
        "UPDATE memories SET content = 'theirs'",
        "DELETE FROM memories",
        "DELETE FROM users WHERE user_id = 'eve'",
    ],
)
def test_own_changes_of_a_device_that_only_receives_are_kept_there(listening, folder, theirs):
    a, c = listening
    c.run("UPDATE memories SET content = 'mine'")
    a.run(theirs)
    meet(folder, a, c)
    kept = {one.table: one for one in c.conflicts()}
    assert kept["memories"].lost["content"] == "mine"
    assert kept["memories"].device_id == c.replica.device_id
    assert a.conflicts() == []
    assert a.one("SELECT content FROM memories") == c.one("SELECT content FROM memories")
    c.resolve(kept["memories"].number, "mine")
    assert c.conflicts() == []
    assert c.one("SELECT content FROM memories") == "mine"


def test_each_own_change_that_is_in_no_bundle_is_kept_by_itself(listening, folder):
    a, c = listening
    for mine, theirs in (("first", "x1"), ("second", "x2")):
        c.run("UPDATE memories SET content = ?", mine)
        a.run("UPDATE memories SET content = ?", theirs)
        meet(folder, a, c)
    kept = c.conflicts()
    assert [(one.kind, one.lost["content"]) for one in kept] == [
        ("row", "first"),
        ("row", "second"),
    ]
    c.resolve(kept[0].number, "theirs")
    assert c.one("SELECT content FROM memories") == "x2"
    assert c.verify().verified.differing == []
    a.run("DELETE FROM memories")
    meet(folder, a, c)
    assert [(one.kind, one.lost["content"]) for one in c.conflicts()] == [("deleted", "second")]


def rejoin(a, other):
    """Let a device join again that is revoked now; it has another id then."""
    level = a.replica.level(other.replica.device_id)
    a.revoke(other.replica.device_id)
    other.replica.connection.execute(
        "UPDATE devices SET trust_level = 0, revoked_at = '2026' WHERE device_id = ?",
        [other.replica.device_id],
    )
    other.join(json.loads(json.dumps(a.invite(other.create_keys(), "again", level=level))))


def test_a_device_that_joined_again_knows_its_own_versions(two, folder):
    a, b = two
    a.run(RENAME, "theirs", at=1_800_000_000_001)
    b.run(RENAME, "mine", at=1_800_000_000_000)
    meet(folder, a, b)
    rejoin(a, b)
    meet(folder, b, a)
    b.resolve(b.conflicts()[0].number, "mine")
    meet(folder, b, a)
    assert (a.name, b.name) == ("mine", "mine")


def test_a_device_that_only_receives_decides_what_it_changed_before_it_joined_again(
    listening, folder
):
    a, c = listening
    c.run("UPDATE memories SET content = 'mine'")
    a.run("UPDATE memories SET content = 'theirs'")
    meet(folder, a, c)
    rejoin(a, c)
    meet(folder, a, c)
    (found,) = c.conflicts()
    assert found.is_unsent
    assert not found.is_for_others
    c.resolve(found.number, "mine")
    assert c.one("SELECT content FROM memories") == "mine"


def test_a_row_that_a_device_which_only_receives_deleted_itself_can_be_brought_back(
    listening, folder
):
    a, c = listening
    c.run("UPDATE memories SET content = 'mine'")
    a.run("UPDATE memories SET content = 'theirs'")
    meet(folder, a, c)
    c.run("DELETE FROM memories")
    c.resolve(c.conflicts()[0].number, "mine")
    assert c.one("SELECT content FROM memories") == "mine"


def raw(device):
    return device.one(
        "SELECT CAST(content AS BLOB) FROM memories "
        "WHERE typeof(content) = 'text' AND memory_id = 'm'"
    )


@pytest.mark.parametrize(
    "theirs",
    [
        "UPDATE memories SET content = 'theirs'",
        "DELETE FROM memories",
        "DELETE FROM users WHERE user_id = 'eve'",
    ],
)
@pytest.mark.parametrize("text", [b"my\0self", b"caf\xe9", b""])
def test_a_text_that_no_bundle_can_have_is_kept_when_another_device_changes_the_row(
    two, folder, text, theirs
):
    a, b = two
    a.run(USER, "eve", "Eve")
    a.run(MEMORY, "m")
    meet(folder, a, b)
    a.run("UPDATE memories SET content = CAST(? AS TEXT), importance = 0.25", text)
    a.run("INSERT INTO memories VALUES (CAST(? AS TEXT), 'eve', 'x', 'fact', 1, '2024', NULL)",
          b"key\xe9")  # fmt: skip
    b.run(theirs, at=1_800_000_000_000)
    meet(folder, a, b, a)
    assert raw(a) in {None, b"theirs"}
    found = {one.table: one for one in a.conflicts()}
    lost = found["memories"].lost["content"]
    assert (lost if isinstance(lost, bytes) else lost.encode()) == text
    a.resolve(found["memories"].number, "mine")
    importance = a.one("SELECT importance FROM memories WHERE memory_id = 'm'")
    assert (raw(a), importance) == (text, 0.25)
    assert a.conflicts() == []
    unsendable = {(table, key) for table, key, _ in a.status().unsendable}
    assert (("memories", "m") in unsendable) == bool(text)


def test_a_row_beside_a_text_that_no_bundle_can_have_is_decided_by_a_file(two, folder):
    a, b = two
    a.run("INSERT INTO memories VALUES ('m', 'ada', 'x', 'fact', 1, '2024', NULL)")
    meet(folder, a, b)
    for device, number in ((a, 0.25), (b, 0.5)):
        device.run("UPDATE memories SET importance = ?", number)
    meet(folder, a, b)
    a.run("UPDATE memories SET content = CAST(? AS TEXT)", b"my\0self")
    a.resolve(a.conflicts()[0].number, {"importance": 0.75})
    assert (raw(a), a.one("SELECT importance FROM memories")) == (b"my\0self", 0.75)


@pytest.mark.parametrize("is_known_first", [False, True])
def test_compacting_keeps_the_version_of_a_row_whose_later_one_cannot_be_sent(
    two, make, folder, is_known_first
):
    a, b = two
    a.run("INSERT INTO memories VALUES ('m', 'ada', 'sent', 'fact', 1, '2024', NULL)")
    meet(folder, a, b)
    if is_known_first:
        b.compact()
        meet(folder, b, a)
    a.run("UPDATE memories SET content = 'a' || char(0)")
    a.seal()
    a.compact()
    meet(folder, a, b)
    c = make("c")
    c.join(a.invite(c.create_keys(), "desktop"))
    meet(folder, a, c)
    assert c.one("SELECT content FROM memories") == "sent"
    a.run("UPDATE memories SET content = 'again'")
    meet(folder, a, b, c)
    assert (b.one("SELECT content FROM memories"), b.conflicts()) == ("again", [])
    assert a.verify(with_=c.verify().verified.proof).buckets == {}


@pytest.mark.parametrize("theirs", [RENAME, "DELETE FROM users WHERE user_id = 'ada' AND ? <> ''"])
@pytest.mark.parametrize("case", ["loses", "loses late", "wins", "wins late"])
def test_of_two_versions_of_which_one_replaced_the_other_only_the_last_can_be_lost(
    two, make, folder, theirs, case
):
    """Whether they lose, or the last one wins after the first had lost."""
    a, b = two
    c = with_third(two, make, folder)
    b.run(theirs, "theirs", at=1_800_000_000_000)
    a.run(RENAME, "first", at=1_700_000_000_000)
    a.sync(folder)
    if "late" in case:
        meet(folder, b, c)
    a.run(RENAME, "second", at=1_900_000_000_000 if "wins" in case else 1_700_000_000_001)
    a.seal()
    a.exchange(folder)
    meet(folder, c, b, a)
    kept = {tuple(found.lost["name"] for found in one.conflicts()) for one in (a, b, c)}
    assert kept in ({("second",)}, {("theirs",)})
    assert len({one.name for one in (a, b, c)}) == 1
    b.resolve(b.conflicts()[0].number, "mine")
    meet(folder, b, a, c)
    assert [one.conflicts() for one in (a, b, c)] == [[], [], []]


def test_who_changes_a_row_that_lost_decides_nothing(two, make, folder):
    a, b = two
    c = with_third(two, make, folder)
    a.run(RENAME, "first", at=1_800_000_000_000)
    b.run(RENAME, "theirs", at=1_800_000_000_001)
    meet(folder, a, b, c)
    a.run(RENAME, "second", at=1_800_000_000_002)
    b.run(RENAME, "third", at=1_800_000_000_003)
    meet(folder, a, b, c)
    for one in (a, b, c):
        assert [found.lost["name"] for found in one.conflicts()] == ["first", "second"]


def test_an_own_deletion_ends_conflicts_although_it_is_in_no_bundle_yet(two, folder):
    a, b = two
    for one in two:
        one.run(USER, "eve", "Eve")
    meet(folder, a, b)
    for device, name in ((a, "mine"), (b, "theirs")):
        device.run("UPDATE users SET name = ?", name)
    meet(folder, a, b)
    assert len(a.conflicts()) == 2
    a.run("DELETE FROM users WHERE user_id = 'eve'")
    assert a.resolve_all("mine") == {}
    assert a.conflicts() == []
    meet(folder, a, b)
    assert (a.name, b.name, b.conflicts()) == ("mine", "mine", [])


def test_a_version_that_refers_to_a_person_who_is_gone_is_left_by_name(two, folder):
    a, b = two
    a.run(USER, "eve", "Eve")
    a.run(CHANNEL)
    a.run(MESSAGE, "m")
    meet(folder, a, b)
    a.run("UPDATE messages SET content = 'mine'", at=1_800_000_000_000)
    b.run("UPDATE messages SET content = 'theirs', user_id = 'ada'", at=1_800_000_000_001)
    meet(folder, a, b)
    for device, name in ((a, "mine"), (b, "theirs")):
        device.run(RENAME, name)
    meet(folder, a, b)
    a.run("DELETE FROM users WHERE user_id = 'eve'")
    (left,) = a.resolve_all("mine")
    assert a.name == "mine"
    (found,) = a.conflicts()
    assert (found.number, found.table) == (left, "messages")
    with pytest.raises(InvalidValue, match="'eve' of users, which was deleted: decide on a device"):
        a.resolve(left, "mine")
    a.resolve(left, {"content": "mine"})
    meet(folder, a, b)
    for one in two:
        rows = one.replica.connection.fetch_all("SELECT content, user_id FROM messages")
        assert rows == [("mine", "ada")]
        assert one.conflicts() == []


def test_of_all_conflicts_those_stay_that_this_device_cannot_decide(orphaned):
    a, _, _ = orphaned
    (orphan,) = [one.number for one in a.conflicts() if one.key == "unknown"]
    a.run(USER, "new", "New")
    a.seal()
    left = a.resolve_all("theirs")
    assert left.keys() == {orphan}
    assert "'eve' of users, which was deleted: decide on" in left[orphan]
    assert [one.number for one in a.conflicts()] == [orphan]


def test_a_row_of_a_device_that_only_receives_is_kept_if_its_parent_is_deleted(listening, folder):
    a, c = listening
    c.run(MEMORY, "own")
    a.run("DELETE FROM users WHERE user_id = 'eve'")
    meet(folder, a, c)
    assert {one.key for one in c.conflicts()} == {"own", "eve"}
    c.resolve(next(one.number for one in c.conflicts() if one.key == "own"), "mine")
    assert c.conflicts() == []
    assert c.one("SELECT memory_id FROM memories") == "own"


def test_what_changed_before_a_policy_that_leaves_out_its_class_is_sent(two, folder):
    """The device was offline when the policy was chosen, and another one changed the same row."""
    a, b = two
    a.run(USER, "eve", "Eve")
    a.run(MEMORY, "m")
    meet(folder, a, b)
    a.run("UPDATE memories SET content = 'theirs'", at=1_800_000_000_000)
    a.set_policy(b.replica.device_id, memories="none")
    a.sync(folder)
    b.run("UPDATE memories SET content = 'mine'", at=1_900_000_000_000)
    meet(folder, b, a)
    for device in two:
        assert device.one("SELECT content FROM memories") == "mine"
    assert [one.lost["content"] for one in a.conflicts()] == ["theirs"]


def test_the_folder_holds_nothing_readable(two, folder):
    a, b = two
    a.run(USER, "canary-id", "canary-name")
    meet(folder, a, b)
    for path in folder.glob("**/*"):
        content = path.read_bytes() if path.is_file() else b""
        for text in (b"canary", b"users", b"laptop", a.replica.keys.recipient.encode()):
            assert text not in content
            assert text.decode() not in str(path.relative_to(folder))


def forged(
    a,
    b,
    change=lambda _: None,
    *,
    stream=None,
    n=1,
    body=None,
    sign=None,
    text=None,
    texts=None,
    is_deferred=False,
):
    """Put a bundle by `b` into the spool of `a`, and return the reasons of refusal."""
    stream = stream or f"{b.replica.device_id}.{os.urandom(4).hex()}"
    table = a.replica.tables["users"]
    content = tuple({"created_at": "2024", "name": "Eve"}.get(c) for c in table.columns)
    version = Version(1, 1, digest_of(table, "eve", content), stream, n)
    header = Header("people", stream, n, bundles.START, Ctx(), a.replica.schema)
    plain = {"users": {"columns": table.columns, "rows": [["eve", 1, 1], [*content]]}}
    plain["users"]["rows"] = [bundles.encoded(header, RowChange("eve", version, content))]
    change(plain)
    head = {
        "v": 1, "class_": "people", "stream": stream, "n": n, "prev": bundles.START, "ctx": {},
        "schema": a.replica.schema, "statements": [], "needs": [],
    }  # fmt: skip
    if "header" in plain:
        head |= plain.pop("header")
    lines = text or json.dumps(head).encode() + b"\n" + (body or json.dumps(plain).encode())
    if texts is not None:
        texts += [lines, stream.encode()]
    payload = zlib.compress(lines)
    key = Ed25519PrivateKey.from_private_bytes(sign or b.replica.signing_key)
    signature = key.sign(bundles._CONTEXT + payload)
    recipient = epochs.recipient(a.replica, "people", a.replica.entitled()["people"])
    whole = age.encrypt(signature + payload, [recipient])
    name = FileName(stream, n, hash_of(whole))
    a.replica.spool.take(str(name), whole)
    if is_deferred:
        return []
    done = a.take_in()
    return [reason for file, reason in done.refused + done.waiting if file == str(name)]


def row(**changed):
    def change(plain):
        head, content = plain["users"]["rows"][0]
        plain["users"]["rows"][0] = [
            [changed.get("key", head[0]), changed.get("cl", 1), changed.get("stamp", 1)],
            changed.get("content", content),
        ]

    return change


BAD = {
    "an unknown table": lambda p: p.update(lovers=p.pop("users")),
    "a table of another class": lambda p: p.update(memories=p.pop("users")),
    "a missing value": row(content=[1]),
    "a number as name": row(content=["2024", None, 5]),
    "a list as name": row(content=["2024", None, ["x"]]),
    "a NUL": row(content=["2024", None, "a\0b"]),
    "no causal length": row(cl=0),
    "a negative one": row(cl=-1),
    "a huge one": row(cl=2**53 + 1),
    "a huge stamp": row(stamp=2**60),
    "a stamp that is a text": row(stamp="1"),
    "a deleted row with content": row(cl=2),
    "a key that is a number": row(key=5),
    "another stream": lambda p: p.update(header={"stream": "0" * 16 + ".00000000"}),
    "another number": lambda p: p.update(header={"n": 2}),
    "a first bundle after another": lambda p: p.update(header={"prev": "1" * 32}),
    "a malformed statement": lambda p: p.update(header={"statements": [{"kind": "approve"}]}),
    "a malformed import": lambda p: p.update(
        header={"statements": [{"kind": "undone", "import": "x", "rows": 5}]}
    ),
    "no statements": lambda p: p.update(header={"statements": 5}),
    "a malformed decision": lambda p: p.update(header={"decided": [["users", "ada"]]}),
    "a context that is a list": lambda p: p.update(header={"ctx": []}),
}


@pytest.mark.parametrize("change", BAD.values(), ids=BAD)
def test_a_malformed_bundle_is_refused_by_name(two, change):
    a, b = two
    assert len(forged(a, b, change)) == 1
    assert a.one("SELECT count(*) FROM users") == 1
    assert a.take_in().refused == []


@pytest.mark.parametrize(
    "head", [b"-> X25519 abc\n" + (b"A" * 64 + b"\n") * 300, b"-> x y\n\n" * 300 + b"--- "]
)
def test_a_long_head_is_refused_before_it_is_read(two, folder, monkeypatch, head):
    """The driver takes minutes for some 100 KB, and Control-C does not end it."""
    a, b = two
    content = age.HEADER + head
    name = str(FileName(a.replica.stream("people"), 9, hash_of(content)))
    with monkeypatch.context() as patched:
        patched.setattr(bundles.age.pyrage, "decrypt", lambda *_: pytest.fail("was read"))
        b.replica.spool.take(name, content)  # by an earlier version of this program
        b.exchange(folder)
        assert not (folder / name).exists()
        (folder / name).write_bytes(content)
        b.exchange(folder)
        assert dict(b.take_in().refused) == {name: "it is not encrypted, or is damaged"}
    (folder / name).unlink()
    meet(folder, b, a)
    assert not (folder / name).exists()
    assert name not in b.replica.spool.names()


def test_other_bad_files_are_refused(two, folder):
    a, b = two
    assert forged(a, b) == []  # as it is, it is taken in
    assert a.one("SELECT count(*) FROM users") == 2
    assert forged(a, b, sign=b"x" * 32) == ["its signature is not that of its device"]
    assert forged(a, b, stream="0" * 16 + ".00000000") == ["its device is unknown"]
    assert forged(a, b, text=b"0" * (65 << 20)) == ["its content is too large, or cut off"]
    assert forged(a, b, body=b"[" * 100_000) == ["its rows are malformed"]
    assert forged(a, b, text=b"{}") == ["its header is malformed"]
    stream = f"{b.replica.device_id}.00000000"
    (folder / stream).mkdir()
    whole = b"not encrypted"
    name = f"{stream}/00000001-{hash_of(whole)}.age"
    (folder / name).write_bytes(whole)
    (folder / stream / "notes.txt").write_text("x")
    os.mkfifo(folder / stream / "pipe")
    (folder / stream / "link").symlink_to("/dev/zero")
    assert a.exchange(folder).foreign == [
        (f"{stream}/notes.txt", "its name is not that of a bundle")
    ]
    assert a.take_in().refused == [(name, "it is not encrypted, or is damaged")]
    assert name not in a.replica.spool.names()
    assert a.exchange(folder).received == 0
    assert parse_name(name).device == b.replica.device_id
    (entry,) = [one for one in a.log() if name in one.detail]
    assert (entry.event, entry.device_id) == ("federation.refused", b.replica.device_id)


def test_to_refuse_many_files_lists_the_spool_no_more_often_than_to_refuse_one(two, monkeypatch):
    a, b = two
    listed = []
    names = Spool.names
    monkeypatch.setattr(Spool, "names", lambda spool: listed.append(1) or names(spool))

    def refused(count):
        for _ in range(count):
            forged(a, b, text=b"{}", is_deferred=True)
        listed.clear()
        done = a.take_in()
        files = {file for file, _ in done.refused}
        assert len(files) == count
        made = len(listed)
        assert not files & names(a.replica.spool)
        return made

    assert refused(1) == refused(10)


def test_a_row_of_an_older_schema_gets_the_defaults(two, folder):
    """And keeps its digest, so that nothing is sent back."""
    a, b = two
    b.replica.connection.execute("ALTER TABLE users ADD COLUMN mood TEXT NOT NULL DEFAULT 'calm'")
    newer = Device(b.replica.connection, b.folder)
    a.run(RENAME, "from the older one")
    meet(folder, a, newer)
    assert newer.one("SELECT name || mood FROM users") == "from the older onecalm"
    files = list(folder.glob("*/*"))
    meet(folder, a, newer)
    assert list(folder.glob("*/*")) == files


def test_a_bundle_of_a_newer_schema_waits(two, folder):
    a, b = two
    b.replica.connection.execute("ALTER TABLE users ADD COLUMN mood TEXT")
    newer = Device(b.replica.connection, b.folder)
    newer.replica.schema = 1000
    newer.run("UPDATE users SET mood = 'happy'")
    newer.sync(folder)
    assert [why for _, why in a.sync(folder).taken_in.waiting] == [
        "it is of a newer schema: upgrade this device, or activate the plugin"
    ]
    assert a.name == "Ada"


@pytest.mark.slow
def test_of_mutated_bundles_none_is_more_than_refused(two):
    """Signed by a trusted device, so that only the checks of the content are left."""
    a, b = two
    r = random.Random(0)
    texts = []
    forged(a, b, texts=texts)
    tokens = [
        b"[",
        b"]",
        b"{}",
        b"null",
        b"-1",
        b"1e999",
        b"9" * 30,
        b'"',
        b"true",
        b"\\ud800",
        b",",
    ]
    for _ in range(5000):
        stream = f"{b.replica.device_id}.{r.getrandbits(32):08x}"
        text = bytearray(texts[0].replace(texts[1], stream.encode()))
        for _ in range(r.randrange(1, 4)):
            at = r.randrange(len(text))
            text[at : at + r.randrange(4)] = r.choice([bytes([r.randrange(256)]), *tokens])
        forged(a, b, text=bytes(text), stream=stream, is_deferred=True)
    done = a.take_in()
    assert done.bundles + len(done.refused) + len(done.waiting) == 5000
    assert a.replica.connection.fetch_all("PRAGMA foreign_key_check") == []
    assert a.one("SELECT count(*) FROM sync_applying") == 0
