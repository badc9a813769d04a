"""Run the jobs of a benchmark in turns, each in its own process, and take medians.

In its own process a job finds no caches that another job has filled, and has its own peak of
memory. A job prints one JSON object: its seconds, without the start of Python, and its peak in MB.

Jobs keep the bytecode of their imports, as people's Python does, whatever the environment says:
compiling in every process takes longer than some jobs.
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
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from aico_lab.config import Settings

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

OnRun = Callable[[str, int, int | None], None]
"""Called with "bench", the number of finished runs, and the number of all runs."""

NO_BYTECODE: Final = "PYTHONDONTWRITEBYTECODE"
FEWEST_ROWS: Final = 1_000


@dataclass(frozen=True, slots=True)
class BenchResult:
    """The results of a benchmark.

    Attributes:
        rows: The number of messages of each job.
        seconds: The median duration of each job, in seconds.
        peak_mb: The largest peak of memory of each job, in MB.
        ratios: Time of one job divided by that of another; below 1 the first is faster.
        figures: Medians of the figures that jobs return instead of seconds, by their names.
    """

    rows: int
    seconds: dict[str, float]
    peak_mb: dict[str, float]
    ratios: dict[str, float]
    figures: dict[str, float] = field(default_factory=dict)

    def describe(self) -> str:
        """Return a table of the results as text."""
        lines = [f"{self.rows:,} messages, medians", f"{'job':<24}{'seconds':>10}{'peak MB':>10}"]
        lines += [
            f"{job:<24}{seconds:>10.3f}{self.peak_mb[job]:>10.0f}"
            for job, seconds in self.seconds.items()
        ]
        if self.ratios:
            lines += ["", "ratio of times (below 1 is faster)"]
            lines += [f"{pair:<56}{ratio:>8.3f}" for pair, ratio in self.ratios.items()]
        if self.figures:
            lines += ["", *(f"{name:<24}{value:>10.3f}" for name, value in self.figures.items())]
        return "\n".join(lines)


def measure(
    *,
    setup: Mapping[str, str],
    jobs: Mapping[str, str],
    ratios: Mapping[str, tuple[str, str]],
    rows: int,
    repeat: int,
    progress: OnRun,
) -> BenchResult:
    """Run the setup once and every job `repeat` times, in turns.

    Args:
        setup: Jobs that prepare the data, each with the module that runs it as
            `python -m MODULE JOB FOLDER ROWS`.
        jobs: Jobs that are measured.
        ratios: The name of each ratio, and the two jobs whose medians it divides.
        rows: The number of messages.
        repeat: The number of runs of each job.
        progress: Called with "bench", the number of finished runs, and the number of all runs.

    Raises:
        RuntimeError: A job failed.
    """
    seconds: dict[str, list[float]] = {}
    peaks: dict[str, float] = {}
    figures: dict[str, list[float]] = {}
    # With this variable libraries may have no bytecode yet: all jobs run once before to write it.
    first = {**setup, **jobs} if NO_BYTECODE in os.environ else {}
    total = len(first) + len(setup) + repeat * len(jobs)
    done = itertools.count()

    def run(
        some: Mapping[str, str], folder: str, rows: int
    ) -> Iterator[tuple[str, dict[str, Any]]]:
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
                for name, value in measured.get("figures", {}).items():
                    figures.setdefault(name, []).append(value)
                if measured["seconds"] is not None:
                    seconds.setdefault(job, []).append(measured["seconds"])
                    peaks[job] = max(peaks.get(job, 0), measured["peak_mb"])
    progress("bench", total, total)
    medians = {job: statistics.median(times) for job, times in seconds.items()}
    divided = {name: round(medians[a] / medians[b], 3) for name, (a, b) in ratios.items()}
    found = {name: statistics.median(values) for name, values in figures.items()}
    return BenchResult(rows, medians, peaks, divided, found)


def bench_of(
    module: str,
    *,
    jobs: Collection[str],
    setup: Collection[str] = (),
    ratios: Mapping[str, tuple[str, str]],
) -> Callable[[int, int, OnRun], BenchResult]:
    """Return a benchmark whose jobs are all run by one module.

    Args:
        module: The module, which runs a job as `python -m MODULE JOB FOLDER ROWS`.
        jobs: The names of the jobs that are measured.
        setup: The names of the jobs that prepare the data.
        ratios: The name of each ratio, and the two jobs whose medians it divides.
    """

    def run_bench(rows: int, repeat: int, progress: OnRun) -> BenchResult:
        """Run the setup once and every job `repeat` times, with `rows` messages; see `measure`."""
        return measure(
            setup=dict.fromkeys(setup, module),
            jobs=dict.fromkeys(jobs, module),
            ratios=ratios,
            rows=rows,
            repeat=repeat,
            progress=progress,
        )

    return run_bench


def run_job(jobs: Mapping[str, Callable[[Path, int], float | dict[str, float]]]) -> None:
    """Run the job in the arguments of this process; print its figures and its peak in MB.

    Args:
        jobs: Each returns its seconds, or else figures by name.
    """
    job, folder, rows = sys.argv[1:]
    made = jobs[job](Path(folder), int(rows))
    seconds, figures = (None, made) if isinstance(made, dict) else (made, {})
    whose = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    peak = max(resource.getrusage(who).ru_maxrss for who in whose)
    peak_mb = peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    sys.stdout.write(json.dumps({"seconds": seconds, "peak_mb": peak_mb, "figures": figures}))


def expect(found: int, expected: int) -> None:
    """Raise RuntimeError if a job did not process all rows."""
    if found != expected:
        raise RuntimeError(f"{found} rows were processed instead of {expected}")


def _run(module: str, job: str, folder: Path, rows: int) -> dict[str, Any]:
    """Run a job in its own process, with a home and a key in the folder; return its figures."""
    if hasattr(os, "sync"):
        os.sync()  # else a job waits until the disk has written the data of the job before
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
    measured: dict[str, Any] = json.loads(finished.stdout)
    return measured
