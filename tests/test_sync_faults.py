"""Killed, out of disk, in one another's way, or given a bad source: a sync is whole or nothing."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, NamedTuple

import pytest

from aico_lab.adapters.libsql import LibSQLAdapter
from aico_lab.errors import (
    CorruptDatabase,
    DatabaseLocked,
    DiskFull,
    HomeMissing,
    NeverSynced,
    NotADatabase,
    SchemaTampered,
    SyncBusy,
)
from aico_lab.etl import publishing, snapshots, writer_file
from aico_lab.etl import sync as sync_module
from aico_lab.etl.warehouse import Warehouse
from aico_lab.lab import Lab
from aico_lab.mart.statements import GROUPS
from aico_lab.schema import feed
from tests import faults
from tests.messages import add, message
from tests.reading import reads
from tests.test_cli import failed, mount

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TABLES = ("channels", "messages", "preferences", "users")
WHERE = {
    "full, by rows": (
        "a later batch", "rows inserted", "cursor written", "committed",
        "half of the checkpoint", "half of a copy",
    ),
    "full, by pages": ("the first batch", "half of the checkpoint"),
    "a small change": (
        "the first batch", "rows deleted", "before the mart", "mart written", "cursor written",
        "committed", "half of a copy", "log copied", "before the link", "after the link",
        "published", "half of the oldest removed", "before the feed is told",
        "after the feed is told",
    ),
    "a large change": (
        "after the note", "half of the checkpoint", "checkpointed", "before the name",
    ),
}  # fmt: skip


class World(NamedTuple):
    """A home with three generations and a change to be synced, and what becomes of it."""

    home: Path
    key: Path
    before: list[tuple[object, ...]]
    after: list[tuple[object, ...]]
    digests: dict[str, dict[str, tuple[str, str]]]


def held(lab: Lab) -> list[tuple[object, ...]]:
    """Every value of the warehouse, in a number for each table, as DuckDB hashes them."""
    tables = [f"raw.{table}" for table in TABLES] + [
        # The order of summands is no promise.
        "mart.messages", *[f"(SELECT * REPLACE (round(sentiment_sum, 9) + 0.0 AS sentiment_sum) "
                           f"FROM mart.{table})" for table in GROUPS],
    ]  # fmt: skip
    return [
        lab.sql(f"SELECT count(*), sum(hash(t)) FROM {table} AS t").fetchone() for table in tables
    ]


def digests(lab: Lab) -> dict[str, dict[str, tuple[str, str]]]:
    """The digests of every column, after all of them were seen to be right."""
    proof = lab.verify()
    assert proof.ok
    return {table: found.digests for table, found in proof.tables.items()}


def change(lab: Lab, kind: str) -> None:
    """Insert, change and remove rows."""
    count, length = (700, 4_000) if kind == "a large change" else (20, 10)
    add(lab.primary, *[message(9_000 + i, content=f"{i} " * (length // 4)) for i in range(count)])
    lab.primary.execute("UPDATE messages SET content = 'changed' WHERE id % 100 = 1")
    lab.primary.execute("DELETE FROM messages WHERE id % 100 = 2")


@pytest.fixture(scope="module")
def worlds(tmp_path_factory) -> dict[str, World]:
    """One for each way in which a change can come."""
    folder = tmp_path_factory.mktemp("worlds")
    base, key = folder / "base", folder / "key"
    with Lab.create(base, key_file=key) as lab:
        for start in (0, 3_000, 3_100):
            rows = range(start, 3_000 if start == 0 else start + 100)
            add(lab.primary, *[message(i, content=f"{i:04} " * 200) for i in rows])
            lab.sync()
    made = {}
    for number, kind in enumerate(WHERE):
        home, control = folder / f"home{number}", folder / f"control{number}"
        shutil.copytree(base, home)
        with Lab.open(home, key_file=key) as lab:
            before = held(lab)
            change(lab, kind)
        shutil.copytree(home, control)
        with Lab.open(control, key_file=key) as lab:
            lab.sync(full=kind.startswith("full"))
            made[kind] = World(home, key, before, held(lab), digests(lab))
    return made


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "point"), [(kind, point) for kind, points in WHERE.items() for point in points]
)
def test_a_sync_that_is_killed_is_made_up_for_by_the_next(worlds, home, kind, point):
    """Readers see the state before or after; the end is that of a home that nobody disturbed."""
    world = worlds[kind]
    shutil.copytree(world.home, home)
    with Lab.open(home, key_file=world.key, generation=3) as reader:
        assert held(reader) == world.before
        code = faults.run(
            faults.sync_and_die, home, world.key, point,
            full=kind.startswith("full"), by_pages=kind.endswith("pages"),
        )  # fmt: skip
        assert code == -signal.SIGKILL
        with Lab.open(home, key_file=world.key) as lab:
            assert held(lab) == (world.before if lab.generation == 3 else world.after)
            lab.sync()
            assert lab.generation in (4, 5)
            assert held(lab) == world.after
            assert digests(lab) == world.digests
            done = lab.sql("SELECT generation FROM meta.runs ORDER BY 1").fetchall()
            assert done == [(n + 1,) for n in range(lab.generation)]
            assert lab.sync().mode == "nothing"
            add(lab.primary, message(99_999))  # and life goes on
            assert lab.sync().rows["messages"] == 1
        assert held(reader) == world.before
    assert_tidy(home)


@pytest.mark.slow
@pytest.mark.parametrize("point", ["half of the checkpoint", "half of a copy"])
def test_a_first_sync_that_is_killed_is_made_up_for_by_the_next(worlds, home, point):
    """Nobody reads anything before the first snapshot is whole."""
    world = worlds["a large change"]
    shutil.copytree(world.home, home, ignore=shutil.ignore_patterns("warehouse"))
    (home / "warehouse").mkdir()
    code = faults.run(faults.sync_and_die, home, world.key, point, full=False, by_pages=False)
    assert code == -signal.SIGKILL
    with Lab.open(home, key_file=world.key) as lab:
        with pytest.raises(NeverSynced):
            held(lab)
        lab.sync()
        assert (lab.generation, held(lab)) == (1, world.after)
        assert digests(lab) == world.digests
    assert_tidy(home)


def assert_tidy(home: Path) -> None:
    """Whole snapshots lie there with their logs, and nothing else."""
    kept = snapshots.published(home / "warehouse" / "snapshots").values()
    there = {path.name for path in (home / "warehouse" / "snapshots").iterdir()}
    assert len(kept) <= snapshots.KEPT + 1  # one was pinned
    assert there - {f"{path.name}.wal" for path in kept} == {path.name for path in kept}
    assert not list((home / "warehouse").glob(".*"))


@pytest.mark.slow
def test_a_load_that_is_killed_before_its_publication_is_published_by_the_next_sync(
    lab, home, tmp_path
):
    """Though the primary database has not changed since."""
    shop = tmp_path / "shop.db"
    with contextlib.closing(sqlite3.connect(shop)) as source, source:
        source.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, total REAL)")
        source.executemany("INSERT INTO orders VALUES (?, 1.5)", [(i,) for i in range(100)])
    lab.sync()
    assert lab.sync().mode == "nothing"
    key = next((tmp_path / "person").rglob("*.key"))
    assert faults.run(faults.load_and_die, home, key, shop, "committed") == -signal.SIGKILL
    assert lab.generation == 1
    assert (lab.sync().mode, lab.generation) == ("nothing", 2)
    assert lab.sql("SELECT count(*), sum(total) FROM shop.orders").fetchone() == (100, 150.0)
    assert lab.load(shop, "orders").mode == "nothing"


FULL = {
    "while rows are inserted": (Warehouse, "insert"),
    "at the checkpoint": (Warehouse, "close"),
    "at the publication": (writer_file, "copy"),
}


def fill(disk: Path) -> None:
    """Leave no room at all."""
    with (disk / "filler").open("ab", buffering=0) as filling, contextlib.suppress(OSError):
        while True:
            filling.write(b"x" * 4096)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's mount")
@pytest.mark.parametrize(
    ("kind", "where"),
    [
        *[("full, by rows", where) for where in FULL],
        ("a small change", "at the publication"),
    ],
)
def test_a_full_disk_is_one_sentence_and_the_warehouse_is_as_it_was(
    worlds, home, in_process, monkeypatch, request, *, kind, where
):
    """Nothing half done is left; with room again the next sync is right."""
    world = worlds[kind]
    disk = home / "warehouse"
    home.mkdir()
    mount(disk, "size=60m", request)
    shutil.copytree(world.home, home, dirs_exist_ok=True)
    owner, name = FULL[where]
    function = getattr(owner, name)

    def on_a_full_disk(*arguments, **options):
        fill(disk)
        return function(*arguments, **options)

    arguments = ["sync", *(["--full"] if kind.startswith("full") else []), "--home", str(home)]
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, on_a_full_disk)
        assert failed(in_process(*arguments, "--key-file", str(world.key)), 1, "full", "free")
    assert_tidy(home)
    with Lab.open(home, key_file=world.key) as lab:
        assert (lab.generation, held(lab)) == (3, world.before)
        with pytest.raises(DiskFull):
            lab.sync()
        (disk / "filler").unlink()
        lab.sync()
        assert held(lab) == world.after
        assert digests(lab) == world.digests
    assert_tidy(home)


def test_a_note_that_cannot_be_written_costs_only_work(lab, monkeypatch):
    """The snapshot is published by then."""

    def note(home, *state):
        (home.warehouse / "published").mkdir()
        write(home, *state)

    write = sync_module._note
    with monkeypatch.context() as patch:
        patch.setattr(sync_module, "_note", note)
        assert lab.sync().generation == lab.generation == 1
    assert lab.sync().mode == "nothing"
    assert (lab.home.warehouse / "published").is_file()


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's mount")
def test_a_disk_that_is_full_before_all_rows_are_in_loses_nothing(lab, home, request):
    """DuckDB writes whole row groups into the file before the transaction is committed."""
    lab.sync()
    before = held(lab)
    lab.primary.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 125000) "
        "INSERT INTO users (user_id, created_at) "
        "SELECT hex(randomblob(16)), '2024-03-01T12:00:00.000000Z' FROM n"
    )
    outside = home / "outside"
    shutil.copytree(home / "warehouse", outside)
    mount(home / "warehouse", "size=1m", request)
    shutil.copytree(outside, home / "warehouse", dirs_exist_ok=True)
    with pytest.raises(DiskFull, match="free some space"):
        lab.sync()
    assert held(lab) == before
    assert_tidy(home)
    subprocess.run(["mount", "-o", "remount,size=60m", str(home / "warehouse")], check=True)
    assert lab.sync().rows["users"] == 125_000
    assert lab.sql("SELECT count(*) FROM raw.users").fetchone() == (125_000,)


@pytest.mark.slow
def test_of_two_syncs_at_once_the_second_waits_and_says_for_whom(lab, home, tmp_path, monkeypatch):
    """It has then nothing more to do."""
    add(lab.primary, *map(message, range(10)))
    key = next((tmp_path / "person").rglob("*.key"))
    context = faults.server()
    entered, go_on = context.Event(), context.Event()
    other = context.Process(target=faults.sync_slowly, args=(home, key, entered, go_on))
    other.start()
    try:
        assert entered.wait(120)
        with monkeypatch.context() as patch:
            patch.setattr(publishing, "LOCK_SECONDS", 0.2)
            since = r"since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"
            with pytest.raises(SyncBusy, match=f"by process {other.pid} {since}: try") as busy:
                lab.sync()
        assert busy.value.transient
        timer = threading.Timer(0.3, go_on.set)
        timer.start()
        assert lab.sync().mode == "nothing"
        timer.join()
    finally:
        go_on.set()
        other.join()
    assert (other.exitcode, lab.generation) == (0, 1)
    assert not (home / "warehouse" / "sync").exists()
    digests(lab)


def assert_refused(lab: Lab, error: type[Exception], words: str, **options: object) -> None:
    """A sync fails with one sentence, and what is in the warehouse can be read as before."""
    before = held(lab)
    with pytest.raises(error, match=words) as refused:
        lab.sync(**options)
    assert "\n" not in str(refused.value)
    with Lab.open(lab.home.path) as reader:
        assert held(reader) == before


@pytest.fixture
def synced(home, homes) -> Iterator[Lab]:
    """A lab with something in it, and a change to be synced, all of it in one file."""
    with homes.open(home, messages=2_000, synced=True) as lab:
        add(lab.primary, message(2_000))
        lab.primary.fetch_all("PRAGMA wal_checkpoint(TRUNCATE)")
        yield lab


def exchange(home: Path, content: bytes | None) -> None:
    """Put something else in the place of the primary database, which nobody has open."""
    for suffix in ("", "-wal", "-shm"):
        (home / f"aico.db{suffix}").unlink(missing_ok=True)
    if content is not None:
        (home / "aico.db").write_bytes(content)


def foreign_schema(file: Path) -> bytes:
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE messages (body TEXT)")
        connection.execute("INSERT INTO messages VALUES ('of another program')")
    return file.read_bytes()


@pytest.mark.parametrize(
    ("what", "encrypted", "by_pages", "error", "words"),
    [
        ("missing", True, False, HomeMissing, "does not exist: restore it from a backup"),
        ("empty", True, False, NotADatabase, "is empty, or not the database of a home: restore"),
        ("empty", False, False, NotADatabase, "is empty, or not the database of a home: restore"),
        ("another program's", True, False, NotADatabase, "or has another key"),
        ("another program's", False, False, NotADatabase, "not the database of a home: restore"),
        ("the beginning", True, False, CorruptDatabase, "is damaged: restore it from a backup"),
        ("with a hole", True, False, CorruptDatabase, "is damaged: restore it from a backup"),
        ("with a hole", True, True, CorruptDatabase, "is damaged.*: restore .* from a backup"),
    ],
)
@pytest.mark.slow
def test_a_source_that_is_none_is_named(
    tmp_path, home, homes, *, encrypted, what, by_pages, error, words
):
    """The warehouse is as it was, and is right again with the right source."""
    protection = "key-file" if encrypted else "none"
    with homes.open(home, protection, messages=2_000, synced=True) as lab:
        lab.primary.fetch_all("PRAGMA wal_checkpoint(TRUNCATE)")
    good = (home / "aico.db").read_bytes()
    middle, hole = len(good) // 3 // 4096 * 4096, len(good) // 3 // 4096 * 4096
    contents = {
        "missing": None,
        "empty": b"",
        "another program's": foreign_schema(tmp_path / "other.db"),
        "the beginning": good[:middle],
        "with a hole": good[:middle] + bytes(hole) + good[middle + hole :],
    }
    exchange(home, contents[what])
    with Lab.open(home) as lab, reads(by_pages=by_pages):
        assert_refused(lab, error, words, full=True)
    exchange(home, good)
    with Lab.open(home) as lab, reads(by_pages=by_pages):
        assert lab.sync(full=True).rows["messages"] == 2_000
        digests(lab)


def test_a_key_that_is_not_the_sources_is_named(synced, home, tmp_path, cli):
    """Be it the key file that is another home's, or the database."""
    other = tmp_path / "other"
    with Lab.create(other, key_file=tmp_path / "other.key") as another:
        another.primary.fetch_all("PRAGMA wal_checkpoint(TRUNCATE)")
    synced.close()
    assert failed(cli("sync", "--key-file", str(tmp_path / "other.key")), 1, "does not open")
    exchange(home, (other / "aico.db").read_bytes())
    with Lab.open(home) as lab:
        assert_refused(lab, NotADatabase, "or has another key")


