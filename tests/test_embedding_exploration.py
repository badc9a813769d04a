"""The notebook `embedding_exploration`, run on real databases and read from what it leaves."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from aico_lab.errors import NotebookFailed
from aico_lab.reports.runner import run_notebook
from tests.messages import add
from tests.notebooks import charts
from tests.test_exploration_stored import talk

pytestmark = pytest.mark.slow

NOTEBOOK = Path(__file__).parent.parent / "notebooks" / "embedding_exploration.ipynb"
TEXT = "I play the piano"


@pytest.fixture
def report(lab, home, tmp_path, monkeypatch):
    """Run the notebook on a home with messages; gives its path."""
    monkeypatch.setenv("AICO_LAB_HOME", str(home))

    def make(*messages, **parameters):
        add(lab.primary, *messages)
        lab.sync()
        destination = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        destination.mkdir()
        result = run_notebook(
            NOTEBOOK, parameters=parameters, destination=destination, title="T", timeout=240
        )
        return result.notebook

    return make


def test_it_shows_the_picture_and_no_text_unless_asked_to(report, lab):
    """The second run shows the stored picture, and with `content` the texts."""
    path = report(*talk(72, people=24), themes=6, min_people=3)
    drawn = charts(path)
    assert sum(row["passages"] for row in drawn["What are the conversations about?"]) == 72
    assert {"Which passages are alike?", "How do themes move over time?"} <= set(drawn)
    assert "What changed between two periods?" in drawn
    for file in (path, path.with_suffix(".html")):
        assert TEXT not in file.read_text(encoding="utf-8")
    before = lab.primary.fetch_all("SELECT * FROM passage_themes ORDER BY segment_id")
    path = report(themes=6, min_people=3, content=True, user="p3", query="  ")
    assert lab.primary.fetch_all("SELECT * FROM passage_themes ORDER BY segment_id") == before
    assert TEXT in path.with_suffix(".html").read_text(encoding="utf-8")
    drawn = charts(path)
    assert len([row for row in drawn["Which passages are alike?"] if "started" in row]) == 3
    assert sum(row["passages"] for row in drawn["What are the conversations about?"]) == 3
    assert {row["person"] for row in drawn["Who writes about what?"]} == {"Person 4"}
    page = path.with_suffix(".html").read_text(encoding="utf-8")
    assert "of 3 passages" in page
    assert "it cannot be told whether themes changed" in page


def test_filters_that_nothing_passes_are_told_once(report):
    page = report(*talk(6), since="2030-01-01").with_suffix(".html").read_text(encoding="utf-8")
    assert page.count("<strong>No passage matches the filters.") == 1
    assert not re.search(r"<h2[^>]*>(Themes|Map|Duplicates|Audit)", page)


def test_without_messages_it_says_so(report):
    text = report().with_suffix(".html").read_text(encoding="utf-8")
    assert "There are no messages yet" in text
    assert "Traceback (most" not in text


def test_a_wrong_choice_is_told_before_anything_is_done(report, lab):
    with pytest.raises(NotebookFailed, match="by must be 'week' or 'month'"):
        report(*talk(3), by="day")
    assert lab.primary.fetch_all("SELECT * FROM conversation_segments") == []
