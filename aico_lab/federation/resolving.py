"""Decide conflicts: write the version of a row that a person chose, on all devices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aico_lab.adapters.libsql import NOW
from aico_lab.adapters.sql_text import quoted
from aico_lab.errors import ConstraintViolated, InvalidValue, UnknownName
from aico_lab.federation.bundles import Decision
from aico_lab.federation.chosen import checked
from aico_lab.federation.conflicts import kept_values, open_conflicts, rival_of
from aico_lab.federation.erased_conflicts import end_needless
from aico_lab.federation.rows import RawText, key_values, physical

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aico_lab.federation.conflicts import RowConflict
    from aico_lab.federation.replica import Replica
    from aico_lab.federation.tables import FederatedTable


def _choose_profile(replica: Replica, loser: str, *, keeps_lost: bool) -> None:
    """End the activity of the one of two versions of a personality that is not chosen."""
    winner = rival_of(replica, loser)
    ended, chosen = (winner, loser) if keeps_lost else (loser, winner)
    replica.connection.execute(
        "UPDATE personality_profiles SET active_until = max(active_from, "
        "(SELECT active_from FROM personality_profiles WHERE profile_id = ?)) "
        "WHERE profile_id = ? AND active_until IS NULL",
        [chosen, ended],
    )


def _bring_back(
    replica: Replica, table: FederatedTable, key: str, values: Mapping[str, Any]
) -> list[Decision]:
    """Write a row, and before it those that it refers to and that went with their deletion.

    Returns:
        The conflicts of those that it refers to, which this decides.

    Raises:
        InvalidValue: This device does not have the row that it refers to.
    """
    columns = (*table.keys, *table.columns)
    full = [*key_values(table, key), *(values.get(column) for column in table.columns)]
    ended: list[Decision] = []
    for parent in table.parents:
        above, parent_key = replica.tables[parent.table], full[parent.position]
        if parent_key is None or any(physical(replica.connection, above, [parent_key])):
            continue
        if parent.is_cleared:
            full[parent.position] = None
            continue
        row = replica.connection.fetch_one(
            "SELECT conflict_id, content FROM sync_conflicts WHERE state = 'open' "
            "AND kind = 'deleted' AND table_name = ? AND row_key = ? ORDER BY conflict_id DESC",
            [parent.table, parent_key],
        )
        if row is None:
            raise InvalidValue(
                f"It refers to {parent_key!r} of {parent.table}, which was deleted: decide on a "
                "device that has that as a conflict, or keep the other version."
            )
        ended += _bring_back(replica, above, parent_key, kept_values(row[1]))
        ended += _decide(replica, row[0])
    sets = ", ".join(f"{quoted(c)} = excluded.{quoted(c)}" for c in table.columns)
    # Bytes of a text that the driver cannot bind as one.
    places = ", ".join("CAST(? AS TEXT)" if isinstance(v, RawText) else "?" for v in full)
    replica.connection.execute(
        f"INSERT INTO {table.name} ({', '.join(map(quoted, columns))}) VALUES ({places}) "
        f"ON CONFLICT ({', '.join(map(quoted, table.keys))}) DO UPDATE SET {sets}",
        [bytes(value) if isinstance(value, RawText) else value for value in full],
    )
    return ended


def _decide(replica: Replica, number: int) -> list[Decision]:
    """End a conflict, and those of the row with equal content; keep nothing of the content."""
    ended = replica.connection.fetch_all(
        f"UPDATE sync_conflicts SET state = 'decided', content = '{{}}', decided_at = {NOW} "
        "WHERE state = 'open' AND (table_name, row_key, content) = (SELECT table_name, row_key, "
        "content FROM sync_conflicts WHERE conflict_id = ?) RETURNING table_name, row_key, loser",
        [number],
    )
    return [Decision.of(*one) for one in ended]


def resolve(
    replica: Replica, numbers: Iterable[int], keep: str | Mapping[str, Any]
) -> list[Decision]:
    """Decide conflicts, by new versions of the rows; also those of rows that they refer to.

    Args:
        replica: Inside a transaction.
        numbers: The numbers of the conflicts.
        keep: 'mine' for the version of this device, 'theirs' for the other one, or values of
            columns, of which the others stay as they are now.

    Returns:
        What is to be sent with the new versions.

    Raises:
        UnknownName: There is no such open conflict.
        InvalidValue: The row has no such column, `keep` is none of these, this device does not
            send such rows, or does not have a row that they refer to.
        ConstraintViolated: The row may not have these values.
    """
    found = {conflict.number: conflict for conflict in open_conflicts(replica)}
    for number in numbers:
        if number not in found:
            raise UnknownName(
                f"There is no open conflict {number}: see `aico-lab federate conflicts`."
            )
        if found[number].is_for_others:
            raise InvalidValue(
                f"This device sends no {found[number].table}: decide conflict {number} on another."
            )
    chosen = [found[number] for number in dict.fromkeys(numbers)]
    ended: list[Decision] = []
    for conflict in _in_order(replica, chosen):
        ended += _end(replica, conflict, keep)
    end_needless(replica)
    return ended


def resolve_all(replica: Replica, keep: str) -> tuple[list[Decision], dict[int, str]]:
    """Decide all conflicts of rows that this device sends, but for those that it cannot decide.

    Args:
        replica: Inside a transaction.
        keep: 'mine' or 'theirs'.

    Returns:
        What is to be sent with the new versions, and the reasons by the number of each conflict
        that is left.
    """
    chosen = [conflict for conflict in open_conflicts(replica) if not conflict.is_for_others]
    ended: list[Decision] = []
    left: dict[int, str] = {}
    for conflict in _in_order(replica, chosen):
        try:
            with replica.connection.transaction():
                ended += _end(replica, conflict, keep)
        except (InvalidValue, ConstraintViolated) as error:
            left[conflict.number] = str(error)
    end_needless(replica)
    return ended, left


def _in_order(replica: Replica, conflicts: Iterable[RowConflict]) -> list[RowConflict]:
    """Return conflicts, children before parents: a row brings back what it refers to."""
    places = {name: place for place, name in enumerate(reversed(replica.tables))}
    return sorted(conflicts, key=lambda one: (places[one.table], one.number))


def _end(replica: Replica, conflict: RowConflict, keep: str | Mapping[str, Any]) -> list[Decision]:
    """Decide a conflict, unless the decision of another one has ended it."""
    if not replica.connection.fetch_one(
        "SELECT 1 FROM sync_conflicts WHERE conflict_id = ? AND state = 'open'", [conflict.number]
    ):
        return []
    return [*_resolve(replica, conflict, keep), *_decide(replica, conflict.number)]


def _resolve(
    replica: Replica, conflict: RowConflict, keep: str | Mapping[str, Any]
) -> list[Decision]:
    table = replica.tables[conflict.table]
    if isinstance(keep, str):
        if keep not in ("mine", "theirs"):
            raise InvalidValue("Keep 'mine', 'theirs', or values of columns.")
        keeps_lost = (conflict.device_id in replica.own_ids) == (keep == "mine")
        chosen: Mapping[str, Any] = conflict.lost if keeps_lost else {}
        if conflict.kind == "personality":
            _choose_profile(replica, conflict.key, keeps_lost=keeps_lost)
            chosen = {}
    else:
        if unknown := set(keep) - set(table.columns):
            raise InvalidValue(
                f"Rows of {table.name} have no column {min(unknown)!r} that can be changed: "
                f"choose among {', '.join(table.columns)}."
            )
        chosen = checked(replica.connection, table.name, keep)
    ended: list[Decision] = []
    if chosen:
        # Of two personalities `kept` is another row.
        before = conflict.lost if conflict.kind == "personality" else conflict.kept or conflict.lost
        ended = _bring_back(replica, table, conflict.key, {**before, **chosen})
    replica.send_again([(table.name, conflict.key)])
    return ended
