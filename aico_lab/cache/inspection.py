"""Look into the cache: what is in it, how old, how large, how often used, and what RocksDB does.

Everything is read from links to RocksDB's files, which disturbs no process that writes the cache.
Its entries are read once, and only sums are kept, so that memory does not depend on their number.
"""

from __future__ import annotations

import contextlib
import heapq
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import orjson

from aico_lab.cache.counters import Counters
from aico_lab.cache.entries import EXPIRED, CacheTime, times_of, value_of
from aico_lab.cache.namespaces import NAMESPACES, namespace
from aico_lab.cache.typed import CLOCK, ENGINE, counters_key, encoded_key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aico_lab.cache.store import KeyValueStore

LARGEST: Final = 10
"""The number of largest keys of a namespace."""

_NAMED: Final = 3

SPANS: Final = {"1 min": 60.0, "1 h": 3_600.0, "1 d": 86_400.0, "7 d": 604_800.0}
"""The ends of the classes of ages and remaining times; a last class is longer."""

LONGER: Final = "longer"
EXPIRED_CLASS: Final = "expired"

NOT_KNOWN: Final = (
    "read and write amplification of a single level",
    "hits of the Bloom filter and the block cache of a single level",
    "the time until which a single table is compacted",
)
"""Measures of RocksDB that rocksdict does not return."""


@dataclass(frozen=True, slots=True)
class NamespaceUse:
    """The contents and the use of a namespace.

    Attributes:
        name: The namespace.
        holds: What it is for.
        entries: The number of entries, expired ones included.
        bytes: Their bytes of keys and stored values.
        ages: The number of entries by the time since they were written.
        left: The number of entries by the time until they expire.
        largest: The largest keys and the bytes of their entries.
        hottest: The keys with the most hits among those that were used last.
        hit_rate: The share of reads that found a value; None without reads.
        hours: Hits and misses by hour (UTC), the last week of them.
        counters: The counters; times in ns.
    """

    name: str
    holds: str
    entries: int
    bytes: int
    ages: dict[str, int]
    left: dict[str, int]
    largest: dict[str, int]
    hottest: dict[str, int]
    hit_rate: float | None
    hours: dict[str, tuple[int, int]]
    counters: dict[str, int]

    def details(self) -> list[str]:
        """Return ages, remaining times, and the first of the largest and hottest keys as lines."""
        found = {
            "written within": _first(self.ages),
            "valid for": _first(self.left),
            "largest (bytes)": _first(dict(list(self.largest.items())[:_NAMED])),
            "hottest (hits)": _first(dict(list(self.hottest.items())[:_NAMED])),
        }
        return [f"  {name:<17}{said}" for name, said in found.items() if said]


@dataclass(frozen=True, slots=True)
class LevelUse:
    """The tables of a level of RocksDB.

    Attributes:
        level: The level; the newest tables are in level 0.
        files: The number of tables.
        bytes: Their bytes.
        entries: The entries in them, replaced and removed ones included.
        tombstones: The marks of removed entries among these.
    """

    level: int
    files: int
    bytes: int
    entries: int
    tombstones: int


@dataclass(frozen=True, slots=True)
class EngineUse:
    """The work of RocksDB; ratios are None while nothing is counted.

    Attributes:
        space_amplification: Bytes of all tables divided by those of live entries.
        write_amplification: Bytes written into tables divided by those that the program wrote.
        read_amplification: The number of places that a read of an absent key may look at.
        bloom_useful: The share of the filter's answers about absent keys that spared a read.
        block_cache_hit_rate: The share of blocks that were in memory.
        block_cache_bytes: The bytes in the block cache of the process that writes.
        pending_compaction_bytes: The bytes that compactions still have to rewrite.
        memtable_bytes: The bytes that are only in the log and in memory.
        ticks: RocksDB's own counters since the cache was created.
    """

    space_amplification: float | None
    write_amplification: float | None
    read_amplification: int
    bloom_useful: float | None
    block_cache_hit_rate: float | None
    block_cache_bytes: int | None
    pending_compaction_bytes: int | None
    memtable_bytes: int | None
    ticks: dict[str, int]


