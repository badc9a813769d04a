"""The command line: parse, call `Lab`, print.

Results go to stdout, as text or with `--json` as one JSON value; progress and errors to stderr.
Exit codes: 0 done, 1 failed, 2 wrong use, 130 stopped by Control-C, 141 nobody reads the output.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import traceback
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from aico_lab.cli import streams

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

__all__ = ["main", "run"]

INTERRUPTED: Final = 130
READER_STOPPED: Final = 141
"""What a shell tells of a program that the signal for a broken pipe ended."""

_KEPT: Final = {
    "demo": "what was imported and synced is kept; run it again to go on",
    "import": "every batch that was stored is kept; run it again to add the rest",
    "init": "no home was made",
    "load": "the last snapshot is whole; run it again to go on",
    "pipeline run": "the steps that were done are kept; run it again to go on",
    "report run": "its record says so, and the snapshot is as it was; run it again for the report",
    "rescore": "every batch of scores that was stored is kept; run it again to go on",
    "schema migrate": "a version is applied as a whole or not at all; run it again to go on",
    "schema rollback": "a version is taken back as a whole or not at all; run it again to go on",
    "sync": "the last snapshot is whole; run it again to go on",
}
"""What an interrupted command leaves; one that is not named only reads."""


def main() -> None:
    """Run the command line, and end the process with its exit code."""
    code = run()
    if code == INTERRUPTED:
        # A thread of a library may still be at work, and would meet an interpreter that is gone:
        # DuckDB's end the process by a fault. What is to be left in order is so after these calls.
        with suppress(OSError):
            sys.stdout.flush()
        atexit._run_exitfuncs()  # noqa: SLF001 - what the interpreter itself would call
        os._exit(code)
    raise SystemExit(code)


def run() -> int:
    """Run the command line and return its exit code.

    Every failure is one sentence, with its traceback under `--debug`.
    """
    streams.prepare()
    try:
        with _interruptible() as interrupted:
            return _run(interrupted)
    except KeyboardInterrupt:  # again, while the first one was being told
        return INTERRUPTED


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Remember Control-C: a library may make an error of its own of it, or an import that failed.

    Yields:
        Whether it was pressed.
    """
    pressed = []

    def stop(number: int, frame: FrameType | None) -> None:
        pressed.append(number)
        signal.default_int_handler(number, frame)

    before = signal.signal(signal.SIGINT, stop)
    if before is signal.SIG_IGN:  # as of a job in the background
        signal.signal(signal.SIGINT, before)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)


def _run(interrupted: Callable[[], bool]) -> int:
    """Run the command and return the exit code; whatever stopped it is told."""
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        from aico_lab.cli.invoke import invoke  # inside, so that Control-C is told from here on

        code = invoke(arguments)
        streams.flush()
    except (KeyboardInterrupt, Exception) as error:  # noqa: BLE001 - the last resort of a program
        if refused := streams.refusal(error):
            return READER_STOPPED if refused.reader_stopped else _fail(str(refused))
        if debug:
            traceback.print_exc()
        if not interrupted() and isinstance(error, Exception):
            return _explain(error)
        code = INTERRUPTED
    if code == INTERRUPTED:
        words = [word for word in arguments if not word.startswith("-")]
        kept = _KEPT.get(" ".join(words[:2])) or _KEPT.get(" ".join(words[:1]))
        _fail(f"Stopped: {kept or 'nothing was changed'}.")
    return code


def _explain(error: Exception) -> int:
    """Tell what went wrong; return the exit code."""
    from aico_lab.errors import AicoLabError

    if isinstance(error, AicoLabError):
        from aico_lab.cli.common import as_typed

        _fail(as_typed(str(error)))
        return error.exit_code
    if isinstance(error, OSError) and not _working_folder_exists():
        return _fail("The working folder was deleted: change to another one and try again.")
    first_line = (str(error).splitlines() or [""])[0]
    return _fail(
        f"unexpected {type(error).__name__}: {first_line} "
        "(run the command again with --debug and report what it shows)"
    )


def _fail(sentence: str) -> int:
    sys.stderr.write(f"aico-lab: {sentence}\n")
    return 1


def _working_folder_exists() -> bool:
    try:
        os.getcwd()  # noqa: PTH109 - nothing else asks the system for it
    except OSError:
        return False
    return True
