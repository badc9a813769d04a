"""How two devices of a person get to know each other: by a code of eight digits.

Three messages go by a shared folder or the local network, which anybody may read and change:

1. The device that admits sends its part of a SPAKE2 key exchange.
2. The device that joins sends its part, a proof that it has the code, and its public keys.
3. The first one proves that it has the code, and sends the invitation.

A wrong code shows nothing but that it is wrong, and ends the attempt: one guess in 10^8.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import secrets
import time
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from spake2 import SPAKE2_A, SPAKE2_B, SPAKEError

from aico_lab.errors import DeviceRevoked, FolderUnusable, InvalidValue, NameTaken, PairingFailed
from aico_lab.federation.control import check_name
from aico_lab.federation.replica import DeviceKeys
from aico_lab.home.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

PATIENCE: Final = 600.0  # seconds that a code is valid
LARGEST_MESSAGE: Final = 16 << 20

_POLL: Final = 0.3
_DAY: Final = 86_400.0
_DIGITS: Final = 8
_PREFIX: Final = "pairing-"
_WRONG: Final = "The code is wrong, and is no longer valid: begin again with `device add`."


class Post(Protocol):
    """A way on which two devices exchange numbered messages."""

    def write(self, number: int, message: bytes) -> None:
        """Send a message."""

    def read(self, number: int, seconds: float) -> bytes:
        """Wait for a message of the other device, and return it.

        Raises:
            PairingFailed: It did not come in time.
        """


class FolderPost:
    """Messages as files of a shared folder; use it in `with`, so that they are removed."""

    def __init__(self, folder: Path, name: str, *, joins: bool) -> None:
        """Make the way of one pairing.

        Args:
            folder: The shared folder.
            name: The name of the pairing.
            joins: Whether this device is the one that joins.
        """
        self._folder = folder
        self._name = name
        self._joins = joins

    @classmethod
    def begin(cls, folder: Path, device_id: str) -> FolderPost:
        """Return the way of a new pairing of a device.

        Earlier ones of the device, which may have been killed, are removed, and old ones of others.
        """
        for path, age in _messages(folder).items():
            if path.name.startswith(f"{_PREFIX}{device_id}.") or abs(age) > _DAY:
                path.unlink(missing_ok=True)
        return cls(folder, f"{device_id}.{secrets.token_hex(4)}", joins=False)

    @classmethod
    def find(cls, folder: Path, seconds: float = PATIENCE) -> FolderPost:
        """Wait for the pairing that nobody has answered.

        Raises:
            PairingFailed: There is none, or there are several, or it is too old by this clock.
        """
        until = time.monotonic() + seconds
        while True:
            ages = {path.name.removeprefix(_PREFIX): age for path, age in _messages(folder).items()}
            answered = {name[:-2] for name in ages if name.endswith(("-2", "-3"))}
            asked = {name[:-2]: age for name, age in ages.items() if name.endswith("-1")}
            waiting = {name for name, age in asked.items() if age <= PATIENCE} - answered
            old = [age for name, age in asked.items() if name not in answered]
            if old and not waiting:
                raise _too_old(folder, min(old))
            if len(waiting) > 1:
                raise PairingFailed(
                    f"Several devices wait for another one in {folder}: end `device add` on all "
                    "but one. After one that was killed, begin again on it, or wait 10 minutes."
                )
            if waiting:
                return cls(folder, waiting.pop(), joins=True)
            if time.monotonic() > until:
                raise PairingFailed(
                    f"No device waits for this one in {folder}: run `device add` on the other "
                    "device, and wait until the folder has the same files here."
                )
            time.sleep(_POLL)

    def write(self, number: int, message: bytes) -> None:
        """Send a message."""
        try:
            write_atomically(self._path(number), message)
        except OSError as error:
            raise _unusable(self._folder, error) from error

    def read(self, number: int, seconds: float) -> bytes:
        """Wait for a message of the other device, and return it.

        Raises:
            PairingFailed: It did not come in time.
        """
        path, until = self._path(number), time.monotonic() + seconds
        while time.monotonic() < until:
            if path.is_file() and not path.is_symlink():
                with path.open("rb") as file:
                    return file.read(LARGEST_MESSAGE)
            time.sleep(_POLL)
        raise PairingFailed("The other device did not answer in time: begin again on both.")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        # The device that joins reads last, unless it never came.
        if self._joins or not self._path(2).exists():
            for number in (1, 2, 3):
                self._path(number).unlink(missing_ok=True)

    def _path(self, number: int) -> Path:
        return self._folder / f"{_PREFIX}{self._name}-{number}"


def new_code() -> str:
    """Return a new code, for people to type."""
    digits = f"{secrets.randbelow(10**_DIGITS):0{_DIGITS}}"
    return f"{digits[:4]}-{digits[4:]}"


def admit(
    post: Post,
    code: str,
    confirm: Callable[[str, DeviceKeys], bool],
    invite: Callable[[DeviceKeys, str], Mapping[str, Any]],
) -> DeviceKeys:
    """Wait for a device that has a code, and invite it; return its keys.

    Args:
        post: The way to it.
        code: The code.
        confirm: Returns whether the person trusts a device of this name and these keys.
        invite: Returns the invitation for it.

    Raises:
        PairingFailed: No device answered, its code was wrong, or the person did not trust it.
        NameTaken: A trusted device has its name.
    """
    exchange = SPAKE2_A(digits_of(code))
    mine = exchange.start()
    post.write(1, _written(part=mine))
    answer = _read(post.read(2, PATIENCE))
    secret = _Secret(_finish(exchange, answer), mine, _bytes(answer, "part"))
    try:
        joining = secret.open(b"joins", answer)
        keys = DeviceKeys(str(joining["public_key"]), str(joining["recipient"]))
        name = check_name(str(joining["name"]))
    except (PairingFailed, InvalidValue, KeyError):
        post.write(3, _written(refused=b"code"))
        raise PairingFailed(_WRONG) from None
    refused, invitation = b"person", None
    try:
        if confirm(name, keys):
            invitation = invite(keys, name)
    except DeviceRevoked:
        refused = b"revoked"
        raise
    except NameTaken:
        refused = b"name"
        raise
    finally:
        if invitation is None:  # also after Control-C: the other device waits
            post.write(3, _written(refused=refused))
    if invitation is None:
        raise PairingFailed(f"The device {name!r} was not added.")
    post.write(3, secret.seal(b"admits", invitation))
    return keys


def ask(post: Post, code: str, keys: DeviceKeys, name: str) -> dict[str, Any]:
    """Ask a device that shows a code for an invitation, and return that.

    Args:
        post: The way to that device.
        code: The code.
        keys: The public keys of this device.
        name: Its name.

    Raises:
        InvalidValue: It is no code, or no name.
        NameTaken: A trusted device has that name.
        PairingFailed: The code is wrong, or the other device did not answer or refused.
        DeviceRevoked: It has revoked these keys.
    """
    check_name(name)
    exchange = SPAKE2_B(digits_of(code))
    mine = exchange.start()
    question = _read(post.read(1, PATIENCE))
    secret = _Secret(_finish(exchange, question), _bytes(question, "part"), mine)
    described = {"public_key": keys.public_key, "recipient": keys.recipient, "name": name}
    post.write(2, secret.seal(b"joins", described, part=mine))
    answer = _read(post.read(3, PATIENCE))
    if answer.get("refused") == b"person".hex():
        raise PairingFailed("The other device did not add this one: see what it says.")
    if answer.get("refused") == b"name".hex():
        raise NameTaken(
            f"{name} is taken by another device: begin again on both, and choose another --name "
            "here."
        )
    if answer.get("refused") == b"revoked".hex():
        raise DeviceRevoked(
            "The other devices have revoked the keys of this one, which makes new ones now: begin "
            "again on both."
        )
    return secret.open(b"admits", answer)


class _Secret:
    """The key that both devices have if both have the code."""

    def __init__(self, key: bytes, admitting: bytes, joining: bytes) -> None:
        self._key = key
        self._parts = admitting + joining

    def seal(self, side: bytes, content: Mapping[str, Any], **fields: bytes) -> bytes:
        """Return a message with content for the other device, and the proof of the code."""
        box = ChaCha20Poly1305(self._derived(b"box", side)).encrypt(
            bytes(12), json.dumps(content).encode(), self._parts
        )
        return _written(proof=self._derived(b"proof", side), box=box, **fields)

    def open(self, side: bytes, message: Mapping[str, str]) -> dict[str, Any]:
        """Return the content of a message of the other device.

        The proof comes first: a box could be made that several keys open.

        Raises:
            PairingFailed: The other device does not have the code.
        """
        if not hmac.compare_digest(_bytes(message, "proof"), self._derived(b"proof", side)):
            raise PairingFailed(_WRONG)
        try:
            content = ChaCha20Poly1305(self._derived(b"box", side)).decrypt(
                bytes(12), _bytes(message, "box"), self._parts
            )
        except InvalidTag:
            raise PairingFailed(_WRONG) from None
        found: dict[str, Any] = json.loads(content)
        return found

    def _derived(self, purpose: bytes, side: bytes) -> bytes:
        """Return a key for one purpose, which no other message has."""
        info = b"aico-lab pairing v1 " + purpose + b" " + side
        return HKDF(SHA256(), 32, self._parts, info).derive(self._key)


def digits_of(code: str) -> bytes:
    """Return the digits of a code.

    Raises:
        InvalidValue: It does not have as many as a code has.
    """
    digits = "".join(one for one in code if one.isascii() and one.isdigit())
    if len(digits) != _DIGITS or set(code) - set("0123456789- "):
        raise InvalidValue(f"A code has {_DIGITS} digits, such as 1234-5678.")
    return digits.encode()


def _finish(exchange: Any, message: Mapping[str, str]) -> bytes:
    try:
        return bytes(exchange.finish(_bytes(message, "part")))
    except (SPAKEError, ValueError, AssertionError) as error:
        raise _malformed() from error


def _written(**fields: bytes) -> bytes:
    return json.dumps({name: value.hex() for name, value in fields.items()}).encode()


def _read(message: bytes) -> dict[str, str]:
    try:
        fields = json.loads(message)
    except (ValueError, RecursionError) as error:
        raise _malformed() from error
    if not isinstance(fields, dict) or not all(isinstance(one, str) for one in fields.values()):
        raise _malformed()
    return fields


def _bytes(message: Mapping[str, str], name: str) -> bytes:
    try:
        return bytes.fromhex(message.get(name, ""))
    except ValueError as error:
        raise _malformed() from error


def _malformed() -> PairingFailed:
    return PairingFailed("The answer is not that of a device: begin again on both.")


def _messages(folder: Path) -> dict[Path, float]:
    """Return the messages of pairings in a folder, with the seconds since they were written."""
    found = {}
    for path in folder.glob(f"{_PREFIX}*"):
        with contextlib.suppress(FileNotFoundError):
            if path.is_file():
                found[path] = time.time() - path.stat().st_mtime
    return found


def _too_old(folder: Path, age: float) -> PairingFailed:
    return PairingFailed(
        f"The code of the device that waits in {folder} is {age / 60:,.0f} minutes old by the "
        "clock of this one, and valid for 10. If it is shown only now, the clocks differ by that "
        "much: correct the wrong one, and begin again on both. Otherwise wait until the folder has "
        "the same files here, and try again."
    )


def _unusable(folder: Path, error: OSError) -> FolderUnusable:
    return FolderUnusable(f"The folder {folder} cannot be used ({error.strerror}).")
