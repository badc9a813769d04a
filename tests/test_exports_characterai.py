"""Character.AI: turns with candidates, and the histories of the old site."""

from __future__ import annotations

import json
import tracemalloc
from datetime import UTC, datetime, timedelta

import pytest

from aico_lab.sources import recognise
from aico_lab.sources.exports import characterai
from aico_lab.sources.exports.engine.conversation import Options
from aico_lab.sources.exports.engine.opened import opened
from tests.exported import read

HUMAN = {"author_id": "7", "name": "Mira", "is_human": True}
JUNO = {"author_id": "juno", "name": "Captain Juno"}


def candidate(text, number=1, **others):
    time = f"2025-03-01T10:00:{number:02}Z"
    return {"candidate_id": f"c{number}", "raw_content": text, "create_time": time, **others}


def turn(name, author, *candidates, minute=0, chat="chat-1", **others):
    return {
        "turn_key": {"chat_id": chat, "turn_id": name},
        "create_time": f"2025-03-01T10:{minute:02}:00Z",
        "author": author,
        "candidates": list(candidates),
        **others,
    }


def write(path, value):
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def turns(tmp_path, *listed):
    return write(tmp_path / "chat.json", {"turns": list(listed), "meta": {"next_token": None}})


@pytest.mark.parametrize("wrap", [lambda one: {"turns": one}, lambda one: one])
def test_turns_are_read_in_the_order_of_the_conversation(tmp_path, wrap):
    """Also if an exporter turned them round, or left the outer object out."""
    listed = [
        turn(f"t{number}", (JUNO, HUMAN)[number % 2], candidate(str(number)), minute=number)
        for number in range(5)
    ]
    newest_first = write(tmp_path / "a.json", wrap(listed[::-1]))
    oldest_first = write(tmp_path / "b.json", wrap(listed))
    assert recognise(newest_first).name == "characterai"
    got = read("characterai", newest_first)
    assert got.contents == ["0", "1", "2", "3", "4"]
    assert got.roles[:2] == ["assistant", "user"]
    assert read("characterai", oldest_first).messages == got.messages


def test_pages_of_turns_are_one_chat(tmp_path):
    """Each page is an answer of the site; an overlapping turn is read once."""
    first, second, third = (
        turn(f"t{number}", JUNO, candidate(str(number)), minute=number) for number in range(3)
    )
    path = write(tmp_path / "pages.json", [{"turns": [third, second]}, {"turns": [second, first]}])
    got = read("characterai", path)
    assert got.contents == ["0", "1", "2"]
    assert got.skipped == {"repeated message": 1}


def test_turns_without_times_are_taken_as_newest_first(tmp_path):
    """The site sends them so; the times of the candidates stand in for those of turns."""
    listed = [
        turn("b", HUMAN, {"candidate_id": "x", "raw_content": "2"}, create_time=None),
        turn("a", JUNO, candidate("1", 5), candidate("1 again", 9), create_time=None),
    ]
    got = read("characterai", turns(tmp_path, *listed))
    assert got.contents == ["1 again", "2"]
    assert got.times == ["2025-03-01T10:00:05.000000Z"] * 2
    assert got.metadata[1]["timestamp_estimated"] is True


@pytest.mark.parametrize(
    ("primary", "expected"),
    [("c2", "second"), ("c1", "first"), (None, "third"), ("gone", "third"), (7, "third")],
)
def test_the_primary_candidate_was_said_else_the_newest(tmp_path, primary, expected):
    """Never the first or the last one of the list as such."""
    candidates = [candidate("second", 2), candidate("third", 3), candidate("first", 1)]
    path = turns(tmp_path, turn("a", JUNO, *candidates, primary_candidate_id=primary))
    got = read("characterai", path)
    assert got.contents == [expected]
    assert got.metadata[0]["alternatives"] == 2


