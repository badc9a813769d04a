"""Temporary folders: what a killed reader leaves is removed, what a live one needs is not."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from aico_lab.adapters.temporary_folders import left_over, own_folder, remove_left_over
from aico_lab.config import Settings
from aico_lab.health import describe, diagnose
from tests.messages import add, message

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOLDS_FOLDER = """
import sys
from pathlib import Path
from aico_lab.adapters.temporary_folders import own_folder
folder = own_folder(Path(sys.argv[1]))
folder.mkdir()
(folder / "spilled").write_bytes(bytes(1000))
print(folder, flush=True)
sys.stdin.read()
"""

KILLED_WHILE_IT_OPENS = """
import os, signal, sys
from aico_lab.adapters import duckdb_confined
from aico_lab.lab import Lab
link = os.link
def killed(*paths):
    link(*paths)
    os.kill(os.getpid(), signal.SIGKILL)
os.link = killed
Lab.open(sys.argv[1]).sql("SELECT 1")
"""


@contextmanager
def other(parent: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Another process with a folder, and the folder's name."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS_FOLDER, str(parent)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout
            yield process, process.stdout.readline().strip().rpartition("/")[2]
        finally:
            process.kill()


def names(parent: Path) -> list[str]:
    return sorted(path.name for path in parent.iterdir())


def test_only_what_has_no_owner_any_more_is_removed(tmp_path):
    """Of this process, of another one, and of one that was killed."""
    mine = own_folder(tmp_path)
    mine.mkdir()
    (tmp_path / "init.lock").touch()
    (tmp_path / "writer").mkdir()
    with other(tmp_path) as (process, theirs):
        assert left_over(tmp_path) == []
        remove_left_over(tmp_path)
        assert (tmp_path / theirs / "spilled").exists()
        process.kill()
        process.wait()
        assert left_over(tmp_path) == [tmp_path / theirs]
        remove_left_over(tmp_path)
    token = mine.name.partition("-")[0]
    assert names(tmp_path) == sorted([mine.name, f"{token}.lock", "init.lock", "writer"])


def test_a_process_that_ends_leaves_no_lock(tmp_path):
    with other(tmp_path) as (process, theirs):
        process.communicate("")
    assert names(tmp_path) == [theirs]  # which this process did not remove itself
    remove_left_over(tmp_path)
    assert names(tmp_path) == []


def test_folders_of_earlier_versions_are_removed_after_a_day(tmp_path):
    """They have no lock."""
    for name in ("0" * 16, "1" * 16):
        (tmp_path / name).mkdir()
    os.utime(tmp_path / ("0" * 16), (time.time() - 90_000,) * 2)
    remove_left_over(tmp_path)
    assert names(tmp_path) == ["1" * 16]


@pytest.mark.skipif(os.name != "posix" or not os.getuid(), reason="root can write everywhere")
def test_where_nothing_can_be_written_nothing_is_locked(tmp_path):
    tmp_path.chmod(0o500)
    assert own_folder(tmp_path).parent == tmp_path
    assert names(tmp_path) == []


@pytest.mark.slow
def test_the_link_of_a_reader_that_was_killed_is_removed_by_the_next_sync(lab, home):
    """Also if there is nothing else to do; info counts it, and doctor names the remedy."""
    add(lab.primary, message(0))
    lab.sync()
    before = describe(lab)["bytes"]["temporary"]
    killed = subprocess.run([sys.executable, "-c", KILLED_WHILE_IT_OPENS, str(home)], check=False)
    assert killed.returncode == -9
    (left,) = left_over(home / "tmp")
    assert [path.name for path in left.iterdir()] == ["00000001.duckdb"]
    assert describe(lab)["bytes"]["temporary"] > before
    (finding,) = [
        one for one in diagnose(Settings.resolve(home=home)) if one.check == "temporary files"
    ]
    assert finding.ok
    assert "1 folders" in finding.detail
    assert "`aico-lab sync`" in finding.detail
    assert lab.sync().mode == "nothing"
    assert left_over(home / "tmp") == []
    assert not left.exists()


def test_the_spilled_data_of_a_query_has_an_owner(lab, home):
    """So that they are removed once the reader is killed, and not while it lives."""
    lab.sync()
    ((folder,),) = lab.sql("SELECT current_setting('temp_directory')").fetchall()
    token, _, rest = folder.rpartition("/")[2].partition("-")
    assert rest
    assert (home / "tmp" / f"{token}.lock").exists()
    spilled = home / "tmp" / f"{token}-{rest}"
    spilled.mkdir(exist_ok=True)
    lab.sync()
    assert spilled.exists()
