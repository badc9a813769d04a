"""Encrypt content for people by their age recipients, and decrypt it by their identities."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

import pyrage

from aico_lab.errors import CorruptDatabase, InvalidValue, WrongKey
from aico_lab.home.files import os_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path
    from typing import BinaryIO, Protocol

    class _Reads(Protocol):
        def read(self, size: int = -1, /) -> bytes: ...

    class _Writes(Protocol):
        def write(self, content: bytes, /) -> int: ...


HEADER: Final = b"age-encryption.org/v1\n"
LONGEST_HEAD: Final = 1 << 14
"""The bytes that are read of a file to find the end of its head."""
_MOST_RECIPIENTS: Final = 128  # each has about 100 bytes of the head
_PREFIX: Final = "AGE-SECRET-KEY-1"
_LARGEST: Final = 1 << 16  # bytes of an identity file


def read_recipients(texts: Collection[str]) -> list[pyrage.x25519.Recipient]:
    """Return age recipients (X25519).

    Raises:
        InvalidValue: There is none, there are too many, or one of the texts is no recipient.
    """
    if not texts:
        raise InvalidValue("There is no recipient to encrypt for: name one, such as age1….")
    if len(texts) > _MOST_RECIPIENTS:
        raise InvalidValue(
            f"There are {len(texts)} recipients: a file is encrypted for {_MOST_RECIPIENTS} at "
            "most."
        )
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


def encrypt_stream(plain: _Reads, encrypted: BinaryIO, recipients: Collection[str]) -> None:
    """Encrypt what `plain` returns, piece by piece, for some recipients.

    Errors of both files leave this function as they are.

    Raises:
        InvalidValue: See `read_recipients`.
    """
    chosen = read_recipients(recipients)
    source, target = _Noting(plain.read), _Noting(encrypted.write)
    try:
        pyrage.encrypt_io(_Readable(source), _Writable(target), chosen)
    except pyrage.EncryptError:
        for one in (source, target):
            if one.error is not None:
                raise one.error from None
        raise


class _Noting:
    """Calls a function and keeps its error, of which the driver would keep only the text."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function
        self.error: BaseException | None = None

    def __call__(self, argument: Any) -> Any:
        try:
            return self._function(argument)
        except BaseException as error:
            self.error = error
            raise


class _Readable:
    def __init__(self, read: Callable[[int], bytes]) -> None:
        self.read = read


class _Writable:
    def __init__(self, write: Callable[[bytes], int]) -> None:
        self.write = write

    def flush(self) -> None:
        """Do nothing: the caller flushes."""


def new_identity() -> tuple[str, str]:
    """Return a new secret key, and the recipient whose files it opens."""
    identity = pyrage.x25519.Identity.generate()
    return str(identity), str(identity.to_public())


def recipient_of(identity: str) -> str:
    """Return the recipient whose files a secret key opens."""
    return str(_identities([identity])[0].to_public())


def read_identities(identity_file: Path) -> list[str]:
    """Return the secret keys of a file of age-keygen: a key in a line, and comments.

    Raises:
        WrongKey: The file cannot be read, or has no key.
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
    if not _identities(keys):
        raise WrongKey(
            f"{identity_file} has no identity of age: name the file that age-keygen wrote, with a "
            f"line that begins with {_PREFIX}."
        )
    return keys


def _identities(keys: Collection[str]) -> list[pyrage.x25519.Identity]:
    """Return the keys in the driver's form, without those that are none."""
    found = []
    for key in keys:
        with contextlib.suppress(pyrage.IdentityError):  # its message may contain the key
            found.append(pyrage.x25519.Identity.from_str(key))
    return found


def has_head(begin: bytes) -> bool:
    """Return whether a file has the head of one that is encrypted by age, for some recipients.

    The driver takes a time that grows with the square of the head's length, and of the number of
    recipients in it, and cannot be interrupted: anybody may have written the file.

    Args:
        begin: The first `LONGEST_HEAD` bytes of the file, or more.
    """
    head, end, _ = begin[:LONGEST_HEAD].partition(b"\n---")
    # The driver adds a recipient that is none.
    return begin.startswith(HEADER) and bool(end) and head.count(b"\n->") <= _MOST_RECIPIENTS + 1


def _peek(file: BinaryIO) -> bytes:
    """Return the beginning of a file from its position on, which stays."""
    at = file.tell()
    begin = file.read(LONGEST_HEAD)
    file.seek(at)
    return begin


def open_bytes(content: bytes, identities: Collection[str]) -> bytes | None:
    """Return encrypted content, or None if none of the identities opens it.

    Raises:
        CorruptDatabase: The content is damaged, or not encrypted by age.
    """
    if not has_head(content):
        raise CorruptDatabase("is damaged, or not encrypted by age")
    try:
        opened: bytes = pyrage.decrypt(content, _identities(identities))
    except pyrage.DecryptError as error:
        if "No matching keys" in str(error):
            return None
        raise CorruptDatabase("is damaged, or not encrypted by age") from error
    return opened


def decrypt_stream(
    encrypted: BinaryIO, plain: _Writes, identities: Collection[str], *, name: str
) -> None:
    """Decrypt a file into `plain`, piece by piece; each piece is authenticated before.

    Args:
        encrypted: The file, at the beginning of what is encrypted.
        plain: Gets the pieces; its own errors leave this function.
        identities: Secret keys.
        name: The name of the file in errors.

    Raises:
        WrongKey: None of the keys opens the file.
        CorruptDatabase: The file is damaged or cut off.
    """
    damaged = f"{name} is damaged or cut off: use another copy of it."
    if not has_head(_peek(encrypted)):
        raise CorruptDatabase(damaged)
    try:
        pyrage.decrypt_io(encrypted, plain, _identities(identities))
    except (pyrage.DecryptError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # from the operating system; without errno it is the cipher's
        if "No matching keys" in str(error):
            raise WrongKey(
                f"The key does not open {name}: name the one it was made for."
            ) from error
        raise CorruptDatabase(damaged) from error


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
    identities = _identities(read_identities(identity_file))
    with os_errors(source):
        content = source.read_bytes()
    damaged = f"{source.name} is damaged, or not encrypted by age: run the report again."
    if not has_head(content):
        raise CorruptDatabase(damaged)
    try:
        decrypted: bytes = pyrage.decrypt(content, identities)
    except pyrage.DecryptError as error:
        if "No matching keys" in str(error):
            raise WrongKey(
                f"The identity in {identity_file} does not open {source.name}: name that of one of "
                "the recipients it was encrypted for."
            ) from error
        raise CorruptDatabase(damaged) from error
    return decrypted
