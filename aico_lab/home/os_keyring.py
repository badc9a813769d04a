"""Keep the passphrase of a home in the operating system's keyring.

A locked keyring waits for a person. So it is asked in a thread of its own, which is left behind
after some seconds: a scheduled run does not wait for a dialog that nobody sees.
"""

from __future__ import annotations

import dataclasses
import sys
import threading
from typing import TYPE_CHECKING, Any, Final, TypeVar

from aico_lab.config import PASSPHRASE_VARIABLE
from aico_lab.errors import KeyMissing, KeyringRefused, LibraryMissing
from aico_lab.home.keys import protection_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aico_lab.config import Settings

T = TypeVar("T")

SERVICE: Final = "aico-lab"
"""The name of the service in the keyring; the name of the user is the id of the home."""

SECONDS = 10
SECONDS_OF_PEOPLE = 60
"""Seconds to wait for a keyring if a person is at a terminal, who can unlock it."""


def with_passphrase(settings: Settings, marker: Mapping[str, object]) -> Settings:
    """Return settings with the passphrase of the keyring, if it may be asked and is needed.

    Args:
        settings: The settings of the home.
        marker: The home's `lab.json`.

    Raises:
        KeyMissing: The keyring does not contain the passphrase.
        KeyringRefused: There is no keyring, or it is locked.
        LibraryMissing: The library keyring is not installed.
    """
    wanted = settings.keyring and not settings.passphrase
    if not wanted or protection_of(marker) != "passphrase":
        return settings
    home_id = str(marker.get("home_id"))
    found = _asked(lambda library: library.get_password(SERVICE, home_id))
    if not found:
        raise KeyMissing(
            f"The keyring has no passphrase of {settings.home}: run `aico-lab keyring add`."
        )
    return dataclasses.replace(settings, passphrase=found)


def add_passphrase(home_id: str, passphrase: str) -> str:
    """Store the passphrase of a home, and return the name of the keyring.

    Raises:
        KeyringRefused: There is no keyring, it is locked, or it does not store anything.
        LibraryMissing: The library keyring is not installed.
    """

    def store(library: Any) -> tuple[str, bool]:
        library.set_password(SERVICE, home_id, passphrase)
        is_stored = library.get_password(SERVICE, home_id) == passphrase
        return str(library.get_keyring().name), is_stored

    name, is_stored = _asked(store)
    if not is_stored:  # as of keyring's own backend "null"
        raise KeyringRefused(f"The keyring {name} does not store passphrases: set up another one.")
    return name


def remove_passphrase(home_id: str) -> bool:
    """Remove the passphrase of a home, and return whether there was one.

    Raises:
        KeyringRefused: There is no keyring, or it is locked.
        LibraryMissing: The library keyring is not installed.
    """

    def remove(library: Any) -> bool:
        if library.get_password(SERVICE, home_id) is None:
            return False
        library.delete_password(SERVICE, home_id)
        return True

    return _asked(remove)


def _asked(question: Callable[[Any], T]) -> T:
    """Return the answer of the library keyring to a question."""
    try:
        import keyring
    except ImportError:
        raise LibraryMissing(
            "The keyring needs a library: run `pip install 'aico-lab[keyring]'`."
        ) from None
    answers: list[T] = []
    faults: list[str] = []

    def ask() -> None:
        try:
            answers.append(question(keyring))
        except Exception as error:  # noqa: BLE001 - each backend has errors of its own
            faults.append(type(error).__name__)  # not its text, which may quote the passphrase

    has_person = sys.stdin is not None and sys.stdin.isatty()
    seconds = SECONDS_OF_PEOPLE if has_person else SECONDS
    thread = threading.Thread(target=ask, daemon=True)  # the end of the program does not wait
    thread.start()
    thread.join(seconds)
    if answers:
        return answers[0]
    reason = f"cannot be used ({faults[0]})" if faults else f"did not answer within {seconds} s"
    raise KeyringRefused(
        f"The keyring of the operating system {reason}: set one up, unlock it, or pass the "
        f"passphrase in {PASSPHRASE_VARIABLE}."
    )
