"""RocksDB: nothing readable in its files, one writer, readers beside it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from aico_lab.adapters.rocksdb import RocksDBAdapter
from aico_lab.adapters.rocksdb_codec import MARK
from aico_lab.errors import (
    CorruptDatabase,
    DatabaseLocked,
    LibraryMissing,
    NotADatabase,
    NotPermitted,
)
from tests.conftest import plain_text_files

rocksdict = pytest.importorskip("rocksdict")

KEY = b"k" * 32
SECRET = "the time I felt homesick in Reykjavik"
PATIENT = "patients:somebody with a name"


@pytest.fixture
def adapter(tmp_path: Path) -> RocksDBAdapter:
    return RocksDBAdapter(tmp_path / "cache", KEY)


def fill(adapter: RocksDBAdapter) -> None:
    with adapter.connect() as store:
        store.put(PATIENT.encode(), SECRET.encode())
        store.write({b"quarrels:Berlin": SECRET.encode() * 100})


def test_the_documents_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As printed, with the adapter in place of `rocksdb.DB` and its options."""
    monkeypatch.chdir(tmp_path)
    context_data = b'{"topic": "machine learning"}'
    with RocksDBAdapter("aico_cache.rdb", KEY).connect() as db:
        # Fast key-value operations
        db.put(b"session:active_context", context_data)
        current_context = db.get(b"session:active_context")
        assert current_context == context_data


def test_no_key_and_no_value_is_readable_in_any_file(
    adapter: RocksDBAdapter, tmp_path: Path
) -> None:
    """Neither in the log of an open store, nor in its tables, nor in RocksDB's own log."""
    with adapter.connect() as store:
        store.put(PATIENT.encode(), SECRET.encode())
        for text in (SECRET, PATIENT, "patients", "somebody"):
            assert plain_text_files(tmp_path, text) == []
    fill(adapter)
    assert [path for path in (tmp_path / "cache").iterdir() if path.suffix == ".sst"]
    for text in (SECRET, PATIENT, "patients", "somebody", "quarrels", "Berlin"):
        assert plain_text_files(tmp_path, text) == []
    plain = RocksDBAdapter(tmp_path / "plain")
    fill(plain)
    assert plain_text_files(tmp_path, SECRET)  # the search finds what is there
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700


def test_a_value_cannot_be_moved_to_another_key(adapter: RocksDBAdapter) -> None:
    """It is authenticated with its stored key; a changed value is refused, too."""
    fill(adapter)
    options = rocksdict.Options(raw_mode=True)
    raw = rocksdict.Rdict(str(adapter.path), options)
    (one, _), (other, value) = [item for item in raw.items() if item[0] != MARK]
    raw.put(one, value)
    raw.put(other, value[:-1] + bytes([value[-1] ^ 1]))
    raw.close()
    with adapter.connect() as store:
        for key in (PATIENT.encode(), b"quarrels:Berlin"):
            with pytest.raises(CorruptDatabase, match="delete the cache"):
                store.get(key)
        with pytest.raises(CorruptDatabase):
            store.items()
    adapter.connect().close()  # an error that is still held keeps no file open


def test_equal_values_look_different(adapter: RocksDBAdapter) -> None:
    """Each value has its own nonce."""
    with adapter.connect() as store:
        store.write({b"a": b"same", b"b": b"same"})
        store.put(b"a", b"same")
    raw = rocksdict.Rdict(str(adapter.path), rocksdict.Options(raw_mode=True))
    values = [value for key, value in raw.items() if key != MARK]
    raw.close()
    assert len({value[:12] for value in values}) == 2


def test_a_second_opening_is_refused_here_and_elsewhere(adapter: RocksDBAdapter) -> None:
    """The operating system releases the lock after closing."""
    code = f"""if True:
        from aico_lab.adapters.rocksdb import RocksDBAdapter
        try:
            RocksDBAdapter({str(adapter.path)!r}, {KEY!r}).connect()
        except Exception as error:
            print(type(error).__name__)
    """
    with adapter.connect():
        with pytest.raises(DatabaseLocked, match="close it first"):
            adapter.connect()
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert done.stdout == "DatabaseLocked\n"
    adapter.connect().close()


def _files(folder: Path) -> dict[str, tuple[int, int]]:
    states = ((file.name, file.stat()) for file in folder.iterdir())
    return {name: (state.st_size, state.st_mtime_ns) for name, state in states}


