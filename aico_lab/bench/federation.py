"""The benchmark of federated devices: sealing and applying, against writing the same rows."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING

from aico_lab.bench.harness import bench_of, expect, run_job
from aico_lab.bench.real import batches
from aico_lab.importing.importer import write_batch
from aico_lab.lab import Lab

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RATIOS = {
    "sealing / writing the rows with the feed": ("seal", "insert"),
    "applying / writing the rows with the feed": ("apply", "insert"),
    "a whole first sync / writing the rows with the feed": ("first-sync", "insert"),
    "an idle sync / writing the rows with the feed": ("idle-sync", "insert"),
}


def insert(folder: Path, rows: int) -> float:
    """Time writing messages on the first of two new devices, with people, channels and feed."""
    for name in ("a", "b", "c", "shared"):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / "shared").mkdir()
    made = list(batches(rows))
    key_file = folder / "bench.key"
    with Lab.create(folder / "a", key_file=key_file) as lab:
        lab.devices.federation.begin("a")
        for name in ("b", "c"):
            with Lab.create(folder / name, key_file=key_file) as other:
                keys = other.devices.federation.create_keys()
                other.devices.federation.join(lab.devices.federation.invite(keys, name))
        started = time.perf_counter()
        for batch in made:
            with lab.primary.transaction():
                write_batch(lab.primary, batch, batch.messages)
        return time.perf_counter() - started


def seal(folder: Path, _rows: int) -> float:
    """Time sealing of these messages."""
    with _open(folder, "a") as lab:
        started = time.perf_counter()
        lab.devices.federation.seal()
        return time.perf_counter() - started


def size(folder: Path, rows: int) -> dict[str, float]:
    """Return the size of the bundles."""
    with _open(folder, "a") as lab:
        lab.devices.federation.exchange(folder / "shared")
    total = sum(path.stat().st_size for path in (folder / "shared").glob("*/*.age"))
    return {"bytes a message": total / rows}


def apply(folder: Path, rows: int) -> float:
    """Time taking these messages in on another device."""
    with _open(folder, "b") as lab:
        lab.devices.federation.exchange(folder / "shared")
        started = time.perf_counter()
        lab.devices.federation.take_in()
        seconds = time.perf_counter() - started
        _expect_all(lab, rows)
    return seconds


def first_sync(folder: Path, rows: int) -> float:
    """Time the whole sync of a third device, with the copying of files."""
    with _open(folder, "c") as lab:
        started = time.perf_counter()
        lab.devices.sync(folder=folder / "shared")
        seconds = time.perf_counter() - started
        _expect_all(lab, rows)
    return seconds


def idle_sync(folder: Path, _rows: int) -> float:
    """Time a sync with nothing to do."""
    with _open(folder, "c") as lab:
        lab.devices.sync()
        started = time.perf_counter()
        lab.devices.sync()
        return time.perf_counter() - started


JOBS: dict[str, Callable[[Path, int], float | dict[str, float]]] = {
    "insert": insert,
    "seal": seal,
    "size": size,
    "apply": apply,
    "first-sync": first_sync,
    "idle-sync": idle_sync,
}

run_bench = bench_of("aico_lab.bench.federation", jobs=JOBS, ratios=RATIOS)


def _open(folder: Path, name: str) -> Lab:
    return Lab.open(folder / name, key_file=folder / "bench.key")


def _expect_all(lab: Lab, rows: int) -> None:
    counted = lab.primary.fetch_one("SELECT count(*) FROM messages")
    expect(counted[0] if counted else 0, rows)


if __name__ == "__main__":
    run_job(JOBS)
