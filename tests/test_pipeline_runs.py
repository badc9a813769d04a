"""Runs of pipelines: recorded, alone, retried, ended in time, cleared up."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest

from aico_lab.errors import (
    AicoLabError,
    DatabaseLocked,
    InvalidValue,
    NotebookFailed,
    PipelineBusy,
    PipelineChanged,
    ShellRefused,
    SourceMissing,
    StepFailed,
    StepTimedOut,
    UnknownName,
    WrongUse,
)
from aico_lab.lab import Lab
from aico_lab.pipeline import load_pipeline, records, run_pipeline, step_process, steps
from aico_lab.pipeline.definition import read_pipeline
from tests.messages import add, message
from tests.notebooks import write_notebook

SYNC = "[[steps]]\nrun = 'sync'\n"


def shell(command: str, more: str = "") -> str:
    return f'[[steps]]\nrun = "shell"\ncommand = """{command}"""\n{more}\n'


@pytest.fixture
def job(tmp_path):
    """Write a pipeline, and return its path as text."""

    def write(text: str, name: str = "job") -> str:
        path = tmp_path / f"{name}.toml"
        path.write_text(text)
        return str(path)

    return write


def statuses(run) -> list[str]:
    return [step.status for step in run.steps]


class Manual:
    """A clock that only its sleeping moves."""

    def __init__(self):
        self.at, self.pauses = 0.0, []

    def monotonic(self):
        return self.at

    def sleep(self, seconds):
        self.at += seconds
        self.pauses.append(seconds)


# Definition


def test_ids_retries_and_timeouts_of_steps(job):
    """An id is the kind and number where the file names none."""
    text = "[[steps]]\nrun = 'sync'\nid = 'bring'\nretries = 2\ntimeout = '1.5m'\n" + SYNC
    one, two = load_pipeline(job(text)).steps
    assert (one.id, one.retries, one.timeout, one.goes_on) == ("bring", 2, 90.0, False)
    assert (two.id, two.retries, two.timeout) == ("sync-2", 0, None)


WRONG = [
    ("[[steps]]\nrun = 'sync'\nid = 'sync-2'\n" + SYNC, InvalidValue, "Step 2 has the id"),
    (f"{SYNC}retries = 11", InvalidValue, "a number from 0 to 10"),
    (f"{SYNC}retries = -1", InvalidValue, "a number from 0 to 10"),
    (f"{SYNC}retries = true", InvalidValue, "a whole number"),
    (f"{SYNC}timeout = '10x'", InvalidValue, "Step 1 .*seconds, or text such as '10m'"),
    (f"{SYNC}timeout = true", InvalidValue, "seconds, or text such as '10m'"),
    (f"{SYNC}timeout = 0", InvalidValue, "at least 1 second"),
    (f"{SYNC}on_failure = 'go'", InvalidValue, "stop or continue"),
    (f'{SYNC}id = "a\\nb"', InvalidValue, "one line"),
    (f"{SYNC}keep = {{ count = 3 }}", UnknownName, "no option 'keep'"),
    (f"keep = {{ count = 0 }}\n{SYNC}", InvalidValue, "'count' .*1 or more"),
    (f"keep = {{ days = nan }}\n{SYNC}", InvalidValue, "'days' .*1 or more"),
    (f"keep = {{ weeks = 1 }}\n{SYNC}", UnknownName, "it has count and days"),
    (f"keep = 3\n{SYNC}", InvalidValue, "a table such as"),
    ("[[steps]]\nrun = 'export'\npath = 'x.csv'", InvalidValue, "'query' or 'table'"),
    ("[[steps]]\nrun = 'export'\ntable = 'messages'", InvalidValue, "needs 'path'"),
    ("[[steps]]\nrun = 'export'\ntable = 'm'\npath = 'x.xls'", InvalidValue, "does not end in"),
    ("[[steps]]\nrun = 'shell'\ncommand = 1", InvalidValue, "text or a list of words"),
    ("[[steps]]\nrun = 'shell'", InvalidValue, "needs 'command'"),
    ("[[steps]]\nrun = 'index'\npause = 0", InvalidValue, "pause must be a number"),
    (
        "[[steps]]\nrun = 'report'\nname = 'pattern_analysis'\non_unchanged = 'no'",
        InvalidValue,
        "run or skip",
    ),
    (f"notify = 1\n{SYNC}", InvalidValue, "a table with urls"),
    (f"{SYNC}[notify]\non = ['failure']", InvalidValue, "needs 'urls' or 'urls_file'"),
    (f"{SYNC}[notify]\nurl = 'json://secret'", UnknownName, "did you mean urls"),
    (f"{SYNC}[notify]\nurls = ['json://x']\non = ['end']", UnknownName, "failure, recovery"),
]


@pytest.mark.parametrize(("text", "kind", "words"), WRONG, ids=[w[0] for w in WRONG])
def test_a_fault_is_found_before_anything_runs(job, text, kind, words):
    """One sentence each."""
    with pytest.raises(kind, match=words):
        load_pipeline(job(text))


def test_a_home_has_pipelines_of_its_own(cli, lab):
    """Found by their names, before those of the package; a broken one hides no other."""
    folder = lab.home.path / "pipelines"
    folder.mkdir()
    (folder / "nightly.toml").write_text(f"description = 'ours'\n{SYNC}")
    (folder / "broken.toml").write_text("[[steps")
    assert load_pipeline("nightly", lab.home).origin == "home"
    assert load_pipeline("nightly").origin == "package"
    assert load_pipeline(str(folder / "nightly.toml"), lab.home).origin == "home"
    lines = {line.split()[0]: line for line in cli("pipeline", "list").stdout.splitlines()}
    assert "home     ours" in lines["nightly"]
    assert "package" in lines["weekly"]
    assert "broken: " in lines["broken"]
    told = json.loads(cli("pipeline", "list", "--json").stdout)
    assert told["nightly"]["from"] == "home"
    assert told["nightly"]["steps"] == [{"run": "sync", "id": "sync-1"}]


def test_the_old_name_of_a_shipped_pipeline_says_the_new_one(lab):
    """Unless the home has a pipeline of that name."""
    with pytest.raises(UnknownName, match=r"daily is nightly now: run `aico-lab pipeline run"):
        load_pipeline("daily", lab.home)


# Check


def test_check_names_every_fault_at_once(cli, lab, job):
    """A line for each step; faults of options, of files, of the shell, of notices."""
    lab.sync()
    text = (
        "[[steps]]\nrun = 'import'\nsource = 'jsonl'\npath = 'none.jsonl'\n"
        "[[steps]]\nrun = 'sync'\nfulll = true\non_change = 7\n"
        "[[steps]]\nrun = 'export'\nquery = 'FROM nowhere'\npath = 'x.csv'\n"
        + shell("true")
        + SYNC
        + "[notify]\nurls_file = 'none.txt'\n"
    )
    told = cli("pipeline", "check", job(text))
    assert told.returncode == 1
    marks = [line[:8].split() for line in told.stdout.splitlines() if line[:4].strip()]
    assert marks == [
        ["FAIL"], ["FAIL", "1"], ["FAIL", "2"], ["FAIL", "3"], ["FAIL", "4"], ["ok", "5"],
    ]  # fmt: skip
    for words in (
        "none.jsonl does not exist", "no option 'fulll'", "'on_change' of step 2", "nowhere",
        "add --allow-shell",
    ):  # fmt: skip
        assert words in told.stdout
    assert lab.pipelines.runs() == []  # nothing was run

    good = job(shell("true") + SYNC)
    assert cli("pipeline", "check", good, "--allow-shell").returncode == 0
    assert cli("pipeline", "check", good).returncode == 1
    checks = json.loads(cli("pipeline", "check", good, "--json").stdout)
    assert [one["id"] for one in checks] == ["file", "shell-1", "sync-2"]


def test_a_file_that_is_no_toml_is_one_fault(lab, job):
    (check,) = lab.pipelines.check(job("[[steps"))
    assert "not valid TOML" in check.faults[0]


def test_an_export_of_a_table_that_a_load_makes_is_no_fault(lab, job, tmp_path):
    """Nor one before the first sync; but a file within the home is one."""
    export = "[[steps]]\nrun = 'export'\ntable = 'shop.orders'\npath = 'x.csv'\n"
    (tmp_path / "shop.db").touch()
    load = "[[steps]]\nrun = 'load'\npath = 'shop.db'\ntable = 'orders'\n"
    assert not any(one.faults for one in lab.pipelines.check(job(SYNC + export)))
    assert not lab.pipelines.check(job(load + export))[2].faults
    lab.sync()
    assert lab.pipelines.check(job(SYNC + export))[2].faults
    inside = export.replace("x.csv", str(lab.home.path / "x.csv"))
    assert "inside the home" in lab.pipelines.check(job(load + inside))[2].faults[0]


# Runs


def test_a_run_is_recorded_with_its_steps_and_outputs(lab, job, tmp_path):
    """And found by its id or the name of its pipeline, in Python as on the command line."""
    add(lab.primary, message(0), message(1))
    text = SYNC + "[[steps]]\nrun = 'verify'\n"
    text += "[[steps]]\nrun = 'export'\nquery = 'SELECT content FROM conversations'\npath = 'x.csv'"
    run = lab.pipelines.run(job(text))
    assert (run.status, statuses(run)) == ("ok", ["ok", "ok", "ok"])
    assert [step.tries for step in run.steps] == [1, 1, 1]
    assert set(run.versions) == {"aico-lab", "python", "duckdb"}
    (output,) = run.outputs
    assert (output.step, output.path) == ("export-3", str(tmp_path / "x.csv"))
    assert len((tmp_path / "x.csv").read_text().splitlines()) == 3
    assert [run] == lab.pipelines.runs() == [lab.pipelines.show("job")]
    assert lab.pipelines.show(run.run_id) == run
    with pytest.raises(UnknownName, match="no run of 'jobb': did you mean job"):
        lab.pipelines.show("jobb")
    assert lab.sync().mode == "nothing"  # a run leaves nothing to sync


@pytest.mark.usefixtures("lab")
def test_runs_and_one_run_on_the_command_line(cli, job):
    """As text and as JSON."""
    file = job(SYNC + shell("exit 3"))
    assert cli("pipeline", "run", file, "--allow-shell").returncode == 1
    listed = cli("pipeline", "runs").stdout.splitlines()
    assert len(listed) == 1
    assert "failed       job  1 of 2 steps" in listed[0]
    shown = cli("pipeline", "show", "job").stdout
    assert "Step 2 (shell): the command ended with exit code 3." in shown
    assert "step       sync-1: ok in " in shown
    cli("pipeline", "run", job(SYNC))
    told = json.loads(cli("pipeline", "runs", "--json", "--limit", "1").stdout)
    assert [run["status"] for run in told] == ["ok"]
    assert json.loads(cli("pipeline", "show", "job", "--json").stdout)["status"] == "ok"
    assert cli("pipeline", "runs", "--limit", "0").returncode == 2


@pytest.mark.usefixtures("lab")
def test_every_step_that_failed_is_told(cli, job):
    """Each error once, since that of the first is also the error of the run."""
    both = shell("exit 3", "on_failure = 'continue'") + shell("exit 4", "on_failure = 'continue'")
    told = cli("pipeline", "run", job(both), "--allow-shell")
    assert len(re.findall(r"shell +failed in", told.stdout)) == 2
    for number, code in ((1, 3), (2, 4)):
        said = f"Step {number} (shell): the command ended with exit code {code}."
        assert told.stderr.count(said) == 1


def test_a_failure_stops_the_run_or_lets_the_others_run(lab, job):
    """In both cases the run failed."""
    with pytest.raises(StepFailed, match=r"^Step 1 \(shell\)"):
        lab.pipelines.run(job(shell("exit 1") + SYNC), allow_shell=True)
    assert statuses(lab.pipelines.show("job")) == ["failed", "waiting"]
    text = shell("exit 1", "id = 'mine'\non_failure = 'continue'") + SYNC
    with pytest.raises(StepFailed, match=r"^Step 1 \(mine\)"):
        lab.pipelines.run(job(text), allow_shell=True)
    run = lab.pipelines.show("job")
    assert (run.status, statuses(run)) == ("failed", ["failed", "ok"])
    assert run.error == run.steps[0].error == "Step 1 (mine): the command ended with exit code 1."


def test_what_is_wrong_before_the_first_step_is_recorded_too(lab, job):
    """Also a fault of the file, since nobody sees the terminal of a timer."""
    with pytest.raises(SourceMissing):
        lab.pipelines.run(job("[[steps]]\nrun = 'import'\nsource = 'jsonl'\npath = 'no.jsonl'"))
    with pytest.raises(WrongUse):
        lab.pipelines.run(job(f"{SYNC}fulll = true"))
    with pytest.raises(WrongUse):
        lab.pipelines.run(job("[[steps"))
    runs = lab.pipelines.runs()
    assert [run.status for run in runs] == ["failed"] * 3
    assert ["TOML" in runs[0].error, "fulll" in runs[1].error] == [True, True]


def test_a_missing_file_stops_no_other_step_if_its_own_goes_on(lab, job):
    """As an inbox on a disk that is not there: the step fails, the others are run."""
    text = "[[steps]]\nrun = 'import'\npath = 'inbox'\non_failure = 'continue'\n" + SYNC
    with pytest.raises(SourceMissing, match=r"^Step 1 \(import\): the file .*inbox does not exist"):
        lab.pipelines.run(job(text))
    assert statuses(lab.pipelines.show("job")) == ["failed", "ok"]
    with pytest.raises(WrongUse):  # while a fault of the file stops all
        lab.pipelines.run(job(text.replace("path", "pathh")))
    assert statuses(lab.pipelines.show("job")) == ["waiting", "waiting"]


def test_an_unforeseen_error_is_recorded_without_its_text(lab, job, monkeypatch):
    """Which may quote a message."""

    def fail(*_, **__):
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(Lab, "sync", fail)
    with pytest.raises(ZeroDivisionError):
        lab.pipelines.run(job(SYNC))
    run = lab.pipelines.show("job")
    assert (run.status, run.error, run.steps[0].error) == ("failed", *["ZeroDivisionError"] * 2)


def test_control_c_is_an_interruption(lab, job, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Lab, "sync", stop)
    with pytest.raises(KeyboardInterrupt):
        lab.pipelines.run(job(SYNC))
    assert lab.pipelines.show("job").status == "interrupted"


def test_a_snapshot_that_differs_fails_its_proof(lab, job):
    """The sentence names the table."""
    add(lab.primary, message(0))
    lab.sync()
    lab.primary.execute("DROP TRIGGER feed_messages_update")
    lab.primary.execute("UPDATE messages SET content = 'other'")
    with pytest.raises(StepFailed, match=r"\(verify\): snapshot 1 differs .* in .*messages"):
        lab.pipelines.run(job("[[steps]]\nrun = 'verify'"))


@pytest.mark.slow
def test_an_index_step_makes_segments_that_a_sync_publishes(lab, job):
    """With the options of the command."""
    add(lab.primary, message(0), message(1))
    run = lab.pipelines.run(job(f"[[steps]]\nrun = 'index'\npause = 900\n{SYNC}"))
    assert run.status == "ok"
    assert lab.sql("SELECT count(*) > 0 FROM raw.conversation_segments").fetchall() == [(True,)]


# Retries


@pytest.mark.parametrize(("failures", "tries"), [(0, 1), (2, 3), (9, 4)])
def test_errors_that_may_pass_are_tried_again(lab, job, monkeypatch, failures, tries):
    """After 1 s, 2 s, 4 s; so often and no more."""
    left = [DatabaseLocked("It is locked.")] * failures

    def sync(self, **_):
        if left:
            raise left.pop()
        return real(self)

    real = Lab.sync
    monkeypatch.setattr(Lab, "sync", sync)
    clock, pipeline = Manual(), load_pipeline(job(f"{SYNC}retries = 3"))
    if failures > 3:
        with pytest.raises(DatabaseLocked):
            run_pipeline(lab, pipeline, clock=clock)
    else:
        run_pipeline(lab, pipeline, clock=clock)
    (step,) = lab.pipelines.show("job").steps
    assert step.tries == tries
    assert clock.pauses == [1.0, 2.0, 4.0][: tries - 1]
    assert step.seconds == sum(clock.pauses)


def test_other_errors_are_not_tried_again(lab, job):
    clock = Manual()
    pipeline = load_pipeline(job(shell("exit 1", "retries = 3")))
    with pytest.raises(StepFailed):
        run_pipeline(lab, pipeline, allow_shell=True, clock=clock)
    assert (lab.pipelines.show("job").steps[0].tries, clock.pauses) == (1, [])


def test_no_pause_goes_beyond_the_timeout(lab, job, monkeypatch):
    monkeypatch.setattr(
        "aico_lab.pipeline.running._Running._attempt",
        lambda *_: (_ for _ in ()).throw(DatabaseLocked("It is locked.")),
    )
    clock = Manual()
    with pytest.raises(DatabaseLocked):
        run_pipeline(lab, load_pipeline(job(f"{SYNC}retries = 9\ntimeout = 5")), clock=clock)
    assert clock.pauses == [1.0, 2.0]


def test_a_run_is_continued_at_the_step_that_failed(lab, cli, job, tmp_path):
    """With the same file only."""
    text = shell("echo x >> first") + shell("test -e allowed") + SYNC
    with pytest.raises(StepFailed):
        lab.pipelines.run(job(text), allow_shell=True)
    failed = lab.pipelines.show("job")
    (tmp_path / "allowed").touch()
    with pytest.raises(ShellRefused):
        lab.pipelines.retry(failed.run_id)
    run = lab.pipelines.retry(failed.run_id, allow_shell=True)
    assert (run.retry_of, run.status) == (failed.run_id, "ok")
    assert statuses(run) == ["kept", "ok", "ok"]
    assert (tmp_path / "first").read_text() == "x\n"
    told = cli("pipeline", "retry", "job")
    assert (told.returncode, "succeeded" in told.stderr) == (2, True)
    job(text + SYNC)
    with pytest.raises(PipelineChanged, match="has changed since"):
        lab.pipelines.retry(failed.run_id)


# The shell


def test_a_command_is_refused_unless_a_person_allows_it(cli, lab, job, tmp_path):
    """Before the first step."""
    file = job(SYNC + shell("touch made"))
    told = cli("pipeline", "run", file)
    assert (told.returncode, "--allow-shell" in told.stderr) == (2, True)
    assert statuses(lab.pipelines.show("job")) == ["waiting", "waiting"]
    assert not (tmp_path / "made").exists()
    assert cli("pipeline", "run", file, "--allow-shell").returncode == 0
    assert (tmp_path / "made").exists()  # in the folder of the file


def test_a_command_finds_the_home_and_leaves_stdout_alone(cli, lab, job):
    """Stdout is one JSON value."""
    told = cli("pipeline", "run", job(shell("echo $AICO_LAB_HOME")), "--allow-shell", "--json")
    assert str(lab.home.path) in told.stderr
    assert json.loads(told.stdout)[0]["ok"] is True
    words = "[[steps]]\nrun = 'shell'\ncommand = ['no-such-program']"
    told = cli("pipeline", "run", job(words), "--allow-shell")
    assert "the command did not start (No such file or directory)" in told.stderr


# Timeouts


def test_a_command_is_ended_with_its_own_processes(lab, job, tmp_path, monkeypatch):
    """Also one that ignores SIGTERM."""
    monkeypatch.setattr(steps, "GRACE", 0.2)
    text = shell("trap '' TERM; sleep 600 & echo $! > pid; wait; sleep 600", "timeout = 1")
    began = time.monotonic()
    with pytest.raises(StepTimedOut, match=r"Step 1 \(shell\): the command was ended after"):
        lab.pipelines.run(job(text), allow_shell=True)
    assert time.monotonic() - began < 300
    assert not alive(int((tmp_path / "pid").read_text()))


def alive(process: int) -> bool:
    """Return whether a process lives; the end of one that was killed may take a moment."""
    for _ in range(100):
        try:
            if Path(f"/proc/{process}/stat").read_text().split()[2] in {"Z", "X"}:
                return False
        except (FileNotFoundError, ProcessLookupError):
            return False
        time.sleep(0.05)
    return True


START = step_process._START

SLOW_SYNC = """
import time
from aico_lab.etl import sync

