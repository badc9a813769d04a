"""Run the steps of a pipeline, after checking what they read, and record the run."""

from __future__ import annotations

import math
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from aico_lab.domain.values import to_timestamp
from aico_lab.errors import AicoLabError, PeriodDone, ReportError, SourceError, StorageError
from aico_lab.pipeline.checking import input_faults, named
from aico_lab.pipeline.notices import tell_end
from aico_lab.pipeline.records import (
    alone,
    begin,
    clear_up,
    note_safely,
    output_of,
    read_runs,
    sentence,
    steps_waiting,
    utc_now,
)
from aico_lab.pipeline.retention import remove_old
from aico_lab.pipeline.schedule import is_taken
from aico_lab.pipeline.step_warnings import warnings_of
from aico_lab.pipeline.steps import rejected, run_step

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

    from aico_lab.adapters.libsql import Connection
    from aico_lab.lab import Lab
    from aico_lab.pipeline.definition import Pipeline, Step
    from aico_lab.pipeline.records import PipelineRun, StepRecord

_FIRST_PAUSE: Final = 1.0
"""Seconds before the second try of a step; each later pause is twice as long."""

_IN_THIS_PROCESS: Final = ("report", "shell")
"""The kinds of steps that have a process of their own, which they end at a timeout."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """The result of a step.

    Attributes:
        run: The kind of step.
        result: The result of the corresponding method of `Lab`.
        seconds: The duration in seconds.
        ok: Whether the step succeeded; false after an import with invalid lines.
        id: The id of the step.
        tries: How often it was begun.
        warnings: Sentences about its result.
        what: The source or the file's name of an import, else the id.
    """

    run: str
    result: object
    seconds: float
    ok: bool = True
    id: str = ""
    tries: int = 1
    warnings: list[str] = field(default_factory=list)
    what: str = ""


class StepClock:
    """The time that timeouts and the pauses between tries are measured with."""

    def monotonic(self) -> float:
        """Return seconds from an arbitrary moment."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait for some seconds."""
        time.sleep(seconds)


def run_pipeline(
    lab: Lab,
    pipeline: Pipeline,
    *,
    allow_shell: bool = False,
    retried: PipelineRun | None = None,
    on_step: Callable[[str, int, int], None] | None = None,
    on_result: Callable[[StepResult], None] | None = None,
    on_end: Callable[[PipelineRun], None] | None = None,
    clock: StepClock | None = None,
    period: datetime | None = None,
    force: bool = False,
) -> list[StepResult]:
    """Run the steps in order, up to the first that fails; finished steps are not undone.

    After a step with `on_failure = "continue"` the others are run, and its error is raised at the
    end.

    Args:
        lab: The home to work on.
        pipeline: The pipeline.
        allow_shell: Whether commands of the shell may be run.
        retried: A run of the same file, whose good steps before the first other one are left out.
        on_step: Called with the next step, the number of steps done, and their total.
        on_result: Called with the result of each step, also of an import with invalid lines.
        on_end: Called with the record of the run, whatever its end, before an error is raised.
        clock: The time for timeouts and pauses.
        period: The time of the schedule for which it runs, or None.
        force: Whether it runs even if there is a run for the period.

    Raises:
        PeriodDone: There is a run for the period.
        PipelineBusy: The pipeline is running already on this home.
        ShellRefused: A step is a command, and `allow_shell` is False; no step was run.
        SourceMissing: The file of a step does not exist; no step was run.
        SourceUnreadable: The file of a step is a folder; no step was run.
        UnknownName: A table or column of a step, or the generation of a report, does not exist; no
            step was run.
        InvalidValue: A key or watermark does not suit its table; no step was run.
        LinesRejected: An import met invalid lines; the valid ones were imported.
        AicoLabError: A step failed.
    """
    primary = lab.primary
    clear_up(primary, lab.home)
    with alone(lab.home, pipeline):
        before = read_runs(primary, of=pipeline, limit=1)
        if period is not None and not force:
            _refuse_second_run(primary, pipeline, period)
        steps = steps_waiting(pipeline.steps)
        if retried is not None:
            _keep_done(steps, retried)
        run = begin(
            primary,
            pipeline,
            steps,
            retried.run_id if retried else None,
            _period_of(period, retried),
        )
        last_good = next(iter(read_runs(primary, of=pipeline, status="ok", limit=1)), None)
        if last_good is None or last_good.versions != run.versions:
            pipeline = _without_skipping(pipeline)
        elif last_good.file_sha256 != run.file_sha256:
            pipeline = _without_skipping(pipeline, "encrypt")
        going = _Running(lab, pipeline, run, clock or StepClock(), on_step, on_result)
        try:
            results = going.all(allow_shell=allow_shell)
        except BaseException as stopped:
            with suppress(StorageError):  # the first error is the one to raise
                run.end(primary, stopped)
            if isinstance(stopped, Exception):
                tell_end(primary, pipeline, run, before, stopped)
            if on_end:
                on_end(run)
            raise
        run.end(primary)
        run.removed, run.warnings = remove_old(primary, lab.home, pipeline, run)
        if run.removed or run.warnings:
            note_safely(run, primary)
        tell_end(primary, pipeline, run, before)
        if on_end:
            on_end(run)
        return results