def test_an_edit_keeps_the_time_of_the_turn(tmp_path):
    """The candidate's own time is that of the edit."""
    edited = candidate("edited", 30, base_candidate_id="c1", editor=HUMAN)
    path = turns(tmp_path, turn("a", JUNO, edited, candidate("first", 1)))
    got = read("characterai", path)
    assert got.contents == ["edited"]
    assert got.times == ["2025-03-01T10:00:00.000000Z"]
    assert got.metadata[0]["edited_at"] == "2025-03-01T10:00:30+00:00"


def test_pictures_blank_turns_and_turns_without_candidates(tmp_path):
    """A clone of a chat may have turns without candidates, and blank ones."""
    path = turns(
        tmp_path,
        turn("c", JUNO, minute=2),
        turn("b", JUNO, candidate(" "), minute=1),
        turn("a", HUMAN, candidate("", tti_image_rel_path="uploads/x.png")),
    )
    got = read("characterai", path)
    assert got.contents == ["", ""]
    assert got.metadata[0]["attachments"] == [{"kind": "image"}]
    assert got.skipped == {"turn without a text": 1}


def test_the_channel_is_the_character_or_the_room(tmp_path):
    """A second chat with the character has the same channel, a room of two its own."""
    other = {"author_id": "ada", "name": "Ada"}
    path = turns(
        tmp_path,
        turn("a", JUNO, candidate("1")),
        turn("b", JUNO, candidate("2"), chat="chat-2"),
        turn("c", JUNO, candidate("3"), chat="room"),
        turn("d", other, candidate("4"), chat="room"),
    )
    got = read("characterai", path)
    assert {name: channel.name for name, channel in got.channels.items()} == {
        "characterai:juno": "Captain Juno",
        "characterai:room": "Ada, Captain Juno",
    }
    assert sorted({message.conversation_id for message in got.messages}) == [
        "characterai:chat-1",
        "characterai:chat-2",
        "characterai:room",
    ]


@pytest.mark.parametrize("value", [None, 7, "text", [], {}, True, [7], 1e300])
@pytest.mark.parametrize(
    "key", ["turn_key", "create_time", "author", "candidates", "primary_candidate_id", "state"]
)
def test_values_of_any_type_harm_only_their_turn(tmp_path, key, value):
    """The other turns go in."""
    path = turns(
        tmp_path,
        turn("b", HUMAN, candidate("Whole"), minute=1),
        turn("a", JUNO, candidate("Damaged")) | {key: value},
    )
    assert "Whole" in read("characterai", path).contents


@pytest.mark.parametrize("value", [None, 7, [], {}, True])
@pytest.mark.parametrize("key", ["candidate_id", "raw_content", "create_time"])
def test_values_of_a_candidate_may_be_of_any_type(tmp_path, key, value):
    path = turns(tmp_path, turn("a", JUNO, candidate("x") | {key: value}, candidate("y", 2)))
    got = read("characterai", path)
    assert len(got.messages) + got.skipped["damaged message"] == 1
    assert "" not in got.contents


def test_turns_are_found_if_the_list_has_lost_its_name(tmp_path):
    """The document is sound, but nothing is where it should be."""
    path = write(tmp_path / "chat.json", {"turnz": [turn("a", JUNO, candidate("1"))]})
    assert read("characterai", path).contents == ["1"]
    path = write(tmp_path / "chat.json", {"turns": [], "meta": {"next_token": None}})
    assert [one.reason for one in read("characterai", path).rejected] == ["it has no turns"]


def test_a_damaged_turn_is_reported_and_the_others_go_in(tmp_path):
    listed = [
        turn(f"t{number}", JUNO, candidate(f"text {number}"), minute=number) for number in (3, 2, 1)
    ]
    path = turns(tmp_path, *listed)
    path.write_text(path.read_text(encoding="utf-8").replace('"text 2"', '"text 2'), "utf-8")
    got = read("characterai", path)
    assert got.contents == ["text 1", "text 3"]
    assert [one.where for one in got.rejected] == ["turn 2 of chat.json"]