def wait(*_, **__):
    PROCESS.write_text(str(__import__("os").getpid()))
    time.sleep(60)

sync._up_to_date = wait
"""


@pytest.fixture
def hanging(tmp_path, monkeypatch):
    """Make a sync hang in the process of its step, and return the file with its id."""
    site, file = tmp_path / "site", tmp_path / "process"
    site.mkdir()
    text = f"from pathlib import Path\nPROCESS = Path({str(file)!r})\n{SLOW_SYNC}"
    (site / "slow_sync.py").write_text(text)
    start = START.replace("main(Lab.open)", "import slow_sync; main(Lab.open)")
    monkeypatch.setattr(step_process, "_START", start)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), *filter(None, sys.path)]))
    return file


@pytest.mark.slow
def test_a_step_that_hangs_is_ended(lab, job, hanging, monkeypatch):
    """The home is as before, and the next run works."""
    add(lab.primary, message(0))
    pipeline = job(f"{SYNC}timeout = 16")
    with pytest.raises(StepTimedOut, match=r"Step 1 \(sync\): it was ended, since it exceeded"):
        lab.pipelines.run(pipeline)
    assert not alive(int(hanging.read_text()))
    monkeypatch.setattr(step_process, "_START", START)
    assert lab.pipelines.retry("job").status == "ok"
    assert lab.sql("SELECT count(*) FROM conversations").fetchall() == [(1,)]


@pytest.mark.slow
def test_a_step_with_a_timeout_tells_its_result_and_its_error(lab, job, tmp_path):
    """As one without, though it has a process of its own; what libraries print is not mixed in."""
    add(lab.primary, message(0))
    results = run_pipeline(lab, load_pipeline(job(f"{SYNC}timeout = '5m'")))
    assert results[0].result.rows["messages"] == 1
    (tmp_path / "m.json").write_text('{"a": 1}')
    text = "[[steps]]\nrun = 'import'\nsource = 'chatgpt'\npath = 'm.json'\ntimeout = 300"
    with pytest.raises(AicoLabError, match=r"^Step 1 \(import\): .*not in the format chatgpt"):
        lab.pipelines.run(job(text))


# One at a time, and killed processes


HOLD = """
import sys
from aico_lab.lab import Lab
with Lab.open(sys.argv[1]) as lab:
    lab.pipelines.run(sys.argv[2], allow_shell=True)
