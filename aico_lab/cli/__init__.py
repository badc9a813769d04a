"""The command line: parse arguments, call `Lab`, print results.

Results go to stdout, as text or with `--json` as one JSON value; progress and errors to stderr.
Exit codes: 0 success, 1 failure, 2 wrong use, 75 the pipeline is running already, 130 stopped by
Control-C, 141 closed output pipe.
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
"""The exit code that shells report for a program ended by SIGPIPE."""

_KEPT: Final = {
    "backup": "no backup was written; backups that were there are as they were",
    "cache clear": "each namespace is emptied as a whole or not at all",
    "demo": "what was imported and synced is kept; run it again to continue",
    "device add": "a device that had answered may be added: `device list` shows it",
    "device init": "this home is the first device or not; `device list` shows it",
    "device join": "this home joined as a whole or not at all; `device list` shows it",
    "device leave": "this home left as a whole or not at all; `device list` shows it",
    "device policy": "a policy is changed as a whole or not at all",
    "device rename": "a name is changed or not",
    "device revoke": "a device is revoked or not; `device list` shows it",
    "federate compact": "bundles are replaced as a whole or not at all; run it again to continue",
    "federate resolve": "a conflict is resolved as a whole or not at all",
    "federate serve": "every bundle that was taken in is kept",
    "federate sync": "every bundle that was taken in is kept; run it again to continue",
    "federate verify": "nothing was changed, or rows wait to be sent with the next exchange",
    "export": "no folder was made",
    "forget": "an erasure that began is finished by the next one, or by the next sync",
    "import": "every batch that was stored is kept; run it again to add the rest",
    "index": "every batch of segments that was stored is kept; run it again to continue",
    "init": "no home was created",
    "keys add": "the slot was added or not; see `aico-lab keys status`",
    "keys remove": "the slot was removed or not; see `aico-lab keys status`",
    "keys rotate": "the home opens as before; run it again to change the key",
    "keyring add": "the keyring has the passphrase or not; run it again to be sure",
    "keyring remove": "the keyring has the passphrase or not; run it again to be sure",
    "knowledge add": "every document that was stored is kept; run it again to add the rest",
    "knowledge remove": "a document is removed as a whole or not at all",
    "lab": "notebooks are kept as they were saved",
    "load": "the last snapshot is intact; run it again to continue",
    "personality apply": "a change is made as a whole or not at all",
    "personality keep": "a change is kept as a whole or not at all",
    "personality propose": "a proposal is stored as a whole or not at all",
    "personality rollback": "a change is undone as a whole or not at all",
    "pipeline run": "finished steps are kept; `pipeline retry` continues the run",
    "pipeline retry": "finished steps are kept; retry the new run to continue",
    "report rerun": "the run is recorded as interrupted; run it again for the report",
    "report run": "the run is recorded as interrupted; run it again for the report",
    "rescore": "every batch of scores that was stored is kept; run it again to continue",
    "restore": "the home is as it was, or restored as a whole; run it again to be sure",
    "schedule install": "jobs that were written stay; `schedule uninstall` removes them",
    "schedule run": "the run that was going on is recorded as interrupted",
    "schedule tick": "the run that was going on is recorded as interrupted",
    "schedule uninstall": "jobs that were removed are gone; run it again for the rest",
    "schema activate": "a version is applied as a whole or not at all; run it again to continue",
    "schema deactivate": "a plugin is removed as a whole or not at all; run it again to continue",
    "schema migrate": "a version is applied as a whole or not at all; run it again to continue",
    "schema rollback": "a version is undone as a whole or not at all; run it again to continue",
    "search": "every batch of segments that was stored is kept",
    "sync": "the last snapshot is intact; run it again to continue",
}
"""The state that an interrupted command leaves; other commands change nothing in a home."""


def main() -> None:
    """Run the command line, and exit the process with its exit code."""
    code = run()
    if code == INTERRUPTED:
        # Library threads may still run, and crash while the interpreter shuts down, as DuckDB's do.
        # So flush, run the exit handlers, and leave without the rest of the shutdown.
        with suppress(OSError):
            sys.stdout.flush()
        atexit._run_exitfuncs()  # noqa: SLF001 - what the interpreter itself would call
        os._exit(code)
    raise SystemExit(code)


def run() -> int:
    """Run the command line and return its exit code.

    Every failure is reported in one sentence, with `--debug` also by its traceback.
    """
    streams.prepare()
    try:
        with _interruptible() as interrupted:
            return _run(interrupted)
    except KeyboardInterrupt:  # a second Control-C, while the first one was reported
        return INTERRUPTED


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Record Control-C, since libraries may turn it into another error or a failed import.

    Yields:
        A function that returns whether Control-C was pressed.
    """
    pressed = []

    def stop(number: int, frame: FrameType | None) -> None:
        pressed.append(number)
        signal.default_int_handler(number, frame)

    before = signal.signal(signal.SIGINT, stop)
    if before is signal.SIG_IGN:  # as in background jobs
        signal.signal(signal.SIGINT, before)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)


def _run(interrupted: Callable[[], bool]) -> int:
    """Run the command, report any error, and return the exit code."""
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    stopped = ""
    try:
        from aico_lab.cli.invoke import invoke  # inside `try`, so that Control-C is reported

        if interrupted():  # Python ignores exceptions in callbacks, as of its import locks
            raise KeyboardInterrupt
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
        stopped = getattr(error, "stopped", "")  # of `PromptLeft`
    if code == INTERRUPTED:
        words = [word for word in arguments if not word.startswith("-")]
        kept = _KEPT.get(" ".join(words[:2])) or _KEPT.get(" ".join(words[:1]))
        _fail(f"Stopped: {stopped or kept or 'nothing was changed'}.")
    return code


def _explain(error: Exception) -> int:
    """Report an error and return the exit code."""
    from aico_lab.errors import AicoLabError

    if isinstance(error, AicoLabError):
        from aico_lab.cli.common import as_typed

        _fail(as_typed(str(error)))
        return error.exit_code
    if isinstance(error, OSError) and not _working_folder_exists():
        return _fail("The working directory was deleted: change to another one and try again.")
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
        os.getcwd()  # noqa: PTH109 - the only call that asks the system
    except OSError:
        return False
    return True
