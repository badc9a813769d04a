"""The benchmark of vectors: segments, vectors, index and search, against ChromaDB alone."""

from __future__ import annotations

from aico_lab.bench.harness import bench_of
from aico_lab.bench.vectors_jobs import JOBS, SETUP

RATIOS = {
    "indexing / a plain loop of collection.add": ("index", "add-loop"),
    "200 searches of the index / 200 bare queries of ChromaDB": ("search", "bare-query"),
    "200 searches with transcripts / 200 bare queries": ("lab-search", "bare-query"),
    "200 hybrid searches with transcripts / 200 bare queries": ("hybrid", "bare-query"),
    "an increment of 20 messages / indexing": ("increment", "index"),
}

run_bench = bench_of("aico_lab.bench.vectors_jobs", setup=SETUP, jobs=JOBS, ratios=RATIOS)
