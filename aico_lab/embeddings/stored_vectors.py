"""Store vectors by model and text in libSQL, so that no text is encoded twice.

Rebuilding an index, exploring, and comparing models read these vectors.
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
"""The number of texts that are encoded, and whose vectors are stored, in one transaction."""

READ = 500
"""The number of hashes in one query."""

NOT_SCALED = 1e-3
"""A vector whose squared length differs from 1 by at least this was not scaled to length 1."""


def text_sha256(text: str) -> bytes:
    """Return the SHA-256 of a text, the key of its vector."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()


def read_vectors(
    connection: Connection, model: str, dimensions: int, keys: Sequence[bytes]
) -> dict[bytes, Vectors]:
    """Return the stored vectors of texts by the hashes of the texts.

    Vectors that another program damaged are left out: those of another size or length.

    Args:
        connection: The primary database.
        model: The model that made the vectors.
        dimensions: The number of dimensions of its vectors.
        keys: The hashes of the texts.
    """
    found: dict[bytes, Vectors] = {}
    for start in range(0, len(keys), READ):
        part = keys[start : start + READ]
        rows = connection.fetch_all(
            "SELECT text_sha256, vector FROM text_vectors WHERE model = ? "
            "AND typeof(vector) = 'blob' AND length(vector) = ? "
            f"AND text_sha256 IN ({', '.join('?' * len(part))})",
            [model, 4 * dimensions, *part],
        )
        if rows:
            packed = np.frombuffer(b"".join(vector for _, vector in rows), "<f4")
            vectors = packed.reshape(len(rows), dimensions).astype(np.float32)
            squares = np.einsum("ij,ij->i", vectors, vectors)
            scaled = np.abs(squares - 1) < NOT_SCALED  # false for NaN
            found.update((rows[at][0], vectors[at]) for at in np.flatnonzero(scaled).tolist())
    return found


class StoredVectors:
    """The vectors of one encoder's model in the primary database."""

    def __init__(self, connection: Connection, encoder: Encoder) -> None:
        """Keep the arguments; nothing is read yet.

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

        Each batch is committed, so that vectors encoded before an interruption stay.

        Args:
            texts: The texts.
            progress: Called with the number of distinct texts that were looked up or encoded, and
                their total.

        Returns:
            As `Encoder.encode_usable`: vectors of shape (usable texts, dimensions), and for each
            text whether it is usable.

        Raises:
            UnstorableValue: A text is not valid Unicode.
            ModelUnusable: The model fails.
        """
        keys = [text_sha256(text) for text in texts]
        distinct = {key: text for key, text in zip(keys, texts, strict=True) if text.strip()}
        known = read_vectors(
            self._connection, self._encoder.model, self._encoder.dimensions, list(distinct)
        )
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
