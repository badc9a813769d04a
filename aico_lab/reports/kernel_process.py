"""Start IPython's kernel as a process that ends with its parent.

ipykernel checks once a second whether its parent exists, but in a thread: the thread waits while a
cell holds the interpreter lock, and it misses a parent that ended before the thread started. On
Linux the system can end a process with its parent.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Final

from aico_lab.home.handover import receive
from aico_lab.runtime import report_kernel

# Without the working directory in sys.path: a module there must not shadow one that the kernel
# needs. IPython adds the directory again for the notebook.
_START: Final = """\
import sys
sys.path[:] = filter(None, sys.path)
from aico_lab.reports.kernel_process import main
main()
"""

COMMAND: Final = ("-c", _START)
"""The arguments of Python that run a kernel, instead of `-m ipykernel_launcher`."""

PARENT: Final = "JPY_PARENT_PID"
"""The environment variable with the parent, as jupyter_client sets it; a handle on Windows."""

_SIGNAL_AT_PARENTS_DEATH: Final = 1  # PR_SET_PDEATHSIG of Linux's prctl


def main() -> None:
    """Run a kernel with the arguments of this process."""
    end_with_parent()
    report_kernel.mark()
    receive()
    from ipykernel import kernelapp

    kernelapp.launch_new_instance()


def end_with_parent() -> None:
    """Make the system kill this process when its parent ends; exit if the parent has ended."""
    if sys.platform == "win32":  # ipykernel waits for the parent's handle there
        return
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SIGNAL_AT_PARENTS_DEATH, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(os.environ.get(PARENT, os.getppid())):
        sys.exit("The program that started this process has ended.")
