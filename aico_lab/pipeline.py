"""Pipelines: the steps of a job in a TOML file, with all options validated before the first step.

Whether input files exist is checked when the pipeline runs, before the first step.

::

    description = "Import new messages and write the morning's report"

    [[steps]]
    run = "import"
    source = "jsonl"             # or a name that `aico-lab import --save` keeps
    path = "messages.jsonl"      # relative to the pipeline's file
    on_conflict = "replace"      # update stored messages; the default is that of `Lab.import_from`
    on_rejects = "continue"      # skip invalid lines; default 'fail'

    [[steps]]
    run = "import"               # every new or changed file; recognised by its content
    path = "inbox/*.zip"         # a pattern or a folder; without `source`
    timezone = "Europe/Berlin"   # and all other options of `aico-lab import`
    companion = ["Otto"]
    deletions = true
    on_nothing = "fail"          # if no file matches; default 'continue'

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
    name = "pattern_analysis"    # or "mine.ipynb", relative to the pipeline's file
    parameters = { since = "7d" }
"""

from __future__ import annotations

import time
import tomllib
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aico_lab.config import source_key
from aico_lab.errors import (
    AicoLabError,
    InvalidValue,
    LinesRejected,
    SourceError,
    SourceMissing,
    SourceUnreadable,
    SyncError,
    UnknownName,
    WrongUse,
    did_you_mean,
)
from aico_lab.etl import evolution, snapshots
from aico_lab.importing.importer import ImportResult, check_on_conflict
from aico_lab.shipped import shipped
from aico_lab.sources import SOURCES, recognise
from aico_lab.sources.exports.engine.conversation import Options
from aico_lab.watching import WatchResult, fixed_part, import_watched, is_pattern

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from aico_lab.home.folder import Home
    from aico_lab.lab import Lab
    from aico_lab.sources import Source

GO_ON = ("fail", "continue")

_OF_A_FILE = (SourceError, WrongUse)
"""Errors whose cause may be the file of a step."""

_ANSWERS = (
    "timezone",
    "me",
    "companion",
    "start",
    "step",
    "day_first",
    "trust_times",
    "map",
    "role_map",
)
"""The options of an import that become `Options` of its source."""

_TABLES_KEEP = (
    "Tables hold no whole conversations: with deletions = true only the exports of other programs "
    "are compared with what is stored."
)

# The options of each kind of step, and their types.
_OPTIONS: dict[str, dict[str, type]] = {
    "import": {
        "source": str,
        "as": str,
        "path": str,
        "timezone": str,
        "me": str,
        "companion": list,
        "start": str,
        "step": float,
        "day_first": bool,
        "trust_times": bool,
        "map": dict,
        "role_map": dict,
        "deletions": bool,
        "limit": int,
        "on_conflict": str,
        "on_rejects": str,
        "on_nothing": str,
    },
    "sync": {"full": bool, "on_change": str},
    "load": {
        "path": str,
        "table": str,
        "name": str,
        "key": list,
        "watermark": str,
        "lag": float,
        "deletes": bool,
        "full": bool,
    },
    "report": {"name": str, "parameters": dict, "timeout": float},
}
_CALLED = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list of names",
    dict: "a table of names and values",
}
_REQUIRED = {"load": ("path", "table"), "report": ("name",)}


