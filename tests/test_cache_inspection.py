"""Looking into the cache, from Python and on the command line, beside its owner."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from aico_lab.cache import views
from aico_lab.cache.inspection import EXPIRED_CLASS, NOT_KNOWN, entries_of
from aico_lab.cache.store import MemoryStore
from aico_lab.cache.typed import CacheStore
from aico_lab.errors import CorruptDatabase, DatabaseLocked, LibraryMissing, UnknownName
from aico_lab.lab import Lab
from aico_lab.metrics.engine.memo import KeptAnswer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from aico_lab.cache.inspection import Inspection


def fill(cache: CacheStore) -> None:
    cache.put_many({f"session:{number:02}": {"turns": ["hello"]} for number in range(30)})
    cache.put("session:large", os.urandom(3_000))
    cache.put("recent:gone", 1, ttl=1e-6)
    for _ in range(3):
        cache.get("session:07")
    cache.get("session:08")
    cache.get("session:absent")


def test_an_inspection_beside_the_owner_tells_all(lab: Lab, home: Path) -> None:
    """As of the owner's last stored counters; the owner goes on."""
    pytest.importorskip("rocksdict")
    with Lab.open(home) as owner:
        fill(owner.cache.store)
        owner.cache.store.flush()
        with pytest.raises(DatabaseLocked):
            _ = lab.cache.store
        found = {one.name: one for one in lab.cache.inspect().namespaces}
        session = found["session"]
        assert session.entries == 31
        assert sum(session.ages.values()) == sum(session.left.values()) == 31
        assert session.left["1 d"] == 31
        assert next(iter(session.largest.items()))[0] == "session:large"
        assert list(session.hottest.items())[:2] == [("session:07", 3), ("session:08", 1)]
        assert session.hit_rate == 0.8
        assert [sum(counts) for counts in session.hours.values()] == [5]
        assert session.counters["puts"] == 31
        assert found["recent"].left[EXPIRED_CLASS] == 1
        assert (found["queue"].entries, found["queue"].hit_rate) == (0, None)
        owner.cache.store.put("queue:x", 1)
        queue = lab.cache.inspect().namespaces[-1]
        assert (queue.name, queue.entries) == ("queue", 1)


def test_the_levels_of_rocksdb(lab: Lab) -> None:
    """Files, bytes and removed entries; what cannot be told is named."""
    pytest.importorskip("rocksdict")
    store = lab.cache.store
    store.put_many({f"computed:{number}": os.urandom(200) for number in range(500)})
    store.clear("computed")
    store.put_many({f"computed:{number}": os.urandom(200) for number in range(500)})
    for number in range(1_000):
        store.get(f"computed:{number}")
    lab.cache.store.close()
    del lab.__dict__["cache"]
    found = lab.cache.inspect()
    assert sum(level.bytes for level in found.levels) > 100_000
    assert found.not_known == NOT_KNOWN
    engine = found.engine
    assert engine.space_amplification is not None
    assert engine.read_amplification >= 1
    assert engine.ticks["bytes.written"] > 200_000
    assert engine.block_cache_bytes is not None
    for text in ("session", "space amplification", "Bloom"):
        assert text in repr(found)


