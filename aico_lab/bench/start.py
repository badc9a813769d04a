"""The benchmark of commands as people wait for them: whole processes, with Python's start."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aico_lab.bench.harness import Outcome, measure
from aico_lab.bench.start_jobs import JOBS, SETUP

if TYPE_CHECKING:
    from collections.abc import Callable

MODULE = "aico_lab.bench.start_jobs"
RATIOS = {
    "help / Python alone": ("help", "python"),
    "sql / DuckDB alone (plain text)": ("sql", "duckdb"),
    "metrics show / sql": ("metrics-show", "sql"),
    "sync with nothing to do / DuckDB alone (plain text)": ("sync-nothing", "duckdb"),
}


def run_bench(rows: int, repeat: int, progress: Callable[[str, int, int | None], None]) -> Outcome:
    """Measure commands that do little work, on a home that is up to date.

    Args:
        rows: How many messages are in the home.
        repeat: How often each command runs.
        progress: Called with the number of finished runs, and of all runs.
    """
    return measure(
        setup=dict.fromkeys(SETUP, MODULE),
        jobs=dict.fromkeys(JOBS, MODULE),
        ratios=RATIOS,
        rows=rows,
        repeat=repeat,
        progress=progress,
    )
