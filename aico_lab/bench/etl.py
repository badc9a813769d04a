"""Importing and loading, against peers that do the same job in plain text.

Every job runs in a process of its own, so that none warms another's caches of memory, and reports
its own time (without the start of Python) and the peak of its memory. Jobs take turns, and medians
are quoted. The messages are real ones, repeated under new ids until there are enough.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aico_lab.config import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

SETUP = ("write-input", "plain-copy")
OURS = ("import", "full", "increment", "nothing")
PEERS = ("sqlite-scanner", "bare-executemany", "rows")
CHANGED = 1_000


@dataclass(frozen=True, slots=True)
class EtlBench:
    """What was measured.

    Attributes:
        rows: Messages.
        seconds: Median seconds of each job.
        peak_mb: The largest peak of memory of each job, in MB.
        ratios: Our time divided by a peer's; below 1 is faster.
    """

    rows: int
    seconds: dict[str, float]
    peak_mb: dict[str, float]
    ratios: dict[str, float]

    def describe(self) -> str:
        """Give the table that people read."""
        lines = [f"{self.rows:,} messages, medians", f"{'job':<20}{'seconds':>10}{'peak MB':>10}"]
        lines += [
            f"{job:<20}{seconds:>10.3f}{self.peak_mb[job]:>10.0f}"
            for job, seconds in self.seconds.items()
        ]
        lines += ["", "ratio of times (below 1 is faster)"]
        lines += [f"{pair:<52}{ratio:>8.2f}" for pair, ratio in self.ratios.items()]
        return "\n".join(lines)


def run_bench(rows: int, repeat: int, progress: Callable[[str, int, int | None], None]) -> EtlBench:
    """Run every job `repeat` times.

    Args:
        rows: How many messages.
        repeat: How often each job runs.
        progress: Told of the job, the runs done, and the runs in all.
    """
    seconds: dict[str, list[float]] = {}
    peaks: dict[str, float] = {}
    total = len(SETUP) + repeat * (len(OURS) + len(PEERS))
    done = 0
    with tempfile.TemporaryDirectory(prefix="aico-lab-bench-") as folder:
        for round_ in range(repeat + 1):
            for job in SETUP if round_ == 0 else (*OURS, *PEERS):
                progress("bench etl", done, total)
                outcome = _run(job, Path(folder), rows)
                if job not in SETUP:
                    seconds.setdefault(job, []).append(outcome["seconds"])
                    peaks[job] = max(peaks.get(job, 0), outcome["peak_mb"])
                done += 1
        progress("bench etl", done, total)
    medians = {job: statistics.median(times) for job, times in seconds.items()}
    ratios = {
        "full load / sqlite-scanner (plain text)": medians["full"] / medians["sqlite-scanner"],
        "full load / rows through Python (plain text)": medians["full"] / medians["rows"],
        "import / bare executemany (plain text)": medians["import"] / medians["bare-executemany"],
        f"increment of {CHANGED:,} / full load": medians["increment"] / medians["full"],
        "sync with nothing to do / full load": medians["nothing"] / medians["full"],
    }
    return EtlBench(rows, medians, peaks, {name: round(r, 3) for name, r in ratios.items()})


def _run(job: str, folder: Path, rows: int) -> dict[str, float]:
    """Run a job in a process of its own, on a lab whose key dies with the folder."""
    settings = Settings(home=folder / "home", key_file=folder / "bench.key")
    with settings.exported():
        finished = subprocess.run(  # noqa: S603 - our own module
            [sys.executable, "-m", "aico_lab.bench.jobs", job, str(folder), str(rows)],
            check=False,
            capture_output=True,
            text=True,
            env=os.environ,
        )
    if finished.returncode != 0:
        raise RuntimeError(f"{job}: {(finished.stderr.splitlines() or ['it failed'])[-1]}")
    outcome: dict[str, float] = json.loads(finished.stdout)
    return outcome
