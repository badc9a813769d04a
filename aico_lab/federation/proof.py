"""Proof that two devices hold the same rows, read from the tables themselves.

The rows are counted and added up in buckets by the hash of their key, so that two devices find the
rows that differ without exchanging all of them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aico_lab.federation.rows import digest_of, physical, stored_versions
from aico_lab.federation.tables import select_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from aico_lab.federation.replica import Replica
    from aico_lab.federation.tables import FederatedTable

BUCKETS: Final = 256
_MODULUS: Final = 1 << 128
_AT_ONCE: Final = 1_000


@dataclass(frozen=True, slots=True)
class RowsProof:
    """The rows of a device in numbers that are equal on devices with equal rows.

    Attributes:
        rows: The number of rows of every table of the classes that the device holds.
        sums: For every table, the sum of its rows' digests in each bucket, as hexadecimal digits.
    """

    rows: dict[str, int]
    sums: dict[str, list[str]]

    def differing(self, other: RowsProof) -> dict[str, list[int]]:
        """Return the buckets of every common table in which two devices differ."""
        found = {
            table: [
                bucket
                for bucket, (mine, theirs) in enumerate(
                    zip(self.sums[table], other.sums[table], strict=True)
                )
                if mine != theirs
            ]
            for table in self.sums.keys() & other.sums.keys()
        }
        return {table: buckets for table, buckets in sorted(found.items()) if buckets}

    def not_compared(self, other: RowsProof) -> dict[str, int]:
        """Return the tables that only one of two devices holds, with their numbers of rows."""
        alone = self.sums.keys() ^ other.sums.keys()
        return {table: (self.rows | other.rows)[table] for table in sorted(alone)}


@dataclass(frozen=True, slots=True)
class Verified:
    """The result of comparing the tables with the versions that were sent and received.

    Attributes:
        proof: The rows of this device.
        differing: Rows that differ from their version, as table and key: they changed since the
            last sync or on a device that only receives, or another program wrote them without the
            change feed.
        repaired: Whether those rows were marked to be sent.
    """

    proof: RowsProof
    differing: list[tuple[str, str]]
    repaired: bool


def prove(replica: Replica) -> RowsProof:
    """Return the proof of the rows of this device."""
    rows, sums, held = {}, {}, replica.held_classes
    for table in replica.tables.values():
        if table.class_ not in held:
            continue
        count, buckets = 0, [0] * BUCKETS
        for digests in _digests(replica, table):
            for key, digest in digests.items():
                count += 1
                bucket = bucket_of(key)
                buckets[bucket] = (buckets[bucket] + int(digest, 16)) % _MODULUS
        rows[table.name], sums[table.name] = count, [f"{number:032x}" for number in buckets]
    return RowsProof(rows, sums)


def bucket_of(key: str) -> int:
    """Return the bucket of a row."""
    return hashlib.blake2b(key.encode(), digest_size=1).digest()[0]


def rows_in(replica: Replica, buckets: Mapping[str, list[int]]) -> dict[str, dict[str, str]]:
    """Return the digests of the rows in some buckets of some tables, by key."""
    return {
        name: {
            key: digest
            for digests in _digests(replica, replica.tables[name])
            for key, digest in digests.items()
            if bucket_of(key) in numbers
        }
        for name, numbers in buckets.items()
    }


def verify(replica: Replica, *, repair: bool) -> Verified:
    """Compare all rows with their versions.

    Args:
        replica: Inside a transaction.
        repair: Mark the rows that differ, so that they are sent with the next sync.
    """
    differing, held = [], replica.held_classes
    for table in replica.tables.values():
        if table.class_ not in held:
            continue
        for digests in _digests(replica, table):
            known = stored_versions(replica.connection, table.name, digests)
            differing += [
                (table.name, key)
                for key, digest in digests.items()
                if key not in known or known[key].digest != digest
            ]
        differing += [
            (table.name, key)
            for (key,) in replica.connection.fetch_all(
                f"SELECT row_key FROM sync_rows WHERE table_name = ? AND cl % 2 = 1 "
                f"AND row_key NOT IN (SELECT {select_key(table, table.name)} FROM {table.name})",
                [table.name],
            )
        ]
    if repair:
        replica.send_again(differing)
    return Verified(prove(replica), differing, repair and bool(differing))


def _digests(replica: Replica, table: FederatedTable) -> Iterator[dict[str, str]]:
    """Yield the digests of all readable rows by key, some at a time."""
    key, after = select_key(table, table.name), ""
    while True:
        keys = [
            found
            for (found,) in replica.connection.fetch_all(
                f"SELECT {key} AS k FROM {table.name} WHERE {key} > ? ORDER BY k LIMIT ?",
                [after, _AT_ONCE],
            )
        ]
        if not keys:
            return
        after = keys[-1]
        there, _ = physical(replica.connection, table, keys)
        yield {one: digest_of(table, one, content) for one, content in there.items()}
