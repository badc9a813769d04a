"""Find out whether pages that differ from the seal were written by another program.

Another program that has the key writes rows, and the change feed names them. So if the file is
sound, and every row that the feed does not name is as it was when the warehouse copied it, such
pages hold only what was written. The warehouse's files are authenticated. Before the first sync
there is nothing to compare with, and a sound file is accepted.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aico_lab.adapters.libsql_errors import SHOWN, on_one_line
from aico_lab.adapters.sql_text import folded, quoted, tokens
from aico_lab.errors import AicoLabError, NeverSynced, NotPermitted, StorageError
from aico_lab.etl.verify import verify
from aico_lab.schema import feed, versions
from aico_lab.schema.core import CORE

if TYPE_CHECKING:
    from collections.abc import Collection

    from aico_lab.adapters.libsql import Connection
    from aico_lab.adapters.libsql_seal import PageSeal
    from aico_lab.etl.reader import Reader

SCHEMA: Final = "the schema"
"""The name of the pages that define tables; the first one is also the header of the file."""

SHADOWS: Final = ("_data", "_idx", "_docsize", "_config")
"""The ends of names of the tables of a full-text index, which checks itself."""


@dataclass(frozen=True, slots=True)
class PageReview:
    """The outcome of a review.

    Attributes:
        pages: The number of pages by table or index; '' for free pages, 'the schema' for that.
        unexplained: The reasons why the pages may be damaged; none if a program wrote them.
    """

    pages: dict[str, int]
    unexplained: tuple[str, ...]

    def describe(self) -> str:
        """Return a one-line description."""
        where = ", ".join(
            f"{count:,} of {name or 'no table'}" for name, count in sorted(self.pages.items())
        )
        total = sum(self.pages.values())
        pages = f"{total:,} {'page' if total == 1 else 'pages'} changed: {where}" if total else ""
        return "; ".join(filter(None, [pages, *self.unexplained]))


def review(
    primary: Connection, reader: Reader, seal: PageSeal, numbers: Collection[int]
) -> PageReview:
    """PageReview pages of the primary database that differ from the seal.

    Args:
        primary: A connection to the database that is in no transaction.
        reader: Reads the newest snapshot.
        seal: The seal of the primary database.
        numbers: The pages.
    """
    try:
        foreign = seal.is_foreign
        unsound = find_unsoundness(primary)
        pages = _owners(primary, numbers)
        tracked = feed.tracked_tables(primary)
        indexes: dict[str, str] = dict(
            primary.fetch_all("SELECT name, tbl_name FROM sqlite_master WHERE type = 'index'")
        )
        full_text = _full_text_indexes(primary)
        explained = {*indexes, *(f"{t}{end}" for t in full_text for end in SHADOWS)}
        explained |= {"", "sqlite_sequence", *_written_by_triggers(primary)}
        if seal.has_schema_of(primary):
            explained.add(SCHEMA)
        if foreign:  # such as an earlier version of this one, or one that moved its log
            explained |= _own_tables(primary) - tracked.keys()
    except StorageError as error:
        return PageReview({"unreadable pages": len(numbers)}, (str(error).rstrip("."),))
    reasons = [unsound] if unsound else []
    if not foreign:
        reasons.append("no program has recorded a change")
    if rows := tracked.keys() & pages.keys():
        reasons += _differing(primary, reader, rows)
        explained |= rows
    reasons += [
        f"no record of changes is kept of {name}" for name in sorted(pages.keys() - explained)
    ]
    return PageReview(pages, tuple(reasons))


def _own_tables(primary: Connection) -> set[str]:
    """Return the tables of this package, some of which have no triggers for the change feed."""
    statements = [
        *feed.TABLES,
        *versions.BOOKKEEPING,
        *(one for schema in CORE for version in schema.versions.values()
          for one in version.sql_statements),
    ]  # fmt: skip
    words = {folded(word) for statement in statements for word in tokens(statement)}
    tables = primary.fetch_all("SELECT name FROM sqlite_master WHERE type = 'table'")
    return {name for (name,) in tables if folded(name) in words}


def find_unsoundness(primary: Connection) -> str | None:
    """Return the first fault of the file's structure, its indexes or references; None if sound."""
    found = primary.fetch_all("PRAGMA integrity_check(1)")
    if found != [("ok",)]:
        return on_one_line(found[0][0])[:SHOWN]
    if primary.fetch_all("PRAGMA foreign_key_check"):
        return "rows refer to rows that do not exist"
    for table in _full_text_indexes(primary):
        name = quoted(table)
        try:
            with primary.transaction():
                primary.execute(f"INSERT INTO {name} ({name}) VALUES ('integrity-check')")
        except NotPermitted:  # a home that cannot be written
            return None
        except StorageError:
            return f"the full-text index {table} is damaged"
    return None


def _written_by_triggers(primary: Connection) -> set[str]:
    """Return the tables that triggers name, such as that of the change feed."""
    triggers = primary.fetch_all("SELECT sql FROM sqlite_master WHERE type = 'trigger'")
    words = {folded(word) for (sql,) in triggers for word in tokens(sql)}
    tables = primary.fetch_all("SELECT name FROM sqlite_master WHERE type = 'table'")
    return {name for (name,) in tables if folded(name) in words}


def _full_text_indexes(primary: Connection) -> list[str]:
    return [
        name
        for (name,) in primary.fetch_all(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND sql LIKE '%USING fts5%'"
        )
    ]


def _owners(primary: Connection, numbers: Collection[int]) -> dict[str, int]:
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
    return dict(Counter(named.get(number, "") for number in numbers))


def _differing(primary: Connection, reader: Reader, tables: Collection[str]) -> list[str]:
    """Return a reason for each table whose rows are not those of the newest snapshot."""
    try:
        proof = verify(primary, reader)
    except NeverSynced:  # nothing was copied that a damage could differ from
        return []
    except AicoLabError as error:
        return [f"the rows cannot be compared with the warehouse ({str(error).rstrip('.')})"]
    return [
        f"of {table}, {proof.tables[table].differing:,} rows are not those that were synced, and "
        "no change of them was recorded"
        for table in sorted(tables)
        if table in proof.tables and not proof.tables[table].ok
    ]
