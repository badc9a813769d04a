"""What doctor and info find: faults where there are some, and no others."""

from __future__ import annotations

import shutil
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from aico_lab.adapters import rocksdb_codec
from aico_lab.adapters.chroma_collection import Collection
from aico_lab.adapters.rocksdb import RocksDBAdapter
from aico_lab.config import Settings
from aico_lab.embeddings import index as index_
from aico_lab.errors import CorruptDatabase
from aico_lab.health import _check_answers, describe, diagnose, stores_behind
from aico_lab.integrity.guard import reseal
from aico_lab.lab import Lab
from aico_lab.schema import SchemaRegistry, backup, discovery, feed
from tests.messages import START, add, add_memories, message
from tests.test_plugins import plugin, version

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.databases import Homes

VECTORS = (
    "CREATE TABLE todo_items (id INTEGER PRIMARY KEY, v F32_BLOB(2))",
    "CREATE INDEX idx_todo_items ON todo_items (libsql_vector_idx(v))",
    "INSERT INTO todo_items (v) VALUES (vector32('[1, 2]'))",
)


@pytest.fixture
def synced(home: Path, homes: Homes) -> Iterator[Lab]:
    """With two messages that are in the warehouse."""
    with homes.open(home, messages=2, synced=True) as lab:
        yield lab


def faults(lab: Lab) -> dict[str, str]:
    """What is wrong, by check."""
    found = diagnose(Settings.resolve(home=lab.home.path))
    return {finding.check: finding.detail for finding in found if not finding.ok}


@pytest.mark.slow
def test_a_sound_home_has_no_faults(synced):
    """Every store is looked at, also those that are not there yet."""
    checks = [finding.check for finding in diagnose(Settings.resolve(home=synced.home.path))]
    assert {"primary database", "schema", "warehouse", "vectors", "cache"} <= set(checks)
    assert faults(synced) == {}


def test_the_stores_that_lack_changes_are_named(synced):
    """Also one that cannot be read."""
    synced.cache.store.put("session:ada", 1)
    synced.sync()
    synced.cache.release()
    assert stores_behind(synced) == []
    add_memories(synced.primary, "tea")
    assert stores_behind(synced) == ["warehouse", "vectors", "cache"]
    synced.sync()
    synced.cache.release()
    (synced.home.cache / "CURRENT").write_text("x")
    assert stores_behind(synced) == ["cache"]


@pytest.mark.slow
def test_backups_are_counted_and_read(synced):
    """A damaged one is named before it is needed."""
    with synced.primary.transaction():
        path = backup.back_up(synced.primary, "before-notes-2")
    assert faults(synced) == {}
    facts = describe(synced)
    assert facts["backups"] == {"kept": 1, "newest": path.name}
    assert facts["bytes"]["backups"] == path.stat().st_size
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert str(path) in faults(synced)["former databases"]


@pytest.mark.slow
@pytest.mark.parametrize("installed", [True, False])
def test_a_plugin_with_vectors_is_no_fault(synced, monkeypatch, installed):
    """Whether or not its package is still installed."""
    registry = plugin(version(1, *VECTORS), name="todo")
    registry.apply_plugin_schema("todo", synced.primary)
    if installed:
        core = plugin(version(1, "SELECT 1"), name="other")
        monkeypatch.setattr(SchemaRegistry, "default", core)
        entry = SimpleNamespace(
            name="todo", load=lambda: core.register("todo", "plugin", registry["todo"].versions)
        )
        monkeypatch.setattr(discovery, "points", lambda _group: [entry])
    assert faults(synced) == {}


def test_rows_that_come_while_they_are_counted_are_no_fault(synced, monkeypatch):
    """The bot goes on writing."""
    tracked = feed.tracked_tables

    def busy(connection):
        if connection.path == synced.home.primary:  # and not a schema in memory
            with Lab.open(synced.home.path) as other:
                (number,) = other.primary.fetch_one("SELECT count(*) FROM messages")
                add(other.primary, message(number))
        return tracked(connection)

    monkeypatch.setattr(feed, "tracked_tables", busy)
    assert faults(synced) == {}


def test_rows_that_are_missing_are_a_fault(synced):
    """Both numbers are said."""
    (trigger,) = synced.primary.fetch_one(
        "SELECT sql FROM sqlite_master WHERE name = 'feed_messages_delete'"
    )
    synced.primary.execute("DROP TRIGGER feed_messages_delete")
    synced.primary.execute("DELETE FROM messages WHERE message_id = 'm1'")
    synced.primary.execute(trigger)
    assert faults(synced) == {
        "warehouse": "messages has 1 rows in aico.db and 2 in snapshot 1: "
        "run `aico-lab sync --full`."
    }


def test_something_in_the_place_of_kept_answers_is_a_fault(synced):
    """Metrics are answered all the same, each time anew."""
    synced.metrics.overview()
    assert _check_answers(synced) == "1 of metrics, 0.0 MB"
    synced.metrics.memo.forget()
    assert _check_answers(synced).startswith("0 of")
    synced.home.answers.write_text("no folder")
    assert "delete it" in faults(synced)["kept answers"]


