"""Backups of a home: whole, consistent, encrypted, checked; and what is restored from them."""

from __future__ import annotations

import random
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from aico_lab.adapters.libsql import LibSQLAdapter
from aico_lab.backup import rebuilding, records, restoring, writing
from aico_lab.backup.container import opened, read_heading
from aico_lab.backup.restoring import restore
from aico_lab.config import Settings
from aico_lab.deep_verify import verify_deep
from aico_lab.errors import (
    CorruptDatabase,
    DatabaseLocked,
    DiskFull,
    HomeExists,
    InvalidValue,
    KeyMissing,
    SourceMissing,
    StorageError,
    WrongKey,
)
from aico_lab.health import diagnose
from aico_lab.lab import Lab
from aico_lab.privacy import forgetting
from aico_lab.privacy.study import Study
from tests import faults
from tests.conftest import plain_text_files
from tests.databases import add
from tests.messages import message
from tests.test_cli import mount


@pytest.fixture
def away(tmp_path: Path) -> Path:
    """A folder outside the home."""
    (tmp_path / "away").mkdir()
    return tmp_path / "away"


@pytest.fixture
def kept(home, homes):
    """A home with 40 messages and a notebook."""
    with homes.open(home, messages=40) as lab:
        (home / "notebooks").mkdir()
        (home / "notebooks" / "my.ipynb").write_text("{}")
        yield lab


def settings(home: Path) -> Settings:
    return Settings.resolve(home=home)


def count(lab: Lab) -> int:
    return lab.primary.fetch_all("SELECT count(*) FROM messages")[0][0]


def test_a_backup_is_restored_into_a_new_home(kept, away, tmp_path):
    made = kept.backups.write(away / "a.backup")
    assert made.kind == "whole"
    assert made.rows > 40
    assert plain_text_files(away, "message 1") == [], "nothing of it can be read"
    done = restore(away / "a.backup", settings(tmp_path / "new"))
    assert done.files == ("notebooks/my.ipynb",)
    with Lab.open(tmp_path / "new") as lab:
        texts = "SELECT * FROM messages ORDER BY id"
        assert lab.primary.fetch_all(texts) == kept.primary.fetch_all(texts)
        assert lab.home_id == kept.home_id
        lab.sync(only="warehouse")
        assert lab.verify().ok
    header = (tmp_path / "new" / "aico.db").read_bytes()[:16]
    assert header != b"SQLite format 3\0"


def test_a_backup_holds_one_state_while_others_write(kept, away, tmp_path, monkeypatch):
    before, pages_of = count(kept), writing.pages_of

    def written_meanwhile(connection):
        for number, one in enumerate(pages_of(connection)):
            if number == 5:
                add(kept.primary, message(41))
            yield one

    monkeypatch.setattr(writing, "pages_of", written_meanwhile)
    made = kept.backups.write(away / "a.backup")
    restore(away / "a.backup", settings(tmp_path / "new"))
    with Lab.open(tmp_path / "new") as lab:
        assert count(lab) == before == count(kept) - 1
        assert made.seq == lab.primary.fetch_all("SELECT max(seq) FROM change_log")[0][0]


def test_a_later_backup_in_a_folder_holds_only_changes(kept, away, tmp_path):
    whole = kept.backups.write(away)
    add(kept.primary, message(41))
    (kept.home.path / "notebooks" / "other.ipynb").write_text('{"a": 1}')
    changes = kept.backups.write(away)
    assert (whole.kind, changes.kind) == ("whole", "changes")
    assert changes.bytes < whole.bytes / 2
    assert kept.backups.check(away).path == changes.path, "the newest one of the folder"
    done = restore(away, settings(tmp_path / "new"))
    assert done.files == ("notebooks/other.ipynb", "notebooks/my.ipynb")
    with Lab.open(tmp_path / "new") as lab:
        assert count(lab) == 41
    Path(whole.path).rename(away / "moved")
    with pytest.raises(SourceMissing, match="put that backup into the same folder"):
        restore(Path(changes.path), settings(tmp_path / "newer"))
    assert not (tmp_path / "newer" / "lab.json").exists()


def test_many_changes_make_a_whole_backup(kept, away):
    kept.backups.write(away)
    add(kept.primary, *map(message, range(40, 1000)))
    assert kept.backups.write(away).kind == "whole"


def test_a_damaged_whole_backup_is_followed_by_a_whole_one(kept, away):
    first = Path(kept.backups.write(away).path)
    first.write_bytes(first.read_bytes()[:-100])
    assert kept.backups.write(away).kind == "whole"


