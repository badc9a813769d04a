"""What changed in the primary database without its key is noticed, and never copied or sealed."""

from __future__ import annotations

import random
import re
import shutil
import struct
import time
from typing import TYPE_CHECKING

import pytest

from aico_lab.adapters.libsql import Connection, LibSQLAdapter
from aico_lab.adapters.libsql_log import _checksum
from aico_lab.adapters.libsql_seal import PageSeal
from aico_lab.deep_verify import _check_pages, verify_deep
from aico_lab.errors import CorruptDatabase, StorageError
from aico_lab.health import _check_seal, check_one
from aico_lab.integrity.guard import SyncGuard, reseal
from aico_lab.lab import Lab
from aico_lab.privacy import forgetting
from tests.messages import add, message
from tests.test_soundness import flip

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILES = ("aico.db", "aico.db-wal", "aico.db.seal", "aico.db.tail")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A synced home, the files of its state after 100 more messages and a crash, and its key."""
    folder = tmp_path_factory.mktemp("model")
    with Lab.create(folder / "home", key_file=folder / "key") as lab:
        add(lab.primary, *[message(i, content=f"{i:04} we said " * 20) for i in range(300)])
        lab.sync()
        lab.primary.close()
        lab.storage._primary = None
        shutil.copytree(folder / "home", folder / "closed")
        add(lab.primary, *[message(i) for i in range(300, 400)])
        for name in FILES:
            shutil.copy(folder / "home" / name, folder / name)
    return folder


@pytest.fixture
def closed(model, home) -> Path:
    """A home that was synced and closed."""
    shutil.copytree(model / "closed", home)
    return home


@pytest.fixture
def crashed(closed, model) -> Path:
    """A home whose last 100 messages are in the write-ahead log alone."""
    for name in FILES:
        shutil.copy(model / name, closed / name)
    return closed


def opened(home: Path, model: Path) -> Lab:
    return Lab.open(home, key_file=model / "key")


def flip_row(home: Path, model: Path) -> None:
    """Change a byte in the text of a message that was stored before the last page."""
    with opened(home, model) as lab:
        ((page,),) = lab.primary.fetch_all(
            "SELECT pageno FROM dbstat WHERE name = 'messages' AND pagetype = 'leaf' "
            "ORDER BY path LIMIT 1 OFFSET 3"
        )
    flip(home / "aico.db", page * 4096 - 40)


def pages(lab: Lab) -> str:
    """What a deep check says of the pages."""
    return check_one("pages", lambda: _check_pages(lab)).detail


def is_sound(lab: Lab) -> bool:
    """Whether every page and every value is as it should be."""
    return pages(lab).startswith("all") and lab.verify().ok


@pytest.fixture
def other(closed, model) -> Iterator[Connection]:
    """The connection of another program, which has the key but knows of no seal."""
    with opened(closed, model) as lab:
        key = lab.storage.keys.libsql()
    with Connection(closed / "aico.db", key, busy_timeout=5) as connection:
        yield connection


def test_every_flip_of_the_database_is_noticed(closed, model):
    """Each stops a full sync, which copies nothing, or is told, if no row has another value."""
    path = closed / "aico.db"
    before = {name: (closed / name).read_bytes() for name in ("aico.db", "aico.db.seal")}
    chance = random.Random(19)
    for at in [30, 100, path.stat().st_size - 1, *chance.sample(range(path.stat().st_size), 9)]:
        flip(path, at)
        try:
            with opened(closed, model) as lab:
                SyncGuard(lab.storage).before(full=True)
                assert "outside aico_lab" in "".join(SyncGuard(lab.storage).reports()), at
        except StorageError:
            pass
        for name, content in before.items():
            (closed / name).write_bytes(content)
    with opened(closed, model) as lab:
        assert pages(lab) == f"all {lab.primary.seal.read().pages} are as they were sealed"


def test_a_full_sync_does_not_bless_damage(closed, model):
    """The warehouse keeps what it had, again and again."""
    flip_row(closed, model)
    with opened(closed, model) as lab:
        before = lab.sql("FROM raw.messages ORDER BY id").fetchall()
        for _ in range(2):
            with pytest.raises(CorruptDatabase, match=r"1 page: .*restore a backup"):
                lab.sync(full=True)
        assert lab.sql("FROM raw.messages ORDER BY id").fetchall() == before
        assert "of messages" in pages(lab)
        with pytest.raises(CorruptDatabase, match=r"was damaged or altered .1 page: "):
            _check_seal(lab)


def test_a_sync_checks_the_pages_of_the_rows_that_it_copies(crashed, model):
    """Also if these were written, and sealed, long before."""
    with opened(crashed, model) as lab:
        assert len(lab.primary.fetch_all("SELECT 1 FROM messages")) == 400
    with opened(crashed, model) as lab:
        (page,) = lab.primary.fetch_one(
            "SELECT max(pageno) FROM dbstat WHERE name = 'messages' AND pagetype = 'leaf'"
        )
    flip(crashed / "aico.db", page * 4096 - 40)
    with opened(crashed, model) as lab:
        with pytest.raises(CorruptDatabase, match="1 of messages"):
            lab.sync()
        assert lab.sql("SELECT count(*) FROM raw.messages").fetchone() == (300,)


def test_a_change_of_a_damaged_page_does_not_bless_it(closed, model):
    """The page that it replaces is compared with the seal."""
    flip_row(closed, model)
    with opened(closed, model) as lab:
        lab.primary.execute("UPDATE messages SET sentiment_score = 0")
        with pytest.raises(CorruptDatabase, match="damaged or altered"):
            lab.sync()
    with opened(closed, model) as lab, pytest.raises(CorruptDatabase):
        lab.sync(full=True)


@pytest.mark.slow
def test_a_lost_log_is_noticed(crashed, model, in_process):
    """With what is missing, by each command, until a person accepts it."""
    (crashed / "aico.db-wal").unlink()
    options = "--home", str(crashed), "--key-file", str(model / "key")
    for command in ("sync", "verify", "sync"):
        said = in_process(command, *options).stderr
        assert re.search(r"the last 100 changes of rows, committed until .* UTC, are gone", said)
    assert in_process("verify", "--deep", "--accept", *options).returncode == 0
    with opened(crashed, model) as lab:
        assert lab.primary.fetch_all("SELECT event, reason FROM integrity_log")[-1] == (
            "sealed", "accepted by a person",
        )  # fmt: skip
        lab.sync()
        assert is_sound(lab)


def test_every_flip_of_the_log_is_noticed(crashed, model):
    """Although SQLite takes what follows for a transaction that a crash cut off."""
    path = crashed / "aico.db-wal"
    for at in [0, 20, 40, path.stat().st_size - 1, *range(5_000, path.stat().st_size, 40_000)]:
        for name in FILES:
            shutil.copy(model / name, crashed / name)
        flip(path, at)
        with pytest.raises(CorruptDatabase, match="gone"), opened(crashed, model) as lab:
            lab.sync()
    for name in FILES:
        shutil.copy(model / name, crashed / name)
    with opened(crashed, model) as lab:
        lab.sync()
        assert is_sound(lab)


@pytest.mark.slow
def test_an_older_file_is_noticed(crashed, model):
    """Even if changes were made in it before."""
    with opened(crashed, model) as lab:
        lab.sync()
    shutil.copy(model / "closed" / "aico.db", crashed / "aico.db")
    with pytest.raises(CorruptDatabase, match="older than its seal"), opened(crashed, model) as lab:
        lab.sync()
    with opened(crashed, model) as lab:
        reseal(lab.storage, "restored")
    with opened(crashed, model) as lab:
        assert lab.sync().mode == "full"
        assert lab.sql("SELECT count(*) FROM raw.messages").fetchone() == (300,)
        assert is_sound(lab)


def test_another_program_may_write_before_the_first_sync(home):
    """There is no snapshot yet that the rows could be compared with."""
    with Lab.create(home, key_file=home.parent / "key") as lab:
        key = lab.storage.keys.libsql()
    with Connection(home / "aico.db", key, busy_timeout=5) as other:
        add(other, *[message(i) for i in range(50)])
        other.fetch_all("PRAGMA wal_checkpoint(TRUNCATE)")
    with Lab.open(home, key_file=home.parent / "key") as lab:
        assert lab.sync().rows["messages"] == 50
        assert is_sound(lab)


@pytest.mark.slow
def test_rows_of_another_program_are_told_from_damage(closed, model, other):
    """Every page that it wrote is explained by the feed and the warehouse; a row is not."""
    other.execute("UPDATE messages SET content = 'other' WHERE id % 7 = 0")
    other.close()
    with opened(closed, model) as lab:
        assert "changed outside aico_lab" in pages(lab)
        assert pages(lab).startswith("all")
        assert lab.primary.fetch_all("SELECT event FROM integrity_log")[-1] == ("reviewed",)
        result = lab.sync()
        assert result.rows == {"messages": 42}
        assert "every row is as it was synced" in result.warnings[0]
        assert lab.sync().warnings == []
    with Connection(closed / "aico.db", other._key, busy_timeout=5) as again:
        again.execute("INSERT INTO users (user_id, created_at) VALUES ('x', '')")
        again.execute("DROP TRIGGER feed_messages_update")
        again.execute("UPDATE messages SET content = 'evil' WHERE id = 5")
    with opened(closed, model) as lab:
        assert "1 rows are not those that were synced" in pages(lab)
        with pytest.raises(CorruptDatabase, match="no change of them was recorded"):
            lab.sync(full=True)


def test_a_connection_that_is_not_closed_seals_what_it_wrote(closed, model):
    """As in a notebook, or a program that forgets it."""
    with opened(closed, model) as lab:
        adapter = lab.storage.adapter
    connection = adapter.connect()
    connection.execute("INSERT INTO users (user_id, created_at) VALUES ('x', '')")
    del connection
    with opened(closed, model) as lab:
        assert lab.primary.seal.examine(lab.primary) == {}


def test_pages_of_a_long_log_are_sealed_before_they_reach_the_file(closed, model, monkeypatch):
    """No checkpoint of SQLite's own comes first; and the log begins anew."""
    with opened(closed, model) as lab:
        adapter = lab.storage.adapter
    monkeypatch.setattr("aico_lab.adapters.libsql.CHECKPOINT_PAGES", 40)
    with adapter.connect() as connection:
        for start in range(1_000, 1_400, 50):
            add(connection, *[message(i, content="x" * 500) for i in range(start, start + 50)])
            assert connection.seal.log.size() < 150 * 4_120
            assert connection.seal.examine(connection) == {}
        connection.execute("DELETE FROM messages WHERE id > 400")
        connection.execute("VACUUM")
    with opened(closed, model) as lab:
        assert lab.primary.seal.examine(lab.primary) == {}
        assert lab.sync().mode == "increment"
        assert is_sound(lab)


