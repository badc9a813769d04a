"""Claude's export: trees, blocks, the index with a file for each conversation, and damage."""

from __future__ import annotations

import json
import zipfile

import pytest

from aico_lab.sources import recognise
from tests.exported import read

ROOT = "00000000-0000-4000-8000-000000000000"

PLACEHOLDER = "```\nThis block is not supported on your current device yet.\n```"


def say(uuid, sender, text, parent=None, time="2026-03-01T10:00:00Z", **others):
    message = {"uuid": uuid, "text": text, "sender": sender, "created_at": time, **others}
    return message if parent is None else message | {"parent_message_uuid": parent}


def talk(*messages, uuid="c1", **others):
    return {"uuid": uuid, "name": "Kites", "chat_messages": list(messages), **others}


def write(path, value):
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def export(tmp_path, *conversations):
    return write(tmp_path / "conversations.json", list(conversations))


def text(words):
    return {"type": "text", "text": words}


def test_equal_times_keep_the_order_of_parents(tmp_path):
    """The answer comes before the question in the file, and both have one time."""
    path = export(
        tmp_path, talk(say("b", "assistant", "Up.", "a"), say("a", "human", "How?", ROOT))
    )
    got = read("claude", path)
    assert got.contents == ["How?", "Up."]
    assert got.messages[1].reply_to == got.messages[0].message_id == "claude:c1:a"


@pytest.mark.parametrize("root", [{}, {"parent_message_uuid": None}])
def test_a_message_that_names_no_parent_is_the_first_one(tmp_path, root):
    """In a tree; its answer and a version of it that was given up may come before it."""
    path = export(
        tmp_path,
        talk(
            say("z", "human", "Who?", **root),
            say("b", "assistant", "Up.", "a"),
            say("a", "human", "How?", **root),
        ),
    )
    got = read("claude", path)
    assert got.contents == ["How?", "Up."]
    assert [one.reply_to for one in got.messages] == [None, "claude:c1:a"]
    assert got.metadata[0]["alternatives"] == 1


def test_a_reply_is_only_what_the_file_names(tmp_path):
    """The order of the file is no reply: without parents, and after a parent that is lost."""
    path = export(
        tmp_path,
        talk(say("a", "human", "1"), say("b", "assistant", "2"), say("c", "human", "3")),
        talk(
            say("a", "human", "1", ROOT),
            say("b", "assistant", "2", "a"),
            say("c", "human", "3", "gone"),
            say("d", "assistant", "4", "c"),
            uuid="c2",
        ),
    )
    got = read("claude", path)
    assert got.contents == ["1", "2", "3", "1", "2", "3", "4"]
    replies = [one.reply_to for one in got.messages]
    assert replies == [None, None, None, None, "claude:c2:a", None, "claude:c2:c"]


def test_a_lost_parent_makes_no_circle(tmp_path):
    """The message before it in the file is below it."""
    path = export(
        tmp_path, talk(say("b", "assistant", "Up.", "a"), say("a", "human", "How?", "gone"))
    )
    assert read("claude", path).contents == ["How?", "Up."]


def test_the_branch_of_the_newest_message_is_the_conversation(tmp_path):
    """An older branch that comes later in the file is an alternative."""
    path = export(
        tmp_path,
        talk(
            say("a", "human", "Hi", ROOT),
            say("c", "assistant", "Newer", "a", "2026-03-01T10:05:00Z"),
            say("b", "assistant", "Older", "a", "2026-03-01T10:01:00Z"),
        ),
    )
    got = read("claude", path)
    assert got.contents == ["Hi", "Newer"]
    assert got.metadata[1]["alternatives"] == 1


def test_an_edited_first_question_is_an_alternative(tmp_path):
    """Two roots with the nil id are two versions of one question."""
    path = export(
        tmp_path,
        talk(
            say("a", "human", "First", ROOT),
            say("b", "human", "Second", ROOT, "2026-03-01T10:01:00Z"),
            say("c", "assistant", "Yes", "b", "2026-03-01T10:01:09Z"),
        ),
    )
    assert read("claude", path).contents == ["Second", "Yes"]


def test_messages_from_before_parents_were_written_stay(tmp_path):
    """A conversation that was begun in the old form and continued in the new one is whole."""
    path = export(
        tmp_path,
        talk(
            say("a", "human", "1"),
            say("b", "assistant", "2"),
            say("c", "human", "3", "b"),
            say("d", "assistant", "4", "gone"),
        ),
    )
    assert read("claude", path).contents == ["1", "2", "3", "4"]


def test_a_circle_of_parents_ends(tmp_path):
    """Messages that are each other's parents are read once."""
    path = export(tmp_path, talk(say("a", "human", "1", "b"), say("b", "assistant", "2", "a")))
    assert sorted(read("claude", path).contents) == ["1", "2"]


