"""Choose the entries that a full namespace loses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aico_lab.cache.namespaces import Namespace

SPARED: Final = 0.9
"""The share of a limit to which a full namespace shrinks."""

EXPIRED_PLACE: Final = -1.0
"""The place of an expired entry, before all others."""


class Placed(NamedTuple):
    """An entry in the order of eviction.

    Attributes:
        key: The key.
        place: Entries with lower numbers go first.
        size: The bytes of key and entry.
    """

    key: bytes
    place: float
    size: int


@dataclass(frozen=True, slots=True)
class Evicted:
    """The entries that go.

    Attributes:
        keys: Their keys.
        expired: The number of them that had expired.
        entries: The number of entries that stay.
        size: The bytes of those that stay.
    """

    keys: list[bytes]
    expired: int
    entries: int
    size: int


def choose(read: Callable[[], Iterator[Placed]], limits: Namespace) -> Evicted:
    """Return all expired entries, and the first ones beyond nine tenths of a limit.

    The entries are read twice: first for their places, 16 bytes each, then for the keys up to the
    last place that goes.

    Args:
        read: Reads all entries of the namespace, the same ones each time.
        limits: The namespace.
    """
    import numpy as np

    order = np.fromiter(
        ((one.place, one.size) for one in read()), dtype=[("place", "f8"), ("size", "i8")]
    )
    order.sort(order="place")
    entries, size = len(order), int(order["size"].sum())
    count = int((order["place"] == EXPIRED_PLACE).sum())
    if entries - count > limits.max_entries or size > limits.max_bytes:
        left = entries - np.arange(1, entries + 1)
        left_size = size - np.cumsum(order["size"])
        enough = (left <= SPARED * limits.max_entries) & (left_size <= SPARED * limits.max_bytes)
        count = max(count, int(np.argmax(enough)) + 1)
    if not count:
        return Evicted([], 0, entries, size)
    last = float(order["place"][count - 1])
    tied = count - int((order["place"] < last).sum())  # those at the last place that go
    keys, freed, expired = [], 0, 0
    for key, place, length in read():
        if place < last or (place == last and tied > 0):
            tied -= place == last
            keys.append(key)
            freed += length
            expired += place == EXPIRED_PLACE
    return Evicted(keys, expired, entries - len(keys), size - freed)
