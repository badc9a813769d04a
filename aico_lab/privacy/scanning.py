"""Search the decrypted stores for what was erased."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aico_lab.adapters import duckdb as duckdb_adapter
from aico_lab.adapters.sql_text import escaped, quoted, shown
from aico_lab.backup.records import known_backups
from aico_lab.cache.store import open_for_reading
from aico_lab.errors import AicoLabError, LibraryMissing
from aico_lab.etl.snapshots import published
from aico_lab.federation.syncing import Federation
from aico_lab.privacy.deleting import count_events
from aico_lab.privacy.patterns import IDS, SAME
from aico_lab.privacy.selecting import LATE_ANSWERS, drop, select_again
from aico_lab.privacy.stores import count_runs, is_sealed, own_files
from aico_lab.privacy.unused_space import search_pages
from aico_lab.schema.backup import backups_of, other_copies

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aico_lab.adapters.libsql import Connection
    from aico_lab.home.folder import Home
    from aico_lab.privacy.patterns import Patterns
    from aico_lab.storage import Storage

_TEXT: Final = ("", "TEXT", "CHAR", "CLOB", "JSON", "BLOB")
_GONE: Final = {
    "user_id": "gone_users", "other": "gone_users", "channel_id": "gone_channels",
    "conversation_id": "gone_conversations", "message_id": "gone_messages",
    "reply_to": "gone_messages",
}  # fmt: skip
_OWN: Final = ("raw", "quarantine", "mart", "meta")
"""The schemas of the warehouse that hold what the primary database holds."""


@dataclass(slots=True)
class Scan:
    """The result of a search of all stores.

    Attributes:
        found: The number of ids and texts that are still in a store although they should not be.
        left: A sentence for each place outside of what an erasure reaches that still has some.
        counts: The numbers of these places by kind.
        mentioned: Ids and texts that rows of others have in their own texts.
    """

    found: dict[str, int] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    mentioned: int = 0

    def leave(self, kind: str, sentence: str) -> None:
        """Add a place that an erasure does not reach."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        self.left.append(sentence)


def scan(storage: Storage, primary: Connection, patterns: Patterns) -> Scan:
    """Search every store of a home.

    Args:
        storage: The opened home.
        primary: The primary database.
        patterns: What was erased.
    """
    result = Scan()
    hits = search_pages(primary, patterns.in_bytes())
    result.found["aico.db"] = (
        rows_left(primary, patterns) + count_runs(primary, patterns) + len(hits.unused)
    )
    live = _live(primary, hits.anywhere) if hits.anywhere else set()
    result.mentioned = len(live)
    _scan_warehouse(storage, patterns, live, result)
    _scan_cache(storage, patterns, result)
    scan_files(storage, patterns, result)
    _scan_bundles(storage, patterns, result)
    scan_backups(storage, primary, patterns, result)
    return result


def rows_left(primary: Connection, patterns: Patterns) -> int:
    """Return the number of rows that an erasure deletes, and that others may have written since."""
    select_again(primary, patterns)
    ((answers,),) = primary.fetch_all(f"SELECT count(*) FROM ({LATE_ANSWERS})")
    rows = _rows(primary) + count_events(primary) + int(answers)
    drop(primary)
    return rows


def _live(primary: Connection, patterns: set[str]) -> set[str]:
    """Return those of some patterns that rows of others have within their own values."""
    named = json.dumps(sorted(patterns))
    found: set[str] = set()
    for table, columns in _columns(primary).items():
        if table == "change_log":  # keys of rows, not texts
            continue
        has = " OR ".join(f"instr({quoted(column)}, p.value)" for column in columns)
        found.update(
            one
            for (one,) in primary.fetch_all(
                f"SELECT p.value FROM json_each(?) AS p WHERE EXISTS "
                f"(SELECT 1 FROM {quoted(table)} WHERE {has})",
                [named],
            )
        )
    return found


def _columns(connection: Connection) -> dict[str, list[str]]:
    """Return the columns that may hold text, by table."""
    found: dict[str, list[str]] = {}
    for table, column, kind in connection.fetch_all(
        "SELECT t.name, c.name, upper(c.type) FROM sqlite_master AS t, "
        "pragma_table_info(t.name) AS c WHERE t.type = 'table' "
        "AND t.sql NOT LIKE 'CREATE VIRTUAL%' AND t.name NOT GLOB '*_search_*' "
        # The keys of deleted rows stay, so that no other device brings the rows back.
        "AND t.name <> 'sync_rows'"
    ):
        if kind in _TEXT or any(one and one in kind for one in _TEXT[:-1]):
            found.setdefault(table, []).append(column)
    return found


def _rows(connection: Connection) -> int:
    """Return the number of rows with an id in a column of such ids.

    Args:
        connection: The database, with temporary tables by `select_again`.
    """
    rows = 0
    for table, columns in _columns(connection).items():
        is_id = " OR ".join(
            f"{quoted(column)} IN (SELECT {SAME.get(column, column)} FROM temp.{_GONE[column]})"
            for column in columns
            if column in _GONE
        )
        if is_id:
            rows += connection.fetch_all(f"SELECT count(*) FROM {quoted(table)} WHERE {is_id}")[0][
                0
            ]
    return rows


