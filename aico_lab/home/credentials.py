"""The secrets that open a home: key files, passphrases, recovery keys."""

from __future__ import annotations

import base64
import os
import secrets
import stat
import unicodedata
from typing import TYPE_CHECKING, Final, Literal

from aico_lab.config import KEY_FILE_VARIABLE, PASSPHRASE_VARIABLE, usual_key_file
from aico_lab.errors import InvalidValue, KeyFileExposed, KeyMissing, WrongKey
from aico_lab.home.files import os_errors, write_atomically

if TYPE_CHECKING:
    from pathlib import Path

    from aico_lab.config import Settings

Protection = Literal["key-file", "passphrase", "none"]

SECRET_BYTES: Final = 32
_SHORTEST_PASSPHRASE: Final = 8  # characters
_LARGEST_KEY_FILE: Final = 4096  # bytes
_OTHER_FILE: Final = "check its permissions or name another file"


def check_credentials(protection: Protection, settings: Settings) -> None:
    """Check the passphrase or key file for a new home, without creating anything.

    Raises:
        KeyMissing: The protection is 'passphrase', but no passphrase was given.
        InvalidValue: The passphrase is too short or is not valid text, the key file is inside the
            home, or a passphrase or key file was given for a home that it would not protect.
        KeyFileExposed: Other users can read the key file.
        WrongKey: The file exists, and is not a key file.
    """
    if protection != "passphrase" and settings.passphrase:
        raise InvalidValue(
            "A passphrase was given, but the home is to be protected otherwise: choose "
            f"the protection 'passphrase' (`aico-lab init --passphrase`) or unset "
            f"{PASSPHRASE_VARIABLE}."
        )
    if protection != "key-file" and settings.key_file:
        raise InvalidValue(
            "A key file was given, but the home is to be protected otherwise: leave it out, "
            f"or unset {KEY_FILE_VARIABLE}."
        )
    if protection == "passphrase":
        check_new_passphrase(passphrases(settings)[0])
    elif protection == "key-file":
        file = settings.key_file or usual_key_file("any")
        check_place(file, settings.home)
        if file.exists():
            read_key_file(file)


def check_place(file: Path, home: Path) -> None:
    """Raise InvalidValue if a key file lies in the home that it opens."""
    if file.resolve().is_relative_to(home.resolve()):
        raise InvalidValue(
            f"{file} is inside the home, so whoever copies the home could open it: name a key "
            "file elsewhere with --key-file."
        )


def check_new_passphrase(passphrase: bytes) -> None:
    """Raise InvalidValue if a new passphrase is too short."""
    seen = "".join(character for character in passphrase.decode() if character.isprintable())
    if len(seen.strip()) < _SHORTEST_PASSPHRASE:
        raise InvalidValue(
            "The passphrase is too short: choose one of 8 characters or more, not counting "
            "blanks at its ends."
        )


def passphrases(settings: Settings) -> list[bytes]:
    """Return the forms of the passphrase that may open a home, the form for new homes first.

    New homes take the passphrase without blanks at its ends, because a variable that is read from
    a file ends in a newline, and in Unicode's composed form (NFC), because systems encode the same
    letter as one code point or as two. Older homes took it with blanks, or without normalisation.

    Raises:
        KeyMissing: No passphrase was given.
        InvalidValue: The passphrase is not valid text.
    """
    given = settings.passphrase
    if not given:
        raise KeyMissing(
            f"{settings.home} is protected by a passphrase: set {PASSPHRASE_VARIABLE}, "
            "or pass it to Lab.open()."
        )
    try:
        composed = unicodedata.normalize("NFC", given)
        spellings = [composed.strip().encode(), composed.encode(), given.encode()]
    except UnicodeEncodeError:  # surrogates stand for undecodable bytes of the environment
        raise InvalidValue(
            "The passphrase contains bytes that are not text in this system's encoding: "
            f"set {PASSPHRASE_VARIABLE} again in UTF-8, or type the passphrase."
        ) from None
    return list(dict.fromkeys(spellings))


def create_key_file(file: Path) -> bytes:
    """Write a new key file, and return its secret."""
    secret = secrets.token_bytes(SECRET_BYTES)
    with os_errors(file, _OTHER_FILE):
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(file, base64.urlsafe_b64encode(secret) + b"\n")
    return secret


def remove_key_file(file: Path) -> None:
    """Remove the key file of an unfinished home, and partly written copies of it."""
    with os_errors(file):
        for path in (file, *file.parent.glob(f".{file.name}.*")):
            path.unlink(missing_ok=True)


def read_key_file(file: Path) -> bytes:
    """Return the secret of a key file.

    Raises:
        KeyMissing: The file does not exist.
        KeyFileExposed: Other users can read it.
        WrongKey: The file is not a key file.
    """
    with os_errors(file, _OTHER_FILE):
        try:
            mode = file.stat().st_mode
            text = b""
            if stat.S_ISREG(mode):  # others, such as /dev/zero, may never end
                with file.open("rb") as opened:
                    text = opened.read(_LARGEST_KEY_FILE)
        except FileNotFoundError:
            raise KeyMissing(
                f"The key file {file} does not exist: restore it from your backup, or name it "
                f"with --key-file or {KEY_FILE_VARIABLE}."
            ) from None
    if os.name == "posix" and stat.S_ISREG(mode) and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise KeyFileExposed(f"Others can read the key file: run `chmod 600 {file}`.")
    try:
        secret = base64.urlsafe_b64decode(text.strip())
    except ValueError:
        secret = b""
    if len(secret) != SECRET_BYTES:
        raise WrongKey(f"{file} is not a key file of aico-lab: name the right one.")
    return secret
