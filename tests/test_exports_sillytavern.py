"""SillyTavern: every form of time, groups, checkpoints, notices, and damaged lines."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aico_lab.sources import recognise
from aico_lab.sources.exports.sillytavern.times import to_time
from tests.exported import read

HEADER = {
    "user_name": "Mira",
    "character_name": "Pelle",
    "create_date": "2024-04-26@06h06m10s",
    "chat_metadata": {"integrity": "6b4104e6"},
}
UNNAMED = {"user_name": "unused", "character_name": "unused", "chat_metadata": {}}

EPOCH = datetime.fromisoformat("1970-01-01")


def say(name, mes, minute=0, **others):
    return {
        "name": name,
        "is_user": name == "Mira",
        "is_system": False,
        "send_date": f"2025-12-01T10:{minute:02}:00.000Z",
        "mes": mes,
        "extra": {},
        **others,
    }


def write(path, *lines, newline="\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(line) + newline for line in lines)
    path.write_text(text, encoding="utf-8", newline="")
    return path


# Times


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("April 26, 2024 6:06am", "2024-04-26T06:06:00"),
        ("April 26, 2024 12:05am", "2024-04-26T00:05:00"),
        ("April 26, 2024 12:05pm", "2024-04-26T12:05:00"),
        ("Apr 26, 2024 11:59 PM", "2024-04-26T23:59:00"),
        ("April 26, 2024 18:06", "2024-04-26T18:06:00"),
        ("2024-6-5 @14h 56m 50s 682ms", "2024-06-05T14:56:50.682000"),
        ("2024-6-5 @4h 6m 5s 8ms", "2024-06-05T04:06:05.008000"),
        ("2024-07-12@01h31m37s", "2024-07-12T01:31:37"),
        ("2025-11-23@01h31m37s123ms", "2025-11-23T01:31:37.123000"),
        ("2025-11-23T01:31:37.123Z", "2025-11-23T01:31:37.123000+00:00"),
        (1714169280000, "2024-04-26T22:08:00+00:00"),
        ("1714169280000", "2024-04-26T22:08:00+00:00"),
        (1714169280.5, "2024-04-26T22:08:00.500000+00:00"),
    ],
)
def test_every_form_of_time(text, expected):
    """Local times have no zone, the others are in UTC."""
    assert to_time(text) == datetime.fromisoformat(expected)


@pytest.mark.parametrize(
    "value",
    [
        *(None, "", "soon", True, [], {}, 0, -1, 1e308, float("nan"), float("inf"), 10**400),
        *("Foo 26, 2024 6:06am", "April 31, 2024 6:06am", "April 26, 2024 13:06am"),
        *("2024-13-01@01h31m37s", "0000-01-01@01h31m37s", "2024-07-12@25h31m37s", "9" * 17),
    ],
)
def test_what_is_no_time_is_none(value):
    assert to_time(value) is None


@given(st.datetimes(EPOCH + timedelta(days=1), EPOCH.replace(9999)))
def test_each_form_comes_back(time):
    """A time survives being written as each version writes it, up to the form's precision."""
    in_words = f"{time:%B} {time.day}, {time.year} {time.hour % 12 or 12}:{time:%M%p}".lower()
    assert to_time(in_words) == time.replace(second=0, microsecond=0)
    milliseconds = time.replace(microsecond=time.microsecond // 1000 * 1000)
    date = f"{time.year}-{time.month}-{time.day}"
    unpadded = f"{date} @{time:%Hh %Mm %Ss} {time.microsecond // 1000}ms"
    assert to_time(unpadded) == milliseconds
    assert to_time(f"{time:%Y-%m-%d@%Hh%Mm%Ss}") == time.replace(microsecond=0)
    number = (milliseconds - EPOCH) // timedelta(milliseconds=1)
    if number >= 1e11:
        assert abs(to_time(number) - milliseconds.replace(tzinfo=UTC)) < timedelta(microseconds=99)
        assert to_time(str(number)) == to_time(number)


def test_local_times_are_read_in_the_zone_of_the_user(tmp_path):
    """Without one they are read as UTC, which is counted."""
    path = write(tmp_path / "a.jsonl", HEADER, say("Mira", "Hi", send_date="2024-07-12@01h31m37s"))
    assert read("sillytavern", path).times == ["2024-07-12T01:31:37.000000Z"]
    assert read("sillytavern", path).batches[0].zoneless == 1
    got = read("sillytavern", path, zone=ZoneInfo("Europe/Berlin"))
    assert got.times == ["2024-07-11T23:31:37.000000Z"]


def test_times_of_an_import_are_refused(tmp_path):
    """Importers into SillyTavern write the time of the import into every line."""
    lines = [
        say(("Mira", "Pelle")[number % 2], str(number), send_date=1714169280000 + number)
        for number in range(9)
    ]
    path = write(tmp_path / "a.jsonl", HEADER | {"create_date": 1714169280000}, *lines)
    got = read("sillytavern", path)
    assert got.messages == []
    assert "--trust-times" in got.rejected[0].reason
    assert len(read("sillytavern", path, trust_times=True).messages) == 9


# What was said


def test_only_what_was_said_is_a_message(tmp_path):
    """Hidden messages were said; notes and notices were not."""
    kinds = ["help", "welcome", "group", "empty", "generic", "macros", "assistant_note"]
    path = write(
        tmp_path / "a.jsonl",
        HEADER,
        say("Mira", "hidden from the prompt", is_system=True),
        say("System", "fog", extra={"type": "narrator"}),
        say("Note", "do it", extra={"type": "comment"}, is_system=True),
        *(say("SillyTavern System", "x", is_system=True, extra={"type": kind}) for kind in kinds),
        say("SillyTavern System", "of an old version", is_system=True, extra=None),
        say("Pelle", {"message": "from Chub"}, extra={"reasoning": "Hm."}),
    )
    got = read("sillytavern", path)
    assert got.contents == ["hidden from the prompt", "fog", "from Chub"]
    assert got.roles == ["user", "system", "assistant"]
    assert got.skipped == {"note": 1, "notice": len(kinds) + 1, "reasoning": 1}


def test_swipes_models_media_and_the_time_to_generate(tmp_path):
    """Swipes are alternatives; what `mes` holds was said, wherever swipe_id points."""
    path = write(
        tmp_path / "a.jsonl",
        HEADER,
        say(
            "Pelle",
            "second",
            swipes=["first", "second", "third"],
            swipe_id=9,
            gen_started="2025-12-01T09:59:50.000Z",
            gen_finished="2025-12-01T09:59:52.500Z",
            extra={"model": "local-7b", "image": "a.png", "media": [{"type": "video"}, {}]},
        ),
    )
    got = read("sillytavern", path)
    assert got.contents == ["second"]
    assert got.metadata[0] == {
        "alternatives": 2,
        "attachments": [{"kind": "image"}, {"kind": "video"}, {"kind": "file"}],
        "author": "Pelle",
        "conversation_title": "a",
        "generation_seconds": 2.5,
        "model": "local-7b",
    }


def test_speakers_of_a_group_are_kept(tmp_path):
    """All are the companion, each under its name; the group is the channel."""
    path = write(
        tmp_path / "group chats" / "1714169280000.jsonl",
        UNNAMED,
        say("Mira", "Hello, both", 1),
        say("Pelle", "Hi", 2, original_avatar="pelle.png"),
        say("Ada", "Ho", 3, original_avatar="ada.png"),
    )
    got = read("sillytavern", path)
    assert got.authors == ["Mira", "Pelle", "Ada"]
    assert got.roles == ["user", "assistant", "assistant"]
    assert {one.user_id for one in got.messages} == {"Mira"}
    assert list(got.channels) == ["sillytavern:1714169280000"]


# Files


def test_a_file_with_nothing_but_its_header_is_an_empty_chat(tmp_path):
    path = write(tmp_path / "a.jsonl", UNNAMED)
    assert recognise(path).name == "sillytavern"
    got = read("sillytavern", path)
    assert (got.messages, got.rejected) == ([], [])


def test_ids_do_not_depend_on_the_name_of_the_file(tmp_path):
    """With a date of creation, or, in newer files, a name that identifies the chat."""
    lines = [say("Pelle", "Hi", 1), say("Mira", "Ho", 2)]
    newer = UNNAMED | {"chat_metadata": {"integrity": "6b4104e6"}}
    for header in (HEADER, newer):
        first = read("sillytavern", write(tmp_path / "a.jsonl", header, *lines))
        again = write(tmp_path / "b (1).jsonl", header, *lines, say("Pelle", "New", 3))
        ids = [one.message_id for one in read("sillytavern", again).messages]
        assert ids[:2] == [one.message_id for one in first.messages]
        assert {one.channel_id for one in first.messages} == {"sillytavern:Pelle"}
    first = read("sillytavern", write(tmp_path / "Pelle - 1.jsonl", UNNAMED, *lines))
    second = read("sillytavern", write(tmp_path / "Pelle - 1 (2).jsonl", UNNAMED, *lines))
    other = read("sillytavern", write(tmp_path / "Pelle - 2.jsonl", UNNAMED, *lines))
    assert {*first.messages} & {*second.messages}
    assert not {one.message_id for one in first.messages} & {
        one.message_id for one in other.messages
    }


def test_checkpoints_do_not_repeat_the_beginning(tmp_path):
    """A checkpoint has only what is not in the chat that it was made from."""
    begin = [say("Pelle", "1", 1), say("Mira", "2", 2)]
    branch = HEADER | {"chat_metadata": {"integrity": "6b4104e6", "main_chat": "main"}}
    folder = tmp_path / "chats" / "Pelle"
    write(folder / "Checkpoint 1 - main.jsonl", branch, *begin, say("Pelle", "branch", 3))
    write(folder / "main.jsonl", HEADER, *begin, say("Pelle", "main", 4), say("Mira", "2", 2))
    write(tmp_path / "backups" / "chat_pelle_20240426.jsonl", HEADER, *begin)
    write(tmp_path / "settings.jsonl", {"theme": "dark"})
    (tmp_path / "settings.json").write_text("{}", encoding="utf-8")
    assert recognise(tmp_path).name == "sillytavern"
    got = read("sillytavern", tmp_path)
    assert got.contents == ["1", "2", "main", "2", "branch"]
    assert got.skipped == {"message repeated from another chat": 2}
    places = [one.conversation_id for one in got.messages]
    assert places[0] == places[3] != places[4]
    assert {one.channel_id for one in got.messages} == {"sillytavern:Pelle"}
    alone = read("sillytavern", folder / "Checkpoint 1 - main.jsonl")
    assert alone.contents == ["1", "2", "branch"]
    assert alone.messages[2].message_id == got.messages[4].message_id


def test_two_chats_that_only_begin_alike_are_both_whole(tmp_path):
    """The same greeting at another time is another message."""
    for number in (1, 2):
        lines = say("Pelle", "Hello.", number), say("Mira", "Hi", number)
        header = HEADER | {"create_date": f"2025-12-01@10h0{number}m00s", "chat_metadata": {}}
        write(tmp_path / f"{number}.jsonl", header, *lines)
    got = read("sillytavern", tmp_path)
    assert got.contents == ["Hello.", "Hi"] * 2
    assert len({one.conversation_id for one in got.messages}) == 2


def test_damaged_lines_are_reported_and_the_others_go_in(tmp_path):
    """A torn last line, a blank one, two in one, a byte order mark, CR LF, and foreign objects."""
    path = write(tmp_path / "a.jsonl", HEADER, say("Mira", "1"), say("Pelle", "2"), newline="\r\n")
    path.write_bytes(
        b"\xef\xbb\xbf"
        + path.read_bytes()
        + b"\r\n"
        + (json.dumps(say("Mira", "3")) + json.dumps(say("Pelle", "4")) + "\n").encode()
        + b'[1]\n{"name": "Mira"}\n{"name": "Pel\xff", \n'
        + json.dumps(say("Mira", "5")).encode()
        + b'\n{"name": "Pelle", "mes": "to'
    )
    got = read("sillytavern", path)
    assert got.contents == ["1", "2", "3", "4", "5"]
    assert [one.where for one in got.rejected] == [
        f"line {number} of a.jsonl" for number in (6, 7, 8, 10)
    ]


@pytest.mark.parametrize("value", [None, 7, "text", [], {}, True, [7], 1e300, "\ud83d", "a\0b"])
@pytest.mark.parametrize(
    "key",
    ["name", "is_user", "is_system", "send_date", "mes", "extra", "swipes", "gen_started"],
)
def test_values_of_any_type_harm_no_other_line(tmp_path, key, value):
    damaged = say("Pelle", "Damaged", gen_finished="2025-12-01T10:00:00Z") | {key: value}
    path = write(tmp_path / "a.jsonl", HEADER, damaged, say("Mira", "Whole", 2))
    got = read("sillytavern", path)
    assert got.contents[-1] == "Whole"
    assert got.rejected == []


@pytest.mark.parametrize("value", [None, 7, [], {}, True, [7], 1e300, "\ud83d", "a\0b", ""])
@pytest.mark.parametrize("key", [*HEADER])
def test_values_of_the_header_may_be_of_any_type(tmp_path, key, value):
    header = HEADER | {key: value, "chat_metadata": {"integrity": value, "main_chat": value}}
    path = write(tmp_path / "a.jsonl", header, say("Mira", "Whole"))
    assert read("sillytavern", path).contents == ["Whole"]
