"""The base class of encoders, which checks and scales the vectors of a model."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import numpy as np

from aico_lab.errors import ModelUnusable, UnstorableValue

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]


class Encoder(ABC):
    """Encodes texts as vectors; equal texts get equal vectors, whatever else is encoded.

    Attributes:
        name: The name by which `open_encoder` opens it from every folder.
        model: The name of the model with its version; vectors of other names cannot be compared.
        dimensions: The number of dimensions of every vector.
    """

    name: str
    model: str
    dimensions: int

    def encode_usable(self, texts: Sequence[str]) -> tuple[Vectors, list[bool]]:
        """Encode the texts that are not blank and have a vector with a direction.

        Returns:
            The vectors of the usable texts, in order, each of length 1, as an array of shape
            (usable texts, dimensions); and for each text whether it is usable.

        Raises:
            UnstorableValue: A text is not valid Unicode.
            ModelUnusable: The model fails, or its vectors do not have its dimensions.
        """
        usable = np.array([bool(text.strip()) for text in texts], bool)
        written = [text for text in texts if text.strip()]
        if not written:
            return np.empty((0, self.dimensions), np.float32), usable.tolist()
        for text in written:
            if not _is_unicode(text):
                raise UnstorableValue("A text to encode is not valid Unicode.")
        found = self._checked(self._encode(written), len(written))
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
        sound = np.isfinite(lengths[:, 0]) & (lengths[:, 0] > 0)
        usable[usable] = sound
        return found[sound] / lengths[sound], usable.tolist()

    def _checked(self, vectors: Vectors, count: int) -> Vectors:
        """Return vectors of the model as they are; raise if they do not have its shape."""
        if vectors.shape != (count, self.dimensions):
            raise ModelUnusable(
                f"The model {self.model} returned vectors of the shape {vectors.shape}, not "
                f"{(count, self.dimensions)}: use another model."
            )
        return vectors

    @abstractmethod
    def _encode(self, texts: list[str]) -> Vectors:
        """Return the vectors of texts that are valid and not blank, of any length."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.model}, {self.dimensions} dimensions>"


def _is_unicode(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair
        return False
    return True


def version_of(files: Iterable[Path]) -> str:
    """Return a short digest of a model's files, so that other weights are another model.

    Raises:
        OSError: A file cannot be read.
    """
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:12]
