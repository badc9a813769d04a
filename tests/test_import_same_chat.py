"""One chat in several files: it stays one conversation, whatever the files are called."""

from __future__ import annotations

import csv
import itertools
import json
from typing import TYPE_CHECKING, Any

import pytest

from aico_lab.importing.importer import import_batches
from aico_lab.lab import Lab
from aico_lab.sources import SOURCES
from aico_lab.sources.exports.engine.conversation import Options

if TYPE_CHECKING:
    from pathlib import Path

COLUMNS = ("Timestamp", "From", "Text", "Reaction", "ID")


def _time(number: int) -> str:
    return f"2023-01-{1 + number // 1440:02}T{number // 60 % 24:02}:{number % 60:02}:00.000Z"


def backup(path: Path, numbers: range, *, first_id: int = 0) -> Path:
    """Write a chat of replika_backup whose every third answer has a rating."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for number in numbers:
            sender, reaction = ("Rep", "Me")[number % 2], ("Upvote", "None")[number % 6 > 0]
            row = (_time(number), sender, f"words {number}", reaction, f"{first_id + number:024x}")
            writer.writerow(row)
    return path


def export(path: Path, numbers: range) -> Path:
    """Write the same chat as replika-chat-export does."""
    items = [
        {
            "id": f"{number:024x}",
            "content": {"type": "text", "text": f"words {number}"},
            "meta": {
                "chat_id": "5f00c0de",
                "nature": ("Robot", "Customer")[number % 2],
                "timestamp": _time(number),
            },
        }
        for number in numbers
    ]
    path.write_text(json.dumps(items), encoding="utf-8")
    return path


def stored(lab: Lab) -> list[Any]:
    """Return all messages and ratings without what names their conversation."""
    messages = lab.primary.fetch_all(
        "SELECT role, content, timestamp, replace(message_id, conversation_id, '') "
        "FROM messages ORDER BY timestamp"
    )
    ratings = lab.primary.fetch_all(
        "SELECT name, replace(message_id, conversation_id, ''), replace(event_id, message_id, '') "
        "FROM feedback_events ORDER BY event_id"
    )
    return [*messages, *ratings]


def conversations(lab: Lab) -> int:
    """Return the number of conversations, each of which is its own channel."""
    rows = lab.primary.fetch_all("SELECT DISTINCT conversation_id, channel_id FROM messages")
    assert all(conversation == channel for conversation, channel in rows)
    assert len(rows) == lab.primary.fetch_all("SELECT count(*) FROM channels")[0][0]
    return len(rows)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_files_of_one_chat_are_one_conversation(
    order: tuple[int, ...], lab: Lab, tmp_path: Path
) -> None:
    """A renamed backup, one that begins later, and the JSON, in any order, once and again."""
    parts = [
        backup(tmp_path / "Rep.no.csv", range(60)),
        backup(tmp_path / "march.rf.csv", range(40, 90)),
        export(tmp_path / "messages.json", range(20, 70)),
    ]
    for at in order:
        lab.import_from(parts[at])
    assert conversations(lab) == 1
    assert [row[1] for row in stored(lab)[:90]] == [f"words {number}" for number in range(90)]
    assert len(stored(lab)) == 90 + 15
    for at in order:
        assert lab.import_from(parts[at]).added == 0
    assert conversations(lab) == 1


def test_one_import_may_have_a_chat_twice(lab: Lab, tmp_path: Path) -> None:
    folder = tmp_path / "chats"
    folder.mkdir()
    backup(folder / "Rep.csv", range(30))
    export(folder / "messages.json", range(10, 40))
    planned = lab.import_from(folder, dry_run=True)
    result = lab.import_from(folder)
    assert (planned.added, result.added, conversations(lab)) == (40, 40, 1)
    assert lab.import_from(folder, deletions=True).missing == 0


def test_messages_that_are_stored_far_behind_the_first_batch_decide(
    lab: Lab, tmp_path: Path
) -> None:
    lab.import_from(backup(tmp_path / "Rep.csv", range(10_500, 10_600)))
    lab.import_from(backup(tmp_path / "all.csv", range(10_600)))
    assert conversations(lab) == 1
    assert lab.primary.fetch_all("SELECT count(*) FROM messages")[0][0] == 10_600


def test_two_replikas_stay_two(lab: Lab, tmp_path: Path) -> None:
    lab.import_from(backup(tmp_path / "Rep.csv", range(30)))
    lab.import_from(backup(tmp_path / "Other.csv", range(30), first_id=1 << 20))
    assert conversations(lab) == 2
    lab.import_from(backup(tmp_path / "again.csv", range(45), first_id=1 << 20))
    rows = lab.primary.fetch_all("SELECT count(*) FROM messages GROUP BY conversation_id")
    assert sorted(rows) == [(30,), (45,)]


def activity(path: Path, *minutes: int) -> Path:
    """Write prompts of Gemini of these minutes, each with its answer."""
    records = [
        {
            "header": "Gemini Apps",
            "title": f"Prompted question {minute}",
            "time": f"2026-03-02T{12 + minute // 60}:{minute % 60:02}:00.000Z",
            "products": ["Gemini Apps"],
            "safeHtmlItem": [{"html": f"answer {minute}"}],
        }
        for minute in sorted(minutes, reverse=True)
    ]
    path.write_text(json.dumps(records), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "files",
    [
        [(0, 1, 2), (1, 2)],  # the first prompt was deleted
        [(0, 1, 2), (1, 2, 3), (2, 3, 70, 71), (71, 72)],
        [(0, 25, 50), (0, 50)],  # without the one between, they lie apart
        [(0, 25, 50, 75, 100), (0, 50, 100, 200), (25, 75)],
        [(0, 1, 80, 81, 82), (1, 2, 81, 83)],
    ],
)
def test_sessions_of_gemini_are_known_by_their_messages(
    files: list[tuple[int, ...]], tmp_path: Path
) -> None:
    """Whichever of their prompts an export has, and in whatever order the exports come."""
    said = {minute for minutes in files for minute in minutes}
    for number, order in enumerate((files, files[::-1])):
        folder = tmp_path / str(number)
        folder.mkdir()
        with Lab.create(folder / "home", protection="none") as home:
            new = 0
            for again in range(2):
                for at, minutes in enumerate(order):
                    path = activity(folder / f"{again}-{at}.json", *minutes)
                    planned = home.import_from(path, dry_run=True).added
                    added = home.import_from(path, deletions=True).added
                    assert planned == added
                    assert not (again and added)
                    new += added
            assert new == 2 * len(said)
            times = [row[2] for row in stored(home)]
            assert times == sorted(times)
            assert len(times) == new


def test_a_folder_may_have_a_session_of_gemini_in_two_files(lab: Lab, tmp_path: Path) -> None:
    folder = tmp_path / "takeout"
    folder.mkdir()
    activity(folder / "MyActivity.json", 0, 1, 2)
    activity(folder / "MyActivity (1).json", 1, 2, 3)
    assert lab.import_from(folder).added == 8
    assert conversations_of_gemini(lab) == 1
    assert lab.import_from(folder).added == 0


def conversations_of_gemini(lab: Lab) -> int:
    """Return the number of conversations."""
    return len(lab.primary.fetch_all("SELECT DISTINCT conversation_id FROM messages"))


def bot_chat(path: Path, person: str, account: int, *ids: int) -> Path:
    """Write one person's chat with a bot whose every second message is the bot's."""
    by = [(person, f"user{account}"), ("Otto", "user777")]
    messages = [
        {
            "id": at, "type": "message", "from": by[at % 2][0], "from_id": by[at % 2][1],
            "date": f"2024-05-01T10:{at:02d}:00", "date_unixtime": str(1714557600 + 60 * at),
            "text": f"to or from {person} {at}",
        }
        for at in ids
    ]  # fmt: skip
    document = {"name": "Otto", "type": "bot_chat", "id": 777, "messages": messages}
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def texts(lab: Lab) -> dict[str, list[str]]:
    """Return the texts of each conversation."""
    found: dict[str, list[str]] = {}
    for name, text in lab.primary.fetch_all(
        "SELECT conversation_id, content FROM messages ORDER BY timestamp"
    ):
        found.setdefault(name, []).append(text)
    return found


@pytest.mark.parametrize("is_folder", [False, True])
def test_two_accounts_may_talk_with_one_bot(lab: Lab, tmp_path: Path, *, is_folder: bool) -> None:
    """The chat has the same id in both exports, and their messages' ids overlap."""
    (folder := tmp_path / "exports").mkdir()
    paths = [
        bot_chat(folder / "ada.json", "Ada", 1, *range(6)),
        bot_chat(folder / "ben.json", "Ben", 2, *range(3, 9)),
    ]
    for path in [folder] if is_folder else paths:
        lab.import_from(path)
    assert texts(lab) == {
        "telegram:user1 with 777": [f"to or from Ada {at}" for at in range(6)],
        "telegram:user2 with 777": [f"to or from Ben {at}" for at in range(3, 9)],
    }
    for path in paths:
        again = lab.import_from(path, deletions=True)
        assert (again.added, again.updated, again.missing) == (0, 0, 0)


