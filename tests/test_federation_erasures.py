"""Erasures that a person's devices carry out because another one has erased the same."""

from __future__ import annotations

import contextlib
import json
import re

import pytest

from aico_lab import health
from aico_lab.adapters.sql_text import quoted
from aico_lab.backup.restoring import restore
from aico_lab.cli import federate
from aico_lab.config import Settings
from aico_lab.errors import (
    DatabaseLocked,
    DeviceRevoked,
    ErasureIncomplete,
    InvalidValue,
    UnknownName,
)
from aico_lab.etl.snapshots import published
from aico_lab.federation import bundles, compacting, control, erasures, sealing
from aico_lab.federation.bundles import Refused, parse_name
from aico_lab.federation.receiving import Receiver
from aico_lab.federation.tables import BASE
from aico_lab.home.receipts import SealedErasures
from aico_lab.lab import Lab
from aico_lab.privacy.forgetting import Forgetting
from aico_lab.privacy.scope import Scope
from aico_lab.schema import SchemaVersion, register_schema
from aico_lab.schema.registry import SchemaRegistry

ADA = "person-ada-1987"
SAID = (
    "INSERT INTO messages (message_id, channel_id, conversation_id, user_id, role, content, "
    "timestamp) VALUES (?, ?, ?, ?, ?, ?, '2026-11-10T12:30:00.000000Z')"
)
SUMMED_UP = (
    "INSERT INTO conversation_segments (segment_id, channel_id, conversation_id, started_at, "
    "ended_at, message_count, summary, segmenter) VALUES ('s', ?, 'talk', '2026-11-10', "
    "'2026-11-11', 2, 'a canary of the summary', 'x')"
)
FEEDBACK = (
    "INSERT INTO feedback_events (event_id, user_id, kind, name, timestamp) "
    "VALUES (?, ?, 'rating', 'warmth', '2026-11-10T12:30:00.000000Z')"
)
MEMORY = "INSERT INTO memories VALUES (?, ?, 'a canary of the memory', 'fact', 1, '2024', NULL)"


@pytest.fixture
def shared(tmp_path, homes):
    """Return a function that opens homes which are devices, with one person, and their folder."""
    folder = tmp_path / "shared"
    folder.mkdir()
    opened = []

    def open_all(*names, channel="garden"):
        opened.extend(homes.open(tmp_path / name) for name in names)
        first = opened[0]
        first.devices.federation.begin(names[0])
        for lab, name in zip(opened[1:], names[1:], strict=True):
            join(first, lab, name)
        write(first, "INSERT INTO users VALUES (?, 'Ada Canary', '2024', NULL)", ADA)
        write(first, "INSERT INTO users VALUES ('otto', 'Otto', '2024', NULL)")
        write(
            first,
            "INSERT INTO channels (channel_id, name, kind, created_at) VALUES (?, ?, ?, '2026')",
            channel,
            "our garden" if channel == "group" else "a canary of the name",
            "group" if channel == "group" else "direct",
        )
        write(first, SAID, "m1", channel, "talk", ADA, "user", "a canary, said to all")
        if channel == "group":
            write(first, SAID, "o1", channel, "other", "otto", "user", "roses are red here")
        meet(folder, *opened, *opened)
        return (*opened, folder)

    yield open_all
    for lab in opened:
        lab.close()


def join(inviting, lab, name, level=2):
    federation = inviting.devices.federation
    keys = lab.devices.federation.create_keys()
    lab.devices.federation.join(json.loads(json.dumps(federation.invite(keys, name, level=level))))


def write(lab, sql, *parameters):
    with lab.primary.transaction():
        lab.primary.execute(sql, parameters)


def make_of_it(lab, channel="garden"):
    """Let a device make rows of what the person said, of which no row names the person."""
    write(lab, SAID, "re", channel, "talk", None, "assistant", "a canary in the answer")
    write(lab, SUMMED_UP, channel)


def meet(folder, *labs):
    for lab in labs:
        lab.devices.sync(folder=folder)


@contextlib.contextmanager
def not_there_yet(folder, paths):
    """Keep files out of the shared folder for a block, as a cloud drive that is slow."""
    for path in paths:
        path.rename(folder.parent / path.name)
    yield
    for path in paths:
        (folder.parent / path.name).rename(path)


def count(lab, sql):
    return lab.primary.fetch_one(sql)[0]


def left_of(lab):
    """Return the tables that have a text or the id; the keys of deleted rows stay."""
    found = set()
    for (table,) in lab.primary.fetch_all(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name <> 'sync_rows' "
        "AND sql NOT LIKE 'CREATE VIRTUAL%'"
    ):
        for row in lab.primary.fetch_all(f"SELECT * FROM {quoted(table)}"):
            said = repr(row).lower()
            if "canary" in said or (ADA in said and "'decided'" not in said):
                found.add((table, said))
    return found


def check_erased(lab, *, receipts=1):
    assert left_of(lab) == set()
    assert not lab.privacy.unfinished()
    assert not erasures.asked(lab.devices.federation.replica)
    assert len(lab.privacy.receipts()) == receipts


@pytest.mark.parametrize("is_sent", [False, True])
@pytest.mark.parametrize("channel", ["garden", f"direct:{ADA}", "group"])
def test_what_another_device_made_of_erased_rows_goes_with_them(shared, channel, is_sent):
    a, b, folder = shared("laptop", "phone", channel=channel)
    make_of_it(b, channel)
    write(b, "UPDATE messages SET content = 'a canary, changed' WHERE message_id = 'm1'")
    write(b, MEMORY, "own", ADA)
    if is_sent:
        meet(folder, b)
    erased = a.privacy.forget(user=ADA).erasure_id
    meet(folder, a, b, a, b)
    for lab in (a, b):
        check_erased(lab)
        assert [one["erasure_id"] for one in lab.privacy.receipts()] == [erased]
        assert count(lab, "SELECT count(*) FROM sync_erasures") == 1
        assert count(lab, "SELECT count(*) FROM messages") == (channel == "group")
        assert lab.devices.federation.conflicts() == []
        assert lab.devices.federation.verify().verified.differing == []
    was_sent = a.devices.federation.bundles_with(re.compile(b"in the answer"))
    assert was_sent == is_sent
    a.devices.compact()
    meet(folder, b, a)
    for lab in (a, b):
        assert left_of(lab) == set()
        assert lab.devices.federation.bundles_with(re.compile(b"canary")) == 0


