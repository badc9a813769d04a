"""The record of every report that ran: with what, on which snapshot, and how it ended."""

from __future__ import annotations

import hashlib
import json
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from aico_lab.adapters.libsql import NOW
from aico_lab.errors import AicoLabError, UnknownName
from aico_lab.shipped import shipped

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from aico_lab.adapters.libsql import Connection


@dataclass(frozen=True, slots=True)
class ReportRun:
    """One run of a report.

    Attributes:
        run_id: When it started, in UTC, and a few random characters; the name of its folder.
        report: The name of its notebook.
        parameters: What the notebook was given.
        generation: The snapshot that it read.
        status: How it ended, or that it has not.
        started_at: UTC, ISO 8601.
        finished_at: UTC, ISO 8601, or None.
        error: Why it failed, or None.
    """

    run_id: str
    report: str
    parameters: dict[str, object]
    generation: int
    status: Literal["running", "succeeded", "failed"]
    started_at: str
    finished_at: str | None
    error: str | None


def notebooks() -> dict[str, Path]:
    """Give the notebooks that can be run as reports, by name."""
    return shipped("notebooks", ".ipynb")


def find_notebook(name: str) -> Path:
    """Give the notebook of that name.

    Raises:
        UnknownName: There is none.
    """
    known = notebooks()
    if name not in known:
        raise UnknownName(f"There is no report {name!r}; these are: {', '.join(known) or 'none'}.")
    return known[name]


@contextmanager
def recorded(
    connection: Connection,
    run_id: str,
    notebook: Path,
    parameters: Mapping[str, object],
    generation: int,
) -> Iterator[None]:
    """Note that a run begins, and how it ends.

    Args:
        connection: The primary database.
        run_id: The name of the run.
        notebook: What is run.
        parameters: With what.
        generation: On which snapshot.
    """
    digest = hashlib.sha256(notebook.read_bytes()).hexdigest()
    connection.execute(
        "INSERT INTO report_runs "
        "(run_id, report, parameters, generation, notebook_sha256, status, started_at) "
        f"VALUES (?, ?, ?, ?, ?, 'running', {NOW})",
        [run_id, notebook.stem, json.dumps(dict(parameters)), generation, digest],
    )
    error: str | None = "It was interrupted."
    try:
        yield
        error = None
    except AicoLabError as failed:
        error = str(failed)
        raise
    finally:
        connection.execute(
            f"UPDATE report_runs SET status = ?, finished_at = {NOW}, error = ? WHERE run_id = ?",
            ["failed" if error else "succeeded", error, run_id],
        )


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
