"""Vectors in ChromaDB: sealed at rest, private while open."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import chromadb
import numpy as np
import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st
from pyrage import x25519

from aico_lab.adapters import chroma, sealed
from aico_lab.adapters.chroma import ChromaDBAdapter
from aico_lab.errors import (
    ConnectionIsClosed,
    CorruptDatabase,
    DatabaseLocked,
    DiskFull,
    InvalidValue,
    NotADatabase,
    NotPermitted,
    UnstorableValue,
    WrongUse,
)
from aico_lab.home.bech32 import bech32
from aico_lab.home.keys import Keys
from aico_lab.repositories import ChromaDBMemoryRepository
from tests.conftest import plain_text_files

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

KEY = Keys(b"k" * 32).chroma()
SECRET = "the time I felt homesick in Reykjavik"
VECTORS = np.eye(4, dtype=np.float32)


@pytest.fixture(autouse=True)
def ram(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A stand-in for the RAM disk, so that parallel tests see only their own folders."""
    folder = tmp_path / "ram"
    folder.mkdir()
    monkeypatch.setattr(sealed, "RAM", folder)
    return folder


@pytest.fixture
def adapter(tmp_path: Path) -> ChromaDBAdapter:
    return ChromaDBAdapter(tmp_path / "home" / "vectors", KEY, busy_timeout=0.1)


def fill(adapter: ChromaDBAdapter, text: str = SECRET) -> None:
    with adapter.connect() as store:
        store.collection("memories").upsert(
            ["a", "b"], VECTORS[:2], [text, "soup"], [{"user_id": "u"}, {"user_id": "v"}]
        )
        store.state = {"seq": 7}


def test_the_key_is_an_age_identity() -> None:
    """Pyrage reads it unchanged, and each home has another one."""
    assert KEY is not None
    assert str(x25519.Identity.from_str(KEY)) == KEY
    assert Keys(b"l" * 32).chroma() != KEY
    assert Keys(None).chroma() is None


