"""Open WebUI's export: trees, reasoning in the text, the program's database, and damage."""

from __future__ import annotations

import json
import sqlite3
import zipfile

import pytest

from aico_lab.sources import recognise
from tests.exported import read


def say(key, role, text, parent=None, at=1767261600, **others):
    return {"id": key, "parentId": parent, "role": role, "content": text, "timestamp": at, **others}


def chat(*messages, current=None, name="c1", **others):
    history = {"currentId": current, "messages": {one["id"]: one for one in messages}}
    return {"id": name, "user_id": "u1", "title": "Kites", "created_at": 1767261600,
            "chat": {"history": history, "messages": [], **others}}  # fmt: skip


def export(tmp_path, *chats):
    path = tmp_path / "chat-export-1767261600123.json"
    path.write_text(json.dumps(list(chats)), encoding="utf-8")
    return path


def test_the_path_ends_at_the_current_message(tmp_path):
    """A newer answer off the path is an alternative."""
    path = export(
        tmp_path,
        chat(
            say("a", "user", "Hi"),
            say("c", "assistant", "Newer", "a", 1767261900),
            say("b", "assistant", "Older", "a", 1767261610),
            current="b",
        ),
    )
    got = read("openwebui", path)
    assert got.contents == ["Hi", "Older"]
    assert got.metadata[1]["alternatives"] == 1


@pytest.mark.parametrize("current", [None, "gone", 7, {}])
def test_without_a_current_message_the_newest_leaf_ends_the_path(tmp_path, current):
    messages = (
        say("a", "user", "Hi"),
        say("b", "assistant", "Newer", "a", 1767261900),
        say("c", "assistant", "Older", "a", 1767261610),
    )
    assert read("openwebui", export(tmp_path, chat(*messages, current=current))).contents == [
        "Hi",
        "Newer",
    ]


def test_a_list_without_a_tree_has_no_replies(tmp_path):
    """The order of the list is the order of the chat."""
    listed = [say("a", "user", "1"), say("b", "assistant", "2")]
    path = export(tmp_path, {"id": "c1", "chat": {"title": "Old", "messages": listed}})
    got = read("openwebui", path)
    assert got.contents == ["1", "2"]
    assert [one.reply_to for one in got.messages] == [None, None]


def test_a_circle_of_parents_ends(tmp_path):
    path = export(
        tmp_path, chat(say("a", "user", "Hi", "b"), say("b", "assistant", "Yo", "a"), current="b")
    )
    assert read("openwebui", path).contents == ["Hi", "Yo"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('<details type="reasoning" done="true"><details>in</details> x</details>\nYes.', "Yes."),
        ("<details type='tool_calls'>\n</details>A <details>kept</details>", "A <details>kept</details>"),  # noqa: E501
        ('Now:<details type="code_interpreter" done="true">1</details> two', "Now: two"),
        ('Well. <details type="reasoning" done="false">never closed', "Well."),
        ("<details><summary>said</summary>yes</details>", "<details><summary>said</summary>yes</details>"),  # noqa: E501
    ],
)  # fmt: skip
def test_only_what_was_said_is_the_answer(tmp_path, content, said):
    """An element of another type was written by the model for people to read."""
    path = export(
        tmp_path, chat(say("a", "user", "Hi"), say("b", "assistant", content, "a"), current="b")
    )
    assert read("openwebui", path).contents == ["Hi", said]


def test_a_persons_text_stays_whole(tmp_path):
    text = 'Why <details type="reasoning">?</details>'
    assert read("openwebui", export(tmp_path, chat(say("a", "user", text)))).contents == [text]


def test_an_answer_may_stand_in_its_output_only(tmp_path):
    """The text has nothing but reasoning."""
    output = [
        {"type": "reasoning", "content": [{"type": "output_text", "text": "Hm."}]},
        {"type": "message", "content": [{"type": "output_text", "text": "Up."}]},
    ]
    content = '<details type="reasoning" done="true">Hm.</details>'
    path = export(
        tmp_path,
        chat(say("a", "user", "Hi"), say("b", "assistant", content, "a", output=output)),
    )
    got = read("openwebui", path)
    assert got.contents == ["Hi", "Up."]
    assert got.skipped == {"reasoning": 1}


def test_what_was_not_said_is_counted(tmp_path):
    path = export(
        tmp_path,
        chat(
            say("s", "system", "Be short."),
            say("a", "user", "Hi", "s"),
            say("b", "assistant", "", "a", error={"content": "Connection lost"}),
            current="b",
            system="Be short.",
        ),
    )
    got = read("openwebui", path)
    assert got.contents == ["Hi"]
    assert got.skipped == {"system prompt": 2, "empty answer": 1}