@dataclass(frozen=True, slots=True)
class Inspection:
    """The state of a cache.

    Attributes:
        namespaces: The namespaces.
        levels: The levels of RocksDB that have tables.
        engine: What RocksDB does.
        not_known: What cannot be told.
        seconds: The seconds that the look took.
    """

    namespaces: tuple[NamespaceUse, ...]
    levels: tuple[LevelUse, ...]
    engine: EngineUse
    not_known: tuple[str, ...]
    seconds: float

    def __repr__(self) -> str:
        lines = [
            f"{'namespace':<15}{'entries':>11}{'MB':>9}{'expired':>10}{'hit rate':>10}{'puts':>11}"
        ]
        for one in self.namespaces:
            rate = "–" if one.hit_rate is None else f"{one.hit_rate:.0%}"  # noqa: RUF001
            lines.append(
                f"{one.name:<15}{one.entries:>11,}{one.bytes / 1e6:>9,.2f}"
                f"{one.left[EXPIRED_CLASS]:>10,}{rate:>10}{one.counters['puts']:>11,}"
            )
        for one in self.namespaces:
            if one.entries:
                lines += ["", one.name, *one.details()]
        lines += ["", f"{'level':<15}{'entries':>11}{'MB':>9}{'files':>10}{'removed':>10}"]
        lines += [
            f"{one.level:<15}{one.entries:>11,}{one.bytes / 1e6:>9,.2f}{one.files:>10,}"
            f"{one.tombstones:>10,}"
            for one in self.levels
        ]
        engine = self.engine
        lines += [
            "",
            f"space amplification {_ratio(engine.space_amplification)}",
            f"write amplification {_ratio(engine.write_amplification)}",
            f"read amplification {engine.read_amplification}",
            f"Bloom filter useful {_percent(engine.bloom_useful)}",
            f"blocks found in memory {_percent(engine.block_cache_hit_rate)}",
        ]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class EntryUse:
    """One entry.

    Attributes:
        key: The key.
        bytes: The bytes of key and stored value.
        written: When it was written.
        expires: Until when it lives.
        expired: Whether it has expired.
        value: The value, or its kind and size unless it was asked for; None if it has expired.
    """

    key: str
    bytes: int
    written: datetime
    expires: datetime
    expired: bool
    value: Any


def describe(store: KeyValueStore) -> Inspection:
    """Read a whole store of bytes, and return what it holds and how it is used.

    Raises:
        CorruptDatabase: The store is damaged: no answer is shorter than it should be.
    """
    started = time.perf_counter()
    clock, now = _clock(store)
    found = {name: _Sums() for name in NAMESPACES}
    by_name = {name.encode(): sums for name, sums in found.items()}
    with contextlib.closing(store.scan()) as entries:
        for key, entry in entries:
            sums = by_name.get(key[: key.find(b":")])
            if sums is not None:
                sums.add(key, entry, clock, now)
    used = tuple(_used(store, name, sums) for name, sums in found.items())
    levels = tuple(_levels(store))
    return Inspection(
        used, levels, _engine(store, levels), NOT_KNOWN, time.perf_counter() - started
    )


def entries_of(
    store: KeyValueStore, prefix: str, limit: int, *, content: bool
) -> tuple[list[EntryUse], int]:
    """Return the first entries whose keys begin with a prefix, by key, and the number of all.

    Args:
        store: The store of bytes.
        prefix: The beginning of the keys: of one namespace if it has a colon, else of all.
        limit: The most entries to return.
        content: Show the values.

    Raises:
        UnknownName: No namespace begins like this.
    """
    name, colon, _ = prefix.partition(":")
    if colon or not any(one.startswith(name) for one in NAMESPACES):
        namespace(name)
    clock, now = _clock(store)
    count = 0

    def matching() -> Iterator[tuple[bytes, bytes]]:
        nonlocal count
        for key, entry in scanned:
            if key.startswith(raw) and key[: key.find(b":")].decode() in NAMESPACES:
                count += 1
                yield key, entry

    raw = encoded_key(prefix)
    with contextlib.closing(store.scan(name.encode() if colon else None)) as scanned:
        first = heapq.nsmallest(limit, matching())
    return [_entry(key, entry, clock, now, content=content) for key, entry in first], count


def entry_of(store: KeyValueStore, key: str, *, content: bool) -> EntryUse | None:
    """Return one entry, also an expired one; None if there is none.

    Raises:
        UnknownName: The key begins with no namespace.
    """
    namespace(key.partition(":")[0])
    clock, now = _clock(store)
    raw = encoded_key(key)
    entry = store.get(raw)
    return None if entry is None else _entry(raw, entry, clock, now, content=content)


class _Sums:
    """Sums over the entries of a namespace."""

    def __init__(self) -> None:
        self.entries = 0
        self.bytes = 0
        self.ages = dict.fromkeys([*SPANS, LONGER], 0)
        self.left = dict.fromkeys([EXPIRED_CLASS, *SPANS, LONGER], 0)
        self.largest: list[tuple[int, bytes]] = []

    def add(self, key: bytes, entry: bytes, clock: CacheTime, now: float) -> None:
        written, expires, live = times_of(entry, clock, now)
        size = len(key) + len(entry)
        self.entries += 1
        self.bytes += size
        self.ages[_span(now - written)] += 1
        self.left[_span(expires - now) if live else EXPIRED_CLASS] += 1
        if len(self.largest) < LARGEST:
            heapq.heappush(self.largest, (size, key))
        elif size > self.largest[0][0]:
            heapq.heapreplace(self.largest, (size, key))