def test_an_export_without_a_message_of_the_person_is_of_the_same_chat(
    lab: Lab, tmp_path: Path
) -> None:
    lab.import_from(bot_chat(tmp_path / "a.json", "Ada", 1, 1, 3))
    assert list(texts(lab)) == ["telegram:777"]
    lab.import_from(bot_chat(tmp_path / "b.json", "Ada", 1, *range(1, 6)))
    assert list(texts(lab)) == ["telegram:777"]
    lab.import_from(bot_chat(tmp_path / "c.json", "Ben", 2, *range(1, 6)))
    assert list(texts(lab)) == ["telegram:777", "telegram:user2 with 777"]


def test_a_part_without_the_person_goes_to_the_only_chat_with_that_bot(
    lab: Lab, tmp_path: Path
) -> None:
    lab.import_from(bot_chat(tmp_path / "a.json", "Ada", 1, *range(4)))
    lab.import_from(bot_chat(tmp_path / "b.json", "Ada", 1, 3, 5))
    assert list(texts(lab)) == ["telegram:user1 with 777"]
    lab.import_from(bot_chat(tmp_path / "c.json", "Ben", 2, *range(10, 14)))
    lab.import_from(bot_chat(tmp_path / "b.json", "Ada", 1, 3, 5, 7))
    assert {name: len(said) for name, said in texts(lab).items()} == {
        "telegram:user1 with 777": 6,
        "telegram:user2 with 777": 4,
    }


