"""The steps of a pipeline, from a TOML file: all options are validated before the first step.

Whether input files exist is checked when the pipeline runs, before the first step.

::

    description = "Import new messages and write the morning's report"
    keep = { count = 30, days = 90 }   # of the outputs of old runs
    schedule = "30 6 * * *"      # minute, hour, day, month, day of the week
    timezone = "Europe/Berlin"   # of the schedule; by default that of the lab
    catch_up = "12h"             # how late a run may start; the default

    [notify]
    urls_file = "notify.txt"     # or urls = ["mailto://…"], as Apprise has them
    on = ["failure", "recovery"]

    [[steps]]
    run = "import"
    id = "exports"               # by default "import-1"
    retries = 3                  # only after errors that may pass, such as a locked database
    timeout = "10m"
    on_failure = "continue"      # run the other steps all the same
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
    run = "index"                # segments; with the options of `aico-lab index`

    [[steps]]
    run = "sync"

    [[steps]]
    run = "verify"               # fails if the snapshot differs from the database

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
    on_unchanged = "skip"        # if there is a report of the same snapshot; default 'run'
    encrypt = ["age1…"]          # recipients of age, who alone can open it

    [[steps]]
    run = "export"
    query = "FROM conversations" # or table = "raw.messages"
    path = "messages.parquet"    # .csv, .parquet or .json; it replaces the file of the last run
    content = false              # fail if it holds text of messages; default true

    [[steps]]
    run = "shell"                # only with --allow-shell
    command = "rsync -a . backup:"   # or a list of words, without a shell
"""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from aico_lab.errors import InvalidValue, UnknownName, WrongUse, did_you_mean
from aico_lab.home.files import os_errors
from aico_lab.pipeline.finding import find_pipeline
from aico_lab.pipeline.kinds import (
    OPTIONS,
    REQUIRED,
    Keep,
    check_meaning,
    check_type,
    read_keep,
    read_seconds,
)
from aico_lab.pipeline.notices import NotifySettings, read_notify
from aico_lab.pipeline.schedule import Schedule, read_schedule

if TYPE_CHECKING:
    from collections.abc import Callable

    from aico_lab.home.folder import Home

_KEYS: Final = ("description", "steps", "keep", "notify", "schedule", "timezone", "catch_up")

_COMMON: Final[dict[str, type]] = {
    "id": str,
    "retries": int,
    "timeout": object,
    "on_failure": str,
}
"""The options of every step, and their types."""

_MOST_RETRIES: Final = 10
_LONGEST_ID: Final = 60


@dataclass(frozen=True, slots=True)
class Step:
    """One step.

    Attributes:
        run: The kind of step, such as 'import' or 'sync'.
        options: The options of its kind.
        id: The name that no other step of the pipeline has.
        label: The name of the step in errors.
        retries: How often it is tried again after an error that may pass.
        timeout: Seconds after which it is ended, or None.
        goes_on: Whether the steps after it are run if it fails.
        keep: How long its outputs are kept, or None as the pipeline says.
    """

    run: str
    options: dict[str, Any]
    id: str = ""
    label: str = ""
    retries: int = 0
    timeout: float | None = None
    goes_on: bool = False
    keep: Keep | None = None


