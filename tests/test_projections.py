"""Projections of the change feed: the vectors of memories, and the invalidation of the cache."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import numpy as np
import pytest

from aico_lab.adapters import sealed
from aico_lab.adapters.chroma import ChromaDBAdapter
from aico_lab.adapters.libsql import LibSQLAdapter
from aico_lab.cache.namespaces import NAMESPACES
from aico_lab.cache.store import MemoryStore
from aico_lab.cache.typed import CacheStore
from aico_lab.embeddings import index as index_
from aico_lab.embeddings.encoders import open_encoder
from aico_lab.embeddings.encoders.wordllama import WordLlama as Encoder
from aico_lab.embeddings.index import VectorIndex
from aico_lab.embeddings.stored_vectors import text_sha256
from aico_lab.embeddings.texts import MEMORIES
from aico_lab.errors import ConnectionIsClosed, CorruptDatabase, DatabaseLocked, DiskFull
from aico_lab.home.keys import Keys
from aico_lab.lab import Lab
from aico_lab.projections import vectors
from aico_lab.projections.cache import invalidate, sync_cache
from aico_lab.projections.vectors import project_texts
from aico_lab.schema import feed
from tests.conftest import plain_text_files
from tests.databases import with_core_schemas
from tests.messages import START, add, message

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from aico_lab.adapters.libsql import Connection

pytestmark = pytest.mark.slow

KEYS = Keys(b"p" * 32)
SECRET = "the time I felt homesick in Reykjavik"


@pytest.fixture(autouse=True)
def ram(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for the RAM disk, so that parallel tests see only their own folders."""
    folder = tmp_path / "ram"
    folder.mkdir()
    monkeypatch.setattr(sealed, "RAM", folder)
    return folder


@pytest.fixture
def primary(tmp_path: Path) -> Iterator[Connection]:
    (tmp_path / "home").mkdir()
    with with_core_schemas(tmp_path / "home" / "aico.db", KEYS.libsql()).connect() as connection:
        yield connection


@pytest.fixture(params=["encrypted", "plain"])
def adapter(request: pytest.FixtureRequest, tmp_path: Path) -> ChromaDBAdapter:
    key = KEYS.chroma() if request.param == "encrypted" else None
    return ChromaDBAdapter(tmp_path / "home" / "vectors", key, busy_timeout=0.1)


@pytest.fixture
def sealing(tmp_path: Path) -> ChromaDBAdapter:
    return ChromaDBAdapter(tmp_path / "home" / "vectors", KEYS.chroma(), busy_timeout=0.1)


def remember(primary: Connection, *memories: tuple[str, str], user: str = "u") -> None:
    with primary.transaction():
        primary.execute(
            "INSERT OR IGNORE INTO users (user_id, created_at) VALUES (?, ?)", [user, START]
        )
        primary.execute_many(
            "INSERT INTO memories VALUES (?, ?, ?, 'episodic', 0.5, ?, NULL) ON CONFLICT "
            "(memory_id) DO UPDATE SET content = excluded.content, importance = importance + 0.1",
            [(memory_id, user, content, START) for memory_id, content in memories],
        )


def table(primary: Connection) -> dict[str, tuple[str, str]]:
    """Return the memories that have a vector: their texts and people, by id."""
    found = {}
    for memory_id, content, user in primary.fetch_all(
        "SELECT memory_id, CAST(content AS BLOB), user_id FROM memories"
    ):
        text = content.decode(errors="replace")
        if text.strip():
            found[memory_id] = (text, user)
    return found


def projected(primary: Connection, adapter: ChromaDBAdapter) -> dict[str, tuple[str, str]]:
    """Return the memories whose texts the store has, after comparing each vector with its text's.

    The store must have no other entry, no text and no metadata.
    """
    memories = table(primary)
    key_of = {memory_id: text_sha256(text).hex() for memory_id, (text, _) in memories.items()}
    with adapter.connect() as store:
        found = store.client.get_collection(MEMORIES).get(
            include=["documents", "metadatas", "embeddings"]
        )
    assert not any(found["documents"])
    assert not any(found["metadatas"])
    assert len(set(found["ids"])) == len(found["ids"])
    assert set(found["ids"]) <= set(key_of.values())
    text_of = {key_of[memory_id]: text for memory_id, (text, _) in memories.items()}
    if found["ids"]:
        texts_ = [text_of[id_] for id_ in found["ids"]]
        assert np.allclose(found["embeddings"], open_encoder().encode_usable(texts_)[0], atol=1e-6)
    return {id_: memories[id_] for id_, key in key_of.items() if key in set(found["ids"])}