@pytest.mark.slow
def test_what_an_erasure_decides_is_spread_over_bundles(shared, monkeypatch):
    """A header of half a million of decided conflicts would be refused."""
    monkeypatch.setattr(sealing, "ROWS", 1)
    monkeypatch.setattr(compacting, "ROWS", 1)
    a, b, folder = shared("laptop", "phone")
    make_of_it(b)
    for number in range(3):
        write(b, SAID, f"n{number}", "garden", "talk", ADA, "user", "a canary of mine")
    meet(folder, b)
    a.privacy.forget(user=ADA)
    meet(folder, a)
    a.privacy.forget(user=ADA)  # also of the conflicts
    meet(folder, a, b, a)
    check_erased(a, receipts=2)
    assert decided_in_bundles(a) == [0, 1]
    b.devices.compact()
    meet(folder, a, b)
    assert decided_in_bundles(a) == [0, 1]
    assert count(a, "SELECT count(*) FROM sync_conflicts WHERE state = 'decided'") == 5


def decided_in_bundles(lab):
    """Return the different numbers of decided conflicts of a device's bundles."""
    replica = lab.devices.federation.replica
    opened = [Receiver(replica).open(parse_name(name)) for name in replica.spool.names()]
    return sorted({len(one.header.decided) for one in opened})


@pytest.mark.parametrize("scope", [{"channel": "garden"}, {"conversation": "talk"}])
def test_channels_and_conversations_are_erased_on_every_device(shared, scope):
    a, b, folder = shared("laptop", "phone")
    make_of_it(b)
    a.privacy.forget(**scope)
    meet(folder, a, b, a)
    for lab in (a, b):
        assert count(lab, "SELECT count(*) FROM messages") == 0
        assert count(lab, "SELECT count(*) FROM conversation_segments") == 0
        assert len(lab.privacy.receipts()) == 1
    write(b, "INSERT OR IGNORE INTO channels (channel_id, created_at) VALUES ('garden', '2026')")
    write(b, SAID, "new", "garden", "talk", ADA, "user", "begun anew")
    meet(folder, b, a, b)
    assert [count(lab, "SELECT count(*) FROM messages") for lab in (a, b)] == [1, 1]


def test_snapshots_of_another_device_go_with_the_rows(shared):
    a, b, folder = shared("laptop", "phone")
    b.sync()
    before = set(published(b.home.snapshots))
    a.privacy.forget(user=ADA)
    meet(folder, a, b)
    assert before
    assert not before & set(published(b.home.snapshots))
    assert b.sql("SELECT count(*) FROM conversations").fetchall() == [(0,)]


@pytest.mark.slow
@pytest.mark.parametrize("is_sent", [False, True])
def test_a_device_that_was_away_erases_after_a_compaction(shared, is_sent):
    a, b, c, folder = shared("laptop", "phone", "stick")
    make_of_it(c)
    a.privacy.forget(user=ADA)
    if is_sent:
        meet(folder, c)
    meet(folder, a, b)
    a.devices.compact()
    meet(folder, b, a)
    meet(folder, c, a, b)
    for lab in (a, b, c):
        check_erased(lab)
        assert lab.devices.federation.conflicts() == []


def test_a_device_passes_an_erasure_on_before_its_own_deletions(shared):
    a, b, c, folder = shared("laptop", "phone", "stick")
    make_of_it(c)
    a.privacy.forget(user=ADA)
    meet(folder, a, b)
    for path in folder.glob(f"{a.devices.federation.replica.device_id}*"):
        path.rename(folder.parent / path.name)  # as if a cloud drive did not have them yet
    meet(folder, c)
    assert len(c.privacy.receipts()) == 1
    for path in folder.parent.glob("*.age"):
        path.rename(folder / path.name)
    meet(folder, a, b, c)
    for lab in (a, b, c):
        check_erased(lab)


def test_a_conflict_that_an_erasure_removed_ends_on_a_device_that_finds_it_later(shared):
    a, b, c, folder = shared("laptop", "phone", "stick")
    write(a, MEMORY, "own", ADA)
    meet(folder, a, b, c)
    write(a, "UPDATE memories SET content = 'a canary, changed'")
    write(b, "DELETE FROM memories")
    meet(folder, b, a, b)
    assert [len(lab.devices.federation.conflicts()) for lab in (a, b)] == [1, 1]
    a.privacy.forget(user=ADA)
    meet(folder, a, b)
    streams = [lab.devices.federation.replica.stream("memories") for lab in (a, b)]
    away = [one for one in folder.rglob("*.age") if any(stream in str(one) for stream in streams)]
    with not_there_yet(folder, away):
        meet(folder, c)
        assert len(c.privacy.receipts()) == 1
    meet(folder, c)
    for lab in (a, b, c):
        check_erased(lab)
        assert lab.devices.federation.conflicts() == []
        with pytest.raises(UnknownName):
            lab.privacy.forget(user=ADA)


def test_a_row_that_was_changed_twice_meanwhile_leaves_no_conflict(shared):
    a, b, folder = shared("laptop", "phone")
    a.privacy.forget(user=ADA)
    write(b, MEMORY, "own", ADA)
    meet(folder, b)
    write(b, "UPDATE memories SET content = 'a canary, changed'")
    b.devices.federation.seal()
    b.devices.federation.exchange(folder)
    meet(folder, a)
    assert len(a.devices.federation.conflicts()) == 1  # with the later text
    meet(folder, b, a)
    check_erased(a)
    check_erased(b)


