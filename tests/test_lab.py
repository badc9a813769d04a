"""The lab as a whole: how it is made, what it hands on, and what is left when it is closed."""

from __future__ import annotations

import os
import re
from functools import cached_property
from typing import TYPE_CHECKING
from unittest.mock import Mock

import altair as alt
import polars as pl
import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from aico_lab.cache.store import MemoryStore
from aico_lab.domain import Memory, User
from aico_lab.errors import (
    ConnectionIsClosed,
    HomeExists,
    InvalidStatement,
    PoolExhausted,
    UnknownName,
)
from aico_lab.home import folder as home_module
from aico_lab.home.folder import Home
from aico_lab.lab import Lab
from aico_lab.repositories import UnitOfWork
from aico_lab.sources import SOURCES, read
from tests.executed import itself_as_main
from tests.notebooks import outputs, write_notebook

if TYPE_CHECKING:
    from pathlib import Path

PASSPHRASE = "a long passphrase"


def fail(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize("named", [True, False], ids=["a key file of one's own", "the usual one"])
def test_a_home_that_was_interrupted_while_it_was_made_is_in_nobodys_way(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named
):
    """It is made again as if it had never been; the key that opens nothing is gone, too."""
    key_file = tmp_path / "own.key" if named else None
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Home, "write_marker", fail)
        Lab.create(home, key_file=key_file)
    assert not any((home / f"aico.db{end}").exists() for end in ("", "-wal", "-shm"))
    assert list(tmp_path.rglob("*.key")) == []
    Lab.create(home, key_file=key_file).close()
    with Lab.open(home, key_file=key_file) as lab:
        assert lab.primary.fetch_one("SELECT count(*) FROM users") == (0,)


@pytest.mark.slow
def test_a_key_file_that_was_there_before_stays_there(home: Path, tmp_path: Path, monkeypatch):
    """It opens other homes."""
    key_file = tmp_path / "own.key"
    Lab.create(tmp_path / "other", key_file=key_file).close()
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Home, "write_marker", fail)
        Lab.create(home, key_file=key_file)
    Lab.open(tmp_path / "other", key_file=key_file).close()


def test_of_two_who_make_the_same_home_at_once_one_is_told(home: Path, monkeypatch):
    """And takes nothing of the other's away."""
    monkeypatch.setattr(home_module, "MAKING_SECONDS", 0)
    with Home(home).being_made():
        Home(home).prepare("0" * 32)
        with pytest.raises(HomeExists, match="is being created by process"):
            Lab.create(home)
        assert (home / "aico.db").stat().st_mode & 0o777 == 0o600


def test_closing_releases_everything_even_where_a_part_cannot_be_closed(lab: Lab, monkeypatch):
    """What went wrong is said afterwards."""
    lab.sync()
    primary, cache, answer = lab.primary, lab.cache.store, lab.sql("SELECT 1")
    index = lab.memories.index
    closed = Mock()
    monkeypatch.setattr(type(index), "close", fail)
    monkeypatch.setattr(type(cache), "close", closed)
    with pytest.raises(KeyboardInterrupt):
        lab.close()
    closed.assert_called_once()
    assert not primary.is_open
    assert answer is not None
    with pytest.raises(Exception, match="closed"):
        answer.execute()
    monkeypatch.undo()
    cache.close()
    index.close()
    lab.close()
    with pytest.raises(ConnectionIsClosed):
        lab.data_access()


def test_closing_lets_go_of_every_part(lab: Lab):
    """Also of parts that are added later."""
    lab.sync()
    parts = {name for name, member in vars(Lab).items() if isinstance(member, cached_property)}
    assert parts >= {"metrics", "reports", "memories", "cache"}
    assert all(getattr(lab, name) is not None for name in parts)
    lab.close()
    assert parts.isdisjoint(vars(lab))


async def test_the_limits_of_a_data_access_layer_can_be_set(lab: Lab):
    """How many connections there are, and how long one is waited for."""
    async with lab.data_access(max_connections=1, acquire_timeout=0.05) as dal:
        async with dal.connection_pool.acquire():
            with pytest.raises(PoolExhausted, match=r"All 1 connections.*0\.05 s"):
                await dal.fetch_all("SELECT 1")
        assert await dal.fetch_all("SELECT 1 AS one") == [{"one": 1}]


