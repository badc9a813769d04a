"""What commands print: text or one JSON value on stdout, progress on stderr."""

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
    """Print a line of the result.

    Raises:
        OutputRefused: It cannot be written.
    """
    with writing():
        sys.stdout.write(f"{text}\n")


def note(text: str) -> None:
    """Print a line about the result, where it does not disturb it.

    Raises:
        OutputRefused: The result that the line is about cannot be written.
    """
    with writing():
        sys.stdout.flush()
    sys.stderr.write(f"{text}\n")


def emit(value: object) -> None:
    """Print one JSON value; characters that the encoding of stdout lacks are escaped.

    Raises:
        OutputRefused: It cannot be written.
    """
    text = json_text(value)
    say(text if can_show(text, sys.stdout) else json_text(value, ensure_ascii=True))


def json_text(value: object, *, ensure_ascii: bool = False) -> str:
    """Return a value as JSON, in which a DECIMAL has all its digits."""
    mark = secrets.token_hex(16)  # Python's json writes no number but its own
    text = json.dumps(_plain(value, mark), ensure_ascii=ensure_ascii, allow_nan=False)
    return re.sub(f'"{mark}([-0-9.]+)"', r"\1", text) if mark in text else text


def distinct(names: list[str]) -> list[str]:
    """Number names that come again, as `n`, `n_1`, so that JSON's objects lose no column."""
    given: list[str] = []
    for name in names:
        numbered = (f"{name}_{number}" for number in itertools.count(1))
        taken = {*given, *names}
        given.append(next(n for n in numbered if n not in taken) if name in given else name)
    return given


def _plain(value: Any, mark: str) -> Any:  # noqa: C901, PLR0911 - one line a type
    """Give what JSON can say of a value: NaN and infinities are null, bytes base64, times ISO.

    A decimal number becomes text that begins with `mark`.
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
    raise TypeError(f"{type(value).__name__} has no form in JSON")


class Bar:
    """A progress bar on stderr; silent where that is no terminal."""

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
        """Say how much of something is done."""
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
