"""Describe a home, and check whether each of its parts is sound."""

from __future__ import annotations

import contextlib
import re
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING

from aico_lab.adapters import duckdb as duckdb_adapter
from aico_lab.adapters.libsql_errors import SHOWN, on_one_line
from aico_lab.adapters.sql_text import escaped
from aico_lab.adapters.temporary_folders import left_over
from aico_lab.embeddings.segment_words import REMEDY
from aico_lab.errors import (
    AicoLabError,
    CorruptDatabase,
    DeviceRevoked,
    DiskFull,
    ErasureIncomplete,
    HomeBusy,
    HomeNotWritable,
    NeverSynced,
    SchemaTampered,
    StorageError,
    SyncBusy,
    SyncError,
)
from aico_lab.etl import snapshots
from aico_lab.etl.misplaced import check_places
from aico_lab.federation import erasures
from aico_lab.home.files import held
from aico_lab.home.keys import UNFINISHED, is_of_former_version, slots_of
from aico_lab.home.staged import RESTORED
from aico_lab.importing.classifying import count_dangling
from aico_lab.importing.rescoring import count_due
from aico_lab.integrity.guard import OUTSIDE, damaged, examine_unwritable, last_uncompared
from aico_lab.integrity.review import review
from aico_lab.lab import Lab
from aico_lab.messages.simulated import is_simulated
from aico_lab.messages.timestamps import plausible_times
from aico_lab.schema import SchemaRegistry, feed
from aico_lab.schema.backup import backups_of, check_backup
from aico_lab.schema.discovery import discover
from aico_lab.schema.drift import Drift
from aico_lab.schema.versions import given_up

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from aico_lab.config import Settings

