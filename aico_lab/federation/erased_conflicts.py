"""End the conflicts of erased rows, so that no device keeps a text that another one erased."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from aico_lab.federation.rows import device_of_stream
from aico_lab.federation.taken_in import ctx_of, had

if TYPE_CHECKING:
    from aico_lab.federation.bundles import Changes, Ctx
    from aico_lab.federation.replica import Replica
    from aico_lab.federation.rows import Version
    from aico_lab.federation.tables import FederatedTable


def end_erased(replica: Replica, changes: Changes, ctx: Ctx) -> None:
    """End the conflicts of erased rows whose losing versions the erasing device knew.

    This device may have erased before it got such a version. Versions of a device that the
    statement does not name stay, as in `erasures.concerns`, unless that device itself erased the
    row. A version without which other kept rows could not be brought back ends with the last of
    them.

    Args:
        replica: The device.
        changes: The rows of a bundle.
        ctx: What its author had taken in.
    """
    for name, some in changes.items():
        erased = {one.key: one.version for one in some if one.version.is_erased}
        for number, key, loser in replica.connection.fetch_all(
            "SELECT conflict_id, row_key, loser FROM sync_conflicts WHERE state = 'open' "
            "AND table_name = ? AND row_key IN (SELECT value FROM json_each(?))",
            [name, json.dumps(list(erased))],
        ):
            stream, n, *_ = json.loads(loser)
            if _is_concerned(replica, erased[key], stream) and had(
                replica, ctx_of(replica, erased[key]) or ctx, stream, n
            ):
                replica.connection.execute(
                    "UPDATE sync_conflicts SET is_parent = 1 WHERE conflict_id = ?", [number]
                )
    end_needless(replica)


def _is_concerned(replica: Replica, erased: Version, stream: str) -> bool:
    """Return whether an erasure, by which a row was erased, concerns the versions of a stream."""
    row = replica.connection.fetch_one(
        "SELECT statement ->> 'devices' FROM sync_erasures WHERE erasure_id = ?",
        [erased.erasure_id],
    )
    device_id = device_of_stream(stream)
    return row is None or device_id in json.loads(row[0]) or erased.device_id == device_id


def end_needless(replica: Replica) -> None:
    """End the conflicts of erased rows that are kept only for others which refer to them."""
    found: dict[str, list[tuple[int, str]]] = {}
    for name, number, key in replica.connection.fetch_all(
        "SELECT table_name, conflict_id, row_key FROM sync_conflicts "
        "WHERE state = 'open' AND is_parent"
    ):
        found.setdefault(name, []).append((number, key))
    for table in reversed(replica.tables.values()):  # children before parents
        for number, key in found.get(table.name, ()):
            if not _is_needed(replica, table, key):
                replica.connection.execute(
                    "DELETE FROM sync_conflicts WHERE conflict_id = ?", [number]
                )


def _is_needed(replica: Replica, table: FederatedTable, key: str) -> bool:
    """Return whether a deleted row that is kept refers to a row."""
    return any(
        replica.connection.fetch_one(
            "SELECT 1 FROM sync_conflicts WHERE state = 'open' AND kind = 'deleted' "
            f"AND table_name = ? AND {_stored_value(child, position)} = ? LIMIT 1",
            [child.name, key],
        )
        for child, position in _children(replica, table)
    )


def _children(replica: Replica, table: FederatedTable) -> list[tuple[FederatedTable, int]]:
    """Return the tables whose rows are kept and go with those of a table, and the reference."""
    return [
        (child, parent.position)
        for child in replica.tables.values()
        for parent in child.parents
        if parent.table == table.name and not parent.is_cleared and child.queues_conflicts
    ]


def _stored_value(table: FederatedTable, position: int) -> str:
    """Return SQL for a value of a kept row, by its position in a full row."""
    if position >= len(table.keys):
        name = table.columns[position - len(table.keys)].replace("'", "''")
        return f"(SELECT value FROM json_each(content) WHERE key = '{name}')"
    return "row_key" if len(table.keys) == 1 else f"row_key ->> {position}"
