"""A tenth of the kills and flipped bits by which the storage was examined, at fixed random places.

What is damaged is noticed or does no harm, and a full sync mends it; what was killed goes on.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import sys
import time
from typing import TYPE_CHECKING

import pytest

from aico_lab.adapters.libsql import LibSQLAdapter
from aico_lab.adapters.rocksdb import RocksDBAdapter
from aico_lab.adapters.sealed import PrivateFolder, unseal
from aico_lab.config import Settings
from aico_lab.errors import CorruptDatabase, HomeExists, NotADatabase, StorageError
from aico_lab.etl import snapshots
from aico_lab.etl.sync import NOTE
from aico_lab.health import diagnose
from aico_lab.lab import Lab
from tests import faults
from tests.messages import START, add, message
from tests.test_migrate import KEY, fill, registry, version
from tests.test_soundness import flip
from tests.test_sync_faults import assert_tidy, held

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="there is no such kill"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A home with two snapshots, vectors and a change in the writer's log; its key beside it."""
    folder = tmp_path_factory.mktemp("model")
    with Lab.create(folder / "home", key_file=folder / "key") as lab:
        add(lab.primary, *[message(i, content=f"{i:04} " * 300) for i in range(2_000)])
        lab.primary.execute(
            "INSERT INTO memories VALUES ('a', 'u', 'likes tea', 'fact', 0.5, ?, NULL)", [START]
        )
        lab.sync()
        add(lab.primary, *[message(i) for i in range(2_000, 2_020)])
        lab.sync()
    return folder


@pytest.fixture
def copied(model, home) -> Iterator[Lab]:
    shutil.copytree(model / "home", home, copy_function=shutil.copy2)
    with Lab.open(home, key_file=model / "key") as lab:
        yield lab


def places(path: Path, number: int) -> list[int]:
    """Some of a file's bytes: its first ones, its last ones and random ones."""
    size = path.stat().st_size
    chance = random.Random(path.name)
    return [0, size - 1, *[chance.randrange(size) for _ in range(number - 2)]]


def assert_mended(lab: Lab, expected: object) -> None:
    """After a full sync everything is as it should be, and doctor agrees."""
    assert lab.sync(full=True).problems == ()
    assert held(lab) == expected
    assert lab.verify().ok
    assert lab.sync().mode == "nothing"
    findings = diagnose(
        Settings.resolve(home=lab.home.path, key_file=lab.storage.settings.key_file)
    )
    assert [finding for finding in findings if not finding.ok] == []