def test_the_checksums_of_the_log_are_computed_as_sqlite_does(crashed, model):
    """Over all frames, of which the note names the last."""
    with opened(crashed, model) as lab:
        key = lab.storage.keys.libsql()
    shutil.copy(model / "aico.db-wal", crashed / "aico.db-wal")
    shutil.copy(model / "aico.db.tail", crashed / "aico.db.tail")
    log = PageSeal(crashed / "aico.db", key).log
    note = log.noted()
    assert note.frames == len(log.read().pages)
    assert log.holds(note)
    flip(crashed / "aico.db-wal", 32 + 24 + 2_000)
    assert not log.holds(note)


def test_a_missing_or_damaged_seal_is_noticed(closed, model):
    """It cannot be removed to hide something."""
    seal = closed / "aico.db.seal"
    flip(seal)
    with opened(closed, model) as lab, pytest.raises(CorruptDatabase, match="missing or damaged"):
        lab.sync()
    seal.unlink()
    with opened(closed, model) as lab:
        with pytest.raises(CorruptDatabase, match="missing or damaged"):
            lab.sync()
        reseal(lab.storage, "restored")
        assert lab.sync().mode == "nothing"


def test_a_home_without_a_key_has_no_seal(home, in_process):
    """And says so."""
    with Lab.create(home, protection="none") as lab:
        assert pages(lab) == "no seal"
        assert "this home has no key" in _check_seal(lab)
    assert not (home / "aico.db.seal").exists()
    assert in_process("verify", "--accept", "--home", str(home)).returncode == 2
    assert in_process("verify", "--deep", "--accept", "--home", str(home)).returncode == 2