def index_of(primary: Connection, adapter: ChromaDBAdapter, **options: Any) -> VectorIndex:
    path = primary.path
    reading = ChromaDBAdapter(adapter.path, adapter._key, read_only=True)
    return VectorIndex(LibSQLAdapter(path, KEYS.libsql()).connect, reading, open_encoder(),
                       **options)  # fmt: skip


def test_the_vectors_follow_the_table(primary: Connection, adapter: ChromaDBAdapter) -> None:
    """First a full projection, then increments, and nothing if nothing changed."""
    remember(primary, ("a", SECRET), ("b", "onion soup"))
    first = project_texts(primary, adapter, Encoder())
    assert (first.mode, first.written, first.deleted) == ("full", 2, 0)
    assert projected(primary, adapter) == table(primary)
    assert project_texts(primary, adapter, Encoder()).mode == "nothing"

    remember(primary, ("c", "a new cat"))
    second = project_texts(primary, adapter, Encoder())
    assert (second.mode, second.written) == ("increment", 1)
    primary.execute("UPDATE memories SET importance = 0.9 WHERE memory_id = 'a'")
    third = project_texts(primary, adapter, Encoder())
    assert (third.mode, third.written) == ("increment", 0)
    assert projected(primary, adapter) == table(primary)


def test_memories_of_one_text_share_a_vector(primary: Connection, sealing: ChromaDBAdapter) -> None:
    """Whoever has them, and whenever they are added or deleted."""
    remember(primary, ("a", "good morning"), ("b", "good morning"), ("c", "onion soup"))
    remember(primary, ("d", "good morning"), user="v")
    assert project_texts(primary, sealing, Encoder()).written == 4
    assert projected(primary, sealing) == table(primary)
    remember(primary, ("e", "good morning"), ("f", "onion soup"), ("g", "rain"), user="v")
    added = project_texts(primary, sealing, Encoder())
    assert (added.mode, added.written) == ("increment", 3)
    assert projected(primary, sealing) == table(primary)
    primary.execute("DELETE FROM memories WHERE memory_id = 'd'")
    primary.execute("UPDATE memories SET user_id = 'v' WHERE memory_id = 'a'")
    done = project_texts(primary, sealing, Encoder())
    assert (done.mode, done.deleted) == ("increment", 1)
    assert projected(primary, sealing) == table(primary)
    with index_of(primary, sealing) as index:
        assert [id_ for id_, _ in index.query("good morning", 3)] == ["a", "b", "e"]
        assert [id_ for id_, _ in index.query("good morning", 2, user_id="v")] == ["a", "e"]
        assert [id_ for id_, _ in index.query("good morning", 1, user_id="u")] == ["b"]
        assert index.count() == 6


PLACES = ("Oslo", "Lima", "Kyoto", "Accra", "Quito", "Tunis", "Hanoi", "Perth", "Delhi", "Minsk")
TOPICS = ("my sister's wedding", "a broken bicycle", "the exam on Monday", "learning the cello",
          "a new kitten")  # fmt: skip


@pytest.mark.parametrize("compared", [index_.COMPARED, 10])
def test_many_equal_memories_hide_no_other(
    primary: Connection, sealing: ChromaDBAdapter, monkeypatch: pytest.MonkeyPatch, compared: int
) -> None:
    """By comparing every vector, and by Chroma's index, whose recall the audit measures."""
    others = {f"{place}-{topic}": f"{topic} in {place}" for place in PLACES for topic in TOPICS}
    remember(primary, *((f"s{number}", "The person said good morning.") for number in range(6000)))
    remember(primary, *others.items(), user="v")
    project_texts(primary, sealing, Encoder())
    monkeypatch.setattr(index_, "COMPARED", compared)
    with index_of(primary, sealing) as index:
        for whose in (None, "v"):
            for memory_id, text in others.items():
                assert memory_id in {id_ for id_, _ in index.query(text, 5, user_id=whose)}
        assert len(index.query("good morning", 10, user_id="u")) == 10
        assert index.query("good morning", 10, user_id="nobody") == []