def _scan_warehouse(storage: Storage, patterns: Patterns, live: set[str], result: Scan) -> None:
    """Search all columns of text of the snapshots."""
    result.found["warehouse"] = 0
    texts = [one for one in patterns.sentences if one not in live]
    for generation in published(storage.home.snapshots):
        with contextlib.closing(storage.read_snapshot(generation)) as reader:
            connection = reader.connection()
            with duckdb_adapter.translated("The snapshot"):
                columns = connection.execute(
                    "SELECT schema_name, table_name, list(column_name) FROM duckdb_columns() "
                    "WHERE database_name = current_database() AND data_type = 'VARCHAR' "
                    "AND NOT internal AND (schema_name, table_name) IN "
                    "(SELECT (schema_name, table_name) FROM duckdb_tables()) GROUP BY 1, 2"
                ).fetchall()
                for schema, table, names in columns:
                    ids = {name: patterns.of_column(name)[:IDS] for name in names}
                    is_id = [
                        f"{quoted(name)} IN {_list(some)}" for name, some in ids.items() if some
                    ]
                    shows = [f"contains({quoted(name)}, ?)" for name in names for _ in texts]
                    if not (is_id or shows):
                        continue
                    values = [one for some in ids.values() for one in some]
                    count = connection.execute(
                        f"SELECT count(*) FROM {quoted(schema)}.{quoted(table)} "
                        f"WHERE {' OR '.join([*is_id, *shows])}",
                        [*values, *(text for _ in names for text in texts)],
                    ).fetchall()[0][0]
                    if schema in _OWN:
                        result.found["warehouse"] += count
                    elif count:
                        result.leave(
                            "loaded tables",
                            f"{count:,} rows of {shown(f'{schema}.{table}')}, which was loaded "
                            "from another program's file, name what was erased.",
                        )


def _list(values: Sequence[str]) -> str:
    return f"({', '.join('?' * len(values))})"


def _scan_cache(storage: Storage, patterns: Patterns, result: Scan) -> None:
    result.found["cache"] = 0
    wanted = patterns.word()
    try:
        with (
            contextlib.closing(open_for_reading(storage.home, storage.keys)) as store,
            contextlib.closing(store.scan()) as items,
        ):
            for key, value in items:
                result.found["cache"] += bool(wanted.search(key) or wanted.search(value))
    except LibraryMissing:  # without RocksDB nothing was written either
        return


def scan_files(storage: Storage, patterns: Patterns, result: Scan) -> None:
    """Search files of people's own, which an erasure lists and leaves.

    Args:
        storage: The opened home.
        patterns: What is erased.
        result: Where to list them.
    """
    home = storage.home
    for path in own_files(home):
        place = _shown(path, home)
        if is_sealed(path):
            result.leave("sealed files", f"{place} is sealed, so that it cannot be searched.")
        elif patterns.named_by(path):
            if path.is_relative_to(home.path / "notebooks"):
                result.leave("notebooks", f"{place} names what was erased, or shows it.")
            else:
                result.leave("files", f"{place} names what was erased.")


def _scan_bundles(storage: Storage, patterns: Patterns, result: Scan) -> None:
    """Count the bundles for other devices that have what was erased."""
    federation = Federation.existing(storage)
    if federation and (bundles := federation.bundles_with(patterns.word())):
        advice = (
            "and so have the other devices, from which this one only receives: run the same "
            "`aico-lab forget` on one of them, or what they send of it later waits here."
            if federation.replica.receives_only
            else "and so may the shared folder and other devices: run `aico-lab federate compact` "
            "here, once all devices have exchanged changes by `federate sync`, which erases it "
            "there."
        )
        result.leave(
            "bundles",
            f"{bundles:,} bundles in federation/spool have what was erased, or cannot be searched, "
            f"{advice}",
        )


def _shown(path: Path, home: Home) -> str:
    return escaped(str(path.relative_to(home.path)))


def scan_backups(storage: Storage, primary: Connection, patterns: Patterns, result: Scan) -> None:
    """Count the rows of former databases that name what was erased, and list all backups."""
    for backup in backups_of(storage.home.primary):
        place = _shown(backup, storage.home)
        try:
            with primary.open_beside(backup) as copy:
                select_again(copy, patterns)
                rows = _rows(copy)
                unused = search_pages(copy, patterns.in_bytes()).unused
        except AicoLabError:
            result.leave("backups", f"{place} cannot be read, so that it cannot be searched.")
            continue
        if rows or unused:
            result.leave(
                "backups", f"{place} still has {rows:,} rows of what was erased: delete it."
            )
    for aside in other_copies(storage.home.primary):
        place = _shown(aside, storage.home)
        result.leave(
            "backups", f"{place}, a copy of aico.db, may still have what was erased: delete it."
        )
    for made in known_backups(primary):
        path = Path(made.path)
        if path.exists() or not path.parent.exists():  # as on a disk that is not there now
            result.leave(
                "backups",
                f"{escaped(made.path)}, a backup of {made.made_at[:16]}, may have what was erased: "
                "make a new one, and delete it.",
            )
