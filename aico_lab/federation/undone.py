"""Imports that were undone: hashes of the keys of their rows, which all devices have deleted.

Another device does not know what an import had added. By the hashes it finds the rows of the import
that it keeps, because it had changed them without knowing of their deletion.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from aico_lab.federation.bundles import Refused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aico_lab.adapters.libsql import Connection
    from aico_lab.federation.replica import Replica


def row_hash(table: str, key: str) -> str:
    """Return the hash of a row's key."""
    return hashlib.blake2b(f"{table}\0{key}".encode(), digest_size=8).hexdigest()


def note(replica: Replica, import_id: str, since: int) -> None:
    """Note the rows that were deleted since a change, in the open transaction, for `statement`."""
    rows = replica.connection.fetch_all(
        "SELECT DISTINCT table_name, CAST(row_key AS TEXT) FROM change_log "
        "WHERE seq > ? AND op = 'delete' AND (table_name, row_key) IN "
        "(SELECT table_name, row_key FROM sync_rows)",
        [since],
    )
    if rows:
        replica.put(f"undoing:{import_id}", json.dumps(sorted(row_hash(*row) for row in rows)))


def statement(replica: Replica, import_id: str) -> dict[str, Any] | None:
    """Return the statement on an import that was undone; None if nobody else had its rows."""
    hashes = replica.get(f"undoing:{import_id}")
    if hashes is None:
        return None
    replica.connection.execute("DELETE FROM sync_state WHERE key = ?", [f"undoing:{import_id}"])
    return {"kind": "undone", "import": import_id, "rows": json.loads(hashes)}


def receive(replica: Replica, said: Mapping[str, Any]) -> None:
    """Store a statement on an import that was undone.

    Raises:
        Refused: It is malformed.
    """
    import_id, hashes = said["import"], said["rows"]
    if not isinstance(hashes, list) or not all(
        isinstance(one, str) for one in [import_id, *hashes]
    ):
        raise Refused("its statements are malformed")
    replica.put(f"undone:{import_id}", json.dumps(hashes))


def undone_imports(connection: Connection) -> dict[str, set[str]]:
    """Return the hashes of the rows of every import that was undone."""
    return {
        key.removeprefix("undone:"): set(json.loads(hashes))
        for key, hashes in connection.fetch_all(
            "SELECT key, value FROM sync_state WHERE key GLOB 'undone:*'"
        )
    }