def of_bot(path: Path, person: str, account: int, first: int, count: int, *more: Any) -> Path:
    """Write a chat that begins with messages of its bot, in which the person never writes."""
    messages = [
        {
            "id": first + at, "type": "message", "from": "Otto", "from_id": "user777",
            "date": f"2024-05-01T10:{at:02d}:0{account}",
            "date_unixtime": str(1714557600 + account + 60 * at), "text": f"for {person} {at}",
        }
        for at in range(count)
    ]  # fmt: skip
    messages.extend(more)
    document = {"name": "Otto", "type": "bot_chat", "id": 777, "messages": messages}
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def test_chats_of_a_bot_alone_are_one_only_if_their_messages_are(lab: Lab, tmp_path: Path) -> None:
    """Nobody's messages are replaced by those that another account's bot sent under their ids."""
    ada = of_bot(tmp_path / "ada.json", "Ada", 1, 100, 8)
    ben = of_bot(tmp_path / "ben.json", "Ben", 2, 103, 8)
    for path in (ada, ben, ada, ben):
        result = lab.import_from(path, deletions=True)
        assert (result.updated, result.missing) == (0, 0)
        assert any("--me" in note for note in result.notes) == (path == ben and bool(result.added))
    own = {"telegram:777": "Ada", "telegram:person 2 with 777": "Ben"}
    assert texts(lab) == {name: [f"for {one} {at}" for at in range(8)] for name, one in own.items()}
    for person, path in (("Ada", ada), ("Ben", ben)):
        message = {
            "id": 300, "type": "message", "from": person,
            "from_id": f"user{1 if person == 'Ada' else 2}", "text": f"{person} at last",
            "date": "2024-05-02T10:00:00", "date_unixtime": "1714644000",
        }  # fmt: skip
        of_bot(path, person, *((1, 100) if person == "Ada" else (2, 103)), 8, message)
        lab.import_from(path)
    assert {name: said[-1] for name, said in texts(lab).items()} == {
        name: f"{one} at last" for name, one in own.items()
    }


