"""Pipelines: checked whole before they run, and stopped by the first failure."""

from __future__ import annotations

import json

import pytest

from aico_lab.errors import InvalidValue, SourceMissing, UnknownName, WrongUse
from aico_lab.pipeline import load_pipeline, run_pipeline
from aico_lab.shipped import shipped
from tests.messages import add, message

MESSAGE = '{"content": "hello", "timestamp": "2024-05-01T10:00:00Z"}\n'


def write(folder, text):
    path = folder / "job.toml"
    path.write_text(text)
    return str(path)


def test_the_shipped_pipelines_are_sound():
    """Each can be loaded, and says what it is for."""
    assert "daily" in shipped("pipelines", ".toml")
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
    file = write(
        tmp_path,
        "[[steps]]\nrun = 'import'\nsource = 'jsonl'\npath = 'no.jsonl'\n[[steps]]\nrun = 'sync'\n",
    )
    with pytest.raises(SourceMissing):
        run_pipeline(lab, load_pipeline(file))
    assert lab.report_runs() == []


WRONG = [
    ("steps = 1", InvalidValue, "has no steps"),
    ("[[steps]]\n", UnknownName, "run = one of"),
    ("[[steps]]\nrun = 'shell'", UnknownName, "run = one of"),
    ("[[steps]]\nrun = 'sync'\nfulll = true", UnknownName, "it takes full"),
    ("[[steps]]\nrun = 'sync'\nfull = 'yes'", InvalidValue, "of type bool"),
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


def test_the_command_line_runs_a_pipeline(cli, lab, tmp_path):
    """And says which there are."""
    add(lab.primary, message(0))
    file = write(tmp_path, "[[steps]]\nrun = 'sync'")
    result = json.loads(cli("pipeline", "run", file, "--json").stdout)
    assert result[0]["result"]["rows"]["messages"] == 1
    assert cli("pipeline", "run", "nope").returncode == 2
