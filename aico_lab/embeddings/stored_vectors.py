"""Vectors by model and text, in libSQL, so that no text is encoded twice.

Rebuilding an index, exploring, and comparing models read vectors from here.
`aico_lab.embeddings.text_index` deletes the vectors of texts that no longer exist.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aico_lab.adapters.libsql import Connection
    from aico_lab.embeddings.encoders import Encoder
    from aico_lab.embeddings.encoders.base import Vectors

BATCH = 2_000
"""Texts that are encoded, and whose vectors are stored, at a time."""

READ = 500
"""Hashes in one query."""


def text_sha256(text: str) -> bytes:
    """Return the key of a text's vector."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()


class StoredVectors:
    """The vectors of one encoder's model in the primary database."""

    def __init__(self, connection: Connection, encoder: Encoder) -> None:
        """Make the object; nothing is read yet.

        Args:
            connection: The primary database, outside a snapshot.
            encoder: Encodes the texts that have no vector yet.
        """
        self._connection = connection
        self._encoder = encoder

    def of(
        self, texts: Sequence[str], progress: Callable[[int, int], None] | None = None
    ) -> tuple[Vectors, list[bool]]:
        """Return the vectors of texts; those that are not stored are encoded and stored.

        Each batch is committed, so that what was encoded before an interruption stays.

        Args:
            texts: The texts.
            progress: Called with the number of distinct texts that have a vector, or cannot have
                one, and their total.

        Returns:
            As `Encoder.encode_usable`: vectors of shape (usable texts, dimensions), and for each
            text whether it is usable.

        Raises:
            UnstorableValue: A text is not valid Unicode.
            ModelUnusable: The model fails.
        """
        keys = [text_sha256(text) for text in texts]
        distinct = {key: text for key, text in zip(keys, texts, strict=True) if text.strip()}
        known = self._read(list(distinct))
        unknown = [key for key in distinct if key not in known]
        done = len(distinct) - len(unknown)
        for start in range(0, len(unknown), BATCH):
            batch = unknown[start : start + BATCH]
            vectors, usable = self._encoder.encode_usable([distinct[key] for key in batch])
            kept = [key for key, use in zip(batch, usable, strict=True) if use]
            self._write(kept, vectors)
            known.update(zip(kept, vectors, strict=True))
            if progress:
                progress(done + start + len(batch), len(distinct))
        found = [known.get(key) for key in keys]
        result = np.empty((sum(one is not None for one in found), self._encoder.dimensions),
                          np.float32)  # fmt: skip
        for row, vector in enumerate(one for one in found if one is not None):
            result[row] = vector
        return result, [one is not None for one in found]

    def _read(self, keys: Sequence[bytes]) -> dict[bytes, Vectors]:
        """Return the stored vectors that have the model's dimensions and length 1."""
        found: dict[bytes, Vectors] = {}
        size = 4 * self._encoder.dimensions
        for start in range(0, len(keys), READ):
            part = keys[start : start + READ]
            rows = self._connection.fetch_all(
                "SELECT text_sha256, vector FROM text_vectors WHERE model = ? "
                f"AND text_sha256 IN ({', '.join('?' * len(part))})",
                [self._encoder.model, *part],
            )
            sound = [(key, vector) for key, vector in rows if _is_packed(vector, size)]
            if sound:
                vectors = np.frombuffer(b"".join(vector for _, vector in sound), "<f4")
                vectors = vectors.reshape(len(sound), -1).astype(np.float32)
                lengths = np.einsum("ij,ij->i", vectors, vectors)
                usable = np.isclose(lengths, 1, atol=1e-4)  # not NaN, nor another program's
                found.update(
                    (key, vector)
                    for (key, _), vector, use in zip(sound, vectors, usable, strict=True)
                    if use
                )
        return found

    def _write(self, keys: Sequence[bytes], vectors: Vectors) -> None:
        self._connection.insert_many(
            "text_vectors",
            ("model", "text_sha256", "dimensions", "vector"),
            [
                (self._encoder.model, key, self._encoder.dimensions, vector.tobytes())
                for key, vector in zip(keys, vectors.astype("<f4"), strict=True)
            ],
            on_conflict="ON CONFLICT (model, text_sha256) DO UPDATE "
            "SET dimensions = excluded.dimensions, vector = excluded.vector",
        )


def _is_packed(vector: object, size: int) -> bool:
    return isinstance(vector, bytes) and len(vector) == size
