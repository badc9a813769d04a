"""Encode texts as vectors with a small model that is part of its library, without a download.

The model is WordLlama's: 256 dimensions, pooled from the token embeddings of a language model,
which do not depend on context. It works best for English.
"""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aico_lab.embeddings import DIMENSIONS
from aico_lab.errors import UnstorableValue

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MODEL = "wordllama-0.4-256"

MAX_TOKENS = 1024
"""The tokens of a text that count; the rest is cut off, because a batch must fit into memory."""

BATCH = 64


class Encoder:
    """Encodes texts as vectors; equal texts get equal vectors in every batch."""

    def encode_usable(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], list[bool]]:
        """Encode the texts that are not blank and have a vector with a direction.

        Returns:
            The vectors of the usable texts, in order, each of length 1, as an array of shape
            (usable texts, 256); and for each text whether it is usable.

        Raises:
            UnstorableValue: A text is not valid Unicode.
        """
        if not texts:
            return np.empty((0, DIMENSIONS), np.float32), []
        try:
            vectors: NDArray[np.float32] = _model().embed(list(texts), batch_size=BATCH)
        except TypeError as error:  # the tokenizer's error for half a surrogate pair
            raise UnstorableValue("A text to encode is not valid Unicode.") from error
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        usable = (lengths[:, 0] > 0) & np.array([bool(text.strip()) for text in texts])
        return vectors[usable] / lengths[usable], usable.tolist()


@functools.cache
def _model() -> Any:
    """Load the model, once per process, from the library's own folder."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    import wordllama

    root.handlers[:], root.level = handlers, level  # undo the logging setup of the import
    folder = Path(wordllama.__file__).parent
    model = wordllama.WordLlama.load(cache_dir=folder, disable_download=True)
    model.tokenizer.enable_truncation(MAX_TOKENS)
    return model
