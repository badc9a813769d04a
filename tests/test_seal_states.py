"""The seal of the primary database, while companions, other programs and syncs come and go."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from aico_lab.adapters.libsql import Connection, LibSQLAdapter
from aico_lab.adapters.libsql_seal import PageSeal
from aico_lab.deep_verify import _check_pages
from aico_lab.errors import AicoLabError, CorruptDatabase
from aico_lab.lab import Lab
from tests.messages import add, message

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A synced home that is closed, and its key file."""
    folder = tmp_path_factory.mktemp("model")
    with Lab.create(folder / "home", key_file=folder / "key") as lab:
        add(lab.primary, *[message(i, content=f"{i:04} we said " * 20) for i in range(120)])
        lab.sync()
    return folder


@pytest.fixture
def sealed(model, home) -> Path:
    shutil.copytree(model / "home", home)
    return home


@pytest.fixture
def key(model) -> str:
    with opened(model / "home", model) as lab:
        return lab.storage.keys.libsql()


def opened(home: Path, model: Path) -> Lab:
    return Lab.open(home, key_file=model / "key")


def bot(home: Path, key: str) -> Connection:
    """Open the database as a companion does."""
    return LibSQLAdapter(home / "aico.db", key, create=False).connect()


def foreign(home: Path, key: str) -> Connection:
    """Open the database as another program does, which knows of no seal."""
    return Connection(home / "aico.db", key, busy_timeout=5)


