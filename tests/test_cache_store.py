"""The cache as its users see it: typed values, expiry, limits, counters, damage."""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import Mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aico_lab.adapters import rocksdb_codec
from aico_lab.adapters.rocksdb import RocksDBAdapter, RocksDBConnection, translate
from aico_lab.adapters.rocksdb_codec import FormerFormat
from aico_lab.cache import typed
from aico_lab.cache.lab_cache import open_cache
from aico_lab.cache.namespaces import NAMESPACES
from aico_lab.cache.store import MemoryStore, open_for_reading, past_damage
from aico_lab.cache.typed import TOLERANCE, CacheStore
from aico_lab.errors import (
    ConnectionIsClosed,
    CorruptDatabase,
    DatabaseLocked,
    DiskFull,
    InvalidValue,
    NotADatabase,
    UnknownName,
)
from aico_lab.home.folder import Home
from aico_lab.home.keys import Keys
from tests.effort import examples

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from aico_lab.cache.store import KeyValueStore

KEYS = Keys(b"m" * 32)
START = 1_800_000_000.0
SMALL = {**NAMESPACES, "recent": replace(NAMESPACES["recent"], max_entries=100, max_bytes=20_000)}


class Hands:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Hands:
    return Hands()


@pytest.fixture(params=["memory", "encrypted", "plain"])
def opened(
    request: pytest.FixtureRequest, tmp_path: Path, clock: Hands
) -> Iterator[Callable[[], CacheStore]]:
    """Returns a function that opens the same cache again; the one in memory stays open."""
    bytes_: list[KeyValueStore] = []

    def keep() -> KeyValueStore:
        if request.param != "memory":
            pytest.importorskip("rocksdict")
            key = KEYS.rocksdb() if request.param == "encrypted" else None
            return RocksDBAdapter(tmp_path / "cache", key).connect()
        if not bytes_:
            bytes_.append(MemoryStore())
            bytes_[0].close = lambda: None  # type: ignore[method-assign]
        return bytes_[0]

    made: list[CacheStore] = []

    def again() -> CacheStore:
        for one in made:
            one.close()
        made.append(CacheStore(keep(), clock=clock, namespaces=SMALL))
        return made[-1]

    yield again
    for one in made:
        one.close()


@pytest.fixture
def cache(opened: Callable[[], CacheStore]) -> CacheStore:
    return opened()


def test_what_is_put_is_there_until_it_expires(cache: CacheStore, clock: Hands) -> None:
    """For the seconds of its namespace, or those that the caller names."""
    cache.put("session:ada", {"turns": ["hi"]})
    cache.put("session:bob", 1, ttl=10)
    assert cache.get_many(["session:ada", "session:bob", "session:no"]) == {
        "session:ada": {"turns": ["hi"]}, "session:bob": 1
    }  # fmt: skip
    clock.now += 10
    assert cache.get("session:bob", "gone") == "gone"
    assert cache.items("session:") == [("session:ada", {"turns": ["hi"]})]
    clock.now += NAMESPACES["session"].ttl
    assert cache.get("session:ada") is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=5)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)  # fmt: skip


@given(JSON | st.binary(max_size=2_000) | st.text("ab", min_size=600, max_size=800))
@settings(max_examples=examples(50), suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_value_comes_back_as_it_was(cache: CacheStore, value: object) -> None:
    """JSON and bytes, compressed or not."""
    cache.put("computed:x", value)
    found = cache.get("computed:x", "absent")
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "value", [math.nan, [1, {"a": -math.inf}], {1: 2}, {"a": {1, 2}}, object(), 2**64, "\ud800"]
)
def test_what_would_change_is_refused(value: object) -> None:
    """And nothing is stored."""
    cache = CacheStore(MemoryStore())
    with pytest.raises(InvalidValue):
        cache.put("computed:x", value)
    assert cache.get("computed:x") is None


def test_keys_have_a_known_namespace(cache: CacheStore) -> None:
    """The error names those that exist."""
    for key, error, words in (
        ("sesion:a", UnknownName, "did you mean session"),
        ("zzz:a", UnknownName, "session, configuration, recent, computed, queue"),
        ("plain", UnknownName, "no namespace"),
        ("session:", InvalidValue, "a name of 1 to"),
        ("session:" + "x" * 1_024, InvalidValue, "shorten"),
        (b"session:a", InvalidValue, "is text"),
        ("session:\ud800", InvalidValue, "not valid text"),
    ):
        for use in (cache.get, lambda key: cache.put(key, 1), cache.delete):
            with pytest.raises(error, match=words):
                use(key)
    with pytest.raises(UnknownName):
        cache.clear("sessions")


