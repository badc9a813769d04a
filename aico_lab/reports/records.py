"""The record of every report run: its parameters, its snapshot, and how it ended.

A run holds a lock in its folder, which the operating system releases when the process ends for any
reason. So a killed run can be distinguished from a running one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from filelock import FileLock

from aico_lab.adapters.libsql import NOW
from aico_lab.domain import values
from aico_lab.errors import AicoLabError, DatabaseLocked, StorageError, WrongUse
from aico_lab.home.files import os_errors
from aico_lab.reports import document

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from aico_lab.adapters.libsql import Connection
    from aico_lab.home.folder import Home

PRIVATE: Final = ".run-"
"""Prefix of the private folder, inside the run's folder, in which a notebook is executed."""

INDEX: Final = "index.html"
"""The name of the page that lists all runs."""

SEALED: Final = ".age"
"""The suffix, after the usual one, of a file that only its recipients can open."""

_ALIVE: Final = ".running"
"""The file in a run's folder that is locked while the run is alive."""

_END: Final = ".end.json"
"""The file in a run's folder that keeps the outcome until the database has recorded it."""

_STARTING: Final = 60
"""Age in seconds from which an empty folder counts as abandoned."""

_UNFINISHED: Final = (f"{PRIVATE}*", ".*.html.*", ".*.ipynb.*", ".*.json.*")
"""Files that a killed run leaves in its folder: the kernel's, and partly written ones."""

UP_TO_THERE: Final = "; the notebook up to there is "
"""The words before the path of a partial notebook in the reason of a failure."""

_INTERRUPTED: Final = "It was interrupted."


@dataclass(frozen=True, slots=True)
class ReportRun:
    """One run of a report.

    Attributes:
        run_id: The start time in UTC and a few random characters; also the name of its folder.
        report: The name of its notebook.
        parameters: The values of the notebook's parameters.
        generation: The generation of the snapshot that it read.
        status: The status; 'interrupted' means stopped or killed.
        started_at: The start, in UTC, ISO 8601.
        finished_at: The end, in UTC, ISO 8601, or None.
        error: The reason of a failure, or None.
        html: The path of the HTML page; None if there is none, or none any more.
        json: The path of the page's figures, findings and tables, see `document`; likewise.
        repeats: The id of the run that this one repeats, or None.
    """

    run_id: str
    report: str
    parameters: dict[str, object]
    generation: int
    status: Literal["running", "succeeded", "failed", "interrupted"]
    started_at: str
    finished_at: str | None
    error: str | None
    html: Path | None = None
    json: Path | None = None
    repeats: str | None = None


@dataclass(frozen=True, slots=True)
class RunOrigin:
    """The facts that a repetition of a run needs.

    Attributes:
        notebook: The path of the notebook; None if an earlier version recorded the run.
        notebook_sha256: The digest of the notebook.
        resolved: The parameters, without periods that count back from another day; None if an
            earlier version recorded the run.
        sealed: Whether the run is sealed; None if an earlier version recorded it.
    """

    notebook: Path | None
    notebook_sha256: str
    resolved: dict[str, object] | None
    sealed: bool | None


def page_of(home: Home, run: ReportRun) -> Path:
    """Return the path of a run's page, which may be sealed, whether or not the file exists."""
    page = _folder(home, run.report, run.run_id) / f"{run.report}.html"
    sealed = page.with_name(page.name + SEALED)
    return sealed if sealed.is_file() else page


def with_files(home: Home, run: ReportRun) -> ReportRun:
    """Return a run with the paths of those of its files that are there."""
    page = page_of(home, run)
    data = data_of(page.parent)
    return replace(
        run, html=page if page.is_file() else None, json=data if data.is_file() else None
    )


