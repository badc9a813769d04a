"""Counters of the use of one namespace, kept across restarts."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

REMEMBERED: Final = 4_096
"""The number of keys of a namespace whose last use is remembered, and how often they were hit."""

_KEPT_KEYS: Final = 20
_KEPT_HOURS: Final = 7 * 24
_SECONDS: Final = 3_600


@dataclass(slots=True)
class Counters:
    """The use of a namespace since its counters began.

    Threads add to them without a lock, so that a few of many may be lost.

    Attributes:
        hits: Reads that found a value.
        misses: Reads that found none, expired ones among them.
        expiries: Entries that were found or removed after their time.
        evictions: Entries removed because the namespace was full.
        invalidations: Entries removed because their rows changed.
        puts: Values stored.
        deletes: Keys removed by a caller.
        reads: Calls that read.
        read_ns: Their time in ns.
        read_max_ns: The longest one, in ns.
        writes: Calls that wrote.
        write_ns: Their time in ns.
        write_max_ns: The longest one, in ns.
        entries: The number of entries at most: a replaced value counts twice until the next sweep.
        size: Their bytes of keys and entries at most.
        hours: Hits and misses by hour since 1970, the last week of them.
        used: The hits of the keys that were used last, the last one at the end.
    """

    hits: int = 0
    misses: int = 0
    expiries: int = 0
    evictions: int = 0
    invalidations: int = 0
    puts: int = 0
    deletes: int = 0
    reads: int = 0
    read_ns: int = 0
    read_max_ns: int = 0
    writes: int = 0
    write_ns: int = 0
    write_max_ns: int = 0
    entries: int = 0
    size: int = 0
    hours: dict[str, list[int]] = field(default_factory=dict)
    used: OrderedDict[bytes, int] = field(default_factory=OrderedDict)
    _noted: tuple[int, int] = (0, 0)

    def hit(self, key: bytes) -> None:
        """Count a read that found the value of a key."""
        self.hits += 1
        used = self.used
        used[key] = used.pop(key, 0) + 1
        if len(used) > REMEMBERED:
            used.popitem(last=False)

    def read_took(self, nanoseconds: int) -> None:
        """Count a call that read."""
        self.reads += 1
        self.read_ns += nanoseconds
        self.read_max_ns = max(self.read_max_ns, nanoseconds)

    def wrote_in(self, nanoseconds: int) -> None:
        """Count a call that wrote."""
        self.writes += 1
        self.write_ns += nanoseconds
        self.write_max_ns = max(self.write_max_ns, nanoseconds)

    def note_hour(self, now: float) -> None:
        """Add the hits and misses since the last call to those of this hour."""
        hits, misses = self.hits - self._noted[0], self.misses - self._noted[1]
        self._noted = self.hits, self.misses
        if hits or misses:
            of_hour = self.hours.setdefault(str(int(now // _SECONDS)), [0, 0])
            of_hour[0] += hits
            of_hour[1] += misses
            for old in sorted(self.hours)[:-_KEPT_HOURS]:
                del self.hours[old]

    def hottest(self) -> dict[str, int]:
        """Return the keys with the most hits among those that were used last."""
        used = sorted(self.used.items(), key=lambda item: -item[1])[:_KEPT_KEYS]
        return {key.decode(errors="replace"): hits for key, hits in used}

    def record(self) -> dict[str, Any]:
        """Return the counters as JSON; `restore` is the inverse, but for the last used keys."""
        return {**{name: getattr(self, name) for name in _NUMBERS}, "hours": self.hours,
                "hottest": self.hottest()}  # fmt: skip

    @classmethod
    def restore(cls, record: Mapping[str, Any]) -> Counters:
        """Return the counters of a record."""
        found = cls(**{name: record.get(name, 0) for name in _NUMBERS})
        found.hours = {hour: list(counts) for hour, counts in record.get("hours", {}).items()}
        hottest = reversed(record.get("hottest", {}).items())
        found.used = OrderedDict((key.encode(), hits) for key, hits in hottest)
        found._noted = found.hits, found.misses
        return found


_NUMBERS: Final = (
    "hits", "misses", "expiries", "evictions", "invalidations", "puts", "deletes", "reads",
    "read_ns", "read_max_ns", "writes", "write_ns", "write_max_ns", "entries", "size",
)  # fmt: skip
