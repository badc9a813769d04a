"""Search the parts of a database file that no row uses, where deleted rows may still be.

Values are searched by SQL. The bytes of used rows are not searched here: columns have no separators
between them, so that an id `person-1` before the time `2024-…` would look like `person-12`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from aico_lab.adapters.libsql import Connection

_AT_ONCE: Final = 256  # pages
_HEADER: Final = 100  # bytes at the beginning of the first page
_INNER, _LEAVES = (2, 5), (10, 13)
"""The first byte of pages of trees, of indexes and tables."""


class PageHits(NamedTuple):
    """The patterns whose bytes are in the pages of a database.

    Attributes:
        anywhere: Those in any page, even if they only appear where two values meet.
        unused: Those in free pages, or in gaps of used pages.
    """

    anywhere: set[str]
    unused: set[str]


def search_pages(connection: Connection, wanted: Mapping[str, bytes]) -> PageHits:
    """Search all pages of a database for bytes.

    Args:
        connection: A database.
        wanted: The bytes of each pattern.
    """
    free = set(_free_pages(connection))
    hits = PageHits(set(), set())
    for batch in connection.fetch_batches("SELECT pgno, data FROM sqlite_dbpage", size=_AT_ONCE):
        pages = b"".join(bytes(page) for _, page in batch)
        some = {one: content for one, content in wanted.items() if content in pages}
        if not some:
            continue
        hits.anywhere.update(some)
        unused = b"\0".join(
            part
            for number, page in batch
            for part in ([bytes(page)] if number in free else _gaps(bytes(page), number))
        )
        hits.unused.update(one for one, content in some.items() if content in unused)
    return hits


def _free_pages(connection: Connection) -> Iterator[int]:
    """Yield the numbers of the free pages."""
    trunk = int.from_bytes(_page(connection, 1)[32:36])
    seen: set[int] = set()
    while trunk and trunk not in seen:
        seen.add(trunk)
        yield trunk
        page = _page(connection, trunk)
        for place in range(8, 8 + 4 * int.from_bytes(page[4:8]), 4):
            yield int.from_bytes(page[place : place + 4])
        trunk = int.from_bytes(page[:4])


def _page(connection: Connection, number: int) -> bytes:
    row = connection.fetch_one("SELECT data FROM sqlite_dbpage WHERE pgno = ?", [number])
    return b"" if row is None else bytes(row[0])


def _gaps(page: bytes, number: int) -> list[bytes]:
    """Return the parts of a page of a tree that no cell uses; none of other pages."""
    start = _HEADER if number == 1 else 0
    kind = page[start]
    if kind not in (*_INNER, *_LEAVES):
        return []
    after = start + (12 if kind in _INNER else 8) + 2 * _number(page, start + 3)
    gaps = [page[after : _number(page, start + 5) or 65_536]]
    block = _number(page, start + 1)
    while block:  # blocks are in ascending order
        gaps.append(page[block + 4 : block + _number(page, block + 2)])
        following = _number(page, block)
        block = following if following > block else 0
    return gaps


def _number(page: bytes, place: int) -> int:
    return int.from_bytes(page[place : place + 2])
