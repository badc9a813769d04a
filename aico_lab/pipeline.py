"""Pipelines: the steps of a job as a TOML file, every option checked before the first step runs.

Whether the files that it reads are there, only the step itself can know.

::

    description = "Take in what is new and write the morning's report"

    [[steps]]
    run = "import"
    source = "jsonl"
    path = "messages.jsonl"      # relative to the pipeline's file
    on_conflict = "replace"      # edits of messages that are there; else 'keep'

    [[steps]]
    run = "sync"

    [[steps]]
    run = "load"                 # a table of another program's database
    path = "shop.db"
    table = "orders"
    watermark = "created_at"
    lag = 3600

    [[steps]]
    run = "report"
    name = "pattern_analysis"
    parameters = { days = 7 }
"""

from __future__ import annotations

import time
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aico_lab.errors import InvalidValue, SyncError, UnknownName
from aico_lab.shipped import shipped
from aico_lab.sources import get_source

if TYPE_CHECKING:
    from collections.abc import Callable

    from aico_lab.lab import Lab

# What each kind of step takes, and the types of its values.
_OPTIONS: dict[str, dict[str, type]] = {
    "import": {"source": str, "path": str, "limit": int, "on_conflict": str},
    "sync": {"full": bool, "on_change": str},
    "load": {
        "path": str,
        "table": str,
        "name": str,
        "key": list,
        "watermark": str,
        "lag": int,
        "deletes": bool,
        "full": bool,
    },
    "report": {"name": str, "parameters": dict, "timeout": int},
}
_REQUIRED = {"import": ("source",), "load": ("path", "table"), "report": ("name",)}


@dataclass(frozen=True, slots=True)
class Step:
    """One step, checked.

    Attributes:
        run: 'import', 'sync', 'load' or 'report'.
        options: What it takes.
    """

    run: str
    options: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A job."""

    name: str
    description: str
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step did.

    Attributes:
        run: The kind of step.
        result: What the same command would have given.
        seconds: How long it took.
    """

    run: str
    result: object
    seconds: float


def load_pipeline(name: str) -> Pipeline:
    """Read and check a pipeline.

    Args:
        name: One that comes with the package, or the path of a `.toml` file.

    Raises:
        UnknownName: There is no such pipeline, or a step or option of it is unknown.
        WrongUse: The file is no TOML, a value has the wrong type or is out of range, or an option
            is missing or too much.
    """
    path = Path(name) if name.endswith(".toml") else shipped("pipelines", ".toml").get(name)
    if path is None or not path.is_file():
        known = ", ".join(shipped("pipelines", ".toml")) or "none"
        raise UnknownName(
            f"There is no pipeline {name!r}: name a .toml file, or one of these: {known}."
        )
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as broken:
        raise InvalidValue(f"{path} is not valid TOML: {broken}.") from broken
    steps = content.get("steps")
    if not isinstance(steps, list) or not steps:
        raise InvalidValue(f"{path} has no steps: add a [[steps]] table with run = 'sync'.")
    return Pipeline(
        path.stem,
        str(content.get("description", "")),
        tuple(_check(number, step, path.parent) for number, step in enumerate(steps, 1)),
    )


def run_pipeline(
    lab: Lab, pipeline: Pipeline, *, on_step: Callable[[str, int, int], None] | None = None
) -> list[StepResult]:
    """Run the steps in their order; the first that fails ends it, and what was done stays.

    Args:
        lab: The home to work on.
        pipeline: The steps.
        on_step: Told of the next step, the steps done, and the steps in all.
    """
    results = []
    for number, step in enumerate(pipeline.steps):
        if on_step:
            on_step(f"{pipeline.name}: {step.run}", number, len(pipeline.steps))
        started = time.perf_counter()
        result = _run(lab, step.run, step.options)
        results.append(StepResult(step.run, result, time.perf_counter() - started))
    if on_step:
        on_step(pipeline.name, len(pipeline.steps), len(pipeline.steps))
    return results


def _run(lab: Lab, kind: str, options: dict[str, Any]) -> object:
    match kind:
        case "import":
            return lab.import_from(**options)
        case "sync":
            synced = lab.sync(**options)
            if synced.problems:
                raise SyncError(" ".join(synced.problems))
            return synced
        case "load":
            return lab.load(**options)
        case _:
            return lab.run_report(**options)


def _check(number: int, step: object, folder: Path) -> Step:
    if not isinstance(step, dict) or step.get("run") not in _OPTIONS:
        raise UnknownName(f"Step {number} must have run = one of {', '.join(_OPTIONS)}.")
    options = {name: value for name, value in step.items() if name != "run"}
    kind, allowed = step["run"], _OPTIONS[step["run"]]
    for name, value in options.items():
        if name not in allowed:
            raise UnknownName(
                f"Step {number} ({kind}) has no option {name!r}; it takes {', '.join(allowed)}."
            )
        if type(value) is not allowed[name]:
            raise InvalidValue(
                f"{name!r} of step {number} ({kind}) must be of type {allowed[name].__name__}."
            )
    for required in _REQUIRED.get(kind, ()):
        if required not in options:
            raise InvalidValue(f"Step {number} ({kind}) needs {required!r}.")
    if "path" in options:
        options["path"] = folder / options["path"]
    _check_meaning(number, kind, options)
    return Step(kind, options)


def _check_meaning(number: int, kind: str, options: dict[str, Any]) -> None:
    """Refuse what the step itself would refuse."""
    if kind == "load":
        from aico_lab.etl.foreign import check_load

        check_load(options["path"], options.get("name"), options.get("lag", 0))
    if kind == "import":
        from aico_lab.importer import check_on_conflict

        check_on_conflict(options.get("on_conflict", "keep"))
        get_source(options["source"]).check(options.get("path"), options.get("limit"))
    if kind == "report":
        if options.get("timeout", 1) < 1:
            raise InvalidValue(f"'timeout' of step {number} (report) must be at least 1 second.")
        from aico_lab.reports.parameters import bind, read_parameters
        from aico_lab.reports.runs import find_notebook

        bind(read_parameters(find_notebook(options["name"])), options.get("parameters", {}))
