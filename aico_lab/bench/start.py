"""The benchmark of short commands: whole processes, on a home that is up to date."""

from __future__ import annotations

from aico_lab.bench.harness import bench_of
from aico_lab.bench.start_jobs import JOBS, SETUP

RATIOS = {
    "help / Python alone": ("help", "python"),
    "sql / DuckDB alone (plain text)": ("sql", "duckdb"),
    "metrics show / sql": ("metrics-show", "sql"),
    "sync with nothing to do / DuckDB alone (plain text)": ("sync-nothing", "duckdb"),
}

run_bench = bench_of("aico_lab.bench.start_jobs", setup=SETUP, jobs=JOBS, ratios=RATIOS)
