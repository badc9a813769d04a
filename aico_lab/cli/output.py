"""Print the output of commands: text or one JSON value on stdout, notes and progress on stderr."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Final, Self

from aico_lab.cli.common import as_typed
from aico_lab.cli.streams import can_show, writing
from aico_lab.results import json_text

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_OVERRIDES: Final = re.compile("[\u202a-\u202e]")
"""Characters that turn the direction of the text after them, in names of people for example."""


def say(text: str) -> None:
    """Print a line of the result to stdout, with its commands as the user can type them.

    Raises:
        OutputRefused: The line cannot be written.
    """
    show(as_typed(text))


def show(text: str) -> None:
    """Print stored text to stdout as it is, but without overrides of its direction.

    Raises:
        OutputRefused: The text cannot be written.
    """
    with writing():
        sys.stdout.write(f"{_OVERRIDES.sub('', text)}\n")


def note(text: str) -> None:
    """Print a line about the result to stderr, after the result so far; for commands see `say`.

    Raises:
        OutputRefused: The result cannot be written.
    """
    with writing():
        sys.stdout.flush()
    sys.stderr.write(f"{_OVERRIDES.sub('', as_typed(text))}\n")


def emit(value: object) -> None:
    """Print one JSON value to stdout; escape non-ASCII characters if its encoding lacks any.

    Raises:
        OutputRefused: The value cannot be written.
    """
    # Escaped, a value stays what it is.
    text = _OVERRIDES.sub(lambda found: f"\\u{ord(found[0]):04x}", json_text(value))
    show(text if can_show(text, sys.stdout) else json_text(value, ensure_ascii=True))


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
