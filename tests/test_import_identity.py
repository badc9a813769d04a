"""An id belongs to its conversation: what is new, known or in conflict, and what becomes of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aico_lab.errors import DuplicateId, InvalidValue
from aico_lab.importing import classifying
from aico_lab.importing.classifying import count_dangling
from aico_lab.importing.importer import import_batches
from aico_lab.messages.identity import ORIGINAL, original_id
from aico_lab.messages.rules import MAX_ID
from aico_lab.schema import feed
from aico_lab.sources import files, jsonl
from tests.databases import Counting, with_core_schemas

NOON = "2024-05-01T12:00:00.000000Z"
ALL = (
    "SELECT conversation_id, message_id, content, reply_to, metadata FROM messages "
    "ORDER BY conversation_id, content"
)


def line(conversation, message_id, content="x", **fields):
    return {
        "conversation_id": conversation,
        "message_id": message_id,
        "user_id": "ada",
        "content": content,
        "timestamp": NOON,
    } | fields


def write(path, *lines):
    path.write_text("".join(json.dumps(one) + "\n" for one in lines), encoding="utf-8")
    return path


@pytest.fixture
def primary(tmp_path):
    with with_core_schemas(tmp_path / "primary.db").connect() as connection:
        yield connection


@pytest.fixture
def take(primary, tmp_path):
    """Import lines from a file."""

    def run(*lines, **options):
        path = write(tmp_path / "messages.jsonl", *lines)
        return import_batches(primary, jsonl.read(path), **options)

    return run


def counts(result):
    return result.added, result.known, result.conflicts


def ids(connection):
    """The id under which each message is stored, by its text."""
    return dict(connection.fetch_all("SELECT content, message_id FROM messages"))


def told(connection):
    """Conversation, id of the source, and text of every message."""
    rows = connection.fetch_all(
        "SELECT conversation_id, message_id, metadata, content FROM messages"
    )
    return sorted((chat, original_id(own, chat, extra), text) for chat, own, extra, text in rows)


def sound(connection):
    """The channels count what is there, and every reference leads somewhere."""
    wrong = connection.fetch_all(
        "SELECT channel_id FROM channels WHERE message_count <> (SELECT count(*) FROM messages "
        "WHERE channel_id = channels.channel_id) OR last_active IS NOT (SELECT max(timestamp) "
        "FROM messages WHERE channel_id = channels.channel_id)"
    )
    return wrong == [] and connection.fetch_all("PRAGMA foreign_key_check") == []


# Ids


def test_ids_that_are_unique_per_chat_only_lose_nothing(primary, take):
    """Two chats number their messages from 1; reading them again adds nothing."""
    lines = [line(chat, number, f"{chat}{number}") for chat in "ab" for number in (1, 2)]
    first = take(*lines)
    assert counts(first) == (4, 0, 0)
    assert first.qualified == 2
    assert ids(primary) == {"a1": "1", "a2": "2", "b1": "b:1", "b2": "b:2"}
    again = take(*lines)
    assert counts(again) == (0, 4, 0)
    assert again.qualified == 0
    assert sound(primary)


def test_each_chat_may_come_by_itself(primary, take):
    """In another order another one is qualified, and nothing else differs."""
    take(line("b", "1", "b1"))
    assert counts(take(line("a", "1", "a1"), line("a", "2", "a2", reply_to="1"))) == (2, 0, 0)
    assert counts(take(line("a", "1", "a1"))) == (0, 1, 0)
    assert primary.fetch_all(ALL) == [
        ("a", "a:1", "a1", None, f'{{"{ORIGINAL}":"1"}}'),
        ("a", "2", "a2", "a:1", None),
        ("b", "1", "b1", None, None),
    ]


def test_the_metadata_of_a_qualified_message_are_kept(primary, take):
    """The id of its source stands beside them."""
    take(line("a", "1", "a1"), line("b", "1", "b1", mood="fine", metadata={"z": [1]}))
    (kept,) = primary.fetch_one("SELECT metadata FROM messages WHERE content = 'b1'")
    assert json.loads(kept) == {ORIGINAL: "1", "mood": "fine", "z": [1]}


def test_a_qualified_id_is_not_confused_with_an_equal_id(primary, take):
    """`a:b` of the conversation a and of another one, and `b` of the conversation a."""
    lines = [
        line("x", "b", "x b"),
        line("a", "b", "a b"),
        line("a", "a:b", "a a:b"),
        line("y", "a:b", "y a:b"),
        line("a:b", "c", "a:b c"),
        line("x", "c", "x c"),
        line("x", "b:c", "x b:c"),
        line("a", "b:c", "a b:c"),
        line("a", 'it\'s "quoted" 😀', "q1"),
        line("b", 'it\'s "quoted" 😀', "q2"),
    ]
    for order in (lines, lines[::-1], lines[3:] + lines[:3]):
        take(*order)
        assert told(primary) == sorted(
            (one["conversation_id"], one["message_id"], one["content"]) for one in lines
        )
    assert len(primary.fetch_all(ALL)) == len(lines)


def test_where_every_name_is_taken_another_one_is_found(primary, take):
    """The chat a has `a:b` itself, which the id `b` of a would get."""
    take(line("x", "b", "1"), line("a", "a:b", "2"))
    lines = [line("a", "b", "3"), line("a", "c", "4", reply_to="b")]
    take(*lines)
    name = ids(primary)["3"]
    assert name.startswith("q-")
    taken = line("z", name[:-1] + "2", "5")  # which could be the next one
    take(taken)
    assert counts(take(*lines, taken)) == (0, 3, 0)
    primary.execute("DELETE FROM messages WHERE conversation_id = 'x'")
    assert counts(take(*lines, taken)) == (0, 3, 0)
    assert ("a", "b", "3") in told(primary)
    assert primary.fetch_one("SELECT reply_to FROM messages WHERE content = '4'") == (name,)


@pytest.mark.parametrize("length", [MAX_ID - 4, MAX_ID])
def test_long_ids_are_hashed(primary, take, length):
    """A qualified id is no longer than any other."""
    long = "i" * length
    lines = [line("first", long, "1"), line("second", long, "2")]
    take(*lines)
    assert ids(primary)["2"].startswith("q-")
    assert counts(take(*lines)) == (0, 2, 0)
    assert ("second", long, "2") in told(primary)


def test_a_message_whose_own_id_became_free_stays_where_it_is(primary, take):
    """Deleting the chat that had the id first makes no doubles of the other one."""
    take(line("a", "1", "a1"), line("b", "1", "b1"))
    primary.execute("DELETE FROM messages WHERE conversation_id = 'a'")
    assert counts(take(line("b", "1", "b1"))) == (0, 1, 0)
    assert ids(primary) == {"b1": "b:1"}


def test_what_was_imported_by_the_older_rules_stays(primary, take):
    """People without conversations shared one, `default`; their messages come in beside it."""
    old = [line("default", own, own, user_id=own) for own in ("ada", "ben")]
    take(*old)
    new = [{name: value for name, value in one.items() if name != "conversation_id"} for one in old]
    assert counts(take(*new)) == (2, 0, 0)
    assert counts(take(*new)) == (0, 2, 0)
    assert {row[:2] for row in primary.fetch_all(ALL)} == {
        ("default", "ada"),
        ("default", "ben"),
        ("direct:ada", "direct:ada:ada"),
        ("direct:ben", "direct:ben:ben"),
    }


def test_an_export_of_qualified_messages_can_be_read_again(primary, take, tmp_path):
    """Here it adds nothing; in another database it gives the same messages."""
    take(line("a", "1", "a1"), line("b", "1", "b1"), line("b", "2", "b2", reply_to="1"))
    names = ("conversation_id", "message_id", "content", "reply_to", "user_id", "timestamp")
    exported = [
        {**dict(zip(names, row[:-1], strict=True)), "metadata": json.loads(row[-1] or "{}")}
        for row in primary.fetch_all(f"SELECT {', '.join(names)}, metadata FROM messages")
    ]
    before = primary.fetch_all(ALL)
    assert counts(take(*exported)) == (0, 3, 0)
    for order in (exported, exported[::-1]):
        with with_core_schemas(tmp_path / f"{order is exported}.db").connect() as other:
            import_batches(other, jsonl.read(write(tmp_path / "e.jsonl", *order)))
            assert other.fetch_all(ALL) == before
            assert told(other) == told(primary)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("size", [1, 2, 100])
def test_replies_follow_the_messages_that_they_answer(primary, take, monkeypatch, reverse, size):
    """Whichever comes first, in whatever batch: an id names one of its own conversation."""
    monkeypatch.setattr(files, "BATCH_MESSAGES", size)
    monkeypatch.setattr(classifying, "REPLIES", size)
    lines = [
        line(chat, number, f"{chat}{number}", reply_to=number - 1 if number > 1 else None)
        for number in (1, 2, 3)
        for chat in "abc"
    ]
    take(*(lines[::-1] if reverse else lines))
    stored = primary.fetch_all(
        "SELECT reply.content, target.content FROM messages AS reply "
        "LEFT JOIN messages AS target ON target.message_id = reply.reply_to ORDER BY 1"
    )
    assert stored == [
        (f"{chat}{number}", f"{chat}{number - 1}" if number > 1 else None)
        for chat in "abc"
        for number in (1, 2, 3)
    ]


def test_a_reply_may_wait_for_its_message(primary, take):
    """Until that comes, the id may be one of another conversation, as of a thread's parent."""
    take(line("a", "1", "a1"), line("b", "2", "b2", reply_to="1"))
    query = "SELECT reply_to FROM messages WHERE content = 'b2'"
    assert primary.fetch_one(query) == ("1",)
    take(line("b", "1", "b1"))
    assert primary.fetch_one(query) == ("b:1",)