def test_an_erased_row_that_comes_late_leaves_no_conflict(shared):
    a, b, c, folder = shared("laptop", "phone", "stick")
    before = set(folder.rglob("*.age"))
    write(a, MEMORY, "own", ADA)
    meet(folder, a)
    late = set(folder.rglob("*.age")) - before
    a.privacy.forget(user=ADA)
    meet(folder, a)
    with not_there_yet(folder, late):
        meet(folder, c)
        assert len(c.privacy.receipts()) == 1
    meet(folder, c, a, b, c)
    for lab in (a, b, c):
        check_erased(lab)


def test_a_device_that_joins_later_lists_no_erased_texts(shared, tmp_path, homes):
    """The device that asks does not hold the class, so that it knew none of the messages."""
    a, b, folder = shared("laptop", "phone")
    a.devices.federation.set_policy(b.devices.federation.replica.device_id, conversations="none")
    meet(folder, a, b)
    for number in range(3):
        write(a, f"UPDATE messages SET content = 'a canary, changed {number} times'")
        meet(folder, a)
    b.privacy.forget(user=ADA)
    meet(folder, b, a, b)
    with homes.open(tmp_path / "tablet") as c:
        join(a, c, "tablet")
        meet(folder, a, c, a, c)
        assert c.devices.federation.conflicts() == []
        assert {table for table, _ in left_of(c)} <= {"change_log"}  # the key of the person's row


def test_any_name_of_a_column_of_a_plugin_does(tmp_path, homes, monkeypatch):
    registry = SchemaRegistry()
    registry._schemas |= SchemaRegistry.default._schemas
    monkeypatch.setattr(SchemaRegistry, "default", registry)
    owned = 'stamp_id TEXT PRIMARY KEY NOT NULL, user_id TEXT, "*" TEXT'
    notes = (
        'note_id TEXT PRIMARY KEY NOT NULL, user_id TEXT, "it\'s $x" TEXT NOT NULL '
        "REFERENCES stamps_owned ON DELETE CASCADE"
    )
    version = SchemaVersion(
        version=1, name="Stamps", description="Stamps.",
        sql_statements=[
            f"CREATE TABLE stamps_owned ({owned})", f"CREATE TABLE stamps_notes ({notes})",
        ],
        rollback_statements=["DROP TABLE stamps_notes", "DROP TABLE stamps_owned"],
        tracked={"stamps_owned": ("stamp_id",), "stamps_notes": ("note_id",)},
    )  # fmt: skip
    register_schema("stamps", "plugin", federated=True, registry=registry)({1: version})
    with contextlib.ExitStack() as opened:
        a, b, c = [opened.enter_context(homes.open(tmp_path / name)) for name in "abc"]
        for lab in (a, b, c):
            registry.apply_plugin_schema("stamps", lab.primary)
        folder = tmp_path / "shared"
        folder.mkdir()
        a.devices.federation.begin("a")
        join(a, b, "b")
        write(a, "INSERT INTO users VALUES (?, 'Ada', '2024', NULL)", ADA)
        write(a, "INSERT INTO stamps_owned VALUES ('s', ?, 'a canary')", ADA)
        write(a, "INSERT INTO stamps_owned VALUES ('t', NULL, 'a blue one')")
        meet(folder, a, b)
        join(b, c, "c")  # which the erasing device does not know
        meet(folder, b, c)
        write(c, "INSERT INTO stamps_notes VALUES ('n', ?, 's')", ADA)
        a.privacy.forget(user=ADA)
        meet(folder, a, b, c, a, b, c)
        assert {one.key for one in c.devices.federation.conflicts()} == {"n", "s"}
        for lab in (a, b, c):
            assert lab.primary.fetch_all('SELECT "*" FROM stamps_owned') == [("a blue one",)]


@pytest.mark.parametrize(
    ("is_known", "keep"), [(False, "mine"), (True, "mine"), (True, "theirs"), (False, "theirs")]
)
def test_what_another_person_said_in_an_erased_channel_can_be_brought_back(shared, is_known, keep):
    """Also after a second device has erased the channel, and a state has brought its deletion."""
    a, b, c, folder = shared("laptop", "phone", "stick")
    write(c, "INSERT INTO channels (channel_id, created_at) VALUES ('new', '2026')")
    write(c, SAID, "n1", "new", "talk", ADA, "user", "a canary")
    meet(folder, c)
    write(c, SAID, "o1", "new", "talk", "otto", "user", "roses are red here")
    meet(folder, b, *([a] if is_known else []))
    a.privacy.forget(user=ADA)
    a.devices.federation.exchange(folder)
    meet(folder, *([a] if is_known else []), b, c, a, b)
    b.devices.compact()
    meet(folder, b, a, c)
    federation = c.devices.federation
    kept = {one.key: one.number for one in federation.conflicts()}
    assert kept.keys() == {"new", "o1"}
    federation.resolve(kept["o1"], keep)
    meet(folder, c, a, b)
    for lab in (a, b, c):
        there = count(lab, "SELECT count(*) FROM messages WHERE message_id = 'o1'")
        assert there == (keep == "mine")
        assert lab.devices.federation.conflicts() == []
        check_erased(lab)


def test_a_row_whose_later_text_only_one_device_knew_ends_with_what_refers_to_it(shared):
    """Of the deletions of a third device, which did not know the text, the greatest is stored."""
    a, b, c, folder = shared("laptop", "phone", "tablet")
    write(c, "UPDATE users SET name = 'Ada Canary Lovelace' WHERE user_id = ?", ADA)
    write(c, MEMORY, "late", ADA)
    meet(folder, c)
    a.privacy.forget(user=ADA)
    meet(folder, a, c, b, a, c, b, a, c, b)
    for lab in (a, b, c):
        check_erased(lab)


