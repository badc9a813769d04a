"""Run the jobs of a benchmark, each in a process of its own, in turns, and take medians.

A process of its own keeps one job from warming another's caches of memory, and lets the peak of its
memory be its own. A job prints one JSON object: its seconds, without the start of Python, and its
peak in MB.

People's Python keeps the bytecode of what it imports, so that of the jobs does, too, whatever the
environment says: to compile it in every process takes longer than many a job.
"""

from __future__ import annotations

import compileall
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aico_lab.config import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

NO_BYTECODE: Final = "PYTHONDONTWRITEBYTECODE"
FEWEST_ROWS: Final = 1_000


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was measured.

    Attributes:
        rows: How many rows each job had.
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
        lines = [f"{self.rows:,} messages, medians", f"{'job':<24}{'seconds':>10}{'peak MB':>10}"]
        lines += [
            f"{job:<24}{seconds:>10.3f}{self.peak_mb[job]:>10.0f}"
            for job, seconds in self.seconds.items()
        ]
        lines += ["", "ratio of times (below 1 is faster)"]
        lines += [f"{pair:<56}{ratio:>8.3f}" for pair, ratio in self.ratios.items()]
        return "\n".join(lines)


def measure(
    *,
    setup: Mapping[str, str],
    jobs: Mapping[str, str],
    ratios: Mapping[str, tuple[str, str]],
    rows: int,
    repeat: int,
    progress: Callable[[str, int, int | None], None],
) -> Outcome:
    """Run the setup once and every job `repeat` times, in turns.

    Args:
        setup: Jobs that prepare the data, each with the module that runs it as
            `python -m MODULE JOB FOLDER ROWS`.
        jobs: Jobs that are measured.
        ratios: What each ratio is called, and the two jobs whose medians it divides.
        rows: How many rows.
        repeat: How often each job runs.
        progress: Told of the runs done, and of the runs in all.
    """
    seconds: dict[str, list[float]] = {}
    peaks: dict[str, float] = {}
    # The libraries may lack bytecode where nobody was to write any: then all jobs run once before.
    first = {**setup, **jobs} if NO_BYTECODE in os.environ else {}
    total = len(first) + len(setup) + repeat * len(jobs)
    done = itertools.count()

    def run(
        some: Mapping[str, str], folder: str, rows: int
    ) -> Iterator[tuple[str, dict[str, float]]]:
        for job, module in some.items():
            progress("bench", next(done), total)
            yield job, _run(module, job, Path(folder), rows)

    compileall.compile_dir(Path(__file__).parents[1], quiet=2)
    with tempfile.TemporaryDirectory(prefix="aico-lab-bench-") as folder:
        list(run(first, folder, FEWEST_ROWS))
    with tempfile.TemporaryDirectory(prefix="aico-lab-bench-") as folder:
        list(run(setup, folder, rows))
        for _ in range(repeat):
            for job, measured in run(jobs, folder, rows):
                seconds.setdefault(job, []).append(measured["seconds"])
                peaks[job] = max(peaks.get(job, 0), measured["peak_mb"])
    progress("bench", total, total)
    medians = {job: statistics.median(times) for job, times in seconds.items()}
    divided = {name: round(medians[a] / medians[b], 3) for name, (a, b) in ratios.items()}
    return Outcome(rows, medians, peaks, divided)


def run_job(jobs: Mapping[str, Callable[[Path, int], float]]) -> None:
    """Do what the arguments of this process ask for, and print what it took."""
    job, folder, rows = sys.argv[1:]
    seconds = jobs[job](Path(folder), int(rows))
    whose = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    peak = max(resource.getrusage(who).ru_maxrss for who in whose)
    peak_mb = peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    sys.stdout.write(json.dumps({"seconds": seconds, "peak_mb": peak_mb}))


def expect(found: int, expected: int) -> None:
    """Fail where a job did not do all of its work."""
    if found != expected:
        raise RuntimeError(f"{found} rows came through, and {expected} were meant to")


def _run(module: str, job: str, folder: Path, rows: int) -> dict[str, float]:
    """Run a job in a process of its own, on a lab whose key dies with the folder."""
    if hasattr(os, "sync"):
        os.sync()  # else a job waits for the disk to take what the one before it wrote
    environment = Settings(home=folder / "home", key_file=folder / "bench.key").environment()
    environment.pop(NO_BYTECODE, None)
    finished = subprocess.run(  # noqa: S603 - our own module
        [sys.executable, "-m", module, job, str(folder), str(rows)],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
    )
    if finished.returncode != 0:
        raise RuntimeError(f"{job}: {(finished.stderr.splitlines() or ['it failed'])[-1]}")
    measured: dict[str, float] = json.loads(finished.stdout)
    return measured
