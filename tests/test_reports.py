"""Reports of a home: a person's own notebooks, values that are wrong, full disks, killed runs."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from aico_lab.errors import (
    DatabaseLocked,
    DiskFull,
    InvalidValue,
    NotebookFailed,
    UnknownName,
    WrongUse,
)
from aico_lab.home.working_copies import renew
from aico_lab.lab import Lab
from aico_lab.reports.lab_reports import find_notebook, notebooks
from aico_lab.reports.records import recorded
from aico_lab.schema.core import CORE
from aico_lab.shipped import shipped
from tests.messages import add, message
from tests.notebooks import outputs, write_notebook
from tests.test_cli import mount

SHIPPED = shipped("notebooks", ".ipynb")["pattern_analysis"]
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux")


@pytest.fixture(scope="module")
def synced(tmp_path_factory, homes):
    """A home with a snapshot that no test writes into, but for reports."""
    folder = tmp_path_factory.mktemp("reports")
    key = folder / "key"
    with homes.open(folder / "home", messages=10, synced=True, key_file=key) as lab:
        yield lab


# ---- own notebooks


@pytest.mark.slow
def test_a_notebook_of_ones_own_runs_where_it_lies(synced, tmp_path):
    """With the files and the modules beside it, and without a cell of parameters."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "data.txt").write_text("beside")
    (folder / "helper.py").write_text("word = 'helped'")
    (folder / "csv.py").write_text("raise ImportError('not the one of the standard library')")
    notebook = write_notebook(
        folder / "own work.ipynb",
        "import helper; from pathlib import Path; print(Path('data.txt').read_text(), helper.word)",
        "from aico_lab import Lab; Lab.open().sql('FROM conversations').pl().height",
        parameters=None,
    )
    before = notebook.read_bytes()
    result = synced.reports.run(notebook)
    assert outputs(result.notebook) == "beside helped\n\n10"
    assert notebook.read_bytes() == before
    assert sorted(path.name for path in result.notebook.parent.iterdir()) == [
        "own work.html",
        "own work.ipynb",
        "report.json",
    ]
    assert "<title>Own work · " in result.html.read_text(encoding="utf-8")
    (run,) = synced.reports.list("own work")
    assert (run.status, run.generation) == ("succeeded", 1)
    assert synced.reports.page(run) == run.html == result.html
    for name in ("own work", run.run_id, notebook):
        assert synced.reports.show(name) == run
    with pytest.raises(UnknownName, match="did you mean own work"):
        synced.reports.show("own wrok")
    with pytest.raises(UnknownName, match=r"no parameter “days”.*parameters"):
        synced.reports.run(notebook, {"days": 3})


@pytest.mark.slow
def test_the_command_line_runs_a_notebook_of_the_folder_that_one_is_in(
    synced, in_process, monkeypatch, tmp_path
):
    """And names it, since one of the package may have the same name."""
    write_notebook(tmp_path / "my.ipynb", "days", parameters="days: int = 1  # of something")
    monkeypatch.chdir(tmp_path)

    def report(*arguments):
        return in_process("report", *arguments, *opened(synced))

    ran = report("run", "my.ipynb", "-p", "days=7", "--json")
    assert ran.returncode == 0, ran.stderr
    assert outputs(Path(json.loads(ran.stdout)["notebook"])).strip() == "7"
    assert f"Notebook: {tmp_path / 'my.ipynb'}" in ran.stderr
    shown = report("show", "my.ipynb").stdout
    assert "succeeded" in shown
    assert str(Path(json.loads(ran.stdout)["html"])) in shown
    listed = report("list").stdout.splitlines()
    expected = (
        "cache_inspection, data_quality, embedding_exploration, pattern_analysis, "
        "personality_adaptation, review"
    )
    assert listed[0] == f"Reports: {expected}"
    assert any("succeeded" in line and line.endswith("my  snapshot 1") for line in listed)
    assert re.search(r"  20\d\d-\d\d-\d\d \d\d:\d\d UTC  ", listed[-1])  # wherever the machine is


