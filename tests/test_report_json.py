"""`report.json`: the figures, findings and tables that a page shows, and nothing else."""

from __future__ import annotations

import hashlib
import json

import nbformat
import pytest

from aico_lab.errors import NotebookFailed, WrongUse
from aico_lab.reports import document
from aico_lab.reports.comparing import _TILE_OF
from aico_lab.reports.document import ReportFacts, collected, read_document
from aico_lab.reports.first_screen import Tile, tiles
from aico_lab.reports.page import Page
from aico_lab.reports.quality import Quality
from aico_lab.reports.review import Review
from tests.messages import add, message
from tests.notebooks import tiles as tiles_of
from tests.notebooks import write_notebook

FACTS = ReportFacts(
    run_id="one",
    report="mine",
    notebook_sha256="0" * 64,
    started_at="2026-01-01T00:00:00+00:00",
    generation=1,
    given={},
    resolved={},
)


@pytest.fixture(scope="module")
def lab(tmp_path_factory, homes):
    """A home with messages of twelve people in three months, half of them by the companion."""
    folder = tmp_path_factory.mktemp("json")
    with homes.open(folder / "home", key_file=folder / "key") as opened:
        add(
            opened.primary,
            *(
                message(
                    number,
                    user_id=f"real-name-{number // 4 % 12}",
                    conversation_id=f"c{number // 4}",
                    timestamp=f"2024-0{month}-{1 + number % 60 // 4:02}T12:00:0{number % 4}Z",
                )
                for number in range(180)
                for month in [3 + number // 60]
            ),
        )
        opened.sync()
        yield opened


def notebook_of(*metadata):
    """A notebook with an output for each dictionary of metadata of its HTML."""
    outputs = [
        nbformat.v4.new_output("display_data", {"text/html": ""}, metadata={"text/html": one})
        for one in metadata
    ]
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1", outputs=outputs)])


def document_of(*fragments):
    node = notebook_of(*(one.data for one in fragments))
    return collected(node, FACTS, seconds=1.0, error=None)


def test_tiles_are_those_of_the_page_with_their_numbers(lab):
    page = Page(lab, "R", since="2024-04-01", until="2024-04-30")
    content = document_of(page.header(), page.tiles())
    found = {one["key"]: one for one in content["tiles"]}
    assert set(_TILE_OF.values()) < set(found)
    assert found["messages"]["value"] == 60
    assert found["messages"]["text"] == "60"
    assert found["messages"]["before"]["value"] == 56  # without 1 March
    reply = found["median_time_until_the_companion_replies"]
    rows = lab.metrics.reply_latency(since="2024-04-01", until="2024-04-30").pl()
    row = rows.filter(role="assistant").row(0, named=True)
    assert (reply["value"], reply["unit"], reply["n"]) == (row["p50"], "s", row["n"])
    assert reply["interval"] == [row["p50_low"], row["p50_high"]]
    assert content["tiles_note"].startswith("Before: as many days")
    assert content["data"]["period"] == {
        "since": "2024-04-01T00:00:00+00:00",
        "until": "2024-05-01T00:00:00+00:00",
        "first_day": "2024-04-01",
        "last_day": "2024-04-15",
    }
    assert (content["data"]["people"], content["data"]["timezone"]) == (12, "UTC")


def test_a_hidden_figure_has_no_number_either():
    """As the median of few replies, or what is of fewer people than `min_people`."""
    hidden = Tile("median", None, "of only 3 replies", number=7.0, interval=(1.0, 9.0), n=3)
    ((found,),) = [document_of(tiles([hidden]))["tiles"]]
    assert (found["text"], found["value"], found["interval"]) == (None, None, None)


def test_people_have_pseudonyms_unless_they_have_names(lab):
    page = Page(lab, "R", user="real-name-3")
    for_all = json.dumps(document_of(page.header(), page.tiles()))
    assert "real-name" not in for_all
    assert "Person" in for_all
    named = Page(lab, "R", user="real-name-3", names=True)
    assert document_of(named.header())["data"]["filters"]["users"] == ["real-name-3"]


def test_a_finding_has_the_estimates_of_its_rows(lab):
    page = Page(lab, "R")
    answer = page.ask("sentiment")
    found = document.of_answer(answer, "Mood")
    assert (found["key"], found["section"]) == ("sentiment", "Mood")
    assert found["sentence"] == answer.finding
    assert found["rows"] == answer.pl().rows()
    assert [one["name"] for one in found["columns"]] == answer.pl().columns
    row = answer.pl().row(0, named=True)
    assert found["estimates"][0] == {
        "name": "mean",
        "of": {"role": row["role"]},
        "meaning": "mean sentiment score, from -1 to 1",
        "value": row["mean"],
        "unit": "",
        "interval": [row["mean_low"], row["mean_high"]],
        "n": row["n"],
    }
    assert document.of_answer(page.ask("mood_over_time"), "")["estimates"] == []  # a course
    by_month = document.of_answer(page.ask("mood_over_time", period="month"), "")
    assert by_month["key"] == "mood_over_time(period=month)"


def test_the_same_question_twice_has_two_keys(lab):
    answer = document.of_answer(Page(lab, "R").ask("turns"), "")
    node = notebook_of(*[document.marked("answer", answer)] * 2)
    content = collected(node, FACTS, seconds=1.0, error="It stopped.")
    assert [one["key"] for one in content["tables"]] == ["turns", "turns#2"]
    assert (content["run"]["status"], content["run"]["error"]) == ("failed", "It stopped.")


def test_the_checks_of_data_quality_are_tables_and_their_verdicts_figures(lab):
    page = Quality(lab, prove=False)
    content = document_of(page.summary(), *map(page.section, page.sections))
    checks = [check for those in page.sections.values() for check in those]
    listed = [row for table in content["tables"] for row in table["rows"]]
    assert [row[:4] for row in listed] == [
        [one.name, one.verdict, one.finding, one.rows] for one in checks
    ]
    fine = next(one for one in content["tiles"] if one["key"] == "checks_fine")
    assert fine["value"] == sum(one.verdict == "fine" for one in checks) > 0
    assert [one["section"] for one in content["findings"]] == list(page.sections)


def test_a_review_has_its_cards_as_figures_and_its_sections_as_tables(lab):
    review = Review(lab, period="2024-03", content=True)
    few = document_of(review.cover(), review.numbers(), review.firsts())
    assert few["data"]["about"].startswith("Person 1 and the companion")
    assert {one["key"]: one["value"] for one in few["tiles"]}["messages"] == 8
    ((day, first), *_) = few["tables"][0]["rows"]
    assert (day[:7], first.startswith("Your first message of the month: ")) == ("2024-03", True)
    review = Review(lab, since="2024-01-01", until="2024-12-31", user="real-name-0")
    assert review.rhythm() is None  # too few messages


def test_what_other_programs_put_there_is_left_alone():
    content = collected(
        notebook_of({document.KEY: "text"}, {document.KEY: {"other": 1}}),
        FACTS,
        seconds=1.0,
        error=None,
    )
    assert (content["data"], content["tiles"], content["tables"]) == (None, [], [])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "cannot be read"),
        ("{", "is not JSON"),
        ("[]", "has no “format”"),
        ('{"format": 99}', "has format 99, .* use the version that wrote it"),
    ],
)
def test_another_file_is_one_sentence(tmp_path, text, words):
    file = tmp_path / "report.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(WrongUse, match=words):
        read_document(file)


