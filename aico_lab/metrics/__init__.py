"""Metrics: questions about conversations, each declared once and asked as `lab.metrics.NAME`.

The metrics of this package stand in a folder for each domain, the parts that all of them use in
`engine`. Another package adds its own with what is exported here and an entry point of the group
`aico_lab.metrics`.
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


def __getattr__(name: str) -> object:  # imported on first use: names alone must cost nothing
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.engine.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