def test_flips_in_snapshots_are_noticed(copied):
    """Each by its checksum; what a query reads of it is right, or an error that says what to do."""
    expected, kept = held(copied), list(snapshots.published(copied.home.snapshots).values())
    newest, key = kept[-1], copied.storage.settings.key_file
    for path, number in ((newest, 16), (snapshots.log(newest), 8)):
        for at in places(path, number):
            flip(path, at)
            assert snapshots.is_changed(newest)
            with Lab.open(copied.home.path, key_file=key) as reader:
                try:
                    assert held(reader) == expected
                except StorageError as error:
                    assert "run `aico-lab sync --full`" in str(error)  # noqa: PT017
            flip(path, at)
    flip(newest, newest.stat().st_size // 3)
    assert copied.sync().generation == 3
    assert_mended(copied, expected)


@pytest.mark.parametrize(("name", "number"), [("writer.duckdb", 12), ("writer.duckdb.wal", 8)])
def test_flips_in_the_writers_files_are_noticed_or_harmless(copied, name, number):
    """The next sync says what to do, or what it publishes is right."""
    expected, path = held(copied), copied.home.warehouse / name
    for at in places(path, number):
        flip(path, at)
        try:
            copied.storage.read_whole(copied.home.writer, "The writer")
        except StorageError as error:
            assert "run `aico-lab sync --full`" in str(error)  # noqa: PT017
        flip(path, at)
    for part in (20, 2):
        # A full sync leaves no log where it made a checkpoint.
        path = path if path.exists() else copied.home.writer
        flip(path, path.stat().st_size // part)
        (copied.home.warehouse / NOTE).unlink()
        try:
            copied.sync()
        except StorageError as error:
            assert "run `aico-lab sync --full`" in str(error)  # noqa: PT017
        assert held(copied) == expected
        assert_mended(copied, expected)


def test_flips_in_notes_stop_nothing(copied):
    """They only save work."""
    expected = held(copied)
    for name in (NOTE, snapshots.CHECKSUMS):
        for number in range(4):
            path = copied.home.warehouse / name
            at = places(path, 8)[number * 2]
            content = bytearray(path.read_bytes())
            content[at] ^= 0x80
            path.write_bytes(content)
            copied.sync()
            assert held(copied) == expected
    assert copied.sync().mode == "nothing"


def test_flips_in_the_sealed_vectors_are_noticed(copied):
    """Each of them; and a full sync makes them again."""
    path = copied.home.path / "vectors.age"
    identity = copied.storage.keys.chroma()
    for at in places(path, 15):
        flip(path, at)
        private = PrivateFolder()
        (private.path / "vectors").mkdir()
        with pytest.raises((CorruptDatabase, NotADatabase), match="--only vectors --full`"):
            unseal(path, private.path / "vectors", identity)
        private.remove()
        flip(path, at)
    flip(path, 300)
    assert_mended(copied, held(copied))
    assert copied.memories.index.count() == 1


def test_flips_in_rocksdbs_files_are_noticed_or_harmless(tmp_path):
    """Nothing is silently left out of what was moved into a table."""
    pytest.importorskip("rocksdict")
    model = RocksDBAdapter(tmp_path / "model", b"k" * 32)
    with model.connect() as store:
        store.write({b"session:%03d" % number: b"x" * 500 for number in range(41)})
        expected = store.items()
    model.connect().close()  # which moves them from the log into a table
    files = [path for path in sorted(model.path.iterdir()) if path.stat().st_size
             and not path.name.startswith(("LOG", "LOCK", "OPTIONS"))]  # fmt: skip
    noticed = 0
    for path in files:
        for at in places(path, 20 if path.suffix == ".sst" else 4):
            broken = tmp_path / "broken"
            shutil.copytree(model.path, broken)
            flip(broken / path.name, at)
            try:
                with RocksDBAdapter(broken, b"k" * 32).connect() as store:
                    assert store.items() == expected
            except StorageError:
                noticed += 1
            shutil.rmtree(broken)
    assert noticed >= 10


@pytest.mark.parametrize("point", faults.INIT_POINTS)
def test_an_init_that_is_killed_can_be_made_again(home, tmp_path, point):
    """And no key is left that opens nothing."""
    person = tmp_path / "person"
    assert faults.run(faults.init_and_die, home, person, point) == -signal.SIGKILL
    try:
        Lab.create(home).close()
    except HomeExists:
        assert point == "marker written"
    with Lab.open(home) as lab:
        add(lab.primary, message(0))
    left = {path.name for path in home.iterdir() if path.is_file()}
    assert {name for name in left if not name.startswith("aico.db")} == {"lab.json"}
    keys = [path for path in person.rglob("*") if path.is_file()]
    assert sorted(path.suffix for path in keys) == [".encrypted", ".key"]
    assert len({path.stem for path in keys}) == 1


def drops() -> object:
    """A migration that loses rows."""
    return registry(version(2, "DROP TABLE notes"))


@pytest.mark.parametrize("point", faults.MIGRATION_POINTS)
def test_a_migration_that_is_killed_leaves_no_bad_backup(tmp_path, point):
    """What has the name of a backup is one, and the next run sweeps the rest."""
    path = tmp_path / "a.db"
    with LibSQLAdapter(path, KEY).connect() as connection:
        registry().apply_core_schemas(connection)
        fill(connection)
    code = faults.run(faults.migrate_and_die, path, KEY, drops, point)
    assert code == -signal.SIGKILL
    for backup in (tmp_path / "backups").glob("*.db"):
        with LibSQLAdapter(backup, KEY, create=False).connect() as copy:
            assert copy.fetch_all("SELECT count(*) FROM notes") == [(2,)]
    with LibSQLAdapter(path, KEY).connect() as connection:
        assert connection.fetch_all("SELECT count(*) FROM notes") == [(2,)]
        (step,) = drops().upgrade(connection)
    files = list((tmp_path / "backups").iterdir())
    assert step.backup in files
    assert all(file.suffix == ".db" for file in files)


def test_syncs_that_are_killed_at_any_time_lose_nothing(copied, model):
    """Readers see a whole state each time, and the last sync brings all of it."""
    chance = random.Random(11)
    for number in range(6):
        started = faults.server().Event()
        arguments = copied.home.path, model / "key", started
        process = faults.server().Process(
            target=faults.sync_often, args=arguments, kwargs={"full": number % 2 == 1}
        )
        process.start()
        assert started.wait(60)
        time.sleep(chance.uniform(0, 0.4))
        process.kill()
        process.join(60)
        assert copied.sql("SELECT count(*) FROM raw.messages").fetchone() == (2_020,)
    copied.sync()
    assert copied.verify().ok
    assert_tidy(copied.home.path)
    assert_mended(copied, held(copied))


@pytest.fixture(scope="module")
def primary_files(tmp_path_factory) -> Path:
    """A home whose last messages are in the write-ahead log alone; its key beside it."""
    folder = tmp_path_factory.mktemp("primary")
    with Lab.create(folder / "home", key_file=folder / "key") as lab:
        add(lab.primary, *[message(i, content=f"{i:04} " * 60) for i in range(300)])
        lab.sync()
        lab.primary.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        add(lab.primary, *[message(i) for i in range(300, 320)])
        for name in ("aico.db", "aico.db-wal"):
            shutil.copy(lab.home.path / name, folder / name)
    return folder


HOW = {
    "flip aico.db": 10,
    "flip aico.db-wal": 4,
    "cut aico.db": 4,
}
"""How often each is tried: a byte that a disk changed, and a backup whose copying was killed."""
STEPS = re.compile("restore|run `|check|give its key|see `|install")


@pytest.mark.parametrize("how", HOW)
def test_damage_of_the_primary_database_is_no_crash(primary_files, in_process, how):
    """What is noticed says what to do next; what is not stands in the README's Limits."""
    harm, name = how.split()
    home = primary_files / "home"
    for number in range(HOW[how]):
        for file in home.glob("aico.db*"):
            file.unlink()
        for file in ("aico.db", "aico.db-wal"):
            shutil.copy(primary_files / file, home / file)
        at = places(home / name, HOW[how])[number]
        if harm == "flip":
            flip(home / name, at)
        else:
            (home / "aico.db-wal").unlink()
            size = (home / name).stat().st_size
            os.truncate(home / name, (0, 1_000, size // 2 + 7, size - 4_096)[number])
        for command in ("info", "sync", "verify", "doctor"):
            told = in_process(
                command, "--home", str(home), "--key-file", str(primary_files / "key")
            )
            said = told.stdout + told.stderr
            assert told.returncode in {0, 1}, (at, command, said)
            assert not re.search("unexpected|Traceback|panicked", said), (at, command, said)
            failed = [line for line in said.splitlines() if line.startswith(("aico-lab:", "FAIL"))]
            if command != "verify" or told.stderr:
                assert all(STEPS.search(line) for line in failed), (at, command, said)
            if harm == "cut" and command == "doctor":
                assert failed, (at, command, said)
