"""The keys of a home, and the marker that wraps them.

A home has one random master key, from which HKDF-SHA256 (RFC 5869) derives a key for each store.
Slots in `lab.json` wrap the master key, each for one credential, so a wrong credential is noticed
before any database is opened, and a new credential needs no new databases. A digest with a key
derived from the master key shows whether the slots were altered.
"""

from __future__ import annotations

import base64
import contextlib
import hmac
import json
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from aico_lab.config import KEY_FILE_VARIABLE, PASSPHRASE_VARIABLE, usual_key_file
from aico_lab.errors import HomeMissing, InvalidValue, KeyMissing, MarkerAltered, WrongKey
from aico_lab.home import slots as wrapping
from aico_lab.home.bech32 import bech32
from aico_lab.home.credentials import (
    Protection,
    check_credentials,
    create_key_file,
    passphrases,
    read_key_file,
)
from aico_lab.home.handover import received
from aico_lab.home.known import refuse_plain
from aico_lab.home.slots import MASTER_BYTES, MOST_SLOTS, Slot
from aico_lab.home.staged import has_old_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from aico_lab.config import Settings

Marker = dict[str, Any]

KEY_BYTES: Final = {"libsql": 24, "duckdb": 32, "chroma": 32, "rocksdb": 32}
OTHER_KEY_BYTES: Final = 32
OTHER_PURPOSES: Final = ("answers", "integrity", "receipts", "backup", "marker", "carried")
SWITCHING: Final = "switching"
"""The phase of a rotation in which files are renamed."""

UNFINISHED: Final = "A change of the key was interrupted: run `aico-lab keys rotate` to finish it."

_NONCE: Final = 12
_DAMAGED_SLOT: Final = (KeyError, TypeError, ValueError, AttributeError)
_FILES: Final = ("key-file", "credential")
_TYPED: Final = ("passphrase", "recovery")


@dataclass(frozen=True, slots=True)
class Keys:
    """The opened keys of a home; each method returns the key of a store, or None if unencrypted."""

    master: bytes | None = field(repr=False)
    credential: bytes | None = field(default=None, repr=False)
    """The secret that unwrapped the master key: the passphrase or the decoded key file."""

    former: bytes | None = field(default=None, repr=False)
    """The master key before, while a rotation is unfinished."""

    carried: bytes | None = field(default=None, repr=False)
    """The key of receipts, if it is older than the master key; see `receipts`."""

    home: Path | None = None
    """The folder whose files show which stores still have the former key; None for all of them."""

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
        return self._derive("answers", OTHER_KEY_BYTES)

    def integrity(self) -> bytes | None:
        """Return the key of digests by which altered rows are noticed: 256 bits."""
        return self._derive("integrity", OTHER_KEY_BYTES)

    def receipts(self) -> bytes | None:
        """Return the key that signs receipts of erasures: 256 bits.

        A rotation leaves it as it is: receipts name erased people only by keyed hashes, which
        nobody could compute anew.
        """
        master = self.former or self.master
        if self.carried is not None or master is None:
            return self.carried
        return derive(master, "receipts", OTHER_KEY_BYTES)

    def backup(self) -> bytes | None:
        """Return the key of backups: 256 bits."""
        return self._derive("backup", OTHER_KEY_BYTES)

    def new(self) -> Keys:
        """Return the keys that all stores have after the unfinished rotation."""
        return Keys(self.master)

    def old(self) -> Keys:
        """Return the keys that all stores had before the unfinished rotation."""
        return Keys(self.former)

    def texts(self) -> set[str]:
        """Return every text form of the keys and the credential, to redact them from files."""
        texts: set[str] = set()
        for keys in (self.new(), self.old()):
            texts |= {text for text in (keys.libsql(), keys.duckdb(), keys.chroma()) if text}
        for secret in self.secrets():
            texts |= _spellings(secret)
        return texts

    def secrets(self) -> set[bytes]:
        """Return the bytes of all keys and of the credential, to look for them in files."""
        found = {self.credential, self.carried}
        for master in filter(None, (self.master, self.former)):
            lengths = KEY_BYTES | dict.fromkeys(OTHER_PURPOSES, OTHER_KEY_BYTES)
            found |= {master, *(derive(master, name, length) for name, length in lengths.items())}
        return {secret for secret in found if secret}

    def _derive(self, store: str, length: int) -> bytes | None:
        master = self.master
        if self.former is not None and (self.home is None or has_old_key(self.home, store)):
            master = self.former
        return None if master is None else derive(master, store, length)


