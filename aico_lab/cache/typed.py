"""The cache as its users see it: namespaces, typed values, expiry, limits and counters.

**Expiry.** An expired entry is never returned. Its space is freed by `sweep`, which a sync calls
once an hour. If the clock is set back by more than a minute, everything written before has expired,
since nobody knows its age. If it is set back by less, time stands still here until it has caught
up.

**Limits.** If a namespace has more entries or bytes than it may have, the least recently used ones
are evicted, down to nine tenths of the limit. The uses of the 4,096 keys that were read last are
remembered; of all others, those written first go first.

**Crashes.** Everything is in RocksDB's log when a call returns, so that it survives the end of the
process; after a power cut, the last writes may be missing. The counters are stored every 5 s or
10,000 calls, and on close, so that a crash loses those since.
"""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Self

import orjson

from aico_lab.cache.counters import Counters
from aico_lab.cache.entries import (
    EXPIRED,
    TOLERANCE,
    CacheTime,
    are_same,
    encode,
    pack,
    times_of,
    value_of,
)
from aico_lab.cache.eviction import EXPIRED_PLACE, Placed, choose
from aico_lab.cache.namespaces import DAY, NAMESPACES, namespace
from aico_lab.cache.store import MemoryStore
from aico_lab.errors import ConnectionIsClosed, CorruptDatabase, DiskFull, InvalidValue

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from aico_lab.cache.namespaces import Namespace
    from aico_lab.cache.store import KeyValueStore

LONGEST_KEY: Final = 1_024  # bytes

LONGEST: Final = 100 * 366 * DAY
"""The most seconds for which an entry is valid."""

_FLUSH_SECONDS: Final = 5.0
_FLUSH_CALLS: Final = 10_000
_SWEEP_SECONDS: Final = 3_600.0
_BATCH: Final = 10_000
_USED: Final = 1e15
"""Added to the place of a key that was used lately, to be after all times of writing."""

CLOCK: Final = b"clock:latest"
"""The key of the record of the clock: `epoch`, `latest` and `swept`."""

ENGINE: Final = b"engine:rocksdb"
"""The key of the record of RocksDB: its `ticks` since the cache was created, and its `gauges`."""

CURSOR: Final = b"projection:cache"


def counters_key(name: str) -> bytes:
    """Return the key under which the counters of a namespace are stored."""
    return f"counters:{name}".encode()


def encoded_key(key: str) -> bytes:
    """Return the bytes of a key, or of its beginning.

    Raises:
        InvalidValue: It contains bytes that are not UTF-8 text, as they come from a command line.
    """
    try:
        return key.encode()
    except UnicodeEncodeError:
        raise InvalidValue("A key of the cache is not valid text: encode it in UTF-8.") from None


@dataclass(frozen=True, slots=True)
class Swept:
    """The outcome of a sweep.

    Attributes:
        expired: The number of entries removed because they had expired.
        entries: The number of entries that are left.
        bytes: Their bytes of keys and values.
    """

    expired: int
    entries: int
    bytes: int


class CacheBatch:
    """Collects changes of any namespaces, which are made together or not at all."""

    def __init__(self) -> None:
        self.puts: dict[str, tuple[Any, float | None]] = {}
        self.deletes: list[str] = []

    def put(self, key: str, value: Any, *, ttl: float | None = None) -> None:
        """Store a value when the batch ends; see `CacheStore.put`."""
        self.puts[key] = value, ttl

    def delete(self, *keys: str) -> None:
        """Remove keys before the values of the batch are stored."""
        self.deletes += keys


