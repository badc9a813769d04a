"""Find out whether pages that differ from the seal are damaged.

Another program that has the key writes pages that can be decrypted and fit together, and the change
feed names the rows. So damage is what breaks the structure of the file or an index, and a row that
differs from the warehouse, whose files are authenticated, though the feed does not name it. All
else is accepted, but told: also what nothing can be compared with, such as the pages of a table
without a feed.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aico_lab.adapters.libsql_errors import SHOWN, on_one_line
from aico_lab.adapters.sql_text import quoted, shown
from aico_lab.errors import AicoLabError, NeverSynced, NotPermitted, StorageError
from aico_lab.etl.verify import verify
from aico_lab.integrity.guard import UNCOMPARED
from aico_lab.schema import feed

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from aico_lab.adapters.libsql import Connection
    from aico_lab.adapters.libsql_seal import PageSeal
    from aico_lab.etl.reader import Reader

SCHEMA: Final = "the schema"
"""The name of the pages that define tables; the first one is also the header of the file."""

FEW: Final = 3
"""The maximum number of names in a list of a description."""

NOWHERE: Final = "rows that do not exist"

_OF_THE_FEED: Final = ("change_log", "sqlite_sequence")
"""The tables of the feed itself: if an entry is gone, its row differs without a recorded change."""

SHADOWS: Final = ("_data", "_idx", "_docsize", "_config")
"""The ends of names of the tables of a full-text index, which checks itself."""


@dataclass(frozen=True, slots=True)
class PageReview:
    """The outcome of a review.

    Attributes:
        pages: The number of pages by table, indexes included; '' for free pages, 'the schema' for
            that.
        damage: What is damaged; none if a program with the key may have written the pages.
        uncompared: What nothing could be compared with.
    """

    pages: dict[str, int]
    damage: tuple[str, ...] = ()
    uncompared: tuple[str, ...] = ()

    def describe(self) -> str:
        """Return a one-line description."""
        total = sum(self.pages.values())
        pages = f"{total:,} {'page' if total == 1 else 'pages'}"
        if self.uncompared and not self.damage:
            return f"{pages}; {UNCOMPARED}: {_few(self.uncompared)}"
        most = sorted(self.pages.items(), key=lambda one: (-one[1], one[0]))
        where = _few([f"{count:,} of {shown(name) or 'no table'}" for name, count in most])
        if self.damage:
            return "; ".join([f"{pages}: {where}", _few(self.damage, "; ")])
        return f"{pages}: {where}; every row is as it was synced, or recorded as changed since"


def review(
    primary: Connection, reader: Reader, seal: PageSeal, numbers: Collection[int]
) -> PageReview:
    """Review pages of the primary database that differ from the seal.

    Args:
        primary: A connection to the database that is in no transaction.
        reader: Reads the newest snapshot.
        seal: The seal of the primary database.
        numbers: The pages.
    """
    try:
        unsound = _broken_structure(primary)
        owners = _owners(primary, numbers)
        indexed: dict[str, str] = dict(
            primary.fetch_all("SELECT name, tbl_name FROM sqlite_master WHERE type = 'index'")
        )
        pages = dict(Counter(indexed.get(name, name) for name in owners.elements()))
        if unsound:
            return PageReview(pages, (unsound,))
        tracked = feed.tracked_tables(primary)
        compared = indexed.keys() | tracked.keys() | {"", *_OF_THE_FEED}
        compared |= {f"{t}{end}" for t in _full_text_indexes(primary) for end in SHADOWS}
        if seal.has_schema_of(primary):
            compared.add(SCHEMA)
        uncompared = [shown(name) for name in sorted(owners.keys() - compared)]
        if primary.fetch_all("PRAGMA foreign_key_check"):
            uncompared.insert(0, f"rows that refer to {NOWHERE}")
    except StorageError as error:
        if error.transient:
            raise
        return PageReview({"unreadable tables": len(numbers)}, (str(error).rstrip("."),))
    damage, rows = _differing(primary, reader, tracked.keys() & owners.keys())
    return PageReview(pages, tuple(damage), (*rows, *uncompared))


def find_unsoundness(primary: Connection) -> str | None:
    """Return the first fault of the file's structure, its indexes or references; None if sound."""
    if primary.fetch_all("PRAGMA foreign_key_check"):
        return f"rows refer to {NOWHERE}"
    return _broken_structure(primary)


def _broken_structure(primary: Connection) -> str | None:
    """Return the first fault of the file's structure or of its indexes; None if sound."""
    found = primary.fetch_all("PRAGMA integrity_check(1)")
    if found != [("ok",)]:
        return on_one_line(found[0][0])[:SHOWN]
    for table in _full_text_indexes(primary):
        name = quoted(table)
        try:
            with primary.transaction():
                primary.execute(f"INSERT INTO {name} ({name}) VALUES ('integrity-check')")
        except NotPermitted:  # a home that cannot be written
            return None
        except StorageError:
            return f"the full-text index {shown(table)} is damaged"
    return None


def _full_text_indexes(primary: Connection) -> list[str]:
    return [
        name
        for (name,) in primary.fetch_all(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND sql LIKE '%USING fts5%'"
        )
    ]


def _owners(primary: Connection, numbers: Collection[int]) -> Counter[str]:
    """Return the number of the pages by table or index."""
    named: dict[int, str] = dict(
        primary.fetch_all(
            "SELECT pageno, name FROM dbstat WHERE pageno IN (SELECT value FROM json_each(?))",
            [json.dumps(sorted(numbers))],
        )
    )
    named = {
        number: SCHEMA if name in ("sqlite_schema", "sqlite_master") else name
        for number, name in named.items()
    }
    return Counter(named.get(number, "") for number in numbers)


def _few(names: Sequence[str], between: str = ", ") -> str:
    """Return the first names as text, and the number of the others."""
    more = len(names) - FEW
    others = f" and {more:,} {'other' if more == 1 else 'others'}" if more > 0 else ""
    return between.join(names[:FEW]) + others


def _differing(
    primary: Connection, reader: Reader, tables: set[str]
) -> tuple[list[str], list[str]]:
    """Compare the rows of tables with the newest snapshot.

    Returns:
        A reason for each table with rows that were changed by no program, and what nothing could be
        compared with.
    """
    if not tables:
        return [], []
    named = _few([shown(table) for table in sorted(tables)])
    try:
        proof = verify(primary, reader)
    except NeverSynced:
        return [], [f"{named}, without a warehouse"]
    except AicoLabError as error:
        return [], [f"{named} ({str(error).rstrip('.')})"]
    compared = {table: proof.tables[table] for table in sorted(tables) if table in proof.tables}
    damage = [
        f"of {shown(table)}, {one.differing:,} rows are not those that were synced, and no change "
        "of them was recorded"
        for table, one in compared.items()
        if one.differing
    ]
    others = [table for table, one in compared.items() if not one.ok and not one.differing]
    return damage, [shown(table) for table in others + sorted(tables - compared.keys())]
