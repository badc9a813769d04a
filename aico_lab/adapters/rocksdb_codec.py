"""How keys and values stand in RocksDB's files: as they are, or hashed and encrypted."""

from __future__ import annotations

import hmac
import os

from aico_lab.errors import CorruptDatabase, InvalidValue

MARK = b"\0aico-lab"
"""The stored key of an entry by which the right key, or a store without one, is known."""

NAMESPACE_BYTES, NONCE_BYTES, LENGTH_BYTES = 8, 12, 4
MAX_PREFIXES = 1_000


def namespace_of(key: bytes) -> bytes:
    """Give what stands before a key's first colon; nothing where it has none."""
    before, colon, _ = key.partition(b":")
    return before if colon else b""


def checked(content: bytes) -> bytes:
    """Give a key or value as it is.

    Raises:
        InvalidValue: It is not bytes.
    """
    if not isinstance(content, bytes):
        raise InvalidValue(f"The cache takes bytes, not {type(content).__name__}: encode it.")
    return content


class PlainCodec:
    """Stores keys and values as they are, behind a byte that keeps keys apart from the mark."""

    mark = b"plain"

    def recognises(self, mark: bytes) -> bool:
        """Say whether a store's mark was written by this codec."""
        return mark == self.mark

    def stored_key(self, key: bytes) -> bytes:
        """Give what stands for a key."""
        return b"=" + key

    def prefix(self, namespace: bytes) -> bytes:
        """Give what the stored keys of a namespace begin with."""
        return b"=" + namespace + b":" if namespace else b"="

    def seal(self, stored_key: bytes, key: bytes, value: bytes) -> bytes:  # noqa: ARG002
        """Give what stands for a value."""
        return value

    def open(self, stored_key: bytes, stored: bytes) -> tuple[bytes, bytes]:
        """Give the true key and value."""
        return stored_key[1:], stored


class SealingCodec:
    """Stores hashes of keys, and keys and values encrypted together."""

    def __init__(self, key: bytes) -> None:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._invalid = InvalidTag
        self._prefixes: dict[bytes, bytes] = {}  # of few namespaces, hashed once
        self._hash_key = hmac.digest(key, b"keys", "sha256")
        self._cipher = AESGCM(hmac.digest(key, b"values", "sha256"))

    @property
    def mark(self) -> bytes:
        """What a new store is marked with."""
        return self.seal(MARK, MARK, b"")

    def recognises(self, mark: bytes) -> bool:
        """Say whether a store's mark was written with this key."""
        try:
            self.open(MARK, mark)
        except CorruptDatabase:
            return False
        return True

    def stored_key(self, key: bytes) -> bytes:
        """Give the hash of a key, behind the hash of its namespace."""
        return self.prefix(namespace_of(key)) + self._hash(b"k", key)

    def prefix(self, namespace: bytes) -> bytes:
        """Give what the stored keys of a namespace begin with."""
        known = self._prefixes.get(namespace)
        if known is None:
            known = self._hash(b"n", namespace)[:NAMESPACE_BYTES]
            if len(self._prefixes) < MAX_PREFIXES:
                self._prefixes[namespace] = known
        return known

    def seal(self, stored_key: bytes, key: bytes, value: bytes) -> bytes:
        """Encrypt a key and its value, bound to where they are stored."""
        # Random nonces are safe for 2^32 values under one key (NIST SP 800-38D).
        nonce = os.urandom(NONCE_BYTES)
        content = len(key).to_bytes(LENGTH_BYTES, "big") + key + value
        return nonce + self._cipher.encrypt(nonce, content, stored_key)

    def open(self, stored_key: bytes, stored: bytes) -> tuple[bytes, bytes]:
        """Decrypt a key and its value.

        Raises:
            CorruptDatabase: They were changed, or lie elsewhere than where they were stored.
        """
        try:
            content = self._cipher.decrypt(stored[:NONCE_BYTES], stored[NONCE_BYTES:], stored_key)
        except (self._invalid, ValueError):
            raise CorruptDatabase(
                "An entry of the cache is damaged: delete the cache, it loses nothing."
            ) from None
        end = LENGTH_BYTES + int.from_bytes(content[:LENGTH_BYTES], "big")
        return content[LENGTH_BYTES:end], content[end:]

    def _hash(self, use: bytes, content: bytes) -> bytes:
        return hmac.digest(self._hash_key, use + content, "sha256")