@pytest.mark.slow
async def test_a_unit_of_work_finds_memories_by_meaning_in_the_labs_own_vectors(lab: Lab):
    """Those that are committed; no sync is needed."""
    memory = Memory("ada", "My cat sleeps all day")
    async with lab.data_access() as dal:
        async with UnitOfWork(dal) as uow:
            await uow.users.save(User("Ada", id="ada"))
            await uow.memories.save(memory)
            await uow.memories.save(Memory("ada", "The train leaves at nine"))
            await uow.commit()
        async with UnitOfWork(dal, lab.memories.index) as uow:
            assert await uow.memories.get_by_context("tired pets", limit=1) == [memory]


TELLING = """
from aico_lab import Lab
lab = Lab.open()
keys = lab.storage.keys
print(lab.timezone, "and", timezone, "in", lab.sql("SELECT current_setting('TimeZone')").fetchone())
print(lab.storage.settings.passphrase, keys.libsql(), keys.duckdb(), keys.chroma(), keys.rocksdb())
print(keys.master, keys.master.hex(), keys.rocksdb().hex())
"""


@pytest.mark.slow
def test_a_report_has_the_labs_time_zone_and_its_own_environment(home: Path, tmp_path: Path):
    """The passphrase is in no environment, and no secret in what is kept."""
    declared = 'timezone: str = "UTC"  # an IANA name'
    notebook = write_notebook(tmp_path / "telling.ipynb", TELLING, parameters=declared)
    seen: list[str | None] = []
    Lab.create(home, protection="passphrase", passphrase=PASSPHRASE).close()
    with Lab.open(home, passphrase=PASSPHRASE, timezone="Europe/Berlin") as lab:
        lab.sync()
        result = lab.reports.run(
            notebook, on_cell=lambda *_: seen.append(os.environ.get("AICO_LAB_PASSPHRASE"))
        )
        (run,) = lab.reports.list()
        secrets = [
            PASSPHRASE,
            lab.storage.keys.libsql(),
            lab.storage.keys.duckdb(),
            lab.storage.keys.chroma(),
        ]
        secrets += [
            repr(key)[2:-1] for key in (lab.storage.keys.master, lab.storage.keys.rocksdb())
        ]
        assert run.parameters == {"timezone": "Europe/Berlin"}
        assert lab.reports.page(run) == result.html
    assert set(seen) == {None}
    printed = outputs(result.notebook)
    assert "UTC and Europe/Berlin in" in printed
    assert printed.count("•••") >= 7
    assert not any(secret in printed for secret in secrets)


@pytest.mark.parametrize("method", ["fetchall", "fetchone", "pl", "df", "arrow", "show", "__len__"])
def test_an_answer_that_fails_when_it_is_read_fails_as_a_query_does(synced, method):
    """And quotes no message."""
    asked = synced.sql("SELECT content::INTEGER AS n FROM conversations").filter("n > 0")
    with pytest.raises(InvalidStatement) as failed:
        getattr(asked, method)()
    assert "homesick" not in str(failed.value)


def test_an_answer_is_a_relation_as_duckdb_has_it(synced):
    """In all that people do with one."""
    asked = synced.sql("SELECT range AS a, 'x' AS b FROM range(3)")
    assert (asked.columns, len(asked), asked.shape) == (["a", "b"], 3, (3, 2))
    assert "a" in asked
    assert asked["a"].fetchall() == asked.a.fetchall() == [(0,), (1,), (2,)]
    assert asked.union(asked).count("*").fetchall() == [(6,)]
    assert "│ x" in repr(asked)
    assert "fetchall" in dir(asked)
    assert pl.DataFrame(asked).equals(asked.pl())
    drawn = alt.Chart(asked).mark_point().encode(x="a").to_dict()
    assert drawn["encoding"]["x"]["type"] == "quantitative"
    assert len(*drawn["datasets"].values()) == 3


@pytest.fixture
def synced(homes, home):
    with homes.open(home, messages=1, synced=True) as lab:
        yield lab


