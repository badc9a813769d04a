"""Erasure, backups and new keys in a home that is one of several devices."""

from __future__ import annotations

import json

import pytest

from aico_lab.backup.restoring import restore
from aico_lab.config import Settings
from aico_lab.errors import UnknownName
from aico_lab.key_rotation.rotation import rotate
from aico_lab.lab import Lab
from aico_lab.privacy import forgetting

PEOPLE = "SELECT count(*) FROM users WHERE user_id = 'person-ada'"


@pytest.fixture
def two(tmp_path, homes):
    """Return two homes that are devices, with a person on both, and the folder between them."""
    folder = tmp_path / "shared"
    folder.mkdir()
    a, b = homes.open(tmp_path / "a"), homes.open(tmp_path / "b")
    a.devices.federation.begin("laptop")
    keys = b.devices.federation.create_keys()
    b.devices.federation.join(json.loads(json.dumps(a.devices.federation.invite(keys, "phone"))))
    add(a, "person-ada", "Ada")
    meet(folder, a, b)
    assert count(b, PEOPLE) == 1
    yield a, b, folder
    a.close()
    b.close()


def add(lab, user, name):
    with lab.primary.transaction():
        lab.primary.execute("INSERT INTO users VALUES (?, ?, '2024', NULL)", [user, name])


def count(lab, sql):
    return lab.primary.fetch_one(sql)[0]


@pytest.fixture
def silent(monkeypatch):
    """Let no device ask the others to erase the same, as an earlier version did."""
    monkeypatch.setattr(forgetting, "tell_devices", lambda *_: None)


def meet(folder, *labs):
    for lab in (*labs, *labs):
        lab.devices.sync(folder=folder)


def test_an_erasure_reaches_the_other_devices_and_nothing_comes_back(two):
    a, b, folder = two
    with a.primary.transaction():
        a.primary.execute("UPDATE users SET name = 'Ada canary'")
    add(a, "other", "Otto")  # so that the last change that was read is not erased
    meet(folder, a, b)
    saved = {path: path.read_bytes() for path in folder.glob("*/*.age")}
    left = a.privacy.forget(user="person-ada").left
    (bundles,) = [sentence for sentence in left if "federation" in sentence]
    assert bundles.startswith("2 bundles in federation/spool have what was erased")
    meet(folder, a, b)
    assert (count(a, PEOPLE), count(b, PEOPLE)) == (0, 0)
    a.devices.compact()
    meet(folder, a, b)
    for path, content in saved.items():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    meet(folder, a, b)
    assert (count(a, PEOPLE), count(b, PEOPLE)) == (0, 0)
    assert not any(path.exists() for path in saved)


def test_what_is_kept_of_a_conflict_is_erased(two):
    a, b, folder = two
    for number, lab in enumerate((a, b)):
        with lab.primary.transaction():
            lab.primary.execute("UPDATE users SET name = ?", [f"canary {number}"])
    meet(folder, a, b, a)
    assert count(a, TEXTS) == 1
    a.privacy.forget(user="person-ada")
    assert count(a, TEXTS) == 0
    assert a.devices.federation.conflicts() == []


def test_a_restored_home_goes_on_as_its_device(two, tmp_path):
    a, b, folder = two
    b.backups.write(tmp_path / "b.backup")
    add(b, "later", "only in the bundles of the folder")
    meet(folder, b, a)
    id_ = b.devices.federation.replica.device_id
    b.close()
    restore(tmp_path / "b.backup", Settings.resolve(home=tmp_path / "again"))
    with Lab.open(tmp_path / "again") as c:
        assert c.devices.federation.replica.device_id == id_
        add(c, "new", "Neo")
        meet(folder, c, a, c)
        assert [count(lab, "SELECT count(*) FROM users") for lab in (a, c)] == [3, 3]
        assert c.devices.federation.status().waiting == ()


def test_a_device_is_the_same_with_a_new_key(two):
    a, b, folder = two
    id_ = a.devices.federation.replica.device_id
    a.close()
    rotate(a.home, Settings.resolve(home=a.home.path))
    with Lab.open(a.home.path) as again:
        assert again.devices.federation.replica.device_id == id_
        add(again, "new", "Neo")
        meet(folder, again, b)
        assert count(b, "SELECT count(*) FROM users") == 2


MESSAGE = (
    "INSERT INTO messages (message_id, channel_id, conversation_id, user_id, role, content, "
    "timestamp) VALUES (?, 'room', 'talk', ?, ?, ?, '2024-05-01T12:30:00.000000Z')"
)
TEXTS = "SELECT count(*) FROM sync_conflicts WHERE content LIKE '%canary%'"


