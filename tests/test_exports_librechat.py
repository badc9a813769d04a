"""LibreChat's export: nested and flat messages, parts of a message, and damage."""

from __future__ import annotations

import json

import pytest

from aico_lab.sources import recognise
from tests.exported import read

ROOT = "00000000-0000-0000-0000-000000000000"


def say(key, text, parent=ROOT, time="10:00:00", *, user=False, **others):
    return {"messageId": key, "parentMessageId": parent, "isCreatedByUser": user, "text": text,
            "createdAt": f"2026-05-01T{time}Z", "user": "u1", **others}  # fmt: skip


def export(tmp_path, messages, *, key="messages", name="c1", file="chat.json", **others):
    path = tmp_path / file
    talk = {"conversationId": name, "endpoint": "openAI", "title": "Kites", key: messages, **others}
    path.write_text(json.dumps(talk), encoding="utf-8")
    return path


def test_a_flat_list_may_hold_children_before_their_parents(tmp_path):
    messages = [
        say("c", "Why?", "b", "10:01:00", user=True),
        say("b", "Up.", "a", "10:00:09"),
        say("a", "Where?", user=True),
    ]
    path = export(tmp_path, messages)
    got = read("librechat", path)
    assert got.contents == ["Where?", "Up.", "Why?"]
    assert got.roles == ["user", "assistant", "user"]
    assert recognise(path).name == "librechat"


def test_a_deep_tree_is_read(tmp_path):
    """Each answer is nested in its question: deeper than Python's recursion."""
    message = None
    for number in reversed(range(3_000)):
        nested = [] if message is None else [message]
        parent = f"m{number - 1}" if number else ROOT
        time = f"{number // 3600:02}:{number // 60 % 60:02}:{number % 60:02}"
        is_user = number % 2 == 0
        message = say(f"m{number}", f"Text {number}", parent, time, user=is_user, children=nested)
    parts = []
    while message is not None:  # as json.dumps would recurse too
        nested = message.pop("children")
        parts.append(json.dumps(message)[:-1] + ', "children": [')
        message = nested[0] if nested else None
    path = tmp_path / "deep.json"
    tree = "".join(parts) + "]}" * len(parts)
    path.write_text(f'{{"conversationId": "c", "title": "T", "messagesTree": [{tree}]}}')
    got = read("librechat", path)
    assert len(got.messages) == 3_000
    assert got.contents[-1] == "Text 2999"


def test_the_branch_written_last_is_the_conversation(tmp_path):
    """A later edit of another branch does not count."""
    messages = [
        say("a", "Hi", user=True),
        say("b", "Old", "a", "10:00:05", updatedAt="2026-06-01T00:00:00Z", isEdited=True),
        say("c", "New", "a", "10:00:30", updatedAt="2026-05-02T00:00:00Z", isEdited=True),
    ]
    got = read("librechat", export(tmp_path, messages))
    assert got.contents == ["Hi", "New"]
    assert got.metadata[1]["alternatives"] == 1
    assert got.metadata[1]["edited_at"] == "2026-05-02T00:00:00+00:00"


def test_a_parent_outside_the_file_is_the_message_before(tmp_path):
    """An export without branches may begin in the middle."""
    messages = [say("a", "Hi", "gone", user=True), say("b", "Yo", "lost", "10:00:05")]
    messages.append(say("c", "So?", "b", "10:01:00", user=True))
    got = read("librechat", export(tmp_path, messages))
    assert got.contents == ["Hi", "Yo", "So?"]
    assert [one.reply_to for one in got.messages] == [None, None, "librechat:c1:b"]


def test_what_was_not_said_is_counted(tmp_path):
    content = [
        {"type": "think", "think": "Hm"},
        {"type": "tool_call"},
        {"type": "text", "text": "A"},
    ]
    messages = [
        say("a", "Hi", user=True),
        say("b", "", "a", "10:00:01", content=content),
        say("c", ":::thinking\nHm\n:::\nB", "b", "10:00:02"),
        say("d", "Something went wrong", "c", "10:00:03", error=True),
        say("e", "", "d", "10:00:04"),
    ]
    got = read("librechat", export(tmp_path, messages, options={"promptPrefix": "Be short."}))
    assert got.contents == ["Hi", "A", "B"]
    assert got.skipped == {
        "reasoning": 2, "tool call": 1, "notice of an error": 1, "empty answer": 1,
        "system prompt": 1,
    }  # fmt: skip


def test_files_and_thumbs_are_kept(tmp_path):
    messages = [
        say("a", "", user=True, files=[{"type": "image/png"}, {"type": "application/pdf"}]),
        say("b", "Nice", "a", "10:00:09", feedback={"rating": "thumbsUp"}),
    ]
    got = read("librechat", export(tmp_path, messages))
    assert got.metadata[0]["attachments"] == [{"kind": "image"}, {"kind": "file"}]
    [rating] = got.batches[0].feedback
    assert (rating.message_id, rating.value) == ("librechat:c1:b", 1.0)


@pytest.mark.parametrize("damage", ['{"conversationId": "c9", "title": "T", "mess', "[1, 2]", "{}"])
def test_a_damaged_file_leaves_the_others_of_its_folder(tmp_path, damage):
    export(tmp_path, [say("a", "Hi", user=True)], file="a.json")
    (tmp_path / "b.json").write_text(damage)
    export(tmp_path, [say("a", "Ho", user=True)], file="c.json", name="c3")
    assert read("librechat", tmp_path).contents == ["Hi", "Ho"]