@dataclass(frozen=True, slots=True)
class StepFault:
    """A fault of a pipeline.

    Attributes:
        step: The number of the step, or 0 for the file.
        error: The error that a run raises for it.
    """

    step: int
    error: Exception


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A job of several steps.

    Attributes:
        name: The name of its file.
        description: A sentence about it.
        steps: The steps; those with faults as far as they could be read.
        path: The file.
        origin: 'package', 'home', or the absolute path of a file elsewhere.
        sha256: The digest of the file's content.
        keep: How long outputs of old runs are kept, or None for always.
        notify: The settings of notices, or None.
        faults: The faults of the file.
        schedule: The times at which it runs, or None.
    """

    name: str
    description: str
    steps: tuple[Step, ...]
    path: Path
    origin: str
    sha256: str
    keep: Keep | None = None
    notify: NotifySettings | None = field(default=None, repr=False)
    faults: tuple[StepFault, ...] = ()
    schedule: Schedule | None = None


def load_pipeline(name: str, home: Home | None = None) -> Pipeline:
    """Read a pipeline without faults.

    Args:
        name: The name of a pipeline of the home or the package, or the path of a `.toml` file.
        home: The home to run it on, whose notebooks may be reports.

    Raises:
        UnknownName: The pipeline does not exist, or one of its steps or options is unknown.
        WrongUse: The file is not valid TOML, a value has the wrong type or is out of range, or an
            option is missing or superfluous.
    """
    pipeline = read_pipeline(name, home)
    for fault in pipeline.faults:
        raise fault.error
    return pipeline


def read_pipeline(name: str, home: Home | None = None) -> Pipeline:
    """Read a pipeline with all faults of its file.

    Args:
        name: See `load_pipeline`.
        home: See `load_pipeline`.

    Raises:
        UnknownName: The pipeline does not exist.
        HomeNotWritable: The file cannot be read.
    """
    path, origin = find_pipeline(name, home)
    with os_errors(path):
        data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    try:
        content = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as broken:
        fault = InvalidValue(f"{path} is not valid TOML: {broken}.")
        faults = (StepFault(0, fault),)
        return Pipeline(path.stem, "", (), path, origin, digest, faults=faults)
    return _Reading(path, home).read(content, origin, digest)


class _Reading:
    """The reading of one file, which collects all faults.

    Attributes:
        faults: The faults so far.
    """

    def __init__(self, path: Path, home: Home | None) -> None:
        self._path = path
        self._home = home
        self.faults: list[StepFault] = []

    def _try(self, number: int, action: Callable[[], Any]) -> Any:
        """Return the result of a function, or None if it raises a fault, which is noted."""
        try:
            return action()
        except WrongUse as wrong:
            self.faults.append(StepFault(number, wrong))
            return None

    def read(self, content: dict[str, Any], origin: str, digest: str) -> Pipeline:
        """Return the pipeline of a parsed file."""
        path = self._path
        for key in sorted(content.keys() - set(_KEYS)):
            end = did_you_mean(key, _KEYS, f"; it has {', '.join(_KEYS[:-1])} and {_KEYS[-1]}.")
            self._fault(0, UnknownName(f"A pipeline has no {key!r}, as in {path}{end}"))
        description = content.get("description", "")
        if "description" in content:
            self._try(0, lambda: check_type(f"'description' of {path}", description, str))
        keep = self._try(0, lambda: read_keep(f"'keep' of {path}", content.get("keep")))
        notify = self._try(0, lambda: read_notify(content.get("notify"), path))
        schedule = self._try(0, lambda: read_schedule(content, path))
        raw = content.get("steps")
        if not isinstance(raw, list) or not raw:
            raw = []
            self._fault(
                0,
                InvalidValue(f"{path} has no steps: add a [[steps]] table with run = 'sync'."),
            )
        steps = tuple(self._step(number, one) for number, one in enumerate(raw, 1))
        for number, step in enumerate(steps, 1):
            if step.id in {one.id for one in steps[: number - 1]}:
                again = InvalidValue(f"Step {number} has the id {step.id!r} of another step.")
                self._fault(number, again)
        return Pipeline(
            path.stem,
            description if isinstance(description, str) else "",
            steps,
            path,
            origin,
            digest,
            keep,
            notify,
            tuple(self.faults),
            schedule,
        )

    def _fault(self, number: int, error: WrongUse) -> None:
        self.faults.append(StepFault(number, error))

    def _step(self, number: int, step: object) -> Step:
        if not isinstance(step, dict) or step.get("run") not in OPTIONS:
            error = UnknownName(f"Step {number} must have run = one of {', '.join(OPTIONS)}.")
            self._fault(number, error)
            return Step("?", {}, f"step-{number}", "?")
        options = {name: value for name, value in step.items() if name != "run"}
        kind, before = step["run"], len(self.faults)
        if kind == "import":
            _unify(options)
        where = f"step {number} ({kind})"
        allowed = OPTIONS[kind] | _COMMON
        for name, value in options.items():
            if name not in allowed:
                takes = f"it takes {', '.join(allowed)}."
                wrong = UnknownName(f"{where.capitalize()} has no option {name!r}; {takes}")
                self._fault(number, wrong)
                continue
            called = f"{name!r} of {where}"
            self._try(number, partial(check_type, called, value, allowed[name]))
        for required in REQUIRED.get(kind, ()):
            if required not in options:
                self._fault(number, InvalidValue(f"{where.capitalize()} needs {required!r}."))
        if len(self.faults) > before:
            return Step(kind, {}, f"{kind}-{number}", kind)
        return self._checked(number, kind, options)

    def _checked(self, number: int, kind: str, options: dict[str, Any]) -> Step:
        """Return a step whose options have the right types, after checking their meaning."""
        where = f"Step {number} ({kind})"
        folder = self._path.parent
        common = {name: options.pop(name) for name in _COMMON if name in options}
        keep = options.pop("keep", None)
        if "path" in options:
            options["path"] = folder / Path(options["path"]).expanduser()
        if kind == "report" and options["name"].lower().endswith(".ipynb"):
            options["name"] = str(folder / Path(options["name"]).expanduser())
        if kind == "shell":
            options["folder"] = folder

        def within(action: Callable[[], Any]) -> Any:
            try:
                return action()
            except WrongUse as wrong:
                raise type(wrong)(f"{where}: {wrong}") from wrong

        def attempt(action: Callable[[], Any]) -> Any:
            return self._try(number, lambda: within(action))

        attempt(lambda: _check_common(common))
        timeout = attempt(lambda: read_seconds(common.get("timeout")))
        kept = attempt(lambda: read_keep("'keep'", keep))
        attempt(lambda: check_meaning(kind, options, self._home))
        name = common.get("id", "")
        return Step(
            kind,
            options,
            name or f"{kind}-{number}",
            name or kind,
            common.get("retries", 0),
            timeout,
            common.get("on_failure") == "continue",
            kept,
        )


def _check_common(options: dict[str, Any]) -> None:
    if not 0 <= options.get("retries", 0) <= _MOST_RETRIES:
        raise InvalidValue(f"retries must be a number from 0 to {_MOST_RETRIES}.")
    if options.get("on_failure", "stop") not in ("stop", "continue"):
        raise InvalidValue("on_failure is stop or continue.")
    name = options.get("id", "x")
    if not name.isprintable() or len(name) > _LONGEST_ID or name != name.strip():
        raise InvalidValue(f"an id is one line of at most {_LONGEST_ID} characters.")


def _unify(options: dict[str, Any]) -> None:
    """Accept a single companion as a string, and `start` as a TOML time."""
    if isinstance(options.get("companion"), str):
        options["companion"] = [options["companion"]]
    if hasattr(options.get("start"), "isoformat"):
        options["start"] = options["start"].isoformat()
