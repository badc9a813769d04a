"""The kinds of steps: their options, and the check of the values of these."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from aico_lab.errors import InvalidValue, UnknownName
from aico_lab.importing.importer import check_on_conflict
from aico_lab.results import RESULTS
from aico_lab.sources import SOURCES
from aico_lab.sources.exports.engine.conversation import ANSWERS, Options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aico_lab.home.folder import Home
    from aico_lab.sources import Source

_GO_ON: Final = ("fail", "continue")
_UNCHANGED: Final = ("run", "skip")

_TYPES: Final[dict[str, type]] = {
    "companion": list,
    "step": float,
    "day_first": bool,
    "trust_times": bool,
    "map": dict,
    "role_map": dict,
}
"""The types of answers about a file that are not text."""

OPTIONS: Final[dict[str, dict[str, type]]] = {
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
    "index": {"pause": float, "smallest": int, "largest": int, "depth": float},
    "sync": {"full": bool, "on_change": str},
    "verify": {},
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
    "report": {
        "name": str,
        "parameters": dict,
        "on_unchanged": str,
        "keep": dict,
        "encrypt": list,
    },
    "export": {"query": str, "table": str, "path": str, "content": bool},
    "federate": {"path": str, "lan": bool},
    "shell": {"command": object},
}
"""The options of each kind of step, and their types; `object` stands for several."""

REQUIRED: Final = {
    "load": ("path", "table"),
    "report": ("name",),
    "export": ("path",),
    "shell": ("command",),
}

_CALLED: Final[dict[type, str]] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list of names",
    dict: "a table of names and values",
}

_SPAN: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h)")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True, slots=True)
class Keep:
    """How long the outputs of old runs are kept; those of the last good run always are.

    Attributes:
        count: The most runs whose outputs are kept, or None.
        days: The greatest age in days of outputs that are kept, or None.
    """

    count: int | None
    days: float | None


def check_type(what: str, value: object, wanted: type) -> None:
    """Raise InvalidValue if a value of a TOML file is empty or of another type.

    Args:
        what: The name of the value in the error.
        value: The value.
        wanted: The type; `object` for any.
    """
    fits = wanted is object or type(value) is wanted or (wanted is float and type(value) is int)
    if not fits:
        raise InvalidValue(f"{what} must be {_CALLED[wanted]}.")
    if value == "":
        raise InvalidValue(f"{what} is empty: leave it out, or fill it in.")
    if isinstance(value, list) and not (value and all(isinstance(one, str) for one in value)):
        raise InvalidValue(f"{what} must be {_CALLED[list]}.")


def read_seconds(given: object) -> float | None:
    """Return a timeout in seconds: a number, or text such as '90s', '10m' or '2h'.

    Raises:
        InvalidValue: It is neither, or below one second, infinite or NaN.
    """
    from aico_lab.reports.lab_reports import check_timeout

    if (seconds := read_span("timeout", given)) is not None:
        check_timeout(seconds)
    return seconds


def read_span(what: str, given: object) -> float | None:
    """Return a span of time in seconds: a number, or text such as '90s', '10m' or '2h'.

    Raises:
        InvalidValue: It is neither.
    """
    if given is None:
        return None
    if isinstance(given, str) and (found := _SPAN.fullmatch(given.strip())):
        return float(found[1]) * _SECONDS[found[2]]
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise InvalidValue(f"{what} must be a number of seconds, or text such as '10m'.")
    return float(given)


def read_keep(what: str, given: object) -> Keep | None:
    """Return the value of a `keep`, or None if there is none.

    Raises:
        InvalidValue: The value is no table with a count or days, or one of these is below 1.
        UnknownName: The table has another name.
    """
    if given is None:
        return None
    if not isinstance(given, dict) or not given:
        raise InvalidValue(f"{what} must be a table such as {{ count = 30, days = 90 }}.")
    for name in given.keys() - {"count", "days"}:
        raise UnknownName(f"{what} has no {name!r}; it has count and days.")
    count, days = given.get("count"), given.get("days")
    if count is not None and (type(count) is not int or count < 1):
        raise InvalidValue(f"'count' in {what} must be a whole number, 1 or more.")
    if days is not None and not (type(days) in (int, float) and 1 <= days < math.inf):
        raise InvalidValue(f"'days' in {what} must be a number, 1 or more.")
    return Keep(count, days)


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


def check_meaning(kind: str, options: dict[str, Any], home: Home | None) -> None:
    """Raise the WrongUse that a step with these options would raise."""
    match kind:
        case "sync" if "on_change" in options:
            from aico_lab.etl import evolution

            evolution.check(options["on_change"])
        case "load":
            from aico_lab.etl.foreign import check_load

            check_load(options["path"], options.get("name"), options.get("lag", 0))
        case "import":
            _check_import(options, home)
        case "index" if options:
            from aico_lab.embeddings.segmenting import SegmentParameters

            SegmentParameters(**options)
        case "report":
            _check_report(options, home)
        case "export":
            _check_export(options)
        case "shell":
            if not isinstance(options["command"], str | list):
                raise InvalidValue("'command' must be text or a list of words.")


def _check_report(options: Mapping[str, Any], home: Home | None) -> None:
    from aico_lab.reports.lab_reports import find_notebook
    from aico_lab.reports.parameters import bind, read_parameters
    from aico_lab.reports.values import check_values

    if options.get("on_unchanged", "run") not in _UNCHANGED:
        raise InvalidValue(f"on_unchanged is {' or '.join(_UNCHANGED)}.")
    if "encrypt" in options:
        from aico_lab.adapters.age import read_recipients

        read_recipients(options["encrypt"])
    declared = read_parameters(find_notebook(options["name"], home))
    check_values(declared, bind(declared, options.get("parameters", {})))


def _check_export(options: Mapping[str, Any]) -> None:
    if ("query" in options) == ("table" in options):
        raise InvalidValue("an export needs 'query' or 'table', not both.")
    if options["path"].suffix.lower() not in RESULTS:
        raise InvalidValue(f"{options['path'].name!r} does not end in {' or '.join(RESULTS)}.")


def _check_import(options: Mapping[str, Any], home: Home | None) -> None:
    """Raise the WrongUse that an import with these options would raise."""
    check_on_conflict(options.get("on_conflict", "keep"))
    for name in ("on_rejects", "on_nothing"):
        if options.get(name, "fail") not in _GO_ON:
            raise InvalidValue(f"{name} is {' or '.join(_GO_ON)}.")
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
