"""Damage of what was made from the primary database: it is noticed, does not spread, and goes."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from aico_lab.config import Settings
from aico_lab.errors import CorruptDatabase, StorageError, UnknownName
from aico_lab.etl import publishing, snapshots, soundness
from aico_lab.etl import sync as sync_module
from aico_lab.etl.pins import pinned
from aico_lab.health import diagnose
from aico_lab.home.files import remove_whole
from aico_lab.lab import Lab
from tests import faults
from tests.databases import open_copy
from tests.messages import START, add, message

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A folder with a home that has a snapshot, which is the writer's file, and its key."""
    folder = tmp_path_factory.mktemp("model")
    with Lab.create(folder / "home", key_file=folder / "key") as lab:
        add(lab.primary, *map(message, range(300)))
        lab.sync(full=True)
    return folder


@pytest.fixture
def synced(model: Path, home: Path) -> Iterator[Lab]:
    """A copy of that home."""
    with open_copy(model / "home", home, model / "key") as lab:
        yield lab


def flip(path: Path, at: int | None = None) -> None:
    """Change one bit as a disk would: the time of the file stays."""
    before, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2 if at is None else at] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def diagnosed(lab: Lab) -> dict[str, str]:
    """What doctor says is wrong, by check."""
    found = diagnose(Settings.resolve(home=lab.home.path))
    return {finding.check: finding.detail for finding in found if not finding.ok}


def count(lab: Lab) -> int:
    return lab.sql("SELECT count(DISTINCT content) FROM raw.messages").fetchone()[0]


@pytest.mark.slow
@pytest.mark.parametrize("change", [True, False])
def test_a_damaged_snapshot_does_not_spread(synced, change):
    """Doctor names it; the next sync publishes again, whether or not there was anything to load."""
    flip(synced.home.snapshots / "00000001.duckdb")
    assert "Snapshot 1 is damaged" in diagnosed(synced)["snapshots"]
    if change:
        add(synced.primary, message(300))
    assert synced.sync().generation == 2
    assert count(synced) == 300 + change
    assert [*snapshots.published(synced.home.snapshots)] == [2]  # the damaged one is of no use
    assert diagnosed(synced) == {}
    assert synced.sync().mode == "nothing"


def newest(lab: Lab) -> Path:
    return snapshots.published(lab.home.snapshots).popitem()[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "gone",
    [
        ".duckdb",
        *(
            pytest.param(gone, marks=pytest.mark.slow)
            for gone in (".duckdb and .wal", ".duckdb and checksums")
        ),
    ],
)
def test_a_missing_newest_snapshot_is_no_older_answer(synced, cli, gone):
    """Every reader says so, with the remedy; the sync that mends it says that it did."""
    add(synced.primary, message(300))
    synced.sync()
    path = newest(synced)
    assert snapshots.log(path).exists()
    path.unlink()
    if gone.endswith("wal"):
        snapshots.log(path).unlink()
    if gone.endswith("checksums"):
        (synced.home.warehouse / snapshots.CHECKSUMS).unlink()
    for command in (["sql", "FROM conversations"], ["verify"], ["metrics", "show", "overview"]):
        done = cli(*command)
        assert (done.returncode, done.stdout) == (1, "")
        assert "snapshot 2, the newest, is missing: run `aico-lab sync" in done.stderr
    assert {"warehouse", "snapshots"} <= diagnosed(synced).keys()
    shown = cli("info")
    assert shown.returncode == 0
    assert "unknown: The file of snapshot 2" in shown.stdout
    done = cli("sync")
    assert done.returncode == 0
    assert "Snapshot 2 was missing" in done.stderr
    assert "published again as snapshot 3" in done.stderr
    assert count(synced) == 301
    assert diagnosed(synced) == {}
    assert synced.sync().mode == "nothing"
    with pytest.raises(UnknownName):
        synced.storage.read_snapshot(2).sql("SELECT 1")


