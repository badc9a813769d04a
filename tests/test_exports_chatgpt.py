"""ChatGPT's export: facts about the format that the sample does not have."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from aico_lab.sources import recognise
from tests.exported import Read, read

if TYPE_CHECKING:
    from pathlib import Path

TIME = 1767261600.5


def node(name: str, parent: str | None, text: object, **message: Any) -> dict[str, Any]:
    """Return a node as the slim form of 2026 has it, without children and metadata."""
    role = "assistant" if name.startswith("a") else "user"
    content = text if isinstance(text, dict) else {"content_type": "text", "parts": [text]}
    fields = {"id": name, "author": {"role": role}, "create_time": TIME, "content": content}
    return {"id": name, "parent": parent, "message": {**fields, **message}}


def conversation(*nodes: dict[str, Any], current: str | None = None, **keys: Any) -> dict[str, Any]:
    mapping = {one["id"]: one for one in ({"id": "root", "message": None}, *nodes)}
    return {"id": "c", "title": "T", "mapping": mapping, "current_node": current, **keys}


def write(path: Path, *conversations: dict[str, Any]) -> Path:
    path.write_text(json.dumps(conversations))
    return path


def of(tmp_path: Path, *nodes: dict[str, Any], **keys: Any) -> Read:
    return read("chatgpt", write(tmp_path / "x.json", conversation(*nodes, **keys)))


@pytest.mark.parametrize("name", ["conversations (1).json", "conversations-12.json"])
def test_a_part_is_known_by_its_name_among_other_files(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, conversation(node("u1", "root", "hello")))
    (tmp_path / "user.json").write_text("{}")
    assert recognise(tmp_path).name == "chatgpt"
    assert read("chatgpt", tmp_path).contents == ["hello"]


def test_only_an_answer_is_sent_to_tools(tmp_path: Path) -> None:
    nodes = [
        node("u1", "root", "hello", recipient="assistant", channel="commentary"),
        node("a1", "u1", "search()", recipient="web.run"),
        node("a2", "a1", "plan", channel="commentary"),
        node("a3", "a2", "Hi", recipient="all", channel="final"),
    ]
    got = of(tmp_path, *nodes)
    assert got.contents == ["hello", "Hi"]
    assert got.skipped == {"tool call": 1, "reasoning or code": 1}
    assert got.messages[1].reply_to == got.messages[0].message_id


@pytest.mark.parametrize("key", ["id", "conversation_id"])
def test_a_conversation_without_an_id_is_named_after_its_first_message(
    tmp_path: Path, key: str
) -> None:
    for value in (None, "", []):
        keys = {"id": None, key: value}
        got = of(tmp_path, node("u1", "root", "hello"), node("a1", "u1", "Hi"), **keys)
        assert {message.conversation_id for message in got.messages} == {"chatgpt:u1"}


@pytest.mark.parametrize("given", [TIME, str(TIME), "2026-01-01T10:00:00.500000Z"])
def test_a_time_is_a_number_or_a_text(tmp_path: Path, given: object) -> None:
    got = of(tmp_path, node("u1", "root", "hello", create_time=None), create_time=given)
    assert got.times == ["2026-01-01T10:00:00.500000Z"]
    assert got.metadata[0]["timestamp_estimated"] is True


def test_the_time_to_answer_is_kept(tmp_path: Path) -> None:
    timed = node("a1", "u1", "Hi", metadata={"finished_duration_sec": 4})
    assert of(tmp_path, node("u1", "root", "x"), timed).metadata[1]["generation_seconds"] == 4


def test_a_path_that_is_broken_goes_on_with_what_was_said_before(tmp_path: Path) -> None:
    nodes = [node("u1", "root", "one"), node("a1", "u1", "two"), node("u2", "lost", "three")]
    nodes += [node("a2", "u2", "four")]
    got = of(tmp_path, *nodes, current="a2")
    assert got.contents == ["one", "two", "three", "four"]
    one, _, three, _ = got.messages
    replies = [message.reply_to for message in got.messages]
    assert replies == [None, one.message_id, None, three.message_id]


def test_branches_below_a_lost_root_are_alternatives(tmp_path: Path) -> None:
    nodes = [node("u1", "lost", "one"), node("a1", "u1", "two"), node("u2", "lost", "new one")]
    got = of(tmp_path, *nodes, node("a2", "u2", "answer"), current="a2")
    assert got.contents == ["new one", "answer"]


@pytest.mark.parametrize("value", ["x", 3, None, {"a": 1}, [["x"]]])
def test_parts_of_any_type_are_no_error(tmp_path: Path, value: object) -> None:
    spoken = {"content_type": "audio_transcription", "text": value}
    parts = {"content_type": "multimodal_text", "parts": [spoken, value, "said"]}
    assert of(tmp_path, node("u1", "root", parts)).contents[0].endswith("said")


def test_a_rating_without_its_message_is_counted(tmp_path: Path) -> None:
    nodes = [node("u1", "root", "Hi"), node("a1", "u1", "Yo"), node("a2", "u1", "Hello")]
    write(tmp_path / "conversations.json", conversation(*nodes, current="a2"))
    rated = [{"id": name, "rating": "thumbs_up"} for name in ("a1", "a2", "gone", "gone")]
    (tmp_path / "message_feedback.json").write_text(json.dumps(rated))
    got = read("chatgpt", tmp_path)
    feedback = [one.message_id for batch in got.batches for one in batch.feedback]
    assert feedback == ["chatgpt:c:a2"]
    assert got.skipped == {
        "rating of a message that was left out": 1,
        "rating of a message that is not in the export": 2,
    }
