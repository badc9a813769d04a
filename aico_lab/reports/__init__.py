"""Run notebooks as reports: validated parameters, a record of every run, and one HTML file."""

from __future__ import annotations


def __getattr__(name: str) -> object:
    if name == "charts":  # users' notebooks may import it from here
        from aico_lab import charts

        return charts
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