def test_the_channel_memory_still_refuses_every_id_that_is_taken(lab):
    """What it stores is asked for by the id that it was given."""
    from aico_lab.channel_memory import DatabaseManager

    with DatabaseManager(lab.home.primary, lab.storage.adapter._key) as memory:
        memory.store_message("1", "a", "ada", "Good morning", NOON)
        for channel, text in [("a", "Good morning"), ("a", "Good evening"), ("b", "Good morning")]:
            with pytest.raises(DuplicateId, match="1 of 1"):
                memory.store_message("1", channel, "ada", text, NOON)
        memory.store_message("2", "a", "ada", "A thread", NOON, conversation_id="t", reply_to="1")
        assert {one.message_id: one.reply_to for one in memory.get_messages()} == {
            "1": None,
            "2": "1",
        }


chats = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "a:b", "x" * 500]),
        st.sampled_from(["1", "2", "b", "a:b", "a:a:b", "b:1", "a:b:1", "a:1"]),
    ),
    unique=True,
    max_size=20,
)


@pytest.mark.slow
@settings(max_examples=60)
@given(chats=chats, cut=st.integers(0, 20), size=st.sampled_from([1, 3, 100]))
def test_however_a_file_is_cut_nothing_is_lost(tmp_path_factory, chats, cut, size):
    """Whole, in halves of either order, and twice: the same messages by conversation, id, text."""
    folder = tmp_path_factory.mktemp("cut")
    lines = [line(chat, own, f"{number}") for number, (chat, own) in enumerate(chats)]
    wanted = sorted((one["conversation_id"], one["message_id"], one["content"]) for one in lines)
    halves = lines[:cut], lines[cut:]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "BATCH_MESSAGES", size)
        for number, parts in enumerate([(lines, lines), halves, (*halves[::-1], lines)]):
            with with_core_schemas(folder / f"{number}.db").connect() as connection:
                added = 0
                for part in parts:
                    batches = jsonl.read(write(folder / "part.jsonl", *part))
                    result = import_batches(connection, batches)
                    added += result.added
                    assert result.conflicts == 0
                assert added == len(lines)
                assert told(connection) == wanted
                assert sound(connection)


