"""WordLlama: a small model that is part of its library.

A vector is the mean of vectors of the text's tokens, which were pooled from a language model and do
not depend on context. It has 256 dimensions, and works best for English.
"""

from __future__ import annotations

import functools
import itertools
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aico_lab.embeddings.encoders.base import Encoder

if TYPE_CHECKING:
    from aico_lab.embeddings.encoders.base import Vectors

MODEL = "wordllama-0.4-256"

DIMENSIONS = 256

MAX_TOKENS = 1024
"""The tokens of a text that count; the rest is cut off."""

BATCH = 4096
"""Texts that are tokenised at a time."""


class WordLlama(Encoder):
    """Encodes texts with WordLlama, which is loaded at the first use, once per process."""

    name = "wordllama"
    model = MODEL
    dimensions = DIMENSIONS

    def _encode(self, texts: list[str]) -> Vectors:
        batches = (texts[start : start + BATCH] for start in range(0, len(texts), BATCH))
        return np.concatenate([_pool(batch) for batch in batches])


def _pool(texts: list[str]) -> Vectors:
    """Return the mean of the vectors of each text's tokens, bit by bit as the library does.

    The library pads each batch to its longest text, which takes four times as long.
    """
    from scipy.sparse import csr_matrix

    model = _model()
    tokens = [
        encoded.ids
        for encoded in model.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    ]
    counts = np.fromiter(map(len, tokens), np.int64, len(tokens))
    ends = np.concatenate([[0], np.cumsum(counts)])
    ids = np.fromiter(itertools.chain.from_iterable(tokens), np.int64, int(ends[-1]))
    np.clip(ids, 0, len(model.embedding) - 1, out=ids)
    ones = np.ones(len(ids), np.float32)
    sums = csr_matrix((ones, ids, ends), shape=(len(tokens), len(model.embedding)))
    means: Vectors = sums @ model.embedding
    means /= np.maximum(counts, 1)[:, None].astype(np.float32)
    return means


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
    model.tokenizer.no_padding()
    return model
