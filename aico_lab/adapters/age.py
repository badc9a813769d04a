"""Encrypt content for people by their age recipients, and decrypt it by their identity file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pyrage

from aico_lab.errors import CorruptDatabase, InvalidValue, WrongKey
from aico_lab.home.files import os_errors

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

_PREFIX: Final = "AGE-SECRET-KEY-1"
_LARGEST: Final = 1 << 16  # bytes of an identity file


def read_recipients(texts: Collection[str]) -> list[pyrage.x25519.Recipient]:
    """Return age recipients (X25519).

    Raises:
        InvalidValue: There is none, or one of the texts is no recipient.
    """
    if not texts:
        raise InvalidValue("There is no recipient to encrypt for: name one, such as age1….")
    found = []
    for number, text in enumerate(texts, 1):
        if text.strip().upper().startswith(_PREFIX):
            raise InvalidValue(
                f"Recipient {number} is a secret key, which opens files: name the public key that "
                "age-keygen prints beside it."
            )
        try:
            found.append(pyrage.x25519.Recipient.from_str(text.strip()))
        except pyrage.RecipientError:
            raise InvalidValue(
                f"{text!r} is not a recipient of age: name a public key that begins with age1, as "
                "age-keygen prints it."
            ) from None
    return found


def encrypt(content: bytes, recipients: Collection[str]) -> bytes:
    """Return content that only the identities of some recipients open.

    Raises:
        InvalidValue: See `read_recipients`.
    """
    encrypted: bytes = pyrage.encrypt(content, read_recipients(recipients))
    return encrypted


def new_identity() -> tuple[str, str]:
    """Return a new secret key and its recipient."""
    identity = pyrage.x25519.Identity.generate()
    return str(identity), str(identity.to_public())


def open_bytes(content: bytes, identities: Collection[str]) -> bytes | None:
    """Return encrypted content, or None if none of the identities opens it.

    Raises:
        CorruptDatabase: The content is damaged, or not encrypted by age.
    """
    keys = [pyrage.x25519.Identity.from_str(identity) for identity in identities]
    try:
        opened: bytes = pyrage.decrypt(content, keys)
    except pyrage.DecryptError as error:
        if "No matching keys" in str(error):
            return None
        raise CorruptDatabase("is damaged, or not encrypted by age") from error
    return opened


def decrypt(source: Path, identity_file: Path) -> bytes:
    """Return the content of an encrypted file.

    Args:
        source: The encrypted file.
        identity_file: A file of age-keygen: a secret key in a line, and comments.

    Raises:
        WrongKey: The identity file cannot be read, or has no key, or none that opens the file.
        CorruptDatabase: The encrypted file is damaged.
        HomeNotWritable: The encrypted file cannot be read.
    """
    try:
        with identity_file.open("rb") as opened:
            lines = opened.read(_LARGEST).decode(errors="replace").split()
    except OSError as refused:
        raise WrongKey(
            f"The identity file {identity_file} cannot be read ({refused.strerror}): check its "
            "path and its permissions."
        ) from refused
    keys = [line for line in lines if line.upper().startswith(_PREFIX)]
    try:
        identities = [pyrage.x25519.Identity.from_str(key) for key in keys]
    except pyrage.IdentityError:  # not chained: the driver's message may contain the key
        identities = []
    if not identities:
        raise WrongKey(
            f"{identity_file} has no identity of age: name the file that age-keygen wrote, with a "
            f"line that begins with {_PREFIX}."
        )
    with os_errors(source):
        content = source.read_bytes()
    try:
        decrypted: bytes = pyrage.decrypt(content, identities)
    except pyrage.DecryptError as error:
        if "No matching keys" in str(error):
            raise WrongKey(
                f"The identity in {identity_file} does not open {source.name}: name that of one of "
                "the recipients it was encrypted for."
            ) from error
        raise CorruptDatabase(
            f"{source.name} is damaged, or not encrypted by age: run the report again."
        ) from error
    return decrypted