PAGE = """
from aico_lab import Lab
from aico_lab.reports.charts import Page, enable
enable()
page = Page(Lab.open(), "Mine", user=user, names=names)
page.header()
"""


@pytest.mark.slow
def test_a_run_leaves_the_data_of_its_page_and_records_their_digest(lab, tmp_path):
    """Without secrets, and without the ids that the page does not show."""
    declared = "user: str | None = None\nnames: bool = False\nsince: str | None = None"
    notebook = write_notebook(
        tmp_path / "mine.ipynb",
        PAGE,
        "page.tiles()",
        "page.section('Mood', 'text', page.ask('sentiment'), page.ask('feedback'))",
        "page.left_out()",
        parameters=declared,
    )
    given = {"user": "real-name-3", "since": "3d"}
    result = lab.reports.run(notebook, given)
    text = result.json.read_text(encoding="utf-8")
    assert "real-name" not in text
    content = json.loads(text)
    assert content == read_document(lab.reports.show("mine").json)
    assert content["parameters"]["given"] == given | {"user": "•••"}
    assert content["parameters"]["resolved"]["since"] == "2024-05-13"
    shown = {one["label"]: one["text"] or "–" for one in content["tiles"]}  # noqa: RUF001
    assert shown == tiles_of(result.notebook)
    assert [one["key"] for one in content["tables"]] == ["sentiment"]
    assert content["left_out"][0]["reason"] == "Nothing matches."
    ((digest, summary),) = lab.primary.fetch_all("SELECT json_sha256, summary FROM report_runs")
    assert digest == hashlib.sha256(result.json.read_bytes()).hexdigest()
    assert json.loads(summary)["about"] == content["data"]["about"]
    broken = write_notebook(tmp_path / "broken.ipynb", PAGE, "1 / 0", parameters=declared)
    with pytest.raises(NotebookFailed):
        lab.reports.run(broken)
    failed = read_document(lab.reports.show("broken").json)
    assert failed["run"]["status"] == "failed"
    assert "ZeroDivisionError" in failed["run"]["error"]
    assert str(tmp_path) not in json.dumps(failed)
    assert failed["data"]["name"] == "Mine"
