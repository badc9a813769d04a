"""Run the command of the arguments, and turn usage errors into one sentence."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import typer

from aico_lab.cli.app import app
from aico_lab.errors import InvalidValue, WrongUse

if TYPE_CHECKING:
    from collections.abc import Sequence

UNANSWERED: Final = "the prompt was not answered, so nothing was done"


class PromptLeft(KeyboardInterrupt):
    """Control-C at a prompt, before anything was done."""

    stopped = UNANSWERED


def invoke(arguments: Sequence[str]) -> int:
    """Run a command and return its exit code.

    Raises:
        WrongUse: A command or option is unknown, or a value is invalid.
        PromptLeft: A prompt was left by Control-C.
    """
    try:
        code = app(list(arguments), prog_name="aico-lab", standalone_mode=False)
    except typer.Abort as aborted:
        # A prompt hides the cause, which Control-C at any other time has.
        if aborted.__cause__ is None and isinstance(aborted.__context__, KeyboardInterrupt):
            raise PromptLeft from None
        raise InvalidValue(f"{UNANSWERED.capitalize()}.") from None
    except typer.TyperException as wrong:
        said = wrong.format_message()
        if "\n" in said:  # the help text, shown if there are no arguments
            sys.stderr.write(f"{said}\n")
            return wrong.exit_code
        raise WrongUse(_sentence(wrong, said)) from wrong
    return code if isinstance(code, int) else 0


def _sentence(wrong: typer.TyperException, said: str) -> str:
    """Return the usage error in one sentence, with similar names or the command for help."""
    said = said.replace("Value error, ", "").rstrip(".")
    if similar := getattr(wrong, "possibilities", None):
        return f"{wrong.message}. Did you mean {' or '.join(similar)}?"
    if said.endswith("?"):
        return said
    context: typer.Context | None = getattr(wrong, "ctx", None)
    return f"{said} (see `{context.command_path if context else 'aico-lab'} --help`)."
