"""Saved ways of importing: `sources/NAME.toml` in a home, so that the next file needs one command.

::

    format = "table"                  # by default the format is recognised
    timezone = "Europe/Berlin"
    companion = ["Otto"]
    map = { content = "Nachricht", timestamp = "Datum+Uhrzeit", author = "Von" }
    role_map = { bot = "assistant" }
"""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass, fields, replace
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from aico_lab.errors import AicoLabError, InvalidValue, UnknownName, WrongUse, did_you_mean
from aico_lab.home.files import os_errors, write_atomically
from aico_lab.sources import SOURCES
from aico_lab.sources.exports.engine.conversation import Options
from aico_lab.sources.tables.headers import check_fields
from aico_lab.sources.tables.roles import check_roles
from aico_lab.zones import get_zone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from aico_lab.home.folder import Home

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Saved:
    """A saved way of importing.

    Attributes:
        format: The name of the source, or None to recognise the format.
        options: The saved answers.
    """

    format: str | None
    options: Options


def saved_names(home: Home) -> list[str]:
    """Return the names that were saved in a home."""
    folder = _folder(home)
    return sorted(path.stem for path in folder.glob("*.toml")) if folder.is_dir() else []


def described(home: Home) -> dict[str, dict[str, Any]]:
    """Return a description of each saved import by its name, for lists of sources.

    Each has a `description`. One that can be read has its `format`, its `answers` by key as TOML
    has them, and `how` to use it.
    """
    found: dict[str, dict[str, Any]] = {}
    for name in saved_names(home):
        try:
            saved = load_saved(home, name)
        except AicoLabError as error:
            found[name] = {"description": f"saved in this home, but broken: {error}"}
            continue
        if saved is None:
            found[name] = {"description": "saved in this home, but under a name with other letters"}
            continue
        answers = dict(_answers(saved.options))
        told = "".join(f", {key} = {value}" for key, value in answers.items())
        found[name] = {
            "description": f"saved in this home: {saved.format or 'any format'}{told}",
            "how": f"aico-lab import {name} FILE",
            "format": saved.format,
            "answers": answers,
        }
    return found


def _answers(options: Options) -> Iterator[tuple[str, str]]:
    """Yield the answers that are given, by the keys of a file and as TOML has them."""
    usual = Options()
    for key, (attribute, _) in _KEYS.items():
        if key != "format" and getattr(options, attribute) != getattr(usual, attribute):
            yield key, _written(getattr(options, attribute))


def load_saved(home: Home, name: str) -> Saved | None:
    """Return a saved way of importing, or None if nothing has that name.

    Raises:
        InvalidValue: A key of the file has a wrong value, or the file is no TOML.
        UnknownName: The file has an unknown key.
    """
    path = _folder(home) / f"{name}.toml"
    if not _NAME.fullmatch(name) or not path.is_file():
        return None
    with os_errors(path):
        data = path.read_bytes()
    try:
        content = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as broken:
        raise InvalidValue(f"{path} is not valid TOML: {broken}.") from broken
    for key in content:
        if key not in _KEYS:
            end = did_you_mean(key, _KEYS, f"; it may have {', '.join(_KEYS)}.")
            raise UnknownName(f"{path} has an unknown key {key!r}{end}")
    answers: dict[str, Any] = {}
    for key, value in content.items():
        attribute, read = _KEYS[key]
        try:
            answers[attribute] = read(value)
        except WrongUse as wrong:
            raise type(wrong)(f"{key!r} in {path}: {wrong}") from wrong
        except ValueError as wrong:
            raise InvalidValue(f"{key!r} in {path} must be {wrong}.") from wrong
    return Saved(answers.pop("format", None), Options(**answers))


