"""Bring the warehouse up to date with the primary database, exactly once.

The first sync reads the tables whole, later ones only the rows that the change feed names. Rows and
the cursor of the feed commit in one DuckDB transaction, so a crash at any instant leaves either the
state before or the state after, and the next sync goes on from there.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from aico_lab.adapters.duckdb import is_damage
from aico_lab.adapters.libsql_seal import ACCEPT
from aico_lab.adapters.temporary_folders import remove_left_over
from aico_lab.errors import CorruptDatabase, StorageError
from aico_lab.etl import evolution, snapshots, views
from aico_lab.etl.changes import changed_keys, extract_changed, mistakes_keys
from aico_lab.etl.contract import read_contract
from aico_lab.etl.extract import extract
from aico_lab.etl.misfits import count_rows
from aico_lab.etl.misplaced import clear_misplaced
from aico_lab.etl.portions import portions
from aico_lab.etl.publishing import discard_writer, publishing
from aico_lab.etl.settle import settle
from aico_lab.etl.snapshots import NOTE
from aico_lab.mart.refresh import MEMORY_LIMIT, Changes
from aico_lab.schema import feed
from aico_lab.schema.versions import given_up

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from aico_lab.adapters.libsql import Connection
    from aico_lab.etl.contract import Contract
    from aico_lab.etl.evolution import OnChange
    from aico_lab.etl.warehouse import Warehouse
    from aico_lab.home.folder import Home

CONSUMER = "warehouse"

BROKEN_OFF = (
    "The changes since the last sync are not known, as after a database was restored from a backup "
    "or replaced, or a table was rebuilt: every table was read again, and rows that do not fit "
    "were set aside without comparing them with the last sync."
)

Mode = Literal["full", "increment", "nothing"]

Progress = Callable[[str, int, int], None]
"""Called with a table, the number of rows moved so far, and the number of all rows."""


@dataclass(frozen=True, slots=True)
class SyncResult:
    """The result of a sync; counts of rows are by table.

    Attributes:
        mode: Whether all tables were read whole ('full'), only changes were read ('increment'), or
            there was nothing to do ('nothing').
        generation: The generation that readers see now.
        rows: Rows written.
        deleted: Rows removed, including replaced ones.
        quarantined: Rows set aside because they do not fit.
        seconds: The duration, in seconds.
        unexplained: Rows that were set aside when their table was read whole, by this sync or an
            earlier one, although they fitted before and the feed recorded no change of them, until
            they fit again or a person has acknowledged them.
        warnings: Sentences about the types of columns, about a database that was restored or
            replaced, and about vectors made again.
        rebuilt: Whether the warehouse was damaged and made again, without tables loaded from other
            programs.
        problems: Failures of other projections; the warehouse is up to date all the same.
    """

    mode: Mode
    generation: int
    rows: dict[str, int] = field(default_factory=dict)
    deleted: dict[str, int] = field(default_factory=dict)
    quarantined: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    unexplained: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    rebuilt: bool = False
    problems: tuple[str, ...] = ()

    def damage(self) -> list[str]:
        """Return a sentence for each table with unexplained rows."""
        return [
            f"{count:,} rows of {table} no longer fit their columns, although no change of them "
            "was recorded: the primary database may be damaged. Restore a backup, or run "
            "`aico-lab sync --acknowledge` if the rows are correct."
            for table, count in self.unexplained.items()
        ]


def sync(
    primary: Connection,
    home: Home,
    key: str | None,
    *,
    full: bool = False,
    on_change: OnChange | None = None,
    acknowledge: bool = False,
    progress: Progress | None = None,
    examine: Callable[[], None] | None = None,
) -> SyncResult:
    """Bring the warehouse up to date and publish a snapshot of it.

    Args:
        primary: The primary database.
        home: The lab's folder.
        key: DuckDB's key.
        full: Read the tables whole, even if the change feed would suffice.
        on_change: How to treat changed tables; None raises if the warehouse would lose anything.
        acknowledge: Accept the rows that are `unexplained` as misfits.
        progress: Called after every portion of rows.
        examine: Called before a table is read whole; raises if the primary database is damaged.

    Raises:
        InvalidValue: `on_change` is not one of the modes.
        SchemaChanged: The warehouse would lose something and `on_change` is None, or changes cannot
            be ignored.
        SyncBusy: Another process is syncing this home.
        StorageError: A database failed; the warehouse is unchanged.
    """
    started = time.perf_counter()
    evolution.check(on_change)
    from aico_lab.adapters.sealed import remove_left_open  # after the fast imports of a start

    remove_left_over(home.temporary)  # of readers that were killed
    remove_left_open()
    if not (full or acknowledge) and (newest := _up_to_date(primary, home)):
        return SyncResult("nothing", newest, seconds=time.perf_counter() - started)

    if full:
        clear_misplaced(home, full=True)

    def run() -> SyncResult:
        return _sync(
            primary, home, key, full=full, on_change=on_change, acknowledge=acknowledge,
            progress=progress or silent, examine=examine,
        )  # fmt: skip

    try:
        result = run()
    except StorageError as error:
        damaged = is_damage(error) or not snapshots.is_log_sound(home.writer, home.snapshots)
        if not full or not damaged:
            raise
        discard_writer(home)
        result = replace(run(), rebuilt=True)
    return replace(result, seconds=time.perf_counter() - started)


def _sync(
    primary: Connection,
    home: Home,
    key: str | None,
    *,
    full: bool,
    on_change: OnChange | None,
    acknowledge: bool,
    progress: Progress,
    examine: Callable[[], None] | None,
) -> SyncResult:
    notes: list[tuple[int, str]] = []

    def note() -> None:
        for generation, state in notes:
            _note(home, generation, state)

    with publishing(home, key, link=not full, then=note) as (warehouse, published):
        run = _SyncRun(primary, warehouse, progress, examine)
        damaged = published > 0 and not snapshots.is_sound(home.snapshots, published)
        with primary.snapshot():
            mode, target = run.load(
                full=full,
                on_change=on_change,
                acknowledge=acknowledge,
                after=published,
                publish=damaged,
            )
        generation = warehouse.generation
        if damaged and not full:
            run.warnings.append(
                f"Snapshot {published} was missing, damaged or without a checksum, and was "
                f"published again as snapshot {generation}."
            )
        unexplained = warehouse.unexplained()
        if run.followed and not unexplained:  # else the next sync would say nothing of them
            notes.append((generation, _state(target, run.followed)))
    if mode != "nothing":
        feed.try_to_acknowledge(primary, CONSUMER, target.seq)
    return SyncResult(
        mode, generation, run.rows, run.deleted, run.quarantined,
        unexplained=unexplained, warnings=run.warnings,
    )  # fmt: skip


def _up_to_date(primary: Connection, home: Home) -> int | None:
    """Return the newest generation if nothing has changed since; the warehouse is not opened."""
    newest = max(snapshots.published(home.snapshots), default=0)
    try:
        noted = (home.warehouse / NOTE).read_bytes()  # bytes, as it may be damaged
    except OSError:
        return None
    with primary.snapshot():
        state = _state(feed.head(primary), _contracts(primary))
    sound = (
        noted == f"{newest} {state}".encode()
        and snapshots.is_sound(home.snapshots, newest)
        and snapshots.is_log_sound(home.writer, home.snapshots)
    )
    return newest if sound else None


def _note(home: Home, generation: int, state: str) -> None:
    # On a full disk the snapshot is published all the same; a half-written note counts as none.
    with contextlib.suppress(OSError):
        (home.warehouse / NOTE).write_text(f"{generation} {state}", encoding="ascii")


def _state(cursor: feed.Cursor, contracts: Sequence[Contract]) -> str:
    """Return a hash of the state of a warehouse that is up to date.

    A hash, because the state names tables and columns, and the note is not encrypted.
    """
    held = repr((cursor, contracts, views.version()))
    return hashlib.sha256(held.encode()).hexdigest()


def _contracts(primary: Connection) -> list[Contract]:
    return [
        evolution.with_needed(
            read_contract(primary, table, key, feed.computed_columns(primary, table))
        )
        for table, key in feed.tracked_tables(primary).items()
    ]


class _SyncRun:
    """One sync, from one consistent view of the primary database."""

    def __init__(
        self,
        primary: Connection,
        warehouse: Warehouse,
        progress: Progress,
        examine: Callable[[], None] | None,
    ) -> None:
        self._primary = primary
        self._examine = examine
        self._warehouse = warehouse
        self._progress = progress
        self.rows: dict[str, int] = {}
        self.deleted: dict[str, int] = {}
        self.quarantined: dict[str, int] = {}
        self.warnings: list[str] = []
        self.followed: list[Contract] = []  # contracts of all tables, or none

    def _refuse_older(self, cursor: feed.Cursor, target: feed.Cursor) -> None:
        """Raise if changes that were synced are gone, unless a person has accepted that.

        A seal that was exchanged, too, does not show it; the warehouse does.

        Raises:
            CorruptDatabase: The database is older than the last sync, or from another copy.
        """
        if self._primary.seal is None or cursor.database_id != target.database_id:
            return
        gone = cursor.seq - target.seq
        synced_at = self._warehouse.synced_at
        when = f"{synced_at[:16].replace('T', ' ')} UTC"
        if gone > 0:
            lost = "1 change of a row is" if gone == 1 else f"{gone:,} changes of rows are"
            found = f"aico.db is older than the last sync, on {when} ({lost} gone)"
        elif not feed.has_change_of(self._primary, cursor):
            found = (
                "aico.db and its seal are from another copy of this home than the warehouse (the "
                f"last change that was synced, on {when}, is not in it)"
            )
        else:
            return
        if not self._primary.fetch_one(
            "SELECT 1 FROM integrity_log WHERE event = 'sealed' AND at > ?", [synced_at]
        ):
            raise CorruptDatabase(f"{found}: {ACCEPT}.")

    def load(
        self,
        *,
        full: bool,
        on_change: OnChange | None,
        acknowledge: bool,
        after: int,
        publish: bool,
    ) -> tuple[Mode, feed.Cursor]:
        """Load all changes, in one transaction together with the cursor.

        The new generation's number is above every published one, even if the writer's file was
        deleted to be rebuilt.

        Args:
            full: Read every table whole.
            on_change: How to treat changed tables; see `sync`.
            acknowledge: Accept unexplained rows as misfits; see `sync`.
            after: The newest published generation.
            publish: Make a new generation even if nothing changed.

        Returns:
            The mode, and the cursor up to which the feed was read.
        """
        started = time.perf_counter()
        target = feed.head(self._primary)
        cursor = self._warehouse.cursor
        same = cursor is not None and cursor.database_id == target.database_id
        declared = _contracts(self._primary)
        continues = cursor is not None and feed.continues(self._primary, cursor)
        of_this_version = self._warehouse.is_of_this_version
        # Only rows whose earlier state and name are known can be found to have become misfits.
        comparable = continues and self._warehouse.names_rows_alike
        found = self._warehouse.tables() if same else {}
        plan = evolution.plan(
            [self._settle(contract) for contract in declared],
            found,
            self._warehouse.frozen,
            on_change,
            is_empty=self._warehouse.is_empty,
            same_rules=of_this_version,
            given_up=given_up(self._primary, found),
        )
        self.followed = declared if on_change in (None, "evolve") else []
        known = self._warehouse.misfits() if same else {}
        reread = plan.reread
        if cursor is not None and not continues:
            self._refuse_older(cursor, target)
            self.warnings.append(BROKEN_OFF)
        if full or cursor is None or not continues:
            reread = {contract.table for contract in plan.contracts}
        elif (
            cursor == target
            and not publish
            and not reread
            and not plan.dropped
            and not (acknowledge and self._warehouse.unexplained())
            and of_this_version
        ):
            return "nothing", target
        if cursor is not None:
            reread = reread | {
                contract.table
                for contract in plan.contracts
                if contract.table not in reread
                and mistakes_keys(self._primary, contract, since=cursor.seq, until=target.seq)
            }
        if not of_this_version:
            # Reading messages makes the mart again; and other rules decided which rows fit.
            tables = {contract.table for contract in plan.contracts}
            reread = reread | {"messages", *known}.intersection(tables)
        if reread and self._examine:
            self._examine()
        mode: Mode = "full" if len(reread) == len(plan.contracts) else "increment"
        with self._warehouse.transaction():
            self._messages = Changes(self._warehouse.connection, reread="messages" in reread)
            self._warehouse.drop_tables(plan.dropped if same else self._warehouse.tables())
            for contract in plan.contracts:
                if contract.table in reread:
                    self._warehouse.create_table(contract)
                self._load_table(
                    contract,
                    None if cursor is None or contract.table in reread else cursor.seq,
                    target.seq,
                )
                if (
                    cursor is not None
                    and comparable
                    and contract.table in reread
                    and contract.table not in plan.reread
                ):
                    self._note_unexplained(
                        contract, known.get(contract.table, set()), cursor.seq, target.seq
                    )
            with self._warehouse.memory(MEMORY_LIMIT):
                self._messages.apply()
            self._warehouse.create_views()
            self._warehouse.freeze(plan.frozen)
            self._warehouse.forget_unexplained(everything=acknowledge)
            changes = {
                "rows": self.rows, "deleted": self.deleted, "quarantined": self.quarantined
            }  # fmt: skip
            seconds = time.perf_counter() - started
            generation = max(self._warehouse.generation, after) + 1
            self._warehouse.advance(target, generation, mode=mode, seconds=seconds, changes=changes)
        return mode, target

    def _load_table(self, contract: Contract, since: int | None, until: int) -> None:
        table, total = contract.table, self._total(contract, since, until)
        messages = self._messages if table == "messages" else None
        if not total:
            return
        gone: pa.Table | None = None
        found = 0
        if since is None:
            extracted = extract(self._primary, contract)
        else:
            gone = changed_keys(self._primary, contract, since=since, until=until)
            extracted = extract_changed(self._primary, contract, since, until)
        for rows, misfits in portions(contract, extracted):
            if gone is not None:
                if deleted := self._warehouse.delete(contract, gone, rows, messages):
                    self.deleted[table] = deleted
                gone = None
            found += rows.num_rows + len(misfits)
            if misfits:
                self._warehouse.quarantine(misfits)
                self.quarantined[table] = self.quarantined.get(table, 0) + count_rows(misfits)
            if rows.num_rows:
                self._warehouse.insert(contract, rows)
                if messages:
                    messages.note_added(rows)
                self.rows[table] = self.rows.get(table, 0) + rows.num_rows
                self._progress(table, self.rows[table], total)
        if since is not None and self._examine and found < self._changed(table, since, until):
            self._examine()  # rows are missing: a page that leads to them may be damaged

    def _changed(self, table: str, since: int, until: int) -> int:
        """Return the number of rows that were changed, and were not deleted afterwards."""
        row = self._primary.fetch_one(
            "SELECT count(*) FROM (SELECT op, max(seq) FROM change_log WHERE seq > ? AND seq <= ? "
            "AND table_name = ? GROUP BY row_key) WHERE op <> 'delete'",
            [since, until, table],
        )
        return row[0] if row else 0

    def _settle(self, contract: Contract) -> Contract:
        settled, warnings = settle(self._primary, contract)
        self.warnings += warnings
        return settled

    def _note_unexplained(
        self, contract: Contract, known: set[str], since: int, until: int
    ) -> None:
        """Record misfits that fitted before, unless the feed names them as changed."""
        new = self._warehouse.misfits().get(contract.table, set()) - known
        if new:
            changed = changed_keys(self._primary, contract, since=since, until=until)
            new.difference_update(changed["row_key"].to_pylist())
        if new:
            self._warehouse.note_unexplained(contract.table, new)

    def _total(self, contract: Contract, since: int | None, until: int) -> int:
        if since is None:
            row = self._primary.fetch_one(f'SELECT count(*) FROM "{contract.table}"')
        else:
            row = self._primary.fetch_one(
                "SELECT count(*) FROM change_log WHERE seq > ? AND seq <= ? AND table_name = ?",
                [since, until, contract.table],
            )
        return row[0] if row else 0


def silent(_table: str, _moved: int, _total: int) -> None:
    """Report no progress."""