@pytest.mark.parametrize(("level", "is_erased"), [(1, False), (2, False), (1, True)])
def test_a_channel_that_is_kept_for_an_unsent_message_ends_with_it(
    shared, tmp_path, homes, level, is_erased
):
    a, folder = shared("laptop")
    with homes.open(tmp_path / "tablet") as c:
        join(a, c, "tablet", level=level)
        meet(folder, a, c)
        if level == 2:
            device_id = c.devices.federation.replica.device_id
            a.devices.federation.set_policy(device_id, conversations="none")
            meet(folder, a, c)
        write(c, SAID, "own", "garden", "talk", "otto", "user", "what otto said")
        a.privacy.forget(user=ADA)
        meet(folder, a, c, a, c)
        found = {one.table: one.number for one in c.devices.federation.conflicts()}
        assert found.keys() == {"messages", "channels"}
        if is_erased:
            c.privacy.forget(conversation="talk")
        else:
            c.devices.federation.resolve(found["messages"], "theirs")
        assert c.devices.federation.conflicts() == []


def test_a_person_whose_last_kept_row_is_erased_is_kept_no_longer(shared, tmp_path, homes):
    a, b, folder = shared("laptop", "phone", channel="group")
    with homes.open(tmp_path / "tablet") as c:
        a.privacy.forget(user=ADA)  # before it hears of the tablet
        join(b, c, "tablet")
        meet(folder, b, c)
        write(c, "UPDATE messages SET content = 'a canary, edited' WHERE message_id = 'm1'")
        c.devices.federation.seal()
        meet(folder, a, b, c, a, b, c)
        assert {one.table for one in c.devices.federation.conflicts()} == {"users", "messages"}
        c.privacy.forget(conversation="talk")
        assert c.devices.federation.conflicts() == []


def test_compacting_ends_no_conflict_that_the_erasing_device_did_not_know(shared):
    a, b, c, folder = shared("laptop", "phone", "tablet")
    profile = "INSERT INTO user_profiles VALUES (?, ?, '2025')"
    write(b, profile, ADA, '{"likes": "old"}')
    b.devices.federation.seal()
    a.privacy.forget(user=ADA)
    meet(folder, a, c)
    write(c, "INSERT INTO users VALUES (?, 'Ada again', '2026', NULL)", ADA)
    write(c, profile, ADA, '{"likes": "new"}')
    meet(folder, c, a)
    b.privacy.forget(user=ADA)
    meet(folder, b, a, c, b, a, c)
    c.devices.compact()
    meet(folder, c, a, b, c, a, b)
    for lab in (a, b, c):
        (conflict,) = lab.devices.federation.conflicts()
        assert conflict.lost["profile"] == '{"likes": "new"}'


def test_what_was_begun_anew_after_an_erasure_stays_if_another_device_erases_the_same(shared):
    a, b, folder = shared("laptop", "phone", channel="group")
    for lab in (a, b):
        lab.privacy.forget(conversation="talk")
    write(a, SAID, "new", "group", "talk", "otto", "user", "begun anew")
    meet(folder, b, a, b)
    for lab in (a, b):
        assert count(lab, "SELECT count(*) FROM messages WHERE message_id = 'new'") == 1
        assert lab.devices.federation.conflicts() == []
    b.privacy.forget(conversation="talk")  # which knew of both
    meet(folder, b, a)
    assert count(a, "SELECT count(*) FROM messages WHERE message_id = 'new'") == 0


def test_what_was_said_in_a_conversation_between_two_erasures_of_it_goes(shared):
    a, b, folder = shared("laptop", "phone", channel="group")
    a.privacy.forget(conversation="talk")
    write(b, SAID, "n1", "group", "talk", ADA, "user", "a canary, said meanwhile")
    b.devices.federation.seal()
    b.devices.federation.exchange(folder)
    meet(folder, a)
    make_of_it(a, "group")
    write(a, "INSERT INTO segment_messages VALUES ('s', 'n1', 0)")
    b.privacy.forget(conversation="talk")
    meet(folder, b, a, b, a)
    for lab in (a, b):
        assert {table for table, _ in left_of(lab)} <= {"users", "change_log"}
        assert lab.devices.federation.conflicts() == []


def test_what_a_third_device_said_between_two_erasures_goes(shared):
    a, b, c, folder = shared("laptop", "phone", "stick", channel="group")
    a.privacy.forget(conversation="talk")
    write(c, SAID, "n1", "group", "talk", ADA, "user", "a canary, said meanwhile")
    meet(folder, c, b)
    a.devices.federation.exchange(folder)
    meet(folder, a)
    a.sync()
    before = set(published(a.home.snapshots))
    b.privacy.forget(conversation="talk")  # which knows what was said, and not of the other erasure
    meet(folder, b, a, b, c, a)
    assert before
    assert not before & set(published(a.home.snapshots))
    for lab in (a, b, c):
        assert count(lab, "SELECT count(*) FROM messages WHERE conversation_id = 'talk'") == 0


def test_what_a_device_said_that_hears_of_two_erasures_at_once_goes(shared):
    a, b, c, folder = shared("laptop", "phone", "stick", channel="group")
    for lab in (a, b):
        lab.privacy.forget(conversation="talk")
    write(c, SAID, "n1", "group", "talk", ADA, "user", "a canary, said meanwhile")
    meet(folder, a, b, a)
    a.devices.compact()
    meet(folder, a, c, b, a, c)
    for lab in (a, b, c):
        assert count(lab, "SELECT count(*) FROM messages WHERE conversation_id = 'talk'") == 0
        assert lab.devices.federation.conflicts() == []


def test_what_was_begun_anew_stays_also_if_a_third_device_had_nothing_of_it(shared):
    a, b, c, folder = shared("laptop", "phone", "stick", channel="group")
    write(a, SAID, "old", "group", "chat", "otto", "user", "roses are red here")
    meet(folder, a, b, a)
    for lab in (a, b):
        lab.privacy.forget(conversation="chat")
    write(a, SAID, "new", "group", "chat", "otto", "user", "begun anew")
    meet(folder, a)
    a.devices.compact()
    meet(folder, a, c, b, c, a, b, c)
    for lab in (a, b, c):
        assert count(lab, "SELECT count(*) FROM messages WHERE message_id = 'new'") == 1