def test_a_lab_says_at_a_prompt_what_it_is(lab):
    assert repr(lab) == (
        f"<Lab {lab.home.path}, no snapshot yet: call .sync(), days and hours of UTC>"
    )
    lab.sync()
    assert "snapshot 1" in repr(lab)
    assert "reply_latency" in dir(lab.metrics)
    lab.close()
    assert repr(lab) == f"<Lab {lab.home.path}, closed>"
    with pytest.raises(ConnectionIsClosed):
        lab.metrics  # noqa: B018


def test_the_parts_of_a_lab_say_at_a_prompt_what_to_call(lab):
    """In one line each; everything that the line names exists."""
    for part in (
        lab.storage, lab.reports, lab.memories, lab.memories.index, lab.cache, lab.cache.store,
        MemoryStore(),
    ):  # fmt: skip
        said = repr(part)
        assert re.fullmatch(r"<[A-Z][^\n]+>", said), said
        named = re.findall(r"(?<!\S)\.([a-z_]+)", said)
        assert named, said
        assert all(hasattr(part, name) for name in named), said
    lab.storage.close()
    assert repr(lab.storage).endswith(", closed>")


def test_the_metrics_of_a_lab_are_a_mapping_of_their_names(lab):
    """They can be listed, counted and looked for; whatever is no name is refused in a sentence."""
    names = list(lab.metrics)
    assert len(lab.metrics) == len(names) > 30
    assert {"overview", "reply_latency"} <= set(names)
    assert "overview" in lab.metrics
    assert "nonsense" not in lab.metrics
    assert 0 not in lab.metrics
    assert lab.metrics["overview"].metric.name == "overview"
    with pytest.raises(UnknownName, match="'overview'"):
        lab.metrics[0]


def test_a_home_without_messages_has_no_period(lab):
    """The answer says how to get some, and names no day of 1969."""
    lab.sync()
    answer = lab.metrics.reply_latency(since="30d")
    assert "`aico-lab import`" in answer.finding
    assert "`aico-lab sync`" in answer.finding
    assert "from 19" not in answer.caption


def test_a_file_can_be_named_by_a_text(lab, tmp_path):
    """As paths can be everywhere else."""
    file = tmp_path / "one.jsonl"
    file.write_text('{"content": "Hello", "timestamp": "2024-05-01T12:00:00Z"}\n')
    assert lab.import_from("jsonl", str(file)).added == 1
    assert sum(len(batch.messages) for batch in read("jsonl", str(file))) == 1
    assert SOURCES["jsonl"].total(str(file)) == file.stat().st_size


@pytest.mark.parametrize(
    ("former", "now"),
    [("run_report", "lab.reports.run"), ("vectors", "lab.memories.index")],
)
def test_a_name_that_moved_says_where_it_went(lab, former, now):
    with pytest.raises(AttributeError, match=f"{former} was renamed: use {now}"):
        getattr(lab, former)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        lab.nonsense  # noqa: B018


@pytest.mark.slow
def test_ipython_completes_what_a_lab_hands_out(lab):
    """It refuses to look into attributes of a class that has a `__getattr__`."""
    quiet = Config({"IPCompleter": {"use_jedi": False}, "HistoryManager": {"enabled": False}})
    with itself_as_main():
        shell = InteractiveShell(config=quiet, user_ns={"lab": lab})
    with provisionalcompleter():
        found = {
            text: {one.text.strip(".") for one in shell.Completer.completions(text, len(text))}
            for text in ("lab.", "lab.metrics.", "lab.reports.", "lab.cache.", "lab.memories.")
        }
    assert {"metrics", "reports", "sql"} <= found["lab."]
    assert "reply_latency" in found["lab.metrics."]
    assert "run" in found["lab.reports."]
    assert "store" in found["lab.cache."]
    assert "index" in found["lab.memories."]


def test_each_part_of_a_lab_is_where_its_name_says(lab: Lab):
    """`lab.NAME` is of a class in a module `lab_NAME`, and is gone once the lab is closed."""
    parts = [name for name, made in vars(Lab).items() if isinstance(made, cached_property)]
    assert {"metrics", "reports", "memories", "cache"} <= set(parts)
    for name in parts:
        assert type(getattr(lab, name)).__module__.endswith(f".lab_{name}")
    lab.close()
    assert not set(parts) & set(vars(lab))