imports = st.lists(
    st.tuples(
        st.sampled_from(["keep", "replace"]),
        st.lists(
            st.tuples(
                st.sampled_from(["a", "b", "a:b"]),
                st.sampled_from(["1", "b", "a:b", "a:1", "b:1"]),
                st.sampled_from(["x", "y"]),
                st.sampled_from([None, "1", "b"]),
            ),
            max_size=8,
        ),
    ),
    max_size=5,
)


@pytest.mark.slow
@settings(max_examples=60)
@given(imports=imports, size=st.sampled_from([1, 3, 100]))
def test_any_imports_leave_what_they_say(tmp_path_factory, imports, size):
    """Compared with a dictionary by conversation and id; replies lead to their own conversation.

    A dry run before each import counts the same.
    """
    folder = tmp_path_factory.mktemp("any")
    wanted, answers = {}, {}
    with (
        pytest.MonkeyPatch.context() as patch,
        with_core_schemas(folder / "primary.db").connect() as connection,
    ):
        patch.setattr(files, "BATCH_MESSAGES", size)
        for rule, said in imports:
            added = conflicts = 0
            for chat, own, text, reply in said:
                there = wanted.get((chat, own))
                added += there is None
                conflicts += there not in {None, text}
                if there is None or (there != text and rule == "replace"):
                    wanted[chat, own], answers[chat, own] = text, reply
            lines = [line(*one, reply_to=reply) for *one, reply in said]
            path = write(folder / "part.jsonl", *lines)
            tried = import_batches(connection, jsonl.read(path), on_conflict=rule, dry_run=True)
            result = import_batches(connection, jsonl.read(path), on_conflict=rule)
            assert counts(result) == (added, len(said) - added - conflicts, conflicts)
            assert (*counts(tried), tried.qualified) == (*counts(result), result.qualified)
        assert told(connection) == sorted((*key, text) for key, text in wanted.items())
        assert sound(connection)
        stored = connection.fetch_all(
            "SELECT conversation_id, message_id, metadata, reply_to FROM messages"
        )
    keys = {own: (chat, original_id(own, chat, extra)) for chat, own, extra, _ in stored}
    for chat, own, _, reply in stored:
        answered = answers[keys[own]]
        if (chat, answered) in wanted:
            assert keys[reply] == (chat, answered)


