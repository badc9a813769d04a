"""A process that sends a sentence through every path of a home, and waits where others look for it.

It prints the name of each place at which it waits, and goes on after a line on its standard input.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aico_lab.adapters.age import new_identity
from aico_lab.backup import rebuilding
from aico_lab.bus import HandlerRegistry, Relay, dead_letters
from aico_lab.domain import Conversation, Memory, User
from aico_lab.errors import ReportError
from aico_lab.etl.warehouse import Warehouse
from aico_lab.lab import Lab
from aico_lab.privacy import sharing
from aico_lab.repositories import UnitOfWork
from aico_lab.schema.backup import back_up
from aico_lab.sources.exports.engine.conversation import Options
from tests.notebooks import write_notebook
from tests.test_exports import FORMATS, SAMPLES

if TYPE_CHECKING:
    from collections.abc import Iterable

MARK = "zqcanaryforall"
"""A word that nothing else has."""

PLACES = ("stored", "syncing", "synced", "backing up", "sharing", "done")


def sentence(path: str) -> str:
    """Return a sentence with the word, long enough for the search for leaks."""
    return f"{MARK} {path} said that rain fell softly on quiet green hills today"


def needles(text: str) -> list[bytes]:
    """Return a text in UTF-8 and UTF-16, and the parts of its Base64 that no neighbour changes."""
    found = [text.encode(coding) for coding in ("utf-8", "utf-16-le", "utf-16-be")]
    for before in range(3):
        code = base64.b64encode(bytes(before) + text.encode())
        found.append(code[4 if before else 0 : -4])
    return found


def found_in(folders: Iterable[Path], text: str = MARK) -> list[Path]:
    """Return the files below some folders that contain a text in any of these forms."""
    wanted = re.compile(b"|".join(map(re.escape, needles(text))))
    found = []
    for folder in folders:
        for path in folder.rglob("*"):
            try:
                if path.is_file() and wanted.search(path.read_bytes()):
                    found.append(path)
            except OSError:  # it went meanwhile
                continue
    return found


def wait(place: str) -> None:
    sys.stdout.write(f"{place}\n")
    sys.stdout.flush()
    sys.stdin.readline()


def waiting_at(owner: Any, name: str, place: str) -> None:
    """Wait before the first call of a function."""
    function = getattr(owner, name)

    def waiting(*arguments: Any, **options: Any) -> Any:
        setattr(owner, name, function)
        wait(place)
        return function(*arguments, **options)

    setattr(owner, name, waiting)


def import_formats(lab: Lab, inputs: Path) -> None:
    """Import every sample of an export, with the word in its messages, and a table."""
    for sample, (_, options) in FORMATS.items():
        original = SAMPLES / sample
        lines = original.with_suffix(".expected.jsonl").read_text(encoding="utf-8").splitlines()
        text = next(json.loads(line)["content"] for line in lines if json.loads(line)["content"])
        content, path = original.read_bytes(), inputs / sample
        for word in sorted(re.findall(r"[A-Za-z]{4,}", text), key=len, reverse=True):
            if not sample.endswith(".db"):  # there, lengths are stored
                content = content.replace(word.encode(), MARK.encode())
            break
        path.write_bytes(content)
        lab.import_from(path, options=Options(**options))
    rows = [f"2026-01-0{day} 10:00,user,{sentence('table')} {day}" for day in range(1, 6)]
    (inputs / "table.csv").write_text("\n".join(["time,role,text", *rows]))
    lab.import_from(inputs / "table.csv", me="Ada")
    lines = [{"content": sentence("jsonl"), "timestamp": "2026-02-01T10:00:00Z", "user_id": "Ada"}]
    (inputs / "lines.jsonl").write_text("\n".join(map(json.dumps, lines)))
    lab.import_from("jsonl", inputs / "lines.jsonl")


async def use_storage(lab: Lab) -> None:
    """Write through repositories, and leave a dead letter."""
    registry = HandlerRegistry()

    async def fail(_: object) -> None:
        raise ValueError(sentence("handler"))

    registry.subscribe("told", consumer="failing")(fail)
    async with lab.data_access() as dal, UnitOfWork(dal) as uow:
        await uow.users.save(User(name=sentence("user"), id="ada"))
        said = Conversation(
            user_id="ada", message=sentence("repository"), timestamp=datetime.now(UTC)
        )
        await uow.conversations.save(said)
        await uow.memories.save(Memory(user_id="ada", content=sentence("memory")))
        await uow.publish("told", {"text": sentence("event")})
        await uow.commit()
        relay = Relay(dal, registry, backoff=0, attempts=1)
        while not await dead_letters(dal):
            await relay.run_once()


def ask(lab: Lab, notebooks: Path) -> None:
    """Search, ask, and run reports: one that counts messages, and one that fails with a message."""
    assert len(lab.search(f"{MARK} rain on green hills"))
    assert lab.sql("FROM quarantine.misfits").fetchall()
    lab.metrics.frequent_words(min_people=1)
    opened = "from aico_lab import Lab\nlab = Lab.open()\n"
    counted = f"{opened}print(len(lab.sql('FROM conversations').pl()))"
    write_notebook(notebooks / "counting.ipynb", counted)
    lab.reports.run(str(notebooks / "counting.ipynb"))
    raised = (
        f'{opened}raise ValueError(lab.sql("SELECT message FROM conversations '
        f"WHERE message LIKE '%jsonl%'\").fetchone()[0])"
    )
    write_notebook(notebooks / "failing.ipynb", raised)
    try:
        lab.reports.run(str(notebooks / "failing.ipynb"))
    except ReportError:
        return
    raise AssertionError("the notebook must fail")


def main(home: Path, inputs: Path) -> None:
    """Send the sentence through every path."""
    with Lab.create(home) as lab:
        import_formats(lab, inputs)
        asyncio.run(use_storage(lab))
        (inputs / "notes.md").write_text(f"# Notes\n\n{sentence('document')}")
        lab.knowledge.add(inputs / "notes.md")
        lab.cache.store.put("session:ada", {"turns": [sentence("cache")] * 40})
        lab.embeddings.update()
        lab.primary.execute(
            "UPDATE messages SET sentiment_score = content WHERE content LIKE '%repository%'"
        )
        stored = "SELECT count(*) FROM messages WHERE content LIKE ?"
        assert lab.primary.fetch_all(stored, [f"%{MARK}%"])[0][0] > len(FORMATS)
        with lab.primary.transaction():
            lab.primary.execute("UPDATE users SET metadata = json_object('a', name)")
            wait("stored")
        waiting_at(Warehouse, "close", "syncing")
        lab.sync()
        ask(lab, inputs)
        with lab.primary.transaction():
            back_up(lab.primary, "test")
        wait("synced")
        waiting_at(rebuilding, "_compare", "backing up")
        lab.backups.write(home.parent / "a.backup")
        waiting_at(sharing, "write_days", "sharing")
        _, recipient = new_identity()
        lab.privacy.share(home.parent / "shared", content="full", encrypt=[recipient])
        wait("done")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
