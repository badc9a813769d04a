"""Make the standard streams usable in any environment.

A stream may be closed, its encoding may lack printed characters, and its reader may stop or its
device be full. None of this may lose the work of a command, or end in a traceback. What stderr does
not accept is dropped, since notes and progress are no result; a result that is lost is a failure.
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

    from typing_extensions import Buffer

_ERRORS: Final = "aico-lab"
"""The name of the codec error handler for characters that an encoding lacks."""

_SIMILAR: Final = str.maketrans(
    {
        **dict.fromkeys("─━┄┈╌═–—−", "-"),  # noqa: RUF001
        **dict.fromkeys("│┃┆┊║", "|"),
        **dict.fromkeys("┌┐└┘├┤┬┴┼╞╡╪╭╮╰╯╔╗╚╝", "+"),
        **dict.fromkeys("“”„", '"'),
        **dict.fromkeys("‘’", "'"),  # noqa: RUF001
        "…": "~",  # one character too, to keep tables aligned
        "→": ">",
        "·": ".",
    }
)


class OutputRefused(Exception):
    """The output cannot be written."""

    def __init__(self, refused: OSError) -> None:
        super().__init__(f"The output cannot be written ({refused.strerror}).")
        self.reader_stopped = refused.errno == errno.EPIPE


class _Dropping(io.FileIO):
    """A descriptor that drops what it does not accept."""

    def write(self, data: Buffer) -> int:
        size = memoryview(data).nbytes
        try:
            return super().write(data) or size  # None if it would have to wait
        except OSError:
            return size


def prepare() -> None:
    """Open closed streams, drop what stderr refuses, and replace characters that encodings lack.

    Call it before any file is opened: a file would get the descriptor of a closed stream, and the
    output of a library could be written into a database.
    """
    _open_closed_streams()
    codecs.register_error(_ERRORS, _replace)
    stdout = sys.__stdout__
    raw = getattr(stdout, "buffer", None)
    # Without a buffer, Python loses what a pipe does not accept at once.
    if stdout and stdout is sys.stdout and isinstance(raw, io.RawIOBase):
        sys.stdout = io.TextIOWrapper(io.BufferedWriter(raw), encoding=stdout.encoding)
    stderr = sys.__stderr__
    if stderr and stderr is sys.stderr:
        sys.stderr = io.TextIOWrapper(
            io.BufferedWriter(_Dropping(2, "w", closefd=False)),
            encoding=stderr.encoding,
            line_buffering=True,
        )
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ERRORS)


@contextmanager
def writing() -> Iterator[None]:
    """Translate an OSError in the block to OutputRefused.

    Raises:
        OutputRefused: The device is full, or the reader has stopped.
    """
    try:
        yield
    except OSError as refused:
        raise OutputRefused(refused) from refused


def flush() -> None:
    """Flush stdout.

    Raises:
        OutputRefused: The output cannot be written.
    """
    with writing():
        sys.stdout.flush()


def refusal(error: BaseException) -> OutputRefused | None:
    """Return the error if it is about the output, and discard the rest of the output; else None."""
    if isinstance(error, OSError):  # from a file, or from a help text that Typer writes
        try:
            flush()
        except OutputRefused as refused:
            error = refused
    if not isinstance(error, OutputRefused):
        return None
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)  # otherwise the interpreter fails on the rest at exit
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
        if number > 2:  # noqa: PLR2004 - all three streams are open
            os.close(number)
            break
        os.set_inheritable(number, True)
    # The descriptors must stay open when these objects are deleted.
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


def _width(character: str) -> int:
    """Return the number of terminal columns that a character occupies."""
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):  # combined with another character
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1


def _replace(error: UnicodeError) -> tuple[str | bytes, int]:
    """Return replacements for characters that cannot be encoded: similar ones, or `?`.

    Undecodable bytes of file names are written unchanged.
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    written = b""
    for character in error.object[error.start : error.end]:
        if "\udc80" <= character <= "\udcff":
            written += bytes([ord(character) - 0xDC00])
        else:
            similar = character.translate(_SIMILAR)
            if similar == character:  # as wide as the character, to keep tables aligned
                similar = "?" * _width(character)
            written += similar.encode(error.encoding, errors="replace")
    return written, error.end
