"""Start IPython's kernel as a process that ends with the one that started it.

ipykernel asks once a second whether its parent is still there, but from a thread: that waits while
a cell holds the interpreter lock, and asks in vain where the parent ended before the thread began.
Linux ends a process with its parent by itself.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Final

# Without the folder that the kernel works in: a module of a notebook's folder must not come in the
# place of one that this needs. IPython puts the folder back for the notebook.
_START: Final = """\
import sys
sys.path[:] = filter(None, sys.path)
from aico_lab.reports.kernel import main
main()
"""

COMMAND: Final = ("-c", _START)
"""Python's arguments that run a kernel, in place of `-m ipykernel_launcher`."""

_PARENT: Final = "JPY_PARENT_PID"  # set by jupyter_client; a handle on Windows
_SIGNAL_AT_PARENTS_DEATH: Final = 1  # PR_SET_PDEATHSIG of Linux's prctl


def main() -> None:
    """Run a kernel with the arguments of this process."""
    end_with_parent()
    from ipykernel import kernelapp

    kernelapp.launch_new_instance()


def end_with_parent() -> None:
    """Have this process killed when its parent ends; leave at once where that has happened."""
    if sys.platform == "win32":  # where ipykernel waits for the parent's handle
        return
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SIGNAL_AT_PARENTS_DEATH, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(os.environ.get(_PARENT, os.getppid())):
        sys.exit("The program that started this kernel has ended.")