# Conflicts


def test_a_conflict_is_counted_and_named_by_its_line(primary, take):
    """Other text, role or time; what else differs is no conflict. None of it is quoted."""
    take(line("a", "1", "first"))
    result = take(
        line("a", "1", "first"),
        line("a", "1", "secret edit"),
        line("a", "1", "first", role="assistant"),
        line("a", "1", "first", timestamp="2024-05-01T12:00:01Z"),
        line("a", "1", "first", user_id="ben", mood="fine", sentiment_score=1),
    )
    assert counts(result) == (0, 2, 3)
    assert [(one.line, one.message_id) for one in result.conflict_examples] == [
        (2, None),
        (3, None),
        (4, None),
    ]
    assert ids(primary) == {"first": "1"}


@pytest.mark.parametrize("size", [1, 100])
@pytest.mark.parametrize("rule", ["keep", "replace"])
def test_two_texts_of_one_id_in_a_file_are_a_conflict(primary, take, monkeypatch, size, rule):
    """The first stays, or the last one does; reading the file again ends the same."""
    monkeypatch.setattr(files, "BATCH_MESSAGES", size)
    kept = "one" if rule == "keep" else "three"
    lines = [line("a", "1", text) for text in ("one", "two", "three")]
    assert counts(take(*lines, on_conflict=rule)) == (1, 0, 2)
    assert ids(primary) == {kept: "1"}
    take(*lines, on_conflict=rule)
    assert ids(primary) == {kept: "1"}
    assert sound(primary)


@pytest.mark.parametrize("rule", ["keep", "replace"])
def test_a_dry_run_counts_what_comes_again_in_a_later_batch(take, monkeypatch, rule):
    """It is stored already, in conflict, or edited, as if the batch before had been written."""
    monkeypatch.setattr(files, "BATCH_MESSAGES", 1)
    take(line("a", "1"), line("a", "2", metadata={"missing_since": NOON}))
    first = [line("b", "1"), line("b", "2"), line("a", "1", "edit"), line("a", "2")]
    lines = [*first, line("b", "1"), line("b", "2", "edit"), *first[2:]]
    tried, done = (take(*lines, on_conflict=rule, dry_run=dry) for dry in (True, False))
    assert tried == done
    assert (done.added, done.qualified, done.returned) == (2, 2, 1)


@pytest.mark.slow
def test_replacing_is_an_edit(lab, tmp_path):
    """Everything of the message follows, its row, its channel and what refers to it stay."""
    primary = lab.primary

    def take(*lines, **options):
        return lab.import_from("jsonl", write(tmp_path / "m.jsonl", *lines), **options)

    take(line("b", "1", "other"), line("a", "1", "I am sad"), line("a", "2", "hello"))
    lab.sync()
    before = primary.fetch_one("SELECT id, sentiment_score FROM messages WHERE message_id = 'a:1'")
    seq = feed.head(primary).seq
    edit = line(
        "a",
        "1",
        "I am glad, wonderful",
        role="assistant",
        user_id="ben",
        timestamp="2023-05-01T12:00:00Z",
        channel_id="elsewhere",
        reply_to="1",
        response_time=2.5,
        metadata={"mood": "fine"},
    )
    result = take(edit, on_conflict="replace")
    assert counts(result) == (0, 0, 1)
    row = primary.fetch_dicts("SELECT * FROM messages WHERE message_id = 'a:1'")[0]
    assert row["id"] == before[0]
    assert before[1] < 0 < row["sentiment_score"]
    assert row["sentiment_source"].startswith("vader")
    assert json.loads(row["metadata"]) == {ORIGINAL: "1", "mood": "fine"}
    assert {name: row[name] for name in ("channel_id", "user_id", "role", "timestamp")} == {
        "channel_id": "a",
        "user_id": "ben",
        "role": "assistant",
        "timestamp": "2023-05-01T12:00:00.000000Z",
    }
    assert (row["reply_to"], row["response_time"]) == ("a:1", 2.5)
    changes = primary.fetch_all(
        "SELECT row_key, op FROM change_log WHERE table_name = 'messages' AND seq > ?", [seq]
    )
    assert changes == [("a:1", "update")]
    assert counts(take(edit, on_conflict="replace")) == (0, 1, 0)
    lab.sync()
    assert lab.verify().ok
    assert lab.sql("SELECT content FROM conversations WHERE message_id = 'a:1'").fetchall() == [
        ("I am glad, wonderful",)
    ]


