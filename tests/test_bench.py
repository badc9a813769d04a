"""The benchmark: peers do the same job as we do, and what is shown is what was measured."""

from __future__ import annotations

import json
import subprocess
import sys

import duckdb
import polars as pl
import pytest

from aico_lab.bench import (
    etl,
    etl_jobs,
    etl_peers,
    exports_jobs,
    federation,
    harness,
    metrics_jobs,
    start_jobs,
)
from aico_lab.bench.etl import RATIOS, run_bench
from aico_lab.bench.etl_peers import PEERS
from aico_lab.bench.harness import NO_BYTECODE
from aico_lab.config import Settings
from aico_lab.errors import LibraryMissing
from aico_lab.lab import Lab

ROWS = 1_000
COLUMNS = ", ".join(etl_peers.TYPES)


def run(module, job, folder):
    settings = Settings(home=folder / "home", key_file=folder / "bench.key")
    command = [sys.executable, "-m", f"aico_lab.bench.{module}", job, str(folder), str(ROWS)]
    finished = subprocess.run(
        command, check=False, capture_output=True, text=True, env=settings.environment()
    )
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder as the measured jobs find it, and our own warehouse in it."""
    folder = tmp_path_factory.mktemp("bench")
    for job in ("write-input", "plain-copy", "full"):
        run("etl_jobs", job, folder)
    return folder


@pytest.fixture(scope="module")
def ours(folder):
    """What our own full load brought into the warehouse."""
    with Lab.open(folder / "home", key_file=folder / "bench.key") as lab:
        return lab.sql(f"SELECT {COLUMNS} FROM raw.messages ORDER BY id").fetchall()


@pytest.mark.slow
@pytest.mark.parametrize("peer", PEERS)
def test_a_peer_leaves_the_rows_that_we_do_in_its_file(peer, folder, ours):
    """The same columns, types and values, and all of them in the file rather than in a log."""
    measured = run("etl_peers", peer, folder)
    assert measured["seconds"] > 0
    assert measured["peak_mb"] > 0
    assert not (folder / "peer.duckdb.wal").exists()
    with duckdb.connect(str(folder / "peer.duckdb"), read_only=True) as connection:
        connection.execute("SET timezone = 'UTC'")
        described = connection.execute("DESCRIBE messages").fetchall()
        theirs = connection.execute(f"SELECT {COLUMNS} FROM messages ORDER BY id").fetchall()
    types = {"TIMESTAMP WITH TIME ZONE": "TIMESTAMPTZ"}
    assert {name: types.get(kind, kind) for name, kind, *_ in described} == etl_peers.TYPES
    assert len(ours) == ROWS
    assert theirs == ours


@pytest.mark.slow
def test_the_etl_benchmark_prints_the_times_peaks_and_ratios_of_every_job(in_process, monkeypatch):
    """As one JSON value; the ratios are those of the medians. Of the peers, the quickest runs."""
    monkeypatch.delenv(NO_BYTECODE, raising=False)  # else every job runs once more
    jobs = {*etl_jobs.JOBS, *PEERS}
    assert all(jobs.issuperset(pair) for pair in RATIOS.values())
    peers = {"sqlite-scanner": PEERS["sqlite-scanner"]}
    ran = {*etl_jobs.JOBS, *peers}
    ratios = {name: pair for name, pair in RATIOS.items() if ran.issuperset(pair)}
    monkeypatch.setattr(etl, "PEERS", peers)
    monkeypatch.setattr(etl, "RATIOS", ratios)
    printed = in_process("bench", "etl", "--rows", "1000", "--repeat", "1", "--json").stdout
    shown = json.loads(printed)
    ours = {"import", "bare-executemany", "full", "full-with-mart", "nothing"}
    ours |= {"first-increment", "increment"}
    assert shown["rows"] == 1000
    assert set(shown["seconds"]) == set(shown["peak_mb"]) == ours | set(peers)
    assert set(shown["ratios"]) == set(ratios)
    for name, (job, other) in ratios.items():
        expected = shown["seconds"][job] / shown["seconds"][other]
        assert shown["ratios"][name] == pytest.approx(expected, abs=0.001)


@pytest.mark.slow
def test_the_benchmark_of_starting_times_whole_processes(monkeypatch):
    """Each does what it is named after, and keeps the bytecode of what it imports."""
    monkeypatch.delenv(NO_BYTECODE, raising=False)
    # A process that is forked off counts the memory of the one that does so as its own.
    command = "bench", "start", "--rows", "1000", "--repeat", "1", "--json"
    process = subprocess.run(
        [sys.executable, "-m", "aico_lab", *command], check=True, capture_output=True, text=True
    )
    shown = json.loads(process.stdout)
    assert set(shown["seconds"]) == set(start_jobs.JOBS)
    assert shown["seconds"]["python"] < shown["seconds"]["help"] < shown["seconds"]["metrics-show"]
    assert shown["peak_mb"]["help"] < shown["peak_mb"]["metrics-show"]


@pytest.mark.slow
def test_the_benchmark_of_exports_reads_every_message(in_process, monkeypatch):
    """As many as were written."""
    monkeypatch.delenv(NO_BYTECODE, raising=False)
    printed = in_process("bench", "import", "--rows", "1000", "--repeat", "1", "--json").stdout
    assert set(json.loads(printed)["seconds"]) == set(exports_jobs.JOBS)


@pytest.mark.slow
def test_the_benchmark_of_devices_exchanges_every_message(in_process, monkeypatch):
    """The third device gets them by one sync."""
    monkeypatch.delenv(NO_BYTECODE, raising=False)
    printed = in_process("bench", "federation", "--rows", "1000", "--repeat", "1", "--json").stdout
    shown = json.loads(printed)
    assert set(shown["seconds"]) == set(federation.JOBS) - {"size"}
    assert shown["figures"]["bytes a message"] > 0


def test_a_job_keeps_bytecode_whatever_the_environment_says(monkeypatch, tmp_path):
    """To compile in each process what it imports takes longer than many a job."""
    monkeypatch.setenv(NO_BYTECODE, "1")
    job = (
        "import json, sys; print(json.dumps({'seconds': sys.dont_write_bytecode, 'peak_mb': 0}))\n"
    )
    (tmp_path / "job.py").write_text(job, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    rounds = []
    outcome = harness.measure(
        setup={}, jobs={"a": "job"}, ratios={}, rows=2_000, repeat=2,
        progress=lambda *told: rounds.append(told),
    )  # fmt: skip
    assert outcome.seconds == {"a": False}
    assert rounds[-1] == ("bench", 3, 3)  # one before, in which libraries were compiled


def test_a_peer_that_is_not_installed_is_missed_before_any_work(monkeypatch):
    """In one sentence that says what to install."""
    monkeypatch.setattr(etl_peers, "LIBRARIES", ("json", "no_such_peer"))
    with pytest.raises(LibraryMissing, match=r"needs no-such-peer to .*`pip install .*\[bench\]'`"):
        run_bench(1000, 1, lambda *_: pytest.fail("it began"))


@pytest.mark.slow
def test_metrics_sql_and_pandas_find_the_same_rows(tmp_path):
    """A job fails where its rows are not those of the SQL; the clock only runs if they are."""
    run("metrics_jobs", "prepare", tmp_path)
    for job in ("sql", "pandas"):
        assert run("metrics_jobs", job, tmp_path)["seconds"] > 0


def test_rows_that_differ_stop_the_benchmark():
    rows = pl.DataFrame({"n": [1, 2], "mean": [0.5, None]})
    metrics_jobs._compare("same", rows, rows.reverse())
    with pytest.raises(RuntimeError, match="answers to turns differ"):
        metrics_jobs._compare("turns", rows, rows.with_columns(n=pl.lit(1)))