def test_every_altered_byte_is_noticed(kept, away):
    file = away / "a.backup"
    kept.backups.write(file)
    content, own = file.read_bytes(), writing.own_identity(kept.storage.keys)
    random.seed(19)
    for place in [5, 40, *random.sample(range(len(content)), 60)]:
        file.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        with pytest.raises(StorageError):
            read_all(file, own)
    for length in (0, 10, 700, len(content) // 2, len(content) - 1):
        file.write_bytes(content[:length])
        with pytest.raises(StorageError):
            read_all(file, own)


def read_all(file: Path, identity: str) -> None:
    heading = read_heading(file)
    with opened(file, heading, [identity]) as payload:
        for _ in payload.pages():
            pass
        for _ in payload.files():
            pass


def test_a_damaged_backup_makes_no_home(kept, away, tmp_path):
    file = away / "a.backup"
    kept.backups.write(file)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CorruptDatabase, match="use another"):
        restore(file, settings(tmp_path / "new"))
    assert not (tmp_path / "new").exists()
    with pytest.raises(CorruptDatabase):
        kept.backups.check(file)
    assert (
        "found damaged"
        in {one.check: one.detail for one in diagnose(settings(kept.home.path))}["backups"]
    )


def test_the_identity_of_a_recipient_opens_it_without_the_key(kept, away, tmp_path, monkeypatch):
    identity = kept.backups.add_recipient("new")
    kept.backups.write(away / "a.backup")
    (away / "identity").write_text(identity)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "machine"))  # without the home's key
    with pytest.raises(KeyMissing, match="--identity"):
        restore(away / "a.backup", settings(tmp_path / "new"))
    done = restore(away / "a.backup", settings(tmp_path / "new"), identity_file=away / "identity")
    assert Path(done.key_file).is_relative_to(tmp_path / "machine")
    with Lab.open(tmp_path / "new") as lab:
        assert count(lab) == 40
        assert lab.storage.keys.master != kept.storage.keys.master
    (away / "other").write_text(kept.backups.add_recipient("new"))
    with pytest.raises(WrongKey):
        restore(away / "a.backup", settings(tmp_path / "no"), identity_file=away / "other")
    assert not (tmp_path / "no" / "lab.json").exists()


@pytest.mark.slow
def test_a_home_without_a_key_needs_a_recipient(home, homes, away, tmp_path):
    with homes.open(home, "none", messages=3) as lab:
        with pytest.raises(InvalidValue, match="--recipient new"):
            lab.backups.write(away / "a.backup")
        (away / "identity").write_text(lab.backups.add_recipient("new"))
        lab.backups.write(away / "a.backup")
        assert lab.backups.check(away / "a.backup", identity=away / "identity").rows
    assert plain_text_files(away, "message 1") == []
    with pytest.raises(WrongKey, match="--identity"):
        restore(away / "a.backup", settings(tmp_path / "new"))
    restore(away / "a.backup", settings(tmp_path / "new"), identity_file=away / "identity")
    with Lab.open(tmp_path / "new") as lab:
        assert lab.encrypted
        assert count(lab) == 3


def test_an_existing_home_is_replaced_only_with_consent(kept, away):
    home = kept.home.path
    kept.backups.write(away / "a.backup")
    add(kept.primary, message(41))
    with pytest.raises(HomeExists, match="--replace"):
        restore(away / "a.backup", settings(home))
    kept.close()
    with pytest.raises(HomeExists, match="1 changes that the backup"):
        restore(away / "a.backup", settings(home), consent=True)
    with Lab.open(home) as lab:
        assert count(lab) == 41, "it is as it was"
    done = restore(away / "a.backup", settings(home), force=True)
    with Lab.open(home) as lab:
        assert count(lab) == 40
        former = LibSQLAdapter(done.replaced, lab.storage.keys.libsql()).connect()
        assert former.fetch_all("SELECT count(*) FROM messages") == [(41,)]
        former.close()
    assert restore(away / "a.backup", settings(home), consent=True).replaced, "it is not newer"


def test_a_home_that_went_on_from_an_older_backup_is_not_replaced_silently(kept, away):
    """Although it has fewer changes than the newer backup."""
    home = kept.home.path
    kept.backups.write(away / "old")
    add(kept.primary, *map(message, range(41, 51)))
    kept.backups.write(away / "new")
    kept.close()
    restore(away / "old", settings(home), force=True)
    assert restore(away / "new", settings(home), consent=True).replaced, "it has nothing else"
    restore(away / "old", settings(home), force=True)
    with Lab.open(home) as lab:
        add(lab.primary, message(60))
    with pytest.raises(HomeExists, match="has other changes that the backup"):
        restore(away / "new", settings(home), consent=True)
    with Lab.open(home) as lab:
        assert count(lab) == 41


