"""Runs of reports: repeated, opened, compared, and listed on a page."""

from __future__ import annotations

import json
import math
import re
import shutil
from types import SimpleNamespace

import nbformat
import pytest

from aico_lab.adapters import sealed
from aico_lab.errors import InvalidValue, NotebookFailed, UnknownName, WrongUse
from aico_lab.etl import snapshots
from aico_lab.reports import browser, run_index
from aico_lab.reports.comparing import MORE, compare
from aico_lab.reports.document import NAME, collected
from aico_lab.reports.records import recorded
from aico_lab.results import json_text
from tests.messages import add, message
from tests.notebooks import write_notebook

DECLARED = "generation: int = 0\nsince: str | None = None\ntimezone: str = 'UTC'\ntop: int = 3"


@pytest.fixture
def quick(lab, tmp_path, monkeypatch):
    """Run reports without a kernel; `given` has their parameters, `metadata` is in their output."""
    quick = SimpleNamespace(given=[], metadata={}, error=None)

    def made(notebook, *, parameters, destination, facts, **_):
        from aico_lab.reports.runner import RunResult

        quick.given.append(dict(parameters))
        node = nbformat.v4.new_notebook(
            cells=[
                nbformat.v4.new_code_cell(
                    "1",
                    outputs=[
                        nbformat.v4.new_output(
                            "display_data", metadata={"text/html": {"aico_lab": quick.metadata}}
                        )
                    ],
                )
            ]
        )
        file = destination / notebook.name
        file.write_text("{}")
        file.with_suffix(".html").write_text("<p>page</p>")
        content = collected(node, facts, seconds=1.0, error=None)
        (destination / NAME).write_text(json_text(content))
        if quick.error is not None:
            raise quick.error
        page = file.with_suffix(".html")
        return RunResult(file, page, 1.0, destination / NAME, facts.repeats)

    monkeypatch.setattr("aico_lab.reports.runner.run_notebook", made)
    add(lab.primary, *map(message, range(10)))
    lab.sync()
    quick.notebook = write_notebook(tmp_path / "mine.ipynb", "1", parameters=DECLARED)
    return quick


def run_id(result) -> str:
    return result.html.parent.name


# ---- repeated


def test_a_report_is_repeated_with_its_days_and_its_snapshot(lab, quick):
    """Not with thirty days before today's last message, nor with the newest snapshot."""
    first = lab.reports.run(quick.notebook, {"since": "30d", "top": 5})
    add(lab.primary, message(10, timestamp="2024-06-01T12:00:00.000000Z"))
    lab.sync()
    again = lab.reports.rerun(run_id(first))
    expected = {"generation": 1, "since": "2024-02-01", "timezone": "UTC", "top": 5}
    assert quick.given[1] == expected
    assert (again.repeats, again.notes) == (run_id(first), ())
    assert lab.reports.show("mine").repeats == run_id(first)
    assert json.loads(again.json.read_bytes())["run"]["repeats"] == run_id(first)


def test_the_end_of_a_snapshot_and_a_change_of_the_notebook_are_told(lab, quick, tmp_path):
    first = lab.reports.run(quick.notebook, {"since": "12h"})
    write_notebook(quick.notebook, "2", parameters=DECLARED)
    add(lab.primary, message(10, timestamp="2024-06-01T12:00:00.000000Z"))
    newest = lab.sync().generation
    snapshots.published(lab.home.snapshots)[1].unlink()
    again = lab.reports.rerun("mine")
    assert quick.given[1]["generation"] == newest
    assert quick.given[1]["since"] == "2024-03-01T00:00:09+00:00"
    assert again.notes[0] == f"mine.ipynb has changed since run {run_id(first)}."
    assert again.notes[1] == (
        f"It is of another snapshot, {newest}, which may hold other messages, since snapshot 1 is "
        "not kept any more."
    )
    unpinned = write_notebook(tmp_path / "free.ipynb", "1", parameters="top: int = 3")
    lab.reports.run(unpinned)
    add(lab.primary, message(11, timestamp="2024-07-01T12:00:00.000000Z"))
    lab.sync()
    (told,) = lab.reports.rerun("free").notes
    assert told.endswith("since free.ipynb has no parameter “generation”.")


