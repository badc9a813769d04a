"""`aico-lab pipeline`: run several steps as one job."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aico_lab.cli import completion
from aico_lab.cli.common import HomeOption, JsonOption, KeyFileOption, home_of, open_lab
from aico_lab.cli.output import Bar, emit, note, say

if TYPE_CHECKING:
    from aico_lab.importing.importer import ImportResult
    from aico_lab.pipeline import Step, StepResult
    from aico_lab.pipeline.watching import WatchResult

pipeline = typer.Typer(help="Run several steps as one job.", no_args_is_help=True)


@pipeline.command("run")
def pipeline_run(
    name: Annotated[
        str,
        typer.Argument(
            help="The name of a pipeline of the package, or the path of a .toml file.",
            autocompletion=completion.pipelines,
        ),
    ],
    *,
    home: HomeOption = None,
    key_file: KeyFileOption = None,
    json: JsonOption = False,
) -> None:
    """Run the steps of a pipeline, up to the first that fails."""
    from aico_lab.pipeline import load_pipeline, run_pipeline

    steps = load_pipeline(name, home_of(home))
    results: list[StepResult] = []
    try:
        with open_lab(home, key_file) as lab, Bar("steps") as bar:
            run_pipeline(lab, steps, on_step=bar.show, on_result=results.append)
    finally:
        for step, result in zip(steps.steps, results, strict=False):  # up to one that failed
            _tell(step, result, quiet=json)
    if json:
        emit(results)


def _tell(step: Step, result: StepResult, *, quiet: bool) -> None:
    from aico_lab.cli.import_results import note_import, note_load, note_unexplained
    from aico_lab.etl.foreign import LoadResult
    from aico_lab.etl.sync import SyncResult
    from aico_lab.importing.importer import ImportResult
    from aico_lab.pipeline.watching import WatchResult

    match done := result.result:
        case ImportResult():
            path = step.options.get("path")
            _note_counts(step.options["source"] if path is None else path.name, done)
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
        ended = "done" if result.ok else "failed"
        say(f"{result.run:<8} {ended} in {result.seconds:.1f} s{at}")


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
def pipeline_list(*, json: JsonOption = False) -> None:
    """List the pipelines that come with the package."""
    from aico_lab.pipeline import load_pipeline
    from aico_lab.shipped import shipped

    pipelines = {name: load_pipeline(name) for name in shipped("pipelines", ".toml")}
    if json:
        emit(pipelines)
        return
    for name, steps in pipelines.items():
        say(f"{name:<12} {steps.description}")
