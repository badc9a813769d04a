"""Read the devices of a federation, its missing and waiting bundles, and its log."""

from __future__ import annotations

import collections
import contextlib
import json
from typing import TYPE_CHECKING

from aico_lab.federation import conflicts, replaced
from aico_lab.federation.bundles import Ctx, FileName, Refused, parse_name
from aico_lab.federation.receiving import BEFORE_IT, NEEDED, Receiver
from aico_lab.federation.results import (
    AuditEntry,
    FederatedDevice,
    FederationStatus,
    MissingBundles,
)
from aico_lab.federation.rows import device_of_stream

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from collections.abc import Set as AbstractSet

    from aico_lab.federation.replica import Replica


def devices(replica: Replica) -> list[FederatedDevice]:
    """Return all devices of the federation, also revoked ones, by name."""
    rows = replica.connection.fetch_all(
        "SELECT device_id, name, trust_level, sync_policy, approved_by, revoked_at, "
        "(SELECT count(*) FROM sync_chain WHERE stream GLOB devices.device_id || '.*'), "
        "(SELECT value FROM sync_state WHERE key = 'last:' || devices.device_id) "
        "FROM devices WHERE recipient IS NOT NULL ORDER BY name, device_id"
    )
    return [
        FederatedDevice(
            device_id, name, device_id == replica.device_id, level,
            tuple(sorted(replica.classes_of(policy))), approved_by, revoked_at, bundles, last,
        )
        for device_id, name, level, policy, approved_by, revoked_at, bundles, last in rows
    ]  # fmt: skip


def labels(known: Iterable[FederatedDevice]) -> dict[str, str]:
    """Return the names of devices by their ids, with the id where several have the same name."""
    known = list(known)
    times = collections.Counter(one.name for one in known)
    return {
        one.device_id: one.name if times[one.name] == 1 else f"{one.name} ({one.device_id[:8]})"
        for one in known
    }


def status(replica: Replica) -> FederationStatus:
    """Return what was sent and received, what is missing, and what waits."""
    connection = replica.connection
    names = replica.spool.names()
    known = {
        str(FileName(*row))
        for row in connection.fetch_all("SELECT stream, n, hash FROM sync_chain")
    }
    refused: dict[str, str] = dict(
        connection.fetch_all("SELECT file, reason FROM sync_refused ORDER BY 1")
    )
    reasons = replica.files("waiting")
    waiting = {
        name: reasons.get(name, "it comes next") for name in sorted(names - known - refused.keys())
    }
    head = connection.fetch_one("SELECT coalesce(max(seq), 0) FROM change_log")
    cursor = json.loads(replica.get("cursor") or '{"seq": 0}')
    return FederationStatus(
        devices=tuple(devices(replica)),
        missing=tuple(_missing(replica, waiting, refused)),
        is_revoked=replica.is_outside,
        receives_only=replica.receives_only,
        waiting=tuple((name, why) for name, why in waiting.items() if replica.waits(why)),
        refused=tuple((refused | replica.files("refused")).items()),
        foreign=tuple((replica.unreadable() | replica.files("foreign")).items()),
        parked=tuple(
            connection.fetch_all(
                "SELECT table_name, row_key, reason FROM sync_parked ORDER BY 1, 2"
            )
        ),
        unsendable=tuple(
            (table, key.decode(errors="backslashreplace"), reason)
            for table, key, reason in connection.fetch_all(
                "SELECT table_name, CAST(row_key AS BLOB), reason FROM sync_unsendable "
                "ORDER BY 1, 2"
            )
        ),
        conflicts=len(conflicts.open_conflicts(replica)),
        unsent=bool(head and head[0] > cursor["seq"]),
    )


def _missing(
    replica: Replica, waiting: Mapping[str, str], refused: Iterable[str]
) -> Iterator[MissingBundles]:
    """Yield the bundles that exist, because others name them, and are not on this device.

    Args:
        replica: The device.
        waiting: The files that wait, with the reasons. Only one whose signature was checked counts:
            anybody who has the folder can write a file with any number. Nor does one of a revoked
            device, which may stay without its predecessors for ever.
        refused: The files that are never taken in.
    """
    there: dict[str, set[int]] = collections.defaultdict(set)
    for stream, n in replica.connection.fetch_all("SELECT stream, n FROM sync_chain"):
        there[stream].add(n)
    for name in map(parse_name, [*waiting, *refused, *replaced.names(replica)]):
        there[name.stream].add(name.n)
    revoked = {one.device_id for one in devices(replica) if not one.trust_level}
    ends = _named(replica, revoked)
    for name in _needed(replica, waiting, revoked):
        ends[name.stream] = max(ends[name.stream], name.n)
    for stream, end in sorted(ends.items()):
        last = 0
        for n in sorted({n for n in there[stream] if n <= end} | {end + 1}):
            if n > last + 1:
                yield MissingBundles(device_of_stream(stream), stream, last + 1, n - 1)
            last = n


def _needed(
    replica: Replica, waiting: Mapping[str, str], revoked: AbstractSet[str]
) -> Iterator[FileName]:
    """Yield the waiting bundles that others come before, and those that they need."""
    for file, reason in waiting.items():
        name = parse_name(file)
        if name.device in revoked:
            continue
        if reason in {BEFORE_IT, NEEDED}:
            yield name
        if reason == NEEDED:
            with contextlib.suppress(Refused):
                yield from map(parse_name, Receiver(replica).open(name).header.needs)


def _named(replica: Replica, revoked: AbstractSet[str]) -> collections.Counter[str]:
    """Return the lengths that streams have by what the author of some bundle had taken in."""
    ends: collections.Counter[str] = collections.Counter()
    # What a device had taken in only grows along each of its streams.
    for author, text in replica.connection.fetch_all(
        "SELECT substr(stream, 1, 16), ctx FROM sync_chain JOIN "
        "(SELECT stream, max(n) AS n FROM sync_chain GROUP BY stream) USING (stream, n)"
    ):
        for stream, (length, _) in Ctx(json.loads(text) or {}).items():
            # What a revoked device wrote counts only if another one had taken it in.
            if author not in revoked or device_of_stream(stream) != author:
                ends[stream] = max(ends[stream], length)
    return ends


def log(replica: Replica) -> list[AuditEntry]:
    """Return the events of the federation on this device, oldest first."""
    rows = replica.connection.fetch_all(
        "SELECT at, event, device_id, detail FROM sync_audit ORDER BY audit_id"
    )
    return [AuditEntry(*row) for row in rows]
