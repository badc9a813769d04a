"""Vectors in libSQL: nearest neighbours against an independent computation, and defects."""

from __future__ import annotations

import math
import random
import struct
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aico_lab.adapters.libsql import LibSQLAdapter
from aico_lab.channel_memory import DatabaseManager, MessageVectors, Neighbour
from aico_lab.errors import InvalidEntity, InvalidValue, StorageError
from tests.costs import takes_about
from tests.effort import examples
from tests.messages import at

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

pytestmark = pytest.mark.slow

KEY = "k" * 32
DIMENSIONS = 256
CHANNELS = ("general", "random", "music")
NOTHING = pytest.approx(0, abs=1e-6)


def fill(memory: DatabaseManager, messages: int) -> None:
    memory.add_messages(
        {
            "message_id": f"m{number}",
            "channel_id": CHANNELS[number % len(CHANNELS)],
            "user_id": "ada",
            "content": "hello",
            "timestamp": at(number),
        }
        for number in range(messages)
    )


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[DatabaseManager]:
    with DatabaseManager(tmp_path / "memory.db", KEY) as opened:
        fill(opened, 30)
        yield opened


@pytest.fixture
def vectors(memory: DatabaseManager) -> MessageVectors:
    return MessageVectors(memory)


def axis(number: int, length: float = 1.0) -> list[float]:
    return [length if place == number else 0.0 for place in range(DIMENSIONS)]


def distance(left: Sequence[float], right: Sequence[float]) -> float:
    """1 minus the cosine, in Python's double precision, of vectors scaled beforehand."""

    def unit(vector: Sequence[float]) -> list[float]:
        scale = max(map(abs, vector))
        scaled = [value / scale for value in vector]
        length = math.sqrt(math.fsum(value * value for value in scaled))
        return [value / length for value in scaled]

    return 1 - math.fsum(a * b for a, b in zip(unit(left), unit(right), strict=True))


# A short seed makes 256 numbers; a drawn head makes vectors near, equal and opposite to each other.
HEADS = st.lists(st.floats(-1, 1), min_size=3, max_size=3)
SCALES = st.sampled_from([1e-40, 1e-30, 1e-10, 1.0, 1e10, 1e30, 1e38])


def vector(head: list[float], seed: int, scale: float) -> list[float]:
    chance = random.Random(seed)
    tail = [chance.uniform(-0.05, 0.05) for _ in range(DIMENSIONS - len(head) - 1)]
    return [scale * value for value in (*head, *tail, 0.01)]


VECTORS = st.builds(vector, HEADS, st.integers(0, 3), SCALES)


