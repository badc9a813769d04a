"""Vectors of texts."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from aico_lab.embeddings import DIMENSIONS
from aico_lab.embeddings.encoder import MAX_TOKENS, Encoder
from aico_lab.errors import UnstorableValue

if TYPE_CHECKING:
    from numpy.typing import NDArray

TEXTS = ["the time I felt homesick", "I missed my family abroad", "a recipe for onion soup"]


def encode(texts: list[str]) -> NDArray[np.float32]:
    return Encoder().encode_usable(texts)[0]


@pytest.mark.slow
def test_vectors_have_length_one() -> None:
    """So cosine similarity is the dot product of two vectors."""
    vectors = encode(TEXTS)
    assert vectors.shape == (3, DIMENSIONS)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_what_means_the_same_is_nearer() -> None:
    """A text about homesickness is nearer to missing a family than to soup."""
    homesick, family, soup = encode(TEXTS)
    assert homesick @ family > homesick @ soup


def test_a_vector_depends_on_its_text_alone() -> None:
    """A replay writes the same bytes, whatever the batch."""
    together = encode([*TEXTS * 50, "long " * 300])
    alone = np.vstack([encode([text]) for text in TEXTS])
    assert np.array_equal(together[:3], alone)


@pytest.mark.parametrize("blank", ["", " ", "\n\t  ", "\u00a0"])
def test_a_blank_text_is_left_out(blank: str) -> None:
    """WordLlama itself returns NaN, or a vector of the spaces."""
    vectors, usable = Encoder().encode_usable(["one", blank, "two"])
    assert usable == [True, False, True]
    assert np.array_equal(vectors, encode(["one", "two"]))


def test_nothing_gives_nothing() -> None:
    """Without texts there are no vectors, and no model is loaded."""
    assert encode([]).shape == (0, DIMENSIONS)


@pytest.mark.slow
def test_a_huge_text_needs_no_huge_memory() -> None:
    """Only its beginning counts, because a batch is padded to its longest text."""
    huge = "word " * 100_000
    vectors = encode([huge, *TEXTS])
    assert np.array_equal(vectors[0], encode(["word " * (MAX_TOKENS + 100)])[0])


def test_half_a_surrogate_pair_is_refused() -> None:
    """It is not valid text, and the error does not repeat it."""
    with pytest.raises(UnstorableValue, match="not valid Unicode"):
        encode(["\ud800"])


def test_nothing_is_downloaded_and_logging_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """WordLlama downloads missing files, and sets the root logger to INFO."""
    from aico_lab.embeddings import encoder

    def refuse(*_: object) -> None:
        raise AssertionError("the network was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    encoder._model.cache_clear()
    before = list(logging.getLogger().handlers), logging.getLogger().level
    encode(["hello"])
    assert (list(logging.getLogger().handlers), logging.getLogger().level) == before


@pytest.mark.slow
def test_another_process_gives_the_same_and_its_logging_is_left_alone() -> None:
    """Vectors do not depend on earlier encodings or imports."""
    code = (
        "import logging, sys; from aico_lab.embeddings.encoder import Encoder;"
        f"sys.stdout.buffer.write(Encoder().encode_usable({TEXTS!r})[0].tobytes());"
        "print(logging.getLogger().handlers, logging.getLogger().level, file=sys.stderr)"
    )
    fresh = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert fresh.stdout == encode(TEXTS).tobytes()
    assert fresh.stderr.split() == [b"[]", b"30"]


@pytest.mark.slow
def test_the_model_is_loaded_on_first_use_only() -> None:
    """Importing the module is fast."""
    code = "import sys, aico_lab.embeddings.encoder; print('wordllama' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