def _span(seconds: float) -> str:
    for name, end in SPANS.items():
        if seconds < end:
            return name
    return LONGER


def _clock(store: KeyValueStore) -> tuple[CacheTime, float]:
    known = _record(store, CLOCK)
    clock = CacheTime(known.get("epoch", 0), known.get("latest", 0.0))
    return clock, max(time.time(), clock.latest)


def _record(store: KeyValueStore, key: bytes) -> dict[str, Any]:
    found = store.get(key)
    record: dict[str, Any] = {} if found is None else orjson.loads(found)
    return record


def _used(store: KeyValueStore, name: str, sums: _Sums) -> NamespaceUse:
    record = _record(store, counters_key(name))
    counters = Counters.restore(record)
    reads = counters.hits + counters.misses
    hours = {
        f"{datetime.fromtimestamp(int(hour) * 3_600, UTC):%Y-%m-%d %H:00}": (hits, misses)
        for hour, (hits, misses) in sorted(counters.hours.items())
    }
    return NamespaceUse(
        name,
        NAMESPACES[name].holds,
        sums.entries,
        sums.bytes,
        sums.ages,
        sums.left,
        {key.decode(): size for size, key in sorted(sums.largest, reverse=True)},
        counters.hottest(),
        counters.hits / reads if reads else None,
        hours,
        {name: value for name, value in counters.record().items() if isinstance(value, int)},
    )


def _levels(store: KeyValueStore) -> Iterator[LevelUse]:
    files = store.live_files()
    for level in sorted({file["level"] for file in files}):
        ours = [file for file in files if file["level"] == level]
        yield LevelUse(
            level,
            len(ours),
            sum(file["size"] for file in ours),
            sum(file["num_entries"] for file in ours),
            sum(file["num_deletions"] for file in ours),
        )


def _engine(store: KeyValueStore, levels: tuple[LevelUse, ...]) -> EngineUse:
    record = _record(store, ENGINE)
    ticks: dict[str, int] = record.get("ticks", {})
    gauges: dict[str, int] = record.get("gauges", {})

    def tick(name: str) -> int:
        return ticks.get(name, 0)

    written = tick("flush.write.bytes") + tick("compact.write.bytes")
    tables = sum(level.bytes for level in levels)
    useful = tick("bloom.filter.useful")
    wrong = tick("bloom.filter.full.positive") - tick("bloom.filter.full.true.positive")
    hits, misses = tick("block.cache.hit"), tick("block.cache.miss")
    return EngineUse(
        _divided(tables, store.gauges().get("estimate-live-data-size", 0)),
        _divided(written, tick("bytes.written")) if written else None,
        sum(level.files if level.level == 0 else 1 for level in levels),
        _divided(useful, useful + wrong),
        _divided(hits, hits + misses),
        gauges.get("block-cache-usage"),
        gauges.get("estimate-pending-compaction-bytes"),
        gauges.get("cur-size-all-mem-tables"),
        {name: count for name, count in ticks.items() if count},
    )


def _entry(key: bytes, entry: bytes, clock: CacheTime, now: float, *, content: bool) -> EntryUse:
    written, expires, live = times_of(entry, clock, now)
    value = value_of(entry, clock, now)
    return EntryUse(
        key.decode(),
        len(key) + len(entry),
        datetime.fromtimestamp(written, UTC),
        datetime.fromtimestamp(expires, UTC),
        not live,
        None if value is EXPIRED else value if content else _masked(value),
    )


def _masked(value: Any) -> str:
    """Return the kind and the size of a value."""
    for type_, kind in _KINDS.items():
        if isinstance(value, type_):
            return kind.format(len(value))
    return "true or false" if isinstance(value, bool) else "null" if value is None else "number"


_KINDS: Final = {
    dict: "object of {:,} fields",
    list: "list of {:,}",
    str: "text of {:,} characters",
    bytes: "{:,} bytes",
}


def _first(counts: dict[str, int]) -> str:
    return ", ".join(f"{name}: {count:,}" for name, count in counts.items() if count)


def _divided(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None


def _ratio(ratio: float | None) -> str:
    return "–" if ratio is None else f"{ratio:.1f}"  # noqa: RUF001 - a dash, as in tables


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.0%}"  # noqa: RUF001 - a dash, as in tables
