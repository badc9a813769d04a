"""Run a step with a timeout in a process of its own, which can be ended at any moment.

Ending a thread could leave a database in the middle of a statement. A process is ended as
Control-C ends a command, and killed if that takes longer than a few seconds. Either way each
database is as after a crash: what was committed stays, the rest is rolled back.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Final

from aico_lab import errors
from aico_lab.config import SOURCE_KEY_VARIABLE, source_key
from aico_lab.errors import AicoLabError, StepFailed, StepTimedOut
from aico_lab.pipeline.steps import end_process, run_step
from aico_lab.reports.kernel_process import PARENT, end_with_parent

if TYPE_CHECKING:
    from collections.abc import Callable

    from aico_lab.lab import Lab
    from aico_lab.pipeline.definition import Step

# The working directory is not searched for modules: one there must not shadow another.
# Until `main` begins, an interruption ends the process without a word.
_START: Final = """\
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
sys.path[:] = filter(None, sys.path)
from aico_lab.lab import Lab
from aico_lab.pipeline.step_process import main
main(Lab.open)
"""


def run_in_process(lab: Lab, step: Step, seconds: float) -> object:
    """Run a step in another process and return its result.

    Args:
        lab: The home.
        step: The step.
        seconds: The time that it has.

    Raises:
        StepTimedOut: It took longer.
        StepFailed: Its process was lost, or met an error that no class of this package describes.
        AicoLabError: The step failed.
    """
    with lab.storage.for_child() as (environment, descriptors):
        process = subprocess.Popen(  # noqa: S603 - this Python
            [sys.executable, "-c", _START],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment | {PARENT: str(os.getpid())},
            pass_fds=descriptors,
            start_new_session=True,  # Control-C reaches this process, which then ends that one
        )
    given = pickle.dumps((lab.timezone, step, source_key()))
    try:
        answer, _ = process.communicate(given, timeout=seconds)
    except BaseException as stopped:
        end_process(process)
        process.communicate()
        if isinstance(stopped, subprocess.TimeoutExpired):
            raise StepTimedOut(
                "it was ended, since it exceeded its timeout; what it had committed is kept."
            ) from None
        raise
    try:
        error, result = pickle.loads(answer)  # noqa: S301 - written by `main` below
    except Exception:  # noqa: BLE001 - whatever is left of an answer
        raise StepFailed(
            f"its process ended with code {process.returncode} and no result, as when memory runs "
            "out: see the lines before."
        ) from None
    if error is None:
        return result
    kind = getattr(errors, error, StepFailed)
    raised: AicoLabError = kind.__new__(kind)  # whatever arguments its class takes
    raised.args = (result,)
    raise raised


def main(open_lab: Callable[..., Lab]) -> None:
    """Run the step that stdin describes, and write its result or error to stdout."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with os.fdopen(os.dup(1), "wb") as answer:
        os.dup2(2, 1)  # what libraries print
        given = pickle.load(sys.stdin.buffer)  # noqa: S301 - written by `run_in_process`
        zone, step, key = given
        if key is not None:
            os.environ[SOURCE_KEY_VARIABLE] = key  # which /proc does not show
        error: str | None = None
        try:
            with open_lab(timezone=zone) as lab:
                result = run_step(lab, step, None)
        except AicoLabError as refused:
            error, result = type(refused).__name__, str(refused)
        except KeyboardInterrupt:  # the timeout
            with contextlib.suppress(OSError):
                answer.close()
            os._exit(1)
        except Exception as unforeseen:  # noqa: BLE001 - its text may quote a message
            error, result = "", f"an unexpected {type(unforeseen).__name__} stopped it."
        pickle.dump((error, result), answer)