@pytest.mark.slow
def test_doctor_mentions_the_last_deep_check(closed, model, in_process):
    """Whether it found something."""
    options = "--home", str(closed), "--key-file", str(model / "key")
    with opened(closed, model) as lab:
        assert "was not run" in _check_seal(lab)
    assert "No damage was found." in in_process("verify", "--deep", *options).stdout
    with opened(closed, model) as lab:
        assert re.search("last deep check, on .*, found no damage", _check_seal(lab))
        lab.primary.seal.renew(lab.primary, deep=False)
        assert "found damage" in _check_seal(lab)
        key = lab.storage.keys.libsql()
    with Connection(closed / "aico.db", key, busy_timeout=5) as other:
        other.execute("INSERT INTO feed_consumers VALUES ('old', 0)")
    said = in_process("verify", "--deep", *options).stdout
    assert "No damage was found, but there was nothing to compare with for" in said
    assert "changed outside aico_lab: feed_consumers." in said


def test_a_home_of_an_earlier_version_is_sealed_when_it_is_opened(closed, model):
    """As it is, and that is recorded."""
    with opened(closed, model) as lab:
        key = lab.storage.keys.libsql()
    (closed / "aico.db.seal").unlink()
    with LibSQLAdapter(closed / "aico.db", key).connect() as connection:
        connection.execute("DELETE FROM integrity_log")
    with opened(closed, model) as lab:
        assert lab.primary.fetch_all("SELECT reason FROM integrity_log") == [
            ("the first seal of this home",)
        ]
        assert lab.sync().mode == "nothing"