def test_the_last_activity_of_a_channel_follows_an_edit(primary, take):
    """Its newest message may turn out to be an old one, and the other way round."""
    take(line("a", "1"), line("a", "2", timestamp="2024-06-01T12:00:00Z"))
    for moment in ("2020-01-01T00:00:00.000000Z", "2025-01-01T00:00:00.000000Z"):
        take(line("a", "2", timestamp=moment), on_conflict="replace")
        (last,) = primary.fetch_one("SELECT last_active FROM channels")
        assert last == max(moment, NOON)
        assert sound(primary)


async def test_full_text_search_finds_the_edit(lab, tmp_path):
    """And not what stood there before."""
    from aico_lab.repositories import UnitOfWork

    file = tmp_path / "m.jsonl"
    lab.import_from("jsonl", write(file, line("a", "1", "elephants")))
    async with lab.data_access() as dal, UnitOfWork(dal) as work:
        assert len(await work.conversations.search_by_content("elephants")) == 1
    edit = write(file, line("a", "1", "giraffes"))
    lab.import_from("jsonl", edit, on_conflict="replace")
    async with lab.data_access() as dal, UnitOfWork(dal) as work:
        assert await work.conversations.search_by_content("elephants") == []
        assert len(await work.conversations.search_by_content("giraffes")) == 1


def test_a_message_edited_within_its_file_stays_in_its_channel(primary, take):
    """And so do the numbers of messages of both channels."""
    first, edit = line("a", "1", "x", channel_id="c"), line("a", "1", "y", channel_id="d")
    take(first, edit, on_conflict="replace")
    assert primary.fetch_all("SELECT content, channel_id FROM messages") == [("y", "c")]
    assert sound(primary)


def test_a_given_score_is_replaced_by_a_given_score(primary, take):
    """A message that is edited without one is scored again."""
    take(line("a", "1", "fine", sentiment_score=-1))
    query = "SELECT sentiment_score, sentiment_source FROM messages"
    take(line("a", "1", "good", sentiment_score=0.5), on_conflict="replace")
    assert primary.fetch_one(query) == (0.5, "given")
    take(line("a", "1", " "), on_conflict="replace")
    assert primary.fetch_one(query) == (None, None)


def test_an_edit_keeps_what_it_does_not_give(lab, tmp_path):
    """Neither the user, where the file of the edit names nobody, nor the rest of the message."""

    def take(name, **fields):
        text = json.dumps({"conversation_id": "c", "message_id": "1", **fields})
        (tmp_path / name).write_text(text, encoding="utf-8")
        return lab.import_from("jsonl", tmp_path / name, on_conflict="replace")

    given = {"user_id": "ada", "response_time": 2.5, "metadata": {"a": 1}, "reply_to": "0"}
    take("m.jsonl", content="hello", timestamp="2024-05-01T12:00:00Z", **given)
    take("edit.jsonl", content="hello you", timestamp="2024-05-01T12:00:00Z")
    row = lab.primary.fetch_dicts("SELECT * FROM messages")[0]
    assert (row["content"], row["user_id"], row["response_time"]) == ("hello you", "ada", 2.5)
    assert (row["reply_to"], json.loads(row["metadata"])) == ("0", {"a": 1})
    assert lab.primary.fetch_all("SELECT user_id FROM users") == [("ada",)]


