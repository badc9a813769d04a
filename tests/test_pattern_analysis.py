"""The notebook `pattern_analysis`, run on real databases and read from what it leaves."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nbformat
import pytest

from aico_lab.errors import NotebookFailed
from aico_lab.metrics.engine.catalogue import CATALOGUE
from aico_lab.reports.runner import run_notebook
from tests.notebooks import charts, closing_notes, html, tiles

pytestmark = pytest.mark.slow

NOTEBOOK = Path(__file__).parent.parent / "notebooks" / "pattern_analysis.ipynb"
TEXT = "I love this wonderful day"  # VADER gives it a positive score
LEFT_OUT = {"overview", "daily_activity", "monthly_activity"}
"""Without a chart of their own: the tiles have the first one, weeks stand for the others."""


@pytest.fixture
def report(lab, home, tmp_path, monkeypatch):
    """Import messages, sync, run the notebook; gives its path."""
    monkeypatch.setenv("AICO_LAB_HOME", str(home))

    def make(*messages, **parameters):
        path = tmp_path / "in.jsonl"
        path.write_text("\n".join(map(json.dumps, messages)), encoding="utf-8")
        lab.import_from("jsonl", path)
        lab.sync()
        destination = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
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


def drawn(path, name):
    return charts(path)[CATALOGUE[name].question]


def test_it_asks_the_whole_catalogue():
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    asked = set(re.findall(r'ask\("(\w+)"', code))
    assert asked | LEFT_OUT == set(CATALOGUE)
    assert all(not cell.get("outputs") for cell in cells)


def test_parameters_choose_and_days_and_hours_are_those_of_the_zone(report):
    """The period, the person, the gap; and no message is shown."""
    timezone, day, weekday, hour = "Asia/Kolkata", "2024-03-03", "Sun", 4
    path = report(
        message("2024-02-27T18:20:00Z"),  # ten minutes before the first day begins in Kolkata
        message("2024-02-28T12:00:00Z"),
        message("2024-02-28T12:50:00Z"),
        message("2024-03-02T22:40:00Z"),
        message("2024-03-02T22:40:30Z", role="assistant", response_time=30),
        message("2024-03-03T18:40:00Z"),  # ten minutes after the last one has ended there
        message("2024-03-01T12:00:00Z", user_id="eve", conversation_id="c2"),
        timezone=timezone,
        since="2024-02-28",
        until=day,
        user="ada",
        gap_minutes=60,
    )
    slots = drawn(path, "week_heatmap")
    assert len(slots) == 168
    assert sum(row["n"] for row in slots) == 4
    (week,) = {row["n"] for row in drawn(path, "sessions")}
    assert week == 2  # by a gap of half an hour there would be three
    (slot,) = [row["n"] for row in slots if (row["weekday"], row["hour"]) == (weekday, hour)]
    assert slot == 2
    assert tiles(path) | {"Mean sentiment (−1 to 1)": ""} == {  # noqa: RUF001
        "Conversations": "1",
        "Messages": "4",
        "People (as user)": "1",
        "First day": "2024-02-28",
        "Last day": day,
        "Days with messages": "2",
        "By the companion": "25 %",
        "Mean sentiment (−1 to 1)": "",  # noqa: RUF001
        "People's median reply time": "–",  # noqa: RUF001
        "Companion's median reply time": "30 s",
    }
    notes = closing_notes(path)
    assert f"days and hours are those of {timezone}" in notes
    assert "generation 1 of the snapshot" in notes
    assert "Chitchat" not in notes
    for text in html(path):
        if 'class="aico-lab-chart' in text:
            assert f"days and hours of {timezone}" in text
    for file in (path, path.with_suffix(".html")):
        assert "wonderful day" not in file.read_text(encoding="utf-8")


def test_without_messages_it_says_so_and_draws_nothing(report):
    path = report()
    text = path.with_suffix(".html").read_text(encoding="utf-8")
    assert "Nothing matches: import messages and sync" in text
    assert charts(path) == {}
    assert "data:image" not in text
    assert "Traceback (most" not in text


def test_a_zone_that_does_not_exist_fails_in_a_sentence(report):
    with pytest.raises(NotebookFailed, match="Mars"):
        report(message("2024-03-02T22:40:00Z"), timezone="Mars/Olympus")
