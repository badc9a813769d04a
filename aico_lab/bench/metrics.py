"""The benchmark of metrics, against SQL written by hand for the same tables, and against pandas.

All three answer the same questions and must return the same rows. Metrics and SQL read the tables
that a sync makes. Pandas has its data frame in memory before the clock starts, and computes turns
itself. These questions have no intervals, but the job of the whole catalogue does. The messages are
real ones, repeated under other names until there are enough.
"""

from __future__ import annotations

from aico_lab.bench.harness import bench_of
from aico_lab.bench.metrics_jobs import JOBS, SETUP

RATIOS = {
    "metrics / SQL written by hand": ("metrics", "sql"),
    "metrics / pandas": ("metrics", "pandas"),
}

run_bench = bench_of("aico_lab.bench.metrics_jobs", setup=SETUP, jobs=JOBS, ratios=RATIOS)