def test_a_store_of_an_earlier_layout_is_made_anew(
    primary: Connection, sealing: ChromaDBAdapter
) -> None:
    """It had the texts; search works even before the next sync, and after it they are gone."""
    remember(primary, ("a", "onion soup"), ("b", "onion soup"), ("c", "rain"))
    with sealing.connect() as store:
        store.collection(MEMORIES).upsert(
            ["a", "b", "c"],
            Encoder().encode_usable(["onion soup", "onion soup", "rain"])[0],
            ["onion soup", "onion soup", "rain"],
            [{"user_id": "u"}] * 3,
        )
        store.state = {"memories by text": {"database_id": "", "seq": 0, "anchor": ""}}
    with index_of(primary, sealing, compared=0) as index:
        assert [id_ for id_, _ in index.query("onion soup", 2, user_id="u")] == ["a", "b"]
    assert project_texts(primary, sealing, Encoder()).mode == "full"
    assert projected(primary, sealing) == table(primary)


LEVEL_0 = "data_level0.bin"


@pytest.mark.parametrize("small", [vectors.SMALL, 0])
def test_what_is_forgotten_is_gone_from_the_disk(
    primary: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: int
) -> None:
    """No text is in Chroma's files, here unencrypted; vectors of deleted texts go as well."""
    monkeypatch.setattr(vectors, "SMALL", small)
    adapter = ChromaDBAdapter(tmp_path / "home" / "vectors")
    folder = tmp_path / "home" / "vectors"
    remember(primary, ("a", SECRET), ("b", "onion soup"), ("c", "my sister Ragnhildur"))
    remember(primary, *((f"m{number}", f"memory {number}") for number in range(1_200)))
    project_texts(primary, adapter, Encoder())
    gone = Encoder().encode_usable([SECRET, "my sister Ragnhildur"])[0]
    stored = [vector.astype("<f4").tobytes() for vector in gone]
    files = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    assert any(one in content for one in stored for content in files)
    primary.execute("DELETE FROM memories WHERE memory_id = 'a' OR memory_id LIKE 'm%1'")
    remember(primary, ("c", "my sister"))
    done = project_texts(primary, adapter, Encoder())
    assert (done.mode, done.written, done.deleted) == ("increment", 1, 121)
    assert projected(primary, adapter) == table(primary)
    for path in folder.rglob("*"):
        if path.is_file():
            assert not any(one in path.read_bytes() for one in stored), path.name
    # hnswlib writes uninitialised memory with arbitrary content: see the README.
    for text in (SECRET, "Ragnhildur"):
        assert [p for p in plain_text_files(folder, text) if p.name != LEVEL_0] == []
    kept = {key for (key,) in primary.fetch_all("SELECT text_sha256 FROM text_vectors")}
    assert kept == {text_sha256(text) for text, _ in table(primary).values()}


def test_deleting_a_person_deletes_their_memories(
    primary: Connection, sealing: ChromaDBAdapter
) -> None:
    """The table's foreign key deletes them, and the feed records it."""
    remember(primary, ("a", "mine"))
    remember(primary, ("b", "yours"), user="v")
    project_texts(primary, sealing, Encoder())
    primary.execute("DELETE FROM users WHERE user_id = 'u'")
    project_texts(primary, sealing, Encoder())
    assert projected(primary, sealing).keys() == {"b"}


def test_blank_memories_have_no_vector(primary: Connection, sealing: ChromaDBAdapter) -> None:
    """They are counted as skipped; a memory that gets text gets a vector."""
    remember(primary, ("a", " \n"), ("b", "onion soup"))
    first = project_texts(primary, sealing, Encoder())
    assert (first.written, first.skipped) == (1, 1)
    remember(primary, ("a", "words"), ("b", ""))
    second = project_texts(primary, sealing, Encoder())
    assert (second.written, second.skipped) == (1, 1)
    assert projected(primary, sealing) == table(primary)


def test_a_foreign_programs_bad_text_stops_nobody(
    primary: Connection, sealing: ChromaDBAdapter
) -> None:
    """The driver would panic on it, or truncate it. Bytes that are no text are replaced."""
    remember(primary, ("a", "onion soup"), ("b", "x"), ("c", "x"))
    for memory_id, content in (("b", "ff61"), ("c", "610062")):
        primary.execute(
            f"UPDATE memories SET content = CAST(x'{content}' AS TEXT) WHERE memory_id = ?",
            [memory_id],
        )
    done = project_texts(primary, sealing, Encoder())
    assert (done.written, done.skipped) == (3, 0)
    assert projected(primary, sealing)["b"][0] == "\ufffda"
    assert projected(primary, sealing)["c"][0] == "a\0b"