@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize(
    "scope",
    [
        {"user": "person-ada"},
        {"conversation": "talk"},
        {"channel": "room"},
        {"before": "2024-06-01"},
    ],
)
def test_what_waits_of_an_erased_scope_can_be_erased_on_every_device(two, scope):
    """Rows that another device added meanwhile come back into the queue after an erasure."""
    a, b, folder = two
    for lab, key in ((a, "old"), (b, "new")):
        with lab.primary.transaction():
            lab.primary.execute(
                "INSERT OR IGNORE INTO channels (channel_id, created_at) VALUES ('room', '2024')"
            )
            lab.primary.execute(MESSAGE, [key, "person-ada", "user", f"the canary of {key}"])
            lab.primary.execute(MESSAGE, [f"re-{key}", None, "assistant", f"canary, {key}"])
        if lab is a:
            meet(folder, a, b)
    a.privacy.forget(**scope)
    meet(folder, a, b, a)
    waiting = [count(lab, TEXTS) for lab in (a, b)]
    assert min(waiting) >= 1
    for lab, waits in zip((a, b), waiting, strict=True):
        result = lab.privacy.forget(**scope)
        assert result.rows["sync_conflicts"] >= waits
        assert result.receipt["erased"]["aico.db"]["sync_conflicts"] >= waits
        assert count(lab, TEXTS) == 0


def test_what_waits_of_an_undone_import_can_be_erased_on_every_device(two, tmp_path):
    a, b, folder = two
    rows = [
        {"message_id": f"m{n}", "user_id": "zoe", "role": "user", "content": "imported",
         "conversation_id": "zoo", "timestamp": "2024-05-01T12:00:00Z"}
        for n in range(3)
    ]  # fmt: skip
    (tmp_path / "zoo.jsonl").write_text("\n".join(map(json.dumps, rows)))
    undone = a.import_from(tmp_path / "zoo.jsonl").import_id
    meet(folder, a, b)
    with b.primary.transaction():
        b.primary.execute("UPDATE messages SET content = 'canary' WHERE message_id = 'm1'")
        b.primary.execute(MESSAGE.replace("'room'", "(SELECT max(channel_id) FROM channels)"),
                          ["own", "zoe", "user", "my own canary"])  # fmt: skip
    a.privacy.forget(import_id=undone)
    meet(folder, a, b)
    assert count(b, TEXTS) == 2
    assert b.privacy.forget(import_id=undone).rows["sync_conflicts"] >= 1
    assert [row[0] for row in b.primary.fetch_all(
        "SELECT row_key FROM sync_conflicts WHERE content LIKE '%canary%'")] == ["own"]  # fmt: skip
    with pytest.raises(UnknownName, match="federate resolve"):
        b.privacy.forget(import_id=undone)
    meet(folder, a, b)
    for lab in (a, b):
        assert count(lab, "SELECT count(*) FROM sync_state WHERE key GLOB 'undoing:*'") == 0


SAID = (
    "INSERT INTO messages (message_id, channel_id, conversation_id, user_id, role, content, "
    "timestamp) VALUES (?, ?, ?, 'person-ada', 'user', 'a canary', '2026-11-10')"
)
SUMMED_UP = (
    "INSERT INTO conversation_segments (segment_id, channel_id, conversation_id, started_at, "
    "ended_at, message_count, summary, segmenter) VALUES ('s', ?, ?, '2026-11-10', '2026-11-11', "
    "2, 'a canary of the summary', 'x')"
)


@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize("channel", ["direct:person-ada", "garden"])
def test_channels_and_segments_that_wait_are_erased_with_their_person(two, channel):
    a, b, folder = two
    with a.primary.transaction():
        a.primary.execute(
            "INSERT INTO channels (channel_id, name, kind, created_at) "
            "VALUES (?, 'a canary of the name', 'direct', '2026')",
            [channel],
        )
        a.primary.execute(SAID, ["m1", channel, "talk"])
    meet(folder, a, b)
    with b.primary.transaction():
        b.primary.execute(SAID, ["m2", channel, "talk"])
        b.primary.execute(SUMMED_UP, [channel, "talk"])
    a.privacy.forget(user="person-ada")
    meet(folder, a, b)
    for lab in (a, b):
        lab.privacy.forget(user="person-ada")
        assert count(lab, "SELECT count(*) FROM sync_conflicts") == 0


@pytest.mark.usefixtures("silent")
def test_a_segment_whose_messages_another_device_deleted_goes_with_its_conversation(two):
    a, b, folder = two
    with a.primary.transaction():
        a.primary.execute(
            "INSERT INTO channels (channel_id, kind, created_at) VALUES ('group', 'group', '2026')"
        )
        a.primary.execute(SAID, ["m1", "group", "talk"])
        a.primary.execute("INSERT INTO users VALUES ('otto', 'Otto', '2024', NULL)")
        a.primary.execute(
            SAID.replace("'person-ada'", "'otto'").replace("canary", "tree"),
            ["o1", "group", "other"],
        )
    meet(folder, a, b)
    with b.primary.transaction():
        b.primary.execute(SUMMED_UP, ["group", "talk"])
        b.primary.execute("INSERT INTO segment_messages VALUES ('s', 'm1', 1)")
    a.privacy.forget(user="person-ada")
    meet(folder, a, b)
    b.privacy.forget(user="person-ada")
    assert count(b, "SELECT count(*) FROM conversation_segments") == 0
    assert not b.privacy.unfinished()