def test_what_is_left_out_brings_no_user_and_no_channel(lab, tmp_path):
    same = {"conversation_id": "c", "message_id": "1", "timestamp": "2024-05-01T12:00:00Z"}
    lines = [
        {**same, "content": "hello", "user_id": "ada"},
        {**same, "content": "another", "user_id": "eve", "channel_id": "elsewhere"},
    ]
    file = tmp_path / "m.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    assert lab.import_from("jsonl", file).conflicts == 1
    assert lab.primary.fetch_all("SELECT user_id FROM users") == [("ada",)]
    assert lab.primary.fetch_all("SELECT channel_id FROM channels") == [("c",)]


@pytest.mark.slow
def test_a_source_without_lines_names_the_id(primary):
    """There is nothing else to name it by."""
    from aico_lab.sources import read

    import_batches(primary, read("chitchat", limit=3))
    primary.execute("UPDATE messages SET content = 'mended' WHERE id = 2")
    (own,) = primary.fetch_one("SELECT message_id FROM messages WHERE id = 2")
    result = import_batches(primary, read("chitchat", limit=3))
    assert counts(result) == (0, 2, 1)
    assert [(one.line, one.message_id) for one in result.conflict_examples] == [(None, own)]


def test_what_is_not_utf_8_is_another_text(primary, take):
    """Another program may have written bytes, which the driver cannot read as text."""
    take(line("a", "1", "x"), line("a", "2", "y"))
    primary.execute("UPDATE messages SET content = CAST(X'FF00' AS TEXT) WHERE message_id = '1'")
    primary.execute("UPDATE messages SET conversation_id = CAST(X'FF' AS TEXT), metadata = ?1 "
                    "WHERE message_id = '2'", [f'{{"{ORIGINAL}'])  # fmt: skip
    result = take(line("a", "1", "x"), line("a", "2", "y"), on_conflict="replace")
    assert counts(result) == (1, 0, 1)
    assert ids(primary)["x"] == "1"


def test_how_conflicts_are_resolved_is_checked_first(lab, tmp_path):
    """Before the file is even looked for."""
    with pytest.raises(InvalidValue, match="on_conflict is keep or replace"):
        lab.import_from("jsonl", tmp_path / "nowhere", on_conflict="merge")
    assert lab.primary.fetch_one("SELECT count(*) FROM messages") == (0,)


@pytest.mark.slow
def test_the_command_line_says_what_became_of_conflicts(cli, tmp_path):
    """Lines on stderr, the count in the sentence and in the JSON value."""
    cli("init", "--no-encryption")
    file = str(write(tmp_path / "m.jsonl", *(line("a", "1", f"secret {n}") for n in range(8))))
    kept = cli("import", "jsonl", file)
    assert kept.returncode == 0
    said = "1 message added, 0 stored already, 7 in conflict left unchanged."
    assert kept.stdout.splitlines()[0] == said
    assert "--on-conflict replace" in kept.stderr
    assert "  line 2\n" in kept.stderr
    assert "and 2 more" in kept.stderr
    assert "secret" not in kept.stderr
    replaced = cli("import", "jsonl", file, "--on-conflict", "replace", "--json")
    assert json.loads(replaced.stdout)["conflicts"] == 7
    assert json.loads(replaced.stdout)["conflict_examples"][0] == {"line": 2, "message_id": None}
    wrong = cli("import", "jsonl", file, "--on-conflict", "merge")
    assert wrong.returncode == 2
    assert "'keep', 'replace'" in wrong.stderr


@pytest.mark.slow
def test_a_replacing_import_that_was_killed_is_completed_by_the_next(aico_lab, home, tmp_path):
    """A batch is replaced whole or not at all, and nothing of it is counted twice."""
    aico_lab("init", "--no-encryption")
    many = [line(f"c{n % 7}", n, f"message {n}", reply_to=n - 7) for n in range(30_000)]
    aico_lab("import", "jsonl", str(write(tmp_path / "a.jsonl", *many)))
    file = write(tmp_path / "b.jsonl", *({**one, "content": one["content"] + "!"} for one in many))
    command = ["import", "jsonl", str(file), "--on-conflict", "replace"]
    edited = "SELECT count(*) FROM messages WHERE content LIKE '%!'"
    from aico_lab.lab import Lab

    with (
        subprocess.Popen([sys.executable, "-m", "aico_lab", *command, "--home", str(home)]) as run,
        Lab.open(home) as lab,
    ):
        while lab.primary.fetch_one(edited) == (0,):
            time.sleep(0.02)
            assert run.poll() is None
        os.kill(run.pid, signal.SIGKILL)
    with Lab.open(home) as lab:
        (count,) = lab.primary.fetch_one(edited)
        assert 0 < count < 30_000
        assert count % 10_000 == 0
    result = json.loads(aico_lab(*command, "--json").stdout)
    assert (result["added"], result["known"], result["conflicts"]) == (0, count, 30_000 - count)
    with Lab.open(home) as lab:
        assert lab.primary.fetch_one(edited) == (30_000,)
        assert lab.primary.fetch_one("SELECT count(*) FROM messages") == (30_000,)
        assert sound(lab.primary)


