"""The slots of a home's key: each wraps the same master key for one credential.

A credential is a secret: a key file, a passphrase, a recovery key, or a secret in the system's
keyring or among systemd's credentials. An X25519 key pair is derived from it, and the master key is
encrypted for the public key, which the slot holds: an ephemeral X25519 key, HKDF-SHA256 and
AES-256-GCM, as age does. So a new master key can be wrapped for all slots while only one credential
is at hand. Argon2id (RFC 9106, the second recommended option) makes guessing a passphrase slow; the
other secrets are random.

Homes of earlier versions have one slot, in which the secret itself wraps the master key.
"""

from __future__ import annotations

import hashlib
import secrets
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal

from aico_lab.home.bech32 import bech32, from_bech32

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

Slot = dict[str, Any]
SlotKind = Literal["key-file", "passphrase", "recovery", "keyring", "credential"]

MASTER_BYTES: Final = 32
ARGON2 = {"time_cost": 3, "memory_cost": 65536, "parallelism": 4}  # memory in KiB
LIMITS: Final = {"time_cost": 16, "memory_cost": 1 << 21, "parallelism": 64}  # of markers
MOST_SLOTS: Final = 32

_RECOVERY: Final = "aico-recovery-"
_RECOVERY_BYTES: Final = 20
_PUBLIC_BYTES: Final = 32


def new_slot(number: int, kind: SlotKind, secret: bytes, home_id: str, master: bytes) -> Slot:
    """Return a slot that wraps the master key for a secret."""
    slot: Slot = {
        "id": number,
        "kind": kind,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    if kind == "passphrase":
        slot |= {"salt": secrets.token_hex(16), **ARGON2}
    slot["public"] = _pair(slot, secret, home_id).public_key().public_bytes_raw().hex()
    slot["wrapped"] = wrap(slot, home_id, master)
    return slot


def wrap(slot: Mapping[str, Any], home_id: str, master: bytes) -> str:
    """Return a master key encrypted for a slot, in hexadecimal digits."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

    once = X25519PrivateKey.generate()
    public = bytes.fromhex(slot["public"])
    shared = once.exchange(X25519PublicKey.from_public_bytes(public))
    ephemeral = once.public_key().public_bytes_raw()
    cipher = _cipher(shared, ephemeral + public)
    sealed: bytes = cipher.encrypt(bytes(12), master, _about(slot, home_id))  # of a key used once
    return (ephemeral + sealed).hex()


def is_of(slot: Mapping[str, Any], secret: bytes, home_id: str) -> bool:
    """Return whether a slot is of a secret; slots of earlier versions do not show it."""
    if "public" not in slot:
        return False
    pair = _pair(slot, secret, home_id)
    return bool(pair.public_key().public_bytes_raw().hex() == slot["public"])


def fingerprint(slot: Mapping[str, Any]) -> str | None:
    """Return a short name of the secret of a slot, by which key files are told apart."""
    public = slot.get("public")
    return hashlib.sha256(bytes.fromhex(public)).hexdigest()[:8] if public else None


def unwrap(
    slot: Mapping[str, Any], secret: bytes, home_id: str, wrapped: tuple[str, ...]
) -> list[bytes] | None:
    """Return master keys that a slot wraps, or None if the slot is of another secret.

    Args:
        slot: The slot.
        secret: The secret.
        home_id: The id of the home, to which the wrapped keys are bound.
        wrapped: The encrypted keys, in hexadecimal digits.

    Raises:
        KeyError: The slot is damaged.
        TypeError: The slot is damaged.
        ValueError: The slot is damaged.
    """
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

    pair = _pair(slot, secret, home_id)
    public = pair.public_key().public_bytes_raw()
    if public != bytes.fromhex(slot["public"]):
        return None
    found = []
    for one in map(bytes.fromhex, wrapped):
        ephemeral, sealed = one[:_PUBLIC_BYTES], one[_PUBLIC_BYTES:]
        shared = pair.exchange(X25519PublicKey.from_public_bytes(ephemeral))
        try:
            cipher = _cipher(shared, ephemeral + public)
            found.append(cipher.decrypt(bytes(12), sealed, _about(slot, home_id)))
        except InvalidTag as damage:
            raise ValueError("a wrapped key") from damage
    return found


def unwrap_former(slot: Mapping[str, Any], secret: bytes, home_id: str) -> bytes | None:
    """Return the master key of a home of an earlier version, or None if another secret wraps it.

    Raises:
        KeyError: The slot is damaged.
        TypeError: The slot is damaged.
        ValueError: The slot is damaged.
    """
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce, wrapped = (bytes.fromhex(slot[name]) for name in ("nonce", "wrapped"))
    key = _stretched(slot, secret) if slot["kind"] == "passphrase" else secret
    try:
        return AESGCM(key).decrypt(nonce, wrapped, home_id.encode())
    except InvalidTag:
        return None


def new_recovery_key() -> str:
    """Return a new recovery key: 160 random bits as text with a checksum, in groups of letters."""
    text = bech32(_RECOVERY, secrets.token_bytes(_RECOVERY_BYTES)).removeprefix(f"{_RECOVERY}1")
    groups = [text[start : start + 5] for start in range(0, len(text), 5)]
    return "-".join([_RECOVERY.removesuffix("-"), *groups])


def read_recovery_key(text: str) -> bytes | None:
    """Return the secret of a recovery key as a person types it; None if the text is not one."""
    letters = "".join(text.lower().split()).replace("-", "")
    name = _RECOVERY.replace("-", "")
    if not letters.startswith(name):
        return None
    return from_bech32(_RECOVERY, f"{_RECOVERY}1{letters.removeprefix(name)}")


def looks_like_recovery_key(text: str) -> bool:
    """Return whether a text begins as recovery keys do, even if it has a typing error."""
    letters = "".join(text.lower().split()).replace("-", "")
    return letters.startswith(_RECOVERY.replace("-", ""))


def _pair(slot: Mapping[str, Any], secret: bytes, home_id: str) -> X25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    if slot["kind"] == "passphrase":
        return X25519PrivateKey.from_private_bytes(_stretched(slot, secret))
    derive = HKDF(SHA256(), length=32, salt=home_id.encode(), info=b"aico-lab/slot/v2")
    return X25519PrivateKey.from_private_bytes(derive.derive(secret))


def _stretched(slot: Mapping[str, Any], secret: bytes) -> bytes:
    from argon2.low_level import Type, hash_secret_raw

    cost = {name: int(str(slot[name])) for name in ARGON2}
    if any(not 1 <= value <= LIMITS[name] for name, value in cost.items()):
        raise ValueError("Argon2 parameters out of range")
    salt = bytes.fromhex(slot["salt"])
    return hash_secret_raw(secret, salt, hash_len=32, type=Type.ID, **cost)


def _cipher(shared: bytes, publics: bytes) -> Any:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    derive = HKDF(SHA256(), length=32, salt=publics, info=b"aico-lab/wrap/v2")
    return AESGCM(derive.derive(shared))


def _about(slot: Mapping[str, Any], home_id: str) -> bytes:
    return f"{home_id}/{slot['id']}/{slot['kind']}".encode()
