"""Keep the passphrase of a home, or the secrets of slots, in the operating system's keyring.

A locked keyring waits for a person. So it is asked in a thread of its own, which is left behind
after some seconds: a scheduled run does not wait for a dialog that nobody sees.
"""

from __future__ import annotations

import dataclasses
import sys
import threading
from typing import TYPE_CHECKING, Any, Final, TypeVar

from aico_lab.config import PASSPHRASE_VARIABLE, usual_key_file
from aico_lab.errors import KeyMissing, KeyringRefused, LibraryMissing
from aico_lab.home.handover import received as handed_over
from aico_lab.home.keys import kinds_of, slots_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aico_lab.config import Settings

T = TypeVar("T")

SERVICE: Final = "aico-lab"
"""The name of the service in the keyring; the name of the user is the id of the home."""

SECONDS = 10
SECONDS_OF_PEOPLE = 60
"""Seconds to wait for a keyring if a person is at a terminal, who can unlock it."""


def with_keyring(settings: Settings, marker: Mapping[str, object]) -> Settings:
    """Return settings with the secret of the keyring, if it may be asked and is needed.

    Args:
        settings: The settings of the home.
        marker: The home's `lab.json`.

    Raises:
        KeyMissing: The keyring does not contain the passphrase.
        KeyringRefused: There is no keyring, or it is locked.
        LibraryMissing: The library keyring is not installed.
    """
    kinds, home_id = kinds_of(marker), str(marker.get("home_id"))
    is_given = settings.passphrase or settings.key_file or handed_over(home_id)
    has_file = "key-file" in kinds and usual_key_file(home_id).exists()
    if is_given or has_file or not settings.keyring or not kinds & {"keyring", "passphrase"}:
        return settings
    slots = [slot["id"] for slot in slots_of(marker) if slot["kind"] == "keyring"]
    for number in slots:
        if secret := _kept(slot_name(home_id, number)):
            return dataclasses.replace(settings, keyring_secret=secret.encode())
    if "passphrase" in kinds:
        if found := _kept(home_id):
            return dataclasses.replace(settings, passphrase=found)
        raise KeyMissing(
            f"The keyring has no passphrase of {settings.home}: run `aico-lab keyring add`."
        )
    raise KeyMissing(f"The keyring has no secret of {settings.home}: open it in another way.")


def slot_name(home_id: str, number: int) -> str:
    """Return the name under which the keyring has the secret of a slot."""
    return f"{home_id}/{number}"


def add_passphrase(home_id: str, passphrase: str) -> str:
    """Store the passphrase of a home, or the secret of a slot, and return the name of the keyring.

    Args:
        home_id: The id of the home, or the name of the slot.
        passphrase: The secret.

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


def _kept(name: str) -> str | None:
    """Return the password of a name in the keyring, or None."""

    def ask(library: Any) -> str | None:
        found: str | None = library.get_password(SERVICE, name)
        return found

    return _asked(ask)


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
