"""Decide how the warehouse follows changes of the primary database's tables.

A sync follows changes that lose nothing: a new table, a new column, a wider type. Any other change
stops the sync until a person has said what to do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias, get_args

from aico_lab.errors import InvalidValue, SchemaChanged
from aico_lab.etl.contract import DUCKDB_TYPES, ColumnContract, Contract, Kind
from aico_lab.etl.views import NEEDED

OnChange = Literal["evolve", "freeze", "ignore"]
"""The treatment of changed tables.

'evolve' follows every change, whatever is lost; 'freeze' leaves the tables as they were at the last
sync; 'ignore' keeps their columns and goes on loading rows: new columns are left out, removed ones
are NULL, and rows that do not fit the old type are quarantined.
"""

Types: TypeAlias = Sequence[tuple[str, str]]
"""The columns of a table of the warehouse, in order, each with its DuckDB type."""

_WIDER: Final[Mapping[str, Collection[str]]] = {
    "BOOLEAN": ("BIGINT", "DOUBLE", "VARCHAR"),
    "BIGINT": ("DOUBLE", "VARCHAR"),
    "DOUBLE": ("VARCHAR",),
    "TIMESTAMP WITH TIME ZONE": ("VARCHAR",),
}
_KINDS: Final[Mapping[str, Kind]] = {
    type_: kind
    for kind, type_ in DUCKDB_TYPES.items()
    if kind not in ("json", "any", "seconds", "milliseconds")
}
_DECIMAL: Final = re.compile(r"DECIMAL\((\d+),(\d+)\)")


@dataclass(frozen=True, slots=True)
class Plan:
    """How a sync treats each table.

    Attributes:
        contracts: The tables to load.
        reread: The names of loaded tables that are made and read again.
        dropped: The names of tables to remove.
        frozen: The names of tables that stay as they are.
    """

    contracts: list[Contract]
    reread: set[str]
    dropped: set[str]
    frozen: set[str]


def check(on_change: str | None) -> None:
    """Validate `on_change`.

    Raises:
        InvalidValue: The value is neither None nor one of the modes.
    """
    if on_change not in (None, *get_args(OnChange)):
        raise InvalidValue(
            f"on_change must be one of {', '.join(get_args(OnChange))}, not {on_change!r}."
        )


def plan(
    contracts: Sequence[Contract],
    found: Mapping[str, Types],
    frozen: Collection[str],
    on_change: OnChange | None,
    *,
    is_empty: Callable[[str, str], bool],
    same_rules: bool = True,
    given_up: Collection[str] = (),
) -> Plan:
    """Compare the tables of the primary database with those of the warehouse.

    Args:
        contracts: The tables of the primary database.
        found: The tables of the warehouse.
        frozen: The names of tables that have been frozen so far.
        on_change: How to treat changed tables; None follows changes that lose nothing.
        is_empty: Returns whether a column of a table of the warehouse holds only NULL.
        same_rules: Whether this version of the package made the warehouse; another version may have
            chosen other types for columns, and following those loses nothing.
        given_up: The names of tables that a person removed or reduced on purpose; following this
            needs no further choice.

    Raises:
        SchemaChanged: Something would be lost, or the changes cannot be ignored.
    """
    gone = set(found).difference(contract.table for contract in contracts)
    changed = {
        contract.table
        for contract in contracts
        if list(found.get(contract.table, ())) != contract.duckdb_types
        or _given_up(contract, found.get(contract.table, ()), is_empty)
    }
    if on_change == "freeze":
        stay = (changed & set(found)) | gone
        loaded = [contract for contract in contracts if contract.table not in stay]
        return Plan(loaded, (set(frozen) | changed) - stay, set(), stay)
    if on_change == "ignore":
        loaded = [as_found(c, found[c.table]) for c in contracts if c.table in found or not found]
        return Plan(loaded, set(frozen), set(), set())
    losses = [f"the table {table}" for table in sorted(gone.difference(given_up))]
    for contract in contracts:
        if contract.table in given_up:
            continue
        known = found.get(contract.table, ())
        losses += _losses(contract, known, same_rules=same_rules)
        losses += [
            f"the column {contract.table}.{name}" for name in _given_up(contract, known, is_empty)
        ]
    if losses and on_change is None:
        raise SchemaChanged(
            f"The primary database no longer has {', '.join(losses)}: sync with --on-change evolve "
            "to lose this in the warehouse too, ignore to keep it, or freeze to leave changed "
            "tables as they are."
        )
    return Plan(list(contracts), changed | set(frozen), gone, set())


def with_needed(contract: Contract) -> Contract:
    """Return the contract with all columns that the warehouse's own views need.

    Such a column has the type that the views need, whatever its declared type; if the table no
    longer has the column, it is NULL.
    """
    needed = NEEDED.get(contract.table, {})
    columns = [
        replace(column, kind=needed[column.name], loose=False) if column.name in needed else column
        for column in contract.columns
    ]
    there = {column.name for column in columns}
    columns += [
        ColumnContract(n, kind, stored=False) for n, kind in needed.items() if n not in there
    ]
    return replace(contract, columns=tuple(columns))


def _given_up(contract: Contract, found: Types, is_empty: Callable[[str, str], bool]) -> list[str]:
    """Return the columns that are no longer stored, but have values in the warehouse."""
    known = dict(found)
    return [
        column.name
        for column in contract.columns
        if not column.stored and column.name in known and not is_empty(contract.table, column.name)
    ]


def _losses(contract: Contract, found: Types, *, same_rules: bool) -> list[str]:
    now = dict(contract.duckdb_types)
    # Computed columns follow from other tables, so that losing their values loses nothing.
    found = [(name, type_) for name, type_ in found if name not in contract.computed]
    free = {column.name for column in contract.columns if column.loose or not same_rules}
    return [
        f"the column {contract.table}.{name}" if name not in now
        else f"{contract.table}.{name} as {type_}"
        for name, type_ in found
        if name not in now
        or (name not in free and now[name] != type_ and now[name] not in _WIDER.get(type_, ()))
    ]  # fmt: skip


def as_found(contract: Contract, found: Types) -> Contract:
    """Return the contract with exactly the columns and types of the warehouse.

    Raises:
        SchemaChanged: The warehouse lacks a column that identifies the rows.
    """
    live = {column.name: column for column in contract.columns}
    columns = []
    for name, type_ in found:
        column = live.get(name)
        if column is None:
            column = of_type(ColumnContract(name, "text", stored=False), type_)
        elif column.duckdb_type != type_:
            column = of_type(column, type_)
        columns.append(column)
    stored = {column.name for column in columns if column.stored}
    if not stored.issuperset(contract.key):
        raise SchemaChanged(
            f"The columns that identify a row of {contract.table} have changed, which cannot be "
            "ignored: sync with --on-change evolve or freeze."
        )
    rowid = contract.rowid if contract.rowid in stored else None
    return replace(contract, columns=tuple(columns), rowid=rowid)


def of_type(column: ColumnContract, type_: str) -> ColumnContract:
    """Return the column with the kind that has this type in DuckDB."""
    if digits := _DECIMAL.fullmatch(type_):
        return replace(column, kind="decimal", digits=(int(digits[1]), int(digits[2])))
    if column.loose and type_ == "VARCHAR":
        return replace(column, kind="any")
    return replace(column, kind=_KINDS[type_])
