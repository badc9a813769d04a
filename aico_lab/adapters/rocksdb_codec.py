"""Encode keys and values for RocksDB's files: plain, or hashed and encrypted."""

from __future__ import annotations

import hashlib
import hmac
import os

from aico_lab.errors import CorruptDatabase, InvalidValue

MARK = b"\0aico-lab"
"""The stored key of the entry that identifies the encryption key, or an unencrypted store."""

FORMAT = b"2"
"""The format of the entries, which the mark of an encrypted store contains.

Marks of the first format are empty: its keys were hashed otherwise, so nothing would find them.
"""

NAMESPACE_BYTES, KEY_BYTES, NONCE_BYTES, LENGTH_BYTES = 8, 16, 12, 4
MAX_PREFIXES = 1_000

_FORMER = (
    "The cache is of an earlier version of this program: run `aico-lab sync`, which replaces it."
)
_DAMAGED = "An entry of the cache is damaged: delete the cache, nothing else is lost."


class FormerFormat(CorruptDatabase):
    """The store has the format of an earlier version of this program."""


def namespace_of(key: bytes) -> bytes:
    """Return the part before a key's first colon, or empty bytes if the key has no colon."""
    before, colon, _ = key.partition(b":")
    return before if colon else b""


def checked(content: bytes) -> bytes:
    """Return a key or value unchanged if it is bytes.

    Raises:
        InvalidValue: The content is not bytes.
    """
    if not isinstance(content, bytes):
        raise InvalidValue(f"The cache takes bytes, not {type(content).__name__}: encode it.")
    return content


class PlainCodec:
    """Stores plain keys and values; a first byte distinguishes keys from the mark."""

    mark = b"plain" + FORMAT

    def recognises(self, mark: bytes) -> bool:
        """Return whether this codec wrote a store's mark.

        Raises:
            FormerFormat: The store has the format of an earlier version.
        """
        if mark == b"plain":
            raise FormerFormat(_FORMER)
        return mark == self.mark

    def stored_key(self, key: bytes) -> bytes:
        """Return the stored form of a key."""
        return b"=" + key

    def prefix(self, namespace: bytes) -> bytes:
        """Return the common prefix of the stored keys of a namespace."""
        return b"=" + namespace + b":" if namespace else b"="

    def seal(self, stored_key: bytes, key: bytes, value: bytes) -> bytes:  # noqa: ARG002
        """Return the stored form of a value."""
        return value

    def open(self, stored_key: bytes, stored: bytes) -> tuple[bytes, bytes]:
        """Return the true key and value."""
        return stored_key[1:], stored


class SealingCodec:
    """Stores hashes of keys, and keys and values encrypted together."""

    def __init__(self, key: bytes) -> None:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._invalid = InvalidTag
        self._prefixes: dict[bytes, bytes] = {}  # by namespace, to hash each only once
        # Keyed BLAKE2b takes a quarter of the time of HMAC-SHA256, and copying it half of that.
        self._hash = hashlib.blake2b(
            key=hmac.digest(key, b"keys 2", "sha256"), digest_size=KEY_BYTES
        )
        self._cipher = AESGCM(hmac.digest(key, b"values", "sha256"))

    @property
    def mark(self) -> bytes:
        """The mark for a new store."""
        return self.seal(MARK, MARK, FORMAT)

    def recognises(self, mark: bytes) -> bool:
        """Return whether a store's mark was written with this key.

        Raises:
            FormerFormat: The store has the format of an earlier version.
        """
        try:
            _, written = self.open(MARK, mark)
        except CorruptDatabase:
            return False
        if written != FORMAT:
            raise FormerFormat(_FORMER)
        return True

    def stored_key(self, key: bytes) -> bytes:
        """Return the hash of a key's namespace, followed by the hash of the key."""
        before, colon, _ = key.partition(b":")
        prefix = self._prefixes.get(before) if colon else None
        hashed = self._hash.copy()
        hashed.update(b"k" + key)
        return (prefix or self.prefix(namespace_of(key))) + hashed.digest()

    def prefix(self, namespace: bytes) -> bytes:
        """Return the common prefix of the stored keys of a namespace."""
        known = self._prefixes.get(namespace)
        if known is None:
            hashed = self._hash.copy()
            hashed.update(b"n" + namespace)
            known = hashed.digest()[:NAMESPACE_BYTES]
            if len(self._prefixes) < MAX_PREFIXES:
                self._prefixes[namespace] = known
        return known

    def seal(self, stored_key: bytes, key: bytes, value: bytes) -> bytes:
        """Encrypt a key and its value, authenticated with their stored key."""
        # Random nonces are safe for 2^32 values under one key (NIST SP 800-38D).
        nonce = os.urandom(NONCE_BYTES)
        content = len(key).to_bytes(LENGTH_BYTES, "big") + key + value
        return nonce + self._cipher.encrypt(nonce, content, stored_key)

    def open(self, stored_key: bytes, stored: bytes) -> tuple[bytes, bytes]:
        """Decrypt a key and its value.

        Raises:
            CorruptDatabase: The entry was changed, or moved to another stored key.
        """
        try:
            content = self._cipher.decrypt(stored[:NONCE_BYTES], stored[NONCE_BYTES:], stored_key)
        except (self._invalid, ValueError):
            raise CorruptDatabase(_DAMAGED) from None
        end = LENGTH_BYTES + int.from_bytes(content[:LENGTH_BYTES], "big")
        return content[LENGTH_BYTES:end], content[end:]