def data_of(folder: Path) -> Path:
    """Return the path of a run's `report.json`, which may be sealed, whether or not it exists."""
    data = folder / document.NAME
    sealed = data.with_name(data.name + SEALED)
    return sealed if sealed.is_file() else data


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
    resolved: Mapping[str, object] | None = None,
    repeats: str | None = None,
    sealed: bool = False,
) -> Iterator[Path]:
    """Create the folder of a run and yield it; record the run's start and end.

    Args:
        connection: The primary database.
        home: The lab's folder.
        notebook: The notebook to run.
        run_id: The id of the run.
        parameters: The values of the notebook's parameters.
        generation: The generation of the snapshot.
        resolved: The parameters, without periods that count back from another day; by default all
            parameters as they are.
        repeats: The id of the run that this one repeats.
        sealed: Whether its files are sealed.

    Raises:
        DatabaseLocked: Another program keeps the run from being recorded; no folder is left.
    """
    digest = hashlib.sha256(notebook.read_bytes()).hexdigest()
    folder = _folder(home, notebook.stem, run_id)
    with os_errors(home.reports):
        folder.mkdir(parents=True)
    with _alive(folder):
        try:
            connection.execute(
                "INSERT INTO report_runs (run_id, report, parameters, generation, notebook_sha256, "
                "notebook, resolved, repeats, sealed, status, started_at) "
                f"VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'running', {NOW})",
                [
                    run_id,
                    notebook.stem,
                    json.dumps(dict(parameters)),
                    generation,
                    digest,
                    str(notebook),
                    json.dumps(dict(parameters if resolved is None else resolved)),
                    repeats,
                    sealed,
                ],
            )
        except BaseException as refused:
            _remove_folder(folder)
            if isinstance(refused, DatabaseLocked):
                raise DatabaseLocked(
                    f"{notebook.stem} was not run, since another program has been writing aico.db "
                    f"for {connection.busy_timeout:.0f} s and no run can be recorded meanwhile: "
                    "end that program's transaction, and run the report again."
                ) from refused
            raise
        try:
            yield folder
        except BaseException as stopped:
            status = "failed" if isinstance(stopped, Exception) else "interrupted"
            # An unforeseen error may quote secrets; the package's own errors do not.
            said = str(stopped) if isinstance(stopped, AicoLabError) else type(stopped).__name__
            error = said if status == "failed" else _INTERRUPTED
            with contextlib.suppress(StorageError):  # the first error is the one to raise
                _end(connection, folder, status, error)
            raise
        _end(connection, folder, "succeeded", None)


def _remove_folder(folder: Path) -> None:
    """Remove the folder of a run that was not recorded, and that of its report if it is empty."""
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):  # it has other runs
        folder.parent.rmdir()


def _end(connection: Connection, folder: Path, status: str, error: str | None) -> None:
    """Record the end of a run; if that fails, keep the end in a file that `clear_up` records later.

    Raises:
        StorageError: The end can be neither recorded nor kept.
    """
    end = [status, values.to_timestamp(datetime.now(UTC)), error]
    kept = False
    with contextlib.suppress(OSError):
        (folder / _END).write_text(json.dumps(end), encoding="utf-8")
        kept = True
    try:
        _finish(connection, folder, end)
    except StorageError:
        if not kept:
            raise


def _finish(connection: Connection, folder: Path, end: list[str | None]) -> None:
    digest, summary = _described(data_of(folder))
    connection.execute(
        "UPDATE report_runs SET status = ?, finished_at = ?, error = ?, json_sha256 = ?, "
        "summary = ? WHERE run_id = ? AND status = 'running'",
        [*end, digest, summary, folder.name],
    )
    with os_errors(folder):
        (folder / _END).unlink(missing_ok=True)


def _described(file: Path) -> tuple[str | None, str | None]:
    """Return the digest of a `report.json`, and its summary as JSON unless it is sealed."""
    try:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return None, None
    if file.suffix == SEALED:
        return digest, None
    try:
        summary = document.summary(document.read_document(file))
    except WrongUse:
        return digest, None
    return digest, json.dumps(summary, ensure_ascii=False)


def _end_of(folder: Path) -> list[str | None]:
    """Return the end of a run that was not recorded; 'interrupted' if the run did not reach it."""
    with contextlib.suppress(OSError, ValueError):
        status, finished_at, error = json.loads((folder / _END).read_bytes())
        return [status, finished_at, error]
    return ["interrupted", values.to_timestamp(datetime.now(UTC)), _INTERRUPTED]


