"""Which versions of rows the author of a bundle had taken in, and so knew."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from aico_lab.federation.bundles import Ctx
from aico_lab.federation.replaced import UNKNOWN_CTX

if TYPE_CHECKING:
    from aico_lab.federation.replica import Replica
    from aico_lab.federation.rows import Version


def knew(replica: Replica, version: Version, other: Version) -> bool:
    """Return whether the author of a version had taken in another one of the same row."""
    if version.stream == other.stream:
        # Two bundles of one number are of a copied home, whose copies do not know of each other.
        return version.n > other.n and len(_hashes(replica, other.stream, other.n)) == 1
    row = replica.connection.fetch_one(
        "SELECT ctx FROM sync_chain WHERE stream = ? AND n = ?", [version.stream, version.n]
    )
    if row is not None and row[0] == UNKNOWN_CTX:  # the author of the state knew all that it has
        return True
    return row is not None and had(replica, Ctx(json.loads(row[0])), other.stream, other.n)


def had(replica: Replica, ctx: Ctx, stream: str, n: int) -> bool:
    """Return whether all bundles `n` of a stream had been taken in; copied homes write several."""
    if not ctx.has(stream, n):
        return False
    hashes = _hashes(replica, stream, n)
    if len(hashes) <= 1:
        return True
    before = replica.connection.fetch_all(
        "WITH RECURSIVE before(n, hash) AS (SELECT n, hash FROM sync_chain WHERE stream = ?1 "
        "AND hash IN (SELECT value FROM json_each(?2)) UNION SELECT c.n - 1, c.prev "
        "FROM before JOIN sync_chain AS c ON c.stream = ?1 AND c.n = before.n "
        "AND c.hash = before.hash WHERE c.n > ?3) SELECT hash FROM before WHERE n = ?3",
        [stream, json.dumps(ctx[stream][1]), n],
    )
    return hashes <= {hash_ for (hash_,) in before}


def _hashes(replica: Replica, stream: str, n: int) -> set[str]:
    rows = replica.connection.fetch_all(
        "SELECT hash FROM sync_chain WHERE stream = ? AND n = ?", [stream, n]
    )
    return {hash_ for (hash_,) in rows}


def ctx_of(replica: Replica, version: Version) -> Ctx | None:
    """Return what the author of a version had taken in, or None if its bundle has not come.

    It need not be the author of the bundle that it came with, since a state has all versions.
    """
    row = replica.connection.fetch_one(
        "SELECT ctx FROM sync_chain WHERE stream = ? AND n = ? AND ctx <> ?",
        [version.stream, version.n, UNKNOWN_CTX],
    )
    return Ctx(json.loads(row[0])) if row else None