def test_a_device_that_erases_while_it_is_revoked_ends_the_conflicts_when_it_is_back(shared):
    a, b, folder = shared("laptop", "phone")
    write(b, MEMORY, "own", ADA)
    b.devices.federation.seal()
    a.devices.federation.revoke(b.devices.federation.replica.device_id)
    a.privacy.forget(user=ADA)
    for lab in (a, b):
        with contextlib.suppress(DeviceRevoked):
            meet(folder, lab)
    join(a, b, "phone again")
    meet(folder, b, a, b, a)
    for lab in (a, b):
        check_erased(lab)


def test_a_person_who_comes_back_on_a_device_that_erased_while_it_was_revoked_stays(shared):
    a, b, c, folder = shared("laptop", "phone", "tablet")
    write(a, MEMORY, "one", ADA)
    meet(folder, a, b, c)
    a.devices.federation.revoke(b.devices.federation.replica.device_id)
    a.privacy.forget(user=ADA)
    meet(folder, a, c)
    with pytest.raises(DeviceRevoked):
        meet(folder, b)
    write(b, "INSERT INTO users VALUES (?, 'Ada again', '2026', NULL)", ADA)
    write(b, MEMORY, "two", ADA)
    join(a, b, "phone again")
    meet(folder, b, a, c, b, a, c)
    for lab in (a, b, c):
        assert lab.primary.fetch_all("SELECT memory_id FROM memories") == [("two",)]
        assert count(lab, f"SELECT name FROM users WHERE user_id = '{ADA}'") == "Ada again"
        assert lab.devices.federation.conflicts() == []


def test_a_device_that_knows_no_erased_rows_waits_for_its_upgrade(shared, monkeypatch):
    a, folder = shared("laptop")
    a.privacy.forget(user=ADA)
    meet(folder, a)
    replica = a.devices.federation.replica
    opened = [Receiver(replica).open(parse_name(name)) for name in replica.spool.names()]
    with_marks = [one for one in opened if rb'"\u0000"' in one.body]
    assert with_marks
    monkeypatch.setattr(bundles, "_ERASED", "another")  # as an older version reads them
    for one in with_marks:
        with pytest.raises(Refused, match="newer schema") as refused:
            bundles.read_changes(one, replica.tables, replica.schema - 1)
        assert not refused.value.is_final


def test_an_erasure_after_a_change_of_another_device_counts_no_message_twice(shared):
    a, b, folder = shared("laptop", "phone", channel="group")
    write(b, "UPDATE messages SET content = 'changed' WHERE message_id = 'o1'")
    meet(folder, b, a)
    a.privacy.forget(before="2024-01-01")
    counts = "SELECT message_count = (SELECT count(*) FROM messages) FROM channels"
    assert a.primary.fetch_all(counts) == [(1,)]


def test_answers_to_messages_that_are_kept_go_with_these(shared):
    """Also those that lead to the person only by way of rows that are kept."""
    a, b, folder = shared("laptop", "phone", channel="group")
    write(a, "INSERT INTO channels (channel_id, name, created_at) VALUES ('thread', 't', '2026')")
    meet(folder, a, b)
    write(b, "DELETE FROM channels WHERE channel_id = 'thread'")
    b.privacy.forget(user=ADA)
    asked = None
    for name, channel, user in (
        ("ask", "group", ADA), ("re1", "group", None), ("re2", "thread", None),
        ("re3", "group", None),
    ):  # fmt: skip
        role = "user" if user else "assistant"
        write(a, SAID, name, channel, "other", user, role, f"a canary, {name}")
        write(a, "UPDATE messages SET reply_to = ? WHERE message_id = ?", asked, name)
        asked = name
    meet(folder, a)
    b.devices.federation.exchange(folder)
    b.devices.federation.take_in()
    assert {one.key for one in b.devices.federation.conflicts()} == {"ask", "re2"}
    b.privacy.forget(user=ADA)
    assert left_of(b) == set()
    meet(folder, b, a, b, a)
    for lab in (a, b):
        assert left_of(lab) == set()
        assert count(lab, "SELECT count(*) FROM messages") == 1


def test_a_person_who_came_back_elsewhere_stays(shared):
    a, b, folder = shared("laptop", "phone")
    write(b, "DELETE FROM users WHERE user_id = ?", ADA)
    b.devices.federation.seal()
    write(b, "INSERT INTO users VALUES (?, 'Ada again', '2026', NULL)", ADA)
    a.privacy.forget(user=ADA)
    meet(folder, a, b, a)
    for lab in (a, b):
        assert count(lab, f"SELECT name FROM users WHERE user_id = '{ADA}'") == "Ada again"
    assert b.privacy.receipts() == []
    b.privacy.forget(user=ADA)
    meet(folder, b, a)
    for lab in (a, b):
        assert count(lab, f"SELECT count(*) FROM users WHERE user_id = '{ADA}'") == 0
    assert len(a.privacy.receipts()) == 2


@pytest.mark.parametrize("has_heard", [True, False])
def test_a_home_that_joins_later_keeps_its_own_rows(shared, tmp_path, homes, has_heard):
    a, b, folder = shared("laptop", "phone")
    a.privacy.forget(user=ADA)
    meet(folder, a, *([b] if has_heard else []))
    with homes.open(tmp_path / "tablet") as c:
        write(c, "INSERT INTO users VALUES (?, 'Ada Canary', '2024', NULL)", ADA)
        write(c, MEMORY, "own", ADA)
        join(b, c, "tablet")
        meet(folder, c, a, b, c, a, c)
        assert c.privacy.receipts() == []
        assert not erasures.asked(c.devices.federation.replica)
        kept = {one.table for one in c.devices.federation.conflicts()}
        assert kept == {"users", "memories"}


def test_a_device_that_was_not_known_erases_what_came_from_those_that_were(shared, tmp_path, homes):
    a, b, folder = shared("laptop", "phone", channel="group")
    with homes.open(tmp_path / "tablet") as c:
        join(b, c, "tablet")
        meet(folder, b, c)
        make_of_it(c, "group")
        c.sync()
        before = set(published(c.home.snapshots))
        a.privacy.forget(user=ADA)  # it has not exchanged since another one added the tablet
        meet(folder, a, b, c, a, b, c)
        for lab in (a, b, c):
            check_erased(lab)
            assert count(lab, "SELECT count(*) FROM messages") == 1
        assert not before & set(published(c.home.snapshots))