@pytest.mark.slow
def test_an_erasure_that_was_killed_leaves_what_is_sealed(closed, model, monkeypatch):
    """Its pages are sealed before they reach the file, so that nothing has to be accepted."""
    truncate = forgetting._truncate_log

    def killed(primary: Connection) -> None:
        truncate(primary)
        raise KeyboardInterrupt

    with opened(closed, model) as lab:
        add(lab.primary, *[message(i, user_id="ada", conversation_id="a") for i in range(400, 440)])
        with monkeypatch.context() as patch:
            patch.setattr(forgetting, "_truncate_log", killed)
            with pytest.raises(KeyboardInterrupt):
                lab.privacy.forget(conversation="a")
    with opened(closed, model) as lab:
        assert is_sound(lab)
        assert len(lab.privacy.resume()) == 1
        assert is_sound(lab)
        assert lab.privacy.is_authentic(*lab.privacy.receipts())


def test_damage_is_neither_backed_up_nor_sealed_by_an_erasure(closed, model, tmp_path):
    """Each checks every page first."""
    flip_row(closed, model)
    with opened(closed, model) as lab:
        with pytest.raises(CorruptDatabase, match="was damaged"):
            lab.backups.write(tmp_path / "b.backup")
        with pytest.raises(CorruptDatabase, match="was damaged"):
            lab.privacy.forget(user="u")
        assert lab.primary.fetch_one("SELECT count(*) FROM messages") == (300,)
    assert not (tmp_path / "b.backup").exists()


def test_an_older_file_with_its_seal_is_noticed_by_the_warehouse(closed, model):
    """Until a person accepts it; no sync deletes what it copied."""
    with opened(closed, model) as lab:
        add(lab.primary, *[message(i) for i in range(300, 306)])
        lab.sync()
    for name in ("aico.db", "aico.db.seal"):
        shutil.copy(model / "closed" / name, closed / name)
    for full in (False, True):
        with opened(closed, model) as lab:
            with pytest.raises(CorruptDatabase, match=r"older than the last sync.*6 changes"):
                lab.sync(full=full)
            assert lab.sql("SELECT count(*) FROM raw.messages").fetchone() == (306,)
    with opened(closed, model) as lab:
        reseal(lab.storage, "accepted by a person")
        assert lab.sync().mode == "full"
        assert lab.sql("SELECT count(*) FROM raw.messages").fetchone() == (300,)


