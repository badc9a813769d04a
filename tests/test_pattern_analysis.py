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
from tests.notebooks import charts, header, html, tiles

pytestmark = pytest.mark.slow

NOTEBOOK = Path(__file__).parent.parent / "notebooks" / "pattern_analysis.ipynb"
TEXT = "I love this wonderful day"  # VADER gives it a positive score
LEFT_OUT = {
    "overview", "extremes", "daily_activity", "monthly_activity", "highlights", "milestones",
    "version_change", "style_and_ratings",
}  # fmt: skip
"""Without a chart of their own: the tiles have the first two, weeks stand for the next two, two are
for the notebook `review`, and two for `personality_adaptation`."""


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
    shown = tiles(path)
    assert shown.pop("mean sentiment").startswith("+")
    assert shown == {
        "messages": "4",
        "person who wrote": "1",
        "conversation": "1",
        "days with messages": "2",
        "median time until people reply": "–",  # noqa: RUF001
        "median time until the companion replies": "–",  # noqa: RUF001 - of one reply
        "longest silence": "3.41 days",
        "busiest day": "28 February 2024",
        "busiest hour": "04:00–05:00",  # noqa: RUF001
        "longest session": "30 s",
    }
    told = header(path)
    for said in (
        "Person 1 and the companion: 28 February to 3 March 2024",
        "from 28 February 2024 on, until 3 March 2024, Person 1",
        f"Time zone {timezone}",
        "Snapshot 1",
    ):
        assert said in re.sub(r"\s+", " ", told)
    assert "Chit-Chat" not in told
    page = path.with_suffix(".html").read_text(encoding="utf-8")
    title = re.search("<title>(.*?)</title>", page)[1]
    assert title.startswith("Interaction patterns · Person 1 and the companion: 28 February")
    assert timezone in title
    assert "snapshot: 1" in title
    for text in html(path):
        if 'class="aico-lab-chart' in text:
            assert f"days and hours of {timezone}" in text
    for file in (path, path.with_suffix(".html")):
        assert "wonderful day" not in file.read_text(encoding="utf-8")


def test_without_messages_it_says_so_and_draws_nothing(report):
    path = report()
    text = path.with_suffix(".html").read_text(encoding="utf-8")
    assert "There are no messages yet: add some by aico-lab import" in text
    assert '<h2 id="Explore">' not in text
    assert charts(path) == {}
    assert "data:image" not in text
    assert "Traceback (most" not in text


def test_a_zone_that_does_not_exist_fails_in_a_sentence(report):
    with pytest.raises(NotebookFailed, match="Mars"):
        report(message("2024-03-02T22:40:00Z"), timezone="Mars/Olympus")
