"""Prove that the warehouse holds the same rows as the primary database.

The digest of a column does not depend on the order of the rows: it is the sum, modulo 2^64, of a
hash of each value together with its row's key. The primary database is read by SQL and never by
pages, so that another way of reading checks the fast one. If digests differ, the rows are compared,
and the first that differ are named.

Rows that changed after the snapshot's cursor are left out: the next sync loads them.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
import polars as pl

from aico_lab.adapters.duckdb import translated
from aico_lab.constants import NO_SECONDS
from aico_lab.errors import SchemaChanged
from aico_lab.etl import views
from aico_lab.etl.changes import changed_keys
from aico_lab.etl.contract import DUCKDB_TYPES, Contract, read_contract
from aico_lab.etl.evolution import of_type, with_needed
from aico_lab.etl.extract import extract_by_rows
from aico_lab.etl.misfits import readable_key
from aico_lab.etl.settle import settle
from aico_lab.schema import feed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import duckdb
    from numpy.typing import NDArray

    from aico_lab.adapters.libsql import Connection
    from aico_lab.etl.contract import ColumnContract
    from aico_lab.etl.reader import Reader

NAMED: Final = 20
"""The maximum number of differing rows that are named."""

BATCH_ROWS: Final = 50_000

_ODD: Final = np.uint64(0x9E3779B97F4A7C15)

Hashes: TypeAlias = "NDArray[np.uint64]"


@dataclass(frozen=True, slots=True)
class Difference:
    """A row that is not the same in both databases.

    Attributes:
        key: The key of the row; several columns are a JSON array.
        found_in: 'both', 'primary' or 'warehouse'.
        columns: The columns that differ, if the row is in both or is a misfit in only one.
    """

    key: str
    found_in: str
    columns: tuple[str, ...]

    def describe(self) -> str:
        """Return a one-line description."""
        if self.found_in == "both":
            return f"{self.key}: {', '.join(self.columns)}"
        return f"{self.key}: only in the {self.found_in}"


@dataclass(frozen=True, slots=True)
class TableProof:
    """The comparison of a table in both databases.

    Attributes:
        ok: Whether everything is the same.
        rows: The number of rows that fit in the primary database, and of rows in the warehouse.
        quarantined: The number of rows that do not fit, and of rows in quarantine.
        digests: The digests of each column in the primary database and in the warehouse.
        pending: The number of rows that changed since the snapshot, which were left out.
        differing: The number of rows that differ.
        differences: The first rows that differ.
        unexplained: The number of rows that are in quarantine although they fitted before and
            the feed recorded no change of them.
    """

    ok: bool
    rows: tuple[int, int]
    quarantined: tuple[int, int]
    digests: dict[str, tuple[str, str]]
    pending: int = 0
    differing: int = 0
    differences: list[Difference] = field(default_factory=list)
    unexplained: int = 0

    def describe(self) -> str:
        """Return a one-line description."""
        here, there = self.rows
        said = [f"{here:,} rows" if here == there else f"{here:,} rows, {there:,} in the warehouse"]
        if not self.ok and not self.differing and not self.unexplained:
            said.append("other columns than in the warehouse")
        if self.differing:
            said.append(f"{self.differing:,} differ")
        if any(self.quarantined):
            said.append(f"{self.quarantined[0]:,} quarantined")
        if self.unexplained:
            said.append(
                f"{self.unexplained:,} of these fitted before and were not changed since: restore "
                "a backup, or run `aico-lab sync --acknowledge` if they are as they should be"
            )
        if self.pending:
            said.append(f"{self.pending:,} not synced yet")
        return ", ".join(said)


@dataclass(frozen=True, slots=True)
class Proof:
    """The comparison of a snapshot with the primary database.

    Attributes:
        ok: Whether every table is the same.
        generation: The generation of the snapshot.
        tables: The comparison of each table.
    """

    ok: bool
    generation: int
    tables: dict[str, TableProof]


def verify(
    primary: Connection,
    reader: Reader,
    *,
    progress: Callable[[str, int, int | None], None] | None = None,
) -> Proof:
    """Compare every table of a snapshot with the primary database.

    Args:
        primary: The primary database.
        reader: Reads the snapshot.
        progress: Called with the next table, the number of compared tables, and of all tables.

    Raises:
        NeverSynced: There is no snapshot.
        SchemaChanged: The snapshot was made from another database, the feed does not name every
            change since then, or another version made the snapshot and there are differences.
        StorageError: A database cannot be read.
    """
    warehouse = reader.connection()
    generation = reader.generation
    proofs = {}
    with primary.snapshot(), translated("The snapshot"):
        found = warehouse.execute("SELECT database_id, seq, anchor FROM meta.state").fetchone()
        cursor, target = feed.Cursor(*(found or ("", 0, ""))), feed.head(primary)
        if cursor.database_id != target.database_id:
            raise SchemaChanged(
                "The warehouse was made from another database: run `aico-lab sync` first."
            )
        if not feed.continues(primary, cursor):
            raise SchemaChanged(
                "The changes since the snapshot are not known, as after a database was restored "
                "from a backup or a table was rebuilt: run `aico-lab sync` first."
            )
        tracked = feed.tracked_tables(primary)
        for number, (table, key) in enumerate(tracked.items()):
            if progress:
                progress(table, number, len(tracked))
            contract = read_contract(primary, table, key, feed.computed_columns(primary, table))
            contract, _ = settle(primary, with_needed(contract))
            proofs[table] = _Comparison(
                primary, warehouse, contract, since=cursor.seq, until=target.seq
            ).prove()
        if progress:
            progress("verify", len(tracked), len(tracked))
        ok = all(proof.ok for proof in proofs.values())
        if not ok and not views.are_of_this_version(warehouse):
            raise SchemaChanged(
                "The snapshot was made by another version of this program, which may be why it "
                "differs: run `aico-lab sync` first."
            )
    return Proof(ok, generation, proofs)


class _Comparison:
    """One table in both databases."""

    def __init__(
        self,
        primary: Connection,
        warehouse: duckdb.DuckDBPyConnection,
        contract: Contract,
        *,
        since: int,
        until: int,
    ) -> None:
        self._primary = primary
        self._warehouse = warehouse
        found = dict(
            warehouse.execute(
                "SELECT column_name, data_type FROM duckdb_columns() WHERE schema_name = 'raw' "
                "AND table_name = ? AND database_name = current_database()",
                [contract.table],
            ).fetchall()
        )
        # Later rows may have changed the type of a loosely typed column since the snapshot.
        pending = changed_keys(primary, contract, since=since, until=until)
        self._waiting = set(pending["row_key"].to_pylist())
        columns = [
            self._of_type(contract, column, found[column.name])
            if column.loose and found.get(column.name, column.duckdb_type) != column.duckdb_type
            else column
            for column in contract.columns
        ]
        if columns != [*contract.columns]:  # the keys are compared with those of the snapshot
            contract = replace(contract, columns=tuple(columns))
            pending = changed_keys(primary, contract, since=since, until=until)
        self._live = contract
        self._pending = pl.DataFrame(pending)
        self._common = [name for name, type_ in contract.duckdb_types if found.get(name) == type_]
        # The next sync removes columns that are computed since the last one.
        needed = found.keys() - {*contract.computed}
        self._alike = self._common == [name for name, _ in contract.duckdb_types] and len(
            self._common
        ) == len(needed)
        self._misfits: Counter[tuple[str, str]] = Counter()  # several rows may have one name

    def _of_type(self, contract: Contract, column: ColumnContract, type_: str) -> ColumnContract:
        """Return a loose column with the kind that it has in the snapshot.

        If these are times, rows that did not change since tell whether they are stored as texts, as
        seconds or as milliseconds.
        """
        if type_ != DUCKDB_TYPES["timestamp"]:
            return of_type(column, type_)
        as_texts = replace(column, kind="timestamp", zoneless=True)
        keys = tuple(c for c in contract.columns if c.name in contract.key and c != column)
        read = Contract(contract.table, (as_texts, *keys), contract.key)
        for _, misfits in extract_by_rows(self._primary, read):
            for misfit in misfits:
                if misfit.column == column.name and misfit.row_key not in self._waiting:
                    with contextlib.suppress(ValueError):  # damage is found by the comparison
                        in_millis = float(misfit.value) >= NO_SECONDS
                        return replace(column, kind="milliseconds" if in_millis else "seconds")
        return as_texts

    def prove(self) -> TableProof:
        if not set(self._live.key).issubset(self._common):
            return TableProof(False, (0, 0), (0, 0), {}, self._pending.height)
        here_rows, here = self._digest(self._in_primary())
        there_rows, there = self._digest(self._in_warehouse())
        quarantined = self._quarantined()
        differences: list[Difference] = []
        differing = 0
        if here != there or here_rows != there_rows:
            differing, differences = self._differences()
        astray = (self._misfits - quarantined) + (quarantined - self._misfits)
        differences += [
            Difference(
                key,
                "primary" if self._misfits[key, column] > quarantined[key, column] else "warehouse",
                (column,),
            )
            for key, column in sorted(astray)[: NAMED - len(differences)]
        ]
        unexplained = self._unexplained()
        return TableProof(
            ok=not unexplained
            and self._alike
            and here == there
            and here_rows == there_rows
            and not astray,
            rows=(here_rows, there_rows),
            quarantined=(_count_rows(self._misfits), _count_rows(quarantined)),
            digests={
                name: (f"{a:016x}", f"{b:016x}")
                for name, a, b in zip(self._common, here, there, strict=True)
            },
            pending=self._pending.height,
            differing=differing + astray.total(),
            differences=differences,
            unexplained=unexplained,
        )

    def _unexplained(self) -> int:
        known = self._warehouse.execute(  # an earlier version had no such table
            "SELECT 1 FROM duckdb_tables() WHERE schema_name = 'quarantine' "
            "AND table_name = 'unexplained'"
        ).fetchone()
        row = (
            known
            and self._warehouse.execute(
                "SELECT count(*) FROM quarantine.unexplained WHERE table_name = ?",
                [self._live.table],
            ).fetchone()
        )
        return row[0] if row else 0

    def _in_primary(self) -> Iterator[pl.DataFrame]:
        self._misfits.clear()
        for batch, misfits in extract_by_rows(self._primary, self._live):
            self._misfits.update(
                (m.row_key, m.column) for m in misfits if m.row_key not in self._waiting
            )
            yield self._settled(pl.DataFrame(batch).select(self._common))

    def _in_warehouse(self) -> Iterator[pl.DataFrame]:
        columns = ", ".join(f'"{name}"' for name in self._common)
        relation = self._warehouse.sql(f'SELECT {columns} FROM raw."{self._live.table}"')
        for batch in relation.to_arrow_reader(BATCH_ROWS):
            yield self._settled(pl.DataFrame(batch))

    def _quarantined(self) -> Counter[tuple[str, str]]:
        return Counter(
            (key, column)
            for key, column in self._warehouse.execute(
                "SELECT row_key, column_name FROM quarantine.misfits WHERE table_name = ?",
                [self._live.table],
            ).fetchall()
            if key not in self._waiting
        )

    def _settled(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Return the rows without those that changed since the snapshot."""
        if self._pending.is_empty():
            return rows
        pending = [f"k{i}" for i in range(len(self._live.key))]
        return rows.join(
            self._pending.filter("fits"),
            left_on=self._live.key,
            right_on=pending,
            how="anti",
            nulls_equal=True,
        )

    def _digest(self, frames: Iterable[pl.DataFrame]) -> tuple[int, list[int]]:
        """Return the number of rows, and the digest of each column."""
        count = 0
        sums = np.zeros(len(self._common), np.uint64)
        for rows in frames:
            count += rows.height
            _, hashes = self._hashes(rows)
            sums += hashes.sum(axis=1, dtype=np.uint64)
        return count, sums.tolist()

    def _hashes(self, rows: pl.DataFrame) -> tuple[Hashes, Hashes]:
        """Return hashes of the keys (rows), and of values with their row's key (columns, rows)."""
        key = np.zeros(rows.height, np.uint64)
        for name in self._live.key:
            key = _mix(key, _hash(rows[name]))
        return key, np.array([_mix(key, _hash(rows[name])) for name in self._common])

    def _differences(self) -> tuple[int, list[Difference]]:
        """Compare the rows by hashes; return the number that differ, and the first of them."""
        here, there = (self._by_row(f) for f in (self._in_primary(), self._in_warehouse()))
        differing = here.join(there, on="key", how="full", coalesce=True).filter(
            pl.col("sum").ne_missing(pl.col("sum_right"))
            | pl.col("count").ne_missing(pl.col("count_right"))
        )
        keys = differing["key"].sort().head(NAMED)
        one = self._chosen(self._in_primary(), keys)
        other = self._chosen(self._in_warehouse(), keys)
        named = []
        for key in keys:
            a, b = one.get(key), other.get(key)
            name = (a or b or ("", ()))[0]
            if a and b:
                unlike = [c for c, x, y in zip(self._common, a[1], b[1], strict=True) if x != y]
                named.append(Difference(name, "both", tuple(unlike)))
            else:
                named.append(Difference(name, "primary" if a else "warehouse", ()))
        return differing.height, sorted(named, key=lambda difference: difference.key)

    def _by_row(self, frames: Iterable[pl.DataFrame]) -> pl.DataFrame:
        """Return for each key a hash of all its values, and the number of its rows."""
        parts = []
        for rows in frames:
            key, hashes = self._hashes(rows)
            parts.append(pl.DataFrame({"key": key, "sum": hashes.sum(axis=0, dtype=np.uint64)}))
        whole = pl.concat(parts) if parts else pl.DataFrame(schema=_BY_ROW)
        return whole.group_by("key").agg(pl.col("sum").sum(), pl.len().alias("count"))

    def _chosen(
        self, frames: Iterable[pl.DataFrame], keys: pl.Series
    ) -> dict[int, tuple[str, tuple[int, ...]]]:
        """Return by hash the keys with these hashes, as text, and the hashes of their values."""
        chosen = {}
        for rows in frames:
            key, hashes = self._hashes(rows)
            for row in np.flatnonzero(np.isin(key, keys.to_numpy())).tolist():
                name = readable_key([rows[column][row] for column in self._live.key])
                chosen[int(key[row])] = (name, tuple(hashes[:, row].tolist()))
        return chosen


def _count_rows(misfits: Counter[tuple[str, str]]) -> int:
    """Return the number of rows; of rows with one name, as many as have the same misfit."""
    rows: dict[str, int] = {}
    for (key, _), count in misfits.items():
        rows[key] = max(rows.get(key, 0), count)
    return sum(rows.values())


_BY_ROW = {"key": pl.UInt64, "sum": pl.UInt64}


def _hash(values: pl.Series) -> Hashes:
    return values.to_physical().hash(seed=0).to_numpy()


def _mix(key: Hashes, value: Hashes) -> Hashes:
    """Combine two hashes into one, so that a value counts only together with its key."""
    mixed = (key ^ (value * _ODD)) * _ODD
    return mixed ^ (mixed >> np.uint64(32))
