"""Pipelines: checked whole before they run, and stopped by the first failure."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from aico_lab.errors import InvalidValue, SourceUnreadable, SyncError, UnknownName, WrongUse
from aico_lab.pipeline import load_pipeline, run_pipeline
from aico_lab.shipped import shipped
from tests.messages import add, message
from tests.notebooks import write_notebook

MESSAGE = '{"content": "hello", "timestamp": "2024-05-01T10:00:00Z"}\n'


def write(folder, text):
    path = folder / "job.toml"
    path.write_text(text)
    return str(path)


def test_the_shipped_pipelines_are_sound():
    """Each can be loaded, and says what it is for."""
    assert "nightly" in shipped("pipelines", ".toml")
    for name in shipped("pipelines", ".toml"):
        pipeline = load_pipeline(name)
        assert pipeline.description
        assert pipeline.steps


def test_the_steps_of_a_file_are_run_in_order(lab, tmp_path):
    """Paths are relative to the file, not to where it is called from."""
    (tmp_path / "m.jsonl").write_text(MESSAGE)
    file = write(
        tmp_path,
        "[[steps]]\nrun = 'import'\nsource = 'jsonl'\npath = 'm.jsonl'\n[[steps]]\nrun = 'sync'\n",
    )
    told = []
    results = run_pipeline(lab, load_pipeline(file), on_step=lambda *step: told.append(step))
    assert [result.run for result in results] == ["import", "sync"]
    assert told == [("job: import", 0, 2), ("job: sync", 1, 2), ("job", 2, 2)]
    assert lab.sql("SELECT content FROM conversations").fetchall() == [("hello",)]


def test_an_import_step_may_replace_what_is_there(lab, tmp_path):
    """As the command's option does."""
    step = "[[steps]]\nrun = 'import'\nsource = 'jsonl'\npath = 'm.jsonl'\n"
    fields = json.loads(MESSAGE) | {"message_id": "1", "conversation_id": "c"}
    for text, options in [("one", ""), ("two", ""), ("three", "on_conflict = 'replace'")]:
        (tmp_path / "m.jsonl").write_text(json.dumps(fields | {"content": text}))
        run_pipeline(lab, load_pipeline(write(tmp_path, step + options)))
    assert lab.primary.fetch_all("SELECT content FROM messages") == [("three",)]


def test_a_failing_step_ends_the_pipeline(lab, tmp_path):
    """What came before it stays; what comes after is not run."""
    (tmp_path / "m.jsonl").write_text(MESSAGE)
    (tmp_path / "x.json").write_text('{"a": 1}')
    file = write(
        tmp_path,
        "[[steps]]\nrun = 'import'\nsource = 'jsonl'\npath = 'm.jsonl'\n"
        "[[steps]]\nrun = 'import'\nsource = 'chatgpt'\npath = 'x.json'\n"
        "[[steps]]\nrun = 'sync'\n",
    )
    done = []
    with pytest.raises(SourceUnreadable, match=r"^Step 2 .* is not in the format chatgpt"):
        run_pipeline(lab, load_pipeline(file), on_result=done.append)
    assert [step.run for step in done] == ["import"]


@pytest.mark.parametrize(
    "missing", ["run = 'import'\nsource = 'jsonl'", "run = 'load'\ntable = 't'"]
)
@pytest.mark.usefixtures("lab")
def test_a_file_that_is_missing_shows_before_the_first_step(cli, tmp_path, missing):
    """However late it is read."""
    file = write(tmp_path, f"[[steps]]\nrun = 'sync'\n[[steps]]\n{missing}\npath = 'no.file'")
    told = cli("pipeline", "run", file)
    assert (told.returncode, told.stdout) == (1, "")
    assert "Step 2" in told.stderr
    assert "no.file does not exist; check its name" in told.stderr


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ("table = 'order'", "no table 'order': did you mean orders"),
        ("table = 'orders'\nkey = ['idd']", "no column 'idd'"),
        ("table = 'orders'\nwatermark = 'at'", "no column 'at'"),
    ],
)
def test_a_table_or_column_that_is_missing_shows_before_the_first_step(lab, tmp_path, named, words):
    """With the step that names it."""
    with closing(sqlite3.connect(tmp_path / "shop.db")) as shop, shop:
        shop.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY)")
    steps = f"[[steps]]\nrun = 'sync'\n[[steps]]\nrun = 'load'\npath = 'shop.db'\n{named}"
    done = []
    with pytest.raises(UnknownName, match=rf"^Step 2 \(load\): .*{words}"):
        run_pipeline(lab, load_pipeline(write(tmp_path, steps)), on_result=done.append)
    assert done == []