def _refuse_second_run(primary: Connection, pipeline: Pipeline, period: datetime) -> None:
    """Raise PeriodDone if there is a run for a period."""
    runs = read_runs(primary, of=pipeline, period=to_timestamp(period))
    if is_taken(period, utc_now(), runs):
        raise PeriodDone(
            f"{pipeline.name} has a run for {period:%Y-%m-%d %H:%M} UTC already: add --force "
            "for another one."
        )


def _period_of(period: datetime | None, retried: PipelineRun | None) -> str | None:
    """Return the period to record: a run that continues another one is for that one's."""
    if period is not None:
        return to_timestamp(period)
    return retried.period if retried is not None else None


def _keep_done(steps: list[StepRecord], retried: PipelineRun) -> None:
    """Mark the steps that a run had done before the first that failed or was not reached."""
    for step, past in zip(steps, retried.steps, strict=True):
        if past.status not in ("ok", "kept"):
            return
        step.status = "kept"


def _without_skipping(pipeline: Pipeline, having: str = "name") -> Pipeline:
    """Return the pipeline with every report run that has an option; by default all of them.

    Another version may write another page, and another file may name other recipients.
    """
    steps = (
        replace(step, options=step.options | {"on_unchanged": "run"})
        if "on_unchanged" in step.options and having in step.options
        else step
        for step in pipeline.steps
    )
    return replace(pipeline, steps=tuple(steps))


@dataclass(slots=True)
class _Running:
    """The steps of one run."""

    lab: Lab
    pipeline: Pipeline
    run: PipelineRun
    clock: StepClock
    on_step: Callable[[str, int, int], None] | None
    on_result: Callable[[StepResult], None] | None
    results: list[StepResult] = field(default_factory=list)
    missing: dict[int, Exception] = field(default_factory=dict)

    def all(self, *, allow_shell: bool) -> list[StepResult]:
        """Check the pipeline, run its steps, and return their results."""
        pipeline, total = self.pipeline, len(self.pipeline.steps)
        self._check(allow_shell=allow_shell)
        failure: AicoLabError | None = None
        for number, (step, record) in enumerate(zip(pipeline.steps, self.run.steps, strict=True)):
            if record.status == "kept":
                continue
            if self.on_step:
                self.on_step(f"{pipeline.name}: {step.label}", number, total)
            try:
                self._one(number + 1, step, record)
            except AicoLabError as error:
                if not step.goes_on:
                    raise
                failure = failure or error
        if self.on_step:
            self.on_step(pipeline.name, total, total)
        if failure is not None:
            raise failure
        return self.results

    def _check(self, *, allow_shell: bool) -> None:
        """Raise the first fault; note those of missing files in steps after which others are run.

        Such a step fails when its turn comes.
        """
        pipeline = self.pipeline
        for fault in pipeline.faults:
            raise fault.error
        for fault in input_faults(self.lab, pipeline, allow_shell=allow_shell):
            goes_on = pipeline.steps[fault.step - 1].goes_on
            if not goes_on or not isinstance(fault.error, SourceError):
                raise fault.error
            self.missing[fault.step] = fault.error

    def _one(self, number: int, step: Step, record: StepRecord) -> None:
        """Run a step and record how it went."""
        began = self.clock.monotonic()
        record.status = "running"
        self.run.save(self.lab.primary)
        try:
            if number in self.missing:
                raise self.missing[number]
            with named(number, step):
                done = self._tried(step, record, began)
            record.warnings = warnings_of(done)
            self._note_outputs(step, done)
            refused = rejected(number, step, done)
            record.seconds = self.clock.monotonic() - began
            path: Path | None = step.options.get("path")
            result = StepResult(
                step.run,
                done,
                record.seconds,
                refused is None,
                step.id,
                record.tries,
                record.warnings,
                step.options.get("source", step.id) if path is None else path.name,
            )
            self.results.append(result)
            if self.on_result:
                self.on_result(result)
            if refused is not None:
                raise refused
        except BaseException as stopped:
            record.seconds = self.clock.monotonic() - began
            record.status = "failed"
            record.error = sentence(stopped)
            if isinstance(stopped, ReportError) and stopped.notebook is not None:
                self._add_output(step, stopped.notebook)
            raise
        record.status = "ok"
        self.run.save(self.lab.primary)

    def _tried(self, step: Step, record: StepRecord, began: float) -> object:
        """Return the result of a step, which is tried again after errors that may pass."""
        clock, pause = self.clock, _FIRST_PAUSE
        while True:
            record.tries += 1
            spent = clock.monotonic() - began
            limit = math.inf if step.timeout is None else step.timeout
            left = None if step.timeout is None else max(step.timeout - spent, 0.1)
            try:
                return self._attempt(step, left)
            except AicoLabError as error:
                late = clock.monotonic() - began + pause >= limit
                if not error.transient or record.tries > step.retries or late:
                    raise
            clock.sleep(pause)
            pause *= 2

    def _attempt(self, step: Step, seconds: float | None) -> object:
        if seconds is None or step.run in _IN_THIS_PROCESS:
            return run_step(self.lab, step, seconds)
        from aico_lab.pipeline.step_process import run_in_process

        return run_in_process(self.lab, step, seconds)

    def _note_outputs(self, step: Step, done: Any) -> None:
        for name in ("html", "notebook", "file"):
            file: Path | None = getattr(done, name, None)
            if file is not None:
                self._add_output(step, file)

    def _add_output(self, step: Step, file: Path) -> None:
        with suppress(AicoLabError):  # it was removed meanwhile
            self.run.outputs.append(output_of(self.lab.home, step, file))
