"""The benchmark of importing and loading, against peers that do the same with plain files.

The messages are real ones, repeated under new ids until there are enough. The full load is measured
without the tables of `mart`, which no peer makes, and once more with them; increments include them.
"""

from __future__ import annotations

from aico_lab.bench.etl_jobs import JOBS, SETUP
from aico_lab.bench.etl_peers import PEERS, require_peers
from aico_lab.bench.harness import BenchResult, OnRun, measure

OURS = "aico_lab.bench.etl_jobs"
RATIOS = {
    "full load / sqlite-scanner (plain text)": ("full", "sqlite-scanner"),
    "full load / ADBC (plain text)": ("full", "adbc"),
    "full load / connectorx (plain text)": ("full", "connectorx"),
    "full load / pandas (plain text)": ("full", "pandas"),
    "full load / rows through Python (plain text)": ("full", "rows"),
    "full load / dlt (plain text)": ("full", "dlt"),
    "full load with mart / without": ("full-with-mart", "full"),
    "import / bare executemany (plain text)": ("import", "bare-executemany"),
    "increment of 1,000 / full load": ("increment", "full"),
    "a process's first increment of 1,000 / full load": ("first-increment", "full"),
    "sync with nothing to do / full load": ("nothing", "full"),
}


def run_bench(rows: int, repeat: int, progress: OnRun) -> BenchResult:
    """Measure an import, a full load, increments, a sync with nothing to do, and the peers.

    Args:
        rows: The number of messages; at least 1,000, since an increment changes 1,000.
        repeat: The number of runs of each job.
        progress: Called with "bench", the number of finished runs, and the number of all runs.

    Raises:
        LibraryMissing: A peer is not installed.
    """
    require_peers()
    return measure(
        setup=dict.fromkeys(SETUP, OURS),
        jobs=dict.fromkeys(JOBS, OURS) | dict.fromkeys(PEERS, "aico_lab.bench.etl_peers"),
        ratios=RATIOS,
        rows=rows,
        repeat=repeat,
        progress=progress,
    )
