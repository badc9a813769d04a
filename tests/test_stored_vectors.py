"""Vectors in libSQL: no text is encoded twice, and none outlives its text."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np
import pytest

from aico_lab.embeddings.encoders import Encoder
from aico_lab.embeddings.encoders.wordllama import WordLlama
from aico_lab.embeddings.stored_vectors import StoredVectors, read_vectors, text_sha256
from aico_lab.embeddings.text_index import refresh
from aico_lab.errors import UnstorableValue
from tests.databases import with_core_schemas
from tests.messages import add_memories

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from aico_lab.adapters.libsql import Connection

TEXTS = ["onion soup", "", "homesick", "onion soup", " \n"]


class Counting(Encoder):
    """WordLlama's vectors, or part of each; it notes the texts that it encodes."""

    def __init__(self, model: str = "counting", dimensions: int = 256) -> None:
        self.model, self.dimensions = model, dimensions
        self.encoded: list[str] = []

    def _encode(self, texts):
        self.encoded += texts
        return WordLlama()._encode(texts)[:, : self.dimensions]


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    with with_core_schemas(tmp_path / "a.db").connect() as opened:
        yield opened


def test_a_text_is_encoded_once(connection):
    """Twice in one call or in two, or by another object; blank texts never."""
    encoder = Counting()
    vectors, usable = StoredVectors(connection, encoder).of(TEXTS)
    assert usable == [True, False, True, True, False]
    assert np.array_equal(vectors, Counting().encode_usable(TEXTS)[0])
    again = StoredVectors(connection, encoder).of([*TEXTS, "new"])[0]
    assert np.array_equal(again[:3], vectors)
    assert sorted(encoder.encoded) == ["homesick", "new", "onion soup"]
    assert StoredVectors(connection, encoder).of([])[0].shape == (0, 256)


def test_models_are_kept_apart_with_their_dimensions(connection):
    small, large = Counting("small", 16), Counting("large", 256)
    for encoder in (small, large, small, large):
        vectors, _ = StoredVectors(connection, encoder).of(TEXTS)
        assert vectors.shape == (3, encoder.dimensions)
    assert len(small.encoded) == len(large.encoded) == 2
    assert connection.fetch_all(
        "SELECT model, dimensions, length(vector), count(*) FROM text_vectors GROUP BY 1 ORDER BY 1"
    ) == [("large", 256, 1024, 2), ("small", 16, 64, 2)]


@pytest.mark.parametrize(
    "foreign", [b"", b"x", struct.pack("<2f", 1, 0), struct.pack("<256f", *[np.nan] * 256),
                struct.pack("<256f", *[1e30] * 256), "text", "t" * 1024],
    ids=["empty", "odd", "short", "NaN", "long", "text", "text of that size"],
)  # fmt: skip
def test_a_vector_that_another_program_wrote_wrongly_is_made_again(connection, foreign):
    """A search leaves it out, and compares the others."""
    encoder = Counting()
    expected, _ = StoredVectors(connection, encoder).of(TEXTS)
    connection.execute("UPDATE text_vectors SET vector = ?", [foreign])
    assert read_vectors(connection, "counting", 256, [text_sha256("homesick")]) == {}
    for _ in range(2):
        found, _ = StoredVectors(connection, encoder).of(TEXTS)
        assert np.array_equal(found, expected)
    assert len(encoder.encoded) == 4


def test_vectors_of_texts_that_are_gone_are_deleted_for_every_model(connection):
    """A vector can be inverted to something close to its text; an exploration stores some, too."""
    add_memories(connection, "homesick", "never seen")
    for model in ("a", "b"):
        StoredVectors(connection, Counting(model)).of(TEXTS)
    refresh(connection, Counting("a"))
    rows = "SELECT model, text_sha256 FROM text_vectors ORDER BY 1, 2"
    kept = [("a", text_sha256(text)) for text in ("homesick", "never seen")]
    assert connection.fetch_all(rows) == sorted([*kept, ("b", text_sha256("homesick"))])
    connection.execute("DELETE FROM memories WHERE content = 'homesick'")
    refresh(connection, Counting("a"))
    assert connection.fetch_all(rows) == [("a", text_sha256("never seen"))]


def test_what_was_encoded_before_an_interruption_stays(connection, monkeypatch):
    """Each batch is committed; the progress counts distinct texts."""
    monkeypatch.setattr("aico_lab.embeddings.stored_vectors.BATCH", 2)
    encoder, seen = Counting(), []

    def stop(done: int, total: int) -> None:
        seen.append((done, total))
        if done == 4:
            raise KeyboardInterrupt

    texts = [f"text {number // 2}" for number in range(10)]
    with pytest.raises(KeyboardInterrupt):
        StoredVectors(connection, encoder).of(texts, stop)
    assert connection.fetch_one("SELECT count(*) FROM text_vectors") == (4,)
    StoredVectors(connection, encoder).of(texts, lambda *now: seen.append(now))
    assert seen == [(2, 5), (4, 5), (5, 5)]
    assert len(encoder.encoded) == 5


def test_half_a_surrogate_pair_is_refused(connection):
    with pytest.raises(UnstorableValue, match="not valid Unicode"):
        StoredVectors(connection, Counting()).of(["one", "\ud800"])