@pytest.mark.slow
def test_many_turns_take_little_memory(tmp_path):
    """10,000 turns of 1 kB are turned round in a fraction of the file's size."""
    path = tmp_path / "chat.json"
    with path.open("w", encoding="utf-8") as stream:
        stream.write('{"turns": [')
        for number in range(10_000, 0, -1):
            one = turn(f"t{number}", JUNO, candidate(f"{number} " + "word " * 160))
            one["create_time"] = (
                datetime(2025, 3, 1, tzinfo=UTC) + timedelta(minutes=number)
            ).isoformat()
            stream.write(json.dumps(one) + (", " if number > 1 else "]}"))
    tracemalloc.start()
    with opened(path) as export:
        (chat,) = characterai.conversations(export, Options())
        total = sum(1 for _ in chat.messages)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 10_000
    assert peak < path.stat().st_size / 2


# The old site


def said(text, *, human, **others):
    name = "Mira" if human else "Captain Juno"
    return {"text": text, "src": {"is_human": human, "name": name}, **others}


def test_a_history_starts_when_it_was_created(tmp_path):
    """Times are estimated, alternatives left out, and the channel is the character."""
    history = {
        "external_id": "h1",
        "created": "2023-01-20T11:00:00Z",
        "msgs": [
            said("Ahoy.", human=False),
            said("Hm.", human=False, is_alternative=True),
            said("Hi!", human=True),
            said("?", human=None),
        ],
    }
    path = write(tmp_path / "dump.json", {"info": {}, "histories": {"histories": [history]}})
    assert recognise(path).name == "characterai"
    got = read("characterai", path)
    assert got.contents == ["Ahoy.", "Hi!"]
    assert got.roles == ["assistant", "user"]
    assert got.times == ["2023-01-20T11:00:00.000000Z"] * 2
    assert got.skipped == {"alternative answer": 1, "damaged message": 1}
    assert list(got.channels) == ["characterai:Captain Juno"]


def test_a_history_without_a_time_needs_a_start(tmp_path):
    history = {"external_id": "h1", "created": None, "msgs": [said("Ahoy.", human=False)]}
    path = write(tmp_path / "dump.json", {"histories": {"histories": [history]}})
    got = read("characterai", path)
    assert got.messages == []
    assert "--start" in got.rejected[0].reason


def test_histories_of_any_type_harm_no_others(tmp_path):
    sound = {"external_id": "h", "created": "2023-01-20T11:00:00Z"}
    sound["msgs"] = [said("Ahoy.", human=False)]
    for damaged in (None, 7, {"msgs": 7}, sound | {"msgs": None}, sound | {"msgs": [7, {}]}):
        path = write(tmp_path / "dump.json", {"histories": {"histories": [damaged, sound]}})
        assert read("characterai", path).contents == ["Ahoy."]


def test_pages_of_messages(tmp_path):
    """The old interface's own answers: names in flat keys, alternatives among them."""
    page = {
        "messages": [
            {"id": 1, "text": "Ahoy.", "src__is_human": False, "src__name": "Juno"},
            {"id": 2, "text": "No.", "src__is_human": False, "is_alternative": True},
            {"id": 3, "text": "Hi!", "src__is_human": True, "src__name": "Mira"},
        ],
        "has_more": False,
    }
    path = write(tmp_path / "Juno-2023-01 (1).json", page)
    assert recognise(path).name == "characterai"
    assert read("characterai", path).messages == []
    got = read("characterai", path, start=datetime(2023, 1, 20, 11, tzinfo=UTC))
    assert got.contents == ["Ahoy.", "Hi!"]
    assert [one.message_id for one in got.messages] == ["characterai:Juno:1", "characterai:Juno:3"]
    assert got.skipped == {"alternative answer": 1}
