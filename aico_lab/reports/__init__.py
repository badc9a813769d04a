"""Run notebooks as reports: validated parameters, a record of every run, and one HTML file."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aico_lab.reports.lab_reports import Reports, find_notebook, notebooks
    from aico_lab.reports.records import ReportRun
    from aico_lab.reports.runner import RunResult

_MODULES = {
    "ReportRun": "records",
    "Reports": "lab_reports",
    "RunResult": "runner",
    "find_notebook": "lab_reports",
    "notebooks": "lab_reports",
}

__all__ = [
    "ReportRun",
    "Reports",
    "RunResult",
    "find_notebook",
    "notebooks",
]


def __getattr__(name: str) -> object:  # imported on first use: the libraries behind it are slow
    if name == "charts":  # the first import of a submodule asks the package for it
        return import_module(f"{__name__}.charts")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