def test_the_person_who_never_wrote_may_be_known_otherwise(lab: Lab, tmp_path: Path) -> None:
    """By a notice, by the account of a whole export, or by the answer of the user."""
    notice = {
        "id": 99, "type": "service", "actor": "Ada", "actor_id": "user1", "action": "bot_allowed",
        "date": "2024-05-01T09:00:00", "date_unixtime": "1714554000",
    }  # fmt: skip
    lab.import_from(of_bot(tmp_path / "ada.json", "Ada", 1, 100, 4, notice))
    chat = json.loads(of_bot(tmp_path / "ben.json", "Ben", 2, 100, 4).read_text("utf-8"))
    whole = {
        "about": "x", "personal_information": {"user_id": 2, "first_name": "Ben"},
        "chats": {"about": "y", "list": [chat]},
    }  # fmt: skip
    (tmp_path / "result.json").write_text(json.dumps(whole), encoding="utf-8")
    lab.import_from(tmp_path / "result.json")
    lab.import_from(of_bot(tmp_path / "eve.json", "Eve", 3, 100, 4), me="Eve")
    of_eve = of_bot(tmp_path / "later.json", "Eve later", 3, 200, 4)
    lab.import_from(of_eve, me="Eve")
    assert {name: len(said) for name, said in texts(lab).items()} == {
        "telegram:user1 with 777": 4,
        "telegram:user2 with 777": 4,
        "telegram:Eve with 777": 8,
    }


def test_a_message_that_lost_its_id_is_known_by_its_time_and_text(lab: Lab, tmp_path: Path) -> None:
    path = bot_chat(tmp_path / "a.json", "Ada", 1, *range(6))
    lab.import_from(path)
    path.write_text(path.read_text("utf-8").replace('"id": 4, ', ""), "utf-8")
    again = lab.import_from(path, deletions=True)
    assert (again.added, again.updated, again.missing) == (0, 0, 0)


def test_a_person_may_be_called_like_the_bot(lab: Lab, tmp_path: Path) -> None:
    for account in (1, 2):
        lab.import_from(bot_chat(tmp_path / f"{account}.json", "Otto", account, *range(6)))
    assert [len(said) for said in texts(lab).values()] == [6, 6]


def of_earlier_versions(lab: Lab, name: str, path: Path, **answers: Any) -> None:
    """Import a file as before its person was a part of the conversation's id."""
    batches = list(SOURCES[name].read(path, options=Options(**answers)))
    (batch,) = [one for one in batches if one.messages]
    (own,) = batch.persons
    shared = batch.persons[own][0]
    assert shared != own
    batch.messages[:] = [
        one._replace(
            conversation_id=shared,
            channel_id=one.channel_id.replace(own, shared),
            message_id=one.message_id.replace(own, shared),
        )
        for one in batch.messages
    ]
    batch.channels[:] = [
        one._replace(channel_id=one.channel_id.replace(own, shared)) for one in batch.channels
    ]
    batch.feedback.clear()
    batch.persons.clear()  # type: ignore[attr-defined]
    import_batches(lab.primary, [batch])


