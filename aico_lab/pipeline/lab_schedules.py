"""`lab.schedules`: run what is due, and tell the next runs and what was missed.

Since when a schedule exists is noted in the primary database, so that a new one runs at its next
time and not at once.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Final

from aico_lab.adapters.libsql import NOW
from aico_lab.domain.values import to_timestamp
from aico_lab.errors import (
    AicoLabError,
    InvalidValue,
    PeriodDone,
    PeriodMissed,
    PipelineBusy,
)
from aico_lab.home.files import private_files
from aico_lab.pipeline import records
from aico_lab.pipeline.definition import read_pipeline
from aico_lab.pipeline.finding import pipelines
from aico_lab.pipeline.notices import tell_end
from aico_lab.pipeline.records import alone, begin, clear_up, read_runs, steps_waiting
from aico_lab.pipeline.running import run_pipeline
from aico_lab.pipeline.schedule import WRONG_CLOCK, due, last_time, missed, times_after
from aico_lab.zones import get_zone

if TYPE_CHECKING:
    from collections.abc import Callable

    from aico_lab.lab import Lab
    from aico_lab.pipeline.definition import Pipeline
    from aico_lab.pipeline.records import PipelineRun
    from aico_lab.pipeline.running import StepResult
    from aico_lab.pipeline.schedule import MissedPeriods, Schedule

_NOTED: Final = "schedules"
"""The key in `system_state` of the schedules and the times since which they exist."""

_RUNS: Final = 500
"""The most runs of a pipeline that are looked at."""

_PATIENCE: Final = 30 * 60.0
"""Seconds after its time from which on a run that has not begun is overdue."""


@dataclass(frozen=True, slots=True)
class ScheduledRun:
    """A run that a look at the schedules began, or the reason why it could not begin.

    Attributes:
        pipeline: The name of the pipeline.
        period: The time of the schedule, in UTC, ISO 8601, or None if it is not known.
        status: 'ok', 'failed', 'missed', 'busy' if it is running already
            or its record is locked, or 'done' if it has run.
        run_id: The run, or None.
        error: The reason why it did not end well, or None.
    """

    pipeline: str
    period: str | None
    status: str
    run_id: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class ScheduleState:
    """The state of a scheduled pipeline.

    Attributes:
        pipeline: The name of the pipeline.
        schedule: Its cron line; empty if the file is broken.
        timezone: The zone of the line.
        next: The next time in this zone, ISO 8601, or None.
        due: The period that is to run now, in UTC, or None.
        last: The newest run, or None.
        missed: The newest records of periods without a run, at most five.
        problems: One sentence for everything that is overdue or failed last.
    """

    pipeline: str
    schedule: str
    timezone: str
    next: str | None
    due: str | None
    last: PipelineRun | None
    missed: list[PipelineRun]
    problems: list[str]


class Schedules:
    """Run the pipelines of a home at the times of their schedules."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    @private_files()
    def tick(
        self,
        name: str | None = None,
        *,
        force: bool = False,
        allow_shell: bool = False,
        on_step: Callable[[str, int, int], None] | None = None,
        on_result: Callable[[StepResult], None] | None = None,
    ) -> list[ScheduledRun]:
        """Run every pipeline that is due, once, and return what was begun or missed.

        A pipeline that fails keeps no other from running.

        Args:
            name: The only pipeline, or None for all.
            force: Whether `name` runs for its last time even if it has run for it.
            allow_shell: Whether commands of the shell may be run.
            on_step: Called with the next step, the number of steps done, and their total.
            on_result: Called with the result of each step.

        Raises:
            UnknownName: There is no such pipeline.
            InvalidValue: `force` without a name, or the pipeline has no schedule.
        """
        if force and name is None:
            raise InvalidValue("--force needs the name of a pipeline.")
        lab = self._lab
        clear_up(lab.primary, lab.home)
        scheduled = self._scheduled()
        since = self._note({one.name: one.schedule for one in scheduled if one.schedule})
        if name is not None:
            scheduled = [one for one in scheduled if one.name == name]
            if not scheduled:
                read_pipeline(name, lab.home)  # raises an error if there is none
                raise InvalidValue(f"{name} has no schedule: add one to its file in `pipelines/`.")
        done: list[ScheduledRun] = []
        for pipeline in scheduled:
            schedule = pipeline.schedule
            if schedule is None:
                done.append(ScheduledRun(pipeline.name, None, "failed", None, _fault(pipeline)))
                continue
            told = self._note_missed(pipeline, schedule, since[pipeline.name])
            done += told
            if any(one.status == "busy" for one in told):
                continue  # a run now would hide what was missed before it
            now = records.utc_now()
            if force:
                period = last_time(schedule, now)
            else:
                runs = read_runs(lab.primary, of=pipeline, limit=_RUNS)
                period = due(schedule, now, runs, since=since[pipeline.name])
            if period is not None:
                done.append(
                    self._run(
                        pipeline,
                        period,
                        force=force,
                        allow_shell=allow_shell,
                        on_step=on_step,
                        on_result=on_result,
                    )
                )
        return done

    def _run(
        self,
        pipeline: Pipeline,
        period: datetime,
        *,
        force: bool,
        allow_shell: bool,
        on_step: Callable[[str, int, int], None] | None,
        on_result: Callable[[StepResult], None] | None,
    ) -> ScheduledRun:
        """Run a pipeline for a period, and return how it ended."""
        ended: list[PipelineRun] = []
        status, reason = "ok", None
        try:
            run_pipeline(
                self._lab,
                pipeline,
                allow_shell=allow_shell,
                on_step=on_step,
                on_result=on_result,
                on_end=ended.append,
                period=period,
                force=force,
            )
        except PeriodDone as error:  # by another scheduler, meanwhile
            status, reason = "done", str(error)
        except PipelineBusy as error:
            status, reason = "busy", str(error)
        except Exception as error:  # noqa: BLE001 - it must keep no other pipeline from running
            status, reason = "failed", records.sentence(error)
        run = ended[0].run_id if ended else None
        return ScheduledRun(pipeline.name, to_timestamp(period), status, run, reason)

    def _note_missed(
        self, pipeline: Pipeline, schedule: Schedule, since: datetime
    ) -> list[ScheduledRun]:
        """Record the periods that are too long ago to run, in one record, and send its notice."""
        lab = self._lab

        def lost() -> MissedPeriods | None:
            runs = read_runs(lab.primary, of=pipeline, limit=_RUNS)
            return missed(schedule, records.utc_now(), runs, since=since)

        if lost() is None:
            return []
        try:
            with alone(lab.home, pipeline):
                if (found := lost()) is None:  # another scheduler was faster
                    return []
                reason = _reason(schedule, found)
                run = begin(
                    lab.primary,
                    pipeline,
                    steps_waiting(pipeline.steps),
                    period=to_timestamp(found.last),
                    missed=reason,
                )
        except AicoLabError as error:  # it is running, or the database is locked
            return [ScheduledRun(pipeline.name, None, "busy", None, str(error))]
        tell_end(lab.primary, pipeline, run, [], PeriodMissed(reason))
        return [ScheduledRun(pipeline.name, run.period, "missed", run.run_id, reason)]

    def states(self) -> list[ScheduleState]:
        """Return the state of every scheduled pipeline of the home, and of every broken file."""
        lab, now = self._lab, records.utc_now()
        clear_up(lab.primary, lab.home)
        noted = self._noted()
        return [self._state(one, noted, now) for one in self._scheduled()]

    def _state(
        self, pipeline: Pipeline, noted: dict[str, dict[str, str]], now: datetime
    ) -> ScheduleState:
        name, schedule = pipeline.name, pipeline.schedule
        runs = read_runs(self._lab.primary, of=pipeline, limit=_RUNS)
        last = next((run for run in runs if run.status != "missed"), None)
        lost = [run for run in runs if run.status == "missed"][:5]
        problems = [_fault(pipeline)] if pipeline.faults else []
        problems += _problems_of_runs(name, runs)
        if schedule is None:
            return ScheduleState(name, "", "", None, None, last, lost, problems)
        since = _since(schedule, noted.get(name), now)
        if since is None:
            problems.append(
                f"No scheduler has looked at {name} since it has this schedule: run `aico-lab "
                "schedule install`, or keep `aico-lab schedule run` running."
            )
            since = now
        period = due(schedule, now, runs, since=since)
        is_running = bool(runs) and runs[0].status == "running"
        if period and (now - period).total_seconds() > _PATIENCE and not is_running:
            problems.append(f"{name} was due at {_local(schedule, period)} and has not run.")
        if found := missed(schedule, now, runs, since=since):
            problems.append(f"{name} is overdue: {_reason(schedule, found)}")
        following = next(times_after(schedule, now), None)
        zone = get_zone(schedule.timezone or "UTC")
        return ScheduleState(
            name,
            schedule.cron,
            zone.key,
            following.astimezone(zone).isoformat(timespec="minutes") if following else None,
            to_timestamp(period) if period else None,
            last,
            lost,
            problems,
        )

    def _scheduled(self) -> list[Pipeline]:
        """Return the pipelines that can be run by name and have a schedule, or may have one.

        A file with a faulty schedule, or that is no TOML, is returned without a schedule.
        """
        lab = self._lab
        lab.storage.check_open()
        found = []
        for name in pipelines(lab.home):
            try:
                pipeline = read_pipeline(name, lab.home)
            except AicoLabError:  # it was removed or cannot be read; `pipeline list` says so
                continue
            if pipeline.schedule is not None:
                pipeline = _within(pipeline, lab.timezone)
            elif not any(fault.step == 0 for fault in pipeline.faults):
                continue
            found.append(pipeline)
        return found

    def _noted(self) -> dict[str, dict[str, str]]:
        rows = self._lab.primary.fetch_all("SELECT value FROM system_state WHERE key = ?", [_NOTED])
        noted: dict[str, dict[str, str]] = json.loads(rows[0][0]) if rows else {}
        return noted

    def _note(self, schedules: dict[str, Schedule]) -> dict[str, datetime]:
        """Note new and changed schedules, and return the times since which all of them exist.

        Others stay noted: a file that is being edited, or on a disk that is away, comes back.
        """
        primary, now = self._lab.primary, records.utc_now()
        noted = self._noted()
        since = {
            name: _since(schedule, noted.get(name), now) or now
            for name, schedule in schedules.items()
        }
        wanted = noted | {
            name: {
                "schedule": schedule.cron,
                "timezone": schedule.timezone,
                "since": to_timestamp(since[name]),
            }
            for name, schedule in schedules.items()
        }
        if wanted != noted:
            with primary.transaction():
                primary.execute(
                    f"INSERT INTO system_state VALUES (?, ?, {NOW}) ON CONFLICT (key) "
                    "DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at",
                    [_NOTED, json.dumps(wanted)],
                )
        return since

    def __repr__(self) -> str:
        return "<Schedules: .tick() runs what is due, .states() returns the next and last runs>"


