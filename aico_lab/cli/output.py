"""Print the output of commands: text or one JSON value on stdout, notes and progress on stderr."""

from __future__ import annotations

import base64
import dataclasses
import itertools
import json
import math
import re
import secrets
import sys
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

from aico_lab.cli.streams import can_show, writing

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


def say(text: str) -> None:
    """Print a line of the result to stdout.

    Raises:
        OutputRefused: The line cannot be written.
    """
    with writing():
        sys.stdout.write(f"{text}\n")


def note(text: str) -> None:
    """Print a line about the result to stderr, after the result so far.

    Raises:
        OutputRefused: The result cannot be written.
    """
    with writing():
        sys.stdout.flush()
    sys.stderr.write(f"{text}\n")


def emit(value: object) -> None:
    """Print one JSON value to stdout; escape non-ASCII characters if its encoding lacks any.

    Raises:
        OutputRefused: The value cannot be written.
    """
    text = json_text(value)
    say(text if can_show(text, sys.stdout) else json_text(value, ensure_ascii=True))


def json_text(value: object, *, ensure_ascii: bool = False) -> str:
    """Return a value as JSON; decimal numbers keep all their digits."""
    mark = secrets.token_hex(16)  # Python's json cannot write decimals as numbers
    text = json.dumps(_plain(value, mark), ensure_ascii=ensure_ascii, allow_nan=False)
    return re.sub(f'"{mark}([-0-9.]+)"', r"\1", text) if mark in text else text


def distinct(names: list[str]) -> list[str]:
    """Make names unique by numbering repeated ones: `n`, `n_1`."""
    given: list[str] = []
    for name in names:
        numbered = (f"{name}_{number}" for number in itertools.count(1))
        taken = {*given, *names}
        given.append(next(n for n in numbered if n not in taken) if name in given else name)
    return given


def _plain(value: Any, mark: str) -> Any:  # noqa: C901, PLR0911 - one line a type
    """Convert a value to JSON types: NaN and infinities to null, bytes to base64, times to ISO.

    Decimal numbers become text that begins with `mark`.
    """
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {str(key): _plain(item, mark) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item, mark) for item in value]
        case bytes():
            return base64.b64encode(value).decode()
        case datetime() | date() | time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case Decimal():
            return f"{mark}{value:f}"
        case PurePath() | UUID():
            return str(value)
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return _plain(dataclasses.asdict(value), mark)
    raise TypeError(f"{type(value).__name__} cannot be converted to JSON")


class Bar:
    """A progress bar on stderr; silent if stderr is not a terminal."""

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeElapsedColumn,
                TimeRemainingColumn,
            )

            self._progress = Progress(
                TextColumn("{task.description:<24}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn(self._unit),
                TextColumn("{task.fields[rate]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._progress.start()
        return self

    def show(self, what: str, done: int, total: int | None) -> None:
        """Show the progress of the task `what`: the amounts done and in total (None if unknown)."""
        if self._progress is None:
            return
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=total, rate="")
        task = self._progress.tasks[self._tasks[what]]
        speed = task.speed or task.finished_speed
        rate = f"{speed:,.0f}/s" if speed else ""
        self._progress.update(task.id, completed=done, total=total, rate=rate)

    def __exit__(self, *exc_info: object) -> None:
        if self._progress is not None:
            self._progress.stop()