UNSUITED = [
    ("load", "path = '.'\ntable = 'orders'", SourceUnreadable, "is a folder"),
    ("import", "path = '.'\nsource = 'jsonl'", SourceUnreadable, "is a folder"),
    ("import", "path = '.'\nsource = 'csv'", SourceUnreadable, "is a folder"),
    (
        "load",
        "path = 'shop.db'\ntable = 'orders'\nwatermark = 'name'",
        InvalidValue,
        "neither numbers nor times",
    ),
    (
        "load",
        "path = 'shop.db'\ntable = 'orders'\nkey = ['name']",
        InvalidValue,
        "Several rows of orders have the same name",
    ),
    (
        "report",
        "name = 'pattern_analysis'\nparameters = { generation = 99 }",
        UnknownName,
        "Snapshot 99 is not kept",
    ),
]


@pytest.mark.parametrize("case", UNSUITED)
def test_what_does_not_suit_a_step_shows_before_the_first_step(lab, tmp_path, case):
    """Though only the file or the home can tell."""
    run, options, kind, words = case
    with closing(sqlite3.connect(tmp_path / "shop.db")) as shop, shop:
        shop.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, name TEXT)")
        shop.execute("INSERT INTO orders (name) VALUES ('a'), ('a')")
    lab.sync()
    steps = f"[[steps]]\nrun = 'sync'\n[[steps]]\nrun = '{run}'\n{options}"
    done = []
    with pytest.raises(kind, match=rf"^Step 2 \({run}\): .*{words}"):
        run_pipeline(lab, load_pipeline(write(tmp_path, steps)), on_result=done.append)
    assert done == []


@pytest.mark.parametrize("step", ["run = 'sync'", "run = 'load'\npath = 'x.db'\ntable = 'x'"])
def test_a_snapshot_that_an_earlier_step_publishes_can_be_named(lab, tmp_path, step):
    """It is not there yet when the pipeline is checked."""
    with closing(sqlite3.connect(tmp_path / "x.db")) as other, other:
        other.execute("CREATE TABLE x (id INTEGER PRIMARY KEY)")
        other.execute("INSERT INTO x VALUES (1)")
    lab.sync()
    add(lab.primary, message(0))
    write_notebook(tmp_path / "own.ipynb", "x = 1", parameters="generation: int = 0")
    number = lab.generation + 1
    report = f"run = 'report'\nname = 'own.ipynb'\nparameters = {{ generation = {number} }}"
    steps = f"[[steps]]\n{step}\n[[steps]]\n{report}"
    assert len(run_pipeline(lab, load_pipeline(write(tmp_path, steps)))) == 2


def test_a_sync_that_finds_damage_fails(lab, tmp_path):
    """Until a person has acknowledged it."""
    add(lab.primary, message(0))
    lab.sync()
    for event in ("insert", "update", "delete"):
        lab.primary.execute(f"DROP TRIGGER feed_messages_{event}")
    lab.primary.execute("UPDATE messages SET content = CAST(x'ff' AS TEXT)")
    job = load_pipeline(write(tmp_path, "[[steps]]\nrun = 'sync'\nfull = true"))
    for _ in range(2):
        with pytest.raises(SyncError, match=r"^Step 1 \(sync\): 1 rows of messages no longer fit"):
            run_pipeline(lab, job)
    lab.sync(acknowledge=True)
    run_pipeline(lab, job)


