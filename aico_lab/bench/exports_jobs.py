"""The jobs of the benchmark of exports; each reads the same file."""

from __future__ import annotations

import itertools
import json
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from aico_lab.bench.harness import expect, run_job
from aico_lab.bench.real import messages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from aico_lab.messages.records import MessageRecord

_FILE: Final = "conversations.json"


def write_export(folder: Path, rows: int) -> float:
    """Write real messages as ChatGPT's export, in conversations with a system prompt each."""
    with (folder / _FILE).open("w", encoding="utf-8") as file:
        by_conversation = itertools.groupby(messages(rows), lambda one: one.conversation_id)
        for number, (name, those) in enumerate(by_conversation):
            file.write("," if number else "[")
            json.dump(_conversation(f"{name}-{number}", those), file)
        file.write("]")
    return 0.0


def _conversation(name: str, those: Iterable[MessageRecord]) -> dict[str, Any]:
    mapping: dict[str, Any] = {"root": {"id": "root", "message": None, "parent": None}}
    parent = "root"
    for message in those:
        time_ = datetime.fromisoformat(message.timestamp).timestamp()
        mapping[message.message_id] = {
            "id": message.message_id,
            "parent": parent,
            "children": [],
            "message": {
                "id": message.message_id,
                "author": {"role": message.role, "name": None, "metadata": {}},
                "create_time": time_,
                # A blank answer would not be a message: see aico_lab.sources.exports.chatgpt.
                "content": {"content_type": "text", "parts": [message.content.strip() or "-"]},
                "status": "finished_successfully",
                "weight": 1.0,
                "metadata": {"model_slug": "a-model"},
                "recipient": "all",
            },
        }
        parent = message.message_id
    return {"title": name, "id": name, "mapping": mapping, "current_node": parent}


def read(folder: Path, rows: int) -> float:
    """Time reading the export into records."""
    from aico_lab.sources import SOURCES

    started = time.perf_counter()
    count = sum(len(batch.messages) for batch in SOURCES["chatgpt"].read(folder / _FILE))
    seconds = time.perf_counter() - started
    expect(count, rows)
    return seconds


def ijson(folder: Path, _rows: int) -> float:
    """Time parsing the same file with ijson, conversation by conversation."""
    import ijson

    started = time.perf_counter()
    with (folder / _FILE).open("rb") as file:
        for _ in ijson.items(file, "item", use_float=True):
            pass
    return time.perf_counter() - started


def whole(folder: Path, _rows: int) -> float:
    """Time parsing the same file with Python's json, in memory as a whole."""
    started = time.perf_counter()
    json.loads((folder / _FILE).read_bytes())
    return time.perf_counter() - started


SETUP: Final[dict[str, Callable[[Path, int], float]]] = {"write-export": write_export}
JOBS: Final[dict[str, Callable[[Path, int], float]]] = {
    "read": read,
    "ijson": ijson,
    "json": whole,
}

if __name__ == "__main__":
    run_job(SETUP | JOBS)