def test_a_damaged_block_is_an_error_of_the_inspector(lab: Lab, home: Path) -> None:
    """Never a shorter answer; the inspector changes nothing."""
    pytest.importorskip("rocksdict")
    lab.cache.store.put_many({f"session:{number}": os.urandom(1_000) for number in range(50)})
    lab.cache.store.close()
    del lab.__dict__["cache"]
    lab.cache.store.close()
    del lab.__dict__["cache"]
    table = max((home / "cache").glob("*.sst"), key=lambda path: path.stat().st_size)
    content = bytearray(table.read_bytes())
    content[len(content) // 2] ^= 1
    table.write_bytes(content)
    with pytest.raises(CorruptDatabase):
        lab.cache.inspect()
    assert bytes(content) == table.read_bytes()


@pytest.mark.parametrize("damage", ["removed", "short", "empty", "MANIFEST"])
def test_a_part_that_is_missing_is_an_error_of_the_inspector(
    lab: Lab, home: Path, damage: str
) -> None:
    """RocksDB knows an older state, whose files are all there, but it is not what was written."""
    pytest.importorskip("rocksdict")
    for _ in range(2):
        lab.cache.store.put_many({f"session:{n}": os.urandom(1_000) for n in range(50)})
        lab.cache.store.clear("recent")  # which writes tables
    lab.cache.store.close()
    del lab.__dict__["cache"]
    part = max((home / "cache").glob("*.sst"), key=lambda path: path.stat().st_size)
    if damage == "MANIFEST":
        (part,) = (home / "cache").glob("MANIFEST-*")
    if damage in ("short", "empty"):
        os.truncate(part, 20_000 if damage == "short" else 0)
    else:
        part.unlink()
    with pytest.raises(CorruptDatabase, match="run `aico-lab sync --full`"):
        lab.cache.inspect()


def test_values_are_masked_unless_asked_for() -> None:
    """They are the words of people."""
    cache = CacheStore(MemoryStore())
    values = {"a": {"x": "secret"}, "b": ["secret"], "c": "secret", "d": b"secret", "e": None,
              "f": True, "g": 1.5}  # fmt: skip
    cache.put_many({f"session:{name}": value for name, value in values.items()})
    store = cache.in_memory()
    assert store is not None
    masked, count = entries_of(store, "session:", 10, content=False)
    assert count == 7
    assert [one.value for one in masked] == [
        "object of 1 fields", "list of 1", "text of 6 characters", "6 bytes", "null",
        "true or false", "number",
    ]  # fmt: skip
    shown, _ = entries_of(store, "session:", 10, content=True)
    assert [one.value for one in shown] == list(values.values())
    cache.put("recent:z", 1)
    first, count = entries_of(store, "", 2, content=True)
    assert ([one.key for one in first], count) == (["recent:z", "session:a"], 8)
    for unknown in ("sessions:", "sesion"):
        with pytest.raises(UnknownName, match="did you mean session"):
            entries_of(store, unknown, 2, content=True)


def test_the_commands(lab: Lab, cli: Callable) -> None:
    """Each with --json, and with an exit code that scripts can use."""
    pytest.importorskip("rocksdict")
    fill(lab.cache.store)
    lab.cache.store.flush()
    stats = json.loads(cli("cache", "stats", "--json").stdout)
    assert stats["namespaces"][0]["entries"] == 31
    shown = cli("cache", "stats").stdout
    assert "  written within   1 min: 31\n" in shown
    assert "  hottest (hits)   session:07: 3, session:08: 1\n" in shown
    listed = cli("cache", "keys", "session:", "--limit", "2")
    assert "hello" not in listed.stdout
    assert "29 more keys" in listed.stderr
    (one, *_) = json.loads(cli("cache", "keys", "session:07", "--show-values", "--json").stdout)
    assert (one["key"], one["value"], one["expired"]) == (
        "session:07", {"turns": ["hello"]}, False
    )  # fmt: skip
    assert "no such key" in cli("cache", "keys", "queue:").stdout
    assert "object of 1 fields" in cli("cache", "get", "session:07").stdout
    assert "hello" in cli("cache", "get", "session:07", "--show-values").stdout
    gone = json.loads(cli("cache", "get", "recent:gone", "--json").stdout)
    assert (gone["expired"], gone["value"]) == (True, None)
    assert cli("cache", "get", "recent:gone").stdout.endswith(" UTC, expired\n")
    absent = cli("cache", "get", "session:absent", "--json")
    assert (absent.returncode, absent.stdout) == (1, "null\n")
    assert cli("cache", "get", "nowhere:a").returncode == 2
    for command in ("get", "keys"):
        assert "not valid text" in cli("cache", command, "session:\udcff").stderr
    assert "close it first" in cli("cache", "clear").stderr
    lab.close()
    assert json.loads(cli("cache", "clear", "recent", "--json").stdout) == {"cleared": "recent"}
    assert "There is no such key" in cli("cache", "keys", "recent:").stdout
    assert "session:07" in cli("cache", "keys", "session:").stdout
    assert cli("cache", "clear").stdout == "The cache is empty.\n"
    assert "There is no such key" in cli("cache", "keys").stdout


def test_there_may_be_no_cache_and_no_rocksdb(
    lab: Lab, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is empty; a cache in memory is seen by its own process."""
    assert {one.entries for one in lab.cache.inspect().namespaces} == {0}
    assert not (home / "cache").exists()
    monkeypatch.setitem(__import__("sys").modules, "rocksdict", None)
    lab.cache.store.put("session:a", 1)
    found = lab.cache.inspect()
    assert [one.entries for one in found.namespaces] == [1, 0, 0, 0, 0]
    assert (found.levels, found.engine.read_amplification) == ((), 0)


def test_without_rocksdb_a_cache_on_disk_is_an_error(
    lab: Lab, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is neither empty, nor emptied; readers go on without it."""
    pytest.importorskip("rocksdict")
    with Lab.open(home) as owner:
        owner.cache.store.put("session:a", 1)
    with monkeypatch.context() as patched:
        patched.setitem(__import__("sys").modules, "rocksdict", None)
        for call in (lab.cache.inspect, lab.cache.clear):
            with pytest.raises(LibraryMissing, match="RocksDB is not installed"):
                call()
        assert lab.cache.store.get("session:a") is None
    with Lab.open(home) as other:
        assert other.cache.inspect().namespaces[0].entries == 1


def test_findings_and_charts_of_an_inspection(lab: Lab) -> None:
    """Keys, which contain ids, are numbered unless asked for; an empty cache draws nothing."""
    pytest.importorskip("rocksdict")
    empty = lab.cache.inspect()
    assert views.contents(empty).finding == "The cache is empty"
    assert [view.plot() for view in all_views(empty)] == [None] * 8
    assert all_views(empty)[1]._repr_markdown_() == "How old are the entries? There is none."
    fill(lab.cache.store)
    lab.cache.store.close()
    del lab.__dict__["cache"]
    found = lab.cache.inspect()
    assert views.contents(found).finding.startswith("32 entries of 0.00 MB, 99% of it in session")
    assert views.left(found).finding == "1 of 32 entries expired, and waits for a sweep"
    assert views.hits(found).finding == "80% of 5 reads found a value"
    hottest, largest = views.keys(found, content=False)
    assert hottest.finding == "session 1 was read most: 3 times"
    assert views.keys(found, content=True)[1].finding.startswith("session:large is the largest")
    assert "large" not in str(largest.rows)
    assert largest.rows[0]["entry"] != "session 1"  # another key than the one that is read most
    assert hottest.plot().to_dict()["encoding"]["x"]["axis"]["values"] == [0, 1, 2, 3]
    for view in all_views(found)[:-1]:
        assert view.plot().to_dict()["title"]["text"] == [view.finding]
    kept = KeptAnswer("turns", {}, {}, 1, datetime.now(UTC), 2.5, 1_000)
    answers = views.answers([kept, kept])
    assert answers.finding == "2 answers are kept, which took 5.0 s to compute"
    assert answers.plot().to_dict()["data"]


def test_entries_that_are_alike_are_not_the_most(lab: Lab) -> None:
    """One of them would be the first by chance."""
    pytest.importorskip("rocksdict")
    cache = lab.cache.store
    cache.put_many({"recent:a": "same", "recent:b": "same"})
    cache.get_many(["recent:a", "recent:b"])
    hottest, largest = views.keys(lab.cache.inspect(), content=True)
    assert hottest.finding == "Several keys were read most: 1 time each"
    assert largest.finding == "Several entries are the largest: 0.0 KB each"
    assert {row["key"]: row["entry"] for row in hottest.rows} == {
        row["key"]: row["entry"] for row in largest.rows
    }


def all_views(found: Inspection) -> list[views.CacheView]:
    return [
        views.contents(found), views.ages(found), views.left(found), views.hits(found),
        views.times(found), *views.keys(found, content=False), views.answers([]),
    ]  # fmt: skip