def test_a_restoration_keeps_what_the_feed_does_not_have(kept, away):
    """Recipients, keys of studies and records of backups; undelivered events only with consent."""
    home = kept.home.path
    kept.backups.write(away / "a.backup")
    kept.backups.add_recipient("new")
    pseudonym = Study.of(kept.primary, "s").pseudonym("person", "u")
    kept.backups.write(away / "b.backup")
    kept.close()
    assert not restore(away / "a.backup", settings(home), consent=True).warning
    with Lab.open(home) as lab:
        assert len(records.recipients(lab.primary)) == 1
        assert Study.of(lab.primary, "s").pseudonym("person", "u") == pseudonym
        assert [Path(one.path).name for one in lab.backups.list()] == ["a.backup", "b.backup"]
        lab.primary.execute("INSERT INTO outbox VALUES (1, 'said', '{}', '2024')")
    with pytest.raises(HomeExists, match="1 undelivered event that the backup"):
        restore(away / "a.backup", settings(home), consent=True)
    restore(away / "a.backup", settings(home), force=True)


def test_a_restored_backup_stays_in_the_list_beside_many_newer_ones(kept, away):
    """Else an erasure would not list it."""
    made = kept.backups.write(away / "a.backup")
    for day in range(10, 31):
        for hour in range(3):
            at = f"2099-01-{day}T0{hour}:00:00+00:00"
            newer = replace(made, path="/b", made_at=at, checked_at=made.checked_at)
            records.record(kept.primary, newer)
    records.record(kept.primary, replace(made, checked_at="2099-02-01T00:00:00+00:00"))
    known = kept.backups.list()
    assert (known[0].path, len(known)) == (made.path, 50)


def test_facts_of_the_companion_are_lost_only_with_consent(kept, away):
    """What this package itself notes there, such as of watched files, counts for nothing."""
    home = kept.home.path
    kept.primary.execute("INSERT INTO system_state VALUES ('mood', 'sad', '2024')")
    kept.backups.write(away / "a.backup")
    kept.primary.execute("INSERT INTO system_state VALUES ('watched:x:/a', 's', '2024')")
    kept.close()
    restore(away / "a.backup", settings(home), consent=True)
    with Lab.open(home) as lab:
        lab.primary.execute("UPDATE system_state SET value = 'glad' WHERE key = 'mood'")
        lab.primary.execute("INSERT INTO outbox VALUES (1, 'said', '{}', '2024')")
    with pytest.raises(HomeExists, match="1 undelivered event and 1 fact that the backup"):
        restore(away / "a.backup", settings(home), consent=True)


def test_a_person_whose_erasure_was_interrupted_does_not_come_back_by_a_backup(
    kept, away, monkeypatch
):
    """Although `erasures.sealed` is gone, too: the former database says what it was to erase."""
    add(kept.primary, message(50, user_id="ada", conversation_id="a", channel_id="a"))
    kept.backups.write(away / "a.backup")

    def full(*_: object) -> None:
        raise DiskFull("The disk is full: free some space.")

    with monkeypatch.context() as patched:
        patched.setattr(forgetting, "erase_cache", full)
        with pytest.raises(DiskFull):
            kept.privacy.forget(user="ada")
    kept.close()
    kept.home.erasures.unlink()
    restore(away / "a.backup", settings(kept.home.path), force=True)
    with Lab.open(kept.home.path) as lab:
        assert count(lab) == 40
        [done] = lab.privacy.resume()
        assert (done.rows["messages"], "lost" in done.receipt) == (1, False)


@pytest.mark.slow
def test_what_was_erased_since_the_backup_is_erased_again(kept, away):
    """By the receipts, which are beside the database."""
    add(kept.primary, message(50, user_id="ada", conversation_id="a", channel_id="a"))
    kept.backups.write(away / "a.backup")
    assert str(away / "a.backup") in kept.privacy.forget(user="ada").left[0], "it still has her"
    assert count(kept) == 40
    kept.close()
    restore(away / "a.backup", settings(kept.home.path), force=True)
    with Lab.open(kept.home.path) as lab:
        assert count(lab) == 40
        lab.sync()
        assert lab.privacy.unfinished() == []
        assert len(lab.privacy.receipts()) == 2