def kill_writer(home: Path, key: str, number: int) -> None:
    """Let a companion commit, and die without closing the file."""
    program = (
        "import os, sys, signal; from pathlib import Path\n"
        "from tests.test_seal_states import bot\n"
        "from tests.messages import add, message\n"
        "connection = bot(Path(sys.argv[1]), sys.argv[2])\n"
        "add(connection, message(int(sys.argv[3])))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(home), key, str(number)], check=False)
    assert done.returncode == -signal.SIGKILL


def look(home: Path, model: Path) -> None:
    """Sync, and check every page: no alarm."""
    with opened(home, model) as lab:
        lab.sync()
        _check_pages(lab)
        assert lab.verify().ok


def test_commits_of_others_while_a_home_is_opened_are_no_loss(sealed, model, key, monkeypatch):
    """Whatever is committed, noted and sealed between two steps of the look."""
    with bot(sealed, key) as companion:
        add(companion, message(500))
        for number, name in enumerate(("_head", "_newer_note", "_connect"), 501):
            now = getattr(PageSeal, name)
            is_first = True

            def late(self, *args, now=now, number=number):
                nonlocal is_first
                found = now(self, *args)
                if is_first:
                    is_first = False
                    add(companion, message(number), message(number + 100))
                    companion.seal.renew(companion)
                    add(companion, message(number + 200))
                return found

            with monkeypatch.context() as patch:
                patch.setattr(PageSeal, name, late)
                with opened(sealed, model) as lab:
                    assert lab.primary.fetch_one("SELECT count(*) FROM messages")
                    patch.undo()
                    assert lab.primary.seal.read().lost is None
    look(sealed, model)


def test_a_program_that_does_not_seal_is_reviewed_after_commits_of_this_one(sealed, model, key):
    """Such as an earlier version that ran on while this one was installed."""
    with foreign(sealed, key) as other:
        add(other, *[message(i) for i in range(500, 520)])
        other.execute("INSERT INTO feed_consumers VALUES ('old', 0)")
    with bot(sealed, key) as companion:
        add(companion, message(600))
    with opened(sealed, model) as lab:
        add(lab.primary, message(601))
    with opened(sealed, model) as lab:
        assert lab.primary.seal.is_foreign
        lab.sync()
        assert not lab.primary.seal.is_foreign
    look(sealed, model)


def test_a_page_that_was_damaged_is_no_work_of_a_program_that_does_not_seal(sealed, model, key):
    """Although its changes make a review necessary."""
    with foreign(sealed, key) as other:
        other.execute("DROP TRIGGER feed_messages_update")
        other.execute("UPDATE messages SET content = 'evil' WHERE id = 5")
        add(other, message(500))
    with bot(sealed, key) as companion:
        add(companion, message(600))
    with opened(sealed, model) as lab, pytest.raises(CorruptDatabase, match="was damaged"):
        lab.sync()


def test_a_log_that_another_program_moved_into_the_file_is_no_damage(sealed, model, key):
    """It has the commits of a companion that was killed."""
    kill_writer(sealed, key, 500)
    with foreign(sealed, key) as other:
        assert other.fetch_one("SELECT count(*) FROM messages") == (121,)
    assert not (sealed / "aico.db-wal").exists()
    look(sealed, model)


def test_a_seal_that_could_not_be_written_is_no_damage(sealed, model, key, monkeypatch):
    """As on a full disk, where SQLite moves the log into the file all the same."""

    def full(*_):
        raise AicoLabError("The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(PageSeal, "_write", full)
        with bot(sealed, key) as companion:
            add(companion, message(500))
    look(sealed, model)


def test_a_transaction_of_a_killed_writer_at_the_end_of_the_log_is_not_counted(sealed, key):
    """The next commit writes over a part of it."""
    with bot(sealed, key) as companion, bot(sealed, key) as other:
        add(companion, message(500))
        before = len(companion.seal.log.read().pages)
        log = sealed / "aico.db-wal"
        content = log.read_bytes()
        add(other, *[message(i, content="x" * 900) for i in range(501, 540)])
        longer = log.read_bytes()
        frames = companion.seal.log.read()
        assert len(frames.pages) > before
        # Behind a shorter transaction follow the frames of a longer one.
        log.write_bytes(content + longer[len(content) + 2 * 4_120 :])
        short = PageSeal(sealed / "aico.db", key).log.read()
        assert len(short.pages) == before
        log.write_bytes(longer[:-4_000])
        assert len(PageSeal(sealed / "aico.db", key).log.read().pages) == before
        log.write_bytes(longer)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_no_order_of_events_raises_an_alarm_without_damage_or_hides_one(sealed, model, key, seed):
    """Two companions, another program, kills, checkpoints, syncs and restores."""
    chance = random.Random(seed)
    open_ones: dict[str, Connection] = {}
    number, steps = 1_000, []

    def write(name: str) -> None:
        nonlocal number
        connection = open_ones.get(name) or (foreign if name == "foreign" else bot)(sealed, key)
        open_ones[name] = connection
        for _ in range(chance.randint(1, 3)):
            number += 1
            add(connection, *[message(number * 10 + i) for i in range(chance.choice((1, 1, 9)))])
        if chance.random() < 0.3:
            connection.execute(f"UPDATE messages SET content = 'new' WHERE id = {number % 100}")

    def close(name: str) -> None:
        if name in open_ones:
            open_ones.pop(name).close()

    def kill() -> None:
        nonlocal number
        number += 1
        kill_writer(sealed, key, number * 10)

    def checkpoint() -> None:
        if "foreign" in open_ones:
            open_ones["foreign"].fetch_all("PRAGMA wal_checkpoint(PASSIVE)")

    def restore() -> None:
        for name in (*open_ones,):
            close(name)
        with opened(sealed, model) as lab:
            lab.primary.execute("DELETE FROM feed_consumers WHERE consumer = 'x'")
        shutil.copytree(sealed, sealed.with_name("copy"))
        shutil.rmtree(sealed)
        sealed.with_name("copy").rename(sealed)

    events = {
        "write a": lambda: write("a"), "write b": lambda: write("b"),
        "write foreign": lambda: write("foreign"), "close a": lambda: close("a"),
        "close b": lambda: close("b"), "close foreign": lambda: close("foreign"), "kill": kill,
        "checkpoint": checkpoint, "sync": lambda: look(sealed, model), "restore": restore,
    }  # fmt: skip
    weights = [5, 5, 3, 2, 2, 2, 1, 2, 3, 1]
    for _ in range(25):
        step = chance.choices([*events], weights)[0]
        steps.append(step)
        try:
            events[step]()
        except AicoLabError as error:
            pytest.fail(f"{steps}: {error}")
    for name in (*open_ones,):
        close(name)
    look(sealed, model)
    # And now there is damage: a row that nobody changed.
    with opened(sealed, model) as lab:
        ((page,),) = lab.primary.fetch_all(
            "SELECT pageno FROM dbstat WHERE name = 'messages' AND pagetype = 'leaf' LIMIT 1"
        )
    with (sealed / "aico.db").open("r+b") as file:
        file.seek(page * 4096 - 40)
        byte = file.read(1)[0]
        file.seek(page * 4096 - 40)
        file.write(bytes([byte ^ 1]))
    for name in chance.sample(["write a", "write foreign", "close foreign", "close a", "kill"], 3):
        with suppress(AicoLabError):
            events[name]()
    for name in (*open_ones,):
        close(name)
    with pytest.raises(AicoLabError), opened(sealed, model) as lab:
        _check_pages(lab)
        pytest.fail(f"{steps}: not noticed")
