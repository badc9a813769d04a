"""Make the standard streams usable, whatever the program was started with.

A stream may be closed, its encoding may lack the characters that are printed, and what reads it may
stop or be full. None of it may lose the work of a command, or end in a traceback.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
import unicodedata
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterator

_ERRORS: Final = "aico-lab"
"""The name of the handler for characters that an encoding lacks."""

_SIMILAR: Final = str.maketrans(
    {
        **dict.fromkeys("─━┄┈╌═–—−", "-"),  # noqa: RUF001
        **dict.fromkeys("│┃┆┊║", "|"),
        **dict.fromkeys("┌┐└┘├┤┬┴┼╞╡╪╭╮╰╯╔╗╚╝", "+"),
        **dict.fromkeys("“”„", '"'),
        **dict.fromkeys("‘’", "'"),  # noqa: RUF001
        "…": "~",  # as long as it is, for tables
        "→": ">",
        "·": ".",
    }
)


class OutputRefused(Exception):
    """What is printed cannot be written."""

    def __init__(self, refused: OSError) -> None:
        super().__init__(f"The output cannot be written ({refused.strerror}).")
        self.reader_stopped = refused.errno == errno.EPIPE


def prepare() -> None:
    """Open what is closed, and never fail for a character that an encoding lacks.

    Call it before any file is opened: the next one would take the number of a closed stream, and
    what a library prints would be written into a database.
    """
    _open_closed_streams()
    codecs.register_error(_ERRORS, _replace)
    stdout = sys.__stdout__
    raw = getattr(stdout, "buffer", None)
    # Without a buffer Python loses what a pipe does not take at once.
    if stdout and stdout is sys.stdout and isinstance(raw, io.RawIOBase):
        sys.stdout = io.TextIOWrapper(io.BufferedWriter(raw), encoding=stdout.encoding)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ERRORS)


@contextmanager
def writing() -> Iterator[None]:
    """Turn a refusal to take the output into one error.

    Raises:
        OutputRefused: The device is full, or the reader has stopped.
    """
    try:
        yield
    except OSError as refused:
        raise OutputRefused(refused) from refused


def flush() -> None:
    """Write what is left of the output.

    Raises:
        OutputRefused: It cannot be written.
    """
    with writing():
        sys.stdout.flush()


def refusal(error: BaseException) -> OutputRefused | None:
    """Return the error if it is about the output, whose rest is discarded then."""
    if isinstance(error, OSError):  # of a file, or of a help text, which Typer writes
        try:
            flush()
        except OutputRefused as refused:
            error = refused
    if not isinstance(error, OutputRefused):
        return None
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)  # else the interpreter fails on the rest at its exit
    os.close(nowhere)
    return error


def can_show(text: str, stream: TextIO) -> bool:
    """Return whether a stream's encoding has every character of a text."""
    try:
        text.encode(stream.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _open_closed_streams() -> None:
    while True:
        number = os.open(os.devnull, os.O_RDWR)
        if number > 2:  # noqa: PLR2004 - the three streams are there
            os.close(number)
            break
        os.set_inheritable(number, True)
    # They last as long as the process, and must not be closed with the objects.
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


def _width(character: str) -> int:
    """Return how many columns of a terminal a character takes."""
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):  # drawn upon another one
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1


def _replace(error: UnicodeError) -> tuple[str | bytes, int]:
    """Return what stands for characters that cannot be written: one that looks alike, or `?`.

    Bytes of a file's name that are no text are written as they are.
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    written = b""
    for character in error.object[error.start : error.end]:
        if "\udc80" <= character <= "\udcff":
            written += bytes([ord(character) - 0xDC00])
        else:
            similar = character.translate(_SIMILAR)
            if similar == character:  # a table has as much room for it as a terminal gives it
                similar = "?" * _width(character)
            written += similar.encode(error.encoding, errors="replace")
    return written, error.end
