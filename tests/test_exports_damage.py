"""Values of a wrong type in an export: what is lost is reported, and nothing stored is lost."""

from __future__ import annotations

import contextlib
import copy
import json
import random
import zipfile
from typing import TYPE_CHECKING, Any

import pytest

from aico_lab.errors import AicoLabError
from aico_lab.sources import SOURCES
from aico_lab.sources.exports.engine.conversation import Options
from tests.test_exports import FORMATS, SAMPLES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from aico_lab.lab import Lab

WRONG: tuple[Any, ...] = (5.5, "<b>x</b>", [5], {"x": 1})
FEW = 120
"""Places of a sample in which values are changed."""

NEVER_NULL = frozenset({"author", "candidates", "mes", "role", "sender", "versions"})
DOCUMENTS = [
    name
    for name, (kind, _) in FORMATS.items()
    if name.endswith((".json", ".jsonl")) and kind not in ("sharegpt", "telegram")
]
"""Samples that are JSON; Telegram's is none before it is mended."""


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of each value in a document."""
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield (*above, key)
            yield from places(value[key], (*above, key))


def changed(document: Any, place: tuple[Any, ...], value: Any) -> Any:
    """Return a document with another value at a place."""
    other = copy.deepcopy(document)
    holder = other
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = value
    return other


def at(document: Any, place: tuple[Any, ...]) -> Any:
    """Return the value at a place of a document."""
    for key in place:
        document = document[key]
    return document


def _document(text: str, *, is_lines: bool) -> Any:
    """Return a sample as JSON, without the lines that are damaged already."""
    if not is_lines:
        return json.loads(text)
    found = []
    for line in text.split("\n"):
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return found


def unreported(sample: str, tmp_path: Path) -> list[str]:
    """Return the wrong values by which a message is missing from a conversation without damage."""
    name, options = FORMATS[sample]
    path = tmp_path / sample
    text = (SAMPLES / sample).read_text(encoding="utf-8")
    is_lines = sample.endswith(".jsonl")
    document = _document(text, is_lines=is_lines)

    def read(value: Any) -> tuple[dict[str, set[str]], frozenset[str]]:
        lines = "\n".join(map(json.dumps, value)) if is_lines else json.dumps(value)
        path.write_text(lines, encoding="utf-8")
        batches = list(SOURCES[name].read(path, options=Options(**options)))
        found: dict[str, set[str]] = {}
        for message in (message for batch in batches for message in batch.messages):
            found.setdefault(message.conversation_id, set()).add(message.message_id)
        return found, batches[-1].whole

    before, _ = read(document)
    silent = []
    every = list(places(document))
    for place in random.Random(sample).sample(every, min(len(every), FEW)):
        for value in (None, *WRONG) if place[-1] in NEVER_NULL else WRONG:
            if type(value) is type(at(document, place)):
                continue
            if place[-1] == "send_date" and isinstance(value, str):
                continue  # a text of another time is of the right type
            try:
                found, whole = read(changed(document, place, value))
            except AicoLabError:  # the file is refused with a reason
                continue
            for conversation, messages in before.items():
                if conversation in whole and messages - found.get(conversation, set()):
                    silent.append(f"{place} = {value!r}")
    return silent


@pytest.mark.parametrize("sample", DOCUMENTS)
def test_a_message_that_a_wrong_value_loses_is_not_taken_for_deleted(
    sample: str, tmp_path: Path
) -> None:
    assert unreported(sample, tmp_path) == []


def with_another_item(document: Any, place: tuple[Any, ...]) -> Any:
    """Return a document with a number at the end of a list, which an export has for objects."""
    return changed(document, place, [*at(document, place), 5])


LISTS = {
    "claude_conversations.json": ("attachments", "content", "files", "chat_messages"),
    "discord_dce.json": ("attachments", "embeds", "fields", "stickers", "reactions"),
    "gemini_myactivity.json": ("subtitles",),
    "librechat_export.json": ("content", "children", "messagesTree"),
    "lmstudio_1767261600000.conversation.json": ("content", "messages", "steps", "versions"),
    "openwebui_export.json": ("files",),
}
"""The lists of objects in samples."""

NOT_READ: dict[str, tuple[tuple[Any, ...], ...]] = {
    "claude_conversations.json": (
        *((0, "chat_messages", number) for number in (2, 3)),
        (1, "chat_messages", 1, "content", 3, "content"),
    ),
    "discord_dce.json": (
        *(("messages", number) for number in (0, 5, 11, 12)),
        ("messages", 9, "forwardedMessage", "embeds"),
    ),
    "openwebui_export.json": ((0, "chat", "history", "messages", "a-a2"), (0, "chat", "files")),
}
"""Parts of samples that hold no messages: other branches, results of tools, and notices."""


@pytest.mark.parametrize("sample", LISTS)
def test_what_is_no_object_in_a_list_of_objects_is_counted(sample: str, tmp_path: Path) -> None:
    name, options = FORMATS[sample]
    path = tmp_path / sample
    document = json.loads((SAMPLES / sample).read_text(encoding="utf-8"))

    def damaged(value: Any) -> int:
        path.write_text(json.dumps(value), encoding="utf-8")
        batches = list(SOURCES[name].read(path, options=Options(**options)))
        return sum(batch.skipped.get("damaged message", 0) for batch in batches)

    before = damaged(document)
    lists = [
        place
        for place in places(document)
        if place[-1] in LISTS[sample]
        and isinstance(at(document, place), list)
        and not any(place[: len(part)] == part for part in NOT_READ.get(sample, ()))
    ]
    assert {place[-1] for place in lists} == set(LISTS[sample])
    assert [place for place in lists if damaged(with_another_item(document, place)) == before] == []


@pytest.mark.parametrize("key", ["attachments", "files"])
def test_what_is_no_object_among_the_files_of_librechat_is_counted(
    key: str, tmp_path: Path
) -> None:
    message = {"messageId": "a", "isCreatedByUser": True, "text": "Hi", "createdAt": "2026-01-02"}
    document = {"conversationId": "c", "title": "T", "messages": [message | {key: [5]}]}
    path = tmp_path / "chat.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    (batch,) = SOURCES["librechat"].read(path)
    assert [one.content for one in batch.messages] == ["Hi"]
    assert batch.skipped == {"damaged message": 1}


def test_what_is_no_object_in_the_output_of_open_webui_is_counted(tmp_path: Path) -> None:
    said = {"type": "message", "content": [{"type": "output_text", "text": "Hi"}, 5]}
    message = {"id": "a", "role": "assistant", "timestamp": 1767262000, "content": "",
               "output": [said, 5]}  # fmt: skip
    chat = {"history": {"currentId": "a", "messages": {"a": message}}, "title": "T", "models": []}
    path = tmp_path / "chats.json"
    path.write_text(json.dumps([{"id": "c", "chat": chat}]), encoding="utf-8")
    (batch,) = SOURCES["openwebui"].read(path)
    assert [one.content for one in batch.messages] == ["Hi"]
    assert batch.skipped == {"damaged message": 2}


def test_a_file_whose_checksum_fails_is_read_and_the_damage_reported(tmp_path: Path) -> None:
    text = (SAMPLES / "chatgpt_conversations.json").read_bytes()
    path = tmp_path / "export.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("conversations.json", text)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"Basil, mostly", b"Basil, mostlx"))
    sound = tmp_path / "conversations.json"
    sound.write_bytes(text)

    def read(one: Path) -> tuple[int, int]:
        batches = list(SOURCES["chatgpt"].read(one, options=Options()))
        found = sum(len(batch.messages) for batch in batches)
        return found, sum(len(batch.rejected) for batch in batches)

    assert data != path.read_bytes()
    assert read(path) == (read(sound)[0], read(sound)[1] + 1)


def test_an_empty_text_replaces_no_stored_one(lab: Lab, tmp_path: Path) -> None:
    """Only with media, since then a picture may have taken the place of the text."""
    document = json.loads((SAMPLES / "claude_conversations.json").read_text(encoding="utf-8"))
    path = tmp_path / "conversations.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    lab.import_from(path)
    stored = lab.primary.fetch_all("SELECT message_id, content FROM messages ORDER BY id")
    for message in document[0]["chat_messages"]:
        message |= {"text": "", "content": [], "files": [], "attachments": []}
    path.write_text(json.dumps(document), encoding="utf-8")
    assert lab.import_from(path).updated == 0
    assert lab.primary.fetch_all("SELECT message_id, content FROM messages ORDER BY id") == stored
