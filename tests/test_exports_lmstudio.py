"""LM Studio's conversations: versions, steps, times, names, and damage."""

from __future__ import annotations

import json

from aico_lab.sources import recognise
from tests.exported import read

STARTED = 1767261600000


def text(words):
    return {"type": "text", "text": words}


def one(role, *parts):
    return {"type": "singleStep", "role": role, "content": list(parts)}


def steps(*blocks, **others):
    return {"type": "multiStep", "role": "assistant", "steps": list(blocks), **others}


def block(words, **others):
    return {"type": "contentBlock", "content": [text(words)], **others}


def message(*versions, selected=0):
    return {"versions": list(versions), "currentlySelected": selected}


def export(tmp_path, *messages, file=f"{STARTED}.conversation.json", **others):
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    talk = {"name": "Kites", "createdAt": STARTED, "systemPrompt": "", "tokenCount": 1,
            "messages": list(messages), **others}  # fmt: skip
    path.write_text(json.dumps(talk), encoding="utf-8")
    return path


def test_a_selection_that_is_not_there_is_the_last_version(tmp_path):
    versions = (one("user", text("First")), one("user", text("Second")))
    path = export(tmp_path, *(message(*versions, selected=at) for at in (0, 1, 7, -1, None)))
    got = read("lmstudio", path)
    assert got.contents == ["First", *["Second"] * 4]
    assert {metadata["alternatives"] for metadata in got.metadata} == {1}


def test_what_was_not_said_is_counted(tmp_path):
    answer = steps(
        block("Hm", style={"type": "thinking"}),
        {"type": "contentBlock", "content": [{"type": "toolCallRequest"}]},
        {"type": "contentBlock", "role": "tool", "content": [text("42")]},
        {"type": "toolStatus"},
        block("It is 42.", genInfo={"identifier": "qwen"}),
        {"type": "debugInfoBlock"},
    )
    path = export(
        tmp_path, message(one("user", text("?"))), message(answer), message(steps()),
        systemPrompt="Be short.",
    )  # fmt: skip
    got = read("lmstudio", path)
    assert got.contents == ["?", "It is 42."]
    assert got.metadata[1]["model"] == "qwen"
    assert got.skipped == {
        "reasoning": 1, "tool call": 2, "tool result": 1, "notice": 1, "empty answer": 1,
        "system prompt": 1,
    }  # fmt: skip


def test_the_second_import_of_a_longer_conversation_keeps_the_ids(tmp_path):
    """The copy in the downloads folder has another name."""
    hello = message(one("user", text("Hi")))
    before = read("lmstudio", export(tmp_path, hello)).messages
    name = f"{STARTED}.conversation (1).json"
    path = export(tmp_path, hello, message(steps(block("Yo"))), hello, file=name)
    after = read("lmstudio", path).messages
    assert after[0] == before[0]
    assert len({one.message_id for one in after}) == 3


def test_a_renamed_file_keeps_its_id(tmp_path):
    path = export(tmp_path, message(one("user", text("Hi"))), file="kites.json")
    assert recognise(path).name == "lmstudio"
    assert read("lmstudio", path).messages[0].conversation_id == f"lmstudio:{STARTED}"


def test_all_times_are_estimated_from_the_beginning(tmp_path):
    got = read("lmstudio", export(tmp_path, *[message(one("user", text("Hi")))] * 8))
    assert set(got.times) == {"2026-01-01T10:00:00.000000Z"}
    assert all(metadata["timestamp_estimated"] for metadata in got.metadata)
    assert not got.rejected


def test_a_folder_of_conversations_is_read_past_a_damaged_one(tmp_path):
    export(tmp_path, message(one("user", text("Hi"))))
    export(tmp_path, message(one("user", text("Ho"))), file="Work/1767261700000.conversation.json")
    (tmp_path / "1767261650000.conversation.json").write_text('{"name": "x", "messages": [')
    (tmp_path / "settings.json").write_text('{"messages": 1}')
    assert recognise(tmp_path).name == "lmstudio"
    got = read("lmstudio", tmp_path)
    assert got.contents == ["Hi", "Ho"]
    assert len(got.rejected) == 1


def test_an_empty_conversation_is_recognised(tmp_path):
    path = export(tmp_path)
    assert recognise(path).name == "lmstudio"
    assert read("lmstudio", path).contents == []