@pytest.mark.slow
def test_a_source_that_is_locked_for_long_is_named(synced, home, monkeypatch):
    """By a program that keeps even readers out."""
    monkeypatch.setitem(LibSQLAdapter.__init__.__kwdefaults__, "busy_timeout", 0.2)
    adapter = synced.storage.adapter
    synced.close()
    with adapter.connect() as other:
        other.fetch_all("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("UPDATE users SET created_at = created_at")
        with Lab.open(home) as lab:
            assert_refused(lab, DatabaseLocked, "in use by another program: try again")
    with Lab.open(home) as lab:
        lab.sync()
        digests(lab)


@pytest.mark.slow
def test_a_source_that_is_being_written_for_long_is_synced_all_the_same(synced):
    """That the feed may be pruned is told another time.

    Only what a program wrote that does not seal waits for its review, which needs the file.
    """
    synced.primary.busy_timeout = 0.2
    with synced.storage.adapter.connect() as other, other.transaction():
        other.execute("UPDATE users SET created_at = created_at")
        with pytest.raises(DatabaseLocked, match="try again") as caught:
            synced.sync()
        assert caught.value.transient
    synced.sync()
    add(synced.primary, message(2_001))
    told = synced.primary.fetch_all("SELECT * FROM feed_consumers")
    with synced.storage.adapter.connect() as other, other.transaction():
        other.execute("UPDATE users SET created_at = created_at")
        assert synced.sync().rows == {"messages": 1}
    assert synced.primary.fetch_all("SELECT * FROM feed_consumers") == told
    assert synced.sync().mode == "increment"
    assert synced.primary.fetch_all("SELECT * FROM feed_consumers") != told
    digests(synced)


@pytest.mark.slow
@pytest.mark.parametrize("known", [False, True], ids=["before it was synced", "later"])
@pytest.mark.parametrize(
    "behind", ["DROP TABLE things", "ALTER TABLE things RENAME COLUMN id TO number"]
)
def test_a_table_that_went_behind_the_feeds_back_is_named(lab, behind, known):
    """What the change feed follows is no longer there."""
    lab.sync()
    with lab.primary.transaction():
        lab.primary.execute("CREATE TABLE things (id INTEGER PRIMARY KEY, a TEXT)")
        lab.primary.execute("INSERT INTO things (a) VALUES ('one'), ('two')")
        feed.track(lab.primary, "things", ["id"])
    if known:
        lab.sync()
    lab.primary.execute(behind)
    words = r"no longer has things\.id, by which .* restore the database from a backup\.$"
    for on_change in (None, "evolve", "freeze", "ignore"):
        for full in (False, True):
            assert_refused(lab, SchemaTampered, words, on_change=on_change, full=full)


@pytest.mark.slow
def test_where_the_file_system_has_no_links_a_snapshot_is_a_copy(lab, monkeypatch):
    """Of the same content, for a reader of the newest and of the one before."""
    add(lab.primary, *map(message, range(100)))
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EPERM, "no")))
    counts = []
    for number in range(100, 103):
        lab.sync(full=number == 100)
        with Lab.open(lab.home.path) as reader:
            counts.append(reader.sql("SELECT count(*) FROM raw.messages").fetchone())
        digests(lab)
        add(lab.primary, message(number))
    assert counts == [(100,), (101,), (102,)]
    files = [path.stat() for path in snapshots.published(lab.home.snapshots).values()]
    assert [file.st_nlink for file in files] == [1, 1, 1]
    assert_tidy(lab.home.path)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's mount")
