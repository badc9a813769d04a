"""Metrics: questions about conversations, each declared once and called as `lab.metrics.NAME`.

Each domain of metrics has its own folder; the parts that all of them share are in `engine`. Another
package declares metrics with the names exported here and registers them as entry points of the
group `aico_lab.metrics`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aico_lab.metrics.engine.answer import Answer
    from aico_lab.metrics.engine.filters import Filters
    from aico_lab.metrics.engine.intervals import Statistic, estimate, mean, percent
    from aico_lab.metrics.engine.metric import (
        PEOPLE,
        Column,
        Metric,
        Parameter,
        RoleFilter,
        interval,
        metric,
    )
    from aico_lab.metrics.engine.talk import Talk

_MODULES = {
    "Answer": "answer",
    "Column": "metric",
    "Filters": "filters",
    "Metric": "metric",
    "PEOPLE": "metric",
    "Parameter": "metric",
    "RoleFilter": "metric",
    "Statistic": "intervals",
    "Talk": "talk",
    "estimate": "intervals",
    "interval": "metric",
    "mean": "intervals",
    "metric": "metric",
    "percent": "intervals",
}

__all__ = [
    "PEOPLE",
    "Answer",
    "Column",
    "Filters",
    "Metric",
    "Parameter",
    "RoleFilter",
    "Statistic",
    "Talk",
    "estimate",
    "interval",
    "mean",
    "metric",
    "percent",
]


def __getattr__(name: str) -> object:  # import on first use keeps `import aico_lab.metrics` fast
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.engine.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
