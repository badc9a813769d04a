"""The namespaces of the cache: what each holds, for how long, and how much of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from aico_lab.errors import UnknownName, did_you_mean

HOUR: Final = 3_600
DAY: Final = 24 * HOUR
KB: Final = 1 << 10
MB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Namespace:
    """A domain of hot state.

    Attributes:
        name: The part of its keys before the first colon.
        holds: What it holds, in a few words.
        ttl: Seconds for which an entry is valid, unless `put` is given others.
        max_entries: The most entries; beyond it the least recently used ones are evicted.
        max_bytes: The most bytes of keys and stored values, in the same way.
        max_value: The most bytes of one encoded value, before it is compressed.
        tables: The tables whose changes invalidate entries: a changed row removes the entry whose
            key is the table and the first column of the row's key, such as `users:ada`.
    """

    name: str
    holds: str
    ttl: float
    max_entries: int
    max_bytes: int
    max_value: int = MB
    tables: tuple[str, ...] = ()


NAMESPACES: Final = {
    one.name: one
    for one in (
        Namespace(
            "session",
            "the context of conversations: last turns, retrieved memories",
            ttl=DAY,
            max_entries=50_000,
            max_bytes=64 * MB,
        ),
        Namespace(
            "configuration",
            "people, profiles and preferences that are read often",
            ttl=7 * DAY,
            max_entries=100_000,
            max_bytes=32 * MB,
            max_value=256 * KB,
            tables=("users", "user_profiles", "preferences"),
        ),
        Namespace(
            "recent",
            "what people did of late",
            ttl=HOUR,
            max_entries=100_000,
            max_bytes=32 * MB,
        ),
        Namespace(
            "computed",
            "results that take long to compute, such as vectors of queries",
            ttl=30 * DAY,
            max_entries=2_000_000,
            max_bytes=512 * MB,
            max_value=16 * MB,
        ),
        Namespace(
            "queue",
            "marks of delivered messages, to skip those that are delivered again",
            ttl=2 * DAY,
            max_entries=200_000,
            max_bytes=32 * MB,
            max_value=64 * KB,
        ),
    )
}
"""The five domains of the data layer's document, by name."""


def namespace(name: str) -> Namespace:
    """Return a namespace by its name.

    Raises:
        UnknownName: There is no such namespace.
    """
    try:
        return NAMESPACES[name]
    except KeyError:
        have = f": begin the key with one of {', '.join(NAMESPACES)}, and a colon."
        raise UnknownName(
            f"The cache has no namespace {name!r}{did_you_mean(name, NAMESPACES, have)}"
        ) from None