def test_names_are_those_of_the_package_and_of_the_homes_notebooks(lab):
    folder = lab.home.path / "notebooks"
    renew(folder, [SHIPPED])
    assert find_notebook("pattern_analysis", lab.home) == SHIPPED  # nobody changed the copy
    write_notebook(folder / "mine.ipynb", "1")
    assert notebooks(lab.home) == {
        "cache_inspection": SHIPPED.with_stem("cache_inspection"),
        "data_quality": SHIPPED.with_stem("data_quality"),
        "embedding_exploration": SHIPPED.with_stem("embedding_exploration"),
        "mine": folder / "mine.ipynb",
        "pattern_analysis": SHIPPED,
        "personality_adaptation": SHIPPED.with_stem("personality_adaptation"),
        "review": SHIPPED.with_stem("review"),
    }
    write_notebook(folder / "pattern_analysis.ipynb", "1")
    assert find_notebook("pattern_analysis", lab.home) == folder / "pattern_analysis.ipynb"
    assert find_notebook(str(SHIPPED), lab.home) == SHIPPED


def test_a_report_does_not_take_the_place_of_the_list_of_all_runs(lab, tmp_path):
    notebook = write_notebook(tmp_path / "Index.html.ipynb", "1")
    with pytest.raises(UnknownName, match=r"Index\.html cannot name a report"):
        lab.reports.run(notebook)


@pytest.mark.parametrize("stem", ["a\x1b[31m", "two\nlines", "x" * 240])
def test_a_name_that_spoils_a_list_or_is_too_long_is_refused(lab, tmp_path, stem):
    """Before the notebook runs; such as one with the escape codes of a terminal."""
    notebook = write_notebook(tmp_path / f"{stem}.ipynb", "1")
    with pytest.raises(UnknownName, match="cannot name a report: rename it") as refused:
        lab.reports.run(notebook)
    assert str(refused.value).isprintable()


def test_what_is_no_notebook_is_one_sentence(lab, tmp_path):
    (tmp_path / "folder.ipynb").mkdir()
    (tmp_path / "text.ipynb").write_text("text")
    write_notebook(tmp_path / "..ipynb", "1")
    for name, kind, words in [
        ("gone.ipynb", UnknownName, "There is no notebook gone.ipynb"),
        (tmp_path / "folder.ipynb", UnknownName, "There is no notebook"),
        (tmp_path / "text.ipynb", WrongUse, "text.ipynb is not a notebook"),
        (tmp_path / "..ipynb", UnknownName, "first dot"),
        (
            "gone",
            UnknownName,
            r"these are: cache_inspection, data_quality, .*, review\. .* \.ipynb",
        ),
    ]:
        with pytest.raises(kind, match=words):
            lab.reports.run(name)
    assert lab.reports.list() == []


def test_a_notebook_that_is_damaged_is_one_sentence(synced, tmp_path):
    (tmp_path / "bad.ipynb").write_text(
        '{"cells": [{"cell_type": "code", "source": "1"}], "nbformat": 4, "nbformat_minor": 5, '
        '"metadata": {}}'
    )
    with pytest.raises(WrongUse, match=r"bad\.ipynb is damaged .*metadata"):
        synced.reports.run(tmp_path / "bad.ipynb")


# ---- values

WRONG = [
    ({"since": "foo"}, InvalidValue, "since='foo' is not a time"),
    ({"until": "2024-W10"}, InvalidValue, "until='2024-W10' is not a time"),
    ({"since": "0d"}, InvalidValue, "span of length 0"),
    ({"since": "2024-05-02", "until": "2024-05-01"}, InvalidValue, "ends before it begins"),
    ({"timezone": "Mars"}, InvalidValue, "no time zone 'Mars'"),
    ({"min_people": 0}, InvalidValue, "min_people must be a whole number"),
    ({"min_cell": "-3"}, InvalidValue, "min_cell must be a whole number"),
    ({"gap_minutes": 0}, InvalidValue, "gap_minutes must be more than 0"),
]
WRONG_HERE = [
    ({"user": "nobody"}, UnknownName, "No message has the user 'nobody'"),
    ({"since": "1d", "until": "2024-01-01"}, InvalidValue, "ends before it begins"),
    ({"generation": 99}, UnknownName, "Snapshot 99 is not kept"),
]


