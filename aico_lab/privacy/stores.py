"""Erase from each store besides the primary database."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any, Final

from aico_lab.adapters.chroma import ChromaDBAdapter
from aico_lab.adapters.rocksdb import NOT_INSTALLED
from aico_lab.backup.rebuilding import remove_database
from aico_lab.backup.restoring import alone
from aico_lab.cache.lab_cache import open_cache
from aico_lab.errors import CorruptDatabase, DatabaseLocked, LibraryMissing, NotADatabase
from aico_lab.etl.rewriting import rewrite
from aico_lab.etl.snapshots import published
from aico_lab.etl.sync import sync
from aico_lab.home.files import os_errors, remove_whole, write_atomically
from aico_lab.home.staged import RESTORED, STAGED, staged_copies
from aico_lab.reports.records import SEALED

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from aico_lab.adapters.libsql import Connection
    from aico_lab.home.folder import Home
    from aico_lab.home.keys import Keys
    from aico_lab.privacy.patterns import Patterns

NOTEBOOK: Final = ".ipynb"

_REPORTS: Final = "SELECT run_id, report, parameters, resolved, summary, error FROM report_runs"
_MASKED: Final = ("error", "steps", "outputs", "warnings")
_PIPELINES: Final = f"SELECT run_id, {', '.join(_MASKED)} FROM pipeline_runs"


def erase_warehouse(primary: Connection, home: Home, keys: Keys) -> dict[str, int]:
    """Bring the warehouse up to date, rewrite it, and remove every other snapshot and answer.

    Raises:
        SyncBusy: Another process is writing the warehouse.
        SchemaChanged: A sync needs a decision first.
    """
    if not home.writer.exists() and not published(home.snapshots):
        return {}
    try:
        sync(primary, home, keys.duckdb())
    except (CorruptDatabase, NotADatabase):
        sync(primary, home, keys.duckdb(), full=True)
    return rewrite(home, keys.duckdb())


def erase_vectors(home: Home, keys: Keys) -> dict[str, int]:
    """Remove the vector store with its queue; the next sync makes it of the vectors that are left.

    Raises:
        DatabaseLocked: Another process is writing the vectors.
    """
    adapter = ChromaDBAdapter(home.vectors, keys.chroma())
    if not adapter.exists():
        return {}
    adapter.remove()
    return {"stores": 1}


def erase_cache(home: Home, keys: Keys, release: Callable[[], None]) -> dict[str, int]:
    """Remove the cache, whose values may have texts of anybody; its next use makes an empty one.

    RocksDB would keep keys in its manifest.

    Args:
        home: The lab's folder.
        keys: The home's opened keys.
        release: Closes the cache if this process has it open.

    Raises:
        DatabaseLocked: Another process has the cache open.
        LibraryMissing: RocksDB is not installed, so that nobody can tell.
    """
    release()
    folders = [
        *home.path.glob("cache.damaged-*"),
        *(
            path
            for path in staged_copies(home.path)
            if path.name.startswith(f"{STAGED['rocksdb'][1]}.")
        ),
    ]
    if home.cache.exists():
        try:
            with contextlib.closing(open_cache(home, keys)) as store:
                in_memory = store.in_memory() is not None
        except DatabaseLocked as locked:
            raise DatabaseLocked(
                "The cache is in use by another program: close that one, and run the command again "
                "to finish the erasure."
            ) from locked
        except NotADatabase:  # of another key
            in_memory = False
        if in_memory:
            raise LibraryMissing(NOT_INSTALLED)
        folders.append(home.cache)
    for folder in folders:
        with os_errors(folder):
            remove_whole(folder)
    return {"folders": len(folders)} if folders else {}


def remove_restored(home: Home) -> None:
    """Remove the database of a restoration that was killed before it took the former one's place.

    Raises:
        DatabaseLocked: The home is being restored or backed up.
    """
    prepared = home.path / RESTORED
    if prepared.exists():
        with alone(home), os_errors(home.path):
            remove_database(prepared)


def erase_reports(connection: Connection, home: Home, patterns: Patterns) -> dict[str, int]:
    """Remove the reports that name what was erased, with their runs, and mask it in other runs.

    Args:
        connection: The primary database.
        home: The lab's folder.
        patterns: What was erased.
    """
    removed = 0
    for run_id, report, *texts in connection.fetch_all(_REPORTS):
        folder = home.reports / report / run_id
        files = [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
        if patterns.names_it(texts) or any(map(patterns.named_by, files)):
            with os_errors(folder):
                remove_whole(folder)
            connection.execute("DELETE FROM report_runs WHERE run_id = ?", [run_id])
            removed += 1
    if removed:
        from aico_lab.reports.run_index import write_index

        write_index(connection, home)
    masked = _mask_pipelines(connection, patterns)
    return {name: count for name, count in (("runs", removed), ("pipeline runs", masked)) if count}


def count_runs(connection: Connection, patterns: Patterns) -> int:
    """Return the number of runs of reports and pipelines whose records name what was erased."""
    word = patterns.word(values=False)
    return sum(patterns.names_it(texts) for _, _, *texts in connection.fetch_all(_REPORTS)) + sum(
        any(text is not None and word.search(text.encode()) for text in texts)
        for _, *texts in connection.fetch_all(_PIPELINES)
    )


def _mask_pipelines(connection: Connection, patterns: Patterns) -> int:
    """Mask ids and names in the records of pipelines, which decide about the next run."""
    masked = 0
    word = patterns.word(values=False)  # else the name of a step could be one
    for run_id, *texts in connection.fetch_all(_PIPELINES):
        new = [
            text and word.sub("•••".encode(), text.encode()).decode(errors="replace")
            for text in texts
        ]
        if new != texts:
            places = ", ".join(f"{name} = ?" for name in _MASKED)
            connection.execute(
                f"UPDATE pipeline_runs SET {places} WHERE run_id = ?", [*new, run_id]
            )
            masked += 1
    return masked


def clear_outputs(notebook: Path) -> None:
    """Remove the outputs of a notebook, which stays as it was written."""
    try:
        content: dict[str, Any] = json.loads(notebook.read_bytes())
        cells = content["cells"]
        for cell in cells:
            if cell.get("cell_type") == "code":
                cell["outputs"], cell["execution_count"] = [], None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return
    with os_errors(notebook):
        write_atomically(notebook, json.dumps(content, indent=1, ensure_ascii=False).encode())


def own_files(home: Home) -> list[Path]:
    """Return the files of a home that are not of a database: notebooks, reports, settings."""
    stores = {
        home.warehouse, home.cache, home.vectors, home.temporary, home.path / "backups",
        home.path / "federation",
    }  # fmt: skip
    others = (home.primary.name, f".{home.primary.name}", home.erasures.name, home.marker.name)
    return sorted(
        path
        for path in home.path.rglob("*")
        if path.is_file()
        and not any(path.is_relative_to(store) for store in stores)
        and not (
            path.parent == home.path
            and (path.name.startswith(others) or path.name in ("vectors.age", "vectors.lock"))
        )
    )


def is_sealed(path: Path) -> bool:
    """Return whether a report can only be opened by its recipients, and so not be searched."""
    return path.suffix == SEALED
