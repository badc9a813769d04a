"""The record of every run of a pipeline, and the lock that lets only one run at a time.

A run holds the lock of its pipeline, which the operating system releases when the process ends for
any reason. So a killed run can be told from a running one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
import secrets
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final, Literal

from filelock import FileLock

from aico_lab.domain import values
from aico_lab.errors import AicoLabError, DatabaseLocked, PipelineBusy, StorageError
from aico_lab.home.files import held, os_errors, private_files

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from aico_lab.adapters.libsql import Connection
    from aico_lab.home.folder import Home
    from aico_lab.pipeline.definition import Pipeline, Step

StepStatus = Literal["waiting", "running", "ok", "failed", "kept"]
RunStatus = Literal["running", "ok", "failed", "interrupted", "missed"]

INTERRUPTED: Final = "It was interrupted."

_PATIENCE: Final = 1.0
"""Seconds to wait for the lock, which `clear_up` of another process may hold for a moment."""

_COLUMNS: Final = (
    "run_id, pipeline, origin, file_sha256, status, started_at, finished_at, error, steps, "
    "outputs, warnings, versions, removed, retry_of, period"
)


@dataclass(slots=True)
class StepRecord:
    """How one step went.

    Attributes:
        id: The id of the step.
        run: The kind of step.
        status: 'waiting' if it was not reached; 'kept' if an earlier run had done it.
        seconds: The duration in seconds, with all tries and pauses.
        tries: How often it was begun.
        warnings: Sentences about its result.
        error: The reason of its failure, or None.
    """

    id: str
    run: str
    status: StepStatus = "waiting"
    seconds: float = 0.0
    tries: int = 0
    warnings: list[str] = field(default_factory=list)
    error: str | None = None


@dataclass(frozen=True, slots=True)
class RunOutput:
    """A file that a run wrote.

    Attributes:
        step: The id of the step.
        path: The path; one below the home is relative to it.
        sha256: The digest of its content.
    """

    step: str
    path: str
    sha256: str


@dataclass(slots=True)
class PipelineRun:
    """One run of a pipeline.

    Attributes:
        run_id: The start time in UTC and a few random characters.
        pipeline: The name of the pipeline.
        origin: 'package', 'home', or the path of a file elsewhere.
        file_sha256: The digest of its file.
        status: The status; 'interrupted' means stopped or killed, and 'missed' that no run started
            for `period`.
        started_at: The start, in UTC, ISO 8601.
        finished_at: The end, in UTC, ISO 8601, or None.
        error: The reason of a failure, or None.
        steps: The steps.
        outputs: The files that it wrote.
        warnings: Sentences about notices and the removal of old outputs.
        versions: The versions of the package, Python and DuckDB.
        removed: The number of reports of earlier runs that it removed.
        retry_of: The run that it continued, or None.
        period: The time of the schedule for which it started, in UTC, ISO 8601, or None.
    """

    run_id: str
    pipeline: str
    origin: str
    file_sha256: str
    status: RunStatus
    started_at: str
    finished_at: str | None
    error: str | None
    steps: list[StepRecord]
    outputs: list[RunOutput]
    warnings: list[str]
    versions: dict[str, str]
    removed: int = 0
    retry_of: str | None = None
    period: str | None = None

    def save(self, connection: Connection) -> None:
        """Write the run to the primary database."""
        connection.execute(
            "UPDATE pipeline_runs SET status = ?, finished_at = ?, error = ?, steps = ?, "
            "outputs = ?, warnings = ?, removed = ? WHERE run_id = ?",
            [
                self.status,
                self.finished_at,
                self.error,
                _json(self.steps),
                _json(self.outputs),
                json.dumps(self.warnings),
                self.removed,
                self.run_id,
            ],
        )

    def end(self, connection: Connection, stopped: BaseException | None = None) -> None:
        """Write the end of the run.

        Args:
            connection: The primary database.
            stopped: The error that ended the run, or None.
        """
        self.finished_at = now()
        if stopped is None:
            self.status = "ok"
        elif isinstance(stopped, Exception):
            self.status, self.error = "failed", sentence(stopped)
        else:
            self.status, self.error = "interrupted", INTERRUPTED
        self.save(connection)


def sentence(error: BaseException) -> str:
    """Return the text of an error for a record; an unforeseen one may quote secrets."""
    return str(error) if isinstance(error, AicoLabError) else type(error).__name__


def utc_now() -> datetime:
    """Return the current time."""
    return datetime.now(UTC)


def now() -> str:
    """Return the current time as the database has it."""
    return values.to_timestamp(utc_now())


def _json(items: list[Any]) -> str:
    return json.dumps([asdict(one) for one in items])


def _lock_of(home: Home, name: str, origin: str) -> Path:
    digest = hashlib.sha256(f"{name}\0{origin}".encode()).hexdigest()[:16]
    return home.temporary / f"pipeline-{digest}.lock"


@contextlib.contextmanager
def alone(home: Home, pipeline: Pipeline) -> Iterator[None]:
    """Hold the lock of a pipeline on a home.

    Raises:
        PipelineBusy: It is running already.
        HomeNotWritable: The lock cannot be made.
    """

    def busy(who: str) -> PipelineBusy:
        return PipelineBusy(
            f"The pipeline {pipeline.name} is running already ({who}): wait for its end, which "
            "`aico-lab pipeline runs` shows."
        )

    with os_errors(home.temporary), private_files():
        home.temporary.mkdir(exist_ok=True)
    with held(_lock_of(home, pipeline.name, pipeline.origin), _PATIENCE, busy):
        yield


def begin(
    connection: Connection,
    pipeline: Pipeline,
    steps: list[StepRecord],
    retry_of: str | None = None,
    period: str | None = None,
    *,
    missed: str | None = None,
) -> PipelineRun:
    """Record the start of a run and return it.

    Args:
        connection: The primary database.
        pipeline: The pipeline.
        steps: The records of its steps.
        retry_of: The run that it continues, or None.
        period: The time of the schedule for which it starts, or None.
        missed: The reason why no run started for the period; it is recorded instead of a run.

    Raises:
        DatabaseLocked: Another program keeps the run from being recorded.
    """
    started = utc_now()
    run = PipelineRun(
        f"{started:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}",
        pipeline.name,
        pipeline.origin,
        pipeline.sha256,
        "running" if missed is None else "missed",
        values.to_timestamp(started),
        None if missed is None else values.to_timestamp(started),
        missed,
        steps,
        [],
        [],
        {
            "aico-lab": version("aico-lab"),
            "python": platform.python_version(),
            "duckdb": version("duckdb"),
        },
        0,
        retry_of,
        period,
    )
    try:
        connection.execute(
            f"INSERT INTO pipeline_runs ({_COLUMNS}) VALUES ({', '.join('?' * 15)})",
            [
                run.run_id, run.pipeline, run.origin, run.file_sha256, run.status, run.started_at,
                run.finished_at, run.error, _json(steps), "[]", "[]", json.dumps(run.versions), 0,
                retry_of, period,
            ],
        )  # fmt: skip
    except DatabaseLocked as locked:
        raise DatabaseLocked(
            f"{pipeline.name} was not run, since another program has been writing aico.db for "
            f"{connection.busy_timeout:.0f} s and no run can be recorded meanwhile: end that "
            "program's transaction, and run the pipeline again."
        ) from locked
    return run


def clear_up(connection: Connection, home: Home) -> None:
    """Record killed runs as interrupted; those of a pipeline that is running are left alone."""
    running = connection.fetch_all(
        "SELECT DISTINCT pipeline, origin FROM pipeline_runs WHERE status = 'running'"
    )
    for name, origin in running:
        with contextlib.suppress(AicoLabError, OSError):  # else the next call tries again
            home.temporary.mkdir(exist_ok=True)
            with FileLock(_lock_of(home, name, origin), mode=0o600, timeout=0):
                connection.execute(
                    "UPDATE pipeline_runs SET status = 'interrupted', finished_at = ?, error = ? "
                    "WHERE pipeline = ? AND origin = ? AND status = 'running'",
                    [now(), INTERRUPTED, name, origin],
                )


def read_runs(
    connection: Connection,
    *,
    of: Pipeline | None = None,
    status: RunStatus | None = None,
    period: str | None = None,
    files: Iterable[str] | None = None,
    limit: int = -1,
) -> list[PipelineRun]:
    """Return runs, the newest first.

    Args:
        connection: The primary database.
        of: The pipeline; None for all.
        status: The status; None for any.
        period: The period, as the database has it; None for any and none.
        files: Only runs with one of these outputs, as the database has their paths; None for all.
        limit: The most runs; -1 for all.
    """
    mine = (None, None) if of is None else (of.name, of.origin)
    rows = connection.fetch_all(
        f"""SELECT {_COLUMNS} FROM pipeline_runs
        WHERE (?1 IS NULL OR (pipeline = ?1 AND origin = ?2))
        AND (?3 IS NULL OR status = ?3) AND (?4 IS NULL OR period = ?4)
        AND (?5 IS NULL OR EXISTS (
            SELECT 1 FROM json_each(outputs) AS one
            WHERE json_extract(one.value, '$.path') IN (SELECT value FROM json_each(?5))
        ))
        ORDER BY started_at DESC, run_id DESC LIMIT ?6""",
        [*mine, status, period, None if files is None else json.dumps(list(files)), limit],
    )
    return [_run(row) for row in rows]


def _run(row: tuple[Any, ...]) -> PipelineRun:
    facts = dict(zip(_COLUMNS.split(", "), row, strict=True))
    for name in ("steps", "outputs", "warnings", "versions"):
        facts[name] = json.loads(facts[name])
    facts["steps"] = [StepRecord(**one) for one in facts["steps"]]
    facts["outputs"] = [RunOutput(**one) for one in facts["outputs"]]
    return PipelineRun(**facts)


def steps_waiting(steps: tuple[Step, ...]) -> list[StepRecord]:
    """Return the records of steps before their run."""
    return [StepRecord(step.id, step.run) for step in steps]


def output_of(home: Home, step: Step, file: Path) -> RunOutput:
    """Return the record of a file that a step wrote."""
    with os_errors(file), file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    path = file.relative_to(home.path).as_posix() if file.is_relative_to(home.path) else str(file)
    return RunOutput(step.id, path, digest)


def note_safely(run: PipelineRun, connection: Connection) -> None:
    """Write a run that has ended once more; it stays as it was if that fails."""
    with contextlib.suppress(StorageError):
        run.save(connection)