def test_a_device_that_was_not_known_ends_the_conflicts_of_its_own_texts(shared, tmp_path, homes):
    a, b, folder = shared("laptop", "phone")
    with homes.open(tmp_path / "tablet") as c:
        join(b, c, "tablet")
        meet(folder, b, c)
        for lab, name in ((c, "Ada Canary K."), (b, "Ada Canary L.")):
            write(lab, "UPDATE users SET name = ? WHERE user_id = ?", name, ADA)
            meet(folder, lab, b, c)
        a.privacy.forget(user=ADA)  # it has not exchanged since another one added the tablet
        meet(folder, a, b, c, a, b, c)
        for lab in (a, b, c):
            check_erased(lab)


@pytest.mark.parametrize("is_kept", [True, False])
def test_a_device_that_was_not_known_keeps_its_unsent_rows(shared, tmp_path, homes, is_kept):
    a, b, folder = shared("laptop", "phone")
    with homes.open(tmp_path / "tablet") as c:
        join(b, c, "tablet", level=1)
        meet(folder, b, c)
        write(c, MEMORY if is_kept else FEEDBACK, "own", ADA)
        a.privacy.forget(user=ADA)
        meet(folder, a, b, c)
        assert c.privacy.receipts() == []
        kept = {one.table for one in c.devices.federation.conflicts()}
        assert kept == ({"users", "memories"} if is_kept else set())


def test_a_home_whose_first_try_to_join_was_ended_keeps_its_own_rows(shared, tmp_path, homes):
    a, b, folder = shared("laptop", "phone")
    with homes.open(tmp_path / "tablet") as c:
        write(c, "INSERT INTO users VALUES (?, 'Ada Canary', '2024', NULL)", ADA)
        write(c, MEMORY, "own", ADA)
        a.devices.federation.invite(c.devices.federation.create_keys(), "tablet")
        a.privacy.forget(user=ADA)
        meet(folder, a)
        join(a, c, "tablet")
        meet(folder, a, c, b, a, c)
        assert c.privacy.receipts() == []
        assert {one.table for one in c.devices.federation.conflicts()} == {"users", "memories"}


@pytest.mark.parametrize("is_erased_first", [True, False])
def test_a_device_that_is_added_again_erases_what_it_missed(shared, is_erased_first):
    a, b, folder = shared("laptop", "phone")
    make_of_it(b)
    for times in range(2):  # the second time it has two former ids
        if is_erased_first and times == 1:
            a.privacy.forget(user=ADA)
        a.devices.federation.revoke(b.devices.federation.replica.device_id)
        with pytest.raises(Exception, match="no longer trust"):
            meet(folder, a, b)
        if not is_erased_first and times == 1:
            a.privacy.forget(user=ADA)
        join(a, b, f"phone {times}")
    meet(folder, a, b, a, b)
    for lab in (a, b):
        check_erased(lab)


def test_rows_under_a_key_that_comes_after_an_erasure_are_taken_in(shared):
    """Whatever the names of their files, which are tried before the key has come."""
    a, b, c, folder = shared("laptop", "phone", "tablet")
    replica = a.devices.federation.replica
    with a.primary.transaction():
        replica.put("stream:memories", f"{replica.device_id}.{'0' * 7}1")
    a.privacy.forget(user=ADA)
    a.devices.federation.set_policy(c.devices.federation.replica.device_id, memories="none")
    write(a, MEMORY, "new", "otto")
    meet(folder, a)
    done = b.devices.sync(folder=folder)
    assert [one for each in done.values() for one in each.taken_in.refused] == []
    assert count(b, "SELECT count(*) FROM memories") == 1
    assert b.devices.federation.status().missing == ()


class KilledError(BaseException):
    """The process ends."""


@pytest.mark.slow
@pytest.mark.parametrize("where", ["begin", "keep", "finish", "end"])
def test_a_process_that_is_killed_while_it_erases_for_another_device(shared, monkeypatch, where):
    a, b, folder = shared("laptop", "phone", channel="group")
    make_of_it(b, "group")
    a.privacy.forget(user=ADA)
    meet(folder, a)
    place, name = {
        "begin": (erasures, "begin"), "keep": (SealedErasures, "keep"),
        "finish": (Forgetting, "_finish"), "end": (erasures, "end"),
    }[where]  # fmt: skip
    called = getattr(place, name)

    def killed(*arguments, **options):
        if where == "keep":  # durable, but the transaction does not commit
            called(*arguments, **options)
        raise KilledError

    with monkeypatch.context() as patched:
        patched.setattr(place, name, killed)
        with pytest.raises(KilledError):
            meet(folder, b)
    b.close()
    with Lab.open(b.home.path) as again:
        meet(folder, again, a, again)
        for lab in (a, again):
            check_erased(lab)
            assert count(lab, "SELECT count(*) FROM messages") == 1


@pytest.mark.parametrize("is_deleted", [False, True])
def test_own_versions_of_segments_go_with_the_person_on_a_device_that_only_receives(
    shared, tmp_path, homes, is_deleted
):
    a, folder = shared("laptop", channel="group")
    make_of_it(a, "group")
    write(a, SAID, "o2", "group", "talk", "otto", "user", "roses are red here, too")
    write(a, "INSERT INTO segment_messages SELECT 's', message_id, id FROM messages")
    with homes.open(tmp_path / "frame") as c:
        join(a, c, "frame", level=1)
        meet(folder, a, c)
        for lab, text in ((c, "a canary, my own words"), (a, "what they sum up")):
            write(lab, "UPDATE conversation_segments SET summary = ?", text)
        if is_deleted:
            write(a, "DELETE FROM conversation_segments")
        meet(folder, a, c)
        assert len(c.devices.federation.conflicts()) == 1
        a.privacy.forget(user=ADA)
        meet(folder, a, c)
        check_erased(a)
        check_erased(c)


