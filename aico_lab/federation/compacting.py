"""Write the rows as they are into new bundles, which replace the old ones; see `replaced`.

Changed and erased texts are then in no file any more, except for the last sent version of a row
which now has a text that cannot be sent. The same is done with the rows of bundles
that are lost, such as by a backup without them: in their old versions they change nothing where
they are known.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from aico_lab.federation import conflicts, control, erasures, replaced
from aico_lab.federation.bundles import (
    ROWS,
    SIZE,
    Changes,
    FileName,
    Refused,
    RowChange,
    parse_name,
    read_changes,
)
from aico_lab.federation.receiving import Receiver
from aico_lab.federation.replaced import Link
from aico_lab.federation.rows import Version, digest_of, from_columns, physical
from aico_lab.federation.sealing import seal, write
from aico_lab.federation.tables import BASE, select_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from aico_lab.federation.replica import Replica
    from aico_lab.federation.tables import FederatedTable

_AT_ONCE: Final = 250
"""Rows that are read at once, since each may have a million characters."""


@dataclass(frozen=True, slots=True)
class Compacted:
    """The result of compacting.

    Attributes:
        rows: The number of rows in the new bundles, also of deleted ones, which are only keys.
        bundles: The number of new bundles.
        replaced: The number of bundles that they replace.
        before: The size in bytes of all bundles before.
        after: Their size afterwards.
    """

    rows: int = 0
    bundles: int = 0
    replaced: int = 0
    before: int = 0
    after: int = 0


def compact(replica: Replica) -> tuple[int, int, int]:
    """Replace all bundles of every class that has new ones since it was compacted last.

    Args:
        replica: Inside a transaction, after sealing.

    Returns:
        The numbers of rows, of new bundles, and of replaced ones.
    """
    chains = {class_: _chain(replica, class_) for class_ in replica.own_classes}
    gone = replaced.names(replica)
    changed = {
        class_
        for class_, links in chains.items()
        if _mark(links, gone) != (replica.get(f"compacted:{class_}") or "")
    }
    if not changed:
        return 0, 0, 0
    # The statements are in the base class, so that one is always due; parents come first.
    due = [class_ for class_ in replica.classes if class_ in {BASE, *changed}]
    chains[BASE] = _without_trust_and_keys(replica, chains[BASE])
    written = _replace(replica, {class_: chains[class_] for class_ in due}, whole=True)
    gone = replaced.names(replica)
    for class_ in due:
        replica.put(f"compacted:{class_}", _mark(_chain(replica, class_), gone))
    return *written, sum(len(chains[class_]) for class_ in due)


def _without_trust_and_keys(replica: Replica, links: list[Link]) -> list[Link]:
    """Return bundles without those of others on trust, or any on keys of unheld classes.

    Without them, a device that does not know yet that this one is trusted could not read its state,
    and one that was revoked would not learn of it. And this device's own statements hand out only
    the keys that it has, of the classes that it knows.
    """
    kept, there = set(), replica.spool.names()
    rows = replica.connection.fetch_all(
        "SELECT epoch FROM sync_epochs "
        "WHERE identity IS NULL OR class NOT IN (SELECT value FROM json_each(?))",
        [json.dumps(replica.classes)],
    )
    lacking = {epoch for (epoch,) in rows}
    receiver = Receiver(replica)
    for link in links:
        is_own = link.stream.startswith(f"{replica.device_id}.")
        if link.file not in there or (is_own and not lacking):
            continue
        with contextlib.suppress(Refused):
            opened = receiver.open(parse_name(link.file))
            if not opened.rows() and any(
                (one["kind"] in ("approve", "revoke") and not is_own)
                or (one["kind"] == "epoch" and one["epoch"] in lacking)
                for one in opened.header.statements
            ):
                kept.add(link)
    return [link for link in links if link not in kept]


def send_again(replica: Replica) -> bool:
    """Send the rows of lost bundles again, in the same versions; return whether there were any."""
    lost = {link: class_ for class_, links in _lost(replica).items() for link in links}
    if not lost:
        return False
    for state, links in replaced.states(replica).items():
        if any(link.stream == state.stream and link.n <= state.n for link in lost):
            class_ = next(c for link, c in lost.items() if link.stream == state.stream)
            lost |= dict.fromkeys(links, class_)
    with replica.connection.transaction():
        seal(replica)  # else rows that changed since do not have the content of their version
        _replace(
            replica,
            {c: some for c in replica.classes if (some := [one for one in lost if lost[one] == c])},
            whole=False,
        )
    return True


def begin_streams_after_loss(replica: Replica) -> None:
    """Begin new streams if bundles of this device are lost, which may have been restored."""
    lost = _lost(replica)
    if any(
        link.stream.startswith(f"{replica.device_id}.") for some in lost.values() for link in some
    ):
        with replica.connection.transaction():
            for class_ in replica.own_streams().values():
                replica.begin_stream(class_)


def _lost(replica: Replica) -> dict[str, list[Link]]:
    """Return the bundles that were taken in, and have no file that others could get, by class."""
    there = replica.spool.names() | replaced.names(replica)
    found: dict[str, list[Link]] = {}
    for class_ in replica.own_classes:
        if some := [link for link in _chain(replica, class_) if link.file not in there]:
            found[class_] = some
    return found


def _replace(replica: Replica, chains: dict[str, list[Link]], *, whole: bool) -> tuple[int, int]:
    """Write the states of some bundles, and the statement on them; return rows and new bundles.

    Args:
        replica: Inside a transaction.
        chains: The bundles to replace, by class.
        whole: Whether the states have all rows of the classes, or those of these bundles.
    """
    rows = bundles = 0
    statements = []
    everything = [*control.everything(replica), *replaced.known(replica)]
    for class_, links in chains.items():
        origins = None if whole else {(link.stream, link.n) for link in links}
        # Whoever missed an erasure learns of it before the deletions, which the states have.
        said = erasures.known(replica) if class_ == BASE else []
        count, number, last = _write_state(replica, class_, origins, said)
        rows, bundles = rows + count, bundles + number
        statements.append(replaced.replacement(class_, last, links))
    write(replica, BASE, {}, [*everything, _seen(replica), *statements])
    for statement in statements:
        replaced.receive(replica, statement)
    replaced.take_effect(replica)
    return rows, bundles + 1


def _write_state(
    replica: Replica,
    class_: str,
    origins: AbstractSet[tuple[str, int]] | None,
    statements: Sequence[dict[str, Any]],
) -> tuple[int, int, FileName]:
    replica.begin_stream(class_)
    said = list(statements)
    batch: Changes = {}
    count = size = total = bundles = 0
    last: FileName | None = None
    decided = conflicts.decided(replica, class_)

    def flush() -> FileName:
        name = write(replica, class_, batch, said, decided=decided[:ROWS], is_state=True)
        batch.clear()
        del decided[:ROWS]
        said.clear()
        return name

    for table, change in _rows(replica, class_, origins):
        batch.setdefault(table, []).append(change)
        count, total = count + 1, total + 1
        size += sum(len(value) for value in change.content or () if isinstance(value, str))
        if count >= ROWS or size >= SIZE:
            last, count, size, bundles = flush(), 0, 0, bundles + 1
    while batch or decided or last is None:
        last, bundles = flush(), bundles + 1
    return total, bundles, last


def _rows(
    replica: Replica, class_: str, origins: AbstractSet[tuple[str, int]] | None
) -> Iterator[tuple[str, RowChange]]:
    """Yield the rows of a class in their versions, also parked ones."""
    for table in replica.tables.values():
        if table.class_ == class_:
            parked = (one for one in _parked(replica, table) if _is_of(one.version, origins))
            for change in chain(parked, _stored(replica, table, origins)):
                yield table.name, change


def _stored(
    replica: Replica, table: FederatedTable, origins: AbstractSet[tuple[str, int]] | None
) -> Iterator[RowChange]:
    others: dict[str, Version] = {}
    for rows in _pages(replica, table):
        versions = {key: Version(*version) for key, *version in rows}
        wanted = {key: one for key, one in versions.items() if _is_of(one, origins)}
        alive = [key for key, version in wanted.items() if version.is_alive]
        there, _ = physical(replica.connection, table, alive)
        for key, version in wanted.items():
            if not version.is_alive:
                yield RowChange(key, version, None)
            elif key in there and digest_of(table, key, there[key]) == version.digest:
                yield RowChange(key, version, there[key])
            else:
                others[key] = version
    # The text of these rows cannot be sent now, so their last sent version is only in a bundle.
    yield from _from_bundles(replica, table, others)


def _from_bundles(
    replica: Replica, table: FederatedTable, wanted: Mapping[str, Version]
) -> Iterator[RowChange]:
    """Yield versions that the tables no longer have, from the bundles that have them."""
    if not wanted:
        return
    receiver, left = Receiver(replica), dict(wanted)
    of_class = {link.file for link in _chain(replica, table.class_)}
    for name in map(parse_name, sorted(replica.spool.names() & of_class)):
        with contextlib.suppress(Refused):
            opened = receiver.open(name)
            schema = replica.schema_of(opened.header.class_)
            for change in read_changes(opened, replica.tables, schema).get(table.name, ()):
                if left.get(change.key) == change.version:
                    del left[change.key]
                    yield change


def _pages(replica: Replica, table: FederatedTable) -> Iterator[list[Any]]:
    """Yield the keys and versions of rows, some at a time, in the order in which they are sent."""
    columns = "row_key, cl, stamp, digest, stream, n"
    deleted = ""
    if table.place:
        deleted = "AND cl % 2 = 0"
        after_place = -(1 << 62)
        while rows := replica.connection.fetch_all(
            f"SELECT t.{table.place}, {columns} FROM {table.name} AS t JOIN sync_rows AS r "
            f"ON r.table_name = ? AND r.row_key = {select_key(table, 't')} AND cl % 2 = 1 "
            f"JOIN sync_streams USING (stream_id) WHERE t.{table.place} > ? "
            f"ORDER BY t.{table.place} LIMIT ?",
            [table.name, after_place, _AT_ONCE],
        ):
            after_place = rows[-1][0]
            yield [row[1:] for row in rows]
    after = ""
    while rows := replica.connection.fetch_all(
        f"SELECT {columns} FROM sync_rows JOIN sync_streams USING (stream_id) "
        f"WHERE table_name = ? AND row_key > ? {deleted} ORDER BY row_key LIMIT ?",
        [table.name, after, _AT_ONCE],
    ):
        after = rows[-1][0]
        yield rows


def _parked(replica: Replica, table: FederatedTable) -> list[RowChange]:
    found = []
    for key, text in replica.connection.fetch_all(
        "SELECT row_key, version FROM sync_parked WHERE table_name = ?", [table.name]
    ):
        head, stored = json.loads(text)
        found.append(RowChange(key, Version(*head), from_columns(table, stored)))
    return found


def _is_of(version: Version, origins: AbstractSet[tuple[str, int]] | None) -> bool:
    return origins is None or (version.stream, version.n) in origins


def _chain(replica: Replica, class_: str) -> list[Link]:
    return [
        Link(*row)
        for row in replica.connection.fetch_all(
            "SELECT stream, n, hash, prev FROM sync_chain WHERE class = ?", [class_]
        )
    ]


def _mark(links: Sequence[Link], gone: AbstractSet[str]) -> str:
    """Return a digest of the bundles that are not replaced."""
    there = sorted(link.file for link in links if link.file not in gone)
    return hashlib.sha256("\n".join(there).encode()).hexdigest()[:32] if there else ""


def _seen(replica: Replica) -> dict[str, Any]:
    """Return the statement on bundles that trusted devices had, and this one has not taken in.

    It was in the contexts of the replaced bundles.
    """
    rows = replica.connection.fetch_all(
        "SELECT hash FROM sync_seen WHERE hash NOT IN (SELECT hash FROM sync_chain) ORDER BY 1"
    )
    return {"kind": "seen", "heads": [hash_ for (hash_,) in rows]}
