"""The data access layer under load and under the axe, on an encrypted home.

`SECONDS` is short enough for every day; put 60 there before a release.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from aico_lab.adapters.libsql import Connection, LibSQLAdapter
from aico_lab.dal import DataAccessLayer
from tests.conftest import plain_text_files
from tests.dal_writers import INSERT, in_threads, write_pair

if TYPE_CHECKING:
    from aico_lab.lab import Lab

pytestmark = pytest.mark.slow

SECONDS = 8.0  # for each of the two loads
KILLS = 100
ROLES = {"q": "user", "a": "assistant"}


@pytest.fixture
def database(lab: Lab) -> dict[str, Any]:
    """Where a new, encrypted lab keeps its rows, with the channel and the person of the writers."""
    adapter = LibSQLAdapter(lab.home.primary, lab.storage.keys.libsql(), create=False)
    with adapter.connect() as connection:
        now = "2024-03-01T12:00:00.000000Z"
        connection.execute("INSERT INTO users (user_id, created_at) VALUES ('u', ?)", [now])
        connection.execute("INSERT INTO channels (channel_id, created_at) VALUES ('c', ?)", [now])
    return {"path": str(lab.home.primary), "key": lab.storage.keys.libsql()}


def start(what: str, **arguments: Any) -> subprocess.Popen[str]:
    """The writers, in a process of their own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.dal_writers"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    json.dump([what, arguments], process.stdin)
    process.stdin.close()
    return process


def result(process: subprocess.Popen[str]) -> Any:
    """What the writers report."""
    with process:
        output = process.stdout.read()
    assert process.returncode == 0
    return json.loads(output)


def stored(database: dict[str, Any]) -> list[str]:
    """The pairs that are in the database, after checking that they are whole and in the feed."""
    with LibSQLAdapter(database["path"], database["key"], create=False).connect() as connection:
        assert connection.fetch_all("PRAGMA integrity_check") == [("ok",)]
        pairs = connection.fetch_all(
            "SELECT conversation_id, count(*), count(DISTINCT message_id), "
            "group_concat(role) FROM messages GROUP BY 1 ORDER BY min(id)"
        )
        assert {pair[1:] for pair in pairs} <= {(2, 2, "user,assistant")}
        logged = connection.fetch_all(
            "SELECT row_key, op FROM change_log WHERE table_name = 'messages' ORDER BY seq"
        )
        rows = connection.fetch_all("SELECT message_id, 'insert' FROM messages ORDER BY id")
        assert logged == rows
        (first, last, count) = connection.fetch_one(
            "SELECT min(seq), max(seq), count(*) FROM change_log"
        )
        assert (first, last) == (1, count)
        return [pair[0] for pair in pairs]


def assert_all_is_there(
    database: dict[str, Any], reports: list[dict[str, Any]], fairness: int = 4
) -> None:
    assert [problem for report in reports for problem in report["problems"]] == []
    written = sorted(name for report in reports for name in report["written"])
    assert sorted(stored(database)) == written
    assert plain_text_files(_folder(database), "felt homesick") == []
    # Nobody starves: each writer got at least a part of its fair share.
    counts = [len(report["written"]) for report in reports]
    assert min(counts) > sum(counts) / len(counts) / fairness
    waits = sorted(wait for report in reports for wait in report["waits"])
    logging.getLogger(__name__).info(  # pytest --log-cli-level=INFO shows it
        "%d pairs, %d to %d a writer; median %.3f s, longest %.3f s",
        sum(counts), min(counts), max(counts), waits[len(waits) // 2], waits[-1],
    )  # fmt: skip


def _folder(database: dict[str, Any]) -> Path:
    return LibSQLAdapter(database["path"]).path.parent


def test_four_threads_and_another_process_write_at_once(database):
    """A short form of the tests below, for every run."""
    other = start("threads", **database, name="other", threads=2, seconds=0.7)
    reports = in_threads(**database, name="this", threads=4, seconds=1.0)
    # The other process writes for a shorter time, and begins when it has started.
    assert_all_is_there(database, reports + result(other), fairness=20)


def test_sixteen_connections_of_one_process_all_get_their_turn(database):
    """Waiting inside SQLite, even for 5 ms, would hold the interpreter lock the writer needs."""

    def write(thread: int) -> None:
        with LibSQLAdapter(**_adapter(database)).connect() as connection:
            assert connection.fetch_one("PRAGMA busy_timeout") == (0,)
            for number in range(20):
                with connection.transaction():
                    for side in "qa":
                        name = f"{thread}.{number}"
                        connection.execute(INSERT, [f"{name}/{side}", name, ROLES[side]])
                        time.sleep(0.0005)  # gives the interpreter lock away, as real work does

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(write, range(16)))
    assert len(stored(database)) == 320


def test_a_reader_waits_where_even_readers_are_kept_out(database):
    """As while the key is changed, in the other journal mode: a snapshot begins after that."""
    with LibSQLAdapter(**_adapter(database)).connect() as alone:
        alone.fetch_all("PRAGMA journal_mode = DELETE")
        # Not by the adapter, which would set the mode right.
        with Connection(Path(database["path"]), database["key"], busy_timeout=30) as reader:
            alone.execute("BEGIN EXCLUSIVE")
            ending = threading.Timer(0.2, alone.close)
            ending.start()
            with reader.snapshot():
                assert reader.fetch_one("SELECT count(*) FROM users") == (1,)
            ending.join()


@pytest.mark.slow
def test_sixteen_threads_of_one_process_write_and_read(database):
    """No row is lost, doubled or torn, and no lock reaches the caller."""
    reports = in_threads(**database, name="p", threads=16, seconds=SECONDS)
    assert len(reports) == 16
    assert_all_is_there(database, reports)


@pytest.mark.slow
def test_four_processes_of_four_threads_write_and_read(database):
    """The same, where the writers of several processes compete."""
    processes = [
        start("threads", **database, name=f"p{number}", threads=4, seconds=SECONDS)
        for number in range(4)
    ]
    reports = [report for process in processes for report in result(process)]
    assert len(reports) == 16
    assert_all_is_there(database, reports)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the writers are forked")
def test_a_writer_killed_at_any_instant_loses_nothing_that_it_acknowledged(database):
    """Of each life, what was acknowledged is there, and at most the one write after it."""
    seed = random.randrange(2**32)
    acknowledged = result(start("kill", **database, times=KILLS, seed=seed))
    assert len(acknowledged) == KILLS
    assert sum(acknowledged) > KILLS, "the writers hardly wrote: give them more time"
    found = stored(database)
    expected = [
        f"{life}.{number}"
        for life, count in enumerate(acknowledged)
        for number in range(count + (f"{life}.{count}" in found))
    ]
    assert found == expected, f"seed {seed}"

    async def go_on() -> None:
        async with DataAccessLayer(LibSQLAdapter(**_adapter(database))) as dal:
            await write_pair(dal, "after")

    asyncio.run(go_on())
    assert stored(database) == [*expected, "after"]


def _adapter(database: dict[str, Any]) -> dict[str, Any]:
    return {"database_path": database["path"], "encryption_key": database["key"]}