def test_full_makes_everything_anew(primary: Connection, adapter: ChromaDBAdapter) -> None:
    """Also entries that another program changed."""
    remember(primary, ("a", "onion soup"))
    project_texts(primary, adapter, Encoder())
    with adapter.connect() as store:
        store.collection(MEMORIES).upsert(["zombie"], [[1.0] * 256], ["x"])
    assert project_texts(primary, adapter, Encoder(), full=True).mode == "full"
    assert projected(primary, adapter) == table(primary)


def test_deleted_vectors_are_made_again(primary: Connection, sealing: ChromaDBAdapter) -> None:
    """A projection can always be rebuilt."""
    remember(primary, ("a", "onion soup"))
    project_texts(primary, sealing, Encoder())
    assert sealing.path is not None
    sealing.path.with_name("vectors.age").unlink()
    assert project_texts(primary, sealing, Encoder()).mode == "full"
    assert projected(primary, sealing) == table(primary)


@pytest.mark.parametrize("name", ["state.json", "chroma.sqlite3"])
@pytest.mark.parametrize("harm", ["gone", "folder", "garbage"])
def test_files_of_plain_vectors_that_are_damaged_are_made_again(
    primary: Connection, tmp_path: Path, name: str, harm: str
) -> None:
    """The remaining files would claim entries that no longer exist."""
    adapter = ChromaDBAdapter(tmp_path / "home" / "vectors", busy_timeout=0.1)
    remember(primary, ("a", "onion soup"), ("b", "likes tea"))
    project_texts(primary, adapter, Encoder())
    file = tmp_path / "home" / "vectors" / name
    file.unlink()
    if harm == "folder":
        file.mkdir()
    elif harm == "garbage":
        file.write_bytes(b"garbage" * 1_000)
    remember(primary, ("c", "knows the sea"))
    done = project_texts(primary, adapter, Encoder())
    assert done.mode == "full"
    assert done.rebuilt == (name == "chroma.sqlite3")
    assert projected(primary, adapter) == table(primary)


