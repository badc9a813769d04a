"""The steps of a pipeline, from a TOML file: all options are validated before the first step.

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

import tomllib
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aico_lab.errors import (
    InvalidValue,
    UnknownName,
    WrongUse,
    did_you_mean,
)
from aico_lab.etl import evolution
from aico_lab.importing.importer import check_on_conflict
from aico_lab.shipped import shipped
from aico_lab.sources import SOURCES
from aico_lab.sources.exports.engine.conversation import ANSWERS, Options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aico_lab.home.folder import Home
    from aico_lab.sources import Source

GO_ON = ("fail", "continue")

_TYPES: dict[str, type] = {
    "companion": list,
    "step": float,
    "day_first": bool,
    "trust_times": bool,
    "map": dict,
    "role_map": dict,
}
"""The types of answers about a file that are not text."""

# The options of each kind of step, and their types.
_OPTIONS: dict[str, dict[str, type]] = {
    "import": {
        "source": str,
        "as": str,
        "path": str,
        **{name: _TYPES.get(name, str) for name in ANSWERS},
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
    """Accept a single companion as a string, and `start` as a TOML time."""
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
    answers = Options.read(**{one: options[one] for one in ANSWERS if one in options})
    if source is None:
        if options.get("limit", 1) < 1:
            raise InvalidValue("The limit must be at least 1 message.")
        return
    source.check(options.get("path"), options.get("limit"))
    source.check_options(answers, deletions=options.get("deletions", False))