def test_a_value_may_be_too_large(cache: CacheStore) -> None:
    """For its namespace; the sentence does not repeat it. Seconds are above 0."""
    with pytest.raises(InvalidValue, match="too large for 'queue'") as refused:
        cache.put("queue:a", os.urandom(70_000))
    assert len(str(refused.value)) < 100
    with pytest.raises(InvalidValue, match="too large"):
        cache.put("queue:a", "a" * 70_000)  # though compressed it were small
    for ttl in (0, -1, math.inf, math.nan, True, "1", 10**400, 1e300):
        with pytest.raises(InvalidValue, match="above 0"):
            cache.put("queue:a", 1, ttl=ttl)  # type: ignore[arg-type]


def test_a_batch_over_namespaces_is_made_whole_or_not_at_all(cache: CacheStore) -> None:
    """An error in its block, or an invalid value, leaves everything as it was."""
    cache.put("session:a", 1)
    with cache.batch() as batch:
        batch.delete("session:a")
        batch.put("recent:b", 2)
        batch.put("queue:c", 3, ttl=5)
    assert cache.items("session:") == []
    assert cache.get_many(["recent:b", "queue:c"]) == {"recent:b": 2, "queue:c": 3}
    for value, error in ((1, ZeroDivisionError), (math.nan, InvalidValue)):
        with pytest.raises(error), cache.batch() as batch:
            batch.delete("recent:b")
            batch.put("queue:d", value)
            if error is ZeroDivisionError:
                raise error
    assert cache.get("recent:b") == 2
    assert cache.get("queue:d") is None


def test_prefixes_and_deletion(cache: CacheStore) -> None:
    """A prefix ends anywhere after the colon."""
    cache.put_many({"session:ada:1": 1, "session:ada:2": 2, "session:adam": 3, "recent:ada:1": 4})
    assert cache.items("session:ada:") == [("session:ada:1", 1), ("session:ada:2", 2)]
    assert [key for key, _ in cache.items("session:")] == [
        "session:ada:1", "session:ada:2", "session:adam"
    ]  # fmt: skip
    cache.delete("session:ada:1", "session:absent")
    assert cache.items("session:ada:") == [("session:ada:2", 2)]
    cache.clear("session")
    assert (cache.items("session:"), cache.get("recent:ada:1")) == ([], 4)
    cache.clear()
    assert cache.get("recent:ada:1") is None