def test_a_reader_sees_what_the_writer_wrote(adapter: RocksDBAdapter, tmp_path: Path) -> None:
    """As of its opening, while the writer goes on; it changes nothing and leaves no file."""
    scratch = set(Path(tempfile.gettempdir()).glob("aico-lab-*"))
    with adapter.connect() as writer:
        writer.put(b"session:a", b"1")
        writer.compact()
        writer.put(b"session:b", b"2")
        before = _files(adapter.path)
        with RocksDBAdapter(adapter.path, KEY, read_only=True).connect() as reader:
            assert _files(adapter.path) == before
            writer.put(b"session:a", b"3")
            writer.compact()  # removes the table that the reader has open
            assert reader.items(b"session") == [(b"session:a", b"1"), (b"session:b", b"2")]
            with pytest.raises(NotPermitted, match="was opened read-only"):
                reader.put(b"session:a", b"4")
    assert set(Path(tempfile.gettempdir()).glob("aico-lab-*")) == scratch
    with pytest.raises(NotADatabase):
        RocksDBAdapter(tmp_path / "nothing", KEY, read_only=True).connect()
    assert not (tmp_path / "nothing").exists()


def test_what_was_put_survives_a_kill(adapter: RocksDBAdapter) -> None:
    """The write-ahead log has it at once."""
    code = f"""if True:
        import os, signal
        from aico_lab.adapters.rocksdb import RocksDBAdapter
        store = RocksDBAdapter({str(adapter.path)!r}, {KEY!r}).connect()
        for number in range(1000):
            store.put(b"session:%d" % number, b"v%d" % number)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    killed = subprocess.run([sys.executable, "-c", code], check=False)
    assert killed.returncode == -signal.SIGKILL
    with adapter.connect() as store:
        assert len(store.items(b"session")) == 1000
        assert store.get(b"session:999") == b"v999"


def test_another_programs_store_is_refused(tmp_path: Path, adapter: RocksDBAdapter) -> None:
    """The store is neither read nor written."""
    raw = rocksdict.Rdict(str(tmp_path / "theirs"), rocksdict.Options(raw_mode=True))
    raw.put(b"a", b"1")
    raw.close()
    for key in (KEY, None):
        with pytest.raises(NotADatabase):
            RocksDBAdapter(tmp_path / "theirs", key).connect()
    fill(adapter)
    with pytest.raises(NotADatabase):
        RocksDBAdapter(adapter.path).connect()
    fill(RocksDBAdapter(tmp_path / "plain"))
    with pytest.raises(NotADatabase):
        RocksDBAdapter(tmp_path / "plain", KEY).connect()


def test_damage_is_told(adapter: RocksDBAdapter) -> None:
    """The error says how to rebuild the cache."""
    fill(adapter)
    for table in adapter.path.glob("*.sst"):
        table.write_bytes(b"x" * table.stat().st_size)
    with pytest.raises(CorruptDatabase, match="which rebuilds it"), adapter.connect() as store:
        store.items()
    shutil.rmtree(adapter.path)
    adapter.connect().close()


@pytest.mark.slow
def test_no_damaged_byte_of_a_table_hides_entries(adapter: RocksDBAdapter) -> None:
    """The driver's iterator ends there silently; here all are read, or an error is raised."""
    entries = {f"a:{number}".encode(): bytes(3_000) for number in range(200)}
    with adapter.connect() as store:
        store.write(entries)
    adapter.connect().close()  # which moves the entries from the log into a table
    (table,) = adapter.path.glob("*.sst")
    sound = table.read_bytes()
    noticed = 0
    for place in range(100, len(sound), len(sound) // 24):
        table.write_bytes(sound[:place] + bytes([sound[place] ^ 0xFF]) + sound[place + 1 :])
        try:
            with adapter.connect() as store:
                assert dict(store.items()) == entries
        except CorruptDatabase:
            noticed += 1
    assert noticed > 12


def test_a_damaged_block_is_no_early_end(adapter: RocksDBAdapter) -> None:
    """The driver's iterator ends there silently; here the damage raises an error."""
    with adapter.connect() as store:
        store.write({b"session:%03d" % number: os.urandom(1_000) for number in range(40)})
    adapter.connect().close()  # which moves them from the log into a table
    (table, *_) = sorted(adapter.path.glob("*.sst"), key=lambda path: path.stat().st_size)[::-1]
    content = bytearray(table.read_bytes())
    content[len(content) // 2] ^= 1
    table.write_bytes(content)
    with pytest.raises(CorruptDatabase, match="sync --full"), adapter.connect() as store:
        store.items()


def test_the_stores_own_entry_is_out_of_reach(tmp_path: Path) -> None:
    """No key of a user can collide with the store's mark."""
    with RocksDBAdapter(tmp_path / "plain").connect() as store:
        assert store.items() == []
        store.put(MARK, b"x")
    with RocksDBAdapter(tmp_path / "plain").connect() as store:
        assert store.items() == [(MARK, b"x")]


def test_without_the_library_there_is_a_sentence(
    adapter: RocksDBAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library is optional."""
    monkeypatch.setitem(sys.modules, "rocksdict", None)
    with pytest.raises(LibraryMissing, match=r"aico-lab\[cache\]"):
        adapter.connect()
    assert not adapter.path.exists()
