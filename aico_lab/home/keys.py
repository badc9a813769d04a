"""Create and open the keys of a home.

A home has one random master key, from which HKDF-SHA256 (RFC 5869) derives a key for each store. A
credential, which is a key file or a passphrase, wraps the master key with AES-256-GCM; so a wrong
credential is noticed before any database is opened, and a new passphrase needs no new databases.
Argon2id (RFC 9106, the second recommended option) turns a passphrase into the wrapping key.
"""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
import stat
import unicodedata
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from aico_lab.config import KEY_FILE_VARIABLE, PASSPHRASE_VARIABLE, usual_key_file
from aico_lab.errors import (
    HomeMissing,
    InvalidValue,
    KeyFileExposed,
    KeyMissing,
    WrongKey,
)
from aico_lab.home.files import os_errors, write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    from aico_lab.config import Settings

Protection = Literal["key-file", "passphrase", "none"]

MASTER_BYTES = 32
KEY_BYTES = {"libsql": 24, "duckdb": 32, "chroma": 32, "rocksdb": 32}
SHORTEST_PASSPHRASE = 8  # characters
LARGEST_KEY_FILE = 4096  # bytes
BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
BECH32_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
ARGON2 = {"time_cost": 3, "memory_cost": 65536, "parallelism": 4}  # memory in KiB
LIMITS = {"time_cost": 16, "memory_cost": 1 << 21, "parallelism": 64}  # upper limits for markers


@dataclass(frozen=True, slots=True)
class Keys:
    """The opened keys of a home; each method returns the key of a store, or None if unencrypted."""

    master: bytes | None = field(repr=False)
    credential: bytes | None = field(default=None, repr=False)
    """The secret that unwrapped the master key: the passphrase or the decoded key file."""

    def libsql(self) -> str | None:
        """Return the key of libSQL: 192 bits as 32 URL-safe characters; libSQL reads no more."""
        derived = self._derive("libsql", KEY_BYTES["libsql"])
        return base64.urlsafe_b64encode(derived).decode() if derived else None

    def duckdb(self) -> str | None:
        """Return the key of DuckDB: 256 bits as base64, since DuckDB takes raw bytes so."""
        derived = self._derive("duckdb", KEY_BYTES["duckdb"])
        return base64.b64encode(derived).decode() if derived else None

    def chroma(self) -> str | None:
        """Return the key of Chroma's sealed file: 256 bits as an age identity (X25519)."""
        derived = self._derive("chroma", KEY_BYTES["chroma"])
        return bech32("age-secret-key-", derived).upper() if derived else None

    def rocksdb(self) -> bytes | None:
        """Return the key of RocksDB: 256 bits, from which the adapter derives two keys."""
        return self._derive("rocksdb", KEY_BYTES["rocksdb"])

    def answers(self) -> bytes | None:
        """Return the key of kept answers of metrics: 256 bits."""
        return self._derive("answers", 32)

    def receipts(self) -> bytes | None:
        """Return the key that signs receipts of erasures and hashes the ids in them: 256 bits."""
        return self._derive("receipts", 32)

    def texts(self) -> set[str]:
        """Return every text form of the keys and the credential, to redact them from files."""
        texts = {text for text in (self.libsql(), self.duckdb(), self.chroma()) if text}
        for secret in (
            self.master, self.credential, self.rocksdb(), self.answers(), self.receipts(),
        ):  # fmt: skip
            if secret:
                texts |= _spellings(secret)
        return texts

    def secrets(self) -> set[bytes]:
        """Return the bytes of all keys and of the credential, to look for them in files."""
        derived = (self._derive(store, length) for store, length in KEY_BYTES.items())
        return {secret for secret in (self.master, self.credential, *derived) if secret}

    def _derive(self, store: str, length: int) -> bytes | None:
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        if self.master is None:
            return None
        info = f"aico-lab/{store}/v1".encode()
        return HKDF(SHA256(), length=length, salt=None, info=info).derive(self.master)


