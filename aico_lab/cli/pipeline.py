"""`aico-lab pipeline`: run several steps as one job, and list the runs."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aico_lab.cli import completion
from aico_lab.cli.common import HomeOption, JsonOption, KeyFileOption, home_of, open_lab
from aico_lab.cli.output import Bar, emit, note, say

if TYPE_CHECKING:
    from collections.abc import Callable

    from aico_lab.importing.importer import ImportResult
    from aico_lab.pipeline import StepResult
    from aico_lab.pipeline.records import PipelineRun
    from aico_lab.pipeline.watching import WatchResult

pipeline = typer.Typer(
    help="Run several steps as one job, and list the runs.", no_args_is_help=True
)

NameArgument = Annotated[
    str,
    typer.Argument(
        help="The name of a pipeline of the home or the package, or the path of a .toml file.",
        autocompletion=completion.pipelines,
    ),
]
RunArgument = Annotated[
    str,
    typer.Argument(help="The id of a run, or the name of a pipeline, for its newest run."),
]
ShellOption = Annotated[
    bool, typer.Option("--allow-shell", help="Allow steps that are commands of the shell.")
]


@pipeline.command("run")
def pipeline_run(
    name: NameArgument,
    *,
    allow_shell: ShellOption = False,
    home: HomeOption = None,
    key_file: KeyFileOption = None,
    json: JsonOption = False,
) -> None:
    """Run the steps of a pipeline, up to the first that fails.

    The run is recorded, whatever its end.
    """
    with open_lab(home, key_file) as lab:
        _run(partial(lab.pipelines.run, name, allow_shell=allow_shell), json=json)


@pipeline.command("retry")
def pipeline_retry(
    run: RunArgument,
    *,
    allow_shell: ShellOption = False,
    home: HomeOption = None,
    key_file: KeyFileOption = None,
    json: JsonOption = False,
) -> None:
    """Continue a run at the step that failed.

    The file of the pipeline must be the same as then.
    """
    with open_lab(home, key_file) as lab:
        _run(partial(lab.pipelines.retry, run, allow_shell=allow_shell), json=json)


def _run(start: Callable[..., PipelineRun], *, json: bool) -> None:
    """Run a pipeline, and print the results of its steps up to the first that failed."""
    results: list[StepResult] = []
    ended: list[PipelineRun] = []
    try:
        with Bar("steps") as bar:
            start(on_step=bar.show, on_result=results.append, on_end=ended.append)
    finally:
        for result in results:
            _tell(result, quiet=json)
        for run in ended:
            _tell_failed(run, results, quiet=json)
            for warning in run.warnings:
                note(warning)
            if run.removed and not json:
                say(f"{run.removed:,} old reports removed")
    if json:
        emit(results)


@pipeline.command("check")
def pipeline_check(
    name: NameArgument,
    *,
    allow_shell: ShellOption = False,
    home: HomeOption = None,
    key_file: KeyFileOption = None,
    json: JsonOption = False,
) -> None:
    """Find the faults of a pipeline without running it.

    A line for each step, and one for each fault.
    """
    with open_lab(home, key_file) as lab:
        checks = lab.pipelines.check(name, allow_shell=allow_shell)
    if json:
        emit(checks)
    else:
        for one in checks:
            named = one.id if one.run in ("", one.id) else f"{one.id} ({one.run})"
            say(f"{'FAIL' if one.faults else 'ok  '} {one.step or '':<3} {named}")
            for fault in one.faults:
                say(f"         {fault}")
    if any(one.faults for one in checks):
        raise typer.Exit(1)


def _tell(result: StepResult, *, quiet: bool) -> None:
    from aico_lab.cli.import_results import note_import, note_load, note_unexplained
    from aico_lab.etl.foreign import LoadResult
    from aico_lab.etl.sync import SyncResult
    from aico_lab.importing.importer import ImportResult
    from aico_lab.pipeline.steps import UnchangedReport
    from aico_lab.pipeline.watching import WatchResult

    match done := result.result:
        case ImportResult():
            _note_counts(result.what, done)
            note_import(done)
        case WatchResult():
            _note_watched(done)
        case SyncResult():
            note_unexplained(done)
            for problem in done.problems:  # of the vectors or the cache, which no step reads
                note(problem)
        case LoadResult():
            note_load(done)
    if not quiet:
        page = getattr(done, "html", None)  # of a report
        at = f": {page}" if isinstance(page, Path) else ""
        unchanged = isinstance(done, UnchangedReport)
        ended = "unchanged" if unchanged else "done" if result.ok else "failed"
        say(f"{result.run:<8} {ended} in {result.seconds:.1f} s{at}")


def _tell_failed(run: PipelineRun, results: list[StepResult], *, quiet: bool) -> None:
    """Print the steps that failed without a result, and their errors but for that of the run."""
    told = {result.id for result in results}
    for step in run.steps:
        if step.status == "failed" and step.id not in told:
            if not quiet:
                say(f"{step.run:<8} failed in {step.seconds:.1f} s")
            if step.error is not None and step.error != run.error:
                note(step.error)


def _note_watched(result: WatchResult) -> None:
    """Print what became of each new file of a watched folder."""
    from aico_lab.cli.import_results import note_import

    if not result.files:
        why = f"{result.unchanged:,} unchanged" if result.unchanged else "no file matches"
        note(f"Nothing new in {result.watched}: {why}.")
    for one in result.files:
        if one.result is None:
            note(f"{one.path.name} could not be read: {one.error}")
        else:
            _note_counts(one.path.name, one.result)
            note_import(one.result)


def _note_counts(name: str, result: ImportResult) -> None:
    in_conflict = result.conflicts - result.updated
    note(
        f"{name}: {result.added:,} added, {result.known:,} stored already, {result.updated:,} "
        f"updated, {result.missing:,} missing"
        f"{f', {in_conflict:,} in conflict' if in_conflict > 0 else ''}."
    )


@pipeline.command("list")
def pipeline_list(*, home: HomeOption = None, json: JsonOption = False) -> None:
    """List the pipelines of the home and of the package.

    A pipeline of the home takes the place of one of the package with the same name.
    """
    from aico_lab.pipeline.definition import read_pipeline
    from aico_lab.pipeline.finding import pipelines

    lab_home = home_of(home)
    read = {
        name: read_pipeline(str(path), lab_home) for name, (path, _) in pipelines(lab_home).items()
    }
    if json:
        # Without the addresses of notices, which are secrets.
        emit(
            {
                name: {
                    "name": name,
                    "description": one.description,
                    "from": one.origin,
                    "path": one.path,
                    "schedule": one.schedule and one.schedule.cron,
                    "steps": [{"run": step.run, "id": step.id} for step in one.steps],
                    "faults": [str(fault.error) for fault in one.faults],
                }
                for name, one in read.items()
            }
        )
        return
    for name, one in read.items():
        broken = f"broken: {one.faults[0].error}" if one.faults else one.description
        say(f"{name:<12} {one.origin:<8} {broken}")


@pipeline.command("runs")
def pipeline_runs(
    *,
    limit: Annotated[int, typer.Option(min=1, help="The maximum number of runs.")] = 20,
    home: HomeOption = None,
    key_file: KeyFileOption = None,
    json: JsonOption = False,
) -> None:
    """List the runs of pipelines, the newest first."""
    with open_lab(home, key_file) as lab:
        runs = lab.pipelines.runs(limit)
    if json:
        emit(runs)
        return
    for run in runs:
        done = sum(step.status in ("ok", "kept") for step in run.steps)
        warnings = len(run.warnings) + sum(len(step.warnings) for step in run.steps)
        said = f", {warnings} warning{'' if warnings == 1 else 's'}" if warnings else ""
        say(
            f"{run.run_id}  {_minute(run.started_at)}  {run.status:<11}  {run.pipeline}  "
            f"{done} of {len(run.steps)} steps{said}"
        )


@pipeline.command("show")
def pipeline_show(
    run: RunArgument,
    *,
    home: HomeOption = None,
    key_file: KeyFileOption = None,
    json: JsonOption = False,
) -> None:
    """Show the steps, warnings, versions and outputs of a run."""
    with open_lab(home, key_file) as lab:
        shown = lab.pipelines.show(run)
    if json:
        emit(shown)
        return
    facts = {
        "run": shown.run_id,
        "pipeline": shown.pipeline,
        "from": shown.origin,
        "file": f"SHA-256 {shown.file_sha256}",
        "status": shown.status,
        "started": shown.started_at,
        "finished": shown.finished_at,
        "retry of": shown.retry_of,
        "period": shown.period,
        "versions": ", ".join(f"{name} {one}" for name, one in shown.versions.items()),
        "removed": f"{shown.removed} old reports" if shown.removed else None,
        "error": shown.error,
    }
    for fact, value in facts.items():
        if value is not None:
            say(f"{fact:<10} {value}")
    for step in shown.steps:
        tries = f", {step.tries} tries" if step.tries > 1 else ""
        took = f" in {step.seconds:.1f} s{tries}" if step.tries else ""
        say(f"step       {step.id}: {step.status}{took}")
        for warning in step.warnings:
            say(f"           {warning}")
        if step.error and step.error != shown.error:
            say(f"           {step.error}")
    for output in shown.outputs:
        say(f"output     {output.path} (SHA-256 {output.sha256})")
    for warning in shown.warnings:
        say(f"warning    {warning}")


def _minute(text: str) -> str:
    return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M} UTC"