def test_an_edit_that_the_file_takes_back_is_none(primary, take):
    """A file with two texts of an id does not change the database each time that it is read."""
    lines = [line("a", "1", "one"), line("a", "1", "two")]
    take(*lines, on_conflict="replace")
    seq = feed.head(primary).seq
    assert counts(take(*lines, on_conflict="replace")) == (0, 0, 2)
    assert feed.head(primary).seq == seq


# Times


def test_far_times_are_counted_and_stored(take):
    """Before 1990 and after tomorrow; tomorrow itself is a matter of zones."""
    tomorrow = datetime.now(UTC).replace(hour=23, minute=59, second=59) + timedelta(days=1)
    moments = [
        "1989-12-31T23:59:59.999999Z",
        "1990-01-01T00:00:00Z",
        tomorrow.isoformat(),
        (tomorrow + timedelta(days=1)).isoformat(),
        "9999-12-31T23:59:59Z",
    ]
    result = take(*(line("a", str(n), timestamp=at) for n, at in enumerate(moments)))
    assert (result.added, result.far_times, result.far_lines) == (5, 3, [1, 4, 5])


@pytest.mark.slow
def test_the_command_line_warns_of_far_times_and_unnamed_users(cli, tmp_path):
    """On stderr, with the first lines; info shows the span of all messages."""
    cli("init", "--no-encryption")
    old = [{"content": "x", "timestamp": f"1960-01-01T00:00:0{n}Z"} for n in range(7)]
    new = [{"content": "x", "timestamp": NOON}, {"content": "x", "timestamp": "2999-01-01T00:00Z"}]
    none = json.loads(cli("info", "--json").stdout)["data_span"]
    assert none == {
        "first message": None,
        "last message": None,
        "before 1990": 0,
        "after tomorrow": 0,
    }
    assert "first message            none" in cli("info").stdout
    ran = cli("import", "jsonl", str(write(tmp_path / "m.jsonl", *old, *new)), "--json")
    assert "8 messages are from before 1990 or after tomorrow" in ran.stderr
    assert "(lines 1, 2, 3, 4, 5, …)" in ran.stderr
    assert "names no user: 9 messages are assigned to the user 'me'" in ran.stderr
    result = json.loads(ran.stdout)
    assert (result["far_times"], result["assumed_me"]) == (8, 9)
    assert result["far_lines"] == [1, 2, 3, 4, 5, 6, 7, 9]
    assert json.loads(cli("info", "--json").stdout)["data_span"] == {
        "first message": "1960-01-01T00:00:00.000000Z",
        "last message": "2999-01-01T00:00:00.000000Z",
        "before 1990": 7,
        "after tomorrow": 1,
    }


# What it costs


def test_a_batch_without_clashes_asks_the_database_once(primary, tmp_path):
    """Importing a million messages is the longest step of all."""
    lines = [
        line(f"c{n % 5}", n, reply_to=n - 5 if n > 4 else None, sentiment_score=0)
        for n in range(1_000)
    ]
    counting = Counting(primary)
    import_batches(counting, jsonl.read(write(tmp_path / "m.jsonl", *lines)))
    assert counting.queries == 1 + 2  # and the import twice, about replies


FIELDS = {"user_id": "ben", "response_time": 2.5, "reply_to": "9", "metadata": {"mood": "fine"}}


@pytest.mark.parametrize("size", [1, 100])
@pytest.mark.parametrize("fields", [{"response_time": 2.5, "reply_to": "9"}, FIELDS, {}])
def test_several_edits_keep_what_they_do_not_give(primary, take, monkeypatch, size, fields):
    """Whether the message and its edits are in one batch or in several, or were stored before."""
    monkeypatch.setattr(files, "BATCH_MESSAGES", size)
    bare = {"user_id": None, "role": "assistant"}
    lines = [
        line("a", "1", "one", role="assistant", **FIELDS | {"user_id": "ben"}),
        line("a", "1", "two", **bare | fields),
        line("a", "1", "three", **bare, sentiment_score=0.25),
        line("a", "1", "three", **bare, timestamp="2023-05-01T12:00:00Z"),
    ]
    told = "SELECT content, user_id, response_time, reply_to, metadata, sentiment_score"
    for some in (lines, lines[1:]):  # the second time, it is stored already
        take(*some, on_conflict="replace")
        assert primary.fetch_all(f"{told} FROM messages") == [
            ("three", "ben", 2.5, "9", '{"mood":"fine"}', 0.25)
        ]