def create_keys(
    home_id: str, protection: Protection, settings: Settings
) -> tuple[Keys, dict[str, object]]:
    """Create a master key and wrap it with a key file or a passphrase.

    Args:
        home_id: The id of the home, to which the wrapped key is bound.
        protection: 'key-file', 'passphrase' or 'none'.
        settings: The path of the key file, created if it does not exist, or the passphrase.

    Returns:
        The keys, and the wrapped key in the form that `lab.json` stores.

    Raises:
        KeyMissing: The protection is 'passphrase', but no passphrase was given.
        InvalidValue: The passphrase or the key file is unsuitable: see `check_credentials`.
        KeyFileExposed: Other users can read the key file.
        WrongKey: The file exists, and is not a key file.
    """
    check_credentials(protection, settings)
    if protection == "none":
        return Keys(None), {"kind": "none"}
    slot: dict[str, object] = {"kind": protection}
    if protection == "key-file":
        file = settings.key_file or usual_key_file(home_id)
        secret = _read_key_file(file) if file.exists() else _create_key_file(file)
    else:
        secret = _passphrases(settings)[0]
        slot |= {"salt": secrets.token_hex(16), **ARGON2}
    master = secrets.token_bytes(MASTER_BYTES)
    nonce = secrets.token_bytes(12)
    cipher = _cipher(secret, slot)
    slot["nonce"] = nonce.hex()
    slot["wrapped"] = cipher.encrypt(nonce, master, home_id.encode()).hex()
    return Keys(master, secret), slot


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
        secret = _passphrases(settings)[0].decode()
        seen = "".join(character for character in secret if character.isprintable())
        if len(seen.strip()) < SHORTEST_PASSPHRASE:
            raise InvalidValue(
                "The passphrase is too short: choose one of 8 characters or more, not counting "
                "blanks at its ends."
            )
    elif protection == "key-file":
        file = settings.key_file or usual_key_file("any")
        if file.resolve().is_relative_to(settings.home.resolve()):
            raise InvalidValue(
                f"{file} is inside the home, so whoever copies the home could open it: name a key "
                "file elsewhere with --key-file."
            )
        if file.exists():
            _read_key_file(file)


def protection_of(marker: Mapping[str, object]) -> str:
    """Return the protection of a home; '' if the marker is damaged.

    Args:
        marker: The home's `lab.json`.
    """
    slot = marker.get("key")
    return str(slot.get("kind")) if isinstance(slot, dict) else ""


def open_keys(marker: Mapping[str, object], settings: Settings) -> Keys:
    """Unwrap the master key of a home.

    Args:
        marker: The home's `lab.json`.
        settings: The path of the key file, or the passphrase.

    Raises:
        KeyMissing: The key file does not exist, or no passphrase was given.
        KeyFileExposed: Other users can read the key file.
        WrongKey: The key file or passphrase does not open this home.
        InvalidValue: A passphrase or key file was given but does not protect this home, or the
            passphrase is not valid text.
        HomeMissing: The marker is damaged.
    """
    home_id = str(marker.get("home_id"))
    slot = marker.get("key")
    try:
        if not isinstance(slot, dict):
            raise TypeError("no key slot")
        kind = slot["kind"]
        if kind != "passphrase" and settings.passphrase:
            raise InvalidValue(
                f"{settings.home} is not opened by a passphrase: leave the passphrase out, "
                f"or unset {PASSPHRASE_VARIABLE}."
            )
        if kind != "key-file" and settings.key_file:
            raise InvalidValue(
                f"{settings.home} is not opened by a key file: leave the key file out, "
                f"or unset {KEY_FILE_VARIABLE}."
            )
        if kind == "none":
            return Keys(None)
        if kind == "key-file":
            file = settings.key_file or usual_key_file(home_id)
            possible = [_read_key_file(file)]
            hint, variable = f"The key file {file}", KEY_FILE_VARIABLE
        else:
            possible = _passphrases(settings)
            hint, variable = "The passphrase", PASSPHRASE_VARIABLE
        for secret in possible:
            if master := _unwrap(secret, slot, home_id):
                return Keys(master, secret)
    except (KeyError, TypeError, ValueError) as damaged:
        raise HomeMissing(
            f"The lab.json of {settings.home} is damaged: restore it from a backup; "
            "without it the home's key cannot be unwrapped."
        ) from damaged
    raise WrongKey(f"{hint} does not open {settings.home}: set {variable} to the right one.")


