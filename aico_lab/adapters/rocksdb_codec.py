"""Encode keys and values for RocksDB's files: plain, or hashed and encrypted."""

from __future__ import annotations

import hmac
import os

from aico_lab.errors import CorruptDatabase, InvalidValue

MARK = b"\0aico-lab"
"""The stored key of the entry that identifies the encryption key, or an unencrypted store."""

NAMESPACE_BYTES, NONCE_BYTES, LENGTH_BYTES = 8, 12, 4
MAX_PREFIXES = 1_000


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

    mark = b"plain"

    def recognises(self, mark: bytes) -> bool:
        """Return whether this codec wrote a store's mark."""
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
        self._hash_key = hmac.digest(key, b"keys", "sha256")
        self._cipher = AESGCM(hmac.digest(key, b"values", "sha256"))

    @property
    def mark(self) -> bytes:
        """The mark for a new store."""
        return self.seal(MARK, MARK, b"")

    def recognises(self, mark: bytes) -> bool:
        """Return whether a store's mark was written with this key."""
        try:
            self.open(MARK, mark)
        except CorruptDatabase:
            return False
        return True

    def stored_key(self, key: bytes) -> bytes:
        """Return the hash of a key's namespace, followed by the hash of the key."""
        return self.prefix(namespace_of(key)) + self._hash(b"k", key)

    def prefix(self, namespace: bytes) -> bytes:
        """Return the common prefix of the stored keys of a namespace."""
        known = self._prefixes.get(namespace)
        if known is None:
            known = self._hash(b"n", namespace)[:NAMESPACE_BYTES]
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
            raise CorruptDatabase(
                "An entry of the cache is damaged: delete the cache, nothing else is lost."
            ) from None
        end = LENGTH_BYTES + int.from_bytes(content[:LENGTH_BYTES], "big")
        return content[LENGTH_BYTES:end], content[end:]

    def _hash(self, use: bytes, content: bytes) -> bytes:
        return hmac.digest(self._hash_key, use + content, "sha256")
