"""The benchmark of reading exports: ChatGPT's, before sentiment scores and the database."""

from __future__ import annotations

from aico_lab.bench.exports_jobs import JOBS, SETUP
from aico_lab.bench.harness import bench_of

RATIOS = {
    "reading an export / ijson alone": ("read", "ijson"),
    "reading an export / Python's json alone, whole in memory": ("read", "json"),
}

run_bench = bench_of("aico_lab.bench.exports_jobs", setup=SETUP, jobs=JOBS, ratios=RATIOS)
