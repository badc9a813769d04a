"""A step of a pipeline that imports the new files of a folder, and nothing twice."""

from __future__ import annotations

import json
import os
import sys
import zipfile
from typing import TYPE_CHECKING, Any

import pytest

from aico_lab.errors import InvalidValue, LinesRejected, SourceMissing, UnknownName, WrongUse
from aico_lab.lab import Lab
from aico_lab.pipeline import load_pipeline, run_pipeline
from tests.exported import telegram_chat as chat

if TYPE_CHECKING:
    from pathlib import Path

    from aico_lab.pipeline.watching import WatchResult

STEP = "[[steps]]\nrun = 'import'\n"


def put(path: Path, *ids: int, number: int = 1, hours: int = 0) -> Path:
    """Write a zip with a chat of Telegram, last changed a number of hours after the others."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("result.json", json.dumps(chat(number, *ids)))
    os.utime(path, (1_700_000_000 + 3600 * hours,) * 2)
    return path


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


@pytest.fixture
def run(lab: Lab, tmp_path: Path) -> Any:
    """Run one import step."""

    def once(options: str) -> WatchResult:
        path = tmp_path / "job.toml"
        path.write_text(f"{STEP}me = 'Ada'\n{options}")
        (done,) = run_pipeline(lab, load_pipeline(str(path)))
        return done.result

    return once


def stored(lab: Lab) -> list[str]:
    return [text for (text,) in lab.primary.fetch_all("SELECT content FROM messages ORDER BY id")]


def test_each_file_is_taken_once_the_oldest_first_and_again_when_it_changed(lab, run, inbox):
    put(inbox / "a.zip", 3, hours=2)
    put(inbox / "b.zip", 1, hours=1)
    (inbox / "notes.txt").write_text("not to be imported")
    done = run("path = 'inbox/*.zip'")
    assert [one.path.name for one in done.files] == ["b.zip", "a.zip"]
    assert stored(lab) == ["words 1", "words 3"]
    assert (run("path = 'inbox/*.zip'").unchanged, stored(lab)) == (2, ["words 1", "words 3"])
    put(inbox / "a.zip", 3, 5, hours=3)
    done = run("path = 'inbox/*.zip'")
    assert ([one.path.name for one in done.files], done.unchanged) == (["a.zip"], 1)
    assert (done.files[0].result.added, done.files[0].result.known) == (1, 1)


def test_an_unchanged_file_is_not_even_opened(run, inbox, monkeypatch):
    put(inbox / "a.zip", 1)
    run("path = 'inbox'")
    monkeypatch.setattr(Lab, "import_from", None)
    assert run("path = 'inbox'").unchanged == 1


def test_other_answers_take_a_file_again(lab, run, inbox):
    put(inbox / "a.zip", 1, 2)
    run("path = 'inbox'")
    assert len(run("path = 'inbox'\ntimezone = 'Europe/Berlin'").files) == 1
    assert stored(lab) == ["words 1", "words 2"]


def test_a_broken_file_is_reported_tried_again_and_keeps_no_other_out(lab, run, inbox):
    put(inbox / "a.zip", 1, hours=1)
    (inbox / "broken.zip").write_bytes((inbox / "a.zip").read_bytes()[:80])
    put(inbox / "c.zip", 2, number=2, hours=9)
    with pytest.raises(LinesRejected, match=r"could not read 1 of 3 new files.*broken\.zip"):
        run("path = 'inbox'")
    assert stored(lab) == ["words 1", "words 2"]
    done = run("path = 'inbox'\non_rejects = 'continue'")
    assert [one.path.name for one in done.broken] == ["broken.zip"]
    put(inbox / "broken.zip", 7, number=3)
    done = run("path = 'inbox'\non_rejects = 'continue'")
    assert (done.files[0].result.added, done.unchanged) == (1, 2)


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right")
@pytest.mark.parametrize("watched", ["inbox", "inbox/*.csv"])
def test_a_dead_link_is_reported_and_keeps_no_other_out(cli, lab, inbox, tmp_path, watched):
    (inbox / "a.csv").symlink_to(tmp_path / "nowhere.csv")
    (inbox / "b.csv").write_text("date,text\n2024-05-01 10:00,Hi\n")
    steps = tmp_path / "job.toml"
    steps.write_text(f"{STEP}path = '{watched}'\non_rejects = 'continue'\n")
    told = cli("pipeline", "run", str(steps))
    assert told.returncode == 0
    assert "a.csv could not be read: " in told.stderr
    assert stored(lab) == ["Hi"]
    (tmp_path / "nowhere.csv").write_text("date,text\n2024-05-01 10:01,Found\n")
    assert cli("pipeline", "run", str(steps)).returncode == 0
    assert stored(lab) == ["Hi", "Found"]


@pytest.mark.parametrize("watched", ["inbox", "inbox/*.csv", "in*/*.csv", "inbox/[b].csv"])
def test_brackets_in_the_folder_of_the_pipeline_are_no_pattern(lab, tmp_path, watched):
    folder = tmp_path / "a[1]*"
    (folder / "inbox").mkdir(parents=True)
    (folder / "inbox" / "b.csv").write_text("date,text\n2024-05-01 10:00,Hi\n")
    (folder / "job.toml").write_text(f"{STEP}path = '{watched}'\non_nothing = 'fail'\n")
    run_pipeline(lab, load_pipeline(str(folder / "job.toml")))
    assert stored(lab) == ["Hi"]
    (folder / "job.toml").write_text(f"{STEP}path = 'outbox'\n")
    with pytest.raises(SourceMissing, match="outbox does not exist"):
        run_pipeline(lab, load_pipeline(str(folder / "job.toml")))


def test_a_saved_import_that_changed_takes_a_file_again(lab, inbox, tmp_path):
    (inbox / "a.csv").write_text("date,text,role\n2024-05-01 10:00,Hi,x\n")
    steps = tmp_path / "job.toml"
    steps.write_text(f"{STEP}source = 'monthly'\npath = 'inbox/*'\n")
    saved = lab.home.path / "sources" / "monthly.toml"
    saved.parent.mkdir()

    def run_with(content: str) -> WatchResult:
        saved.write_text(content)
        (done,) = run_pipeline(lab, load_pipeline(str(steps), lab.home))
        return done.result

    assert run_with("role_map = { x = 'user' }").files[0].result.added == 1
    assert run_with("role_map = {'x'='user'}").unchanged == 1
    assert run_with("role_map = { x = 'assistant' }").files[0].result.updated == 1
    assert lab.primary.fetch_all("SELECT role FROM messages") == [("assistant",)]


@pytest.mark.parametrize("options", ["on_rejects = 'continue'", "on_nothing = 'fail'"])
def test_what_becomes_of_the_job_takes_no_file_again(run, inbox, options):
    put(inbox / "a.zip", 1)
    run("path = 'inbox'")
    assert run(f"path = 'inbox'\n{options}").unchanged == 1


def test_a_change_that_keeps_the_size_is_seen(lab, run, inbox):
    path = inbox / "a.csv"
    for hour, text in enumerate(["one", "two"]):
        path.write_text(f"date,text\n2024-05-01 10:00,{text}\n")
        os.utime(path, (1_700_000_000 + 3600 * hour,) * 2)
        run("path = 'inbox'")
    assert stored(lab) == ["one", "two"]


def test_that_nothing_matches_is_no_failure_unless_it_is_asked(cli, run, inbox, tmp_path):
    assert run("path = 'inbox/*.zip'").files == []
    with pytest.raises(LinesRejected, match="nothing matches"):
        run("path = 'inbox/*.zip'\non_nothing = 'fail'")
    told = cli("pipeline", "run", str(tmp_path / "job.toml"))
    assert "no file matches" in told.stderr
    put(inbox / "a.zip", 1)
    told = cli("pipeline", "run", str(tmp_path / "job.toml"))
    assert (told.returncode, "a.zip: 1 added" in told.stderr) == (0, True)
    told = cli("pipeline", "run", str(tmp_path / "job.toml"), "--json")
    assert json.loads(told.stdout)[0]["result"]["unchanged"] == 1
    with pytest.raises(SourceMissing, match="outbox"):
        run("path = 'outbox/*.zip'")


def test_a_folder_with_a_source_is_one_export(lab, run, inbox):
    (inbox / "result.json").write_text(json.dumps(chat(1, 1, 3)))
    assert run("source = 'telegram'\npath = 'inbox'").added == 2
    assert [one.result.known for one in run("as = 'telegram'\npath = 'inbox'").files] == [2]
    assert stored(lab) == ["words 1", "words 3"]


def test_every_option_of_the_command_is_an_option_of_the_step(lab, run, inbox):
    put(inbox / "a.zip", 1, 2, 3)
    run("path = 'inbox'\nlimit = 1")
    assert stored(lab) == ["words 1"]
    options = (
        "path = 'inbox'\ncompanion = 'Otto'\ntimezone = 'Europe/Berlin'\ntrust_times = true\n"
        "start = 2024-05-01T10:00:00\nstep = 30\nday_first = true\non_conflict = 'keep'\n"
        "deletions = true\n"
    )
    run(options)
    put(inbox / "a.zip", 1, 3, hours=5)
    assert run(options).files[0].result.missing == 1


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ("", InvalidValue, "'source' or 'path'"),
        ("path = 'x'\nsource = 'jsonl'\nas = 'csv'", InvalidValue, "not both"),
        ("path = 'x'\nas = 'nope'", UnknownName, "chitchat"),
        ("path = 'x'\ntimezone = 'Mars'", InvalidValue, "no time zone"),
        ("path = 'x'\nstart = 'soon'", InvalidValue, "2024-05-01T12:30:00"),
        ("path = 'x'\nstep = -1", InvalidValue, "number of seconds"),
        ("path = 'x'\nlimit = 0", InvalidValue, "at least 1"),
        ("path = 'x'\non_nothing = 'stop'", InvalidValue, "fail or continue"),
        ("path = 'x'\non_conflict = 'merge'", InvalidValue, "keep or replace"),
        ("path = 'x'\nday_first = 'yes'", InvalidValue, "true or false"),
        ("path = 'x'\nsource = 'jsonl'\ndeletions = true", WrongUse, "no whole conversations"),
        ("path = 'x'\nsource = 'jsonl'\ntimezone = 'UTC'", WrongUse, "takes no zone"),
        ("path = 'x'\nzone = 'UTC'", UnknownName, "no option 'zone'"),
    ],
)
def test_options_are_checked_before_the_first_step(tmp_path, options, error, said):
    path = tmp_path / "job.toml"
    path.write_text(f"{STEP}{options}\n")
    with pytest.raises(error, match=said):
        load_pipeline(str(path))


def test_what_was_not_compared_is_a_warning(lab, cli, tmp_path, inbox):
    """A conversation that is damaged, with `deletions`; the command line tells of it, too."""
    damaged = chat(1, 1, 2)
    damaged["messages"].append({"type": "unsupported"})
    (inbox / "a.json").write_text(json.dumps(damaged))
    job = tmp_path / "job.toml"
    job.write_text(f"{STEP}path = 'inbox'\nme = 'Ada'\ndeletions = true\non_rejects = 'continue'")
    told = cli("pipeline", "run", str(job))
    words = "1 conversation was not compared with the stored messages"
    assert words in told.stderr
    (step,) = lab.pipelines.show("job").steps
    assert [said for said in step.warnings if words in said]
