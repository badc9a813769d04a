"""Importing and loading, against peers that do the same job in plain text.

The messages are real ones, repeated under new ids until there are enough.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aico_lab.bench.harness import Outcome, measure

if TYPE_CHECKING:
    from collections.abc import Callable

RATIOS = {
    "full load / sqlite-scanner (plain text)": ("full", "sqlite-scanner"),
    "full load / rows through Python (plain text)": ("full", "rows"),
    "import / bare executemany (plain text)": ("import", "bare-executemany"),
    "increment of 1,000 / full load": ("increment", "full"),
    "sync with nothing to do / full load": ("nothing", "full"),
}


def run_bench(rows: int, repeat: int, progress: Callable[[str, int, int | None], None]) -> Outcome:
    """Measure an import, a full load, an increment, a sync with nothing to do, and the peers.

    Args:
        rows: How many messages.
        repeat: How often each job runs.
        progress: Told of the runs done, and of the runs in all.
    """
    return measure(
        "aico_lab.bench.etl_jobs",
        setup=("write-input", "plain-copy"),
        jobs=(
            "import", "full", "increment", "nothing", "sqlite-scanner", "rows", "bare-executemany",
        ),
        ratios=RATIOS,
        rows=rows,
        repeat=repeat,
        progress=progress,
    )  # fmt: skip
