"""What all commands share: their common options, and opening the home that they name."""

from __future__ import annotations

import contextlib
import gc
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aico_lab.lab import Lab

ParameterOption = Annotated[
    list[str] | None, typer.Option("-p", "--parameter", help="NAME=VALUE, once for each name.")
]
HomeOption = Annotated[
    Path | None,
    typer.Option("--home", help="The lab's folder; else AICO_LAB_HOME, else the usual one."),
]
KeyFileOption = Annotated[
    Path | None,
    typer.Option(help="The key file; else AICO_LAB_KEY_FILE, else the home's usual one."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON value.")]


ForceOption = Annotated[bool, typer.Option("--force", help="Replace a file that is there.")]


def refuse_existing(file: Path | None, *, force: bool) -> None:
    """Do nothing if results may be written to a file.

    Raises:
        InvalidValue: It is there, and is not to be replaced.
    """
    if file is not None and file.expanduser().exists() and not force:
        from aico_lab.errors import InvalidValue

        raise InvalidValue(f"{file} is there already: name another file, or add --force.")


@contextlib.contextmanager
def importing(module: str) -> Iterator[None]:
    """Keep the garbage collector away from what a block imports, then and later.

    Nothing of it is garbage, and to search it again and again takes a quarter of a short command.

    Args:
        module: The one that is imported; if it was before, the block changes nothing.
    """
    if module in sys.modules:
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def open_lab(home: Path | None, key_file: Path | None, *, timezone: str = "UTC") -> Lab:
    """Open the home of a command; ask for its passphrase where that is needed."""
    with importing("aico_lab.lab"):
        from aico_lab.lab import Lab

    return Lab.open(home, key_file=key_file, passphrase=ask_passphrase(home), timezone=timezone)


def read_pairs(pairs: list[str] | None) -> dict[str, object]:
    """Give the parameters of `-p NAME=VALUE`, as text."""
    from aico_lab.errors import InvalidValue

    given: dict[str, object] = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        if not equals:
            raise InvalidValue(f"-p takes NAME=VALUE, and {pair!r} has no '='.")
        if (name := name.strip()) in given:
            raise InvalidValue(f"-p {name}=… is there twice: give it once.")
        given[name] = value
    return given


def as_typed(text: str) -> str:
    """Return a text whose commands, as `aico-lab sync`, can be typed where this one was."""
    return text.replace("`aico-lab ", f"`{program()} ")


def program() -> str:
    """Return how this program is called: by its name where the shell finds it, else as it was."""
    called = Path(sys.argv[0])
    found = shutil.which("aico-lab")
    if called.name == sys.argv[0] or (found and Path(found).parent == Path(sys.executable).parent):
        return "aico-lab"
    if called.name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m aico_lab"
    return shlex.quote(sys.argv[0])


def ask_passphrase(home: Path | None) -> str | None:
    """Ask for the passphrase of a home that needs one, where somebody is there to answer."""
    from aico_lab.config import Settings
    from aico_lab.home import Home

    settings = Settings.resolve(home=home)
    if settings.passphrase or not sys.stdin.isatty() or not Home(settings.home).marker.exists():
        return settings.passphrase
    if not has_passphrase(settings.home):
        return None
    return str(typer.prompt("Passphrase", hide_input=True, err=True))


def has_passphrase(home: Path) -> bool:
    """Say whether it is a passphrase that opens a home.

    Raises:
        HomeMissing: There is no lab in that folder.
    """
    from aico_lab.home import Home
    from aico_lab.keys import protection_of

    return protection_of(Home(home).read_marker()) == "passphrase"
