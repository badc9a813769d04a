"""The jobs of the benchmark of personality: estimates of a large log, also by pandas, and evidence.

The evidence is computed from one simulated home for every 2,000 decisions of the log: 500 homes for
a million.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from aico_lab.bench import personality_evidence as evidence
from aico_lab.bench.harness import expect, run_job
from aico_lab.personality import targets
from aico_lab.personality.evaluation import evaluate
from aico_lab.personality.log import Log
from aico_lab.personality.outcomes import OUTCOMES
from aico_lab.personality.simulate import Simulation, World

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_FILE: Final = "log.npz"
_TARGET: Final = "warmer"
_PER_PERSON: Final = 100
_WEEKS: Final = 8
_ARRAYS: Final = (
    "person", "time_ms", "context", "features", "arm", "propensity", "reward", "probabilities",
    "policy", "profile",
)  # fmt: skip
_NAMES: Final = ("people", "contexts", "arms", "policies", "profiles", "names")


def simulate(folder: Path, rows: int) -> float:
    """Write a log of so many decisions, of which each has an outcome."""
    people = max(rows // _PER_PERSON, 30)
    world = World(people=people, weekly=1.2 * rows / people / _WEEKS, answered=1.0)
    log = Simulation(world).log(_WEEKS)
    log = log.choose(np.arange(len(log)) < rows)
    expect(len(log), rows)
    np.savez(folder / _FILE, **{name: getattr(log, name) for name in (*_ARRAYS, *_NAMES)})
    return 0.0


def _read(folder: Path) -> Log:
    with np.load(folder / _FILE) as file:
        given: dict[str, Any] = {name: file[name] for name in _ARRAYS}
        given |= {name: file[name].tolist() for name in _NAMES}
    return Log(**given, outcome=OUTCOMES["satisfaction"], simulated=True)


def evaluation(folder: Path, rows: int) -> float:
    """Time the gate, all estimators, their intervals and the diagnostics."""
    log = _read(folder)
    started = time.perf_counter()
    found = evaluate(log, targets.fixed(_TARGET))
    seconds = time.perf_counter() - started
    expect(found.diagnostics.decisions if found.diagnostics else 0, rows)
    return seconds


def by_pandas(folder: Path, rows: int) -> float:
    """Time the estimators and their intervals as one writes them down in pandas.

    The model is the mean of each arm and context in other folds; the intervals leave out each
    person in turn, with the quantile of the normal distribution.
    """
    log = _read(folder)
    started = time.perf_counter()
    target = log.arms.index(_TARGET)
    table = pd.DataFrame(
        {
            "person": log.person, "context": log.context, "arm": log.arm, "reward": log.reward,
            "w": (log.arm == target) / log.propensity, "fold": log.person % 5,
        }
    )  # fmt: skip
    table["q"] = table["direct"] = np.nan
    for fold in range(5):
        means = table[table.fold != fold].groupby(["context", "arm"]).reward.mean()
        inside = table.fold == fold
        mine = table[inside]
        table.loc[inside, "q"] = means.reindex(
            pd.MultiIndex.from_frame(mine[["context", "arm"]])
        ).to_numpy()
        table.loc[inside, "direct"] = means.xs(target, level="arm").reindex(mine.context).to_numpy()
    table["n"] = 1.0
    table["wr"] = table.w * table.reward
    table["rest"] = table.w * (table.reward - table.q)
    table["switched"] = table.rest.where(table.w <= table.w.quantile(0.95), 0)
    table["shrunk"] = 10 * table.w / (table.w**2 + 10) * (table.reward - table.q)
    sums = table.groupby("person")[
        ["n", "direct", "w", "wr", "rest", "switched", "shrunk", "reward"]
    ].sum()
    for every in (sums.sum(), sums.sum() - sums):
        values = pd.DataFrame(
            {
                "DM": every["direct"] / every["n"],
                "IPW": every["wr"] / every["n"],
                "SNIPW": every["wr"] / every["w"],
                "DR": (every["direct"] + every["rest"]) / every["n"],
                "SNDR": every["direct"] / every["n"] + every["rest"] / every["w"],
                "Switch-DR": (every["direct"] + every["switched"]) / every["n"],
                "DRos": (every["direct"] + every["shrunk"]) / every["n"],
            },
            index=[0] if every["n"].ndim == 0 else every.index,
        )
        error = np.sqrt((len(values) - 1) / len(values) * ((values - values.mean()) ** 2).sum())
        _ = values - 1.96 * error, values + 1.96 * error
    seconds = time.perf_counter() - started
    expect(len(table), rows)
    return seconds


def _homes(rows: int) -> int:
    return max(rows // 2_000, 2)


def coverage(_folder: Path, rows: int) -> dict[str, float]:
    """Return the bias of the estimators and the coverage of their intervals."""
    return evidence.coverage(_homes(rows))


def gate(_folder: Path, rows: int) -> dict[str, float]:
    """Return how often the gate refuses, and passes, logs that it should."""
    return evidence.refusals(_homes(rows)) | evidence.passes(_homes(rows))


def years(_folder: Path, rows: int) -> dict[str, float]:
    """Return what following proposals for a year does; half of the homes have something to gain."""
    return evidence.years(_homes(rows) // 2)


def peeking(_folder: Path, rows: int) -> dict[str, float]:
    """Return the errors of watching a change."""
    return evidence.peeking(_homes(rows))


SETUP: Final[dict[str, Callable[[Path, int], float]]] = {"simulate": simulate}
JOBS: Final[dict[str, Callable[[Path, int], float | dict[str, float]]]] = {
    "evaluate": evaluation,
    "pandas": by_pandas,
    "coverage": coverage,
    "gate": gate,
    "years": years,
    "peeking": peeking,
}

if __name__ == "__main__":
    run_job(SETUP | JOBS)