@pytest.mark.parametrize("size", [1, 100])
def test_an_edit_keeps_the_metadata_of_a_message_with_a_qualified_id(
    primary, take, monkeypatch, size
):
    """Its original id, which is kept there too, is no metadata of the edit."""
    monkeypatch.setattr(files, "BATCH_MESSAGES", size)
    take(
        line("b", "1", "other"),
        line("a", "1", "one", metadata={"mood": "fine"}),
        line("a", "1", "two"),
        on_conflict="replace",
    )
    (kept,) = primary.fetch_one("SELECT metadata FROM messages WHERE message_id = 'a:1'")
    assert json.loads(kept) == {ORIGINAL: "1", "mood": "fine"}


_EDITS = st.fixed_dictionaries(
    {
        "message_id": st.sampled_from("12"),
        "content": st.sampled_from(["good", "bad"]),
        "timestamp": st.sampled_from(["2024-05-01T12:00:00Z", "2024-05-02T12:00:00Z"]),
        "user_id": st.sampled_from([None, "ada", "ben"]),
        "metadata": st.sampled_from([None, {"n": 1}, {"n": 2}]),
        "response_time": st.sampled_from([None, 1, 2]),
        "sentiment_score": st.sampled_from([None, 0.1, 0.2]),
    }
)


@pytest.mark.slow
@settings(max_examples=30)
@given(edits=st.lists(_EDITS, min_size=2, max_size=6))
def test_edits_do_not_depend_on_the_borders_of_batches(tmp_path_factory, edits):
    """A new file is stored the same in one batch and in as many as it has lines."""
    folder = tmp_path_factory.mktemp("edits")
    path = write(folder / "m.jsonl", *[line("a", **edit) for edit in edits])
    stored = []
    for size in (1, 100):
        with (
            pytest.MonkeyPatch.context() as patch,
            with_core_schemas(folder / f"{size}.db").connect() as connection,
        ):
            patch.setattr(files, "BATCH_MESSAGES", size)
            import_batches(connection, jsonl.read(path), on_conflict="replace")
            stored.append(connection.fetch_all("SELECT * FROM messages ORDER BY message_id"))
    assert stored[0] == stored[1]


def test_an_edit_of_the_time_keeps_the_score(primary, take):
    """A given score, and a computed one; a new content is scored again."""
    query = "SELECT sentiment_score, sentiment_source, timestamp FROM messages"
    take(line("a", "1", "bad", sentiment_score=0.75))
    moment = "2025-01-01T00:00:00.000000Z"
    take(line("a", "1", "bad", timestamp=moment), on_conflict="replace")
    assert primary.fetch_one(query) == (0.75, "given", moment)
    take(line("a", "1", "good", timestamp=moment), on_conflict="replace")
    assert primary.fetch_one(query)[1].startswith("vader")


def test_a_score_alone_is_not_an_edit(primary, take):
    """It depends on the batch in which it is computed, so nothing is written or logged."""
    first, second = line("a", "1", "bad", sentiment_score=0.5), line("a", "1", "good")
    take(first)
    seq = feed.head(primary).seq
    again = line("a", "1", "bad", sentiment_score=-0.5)
    take(second, again, on_conflict="replace")  # as stored, but for the score
    assert primary.fetch_all("SELECT content, sentiment_score FROM messages") == [("bad", 0.5)]
    assert feed.head(primary).seq == seq


def test_a_reply_to_a_message_that_was_refused_waits_for_it(primary, take):
    """Its id is kept and counted, in this import and in all messages."""
    replies = [line("a", "2", "so?", reply_to="1"), line("a", "3", "well", reply_to="2")]
    result = take(line("a", "1", "first", timestamp="never"), *replies)
    assert (result.added, result.rejected, result.dangling) == (2, 1, 1)
    assert take(*replies).dangling == 0  # known already
    assert count_dangling(primary) == 1
    assert take(line("a", "1", "first")).dangling == 0
    assert count_dangling(primary) == 0
    assert take(line("b", "1", "x", reply_to="9"), dry_run=True).dangling == 0
