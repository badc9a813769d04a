"""Writers that put load on one database, in this process or in another.

Run as a program, it reads its parameters as JSON from stdin, so that the key is not an argument,
and prints its results as JSON. It imports little, because tests start it often.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import threading
import time
from typing import Any

from aico_lab.adapters.libsql import LibSQLAdapter
from aico_lab.dal import DataAccessLayer

INSERT = (
    "INSERT INTO messages (message_id, channel_id, conversation_id, user_id, role, content, "
    "timestamp) VALUES (?, 'c', ?, 'u', ?, 'the time I felt homesick', "
    "'2024-03-01T12:00:00.000000Z')"
)
# Two rows of one transaction have neighbouring ids: an odd one and the even one after it.
TORN = (
    "SELECT conversation_id, count(*) AS rows FROM messages "
    "WHERE id > (SELECT coalesce(max(id), 0) FROM messages) / 2 * 2 - 40 "
    "GROUP BY conversation_id HAVING rows <> 2"
)


class Regret(Exception):
    """The exception with which a writer rolls back its last write."""


async def write_pair(dal: DataAccessLayer, name: str, *, regret: bool = False) -> None:
    """Write two messages in one transaction, which readers must see together."""
    async with dal.transaction():
        await dal.execute(INSERT, [f"{name}/q", name, "user"])
        if regret:
            raise Regret
        await dal.execute(INSERT, [f"{name}/a", name, "assistant"])


async def write_and_read(adapter: LibSQLAdapter, writer: str, seconds: float) -> dict[str, Any]:
    """Write for some seconds, roll back sometimes, and count torn and missing rows."""
    written: list[str] = []
    problems: list[str] = []
    waits: list[float] = []
    async with DataAccessLayer(adapter, max_connections=2) as dal:
        end = time.monotonic() + seconds
        number = 0
        while time.monotonic() < end:
            number += 1
            name = f"{writer}.{number}"
            start = time.monotonic()
            try:
                await write_pair(dal, name, regret=number % 7 == 0)
                written.append(name)
                if number % 5 == 0:
                    problems += [f"torn: {row}" for row in await dal.fetch_all(TORN)]
                    if not await dal.fetch_one(
                        "SELECT 1 FROM messages WHERE message_id = ?", [f"{name}/a"]
                    ):
                        problems.append(f"missing: {name}")
            except Regret:
                pass
            except Exception as error:  # noqa: BLE001 - whatever reaches the caller is reported
                problems.append(f"{type(error).__name__}: {error}")
            waits.append(time.monotonic() - start)
    return {"written": written, "problems": problems, "waits": waits}


def in_threads(
    path: str, key: str | None, name: str, *, threads: int, seconds: float
) -> list[dict[str, Any]]:
    """Run writers in several threads, each with its own event loop and layer."""
    done: list[dict[str, Any]] = []

    def run(thread: int) -> None:
        work = write_and_read(LibSQLAdapter(path, key, create=False), f"{name}.{thread}", seconds)
        done.append(asyncio.run(work))

    running = [threading.Thread(target=run, args=[thread]) for thread in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return done


async def _write_until_killed(path: str, key: str, life: int, acknowledge: int) -> None:
    async with DataAccessLayer(LibSQLAdapter(path, key, create=False), max_connections=2) as dal:
        number = 0
        while True:
            await write_pair(dal, f"{life}.{number}")
            os.write(acknowledge, b".")
            number += 1


def kill_writers(path: str, key: str, *, times: int, seed: int) -> list[int]:
    """Kill several writers at random times; return how many writes each had acknowledged.

    The writers are forks of this process, which itself never opens the database.
    """
    rng = random.Random(seed)
    acknowledged: list[int] = []
    patience = 1.0  # more on a busy machine, where writers begin late
    for life in range(times):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            asyncio.run(_write_until_killed(path, key, life, writing))
        os.close(writing)
        time.sleep(patience * rng.uniform(0.01, 0.15))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with os.fdopen(reading, "rb") as pipe:
            acknowledged.append(len(pipe.read()))
        patience = max(1, patience / 2 if acknowledged[-1] else patience * 2)
    return acknowledged


if __name__ == "__main__":
    _what, _arguments = json.load(sys.stdin)
    json.dump({"threads": in_threads, "kill": kill_writers}[_what](**_arguments), sys.stdout)
