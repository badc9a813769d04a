"""The record of every report that ran: with what, on which snapshot, and how it ended.

A run holds a lock in its folder, which the operating system releases however its process ends: so
that a run which was killed can be told from one that goes on.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from filelock import FileLock

from aico_lab.adapters.libsql import NOW
from aico_lab.errors import AicoLabError, StorageError
from aico_lab.home import os_errors

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from aico_lab.adapters.libsql import Connection
    from aico_lab.home import Home

PRIVATE: Final = ".run-"
"""Begins the name of the folder, in that of the run, in which a notebook is executed."""

_ALIVE: Final = ".running"
"""The file in a run's folder that is locked for as long as the run lives."""

_UNFINISHED: Final = (f"{PRIVATE}*", ".*.html.*")
"""What a run that is killed leaves in its folder: the kernel's files, and a page half written."""

_INTERRUPTED: Final = "It was interrupted."


@dataclass(frozen=True, slots=True)
class ReportRun:
    """One run of a report.

    Attributes:
        run_id: When it started, in UTC, and a few random characters; the name of its folder.
        report: The name of its notebook.
        parameters: What the notebook was given.
        generation: The snapshot that it read.
        status: How it ended, or that it has not; 'interrupted' where it was stopped or killed.
        started_at: UTC, ISO 8601.
        finished_at: UTC, ISO 8601, or None.
        error: Why it failed, or None.
    """

    run_id: str
    report: str
    parameters: dict[str, object]
    generation: int
    status: Literal["running", "succeeded", "failed", "interrupted"]
    started_at: str
    finished_at: str | None
    error: str | None


def page_of(home: Home, run: ReportRun) -> Path:
    """Give the page that a run left, whether or not it is still there."""
    return _folder(home, run.report, run.run_id) / f"{run.report}.html"


def _folder(home: Home, report: str, run_id: str) -> Path:
    return home.reports / report / run_id


@contextlib.contextmanager
def recorded(
    connection: Connection,
    home: Home,
    notebook: Path,
    *,
    run_id: str,
    parameters: Mapping[str, object],
    generation: int,
) -> Iterator[Path]:
    """Make the folder of a run, and note that the run begins, and how it ends.

    Args:
        connection: The primary database.
        home: The lab's folder.
        notebook: What is run.
        run_id: The name of the run.
        parameters: With what.
        generation: On which snapshot.
    """
    digest = hashlib.sha256(notebook.read_bytes()).hexdigest()
    folder = _folder(home, notebook.stem, run_id)
    with os_errors(home.reports):
        folder.mkdir(parents=True)
    with _alive(folder):
        connection.execute(
            "INSERT INTO report_runs "
            "(run_id, report, parameters, generation, notebook_sha256, status, started_at) "
            f"VALUES (?, ?, ?, ?, ?, 'running', {NOW})",
            [run_id, notebook.stem, json.dumps(dict(parameters)), generation, digest],
        )
        try:
            yield folder
        except BaseException as stopped:
            status = "failed" if isinstance(stopped, Exception) else "interrupted"
            # An unforeseen error may quote anything; what we say ourselves quotes no secret.
            said = str(stopped) if isinstance(stopped, AicoLabError) else type(stopped).__name__
            error = said if status == "failed" else _INTERRUPTED
            with contextlib.suppress(StorageError):  # of two errors the first one is told
                _finish(connection, run_id, status, error)
            raise
        _finish(connection, run_id, "succeeded", None)


def _finish(connection: Connection, run_id: str, status: str, error: str | None) -> None:
    connection.execute(
        f"UPDATE report_runs SET status = ?, finished_at = {NOW}, error = ? "
        "WHERE run_id = ? AND status = 'running'",
        [status, error, run_id],
    )


@contextlib.contextmanager
def _alive(folder: Path) -> Iterator[None]:
    """Hold the lock that tells other processes that a run lives; it goes with this process.

    Raises:
        HomeNotWritable: Another process holds it, or it cannot be made.
    """
    lock = FileLock(folder / _ALIVE, timeout=0)
    with os_errors(folder):
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
        with contextlib.suppress(OSError):
            (folder / _ALIVE).unlink(missing_ok=True)


def clear_up(connection: Connection, home: Home) -> None:
    """Clean up after runs that were killed: remove what they left, and record how they ended.

    What a kernel wrote may hold secrets, which are removed only from what is kept.

    Args:
        connection: The primary database.
        home: The lab's folder.
    """
    running = connection.fetch_all(
        "SELECT run_id, report FROM report_runs WHERE status = 'running'"
    )
    for run_id, report in running:
        folder = _folder(home, report, run_id)
        # Where this cannot be done now, the next one tries again.
        with contextlib.suppress(AicoLabError):
            if folder.is_dir():
                with _alive(folder), os_errors(folder):
                    _remove_unfinished(folder)
            _finish(connection, run_id, "interrupted", _INTERRUPTED)


def _remove_unfinished(folder: Path) -> None:
    for pattern in _UNFINISHED:
        for left in folder.glob(pattern):
            if left.is_dir():
                shutil.rmtree(left)
            else:
                left.unlink()


def read_runs(connection: Connection, report: str | None = None) -> list[ReportRun]:
    """Give the runs of one report, or of all, newest first."""
    rows = connection.fetch_all(
        "SELECT run_id, report, parameters, generation, status, started_at, finished_at, error "
        "FROM report_runs WHERE ?1 IS NULL OR report = ?1 ORDER BY started_at DESC, run_id DESC",
        [report],
    )
    return [
        ReportRun(run_id, name, json.loads(parameters), *rest)
        for run_id, name, parameters, *rest in rows
    ]
