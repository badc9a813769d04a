"""Options that commands share, and functions that open the home of a command."""

from __future__ import annotations

import contextlib
import gc
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from aico_lab.config import PASSPHRASE_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aico_lab.config import Settings
    from aico_lab.home.folder import Home
    from aico_lab.lab import Lab

ParameterOption = Annotated[
    list[str] | None,
    typer.Option("-p", "--parameter", help="A parameter, as NAME=VALUE; may be repeated."),
]
HomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home", help="The home; by default AICO_LAB_HOME, or the platform's data folder."
    ),
]
KeyFileOption = Annotated[
    Path | None,
    typer.Option(help="The home's key file; by default AICO_LAB_KEY_FILE, or the usual one."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as one JSON value.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace an existing file.")]

_COMMAND: Final = re.compile("`aico-lab ([^`]+)`")
_OF_A_HOME: Final = ("--home", "--key-file")


def refuse_existing(file: Path | None, *, force: bool) -> None:
    """Raise InvalidValue if a file exists and must not be replaced."""
    if file is not None and file.expanduser().exists() and not force:
        from aico_lab.errors import InvalidValue

        raise InvalidValue(f"{file} exists already: name another file, or add --force.")


@contextlib.contextmanager
def importing(module: str) -> Iterator[None]:
    """Exclude the objects that a block imports from garbage collection.

    They are never garbage, and scanning them repeatedly takes a quarter of a short command's time.

    Args:
        module: The imported module; if it was imported before, nothing is changed.
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


def open_lab(
    home: Path | None, key_file: Path | None, *, keyring: bool = False, timezone: str = "UTC"
) -> Lab:
    """Open the home of a command; ask for its passphrase if needed."""
    with importing("aico_lab.lab"):
        from aico_lab.lab import Lab

    passphrase = None if keyring else ask_passphrase(home, key_file=key_file)
    lab = Lab.open(
        home, key_file=key_file, passphrase=passphrase, keyring=keyring, timezone=timezone
    )
    if lab.storage.keys.former is not None:
        from aico_lab.cli.output import note
        from aico_lab.home.keys import UNFINISHED

        note(UNFINISHED)
    return lab


def read_pairs(pairs: list[str] | None, option: str = "-p") -> dict[str, str]:
    """Return the values by name of an option NAME=VALUE that may be repeated."""
    from aico_lab.errors import InvalidValue

    given: dict[str, str] = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        if not equals:
            raise InvalidValue(f"{option} takes NAME=VALUE, and {pair!r} has no '='.")
        if (name := name.strip()) in given:
            raise InvalidValue(f"{option} {name}=… is given twice: give it once.")
        given[name] = value
    return given


def home_of(home: Path | None) -> Home:
    """Return the home of a command, which may not exist."""
    from aico_lab.config import Settings
    from aico_lab.home.folder import Home

    return Home(Settings.resolve(home=home).home)


def as_typed(text: str) -> str:
    """Return a text with commands such as `aico-lab sync` in the form that the user can type.

    They get the home and the key file of this command line.
    """
    return _COMMAND.sub(
        lambda found: f"`{' '.join((program(), found[1], *_same_home(found[1])))}`", text
    )


def _same_home(command: str) -> list[str]:
    """Return the options of this command line that name a home, if a command takes them."""
    given = sys.argv[1 : sys.argv.index("--") if "--" in sys.argv else None]
    named = {
        option: value
        for one, after in zip(given, [*given, ""][1:], strict=True)
        for option, equals, value in [one.partition("=")]
        for value in [value if equals else after]
        if option in _OF_A_HOME
    }
    taken = _options_of(command) if named else set()
    return [
        word
        for option, value in named.items()
        if option in taken and option not in command
        for word in (option, shlex.quote(value))
    ]


def _options_of(command: str) -> set[str]:
    """Return the options of a command; none if it only asks for help."""
    from typer.main import get_command

    from aico_lab.cli.app import app

    words, found = command.split(), get_command(app)
    while words and (commands := getattr(found, "commands", None)):
        found = commands.get(words.pop(0))
    if found is None or "--help" in words:
        return set()
    return {option for one in found.params for option in one.opts}


def program() -> str:
    """Return the command that calls this program: its name if the shell finds it, else its path."""
    called = Path(sys.argv[0])
    found = shutil.which("aico-lab")
    if called.name == sys.argv[0] or (found and Path(found).parent == Path(sys.executable).parent):
        return "aico-lab"
    if called.name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m aico_lab"
    return shlex.quote(sys.argv[0])


def ask_passphrase(
    home: Path | None, *, keyring_may_know: bool = True, key_file: Path | None = None
) -> str | None:
    """Return the passphrase from the environment, or ask for it at a terminal if it is needed.

    Args:
        home: The home of the command.
        keyring_may_know: Do not ask a person where `Lab.open` will ask the keyring.
        key_file: The key file of the command, which makes a passphrase unnecessary.
    """
    from aico_lab.config import Settings
    from aico_lab.home.folder import Home

    settings = Settings.resolve(home=home, key_file=key_file)
    if settings.passphrase or not sys.stdin.isatty() or not Home(settings.home).marker.exists():
        return settings.passphrase
    if settings.keyring and keyring_may_know:
        return None
    if not needs_passphrase(settings):
        return None
    return str(typer.prompt("Passphrase", hide_input=True, err=True))


def needs_passphrase(settings: Settings) -> bool:
    """Return whether a home is opened by a passphrase or recovery key, and no key file is there."""
    from aico_lab.config import usual_key_file
    from aico_lab.home.folder import Home
    from aico_lab.home.keys import kinds_of

    marker = Home(settings.home).read_marker()
    kinds = kinds_of(marker)
    has_file = settings.key_file is not None or (
        "key-file" in kinds and usual_key_file(str(marker.get("home_id"))).exists()
    )
    return bool(kinds & {"passphrase", "recovery"}) and not has_file


def new_passphrase(variable: str = PASSPHRASE_VARIABLE) -> str:
    """Ask for a new passphrase twice.

    Args:
        variable: The environment variable that would have held it.

    Raises:
        KeyMissing: There is no terminal to ask at.
    """
    if not sys.stdin.isatty():
        from aico_lab.errors import KeyMissing

        raise KeyMissing(f"There is no terminal to ask for a passphrase: set {variable} to it.")
    return str(typer.prompt("Passphrase", hide_input=True, confirmation_prompt=True, err=True))