def test_a_restoration_keeps_the_receipts_of_the_former_database(kept, away):
    """Although `erasures.sealed` is gone; a damaged one is said."""
    add(kept.primary, message(50, user_id="ada", conversation_id="a", channel_id="a"))
    kept.backups.write(away / "a.backup")
    kept.privacy.forget(user="ada")
    kept.close()
    kept.home.erasures.write_bytes(b"x")
    with pytest.raises(CorruptDatabase, match="or remove it, so that"):
        restore(away / "a.backup", settings(kept.home.path), force=True)
    kept.home.erasures.unlink()
    restore(away / "a.backup", settings(kept.home.path), force=True)
    with Lab.open(kept.home.path) as lab:
        assert count(lab) == 40


@pytest.mark.slow
def test_a_backup_from_before_a_new_key_gets_the_present_one(kept, away, cli):
    """What was erased under the new key is erased again, and its receipt stays valid."""
    add(kept.primary, message(50, user_id="ada", conversation_id="a", channel_id="a"))
    kept.backups.write(away / "a.backup")
    former = kept.storage.keys.libsql()
    kept.close()
    assert cli("keys", "rotate").returncode == 0
    with Lab.open(kept.home.path) as lab:
        receipt = lab.privacy.forget(user="ada").receipt
    restore(away / "a.backup", settings(kept.home.path), force=True)
    with Lab.open(kept.home.path) as lab:
        assert count(lab) == 40
        assert lab.storage.keys.libsql() != former
        lab.sync()
        assert all(map(lab.privacy.is_authentic, [receipt, *lab.privacy.receipts()]))
        assert verify_deep(lab).ok
        lab.backups.write(away / "a.backup")


def test_an_open_home_is_not_replaced(kept, away, monkeypatch):
    monkeypatch.setattr(restoring, "_PATIENCE", 0.1)
    kept.backups.write(away / "a.backup")
    with pytest.raises(DatabaseLocked, match="stop it"):
        restore(away / "a.backup", settings(kept.home.path), force=True)
    add(kept.primary, message(41))
    assert count(kept) == 41


@pytest.mark.slow
def test_a_restoration_that_is_killed_after_the_exchange_leaves_a_sealed_home(kept, away):
    """Else the restored database, beside the former seal, would be taken for an older one."""
    kept.backups.write(away / "a.backup")
    add(kept.primary, message(41))
    kept.close()
    assert faults.run(restore_into, kept.home.path, away / "a.backup", "exchanged") < 0
    with Lab.open(kept.home.path) as lab:
        assert count(lab) == 40
        assert verify_deep(lab).ok


@pytest.mark.slow
def test_another_home_is_never_replaced(kept, away, tmp_path):
    kept.backups.write(away / "a.backup")
    Lab.create(tmp_path / "other").close()
    with pytest.raises(HomeExists, match="another one"):
        restore(away / "a.backup", settings(tmp_path / "other"), force=True)


def test_a_database_that_cannot_be_read_is_replaced_by_force(kept, away):
    kept.backups.write(away / "a.backup")
    database = kept.home.primary
    kept.close()
    database.write_bytes(b"?" * 9000)
    with pytest.raises(HomeExists, match="nobody knows"):
        restore(away / "a.backup", settings(database.parent), consent=True)
    done = restore(away / "a.backup", settings(database.parent), force=True)
    assert Path(done.replaced).read_bytes() == b"?" * 9000
    assert "add later recipients again" in done.warning
    with Lab.open(database.parent) as lab:
        assert count(lab) == 40


def test_files_of_the_home_are_not_overwritten(kept, away):
    kept.backups.write(away / "a.backup")
    kept.close()
    (kept.home.path / "notebooks" / "my.ipynb").write_text('{"newer": 1}')
    done = restore(away / "a.backup", settings(kept.home.path), force=True)
    assert done.differing == ("notebooks/my.ipynb",)
    assert (kept.home.path / "notebooks" / "my.ipynb").read_text() == '{"newer": 1}'


@pytest.mark.parametrize("path", ["../x", "notebooks/../../x", "/etc/x", "aico.db", "notebooks"])
def test_a_file_of_a_forged_backup_stays_in_its_folder(kept, path):
    with pytest.raises(CorruptDatabase, match="does not belong"):
        restoring._Files(kept.home).keep(path, b"")


def test_a_damaged_database_makes_no_backup(kept, away, monkeypatch):
    (away / "a.backup").write_bytes(b"the former one")
    monkeypatch.setattr(writing, "row_counts", lambda _: {"messages": 1})
    with pytest.raises(CorruptDatabase, match="differs"):
        kept.backups.write(away / "a.backup")
    assert [(one.name, one.read_bytes()) for one in away.iterdir()] == [
        ("a.backup", b"the former one")
    ]
    assert list(kept.home.temporary.glob("*-*")) == []


