"""The benchmark of the cache measures what it says; its jobs check what they did."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from aico_lab.bench import cache

if TYPE_CHECKING:
    from pathlib import Path


def test_the_jobs_of_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With fewer values: each is there, all are looked into, and all expire."""
    pytest.importorskip("rocksdict")
    for name, value in (("VALUES", 300), ("MANY", 2_000), ("_BATCH", 1_000)):
        monkeypatch.setattr(cache, name, value)
    for job in ("fill", "put", "get", "bare-put", "bare-get", "inspect"):
        assert cache.JOBS[job](tmp_path, 0) >= 0
    figures = cache.JOBS["expire"](tmp_path, 0)
    assert figures["freed by the sweep (%)"] > 50
    assert {job for pair in cache.RATIOS.values() for job in pair} <= set(cache.JOBS)
    cache.VALUES = 301
    with pytest.raises(RuntimeError, match="300 rows were processed instead of 301"):
        cache.JOBS["bare-get"](tmp_path, 0)
