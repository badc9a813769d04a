"""What a home is made of, and whether each part of it is sound."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

from aico_lab.adapters import duckdb as duckdb_adapter
from aico_lab.errors import AicoLabError, CorruptDatabase, DiskFull, SchemaTampered
from aico_lab.etl import snapshots
from aico_lab.lab import Lab
from aico_lab.schema import feed
from aico_lab.schema.core import CORE
from aico_lab.schema.status import verify

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from aico_lab.config import Settings

PACKAGES = ("aico-lab", "libsql-experimental", "duckdb", "polars", "pyarrow", "altair", "papermill")
PLAIN_HEADER = b"SQLite format 3\0"
ROOM = 1 << 28  # bytes; below it, a sync of a small home may fail


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check: what was found, or what to do."""

    check: str
    ok: bool
    detail: str


def describe(lab: Lab) -> dict[str, dict[str, object]]:
    """Give versions, sizes in bytes, rows by table, and how far the warehouse has come."""
    primary = lab.primary
    head = feed.head(primary)
    waiting, generation = head.seq, None
    kept = snapshots.published(lab.home.snapshots)
    if kept:
        generation = max(kept)
        waiting = head.seq - _ask(lab, "SELECT seq FROM meta.state")
    return {
        "home": {
            "path": str(lab.home.path),
            "encrypted": "yes" if lab.encrypted else "no",
        },
        "versions": {name: version(name) for name in PACKAGES},
        "bytes": {
            "primary": _size(lab.home.path, "aico.db*"),
            "warehouse": _size(lab.home.warehouse, "**/*"),
            "reports": _size(lab.home.reports, "**/*"),
        },
        "rows": {
            table: _first(primary.fetch_one(f'SELECT count(*) FROM "{table}"'))
            for table in feed.tracked_tables(primary)
        },
        "warehouse": {
            "snapshot": generation if generation is not None else "none; run `aico-lab sync`",
            "snapshots kept": ", ".join(map(str, kept)) or "none",
            "changes not yet synced": waiting,
        },
    }


def diagnose(settings: Settings) -> list[Finding]:
    """Check everything that can be checked; what depends on a failed check is left out."""
    findings: list[Finding] = []

    def check(name: str, action: Callable[[], str]) -> bool:
        try:
            findings.append(Finding(name, ok=True, detail=action()))
        except AicoLabError as error:
            findings.append(Finding(name, ok=False, detail=str(error)))
        return findings[-1].ok

    check("disk", lambda: _check_disk(settings.home))
    opened: list[Lab] = []

    def open_home() -> str:
        opened.append(
            Lab.open(settings.home, key_file=settings.key_file, passphrase=settings.passphrase)
        )
        return f"{settings.home}, opened by its key"

    if not check("home and key", open_home):
        return findings
    with opened[0] as lab:
        if check("primary database", lambda: _check_primary(lab)):
            check("schema", lambda: _check_schema(lab))
            check("encryption", lambda: _check_encryption(lab))
            check("warehouse", lambda: _check_warehouse(lab))
    return findings


def _check_disk(home: Path) -> str:
    folder = next((path for path in (home, *home.parents) if path.exists()), home)
    free = shutil.disk_usage(folder).free
    if free < ROOM:
        raise DiskFull(f"Only {free >> 20} MB are free where {home} lies: free some space.")
    return f"{free >> 30} GB free"


def _check_primary(lab: Lab) -> str:
    rows = lab.primary.fetch_all("PRAGMA integrity_check")
    if rows != [("ok",)]:
        raise CorruptDatabase(f"aico.db is damaged ({rows[0][0]}): restore it from a backup.")
    broken = lab.primary.fetch_all("PRAGMA foreign_key_check")
    if broken:
        raise CorruptDatabase(f"{len(broken)} rows of aico.db refer to rows that are not there.")
    return "sound, and every reference leads somewhere"


def _check_schema(lab: Lab) -> str:
    found = verify(CORE, lab.primary)
    if not found.ok:
        raise SchemaTampered("The schema is not what was applied: see `aico-lab schema verify`.")
    return f"{len(list(CORE))} schemas up to date, unchanged since they were applied"


def _check_encryption(lab: Lab) -> str:
    if not lab.encrypted:
        return "none, as was asked for when the home was created"
    with lab.home.primary.open("rb") as file:
        if file.read(len(PLAIN_HEADER)) == PLAIN_HEADER:
            raise CorruptDatabase("aico.db is not encrypted, though this home has a key.")
    return "on"


def _check_warehouse(lab: Lab) -> str:
    kept = snapshots.published(lab.home.snapshots)
    if not kept:
        return "no snapshot yet; run `aico-lab sync`"
    head = feed.head(lab.primary)
    with duckdb_adapter.translated("The snapshot"):
        if _ask(lab, "SELECT seq FROM meta.state") != head.seq:
            return f"snapshot {max(kept)} opens; `aico-lab sync` will add what changed since"
        for table in feed.tracked_tables(lab.primary):
            here = _first(lab.primary.fetch_one(f'SELECT count(*) FROM "{table}"'))
            there = _ask(
                lab,
                f"""SELECT (SELECT count(*) FROM raw."{table}") + (
                    SELECT count(*) FROM quarantine.misfits WHERE table_name = '{table}')""",
            )
            if there != here:
                raise CorruptDatabase(
                    f"{table} has {here} rows in aico.db and {there} in snapshot {max(kept)}: "
                    "run `aico-lab sync --full`."
                )
    return f"snapshot {max(kept)} has as many rows as aico.db in every table"


def _size(folder: Path, pattern: str) -> int:
    return sum(path.stat().st_size for path in folder.glob(pattern) if path.is_file())


def _ask(lab: Lab, query: str) -> int:
    """Give the one number that a query of the snapshot asks for."""
    answer = lab.sql(query)
    return _first(answer.fetchone() if answer else None)


def _first(row: tuple[int, ...] | None) -> int:
    return row[0] if row else 0
