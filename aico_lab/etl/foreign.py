"""Load a table of another program's database, which has no change feed, by a watermark.

Rows and watermark commit in one DuckDB transaction. Each load reads the rows of the lag's window
again and merges them by key, so that late rows are found and no row is there twice.
"""

from __future__ import annotations

import math
import re
import time
import unicodedata
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from aico_lab.adapters.duckdb import is_plain_name
from aico_lab.adapters.libsql_readonly import open_readonly
from aico_lab.adapters.sql_text import folded
from aico_lab.errors import InvalidValue, NeverSynced
from aico_lab.etl.foreign_source import ROWID, read_source
from aico_lab.etl.foreign_table import ForeignTable
from aico_lab.etl.misfits import count_rows
from aico_lab.etl.portions import portions
from aico_lab.etl.publishing import publishing
from aico_lab.etl.sync import silent

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from aico_lab.etl.foreign_source import ForeignSource, Reached
    from aico_lab.etl.misfits import Misfit
    from aico_lab.etl.sync import Mode, Progress
    from aico_lab.home.folder import Home

RESERVED: Final = frozenset(
    {"raw", "meta", "quarantine", "mart", "main", "lab", "temp", "system", "memory",
     "information_schema", "pg_catalog"}
)  # fmt: skip
"""Names of schemas of the warehouse and of DuckDB, and of databases that would hide a schema."""

_LOWEST: Final = -(2**63)


@dataclass(frozen=True, slots=True)
class LoadResult:
    """The result of a load.

    Attributes:
        table: The table of the warehouse, such as 'shop.orders'.
        mode: Whether the table was read whole ('full'), from the watermark on ('increment'), or
            nothing changed ('nothing').
        generation: The generation that readers see now.
        rows: The number of rows that are new or have changed.
        deleted: The number of rows that were removed, including replaced ones.
        quarantined: The number of rows that were read and do not fit.
        watermark: The highest mark: a number, a time in seconds since 1970, or None.
        seconds: The duration, in seconds.
        warnings: Sentences about the types of the columns.
    """

    table: str
    mode: Mode
    generation: int
    rows: int
    deleted: int
    quarantined: int
    watermark: Reached
    seconds: float
    warnings: list[str] = field(default_factory=list)


def load_foreign(
    home: Home,
    key: str | None,
    file: Path,
    table: str,
    *,
    name: str | None = None,
    key_columns: Sequence[str] | None = None,
    watermark: str = ROWID,
    lag: float = 0,
    deletes: bool = False,
    full: bool = False,
    source_key: str | None = None,
    progress: Progress | None = None,
) -> LoadResult:
    """Load a table of another file into the warehouse, and publish a snapshot.

    Args:
        home: The lab's folder.
        key: DuckDB's key.
        file: A SQLite or libSQL file; nothing is written into it, or beside it.
        table: The name of the table.
        name: The schema of the warehouse; by default, the file's name without its suffix.
        key_columns: The columns that identify a row; else the primary key, else the row id.
        watermark: The column whose highest value tells which rows are new, or 'rowid'.
        lag: The distance below the watermark from which rows are read again: in seconds for
            times, whatever the unit of the column; else in the unit of the column.
        deletes: Find the rows that are gone from the table, and remove them.
        full: Read the table whole.
        source_key: The file's key, if it is encrypted.
        progress: Called after every portion of rows.

    Raises:
        WrongUse: An argument is wrong, such as the name of a column that does not exist.
        SourceError: The file does not exist, or its schema cannot be loaded.
        NeverSynced: There is no warehouse yet.
        SyncBusy: Another process is writing the warehouse.
        StorageError: A database failed; the warehouse is unchanged.
    """
    started = time.perf_counter()
    schema = check_load(file, name, lag)
    with publishing(home, key) as (warehouse, published):
        if warehouse.cursor is None:
            raise NeverSynced("There is no warehouse yet: run `aico-lab sync` first.")
        # Closing the file, before anything commits, fails if it has changed meanwhile.
        with warehouse.transaction(), open_readonly(file, source_key) as connection:
            source = read_source(connection, table, key=key_columns, watermark=watermark)
            target = ForeignTable(warehouse, schema, source.contract)
            load = _Load(source, target, progress or silent)
            load.run(file.resolve(), lag, deletes=deletes, full=full, named=name is not None)
            if load.mode != "nothing":
                changes = {
                    kind: {target.label: count}
                    for kind, count in (("rows", load.rows), ("deleted", load.deleted),
                                        ("quarantined", load.quarantined))
                }  # fmt: skip
                warehouse.advance(
                    warehouse.cursor,
                    max(warehouse.generation, published) + 1,
                    mode=f"load {load.mode}",
                    seconds=time.perf_counter() - started,
                    changes=changes,
                )
        generation = warehouse.generation
    return LoadResult(
        table=target.label,
        mode=load.mode,
        generation=generation,
        rows=load.rows,
        deleted=load.deleted,
        quarantined=load.quarantined,
        watermark=load.newest,
        seconds=time.perf_counter() - started,
        warnings=source.warnings,
    )


