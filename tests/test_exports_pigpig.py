"""PigPig's channel memory: order, times, damage, and that nothing is written beside it."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
import zipfile

import pytest

from aico_lab.adapters import sealed
from aico_lab.adapters.libsql_readonly import open_readonly
from aico_lab.sources import recognise
from tests.exported import read

MIRA, PIG = "811", "822"


def database(path, *rows, users=(), keep_open=False, journal="WAL"):
    """Write a database; rows are (id, channel, user, content, timestamp, type, metadata)."""
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA journal_mode = {journal}")
    connection.execute(
        "CREATE TABLE messages (message_id TEXT PRIMARY KEY, channel_id TEXT, user_id TEXT,"
        " content TEXT, content_processed TEXT, timestamp DATETIME, message_type TEXT,"
        " relevance_score REAL, metadata TEXT)"
    )
    connection.execute("CREATE TABLE users (user_id TEXT PRIMARY KEY, display_name TEXT)")
    columns = "(message_id, channel_id, user_id, content, timestamp, message_type, metadata)"
    for row in rows:
        connection.execute(f"INSERT OR REPLACE INTO messages {columns} VALUES (?,?,?,?,?,?,?)", row)
    connection.executemany("INSERT INTO users VALUES (?, ?)", users)
    connection.commit()
    if not keep_open:
        connection.close()
    return connection


def row(name, content, user=MIRA, kind="user", *, at="2025-06-01 18:00:00+00:00", metadata=None,
        channel="11"):  # fmt: skip
    return (name, channel, user, content, at, kind, metadata)


def test_a_row_stored_anew_keeps_its_place(tmp_path):
    """Ids of Discord count up; one more digit is a later message."""
    path = tmp_path / "memory.db"
    rows = [row("99", "First"), row("100", "Second"), row("99", "First, again")]
    database(path, *rows)
    assert read("pigpig", path).contents == ["First, again", "Second"]


def test_ids_that_are_no_numbers_keep_the_order_of_the_rows(tmp_path):
    path = tmp_path / "memory.db"
    database(path, row("b", "First"), row("a", "Second"))
    assert read("pigpig", path).contents == ["First", "Second"]


def test_names_replies_and_attachments_are_kept(tmp_path):
    path = tmp_path / "memory.db"
    details = {"author_name": "PigPig", "reply_to": 1, "has_attachments": True, "has_embeds": True}
    database(
        path,
        row("1", "Hi"),
        row("2", "Oink", PIG, "bot", metadata=json.dumps(details)),
        row("3", "Joined", kind="system"),
        row("4", "Bye", metadata="{broken"),
        users=[(MIRA, "Mira")],
    )
    got = read("pigpig", path)
    assert got.contents == ["Hi", "Oink", "Bye"]
    assert got.roles == ["user", "assistant", "user"]
    assert got.messages[1].reply_to == got.messages[0].message_id
    assert got.metadata[1]["attachments"] == [{"kind": "file"}, {"kind": "embed"}]
    assert [user.name for user in got.batches[0].users] == ["Mira"]
    assert got.skipped == {"notice": 1}


def test_a_channel_with_several_people_is_a_group(tmp_path):
    path = tmp_path / "memory.db"
    database(path, row("1", "Hi"), row("2", "Ho", "833"), row("3", "Hu", channel="12"))
    channels = read("pigpig", path).channels
    assert [channels[f"pigpig:{name}"].kind for name in (11, 12)] == ["group", "direct"]


@pytest.mark.parametrize(
    ("at", "stored"),
    [
        ("2025-06-01 18:00:00.5+00:00", "18:00:00.500000Z"),
        ("2025-06-02T02:00:00+08:00", "18:00:00.000000Z"),
        ("2025-06-01 18:00:00", "18:00:00.000000Z"),
        (1748800800, "18:00:00.000000Z"),
        (1748800800.25, "18:00:00.250000Z"),
    ],
)
def test_each_form_of_a_time_is_read(tmp_path, at, stored):
    path = tmp_path / "memory.db"
    database(path, row("1", "Hi", at=at))
    assert read("pigpig", path).times == [f"2025-06-01T{stored}"]


@pytest.mark.parametrize("journal", ["WAL", "DELETE"])
@pytest.mark.parametrize("keep_open", [False, True])
def test_nothing_is_written_beside_the_database(tmp_path, journal, keep_open):
    """The bot may run, with messages in its log only."""
    path = tmp_path / "memory.db"
    connection = database(path, row("1", "Hi"), keep_open=keep_open, journal=journal)
    before = {
        file.name: file.read_bytes() for file in tmp_path.iterdir() if "-shm" not in file.name
    }
    names = {file.name for file in tmp_path.iterdir()}
    assert recognise(path).name == "pigpig"
    assert read("pigpig", path).contents == ["Hi"]
    assert {file.name for file in tmp_path.iterdir()} == names
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    connection.close()


def test_a_log_in_an_archive_is_applied(tmp_path):
    """The bot was killed, or its files were packed while it ran."""
    path = tmp_path / "memory.db"
    connection = database(path, row("1", "Hi"), keep_open=True)
    packed = tmp_path / "backup.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for file in tmp_path.glob("memory.db*"):
            archive.write(file, f"data/{file.name}")
    connection.close()
    assert recognise(packed).name == "pigpig"
    assert read("pigpig", packed).contents == ["Hi"]


def test_other_databases_are_not_taken(tmp_path):
    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE messages (message_id, content)")
    connection.close()
    with pytest.raises(Exception, match="none of the known formats"):
        recognise(path)


def test_a_damaged_page_leaves_the_other_messages(tmp_path):
    path = tmp_path / "memory.db"
    long = "x" * 9_000  # so long that a part of it lies on pages of its own
    rows = [
        row(str(number), f"{number} {long}", at=f"2025-06-01 18:{number}:00")
        for number in range(10, 40)
    ]
    database(path, *rows, journal="DELETE")
    data = bytearray(path.read_bytes())
    at = data.index(b"25 xxx") & ~4095  # the page where that row begins
    data[at : at + 4096] = b"\xff" * 4096
    path.write_bytes(data)
    got = read("pigpig", path)
    assert 20 <= len(got.contents) < 30
    assert got.rejected
    assert all(text.endswith(long) for text in got.contents)


@pytest.mark.parametrize(
    "bad", [(None,) * 5, (b"\xff", b"\x00", 7, b"\xfe", "{}"), ("", "", "", "", "[]")]
)
def test_values_of_any_type_are_read(tmp_path, bad):
    path = tmp_path / "memory.db"
    user, content, at, kind, metadata = bad
    odd = row("2", content, user=user, kind=kind, at=at, metadata=metadata)
    database(path, row("1", "Hi"), odd, row("3", "Ho"))
    got = read("pigpig", path)
    assert [text for text in got.contents if text] == ["Hi", "Ho"]


@pytest.fixture
def crashed(tmp_path, monkeypatch):
    """A database whose program was killed, so that it is read from a copy."""
    (tmp_path / "ram").mkdir()
    monkeypatch.setattr(sealed, "RAM", tmp_path / "ram")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "ram"))
    (tmp_path / "bot").mkdir()
    writing = database(tmp_path / "memory.db", row("1", "CANARY"), keep_open=True)
    for suffix in ("", "-wal"):
        shutil.copy(tmp_path / f"memory.db{suffix}", tmp_path / "bot")
    writing.close()
    return tmp_path / "bot" / "memory.db"


@pytest.mark.parametrize("is_zip", [False, True])
def test_a_database_is_copied_once(crashed, monkeypatch, *, is_zip):
    path = crashed
    if is_zip:
        path = crashed.with_suffix(".zip")
        with zipfile.ZipFile(path, "w") as archive:
            for name in ("memory.db", "memory.db-wal"):
                archive.write(crashed.with_name(name), name)
    made = []
    make = sealed.PrivateFolder.__init__

    def noted(self, size=0):
        make(self, size)
        made.append(self)

    monkeypatch.setattr(sealed.PrivateFolder, "__init__", noted)
    assert read("pigpig", path).contents == ["CANARY"]
    assert len(made) == 1 + is_zip
    assert not any(one.path.exists() for one in made)


KILLED = """
import os, signal, sys
from pathlib import Path
from aico_lab.adapters import sealed
from aico_lab.adapters.libsql_readonly import open_readonly
sealed.RAM = Path(sys.argv[2])
with open_readonly(Path(sys.argv[1]), None):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_copy_of_a_program_that_was_killed_is_found_and_removed(crashed, tmp_path):
    ram = tmp_path / "ram"
    subprocess.run([sys.executable, "-c", KILLED, crashed, ram], check=False)
    (left,) = sealed.left_open()
    assert b"CANARY" in b"".join(path.read_bytes() for path in left.iterdir())
    with open_readonly(crashed, None) as connection:
        assert connection.fetch_all("SELECT content FROM messages") == [("CANARY",)]
        assert not left.exists()
        assert sealed.left_open() == []  # this copy has an owner
    assert not [path for path in ram.rglob("*") if path.is_file()]


def test_a_copy_too_large_for_the_memory_is_among_the_temporary_files(tmp_path, monkeypatch):
    (tmp_path / "ram").mkdir()
    monkeypatch.setattr(sealed, "RAM", tmp_path / "ram")
    monkeypatch.setattr(sealed.tempfile, "gettempdir", lambda: str(tmp_path))
    folder = sealed.PrivateFolder(1 << 60)
    assert folder.path.parent.parent == tmp_path
    folder.remove()
