"""Reports by name, and the record of every one that ran: with what, and how it ended."""

from __future__ import annotations

import hashlib
import json
import secrets
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from aico_lab.adapters.libsql import NOW
from aico_lab.errors import AicoLabError, UnknownName
from aico_lab.etl import snapshots
from aico_lab.etl.pins import Pin
from aico_lab.home import os_errors
from aico_lab.shipped import shipped

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from pathlib import Path

    from aico_lab.adapters.libsql import Connection
    from aico_lab.home import Home
    from aico_lab.reports.runner import RunResult


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


def page_of(home: Home, run: ReportRun) -> Path:
    """Give the page that a run left, whether or not it is still there."""
    return _folder(home, run.report, run.run_id) / f"{run.report}.html"


def _folder(home: Home, report: str, run_id: str) -> Path:
    return home.reports / report / run_id


def run_report(
    name: str,
    parameters: Mapping[str, object],
    *,
    primary: Connection,
    home: Home,
    generation: int | None,
    timezone: str,
    timeout: float,
    environment: Mapping[str, str],
    known_secrets: Collection[str],
    on_cell: Callable[[int, int], None] | None = None,
) -> RunResult:
    """Execute a notebook on a snapshot and keep it, with one HTML file, as a record.

    Args:
        name: The notebook's.
        parameters: Values for its parameters cell.
        primary: The primary database, which holds the records.
        home: The lab's folder.
        generation: The snapshot, where the parameters name none; None for the newest.
        timezone: The same for the time zone.
        timeout: Seconds after which it is stopped.
        environment: In which its kernel finds the lab and what opens it.
        known_secrets: Texts that must not stand in what is kept.
        on_cell: Told of the number of cells that were executed, and of all.

    Raises:
        UnknownName: There is no such notebook or parameter.
        InvalidValue: A parameter has the wrong type.
        NeverSynced: There is no snapshot yet.
        ReportError: A cell raised, or the time was over; the partial notebook is kept.
    """
    from aico_lab.reports.parameters import bind, read_parameters
    from aico_lab.reports.runner import run_notebook

    notebook = find_notebook(name)
    declared = read_parameters(notebook)
    given = {"timezone": timezone} if "timezone" in declared else {}
    values = bind(declared, given | dict(parameters))
    # 0 means the newest: name it, so that a sync meanwhile changes nothing of this run.
    wanted = values.get("generation")
    generation, _ = snapshots.find(
        home.snapshots, wanted if isinstance(wanted, int) and wanted else generation
    )
    if "generation" in values:
        values["generation"] = generation
    now = datetime.now(UTC)
    run_id = f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
    destination = _folder(home, name, run_id)
    with os_errors(home.reports):
        destination.mkdir(parents=True)
    pin = Pin(home, generation)  # however many syncs come meanwhile
    with closing(pin), recorded(primary, run_id, notebook, values, generation):
        return run_notebook(
            notebook,
            parameters=values,
            destination=destination,
            title=f"{name.replace('_', ' ').capitalize()} · {now:%Y-%m-%d %H:%M} UTC",
            timeout=timeout,
            environment=environment,
            secrets=known_secrets,
            on_cell=on_cell,
        )


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
