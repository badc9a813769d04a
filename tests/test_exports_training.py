"""Training files of OpenAI and ShareGPT: lines and lists, ids, roles, times, and damage."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aico_lab.sources import recognise
from tests.exported import read

START = datetime(2026, 1, 1, 10, tzinfo=UTC)
TURNS = [("user", "Hi"), ("assistant", "Yo")]


def openai(*turns, **others):
    return {"messages": [{"role": role, "content": text} for role, text in turns], **others}


def sharegpt(*turns, **others):
    return {"conversations": [{"from": sender, "value": text} for sender, text in turns], **others}


FORMS = {"openai": openai, "sharegpt": sharegpt}
each_form = pytest.mark.parametrize("name", FORMS)


def lines(path, *values):
    text = "".join(
        f"{value if isinstance(value, str) else json.dumps(value)}\n" for value in values
    )
    path.write_text(text, encoding="utf-8")
    return path


@each_form
def test_without_a_start_nothing_is_stored(tmp_path, name):
    """An invented time would spoil every metric over time."""
    got = read(name, lines(tmp_path / "a.jsonl", FORMS[name](*TURNS)))
    assert got.messages == []
    assert ["--start" in one.reason for one in got.rejected] == [True]


@each_form
def test_conversations_follow_each_other_from_the_start(tmp_path, name):
    form = FORMS[name]
    path = lines(tmp_path / "a.jsonl", form(*TURNS), form(*TURNS, id="b"))
    got = read(name, path, start=START, step=timedelta(seconds=30))
    assert [time[11:19] for time in got.times] == ["10:00:00", "10:00:30", "10:01:00", "10:01:30"]
    assert all(metadata["timestamp_estimated"] for metadata in got.metadata)


@each_form
def test_lines_a_list_and_one_object_give_the_same(tmp_path, name):
    talk = FORMS[name](*TURNS, id="c")
    one, many = tmp_path / "one.json", tmp_path / "many.json"
    one.write_text(json.dumps(talk, indent=2))
    many.write_text(json.dumps([talk]))
    paths = [lines(tmp_path / "a.jsonl", talk), one, many]
    assert {recognise(path).name for path in paths} == {name}
    by_lines, by_one, by_many = (read(name, path, start=START).messages for path in paths)
    assert by_lines == by_one == by_many
    assert len(by_lines) == 2


@each_form
def test_a_byte_order_mark_and_the_ends_of_lines_of_windows_do_not_matter(tmp_path, name):
    path = tmp_path / "a.jsonl"
    line = json.dumps(FORMS[name](*TURNS)).encode()
    path.write_bytes(b"\xef\xbb\xbf" + line + b"\r\n\r\n" + line + b"\r\n")
    assert recognise(path).name == name
    got = read(name, path, start=START)
    assert got.contents == ["Hi", "Yo"] * 2
    assert not got.rejected


@each_form
def test_ids_do_not_depend_on_the_file_or_the_place_in_it(tmp_path, name):
    """The same conversation in a longer file is not a new one."""
    form = FORMS[name]
    first, second = form(*TURNS), form(("user", "Ho"))
    before = read(name, lines(tmp_path / "a.jsonl", first), start=START).messages
    after = read(name, lines(tmp_path / "b.jsonl", second, first), start=START).messages
    assert [one.message_id for one in after[1:]] == [one.message_id for one in before]


@each_form
def test_an_id_that_comes_again_is_another_conversation(tmp_path, name):
    """Two pieces of one file may have the same id, and equal words are not the same message."""
    form = FORMS[name]
    path = lines(
        tmp_path / "a.jsonl", form(*TURNS, id=7), form(("user", "Hi"), id=7), form(*TURNS, id=7)
    )
    got = read(name, path, start=START)
    assert len({one.conversation_id for one in got.messages}) == 2
    assert len({one.message_id for one in got.messages}) == 3


@each_form
def test_equal_conversations_without_an_id_are_all_kept(tmp_path, name):
    got = read(name, lines(tmp_path / "a.jsonl", *[FORMS[name](*TURNS)] * 3), start=START)
    assert len({one.message_id for one in got.messages}) == 6


@each_form
@pytest.mark.parametrize(
    "damaged", ['{"messages": [{"role": "user", "con', "[]", "7", '{"a": 1}', "\x00", "\ud800"]
)
def test_a_damaged_line_leaves_the_others(tmp_path, name, damaged):
    good = json.dumps(FORMS[name](*TURNS))
    path = tmp_path / "a.jsonl"
    path.write_bytes(f"{good}\n{damaged}\n{good}".encode("utf-8", "surrogatepass"))
    got = read(name, path, start=START)
    assert got.contents == ["Hi", "Yo"] * 2
    assert len(got.rejected) == 1


@each_form
def test_a_damaged_first_line_leaves_the_others(tmp_path, name):
    """Its key cannot be read, so it looks like the begin of another file."""
    good = json.dumps(FORMS[name](*TURNS))
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join([good.replace("s", "x"), good, good]))
    assert recognise(path).name == name
    got = read(name, path, start=START)
    assert got.contents == ["Hi", "Yo"] * 2
    assert [one.where for one in got.rejected] == ["conversation 1 of a.jsonl"]


def test_what_openai_did_not_say_is_counted(tmp_path):
    messages = [
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "text": "Look"}, {"type": "image_url"}]},
        {"role": "assistant", "content": None, "tool_calls": [{}]},
        {"role": "tool", "content": "42"},
        {"role": "assistant", "content": "", "function_call": {"name": "f"}},
        {"role": "assistant", "content": None, "refusal": "I would rather not."},
        {"role": "assistant", "content": None, "audio": {"id": "a", "transcript": "Spoken"}},
        {"role": "assistant", "content": None},
        {"role": "critic", "content": "Bad"},
        {"role": "assistant", "content": ""},
    ]
    got = read("openai", lines(tmp_path / "a.jsonl", {"messages": messages}), start=START)
    assert got.contents == ["Be kind.", "Look", "I would rather not.", "Spoken", ""]
    assert got.roles == ["system", "user", "assistant", "assistant", "assistant"]
    assert got.metadata[1]["attachments"] == [{"kind": "image"}]
    assert got.skipped == {
        "tool call": 2, "tool result": 1, "message without content": 1,
        "message of another role": 1,
    }  # fmt: skip


def test_what_sharegpt_did_not_say_is_counted(tmp_path):
    path = lines(
        tmp_path / "a.jsonl",
        sharegpt(
            ("Human", "Hi"), ("bard", "Yo"), ("tool", "x"), ("observation", "y"),
            ("function_call", "z"), ("Pelle", "?"), ("gpt", None), ("gpt", "Bye"),
        ),
    )  # fmt: skip
    got = read("sharegpt", path, start=START)
    assert got.contents == ["Hi", "Yo", "Bye"]
    assert got.skipped == {
        "tool result": 2, "tool call": 1, "message of another role": 1,
        "message without content": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given_time", "stored"),
    [
        (1767261605, "2026-01-01T10:00:05.000000Z"),
        (1767261605.25, "2026-01-01T10:00:05.250000Z"),
        (1767261605250, "2026-01-01T10:00:05.250000Z"),
        (1767261605250001, "2026-01-01T10:00:05.250001Z"),
        ("1767261605", "2026-01-01T10:00:05.000000Z"),
        ("2026-01-01T11:00:05+01:00", "2026-01-01T10:00:05.000000Z"),
        ("2026-01-01 10:00:05", "2026-01-01T10:00:05.000000Z"),
    ],
)
def test_a_time_that_a_writer_added_is_taken(tmp_path, given_time, stored):
    talk = {"messages": [{"role": "user", "content": "Hi", "created_at": given_time}]}
    got = read("openai", lines(tmp_path / "a.jsonl", talk))
    assert got.times == [stored]
    assert "timestamp_estimated" not in got.metadata[0]


@pytest.mark.parametrize("bad", [True, 0, "", "soon", [], {}, 1e400, 1e30, -1e300, "nan"])
def test_a_time_that_is_none_is_estimated(tmp_path, bad):
    talk = {"messages": [{"role": "user", "content": "Hi", "created_at": bad}]}
    got = read("openai", lines(tmp_path / "a.jsonl", talk), start=START)
    assert got.times == ["2026-01-01T10:00:00.000000Z"]


@given(
    st.lists(st.tuples(st.sampled_from(["user", "assistant"]), st.text(max_size=20)), max_size=8)
)
def test_every_text_comes_back(tmp_path_factory, turns):
    """Only blanks at the ends, NUL and CR LF change."""
    path = lines(tmp_path_factory.mktemp("t") / "a.jsonl", openai(*turns))
    got = read("openai", path, start=START)
    wanted = [text.replace("\r\n", "\n").replace("\0", "").strip() for _, text in turns]
    assert got.contents == wanted


@each_form
@pytest.mark.parametrize("in_lines", [True, False])
def test_damaged_conversations_are_reported_one_by_one(tmp_path, name, in_lines):
    """Among lines and in a list, whatever the damage is."""
    good = json.dumps(FORMS[name](*TURNS))
    parts = [good, good[:-9], "7", good, '{"a": 1}', good.replace(":", ";", 1), good, '"x"', good]
    path = tmp_path / "a.json"
    path.write_text("\n".join(parts) if in_lines else f"[{', '.join(parts)}]")
    got = read(name, path, start=START)
    assert got.contents == ["Hi", "Yo"] * 4
    assert len({one.where for one in got.rejected}) == len(got.rejected)
    assert len(got.rejected) >= (5 if in_lines else 2)  # neighbours are one damage
    assert all("a.json" in one.where and one.reason for one in got.rejected)


@each_form
@pytest.mark.parametrize("wrong", [5, True, ["x", 5], [None]])
def test_messages_with_values_of_a_wrong_type_are_counted(tmp_path, name, wrong):
    talk = FORMS[name](*TURNS)
    key = "messages" if name == "openai" else "conversations"
    role, content = talk[key][0]
    talk[key] += [wrong, None, talk[key][0] | {content: wrong}, talk[key][0] | {role: wrong}]
    got = read(name, lines(tmp_path / "a.jsonl", talk), start=START)
    assert got.contents == ["Hi", "Yo"]
    assert got.skipped == {"damaged message": 4}


def test_a_conversation_that_a_file_has_twice_is_imported_once(lab, tmp_path):
    said = [{"from": "human", "value": "Bye"}, {"from": "gpt", "value": "Bye!"}]
    other = [{"from": "human", "value": "Hi"}]
    items = [{"id": "a", "conversations": one} for one in (said, said, other, other, said)]
    path = tmp_path / "x.json"
    path.write_text(json.dumps(items))
    result = lab.import_from(path, start="2026-01-01")
    assert (result.added, result.skipped) == (3, {"repeated conversation": 3})
    result = lab.import_from(path, start="2026-01-01")
    assert (result.added, result.updated, result.known) == (0, 0, 3)


def training(path, *conversations):
    """Write conversations of texts, by the user and the assistant in turn."""
    lines = [
        {
            "messages": [
                {"role": ("user", "assistant")[place % 2], "content": text}
                for place, text in enumerate(said.split())
            ]
        }
        for said in conversations
    ]
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path


def test_a_conversation_without_an_id_that_grew_is_the_same_one(lab, tmp_path):
    path = tmp_path / "train.jsonl"
    asked = {"start": "2026-01-01", "step": 60}

    def take(*conversations):
        result = lab.import_from(training(path, *conversations), **asked)
        return result.added, result.updated

    def talks():
        found = {}
        for name, text in lab.primary.fetch_all(
            "SELECT conversation_id, content FROM messages ORDER BY timestamp, id"
        ):
            found[name] = f"{found.get(name, '')} {text}".strip()
        return sorted(found.values())

    assert take("q a", "other b") == (4, 0)
    assert take("q a q2 a2", "other b") == (2, 2)  # what comes after it is later now
    assert talks() == ["other b", "q a q2 a2"]
    assert take("q a q2 a2", "other b") == (0, 0)
    assert (
        take("q a q2 a2 q3 a3", "q a q2 a2", "q c")[0] == 6 + 2
    )  # the equal one is the stored one
    assert talks() == ["other b", "q a q2 a2", "q a q2 a2 q3 a3", "q c"]
    assert take("q a q2 a2 q3 a3", "q a q2 a2", "q c") == (0, 0)


@pytest.mark.parametrize(
    ("before", "file", "stored"),
    [
        # What is stored went on in another way.
        (["hi yo", "hi yo wet rain"], ["hi yo bake flour"], ["hi yo bake flour", "hi yo wet rain"]),
        # The beginning is in the file itself, before or after what begins like it.
        (["hi yo"], ["hi yo", "hi yo bake flour"], ["hi yo", "hi yo bake flour"]),
        (["hi yo"], ["hi yo bake flour", "hi yo"], ["hi yo", "hi yo bake flour"]),
        # Two go on: the first one is it.
        (["hi yo"], ["hi yo b c", "hi yo d e"], ["hi yo b c", "hi yo d e"]),
    ],
)
def test_what_only_begins_like_a_stored_conversation_is_another_one(
    lab, tmp_path, before, file, stored
):
    path = tmp_path / "train.jsonl"
    files = [*([one] for one in before), file]
    for said in (*files, *reversed(files)):
        lab.import_from(training(path, *said), start="2026-01-01", step=60)
    found = {}
    for name, text in lab.primary.fetch_all(
        "SELECT conversation_id, content FROM messages ORDER BY timestamp, id"
    ):
        found[name] = f"{found.get(name, '')} {text}".strip()
    assert sorted(found.values()) == stored
