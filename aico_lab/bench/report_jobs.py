"""The jobs of the benchmark of the report."""

from __future__ import annotations

import gzip
import os
import shutil
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from aico_lab.bench.harness import run_job
from aico_lab.config import KEEP_ANSWERS_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_OPTIONS: Final = ("--no-sandbox", "--headless", "--disable-gpu", "--disable-background-networking")
_CHANGES: Final = 10
"""The number of changes of the page's filters."""

# The end of the last task that keeps the page from reacting: it is interactive from then on.
_WATCH: Final = """
window.busyUntil = 0;
new PerformanceObserver(list => {
  for (const task of list.getEntries())
    window.busyUntil = Math.max(window.busyUntil, task.startTime + task.duration);
}).observe({type: "longtask", buffered: true});
"""
_OPENED: Final = """() => {
  const paint = performance.getEntriesByName("first-contentful-paint")[0];
  return [paint ? paint.startTime : 0, window.busyUntil];
}"""
# A change of the side until the frame after it is painted.
_FILTER: Final = """async () => {
  const frame = () => new Promise(requestAnimationFrame);
  const side = document.querySelector(".aico-lab-explorer select");
  const began = performance.now();
  side.selectedIndex = (side.selectedIndex + 1) % side.options.length;
  side.dispatchEvent(new Event("change", {bubbles: true}));
  await frame(); await frame();
  return performance.now() - began;
}"""


def prepare(folder: Path, rows: int) -> float:
    """Import and sync real messages."""
    from aico_lab.bench.etl_jobs import import_, write_input

    write_input(folder, rows)
    import_(folder, rows)
    return _aico_lab("sync")


def report(_folder: Path, _rows: int) -> float:
    """Time the command that makes the report."""
    return _aico_lab("report", "run", "pattern_analysis")


def page(folder: Path, _rows: int) -> dict[str, float]:
    """Measure the newest page: its size, and if Chromium and Playwright are there, its speed."""
    file = max(
        (folder / "home" / "reports").glob("*/*/*.html"), key=lambda one: one.stat().st_mtime
    )
    content = file.read_bytes()
    figures = {"page MB": len(content) / 1e6, "page MB, gzip": len(gzip.compress(content)) / 1e6}
    return figures | _in_browser(file)


def _in_browser(file: Path) -> dict[str, float]:
    executable = next(filter(None, map(shutil.which, _BROWSERS)), None)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return {}
    if executable is None:
        return {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=list(_OPTIONS))
        opened: Any = browser.new_context(offline=True).new_page()
        opened.add_init_script(_WATCH)
        opened.goto(file.as_uri())
        opened.wait_for_timeout(5_000)  # charts below the fold are drawn when the page is idle
        paint, interactive = opened.evaluate(_OPENED)
        answers = [opened.evaluate(_FILTER) for _ in range(_CHANGES)]
        browser.close()
    return {
        "first paint (ms)": paint,
        "interactive (ms)": max(paint, interactive),
        "filter answers (ms)": statistics.median(answers),
    }


SETUP: dict[str, Callable[[Path, int], float]] = {"prepare": prepare}
JOBS: dict[str, Callable[[Path, int], float | dict[str, float]]] = {"report": report, "page": page}


def _aico_lab(*arguments: str) -> float:
    """Run a command, which finds no kept answers, and return the seconds until it ends."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "aico_lab", *arguments]
    environment = os.environ | {KEEP_ANSWERS_VARIABLE: "no"}
    subprocess.run(  # noqa: S603 - our own command
        command, check=True, stdout=subprocess.DEVNULL, env=environment
    )
    return time.perf_counter() - started


if __name__ == "__main__":
    run_job(SETUP | JOBS)