def test_a_home_that_cannot_be_written_is_compared_with_its_seal(crashed, model, monkeypatch):
    """Page by page, and with what was committed last."""
    monkeypatch.setattr("aico_lab.storage.Storage._is_writable", False)
    with opened(crashed, model) as lab:
        assert pages(lab).startswith("all")
        assert _check_seal(lab) == "every page is as it was sealed"
    (crashed / "aico.db-wal").unlink()
    with opened(crashed, model) as lab:
        assert "the last 100 changes of rows" in pages(lab)
        with pytest.raises(CorruptDatabase, match="the last 100 changes"):
            lab.sync()
        with pytest.raises(CorruptDatabase, match="older than its seal"):
            _check_seal(lab)
    shutil.copy(model / "aico.db-wal", crashed / "aico.db-wal")
    flip_row(crashed, model)
    with opened(crashed, model) as lab:
        assert "1 page is not as sealed" in pages(lab)


def forge(home: Path, pages: dict[int, bytes], size: int) -> None:
    """Write a log with a commit of encrypted pages, as anybody can who has no key."""
    salts = struct.pack(">2I", 0x1234, 0x5678)
    log = struct.pack(">4I", 0x377F0682, 3_007_000, 4_096, 0) + salts
    state = _checksum(log, (0, 0), "<")
    log += struct.pack(">2I", *state)
    for left, (number, page) in zip(reversed(range(len(pages))), pages.items(), strict=True):
        head = struct.pack(">2I", number, 0 if left else size)
        state = _checksum(head + page, state, "<")
        log += head + salts + struct.pack(">2I", *state) + page
    (home / "aico.db-wal").write_bytes(log)


def encrypted_pages(home: Path) -> list[bytes]:
    content = (home / "aico.db").read_bytes()
    return [content[at : at + 4_096] for at in range(0, len(content), 4_096)]


def owner(lab: Lab, number: int) -> str:
    return lab.primary.fetch_one("SELECT name FROM dbstat WHERE pageno = ?", [number])[0]


@pytest.mark.slow
@pytest.mark.parametrize("commits_first", [False, True])
def test_a_forged_log_is_not_sealed(closed, model, commits_first):
    """With a page from before an edit: neither if this program commits behind it, nor in full."""
    before = encrypted_pages(closed)
    with opened(closed, model) as lab:
        lab.primary.execute("UPDATE messages SET content = 'withdrawn' WHERE id = 5")
        lab.sync()
    now = encrypted_pages(closed)
    changed = [n for n in range(1, len(before)) if before[n - 1] != now[n - 1]]
    with opened(closed, model) as lab:
        old = {n: before[n - 1] for n in changed if owner(lab, n) == "messages"}
    forge(closed, old, len(now))
    if commits_first:
        with opened(closed, model) as lab:
            lab.primary.execute("UPDATE messages SET sentiment_score = 0 WHERE id < 9 AND id <> 5")
    for full in (False, True):
        with (
            pytest.raises(CorruptDatabase, match="of messages, 1 rows are not those"),
            opened(closed, model) as lab,
        ):
            lab.sync(full=full)


def test_what_nothing_can_be_compared_with_is_told(closed, model, other):
    """It stops nothing: by a sync once, and then by doctor and deep checks."""
    other.execute("INSERT INTO feed_consumers VALUES ('old', 0)")
    other.execute("CREATE TABLE theirs (a)")
    other.close()
    with opened(closed, model) as lab:
        (told,) = lab.sync().warnings
        assert told.startswith("aico.db was changed outside aico_lab")
        assert re.search("6 pages; nothing to compare with: feed_consumers, the", told)
        assert told.endswith("compare with a backup.")
        assert lab.sync().warnings == []
        for said in (_check_seal(lab), pages(lab)):
            assert re.search(r"as (it was|they were) sealed.*outside aico_lab \(6 pages", said)
        lab.primary.execute("DROP TABLE theirs")
        deep = verify_deep(lab)
        assert (deep.ok, deep.uncompared) == (True, "feed_consumers, the schema, theirs")
        assert [said.count("outside") for said in (str(deep), _check_seal(lab))] == [1, 0]
    with opened(closed, model) as lab:
        key = lab.storage.keys.libsql()
    with Connection(closed / "aico.db", key, busy_timeout=5) as again:
        again.execute(f'CREATE TABLE "0\x1b[31m\nFAIL {"y" * 300}" (a)')
        again.execute("VACUUM")
    with opened(closed, model) as lab:
        doctor = _check_seal(lab)
        assert "outside aico_lab" in doctor
        assert doctor.endswith("the next `aico-lab sync` seals that")
        (told,) = lab.sync(full=True).warnings
        assert len(told) < 340
        name = r"0\\x1b\[31m\\nFAIL y{43}…"
        assert re.search(
            rf"pages; nothing to compare with: {name}, \w+, \w+ and \d+ others\.", told
        )
        assert "autoindex" not in told
        assert is_sound(lab)
        assert "outside aico_lab" in _check_seal(lab)
        reseal(lab.storage, "accepted by a person")
        assert "outside aico_lab" not in _check_seal(lab)