def test_a_run_of_an_earlier_version_is_repeated_too(lab, quick):
    """Which recorded neither the path of the notebook nor the resolved parameters."""
    first = lab.reports.run(quick.notebook, {"since": "30d"})
    lab.primary.execute("UPDATE report_runs SET notebook = NULL, resolved = NULL")
    with pytest.raises(UnknownName, match=r"notebook of run .* is gone: put it .* mine\.ipynb"):
        lab.reports.rerun(run_id(first))
    (lab.home.path / "notebooks").mkdir()
    shutil.copy(quick.notebook, lab.home.path / "notebooks")
    assert lab.reports.rerun(run_id(first)).notes == ()
    assert quick.given[1]["since"] == "30d"


def test_a_notebook_that_is_gone_is_one_sentence(lab, quick):
    first = lab.reports.run(quick.notebook)
    quick.notebook.unlink()
    with pytest.raises(UnknownName, match=f"{quick.notebook}, is gone"):
        lab.reports.rerun(run_id(first))
    with pytest.raises(UnknownName, match="no run of 'nothing'"):
        lab.reports.rerun("nothing")


# ---- opened


def test_the_newest_page_opens(lab, quick, monkeypatch, cli):
    opened = []
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(browser.webbrowser, "open", lambda page: opened.append(page) or True)
    with pytest.raises(UnknownName, match="No report has a page"):
        lab.reports.open()
    results = [lab.reports.run(quick.notebook) for _ in range(2)]
    assert lab.reports.open() == results[1].html
    assert lab.reports.open(run_id(results[0])) == results[0].html
    assert opened == [one.html.as_uri() for one in reversed(results)]
    shutil.rmtree(results[1].html.parent)
    assert lab.reports.open() == results[0].html
    with pytest.raises(UnknownName, match=f"was removed. .*rerun {run_id(results[1])}"):
        lab.reports.open(run_id(results[1]))
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(browser.sys, "platform", "linux")
    lab.close()
    ran = cli("report", "open")
    assert (ran.returncode, ran.stdout.strip()) == (0, str(results[0].html))
    assert ran.stderr == "No browser could be started here: open the file yourself.\n"


def test_a_page_that_a_run_has_not_written_is_no_removed_one(lab, quick):
    """As of a run that is going on, or one that failed on the search for leaks."""
    quick.error = NotebookFailed("It leaks.")
    with pytest.raises(NotebookFailed):
        lab.reports.run(quick.notebook)
    shutil.rmtree(lab.home.reports / "mine")
    with pytest.raises(UnknownName, match=r"no page: its run did not succeed\. It leaks\. Run it"):
        lab.reports.open("mine")
    facts = {"parameters": {}, "generation": 1}
    with recorded(lab.primary, lab.home, quick.notebook, run_id="now", **facts):
        for use in (lab.reports.open, lambda name: lab.reports.diff(name, name)):
            with pytest.raises(UnknownName, match="Run now is still running"):
                use("mine")


def test_what_a_killed_sealed_run_left_is_removed_with_its_record(
    lab, quick, tmp_path, monkeypatch
):
    """Its text is in a private folder elsewhere."""
    monkeypatch.setattr(sealed, "_roots", lambda: (tmp_path / "ram", tmp_path / "private"))
    left = tmp_path / "ram" / "left"
    left.mkdir(parents=True)
    lab.reports.run(quick.notebook)
    lab.primary.execute("UPDATE report_runs SET status = 'running'")
    assert [run.status for run in lab.reports.list()] == ["interrupted"]
    assert not left.exists()


def test_a_removed_page_has_no_path(lab, quick, cli):
    result = lab.reports.run(quick.notebook)
    shutil.rmtree(result.html.parent)
    run = lab.reports.show("mine")
    assert (run.html, run.json) == (None, None)
    lab.close()
    for command in (["show", "mine"], ["list"]):
        ran = cli("report", *command)
        assert ran.returncode == 0, ran.stderr
        assert str(result.html.parent) not in ran.stdout
        assert str(result.html.parent) not in cli("report", *command, "--json").stdout


# ---- listed


