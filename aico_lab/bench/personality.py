"""The benchmark of personality: speed of the estimates, and evidence from simulated homes."""

from __future__ import annotations

from aico_lab.bench.harness import bench_of
from aico_lab.bench.personality_jobs import JOBS, SETUP

RATIOS = {"estimates, gate and diagnostics / estimates in pandas": ("evaluate", "pandas")}

run_bench = bench_of("aico_lab.bench.personality_jobs", setup=SETUP, jobs=JOBS, ratios=RATIOS)