def test_a_device_that_only_receives_erases_and_cannot_ask(shared, tmp_path, homes):
    a, folder = shared("laptop")
    with homes.open(tmp_path / "frame") as c:
        join(a, c, "frame", level=1)
        meet(folder, a, c)
        make_of_it(c)
        (advice,) = c.privacy.forget(user="otto").left
        assert "run the same `aico-lab forget` on one of them" in advice
        ask_anyway(c, "otto")
        meet(folder, c, a)
        assert a.privacy.receipts() == []
        assert count(a, "SELECT count(*) FROM users WHERE user_id = 'otto'") == 1
        a.privacy.forget(user=ADA)
        meet(folder, a, c)
        check_erased(a)
        check_erased(c, receipts=2)
        assert count(c, "SELECT count(*) FROM sync_erasures WHERE unsent IS NOT NULL") == 0


def ask_anyway(lab, user):
    """Write a bundle with a statement as a device would that does not keep to the rules."""
    federation = lab.devices.federation
    key = bytes(32)
    hashed = Scope("user", user).hashed(key)
    with federation._exclusive(), lab.primary.transaction():
        erasures.ask(federation.replica, "20260101T000000-00000000", key, hashed, user)
        sealing.write(federation.replica, BASE, {}, erasures.unsent(federation.replica)[0])


def test_a_revoked_device_cannot_ask(shared):
    a, b, folder = shared("laptop", "phone")
    a.devices.federation.revoke(b.devices.federation.replica.device_id)
    ask_anyway(b, ADA)
    b.devices.federation.exchange(folder)
    meet(folder, a)
    assert a.privacy.receipts() == []
    assert count(a, "SELECT count(*) FROM users") == 2
    assert {why for _, why in a.devices.federation.status().waiting} == {"its device is revoked"}


def test_a_home_restored_from_a_backup_erases_again(shared, tmp_path):
    a, b, folder = shared("laptop", "phone", channel="group")
    make_of_it(b, "group")
    b.backups.write(tmp_path / "b.backup")
    a.privacy.forget(user=ADA)
    meet(folder, a, b, a)
    b.close()
    restore(tmp_path / "b.backup", Settings.resolve(home=tmp_path / "again"))
    with Lab.open(tmp_path / "again") as c:
        assert left_of(c)
        meet(folder, c, a, c)
        check_erased(c)
    check_erased(a)


def test_a_restored_home_asks_for_what_the_others_have_not_heard(shared, tmp_path):
    """The statement was lost with the database, and the sealed file has the erasure."""
    a, b, folder = shared("laptop", "phone", channel="group")
    make_of_it(b, "group")
    a.backups.write(tmp_path / "a.backup")
    a.privacy.forget(user=ADA)
    a.close()
    restore(tmp_path / "a.backup", Settings.resolve(home=a.home.path), force=True)
    with Lab.open(a.home.path) as again:
        meet(folder, again, b, again)
        check_erased(b)
        assert left_of(again) == set()


@pytest.mark.slow
def test_a_restored_home_passes_on_what_was_asked_of_devices_that_joined_later(
    shared, tmp_path, homes
):
    a, b, folder = shared("laptop", "phone", channel="group")
    b.backups.write(tmp_path / "b.backup")
    with homes.open(tmp_path / "tablet") as c:
        join(a, c, "tablet")
        meet(folder, a, c, b)
        make_of_it(c, "group")
        write(c, MEMORY, "own", ADA)
        a.privacy.forget(user=ADA)
        meet(folder, a, b)
        b.close()
        restore(tmp_path / "b.backup", Settings.resolve(home=b.home.path), force=True)
        with Lab.open(b.home.path) as again:
            meet(folder, again, c, a, again)
            check_erased(again, receipts=2)
        for lab in (a, c):
            check_erased(lab)
            assert count(lab, "SELECT count(*) FROM messages") == 1


def test_a_restored_home_does_not_ask_again_for_what_was_begun_anew(shared, tmp_path):
    a, b, folder = shared("laptop", "phone", channel="group")
    a.backups.write(tmp_path / "a.backup")
    a.privacy.forget(conversation="talk")
    meet(folder, a, b)
    write(b, SAID, "new", "group", "talk", "otto", "user", "begun anew")
    a.close()
    restore(tmp_path / "a.backup", Settings.resolve(home=a.home.path), force=True)
    with Lab.open(a.home.path) as again:
        meet(folder, again, b, again)
        for lab in (again, b):
            assert count(lab, "SELECT count(*) FROM messages WHERE message_id = 'new'") == 1
    assert len(b.privacy.receipts()) == 1


def test_what_is_shown_of_an_erasure_for_another_device(shared, capsys):
    a, b, folder = shared("laptop", "phone")
    a.privacy.forget(user=ADA)
    meet(folder, a)
    erase, b.devices.federation.erase = b.devices.federation.erase, None
    b.devices.federation.sync(folder)
    reasons = {why for _, why in b.devices.federation.status().waiting}
    assert "an erasure that is not finished comes first" in reasons
    assert count(b, "SELECT count(*) FROM users") == 2
    with pytest.raises(ErasureIncomplete, match="asked for 1 erasure that this one"):
        health._check_erasures(b)
    b.devices.federation.erase = erase
    steps = []
    b.devices.sync(folder=folder, progress=lambda *step: steps.append(step))
    assert steps
    federate._report_erasures(b.devices.federation)
    shown = capsys.readouterr().err
    assert "laptop asked for an erasure: 3 rows were erased here." in shown
    assert ADA not in shown
    (entry,) = [one for one in b.devices.federation.log() if one.event == "federation.erased"]
    assert (entry.device_id, entry.detail) == (a.devices.federation.replica.device_id, "rows: 3")