def test_every_run_is_on_one_page(lab, quick, tmp_path):
    """Newest first, with links to the pages that are there, and errors without paths."""
    quick.metadata = {
        "data": {"about": "Ada & <Bob>: May 2024"},
        "figures": {"tiles": [{"text": "3", "label": "messages"}], "note": ""},
    }
    removed = lab.reports.run(quick.notebook)
    shutil.rmtree(removed.html.parent)
    odd = write_notebook(tmp_path / "a#b: c.ipynb", "1", parameters=DECLARED)
    kept = lab.reports.run(odd)
    again = lab.reports.rerun(run_id(kept))
    quick.error = NotebookFailed(
        "mine.ipynb stopped in cell 1: A<B; the notebook up to there is /x."
    )
    with pytest.raises(NotebookFailed):
        lab.reports.run(quick.notebook)
    page = lab.home.reports / "index.html"
    assert page.stat().st_mode & 0o777 == 0o600
    text = page.read_text(encoding="utf-8")
    rows = text.split("<tr>")[2:]
    assert len(rows) == 4
    assert "stopped in cell 1: A&lt;B</span>" in rows[0]
    assert "the notebook up to there</a>" in rows[0]
    assert "/x" not in rows[0]
    assert f"repeats {run_id(kept)}" in rows[1]
    assert f'<a href="./a%23b%3A%20c/{run_id(again)}/a%23b%3A%20c.html">a#b: c</a>' in rows[1]
    assert "Ada &amp; &lt;Bob&gt;: May 2024<small>3 messages</small>" in rows[2]
    assert "removed" in rows[3]
    assert "href" not in rows[3]
    assert "Ada" not in rows[3]
    assert "<script" not in text
    assert "http" not in text.replace('http-equiv="', "")


def test_a_run_succeeds_without_the_page_of_all_runs(lab, quick, monkeypatch):
    """It is written by the next run."""
    (lab.home.reports / "index.html").mkdir()
    assert lab.reports.run(quick.notebook).html.is_file()
    (lab.home.reports / "index.html").rmdir()
    monkeypatch.setattr(run_index, "_WAITING", 0.05)
    with run_index.held(lab.home.reports / ".index.lock", 1, lambda _: WrongUse("busy")):
        lab.reports.run(quick.notebook)
    assert not (lab.home.reports / "index.html").exists()
    lab.reports.run(quick.notebook)
    assert "3 runs" in (lab.home.reports / "index.html").read_text(encoding="utf-8")


def test_a_sealed_report_is_not_linked_compared_or_repeated_in_plain_text(lab, quick):
    """Its data are as secret as its page."""
    first = lab.reports.run(quick.notebook)
    for file in [*first.html.parent.iterdir()]:
        file.rename(file.with_name(f"{file.name}.age"))
    run = lab.reports.show("mine")
    assert [run.html.name, run.json.name] == ["mine.html.age", "report.json.age"]
    for use, words in [
        (lambda: lab.reports.rerun("mine"), "name the recipients .* --encrypt"),
        (lambda: lab.reports.diff("mine", "mine"), "decrypt .* by `age --decrypt`"),
        (lab.reports.open, "aico-lab report open --identity"),
    ]:
        with pytest.raises(InvalidValue, match=words):
            use()
    run_index.write_index(lab.primary, lab.home)
    text = (lab.home.reports / "index.html").read_text(encoding="utf-8")
    assert ">sealed</td>" in text
    assert "href" not in text


def test_a_sealed_report_is_not_repeated_in_plain_text_when_its_page_is_gone(lab, quick):
    """Nor one of an earlier version, which did not record whether a run was sealed."""
    recipient = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"
    first = lab.reports.run(quick.notebook, encrypt=[recipient])
    shutil.rmtree(first.html.parent)
    with pytest.raises(InvalidValue, match=f"Run {run_id(first)} is sealed: name the recipients"):
        lab.reports.rerun("mine")
    assert lab.reports.rerun(run_id(first), encrypt=[recipient]).repeats == run_id(first)
    plain = lab.reports.run(quick.notebook)
    shutil.rmtree(plain.html.parent)
    assert lab.reports.rerun(run_id(plain)).repeats == run_id(plain)
    lab.primary.execute("UPDATE report_runs SET sealed = NULL")
    with pytest.raises(InvalidValue, match="has no page any more, and may have been sealed"):
        lab.reports.rerun(run_id(plain))


# ---- compared


