"""Run the steps of a pipeline, after checking what they read."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aico_lab.config import source_key
from aico_lab.errors import (
    AicoLabError,
    LinesRejected,
    SourceError,
    SourceMissing,
    SourceUnreadable,
    SyncError,
    WrongUse,
)
from aico_lab.etl import snapshots
from aico_lab.importing.importer import ImportResult
from aico_lab.pipeline.definition import ANSWERS, source_of
from aico_lab.pipeline.watching import WatchResult, fixed_part, import_watched, is_pattern
from aico_lab.sources import SOURCES, recognise
from aico_lab.sources.exports.engine.conversation import Options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from aico_lab.lab import Lab
    from aico_lab.pipeline.definition import Pipeline, Step

_OF_A_FILE = (SourceError, WrongUse)
"""Errors whose cause may be the file of a step."""

_TABLES_KEEP = (
    "Tables hold no whole conversations: with deletions = true only the exports of other programs "
    "are compared with what is stored."
)


@dataclass(frozen=True, slots=True)
class StepResult:
    """The result of a step.

    Attributes:
        run: The kind of step.
        result: The result of the corresponding method of `Lab`.
        seconds: The duration in seconds.
        ok: Whether the pipeline continues; false after an import with invalid lines.
    """

    run: str
    result: object
    seconds: float
    ok: bool = True


def run_pipeline(
    lab: Lab,
    pipeline: Pipeline,
    *,
    on_step: Callable[[str, int, int], None] | None = None,
    on_result: Callable[[StepResult], None] | None = None,
) -> list[StepResult]:
    """Run the steps in order, up to the first that fails; finished steps are not undone.

    Args:
        lab: The home to work on.
        pipeline: The pipeline.
        on_step: Called with the next step, the number of steps done, and their total.
        on_result: Called with the result of each step, also of an import with invalid lines.

    Raises:
        SourceMissing: The file of a step does not exist; no step was run.
        SourceUnreadable: The file of a step is a folder; no step was run.
        UnknownName: A table or column of a step, or the generation of a report, does not exist; no
            step was run.
        InvalidValue: A key or watermark does not suit its table; no step was run.
        LinesRejected: An import met invalid lines; the valid ones were imported.
        AicoLabError: A step failed.
    """
    publishing = 0
    for number, step in enumerate(pipeline.steps, 1):
        path = step.options.get("path")
        if path is not None and step.run == "import" and is_pattern(path):
            path = fixed_part(path)
        if path is not None and not path.exists():
            raise SourceMissing(
                f"Step {number} ({step.run}): the file {path} does not exist; check its name."
            )
        with _named(number, step):
            _check_inputs(lab, step, to_come=publishing)
        publishing += step.run in ("sync", "load")
    results = []
    for number, step in enumerate(pipeline.steps):
        if on_step:
            on_step(f"{pipeline.name}: {step.run}", number, len(pipeline.steps))
        started = time.perf_counter()
        with _named(number + 1, step):
            done = _run(lab, step)
        rejected = _rejected(number + 1, step, done)
        result = StepResult(step.run, done, time.perf_counter() - started, ok=rejected is None)
        results.append(result)
        if on_result:
            on_result(result)
        if rejected:
            raise rejected
    if on_step:
        on_step(pipeline.name, len(pipeline.steps), len(pipeline.steps))
    return results


@contextmanager
def _named(number: int, step: Step) -> Iterator[None]:
    """Name the step, and its file, in an error of the block."""
    try:
        yield
    except AicoLabError as error:
        path = step.options.get("path")
        is_named = path is None or path.name in str(error) or not isinstance(error, _OF_A_FILE)
        error.args = (f"Step {number} ({step.run}): {'' if is_named else f'{path}: '}{error}",)
        raise


def _check_inputs(lab: Lab, step: Step, *, to_come: int) -> None:
    """Raise the error that a step would raise because of what it reads.

    Args:
        lab: The home to work on.
        step: The step.
        to_come: The number of snapshots that earlier steps may publish.
    """
    options = step.options
    path = options.get("path")
    source = source_of(options, lab.home) if step.run == "import" else None
    takes_folders = step.run == "import" and (source is None or source.export)
    if path is not None and path.is_dir() and not takes_folders:
        raise SourceUnreadable(f"{path} is a folder: name a file in it.")
    if step.run == "load":
        _check_table(options)
    if step.run == "report":
        generation = options.get("parameters", {}).get("generation")
        newest = snapshots.newest(lab.home.snapshots)
        known = not isinstance(generation, int) or generation < 1
        if not known and not newest < generation <= newest + to_come:
            snapshots.find(lab.home.snapshots, generation)


def _check_table(options: Mapping[str, Any]) -> None:
    """Raise an error if a load names an unknown table or column, or an unsuitable one."""
    from aico_lab.adapters.libsql_readonly import open_readonly
    from aico_lab.etl.foreign_source import ROWID, check_source

    with open_readonly(options["path"].absolute(), source_key()) as connection:
        check_source(
            connection,
            options["table"],
            key=options.get("key"),
            watermark=options.get("watermark", ROWID),
        )


def _run(lab: Lab, step: Step) -> object:
    options = step.options
    match step.run:
        case "import":
            return _import(lab, options)
        case "sync":
            synced = lab.sync(**options)
            if damaged := synced.damage():
                raise SyncError(" ".join(damaged))
            return synced
        case "load":
            return lab.load(**options)
        case _:
            return lab.reports.run(**options)


def _import(lab: Lab, options: Mapping[str, Any]) -> ImportResult | WatchResult:
    """Import a source, a file, or the new files of a watched folder."""
    path: Path | None = options.get("path")
    source: str | None = options.get("source") or options.get("as")
    answers = {name: options[name] for name in ANSWERS if name in options}
    asked: dict[str, Any] = {
        "limit": options.get("limit"),
        "on_conflict": options.get("on_conflict"),
        "deletions": options.get("deletions", False),
        "options": Options.read(**answers) if answers else None,
    }

    told_of_tables = False

    def take(one: Path) -> ImportResult:
        nonlocal told_of_tables
        if source is not None:
            return lab.import_from(source, one, **asked)
        name = recognise(one, asked["options"]).name
        if SOURCES[name].export or not asked["deletions"]:
            return lab.import_from(name, one, **asked)
        taken = lab.import_from(name, one, **asked | {"deletions": False})
        if not told_of_tables:
            taken.notes.append(_TABLES_KEEP)
        told_of_tables = True
        return taken

    if path is None:
        return lab.import_from(options["source"], **asked)
    if not is_pattern(path) and ("source" in options or not path.is_dir()):
        return take(path)
    told = {name: value for name, value in options.items() if not name.startswith(("on_r", "on_n"))}
    keep_going = options.get("on_rejects") == "continue"
    return import_watched(lab, path, take, answers=told, keep_going=keep_going)


def _rejected(number: int, step: Step, result: object) -> LinesRejected | None:
    """Return the error for files that cannot be read and invalid lines, if they end the job."""
    goes_on = step.options.get("on_rejects") == "continue"
    if isinstance(result, WatchResult):
        if not (result.files or result.unchanged) and step.options.get("on_nothing") == "fail":
            return LinesRejected(
                f"Step {number} (import) found no file: nothing matches {result.watched}."
            )
        if result.broken and not goes_on:
            first = result.broken[0]
            return LinesRejected(
                f"Step {number} (import) could not read {len(result.broken):,} of "
                f"{len(result.files):,} new files, the first being {first.path} ({first.error}) "
                "Replace or move it, or set on_rejects = 'continue' in that step."
            )
        results = [one.result for one in result.files if one.result is not None]
    else:
        results = [result] if isinstance(result, ImportResult) else []
    rejected = sum(one.rejected for one in results)
    if not rejected or goes_on:
        return None
    first_one = next(one.examples[0] for one in results if one.rejected)
    noun = f"{'part' if first_one.where else 'line'}{'' if rejected == 1 else 's'}"
    where = first_one.where or f"line {first_one.line}"
    return LinesRejected(
        f"Step {number} (import) left out {rejected:,} invalid {noun}, the first being "
        f"{where} ({first_one.reason.rstrip('.')}): correct the file, or set "
        "on_rejects = 'continue' in that step."
    )
