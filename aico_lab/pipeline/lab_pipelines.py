"""`lab.pipelines`: run pipelines, check them, and list their runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aico_lab.errors import InvalidValue, PipelineBusy, PipelineChanged, UnknownName, did_you_mean
from aico_lab.home.files import private_files
from aico_lab.pipeline.checking import check_pipeline
from aico_lab.pipeline.definition import read_pipeline
from aico_lab.pipeline.finding import pipelines
from aico_lab.pipeline.records import clear_up, read_runs
from aico_lab.pipeline.running import run_pipeline

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from aico_lab.lab import Lab
    from aico_lab.pipeline.checking import StepCheck
    from aico_lab.pipeline.records import PipelineRun
    from aico_lab.pipeline.running import StepResult


class Pipelines:
    """Run pipelines on a lab, and list the runs."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    @private_files()
    def run(
        self,
        name: str | Path,
        *,
        allow_shell: bool = False,
        on_step: Callable[[str, int, int], None] | None = None,
        on_result: Callable[[StepResult], None] | None = None,
        on_end: Callable[[PipelineRun], None] | None = None,
    ) -> PipelineRun:
        """Run the steps of a pipeline, up to the first that fails, and return the run.

        Args:
            name: A pipeline of the home's folder `pipelines` or of the package, or the path of a
                `.toml` file.
            allow_shell: Whether commands of the shell may be run.
            on_step: Called with the next step, the number of steps done, and their total.
            on_result: Called with the result of each step.
            on_end: Called with the run, before an error is raised.

        Raises:
            UnknownName: The pipeline, or something that it names, does not exist.
            WrongUse: The file has a fault.
            PipelineBusy: The pipeline is running already on this home.
            ShellRefused: A step is a command, and `allow_shell` is False.
            AicoLabError: A step failed.
        """
        return self._run(
            name, None, on_end, allow_shell=allow_shell, on_step=on_step, on_result=on_result
        )

    @private_files()
    def retry(
        self,
        run: str,
        *,
        allow_shell: bool = False,
        on_step: Callable[[str, int, int], None] | None = None,
        on_result: Callable[[StepResult], None] | None = None,
        on_end: Callable[[PipelineRun], None] | None = None,
    ) -> PipelineRun:
        """Run a pipeline again from the step on at which a run failed, and return the new run.

        Args:
            run: The id of the run, or the name of a pipeline for its newest run.
            allow_shell: See `run`.
            on_step: See `run`.
            on_result: See `run`.
            on_end: See `run`.

        Raises:
            UnknownName: There is no such run, or its pipeline does not exist any more.
            InvalidValue: The run did not fail.
            PipelineBusy: The run has not ended yet.
            PipelineChanged: The file of the pipeline has changed since.
            AicoLabError: A step failed.
        """
        past = self.show(run)
        if past.status == "ok":
            raise InvalidValue(
                f"The run {past.run_id} succeeded: run `aico-lab pipeline run {past.pipeline}` for "
                "another one."
            )
        if past.status == "running":
            raise PipelineBusy(f"The run {past.run_id} has not ended yet: wait for its end.")
        name = past.pipeline if past.origin in ("package", "home") else past.origin
        return self._run(
            name, past, on_end, allow_shell=allow_shell, on_step=on_step, on_result=on_result
        )

    def _run(
        self,
        name: str | Path,
        retried: PipelineRun | None,
        on_end: Callable[[PipelineRun], None] | None,
        **options: Any,
    ) -> PipelineRun:
        ended: list[PipelineRun] = []

        def end(run: PipelineRun) -> None:
            ended.append(run)
            if on_end:
                on_end(run)

        lab = self._lab
        lab.storage.check_open()
        pipeline = read_pipeline(str(name), lab.home)
        if retried is not None and pipeline.sha256 != retried.file_sha256:
            raise PipelineChanged(
                f"{pipeline.path} has changed since the run {retried.run_id}: run "
                f"`aico-lab pipeline run {name}` to run all steps."
            )
        run_pipeline(lab, pipeline, retried=retried, on_end=end, **options)
        return ended[0]

    def check(self, name: str | Path, *, allow_shell: bool = False) -> list[StepCheck]:
        """Return the faults of a pipeline's file and of each step; nothing is run.

        Args:
            name: See `run`.
            allow_shell: Whether commands of the shell are allowed.

        Raises:
            UnknownName: There is no such pipeline.
        """
        lab = self._lab
        lab.storage.check_open()
        return check_pipeline(lab, read_pipeline(str(name), lab.home), allow_shell=allow_shell)

    def runs(self, limit: int | None = None) -> list[PipelineRun]:
        """Return the runs of all pipelines, the newest first.

        Args:
            limit: The most runs.

        Raises:
            InvalidValue: The limit is below 1.
        """
        if limit is not None and limit < 1:
            raise InvalidValue("The limit must be at least 1 run.")
        clear_up(self._lab.primary, self._lab.home)
        return read_runs(self._lab.primary, limit=-1 if limit is None else limit)

    def show(self, name: str) -> PipelineRun:
        """Return a run.

        Args:
            name: The id of the run, or the name of a pipeline for its newest run.

        Raises:
            UnknownName: There is no such run.
        """
        runs = self.runs()
        for run in runs:
            if name in (run.run_id, run.pipeline):
                return run
        known = {run.pipeline for run in runs}
        end = did_you_mean(name, known, ": see `aico-lab pipeline runs`.")
        raise UnknownName(f"There is no run of {name!r}{end}")

    def __repr__(self) -> str:
        names = ", ".join(pipelines(self._lab.home))
        return (
            f"<Pipelines: .run(NAME) runs one of {names}; .check(NAME) finds its faults, .runs() "
            "returns the runs, .show(RUN) one, .retry(RUN) continues it>"
        )
