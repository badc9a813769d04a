"""The contract of all adapters, on all four databases, encrypted."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from aico_lab.adapters import age, sealed
from aico_lab.adapters.chroma import ChromaDBAdapter
from aico_lab.adapters.duckdb import DuckDBAdapter
from aico_lab.adapters.libsql import LibSQLAdapter
from aico_lab.adapters.rocksdb import RocksDBAdapter
from aico_lab.errors import ConnectionIsClosed, CorruptDatabase, InvalidValue, NotADatabase
from aico_lab.home.keys import Keys
from tests.conftest import plain_text_files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from aico_lab.adapters.base import DatabaseAdapter

RIGHT, WRONG, NONE = Keys(b"r" * 32), Keys(b"w" * 32), Keys(None)
SECRET = "the time I felt homesick in Reykjavik"


def write_row(connection: Any) -> None:
    connection.execute("CREATE TABLE t (x VARCHAR)")
    connection.execute("INSERT INTO t VALUES (?)", [SECRET])


@dataclass(frozen=True)
class Kind:
    """One database: how it is opened, and how a secret is written and read."""

    file: str
    adapter: Callable[[Path, Keys], DatabaseAdapter[Any]]
    write: Callable[[Any], object]
    read: Callable[[Any], object]


KINDS = {
    "libsql": Kind(
        "aico.db",
        lambda path, keys: LibSQLAdapter(path, keys.libsql()),
        write_row,
        lambda connection: connection.fetch_one("SELECT x FROM t")[0],
    ),
    "duckdb": Kind(
        "writer.duckdb",
        lambda path, keys: DuckDBAdapter(
            path, keys.duckdb(), read_only=False, temporary=path.parent
        ),
        write_row,
        lambda connection: connection.execute("SELECT x FROM t").fetchone()[0],
    ),
    "chroma": Kind(
        "vectors",
        lambda path, keys: ChromaDBAdapter(path, keys.chroma(), busy_timeout=0.1),
        lambda store: store.collection("memories").upsert(["a"], [[1, 2]], [SECRET]),
        lambda store: store.collection("memories").get(["a"])["a"].text,
    ),
    "rocksdb": Kind(
        "cache",
        lambda path, keys: RocksDBAdapter(path, keys.rocksdb()),
        lambda store: store.put(b"a", SECRET.encode()),
        lambda store: store.get(b"a").decode(),
    ),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Kind:
    if request.param == "rocksdb":
        pytest.importorskip("rocksdict")
    (tmp_path / "ram").mkdir()
    (tmp_path / "home").mkdir()
    monkeypatch.setattr(sealed, "RAM", tmp_path / "ram")
    return KINDS[request.param]


@pytest.fixture
def path(kind: Kind, tmp_path: Path) -> Path:
    return tmp_path / "home" / kind.file


def test_what_is_written_is_read_by_the_next_connection(kind: Kind, path: Path) -> None:
    """The secret does not appear in any file."""
    adapter = kind.adapter(path, RIGHT)
    connection = adapter.connect()
    adapter.health(connection)
    kind.write(connection)
    assert kind.read(connection) == SECRET
    adapter.disconnect(connection)
    assert any(path.parent.iterdir())
    assert plain_text_files(path.parent.parent, SECRET) == []
    again = adapter.connect()
    assert kind.read(again) == SECRET
    adapter.disconnect(again)


def test_a_connection_can_be_released_twice(kind: Kind, path: Path) -> None:
    """A second release does nothing, not even to a newer connection."""
    adapter = kind.adapter(path, RIGHT)
    connection = adapter.connect()
    kind.write(connection)
    adapter.disconnect(connection)
    after = adapter.connect()
    adapter.disconnect(connection)
    adapter.health(after)
    assert kind.read(after) == SECRET
    adapter.disconnect(after)


def test_a_released_connection_is_not_healthy(kind: Kind, path: Path) -> None:
    """`health` raises one of our errors."""
    adapter = kind.adapter(path, RIGHT)
    connection = adapter.connect()
    adapter.disconnect(connection)
    with pytest.raises(ConnectionIsClosed, match="closed before"):
        adapter.health(connection)


@pytest.mark.parametrize("keys", [WRONG, NONE], ids=["another key", "no key"])
def test_only_its_key_opens_a_database(kind: Kind, path: Path, keys: Keys) -> None:
    """A failed attempt changes nothing, and no key is in the error or its causes."""
    adapter = kind.adapter(path, RIGHT)
    connection = adapter.connect()
    kind.write(connection)
    adapter.disconnect(connection)
    with pytest.raises(NotADatabase) as refused:
        kind.adapter(path, keys).connect()
    error: BaseException | None = refused.value
    secrets = [keys.libsql(), keys.duckdb(), keys.chroma(), repr(keys.rocksdb())]
    while error is not None:
        assert not any(secret in str(error) for secret in secrets if secret)
        error = error.__cause__ or error.__context__
    connection = adapter.connect()
    assert kind.read(connection) == SECRET
    adapter.disconnect(connection)


def test_something_else_is_not_opened(kind: Kind, path: Path) -> None:
    """The file is not changed either."""
    garbage = base64.b64encode(b"this is no database" * 1000)
    path.write_bytes(garbage)
    with pytest.raises(NotADatabase):
        kind.adapter(path, RIGHT).connect()
    assert path.read_bytes() == garbage


def test_an_unencrypted_database_is_refused_where_there_is_a_key(kind: Kind, path: Path) -> None:
    """Otherwise private data would be written to it unencrypted."""
    adapter = kind.adapter(path, NONE)
    connection = adapter.connect()
    kind.write(connection)
    adapter.disconnect(connection)
    with pytest.raises(NotADatabase):
        kind.adapter(path, RIGHT).connect()


def test_a_file_that_age_would_read_for_hours_is_refused_everywhere(tmp_path, monkeypatch):
    """Anybody may have written it: a file of a shared folder, a backup or a report."""
    identity, _ = age.new_identity()
    path, key = tmp_path / "long.age", tmp_path / "key"
    path.write_bytes(age.HEADER + b"-> X25519 abc\n" + (b"A" * 64 + b"\n") * 300 + b"--- abc")
    key.write_text(identity)
    for name in ("decrypt", "decrypt_io"):
        monkeypatch.setattr(age.pyrage, name, lambda *_: pytest.fail("was read"))
    with pytest.raises(CorruptDatabase):
        age.open_bytes(path.read_bytes(), [identity])
    with pytest.raises(CorruptDatabase), path.open("rb") as file:
        age.decrypt_stream(file, io.BytesIO(), [identity], name="long.age")
    with pytest.raises(CorruptDatabase):
        age.decrypt(path, key)
    with pytest.raises(CorruptDatabase):
        sealed.peek(path, identity)


def test_a_file_opens_for_as_many_recipients_as_it_may_be_encrypted_for():
    (identity, last), *others = (age.new_identity() for _ in range(129))
    most = [*(recipient for _, recipient in others[1:]), last]
    assert age.open_bytes(age.encrypt(b"x", most), [identity]) == b"x"
    with pytest.raises(InvalidValue, match="for 128 at most"):
        age.encrypt(b"x", [*most, others[0][1]])
