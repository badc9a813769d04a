"""Check a pipeline as far as it can be checked without running it."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aico_lab.config import source_key
from aico_lab.errors import (
    AicoLabError,
    FolderUnusable,
    NeverSynced,
    ShellRefused,
    SourceError,
    SourceMissing,
    SourceUnreadable,
    WrongUse,
)
from aico_lab.etl import snapshots
from aico_lab.pipeline.definition import StepFault
from aico_lab.pipeline.kinds import source_of
from aico_lab.pipeline.notices import check_notify
from aico_lab.pipeline.watching import fixed_part, is_pattern
from aico_lab.results import check_results_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from aico_lab.lab import Lab
    from aico_lab.pipeline.definition import Pipeline, Step

_OF_A_FILE = (SourceError, WrongUse)
"""Errors whose cause may be the file of a step."""

_PUBLISHING = ("sync", "load")
"""The kinds of steps that may publish a snapshot."""


@dataclass(frozen=True, slots=True)
class StepCheck:
    """The faults of a step, or of the whole file.

    Attributes:
        step: The number of the step, or 0 for the file.
        id: The id of the step, or 'file'.
        run: The kind of step, or ''.
        faults: One sentence for each fault.
    """

    step: int
    id: str
    run: str
    faults: list[str]


def check_pipeline(lab: Lab, pipeline: Pipeline, *, allow_shell: bool) -> list[StepCheck]:
    """Return the faults of the file and of each step, of which nothing is run.

    Args:
        lab: The home to run it on.
        pipeline: The pipeline, read with its faults.
        allow_shell: Whether commands of the shell are allowed.
    """
    faults = [*pipeline.faults, *input_faults(lab, pipeline, allow_shell=allow_shell)]
    if pipeline.notify is not None:
        faults += [StepFault(0, error) for error in check_notify(pipeline.notify)]
    return [
        StepCheck(number, name, run, [str(one.error) for one in faults if one.step == number])
        for number, name, run in [
            (0, "file", ""),
            *((number, step.id, step.run) for number, step in enumerate(pipeline.steps, 1)),
        ]
    ]


def input_faults(lab: Lab, pipeline: Pipeline, *, allow_shell: bool) -> Iterator[StepFault]:
    """Yield what would make a step fail because of what it reads, or of the home.

    Steps whose options have faults are left out.
    """
    wrong = {fault.step for fault in pipeline.faults}
    earlier: list[str] = []
    for number, step in enumerate(pipeline.steps, 1):
        if number not in wrong:
            try:
                with named(number, step):
                    _check_inputs(lab, step, earlier, allow_shell=allow_shell)
            except AicoLabError as error:
                yield StepFault(number, error)
        earlier.append(step.run)


@contextmanager
def named(number: int, step: Step) -> Iterator[None]:
    """Name the step, and its file, in an error of the block."""
    try:
        yield
    except AicoLabError as error:
        path = step.options.get("path")
        is_named = path is None or path.name in str(error) or not isinstance(error, _OF_A_FILE)
        error.args = (f"Step {number} ({step.label}): {'' if is_named else f'{path}: '}{error}",)
        raise


def _check_inputs(lab: Lab, step: Step, earlier: list[str], *, allow_shell: bool) -> None:
    """Raise the error that a step would raise because of what it reads.

    Args:
        lab: The home to work on.
        step: The step.
        earlier: The kinds of the steps before.
        allow_shell: Whether commands of the shell are allowed.
    """
    options = step.options
    match step.run:
        case "import" | "load":
            _check_file(lab, step)
        case "report":
            _check_generation(lab, options, to_come=sum(one in _PUBLISHING for one in earlier))
        case "export":
            _check_export(lab, options, earlier)
        case "federate":
            _ = lab.devices.federation.federation_id
            if not options.get("path", lab.home.path).is_dir():
                raise FolderUnusable(f"there is no folder {options['path']}.")
        case "shell":
            if not allow_shell:
                raise ShellRefused(
                    "commands of the shell run only where a person allows them: add --allow-shell."
                )
            if not options["folder"].is_dir():
                raise SourceMissing(f"there is no folder {options['folder']}.")


def _check_file(lab: Lab, step: Step) -> None:
    options = step.options
    path = options.get("path")
    if path is None:
        return
    there = fixed_part(path) if step.run == "import" and is_pattern(path) else path
    if not there.exists():
        raise SourceMissing(f"the file {there} does not exist; check its name.")
    source = source_of(options, lab.home) if step.run == "import" else None
    takes_folders = step.run == "import" and (source is None or source.export)
    if path.is_dir() and not takes_folders:
        raise SourceUnreadable(f"{path} is a folder: name a file in it.")
    if step.run == "load":
        _check_table(options)


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


def _check_generation(lab: Lab, options: Mapping[str, Any], *, to_come: int) -> None:
    """Raise an error if a report names a snapshot that will not be there.

    Args:
        lab: The home to work on.
        options: The options of the step.
        to_come: The number of snapshots that earlier steps may publish.
    """
    generation = options.get("parameters", {}).get("generation")
    named = generation if isinstance(generation, int) and generation > 0 else None
    newest = snapshots.newest(lab.home.snapshots)
    if not (newest < named <= newest + to_come if named else to_come):
        snapshots.find(lab.home.snapshots, named)


def _check_export(lab: Lab, options: Mapping[str, Any], earlier: list[str]) -> None:
    from aico_lab.pipeline.steps import exported

    check_results_file(options["path"])
    if "load" in earlier:  # which may make the table
        return
    try:
        exported(lab, options)
    except NeverSynced:
        if "sync" not in earlier:
            raise