@pytest.mark.parametrize("is_own", [False, True])
def test_nothing_is_taken_in_until_an_erasure_is_finished(shared, monkeypatch, is_own):
    """The rows of a person who came back elsewhere would go when it is resumed."""
    a, b, folder = shared("laptop", "phone")
    if not is_own:
        a.privacy.forget(user=ADA)
        write(a, "INSERT INTO users VALUES (?, 'Ada again', '2026', NULL)", ADA)
        write(a, MEMORY, "new", ADA)
        meet(folder, a)

    def fails(*_, **__):
        raise ErasureIncomplete("It is still in the warehouse: end that program.")

    with monkeypatch.context() as patched:
        patched.setattr(Forgetting, "_finish", fails)
        if is_own:
            with pytest.raises(ErasureIncomplete):
                b.privacy.forget(user=ADA)
            write(a, MEMORY, "new", "otto")
            meet(folder, a)
        for _ in range(2):
            with pytest.raises(ErasureIncomplete, match=r"nothing was taken in .*: It is still in"):
                meet(folder, b)
    assert b.privacy.unfinished()
    assert count(b, "SELECT count(*) FROM memories") == 0
    meet(folder, b, a, b)
    assert not b.privacy.unfinished()
    for lab in (a, b):
        assert count(lab, "SELECT count(*) FROM memories") == 1
        assert count(lab, f"SELECT count(*) FROM users WHERE user_id = '{ADA}'") == (not is_own)


@pytest.mark.parametrize("error", [InvalidValue, DatabaseLocked])
def test_nothing_is_taken_in_while_an_erasure_cannot_begin(shared, monkeypatch, error):
    a, b, folder = shared("laptop", "phone")
    a.privacy.forget(user=ADA)
    meet(folder, a)

    def refused(*_, **__):
        raise error("A change of the key is unfinished.")

    with monkeypatch.context() as patched:
        patched.setattr(Forgetting, "forget", refused)
        with pytest.raises(ErasureIncomplete, match=r"laptop asked .*: A change of the key"):
            meet(folder, b)
    assert count(b, "SELECT count(*) FROM users") == 2
    meet(folder, b)
    check_erased(b)


def failing(monkeypatch, fails):
    """Let those erasures not be finished of whose scope `fails` is true."""
    finish = Forgetting._finish

    def finished(self, erasure, **options):
        if fails(erasure.scope):
            raise ErasureIncomplete("It is still in the warehouse: end that program.")
        return finish(self, erasure, **options)

    monkeypatch.setattr(Forgetting, "_finish", finished)


def test_an_own_erasure_that_cannot_be_finished_is_laid_to_no_other_device(shared, monkeypatch):
    a, b, folder = shared("laptop", "phone")
    a.privacy.forget(user=ADA)
    meet(folder, a)
    with monkeypatch.context() as patched:
        failing(patched, lambda _: True)
        with pytest.raises(ErasureIncomplete, match="laptop asked"):
            meet(folder, b)
        with pytest.raises(ErasureIncomplete):
            b.privacy.forget(user="otto")
    own = b.privacy._forgetting(None)
    with monkeypatch.context() as patched:
        failing(patched, lambda scope: scope == Scope("user", "otto").hashed(own._key))
        with pytest.raises(ErasureIncomplete, match=r"^An erasure is not finished"):
            meet(folder, b)


@pytest.mark.parametrize("is_together", [False, True])
def test_the_first_of_two_erasures_is_reported_although_the_second_is_not_finished(
    shared, monkeypatch, capsys, is_together
):
    a, b, folder = shared("laptop", "phone")
    a.privacy.forget(user=ADA)
    a.privacy.forget(user="otto")
    meet(folder, a)
    if is_together:
        a.devices.compact()
    seen = []
    with monkeypatch.context() as patched:
        failing(patched, lambda scope: seen.append(scope) or scope != seen[0])
        patched.setattr(federate, "open_lab", lambda *_: contextlib.nullcontext(b))
        with pytest.raises(ErasureIncomplete, match="laptop asked"):
            federate.federate_sync(folder=folder)
    assert len(b.privacy.receipts()) == 1
    assert capsys.readouterr().err.count("laptop asked for an erasure: ") == 1
    meet(folder, b)
    federate._report_erasures(b.devices.federation)
    assert capsys.readouterr().err.count("laptop asked for an erasure: ") == 1


STATEMENT = {
    "kind": "erase", "erasure_id": "20261130T120000-0123abcd", "device_id": "0" * 16,
    "key": "0" * 64, "scope": {"kind": "user", "id_hmac": "0" * 64}, "cl": 2,
    "devices": ["0" * 16],
}  # fmt: skip


@pytest.mark.parametrize("is_carried_out", [False, True])
def test_a_second_statement_adds_the_devices_that_it_names(lab, is_carried_out):
    replica = lab.devices.federation.replica
    lab.devices.federation.begin("laptop")
    other, own = STATEMENT["devices"], [replica.device_id]
    waiting = []
    for devices in (other, own, other):
        with lab.primary.transaction():
            control.obey(replica, [STATEMENT | {"devices": devices}], "0" * 16)
            waiting.append([set(one.devices) for one in erasures.asked(replica)])
            replica.connection.execute("UPDATE sync_erasures SET state = 'done'")
            if is_carried_out:
                replica.connection.execute(
                    "INSERT INTO erasures (erasure_id, begun_at, since_seq, until_seq) "
                    "VALUES (?, '2026', 0, 0) ON CONFLICT DO NOTHING",
                    [STATEMENT["erasure_id"]],
                )
    assert waiting == [[{*other}], [] if is_carried_out else [{*other, *own}], []]


@pytest.mark.parametrize(
    "change",
    [
        {"erasure_id": "../x"},
        {"key": None},
        {"scope": {"kind": "before", "id_hmac": "0" * 64}},
        {"scope": {"kind": "user"}},
        {"cl": None},
        {"cl": "2"},
        {"devices": None},
        {"devices": [1]},
        {"scope": {"kind": "conversation", "id_hmac": "0" * 64}},
    ],
)
def test_a_malformed_statement_is_refused(lab, change):
    with pytest.raises(Refused), lab.primary.transaction():
        control.obey(lab.devices.federation.replica, [STATEMENT | change], "0" * 16)