@pytest.mark.slow
def test_what_was_synced_before_a_restore_does_not_count(synced, tmp_path: Path):
    """Rather than as fewer than no changes."""
    file = synced.home.primary
    synced.primary.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copy(file, tmp_path / "backup.db")
    add(synced.primary, *[message(number) for number in range(2, 9)])
    assert describe(synced)["warehouse"]["changes not yet synced"] == 7
    synced.sync()
    synced.close()
    file.with_name("aico.db-wal").unlink(missing_ok=True)
    file.with_name("aico.db-shm").unlink(missing_ok=True)
    shutil.copy(tmp_path / "backup.db", file)
    with Lab.open(synced.home.path) as restored:
        with pytest.raises(CorruptDatabase, match="7 changes of rows"):
            describe(restored)
        reseal(restored.storage, "the copy is wanted")
        assert "restored" in describe(restored)["warehouse"]["changes not yet synced"]


@pytest.mark.slow
def test_damaged_vectors_and_a_foreign_cache_are_faults(synced):
    """The primary database being sound; info counts their bytes."""
    pytest.importorskip("rocksdict")
    synced.primary.execute(
        "INSERT INTO memories VALUES ('a', 'u', 'likes tea', 'fact', 0.5, ?, NULL)", [START]
    )
    synced.sync()
    synced.cache.store.put("session:a", "b")
    synced.close()
    assert faults(synced) == {}
    with Lab.open(synced.home.path) as lab:
        sizes = describe(lab)["bytes"]
        assert sizes["vectors"] > 1000
        assert sizes["cache"] > 100
    sealed = synced.home.vectors.with_name("vectors.age")
    content = bytearray(sealed.read_bytes())
    content[-100] ^= 1
    sealed.write_bytes(content)
    (synced.home.cache / "CURRENT").write_text("damage")
    assert "CURRENT" not in faults(synced)["cache"]
    with Lab.open(synced.home.path) as lab:
        assert lab.sync_cache().rebuilt
    findings = {one.check: one for one in diagnose(Settings(home=synced.home.path))}
    assert findings["cache"].ok
    assert "found damaged 1 times" in findings["cache"].detail
    shutil.rmtree(synced.home.cache)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(rocksdb_codec, "FORMAT", b"")
        RocksDBAdapter(synced.home.cache, synced.storage.keys.rocksdb()).connect().close()
    findings = {one.check: one for one in diagnose(Settings(home=synced.home.path))}
    assert findings["cache"].ok
    assert "earlier version" in findings["cache"].detail
    shutil.rmtree(synced.home.cache)
    RocksDBAdapter(synced.home.cache, b"w" * 32).connect().close()
    found = faults(synced)
    assert set(found) == {"vectors", "cache"}
    assert "damaged" in found["vectors"]
    assert "another key" in found["cache"]


@pytest.mark.slow
def test_a_search_that_finds_too_little_is_a_fault(synced, monkeypatch):
    """It says how much it finds, and what to do."""
    add_memories(synced.primary, *(f"{number} roads to Rome" for number in range(30)))
    synced.sync()
    monkeypatch.setattr(index_, "COMPARED", 10)
    checks = {one.check: one for one in diagnose(Settings.resolve(home=synced.home.path))}
    assert checks["vectors"].ok
    assert "30 of memories can be found by meaning" in checks["vectors"].detail
    assert "100% of the nearest, 100% under filters" in checks["vectors"].detail
    query = Collection.query
    monkeypatch.setattr(Collection, "query", lambda own, vector, k: query(own, -vector, k))
    checks = {one.check: one for one in diagnose(Settings.resolve(home=synced.home.path))}
    assert not checks["vectors"].ok
    assert "Search by meaning finds only" in checks["vectors"].detail
    assert "run `aico-lab sync --only vectors --full`" in checks["vectors"].detail


@pytest.mark.slow
def test_a_linked_snapshot_takes_its_place_on_the_disk_once(synced):
    """Two names of one file are not two files."""
    add(synced.primary, message(2))
    synced.sync()
    first, second = sorted(synced.home.snapshots.glob("*.duckdb"))
    assert first.stat().st_ino == second.stat().st_ino
    each = sum(path.stat().st_size for path in synced.home.warehouse.glob("**/*") if path.is_file())
    counted = describe(synced)["bytes"]["warehouse"]
    assert counted == each - first.stat().st_size


@pytest.mark.slow
def test_replies_to_messages_that_are_not_stored_are_counted(synced):
    with synced.primary.transaction():
        synced.primary.execute("UPDATE messages SET reply_to = 'gone' WHERE id = 1")
    details = [one.detail for one in diagnose(Settings.resolve(home=synced.home.path)) if one.ok]
    assert any("1 replies are to messages that are not stored" in detail for detail in details)
