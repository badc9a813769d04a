"""What a home holds is for its owner alone, whatever the umask and whichever library makes it."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from aico_lab.errors import DiskFull, InvalidValue
from aico_lab.home.files import RAM, os_errors, private_files
from aico_lab.results import results_file
from tests.notebooks import write_notebook

if TYPE_CHECKING:
    from pathlib import Path

    from aico_lab.lab import Lab

pytestmark = pytest.mark.skipif(os.name != "posix", reason="modes of files are POSIX's")

# Everything that makes files, as a program does that uses the package.
USE = """
import asyncio, os, sqlite3, sys
from datetime import datetime
from pathlib import Path
os.umask(int(sys.argv[2], 8))
from aico_lab import Lab
from aico_lab.domain import Memory, User
from aico_lab.repositories import UnitOfWork
home = Path(sys.argv[1])

async def remember(lab):
    async with lab.data_access() as dal, UnitOfWork(dal) as uow:
        await uow.users.save(User("Ada", id="ada"))
        await uow.memories.save(Memory("ada", "My cat sleeps all day"))
        await uow.commit()

with Lab.create(home, protection=sys.argv[3]) as lab:
    asyncio.run(remember(lab))
    lab.cache.store.put("session:a", "value")
    lab.sync()
    lab.import_from("jsonl", home.parent / "messages.jsonl")
    lab.sync()
    lab.load(home.parent / "shop.db", "orders")
    lab.memories.index.query("cat", 1)
    lab.sql("SELECT count(*) FROM conversations").fetchall()
    lab.verify()
    if sys.argv[4:]:
        lab.reports.run(home.parent / "small.ipynb")
assert os.umask(0) == int(sys.argv[2], 8)
"""


@pytest.mark.parametrize(
    ("folder", "remedy"), [("ram", "--shm-size=1g"), ("disk", "free some space")]
)
def test_a_full_memory_has_another_remedy_than_a_full_disk(tmp_path, folder, remedy):
    """Nothing that is deleted on a disk makes room in it."""
    with pytest.raises(DiskFull, match=remedy), os_errors(RAM if folder == "ram" else tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")


def open_to_others(folder: Path) -> dict[str, str]:
    """The files and folders that anybody but their owner may use, or their owner may not."""
    found = {}
    for path in [folder, *folder.rglob("*")]:
        mode = path.lstat().st_mode & 0o777
        if mode != (0o700 if path.is_dir() else 0o600):
            found[str(path.relative_to(folder))] = oct(mode)
    return found


# A query that spills, in a lab of a program with an open umask.
SPILL = """
import os, sys
from pathlib import Path
os.umask(0)
from aico_lab import Lab
with Lab.open(sys.argv[1], external_access=True) as lab:
    lab.sql("SET memory_limit = '140MB'")
    lab.sql("SET threads = 1")
    rows = lab.sql("SELECT hash(i) || repeat('x', 100) AS t FROM range(3_000_000) r(i) ORDER BY t")
    rows.fetchone()
    spilled = [path for path in Path(sys.argv[1], "tmp").rglob("*") if path.stat().st_size]
    assert any(path.is_file() for path in spilled), "nothing was spilled"
    print({oct(path.stat().st_mode & 0o077) for path in spilled})
"""


@pytest.mark.slow
def test_spilled_data_are_their_owners(lab: Lab):
    lab.sync()
    done = subprocess.run(
        [sys.executable, "-c", SPILL, str(lab.home.path)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.strip() == "{'0o0'}"


@pytest.mark.slow
@pytest.mark.parametrize(
    "given",
    [
        ("000", "key-file"),
        pytest.param(("777", "none", "with a report"), marks=pytest.mark.slow),
    ],
    ids=" ".join,
)
def test_everything_in_a_home_is_its_owners(tmp_path: Path, given: tuple[str, ...]):
    """Databases, logs, locks, snapshots, vectors, cache; and the umask is as it was."""
    (tmp_path / "messages.jsonl").write_text(
        '{"content": "hello", "timestamp": "2024-05-01T10:00:00"}\n'
    )
    with sqlite3.connect(tmp_path / "shop.db") as shop:
        shop.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, what TEXT)")
        shop.execute("INSERT INTO orders VALUES (1, 'tea')")
    shop.close()
    asks = "from aico_lab import Lab\nLab.open().metrics.weekly_activity().plot()"
    write_notebook(tmp_path / "small.ipynb", asks)
    home = tmp_path / "home"
    subprocess.run([sys.executable, "-c", USE, str(home), *given], check=True)
    assert open_to_others(home) == {}
    assert {"aico.db", "warehouse", "cache", "lab.json"} <= {path.name for path in home.iterdir()}
    assert [open_to_others(file.parent) for file in tmp_path.rglob("*.key")] in ([], [{}])


@pytest.mark.slow
def test_a_command_makes_private_files_too(aico_lab, tmp_path: Path):
    """At any time, also in what it starts: the whole process has that umask."""
    home = tmp_path / "home"
    for command in ("init --no-encryption", "sync"):
        done = aico_lab(*command.split(), umask=0)
        assert done.returncode == 0, done.stderr
    assert open_to_others(home) == {}


def test_a_home_is_not_made_among_other_files(cli, home: Path):
    """They would be hidden from others, and one may have a name that a home uses."""
    home.mkdir(mode=0o755)
    (home / "thesis.tex").write_text("mine")
    refused = cli("init")
    assert refused.returncode == 1
    assert "'thesis.tex'" in refused.stderr
    assert "--home" in refused.stderr
    assert [file.name for file in home.iterdir()] == ["thesis.tex"]
    assert home.stat().st_mode & 0o777 == 0o755
    (home / "thesis.tex").unlink()
    assert cli("init").returncode == 0
    assert open_to_others(home) == {}


def test_the_umask_comes_back_when_the_last_thread_is_done():
    """Whatever the order in which they begin and end."""
    before = os.umask(0o022)
    try:
        inside, leave = threading.Event(), threading.Event()

        def other() -> None:
            with private_files():
                inside.set()
                leave.wait()

        thread = threading.Thread(target=other)
        with private_files():
            thread.start()
            inside.wait()
        assert os.umask(0o077) == 0o077
        leave.set()
        thread.join()
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)


def test_results_take_the_place_of_older_ones_whole_or_not_at_all(tmp_path: Path):
    """For their owner alone, even where the older file was not."""
    file = tmp_path / "x.csv"
    file.write_text("old")
    file.chmod(0o644)
    with pytest.raises(KeyError), results_file(file) as target:
        target.write_text("half")
        raise KeyError
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]
    with results_file(file) as target:
        target.write_text("new")
    assert file.read_text() == "new"
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", ["lab.json", "aico.csv", "warehouse/x.csv", "notebooks/../x.csv"])
def test_results_are_not_written_among_the_databases_of_a_home(lab: Lab, name: str):
    """`lab.json` has an allowed ending, and without it nobody opens the home."""
    (lab.home.path / "notebooks").mkdir()
    with pytest.raises(InvalidValue, match="elsewhere"), results_file(lab.home.path / name):
        pass
    with results_file(lab.home.path / "notebooks" / "x.csv") as target:
        target.touch()