def _unwrap(secret: bytes, slot: Mapping[str, object], home_id: str) -> bytes | None:
    """Return the master key, or None if another secret wrapped it."""
    from cryptography.exceptions import InvalidTag

    nonce, wrapped = (bytes.fromhex(str(slot[name])) for name in ("nonce", "wrapped"))
    cipher = _cipher(secret, slot)
    with contextlib.suppress(InvalidTag):
        return cipher.decrypt(nonce, wrapped, home_id.encode())
    return None


def bech32(prefix: str, content: bytes) -> str:
    """Return bytes in the Bech32 encoding of BIP-173, which age uses for its keys.

    Args:
        prefix: The human-readable part, in lower case.
        content: The bytes, usually at most 32; the last five-bit group is padded with zeros.
    """
    bits = "".join(f"{byte:08b}" for byte in content)
    groups = [int(bits[i : i + 5].ljust(5, "0"), 2) for i in range(0, len(bits), 5)]
    expanded = [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix]
    checksum = _polymod([*expanded, *groups, *[0] * 6]) ^ 1
    groups += [checksum >> shift & 31 for shift in range(25, -1, -5)]
    return f"{prefix}1" + "".join(BECH32[group] for group in groups)


def _polymod(groups: Iterable[int]) -> int:
    """Return the BCH checksum of BIP-173."""
    state = 1
    for group in groups:
        top = state >> 25
        state = (state & 0x1FFFFFF) << 5 ^ group
        for bit, generator in enumerate(BECH32_GENERATOR):
            if top >> bit & 1:
                state ^= generator
    return state


def _spellings(secret: bytes) -> set[str]:
    """Return the usual text forms of bytes: repr, hexadecimal, base64 and UTF-8."""
    found = {
        repr(secret)[2:-1],
        secret.hex(),
        base64.b64encode(secret).decode(),
        base64.urlsafe_b64encode(secret).decode(),
    }
    with contextlib.suppress(UnicodeDecodeError):
        found.add(secret.decode())
    return found


def _passphrases(settings: Settings) -> list[bytes]:
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


def _cipher(secret: bytes, slot: Mapping[str, object]) -> AESGCM:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    if slot["kind"] == "key-file":
        return AESGCM(secret)
    from argon2.low_level import Type, hash_secret_raw

    cost = {name: int(str(slot[name])) for name in ARGON2}
    if any(not 1 <= value <= LIMITS[name] for name, value in cost.items()):
        raise ValueError("Argon2 parameters out of range")
    salt = bytes.fromhex(str(slot["salt"]))
    return AESGCM(hash_secret_raw(secret, salt, hash_len=32, type=Type.ID, **cost))


def _create_key_file(file: Path) -> bytes:
    secret = secrets.token_bytes(32)
    with os_errors(file):
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(file, base64.urlsafe_b64encode(secret) + b"\n")
    return secret


def remove_key_file(file: Path) -> None:
    """Remove the key file of an unfinished home, and partly written copies of it."""
    with os_errors(file):
        for path in (file, *file.parent.glob(f".{file.name}.*")):
            path.unlink(missing_ok=True)


def _read_key_file(file: Path) -> bytes:
    with os_errors(file):
        try:
            mode = file.stat().st_mode
            text = b""
            if stat.S_ISREG(mode):  # others, such as /dev/zero, may never end
                with file.open("rb") as opened:
                    text = opened.read(LARGEST_KEY_FILE)
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
    if len(secret) != 32:  # noqa: PLR2004
        raise WrongKey(f"{file} is not a key file of aico-lab: name the right one.")
    return secret