def test_own_records_that_another_program_moved_into_the_file_are_told(closed, model, other):
    """Between two of them; what is in the file was never sealed."""
    with opened(closed, model) as lab:
        for number in range(2):
            lab.primary.execute(
                f"INSERT INTO system_state VALUES ('note-{number}', 'x', '2026-10-23T10:00:00Z')"
            )
            if number == 0:
                other.fetch_all("PRAGMA wal_checkpoint")
    with opened(closed, model) as lab:
        assert "nothing to compare with: system_state" in lab.sync().warnings[0]
        assert is_sound(lab)


def test_commits_of_this_program_are_no_others(closed, model):
    """Whichever way they were made."""
    with opened(closed, model) as lab:
        for run in (lab.primary.execute, lab.primary.fetch_all, lab.primary.fetch_dicts):
            run("INSERT INTO feed_consumers VALUES (random(), 0) RETURNING 1")
            lab.primary.seal.settle(lab.primary)
        for statement in ("BEGIN", "INSERT INTO feed_consumers VALUES ('y', 0)", "COMMIT"):
            lab.primary.execute(statement)
        lab.primary.execute("VACUUM")
        lab.primary.seal.settle(lab.primary)
        assert not lab.primary.seal.is_foreign
        assert lab.sync().warnings == []


def test_a_clock_that_was_set_back_hides_nothing(closed, model, monkeypatch):
    """Nor makes commits of this program those of others."""
    clock, clock_ns = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: clock() - 3_600)
    monkeypatch.setattr(time, "time_ns", lambda: clock_ns() - 3_600 * 10**9)
    with opened(closed, model) as lab:
        add(lab.primary, *[message(i) for i in range(300, 305)])
        lab.primary.seal.settle(lab.primary)
        assert not lab.primary.seal.is_foreign
        killed = {name: (closed / name).read_bytes() for name in FILES}
    for name, content in killed.items():
        (closed / name).write_bytes(content)
    (closed / "aico.db-wal").unlink()
    with pytest.raises(CorruptDatabase, match="the last 5 changes"), opened(closed, model) as lab:
        lab.sync()


@pytest.mark.slow
def test_the_database_and_seal_of_another_copy_are_noticed(closed, model):
    """Which went on with as many changes."""
    copy = closed.with_name("copy")
    shutil.copytree(closed, copy)
    for home, number in ((closed, 1), (copy, 2)):
        with opened(home, model) as lab:
            lab.primary.execute(f"UPDATE messages SET content = 'x' WHERE id = {number}")
            lab.sync()
    for name in ("aico.db", "aico.db.seal"):
        shutil.copy(copy / name, closed / name)
    for full in (False, True):
        with opened(closed, model) as lab:
            with pytest.raises(CorruptDatabase, match="from another copy of this home"):
                lab.sync(full=full)
            assert lab.sql("SELECT content FROM raw.messages WHERE id = 1").fetchone() == ("x",)


def test_an_older_log_with_its_note_is_told(closed, model):
    """Even if no change of the feed shows that; the note alone has no effect."""
    names = "aico.db-wal", "aico.db.tail"
    with opened(closed, model) as lab:
        lab.primary.execute("INSERT INTO feed_consumers VALUES ('x', 0)")
        older = {name: (closed / name).read_bytes() for name in names}
    with opened(closed, model) as lab:
        lab.primary.execute("DELETE FROM feed_consumers WHERE consumer = 'x'")
    (closed / names[1]).write_bytes(older[names[1]])
    with opened(closed, model) as lab:
        assert lab.sync().warnings == []
    for name in names:
        (closed / name).write_bytes(older[name])
    with opened(closed, model) as lab:
        assert "nothing to compare with: feed_consumers" in lab.sync().warnings[0]