LOAD = "[[steps]]\nrun = 'load'\npath = 'shop.db'\ntable = 'orders'"
REPORT = "[[steps]]\nrun = 'report'\nname = 'pattern_analysis'"
WRONG = [
    ("steps = 1", InvalidValue, "has no steps"),
    ("[[step]]\nrun = 'sync'", UnknownName, "no 'step'.*did you mean steps"),
    (
        "foo = 1\n[[steps]]\nrun = 'sync'",
        UnknownName,
        "no 'foo'.*description, steps, .* and catch_up",
    ),
    ("description = 1\n[[steps]]\nrun = 'sync'", InvalidValue, "'description' of .* text"),
    ("[[steps]]\n", UnknownName, "run = one of"),
    ("[[steps]]\nrun = 'magic'", UnknownName, "run = one of"),
    ("[[steps]]\nrun = 'sync'\nfulll = true", UnknownName, "it takes full"),
    ("[[steps]]\nrun = 'sync'\nfull = 'yes'", InvalidValue, "'full' of step 1 .* true or false"),
    (
        "[[steps]]\nrun = 'sync'\non_change = 'bogus'",
        InvalidValue,
        "Step 1 .*evolve, freeze, ignore",
    ),
    (f"{LOAD}\nkey = [1]", InvalidValue, "'key' of step 1 .*a list of names"),
    (f"{LOAD}\nkey = []", InvalidValue, "a list of names"),
    (f"{LOAD}\nlag = -0.5", InvalidValue, "lag must be 0 or more"),
    (f"{LOAD}\nlag = nan", InvalidValue, "lag must be 0 or more"),
    (f"{LOAD}\nlag = true", InvalidValue, "must be a number"),
    (f"{LOAD}\nname = 'raw'", InvalidValue, "cannot name a schema"),
    (f"{LOAD}\nwatermark = ''", InvalidValue, "'watermark' of step 1 .*empty"),
    ("[[steps]]\nrun = 'import'", InvalidValue, "needs 'source'"),
    ("[[steps]]\nrun = 'import'\nsource = 'nope'", UnknownName, "chitchat"),
    ("[[steps]]\nrun = 'import'\nsource = 'jsonl'", WrongUse, "name it after the source"),
    ("[[steps]]\nrun = 'import'\nsource = 'chitchat'\npath = 'x'", WrongUse, "leave the file out"),
    ("[[steps]]\nrun = 'import'\nsource = 'chitchat'\nlimit = 0", InvalidValue, "at least 1"),
    (
        "[[steps]]\nrun = 'import'\nsource = 'chitchat'\non_conflict = 'merge'",
        InvalidValue,
        "keep or replace",
    ),
    (
        "[[steps]]\nrun = 'report'\nname = 'pattern_analysis'\ntimeout = 0",
        InvalidValue,
        "at least 1 second",
    ),
    (
        "[[steps]]\nrun = 'import'\nsource = 'chitchat'\non_rejects = 'ignore'",
        InvalidValue,
        "fail or continue",
    ),
    (f"{REPORT}\ntimeout = inf", InvalidValue, "at least 1 second"),
    (f"{REPORT}\nparameters = {{ since = 'foo' }}", InvalidValue, "Step 1 .*not a time"),
    (f"{REPORT}\nparameters = {{ timezone = 'Mars' }}", InvalidValue, "no time zone"),
    (f"{REPORT}\nparameters = {{ min_people = 0 }}", InvalidValue, "min_people must be"),
    ("[[steps]]\nrun = 'report'\nname = 'mine.ipynb'", UnknownName, "no notebook"),
    ("[[steps]]\nrun = 'report'\nname = 'nope'", UnknownName, "pattern_analysis"),
    (
        (
            "[[steps]]\nrun = 'sync'\n[[steps]]\nrun = 'report'\nname = 'pattern_analysis'\n"
            "parameters = { gap = 1 }"
        ),
        UnknownName,
        "gap_minutes",
    ),
    ("[[steps", InvalidValue, "not valid TOML"),
]


@pytest.mark.parametrize(("text", "kind", "words"), WRONG, ids=[w[0] for w in WRONG])
def test_a_mistake_anywhere_shows_before_anything_runs(tmp_path, text, kind, words):
    """One sentence each."""
    with pytest.raises(kind, match=words):
        load_pipeline(write(tmp_path, text))


def test_fractions_of_seconds_may_be_meant(tmp_path):
    """As on the command line."""
    (step,) = load_pipeline(write(tmp_path, f"{LOAD}\nlag = 0.5\nkey = ['id']")).steps
    assert step.options["lag"] == 0.5


REJECTS = "[[steps]]\nrun = 'import'\nsource = 'jsonl'\npath = 'm.jsonl'\n"