PACKAGES = ("aico-lab", "libsql-experimental", "duckdb", "polars", "pyarrow", "altair", "papermill")
PLAIN_HEADER = b"SQLite format 3\0"
CURSOR = "database_id, seq, anchor"
ROOM = 1 << 28  # free bytes below which a sync of a small home may fail


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check; `detail` is a fact, or a problem with its remedy."""

    check: str
    ok: bool
    detail: str


def describe(lab: Lab) -> dict[str, dict[str, object]]:
    """Return versions, sizes in bytes, rows by table, and the state of the warehouse."""
    primary = lab.primary
    kept = snapshots.published(lab.home.snapshots)
    backups = backups_of(lab.home.primary)
    with primary.snapshot():
        head = feed.head(primary)
        waiting = _waiting(lab, head)
        rows: dict[str, object] = {**_rows(lab)}
        span = _data_span(lab)
    return {
        "home": {
            "path": str(lab.home.path),
            "encrypted": "yes" if lab.encrypted else "no",
            "simulated": "yes" if is_simulated(primary) else "no",
        },
        "versions": {name: version(name) for name in PACKAGES},
        "bytes": {
            "primary": _size(lab.home.path, "aico.db*"),
            "warehouse": _size(lab.home.warehouse, "**/*"),
            "vectors": _size(lab.home.path, "vectors.age") + _size(lab.home.vectors, "**/*"),
            "cache": _size(lab.home.cache, "**/*"),
            "reports": _size(lab.home.reports, "**/*"),
            "backups": _size(lab.home.path, "backups/*"),
            "federation": _size(lab.home.path, "federation/**/*"),
            "temporary": _size(lab.home.temporary, "**/*"),
        },
        "devices": _devices(lab),
        "rows": rows,
        "data_span": span,
        "warehouse": {
            "snapshot": snapshots.newest(lab.home.snapshots) or "none; run `aico-lab sync`",
            "snapshots kept": ", ".join(map(str, kept)) or "none",
            "changes not yet synced": waiting,
        },
        "backups": {"kept": len(backups), "newest": backups[-1].name if backups else "none"},
    }


def diagnose(settings: Settings) -> list[Finding]:
    """Run all checks, except those that depend on a failed check."""
    findings: list[Finding] = []

    def check(name: str, action: Callable[[], str]) -> bool:
        findings.append(check_one(name, action))
        return findings[-1].ok

    check("disk", lambda: _check_disk(settings.home))
    opened: list[Lab] = []

    def open_home() -> str:
        opened.append(
            Lab.open(settings.home, key_file=settings.key_file, passphrase=settings.passphrase)
        )
        return f"{settings.home}, opened by its key"

    if check("home and key", open_home):
        with opened[0] as lab:
            check("slots", lambda: _check_slots(lab))
            findings += diagnose_stores(lab)
    return findings


def diagnose_stores(lab: Lab, *, with_seal: bool = True) -> list[Finding]:
    """Check every store of an opened home.

    Args:
        lab: The opened home.
        with_seal: Compare the pages of the primary database with its seal, too.
    """
    findings: list[Finding] = []

    def check(name: str, action: Callable[[Lab], str]) -> bool:
        findings.append(check_one(name, lambda: action(lab)))
        return findings[-1].ok

    if check("primary database", _check_primary):
        if with_seal:
            check("seal", _check_seal)
        check("schema", _check_schema)
        check("sentiment", _check_sentiment)
        check("encryption", _check_encryption)
        check("backups", _check_own_backups)
        check("former databases", _check_backups)
        check("erasures", _check_erasures)
        check("devices", _check_devices)
        check("warehouse", _check_warehouse)
    check("snapshots", _check_snapshots)
    check("writer", _check_writer)
    check("temporary files", _check_temporary)
    check("vectors", _check_vectors)
    check("cache", _check_cache)
    check("kept answers", _check_answers)
    return findings


def check_one(name: str, action: Callable[[], str]) -> Finding:
    """Return the finding of one check, which returns a fact or raises."""
    try:
        return Finding(name, ok=True, detail=action())
    except AicoLabError as error:
        return Finding(name, ok=False, detail=str(error))


def _check_slots(lab: Lab) -> str:
    """Count the slots, and look for a rotation of the key that was interrupted."""
    if lab.storage.keys.former is not None:
        raise HomeBusy(UNFINISHED)
    if not lab.encrypted:
        return "none, as the home is not encrypted"
    marker = lab.home.read_marker()
    kinds = [slot["kind"] for slot in slots_of(marker)]
    if is_of_former_version(marker):
        return f"one, a {kinds[0]}, of an earlier version; `aico-lab keys add` adds more"
    number = f"{len(kinds)} open the home" if len(kinds) > 1 else "one opens the home"
    return f"{number}: {', '.join(kinds)}; unaltered"


def _check_disk(home: Path) -> str:
    folder = next((path for path in (home, *home.parents) if path.exists()), home)
    free = shutil.disk_usage(folder).free
    if free < ROOM:
        raise DiskFull(f"Only {free >> 20} MB are free where {home} lies: free some space.")
    return f"{free >> 30} GB free"


def _check_primary(lab: Lab) -> str:
    rows = lab.primary.fetch_all("PRAGMA integrity_check")
    if rows != [("ok",)]:
        found = on_one_line(rows[0][0])[:SHOWN]
        is_derived = all("segments_search" in row[0] for row in rows)
        remedy = REMEDY if is_derived else "restore it from a backup"
        raise CorruptDatabase(f"aico.db is damaged ({found}): {remedy}.")
    broken = lab.primary.fetch_all("PRAGMA foreign_key_check")
    if broken:
        raise CorruptDatabase(
            f"{len(broken)} rows of aico.db refer to rows that do not exist: restore a backup."
        )
    dangling = count_dangling(lab.primary)
    replies = f"; {dangling:,} replies are to messages that are not stored" if dangling else ""
    return f"sound, and every reference leads to a row{replies}"


def _check_seal(lab: Lab) -> str:
    """Compare every page with the seal, by which changes without the key are noticed."""
    seal = lab.primary.seal
    if seal is None:
        if not lab.encrypted:
            return "none: this home has no key, so that nothing could vouch for it"
        examine_unwritable(lab.storage)
        return "every page is as it was sealed"
    if changed := seal.examine(lab.primary):
        found = review(lab.primary, lab.storage.reader, seal, changed)
        if found.damage:
            raise damaged(found.describe())
        return f"{OUTSIDE}: {found.describe()}; the next `aico-lab sync` seals that"
    last, told = seal.read(), last_uncompared(lab.primary)
    told += told and "; `aico-lab verify --deep` tells it once more"
    if last.deep_at is None:
        return (
            "every page is as it was sealed; `aico-lab verify --deep` was not run since all were "
            f"sealed at once{told}"
        )
    day = datetime.fromtimestamp(last.deep_at, UTC)
    outcome = "found no damage in what it can compare" if last.deep_ok else "found damage"
    return (
        f"every page is as it was sealed; the last deep check, on {day:%Y-%m-%d %H:%M} UTC, "
        f"{outcome}{told}"
    )


def _check_schema(lab: Lab) -> str:
    discover()  # plugins of installed packages, whose tables would otherwise count as drift
    registry = SchemaRegistry.default
    waiting = registry.pending(lab.primary)
    if registry.drift(lab.primary) != Drift():
        raise SchemaTampered(
            "The schema differs from what was applied: see `aico-lab schema verify`."
        )
    if waiting:
        return f"as applied; `aico-lab schema migrate` will update {', '.join(waiting)}"
    return (
        f"{len(registry.wanted(lab.primary))} schemas up to date, unchanged since they were applied"
    )


def _check_sentiment(lab: Lab) -> str:
    if due := count_due(lab.primary):
        return (
            f"{due:,} messages have no score, or one of an older version; `aico-lab rescore` will "
            "score them"
        )
    return "all scores are up to date"


def _check_encryption(lab: Lab) -> str:
    if not lab.encrypted:
        return "none, as chosen when the home was created"
    with lab.home.primary.open("rb") as file:
        if file.read(len(PLAIN_HEADER)) == PLAIN_HEADER:
            raise CorruptDatabase("aico.db is not encrypted, though this home has a key.")
    return "on"


def _waiting(lab: Lab, head: feed.Cursor) -> int | str:
    """Return the number of changes that the newest snapshot does not hold, or why it is unknown."""
    try:
        cursor = _cursor(lab)
    except NeverSynced:
        return head.seq
    except StorageError as damage:
        return f"unknown: {damage}"
    if not feed.continues(lab.primary, cursor):
        return "all: aico.db was restored or replaced"
    return head.seq - cursor.seq


def _check_warehouse(lab: Lab) -> str:
    try:
        newest, _ = snapshots.find(lab.home.snapshots)
    except NeverSynced:
        return "no snapshot yet; run `aico-lab sync`"
    with lab.primary.snapshot():
        head, here = feed.head(lab.primary), _rows(lab)
        if lost := _lost_tables(lab, here):
            return (
                f"snapshot {newest} opens; aico.db no longer has the table {', '.join(lost)}, "
                "so `aico-lab sync` needs --on-change"
            )
    behind = f"snapshot {newest} opens; `aico-lab sync` will bring it up to date"
    if _cursor(lab) != head:
        return behind
    counts = ", ".join(
        f"""(SELECT count(*) FROM raw."{table}") + {bound}"""
        for table in here
        for bound in _quarantined(table)
    )
    # The cursor again, in the same query: a sync may have published another snapshot meanwhile.
    cursor, there = _ask(lab, f"SELECT {CURSOR}, {counts} FROM meta.state")
    if cursor != head:
        return behind
    for (table, rows), least, most in zip(here.items(), there[::2], there[1::2], strict=True):
        if not least <= rows <= most:
            raise CorruptDatabase(
                f"{table} has {rows} rows in aico.db and {least} in snapshot {newest}: "
                "run `aico-lab sync --full`."
            )
    return f"snapshot {newest} has as many rows as aico.db in every table"


def stores_behind(lab: Lab) -> list[str]:
    """Return which of the warehouse, the vectors and the cache lack changes of the rows.

    One that does not exist yet or cannot be read counts, too; of the latter `diagnose` tells why.
    """
    from aico_lab.projections import cache, vectors

    stores: dict[str, Callable[[], bool]] = {
        "warehouse": lambda: _cursor(lab) != feed.head(lab.primary),
        "vectors": lambda: vectors.is_behind(lab.primary, lab.home, lab.storage.keys),
        "cache": lambda: cache.is_behind(lab.primary, lab.home, lab.storage.keys),
    }
    found = []
    for name, is_behind in stores.items():
        try:
            if is_behind():
                found.append(name)
        except (StorageError, SyncError):
            found.append(name)
    return found


def _quarantined(table: str) -> tuple[str, str]:
    """Return SQL for the least and the greatest number of rows that a table has in quarantine.

    They differ only for rows with NULL in their key, which all have the same name: misfits of
    different columns may be of one row or of several.
    """
    bounds = ("max(n)", "CASE WHEN row_key LIKE '%NULL%' THEN sum(n) ELSE max(n) END")
    least, most = (
        f"""(SELECT coalesce(sum(n), 0)::BIGINT FROM (
                SELECT {bound} AS n FROM (
                    SELECT row_key, count(*) AS n FROM quarantine.misfits
                    WHERE table_name = '{table}' GROUP BY row_key, column_name
                ) GROUP BY row_key
            ))"""
        for bound in bounds
    )
    return least, most


def _check_temporary(lab: Lab) -> str:
    """Look for data that killed programs left."""
    from aico_lab.adapters.sealed import left_open

    if (prepared := lab.home.path / RESTORED).exists():
        return (
            f"{prepared.name}, of a restoration that was killed or is going on; the next "
            "`aico-lab sync`, `restore` or `forget` removes it"
        )
    if lab.encrypted and (files := lab.devices.federation.replica.spool.unfinished()):
        return (
            f"{_counted(len(files), 'files')} in federation/spool, left by programs that were "
            "killed or being written; `aico-lab federate sync` removes them"
        )
    folders = left_over(lab.home.temporary) + left_open()
    if not folders:
        return "none left by programs that were killed"
    size = sum(_size(folder, "**/*") for folder in folders)
    return (
        f"{len(folders)} folders ({size >> 20} MB) left by programs that were killed; "
        "`aico-lab sync` will remove them"
    )


def _check_snapshots(lab: Lab) -> str:
    """Read every kept snapshot completely, and check that its file is as published."""
    check_places(lab.home)
    kept = snapshots.published(lab.home.snapshots)
    for generation, path in kept.items():
        with contextlib.closing(lab.storage.read_snapshot(generation)) as reader:
            if not path.exists():  # removed by a running sync, which must spare pinned ones
                continue
            lab.storage.read_whole(path, f"Snapshot {generation}")
            reader.connection()
            if snapshots.is_changed(path):
                raise CorruptDatabase(
                    f"Snapshot {generation} is damaged: run `aico-lab sync --full`."
                )
    if kept:
        snapshots.find(lab.home.snapshots)
    return f"{len(kept)} kept, all readable" if kept else "none kept"


def _check_writer(lab: Lab) -> str:
    """Read the file that the next sync continues from, unless a sync is writing it."""
    if not lab.home.writer.exists():
        return "none yet"
    try:
        with held(lab.home.warehouse / "sync.lock", 0, SyncBusy):
            lab.storage.read_whole(lab.home.writer, lab.home.writer.name)
            if not snapshots.is_log_sound(lab.home.writer, lab.home.snapshots):
                raise CorruptDatabase("writer.duckdb.wal is damaged: run `aico-lab sync --full`.")
    except SyncBusy as busy:
        return f"not read, since {busy} is writing it"
    except HomeNotWritable:
        return "not read, since this home cannot be written, and so cannot be locked"
    return "the file that the next sync continues from is readable"


def _check_own_backups(lab: Lab) -> str:
    """Tell which backup was checked last, and what happened since."""
    known = lab.backups.list()
    if not known:
        return "none was made: run `aico-lab backup FILE` with a file on another disk"
    newest, head = known[-1], feed.head(lab.primary)
    if newest.problem:
        raise CorruptDatabase(
            f"The newest backup was found damaged on {newest.checked_at[:10]}: make another one "
            "with `aico-lab backup`."
        )
    missing = (
        f"{max(0, head.seq - newest.seq):,} changes"
        if head.database_id == newest.database_id
        else "all changes"
    )
    return (
        f"the newest is of {newest.made_at[:16]} UTC, {escaped(newest.path)}, compared on "
        f"{newest.checked_at[:16]}; {missing} since"
    )


def _check_backups(lab: Lab) -> str:
    """Read every copy from before a change, to find damage before a backup is needed."""
    kept = backups_of(lab.home.primary)
    if kept and lab.storage.keys.former is not None:
        return f"{len(kept)}, not read while the change of the key is unfinished"
    if not kept:
        return "none: they are kept before a migration loses rows, or a backup replaces them"
    for path in kept:
        try:
            check_backup(lab.primary, path)
        except AicoLabError as damage:
            raise CorruptDatabase(f"The backup {path} cannot be read: delete it.") from damage
    size = _size(lab.home.path, "backups/*")
    return f"{len(kept)} can be read, {size >> 20} MB; the newest is {kept[-1].name}"


def _devices(lab: Lab) -> dict[str, object]:
    """Return the numbers of trusted devices, and of what waits or failed between them."""
    if not lab.encrypted or not lab.devices.federation.is_begun:
        return {"trusted": 0}
    status = lab.devices.federation.status()
    return {
        "trusted": sum(one.trust_level > 0 for one in status.devices),
        "bundles missing": sum(one.last - one.first + 1 for one in status.missing),
        "files waiting": len(status.waiting),
        "files refused": len(status.refused),
        "rows parked": len(status.parked),
        "rows that cannot be sent": len(status.unsendable),
        "conflicts": status.conflicts,
    }


def _check_devices(lab: Lab) -> str:
    facts = _devices(lab)
    trusted = facts.pop("trusted")
    if not facts:
        return "this home is on one device only"
    if lab.devices.federation.replica.is_outside:
        raise DeviceRevoked(
            "The other devices trust this one no longer, so its changes go nowhere: let one of "
            "them add it again."
        )
    found = ", ".join(
        _counted(count, name) for name, count in facts.items() if isinstance(count, int) and count
    )
    receives_only = lab.devices.federation.replica.receives_only
    only = ", and changes of this device stay here" if receives_only else ""
    return f"{trusted:,} trusted; {found or 'nothing waits'}{only}" + (
        ": see `aico-lab federate status`" if found else ""
    )


def _counted(count: int, names: str) -> str:
    """Return a number with its noun: '1 file waiting', '2 files waiting'."""
    noun = names if count > 1 else re.sub(r"s\b", "", names, count=1)
    return f"{count:,} {noun}"


def _check_erasures(lab: Lab) -> str:
    if unfinished := lab.privacy.unfinished():
        raise ErasureIncomplete(
            f"{len(unfinished)} erasures are not finished, the first of them {unfinished[0]}: run "
            "`aico-lab sync`, which finishes them."
        )
    asked = erasures.asked(lab.devices.federation.replica) if lab.encrypted else []
    if waiting := [one for one in asked if not one.is_begun]:
        raise ErasureIncomplete(
            f"Another device asked for {_counted(len(waiting), 'erasures')} that this one has not "
            "carried out yet: run `aico-lab federate sync`."
        )
    receipts = lab.privacy.receipts()
    forged = [one["erasure_id"] for one in receipts if not lab.privacy.is_authentic(one)]
    if forged:
        raise CorruptDatabase(
            f"The receipt of the erasure {forged[0]} was changed, or is of another home: restore "
            "aico.db from a backup."
        )
    if not receipts:
        return "none"
    unknown = sum("lost" in one or one["scope"]["kind"] == "unknown" for one in receipts)
    lost = f"; of {unknown}, nobody knew all that was to be searched for" if unknown else ""
    return f"{len(receipts)} finished, all with an authentic receipt{lost}"


def _check_vectors(lab: Lab) -> str:
    from aico_lab.embeddings.audit import audit

    found = audit(lab.memories.index)
    if found.faults:
        raise CorruptDatabase(" ".join(found.faults))
    if not found.collections:
        return "no text can be found by meaning yet: there is no segment, memory or document"
    counts = ", ".join(f"{one.items:,} of {one.collection}" for one in found.collections)
    recall = min(1 if one.recall is None else one.recall for one in found.collections)
    filtered = min(
        1 if one.recall_filtered is None else one.recall_filtered for one in found.collections
    )
    return " ".join(
        [
            (
                f"{counts} can be found by meaning ({found.model}), {recall:.0%} of the nearest, "
                f"{filtered:.0%} under filters; {found.bytes / 1e6:,.1f} MB."
            ),
            *found.advice,
        ]
    )


def _check_cache(lab: Lab) -> str:
    from aico_lab.adapters.rocksdb_codec import FormerFormat
    from aico_lab.cache.store import open_for_reading, past_damage

    damage = past_damage(lab.home)
    was = (
        f"; found damaged {damage['times']} times, last on {damage['last']}, and replaced by an "
        f"empty one: the damaged one is {damage['folder']}, which can be deleted"
        if damage
        else ""
    )
    if not lab.home.cache.exists():
        return f"none{was}"
    try:
        with (
            contextlib.closing(open_for_reading(lab.home, lab.storage.keys)) as store,
            contextlib.closing(store.scan()) as found,
        ):
            entries = sum(1 for _ in found)
    except FormerFormat:
        return f"of an earlier version of this program; its next use replaces it{was}"
    return f"{entries:,} entries can be read{was}"


def _check_answers(lab: Lab) -> str:
    """Read every kept answer of metrics; a damaged one is computed again when it is asked for."""
    answers = lab.home.answers
    if not answers.is_dir() and (answers.exists() or answers.is_symlink()):
        raise HomeNotWritable(f"{answers} is no folder, so no answer can be kept: delete it.")
    memo = lab.metrics.memo
    if memo is not None and (damaged := memo.damaged()):
        raise CorruptDatabase(
            f"{len(damaged):,} kept answers of metrics are damaged: delete {answers}, they are "
            "computed again."
        )
    kept = sum(1 for _ in answers.glob("*/*.answer"))
    return f"{kept:,} of metrics, {_size(answers, '*/*.answer') / 1e6:,.1f} MB"


def _lost_tables(lab: Lab, here: Collection[str]) -> list[str]:
    """Return the tables that the next sync would lose, without a person having removed them."""
    there = _column(
        lab,
        "SELECT table_name FROM duckdb_tables() WHERE schema_name = 'raw' "
        "EXCEPT FROM meta.frozen ORDER BY 1",
    )
    gone = [table for table in there if table not in here]
    return [table for table in gone if table not in given_up(lab.primary, gone)]


def _rows(lab: Lab) -> dict[str, int]:
    """Return the number of rows of each table that the change feed tracks."""
    tables = feed.tracked_tables(lab.primary)
    counts = ", ".join(f'(SELECT count(*) FROM "{table}")' for table in tables)
    return dict(zip(tables, lab.primary.fetch_all(f"SELECT {counts}")[0], strict=True))


def _data_span(lab: Lab) -> dict[str, object]:
    """Return the first and the last timestamp of messages, and the numbers of implausible ones."""
    plausible, end = plausible_times()
    # Cast to BLOB, since other programs may have written bytes that are not text.
    (row,) = lab.primary.fetch_all(
        "SELECT CAST(min(timestamp) AS BLOB), CAST(max(timestamp) AS BLOB), "
        "count(*) FILTER (WHERE timestamp < ?), count(*) FILTER (WHERE timestamp >= ?) "
        "FROM messages",
        [plausible, end],
    )
    first, last = (None if time is None else time.decode(errors="replace") for time in row[:2])
    return {
        "first message": first,
        "last message": last,
        "before 1990": row[2],
        "after tomorrow": row[3],
    }


def _cursor(lab: Lab) -> feed.Cursor:
    """Return the position in the change feed up to which the newest snapshot goes."""
    return _ask(lab, f"SELECT {CURSOR} FROM meta.state")[0]


def _column(lab: Lab, query: str) -> list[str]:
    with duckdb_adapter.translated("The snapshot"):
        relation = lab.sql(query)
        return [name for (name,) in relation.fetchall()] if relation else []


def _ask(lab: Lab, query: str) -> tuple[feed.Cursor, list[int]]:
    with duckdb_adapter.translated("The snapshot"):
        relation = lab.sql(query)
        row = relation.fetchone() if relation else None
    if row is None:
        raise CorruptDatabase("The snapshot does not record its state: run `aico-lab sync --full`.")
    database_id, seq, anchor, *more = row
    return feed.Cursor(database_id, seq, anchor), more


def _size(folder: Path, pattern: str) -> int:
    sizes = {}  # by inode, since a snapshot may be a hard link
    for path in folder.glob(pattern):
        with contextlib.suppress(FileNotFoundError):  # removed by a running sync
            if path.is_file():
                file = path.stat()
                sizes[file.st_dev, file.st_ino] = file.st_size
    return sum(sizes.values())
