"""The notebook `pattern_analysis`, run on real databases and read from what it leaves."""

from __future__ import annotations

import json
import re
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from statistics import median

import nbformat
import pytest

from aico_lab.errors import NotebookFailed
from aico_lab.reports.runner import run_notebook

pytestmark = pytest.mark.slow

NOTEBOOK = Path(__file__).parent.parent / "notebooks" / "pattern_analysis.ipynb"
TEXT = "I love this wonderful day"  # VADER gives it a positive score


@pytest.fixture
def report(lab, home, tmp_path, monkeypatch):
    """Import messages, sync, run the notebook; gives its path and its charts by title."""
    monkeypatch.setenv("AICO_LAB_HOME", str(home))

    def make(*messages, source="jsonl", **parameters):
        if source == "jsonl":
            path = tmp_path / "in.jsonl"
            path.write_text("\n".join(map(json.dumps, messages)), encoding="utf-8")
            lab.import_from("jsonl", path)
        else:
            lab.import_from(source, limit=2_000)
        lab.sync()
        destination = tmp_path / "out"
        destination.mkdir()
        result = run_notebook(
            NOTEBOOK, parameters=parameters, destination=destination, title="T", timeout=120
        )
        return result.notebook

    return make


def message(when, role="user", **more):
    return {
        "content": TEXT,
        "timestamp": when,
        "role": role,
        "user_id": "ada",
        "conversation_id": "c1",
        **more,
    }


def html(path):
    cells = nbformat.read(path, as_version=4).cells
    return [
        output.data["text/html"]
        for cell in cells
        for output in cell.get("outputs", [])
        if "text/html" in output.get("data", {})
    ]


def charts(path):
    found = {}
    for text in html(path):
        if match := re.search(r'<script type="application/json">(.*?)</script>', text, re.DOTALL):
            specification = json.loads(match[1])
            (rows,) = specification["datasets"].values()
            found[specification["description"]] = rows
    return found


def tiles(path):
    text = next(text for text in html(path) if "grid-template-columns" in text)
    shown = re.findall(r'<div style="font-size[^>]*>([^<]*)</div>', text)
    return dict(zip(shown[1::2], shown[::2], strict=True))


def closing_notes(path):
    return nbformat.read(path, as_version=4).cells[-1].outputs[0].data["text/markdown"]


@pytest.mark.parametrize(
    ("timezone", "day", "weekday", "hour"),
    [
        ("UTC", "2024-03-02", "Sat", 22),
        ("Asia/Kolkata", "2024-03-03", "Sun", 4),
        ("America/New_York", "2024-03-02", "Sat", 17),
    ],
)
def test_days_and_hours_are_those_of_the_zone(report, timezone, day, weekday, hour):
    path = report(
        message("2024-02-28T12:00:00Z"),
        message("2024-03-02T22:40:00Z"),
        message("2024-03-02T22:40:30Z", role="assistant", response_time=30),
        timezone=timezone,
        days=3,
    )
    drawn = charts(path)

    rows = drawn["What did the last 3 days look like?"]
    assert [row["message_count"] for row in rows] == [0, 0, 2]
    assert rows[-1]["day"].startswith(day)
    assert rows[-1]["p95_response_time"] == pytest.approx(30)
    assert rows[0]["avg_sentiment"] is None
    slots = drawn["At which hours of the week do people write?"]
    assert len(slots) == 168
    assert (
        next(row["messages"] for row in slots if (row["weekday"], row["hour"]) == (weekday, hour))
        == 2
    )
    assert sum(row["messages"] for row in slots) == 3
    weeks = drawn["How much was written each day?"]
    assert sum(row["messages"] for row in weeks) == 3
    assert [row["state"] for row in weeks] == ["day", "last day: the data end in it"]
    assert tiles(path) | {"Mean sentiment": ""} == {
        "Conversations": "1",
        "Messages": "3",
        "People (as user)": "1",
        "First day": "2024-02-28",
        "Last day": day,
        "By the assistant": "33 %",
        "Mean sentiment": "",
        "Median reply time": "30 s",
    }
    notes = closing_notes(path)
    assert f"days and hours are those of {timezone}" in notes
    assert "generation 1 of the snapshot" in notes
    assert "Chitchat" not in notes


def test_no_message_is_shown(report):
    path = report(message("2024-03-02T22:40:00Z"))
    for file in (path, path.with_suffix(".html")):
        assert "wonderful" not in file.read_text(encoding="utf-8")


def test_without_messages_it_says_so_and_draws_nothing(report):
    path = report()
    text = path.with_suffix(".html").read_text(encoding="utf-8")
    assert "This snapshot holds no messages: import some, then sync, and run this again." in text
    assert charts(path) == {}
    assert "data:image" not in text
    assert "Traceback (most" not in text


def test_replies_and_sentiment_that_are_unknown_leave_their_charts_empty(report):
    path = report({"content": " ", "timestamp": "2024-03-02T22:40:00Z"})
    assert tiles(path)["Median reply time"] == "–"  # noqa: RUF001
    assert "How long does each side take to reply?" not in charts(path)


def test_a_zone_that_does_not_exist_fails_in_a_sentence(report):
    with pytest.raises(NotebookFailed, match="Mars"):
        report(message("2024-03-02T22:40:00Z"), timezone="Mars/Olympus")


def test_the_real_conversations_are_described_as_what_they_are(report, lab):
    path = report(source="chitchat")
    messages = lab.primary.fetch_all(
        "SELECT conversation_id, role, timestamp FROM messages ORDER BY conversation_id, id"
    )
    replies = [
        (datetime.fromisoformat(when) - datetime.fromisoformat(before)).total_seconds()
        for (conversation, role, when), (earlier, other, before) in pairwise(reversed(messages))
        if conversation == earlier and role != other
    ]
    shown = tiles(path)
    assert shown["Messages"] == f"{len(messages):,}"
    assert shown["Conversations"] == f"{len({row[0] for row in messages}):,}"
    assert shown["Median reply time"] == f"{median(replies):,.0f} s"
    for rows in charts(path).values():
        assert len(rows) < 1_000
    assert "both sides are people" in closing_notes(path)
    assert "was given a prompt" in closing_notes(path)
    shares = charts(path)["How long does each side take to reply?"]
    assert sum(row["percent"] for row in shares if row["role"] == "user") == pytest.approx(100)
