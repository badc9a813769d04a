"""Vectors for texts, from a small model that ships with its library: nothing is downloaded.

The model is WordLlama's: 256 dimensions, pooled from the token embeddings of a language model, with
no context of its own. It knows English best.
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
"""Of a longer text, the first so many tokens count: memory is needed for all of a batch at once."""

BATCH = 64


class Encoder:
    """Gives texts their vectors; equal texts get equal ones, whatever is encoded beside them."""

    def encode_usable(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], list[bool]]:
        """Give a vector to each text that has something to encode.

        A blank text has nothing, and its vector would have no direction.

        Returns:
            The vectors of the usable texts, in order, each of length 1, and which texts these are.

        Raises:
            UnstorableValue: A text is not valid Unicode.
        """
        if not texts:
            return np.empty((0, DIMENSIONS), np.float32), []
        try:
            vectors: NDArray[np.float32] = _model().embed(list(texts), batch_size=BATCH)
        except TypeError as error:  # what the tokenizer says of half a surrogate pair
            raise UnstorableValue("A text to encode is not valid Unicode.") from error
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        usable = (lengths[:, 0] > 0) & np.array([bool(text.strip()) for text in texts])
        return vectors[usable] / lengths[usable], usable.tolist()


@functools.cache
def _model() -> Any:
    """Load the model once for the process; the library looks for its own files elsewhere."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    import wordllama

    root.handlers[:], root.level = handlers, level  # importing it sets up logging for everybody
    folder = Path(wordllama.__file__).parent
    model = wordllama.WordLlama.load(cache_dir=folder, disable_download=True)
    model.tokenizer.enable_truncation(MAX_TOKENS)
    return model
