"""Checks whether the snapshot is complete and current: proof, quarantine, freshness, imports."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING, Final

from aico_lab.constants import MS_PER_DAY
from aico_lab.errors import AicoLabError, NeverSynced
from aico_lab.mart.marks import IS_MISSING
from aico_lab.metrics.engine.claims import counted
from aico_lab.metrics.engine.durations import duration
from aico_lab.reports.quality.checks import DataCheck, Verdict, found, rows_from
from aico_lab.reports.written import written_time
from aico_lab.zones import to_ms

if TYPE_CHECKING:
    from aico_lab.etl.verify import Proof
    from aico_lab.lab import Lab
    from aico_lab.pipeline.records import PipelineRun, StepRecord

_SYNC: Final = "aico-lab sync"


def proof_of_sync(lab: Lab) -> list[DataCheck]:
    """Return whether every value of the snapshot equals that of the primary database."""
    try:
        proof = lab.verify()
    except NeverSynced:
        raise
    except AicoLabError as error:  # such as a database that was restored from a backup
        return [DataCheck("Snapshot and database", "act", str(error).rstrip("."), None, _SYNC)]
    return _of_proof(proof)


def _of_proof(proof: Proof) -> list[DataCheck]:
    wrong = {name: table for name, table in proof.tables.items() if not table.ok}
    rows = sum(table.rows[0] for table in proof.tables.values())
    pending = sum(table.pending for table in proof.tables.values())
    same = f"all values of {counted(rows, 'rows')} in {counted(len(proof.tables), 'tables')} equal"
    checks = [DataCheck("Snapshot and database", "fine", same, 0)]
    if not proof.ok:
        differ = sum(table.differing for table in wrong.values())
        where = ", ".join(sorted(wrong)) or "the views"
        checks = [
            DataCheck(
                "Snapshot and database", "act", f"not equal in {where}", differ, "aico-lab verify"
            )
        ]
    checks.append(
        found(
            "Changes since the snapshot",
            pending,
            "look",
            f"{counted(pending, 'rows')} changed after the snapshot",
            good="every stored change is in the snapshot",
            command=_SYNC,
        )
    )
    return checks


def quarantine(lab: Lab) -> list[DataCheck]:
    """Return the rows that were set aside, by table, column and reason."""
    rows = rows_from(
        lab,
        "SELECT table_name, column_name, reason, count(DISTINCT row_key) "
        "FROM quarantine.misfits GROUP BY ALL ORDER BY 4 DESC, 1, 2, 3",
    )
    checks = [
        DataCheck(
            f"Quarantine: {table}.{column}",
            "act",
            f"{counted(n, 'rows')} left out of all answers: {reason}",
            n,
            'aico-lab sql "FROM quarantine.misfits"',
        )
        for table, column, reason, n in rows
    ]
    if not checks:
        checks.append(DataCheck("Quarantine", "fine", "every row fits its table", 0))
    ((unexplained,),) = rows_from(lab, "SELECT count(*) FROM quarantine.unexplained")
    if unexplained:
        checks.append(
            DataCheck(
                "Unexplained rows",
                "act",
                f"{counted(unexplained, 'rows')} ceased to fit without a recorded change",
                unexplained,
                "aico-lab sync --acknowledge",
            )
        )
    return checks


def freshness(lab: Lab, *, stale_days: int) -> list[DataCheck]:
    """Return the ages of the last message, of the last sync and of the snapshot.

    Args:
        lab: The lab.
        stale_days: The age, in days, from which the last message is called old. A sync is not:
            one that finds no changes leaves its time as it is.
    """
    now_ms = time.time_ns() // 1_000_000
    ((n, last_ms, synced_ms, generation),) = rows_from(
        lab,
        "SELECT (SELECT count(*) FROM mart.messages), "
        "(SELECT max(ts_ms) FROM mart.messages WHERE ts_ms <= ?), "
        "epoch_ms(max(synced_at)), max(generation) FROM meta.state",
        [now_ms],
    )

    def age(then_ms: int) -> str:
        ago = duration(max(now_ms - then_ms, 0) / 1000)
        return f"{written_time(then_ms, lab.timezone)}, {ago} ago"

    command = "aico-lab import FILE"
    if not n:
        last = DataCheck("Last message", "act", "no messages yet", None, command)
    elif last_ms is None:
        last = DataCheck("Last message", "look", "all are dated later than now", None, command)
    else:
        is_old = now_ms - last_ms >= stale_days * MS_PER_DAY
        verdict: Verdict = "look" if is_old else "fine"
        last = DataCheck("Last message", verdict, age(last_ms), None, command)
    return [
        last,
        DataCheck("Last sync with changes", "fine", age(synced_ms)),
        DataCheck("Snapshot", "fine", f"this page reads snapshot {generation}"),
    ]


def imports(lab: Lab) -> list[DataCheck]:
    """Return the newest outcome of each import by a pipeline.

    The imports are those of the newest run of each pipeline that has ended and has steps; one that
    it kept is that of the run that it continued.
    """
    steps: dict[tuple[str, str], set[str]] = {}
    newest: dict[tuple[str, str, str], DataCheck] = {}
    without_steps: dict[tuple[str, str], PipelineRun] = {}
    for run in lab.pipelines.runs():
        if run.status in ("running", "missed"):
            continue
        pipeline = run.pipeline, run.origin
        if run.status == "failed" and not run.steps and pipeline not in steps:
            without_steps.setdefault(pipeline, run)  # its file was not valid
            continue
        imported = [step for step in run.steps if step.run == "import"]
        known = steps.setdefault(pipeline, {step.id for step in imported})
        for step in imported:
            key = *pipeline, step.id
            if step.id in known and key not in newest and step.status != "kept":
                last = without_steps.get(pipeline)
                newest[key] = _of_import(run, step, lab.timezone, begun=last)
    if not newest:
        return [DataCheck("Imports by pipelines", "fine", "none were recorded")]
    return list(newest.values())


def _of_import(
    run: PipelineRun, step: StepRecord, zone: str, *, begun: PipelineRun | None
) -> DataCheck:
    """Return the check of an import.

    Args:
        run: The newest run with the step.
        step: The record of the step.
        zone: The IANA name of the zone of times.
        begun: A later run that ended before its steps were known; None for none.
    """
    name = f"Import of {run.pipeline}: {step.id}"
    if begun is not None:
        run = begun
    when = written_time(to_ms(datetime.fromisoformat(run.started_at)), zone)
    command = f"aico-lab pipeline show {run.run_id}"
    if begun is None and step.status == "failed":
        return DataCheck(name, "act", f"failed in the run of {when}", None, command)
    # A fault was found before it, or the run was stopped.
    if begun is not None or step.status != "ok":
        return DataCheck(name, "act", f"not done in the run of {when}", None, command)
    if step.warnings:
        text = f"done in the run of {when}, with {counted(len(step.warnings), 'warnings')}"
        return DataCheck(name, "look", text, None, command)
    return DataCheck(name, "fine", f"done in the run of {when}")


def missing(lab: Lab) -> list[DataCheck]:
    """Return the messages that a later export no longer has."""
    ((n,),) = rows_from(lab, f"SELECT count(*) FROM raw.messages WHERE {IS_MISSING}")
    return [
        found(
            "Messages missing from a later export",
            n,
            "look",
            f"{counted(n, 'messages')} stored, and left out of all metrics",
            command='aico-lab sql "SELECT message_id FROM raw.messages WHERE metadata LIKE '
            "'%missing_since%'\"",
        )
    ]