def test_of_many_threads_one_sets_a_mark(cache: CacheStore) -> None:
    """Compare-and-set succeeds once, and an expired value counts as absent."""
    won: list[int] = []

    def take(number: int) -> None:
        if cache.compare_and_set("queue:message-1", None, number, ttl=10):
            won.append(number)

    threads = [threading.Thread(target=take, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert cache.compare_and_set("queue:message-1", won[0], 9)
    assert not cache.compare_and_set("queue:message-1", won[0], 10)
    assert cache.get("queue:message-1") == 9


def test_compare_and_set_compares_what_is_stored() -> None:
    """Not by Python's rules, by which True is 1; and a tuple matches itself."""
    cache = CacheStore(MemoryStore())
    for stored, same, others in (
        (True, True, (1, "true", None)),
        (0, 0, (False, 0.0, None)),
        ((1, {"a": 2, "b": 3}), (1, {"b": 3, "a": 2}), ([1, {"a": 2}], b"[1]", None)),
        (b"x", b"x", ("x", None)),
        (None, [], (None, 0)),
    ):
        cache.put("queue:a", stored)
        for other in others:
            assert not cache.compare_and_set("queue:a", other, "new")
        assert cache.compare_and_set("queue:a", same, "new") is (stored is not None)
    assert not cache.compare_and_set("queue:absent", 1, "new")
    assert cache.compare_and_set("queue:absent", None, "new")


def test_an_expired_entry_stays_gone_when_the_clock_goes_back(
    opened: Callable[[], CacheStore], clock: Hands
) -> None:
    """Also over a restart; later entries live, and small steps end nothing."""
    cache = opened()
    cache.put("session:long", "x")
    cache.put("session:short", "x", ttl=100)
    clock.now += 100
    assert cache.get("session:short") is None
    clock.now -= TOLERANCE / 2
    assert cache.get("session:short") is None
    assert cache.get("session:long") == "x"
    cache = opened()
    clock.now -= 2 * TOLERANCE
    assert cache.get("session:short") is None
    assert cache.get("session:long") is None
    cache.put("session:new", "y", ttl=10)
    cache = opened()
    assert cache.get("session:new") == "y"
    assert cache.sweep().entries == 1
    clock.now += 10
    assert cache.get("session:new") is None


def test_a_sweep_removes_what_expired(cache: CacheStore, clock: Hands) -> None:
    """It counts the rest; nothing is left of the others."""
    cache.put_many({f"computed:{number}": "x" * 100 for number in range(50)}, ttl=10)
    cache.put("computed:kept", "y")
    clock.now += 11
    assert cache.is_sweep_due()
    swept = cache.sweep()
    assert (swept.expired, swept.entries) == (50, 1)
    assert 20 < swept.bytes < 100
    assert not cache.is_sweep_due()
    assert cache.counters()["computed"].expiries == 50
    assert cache.items("computed:") == [("computed:kept", "y")]


def test_the_least_recently_used_are_evicted(cache: CacheStore, clock: Hands) -> None:
    """What was read stays, however old it is; of the others the oldest go first."""
    cache.put("recent:read", 0)
    for number in range(99):
        clock.now += 1
        cache.put(f"recent:{number:03}", number)
        assert cache.get("recent:read") == 0
    clock.now += 1
    cache.put("recent:one-too-many", 1)
    kept = [key for key, _ in cache.items("recent:")]
    assert kept == [*(f"recent:{number:03}" for number in range(11, 99)),
                    "recent:one-too-many", "recent:read"]  # fmt: skip
    counters = cache.counters()["recent"]
    assert (counters.evictions, counters.entries) == (11, 90)


def test_bytes_are_limited_too(cache: CacheStore, clock: Hands) -> None:
    """Expired entries go before others; other namespaces are not touched."""
    cache.put("session:other", os.urandom(30_000))
    cache.put("recent:expired", os.urandom(5_000), ttl=1)
    clock.now += 2
    for number in range(5):
        cache.put(f"recent:{number}", os.urandom(5_000))
        clock.now += 1
    kept = [key for key, _ in cache.items("recent:")]
    assert kept == ["recent:2", "recent:3", "recent:4"]
    assert cache.counters()["recent"].size < 18_000
    assert cache.counters()["recent"].expiries == 1
    assert cache.get("session:other") is not None


def test_keys_are_read_while_others_are_evicted(
    cache: CacheStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By another thread, which changes the order of use meanwhile."""
    cache.put_many({f"recent:{number}": 1 for number in range(100)})

    class Reading(float):
        def __add__(self, place: float) -> float:
            cache.get(f"recent:{place}")
            return float(self) + place

    cache.get_many(["recent:7", "recent:8"])
    monkeypatch.setattr(typed, "_USED", Reading(typed._USED))
    cache.put("recent:new", 1)
    assert set(cache.get_many(["recent:7", "recent:8", "recent:new"]).values()) == {1}
    assert cache.counters()["recent"].evictions == 11


def test_one_sweep_waits_for_another(clock: Hands) -> None:
    """Each counts what it removed, and removes nothing that was put meanwhile."""
    others: list[threading.Thread] = []
    removed: list[int] = []

    class Slow(MemoryStore):
        def scan(self, namespace: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
            for item in super().scan(namespace):
                if not others:
                    others.append(threading.Thread(target=sweep))
                    others[0].start()
                    others[0].join(0.05)
                    cache.put("session:0", "new")
                yield item

    def sweep() -> None:
        removed.append(cache.sweep().expired)

    cache = CacheStore(Slow(), clock=clock)
    cache.put_many({f"session:{number}": "old" for number in range(5)}, ttl=1)
    clock.now += 2
    sweep()
    others[0].join()
    assert removed == [4, 0]
    assert cache.items("session:") == [("session:0", "new")]


class FullDisk(MemoryStore):
    """Takes nothing while it is full."""

    full = True

    def write(self, puts: Mapping[bytes, bytes], deletes: Iterable[bytes] = ()) -> None:
        if self.full:
            raise DiskFull("full")
        super().write(puts, deletes)


def test_a_full_disk_loses_counters_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading goes on, and so does closing."""
    monkeypatch.setattr(typed, "_FLUSH_CALLS", 1)
    store = FullDisk()
    store.full = False
    cache = CacheStore(store)
    cache.put("session:a", 1)
    store.full = True
    assert cache.get("session:a") == 1
    with pytest.raises(DiskFull):
        cache.put("session:a", 2)
    cache.flush()
    cache.close()
    with pytest.raises(ConnectionIsClosed):
        store.get(b"session:a")


def test_a_cache_that_cannot_be_replaced_goes_on_in_memory() -> None:
    """The error is raised once; a restart tries again."""

    class Damaged(MemoryStore):
        def get(self, key: bytes) -> bytes | None:
            if key.startswith(b"session"):
                raise CorruptDatabase("damaged")
            return super().get(key)

    def rebuild(_reason: str) -> KeyValueStore:
        raise DiskFull("full")

    cache = CacheStore(Damaged(), rebuild=rebuild)
    with pytest.raises(DiskFull):
        cache.get("session:a")
    cache.put("session:a", 1)
    assert cache.get("session:a") == 1
    assert cache.in_memory() is not None


@pytest.mark.parametrize("reason", ["No space left on device", "File too large",
                                    "Disk quota exceeded"])  # fmt: skip
def test_a_disk_without_space_is_no_damage(reason: str) -> None:
    """RocksDB writes nothing more until it is opened again."""
    error = Exception(f"IO error: {reason}: While appending to file: 4.log: {reason}")
    found = translate(error, "cache")
    assert type(found) is DiskFull
    assert "free some space, and open it again" in str(found)


def test_closing_after_a_write_that_failed_is_no_error(tmp_path: Path) -> None:
    """RocksDB tells the failure again, which was told before."""
    driver = Mock()
    driver.close.side_effect = Exception("IO error: Writer has previous error.")
    RocksDBConnection(tmp_path, driver, None, None, None).close()
    assert driver.close.called


def test_an_entry_that_is_replaced_evicts_no_other(cache: CacheStore) -> None:
    """Entries are counted before any is evicted."""
    cache.put_many({f"recent:{number}": number for number in range(50)})
    for _ in range(500):
        cache.put("recent:0", 0)
    assert len(cache.items("recent:")) == 50
    assert cache.counters()["recent"].evictions == 0


def test_counters_survive_a_restart(opened: Callable[[], CacheStore], clock: Hands) -> None:
    """Hits by hour and the hottest keys, too."""
    cache = opened()
    cache.put_many({"session:a": 1, "session:b": 2})
    for key in ("session:a", "session:a", "session:b", "session:no"):
        cache.get(key)
    cache.delete("session:b")
    cache = opened()
    clock.now += 3_600
    cache.get("session:a")
    cache.flush()
    found = cache.counters()["session"]
    assert (found.hits, found.misses, found.puts, found.deletes) == (4, 1, 2, 1)
    assert list(found.hours.values()) == [[3, 1], [1, 0]]
    assert found.hottest() == {"session:a": 3, "session:b": 1}
    assert found.reads == 5
    assert 0 < found.read_max_ns <= found.read_ns
    assert (found.writes, found.write_ns > 0) == (2, True)


def test_use_after_close_is_refused(tmp_path: Path) -> None:
    """Closing twice is allowed."""
    for store in (MemoryStore(), RocksDBAdapter(tmp_path / "cache").connect()):
        cache = CacheStore(store)
        cache.close()
        cache.close()
        for use in (
            lambda cache=cache: cache.get("session:a"),
            lambda cache=cache: cache.put("session:a", 1),
            cache.sweep,
        ):
            with pytest.raises(ConnectionIsClosed):
                use()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    pytest.importorskip("rocksdict")
    made = Home(tmp_path / "home")
    made.temporary.mkdir(parents=True)
    return made


def fill(home: Home, entries: int = 40) -> None:
    """Write entries, and close twice, which moves them from the log into a table."""
    with open_cache(home, KEYS) as cache:
        cache.put_many({f"session:{number:03}": os.urandom(1_000) for number in range(entries)})
    open_cache(home, KEYS).close()


def flip(path: Path, place: float = 0.5) -> None:
    content = bytearray(path.read_bytes())
    content[int(len(content) * place)] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize("part", ["table", "MANIFEST-*", "CURRENT", "folder"])
def test_a_damaged_cache_is_set_aside_and_replaced(home: Home, part: str) -> None:
    """Found when it is opened, or when the damaged part is read; counted, and one is kept."""
    for times in (1, 2):
        fill(home)
        if part == "folder":
            shutil.rmtree(home.cache)
            home.cache.write_text("no folder")
        elif part == "table":
            flip(max(home.cache.glob("*.sst"), key=lambda path: path.stat().st_size))
        else:
            flip(next(home.cache.glob(part)))
        with open_cache(home, KEYS) as cache:
            keys = [f"session:{number:03}" for number in range(40)]
            assert len(cache.get_many(keys)) < 40  # a damaged table has sound blocks
            assert cache.get_many(keys) == {}
            cache.put("session:new", 1)
            assert cache.get("session:new") == 1
        damage = past_damage(home)
        assert damage is not None
        assert damage["times"] == times
        aside = home.path / damage["folder"]
        assert [aside] == list(home.path.glob("cache.*"))
        assert aside.stat().st_mode & 0o777 == 0o700


def test_reading_on_over_damage_is_an_error_first(home: Home) -> None:
    """A list that is too short would be no answer; the next call reads the new cache."""
    fill(home)
    flip(max(home.cache.glob("*.sst"), key=lambda path: path.stat().st_size))
    with open_cache(home, KEYS) as cache:
        with pytest.raises(CorruptDatabase):
            cache.items("session:")
        assert cache.items("session:") == []


def test_a_damaged_log_leaves_what_was_written_before(home: Home) -> None:
    """Everything up to the damage, and nothing after."""
    with open_cache(home, KEYS) as cache:
        for number in range(200):
            cache.put(f"session:{number:03}", number)
        shutil.copytree(home.cache, home.path / "copy")  # as after a crash: closing empties the log
    shutil.rmtree(home.cache)
    (home.path / "copy").rename(home.cache)
    flip(max(home.cache.glob("*.log"), key=lambda path: path.stat().st_size))
    with open_cache(home, KEYS) as cache:
        found = [value for _, value in cache.items("session:")]
    assert found == list(range(len(found)))
    assert len(found) < 200


def test_a_cache_of_an_earlier_version_is_replaced(home: Home) -> None:
    """Its keys were hashed otherwise, so that nothing would find its entries."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(rocksdb_codec, "FORMAT", b"")
        RocksDBAdapter(home.cache, KEYS.rocksdb()).connect().close()
    with pytest.raises(FormerFormat, match="run `aico-lab sync`, which replaces it"):
        open_for_reading(home, KEYS)
    with open_cache(home, KEYS) as cache:
        assert cache.get("session:a") is None
    assert past_damage(home) is None


def test_another_key_and_another_holder_are_errors(home: Home) -> None:
    """They say what to do; nothing is set aside."""
    fill(home, 1)
    with pytest.raises(NotADatabase, match="another key: run `aico-lab sync --full`"):
        open_cache(home, Keys(b"x" * 32))
    with open_cache(home, KEYS), pytest.raises(DatabaseLocked, match="close it first"):
        open_cache(home, KEYS)
    assert past_damage(home) is None
    with open_cache(home, KEYS) as cache:
        assert len(cache.items("session:")) == 1


KILLED = """if True:
    import os, pathlib, signal, sys, threading
    from aico_lab.cache import typed
    from aico_lab.cache.lab_cache import open_cache
    from aico_lab.home.folder import Home
    from aico_lab.home.keys import Keys
    cache = open_cache(Home(pathlib.Path(sys.argv[1])), Keys(b"m" * 32))
    wait = float(sys.argv[2])
    threading.Timer(wait, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
    start = cache.get("session:last", 0)
    for number in range(start + 1, 10**9):
        with cache.batch() as batch:
            batch.put("session:last", number)
            batch.put(f"computed:{number}", os.urandom(400))
            batch.delete(f"computed:{number - 5000}")
"""


def kill_while_writing(home: Home, times: int) -> None:
    """Kill a writer again and again, and check that a prefix of its batches is there."""
    before = 0
    for turn in range(times):
        wait = 0.05 + 0.37 * (turn * 0.618 % 1)
        done = subprocess.run(
            [sys.executable, "-c", KILLED, str(home.path), str(wait)], check=False
        )
        assert done.returncode == -signal.SIGKILL
        with open_cache(home, KEYS) as cache:
            last = cache.get("session:last", 0)
            there = sorted(int(key.partition(":")[2]) for key, _ in cache.items("computed:"))
        assert last >= before
        assert there == list(range(max(1, last - 4_999), last + 1))
        before = last
    assert before > 0
    assert past_damage(home) is None


@pytest.mark.slow
def test_a_killed_writer_leaves_a_consistent_prefix(home: Home) -> None:
    """No batch is there in part."""
    kill_while_writing(home, 2)


def test_the_readme_lists_the_namespaces() -> None:
    """With what they hold, for how long, and how much of it."""
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    for one in NAMESPACES.values():
        hours = one.ttl / 3_600
        ttl = f"{hours / 24:.0f} d" if hours > 24 else f"{hours:.0f} h"
        size = f"{one.max_entries:,}, {one.max_bytes >> 20} MB"
        assert f"| `{one.name}` | {one.holds} | {ttl} | {size} |" in text