def test_a_copy_for_which_there_is_no_room_leaves_no_log_either(lab, home, monkeypatch, request):
    """Where there are no links, the log may have had its place already."""
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EPERM, "no")))
    mount(home / "warehouse", "size=20m", request)
    add(lab.primary, *map(message, range(100)))
    lab.sync()
    before = held(lab)
    add(lab.primary, message(100))
    copy = writer_file.copy

    def copy_to_a_full_disk(source, target):
        if not source.name.endswith(".wal"):
            fill(home / "warehouse")
        copy(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(writer_file, "copy", copy_to_a_full_disk)
        with pytest.raises(DiskFull):
            lab.sync()
    assert held(lab) == before
    assert_tidy(home)
    (home / "warehouse" / "filler").unlink()
    assert lab.sync().generation == 2
    digests(lab)


@pytest.mark.slow
@pytest.mark.parametrize("protection", ["key-file", "none"])
def test_what_two_programs_spill_does_not_get_into_one_anothers_way(homes, home, protection):
    """Each has a folder of its own, which is gone when it is closed."""
    with homes.open(home, protection) as lab:
        (home / "tmp" / "writer").mkdir()
        (home / "tmp" / "writer" / "of one that was killed").touch()
        lab.sync()
    assert not list((home / "tmp" / "writer").iterdir())
    (home / "tmp" / "writer").rmdir()
    readers = [Lab.open(home, external_access=True) for _ in range(2)]
    for reader in readers:
        reader.sql("SET memory_limit = '40MB'")
        reader.sql(
            "CREATE TEMP TABLE big AS SELECT 'x' || hash(range) AS s FROM range(600_000) "
            "ORDER BY hash(range)"
        )
    assert len(list((home / "tmp").glob("*-*/"))) == 2
    for reader in readers:
        with reader:
            assert reader.sql("SELECT count(s) FROM big WHERE s >= 'x'").fetchone() == (600_000,)
    assert not [path for path in (home / "tmp").iterdir() if path.name != "open"]
