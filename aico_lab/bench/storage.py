"""The benchmark of writing messages, in bulk and one by one, against the bare driver.

The number of messages is that of the bulk; there are always 2,000 single saves.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from aico_lab.bench.harness import bench_of, expect, run_job
from aico_lab.bench.real import INSERT_BARE, bare_executemany, batches, messages, open_bare
from aico_lab.dal import DataAccessLayer
from aico_lab.domain import Conversation, User
from aico_lab.importing.importer import write_batch
from aico_lab.lab import Lab
from aico_lab.repositories.full_text import index_new_messages
from aico_lab.repositories.libsql import LibSQLConversationRepository, LibSQLUserRepository

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SAVES = 2_000
RATIOS = {
    "bulk, with feed and full text / bare executemany": ("bulk", "bare-executemany"),
    "single save / bare autocommit insert": ("save", "bare-autocommit"),
}


def bulk(folder: Path, rows: int) -> float:
    """Time writing messages with people, channels and change feed, and the full-text index."""
    made = list(batches(rows))
    with _new_lab(folder) as lab:
        started = time.perf_counter()
        for batch in made:
            with lab.primary.transaction():
                write_batch(lab.primary, batch, batch.messages)
        asyncio.run(_index(lab))
        seconds = time.perf_counter() - started
        counted = lab.primary.fetch_one("SELECT count(*) FROM messages")
        expect(counted[0] if counted else 0, rows)
    return seconds


def save(folder: Path, _rows: int) -> float:
    """Time saves of turns one by one by the repository, each durable and with its feed row."""
    texts = [message.content or "…" for message in messages(SAVES)]
    with _new_lab(folder) as lab:
        return asyncio.run(_save(lab, texts))


def bare_autocommit(folder: Path, _rows: int) -> float:
    """Time the bare driver, one row and one commit at a time."""
    made = list(messages(SAVES))
    bare = open_bare(folder / "bare.db")
    started = time.perf_counter()
    for row in made:
        bare.execute(INSERT_BARE, row)
    seconds = time.perf_counter() - started
    bare.close()
    return seconds


JOBS: dict[str, Callable[[Path, int], float]] = {
    "bulk": bulk,
    "bare-executemany": bare_executemany,
    "save": save,
    "bare-autocommit": bare_autocommit,
}

run_bench = bench_of("aico_lab.bench.storage", jobs=JOBS, ratios=RATIOS)


def _new_lab(folder: Path) -> Lab:
    shutil.rmtree(folder / "home", ignore_errors=True)
    return Lab.create()


async def _index(lab: Lab) -> None:
    async with DataAccessLayer(lab.storage.adapter) as dal:
        await index_new_messages(dal)


async def _save(lab: Lab, texts: list[str]) -> float:
    async with DataAccessLayer(lab.storage.adapter) as dal:
        await LibSQLUserRepository(dal).save(User(name="Ada", id="ada"))
        repository = LibSQLConversationRepository(dal)
        turns = [
            Conversation(user_id="ada", message=text, timestamp=datetime.now(UTC)) for text in texts
        ]
        started = time.perf_counter()
        for turn in turns:
            await repository.save(turn)
        return time.perf_counter() - started


if __name__ == "__main__":
    run_job(JOBS)