class _Load:
    """One load, from one consistent view of the file, inside a transaction of the warehouse."""

    def __init__(self, source: ForeignSource, target: ForeignTable, progress: Progress) -> None:
        self._source = source
        self._target = target
        self._progress = progress
        self.mode: Mode = "nothing"
        self.newest: Reached = source.newest()
        self.rows = self.deleted = self.quarantined = 0

    def run(self, file: Path, lag: float, *, deletes: bool, full: bool, named: bool) -> None:
        source, known = self._source, self._target.watermark()
        if known and known.file != str(file) and not named and not full:
            raise InvalidValue(
                f"{self._target.label} was loaded from {known.file}: give this other file a --name "
                "of its own, or name the same one to go on with it."
            )
        how = (source.marked_by, self._target.key)
        fell = known is not None and _is_below(self.newest, known.value)
        if known is None or full or (known.column, known.key) != how:
            self._reload()
        elif not source.contract.tells_keys_apart:
            self._reload()  # different keys could be the same in the warehouse
        elif fell and source.keyed_by_rowid:
            self._reload()  # row ids were assigned again, as VACUUM does
        else:
            self._merge(None if fell else _minus(known.value, lag), deletes=deletes)
        if self.mode != "nothing" or known is None or known.value != self.newest:
            self._target.advance(source.marked_by, self.newest, file)

    def _reload(self) -> None:
        self.mode = "full"
        self._target.create()
        total = self._source.count(None)
        for rows, misfits in portions(self._source.contract, self._source.rows(None)):
            if misfits:
                self._target.quarantine(misfits)
                self.quarantined += count_rows(misfits)
            self._target.insert(rows, into="table")
            self.rows += rows.num_rows
            self._progress(self._target.label, self.rows, total)

    def _merge(self, since: Reached, *, deletes: bool) -> None:
        target, misfits = self._target, self._stage(since)
        self.rows, self.deleted = target.merge()
        changed = False
        if misfits or target.has_misfits():
            target.stage_keys("window", self._source.keys(since))
            changed, removed = target.exchange_misfits(misfits)
            self.deleted += removed
            self.quarantined = count_rows(misfits)
        if deletes:
            target.stage_keys("present", self._source.keys(None))
            self.deleted += target.delete_others()
        if changed or self.rows or self.deleted:
            self.mode = "increment"

    def _stage(self, since: Reached) -> list[Misfit]:
        self._target.create_staging()
        total, read = self._source.count(since), 0
        found: list[Misfit] = []
        for rows, misfits in portions(self._source.contract, self._source.rows(since)):
            found += misfits
            self._target.insert(rows, into="staging")
            read += rows.num_rows
            self._progress(self._target.label, read, total)
        return found


def check_load(file: Path, name: str | None, lag: float) -> str:
    """Validate the arguments of a load, and return the schema that the file is loaded into.

    Raises:
        InvalidValue: The name cannot be that of a schema, or the lag is not 0 or more.
    """
    if not 0 <= lag < math.inf:
        raise InvalidValue("The lag must be 0 or more.")
    schema = _schema_of(file) if name is None else folded(name)
    if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", schema) or _is_taken(schema):
        raise InvalidValue(
            f"{schema!r} cannot name a schema of the warehouse: give a --name of letters, digits "
            "and _ that is not a keyword of SQL such as 'select', and none of "
            f"{', '.join(sorted(RESERVED))}."
        )
    return schema


def _is_taken(schema: str) -> bool:
    return schema in RESERVED or not is_plain_name(schema)


def _schema_of(file: Path) -> str:
    """Return a name for a schema that is made from the name of a file."""
    plain = unicodedata.normalize("NFKD", file.stem).encode("ascii", "ignore").decode()
    name = re.sub(r"[^a-z0-9_]+", "_", plain.lower()).strip("_")[:60] or "db"
    if name[0].isdigit():
        name = f"_{name}"
    return f"{name}_db" if _is_taken(name) else name


def _is_below(newest: Reached, known: Reached) -> bool:
    return known is not None and (newest is None or newest < known)


def _minus(known: Reached, lag: float) -> Reached:
    """Return the watermark minus the lag; as an integer, rounded down, if the watermark is one."""
    if known is None:
        return None
    if isinstance(known, int):
        return max(known - math.ceil(lag), _LOWEST)
    return known - lag