def test_a_connection_may_be_closed_by_another_thread(
    adapter: ChromaDBAdapter, ram: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock is released for the next connection, and no file stays open."""
    locks: list[FileLock] = []  # kept, so that the garbage collector lets go of none of them

    def lock(*args: Any, **options: Any) -> FileLock:
        locks.append(FileLock(*args, **options))
        return locks[-1]

    monkeypatch.setattr(chroma, "FileLock", lock)
    monkeypatch.setattr(sealed, "FileLock", lock)
    with ThreadPoolExecutor(1) as elsewhere:
        connection = elsewhere.submit(adapter.connect).result()
        connection.close()
        opened = [file.resolve() for file in Path("/proc/self/fd").glob("*")]  # none but on Linux
        assert [file for file in opened if file.is_relative_to(ram)] == []
        adapter.connect().close()


@given(st.binary(min_size=32, max_size=32))
def test_any_32_bytes_make_an_identity(secret: bytes) -> None:
    """The encoding of BIP-173, verified by pyrage."""
    text = bech32("age-secret-key-", secret).upper()
    assert str(x25519.Identity.from_str(text)) == text


def test_the_encoding_is_the_standards() -> None:
    """BIP-173's first test vector."""
    assert bech32("a", b"") == "a12uel5l"


def test_nothing_readable_remains_when_the_store_is_closed(
    adapter: ChromaDBAdapter, tmp_path: Path
) -> None:
    """On disk there is one encrypted file, and no private folder remains."""
    fill(adapter)
    assert adapter.path is not None
    assert {path.name for path in adapter.path.parent.iterdir()} == {"vectors.age", "vectors.lock"}
    assert plain_text_files(tmp_path, SECRET) == []
    assert plain_text_files(tmp_path, "memories") == []
    sealed_file = adapter.path.with_name("vectors.age")
    assert VECTORS[0].tobytes() not in sealed_file.read_bytes()
    assert sealed_file.stat().st_mode & 0o777 == 0o600
    with adapter.connect() as store:
        assert store.collection("memories").get(["a"])["a"].text == SECRET
        assert len(plain_text_files(tmp_path / "ram", SECRET)) == 1  # the test can see it
        assert plain_text_files(tmp_path / "home", SECRET) == []


def test_what_is_open_is_for_its_owner_alone(adapter: ChromaDBAdapter, ram: Path) -> None:
    """The private folder is readable for its owner only."""
    with adapter.connect():
        (root,) = ram.iterdir()
        modes = {path.stat().st_mode & 0o777 for path in (root, *root.iterdir()) if path.is_dir()}
        assert modes == {0o700}


def test_a_foreign_private_folder_is_not_trusted(adapter: ChromaDBAdapter, ram: Path) -> None:
    """Anybody can make a folder of that name on a shared RAM disk."""
    root = ram / f"aico-lab-{os.getuid()}"
    root.mkdir()
    root.chmod(0o777)
    with pytest.raises(NotPermitted, match="is not private to you"):
        adapter.connect()


def test_what_a_killed_process_left_open_is_removed(
    adapter: ChromaDBAdapter, ram: Path, tmp_path: Path
) -> None:
    """Its changes are lost; the next opening removes its folder, but none of a living process."""
    fill(adapter, "before")
    code = f"""if True:
        import os, signal
        from pathlib import Path
        from aico_lab.adapters import chroma, sealed
        from aico_lab.adapters.chroma import ChromaDBAdapter
        sealed.RAM = Path({str(ram)!r})
        store = ChromaDBAdapter({str(adapter.path)!r}, {KEY!r}).connect()
        store.collection("memories").upsert(["c"], [[0, 0, 1, 0]], [{SECRET!r}])
        print("ready", flush=True)
        input()
    """
    holder = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        with pytest.raises(DatabaseLocked):
            adapter.connect()
        assert plain_text_files(ram, SECRET)
        holder.send_signal(signal.SIGKILL)
    partial = tmp_path / "home" / ".vectors.age.1234"
    partial.write_bytes(b"what a killed writer had begun")
    with adapter.connect() as store:
        assert plain_text_files(ram, SECRET) == []
        assert set(store.collection("memories").get(["a", "b", "c"])) == {"a", "b"}
        assert not partial.exists()


def test_a_process_that_forgets_to_close_leaves_nothing(ram: Path, tmp_path: Path) -> None:
    """The private folder is removed at exit; unsealed changes are lost."""
    code = f"""if True:
        from pathlib import Path
        from aico_lab.adapters import chroma, sealed
        from aico_lab.adapters.chroma import ChromaDBAdapter
        sealed.RAM = Path({str(ram)!r})
        store = ChromaDBAdapter({str(tmp_path / "vectors")!r}, {KEY!r}).connect()
        (store._folder / "x").write_text({SECRET!r})
    """
    subprocess.run([sys.executable, "-c", code], check=True)
    assert [path for path in ram.rglob("*") if path.is_file()] == []


def test_one_writer_at_a_time_and_readers_beside_it(adapter: ChromaDBAdapter) -> None:
    """A reader sees the last sealed state, whatever the writer does, and stores nothing."""
    fill(adapter)
    reading = ChromaDBAdapter(adapter.path, KEY, read_only=True)
    with adapter.connect() as writer, reading.connect() as reader:
        writer.collection("memories").upsert(["c"], VECTORS[2:3], ["new"])
        with pytest.raises(DatabaseLocked, match="in use"):
            adapter.connect()
        assert reader.collection("memories").count() == 2
        reader.collection("memories").upsert(["d"], VECTORS[3:], ["of a reader"])
        version = adapter.version()
        writer.seal()
        assert adapter.version() != version
        writer.collection("memories").upsert(["e"], VECTORS[3:], ["after sealing"])
    with reading.connect() as reader:
        assert set(reader.collection("memories").get([*"abcdef"])) == set("abce")


def test_an_exception_keeps_nothing(adapter: ChromaDBAdapter) -> None:
    """Unfinished changes are not sealed."""
    fill(adapter)
    before = adapter.version()
    with pytest.raises(RuntimeError), adapter.connect() as store:
        store.collection("memories").upsert(["c"], VECTORS[2:3], ["half"])
        raise RuntimeError
    assert adapter.version() == before
    with adapter.connect() as store:
        assert store.collection("memories").count() == 2


def test_nothing_is_written_where_nothing_changed(adapter: ChromaDBAdapter) -> None:
    """Reading the store does not encrypt it again."""
    fill(adapter)
    before = adapter.version()
    with adapter.connect() as store:
        store.collection("memories").query(VECTORS[0], 1)
    assert adapter.version() == before


@pytest.mark.parametrize("key", [KEY, None], ids=["encrypted", "plain"])
def test_the_state_is_read_without_opening(tmp_path: Path, key: str | None) -> None:
    """A consumer's cursor is stored with the vectors, and read quickly."""
    adapter = ChromaDBAdapter(tmp_path / "vectors", key)
    assert adapter.peek_state() is None
    assert adapter.version() is None
    fill(adapter)
    assert adapter.peek_state() == {"seq": 7}
    with adapter.connect() as store:
        assert store.state == {"seq": 7}
        store.clear()
        assert store.state is None
        assert store.collection("memories").count() == 0
    assert adapter.peek_state() is None


def test_clear_leaves_nothing_of_what_was_deleted(tmp_path: Path) -> None:
    """Chroma keeps deleted texts in its files; when that changes, this test fails."""
    adapter = ChromaDBAdapter(tmp_path / "vectors")
    fill(adapter)
    with adapter.connect() as store:
        store.collection("memories").delete(["a", "not there"])
    assert plain_text_files(tmp_path / "vectors", SECRET)
    with adapter.connect() as store:
        store.clear()
    assert plain_text_files(tmp_path / "vectors", SECRET) == []


def test_queries_give_cosine_similarity(adapter: ChromaDBAdapter) -> None:
    """Nearest first, filtered by the condition, and at most all entries."""
    with adapter.connect() as store:
        memories = store.collection("memories")
        memories.upsert(
            ["x", "y", "z"],
            [[2, 0], [1, 1], [-3, 0]],
            ["one", "two", "three"],
            [{"user_id": "u", "n": 1}, {"user_id": "v", "n": 2}, {"user_id": "u", "n": 3}],
        )
        found = memories.query([1, 0], 10)
        assert [match.id for match in found] == ["x", "y", "z"]
        assert [match.score for match in found] == pytest.approx([1, 0.5**0.5, -1], abs=1e-5)
        assert (found[1].text, found[1].metadata) == ("two", {"user_id": "v", "n": 2})
        mine = memories.query([1, 0], 1, {"user_id": "v"})
        assert [match.id for match in mine] == ["y"]
        memories.upsert(["x"], [[0, 2]], ["moved"], [{"user_id": "u", "n": 1}])
        memories.delete(["y"])
        assert memories.count() == 2
        assert memories.query([0, 1], 1)[0].text == "moved"
        assert memories.get(["x", "y"]).keys() == {"x"}


def test_more_than_one_batch_is_stored(adapter: ChromaDBAdapter) -> None:
    """Chroma accepts 5,461 entries at a time."""
    ids = [f"id{number}" for number in range(5_500)]
    vectors = np.random.default_rng(1).normal(size=(5_500, 4))
    with adapter.connect() as store:
        memories = store.collection("memories")
        memories.upsert(ids, vectors)
        assert memories.count() == len(memories.get(ids)) == 5_500
        memories.delete(ids)
        assert memories.count() == 0


@pytest.mark.parametrize("vector", [[0.0, 0.0], [float("nan"), 1.0], [float("inf"), 1.0]])
def test_vectors_without_a_direction_are_refused(
    adapter: ChromaDBAdapter, vector: list[float]
) -> None:
    """Such as WordLlama's vector of a blank text."""
    with adapter.connect() as store:
        memories = store.collection("memories")
        with pytest.raises(UnstorableValue, match="zero or not finite"):
            memories.upsert(["a"], [vector])
        with pytest.raises(UnstorableValue):
            memories.query(vector, 1)
        assert memories.count() == 0


def test_what_cannot_be_meant_is_refused(adapter: ChromaDBAdapter) -> None:
    """Our errors are raised, and do not repeat the arguments."""
    with adapter.connect() as store:
        for name in ("ab", "with space", "-begins", "x" * 600):
            with pytest.raises(InvalidValue):
                store.collection(name)
        memories = store.collection("memories")
        memories.upsert(["a"], [[1, 2]], [SECRET])
        with pytest.raises(InvalidValue, match="dimension"):
            memories.upsert(["b"], [[1, 2, 3]])
        with pytest.raises(InvalidValue, match="as many vectors"):
            memories.upsert(["b", "c"], [[1, 2]])
        with pytest.raises(InvalidValue, match="all of one length"):
            memories.upsert(["b", "c"], [[1, 2], [1]])
        with pytest.raises(InvalidValue, match="duplicates"):
            memories.upsert(["b", "b"], [[1, 2], [1, 2]])
        with pytest.raises(UnstorableValue, match="Unicode"):
            memories.upsert(["b"], [[1, 2]], ["\ud800"])
        for k, where in ((0, None), (1, {"user_id": {"$foo": SECRET}})):
            with pytest.raises(InvalidValue) as refused:
                memories.query([1, 2], k, where)
            assert SECRET not in str(refused.value)
        store.client.create_collection("distances", configuration={"hnsw": {"space": "l2"}})
        with pytest.raises(InvalidValue, match="cosine"):
            store.collection("distances")


def test_two_stores_in_memory_share_nothing() -> None:
    """Chroma itself shares one memory per process."""
    with ChromaDBAdapter().connect() as one, ChromaDBAdapter().connect() as other:
        one.collection("memories").upsert(["a"], [[1, 2]])
        assert other.collection("memories").count() == 0
        assert one.collection("memories").count() == 1
        one.clear()
        assert one.collection("memories").count() == 0


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_a_damaged_file_is_refused(adapter: ChromaDBAdapter, damage: str) -> None:
    """The cipher detects every changed byte."""
    fill(adapter)
    assert adapter.path is not None
    file = adapter.path.with_name("vectors.age")
    content = bytearray(file.read_bytes())
    if damage == "truncated":
        del content[-100:]
    else:
        content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(CorruptDatabase, match="sync --only vectors --full"):
        adapter.connect()


def test_a_file_of_something_else_is_refused(adapter: ChromaDBAdapter) -> None:
    """The file stays unchanged, also at the next opening."""
    assert adapter.path is not None
    adapter.path.parent.mkdir()
    for content in (b"", b"garbage" * 1000):
        adapter.path.with_name("vectors.age").write_bytes(content)
        with pytest.raises(NotADatabase):
            adapter.connect()
        with pytest.raises(NotADatabase):
            adapter.peek_state()
        assert adapter.path.with_name("vectors.age").read_bytes() == content


def test_a_damaged_plain_folder_is_refused_and_can_be_cleared(tmp_path: Path) -> None:
    """Chroma caches a folder that failed to open, and would fail every time."""
    adapter = ChromaDBAdapter(tmp_path / "vectors")
    fill(adapter)
    (tmp_path / "vectors" / "chroma.sqlite3").write_bytes(b"garbage" * 1000)
    with adapter.connect() as store:
        with pytest.raises(NotADatabase):
            store.collection("memories")
        store.clear()
        assert store.collection("memories").count() == 0


def test_a_full_disk_leaves_the_sealed_file_as_it_was(
    adapter: ChromaDBAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sealing fails atomically, with an error that says what to do."""
    fill(adapter)
    before = adapter.version()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with (
        monkeypatch.context() as patch,
        pytest.raises(DiskFull),
        adapter.connect() as store,
    ):
        store.collection("memories").upsert(["c"], VECTORS[2:3], ["new"])
        patch.setattr(os, "fsync", full)
        store.seal()
    assert adapter.version() == before
    with ChromaDBAdapter(adapter.path, KEY).connect() as store:
        assert store.collection("memories").count() == 2


def test_the_documents_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As printed, with the client of the connection in place of `chromadb.PersistentClient`."""
    monkeypatch.chdir(tmp_path)
    vector, context = [0.1, 0.2, 0.3], [0.15, 0.25, 0.35]
    with ChromaDBAdapter("./aico_embeddings").connect() as connection:
        client = connection.client

        # Create or get collection
        collection = client.get_or_create_collection(name="conversation_memory")

        # Add documents with embeddings
        collection.add(
            documents=["User expressed interest in machine learning"],
            embeddings=[vector],  # Vector from embedding model
            metadatas=[{"timestamp": "2025-07-30T20:30:45Z", "sentiment": "positive"}],
            ids=["memory-001"],
        )

        # Query similar memories
        results = collection.query(
            query_embeddings=[context],  # Current context embedding
            n_results=5,
        )
    assert results["ids"] == [["memory-001"]]
    with ChromaDBAdapter("./aico_embeddings").connect() as connection:
        assert connection.client.get_collection("conversation_memory").count() == 1


def test_closing_really_releases_the_files(tmp_path: Path) -> None:
    """Chroma would cache the opened store for the lifetime of the process."""
    adapter = ChromaDBAdapter(tmp_path / "vectors")
    fill(adapter)
    open_files = [path.resolve() for path in Path("/proc/self/fd").iterdir()]
    assert not [path for path in open_files if path.is_relative_to(tmp_path)]
    systems = chromadb.api.shared_system_client.SharedSystemClient._identifier_to_system
    assert str(tmp_path / "vectors") not in systems


def test_use_after_close_is_refused(adapter: ChromaDBAdapter) -> None:
    """Also through a collection that was opened before."""
    store = adapter.connect()
    memories = store.collection("memories")
    store.close()
    store.close()
    for use in (lambda: store.client, store.seal, store.clear, memories.count):
        with pytest.raises(ConnectionIsClosed):
            use()


def test_a_key_that_is_none_is_refused_without_being_repeated(tmp_path: Path) -> None:
    """The key's text is in no error."""
    fill(ChromaDBAdapter(tmp_path / "vectors", KEY))
    with pytest.raises(InvalidValue, match="age identity") as refused:
        ChromaDBAdapter(tmp_path / "vectors", "not-a-key").connect()
    assert "not-a-key" not in str(refused.value)


def test_chromadb_is_imported_on_first_use_only(tmp_path: Path) -> None:
    """The import takes seconds."""
    code = f"""if True:
        import sys
        from aico_lab.adapters.chroma import ChromaDBAdapter
        adapter = ChromaDBAdapter({str(tmp_path / "vectors")!r}, {KEY!r})
        with adapter.connect() as store:
            store.state = {{"seq": 1}}
        print(adapter.peek_state(), "chromadb" in sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "{'seq': 1} False\n"


def test_a_repository_refuses_a_client_at_once() -> None:
    """The document passes a client; the error says what to pass instead."""
    client: Any = chromadb.EphemeralClient(chromadb.config.Settings(anonymized_telemetry=False))
    with pytest.raises(WrongUse, match=r"ChromaDBMemoryRepository\(dal, lab.memories.index\)"):
        ChromaDBMemoryRepository(client)
