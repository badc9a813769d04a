"""Vectors of queries, which the cache keeps while this process has it open."""

from __future__ import annotations

import contextlib
import hashlib
from typing import TYPE_CHECKING

import numpy as np

from aico_lab.embeddings.encoders.base import Encoder
from aico_lab.errors import HomeError, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aico_lab.cache.typed import CacheStore
    from aico_lab.embeddings.encoders.base import Vectors


class QueryEncoder(Encoder):
    """Encodes like another encoder, and keeps the vectors of single texts, as queries are.

    A command that only searches leaves the cache closed, since it would take it from a companion.
    """

    def __init__(self, encoder: Encoder, held: Callable[[], CacheStore | None]) -> None:
        """Use an encoder.

        Args:
            encoder: The encoder.
            held: Returns the cache if this process has it open, else None.
        """
        self.name, self.model, self.dimensions = encoder.name, encoder.model, encoder.dimensions
        self._encoder = encoder
        self._held = held

    def encode_usable(self, texts: Sequence[str]) -> tuple[Vectors, list[bool]]:
        """Encode texts; see `Encoder.encode_usable`."""
        cache = self._held() if len(texts) == 1 else None
        if cache is None:
            return self._encoder.encode_usable(texts)
        said = f"{self.model}\0{texts[0]}".encode(errors="surrogatepass")
        key = f"computed:vector:{hashlib.blake2b(said, digest_size=24).hexdigest()}"
        kept = None
        with contextlib.suppress(StorageError, HomeError):
            kept = cache.get(key)
        if isinstance(kept, bytes) and len(kept) == self.dimensions * 4:
            return np.frombuffer(kept, np.float32).reshape(1, -1), [True]
        vectors, usable = self._encoder.encode_usable(texts)
        if usable == [True]:
            with contextlib.suppress(StorageError, HomeError):
                cache.put(key, vectors[0].astype(np.float32).tobytes())
        return vectors, usable

    def _encode(self, texts: list[str]) -> Vectors:
        return self._encoder._encode(texts)  # noqa: SLF001 - of the same class
