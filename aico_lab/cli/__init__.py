"""The command line: parse, call `Lab`, print.

Results go to stdout, as text or with `--json` as one JSON value; progress and errors to stderr.
Exit codes: 0 done, 1 failed, 2 wrong use.
"""

from __future__ import annotations

import sys
import traceback

from aico_lab.cli.app import app
from aico_lab.errors import AicoLabError

__all__ = ["main"]

INTERRUPTED = 130


def main() -> None:
    """Run the command line; every failure is one sentence, with its traceback under `--debug`."""
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        app(arguments, prog_name="aico-lab")
    except AicoLabError as error:
        if debug:
            traceback.print_exc()
        sys.stderr.write(f"aico-lab: {error}\n")
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        sys.stderr.write("aico-lab: stopped; what was finished is kept, run it again to go on.\n")
        raise SystemExit(INTERRUPTED) from None
    except Exception as error:  # noqa: BLE001 - the last resort of a program
        if debug:
            traceback.print_exc()
        first_line = (str(error).splitlines() or [""])[0]
        sys.stderr.write(
            f"aico-lab: unexpected {type(error).__name__}: {first_line} "
            "(run the command again with --debug and report what it shows)\n"
        )
        raise SystemExit(1) from None