def derive(master: bytes, purpose: str, length: int) -> bytes:
    """Return the key of a purpose."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    info = f"aico-lab/{purpose}/v1".encode()
    return HKDF(SHA256(), length=length, salt=None, info=info).derive(master)


def create_keys(home_id: str, protection: Protection, settings: Settings) -> tuple[Keys, Marker]:
    """Create a master key and wrap it with a key file or a passphrase.

    Args:
        home_id: The id of the home, to which the wrapped key is bound.
        protection: 'key-file', 'passphrase' or 'none'.
        settings: The path of the key file, created if it does not exist, or the passphrase.

    Returns:
        The keys, and the home's marker, for `lab.json`.

    Raises:
        KeyMissing: The protection is 'passphrase', but no passphrase was given.
        InvalidValue: The passphrase or the key file is unsuitable: see `check_credentials`.
        KeyFileExposed: Other users can read the key file.
        WrongKey: The file exists, and is not a key file.
    """
    check_credentials(protection, settings)
    if protection == "none":
        return Keys(None), {"home_id": home_id, "slots": [{"id": 1, "kind": "none"}]}
    if protection == "key-file":
        file = settings.key_file or usual_key_file(home_id)
        secret = read_key_file(file) if file.exists() else create_key_file(file)
    else:
        secret = passphrases(settings)[0]
    master = new_master()
    slot = wrapping.new_slot(1, protection, secret, home_id, master)
    return Keys(master, secret), signed({"home_id": home_id, "slots": [slot]}, master)


def new_master() -> bytes:
    """Return a new master key."""
    return secrets.token_bytes(MASTER_BYTES)


def signed(marker: Mapping[str, Any], master: bytes) -> Marker:
    """Return a marker with its digest, by which an alteration is noticed."""
    return {**marker, "digest": _digest(marker, master)}


def _digest(marker: Mapping[str, Any], master: bytes) -> str:
    about = {name: value for name, value in marker.items() if name not in {"digest", "format"}}
    content = json.dumps(about, sort_keys=True, separators=(",", ":")).encode()
    return hmac.digest(derive(master, "marker", OTHER_KEY_BYTES), content, "sha256").hex()


def slots_of(marker: Mapping[str, Any]) -> list[Slot]:
    """Return the slots of a home; the single slot of a home of an earlier version has the number 1.

    Raises:
        ValueError: The marker is damaged.
    """
    found = marker.get("slots", [marker.get("key")])
    if not isinstance(found, list) or not 0 < len(found) <= MOST_SLOTS:
        raise ValueError("no slots")
    for slot in found:
        if not isinstance(slot, dict) or not isinstance(slot.get("kind"), str):
            raise ValueError("no slot")  # noqa: TRY004 - as for other damage
    return [{"id": 1, **slot} for slot in found]


def is_of_former_version(marker: Mapping[str, Any]) -> bool:
    """Return whether a home has the single slot of earlier versions."""
    return "slots" not in marker


def kinds_of(marker: Mapping[str, Any]) -> set[str]:
    """Return the kinds of credentials that open a home; none if the marker is damaged."""
    with contextlib.suppress(ValueError):
        return {slot["kind"] for slot in slots_of(marker)}
    return set()


def open_keys(marker: Mapping[str, Any], settings: Settings) -> Keys:
    """Unwrap the master key of a home.

    Args:
        marker: The home's `lab.json`.
        settings: The path of the key file, the passphrase, or the secret of the keyring.

    Raises:
        KeyMissing: The key file does not exist, or no passphrase was given.
        KeyFileExposed: Other users can read the key file.
        WrongKey: The key file or passphrase does not open this home.
        InvalidValue: A passphrase or key file was given but does not protect this home, or the
            passphrase is not valid text.
        MarkerAltered: The slots were altered.
        HomeMissing: The marker is damaged.
    """
    home_id = str(marker.get("home_id"))
    try:
        kinds = {slot["kind"] for slot in slots_of(marker)}
        if kinds == {"none"}:
            refuse_plain(marker, settings.home)
        _refuse_superfluous(kinds, settings)
        if kinds == {"none"}:
            return Keys(None)
        handed = None if settings.passphrase else received(home_id)
        if handed is not None:
            keys = Keys(handed.master, None, handed.former)
        else:
            keys = _unlocked(marker, home_id, settings)
        is_true = _is_true(marker, keys.former or keys.master)
    except _DAMAGED_SLOT as damaged:
        raise HomeMissing(
            f"The lab.json of {settings.home} is damaged: restore it from a backup; "
            "without it the home's key cannot be unwrapped."
        ) from damaged
    if not is_true and handed is not None:
        raise WrongKey(
            f"The key of {settings.home} was changed since this process was started: restart the "
            "kernel."
        )
    if not is_true:
        raise MarkerAltered(
            f"The lab.json of {settings.home} was altered by another program: restore it from a "
            "backup."
        )
    switching = (marker.get("rotation") or {}).get("phase") == SWITCHING
    return Keys(
        keys.master,
        keys.credential,
        keys.former,
        _carried(marker, keys.former or keys.master),
        settings.home if switching else None,
    )


def carry(receipts: bytes, master: bytes) -> str:
    """Return the key of receipts, encrypted for the marker of a home with a new master key."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce = secrets.token_bytes(_NONCE)
    sealed = AESGCM(derive(master, "carried", OTHER_KEY_BYTES)).encrypt(nonce, receipts, None)
    return (nonce + sealed).hex()