@contextlib.contextmanager
def _alive(folder: Path) -> Iterator[None]:
    """Hold the lock that marks a run as alive; it is released when this process ends.

    Raises:
        HomeNotWritable: Another process holds the lock, or it cannot be created.
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
    """Remove what killed runs left, and record their ends.

    A run that had ended keeps its status; others are recorded as interrupted. Unfinished files may
    contain secrets, since only finished ones are redacted. Empty folders of runs that were killed
    before they were recorded are removed.

    Args:
        connection: The primary database.
        home: The lab's folder.
    """
    running = connection.fetch_all(
        "SELECT run_id, report FROM report_runs WHERE status = 'running'"
    )
    for run_id, report in running:
        folder = _folder(home, report, run_id)
        # If this fails now, the next call tries again.
        with contextlib.suppress(AicoLabError):
            if folder.is_dir():
                with _alive(folder), os_errors(folder):
                    _remove_unfinished(folder)
                    _finish(connection, folder, _end_of(folder))
            else:
                _finish(connection, folder, _end_of(folder))
    if running:  # one that is sealed is made elsewhere
        from aico_lab.adapters.sealed import remove_left_open

        remove_left_open()
    _remove_unrecorded(connection, home)


def _remove_unrecorded(connection: Connection, home: Home) -> None:
    recorded_runs = set(connection.fetch_all("SELECT report, run_id FROM report_runs"))
    for folder in home.reports.glob("*/*/"):
        if (folder.parent.name, folder.name) in recorded_runs:
            continue
        with contextlib.suppress(OSError, AicoLabError):
            if time.time() - folder.stat().st_mtime < _STARTING or not _is_empty(folder):
                continue
            with _alive(folder):
                pass  # no process holds the lock, and its file is gone now
            folder.rmdir()
            folder.parent.rmdir()


def _is_empty(folder: Path) -> bool:
    return {path.name for path in folder.iterdir()} <= {_ALIVE}


def _remove_unfinished(folder: Path) -> None:
    for pattern in _UNFINISHED:
        for left in folder.glob(pattern):
            if left.is_dir():
                shutil.rmtree(left)
            else:
                left.unlink()


def find_same(
    connection: Connection,
    home: Home,
    notebook: Path,
    *,
    parameters: Mapping[str, object],
    generation: int,
    sealed: bool,
) -> ReportRun | None:
    """Return the newest good run of the same notebook, parameters and snapshot, if it has a page.

    Args:
        connection: The primary database.
        home: The lab's folder.
        notebook: The notebook.
        parameters: The values of the notebook's parameters.
        generation: The generation of the snapshot.
        sealed: Whether its page is sealed.
    """
    digest = hashlib.sha256(notebook.read_bytes()).hexdigest()
    same = connection.fetch_all(
        "SELECT run_id FROM report_runs WHERE report = ? AND generation = ? "
        "AND notebook_sha256 = ? AND status = 'succeeded'",
        [notebook.stem, generation, digest],
    )
    for run in read_runs(connection, notebook.stem):
        if (run.run_id,) in same and run.parameters == dict(parameters):
            found = with_files(home, run)
            if found.html is not None and (found.html.suffix == SEALED) == sealed:
                return found
    return None


def read_runs(connection: Connection, report: str | None = None) -> list[ReportRun]:
    """Return the runs of one report, or of all, newest first."""
    rows = connection.fetch_all(
        "SELECT run_id, report, parameters, generation, status, started_at, finished_at, error, "
        "repeats FROM report_runs WHERE ?1 IS NULL OR report = ?1 "
        "ORDER BY started_at DESC, run_id DESC",
        [report],
    )
    return [
        replace(ReportRun(run_id, name, json.loads(parameters), *rest), repeats=repeats)
        for run_id, name, parameters, *rest, repeats in rows
    ]


def read_origin(connection: Connection, run_id: str) -> RunOrigin:
    """Return the facts that a repetition of a recorded run needs."""
    ((notebook, digest, resolved, sealed),) = connection.fetch_all(
        "SELECT notebook, notebook_sha256, resolved, sealed FROM report_runs WHERE run_id = ?",
        [run_id],
    )
    return RunOrigin(
        None if notebook is None else Path(notebook),
        digest,
        None if resolved is None else json.loads(resolved),
        None if sealed is None else bool(sealed),
    )


def read_summaries(connection: Connection) -> dict[str, dict[str, str]]:
    """Return the summaries of all runs that have one, by the id of the run."""
    rows = connection.fetch_all("SELECT run_id, summary FROM report_runs WHERE summary IS NOT NULL")
    return {run_id: json.loads(summary) for run_id, summary in rows}