@given(
    stored=st.dictionaries(st.integers(0, 29), VECTORS, min_size=1, max_size=12),
    query=VECTORS,
    k=st.integers(1, 15),
    channel=st.none() | st.sampled_from(CHANNELS),
)
@settings(
    max_examples=examples(60),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_the_nearest_are_those_of_an_independent_computation(
    memory, vectors, *, stored, query, k, channel
):
    """For vectors of any length, in all channels and in one."""
    with memory.get_connection() as connection:
        connection.execute("DELETE FROM embeddings")
    vectors.store({f"m{number}": value for number, value in stored.items()}, model="m")
    expected = {
        f"m{number}": distance(value, query)
        for number, value in stored.items()
        if channel in (None, CHANNELS[number % len(CHANNELS)])
    }
    found = vectors.nearest(query, model="m", k=k, channel_id=channel)
    assert len({n.message_id for n in found}) == len(found) == min(k, len(expected))
    # Not compared by id: distances may differ by less than single precision resolves.
    for neighbour, far in zip(found, sorted(expected.values()), strict=False):
        assert neighbour.distance == pytest.approx(far, abs=1e-5)
        assert neighbour.distance == pytest.approx(expected[neighbour.message_id], abs=1e-5)


def test_equally_near_messages_come_in_the_order_of_their_arrival(vectors):
    """So the result of a search is reproducible."""
    vectors.store({f"m{number}": axis(0) for number in (7, 3, 5)}, model="m")
    assert vectors.nearest(axis(0), model="m") == [
        Neighbour("m3", NOTHING), Neighbour("m5", NOTHING), Neighbour("m7", NOTHING),
    ]  # fmt: skip


def test_a_message_has_one_vector_of_each_model_the_latest(memory, vectors):
    """Vectors of different models are not compared."""
    vectors.store({"m1": axis(0), "m2": axis(1)}, model="small")
    vectors.store({"m1": axis(2)}, model="large")
    vectors.store({"m1": axis(1)}, model="small")
    assert [n.message_id for n in vectors.nearest(axis(1), model="small")] == ["m1", "m2"]
    assert vectors.nearest(axis(2), model="large") == [Neighbour("m1", NOTHING)]
    with LibSQLAdapter(memory.path, KEY).connect() as outside:
        assert outside.fetch_all(
            "SELECT message_id, model, length(vector) FROM embeddings ORDER BY 1, 2"
        ) == [("m1", "large", 1024), ("m1", "small", 1024), ("m2", "small", 1024)]


def test_a_vector_is_stored_under_any_id_that_a_message_may_have(memory, vectors):
    """A whole number is stored as its digits, and invalid ids are refused."""
    memory.store_message(7, "general", "ada", "hello", at(99))
    vectors.store({7: axis(3)}, model="m")
    assert vectors.nearest(axis(3), model="m") == [Neighbour("7", NOTHING)]
    with pytest.raises(InvalidEntity, match="An id is text"):
        vectors.store({"": axis(3)}, model="m")


def test_a_vector_goes_with_its_message(memory, vectors):
    """Also if another program deletes the message."""
    vectors.store({"m1": axis(0), "m2": axis(1)}, model="m")
    with LibSQLAdapter(memory.path, KEY).connect() as outside:
        outside.execute("DELETE FROM messages WHERE message_id = 'm1'")
    assert [n.message_id for n in vectors.nearest(axis(0), model="m")] == ["m2"]


BAD = {
    "short": [1.0] * 255,
    "long": [1.0] * 257,
    "empty": [],
    "NaN": [math.nan, *axis(0)[1:]],
    "infinite": [math.inf, *axis(0)[1:]],
    "minus infinite": [-math.inf, math.inf, *axis(0)[2:]],
    "zero": [0.0] * DIMENSIONS,
    "text": ["a"] * DIMENSIONS,
    "None": None,
    "huge integer": [10**400, *axis(0)[1:]],
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_vector_that_is_none_is_refused(vectors, bad):
    """Also in a search; other vectors of the same call are not stored."""
    vectors.store({"m0": axis(0)}, model="m")
    with pytest.raises(InvalidEntity, match=r"^A vector.*[.]$"):
        vectors.store({"m1": axis(0), "m2": bad}, model="m")
    with pytest.raises(InvalidEntity, match=r"^A vector.*[.]$"):
        vectors.nearest(bad, model="m")
    assert vectors.nearest(axis(0), model="m") == [Neighbour("m0", NOTHING)]


def test_each_model_has_its_own_number_of_dimensions(memory, vectors):
    """That of its first vector; it can change when all its vectors are replaced."""
    vectors.store({"m1": [1, 0, 0], "m2": [0, 3, 4]}, model="tiny")
    vectors.store({"m1": axis(0)}, model="m")
    assert vectors.nearest([0, 6, 8], model="tiny", k=1) == [Neighbour("m2", NOTHING)]
    for wrong in ([1, 0], axis(0)):
        with pytest.raises(InvalidEntity, match=r"model tiny must have 3 dimensions, not"):
            vectors.nearest(wrong, model="tiny")
        with pytest.raises(InvalidEntity, match=r"model tiny must have 3 dimensions, not"):
            vectors.store({"m1": wrong}, model="tiny")
    with pytest.raises(InvalidEntity, match=r"model new must have 3 dimensions, not 2"):
        vectors.store({"m1": [1, 0, 0], "m2": [0, 1]}, model="new")
    vectors.store({"m1": [1, 0], "m2": [0, 1]}, model="tiny")
    assert [n.message_id for n in vectors.nearest([1, 0], model="tiny")] == ["m1", "m2"]
    with memory.get_connection() as connection:
        assert connection.fetch_one(
            "SELECT count(*), sum(length(vector)) FROM embeddings WHERE model = 'tiny'"
        ) == (2, 16)


@pytest.mark.parametrize("k", [0, -1, 1.5, "3", True])
def test_a_number_of_neighbours_is_a_whole_number(vectors, k):
    with pytest.raises(InvalidValue, match=r"^k must be a whole number, 1 or more\.$"):
        vectors.nearest(axis(0), model="m", k=k)


def test_a_vector_of_no_message_is_refused(vectors):
    """Other vectors of the same call are not stored either."""
    with pytest.raises(InvalidEntity, match=r"no message .*[.]$"):
        vectors.store({"m1": axis(0), "nobody's": axis(1)}, model="m")
    assert vectors.nearest(axis(0), model="m") == []


def test_fewer_than_one_neighbour_cannot_be_asked_for(vectors):
    """A limit of -1 would return all messages."""
    for k in (0, -1):
        with pytest.raises(InvalidValue):
            vectors.nearest(axis(0), model="m", k=k)


@pytest.mark.parametrize(
    "foreign", [b"", struct.pack("<255f", *[1.0] * 255), struct.pack("<256f", *[math.nan] * 256)],
    ids=["empty", "short", "NaN"],
)  # fmt: skip
def test_a_vector_that_another_program_wrote_wrongly_is_passed_over(memory, vectors, foreign):
    """It would fail the whole query, or come first without a distance."""
    vectors.store({"m1": axis(0)}, model="m")
    with LibSQLAdapter(memory.path, KEY).connect() as outside:
        outside.execute(
            "INSERT INTO embeddings (embedding_id, message_id, model, vector, created_at) "
            "VALUES ('e', 'm2', 'm', ?, ?)",
            [foreign, at(0)],
        )
    for k in (1, 10):
        assert vectors.nearest(axis(0), model="m", k=k) == [Neighbour("m1", NOTHING)]


def test_libsql_still_checks_no_vector_and_loses_small_and_large_ones(memory):
    """When this fails, libSQL was fixed, and the workarounds can be removed."""

    def packed(value: float) -> bytes:
        return struct.pack("<256f", *[value] * 256)

    with memory.get_connection() as connection:

        def libsqls(left: bytes, right: bytes) -> float | None:
            row = connection.fetch_one("SELECT vector_distance_cos(?, ?)", [left, right])
            return row[0]

        assert libsqls(packed(1), packed(1)) == NOTHING
        assert libsqls(packed(1e-30), packed(1)) == -math.inf
        assert libsqls(packed(1e15), packed(1e15)) == 1
        assert libsqls(packed(0), packed(1)) is None
        with pytest.raises(StorageError, match="same length"):
            libsqls(packed(1)[4:], packed(1))


@pytest.mark.slow
def test_twenty_thousand_vectors_are_compared_in_a_moment(tmp_path):
    """The claim of the module's docstring, with a margin for a busy machine."""
    made = np.random.default_rng(1).normal(size=(20_000, DIMENSIONS))
    with DatabaseManager(tmp_path / "many.db", KEY) as memory:
        fill(memory, len(made))
        vectors = MessageVectors(memory)
        vectors.store({f"m{at}": row for at, row in enumerate(made.tolist())}, model="m")
        with takes_about(0.2):
            found = vectors.nearest(made[4711].tolist(), model="m", k=5)
        near = made @ made[4711] / np.linalg.norm(made, axis=1)
        assert [n.message_id for n in found] == [f"m{at}" for at in np.argsort(-near)[:5]]