def no_source(home: Home, name: str, *, is_alone: bool = True) -> WrongUse:
    """Return the error for a name that is neither a file nor a source.

    Args:
        home: The home.
        name: The name, which may be that of a saved import.
        is_alone: Whether no file was named after it.
    """
    known = [*SOURCES, *saved_names(home)]
    if is_alone and name in known:
        return WrongUse(
            f"The file is missing: {name} is a saved import, `aico-lab import {name} FILE`."
        )
    end = did_you_mean(name, known, f"; choose one of {', '.join(known)}.")
    return UnknownName(f"There is no source {name!r}{end}")


def save(home: Home, name: str, format_name: str, options: Options) -> Path:
    """Save a way of importing under a name, in place of an older one; return its file.

    Args:
        home: The home.
        name: The name.
        format_name: The name of the source.
        options: The answers.

    Raises:
        InvalidValue: The name cannot be used.
    """
    check_name(name)
    lines = [f"format = {_text(format_name)}"]
    lines += [f"{key} = {value}" for key, value in _answers(options)]
    path = _folder(home) / f"{name}.toml"
    with os_errors(path):
        path.parent.mkdir(mode=0o700, exist_ok=True)
        write_atomically(path, ("\n".join(lines) + "\n").encode())
    return path


def check_name(name: str) -> None:
    """Raise InvalidValue unless a name can be that of a saved way of importing."""
    if not _NAME.fullmatch(name):
        raise InvalidValue(
            f"{name!r} is no name to save: it has letters, digits, '-' and '_' only."
        )
    if name in SOURCES:
        raise InvalidValue(f"{name!r} is the name of a source: save under another name.")


def completed(saved: Options, given: Options) -> Options:
    """Return answers, with the saved ones where none is given; mappings are merged."""
    usual = Options()
    changed = {
        one.name: getattr(given, one.name)
        for one in fields(Options)
        if getattr(given, one.name) != getattr(usual, one.name)
    }
    for name in ("columns", "role_map"):
        changed[name] = {**getattr(saved, name), **changed.get(name, {})}
    return replace(saved, **changed)


def _folder(home: Home) -> Path:
    return home.path / "sources"


# Values of the file


def _is_text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("text in quotes")
    return value


def _texts(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not value or not all(isinstance(one, str) for one in value):
        raise ValueError("a name in quotes, or a list of names")
    return tuple(value)


def _truth(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")  # noqa: TRY004 its text is used
    return value


def _moment(value: object) -> datetime:
    if isinstance(value, datetime):
        return value
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day)  # noqa: DTZ001 a local time
    try:
        return datetime.fromisoformat(_is_text(value))
    except ValueError:
        raise ValueError("a time such as 2024-05-01T12:30:00") from None


def _seconds(value: object) -> timedelta:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise ValueError("a number of seconds")
    return timedelta(seconds=value)


def _pairs(check: Callable[[Mapping[str, str]], object]) -> Callable[[object], dict[str, str]]:
    def read(value: object) -> dict[str, str]:
        if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
            raise ValueError('a table such as { content = "Text" }')
        check(value)
        return value

    return read


_KEYS: Final[dict[str, tuple[str, Callable[[object], Any]]]] = {
    "format": ("format", lambda value: SOURCES[_is_text(value)].name),
    "timezone": ("zone", lambda value: get_zone(_is_text(value))),
    "me": ("me", _is_text),
    "companion": ("companion", _texts),
    "start": ("start", _moment),
    "step": ("step", _seconds),
    "day_first": ("day_first", _truth),
    "trust_times": ("trust_times", _truth),
    "map": ("columns", _pairs(check_fields)),
    "role_map": ("role_map", _pairs(check_roles)),
}
"""Each key of a file, with the attribute of `Options` and the function that reads its value."""


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _written(value: object) -> str:
    """Return a value as TOML has it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return repr(value.total_seconds()).removesuffix(".0")
    if isinstance(value, tuple):
        return f"[{', '.join(_text(one) for one in value)}]"
    if isinstance(value, dict):
        pairs = ", ".join(f"{_text(key)} = {_text(one)}" for key, one in value.items())
        return f"{{ {pairs} }}"
    return _text(str(value))