@pytest.mark.slow
def test_lines_that_are_rejected_end_the_pipeline(cli, lab, tmp_path):
    """Named, with the good ones kept; unless the step says to go on."""
    (tmp_path / "m.jsonl").write_text(f"{MESSAGE}oops\n{{}}\n")
    steps = f"{REJECTS}OPTIONS\n[[steps]]\nrun = 'sync'"
    told = cli("pipeline", "run", write(tmp_path, steps.replace("OPTIONS", "")))
    assert told.returncode == 1
    assert "  line 2: " in told.stderr
    assert "  line 3: " in told.stderr
    last = told.stderr.splitlines()[-1]
    assert last.startswith(
        "aico-lab: Step 1 (import) left out 2 invalid lines, the first being line 2"
    )
    assert "on_rejects = 'continue'" in last
    assert [line.split()[:2] for line in told.stdout.splitlines()] == [["import", "failed"]]
    assert lab.primary.fetch_all("SELECT count(*) FROM messages") == [(1,)]

    file = write(tmp_path, steps.replace("OPTIONS", "on_rejects = 'continue'"))
    told = cli("pipeline", "run", file)
    assert told.returncode == 0
    assert "  line 2: " in told.stderr
    assert [line.split()[0] for line in told.stdout.splitlines()] == ["import", "sync"]
    told = cli("pipeline", "run", file, "--json")
    assert [step["result"].get("rejected") for step in json.loads(told.stdout)] == [2, None]
    told = cli("pipeline", "run", write(tmp_path, steps.replace("OPTIONS", "")), "--json")
    assert (told.returncode, told.stdout) == (1, "")
    assert "  line 3: " in told.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("lab")
def test_a_pipeline_tells_what_the_commands_of_its_steps_tell(cli, tmp_path):
    """Conflicts, an assumed user and far times of an import, and the warnings of a load."""
    fields = {"message_id": "1", "timestamp": "1970-01-01T00:00:00Z"}
    lines = [fields | {"content": text} for text in "ab"]
    (tmp_path / "m.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    with closing(sqlite3.connect(tmp_path / "shop.db")) as shop:
        shop.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, price DECIMAL(9, 2))")
        shop.execute("INSERT INTO orders VALUES (1, 'much')")
        shop.commit()
    told = cli("pipeline", "run", write(tmp_path, f"{REJECTS}{LOAD}"), "--json")
    assert told.returncode == 0, told.stderr
    assert "In conflict with another message of the same conversation and id" in told.stderr
    assert "2 messages are assigned to the user 'me'" in told.stderr
    assert "2 messages are from before 1990" in told.stderr
    _, load = json.loads(told.stdout)
    assert load["result"]["warnings"]
    assert all(warning in told.stderr for warning in load["result"]["warnings"])


@pytest.mark.slow
def test_a_report_of_ones_own_says_where_it_is(cli, lab, tmp_path):
    """By its path from the pipeline's file, or by its name in the home's notebooks."""
    add(lab.primary, message(0))
    lab.sync()
    write_notebook(tmp_path / "mine.ipynb", "1", parameters="days: int = 1  # of something")
    folder = lab.home.path / "notebooks"
    folder.mkdir()
    write_notebook(folder / "ours.ipynb", "1")
    own = "[[steps]]\nrun = 'report'\nname = 'mine.ipynb'\nparameters = { days = 2 }\n"
    file = write(tmp_path, f"{own}[[steps]]\nrun = 'report'\nname = 'ours'\ntimeout = 60.5")
    told = cli("pipeline", "run", file)
    assert told.returncode == 0, told.stderr
    pages = [line.partition(" s: ")[2] for line in told.stdout.splitlines()]
    assert [Path(page).name for page in pages] == ["mine.html", "ours.html"]
    assert all(Path(page).is_file() for page in pages)


@pytest.mark.slow
def test_the_command_line_runs_a_pipeline(cli, lab, tmp_path):
    """And says which there are."""
    add(lab.primary, message(0))
    file = write(tmp_path, "[[steps]]\nrun = 'sync'")
    result = json.loads(cli("pipeline", "run", file, "--json").stdout)
    assert result[0]["result"]["rows"]["messages"] == 1
    assert cli("pipeline", "run", "nope").returncode == 2