def report(
    first_day: str = "2024-03-01",
    last_day: str = "2024-03-31",
    *,
    mean=(0.1, 0.0, 0.25),
    messages: int | None = 10,
    unit: str = "",
    **parameters,
):
    """The content of a `report.json` with one tile and one finding."""
    value, *ends = mean
    tile = {"key": "messages", "text": None if messages is None else str(messages)}
    return {
        "format": 1,
        "run": {"id": first_day, "report": "mine", "status": "succeeded"},
        "notebook": {"name": "mine.ipynb", "sha256": "0"},
        "parameters": {"resolved": {"since": first_day, "top": 3} | parameters},
        "snapshot": 1,
        "versions": {"python": "3.11"},
        "data": {
            "about": "Ada",
            "timezone": "UTC",
            "period": {
                "since": None, "until": None, "first_day": first_day, "last_day": last_day,
            },
        },
        "tiles": [tile | {"value": messages, "unit": "", "interval": None}],
        "findings": [
            {
                "key": "sentiment",
                "estimates": [
                    {
                        "name": "mean", "of": {"role": "user"}, "value": value, "unit": unit,
                        "interval": None if None in ends else ends, "n": 9,
                    }
                ],
            }
        ],
    }  # fmt: skip


APRIL = ("2024-04-01", "2024-04-30")


@pytest.mark.parametrize(
    ("mean", "verdict"),
    [((0.5, 0.3, 0.6), MORE), ((0.3, 0.1, 0.6), "within the intervals")],
)
def test_a_change_is_judged_by_the_interval_of_the_difference(mean, verdict):
    messages, changed = compare(report(), report(*APRIL, mean=mean)).changes
    assert (messages.difference, messages.interval, messages.verdict) == (0, None, "not judged")
    assert changed.key == "sentiment: mean of user"
    assert changed.difference == pytest.approx(mean[0] - 0.1)
    below = math.sqrt((mean[0] - mean[1]) ** 2 + 0.15**2)
    above = math.sqrt((mean[2] - mean[0]) ** 2 + 0.1**2)
    assert changed.interval == pytest.approx((mean[0] - 0.1 - below, mean[0] - 0.1 + above))
    assert changed.verdict == verdict


@pytest.mark.parametrize(
    ("other", "words", "comparable"),
    [
        (report(*APRIL, top=4, mean=(0.9, 0.8, 1)), "not comparable, .* in parameter top", False),
        (report("2024-03-31", mean=(0.9, 0.8, 1)), "periods overlap", True),
        (report(*APRIL) | {"data": None}, "period of one is not known", True),
    ],
)
def test_nothing_is_claimed_of_reports_that_share_messages_or_mean_other_things(
    other, words, comparable
):
    diff = compare(report(), other)
    assert {one.verdict for one in diff.changes} == {"not judged"}
    assert diff.comparable is comparable
    shown = repr(diff).splitlines()
    assert "No difference can be judged by intervals." in shown
    assert shown.count(diff.notes[0]) == 1
    assert re.search(words, diff.notes[0])
    assert (shown[0] == diff.notes[0]) is not comparable


def test_values_that_are_missing_are_neither_changes_nor_errors():
    """As in a report of few messages, or of another unit."""
    diff = compare(report(messages=None, mean=(None, None, None)), report(*APRIL))
    assert [(one.difference, one.verdict) for one in diff.changes] == [(None, "not judged")] * 2
    assert "None" not in repr(diff)
    hours = compare(report(unit="s"), report(*APRIL, unit="min"))
    assert hours.only_first == hours.only_second == ("sentiment: mean of user",)
    assert "Only in the first: sentiment (1 figure)." in repr(hours)
    few = compare(report(mean=(0.1, None, None)), report(*APRIL, mean=(0.9, 0.8, 1.0)))
    assert few.changes[1].verdict == "not judged"


def test_a_difference_is_shown_as_a_table_and_says_what_differs():
    newer = report(*APRIL, mean=(0.5, 0.3, 0.6), messages=12)
    newer |= {"versions": {"python": "3.12"}, "snapshot": 2}
    diff = compare(report(), newer)
    shown = repr(diff)
    assert shown.splitlines()[2] == (
        "1 figure of 1 with intervals differs by more than the intervals allow. If nothing "
        "changed, about one figure in 80 does so by chance, and one in 30 if the people are others."
    )
    assert "Differs: version of python: 3.11; 3.12." in shown
    assert "Differs: snapshot: 1; 2." in shown
    html = diff._repr_html_()
    assert "<td>sentiment: mean of user</td><td>0.1</td><td>0.5</td><td>+0.4</td>" in html
    hidden = compare(report(), report(*APRIL))
    assert "Not shown: 1 figure within the intervals; `--json`" in repr(hidden)
    few = repr(compare(report(), report(*APRIL, mean=(0.5, None, None))))
    assert "Not shown: 1 figure not judged; `--json`" in few
    assert "an interval, for which 10 people or conversations are needed." in few