def test_what_is_stored_without_the_person_stays_that_of_the_first_one(
    lab: Lab, tmp_path: Path
) -> None:
    of_earlier_versions(lab, "telegram", bot_chat(tmp_path / "a.json", "Ada", 1, *range(6)))
    assert list(texts(lab)) == ["telegram:777"]
    assert lab.import_from(bot_chat(tmp_path / "b.json", "Ada", 1, *range(8))).added == 2
    lab.import_from(bot_chat(tmp_path / "c.json", "Ben", 2, *range(6)))
    lab.import_from(bot_chat(tmp_path / "b.json", "Ada", 1, *range(8)))
    assert texts(lab) == {
        "telegram:777": [f"to or from Ada {at}" for at in range(8)],
        "telegram:user2 with 777": [f"to or from Ben {at}" for at in range(6)],
    }


def test_backups_of_two_people_may_have_one_name(lab: Lab, tmp_path: Path) -> None:
    paths = {}
    for first_id, person in enumerate(("Ada", "Ben")):
        (tmp_path / person).mkdir()
        paths[person] = tmp_path / person / "replika_backup.no.csv"
        backup(paths[person], range(6), first_id=first_id << 20)
        lab.import_from(paths[person], me=person)
    assert sorted(map(len, texts(lab).values())) == [6, 6]
    backup(paths["Ada"], range(20, 26))  # the site keeps only the last ones
    backup(paths["Ben"], range(3, 9), first_id=1 << 20)
    for person, path in paths.items():
        lab.import_from(path, me=person)
    assert sorted(map(len, texts(lab).values())) == [9, 12]
    assert lab.import_from(paths["Ada"]).added == 0


def test_a_backup_that_is_stored_without_its_person_stays_one_chat(
    lab: Lab, tmp_path: Path
) -> None:
    path = tmp_path / "replika_backup.no.csv"
    of_earlier_versions(lab, "replika", backup(path, range(6)), me="Ada")
    lab.import_from(backup(path, range(20, 26)), me="Ada")
    lab.import_from(backup(path, range(3, 9)), me="Ada")
    assert {name: len(said) for name, said in texts(lab).items()} == {"replika:replika_backup": 15}


def tavern(path: Path, person: str, count: int) -> Path:
    """Write a chat whose header does not say when it was made."""
    path.parent.mkdir(exist_ok=True)
    header = {"user_name": person, "character_name": "Sera"}
    lines = [
        {
            "name": ("Sera", person)[at % 2], "is_user": bool(at % 2), "mes": f"{person} {at}",
            "send_date": f"2026-01-01T10:{at:02d}:00.000Z",
        }
        for at in range(count)
    ]  # fmt: skip
    path.write_text("\n".join(map(json.dumps, (header, *lines))), encoding="utf-8")
    return path


@pytest.mark.parametrize(("file", "name"), [("Sera", "Sera"), ("chat", "Sera:chat")])
def test_chats_of_two_people_with_one_character_may_have_one_name(
    file: str, name: str, lab: Lab, tmp_path: Path
) -> None:
    ada, ben = tmp_path / "a" / f"{file}.jsonl", tmp_path / "b" / f"{file}.jsonl"
    of_earlier_versions(lab, "sillytavern", tavern(ada, "Ada", 4))
    lab.import_from(tavern(ben, "Ben", 4))
    lab.import_from(tavern(ada, "Ada", 6))
    lab.import_from(tavern(ben, "Ben", 6))
    assert {name: len(said) for name, said in texts(lab).items()} == {
        f"sillytavern:{name}": 6,
        f"sillytavern:Ben with {name}": 6,
    }


def test_greetings_of_two_people_stay_apart(lab: Lab, tmp_path: Path) -> None:
    """A chat in which nobody answered yet is another one if it began at another time."""
    ada = tavern(tmp_path / "a" / "chat.jsonl", "Ada", 1)
    ben = tmp_path / "b" / "chat.jsonl"
    lab.import_from(ada)
    for count in (1, 4):
        text = tavern(ben, "Ben", count).read_text("utf-8")
        ben.write_text(text.replace("T10:", "T11:").replace("00.000Z", "07.000Z"), "utf-8")
        lab.import_from(ben)
    lab.import_from(tavern(tmp_path / "a" / "chat.jsonl", "Ada", 4))
    assert sorted(map(len, texts(lab).values())) == [4, 4]
