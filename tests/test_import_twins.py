"""Messages that a product keeps under two ids: each is stored once, and found quickly."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from aico_lab.importing.importer import ImportResult, import_batches
from aico_lab.sources import files, jsonl
from tests.databases import Counting, with_core_schemas

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from aico_lab.adapters.libsql import Connection

BEGIN = datetime(2024, 5, 1, 12, tzinfo=UTC)


def line(message_id: str, second: float, text: str = "Yes") -> dict[str, Any]:
    time = (BEGIN + timedelta(seconds=second)).isoformat()
    return {
        "conversation_id": "aico:c1", "message_id": message_id, "user_id": "ada", "content": text,
        "timestamp": time, "sentiment_score": 0,
    }  # fmt: skip


@pytest.fixture
def primary(tmp_path: Path) -> Iterator[Connection]:
    with with_core_schemas(tmp_path / "primary.db").connect() as connection:
        yield connection


@pytest.fixture
def take(primary: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import lines as a product with two memories has them, in batches of a size."""

    def run(
        *lines: dict[str, Any], size: int = 100, connection: Any = primary, dry_run: bool = False
    ) -> ImportResult:
        monkeypatch.setattr(files, "BATCH_MESSAGES", size)
        path = tmp_path / "m.jsonl"
        path.write_text("".join(f"{json.dumps(one)}\n" for one in lines))
        batches = (replace(batch, has_twins=True) for batch in jsonl.read(path))
        return import_batches(connection, batches, dry_run=dry_run)

    return run


def test_what_is_stored_is_read_once_however_many_batches_there_are(primary, take):
    take(*(line(f"old{n}", n, f"words {n}") for n in range(200)))
    connection = Counting(primary)
    new = [line(f"new{n}", 9_000 + n, f"more {n}") for n in range(200)]
    assert take(*new, size=10, connection=connection).added == 200
    assert connection.rows <= 250


@pytest.mark.parametrize("size", [1, 100])
@pytest.mark.parametrize("dry_run", [True, False])
def test_a_copy_that_comes_twice_is_the_same_copy(take, size, dry_run):
    take(line("old1", 0), line("old2", 20))
    new = line("new1", 1)
    done = take(new, line("between", 5, "No"), new, size=size, dry_run=dry_run)
    assert (done.added, done.known, done.conflicts) == (1, 2, 0)


@pytest.mark.parametrize("size", [1, 100])
def test_a_message_is_no_copy_of_one_of_its_own_import(take, size):
    new = [line(f"new{n}", n) for n in range(3)]
    assert take(*new, *new, size=size).added == 3
    assert take(*new, size=size).added == 0


@pytest.mark.parametrize("size", [1, 100])
def test_what_has_its_own_id_in_the_batch_is_nobodys_copy(take, size):
    take(line("old1", 0))
    assert take(line("old1", 0), line("new1", 1), size=size).added == 1