def _carried(marker: Mapping[str, Any], master: bytes | None) -> bytes | None:
    """Return the key of receipts that a marker carries, or None; its digest was checked before."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    if master is None or "carried" not in marker:
        return None
    content = bytes.fromhex(marker["carried"])
    cipher = AESGCM(derive(master, "carried", OTHER_KEY_BYTES))
    return cipher.decrypt(content[:_NONCE], content[_NONCE:], None)


def _is_true(marker: Mapping[str, Any], master: bytes | None) -> bool:
    """Return whether a marker has its digest; those of earlier versions have none."""
    if is_of_former_version(marker) or master is None:
        return True
    return hmac.compare_digest(str(marker["digest"]), _digest(marker, master))


def _refuse_superfluous(kinds: set[str], settings: Settings) -> None:
    """Raise InvalidValue if a credential was given of a kind that no slot has."""
    if settings.passphrase and not kinds & {*_TYPED}:
        raise InvalidValue(
            f"{settings.home} is not opened by a passphrase: leave the passphrase out, "
            f"or unset {PASSPHRASE_VARIABLE}."
        )
    if settings.key_file and not kinds & {*_FILES}:
        raise InvalidValue(
            f"{settings.home} is not opened by a key file: leave the key file out, "
            f"or unset {KEY_FILE_VARIABLE}."
        )


def _unlocked(marker: Mapping[str, Any], home_id: str, settings: Settings) -> Keys:
    """Return the keys that the first credential opens, of those that were given or are usual."""
    slots = slots_of(marker)
    kinds = {slot["kind"] for slot in slots}
    refusal = ""
    for credential, remedy, accepted, read in _credentials(kinds, home_id, settings):
        refusal = refusal or f"{credential} does not open {settings.home}: {remedy}"
        for secret in read():
            for slot in slots:
                if slot["kind"] in accepted and (keys := _opened(marker, slot, secret, home_id)):
                    return keys
    if refusal:
        others = {*_TYPED} & kinds if not (settings.key_file or settings.passphrase) else set()
        raise WrongKey(f"{refusal}{f'; or {_typed_way(others)}' if others else ''}.")
    raise KeyMissing(_missing(kinds, home_id, settings))


def _credentials(
    kinds: set[str], home_id: str, settings: Settings
) -> Iterator[tuple[str, str, tuple[str, ...], Callable[[], list[bytes]]]]:
    """Yield the credentials to try: their names, remedies, kinds of slots, and how to read them."""
    usual = usual_key_file(home_id)
    remedy = "set {} to the right one".format
    if file := settings.key_file:
        yield (
            f"The key file {file}",
            remedy(KEY_FILE_VARIABLE),
            _FILES,
            lambda: [read_key_file(file)],
        )
    if settings.passphrase:
        yield "The passphrase", remedy(PASSPHRASE_VARIABLE), _TYPED, lambda: _typed(kinds, settings)
    if settings.key_file or settings.passphrase:
        return
    if "key-file" in kinds and (kinds == {"key-file"} or usual.exists()):
        yield (
            f"The key file {usual}",
            remedy(KEY_FILE_VARIABLE),
            ("key-file",),
            lambda: [read_key_file(usual)],
        )
    if (kept := settings.keyring_secret) is not None:
        add = "run `aico-lab keys add keyring`"
        yield "The secret in the keyring", add, ("keyring",), lambda: [kept]


def _typed(kinds: set[str], settings: Settings) -> list[bytes]:
    """Return the secrets of a passphrase, or of a recovery key that was typed in its place.

    Raises:
        WrongKey: A recovery key has a typing error.
    """
    typed = settings.passphrase or ""
    if "recovery" in kinds:
        if (recovery := wrapping.read_recovery_key(typed)) is not None:
            return [recovery]
        if wrapping.looks_like_recovery_key(typed):
            raise WrongKey("The recovery key has a typing error: compare it with your copy.")
    return passphrases(settings) if "passphrase" in kinds else []


def _opened(marker: Mapping[str, Any], slot: Slot, secret: bytes, home_id: str) -> Keys | None:
    if is_of_former_version(marker):
        master = wrapping.unwrap_former(slot, secret, home_id)
        return None if master is None else Keys(master, secret)
    rotation = marker.get("rotation")
    wrapped = [slot["wrapped"]] + ([rotation["wrapped"][str(slot["id"])]] if rotation else [])
    found = wrapping.unwrap(slot, secret, home_id, tuple(wrapped))
    if found is None:
        return None
    return Keys(found[-1], secret, found[0] if rotation else None)


def _missing(kinds: set[str], home_id: str, settings: Settings) -> str:
    """Return a sentence about the credentials that would open a home."""
    ways = []
    if kinds & {*_FILES}:
        ways.append(f"restore the key file {usual_key_file(home_id)}, or name one with --key-file")
    if kinds & {*_TYPED}:
        ways.append(_typed_way(kinds))
    if "keyring" in kinds:
        ways.append("let the keyring be asked by AICO_LAB_KEYRING=1")
    if kinds == {"passphrase"}:
        return (
            f"{settings.home} is protected by a passphrase: set {PASSPHRASE_VARIABLE}, or pass the "
            "passphrase to Lab.open()."
        )
    return f"{settings.home} needs a key: {'; or '.join(ways)}."


def _typed_way(kinds: set[str]) -> str:
    names = {"passphrase": "the passphrase", "recovery": "the recovery key"}
    named = " or ".join(name for kind, name in names.items() if kind in kinds)
    return f"set {PASSPHRASE_VARIABLE} to {named}"


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