@pytest.mark.parametrize("cut", [30, pytest.param(None, marks=pytest.mark.slow)])
@pytest.mark.parametrize("forgotten", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_snapshot_without_its_whole_log_answers_nothing(synced, cli, cut, forgotten):
    """DuckDB would open it, and answer from the snapshot before."""
    add(synced.primary, message(300))
    synced.sync()
    log = snapshots.log(newest(synced))
    if forgotten:
        (synced.home.warehouse / snapshots.CHECKSUMS).unlink()
    if cut:
        log.write_bytes(log.read_bytes()[:-cut])
    else:
        log.unlink()
    done = cli("sql", "SELECT count(*) FROM raw.messages")
    assert (done.returncode, done.stdout) == (1, "")
    assert "run `aico-lab sync --full" in done.stderr
    assert {"warehouse", "snapshots"} <= diagnosed(synced).keys()
    assert cli("sync").returncode == 0
    assert count(synced) == 301
    assert diagnosed(synced) == {}


@pytest.mark.slow
def test_a_damaged_older_snapshot_goes_with_the_next_publication(synced, cli):
    """Until then doctor names a remedy that helps."""
    for number in (300, 301):
        add(synced.primary, message(number))
        synced.sync()
    flip(snapshots.log(synced.home.snapshots / "00000002.duckdb"))
    assert "Snapshot 2 is damaged: run `aico-lab sync --full`" in diagnosed(synced)["snapshots"]
    add(synced.primary, message(302))
    synced.sync()
    assert [*snapshots.published(synced.home.snapshots)] == [1, 3, 4]
    assert diagnosed(synced) == {}
    flip(snapshots.log(synced.home.snapshots / "00000003.duckdb"))
    assert diagnosed(synced).keys() == {"snapshots"}
    assert cli("sync", "--full").returncode == 0
    assert diagnosed(synced) == {}


@pytest.mark.slow
@pytest.mark.parametrize("part", ["", ".wal"])
def test_a_damaged_newest_snapshot_does_not_stay_as_an_older_one(synced, part):
    """The sync that follows has something to load."""
    for number in (300, 301):
        add(synced.primary, message(number))
        synced.sync()
    path = newest(synced)
    flip(path.with_name(path.name + part))
    add(synced.primary, message(302))
    assert synced.sync().generation == 4
    assert [*snapshots.published(synced.home.snapshots)] == ([1, 2, 4] if part else [4])
    assert diagnosed(synced) == {}


@pytest.mark.slow
def test_a_damaged_log_of_the_writer_is_named_by_a_sync_without_work(synced, cli):
    """As doctor does."""
    add(synced.primary, message(300))
    synced.sync()
    assert cli("sync").returncode == 0
    flip(synced.home.warehouse / "writer.duckdb.wal")
    assert "sync --full" in diagnosed(synced)["writer"]
    refused = cli("sync")
    assert refused.returncode == 1
    assert "writer.duckdb.wal is damaged: run `aico-lab sync --full" in refused.stderr
    assert cli("sync", "--full").returncode == 0
    assert diagnosed(synced) == {}


@pytest.mark.slow
def test_a_full_sync_shares_no_file_with_what_was_there(synced):
    """Even though that looks sound."""
    synced.sync(full=True)
    first, second = snapshots.published(synced.home.snapshots).values()
    assert first.stat().st_ino != second.stat().st_ino


@pytest.mark.slow
def test_without_checksums_a_snapshot_is_copied_and_read(synced):
    """A missing or damaged record vouches for nothing, and stops nothing."""
    record = synced.home.warehouse / snapshots.CHECKSUMS
    for content in (b"\xff", b"[]", b"{}"):
        record.write_bytes(content)
        published = synced.sync().generation
        assert synced.sync().mode == "nothing"
    assert published == 4
    assert diagnosed(synced) == {}


def test_a_damaged_answer_is_no_bad_query(synced):
    """The error names the remedy."""
    path = synced.home.snapshots / "00000001.duckdb"
    synced.close()
    with Lab.open(synced.home.path) as lab:
        for part in range(1, 8):
            flip(path, path.stat().st_size * part // 8)
        with pytest.raises(StorageError, match=r"is damaged.*run `aico-lab sync --full`"):
            lab.storage.read_whole(path, "Snapshot 1")


@pytest.mark.slow
@pytest.mark.parametrize("damaged", ["writer.duckdb", "writer.duckdb.wal"])
def test_a_damaged_writer_is_made_anew_by_a_full_sync(synced, cli, damaged):
    """Sync and doctor name the remedy, and it helps; snapshots are read all the while."""
    add(synced.primary, message(300))
    synced.sync()
    path = synced.home.warehouse / damaged
    for part in range(1, 16):
        flip(path, path.stat().st_size * part // 16)
    add(synced.primary, message(301))
    assert "sync --full" in diagnosed(synced)["writer"]
    if damaged.endswith("wal"):
        refused = cli("sync")
        assert refused.returncode == 1
        assert "run `aico-lab sync --full" in refused.stderr
    assert count(synced) == 301
    done = cli("sync", "--full")
    assert done.returncode == 0, done.stderr
    assert "rebuilt" in done.stdout
    assert count(synced) == 302
    assert synced.verify().ok
    assert diagnosed(synced) == {}


FILE, FOLDER = "a file in the place of", "a folder in the place of"
WRONG = {
    (FILE, "warehouse"): [],
    (FILE, "warehouse/snapshots"): [],
    (FILE, "warehouse/readers"): ["tmp"],
    (FOLDER, "warehouse/checksums"): ["warehouse/published", "warehouse/sync.lock"],
    (FOLDER, "warehouse/sync"): [],
    (FOLDER, "warehouse/writer.duckdb"): [],
    (FOLDER, "warehouse/writer.duckdb.wal"): ["warehouse/snapshots/00000001.duckdb"],
    (FOLDER, "warehouse/snapshots/00000002.duckdb.wal"): [],
    (FOLDER, "warehouse/snapshots/00000003.duckdb"): [
        "warehouse/snapshots/.00000003.duckdb.partial"
    ],
    (FOLDER, "vectors.age"): ["vectors.lock"],
}
"""What may lie where a part of a home belongs, and is none, with others at the same time."""

QUICK = ("warehouse/snapshots", "warehouse/writer.duckdb")
"""Which of them the fast subset tries."""


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        pytest.param(kind, part, marks=[] if part in QUICK else pytest.mark.slow)
        for kind, part in WRONG
    ],
)
def test_a_full_sync_replaces_what_is_of_the_wrong_kind(synced, cli, kind, part):
    """Until then commands name it; nothing that the primary database does not hold is lost."""
    add(synced.primary, message(300))
    synced.sync()
    synced.close()
    for path in (synced.home.path / one for one in (part, *WRONG[kind, part])):
        remove_whole(path)
        if kind == FILE:
            path.write_text("x")
        else:
            (path / "inner").mkdir(parents=True)
    with Lab.open(synced.home.path) as lab:
        add(lab.primary, message(301))
        lab.primary.execute(
            "INSERT INTO memories VALUES ('a', 'u', 'likes tea', 'fact', 0.5, ?, NULL)", [START]
        )
        for command in (["doctor"], ["sql", "FROM conversations"], ["sync"], ["verify"]):
            done = cli(*command)
            assert "unexpected" not in done.stdout + done.stderr
            said = done.stderr if command == ["sync"] else ""
            assert (
                not said or "run `aico-lab sync --" in said or "again" in said or "rebuilt" in said
            )
        done = cli("sync", "--full")
        assert (done.returncode, done.stderr) == (0, "")
        assert count(lab) == 302
        assert lab.memories.index.count() == 1
        assert lab.verify().ok
        assert diagnosed(lab) == {}


def test_a_note_that_is_no_text_stops_no_sync(synced):
    """It is only a note."""
    (synced.home.warehouse / sync_module.NOTE).write_bytes(b"1 \xff\xfe")
    assert synced.sync().mode == "nothing"


@pytest.mark.slow
def test_what_cannot_be_read_is_not_published(synced, monkeypatch):
    """Readers go on with the snapshot before."""

    def refuse(*_, **__):
        raise CorruptDatabase("writer.duckdb is damaged.")

    monkeypatch.setattr(publishing, "read_whole", refuse)
    synced.home.snapshots.joinpath("00000001.duckdb").touch()  # so that it is not linked to
    add(synced.primary, message(300))
    with pytest.raises(CorruptDatabase):
        synced.sync()
    assert {path.name for path in synced.home.snapshots.iterdir()} <= {
        "00000001.duckdb", "00000001.duckdb.wal",
    }  # fmt: skip
    monkeypatch.undo()
    assert synced.sync().generation == 2
    assert count(synced) == 301


@pytest.mark.slow
def test_damaged_vectors_and_cache_stop_no_warehouse(synced, cli):
    """The vectors are made again at once, and the cache is set aside for an empty one."""
    pytest.importorskip("rocksdict")
    memory = "INSERT INTO memories VALUES (?, 'u', 'likes tea', 'fact', 0.5, ?, NULL)"
    synced.primary.execute(memory, ["a", START])
    synced.sync()
    synced.cache.store.put("session:a", "b")
    synced.close()
    flip(synced.home.path / "vectors.age")
    (synced.home.cache / "CURRENT").write_bytes(b"MANIFEST-9")
    with Lab.open(synced.home.path) as lab:
        lab.primary.execute(memory, ["b", START])
        result = lab.sync()
        assert result.mode == "increment"
        assert result.warnings == ["The vectors were damaged and were rebuilt."]
        assert lab.memories.index.count() == 2
        assert result.problems == ()
        assert lab.sql("SELECT count(*) FROM raw.memories").fetchone() == (2,)
        assert len(list(synced.home.path.glob("cache.damaged-*"))) == 1
        assert diagnosed(lab) == {}
    assert cli("sync").returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("file", ["MANIFEST-*", "CURRENT"])
def test_a_cache_that_the_disk_cannot_read_is_replaced(synced, file):
    pytest.importorskip("rocksdict")
    synced.cache.store.put("session:a", "b")
    synced.close()
    (found,) = synced.home.cache.glob(file)
    found.unlink()
    found.mkdir()
    with Lab.open(synced.home.path) as lab:
        assert lab.sync().problems == ()
        assert len(list(synced.home.path.glob("cache.damaged-*"))) == 1
        assert diagnosed(lab) == {}
        lab.cache.store.put("session:a", "c")


def test_a_sync_waits_for_no_writer_to_prune_the_feed(synced, cli, monkeypatch):
    """Everything is done, and says so, though another connection holds the write lock."""
    monkeypatch.setattr(sync_module.feed, "PATIENCE", 0.1)
    add(synced.primary, message(300))
    synced.primary.execute("BEGIN IMMEDIATE")
    done = cli("sync")
    synced.primary.execute("ROLLBACK")
    assert (done.returncode, done.stderr) == (0, "")
    assert count(synced) == 301


def test_a_checksum_depends_on_every_byte(tmp_path):
    """And on the length; a few bytes at the end are no whole word."""
    file = tmp_path / "file"
    content = os.urandom(300_003)
    file.write_bytes(content)
    right = soundness.checksum(file)
    for at in (0, 7, 8, 262_143, 262_144, 300_000, 300_002):
        flip(file, at)
        assert soundness.checksum(file) != right
        flip(file, at)
    assert soundness.checksum(file) == right
    for size in (0, 1, 8, 300_002):
        file.write_bytes(content[:size])
        assert soundness.checksum(file) != right


@pytest.mark.slow
def test_a_generation_that_another_process_reads_is_kept(synced):
    """Until it ends, however it does."""
    ready, go_on = faults.server().Event(), faults.server().Event()
    key = next((synced.home.path.parent / "person").rglob("*.key"))
    reader = faults.server().Process(
        target=faults.read_slowly, args=(synced.home.path, key, 1, ready, go_on)
    )
    reader.start()
    assert ready.wait(60)
    for number in range(300, 305):
        add(synced.primary, message(number))
        synced.sync()
    assert [*snapshots.published(synced.home.snapshots)] == [1, 4, 5, 6]
    go_on.set()
    reader.join(60)
    assert reader.exitcode == 0  # it has asked again, and seen what it saw before
    assert pinned(synced.home.snapshots) == set()
    assert not [*(synced.home.warehouse / "readers").iterdir()]
    add(synced.primary, message(305))
    synced.sync()
    assert [*snapshots.published(synced.home.snapshots)] == [5, 6, 7]


@pytest.mark.parametrize("damaged", [snapshots.NOTE, snapshots.CHECKSUMS])
def test_of_two_records_of_the_newest_snapshot_the_lower_is_believed(synced, damaged):
    """So a damaged record with too high a number does not make the newest snapshot missing."""
    record = synced.home.warehouse / damaged
    content = record.read_bytes()
    if damaged == snapshots.NOTE:
        record.write_bytes(b"9" + content[content.index(b" ") :])
    else:
        record.write_bytes(json.dumps(json.loads(content) | {"00000009.duckdb": "0"}).encode())
    assert snapshots.newest(synced.home.snapshots) == 1
    assert count(synced) == 300
