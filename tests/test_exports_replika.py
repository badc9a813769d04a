"""Replika: the CSV of replika_backup in both orders, and the JSON of replika-chat-export."""

from __future__ import annotations

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aico_lab.sources import recognise
from tests.exported import read

HEADER = "Timestamp,From,Text,Reaction,ID\n"


def line(number, sender, text, reaction="None"):
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerow(
        [f"2023-01-01T00:{number:02}:00.000Z", sender, text, reaction, f"{number:024x}"]
    )
    return stream.getvalue()


def write(path, *lines):
    path.write_text(HEADER + "".join(lines), encoding="utf-8", newline="")
    return path


def test_the_order_is_that_of_the_times(tmp_path):
    """Whatever the file is called, and with either line ending."""
    lines = [line(number, ("Rep", "Me")[number % 2], str(number)) for number in range(5)]
    for name, listed in (("a.no.csv", lines[::-1]), ("a.on.csv", lines), ("a.csv", lines)):
        path = write(tmp_path / name, *listed)
        assert recognise(path).name == "replika"
        assert read("replika", path).contents == ["0", "1", "2", "3", "4"]
    ids = {one.message_id for one in read("replika", path).messages}
    crlf = tmp_path / "a-2023-01 (1).csv"
    crlf.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert recognise(crlf).name == "replika"
    got = read("replika", crlf)
    assert got.contents == ["0", "1", "2", "3", "4"]
    assert {one.message_id for one in got.messages} == ids


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.no.csv", ["2", "1"]), ("a.csv", ["2", "1"]), ("a.on.csv", ["1", "2"])],
)
def test_equal_times_leave_the_order_to_the_name(tmp_path, name, expected):
    path = write(tmp_path / name, line(1, "Me", "1"), line(1, "Rep", "2").replace("1\n", "2\n"))
    assert read("replika", path).contents == expected


def test_the_same_chat_in_two_orders_is_read_once(tmp_path):
    """A folder of the tool holds all of its files."""
    lines = [line(number, "Me", str(number)) for number in range(3)]
    write(tmp_path / "a.no.csv", *lines[::-1])
    write(tmp_path / "a.rf.csv", *lines)
    got = read("replika", tmp_path)
    assert got.contents == ["0", "1", "2"]
    assert got.skipped == {"repeated message": 3}


def test_line_breaks_of_older_backups(tmp_path):
    """Within quotation marks or without, with commas, and with blank lines."""
    path = write(
        tmp_path / "a.on.csv",
        line(1, "Me", "quoted\n\nbreak, and comma"),
        "2023-01-01T00:02:00.000Z,Rep,bare\nbreak, and comma\n\nend,None,63b0c0de00000002\n",
        line(3, "Me", "backslash\\nbreak"),
        "\n",
    )
    got = read("replika", path)
    assert got.contents == [
        "quoted\n\nbreak, and comma",
        "bare\nbreak, and comma\n\nend",
        "backslash\nbreak",
    ]
    assert got.rejected == []


def test_damaged_lines_are_reported_and_harm_no_others(tmp_path):
    """A quotation mark too many, a lost time, a strange sender, a torn last line."""
    path = write(
        tmp_path / "a.on.csv",
        "x" + line(0, "Me", "no time at the beginning"),
        line(1, "Me", "1"),
        "x" + line(2, "Me", "no time"),
        line(3, "Rep", "3"),
        line(4, "Rep", "4").replace(",4,", ',"4,'),
        line(5, "Nobody", "5"),
        line(6, "Me", "6"),
        line(7, "Me", "7")[:30],
    )
    got = read("replika", path)
    assert got.contents == ["no time at the beginning", "1", "no time", "3", "6"]
    assert [one.get("timestamp_estimated", False) for one in got.metadata[:3]] == [
        True,
        False,
        True,
    ]
    assert [one.where for one in got.rejected] == [
        f"line {number} of a.on.csv" for number in (6, 7, 9)
    ]


def test_a_lost_line_break_joins_no_messages(tmp_path):
    """Unless the text of a message quotes such a row."""
    quoting = line(3, "Me", f"look: {line(4, 'Rep', '4')}".strip())
    path = write(
        tmp_path / "a.on.csv", line(1, "Me", "1").strip(), line(2, "Rep", "2, two"), quoting
    )
    got = read("replika", path)
    assert got.contents == ["1", "2, two", f"look: {line(4, 'Rep', '4')}".strip()]
    assert got.rejected == []


def test_reactions_are_ratings_of_the_companion(tmp_path):
    """A reaction to a message of the person is none, and stays with the message."""
    path = write(
        tmp_path / "a.on.csv",
        line(1, "Rep", "1", "Love"),
        line(2, "Rep", "2", "Downvote"),
        line(3, "Rep", "3", "Funny"),
        line(4, "Me", "4", "Love"),
    )
    got = read("replika", path)
    feedback = [one for batch in got.batches for one in batch.feedback]
    assert [(one.name, one.value) for one in feedback] == [
        ("Love", 1.0),
        ("Downvote", -1.0),
        ("Funny", None),
    ]
    assert got.metadata[3]["reactions"] == [{"emoji": "Love", "count": 1}]


@given(
    st.lists(
        st.tuples(st.sampled_from(["Me", "Rep"]), st.text(st.characters(codec="utf-8"))), max_size=9
    ),
    st.booleans(),
)
def test_every_text_comes_back(tmp_path_factory, messages, turned_round):
    """Round trip through the CSV as the tool writes it; blanks at the ends and NUL go."""
    lines = [
        line(number, sender, text.replace("\r", "").replace("\n", "\\n"))
        for number, (sender, text) in enumerate(messages)
    ]
    folder = tmp_path_factory.mktemp("replika")
    path = write(folder / "a.no.csv", *(lines if turned_round and len(lines) > 1 else lines[::-1]))
    expected = [
        text.replace("\r", "").replace("\\n", "\n").replace("\0", "").strip()
        for _, text in messages
    ]
    assert read("replika", path).contents == expected


