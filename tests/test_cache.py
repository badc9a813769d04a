"""The cache: the store of RocksDB and the one in memory behave alike."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aico_lab.adapters.rocksdb import RocksDBAdapter, RocksDBConnection
from aico_lab.cache.store import MemoryStore, open_for_reading, open_for_writing
from aico_lab.errors import ConnectionIsClosed, DatabaseLocked, InvalidValue
from aico_lab.home.folder import Home
from aico_lab.home.keys import Keys
from tests.conftest import plain_text_files
from tests.effort import examples

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from aico_lab.cache.store import KeyValueStore

KEYS = Keys(b"m" * 32)


@pytest.fixture(params=["memory", "encrypted", "plain"])
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], KeyValueStore]:
    """Returns a function that opens a new, empty store of each kind."""
    numbers = iter(range(1_000_000))
    if request.param == "memory":
        return MemoryStore
    pytest.importorskip("rocksdict")
    key = KEYS.rocksdb() if request.param == "encrypted" else None
    return lambda: RocksDBAdapter(tmp_path / f"cache{next(numbers)}", key).connect()


@pytest.fixture
def store(opener: Callable[[], KeyValueStore]) -> Iterator[KeyValueStore]:
    opened = opener()
    yield opened
    opened.close()


def test_what_is_put_is_there(store: KeyValueStore) -> None:
    """Until it is replaced or deleted; an absent key gives None."""
    assert store.get(b"session:a") is None
    store.put(b"session:a", b"1")
    store.put(b"session:a", b"")
    assert store.get(b"session:a") == b""
    store.delete(b"session:a")
    store.delete(b"session:a")
    assert store.get(b"session:a") is None


def test_namespaces_are_what_stands_before_the_first_colon(store: KeyValueStore) -> None:
    """A namespace does not include longer ones that begin with it."""
    store.write({
        b"s:a": b"1", b"s:b:c": b"2", b"session:a": b"3", b"plain": b"4", b":x": b"5", b"s": b"6"
    })  # fmt: skip
    assert store.items(b"s") == [(b"s:a", b"1"), (b"s:b:c", b"2")]
    assert store.items(b"session") == [(b"session:a", b"3")]
    assert store.items(b"") == [(b":x", b"5"), (b"plain", b"4"), (b"s", b"6")]
    assert store.items(b"nothing") == []
    assert [key for key, _ in store.items()] == [
        b":x", b"plain", b"s", b"s:a", b"s:b:c", b"session:a"
    ]  # fmt: skip


def test_a_namespace_is_cleared_alone(store: KeyValueStore) -> None:
    """Also if its name begins like another one's; `scan` reads the others."""
    left = {b"s:a": b"1", b"plain": b"2", b":x": b"3"}
    store.write({**left, b"session:a": b"4", b"session:b": b"5"})
    store.clear(b"session")
    store.compact()
    assert dict(store.scan()) == left
    store.clear(b"")
    assert list(store.scan()) == [(b"s:a", b"1")]


def test_a_batch_is_written_whole_or_not_at_all(store: KeyValueStore) -> None:
    """Removals come first, so a key may be both removed and stored."""
    store.put(b"a", b"1")
    store.put(b"b", b"2")
    store.write({b"b": b"new", b"c": b"3"}, [b"a", b"b", b"not there"])
    assert store.items() == [(b"b", b"new"), (b"c", b"3")]
    with pytest.raises(InvalidValue):
        store.write({b"d": b"4", b"e": "text"}, [b"b"])  # type: ignore[dict-item]
    assert store.items() == [(b"b", b"new"), (b"c", b"3")]


def test_only_bytes_are_taken(store: KeyValueStore) -> None:
    """Text would need an encoding; the error does not repeat the value."""
    for use in (
        lambda: store.put("k", b"v"),
        lambda: store.put(b"k", "secret"),
        lambda: store.get("k"),
        lambda: store.delete("k"),
        lambda: store.put(b"k", None),
    ):
        with pytest.raises(InvalidValue, match="takes bytes") as refused:
            use()
        assert "secret" not in str(refused.value)
    assert store.items() == []


def test_use_after_close_is_refused(opener: Callable[[], KeyValueStore]) -> None:
    """Closing twice is allowed."""
    store = opener()
    store.close()
    store.close()
    for use in (
        lambda: store.get(b"k"),
        lambda: store.put(b"k", b"v"),
        lambda: store.delete(b"k"),
        store.items,
        lambda: store.write({b"k": b"v"}),
    ):
        with pytest.raises(ConnectionIsClosed):
            use()


KEY_BYTES = st.binary(max_size=12) | st.sampled_from([b"s:a", b"s:b", b"s", b":", b"t:a"])


@given(
    st.lists(
        st.tuples(st.sampled_from(["put", "delete", "write"]), KEY_BYTES, st.binary(max_size=50)),
        max_size=20,
    )
)
@settings(
    max_examples=examples(25),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_any_sequence_of_operations_equals_a_dict(
    opener: Callable[[], KeyValueStore], steps: list[tuple[str, bytes, bytes]]
) -> None:
    """For any bytes."""
    store, expected = opener(), {}
    for step, key, value in steps:
        if step == "put":
            store.put(key, value)
            expected[key] = value
        elif step == "delete":
            store.delete(key)
            expected.pop(key, None)
        else:
            store.write({key: value}, [b"s:a"])
            expected.pop(b"s:a", None)
            expected[key] = value
    assert store.items() == sorted(expected.items())
    for namespace in (b"s", b"", b"t"):
        assert store.items(namespace) == [
            item for item in store.items()
            if (item[0].split(b":")[0] if b":" in item[0] else b"") == namespace
        ]  # fmt: skip
    store.close()


def test_the_cache_of_a_home_is_encrypted(tmp_path: Path) -> None:
    """It is readable only with the home's keys."""
    pytest.importorskip("rocksdict")
    home = Home(tmp_path)
    store = open_for_writing(home, KEYS)
    assert isinstance(store, RocksDBConnection)
    store.put(b"session:active_context", b"the time I felt homesick")
    with pytest.raises(DatabaseLocked):
        open_for_writing(home, KEYS)
    beside = open_for_reading(home, KEYS)
    assert beside.get(b"session:active_context") == b"the time I felt homesick"
    beside.close()
    store.close()
    assert plain_text_files(tmp_path, "homesick") == []


def test_without_rocksdb_the_cache_is_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RocksDB is optional."""
    monkeypatch.setitem(sys.modules, "rocksdict", None)
    store = open_for_writing(Home(tmp_path), KEYS)
    store.put(b"k", b"v")
    assert store.get(b"k") == b"v"
    assert list(tmp_path.iterdir()) == []


def test_looking_into_a_cache_that_is_not_there_makes_none(tmp_path: Path) -> None:
    """The reader is an empty store."""
    store = open_for_reading(Home(tmp_path), KEYS)
    assert store.items() == []
    assert list(tmp_path.iterdir()) == []