@pytest.mark.parametrize(
    ("given", "kind", "words"), WRONG + WRONG_HERE, ids=[str(w[0]) for w in WRONG + WRONG_HERE]
)
def test_a_wrong_value_stops_before_anything_runs(synced, monkeypatch, given, kind, words):
    monkeypatch.setattr(
        "aico_lab.reports.runner.run_notebook", lambda *_, **__: pytest.fail("it ran")
    )
    before = synced.reports.list()
    with pytest.raises(kind, match=words):
        synced.reports.run("pattern_analysis", given)
    assert synced.reports.list() == before


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_a_time_limit_that_cannot_be_meant_is_refused(synced, seconds):
    with pytest.raises(InvalidValue, match="timeout"):
        synced.reports.run("pattern_analysis", timeout=seconds)


def test_a_period_back_from_the_last_message_may_end_early(synced):
    """Back from today it would begin after its end."""
    assert synced.metrics.overview(since="9d", until="2024-05-02").finding


@pytest.mark.slow
def test_a_parameter_that_only_shares_a_filters_name_is_left_alone(synced, tmp_path):
    declared = 'since: int = 7  # days\ntimezone: str = "local"  # of the person'
    notebook = write_notebook(tmp_path / "n.ipynb", "since, timezone", parameters=declared)
    result = synced.reports.run(notebook, {"since": 3, "timezone": "local"})
    assert outputs(result.notebook).strip() == "(3, 'local')"


# ---- disks


@pytest.mark.slow
@LINUX
def test_a_full_disk_says_so_and_leaves_nothing_half(tmp_path, request):
    disk = tmp_path / "disk"
    mount(disk, "size=16m", request)
    loud = write_notebook(tmp_path / "loud.ipynb", "print('x' * 20_000_000)")
    with Lab.create(disk / "home", key_file=tmp_path / "key") as lab:
        add(lab.primary, *map(message, range(10)))
        lab.sync()
        with pytest.raises(DiskFull, match=r"The disk that holds .* is full: free some space\."):
            lab.reports.run(loud)
        (run,) = lab.reports.list()
        assert run.status == "failed"
        assert "full" in run.error
        assert list(lab.reports.page(run).parent.iterdir()) == []
        (disk / "filler").write_bytes(b"")
        with pytest.raises(OSError, match="space"), (disk / "filler").open("wb", 0) as filling:
            while True:
                filling.write(b"x" * 4096)
        with pytest.raises(DiskFull):
            lab.reports.run(loud)


# ---- killed runs

SECRET_CELL = "print('correct horse', 'battery')"
HELD = "sum(range(10 ** 12))"  # which holds the interpreter lock, so that no thread runs