def test_figures_that_grow_with_the_period_are_not_judged_if_its_length_differs():
    """Such as streaks, of which a week has no long ones."""

    def with_streaks(*days, share):
        made = report(*days)
        estimate = made["findings"][0]["estimates"][0]
        at_least = {"name": "at_least", "of": {"days": 5}, "value": share}
        at_least |= {"interval": [share - 5, share + 5], "unit": "%"}
        made["findings"] += [{"key": "streaks", "estimates": [estimate | at_least]}]
        return made

    month, days = with_streaks(share=70.0), ("2024-04-02", "2024-04-08")
    _, mood, streaks = compare(month, with_streaks(*days, share=20.0)).changes
    assert (mood.verdict, streaks.verdict) == ("within the intervals", "not judged")
    shown = repr(compare(month, with_streaks(*days, share=20.0)))
    assert "From the first to the last message, the reports have 31 days and 7 days: " in shown
    alike = compare(month, with_streaks("2024-04-02", "2024-05-02", share=20.0))
    assert alike.changes[2].verdict == MORE
    assert "From the first to the last" not in repr(alike)


def test_an_estimate_that_is_a_tile_too_is_compared_once():
    """Whether the tile has an interval or not."""

    def with_median(*days, ends):
        made = report(*days, mean=(90.0, 80.0, 100.0))
        median = {"value": 90.0, "unit": "s", "interval": ends}
        made["tiles"] += [median | {"key": "median_time_until_people_reply", "text": "90 s"}]
        p50 = median | {"name": "p50", "of": {"role": "user"}, "n": 9}
        made["findings"] += [{"key": "reply_latency", "estimates": [p50]}]
        return made

    diff = compare(with_median(ends=[80.0, 100.0]), with_median(*APRIL, ends=None))
    assert [one.key for one in diff.changes][1:] == [
        "median_time_until_people_reply", "sentiment: mean of user",
    ]  # fmt: skip
    assert diff.only_first == diff.only_second == ()


def test_reports_of_other_people_are_called_different():
    shown = repr(compare(report(user="Ada"), report(*APRIL, mean=(0.9, 0.8, 1), user="Bob")))
    assert "different people: a difference is not a change." in shown
    assert "differs by more than the intervals allow" in shown


def test_damaged_data_are_one_sentence():
    with pytest.raises(WrongUse, match=r"a report\.json is damaged"):
        compare({"format": 1}, report())
    odd = report()
    odd["tiles"][0]["text"] = 7
    for damaged in (odd, report(mean=(math.inf, 0, 1)), report(messages=10**400)):
        with pytest.raises(WrongUse, match=r"a report\.json is damaged"):
            compare(report(), damaged)


def test_reports_are_compared_by_id_name_place_and_path(lab, quick, tmp_path, cli):
    other = write_notebook(tmp_path / "other.ipynb", "1", parameters=DECLARED)
    ids = [run_id(lab.reports.run(quick.notebook)) for _ in range(3)]
    with pytest.raises(UnknownName, match="There is no previous good run of other"):
        lab.reports.run(other)
        lab.reports.diff("previous", "latest")
    assert lab.reports.diff("previous", ids[0]).runs == (ids[1], ids[0])
    assert lab.reports.show("latest").report == "other"
    with pytest.raises(UnknownName, match="There is no previous good run of other"):
        lab.reports.show("previous")
    assert lab.reports.diff("mine", "latest").runs == (ids[2], ids[2])
    path = lab.reports.show(ids[0]).json
    assert lab.reports.diff(path, "latest").runs[0] == ids[0]
    path.unlink()  # as of an earlier version
    with pytest.raises(UnknownName, match=rf"{ids[0]} has no report\.json.*rerun {ids[0]}"):
        lab.reports.diff(ids[0], "latest")
    lab.close()
    ran = cli("report", "diff", ids[1], ids[2], "--json")
    assert json.loads(ran.stdout)["runs"] == ids[1:]
    assert "First: " in cli("report", "diff", ids[1], ids[2]).stdout