def _within(pipeline: Pipeline, zone: str) -> Pipeline:
    assert pipeline.schedule is not None  # noqa: S101 - for the types
    return replace(pipeline, schedule=pipeline.schedule.within(zone))


def _since(schedule: Schedule, noted: dict[str, str] | None, now: datetime) -> datetime | None:
    """Return since when a schedule exists; None if it is new, or if a wrong clock noted it."""
    if noted is None:
        return None
    if (noted["schedule"], noted["timezone"]) != (schedule.cron, schedule.timezone):
        return None
    since = datetime.fromisoformat(noted["since"])
    return since if since <= now + WRONG_CLOCK else None


def _fault(pipeline: Pipeline) -> str:
    return f"{pipeline.name} is broken: {pipeline.faults[0].error}"


def _problems_of_runs(name: str, runs: list[PipelineRun]) -> list[str]:
    """Return a sentence if the newest run that has ended did not end well."""
    newest = next((run for run in runs if run.status != "running"), None)
    if newest is None or newest.status == "ok":
        return []
    when = f"{datetime.fromisoformat(newest.started_at):%Y-%m-%d %H:%M} UTC"
    if newest.status == "missed":
        return [f"{name} was missed: {newest.error}"]
    verb = "failed" if newest.status == "failed" else "was interrupted"
    return [f"{name} {verb} at {when}: see `aico-lab pipeline show {newest.run_id}`."]


def _local(schedule: Schedule, moment: datetime) -> str:
    local = moment.astimezone(get_zone(schedule.timezone or "UTC"))
    return f"{local:%Y-%m-%d %H:%M} ({schedule.timezone})"


def _reason(schedule: Schedule, lost: MissedPeriods) -> str:
    hours = f"{schedule.catch_up / 3600:g} h"
    if lost.count == 1:
        return f"no run began within {hours} of {_local(schedule, lost.last)}."
    return (
        f"no run began within {hours} of {lost.count:,} times, from "
        f"{_local(schedule, lost.first)} to {_local(schedule, lost.last)}."
    )
