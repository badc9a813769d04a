"""The benchmark of the report: the whole process that makes it, and its page in a browser."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aico_lab.bench.harness import Outcome, measure
from aico_lab.bench.report_jobs import JOBS, SETUP

if TYPE_CHECKING:
    from collections.abc import Callable

MODULE = "aico_lab.bench.report_jobs"


def run_bench(rows: int, repeat: int, progress: Callable[[str, int, int | None], None]) -> Outcome:
    """Measure `aico-lab report run pattern_analysis`, and the page that it writes.

    Args:
        rows: How many messages are in the home.
        repeat: How often the report is made.
        progress: Called with the number of finished runs, and of all runs.
    """
    return measure(
        setup=dict.fromkeys(SETUP, MODULE),
        jobs=dict.fromkeys(JOBS, MODULE),
        ratios={},
        rows=rows,
        repeat=repeat,
        progress=progress,
    )