def test_a_backup_inside_the_home_is_refused(kept):
    with pytest.raises(InvalidValue, match="inside the home"):
        kept.backups.write(kept.home.path / "a.backup")


@pytest.mark.slow
def test_the_commands_say_what_they_did(kept, away, cli, in_process, tmp_path):
    kept.close()
    assert "compared" in cli("backup", str(away / "a.backup"), "--recipient", "new").stdout
    assert "--force" in cli("backup", str(away / "a.backup")).stderr
    assert cli("backup", str(away / "a.backup"), "--verify").returncode == 0
    done = in_process("restore", str(away / "a.backup"), "--home", str(tmp_path / "new"))
    assert "run `aico-lab sync" in done.stdout
    assert done.returncode == 0
    found = {one.check: one.detail for one in diagnose(settings(kept.home.path))}
    assert "0 changes since" in found["backups"]
    assert in_process("restore", str(tmp_path), "--home", str(tmp_path / "x")).returncode == 1


WRITING = {
    "half written": faults.dies(writing, "numbered", number=20),
    "half checked": faults.dies(rebuilding, "_compare"),
    "not named": faults.dies(Path, "replace"),
    "named": faults.dies(writing, "sync_folder"),
}
RESTORING = {
    "nothing written": faults.dies(rebuilding, "_fill"),
    "file written": faults.dies(restoring._Files, "keep", after=True),
    "compared": faults.dies(rebuilding, "_compare", after=True),
    "first name": faults.dies(Path, "replace"),
    "first name given": faults.dies(Path, "replace", after=True),
    "last name": faults.dies(Path, "replace", number=2),
    "exchanged": faults.dies(restoring, "sync_folder", after=True),
}


def write_in(home: Path, target: Path, point: str = "") -> None:
    if point:
        WRITING[point]()
    with Lab.open(home) as lab:
        lab.backups.write(target)


def restore_into(home: Path, backup: Path, point: str = "") -> None:
    if point:
        RESTORING[point]()
    restore(backup, settings(home), force=True)


@pytest.mark.slow
@pytest.mark.parametrize("point", WRITING)
def test_a_killed_backup_leaves_a_whole_file_or_none(kept, away, tmp_path, point):
    kept.close()
    assert faults.run(write_in, kept.home.path, away / "a.backup", point) < 0
    if (away / "a.backup").exists():
        restore(away / "a.backup", settings(tmp_path / "new"))
    write_in(kept.home.path, away / "a.backup")
    assert [path.name for path in away.iterdir()] == ["a.backup"]
    assert list(kept.home.temporary.glob("*-*")) == []


@pytest.mark.slow
@pytest.mark.parametrize("point", [point for point in RESTORING if point != "exchanged"])
@pytest.mark.parametrize("existing", [False, True])
def test_a_killed_restoration_leaves_the_former_home_or_the_new_one(
    kept, away, tmp_path, point, existing
):
    kept.backups.write(away / "a.backup")
    (kept.home.path / "notebooks" / "my.ipynb").unlink()
    target = kept.home.path if existing else tmp_path / "new"
    add(kept.primary, message(41))
    kept.close()
    assert faults.run(restore_into, target, away / "a.backup", point) < 0
    if (target / "lab.json").exists():
        with Lab.open(target) as lab:
            assert count(lab) in ((40, 41) if existing else (40,))
            assert lab.primary.fetch_all("PRAGMA integrity_check") == [("ok",)]
    restore_into(target, away / "a.backup")
    with Lab.open(target) as lab:
        assert count(lab) == 40


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's mount")
def test_a_full_disk_leaves_the_former_backup(kept, tmp_path, request):
    disk = tmp_path / "disk"
    mount(disk, "size=300k", request)
    kept.backups.write(disk / "a.backup")
    former = (disk / "a.backup").read_bytes()
    (disk / "filler").write_bytes(b"x" * (200_000 - len(former)))
    add(kept.primary, *(message(i, content=random.randbytes(300).hex()) for i in range(41, 1000)))
    with pytest.raises(DiskFull):
        kept.backups.write(disk / "a.backup")
    assert sorted(path.name for path in disk.iterdir()) == ["a.backup", "filler"]
    assert (disk / "a.backup").read_bytes() == former
    with pytest.raises(DiskFull):
        restore(disk / "a.backup", settings(disk / "new"))
    assert not (disk / "new" / "lab.json").exists()
