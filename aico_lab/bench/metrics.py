"""The benchmark of metrics, against SQL written by hand for the same tables, and against pandas.

All three answer the same questions and must return the same rows. Metrics and SQL read the tables
that a sync makes. Pandas has its data frame in memory before the clock starts, and computes turns
itself. These questions have no intervals, but the job of the whole catalogue does. The messages are
real ones, repeated under other names until there are enough.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aico_lab.bench.harness import Outcome, measure
from aico_lab.bench.metrics_jobs import JOBS, SETUP

if TYPE_CHECKING:
    from collections.abc import Callable

MODULE = "aico_lab.bench.metrics_jobs"
RATIOS = {
    "metrics / SQL written by hand": ("metrics", "sql"),
    "metrics / pandas": ("metrics", "pandas"),
}


def run_bench(rows: int, repeat: int, progress: Callable[[str, int, int | None], None]) -> Outcome:
    """Measure the whole catalogue, and a few of its questions against the peers.

    Args:
        rows: How many messages.
        repeat: How often each job runs.
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