def test_a_long_branch_is_read_without_recursion(tmp_path):
    """10,000 messages in one branch."""
    messages = [
        say(
            f"m{number}",
            ("human", "assistant")[number % 2],
            str(number),
            f"m{number - 1}",
            f"2026-03-01T{number // 500:02}:00:00Z",
        )
        for number in range(10_000)
    ]
    messages[0]["parent_message_uuid"] = ROOT
    path = export(tmp_path, talk(*messages))
    assert read("claude", path).contents == [str(number) for number in range(10_000)]


@pytest.mark.parametrize(
    ("flat", "blocks", "expected"),
    [
        ("", [text("In a block.")], "In a block."),
        ("Only flat.", [], "Only flat."),
        ("Only flat.", None, "Only flat."),
        (
            f"A\n{PLACEHOLDER}\n\nB",
            [text("A"), {"type": "tool_use"}, {"type": "tool_result"}, text("B")],
            "A\nB",
        ),
        (
            "A\n\n```\nThis block is not supported on your current device yet.\n```\n\nB",
            [],
            "A\n\nB",
        ),
        ("x", [{"type": "thinking", "thinking": "Hm."}, text("Said.")], "Said."),
    ],
)
def test_text_is_that_of_text_blocks(tmp_path, flat, blocks, expected):
    """The flat text counts only where there are no blocks of text, without its placeholders."""
    path = export(tmp_path, talk(say("a", "assistant", flat, content=blocks)))
    assert read("claude", path).contents == [expected]


def test_what_was_not_said_is_counted(tmp_path):
    """Reasoning, tools, and answers without anything."""
    blocks = [{"type": "thinking"}, {"type": "tool_use"}, {"type": "tool_result"}, text("Well.")]
    path = export(
        tmp_path,
        talk(
            say("a", "assistant", "", content=blocks),
            say("b", "assistant", "", content=[{"type": "tool_use"}]),
            say("c", "robot", "?"),
        ),
    )
    got = read("claude", path)
    assert got.contents == ["Well."]
    assert got.skipped == {
        "reasoning": 1,
        "tool call": 2,
        "tool result": 1,
        "empty answer": 1,
        "message of an unknown sender": 1,
    }


def test_pastes_and_files_are_attachments(tmp_path):
    """A message that is only a paste is a message without words."""
    path = export(
        tmp_path,
        talk(
            say(
                "a",
                "human",
                "",
                attachments=[{"file_name": "", "extracted_content": "long"}],
                files=[{"file_name": "Kite.PNG"}],
            )
        ),
    )
    got = read("claude", path)
    assert got.contents == [""]
    assert got.metadata[0]["attachments"] == [{"kind": "file"}, {"kind": "image"}]


def test_a_missing_time_is_that_of_a_block_else_estimated(tmp_path):
    """`created_at` may be null."""
    block = {"type": "text", "text": "2", "start_timestamp": "2026-03-01T10:00:07.5Z"}
    path = export(
        tmp_path,
        talk(
            say("a", "human", "1", time=None),
            say("b", "assistant", "2", time=None, content=[block]),
            say("c", "human", "3", time="yesterday"),
            created_at="2026-03-01T09:59:00+00:00",
        ),
    )
    got = read("claude", path)
    assert got.times == [
        "2026-03-01T09:59:00.000000Z",
        "2026-03-01T10:00:07.500000Z",
        "2026-03-01T10:00:07.500000Z",
    ]
    assert [one.get("timestamp_estimated") for one in got.metadata] == [True, None, True]


def test_an_index_with_a_file_for_each_conversation(tmp_path):
    """The index has no messages; users, projects and memories are passed over."""
    path = tmp_path / "data-2026-03-01.zip"
    files = {
        "conversations.json": [{"uuid": "c1", "name": "Kites"}, {"uuid": "c2", "name": ""}],
        "conversations/c1.json": talk(say("a", "human", "One")),
        "conversations/c2.json": talk(say("a", "human", "Two"), uuid="c2"),
        "users.json": [{"uuid": "u", "full_name": "Mira"}],
        "projects.json": [{"uuid": "p", "name": "Kites", "docs": []}],
        "memories.json": [{"conversations_memory": "Mira likes kites."}],
        "design_chats/d.json": {"uuid": "d", "project": {}, "messages": [{"role": "user"}]},
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, value in files.items():
            archive.writestr(name, json.dumps(value))
    assert recognise(path).name == "claude"
    got = read("claude", path)
    assert got.contents == ["One", "Two"]
    assert got.rejected == []
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "unpacked")
    assert read("claude", tmp_path / "unpacked").messages == got.messages
    one = tmp_path / "unpacked" / "conversations" / "c2.json"
    assert recognise(one).name == "claude"
    assert read("claude", one).messages == got.messages[1:]
    assert recognise(one.parent).name == "claude"
    assert read("claude", one.parent).messages == got.messages


