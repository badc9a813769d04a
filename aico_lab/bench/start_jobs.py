"""The jobs of the benchmark of commands: each runs one process and waits for its end."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final

from aico_lab.bench.harness import run_job

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_COUNT: Final = "SELECT role, count(*) FROM {} GROUP BY 1"
_WRITE: Final = """
import sys, duckdb
connection = duckdb.connect(sys.argv[2])
connection.execute("CREATE TABLE messages AS FROM read_json(?)", [sys.argv[1]])
"""
_READ: Final = f"""
import sys, duckdb
connection = duckdb.connect(sys.argv[1], read_only=True)
print(connection.sql("{_COUNT.format("messages")}"))
"""


def prepare(folder: Path, rows: int) -> float:
    """Import and sync real messages, and write the same messages into a plain DuckDB file."""
    from aico_lab.bench.etl_jobs import import_, write_input

    write_input(folder, rows)
    import_(folder, rows)
    (folder / "plain.duckdb").unlink(missing_ok=True)
    _python("-c", _WRITE, str(folder / "input.jsonl"), str(folder / "plain.duckdb"))
    return _aico_lab("sync")


def python(_folder: Path, _rows: int) -> float:
    """Time Python alone."""
    return _python("-c", "pass")


def duckdb(folder: Path, _rows: int) -> float:
    """Time the query of `sql` by DuckDB alone, on a plain file."""
    return _python("-c", _READ, str(folder / "plain.duckdb"))


def help_(_folder: Path, _rows: int) -> float:
    """Time `aico-lab --help`."""
    return _aico_lab("--help")


def sql(_folder: Path, _rows: int) -> float:
    """Time `aico-lab sql`."""
    return _aico_lab("sql", _COUNT.format("raw.messages"))


def metrics_show(_folder: Path, _rows: int) -> float:
    """Time `aico-lab metrics show overview`."""
    return _aico_lab("metrics", "show", "overview")


def sync_nothing(_folder: Path, _rows: int) -> float:
    """Time `aico-lab sync` when nothing changed."""
    return _aico_lab("sync")


SETUP: dict[str, Callable[[Path, int], float]] = {"prepare": prepare}
JOBS: dict[str, Callable[[Path, int], float]] = {
    "python": python,
    "duckdb": duckdb,
    "help": help_,
    "sql": sql,
    "metrics-show": metrics_show,
    "sync-nothing": sync_nothing,
}


def _aico_lab(*arguments: str) -> float:
    return _python("-m", "aico_lab", *arguments)


def _python(*arguments: str) -> float:
    """Run Python, and return the seconds until it ends."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)  # noqa: S603
    return time.perf_counter() - started


if __name__ == "__main__":
    run_job(SETUP | JOBS)