def test_sound_vectors_stay_where_the_primary_database_is_damaged(
    primary: Connection, sealing: ChromaDBAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise search by meaning would fail until a backup is restored."""
    remember(primary, ("a", "onion soup"))
    project_texts(primary, sealing, Encoder())
    remember(primary, ("b", "likes tea"))
    with monkeypatch.context() as patched:
        patched.setattr(
            type(primary), "fetch_batches", Mock(side_effect=CorruptDatabase("aico.db"))
        )
        with pytest.raises(CorruptDatabase, match=r"aico.db"):
            project_texts(primary, sealing, Encoder(), full=True)
    assert set(projected(primary, sealing)) == {"a"}


@pytest.mark.parametrize("which", ["primary", "vectors"])
def test_a_restored_backup_is_noticed(
    primary: Connection, sealing: ChromaDBAdapter, tmp_path: Path, which: str
) -> None:
    """For either database, also if no memory changed after the other's backup."""
    home, backup = tmp_path / "home", tmp_path / "backup"
    remember(primary, ("a", "onion soup"))
    project_texts(primary, sealing, Encoder())
    primary.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copytree(home, backup)
    remember(primary, ("b", "a new cat"))
    project_texts(primary, sealing, Encoder())
    feed.acknowledge(primary, vectors.CONSUMER, feed.head(primary).seq)
    primary.close()
    names = ("aico.db", "aico.db-wal", "aico.db-shm") if which == "primary" else ("vectors.age",)
    for name in names:
        (home / name).unlink(missing_ok=True)
        if (backup / name).exists():
            shutil.copy(backup / name, home / name)
    with LibSQLAdapter(home / "aico.db", KEYS.libsql()).connect() as restored:
        assert project_texts(restored, sealing, Encoder()).mode != "nothing"
        assert projected(restored, sealing) == table(restored)


def test_a_pruned_feed_means_starting_anew(primary: Connection, sealing: ChromaDBAdapter) -> None:
    """The feed keeps the changes that the vectors have not acknowledged."""
    remember(primary, ("a", "onion soup"))
    project_texts(primary, sealing, Encoder())
    remember(primary, ("b", "a new cat"))
    feed.acknowledge(primary, "another", feed.head(primary).seq)
    assert project_texts(primary, sealing, Encoder()).mode == "increment"
    remember(primary, ("c", "rain"))
    primary.execute("DELETE FROM feed_consumers WHERE consumer = ?", [vectors.CONSUMER])
    remember(primary, ("d", "snow"))
    feed.acknowledge(primary, "another", feed.head(primary).seq)
    assert project_texts(primary, sealing, Encoder()).mode == "full"
    assert projected(primary, sealing) == table(primary)


def test_changes_of_other_tables_move_only_the_cursor(
    primary: Connection, sealing: ChromaDBAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only after many changes, so that the feed can be pruned without sealing every time."""
    monkeypatch.setattr(vectors, "QUIET", 20)
    remember(primary, ("a", "onion soup"))
    project_texts(primary, sealing, Encoder())
    version = sealing.version()
    add(primary, *(message(number) for number in range(10)))
    assert project_texts(primary, sealing, Encoder()).mode == "nothing"
    assert sealing.version() == version
    add(primary, *(message(number) for number in range(10, 30)))
    assert project_texts(primary, sealing, Encoder()).mode == "nothing"
    assert sealing.version() != version
    acknowledged = primary.fetch_one("SELECT acknowledged FROM feed_consumers")
    assert acknowledged == (feed.head(primary).seq,)
    assert primary.fetch_one("SELECT count(*) FROM change_log") == (1,)
    assert projected(primary, sealing) == table(primary)


def test_a_crash_before_the_acknowledgement_is_replayed(
    primary: Connection, sealing: ChromaDBAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sealed cursor decides."""
    remember(primary, ("a", "onion soup"))

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(feed, "acknowledge", crash)
        with pytest.raises(KeyboardInterrupt):
            project_texts(primary, sealing, Encoder())
    assert project_texts(primary, sealing, Encoder()).mode == "nothing"
    assert projected(primary, sealing) == table(primary)


def test_a_failure_before_sealing_changes_nothing(
    primary: Connection, sealing: ChromaDBAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next run repeats the projection."""
    remember(primary, ("a", "onion soup"))
    project_texts(primary, sealing, Encoder())
    before = projected(primary, sealing)
    remember(primary, ("b", "a new cat"))

    def full(*_: object, **__: object) -> None:
        raise DiskFull("full")

    with monkeypatch.context() as patch:
        patch.setattr(sealed, "seal", full)
        with pytest.raises(DiskFull):
            project_texts(primary, sealing, Encoder())
    assert projected(primary, sealing) == before
    assert project_texts(primary, sealing, Encoder()).mode == "increment"
    assert projected(primary, sealing) == table(primary)


KILLED = """if True:
    import os, signal, sys, time
    from pathlib import Path
    import chromadb
    from aico_lab.adapters import sealed
    from aico_lab.adapters.chroma import ChromaDBAdapter
    from aico_lab.adapters.libsql import LibSQLAdapter
    from aico_lab.embeddings.encoders.wordllama import WordLlama as Encoder
    from aico_lab.projections.vectors import project_texts

    home, ram, libsql_key, chroma_key, *delays = sys.argv[1:]
    sealed.RAM = Path(ram)
    Encoder().encode_usable(["warm"])
    for number, delay in enumerate(delays):
        child = os.fork()
        if not child:
            with LibSQLAdapter(home + "/aico.db", libsql_key).connect() as primary:
                primary.execute(
                    "INSERT INTO memories SELECT 'k' || ? || '-' || value, 'u', "
                    "'number ' || value || ' of round ' || ?, 'episodic', 0.5, '', NULL "
                    "FROM json_each(?)",
                    [number, number, str(list(range(300)))],
                )
                if number % 3 == 2:
                    primary.execute("DELETE FROM memories WHERE memory_id LIKE '%7'")
                project_texts(primary, ChromaDBAdapter(home + "/vectors", chroma_key), Encoder())
            os._exit(0)
        time.sleep(float(delay))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        print(status, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("encrypted", [True, False])
def test_a_kill_at_any_instant_loses_nothing(
    primary: Connection, tmp_path: Path, ram: Path, *, encrypted: bool
) -> None:
    """After any kill, the next run brings the vectors to the table's state."""
    remember(primary, ("a", SECRET))
    key = KEYS.chroma() if encrypted else None
    adapter = ChromaDBAdapter(tmp_path / "home" / "vectors", key)
    delays = [f"{random.uniform(0.02, 1.2):.3f}" for _ in range(6)]
    code = KILLED if encrypted else KILLED.replace("chroma_key), Encoder", "None), Encoder")
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "home"), str(ram), KEYS.libsql() or "",
         KEYS.chroma() or "", *delays],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    statuses = done.stdout.split()
    assert str(int(signal.SIGKILL)) in statuses, f"nothing was killed with {delays}"
    project_texts(primary, adapter, Encoder())
    assert projected(primary, adapter) == table(primary), f"after {delays}: {statuses}"
    assert [path for path in ram.rglob("*") if path.is_dir() and path.parent.parent == ram] == []
    if encrypted:
        assert plain_text_files(tmp_path, "of round") == []


def test_the_index_finds_by_meaning(primary: Connection, sealing: ChromaDBAdapter) -> None:
    """Nearest first, of one person or of all; what is committed is found, projected or not."""
    index = index_of(primary, sealing)
    assert index.query("missing my family", 5) == []
    remember(primary, ("home", SECRET), ("soup", "a recipe for onion soup"))
    remember(primary, ("abroad", "homesick for my family"), user="v")
    project_texts(primary, sealing, Encoder())
    found = index.query("missing my family", 5)
    assert {memory_id for memory_id, _ in found} == {"home", "soup", "abroad"}
    assert found[0][0] == "abroad"
    assert found[-1][0] == "soup"
    vectors_ = Encoder().encode_usable(["missing my family", "homesick for my family"])[0]
    assert found[0][1] == pytest.approx(float(vectors_[0] @ vectors_[1]), abs=1e-5)
    assert index.query("missing my family", 1, user_id="u")[0][0] == "home"
    assert index.query("missing my family", 5, user_id="nobody") == []
    assert index.query("  ", 5) == []
    remember(primary, ("new", "missing my family"))
    assert index.query("missing my family", 1)[0][0] == "new"
    project_texts(primary, sealing, Encoder())
    assert index.query("missing my family", 1)[0][0] == "new"
    index.close()
    assert index.query("missing my family", 1)[0][0] == "new"
    index.close()


def test_one_persons_memories_are_the_same_however_they_are_looked_for(
    primary: Connection, sealing: ChromaDBAdapter
) -> None:
    """With few memories among many of others, or nearly all of them."""
    remember(primary, *((f"u{number}", f"number {number}") for number in range(60)))
    remember(primary, *((f"v{number}", f"soup {number}") for number in range(3)), user="v")
    project_texts(primary, sealing, Encoder())
    texts = primary.fetch_all("SELECT memory_id, content, user_id FROM memories")
    encoder = Encoder()
    with index_of(primary, sealing) as index:
        for user in ("u", "v"):
            ids = [memory_id for memory_id, _, whose in texts if whose == user]
            theirs = encoder.encode_usable([text for _, text, whose in texts if whose == user])[0]
            scores = theirs @ encoder.encode_usable(["number 7 soup"])[0][0]
            expected = sorted(zip(ids, scores.tolist(), strict=True), key=lambda pair: -pair[1])[:5]
            found = index.query("number 7 soup", 5, user_id=user)
            assert [score for _, score in found] == pytest.approx(
                [score for _, score in expected], abs=1e-5
            )
            assert {memory_id for memory_id, _ in found} <= set(ids)


def test_nothing_readable_remains(
    primary: Connection, sealing: ChromaDBAdapter, tmp_path: Path
) -> None:
    """Neither in the home nor in memory after everything is closed."""
    remember(primary, ("a", SECRET))
    project_texts(primary, sealing, Encoder())
    with index_of(primary, sealing, compared=0) as index:
        assert index.query("homesick", 1)
        assert list((tmp_path / "ram").rglob("chroma.sqlite3"))
    primary.close()
    assert plain_text_files(tmp_path, SECRET) == []


def set_preference(primary: Connection, key: str, value: str) -> None:
    with primary.transaction():
        primary.execute(
            "INSERT OR IGNORE INTO users (user_id, created_at) VALUES ('u', ?)", [START]
        )
        primary.execute(
            "INSERT OR REPLACE INTO preferences VALUES ('u', ?, ?, ?)", [key, value, START]
        )


def test_rows_that_change_leave_the_cache(primary: Connection) -> None:
    """The entries of other people and namespaces stay."""
    store = CacheStore(MemoryStore())
    set_preference(primary, "language", '"en"')
    invalidate(primary, store)
    kept = {"configuration:preferences:v": {}, "session:u": "x", "configuration:users:u": {}}
    store.put_many({"configuration:preferences:u": {"language": "en"}, **kept})
    assert invalidate(primary, store).mode == "nothing"
    set_preference(primary, "language", '"de"')
    done = invalidate(primary, store)
    assert (done.mode, done.deleted) == ("increment", 1)
    assert store.get("configuration:preferences:u") is None
    assert store.get_many(kept) == kept
    primary.execute("DELETE FROM users")
    assert invalidate(primary, store).deleted == 1
    assert store.get_many(kept) == {"configuration:preferences:v": {}, "session:u": "x"}
    assert store.counters()["configuration"].invalidations == 2


def test_a_cache_that_fell_behind_forgets_all_rows(primary: Connection) -> None:
    """The cache does not delay pruning; a new one has no cursor."""
    store = CacheStore(MemoryStore())
    store.put_many({"configuration:users:u": {}, "configuration:other": 1, "session:a": "x"})
    assert invalidate(primary, store).mode == "full"
    assert store.get("configuration:users:u") is None
    assert store.get("configuration:other") == 1
    store.put("configuration:users:u", {})
    set_preference(primary, "language", '"en"')
    set_preference(primary, "style", '"en"')
    feed.acknowledge(primary, "warehouse", feed.head(primary).seq)
    assert primary.fetch_all("SELECT consumer FROM feed_consumers") == [("warehouse",)]
    done = invalidate(primary, store)
    assert (done.mode, done.deleted) == ("full", 1)
    assert store.get("session:a") == "x"


def test_a_key_that_is_no_text_stops_no_invalidation(primary: Connection) -> None:
    """Another program may write a blob as an id; no entry is about such a row."""
    store = CacheStore(MemoryStore())
    invalidate(primary, store)
    primary.execute("INSERT INTO users (user_id, created_at) VALUES (x'ff00', ?)", [START])
    assert invalidate(primary, store).deleted == 0


def test_what_may_be_cached_is_in_the_feed(primary: Connection) -> None:
    """Otherwise a cached row would never be removed."""
    tables = {table for one in NAMESPACES.values() for table in one.tables}
    assert tables
    assert tables <= feed.tracked_tables(primary).keys()


def test_a_lab_syncs_everything(lab: Lab, tmp_path: Path) -> None:
    """One call syncs warehouse, vectors and cache, and leaves nothing readable."""
    remember(lab.primary, ("a", SECRET))
    key = "configuration:users:u"
    lab.cache.store.put(key, "the name of somebody")
    assert lab.sync().rows["memories"] == 1
    assert lab.cache.store.get(key) is None
    assert lab.memories.index.query("homesick", 1)[0][0] == "a"
    assert lab.sync().mode == "nothing"
    lab.cache.store.put(key, "the name of somebody")
    lab.primary.execute("UPDATE users SET name = 'x' WHERE user_id = 'u'")
    lab.sync()
    assert lab.cache.store.get(key) is None
    lab.close()
    for text in (SECRET, "the name of somebody"):
        assert plain_text_files(tmp_path, text) == []
    with pytest.raises(ConnectionIsClosed):
        _ = lab.cache.store
    with pytest.raises(ConnectionIsClosed):
        _ = lab.memories.index


def test_a_cache_that_is_held_elsewhere_stops_no_sync(lab: Lab, home: Path) -> None:
    """The holder removes changed rows; other processes can read meanwhile."""
    pytest.importorskip("rocksdict")
    with Lab.open(home) as other:
        other.cache.store.put("session:active_context", "x")
        lab.sync()
        with pytest.raises(DatabaseLocked):
            sync_cache(lab.primary, lab.home, lab.storage.keys, None)
        assert lab.cache.available is None
        assert other.cache.store.get("session:active_context") == "x"


def test_a_sync_without_memories_does_not_import_chromadb(lab: Lab, home: Path) -> None:
    """The import takes seconds; no empty store is made, and no change is logged."""
    add(lab.primary, message(1))
    code = f"""if True:
        import sys
        from aico_lab import Lab
        with Lab.open({str(home)!r}) as lab:
            lab.sync()
            lab.sync()
            lab.sync(full=True)
        print([name for name in ("chromadb", "wordllama", "rocksdict") if name in sys.modules])
    """
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert done.stdout == "[]\n"
    assert not list(home.glob("vectors*"))
    assert not (home / "cache").exists()
    assert lab.primary.fetch_one("SELECT count(*) FROM change_log") == (1,)
