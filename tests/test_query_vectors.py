"""Vectors of queries in the cache: the same as encoded ones, and only of single texts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from aico_lab.cache.store import MemoryStore
from aico_lab.cache.typed import CacheStore
from aico_lab.embeddings.encoders.base import Encoder
from aico_lab.errors import UnstorableValue
from aico_lab.projections.query_vectors import QueryEncoder
from tests.messages import START

if TYPE_CHECKING:
    from aico_lab.lab import Lab


class Counting(Encoder):
    """Encodes a text by its length, and counts the texts."""

    name, model, dimensions = "counting", "counting-1", 3
    encoded = 0

    def _encode(self, texts):
        self.encoded += len(texts)
        return np.array([[len(text) % 5, 1, 0.1] for text in texts], np.float32)


def test_a_query_is_encoded_once_for_each_model() -> None:
    """Its vector has every bit of the encoded one."""
    plain, cache = Counting(), CacheStore(MemoryStore())
    kept = QueryEncoder(plain, lambda: cache)
    expected, usable = plain.encode_usable(["tea"])
    for _ in range(3):
        found, same = kept.encode_usable(["tea"])
        assert np.array_equal(found, expected)
        assert (found.dtype, found.shape, same) == (np.float32, (1, 3), usable)
    assert plain.encoded == 2
    other = Counting()
    other.model = "counting-2"
    QueryEncoder(other, lambda: cache).encode_usable(["tea"])
    assert other.encoded == 1
    kept.encode_usable(["tea", "coffee"])
    assert plain.encoded == 4
    assert len(cache.items("computed:vector:")) == 2
    assert "tea" not in str(cache.items("computed:"))


def test_without_a_cache_or_with_a_closed_one_texts_are_encoded() -> None:
    """Blank ones have no vector, and text that is not valid is refused, as ever."""
    closed, plain = CacheStore(MemoryStore()), Counting()
    closed.close()
    for cache in (None, closed, CacheStore(MemoryStore())):
        kept = QueryEncoder(plain, lambda cache=cache: cache)
        assert kept.encode_usable(["tea"])[1] == [True]
        assert kept.encode_usable([" "])[1] == [False]
        assert kept.encode_usable([])[1] == []
        with pytest.raises(UnstorableValue):
            kept.encode_usable(["\udcff"])


@pytest.mark.slow
def test_a_lab_that_has_the_cache_keeps_the_vectors_of_its_queries(lab: Lab) -> None:
    """A lab that only searches leaves the cache closed."""
    lab.primary.execute("INSERT INTO users (user_id, created_at) VALUES ('u', ?)", [START])
    lab.primary.execute(
        "INSERT INTO memories VALUES ('a', 'u', 'likes tea', 'fact', 0.5, ?, NULL)", [START]
    )
    first = lab.memories.index.query("tea", 1)
    assert lab.cache.held is None
    cache = lab.cache.store
    assert [lab.memories.index.query("tea", 1) for _ in range(2)] == [first] * 2
    assert len(cache.items("computed:vector:")) == 1
    assert cache.counters()["computed"].hits == 1
