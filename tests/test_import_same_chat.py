"""One chat in several files: it stays one conversation, whatever the files are called."""

from __future__ import annotations

import csv
import itertools
import json
from typing import TYPE_CHECKING, Any

import pytest

from aico_lab.lab import Lab

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