def test_a_file_for_a_conversation_that_is_damaged_is_reported(tmp_path):
    """The other files go in."""
    folder = tmp_path / "conversations"
    folder.mkdir()
    write(folder / "c1.json", talk(say("a", "human", "One")))
    (folder / "c2.json").write_text('{"uuid": "c2", "chat_messages": [{"uuid": ', encoding="utf-8")
    got = read("claude", tmp_path)
    assert got.contents == ["One"]
    assert [one.where for one in got.rejected] == ["conversation 1 of conversations/c2.json"]


def test_what_is_no_conversation_is_counted(tmp_path):
    """Chats of another kind, projects and memories lie beside the conversations."""
    folder = tmp_path / "data"
    (folder / "design_chats").mkdir(parents=True)
    export(folder, talk(say("a", "human", "One")))
    write(folder / "design_chats" / "1.json", {"uuid": "d", "project": {}, "messages": []})
    write(folder / "projects.json", [{"uuid": "p", "name": "Kites", "docs": []}])
    write(folder / "memories.json", [{"conversations_memory": "Mira likes kites."}])
    write(folder / "users.json", [{"uuid": "u"}])
    got = read("claude", folder)
    assert (got.contents, got.rejected) == (["One"], [])
    assert got.skipped == {"chat of another kind": 1, "file of projects": 1, "file of memories": 1}


def test_ids_do_not_depend_on_the_name_of_the_file(tmp_path):
    """The same conversation in another download has the same ids."""
    first = read("claude", export(tmp_path, talk(say("a", "human", "One"))))
    other = write(tmp_path / "conversations (1).json", [talk(say("a", "human", "One"))])
    assert read("claude", other).messages == first.messages


@pytest.mark.parametrize("value", [None, 7, "text", [], {}, True, [[1]], 1e400])
@pytest.mark.parametrize(
    "key", ["uuid", "text", "content", "sender", "created_at", "attachments", "parent_message_uuid"]
)
def test_values_of_any_type_harm_only_their_message(tmp_path, key, value):
    """The other conversation stays whole, and there is no traceback."""
    damaged = talk(say("a", "human", "Hello") | {key: value}, say("b", "assistant", "Yes", "a"))
    path = export(tmp_path, damaged, talk(say("d", "human", "Whole"), uuid="c2"))
    assert read("claude", path).contents[-1] == "Whole"


@pytest.mark.parametrize("value", [None, 7, "text", [], {}, True, [[1]], 1e400])
@pytest.mark.parametrize("key", ["type", "text", "start_timestamp", "file_name"])
def test_values_of_blocks_and_files_may_be_of_any_type(tmp_path, key, value):
    block = {"type": "text", "text": "Hello", "file_name": "a.png", key: value}
    message = say("a", "human", "Hello", content=[block], attachments=[block], files=block)
    got = read("claude", export(tmp_path, talk(message, say("b", "assistant", "Whole"))))
    assert got.contents[-1] == "Whole"


@pytest.mark.parametrize("value", [None, 7, "text", {}, [7, None]])
@pytest.mark.parametrize("key", ["uuid", "name", "chat_messages", "created_at"])
def test_a_damaged_conversation_does_not_stop_the_others(tmp_path, key, value):
    path = export(
        tmp_path,
        talk(say("a", "human", "Hello")) | {key: value},
        talk(say("d", "human", "Whole"), uuid="c2"),
    )
    assert read("claude", path).contents[-1] == "Whole"


def test_conversations_after_a_damaged_one_go_in(tmp_path):
    """Of three, the middle one loses a quotation mark, and the first has no list of messages."""
    path = export(
        tmp_path,
        {"uuid": "c0", "name": "no messages"},
        talk(say("a", "human", "One")),
        talk(say("b", "human", "Damaged"), uuid="c2"),
        talk(say("c", "human", "Three"), uuid="c3"),
    )
    path.write_text(path.read_text(encoding="utf-8").replace('"Damaged"', '"Damaged'), "utf-8")
    got = read("claude", path)
    assert got.contents == ["One", "Three"]
    assert len(got.rejected) == 2


def test_a_message_that_is_there_twice_is_on_the_path(lab, tmp_path):
    said = {"sender": "human", "text": "hi", "created_at": "2026-01-01T00:00:00Z"}
    messages = [said | {"uuid": "m"}, said | {"uuid": "m"}]
    path = tmp_path / "conversations.json"
    path.write_text(json.dumps([{"uuid": "c", "name": "N", "chat_messages": messages}]))
    result = lab.import_from(path)
    assert (result.added, result.missing) == (1, 0)