def test_pictures_and_thumbs_are_kept(tmp_path):
    parts = [{"type": "text", "text": "Look"}, {"type": "image_url", "image_url": {"url": "x"}}]
    path = export(
        tmp_path,
        chat(
            say("a", "user", parts, files=[{"type": "file"}]),
            say("b", "assistant", "Nice", "a", annotation={"rating": -1}, model="m"),
        ),
    )
    got = read("openwebui", path)
    assert got.contents == ["Look", "Nice"]
    assert got.metadata[0]["attachments"] == [{"kind": "file"}, {"kind": "image"}]
    assert got.metadata[1]["model"] == "m"
    [rating] = got.batches[0].feedback
    assert (rating.message_id, rating.value) == ("openwebui:c1:b", -1.0)


def test_a_chat_without_an_id_leaves_the_others(tmp_path):
    broken = chat(say("a", "user", "Hi"), name=None)
    got = read("openwebui", export(tmp_path, broken, chat(say("b", "user", "Ho"))))
    assert got.contents == ["Ho"]
    assert [one.reason for one in got.rejected] == ["it has no id"]


def test_a_file_cut_short_keeps_its_whole_chats(tmp_path):
    path = export(tmp_path, *(chat(say("a", "user", f"Hi {n}"), name=f"c{n}") for n in range(5)))
    path.write_bytes(path.read_bytes()[:-60])
    got = read("openwebui", path)
    assert got.contents == [f"Hi {n}" for n in range(4)]
    assert len(got.rejected) == 1


def database(tmp_path, *chats, table="chat"):
    path = tmp_path / "webui.db"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(
        f"CREATE TABLE {table} (id TEXT PRIMARY KEY, user_id TEXT, title TEXT, share_id TEXT, "
        "archived INTEGER, created_at DATETIME, updated_at DATETIME, chat JSON)"
    )
    for one in chats:
        values = (one["id"], one["user_id"], one["title"], one["created_at"], one["chat"])
        connection.execute(
            f"INSERT INTO {table} (id, user_id, title, created_at, chat) VALUES (?, ?, ?, ?, ?)",
            (*values[:4], values[4] if isinstance(values[4], str | bytes) else json.dumps(values[4])),  # noqa: E501
        )  # fmt: skip
    connection.commit()
    connection.close()
    return path


def test_the_programs_database_gives_the_same_as_the_export(tmp_path):
    """The export of the same chats adds nothing."""
    chats = [
        chat(say("a", "user", "Hi"), say("b", "assistant", "Yo", "a")),
        chat(say("a", "user", "Ho"), name="c2"),
    ]
    path = database(tmp_path, *chats)
    before = {file.name for file in tmp_path.iterdir()}
    assert recognise(path).name == "openwebui"
    by_database = read("openwebui", path).messages
    assert {file.name for file in tmp_path.iterdir()} == before
    assert by_database == read("openwebui", export(tmp_path, *chats)).messages


def test_a_database_in_an_archive_is_read(tmp_path):
    path = database(tmp_path, chat(say("a", "user", "Hi")))
    packed = tmp_path / "backup.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.write(path, "data/webui.db")
    assert recognise(packed).name == "openwebui"
    assert read("openwebui", packed).contents == ["Hi"]


def test_a_damaged_page_leaves_the_other_chats(tmp_path):
    long = "x" * 9_000
    chats = [
        chat(say("a", "user", f"{n} {long}", at=1767261600 + n), name=f"c{n}") for n in range(30)
    ]
    path = database(tmp_path, *chats)
    data = bytearray(path.read_bytes())
    at = data.index(b"15 xxx") & ~4095
    data[at : at + 4096] = b"\xff" * 4096
    path.write_bytes(data)
    got = read("openwebui", path)
    assert 20 <= len(got.contents) < 30
    assert len(got.contents) + len(got.rejected) == 30


def test_a_damaged_row_leaves_the_others(tmp_path):
    bad = [
        {**chat(name=f"x{n}"), "chat": value} for n, value in enumerate(['{"history":', b"\xff"])
    ]
    got = read("openwebui", database(tmp_path, *bad, chat(say("a", "user", "Hi"))))
    assert got.contents == ["Hi"]
    assert [one.where for one in got.rejected] == ["chat x0", "chat x1"]


def test_a_history_without_messages_is_damage(tmp_path):
    chat = {"title": "T", "models": ["m"], "history": {"a": 1}, "messages": []}
    path = tmp_path / "chats.json"
    path.write_text(json.dumps([{"id": "c", "chat": chat}]))
    assert [one.reason for one in read("openwebui", path).rejected] == [
        "it has no list of messages"
    ]
