"""A quick look, from outside, at parts of which the thorough tests are slow."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from aico_lab.adapters.encrypted import EncryptedLibSQLConnection
from aico_lab.channel_memory import DatabaseManager, MessageVectors
from aico_lab.errors import InvalidValue, WrongKey
from aico_lab.reports.lab_reports import Reports
from aico_lab.reports.runner import run_notebook
from tests.messages import START, at
from tests.notebooks import outputs, write_notebook


@pytest.fixture(scope="module")
def synced(tmp_path_factory, homes):
    """A lab with a person and a few messages, synced."""
    home = tmp_path_factory.mktemp("glance") / "home"
    with homes.open(home, "none", messages=10, synced=True) as lab:
        yield lab


def test_the_demo_imports_syncs_and_says_what_to_try(cli, monkeypatch):
    """All of it but the notebook, which takes its time."""
    made = SimpleNamespace(html="the report.html")
    monkeypatch.setattr(Reports, "run", lambda *_, **__: made)
    told = cli("demo", "--limit", "60")
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith("60 messages in ")
    assert "Report: the report.html" in told.stdout
    assert "metrics show reply_latency" in told.stdout


def test_the_schemas_of_a_home_are_up_to_date_and_sound(in_process, synced):
    home = ("--home", str(synced.home.path), "--json")
    schemas = json.loads(in_process("schema", "status", *home).stdout)
    assert "up to date" in {schema["state"] for schema in schemas}
    assert not {schema["state"] for schema in schemas} & {"behind", "ahead"}
    found = json.loads(in_process("schema", "verify", *home).stdout)
    assert (found["ok"], found["problems"]) == (True, [])


def test_a_password_opens_its_file_and_another_does_not(tmp_path):
    path = tmp_path / "own.db"
    with EncryptedLibSQLConnection(path, master_password="correct horse") as connection:
        connection.execute("CREATE TABLE notes (text TEXT)")
        connection.execute("INSERT INTO notes VALUES ('mine')")
    with EncryptedLibSQLConnection(path, master_password="correct horse") as connection:
        assert connection.fetch_all("SELECT text FROM notes") == [("mine",)]
    with pytest.raises(WrongKey):
        EncryptedLibSQLConnection(path, master_password="another horse")
    assert b"mine" not in path.read_bytes()


def test_a_notebook_runs_with_its_parameters(tmp_path):
    """And is not run with wrong ones."""
    notebook = write_notebook(tmp_path / "n.ipynb", "print(days * 2)", parameters="days: int = 1")
    given = {"destination": tmp_path / "out", "title": "A report", "timeout": 60}
    given["destination"].mkdir()
    with pytest.raises(InvalidValue, match="days"):
        run_notebook(notebook, parameters={"days": "many"}, **given)
    result = run_notebook(notebook, parameters={"days": "21"}, **given)
    assert outputs(result.notebook) == "42\n"
    assert "<title>A report</title>" in result.html.read_text(encoding="utf-8")


def test_a_row_that_changes_leaves_the_cache_with_the_next_sync(synced):
    store = synced.cache.store
    store.put("configuration:users:u", "a person")
    store.put("session:a", "no row")
    synced.primary.execute("UPDATE users SET created_at = ? WHERE user_id = 'u'", [at(1)])
    synced.sync()
    assert (store.get("configuration:users:u"), store.get("session:a")) == (None, "no row")


def test_the_nearest_of_a_channels_vectors_come_first(tmp_path):
    def towards(*shares):
        return [*shares, *[0.0] * (256 - len(shares))]

    with DatabaseManager(tmp_path / "memory.db", "k" * 32) as memory:
        for name, channel in (("a", "x"), ("b", "x"), ("c", "y")):
            memory.store_message(name, channel, "ada", "hello", START)
        vectors = MessageVectors(memory)
        vectors.store({"a": towards(0, 1), "b": towards(1, 1), "c": towards(1)}, model="m")
        found = vectors.nearest(towards(1), model="m")
        assert [one.message_id for one in found] == ["c", "b", "a"]
        found = vectors.nearest(towards(1), model="m", channel_id="x")
        assert [one.message_id for one in found] == ["b", "a"]