@dataclass(frozen=True, slots=True)
class Step:
    """One validated step.

    Attributes:
        run: The kind of step: 'import', 'sync', 'load' or 'report'.
        options: The options of the step.
    """

    run: str
    options: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A job of several steps."""

    name: str
    description: str
    steps: tuple[Step, ...]


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


def load_pipeline(name: str, home: Home | None = None) -> Pipeline:
    """Read and validate a pipeline.

    Args:
        name: The name of a shipped pipeline, or the path of a `.toml` file.
        home: The home to run it on, whose notebooks may be reports.

    Raises:
        UnknownName: The pipeline does not exist, or one of its steps or options is unknown.
        WrongUse: The file is not valid TOML, a value has the wrong type or is out of range, or an
            option is missing or superfluous.
    """
    path = Path(name) if name.lower().endswith(".toml") else shipped("pipelines", ".toml").get(name)
    if path is None or not path.is_file():
        names = shipped("pipelines", ".toml")
        end = f": name a .toml file, or one of these: {', '.join(names) or 'none'}."
        raise UnknownName(f"There is no pipeline {name!r}{did_you_mean(name, names, end)}")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as broken:
        raise InvalidValue(f"{path} is not valid TOML: {broken}.") from broken
    for key in sorted(content.keys() - {"description", "steps"}):
        end = did_you_mean(key, ("description", "steps"), "; it has description and steps.")
        raise UnknownName(f"A pipeline has no {key!r}, as in {path}{end}")
    _check_type(f"'description' of {path}", content.get("description", "none"), str)
    steps = content.get("steps")
    if not isinstance(steps, list) or not steps:
        raise InvalidValue(f"{path} has no steps: add a [[steps]] table with run = 'sync'.")
    return Pipeline(
        path.stem,
        content.get("description", ""),
        tuple(_check(number, step, path.parent, home) for number, step in enumerate(steps, 1)),
    )


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
            if failed := [*synced.damage(), *synced.problems]:
                raise SyncError(" ".join(failed))
            return synced
        case "load":
            return lab.load(**options)
        case _:
            return lab.reports.run(**options)


def _import(lab: Lab, options: Mapping[str, Any]) -> ImportResult | WatchResult:
    """Import a source, a file, or the new files of a watched folder."""
    path: Path | None = options.get("path")
    source: str | None = options.get("source") or options.get("as")
    answers = {name: options[name] for name in _ANSWERS if name in options}
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


def _check(number: int, step: object, folder: Path, home: Home | None) -> Step:
    if not isinstance(step, dict) or step.get("run") not in _OPTIONS:
        raise UnknownName(f"Step {number} must have run = one of {', '.join(_OPTIONS)}.")
    options = {name: value for name, value in step.items() if name != "run"}
    kind, allowed = step["run"], _OPTIONS[step["run"]]
    if kind == "import":
        _unify(options)
    where = f"step {number} ({kind})"
    for name, value in options.items():
        if name not in allowed:
            raise UnknownName(
                f"{where.capitalize()} has no option {name!r}; it takes {', '.join(allowed)}."
            )
        _check_type(f"{name!r} of {where}", value, allowed[name])
    for required in _REQUIRED.get(kind, ()):
        if required not in options:
            raise InvalidValue(f"{where.capitalize()} needs {required!r}.")
    if "path" in options:
        options["path"] = folder / Path(options["path"]).expanduser()
    if kind == "report" and options["name"].lower().endswith(".ipynb"):
        options["name"] = str(folder / Path(options["name"]).expanduser())
    try:
        _check_meaning(kind, options, home)
    except WrongUse as wrong:
        raise type(wrong)(f"{where.capitalize()}: {wrong}") from wrong
    return Step(kind, options)


def _unify(options: dict[str, Any]) -> None:
    """Accept one companion as text, and the start as a time of TOML."""
    if isinstance(options.get("companion"), str):
        options["companion"] = [options["companion"]]
    if isinstance(options.get("start"), date):
        options["start"] = options["start"].isoformat()


def _check_type(what: str, value: object, wanted: type) -> None:
    if type(value) is not wanted and not (wanted is float and type(value) is int):
        raise InvalidValue(f"{what} must be {_CALLED[wanted]}.")
    if value == "":
        raise InvalidValue(f"{what} is empty: leave it out, or fill it in.")
    if isinstance(value, list) and not (value and all(isinstance(one, str) for one in value)):
        raise InvalidValue(f"{what} must be {_CALLED[list]}.")


def source_of(options: Mapping[str, Any], home: Home | None) -> Source | None:
    """Return the source that an import step names, or None if it recognises each file.

    A source may be one that was saved in the home.

    Raises:
        UnknownName: There is no such source, and nothing was saved under its name.
        InvalidValue: The saved file has a wrong value.
    """
    name: str | None = options.get("source") or options.get("as")
    if name is not None and name not in SOURCES and home is not None:
        from aico_lab.importing.saved import load_saved

        saved = load_saved(home, name)
        name = name if saved is None else saved.format
    if name is None:
        return None
    return SOURCES[name]


def _check_meaning(kind: str, options: dict[str, Any], home: Home | None) -> None:
    """Raise the WrongUse that the step itself would raise."""
    if kind == "sync":
        evolution.check(options.get("on_change"))
    if kind == "load":
        from aico_lab.etl.foreign import check_load

        check_load(options["path"], options.get("name"), options.get("lag", 0))
    if kind == "import":
        _check_import(options, home)
    if kind == "report":
        from aico_lab.reports.lab_reports import check_timeout, find_notebook
        from aico_lab.reports.parameters import bind, read_parameters
        from aico_lab.reports.values import check_values

        check_timeout(options.get("timeout", 1))
        declared = read_parameters(find_notebook(options["name"], home))
        check_values(declared, bind(declared, options.get("parameters", {})))


def _check_import(options: Mapping[str, Any], home: Home | None) -> None:
    """Raise the WrongUse that an import with these options would raise."""
    check_on_conflict(options.get("on_conflict", "keep"))
    for name in ("on_rejects", "on_nothing"):
        if options.get(name, "fail") not in GO_ON:
            raise InvalidValue(f"{name} is {' or '.join(GO_ON)}.")
    if "source" in options and "as" in options:
        raise InvalidValue("give 'source' or 'as', not both.")
    source = source_of(options, home)
    if source is None and "path" not in options:
        raise InvalidValue("an import needs 'source' or 'path'.")
    answers = Options.read(**{one: options[one] for one in _ANSWERS if one in options})
    if source is None:
        if options.get("limit", 1) < 1:
            raise InvalidValue("The limit must be at least 1 message.")
        return
    source.check(options.get("path"), options.get("limit"))
    source.check_options(answers, deletions=options.get("deletions", False))