@pytest.mark.slow
@LINUX
@pytest.mark.parametrize("moment", ["starting", "holding the interpreter lock"])
def test_a_report_that_is_killed_leaves_nothing(tmp_path, monkeypatch, moment):
    """Its kernel dies with it; the next start removes what it wrote, and says what became of it."""
    passphrase = "correct horse battery"
    monkeypatch.setenv("AICO_LAB_PASSPHRASE", passphrase)
    told = tmp_path / "told"
    notebook = write_notebook(
        tmp_path / "slow.ipynb", SECRET_CELL, f"open({str(told)!r}, 'w').close(); {HELD}"
    )
    home = tmp_path / "home"
    with Lab.create(home, protection="passphrase", passphrase=passphrase) as lab:
        add(lab.primary, message(1))
        lab.sync()
    running = subprocess.Popen(
        [sys.executable, "-m", "aico_lab", "report", "run", str(notebook), "--home", str(home)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_until(told.exists if moment != "starting" else lambda: kernels_of(home))
    with Lab.open(home) as lab:  # who comes while it runs leaves it alone
        assert [run.status for run in lab.reports.list()] == ["running"]
    if moment != "starting":
        assert passphrase in "".join(path.read_text() for path in executed(home))
    running.send_signal(signal.SIGKILL)
    assert running.wait(timeout=120) == -signal.SIGKILL
    wait_until(lambda: not kernels_of(home), seconds=10)
    assert executed(home) or moment == "starting"

    with Lab.open(home) as lab:
        _ = lab.primary  # any use of it is a start
        assert list((home / "reports").glob("*/*/.*")) == []
        assert executed(home) == []
        (run,) = lab.reports.list()
    assert (run.status, run.error) == ("interrupted", "It was interrupted.")
    assert run.finished_at > run.started_at


@pytest.mark.slow
@LINUX
def test_control_c_is_an_interruption_and_no_failure(synced, tmp_path):
    told = tmp_path / "told"
    notebook = write_notebook(
        tmp_path / "stopped.ipynb",
        f"open({str(told)!r}, 'w').close(); import time; time.sleep(600)",
    )
    running = subprocess.Popen(
        [*COMMAND, "run", str(notebook), *opened(synced)],
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(told.exists)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=120)
    assert running.returncode == 130
    assert "Traceback" not in said
    (run,) = synced.reports.list("stopped")
    assert run.status == "interrupted"
    assert list(synced.reports.page(run).parent.iterdir()) == []
    assert kernels_of(synced.home.path) == set()


def test_a_run_is_running_for_as_long_as_its_process_holds_it(lab, tmp_path):
    notebook = write_notebook(tmp_path / "n.ipynb", "1")

    def status():
        return [run.status for run in lab.reports.list()]

    facts = {"run_id": "one", "parameters": {}, "generation": 1}
    with recorded(lab.primary, lab.home, notebook, **facts) as folder:
        assert status() == ["running"]
        assert [path.name for path in folder.iterdir()] == [".running"]
    assert status() == ["succeeded"]
    assert list(folder.iterdir()) == []
    with (
        pytest.raises(NotebookFailed),
        recorded(lab.primary, lab.home, notebook, **facts | {"run_id": "two"}),
    ):
        raise NotebookFailed("it stopped")
    assert status() == ["failed", "succeeded"]


def test_a_run_that_cannot_be_recorded_leaves_no_folder(synced, tmp_path, monkeypatch):
    """The error says what keeps it, and what to do."""
    notebook = write_notebook(tmp_path / "unrecorded.ipynb", "1", parameters=None)
    monkeypatch.setattr(synced.primary, "busy_timeout", 0.2)
    with synced.storage.adapter.connect() as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(
            DatabaseLocked, match=r"another program has been writing.*run the report again"
        ):
            synced.reports.run(notebook)
        other.execute("ROLLBACK")
    assert not (synced.home.reports / "unrecorded").exists()
    assert synced.reports.list("unrecorded") == []


@pytest.mark.parametrize("error", [None, NotebookFailed("it stopped")])
def test_an_end_that_cannot_be_recorded_is_recorded_later(lab, tmp_path, monkeypatch, error):
    """Another program writes just then; the page is there, and the run is not interrupted."""
    notebook = write_notebook(tmp_path / "n.ipynb", "1")
    monkeypatch.setattr(lab.primary, "busy_timeout", 0.2)
    facts = {"run_id": "one", "parameters": {}, "generation": 1}
    with lab.storage.adapter.connect() as other:
        with (
            contextlib.nullcontext() if error is None else pytest.raises(NotebookFailed),
            recorded(lab.primary, lab.home, notebook, **facts) as folder,
        ):
            other.execute("BEGIN IMMEDIATE")
            if error is not None:
                raise error
        ended = datetime.now(UTC).isoformat()
        assert [run.status for run in lab.reports.list()] == ["running"]
        other.execute("ROLLBACK")
    (run,) = lab.reports.list()
    expected = ("succeeded", None) if error is None else ("failed", "it stopped")
    assert (run.status, run.error) == expected
    assert run.started_at <= run.finished_at <= ended
    assert list(folder.iterdir()) == []


@pytest.mark.slow
@LINUX
def test_a_run_that_is_killed_before_it_is_recorded_leaves_no_folder(synced, tmp_path):
    """For long: an empty folder of just now may be that of a run that is about to begin."""
    notebook = write_notebook(tmp_path / "unrecorded.ipynb", "1", parameters=None)
    with synced.storage.adapter.connect() as other:
        other.execute("BEGIN IMMEDIATE")
        waiting = subprocess.Popen(
            [*COMMAND, "run", str(notebook), *opened(synced)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        of_report = synced.home.reports / "unrecorded"
        wait_until(lambda: list(of_report.glob("*/.running")))
        (folder,) = of_report.iterdir()
        os.utime(folder, (1, 1))
        assert synced.reports.list("unrecorded") == []
        assert folder.exists(), "its process still waits"
        waiting.kill()
        waiting.wait(timeout=120)
        other.execute("ROLLBACK")
    own = of_report / "own" / "page.html"
    own.parent.mkdir()
    own.write_text("kept")
    for folder_ in of_report.iterdir():
        os.utime(folder_, (1, 1))
    (of_report / "young").mkdir()
    assert synced.reports.list("unrecorded") == []
    assert {path.name for path in of_report.iterdir()} == {"own", "young"}


@pytest.mark.slow
def test_runs_of_an_older_schema_are_kept_and_can_be_interrupted(lab, tmp_path):
    """Also those that were killed before there was a word for it, with the folder or without."""
    notebook = write_notebook(tmp_path / "n.ipynb", "1")
    facts = {"parameters": {"days": 1}, "generation": 1}
    with recorded(lab.primary, lab.home, notebook, run_id="done", **facts):
        pass
    before = lab.reports.list()
    CORE.rollback("operations", 1, lab.primary)
    for name in ("gone", "there"):
        lab.primary.execute(
            "INSERT INTO report_runs (run_id, report, parameters, generation, notebook_sha256, "
            "status, started_at) VALUES (?, 'n', '{}', 1, '', 'running', '2024-01-01')",
            [name],
        )
    left = lab.home.reports / "n" / "there" / ".run-1" / "work"
    left.mkdir(parents=True)
    lab.close()
    with Lab.open(lab.home.path, key_file=lab.storage.settings.key_file) as again:
        runs = {run.run_id: run for run in again.reports.list()}
        assert [runs["done"]] == before
        assert {runs[name].status for name in ("gone", "there")} == {"interrupted"}
        assert not left.parent.exists()
        CORE.rollback("operations", 1, again.primary)
        statuses = again.primary.fetch_all("SELECT DISTINCT status FROM report_runs ORDER BY 1")
        assert statuses == [("failed",), ("succeeded",)]


def opened(lab):
    return ["--home", str(lab.home.path), "--key-file", str(lab.storage.settings.key_file)]


COMMAND = [sys.executable, "-m", "aico_lab", "report"]


def executed(home):
    """What kernels have written and nobody has looked through yet."""
    return list((home / "reports").glob("*/*/.run-*/*.ipynb"))


def kernels_of(home):
    """Process ids of the kernels of a home's reports; each is told of its connection's file."""
    found = set()
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            try:
                said = (process / "cmdline").read_bytes().decode(errors="replace")
                state = (process / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if f"{home}/reports/" in said and "kernel" in said and state != "Z":
                found.add(int(process.name))
    return found


def wait_until(holds, seconds=120):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("names", [False, True])
def test_a_report_with_pseudonyms_holds_no_id(synced, tmp_path, names):
    declared = "user: str | None = None  # one person\nnames: bool = False  # names"
    notebook = write_notebook(tmp_path / "n.ipynb", "user is None, names", parameters=declared)
    (user,) = synced.sql("SELECT DISTINCT user_id FROM mart.messages LIMIT 1").fetchone()
    result = synced.reports.run(notebook, {"user": user, "names": names})
    assert outputs(result.notebook).strip() == f"(False, {names})"
    kept = json.loads(result.notebook.read_text(encoding="utf-8"))
    assert (kept["metadata"]["papermill"]["parameters"]["user"] == user) is names
    sources = ["".join(cell["source"]) for cell in kept["cells"]]
    assert any(f'user = "{user}"' in source for source in sources) is names
