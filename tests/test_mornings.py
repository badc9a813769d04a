"""A scheduled pipeline when something is wrong, and the next morning, when nothing is."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime

import pytest

from aico_lab.adapters.libsql import LibSQLAdapter
from aico_lab.lab import Lab
from aico_lab.pipeline import records
from aico_lab.pipeline.records import read_runs
from tests.test_cli import mount

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux")
MORNING = "schedule = '30 6 * * *'\n[[steps]]\nrun = 'sync'\n[[steps]]\nrun = 'export'\n"


class Mornings:
    """A home with a scheduled pipeline, at which a scheduler looks every morning."""

    def __init__(self, folder, homes, in_process, monkeypatch):
        self.home, self.key = folder / "home", folder.parent / "key"
        self.in_process = in_process
        self.day = 2
        now = lambda: datetime(2026, 3, self.day, 6, 31, tzinfo=UTC)  # noqa: E731
        monkeypatch.setattr(records, "utc_now", now)
        homes.open(self.home, messages=10, synced=True, key_file=self.key).close()
        self.export = folder.parent / "rows.csv"
        (self.home / "pipelines").mkdir()
        (self.home / "pipelines" / "morning.toml").write_text(
            f"{MORNING}table = 'raw.messages'\npath = '{self.export}'\n"
        )
        assert self.next()[0] == 0  # the scheduler sees it for the first time

    def next(self) -> tuple[int, str]:
        """Return the exit code of the next morning's look, and what it says."""
        self.day += 1
        options = ("--home", str(self.home), "--key-file", str(self.key))
        done = self.in_process("schedule", "tick", *options)
        said = done.stdout + done.stderr
        assert "Traceback" not in said
        return done.returncode, said

    def runs(self) -> list[str]:
        """Return the status of all runs, in the order of the alphabet."""
        with Lab.open(self.home, key_file=self.key) as lab:
            return sorted(run.status for run in read_runs(lab.primary))


@pytest.fixture
def mornings(tmp_path, homes, in_process, monkeypatch):
    folder = tmp_path / "disk"
    folder.mkdir()
    return Mornings(folder, homes, in_process, monkeypatch)


@pytest.fixture
def small_disk(tmp_path, homes, in_process, monkeypatch, request):
    folder = tmp_path / "disk"
    mount(folder, "size=24m", request)
    return Mornings(folder, homes, in_process, monkeypatch)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("the home", "There is no lab in"),
        ("its marker", "There is no lab in"),
        ("its database", "restore it from a backup"),
        ("the key", "does not exist: restore it from your backup"),
    ],
)
def test_what_is_missing_is_said_and_back_the_next_morning(mornings, what, words):
    """No run is recorded, since there is no place for it; the later record counts the time."""
    there = {
        "the home": mornings.home,
        "its marker": mornings.home / "lab.json",
        "its database": mornings.home / "aico.db",
        "the key": mornings.key,
    }[what]
    away = there.with_name("away")
    there.rename(away)
    code, said = mornings.next()
    assert code == 1
    assert words in said
    assert not there.exists() or not list(there.iterdir())
    away.rename(there)
    assert mornings.next()[0] == 0
    assert mornings.runs() == ["missed", "ok"]


def test_an_empty_home_is_said(mornings):
    away = mornings.home.rename(mornings.home.with_name("away"))
    mornings.home.mkdir()
    assert "There is no lab in" in mornings.next()[1]
    assert list(mornings.home.iterdir()) == []
    mornings.home.rmdir()
    away.rename(mornings.home)
    assert mornings.next()[0] == 0


def test_a_locked_home_is_said(mornings, monkeypatch):
    """A database that another program is writing into for longer than a command waits."""
    monkeypatch.setattr(LibSQLAdapter.__init__, "__kwdefaults__", _impatient())
    with Lab.open(mornings.home, key_file=mornings.key) as lab:
        lab.primary.execute("BEGIN IMMEDIATE")
        code, said = mornings.next()
        lab.primary.execute("ROLLBACK")
    assert code == 1
    assert "writing" in said
    assert mornings.next()[0] == 0
    assert mornings.runs().count("ok") == 1


def _impatient() -> dict[str, object]:
    return {**(LibSQLAdapter.__init__.__kwdefaults__ or {}), "busy_timeout": 0.1}


@pytest.mark.slow
@LINUX
def test_a_home_that_cannot_be_written_is_said(small_disk):
    disk = str(small_disk.home.parent)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    code, said = small_disk.next()
    assert code == 1
    assert "read-only" in said.lower()
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    assert small_disk.next()[0] == 0
    assert small_disk.runs().count("ok") == 1


@pytest.mark.slow
@LINUX
def test_a_full_disk_is_said(small_disk):
    filler = small_disk.home.parent / "filler"
    with pytest.raises(OSError, match="space"), filler.open("wb", 0) as filling:
        while True:
            filling.write(b"x" * 4096)
    code, said = small_disk.next()
    assert code == 1
    assert "full" in said
    filler.unlink()
    assert small_disk.next()[0] == 0
    assert small_disk.runs().count("ok") == 1
    assert small_disk.export.exists()


def test_a_target_of_an_export_that_is_gone_fails_that_run_alone(mornings):
    """Here the folder of the file: found before the first step, and recorded."""
    folder = mornings.export.parent
    moved = folder.with_name("moved")
    job = mornings.home / "pipelines" / "morning.toml"
    job.write_text(job.read_text().replace("rows.csv", "gone/rows.csv"))
    assert not moved.exists()
    code, said = mornings.next()
    assert code == 1
    assert "gone" in said
    (folder / "gone").mkdir()
    assert mornings.next()[0] == 0
    assert mornings.runs() == ["failed", "ok"]