# The JSON


def item(number, nature, text, kind="text", chat="chat-1", **others):
    return {
        "id": f"m{number}",
        "content": {"type": kind, "text": text},
        "meta": {
            "chat_id": chat,
            "nature": nature,
            "timestamp": f"2024-06-01T08:{number:02}:00.000Z",
        },
        **others,
    }


def write_json(path, *listed):
    path.write_text(json.dumps(listed), encoding="utf-8")
    return path


def test_messages_in_json(tmp_path):
    """Newest first or not, with chats apart, media, notices and a message that comes twice."""
    listed = [
        item(1, "Robot", "Hi"),
        item(2, "Customer", "Look", "images"),
        item(2, "Customer", "Look", "images"),
        item(3, "Robot", "", "voice_message"),
        item(4, "Robot", "You are level 2", "service_message"),
        item(5, "Robot", "Elsewhere", chat="chat-2"),
    ]
    path = write_json(tmp_path / "messages.json", *listed)
    assert recognise(path).name == "replika"
    got = read("replika", path)
    assert got.contents == ["Hi", "Look", "", "Elsewhere"]
    assert got.roles == ["assistant", "user", "assistant", "assistant"]
    kinds = [one.get("attachments") for one in got.metadata]
    assert kinds == [None, [{"kind": "image"}], [{"kind": "audio"}], None]
    assert got.skipped == {"repeated message": 1, "notice": 1}
    turned = read("replika", write_json(tmp_path / "turned.json", *listed[::-1]))
    assert sorted(turned.messages) == sorted(got.messages)
    assert turned.contents[1:] == ["Hi", "Look", ""]


@pytest.mark.parametrize("value", [None, 7, "text", [], {}, True, [7], 1e300])
@pytest.mark.parametrize("key", ["id", "content", "meta"])
def test_values_of_any_type_harm_only_their_message(tmp_path, key, value):
    listed = item(1, "Robot", "Damaged") | {key: value}, item(2, "Customer", "Whole")
    got = read("replika", write_json(tmp_path / "messages.json", *listed))
    assert got.contents[-1] == "Whole"


@pytest.mark.parametrize("value", [None, 7, [], {}, True])
@pytest.mark.parametrize("key", ["chat_id", "nature", "timestamp"])
def test_values_of_meta_may_be_of_any_type(tmp_path, key, value):
    damaged = item(1, "Robot", "Damaged")
    damaged["meta"][key] = value
    got = read(
        "replika", write_json(tmp_path / "messages.json", damaged, item(2, "Robot", "Whole"))
    )
    assert "Whole" in got.contents


def test_a_damaged_message_is_reported_and_the_others_go_in(tmp_path):
    path = write_json(tmp_path / "m.json", *(item(n, "Robot", f"text {n}") for n in (1, 2, 3)))
    path.write_text(path.read_text(encoding="utf-8").replace('"text 2"', '"text 2'), "utf-8")
    got = read("replika", path)
    assert got.contents == ["text 1", "text 3"]
    assert [one.where for one in got.rejected] == ["message 2 of m.json"]


def test_messages_after_a_first_one_that_is_damaged_go_in(tmp_path):
    """The first object begins as no other does, so that it does not show how messages begin."""
    path = write_json(tmp_path / "m.json", *(item(n, "Robot", f"text {n}") for n in (1, 2)))
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('"id": "m1", "content": {', "", 1), "utf-8")
    got = read("replika", path)
    assert got.contents == ["text 2"]


def test_a_file_whose_first_character_is_lost_is_read(tmp_path):
    path = write_json(tmp_path / "m.json", *(item(n, "Robot", f"text {n}") for n in (1, 2)))
    path.write_bytes(b"?" + path.read_bytes()[1:])
    assert read("replika", path).contents == ["text 1", "text 2"]


@pytest.mark.parametrize(("me", "user"), [(None, "me"), ("Anna", "Anna")])
def test_the_person_is_who_the_user_says_as_the_file_has_no_name(tmp_path, me, user):
    path = tmp_path / "chat.no.csv"
    path.write_text(
        "Timestamp,From,Text,Reaction,ID\n"
        f"2026-01-01T10:00:01.000Z,Rep,Hi,None,{1:024x}\n"
        f"2026-01-01T10:00:00.000Z,Me,Hello,None,{2:024x}\n"
    )
    got = read("replika", path, me=me)
    assert [message.user_id for message in got.messages] == [user, user]
    assert got.authors == ["Me", "Rep"]


@pytest.mark.parametrize("cut", [1, 2, 12, 20])
def test_a_file_that_ends_within_an_id_is_reported(tmp_path, lab, cut):
    path = tmp_path / "replika_backup.no.csv"
    rows = [
        f"2023-01-01T10:0{at}:00.000Z,{('Rep', 'Me')[at % 2]},words {at},None,{at + 1:024x}\n"
        for at in range(3)
    ]
    whole = "Timestamp,From,Text,Reaction,ID\n" + "".join(rows)
    path.write_text(whole[:-cut])
    result = lab.import_from(path)
    is_whole = cut == 1  # only the end of the line is missing
    assert (result.added, result.rejected) == (2 + is_whole, not is_whole)
    path.write_text(whole)
    assert lab.import_from(path).added == (not is_whole)
