"""How processes below get the key of a home: by an open file, never by an environment."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import psutil
import pytest

from aico_lab import charts, config
from aico_lab.adapters.lmdb_readonly import MAGIC, MAGIC_AT, read_lmdb
from aico_lab.config import Settings
from aico_lab.errors import KeyMissing, WrongKey
from aico_lab.home import handover
from aico_lab.home.handover import inheritable, received
from aico_lab.home.keys import Keys, signed
from aico_lab.lab import Lab
from aico_lab.schema.backup import copy_files
from tests.messages import add, message
from tests.notebooks import write_notebook

if TYPE_CHECKING:
    from pathlib import Path

PASSPHRASE = "correct horse battery"
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


@pytest.fixture
def _nothing_received(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "_received", [])


@pytest.mark.usefixtures("_nothing_received")
@pytest.mark.skipif(os.name != "posix", reason="no file is inherited by its number")
def test_a_process_receives_the_key_and_passes_it_on_to_nobody(tmp_path, monkeypatch):
    """It takes the number out of its environment, and closes the file."""
    settings = Settings(tmp_path, passphrase=PASSPHRASE)
    with inheritable("id", Keys(b"m" * 32, None, b"f" * 32), settings) as (given, descriptors):
        (descriptor,) = descriptors
        assert PASSPHRASE not in given.values()
        assert not os.get_inheritable(descriptor)
        again = os.dup(descriptor)
        monkeypatch.setenv(config.KEY_DESCRIPTOR_VARIABLE, str(again))
        found = received("id")
        assert (found.master, found.former) == (b"m" * 32, b"f" * 32)
        assert received("another") is None
        assert config.KEY_DESCRIPTOR_VARIABLE not in os.environ
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(again)
    for number in ("9999", "0", "x"):  # of a process that did not pass the file on
        monkeypatch.setenv(config.KEY_DESCRIPTOR_VARIABLE, number)
        monkeypatch.setattr(handover, "_received", [])
        assert received("id") is None
    assert "mmmm" not in repr(found)


@pytest.mark.usefixtures("_nothing_received")
def test_a_key_that_was_changed_since_is_said_to_be_that(home, monkeypatch):
    """As in a notebook that stays open."""
    with Lab.create(home, protection="passphrase", passphrase=PASSPHRASE) as lab:
        marker = lab.home.read_marker()
        monkeypatch.setattr(
            handover, "_received", [handover.HandedKey(lab.home_id, b"o" * 32, None)]
        )
        with pytest.raises(WrongKey, match="restart the kernel"):
            Lab.open(home)
        Lab.open(home, passphrase=PASSPHRASE).close()
        monkeypatch.setattr(handover, "_received", [])
        with pytest.raises(KeyMissing):
            Lab.open(home)
        assert signed(marker, lab.storage.keys.master) == marker


NOTEBOOK = """\
from aico_lab import Lab
import subprocess, sys
lab = Lab.open()
subprocess.run([sys.executable, "-c", "import time; time.sleep(0.2)"])
print(lab.sql("FROM conversations").fetchall() and "opened")"""
PIPELINE = """\
[[steps]]
run = "sync"
timeout = 100
[[steps]]
run = "shell"
command = "{0} -m aico_lab schema status && {0} -m aico_lab schema status"
[[steps]]
run = "report"
name = "{1}"
"""


@LINUX
@pytest.mark.slow
def test_no_environment_or_argument_has_a_key_while_things_run(home: Path, tmp_path: Path):
    """Of no process below this one: a kernel and its own processes, a step, a command."""
    notebook = write_notebook(tmp_path / "asks.ipynb", NOTEBOOK)
    file = tmp_path / "job.toml"
    file.write_text(PIPELINE.format(sys.executable, notebook))
    seen: dict[int, bytes] = {}
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            for process in psutil.Process().children(recursive=True):
                for name in ("environ", "cmdline"):
                    try:
                        with open(f"/proc/{process.pid}/{name}", "rb") as opened:  # noqa: PTH123
                            content = opened.read()
                    except OSError:
                        continue
                    if content not in seen.get(process.pid, b""):
                        seen[process.pid] = seen.get(process.pid, b"") + content

    Lab.create(home, protection="passphrase", passphrase=PASSPHRASE).close()
    with Lab.open(home, passphrase=PASSPHRASE) as lab:
        add(lab.primary, *map(message, range(3)))
        secrets = lab.storage.keys.texts()
        assert PASSPHRASE in secrets
        watching = threading.Thread(target=watch)
        watching.start()
        try:
            run = lab.pipelines.run(file, allow_shell=True)
        finally:
            done.set()
            watching.join()
    assert run.status == "ok", run
    text = b"".join(seen.values())
    assert b"AICO_LAB_KEY_DESCRIPTOR=" in text
    assert b"time.sleep(0.2)" in text
    assert text.count(b"schema") >= 2
    assert [secret for secret in secrets if len(secret) > 4 and secret.encode() in text] == []


@pytest.mark.skipif(os.name != "posix", reason="no file is inherited by its number")
@pytest.mark.slow
def test_a_command_of_a_script_opens_the_home_without_a_passphrase(home):
    """And again, where the file is in memory."""
    code = "from aico_lab import Lab; print(Lab.open().encrypted)"
    command = f"{sys.executable} -c '{code}'"
    if hasattr(os, "memfd_create"):
        command = f"{command}; {command}"
    with (
        Lab.create(home, protection="passphrase", passphrase=PASSPHRASE) as lab,
        lab.storage.for_child() as (environment, descriptors),
    ):
        ran = subprocess.run(
            ["sh", "-c", command],
            env=environment, pass_fds=descriptors, capture_output=True, text=True, check=True,
        )  # fmt: skip
    assert set(ran.stdout.split()) == {"True"}


def test_processes_that_open_no_home_get_no_passphrase(tmp_path, monkeypatch):
    """Those that bundle the script of charts, copy a database, or read LMDB files."""
    given: list[dict[str, str]] = []

    def start(*_: object, env: dict[str, str], **__: object) -> None:
        given.append(env)
        raise InterruptedError

    monkeypatch.setenv(config.PASSPHRASE_VARIABLE, PASSPHRASE)
    monkeypatch.setattr(subprocess, "Popen", start)
    monkeypatch.setattr("importlib.metadata.version", lambda _: "not bundled yet")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: True)
    lmdb = tmp_path / "data.mdb"
    lmdb.write_bytes(bytes(MAGIC_AT) + MAGIC)
    for run in (
        charts.script,
        lambda: copy_files(lmdb, tmp_path / "copy"),
        lambda: next(iter(read_lmdb(lmdb, "turns"))),
    ):
        with pytest.raises(InterruptedError):
            run()
    assert len(given) == 3
    assert all("PATH" in env and PASSPHRASE not in env.values() for env in given)
