"""The benchmark of the report: the whole process that makes it, and its page in a browser."""

from __future__ import annotations

from aico_lab.bench.harness import bench_of
from aico_lab.bench.report_jobs import JOBS, SETUP

run_bench = bench_of("aico_lab.bench.report_jobs", setup=SETUP, jobs=JOBS, ratios={})