"""


@pytest.mark.slow
def test_a_pipeline_runs_once_at_a_time_and_a_killed_one_leaves_nothing(lab, cli, job, tmp_path):
    """The second start has an exit code of its own; a killed run is interrupted."""
    file = job(shell("touch began; sleep 60"))
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(lab.home.path), file])
    try:
        while not (tmp_path / "began").exists():
            assert process.poll() is None
            time.sleep(0.05)
        told = cli("pipeline", "run", file, "--allow-shell")
        assert told.returncode == PipelineBusy.exit_code == 75
        assert f"is running already (process {process.pid}" in told.stderr
        assert [run.status for run in lab.pipelines.runs()] == ["running"]
        with pytest.raises(PipelineBusy, match="has not ended yet"):
            lab.pipelines.retry("job")
        other = lab.pipelines.run(job(SYNC, "other"))  # another pipeline runs beside it
        assert other.status == "ok"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    file = job(shell("true"))
    assert cli("pipeline", "run", file, "--allow-shell").returncode == 0
    assert [run.status for run in lab.pipelines.runs()] == ["ok", "ok", "interrupted"]


def test_two_files_of_one_name_are_two_pipelines(lab, job, tmp_path):
    """Told apart by their folders."""
    (tmp_path / "x").mkdir()
    one, two = job(SYNC), tmp_path / "x" / "job.toml"
    two.write_text(SYNC)
    lab.pipelines.run(one)
    lab.pipelines.run(two)
    assert {run.origin for run in lab.pipelines.runs()} == {one, str(two)}


# Reports: unchanged ones, partial ones, old ones


@pytest.fixture
def reported(lab, job, tmp_path, monkeypatch):
    """Run a pipeline with a report that is made without a kernel, and return the run."""

    def made(notebook, *, destination, **_):
        from aico_lab.reports.runner import RunResult

        file = destination / notebook.name
        if (tmp_path / "broken").exists():
            file.write_text("partial")
            error = NotebookFailed("It stopped.")
            error.notebook = file
            raise error
        file.write_text("{}")
        file.with_suffix(".html").write_text(str(destination))
        return RunResult(file, file.with_suffix(".html"), 0.0)

    monkeypatch.setattr("aico_lab.reports.runner.run_notebook", made)
    add(lab.primary, message(0))
    lab.sync()
    write_notebook(tmp_path / "own.ipynb", "1", parameters="days: int = 1")

    def run(options: str = "", head: str = ""):
        text = f"{head}\n[[steps]]\nrun = 'report'\nname = 'own.ipynb'\n{options}"
        return lab.pipelines.run(job(text))

    return run


def folders(lab) -> set[str]:
    return {path.name for path in lab.home.reports.glob("own/*")}


def folder_of(run) -> str:
    return Path(run.outputs[0].path).parent.name


def test_a_report_is_skipped_only_if_nothing_is_new(lab, reported, tmp_path):
    """Not after a sync with changes, other parameters, a changed notebook, or a removed page."""
    skip = "on_unchanged = 'skip'\n"
    reported()
    first = folder_of(reported(skip))
    assert folder_of(reported(skip)) == first
    assert folder_of(reported()) != first
    newest = folder_of(reported(skip))
    assert folder_of(reported(f"{skip}parameters = {{ days = 2 }}")) != newest
    assert folder_of(reported(skip)) == newest
    write_notebook(tmp_path / "own.ipynb", "2", parameters="days: int = 1")
    changed = folder_of(reported(skip))
    assert changed not in (first, newest)
    add(lab.primary, message(1))
    lab.sync()
    synced = reported(skip)
    assert folder_of(synced) != changed
    (lab.home.path / synced.outputs[0].path).unlink()
    assert folder_of(reported(skip)) != folder_of(synced)


def test_a_report_is_made_anew_by_another_version(lab, reported):
    """Which may write another page; and where none is known to be of this one."""
    skip = "on_unchanged = 'skip'\n"
    first = folder_of(reported(skip))
    assert folder_of(reported(skip)) == first
    lab.primary.execute("UPDATE pipeline_runs SET versions = '{}'")
    assert folder_of(reported(skip)) != first


def test_the_timeout_of_a_report_is_that_of_its_step(lab, reported, monkeypatch):
    """Or the usual one."""
    given = []
    real = type(lab.reports).run

    def run(self, *arguments, timeout, **options):
        given.append(timeout)
        return real(self, *arguments, timeout=timeout, **options)

    monkeypatch.setattr(type(lab.reports), "run", run)
    reported("timeout = '2m'")
    reported()
    assert 119 < given[0] <= 120
    assert given[1] == 600


def test_reports_beyond_the_count_are_removed(lab, reported, tmp_path):
    """But not those of another pipeline; the record counts them."""
    lab.reports.run(str(tmp_path / "own.ipynb"))
    others = folders(lab)
    runs = [reported(head="keep = { count = 2 }") for _ in range(4)]
    assert [run.removed for run in runs] == [0, 0, 1, 1]
    assert folders(lab) - others == {folder_of(run) for run in runs[2:]}
    index = (lab.home.reports / "index.html").read_text(encoding="utf-8")
    assert [index.count(f'href="./own/{folder_of(run)}/') for run in runs] == [0, 0, 1, 1]
    assert lab.pipelines.show("job").removed == 1


def test_reports_of_a_step_that_was_renamed_are_removed_too(lab, reported):
    """As by a step that was put before it, since ids have the number of the step."""
    for _ in range(2):
        reported(head="keep = { count = 2 }")
    later = [reported("id = 'other'", head="keep = { count = 2 }") for _ in range(2)]
    assert [run.removed for run in later] == [1, 1]
    assert folders(lab) == {folder_of(run) for run in later}


def test_a_step_may_keep_longer_than_its_pipeline(lab, reported):
    for _ in range(3):
        reported("keep = { count = 2 }", head="keep = { count = 1 }")
    assert len(folders(lab)) == 2


def test_reports_beyond_the_age_are_removed_but_never_the_last_good_one(lab, reported, tmp_path):
    """Nor one that the last run did not make anew; and nothing after a failure."""
    skip, head = "on_unchanged = 'skip'\n", "keep = { days = 30 }"
    first = reported(skip, head)
    age(lab, days=40)
    again = reported(skip, head)
    assert (again.removed, folder_of(again)) == (0, folder_of(first))
    age(lab, days=40)
    (tmp_path / "broken").touch()
    with pytest.raises(NotebookFailed):
        reported("", head)
    assert folder_of(first) in folders(lab)
    failed = lab.pipelines.show("job")
    assert Path(failed.outputs[0].path).name == "own.ipynb"  # the partial notebook
    (tmp_path / "broken").unlink()
    last = reported("", head)
    assert last.removed == 1
    assert folders(lab) == {folder_of(failed), folder_of(last)}


def age(lab, *, days: int) -> None:
    """Move all runs back in time."""
    lab.primary.execute(
        "UPDATE pipeline_runs SET started_at = strftime('%Y-%m-%dT%H:%M:%f', started_at, ?) || "
        "'000Z'",
        [f"-{timedelta(days=days).days} days"],
    )


def test_a_folder_outside_the_reports_is_never_removed(lab, reported, tmp_path):
    """Whatever a record says."""
    reported(head="keep = { count = 1 }")
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "x.html").touch()
    forged = json.dumps([{"step": "report-1", "path": f"{tmp_path}/precious/x.html", "sha256": ""}])
    lab.primary.execute("UPDATE pipeline_runs SET outputs = ?", [forged])
    for _ in range(2):
        reported(head="keep = { count = 1 }")
    assert (tmp_path / "precious" / "x.html").exists()


def test_runs_whose_reports_are_gone_are_not_read(lab, reported, monkeypatch):
    """A year of runs every quarter of an hour is 35,000."""
    for _ in range(3):
        reported(head="keep = { count = 1 }")
    lab.primary.execute(
        "INSERT INTO pipeline_runs SELECT replace(hex(randomblob(8)), 'A', 'b'), pipeline, origin, "
        "file_sha256, status, '2020' || substr(started_at, 5), finished_at, error, steps, "
        "replace(outputs, 'own/', 'own/x'), warnings, versions, 0, NULL, NULL "
        "FROM pipeline_runs, json_each('[1, 2, 3, 4, 5, 6, 7, 8, 9]')"
    )
    read, real = [], records._run
    monkeypatch.setattr(records, "_run", lambda row: read.append(row) or real(row))
    assert reported(head="keep = { count = 1 }").removed == 1
    assert len(read) <= 4


def test_addresses_of_notices_are_never_shown(lab, cli, job):
    """Neither of a pipeline in Python nor on the command line."""
    file = job(f"{SYNC}[notify]\nurls = ['json://user:SECRET@localhost']")
    assert "SECRET" not in repr(read_pipeline(file))
    (lab.home.path / "pipelines").mkdir()
    (lab.home.path / "pipelines" / "mine.toml").write_text(Path(file).read_text())
    for call in (["list"], ["list", "--json"], ["check", "mine"], ["check", "mine", "--json"]):
        told = cli("pipeline", *call)
        assert "SECRET" not in told.stdout + told.stderr
