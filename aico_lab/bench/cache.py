"""The benchmark of the cache and of kept answers.

The number of messages is that of the home for metrics and the report; there are always 100,000
values of 200 bytes to write and read, and a million to look into and to expire. The bare driver
writes and reads the same values under keys of the same length, in the same, random order.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from aico_lab.adapters.rocksdb import RocksDBAdapter
from aico_lab.bench.harness import bench_of, expect, run_job
from aico_lab.cache.typed import CacheStore
from aico_lab.config import KEEP_ANSWERS_VARIABLE
from aico_lab.lab import Lab

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

VALUES: Final = 100_000
MANY: Final = 1_000_000
_BYTES: Final = 200
_KEY: Final = b"k" * 32
_BATCH: Final = 10_000
_QUESTIONS: Final = ("overview", "reply_latency", "daily_activity", "sessions", "questions")
_AGAIN: Final = 20
SETUP: Final = ("prepare", "fill")
RATIOS: Final = {
    "encrypted put / bare rocksdict": ("put", "bare-put"),
    "encrypted get / bare rocksdict": ("get", "bare-get"),
    "kept answer / computing it": ("kept", "computed"),
    "report again / first report": ("report-again", "report"),
}


def prepare(folder: Path, rows: int) -> float:
    """Import and sync real messages."""
    from aico_lab.bench.etl_jobs import import_, write_input

    write_input(folder, rows)
    import_(folder, rows)
    with Lab.open() as lab:
        lab.sync()
    return 0.0


def fill(folder: Path, _rows: int) -> float:
    """Write a million entries that expire in an hour."""
    with _opened(folder / "many") as cache:
        for start in range(0, MANY, _BATCH):
            batch = {f"computed:{start + n}": os.urandom(_BYTES) for n in range(_BATCH)}
            cache.put_many(batch, ttl=3_600)
    return 0.0


def put(folder: Path, _rows: int) -> float:
    """Time puts of typed values, one by one, with expiry, limits and counters."""
    shutil.rmtree(folder / "small", ignore_errors=True)
    values = dict(_values("computed:"))
    with _opened(folder / "small") as cache:
        started = time.perf_counter()
        for key, value in values.items():
            cache.put(key, value)
        return time.perf_counter() - started


def get(folder: Path, _rows: int) -> float:
    """Time gets of these values, one by one."""
    keys = [key for key, _ in _values("computed:")]
    random.Random(1).shuffle(keys)  # noqa: S311 - an order
    with _opened(folder / "small") as cache:
        started = time.perf_counter()
        found = sum(cache.get(key) is not None for key in keys)
        seconds = time.perf_counter() - started
    expect(found, VALUES)
    return seconds


def bare_put(folder: Path, _rows: int) -> float:
    """Time the bare driver with plain keys and values."""
    shutil.rmtree(folder / "bare", ignore_errors=True)
    values = [(os.urandom(24), value) for _, value in _values("")]
    with contextlib.closing(_bare(folder)) as bare:
        started = time.perf_counter()
        for key, value in values:
            bare.put(key, value)
        return time.perf_counter() - started


def bare_get(folder: Path, _rows: int) -> float:
    """Time the bare driver's gets, in a random order, too."""
    with contextlib.closing(_bare(folder)) as bare:
        keys = [key for key, _ in bare.items()]
        random.Random(1).shuffle(keys)  # noqa: S311 - an order
        started = time.perf_counter()
        found = sum(bare.get(key) is not None for key in keys)
        seconds = time.perf_counter() - started
    expect(found, VALUES)
    return seconds


def computed(_folder: Path, _rows: int) -> float:
    """Time questions that are compiled already, computed."""
    with Lab.open() as lab:
        lab.metrics.memo.on = False  # type: ignore[union-attr]
        return _time_questions(lab) / _AGAIN


def kept(_folder: Path, _rows: int) -> float:
    """Time the same questions, whose answers are kept."""
    with Lab.open() as lab:
        return _time_questions(lab) / _AGAIN


def report(_folder: Path, _rows: int) -> float:
    """Time the report without kept answers."""
    return _report({KEEP_ANSWERS_VARIABLE: "no"})


def report_again(folder: Path, _rows: int) -> float:
    """Time the report on a snapshot for which it was made before."""
    made = folder / "made"
    if not made.exists():
        _report({})
        made.touch()
    return _report({})


def inspect(folder: Path, _rows: int) -> float:
    """Time a look into a million entries, read-only."""
    from aico_lab.cache.inspection import describe

    adapter = RocksDBAdapter(folder / "many", _KEY, read_only=True)
    started = time.perf_counter()
    with adapter.connect() as store:
        found = describe(store)
    seconds = time.perf_counter() - started
    expect(sum(one.entries for one in found.namespaces), MANY)
    return seconds


def expire(folder: Path, _rows: int) -> dict[str, float]:
    """Measure what a sweep of a million expired entries takes and frees."""
    copy = folder / "expired"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder / "many", copy)
    before = _size(copy)
    with CacheStore(
        RocksDBAdapter(copy, _KEY).connect(), clock=lambda: time.time() + 7_200
    ) as cache:
        started = time.perf_counter()
        expect(cache.sweep().expired, MANY)
        seconds = time.perf_counter() - started
    return {"sweep (s)": seconds, "freed by the sweep (%)": 100 * (1 - _size(copy) / before)}


JOBS: Final[dict[str, Callable[[Path, int], float | dict[str, float]]]] = {
    "prepare": prepare,
    "fill": fill,
    "put": put,
    "bare-put": bare_put,
    "get": get,
    "bare-get": bare_get,
    "computed": computed,
    "kept": kept,
    "report": report,
    "report-again": report_again,
    "inspect": inspect,
    "expire": expire,
}

run_bench = bench_of(
    "aico_lab.bench.cache",
    setup=SETUP,
    jobs=[job for job in JOBS if job not in SETUP],
    ratios=RATIOS,
)


def _opened(folder: Path) -> CacheStore:
    return CacheStore(RocksDBAdapter(folder, _KEY).connect())


def _bare(folder: Path) -> Any:
    import rocksdict

    return rocksdict.Rdict(str(folder / "bare"), rocksdict.Options(raw_mode=True))


def _values(prefix: str) -> Iterator[tuple[str, bytes]]:
    numbers = random.Random(0)  # noqa: S311 - the same values in every process
    for number in range(VALUES):
        yield f"{prefix}{number:016}", numbers.randbytes(_BYTES)


def _time_questions(lab: Lab) -> float:
    for name in _QUESTIONS:
        lab.metrics[name]()
    started = time.perf_counter()
    for _ in range(_AGAIN):
        for name in _QUESTIONS:
            lab.metrics[name]()
    return time.perf_counter() - started


def _report(environment: dict[str, str]) -> float:
    command = [sys.executable, "-m", "aico_lab", "report", "run", "pattern_analysis", "--json"]
    started = time.perf_counter()
    subprocess.run(  # noqa: S603 - our own module
        command, check=True, capture_output=True, env=os.environ | environment
    )
    return time.perf_counter() - started


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


if __name__ == "__main__":
    run_job(JOBS)