class CacheStore:
    """Typed hot state in namespaces; it may be used by several threads at the same time.

    A key is text with its namespace before the first colon, such as `session:ada`. Values are JSON
    or bytes; a tuple comes back as a list. Calls raise UnknownName for another namespace, and
    InvalidValue for a key or value that cannot be stored.
    """

    def __init__(
        self,
        store: KeyValueStore,
        *,
        rebuild: Callable[[str], KeyValueStore] | None = None,
        clock: Callable[[], float] = time.time,
        namespaces: Mapping[str, Namespace] = NAMESPACES,
    ) -> None:
        """Use a store, and close it with this object.

        Args:
            store: Keeps the bytes.
            rebuild: Replaces the closed store, given the reason, when it turns out to be damaged.
            clock: Returns seconds since 1970.
            namespaces: The namespaces, by name.
        """
        self._store = store
        self._rebuild = rebuild
        self._clock = clock
        self._namespaces = namespaces
        self._lock = threading.RLock()
        self._sweeping = threading.Lock()
        self._calls = 0
        self._fresh: set[bytes] | None = None
        self._counters: dict[str, Counters] = {}
        for name in namespaces:
            self._counters[name] = Counters.restore(self._record(counters_key(name)))
        self._ticks: dict[str, int] = self._record(ENGINE).get("ticks", {})
        known = self._record(CLOCK)
        self._state = CacheTime(known.get("epoch", 0), known.get("latest", 0.0))
        self._swept: float = known.get("swept", 0.0)
        self._flushed = self._now()

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of a key, or a default if it is absent or has expired."""
        started = time.perf_counter_ns()
        name, raw = self._raw(key)
        counters, now, store = self._counters[name], self._now(), self._store
        try:
            entry = store.get(raw)
            value = EXPIRED if entry is None else value_of(entry, self._state, now)
        except CorruptDatabase as damage:
            self._replace(store, damage)
            value = EXPIRED
        except ConnectionIsClosed:
            if store is self._store:
                raise
            value = EXPIRED  # another thread has just replaced a damaged store
        if value is EXPIRED:
            counters.misses += 1
            value = default
        else:
            counters.hit(raw)
        counters.read_took(time.perf_counter_ns() - started)
        self._count_call(now)
        return value

    def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        """Return the values of those keys that are there."""
        absent = object()
        found = {key: self.get(key, absent) for key in keys}
        return {key: value for key, value in found.items() if value is not absent}

    def put(self, key: str, value: Any, *, ttl: float | None = None) -> None:
        """Store a value.

        Args:
            key: The key.
            value: The value.
            ttl: Seconds for which it is valid; None means those of its namespace.

        Raises:
            InvalidValue: The value is too large for its namespace, or the seconds are not above 0.
        """
        started = time.perf_counter_ns()
        name, raw = self._raw(key)
        now = self._now()
        entry = self._entry(name, value, ttl, now)
        with self._lock:
            try:  # `_run` alone would take longer
                self._store.put(raw, entry)
            except (CorruptDatabase, ConnectionIsClosed):
                self._run(lambda store: store.put(raw, entry))
            self._count_puts(name, (raw,), len(raw) + len(entry))
        self._counters[name].wrote_in(time.perf_counter_ns() - started)
        self._count_call(now)

    def put_many(self, values: Mapping[str, Any], *, ttl: float | None = None) -> None:
        """Store several values together or not at all; see `put`."""
        with self.batch() as batch:
            for key, value in values.items():
                batch.put(key, value, ttl=ttl)

    def delete(self, *keys: str) -> None:
        """Remove keys together; absent keys are ignored."""
        with self.batch() as batch:
            batch.delete(*keys)

    @contextlib.contextmanager
    def batch(self) -> Iterator[CacheBatch]:
        """Collect changes of any namespaces; make them together if the block ends without error."""
        batch = CacheBatch()
        yield batch
        self._apply(batch)

    def compare_and_set(
        self, key: str, expected: Any, value: Any, *, ttl: float | None = None
    ) -> bool:
        """Store a value if the key has the expected one; return whether it was stored.

        Values are compared as they are stored: True is not 1, and a tuple is a list.

        Args:
            key: The key.
            expected: The expected value; None if the key is to be absent, which it is not if its
                value is None.
            value: The new value.
            ttl: Seconds for which it is valid; None means those of its namespace.
        """
        with self._lock:
            found = self.get(key, EXPIRED)
            as_expected = found is EXPIRED if expected is None else (
                found is not EXPIRED and are_same(found, expected)
            )  # fmt: skip
            if not as_expected:
                return False
            self.put(key, value, ttl=ttl)
            return True

    def items(self, prefix: str) -> list[tuple[str, Any]]:
        """Return the keys that begin with a prefix, and their values, sorted by key.

        The whole namespace is read, since the stored keys are hashes.

        Args:
            prefix: A namespace, a colon, and the beginning of the keys.

        Raises:
            CorruptDatabase: The store is damaged; it was replaced by an empty one.
        """
        name, raw = self._raw(prefix, empty=True)
        now = self._now()
        found = (
            (key.decode(), value_of(entry, self._state, now))
            for key, entry in self._scan(name)
            if key.startswith(raw)
        )
        live = [(key, value) for key, value in found if value is not EXPIRED]
        return sorted(live, key=lambda item: item[0])

    def clear(self, name: str | None = None) -> None:
        """Remove all entries, of one namespace or of all, and free their space."""
        if name is not None and name not in self._namespaces:
            namespace(name)
        with self._lock:
            for one in self._namespaces if name is None else [name]:
                self._run(lambda store, one=one: store.clear(one.encode()))  # type: ignore[misc]
                counters = self._counters[one]
                counters.entries = counters.size = 0
                counters.used.clear()
            self._run(lambda store: store.compact())
            self.flush()

    def sweep(self) -> Swept:
        """Remove expired entries, count the others, and free the space.

        Raises:
            CorruptDatabase: The store is damaged; it was replaced by an empty one.
        """
        with self._sweeping:
            return self._sweep()

    def is_sweep_due(self) -> bool:
        """Return whether the last sweep was an hour ago."""
        return not 0 <= self._now() - self._swept < _SWEEP_SECONDS

    def position(self) -> bytes | None:
        """Return the position in the change feed that `invalidate` stored last."""
        return self._read(CURSOR)

    def invalidate(self, rows: Iterable[tuple[str, str]] | None, position: bytes) -> int:
        """Remove the entries of changed rows, and store the position in the change feed with it.

        Args:
            rows: Tables, and the first column of the keys of their changed rows; None for all.
            position: The position up to which the feed was read.

        Returns:
            The number of removed entries.
        """
        gone: dict[bytes, Counters] = {}
        with self._lock:
            for name, one in self._namespaces.items():
                if rows is None and one.tables:
                    gone |= dict.fromkeys(
                        (
                            key
                            for key, _ in self._scan(name)
                            if key.partition(b":")[2].startswith(
                                tuple(f"{table}:".encode() for table in one.tables)
                            )
                        ),
                        self._counters[name],
                    )
                elif rows is not None:
                    keys = {
                        f"{name}:{table}:{key}".encode() for table, key in rows
                        if table in one.tables
                    }  # fmt: skip
                    there = (key for key in keys if self._read(key) is not None)
                    gone |= dict.fromkeys(there, self._counters[name])
            self._run(lambda store: store.write({CURSOR: position}, gone))
            for counters in gone.values():
                counters.invalidations += 1
        return len(gone)

    def counters(self) -> dict[str, Counters]:
        """Return the counters of each namespace, which go on counting."""
        return dict(self._counters)

    def in_memory(self) -> KeyValueStore | None:
        """Return the store of bytes if it is only in this process, where nobody else can look."""
        return self._store if isinstance(self._store, MemoryStore) else None

    def flush(self) -> None:
        """Store the counters; those that a full disk does not take are lost as after a crash."""
        with self._lock:
            now = self._now()
            self._calls, self._flushed = 0, now
            ticks = self._store.ticks()
            total = {tick: self._ticks.get(tick, 0) + count for tick, count in ticks.items()}
            puts = {CLOCK: self._clock_record()}
            for name, counters in self._counters.items():
                counters.note_hour(now)
                puts[counters_key(name)] = orjson.dumps(counters.record())
            if ticks:
                puts[ENGINE] = orjson.dumps({"ticks": total, "gauges": self._store.gauges()})
            with contextlib.suppress(DiskFull):
                self._run(lambda store: store.write(puts))

    def close(self) -> None:
        """Store the counters and close the store; a second call does nothing."""
        try:
            with self._lock, contextlib.suppress(ConnectionIsClosed):
                self.flush()
        finally:
            self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return (
            f"<Cache store of {', '.join(self._namespaces)}: .get(KEY), .put(KEY, VALUE), "
            ".delete(KEY), .items(PREFIX), .compare_and_set(KEY, OLD, NEW), .batch()>"
        )

    def _raw(self, key: str, *, empty: bool = False) -> tuple[str, bytes]:
        """Return the namespace and the bytes of a key."""
        if not isinstance(key, str):
            raise InvalidValue(f"A key of the cache is text, not {type(key).__name__}: decode it.")
        name, _, rest = key.partition(":")
        if name not in self._namespaces:
            namespace(name)
        raw = encoded_key(key)
        if len(raw) > LONGEST_KEY or not (rest or empty):
            raise InvalidValue(
                f"A key of the cache is a namespace, a colon and a name of 1 to {LONGEST_KEY:,} "
                "bytes: shorten or complete it."
            )
        return name, raw

    def _entry(self, name: str, value: Any, ttl: float | None, now: float) -> bytes:
        one = self._namespaces[name]
        if ttl is None:
            ttl = one.ttl
        elif isinstance(ttl, bool) or not isinstance(ttl, int | float) or not 0 < ttl <= LONGEST:
            raise InvalidValue(
                "The seconds of an entry are a number above 0 and at most 100 years: give others."
            )
        kind, content = encode(value)
        if len(content) > one.max_value:
            raise InvalidValue(
                f"A value of {len(content):,} bytes is too large for {name!r}: it takes at most "
                f"{one.max_value:,}."
            )
        return pack(kind, content, self._state, now, ttl)

    def _apply(self, batch: CacheBatch) -> None:
        started, now = time.perf_counter_ns(), self._now()
        puts: dict[str, dict[bytes, bytes]] = {}
        for key, (value, ttl) in batch.puts.items():
            name, raw = self._raw(key)
            puts.setdefault(name, {})[raw] = self._entry(name, value, ttl, now)
        deletes = {raw: name for name, raw in map(self._raw, batch.deletes)}
        with self._lock:
            together = {raw: entry for ours in puts.values() for raw, entry in ours.items()}
            self._run(lambda store: store.write(together, deletes))
            for name, ours in puts.items():
                self._count_puts(name, ours, sum(len(raw) + len(ours[raw]) for raw in ours))
        for name in deletes.values():
            self._counters[name].deletes += 1
        for name in {*puts, *deletes.values()}:
            self._counters[name].wrote_in(time.perf_counter_ns() - started)
        self._count_call(now)

    def _count_puts(self, name: str, keys: Collection[bytes], size: int) -> None:
        counters, one = self._counters[name], self._namespaces[name]
        if self._fresh is not None:
            self._fresh.update(keys)
        counters.puts += len(keys)
        counters.entries += len(keys)
        counters.size += size
        if counters.entries > one.max_entries or counters.size > one.max_bytes:
            self._evict(one)

    def _count_call(self, now: float) -> None:
        self._calls += 1
        if self._calls >= _FLUSH_CALLS or now - self._flushed >= _FLUSH_SECONDS:
            self.flush()

    def _now(self) -> float:
        """Return the time, which goes back only together with the epoch."""
        now, state = self._clock(), self._state
        if now >= state.latest:
            state.latest = now
        elif now > state.latest - TOLERANCE:
            return state.latest
        else:
            with self._lock:
                state.epoch += 1
                state.latest = now
                known = self._clock_record()
                self._run(lambda store: store.put(CLOCK, known))
        return now

    def _clock_record(self) -> bytes:
        state = self._state
        return orjson.dumps({"epoch": state.epoch, "latest": state.latest, "swept": self._swept})

    def _read(self, raw: bytes) -> bytes | None:
        found: bytes | None = self._run(lambda store: store.get(raw))
        return found

    def _run(self, call: Callable[[KeyValueStore], Any]) -> Any:
        """Return the result of a call; replace a damaged store, and call again."""
        store = self._store
        try:
            return call(store)
        except CorruptDatabase as damage:
            self._replace(store, damage)
        except ConnectionIsClosed:
            if store is self._store:
                raise
        return call(self._store)

    def _replace(self, damaged: KeyValueStore, damage: CorruptDatabase) -> None:
        """Put an empty store in the place of a damaged one.

        Raises:
            CorruptDatabase: Nothing can replace it.
        """
        with self._lock:
            if damaged is not self._store:  # another thread replaced it
                return
            if self._rebuild is None:
                raise damage
            damaged.close()
            self._store = MemoryStore()  # if the disk takes no other one
            self._store = self._rebuild(str(damage))
            for counters in self._counters.values():
                counters.entries = counters.size = 0
                counters.used.clear()

    def _scan(self, name: str) -> Iterator[tuple[bytes, bytes]]:
        store = self._store
        with contextlib.closing(store.scan(name.encode())) as found:
            try:
                yield from found
            except CorruptDatabase as damage:
                found.close()
                self._replace(store, damage)
                raise

    def _ages(self, name: str) -> Iterator[tuple[bytes, int, bool]]:
        """Yield the keys of a namespace, the bytes of their entries, and whether they are live."""
        now = self._now()
        for key, entry in self._scan(name):
            yield key, len(key) + len(entry), times_of(entry, self._state, now)[2]

    def _sweep(self) -> Swept:
        expired = 0
        for name, counters in self._counters.items():
            before, before_bytes = counters.entries, counters.size
            entries = size = removed = 0
            with self._lock:
                self._fresh = set()
            try:
                found = self._ages(name)
                while batch := list(islice(found, _BATCH)):
                    with self._lock:
                        old = [key for key, _, live in batch if not live and key not in self._fresh]
                        self._run(lambda store, old=old: store.write({}, old))  # type: ignore[misc]
                    removed += len(old)
                    entries += sum(live for _, _, live in batch)
                    size += sum(length for _, length, live in batch if live)
            finally:
                self._fresh = None
            counters.expiries += removed
            counters.entries += entries - before
            counters.size += size - before_bytes
            expired += removed
        if expired:
            self._run(lambda store: store.compact())
        self._swept = self._now()
        self.flush()
        counted = self._counters.values()
        return Swept(expired, sum(one.entries for one in counted), sum(one.size for one in counted))

    def _evict(self, one: Namespace) -> None:
        """Remove the entries that a full namespace loses; those that were used lately go last."""
        counters = self._counters[one.name]
        recent = {key: _USED + place for place, key in enumerate(tuple(counters.used))}
        now = self._now()

        def read() -> Iterator[Placed]:
            for key, entry in self._scan(one.name):
                written, _, live = times_of(entry, self._state, now)
                place = recent.get(key, written) if live else EXPIRED_PLACE
                yield Placed(key, place, len(key) + len(entry))

        gone = choose(read, one)
        self._run(lambda store: store.write({}, gone.keys))
        for key in gone.keys:
            counters.used.pop(key, None)
        counters.entries, counters.size = gone.entries, gone.size
        counters.expiries += gone.expired
        counters.evictions += len(gone.keys) - gone.expired

    def _record(self, key: bytes) -> dict[str, Any]:
        found = self._read(key)
        record: dict[str, Any] = {} if found is None else orjson.loads(found)
        return record
